"""`mvsdk slim`: a bundle for one phone, cut from a bundle for many."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mvsdk.cli.command import (
    Command,
    add_pack_argument,
    add_program_argument,
    add_variant_arguments,
    named_path,
    packs_of,
    say_chip_notes,
)
from mvsdk.cli.output import format_bytes, show, show_json

if TYPE_CHECKING:
    from mvsdk.bundle import Bundle


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", type=named_path, help="a *.mvbundle folder")
    add_variant_arguments(parser, default="all that are left")
    add_program_argument(parser)
    add_pack_argument(parser)
    add("--out", metavar="DIR", type=named_path, required=True, help="bundle to write")
    add("--overwrite", action="store_true", help="replace a bundle at --out")
    add("--json", action="store_true", help="print the result as JSON")


def _run(options: argparse.Namespace) -> int:
    from mvsdk.bundle import Bundle
    from mvsdk.slimming import slim_bundle

    say_chip_notes(options.chip)
    packs = packs_of(options.pack)
    before = _bytes(Bundle.open(options.bundle, packs=packs))
    slim = slim_bundle(
        options.bundle,
        options.out,
        target=options.target,
        chip=options.chip,
        precision=options.precision,
        format=options.format,
        program=options.program,
        packs=packs,
        overwrite=options.overwrite,
    )
    after = _bytes(slim)
    parts = slim.manifest.components.values()
    keys = list(dict.fromkeys(str(item.key) for part in parts for item in part.variants))
    if options.json:
        show_json(
            {
                "bundle": str(slim.path),
                "variants": keys,
                "bytes_before": before,
                "bytes": after,
            }
        )
    else:
        show(
            f"{options.out}: {format_bytes(after)} of {format_bytes(before)}, holds "
            f"{', '.join(keys)}"
        )
    return 0


COMMAND = Command(
    name="slim",
    help="cut a bundle for one phone from a bundle for many",
    add_arguments=_add_arguments,
    run=_run,
)


def _bytes(bundle: Bundle) -> int:
    """Return the size of all files that a bundle lists."""
    return sum(ref.bytes for ref in bundle.manifest.files())
