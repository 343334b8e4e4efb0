"""Text to token numbers, specified so that Kotlin and Swift give the same numbers.

The rules, each with an id, are in docs/tokenizers.md; errors name the id of what was broken. Three
kinds of vocabularies are known, each by a class of its own: `wordpiece`, `clip_bpe`, `t5_unigram`.
"""

from __future__ import annotations

from pathlib import Path

from mvsdk._arguments import check_choice
from mvsdk._prompts import MAX_LENGTH, MAX_PROMPT, TokenizerKind, TooLong
from mvsdk.tokenizers._tokens import Tokenizer, Tokens, check_prompt
from mvsdk.tokenizers._vocabulary import (
    MAX_MARK,
    MAX_TOKEN,
    MAX_TOKENS,
    MAX_VALUES,
    MAX_VOCABULARY_BYTES,
)
from mvsdk.tokenizers.clip_bpe import ClipBpe
from mvsdk.tokenizers.t5_unigram import T5Unigram
from mvsdk.tokenizers.wordpiece import MAX_WORD, WordPiece

__all__ = [  # noqa: RUF022 - grouped by use
    # open and use
    "Tokenizer",
    "Tokens",
    "load_tokenizer",
    "check_prompt",
    "TokenizerKind",
    "TooLong",
    # the kinds
    "WordPiece",
    "ClipBpe",
    "T5Unigram",
    "KINDS",
    # bounds
    "MAX_LENGTH",
    "MAX_MARK",
    "MAX_PROMPT",
    "MAX_TOKEN",
    "MAX_TOKENS",
    "MAX_VALUES",
    "MAX_VOCABULARY_BYTES",
    "MAX_WORD",
]

KINDS: dict[TokenizerKind, type[WordPiece] | type[ClipBpe] | type[T5Unigram]] = {
    "wordpiece": WordPiece,
    "clip_bpe": ClipBpe,
    "t5_unigram": T5Unigram,
}
"""Kind of a vocabulary file -> the class that reads it."""


def load_tokenizer(
    path: Path, *, kind: TokenizerKind, max_length: int, too_long: TooLong = "refuse"
) -> Tokenizer:
    """Open a vocabulary file.

    Args:
        path: JSON file as docs/tokenizers.md has it.
        kind: What its `kind` has to be.
        max_length: Length of every encoded prompt, 1 to `MAX_LENGTH`; of `clip_bpe` at least 3, of
            `t5_unigram` 2, as they add tokens at the ends.
        too_long: Whether a prompt of more tokens is refused, or cut and the rest counted in
            `Tokens.dropped`.

    Raises:
        BundleError: If the file is missing, too big or not such a vocabulary.
        InputError: If the kind is not known, or `too_long` is another word.
    """
    known = KINDS[check_choice("kind", kind, KINDS)]
    return known.from_file(path, max_length, too_long=too_long)
