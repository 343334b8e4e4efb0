"""Names as messages show them, as shells read them, and those that no file should have.

A name comes from a user or from a file that nobody vetted. In a message it is shown as it is
written, letters of every script and backslashes too; what would break the line, hide, or turn the
order of the letters is spelled out.
"""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from json import JSONDecodeError

MOST = 96
"""Characters of a text that a message shows, unless told otherwise."""
MOST_OF_A_PATH = 180
"""Of a path, which its owner wants to find again."""
_ELLIPSIS = "..."

# Printable for Unicode, and yet nothing that a reader sees: fillers, joiners, selectors of variants
# (not U+FE0E and U+FE0F, which are part of how emoji are written) and the blank of Braille.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0"
    "\U000e0100-\U000e01ef]"
)
_WIDE_SPACE = "\u3000"  # as wide as a letter, and common in Japanese names
_BREAKS = re.compile("\\s*[\t-\r\x1c-\x1e\x85\u2028\u2029]\\s*")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def quoted(name: object, most: int | None = None) -> str:
    """Return a name in quotes, for a message of one line.

    Args:
        name: Text, or a path.
        most: Characters to show, at least 16; None for `MOST`, and `MOST_OF_A_PATH` of a path. A
            longer name is shortened in the middle, and two thirds of what is left are its end,
            which says most of a path.

    Returns:
        The name in single quotes, or in double ones if it holds a single one. Every character that
        can be seen is as it is. Others (controls, line breaks, marks that turn the order of
        letters, spaces that look like another, half a surrogate pair) are escapes of Python.
    """
    text = str(name)
    if most is None:
        most = MOST_OF_A_PATH if isinstance(name, os.PathLike) else MOST
    shown = _shortened(_pieces(text, most), most)
    quote = '"' if "'" in text and '"' not in text else "'"
    return f"{quote}{shown}{quote}"


def one_line(text: str) -> str:
    """Return a text with a space for every line break, and what cannot be seen spelled out."""
    return "".join(map(_visible, _BREAKS.sub(" ", text.strip())))


def reason_of(exc: BaseException) -> str:
    """Return what the system says of an error, for the middle of a message."""
    return (getattr(exc, "strerror", None) or str(exc) or type(exc).__name__).lower()


def shell_word(name: str | os.PathLike[str]) -> str:
    """Return a name as one word of a command that is to be pasted into this system's shell.

    A leading dash, which would make it an option, gets a `./` before it.
    """
    text = os.fspath(name)
    if text.startswith("-"):
        text = os.path.join(os.curdir, text)
    if os.name == "nt":
        from subprocess import list2cmdline  # slow to import, and needed nowhere else

        return list2cmdline([text])
    if _CONTROL.search(text):  # bash and zsh read these escapes
        inside = text.replace("\\", "\\\\").replace("'", "\\'")
        return "$'" + "".join(map(_visible, inside)) + "'"
    return shlex.quote(text)


def name_fault(name: str | os.PathLike[str]) -> str | None:
    """Return why a name is none to give to a new file or folder; None for a good one.

    A line break or another control character splits every line that tells of the file. Bytes that
    are no UTF-8 (half a surrogate pair in Python) cannot be said in JSON, nor to the libraries that
    read and write models.
    """
    text = os.fspath(name)
    if _CONTROL.search(text):
        return "it holds a line break or another control character"
    return encoding_fault(text)


def encoding_fault(name: str | os.PathLike[str]) -> str | None:
    """Return why a name cannot be handed to libraries; None for one that can."""
    try:
        os.fspath(name).encode()
    except UnicodeEncodeError:
        return "it holds bytes that are not UTF-8"
    return None


def _visible(letter: str) -> str:
    """Return a character, or its escape if nobody could see it."""
    if (letter.isprintable() or letter == _WIDE_SPACE) and not _INVISIBLE.match(letter):
        return letter
    return ascii(letter)[1:-1]


def _pieces(text: str, most: int) -> list[str]:
    """Return what stands for each character; of a long text only what may be shown."""
    if len(text) > 2 * most:
        return [*map(_visible, text[:most]), *map(_visible, text[-most:])]
    return list(map(_visible, text))


def _shortened(pieces: list[str], most: int) -> str:
    """Join whole pieces, without the middle where they are too long."""
    if sum(map(len, pieces)) <= most:
        return "".join(pieces)
    room = most - len(_ELLIPSIS)
    head = _fitting(pieces, room // 3)
    tail = _fitting(pieces[::-1], room - room // 3)[::-1]
    while tail and unicodedata.combining(tail[0][0]):  # an accent without its letter
        del tail[0]
    return "".join(head) + _ELLIPSIS + "".join(tail)


def _fitting(pieces: list[str], room: int) -> list[str]:
    kept: list[str] = []
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return kept


def json_fault(exc: JSONDecodeError) -> str:
    """Return what is wrong with a JSON text, and where, such as "expecting value at line 2 ..."."""
    what = exc.msg.lower().removesuffix(" at")  # "unterminated string starting at"
    return f"{what} at line {exc.lineno} column {exc.colno}"
