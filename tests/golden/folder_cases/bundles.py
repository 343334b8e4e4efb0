"""The bundles that cases start with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiny_manifests import ROLES, Kind, file, manifest

B = "b.mvbundle"
NPU = {"target": "snapdragon", "format": "qnn_context", "precision": "w8a16"}
CHIPS = {"sm8550": (73, 43), "sm8650": (75, 57)}
PACKAGE = "unet/coreml/Unet.mlpackage"
MODEL = "unet/onnx/model.onnx"
SHARED = "shared/weights.bin"
MIT = "licences/MIT.txt"


def text_of(path: str) -> str:
    """Return what a file holds."""
    return f"of {path}"


def variant_of(kind: Kind, model: str, files: Sequence[str] = (), **more: Any) -> Kind:
    """Return what a variant of these files is."""
    paths = files or [model]
    return {
        **kind,
        "model": model,
        "files": [file(path, text_of(path).encode()) for path in paths],
        **more,
    }


ONNX = {"target": "onnx", "format": "onnx", "precision": "fp32"}
COREML = {
    "target": "iphone",
    "format": "coreml",
    "precision": "fp16",
    "deployment_target": "iOS18",
}
PTE = {"target": "executorch", "format": "executorch", "precision": "w8a8", "delegate": "xnnpack"}


def npu(slug: str, name: str = "") -> Kind:
    """Return what a context binary for a chip is; its files are a pack."""
    arch, soc_model = CHIPS[slug]
    chip = {"slug": slug, "htp_arch": arch, "soc_model": soc_model}
    files = [f"npu/{name}{slug}_ctx.onnx", f"npu/{name}{slug}.bin"]
    return variant_of({**NPU, "chip": chip}, files[0], files, pack=slug)


UNET = {
    "onnx": variant_of(ONNX, MODEL, [MODEL, "unet/onnx/weights.bin", SHARED]),
    "coreml": variant_of(
        COREML, PACKAGE, [f"{PACKAGE}/Manifest.json", f"{PACKAGE}/Data/weights.bin"]
    ),
    "executorch": variant_of(
        PTE, "unet/pte/model.pte", ["unet/pte/model.pte", "unet/pte/model.ptd"]
    ),
    **{slug: npu(slug) for slug in CHIPS},
}
VAE = {
    "onnx": variant_of(ONNX, "vae/onnx/model.onnx", ["vae/onnx/model.onnx", SHARED]),
    # another model in the folder of a first
    "beside": variant_of({**ONNX, "precision": "fp16"}, "unet/onnx/vae.onnx"),
}
ROOT = {"onnx": variant_of(ONNX, "root.onnx")}


def bundle_of(unet: Mapping[str, Kind], vae: Mapping[str, Kind], packs: Sequence[str]) -> Any:
    """Return a bundle: manifest and files."""
    sets = {key: {"unet": key, "vae": "onnx"} for key in unet}
    base = manifest(
        {"unet": unet, "vae": vae}, sets, {"default": ("unet", "vae")}, packs, ROLES, "folders"
    )
    licence = file(MIT, text_of(MIT).encode())
    base["licences"] = [{"name": "MIT", "applies_to": "nothing", "text_file": licence}]
    paths = {
        item["path"] for kinds in (unet, vae) for kind in kinds.values() for item in kind["files"]
    }
    return {"manifest": base, "files": {path: text_of(path) for path in sorted({*paths, MIT})}}


def _shared() -> Any:
    """Return a bundle of a pack that two components share, in whose folder the base has a model."""
    unet = {"onnx": variant_of(ONNX, "npu/base.onnx"), "sm8650": npu("sm8650")}
    vae = {"onnx": VAE["onnx"], "sm8650": npu("sm8650", "vae_")}
    base = bundle_of(unet, vae, ["sm8650"])
    components = base["manifest"]["components"]
    base["manifest"]["components"] = {name: components[name] for name in ("vae", "unet")}
    return base


BASES = {
    "tiny": bundle_of(UNET, VAE, sorted(CHIPS)),
    # a model in the bundle's own folder: so all of the bundle lies beside it
    "root": bundle_of(ROOT, {"onnx": VAE["onnx"]}, ()),
    # components in another order than that of their names
    "shared": _shared(),
}
