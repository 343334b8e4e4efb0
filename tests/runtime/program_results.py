"""What programs make, to the byte, and plain NumPy to compare it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tiny_programs import (
    CLIP,
    Arrays,
    Document,
    Graph,
    Watched,
    even,
    noise,
    pipeline,
    run,
    sample,
    upscale,
)

from mvsdk.noise import initial_latents

SEED = 7
CLIP_GIVEN = np.random.default_rng(0).integers(0, 256, CLIP, np.uint8)
f32: Any = np.float32


def watched_clip(result: str = "result") -> Document:
    """Return the operation that keeps an array, and makes the clip."""
    return run("watch", {"frames": "frames"}, seen=result, clip="clip")


def result_of(
    folder: Path,
    operations: Sequence[Document],
    shape: Sequence[int],
    kind: Any = "real",
    *,
    inputs: Mapping[str, Document] | None = None,
    numbers: Mapping[str, float] | None = None,
    graphs: Mapping[str, Graph] | None = None,
    steps: int | None = None,
    **more: Any,
) -> np.ndarray:
    """Carry operations out; return what they made as `result`."""
    watched = Watched(tuple(shape), kind)
    parts = {"watch": watched.graph(), **(graphs or {})}
    program = upscale([*operations, watched_clip()], inputs)
    with pipeline(folder, program, parts, **more) as made:
        made.upscale(CLIP_GIVEN, numbers=numbers, seed=SEED, num_inference_steps=steps)
    (array,) = watched.seen
    return array


def drawn_noise(*shape: int, stream: int = 0, window: int = 0) -> np.ndarray:
    """Return noise of the seed."""
    return initial_latents(SEED, shape, stream=stream, window=window)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Say that two arrays have the same type, shape and bytes."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


X = (4, 3)


def denoiser_of(function: Any, **more: Any) -> Graph:
    """Return a denoiser of x and a timestep."""
    inputs = {"x": (X, "real"), "t": ((1,), "real"), **more}
    return Graph("denoiser", inputs, {"m": (X, "real")}, lambda feeds: {"m": function(feeds)})


def halved(feeds: Arrays) -> np.ndarray:
    """Return what the usual denoiser gives: half of x, and a thousandth of the timestep."""
    return feeds["x"] * f32(0.5) + feeds["t"] * f32(1e-3)


DENOISE = run("denoiser", {"m": "m"}, x="noisy", t="timestep")
START = noise(0, X, "start")


def flow_by_hand(x: np.ndarray, steps: int, denoise: Any) -> np.ndarray:
    """Integrate as `flow` does, with a function of x, timestep and index for a denoiser."""
    schedule = even(steps)
    for index in range(steps):
        s, following = f32(schedule.sigmas[index]), f32(schedule.sigmas[index + 1])
        m = denoise(x, f32([schedule.timesteps[index]]), index)
        x = m + f32(float(following) / float(s)) * (x - m)
    return x


INNER = {"index": "inner_step", "model_input": "inner_noisy", "timestep": "inner_t"}
INNER_RUN = run("denoiser", {"m": "inner_m"}, x="inner_noisy", t="inner_t")


def nested_samplers() -> list[Document]:
    """Return operations of a sampler whose denoiser is a sampler."""
    inner = sample(
        [INNER_RUN], sampler="inner", start="noisy", **INNER, model_output="inner_m", output="m"
    )
    return [START, sample([inner], output="result")]
