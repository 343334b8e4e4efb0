"""Stages: the cache that makes a rerun cheap, and children that fail."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from damage import BIAS, spoil

from mvsdk.devices import find_chipset
from mvsdk.errors import BundleError, MvsdkError
from mvsdk_export import export
from mvsdk_export.checkpoints import open_model
from mvsdk_export.errors import CheckpointError, ExportError
from mvsdk_export.families import find_recipe
from mvsdk_export.jobs import process, runner
from mvsdk_export.jobs.failures import failure_of
from mvsdk_export.jobs.process import ChildError, Ending
from mvsdk_export.jobs.runner import Stage, StageRunner
from mvsdk_export.parity.recording import calibration_of, hash_of, record
from mvsdk_export.planning.request import ExportRequest, plan_variants

pytestmark = pytest.mark.torch


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let stages end at once; return the jobs that children would have got."""
    started: list[dict[str, Any]] = []

    def run_child(name: str, job: Mapping[str, Any], folder: Path, *_: Any) -> None:
        del name
        started.append(dict(job))
        report = {
            "result": {"number": len(started)},
            "seconds": 1.5,
            "peak_bytes": 9,
            "base_bytes": 4,
        }
        (folder / runner.RESULT).write_text(json.dumps(report))

    monkeypatch.setattr(runner, "_run_child", run_child)
    return started


def test_finished_stage_is_found_by_the_next_runner(
    jobs: list[dict[str, Any]], tmp_path: Path
) -> None:
    first = StageRunner(tmp_path).run("trace x", "trace", {"component": "x"})
    again = StageRunner(tmp_path).run("trace x", "trace", {"component": "x"})
    assert [first.reused, again.reused] == [False, True]
    assert again.result == {"number": 1}
    assert (again.folder, again.seconds, again.peak_bytes) == (first.folder, 1.5, 9)
    assert len(jobs) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"function": "record"},
        {"arguments": {"component": "y"}},
        {"fingerprint": "other weights"},
    ],
)
def test_stage_is_made_again_when_what_it_depends_on_changed(
    jobs: list[dict[str, Any]], tmp_path: Path, change: dict[str, Any]
) -> None:
    job: dict[str, Any] = {"function": "trace", "arguments": {"component": "x"}}
    runner = StageRunner(tmp_path)
    runner.run("x", **job)
    assert not runner.run("x", **{**job, **change}).reused
    assert len(jobs) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("tool_versions", lambda: {"torch": "0.1"}), ("source_hash", lambda: "another source")],
)
def test_stage_is_made_again_by_another_toolchain(
    jobs: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    value: Callable[[], Any],
) -> None:
    runner = StageRunner(tmp_path)
    runner.run("x", "trace", {})
    monkeypatch.setattr(runner, name, value)
    assert not runner.run("x", "trace", {}).reused
    assert len(jobs) == 2


def test_stage_that_needs_several_gets_a_list_of_their_folders(
    jobs: list[dict[str, Any]], tmp_path: Path
) -> None:
    runner = StageRunner(tmp_path)
    first, second = (runner.run("x", "trace", {"component": name}) for name in "ab")
    orders = ([first, second], [second, first], (first, second))
    made = [runner.run("y", "join", {}, needs={"pieces": order}) for order in orders]
    assert jobs[2]["arguments"] == {"pieces": [str(first.folder), str(second.folder)]}
    assert [stage.reused for stage in made] == [False, False, True]
    assert runner.read_result(made[0].folder) == made[0].result


def test_stage_gets_the_folders_of_those_it_needs_and_changes_with_them(
    jobs: list[dict[str, Any]], tmp_path: Path
) -> None:
    runner = StageRunner(tmp_path)
    first, second = (runner.run("x", "trace", {"component": name}) for name in "ab")
    made = [runner.run("y", "finish", {}, needs={"traced": x}) for x in (first, second, first)]
    assert jobs[2]["arguments"] == {"traced": str(first.folder)}
    assert [stage.reused for stage in made] == [False, False, True]


def test_place_of_a_file_decides_nothing(jobs: list[dict[str, Any]], tmp_path: Path) -> None:
    runner = StageRunner(tmp_path)
    here = runner.run("x", "trace", {}, paths={"model": Path("here")}, fingerprint="weights")
    there = runner.run("x", "trace", {}, paths={"model": Path("there")}, fingerprint="weights")
    assert [job["arguments"] for job in jobs] == [{"model": "here"}]
    assert there.folder == here.folder


def test_stage_that_another_export_finished_meanwhile_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_child(name: str, job: Mapping[str, Any], folder: Path, *_: Any) -> None:
        del name, job
        (place,) = {path.name.split(".")[1] for path in tmp_path.iterdir()}
        report = {"result": "ours", "seconds": 1.0, "peak_bytes": 1, "base_bytes": 0}
        (folder / runner.RESULT).write_text(json.dumps(report))
        (tmp_path / place).mkdir()
        (tmp_path / place / runner.RESULT).write_text(json.dumps({**report, "result": "theirs"}))

    monkeypatch.setattr(runner, "_run_child", run_child)
    assert StageRunner(tmp_path).run("x", "trace", {}).result == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_forgotten_stages_leave_the_cache_and_others_stay(
    jobs: list[dict[str, Any]], tmp_path: Path
) -> None:
    kept = StageRunner(tmp_path).run("x", "trace", {"component": "kept"})
    runner = StageRunner(tmp_path)
    gone = runner.run("x", "trace", {"component": "gone"})
    runner.forget()
    assert len(jobs) == 2
    assert [kept.folder.exists(), gone.folder.exists()] == [True, False]


def test_interrupted_stage_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_child(name: str, job: Mapping[str, Any], folder: Path, *_: Any) -> None:
        del name, job
        (folder / "half.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_run_child", run_child)
    with pytest.raises(KeyboardInterrupt):
        StageRunner(tmp_path / "cache").run("x", "trace", {})
    assert not list(tmp_path.rglob("*"))


def request_of(path: Path, out: Path) -> ExportRequest:
    return ExportRequest(
        folder=open_model(path, find_recipe("sticker")),
        variants=plan_variants(
            "snapdragon",
            ("w8a16", "fp16"),
            chips=(find_chipset("sm8550"), find_chipset("sm8650")),
        ),
        num_frames=8,
        height=32,
        width=32,
        steps=(1, 2),
        out=out,
    )


def make_graphs(request: ExportRequest, cache: Path) -> list[Stage]:
    runner = StageRunner(cache)
    costs = export.check_request(request)
    lowerings = export.plan_lowerings(request, costs)
    folder = request.folder
    export._make_graphs(
        request,
        lowerings,
        runner.run,
        lambda: record(runner.run, export.CALIBRATION, calibration_of(request), None),
        {"paths": folder.paths, "fingerprint": hash_of(folder)},
    )
    names = tuple(stage.name for stage in runner.finished)
    assert export.plan_stages(request, costs)[: len(names)] == names
    return runner.finished


def test_changed_weight_makes_every_stage_again(
    jobs: list[dict[str, Any]], model_copy: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    request = request_of(model_copy, tmp_path / "out")
    assert not any(stage.reused for stage in make_graphs(request, cache))
    assert all(stage.reused for stage in make_graphs(request, cache))
    spoil(BIAS, 0.125)(model_copy)
    changed = make_graphs(request_of(model_copy, tmp_path / "out"), cache)
    assert not any(stage.reused for stage in changed)
    assert len(jobs) == 2 * len(changed)


def test_one_model_is_made_per_precision_and_one_artefact_per_chip(
    jobs: list[dict[str, Any]], model_copy: Path, tmp_path: Path
) -> None:
    request = request_of(model_copy, tmp_path / "out")
    made = make_graphs(request, tmp_path / "cache")
    assert len(made) == len(jobs) == 2 * 3 + 1 + 3 * (2 + 2 * 2)
    reference_verification_and_bundle = 1 + len(request.variants) + 1
    costs = export.check_request(request)
    planned = export.plan_stages(request, costs)
    assert len(planned) == len(made) + reference_verification_and_bundle
    compiled = [job["arguments"] for job in jobs if job["function"] == "compile_chip"]
    assert {(x["chip"], x["float16"]) for x in compiled} == {
        (chip, float16) for chip in ("sm8550", "sm8650") for float16 in (False, True)
    }
    recorded = next(job["arguments"] for job in jobs if job["function"] == "record")
    assert recorded["prompts"] == list(request.folder.recipe.calibration_prompts)
    assert recorded["steps"] == [1, 2]


def failure(
    tmp_path: Path, status: int, text: str = "", error: ChildError | None = None
) -> MvsdkError:
    (tmp_path / "log").write_text(text)
    ending = Ending(status=status, error=error)
    return failure_of("compile transformer", ending, tmp_path / "log", tmp_path, tmp_path)


def test_child_that_crashed_is_one_line_with_the_signal(tmp_path: Path) -> None:
    message = str(failure(tmp_path, -signal.SIGSEGV))
    assert message == "compile transformer failed: its process was ended by SIGSEGV"
    message = str(failure(tmp_path, -signal.SIGABRT, "first\n  terminate called\n\n"))
    assert message.endswith("ended by SIGABRT, its last words: first; terminate called")
    assert "one --chip at a time" in str(failure(tmp_path, -signal.SIGKILL))


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("CheckpointError", CheckpointError),
        ("BundleError", BundleError),
        ("OSError", ExportError),
        ("NO_SUCH", ExportError),
    ],
)
def test_error_of_a_child_keeps_its_class(
    tmp_path: Path, word: str, kind: type[MvsdkError]
) -> None:
    told = ChildError(kind=word, text="the reason", number=None)
    error = failure(tmp_path, 1, "error: BundleError: what a library prints\n", told)
    assert type(error) is kind
    assert str(error) == "compile transformer failed: the reason"


def test_stage_that_another_runner_uses_is_not_forgotten(
    jobs: list[dict[str, Any]], tmp_path: Path
) -> None:
    first, second = StageRunner(tmp_path), StageRunner(tmp_path)
    stage = first.run("x", "trace", {})
    assert second.run("x", "trace", {}).reused
    first.forget()
    assert stage.folder.is_dir()
    second.forget()
    assert not list(tmp_path.iterdir())
    assert not first.run("x", "trace", {}).reused
    assert len(jobs) == 2


def test_child_that_said_nothing_of_its_own_is_one_line(tmp_path: Path) -> None:
    log = "first\nlast words\n \n"
    assert str(failure(tmp_path, 1, log)) == "compile transformer failed: first; last words"
    assert str(failure(tmp_path, 3)) == "compile transformer failed: exit status 3"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [
        ("no_such_function", {}, "KeyError: .no_such_function."),
        ("compile_chip", {"source": "nowhere", "chip": "sm1", "float16": False}, "unknown chip"),
    ],
)
def test_real_child_that_raises_is_one_line_and_leaves_no_stage(
    tmp_path: Path, function: str, arguments: dict[str, Any], reason: str
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(MvsdkError, match=f"^try it failed: .*{reason}") as caught:
        StageRunner(cache).run("try it", function, arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*"))


def test_real_child_that_crashes_is_one_line_with_the_signal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crashes = tmp_path / "interpreter"
    crashes.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashes.chmod(0o755)
    monkeypatch.setattr(process.sys, "executable", str(crashes))
    with pytest.raises(ExportError, match=r"^try it failed: .* ended by SIGSEGV$"):
        StageRunner(tmp_path / "cache").run("try it", "trace", {})
    assert sorted(tmp_path.rglob("*")) == [crashes]
