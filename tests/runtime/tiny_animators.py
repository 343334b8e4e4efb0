"""Tiny image-to-video bundles: a model with an exact answer, and real ONNX of a few kilobytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import (
    WIDTH,
    Shapes,
    VariantFiles,
    build_bundle,
    build_graph,
    decoder_nodes,
    random_weights,
)

from mvsdk.bundle import Bundle
from mvsdk.manifest import Sampler, Schedule

HEIGHT, WIDE = 16, 24
CLIP = (4, HEIGHT, WIDE, 3)
LATENTS = (4, 4, 2, 3)
ADDED_TIME_IDS = (7.0, 127.0, 0.0)
"""8 frames per second, motion bucket 127, no noise on the picture."""
PICTURE_LATENTS = (1, *LATENTS[1:])
TOLD = (1, 1, WIDTH)
SHAPES: Shapes = {
    "image_encoder": (
        {"image": ((1, HEIGHT, WIDE, 3), "uint8")},
        {"encoder_hidden_states": (TOLD, "float32")},
    ),
    "vae_encoder": (
        {
            "image": ((1, HEIGHT, WIDE, 3), "uint8"),
            "noise": ((1, 3, HEIGHT, WIDE), "float32"),
            "noise_aug_strength": ((1,), "float32"),
        },
        {"image_latents": (PICTURE_LATENTS, "float32")},
    ),
    "unet": (
        {
            "sample": (LATENTS, "float32"),
            "encoder_hidden_states": (TOLD, "float32"),
            "image_latents": (PICTURE_LATENTS, "float32"),
            "added_time_ids": ((1, 3), "float32"),
        },
        {"model_output": (LATENTS, "float32")},
    ),
    "vae_decoder": ({"latents": (LATENTS, "float32")}, {"frames": (CLIP, "uint8")}),
}


def one_step() -> Sampler:
    """Return the sampler of a model that gives the clean latents at once."""
    return Sampler(
        kind="flow_euler",
        prediction_type="sample",
        schedules={1: Schedule(sigmas=(1.0, 0.0), timesteps=(1.6377,))},
        default_steps=1,
    )


def edm_steps(schedules: Sequence[int] = (1, 2, 4)) -> Sampler:
    """Return an EDM Euler sampler of a model that predicts v."""

    def schedule(steps: int) -> Schedule:
        sigmas = tuple(700.0 / 8**index for index in range(steps))
        return Schedule(
            sigmas=(*sigmas, 0.0), timesteps=tuple(0.25 * np.log(sigma) for sigma in sigmas)
        )

    return Sampler(
        kind="edm_euler",
        prediction_type="v_prediction",
        schedules={steps: schedule(steps) for steps in schedules},
        default_steps=schedules[-1],
        init_noise_sigma=700.0,
    )


def with_timestep(shapes: Shapes = SHAPES) -> Shapes:
    """Return the tensors of a model whose denoiser is told the step."""
    inputs, outputs = shapes["unet"]
    return {**shapes, "unet": ({**inputs, "timestep": ((1,), "float32")}, outputs)}


def build_animator(
    out: Path,
    variants: Sequence[VariantFiles] = (VariantFiles(),),
    *,
    shapes: Shapes = SHAPES,
    sampler: Sampler | None = None,
    **changes: Any,
) -> Bundle:
    """Write a small valid bundle that makes clips of pictures; see `build_bundle`."""
    changes = {"added_time_ids": ADDED_TIME_IDS, "name": "tiny-animator", **changes}
    return build_bundle(
        out,
        variants,
        shapes=shapes,
        task="image_to_video",
        sampler=sampler or one_step(),
        **changes,
    )


def goal(image_latents: np.ndarray, motion: float) -> np.ndarray:
    """Return the latents that the fake model makes: every frame lighter than the one before."""
    rise = np.arange(LATENTS[0], dtype=np.float32).reshape(-1, 1, 1, 1) * motion / 1000
    return (image_latents + rise).astype(np.float32)


def encode(image: np.ndarray, noise: np.ndarray, strength: float) -> np.ndarray:
    """Return image latents as the fake model makes them: means of 8 x 8 pixels, from -1 to 1."""
    pixels = image.transpose(0, 3, 1, 2) / np.float32(127.5) - 1 + strength * noise
    means = pixels.reshape(1, 3, HEIGHT // 8, 8, WIDE // 8, 8).mean((3, 5))
    return np.concatenate([means, means[:, :1]], axis=1).astype(np.float32)


def fake_animator() -> dict[str, Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]]:
    """Return a model with an exact answer, of either sampler: `goal` in any number of steps."""

    def image_encoder(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"encoder_hidden_states": np.full(TOLD, feeds["image"].mean() / 255, np.float32)}

    def vae_encoder(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        strength = feeds["noise_aug_strength"][0]
        return {"image_latents": encode(feeds["image"], feeds["noise"], strength)}

    def unet(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        clean = goal(feeds["image_latents"], feeds["added_time_ids"][0, 1])
        if "timestep" not in feeds:
            return {"model_output": clean}
        sigma = np.exp(4 * np.float64(feeds["timestep"][0]))
        signal = 1 / np.sqrt(sigma**2 + 1)
        return {"model_output": (signal * feeds["sample"] - clean) / (sigma * signal)}

    def vae_decoder(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        pixels = feeds["latents"][:, :3].repeat(8, axis=2).repeat(8, axis=3)
        frames = np.rint(pixels.transpose(0, 2, 3, 1) * 127.5 + 127.5)
        return {"frames": np.clip(frames, 0, 255)}

    return {
        "image_encoder": image_encoder,
        "vae_encoder": vae_encoder,
        "unet": unet,
        "vae_decoder": vae_decoder,
    }


def write_animator_onnx(component: str, folder: Path) -> list[Path]:
    """Write the ONNX graph of a component: random convolutions."""
    onnx = pytest.importorskip("onnx")
    path = folder / "model.onnx"
    onnx.save(build_graph(component, SHAPES[component], _GRAPHS[component]), path)
    return [path]


def _image_encoder(make: Any, types: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    return (
        [
            make.make_node("Cast", ["image"], ["bytes"], to=types.FLOAT),
            make.make_node("ReduceMean", ["bytes"], ["colour"], axes=[1, 2], keepdims=0),
            make.make_node("MatMul", ["colour", "table"], ["flat"]),
            make.make_node("Reshape", ["flat", "shape"], ["encoder_hidden_states"]),
        ],
        {"table": random_weights(3, WIDTH) / 255, "shape": np.array(TOLD, np.int64)},
    )


def _vae_encoder(make: Any, types: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    return (
        [
            make.make_node("Cast", ["image"], ["bytes"], to=types.FLOAT),
            make.make_node("Transpose", ["bytes"], ["first"], perm=[0, 3, 1, 2]),
            make.make_node("Div", ["first", "half"], ["scaled"]),
            make.make_node("Sub", ["scaled", "one"], ["pixels"]),
            make.make_node("Mul", ["noise", "noise_aug_strength"], ["added"]),
            make.make_node("Add", ["pixels", "added"], ["noised"]),
            make.make_node("Conv", ["noised", "down"], ["image_latents"], strides=[8, 8]),
        ],
        {
            "half": np.float32(127.5),
            "one": np.float32(1),
            "down": random_weights(LATENTS[1], 3, 8, 8) / 8,
        },
    )


def _unet(make: Any, types: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    channels = LATENTS[1]
    return (
        [
            make.make_node("Conv", ["sample", "kernel"], ["mixed"], pads=[1, 1, 1, 1]),
            make.make_node("Add", ["mixed", "image_latents"], ["placed"]),
            make.make_node("ReduceMean", ["encoder_hidden_states"], ["mean"], keepdims=0),
            make.make_node("MatMul", ["added_time_ids", "per_id"], ["time"]),
            make.make_node("Add", ["mean", "time"], ["condition"]),
            make.make_node("Add", ["placed", "condition"], ["model_output"]),
        ],
        {
            "kernel": random_weights(channels, channels, 3, 3) / 4,
            "per_id": np.float32([[1e-2], [1e-3], [1]]),
        },
    )


def _vae_decoder(make: Any, types: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    return decoder_nodes(make, types, channels=LATENTS[1])


_GRAPHS = {
    "image_encoder": _image_encoder,
    "vae_encoder": _vae_encoder,
    "unet": _unet,
    "vae_decoder": _vae_decoder,
}
