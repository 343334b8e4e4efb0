"""Runs jobs in the process that asks for them, one after the other."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from mvsdk_export.jobs.process import Ending, Launcher, News, Process
from mvsdk_export.jobs.progress import listening
from mvsdk_export.jobs.worker import _run


class _Here(Process):
    """A job that runs when somebody listens."""

    def __init__(self, job: Any) -> None:
        self.pid, self.error = 0, None
        self._job = job

    def listen(self, news: queue.SimpleQueue[News]) -> None:
        job, made, output, _ = self._job
        with listening(lambda items: news.put(News(self, items))):
            _run(job, made, output)
        news.put(News(self, None))

    def poll(self) -> int | None:
        return None

    def end(self) -> Ending:
        return Ending(status=0, error=None)


class InProcessLauncher(Launcher):
    """Starts no processes. What a job raises is raised as it is."""

    def start(
        self, job: object, *, name: str, preload: Sequence[str], log: IO[bytes], scratch: Path
    ) -> Process:
        del name, preload, log, scratch
        return _Here(job)
