"""Graphs in a process of their own: what dies, hangs or lies there is one error here."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import trial_backend
from tiny_bundles import LENGTH, fake_functions

import mvsdk
from mvsdk import BackendError, BundleError, InputError, Isolation, OnnxRuntime, Pipeline
from mvsdk.backends._registry import make_backend, options_of
from mvsdk.backends.fake import Fake
from mvsdk.bundle import Bundle

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="deaths by signals"),
    pytest.mark.usefixtures("scratch"),
]

PROMPT = "a rocket flying left"
IDS = {"input_ids": np.zeros((1, LENGTH), np.int32)}


def _load(folder: Path, deeds: dict[str, str], isolated: Isolation | bool = True) -> Pipeline:
    bundle = trial_backend.build(folder, deeds)
    return mvsdk.load(bundle.path, backend=trial_backend.NAME, isolated=isolated)


def _process(pipeline: Pipeline) -> int:
    """Return the number of the process that runs the graphs."""
    return pipeline.selection.backend._process._child.pid


def _is_there(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


# --- what works ----------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_clips_are_those_of_graphs_that_run_here(
    onnx_bundle: Bundle, scratch: Path, memory: mvsdk.pipeline.Memory
) -> None:
    here = mvsdk.load(onnx_bundle.path).generate(PROMPT, seed=3)
    with mvsdk.load(onnx_bundle.path, memory=memory, isolated=True) as pipeline:
        first, second = (pipeline.generate(PROMPT, seed=3) for _ in range(2))
        assert first.frames.tobytes() == second.frames.tobytes() == here.frames.tobytes()
        assert second.timings is not None
        assert second.timings.backend == here.timings.backend
        assert 0 < second.timings.sessions_s < second.timings.total_s
        assert (second.timings.load_s > 0.001) is (memory == "low")
        number = _process(pipeline)
        assert _is_there(number)
    assert not _is_there(number)
    assert list(scratch.iterdir()) == []
    assert pipeline.generate(PROMPT, seed=3).frames.tobytes() == here.frames.tobytes()
    pipeline.close()


def test_low_memory_holds_one_graph_at_a_time_in_one_process(tmp_path: Path) -> None:
    bundle = trial_backend.build(tmp_path)
    with mvsdk.load(bundle.path, backend="trial", isolated=True, memory="low") as pipeline:
        numbers: list[int] = []
        for step in pipeline.stream(PROMPT, num_inference_steps=2):
            numbers.append(_process(pipeline))
            closed = (tmp_path / "closed.txt").read_text().split()
            assert closed == ["text_encoder", *(["unet"] if step.video else [])]
        assert (tmp_path / "closed.txt").read_text().split()[-1] == "vae_decoder"
        assert len({*numbers, _process(pipeline)}) == 1


def test_libraries_of_a_runtime_are_loaded_only_in_its_process(onnx_bundle: Bundle) -> None:
    script = (
        "import sys, mvsdk\n"
        "with mvsdk.load(sys.argv[1], isolated=True) as pipeline:\n"
        f"    print(pipeline.generate({PROMPT!r}).timings.backend)\n"
        "assert 'onnxruntime' not in sys.modules"
    )
    command = [sys.executable, "-c", script, str(onnx_bundle.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ONNX Runtime 1.")


def test_options_of_onnx_runtime_travel(onnx_bundle: Bundle) -> None:
    made = make_backend("onnxruntime", options_of(OnnxRuntime(threads=3)))
    assert isinstance(made, OnnxRuntime)
    assert made.threads == 3
    with mvsdk.load(onnx_bundle.path, backend=OnnxRuntime(threads=1), isolated=True) as pipeline:
        pipeline.generate(PROMPT)


def test_threads_have_a_pipeline_each(onnx_bundle: Bundle) -> None:
    here = mvsdk.load(onnx_bundle.path)
    clips: dict[int, bytes] = {}

    def work(seed: int) -> None:
        with mvsdk.load(onnx_bundle.path, isolated=True) as pipeline:
            for _ in range(3):
                clips[seed] = pipeline.generate(PROMPT, seed=seed).frames.tobytes()

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wanted = {seed: here.generate(PROMPT, seed=seed).frames.tobytes() for seed in range(3)}
    assert clips == wanted


def test_a_process_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """Linux would end it with that thread, for a process that asks to end with its parent."""
    pipeline = _load(tmp_path, {})
    worker = threading.Thread(target=pipeline.generate, args=(PROMPT,))
    worker.start()
    worker.join()
    number = _process(pipeline)
    time.sleep(0.2)
    pipeline.generate(PROMPT)
    assert _process(pipeline) == number
    pipeline.close()


# --- what dies, hangs or lies --------------------------------------------------------------------


@pytest.mark.parametrize("when", ["load", "run"])
@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("abort", "died with SIGABRT while it {} the graph; the file is damaged, or the runtime"),
        ("crash", "died with SIGSEGV while it {} the graph; .*; download or export the bundle"),
        ("exit", "died with exit status 3 while it {} the graph"),
        ("be killed", r'was ended by SIGKILL .* {} the graph; .* short of memory .*memory="low"'),
        ("print and abort", "it said last: LIBNATIVE: reading; <E> no such table; the file is"),
        ("write and abort", "it said last: LIBNATIVE: reading; <E> no such table; the file is"),
        ("talk and abort", "it said last: past every capture; the file is"),
        ("lie", "answered with .* while it {} the graph and was ended; the file is damaged"),
    ],
)
def test_the_end_of_a_runtime_is_an_error(
    tmp_path: Path, scratch: Path, when: str, deed: str, words: str, capfd: object
) -> None:
    pipeline = _load(tmp_path, {"unet": f"{when}: {deed}"})
    named = f"^unet/onnx-fp32: trial {words}".replace("trial it said", "trial .*; it said")
    did = {"load": "loaded", "run": "ran"}[when]
    with pytest.raises(BackendError, match=named.format(did)) as caught:
        pipeline.generate(PROMPT)
    assert str(caught.value).isprintable()
    assert list(scratch.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_after_a_death_the_next_clip_has_a_process_of_its_own(tmp_path: Path) -> None:
    with _load(tmp_path, {"vae_decoder": "run: once crash"}) as pipeline:
        with pytest.raises(BackendError, match="SIGSEGV"):
            pipeline.generate(PROMPT, seed=3)
        clip = pipeline.generate(PROMPT, seed=3)
    here = mvsdk.load(pipeline.bundle.path, backend=Fake(fake_functions()))
    assert clip.frames.tobytes() == here.generate(PROMPT, seed=3).frames.tobytes()


def test_a_death_between_two_clips_goes_unnoticed(tmp_path: Path) -> None:
    with _load(tmp_path, {}) as pipeline:
        first, number = pipeline.generate(PROMPT), _process(pipeline)
        os.kill(number, 9)
        os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
        second = pipeline.generate(PROMPT)
        assert second.frames.tobytes() == first.frames.tobytes()
        assert second.timings.load_s > 0
        assert _process(pipeline) != number


def test_a_session_whose_process_is_gone_says_so(tmp_path: Path) -> None:
    pipeline = _load(tmp_path, {})
    session = pipeline.session("text_encoder")
    os.kill(_process(pipeline), 9)
    with pytest.raises(BackendError, match="text_encoder/onnx-fp32: trial was ended by SIGKILL"):
        session.run(IDS)
    session.close()
    session.close()
    with pytest.raises(BackendError, match="is closed; load it again"):
        session.run(IDS)


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("load", "had not loaded the graph after 1 s and was ended; .*load_timeout_s of mvsdk.Iso"),
        ("run", "had not run the graph after 2 s and was ended; .*, or run_timeout_s of mvsdk.Iso"),
    ],
)
def test_a_runtime_that_hangs_is_ended(tmp_path: Path, when: str, words: str) -> None:
    """Though it holds Python's lock, and blocks the signals that ask it to go."""
    limits = Isolation(load_timeout_s=20 if when == "run" else 1, run_timeout_s=2)
    pipeline = _load(tmp_path, {"text_encoder": f"{when}: hang"}, limits)
    start = time.monotonic()
    with pytest.raises(BackendError, match=words):
        pipeline.generate(PROMPT)
    assert time.monotonic() - start < 10
    if (tmp_path / "busy").exists():  # a process that starts slowly is ended before
        assert not _is_there(int((tmp_path / "busy").read_text()))


def test_results_that_the_graph_does_not_have_are_refused(tmp_path: Path) -> None:
    pipeline = _load(tmp_path, {"unet": "run: shrink"})
    with pytest.raises(BackendError, match=r"unet/.* answered with other arrays than the graph"):
        pipeline.generate(PROMPT)


# --- errors are those that come without a process ------------------------------------------------


@pytest.mark.parametrize("when", ["load", "run"])
def test_errors_of_ours_have_their_class_and_text(tmp_path: Path, when: str) -> None:
    deeds = {"unet": f"{when}: refuse"}
    with _load(tmp_path, deeds) as pipeline:
        there = trial_backend.refusal_of(lambda: pipeline.generate(PROMPT))
    here = mvsdk.load(pipeline.bundle.path, backend=trial_backend.Trial())
    found = trial_backend.refusal_of(lambda: here.generate(PROMPT))
    assert (type(there), str(there)) == (type(found), str(found))
    assert isinstance(there, InputError)


def test_inputs_are_refused_as_without_a_process(onnx_bundle: Bundle) -> None:
    session = mvsdk.load(onnx_bundle.path).session("text_encoder")
    with mvsdk.load(onnx_bundle.path, isolated=True) as pipeline:
        isolated = pipeline.session("text_encoder")
        for inputs in ({}, {"input_ids": np.zeros((1, 99), np.int32)}):
            wanted = trial_backend.refusal_of(lambda given=inputs: session.run(given))
            found = trial_backend.refusal_of(lambda given=inputs: isolated.run(given))
            assert (type(found), str(found)) == (type(wanted), str(wanted))
        with pytest.raises(InputError, match="text_encoder/onnx-fp32/input_ids is of object"):
            isolated.run({"input_ids": np.array([None])})
        assert isolated.run(IDS)["encoder_hidden_states"].dtype == np.float32


def test_other_errors_are_one_line_that_names_the_graph(tmp_path: Path) -> None:
    with _load(tmp_path, {"unet": "run: fail"}) as pipeline:
        number = None
        for _ in range(2):
            with pytest.raises(BackendError, match=r"^unet/onnx-fp32: MemoryError: no room for"):
                pipeline.generate(PROMPT)
            assert number in (None, _process(pipeline))
            number = _process(pipeline)


def test_files_are_checked_by_the_process_that_uses_them(tmp_path: Path) -> None:
    with _load(tmp_path, {}) as pipeline:
        model = pipeline.bundle.path / pipeline.selection.variants["unet"].model
        model.write_text("fire")
        with pytest.raises(BundleError, match=r"trial.mvbundle: .*model.onnx has the hash"):
            pipeline.generate(PROMPT)
        manifest = pipeline.bundle.path / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"tiny"', '"other"', 1))
        pipeline.close()
        with pytest.raises(BundleError, match="its manifest changed since it was opened"):
            pipeline.generate(PROMPT)


# --- what is refused -----------------------------------------------------------------------------


class _Own(OnnxRuntime):
    """A backend of the caller's, under a name that is known."""


@pytest.mark.parametrize("backend", [Fake({}), _Own()], ids=["unknown", "of another class"])
def test_a_backend_that_no_other_process_can_make_is_refused(
    onnx_bundle: Bundle, backend: mvsdk.Backend
) -> None:
    with pytest.raises(InputError, match=r"of the type .* cannot run in a process of its own"):
        mvsdk.load(onnx_bundle.path, backend=backend, isolated=True)


def test_a_backend_with_options_of_its_own_is_refused(onnx_bundle: Bundle) -> None:
    backend = trial_backend.Trial()
    mvsdk.load(onnx_bundle.path, backend=backend, isolated=True)
    backend.level = 3
    with pytest.raises(InputError, match=r"known by name .*, and without options but those of"):
        mvsdk.load(onnx_bundle.path, backend=backend, isolated=True)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "9", None])
def test_limits_that_are_none_are_refused(value: object) -> None:
    for name in ("load_timeout_s", "run_timeout_s"):
        with pytest.raises(InputError, match=rf"{name} is .*; allowed: 0\.001 to"):
            Isolation(**{name: value})


def test_isolated_is_a_choice(onnx_bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"isolated is 'yes'; allowed: True, False, mvsdk.Is"):
        mvsdk.load(onnx_bundle.path, isolated="yes")
    with pytest.raises(InputError, match="which is 'some'; allowed: all, fragile"):
        Isolation(which="some")


def test_only_fragile_backends_are_isolated_if_asked_so(onnx_bundle: Bundle) -> None:
    pipeline = mvsdk.load(onnx_bundle.path, isolated=Isolation(which="fragile"))
    assert isinstance(pipeline.selection.backend, OnnxRuntime)


# --- the log -------------------------------------------------------------------------------------


def test_what_is_printed_there_is_in_the_debug_log_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mvsdk")
    with _load(tmp_path, {"unet": "load: fail"}) as pipeline, pytest.raises(BackendError):
        pipeline.generate(PROMPT)
    assert any("MemoryError" in line for line in caplog.messages)
