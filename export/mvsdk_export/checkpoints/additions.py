"""What a user puts beside a model folder: another decoder, motion modules, LoRAs; and a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from mvsdk_export.checkpoints.scheduler import DiscreteSampler

_LORA = "lora_"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraChoice:
    """A LoRA, and how much of it is added to the weights."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What is put beside a model folder."""

    decoder: Path | None = None
    """Folder of a decoder that takes the place of the model's own."""
    motion: Path | None = None
    """Folder, or single file, of temporal layers for an image model."""
    loras: tuple[LoraChoice, ...] = ()
    """Added to the weights in this order."""
    sampler: DiscreteSampler | None = None
    """How the denoiser is sampled, where its scheduler leaves that open; None for the default."""

    def absolute(self) -> Additions:
        """Return the same with places that do not depend on the working folder."""
        return replace(
            self,
            decoder=None if self.decoder is None else self.decoder.absolute(),
            motion=None if self.motion is None else self.motion.absolute(),
            loras=tuple(replace(lora, path=lora.path.absolute()) for lora in self.loras),
        )

    @property
    def places(self) -> dict[str, Path]:
        """Word -> file or folder, as jobs take them."""
        places = {} if self.decoder is None else {"decoder": self.decoder}
        if self.motion is not None:
            places["motion"] = self.motion
        return places | {f"{_LORA}{n}": lora.path for n, lora in enumerate(self.loras)}

    @property
    def settings(self) -> dict[str, str | float]:
        """Word -> what is said of them, as jobs take it."""
        settings: dict[str, str | float] = {
            f"{_LORA}{n}": lora.scale for n, lora in enumerate(self.loras)
        }
        return settings if self.sampler is None else {**settings, "sampler": self.sampler}

    @classmethod
    def of(cls, places: Mapping[str, Path], settings: Mapping[str, str | float]) -> Additions:
        """Return what a job is told: `places` and `settings` of another."""
        count = sum(word.startswith(_LORA) for word in places)
        words = [f"{_LORA}{n}" for n in range(count)]
        return cls(
            decoder=places.get("decoder"),
            motion=places.get("motion"),
            loras=tuple(
                LoraChoice(path=places[word], scale=float(settings[word])) for word in words
            ),
            sampler=cast("DiscreteSampler | None", settings.get("sampler")),
        )
