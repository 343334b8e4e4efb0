"""TIFF files with those tags alone that say how to decode the first picture."""

from __future__ import annotations

import struct
from typing import NamedTuple

from mvsdk.image._colours import MAX_PROFILE_BYTES, find_space
from mvsdk.image._essence import (
    MAX_XMP_BYTES,
    ORIENTATION,
    DamageError,
    Essence,
    read_xmp_orientation,
)

MAX_VALUES = 1 << 18
"""Values of one tag: a picture of `MAX_SIDE` rows in four planes has fewer strips."""
MAX_TILE_PIXELS = 1 << 24
MAX_ENTRIES = 4096
MAX_SAMPLES = 6  # a pixel; Pillow decodes no more

TIFF_MARKS = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
"""First four bytes -> order of bytes, and whether places have 64 bits."""

_WIDTH, _HEIGHT, _COMPRESSION = 256, 257, 259
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _PLANES = 273, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES = 322, 323, 324
_INTERCHANGED = 513
"""Where a whole JPEG file is, in files of long ago."""
_XMP, _PROFILE = 700, 34675
_ONCE = frozenset(
    {_WIDTH, _HEIGHT, _COMPRESSION, 262, 266, _SAMPLES, _ROWS_PER_STRIP, _PLANES, 292, 293, 317}
    | {_TILE_WIDTH, _TILE_HEIGHT, 332, 512, _INTERCHANGED, 514, 515, 531}
)
"""Tags with one value."""
_NEEDED = frozenset(
    _ONCE
    | {258, _STRIPS, 279, 320, _TILES, 325, 338, 339, 347, 517, 518, 519, 520, 521}
    | {529, 530, 532}  # how luma and chroma become RGB
)
_SIZES = {
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4},
    **{16: 8, 17: 8, 18: 8},
}
"""Type of a value -> its bytes."""
_WHOLE = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}


class _Entry(NamedTuple):
    kind: int
    values: int
    """How many."""
    field: bytes
    """4 bytes, or 8: the values themselves, or where they are."""
    place: int
    """Where the values begin in the file."""

    @property
    def size(self) -> int:
        return self.values * _SIZES[self.kind]


class _Directory(NamedTuple):
    data: bytes
    order: str
    wide: bool
    entries: dict[int, _Entry]

    def number(self, tag: int, otherwise: int) -> int:
        """Return the only value of a tag, if it is a whole number."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _WHOLE or entry.values != 1:
            return otherwise
        (value,) = struct.unpack_from(self.order + _WHOLE[entry.kind], self.data, entry.place)
        return value

    def content(self, tag: int, most: int) -> bytes:
        entry = self.entries.get(tag)
        if entry is None:
            return b""
        return self.data[entry.place : entry.place + min(entry.size, most)]


def read_tiff(data: bytes) -> Essence:
    """Write a directory anew that has the tags that decoders need.

    Raises:
        DamageError: If it makes no sense.
    """
    try:
        directory = _read_directory(data)
        needed = {tag: x for tag, x in directory.entries.items() if tag in _NEEDED}
        for tag, entry in needed.items():
            _check_entry(tag, entry, data)
        width, height = directory.number(_WIDTH, 0), directory.number(_HEIGHT, 0)
        _check_layout(directory, width, height)
        orientation = directory.number(ORIENTATION, 0)
    except struct.error as exc:
        raise DamageError("its tags are cut off") from exc
    if not 1 <= orientation <= 8:
        orientation = read_xmp_orientation(directory.content(_XMP, MAX_XMP_BYTES)) or 1
    return Essence(
        kind="TIFF",
        content=_write(directory, needed),
        width=width,
        height=height,
        orientation=orientation,
        space=find_space(directory.content(_PROFILE, MAX_PROFILE_BYTES + 1)),
    )


def _read_directory(data: bytes) -> _Directory:
    """Read the first directory; of tags that come twice the first counts."""
    order, wide = TIFF_MARKS[data[:4]]
    (place,) = struct.unpack_from(order + ("Q" if wide else "L"), data, 8 if wide else 4)
    place = min(place, len(data))
    (count,) = struct.unpack_from(order + ("Q" if wide else "H"), data, place)
    if count > MAX_ENTRIES:
        raise DamageError(f"it has {count} tags")
    place += 8 if wide else 2
    layout = order + ("HHQ8s" if wide else "HHL4s")
    entries: dict[int, _Entry] = {}
    for _ in range(count):
        tag, kind, values, field = struct.unpack_from(layout, data, place)
        place += struct.calcsize(layout)
        if kind not in _SIZES or not values or tag in entries:
            continue
        where = place - len(field)
        if values * _SIZES[kind] > len(field):
            (where,) = struct.unpack(order + ("Q" if wide else "L"), field)
        entries[tag] = _Entry(kind, values, field, where)
    return _Directory(data, order, wide, entries)


def _check_entry(tag: int, entry: _Entry, data: bytes) -> None:
    if entry.values > (1 if tag in _ONCE else MAX_VALUES):
        raise DamageError(f"its tag {tag} has {entry.values} values")
    if entry.place + entry.size > len(data):
        raise DamageError(f"its tag {tag} is cut off")


def _check_layout(directory: _Directory, width: int, height: int) -> None:
    """Check that no more strips or tiles are named than the picture has.

    Decoders would paint them all, over one another.
    """
    if width < 1 or height < 1:
        raise DamageError("it has no size")
    samples = directory.number(_SAMPLES, 1)
    if samples > MAX_SAMPLES:
        raise DamageError(f"it has {samples} samples a pixel")
    planes = samples if directory.number(_PLANES, 1) == 2 else 1
    shapes = {_STRIPS: (width, max(1, directory.number(_ROWS_PER_STRIP, height)))}
    if _TILE_WIDTH in directory.entries or _TILES in directory.entries:
        columns, rows = directory.number(_TILE_WIDTH, 0), directory.number(_TILE_HEIGHT, 0)
        if not 0 < columns * rows <= MAX_TILE_PIXELS:
            raise DamageError(f"it has tiles of {columns} x {rows} pixels")
        shapes[_TILES] = columns, rows
    if not {_STRIPS, _TILES, _INTERCHANGED} & directory.entries.keys():
        raise DamageError("it says not where its pixels are")
    for tag, (columns, rows) in shapes.items():
        parts = directory.entries.get(tag)
        most = planes * -(-width // columns) * -(-height // rows)
        if parts is not None and parts.values > most:
            raise DamageError(f"it has {parts.values} strips or tiles where {most} are all")


def _write(directory: _Directory, needed: dict[int, _Entry]) -> bytes:
    """Return the file with another directory at its end; places of values stay theirs."""
    order, wide = directory.order, directory.wide
    view = memoryview(directory.data)
    place = len(view) + len(view) % 2
    if wide:
        head = bytes(view[:8]) + struct.pack(order + "Q", place)
        table = [struct.pack(order + "Q", len(needed))]
    else:
        head = bytes(view[:4]) + struct.pack(order + "L", place)
        table = [struct.pack(order + "H", len(needed))]
    for tag, entry in sorted(needed.items()):
        layout = order + ("HHQ" if wide else "HHL")
        table += [struct.pack(layout, tag, entry.kind, entry.values), entry.field]
    table.append(bytes(8 if wide else 4))  # no further directory
    return b"".join([head, view[len(head) :], b"\0" * (len(view) % 2), *table])
