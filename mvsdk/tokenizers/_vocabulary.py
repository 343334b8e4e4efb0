"""Vocabulary files, read strictly and within bounds: rules T20 to T27 of docs/tokenizers.md.

Whatever the bytes are, the only exception that leaves this module is `BundleError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from mvsdk._json import (
    SURROGATE,
    StrictJsonError,
    describe,
    has_more_values,
    listed,
    parse_strictly,
    quote,
)
from mvsdk._text import json_fault
from mvsdk.errors import BundleError

MAX_VOCABULARY_BYTES = 8 << 20
"""Largest vocabulary file that is read."""
MAX_TOKENS = 2**20
"""Tokens of a vocabulary; as many merges or scores."""
MAX_TOKEN = 256
"""Code points of a token: more than a word and the mark before it have."""
MAX_MARK = 64
"""Code points of a token with a task of its own, such as `pad`, and of `continuation`."""
MAX_VALUES = MAX_TOKENS + 16
"""Values of a vocabulary file with one list: its tokens, and what it says beside them."""

_NAMES = {str: "text", bool: "true or false", list: "a list"}


def read_vocabulary(
    path: Path,
    kind: str,
    *,
    required: Mapping[str, type],
    optional: Mapping[str, type] | None = None,
) -> dict[str, Any]:
    """Read the vocabulary file of a bundle.

    Args:
        path: The file.
        kind: What its `kind` has to be.
        required: Key -> type of its value: str, bool, or list.
        optional: Likewise, of keys that may be left out.

    Returns:
        The values of the keys that are given, without `kind`. What lists hold is not looked at,
        except that a text in a list of one is well-formed.

    Raises:
        BundleError: If the file is missing, too big or not such a vocabulary.
    """
    types = {**required, **(optional or {})}
    lists = sum(value is list for value in types.values())
    fields = _read_object(path, lists * MAX_TOKENS + 16)
    found = fields.pop("kind", None)
    if type(found) is not str or found != kind:
        _fail(path, f"has kind {describe(found)}; known: {kind}", "T24")
    if missing := [name for name in required if name not in fields]:
        _fail(path, f"lacks {', '.join(missing)}; export again", "T23")
    if unknown := [name for name in fields if name not in types]:
        _fail(path, f"has unknown keys: {listed(map(quote, unknown))}; export again", "T23")
    for name, value in fields.items():
        if type(value) is not types[name]:
            _fail(path, f"has {name} {describe(value)}, expected {_NAMES[types[name]]}", "T23")
        if _broken(value):
            _fail(path, f"has half a surrogate pair in {name}; export again", "T22")
    return fields


def _read_object(path: Path, most_values: int) -> dict[str, Any]:
    document: object = None
    try:
        if path.stat().st_size > MAX_VOCABULARY_BYTES:
            _fail(path, f"is larger than {MAX_VOCABULARY_BYTES} bytes", "T20")
        payload = path.read_bytes()
        if has_more_values(payload, most_values):
            _fail(path, f"holds more than {MAX_TOKENS} tokens; export again with fewer", "T21")
        document = parse_strictly(payload)
    except OSError as exc:
        _fail(path, f"cannot be read: {exc.strerror or exc}", "T20", exc)
    except StrictJsonError as exc:
        where, got, want, _ = exc.args
        _fail(path, f"is not strict JSON: {where} is {got}, expected {want}", "T22", exc)
    except json.JSONDecodeError as exc:
        place = json_fault(exc)
        _fail(path, f"cannot be read as JSON: {place}; export again", "T22", exc)
    except UnicodeDecodeError as exc:
        _fail(path, f"is not UTF-8 at byte {exc.start}; export again", "T22", exc)
    except RecursionError as exc:
        _fail(path, "is nested too deeply; export again", "T22", exc)
    except ValueError as exc:  # Python refuses to read integers of more than 4300 digits
        _fail(path, "holds an oversized number; export again", "T22", exc)
    if not isinstance(document, dict):
        _fail(path, "is not a JSON object; export again", "T23")
    return cast("dict[str, Any]", document)


def _broken(value: object) -> bool:
    """Return whether half a surrogate pair is in a text, or in a text of a list."""
    texts: list[object] = cast("list[object]", value) if isinstance(value, list) else [value]
    return any(isinstance(text, str) and SURROGATE.search(text) is not None for text in texts)


def _fail(path: Path, fault: str, rule: str, cause: Exception | None = None) -> NoReturn:
    raise BundleError(f"vocabulary {path.name} {fault}", rule=rule) from cause


def number_tokens(tokens: Sequence[object]) -> dict[str, int]:
    """Return the number of every token: its place, from 0.

    Raises:
        BundleError: If there is none or too many, or one is no text, empty, too long or repeated.
    """
    if not 0 < len(tokens) <= MAX_TOKENS:
        raise BundleError(
            f"vocabulary has {len(tokens)} tokens, 1 to {MAX_TOKENS} are allowed; export again",
            rule="T25",
        )
    for token in tokens:
        if type(token) is not str or not token:
            raise BundleError(
                f"vocabulary has the token {describe(token)}, expected text of one letter or more; "
                "export again",
                rule="T25",
            )
    texts = cast("Sequence[str]", tokens)
    check_length("token", max(texts, key=len), MAX_TOKEN, "T25")
    ids = {token: index for index, token in enumerate(texts)}
    if len(ids) != len(texts):
        again = next(token for index, token in enumerate(texts) if ids[token] != index)
        raise BundleError(
            f"vocabulary holds the token {quote(again)} twice; export again", rule="T25"
        )
    return ids


def check_roles(ids: Mapping[str, int], **roles: str) -> None:
    """Check the tokens that have a task of their own.

    Args:
        ids: Token -> number.
        **roles: Task -> token.

    Raises:
        BundleError: If one is too long, or not in the vocabulary.
    """
    for role, token in roles.items():
        check_length(role, token, MAX_MARK, "T26")
        if token not in ids:
            raise BundleError(
                f"vocabulary lacks its {role} token {quote(token)}; export again", rule="T27"
            )


def check_length(what: str, text: str, most: int, rule: str) -> None:
    """Check the length of a text of a vocabulary.

    Raises:
        BundleError: If it has more than `most` code points.
    """
    if len(text) > most:
        raise BundleError(
            f"vocabulary has the {what} {quote(text)}, at most {most} letters are allowed; "
            "export again with a shorter one",
            rule=rule,
        )
