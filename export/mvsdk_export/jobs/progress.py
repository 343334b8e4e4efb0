"""Progress of an export as a value, and how the work inside a stage tells how far it is.

Whoever runs stages hands out a `Progress` as they begin, go on and end. Work that goes through a
known number of things says so where it does that, `for case in counted(cases, "clips")`, and knows
nothing of who listens: in a stage's process that is the pipe to the parent, elsewhere nobody.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, TypeVar

from mvsdk_export.jobs.history import History

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """How many of what a stage goes through are done."""

    item: int
    """Done, 0 to `items`."""
    items: int
    unit: str
    """What they are, such as "clips"; a stage may go through several things one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an export or a verification is."""

    stage: str
    """Name of the stage, such as "compile transformer w8a16 for sm8650"."""
    index: int
    """Stages that have ended, 0 to `count - 1`."""
    count: int
    """Stages in all."""
    state: Literal["running", "finished", "found"]
    """"found": an earlier run had finished it."""
    elapsed_s: float
    """Since the stage began."""
    item: int | None = None
    """Things of the stage that are done; None if it does not count any."""
    items: int | None = None
    """Of how many."""
    unit: str = ""
    """What they are, such as "clips"."""
    beside: tuple[str, ...] = ()
    """Names of other stages that are running."""
    stage_remaining_s: float | None = None
    """About what is left of this stage, by what it took before; None if that is not known."""
    remaining_s: float | None = None
    """About what is left of all stages; None unless it is known of each that is to come."""

    @property
    def fraction(self) -> float:
        """Stages that are done, this one in part, of all; 0 to 1."""
        if self.state != "running":
            done = 1.0
        else:
            done = self.item / self.items if self.item is not None and self.items else 0.0
        return (self.index + done) / self.count


OnProgress = Callable[[Progress], None]
"""Told where an export is: as a stage begins, about every second, and as it ends."""

_LISTENER: ContextVar[Callable[[Items], None] | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(listener: Callable[[Items], None]) -> Iterator[None]:
    """Have a listener told of what is counted inside the block."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def counted(things: Sequence[T], unit: str) -> Iterable[T]:
    """Go through things and tell who listens how many are done.

    Args:
        things: What is gone through; returned as it is if nobody listens.
        unit: What they are, in the plural.
    """
    if _LISTENER.get() is None:
        return things
    return _counted(things, counting(len(things), unit))


def counting(items: int, unit: str) -> Callable[[], None]:
    """Return what is to be called as each of some things is done, where no one loop has them all.

    Args:
        items: How many there will be.
        unit: What they are, in the plural.
    """
    listener = _LISTENER.get()
    if listener is None:
        return _tell_nobody
    item = 0
    listener(Items(item=0, items=items, unit=unit))

    def count() -> None:
        nonlocal item
        item += 1
        listener(Items(item=item, items=items, unit=unit))

    return count


def _counted(things: Iterable[T], count: Callable[[], None]) -> Iterator[T]:
    for thing in things:
        yield thing
        count()


def _tell_nobody() -> None:
    pass


class Tracker:
    """Follows jobs, and other work, of a plan, and tells a listener where they are.

    Several may run at once. What ends counts, in the order in which it ends.
    """

    def __init__(
        self,
        names: Sequence[str],
        on_progress: OnProgress,
        history: History | None,
        subject: str,
        *,
        slots: int = 1,
    ) -> None:
        """Begin before the first of them.

        Args:
            names: Of all that the plan holds, in about the order in which they begin.
            on_progress: Is told.
            history: What they took in earlier runs; what these take is added. None knows nothing.
            subject: What tells this model and size from others, for the history.
            slots: How many may run at once.
        """
        self._names = list(names)
        self._on_progress = on_progress
        self._history = history or History(None)
        self._subject = subject
        self._slots = slots
        self._waiting = list(names)
        self._running: dict[str, _Clock] = {}
        self._ended = 0

    def begin(self, name: str) -> None:
        """Follow what begins now."""
        if name in self._waiting:
            self._waiting.remove(name)
        self._running[name] = _Clock(expected_s=self._expected_s(name))
        self.tell(name)

    def tell(self, name: str, items: Items | None = None) -> None:
        """Tell that it goes on, and how far it is; None if nothing new is known of that."""
        clock = self._running[name]
        clock.items = items or clock.items
        self._on_progress(self._progress(name, clock, "running", self._remaining_s()))

    def end(self, name: str, *, found: bool = False) -> None:
        """Tell that it has ended.

        Args:
            name: What ended.
            found: An earlier run had finished it.
        """
        clock = self._running.pop(name)
        if not found:
            self._history.add(self._key(name), clock.elapsed_s)
        state = "found" if found else "finished"
        self._on_progress(self._progress(name, clock, state, self._remaining_s()))
        self._ended += 1

    def note(
        self,
        name: str,
        state: Literal["running", "finished", "found"],
        items: Items | None = None,
    ) -> None:
        """Follow what is told of a job: the first that is told of it is that it begins."""
        if state != "running":
            self.end(name, found=state == "found")
        elif name in self._running:
            self.tell(name, items)
        else:
            self.begin(name)

    @contextlib.contextmanager
    def follow(self, name: str) -> Iterator[None]:
        """Follow what is done in the block; it has ended when the block ends without an error."""
        self.begin(name)
        with listening(lambda items: self.tell(name, items)):
            yield
        self.end(name)

    def _key(self, name: str) -> str:
        return f"{self._subject}: {name}"

    def _expected_s(self, name: str) -> float | None:
        return self._history.seconds_of(self._key(name))

    def _remaining_s(self) -> float | None:
        """Return about what is left of all; None if that is not known of one."""
        running = [clock.left_s for clock in self._running.values()]
        found = [*running, *map(self._expected_s, self._waiting)]
        known = [seconds for seconds in found if seconds is not None]
        if len(known) < len(found):
            return None
        longest = max((seconds for seconds in running if seconds is not None), default=0.0)
        return max(longest, sum(known) / self._slots)

    def _progress(
        self,
        name: str,
        clock: _Clock,
        state: Literal["running", "finished", "found"],
        remaining_s: float | None,
    ) -> Progress:
        return Progress(
            stage=name,
            index=self._ended,
            count=max(len(self._names), self._ended + 1),
            state=state,
            elapsed_s=clock.elapsed_s,
            item=clock.items.item if clock.items else None,
            items=clock.items.items if clock.items else None,
            unit=clock.items.unit if clock.items else "",
            beside=tuple(other for other in self._running if other != name),
            stage_remaining_s=clock.left_s if state == "running" else 0.0,
            remaining_s=remaining_s,
        )


class _Clock:
    """The time of what runs, and what was last heard of it."""

    def __init__(self, *, expected_s: float | None) -> None:
        self.items: Items | None = None
        self._expected_s = expected_s
        self._begin_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._begin_s

    @property
    def left_s(self) -> float | None:
        """About what is left, by what it took before; None if that is not known."""
        return None if self._expected_s is None else max(0.0, self._expected_s - self.elapsed_s)
