"""What print shows of an object: one short line that says what matters, and no arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_animators import build_animator, fake_animator
from tiny_bundles import VariantFiles, build_bundle, fake_functions

import mvsdk
from mvsdk import Fake, GenerateOptions, Step, Timings, Video
from mvsdk.bundle import Bundle
from mvsdk.manifest import Verification

PROMPT = "a rocket flying left"
LONGEST = 200


@dataclass
class Made:
    """A clip, and what made it."""

    pipeline: mvsdk.Pipeline
    steps: list[Step]
    video: Video


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    bundle = build_bundle(tmp_path_factory.mktemp("made") / "tiny.mvbundle")
    pipeline = mvsdk.load(bundle.path, backend=Fake(fake_functions()))
    steps = list(pipeline.stream(PROMPT, num_inference_steps=4, seed=7))
    video = steps[-1].video
    assert video is not None
    return Made(pipeline=pipeline, steps=steps, video=video)


def test_a_video_says_what_it_shows(made: Made) -> None:
    shown = f"Video(8 frames of 64 x 64 at 8 fps, seed 7, '{PROMPT}')"
    assert repr(made.video) == str(made.video) == shown
    plain = Video(frames=np.zeros((2, 4, 6, 3), np.uint8), fps=12.5, seed=0)
    assert repr(plain) == "Video(2 frames of 6 x 4 at 12.5 fps, seed 0)"


def test_a_video_of_a_picture_says_its_name(tmp_path: Path) -> None:
    bundle = build_animator(tmp_path / "animator.mvbundle")
    pipeline = mvsdk.load(bundle.path, backend=Fake(fake_animator()))
    from PIL import Image

    Image.new("RGB", (9, 9)).save(tmp_path / "My Photo.png")
    video = pipeline.animate(tmp_path / "My Photo.png", seed=3)
    assert (video.picture, video.prompt) == ("My Photo.png", None)
    assert repr(video) == "Video(4 frames of 24 x 16 at 8 fps, seed 3, 'My Photo.png')"
    assert pipeline.animate(np.zeros((9, 9, 3), np.uint8)).picture is None


def test_a_step_says_how_far_it_is(made: Made) -> None:
    second, last = made.steps[1], made.steps[-1]
    assert repr(second) == f"Step(2 of 4, sigma 0.5, {second.elapsed_s:.2f} s)"
    assert repr(last).startswith("Step(4 of 4, sigma 0, ")
    assert repr(last).endswith(f" s, {made.video!r})")


def test_bundle_and_pipeline_say_what_they_hold_and_run(made: Made) -> None:
    assert repr(made.pipeline.bundle) == (
        "Bundle('tiny.mvbundle', Manifest(tiny, text_to_video, 8 frames of 64 x 64 at 8 fps, "
        "1 set of variants))"
    )
    assert repr(made.pipeline) == (
        "Pipeline('tiny.mvbundle', text_to_video, onnx/fp32 on fake, "
        "loaded: text_encoder, unet, vae_decoder)"
    )
    assert repr(made.pipeline.selection) == (
        "Selection(onnx/fp32 on fake: text_encoder, unet, vae_decoder)"
    )


def _objects(made: Made, folder: Path) -> Iterator[Any]:
    """Return one of every public class, and everything that they hold."""
    many = [VariantFiles(), VariantFiles(target="snapdragon", precision="w8a16", chip="sm8650")]
    record = Verification(
        component="unet",
        variant="onnx-fp32",
        case="x" * 4000,
        step=1,
        metric="sqnr",
        value_db=31.25,
        floor_db=30,
        passed=True,
        measured_on="x" * 4000,
        reference="PyTorch float32",
    )
    bundle = build_bundle(folder / f"{'x' * 200}.mvbundle", many, verification=(record,))
    yield from (made.pipeline, made.pipeline.selection, *made.steps, made.video)
    yield from (bundle, mvsdk.BundleWriter(folder / "new.mvbundle"), *mvsdk.CHIPSETS)
    yield from (
        mvsdk.OnnxRuntime(threads=2),
        mvsdk.Qnn(),
        mvsdk.ExecuTorch(),
        mvsdk.CoreAI(),
        mvsdk.CoreML(),
        mvsdk.Isolation(),
    )
    yield from (made.pipeline.selection.backend, made.pipeline.session("unet"))
    runtimes = {"onnxruntime": "1.31", "qairt": "2.51", "executorch": "1.5", "coreai": "1.0"}
    device = mvsdk.Device.from_soc("SM8650", os_version="16", runtimes=runtimes)
    yield from (device, mvsdk.choose(bundle.manifest, device))
    yield GenerateOptions(num_inference_steps=4, seed=2**64 - 1)
    yield Video(frames=np.zeros((1, 1, 1, 3), np.uint8), fps=8, seed=0, prompt="火\n" * 2000)
    yield from _below(bundle.manifest)
    assert made.video.timings is not None
    yield made.video.timings


def _below(value: Any) -> Iterator[Any]:
    """Return a dataclass and all that it holds."""
    if is_dataclass(value):
        yield value
        for item in fields(value):
            yield from _below(getattr(value, item.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _below(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _below(item)


def test_every_object_is_one_short_line(made: Made, tmp_path: Path) -> None:
    seen: set[str] = set()
    for value in _objects(made, tmp_path):
        line = repr(value)
        kind = type(value).__name__
        assert line.startswith(f"{kind}("), line
        assert line.endswith(")"), line
        assert line.isprintable(), line
        assert len(line) <= LONGEST, line
        assert line == str(value) or kind == "VariantKey"  # which has a text of its own
        seen.add(kind)
    public = [getattr(mvsdk, name) for name in mvsdk.__all__]
    classes = {item.__name__ for item in public if isinstance(item, type)}
    protocols = {"Backend", "Session"}
    errors = {name for name in classes if name.endswith("Error")}
    assert classes - protocols - errors <= seen
    assert seen >= {"Timings", "Selection", "Variant", "Component", "Sampler", "FileRef"}
    assert isinstance(made.video.timings, Timings)


def test_a_loaded_bundle_opens_again_with_the_same_hash(made: Made) -> None:
    bundle = made.pipeline.bundle
    assert Bundle.open(bundle.path).manifest_sha256 == bundle.manifest_sha256
    assert made.video.bundle_sha256 == bundle.manifest_sha256
