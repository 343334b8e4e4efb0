"""Rules of a manifest that no single field can break: what its parts say about each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from mvsdk._components import DELEGATES, PACKAGE_FORMATS, WEIGHTS_SUFFIX
from mvsdk._parse import MAX_WHERE, listed, quote, shorten, to_float32
from mvsdk._records import END_TO_END
from mvsdk.conditioning import ADDED_TIME_IDS, MicroConditioning
from mvsdk.errors import BundleError, InputError

if TYPE_CHECKING:
    from mvsdk._components import Component, FileRef, Kind, TensorSpec, Variant
    from mvsdk.manifest import Manifest

DENOISERS = ("unet", "transformer")
TEXT_ENCODER, IMAGE_ENCODER = "text_encoder", "image_encoder"
VAE_ENCODER, VAE_DECODER = "vae_encoder", "vae_decoder"
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "text_to_video": (VAE_DECODER, TEXT_ENCODER),
    "image_to_video": (VAE_DECODER, IMAGE_ENCODER, VAE_ENCODER),
    "video_to_video": (VAE_DECODER,),
}
"""Components of each task, besides the denoiser."""
HIDDEN_STATES = "encoder_hidden_states"
IMAGE_LATENTS = "image_latents"
RESERVED_PATH = "manifest.json"
PREDICTIONS: Mapping[str, tuple[str, ...]] = {
    "flow_euler": ("velocity", "sample"),
    "flow_consistency": ("velocity", "sample"),
    "lcm": ("epsilon", "v_prediction", "sample"),
    "edm_euler": ("v_prediction", "epsilon", "sample"),
}
"""Prediction types that each kind of sampler can integrate."""
PIXELS = ("uint8", "float16", "float32", "int32")
"""Types of RGB pictures; those after the first are for targets whose graphs take no bytes."""
MAX_ELEMENTS = 2**30
"""Elements of the largest array; ten seconds of 768p are 7e8."""


def check_consistency(manifest: Manifest, version: int) -> None:
    """Check that the parts of a manifest agree.

    Args:
        manifest: What was read.
        version: Of the format that it was read from.

    Raises:
        BundleError: With the first disagreement.
    """
    _check_components(manifest)
    _check_sizes(manifest)
    for name, component in manifest.components.items():
        _check_variants(name, component)
    _check_files(manifest.files())
    _check_latents(manifest)
    _check_pixels(manifest, VAE_DECODER, "outputs", "frames", version)
    if TEXT_ENCODER in manifest.components:
        _check_text(manifest)
    if manifest.task == "image_to_video":
        _check_picture(manifest)
        for encoder in (IMAGE_ENCODER, VAE_ENCODER):
            _check_pixels(manifest, encoder, "inputs", "image", version)
    _check_sampler(manifest)
    _check_conditioning(manifest)
    if manifest.task != "video_to_video":
        _check_inputs(manifest)
    _check_records(manifest)


def _refuse(what: str) -> BundleError:
    return BundleError(f"manifest.json: {what}; export the bundle again")


def _check_components(manifest: Manifest) -> None:
    present = [name for name in DENOISERS if name in manifest.components]
    if len(present) != 1:
        have, want = listed(manifest.components), " or ".join(DENOISERS)
        raise _refuse(f"components hold {have}, want exactly one of {want}")
    for name in COMPONENTS[manifest.task]:
        if name not in manifest.components:
            raise _refuse(f"components.{name} is missing, the task {manifest.task} wants it")
    if manifest.task == "image_to_video" and TEXT_ENCODER in manifest.components:
        raise _refuse("components hold a text_encoder, the task image_to_video has no prompt")
    if manifest.task == "image_to_video" and manifest.tokenizer is not None:
        raise _refuse("tokenizer is given, want null, as the task image_to_video has no prompt")
    if TEXT_ENCODER in manifest.components and manifest.tokenizer is None:
        raise _refuse("tokenizer is null, want one for the text_encoder")


def _check_sizes(manifest: Manifest) -> None:
    """Check that a manifest of a few bytes asks for no array that exhausts a reader's memory."""
    video = manifest.video
    sizes = {
        "latents.shape": prod(manifest.latents.shape),
        "video": video.frames * video.height * video.width * 3,
    }
    for name, component in manifest.components.items():
        for variant in component.variants:
            for tensor in (*variant.inputs, *variant.outputs):
                where = f"{_where(name, variant)} tensor {quote(tensor.name)}"
                sizes[where] = prod(tensor.shape)
    for where, elements in sizes.items():
        if elements > MAX_ELEMENTS:
            raise _refuse(f"{where} has {elements:.3g} elements, want at most {MAX_ELEMENTS}")


def _check_variants(name: str, component: Component) -> None:
    first = component.variants[0]
    seen: set[str] = set()
    kinds: set[Kind] = set()
    for variant in component.variants:
        where = _where(name, variant)
        if variant.id in seen:
            raise _refuse(f"{where} is given twice, want unique ids")
        seen.add(variant.id)
        if variant.kind in kinds:
            kind = shorten(str(variant.kind), MAX_WHERE)
            raise _refuse(f"{where} is the second of {kind}, want one of each kind")
        kinds.add(variant.kind)
        _check_variant(where, variant)
        for side in ("inputs", "outputs"):
            mine, theirs = _signature(getattr(variant, side)), _signature(getattr(first, side))
            if len(mine) != len(getattr(variant, side)):
                raise _refuse(f"{where} names one of its {side} twice, want unique names")
            if mine != theirs:
                raise _refuse(
                    f"{where} has {side} {_show(mine)}, "
                    f"want those of {shorten(first.id)}: {_show(theirs)}"
                )


def _where(component: str, variant: Variant) -> str:
    return f"components.{shorten(component)} variant {shorten(variant.id)}"


def _check_variant(where: str, variant: Variant) -> None:
    paths = [ref.path for ref in variant.files]
    if len(set(paths)) != len(paths):
        raise _refuse(f"{where} lists a file twice, want each once")
    if variant.format in PACKAGE_FORMATS:
        if not any(path.startswith(f"{variant.model}/") for path in paths):
            package = shorten(variant.model, MAX_WHERE)
            raise _refuse(f"{where} has the package {package}, in which none of its files is")
    elif variant.model not in paths:
        model = shorten(variant.model, MAX_WHERE)
        raise _refuse(f"{where} has the model {model}, which is not among its files")
    weights = [path for path in paths if path.endswith(WEIGHTS_SUFFIX)]
    if variant.format == "executorch" and len(weights) > 1:
        raise _refuse(f"{where} has {len(weights)} files {WEIGHTS_SUFFIX}, want at most one")
    _check_platform(where, variant)


def _check_platform(where: str, variant: Variant) -> None:
    """Check that what a variant says of the machines it is for goes with what it is."""
    chip, delegate, system = variant.chip, variant.delegate, variant.deployment_target
    kind = f"the delegate {delegate}" if delegate else f"the format {variant.format}"
    if variant.format == "executorch" and delegate is None:
        raise _refuse(f"{where} has no delegate, want one of {', '.join(DELEGATES)}")
    if variant.format != "executorch" and delegate is not None:
        raise _refuse(f"{where} has {kind}, want null for the format {variant.format}")
    compiled = variant.format == "qnn_context" or delegate == "qnn"
    if compiled and chip is None:
        raise _refuse(f"{where} has no chip, want the one that it is compiled for")
    if chip is not None and not compiled:
        raise _refuse(f"{where} has the chip {shorten(chip.slug)}, want null for {kind}")
    if variant.target == "iphone" and system is None:
        raise _refuse(f"{where} has no deployment_target, want a system such as iOS18")
    if system is not None and variant.target != "iphone" and delegate != "coreml":
        raise _refuse(f"{where} has the deployment_target {system}, want null for {kind}")
    if variant.function is not None and variant.format not in PACKAGE_FORMATS:
        function = shorten(variant.function)
        raise _refuse(f"{where} has the function {function}, want null for {kind}")


def _signature(tensors: Iterable[TensorSpec]) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in tensors}


def _show(signature: Mapping[str, tuple[int, ...]]) -> str:
    said = ", ".join(f"{_bare(name)} {shape}" for name, shape in signature.items())
    return shorten(said, 2 * MAX_WHERE)


def _bare(name: str) -> str:
    """Spell the name of a tensor without quotes."""
    return shorten(ascii(name)[1:-1])


def _check_files(files: Sequence[FileRef]) -> None:
    """Check that no path has two contents, and that no two paths clash on any file system."""
    by_folded: dict[str, FileRef] = {}
    for ref in files:
        other = by_folded.setdefault(ref.path.casefold(), ref)
        if other.path != ref.path:
            raise _refuse(f"files {_spell(other)} and {_spell(ref)} differ only in case")
        if other != ref:
            raise _refuse(f"file {_spell(ref)} is given with two sizes or hashes")
        if ref.path.casefold() == RESERVED_PATH:
            raise _refuse(f"file {ref.path} is the manifest itself, which lists no hash of its own")
    for folded, ref in by_folded.items():
        parts = folded.split("/")
        folders = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        if clash := next((folder for folder in folders if folder in by_folded), None):
            file = _spell(by_folded[clash])
            raise _refuse(f"{file} is a file and also a folder of {_spell(ref)}")
    if any(folded.startswith(f"{RESERVED_PATH}/") for folded in by_folded):
        raise _refuse(f"a file lies in a folder named {RESERVED_PATH}")


def _spell(ref: FileRef) -> str:
    return shorten(ref.path, MAX_WHERE)


def _tensor(manifest: Manifest, component: str, side: str, name: str) -> TensorSpec:
    tensors: Sequence[TensorSpec] = getattr(manifest.components[component].variants[0], side)
    found = next((tensor for tensor in tensors if tensor.name == name), None)
    if found is None:
        have = _show(_signature(tensors))
        raise _refuse(f"components.{component} has the {side} {have}, want one named {_bare(name)}")
    return found


def _check_shape(
    manifest: Manifest, component: str, side: str, name: str, want: tuple[int, ...], source: str
) -> None:
    shape = _tensor(manifest, component, side, name).shape
    if shape != want:
        raise _refuse(f"{component}/{name} has shape {shape}, {source} says {want}")


def _check_latents(manifest: Manifest) -> None:
    latents, denoiser = manifest.latents.shape, manifest.denoiser
    _check_shape(manifest, denoiser, "inputs", "sample", latents, "latents.shape")
    if _has_timestep(manifest) or max(manifest.sampler.schedules) > 1:
        _check_one_element(manifest, denoiser, "timestep")
    _check_shape(manifest, denoiser, "outputs", "model_output", latents, "latents.shape")
    _check_decoder(manifest)


def _check_decoder(manifest: Manifest) -> None:
    """Check that the decoder makes a clip, or equal parts of one."""
    video, latents = manifest.video, manifest.latents.shape
    shape = _tensor(manifest, VAE_DECODER, "inputs", "latents").shape
    if shape[1:] != latents[1:] or latents[0] % shape[0]:
        raise _refuse(
            f"{VAE_DECODER}/latents has shape {shape}, latents.shape says {latents}, "
            "or fewer frames that divide its own"
        )
    parts = latents[0] // shape[0]
    if video.frames % parts:
        raise _refuse(
            f"{VAE_DECODER}/latents has shape {shape}, so a clip is decoded in {parts} equal "
            f"parts, which the {video.frames} frames of video do not have"
        )
    frames = (video.frames // parts, video.height, video.width, 3)
    _check_shape(manifest, VAE_DECODER, "outputs", "frames", frames, "video")


def _has_timestep(manifest: Manifest) -> bool:
    """Return whether the denoiser is told the step; one that knows a single step need not be."""
    inputs = manifest.components[manifest.denoiser].variants[0].inputs
    return any(tensor.name == "timestep" for tensor in inputs)


def _check_one_element(manifest: Manifest, component: str, name: str) -> None:
    shape = _tensor(manifest, component, "inputs", name).shape
    if prod(shape) != 1:
        raise _refuse(f"{component}/{name} has shape {shape}, want one element")


def _check_pixels(manifest: Manifest, component: str, side: str, name: str, version: int) -> None:
    """Check how every variant of a component has its tensor of RGB pictures."""
    allowed = ("uint8",) if version == 1 else PIXELS
    for variant in manifest.components[component].variants:
        found = next(tensor for tensor in getattr(variant, side) if tensor.name == name)
        scaled = found.dtype != "uint8" and found.scale is not None
        if found.dtype not in allowed or scaled:
            said = f"{found.dtype} with a scale" if scaled else found.dtype
            want = ", ".join(allowed)
            id_ = shorten(variant.id)
            raise _refuse(f"{component}/{name} of {id_} is {said}, want {want}")


def _check_text(manifest: Manifest) -> None:
    if manifest.tokenizer is None:
        return  # refused before
    length = (1, manifest.tokenizer.max_length)
    _check_shape(manifest, TEXT_ENCODER, "inputs", "input_ids", length, "tokenizer.max_length")
    _check_hidden_states(manifest, TEXT_ENCODER)


def _check_hidden_states(manifest: Manifest, encoder: str) -> None:
    hidden = _tensor(manifest, encoder, "outputs", HIDDEN_STATES).shape
    if len(hidden) != 3 or hidden[0] != 1:
        want = "(1, S, D)"
        raise _refuse(f"{encoder}/{HIDDEN_STATES} has shape {hidden}, want {want}")
    _check_shape(manifest, manifest.denoiser, "inputs", HIDDEN_STATES, hidden, encoder)


def _check_picture(manifest: Manifest) -> None:
    """Check how the first picture enters, and what the denoiser is told beside it."""
    video, denoiser = manifest.video, manifest.denoiser
    for encoder in (IMAGE_ENCODER, VAE_ENCODER):
        picture = (1, video.height, video.width, 3)
        _check_shape(manifest, encoder, "inputs", "image", picture, "video")
    _check_hidden_states(manifest, IMAGE_ENCODER)
    noise = (1, 3, video.height, video.width)
    _check_shape(manifest, VAE_ENCODER, "inputs", "noise", noise, "video")
    _check_one_element(manifest, VAE_ENCODER, "noise_aug_strength")
    latents = (1, *manifest.latents.shape[1:])
    _check_shape(manifest, VAE_ENCODER, "outputs", IMAGE_LATENTS, latents, "latents.shape")
    _check_shape(manifest, denoiser, "inputs", IMAGE_LATENTS, latents, "latents.shape")
    _check_shape(manifest, denoiser, "inputs", ADDED_TIME_IDS, (1, 3), manifest.task)
    defaults = manifest.sampler.conditioning.get(ADDED_TIME_IDS)
    if defaults is None:
        raise _refuse(f"sampler.conditioning.{ADDED_TIME_IDS} is missing, want the defaults")
    try:
        MicroConditioning.from_added_time_ids(defaults)
    except InputError as exc:
        raise _refuse(f"sampler.conditioning.{ADDED_TIME_IDS}: {exc}") from exc


def _check_sampler(manifest: Manifest) -> None:
    sampler = manifest.sampler
    allowed = PREDICTIONS[sampler.kind]
    if sampler.prediction_type not in allowed:
        raise _refuse(
            f"sampler.prediction_type is {sampler.prediction_type}, "
            f"{sampler.kind} wants one of {', '.join(allowed)}"
        )
    for steps, schedule in sampler.schedules.items():
        if sampler.kind.startswith("flow") and to_float32(schedule.sigmas[0]) > 1.0:
            raise _refuse(
                f"sampler.schedules.{steps} starts at {schedule.sigmas[0]:g}, "
                f"{sampler.kind} wants levels within [0, 1]"
            )


def _fed(manifest: Manifest) -> set[str]:
    """Return the inputs of the denoiser that change from clip to clip or from step to step."""
    if manifest.task == "image_to_video":
        return {"sample", "timestep", HIDDEN_STATES, IMAGE_LATENTS}
    text = {HIDDEN_STATES} if TEXT_ENCODER in manifest.components else set[str]()
    return {"sample", "timestep"} | text


def _check_conditioning(manifest: Manifest) -> None:
    fed = _fed(manifest)
    for name, values in manifest.sampler.conditioning.items():
        if name in fed:
            raise _refuse(f"sampler.conditioning names {name}, which is fed, want constant inputs")
        shape = _tensor(manifest, manifest.denoiser, "inputs", name).shape
        if prod(shape) != len(values):
            named = _bare(name)
            raise _refuse(f"sampler.conditioning.{named} has {len(values)} values for {shape}")


def _check_inputs(manifest: Manifest) -> None:
    """Check that something feeds every input of every graph."""
    given = {
        TEXT_ENCODER: {"input_ids"},
        IMAGE_ENCODER: {"image"},
        VAE_ENCODER: {"image", "noise", "noise_aug_strength"},
        VAE_DECODER: {"latents"},
    }
    needed = {name: given[name] for name in COMPONENTS[manifest.task]}
    needed[manifest.denoiser] = _fed(manifest) | set(manifest.sampler.conditioning)
    for component, names in needed.items():
        for tensor in manifest.components[component].variants[0].inputs:
            if tensor.name not in names:
                raise _refuse(
                    f"{component} wants the input {quote(tensor.name)}, nothing provides it; "
                    f"provided: {shorten(', '.join(map(_bare, sorted(names))), MAX_WHERE)}"
                )


def _check_records(manifest: Manifest) -> None:
    for name in manifest.costs:
        if name not in manifest.components:
            raise _refuse(f"costs has the key {shorten(name)}, which is not a component")
    ids = {name: {v.id for v in part.variants} for name, part in manifest.components.items()}
    anywhere = {variant for known in ids.values() for variant in known}
    for record in manifest.verification:
        known = anywhere if record.component == END_TO_END else ids.get(record.component)
        if known is None:
            component = shorten(record.component)
            raise _refuse(f"verification names the component {component}, not in the bundle")
        if record.variant not in known:
            variant = shorten(record.variant)
            raise _refuse(f"verification names the variant {variant}, not in the bundle")
