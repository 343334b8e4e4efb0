"""Work for `benchmarks.npu_forms.run_in_child` that goes wrong; light, since children import it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

Send = Callable[[dict[str, Any]], None]


def succeed(send: Send, figure: float) -> None:
    """Go through both stages."""
    send({"stage": "compiler"})
    send({"prepare_cpu_s": figure})
    send({"stage": "emulator"})
    send({"sqnr_db": 40.0})


def abort(send: Send, *_: object) -> None:
    """Crash as native code does, after a first figure."""
    send({"stage": "emulator", "prepare_cpu_s": 1.5})
    os.abort()


def refuse(send: Send) -> None:
    """Fail with a message of two lines."""
    send({"stage": "compiler"})
    raise ValueError("no such operator\nand a long trace")


def loop(send: Send) -> None:
    """Compute without end."""
    send({"stage": "compiler"})
    while True:
        pass


def wait(send: Send) -> None:
    """Wait without end."""
    send({"stage": "compiler"})
    signal.pause()
