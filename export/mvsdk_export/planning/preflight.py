"""Limits that an export meets, checked before any weight is loaded.

`preflight_request` needs no torch and looks at what was asked for; `preflight_costs` looks at what
the graphs will cost (costs.py). Both return findings: what was looked at, its value, the limit, and
what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvsdk.cli.output import format_bytes
from mvsdk.devices import HTP_PROCESS_LIMIT_BYTES, Chipset
from mvsdk.manifest import Precision
from mvsdk_export.families import DECODER, Recipe
from mvsdk_export.findings import Finding, Severity
from mvsdk_export.graphs.limits import PART_BYTES, PROTOBUF_LIMIT_BYTES

if TYPE_CHECKING:
    from mvsdk_export.planning.costs import ComponentCosts

COUNTED_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "w8a16")
"""Precisions that the bytes of graphs are counted for, before anything is made."""
HTP_PRECISIONS: tuple[Precision, ...] = ("fp16", "w8a16")
"""What the HTP computes in; float32 graphs run on the CPU only."""
GRAPH_LIMIT_BYTES = 2 << 30
"""Largest allocation of one graph: QNN was seen to refuse more ("limit is 2097152 KB", SA8295).

Reference: pytorch/executorch #17782.
"""
MAX_STEPS = 1000
MAX_SCHEDULES = 64
"""Numbers of steps that one bundle may have schedules for (docs/bundle_format.md)."""


def preflight_request(
    recipe: Recipe,
    *,
    num_frames: int,
    height: int,
    width: int,
    steps: Sequence[int],
    chips: Sequence[Chipset],
    decode_frames: int | None = None,
) -> tuple[Finding, ...]:
    """Check what was asked for against the recipe and the chip table.

    Args:
        recipe: The model.
        num_frames: Frames of a clip.
        height: Pixels.
        width: Pixels.
        steps: Step counts whose schedules are wanted.
        chips: Wanted chips.
        decode_frames: Frames that the decoder shall take at once; None where nobody said.
    """
    frames = _frames(recipe, num_frames)
    decoded: tuple[Finding, ...] = ()
    if decode_frames is not None and frames.severity == "ok":
        decoded = (_decode_frames(num_frames, decode_frames),)
    return (
        frames,
        *decoded,
        _side(recipe, "height", height),
        _side(recipe, "width", width),
        _steps(recipe, steps),
        *(_chip(chip) for chip in chips),
    )


def preflight_costs(
    costs: Sequence[ComponentCosts],
    *,
    precisions: Sequence[Precision],
    chips: Sequence[Chipset],
    part_bytes: int = PART_BYTES,
) -> tuple[Finding, ...]:
    """Check sizes against what the HTP and the file format can hold.

    Args:
        costs: Of every component.
        precisions: Planned precisions; float32 is not checked against the HTP, and never cut.
        chips: Planned chips.
        part_bytes: Float32 weights above which a graph is cut.
    """
    findings: list[Finding] = [_protobuf(costs)]
    if not set(precisions).isdisjoint(HTP_PRECISIONS):
        findings += [
            _parts(item, part_bytes) for item in costs if count_parts(item, part_bytes) > 1
        ]
    for precision in HTP_PRECISIONS:
        if precision not in precisions:
            continue
        findings += [_process(costs, precision), _graph(costs, precision, part_bytes)]
        findings += [
            _vtcm(costs, precision, mib, [c.slug for c in chips if c.vtcm_mib == mib])
            for mib in dict.fromkeys(chip.vtcm_mib for chip in chips)
        ]
    return tuple(findings)


def equal_parts(num_frames: int) -> list[int]:
    """Return how many frames may be decoded at once, ascending: the divisors of their number."""
    return [count for count in range(1, num_frames + 1) if num_frames % count == 0]


def fits_process(item: ComponentCosts, precision: Precision) -> bool:
    """Return whether a process on the HTP can map a graph that is alone in it."""
    return _resident(item, precision) <= HTP_PROCESS_LIMIT_BYTES


def count_parts(item: ComponentCosts, part_bytes: int = PART_BYTES) -> int:
    """Return into how many parts of about equal weight a component's graph is cut; 1: it is not."""
    return max(1, -(-item.weight_bytes["fp32"] // part_bytes))


def _frames(recipe: Recipe, num_frames: int) -> Finding:
    least, most = recipe.frame_range
    good = least <= num_frames <= most
    return Finding(
        severity="ok" if good else "error",
        what="frames",
        value=str(num_frames),
        limit=str(least) if least == most else f"{least} to {most}",
        next_step="" if good else f"use --frames {min(max(num_frames, least), most)}",
    )


def _decode_frames(num_frames: int, at_once: int) -> Finding:
    allowed = equal_parts(num_frames)
    nearest = max((count for count in allowed if count <= at_once), default=1)
    return Finding(
        severity="ok" if at_once in allowed else "error",
        what="frames decoded at once",
        value=str(at_once),
        limit=f"{', '.join(map(str, allowed))}: equal parts of {num_frames}",
        next_step="" if at_once in allowed else f"use --decode-frames {nearest}",
    )


def _side(recipe: Recipe, name: str, value: int) -> Finding:
    least, most = recipe.size_range
    multiple = recipe.size_multiple
    good = least <= value <= most and value % multiple == 0
    nearest = min(max((value + multiple // 2) // multiple * multiple, least), most)
    return Finding(
        severity="ok" if good else "error",
        what=name,
        value=str(value),
        limit=f"{least} to {most}, a multiple of {multiple}",
        next_step="" if good else f"use --{name} {nearest}",
    )


def _steps(recipe: Recipe, steps: Sequence[int]) -> Finding:
    known = ",".join(map(str, recipe.steps))
    severity: Severity = "ok"
    advice = ""
    allowed = all(1 <= count <= MAX_STEPS for count in steps)
    if not allowed or not 1 <= len(steps) <= MAX_SCHEDULES:
        severity, advice = "error", f"use --steps {known}"
    elif not set(steps) <= set(recipe.steps):
        severity, advice = "warning", f"the recipe was made for {known}: look at the clips"
    return Finding(
        severity=severity,
        what="steps",
        value=_shorten(", ".join(map(str, steps))),
        limit=f"1 to {MAX_STEPS} each, at most {MAX_SCHEDULES} of them",
        next_step=advice,
    )


def _shorten(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:60]}..."


def _chip(chip: Chipset) -> Finding:
    return Finding(
        severity="ok" if chip.tested else "warning",
        what="chip",
        value=f"{chip.slug} ({chip.names[0]}, HTP v{chip.htp_arch})",
        limit="chips of `mvsdk devices`",
        next_step="" if chip.tested else "no test compiles for this chip: verify the bundle",
    )


def _protobuf(costs: Sequence[ComponentCosts]) -> Finding:
    largest = max(costs, key=lambda item: item.weight_bytes["fp32"])
    size = largest.weight_bytes["fp32"]
    good = size <= PROTOBUF_LIMIT_BYTES
    return Finding(
        severity="ok" if good else "warning",
        what=f"largest ONNX file, {largest.component} at fp32",
        value=format_bytes(size),
        limit=f"{format_bytes(PROTOBUF_LIMIT_BYTES)} (protobuf)",
        next_step="" if good else "its weights go to an external data file beside the graph",
    )


def _parts(item: ComponentCosts, part_bytes: int) -> Finding:
    count, size = count_parts(item, part_bytes), item.weight_bytes["fp32"]
    return Finding(
        severity="ok",
        what=f"parts that {item.component} is cut into",
        value=f"{count}, for {format_bytes(size)} of float32 weights",
        limit=f"{format_bytes(part_bytes)} each",
    )


def _resident(item: ComponentCosts, precision: Precision, parts: int = 1) -> int:
    return item.weight_bytes[precision] // parts + item.activation_peak_bytes[precision]


def _process(costs: Sequence[ComponentCosts], precision: Precision) -> Finding:
    """Compare all graphs together, and the largest alone, with what one process can map."""
    total = sum(_resident(item, precision) for item in costs)
    largest = max(costs, key=lambda item: _resident(item, precision))
    severity: Severity = "ok"
    advice = ""
    if not fits_process(largest, precision):
        severity = "error"
        advice = f"{largest.component} alone is too large; try {_smaller(largest)}, w8a16"
    elif total > HTP_PROCESS_LIMIT_BYTES:
        severity = "warning"
        advice = 'load one component at a time: memory="low", or mvsdk generate --memory low'
    return Finding(
        severity=severity,
        what=f"all graphs in one process at {precision}",
        value=format_bytes(total),
        limit=f"{HTP_PROCESS_LIMIT_BYTES / 1e9:g} GB (HTP)",
        next_step=advice,
    )


def _graph(costs: Sequence[ComponentCosts], precision: Precision, part_bytes: int) -> Finding:
    """Compare the largest graph, or part of one, with what the compiler allocates."""

    def size_of(item: ComponentCosts) -> int:
        return _resident(item, precision, count_parts(item, part_bytes))

    largest = max(costs, key=size_of)
    size = size_of(largest)
    part = "a part of " if count_parts(largest, part_bytes) > 1 else ""
    good = size <= GRAPH_LIMIT_BYTES
    return Finding(
        severity="ok" if good else "warning",
        what=f"largest graph, {part}{largest.component} at {precision}",
        value=format_bytes(size),
        limit=f"{format_bytes(GRAPH_LIMIT_BYTES)} (QNN)",
        next_step="" if good else f"the compiler may refuse it; try {_smaller(largest)}",
    )


def _smaller(item: ComponentCosts) -> str:
    """Return what makes a graph smaller."""
    if item.component == DECODER:
        fewer = "fewer --decode-frames, " if item.frames > 1 else ""
        return f"{fewer}a light --decoder, a smaller size"
    return "fewer frames, a smaller size"


def _vtcm(
    costs: Sequence[ComponentCosts], precision: Precision, vtcm_mib: int, slugs: Sequence[str]
) -> Finding:
    """Compare the hungriest operator with on-chip memory; above it, work goes through DDR."""
    largest = max(costs, key=lambda item: item.working_set_bytes[precision])
    size = largest.working_set_bytes[precision]
    good = size <= vtcm_mib << 20
    return Finding(
        severity="ok" if good else "warning",
        what=f"largest operator, in {largest.component} at {precision}",
        value=f"{format_bytes(size)} ({largest.hungriest_operator})",
        limit=f"{vtcm_mib} MiB VTCM ({', '.join(slugs)})",
        next_step=""
        if good
        else "it is tiled through main memory and slower: a smaller size; `mvsdk export` ends with "
        "what the compiler then spills",
    )
