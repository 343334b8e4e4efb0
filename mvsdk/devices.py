"""Snapdragon chips: how each is called, what its NPU is, which phones carry it.

The table is data; `find_chipset` reads it. HTP is Qualcomm's tensor processor, VTCM its on-chip
memory.

Reference:
    `soc_model`, HTP architecture and VTCM as in ExecuTorch, backends/qualcomm/serialization/
    qc_schema.py; chipset slugs as in Qualcomm AI Hub (`hub.Device(attributes="chipset:SLUG")`).
    Phones as in qualcomm/ai-hub-models, qai_hub_models/devices_and_chipsets.yaml (Galaxy S22 to
    S25, Xiaomi 12), and as their makers and the press named them when they came out; which Galaxy
    phones have another chip in some countries likewise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from mvsdk._arguments import check_text
from mvsdk._text import quoted
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
    """Phones that carry it wherever they are sold: examples, not a list of all."""
    tested: bool
    """True: an export target, compiled and run on Qualcomm's emulator by the tests."""
    other_chips: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """Phones that carry it in some countries -> what they carry in the others."""
    ai_hub_chipset: str | None = None
    """AI Hub's slug. None: AI Hub has no slug for it that we know."""

    def __repr__(self) -> str:
        """Return slug and best known name in one line."""
        return f"Chipset({self.slug}, {self.names[0]}, HTP v{self.htp_arch})"

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
        phones=(
            "Samsung Galaxy S23",
            "Samsung Galaxy S23+",
            "Samsung Galaxy S23 Ultra",
            "Samsung Galaxy Z Fold5",
            "Samsung Galaxy Z Flip5",
            "Xiaomi 13",
            "OnePlus 11",
            "iQOO 11",
            "Red Magic 8 Pro",
        ),
        tested=True,
    ),
    Chipset(
        slug="sm8650",
        names=("Snapdragon 8 Gen 3", "Snapdragon 8 Gen 3 for Galaxy"),
        ai_hub_chipset="qualcomm-snapdragon-8gen3",
        htp_arch=75,
        soc_model=57,
        vtcm_mib=8,
        phones=(
            "Samsung Galaxy S24 Ultra",
            "Samsung Galaxy Z Fold6",
            "Samsung Galaxy Z Flip6",
            "Xiaomi 14",
            "OnePlus 12",
            "Asus ROG Phone 8",
            "Asus ROG Phone 8 Pro",
            "Honor Magic 6",
            "Honor Magic 6 Pro",
            "iQOO 12",
            "iQOO 12 Pro",
            "Oppo Find X7 Ultra",
            "realme GT 5 Pro",
            "Red Magic 9 Pro",
            "Nubia Z60 Ultra",
        ),
        other_chips={
            "Samsung Galaxy S24": "Exynos 2400",
            "Samsung Galaxy S24+": "Exynos 2400",
        },
        tested=True,
    ),
    Chipset(
        slug="sm8750",
        names=("Snapdragon 8 Elite", "Snapdragon 8 Elite for Galaxy"),
        ai_hub_chipset="qualcomm-snapdragon-8-elite",
        htp_arch=79,
        soc_model=69,
        vtcm_mib=8,
        phones=(
            "Samsung Galaxy S25",
            "Samsung Galaxy S25+",
            "Samsung Galaxy S25 Ultra",
            "Samsung Galaxy S25 Edge",
            "Samsung Galaxy Z Fold7",
            "Xiaomi 15",
            "OnePlus 13",
            "Asus ROG Phone 9",
            "Honor Magic 7",
            "iQOO 13",
            "realme GT 7 Pro",
        ),
        tested=True,
    ),
    Chipset(
        slug="sm8850",
        names=("Snapdragon 8 Elite Gen 5", "Snapdragon 8 Elite Gen 5 for Galaxy"),
        ai_hub_chipset="qualcomm-snapdragon-8-elite-gen5",
        htp_arch=81,
        soc_model=87,
        vtcm_mib=8,
        phones=(
            "Samsung Galaxy S26 Ultra",
            "Xiaomi 17",
            "OnePlus 15",
            "Honor Magic 8 Pro",
            "iQOO 15",
            "realme GT 8 Pro",
        ),
        other_chips={
            "Samsung Galaxy S26": "Exynos 2600",
            "Samsung Galaxy S26+": "Exynos 2600",
        },
        tested=True,
    ),
    Chipset(
        slug="sm8450",
        names=("Snapdragon 8 Gen 1",),
        ai_hub_chipset="qualcomm-snapdragon-8gen1",
        htp_arch=69,
        soc_model=36,
        vtcm_mib=8,
        phones=(
            "Xiaomi 12",
            "Xiaomi 12 Pro",
            "OnePlus 10 Pro",
            "Motorola Edge X30",
            "realme GT 2 Pro",
        ),
        other_chips={
            "Samsung Galaxy S22": "Exynos 2200",
            "Samsung Galaxy S22+": "Exynos 2200",
            "Samsung Galaxy S22 Ultra": "Exynos 2200",
        },
        tested=False,
    ),
    Chipset(
        slug="sm8475",
        names=("Snapdragon 8+ Gen 1",),
        htp_arch=69,
        soc_model=42,
        vtcm_mib=8,
        phones=(
            "Samsung Galaxy Z Fold4",
            "Samsung Galaxy Z Flip4",
            "Xiaomi 12S",
            "OnePlus 10T",
            "Asus ROG Phone 6",
            "Asus ROG Phone 6 Pro",
            "Red Magic 7S Pro",
        ),
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


def _part_numbers(chip: Chipset) -> list[str]:
    """Return the slug, and further part numbers of a chip that is sold under several."""
    return [chip.slug, *(name.lower() for name in chip.names if re.fullmatch("[A-Z]+[0-9]+", name))]


HTP_ARCHS: Mapping[str, int] = {
    number: chip.htp_arch for chip in CHIPSETS for number in _part_numbers(chip)
}
"""Part number in lower case -> HTP architecture."""


_SOC = re.compile("[a-z][a-z0-9]*")
_PART_NUMBER = re.compile("[a-z]+[0-9]+")
_UNKNOWN_SOC = "unknown"
"""What Android says where the maker filled nothing in (`Build.UNKNOWN`)."""


def slug_of_soc(soc_model: str) -> str | None:
    """Return the slug of a chip by what a system calls it, as docs/bundle_format.md, C3, says.

    Args:
        soc_model: `Build.SOC_MODEL` of Android, such as "SM8650-AC".

    Returns:
        Its ASCII letters and digits from the beginning, in lower case ("sm8650"); None where the
        name begins with no letter, or is "unknown".
    """
    found = _SOC.match(re.sub("[A-Z]", lambda letter: letter[0].lower(), soc_model))
    return None if found is None or found[0] == _UNKNOWN_SOC else found[0]


def htp_arch_of(slug: str) -> int | None:
    """Return the HTP architecture of a chip that the table has.

    A part number may go on with letters, which tell speeds and uses of one chip apart: "sm8750p"
    has the NPU of "sm8750".

    Returns:
        Such as 75; None for a chip that the table does not have.
    """
    if slug in HTP_ARCHS:
        return HTP_ARCHS[slug]
    found = _PART_NUMBER.match(slug)
    return None if found is None else HTP_ARCHS.get(found[0])


def find_chipset(name: str) -> Chipset:
    """Find a chip by slug, part number, marketing name, AI Hub slug, or a phone that carries it.

    Case, spaces, dashes and the words Qualcomm, Snapdragon, Samsung and Galaxy do not matter:
    "SM8650", "8 gen 3", "qualcomm-snapdragon-8gen3" and "s24 ultra" are the same chip. A phone that
    has this chip in some countries only is taken for it; `chip_note` says so.

    Raises:
        InputError: If no chip or phone has this name; the message suggests and lists known ones.
    """
    check_text("chip", name)
    by_name = {_plain(spelling): chip for chip in CHIPSETS for spelling in _spellings(chip)}
    wanted = _plain(name)
    if wanted in by_name:
        return by_name[wanted]
    known = ", ".join(chip.slug for chip in CHIPSETS)
    hint = _hint(wanted, by_name)
    raise InputError(f"unknown chip {quoted(name)}; {hint}known: {known}; see `mvsdk devices`")


def chip_note(name: str) -> str | None:
    """Return what is to be known of a chip that was named by a phone, in one line.

    Args:
        name: What was given to `find_chipset`.

    Returns:
        What else the phone carries in some countries; None where there is nothing to say.
    """
    wanted = _plain(check_text("chip", name))
    for chip in CHIPSETS:
        for phone, other in chip.other_chips.items():
            if _plain(phone) == wanted:
                return (
                    f"{phone} has the {chip.names[0]} in some countries and the {other} in others, "
                    f"which runs nothing that is made for {chip.slug}: look at the phone's own chip"
                )
    return None


def _spellings(chip: Chipset) -> Iterator[str]:
    yield from (chip.slug, *chip.names, *chip.phones, *chip.other_chips)
    if chip.ai_hub_chipset:
        yield chip.ai_hub_chipset


def _hint(wanted: str, by_name: Mapping[str, Chipset]) -> str:
    """Say what a name without a chip may have meant."""
    for family, chip in _OTHER_FAMILIES.items():
        if family in wanted:
            return f"{chip}; "
    phones = {
        _plain(phone): phone for chip in CHIPSETS for phone in (*chip.phones, *chip.other_chips)
    }
    chips = [name for name in by_name if name not in phones]
    if close := get_close_matches(wanted[:64], chips, n=1, cutoff=0.6):
        return f"did you mean {by_name[close[0]].slug}? "
    # Names of phones are short: at a lower cutoff an iQOO 9 would be an iQOO 12.
    if close := get_close_matches(wanted[:64], phones, n=1, cutoff=0.85):
        return f"did you mean {by_name[close[0]].slug} ({phones[close[0]]})? "
    return ""


# What a person may have in hand that no Snapdragon is in.
_OTHER_FAMILIES = {
    "iphone": "an iPhone has no Snapdragon, --target iphone is for it",
    "ipad": "an iPad has no Snapdragon, --target iphone is for it",
    "pixel": "a Pixel has no such Snapdragon, --target executorch runs on any phone's CPU",
    "tensor": "a Tensor is no Snapdragon, --target executorch runs on any phone's CPU",
    "exynos": "an Exynos is no Snapdragon, --target executorch runs on any phone's CPU",
    "dimensity": "a Dimensity is no Snapdragon, --target executorch runs on any phone's CPU",
}
_OPTIONAL_WORDS = re.compile("qualcomm|snapdragon|samsung|galaxy|asus|(family)|5g$")


def _plain(name: str) -> str:
    """Return the letters and digits that tell names apart; plus is a sign or a word."""
    words = name[:256].casefold().strip().replace("plus", "+")
    return re.sub(r"[^a-z0-9+]", "", _OPTIONAL_WORDS.sub("", words))
