"""The toolchain: networks, training, quantisation, lowering and verification."""

import mvsdk  # noqa: F401 - first of all: it turns off what dependencies report (mvsdk/_telemetry.py)

__version__ = "0.1.0"
