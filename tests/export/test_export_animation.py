"""Exports of image-to-video models, end to end, on tiny networks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from exporting import Toolchain
from PIL import Image
from sample_subjects import read_sample
from tiny_mobilevd import write_tiny_animator_folder

import mvsdk
from mvsdk.bundle import Bundle
from mvsdk.errors import BundleError, InputError
from mvsdk.manifest import END_TO_END, Manifest
from mvsdk_export.export import verify_bundle
from mvsdk_export.parity.pictures import find_pictures
from mvsdk_export.parity.recording import read_guidance
from mvsdk_export.training.animator.clips import AnimatedClips, Start
from mvsdk_export.training.animator.measures import STILL_WAY
from mvsdk_export.training.measures import direction_of, way_of

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SIZE = ("--frames", "4", "--height", "64", "--width", "64")


@pytest.fixture(scope="module")
def one_step_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder whose denoiser is compressed and takes one step."""
    return write_tiny_animator_folder(tmp_path_factory.mktemp("model") / "one").path


@pytest.fixture(scope="module")
def many_steps_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder whose denoiser is that of SVD, small."""
    return write_tiny_animator_folder(
        tmp_path_factory.mktemp("model") / "many", one_step=False
    ).path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three pictures, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (90, 60)), ("b.jpg", (64, 64)), ("c.png", (40, 100))):
        coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize(shape[::-1]).save(folder / name)
    (folder / "notes.txt").write_text("none of them\n")
    return folder


def _records(manifest: Manifest, component: str) -> list[float]:
    found = [r.value_db for r in manifest.verification if r.component == component]
    return [200.0 if value is None else value for value in found]


def _is_verified(manifest: Manifest) -> bool:
    return bool(manifest.verification) and all(r.passed for r in manifest.verification)


@pytest.mark.exhaustive
def test_model_of_many_steps_keeps_its_guidance_and_its_pictures(
    toolchain: Toolchain, many_steps_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    """Two steps of EDM with guidance folded in, verified on pictures of the user's own."""
    out = tmp_path / "many.mvbundle"
    done = toolchain(
        *("export", "--target", "onnx", "--precision", "fp32", *SIZE, "--steps", "2"),
        *("--checkpoint", many_steps_folder, "--guidance", "1,3", "--pictures", pictures),
        *("--out", out, "--json"),
    )
    assert done.status == 0, done.err
    manifest = Bundle.open(out, verify=True).manifest
    assert manifest.program.task == "image_to_video"
    sampler = manifest.samplers["main"]
    assert (sampler.kind, sampler.prediction_type) == ("edm_euler", "v_prediction")
    assert sampler.guidance_scale == 3.0
    assert read_guidance(manifest) == (1.0, 3.0)
    assert _is_verified(manifest)
    assert min(_records(manifest, "unet")) > 90
    assert {r.case.split(",")[0] for r in manifest.verification} == {"a.png"}
    with mvsdk.load(out) as pipeline:
        video = pipeline.animate(pictures / "c.png", seed=3)
        again = pipeline.animate(pictures / "c.png", seed=3)
    assert video.frames.shape == (4, 64, 64, 3)
    assert (video.frames == again.frames).all()


@pytest.mark.exhaustive
def test_one_step_model_runs_on_the_emulator_with_a_picture_of_bytes(
    toolchain: Toolchain, one_step_folder: Path, tmp_path: Path
) -> None:
    """Every component is one context with nothing on the CPU, and the clip is that of PyTorch."""
    pytest.importorskip("onnxruntime_qnn")
    out = tmp_path / "one.mvbundle"
    done = toolchain(
        *("export", "--target", "snapdragon", "--chip", "sm8650", "--precision", "w8a16", *SIZE),
        *("--checkpoint", one_step_folder, "--out", out, "--json"),
    )
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert [row["delegation"]["non_delegated"] for row in report["variants"]] == [[]] * 4
    manifest = Bundle.open(out, verify=True).manifest
    assert _is_verified(manifest)
    assert sorted(manifest.samplers["main"].schedules) == [1]
    (unet,) = manifest.components["unet"].variants
    assert "timestep" not in {spec.name for spec in unet.inputs}
    for component in ("image_encoder", "vae_encoder"):
        (variant,) = manifest.components[component].variants
        image = next(spec for spec in variant.inputs if spec.name == "image")
        assert (image.dtype, image.shape) == ("uint8", (1, 64, 64, 3))
    assert _records(manifest, END_TO_END)


@pytest.mark.exhaustive
def test_shipped_model_goes_where_the_picture_looks(toolchain: Toolchain, tmp_path: Path) -> None:
    """Pictures of three subjects, and mirrored: what comes out goes the one way, and the other."""
    out = tmp_path / "animator.mvbundle"
    done = toolchain(
        *("export", "--model", "animator", "--target", "onnx", "--precision", "w8a16"),
        *("--out", out),
    )
    assert done.status == 0, done.err
    clips = AnimatedClips(sprites=read_sample(24))
    with mvsdk.load(out) as pipeline:
        for subject in ("ambulance", "police-car", "truck"):
            index = clips.sprites.index(subject)
            for mirrored, wanted in ((False, "left"), (True, "right")):
                start = Start(
                    subject=index, background="blue", colour=(70, 120, 230), mirrored=mirrored
                )
                path = tmp_path / f"{wanted}.png"
                Image.fromarray(clips.render([start])[0, 0]).save(path)
                assert direction_of(pipeline.animate(path).frames, STILL_WAY) == wanted, subject
                still = way_of(pipeline.animate(path, motion=0).frames)
                assert still is None or max(map(abs, still)) < STILL_WAY


def test_what_is_not_asked_for_is_as_the_checkpoint_was_trained(
    toolchain: Toolchain, many_steps_folder: Path, one_step_folder: Path, tmp_path: Path
) -> None:
    """Frames of its configuration; guidance of the public pipeline, unless it takes one step."""

    def plan(folder: Path, *arguments: str) -> dict[str, Any]:
        done = toolchain(
            *("export", "--target", "onnx", "--checkpoint", folder, "--out", tmp_path / "x"),
            *("--height", "64", "--width", "64", "--dry-run", "--json", *arguments),
        )
        assert done.status == 0, done.err
        return json.loads(done.out)

    many, one = plan(many_steps_folder), plan(one_step_folder)
    assert (many["frames"], many["guidance"]) == (4, [1.0, 3.0])
    assert (one["frames"], one["guidance"]) == (4, None)
    other = plan(many_steps_folder, "--frames", "6", "--guidance", "none")
    assert (other["frames"], other["guidance"]) == (6, None)
    done = toolchain(
        *("export", "--target", "onnx", "--checkpoint", many_steps_folder, "--out", tmp_path / "x"),
        *("--height", "64", "--width", "64", "--dry-run"),
    )
    assert "4 frames of 64 x 64, guidance 1 to 3, steps 4, 25; " in done.out


@pytest.mark.parametrize(
    "value", [None, 3, [], [1.0], [1.0, 2.0, 3.0], ["1", 3], [True, 3], [1, -0.5], [1, 1e9], {}]
)
def test_guidance_of_a_bundle_is_read_strictly(value: Any) -> None:
    extensions = {"x-guidance": value}
    with pytest.raises(BundleError, match=r"x-guidance of the manifest is .*; export the bu"):
        read_guidance(SimpleNamespace(extensions=extensions))  # pyright: ignore
    without = SimpleNamespace(extensions={}, source=SimpleNamespace(recipe="animator"))
    assert read_guidance(without) is None  # pyright: ignore


def test_pictures_are_regular_files_that_can_be_read(
    toolchain: Toolchain, one_step_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    (folder / "0.png").mkdir()
    os.mkfifo(folder / "1.png")
    for name in ("._a.png", ".b.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"what file managers keep")
    (folder / ".cache.png").mkdir()
    files = find_pictures(folder)
    assert files.verification + files.calibration == ("a.png", "b.jpg", "c.png")
    damaged = folder / "b.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    done = toolchain(
        *("export", "--target", "onnx", *SIZE, "--checkpoint", one_step_folder, "--dry-run"),
        *("--pictures", folder),
    )
    assert (done.status, done.out) == (2, "")
    assert "b.jpg' is damaged: " in done.err
    assert done.err.count("\n") == 1


def test_a_verification_looks_at_pictures_before_it_does_anything(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    nothing: Any = None
    with pytest.raises(InputError, match=r"a\.png' is no PNG"):
        verify_bundle(nothing, nothing, nothing, lambda _: None, pictures=tmp_path)


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    for name in ("._1.jpg", "._2.jpg", ".3.png", "4.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        InputError, match=r"holds 1 picture \(.*; hidden files are none\), expected"
    ):
        find_pictures(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--steps", "4"), "makes a clip in 1 step, got 4; use --steps 1"),
        (("--guidance", "1,3"), "its denoiser is trained to do without"),
        (("--guidance", "off"), "its denoiser is trained to do without"),
        (("--pictures", "nowhere"), "which is no folder"),
        (("--height", "100"), "allowed: 64 to 1024, a multiple of 64"),
    ],
)
def test_wrong_request_is_one_line(
    toolchain: Toolchain,
    one_step_folder: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    wanted: str,
) -> None:
    out = tmp_path / "x.mvbundle"
    done = toolchain(
        *("export", "--target", "onnx", "--frames", "4", "--width", "64"),
        *(() if "--height" in arguments else ("--height", "64")),
        *("--checkpoint", one_step_folder, "--out", out, *arguments),
    )
    assert done.status == 2
    assert wanted in done.err
    assert done.err.count("\n") == 1
    assert not out.exists()


def test_pictures_do_not_go_with_a_model_that_takes_prompts(
    toolchain: Toolchain, tiny_model_folder: Path, pictures: Path
) -> None:
    done = toolchain(
        *("export", "--target", "onnx", "--checkpoint", tiny_model_folder),
        *("--pictures", pictures, "--dry-run"),
    )
    assert done.status == 2
    assert "--pictures goes with image-to-video models, sticker takes prompts" in done.err
