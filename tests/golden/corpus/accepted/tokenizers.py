"""Tokenizers of the least and the largest length (T6)."""

from __future__ import annotations

from corpus.cases import Accepted, put
from corpus.places import MOTION

KINDS = (
    ("sticker", "main", "wordpiece", 1),
    ("video_to_video", "main", "t5_unigram", 2),
    (MOTION, "clip", "clip_bpe", 3),
)
"""Golden manifest, its tokenizer, the kind of that, and the tokens of a row for one of a text."""


def add_tokenizers(corpus: Accepted) -> None:
    """Add cases of `max_length`."""
    for base, name, kind, least in KINDS:
        for length in (least, 65536):
            corpus.right(
                base,
                f"{kind} in rows of {length}",
                put(f"tokenizers.{name}.max_length", length),
                put("components.text_encoder.inputs[0].shape", [1, length]),
            )
