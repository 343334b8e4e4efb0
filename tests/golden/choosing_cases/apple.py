"""Cases of iPhones: systems, Core ML and Core AI, and what is theirs alone (C2)."""

from __future__ import annotations

from choosing_cases.bundles import PHONES
from choosing_cases.cases import Case, refused, runs, same_reasons
from choosing_cases.chips import NPUS
from choosing_cases.devices import EXECUTORCH, IOS, ONNX, SM8650, device, iphone


def apple_cases() -> list[Case]:
    """Return cases of iPhones."""
    no_npu = same_reasons(NPUS, "format", "version", "chip")
    no_npu["et-qnn"] = ["format", "delegate", "version", "chip"]
    return [
        runs("iOS 27", "all", iphone("27.0"), "coreai"),
        runs("iOS 27.0.1, as the system says it", "all", iphone("27.0.1"), "coreai"),
        runs("iOS 27 without Core AI", "all", iphone("27", {**ONNX, **EXECUTORCH}), "coreml-w8"),
        runs("Core AI too old", "all", iphone("27", {**IOS, "coreai": "0.9"}), "coreml-w8"),
        runs("iOS 26", "all", iphone("26.4"), "coreml-w8"),
        runs("iOS 18 exactly", "all", iphone("18"), "coreml-w8"),
        runs("iOS 17.9 is not 18", "all", iphone("17.9"), "coreml-fp16"),
        runs("numbers, not letters: iOS 9", "all", iphone("9.3"), "xnnpack"),
        runs("iOS 100", "all", iphone("100"), "coreai"),
        runs("system not known", "all", iphone(None), "xnnpack"),
        runs("nothing shipped: Core ML is the system's", "all", iphone("18.2", {}), "coreml-w8"),
        runs("iOS 16 with onnxruntime alone", "all", iphone("16.7", ONNX), "onnx"),
        runs(
            "a lower system first in sets, the higher wins",
            "all",
            iphone("18.2"),
            "coreml-fp16",
            precision="fp16",
            format="coreml",
        ),
        runs(
            "the delegate of Core ML",
            "all",
            iphone("18.2", delegates=("xnnpack", "coreml")),
            "et-coreml",
            target="executorch",
        ),
        runs(
            "the delegate is not in the app", "all", iphone("18.2"), "xnnpack", target="executorch"
        ),
        runs(
            "the delegate wants a newer system",
            "all",
            iphone("17.5", delegates=("xnnpack", "coreml")),
            "xnnpack",
            target="executorch",
        ),
        runs(
            "a delegate without a system",
            "all",
            iphone("15", delegates=("coreml",)),
            "et-coreml",
            target="executorch",
            edits=[
                {"at": ["components", name, "variants", 9, "deployment_target"], "set": None}
                for name in ("unet", "vae")
            ],
        ),
        refused(
            "iOS 16 with nothing shipped",
            "all",
            iphone("16.7", {}),
            {
                **no_npu,
                "onnx": ["format"],
                "xnnpack": ["format", "version"],
                "et-coreml": ["format", "delegate", "system"],
                **same_reasons(("coreml-fp16", "coreml-w8"), "system"),
                "coreai": ["format", "version", "system"],
            },
        ),
        refused(
            "no chip of Apple's is a Snapdragon",
            "phones",
            iphone("27"),
            same_reasons(PHONES, "format", "version", "chip"),
        ),
        refused(
            "Core ML on Android",
            "all",
            SM8650,
            {
                "coreml-fp16": ["format", "system"],
                "coreml-w8": ["format", "system"],
                "coreai": ["format", "system", "version"],
            },
            target="iphone",
        ),
        runs("an Android's version says nothing of iOS", "all", device(os_version="30"), "xnnpack"),
        refused(
            "the delegate of Core ML on Android",
            "all",
            device(delegates=("coreml",), os_version="18"),
            {"et-coreml": ["delegate"]},
            format="coreml",
            target="executorch",
        ),
    ]
