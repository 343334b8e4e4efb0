"""Model folders: read with care, written all or nothing.

    model_index.json                     class, recipe, format version
    COMPONENT/config.json                fields of the network's configuration dataclass
    COMPONENT/*.safetensors              weights, float16 on disk, float32 in memory; large ones in
                                         shards, with an index
    tokenizer/vocab.json                 WordPiece vocabulary, of models that take text
    scheduler/scheduler_config.json      how the denoiser was trained to be sampled
    README.md                            model card

Public folders, as recipes know them (public.py), are read as well; and what a user puts beside one:
a light decoder (decoder.py), motion modules (motion.py), LoRAs (lora.py).

A folder may come from anywhere. Nothing in it is executed: pickles are refused, JSON is bounded and
strict, weights are compared with the network before they are read. Importing this needs no torch;
`ModelFolder.load`, `load_configs` and `save_model_folder` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mvsdk_export.checkpoints.building import GraphOptions
from mvsdk_export.checkpoints.decoder import DecoderFolder, open_decoder
from mvsdk_export.checkpoints.folder import (
    MODEL_CARD,
    QUALITY_FILE,
    ModelFolder,
    default_model_folder,
    load_configs,
    open_model,
    read_recipe,
)
from mvsdk_export.checkpoints.locations import INDEX_FILE
from mvsdk_export.checkpoints.scheduler import (
    EDMScheduler,
    FlowScheduler,
    OneStepScheduler,
    Scheduler,
)

if TYPE_CHECKING:
    from mvsdk_export.checkpoints.writer import save_model_folder

__all__ = [
    "INDEX_FILE",
    "MODEL_CARD",
    "QUALITY_FILE",
    "DecoderFolder",
    "EDMScheduler",
    "FlowScheduler",
    "GraphOptions",
    "ModelFolder",
    "OneStepScheduler",
    "Scheduler",
    "default_model_folder",
    "load_configs",
    "open_decoder",
    "open_model",
    "read_recipe",
    "save_model_folder",
]


def __getattr__(name: str) -> Any:
    """Load what writes folders where somebody writes one: jobs only read."""
    if name == "save_model_folder":
        from mvsdk_export.checkpoints import writer

        return writer.save_model_folder
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
