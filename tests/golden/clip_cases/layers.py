"""Graphs of a few operators for all other places of a program."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from clip_cases.graphs import CHANNELS, Array, Border, Graph, cast, f32, node, places


def scaler(shape: tuple[int, ...], gain: float = 0.5, offset: float = 0.25) -> Graph:
    """Return gain * x + offset."""
    nodes = [node("Mul", "x gain", "m"), node("Add", "m offset", "y")]
    return Graph(
        inputs={"x": Border(shape=shape)},
        outputs={"y": Border(shape=shape)},
        nodes=nodes,
        constants={"gain": np.array(gain, f32), "offset": np.array(offset, f32)},
        function=lambda x: {"y": x["x"] * f32(gain) + f32(offset)},
    )


def ramp(shape: tuple[int, ...]) -> Graph:
    """Return x times 1, 0.875, 0.75, ... by the place along the first axis."""
    rising = (f32(1) - np.arange(shape[0], dtype=f32) / f32(8)).reshape(-1, *[1] * len(shape[1:]))
    return Graph(
        inputs={"x": Border(shape=shape)},
        outputs={"y": Border(shape=shape)},
        nodes=[node("Mul", "x ramp", "y")],
        constants={"ramp": rising},
        function=lambda x: {"y": x["x"] * rising},
    )


def reshaper(shape: tuple[int, ...], new: tuple[int, ...]) -> Graph:
    """Return x in another shape."""
    return Graph(
        inputs={"x": Border(shape=shape)},
        outputs={"y": Border(shape=new)},
        nodes=[node("Reshape", "x shape", "y")],
        constants={"shape": places(*new)},
        function=lambda x: {"y": x["x"].reshape(new)},
    )


def cell(shape: tuple[int, ...]) -> Graph:
    """Return the sum of x and a state, and as the next state half of that."""
    nodes = [node("Add", "x state", "y"), node("Mul", "y half", "next_state")]

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        y = x["x"] + x["state"]
        return {"y": y, "next_state": y * f32(0.5)}

    return Graph(
        inputs={"x": Border(shape=shape), "state": Border(shape=shape)},
        outputs={"y": Border(shape=shape), "next_state": Border(shape=shape)},
        nodes=nodes,
        constants={"half": np.array(0.5, f32)},
        function=function,
    )


def lookup(rows: int, length: int) -> Graph:
    """Return rows of twelve numbers by places (int64), and a picture's levels / 256."""
    table = (np.arange(rows * CHANNELS) % 7).astype(f32).reshape(rows, CHANNELS) / f32(8)
    nodes = [
        node("Gather", "table places", "rows"),
        cast("levels", "shades", "float32"),
        node("Mul", "shades scale", "tint"),
    ]

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"rows": table[x["places"]], "tint": x["levels"].astype(f32) * f32(2**-8)}

    return Graph(
        inputs={
            "places": Border(shape=(length,), type="integer", dtype="int64"),
            "levels": Border(shape=(1, CHANNELS, 2, 2), type="pixels", dtype="int32"),
        },
        outputs={
            "rows": Border(shape=(length, CHANNELS)),
            "tint": Border(shape=(1, CHANNELS, 2, 2)),
        },
        nodes=nodes,
        constants={"table": table, "scale": np.array(2**-8, f32)},
        function=function,
    )
