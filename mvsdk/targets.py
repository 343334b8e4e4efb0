"""The targets and the formats of their files, in one table: what opens them, what comes first.

Light: whatever reads, chooses or opens a variant goes by these rows. docs/bundle_format.md, rules
G2 and G3, and section 11.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Target = str
"""A name of `TARGETS`."""
Format = Literal["onnx", "qnn_context", "coreml", "coreai", "executorch"]
Delegate = Literal["xnnpack", "coreml", "qnn"]
Precision = Literal["fp32", "fp16", "w8a16", "w8a8", "w8", "w6", "w4"]
RuntimeName = Literal["qairt", "onnxruntime", "executorch", "coreai"]

DELEGATES: tuple[Delegate, ...] = get_args(Delegate)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
RUNTIME_NAMES: tuple[RuntimeName, ...] = get_args(RuntimeName)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTraits:
    """One row of `TARGETS`."""

    formats: tuple[Format, ...]
    """What its files may be."""
    precisions: tuple[Precision, ...]
    """Order where one place is as good as another: on an NPU w8a16 is what the bundle is for."""
    phone_rank: int
    """Which a phone prefers, of several that it can run (C4): the lowest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatTraits:
    """One row of `FORMATS`."""

    runtimes: tuple[RuntimeName, ...]
    """What an app ships to open it (C2)."""
    backend: str
    """Name of the backend that opens it here."""
    is_package: bool = False
    """Whether a model is a folder."""
    platform: str | None = None
    """The only one that has a runtime for it; None for any."""
    substitute: str | None = None
    """What evaluates it on a computer in place of the hardware that it is for."""


TARGETS: Mapping[Target, TargetTraits] = {
    "onnx": TargetTraits(formats=("onnx",), precisions=("fp32", "fp16", "w8a16"), phone_rank=3),
    "snapdragon": TargetTraits(
        formats=("qnn_context",), precisions=("w8a16", "fp16", "fp32"), phone_rank=0
    ),
    "iphone": TargetTraits(
        formats=("coreml", "coreai"), precisions=("fp16", "w8", "w6", "w4", "fp32"), phone_rank=1
    ),
    "executorch": TargetTraits(
        formats=("executorch",), precisions=("w8a8", "fp32", "fp16", "w8a16"), phone_rank=2
    ),
}
FORMATS: Mapping[Format, FormatTraits] = {
    "onnx": FormatTraits(runtimes=("onnxruntime",), backend="onnxruntime"),
    "qnn_context": FormatTraits(
        runtimes=("onnxruntime", "qairt"), backend="qnn", substitute="Qualcomm's emulator"
    ),
    "coreml": FormatTraits(
        runtimes=(),
        backend="coreml",
        is_package=True,
        platform="ios",
        substitute="a checker of Core ML packages",
    ),
    "coreai": FormatTraits(
        runtimes=("coreai",),
        backend="coreai",
        is_package=True,
        platform="ios",
        substitute="Core AI away from Apple's systems",
    ),
    "executorch": FormatTraits(runtimes=("executorch",), backend="executorch"),
}
