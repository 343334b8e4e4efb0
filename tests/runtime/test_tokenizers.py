"""Tokenizers of every kind: the golden file that Kotlin and Swift read too, prompts, lengths."""

from __future__ import annotations

import json
import pickle
import random
import re
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from vocabularies import small_vocabulary, write_vocabulary

from mvsdk.errors import BundleError, InputError
from mvsdk.tokenizers import (
    MAX_LENGTH,
    MAX_PROMPT,
    ClipBpe,
    T5Unigram,
    Tokenizer,
    WordPiece,
    check_prompt,
    load_tokenizer,
)
from mvsdk.tokenizers import _unicode as unicode_13

ROOT = Path(__file__).parents[2]
GOLDEN: dict[str, Any] = json.loads((ROOT / "tests/golden/tokens.json").read_text("utf-8"))
STICKER = ROOT / "export/mvsdk_export/models/sticker/tokenizer/vocab.json"
RULES = ROOT / "docs/tokenizers.md"

CATEGORIES = {
    *("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe"),
    *("Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"),
}


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    found: dict[str, Tokenizer] = {}
    for name, reader in GOLDEN["readers"].items():
        vocabulary = GOLDEN["vocabularies"][reader["vocabulary"]]
        path = write_vocabulary(tmp_path_factory.mktemp(name), vocabulary)
        found[name] = load_tokenizer(
            path,
            kind=vocabulary["kind"],
            max_length=reader["max_length"],
            too_long=reader["too_long"],
        )
    return found


# Golden prompts


def _encode(reader: Tokenizer, prompt: str, pad: int) -> tuple[object, int]:
    """Return the row without its padding and how many tokens were dropped, or the rule broken."""
    try:
        tokens = reader.encode(prompt)
    except InputError as exc:
        return exc.rule, 0
    assert tokens.ids.dtype == np.int32
    assert tokens.ids.shape == (1, reader.max_length)
    ids = tokens.ids[0].tolist()
    while ids and ids[-1] == pad:
        ids.pop()
    return ids, tokens.dropped


@pytest.mark.parametrize("name", GOLDEN["readers"])
def test_golden_prompts_give_golden_tokens(readers: dict[str, Tokenizer], name: str) -> None:
    vocabulary = GOLDEN["vocabularies"][GOLDEN["readers"][name]["vocabulary"]]
    pad = vocabulary["tokens"].index(readers[name].pad)
    seen = 0
    for case in GOLDEN["cases"]:
        for key, wanted in case.items():
            reader, _, dropped = key.partition(":")
            if reader == name:
                prompt = case["text"] * case.get("times", 1)
                found = _encode(readers[name], prompt, pad)
                assert found == (wanted, int(dropped or 0)), ascii(case["text"])
                seen += 1
    assert seen == len(GOLDEN["cases"])


def test_golden_prompts_are_of_every_class_and_every_end() -> None:
    prompts = [case["text"] * case.get("times", 1) for case in GOLDEN["cases"]]
    classes = {unicode_13.category(char) for prompt in prompts for char in prompt}
    assert classes >= CATEGORIES - {"Cs"}
    assert {MAX_PROMPT, MAX_PROMPT + 1} <= set(map(len, prompts))
    results = {str(value) for case in GOLDEN["cases"] for value in case.values()}
    assert {"T2", "T3", "T4", "T8", "T37"} <= results


@pytest.mark.skipif(not STICKER.exists(), reason="needs the toolchain's sources")
def test_the_golden_vocabulary_of_sticker_is_the_one_that_ships() -> None:
    assert GOLDEN["vocabularies"]["sticker"] == json.loads(STICKER.read_text("utf-8"))


# Prompts


@pytest.mark.parametrize(
    ("prompt", "rule"),
    [
        ("a" * (MAX_PROMPT + 1), "T2"),
        ("\x00" * (MAX_PROMPT + 1), "T2"),
        ("a\x1c", "T3"),
        ("\x85", "T3"),
        ("a \udcff", "T3"),
        ("", "T4"),
        (" \u3000\u2029", "T4"),
    ],
    ids=ascii,
)
def test_refused_prompts_name_the_rule(prompt: str, rule: str) -> None:
    with pytest.raises(InputError, match=rf"\[{rule}\]$") as caught:
        check_prompt(prompt)
    assert caught.value.rule == rule


def test_a_prompt_may_be_blank_where_guidance_has_none(tmp_path: Path) -> None:
    check_prompt(" ", may_be_blank=True)
    clip = ClipBpe.from_file(small_vocabulary(tmp_path, "clip_bpe"), 4)
    assert clip.encode(" ").ids.tolist() == [[0, 1, 1, 1]]
    t5 = T5Unigram.from_file(small_vocabulary(tmp_path, "t5_unigram"), 3)
    assert t5.encode("").ids.tolist() == [[1, 0, 0]]


def test_errors_with_a_rule_travel_between_processes() -> None:
    for kind in (InputError, BundleError):
        error = pickle.loads(pickle.dumps(kind("it is wrong", rule="T3")))
        assert (str(error), error.rule) == ("it is wrong [T3]", "T3")
    assert InputError("it is wrong").rule is None


# Lengths


@pytest.mark.parametrize(
    ("kind", "fits", "cut"),
    [
        ("wordpiece", [2, 2, 2, 2], [2, 2, 2, 2]),
        ("clip_bpe", [0, 4, 4, 1], [0, 4, 4, 1]),
        ("t5_unigram", [6, 6, 6, 1], [6, 6, 6, 1]),
    ],
)
def test_long_prompts_are_refused_or_cut_before_the_end_token(
    tmp_path: Path, kind: Any, fits: list[int], cut: list[int]
) -> None:
    path, room = (
        small_vocabulary(tmp_path, kind),
        {"wordpiece": 4, "clip_bpe": 2, "t5_unigram": 3}[kind],
    )
    strict = load_tokenizer(path, kind=kind, max_length=4)
    assert strict.encode("a " * room).ids.tolist() == [fits]
    with pytest.raises(InputError, match=f"has {room + 1} tokens, .* at most {room}; .*T8"):
        strict.encode("a " * (room + 1))
    cutting = load_tokenizer(path, kind=kind, max_length=4, too_long="cut")
    tokens = cutting.encode("a " * (room + 5))
    assert tokens.ids.tolist() == [cut]
    assert tokens.dropped == 5
    assert cutting.encode("a").dropped == 0


@pytest.mark.parametrize(("kind", "least"), [("wordpiece", 1), ("clip_bpe", 3), ("t5_unigram", 2)])
def test_lengths_leave_room_for_a_token(tmp_path: Path, kind: Any, least: int) -> None:
    path = small_vocabulary(tmp_path, kind)
    for length in (least, MAX_LENGTH):
        assert load_tokenizer(path, kind=kind, max_length=length).max_length == length
    for length in (least - 1, MAX_LENGTH + 1):
        with pytest.raises(BundleError, match=f"max_length is {length}; allowed: {least} to"):
            load_tokenizer(path, kind=kind, max_length=length)


def test_other_words_for_kind_and_for_what_is_too_long_are_refused(tmp_path: Path) -> None:
    path = small_vocabulary(tmp_path, "wordpiece")
    with pytest.raises(InputError, match="kind is 'bpe'; allowed: wordpiece, clip_bpe, t5_unig"):
        load_tokenizer(path, kind="bpe", max_length=4)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="too_long is 'maybe'; allowed: refuse, cut"):
        WordPiece.from_file(path, 4, too_long="maybe")  # type: ignore[arg-type]


# Words that a vocabulary lacks


def test_unknown_words_are_named(tmp_path: Path) -> None:
    clip = ClipBpe.from_file(small_vocabulary(tmp_path, "clip_bpe"), 99)
    assert clip.unknown_words("ab ZOO ab zoo \U0001f680") == ("zoo", "\U0001f680")
    assert clip.knows_a_word("zoo ab")
    assert not clip.knows_a_word("zoo!")
    t5 = T5Unigram.from_file(small_vocabulary(tmp_path, "t5_unigram"), 99)
    assert t5.unknown_words("a zoo a zoo") == ("zoo",)
    assert t5.knows_a_word("zoo b")
    assert not t5.knows_a_word("zoo!")


# Paths


def test_of_equal_sums_the_one_with_the_longest_last_piece_stays() -> None:
    tokens = ["<pad>", "</s>", "<unk>", "\u2581", "=", "=="]
    tokenizer = T5Unigram(tokens, [0, 0, 0, -1, -2, -2], 8)
    assert tokenizer.encode("===").ids.tolist() == [[3, 4, 5, 1, 0, 0, 0, 0]]


def test_the_longest_prompts_take_no_long_time(readers: dict[str, Tokenizer]) -> None:
    import time

    start = time.process_time()
    for char in ("a", "\U0001f680", "\ufdfa", "\u0301", "'", "\uac00"):
        readers["clip"].encode(char * MAX_PROMPT)
        readers["t5"].encode(char * MAX_PROMPT)
    assert time.process_time() - start < 10


def test_long_pieces_that_stand_nowhere_take_no_long_time() -> None:
    import time

    letters = [*sorted(set(normalize("NFKC", "\ufdfa"))), "\u2581"]
    tokens = ["<pad>", "</s>", "<unk>", *letters, *(char + "x" * 255 for char in letters)]
    tokenizer = T5Unigram(tokens, [-1.0] * len(tokens), 65536, too_long="cut")
    start = time.process_time()
    tokenizer.encode("\ufdfa" * MAX_PROMPT)
    assert time.process_time() - start < 3


def test_pieces_are_found_as_if_each_was_tried() -> None:
    chance = random.Random(0)
    for _ in range(60):
        pieces = {"".join(chance.choices("ab\u2581", k=chance.randint(1, 6))) for _ in range(25)}
        tokens = ["<pad>", "</s>", "<unk>", *sorted(pieces, key=lambda _: chance.random())]
        tokenizer = T5Unigram(tokens, [0.0] * len(tokens), 8)
        text = "".join(chance.choices("abc\u2581", k=40))
        for first in range(len(text)):
            found = list(tokenizer._pieces_at(text, first))
            tried = [piece for piece in pieces if text.startswith(piece, first)]
            assert found == sorted(tried, key=len, reverse=True)


# The rules


@pytest.mark.skipif(not RULES.exists(), reason="needs the docs")
def test_every_rule_that_the_code_names_is_in_the_text() -> None:
    written = re.findall(r"^\| (T\d+) \|", RULES.read_text("utf-8"), re.MULTILINE)
    assert written == sorted(set(written), key=lambda rule: int(rule[1:]))
    sources = (ROOT / "mvsdk/tokenizers").glob("*.py")
    named = {rule for path in sources for rule in re.findall(r'"(T\d+)"', path.read_text("utf-8"))}
    assert named - set(written) == set()
