"""`mvsdk edit` and `mvsdk upscale`: a clip from a clip, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import CapSys, refusal
from PIL import Image
from tiny_editors import (
    EDITOR,
    FRAMES,
    HEIGHT,
    ONNX,
    UPSCALER,
    WIDE,
    build_editor,
    build_upscaler,
    editing,
    enlarging,
)
from tiny_programs import build

import mvsdk
from mvsdk.cli import main

CLIP = "Grey Clip.gif"
PROMPT = "a rocket flying left"


@pytest.fixture
def clip(workplace: Path) -> Path:
    """Return an animation in the working folder."""
    levels = np.linspace(40, 200, FRAMES).astype(np.uint8)
    pictures = [Image.fromarray(np.full((HEIGHT, WIDE, 3), level, np.uint8)) for level in levels]
    pictures[0].save(workplace / CLIP, save_all=True, append_images=pictures[1:], duration=125)
    return workplace / CLIP


@pytest.fixture
def editor(workplace: Path) -> Path:
    options = {"tokenizers": {"main": {"too_long": "cut"}}}
    return build_editor(workplace / "editor.mvbundle", variants=[ONNX], **options).path


@pytest.fixture
def upscaler(workplace: Path) -> Path:
    return build_upscaler(workplace / "upscaler.mvbundle", variants=[ONNX]).path


def _clips(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".mp4", ".npy"))


def test_edit_writes_what_the_pipeline_makes(
    capsys: CapSys, workplace: Path, clip: Path, editor: Path
) -> None:
    argv = ["edit", CLIP, PROMPT, "--set", "strength=1", "--seed", "7", "-o", "clip.npy"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.out == "clip.npy\n"
    assert captured.err.startswith("seed 7, ")
    with mvsdk.load(editor) as pipeline:
        expected = pipeline.edit(clip, PROMPT, numbers={"strength": 1}, seed=7).frames
        usual = pipeline.edit(clip, PROMPT, seed=7).frames
    assert np.array_equal(np.load(workplace / "clip.npy"), expected)
    assert not np.array_equal(expected, usual)


def test_edit_prints_json_and_nothing_else(capsys: CapSys, clip: Path, editor: Path) -> None:
    assert main(["edit", CLIP, PROMPT, "--json", "-o", "clip.npy"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    result = json.loads(captured.out)
    assert (result["clip"], result["prompt"]) == (CLIP, PROMPT)
    assert (result["numbers"], result["set"]) == ({"strength": 0.5}, "onnx-fp32")
    assert (result["frames"], result["height"], result["width"]) == (FRAMES, HEIGHT, WIDE)
    assert result["num_inference_steps"] is None


def test_edit_names_the_clip_after_the_prompt_and_upscale_after_the_clip(
    workplace: Path, clip: Path, editor: Path, upscaler: Path
) -> None:
    assert main(["edit", CLIP, PROMPT]) == 0
    assert main(["upscale", CLIP]) == 0
    assert _clips(workplace) == ["a-rocket-flying-left-seed0.mp4", "grey-clip-seed0.mp4"]


def test_upscale_makes_a_larger_clip(
    capsys: CapSys, workplace: Path, clip: Path, upscaler: Path
) -> None:
    assert main(["upscale", CLIP, "-o", "clip.npy", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["height"], result["width"]) == (2 * HEIGHT, 2 * WIDE)
    assert "prompt" not in result
    assert "numbers" not in result
    assert np.load(workplace / "clip.npy").shape == (FRAMES, 2 * HEIGHT, 2 * WIDE, 3)


def test_words_are_those_of_the_program_that_runs(
    capsys: CapSys, workplace: Path, clip: Path
) -> None:
    graphs = {**EDITOR, **UPSCALER}
    programs = [enlarging("larger"), editing("changed")]
    options = {"variants": [ONNX], "tokenizers": {"main": {}}}
    build(workplace / "both.mvbundle", programs, graphs, **options)
    assert main(["edit", CLIP, f"{PROMPT} xylophone", "-o", "clip.npy"]) == 0
    assert "not in this model's vocabulary: xylophone" in capsys.readouterr().err
    named = ("edit", CLIP, PROMPT, "--program", "larger", "-o", "clip.npy", "--overwrite")
    assert "has no program 'larger' for video_to_video; it has: changed" in refusal(capsys, *named)


def test_a_prompt_that_is_cut_is_told_once(capsys: CapSys, clip: Path, editor: Path) -> None:
    assert main(["edit", CLIP, "a cat " * 4, "-o", "clip.npy"]) == 0
    note = "note: the prompt is too long for this model: its last 2 tokens are left out\n"
    assert capsys.readouterr().err.count(note) == 1


def test_what_is_wrong_is_one_line_and_leaves_nothing(
    capsys: CapSys, workplace: Path, clip: Path, editor: Path
) -> None:
    assert "prompt is missing" in refusal(capsys, "edit", CLIP)
    assert "'strength' is not NAME=NUMBER" in refusal(
        capsys, "edit", CLIP, PROMPT, "--set", "strength"
    )
    line = refusal(capsys, "edit", CLIP, PROMPT, "--set", "motion=3")
    assert "this bundle has no number 'motion'; it has: strength" in line
    assert "cannot be read: no such file" in refusal(capsys, "edit", "nowhere.gif", PROMPT)
    (workplace / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(99))
    assert "broken.mp4" in refusal(capsys, "edit", "broken.mp4", PROMPT)
    (workplace / "broken.mp4").unlink()
    line = refusal(capsys, "upscale", CLIP, "--bundle", str(editor))
    assert "is for video_to_video, not upscale; use" in line
    assert "mvsdk edit CLIP" in line
    assert "numbers of steps are fixed" in refusal(capsys, "edit", CLIP, PROMPT, "--steps", "2")
    assert _clips(workplace) == []


def test_the_bundle_is_that_of_the_task(
    capsys: CapSys, workplace: Path, clip: Path, editor: Path, upscaler: Path
) -> None:
    assert main(["upscale", CLIP, "-o", "clip.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == str(upscaler)
    line = refusal(capsys, "generate", PROMPT)
    assert "no bundle in this folder is for text_to_video: editor.mvbundle, upscaler.mvb" in line


def test_one_bundle_may_be_for_both_tasks(capsys: CapSys, workplace: Path, clip: Path) -> None:
    programs = [editing("edit"), enlarging("large")]
    options = {"tokenizers": {"main": {}}, "variants": [ONNX]}
    build(workplace / "both.mvbundle", programs, {**EDITOR, **UPSCALER}, **options)
    for verb in (["edit", CLIP, PROMPT], ["upscale", CLIP]):
        assert main([*verb, "-o", f"{verb[0]}.npy"]) == 0
    assert _clips(workplace) == ["edit.npy", "upscale.npy"]
    capsys.readouterr()
    assert main(["inspect", "both.mvbundle"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "tiny edit: video_to_video, 3 frames of 24 x 16 at 8 fps",
        "tiny large: upscale, 3 frames of 48 x 32 at 8 fps",
        "clip      fitted to 24 x 16",
    ]
    assert lines[3] == "numbers   strength 0.5 (0 to 1)"
    assert lines[4] == "tokens    wordpiece, 6; longer prompts are refused"
    assert max(map(len, lines)) <= 100
