"""What a plan says of Stable Diffusion and its motion modules at full size, without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")

if TYPE_CHECKING:
    from exporting import Toolchain

V3: dict[str, Any] = {"use_motion_mid_block": False}


def _adapter(folder: Path, **changes: Any) -> Path:
    """Write config.json of the public motion modules, and no weights."""
    folder.mkdir()
    document = {"_class_name": "MotionAdapter", "motion_max_seq_length": 32, **changes}
    (folder / "config.json").write_text(json.dumps(document), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("motion", "frames", "height", "width", "parameters", "tflops"),
    [
        (None, 1, 512, 512, 859_520_964, 0.803),
        ({}, 8, 256, 256, 1_312_730_244, 2.0514),
        (V3, 8, 256, 256, 859_520_964 + 417_137_600, None),
        pytest.param({}, 16, 512, 512, 1_312_730_244, 17.7489, marks=pytest.mark.exhaustive),
        pytest.param({}, 16, 320, 512, 1_312_730_244, 10.6517, marks=pytest.mark.exhaustive),
    ],
)
def test_a_plan_knows_parameters_and_operations(
    toolchain: Toolchain,
    tmp_path: Path,
    motion: dict[str, Any] | None,
    frames: int,
    height: int,
    width: int,
    parameters: int,
    tflops: float | None,
) -> None:
    """The figures are of diffusers' networks, counted by hooks (multiply and add are two)."""
    size = ("--frames", str(frames), "--height", str(height), "--width", str(width))
    added = () if motion is None else ("--motion", _adapter(tmp_path / "motion", **motion))
    command = ("plan", "--model", "stable_diffusion", *size, *added, "--precision", "fp16")
    done = toolchain(*command, "--chip", "sm8650", "--json")
    plan = json.loads(done.out)
    assert plan["components"]["unet"]["parameters"] == parameters
    if tflops is not None:
        assert plan["components"]["unet"]["flops"] / 1e12 == pytest.approx(tflops, rel=0.01)


def test_guidance_doubles_the_runs(toolchain: Toolchain, tmp_path: Path) -> None:
    motion = _adapter(tmp_path / "motion")
    size = ("--frames", "2", "--height", "64", "--width", "64", "--steps", "4")
    command = ("plan", "--model", "stable_diffusion", "--motion", motion, *size)
    rest = ("--precision", "fp16", "--chip", "sm8650", "--json")
    runs = {
        guidance: {
            name: part["evaluations"]["4"]
            for name, part in json.loads(toolchain(*command, "--guidance", guidance, *rest).out)[
                "components"
            ].items()
        }
        for guidance in ("none", "1", "7.5")
    }
    assert runs["none"] == runs["1"] == {"text_encoder": 1, "unet": 4, "vae_decoder": 2}
    assert runs["7.5"] == {"text_encoder": 2, "unet": 8, "vae_decoder": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--frames", "8"), "--frames 8 needs motion modules: .*; give --motion, or --frames 1"),
        (("--guidance", "1,3"), "--guidance is '1,3', expected a number, such as 7.5, or none"),
        (("--guidance", "99"), "--guidance is '99', allowed: 1 to 30 each"),
        (
            ("--sampler", "dpm"),
            "unknown sampler 'dpm'; known: euler_trailing, lcm, ddim, euler_anc",
        ),
        (("--lora", "a.safetensors:1e9"), "the scale of --lora .* is 1e9, allowed: -100 to 100"),
        (("--lora", "missing.safetensors:0.5"), "LoRA 'missing.safetensors' does not exist"),
        (
            ("--motion", "missing"),
            "folder of motion modules 'missing' does not exist; give a folder that holds conf",
        ),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    toolchain: Toolchain, options: tuple[str, ...], message: str
) -> None:
    import re

    done = toolchain("plan", "--model", "stable_diffusion", *options)
    assert done.status == 2
    assert re.search(message, done.err), done.err
    assert done.err.count("\n") == 1


def test_a_plan_knows_whether_a_lora_fits(toolchain: Toolchain, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    for name, module in {
        "good": "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q",
        "bad": "lora_te2_text_model_encoder_layers_0_mlp_fc1",
    }.items():
        pair = {"lora_down": torch.ones(4, 1280), "lora_up": torch.ones(1280, 4)}
        tensors = {f"{module}.{part}.weight": x for part, x in pair.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    command = ("plan", "--model", "stable_diffusion", "--height", "64", "--width", "64", "--lora")
    good, bad = (toolchain(*command, f"{tmp_path / x}.safetensors:0.5") for x in ("good", "bad"))
    assert good.status == 0, good.err
    assert bad.status == 2
    assert "it was made for Stable Diffusion XL" in bad.err


def test_a_model_that_is_sampled_as_it_was_trained_has_no_choice(toolchain: Toolchain) -> None:
    done = toolchain("plan", "--model", "sticker", "--sampler", "lcm")
    assert (done.status, done.err) == (
        2,
        "error: --sampler does not go with sticker, which is sampled as its scheduler says; "
        "leave it out\n",
    )


def test_more_frames_than_there_are_places_are_refused(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    motion = _adapter(tmp_path / "v1", motion_max_seq_length=24)
    done = toolchain("plan", "--model", "stable_diffusion", "--motion", motion, "--frames", "32")
    assert (done.status, done.err) == (
        2,
        "error: --frames 32 is more than the motion modules know: 1 to 24\n",
    )
