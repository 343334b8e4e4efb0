"""Tokenizers of a manifest: how a text becomes token numbers.

docs/bundle_format.md, section 7, and docs/tokenizers.md. Import these names from `mvsdk.manifest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mvsdk._json import Node
from mvsdk._prompts import MAX_LENGTH, TOKENIZER_KINDS, TOO_LONG, TokenizerKind, TooLong
from mvsdk.manifest.components import FileRef

LEAST_LENGTHS: Mapping[TokenizerKind, int] = {"wordpiece": 1, "clip_bpe": 3, "t5_unigram": 2}
"""One more than the tokens that stand around every text."""


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
        kind: TokenizerKind = f["kind"].choice(TOKENIZER_KINDS)
        max_length = f["max_length"].integer(1, MAX_LENGTH)
        if max_length < LEAST_LENGTHS[kind]:
            f["max_length"].fail(f"at least {LEAST_LENGTHS[kind]} for {kind}", "T6")
        return cls(
            kind=kind,
            file=FileRef.parse(f["file"]),
            max_length=max_length,
            too_long=f["too_long"].choice(TOO_LONG),
        )
