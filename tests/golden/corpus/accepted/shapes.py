"""Arrays that fit although some have sizes of 1 that others leave out."""

from __future__ import annotations

from corpus.cases import Accepted, Edit, put
from corpus.operations import carried, linear, looped, noise, numbers, run, take
from corpus.places import OPERATIONS, SAMPLE

LATENTS = [8, 16, 8, 8]
"""Of sticker."""


def add_shapes(corpus: Accepted) -> None:
    """Add cases of arrays, tensors and terms of equal sizes."""
    _tensors(corpus)
    _terms(corpus)
    _samples(corpus)
    _loops(corpus)


def _decoded(latents: str, *operations: object) -> list[Edit]:
    """Return edits of sticker: operations before the decoder, which takes what they make."""
    decoder = run("vae_decoder", {"latents": latents}, {"frames": "frames"})
    return [
        put(f"{OPERATIONS}[{number}]", operation)
        for number, operation in enumerate((*operations, decoder), start=4)
    ]


def _tensors(corpus: Accepted) -> None:
    for shape in ([], [1, 1, 1, 1, 1, 1, 1, 1]):
        corpus.right(
            "sticker",
            f"a timestep of the shape {shape}",
            put("components.unet.inputs[1].shape", shape),
        )
    corpus.right(
        "sticker",
        "sizes of 1 anywhere",
        put("components.text_encoder.outputs[0].shape", [16, 1, 128]),
    )
    corpus.right(
        "sticker",
        "sizes of 1 everywhere",
        put("components.unet.inputs[0].shape", [1, 8, 1, 16, 1, 8, 1, 8]),
    )
    corpus.right(
        "sticker",
        "tokens without the axis of one text",
        put("components.text_encoder.inputs[0].shape", [16]),
    )
    corpus.right(
        "animator",
        "a picture without the axis of one frame",
        put("components.image_encoder.inputs[0].shape", [256, 512, 3]),
        put("components.vae_encoder.inputs[0].shape", [256, 512, 3, 1]),
    )
    corpus.right(
        "animator", "a number without axes", put("components.vae_encoder.inputs[2].shape", [])
    )
    corpus.right(
        "upscale",
        "one frame of a clip without its axis",
        put("components.upscaler.inputs[0].shape", [180, 320, 3]),
    )


def _terms(corpus: Accepted) -> None:
    mixed = linear("mixed", ("grain", 0.5), ("latents", 1), ("dust", 0.25))
    corpus.right(
        "sticker",
        "terms with sizes of 1 in several places",
        *_decoded(
            "mixed", noise("grain", [8, 1, 16, 8, 8]), noise("dust", [*LATENTS, 1], 1), mixed
        ),
    )
    for shape in ([], [1] * 8):
        weighted = linear("mixed", ("latents", "weight"))
        corpus.right(
            "sticker",
            f"a factor of the shape {shape}",
            *_decoded("mixed", noise("weight", shape), weighted),
        )
    corpus.right(
        "sticker",
        "terms of one element",
        *_decoded(
            "mixed",
            numbers("one"),
            noise("other", [], 1),
            noise("third", [1, 1, 1], 2),
            linear("weight", ("other", "one"), ("one", "third"), ("third", "other")),
            linear("mixed", ("latents", "weight")),
        ),
    )


def _samples(corpus: Accepted) -> None:
    corpus.right(
        "sticker",
        "a model output with sizes of 1 besides",
        put("components.unet.outputs[0].shape", [1, 8, 16, 1, 8, 8]),
    )
    corpus.right(
        "sticker",
        "a start with sizes of 1 besides, one of which is shared",
        put(f"{OPERATIONS}[2].shape", [8, 1, 16, 8, 8]),
        put(f"{SAMPLE}.shared_axis", 1),
    )
    given = {
        "sample": "blended",
        "timestep": "timestep",
        "encoder_hidden_states": "encoder_hidden_states",
    }
    corpus.right(
        "sticker",
        "a model output with a size of 1 besides, carried on to the next step",
        put("components.unet.outputs[0].shape", [1, *LATENTS]),
        put(f"{SAMPLE}.carried", {"state": carried("start", "model_output", "ended")}),
        put(f"{SAMPLE}.operations[0]", linear("blended", ("model_input", 0.5), ("state", 0.5))),
        put(f"{SAMPLE}.operations[1]", run("unet", given, {"model_output": "model_output"})),
        *_decoded("mixed", linear("mixed", ("latents", 0.5), ("ended", 0.5))),
    )


def _loops(corpus: Accepted) -> None:
    # What takes the last place along the first axis fits the shape of the start alone.
    inside = [
        noise("drawn", [1, *LATENTS]),
        take("state", "row", 7),
        linear("following", ("drawn", 0.5), ("state", 0.5)),
    ]
    state = {"state": carried("latents", "following", "last")}
    corpus.right(
        "sticker",
        "a state that keeps the shape of its start",
        *_decoded(
            "late",
            looped("turn", inside, "row", "rows", count=8) | {"carried": state},
            linear("both", ("last", 0.5), ("rows", 0.5)),
            take("both", "late", 0, size=8),
        ),
    )
