"""mvsdk: few-step video diffusion on phone NPUs, and on this computer.

    import mvsdk

    pipeline = mvsdk.load("sticker.mvbundle")
    video = pipeline.generate("a rocket flying left", num_inference_steps=4, seed=7)
    video.save("rocket.mp4")

    pipeline = mvsdk.load("mobilevd.mvbundle")
    pipeline.animate("harbour.jpg", motion=127, seed=7).save("harbour.mp4")

Importing the package is light: each name is loaded when it is first used, and what runs graphs,
Pillow and av only when something runs or is written. It also turns off what dependencies report
about their users, unless the environment says otherwise: so import it before them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mvsdk._telemetry import turn_off_telemetry

if TYPE_CHECKING:
    from mvsdk.backends import Backend, Session
    from mvsdk.backends.coreai import CoreAI
    from mvsdk.backends.coreml import CoreML
    from mvsdk.backends.executorch import ExecuTorch
    from mvsdk.backends.fake import Fake
    from mvsdk.backends.isolated import Isolation
    from mvsdk.backends.onnxruntime import OnnxRuntime
    from mvsdk.backends.qnn import Qnn
    from mvsdk.bundle import Bundle, BundleWriter
    from mvsdk.choosing import Choice, Device, choose
    from mvsdk.devices import CHIPSETS, Chipset, find_chipset
    from mvsdk.errors import (
        BackendError,
        BundleError,
        BundleNotFoundError,
        InputError,
        MvsdkError,
        OutputError,
        PictureNotFoundError,
        ScheduleError,
    )
    from mvsdk.generation import GenerateOptions, Step, Timings
    from mvsdk.loading import load
    from mvsdk.manifest import Manifest
    from mvsdk.noise import initial_latents
    from mvsdk.pipeline import Pipeline
    from mvsdk.slimming import slim_bundle
    from mvsdk.video import Video

__version__ = "0.1.0"

turn_off_telemetry()

__all__ = [  # noqa: RUF022 - grouped by use
    # make a clip
    "load",
    "Pipeline",
    "GenerateOptions",
    "Step",
    "Video",
    "Timings",
    # bundles
    "Bundle",
    "BundleWriter",
    "Manifest",
    "slim_bundle",
    # what runs the graphs
    "Backend",
    "Session",
    "OnnxRuntime",
    "Qnn",
    "ExecuTorch",
    "CoreML",
    "CoreAI",
    "Fake",
    "Isolation",
    # phones
    "CHIPSETS",
    "Chipset",
    "find_chipset",
    "choose",
    "Choice",
    "Device",
    # noise
    "initial_latents",
    # errors
    "MvsdkError",
    "BackendError",
    "BundleError",
    "BundleNotFoundError",
    "InputError",
    "PictureNotFoundError",
    "OutputError",
    "ScheduleError",
    "__version__",
]

_HOMES = {
    "load": "mvsdk.loading",
    "Pipeline": "mvsdk.pipeline",
    "GenerateOptions": "mvsdk.generation",
    "Step": "mvsdk.generation",
    "Timings": "mvsdk.generation",
    "Video": "mvsdk.video",
    "Bundle": "mvsdk.bundle",
    "BundleWriter": "mvsdk.bundle",
    "Manifest": "mvsdk.manifest",
    "slim_bundle": "mvsdk.slimming",
    "Backend": "mvsdk.backends",
    "Session": "mvsdk.backends",
    "OnnxRuntime": "mvsdk.backends.onnxruntime",
    "Qnn": "mvsdk.backends.qnn",
    "ExecuTorch": "mvsdk.backends.executorch",
    "CoreML": "mvsdk.backends.coreml",
    "CoreAI": "mvsdk.backends.coreai",
    "Fake": "mvsdk.backends.fake",
    "Isolation": "mvsdk.backends.isolated",
    "CHIPSETS": "mvsdk.devices",
    "Chipset": "mvsdk.devices",
    "find_chipset": "mvsdk.devices",
    "choose": "mvsdk.choosing",
    "Choice": "mvsdk.choosing",
    "Device": "mvsdk.choosing",
    "initial_latents": "mvsdk.noise",
    "MvsdkError": "mvsdk.errors",
    "BackendError": "mvsdk.errors",
    "BundleError": "mvsdk.errors",
    "BundleNotFoundError": "mvsdk.errors",
    "InputError": "mvsdk.errors",
    "PictureNotFoundError": "mvsdk.errors",
    "OutputError": "mvsdk.errors",
    "ScheduleError": "mvsdk.errors",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
