"""Manifests of version 3 as small as they can be: a picture goes in, and comes out again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

Kind = dict[str, Any]
"""What a variant is: its keys, of which `target`, `format` and `precision` have to be there."""

PICTURE = [1, 2, 2, 3]
DTYPES = {"pixels": "uint8", "real": "float32"}
TENSORS: dict[str, tuple[dict[str, tuple[list[int], str]], ...]] = {
    "unet": ({"image": (PICTURE, "pixels")}, {"latents": ([1, 4], "real")}),
    "second": ({"latents": ([1, 4], "real")}, {"better": ([1, 4], "real")}),
    "vae": ({"latents": ([1, 4], "real")}, {"frames": (PICTURE, "pixels")}),
}
ROLES = {"unet": "denoiser", "second": "denoiser", "vae": "vae_decoder"}
STEPS = {
    "unet": {"inputs": {"image": "picture"}, "outputs": {"latents": "latents"}},
    "second": {"inputs": {"latents": "latents"}, "outputs": {"better": "better"}},
}


def file(path: str, content: bytes | None = None) -> dict[str, Any]:
    """Return what a manifest says of a file; None: it holds its own path."""
    content = path.encode() if content is None else content
    return {
        "path": path,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def variant(component: str, identifier: str, kind: Kind) -> dict[str, Any]:
    """Return a variant of `TENSORS`."""
    model = f"{component}/{identifier}/model"
    package = kind["format"] in ("coreml", "coreai")
    inputs, outputs = TENSORS[component]
    plain = {
        side: [
            {"name": name, "dtype": DTYPES[type_], "scale": None, "zero_point": None}
            for name, (_, type_) in tensors.items()
        ]
        for side, tensors in (("inputs", inputs), ("outputs", outputs))
    }
    return {
        "id": identifier,
        "target": kind["target"],
        "format": kind["format"],
        "delegate": kind.get("delegate"),
        "deployment_target": kind.get("deployment_target"),
        "function": None,
        "precision": kind["precision"],
        "chip": kind.get("chip"),
        "pack": kind.get("pack"),
        "requires": kind.get("requires", {}),
        "model": kind.get("model", model),
        "files": kind.get("files") or [file(f"{model}/Manifest.json" if package else model)],
        **plain,
        "compute_unit": "CPU",
        "tools": {},
        "delegation": None,
    }


def program(name: str, components: Sequence[str]) -> dict[str, Any]:
    """Return a program that runs these components, `vae` the last."""
    runs = [{"op": "run", "component": item, **STEPS[item]} for item in components[:-1]]
    last = "better" if "second" in components else "latents"
    decode = {"inputs": {"latents": last}, "outputs": {"frames": "frames"}}
    return {
        "name": name,
        "task": "image_to_video",
        "video": {"frames": 1, "height": 2, "width": 2, "fps": 8},
        "inputs": {"picture": {"kind": "picture", "height": 2, "width": 2}},
        "operations": [*runs, {"op": "run", "component": "vae", **decode}],
        "output": "frames",
    }


def manifest(
    variants: Mapping[str, Mapping[str, Kind]],
    sets: Mapping[str, Mapping[str, str]],
    programs: Mapping[str, Sequence[str]],
    packs: Sequence[str] = (),
    roles: Mapping[str, str] = ROLES,
    name: str = "tiny",
) -> dict[str, Any]:
    """Return a manifest.

    Args:
        variants: Component -> id -> what the variant is.
        sets: Id -> component -> id of a variant.
        programs: Name -> the components that it runs, in order.
        packs: Their names.
        roles: Of the components.
        name: Of the model.
    """
    return {
        "format": "mvbundle",
        "format_version": 3,
        "name": name,
        "programs": [program(name, parts) for name, parts in programs.items()],
        "components": {
            name: {
                "role": roles[name],
                **{
                    side: [
                        {"name": tensor, "shape": shape, "type": type_}
                        for tensor, (shape, type_) in tensors.items()
                    ]
                    for side, tensors in zip(("inputs", "outputs"), TENSORS[name], strict=True)
                },
                "variants": [variant(name, key, kind) for key, kind in kinds.items()],
            }
            for name, kinds in variants.items()
        },
        "sets": [{"id": key, "variants": dict(parts)} for key, parts in sets.items()],
        "samplers": {},
        "tokenizers": {},
        "tables": {},
        "packs": list(packs),
        "source": {"model": "none", "recipe": "by hand", "checkpoint": [], "lora": []},
        "licences": [],
        "costs": {},
        "verification": [],
    }
