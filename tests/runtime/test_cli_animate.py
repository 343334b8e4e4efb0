"""`mvsdk animate`: the clip, which bundle it takes, what is printed where, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import CapSys, refusal
from PIL import Image

import mvsdk
from mvsdk.bundle import Bundle
from mvsdk.cli import main

PHOTO = "My Photo.png"


@pytest.fixture(autouse=True)
def photo(workplace: Path) -> None:
    """Put a picture into the working folder."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    Image.fromarray(pixels).save(workplace / PHOTO)


@pytest.fixture
def bundle(workplace: Path, animator_onnx_bundle: Bundle) -> Path:
    """Put the ONNX bundle into the working folder."""
    path = workplace / "animator.mvbundle"
    shutil.copytree(animator_onnx_bundle.path, path)
    return path


def _clips(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != PHOTO)


def test_animate_writes_a_clip_of_the_only_bundle(
    capsys: CapSys, workplace: Path, bundle: Path
) -> None:
    assert main(["animate", PHOTO, "--seed", "7", "--motion", "200", "-o", "clip.npy"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "clip.npy\n"
    (summary,) = captured.err.splitlines()
    assert summary.startswith("seed 7, motion 200, 1 step, ")
    assert ", encode " in summary
    frames = np.load(workplace / "clip.npy")
    expected = mvsdk.load(bundle).animate(workplace / PHOTO, motion=200, seed=7).frames
    assert np.array_equal(frames, expected)


def test_animate_prints_json_and_nothing_else(capsys: CapSys, bundle: Path) -> None:
    argv = ["animate", PHOTO, "--json", "-o", "clip.gif", "--memory", "low", "--noise-aug", "0.5"]
    assert main([*argv, "--fps", "12"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    result = json.loads(captured.out)
    assert (result["path"], result["image"]) == ("clip.gif", PHOTO)
    assert "prompt" not in result
    assert result["numbers"] == {"fps": 12, "motion": 127, "noise_aug_strength": 0.5}
    assert (result["fps"], result["frames"], result["height"], result["width"]) == (12, 4, 16, 24)
    assert result["timings"]["encode_s"] > 0


def test_animate_names_the_clip_after_the_picture(workplace: Path, bundle: Path) -> None:
    for _ in range(2):
        assert main(["animate", PHOTO, "--seed", "3"]) == 0
    assert _clips(workplace) == ["my-photo-seed3-2.mp4", "my-photo-seed3.mp4"]


def test_numbers_are_set_by_name_and_whole_ones_too(
    capsys: CapSys, workplace: Path, bundle: Path
) -> None:
    argv = ["animate", PHOTO, "-o", "clip.npy", "--json", "--overwrite"]
    assert main([*argv, "--set", "motion=31", "--set", "noise_aug_strength=0.25"]) == 0
    numbers = json.loads(capsys.readouterr().out)["numbers"]
    assert (numbers["motion"], numbers["noise_aug_strength"]) == (31, 0.25)
    assert "motion is 1.5; allowed: whole" in refusal(capsys, *argv, "--set", "motion=1.5")
    twice = (*argv, "--motion", "3", "--set", "motion=3")
    assert "motion is given twice" in refusal(capsys, *twice)
    twice = (*argv, "--fps", "9", "--set", "fps=9")
    assert "fps is given by --set and by --fps" in refusal(capsys, *twice)


def test_rate_is_that_of_the_file(workplace: Path, bundle: Path) -> None:
    assert main(["animate", PHOTO, "--fps", "20", "-o", "clip.gif"]) == 0
    with Image.open(workplace / "clip.gif") as clip:
        assert clip.info["duration"] == 50


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing.png"], "picture 'nothing.png' cannot be read: no such file"),
        ([""], "the name is empty"),
        (["animator.mvbundle/manifest.json"], "is no PNG, JPEG, WebP, GIF, BMP or TIFF file"),
        ([PHOTO, "--motion", "256"], "motion is 256; allowed: whole numbers from 0 to 255"),
        ([PHOTO, "--motion", "1.5"], "'1.5' is not a whole number"),
        ([PHOTO, "--noise-aug", "2"], "noise_aug_strength is 2; allowed: 0 to 1"),
        ([PHOTO, "--noise-aug", "nan"], "noise_aug_strength is nan; allowed: 0 to 1"),
        ([PHOTO, "--fps", "0.5"], "fps is 0.5; allowed: 1 to 60"),
        ([PHOTO, "--steps", "4"], "num_inference_steps is 4; this bundle has: 1"),
        ([PHOTO, "--seed", "-1"], "seed is -1; allowed: whole numbers, 0 to 2**64 - 1"),
        ([PHOTO, "--scale", "0"], "scale is 0"),
        ([PHOTO, "-o", "clip.avi"], "allowed: .mp4, .webp"),
        ([PHOTO, "--precision", "int3"], "no variant with precision=int3"),
        ([], "required: IMAGE"),
    ],
    ids=str,
)
def test_animate_refuses_in_one_line_and_leaves_nothing(
    capsys: CapSys, workplace: Path, bundle: Path, argv: list[str], message: str
) -> None:
    assert message in refusal(capsys, "animate", *argv)
    assert _clips(workplace) == []


def test_each_verb_takes_the_bundle_of_its_own_task(
    capsys: CapSys, workplace: Path, bundle: Path, onnx_bundle: Bundle
) -> None:
    shutil.copytree(onnx_bundle.path, workplace / "tiny.mvbundle")
    assert main(["animate", PHOTO, "-o", "a.npy", "--json"]) == 0
    assert main(["generate", "a rocket flying left", "-o", "b.npy", "--json"]) == 0
    first, second = capsys.readouterr().out.split("}\n{")
    assert "animator.mvbundle" in first
    assert "tiny.mvbundle" in second


def test_a_bundle_for_another_task_names_the_other_verb(
    capsys: CapSys, workplace: Path, bundle: Path, onnx_bundle: Bundle
) -> None:
    line = refusal(capsys, "generate", "a rocket")
    assert "is for image_to_video, not text_to_video; use" in line
    assert "mvsdk animate IMAGE" in line
    line = refusal(capsys, "animate", PHOTO, "--bundle", str(onnx_bundle.path))
    assert "is for text_to_video, not image_to_video; use" in line
    assert "mvsdk generate PROMPT" in line
    assert _clips(workplace) == []


def test_several_bundles_of_a_task_or_none_are_named(
    capsys: CapSys, workplace: Path, bundle: Path, onnx_bundle: Bundle
) -> None:
    shutil.copytree(bundle, workplace / "other.mvbundle")
    line = refusal(capsys, "animate", PHOTO)
    assert "holds several bundles: animator.mvbundle, other.mvbundle; choose one" in line
    line = refusal(capsys, "generate", "a rocket")
    assert "no bundle in this folder is for text_to_video: animator.mvbundle, other" in line
    (workplace / "damaged.mvbundle").mkdir()
    shutil.copytree(onnx_bundle.path, workplace / "tiny.mvbundle")
    line = refusal(capsys, "generate", "a rocket")
    assert "several bundles: damaged.mvbundle, tiny.mvbundle; choose one" in line


def test_inspect_says_how_a_picture_enters(capsys: CapSys, bundle: Path) -> None:
    assert main(["inspect", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny-animator: image_to_video, 4 frames of 24 x 16 at 8 fps"
    assert lines[1] == "picture   fitted to 24 x 16"
    numbers = "fps 8 (1 to 60), motion 127 (0 to 255), noise_aug_strength 0 (0 to 1)"
    assert lines[2] == f"numbers   {numbers}"
    rows = [line.split()[0] for line in lines if "fp32" in line]
    assert rows == ["image_encoder", "unet", "vae_decoder", "vae_encoder"]
    assert max(map(len, lines)) <= 100
