"""`mvsdk inspect`: what a bundle holds, and whether its files are whole."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from mvsdk._text import quoted
from mvsdk.cli import choice
from mvsdk.cli.command import Command, add_pack_argument, named_path, packs_of, say_chip_notes
from mvsdk.cli.memory import memory_lines
from mvsdk.cli.output import format_bytes, say, show, show_json, table
from mvsdk.errors import InputError
from mvsdk.manifest import END_TO_END, ClipInput, NumberInput, PictureInput
from mvsdk.manifest.usual import SAMPLER, TOKENIZER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mvsdk.bundle import Bundle
    from mvsdk.manifest import (
        Manifest,
        Program,
        Sampler,
        TokenizerSpec,
        Variant,
        Verification,
    )

_SHOWN_OPERATORS = 3
_SHOWN_FILES = 5


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=named_path, help="a *.mvbundle folder")
    parser.add_argument("--verify", action="store_true", help="check the hash of every file")
    add_pack_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.add_argument(
        "--device", metavar="D", help="which set a chip, a phone (s24) or iOS18 runs, and why"
    )
    parser.add_argument(
        "--runtime",
        metavar="R=V",
        action="append",
        help="of the app on that device, such as qairt=2.50; default: as the bundle asks",
    )


def _run(options: argparse.Namespace) -> int:
    from mvsdk.bundle import Bundle

    bundle = Bundle.open(options.bundle, packs=packs_of(options.pack), verify=options.verify)
    ignored = bundle.ignored() if options.verify else ()
    if options.device is not None:
        return _run_for_device(options, bundle.manifest)
    if options.runtime:
        raise InputError("--runtime is for --device; name a chip or phone with it too")
    if options.json:
        document = json.loads(bundle.manifest.to_json())
        told: dict[str, object] = {}
        if options.verify:
            missing = [ref.path for ref in bundle.missing_files()]
            told = {"x-files-ignored": list(ignored), "x-files-missing": missing}
        whole = options.verify and not bundle.missing_files()
        show_json({**document, "x-files-verified": whole, **told})
    else:
        show(_summary(bundle, verified=options.verify))
        if ignored:
            say(_ignored(ignored))
    return 0


def _run_for_device(options: argparse.Namespace, manifest: Manifest) -> int:
    """Say what a device runs; the status is 1 if that is nothing."""
    say_chip_notes(options.device)
    device = choice.device_of(options.device, manifest, options.runtime or ())
    if options.json:
        told, runs = choice.document(manifest, device)
        show_json(told)
    else:
        text, runs = choice.summary(manifest, device)
        show(text)
    return 0 if runs else 1


def _ignored(paths: Sequence[str]) -> str:
    shown = ", ".join(quoted(path) for path in paths[:_SHOWN_FILES])
    more = f" and {len(paths) - _SHOWN_FILES} more" if len(paths) > _SHOWN_FILES else ""
    return f"note: ignored, not listed in manifest.json: {shown}{more}"


COMMAND = Command(
    name="inspect",
    help="show what a bundle holds, and check its files",
    add_arguments=_add_arguments,
    run=_run,
)


def _summary(bundle: Bundle, *, verified: bool) -> str:
    manifest = bundle.manifest
    files = manifest.files()
    size = format_bytes(sum(ref.bytes for ref in files))
    checked = _checked(bundle) if verified else "hashes not checked, --verify does"
    licences = "; ".join(f"{item.name} ({item.applies_to})" for item in manifest.licences)
    lines = [
        *[_program(manifest, program) for program in manifest.programs],
        *_inputs(manifest.program),
        *[_sampler(name, item) for name, item in manifest.samplers.items()],
        *[_tokenizer(name, item) for name, item in manifest.tokenizers.items()],
        f"source    {manifest.source.model}, recipe {manifest.source.recipe}",
        f"licences  {licences or 'none named'}",
        f"files     {len(files)}, {size}; {checked}",
        *_packs(bundle),
        "",
        table(
            ["component", "target", "precision", "runs on", "size", "worst dB", "not delegated"],
            _rows(manifest),
        ),
        *memory_lines(manifest),
        *_mixed_sets(manifest),
    ]
    lines += _end_to_end(manifest)
    return "\n".join(lines)


def _checked(bundle: Bundle) -> str:
    missing = len(bundle.missing_files())
    return "all hashes right" + (f", but {missing} files are not installed" if missing else "")


def _program(manifest: Manifest, program: Program) -> str:
    video = program.video
    clip = f"{video.frames} frames of {video.width} x {video.height} at {video.fps:g} fps"
    name = manifest.name if len(manifest.programs) == 1 else f"{manifest.name} {program.name}"
    return f"{name}: {program.task}, {clip}"


def _inputs(program: Program) -> list[str]:
    """Return lines on what a caller gives besides a prompt."""
    inputs = program.inputs
    numbers = [
        f"{name} {item.default:g} ({item.minimum:g} to {item.maximum:g})"
        for name, item in inputs.items()
        if isinstance(item, NumberInput)
    ]
    lines = [
        f"{item.kind:<9} fitted to {item.width} x {item.height}"
        for item in inputs.values()
        if isinstance(item, PictureInput | ClipInput)
    ]
    return [*lines, f"numbers   {', '.join(numbers)}"] if numbers else lines


def _sampler(name: str, sampler: Sampler) -> str:
    steps = ", ".join(map(str, sorted(sampler.schedules)))
    label = "" if name == SAMPLER else f"{name}: "
    return (
        f"sampler   {label}{sampler.kind}, {sampler.prediction_type}; steps {steps}, "
        f"default {sampler.default_steps}"
    )


def _tokenizer(name: str, spec: TokenizerSpec) -> str:
    label = "" if name == TOKENIZER else f"{name}: "
    longer = "longer prompts are cut" if spec.too_long == "cut" else "longer prompts are refused"
    return f"tokens    {label}{spec.kind}, {spec.max_length}; {longer}"


def _packs(bundle: Bundle) -> list[str]:
    """Return a line on the parts of a bundle, where it is divided."""
    packs = [
        f"{name} ({'here' if name in bundle.packs else 'not installed'})"
        for name in bundle.manifest.packs
    ]
    return [f"packs     {', '.join(packs)}"] if packs else []


def _mixed_sets(manifest: Manifest) -> list[str]:
    """Return a line for each set whose variants are of several kinds."""
    lines: list[str] = []
    for item in manifest.sets:
        variants = manifest.variants_of(item)
        if len({variant.key for variant in variants.values()}) > 1:
            parts = [f"{name} {variant.key}" for name, variant in variants.items()]
            lines.append(f"set {item.id}: {', '.join(parts)}")
    return ["", *lines] if lines else []


def _rows(manifest: Manifest) -> list[list[str]]:
    return [
        [
            name,
            _target(variant),
            variant.precision,
            variant.chip.slug if variant.chip else variant.deployment_target or "any",
            format_bytes(sum(ref.bytes for ref in variant.files)),
            _worst(
                [
                    record
                    for record in manifest.verification
                    if (record.component, record.variant) == (name, variant.id)
                ]
            ),
            _delegation(variant),
        ]
        for name, component in manifest.components.items()
        for variant in component.variants
    ]


def _worst(records: Sequence[Verification]) -> str:
    """Return the lowest value beside its floor; `FAILED` where one missed its own."""
    if not records:
        return "-"
    failed = " FAILED" if not all(record.passed for record in records) else ""
    measured = [record for record in records if record.value_db is not None]
    if not measured:
        return f"identical{failed}"
    worst = min(measured, key=lambda record: (record.value_db or 0.0) - record.floor_db)
    return f"{worst.value_db:.1f} (>= {worst.floor_db:g}){failed}"


def _target(variant: Variant) -> str:
    """Return the target, with what it leaves open."""
    said = variant.format if variant.target == "iphone" else variant.delegate
    return f"{variant.target}/{said}" if said else variant.target


def _delegation(variant: Variant) -> str:
    delegation = variant.delegation
    if delegation is None:
        return "-"
    # Rules predict what nobody has seen on a phone.
    basis = " (predicted)" if delegation.basis == "rules" else ""
    if not delegation.non_delegated:
        return f"nothing{basis}"
    operators = sorted({node.operator for node in delegation.non_delegated})
    more = ", ..." if len(operators) > _SHOWN_OPERATORS else ""
    shown = ", ".join(operators[:_SHOWN_OPERATORS])
    return f"{len(delegation.non_delegated)}: {shown}{more}{basis}"


def _end_to_end(manifest: Manifest) -> list[str]:
    """Return one line per set of variants whose finished clips were compared."""
    records = [record for record in manifest.verification if record.component == END_TO_END]
    kinds = dict.fromkeys((record.variant, record.metric) for record in records)
    lines = [
        f"end to end, {variant}: {metric} "
        + _worst([record for record in records if (record.variant, record.metric) == kind])
        for kind in kinds
        for variant, metric in (kind,)
    ]
    return ["", *lines] if lines else []
