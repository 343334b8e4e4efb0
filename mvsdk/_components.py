"""The graph half of a manifest: files, tensors, chips, variants and components.

Import these names from `mvsdk.manifest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from mvsdk._parse import Node, fail

Target = Literal["onnx", "snapdragon"]
Precision = Literal["fp32", "fp16", "w8a16"]
DType = Literal["float32", "float16", "int32", "int64", "uint8", "uint16", "int8", "int16"]
ComputeUnit = Literal["CPU", "GPU", "NPU"]

TARGETS: tuple[Target, ...] = get_args(Target)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DTYPES: tuple[DType, ...] = get_args(DType)
COMPUTE_UNITS: tuple[ComputeUnit, ...] = get_args(ComputeUnit)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """Where the nodes of a compiled graph run."""

    npu_nodes: int
    """EPContext nodes: 1 when the whole graph is one NPU binary."""
    cpu_nodes: int
    left_outside: tuple[LeftOutside, ...] = ()
    """The `cpu_nodes` nodes, each with the reason."""

    @classmethod
    def parse(cls, node: Node) -> Residency:
        """Read a residency record; every node on the CPU is listed."""
        f = node.fields("npu_nodes", "cpu_nodes", "left_outside")
        outside = tuple(LeftOutside.parse(item) for item in f["left_outside"].items(most=4096))
        cpu_nodes = f["cpu_nodes"].integer()
        if cpu_nodes != len(outside):
            f["cpu_nodes"].fail(f"{len(outside)}, the length of left_outside")
        return cls(npu_nodes=f["npu_nodes"].integer(), cpu_nodes=cpu_nodes, left_outside=outside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One compiled form of a component."""

    id: str
    """Unique in its component; the same id in two components marks a set meant to run together."""
    target: Target
    precision: Precision
    chip: Chip | None
    """None: any machine. Never None for the target snapdragon."""
    model: str
    """Path of the file that the backend opens, one of `files`."""
    files: tuple[FileRef, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    compute_unit: ComputeUnit
    tools: Mapping[str, str]
    """Version of each tool that made the files."""
    residency: Residency | None = None
    """None: not compiled for an NPU."""

    @classmethod
    def parse(cls, node: Node) -> Variant:
        """Read a variant."""
        f = node.fields(*(item.name for item in fields(cls)))
        tools = f["tools"].entries(most=64)
        return cls(
            id=f["id"].identifier(),
            target=f["target"].choice(TARGETS),
            precision=f["precision"].choice(PRECISIONS),
            chip=f["chip"].optional(Chip.parse),
            model=f["model"].relative_path(),
            files=tuple(FileRef.parse(item) for item in f["files"].items(least=1, most=256)),
            inputs=tuple(TensorSpec.parse(item) for item in f["inputs"].items(least=1, most=64)),
            outputs=tuple(TensorSpec.parse(item) for item in f["outputs"].items(least=1, most=64)),
            compute_unit=f["compute_unit"].choice(COMPUTE_UNITS),
            tools={name: item.text(most=128) for name, item in tools.items()},
            residency=f["residency"].optional(Residency.parse),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A graph of the pipeline in all its compiled forms, which take and give the same tensors."""

    variants: tuple[Variant, ...]

    @classmethod
    def parse(cls, node: Node) -> Component:
        """Read a component."""
        items = node.fields("variants")["variants"].items(least=1, most=64)
        return cls(variants=tuple(Variant.parse(item) for item in items))
