"""tokenizer/vocab.json: the WordPiece vocabulary that the text encoder was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from mvsdk_export.checkpoints.documents import read_document


def check_vocabulary(path: Path) -> int:
    """Check a vocabulary file.

    Returns:
        Number of tokens.

    Raises:
        CheckpointError: If a bundle's tokenizer could not be made from it.
    """
    from mvsdk.tokenizer import MAX_VOCABULARY_BYTES  # not above: it imports numpy

    document = read_document(path, most_bytes=MAX_VOCABULARY_BYTES)
    document.choice("kind", ("wordpiece",))  # first: another kind has other keys
    document.check_keys(("kind", "tokens"), ("lowercase", "continuation", "pad", "unk"))
    document.boolean("lowercase", default=True)
    document.text("continuation", "##")
    value = document.values["tokens"]
    tokens = cast("list[object]", value) if isinstance(value, list) else []
    if not tokens or not all(type(token) is str and token for token in tokens):
        document.fail("tokens", "a list of non-empty strings")
    if len(set(tokens)) != len(tokens):
        document.fail("tokens", "each token once")
    for role, usual in (("pad", "[PAD]"), ("unk", "[UNK]")):
        if document.text(role, usual) not in tokens:
            document.fail("tokens", f"a list with the {role} token {document.text(role, usual)!a}")
    return len(tokens)
