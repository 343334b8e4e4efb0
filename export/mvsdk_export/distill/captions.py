"""Captions from a written grammar: a subject, how it moves, and the colour behind it.

A caption is `article name [motion phrase] [background phrase]`. What it leaves out has a meaning:
no motion phrase means `still`, no background phrase means `PLAIN`. (When it meant any colour, the
model painted the average of them.) Two kinds of things are kept out of training so that tests can
ask for them: every subject has one direction and one background
that it is never seen with (`subjects.json`), and the wordings of `HELD_OUT` are never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product

import numpy as np

from mvsdk_export.distill.sources import DataError
from mvsdk_export.distill.sprites import Subject

MOTIONS = ("still", "left", "right", "up", "down")

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

PLAIN = "white"
"""The background of a caption that names none."""

VERBS: Mapping[str, tuple[str, ...]] = {
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

ANY_VERBS = ("moving", "going")
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
    """Motion -> phrases that follow a verb."""
    bare: Mapping[str, tuple[str, ...]]
    """Motion -> phrases that need no verb."""
    backgrounds: tuple[str, ...]
    """Phrases with `{colour}`."""


TRAINING = Wording(
    articles=(("a", 0.8), ("the", 0.1), ("", 0.1)),
    verbs=ANY_VERBS,
    directions={
        "left": ("left", "to the left", "from right to left"),
        "right": ("right", "to the right", "from left to right"),
        "up": ("up", "upwards"),
        "down": ("down", "downwards"),
    },
    bare={
        "still": ("standing still", "staying in place", "not moving"),
        "left": (),
        "right": (),
        "up": ("rising",),
        "down": ("falling",),
    },
    backgrounds=(
        "on {colour}",
        "on a {colour} background",
        "with a {colour} background",
        "in front of {colour}",
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
    bare={"still": ("staying still",), "left": (), "right": (), "up": (), "down": ()},
    backgrounds=("against a {colour} backdrop", "over {colour}", "against {colour}"),
)
"""Wordings that training never uses, for measuring what words mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a clip shows, before any pixel is drawn."""

    subject: int
    """Index into the subjects."""
    motion: str
    background: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSampler:
    """Draws scenes and words for them; equal generators give equal captions."""

    subjects: tuple[Subject, ...]
    wording: Wording = TRAINING
    still_probability: float = 0.28
    name_still_probability: float = 0.2
    """How often a still clip is said to be still."""
    plain_probability: float = 0.3
    """How often the background is made `PLAIN`, whatever colour was drawn."""
    name_plain_probability: float = 0.4
    """How often a plain background is named; every other one always is."""
    noun_probability: float = 0.55
    """How often the noun is used and not a synonym."""

    def __post_init__(self) -> None:
        """Check that every subject can be moved and held out."""
        for subject in self.subjects:
            if (
                subject.kind not in VERBS
                or subject.held_out_motion not in MOTIONS[1:]
                or subject.held_out_background not in BACKGROUNDS
            ):
                raise DataError(
                    f"subject {subject.id} has kind {subject.kind!r} and holds out "
                    f"{subject.held_out_motion!r} and {subject.held_out_background!r}; "
                    "allowed are the keys of VERBS, a direction of MOTIONS and a BACKGROUNDS colour"
                )

    def sample_scene(self, rng: np.random.Generator) -> Scene:
        """Draw a scene that training may show."""
        index = int(rng.integers(len(self.subjects)))
        subject = self.subjects[index]
        motion = "still"
        if rng.random() >= self.still_probability:
            motion = _choose(rng, [m for m in MOTIONS[1:] if m != subject.held_out_motion])
        colours = [name for name in BACKGROUNDS if name != subject.held_out_background]
        background = _choose(rng, colours)
        if PLAIN in colours and rng.random() < self.plain_probability:
            background = PLAIN
        return Scene(subject=index, motion=motion, background=background)

    def sample_held_out_scene(self, rng: np.random.Generator) -> Scene:
        """Draw a scene that training never shows: its direction, its colour, or both."""
        index = int(rng.integers(len(self.subjects)))
        subject = self.subjects[index]
        motion, background = subject.held_out_motion, subject.held_out_background
        which = int(rng.integers(3))
        if which == 0:
            background = _choose(rng, [name for name in BACKGROUNDS if name != background])
        elif which == 1:
            motion = _choose(rng, [name for name in MOTIONS if name != motion])
        return Scene(subject=index, motion=motion, background=background)

    def is_held_out(self, scene: Scene) -> bool:
        """Say whether training must not show a scene."""
        subject = self.subjects[scene.subject]
        return (
            scene.motion == subject.held_out_motion
            or scene.background == subject.held_out_background
        )

    def caption(
        self, scene: Scene, rng: np.random.Generator, *, name_everything: bool = False
    ) -> str:
        """Put a scene into words.

        Args:
            scene: What to describe.
            rng: Source of every choice.
            name_everything: Leave out neither the background nor a direction.

        Returns:
            Lower-case words separated by single spaces.
        """
        subject = self.subjects[scene.subject]
        name = subject.noun
        if subject.synonyms and rng.random() >= self.noun_probability:
            name = _choose(rng, subject.synonyms)
        words = [_with_article(self._sample_article(rng), name)]
        if scene.motion != "still" or rng.random() < self.name_still_probability:
            words.append(_choose(rng, motion_phrases(subject.kind, scene.motion, self.wording)))
        if (
            name_everything
            or scene.background != PLAIN
            or rng.random() < self.name_plain_probability
        ):
            phrase = _choose(rng, self.wording.backgrounds).format(colour=scene.background)
            words.append(phrase.replace("a orange", "an orange"))
        return " ".join(words)

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
    if motion == "still":
        return wording.bare["still"]
    own = VERBS[kind] * 2 if wording is TRAINING else ()
    special = SPECIAL_PHRASES.get((kind, motion), ()) if wording is TRAINING else ()
    pairs = product((*own, *wording.verbs), wording.directions[motion])
    return (*(f"{verb} {where}" for verb, where in pairs), *wording.bare[motion], *special)


def all_words(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """List every word that a caption can hold, held-out wordings too, sorted.

    A vocabulary made from these has no unknown word in any caption.
    """
    phrases = chain(
        chain.from_iterable(subject.names for subject in subjects),
        chain.from_iterable(_all_phrases(TRAINING)),
        chain.from_iterable(_all_phrases(HELD_OUT)),
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
