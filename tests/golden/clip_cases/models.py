"""What models are made of: operations, programs, and the words of their tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clip_cases.graphs import CHANNELS, Graph
from mvsdk.manifest import (
    ClipInput,
    DrawNoise,
    Operation,
    Program,
    Run,
    Sample,
    Sampler,
    Task,
    VideoSpec,
)

WORDS = ["[PAD]", "[UNK]", "a", "rocket", "flying", "left", "cat", "##s", ",", "run", "##ning"]
LENGTH = 6
VOCABULARY = json.dumps({"kind": "wordpiece", "tokens": WORDS}).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a bundle is made of."""

    program: Program
    graphs: Mapping[str, Graph]
    """By component."""
    roles: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of components whose name is no role."""
    samplers: Mapping[str, Sampler] = field(default_factory=dict[str, Sampler])
    tables: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


def levels(*shape: int) -> np.ndarray:
    """Return pixels, no two neighbours alike: what pictures and clips of the cases are."""
    count = int(np.prod(shape))
    return (np.arange(count, dtype=np.uint32) * 37 % 256).astype(np.uint8).reshape(shape)


def video_of(frames: int, side: int = 4) -> VideoSpec:
    """Return the clip of a case, which is square."""
    return VideoSpec(frames=frames, height=side, width=side, fps=8.0)


def run(component: str, inputs: Mapping[str, str], **outputs: str) -> Run:
    """Return the operation that calls a graph: tensor=array."""
    return Run(component=component, inputs=dict(inputs), outputs=outputs)


def decode(latents: str = "latents", frames: str = "frames") -> Run:
    """Return the operation that makes frames of latents."""
    return run("vae_decoder", {"latents": latents}, frames=frames)


def noise(shape: Sequence[int], output: str = "start", stream: int = 0) -> DrawNoise:
    """Return the operation that draws noise."""
    return DrawNoise(stream=stream, shape=tuple(shape), output=output)


def sample(*operations: Operation, **changes: Any) -> Sample:
    """Return the operation that integrates, with the names that most models use."""
    usual: dict[str, Any] = {
        "sampler": "main",
        "start": "start",
        "stream": 0,
        "index": "step",
        "model_input": "z",
        "timestep": "timestep",
        "model_output": "m",
        "output": "latents",
    }
    return Sample(operations=operations, **{**usual, **changes})


def program_of(
    task: Task, frames: int, operations: Sequence[Operation], side: int = 4, **inputs: Any
) -> Program:
    """Return a program whose output is `frames`."""
    return Program(
        name="default",
        task=task,
        video=video_of(frames, side),
        inputs=inputs,
        operations=tuple(operations),
        output="frames",
    )


def latents_of(frames: int, side: int = 2) -> tuple[int, ...]:
    """Return the shape of latents."""
    return (frames, CHANNELS, side, side)


def clip_of(frames: int) -> ClipInput:
    """Return the input that is a clip."""
    return ClipInput(frames=frames, height=4, width=4, fps=8.0)
