"""Tokenizers whose rows hold no token of a text (T6)."""

from __future__ import annotations

from corpus.cases import Malformed, put
from corpus.places import MOTION


def add_tokenizers(corpus: Malformed) -> None:
    """Add cases of `max_length`."""
    for base, name, kind, length in (
        (MOTION, "clip", "clip_bpe", 2),
        (MOTION, "clip", "clip_bpe", 1),
        ("video_to_video", "main", "t5_unigram", 1),
    ):
        where = f"tokenizers.{name}.max_length"
        corpus.wrong(
            "T6",
            base,
            f"{kind} in rows of {length}",
            where,
            put(where, length),
            put("components.text_encoder.inputs[0].shape", [1, length]),
        )
