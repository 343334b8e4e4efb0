"""Vocabulary files of every kind: what could be read in two ways is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vocabularies import SMALL, small_vocabulary

from mvsdk.errors import BundleError
from mvsdk.tokenizers import KINDS, MAX_TOKENS, ClipBpe, T5Unigram, load_tokenizer


def _edited(kind: str, **changes: Any) -> bytes:
    return json.dumps({"kind": kind, **SMALL[kind], **changes}).encode()


def _spoiled(kind: str, old: str, new: str) -> bytes:
    text = _edited(kind).decode()
    assert old in text
    return text.replace(old, new, 1).encode()


def _without(kind: str, key: str) -> bytes:
    return json.dumps({"kind": kind, **{k: v for k, v in SMALL[kind].items() if k != key}}).encode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("make", "rule", "words"),
    [
        (lambda kind: b"\xef\xbb\xbf" + _edited(kind), "T22", "unexpected utf-8 bom"),
        (lambda kind: _edited(kind).decode().encode("utf-16"), "T22", "not UTF-8"),
        (lambda kind: _edited(kind) + b"\xc0\x80", "T22", "not UTF-8"),
        (lambda kind: _edited(kind) + b",", "T22", "extra data"),
        (lambda kind: _spoiled(kind, "{", '{"kind": "x",'), "T22", "'kind' is given twice"),
        (lambda kind: _edited(kind, more=None), "T23", "unknown keys: 'more'"),
        (lambda kind: _without(kind, "tokens"), "T23", "lacks tokens"),
        (lambda kind: _edited(kind, pad=float("nan")), "T22", "NaN"),
        (lambda kind: _spoiled(kind, '"tokens"', '"more": -Infinity, "tokens"'), "T22", "-Inf"),
        (lambda kind: _edited(kind, tokens=["\ud800", "a"]), "T22", "surrogate pair in tokens"),
        (lambda kind: _edited(kind, pad="\udfff"), "T22", "surrogate pair in pad"),
        (lambda kind: b'{"more": ' + b"9" * 5000 + b"}", "T22", "oversized number"),
        (lambda kind: _edited(kind, pad=1), "T23", "has pad 1, expected text"),
        (lambda kind: _edited(kind, tokens={}), "T23", "has tokens an object"),
        (lambda kind: b"[" * 100_000, "T22", "nested too deeply"),
        (lambda kind: b"[]", "T23", "not a JSON object"),
        (
            lambda kind: json.dumps({**SMALL[kind], "kind": "kiwi"}).encode(),
            "T24",
            "has kind 'kiwi'; known: ",
        ),
        (lambda kind: _edited(kind, tokens=[]), "T25", "has 0 tokens"),
        (lambda kind: _edited(kind, tokens=["a", ""]), "T25", "has the token ''"),
        (lambda kind: _edited(kind, tokens=["a", None]), "T25", "has the token null"),
        (lambda kind: _edited(kind, tokens=["a", "b", "a"]), "T25", "the token 'a' twice"),
        (lambda kind: _edited(kind, tokens=["a" * 257]), "T25", "at most 256 letters"),
        (lambda kind: _edited(kind, pad="p" * 65), "T26", "at most 64 letters"),
        (lambda kind: _edited(kind, unk="nowhere"), "T27", "lacks its unk token 'nowhere'"),
        (lambda kind: b"[" + b"0," * (2 * MAX_TOKENS + 16), "T21", "more than 1048576 tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_readers_could_take_in_two_ways_are_refused(
    tmp_path: Path, kind: Any, make: Callable[[str], bytes], rule: str, words: str
) -> None:
    path = tmp_path / "vocab.json"
    path.write_bytes(make(kind))
    with pytest.raises(BundleError, match=re.escape(words)) as caught:
        load_tokenizer(path, kind=kind, max_length=4)
    assert caught.value.rule == rule
    assert str(caught.value).endswith(f"[{rule}]")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, kind: Any) -> None:
    for other in KINDS:
        path = small_vocabulary(tmp_path, other)
        if other == kind:
            load_tokenizer(path, kind=kind, max_length=4)
            continue
        with pytest.raises(BundleError, match=rf"has kind '{other}'; known: {kind} \[T24\]"):
            load_tokenizer(path, kind=kind, max_length=4)


@pytest.mark.parametrize(
    "merges",
    [
        ["a b"],
        ["ab</w>"],
        ["a  b</w>"],
        [" a b</w>"],
        ["a z"],
        [3],
        [None],
        ["a b</w>", "a b</w>"],
    ],
    ids=str,
)
def test_merges_are_two_tokens_that_make_a_third(tmp_path: Path, merges: list[Any]) -> None:
    with pytest.raises(BundleError, match=r"the merge .*\[T41\]"):
        ClipBpe.from_file(small_vocabulary(tmp_path, "clip_bpe", merges=merges), 4)


@pytest.mark.parametrize(
    "score", [0.1, 1.5e6, -2e6, 10**400, True, None, "1", [], 1e-60, 16777217], ids=str
)
def test_scores_are_numbers_of_float32(tmp_path: Path, score: Any) -> None:
    scores = [*SMALL["t5_unigram"]["scores"][:-1], score]
    with pytest.raises(BundleError, match=r"the score .*\[T61\]"):
        T5Unigram.from_file(small_vocabulary(tmp_path, "t5_unigram", scores=scores), 4)


def test_there_are_as_many_scores_as_tokens(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"1 scores for 7 tokens; .*\[T61\]"):
        T5Unigram.from_file(small_vocabulary(tmp_path, "t5_unigram", scores=[0]), 4)
