"""The table of `mvsdk plan --recipe mobilevd --table`, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mvsdk.cli.output import table

if TYPE_CHECKING:
    from mvsdk_export.compress.cost_table import ClipCosts, CostRow, CostTable

_LEGEND = """\
runs: evaluations of the denoiser in a clip of 14 frames; TFLOPs: of one of them, 2 per multiply-add
of convolutions and matrix products; clip: of all of them; less: how many times less than SVD
1024x576. The paper counts the denoiser alone; a whole clip takes the other networks too.
inferred, stand-in: the published text leaves it open, and this choice meets the paper's FLOPs; not
reconstructed: the choice that is shown meets one figure only. See docs/mobilevd.md."""


def cost_table_to_text(costs: CostTable) -> str:
    """Lay the cost table out for people."""
    blocks = [
        "mobilevd: the paper's figures beside ours, which are counted from configurations alone",
        "\n".join(["steps", _step_table(costs)]),
        *("\n".join([title, _row_table(rows)]) for title, rows in costs.ablations.items()),
        "\n".join(["whole clips, TFLOPs", _clip_table(costs.clips), _parameters(costs.clips[-1])]),
        _LEGEND,
        _headline(costs),
    ]
    return "\n\n".join(blocks)


def cost_table_to_json(costs: CostTable) -> Mapping[str, object]:
    """Return the cost table as JSON values; what the paper does not have is null."""
    from mvsdk_export.compress.cost_table import (
        HEADLINE_AFTER_TFLOPS,
        HEADLINE_BEFORE_TFLOPS,
        HEADLINE_FACTOR,
    )

    return {
        "model": "mobilevd",
        "steps": [_row_to_json(costs, row) for row in costs.steps],
        "ablations": {
            title: [_row_to_json(costs, row) for row in rows]
            for title, rows in costs.ablations.items()
        },
        "clips": [_clip_to_json(clip) for clip in costs.clips],
        "headline": {
            "paper_before_tflops": HEADLINE_BEFORE_TFLOPS,
            "paper_after_tflops": HEADLINE_AFTER_TFLOPS,
            "paper_factor": HEADLINE_FACTOR,
        },
    }


def _step_table(costs: CostTable) -> str:
    headings = ["step", "runs", "TFLOPs: paper", "ours", "difference"]
    headings += ["clip: paper", "ours", "less: paper", "ours", "parameters", "basis"]
    rows = [
        [
            row.name,
            str(row.evaluations),
            *_compared(row),
            _tflops(row.paper_total_tflops),
            _tflops(row.total_flops / 1e12),
            _times(costs.paper_reduction(row)),
            _times(costs.reduction(row)),
            _millions(row.parameters),
            row.basis,
        ]
        for row in costs.steps
    ]
    return table(headings, rows)


def _row_table(rows: Sequence[CostRow]) -> str:
    headings = ["", "TFLOPs: paper", "ours", "difference", "parameters", "basis"]
    cells = [[row.name, *_compared(row), _millions(row.parameters), row.basis] for row in rows]
    return table(headings, cells)


def _clip_table(clips: Sequence[ClipCosts]) -> str:
    components = [part.component for part in clips[0].parts]
    rows = [
        [
            clip.name,
            *(_tflops(part.flops * part.runs / 1e12) for part in clip.parts),
            _tflops(clip.total_flops / 1e12),
            _times(clips[0].total_flops / clip.total_flops),
        ]
        for clip in clips
    ]
    headings = ["", *components, "all", "less"]
    return table(headings, rows)


def _parameters(clip: ClipCosts) -> str:
    listed = (f"{part.component} {_millions(part.parameters)}" for part in clip.parts)
    return f"parameters of {clip.name}: {', '.join(listed)}"


def _headline(costs: CostTable) -> str:
    from mvsdk_export.compress.cost_table import (
        HEADLINE_AFTER_TFLOPS,
        HEADLINE_BEFORE_TFLOPS,
        HEADLINE_FACTOR,
        SVD_EVALUATIONS,
    )

    first = costs.steps[0]
    before, after = HEADLINE_BEFORE_TFLOPS, HEADLINE_AFTER_TFLOPS
    per_evaluation, whole = first.paper_tflops or 0.0, first.paper_total_tflops or 0.0
    return (
        f"The paper's abstract says {before:g} -> {after:g} TFLOPs, {HEADLINE_FACTOR} times less. "
        f"These do not agree:\n{before:g} / {after:g} is {before / after:.0f}, and {before:g} is "
        f"{before / per_evaluation:.0f} evaluations of {per_evaluation:g}. {HEADLINE_FACTOR} is "
        f"{whole:.1f} / {after:g}, {SVD_EVALUATIONS} evaluations,\n"
        f"as in its table. This table uses {SVD_EVALUATIONS}."
    )


def _compared(row: CostRow) -> tuple[str, str, str]:
    difference = "-" if row.difference is None else f"{100 * row.difference:.1f} %"
    return _tflops(row.paper_tflops), _tflops(row.flops / 1e12), difference


def _tflops(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _row_to_json(costs: CostTable, row: CostRow) -> Mapping[str, object]:
    return {
        "name": row.name,
        "height": row.size.height,
        "width": row.size.width,
        "evaluations": row.evaluations,
        "paper_tflops": row.paper_tflops,
        "flops": row.flops,
        "difference": row.difference,
        "paper_clip_tflops": row.paper_total_tflops,
        "clip_flops": row.total_flops,
        "paper_reduction": costs.paper_reduction(row),
        "reduction": costs.reduction(row),
        "parameters": row.parameters,
        "basis": row.basis,
    }


def _clip_to_json(clip: ClipCosts) -> Mapping[str, object]:
    return {
        "name": clip.name,
        "height": clip.size.height,
        "width": clip.size.width,
        "components": {
            part.component: {
                "parameters": part.parameters,
                "flops": part.flops,
                "runs": part.runs,
            }
            for part in clip.parts
        },
        "clip_flops": clip.total_flops,
    }
