"""A bundle on disk: one folder, `NAME.mvbundle/`, opened with care and written all or nothing.

Opening checks structure always (manifest, every listed file present, inside the folder and of the
listed size) and hashes when asked (`verify`) or when a file is first used (`Bundle.file`).
Writing (`BundleWriter`) happens beside the output and ends with one rename, so that no reader ever
meets half a bundle and no failure leaves a trace.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from mvsdk._arguments import check_flag, check_kind, check_path, check_text, shown
from mvsdk._bundle_files import (
    bundle_folder,
    check_hash,
    check_size,
    find_owners,
    find_packs,
    label,
    locate,
    naming,
    read_manifest,
    sha256_file,
)
from mvsdk._json import is_safe_path
from mvsdk._references import can_be_ignored, files_below, find_reference
from mvsdk._staging import NO_SPACE, StagingFolder, replacing, writing
from mvsdk._text import encoding_fault, quoted
from mvsdk.errors import BundleError
from mvsdk.manifest import (
    MANIFEST_NAME,
    FileRef,
    Manifest,
    Variant,
)
from mvsdk.targets import FORMATS

__all__ = ["SUFFIX", "Bundle", "BundleWriter", "sha256_file"]

SUFFIX = ".mvbundle"
"""What the name of a bundle's folder ends with by convention."""
_OPEN = "open one with Bundle.open"
_OF_MANIFEST = "take one of the manifest's"
_MADE = "take a bundle's, or make one with dataclasses.replace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle. Make one with `Bundle.open`."""

    path: Path
    """Absolute path of the folder, symbolic links resolved."""
    manifest: Manifest
    manifest_sha256: str
    """Hash of manifest.json, which names the hash of every other file: so that of the bundle. It
    is another one when results of a verification are written into it."""
    packs: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """Folder of each part that is installed, by name; those that are missing are not in it."""
    _files: dict[str, FileRef] = field(repr=False, compare=False)
    _owners: dict[str, str] = field(default_factory=dict[str, str], repr=False, compare=False)
    """Path -> pack, of files that are not in the base."""
    _seen: dict[str, tuple[int, int, int]] = field(
        default_factory=dict[str, tuple[int, int, int]], repr=False, compare=False
    )
    """Files whose hash was right: path -> (inode, size, mtime in ns) at that time."""

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        packs: Mapping[str, str | os.PathLike[str]] | None = None,
        verify: bool = False,
    ) -> Bundle:
        """Open a bundle and check its structure.

        Args:
            path: The bundle's folder.
            packs: Folder of each part that lies elsewhere, by name. A part that is neither named
                nor in the bundle's folder is not installed: its variants do not run.
            verify: Hash every file now; otherwise each is hashed when it is first used.

        Raises:
            InputError: If an argument is of a wrong type.
            BundleNotFoundError: If it is missing; this is a FileNotFoundError too.
            BundleError: If it is damaged, unsafe, inconsistent or of a newer format.
        """
        check_flag("verify", verify)
        packs = {} if packs is None else packs
        check_kind("packs", packs, Mapping, how="pass a dict: name to folder")
        root = bundle_folder(check_path("path", path, example=f"sticker{SUFFIX}"))
        with naming(root):
            payload = read_manifest(root)
            manifest = Manifest.from_json(payload)
            bundle = cls(
                path=root,
                manifest=manifest,
                manifest_sha256=hashlib.sha256(payload).hexdigest(),
                packs=find_packs(root, manifest, packs),
                _files={ref.path: ref for ref in manifest.files()},
                _owners=find_owners(manifest),
            )
            for ref in bundle._files.values():
                folder = bundle._folder(ref.path)
                if folder is not None:
                    check_size(locate(folder, ref.path), ref)
        if verify:
            bundle.verify()
        return bundle

    def __post_init__(self) -> None:
        """Check the types."""
        check_kind("path", self.path, Path, how=_OPEN)
        check_kind("manifest", self.manifest, Manifest, how=_OPEN)

    def __repr__(self) -> str:
        """Return name and content in one line."""
        return f"Bundle({shown(self.path.name)}, {self.manifest!r})"

    def file(self, ref: FileRef) -> Path:
        """Return the absolute path of a file after checking its hash, at most once per content.

        Raises:
            BundleError: If the file is not part of the bundle, or changed since it was written.
        """
        check_kind("ref", ref, FileRef, how=_OF_MANIFEST)
        with naming(self.path):
            if self._files.get(ref.path) != ref:
                raise BundleError(f"{ref.path} is not a file of this bundle")
            folder = self._folder(ref.path)
            if folder is None:
                pack = self._owners[ref.path]
                raise BundleError(
                    f"{ref.path} is in the pack {pack}, which is not installed; give its folder "
                    f"(packs={{...}}, --pack {pack}=FOLDER)",
                    rule="F10",
                )
            path = locate(folder, ref.path)
            status = check_size(path, ref)
            identity = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._seen.get(ref.path) != identity:
                check_hash(path, ref)
                self._seen[ref.path] = identity
            return path

    def is_installed(self, variant: Variant) -> bool:
        """Return whether the part of the bundle that has a variant's files is there."""
        check_kind("variant", variant, Variant, how=_OF_MANIFEST)
        return variant.pack is None or variant.pack in self.packs

    def missing_files(self) -> tuple[FileRef, ...]:
        """Return the files of packs that are not installed."""
        return tuple(ref for ref in self._files.values() if self._folder(ref.path) is None)

    def _folder(self, path: str) -> Path | None:
        """Return the folder that a file of the bundle lies in; None if its pack is missing."""
        pack = self._owners.get(path)
        return self.path if pack is None else self.packs.get(pack)

    def model(self, variant: Variant) -> Path:
        """Return the absolute path of a variant's model after checking all that it can refer to.

        A graph names further files by their place beside it, and a package is a folder: so
        everything in the folder has to be listed in the manifest and have its hash, whether or not
        the variant lists it. Hidden files, as systems leave them, are ignored if no file there
        names them.

        Raises:
            BundleError: As `file` does, or if the model's folder holds another file that the
                manifest does not list, or the bundle's path is not UTF-8, which runtimes open.
        """
        check_kind("variant", variant, Variant, how=_OF_MANIFEST)
        self.check_path()
        return self._check_model(variant)

    def check_path(self) -> None:
        """Check that runtimes can open models by their paths.

        Raises:
            BundleError: If the bundle's path is not UTF-8.
        """
        fault = encoding_fault(self.path)
        if fault is not None:
            raise BundleError(
                f"bundle {quoted(self.path)}: {fault}, and no runtime opens its models; rename or "
                "move it",
                rule="F8",
            )

    def _check_model(self, variant: Variant) -> Path:
        paths = {ref.path: self.file(ref) for ref in variant.files}
        package = FORMATS[variant.format].is_package
        root = self.path if variant.pack is None else self.packs[variant.pack]
        model = root / variant.model if package else paths[variant.model]
        with naming(self.path):
            if package and model.is_symlink():
                raise BundleError(
                    f"the package {variant.model} is a link; copy the bundle with its links "
                    "resolved",
                    rule="F7",
                )
            where = "in a package" if package else "beside a model"
            hidden: list[Path] = []
            for path in files_below(model if package else model.parent):
                relative = path.relative_to(root).as_posix()
                if relative in self._files and self._folder(relative) == root:
                    paths[relative] = self.file(self._files[relative])
                elif can_be_ignored(path):
                    hidden.append(path)
                elif relative != MANIFEST_NAME:
                    raise BundleError(
                        f"{quoted(relative)} is {where}, but not listed in {MANIFEST_NAME}; "
                        "remove it, or download or export the bundle again",
                        rule="F7",
                    )
            named = find_reference({path.name for path in hidden}, paths.values())
            if named is not None:
                name, path = named
                raise BundleError(
                    f"{quoted(name)} is {where}, but not listed in {MANIFEST_NAME}, and "
                    f"{path.name} seems to name it; remove it, or download or export the bundle "
                    "again",
                    rule="F7",
                )
        return model

    def ignored(self) -> tuple[str, ...]:
        """Return what lies in the bundle's folder and is no part of it.

        Returns:
            Paths in the bundle, a folder that holds nothing of it with a `/` at its end.
        """
        listed = {MANIFEST_NAME, *self._files}
        folders = {parent.as_posix() for path in listed for parent in PurePosixPath(path).parents}
        found: list[str] = []
        with naming(self.path):
            todo = [self.path]
            while todo:
                for path in todo.pop().iterdir():
                    relative = path.relative_to(self.path).as_posix()
                    if relative in folders:
                        todo.append(path)
                    elif relative not in listed:
                        is_folder = path.is_dir() and not path.is_symlink()
                        found.append(relative + "/" * is_folder)
        return tuple(sorted(found))

    def replace_manifest(self, manifest: Manifest) -> Bundle:
        """Write another manifest over the same files, whole or not at all.

        Args:
            manifest: Lists the same files with the same hashes.

        Returns:
            The bundle as it is now.

        Raises:
            BundleError: If the manifest breaks a rule, or lists other files.
            OutputError: If the system refuses to write.
        """
        check_kind("manifest", manifest, Manifest, how=_MADE)
        if {ref.path: ref for ref in manifest.files()} != self._files:
            raise BundleError(f"bundle {label(self.path)}: the new manifest lists other files")
        payload = manifest.to_json()
        path = self.path / MANIFEST_NAME
        with writing(path), replacing(path) as temporary:
            temporary.write_bytes(payload)
        return Bundle.open(self.path, packs=self.packs)

    def verify(self) -> None:
        """Check the hash of every file, and that nothing foreign can be read with a model.

        Raises:
            BundleError: With the first file whose content is not the one that was written, or the
                first that a model's folder holds without being listed.
        """
        for ref in self._files.values():
            if self._folder(ref.path) is not None:
                self.file(ref)
        for component in self.manifest.components.values():
            for variant in filter(self.is_installed, component.variants):
                self._check_model(variant)


class BundleWriter:
    """Write a bundle all or nothing.

    Used as a context manager: files go into `directory`, `add_file` records each, `commit` moves
    the whole into place. Leaving without a commit, by an error or not, removes every trace.
    What a killed process leaves behind is removed by the next writer of the same output.
    """

    def __init__(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Check the output, before any work is done.

        Args:
            out: The bundle's folder-to-be; missing parents are made.
            overwrite: Replace a bundle that is there. Anything else is never replaced.

        Raises:
            InputError: If an argument is of a wrong type.
            OutputError: If `out` exists and may not be replaced, or is no name for a folder.
        """
        folder = check_path("out", out, example=f"sticker{SUFFIX}")
        replaces = MANIFEST_NAME if check_flag("overwrite", overwrite) else None
        self._staging = StagingFolder(folder, replaces=replaces)
        self._added: dict[str, FileRef] = {}

    def __repr__(self) -> str:
        """Return what is written, and how far it is, in one line."""
        return f"BundleWriter({shown(self._staging.out.name)}, {len(self._added)} files)"

    def __enter__(self) -> Self:
        """Make the folder to work in.

        Raises:
            OutputError: If the place cannot be written.
        """
        self._staging.create()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove everything that was not committed.

        Raises:
            OutputError: If the body ended because the disk is full.
        """
        self._staging.discard()
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            with writing(self._staging.out):
                raise error

    @property
    def directory(self) -> Path:
        """The folder to write into, hidden beside the output until the commit."""
        return self._staging.path

    def add_file(self, relative: str, *, source: Path | None = None) -> FileRef:
        """Record a file of the bundle.

        Args:
            relative: Place in the bundle, such as "components/unet/onnx-fp32/model.onnx".
            source: A file to copy there. None: the file is in `directory` already.

        Returns:
            What the manifest says of it.

        Raises:
            BundleError: If the path is not allowed, or no regular file is there.
            OutputError: If copying fails.
        """
        check_text("relative", relative)
        if not is_safe_path(relative) or relative.casefold() == MANIFEST_NAME:
            raise BundleError(
                f"{quoted(relative)} is not a path for a bundle; use plain names of letters, digits"
            )
        if source is not None:
            source = check_path("source", source, example="vocab.json")
            if not os.path.isfile(source):  # and no error where a name is too long
                raise BundleError(
                    f"{quoted(source)} is not a file to copy into the bundle as {relative}"
                )
            with writing(self._staging.out):
                target = self.directory / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        with naming(self._staging.out):
            path = locate(self.directory.resolve(), relative)
            ref = FileRef(path=relative, bytes=path.stat().st_size, sha256=sha256_file(path))
        self._added[relative] = ref
        return ref

    def preview(self, manifest: Manifest) -> Bundle:
        """Write the manifest and open the bundle where it is made, to check it before the commit.

        Raises:
            BundleError: If the manifest breaks a rule, or does not match the files.
            OutputError: If the system refuses to write.
        """
        check_kind("manifest", manifest, Manifest, how=_MADE)
        self._remove_hidden()
        self._check_complete(manifest)
        payload = manifest.to_json()
        with writing(self._staging.out):
            (self.directory / MANIFEST_NAME).write_bytes(payload)
            return Bundle.open(self.directory)

    def commit(self, manifest: Manifest) -> Bundle:
        """Write the manifest and move the bundle into place in one step.

        Raises:
            BundleError: If the manifest breaks a rule, or does not match the files.
            OutputError: If the system refuses to write.
        """
        self.preview(manifest)
        with writing(self._staging.out):
            self._staging.publish()
        return Bundle.open(self._staging.out)

    def _remove_hidden(self) -> None:
        """Remove what a system put into the folder meanwhile; hidden names are not a bundle's."""
        with contextlib.suppress(OSError):  # some come and go as their owner likes
            for path in filter(can_be_ignored, files_below(self.directory)):
                if path.relative_to(self.directory).as_posix() not in self._added:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _check_complete(self, manifest: Manifest) -> None:
        listed = {ref.path: ref for ref in manifest.files()}
        for path, ref in listed.items():
            if self._added.get(path) != ref:
                raise BundleError(f"the manifest lists {path}, which was not added as it says")
        with writing(self._staging.out):
            present = [path for path in files_below(self.directory) if not can_be_ignored(path)]
            linked = [path for path in present if path.is_symlink()]
        names = {path.relative_to(self.directory).as_posix() for path in present}
        stray = names - set(listed) - {MANIFEST_NAME}
        if stray:
            raise BundleError(
                f"the bundle holds files that its manifest does not list: {min(stray)}"
            )
        if linked:
            raise BundleError(f"the bundle holds a link: {linked[0].name}; copy the file instead")
