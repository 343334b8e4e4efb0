"""The manifest of a bundle: everything a runtime needs to know about a model, as frozen data.

`Manifest.from_json` reads strictly (docs/bundle_format.md is normative): the result is complete,
within bounds and consistent, or a one-line `BundleError` says where it is not, and by which rule.
`Manifest.to_json` writes canonical bytes and runs the same checks, so no writer can make what no
reader accepts. Documents of older versions are brought to the newest first (`_upgrade`).

Field names are the JSON keys. Every class reads itself from a `Node` with `parse`.

    components    graphs, their compiled forms, and sets of these
    programs      what a caller gives, and what is made of it
    operations    the closed vocabulary that programs are written in
    samplers, tokenizers, records
    usual         the programs of the usual tasks
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import cast

from mvsdk._arguments import check_choice, check_kind, check_text
from mvsdk._installed import upgrade_advice
from mvsdk._json import (
    MAX_DEPTH,
    MAX_MANIFEST_BYTES,
    JsonValue,
    Node,
    check_json,
    check_size,
    fail,
    listed,
    load_json,
    quote,
    shorten,
)
from mvsdk._prompts import TokenizerKind, TooLong
from mvsdk.errors import BundleError, InputError
from mvsdk.manifest._canonical import encode, encode_compactly, to_plain
from mvsdk.manifest._consistency import check_consistency
from mvsdk.manifest._upgrade import upgrade
from mvsdk.manifest.components import (
    BASES,
    COMPUTE_UNITS,
    DTYPES,
    ROLES,
    WEIGHTS_SUFFIX,
    Basis,
    Chip,
    Component,
    ComputeUnit,
    Delegation,
    DType,
    FileRef,
    NonDelegated,
    Role,
    Tensor,
    TensorSpec,
    ValueType,
    Variant,
    VariantKey,
    VariantSet,
)
from mvsdk.manifest.operations import (
    ARRAY,
    Blend,
    Carried,
    Collected,
    Concat,
    DrawNoise,
    Index,
    InputValue,
    Linear,
    Loop,
    Numbers,
    Operation,
    Resample,
    Run,
    Sample,
    Take,
    Term,
    Tokenize,
)
from mvsdk.manifest.programs import (
    MAX_FPS,
    MIN_FPS,
    TASKS,
    ClipInput,
    Input,
    InputKind,
    NegativePromptInput,
    NumberInput,
    PictureInput,
    Program,
    PromptInput,
    Table,
    Task,
    VideoSpec,
)
from mvsdk.manifest.records import END_TO_END, Licence, Source, Verification
from mvsdk.manifest.samplers import Sampler, Schedule
from mvsdk.manifest.tokenizers import TokenizerSpec
from mvsdk.samplers import PREDICTION_TYPES, SAMPLER_KINDS, PredictionType, SamplerKind
from mvsdk.targets import DELEGATES, PRECISIONS, Delegate, Format, Precision, Target

__all__ = [
    "BASES",
    "COMPUTE_UNITS",
    "DELEGATES",
    "DTYPES",
    "END_TO_END",
    "FORMAT",
    "FORMAT_VERSIONS",
    "MANIFEST_NAME",
    "MAX_FPS",
    "MAX_MANIFEST_BYTES",
    "MIN_FPS",
    "PRECISIONS",
    "PREDICTION_TYPES",
    "ROLES",
    "SAMPLER_KINDS",
    "TASKS",
    "WEIGHTS_SUFFIX",
    "Basis",
    "Blend",
    "Carried",
    "Chip",
    "ClipInput",
    "Collected",
    "Component",
    "ComputeUnit",
    "Concat",
    "DType",
    "Delegate",
    "Delegation",
    "DrawNoise",
    "FileRef",
    "Format",
    "Index",
    "Input",
    "InputKind",
    "InputValue",
    "Licence",
    "Linear",
    "Loop",
    "Manifest",
    "NegativePromptInput",
    "NonDelegated",
    "NumberInput",
    "Numbers",
    "Operation",
    "PictureInput",
    "Precision",
    "PredictionType",
    "Program",
    "PromptInput",
    "Resample",
    "Role",
    "Run",
    "Sample",
    "Sampler",
    "SamplerKind",
    "Schedule",
    "Source",
    "Table",
    "Take",
    "Target",
    "Task",
    "Tensor",
    "TensorSpec",
    "Term",
    "Tokenize",
    "TokenizerKind",
    "TokenizerSpec",
    "TooLong",
    "ValueType",
    "Variant",
    "VariantKey",
    "VariantSet",
    "Verification",
    "VideoSpec",
]

FORMAT = "mvbundle"
FORMAT_VERSIONS = (1, 2, 3)
"""Versions that this package reads, rising; it writes the last."""
MANIFEST_NAME = "manifest.json"

_SURELY_WRITABLE_BYTES = 1 << 19
"""A manifest of the newest version and this size can be written again, however its numbers are
spelled: none of the `MAX_VALUES` values grows by more than 12 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All of manifest.json, checked."""

    name: str
    programs: tuple[Program, ...]
    """The first is the default."""
    components: Mapping[str, Component]
    sets: tuple[VariantSet, ...]
    """Variants that run together, in the toolchain's order of preference."""
    samplers: Mapping[str, Sampler]
    tokenizers: Mapping[str, TokenizerSpec] = field(default_factory=dict[str, TokenizerSpec])
    tables: Mapping[str, Table] = field(default_factory=dict[str, Table])
    packs: tuple[str, ...] = ()
    """Parts of the bundle besides the base."""
    source: Source
    licences: tuple[Licence, ...] = ()
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    """By component: parameters, flops, bytes and the like, each >= 0 with its unit in its name."""
    verification: tuple[Verification, ...] = ()
    extensions: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """Top-level keys that begin with `x-`, kept and ignored."""

    @classmethod
    def from_json(cls, payload: bytes) -> Manifest:
        """Read a manifest.

        Args:
            payload: The bytes of manifest.json, at most `MAX_MANIFEST_BYTES`.

        Raises:
            InputError: If they are no bytes.
            BundleError: If it is not a manifest of a known version, or breaks any rule of the
                format, which its `rule` names. Nothing else is raised, whatever the bytes are.
        """
        check_kind("payload", payload, bytes, how="read the file as bytes")
        document = load_json(payload)
        version = _check_version(Node(document))
        newest = version == FORMAT_VERSIONS[-1]
        manifest = _parse_manifest(Node(document if newest else upgrade(document, version)))
        if len(payload) > _SURELY_WRITABLE_BYTES or not newest:
            form = " in canonical form"
            check_size(encode_compactly(_to_document(manifest)), form, rule="D13")
        return manifest

    def to_json(self) -> bytes:
        """Write canonical bytes: equal manifests give equal bytes.

        Returns:
            UTF-8 JSON with a final newline; `from_json` gives back an equal manifest.

        Raises:
            BundleError: If `from_json` would refuse the result.
        """
        try:
            document = _to_document(self)
        except RecursionError as exc:
            raise BundleError(
                f"an extension is nested too deeply, at most {MAX_DEPTH} levels are allowed; "
                "leave something out",
                rule="D5",
                where="",
            ) from exc
        _parse_manifest(Node(check_json(document)))
        _check_tensors(self)
        return encode(document)

    def __repr__(self) -> str:
        """Return what the model makes, and in how many sets of variants, in one line."""
        program = self.programs[0]
        video = program.video
        clip = f"{video.frames} frames of {video.width} x {video.height} at {video.fps:g} fps"
        count = len(self.sets)
        sets = f"{count} set{'s' if count > 1 else ''} of variants"
        return f"Manifest({self.name}, {program.task}, {clip}, {sets})"

    @property
    def program(self) -> Program:
        """The default program."""
        return self.programs[0]

    def component(self, name: str) -> Component:
        """Return a component by name.

        Raises:
            BundleError: If the bundle has no such component.
        """
        check_text("component", name)
        if name not in self.components:
            raise BundleError(
                f"bundle {shorten(self.name)} has no component {quote(name)}; "
                f"it has {listed(self.components)}"
            )
        return self.components[name]

    def variants_of(self, chosen: VariantSet) -> dict[str, Variant]:
        """Return the variants of a set, by component.

        Raises:
            InputError: If it names a component or a variant that the bundle does not have.
        """
        how = "take one of the manifest's sets"
        check_kind("chosen", chosen, VariantSet, how=how)
        found: dict[str, Variant] = {}
        for name, identifier in chosen.variants.items():
            try:
                found[name] = self.components[name].variant(identifier)
            except KeyError as exc:
                raise InputError(
                    f"chosen is the set {quote(chosen.id)} with {quote(identifier)} of "
                    f"{quote(name)}, which bundle {shorten(self.name)} does not have; allowed: "
                    f"{listed(item.id for item in self.sets)}; {how}"
                ) from exc
        return found

    def names_with_role(self, role: Role) -> tuple[str, ...]:
        """Return the components of a role."""
        check_choice("role", role, ROLES)
        return tuple(name for name, part in self.components.items() if part.role == role)

    def base_files(self) -> tuple[FileRef, ...]:
        """Return the files that are no variant's: of tokenizers, tables and licences."""
        refs = [spec.file for spec in self.tokenizers.values()]
        refs += [table.file for table in self.tables.values()]
        refs += [item.text_file for item in self.licences if item.text_file]
        return tuple(refs)

    def files(self) -> tuple[FileRef, ...]:
        """Return every file that the bundle ships, each once, sorted by path."""
        parts = self.components.values()
        refs = {ref for part in parts for variant in part.variants for ref in variant.files}
        return tuple(sorted(refs | set(self.base_files()), key=lambda ref: ref.path))


def _parse_manifest(node: Node) -> Manifest:
    value = cast("dict[str, object]", node.value)
    extensions = {key: item for key, item in value.items() if key.startswith("x-")}
    known = Node({key: item for key, item in value.items() if key not in extensions})
    names = [item.name for item in fields(Manifest) if item.name != "extensions"]
    f = known.fields("format", "format_version", *names)
    manifest = Manifest(
        name=f["name"].identifier(),
        programs=tuple(map(Program.parse, f["programs"].items(least=1, most=16))),
        components={
            name: Component.parse(item)
            for name, item in _sorted(f["components"].entries(least=1, most=32))
        },
        sets=tuple(map(VariantSet.parse, f["sets"].items(least=1, most=256))),
        samplers={
            name: Sampler.parse(item) for name, item in _sorted(f["samplers"].entries(most=16))
        },
        tokenizers={
            name: TokenizerSpec.parse(item)
            for name, item in _sorted(f["tokenizers"].entries(most=8))
        },
        tables={
            name: Table.parse(item)
            for name, item in _sorted(f["tables"].entries(ARRAY, most=256, names="P4"))
        },
        packs=tuple(item.identifier() for item in f["packs"].items(most=64)),
        source=Source.parse(f["source"]),
        licences=tuple(Licence.parse(item) for item in f["licences"].items(most=256)),
        costs={
            name: {unit: number.number(0.0) for unit, number in item.entries(most=64).items()}
            for name, item in f["costs"].entries(most=32).items()
        },
        verification=tuple(Verification.parse(i) for i in f["verification"].items(most=10_000)),
        extensions=cast("dict[str, JsonValue]", extensions),
    )
    check_consistency(manifest)
    return manifest


def _sorted(entries: Mapping[str, Node]) -> Sequence[tuple[str, Node]]:
    return sorted(entries.items())


def _check_version(node: Node) -> int:
    """Check format and version before anything else, as a newer format may change all the rest."""
    value = node.value
    if not isinstance(value, dict) or cast("dict[str, object]", value).get("format") != FORMAT:
        fail("", "not an mvbundle manifest", 'an object with "format": "mvbundle"', "D8")
    content = cast("dict[str, object]", value)
    version = Node(content.get("format_version"), "format_version").value
    if type(version) is not int or version < 1:
        Node(version, "format_version").fail("an integer of at least 1", "D8")
    if version > FORMAT_VERSIONS[-1]:
        known = ", ".join(map(str, FORMAT_VERSIONS))
        raise BundleError(
            f"manifest.json has format_version {version}, this mvsdk knows {known}; "
            f"it is too old: {upgrade_advice()}",
            rule="D8",
            where="format_version",
        )
    return version


def _check_tensors(manifest: Manifest) -> None:
    """Check what a document leaves out of variants: shapes and types are those of the component."""
    for name, component in manifest.components.items():
        for side in ("inputs", "outputs"):
            tensors: Mapping[str, Tensor] = {item.name: item for item in getattr(component, side)}
            for number, variant in enumerate(component.variants):
                for spec in cast("tuple[TensorSpec, ...]", getattr(variant, side)):
                    tensor = tensors[spec.name]
                    if (spec.shape, spec.type) != (tensor.shape, tensor.type):
                        where = f"components.{shorten(name)}.variants[{number}].{side}"
                        got = f"with {quote(spec.name)} of {spec.type} {spec.shape}"
                        fail(where, got, f"{tensor.type} {tensor.shape} of the component", "G1")


def _to_document(manifest: Manifest) -> dict[str, object]:
    """Return what a manifest is written as, its keys in the order of the format."""
    content = {
        item.name: to_plain(getattr(manifest, item.name))
        for item in fields(Manifest)
        if item.name != "extensions"
    }
    extensions = cast("dict[str, object]", to_plain(manifest.extensions))
    if stray := [key for key in extensions if not key.startswith("x-")]:
        fail(f"the extension {quote(stray[0])}", "without its prefix", "keys that begin with x-")
    return {"format": FORMAT, "format_version": FORMAT_VERSIONS[-1]} | content | extensions
