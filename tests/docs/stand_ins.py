"""Files that pages speak of and no reader is given: small ones of the same form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def _svd(path: Path) -> None:
    """Stable Video Diffusion, with all of its blocks and few channels."""
    from tiny_svd import tiny_pipeline, write_pipeline

    write_pipeline(tiny_pipeline(unet={"layers_per_block": 2, "num_frames": 14}), path)


def _taesd(path: Path) -> None:
    from tiny_svd import quiet

    with quiet():
        from diffusers import AutoencoderTiny

        channels = (8, 8, 8, 8)
        AutoencoderTiny(
            encoder_block_out_channels=channels, decoder_block_out_channels=channels
        ).save_pretrained(path)


def _picture(path: Path) -> None:
    rng = np.random.default_rng(len(path.name))
    small = Image.fromarray(rng.integers(0, 255, (4, 8, 3), dtype=np.uint8))
    small.resize((512, 256)).save(path)


def _photos(path: Path) -> None:
    path.mkdir()
    for number in range(8):
        _picture(path / f"photo{'s' * number}.png")


def _importance(path: Path) -> None:
    from mvsdk_export.checkpoints.building import build_on_meta, resolve
    from mvsdk_export.families import find_recipe

    unet = find_recipe("mobilevd").component("unet")
    network: Any = build_on_meta(unet, resolve(unet.config)())
    scores = {name: float(index) for index, name in enumerate(network.temporal_blocks())}
    known = {"format_version": 1, "recipe": "mobilevd", "keep": 11, "scores": scores}
    path.write_text(json.dumps(known), encoding="utf-8")


def _bundle(path: Path) -> None:
    """Write a bundle of graphs of a few kilobytes for ONNX Runtime."""
    from tiny_bundles import VariantFiles, build_bundle, write_onnx

    build_bundle(path, [VariantFiles(content=write_onnx)])


def _clips(path: Path) -> None:
    path.write_text(
        "import numpy as np\n"
        "from torch import Generator, Tensor\n\n"
        "from mvsdk_export.training.methods.one_step import Conditions\n\n\n"
        "def draw(rng: np.random.Generator, noise: Generator) -> tuple[Tensor, Conditions]:\n"
        "    raise NotImplementedError\n",
        encoding="utf-8",
    )


def _sd15(path: Path) -> None:
    """Stable Diffusion 1.5 with few channels."""
    from tiny_stable_diffusion import write_pipeline

    write_pipeline(path, sample_size=8)


def _motion(path: Path) -> None:
    from tiny_stable_diffusion import single_file, write_motion

    write_motion(path.parent / "folder")
    single_file(path.parent / "folder", path)


def _animatelcm(path: Path) -> None:
    from tiny_stable_diffusion import write_motion

    write_motion(path)
    _lora(path / "AnimateLCM_sd15_t2v_lora.safetensors")


def _lora(path: Path) -> None:
    from tiny_loras import kohya, write_lora
    from tiny_stable_diffusion import build_parts

    path.parent.mkdir(exist_ok=True)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = build_parts()["unet"].get_submodule(name).weight
    write_lora(path, {("unet", name): weight.detach()}, kohya)


STAND_INS: Mapping[str, Callable[[Path], None]] = {
    "svd": _svd,
    "taesd": _taesd,
    "sd15": _sd15,
    "lightning/animatediff_lightning_4step_diffusers.safetensors": _motion,
    "animatelcm": _animatelcm,
    "lcm-lora/pytorch_lora_weights.safetensors": _lora,
    "photos": _photos,
    "picture.png": _picture,
    "tiny.mvbundle": _bundle,
    "importance.json": _importance,
    "clips.py": _clips,
}
"""File or folder -> what writes it."""
