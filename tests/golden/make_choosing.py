"""Which set a device runs (docs/bundle_format.md, C1 to C5), stated by hand: nothing is computed.

`bases` are manifests. A case is edits of one, a device, and what the caller asks for; it has the
`set` that is chosen and whether that is `verified`, or `rule`, `refused` (`filter` if nothing is
what was asked for, `device` if nothing of that runs) and `reasons`: for each set that was asked for
the kinds of reasons that hold, of which a refusal names one. `socs` are what systems call chips,
with slug and HTP architecture; `chips` is the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiny_manifests import ROLES, Kind, manifest

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


def _device(
    platform: str = "android",
    os_version: str | None = "16",
    chip: str | None = None,
    htp_arch: int | None = None,
    runtimes: Mapping[str, str] = ANDROID,
    delegates: Sequence[str] = ("xnnpack",),
) -> dict[str, Any]:
    return {
        "platform": platform,
        "os_version": os_version,
        "chip": chip,
        "htp_arch": htp_arch,
        "runtimes": dict(runtimes),
        "delegates": list(delegates),
    }


def _phone(chip: str, **changes: Any) -> dict[str, Any]:
    return _device(chip=chip, htp_arch=TABLE.get(chip), **changes)


def _iphone(os_version: str | None, runtimes: Mapping[str, str] = IOS, **more: Any) -> Any:
    return _device("ios", os_version, runtimes=runtimes, **more)


# --- manifests -----------------------------------------------------------------------------------

ONNX_FP32: Kind = {"target": "onnx", "format": "onnx", "precision": "fp32"}
XNNPACK: Kind = {
    "target": "executorch",
    "format": "executorch",
    "delegate": "xnnpack",
    "precision": "w8a8",
    "requires": {"executorch": "1.5"},
}
ET_COREML: Kind = {
    "target": "executorch",
    "format": "executorch",
    "delegate": "coreml",
    "deployment_target": "iOS18",
    "precision": "fp16",
}
COREML_FP16: Kind = {
    "target": "iphone",
    "format": "coreml",
    "deployment_target": "iOS17",
    "precision": "fp16",
}
COREML_W8: Kind = {**COREML_FP16, "deployment_target": "iOS18", "precision": "w8"}
COREAI_FP16: Kind = {
    **COREML_FP16,
    "format": "coreai",
    "deployment_target": "iOS27",
    "requires": {"coreai": "1.0"},
}


def _npu(slug: str, **more: Any) -> Kind:
    arch, soc_model = CHIPS[slug]
    return {
        "target": "snapdragon",
        "format": "qnn_context",
        "precision": "w8a16",
        "chip": {"slug": slug, "htp_arch": arch, "soc_model": soc_model},
        "requires": {"qairt": "2.51"},
        **more,
    }


def _et_qnn(slug: str) -> Kind:
    return {**_npu(slug), "target": "executorch", "format": "executorch", "delegate": "qnn"}


ALL: dict[str, Kind] = {
    "onnx": ONNX_FP32,
    **{slug: _npu(slug) for slug in CHIPS},
    "coreml-fp16": COREML_FP16,
    "coreml-w8": COREML_W8,
    "coreai": COREAI_FP16,
    "xnnpack": XNNPACK,
    "et-coreml": ET_COREML,
    "et-qnn": _et_qnn("sm8650"),
}
PROGRAM = {"default": ("unet", "vae")}


def _same(kinds: Mapping[str, Kind]) -> dict[str, dict[str, str]]:
    """Return sets that name the same id in both components."""
    return {key: {"unet": key, "vae": key} for key in kinds}


def _whole(kinds: Mapping[str, Kind], packs: Sequence[str] = ()) -> dict[str, Any]:
    return manifest({"unet": kinds, "vae": kinds}, _same(kinds), PROGRAM, packs)


PHONES = {slug: _npu(slug) for slug in ("sm8550", "sm8650", "sm8750")}
TWO_PRECISIONS = {
    "fp16": _npu("sm8650", precision="fp16"),
    "w8a16": _npu("sm8650"),
    "old": _npu("sm8650", precision="w8a8", requires={"qairt": "2.40"}),
}
PACKED = {
    "onnx": ONNX_FP32,
    **{slug: _npu(slug, pack=slug) for slug in ("sm8550", "sm8650")},
    "xnnpack": {**XNNPACK, "pack": "cpu"},
}
MIXED = {"onnx": ONNX_FP32, "sm8650": _npu("sm8650"), "coreml-w8": COREML_W8, "xnnpack": XNNPACK}
BASES: dict[str, dict[str, Any]] = {
    "all": _whole(ALL),
    "phones": _whole(PHONES),
    "precisions": _whole(TWO_PRECISIONS),
    "packs": _whole(PACKED, ("cpu", "sm8550", "sm8650")),
    # sets whose decoder runs elsewhere
    "mixed": manifest(
        {"unet": MIXED, "vae": MIXED},
        {
            "cpu-decoder": {"unet": "sm8650", "vae": "onnx"},
            "cpu-denoiser": {"unet": "onnx", "vae": "sm8650"},
            "apple": {"unet": "coreml-w8", "vae": "xnnpack"},
            "cpu": {"unet": "xnnpack", "vae": "onnx"},
        },
        PROGRAM,
    ),
    # two denoisers, of which one is on the NPU; a program that runs one of them
    "stages": manifest(
        {"unet": MIXED, "second": MIXED, "vae": {"onnx": ONNX_FP32}},
        {
            "both-cpu": {"unet": "onnx", "second": "onnx", "vae": "onnx"},
            "second-npu": {"unet": "onnx", "second": "sm8650", "vae": "onnx"},
            "first-xnnpack": {"unet": "xnnpack", "second": "onnx", "vae": "onnx"},
            "short": {"unet": "xnnpack", "vae": "onnx"},
        },
        {"default": ("unet", "second", "vae"), "draft": ("unet", "vae")},
    ),
    # no denoiser: what the program runs first stands for it
    "encoders": manifest(
        {"unet": MIXED, "vae": MIXED},
        {
            "late": {"unet": "onnx", "vae": "sm8650"},
            "early": {"unet": "sm8650", "vae": "onnx"},
            "xnnpack": {"unet": "xnnpack", "vae": "xnnpack"},
        },
        PROGRAM,
        roles={**ROLES, "unet": "upscaler"},
    ),
}


# --- cases ---------------------------------------------------------------------------------------

Case = dict[str, Any]
APPLE = ("coreml-fp16", "coreml-w8", "coreai")
NPUS = tuple(CHIPS)
SM8650, SM8550 = _phone("sm8650"), _phone("sm8550")
CPU_PHONE = _device(runtimes={**ONNX, **EXECUTORCH})
ONLY_QNN = {**ONNX, **QAIRT}


def _runs(
    name: str,
    base: str,
    device: dict[str, Any],
    chosen: str,
    *,
    verified: bool = True,
    edits: Sequence[dict[str, Any]] = (),
    **options: Any,
) -> Case:
    return {
        "name": name,
        "base": base,
        "edits": list(edits),
        "device": device,
        "options": options,
        "set": chosen,
        "verified": verified,
    }


def _refused(
    name: str,
    base: str,
    device: dict[str, Any],
    reasons: Mapping[str, Sequence[str]] | None = None,
    *,
    edits: Sequence[dict[str, Any]] = (),
    **options: Any,
) -> Case:
    """Return a refusal; no reasons mean that nothing is what was asked for."""
    return {
        "name": name,
        "base": base,
        "edits": list(edits),
        "device": device,
        "options": options,
        "rule": "C5",
        "refused": "filter" if reasons is None else "device",
        "reasons": {key: list(kinds) for key, kinds in (reasons or {}).items()},
    }


def _requires(base: str, number: int, versions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return edits: what both variants of a place require."""
    components = BASES[base]["components"]
    return [
        {"at": ["components", name, "variants", number, "requires"], "set": dict(versions)}
        for name in components
    ]


def _with(names: Sequence[str], *kinds: str) -> dict[str, list[str]]:
    return {name: list(kinds) for name in names}


def _chip_cases() -> list[Case]:
    return [
        *(_runs(f"own chip, {slug}", "all", _phone(slug), slug) for slug in NPUS),
        _runs(
            "a newer chip takes the newest", "phones", _phone("sm8850"), "sm8750", verified=False
        ),
        _runs("a chip between", "all", _phone("sm8475", runtimes=ONNX), "onnx"),
        _runs("below all, on the CPU", "all", _phone("sm8450"), "xnnpack"),
        _runs("same HTP, other chip", "all", _phone("sm8845"), "sm8850", verified=False),
        _runs(
            "speed grade is another chip with its HTP",
            "all",
            _device(chip="sm8750p", htp_arch=79),
            "sm8750",
            verified=False,
        ),
        _runs("HTP not known, on the CPU", "all", _device(chip="sm7675"), "xnnpack"),
        _runs("own chip, HTP not known", "all", _device(chip="sm8650"), "sm8650"),
        _runs("HTP known, chip not", "all", _device(htp_arch=77), "sm8650", verified=False),
        _runs(
            "slugs are compared as they are",
            "phones",
            _device(chip="SM8650", htp_arch=75),
            "sm8650",
            verified=False,
        ),
        _runs("no Snapdragon", "all", _device(chip="tensor"), "xnnpack"),
        _runs("no chip", "all", _device(), "xnnpack"),
        _refused("below all, nothing else", "phones", _phone("sm8450"), _with(PHONES, "chip")),
        _refused(
            "HTP not known, nothing else", "phones", _device(chip="sm7675"), _with(PHONES, "chip")
        ),
        _refused("no chip, nothing else", "phones", _device(), _with(PHONES, "chip")),
        _runs(
            "own chip before a newer one that runs too",
            "phones",
            _phone(
                "sm8550",
            ),
            "sm8550",
        ),
        _runs(
            "an older own chip before a newer HTP",
            "phones",
            _device(chip="sm8550", htp_arch=79),
            "sm8550",
        ),
    ]


def _version_cases() -> list[Case]:
    def qairt(version: str) -> dict[str, Any]:
        return _phone("sm8650", runtimes={**ANDROID, "qairt": version})

    older = {"sm8550": ["version"], "sm8650": ["version"], "sm8750": ["version", "chip"]}
    return [
        *(
            _runs(f"qairt {version} is new enough", "phones", qairt(version), "sm8650")
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
            _refused(
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
        _runs("too old, so on the CPU", "all", qairt("2.50"), "xnnpack"),
        _runs("an older set runs", "precisions", qairt("2.45"), "old"),
        _runs(
            "executorch too old, so onnx",
            "all",
            _device(runtimes={**ANDROID, "executorch": "1.4.9"}),
            "onnx",
        ),
        _runs(
            "of four numbers, the last decides",
            "phones",
            qairt("2.51.0.9"),
            "sm8650",
            edits=_requires("phones", 1, {"qairt": "2.51.0.9"}),
        ),
        _refused(
            "of four numbers, the last is too old",
            "phones",
            qairt("2.51.0.8"),
            {**_with(PHONES, "version"), "sm8750": ["version", "chip"]},
            edits=[e for n in range(3) for e in _requires("phones", n, {"qairt": "2.51.0.9"})],
        ),
        _runs(
            "nothing is required, as of version 2",
            "phones",
            qairt("0.1"),
            "sm8650",
            edits=_requires("phones", 1, {}),
        ),
        _runs(
            "a version of 0 is one",
            "phones",
            qairt("0"),
            "sm8650",
            edits=_requires("phones", 1, {"qairt": "0.0"}),
        ),
        _refused(
            "two are required, one is too old",
            "phones",
            SM8650,
            {"sm8650": ["version"]},
            edits=_requires("phones", 1, {"qairt": "2.51", "onnxruntime": "1.32"}),
            chip="sm8650",
        ),
        _refused(
            "what is required is not there",
            "phones",
            _phone("sm8650", runtimes=ONLY_QNN),
            {"sm8650": ["version"]},
            edits=_requires("phones", 1, {"qairt": "2.51", "executorch": "1"}),
            chip="sm8650",
        ),
        _refused(
            "one component is too old",
            "phones",
            SM8650,
            {"sm8650": ["version"]},
            edits=_requires("phones", 1, {"qairt": "2.52"})[1:],
            chip="sm8650",
        ),
    ]


def _apple_cases() -> list[Case]:
    no_npu = _with(NPUS, "format", "version", "chip")
    no_npu["et-qnn"] = ["format", "delegate", "version", "chip"]
    return [
        _runs("iOS 27", "all", _iphone("27.0"), "coreai"),
        _runs("iOS 27.0.1, as the system says it", "all", _iphone("27.0.1"), "coreai"),
        _runs("iOS 27 without Core AI", "all", _iphone("27", {**ONNX, **EXECUTORCH}), "coreml-w8"),
        _runs("Core AI too old", "all", _iphone("27", {**IOS, "coreai": "0.9"}), "coreml-w8"),
        _runs("iOS 26", "all", _iphone("26.4"), "coreml-w8"),
        _runs("iOS 18 exactly", "all", _iphone("18"), "coreml-w8"),
        _runs("iOS 17.9 is not 18", "all", _iphone("17.9"), "coreml-fp16"),
        _runs("numbers, not letters: iOS 9", "all", _iphone("9.3"), "xnnpack"),
        _runs("iOS 100", "all", _iphone("100"), "coreai"),
        _runs("system not known", "all", _iphone(None), "xnnpack"),
        _runs("nothing shipped: Core ML is the system's", "all", _iphone("18.2", {}), "coreml-w8"),
        _runs("iOS 16 with onnxruntime alone", "all", _iphone("16.7", ONNX), "onnx"),
        _runs(
            "a lower system first in sets, the higher wins",
            "all",
            _iphone("18.2"),
            "coreml-fp16",
            precision="fp16",
            format="coreml",
        ),
        _runs(
            "the delegate of Core ML",
            "all",
            _iphone("18.2", delegates=("xnnpack", "coreml")),
            "et-coreml",
            target="executorch",
        ),
        _runs(
            "the delegate is not in the app", "all", _iphone("18.2"), "xnnpack", target="executorch"
        ),
        _runs(
            "the delegate wants a newer system",
            "all",
            _iphone("17.5", delegates=("xnnpack", "coreml")),
            "xnnpack",
            target="executorch",
        ),
        _runs(
            "a delegate without a system",
            "all",
            _iphone("15", delegates=("coreml",)),
            "et-coreml",
            target="executorch",
            edits=[
                {"at": ["components", name, "variants", 9, "deployment_target"], "set": None}
                for name in ("unet", "vae")
            ],
        ),
        _refused(
            "iOS 16 with nothing shipped",
            "all",
            _iphone("16.7", {}),
            {
                **no_npu,
                "onnx": ["format"],
                "xnnpack": ["format", "version"],
                "et-coreml": ["format", "delegate", "system"],
                **_with(("coreml-fp16", "coreml-w8"), "system"),
                "coreai": ["format", "version", "system"],
            },
        ),
        _refused(
            "no chip of Apple's is a Snapdragon",
            "phones",
            _iphone("27"),
            _with(PHONES, "format", "version", "chip"),
        ),
        _refused(
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
        _runs(
            "an Android's version says nothing of iOS", "all", _device(os_version="30"), "xnnpack"
        ),
        _refused(
            "the delegate of Core ML on Android",
            "all",
            _device(delegates=("coreml",), os_version="18"),
            {"et-coreml": ["delegate"]},
            format="coreml",
            target="executorch",
        ),
    ]


def _runtime_cases() -> list[Case]:
    return [
        _runs("no qairt", "all", _phone("sm8650", runtimes={**ONNX, **EXECUTORCH}), "xnnpack"),
        _runs(
            "no onnxruntime", "all", _phone("sm8650", runtimes={**QAIRT, **EXECUTORCH}), "xnnpack"
        ),
        _runs("onnxruntime alone", "all", _phone("sm8650", runtimes=ONNX), "onnx"),
        _runs("NPU before XNNPACK before ONNX", "all", SM8650, "sm8650"),
        _runs(
            "the delegate of QNN, own chip",
            "all",
            _phone("sm8650", delegates=("xnnpack", "qnn")),
            "et-qnn",
            target="executorch",
        ),
        _runs(
            "the delegate of QNN, newer chip",
            "all",
            _phone("sm8750", delegates=("xnnpack", "qnn")),
            "et-qnn",
            target="executorch",
            verified=False,
        ),
        _runs(
            "the delegate of QNN, older chip",
            "all",
            _phone("sm8550", delegates=("xnnpack", "qnn")),
            "xnnpack",
            target="executorch",
        ),
        _runs(
            "the delegate of QNN without onnxruntime",
            "all",
            _phone("sm8650", runtimes={**QAIRT, **EXECUTORCH}, delegates=("qnn",)),
            "et-qnn",
        ),
        _refused(
            "the delegate of QNN without qairt",
            "all",
            _phone("sm8650", runtimes=EXECUTORCH, delegates=("qnn",)),
            {"et-qnn": ["delegate", "version"]},
            format="qnn",
        ),
        _refused(
            "the delegate of QNN is not in the app",
            "all",
            SM8650,
            {"et-qnn": ["delegate"]},
            format="qnn",
        ),
        _refused(
            "nothing shipped",
            "phones",
            _phone("sm8650", runtimes={}),
            {**_with(PHONES, "format", "version"), "sm8750": ["format", "version", "chip"]},
        ),
        _runs(
            "Linux has no order of targets",
            "all",
            _device("linux", None, runtimes={**ONNX, **EXECUTORCH}),
            "onnx",
        ),
        _runs("Linux of the chip", "all", _device("linux", None, "sm8650", 75), "sm8650"),
    ]


def _filter_cases() -> list[Case]:
    cpu = {**ONNX, **EXECUTORCH}
    return [
        _runs("by set", "all", SM8650, "sm8550", set="sm8550", verified=False),
        _runs("by target", "all", SM8650, "onnx", target="onnx"),
        _runs("by format", "all", SM8650, "sm8650", format="qnn_context"),
        _runs("by delegate", "all", SM8650, "xnnpack", format="xnnpack"),
        _runs("by precision", "all", SM8650, "xnnpack", precision="w8a8"),
        _runs("by chip", "all", SM8650, "sm8550", chip="sm8550", verified=False),
        _runs(
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
        _refused("no such set", "all", SM8650, set="sm9999"),
        _refused("no such target", "all", SM8650, target="windows"),
        _refused("no such format", "all", SM8650, format="tflite"),
        _refused("no such precision", "all", SM8650, precision="w4"),
        _refused("no such chip", "all", SM8650, chip="sm8450"),
        _refused("a slug in capitals is another", "all", SM8650, chip="SM8650"),
        _refused("each is there, both are not", "all", SM8650, target="onnx", precision="w8a16"),
        _refused("another set fits the rest", "all", SM8650, set="onnx", target="snapdragon"),
        _refused(
            "asked for what does not run",
            "all",
            CPU_PHONE,
            _with(NPUS, "format", "version", "chip"),
            target="snapdragon",
        ),
        _refused("asked for a newer chip", "all", SM8650, {"sm8850": ["chip"]}, chip="sm8850"),
        _runs(
            "the filter is of the denoiser, not of the decoder",
            "mixed",
            SM8650,
            "cpu-denoiser",
            target="onnx",
        ),
        _runs(
            "the filter is of the denoiser, NPU",
            "mixed",
            SM8650,
            "cpu-decoder",
            target="snapdragon",
        ),
        _runs(
            "without a denoiser, of what runs first",
            "encoders",
            SM8650,
            "early",
            target="snapdragon",
        ),
        _refused(
            "without a denoiser, what runs last does not count", "encoders", SM8650, precision="w4"
        ),
        _runs("one of two denoisers fits", "stages", SM8650, "second-npu", target="snapdragon"),
        _runs(
            "one of two denoisers fits, the order stays",
            "stages",
            _device(runtimes=cpu),
            "first-xnnpack",
            target="onnx",
        ),
    ]


def _order_cases() -> list[Case]:
    return [
        _runs("equal ones in the order of sets", "precisions", SM8650, "fp16"),
        _runs(
            "equal ones, others first",
            "precisions",
            SM8650,
            "w8a16",
            edits=[{"at": ["sets", 0], "delete": True}],
        ),
        _runs("a decoder on the NPU makes no NPU set", "mixed", SM8650, "cpu-decoder"),
        _runs(
            "a set needs all of its runtimes",
            "mixed",
            _phone("sm8650", runtimes={**QAIRT, **EXECUTORCH}),
            "cpu",
            edits=[{"at": ["sets", 3, "variants", "vae"], "set": "xnnpack"}],
        ),
        _runs(
            "XNNPACK before a CPU denoiser with an NPU decoder",
            "mixed",
            SM8650,
            "cpu",
            edits=[{"at": ["sets", 0], "delete": True}],
        ),
        _runs("iPhone with a decoder of ExecuTorch", "mixed", _iphone("18.1"), "apple"),
        _runs(
            "iPhone without ExecuTorch",
            "mixed",
            _iphone("18.1", ONNX),
            "whole",
            edits=[
                {
                    "at": ["sets", 3],
                    "set": {"id": "whole", "variants": {"unet": "onnx", "vae": "onnx"}},
                }
            ],
        ),
        _runs(
            "a decoder for another chip makes a set unverified",
            "mixed",
            _phone("sm8750"),
            "cpu-denoiser",
            target="onnx",
            verified=False,
        ),
        _runs("the best of two denoisers counts", "stages", SM8650, "second-npu"),
        _runs("the best of two denoisers counts, on the CPU", "stages", CPU_PHONE, "first-xnnpack"),
        _runs(
            "Linux: the chip before the order of sets",
            "stages",
            _device("linux", None, "sm8650", 75),
            "second-npu",
        ),
        _runs(
            "an unverified NPU before XNNPACK",
            "all",
            _device(chip="sm8845", htp_arch=81),
            "sm8850",
            verified=False,
        ),
    ]


def _program_cases() -> list[Case]:
    no_second = {"both-cpu": ["format"], "second-npu": ["format", "version", "chip"]}
    return [
        _runs("the other program", "stages", CPU_PHONE, "first-xnnpack", program="draft"),
        _runs(
            "a set that is whole for it alone",
            "stages",
            CPU_PHONE,
            "short",
            program="draft",
            set="short",
        ),
        _refused(
            "a set that lacks a component",
            "stages",
            CPU_PHONE,
            {"short": ["component"]},
            set="short",
        ),
        _runs(
            "what the program does not run may not run here",
            "stages",
            _device(runtimes=ONNX),
            "second-npu",
            program="draft",
            set="second-npu",
        ),
        _refused(
            "what it runs must",
            "stages",
            _device(runtimes=ONNX),
            {"second-npu": ["format", "version", "chip"]},
            set="second-npu",
        ),
        _refused(
            "with ExecuTorch alone",
            "stages",
            _device(runtimes=EXECUTORCH),
            {**no_second, "first-xnnpack": ["format"], "short": ["component", "format"]},
        ),
    ]


def _pack_cases() -> list[Case]:
    def packs(*names: str) -> dict[str, Any]:
        return {"installed_packs": list(names)}

    return [
        _runs("all packs", "packs", SM8650, "sm8650"),
        _runs("own pack", "packs", SM8650, "sm8650", **packs("sm8650")),
        _runs(
            "pack of an older chip", "packs", SM8650, "sm8550", verified=False, **packs("sm8550")
        ),
        _runs("pack for the CPU", "packs", SM8650, "xnnpack", **packs("cpu")),
        _runs("no pack", "packs", SM8650, "onnx", **packs()),
        _runs("packs of nobody", "packs", SM8650, "onnx", **packs("sm8750", "x")),
        _refused(
            "asked for what is not installed",
            "packs",
            SM8650,
            {"sm8650": ["pack"]},
            chip="sm8650",
            **packs("cpu", "sm8550"),
        ),
        _refused(
            "neither installed nor for the chip",
            "packs",
            SM8550,
            {"sm8650": ["pack", "chip"]},
            chip="sm8650",
            **packs(),
        ),
        _runs(
            "one of two variants is in a pack",
            "packs",
            SM8650,
            "onnx",
            edits=[{"at": ["components", "vae", "variants", 2, "pack"], "set": None}],
            **packs(),
        ),
    ]


def build_choosing() -> dict[str, list[dict[str, Any]]]:
    """Return bases, cases, what systems call chips, and the table of chips."""
    cases = [
        *_chip_cases(),
        *_version_cases(),
        *_apple_cases(),
        *_runtime_cases(),
        *_filter_cases(),
        *_order_cases(),
        *_program_cases(),
        *_pack_cases(),
    ]
    return {
        "bases": [{"name": name, "manifest": base} for name, base in BASES.items()],
        "cases": cases,
        "socs": [{"soc_model": name, "chip": chip, "htp_arch": arch} for name, chip, arch in SOCS],
        "chips": [{"chip": chip, "htp_arch": arch} for chip, arch in TABLE.items()],
    }
