"""No command of a page hides from the tests, and none names what is not there."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

pytestmark = pytest.mark.docs
pytest.importorskip("mvsdk_export", reason="lists the toolchain's verbs")

from pages import ROOT, Command, Page, Snippet, read_pages  # noqa: E402
from reader import (  # noqa: E402
    LIMIT_S,
    NEVER_RUN,
    NEVER_RUN_SNIPPETS,
    estimate_s,
    is_slow,
    made_by,
    read_by,
    why_never,
)
from stand_ins import STAND_INS  # noqa: E402

from mvsdk.cli import RUNTIME_COMMANDS  # noqa: E402
from mvsdk_export.cli import COMMANDS  # noqa: E402

PAGES = read_pages()
STEPS = [step for page in PAGES for step in page.steps]
VERBS = {command.name: command for command in (*RUNTIME_COMMANDS, *COMMANDS)}
MOST_QUICK_S = 180.0
"""What the quick commands of all pages may take together."""

FOREIGN_OPTIONS = {"--chunk-unet": "Apple's converter"}
"""Options in code spans that are no options of ours -> whose they are."""

_TYPED = re.compile(
    r"^\s*(?:[*+>$-] |\d+\. )?\s*(?:mvsdk [a-z]+\b.*|(?:python|python3) (?:-m )?benchmarks.*"
    r"|pip install .*|make [a-z]+|torchrun .*)$"
)
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@by_page
def test_lines_that_one_types_stand_in_blocks_of_commands(page: Page) -> None:
    hidden = [f"{page.name}:{number} {line}" for number, line in page.prose if _TYPED.match(line)]
    for block in page.blocks:
        if block.language not in ("sh", "python") and block.info != "text output":
            hidden += [
                f"{page.name}: {line}" for line in block.text.splitlines() if _TYPED.match(line)
            ]
    assert not hidden, "put them into a block of ```sh, alone"


@by_page
def test_blocks_are_of_languages_that_are_read(page: Page) -> None:
    known = {"sh", "python", "text", "json", "kotlin", "swift", "toml", "yaml", "diff"}
    assert {block.language for block in page.blocks} <= known


def _options_of(verb: str) -> set[str]:
    parser = argparse.ArgumentParser(prog=verb)
    VERBS[verb].add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings} | {"--debug"}


def _wrong(words: list[str]) -> list[str]:
    """Return what a command line of mvsdk names that is not there."""
    if not words[1:] or words[1].startswith("-") or words[1] in ("COMMAND", "VERB"):
        return []
    if words[1] not in VERBS:
        return [words[1]]
    options = _options_of(words[1])
    return [word for word in words[2:] if word.startswith("-") and word not in options]


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError:  # a span may hold an apostrophe
        words = text.split()
    return words[words.index("mvsdk") :] if "mvsdk" in words else words


@by_page
def test_verbs_and_options_exist(page: Page) -> None:
    said = [(s.line, s.text) for s in page.steps if isinstance(s, Command)] + list(page.spans)
    wrong = [
        f"{page.name}:{line} {text}: {name}"
        for line, text in said
        if re.match(r"(torchrun .* -m )?mvsdk( |$)", text)
        for name in _wrong(_words(text))
    ]
    assert not wrong


@by_page
def test_options_that_stand_alone_in_the_prose_exist(page: Page) -> None:
    known = set(FOREIGN_OPTIONS).union(*map(_options_of, VERBS))
    known |= set(re.findall(r'"(--[a-z-]+)"', _source("benchmarks")))
    for line, text in page.spans:
        if text.startswith("--"):
            assert text.split()[0] in known, f"{page.name}:{line} {text}"


def test_scripts_exist() -> None:
    said = [text for page in PAGES for _, text in page.spans]
    said += [step.text for step in STEPS if isinstance(step, Command)]
    for text in said:
        for script in re.findall(r"\bpython (\S+\.py)", text):
            assert (ROOT / script).is_file(), text
        for module in re.findall(r"\bpython -m (benchmarks\.\S+)", text):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), text
        for verb in re.findall(r"^make (\w+)", text):
            assert re.search(rf"^{verb}:", (ROOT / "Makefile").read_text("utf-8"), re.M), text


def _source(folder: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("start", NEVER_RUN)
def test_what_is_never_run_is_printed_somewhere(start: str) -> None:
    assert any(isinstance(s, Command) and re.match(start, s.text) for s in STEPS), "strike it out"


@pytest.mark.parametrize("part", NEVER_RUN_SNIPPETS)
def test_snippets_that_are_never_run_are_printed_somewhere(part: str) -> None:
    assert any(isinstance(s, Snippet) and re.search(part, s.text) for s in STEPS), "strike it out"


@pytest.mark.parametrize("name", STAND_INS)
def test_what_stands_in_is_named_somewhere(name: str) -> None:
    assert any(name in read_by(step) for step in STEPS), "strike it out"


@pytest.mark.parametrize("option", FOREIGN_OPTIONS)
def test_foreign_options_are_named_somewhere(option: str) -> None:
    assert any(text.split()[0] == option for page in PAGES for _, text in page.spans)


@by_page
def test_no_command_writes_where_an_earlier_one_of_the_page_has_written(page: Page) -> None:
    made: dict[str, Command] = {}
    for step in page.steps:
        if isinstance(step, Snippet) or "--overwrite" in step.words or "train" in step.words:
            continue
        for name in made_by(step):
            assert name not in made, f"{step.label}: {made[name].label} made {name}"
            made[name] = step


@by_page
def test_page_that_says_times_says_them_of_all_that_is_slow(page: Page) -> None:
    commands = [
        step for step in page.steps if isinstance(step, Command) and why_never(step) is None
    ]
    if any(step.seconds is not None for step in commands):
        untold = [
            step.label
            for step in commands
            if is_slow(step) and step.seconds is None and not STAND_INS.keys() & read_by(step)
        ]
        assert not untold, "end their comments in how long they take, such as # 41 s"


def _quick(page: Page) -> list[Command]:
    """Return the commands of a page that are run unless somebody asks for the long ones too."""
    missing: set[str] = set()
    quick: list[Command] = []
    for step in page.steps:
        if isinstance(step, Command) and why_never(step) is None:
            if estimate_s(step) <= min(LIMIT_S, 60.0) and not missing & read_by(step):
                quick.append(step)
            else:
                missing.update(made_by(step))
    return quick


def test_quick_commands_take_three_minutes_at_most() -> None:
    quick = [step for page in PAGES for step in _quick(page)]
    assert sum(map(estimate_s, quick)) <= MOST_QUICK_S


@by_page
def test_no_page_has_a_gap_to_be_filled(page: Page) -> None:
    said = [line for _, line in page.prose] + [block.text for block in page.blocks]
    assert not re.search(r"\b(TIME[0-9A-Z]?|TODO|TBD)\b", "\n".join(said))
