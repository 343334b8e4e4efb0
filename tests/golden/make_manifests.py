"""Manifests of format version 2: those of version 1, with variants that only version 2 has.

Every file of a golden bundle holds its own path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvsdk.manifest import (
    Component,
    DType,
    FileRef,
    LeftOutside,
    Manifest,
    Residency,
    TensorSpec,
    Variant,
)

GOLDEN = Path(__file__).resolve().parent

COREML_FILES = (
    "Manifest.json",
    "Data/com.apple.CoreML/model.mlmodel",
    "Data/com.apple.CoreML/weights/weight.bin",
)
COREAI_FILES = ("main.hash", "main.mlirb", "metadata.json")
RULES = Residency(npu_nodes=57, cpu_nodes=0, basis="rules")
OUTSIDE = LeftOutside(operator="gather", name="", reason="indices of integers")
TOOLS = {
    "coreml": {"coremltools": "9.0", "torch": "2.13.0"},
    "coreai": {"coreai-core": "1.0.0b3", "coreai-torch": "0.4.3", "torch": "2.13.0"},
    "executorch": {"executorch": "1.5.1", "torch": "2.13.0", "torchao": "0.18.0"},
}

Make = Callable[[str, Variant, Variant], Variant]
"""(component, its exact variant, its compiled one) -> a variant that version 1 has not."""


def text_to_video() -> str:
    """Return a manifest with every pair of target and format, and every delegate."""
    made = (_coreml, _coreai, _xnnpack, _coreml_delegate, _qnn_delegate)
    return _upgrade("manifest.json", made)


def image_to_video() -> str:
    """Return a manifest whose pictures enter and leave as numbers that are no bytes."""
    return _upgrade("manifest_image_to_video.json", (_coreml_pictures,))


def _upgrade(name: str, further: tuple[Make, ...]) -> str:
    manifest = Manifest.from_json((GOLDEN / name).read_bytes())
    components = {
        component: Component(
            variants=(
                *found.variants,
                *(make(component, found.variants[0], found.variants[1]) for make in further),
            )
        )
        for component, found in manifest.components.items()
    }
    return replace(manifest, components=components).to_json().decode()


def _coreml(component: str, exact: Variant, compiled: Variant) -> Variant:
    del compiled
    rules = replace(RULES, cpu_nodes=1, left_outside=(OUTSIDE,))
    return replace(
        _packaged(component, exact, "coreml", "w8"),
        compute_unit="NPU",
        residency=rules if component == "text_encoder" else RULES,
    )


def _coreml_pictures(component: str, exact: Variant, compiled: Variant) -> Variant:
    del compiled
    made = _packaged(component, exact, "coreml", "fp16")
    return replace(
        made,
        inputs=_typed(exact.inputs, {"image": "float32"}),
        outputs=_typed(exact.outputs, {"frames": "int32"}),
        compute_unit="ALL",
        residency=RULES,
    )


def _coreai(component: str, exact: Variant, compiled: Variant) -> Variant:
    del compiled
    made = _packaged(component, exact, "coreai", "fp16")
    return replace(made, deployment_target="iOS27", function="main", compute_unit="NPU")


def _xnnpack(component: str, exact: Variant, compiled: Variant) -> Variant:
    del compiled
    made = _program(component, exact, "executorch-xnnpack-w8a8", "model.pte", "weights.ptd")
    residency = Residency(npu_nodes=12, cpu_nodes=0)
    return replace(made, delegate="xnnpack", precision="w8a8", residency=residency)


def _coreml_delegate(component: str, exact: Variant, compiled: Variant) -> Variant:
    del compiled
    made = _program(component, exact, "executorch-coreml-fp16", "model.pte")
    return replace(
        made,
        delegate="coreml",
        deployment_target="iOS18",
        precision="fp16",
        compute_unit="GPU",
        residency=Residency(npu_nodes=1, cpu_nodes=0),
    )


def _qnn_delegate(component: str, exact: Variant, compiled: Variant) -> Variant:
    del exact
    made = _program(component, compiled, "executorch-qnn-sm8650-w8a16", "model.pte")
    return replace(made, delegate="qnn", residency=compiled.residency)


def _packaged(component: str, exact: Variant, format_: Any, precision: Any) -> Variant:
    """Return a variant that is a package, whose tensors are float16."""
    id_ = f"iphone-{format_}-{precision}"
    stem = component.title().replace("_", "")
    name, inside = f"{stem}.mlpackage", COREML_FILES
    if format_ == "coreai":
        name, inside = f"{component}.aimodel", COREAI_FILES
    model = f"components/{component}/{id_}/{name}"
    return replace(
        exact,
        id=id_,
        target="iphone",
        format=format_,
        deployment_target="iOS18",
        precision=precision,
        model=model,
        files=tuple(_file(f"{model}/{path}") for path in inside),
        inputs=_typed(exact.inputs, {}),
        outputs=_typed(exact.outputs, {"frames": "float16"}),
        tools=TOOLS[format_],
    )


def _program(component: str, like: Variant, id_: str, *names: str) -> Variant:
    """Return a variant that is an ExecuTorch program, with the tensors of another."""
    files = tuple(_file(f"components/{component}/{id_}/{name}") for name in names)
    return replace(
        like,
        id=id_,
        target="executorch",
        format="executorch",
        model=files[0].path,
        files=files,
        tools=TOOLS["executorch"],
    )


def _typed(tensors: tuple[TensorSpec, ...], types: Mapping[str, DType]) -> tuple[TensorSpec, ...]:
    """Return tensors of other types; where none is named, float32 becomes float16."""
    halves: dict[str, DType] = {spec.name: "float16" for spec in tensors if spec.dtype == "float32"}
    dtypes = {**halves, **types}
    return tuple(replace(spec, dtype=dtypes.get(spec.name, spec.dtype)) for spec in tensors)


def _file(path: str) -> FileRef:
    content = path.encode()
    return FileRef(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
