"""`mvsdk generate`: the clip, what is printed where, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import CapSys, refusal
from PIL import Image
from tiny_bundles import VariantFiles, build_bundle, write_onnx

import mvsdk
from mvsdk.bundle import Bundle
from mvsdk.cli import main

pytestmark = pytest.mark.usefixtures("workplace")

PROMPT = "a rocket flying left"


@pytest.fixture
def bundle(workplace: Path, onnx_bundle: Bundle) -> Path:
    """Put the ONNX bundle into the working folder."""
    path = workplace / "tiny.mvbundle"
    shutil.copytree(onnx_bundle.path, path)
    return path


def _files(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if path.suffix != ".mvbundle" and not path.is_dir()
    )


def test_generate_writes_a_clip_of_the_only_bundle(
    capsys: CapSys, workplace: Path, bundle: Path
) -> None:
    assert main(["generate", PROMPT, "--seed", "7", "-o", "clip.npy"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "clip.npy\n"
    (summary,) = captured.err.splitlines()
    assert summary.startswith("seed 7, 4 steps, ")
    assert "onnx/fp32 on ONNX Runtime" in summary
    frames = np.load(workplace / "clip.npy")
    assert np.array_equal(frames, mvsdk.load(bundle).generate(PROMPT, seed=7).frames)


def test_generate_prints_json_and_nothing_else(capsys: CapSys, bundle: Path) -> None:
    argv = ["generate", PROMPT, "--steps", "2", "--json", "-o", "clip.gif", "--memory", "low"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    result = json.loads(captured.out)
    assert result["path"] == "clip.gif"
    assert (result["num_inference_steps"], result["seed"], result["frames"]) == (2, 0, 8)
    assert (result["target"], result["precision"], result["chip"]) == ("onnx", "fp32", None)
    assert len(result["timings"]["denoise_s"]) == 2


def test_generate_names_the_clip_itself_and_never_overwrites(
    capsys: CapSys, workplace: Path, bundle: Path
) -> None:
    for _ in range(2):
        assert main(["generate", "A  cat, running!", "--seed", "3"]) == 0
    assert _files(workplace) == ["a-cat-running-seed3-2.mp4", "a-cat-running-seed3.mp4"]
    assert capsys.readouterr().out.splitlines()[0] == "a-cat-running-seed3.mp4"


def test_generate_overwrites_only_when_told(capsys: CapSys, workplace: Path, bundle: Path) -> None:
    (workplace / "clip.npy").write_bytes(b"old")
    line = refusal(capsys, "generate", PROMPT, "-o", "clip.npy")
    assert "'clip.npy' exists; choose another name, or pass --overwrite" in line
    assert (workplace / "clip.npy").read_bytes() == b"old"
    assert main(["generate", PROMPT, "-o", "clip.npy", "--overwrite"]) == 0
    assert len(np.load(workplace / "clip.npy")) == 8


def test_a_small_animation_is_kept_as_it_is_with_a_note(
    capsys: CapSys, workplace: Path, bundle: Path
) -> None:
    assert main(["generate", PROMPT, "-o", "clip.gif"]) == 0
    note = "note: clip.gif has 64 x 64 pixels; --scale 4 makes it larger"
    assert capsys.readouterr().err.splitlines()[-1] == note
    for argv in (["-o", "large.webp", "--scale", "4"], ["-o", "clip.mp4"], ["-o", "clip.npy"]):
        assert main(["generate", PROMPT, *argv]) == 0
        assert "note:" not in capsys.readouterr().err
    with Image.open(workplace / "large.webp") as clip:
        assert clip.size == (256, 256)


def test_help_says_how_large_a_file_is_by_default(capsys: CapSys) -> None:
    assert main(["generate", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (scale,) = [line for line in lines if "--scale N" in line]
    assert "default: 1, .mp4 to 256 a side" in scale


def test_a_chip_may_be_named_by_a_phone(capsys: CapSys, workplace: Path) -> None:
    build_bundle(
        workplace / "phone.mvbundle",
        [VariantFiles(target="snapdragon", precision="w8a16", chip="sm8650")],
    )
    line = refusal(capsys, "generate", PROMPT, "--chip", "xiaomi 15", "-o", "a.npy")
    assert "no variant with chip=sm8750 in phone.mvbundle; it holds snapdragon/w8a16/sm8650" in line
    assert main(["generate", PROMPT, "--chip", "s24", "-o", "a.npy"]) == 2  # no graph, but chosen
    note, error = capsys.readouterr().err.splitlines()
    assert note.startswith("note: Samsung Galaxy S24 has the Snapdragon 8 Gen 3 in some countries")
    assert "no variant" not in error


def test_generate_says_which_words_it_does_not_know(capsys: CapSys, bundle: Path) -> None:
    assert main(["generate", "a zebra running", "-o", "clip.npy"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == "note: not in this model's vocabulary: zebra"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([""], "prompt is empty"),
        (["zebra, yak!"], "this model knows no word of the prompt 'zebra, yak!'; use other words"),
        (["a " * 7], "prompt has 7 tokens, this model takes at most 6"),
        (["a\x07"], "control character U+0007"),
        (["a\udcff"], "control character U+DCFF"),
        ([PROMPT, "--steps", "-2"], "num_inference_steps is -2; this bundle has: 1, 2, 4"),
        ([PROMPT, "--steps", "3"], "num_inference_steps is 3; this bundle has: 1, 2, 4"),
        ([PROMPT, "--seed", "-1"], "seed is -1; allowed: whole numbers, 0 to 2**64 - 1"),
        ([PROMPT, "--target", "qnm"], "no variant with target=qnm in tiny.mvbundle; it holds onnx"),
        ([PROMPT, "--chip", "sm8650"], "no variant with chip=sm8650"),
        ([PROMPT, "--precision", "int3"], "no variant with precision=int3"),
        ([PROMPT, "-o", "clip.avi"], "allowed: .mp4, .webp"),
        ([PROMPT, "-o", "no/clip.mp4"], "no folder 'no'; make it first"),
        ([PROMPT, "-o", "tiny.mvbundle"], "suffix '.mvbundle'; allowed"),
        ([PROMPT, "--bundle", "other.mvbundle"], "no bundle at 'other.mvbundle'"),
        ([PROMPT, "--memory", "big"], "invalid choice: 'big'"),
        ([PROMPT, "--scale", "0"], "scale is 0"),
        ([PROMPT, "--fps", "-3"], "fps is -3"),
    ],
    ids=str,
)
def test_generate_refuses_in_one_line_and_leaves_nothing(
    capsys: CapSys, workplace: Path, bundle: Path, argv: list[str], message: str
) -> None:
    assert message in refusal(capsys, "generate", *argv)
    assert _files(workplace) == []


def test_generate_finds_the_bundle_or_says_how_to_give_one(
    capsys: CapSys, workplace: Path, onnx_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "make one with: mvsdk export" in refusal(capsys, "generate", PROMPT)
    (workplace / "a.mvbundle").mkdir()
    (workplace / "b.mvbundle").mkdir()
    assert "several bundles: a.mvbundle, b.mvbundle;" in refusal(capsys, "generate", PROMPT)
    monkeypatch.setenv("MVSDK_BUNDLE", str(onnx_bundle.path))
    assert main(["generate", PROMPT, "-o", "clip.npy"]) == 0


def test_empty_name_of_a_bundle_is_no_default(
    capsys: CapSys, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "name is empty" in refusal(capsys, "generate", PROMPT, "--bundle", "")
    monkeypatch.setenv("MVSDK_BUNDLE", "")
    assert "name is empty in $MVSDK_BUNDLE" in refusal(capsys, "generate", PROMPT)


@pytest.mark.parametrize("place", ["tiny.mvbundle/", ".", "./tiny.mvbundle/.", "link"])
def test_bundle_is_found_however_its_folder_is_written(
    workplace: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (workplace / "link").symlink_to(bundle.name)
    if place == ".":
        monkeypatch.chdir(bundle)
    assert main(["generate", PROMPT, "--bundle", place, "-o", str(workplace / "clip.npy")]) == 0


def test_output_that_the_disk_does_not_take_is_refused_before_anything_is_loaded(
    capsys: CapSys, workplace: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and shares of Windows refuse some names only when a file gets them."""
    real = Path.open

    def refuses(self: Path, *arguments: Any, **options: Any) -> Any:
        if ":" in self.name:
            raise OSError(22, "Invalid argument")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuses)
    monkeypatch.setattr("mvsdk.load", lambda *_, **__: pytest.fail("loaded"))
    line = refusal(capsys, "generate", PROMPT, "-o", "a:b.npy")
    assert "cannot write 'a:b.npy': invalid argument; choose another output" in line
    assert _files(workplace) == []


@pytest.mark.parametrize("name", ["bücher.npy", "line\nbreak.npy", "m\udcfcll.mp4", "-dash.webp"])
def test_clip_takes_any_name_that_the_disk_takes(
    workplace: Path, bundle: Path, capsys: CapSys, name: str
) -> None:
    assert main(["generate", PROMPT, f"--output={name}"]) == 0
    assert _files(workplace) == [name]


def test_bundle_that_no_runtime_can_open_by_its_name_is_refused(
    capsys: CapSys, workplace: Path, bundle: Path
) -> None:
    bundle.rename("m\udcfcll")
    line = refusal(capsys, "generate", PROMPT, "--bundle", "m\udcfcll", "-o", "clip.npy")
    assert r"m\udcfcll': it holds bytes that are not UTF-8" in line
    assert "rename or move it" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fps", "0.01"), "fps is 0.01; allowed: 0.1 to 240"),
        (("--scale", "65"), "scale is 65; allowed: 1 to 64"),
        (("-o", f"{'x' * 300}.mp4"), "name too long; give a shorter one"),
        (("-o", f"{'x' * 300}/x.npy"), "name too long; give a shorter one"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_loaded(
    capsys: CapSys,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, str],
    words: str,
) -> None:
    monkeypatch.setattr(mvsdk, "load", lambda *_, **__: pytest.fail("loaded"))
    assert words in refusal(capsys, "generate", PROMPT, *options)


def test_rate_in_the_json_is_that_of_the_file(capsys: CapSys, bundle: Path) -> None:
    assert main(["generate", PROMPT, "-o", "clip.npy", "--fps", "12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fps"] == 12


def test_longest_name_that_a_file_can_have_is_written(workplace: Path, bundle: Path) -> None:
    name = "x" * 251 + ".npy"
    assert main(["generate", PROMPT, "-o", name]) == 0
    assert _files(workplace) == [name]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(workplace: Path, bundle: Path, closed: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = f'"{sys.executable}" -m mvsdk generate "{PROMPT}" -o clip.npy {closed}'
    done = subprocess.run(["sh", "-c", command], env=environment, check=False, capture_output=True)
    assert done.returncode == 0
    assert _files(workplace) == ["clip.npy"]


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"), ("SIGHUP", 129, "terminated")],
)
def test_signal_stops_with_its_status_and_leaves_nothing(
    workplace: Path, bundle: Path, name: str, status: int, said: str
) -> None:
    """The process says when it is busy with a graph, and is hit there."""
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"no {name} on this system")
    script = (
        "import signal, sys; from mvsdk.cli import main\n"
        # a shell that starts a job in the background, and nohup, have it ignore the signal
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "if hasattr(signal, 'SIGHUP'): signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from mvsdk.pipeline import Pipeline\n"
        "def stuck(self, *args, **options):\n"
        "    print('busy', flush=True)\n"
        "    signal.pause()\n"
        "Pipeline.session = stuck\n"
        "sys.exit(main(['generate', 'a cat', '-o', 'clip.mp4']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    process.send_signal(number)
    _, talk = process.communicate(timeout=30)
    assert process.returncode == status
    assert talk.strip() == f"{said}; nothing half-written is left"
    assert _files(workplace) == []


def test_progress_is_shown_on_a_terminal_only(workplace: Path, bundle: Path) -> None:
    pty = pytest.importorskip("pty")
    controller, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "mvsdk", "generate", PROMPT, "-o", "clip.npy"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            chunk = os.read(controller, 4096)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(controller)
    assert process.wait(30) == 0
    assert b"step 1/4" in shown
    assert b"step 4/4" in shown
    assert b"seed 0, 4 steps" in shown.split(b"\r")[-2]


def test_words_that_are_cut_off_are_counted(capsys: CapSys, workplace: Path) -> None:
    plain = build_bundle(workplace / "plain.mvbundle").manifest.tokenizers["main"]
    bundle = build_bundle(
        workplace / "cut.mvbundle",
        [VariantFiles(content=write_onnx)],
        tokenizers={"main": replace(plain, too_long="cut")},
    )
    assert main(["generate", "a cat " * 5, "--bundle", str(bundle.path), "-o", "clip.npy"]) == 0
    note = "too long for this model: its last 4 tokens are left out\n"
    assert capsys.readouterr().err.count(note) == 1
