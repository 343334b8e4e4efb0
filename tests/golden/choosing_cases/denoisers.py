"""Cases of several denoisers in one set: the best of those that the program runs counts (C4)."""

from __future__ import annotations

from choosing_cases.bundles import BASES
from choosing_cases.cases import Case, refused, runs
from choosing_cases.devices import CPU_PHONE, ONNX, SM8550, SM8650, device, iphone, phone

WITHOUT_NPU = [{"at": ["sets", 0], "delete": True}] * 3
"""Edits of the base `refined`: no set has a denoiser on the NPU."""

PLAIN = {"id": "plain", "variants": {"unet": "onnx", "vae": "onnx"}}
"""A set of what the program `draft` runs."""


def denoiser_cases() -> list[Case]:
    """Return cases of the base `refined`."""
    return [
        runs("of two denoisers, the second on the NPU", "refined", SM8550, "second-older"),
        runs(
            "of two sets with one on the NPU, the device's own chip",
            "refined",
            SM8650,
            "first-newer",
        ),
        runs(
            "one on the NPU is as good as both",
            "refined",
            SM8650,
            "both-newer",
            edits=[{"at": ["sets", 1], "delete": True}],
        ),
        runs(
            "of two sets with one on the NPU, the higher HTP",
            "refined",
            phone("sm8750"),
            "first-newer",
            verified=False,
        ),
        runs(
            "one on the NPU, and no runtime for the other",
            "refined",
            phone("sm8650", runtimes={**ONNX, "qairt": "2.51"}),
            "both-newer",
        ),
        runs("none on the NPU, the second by XNNPACK", "refined", CPU_PHONE, "second-xnnpack"),
        runs(
            "none on the NPU, the device's own chip for the decoder",
            "refined",
            SM8650,
            "decoder-newer",
            edits=WITHOUT_NPU,
        ),
        runs(
            "none on the NPU, a newer chip, the decoder's HTP",
            "refined",
            phone("sm8750"),
            "decoder-newer",
            verified=False,
            edits=WITHOUT_NPU,
        ),
        runs(
            "none on the NPU, an older chip",
            "refined",
            SM8550,
            "second-xnnpack",
            edits=WITHOUT_NPU,
        ),
        runs(
            "by Core ML, the set for the higher system",
            "refined",
            iphone("18.0"),
            "first-core-ml",
        ),
        runs(
            "of two denoisers, the second by Core ML", "refined", iphone("17.4"), "second-core-ml"
        ),
        runs("neither by Core ML", "refined", iphone("16.0"), "second-xnnpack"),
        runs("both by ONNX", "refined", device(runtimes=ONNX), "neither"),
        runs(
            "a denoiser that the program does not run is not asked",
            "refined",
            SM8650,
            "decoder-newer",
            program="draft",
            target="executorch",
        ),
        runs(
            "a denoiser that the program does not run makes no set better",
            "refined",
            SM8550,
            "plain",
            program="draft",
            edits=[
                {"at": ["sets", 1], "set": BASES["refined"]["sets"][0]},
                {"at": ["sets", 0], "set": PLAIN},
            ],
        ),
        runs(
            "one denoiser fits all that is asked for",
            "refined",
            iphone("18.0"),
            "first-core-ml",
            target="iphone",
            precision="w8",
        ),
        refused(
            "each denoiser fits a part of what is asked for",
            "refined",
            iphone("18.0"),
            target="onnx",
            precision="w8",
        ),
    ]


def crossed_cases() -> list[Case]:
    """Return cases of the base `crossed`, whose ids stand for another variant in each component."""
    return [
        runs("an id is of its component: the denoiser on the NPU", "crossed", SM8650, "b"),
        runs("an id is of its component: on the CPU", "crossed", device(runtimes=ONNX), "a"),
        runs("an id of a set is no variant's", "crossed", SM8650, "a", set="a"),
        runs(
            "an id of a set is no variant's, unverified",
            "crossed",
            phone("sm8750"),
            "c",
            set="c",
            verified=False,
        ),
        runs("by target, of the denoiser's id alone", "crossed", SM8650, "c", target="onnx"),
        refused("no set has the id of a variant", "crossed", SM8650, set="onnx"),
        refused(
            "an id is of its component: each is in want of something",
            "crossed",
            device(runtimes={"executorch": "1.5"}),
            {
                "a": ["format"],
                "b": ["format", "version", "chip"],
                "c": ["format", "version", "chip"],
                "d": ["format", "version", "chip"],
            },
        ),
    ]
