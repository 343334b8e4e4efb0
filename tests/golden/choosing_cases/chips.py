"""Cases of chips: the device's own, newer and older ones, and unknown ones (C3)."""

from __future__ import annotations

from choosing_cases.bundles import PHONES
from choosing_cases.cases import Case, refused, runs, same_reasons
from choosing_cases.devices import CHIPS, ONNX, device, phone

NPUS = tuple(CHIPS)


def chip_cases() -> list[Case]:
    """Return cases of chips."""
    return [
        *(runs(f"own chip, {slug}", "all", phone(slug), slug) for slug in NPUS),
        runs("a newer chip takes the newest", "phones", phone("sm8850"), "sm8750", verified=False),
        runs("a chip between", "all", phone("sm8475", runtimes=ONNX), "onnx"),
        runs("below all, on the CPU", "all", phone("sm8450"), "xnnpack"),
        runs("same HTP, other chip", "all", phone("sm8845"), "sm8850", verified=False),
        runs(
            "speed grade is another chip with its HTP",
            "all",
            device(chip="sm8750p", htp_arch=79),
            "sm8750",
            verified=False,
        ),
        runs("HTP not known, on the CPU", "all", device(chip="sm7675"), "xnnpack"),
        runs("own chip, HTP not known", "all", device(chip="sm8650"), "sm8650"),
        runs("HTP known, chip not", "all", device(htp_arch=77), "sm8650", verified=False),
        runs(
            "slugs are compared as they are",
            "phones",
            device(chip="SM8650", htp_arch=75),
            "sm8650",
            verified=False,
        ),
        runs("no Snapdragon", "all", device(chip="tensor"), "xnnpack"),
        runs("no chip", "all", device(), "xnnpack"),
        refused("below all, nothing else", "phones", phone("sm8450"), same_reasons(PHONES, "chip")),
        refused(
            "HTP not known, nothing else",
            "phones",
            device(chip="sm7675"),
            same_reasons(PHONES, "chip"),
        ),
        refused("no chip, nothing else", "phones", device(), same_reasons(PHONES, "chip")),
        runs(
            "own chip before a newer one that runs too",
            "phones",
            phone(
                "sm8550",
            ),
            "sm8550",
        ),
        runs(
            "an older own chip before a newer HTP",
            "phones",
            device(chip="sm8550", htp_arch=79),
            "sm8550",
        ),
    ]
