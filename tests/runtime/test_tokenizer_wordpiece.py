"""WordPiece, by a golden file that was worked out by hand, and by its own rules."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvsdk.errors import BundleError, InputError
from mvsdk.tokenizers import (
    MAX_MARK,
    MAX_PROMPT,
    MAX_TOKEN,
    MAX_TOKENS,
    MAX_VOCABULARY_BYTES,
    MAX_WORD,
    WordPiece,
)

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "tokenizer.json").read_text("utf-8")
)


@pytest.fixture
def tokenizer() -> WordPiece:
    keys = ("lowercase", "continuation", "pad", "unk")
    return WordPiece(GOLDEN["tokens"], GOLDEN["max_length"], **{key: GOLDEN[key] for key in keys})


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: ascii(case["prompt"]))
def test_golden_prompts_give_golden_tokens(tokenizer: WordPiece, case: dict[str, Any]) -> None:
    ids = tokenizer.encode(case["prompt"]).ids
    assert ids.dtype == np.int32
    assert ids.tolist() == [case["ids"]]


@pytest.mark.parametrize("prompt", GOLDEN["refused"], ids=ascii)
def test_golden_refusals_are_refused(tokenizer: WordPiece, prompt: str) -> None:
    with pytest.raises(InputError):
        tokenizer.encode(prompt)


def test_no_code_point_grows_in_lower_case_after_normalisation() -> None:
    """Rule T33 rests on this: without it Kotlin and Swift need Python's table."""
    for code in range(sys.maxunicode + 1):
        for char in unicodedata.normalize("NFKD", chr(code)):
            if unicodedata.category(char) not in {"Mn", "Cf"}:
                assert len(char.lower()) == 1, hex(code)


def test_a_prompt_that_is_too_long_names_both_counts(tokenizer: WordPiece) -> None:
    with pytest.raises(InputError, match="9 tokens, this model takes at most 8"):
        tokenizer.encode("a " * 9)


def test_a_control_character_is_named_with_its_place(tokenizer: WordPiece) -> None:
    with pytest.raises(InputError, match=r"U\+0007 at position 2"):
        tokenizer.encode("a \x07")


def test_half_a_surrogate_pair_is_refused(tokenizer: WordPiece) -> None:
    with pytest.raises(InputError, match=r"U\+DCFF"):
        tokenizer.encode("a \udcff")


def test_a_huge_prompt_is_refused_before_it_costs_time(tokenizer: WordPiece) -> None:
    with pytest.raises(InputError, match=f"at most {MAX_PROMPT}"):
        tokenizer.encode("a" * 10_000_000)


def test_a_word_beyond_the_limit_is_unknown() -> None:
    tokenizer = WordPiece(["[PAD]", "[UNK]", "a", "##a"], MAX_WORD)
    assert tokenizer.encode("a" * MAX_WORD).ids[0, 0] == 2
    assert tokenizer.encode("a" * (MAX_WORD + 1)).ids[0, 0] == 1


def test_unknown_words_are_listed_once_in_order(tokenizer: WordPiece) -> None:
    assert tokenizer.unknown_words("Zebra, a yak zebra \U0001f680") == (
        "zebra",
        "yak",
        "\U0001f680",
    )
    assert tokenizer.unknown_words("a rocket") == ()


@pytest.mark.parametrize(("text", "known"), [("zebra yak, !", False), ("zebra a", True)])
def test_prompt_without_any_known_word_is_told_apart(
    tokenizer: WordPiece, text: str, known: bool
) -> None:
    assert tokenizer.knows_a_word(text) is known


def test_a_cased_vocabulary_keeps_case() -> None:
    tokenizer = WordPiece(["[PAD]", "[UNK]", "a", "A"], 2, lowercase=False)
    assert tokenizer.encode("A a").ids.tolist() == [[3, 2]]


def _file(tmp_path: Path, **changes: Any) -> Path:
    content = {"kind": "wordpiece", "tokens": ["<p>", "<u>", "a", "@b"]}
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_the_vocabulary_file_sets_every_mark(tmp_path: Path) -> None:
    path = _file(tmp_path, continuation="@", pad="<p>", unk="<u>", lowercase=False)
    tokenizer = WordPiece.from_file(path, 4)
    assert tokenizer.encode("ab A").ids.tolist() == [[2, 3, 1, 0]]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "bpe"},
        {"kind": None},
        {"more": 1},
        {"tokens": []},
        {"tokens": "abc"},
        {"tokens": ["[PAD]", "[UNK]", 3]},
        {"tokens": ["[PAD]", "[UNK]", "a", "a"]},
        {"tokens": ["[PAD]", "[UNK]", ""]},
        {"tokens": ["[UNK]", "a"]},
        {"tokens": ["[PAD]", "a"]},
        {"tokens": ["[PAD]", "[UNK]"], "lowercase": "yes"},
        {"tokens": ["[PAD]", "[UNK]"], "continuation": 2},
    ],
    ids=str,
)
def test_a_bad_vocabulary_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        WordPiece.from_file(_file(tmp_path, **changes), 4)


SPECIAL = ["[PAD]", "[UNK]"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "k" * 100_000}, "has kind 'kkk"),
        ({"tokens": [*SPECIAL, "t" * (MAX_TOKEN + 1)]}, "has the token 'ttt.* at most 256 letters"),
        (
            {"tokens": SPECIAL, "continuation": "#" * (MAX_MARK + 1)},
            "the continuation '#.* most 64",
        ),
        ({"tokens": [*SPECIAL, "p" * 65], "pad": "p" * 65}, "the pad 'pp.* at most 64 letters"),
        ({"tokens": [*SPECIAL, "u" * 65], "unk": "u" * 65}, "the unk 'uu.* at most 64 letters"),
        ({"tokens": ["[UNK]"], "pad": "\U0001f600" * 64}, "lacks its pad token '"),
        ({"tokens": SPECIAL, "x": [[]] * (MAX_TOKENS + 16)}, "holds more than 1048576 tokens"),
    ],
    ids=["kind", "token", "continuation", "pad", "unk", "missing pad", "values"],
)
def test_a_vocabulary_is_bounded_and_little_of_it_is_quoted(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        WordPiece.from_file(_file(tmp_path, **changes), 4)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_marks_of_the_allowed_length_are_used(tmp_path: Path) -> None:
    mark, long = "#" * MAX_MARK, "b" * MAX_TOKEN
    path = _file(tmp_path, tokens=[*SPECIAL, "a", f"{mark}b", long], continuation=mark)
    assert WordPiece.from_file(path, 4).encode("ab").ids.tolist() == [[2, 3, 0, 0]]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", "{}".encode("utf-16"), b"[" * 100_000]
)
def test_what_is_no_vocabulary_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocab.json"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"vocab\.json"):
        WordPiece.from_file(path, 4)


def test_a_missing_or_oversized_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        WordPiece.from_file(tmp_path / "vocab.json", 4)
    with (tmp_path / "vocab.json").open("wb") as file:
        file.truncate(MAX_VOCABULARY_BYTES + 1)
    with pytest.raises(BundleError, match="larger than"):
        WordPiece.from_file(tmp_path / "vocab.json", 4)
