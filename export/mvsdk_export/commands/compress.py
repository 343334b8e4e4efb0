"""`mvsdk compress`: a smaller denoiser in a model folder of its own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from mvsdk._staging import check_place
from mvsdk._text import quoted, shell_word
from mvsdk.cli.command import Command, named_path, whole_number
from mvsdk.cli.output import say, show, show_json, table
from mvsdk.errors import InputError
from mvsdk_export.checkpoints import INDEX_FILE, ModelFolder, open_model, save_model_folder
from mvsdk_export.compress.recipe import (
    COMPRESSIONS,
    MOBILEVD,
    STEPS,
    CompressionRecipe,
    Step,
    find_compression,
    read_compression_steps,
)
from mvsdk_export.errors import CompressionError
from mvsdk_export.extras import require_toolchain

if TYPE_CHECKING:
    from mvsdk_export.compress.importance import Importance
    from mvsdk_export.compress.reports import Costs, Report
    from mvsdk_export.families.svd.config import SVDUNetConfig

COMPRESSION_FILE = "compression.json"
FORMAT_VERSION = 1
_NETWORK = "mvsdk_export.families.svd.unet:SVDUNet"
_OF_STEP: Mapping[str, Step] = {"keep": "prune", "importance": "prune", "factor": "funnels"}
"""Arguments that are settings of one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is asked for, every default filled in."""

    folder: ModelFolder
    config: SVDUNetConfig
    compression: CompressionRecipe
    importance: Importance | None
    height: int
    width: int
    latent_size: tuple[int, int]
    out: Path | None
    overwrite: bool


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=named_path, metavar="CHECKPOINT", help="model folder")
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        default=MOBILEVD.name,
        help=f"{', '.join(COMPRESSIONS)} (default: {MOBILEVD.name})",
    )
    parser.add_argument("--only", metavar="STEP,...", help=f"of {', '.join(STEPS)} (default: all)")
    parser.add_argument(
        "--keep", metavar="N", type=whole_number, help="temporal blocks that stay (default: 30 %%)"
    )
    parser.add_argument(
        "--importance",
        metavar="FILE",
        type=named_path,
        help="keep what training found important, not the costliest",
    )
    parser.add_argument(
        "--factor", metavar="X", help=f"width of funnels (default: {MOBILEVD.funnel_factor:g})"
    )
    parser.add_argument(
        "--height", metavar="N", type=whole_number, help="pixels at which FLOPs are counted"
    )
    parser.add_argument("--width", metavar="N", type=whole_number, help="likewise")
    parser.add_argument("--out", metavar="DIR", type=named_path, help="model folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a model folder at --out")
    parser.add_argument("--dry-run", action="store_true", help="count, load and write nothing")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _run(options: argparse.Namespace) -> int:
    request = _read_request(options)
    from mvsdk_export.compress.chain import plan_compression

    reports = plan_compression(
        request.config,
        request.compression,
        importance=request.importance,
        latent_size=request.latent_size,
    )
    if request.out is not None:
        reports = _compress(request, request.out)
    content = _to_json(request, reports)
    if options.json:
        show_json(content)
    else:
        show(_to_text(request, reports))
    return 0


COMPRESS = Command(
    name="compress",
    help="make the denoiser of an image-to-video model smaller",
    add_arguments=_add_arguments,
    run=_run,
)


def _read_request(options: argparse.Namespace) -> _Request:
    compression = _read_compression(options)
    out: Path | None = None if options.dry_run else options.out
    if out is None and not options.dry_run:
        raise InputError("no output is given; say with --out which folder to write, or --dry-run")
    require_toolchain("torch", command="compress")
    folder = open_model(options.checkpoint)
    if folder.recipe.component(folder.recipe.denoiser).network != _NETWORK:
        raise CompressionError(
            f"{quoted(options.checkpoint)} is a checkpoint of {folder.recipe.name}, whose denoiser "
            "is none of Stable Video Diffusion; compress takes checkpoints of that family"
        )
    if out is not None:
        check_place(out, replaces=INDEX_FILE if options.overwrite else None)
        if out.resolve() == folder.path:
            raise InputError(f"{quoted(out)} is the checkpoint itself; choose another output")
    height = folder.recipe.height if options.height is None else options.height
    width = folder.recipe.width if options.width is None else options.width
    return _Request(
        folder=folder,
        config=_read_config(folder),
        compression=compression,
        importance=_read_importance(options.importance, folder),
        height=height,
        width=width,
        latent_size=_latent_size(folder, height, width),
        out=out,
        overwrite=options.overwrite,
    )


def _read_config(folder: ModelFolder) -> SVDUNetConfig:
    """Return the configuration of the denoiser, whose clips have a length that can be made."""
    name, (least, most) = folder.recipe.denoiser, folder.recipe.frame_range
    config: SVDUNetConfig = folder.load_config(name)
    if not least <= config.num_frames <= most:
        raise CompressionError(
            f"{name} of {quoted(folder.path)} makes clips of {config.num_frames} frames, allowed: "
            f"{least} to {most}; correct num_frames in its config.json"
        )
    return config


def _read_compression(options: argparse.Namespace) -> CompressionRecipe:
    """Return the compression with the settings of the command line."""
    compression = find_compression(options.recipe)
    if options.only is not None:
        compression = replace(compression, steps=read_compression_steps(options.only))
    for name, step in _OF_STEP.items():
        if getattr(options, name) is not None and step not in compression.steps:
            raise InputError(
                f"--{name} goes with the step {step}, which --only leaves out; leave it out too"
            )
    if options.keep is not None:
        compression = replace(compression, keep=options.keep)
    if options.factor is not None:
        compression = replace(compression, funnel_factor=_read_factor(options.factor))
    return compression


def _read_factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 1:
        raise InputError(f"--factor is {quoted(text)}, expected a number above 0, at most 1")
    return factor


def _read_importance(path: Path | None, folder: ModelFolder) -> Importance | None:
    from mvsdk_export.compress.importance import load_importance

    if path is None:
        return None
    importance = load_importance(path)
    if importance.recipe != folder.recipe.name:
        raise CompressionError(
            f"importance {quoted(path)} was learned by {importance.recipe}, the checkpoint is one "
            f"of {folder.recipe.name}; give scores of that model, or leave --importance out"
        )
    return importance


def _latent_size(folder: ModelFolder, height: int, width: int) -> tuple[int, int]:
    from mvsdk_export.families.shapes import graph_sizes

    recipe = folder.recipe
    least, most = recipe.size_range
    for name, value in (("height", height), ("width", width)):
        if not least <= value <= most or value % recipe.size_multiple:
            raise InputError(
                f"--{name} is {value}; allowed: multiples of {recipe.size_multiple} from {least} "
                f"to {most}"
            )
    configs = folder.configs()
    frames = configs[recipe.denoiser].num_frames
    sizes = graph_sizes(configs, num_frames=frames, height=height, width=width)
    return sizes["h"], sizes["w"]


def _compress(request: _Request, out: Path) -> tuple[Report, ...]:
    """Load, compress, write."""
    from mvsdk_export.compress.chain import compress_unet
    from mvsdk_export.families.svd.unet import SVDUNet

    folder, name = request.folder, request.folder.recipe.denoiser
    folder.check()
    say(f"loading the {name} of {folder.path.name}")
    unet = folder.load(name)
    assert isinstance(unet, SVDUNet)  # checked by name
    say(f"compressing: {', '.join(request.compression.steps)}")
    unet, reports = compress_unet(
        unet,
        request.compression,
        importance=request.importance,
        latent_size=request.latent_size,
    )
    say(f"writing {out}")
    save_model_folder(
        out,
        folder.recipe,
        {name: unet},
        scheduler=folder.scheduler,
        rest=folder,
        model_card=_model_card(request, reports),
        documents={COMPRESSION_FILE: json.dumps(_to_document(request, reports), indent=2) + "\n"},
        overwrite=request.overwrite,
    )
    return reports


def _to_document(request: _Request, reports: Sequence[Report]) -> dict[str, object]:
    """Return what compression.json keeps."""
    importance = request.importance
    return {
        "format_version": FORMAT_VERSION,
        "recipe": request.compression.name,
        "video": {
            "frames": request.config.num_frames,
            "height": request.height,
            "width": request.width,
        },
        "before": asdict(reports[0].before),
        "after": asdict(reports[-1].after),
        "steps": [report.to_json() for report in reports],
        "importance": None if importance is None else asdict(importance),
        "config_before": asdict(request.config),
        "config": asdict(reports[-1].config),
    }


def _to_json(request: _Request, reports: Sequence[Report]) -> dict[str, object]:
    return {
        "checkpoint": str(request.folder.path),
        "model": request.folder.recipe.name,
        "out": None if request.out is None else str(request.out),
        **_to_document(request, reports),
    }


def _to_text(request: _Request, reports: Sequence[Report]) -> str:
    lines = [_size_line(request), "", _step_table(reports)]
    lines += ["", *(line for report in reports for line in _notes(report))]
    changed = [report.step for report in reports if not report.exact]
    if changed:
        lines.append(f"finetune before use: {', '.join(changed)} change what the network says")
    if request.out is None:
        lines.append("nothing was written")
    else:
        finetune = "finetune it (docs/mobilevd.md), then " if changed else ""
        lines.append(f"next: {finetune}{_export_command(request, request.out)}")
    return "\n".join(lines)


def _export_command(request: _Request, out: Path) -> str:
    recipe, size = request.folder.recipe, ""
    if (request.height, request.width) != (recipe.height, recipe.width):
        size = f" --height {request.height} --width {request.width}"
    return f"mvsdk export --target snapdragon --checkpoint {shell_word(out)}{size}"


def _size_line(request: _Request) -> str:
    return (
        f"{request.folder.recipe.name} from {request.folder.path.name}: one evaluation for "
        f"{request.config.num_frames} frames of {request.width} x {request.height}"
    )


def _step_table(reports: Sequence[Report]) -> str:
    first, last = reports[0].before, reports[-1].after
    rows = [["checkpoint", *_numbers(first), "-", ""]]
    rows += [
        [
            report.step,
            *_numbers(report.after),
            "same" if report.exact else "change",
            report.what,
        ]
        for report in reports
    ]
    saved = [
        f"-{1 - after / before:.1%}"
        for before, after in ((first.parameters, last.parameters), (first.flops, last.flops))
    ]
    rows.append(["saved", *saved, "-", ""])
    return table(["step", "parameters", "FLOPs", "outputs", ""], rows)


def _numbers(costs: Costs) -> list[str]:
    flops = costs.flops
    unit, size = ("T", 1e12) if flops >= 1e11 else ("G", 1e9)
    return [f"{costs.parameters / 1e6:.2f} M", f"{flops / size:.3f} {unit}"]


def _notes(report: Report) -> list[str]:
    """Return further lines on a step."""
    if report.step == "prune" and report.dropped:
        return [f"pruned: {len(report.dropped)} blocks, listed in {COMPRESSION_FILE}"]
    if not report.fidelity:
        return []
    errors = {item: item.relative_error for item in report.fidelity}
    worst = max(errors, key=lambda item: errors[item])
    return [
        f"funnels lose {median(errors.values()):.1%} of a product of weights (median of "
        f"{len(errors)}), at most {errors[worst]:.1%}:",
        f"  {worst.product} of {worst.layer}",
    ]


def _model_card(request: _Request, reports: Sequence[Report]) -> str:
    """Return the text of README.md."""
    recipe = request.folder.recipe
    rows = "\n".join(
        f"| {report.step} | {' | '.join(_numbers(report.after))} | "
        f"{'the same' if report.exact else 'others'} | {report.what} |"
        for report in reports
    )
    licences = "\n".join(f"- {name}: {what}" for name, what in recipe.licences.items())
    return f"""# {recipe.name}, compressed

Made by `mvsdk compress --recipe {request.compression.name}` from a checkpoint of {recipe.name}.
The denoiser is another one; the other networks have the weights of the checkpoint, rounded to
float16. Nothing was trained: where outputs are others, finetune the denoiser before it is used.

{_size_line(request)}; {COMPRESSION_FILE} says more.

| step | parameters | FLOPs | outputs | what |
|---|---|---|---|---|
| checkpoint | {" | ".join(_numbers(reports[0].before))} | | |
{rows}

The weights are made of those of the checkpoint, whose licence applies to them.

{licences}
"""
