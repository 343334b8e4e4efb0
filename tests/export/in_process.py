"""Runs jobs in the process that asks for them, one after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from mvsdk_export.jobs.process import Ending, Launcher, News, Process
from mvsdk_export.jobs.progress import listening
from mvsdk_export.jobs.worker import _run

_ONE_AT_A_TIME = threading.Lock()


class _Here(Process):
    """A job that runs in a thread, for whom listens."""

    def __init__(self, job: Any) -> None:
        self.pid, self.error = 0, None
        self._job = job
        self._raised: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def listen(self, news: queue.SimpleQueue[News]) -> None:
        self._news = news
        self._thread.start()

    def poll(self) -> int | None:
        return None if self._thread.is_alive() else 0

    def wait(self) -> int:
        self._thread.join()
        return 0

    def end(self) -> Ending:
        if self._thread.ident is not None:
            self._thread.join()
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        return Ending(status=0, error=None)

    def _run(self) -> None:
        job, made, output, _ = self._job
        try:
            with _ONE_AT_A_TIME, listening(lambda items: self._news.put(News(self, items))):
                _run(job, made, output)
        except BaseException as exc:
            self._raised = exc
        self._news.put(News(self, None))


class InProcessLauncher(Launcher):
    """Starts no processes. What a job raises is raised as it is."""

    def warm_up(self, modules: Sequence[str]) -> None:
        del modules

    def start(
        self, job: object, *, name: str, preload: Sequence[str], log: IO[bytes], scratch: Path
    ) -> Process:
        del name, preload, log, scratch
        return _Here(job)
