"""Prompts and their tokens on three small vocabularies and the one of the model sticker."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from prompts import CAPTIONS, REFUSED, SCRIPTS, TRAPS

from mvsdk import noise
from mvsdk.errors import InputError
from mvsdk.tokenizers import MAX_PROMPT, ClipBpe, T5Unigram, Tokenizer, WordPiece
from mvsdk.tokenizers._unicode import assigned_ranges, category
from mvsdk.tokenizers.clip_bpe import BYTE_LETTERS, END_OF_WORD
from mvsdk.tokenizers.t5_unigram import SPACE

STICKER = Path(__file__).parents[2] / "export/mvsdk_export/models/sticker/tokenizer/vocab.json"

MERGES = 300
PIECES = 500
START, END = "<|startoftext|>", "<|endoftext|>"
RANDOM_PROMPTS = 261
ABOUT = (
    "Prompts and their tokens by the rules of docs/tokenizers.md. A prompt is `text`, `times` "
    "times over if that is given. Under the name of each reader is its row of numbers without the "
    "`pad` at its end, or the id of the rule that refuses the prompt; a number after the name and "
    "a colon says how many tokens were dropped."
)

Vocabulary = dict[str, Any]


def unicode_13() -> str:
    """Return the ranges of assigned code points as JSON."""
    ranges = assigned_ranges()
    document = {
        "about": "Ranges of code points that Unicode 13.0.0 assigns, first and last, hexadecimal",
        "code_points": sum(last - first + 1 for first, last in ranges),
        "ranges": [f"{first:04X}-{last:04X}" for first, last in ranges],
    }
    return json.dumps(document, indent=0) + "\n"


def tokens() -> str:
    """Return vocabularies, readers and cases as JSON, one case a line."""
    vocabularies = {
        "sticker": json.loads(STICKER.read_text("utf-8")),
        "clip": train_merges(CAPTIONS + SCRIPTS, BYTE_LETTERS.values(), unk=END, pad=END),
        "clip_ascii": train_merges(CAPTIONS, map(chr, range(33, 127)), unk="[unk]", pad="[pad]"),
        "t5": count_pieces(CAPTIONS + SCRIPTS),
    }
    readers = {
        "sticker": {"vocabulary": "sticker", "max_length": 64, "too_long": "refuse"},
        "clip": {"vocabulary": "clip", "max_length": 77, "too_long": "cut"},
        "clip_ascii": {"vocabulary": "clip_ascii", "max_length": 96, "too_long": "refuse"},
        "t5": {"vocabulary": "t5", "max_length": 48, "too_long": "cut"},
    }
    known = {name: build_reader(vocabularies, reader) for name, reader in readers.items()}
    pads = {
        name: vocabularies[reader["vocabulary"]]["tokens"].index(known[name].pad)
        for name, reader in readers.items()
    }
    cases = [run_case(known, pads, *prompt) for prompt in prompts()]
    sections = {
        "about": json.dumps(ABOUT),
        "vocabularies": _lines("{}", (f'"{k}": {json.dumps(v)}' for k, v in vocabularies.items())),
        "readers": _lines("{}", (f'"{k}": {json.dumps(v)}' for k, v in readers.items())),
        "cases": _lines("[]", map(json.dumps, cases)),
    }
    return "{\n" + ",\n".join(f' "{key}": {value}' for key, value in sections.items()) + "\n}\n"


def _lines(brackets: str, items: Iterable[str]) -> str:
    return brackets[0] + "\n" + ",\n".join(f"  {item}" for item in items) + "\n " + brackets[1]


def build_reader(vocabularies: Mapping[str, Vocabulary], reader: Mapping[str, Any]) -> Tokenizer:
    """Make the tokenizer of a reader."""
    fields = dict(vocabularies[reader["vocabulary"]])
    kinds = {"wordpiece": WordPiece, "clip_bpe": ClipBpe, "t5_unigram": T5Unigram}
    kind = kinds[fields.pop("kind")]
    return kind(max_length=reader["max_length"], too_long=reader["too_long"], **fields)


def run_case(
    readers: Mapping[str, Tokenizer], pads: Mapping[str, int], text: str, times: int = 1
) -> dict[str, Any]:
    """Encode a prompt with every reader; `pads` are the numbers of their padding."""
    case: dict[str, Any] = {"text": text} if times == 1 else {"text": text, "times": times}
    for name, reader in readers.items():
        try:
            found = reader.encode(text * times)
        except InputError as exc:
            case[name] = exc.rule
            continue
        ids = found.ids[0].tolist()
        while ids and ids[-1] == pads[name]:
            ids.pop()
        case[f"{name}:{found.dropped}" if found.dropped else name] = ids
    return case


def prompts() -> Iterator[tuple[str, int]]:
    """Give every prompt, and how often it is repeated."""
    for text in (*CAPTIONS, *SCRIPTS, *TRAPS, *REFUSED):
        yield text, 1
    yield from ((f"a{char}b 1{char}", 1) for char in of_every_category())
    yield from ((text, 1) for text in around_ranges())
    yield from ((text, 1) for text in random_prompts())
    for text in ("a", "x ", "\U0001f680", "\u4e00"):
        yield text, MAX_PROMPT // len(text)
        yield text, MAX_PROMPT // len(text) + 1
    yield from (("q", 100), ("q", 101), ("a dog ", 20), ("a ", 64), ("a ", 65), ("!", 200))


def of_every_category() -> list[str]:
    """Return the first, a middle and the last code point of every category but Cc and Cs."""
    found: dict[str, list[str]] = {}
    for first, last in assigned_ranges():
        for code in range(first, last + 1):
            found.setdefault(category(chr(code)), []).append(chr(code))
    found.pop("Cc")
    return [
        chars[place]
        for _, chars in sorted(found.items())
        for place in sorted({0, len(chars) // 2, len(chars) - 1})
    ]


def around_ranges() -> list[str]:
    """Return texts with the last code point of every range, and the one after, which is none."""
    edges = [f"{chr(last)}{chr(last + 1)}" for _, last in assigned_ranges() if last < 0x10FFFF]
    edges = [edge for edge in edges if edge[1] != "\ud800"]
    return ["a".join(edges[place : place + 16]) for place in range(0, len(edges), 16)]


def random_prompts() -> list[str]:
    """Return texts of letters of a few blocks each, with marks, spaces and signs between."""
    codes = [
        code
        for first, last in assigned_ranges()
        for code in range(first, min(last, 0x1FFFF) + 1)
        if category(chr(code)) not in ("Cc", "Co")
    ]
    marks = [code for code in codes if unicodedata.combining(chr(code))]
    texts: list[str] = []
    for seed in range(RANDOM_PROMPTS):
        draws = iter(noise.uniforms(seed, 200).tolist())
        home = int(next(draws) * len(codes))
        parts: list[str] = []
        for _ in range(int(4 + next(draws) * 24)):
            choice = next(draws)
            if choice < 0.5:
                parts.append(chr(codes[(home + int(next(draws) * 48)) % len(codes)]))
            elif choice < 0.7:
                parts.append(chr(int(97 + next(draws) * 26)))
            elif choice < 0.8:
                parts.append(chr(marks[int(next(draws) * len(marks))]))
            else:
                parts.append(" '!,9 \u3000A\u0301"[int(next(draws) * 9)])
        texts.append("".join(parts))
    return texts


def train_merges(texts: Sequence[str], letters: Iterable[str], *, unk: str, pad: str) -> Vocabulary:
    """Learn merges by counting neighbours; of equal counts the first in order is joined."""
    alphabet = list(letters)
    ends = [letter + END_OF_WORD for letter in alphabet]
    words = Counter(word for text in texts for word in text.lower().split())
    spelled = [(_spell(word), count) for word, count in words.items()]
    known = dict.fromkeys((*alphabet, *ends))
    merges: list[str] = []
    while len(merges) < MERGES:
        left, right = _commonest_pair(spelled, known)
        merges.append(f"{left} {right}")
        known[left + right] = None
        for symbols, _ in spelled:
            _join(symbols, left, right)
    roles = dict.fromkeys((START, END, unk, pad))
    return {
        "kind": "clip_bpe",
        "tokens": [*known, *roles],
        "merges": merges,
        **{"start": START, "end": END, "pad": pad, "unk": unk},
    }


def _spell(word: str) -> list[str]:
    *letters, last = (BYTE_LETTERS[byte] for byte in word.encode())
    return [*letters, last + END_OF_WORD]


def _commonest_pair(
    spelled: Sequence[tuple[list[str], int]], known: Mapping[str, None]
) -> tuple[str, str]:
    pairs: Counter[tuple[str, str]] = Counter()
    for symbols, count in spelled:
        for pair in pairwise(symbols):
            if known.keys() >= set(pair):
                pairs[pair] += count
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def _join(symbols: list[str], left: str, right: str) -> None:
    place = 0
    while place < len(symbols) - 1:
        if (symbols[place], symbols[place + 1]) == (left, right):
            symbols[place : place + 2] = [left + right]
        place += 1


def count_pieces(texts: Sequence[str]) -> Vocabulary:
    """Take the most frequent parts of words; scores are rounded, so that many sums are equal."""
    counts: Counter[str] = Counter()
    for text in texts:
        for word in unicodedata.normalize("NFKC", text).split():
            marked = SPACE + word
            for first in range(len(marked)):
                for past in range(first + 1, min(first + 7, len(marked)) + 1):
                    counts[marked[first:past]] += 1
    singles = {piece for piece, count in counts.items() if len(piece) == 1 and count > 1}
    often = sorted(counts, key=lambda piece: (-counts[piece] * len(piece), piece))
    pieces = sorted({*singles, *often[:PIECES]})
    total = sum(counts[piece] for piece in pieces)
    roles = ["<pad>", "</s>", "<unk>"]
    scores = [round(4 * math.log(counts[piece] / total)) / 4 for piece in pieces]
    return {
        "kind": "t5_unigram",
        "tokens": [*roles, *pieces],
        "scores": [0.0] * len(roles) + scores,
        **{"pad": "<pad>", "unk": "<unk>", "end": "</s>"},
    }
