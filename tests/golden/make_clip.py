"""Whole clips on tiny graphs: what one seed, one bundle and one caller give in every language.

`graphs` are ONNX files (base64, IR 10, opset 21), `files` the others (hexadecimal). A case is a
`bundle`, by number, and what a caller gives: `seed`, `steps` (null: the bundle's), `prompt`,
`negative_prompt`, `numbers`, and a `picture` or a `clip`, whose bytes are (37 i) mod 256 in C
order, in the size that the program wants. It has the steps, each with level, SHA-256 of the latents
(float32, little-endian, C order) and the `first` of them; and SHA-256 and the `first` of the
frames.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from clip_cases.clips import Clip, clips
from clip_cases.graphs import Border, Graph
from clip_cases.models import LENGTH, VOCABULARY, WORDS, Model, levels
from numpy.typing import NDArray

from mvsdk.backends._graph import GraphSession
from mvsdk.inputs import prepare
from mvsdk.manifest import (
    ClipInput,
    Component,
    FileRef,
    Manifest,
    PictureInput,
    Source,
    Table,
    TensorSpec,
    TokenizerSpec,
    Variant,
    VariantSet,
)
from mvsdk.runner import Resources, Runner
from mvsdk.tokenizers import Tokens, WordPiece

SHOWN = 4
TOKENS = "tokenizer/vocab.json"


def sha256(content: bytes) -> str:
    """Return a hash as a manifest has it."""
    return hashlib.sha256(content).hexdigest()


def build_clip() -> dict[str, list[dict[str, Any]]]:
    """Return graphs, files, bundles and cases."""
    graphs: dict[str, bytes] = {}
    files: dict[str, bytes] = {}
    bundles: list[dict[str, Any]] = []
    cases: list[dict[str, Any]] = []
    for clip in clips():
        manifest, contents = to_manifest(clip.model)
        places: dict[str, str] = {}
        for path, content in contents.items():
            store = graphs if path.endswith(".onnx") else files
            places[path] = sha256(content)[:16]
            store[places[path]] = content
        bundle = {"manifest": json.loads(manifest.to_json()), "files": places}
        if bundle not in bundles:
            bundles.append(bundle)
        number = bundles.index(bundle)
        cases.append({"name": clip.name, "bundle": number, **_told(clip), **make(clip, manifest)})
    return {
        "graphs": [
            {"id": key, "bytes": len(x), "base64": base64.b64encode(x).decode()}
            for key, x in graphs.items()
        ],
        "files": [{"id": key, "bytes": len(x), "hex": x.hex()} for key, x in files.items()],
        "bundles": bundles,
        "cases": cases,
    }


# --- bundles -------------------------------------------------------------------------------------


def to_manifest(model: Model) -> tuple[Manifest, Mapping[str, bytes]]:
    """Return the manifest of a model, and its files by path."""
    contents: dict[str, bytes] = {}
    components: dict[str, Component] = {}
    for name, graph in model.graphs.items():
        path = f"components/{name}/model.onnx"
        contents[path] = graph.to_onnx()
        variant = _variant(graph, path, contents[path])
        role: Any = model.roles.get(name, name)
        components[name] = Component.of(role, [variant])
    tokenizers: dict[str, TokenizerSpec] = {}
    if model.program.tokenizers():
        contents[TOKENS] = VOCABULARY
        tokenizers["main"] = TokenizerSpec(
            kind="wordpiece",
            file=_ref(TOKENS, VOCABULARY),
            max_length=LENGTH,
            too_long="refuse",
        )
    tables: dict[str, Table] = {}
    for name, array in model.tables.items():
        path = f"tables/{name}.bin"
        contents[path] = array.astype(array.dtype.newbyteorder("<")).tobytes()
        dtype: Any = array.dtype.name
        tables[name] = Table(file=_ref(path, contents[path]), dtype=dtype, shape=array.shape)
    manifest = Manifest(
        name="tiny",
        programs=(model.program,),
        components=dict(sorted(components.items())),
        sets=(VariantSet(id="onnx", variants=dict.fromkeys(sorted(components), "onnx-fp32")),),
        samplers=dict(sorted(model.samplers.items())),
        tokenizers=tokenizers,
        tables=dict(sorted(tables.items())),
        source=Source(model="tiny", recipe="golden"),
    )
    return Manifest.from_json(manifest.to_json()), contents


def _ref(path: str, content: bytes) -> FileRef:
    return FileRef(path=path, bytes=len(content), sha256=sha256(content))


def _variant(graph: Graph, path: str, content: bytes) -> Variant:
    return Variant(
        id="onnx-fp32",
        target="onnx",
        precision="fp32",
        chip=None,
        model=path,
        files=(_ref(path, content),),
        inputs=_specs(graph.inputs),
        outputs=_specs(graph.outputs),
        compute_unit="CPU",
        tools={},
    )


def _specs(side: Mapping[str, Border]) -> tuple[TensorSpec, ...]:
    made: list[TensorSpec] = []
    for name, item in side.items():
        dtype: Any = item.dtype
        type_: Any = item.type
        made.append(
            TensorSpec(
                name=name,
                shape=item.shape,
                dtype=dtype,
                scale=item.scale,
                zero_point=item.zero_point,
                type=type_,
            )
        )
    return tuple(made)


# --- clips ---------------------------------------------------------------------------------------


def _told(clip: Clip) -> dict[str, Any]:
    return {
        "seed": str(clip.seed),
        "steps": clip.steps,
        "prompt": clip.prompt,
        "negative_prompt": clip.negative_prompt,
        "picture": clip.picture,
        "clip_frames": clip.clip_frames,
        "numbers": dict(clip.numbers),
    }


def make(clip: Clip, manifest: Manifest) -> dict[str, Any]:
    """Make a clip with functions in place of graphs, and return what a case says of it."""
    latents, frames = run(clip, manifest)
    return {
        "made": [
            {
                "sigma": sigma,
                "sha256": sha256(x.astype("<f4").tobytes()),
                "first": x.ravel()[:SHOWN].tolist(),
            }
            for sigma, x in latents
        ],
        "frames_shape": list(frames.shape),
        "frames_sha256": sha256(frames.tobytes()),
        "frames_first": frames.ravel()[: 2 * SHOWN].tolist(),
    }


def run(
    clip: Clip, manifest: Manifest
) -> tuple[list[tuple[float, NDArray[np.float32]]], NDArray[np.uint8]]:
    """Carry out the program of a clip with functions in place of graphs.

    Returns:
        Level and latents after each step, and the frames.
    """
    sessions = {
        name: _session(name, manifest.components[name].variants[0], graph)
        for name, graph in clip.model.graphs.items()
    }
    tokenizer = _tokenizer()

    def tokenize(name: str, text: str) -> Tokens:
        del name  # there is one
        return tokenizer.encode(text)

    prepared = prepare(manifest.program, given(clip, manifest), tokenize=tokenize)
    resources = Resources(
        call=lambda name, inputs: sessions[name].run(inputs),
        tokens=tokenize,
        table=lambda name: clip.model.tables[name],
    )
    runner = Runner(
        manifest,
        manifest.program,
        resources,
        values=prepared.values,
        seed=clip.seed,
        num_inference_steps=clip.steps,
    )
    steps = runner.run()
    latents: list[tuple[float, NDArray[np.float32]]] = []
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return latents, end.value
        latents.append((step.sigma, step.latents.copy()))


def given(clip: Clip, manifest: Manifest) -> dict[str, object]:
    """Return what a caller gives, by the names of the program's inputs."""
    values: dict[str, object] = dict(clip.numbers)
    for name, item in manifest.program.inputs.items():
        if isinstance(item, PictureInput):
            values[name] = levels(item.height, item.width, 3)
        elif isinstance(item, ClipInput):
            values[name] = levels(clip.clip_frames, item.height, item.width, 3)
        elif item.kind == "prompt":
            values[name] = clip.prompt
        elif item.kind == "negative_prompt":
            values[name] = clip.negative_prompt
    return values


def _session(name: str, variant: Variant, graph: Graph) -> GraphSession:
    def call(feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        made = graph.function(feeds)
        return [np.asarray(made[spec.name], spec.dtype) for spec in variant.outputs]

    return GraphSession(name, variant.inputs, variant.outputs, call)


def _tokenizer() -> WordPiece:
    return WordPiece(WORDS, LENGTH)
