"""Builder of bundles with programs of any kind, whose graphs are Python functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tiny_bundles import VariantFiles, sets_of, tokenizer, write_variant

import mvsdk
from mvsdk import Fake
from mvsdk._json import Node
from mvsdk.bundle import Bundle, BundleWriter
from mvsdk.manifest import (
    Component,
    Manifest,
    Program,
    Role,
    Sampler,
    Schedule,
    Source,
    Table,
    TensorSpec,
    ValueType,
    VariantSet,
)

Document = dict[str, Any]
Arrays = Mapping[str, np.ndarray]
Tensors = Mapping[str, tuple[tuple[int, ...], ValueType]]
"""Name -> (shape, type)."""

CLIP = (2, 2, 4, 3)
"""Frames, height, width and colours of the clips here."""
_DTYPES = {"real": "float32", "integer": "int32", "pixels": "uint8"}


@dataclass(frozen=True)
class Graph:
    """A component, and the function that stands for its graph."""

    role: Role
    inputs: Tensors
    outputs: Tensors
    function: Callable[[Arrays], Arrays]


@dataclass
class Watched:
    """A graph at the end of a program, which keeps what it gets and gives a black clip."""

    shape: tuple[int, ...]
    type: ValueType = "real"
    seen: list[np.ndarray] = field(default_factory=list[np.ndarray])

    def graph(self) -> Graph:
        inputs: Tensors = {"seen": (self.shape, self.type), "clip": (CLIP, "pixels")}
        return Graph("vae_decoder", inputs, {"frames": (CLIP, "pixels")}, self._run)

    def _run(self, feeds: Arrays) -> Arrays:
        self.seen.append(feeds["seen"].copy())
        return {"frames": np.zeros(CLIP, np.uint8)}


def upscale(
    operations: Sequence[Document],
    inputs: Mapping[str, Document] | None = None,
    *,
    name: str = "default",
    task: str = "upscale",
    output: str = "frames",
) -> Document:
    """Return a program that takes a clip and makes one of the same size."""
    frames, height, width, _ = CLIP
    size = {"frames": frames, "height": height, "width": width, "fps": 8}
    return {
        "name": name,
        "task": task,
        "video": size,
        "inputs": {"clip": {"kind": "clip", **size}, **(inputs or {})},
        "operations": list(operations),
        "output": output,
    }


def number(minimum: float, maximum: float, default: float, *, whole: bool = False) -> Document:
    """Return an input that is a number."""
    bounds = {"minimum": minimum, "maximum": maximum, "default": default}
    return {"kind": "number", **bounds, "whole": whole}


def run(component: str, outputs: Mapping[str, str], **inputs: str) -> Document:
    """Return the operation that calls a graph: tensor=array."""
    return {"op": "run", "component": component, "inputs": inputs, "outputs": dict(outputs)}


def take(array: str, output: str, start: Any, *, axis: int = 0, **more: int) -> Document:
    """Return the operation that takes one place, or more of them."""
    place = {"array": array, "axis": axis, "start": start, "size": 1, "stride": 1}
    return {"op": "take", **place, **more, "output": output}


def linear(output: str, *terms: tuple[str, float | str], offset: float = 0) -> Document:
    """Return the operation that adds (array, scale)."""
    items = [{"array": array, "scale": scale} for array, scale in terms]
    return {"op": "linear", "terms": items, "offset": offset, "output": output}


def noise(stream: int, shape: Sequence[int], output: str) -> Document:
    """Return the operation that draws noise."""
    return {"op": "noise", "stream": stream, "shape": list(shape), "output": output}


def collected(output: str, axis: int = 0, overlap: int = 0, blend: str | None = None) -> Document:
    """Return how a loop joins an array of its repetitions."""
    return {"output": output, "axis": axis, "overlap": overlap, "blend": blend}


def carried(start: str, following: str, output: str | None = None) -> Document:
    """Return what a repetition hands to the next."""
    return {"start": start, "next": following, "output": output}


def loop(count: int, index: str, operations: Sequence[Document], **more: Any) -> Document:
    """Return the operation that carries others out several times."""
    parts: Document = {"carried": {}, "operations": list(operations), "collected": {}}
    return {"op": "loop", "count": count, "index": index, **parts, **more}


def sample(operations: Sequence[Document], **more: Any) -> Document:
    """Return the operation that integrates: `noisy` and `m` are its model's input and output."""
    keys = {"sampler": "main", "start": "start", "stream": 0, "shared_axis": None, "index": "step"}
    names = {"model_input": "noisy", "timestep": "timestep", "carried": {}}
    ends = {"model_output": "m", "output": "latents"}
    return {"op": "sample", **keys, **names, "operations": list(operations), **ends, **more}


def flow(*schedules: int, **changes: Any) -> Sampler:
    """Return a sampler of a model that says the clean latents, at evenly spaced levels."""
    return (
        Sampler(
            kind="flow_euler",
            prediction_type="sample",
            schedules={steps: even(steps) for steps in schedules},
            default_steps=schedules[-1],
        )
        if not changes
        else replace(flow(*schedules), **changes)
    )


def even(steps: int) -> Schedule:
    """Return a schedule of evenly spaced levels."""
    sigmas = tuple(1 - index / steps for index in range(steps + 1))
    return Schedule(sigmas=sigmas, timesteps=tuple(1000 * sigma for sigma in sigmas[:-1]))


def build(
    out: Path,
    programs: Sequence[Document],
    graphs: Mapping[str, Graph],
    *,
    variants: Sequence[VariantFiles] = (VariantFiles(),),
    components: Mapping[str, Sequence[VariantFiles]] | None = None,
    sets: Mapping[str, Mapping[str, str]] | None = None,
    samplers: Mapping[str, Sampler] | None = None,
    tokenizers: Mapping[str, Mapping[str, Any]] | None = None,
    tables: Mapping[str, np.ndarray] | None = None,
    **changes: Any,
) -> Bundle:
    """Write a bundle.

    Args:
        out: Folder to make.
        programs: As in a manifest.
        graphs: The components.
        variants: Variants of every component.
        components: Variants of single components, where they differ.
        sets: Id -> variant of each component; None makes those of one kind.
        samplers: By name.
        tokenizers: Name -> what is special about it.
        tables: Their values.
        changes: Fields of the manifest to replace.
    """
    with BundleWriter(out) as writer:
        parts = {
            name: Component.of(
                graph.role,
                [
                    write_variant(writer, name, item, _specs(graph.inputs), _specs(graph.outputs))
                    for item in (components or {}).get(name, variants)
                ],
            )
            for name, graph in sorted(graphs.items())
        }
        manifest = Manifest(
            name="tiny",
            programs=tuple(Program.parse(Node(item, "program")) for item in programs),
            components=parts,
            sets=sets_of(parts)
            if sets is None
            else tuple(VariantSet(id=name, variants=item) for name, item in sets.items()),
            samplers=samplers or {},
            tokenizers={
                name: tokenizer(writer, **item) for name, item in (tokenizers or {}).items()
            },
            tables={name: _table(writer, name, array) for name, array in (tables or {}).items()},
            source=Source(model="tiny", recipe="test"),
        )
        return writer.commit(replace(manifest, **changes))


def fake(graphs: Mapping[str, Graph]) -> Fake:
    """Return the backend of these graphs."""
    return Fake({name: graph.function for name, graph in graphs.items()})


def pipeline(out: Path, program: Document, graphs: Mapping[str, Graph], **more: Any) -> Any:
    """Return what runs a bundle of one program."""
    bundle = build(out / "tiny.mvbundle", [program], graphs, **more)
    return mvsdk.load(bundle.path, backend=fake(graphs))


def _specs(tensors: Tensors) -> list[TensorSpec]:
    return [
        TensorSpec(name=name, shape=shape, dtype=_DTYPES[kind], type=kind)
        for name, (shape, kind) in tensors.items()
    ]


def _table(writer: BundleWriter, name: str, array: np.ndarray) -> Table:
    path = writer.directory / "tables" / f"{name}.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
    file = writer.add_file(f"tables/{name}.bin")
    return Table(file=file, dtype=str(array.dtype), shape=array.shape)
