"""An .mlpackage folder as it lies on disk. It may come from anywhere: nothing in it is trusted."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mvsdk._text import quoted
from mvsdk.errors import BundleError
from mvsdk_export.targets.coreml.checker.blob import BlobFile
from mvsdk_export.targets.coreml.tools import load_protocol

MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 1 << 29
"""Largest description: without its weights, that of a denoiser of a billion has a few megabytes."""
MAX_NAME = 255
"""Bytes of the name of a file or folder, as file systems have it."""

_DATA = "Data"
_WEIGHTS = re.compile(
    r"@model_path/((?:[A-Za-z0-9][A-Za-z0-9._-]{0,127}/){0,4}[A-Za-z0-9._-]{1,128})"
)


class PackageFolder:
    """The files of a package."""

    def __init__(self, path: Path) -> None:
        """Find the model of a folder.

        Args:
            path: The .mlpackage folder.

        Raises:
            BundleError: If there is no such folder, or its manifest is damaged or unsafe.
        """
        self.name = path.name
        self._path = path
        if not path.is_dir():
            raise BundleError(f"there is no Core ML package at {path}; give an .mlpackage folder")
        self._model = f"{_DATA}/{self._read_root()}"
        self._blobs: dict[str, BlobFile] = {}

    def read_model(self) -> Any:
        """Return the description, a `Model_pb2.Model`.

        Raises:
            TargetUnavailableError: If coremltools is missing, which has the messages.
            BundleError: If it is missing, unsafe or damaged.
        """
        from google.protobuf.message import DecodeError

        content = self._read(self._model, MAX_MODEL_BYTES)
        model: Any = load_protocol()[0].Model()
        try:
            model.ParseFromString(content)
        except (DecodeError, RecursionError, ValueError) as exc:
            raise self.damaged(f"has a description that cannot be decoded ({exc})") from exc
        return model

    def blob(self, name: str) -> BlobFile:
        """Return a file of weights by the name that a program has for it.

        Raises:
            BundleError: If the name leaves the package, or the file is missing or damaged.
        """
        if name not in self._blobs:
            match = _WEIGHTS.fullmatch(name)
            if match is None:
                raise self.damaged(
                    f"names the file of weights {quoted(name)}, expected @model_path/weights/NAME"
                )
            folder = PurePosixPath(self._model).parent
            self._blobs[name] = BlobFile(self._locate(str(folder / match[1])))
        return self._blobs[name]

    def damaged(self, what: str) -> BundleError:
        """Return an error that names this package."""
        return BundleError(f"the package {self.name} {what}; export the package again")

    def _read_root(self) -> str:
        """Return the place of the model below `Data`, as the manifest says it."""
        content = self._read("Manifest.json", MAX_MANIFEST_BYTES)
        try:
            manifest = json.loads(content)
            items = manifest["itemInfoEntries"]
            places = {key: item["path"] for key, item in items.items()}
            root = places[manifest["rootModelIdentifier"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise self.damaged("has a Manifest.json that names no model") from exc
        for place in places.values():
            self._check_place(place)
        return root

    def _read(self, place: str, most: int) -> bytes:
        path = self._locate(place)
        try:
            if (size := path.stat().st_size) > most:
                raise self.damaged(f"has {size} bytes in {place}, allowed: {most}")
            return path.read_bytes()
        except OSError as exc:
            raise self.damaged(f"has the file {place}, which cannot be read ({exc})") from exc

    def _locate(self, place: str) -> Path:
        """Return a regular file of the package, reached without links."""
        self._check_place(place)
        path = self._path
        for part in PurePosixPath(place).parts:
            path = path / part
            if path.is_symlink():
                raise BundleError(
                    f"the package {self.name} has a link at {place}; copy it without links"
                )
        if not path.is_file():
            raise self.damaged(f"has no file {place}")
        return path

    def _check_place(self, place: Any) -> None:
        """Refuse a relative path that could lead out of the package, on any system."""
        parts = place.split("/") if isinstance(place, str) else []
        printable = all(
            part.isprintable() and part not in ("", ".", "..") and len(part.encode()) <= MAX_NAME
            for part in parts
        )
        if not parts or not printable or any(x in place for x in "\\:") or len(place) > 1024:
            raise BundleError(
                f"the package {self.name} names the path {quoted(place)}, expected one inside it; "
                "do not use this package"
            )
