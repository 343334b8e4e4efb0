"""Manifests of sets that devices choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiny_manifests import ROLES, Kind, manifest

from choosing_cases.devices import CHIPS

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


def npu(slug: str, **more: Any) -> Kind:
    """Return what a context binary for a chip is."""
    arch, soc_model = CHIPS[slug]
    return {
        "target": "snapdragon",
        "format": "qnn_context",
        "precision": "w8a16",
        "chip": {"slug": slug, "htp_arch": arch, "soc_model": soc_model},
        "requires": {"qairt": "2.51"},
        **more,
    }


def et_qnn(slug: str) -> Kind:
    """Return what a program of ExecuTorch for a chip is."""
    return {**npu(slug), "target": "executorch", "format": "executorch", "delegate": "qnn"}


ALL: dict[str, Kind] = {
    "onnx": ONNX_FP32,
    **{slug: npu(slug) for slug in CHIPS},
    "coreml-fp16": COREML_FP16,
    "coreml-w8": COREML_W8,
    "coreai": COREAI_FP16,
    "xnnpack": XNNPACK,
    "et-coreml": ET_COREML,
    "et-qnn": et_qnn("sm8650"),
}
PROGRAM = {"default": ("unet", "vae")}


def same(kinds: Mapping[str, Kind]) -> dict[str, dict[str, str]]:
    """Return sets that name the same id in both components."""
    return {key: {"unet": key, "vae": key} for key in kinds}


def whole(kinds: Mapping[str, Kind], packs: Sequence[str] = ()) -> dict[str, Any]:
    """Return a manifest of which both components have all kinds, and sets of one kind each."""
    return manifest({"unet": kinds, "vae": kinds}, same(kinds), PROGRAM, packs)


PHONES = {slug: npu(slug) for slug in ("sm8550", "sm8650", "sm8750")}
TWO_PRECISIONS = {
    "fp16": npu("sm8650", precision="fp16"),
    "w8a16": npu("sm8650"),
    "old": npu("sm8650", precision="w8a8", requires={"qairt": "2.40"}),
}
PACKED = {
    "onnx": ONNX_FP32,
    **{slug: npu(slug, pack=slug) for slug in ("sm8550", "sm8650")},
    "xnnpack": {**XNNPACK, "pack": "cpu"},
}
MIXED = {"onnx": ONNX_FP32, "sm8650": npu("sm8650"), "coreml-w8": COREML_W8, "xnnpack": XNNPACK}
REFINED = {
    **MIXED,
    "sm8550": npu("sm8550"),
    "coreml-fp16": COREML_FP16,
}
BASES: dict[str, dict[str, Any]] = {
    "all": whole(ALL),
    "phones": whole(PHONES),
    "precisions": whole(TWO_PRECISIONS),
    "packs": whole(PACKED, ("cpu", "sm8550", "sm8650")),
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
    # two denoisers of any kind each, and a decoder that may be for a chip
    "refined": manifest(
        {"unet": REFINED, "second": REFINED, "vae": REFINED},
        {
            "second-older": {"unet": "onnx", "second": "sm8550", "vae": "onnx"},
            "first-newer": {"unet": "sm8650", "second": "xnnpack", "vae": "onnx"},
            "both-newer": {"unet": "sm8650", "second": "sm8650", "vae": "onnx"},
            "second-xnnpack": {"unet": "onnx", "second": "xnnpack", "vae": "onnx"},
            "decoder-newer": {"unet": "xnnpack", "second": "onnx", "vae": "sm8650"},
            "second-core-ml": {"unet": "onnx", "second": "coreml-fp16", "vae": "onnx"},
            "first-core-ml": {"unet": "coreml-w8", "second": "onnx", "vae": "onnx"},
            "neither": {"unet": "onnx", "second": "onnx", "vae": "onnx"},
        },
        {"default": ("unet", "second", "vae"), "draft": ("unet", "vae")},
    ),
    # ids that stand for other variants in each component
    "crossed": manifest(
        {
            "unet": {"a": npu("sm8650"), "b": ONNX_FP32},
            "vae": {"a": ONNX_FP32, "b": npu("sm8650"), "c": XNNPACK},
        },
        {
            "c": {"unet": "b", "vae": "b"},
            "a": {"unet": "b", "vae": "a"},
            "b": {"unet": "a", "vae": "c"},
            "d": {"unet": "a", "vae": "a"},
        },
        PROGRAM,
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
