"""Emoji, animated and still, as arrays: decoded once, kept as premultiplied RGBA in one file."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvsdk._staging import replacing
from mvsdk_export.training.data.sources import (
    EMOJIBASE,
    FLUENT_EMOJI,
    DataError,
    emoji_key,
    extract_members,
    fetch_package,
)

logger = logging.getLogger(__name__)

Facing = Literal["left", "right", "none"]

_CACHE_VERSION = 3
_MAX_CANVAS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One thing that a clip can show."""

    id: str
    codepoints: str
    noun: str
    synonyms: tuple[str, ...]
    """Other words for it that a caption may use."""
    keywords: tuple[str, ...]
    """Words that mean it alone, but make no caption: "mining" for a pick."""
    kind: str
    """How it moves: a key of `captions.VERBS`."""
    facing: Facing
    """Where its picture looks; a clip mirrors it to face its movement."""

    def __post_init__(self) -> None:
        """Check what the type cannot say."""
        if self.facing not in get_args(Facing):
            raise DataError(
                f"subject {self.id} faces {self.facing!r}; allowed: {', '.join(get_args(Facing))}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The noun, then the synonyms."""
        return (self.noun, *self.synonyms)


def load_subjects(path: Path | None = None) -> tuple[Subject, ...]:
    """Read the list of subjects.

    Args:
        path: A JSON file like `subjects.json`; None reads the one of this package.

    Raises:
        DataError: The file cannot be read, lacks a key, or names a subject twice.
    """
    source = files("mvsdk_export.training.data") / "subjects.json" if path is None else path
    try:
        rows = json.loads(source.read_text(encoding="utf-8"))["subjects"]
        subjects = tuple(_parse_subject(row) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DataError(f"cannot read subjects from {source}: {exc!r}") from exc
    ids = [subject.id for subject in subjects]
    doubles = sorted({name for name in ids if ids.count(name) > 1})
    if doubles:
        raise DataError(f"{source} names {', '.join(doubles)} twice; ids must be unique")
    return subjects


def _parse_subject(row: Mapping[str, Any]) -> Subject:
    return Subject(
        id=row["id"],
        codepoints=row["codepoints"],
        noun=row["noun"],
        synonyms=tuple(row["synonyms"]),
        keywords=tuple(row["keywords"]),
        kind=row["kind"],
        facing=row["facing"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprites:
    """Looping animations of N subjects, `source_frames` each, on a square canvas."""

    subjects: tuple[Subject, ...]
    rgba: NDArray[np.uint8]
    """(N, source_frames, size, size, 4), colour premultiplied by alpha."""

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        shape = self.rgba.shape
        counts = {len(self.subjects), *shape[:1]}
        if len(shape) != 5 or shape[4] != 4 or shape[2] != shape[3] or len(counts) != 1:
            raise DataError(
                f"sprites have shape {shape} for {len(self.subjects)} subjects; "
                "allowed: (subjects, frames, size, size, 4)"
            )

    @property
    def size(self) -> int:
        """Side of the canvas in pixels."""
        return self.rgba.shape[2]

    @property
    def source_frames(self) -> int:
        """Frames of one loop."""
        return self.rgba.shape[1]

    def index(self, subject_id: str) -> int:
        """Find a subject by its id.

        Raises:
            DataError: No such subject.
        """
        for position, subject in enumerate(self.subjects):
            if subject.id == subject_id:
                return position
        known = ", ".join(subject.id for subject in self.subjects)
        raise DataError(f"unknown subject {subject_id!r}; known: {known}")

    def select(self, subject_ids: Sequence[str]) -> Sprites:
        """Return some of the subjects, in the order given.

        Raises:
            DataError: No such subject.
        """
        chosen = [self.index(subject_id) for subject_id in subject_ids]
        return Sprites(
            subjects=tuple(self.subjects[index] for index in chosen), rgba=self.rgba[chosen]
        )


def build_sprites(
    work: Path,
    *,
    size: int = 64,
    source_frames: int = 24,
    subjects: Sequence[Subject] | None = None,
) -> Path:
    """Fetch, decode and cache the sprites; what is already there is not done again.

    Args:
        work: Work folder. Packages go to `data/packages`, images to `data/emoji` and the cache to
            `data/sprites-<version>.npz`.
        size: Side of a sprite in pixels: at least the height of a clip.
        source_frames: Frames kept of each loop, evenly spread over it.
        subjects: What to decode; None takes the list of this package.

    Returns:
        Path for `load_sprites`.

    Raises:
        DataError: The packages cannot be fetched or are not the pinned ones.
    """
    chosen = load_subjects() if subjects is None else tuple(subjects)
    cache = sprite_cache(work, size=size, source_frames=source_frames, subjects=chosen)
    if cache.is_file():
        return cache
    images = _fetch_images(work, chosen)
    rgba = np.zeros((len(chosen), source_frames, size, size, 4), np.uint8)
    for index, subject in enumerate(chosen):
        rgba[index] = decode_sprite(images[subject.id], size=size, source_frames=source_frames)
        logger.info("decoded %s (%d of %d)", subject.id, index + 1, len(chosen))
    save_sprites(turn_left(Sprites(subjects=chosen, rgba=rgba)), cache)
    return cache


def turn_left(sprites: Sprites) -> Sprites:
    """Mirror the sprites that look right.

    Then one rule says when a clip mirrors a sprite: of those that are drawn looking somewhere,
    next to none look right, too few to learn another one from.
    """
    subjects, rgba = list(sprites.subjects), sprites.rgba.copy()
    for index, subject in enumerate(subjects):
        if subject.facing == "right":
            subjects[index] = replace(subject, facing="left")
            rgba[index] = rgba[index, :, :, ::-1]
    return Sprites(subjects=tuple(subjects), rgba=rgba)


def sprite_cache(
    work: Path,
    *,
    size: int = 64,
    source_frames: int = 24,
    subjects: Sequence[Subject] | None = None,
) -> Path:
    """Return where `build_sprites` keeps its result, there or not."""
    chosen = load_subjects() if subjects is None else tuple(subjects)
    return work / "data" / f"sprites-{_data_version(chosen, size, source_frames)}.npz"


def has_names(work: Path) -> bool:
    """Say whether the names of emoji were fetched."""
    return (work / "data" / "emoji" / "data.json").is_file()


def fetch_names(work: Path) -> Path:
    """Return the file of emoji names, for `read_emoji_names`; fetch it if it is not there.

    Raises:
        DataError: The package cannot be fetched or is not the pinned one.
    """
    folder = work / "data" / "emoji"
    if not has_names(work):
        extract_members(
            fetch_package(EMOJIBASE, work / "data" / "packages"),
            folder,
            lambda member: "data.json" if member == "package/en/data.json" else None,
            expected=("data.json",),
        )
    return folder / "data.json"


def _data_version(subjects: Sequence[Subject], size: int, source_frames: int) -> str:
    parts = [_CACHE_VERSION, size, source_frames]
    parts += [package.sha256 for package in FLUENT_EMOJI]
    parts += [_subject_to_json(subject) for subject in subjects]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _fetch_images(work: Path, subjects: Sequence[Subject]) -> dict[str, Path]:
    """Return the WebP file of every subject id."""
    packages, folder = work / "data" / "packages", work / "data" / "emoji"
    images = {subject.id: folder / f"{emoji_key(subject.codepoints)}.webp" for subject in subjects}
    missing = {path.name for path in images.values() if not path.is_file()}
    for package in FLUENT_EMOJI:
        if not missing:
            break
        archive = fetch_package(package, packages)
        found = extract_members(archive, folder, partial(_asset_name, missing=frozenset(missing)))
        missing -= {path.name for path in found}
    if missing:
        raise DataError(f"no emoji package holds {', '.join(sorted(missing))}; see subjects.json")
    return images


def _asset_name(member: str, *, missing: frozenset[str]) -> str | None:
    prefix, suffix = "package/assets/", ".webp"
    if not (member.startswith(prefix) and member.endswith(suffix)):
        return None
    name = emoji_key(member[len(prefix) : -len(suffix)]) + suffix
    return name if name in missing else None


def decode_sprite(path: Path, *, size: int, source_frames: int) -> NDArray[np.uint8]:
    """Decode an animated image to evenly spread frames of its loop.

    Args:
        path: Any animated image that Pillow reads; a still image gives equal frames.
        size: Side of the result in pixels.
        source_frames: Frames of the result.

    Returns:
        (source_frames, size, size, 4) uint8, colour premultiplied by alpha.

    Raises:
        DataError: The file is damaged or too large.
    """
    frames = np.empty((source_frames, size, size, 4), np.uint8)
    try:
        with Image.open(path) as image:
            if max(image.size) > _MAX_CANVAS:
                raise DataError(f"{path} is {image.size} pixels, at most {_MAX_CANVAS} a side")
            count = getattr(image, "n_frames", 1)
            wanted = [index * count // source_frames for index in range(source_frames)]
            for source, frame in _iterate_frames(image, sorted(set(wanted))):
                # Pillow weights colour by alpha while it filters, but hands back straight alpha.
                small = frame.resize((size, size), Image.Resampling.BOX)
                frames[[i for i, w in enumerate(wanted) if w == source]] = premultiply(small)
    except (OSError, EOFError, ValueError) as exc:
        raise DataError(f"cannot decode {path}: {exc}; remove it and run again") from exc
    return frames


def _iterate_frames(image: Image.Image, wanted: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
    for index in wanted:
        image.seek(index)
        yield index, image.convert("RGBA")


def premultiply(image: Image.Image) -> NDArray[np.uint8]:
    """Turn an RGBA image into (H, W, 4) uint8 with colour premultiplied by alpha."""
    pixels = np.asarray(image, dtype=np.uint16)
    result = pixels.copy()
    result[..., :3] = (pixels[..., :3] * pixels[..., 3:] + 127) // 255
    return result.astype(np.uint8)


def save_sprites(sprites: Sprites, path: Path) -> None:
    """Write the cache file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {
        "cache_version": _CACHE_VERSION,
        "subjects": [_subject_to_json(subject) for subject in sprites.subjects],
    }
    with replacing(path) as temporary, temporary.open("wb") as sink:
        np.savez(sink, rgba=sprites.rgba, meta=np.array(json.dumps(meta)))


def load_sprites(path: Path) -> Sprites:
    """Read a cache file that `build_sprites` wrote.

    Raises:
        DataError: The file is missing, damaged or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            meta = json.loads(str(archive["meta"]))
            rgba = archive["rgba"]
        if meta["cache_version"] != _CACHE_VERSION:
            raise DataError(f"{path} is of another cache version; remove it and build it again")
        return Sprites(
            subjects=tuple(_parse_subject(row) for row in meta["subjects"]),
            rgba=rgba,
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as exc:
        raise DataError(f"cannot read sprites from {path}: {exc}; build them again") from exc


def _subject_to_json(subject: Subject) -> dict[str, Any]:
    return {
        "id": subject.id,
        "codepoints": subject.codepoints,
        "noun": subject.noun,
        "synonyms": list(subject.synonyms),
        "keywords": list(subject.keywords),
        "kind": subject.kind,
        "facing": subject.facing,
    }
