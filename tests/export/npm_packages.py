"""Archives as npm packs them, and an npm that packs them."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path


def write_tarball(path: Path, members: dict[str, bytes], *, link: str | None = None) -> Path:
    """Write an archive of files by name, and of a link that leads out of it."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if link is not None:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tar.addfile(info)
    return path


def write_npm(folder: Path, archive: str, content: bytes) -> None:
    """Write an npm that packs one archive into the destination that it is told, which is there."""
    folder.mkdir(parents=True)
    program = folder / "npm"
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "place = pathlib.Path(sys.argv[sys.argv.index('--pack-destination') + 1])\n"
        f"(place / {archive!r}).write_bytes({content!r})\n"
    )
    program.chmod(0o755)
