"""`mvsdk export`: a model folder becomes a verified bundle."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._staging import check_place
from mvsdk._text import quoted, shell_word
from mvsdk.bundle import SUFFIX
from mvsdk.cache import cache_folder
from mvsdk.cli.command import Command, named_path, say_chip_notes
from mvsdk.cli.memory import memory_lines
from mvsdk.cli.output import format_bytes, say, show, show_json, table
from mvsdk.manifest import END_TO_END, Manifest, Variant, Verification
from mvsdk.manifest.memory import read_memory
from mvsdk.targets import TARGETS
from mvsdk.tasks import TASKS
from mvsdk_export.commands.arguments import (
    add_decoder_arguments,
    add_guidance_argument,
    add_model_arguments,
    add_size_arguments,
    check_frames,
    default_frames,
    default_side,
    open_chosen_model,
    read_additions,
    read_guidance,
    read_picture_folder,
    read_steps,
)
from mvsdk_export.commands.bar import Display, describe_place, read_history, shown_progress
from mvsdk_export.commands.targets import (
    ChosenTargets,
    add_target_options,
    read_resources,
)
from mvsdk_export.findings import check_findings
from mvsdk_export.planning.preflight import preflight_request

if TYPE_CHECKING:
    from mvsdk_export.commands.targets import ChosenTargets
    from mvsdk_export.export import ExportReport
    from mvsdk_export.jobs.job import Made
    from mvsdk_export.jobs.runner import JobRunner
    from mvsdk_export.planning.plan import ExportPlan
    from mvsdk_export.planning.request import ExportRequest


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    took = "sticker, 2 cores: onnx 1 min, snapdragon 2, all 7"
    parser.description = f"Compile and verify a model. {took}."
    parser.add_argument("--target", required=True, help=f"{', '.join(TARGETS)}; all: every phone")
    add_model_arguments(parser, "model folder (default: the one shipped)")
    parser.add_argument(
        "--chip", metavar="CHIP,...", help="chips or phones (mvsdk devices), or all (default)"
    )
    parser.add_argument(
        "--precision",
        metavar="P,...",
        help="such as fp16 or w8a16, or all; default by target",
    )
    add_size_arguments(parser)
    add_decoder_arguments(parser)
    add_guidance_argument(parser)
    add_target_options(parser)
    parser.add_argument(
        "--pictures", metavar="DIR", type=named_path, help="pictures that calibrate and verify"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=named_path, help=f"bundle to write (default: MODEL{SUFFIX})"
    )
    # Two in one line: the help of a verb fits a screen.
    more = "replace a bundle at --out; --json: a report as JSON"
    parser.add_argument("--overwrite", action="store_true", help=more)
    parser.add_argument("--dry-run", action="store_true", help="say what would be made, and stop")
    parser.add_argument("--no-verify", action="store_true", help="skip the parity checks")
    parser.add_argument(
        "--keep-intermediates",
        action="store_true",
        help="keep finished stages for the next export",
    )
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)


def _run(options: argparse.Namespace) -> int:
    from mvsdk_export.jobs.runner import JobRunner

    targets = ChosenTargets(options)
    with JobRunner(cache_folder() / "export") as runner:
        if not options.dry_run:
            runner.warm_up([name for spec in targets.specs for name in spec.preload])
        request = _read_request(options, targets)
        say_chip_notes(options.chip)
        resources = read_resources(options.resources, request)
        for name, why in targets.left_out.items():
            say(f"{name} is left out: {why}")
        from mvsdk_export.planning.plan import plan_export

        plan = plan_export(request)
        request = plan.request
        if options.dry_run:
            _show_plan(plan, chosen=options.decode_frames is None, as_json=options.json)
            return 0
        if resources is not None:
            check_place(resources)
        report = _export(plan, runner)
        if options.keep_intermediates:
            say(f"finished stages are kept in {quoted(runner.cache_folder)}")
        else:
            runner.forget()
    if resources is not None:
        _write_resources(report, resources)
    if options.json:
        show_json(_to_json(report))
    else:
        show(_to_text(report, request, chosen=options.decode_frames is None))
    return 0


def _export(plan: ExportPlan, runner: JobRunner) -> ExportReport:
    """Make the bundle; who interrupts that is told what will be found again."""
    from mvsdk_export.export import export
    from mvsdk_export.jobs.interrupts import interrupted_once

    display: Display | None = None
    try:
        with interrupted_once(), shown_progress() as display:
            return export(plan, runner, display.show, history=read_history())
    except Exception:
        raise
    except BaseException:  # Ctrl-C, or asked to end
        if display is not None and display.last is not None:
            with contextlib.suppress(OSError):  # the terminal may be what went away
                say(f"stopped {describe_place(display.last)}; {_kept(runner)}")
        raise


def _kept(runner: JobRunner) -> str:
    count = len(runner.finished)
    if not count:
        return "no stage was finished"
    stages = "1 finished stage is" if count == 1 else f"{count} finished stages are"
    return f"{stages} kept in {quoted(runner.cache_folder)}: the same command goes on from there"


def _write_resources(report: ExportReport, out: Path) -> None:
    """Write the packages of the first Core ML variants under the names of Apple's Swift code."""
    from mvsdk_export.targets.coreml.resources import write_resources

    variants = {
        name: next(variant for variant in part.variants if variant.format == "coreml")
        for name, part in report.bundle.manifest.components.items()
    }
    names = write_resources(report.bundle, variants, out)
    say(f"{quoted(out)}: {', '.join(names)}")


EXPORT = Command(
    name="export",
    help="compile a model for a phone, verify it, write a bundle",
    add_arguments=_add_arguments,
    run=_run,
)


def _read_request(options: argparse.Namespace, targets: ChosenTargets) -> ExportRequest:
    variants = targets.plan_variants()
    folder = open_chosen_model(options.model, options.checkpoint, read_additions(options))
    recipe = folder.recipe
    overrides = targets.read_overrides([part.name for part in recipe.components], variants)
    if options.frames is not None:
        check_frames(recipe, folder.configs(), options.frames)
    steps = recipe.steps if options.steps is None else read_steps(options.steps)
    guidance = read_guidance(options.guidance, recipe)
    pictures = read_picture_folder(options.pictures, recipe)
    size = {
        "num_frames": default_frames(recipe, folder.configs())
        if options.frames is None
        else options.frames,
        "height": default_side(recipe, folder.configs(), "height")
        if options.height is None
        else options.height,
        "width": default_side(recipe, folder.configs(), "width")
        if options.width is None
        else options.width,
        "decode_frames": options.decode_frames,
    }
    chips = tuple(dict.fromkeys(plan.chipset for plan in variants if plan.chipset is not None))
    check_findings(preflight_request(recipe, **size, steps=steps, chips=chips))
    from mvsdk_export.planning.request import ExportRequest

    return ExportRequest(
        folder=folder,
        variants=variants,
        overrides=overrides,
        **size,
        steps=tuple(sorted(steps)),
        guidance=guidance or "none",
        pictures=pictures,
        out=options.out or Path(recipe.name + SUFFIX),
        options=targets.options,
        overwrite=options.overwrite,
        verify=not options.no_verify,
    )


def _show_plan(plan: ExportPlan, *, chosen: bool, as_json: bool) -> None:
    from mvsdk_export.planning.decoding import describe_parts

    request = plan.request
    plans = [
        {
            "id": item.id,
            "target": item.target,
            "precision": item.precision,
            "chip": item.chipset.slug if item.chipset else None,
        }
        for item in request.variants
    ]
    components = [part.name for part in request.folder.recipe.components]
    content = {
        "model": request.folder.recipe.name,
        "checkpoint": str(request.folder.path),
        "components": components,
        "decoder": str(request.folder.decoder.path) if request.folder.decoder else None,
        "frames": request.num_frames,
        "decode_frames": request.size["decode_frames"],
        "height": request.height,
        "width": request.width,
        "steps": list(request.steps),
        "guidance": request.folded_guidance,
        "variants": plans,
        "overrides": {name: item.label for name, item in request.overrides.items()},
        "stages": len(plan.names),
        "out": str(request.out),
    }
    if as_json:
        show_json(content)
        return
    size = f"{request.num_frames} frames of {request.width} x {request.height}"
    scales = request.folded_guidance
    form = (
        "guidance {:g}, " if request.folder.recipe.guidance == "text" else "guidance {:g} to {:g}, "
    )
    guidance = "" if scales is None else form.format(*scales)
    lines = [
        f"{content['model']} from {quoted(content['checkpoint'])}",
        f"{size}, {guidance}steps {', '.join(map(str, request.steps))}; "
        f"{content['stages']} stages; would write {quoted(request.out)}",
        *describe_parts(
            request.folder.recipe, request.num_frames, request.size["decode_frames"], chosen=chosen
        ),
    ]
    show("\n".join(lines) + "\n")
    rows = [[p["id"], p["target"], p["precision"], p["chip"] or "any"] for p in plans]
    show(table(["variant", "target", "precision", "chip"], [[str(x) for x in r] for r in rows]))
    others = [f"{x} {y.label}" for x, y in request.overrides.items()]
    but = f", but {', '.join(others)}" if others else ""
    show(f"each of {', '.join(components)}{but}; nothing was written")


def _to_json(report: ExportReport) -> Mapping[str, object]:
    from mvsdk_export.parity.recording import decode_frames_of

    manifest = report.bundle.manifest
    memory = read_memory(manifest)
    return {
        "bundle": str(report.bundle.path),
        "variants": [
            {
                "component": name,
                "id": variant.id,
                "bytes": sum(ref.bytes for ref in variant.files),
                "delegation": asdict(variant.delegation) if variant.delegation else None,
                "memory": [asdict(graph) for graph in memory.get((name, variant.id), ())] or None,
            }
            for name, part in manifest.components.items()
            for variant in part.variants
        ],
        "verification": [asdict(record) for record in manifest.verification],
        "decode_frames": decode_frames_of(manifest),
        "seconds": report.seconds,
        "compression": report.compression,
        "warnings": report.warnings,
        "stages": [
            {
                "name": stage.name,
                "seconds": stage.seconds,
                "peak_bytes": stage.peak_bytes,
                "base_bytes": stage.base_bytes,
                "reused": stage.reused,
            }
            for stage in report.jobs
        ],
    }


def _to_text(report: ExportReport, request: ExportRequest, *, chosen: bool) -> str:
    from mvsdk_export.parity.recording import decode_frames_of
    from mvsdk_export.planning.decoding import describe_parts

    manifest = report.bundle.manifest
    spent = sum(stage.seconds for stage in report.jobs if not stage.reused)
    peak = max(stage.peak_bytes for stage in report.jobs)
    path = request.out
    return "\n".join(
        [
            variant_table(manifest),
            "",
            summary_table(manifest, report.seconds),
            *memory_lines(manifest),
            "",
            stage_table(report.jobs),
            "",
            *_warning_lines(report),
            *describe_parts(
                request.folder.recipe, request.num_frames, decode_frames_of(manifest), chosen=chosen
            ),
            f"{quoted(path)}: {format_bytes(sum(ref.bytes for ref in manifest.files()))}; "
            f"{len(report.jobs)} stages in {spent:.0f} s, the largest took {format_bytes(peak)}",
            *_found_lines(report.jobs),
            f"next: {_next_command(manifest)} --bundle {shell_word(path)}",
        ]
    )


def _found_lines(stages: Sequence[Made[Any]]) -> list[str]:
    found = sum(stage.reused for stage in stages)
    return [f"{found} of {len(stages)} stages found finished from an earlier run"] if found else []


def _warning_lines(report: ExportReport) -> list[str]:
    """Return limits that graphs are beyond, a line each, and an empty line after them."""
    lines = [
        f"warning: {component}, {variant}: {item['what']}: {item['value']}, allowed: "
        f"{item['limit']}; {item['next_step']}"
        for variant, parts in report.warnings.items()
        for component, found in parts.items()
        for item in found
    ]
    return [*lines, ""] if lines else []


def _next_command(manifest: Manifest) -> str:
    task = manifest.program.task
    if task == "text_to_video":
        return 'mvsdk generate "a rocket flying left"'
    return f"mvsdk {TASKS[task].verb}"


def variant_table(manifest: Manifest) -> str:
    """Return one row per component and variant: size, delegation, worst parity and floor.

    What is delegated are graphs compiled whole, or operators, that the NPU or a delegate runs.
    """
    rows = [
        [
            variant.id,
            name,
            format_bytes(sum(ref.bytes for ref in variant.files)),
            _delegation(variant),
            *_parity([r for r in manifest.verification if _is_about(r, name, variant)]),
        ]
        for name, part in manifest.components.items()
        for variant in part.variants
    ]
    order = [v.id for part in manifest.components.values() for v in part.variants]
    order += [item.id for item in manifest.sets]
    for item in manifest.sets:
        records = [
            r for r in manifest.verification if (r.component, r.variant) == (END_TO_END, item.id)
        ]
        if records:
            *shown, _ = _parity([r for r in records if r.metric == "psnr"])
            verdict = _verdict(records)  # frame differences have a say, on a scale of their own
            rows.append([item.id, "end to end", "-", "-", *shown, verdict])
    rows.sort(key=lambda row: order.index(row[0]))
    return table(["variant", "component", "size", "delegated", "parity", "floor", ""], rows)


def summary_table(manifest: Manifest, seconds: Mapping[str, float]) -> str:
    """Return one row per set of variants: bytes, end-to-end parity, delegation, seconds."""
    rows: list[list[str]] = []
    for item in manifest.sets:
        parts = manifest.variants_of(item).values()
        whole = [
            record
            for record in manifest.verification
            if record.variant == item.id and record.component == END_TO_END
        ]
        known = [part.delegation for part in parts if part.delegation is not None]
        taken = sum(x.delegated for x in known)
        left = sum(len(x.non_delegated) for x in known)
        keys = {str(part.key) for part in parts}
        rows.append(
            [
                keys.pop() if len(keys) == 1 else item.id,
                format_bytes(sum(ref.bytes for part in parts for ref in part.files)),
                _parity([record for record in whole if record.metric == "psnr"])[0],
                f"{taken} of {taken + left}" if known else "-",
                f"{seconds.get(item.id, 0.0):.0f}",
            ]
        )
    return table(["target", "size", "end to end", "delegated", "seconds"], rows)


def stage_table(stages: Sequence[Made[Any]]) -> str:
    """Return one row per kind of stage: how many, seconds, memory above that of libraries."""
    kinds: dict[str, list[Made[Any]]] = {}
    for stage in stages:
        kinds.setdefault(stage.name.split()[0], []).append(stage)
    rows = [
        [
            kind,
            str(len(found)),
            f"{sum(stage.seconds for stage in found if not stage.reused):.1f}",
            format_bytes(max(stage.peak_bytes for stage in found)),
            format_bytes(max(stage.peak_bytes - stage.base_bytes for stage in found)),
        ]
        for kind, found in kinds.items()
    ]
    return table(["stage", "times", "seconds", "memory", "without libraries"], rows)


def _is_about(record: Verification, component: str, variant: Variant) -> bool:
    return record.component == component and record.variant == variant.id


def _delegation(variant: Variant) -> str:
    found = variant.delegation
    if found is None:
        return "-"
    return f"{found.delegated} of {found.delegated + len(found.non_delegated)}"


def _parity(records: Sequence[Verification]) -> list[str]:
    """Return the worst value, its floor and the verdict."""
    if not records:
        return ["-", "-", "not verified"]
    worst = min(records, key=lambda r: float("inf") if r.value_db is None else r.value_db)
    value = "identical" if worst.value_db is None else f"{worst.value_db:.1f} dB"
    return [value, f"{worst.floor_db:.0f} dB", _verdict(records)]


def _verdict(records: Sequence[Verification]) -> str:
    return "verified" if all(r.passed for r in records) else "MISSED"
