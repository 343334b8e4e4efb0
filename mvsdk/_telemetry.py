"""What dependencies report about their users, turned off before any of them is imported.

ONNX Runtime 1.31 keeps a device identifier and a queue of events under the home folder, and looks
up the host that it sends them to, as soon as it is imported; the libraries of Hugging Face, which
only the tests and the training tools use, tell their hub who loads what. Both look at the
environment, which child processes inherit. What the user set is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

SWITCHES: Mapping[str, str] = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Environment variable -> the value that turns reports off."""


def turn_off_telemetry() -> None:
    """Set every switch that the user has not set."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
