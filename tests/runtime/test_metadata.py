"""What a clip's file says of its making, and that it says nothing where nothing is to be said."""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import CapSys
from PIL import Image
from tiny_animators import build_animator, fake_animator

import mvsdk
from mvsdk import Fake, Video
from mvsdk.bundle import Bundle
from mvsdk.cli import main

SUFFIXES = (".mp4", ".webp", ".gif", ".png")
PROMPT = "a rocket flying left"
PROMPTS = {
    "plain": PROMPT,
    "marks": 'a "rocket" <flying> & left\\',
    "other scripts": "ракета летит влево, ロケット, 🚀 à gauche",
    "lines": "a rocket\nflying\tleft",
    "half a pair": "a \udcff rocket\ufffe",
    "long": "rocket " * 500,
}


def _video(prompt: str = PROMPT, **changes: Any) -> Video:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[:, 4:8, 4:8] = np.arange(3, dtype=np.uint8)[:, None, None, None] * 100
    made = {"bundle_sha256": "ab" * 32, "num_inference_steps": 4, **changes}
    return Video(frames=frames, fps=8, seed=7, prompt=prompt, **made)


def _comment(path: Path) -> str | None:
    """Read back what a file says, with the libraries that people read such files with."""
    if path.suffix == ".mp4":
        av = pytest.importorskip("av")
        with av.open(str(path)) as container:
            return container.metadata.get("comment")
    with Image.open(path) as image:
        if path.suffix == ".webp":
            packet = image.info.get("xmp")
            if not packet:
                return None
            names = {"rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#"}
            (item,) = ElementTree.fromstring(packet).findall(".//rdf:li", names)
            return item.text
        comment = image.info.get("Comment" if path.suffix == ".png" else "comment")
    return comment.decode() if isinstance(comment, bytes) else comment


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_every_kind_of_file_keeps_how_the_clip_was_made(
    tmp_path: Path, suffix: str, prompt: str
) -> None:
    path = _video(prompt).save(tmp_path / f"clip{suffix}")
    told = _comment(path)
    assert told is not None
    assert json.loads(told) == {
        "mvsdk": mvsdk.__version__,
        "prompt": prompt,
        "seed": 7,
        "num_inference_steps": 4,
        "bundle_sha256": "ab" * 32,
    }


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".npy"])
def test_nothing_is_said_where_that_is_asked_for_or_no_pipeline_made_it(
    tmp_path: Path, suffix: str
) -> None:
    bare = _video("secret words").save(tmp_path / f"bare{suffix}", metadata=False)
    foreign = Video(frames=_video().frames, fps=8, seed=7, prompt="secret words")
    same = foreign.save(tmp_path / f"same{suffix}")
    assert bare.read_bytes() == same.read_bytes()
    assert b"secret" not in bare.read_bytes()
    if suffix != ".npy":
        assert _comment(bare) is None
    else:
        assert _video().save(tmp_path / "told.npy").read_bytes() == bare.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_clips_give_equal_files_with_what_is_said(tmp_path: Path, suffix: str) -> None:
    first = _video().save(tmp_path / f"a{suffix}").read_bytes()
    assert _video().save(tmp_path / f"b{suffix}").read_bytes() == first
    assert _video("a cat").save(tmp_path / f"c{suffix}").read_bytes() != first


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_said_changes_no_pixel(tmp_path: Path, suffix: str) -> None:
    told = _video().save(tmp_path / f"a{suffix}")
    bare = _video().save(tmp_path / f"b{suffix}", metadata=False)
    assert np.array_equal(_frames(told), _frames(bare))


def _frames(path: Path) -> np.ndarray:
    av = pytest.importorskip("av")
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return np.stack([x.to_ndarray(format="rgb24") for x in container.decode(video=0)])
    with Image.open(path) as image:
        frames = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
        return np.stack(frames)


def test_a_clip_of_a_picture_says_its_name_and_what_it_was_told(tmp_path: Path) -> None:
    bundle = build_animator(tmp_path / "animator.mvbundle")
    Image.new("RGB", (9, 9)).save(tmp_path / "My Photo.png")
    pipeline = mvsdk.load(bundle.path, backend=Fake(fake_animator()))
    video = pipeline.animate(tmp_path / "My Photo.png", motion=200, seed=3)
    told = _comment(video.save(tmp_path / "clip.webp"))
    assert told is not None
    said = json.loads(told)
    assert said["picture"] == "My Photo.png"  # and not where it lies
    assert (said["motion"], said["seed"], said["num_inference_steps"]) == (200, 3, 1)
    assert "prompt" not in said
    manifest = (bundle.path / "manifest.json").read_bytes()
    assert said["bundle_sha256"] == hashlib.sha256(manifest).hexdigest()


def test_the_command_says_it_unless_told_otherwise(
    capsys: CapSys, workplace: Path, onnx_bundle: Bundle
) -> None:
    argv = ["generate", PROMPT, "--bundle", str(onnx_bundle.path), "--seed", "7"]
    assert main([*argv, "-o", "told.mp4"]) == 0
    told = _comment(workplace / "told.mp4")
    assert told is not None
    assert json.loads(told)["prompt"] == PROMPT
    assert json.loads(told)["bundle_sha256"] == onnx_bundle.manifest_sha256
    assert main([*argv, "-o", "bare.mp4", "--no-metadata"]) == 0
    assert _comment(workplace / "bare.mp4") is None
    capsys.readouterr()
