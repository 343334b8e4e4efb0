"""Which set a device runs (docs/bundle_format.md, C1 to C5), stated by hand: nothing is computed.

`bases` are manifests. A case is edits of one, a device, and what the caller asks for; it has the
`set` that is chosen and whether that is `verified`, or `rule`, `refused` (`filter` if nothing is
what was asked for, `device` if nothing of that runs) and `reasons`: for each set that was asked for
the kinds of reasons that hold, of which a refusal names one. `socs` are what systems call chips,
with slug and HTP architecture; `chips` is the table.
"""

from __future__ import annotations

from typing import Any

from choosing_cases.apple import apple_cases
from choosing_cases.bundles import BASES
from choosing_cases.chips import chip_cases
from choosing_cases.denoisers import crossed_cases, denoiser_cases
from choosing_cases.devices import SOCS, TABLE
from choosing_cases.filters import filter_cases
from choosing_cases.order import order_cases
from choosing_cases.parts import pack_cases, program_cases
from choosing_cases.runtimes import runtime_cases, version_cases


def build_choosing() -> dict[str, list[dict[str, Any]]]:
    """Return bases, cases, what systems call chips, and the table of chips."""
    cases = [
        *chip_cases(),
        *version_cases(),
        *apple_cases(),
        *runtime_cases(),
        *filter_cases(),
        *order_cases(),
        *program_cases(),
        *pack_cases(),
        *denoiser_cases(),
        *crossed_cases(),
    ]
    return {
        "bases": [{"name": name, "manifest": base} for name, base in BASES.items()],
        "cases": cases,
        "socs": [{"soc_model": name, "chip": chip, "htp_arch": arch} for name, chip, arch in SOCS],
        "chips": [{"chip": chip, "htp_arch": arch} for chip, arch in TABLE.items()],
    }
