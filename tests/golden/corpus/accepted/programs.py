"""Programs that are odd but right."""

from __future__ import annotations

from corpus.cases import Accepted, copied, drop, put
from corpus.operations import linear, looped, numbers, take
from corpus.places import LOOP, OPERATIONS, SAMPLE


def add_programs(corpus: Accepted) -> None:
    """Add cases of programs."""
    corpus.right(
        "sticker",
        "the largest stream",
        put(f"{SAMPLE}.stream", 2**32 - 5),
        put(f"{OPERATIONS}[2].stream", 2**32 - 1),
    )
    corpus.right("sticker", "the last axis shared", put(f"{SAMPLE}.shared_axis", 3))
    corpus.right("sticker", "an empty mask name", put(f"{OPERATIONS}[0].mask", "mask_of_nothing"))
    corpus.right(
        "sticker",
        "a text around the prompt",
        put(f"{OPERATIONS}[0].before", "a "),
        put(f"{OPERATIONS}[0].after", ", 🚀 "),
    )
    corpus.right(
        "sticker",
        "a name of 64 letters",
        put(f"{OPERATIONS}[2].output", "s" * 64),
        put(f"{SAMPLE}.start", "s" * 64),
    )
    corpus.right(
        "video_to_video",
        "a clip without a prompt",
        put(f"{OPERATIONS}[0].input", None),
        drop("programs[0].inputs.prompt"),
    )
    number = "programs[0].inputs.noise_level"
    corpus.right(
        "video_to_video",
        "a number of one value",
        put(f"{number}.minimum", 0.25),
        put(f"{number}.maximum", 0.25),
        put(f"{number}.default", 0.25),
    )
    fps = "programs[0].inputs.fps"
    corpus.right(
        "animator",
        "frames per second as wide as they may be",
        put(f"{fps}.minimum", 0.1),
        put(f"{fps}.maximum", 240),
    )
    taken, collected = f"{LOOP}.operations[0]", f"{LOOP}.collected.part_frames"
    corpus.right(
        "animator",
        "a loop from the end",
        put(f"{taken}.start", {"start": 12, "steps": {"part": -2}}),
    )
    corpus.right(
        "animator",
        "a place of the caller",
        put(f"{taken}.start", {"start": -5, "steps": {"motion": 1, "part": 1}}),
        put(
            "programs[0].inputs.motion",
            {"kind": "number", "minimum": 5, "maximum": 11, "default": 7, "whole": True},
        ),
    )
    corpus.right(
        "animator",
        "the same frame again and again",
        put(f"{taken}.stride", 0),
        put(f"{taken}.start", {"start": 13, "steps": {"part": -2}}),
    )
    corpus.right(
        "animator",
        "an overlap of half",
        put(f"{LOOP}.count", 13),
        put(f"{taken}.start.steps.part", 1),
        put(f"{collected}.overlap", 1),
        put(f"{collected}.blend", "first"),
    )
    corpus.right(
        "upscale",
        "a loop of one",
        put(f"{OPERATIONS}[0].count", 1),
        put("programs[0].video.frames", 1),
    )
    nested = numbers("e")
    for count, index, made, output in (
        (65536, "k", "e", "d"),
        (2, "j", "d", "c"),
        (1, "i", "c", "b"),
        (1, "h", "b", "a"),
    ):
        nested = looped(index, [nested], made, output, count=count)
    far = take("a", "zero", 131071, stride=2**31 - 1)
    corpus.right(
        "upscale",
        "four levels",
        put(f"{OPERATIONS}[1]", nested),
        put(f"{OPERATIONS}[2]", far),
        put(f"{OPERATIONS}[3]", linear("end", ("large", "zero"))),
        put("programs[0].output", "end"),
    )
    corpus.right(
        "fairy_cache",
        "noise of its own for every frame",
        put(f"{OPERATIONS}[10].shared_axis", None),
    )
    corpus.right(
        "several_sizes",
        "the other size first",
        copied("programs[2]", "programs[0]"),
        drop("programs[0]"),
    )
    corpus.right("neodragon", "one program of two", drop("programs[0]"), drop("tables.no_last"))
