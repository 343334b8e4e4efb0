"""Model folders: read with care, written all or nothing.

    model_index.json                     class, recipe, format version
    COMPONENT/config.json                fields of the network's configuration dataclass
    COMPONENT/*.safetensors              weights, float16 on disk, float32 in memory
    tokenizer/vocab.json                 WordPiece vocabulary
    scheduler/scheduler_config.json      how the denoiser was trained to be sampled
    README.md                            model card

A folder may come from anywhere. Nothing in it is executed: pickles are refused, JSON is bounded and
strict, weights are compared with the network before they are read. Importing this needs no torch;
`ModelFolder.load`, `load_configs` and `save_model_folder` do.
"""

from __future__ import annotations

from mvsdk_export.checkpoints.folder import (
    MODEL_CARD,
    ModelFolder,
    default_model_folder,
    load_configs,
    open_model_folder,
)
from mvsdk_export.checkpoints.scheduler import Scheduler
from mvsdk_export.checkpoints.writer import save_model_folder

__all__ = [
    "MODEL_CARD",
    "ModelFolder",
    "Scheduler",
    "default_model_folder",
    "load_configs",
    "open_model_folder",
    "save_model_folder",
]
