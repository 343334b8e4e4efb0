"""Parity: every variant of a bundle against the float32 PyTorch reference, by one path.

The artefacts are run by the runtime itself (backends, sampler, decoder), from the bundle that will
be shipped, on inputs from the real few-step trajectory. Measures are in dB:

* `sqnr` of a graph's output: 10 log10(sum r^2 / sum (a - r)^2), r the reference, a the artefact;
* `psnr` of decoded frames: peak 255, against the reference's frames before they are rounded;
* end to end, frames of the whole pipeline at the same seed: `psnr`, and `frame_difference_psnr` of
  the differences of neighbouring frames, which flicker would lower.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mvsdk
from mvsdk.backends.qnn import is_emulated
from mvsdk.conditioning import ADDED_TIME_IDS, MicroConditioning
from mvsdk.manifest import END_TO_END, Variant, Verification
from mvsdk_export.checker.backend import CoreMLChecker
from mvsdk_export.errors import ParityError
from mvsdk_export.progress import counted, counting
from mvsdk_export.recipes import DECODER, Recipe
from mvsdk_export.reference import Evaluation, unique

REFERENCE = "PyTorch float32"
DIFFERENCE_MARGIN_DB = 3.0
"""Differences of frames carry the noise of two frames: their floor is this much lower."""


def verify_variant(
    path: Path, chosen: Variant, calls: Sequence[Evaluation], recipe: Recipe
) -> list[Verification]:
    """Compare one set of variants with the reference.

    Args:
        path: Bundle.
        chosen: One of the variants; those of the other components that go with it are compared too.
        calls: Recorded reference, whole clips in order.
        recipe: Gives the floors.

    Returns:
        One record per comparison, misses included.
    """
    # The checker on a Mac too: records of one bundle are then the same wherever it is verified.
    checked = "coreml" in (chosen.format, chosen.delegate)
    pipeline = mvsdk.load(
        path,
        backend=CoreMLChecker() if checked else None,
        target=chosen.target,
        format=chosen.delegate or chosen.format,
        precision=chosen.precision,
        chip=chosen.chip.slug if chosen.chip else None,
        memory="low",
    )
    with pipeline:
        return [
            *_component_records(pipeline, chosen, calls, recipe),
            *_clip_records(pipeline, chosen, calls, recipe),
        ]


def _component_records(
    pipeline: mvsdk.Pipeline, chosen: Variant, calls: Sequence[Evaluation], recipe: Recipe
) -> Iterator[Verification]:
    floors = recipe.floors_db[chosen.precision]
    own_calls = {
        component: unique([call for call in calls if call.component == component])
        for component in pipeline.selection.variants
    }
    count = counting(sum(map(len, own_calls.values())), "calls")
    for component, variant in pipeline.selection.variants.items():
        session = pipeline.session(component)
        for call in own_calls[component]:
            output = session.run(call.inputs)[variant.outputs[0].name]
            metric, value = compare(output, call.output)
            count()
            yield _record(chosen, component, call.case, call.step, metric, value, floors[component])


def _clip_records(
    pipeline: mvsdk.Pipeline, chosen: Variant, calls: Sequence[Evaluation], recipe: Recipe
) -> Iterator[Verification]:
    floor = recipe.floors_db[chosen.precision][END_TO_END]
    pictures = {call.case: call.inputs["image"][0] for call in calls if "image" in call.inputs}
    said = {c.case: c.inputs[ADDED_TIME_IDS][0] for c in calls if ADDED_TIME_IDS in c.inputs}
    for case, frames in _clips(calls, pipeline.manifest.sampler.default_steps):
        prompt, seed, steps = parse_case(case)
        if case in pictures:
            conditioning = MicroConditioning.from_added_time_ids(said[case].tolist())
            video = pipeline.animate(
                pictures[case], seed=seed, num_inference_steps=steps, **asdict(conditioning)
            )
        else:
            video = pipeline.generate(prompt, seed=seed, num_inference_steps=steps)
        value = psnr_db(video.frames, frames)
        yield _record(chosen, END_TO_END, case, None, "psnr", value, floor)
        moved = np.diff(video.frames.astype(np.float64), axis=0)
        value = psnr_db(moved, np.diff(frames, axis=0))
        floor_of_differences = floor - DIFFERENCE_MARGIN_DB
        yield _record(
            chosen, END_TO_END, case, None, "frame_difference_psnr", value, floor_of_differences
        )


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
    wider = _WIDER.get(worst.variant.rpartition("-")[2])
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


def compare(output: NDArray[Any], reference: NDArray[Any]) -> tuple[str, float | None]:
    """Return the metric that fits an output, and its value in dB; None for identical."""
    if output.dtype == np.uint8:
        return "psnr", psnr_db(output, reference * 255.0)
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


def _clips(calls: Sequence[Evaluation], steps: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the cases of the default step count with their unrounded frames, 0 to 255."""
    decoded: dict[str, list[NDArray[Any]]] = {}
    for call in calls:
        if call.component == DECODER and parse_case(call.case)[2] == steps:
            decoded.setdefault(call.case, []).append(call.output)
    for case, parts in counted(list(decoded.items()), "clips"):
        yield case, np.concatenate(parts).astype(np.float64) * 255.0


def _ratio_db(signal: float, noise: float) -> float | None:
    if noise == 0.0:
        return None
    if not math.isfinite(noise):
        return -1e4
    return 10.0 * math.log10(max(signal, 1e-300) / noise)


def _record(
    chosen: Variant,
    component: str,
    case: str,
    step: int | None,
    metric: str,
    value: float | None,
    floor: float,
) -> Verification:
    return Verification(
        component=component,
        variant=chosen.id,
        case=case,
        step=step,
        metric=metric,
        value_db=None if value is None else round(value, 2),
        floor_db=floor,
        passed=value is None or round(value, 2) >= floor,
        measured_on=_machine(chosen),
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
