"""How cases of `malformed.json` and `accepted.json` are written, and made into bytes.

A case is bytes, or a golden manifest with edits, of one of two sorts:

    {"text": [old, new]}            in the golden file's text, where `old` stands once
    {"text": [old, new], "times": n}     with `new` n times
    {"at": place, "set": value}     in its document; one place beyond the end of a list adds to it
    {"at": place, "delete": true}
    {"at": place, "rename": key}
    {"at": place, "copy": place}    what stands at another place
    {"at": place, "fill": [item, n]}     a list of n equal items
    {"at": place, "repeat": [text, n]}   a text n times
    {"at": place, "nest": n}        0 in n lists

An edited document is written without white space, keys in their order, characters as they are.
Bytes are `base64`, or `generate`: a list of [text, times], put together.
"""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MANIFESTS = Path(__file__).resolve().parents[1] / "manifests"

Case = dict[str, Any]
Edit = dict[str, Any]
Place = list[str | int]
_STEP = re.compile(r"\[(\d+)\]|([^.\[]+)")


def place(path: str) -> Place:
    """Return the steps of a path such as `programs[0].name`."""
    return [int(index) if index else key for index, key in _STEP.findall(path)]


def put(path: str, value: object) -> Edit:
    """Return an edit that sets a value."""
    return {"at": place(path), "set": value}


def drop(path: str) -> Edit:
    """Return an edit that deletes a value."""
    return {"at": place(path), "delete": True}


def rename(path: str, key: str) -> Edit:
    """Return an edit that gives a value another key."""
    return {"at": place(path), "rename": key}


def copied(path: str, origin: str) -> Edit:
    """Return an edit that puts a value at a second place."""
    return {"at": place(path), "copy": place(origin)}


def fill(path: str, item: object, times: int) -> Edit:
    """Return an edit that puts a list of equal items."""
    return {"at": place(path), "fill": [item, times]}


def repeat(path: str, text: str, times: int) -> Edit:
    """Return an edit that puts a text many times."""
    return {"at": place(path), "repeat": [text, times]}


def nest(path: str, levels: int) -> Edit:
    """Return an edit that puts a 0 in lists."""
    return {"at": place(path), "nest": levels}


def swap(old: str, new: str, times: int = 1) -> Edit:
    """Return an edit of the text."""
    return {"text": [old, new]} if times == 1 else {"text": [old, new], "times": times}


def payload_of(case: Case) -> bytes:
    """Return the bytes of a case."""
    if "base64" in case:
        return base64.b64decode(case["base64"])
    if "generate" in case:
        return "".join(text * times for text, times in case["generate"]).encode()
    text = (MANIFESTS / f"{case['base']}.json").read_text(encoding="utf-8")
    edits: list[Edit] = case["edits"]
    if not any("at" in edit for edit in edits):
        for edit in edits:
            old, new = edit["text"]
            if text.count(old) != 1:
                raise ValueError(f"{case['name']}: {old!r} stands {text.count(old)} times")
            text = text.replace(old, new * edit.get("times", 1))
        return text.encode()
    return edited(json.loads(text), edits)


def edited(document: Any, edits: Sequence[Edit]) -> bytes:
    """Return a document with edits, as bytes."""
    for edit in edits:
        *way, last = edit["at"]
        parent = _at(document, way)
        if "delete" in edit:
            del parent[last]
        elif "rename" in edit:
            value = parent.pop(last)
            parent[edit["rename"]] = value
        elif isinstance(parent, list) and last == len(parent):
            parent.append(_value(document, edit))
        else:
            parent[last] = _value(document, edit)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _value(document: Any, edit: Edit) -> Any:
    if "copy" in edit:
        return copy.deepcopy(_at(document, edit["copy"]))
    if "fill" in edit:
        item, times = edit["fill"]
        return [copy.deepcopy(item) for _ in range(times)]
    if "repeat" in edit:
        text, times = edit["repeat"]
        return text * times
    if "nest" in edit:
        value: Any = 0
        for _ in range(edit["nest"]):
            value = [value]
        return value
    return copy.deepcopy(edit["set"])


def _at(value: Any, way: Sequence[str | int]) -> Any:
    for step in way:
        value = value[step]
    return value


def values_of(base: str) -> int:
    """Return how many values a golden manifest has (D6)."""
    return _count(json.loads((MANIFESTS / f"{base}.json").read_text(encoding="utf-8")))


def _count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + (sum(map(_count, value)) if isinstance(value, list) else 0)


class Corpus:
    """Cases, each with a name of its own."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}

    def add(self, name: str, **case: Any) -> None:
        """Add a case."""
        if name in self.cases:
            raise ValueError(f"two cases are called {name}")
        self.cases[name] = {"name": name, **case}

    def to_text(self) -> str:
        """Write one case per line."""
        lines = (json.dumps(case, ensure_ascii=False) for case in self.cases.values())
        return "[\n" + ",\n".join(f" {line}" for line in lines) + "\n]\n"


class Malformed(Corpus):
    """Cases that are refused, with rule and place."""

    def wrong(self, rule: str, base: str, name: str, where: str, *edits: Edit) -> None:
        """Add a golden manifest with edits; without a place of its own, that of the first edit."""
        title = name if base in (*name.split(), "sticker") else f"{name}, of {base}"
        self.add(f"{rule}: {title}", base=base, edits=list(edits), rule=rule, where=where)

    def values(
        self, rule: str, base: str, path: str, *values: object, where: str | None = None
    ) -> None:
        """Add a case for each wrong value of one place."""
        for value in values:
            shown = json.dumps(value, ensure_ascii=False)
            name = f"{path} {shown if len(shown) < 60 else f'{shown[:50]} ... of {len(shown)}'}"
            self.wrong(rule, base, name, path if where is None else where, put(path, value))

    def text(self, rule: str, base: str, name: str, old: str, new: str, where: str = "") -> None:
        """Add a golden file whose text is changed."""
        self.wrong(rule, base, name, where, swap(old, new))

    def raw(self, rule: str, name: str, payload: bytes, where: str = "") -> None:
        """Add bytes."""
        encoded = base64.b64encode(payload).decode()
        self.add(f"{rule}: {name}", base64=encoded, rule=rule, where=where)

    def made(self, rule: str, name: str, *pieces: tuple[str, int]) -> None:
        """Add bytes that are many and alike."""
        self.add(f"{rule}: {name}", generate=[list(piece) for piece in pieces], rule=rule, where="")


class Accepted(Corpus):
    """Cases that are read."""

    def right(self, base: str, name: str, *edits: Edit, like: Edit | None = None) -> None:
        """Add a golden manifest with edits.

        Args:
            base: The golden manifest.
            name: What the case is about.
            edits: What is changed.
            like: An edit of the same golden manifest that gives an equal one.
        """
        extra: dict[str, Any] = {} if like is None else {"same_as": {"base": base, "edits": [like]}}
        self.add(name, base=base, edits=list(edits), **extra)

    def same(self, base: str, name: str, *edits: Edit) -> None:
        """Add a golden manifest that is spelled in another way."""
        self.add(name, base=base, edits=list(edits), same_as={"base": base, "edits": []})

    def upgraded(self, base: str, name: str, *edits: Edit, changes: tuple[Edit, ...] = ()) -> None:
        """Add a manifest of version 1 or 2, and what it is in version 3."""
        newest = base.replace("version", "upgraded")
        same = {"base": newest, "edits": list(changes)}
        self.add(name, base=base, edits=list(edits), same_as=same)
