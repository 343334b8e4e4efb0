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
    """Stages before it, 0 to `count - 1`."""
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
    """Follows stages whose names and order are known, and tells a listener where they are."""

    def __init__(
        self, names: Sequence[str], on_progress: OnProgress, history: History, subject: str
    ) -> None:
        """Begin before the first stage.

        Args:
            names: Of all stages, in order.
            on_progress: Is told.
            history: What stages took in earlier runs; what these take is added.
            subject: What tells this model and size from others, for the history.
        """
        self._names = names
        self._on_progress = on_progress
        self._history = history
        self._subject = subject
        self._index = 0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageClock]:
        """Follow the next stage; it has ended when the block ends without an error."""
        clock = StageClock(
            name=name,
            index=self._index,
            count=max(len(self._names), self._index + 1),
            expected_s=self._expected_s(name),
            later_s=self._later_s(),
            on_progress=self._on_progress,
        )
        clock.tell()
        with listening(clock.tell):
            yield clock
        if not clock.found:
            self._history.add(self._key(name), clock.elapsed_s)
        clock.tell_end()
        self._index += 1

    def _key(self, name: str) -> str:
        return f"{self._subject}: {name}"

    def _expected_s(self, name: str) -> float | None:
        return self._history.seconds_of(self._key(name))

    def _later_s(self) -> float | None:
        """Return what the stages after this one took; None if that is not known of one."""
        known = [self._expected_s(name) for name in self._names[self._index + 1 :]]
        found = [seconds for seconds in known if seconds is not None]
        return sum(found) if len(found) == len(known) else None


class StageClock:
    """The time of one stage, and what was last heard of its work."""

    def __init__(
        self,
        *,
        name: str,
        index: int,
        count: int,
        expected_s: float | None,
        later_s: float | None,
        on_progress: OnProgress,
    ) -> None:
        self.found = False
        """Whether an earlier run had finished the stage."""
        self._name, self._index, self._count = name, index, count
        self._expected_s, self._later_s = expected_s, later_s
        self._on_progress = on_progress
        self._begin_s = time.monotonic()
        self._items: Items | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._begin_s

    def tell(self, items: Items | None = None) -> None:
        """Tell that the stage goes on, and how far it is; None if nothing new is known of that."""
        self._items = items or self._items
        self._on_progress(self._progress("running"))

    def tell_end(self) -> None:
        """Tell that the stage has ended."""
        self._on_progress(self._progress("found" if self.found else "finished"))

    def _progress(self, state: Literal["running", "finished", "found"]) -> Progress:
        elapsed_s, left_s = self.elapsed_s, None
        if state != "running":
            left_s = 0.0
        elif self._expected_s is not None:
            left_s = max(0.0, self._expected_s - elapsed_s)
        later_s = self._later_s
        return Progress(
            stage=self._name,
            index=self._index,
            count=self._count,
            state=state,
            elapsed_s=elapsed_s,
            item=self._items.item if self._items else None,
            items=self._items.items if self._items else None,
            unit=self._items.unit if self._items else "",
            stage_remaining_s=left_s,
            remaining_s=None if left_s is None or later_s is None else left_s + later_s,
        )
