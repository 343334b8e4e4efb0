"""`mvsdk inspect`: what a bundle holds, and whether its files are whole."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from mvsdk._text import quoted
from mvsdk.cli.command import Command, named_path
from mvsdk.cli.output import format_bytes, say, show, show_json, table
from mvsdk.conditioning import ADDED_TIME_IDS, MicroConditioning
from mvsdk.manifest import END_TO_END

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Manifest, Variant, Verification

_SHOWN_OPERATORS = 3
_SHOWN_FILES = 5


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=named_path, help="a *.mvbundle folder")
    parser.add_argument("--verify", action="store_true", help="check the hash of every file")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def _run(options: argparse.Namespace) -> int:
    from mvsdk.bundle import Bundle

    bundle = Bundle.open(options.bundle, verify=options.verify)
    ignored = bundle.ignored() if options.verify else ()
    if options.json:
        document = json.loads(bundle.manifest.to_json())
        told = {"x-files-ignored": list(ignored)} if options.verify else {}
        show_json({**document, "x-files-verified": options.verify, **told})
    else:
        show(_summary(bundle, verified=options.verify))
        if ignored:
            say(_ignored(ignored))
    return 0


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
    video, sampler = manifest.video, manifest.sampler
    files = manifest.files()
    size = format_bytes(sum(ref.bytes for ref in files))
    checked = "all hashes right" if verified else "hashes not checked, --verify does"
    steps = ", ".join(map(str, sorted(sampler.schedules)))
    clip = f"{video.frames} frames of {video.width} x {video.height} at {video.fps:g} fps"
    licences = "; ".join(f"{item.name} ({item.applies_to})" for item in manifest.licences)
    lines = [
        f"{manifest.name}: {manifest.task}, {clip}",
        *_picture(manifest),
        f"sampler   {sampler.kind}, {sampler.prediction_type}; steps {steps}, "
        f"default {sampler.default_steps}",
        f"source    {manifest.source.model}, recipe {manifest.source.recipe}",
        f"licences  {licences or 'none named'}",
        f"files     {len(files)}, {size}; {checked}",
        "",
        table(
            ["component", "target", "precision", "runs on", "size", "worst dB", "left outside"],
            _rows(manifest),
        ),
    ]
    lines += _end_to_end(manifest)
    return "\n".join(lines)


def _picture(manifest: Manifest) -> list[str]:
    """Return a line on how a picture enters, where one does."""
    if manifest.task != "image_to_video":
        return []
    told = MicroConditioning.from_added_time_ids(manifest.sampler.conditioning[ADDED_TIME_IDS])
    return [
        f"picture   fitted to {manifest.video.width} x {manifest.video.height}; default: "
        f"motion {told.motion}, {told.fps:g} fps, noise {told.noise_aug_strength:g}"
    ]


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
            _residency(variant),
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


def _residency(variant: Variant) -> str:
    residency = variant.residency
    if residency is None:
        return "-"
    # Rules predict what nobody has seen on a phone.
    basis = " (predicted)" if residency.basis == "rules" else ""
    if not residency.cpu_nodes:
        return f"nothing{basis}"
    operators = sorted({node.operator for node in residency.left_outside})
    more = ", ..." if len(operators) > _SHOWN_OPERATORS else ""
    return f"{residency.cpu_nodes}: {', '.join(operators[:_SHOWN_OPERATORS])}{more}{basis}"


def _end_to_end(manifest: Manifest) -> list[str]:
    """Return one line per variant set whose finished clips were compared."""
    records = [record for record in manifest.verification if record.component == END_TO_END]
    kinds = dict.fromkeys((record.variant, record.metric) for record in records)
    lines = [
        f"end to end, {variant}: {metric} "
        + _worst([record for record in records if (record.variant, record.metric) == kind])
        for kind in kinds
        for variant, metric in (kind,)
    ]
    return ["", *lines] if lines else []
