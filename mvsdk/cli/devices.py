"""`mvsdk devices`: the chips that are known, and phones that carry them."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING

from mvsdk.cli.command import Command
from mvsdk.cli.output import show, show_json, table

if TYPE_CHECKING:
    from mvsdk.devices import Chipset

_WIDTH, _INDENT = 98, 9
_TIE = "_"  # stands for the spaces in a name while lines are broken


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
                    "phones_with_other_chips": dict(chip.other_chips),
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
        ]
        for chip in CHIPSETS
    ]
    phones = [_phones(chip) for chip in CHIPSETS]
    show(
        "\n".join(
            [
                table(["chip", "name", "HTP", "soc", "tested"], rows),
                "",
                "phones, whose names stand for their chip wherever one is named (--chip s24):",
                "",
                *phones,
            ]
        )
    )
    return 0


def _phones(chip: Chipset) -> str:
    """Return the phones of a chip in lines that fit a screen, no name cut in two."""
    others = [f"{phone} (or {other})" for phone, other in chip.other_chips.items()]
    names = ", ".join(name.replace(" ", _TIE) for name in (*chip.phones, *others))
    indent = " " * _INDENT
    lines = textwrap.wrap(names, _WIDTH - _INDENT, break_on_hyphens=False)
    return f"\n{indent}".join([f"{chip.slug:<{_INDENT}}{lines[0]}", *lines[1:]]).replace(_TIE, " ")


COMMAND = Command(
    name="devices",
    help="list the Snapdragon chips that are known, and phones",
    add_arguments=_add_arguments,
    run=_run,
)
