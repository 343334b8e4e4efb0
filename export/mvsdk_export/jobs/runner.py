"""Runs jobs: each once, in a process of its own, side by side as far as memory goes.

The key of a job (job.py) names a folder of the cache; a job whose folder exists is finished. So an
interrupted export goes on where it stopped, and no result outlives a change of anything that it
depends on. A runner holds a shared lock on every result that it uses, so that no other takes one
away from under it. A process per job bounds memory: what a compiler takes is returned to the system
with it, and a compiler that crashes takes but that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Self, cast

from mvsdk._staging import StagingFolder, lock_folder
from mvsdk.errors import MvsdkError
from mvsdk_export.jobs.failures import failure_of, keeping
from mvsdk_export.jobs.interrupts import interrupted_once, undisturbed
from mvsdk_export.jobs.job import Job, Keys, Made, R, in_order, needs
from mvsdk_export.jobs.memory import free_bytes
from mvsdk_export.jobs.process import Launcher, News, Process
from mvsdk_export.jobs.progress import Items
from mvsdk_export.jobs.worker import RESULT

LOG = "log.txt"
SCRATCH = "scratch"
"""Folder for temporary files while a job runs: on the disk that has room for results, and gone with
the job."""
ALIVE_S = 1.0
"""A listener hears this often that a job goes on."""
_PAUSE_S = 0.1
_SHARE = 0.75
"""Of the free memory, for jobs that run side by side; one alone may take what it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What became of a job."""

    job: Job[Any]
    state: Literal["running", "finished", "found"]
    """"found": an earlier run had finished it."""
    items: Items | None = None
    """How many things inside it are done; None if nothing new is known of that."""


Listener = Callable[[Event], None]
"""Told as jobs begin, go on and end, about every second; it may raise, which ends them all."""


class JobRunner:
    """Runs jobs and remembers them in a cache folder; close it to let go of them."""

    def __init__(
        self,
        cache_folder: Path,
        *,
        slots: int | None = None,
        memory_bytes: int | None = None,
        launcher: Launcher | None = None,
    ) -> None:
        """Use a cache; it is made when the first job ends.

        Args:
            cache_folder: Where results are kept.
            slots: Jobs that run at once; None for as many as there are processors.
            memory_bytes: For all of them together; None for three quarters of what is free. A job
                that wants more runs alone.
            launcher: What starts processes; None for one of its own.
        """
        self.cache_folder = cache_folder
        self.finished: list[Made[Any]] = []
        self.slots = slots or os.cpu_count() or 1
        """Jobs that run at once, at most."""
        self._memory_bytes = memory_bytes
        self._launcher = launcher or Launcher()
        self._keys = Keys()
        self._made: dict[str, Made[Any]] = {}
        self._locks: dict[Path, int | None] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of the results; they stay in the cache."""
        self.close()

    def __getitem__(self, job: Job[R]) -> Made[R]:
        """Return a job that `run` has finished.

        Raises:
            KeyError: If it has not run.
        """
        return cast("Made[R]", self._made[self._keys[job]])

    def warm_up(self, modules: Sequence[str]) -> None:
        """Begin to import what jobs will need, in the process that they are forked from."""
        self._launcher.warm_up(modules)

    def run(self, jobs: Sequence[Job[Any]], listener: Listener | None = None) -> None:
        """Run jobs and all that they need, or find them finished.

        Args:
            jobs: What to run; what stands first is begun first, unless it needs something.
            listener: Told what becomes of them.

        Raises:
            MvsdkError: What a job raised; `ExportError` for errors of other libraries, and if its
                process dies. All others are ended then.
            OutputError: If the cache cannot be written, or its disk is full.
        """
        waiting = {self._keys[job]: job for job in in_order(jobs)}
        waiting = {key: job for key, job in waiting.items() if key not in self._made}
        with interrupted_once():
            _Round(self, waiting, listener or _ignore).run()

    def forget(self) -> None:
        """Remove the results of this run from the cache, except what others use."""
        self.close()
        for folder in {made.folder for made in self.finished}:
            with contextlib.suppress(OSError):
                lock = lock_folder(folder)
                # Aside first: half a result must never be found. The name is that of what is
                # abandoned.
                aside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.partial")
                try:
                    folder.rename(aside)
                    shutil.rmtree(aside, ignore_errors=True)
                finally:
                    if lock is not None:
                        os.close(lock)

    def close(self) -> None:
        """Let go of the results, which stay in the cache, and end the warm process."""
        self._launcher.close()
        while self._locks:
            _, lock = self._locks.popitem()
            if lock is not None:
                os.close(lock)

    # What a round uses of its runner

    def _folder_of(self, job: Job[Any]) -> Path:
        return self.cache_folder / f"{type(job).__name__}-{self._keys[job][:24]}"

    def _hold(self, folder: Path) -> bool:
        """Lock a result against being forgotten; return whether it is there."""
        if folder in self._locks:
            return True
        try:
            lock = lock_folder(folder, shared=True)
        except OSError:  # not there, or another runner is forgetting it
            return False
        if _is_finished(folder):  # still there, now that it is locked
            self._locks[folder] = lock
            return True
        if lock is not None:
            os.close(lock)
        return False

    def _keep(self, job: Job[Any], *, reused: bool) -> None:
        key, folder = self._keys[job], self._folder_of(job)
        report = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        made = Made(job=job, key=key, folder=folder, reused=reused, **report)
        self._made[key] = made
        self.finished.append(made)


class _Round:
    """One call of `JobRunner.run`."""

    def __init__(self, runner: JobRunner, waiting: dict[str, Job[Any]], listener: Listener) -> None:
        self._runner = runner
        self._waiting = waiting
        self._listener = listener
        self._running: dict[Process, _Attempt] = {}
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            while self._waiting or self._running:
                self._begin_what_can()
                if self._running:
                    self._follow()
        finally:
            with undisturbed():
                for attempt in self._running.values():
                    attempt.abandon()

    def _begin_what_can(self) -> None:
        runner = self._runner
        for key, job in list(self._waiting.items()):
            if any(runner._keys[need] not in runner._made for need in needs(job)):
                continue
            if runner._hold(runner._folder_of(job)):
                del self._waiting[key]
                self._listener(Event(job=job, state="running"))
                runner._keep(job, reused=True)
                self._listener(Event(job=job, state="found"))
            elif self._has_room_for(job):
                del self._waiting[key]
                self._listener(Event(job=job, state="running"))
                self._begin(job)

    def _has_room_for(self, job: Job[Any]) -> bool:
        running = [attempt.job for attempt in self._running.values()]
        if not running:
            return True
        budget = self._runner._memory_bytes
        if budget is None:
            taken = sum(attempt.resident_bytes() for attempt in self._running.values())
            budget = int(_SHARE * (free_bytes() + taken))
        wanted = sum(other.memory_bytes for other in running) + job.memory_bytes
        return len(running) < self._runner.slots and wanted <= budget

    def _begin(self, job: Job[Any]) -> None:
        attempt = _Attempt(self._runner, job)
        try:
            process = attempt.start(self._news)
        except BaseException as exc:
            with undisturbed():
                attempt.abandon()
            if isinstance(exc, MvsdkError) and _is_finished(attempt.folder):
                self._end(attempt)
                return
            raise
        self._running[process] = attempt

    def _follow(self) -> None:
        """Wait for news of what runs, and act on it."""
        try:
            news = self._news.get(timeout=ALIVE_S)
        except queue.Empty:
            for process, attempt in list(self._running.items()):
                # A process that the job's has started may hold its pipe open.
                if process.poll() is not None:
                    self._finish(process)
                else:
                    self._listener(Event(job=attempt.job, state="running"))
            return
        attempt = self._running.get(news.process)
        if attempt is None:
            return
        if news.items is not None:
            self._listener(Event(job=attempt.job, state="running", items=news.items))
            return
        self._finish(news.process)

    def _finish(self, process: Process) -> None:
        attempt = self._running[process]
        try:
            attempt.finish()
        except MvsdkError:
            # Another export may have finished it meanwhile; by its key, it is as good as ours.
            if not _is_finished(attempt.folder):
                raise
        finally:
            with undisturbed():
                attempt.abandon()
                del self._running[process]
        self._end(attempt)

    def _end(self, attempt: _Attempt) -> None:
        job, runner = attempt.job, self._runner
        if not runner._hold(attempt.folder):  # another runner forgets it as soon as it is there
            self._waiting = {runner._keys[job]: job, **self._waiting}
            time.sleep(_PAUSE_S)
            return
        runner._keep(job, reused=False)
        self._listener(Event(job=job, state="finished"))


class _Attempt:
    """A job that runs, and the folder that it fills."""

    def __init__(self, runner: JobRunner, job: Job[Any]) -> None:
        self.job = job
        self.folder = runner._folder_of(job)
        self._runner = runner
        self._staging: StagingFolder | None = None
        self._process: Process | None = None
        self._sink: IO[bytes] | None = None

    def start(self, news: queue.SimpleQueue[News]) -> Process:
        runner, job = self._runner, self.job
        if not _is_finished(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)  # no result, whatever it is
        with keeping(job.name, runner.cache_folder):
            self._staging = StagingFolder(self.folder, replaces=None)
            self._staging.create()
            self._scratch.mkdir()
            self._sink = self._log.open("wb")
        made = [(need, runner[need].folder, runner[need].result) for need in needs(job)]
        self._process = runner._launcher.start(
            (job, made, self._staging.path, self._scratch),
            name=job.name,
            preload=job.PRELOAD,
            log=self._sink,
            scratch=self._scratch,
        )
        self._process.listen(news)
        return self._process

    def finish(self) -> None:
        """Publish what the job made.

        Raises:
            MvsdkError: As `JobRunner.run`.
        """
        assert self._process is not None
        assert self._staging is not None
        process, self._process = self._process, None
        with undisturbed():
            ending = process.end()
        if ending.status or not (self._staging.path / RESULT).is_file():
            raise failure_of(
                self.job.name, ending, self._log, self._scratch, self._runner.cache_folder
            )
        shutil.rmtree(self._scratch, ignore_errors=True)
        with keeping(self.job.name, self._runner.cache_folder):
            self._staging.publish()

    def abandon(self) -> None:
        """End the process and clear up, unless that is done."""
        if self._process is not None:
            self._process.end()
            self._process = None
        if self._sink is not None:
            self._sink.close()
        if self._staging is not None:
            self._staging.discard()

    def resident_bytes(self) -> int:
        """Return what its process holds by now; 0 where the system does not tell."""
        if self._process is None:
            return 0
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        return 0

    @property
    def _log(self) -> Path:
        assert self._staging is not None
        return self._staging.path / LOG

    @property
    def _scratch(self) -> Path:
        assert self._staging is not None
        return self._staging.path / SCRATCH


def seconds_of(jobs: Sequence[Made[Any]], runner: JobRunner) -> float:
    """Return the seconds of jobs and of all that they need, each once."""
    every = in_order([made.job for made in jobs])
    return sum({runner[job].key: runner[job].seconds for job in every}.values())


def files_made(made: Made[Any]) -> Iterator[Path]:
    """Yield the files that a job made, without those of the engine, sorted."""
    for path in sorted(made.folder.rglob("*")):
        place = path.relative_to(made.folder)
        if path.is_file() and place.parts[0] not in (SCRATCH, RESULT, LOG):
            yield path


def _is_finished(folder: Path) -> bool:
    """Return whether a folder holds a whole report; a disk may have lost part of it."""
    try:
        report: Mapping[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    parts = {"result", "seconds", "peak_bytes", "base_bytes"}
    return isinstance(report, dict) and report.keys() == parts


def _ignore(event: Event) -> None:
    del event
