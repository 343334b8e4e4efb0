"""The files of a bundle: found inside its folder, of the right size and hash, or refused.

Rules F1 to F10 of docs/bundle_format.md; `mvsdk.bundle` says when each is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Generator, Mapping
from pathlib import Path

from mvsdk._arguments import check_path, shown
from mvsdk._json import is_safe_path
from mvsdk._text import quoted, reason_of
from mvsdk.errors import BundleError, BundleNotFoundError, InputError
from mvsdk.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, FileRef, Manifest


def sha256_file(path: Path) -> str:
    """Hash a file in constant memory.

    Returns:
        64 lower-case hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def naming(root: Path) -> Generator[None]:
    """Put the bundle's name before every message, and turn what the system refuses into one."""
    try:
        yield
    except BundleError as exc:
        raise exc.named(f"bundle {label(root)}") from exc
    except OSError as exc:
        raise BundleError(
            f"bundle {label(root)}: {_reason(exc)}; check its permissions", rule="F5"
        ) from exc


def find_owners(manifest: Manifest) -> dict[str, str]:
    """Return the pack of every file that is not in the base."""
    return {
        ref.path: variant.pack
        for component in manifest.components.values()
        for variant in component.variants
        for ref in variant.files
        if variant.pack is not None
    }


def find_packs(
    root: Path, manifest: Manifest, given: Mapping[str, str | os.PathLike[str]]
) -> dict[str, Path]:
    """Return the folder of each pack that is installed.

    Raises:
        InputError: If a pack is given that the bundle does not have.
        BundleNotFoundError: If a folder is given that is not there.
    """
    for name in given:
        if name not in manifest.packs:
            known = ", ".join(manifest.packs) or "none"
            raise InputError(f"packs has {shown(name)}; the packs of this bundle: {known}")
    first: dict[str, str] = {}
    for component in manifest.components.values():
        for variant in component.variants:
            if variant.pack is not None:
                first.setdefault(variant.pack, variant.files[0].path)
    folders: dict[str, Path] = {}
    for name in manifest.packs:
        if name in given:
            folders[name] = _pack_folder(name, given[name])
        elif name in first and os.path.lexists(root / first[name]):
            folders[name] = root
    return folders


def _pack_folder(name: str, given: str | os.PathLike[str]) -> Path:
    path = check_path(f"packs[{name!r}]", given, example=name)
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # a loop of links, a null byte
        folder = path.resolve(strict=True)
        if folder.is_dir():
            return folder
    raise BundleNotFoundError(
        f"no folder of the pack {name} at {quoted(path)}; give the one that was installed",
        str(path),
        rule="F10",
    )


def label(root: Path) -> str:
    """Return the name of a bundle, in quotes unless it is plain."""
    return root.name if is_safe_path(root.name) else quoted(root.name or root)


def _reason(exc: OSError) -> str:
    return f"{reason_of(exc)}: {quoted(exc.filename)}" if exc.filename else reason_of(exc)


def bundle_folder(path: Path) -> Path:
    """Return the folder of a bundle, symbolic links resolved.

    Raises:
        BundleNotFoundError: If nothing is there.
        BundleError: If it is no folder.
    """
    missing = f"no bundle at {quoted(path)}; give the path of a folder that holds {MANIFEST_NAME}"
    try:
        root = path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise BundleNotFoundError(missing, str(path), rule="F1") from exc
    except (OSError, RuntimeError, ValueError) as exc:  # a loop of links, a null byte
        raise BundleError(missing, rule="F1") from exc
    if not root.is_dir():
        raise BundleError(
            f"{quoted(path)} is not a folder; a bundle is a folder that holds {MANIFEST_NAME}",
            rule="F1",
        )
    return root


def read_manifest(root: Path) -> bytes:
    """Return the bytes of a manifest, at most one more than allowed.

    Raises:
        BundleNotFoundError: If it is missing.
        BundleError: If it is too large, or no regular file inside the bundle.
    """
    try:
        (root / MANIFEST_NAME).lstat()
    except FileNotFoundError as exc:
        raise BundleNotFoundError(
            f"{MANIFEST_NAME} is missing; download or export the bundle again",
            str(root / MANIFEST_NAME),
            rule="F1",
        ) from exc
    path = locate(root, MANIFEST_NAME)
    size = path.stat().st_size
    if size <= MAX_MANIFEST_BYTES:
        with path.open("rb") as file:
            # One byte more than allowed, in case the file grew since its size was read.
            return file.read(MAX_MANIFEST_BYTES + 1)
    raise BundleError(
        f"{MANIFEST_NAME} has {size} bytes, at most {MAX_MANIFEST_BYTES} are allowed; "
        "download or export the bundle again",
        rule="D1",
    )


def locate(root: Path, relative: str) -> Path:
    """Find a regular file inside the bundle; symbolic links may not lead out of it.

    Raises:
        BundleError: If it is missing, outside, or a folder, pipe, socket or device.
    """
    path = root / relative
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise BundleError(
            f"{relative} is missing; download or export the bundle again", rule="F5"
        ) from exc
    except RuntimeError as exc:  # Python 3.11 and 3.12 raise this for a loop of links
        raise BundleError(
            f"{relative} is a loop of links; download the bundle again", rule="F5"
        ) from exc
    if not real.is_relative_to(root):
        raise BundleError(
            f"{relative} is a link out of the bundle; copy the bundle with its links resolved",
            rule="F5",
        )
    if not stat.S_ISREG(mode):
        raise BundleError(
            f"{relative} is not a regular file; download or export the bundle again",
            rule="F5",
        )
    return path


def check_size(path: Path, ref: FileRef) -> os.stat_result:
    """Check the size of a file against the manifest; return what the system says of it.

    Raises:
        BundleError: If it is another.
    """
    status = path.stat()
    if status.st_size != ref.bytes:
        raise BundleError(
            f"{ref.path} has {status.st_size} bytes, the manifest says {ref.bytes}; "
            "download or export the bundle again",
            rule="F5",
        )
    return status


def check_hash(path: Path, ref: FileRef) -> None:
    """Check the content of a file against the manifest.

    Raises:
        BundleError: If it is another.
    """
    digest = sha256_file(path)
    if digest != ref.sha256:
        raise BundleError(
            f"{ref.path} has the hash {digest[:12]}..., the manifest says {ref.sha256[:12]}...; "
            "download or export the bundle again",
            rule="F6",
        )
