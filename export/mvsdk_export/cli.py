"""The verbs of the toolchain, as the entry-point group `mvsdk.commands` finds them."""

from __future__ import annotations

from mvsdk.cli.command import Command
from mvsdk_export.commands.compress import COMPRESS
from mvsdk_export.commands.export import EXPORT
from mvsdk_export.commands.plan import PLAN
from mvsdk_export.commands.train import TRAIN
from mvsdk_export.commands.verify import VERIFY

COMMANDS: tuple[Command, ...] = (EXPORT, VERIFY, PLAN, COMPRESS, TRAIN)
