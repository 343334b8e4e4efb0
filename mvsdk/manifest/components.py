"""Components of a manifest: a graph, its compiled forms, and which of these run together.

docs/bundle_format.md, section 4. Import these names from `mvsdk.manifest`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from mvsdk._arguments import shown
from mvsdk._json import IDENTIFIER, Node, fail, shorten
from mvsdk.targets import (
    DELEGATES,
    PRECISIONS,
    RUNTIME_NAMES,
    TARGETS,
    Delegate,
    Format,
    Precision,
    Target,
)

Role = Literal[
    "text_encoder",
    "image_encoder",
    "vae_encoder",
    "adapter",
    "conditioning",
    "denoiser",
    "interpolator",
    "upscaler",
    "vae_decoder",
]
ComputeUnit = Literal["CPU", "GPU", "NPU", "ALL"]
DType = Literal["float32", "float16", "int32", "int64", "uint8", "uint16", "int8", "int16"]
ValueType = Literal["real", "integer", "pixels"]
Basis = Literal["compiler", "rules"]

ROLES: tuple[Role, ...] = get_args(Role)
COMPUTE_UNITS: tuple[ComputeUnit, ...] = get_args(ComputeUnit)
DTYPES: tuple[DType, ...] = get_args(DType)
VALUE_TYPES: tuple[ValueType, ...] = get_args(ValueType)
BASES: tuple[Basis, ...] = get_args(Basis)

WEIGHTS_SUFFIX = ".ptd"
"""Suffix of the file with the weights that an ExecuTorch program keeps beside it."""
SYSTEM = re.compile(r"iOS[1-9][0-9]{0,2}")
VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")

ZERO_POINTS: Mapping[DType, tuple[int, int]] = {
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
}
"""Types that may carry `scale` and `zero_point`, with the range of the zero point."""
_PLAIN: Mapping[ValueType, tuple[DType, ...]] = {
    "real": ("float32", "float16", "int64"),
    "integer": ("int32", "int64"),
    "pixels": ("uint8", "float16", "float32", "int32"),
}
"""Types that hold a value without scale."""
_SHOWN = 3


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
class Tensor:
    """One input or output of a component, the same in all its variants."""

    name: str
    shape: tuple[int, ...]
    type: ValueType = "real"

    @classmethod
    def parse(cls, node: Node) -> Tensor:
        """Read a tensor."""
        f = node.fields("name", "shape", "type")
        return cls(
            name=f["name"].text(most=512),
            shape=tuple(item.integer(1, 2**31 - 1) for item in f["shape"].items(most=8)),
            type=f["type"].choice(VALUE_TYPES),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a compiled graph: the component's tensor, and how it is stored."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    scale: float | None = None
    """Real value = scale * (stored - zero_point). None: the stored value is the real one."""
    zero_point: int | None = None
    type: ValueType = "real"

    @classmethod
    def parse(cls, node: Node, tensors: Mapping[str, Tensor]) -> TensorSpec:
        """Read how a tensor of the component is stored."""
        f = node.fields("name", "dtype", "scale", "zero_point")
        name = f["name"].text(most=512)
        if name not in tensors:
            f["name"].fail("the name of a tensor of the component", "G1")
        dtype: DType = f["dtype"].choice(DTYPES, "G4")
        scale = f["scale"].optional(lambda item: item.positive("G4"))
        low, high = ZERO_POINTS.get(dtype, (0, 0))
        zero_point = f["zero_point"].optional(lambda item: item.integer(low, high, "G4"))
        if (scale is None) != (zero_point is None):
            fail(node.path, "given only one of scale and zero_point", "both or neither", "G4")
        if scale is not None and dtype not in ZERO_POINTS:
            f["scale"].fail(f"null, as {dtype} is not quantized", "G4")
        kind = tensors[name].type
        if (scale is None and dtype not in _PLAIN[kind]) or (scale is not None and kind != "real"):
            scaled = "" if scale is None else " with a scale"
            plain = ", ".join(_PLAIN[kind])
            more = ", or an integer with a scale" if kind == "real" else " without a scale"
            fail(f["dtype"].path, f"{dtype}{scaled}", f"{plain}{more} for {kind}", "G5")
        return cls(
            name=name,
            shape=tensors[name].shape,
            dtype=dtype,
            scale=scale,
            zero_point=zero_point,
            type=kind,
        )

    def to_document(self) -> dict[str, object]:
        """Return what a manifest says of it: shape and type are the component's."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "scale": self.scale,
            "zero_point": self.zero_point,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """The chip that a graph was compiled for."""

    slug: str
    htp_arch: int
    soc_model: int

    @classmethod
    def parse(cls, node: Node) -> Chip:
        """Read a chip."""
        f = node.fields("slug", "htp_arch", "soc_model")
        return cls(
            slug=f["slug"].identifier(),
            htp_arch=f["htp_arch"].integer(1, 9999),
            soc_model=f["soc_model"].integer(1, 65535),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NonDelegated:
    """An operator that the NPU or delegate did not take."""

    operator: str
    name: str
    """Node name in the graph, which may be empty."""
    reason: str

    @classmethod
    def parse(cls, node: Node) -> NonDelegated:
        """Read an operator that stays on the CPU."""
        f = node.fields("operator", "name", "reason")
        return cls(
            operator=f["operator"].text(), name=f["name"].text(least=0), reason=f["reason"].text()
        )

    def __repr__(self) -> str:
        """Return operator and reason in one line."""
        return f"NonDelegated({shown(self.operator)}, {shown(self.reason)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """Where the operators of a compiled graph run."""

    delegated: int
    """Operators, or graphs compiled whole, that the NPU or a delegate takes."""
    non_delegated: tuple[NonDelegated, ...] = ()
    """Those that run on the CPU, each with the reason."""
    basis: Basis = "compiler"
    """Who says so: the compiler that did it, or documented rules of what an NPU takes."""

    @classmethod
    def parse(cls, node: Node) -> Delegation:
        """Read where operators run."""
        f = node.fields("delegated", "non_delegated", "basis")
        return cls(
            delegated=f["delegated"].integer(),
            non_delegated=tuple(
                NonDelegated.parse(item) for item in f["non_delegated"].items(most=4096)
            ),
            basis=f["basis"].choice(BASES),
        )

    def __repr__(self) -> str:
        """Return both counts in one line."""
        return (
            f"Delegation({self.delegated} delegated, {len(self.non_delegated)} not, {self.basis})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantKey:
    """What variants are told apart by: no two of a component have all of it in common."""

    target: Target
    format: Format
    delegate: Delegate | None
    precision: Precision
    chip: str | None
    """Its slug."""
    function: str | None = None

    def __str__(self) -> str:
        """Return the parts that say something, such as snapdragon/w8a16/sm8650."""
        # The format of a target that has no other goes without saying.
        form = self.format if len(TARGETS[self.target].formats) > 1 else self.delegate
        parts = (self.target, form, self.precision, self.chip, self.function)
        return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One compiled form of a component."""

    id: str
    """Unique in its component."""
    target: Target
    format: Format = "onnx"
    """What `model` is."""
    delegate: Delegate | None = None
    """What takes the operators of an ExecuTorch program; None for other formats."""
    deployment_target: str | None = None
    """Minimum OS that opens it, such as iOS18; None where Apple's systems are not meant."""
    function: str | None = None
    """Which function of a package that holds several; None for its only one."""
    precision: Precision
    chip: Chip | None
    """None: any machine. Never None for what Qualcomm's compiler made."""
    pack: str | None = None
    """Part of the bundle that has the files; None for the base."""
    requires: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name of a runtime -> the oldest version that opens it."""
    model: str
    """Path of what the backend opens: one of `files`, or the folder of a package."""
    files: tuple[FileRef, ...]
    inputs: tuple[TensorSpec, ...]
    """In the order of the compiled graph."""
    outputs: tuple[TensorSpec, ...]
    compute_unit: ComputeUnit
    tools: Mapping[str, str]
    """Version of each tool that made the files."""
    delegation: Delegation | None = None
    """None: not compiled for an NPU or a delegate."""

    @classmethod
    def parse(cls, node: Node, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Variant:
        """Read a variant of a component that has these tensors."""
        f = node.fields(*cls.__dataclass_fields__)
        target: Target = f["target"].choice(tuple(TARGETS))
        return cls(
            id=f["id"].identifier(),
            target=target,
            format=f["format"].choice(get_args(Format)),
            delegate=f["delegate"].optional(lambda item: item.choice(DELEGATES)),
            deployment_target=f["deployment_target"].optional(_parse_system),
            function=f["function"].optional(Node.identifier),
            precision=f["precision"].choice(PRECISIONS),
            chip=f["chip"].optional(Chip.parse),
            pack=f["pack"].optional(Node.identifier),
            requires=_parse_requires(f["requires"]),
            model=f["model"].relative_path(),
            files=tuple(FileRef.parse(item) for item in f["files"].items(least=1, most=256)),
            inputs=_parse_storage(f["inputs"], inputs),
            outputs=_parse_storage(f["outputs"], outputs),
            compute_unit=f["compute_unit"].choice(COMPUTE_UNITS),
            tools={name: item.text(most=128) for name, item in f["tools"].entries(most=64).items()},
            delegation=f["delegation"].optional(Delegation.parse),
        )

    def __repr__(self) -> str:
        """Return what it is and how large in one line, without tensors and files."""
        size = sum(ref.bytes for ref in self.files)
        return f"Variant({shown(self.id)}, {self.key}, {len(self.files)} files, {size} bytes)"

    @property
    def key(self) -> VariantKey:
        """What the variant is chosen by."""
        return VariantKey(
            target=self.target,
            format=self.format,
            delegate=self.delegate,
            precision=self.precision,
            chip=self.chip.slug if self.chip else None,
            function=self.function,
        )


def _parse_system(node: Node) -> str:
    system = node.text(most=16)
    if not SYSTEM.fullmatch(system):
        node.fail("a system such as iOS18")
    return system


def _parse_requires(node: Node) -> dict[str, str]:
    versions: dict[str, str] = {}
    for name, item in node.entries(most=8).items():
        if name not in RUNTIME_NAMES:
            where = f"{node.path} key {shorten(name)}"
            fail(where, "unknown", ", ".join(RUNTIME_NAMES), "G9", place=node.path)
        versions[name] = item.text(least=0)
        if not VERSION.fullmatch(versions[name]):
            item.fail("a version such as 2.51", "G9")
    return versions


def _parse_storage(node: Node, tensors: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    by_name = {tensor.name: tensor for tensor in tensors}
    specs = tuple(TensorSpec.parse(item, by_name) for item in node.items(least=1, most=64))
    if sorted(spec.name for spec in specs) != sorted(by_name):
        fail(node.path, f"{len(specs)} tensors", "each tensor of the component once", "G1")
    return specs


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A graph of the pipeline in all its compiled forms, which take and give the same tensors."""

    role: Role
    """What the graph is for."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    variants: tuple[Variant, ...]

    @classmethod
    def parse(cls, node: Node) -> Component:
        """Read a component."""
        f = node.fields("role", "inputs", "outputs", "variants")
        inputs, outputs = _parse_tensors(f["inputs"]), _parse_tensors(f["outputs"])
        variants = f["variants"].items(least=1, most=64)
        return cls(
            role=f["role"].choice(ROLES),
            inputs=inputs,
            outputs=outputs,
            variants=tuple(Variant.parse(item, inputs, outputs) for item in variants),
        )

    @classmethod
    def of(cls, role: Role, variants: Sequence[Variant]) -> Component:
        """Make one of variants that have the same tensors."""
        return cls(
            role=role,
            inputs=tuple(_tensor(spec) for spec in variants[0].inputs),
            outputs=tuple(_tensor(spec) for spec in variants[0].outputs),
            variants=tuple(variants),
        )

    def __repr__(self) -> str:
        """Return the first variants in one line."""
        keys = [str(variant.key) for variant in self.variants]
        more = f", and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        return f"Component({self.role}: {', '.join(keys[:_SHOWN])}{more})"

    def variant(self, identifier: str) -> Variant:
        """Return a variant by its id.

        Raises:
            KeyError: If there is none.
        """
        for variant in self.variants:
            if variant.id == identifier:
                return variant
        raise KeyError(identifier)


def _tensor(spec: TensorSpec) -> Tensor:
    return Tensor(name=spec.name, shape=spec.shape, type=spec.type)


def _parse_tensors(node: Node) -> tuple[Tensor, ...]:
    tensors = tuple(Tensor.parse(item) for item in node.items(least=1, most=64))
    if len({tensor.name for tensor in tensors}) != len(tensors):
        fail(node.path, "a list that names a tensor twice", "unique names", "G1")
    return tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSet:
    """Variants that run together, and were verified so."""

    id: str
    variants: Mapping[str, str]
    """Component -> id of one of its variants."""

    @classmethod
    def parse(cls, node: Node) -> VariantSet:
        """Read a set."""
        f = node.fields("id", "variants")
        entries = f["variants"].entries(IDENTIFIER, least=1, most=32)
        return cls(
            id=f["id"].identifier(),
            variants={name: item.identifier() for name, item in sorted(entries.items())},
        )

    def __repr__(self) -> str:
        """Return id and components in one line."""
        return f"VariantSet({shown(self.id)}: {', '.join(list(self.variants)[:8])})"
