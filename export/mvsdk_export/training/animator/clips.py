"""Clips whose motion can be told from their first frame, and from one number beside it.

A subject that looks to one side travels there; drawn mirrored, it looks and travels to the other.
One that looks nowhere moves as its kind does (`MOVES`). The motion bucket says how far: at 0
a subject stays in its place and is animated, at 127 it goes the ordinary way, at 255 twice as far.

Some subjects are never seen in training (`held_out_subjects`), every other one has a background on
which it is never seen (`captions.held_out_background`), and some that look to a side are never seen
mirrored (`is_never_mirrored`): tests can ask for all three.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mvsdk_export.families.animator.recipe import ANIMATOR
from mvsdk_export.training.data.captions import BACKGROUNDS, held_out_background
from mvsdk_export.training.data.clips import CHANCES, ClipOptions, Layer, StickerClips
from mvsdk_export.training.data.sources import DataError
from mvsdk_export.training.data.sprites import Sprites, Subject

Move = Literal["left", "right", "rise", "hop", "sway", "approach"]

MOVES: Mapping[str, Move] = {
    "any": "hop",
    "rocket": "rise",
    "fly": "rise",
    "float": "rise",
    "hop": "hop",
    "crawl": "sway",
    "swim": "sway",
    "roll": "sway",
    "slide": "sway",
    "walk": "approach",
    "gallop": "approach",
    "drive": "approach",
    "ride": "approach",
    "rail": "approach",
    "sail": "approach",
}
"""Kind of subject -> how it moves if it looks nowhere."""

ORDINARY_BUCKET = int(ANIMATOR.conditioning["added_time_ids"][1])
MAX_BUCKET = 255

TRAVEL = 0.125
"""Way of a subject that travels or rises, over the side of the frame, at the ordinary bucket: one
position of the latents. Where it was 14 pixels, half an hour of training left what moves a blur."""

HEIGHT = 0.08
"""Height of a hop, likewise."""

SWING = 0.06
"""Way to either side of one that sways, likewise."""

GROWTH = 0.15
"""Growth of one that comes closer, over its own size, likewise."""

JITTER = 24
"""Largest change of a background from its named colour by chance, of every channel."""

FACING_SHARE = 0.5
"""Share of training's clips that show a subject which looks to a side: there are few of them."""

BUCKET_SHARES = (0.5, 0.1)
"""Share of training's clips with the ordinary bucket, and with 0; all others are even."""

MOST_HELD_OUT = 12
"""Subjects that training never sees, at most, of those that look to a side and of all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a clip begins with, and how far it goes: all that decides its frames."""

    subject: int
    """Index into the subjects."""
    background: str
    """A key of `BACKGROUNDS`: the colour is near it."""
    colour: tuple[int, int, int]
    """RGB of the background."""
    mirrored: bool = False
    bucket: int = ORDINARY_BUCKET
    """0 to 255."""
    chances: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """In [0, 1]: scale, place across, place down."""


def move_of(subject: Subject, *, mirrored: bool) -> Move:
    """Return how a subject moves."""
    if subject.facing == "none":
        return MOVES[subject.kind]
    looks_left = (subject.facing == "left") != mirrored
    return "left" if looks_left else "right"


def held_out_subjects(subjects: Sequence[Subject]) -> frozenset[int]:
    """Return the indices of subjects that training never sees, decided by their ids.

    Up to a third of those that look to a side, and of those that do not; `MOST_HELD_OUT` of each.
    """
    held: list[int] = []
    for faces in (True, False):
        group = [i for i, x in enumerate(subjects) if (x.facing != "none") == faces]
        group.sort(key=lambda index: _digest(subjects[index], "subject"))
        held += group[: min(MOST_HELD_OUT, len(group) // 3)]
    return frozenset(held)


def is_never_mirrored(subject: Subject) -> bool:
    """Say whether training shows a subject only as it was drawn: one in six that look to a side."""
    return subject.facing != "none" and _digest(subject, "mirrored") % 6 == 0


def _digest(subject: Subject, what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{subject.id} starts {what}".encode()).digest()[:8])


HeldOut = Literal["training", "backgrounds", "mirrorings", "subjects"]
"""Starts that training may show; subjects on the background that it never shows them on; mirrored
subjects that it never mirrors; subjects that it never shows."""


@dataclass(frozen=True)
class AnimatedClips:
    """The image-to-video data set: an endless stream of clips, decided by the caller's generator.

    Attributes:
        sprites: What there is to show.
        options: How it is drawn; `travel` is not used, `TRAVEL` is.
    """

    sprites: Sprites
    options: ClipOptions = field(
        default_factory=lambda: ClipOptions(scale=0.62, scale_spread=0.1, place_spread=0.06)
    )

    def __post_init__(self) -> None:
        """Check that every subject can be moved."""
        for subject in self.sprites.subjects:
            if subject.kind not in MOVES:
                raise DataError(
                    f"subject {subject.id} has kind {subject.kind!r}; known: {', '.join(MOVES)}"
                )

    @cached_property
    def held_out(self) -> frozenset[int]:
        """Subjects that training never sees."""
        return held_out_subjects(self.sprites.subjects)

    def sample_start(self, rng: np.random.Generator, kind: HeldOut = "training") -> Start:
        """Draw what a clip begins with.

        Args:
            rng: Source of every choice.
            kind: "training" never gives what the others give. Where there is nothing of a kind,
                whatever subjects there are stand in.
        """
        index = self._sample_subject(rng, kind)
        subject = self.sprites.subjects[index]
        held, mirrored = held_out_background(subject), bool(rng.random() < 0.5)
        colours = [name for name in BACKGROUNDS if name != held]
        background = colours[int(rng.integers(len(colours)))]
        if is_never_mirrored(subject) and kind != "subjects":
            mirrored = kind == "mirrorings"
        if kind == "backgrounds":
            background = held
        jitter = rng.integers(-JITTER, JITTER + 1, size=3)
        red, green, blue = (int(x) for x in np.clip(BACKGROUNDS[background] + jitter, 0, 255))
        scale, across, down = (float(x) for x in rng.random(CHANCES, np.float32))
        return Start(
            subject=index,
            background=background,
            colour=(red, green, blue),
            mirrored=mirrored,
            bucket=_sample_bucket(rng),
            chances=(scale, across, down),
        )

    def _sample_subject(self, rng: np.random.Generator, kind: HeldOut) -> int:
        wanted = rng.random() < FACING_SHARE
        subjects = self.sprites.subjects
        pool = [i for i in range(len(subjects)) if (i in self.held_out) == (kind == "subjects")]
        if kind == "mirrorings":
            pool = [i for i in pool if is_never_mirrored(subjects[i])]
        pool = pool or list(range(len(subjects)))
        group = [i for i in pool if (subjects[i].facing != "none") == wanted] or pool
        return group[int(rng.integers(len(group)))]

    def render(
        self, starts: Sequence[Start], moves: Sequence[Move] | None = None
    ) -> NDArray[np.uint8]:
        """Draw clips; their first frames are the pictures.

        Args:
            starts: What they begin with.
            moves: How their subjects move; None for as they do.

        Returns:
            (len(starts), F, H, W, 3) uint8 RGB.
        """
        drawing = StickerClips(sprites=self.sprites, options=self.options)
        size, count = self.options.size, self.options.frames
        frames = np.empty((len(starts), count, size, size, 3), np.uint8)
        chosen: Sequence[Move] = [self.move(x) for x in starts] if moves is None else moves
        for index, (start, move) in enumerate(zip(starts, chosen, strict=True)):
            frames[index] = drawing.composite(start.colour, [self.layer(start, move)])
        return frames

    def move(self, start: Start) -> Move:
        """Return how the subject of a start moves."""
        return move_of(self.sprites.subjects[start.subject], mirrored=start.mirrored)

    def faces(self, start: Start) -> bool:
        """Say whether the subject of a start looks to a side."""
        return self.sprites.subjects[start.subject].facing != "none"

    def layer(self, start: Start, move: Move) -> Layer:
        """Fix where a subject is in every frame."""
        options = self.options
        chance = 2.0 * np.array(start.chances) - 1.0
        scale = options.scale * (1.0 + options.scale_spread * chance[0])
        time = np.linspace(0.0, 1.0, options.frames)
        amount = start.bucket / ORDINARY_BUCKET
        ways, growth = _way(move, time)
        scales = np.repeat(scale * (1.0 + amount * growth)[:, None], 2, axis=1)
        if start.mirrored:
            scales[:, 0] *= -1.0
        return Layer(
            subject=start.subject,
            phase=0,
            centres=0.5 + options.place_spread * chance[1:] + amount * ways,
            scales=scales,
            angles=np.zeros(options.frames),
        )


def _way(move: Move, time: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ways `(F, 2)` right and down, and the growth `(F,)`, at the ordinary bucket."""
    still = np.zeros_like(time)
    match move:
        case "left" | "right":
            sign = 1.0 if move == "right" else -1.0
            return np.stack([sign * TRAVEL * time, still], axis=1), still
        case "rise":
            return np.stack([still, -TRAVEL * time], axis=1), still
        case "hop":
            return np.stack([still, -HEIGHT * np.sin(np.pi * time)], axis=1), still
        case "sway":
            return np.stack([SWING * np.sin(2.0 * np.pi * time), still], axis=1), still
        case "approach":
            return np.stack([still, still], axis=1), GROWTH * time


def _sample_bucket(rng: np.random.Generator) -> int:
    chance, even = rng.random(), int(rng.integers(MAX_BUCKET + 1))
    ordinary, none = BUCKET_SHARES
    if chance < ordinary:
        return ORDINARY_BUCKET
    return 0 if chance < ordinary + none else even
