"""Cases of what a caller asks for (C1)."""

from __future__ import annotations

from choosing_cases.cases import Case, refused, runs, same_reasons
from choosing_cases.chips import NPUS
from choosing_cases.devices import CPU_PHONE, EXECUTORCH, ONNX, SM8650, device


def filter_cases() -> list[Case]:
    """Return cases of what a caller asks for."""
    cpu = {**ONNX, **EXECUTORCH}
    return [
        runs("by set", "all", SM8650, "sm8550", set="sm8550", verified=False),
        runs("by target", "all", SM8650, "onnx", target="onnx"),
        runs("by format", "all", SM8650, "sm8650", format="qnn_context"),
        runs("by delegate", "all", SM8650, "xnnpack", format="xnnpack"),
        runs("by precision", "all", SM8650, "xnnpack", precision="w8a8"),
        runs("by chip", "all", SM8650, "sm8550", chip="sm8550", verified=False),
        runs(
            "by all",
            "all",
            SM8650,
            "sm8650",
            set="sm8650",
            target="snapdragon",
            format="qnn_context",
            precision="w8a16",
            chip="sm8650",
        ),
        refused("no such set", "all", SM8650, set="sm9999"),
        refused("no such target", "all", SM8650, target="windows"),
        refused("no such format", "all", SM8650, format="tflite"),
        refused("no such precision", "all", SM8650, precision="w4"),
        refused("no such chip", "all", SM8650, chip="sm8450"),
        refused("a slug in capitals is another", "all", SM8650, chip="SM8650"),
        refused("each is there, both are not", "all", SM8650, target="onnx", precision="w8a16"),
        refused("another set fits the rest", "all", SM8650, set="onnx", target="snapdragon"),
        refused(
            "asked for what does not run",
            "all",
            CPU_PHONE,
            same_reasons(NPUS, "format", "version", "chip"),
            target="snapdragon",
        ),
        refused("asked for a newer chip", "all", SM8650, {"sm8850": ["chip"]}, chip="sm8850"),
        runs(
            "the filter is of the denoiser, not of the decoder",
            "mixed",
            SM8650,
            "cpu-denoiser",
            target="onnx",
        ),
        runs(
            "the filter is of the denoiser, NPU",
            "mixed",
            SM8650,
            "cpu-decoder",
            target="snapdragon",
        ),
        runs(
            "without a denoiser, of what runs first",
            "encoders",
            SM8650,
            "early",
            target="snapdragon",
        ),
        refused(
            "without a denoiser, what runs last does not count", "encoders", SM8650, precision="w4"
        ),
        runs("one of two denoisers fits", "stages", SM8650, "second-npu", target="snapdragon"),
        runs(
            "one of two denoisers fits, the order stays",
            "stages",
            device(runtimes=cpu),
            "first-xnnpack",
            target="onnx",
        ),
    ]
