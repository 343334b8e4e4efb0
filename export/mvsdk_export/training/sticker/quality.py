"""The quality of a model in numbers: what its card says, made again by one command.

Rows compare what made the clips (the drawing itself, the teacher, the student; in PyTorch or from a
bundle at some precision) on the same prompts and seeds.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.training.data.captions import DIRECTIONS, HELD_OUT, CaptionSampler, Scene
from mvsdk_export.training.data.clips import StickerClips
from mvsdk_export.training.features import (
    RIDGE,
    FeatureNetwork,
    Features,
    SubjectProbe,
    clip_features,
    fit_probe,
    kernel_distance,
    load_probe,
    save_probe,
    spread_of,
)
from mvsdk_export.training.measures import Frames, background_of, change_psnr_db_of, reconstruct
from mvsdk_export.training.methods.autoencoder import reconstruction_psnr_db
from mvsdk_export.training.options import TrainingError
from mvsdk_export.training.sticker.denoiser import encode_captions
from mvsdk_export.training.sticker.measures import (
    Generate,
    Networks,
    Quality,
    backgrounds_of,
    chances_of,
    measure_clips,
)

logger = logging.getLogger(__name__)

Combinations = Literal["training", "held_out", "held_out_words"]
"""Scenes that training may show; scenes that it never shows; scenes of training in other words."""

PROBE_CLIPS = 24
"""Drawn clips of each subject that the probe learns from: motions, sizes and colours of all
kinds."""

PROBE_FRAMES = (2, 5)
"""Frames of a clip that the probe looks at."""

REAL_CLIPS = 256
"""Drawn clips to which kvd compares."""

BLUR = 2.0
"""Deviation of the blur of kvd's blurred reference, pixels at 64 a side."""

SPREAD_PROMPTS, SPREAD_SEEDS = 8, 8

_SCENES_SEED, _CLIP_SEED, _REAL_SEED, _PROBE_SEED, _WORDS_SEED = (
    20_000,
    1_000,
    40_000,
    50_000,
    60_000,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRow:
    """One line of the table of a model card."""

    source: str
    """What made the clips: "drawn", "teacher", "distilled" or "student"."""
    precision: str
    """Of the networks: "float32" in PyTorch; "fp32", "fp16" or "w8a16" from a bundle."""
    combinations: Combinations
    num_inference_steps: int | None
    """None: clips that were drawn, not generated, and went through the autoencoder."""
    kvd: float
    """Kernel distance of features to other drawn clips (`features.py`)."""
    quality: Quality

    def to_json(self) -> dict[str, object]:
        """Return numbers rounded to what they mean."""
        return {
            "source": self.source,
            "precision": self.precision,
            "combinations": self.combinations,
            "num_inference_steps": self.num_inference_steps,
            "kvd": round(self.kvd, 4),
            **self.quality.to_json(),
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> QualityRow:
        """Read what `to_json` wrote."""
        names = ("source", "precision", "combinations", "num_inference_steps", "kvd")
        rest = {name: value for name, value in row.items() if name not in names}
        return QualityRow(**{name: row[name] for name in names}, quality=Quality(**rest))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelQuality:
    """What was measured of a model."""

    prompts: int
    """Prompts behind each row."""
    autoencoder_psnr_db: float
    """Fresh clips of subjects that the autoencoder never saw, decoded, against themselves."""
    autoencoder_change_psnr_db: float
    """Of the differences between their neighbouring frames; median."""
    probe_accuracy: float
    """Of the probe of subjects, on drawn clips that it was not fitted on."""
    directions_told_apart: float
    """Share of captions in held-out words whose direction a linear probe, fitted on training's
    words, reads from the mean feature of the text encoder."""
    kvd_references: Mapping[str, float]
    """kvd of clips that were not generated: other drawn ones, frozen and blurred ones."""
    spread: float
    """Mean distance of features between seeds, where prompts leave colour and place open."""
    drawn_spread: float
    """The same of drawn clips that leave the same open."""
    obedience: float
    """Share of those clips that have the background that their noise chose."""
    named_spread: float
    """Mean distance of features between seeds, where prompts name all."""
    rows: tuple[QualityRow, ...]

    def to_json(self) -> dict[str, object]:
        """Return numbers rounded to what they mean."""
        values = {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }
        return {
            **values,
            "kvd_references": {k: round(v, 4) for k, v in self.kvd_references.items()},
            "rows": [row.to_json() for row in self.rows],
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> ModelQuality:
        """Read what `to_json` wrote.

        Raises:
            TrainingError: If something else did.
        """
        try:
            rows = tuple(QualityRow.from_json(row) for row in document["rows"])
            return ModelQuality(**{**document, "rows": rows})
        except (KeyError, TypeError) as exc:
            raise TrainingError(
                f"these are no figures of a model ({exc!r}); measure it again: "
                "mvsdk train --stage package --overwrite"
            ) from exc

    def with_rows(self, rows: Sequence[QualityRow]) -> ModelQuality:
        """Return these figures with other rows in place of those of the same precisions."""
        precisions = {row.precision for row in rows}
        kept = [row for row in self.rows if row.precision not in precisions]
        return replace(self, rows=(*kept, *rows))


class Measuring:
    """Makes rows; holds what all of them share: features, the probe, drawn clips to compare to."""

    def __init__(
        self,
        clips: StickerClips,
        latent_shape: Sequence[int],
        *,
        prompts: int = 96,
        features: Callable[[Frames], Features] | None = None,
        probe_file: Path | None = None,
    ) -> None:
        """Prepare the measures, which takes some minutes.

        Args:
            clips: Draw the subjects as the denoiser saw them.
            latent_shape: (F, C, h, w), by which seeds become noise.
            prompts: Prompts of a row.
            features: Maps clips `(N, F, H, W, 3)` to features `(N, F, D)`; None takes
                EfficientNet-lite0.
            probe_file: Where the probe is kept for the next time: fitting it takes most of the
                minutes. None for nowhere.
        """
        self.clips = clips
        self.prompts = prompts
        self._shape = tuple(latent_shape)
        self._features = features or FeatureNetwork.load().of_clips
        rng = np.random.default_rng(_REAL_SEED)
        self._real = clip_features(self._features(clips.sample_frames(rng, REAL_CLIPS)))
        self.kvd_references = self._measure_references(rng)
        self.probe = self._find_probe(probe_file)

    def _measure_references(self, rng: np.random.Generator) -> dict[str, float]:
        others = self.clips.sample_frames(rng, self.prompts)
        frozen = np.repeat(others[:, :1], others.shape[1], axis=1)
        sets = {"drawn": others, "frozen": frozen, "blurred": _blur(others)}
        return {name: self._kvd(self._features(frames)) for name, frames in sets.items()}

    def _find_probe(self, path: Path | None) -> SubjectProbe:
        """Read the probe if it was fitted on these clips, or fit it and keep it."""
        if path is None:
            return self._fit_probe()
        sprites = self.clips.sprites
        says = (sprites.subjects, self.clips.options, PROBE_CLIPS, PROBE_FRAMES, RIDGE)
        key = f"{zlib.crc32(repr(says).encode()):08x}{zlib.crc32(sprites.rgba.data):08x}"
        probe = load_probe(path, key)
        if probe is None:
            probe = self._fit_probe()
            save_probe(probe, path, key)
        return probe

    def _fit_probe(self) -> SubjectProbe:
        rng = np.random.default_rng(_PROBE_SEED)
        count = len(self.clips.sprites.subjects)
        subjects = np.repeat(np.arange(count), PROBE_CLIPS)
        parts: list[Features] = []
        for part in np.array_split(subjects, max(1, len(subjects) // 256)):
            frames = self._draw_subjects(part, rng)
            parts.append(self._features(frames[:, self._looked_at(frames)]))
        return fit_probe(np.concatenate(parts), subjects, count)

    def _draw_subjects(self, subjects: NDArray[np.int64], rng: np.random.Generator) -> Frames:
        """Draw clips of given subjects alone, otherwise as training does."""
        sampler = replace(self.clips.captions, pair_probability=0.0)
        scenes = [replace(sampler.sample_scene(rng), subject=int(i)) for i in subjects]
        return self.clips.render(scenes, rng)

    @staticmethod
    def _looked_at(frames: Frames) -> list[int]:
        return [min(index, frames.shape[1] - 1) for index in PROBE_FRAMES]

    def _kvd(self, features: Features) -> float:
        return kernel_distance(clip_features(features), self._real)

    def probe_accuracy(self) -> float:
        """Return the accuracy of the probe on fresh drawn clips, whole as those of rows are."""
        rng = np.random.default_rng(_PROBE_SEED + 1)
        subjects = rng.integers(len(self.clips.sprites.subjects), size=self.prompts)
        features = self._features(self._draw_subjects(subjects, rng))
        return float((self.probe(features) == subjects).mean())

    def draw_prompts(self, combinations: Combinations) -> tuple[list[Scene], list[str]]:
        """Draw scenes of one subject, and captions that name all there is to see.

        Always the same ones.
        """
        rng = np.random.default_rng([_SCENES_SEED, get_args(Combinations).index(combinations)])
        sampler = replace(
            self.clips.captions,
            pair_probability=0.0,
            wording=HELD_OUT if combinations == "held_out_words" else self.clips.captions.wording,
        )
        held_out = combinations == "held_out"
        draw = sampler.sample_held_out_scene if held_out else sampler.sample_scene
        scenes = [draw(rng) for _ in range(self.prompts)]
        return scenes, [sampler.caption(s, rng, name_everything=True).text for s in scenes]

    def row(
        self,
        generate: Generate,
        *,
        source: str,
        precision: str,
        combinations: Combinations,
        steps: int,
    ) -> QualityRow:
        """Measure generated clips."""
        scenes, captions = self.draw_prompts(combinations)
        seeds = [_CLIP_SEED + index for index in range(len(scenes))]
        frames = generate(captions, seeds, steps)
        return self._row(frames, scenes, seeds, source, precision, combinations, steps)

    def drawn_row(self, autoencoder: Autoencoder, *, combinations: Combinations) -> QualityRow:
        """Measure drawn clips that went through the autoencoder: what could be reached."""
        scenes, _ = self.draw_prompts(combinations)
        seeds = [_CLIP_SEED + index for index in range(len(scenes))]
        drawn = self._draw(scenes, seeds)
        frames = reconstruct(autoencoder, drawn)
        return self._row(frames, scenes, seeds, "drawn", "float32", combinations, None)

    def _draw(self, scenes: Sequence[Scene], seeds: Sequence[int]) -> Frames:
        chances = chances_of(seeds, self._shape)
        return self.clips.render(scenes, np.random.default_rng(0), chances)

    def _row(
        self,
        frames: Frames,
        scenes: Sequence[Scene],
        seeds: Sequence[int],
        source: str,
        precision: str,
        combinations: Combinations,
        steps: int | None,
    ) -> QualityRow:
        features = self._features(frames)
        row = QualityRow(
            source=source,
            precision=precision,
            combinations=combinations,
            num_inference_steps=steps,
            kvd=self._kvd(features),
            quality=measure_clips(
                frames,
                scenes,
                chances_of(seeds, self._shape),
                self.clips,
                probe=self.probe,
                features=features[:, self._looked_at(frames)],
            ),
        )
        logger.info("measured %s", row.to_json())
        return row

    def spreads(self, generate: Generate, steps: int) -> dict[str, float]:
        """Measure how seeds differ: fields of `ModelQuality`."""
        rng = np.random.default_rng(_SCENES_SEED)
        sampler = replace(
            self.clips.captions, pair_probability=0.0, name_background_probability=0.0
        )
        open_spread: list[Features] = []
        drawn_spread: list[Features] = []
        named_spread: list[Features] = []
        obeyed: list[bool] = []
        for prompt in range(SPREAD_PROMPTS):
            seeds = [_CLIP_SEED + SPREAD_SEEDS * prompt + index for index in range(SPREAD_SEEDS)]
            scene = sampler.sample_scene(rng)
            chosen = backgrounds_of(seeds, self._shape)
            drawn = self._draw([replace(scene, background=name) for name in chosen], seeds)
            free = sampler.caption(scene, rng).text
            frames = generate([free] * len(seeds), seeds, steps)
            obeyed += [background_of(x) == name for x, name in zip(frames, chosen, strict=True)]
            fixed = sampler.caption(scene, rng, name_everything=True).text
            open_spread.append(clip_features(self._features(frames)))
            drawn_spread.append(clip_features(self._features(drawn)))
            named_spread.append(
                clip_features(self._features(generate([fixed] * len(seeds), seeds, steps)))
            )
        return {
            "spread": spread_of(open_spread),
            "drawn_spread": spread_of(drawn_spread),
            "named_spread": spread_of(named_spread),
            "obedience": float(np.mean(obeyed)),
        }


def measure_model(
    measuring: Measuring,
    unseen: StickerClips,
    networks: Networks,
    sources: Mapping[str, tuple[Generate, Sequence[int]]],
) -> ModelQuality:
    """Measure trained networks; equal weights give equal numbers.

    Args:
        measuring: Makes the rows.
        unseen: Draw subjects that the autoencoder never saw.
        networks: The model as it is shipped, in evaluation mode.
        sources: Name -> what makes clips, and with how many steps; the last is what is shipped, and
            the first of its steps the usual number.
    """
    rows = [measuring.drawn_row(networks.autoencoder, combinations="held_out")]
    for source, (generate, counts) in sources.items():
        rows += [
            measuring.row(
                generate, source=source, precision="float32", combinations="held_out", steps=steps
            )
            for steps in counts
        ]
    source, (generate, counts) = list(sources.items())[-1]
    others: tuple[Combinations, ...] = ("training", "held_out_words")
    rows += [
        measuring.row(
            generate, source=source, precision="float32", combinations=kind, steps=counts[0]
        )
        for kind in others
    ]
    return ModelQuality(
        prompts=measuring.prompts,
        autoencoder_psnr_db=reconstruction_psnr_db(networks.autoencoder, unseen),
        autoencoder_change_psnr_db=_change_psnr_db(networks, unseen),
        probe_accuracy=measuring.probe_accuracy(),
        directions_told_apart=_tell_directions(networks, measuring.clips),
        kvd_references=measuring.kvd_references,
        **measuring.spreads(generate, counts[0]),
        rows=tuple(rows),
    )


def _change_psnr_db(networks: Networks, unseen: StickerClips) -> float:
    drawn = unseen.sample_frames(np.random.default_rng(_REAL_SEED), 64)
    decoded = reconstruct(networks.autoencoder, drawn)
    return float(np.median([change_psnr_db_of(x, y) for x, y in zip(decoded, drawn, strict=True)]))


def _tell_directions(networks: Networks, clips: StickerClips, count: int = 400) -> float:
    """Return how well directions are read from mean text features, in words not fitted on."""
    sets: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
    for sampler in (
        clips.captions,
        CaptionSampler(subjects=clips.captions.subjects, wording=HELD_OUT),
    ):
        rng = np.random.default_rng(_WORDS_SEED)
        wanted = rng.integers(len(DIRECTIONS), size=count)
        scenes = [
            replace(sampler.sample_scene(rng), partner=None, motion=DIRECTIONS[i]) for i in wanted
        ]
        texts = [sampler.caption(scene, rng).text for scene in scenes]
        with torch.no_grad():
            features = networks.text_encoder.encode(encode_captions(networks.tokenizer, texts))
        sets.append((features.mean(dim=1).double().numpy(), wanted))
    (x, directions), (y, asked) = sets
    probe = fit_probe(x[:, None].astype(np.float32), directions, len(DIRECTIONS))
    return float((probe(y[:, None].astype(np.float32)) == asked).mean())


def _blur(clips: Frames) -> Frames:
    radius = ImageFilter.GaussianBlur(BLUR * clips.shape[2] / 64)
    frames = clips.reshape(-1, *clips.shape[2:])
    blurred = np.stack([np.asarray(Image.fromarray(x).filter(radius)) for x in frames])
    return blurred.reshape(clips.shape)
