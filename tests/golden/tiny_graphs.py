"""Graphs of a few nodes, each with a function of numpy that gives the same numbers to the bit.

The operators are exact in float32 on every runtime, or rounded once: what is added and multiplied
is rounded as IEEE 754 says, the rest only moves numbers. So whatever runs the graphs, a clip made
with them has the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPSET, IR = 21, 10
CHANNELS = 12
Array = NDArray[Any]
Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]
f32 = np.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """An input or output as a manifest has it, and as the graph stores it."""

    shape: tuple[int, ...]
    type: str = "real"
    dtype: str = "float32"
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An operator: its type, what it takes, the one thing that it gives, its attributes."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A graph, and the function that does the same."""

    inputs: Mapping[str, Border]
    outputs: Mapping[str, Border]
    nodes: Sequence[Node]
    constants: Mapping[str, Array]
    function: Function

    def to_onnx(self) -> bytes:
        """Return it as an ONNX file."""
        from onnx import TensorProto, helper, numpy_helper

        def infos(side: Mapping[str, Border]) -> list[Any]:
            return [
                helper.make_tensor_value_info(
                    name, TensorProto.DataType.Value(_onnx_name(item.dtype)), item.shape
                )
                for name, item in side.items()
            ]

        nodes = [
            helper.make_node(node.op, list(node.inputs), [node.output], **node.attributes)
            for node in self.nodes
        ]
        constants = [numpy_helper.from_array(x, name) for name, x in self.constants.items()]
        graph = helper.make_graph(nodes, "g", infos(self.inputs), infos(self.outputs), constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR
        )
        return model.SerializeToString()


def _onnx_name(dtype: str) -> str:
    return "FLOAT" if dtype == "float32" else dtype.upper()


def _node(op: str, inputs: str, output: str, **attributes: Any) -> Node:
    return Node(op=op, inputs=tuple(inputs.split()), output=output, attributes=attributes)


def _cast(source: str, output: str, dtype: str) -> Node:
    kinds = {"float32": 1, "uint8": 2, "uint16": 4, "int32": 6, "int64": 7, "float16": 10}
    return _node("Cast", source, output, to=kinds[dtype])


def _places(*values: int) -> Array:
    return np.array(values, np.int64)


# --- text ----------------------------------------------------------------------------------------


def text_encoder(words: int, length: int, *, ids: str = "int32", masked: bool = False) -> Graph:
    """Return rows of a table; with a mask, those of a filler are zeros."""
    table = (np.arange(words * CHANNELS, dtype=np.float64) % 11 - 5).astype(f32) / f32(16)
    table = table.reshape(words, CHANNELS)
    inputs = {"input_ids": Border(shape=(1, length), type="integer", dtype=ids)}
    gather = "rows" if masked else "encoder_hidden_states"
    nodes = [_node("Gather", "table input_ids", gather)]
    constants = {"table": table}
    if masked:
        inputs["attention_mask"] = Border(shape=(1, length), type="integer", dtype="int32")
        nodes += [
            _cast("attention_mask", "ones", "float32"),
            _node("Reshape", "ones column", "weights"),
            _node("Mul", "rows weights", "encoder_hidden_states"),
        ]
        constants["column"] = _places(1, length, 1)

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


# --- pictures ------------------------------------------------------------------------------------


def image_encoder() -> Graph:
    """Return the first row of a picture of 4 x 4 as twelve numbers."""
    nodes = [
        _cast("image", "levels", "float32"),
        _node("Slice", "levels zero one axis", "row"),
        _node("Reshape", "row shape", "flat"),
        _node("Mul", "flat scale", "encoder_hidden_states"),
    ]

    def function(x: Mapping[str, Array]) -> Mapping[str, Array]:
        row = x["image"].astype(f32)[:, :1].reshape(1, 1, CHANNELS)
        return {"encoder_hidden_states": row * f32(2**-9)}

    return Graph(
        inputs={"image": Border(shape=(1, 4, 4, 3), type="pixels", dtype="uint8")},
        outputs={"encoder_hidden_states": Border(shape=(1, 1, CHANNELS))},
        nodes=nodes,
        constants={
            "zero": _places(0),
            "one": _places(1),
            "axis": _places(1),
            "shape": _places(1, 1, CHANNELS),
            "scale": np.array(2**-9, f32),
        },
        function=function,
    )


def vae_encoder() -> Graph:
    """Return latents of a picture of 4 x 4, to which noise of a strength is added."""
    nodes = [
        _cast("image", "levels", "float32"),
        _node("Transpose", "levels", "planes", perm=[0, 3, 1, 2]),
        _node("Mul", "planes scale", "scaled"),
        _node("Mul", "noise noise_aug_strength", "grain"),
        _node("Add", "scaled grain", "noisy"),
        _node("Reshape", "noisy split", "blocks"),
        _node("Transpose", "blocks", "gathered", perm=[0, 3, 5, 1, 2, 4]),
        _node("Reshape", "gathered shape", "image_latents"),
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
            "split": _places(1, 3, 2, 2, 2, 2),
            "shape": _places(1, CHANNELS, 2, 2),
        },
        function=function,
    )


def decoder(frames: int, *, bytes_: bool = False, pixels: str = "float32") -> Graph:
    """Return frames of 4 x 4; as bytes they are cut to whole levels by the graph itself."""
    last = "levels" if bytes_ or pixels != "float32" else "frames"
    nodes = [
        _node("DepthToSpace", "latents", "planes", blocksize=2),
        _node("Transpose", "planes", "rows", perm=[0, 2, 3, 1]),
        _node("Mul", "rows contrast", "scaled"),
        _node("Add", "scaled grey", last),
    ]
    constants = {"contrast": np.array(40, f32), "grey": np.array(127.75, f32)}
    dtype = "uint8" if bytes_ else pixels
    if bytes_:
        nodes += [_node("Clip", "levels low high", "clipped"), _cast("clipped", "frames", "uint8")]
        constants |= {"low": np.array(0, f32), "high": np.array(255, f32)}
    elif pixels != "float32":
        nodes.append(_cast("levels", "frames", pixels))

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


# --- denoisers -----------------------------------------------------------------------------------


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
    nodes = [_node("Mul", "sample gain", "m0")]
    constants: dict[str, Array] = {"gain": np.array(gain, f32)}
    if conditions.timestep:
        inputs["timestep"] = Border(shape=(1,))
        nodes += [_node("Mul", "timestep rate", "t"), _node("Add", "m0 t", "m1")]
        constants["rate"] = np.array(2**-10, f32)
    if conditions.tokens:
        place = conditions.place
        inputs["encoder_hidden_states"] = Border(shape=(1, conditions.tokens, CHANNELS))
        nodes += [
            _node("Slice", "encoder_hidden_states h0 h1 axis", "word"),
            _node("Reshape", "word column", "h"),
            _node("Add", f"{nodes[-1].output} h", "m2"),
        ]
        constants |= {"h0": _places(place), "h1": _places(place + 1), "axis": _places(1)}
        constants["column"] = _places(1, CHANNELS, 1, 1)
    if conditions.image:
        inputs["image_latents"] = Border(shape=(1, CHANNELS, *size))
        nodes.append(_node("Add", f"{nodes[-1].output} image_latents", "m3"))
    if conditions.ids:
        inputs["added_time_ids"] = Border(shape=(3,))
        nodes += [
            _node("Slice", "added_time_ids i1 i2", "motion"),
            _node("Slice", "added_time_ids i2 i3", "strength"),
            _node("Mul", "motion motion_rate", "a"),
            _node("Add", f"{nodes[-1].output} a", "m4"),
            _node("Add", "m4 strength", "m5"),
        ]
        constants |= {"i1": _places(1), "i2": _places(2), "i3": _places(3)}
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
        _cast("sample", "levels", "float32"),
        _node("Mul", "levels half", "halves"),
        _node("Add", "halves quarter", "moved"),
        _node("Clip", "moved low high", "clipped"),
        _cast("clipped", "model_output", "uint16"),
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
        _cast("sample", "x", "float32"),
        _node("Mul", "x gain", "m"),
        _cast("m", "model_output", "float16"),
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
        _node("Mul", "sample gain", "m"),
        _node("Add", "m cache", "model_output"),
        _node("Slice", "model_output last end axis", "tail"),
        _node("Mul", "tail half", "new_cache"),
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
            "last": _places(frames - 1),
            "end": _places(frames),
            "axis": _places(0),
        },
        function=function,
    )


# --- others --------------------------------------------------------------------------------------


def scaler(shape: tuple[int, ...], gain: float = 0.5, offset: float = 0.25) -> Graph:
    """Return gain * x + offset."""
    nodes = [_node("Mul", "x gain", "m"), _node("Add", "m offset", "y")]
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
        nodes=[_node("Mul", "x ramp", "y")],
        constants={"ramp": rising},
        function=lambda x: {"y": x["x"] * rising},
    )


def reshaper(shape: tuple[int, ...], new: tuple[int, ...]) -> Graph:
    """Return x in another shape."""
    return Graph(
        inputs={"x": Border(shape=shape)},
        outputs={"y": Border(shape=new)},
        nodes=[_node("Reshape", "x shape", "y")],
        constants={"shape": _places(*new)},
        function=lambda x: {"y": x["x"].reshape(new)},
    )


def cell(shape: tuple[int, ...]) -> Graph:
    """Return the sum of x and a state, and as the next state half of that."""
    nodes = [_node("Add", "x state", "y"), _node("Mul", "y half", "next_state")]

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
        _node("Gather", "table places", "rows"),
        _cast("levels", "shades", "float32"),
        _node("Mul", "shades scale", "tint"),
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


def pixel_encoder(frames: int) -> Graph:
    """Return latents of frames of 4 x 4, as `decoder` undoes them."""
    nodes = [
        _cast("image", "levels", "float32"),
        _node("Add", "levels grey", "moved"),
        _node("Mul", "moved scale", "scaled"),
        _node("Transpose", "scaled", "planes", perm=[0, 3, 1, 2]),
        _node("Reshape", "planes split", "blocks"),
        _node("Transpose", "blocks", "gathered", perm=[0, 3, 5, 1, 2, 4]),
        _node("Reshape", "gathered shape", "latents"),
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
            "split": _places(frames, 3, 2, 2, 2, 2),
            "shape": _places(frames, CHANNELS, 2, 2),
        },
        function=function,
    )
