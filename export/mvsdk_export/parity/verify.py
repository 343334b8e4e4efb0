"""Parity: every variant of a bundle against the float32 PyTorch reference, by one path.

The artefacts are run by the runtime itself (backends, sampler, decoder), from the bundle that will
be shipped, on inputs from the real few-step trajectory. Measures are in dB:

* `sqnr` of a graph's output: 10 log10(sum r^2 / sum (a - r)^2), r the reference, a the artefact;
* `psnr` of decoded frames: peak 255, against the reference's frames before they are rounded;
* end to end, frames of the whole pipeline at the same seed: `psnr`, and `frame_difference_psnr` of
  the differences of neighbouring frames, which flicker would lower; not of a single frame.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mvsdk
from mvsdk.backends import Backend, Selection
from mvsdk.backends._registry import built_in_backends
from mvsdk.backends._selection import refusal_of
from mvsdk.backends.qnn import is_emulated
from mvsdk.bundle import Bundle
from mvsdk.manifest import END_TO_END, Manifest, Variant, Verification
from mvsdk_export.errors import ExportError, ParityError
from mvsdk_export.families import Recipe
from mvsdk_export.jobs.progress import counted, counting
from mvsdk_export.parity.reference import Case, given_inputs
from mvsdk_export.quantize.activations import Evaluation, unique
from mvsdk_export.targets.coreml.checker.backend import CoreMLChecker

REFERENCE = "PyTorch float32"
DIFFERENCE_MARGIN_DB = 3.0
"""Differences of frames carry the noise of two frames: their floor is this much lower."""


def verify_set(
    path: Path,
    chosen: str,
    calls: Sequence[Evaluation],
    recipe: Recipe,
    *,
    numbers: Mapping[str, Mapping[str, float]],
    pictures: Mapping[str, NDArray[np.uint8]] | None = None,
) -> list[Verification]:
    """Compare one set of variants with the reference.

    Args:
        path: Bundle.
        chosen: Id of the set.
        calls: Recorded reference, whole clips in order.
        recipe: Gives the floors.
        numbers: Prompt -> what else was said of its clips.
        pictures: Name -> picture (H, W, 3), of models that take one, or a clip.

    Returns:
        One record per comparison, misses included; calls of a graph that another set shares with
        this one are compared again.
    """
    with open_set(path, chosen) as pipeline:
        return [
            *_component_records(pipeline, calls, recipe),
            *_clip_records(pipeline, calls, recipe, numbers, pictures or {}),
        ]


def open_set(path: Path, chosen: str) -> mvsdk.Pipeline:
    """Return a pipeline that runs a set of variants as it is to be verified.

    The checker of Core ML packages runs them on a Mac too: records of one bundle are then the same
    wherever it is verified.

    Raises:
        ExportError: If nothing here runs a variant of it.
    """
    bundle = Bundle.open(path)
    item = next(item for item in bundle.manifest.sets if item.id == chosen)
    variants = bundle.manifest.variants_of(item)
    denoisers = (x for x in bundle.manifest.names_with_role("denoiser") if x in variants)
    first = next(denoisers, next(iter(variants)))  # a set need not have all components
    selection = Selection(
        id=chosen,
        variants=variants,
        backends=find_backends(variants),
        key=variants[first].key,
    )
    return mvsdk.Pipeline(bundle, selection, memory="low")


def find_backends(variants: Mapping[str, Variant]) -> dict[str, Backend]:
    """Return what each variant of a set is verified on.

    Args:
        variants: By component.

    Raises:
        ExportError: If nothing here runs one of them.
    """
    return {name: _find_backend(name, variant) for name, variant in variants.items()}


def _find_backend(component: str, variant: Variant) -> Backend:
    is_coreml = "coreml" in (variant.format, variant.delegate)
    backends: Sequence[Backend] = [CoreMLChecker()] if is_coreml else built_in_backends()
    reasons: dict[str, str] = {}
    for backend in backends:
        reason = backend.unsupported_reason(variant)
        if reason is None:
            return backend
        reasons[backend.name] = reason
    reason = refusal_of(variant, reasons)
    raise ExportError(f"{component} cannot be verified in {variant.id}: {reason}")


def _component_records(
    pipeline: mvsdk.Pipeline, calls: Sequence[Evaluation], recipe: Recipe
) -> Iterator[Verification]:
    own_calls = {
        component: unique([call for call in calls if call.component == component])
        for component in pipeline.selection.variants
    }
    count = counting(sum(map(len, own_calls.values())), "calls")
    for component, variant in pipeline.selection.variants.items():
        floor = recipe.floors_db[variant.precision][component]
        session = pipeline.session(component)
        for call in own_calls[component]:
            outputs = session.run(call.inputs)
            metric, value = compare_all(outputs, call.outputs)
            count()
            yield _record(variant.id, component, call, metric, value, floor, _machine(variant))


def _clip_records(
    pipeline: mvsdk.Pipeline,
    calls: Sequence[Evaluation],
    recipe: Recipe,
    numbers: Mapping[str, Mapping[str, float]],
    pictures: Mapping[str, NDArray[np.uint8]],
) -> Iterator[Verification]:
    variants = pipeline.selection.variants.values()
    floor = min(recipe.floors_db[variant.precision][END_TO_END] for variant in variants)
    machine = " + ".join(dict.fromkeys(map(_machine, variants)))
    chosen = pipeline.selection.id
    default_steps = _default_steps(pipeline.manifest)
    clips = [call for call in calls if call.component == END_TO_END]
    own = [x for x in clips if default_steps in (None, parse_case(x.case)[2])]
    for call in counted(own, "clips"):
        prompt, seed, steps = parse_case(call.case)
        case = Case(
            prompt=prompt,
            seed=seed,
            num_inference_steps=steps,
            picture=pictures.get(prompt),
            numbers=numbers[prompt],
        )
        video = pipeline.run(
            given_inputs(pipeline.manifest, case),
            seed=seed,
            num_inference_steps=None if default_steps is None else steps,
        )
        frames = call.outputs["frames"].astype(np.float64)
        value = psnr_db(video.frames, frames)
        yield _record(chosen, END_TO_END, call, "psnr", value, floor, machine)
        if len(frames) == 1:  # a picture, which has no neighbours to differ from
            continue
        moved = np.diff(video.frames.astype(np.float64), axis=0)
        value = psnr_db(moved, np.diff(frames, axis=0))
        lower = floor - DIFFERENCE_MARGIN_DB
        yield _record(chosen, END_TO_END, call, "frame_difference_psnr", value, lower, machine)


def _default_steps(manifest: Manifest) -> int | None:
    """Return the number of steps that a caller gets; None if it cannot be chosen."""
    names = manifest.program.samplers()
    adjustable = [manifest.samplers[name] for name in names if manifest.samplers[name].adjustable]
    return adjustable[0].default_steps if adjustable else None


_WIDER: Mapping[str, str] = {
    "w8a16": "fp16",
    "w8a8": "fp32",
    "w8": "fp16",
    "w6": "w8",
    "w4": "w6",
}
"""Precision -> the next with more bits."""


def check_parity(records: Sequence[Verification]) -> None:
    """Raise if any record is below its floor.

    Raises:
        ParityError: Names the worst miss: component, step, dB, floor, and what to try.
    """
    misses = [record for record in records if not record.passed]
    if not misses:
        return
    worst = min(misses, key=lambda x: (x.value_db or 0.0) - x.floor_db)
    where = worst.component + (f" at step {worst.step}" if worst.step is not None else "")
    wider = _WIDER.get(worst.variant.removesuffix("-mixed").rpartition("-")[2])
    advice = (
        "check the checkpoint, then report this with what mvsdk doctor says"
        if wider is None
        else f"try --precision {wider}, or more calibration prompts or pictures"
    )
    more = f" (and {len(misses) - 1} more)" if len(misses) > 1 else ""
    raise ParityError(
        f"parity failed for {where} of {worst.variant}: {worst.metric} {worst.value_db:.1f} dB < "
        f"{worst.floor_db:.1f} dB on {worst.case!r}{more}; {advice}"
    )


def compare_all(
    outputs: Mapping[str, NDArray[Any]], reference: Mapping[str, NDArray[Any]]
) -> tuple[str, float | None]:
    """Return metric and value in dB of the worst that a graph gave; None for identical."""
    found = [compare(outputs[name], value) for name, value in reference.items()]
    return min(found, key=lambda item: math.inf if item[1] is None else item[1])


def compare(output: NDArray[Any], reference: NDArray[Any]) -> tuple[str, float | None]:
    """Return the metric that fits an output, and its value in dB; None for identical."""
    if output.dtype == np.uint8:
        return "psnr", psnr_db(output, reference)
    return "sqnr", sqnr_db(output, reference)


def sqnr_db(output: NDArray[Any], reference: NDArray[Any]) -> float | None:
    """Return the signal to quantisation noise ratio in dB; None for identical arrays."""
    signal = reference.astype(np.float64)
    return _ratio_db(float(np.sum(signal**2)), float(np.sum((output - signal) ** 2)))


def psnr_db(frames: NDArray[Any], reference: NDArray[Any]) -> float | None:
    """Return the peak signal to noise ratio at peak 255 in dB; None for identical arrays."""
    error = frames.astype(np.float64) - reference
    return _ratio_db(255.0**2, float(np.mean(error**2)))


def parse_case(case: str) -> tuple[str, int, int]:
    """Return prompt, seed and steps of a case's label."""
    prompt, seed, steps = case.rsplit(", ", 2)
    return prompt, int(seed.removeprefix("seed ")), int(steps.removesuffix(" steps"))


def _ratio_db(signal: float, noise: float) -> float | None:
    if noise == 0.0:
        return None
    if not math.isfinite(noise):
        return -1e4
    return 10.0 * math.log10(max(signal, 1e-300) / noise)


def _record(
    variant: str,
    component: str,
    call: Evaluation,
    metric: str,
    value: float | None,
    floor: float,
    machine: str,
) -> Verification:
    return Verification(
        component=component,
        variant=variant,
        case=call.case,
        step=call.step,
        metric=metric,
        value_db=None if value is None else round(value, 2),
        floor_db=floor,
        passed=value is None or round(value, 2) >= floor,
        measured_on=machine,
        reference=REFERENCE,
    )


def _machine(variant: Variant) -> str:
    """Return what ran a variant, with its version."""
    version = importlib.metadata.version
    if "coreml" in (variant.format, variant.delegate):
        tools = f"coremltools {version('coremltools')}, PyTorch {version('torch')}"
        return f"checker of Core ML packages, {tools}, CPU"
    if variant.format == "coreai":
        return f"Core AI runtime {version('coreai-core')}, CPU"
    if variant.format == "executorch":
        return f"ExecuTorch {version('executorch')}, {variant.delegate}, CPU"
    if variant.format == "onnx":
        return f"ONNX Runtime {version('onnxruntime')}, CPU"
    kind = "HTP emulator" if is_emulated() else "NPU"
    return f"QNN {kind}, onnxruntime-qnn {version('onnxruntime-qnn')}"
