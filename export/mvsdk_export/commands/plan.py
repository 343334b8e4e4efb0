"""`mvsdk plan`: sizes, costs and limits of an export, before any weight is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._text import quoted
from mvsdk.backends._speed import kinds_for_cpus
from mvsdk.cli.command import Command, named_path, say_chip_notes
from mvsdk.cli.output import format_bytes, say, show, show_json, table
from mvsdk.devices import find_chipset
from mvsdk.errors import InputError
from mvsdk.manifest import Precision
from mvsdk_export.checkpoints import (
    DecoderFolder,
    default_model_folder,
    load_configs,
    open_decoder,
    read_recipe,
)
from mvsdk_export.checkpoints.building import weight_shapes
from mvsdk_export.checkpoints.lora import collect_changes, open_lora
from mvsdk_export.checkpoints.motion import MotionFolder, open_motion
from mvsdk_export.commands.arguments import (
    DEFAULT_MODEL,
    add_addition_arguments,
    add_decoder_arguments,
    add_guidance_argument,
    add_size_arguments,
    check_frames,
    default_frames,
    default_side,
    read_additions,
    read_chips,
    read_guidance,
    read_precisions,
    read_steps,
)
from mvsdk_export.commands.plan_table import cost_table_to_json, cost_table_to_text
from mvsdk_export.extras import require_toolchain
from mvsdk_export.families import DECODER, Recipe, find_recipe
from mvsdk_export.families.recipe import resolve
from mvsdk_export.planning.preflight import (
    COUNTED_PRECISIONS,
    Finding,
    preflight_costs,
    preflight_request,
)

if TYPE_CHECKING:
    from mvsdk_export.planning.costs import ComponentCosts


TABLE_RECIPE = "mobilevd"
"""The recipe of a paper whose cost table can be counted."""
_NOT_OF_A_TABLE = (
    *("checkpoint", "frames", "height", "width", "steps", "guidance", "precision", "chip"),
    *("decoder", "decode_frames"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is planned, every default filled in."""

    recipe: Recipe
    source: str
    """Where the configurations come from."""
    configs: Mapping[str, Any]
    """Component -> configuration of its network."""
    decoder: DecoderFolder | None
    """Where the decoder comes from; None for where the others do."""
    motion: MotionFolder | None
    """Temporal layers that the denoiser is given; None for none."""
    num_frames: int
    decode_frames: int | None
    """Frames that are decoded at once; None where nobody said."""
    height: int
    width: int
    steps: tuple[int, ...]
    guidance: tuple[float, float] | None
    precisions: tuple[Precision, ...]
    chips: tuple[str, ...]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        *("--model", "--recipe"),
        metavar="NAME",
        help=f"recipe (default: the checkpoint's, else {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        type=named_path,
        help="model folder whose config.json files to read (default: the one shipped, if any)",
    )
    add_size_arguments(parser)
    add_decoder_arguments(parser)
    add_addition_arguments(parser)
    add_guidance_argument(parser)
    parser.add_argument(
        "--precision", metavar="P,...", help=f"of {', '.join(COUNTED_PRECISIONS)} (default: all)"
    )
    parser.add_argument(
        "--chip", metavar="CHIP,...", help="chips or phones, or all (default: the tested ones)"
    )
    parser.add_argument(
        "--table",
        action="store_true",
        help="instead, print the paper's cost table beside ours (mobilevd)",
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def _run(options: argparse.Namespace) -> int:
    if options.table:
        return _run_table(options)
    request = _read_request(options)
    say_chip_notes(options.chip)
    chips = [find_chipset(name) for name in request.chips]
    findings = preflight_request(
        request.recipe,
        num_frames=request.num_frames,
        height=request.height,
        width=request.width,
        steps=request.steps,
        chips=chips,
        decode_frames=request.decode_frames,
    )
    costs: tuple[ComponentCosts, ...] = ()
    if _possible(findings):  # a size that does not fit has no costs
        request = _with_decode_frames(request)
        costs = _measure(request)
        findings += preflight_costs(costs, precisions=request.precisions, chips=chips)
    if options.json:
        show_json(_to_json(request, costs, findings))
    else:
        show(_to_text(request, costs, findings, chosen=options.decode_frames is None))
    if not _possible(findings):
        say("this export is not possible; see the errors among the limits")
    return 0 if _possible(findings) else 1


def _run_table(options: argparse.Namespace) -> int:
    """Print the cost table of a paper, which has sizes and steps of its own."""
    name = find_recipe(options.model or DEFAULT_MODEL).name
    if name != TABLE_RECIPE:
        raise InputError(
            f"--table has no paper to show for the model {quoted(name)}; use it with "
            f"--recipe {TABLE_RECIPE}"
        )
    for option in _NOT_OF_A_TABLE:
        if getattr(options, option) is not None:
            name = option.replace("_", "-")
            raise InputError(f"--table takes no --{name}: its rows are those of the paper")
    require_toolchain("torch", command="plan")
    from mvsdk_export.compress.cost_table import build_cost_table

    costs = build_cost_table()
    if options.json:
        show_json(cost_table_to_json(costs))
    else:
        show(cost_table_to_text(costs))
    return 0


PLAN = Command(
    name="plan",
    help="sizes, costs and limits of an export, without weights",
    add_arguments=_add_arguments,
    run=_run,
)


def _possible(findings: Sequence[Finding]) -> bool:
    return all(finding.severity != "error" for finding in findings)


def _read_request(options: argparse.Namespace) -> _Request:
    recipe, folder = _find_model(options.model, options.checkpoint)
    decoder = None if options.decoder is None else open_decoder(options.decoder, recipe)
    if decoder is not None:
        recipe = recipe.for_decoder(decoder.variant)
    additions = read_additions(options)
    if additions.sampler is not None and "discrete" not in recipe.schedulers:
        raise InputError(
            f"--sampler does not go with {recipe.name}, which is sampled as its scheduler says; "
            "leave it out"
        )
    motion = None
    if additions.motion is not None:
        motion = open_motion(additions.motion, recipe, needs_weights=False)
    loras = [open_lora(choice) for choice in additions.loras]
    steps = read_steps(options.steps) if options.steps is not None else recipe.steps
    guidance = read_guidance(options.guidance, recipe)
    precisions = read_precisions(options.precision or "all", COUNTED_PRECISIONS)
    chips = read_chips(options.chip)
    require_toolchain("torch", command="plan")
    configs = _read_configs(recipe, folder, decoder, motion)
    if loras:  # they cost nothing, but are to fit
        collect_changes(loras, weight_shapes(recipe.components, configs))
    if options.frames is not None:
        check_frames(recipe, configs, options.frames)
    return _Request(
        recipe=recipe,
        source="defaults" if folder is None else str(folder),
        configs=configs,
        decoder=decoder,
        motion=motion,
        decode_frames=options.decode_frames,
        num_frames=default_frames(recipe, configs) if options.frames is None else options.frames,
        height=default_side(recipe, configs, "height")
        if options.height is None
        else options.height,
        width=default_side(recipe, configs, "width") if options.width is None else options.width,
        steps=steps,
        guidance=guidance,
        precisions=precisions,
        chips=chips,
    )


def _find_model(model: str | None, checkpoint: Path | None) -> tuple[Recipe, Path | None]:
    """Return the recipe, as the scheduler of its folder wants it, and the folder, if there is one.

    Weights need not be there.
    """
    recipe = None if model is None else find_recipe(model)
    if checkpoint is None:
        recipe = recipe or find_recipe(DEFAULT_MODEL)
        if not recipe.ships_weights:
            return recipe, None
        checkpoint = default_model_folder(recipe.name)
    return read_recipe(checkpoint, recipe), checkpoint


def _read_configs(
    recipe: Recipe,
    folder: Path | None,
    decoder: DecoderFolder | None,
    motion: MotionFolder | None,
) -> Mapping[str, Any]:
    """Return the configurations of all components; without a folder, those of the defaults."""
    if folder is not None:
        return load_configs(folder, recipe, decoder, motion)
    configs = {part.name: resolve(part.config)() for part in recipe.components}
    if motion is not None:
        name = motion.recipe.component
        configs[name] = motion.add_to(configs[name])
    return configs if decoder is None else {**configs, DECODER: decoder.load_config()}


def _with_decode_frames(request: _Request) -> _Request:
    """Choose how many frames are decoded at once, where nobody said."""
    from mvsdk_export.planning.decoding import choose_decode_frames

    if request.decode_frames is not None:
        return request
    chosen = choose_decode_frames(
        request.recipe,
        request.configs,
        num_frames=request.num_frames,
        height=request.height,
        width=request.width,
        precisions=request.precisions,
    )
    return replace(request, decode_frames=chosen)


def _measure(request: _Request) -> tuple[ComponentCosts, ...]:
    from mvsdk_export.planning.costs import measure_recipe

    return measure_recipe(
        request.recipe,
        request.configs,
        num_frames=request.num_frames,
        height=request.height,
        width=request.width,
        guidance=request.guidance,
        decode_frames=request.decode_frames,
    )


def _totals(costs: Sequence[ComponentCosts], steps: Sequence[int]) -> dict[int, int]:
    """Return FLOPs of a whole clip by number of steps."""
    return {n: sum(item.flops * item.evaluations(n) for item in costs) for n in steps}


def _to_json(
    request: _Request, costs: Sequence[ComponentCosts], findings: Sequence[Finding]
) -> Mapping[str, object]:
    precisions = request.precisions
    return {
        "model": request.recipe.name,
        "configuration": request.source,
        "decoder": None if request.decoder is None else str(request.decoder.path),
        "decode_frames": request.decode_frames or request.num_frames,
        "guidance": request.guidance,
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
        "on_a_cpu": dict(zip(("fastest_first", "checks_numbers"), kinds_for_cpus(), strict=True)),
    }


def _to_text(
    request: _Request,
    costs: Sequence[ComponentCosts],
    findings: Sequence[Finding],
    *,
    chosen: bool,
) -> str:
    size = f"{request.num_frames} frames of {request.width} x {request.height}"
    lines = [f"{request.recipe.name}: {size}; configuration: {request.source}"]
    if request.decoder is not None:
        lines.append(f"decoder: {request.decoder.path}")
    if request.guidance is not None:
        first, last = request.guidance
        lines.append(
            f"guidance {first:g}: the denoiser runs twice a step, with the prompt and with another"
            if request.recipe.guidance == "text"
            else f"guidance {first:g} to {last:g}: each run of the denoiser evaluates its network "
            "twice"
        )
    if costs and request.decode_frames is not None:
        from mvsdk_export.planning.decoding import describe_parts

        lines += describe_parts(
            request.recipe, request.num_frames, request.decode_frames, chosen=chosen
        )
    lines.append("")
    if costs:
        lines += [_cost_table(request, costs), "", _clip_line(request, costs), ""]
    lines += [_limit_table(findings), "", _cpu_lines()]
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
        f"{_format_flops(flops)} at {n} step{'s' * (n > 1)}" for n, flops in totals.items()
    )
    steps = "/".join(map(str, request.steps))
    return (
        f"a clip takes {listed}\n"
        f"runs: evaluations per clip at {steps} steps; FLOPs: per evaluation, 2 per multiply-add "
        "of convolutions and matrix products;\npeak: activations alive at once, an upper estimate "
        "without fusion or tiling; bottom row: the largest"
    )


def _cpu_lines() -> str:
    """Say which export is the fast one on a CPU, and which is not for speed."""
    (fastest, *others), slow = kinds_for_cpus()
    target, precision = fastest.split()
    return (
        f"on a CPU {fastest} is fastest (--target {target} --precision {precision}), then "
        f"{', '.join(others)};\nonnx starts in less time, for short or few clips; "
        f"{', '.join(slow)} only checks numbers there, as the emulators of phones do"
    )


def _format_flops(count: int) -> str:
    return f"{count / 1e9:.2f} GFLOPs" if count < 1e12 else f"{count / 1e12:.2f} TFLOPs"


def _limit_table(findings: Sequence[Finding]) -> str:
    rows = [[f.severity, f.what, f.value, f.limit, f.next_step] for f in findings]
    return table(["", "limit of", "value", "allowed", "next step"], rows)
