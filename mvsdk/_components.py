"""The graph half of a manifest: files, tensors, chips, variants and components.

Import these names from `mvsdk.manifest`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from mvsdk._arguments import shown
from mvsdk._parse import Node, fail

Target = Literal["onnx", "snapdragon", "iphone", "executorch"]
Format = Literal["onnx", "qnn_context", "coreml", "coreai", "executorch"]
Delegate = Literal["xnnpack", "coreml", "qnn"]
Precision = Literal["fp32", "fp16", "w8a16", "w8a8", "w8", "w6", "w4"]
DType = Literal["float32", "float16", "int32", "int64", "uint8", "uint16", "int8", "int16"]
ComputeUnit = Literal["CPU", "GPU", "NPU", "ALL"]
Basis = Literal["compiler", "rules"]

TARGETS: tuple[Target, ...] = get_args(Target)
DELEGATES: tuple[Delegate, ...] = get_args(Delegate)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DTYPES: tuple[DType, ...] = get_args(DType)
COMPUTE_UNITS: tuple[ComputeUnit, ...] = get_args(ComputeUnit)
BASES: tuple[Basis, ...] = get_args(Basis)
FORMATS: Mapping[Target, tuple[Format, ...]] = {
    "onnx": ("onnx",),
    "snapdragon": ("qnn_context",),
    "iphone": ("coreml", "coreai"),
    "executorch": ("executorch",),
}
"""Target -> what its files may be."""
PACKAGE_FORMATS: tuple[Format, ...] = ("coreml", "coreai")
"""Formats whose model is a folder."""
WEIGHTS_SUFFIX = ".ptd"
"""Suffix of the file with the weights that an ExecuTorch program keeps beside it."""
_SHOWN = 3
SYSTEM = re.compile(r"iOS[1-9][0-9]{0,2}")

ZERO_POINTS: Mapping[DType, tuple[int, int]] = {
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
}
"""Types that may carry `scale` and `zero_point`, with the range of the zero point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file by its place, size and content."""

    path: str
    """Relative to the bundle, `/` between names; see `is_safe_path` for what is allowed."""
    bytes: int
    sha256: str

    @classmethod
    def parse(cls, node: Node) -> FileRef:
        """Read a file reference."""
        f = node.fields("path", "bytes", "sha256")
        return cls(
            path=f["path"].relative_path(), bytes=f["bytes"].integer(), sha256=f["sha256"].sha256()
        )

    def __repr__(self) -> str:
        """Return place, size and the first of the hash in one line."""
        return f"FileRef({shown(self.path)}, {self.bytes} bytes, {shown(self.sha256[:12])}...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    scale: float | None = None
    """Real value = scale * (stored - zero_point). None: the stored value is the real one."""
    zero_point: int | None = None

    @classmethod
    def parse(cls, node: Node) -> TensorSpec:
        """Read a tensor; `scale` and `zero_point` come together and only with integers."""
        f = node.fields("name", "shape", "dtype", "scale", "zero_point")
        dtype: DType = f["dtype"].choice(DTYPES)
        scale = f["scale"].optional(Node.positive)
        low, high = ZERO_POINTS.get(dtype, (0, 0))
        zero_point = f["zero_point"].optional(lambda item: item.integer(low, high))
        if (scale is None) != (zero_point is None):
            fail(node.path, "given only one of scale and zero_point", "both or neither")
        if scale is not None and dtype not in ZERO_POINTS:
            f["scale"].fail(f"null, as {dtype} is not quantized")
        return cls(
            name=f["name"].text(most=512),
            shape=tuple(item.integer(1, 2**31 - 1) for item in f["shape"].items(most=8)),
            dtype=dtype,
            scale=scale,
            zero_point=zero_point,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """The one chip that a compiled graph runs on."""

    slug: str
    htp_arch: int
    soc_model: int

    @classmethod
    def parse(cls, node: Node) -> Chip:
        """Read a chip predicate."""
        f = node.fields("slug", "htp_arch", "soc_model")
        return cls(
            slug=f["slug"].identifier(),
            htp_arch=f["htp_arch"].integer(1, 9999),
            soc_model=f["soc_model"].integer(1, 65535),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutside:
    """An operator that the NPU did not take."""

    operator: str
    name: str
    """Node name in the graph, which may be empty."""
    reason: str

    @classmethod
    def parse(cls, node: Node) -> LeftOutside:
        """Read an operator that stayed on the CPU."""
        f = node.fields("operator", "name", "reason")
        return cls(
            operator=f["operator"].text(), name=f["name"].text(least=0), reason=f["reason"].text()
        )

    def __repr__(self) -> str:
        """Return operator and reason in one line."""
        return f"LeftOutside({shown(self.operator)}, {shown(self.reason)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """Where the operators of a compiled graph run."""

    npu_nodes: int
    """Operators, or graphs compiled whole, that the NPU or a delegate takes."""
    cpu_nodes: int
    left_outside: tuple[LeftOutside, ...] = ()
    """The `cpu_nodes` operators, each with the reason."""
    basis: Basis = "compiler"
    """Who says so: the compiler that did it, or documented rules of what an NPU takes."""

    @classmethod
    def parse(cls, node: Node, version: int) -> Residency:
        """Read a residency record; every operator on the CPU is listed."""
        names = ("npu_nodes", "cpu_nodes", "left_outside", *(("basis",) if version > 1 else ()))
        f = node.fields(*names)
        outside = tuple(LeftOutside.parse(item) for item in f["left_outside"].items(most=4096))
        cpu_nodes = f["cpu_nodes"].integer()
        if cpu_nodes != len(outside):
            f["cpu_nodes"].fail(f"{len(outside)}, the length of left_outside")
        return cls(
            npu_nodes=f["npu_nodes"].integer(),
            cpu_nodes=cpu_nodes,
            left_outside=outside,
            basis=f["basis"].choice(BASES) if version > 1 else "compiler",
        )

    def __repr__(self) -> str:
        """Return both counts in one line."""
        return f"Residency({self.npu_nodes} taken, {self.cpu_nodes} left outside, {self.basis})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a runtime chooses variants by: no two of a component have all of it in common."""

    target: Target
    format: Format
    delegate: Delegate | None
    precision: Precision
    chip: str | None
    """Its slug."""

    def __str__(self) -> str:
        """Return the parts that say something, such as snapdragon/w8a16/sm8650."""
        # The format of a target that has no other goes without saying.
        said = self.format if len(FORMATS[self.target]) > 1 else self.delegate
        return "/".join(part for part in (self.target, said, self.precision, self.chip) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One compiled form of a component."""

    id: str
    """Unique in its component; the same id in two components marks a set meant to run together."""
    target: Target
    format: Format = "onnx"
    """What `model` is."""
    delegate: Delegate | None = None
    """What takes the operators of an ExecuTorch program; None for other formats."""
    deployment_target: str | None = None
    """Least system that opens it, such as iOS18; None where Apple's systems are not meant."""
    function: str | None = None
    """Which function of a package that holds several; None for its only one."""
    precision: Precision
    chip: Chip | None
    """None: any machine. Never None for what Qualcomm's compiler made."""
    model: str
    """Path of what the backend opens: one of `files`, or the folder of a package."""
    files: tuple[FileRef, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    compute_unit: ComputeUnit
    tools: Mapping[str, str]
    """Version of each tool that made the files."""
    residency: Residency | None = None
    """None: not compiled for an NPU or a delegate."""

    @classmethod
    def parse(cls, node: Node, version: int) -> Variant:
        """Read a variant; what version 1 lacks has the value that it implies."""
        words = _WORDS[version]
        f = node.fields(*(item.name for item in fields(cls) if item.name not in words.lacks))
        target: Target = f["target"].choice(words.targets)
        later: dict[str, Any] = {"format": FORMATS[target][0]}
        if version > 1:
            later = {
                "format": f["format"].choice(FORMATS[target]),
                "delegate": f["delegate"].optional(lambda item: item.choice(DELEGATES)),
                "deployment_target": f["deployment_target"].optional(_system),
                "function": f["function"].optional(Node.identifier),
            }
        return cls(
            id=f["id"].identifier(),
            target=target,
            precision=f["precision"].choice(words.precisions),
            chip=f["chip"].optional(Chip.parse),
            model=f["model"].relative_path(),
            files=tuple(FileRef.parse(item) for item in f["files"].items(least=1, most=256)),
            inputs=tuple(TensorSpec.parse(item) for item in f["inputs"].items(least=1, most=64)),
            outputs=tuple(TensorSpec.parse(item) for item in f["outputs"].items(least=1, most=64)),
            compute_unit=f["compute_unit"].choice(words.compute_units),
            tools={name: item.text(most=128) for name, item in f["tools"].entries(most=64).items()},
            residency=f["residency"].optional(lambda item: Residency.parse(item, version)),
            **later,
        )

    def __repr__(self) -> str:
        """Return what it is and how large in one line, without tensors and files."""
        size = sum(ref.bytes for ref in self.files)
        return f"Variant({shown(self.id)}, {self.kind}, {len(self.files)} files, {size} bytes)"

    @property
    def kind(self) -> Kind:
        """What the variant is chosen by."""
        return Kind(
            target=self.target,
            format=self.format,
            delegate=self.delegate,
            precision=self.precision,
            chip=self.chip.slug if self.chip else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """What a version of the format says of variants."""

    targets: tuple[Target, ...]
    precisions: tuple[Precision, ...]
    compute_units: tuple[ComputeUnit, ...]
    lacks: tuple[str, ...] = ()
    """Keys that came later."""


_WORDS: Mapping[int, _Words] = {
    1: _Words(
        targets=("onnx", "snapdragon"),
        precisions=("fp32", "fp16", "w8a16"),
        compute_units=("CPU", "GPU", "NPU"),
        lacks=("format", "delegate", "deployment_target", "function"),
    ),
    2: _Words(targets=TARGETS, precisions=PRECISIONS, compute_units=COMPUTE_UNITS),
}


def _system(node: Node) -> str:
    found = node.text(most=16)
    if not SYSTEM.fullmatch(found):
        node.fail("a system such as iOS18")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A graph of the pipeline in all its compiled forms, which take and give the same tensors."""

    variants: tuple[Variant, ...]

    @classmethod
    def parse(cls, node: Node, version: int) -> Component:
        """Read a component."""
        items = node.fields("variants")["variants"].items(least=1, most=64)
        return cls(variants=tuple(Variant.parse(item, version) for item in items))

    def __repr__(self) -> str:
        """Return the first variants in one line."""
        kinds = [str(variant.kind) for variant in self.variants]
        more = f", and {len(kinds) - _SHOWN} more" if len(kinds) > _SHOWN else ""
        return f"Component({', '.join(kinds[:_SHOWN])}{more})"
