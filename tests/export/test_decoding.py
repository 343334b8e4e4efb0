"""Frames that are decoded at once where nobody says how many: as many as the HTP holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mvsdk.bundle import Bundle
from mvsdk_export.planning import decoding, preflight

if TYPE_CHECKING:
    from exporting import Toolchain

SNAPDRAGON = ("--target", "snapdragon", "--chip", "sm8650", "--precision", "w8a16")
ONE_STEP_EACH = ("--steps", "4", "--guidance", "none")


@pytest.fixture(scope="module")
def svd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a public folder whose decoder takes 269 MB for each frame of 512 x 256."""
    pytest.importorskip("diffusers")
    from tiny_svd import tiny_pipeline, write_pipeline

    pipeline = tiny_pipeline(vae={"block_out_channels": (256, 32, 32, 32)})
    return write_pipeline(pipeline, tmp_path_factory.mktemp("decoding") / "public")


@pytest.mark.parametrize(("frames", "at_once"), [(14, 7), (23, 1), (13, 13)])
def test_plan_decodes_as_many_frames_at_once_as_fit(
    toolchain: Toolchain, svd: Path, frames: int, at_once: int
) -> None:
    asked = ("plan", "--checkpoint", svd, "--frames", str(frames), *ONE_STEP_EACH)
    done = toolchain(*asked, "--precision", "w8a16", "--chip", "sm8650", "--json")
    plan = json.loads(done.out)
    assert (done.status, plan["decode_frames"]) == (0, at_once)
    assert plan["components"]["vae_decoder"]["evaluations"] == {"4": frames // at_once}


@pytest.mark.exhaustive
def test_stable_video_diffusion_fits_at_the_size_of_its_recipe(toolchain: Toolchain) -> None:
    done = toolchain("plan", "--model", "mobilevd", "--precision", "w8a16", "--chip", "sm8650")
    assert done.status == 0, done.out
    line = "clips are decoded in 2 parts of 7 frames, as many as 3.5 GB (HTP) hold; "
    assert line + "see --decode-frames\n" in done.out


def test_what_is_said_is_obeyed_or_refused(toolchain: Toolchain, svd: Path) -> None:
    plan = ("plan", "--checkpoint", svd, "--frames", "14", *ONE_STEP_EACH, "--precision", "w8a16")
    fewer = toolchain(*plan, "--decode-frames", "2")
    assert fewer.status == 0
    assert "\nclips are decoded in 7 parts of 2 frames\n" in fewer.out
    whole = toolchain(*plan, "--decode-frames", "14")
    assert whole.status == 1
    assert "vae_decoder alone is too large; try fewer --decode-frames" in whole.out
    assert "clips are decoded" not in whole.out


def test_decoder_that_no_part_makes_fit_is_refused_without_advice_to_make_smaller_parts(
    toolchain: Toolchain, svd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "HTP_PROCESS_LIMIT_BYTES", 260_000_000)
    plan = ("plan", "--checkpoint", svd, "--frames", "2", *ONE_STEP_EACH, "--precision", "w8a16")
    done = toolchain(*plan)
    assert done.status == 1
    assert "vae_decoder alone is too large; try a light --decoder, a smaller size" in done.out


@pytest.mark.exhaustive
def test_only_snapdragon_limits_the_frames(toolchain: Toolchain, svd: Path) -> None:
    dry_run = ("export", "--checkpoint", svd, "--frames", "14", *ONE_STEP_EACH, "--dry-run")
    for target, at_once in (("all", 7), ("iphone", 14), ("executorch", 14), ("onnx", 14)):
        done = toolchain(*dry_run, "--target", target, "--json")
        assert (done.status, json.loads(done.out)["decode_frames"]) == (0, at_once), target
    plan = toolchain("plan", "--checkpoint", svd, "--precision", "fp32", "--frames", "14", "--json")
    assert json.loads(plan.out)["decode_frames"] == 14


def test_dry_run_says_what_was_chosen(toolchain: Toolchain, svd: Path) -> None:
    dry_run = ("export", "--checkpoint", svd, "--frames", "14", *ONE_STEP_EACH, "--dry-run")
    done = toolchain(*dry_run, *SNAPDRAGON)
    assert done.status == 0, done.err
    line = "clips are decoded in 2 parts of 7 frames, as many as 3.5 GB (HTP) hold; "
    assert line + "see --decode-frames\n" in done.out
    refused = toolchain(*dry_run, *SNAPDRAGON, "--decode-frames", "14")
    assert refused.status == 2
    assert "vae_decoder alone is too large; try fewer --decode-frames" in refused.err


@pytest.mark.slow
@pytest.mark.qnn
def test_export_says_what_was_chosen_and_the_bundle_decodes_so(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime_qnn")
    from mvsdk_export.parity.recording import decode_frames_of

    monkeypatch.setattr(decoding, "fits_process", lambda item, precision: item.frames <= 2)
    out = tmp_path / "parts.mvbundle"
    size = ("--height", "32", "--width", "32", "--steps", "2")
    chip = ("--target", "snapdragon", "--chip", "sm8650", "--precision", "fp16", "--no-verify")
    done = toolchain("export", "--checkpoint", tiny_model_folder, *size, *chip, "--out", out)
    assert done.status == 0, done.err
    assert "\nclips are decoded in 4 parts of 2 frames, as many as 3.5 GB (HTP) hold; " in done.out
    assert decode_frames_of(Bundle.open(out).manifest) == 2
