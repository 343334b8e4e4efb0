"""Brings the JSON of versions 1 and 2 to version 3 (docs/bundle_format.md, section 10).

What an older version lacks is refused in it like anything unknown, so each object is read with the
keys that its version has; the values are checked where version 3 is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mvsdk._json import TENSOR_NAME, Node, fail, listed, quote, shorten
from mvsdk.manifest._canonical import to_plain
from mvsdk.manifest.programs import VideoSpec
from mvsdk.manifest.records import END_TO_END
from mvsdk.manifest.usual import (
    ADDED_TIME_IDS,
    MAX_CLIP_FPS,
    MAX_MOTION,
    MAX_PICTURE_NOISE,
    SAMPLER,
    TOKENIZER,
    UsualModel,
    usual_program,
)

if TYPE_CHECKING:
    from mvsdk._json import JsonValue

Document = dict[str, Any]

DENOISERS = ("unet", "transformer")
TEXT_ENCODER, IMAGE_ENCODER = "text_encoder", "image_encoder"
VAE_ENCODER, VAE_DECODER = "vae_encoder", "vae_decoder"
PARTS: Mapping[str, tuple[str, ...]] = {
    "text_to_video": (VAE_DECODER, TEXT_ENCODER),
    "image_to_video": (VAE_DECODER, IMAGE_ENCODER, VAE_ENCODER),
}
"""Components of each task, besides the denoiser."""
_PIXELS = {(IMAGE_ENCODER, "image"), (VAE_ENCODER, "image"), (VAE_DECODER, "frames")}
_INTEGERS = {(TEXT_ENCODER, "input_ids")}
_UNSCALED = ("int32", "uint8", "uint16", "int8", "int16")
"""Types of version 2 that could hold a real value without a scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """What an older version says of variants."""

    targets: tuple[str, ...]
    precisions: tuple[str, ...]
    compute_units: tuple[str, ...]
    variant: tuple[str, ...]
    residency: tuple[str, ...]


_VARIANT = (
    "id",
    "target",
    "precision",
    "chip",
    "model",
    "files",
    "inputs",
    "outputs",
    "compute_unit",
    "tools",
    "residency",
)
_RESIDENCY = ("npu_nodes", "cpu_nodes", "left_outside")
_WORDS: Mapping[int, _Words] = {
    1: _Words(
        targets=("onnx", "snapdragon"),
        precisions=("fp32", "fp16", "w8a16"),
        compute_units=("CPU", "GPU", "NPU"),
        variant=_VARIANT,
        residency=_RESIDENCY,
    ),
    2: _Words(
        targets=("onnx", "snapdragon", "iphone", "executorch"),
        precisions=("fp32", "fp16", "w8a16", "w8a8", "w8", "w6", "w4"),
        compute_units=("CPU", "GPU", "NPU", "ALL"),
        variant=(*_VARIANT, "format", "delegate", "deployment_target", "function"),
        residency=(*_RESIDENCY, "basis"),
    ),
}
_FORMAT_OF = {"onnx": "onnx", "snapdragon": "qnn_context"}


def upgrade(document: JsonValue, version: int) -> Document:
    """Return a document of version 3 that says what an older one does.

    Args:
        document: Of an older version, checked by `load_json`.
        version: 1 or 2.

    Raises:
        BundleError: If it is not one of that version.
    """
    content = cast("Document", document)
    extensions = {key: value for key, value in content.items() if key.startswith("x-")}
    f = Node({key: value for key, value in content.items() if key not in extensions}).fields(
        "format",
        "format_version",
        "name",
        "task",
        "video",
        "latents",
        "components",
        "sampler",
        "tokenizer",
        "source",
        "licences",
        "costs",
        "verification",
    )
    task = f["task"].choice(("text_to_video", "image_to_video", "video_to_video"))
    parts = f["components"].entries(least=1, most=16)
    names = _check_parts(task, parts)
    components = {name: _component(name, parts[name], _WORDS[version]) for name in names}
    sampler, conditioning = _sampler(f["sampler"])
    tokenizers = f["tokenizer"].optional(_tokenizer)
    _check_text(task, parts, f["tokenizer"])
    model = _model(f["video"], f["latents"], task, components, conditioning)
    sets = _sets(components)
    return {
        "format": content["format"],
        "format_version": 3,
        "name": f["name"].value,
        "programs": [to_plain(usual_program(model))],
        "components": components,
        "sets": sets,
        "samplers": {SAMPLER: sampler},
        "tokenizers": {} if tokenizers is None else {TOKENIZER: tokenizers},
        "tables": {},
        "packs": [],
        "source": f["source"].value,
        "licences": f["licences"].value,
        "costs": _kept(f["costs"], components, parts),
        "verification": _records(f["verification"], components, parts, sets),
        **extensions,
    }


def _check_parts(task: str, parts: Mapping[str, Node]) -> list[str]:
    """Check that a bundle has the components of its task; return these, sorted."""
    present = [name for name in DENOISERS if name in parts]
    if len(present) != 1:
        fail("components", listed(parts), f"exactly one of {' or '.join(DENOISERS)}", "G11")
    if task not in PARTS:
        fail("task", task, "text_to_video or image_to_video, as version 2 says no more", "P1")
    for name in PARTS[task]:
        if name not in parts:
            fail(f"components.{name}", "missing", f"one for the task {task}", "G11")
    if task == "image_to_video" and TEXT_ENCODER in parts:
        fail("components", f"with a {TEXT_ENCODER}", "none, as a picture has no prompt", "P1")
    return sorted((*present, *PARTS[task]))


def _check_text(task: str, parts: Mapping[str, Node], tokenizer: Node) -> None:
    if task == "text_to_video" and tokenizer.value is None:
        tokenizer.fail("a tokenizer for the text_encoder", "P9")
    if task == "image_to_video" and tokenizer.value is not None:
        tokenizer.fail("null, as a picture has no prompt", "P9")


def _component(name: str, node: Node, words: _Words) -> Document:
    items = node.fields("variants")["variants"].items(least=1, most=64)
    variants = [_variant(name, item, words) for item in items]
    first: dict[str, list[Document]] = {}
    for side in ("inputs", "outputs"):
        first[side] = variants[0][side]
        for item, variant in zip(items, variants, strict=True):
            if _signature(variant[side]) != _signature(first[side]):
                where = f"{item.path}.{side}"
                fail(where, "of other names or shapes", "those of the first variant", "G1")
    return {
        "role": "denoiser" if name in DENOISERS else name,
        **{side: [_tensor(name, item) for item in first[side]] for side in first},
        "variants": [_storage(name, variant) for variant in variants],
    }


def _signature(tensors: Sequence[Document]) -> list[tuple[str, list[int]]]:
    return sorted((tensor["name"], tensor["shape"]) for tensor in tensors)


def _type_of(component: str, tensor: str) -> str:
    if (component, tensor) in _PIXELS:
        return "pixels"
    return "integer" if (component, tensor) in _INTEGERS else "real"


def _tensor(component: str, tensor: Document) -> Document:
    name = tensor["name"]
    return {"name": name, "shape": tensor["shape"], "type": _type_of(component, name)}


def _storage(component: str, variant: Document) -> Document:
    """Leave the shapes of tensors to the component, and give plain whole numbers a scale."""
    sides: Document = {}
    for side in ("inputs", "outputs"):
        sides[side] = []
        for tensor in variant[side]:
            stored = {key: value for key, value in tensor.items() if key != "shape"}
            is_real = _type_of(component, tensor["name"]) == "real"
            is_plain = stored["scale"] is None and stored["zero_point"] is None
            if is_real and is_plain and stored["dtype"] in _UNSCALED:
                stored |= {"scale": 1, "zero_point": 0}
            sides[side].append(stored)
    return variant | sides


def _variant(component: str, node: Node, words: _Words) -> Document:
    f = node.fields(*words.variant)
    target = f["target"].choice(words.targets)
    f["precision"].choice(words.precisions)
    f["compute_unit"].choice(words.compute_units)
    later = ("format", "delegate", "deployment_target", "function")
    kept = {name: item.value for name, item in f.items() if name != "residency"}
    if "format" not in f:
        kept |= dict.fromkeys(later, None) | {"format": _FORMAT_OF[target]}
    sides = {side: _tensors(f[side]) for side in ("inputs", "outputs")}
    delegation = f["residency"].optional(lambda item: _delegation(item, words))
    return kept | sides | {"pack": None, "requires": {}, "delegation": delegation}


def _tensors(node: Node) -> list[Document]:
    tensors: list[Document] = []
    for item in node.items(least=1, most=64):
        f = item.fields("name", "shape", "dtype", "scale", "zero_point")
        f["name"].text(most=512)
        shape = [size.integer(1, 2**31 - 1) for size in f["shape"].items(most=8)]
        tensors.append({key: value.value for key, value in f.items()} | {"shape": shape})
    names = [tensor["name"] for tensor in tensors]
    if len(set(names)) != len(names):
        fail(node.path, "a list that names a tensor twice", "unique names", "G1")
    return tensors


def _delegation(node: Node, words: _Words) -> Document:
    f = node.fields(*words.residency)
    outside = f["left_outside"].items(most=4096)
    if f["cpu_nodes"].integer() != len(outside):
        f["cpu_nodes"].fail(f"{len(outside)}, the length of left_outside")
    return {
        "delegated": f["npu_nodes"].value,
        "non_delegated": f["left_outside"].value,
        "basis": f["basis"].value if "basis" in f else "compiler",
    }


def _sampler(node: Node) -> tuple[Document, dict[str, list[float]]]:
    f = node.fields(
        "kind",
        "prediction_type",
        "schedules",
        "default_steps",
        "init_noise_sigma",
        "guidance_scale",
        "conditioning",
    )
    f["kind"].choice(("flow_euler", "flow_consistency", "lcm", "edm_euler"))
    for steps, schedule in f["schedules"].entries(most=64).items():
        levels = schedule.fields("sigmas", "timesteps")["sigmas"].items(most=1001)
        if levels and levels[-1].value != 0:
            levels[-1].fail(f"0, the end of the schedule of {shorten(steps)} steps", "S2")
    conditioning = {
        name: [value.number() for value in item.items(least=1, most=65536)]
        for name, item in f["conditioning"].entries(TENSOR_NAME, most=32).items()
    }
    kept = {name: item.value for name, item in f.items() if name != "conditioning"}
    return kept | {"adjustable": True}, conditioning


def _tokenizer(node: Node) -> Document:
    f = node.fields("kind", "file", "max_length", "pad_token", "unk_token")
    f["pad_token"].text(most=64)
    f["unk_token"].text(most=64)
    return {
        "kind": f["kind"].choice(("wordpiece",)),
        "file": f["file"].value,
        "max_length": f["max_length"].value,
        "too_long": "refuse",
    }


def _model(
    video: Node,
    latents: Node,
    task: str,
    components: Mapping[str, Document],
    conditioning: Mapping[str, Sequence[float]],
) -> UsualModel:
    clip = VideoSpec.parse(video)
    items = latents.fields("shape")["shape"].items(least=4, most=4)
    frames, channels, height, width = (item.integer(1, 65536) for item in items)
    denoiser = next(name for name in DENOISERS if name in components)
    ids = conditioning.get(ADDED_TIME_IDS) if task == "image_to_video" else None
    if task == "image_to_video":
        _check_added_time_ids(ids)
    constants = {name: values for name, values in conditioning.items()}
    if task == "image_to_video":
        del constants[ADDED_TIME_IDS]
    inputs = [tensor["name"] for tensor in components[denoiser]["inputs"]]
    fed = ("sample", "timestep", *_encoded(task), *conditioning)
    for name in inputs:
        if name not in fed:
            where = f"components.{denoiser}.inputs"
            fail(where, f"with {quote(name)}", f"some of {listed(fed)}", "P11")
    for name in constants:
        if name not in inputs or name in _NO_CONSTANTS:
            where = f"sampler.conditioning.{shorten(name)}"
            fail(where, "for no free input", f"constants of {denoiser}", "P11")
    return UsualModel(
        task=task,
        video=clip,
        latents=(frames, channels, height, width),
        denoiser=denoiser,
        denoiser_inputs=inputs,
        decode_frames=_decode_frames(components[VAE_DECODER], frames, clip.frames),
        constants=constants,
        added_time_ids=cast("tuple[float, float, float] | None", tuple(ids) if ids else None),
    )


_NO_CONSTANTS = ("sample", "timestep", "encoder_hidden_states", "image_latents")
"""Inputs of denoisers that are arrays of a program, in these versions."""


def _encoded(task: str) -> tuple[str, ...]:
    return ("encoder_hidden_states", *(("image_latents",) if task == "image_to_video" else ()))


def _check_added_time_ids(ids: Sequence[float] | None) -> None:
    where = f"sampler.conditioning.{ADDED_TIME_IDS}"
    if ids is None or len(ids) != 3:
        got = "missing" if ids is None else f"a list of {len(ids)}"
        fail(where, got, "three numbers: fps - 1, motion, noise_aug_strength", "P10")
    fps, motion, noise = ids
    for value, most in ((fps, MAX_CLIP_FPS - 1), (motion, MAX_MOTION), (noise, MAX_PICTURE_NOISE)):
        if not 0.0 <= value <= most:
            fail(where, f"a list with {value:g}", f"0 to {most:g} in that place", "P2")
    if not motion.is_integer():
        fail(where, f"a list with {motion:g}", "a whole number for motion", "P2")


def _decode_frames(decoder: Document, latent_frames: int, frames: int) -> int:
    """Return how many frames of latents the decoder takes at once: they divide those of a clip."""
    shapes = [item["shape"] for item in decoder["inputs"] if item["name"] == "latents"]
    size = shapes[0][0] if shapes and shapes[0] else 0
    if size == 0 or latent_frames % size or frames % (latent_frames // size):
        where = f"components.{VAE_DECODER}.latents"
        got = f"of {size} frames"
        fail(where, got, f"frames that divide {latent_frames}, in parts that divide {frames}", "P5")
    return size


def _sets(components: Mapping[str, Document]) -> list[Document]:
    """Return the sets of variants that differ in nothing that a runtime chooses by."""
    first = next(iter(components))  # by name, as they are sorted
    by_key = {
        name: {_key(variant): variant["id"] for variant in reversed(part["variants"])}
        for name, part in components.items()
    }
    sets: list[Document] = []
    # Variants that differ in their function alone count as one, the first of them.
    for key in dict.fromkeys(map(_key, components[first]["variants"])):
        if all(key in keys for keys in by_key.values()):
            variants = {name: keys[key] for name, keys in by_key.items()}
            sets.append({"id": variants[first], "variants": variants})
    if not sets:
        keys = {"/".join(filter(None, map(str, key))) for ids in by_key.values() for key in ids}
        fail("components", f"of {listed(sorted(keys))}", "one that every component has", "G11")
    return sets


def _key(variant: Document) -> tuple[object, ...]:
    chip: object = variant["chip"]
    slug = cast("Document", chip).get("slug") if isinstance(chip, dict) else None
    names = ("target", "format", "delegate", "precision")
    return (*(_word(variant[name]) for name in names), _word(slug))


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _kept(node: Node, kept: Iterable[str], known: Iterable[str]) -> Document:
    """Leave out what is said of components that no program runs."""
    entries = node.entries(most=16)
    dropped = set(known) - set(kept)
    return {name: item.value for name, item in entries.items() if name not in dropped}


def _records(
    node: Node,
    components: Mapping[str, Document],
    known: Iterable[str],
    sets: Sequence[Document],
) -> list[object]:
    """Say of what was measured end to end which set it was; leave out what no set was."""
    dropped = set(known) - set(components)
    records: list[object] = []
    for item in node.items(most=10_000):
        value = item.value
        if not isinstance(value, dict):
            item.fail("an object")
        record = cast("Document", value)
        component, variant = _word(record.get("component")), _word(record.get("variant"))
        if component in dropped:
            continue
        if component == END_TO_END and variant is not None:
            chosen = [x["id"] for x in sets if variant in x["variants"].values()]
            if not chosen:
                continue
            record = record | {"variant": chosen[0]}
        records.append(record)
    return records
