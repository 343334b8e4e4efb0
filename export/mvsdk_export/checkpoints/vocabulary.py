"""tokenizer/vocab.json: the WordPiece vocabulary that the text encoder was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from mvsdk._json import describe
from mvsdk_export.checkpoints.documents import read_document


def check_vocabulary(path: Path) -> int:
    """Check a vocabulary file.

    Returns:
        Number of tokens.

    Raises:
        CheckpointError: If a bundle's tokenizer could not be made from it.
    """
    from mvsdk import tokenizers  # not above: it imports numpy

    document = read_document(
        path, most_bytes=tokenizers.MAX_VOCABULARY_BYTES, most_values=tokenizers.MAX_VALUES
    )
    document.choice("kind", ("wordpiece",))  # first: another kind has other keys
    document.check_keys(("kind", "tokens"), ("lowercase", "continuation", "pad", "unk"))
    document.boolean("lowercase", default=True)
    document.text("continuation", "##", least=0, most=tokenizers.MAX_MARK)
    value = document.values["tokens"]
    tokens = cast("list[str]", value) if isinstance(value, list) else []
    if not tokens or not all(type(token) is str and token for token in tokens):
        document.fail("tokens", "a list of non-empty strings")
    if len(tokens) > tokenizers.MAX_TOKENS:
        document.fail("tokens", f"at most {tokenizers.MAX_TOKENS}")
    if longer := [token for token in tokens if len(token) > tokenizers.MAX_TOKEN]:
        most = f"tokens of at most {tokenizers.MAX_TOKEN} letters, not {describe(longer[0])}"
        document.fail("tokens", most)
    if len(set(tokens)) != len(tokens):
        document.fail("tokens", "each token once")
    for role, usual in (("pad", "[PAD]"), ("unk", "[UNK]")):
        token = document.text(role, usual, most=tokenizers.MAX_MARK)
        if token not in tokens:
            document.fail("tokens", f"a list with the {role} token {describe(token)}")
    return len(tokens)
