"""What tokenizers and manifests both say of texts: kinds, bounds, white space.

Light: a manifest is read without a tokenizer. docs/tokenizers.md has the rules.
"""

from __future__ import annotations

from typing import Literal, get_args

TokenizerKind = Literal["wordpiece", "clip_bpe", "t5_unigram"]
TooLong = Literal["refuse", "cut"]

TOKENIZER_KINDS: tuple[TokenizerKind, ...] = get_args(TokenizerKind)
TOO_LONG: tuple[TooLong, ...] = get_args(TooLong)

MAX_PROMPT = 4096
"""Code points allowed in a prompt: far above any text length, far below what would cost time."""
MAX_LENGTH = 65536
"""Largest `max_length`."""

WHITE_SPACE = frozenset(
    "\t\n\r \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space, without the control characters that no prompt may hold."""


def is_blank(text: str) -> bool:
    """Return whether a text is empty, or white space alone (rule T4)."""
    return WHITE_SPACE.issuperset(text)
