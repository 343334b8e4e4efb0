"""Cases of several sets that run: which comes first (C4)."""

from __future__ import annotations

from choosing_cases.cases import Case, runs
from choosing_cases.devices import CPU_PHONE, EXECUTORCH, ONNX, QAIRT, SM8650, device, iphone, phone


def order_cases() -> list[Case]:
    """Return cases of several sets that run."""
    return [
        runs("equal ones in the order of sets", "precisions", SM8650, "fp16"),
        runs(
            "equal ones, others first",
            "precisions",
            SM8650,
            "w8a16",
            edits=[{"at": ["sets", 0], "delete": True}],
        ),
        runs("a decoder on the NPU makes no NPU set", "mixed", SM8650, "cpu-decoder"),
        runs(
            "a set needs all of its runtimes",
            "mixed",
            phone("sm8650", runtimes={**QAIRT, **EXECUTORCH}),
            "cpu",
            edits=[{"at": ["sets", 3, "variants", "vae"], "set": "xnnpack"}],
        ),
        runs(
            "XNNPACK before a CPU denoiser with an NPU decoder",
            "mixed",
            SM8650,
            "cpu",
            edits=[{"at": ["sets", 0], "delete": True}],
        ),
        runs("iPhone with a decoder of ExecuTorch", "mixed", iphone("18.1"), "apple"),
        runs(
            "iPhone without ExecuTorch",
            "mixed",
            iphone("18.1", ONNX),
            "whole",
            edits=[
                {
                    "at": ["sets", 3],
                    "set": {"id": "whole", "variants": {"unet": "onnx", "vae": "onnx"}},
                }
            ],
        ),
        runs(
            "a decoder for another chip makes a set unverified",
            "mixed",
            phone("sm8750"),
            "cpu-denoiser",
            target="onnx",
            verified=False,
        ),
        runs("the best of two denoisers counts", "stages", SM8650, "second-npu"),
        runs("the best of two denoisers counts, on the CPU", "stages", CPU_PHONE, "first-xnnpack"),
        runs(
            "Linux: the chip before the order of sets",
            "stages",
            device("linux", None, "sm8650", 75),
            "second-npu",
        ),
        runs(
            "an unverified NPU before XNNPACK",
            "all",
            device(chip="sm8845", htp_arch=81),
            "sm8850",
            verified=False,
        ),
    ]
