"""The manifest of a bundle: everything a runtime needs to know about a model, as frozen data.

`Manifest.from_json` reads strictly (docs/bundle_format.md is normative): the result is complete,
within bounds and consistent, or a one-line `BundleError` says where it is not. `Manifest.to_json`
writes canonical bytes and runs the same checks, so no writer can make what no reader accepts.

Field names are the JSON keys. Every class reads itself from a `Node` with `parse`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal, cast, get_args

from mvsdk._arguments import check_kind, check_text
from mvsdk._components import (
    BASES,
    COMPUTE_UNITS,
    DELEGATES,
    DTYPES,
    FORMATS,
    PACKAGE_FORMATS,
    PRECISIONS,
    TARGETS,
    WEIGHTS_SUFFIX,
    Basis,
    Chip,
    Component,
    ComputeUnit,
    Delegate,
    DType,
    FileRef,
    Format,
    Kind,
    LeftOutside,
    Precision,
    Residency,
    Target,
    TensorSpec,
    Variant,
)
from mvsdk._consistency import check_consistency
from mvsdk._installed import upgrade_advice
from mvsdk._parse import (
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
from mvsdk._records import END_TO_END, Licence, Source, Verification
from mvsdk._sampler import (
    PREDICTION_TYPES,
    SAMPLER_KINDS,
    PredictionType,
    Sampler,
    SamplerKind,
    Schedule,
)
from mvsdk.errors import BundleError

__all__ = [
    "BASES",
    "COMPUTE_UNITS",
    "DELEGATES",
    "DTYPES",
    "END_TO_END",
    "FORMAT",
    "FORMATS",
    "FORMAT_VERSIONS",
    "MANIFEST_NAME",
    "MAX_FPS",
    "MAX_MANIFEST_BYTES",
    "MIN_FPS",
    "PACKAGE_FORMATS",
    "PRECISIONS",
    "PREDICTION_TYPES",
    "SAMPLER_KINDS",
    "TARGETS",
    "TASKS",
    "WEIGHTS_SUFFIX",
    "Basis",
    "Chip",
    "Component",
    "ComputeUnit",
    "DType",
    "Delegate",
    "FileRef",
    "Format",
    "Kind",
    "LatentSpec",
    "LeftOutside",
    "Licence",
    "Manifest",
    "Precision",
    "PredictionType",
    "Residency",
    "Sampler",
    "SamplerKind",
    "Schedule",
    "Source",
    "Target",
    "Task",
    "TensorSpec",
    "TokenizerSpec",
    "Variant",
    "Verification",
    "VideoSpec",
]

FORMAT = "mvbundle"
FORMAT_VERSIONS = (1, 2)
"""Versions that this package reads, rising; it writes the last."""
MANIFEST_NAME = "manifest.json"
MIN_FPS = 0.1
"""Clips of fewer frames per second are beyond what the containers can time."""
MAX_FPS = 240.0

_SURELY_WRITABLE_BYTES = 1 << 19
"""A manifest of this size can be written again, however its numbers are spelled: none of the
`MAX_VALUES` values grows by more than 12 bytes, and no variant by more than version 2 added."""

Task = Literal["text_to_video", "image_to_video", "video_to_video"]

TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSpec:
    """The clip that the bundle makes: RGB frames (F, H, W, 3)."""

    frames: int
    height: int
    width: int
    fps: float

    @classmethod
    def parse(cls, node: Node) -> VideoSpec:
        """Read the size of the clip."""
        f = node.fields("frames", "height", "width", "fps")
        fps = f["fps"].number(MIN_FPS, MAX_FPS)
        return cls(
            frames=f["frames"].integer(1, 4096),
            height=f["height"].integer(1, 8192),
            width=f["width"].integer(1, 8192),
            fps=fps,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSpec:
    """The tensor that the sampler integrates: (F, C, h, w), frames in the batch axis."""

    shape: tuple[int, int, int, int]

    @classmethod
    def parse(cls, node: Node) -> LatentSpec:
        """Read the latent shape."""
        items = node.fields("shape")["shape"].items(least=4, most=4)
        frames, channels, height, width = (item.integer(1, 65536) for item in items)
        return cls(shape=(frames, channels, height, width))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """How a prompt becomes `input_ids` (1, max_length)."""

    kind: Literal["wordpiece"] = "wordpiece"
    file: FileRef
    max_length: int
    pad_token: str
    unk_token: str

    @classmethod
    def parse(cls, node: Node) -> TokenizerSpec:
        """Read the tokenizer."""
        f = node.fields("kind", "file", "max_length", "pad_token", "unk_token")
        return cls(
            kind=f["kind"].choice(("wordpiece",)),
            file=FileRef.parse(f["file"]),
            max_length=f["max_length"].integer(1, 65536),
            pad_token=f["pad_token"].text(most=64),
            unk_token=f["unk_token"].text(most=64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All of manifest.json, checked."""

    name: str
    task: Task
    video: VideoSpec
    latents: LatentSpec
    components: Mapping[str, Component]
    sampler: Sampler
    tokenizer: TokenizerSpec | None
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
                format. Nothing else is raised, whatever the bytes are.
        """
        check_kind("payload", payload, bytes, how="read the file as bytes")
        manifest = _parse_manifest(Node(load_json(payload)))
        if len(payload) > _SURELY_WRITABLE_BYTES:
            check_size(_spell_compactly(_to_document(manifest)), " in canonical form")
        return manifest

    def to_json(self) -> bytes:
        """Write canonical bytes: equal manifests give equal bytes.

        Returns:
            UTF-8 JSON with a final newline; `from_json` gives back an equal manifest.

        Raises:
            BundleError: If `from_json` would refuse the result.
        """
        document = _to_document(self)
        _parse_manifest(Node(check_json(document)))
        return _encode(document)

    def __repr__(self) -> str:
        """Return what the model makes, and in how many variants, in one line."""
        video = self.video
        clip = f"{video.frames} frames of {video.width} x {video.height} at {video.fps:g} fps"
        kinds = {variant.kind for part in self.components.values() for variant in part.variants}
        held = f"{len(kinds)} variant{'s' if len(kinds) > 1 else ''}"
        return f"Manifest({self.name}, {self.task}, {clip}, {held})"

    @property
    def denoiser(self) -> str:
        """Name of the component that the sampler calls: `unet` or `transformer`."""
        return next(name for name in ("unet", "transformer") if name in self.components)

    @property
    def decode_frames(self) -> int:
        """Frames of latents that the decoder takes at once; they divide those of a clip."""
        (latents,) = (
            tensor.shape
            for tensor in self.components["vae_decoder"].variants[0].inputs
            if tensor.name == "latents"
        )
        return latents[0]

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

    def files(self) -> tuple[FileRef, ...]:
        """Return every file that the bundle ships, each once, sorted by path."""
        found = [ref for part in self.components.values() for v in part.variants for ref in v.files]
        if self.tokenizer:
            found.append(self.tokenizer.file)
        found += [item.text_file for item in self.licences if item.text_file]
        return tuple(sorted(set(found), key=lambda ref: ref.path))


def _parse_manifest(node: Node) -> Manifest:
    version = _check_version(node)
    value = cast("dict[str, object]", node.value)
    extensions = {key: item for key, item in value.items() if key.startswith("x-")}
    known = Node({key: item for key, item in value.items() if key not in extensions})
    names = [item.name for item in fields(Manifest) if item.name != "extensions"]
    f = known.fields("format", "format_version", *names)
    manifest = Manifest(
        name=f["name"].identifier(),
        task=f["task"].choice(TASKS),
        video=VideoSpec.parse(f["video"]),
        latents=LatentSpec.parse(f["latents"]),
        components={
            name: Component.parse(item, version)
            for name, item in sorted(f["components"].entries(least=1, most=16).items())
        },
        sampler=Sampler.parse(f["sampler"]),
        tokenizer=f["tokenizer"].optional(TokenizerSpec.parse),
        source=Source.parse(f["source"]),
        licences=tuple(Licence.parse(item) for item in f["licences"].items(most=256)),
        costs={
            name: {unit: number.number(0.0) for unit, number in item.entries(most=64).items()}
            for name, item in f["costs"].entries(most=16).items()
        },
        verification=tuple(Verification.parse(i) for i in f["verification"].items(most=10_000)),
        extensions=cast("dict[str, JsonValue]", extensions),
    )
    check_consistency(manifest, version)
    return manifest


def _check_version(node: Node) -> int:
    """Check format and version before anything else, as a newer format may change all the rest."""
    value = node.value
    if not isinstance(value, dict) or cast("dict[str, object]", value).get("format") != FORMAT:
        fail("", "not an mvbundle manifest", 'an object with "format": "mvbundle"')
    version = Node(cast("dict[str, object]", value).get("format_version"), "format_version")
    number = version.integer(1)
    if number > FORMAT_VERSIONS[-1]:
        known = ", ".join(map(str, FORMAT_VERSIONS))
        raise BundleError(
            f"manifest.json has format_version {number}, this mvsdk knows {known}; "
            f"it is too old: {upgrade_advice()}"
        )
    return number


def _to_document(manifest: Manifest) -> dict[str, object]:
    """Return what a manifest is written as, its keys in the order of the format."""
    content = cast("dict[str, object]", _to_plain(manifest))
    extensions = cast("dict[str, object]", content.pop("extensions"))
    if stray := [key for key in extensions if not key.startswith("x-")]:
        fail(f"the extension {quote(stray[0])}", "without its prefix", "keys that begin with x-")
    return {"format": FORMAT, "format_version": FORMAT_VERSIONS[-1]} | content | extensions


def _encode(document: Mapping[str, object]) -> bytes:
    """Spell a document in canonical form: indented, or without white space if that is too long."""
    payload = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    if len(payload) > MAX_MANIFEST_BYTES:
        payload = _spell_compactly(document)
    check_size(payload)
    return payload


def _spell_compactly(document: Mapping[str, object]) -> bytes:
    return (json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def _to_plain(value: object) -> object:
    """Turn dataclasses into what json writes, one form per value: 1.0 is 1, keys are sorted."""
    if is_dataclass(value):
        return {item.name: _to_plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        entries = sorted(cast("Mapping[object, object]", value).items(), key=_by_number_then_name)
        return {str(key): _to_plain(item) for key, item in entries}
    if isinstance(value, tuple | list):
        return [_to_plain(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    return value


def _by_number_then_name(entry: tuple[object, object]) -> tuple[int, str]:
    key = entry[0]
    return (key if isinstance(key, int) else 0, str(key))
