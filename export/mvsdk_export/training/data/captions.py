"""Captions from a written grammar: subjects, how they move, how large they are, the colour behind.

A caption is `article [size] name [joint article name] [motion phrase] [background phrase]`. What it
leaves out is either ordinary (no motion phrase means `still`, no size means `normal`) or open (no
background phrase means any colour, and the noise decides which: `choices.py`).

Two kinds of things are kept out of training so that tests can ask for them: every subject has one
motion and one background that it is never seen with (`held_out_motion`, `held_out_background`), and
the wordings of `HELD_OUT` are never used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product

import numpy as np

from mvsdk_export.training.data.sources import DataError
from mvsdk_export.training.data.sprites import Subject

DIRECTIONS = ("left", "right", "up", "down")
MOTIONS = ("still", *DIRECTIONS, "zoom in", "zoom out", "spin", "flip")

BACKGROUNDS: Mapping[str, tuple[int, int, int]] = {
    "red": (220, 50, 47),
    "orange": (245, 140, 30),
    "yellow": (250, 215, 60),
    "green": (60, 170, 75),
    "blue": (50, 105, 220),
    "purple": (130, 65, 185),
    "pink": (250, 160, 195),
    "white": (250, 250, 250),
    "black": (16, 16, 16),
    "gray": (135, 135, 135),
}
"""Colour name -> RGB."""

SIZES: Mapping[str, tuple[str, ...]] = {
    "normal": (),
    "small": ("small", "tiny", "little"),
    "big": ("big", "huge", "large"),
}
"""Size -> adjectives that say it."""

JOINTS = ("and", "next to", "beside")
"""What stands between two subjects: the first is on the left."""

VERBS: Mapping[str, tuple[str, ...]] = {
    "any": ("gliding",),
    "rocket": ("flying", "zooming"),
    "fly": ("flying",),
    "float": ("floating", "drifting"),
    "drive": ("driving",),
    "ride": ("riding", "driving"),
    "rail": ("driving", "rolling"),
    "sail": ("sailing",),
    "swim": ("swimming",),
    "walk": ("walking", "running"),
    "gallop": ("running", "galloping"),
    "hop": ("hopping", "jumping"),
    "crawl": ("crawling", "walking"),
    "roll": ("rolling",),
    "slide": ("sliding",),
}
"""Kind of subject -> what it does when it moves."""

ANY_VERBS = ("moving", "going", "passing", "wandering")
"""What every subject can be said to do."""

SPECIAL_PHRASES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("rocket", "up"): ("taking off", "launching"),
    ("rocket", "down"): ("landing",),
    ("fly", "down"): ("landing",),
    ("float", "up"): ("rising", "floating away"),
    ("float", "down"): ("sinking",),
    ("swim", "down"): ("diving",),
    ("hop", "up"): ("jumping high",),
}
"""(kind, motion) -> phrases that say the direction without naming it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The phrases that a caption may be put together from."""

    articles: tuple[tuple[str, float], ...]
    """(article, weight); "a" becomes "an" where it must, "" leaves the article out."""
    verbs: tuple[str, ...]
    """Verbs for every kind of subject; training adds those of `VERBS`."""
    directions: Mapping[str, tuple[str, ...]]
    """Direction -> phrases that follow a verb."""
    bare: Mapping[str, tuple[str, ...]]
    """Motion -> phrases that need no verb."""
    backgrounds: tuple[str, ...]
    """Phrases with `{colour}`."""


TRAINING = Wording(
    articles=(("a", 0.7), ("the", 0.1), ("", 0.1), ("one", 0.04), ("my", 0.03), ("that", 0.03)),
    verbs=ANY_VERBS,
    directions={
        "left": ("left", "to the left", "from right to left", "leftward", "off to the left side"),
        "right": (
            "right",
            "to the right",
            "from left to right",
            "rightward",
            "off to the right side",
        ),
        "up": ("up", "upwards", "upward", "to the top", "from bottom to top"),
        "down": ("down", "downwards", "downward", "to the bottom", "from top to bottom"),
    },
    bare={
        "still": ("standing still", "staying in place", "not moving", "at rest"),
        "up": ("rising",),
        "down": ("falling",),
        "zoom in": ("zooming in", "coming closer", "growing", "getting bigger", "becoming bigger"),
        "zoom out": ("zooming out", "moving away", "shrinking", "getting smaller", "getting tiny"),
        "spin": ("spinning", "rotating", "spinning around", "turning in circles"),
        "flip": ("flipping", "turning around", "doing flips", "flipping over"),
    },
    backgrounds=(
        "on {colour}",
        "on a {colour} background",
        "with a {colour} background",
        "in front of {colour}",
        "in front of a {colour} wall",
        "with {colour} behind",
    ),
)

HELD_OUT = Wording(
    articles=(("this", 1.0),),
    verbs=("heading", "travelling"),
    directions={
        "left": ("leftwards", "towards the left"),
        "right": ("rightwards", "towards the right"),
        "up": ("towards the top",),
        "down": ("towards the bottom",),
    },
    bare={
        "still": ("staying still",),
        "zoom in": ("getting larger",),
        "zoom out": ("becoming smaller",),
        "spin": ("rotating around",),
        "flip": ("turning over",),
    },
    backgrounds=("against a {colour} backdrop", "over {colour}", "against {colour}"),
)
"""Wordings that training never uses, for measuring what words mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a clip shows, before any pixel is drawn."""

    subject: int
    """Index into the subjects."""
    background: str
    """A key of `BACKGROUNDS`."""
    motion: str = "still"
    """One of `MOTIONS`."""
    size: str = "normal"
    """A key of `SIZES`."""
    partner: int | None = None
    """Index of a second subject, to the right of the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A scene in words."""

    text: str
    """Lower-case words separated by single spaces."""
    names_background: bool
    """Whether the colour is said, or open."""


def held_out_motion(subject: Subject) -> str:
    """Return the motion in which training never shows a subject, decided by its id.

    It is never the one direction in which a sprite is mirrored: a clip that shows the mirrored
    sprite for the first time would ask for what no other clip of the subject has shown.
    """
    mirrored = {"left": "right", "right": "left"}.get(subject.facing)
    motions = [motion for motion in MOTIONS[1:] if motion != mirrored]
    return motions[_digest(subject, "motion") % len(motions)]


def held_out_background(subject: Subject) -> str:
    """Return the background on which training never shows a subject, decided by its id."""
    return list(BACKGROUNDS)[_digest(subject, "background") % len(BACKGROUNDS)]


def _digest(subject: Subject, what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{subject.id} {what}".encode()).digest()[:8])


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSampler:
    """Draws scenes and words for them; equal generators give equal captions."""

    subjects: tuple[Subject, ...]
    wording: Wording = TRAINING
    pair_probability: float = 0.1
    """How often two subjects stand side by side, still."""
    still_probability: float = 0.2
    size_probability: float = 0.15
    """How often a scene is of another size than normal."""
    name_still_probability: float = 0.2
    """How often a still clip is said to be still."""
    name_background_probability: float = 0.75
    noun_probability: float = 0.7
    """How often the noun is used and not a synonym."""

    def __post_init__(self) -> None:
        """Check that every subject can be moved."""
        for subject in self.subjects:
            if subject.kind not in VERBS:
                raise DataError(
                    f"subject {subject.id} has kind {subject.kind!r}; known: {', '.join(VERBS)}"
                )

    def sample_scene(self, rng: np.random.Generator) -> Scene:
        """Draw a scene that training may show."""
        index, motion, size = int(rng.integers(len(self.subjects))), "still", "normal"
        subject, partner = self.subjects[index], None
        if rng.random() < self.pair_probability and len(self.subjects) > 1:
            partner = int((index + rng.integers(1, len(self.subjects))) % len(self.subjects))
        elif rng.random() >= self.still_probability:
            motion = _choose(rng, [m for m in MOTIONS[1:] if m != held_out_motion(subject)])
        if partner is None and rng.random() < self.size_probability:
            size = _choose(rng, list(SIZES)[1:])
        colours = [name for name in BACKGROUNDS if name != held_out_background(subject)]
        return Scene(
            subject=index,
            motion=motion,
            background=_choose(rng, colours),
            size=size,
            partner=partner,
        )

    def sample_held_out_scene(self, rng: np.random.Generator) -> Scene:
        """Draw a scene that training never shows: its motion, its colour, or both."""
        index = int(rng.integers(len(self.subjects)))
        subject = self.subjects[index]
        motion, background = held_out_motion(subject), held_out_background(subject)
        which = int(rng.integers(3))
        if which == 0:
            background = _choose(rng, [name for name in BACKGROUNDS if name != background])
        elif which == 1:
            motion = _choose(rng, [name for name in MOTIONS if name != motion])
        return Scene(subject=index, motion=motion, background=background)

    def caption(
        self, scene: Scene, rng: np.random.Generator, *, name_everything: bool = False
    ) -> Caption:
        """Put a scene into words.

        Args:
            scene: What to describe.
            rng: Source of every choice.
            name_everything: Leave nothing open.
        """
        words = [self._phrase(scene.subject, scene.size, rng)]
        if scene.partner is not None:
            words += [_choose(rng, JOINTS), self._phrase(scene.partner, scene.size, rng)]
        moves = scene.motion != "still"
        if moves or (scene.partner is None and rng.random() < self.name_still_probability):
            kind = self.subjects[scene.subject].kind
            words.append(_choose(rng, motion_phrases(kind, scene.motion, self.wording)))
        named = name_everything or bool(rng.random() < self.name_background_probability)
        if named:
            phrase = _choose(rng, self.wording.backgrounds).format(colour=scene.background)
            words.append(phrase.replace("a orange", "an orange"))
        return Caption(text=" ".join(words), names_background=named)

    def _phrase(self, index: int, size: str, rng: np.random.Generator) -> str:
        subject = self.subjects[index]
        name = subject.noun
        if subject.synonyms and rng.random() >= self.noun_probability:
            name = _choose(rng, subject.synonyms)
        if size != "normal":
            name = f"{_choose(rng, SIZES[size])} {name}"
        return _with_article(self._sample_article(rng), name)

    def _sample_article(self, rng: np.random.Generator) -> str:
        articles, weights = zip(*self.wording.articles, strict=True)
        return str(rng.choice(articles, p=weights))


def motion_phrases(kind: str, motion: str, wording: Wording = TRAINING) -> tuple[str, ...]:
    """List the ways to say how a subject moves.

    Args:
        kind: A key of `VERBS`.
        motion: One of `MOTIONS`.
        wording: Where verbs and directions come from. Verbs of the kind itself and
            `SPECIAL_PHRASES` belong to `TRAINING` alone.

    Returns:
        Phrases; a phrase with the kind's own verb stands twice, so that it is chosen more often.
    """
    bare = wording.bare.get(motion, ())
    if motion not in DIRECTIONS:
        return bare
    own = VERBS[kind] * 2 if wording is TRAINING else ()
    special = SPECIAL_PHRASES.get((kind, motion), ()) if wording is TRAINING else ()
    pairs = product((*own, *wording.verbs), wording.directions[motion])
    return (*(f"{verb} {where}" for verb, where in pairs), *bare, *special)


def all_words(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """List every word that a caption can hold, held-out wordings too, sorted.

    A vocabulary made from these has no unknown word in any caption.
    """
    phrases = chain(
        chain.from_iterable((*subject.names, *subject.keywords) for subject in subjects),
        chain.from_iterable(_all_phrases(TRAINING)),
        chain.from_iterable(_all_phrases(HELD_OUT)),
        chain.from_iterable(SIZES.values()),
        JOINTS,
        BACKGROUNDS,
        ("a an",),
    )
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


def _all_phrases(wording: Wording) -> Iterator[Sequence[str]]:
    yield [article for article, _ in wording.articles]
    yield [phrase.replace("{colour}", "") for phrase in wording.backgrounds]
    for kind, motion in product(VERBS, MOTIONS):
        yield motion_phrases(kind, motion, wording)


def _with_article(article: str, name: str) -> str:
    if article == "a" and name[0] in "aeiou" and not name.startswith(("uni", "ufo", "one", "eu")):
        article = "an"
    return f"{article} {name}" if article else name


def _choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
