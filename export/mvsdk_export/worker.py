"""The child process of a stage: reads one job from standard input, runs it, writes its report.

Errors go to standard output as `error: CLASS: ...`, the one line that the parent shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from mvsdk.errors import MvsdkError
from mvsdk_export.stages import timed

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the job; return the exit status."""
    _die_with_parent(os.getppid())
    job = json.load(sys.stdin)
    from mvsdk_export.work import find_function

    try:
        timed(find_function(job["function"]), job["arguments"], Path(job["output"]))
    except MvsdkError as exc:
        print(f"error: {type(exc).__name__}: {exc}")
        return 1
    except Exception as exc:
        traceback.print_exc()
        print(f"error: {type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}")
        return 1
    return 0


def _die_with_parent(parent: int) -> None:
    """Ask Linux to end this process when the parent ends, also by kill -9."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
