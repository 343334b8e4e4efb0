"""The vocabulary that a text encoder was trained with: a file of ours, or those of CLIP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mvsdk._json import describe
from mvsdk._text import quoted
from mvsdk.manifest import TokenizerKind
from mvsdk_export.checkpoints.documents import Document, read_document
from mvsdk_export.checkpoints.locations import locate
from mvsdk_export.errors import CheckpointError

TOKENIZER_FILE = "tokenizer/vocab.json"
_MERGES = "tokenizer/merges.txt"
_TOGETHER = "tokenizer/tokenizer.json"
_SETTINGS = ("tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json")
_ROLES = {"start": "bos_token", "end": "eos_token", "pad": "pad_token", "unk": "unk_token"}
_START, _END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """A vocabulary, checked."""

    size: int
    """Tokens."""
    files: tuple[Path, ...]
    """What it was read from."""
    content: bytes | None = None
    """What a bundle ships; None for the file itself."""

    def to_bytes(self) -> bytes:
        """Return the file that a bundle ships."""
        return self.files[0].read_bytes() if self.content is None else self.content


def open_vocabulary(root: Path, kind: TokenizerKind, *, is_own: bool) -> Vocabulary:
    """Open the vocabulary of a model folder.

    Args:
        root: The folder.
        kind: Of the tokenizer.
        is_own: Whether we wrote the folder: then the file is as bundles have it.

    Raises:
        CheckpointError: If a bundle's tokenizer could not be made from it.
    """
    if kind == "clip_bpe":
        return _own_bpe(root) if is_own else _public_bpe(root)
    path = locate(root, TOKENIZER_FILE)
    return Vocabulary(size=check_vocabulary(path), files=(path,))


def _own_bpe(root: Path) -> Vocabulary:
    path = locate(root, TOKENIZER_FILE)
    document = _read(path)
    document.choice("kind", ("clip_bpe",))
    document.check_keys(("kind", "tokens", "merges", *_ROLES))
    tokens = document.values["tokens"]
    size = len(cast("list[object]", tokens)) if isinstance(tokens, list) else 0
    return _checked(root, document.values, (path,), size)


def _public_bpe(root: Path) -> Vocabulary:
    """Read CLIP's vocabulary as transformers writes it: two files, or one of the fast tokenizer."""
    if (root / _TOGETHER).is_file() and not (root / TOKENIZER_FILE).is_file():
        files = [locate(root, _TOGETHER)]
        model = _read(files[0]).values.get("model")
        together = cast("Mapping[str, object]", model if isinstance(model, dict) else {})
        numbers, merges = together.get("vocab"), together.get("merges")
    else:
        files = [locate(root, TOKENIZER_FILE), locate(root, _MERGES)]
        numbers, merges = _read(files[0]).values, _read_merges(files[1])
    tokens = _in_order(files[0], numbers)
    if not isinstance(merges, list):
        raise CheckpointError(
            f"{quoted(files[-1])} holds no list of merges; download the tokenizer again"
        )
    roles = dict.fromkeys(_ROLES, _END) | {"start": _START}
    for name in _SETTINGS:
        if (root / name).is_file():
            files.append(locate(root, name))
            roles |= _roles(_read(files[-1]))
    content = {
        "kind": "clip_bpe",
        "tokens": tokens,
        "merges": [_merge(item) for item in cast("list[object]", merges)],
        **roles,
    }
    return _checked(root, content, tuple(files), len(tokens))


def _read(path: Path) -> Document:
    from mvsdk import tokenizers  # not above: it imports numpy

    return read_document(
        path, most_bytes=tokenizers.MAX_VOCABULARY_BYTES, most_values=2 * tokenizers.MAX_VALUES
    )


def _read_merges(path: Path) -> list[object]:
    from mvsdk import tokenizers

    with path.open("rb") as file:
        payload = file.read(tokenizers.MAX_VOCABULARY_BYTES + 1)
    if len(payload) > tokenizers.MAX_VOCABULARY_BYTES:
        raise CheckpointError(
            f"{quoted(path)} has more than {tokenizers.MAX_VOCABULARY_BYTES} bytes, the most that "
            "is read; download the tokenizer again"
        )
    try:
        lines = payload.decode("utf-8").split("\n")
    except UnicodeDecodeError as exc:
        raise CheckpointError(
            f"{quoted(path)} is not UTF-8 at byte {exc.start}; download the tokenizer again"
        ) from exc
    if lines[0].startswith("#version"):
        lines = lines[1:]
    return [line.rstrip("\r") for line in lines if line.strip()]


def _merge(item: object) -> object:
    """Return two pieces with a space between: newer files have them as a list of two."""
    if isinstance(item, list):
        parts = cast("list[object]", item)
        if len(parts) == 2 and all(type(part) is str for part in parts):
            return " ".join(cast("list[str]", parts))
    return item


def _in_order(path: Path, numbers: object) -> list[str]:
    """Return tokens by their numbers, which must be 0, 1, 2, ..."""
    values = cast("Mapping[str, object]", numbers) if isinstance(numbers, dict) else {}
    tokens: list[str | None] = [None] * len(values)
    for token, number in values.items():
        if type(number) is not int or not 0 <= number < len(tokens) or tokens[number] is not None:
            raise CheckpointError(
                f"{quoted(path)} gives token {describe(token)} the number {describe(number)}, "
                f"expected each of 0 to {len(tokens) - 1} once; download the tokenizer again"
            )
        tokens[number] = token
    if not tokens:
        raise CheckpointError(f"{quoted(path)} holds no tokens; download the tokenizer again")
    return cast("list[str]", tokens)


def _roles(document: Document) -> dict[str, str]:
    """Return what special tokens a file of settings names, as a word or an object of one."""
    found: dict[str, str] = {}
    for role, key in _ROLES.items():
        value = document.values.get(key)
        if isinstance(value, dict):
            value = cast("Mapping[str, object]", value).get("content")
        if type(value) is str:
            found[role] = value
    return found


def _checked(
    root: Path, content: Mapping[str, object], files: tuple[Path, ...], size: int
) -> Vocabulary:
    """Make the tokenizer once: it checks what a bundle would be refused for."""
    from mvsdk.errors import BundleError
    from mvsdk.tokenizers import ClipBpe

    given = {key: value for key, value in content.items() if key != "kind"}
    try:
        ClipBpe(max_length=77, **given)  # type: ignore[arg-type]
    except (BundleError, TypeError, AttributeError) as exc:
        raise CheckpointError(
            f"tokenizer of {quoted(root)}: {str(exc).splitlines()[0]}; download it again"
        ) from exc
    payload = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Vocabulary(size=size, files=files, content=payload)


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
