"""Tokenizers beside the libraries that they follow, on random strings of many scripts."""

from __future__ import annotations

import io
import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvsdk.tokenizers import MAX_LENGTH, ClipBpe, T5Unigram
from mvsdk.tokenizers._unicode import assigned_ranges, category

pytestmark = pytest.mark.slow

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "tokens.json").read_text("utf-8")
)
CAPTIONS = [case["text"] for case in GOLDEN["cases"][:54]]
STRINGS = 1500
NEAR = 48

# What docs/tokenizers.md lists: marks that the normal form of `tokenizers` does not know.
UNKNOWN_MARKS = [
    *("07FD", "08D3", "09FE", "0D3B-0D3C", "0EBA", "1ABF-1AC0", "1DF6-1DF9", "A82C", "10D24-10D27"),
    *("10EAB-10EAC", "10F46-10F50", "1133B", "1145E", "11839-1183A", "11930", "11935", "11938"),
    *("1193D-1193E", "11943", "119E0", "11A34", "11A47", "11A99", "11D42", "11D44-11D45", "11D97"),
    *("16FF0-16FF1", "1E130-1E136", "1E2EC-1E2EF"),
]
WORDS = [
    *(
        "a rocket",
        "LEFT",
        "it's",
        "don't",
        "WE'LL",
        "8K",
        "12",
        "Stra\u00dfe",
        "\u03a3\u0391\u03a3",
    ),
    *("\u0130x", "\ufb01ne", "\u00bd", "\u2460", "\ufdfa", "\u3314", "e\u0323\u0302"),
    *("e\u0302\u0323", "\uff76\uff9e", "\u1112\u1161\u11ab", "\u314e\u314f\u3134", "\u212b"),
    *("\U0001f680", "\u2764\ufe0f"),
]
JAMO = (0x1100, 0x1161, 0x11A8, 0x3131, 0xFFA1)
SIGNS = "'\"!?.,-_/|<>()=&#@"
SPACES = " \t\n\u00a0\u1680\u2003\u200b\u200d\u2028\u2581\u3000\ufeff"


def _codes(ranges: list[str]) -> set[int]:
    ends = [[int(code, 16) for code in item.split("-")] for item in ranges]
    return {code for first, *last in ends for code in range(first, (last or [first])[0] + 1)}


class _Strings:
    """Makes strings of letters of one block each, marks in any order, signs, spaces and words."""

    def __init__(self, seed: int, left_out: set[int]) -> None:
        self._random = random.Random(seed)
        codes = [code for first, last in assigned_ranges() for code in range(first, last + 1)]
        self._chars = [
            chr(code) for code in codes if code not in left_out and category(chr(code)) != "Cc"
        ]
        self._marks = [char for char in self._chars if category(char)[0] == "M"]
        self._compatible = [
            char for char in self._chars if unicodedata.normalize("NFKD", char) != char
        ]

    def draw(self) -> str:
        choose = self._random
        makers: list[Callable[[], str]] = [
            lambda: choose.choice(WORDS),
            lambda: self._block(),
            lambda: "".join(choose.choices(self._marks[:400], k=choose.randint(1, 4))),
            lambda: choose.choice("aeiouAEIOUnsz") + choose.choice(self._marks[:120]),
            lambda: choose.choice(self._compatible),
            lambda: chr(choose.choice(JAMO) + choose.randrange(19)),
            lambda: "".join(choose.choices(SIGNS, k=choose.randint(1, 3))),
            lambda: choose.choice(SPACES),
        ]
        return "".join(choose.choice(makers)() for _ in range(choose.randint(1, 24)))

    def _block(self) -> str:
        first = self._random.randrange(len(self._chars))
        near = self._chars[first : first + NEAR]
        return "".join(self._random.choices(near, k=self._random.randint(1, 6)))


def test_numbers_of_clip_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra train")
    vocabulary = dict(GOLDEN["vocabularies"]["clip"])
    del vocabulary["kind"]
    ours = ClipBpe(max_length=MAX_LENGTH, **vocabulary)
    theirs = transformers.CLIPTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary["tokens"])},
        merges=[tuple(merge.split(" ")) for merge in vocabulary["merges"]],
    )
    strings = _Strings(1, _codes(UNKNOWN_MARKS))
    for _ in range(STRINGS):
        text = strings.draw()
        wanted = theirs(text)["input_ids"]
        assert ours.encode(text).ids[0, : len(wanted)].tolist() == wanted, ascii(text)


def test_numbers_of_t5_are_those_of_sentencepiece() -> None:
    library = pytest.importorskip("sentencepiece", reason="needs the extra train")
    model = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS * 20),
        model_writer=model,
        model_type="unigram",
        vocab_size=500,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2},
    )
    theirs = library.SentencePieceProcessor(model_proto=model.getvalue())
    count = theirs.get_piece_size()
    ours = T5Unigram(
        [theirs.id_to_piece(number) for number in range(count)],
        [theirs.get_score(number) for number in range(count)],
        MAX_LENGTH,
    )
    strings = _Strings(2, set())
    for _ in range(STRINGS):
        text = strings.draw()
        wanted = [*theirs.encode(text), 1]
        assert ours.encode(text).ids[0, : len(wanted) + 1].tolist() == [*wanted, 0], ascii(text)
