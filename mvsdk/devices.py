"""Snapdragon chips: how each is called, what its NPU is, which phones carry it.

The table is data; `find_chipset` reads it. HTP is Qualcomm's tensor processor, VTCM its on-chip
memory.

Reference:
    `soc_model`, HTP architecture and VTCM as in ExecuTorch, backends/qualcomm/serialization/
    qc_schema.py; chipset slugs as in Qualcomm AI Hub (`hub.Device(attributes="chipset:SLUG")`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from mvsdk.errors import InputError
from mvsdk.manifest import Chip

HTP_PROCESS_LIMIT_BYTES = 3_500_000_000
"""What one process can map on the HTP of a phone, about: graphs that are loaded together must fit.

Reference: pytorch/executorch #18862, microsoft/onnxruntime PR 20930.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chipset:
    """A system on chip."""

    slug: str
    """Part number in lower case: the name in bundles and on the command line."""
    names: tuple[str, ...]
    """Marketing names, the best known first."""
    htp_arch: int
    soc_model: int
    vtcm_mib: int
    phones: tuple[str, ...]
    """Examples, not a list of all."""
    tested: bool
    """True: an export target, compiled and run on Qualcomm's emulator by the tests."""
    ai_hub_chipset: str | None = None
    """AI Hub's slug. None: AI Hub has no slug for it that we know."""

    @property
    def chip(self) -> Chip:
        """The predicate that a bundle's variant carries for this chip."""
        return Chip(slug=self.slug, htp_arch=self.htp_arch, soc_model=self.soc_model)


CHIPSETS: tuple[Chipset, ...] = (
    Chipset(
        slug="sm8550",
        names=("Snapdragon 8 Gen 2", "Snapdragon 8 Gen 2 for Galaxy"),
        ai_hub_chipset="qualcomm-snapdragon-8gen2",
        htp_arch=73,
        soc_model=43,
        vtcm_mib=8,
        phones=("Samsung Galaxy S23", "Xiaomi 13", "OnePlus 11"),
        tested=True,
    ),
    Chipset(
        slug="sm8650",
        names=("Snapdragon 8 Gen 3", "Snapdragon 8 Gen 3 for Galaxy"),
        ai_hub_chipset="qualcomm-snapdragon-8gen3",
        htp_arch=75,
        soc_model=57,
        vtcm_mib=8,
        phones=("Samsung Galaxy S24 Ultra", "Xiaomi 14", "OnePlus 12"),
        tested=True,
    ),
    Chipset(
        slug="sm8750",
        names=("Snapdragon 8 Elite", "Snapdragon 8 Elite for Galaxy"),
        ai_hub_chipset="qualcomm-snapdragon-8-elite",
        htp_arch=79,
        soc_model=69,
        vtcm_mib=8,
        phones=("Samsung Galaxy S25", "Xiaomi 15", "OnePlus 13"),
        tested=True,
    ),
    Chipset(
        slug="sm8850",
        names=("Snapdragon 8 Elite Gen 5", "Snapdragon 8 Elite Gen 5 for Galaxy"),
        ai_hub_chipset="qualcomm-snapdragon-8-elite-gen5",
        htp_arch=81,
        soc_model=87,
        vtcm_mib=8,
        phones=("Samsung Galaxy S26 Ultra", "Xiaomi 17", "OnePlus 15"),
        tested=True,
    ),
    Chipset(
        slug="sm8450",
        names=("Snapdragon 8 Gen 1",),
        ai_hub_chipset="qualcomm-snapdragon-8gen1",
        htp_arch=69,
        soc_model=36,
        vtcm_mib=8,
        phones=("Samsung Galaxy S22", "Xiaomi 12", "OnePlus 10 Pro"),
        tested=False,
    ),
    Chipset(
        slug="sm8475",
        names=("Snapdragon 8+ Gen 1",),
        htp_arch=69,
        soc_model=42,
        vtcm_mib=8,
        phones=("Samsung Galaxy Z Fold4", "Xiaomi 12S", "OnePlus 10T"),
        tested=False,
    ),
    Chipset(
        slug="sm8845",
        names=("Snapdragon 8 Gen 5",),
        htp_arch=81,
        soc_model=97,
        vtcm_mib=8,
        phones=("OnePlus 15R",),
        tested=False,
    ),
    Chipset(
        slug="qcm6490",
        names=("Dragonwing QCM6490", "QCS6490"),
        ai_hub_chipset="qualcomm-qcs6490",
        htp_arch=68,
        soc_model=93,
        vtcm_mib=2,
        phones=("Fairphone 5",),
        tested=False,
    ),
)
"""Every chip this package knows: the export targets, oldest first, then the others."""

DEFAULT_CHIPSETS: tuple[Chipset, ...] = tuple(chip for chip in CHIPSETS if chip.tested)
"""What an export makes variants for when no chip is named."""


def find_chipset(name: str) -> Chipset:
    """Find a chip by slug, part number, marketing name or AI Hub slug.

    Case, spaces, dashes and the words Qualcomm and Snapdragon do not matter: "SM8650",
    "8 gen 3" and "qualcomm-snapdragon-8gen3" are the same chip.

    Raises:
        InputError: If no chip has this name; the message suggests and lists known ones.
    """
    by_name = {_plain(spelling): chip for chip in CHIPSETS for spelling in _spellings(chip)}
    wanted = _plain(name)
    if wanted in by_name:
        return by_name[wanted]
    close = get_close_matches(wanted[:64], by_name, n=1, cutoff=0.6)
    hint = f"did you mean {by_name[close[0]].slug}? " if close else ""
    known = ", ".join(chip.slug for chip in CHIPSETS)
    raise InputError(f"unknown chip {name[:64]!a}; {hint}known: {known}; see `mvsdk devices`")


def _spellings(chip: Chipset) -> tuple[str, ...]:
    aliases = (chip.ai_hub_chipset,) if chip.ai_hub_chipset else ()
    return (chip.slug, *chip.names, *aliases)


def _plain(name: str) -> str:
    words = name.casefold().replace("qualcomm", "").replace("snapdragon", "")
    return re.sub(r"[^a-z0-9+]", "", words)
