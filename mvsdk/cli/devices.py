"""`mvsdk devices`: the chips that are known, and phones that carry them."""

from __future__ import annotations

import argparse

from mvsdk.cli.command import Command
from mvsdk.cli.output import show, show_json, table


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the table as JSON")


def _run(options: argparse.Namespace) -> int:
    from mvsdk.devices import CHIPSETS

    if options.json:
        show_json(
            [
                {
                    "slug": chip.slug,
                    "names": list(chip.names),
                    "htp_arch": chip.htp_arch,
                    "soc_model": chip.soc_model,
                    "vtcm_mib": chip.vtcm_mib,
                    "phones": list(chip.phones),
                    "tested": chip.tested,
                    "ai_hub_chipset": chip.ai_hub_chipset,
                }
                for chip in CHIPSETS
            ]
        )
        return 0
    rows = [
        [
            chip.slug,
            chip.names[0],
            f"v{chip.htp_arch}",
            str(chip.soc_model),
            "yes" if chip.tested else "no",
            ", ".join(chip.phones[:2]),
        ]
        for chip in CHIPSETS
    ]
    show(table(["chip", "name", "HTP", "soc", "tested", "phones, such as"], rows))
    return 0


COMMAND = Command(
    name="devices",
    help="list the Snapdragon chips that are known, and phones",
    add_arguments=_add_arguments,
    run=_run,
)
