"""`python -m mvsdk` is the command `mvsdk`."""

from __future__ import annotations

import sys

from mvsdk.cli import main

if __name__ == "__main__":
    sys.exit(main())
