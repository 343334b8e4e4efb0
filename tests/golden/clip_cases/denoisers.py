"""Graphs that samplers call: conditioned in several ways, and stored in several types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clip_cases.graphs import CHANNELS, Array, Border, Graph, Node, cast, f32, node, places


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a denoiser takes besides its sample."""

    tokens: int = 0
    """Of the hidden states, one of which is added to every channel."""
    place: int = 0
    """Of that one."""
    image: bool = False
    """Latents of a picture, added to each frame."""
    ids: bool = False
    """Three numbers, of which the second and third are added."""
    timestep: bool = True


def denoiser(
    frames: int, conditions: Conditions, *, size: tuple[int, int] = (2, 2), gain: float = 0.375
) -> Graph:
    """Return gain * sample + timestep / 1024 + what it is conditioned on."""
    shape = (frames, CHANNELS, *size)
    inputs = {"sample": Border(shape=shape)}
    nodes = [node("Mul", "sample gain", "m0")]
    constants: dict[str, Array] = {"gain": np.array(gain, f32)}
    if conditions.timestep:
        inputs["timestep"] = Border(shape=(1,))
        nodes += [node("Mul", "timestep rate", "t"), node("Add", "m0 t", "m1")]
        constants["rate"] = np.array(2**-10, f32)
    if conditions.tokens:
        place = conditions.place
        inputs["encoder_hidden_states"] = Border(shape=(1, conditions.tokens, CHANNELS))
        nodes += [
            node("Slice", "encoder_hidden_states h0 h1 axis", "word"),
            node("Reshape", "word column", "h"),
            node("Add", f"{nodes[-1].output} h", "m2"),
        ]
        constants |= {"h0": places(place), "h1": places(place + 1), "axis": places(1)}
        constants["column"] = places(1, CHANNELS, 1, 1)
    if conditions.image:
        inputs["image_latents"] = Border(shape=(1, CHANNELS, *size))
        nodes.append(node("Add", f"{nodes[-1].output} image_latents", "m3"))
    if conditions.ids:
        inputs["added_time_ids"] = Border(shape=(3,))
        nodes += [
            node("Slice", "added_time_ids i1 i2", "motion"),
            node("Slice", "added_time_ids i2 i3", "strength"),
            node("Mul", "motion motion_rate", "a"),
            node("Add", f"{nodes[-1].output} a", "m4"),
            node("Add", "m4 strength", "m5"),
        ]
        constants |= {"i1": places(1), "i2": places(2), "i3": places(3)}
        constants["motion_rate"] = np.array(2**-9, f32)
    nodes[-1] = Node(
        op=nodes[-1].op,
        inputs=nodes[-1].inputs,
        output="model_output",
        attributes=nodes[-1].attributes,
    )

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        m = x["sample"] * f32(gain)
        if conditions.timestep:
            m = m + x["timestep"] * f32(2**-10)
        if conditions.tokens:
            m = m + x["encoder_hidden_states"][:, conditions.place].reshape(1, CHANNELS, 1, 1)
        if conditions.image:
            m = m + x["image_latents"]
        if conditions.ids:
            m = m + x["added_time_ids"][1:2] * f32(2**-9)
            m = m + x["added_time_ids"][2:3]
        return {"model_output": m}

    return Graph(
        inputs=inputs,
        outputs={"model_output": Border(shape=shape)},
        nodes=nodes,
        constants=constants,
        function=function,
    )


def quantised_denoiser(frames: int) -> Graph:
    """Return a denoiser that takes and gives uint16: half of what is stored, and a quarter on."""
    shape = (frames, CHANNELS, 2, 2)
    sides = {
        "sample": Border(shape=shape, dtype="uint16", scale=2**-12 + 2**-20, zero_point=32768),
        "model_output": Border(shape=shape, dtype="uint16", scale=2**-13, zero_point=32700),
    }
    nodes = [
        cast("sample", "levels", "float32"),
        node("Mul", "levels half", "halves"),
        node("Add", "halves quarter", "moved"),
        node("Clip", "moved low high", "clipped"),
        cast("clipped", "model_output", "uint16"),
    ]

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        moved = x["sample"].astype(f32) * f32(0.5) + f32(16384.25)
        return {"model_output": moved.clip(f32(0), f32(65535)).astype(np.uint16)}

    return Graph(
        inputs={"sample": sides["sample"]},
        outputs={"model_output": sides["model_output"]},
        nodes=nodes,
        constants={
            "half": np.array(0.5, f32),
            "quarter": np.array(16384.25, f32),
            "low": np.array(0, f32),
            "high": np.array(65535, f32),
        },
        function=function,
    )


def half_denoiser(frames: int) -> Graph:
    """Return a denoiser whose tensors are float16; it counts in float32."""
    shape = (frames, CHANNELS, 2, 2)
    border = Border(shape=shape, dtype="float16")
    nodes = [
        cast("sample", "x", "float32"),
        node("Mul", "x gain", "m"),
        cast("m", "model_output", "float16"),
    ]

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"model_output": (x["sample"].astype(f32) * f32(0.375)).astype(np.float16)}

    return Graph(
        inputs={"sample": border},
        outputs={"model_output": border},
        nodes=nodes,
        constants={"gain": np.array(0.375, f32)},
        function=function,
    )


def caching_denoiser(frames: int) -> Graph:
    """Return a denoiser that adds a cache of one frame, and gives the next: half of its last."""
    shape, one = (frames, CHANNELS, 2, 2), (1, CHANNELS, 2, 2)
    nodes = [
        node("Mul", "sample gain", "m"),
        node("Add", "m cache", "model_output"),
        node("Slice", "model_output last end axis", "tail"),
        node("Mul", "tail half", "new_cache"),
    ]

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        m = x["sample"] * f32(0.375) + x["cache"]
        return {"model_output": m, "new_cache": m[-1:] * f32(0.5)}

    return Graph(
        inputs={"sample": Border(shape=shape), "cache": Border(shape=one)},
        outputs={"model_output": Border(shape=shape), "new_cache": Border(shape=one)},
        nodes=nodes,
        constants={
            "gain": np.array(0.375, f32),
            "half": np.array(0.5, f32),
            "last": places(frames - 1),
            "end": places(frames),
            "axis": places(0),
        },
        function=function,
    )
