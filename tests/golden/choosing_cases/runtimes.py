"""Cases of what an app ships: runtimes, their versions, delegates (C2, G9)."""

from __future__ import annotations

from typing import Any

from choosing_cases.bundles import PHONES
from choosing_cases.cases import Case, refused, requires, runs, same_reasons
from choosing_cases.devices import ANDROID, EXECUTORCH, ONNX, QAIRT, SM8650, device, phone

ONLY_QNN = {**ONNX, **QAIRT}


def version_cases() -> list[Case]:
    """Return cases of versions of runtimes."""

    def qairt(version: str) -> dict[str, Any]:
        return phone("sm8650", runtimes={**ANDROID, "qairt": version})

    older = {"sm8550": ["version"], "sm8650": ["version"], "sm8750": ["version", "chip"]}
    return [
        *(
            runs(f"qairt {version} is new enough", "phones", qairt(version), "sm8650")
            for version in (
                "2.51",
                "2.51.0.0",
                "2.51.1",
                "2.100",
                "3",
                "v2.51",
                "2.51.0.260101093845_12",
                "2.51-rc1",
                "2.51 (build 3)",
                "02.051",
            )
        ),
        *(
            refused(
                f"qairt {version or 'of no version'} is too old", "phones", qairt(version), older
            )
            for version in (
                "2.50",
                "2.50.99",
                "2.6",
                "2",
                "1.99.9",
                "",
                "unknown",
                "2.251093845000",
            )
        ),
        runs("too old, so on the CPU", "all", qairt("2.50"), "xnnpack"),
        runs("an older set runs", "precisions", qairt("2.45"), "old"),
        runs(
            "executorch too old, so onnx",
            "all",
            device(runtimes={**ANDROID, "executorch": "1.4.9"}),
            "onnx",
        ),
        runs(
            "of four numbers, the last decides",
            "phones",
            qairt("2.51.0.9"),
            "sm8650",
            edits=requires("phones", 1, {"qairt": "2.51.0.9"}),
        ),
        refused(
            "of four numbers, the last is too old",
            "phones",
            qairt("2.51.0.8"),
            {**same_reasons(PHONES, "version"), "sm8750": ["version", "chip"]},
            edits=[e for n in range(3) for e in requires("phones", n, {"qairt": "2.51.0.9"})],
        ),
        runs(
            "nothing is required, as of version 2",
            "phones",
            qairt("0.1"),
            "sm8650",
            edits=requires("phones", 1, {}),
        ),
        runs(
            "a version of 0 is one",
            "phones",
            qairt("0"),
            "sm8650",
            edits=requires("phones", 1, {"qairt": "0.0"}),
        ),
        refused(
            "two are required, one is too old",
            "phones",
            SM8650,
            {"sm8650": ["version"]},
            edits=requires("phones", 1, {"qairt": "2.51", "onnxruntime": "1.32"}),
            chip="sm8650",
        ),
        refused(
            "what is required is not there",
            "phones",
            phone("sm8650", runtimes=ONLY_QNN),
            {"sm8650": ["version"]},
            edits=requires("phones", 1, {"qairt": "2.51", "executorch": "1"}),
            chip="sm8650",
        ),
        refused(
            "one component is too old",
            "phones",
            SM8650,
            {"sm8650": ["version"]},
            edits=requires("phones", 1, {"qairt": "2.52"})[1:],
            chip="sm8650",
        ),
    ]


def runtime_cases() -> list[Case]:
    """Return cases of runtimes and delegates that an app has or not."""
    return [
        runs("no qairt", "all", phone("sm8650", runtimes={**ONNX, **EXECUTORCH}), "xnnpack"),
        runs("no onnxruntime", "all", phone("sm8650", runtimes={**QAIRT, **EXECUTORCH}), "xnnpack"),
        runs("onnxruntime alone", "all", phone("sm8650", runtimes=ONNX), "onnx"),
        runs("NPU before XNNPACK before ONNX", "all", SM8650, "sm8650"),
        runs(
            "the delegate of QNN, own chip",
            "all",
            phone("sm8650", delegates=("xnnpack", "qnn")),
            "et-qnn",
            target="executorch",
        ),
        runs(
            "the delegate of QNN, newer chip",
            "all",
            phone("sm8750", delegates=("xnnpack", "qnn")),
            "et-qnn",
            target="executorch",
            verified=False,
        ),
        runs(
            "the delegate of QNN, older chip",
            "all",
            phone("sm8550", delegates=("xnnpack", "qnn")),
            "xnnpack",
            target="executorch",
        ),
        runs(
            "the delegate of QNN without onnxruntime",
            "all",
            phone("sm8650", runtimes={**QAIRT, **EXECUTORCH}, delegates=("qnn",)),
            "et-qnn",
        ),
        refused(
            "the delegate of QNN without qairt",
            "all",
            phone("sm8650", runtimes=EXECUTORCH, delegates=("qnn",)),
            {"et-qnn": ["delegate", "version"]},
            format="qnn",
        ),
        refused(
            "the delegate of QNN is not in the app",
            "all",
            SM8650,
            {"et-qnn": ["delegate"]},
            format="qnn",
        ),
        refused(
            "nothing shipped",
            "phones",
            phone("sm8650", runtimes={}),
            {**same_reasons(PHONES, "format", "version"), "sm8750": ["format", "version", "chip"]},
        ),
        runs(
            "Linux has no order of targets",
            "all",
            device("linux", None, runtimes={**ONNX, **EXECUTORCH}),
            "onnx",
        ),
        runs("Linux of the chip", "all", device("linux", None, "sm8650", 75), "sm8650"),
    ]
