"""Jobs: keys, the cache that makes a rerun cheap, and processes that are forked or started."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from damage import BIAS, spoil
from probe_jobs import Look, Meet, Note, Other, Probe

from mvsdk.devices import find_chipset
from mvsdk.errors import BundleError, MvsdkError
from mvsdk_export.checkpoints import open_model
from mvsdk_export.errors import CheckpointError, ExportError
from mvsdk_export.families import find_recipe
from mvsdk_export.jobs import job as job_module
from mvsdk_export.jobs import process, runner
from mvsdk_export.jobs.failures import failure_of
from mvsdk_export.jobs.job import Files, Inputs, Job, Keys, Made, in_order, needs
from mvsdk_export.jobs.process import Ending, JobError, Launcher
from mvsdk_export.jobs.runner import Event, JobRunner
from mvsdk_export.jobs.source import _file_of, _place_of, source_files
from mvsdk_export.parity.jobs import RecordActivations
from mvsdk_export.planning.plan import ExportPlan, plan_export
from mvsdk_export.planning.request import ExportRequest, plan_variants
from mvsdk_export.targets.onnx.jobs import TraceOnnx
from mvsdk_export.targets.snapdragon.jobs import CompileContext

pytestmark = pytest.mark.torch

CAN_FORK = pytest.mark.skipif(not process.CAN_FORK, reason="processes are forked on Linux alone")


def make(cache: Path, job: Job[Any]) -> Made[Any]:
    with JobRunner(cache) as runner:
        runner.run([job])
        return runner[job]


# --- keys ----------------------------------------------------------------------------------------


def key_of(job: Job[Any]) -> str:
    return Keys()[job]


def test_key_is_what_decides_the_result() -> None:
    first = Note(text="a")
    assert key_of(first) == key_of(Note(text="a"))
    assert key_of(first) == key_of(Note(text="a", name="called otherwise", memory_bytes=5))
    others = [Note(text="b"), Other(text="a"), Note(text="a", first=first)]
    assert len({key_of(job) for job in (first, *others)}) == 4


def test_key_changes_with_what_a_job_needs_and_its_order() -> None:
    a, b = Note(text="a"), Note(text="b")
    pieces = [Note(pieces=order) for order in ((a, b), (b, a), (a, Note(text="b")))]
    assert key_of(pieces[0]) == key_of(pieces[2]) != key_of(pieces[1])


def test_place_of_files_decides_nothing(tmp_path: Path) -> None:
    here = Files(places={"note": tmp_path / "here"}, fingerprint="content")
    there = replace(here, places={"note": tmp_path / "there"})
    assert key_of(Note(files=here)) == key_of(Note(files=there))
    assert key_of(Note(files=here)) != key_of(Note(files=replace(here, fingerprint="other")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tool_versions", lambda: {"torch": "0.1"}),
        ("source_hash", lambda _: "another source"),
    ],
)
def test_key_is_another_with_another_toolchain(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    before = key_of(Note())
    monkeypatch.setattr(job_module, name, value)
    assert key_of(Note()) != before


def test_value_that_has_no_key_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True, eq=False)
    class Odd(Probe):
        what: object

        def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
            return {}

    with pytest.raises(TypeError, match="cannot be part of a job; use numbers, text, or Files"):
        key_of(Odd(what=Path("somewhere")))


def test_jobs_come_behind_what_they_need_and_once() -> None:
    a = Note(text="a")
    b = Note(text="b", first=a)
    c = Note(text="c", first=a, pieces=(b, a))
    assert needs(c) == (a, b)
    assert in_order([c, b]) == [a, b, c]


# --- the cache -----------------------------------------------------------------------------------


def test_finished_job_is_found_by_the_next_runner(tmp_path: Path) -> None:
    first, again = make(tmp_path, Note(text="x")), make(tmp_path, Note(text="x"))
    assert [first.reused, again.reused] == [False, True]
    assert (again.folder, again.seconds, again.peak_bytes, again.result) == (
        first.folder,
        first.seconds,
        first.peak_bytes,
        first.result,
    )
    assert first.peak_bytes >= first.base_bytes > 0
    assert not make(tmp_path, Note(text="y")).reused


def test_equal_jobs_of_a_plan_run_once(tmp_path: Path) -> None:
    first, second = Note(text="x"), Note(text="x", name="again")
    with JobRunner(tmp_path) as runner:
        runner.run([first, second])
        runner.run([second])
        assert runner[first] is runner[second]
        assert len(runner.finished) == 1


def test_job_gets_what_the_others_made(tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text("from outside")
    files = Files(places={"note": note}, fingerprint="x")
    a, b = Note(text="a"), Note(text="b", files=files)
    made = make(tmp_path / "cache", Note(first=b, pieces=(a, b, a)))
    assert made.result["found"] == made.result["notes"] == ["b", "a", "b", "a"]
    with JobRunner(tmp_path / "cache") as runner:
        runner.run([b])
        assert runner[b].result["files"] == ["from outside"]


def test_job_does_not_find_what_it_did_not_ask_for() -> None:
    a, b = Note(text="a"), Note(text="b", name="the other")
    inputs = Inputs([(a, Path("a"), {})])
    assert inputs[a].folder == Path("a")
    with pytest.raises(KeyError, match="the other"):
        inputs[b]


def test_job_that_another_export_finished_meanwhile_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Note(text="x")
    made = make(tmp_path / "other", job)

    def finish(self: Any) -> None:
        made.folder.rename(self.folder)
        raise ExportError("lost the race")

    monkeypatch.setattr(runner._Attempt, "finish", finish)
    found = make(tmp_path / "cache", Note(text="x"))
    assert found.result == made.result
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_half_a_result_is_none(tmp_path: Path) -> None:
    made = make(tmp_path, Note(text="x"))
    result = made.folder / runner.RESULT
    result.write_text(result.read_text()[:20])
    assert not make(tmp_path, Note(text="x")).reused


def test_forgotten_results_leave_the_cache_and_others_stay(tmp_path: Path) -> None:
    kept = make(tmp_path, Note(text="kept"))
    with JobRunner(tmp_path) as runner:
        gone = Note(text="gone")
        runner.run([gone])
        folder = runner[gone].folder
        runner.forget()
    assert [kept.folder.exists(), folder.exists()] == [True, False]


def test_result_that_another_runner_uses_is_not_forgotten(tmp_path: Path) -> None:
    job = Note(text="x")
    first, second = JobRunner(tmp_path), JobRunner(tmp_path)
    first.run([job])
    second.run([job])
    assert second[job].reused
    first.forget()
    assert second[job].folder.is_dir()
    second.forget()
    assert not list(tmp_path.iterdir())
    assert not make(tmp_path, job).reused


def test_interrupted_job_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.state == "running":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), JobRunner(tmp_path / "cache") as runner:
        runner.run([Note()], interrupt)
    assert not list(tmp_path.rglob("*"))


# --- processes -----------------------------------------------------------------------------------


@CAN_FORK
def test_processes_are_forked_from_one_that_stays(tmp_path: Path) -> None:
    with JobRunner(tmp_path) as runner:
        jobs = [Note(text=text) for text in "abc"]
        runner.run(jobs)
        results = [runner[job].result for job in jobs]
    assert len({result["pid"] for result in results} | {os.getpid()}) == 4
    assert len({result["parent"] for result in results}) == 1


def test_processes_can_be_started_anew(tmp_path: Path) -> None:
    """As on macOS and Windows."""
    with JobRunner(tmp_path, launcher=Launcher(warm=False)) as runner:
        jobs = [Note(text="a"), Note(text="b", first=Note(text="c"))]
        runner.run(jobs)
        results = [runner[job].result for job in jobs]
    assert {result["parent"] for result in results} == {os.getpid()}
    assert results[1]["found"] == ["c"]


@CAN_FORK
def test_modules_can_be_imported_before_there_is_a_job(tmp_path: Path) -> None:
    job = Look(module="colorsys", variable="HOME")
    with JobRunner(tmp_path / "a") as runner:
        runner.warm_up(["colorsys", "no_module_of_this_name"])
        runner.warm_up(["wave"])  # once is enough
        warm = runner._launcher._source._child.pid
        runner.run([job])
        assert runner[job].result["is_loaded"]
        assert runner[job].result["parent"] == warm
    assert not make(tmp_path / "b", job).result["is_loaded"]


@pytest.mark.parametrize("warm", [pytest.param(True, marks=CAN_FORK), False])
@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_jobs_side_by_side_do_not_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, warm: bool, own: str | None, expected: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    job = Look(module="os", variable="OMP_WAIT_POLICY")
    with JobRunner(tmp_path, launcher=Launcher(warm=warm)) as runner:
        runner.run([job])
        assert runner[job].result["value"] == expected


@CAN_FORK
def test_warm_process_that_died_between_jobs_is_made_again(tmp_path: Path) -> None:
    with JobRunner(tmp_path) as runner:
        first, second = Note(text="a"), Note(text="b")
        runner.run([first])
        os.kill(runner[first].result["parent"], signal.SIGKILL)
        while not runner._launcher._source.ended:
            pass
        runner.run([second])
        assert runner[second].result["parent"] != runner[first].result["parent"]


@CAN_FORK
def test_warm_process_that_does_not_start_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes = tmp_path / "interpreter"
    crashes.write_text("#!/bin/sh\necho no library >&2\nkill -SEGV $$\n")
    crashes.chmod(0o755)
    monkeypatch.setattr(process.sys, "executable", str(crashes))
    with pytest.raises(ExportError) as caught:
        make(tmp_path / "cache", Note())
    said = "the process that starts them ended by SIGSEGV: no library"
    assert str(caught.value).startswith(f"no process can be started for try it: {said}; end other")
    assert list(tmp_path.rglob("*")) == [crashes]


def test_independent_jobs_run_side_by_side(tmp_path: Path) -> None:
    meet = [Meet(folder=str(tmp_path), word=a, other=b) for a, b in ("ab", "ba")]
    with JobRunner(tmp_path / "cache", slots=2) as runner:
        runner.run(meet)
        assert [runner[job].result["met"] for job in meet] == [True, True]


@pytest.mark.parametrize(("slots", "memory_bytes"), [(1, None), (2, 150)])
def test_jobs_wait_for_a_slot_and_for_memory(
    tmp_path: Path, slots: int, memory_bytes: int | None
) -> None:
    jobs = [
        Meet(folder=str(tmp_path), word=a, other=b, seconds=0.5, memory_bytes=100)
        for a, b in ("ab", "bc")
    ]
    told: list[tuple[int, str]] = []

    def hear(event: Event) -> None:
        told.append((jobs.index(event.job), event.state))

    with JobRunner(tmp_path / "cache", slots=slots, memory_bytes=memory_bytes) as runner:
        runner.run(jobs, hear)
        assert runner[jobs[0]].result["met"] is False
    assert list(dict.fromkeys(told)) == [
        (0, "running"),
        (0, "finished"),
        (1, "running"),
        (1, "finished"),
    ]


def test_job_that_wants_more_memory_than_there_is_runs_alone(tmp_path: Path) -> None:
    job = Note(text="large", memory_bytes=1 << 60)
    with JobRunner(tmp_path, memory_bytes=100) as runner:
        runner.run([Note(text="small", memory_bytes=1), job])
        assert runner[job].result["text"] == "large"


# --- the plan of an export -----------------------------------------------------------------------


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


def plan_of(path: Path, tmp_path: Path) -> ExportPlan:
    return plan_export(request_of(path, tmp_path / "out"))


def test_changed_weight_makes_every_job_another(model_copy: Path, tmp_path: Path) -> None:
    keys = {key_of(job) for job in plan_of(model_copy, tmp_path).jobs}
    assert keys == {key_of(job) for job in plan_of(model_copy, tmp_path).jobs}
    spoil(BIAS, 0.125)(model_copy)
    assert not keys & {key_of(job) for job in plan_of(model_copy, tmp_path).jobs}


def test_one_model_is_made_per_precision_and_one_artefact_per_chip(
    model_copy: Path, tmp_path: Path
) -> None:
    plan = plan_of(model_copy, tmp_path)
    reference, calibration = 1, 1
    parts = len(plan.lowerings)
    assert parts == 4  # what depends on the text alone is a graph of its own
    assert len(plan.jobs) == 2 * parts + calibration + reference + parts * (2 + 2 * 2)
    bundle = 1
    assert len(plan.names) == len(plan.jobs) + bundle + len(plan.request.variants)
    assert len(set(plan.names)) == len(plan.names)
    compiled = [job for job in plan.jobs if isinstance(job, CompileContext)]
    assert {(job.chip, job.float16) for job in compiled} == {
        (chip, float16) for chip in ("sm8550", "sm8650") for float16 in (False, True)
    }
    recorded = plan.calibration
    assert isinstance(recorded, RecordActivations)
    assert list(recorded.prompts) == list(plan.request.folder.recipe.calibration_prompts)
    assert recorded.steps == (1, 2)


# --- source --------------------------------------------------------------------------------------


def test_source_of_a_job_is_what_it_imports_and_no_more(model_copy: Path, tmp_path: Path) -> None:
    """A changed docstring elsewhere drops no result."""
    plan = plan_of(model_copy, tmp_path)
    traced = next(job for job in plan.jobs if isinstance(job, TraceOnnx))
    places = source_places(traced)
    assert "mvsdk_export/graphs/onnx.py" in places
    assert "mvsdk_export/layers/implementations.py" in places  # by way of the network
    assert "mvsdk_export/families/sticker/transformer.py" in places
    unrelated = ("commands", "training", "parity", "targets/coreml", "targets/snapdragon")
    found = [x for x in places if x.startswith(tuple(f"mvsdk_export/{y}/" for y in unrelated))]
    assert found == []
    assert not any(x.startswith(("mvsdk_export/families/svd", "mvsdk/cli/")) for x in places)


LOADED_BY = """
import pickle, sys
from pathlib import Path
from mvsdk_export.jobs.job import Inputs
job = pickle.loads(Path(sys.argv[1]).read_bytes())
job.run(Inputs([]), Path(sys.argv[2]))
print(*(name for name in sys.modules if name.partition(".")[0] in ("mvsdk", "mvsdk_export")))
"""


@pytest.mark.parametrize("kind", [TraceOnnx, RecordActivations])
def test_all_that_a_job_imports_is_its_source(
    kind: type[Job[Any]], tiny_model_folder: Path, tmp_path: Path
) -> None:
    """Names that are made at run time, too."""
    jobs = plan_of(tiny_model_folder, tmp_path).jobs
    job = min((job for job in jobs if isinstance(job, kind)), key=lambda job: len(str(job)))
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    (tmp_path / "output").mkdir()
    command = [sys.executable, "-c", LOADED_BY, str(tmp_path / "job"), str(tmp_path / "output")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    loaded = done.stdout.splitlines()[-1].split()
    places = source_places(job)
    paths = {_place_of(path): name for name in loaded if (path := _file_of(name)) is not None}
    missing = {name for place, name in paths.items() if place not in places}
    # A task says what callers may give: what is given is a field of the job.
    assert {name for name in missing if not name.startswith("mvsdk.tasks.")} == set()
    assert len(paths) > 20


def source_places(job: Job[Any]) -> set[str]:
    own = [name for name in job.modules() if name.startswith("mvsdk")]
    return {_place_of(path) for path in source_files(own)}


# --- failures ------------------------------------------------------------------------------------


def failure(
    tmp_path: Path, status: int, text: str = "", error: JobError | None = None
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
    told = JobError(kind=word, text="the reason", number=None)
    error = failure(tmp_path, 1, "error: BundleError: what a library prints\n", told)
    assert type(error) is kind
    assert str(error) == "compile transformer failed: the reason"


def test_child_that_said_nothing_of_its_own_is_one_line(tmp_path: Path) -> None:
    log = "first\nlast words\n \n"
    assert str(failure(tmp_path, 1, log)) == "compile transformer failed: first; last words"
    assert str(failure(tmp_path, 3)) == "compile transformer failed: exit status 3"


@pytest.mark.slow
def test_real_job_that_raises_is_one_line_and_leaves_no_result(tmp_path: Path) -> None:
    job = CompileContext(name="try it", source=Note(), chip="sm1", float16=False)
    with pytest.raises(MvsdkError, match=r"^try it failed: .*unknown chip") as caught:
        make(tmp_path / "cache", job)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if "CompileContext" in path.name]


def test_real_process_that_crashes_is_one_line_with_the_signal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crashes = tmp_path / "interpreter"
    crashes.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashes.chmod(0o755)
    monkeypatch.setattr(process.sys, "executable", str(crashes))
    cache = tmp_path / "cache"
    with (
        pytest.raises(ExportError, match=r"^try it failed: .* ended by SIGSEGV$"),
        JobRunner(cache, launcher=Launcher(warm=False)) as runner,
    ):
        runner.run([Note()])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [crashes]
