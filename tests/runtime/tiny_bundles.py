"""Builders of tiny bundles: graphs that are Python functions, or real ONNX of a few kilobytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvsdk.bundle import Bundle, BundleWriter
from mvsdk.devices import find_chipset
from mvsdk.manifest import (
    Component,
    Licence,
    Manifest,
    Program,
    Sampler,
    Schedule,
    Source,
    Task,
    TensorSpec,
    TokenizerSpec,
    ValueType,
    Variant,
    VariantSet,
    VideoSpec,
)
from mvsdk.manifest.usual import SAMPLER, TOKENIZER, UsualModel, usual_program

TOKENS = ["[PAD]", "[UNK]", "a", "rocket", "flying", "left", "cat", "##s", ",", "run", "##ning"]
LENGTH, WIDTH = 6, 8
LATENTS = (8, 16, 8, 8)  # as in the default model, so that host times mean something
FRAMES = (8, 64, 64, 3)
Shapes = Mapping[str, tuple[dict[str, tuple[tuple[int, ...], str]], ...]]
"""Component -> (inputs, outputs), each name -> (shape, dtype)."""
SHAPES: Shapes = {
    "text_encoder": (
        {"input_ids": ((1, LENGTH), "int32")},
        {"encoder_hidden_states": ((1, LENGTH, WIDTH), "float32")},
    ),
    "unet": (
        {
            "sample": (LATENTS, "float32"),
            "timestep": ((1,), "float32"),
            "encoder_hidden_states": ((1, LENGTH, WIDTH), "float32"),
        },
        {"model_output": (LATENTS, "float32")},
    ),
    "vae_decoder": ({"latents": (LATENTS, "float32")}, {"frames": (FRAMES, "uint8")}),
}


def straight_flow(schedules: Sequence[int] = (1, 2, 4)) -> Sampler:
    """Return a rectified-flow Euler sampler with evenly spaced levels."""
    return Sampler(
        kind="flow_euler",
        prediction_type="velocity",
        schedules={steps: _even(steps) for steps in schedules},
        default_steps=schedules[-1],
    )


def _even(steps: int) -> Schedule:
    sigmas = tuple(1 - index / steps for index in range(steps + 1))
    return Schedule(sigmas=sigmas, timesteps=tuple(1000 * sigma for sigma in sigmas[:-1]))


FORMATS = {"onnx": "onnx", "snapdragon": "qnn_context", "executorch": "executorch"}
MODELS = {"coreml": "Model.mlpackage", "coreai": "model.aimodel", "executorch": "model.pte"}


@dataclass
class VariantFiles:
    """What a variant is made of: kind, and the content of its model file."""

    target: str = "onnx"
    precision: str = "fp32"
    chip: str | None = None
    content: Callable[[str, Path], Sequence[Path]] | None = None
    """Writes the files of a component into a folder, the model first. None: a few bytes."""
    delegate: str | None = None
    package: str | None = None
    """Format of the target iphone."""
    pack: str | None = None

    @property
    def format(self) -> str:
        return self.package or FORMATS[self.target]

    @property
    def id(self) -> str:
        parts = (self.target, self.package, self.delegate, self.chip, self.precision)
        return "-".join(part for part in parts if part)

    def write(self, component: str, folder: Path) -> Sequence[Path]:
        if self.content is not None:
            return self.content(component, folder)
        model = folder / MODELS.get(self.format, "model.onnx")
        file = model
        if self.package is not None:
            file = model / "Data" / "weights.bin"
            file.parent.mkdir(parents=True)
        file.write_bytes(f"{component} {self.id}".encode())
        return [model]


def build_bundle(
    out: Path,
    variants: Sequence[VariantFiles] = (VariantFiles(),),
    *,
    shapes: Shapes = SHAPES,
    task: Task = "text_to_video",
    sampler: Sampler | None = None,
    constants: Mapping[str, Sequence[float]] | None = None,
    added_time_ids: tuple[float, float, float] | None = None,
    tensors: Callable[[str, TensorSpec], TensorSpec] = lambda component, spec: spec,
    components: Mapping[str, Sequence[VariantFiles]] | None = None,
    components_of_manifest: Mapping[str, Component] | None = None,
    **changes: Any,
) -> Bundle:
    """Write a small valid bundle, of the program that is usual for its task.

    Args:
        out: Folder to make.
        variants: Variants of every component.
        shapes: Components and their tensors.
        task: Text or image to video.
        sampler: None takes `straight_flow()`.
        constants: Input of the denoiser -> values that are the same for every clip.
        added_time_ids: Defaults of the numbers that come with a picture.
        tensors: Changes the inputs and outputs that the manifest says, by component.
        components: Variants of single components, where they differ.
        components_of_manifest: What the manifest says instead of what was written.
        changes: Fields of the manifest to replace.
    """
    with BundleWriter(out) as writer:
        parts = {
            name: Component.of(
                "denoiser" if name == "unet" else name,
                [
                    write_variant(writer, name, variant, *_sides(name, shapes, tensors))
                    for variant in (components or {}).get(name, variants)
                ],
            )
            for name in shapes
        }
        program = _program(parts, shapes, task, constants or {}, added_time_ids)
        manifest = Manifest(
            name="tiny",
            programs=(program,),
            components=parts,
            sets=sets_of(parts),
            samplers={SAMPLER: sampler or straight_flow()},
            tokenizers={TOKENIZER: tokenizer(writer)} if program.tokenizers() else {},
            source=Source(model="tiny", recipe="test"),
            licences=(Licence(name="CC0-1.0", applies_to="everything"),),
        )
        if components_of_manifest is not None:
            changes["components"] = components_of_manifest
        return writer.commit(replace(manifest, **changes))


def sets_of(components: Mapping[str, Component]) -> tuple[VariantSet, ...]:
    """Return the sets of variants of one kind: those whose ids all components have."""
    first, *others = components.values()
    known = [{variant.id for variant in part.variants} for part in others]
    return tuple(
        VariantSet(id=variant.id, variants=dict.fromkeys(components, variant.id))
        for variant in first.variants
        if all(variant.id in ids for ids in known)
    )


def _program(
    parts: Mapping[str, Component],
    shapes: Shapes,
    task: Task,
    constants: Mapping[str, Sequence[float]],
    added_time_ids: tuple[float, float, float] | None,
) -> Program:
    frames, height, width, _ = shapes["vae_decoder"][1]["frames"][0]
    model = UsualModel(
        task=task,
        video=VideoSpec(frames=frames, height=height, width=width, fps=8.0),
        latents=shapes["vae_decoder"][0]["latents"][0],
        denoiser="unet",
        denoiser_inputs=[tensor.name for tensor in parts["unet"].inputs],
        decode_frames=parts["vae_decoder"].inputs[0].shape[0],
        constants=constants,
        added_time_ids=added_time_ids,
    )
    return usual_program(model)


def decoding(at_once: int) -> Callable[[str, TensorSpec], TensorSpec]:
    """Return `tensors` of a bundle whose decoder takes fewer frames than a clip has."""

    def tensors(component: str, spec: TensorSpec) -> TensorSpec:
        return (
            replace(spec, shape=(at_once, *spec.shape[1:])) if component == "vae_decoder" else spec
        )

    return tensors


def tokenizer(writer: BundleWriter, **changes: Any) -> TokenizerSpec:
    """Write a vocabulary of `TOKENS`."""
    vocabulary = writer.directory / "tokenizer" / "vocab.json"
    vocabulary.parent.mkdir()
    vocabulary.write_text(json.dumps({"kind": "wordpiece", "tokens": TOKENS}))
    options = {"max_length": LENGTH, **changes}
    return TokenizerSpec(file=writer.add_file("tokenizer/vocab.json"), **options)


_TYPES: Mapping[str, ValueType] = {"input_ids": "integer", "image": "pixels", "frames": "pixels"}


def write_variant(
    writer: BundleWriter,
    component: str,
    files: VariantFiles,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> Variant:
    """Write the files of a variant, and return what the manifest says of it."""
    folder = writer.directory / "components" / component / files.id
    folder.mkdir(parents=True)
    model, *others = files.write(component, folder)
    below = [path for path in sorted(model.rglob("*")) if path.is_file()]
    written = [model, *others] if model.is_file() else [*below, *others]
    refs = [writer.add_file(path.relative_to(writer.directory).as_posix()) for path in written]
    return Variant(
        id=files.id,
        target=files.target,
        format=files.format,
        delegate=files.delegate,
        deployment_target="iOS18" if files.target == "iphone" else None,
        precision=files.precision,
        chip=find_chipset(files.chip).chip if files.chip else None,
        pack=files.pack,
        model=model.relative_to(writer.directory).as_posix(),
        files=tuple(refs),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        compute_unit="NPU" if files.target in ("snapdragon", "iphone") else "CPU",
        tools={"onnxruntime": "1.31.1"},
    )


def _sides(
    component: str, shapes: Shapes, tensors: Callable[[str, TensorSpec], TensorSpec]
) -> list[list[TensorSpec]]:
    return [
        [tensors(component, _tensor(name, shape, dtype)) for name, (shape, dtype) in side.items()]
        for side in shapes[component]
    ]


def _tensor(name: str, shape: tuple[int, ...], dtype: str) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype, type=_TYPES.get(name, "real"))


def goal(hidden_states: np.ndarray) -> np.ndarray:
    """Return the latents that the fake model makes of a text: they differ from prompt to prompt."""
    base = np.arange(np.prod(LATENTS), dtype=np.float32).reshape(LATENTS) / 4096 - 1
    return base + np.float32(hidden_states.mean())


def fake_functions() -> dict[str, Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]]:
    """Return a model with an exact answer: velocity (x - goal) / sigma, a straight flow."""

    def text_encoder(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        ids = feeds["input_ids"].astype(np.float32)
        hidden = ids[:, :, None] * np.linspace(0.01, 0.02, WIDTH, dtype=np.float32)
        return {"encoder_hidden_states": hidden}

    def unet(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        sigma = feeds["timestep"][0] / 1000
        return {"model_output": (feeds["sample"] - goal(feeds["encoder_hidden_states"])) / sigma}

    def vae_decoder(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        pixels = feeds["latents"][:, :3].repeat(8, axis=2).repeat(8, axis=3)
        return {"frames": np.clip(pixels.transpose(0, 2, 3, 1) * 100 + 128, 0, 255)}

    return {"text_encoder": text_encoder, "unet": unet, "vae_decoder": vae_decoder}


def write_onnx(component: str, folder: Path) -> list[Path]:
    """Write the ONNX graph of a component: random convolutions and an embedding."""
    onnx = pytest.importorskip("onnx")
    path = folder / "model.onnx"
    onnx.save(onnx_model(component), path)
    return [path]


def onnx_model(component: str) -> Any:
    """Return the ONNX graph of a component."""
    return build_graph(component, SHAPES[component], _GRAPHS[component])


def build_graph(
    component: str,
    sides: tuple[dict[str, tuple[tuple[int, ...], str]], ...],
    build: Callable[[Any, Any], tuple[list[Any], dict[str, np.ndarray]]],
) -> Any:
    """Return an ONNX graph.

    Args:
        component: Its name.
        sides: Inputs and outputs: name -> (shape, dtype).
        build: (onnx.helper, onnx.TensorProto) -> nodes, and constants by name.
    """
    onnx = pytest.importorskip("onnx")
    make, types = onnx.helper, onnx.TensorProto
    dtypes = {"float32": types.FLOAT, "int32": types.INT32, "uint8": types.UINT8}
    nodes, weights = build(make, types)
    inputs, outputs = (
        [make.make_tensor_value_info(name, dtypes[dtype], shape) for name, (shape, dtype) in s]
        for s in (side.items() for side in sides)
    )
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = make.make_graph(nodes, component, inputs, outputs, constants)
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9)


def random_weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) * 0.3


def _text_encoder(make: Any, types: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    return (
        [make.make_node("Gather", ["table", "input_ids"], ["encoder_hidden_states"])],
        {"table": random_weights(len(TOKENS), WIDTH)},
    )


def _unet(make: Any, types: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    channels = LATENTS[1]
    return (
        [
            make.make_node("Conv", ["sample", "kernel"], ["mixed"], pads=[1, 1, 1, 1]),
            make.make_node("ReduceMean", ["encoder_hidden_states"], ["mean"], keepdims=0),
            make.make_node("Mul", ["timestep", "per_step"], ["time"]),
            make.make_node("Add", ["mean", "time"], ["condition"]),
            make.make_node("Add", ["mixed", "condition"], ["model_output"]),
        ],
        {"kernel": random_weights(channels, channels, 3, 3), "per_step": np.float32([1e-3])},
    )


def _vae_decoder(make: Any, types: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    return decoder_nodes(make, types, channels=LATENTS[1])


def decoder_nodes(
    make: Any, types: Any, *, channels: int
) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Return nodes and constants of a decoder: one convolution that enlarges by 8."""
    return (
        [
            make.make_node("ConvTranspose", ["latents", "up"], ["pixels"], strides=[8, 8]),
            make.make_node("Mul", ["pixels", "gain"], ["scaled"]),
            make.make_node("Add", ["scaled", "grey"], ["shifted"]),
            make.make_node("Clip", ["shifted", "low", "high"], ["clipped"]),
            make.make_node("Transpose", ["clipped"], ["last"], perm=[0, 2, 3, 1]),
            make.make_node("Cast", ["last"], ["frames"], to=types.UINT8),
        ],
        {
            "up": random_weights(channels, 3, 8, 8),
            "gain": np.float32(100),
            "grey": np.float32(128),
            "low": np.float32(0),
            "high": np.float32(255),
        },
    )


_GRAPHS = {"text_encoder": _text_encoder, "unet": _unet, "vae_decoder": _vae_decoder}
