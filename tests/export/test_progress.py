"""Progress: what stages count, what listeners are told, what is estimated, what people see."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("resource")

from probe_jobs import Count

from mvsdk_export.commands import bar
from mvsdk_export.errors import ExportError
from mvsdk_export.jobs import runner as runner_module
from mvsdk_export.jobs.history import MOST_STAGES, History
from mvsdk_export.jobs.progress import Items, Progress, Tracker, counted, counting, listening
from mvsdk_export.jobs.runner import Event, JobRunner

# --- counting ------------------------------------------------------------------------------------


def test_counting_costs_nothing_while_nobody_listens() -> None:
    things = [1, 2, 3]
    assert counted(things, "clips") is things
    counting(3, "calls")()


def test_listener_is_told_what_is_done_of_how_many() -> None:
    told: list[Items] = []
    with listening(told.append):
        assert list(counted("ab", "clips")) == ["a", "b"]
    assert [(x.item, x.items, x.unit) for x in told] == [(n, 2, "clips") for n in range(3)]
    list(counted("ab", "clips"))
    assert len(told) == 3


def test_items_of_a_process_are_told_while_it_runs(tmp_path: Path) -> None:
    told: list[tuple[float, Items]] = []

    def hear(event: Event) -> None:
        if event.items is not None:
            told.append((time.monotonic(), event.items))

    with JobRunner(tmp_path) as runner:
        runner.run([Count(clips=5)], hear)
    assert [items.item for _, items in told] == [0, 1, 2, 3, 4, 5]
    assert {(items.items, items.unit) for _, items in told} == {(5, "clips")}
    assert told[-1][0] - told[0][0] > 0.2  # not all of them at the end


def test_process_without_news_is_told_to_be_alive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner_module, "ALIVE_S", 0.02)
    told: list[Event] = []
    with JobRunner(tmp_path) as runner:
        runner.run([Count(clips=1)], told.append)
    assert [event.items for event in told].count(None) >= 4
    assert [event.state for event in told][-1] == "finished"


def test_listener_that_raises_ends_the_job(tmp_path: Path) -> None:
    def refuse(_: Event) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"), JobRunner(tmp_path / "cache") as runner:
        runner.run([Count(clips=99)], refuse)
    assert not list(tmp_path.rglob("*.txt"))


# --- events and estimates ------------------------------------------------------------------------


def follow(history: History, told: list[Progress], found: Sequence[str] = ()) -> None:
    """Follow two stages; the first counts two clips."""
    tracker = Tracker(["first", "second"], told.append, history, "model")
    tracker.begin("first")
    with listening(lambda items: tracker.tell("first", items)):
        list(counted("ab", "clips"))
    tracker.end("first", found="first" in found)
    with tracker.follow("second"):
        time.sleep(0.01)


def test_stage_is_told_as_it_begins_goes_on_and_ends() -> None:
    told: list[Progress] = []
    follow(History(None), told, found=["first"])
    assert [(x.stage, x.state, x.index, x.count, x.item, x.items) for x in told] == [
        ("first", "running", 0, 2, None, None),
        ("first", "running", 0, 2, 0, 2),
        ("first", "running", 0, 2, 1, 2),
        ("first", "running", 0, 2, 2, 2),
        ("first", "found", 0, 2, 2, 2),
        ("second", "running", 1, 2, None, None),
        ("second", "finished", 1, 2, None, None),
    ]
    assert [x.fraction for x in told] == [0.0, 0.0, 0.25, 0.5, 0.5, 0.5, 1.0]
    assert told[-1].elapsed_s >= 0.01


def test_nothing_is_estimated_without_an_earlier_run() -> None:
    told: list[Progress] = []
    follow(History(None), told)
    assert {x.remaining_s for x in told if x.state == "running" and x.index == 0} == {None}
    assert {x.stage_remaining_s for x in told if x.state == "running"} == {None}


def test_what_is_left_is_what_it_took_before(tmp_path: Path) -> None:
    history = History(tmp_path / "seconds.json")
    history.add("model: first", 100.0)
    history.add("model: second", 50.0)
    history.add("other: second", 9000.0)
    told: list[Progress] = []
    follow(History(tmp_path / "seconds.json"), told)
    assert told[0].remaining_s == pytest.approx(150.0, abs=1.0)
    assert told[0].stage_remaining_s == pytest.approx(100.0, abs=1.0)
    assert told[-1].remaining_s == 0.0


def test_what_all_stages_take_is_not_claimed_before_each_is_known(tmp_path: Path) -> None:
    history = History(tmp_path / "seconds.json")
    history.add("model: first", 100.0)
    told: list[Progress] = []
    follow(history, told)
    assert told[0].stage_remaining_s == pytest.approx(100.0, abs=1.0)
    assert told[0].remaining_s is None


def test_what_runs_side_by_side_is_counted_as_it_ends(tmp_path: Path) -> None:
    history = History(tmp_path / "seconds.json")
    for name, seconds in (("a", 100.0), ("b", 60.0), ("c", 40.0)):
        history.add(f"model: {name}", seconds)
    told: list[Progress] = []
    tracker = Tracker(["a", "b", "c"], told.append, history, "model", slots=2)
    for name, state in (("a", "running"), ("b", "running"), ("b", "finished"), ("c", "running")):
        tracker.note(name, state)
    tracker.note("a", "running", Items(item=1, items=2, unit="clips"))
    tracker.note("c", "found")
    tracker.note("a", "finished")
    assert [(x.stage, x.state, x.index, x.beside) for x in told] == [
        ("a", "running", 0, ()),
        ("b", "running", 0, ("a",)),
        ("b", "finished", 0, ("a",)),
        ("c", "running", 1, ("a",)),
        ("a", "running", 1, ("c",)),
        ("c", "found", 1, ("a",)),
        ("a", "finished", 2, ()),
    ]
    assert [x.fraction for x in told] == [0.0, 0.0, 1 / 3, 1 / 3, 0.5, 2 / 3, 1.0]
    assert told[0].remaining_s == pytest.approx(100.0, abs=1.0)  # half of all, or the longest
    assert told[3].remaining_s == pytest.approx(100.0, abs=1.0)
    assert told[-1].remaining_s == 0.0


def test_history_notes_what_ran_and_not_what_was_found_or_failed(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "seconds.json"
    follow(History(path), [], found=["first"])
    tracker = Tracker(["third"], lambda _: None, History(path), "model")
    with pytest.raises(ExportError), tracker.follow("third"):
        raise ExportError("no")
    assert list(json.loads(path.read_text())) == ["model: second"]


def test_history_is_small_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    path.write_text(json.dumps({f"old {n}": 1.0 for n in range(MOST_STAGES)}))
    History(path).add("x" * 10_000, 2.0)
    kept = json.loads(path.read_text())
    assert len(kept) == MOST_STAGES
    assert path.stat().st_size < 1 << 18
    assert "old 0" not in kept
    assert History(path).seconds_of("x" * 10_000) == 2.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "[1, 2]",
        "[" * 100_000,
        '{"model: first": "x", "model: second": -1}',
        '{"model: first": NaN, "model: second": 1e999}',
        f'{{"model: first": {10**400}, "model: second": null}}',
        '{"x": 1}' + " " * (2 << 20),
    ],
)
def test_history_that_cannot_be_believed_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "seconds.json"
    path.write_text(text)
    history = History(path)
    assert history.seconds_of("model: first") is None
    assert history.seconds_of("model: second") is None
    history.add("model: first", 3.0)
    assert History(path).seconds_of("model: first") == 3.0


def test_history_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    history = History(tmp_path / "file" / "seconds.json")
    history.add("model: first", 3.0)
    assert history.seconds_of("model: first") == 3.0


# --- what people see -----------------------------------------------------------------------------


def progress(stage: str, index: int, state: Any = "running", **others: Any) -> Progress:
    known = {"elapsed_s": 0.0, **others}
    return Progress(stage=stage, index=index, count=3, state=state, **known)


def test_without_a_terminal_a_stage_is_a_line_and_a_long_one_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bar, "REDRAW_S", 0.01)
    monkeypatch.setattr(bar, "LINE_S", 0.15)
    with bar.shown_progress() as display:
        display.show(progress("trace a", 0))
        display.show(progress("trace a", 0, "found", elapsed_s=0.01))
        display.show(progress("calibrate", 1))
        for item in range(4):
            display.show(progress("calibrate", 1, item=item, items=32, unit="clips"))
        told = progress(
            "calibrate", 1, item=4, items=32, unit="clips", elapsed_s=61.0, remaining_s=600.0
        )
        display.show(told)
        time.sleep(0.25)
        display.show(progress("calibrate", 1, "finished", elapsed_s=70.04))
        display.show(progress("compile b", 2, stage_remaining_s=100.0))
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "[1/3] trace a: found finished",
        "[2/3] calibrate: goes on, 61 s, 4 of 32 clips, about 10 min left",
        "[2/3] calibrate: 70.0 s",
    ]
    assert "\r" not in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "about 1 s"), (42.4, "about 42 s"), (130, "about 2 min"), (6000, "about 1.7 h")],
)
def test_estimates_say_that_they_are(seconds: float, text: str) -> None:
    assert bar.about(seconds) == text


_SHOW = """
import time
from mvsdk_export.commands.bar import shown_progress
from mvsdk_export.jobs.progress import Progress

def tell(stage, index, **others):
    values = dict(state="running", elapsed_s=0.0) | others
    display.show(Progress(stage=stage, index=index, count=4, **values))

with shown_progress() as display:
    tell("calibrate", 0, item=1, items=2, unit="clips", remaining_s=300.0)
    time.sleep(2.5)
    tell("calibrate", 0, item=0, items=9, unit="calls")
    tell("calibrate", 0, state="finished")
    tell("compile b", 1, stage_remaining_s=40.0)
"""


def frames_of(script: str, columns: int) -> Iterator[str]:
    """Run a script in a terminal; yield what it draws, line by line."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"}
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    drawn = b""
    while select.select([master], [], [], 60)[0]:
        try:
            drawn += os.read(master, 1 << 16)
        except OSError:  # Linux: everything was read
            break
    assert process.wait() == 0, drawn
    os.close(master)
    yield from (line.strip() for line in drawn.decode().replace("\n", "\r").split("\r"))


@pytest.mark.parametrize("columns", [80, 0])
def test_bar_moves_inside_a_stage_and_its_time_never_stands_still(columns: int) -> None:
    """A terminal of no columns does not know its size, as in some containers."""
    pytest.importorskip("tqdm")
    frames = [frame for frame in frames_of(_SHOW, columns) if "|" in frame]
    assert max(map(len, frames)) <= 80
    first = [frame for frame in frames if "1 of 2 clips" in frame]
    assert first[0].startswith("1/4 |█▎        | 00:0")  # an eighth
    assert first[0].endswith(", about 5 min left, calibrate, 1 of 2 clips")
    assert len({frame.split("|")[2][:6] for frame in first}) >= 3  # seconds went by, with no news
    bars = [frame.split("|")[1] for frame in frames if "/4" in frame]
    filled = [len(found.strip()) for found in bars]
    assert filled == sorted(filled)
    assert "about 40 s left of this stage, compile b" in frames[-1]
