"""Tiny bundles that take a clip or a picture: editors that paint by a prompt, and an enlarger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import LENGTH, TOKENS, WIDTH, VariantFiles, build_graph, random_weights
from tiny_programs import Arrays, Document, Graph, build, linear, number, run, take

from mvsdk.bundle import Bundle

FRAMES, HEIGHT, WIDE = 3, 16, 24
CLIP = (FRAMES, HEIGHT, WIDE, 3)
LARGE = (FRAMES, 2 * HEIGHT, 2 * WIDE, 3)
HIDDEN = (1, LENGTH, WIDTH)
FPS = 8
_SIZE = {"frames": FRAMES, "height": HEIGHT, "width": WIDE, "fps": FPS}
_TABLE = random_weights(len(TOKENS), WIDTH)


def _encode(feeds: Arrays) -> Arrays:
    return {"hidden": _TABLE[feeds["ids"]]}


def _paint(feeds: Arrays) -> Arrays:
    shift = feeds["hidden"].mean() * feeds["strength"]
    shifted = feeds["clip"].astype(np.float32) + shift * np.float32(100)
    return {"frames": np.clip(shifted, 0, 255).astype(np.uint8)}


def _enlarge(feeds: Arrays) -> Arrays:
    return {"frames": feeds["clip"].repeat(2, axis=1).repeat(2, axis=2)}


EDITOR: Mapping[str, Graph] = {
    "text_encoder": Graph(
        "text_encoder",
        {"ids": ((1, LENGTH), "integer")},
        {"hidden": (HIDDEN, "real")},
        _encode,
    ),
    "painter": Graph(
        "denoiser",
        {"clip": (CLIP, "pixels"), "hidden": (HIDDEN, "real"), "strength": ((1,), "real")},
        {"frames": (CLIP, "pixels")},
        _paint,
    ),
}
UPSCALER: Mapping[str, Graph] = {
    "upscaler": Graph(
        "upscaler", {"clip": (CLIP, "pixels")}, {"frames": (LARGE, "pixels")}, _enlarge
    )
}


def editing(name: str = "default") -> Document:
    """Return a program that edits a clip by a prompt, as much as a number says."""
    tokens = {"input": "prompt", "before": "", "after": "", "tokenizer": "main", "mask": None}
    return {
        "name": name,
        "task": "video_to_video",
        "video": _SIZE,
        "inputs": {
            "clip": {"kind": "clip", **_SIZE},
            "prompt": {"kind": "prompt"},
            "strength": number(0, 1, 0.5),
        },
        "operations": [
            {"op": "tokenize", **tokens, "output": "ids"},
            run("text_encoder", {"hidden": "hidden"}, ids="ids"),
            run("painter", {"frames": "frames"}, clip="clip", hidden="hidden", strength="strength"),
        ],
        "output": "frames",
    }


def animating(name: str = "default") -> Document:
    """Return a program that repeats a picture and edits that by a prompt."""
    document = editing(name)
    tokenize, encode, paint = document["operations"]
    paint["inputs"]["strength"] = "amount"
    picture = {"kind": "picture", "height": HEIGHT, "width": WIDE}
    strength = document["inputs"]["strength"]
    motion = number(0, 255, 3, whole=True)
    return {
        **document,
        "task": "image_to_video",
        "inputs": {
            **{"motion": motion, "picture": picture},
            **{"prompt": {"kind": "prompt"}, "strength": strength},
        },
        "operations": [
            *(tokenize, encode),
            take("picture", "clip", 0, size=FRAMES, stride=0),
            linear("amount", ("strength", 1.0), ("motion", 0.0)),
            paint,
        ],
    }


def enlarging(name: str = "default") -> Document:
    """Return a program that makes a clip twice as large."""
    return {
        "name": name,
        "task": "upscale",
        "video": {**_SIZE, "height": 2 * HEIGHT, "width": 2 * WIDE},
        "inputs": {"clip": {"kind": "clip", **_SIZE}},
        "operations": [run("upscaler", {"frames": "frames"}, clip="clip")],
        "output": "frames",
    }


ONNX = VariantFiles(content=lambda component, folder: _write_onnx(component, folder))


def build_editor(out: Path, **changes: Any) -> Bundle:
    """Write a bundle that edits; see `tiny_programs.build`."""
    return build(out, [editing()], EDITOR, **{"tokenizers": {"main": {}}, **changes})


def build_upscaler(out: Path, **changes: Any) -> Bundle:
    """Write a bundle that enlarges."""
    return build(out, [enlarging()], UPSCALER, **changes)


def _write_onnx(component: str, folder: Path) -> list[Path]:
    onnx = pytest.importorskip("onnx")
    path = folder / "model.onnx"
    graph = {**EDITOR, **UPSCALER}[component]
    sides = [
        {name: (shape, _DTYPES[kind]) for name, (shape, kind) in side.items()}
        for side in (graph.inputs, graph.outputs)
    ]
    onnx.save(build_graph(component, (sides[0], sides[1]), _NODES[component]), path)
    return [path]


_DTYPES = {"real": "float32", "integer": "int32", "pixels": "uint8"}


def _text_encoder(make: Any, types: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    return [make.make_node("Gather", ["table", "ids"], ["hidden"])], {"table": _TABLE}


def _painter(make: Any, types: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    return (
        [
            make.make_node("ReduceMean", ["hidden"], ["mean"], keepdims=0),
            make.make_node("Mul", ["mean", "strength"], ["shift"]),
            make.make_node("Mul", ["shift", "gain"], ["scaled"]),
            make.make_node("Cast", ["clip"], ["pixels"], to=types.FLOAT),
            make.make_node("Add", ["pixels", "scaled"], ["shifted"]),
            make.make_node("Clip", ["shifted", "low", "high"], ["clipped"]),
            make.make_node("Cast", ["clipped"], ["frames"], to=types.UINT8),
        ],
        {"gain": np.float32(100), "low": np.float32(0), "high": np.float32(255)},
    )


def _upscaler(make: Any, types: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    return (
        [
            make.make_node("Gather", ["clip", "rows"], ["tall"], axis=1),
            make.make_node("Gather", ["tall", "columns"], ["frames"], axis=2),
        ],
        {"rows": np.arange(2 * HEIGHT) // 2, "columns": np.arange(2 * WIDE) // 2},
    )


_NODES = {"text_encoder": _text_encoder, "painter": _painter, "upscaler": _upscaler}
