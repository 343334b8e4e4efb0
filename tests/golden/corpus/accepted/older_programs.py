"""Documents of versions 1 and 2 that become longer programs: decoders in parts, and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corpus.cases import Accepted, Edit, copied, put
from corpus.operations import looped, numbers, run, take
from corpus.places import IMAGE_2, OPERATIONS, TEXT_1, TEXT_2, UNET

DECODER = "components.vae_decoder"
PLAIN = {"dtype": "float32", "scale": None, "zero_point": None}
TAIL = 3
"""Operations behind the constants: `noise`, `sample` and the decoder."""


@dataclass(frozen=True, slots=True)
class Older:
    """A golden document of an older version, and what has to be known to edit it."""

    base: str
    frames: int
    """Of the clip, and of its latents."""
    variants: int
    """Of each component."""
    inputs: int
    """Of the denoiser."""
    operations: int
    """Of what it becomes."""


TEXT = Older(TEXT_1, 8, 2, 3, 5)
PHONES = Older(TEXT_2, 8, 7, 3, 5)
IMAGE = Older(IMAGE_2, 14, 3, 4, 8)
Changes = tuple[tuple[Edit, ...], tuple[Edit, ...]]
"""Edits of a document, and those of what it becomes."""


def add_older_programs(corpus: Accepted) -> None:
    """Add cases of section 10."""
    for older, parts in ((TEXT, 2), (TEXT, 8), (PHONES, 4), (IMAGE, 7)):
        _add(corpus, older, f"a decoder in {parts} parts", _parts(older, parts))
    _add(corpus, TEXT, "four frames for one of latents", _parts(TEXT, 4, frames=32))
    eleven = {f"n{number}": [number] for number in range(1, 12)}
    for older, constants in (
        (TEXT, {"size_2": [64, 64], "size_10": [0.5], "Zoom": [-1.5, 0, 1e-7]}),
        (TEXT, eleven),
        (PHONES, {"b": [1e16], "a": [3]}),
        (IMAGE, {"image_only_indicator": [0] * 14, "aesthetic": [6.5]}),
    ):
        _add(corpus, older, f"{len(constants)} constants", _constants(older, constants))
    parts, constants = _parts(TEXT, 4), _constants(TEXT, {"b": [1, 2], "a": [3]})
    both = (*parts[0], *constants[0]), (*parts[1], *constants[1])
    _add(corpus, TEXT, "two constants and a decoder in parts", both)


def _add(corpus: Accepted, older: Older, name: str, changes: Changes) -> None:
    corpus.upgraded(older.base, f"{older.base} with {name}", *changes[0], changes=changes[1])


def _parts(older: Older, parts: int, *, frames: int | None = None) -> Changes:
    """Let the decoder take a part of the latents at once."""
    frames = frames or older.frames
    at_once = older.frames // parts
    sizes = {"inputs": at_once, "outputs": frames // parts}
    inside = [
        take("latents", "part_latents", {"start": 0, "steps": {"part": at_once}}, size=at_once),
        run("vae_decoder", {"latents": "part_latents"}, {"frames": "part_frames"}),
    ]
    loop = looped("part", inside, "part_frames", "frames", count=parts)
    before = (
        put("video.frames", frames),
        *(
            put(f"{DECODER}.variants[{number}].{side}[0].shape[0]", size)
            for number in range(older.variants)
            for side, size in sizes.items()
        ),
    )
    after = (
        put("programs[0].video.frames", frames),
        *(put(f"{DECODER}.{side}[0].shape[0]", size) for side, size in sizes.items()),
        put(f"{OPERATIONS}[{older.operations - 1}]", loop),
    )
    return before, after


def _constants(older: Older, constants: Mapping[str, Sequence[float]]) -> Changes:
    """Give the denoiser further inputs, which are constant."""
    places = {name: older.inputs + number for number, name in enumerate(constants)}
    tensors = {name: {"name": name, "shape": [len(x)]} for name, x in constants.items()}
    before = (
        *(put(f"sampler.conditioning.{name}", list(values)) for name, values in constants.items()),
        *(
            put(f"{UNET}[{number}].inputs[{place}]", {**tensors[name], **PLAIN})
            for number in range(older.variants)
            for name, place in places.items()
        ),
    )
    count, length = len(constants), older.operations
    first = length - TAIL
    arrays = {name: f"constant_{number}" for number, name in enumerate(sorted(constants), start=1)}
    run_inputs = f"{OPERATIONS}[{first + count + 1}].operations[0].inputs"
    after = (
        *(
            put(f"components.unet.inputs[{place}]", {**tensors[name], "type": "real"})
            for name, place in places.items()
        ),
        *(
            put(f"{UNET}[{number}].inputs[{place}]", {"name": name, **PLAIN})
            for number in range(older.variants)
            for name, place in places.items()
        ),
        *(put(f"{OPERATIONS}[{length + number}]", None) for number in range(count)),
        *(
            copied(f"{OPERATIONS}[{place + count}]", f"{OPERATIONS}[{place}]")
            for place in reversed(range(first, length))
        ),
        *(
            put(f"{OPERATIONS}[{first + number}]", numbers(array, *constants[name]))
            for number, (name, array) in enumerate(arrays.items())
        ),
        *(put(f"{run_inputs}.{name}", array) for name, array in arrays.items()),
    )
    return before, after
