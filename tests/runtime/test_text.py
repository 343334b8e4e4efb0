"""Names in messages are as they are written, and commands can be pasted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest

from mvsdk._text import name_fault, one_line, quoted, shell_word


@pytest.mark.parametrize(
    "name",
    [
        "bücher.mvbundle",
        "bu\u0308cher",  # as macOS takes letters apart
        "動画\u3000フォルダ",
        "видео",
        "مجلد",
        "❤\ufe0f.png",
        "two  spaces",
        r"C:\clips\new.mp4",
        'he said "hi"',
    ],
)
def test_name_is_shown_as_it_is_written(name: str) -> None:
    assert quoted(name) == f"'{name}'"
    assert quoted(Path("folder") / "ä") == "'" + str(Path("folder") / "ä") + "'"


def test_windows_path_is_shown_with_single_backslashes() -> None:
    assert quoted(PureWindowsPath("C:/new/ü")) == "'C:\\new\\ü'"


def test_name_with_a_quote_is_in_the_other_quotes() -> None:
    assert quoted("it's") == '"it\'s"'


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\x1b[31mb", r"a\r\x1b[31mb"),
        ("a\u2028b", r"a\u2028b"),
        ("gpj\u202e.exe", r"gpj\u202e.exe"),
        ("a\u200bb\u2060c\xadd", r"a\u200bb\u2060c\xadd"),
        ("a\xa0b", r"a\xa0b"),
        ("a\u3164b\u2800c", r"a\u3164b\u2800c"),
        ("m\udcfcll", r"m\udcfcll"),
        ("tag\U000e0041\U000e0100", r"tag\U000e0041\U000e0100"),
    ],
)
def test_what_nobody_sees_is_spelled_out(name: str, shown: str) -> None:
    assert quoted(name) == f"'{shown}'"
    quoted(name).encode()


@pytest.mark.parametrize("letter", ["x", "ü", "\n", "\udcff", "\U000e0041", "\u0308"])
@pytest.mark.parametrize("most", [16, 40, 96])
def test_long_name_is_bounded_and_keeps_its_end(letter: str, most: int) -> None:
    name = "/start/" + letter * 100_000 + "/end.mp4"
    shown = quoted(name, most)
    assert len(shown) <= most + 2
    assert shown[1:4] == "/st"
    assert "..." in shown
    assert shown.endswith("/end.mp4'")


def test_name_that_just_fits_is_whole() -> None:
    assert quoted("x" * 40, 40) == "'" + "x" * 40 + "'"
    shown = quoted("a" * 20 + "b" * 21, 40)
    assert len(shown) == 42
    assert shown.count("b") > shown.count("a") > 0


def test_message_is_one_line_and_keeps_the_spaces_of_names() -> None:
    assert one_line("error in 'a  b'\n  at\tline 3\r\n") == "error in 'a  b' at line 3"
    assert one_line("'動画\u3000x' \u202e") == "'動画\u3000x' \\u202e"


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell reads it back")
@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "a b",
        "it's",
        '"',
        "$HOME",
        "`x`",
        "!!",
        "a;b&c|d",
        "*",
        "~",
        "bücher",
        "a\nb'\\",
        "#x",
    ],
)
def test_word_of_a_command_is_read_back_by_a_shell(name: str) -> None:
    script = f"printf %s {shell_word(name)}"
    assert "\n" not in script
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == name


def test_word_with_a_leading_dash_is_no_option() -> None:
    assert shell_word("-o") in ("./-o", ".\\-o")


@pytest.mark.parametrize("name", ["a\nb", "a\x7f", "a\x85b", "a\u2029b", "tab\t", "m\udcfcll"])
def test_name_for_no_new_file_is_known(name: str) -> None:
    assert name_fault(name) is not None
    assert name_fault(Path("folder") / name) is not None


def test_names_of_every_script_are_good() -> None:
    for name in ("bücher", "動画\u3000x", "a b", "👩\u200d💻.png", "-x", "it's"):
        assert name_fault(name) is None
