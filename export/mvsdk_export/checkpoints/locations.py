"""Files of a model folder: inside it, regular, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from mvsdk._json import MAX_WHERE, is_safe_path, shorten
from mvsdk._text import quoted, reason_of
from mvsdk_export.checkpoints.headers import is_pickle, pickle_error, read_header
from mvsdk_export.errors import CheckpointError

INDEX_FILE = "model_index.json"

_BLOB = re.compile(r"[0-9a-f]{40,64}")


def find_folder(path: Path, *, holds: str = INDEX_FILE, what: str = "model folder") -> Path:
    """Return the absolute path of a folder, symbolic links resolved.

    Args:
        path: The folder.
        holds: A file of every such folder, named in errors.
        what: What errors call it.

    Raises:
        CheckpointError: If it is none.
    """
    name, advice = quoted(path), f"give a folder that holds {holds}"
    try:
        if path.is_dir():
            return path.resolve()
        exists = path.exists()
    except (OSError, ValueError) as exc:  # ValueError: a null byte
        reason = reason_of(exc)
        raise CheckpointError(f"{what} {name} cannot be opened: {reason}; {advice}") from exc
    if exists and is_pickle(path):
        raise pickle_error(path, "a folder with model.safetensors")
    if exists and path.suffix == ".safetensors":
        raise _single_file(path)
    fault = "is a file" if exists else "does not exist"
    raise CheckpointError(f"{what} {name} {fault}; {advice}")


def _single_file(path: Path) -> CheckpointError:
    """Return the error for a checkpoint in one file, with the command that makes a folder of it."""
    original = any(x.startswith("model.diffusion_model.") for x in read_header(path))
    what = "a checkpoint in one file, with the names of the original code" if original else "a file"
    folder = path.stem
    return CheckpointError(
        f"{quoted(path)} is {what}, expected a folder that holds {INDEX_FILE}; convert it: python "
        f'-c "from diffusers import StableDiffusionPipeline as P; '
        f'P.from_single_file({path.name!r}).save_pretrained({folder!r})", and give --checkpoint '
        f"{folder}"
    )


def locate(root: Path, relative: str) -> Path:
    """Return the path of a regular file inside the folder.

    A model in the cache of the Hugging Face Hub is `models--ORG--NAME/snapshots/REVISION`, whose
    files are links to `models--ORG--NAME/blobs/HASH`. These are that model's, and count as inside.

    Args:
        root: The folder, as `find_folder` returns it.
        relative: Path in it.

    Raises:
        CheckpointError: If there is no such file, or it is a link out of the folder.
    """
    path, named = root / relative, shorten(relative, MAX_WHERE)  # an index may name it at length
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as exc:  # RuntimeError: a loop of links, before Python 3.13
        raise CheckpointError(
            f"model folder {quoted(root)} lacks {named}; download or make it again"
        ) from exc
    if not target.is_relative_to(root) and not _is_blob(root, target):
        raise CheckpointError(
            f"{named} of model folder {quoted(root)} is a link out of the folder; "
            "copy the file into it, or download with hf download --local-dir"
        )
    if not target.is_file():
        raise CheckpointError(f"{named} of model folder {quoted(root)} is not a regular file")
    return path


def plain_name(path: Path) -> str:
    """Return a file's name as paths of a bundle may have it (F2): it may come from anywhere."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", path.name)[-200:]
    return name if is_safe_path(name) else f"_{name}_"


def _is_blob(root: Path, target: Path) -> bool:
    """Return whether a file is one that the hub's cache keeps for the model of this folder."""
    for folder in (root, *root.parents):
        snapshots, model = folder.parent, folder.parent.parent
        if snapshots.name == "snapshots" and model.name.startswith("models--"):
            return target.parent == model / "blobs" and bool(_BLOB.fullmatch(target.name))
    return False
