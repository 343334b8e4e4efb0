"""Tokenizers of a manifest: how a text becomes token numbers.

docs/bundle_format.md, section 7, and docs/tokenizers.md. Import these names from `mvsdk.manifest`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from mvsdk._json import Node
from mvsdk.manifest.components import FileRef

TokenizerKind = Literal["wordpiece", "clip_bpe", "t5_unigram"]
TooLong = Literal["refuse", "cut"]

TOKENIZER_KINDS: tuple[TokenizerKind, ...] = get_args(TokenizerKind)
TOO_LONG: tuple[TooLong, ...] = get_args(TooLong)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """How a text becomes token numbers (1, max_length)."""

    kind: TokenizerKind = "wordpiece"
    file: FileRef
    """The vocabulary."""
    max_length: int
    too_long: TooLong = "refuse"
    """What happens to a text of more tokens."""

    @classmethod
    def parse(cls, node: Node) -> TokenizerSpec:
        """Read the tokenizer."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            kind=f["kind"].choice(TOKENIZER_KINDS),
            file=FileRef.parse(f["file"]),
            max_length=f["max_length"].integer(1, 65536),
            too_long=f["too_long"].choice(TOO_LONG),
        )
