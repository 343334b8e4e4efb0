"""Graphs between texts or pictures, and latents."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from clip_cases.graphs import CHANNELS, Array, Border, Graph, cast, f32, node, places


def text_encoder(words: int, length: int, *, ids: str = "int32", masked: bool = False) -> Graph:
    """Return rows of a table; with a mask, those of a filler are zeros."""
    table = (np.arange(words * CHANNELS, dtype=np.float64) % 11 - 5).astype(f32) / f32(16)
    table = table.reshape(words, CHANNELS)
    inputs = {"input_ids": Border(shape=(1, length), type="integer", dtype=ids)}
    gather = "rows" if masked else "encoder_hidden_states"
    nodes = [node("Gather", "table input_ids", gather)]
    constants = {"table": table}
    if masked:
        inputs["attention_mask"] = Border(shape=(1, length), type="integer", dtype="int32")
        nodes += [
            cast("attention_mask", "ones", "float32"),
            node("Reshape", "ones column", "weights"),
            node("Mul", "rows weights", "encoder_hidden_states"),
        ]
        constants["column"] = places(1, length, 1)

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        rows = table[x["input_ids"]]
        if masked:
            rows = rows * x["attention_mask"].astype(f32)[:, :, None]
        return {"encoder_hidden_states": rows}

    return Graph(
        inputs=inputs,
        outputs={"encoder_hidden_states": Border(shape=(1, length, CHANNELS))},
        nodes=nodes,
        constants=constants,
        function=function,
    )


def image_encoder() -> Graph:
    """Return the first row of a picture of 4 x 4 as twelve numbers."""
    nodes = [
        cast("image", "levels", "float32"),
        node("Slice", "levels zero one axis", "row"),
        node("Reshape", "row shape", "flat"),
        node("Mul", "flat scale", "encoder_hidden_states"),
    ]

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        row = x["image"].astype(f32)[:, :1].reshape(1, 1, CHANNELS)
        return {"encoder_hidden_states": row * f32(2**-9)}

    return Graph(
        inputs={"image": Border(shape=(1, 4, 4, 3), type="pixels", dtype="uint8")},
        outputs={"encoder_hidden_states": Border(shape=(1, 1, CHANNELS))},
        nodes=nodes,
        constants={
            "zero": places(0),
            "one": places(1),
            "axis": places(1),
            "shape": places(1, 1, CHANNELS),
            "scale": np.array(2**-9, f32),
        },
        function=function,
    )


def vae_encoder() -> Graph:
    """Return latents of a picture of 4 x 4, to which noise of a strength is added."""
    nodes = [
        cast("image", "levels", "float32"),
        node("Transpose", "levels", "planes", perm=[0, 3, 1, 2]),
        node("Mul", "planes scale", "scaled"),
        node("Mul", "noise noise_aug_strength", "grain"),
        node("Add", "scaled grain", "noisy"),
        node("Reshape", "noisy split", "blocks"),
        node("Transpose", "blocks", "gathered", perm=[0, 3, 5, 1, 2, 4]),
        node("Reshape", "gathered shape", "image_latents"),
    ]

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        scaled = x["image"].astype(f32).transpose(0, 3, 1, 2) * f32(2**-8)
        noisy = scaled + x["noise"] * x["noise_aug_strength"]
        blocks = noisy.reshape(1, 3, 2, 2, 2, 2).transpose(0, 3, 5, 1, 2, 4)
        return {"image_latents": blocks.reshape(1, CHANNELS, 2, 2)}

    return Graph(
        inputs={
            "image": Border(shape=(1, 4, 4, 3), type="pixels", dtype="uint8"),
            "noise": Border(shape=(1, 3, 4, 4)),
            "noise_aug_strength": Border(shape=(1,)),
        },
        outputs={"image_latents": Border(shape=(1, CHANNELS, 2, 2))},
        nodes=nodes,
        constants={
            "scale": np.array(2**-8, f32),
            "split": places(1, 3, 2, 2, 2, 2),
            "shape": places(1, CHANNELS, 2, 2),
        },
        function=function,
    )


def decoder(frames: int, *, bytes_: bool = False, pixels: str = "float32") -> Graph:
    """Return frames of 4 x 4; as bytes they are cut to whole levels by the graph itself."""
    last = "levels" if bytes_ or pixels != "float32" else "frames"
    nodes = [
        node("DepthToSpace", "latents", "planes", blocksize=2),
        node("Transpose", "planes", "rows", perm=[0, 2, 3, 1]),
        node("Mul", "rows contrast", "scaled"),
        node("Add", "scaled grey", last),
    ]
    constants = {"contrast": np.array(40, f32), "grey": np.array(127.75, f32)}
    dtype = "uint8" if bytes_ else pixels
    if bytes_:
        nodes += [node("Clip", "levels low high", "clipped"), cast("clipped", "frames", "uint8")]
        constants |= {"low": np.array(0, f32), "high": np.array(255, f32)}
    elif pixels != "float32":
        nodes.append(cast("levels", "frames", pixels))

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        latents = x["latents"]
        split = latents.reshape(frames, 2, 2, 3, 2, 2).transpose(0, 3, 4, 1, 5, 2)
        rows = split.reshape(frames, 3, 4, 4).transpose(0, 2, 3, 1)
        levels = rows * f32(40) + f32(127.75)
        return {"frames": (levels.clip(0, 255) if bytes_ else levels).astype(dtype)}

    return Graph(
        inputs={"latents": Border(shape=(frames, CHANNELS, 2, 2))},
        outputs={"frames": Border(shape=(frames, 4, 4, 3), type="pixels", dtype=dtype)},
        nodes=nodes,
        constants=constants,
        function=function,
    )


def pixel_encoder(frames: int) -> Graph:
    """Return latents of frames of 4 x 4, as `decoder` undoes them."""
    nodes = [
        cast("image", "levels", "float32"),
        node("Add", "levels grey", "moved"),
        node("Mul", "moved scale", "scaled"),
        node("Transpose", "scaled", "planes", perm=[0, 3, 1, 2]),
        node("Reshape", "planes split", "blocks"),
        node("Transpose", "blocks", "gathered", perm=[0, 3, 5, 1, 2, 4]),
        node("Reshape", "gathered shape", "latents"),
    ]

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        scaled = (x["image"].astype(f32) + f32(-127.75)) * f32(2**-5)
        planes = scaled.transpose(0, 3, 1, 2).reshape(frames, 3, 2, 2, 2, 2)
        gathered = planes.transpose(0, 3, 5, 1, 2, 4)
        return {"latents": gathered.reshape(frames, CHANNELS, 2, 2)}

    return Graph(
        inputs={"image": Border(shape=(frames, 4, 4, 3), type="pixels", dtype="uint8")},
        outputs={"latents": Border(shape=(frames, CHANNELS, 2, 2))},
        nodes=nodes,
        constants={
            "grey": np.array(-127.75, f32),
            "scale": np.array(2**-5, f32),
            "split": places(frames, 3, 2, 2, 2, 2),
            "shape": places(frames, CHANNELS, 2, 2),
        },
        function=function,
    )
