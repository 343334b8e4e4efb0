"""`mvsdk plan`: sizes, costs and limits of an export, before any weight is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvsdk.cli.command import Command
from mvsdk.cli.output import format_bytes, say, show, show_json, table
from mvsdk.devices import find_chipset
from mvsdk.manifest import PRECISIONS, Precision
from mvsdk_export.checkpoints import default_model_folder, load_configs
from mvsdk_export.commands import require_toolchain
from mvsdk_export.commands.arguments import (
    add_size_arguments,
    read_chips,
    read_precisions,
    read_steps,
)
from mvsdk_export.preflight import Finding, preflight_costs, preflight_request
from mvsdk_export.recipes import Recipe, find_recipe

if TYPE_CHECKING:
    from mvsdk_export.costs import ComponentCosts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is planned, every default filled in."""

    recipe: Recipe
    checkpoint: Path | None
    num_frames: int
    height: int
    width: int
    steps: tuple[int, ...]
    precisions: tuple[Precision, ...]
    chips: tuple[str, ...]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="sticker", help="recipe (default: sticker)")
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        type=Path,
        help="model folder whose config.json files to read (default: the one shipped)",
    )
    add_size_arguments(parser)
    parser.add_argument(
        "--precision", metavar="P,...", help=f"of {', '.join(PRECISIONS)} (default: all)"
    )
    parser.add_argument(
        "--chip", metavar="CHIP,...", help="chips, or all (default: those that are tested)"
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def _run(options: argparse.Namespace) -> int:
    request = _read_request(options)
    require_toolchain("torch", command="plan")
    chips = [find_chipset(name) for name in request.chips]
    findings = preflight_request(
        request.recipe,
        num_frames=request.num_frames,
        height=request.height,
        width=request.width,
        steps=request.steps,
        chips=chips,
    )
    source, costs = "not read", ()
    if _possible(findings):  # a size that does not fit has no costs
        source, costs = _measure(request)
        findings += preflight_costs(costs, precisions=request.precisions, chips=chips)
    if options.json:
        show_json(_to_json(request, source, costs, findings))
    else:
        show(_to_text(request, source, costs, findings))
    if not _possible(findings):
        say("this export is not possible; see the errors among the limits")
    return 0 if _possible(findings) else 1


PLAN = Command(
    name="plan",
    help="sizes, costs and limits of an export, without weights",
    add_arguments=_add_arguments,
    run=_run,
)


def _possible(findings: Sequence[Finding]) -> bool:
    return all(finding.severity != "error" for finding in findings)


def _read_request(options: argparse.Namespace) -> _Request:
    recipe = find_recipe(options.model)
    return _Request(
        recipe=recipe,
        checkpoint=options.checkpoint,
        num_frames=recipe.num_frames if options.frames is None else options.frames,
        height=recipe.height if options.height is None else options.height,
        width=recipe.width if options.width is None else options.width,
        steps=read_steps(options.steps) if options.steps is not None else recipe.steps,
        precisions=read_precisions(options.precision or "all"),
        chips=read_chips(options.chip),
    )


def _measure(request: _Request) -> tuple[str, tuple[ComponentCosts, ...]]:
    """Return where the configurations come from, and the costs."""
    from mvsdk_export.costs import measure_recipe

    folder = request.checkpoint or default_model_folder(request.recipe.name)
    costs = measure_recipe(
        request.recipe,
        load_configs(folder, request.recipe),
        num_frames=request.num_frames,
        height=request.height,
        width=request.width,
    )
    return str(folder), costs


def _totals(costs: Sequence[ComponentCosts], steps: Sequence[int]) -> dict[int, int]:
    """Return FLOPs of a whole clip by number of steps."""
    return {n: sum(item.flops * item.evaluations(n) for item in costs) for n in steps}


def _to_json(
    request: _Request, source: str, costs: Sequence[ComponentCosts], findings: Sequence[Finding]
) -> Mapping[str, object]:
    precisions = request.precisions
    return {
        "model": request.recipe.name,
        "configuration": source,
        "video": {
            "frames": request.num_frames,
            "height": request.height,
            "width": request.width,
            "fps": request.recipe.fps,
        },
        "components": {
            item.component: {
                "parameters": item.parameters,
                "flops": item.flops,
                "evaluations": {str(n): item.evaluations(n) for n in request.steps},
                "weight_bytes": {p: item.weight_bytes[p] for p in precisions},
                "activation_peak_bytes": {p: item.activation_peak_bytes[p] for p in precisions},
                "working_set_bytes": {p: item.working_set_bytes[p] for p in precisions},
                "hungriest_operator": item.hungriest_operator,
            }
            for item in costs
        },
        "clip_flops": {str(n): flops for n, flops in _totals(costs, request.steps).items()},
        "limits": [asdict(finding) for finding in findings],
    }


def _to_text(
    request: _Request, source: str, costs: Sequence[ComponentCosts], findings: Sequence[Finding]
) -> str:
    size = f"{request.num_frames} frames of {request.width} x {request.height}"
    lines = [f"{request.recipe.name}: {size}; configuration: {source}", ""]
    if costs:
        lines += [_cost_table(request, costs), "", _clip_line(request, costs), ""]
    lines.append(_limit_table(findings))
    return "\n".join(lines)


def _cost_table(request: _Request, costs: Sequence[ComponentCosts]) -> str:
    precisions = request.precisions
    rows = [
        [
            item.component,
            f"{item.parameters / 1e6:.2f} M",
            f"{item.flops / 1e9:.3f} G",
            "/".join(str(n) for n in dict.fromkeys(map(item.evaluations, request.steps))),
            *(format_bytes(item.weight_bytes[p]) for p in precisions),
            *(format_bytes(item.activation_peak_bytes[p]) for p in precisions),
        ]
        for item in costs
    ]
    rows.append(
        [
            "all",
            f"{sum(item.parameters for item in costs) / 1e6:.2f} M",
            "-",
            "-",
            *(format_bytes(sum(item.weight_bytes[p] for item in costs)) for p in precisions),
            *(
                format_bytes(max(item.activation_peak_bytes[p] for item in costs))
                for p in precisions
            ),
        ]
    )
    headings = ["component", "parameters", "FLOPs", "runs"]
    headings += [f"weights {p}" for p in precisions] + [f"peak {p}" for p in precisions]
    return table(headings, rows)


def _clip_line(request: _Request, costs: Sequence[ComponentCosts]) -> str:
    totals = _totals(costs, request.steps)
    listed = "; ".join(
        f"{flops / 1e9:.2f} GFLOPs at {n} step{'s' * (n > 1)}" for n, flops in totals.items()
    )
    steps = "/".join(map(str, request.steps))
    return (
        f"a clip takes {listed}\n"
        f"runs: evaluations per clip at {steps} steps; FLOPs: per evaluation, 2 per multiply-add "
        "of convolutions and matrix products;\npeak: activations alive at once, an upper estimate "
        "without fusion or tiling; bottom row: the largest"
    )


def _limit_table(findings: Sequence[Finding]) -> str:
    rows = [[f.severity, f.what, f.value, f.limit, f.next_step] for f in findings]
    return table(["", "limit of", "value", "allowed", "next step"], rows)
