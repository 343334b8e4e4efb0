"""What golden manifests are made of: compiled graphs, files, and what is said of them.

Every file of a golden bundle holds its own path, and every table zeros.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from mvsdk.manifest import (
    Chip,
    Collected,
    Component,
    Delegate,
    Delegation,
    DType,
    FileRef,
    Format,
    Index,
    Licence,
    Loop,
    NonDelegated,
    Operation,
    Precision,
    Role,
    Run,
    Sample,
    Sampler,
    SamplerKind,
    Schedule,
    Source,
    Table,
    Take,
    Target,
    Tensor,
    TensorSpec,
    TokenizerSpec,
    ValueType,
    Variant,
    VariantSet,
)

SM8650 = Chip(slug="sm8650", htp_arch=75, soc_model=57)
SM8750 = Chip(slug="sm8750", htp_arch=79, soc_model=69)

PACKAGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "coreml": (
        "mlpackage",
        (
            "Manifest.json",
            "Data/com.apple.CoreML/model.mlmodel",
            "Data/com.apple.CoreML/weights/weight.bin",
        ),
    ),
    "coreai": ("aimodel", ("main.hash", "main.mlirb", "metadata.json")),
}
TOOLS: Mapping[str, Mapping[str, str]] = {
    "onnx": {"onnxruntime": "1.31.1", "torch": "2.13.0"},
    "qnn_context": {"onnxruntime-qnn": "2.4.0", "qairt": "2.51.0.260630", "torch": "2.13.0"},
    "coreml": {"coremltools": "9.0", "torch": "2.13.0"},
    "coreai": {"coreai-core": "1.0.0b3", "coreai-torch": "0.4.3", "torch": "2.13.0"},
    "executorch": {"executorch": "1.5.1", "torch": "2.13.0", "torchao": "0.18.0"},
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One way to compile graphs."""

    id: str
    target: Target
    format: Format
    precision: Precision
    delegate: Delegate | None = None
    system: str | None = None
    chip: Chip | None = None
    requires: Mapping[str, str] = field(default_factory=dict[str, str])
    compute_unit: Literal["CPU", "GPU", "NPU", "ALL"] = "CPU"
    delegation: Delegation | None = None
    real: DType = "float32"
    integer: DType = "int32"
    pixels: DType = "uint8"
    pack: str | None = None


ONNX_FP32 = Kind(id="onnx-fp32", target="onnx", format="onnx", precision="fp32", integer="int64")
ONNX_FP16 = Kind(id="onnx-fp16", target="onnx", format="onnx", precision="fp16", integer="int64")
XNNPACK = Kind(
    id="executorch-xnnpack-w8a8",
    target="executorch",
    format="executorch",
    precision="w8a8",
    delegate="xnnpack",
    requires={"executorch": "1.5"},
    delegation=Delegation(delegated=12),
)
COREML_W8 = Kind(
    id="iphone-coreml-w8",
    target="iphone",
    format="coreml",
    precision="w8",
    system="iOS18",
    compute_unit="NPU",
    real="float16",
    pixels="float16",
    delegation=Delegation(
        delegated=57,
        non_delegated=(NonDelegated(operator="gather", name="", reason="indices of integers"),),
        basis="rules",
    ),
)
COREAI_FP16 = Kind(
    id="iphone-coreai-fp16",
    target="iphone",
    format="coreai",
    precision="fp16",
    system="iOS27",
    requires={"coreai": "1"},
    compute_unit="ALL",
    real="float16",
    pixels="int32",
)


def snapdragon(precision: Precision, chip: Chip = SM8650, pack: str | None = None) -> Kind:
    """Return graphs that Qualcomm's compiler made."""
    return Kind(
        id=f"snapdragon-{chip.slug}-{precision}",
        target="snapdragon",
        format="qnn_context",
        precision=precision,
        chip=chip,
        requires={"onnxruntime": "1.31", "qairt": "2.51.0"},
        compute_unit="NPU",
        delegation=Delegation(delegated=1),
        real="uint16" if precision == "w8a16" else "float16",
        pack=pack,
    )


CPU_AND_NPU = (ONNX_FP32, snapdragon("w8a16"))


def ref(path: str, content: bytes | None = None) -> FileRef:
    """Return a file of the bundle, which holds its path unless told otherwise."""
    data = path.encode() if content is None else content
    return FileRef(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def real(name: str, *shape: int) -> Tensor:
    """Return a tensor of real numbers."""
    return Tensor(name=name, shape=shape, type="real")


def whole(name: str, *shape: int) -> Tensor:
    """Return a tensor of integers."""
    return Tensor(name=name, shape=shape, type="integer")


def pixels(name: str, *shape: int) -> Tensor:
    """Return a tensor of pictures."""
    return Tensor(name=name, shape=shape, type="pixels")


CLIP_HIDDEN = real("encoder_hidden_states", 1, 77, 768)
"""What CLIP's text encoder gives."""


def graph(
    name: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    kinds: Iterable[Kind],
    *,
    role: Role | None = None,
    function: str | None = None,
    package: str | None = None,
) -> Component:
    """Return a component, compiled in several ways.

    Args:
        name: Of the component, which is its role unless that is given.
        inputs: What goes in.
        outputs: What comes out.
        kinds: The ways.
        role: What it is for.
        function: The one of a package that holds several.
        package: Name of the component whose package it is in.
    """
    variants = tuple(
        _variant(package or name, kind, inputs, outputs, function if kind.system else None)
        for kind in kinds
    )
    chosen: Any = role or name
    return Component(role=chosen, inputs=tuple(inputs), outputs=tuple(outputs), variants=variants)


def _variant(
    name: str, kind: Kind, inputs: Sequence[Tensor], outputs: Sequence[Tensor], function: str | None
) -> Variant:
    folder = f"components/{name}/{kind.id}"
    model, names = f"{folder}/model.onnx", ["model.onnx"]
    if kind.format == "qnn_context":
        model, names = f"{folder}/model_ctx.onnx", ["model_ctx.onnx", "model_qnn.bin"]
    elif kind.format == "executorch":
        model, names = f"{folder}/model.pte", ["model.pte", "weights.ptd"]
    elif kind.format in PACKAGES:
        suffix, inside = PACKAGES[kind.format]
        package = f"{name.title().replace('_', '')}.{suffix}"
        model, names = f"{folder}/{package}", [f"{package}/{path}" for path in inside]
    return Variant(
        id=kind.id,
        target=kind.target,
        format=kind.format,
        delegate=kind.delegate,
        deployment_target=kind.system,
        function=function,
        precision=kind.precision,
        chip=kind.chip,
        pack=kind.pack,
        requires=kind.requires,
        model=model,
        files=tuple(ref(f"{folder}/{path}") for path in names),
        inputs=tuple(_stored(tensor, kind) for tensor in inputs),
        outputs=tuple(_stored(tensor, kind) for tensor in outputs),
        compute_unit=kind.compute_unit,
        tools=TOOLS[kind.format],
        delegation=kind.delegation,
    )


def _stored(tensor: Tensor, kind: Kind) -> TensorSpec:
    types: Mapping[ValueType, DType] = {
        "real": kind.real,
        "integer": kind.integer,
        "pixels": kind.pixels,
    }
    dtype = types[tensor.type]
    quantized = tensor.type == "real" and dtype == "uint16"
    return TensorSpec(
        name=tensor.name,
        shape=tensor.shape,
        type=tensor.type,
        dtype=dtype,
        scale=2**-12 if quantized else None,
        zero_point=2**15 if quantized else None,
    )


def sets_of(components: Mapping[str, Component], *kinds: Kind) -> tuple[VariantSet, ...]:
    """Return a set for each kind, of the variants of all components."""
    return tuple(
        VariantSet(id=kind.id, variants=dict.fromkeys(components, kind.id)) for kind in kinds
    )


def run(component: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Run:
    """Return a call of a graph."""
    return Run(component=component, inputs=inputs, outputs=outputs)


def take(array: str, start: int | Index, size: int, output: str, axis: int = 0) -> Take:
    """Return an operation that takes neighbours."""
    index = start if isinstance(start, Index) else Index(start=start)
    return Take(array=array, axis=axis, start=index, size=size, output=output)


def sample(
    operations: Sequence[Operation],
    output: str,
    name: str,
    *,
    sampler: str = "main",
    stream: int,
    start: str | None = None,
    shared_axis: int | None = None,
) -> Sample:
    """Return a sampler whose arrays begin with a name."""
    return Sample(
        sampler=sampler,
        start=start or f"{name}_noise",
        stream=stream,
        shared_axis=shared_axis,
        index=f"{name}_step",
        model_input=f"{name}_input",
        timestep=f"{name}_timestep",
        operations=tuple(operations),
        model_output=f"{name}_output",
        output=output,
    )


def denoise(*names: str) -> Sample:
    """Return the sampler of `unet`, which also takes tensors whose arrays have their names."""
    given = {"sample": "model_input", "timestep": "timestep", **{name: name for name in names}}
    return Sample(
        sampler="main",
        start="start",
        stream=0,
        index="step",
        model_input="model_input",
        timestep="timestep",
        operations=(run("unet", given, {"model_output": "model_output"}),),
        model_output="model_output",
        output="latents",
    )


def each_frame(
    component: str,
    frames: int,
    array: str,
    tensors: tuple[str, str],
    output: str,
    index: str = "frame",
) -> Loop:
    """Return a loop that runs a graph of one input and one output for every frame."""
    taken, made = f"{index}_in", f"{index}_out"
    return Loop(
        count=frames,
        index=index,
        operations=(
            Take(
                array=array,
                axis=0,
                start=Index(start=0, steps={index: 1}),
                size=1,
                output=taken,
            ),
            run(component, {tensors[0]: taken}, {tensors[1]: made}),
        ),
        collected={made: Collected(output=output, axis=0)},
    )


def sampler(
    kind: SamplerKind,
    prediction_type: Any,
    schedules: Mapping[int, tuple[Sequence[float], Sequence[float]]],
    **options: Any,
) -> Sampler:
    """Return a sampler whose schedules are (sigmas, timesteps), the last one being the default."""
    return Sampler(
        kind=kind,
        prediction_type=prediction_type,
        schedules={
            steps: Schedule(sigmas=tuple(sigmas), timesteps=tuple(timesteps))
            for steps, (sigmas, timesteps) in schedules.items()
        },
        **{"default_steps": max(schedules), **options},
    )


def tokenizer(kind: Any, path: str, length: int, too_long: Any = "cut") -> TokenizerSpec:
    """Return a tokenizer."""
    return TokenizerSpec(kind=kind, file=ref(path), max_length=length, too_long=too_long)


def table(name: str, dtype: Literal["float32", "int32", "uint8"], *shape: int) -> Table:
    """Return a table of zeros."""
    size = prod(shape) * (1 if dtype == "uint8" else 4)
    return Table(file=ref(f"tables/{name}.bin", bytes(size)), dtype=dtype, shape=shape)


def source(model: str) -> Source:
    """Return where a model comes from."""
    checkpoint = ref("unet/diffusion_pytorch_model.safetensors")
    return Source(model=model, recipe=f"{model} for phones", checkpoint=(checkpoint,))


def licences() -> tuple[Licence, ...]:
    """Return the terms of all that is in a bundle."""
    text = ref("licences/MIT.txt")
    return (Licence(name="MIT", applies_to="weights and code", text_file=text),)
