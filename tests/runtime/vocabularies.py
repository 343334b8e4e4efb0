"""Vocabularies of a few tokens, one of each kind, as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LETTERS = ["a", "b", "a</w>", "b</w>", "ab</w>"]
SMALL: dict[str, dict[str, Any]] = {
    "wordpiece": {"tokens": ["[PAD]", "[UNK]", "a", "##b"]},
    "clip_bpe": {
        "tokens": ["<s>", "<e>", *LETTERS],
        "merges": ["a b</w>"],
        **{"start": "<s>", "end": "<e>", "pad": "<e>", "unk": "<e>"},
    },
    "t5_unigram": {
        "tokens": ["<pad>", "</s>", "<unk>", "\u2581", "a", "b", "\u2581a"],
        "scores": [0, 0, 0, -2, -2.5, -3, -3.25],
        **{"pad": "<pad>", "unk": "<unk>", "end": "</s>"},
    },
}


def write_vocabulary(folder: Path, vocabulary: object) -> Path:
    """Write vocab.json."""
    path = folder / "vocab.json"
    path.write_text(json.dumps(vocabulary), "utf-8")
    return path


def small_vocabulary(folder: Path, kind: str, **changes: Any) -> Path:
    """Write the vocabulary of a kind, with some keys changed."""
    return write_vocabulary(folder, {"kind": kind, **SMALL[kind], **changes})
