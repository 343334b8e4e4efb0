"""The quality of the image-to-video model after every step of its compression, in numbers.

Rows compare what made the clips on the same pictures and seeds: the drawing itself, the base at
many steps and at few, and the chain before and after the finetuning of each of its steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

import numpy as np

from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.training.animator.clips import (
    ORDINARY_BUCKET,
    AnimatedClips,
    HeldOut,
    Start,
    is_never_mirrored,
)
from mvsdk_export.training.animator.measures import (
    Animate,
    ClipQuality,
    drawn_ways,
    measure_animation,
    measure_ways,
)
from mvsdk_export.training.features import (
    FeatureNetwork,
    Features,
    clip_features,
    kernel_distance,
)
from mvsdk_export.training.measures import Frames, reconstruct
from mvsdk_export.training.options import TrainingError

logger = logging.getLogger(__name__)

REAL_CLIPS = 256
"""Drawn clips to which kvd compares."""

_STARTS_SEED, _CLIP_SEED, _REAL_SEED = 70_000, 2_000, 80_000

_ADVICE = "measure it again: mvsdk train --model animator --stage package --overwrite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What makes clips, and what it takes to make one."""

    name: str
    """ "drawn"; "frozen"; "fold": the base, folded; or the stage that trained the network."""
    is_finetuned: bool = True
    """False for a network that was compressed and not trained since."""
    steps: int | None = None
    """Evaluations of the denoiser; None where nothing was denoised."""
    parameters: int = 0
    """Of the denoiser."""
    flops: int = 0
    """Of one evaluation for one clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRow:
    """One line of the table of the model card."""

    source: str
    is_finetuned: bool
    held_out: HeldOut
    num_inference_steps: int | None
    """Evaluations of the denoiser; None for clips that were drawn."""
    parameters: int
    flops: int
    """Of all evaluations for one clip."""
    kvd: float
    """Kernel distance of features to other drawn clips (`features.py`)."""
    ways: Mapping[int, float] = field(default_factory=dict)
    """Motion bucket -> mean way of subjects to where they look, pixels; empty if none does."""
    quality: ClipQuality

    def to_json(self) -> dict[str, object]:
        """Return numbers rounded to what they mean."""
        return {
            "source": self.source,
            "is_finetuned": self.is_finetuned,
            "held_out": self.held_out,
            "num_inference_steps": self.num_inference_steps,
            "parameters": self.parameters,
            "flops": self.flops,
            "kvd": round(self.kvd, 4),
            "ways": {str(bucket): round(way, 2) for bucket, way in self.ways.items()},
            **self.quality.to_json(),
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> ChainRow:
        """Read what `to_json` wrote."""
        names = [x for x in ChainRow.__dataclass_fields__ if x not in ("quality", "ways")]
        rest = {name: value for name, value in row.items() if name not in (*names, "ways")}
        return ChainRow(
            **{name: row[name] for name in names},
            ways={int(bucket): way for bucket, way in row["ways"].items()},
            quality=ClipQuality(**rest),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimatorQuality:
    """What was measured of a model."""

    pictures: int
    """Pictures behind each row."""
    kvd_references: Mapping[str, float]
    """kvd of clips that were not generated: other drawn ones, and frozen ones."""
    kept_blocks: Sequence[str]
    """Temporal blocks that were left after pruning."""
    rows: tuple[ChainRow, ...]

    def to_json(self) -> dict[str, object]:
        """Return numbers rounded to what they mean."""
        return {
            **asdict(self),
            "kept_blocks": list(self.kept_blocks),
            "kvd_references": {k: round(v, 4) for k, v in self.kvd_references.items()},
            "rows": [row.to_json() for row in self.rows],
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> AnimatorQuality:
        """Read what `to_json` wrote.

        Raises:
            TrainingError: If something else did.
        """
        try:
            rows = tuple(ChainRow.from_json(row) for row in document["rows"])
            quality = AnimatorQuality(**{**document, "rows": rows})
            is_same = quality.to_json() == document
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise TrainingError(f"these are no figures of a model ({exc!r}); {_ADVICE}") from exc
        if not is_same:
            raise TrainingError(f"these are no figures that were written for a model; {_ADVICE}")
        return quality


class AnimatorMeasuring:
    """Makes rows; holds what all of them share: features, and drawn clips to compare to."""

    def __init__(
        self,
        clips: AnimatedClips,
        *,
        pictures: int = 64,
        features: Callable[[Frames], Features] | None = None,
    ) -> None:
        """Prepare the measures.

        Args:
            clips: Draw pictures, and the clips that follow from them.
            pictures: Pictures of a row.
            features: Maps clips `(N, F, H, W, 3)` to features `(N, F, D)`; None takes
                EfficientNet-lite0.
        """
        self.clips = clips
        self.pictures = pictures
        self._features = features or FeatureNetwork.load().of_clips
        rng = np.random.default_rng(_REAL_SEED)
        real = [self._start(rng, "training") for _ in range(REAL_CLIPS)]
        self._real = clip_features(self._features(clips.render(real)))
        others = clips.render([self._start(rng, "training") for _ in range(pictures)])
        frozen = np.repeat(others[:, :1], others.shape[1], axis=1)
        self.kvd_references = {"drawn": self._kvd(others), "frozen": self._kvd(frozen)}

    @property
    def unseen(self) -> tuple[HeldOut, ...]:
        """What training never shows, of what there is: of few subjects, none is held out."""
        return ("backgrounds", "subjects") if self.clips.held_out else ("backgrounds",)

    @property
    def further(self) -> tuple[HeldOut, ...]:
        """What the shipped network is measured on beside that."""
        held, subjects = self.clips.held_out, self.clips.sprites.subjects
        never = any(is_never_mirrored(x) for i, x in enumerate(subjects) if i not in held)
        return ("mirrorings", "training") if never else ("training",)

    def _start(self, rng: np.random.Generator, held_out: HeldOut) -> Start:
        return replace(self.clips.sample_start(rng, held_out), bucket=ORDINARY_BUCKET)

    def _kvd(self, frames: Frames) -> float:
        return kernel_distance(clip_features(self._features(frames)), self._real)

    def starts(self, held_out: HeldOut) -> list[Start]:
        """Return what the clips of a row begin with, all at the ordinary bucket."""
        rng = np.random.default_rng([_STARTS_SEED, get_args(HeldOut).index(held_out)])
        return [self._start(rng, held_out) for _ in range(self.pictures)]

    def row(self, source: Source, animate: Animate, held_out: HeldOut) -> ChainRow:
        """Measure the clips that a source makes, and on further ones ways by motion bucket.

        Args:
            source: Says what makes them.
            animate: Makes them.
            held_out: Which pictures they begin with.
        """
        starts = self.starts(held_out)
        seeds = [_CLIP_SEED + index for index in range(len(starts))]
        pictures = self.clips.render(starts)[:, 0]
        frames = animate(pictures, [start.bucket for start in starts], seeds)
        ways = measure_ways(animate, starts, self.clips, seeds)
        return self._row(source, held_out, frames, starts, ways)

    def reference_rows(self, autoencoder: Autoencoder, held_out: HeldOut) -> Iterator[ChainRow]:
        """Measure what bounds all others: drawn clips through the autoencoder, and frozen ones."""
        starts = self.starts(held_out)
        drawn = reconstruct(autoencoder, self.clips.render(starts))
        frozen = np.repeat(drawn[:, :1], drawn.shape[1], axis=1)
        ways = drawn_ways(starts, self.clips, autoencoder)
        still = dict.fromkeys(ways, 0.0)
        yield self._row(Source(name="drawn"), held_out, drawn, starts, ways)
        yield self._row(Source(name="frozen"), held_out, frozen, starts, still)

    def _row(
        self,
        source: Source,
        held_out: HeldOut,
        frames: Frames,
        starts: Sequence[Start],
        ways: Mapping[int, float],
    ) -> ChainRow:
        row = ChainRow(
            source=source.name,
            is_finetuned=source.is_finetuned,
            held_out=held_out,
            num_inference_steps=source.steps,
            parameters=source.parameters,
            flops=source.flops * (source.steps or 0),
            kvd=self._kvd(frames),
            ways=ways,
            quality=measure_animation(frames, starts, self.clips),
        )
        logger.info("measured %s", row.to_json())
        return row
