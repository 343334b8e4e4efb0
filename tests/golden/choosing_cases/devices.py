"""Devices that are asked about, what systems call chips, and the table of chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CHIPS = {"sm8550": (73, 43), "sm8650": (75, 57), "sm8750": (79, 69), "sm8850": (81, 87)}
TABLE = {
    **{slug: arch for slug, (arch, _) in CHIPS.items()},
    **{"sm8450": 69, "sm8475": 69, "sm8845": 81, "qcm6490": 68, "qcs6490": 68},
}
SOCS: tuple[tuple[str, str | None, int | None], ...] = (
    ("SM8650", "sm8650", 75),
    ("sm8650", "sm8650", 75),
    ("SM8650-AC", "sm8650", 75),
    ("SM8650_AB", "sm8650", 75),
    ("SM8550 ", "sm8550", 73),
    ("SM8750P", "sm8750p", 79),
    ("SM8850AC", "sm8850ac", 81),
    ("SM86501", "sm86501", None),
    ("SM8650P1", "sm8650p1", 75),
    ("QCS6490", "qcs6490", 68),
    ("QCM6490", "qcm6490", 68),
    ("SM7675", "sm7675", None),
    ("MT6989", "mt6989", None),
    ("s5e9945", "s5e9945", None),
    ("Tensor G3", "tensor", None),
    ("unknown", None, None),
    ("UNKNOWN", None, None),
    ("", None, None),
    (" SM8650", None, None),
    ("8650", None, None),
    ("S\u0130M8650", "s", None),  # lower case of other letters is not asked for
    ("\u017fm8650", None, None),
)
ONNX, QAIRT, EXECUTORCH, COREAI = (
    {"onnxruntime": "1.31.1"},
    {"qairt": "2.51.0"},
    {"executorch": "1.5.1"},
    {"coreai": "1.0"},
)
ANDROID = {**ONNX, **QAIRT, **EXECUTORCH}
IOS = {**ONNX, **EXECUTORCH, **COREAI}


def device(
    platform: str = "android",
    os_version: str | None = "16",
    chip: str | None = None,
    htp_arch: int | None = None,
    runtimes: Mapping[str, str] = ANDROID,
    delegates: Sequence[str] = ("xnnpack",),
) -> dict[str, Any]:
    """Return a device: an Android phone that knows nothing of its chip, unless told otherwise."""
    return {
        "platform": platform,
        "os_version": os_version,
        "chip": chip,
        "htp_arch": htp_arch,
        "runtimes": dict(runtimes),
        "delegates": list(delegates),
    }


def phone(chip: str, **changes: Any) -> dict[str, Any]:
    """Return a phone of a chip of the table."""
    return device(chip=chip, htp_arch=TABLE.get(chip), **changes)


def iphone(os_version: str | None, runtimes: Mapping[str, str] = IOS, **more: Any) -> Any:
    """Return an iPhone."""
    return device("ios", os_version, runtimes=runtimes, **more)


SM8650, SM8550 = phone("sm8650"), phone("sm8550")
CPU_PHONE = device(runtimes={**ONNX, **EXECUTORCH})
