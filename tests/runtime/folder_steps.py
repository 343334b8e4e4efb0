"""Makes folders by steps, as tests/golden/folders.json has them; see make_folders.py there."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvsdk.bundle import Bundle

NAME = "b.mvbundle"


def make_base(root: Path, base: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> None:
    """Write a bundle into a folder, and carry out steps there."""
    document = copy.deepcopy(base["manifest"])
    for path, text in base["files"].items():
        _write(root / NAME / path, text.encode())
    for step in steps:
        if step["step"] == "list":
            content = bytes.fromhex(step["hex"])
            _write(root / NAME / step["path"], content)
            for ref in _files_of(document):
                if ref["path"] == step["path"]:
                    ref |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _write(root / NAME / "manifest.json", json.dumps(document).encode())
    carry_out(root, [step for step in steps if step["step"] != "list"])


def carry_out(root: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    """Carry out steps in a folder."""
    for step in steps:
        path = root / step["path"]
        match step["step"]:
            case "make":
                content = bytes.fromhex(step["hex"]) if "hex" in step else step["text"].encode()
                _write(path, content)
            case "mkdir":
                path.mkdir(parents=True)
            case "link":
                path.symlink_to(step["to"])
            case "hardlink":
                os.link(root / step["to"], path)
            case "fifo":
                os.mkfifo(path)
            case "resize":
                os.truncate(path, step["bytes"])
            case "later":
                changed_ns = path.stat().st_mtime_ns + 10_000_000_000
                os.utime(path, ns=(changed_ns, changed_ns))
            case "remove":
                _remove(path)
            case "rename":
                path.rename(root / step["to"])
            case other:
                raise ValueError(other)


def ask(root: Path, case: Mapping[str, Any]) -> None:
    """Open the bundle of a case, and do what is asked for."""
    packs = {name: root / folder for name, folder in case["packs"].items()}
    bundle = Bundle.open(root / case["bundle"], packs=packs)
    if case["twice"]:
        _do(bundle, case)
    carry_out(root, case["after"])
    _do(bundle, case)


def _do(bundle: Bundle, case: Mapping[str, Any]) -> None:
    match case["do"]:
        case "verify":
            bundle.verify()
        case "load":
            component = bundle.manifest.component(case["component"])
            bundle.model(component.variant(case["variant"]))
        case "read":
            refs = {ref.path: ref for ref in bundle.manifest.files()}
            bundle.file(refs[case["file"]])


def _files_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    refs = [item["text_file"] for item in document["licences"]]
    for component in document["components"].values():
        for variant in component["variants"]:
            refs += variant["files"]
    return refs


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(path)
    path.write_bytes(content)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
