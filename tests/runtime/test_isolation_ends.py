"""How a process that runs graphs ends: with its pipeline, and with the program, whatever ends that.

Programs run here as users run them, with a runtime that hangs in native code.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trial_backend

import mvsdk
from mvsdk.cli import main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups")

PROMPT = "a rocket flying left"


def _is_there(number: int) -> bool:
    """Return whether a process runs; one that only waits to be waited for does not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _soon(fact: Callable[[], object], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not fact():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _busy(folder: Path) -> int:
    """Wait until the graph hangs; return the number of its process."""
    path = folder / "busy"
    assert _soon(lambda: path.exists() and path.read_text(), 60)
    return int(path.read_text())


def _environment(scratch: Path) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(scratch)}


def _generate(folder: Path, scratch: Path, deeds: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start the command line in a process group of its own, as a shell does."""
    bundle = trial_backend.build(folder, deeds)
    script = (
        # a shell that starts a job in the background has it ignore the signal
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from mvsdk.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "generate", PROMPT, "--bundle", str(bundle.path)]
    command += ["--backend", "trial", "--time-limit", "500", "-o", str(folder / "clip.mp4")]
    return subprocess.Popen(
        command,
        env=_environment(scratch),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


@pytest.mark.parametrize("when", ["load", "run"])
@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["the program", "its group"])
def test_ctrl_c_ends_a_graph_that_hangs(
    tmp_path: Path, scratch: Path, kill: Callable[[int, int], None], when: str
) -> None:
    process = _generate(tmp_path, scratch, {"unet": f"{when}: hang"})
    number = _busy(tmp_path)
    start = time.monotonic()
    kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - start < 3
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "interrupted; nothing half-written is left"
    assert not _is_there(number)
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it notices at the end of its graph")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_that_is_killed_takes_its_graphs_along(
    tmp_path: Path, scratch: Path, number: int
) -> None:
    process = _generate(tmp_path, scratch, {"unet": "run: hang"})
    child = _busy(tmp_path)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert _soon(lambda: not _is_there(child), 1)
    left = list(scratch.iterdir())
    assert len(left) == (1 if number == signal.SIGKILL else 0)  # the other can be answered
    again = _generate(tmp_path / "again", scratch, {})
    assert again.wait(60) == 0
    again.communicate()
    assert list(scratch.iterdir()) == []  # what the killed program left is removed by the next


def test_a_program_that_ends_with_a_pipeline_open_leaves_nothing(
    tmp_path: Path, scratch: Path
) -> None:
    bundle = trial_backend.build(tmp_path)
    script = (
        "import sys, mvsdk; p = mvsdk.load(sys.argv[1], backend='trial', isolated=True)\n"
        f"p.generate({PROMPT!r}); print(p.selection.backend._process._child.pid)\n"
        "if sys.argv[2] == 'fail': raise SystemExit(7)"
    )
    for how, status in (("end", 0), ("fail", 7)):
        done = subprocess.run(
            [sys.executable, "-c", script, str(bundle.path), how],
            env=_environment(scratch),
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (status, "")
        assert not _is_there(int(done.stdout))
        assert list(scratch.iterdir()) == []


def test_a_pipeline_that_is_forgotten_leaves_nothing(tmp_path: Path, scratch: Path) -> None:
    pipeline = mvsdk.load(trial_backend.build(tmp_path).path, backend="trial", isolated=True)
    pipeline.generate(PROMPT)
    number = pipeline.selection.backend._process._child.pid
    assert _is_there(number)
    del pipeline
    gc.collect()
    assert _soon(lambda: not list(scratch.iterdir()), 5)
    assert not _is_there(number)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_program_uses_no_process_of_its_parents(tmp_path: Path, scratch: Path) -> None:
    bundle = trial_backend.build(tmp_path)
    with mvsdk.load(bundle.path, backend="trial", isolated=True) as pipeline:
        clip, number = pipeline.generate(PROMPT), pipeline.selection.backend._process._child.pid
        forked = os.fork()
        if forked == 0:
            try:
                same = pipeline.generate(PROMPT).frames.tobytes() == clip.frames.tobytes()
                other = pipeline.selection.backend._process._child.pid != number
                pipeline.close()
                os._exit(0 if same and other else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
        assert pipeline.generate(PROMPT).frames.tobytes() == clip.frames.tobytes()
        assert pipeline.selection.backend._process._child.pid == number
    assert list(scratch.iterdir()) == []


# --- the command line ----------------------------------------------------------------------------


@pytest.mark.usefixtures("scratch")
def test_the_time_limit_is_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = trial_backend.build(tmp_path, {"text_encoder": "run: hang"})
    command = ["generate", PROMPT, "--bundle", str(bundle.path), "--backend", "trial"]
    command += ["-o", str(tmp_path / "clip.npy"), "--time-limit"]
    assert main([*command, "1.5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: text_encoder/onnx-fp32: trial had not ")
    assert "after 1.5 s and was ended; the file is damaged, or the runtime has a fault;" in line
    for value, words in (("0", "is 0; allowed: 0.001 to"), ("a", "is no number of sec")):
        assert main([*command, value]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "clip.npy").exists()


@pytest.mark.usefixtures("scratch")
def test_a_dead_runtime_is_one_line_of_the_command_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = trial_backend.build(tmp_path, {"vae_decoder": "load: print and abort"})
    command = ["generate", PROMPT, "--bundle", str(bundle.path), "--backend", "trial"]
    command += ["-o", str(tmp_path / "clip.npy"), "--time-limit", "60", "--json"]
    assert main(command) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err == (
        "error: vae_decoder/onnx-fp32: trial died with SIGABRT while it loaded the graph; it said "
        "last: LIBNATIVE: reading; <E> no such table; the file is damaged, or the runtime has a "
        "fault; download or export the bundle again\n"
    )
