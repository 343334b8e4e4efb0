"""How the image-to-video model is trained and compressed, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from mvsdk_export.checkpoints.scheduler import EDMScheduler, OneStepScheduler
from mvsdk_export.compress.recipe import MOBILEVD, CompressionRecipe
from mvsdk_export.distill.animator.clips import move_of
from mvsdk_export.distill.animator.options import ANIMATOR_TRAINED, AnimatorStage
from mvsdk_export.distill.clips import ClipOptions
from mvsdk_export.distill.options import Precision, TrainingError, TrainOptions
from mvsdk_export.distill.sprites import Subject, load_subjects
from mvsdk_export.networks.svd.clip_vision import ClipVisionConfig
from mvsdk_export.networks.svd.config import SVDUNetConfig

NAME = "animator"
"""Recipe of `mvsdk_export.recipes` that the model belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimatorTraining:
    """All that decides the weights of the model, apart from the code."""

    seed: int = 0
    """Seed of the initial weights."""
    subjects: tuple[Subject, ...] | None = None
    """What there is to show, best known first; None for all of `subjects.json`, those first that do
    not merely hop."""
    subject_count: int | None = None
    """How many of them there are, from the first; None for all."""
    sprite_size: int = 64
    """Side of a sprite in pixels."""
    sprite_frames: int = 24
    """Frames kept of each loop."""
    clips: ClipOptions
    """How clips are drawn."""
    autoencoder: Path | None = None
    """Model folder of the recipe `sticker`, whose autoencoder it shares; None for the one that this
    package ships."""
    unet: SVDUNetConfig
    image_encoder: ClipVisionConfig
    scheduler: EDMScheduler = field(default_factory=EDMScheduler)
    """How the base is sampled; a student starts at its highest level."""
    compression: CompressionRecipe = MOBILEVD
    """Settings of the transforms; their order is that of the stages."""
    bank_clips: int
    """Clips that are seen, over and over."""
    bank_seed: int = 1
    image_encoder_options: TrainOptions
    base_options: TrainOptions
    one_step_options: TrainOptions
    frames_options: TrainOptions
    importance_options: TrainOptions
    prune_options: TrainOptions
    funnels_options: TrainOptions

    @property
    def name(self) -> str:
        """Name of the model."""
        return NAME

    @property
    def one_step(self) -> OneStepScheduler:
        """How the finished model is sampled."""
        return OneStepScheduler(sigma=self.scheduler.sigma_max)

    @property
    def kept_blocks(self) -> int:
        """Temporal blocks that are left after pruning."""
        return self.compression.kept(self.unet.temporal_block_count)

    def chosen_subjects(self) -> tuple[Subject, ...]:
        """Return what clips show, in training or held out.

        Raises:
            TrainingError: There are not so many.
        """
        known = self.subjects
        if known is None:
            known = tuple(sorted(load_subjects(), key=_merely_hops))
        count = len(known) if self.subject_count is None else self.subject_count
        if not 1 <= count <= len(known):
            raise TrainingError(f"asked for {count} subjects; allowed: 1 to {len(known)}")
        return known[:count]

    def options(self, stage: AnimatorStage) -> TrainOptions:
        """Return how the network of a stage is trained."""
        options: dict[AnimatorStage, TrainOptions] = {
            "image_encoder": self.image_encoder_options,
            "base": self.base_options,
            "one_step": self.one_step_options,
            "frames": self.frames_options,
            "importance": self.importance_options,
            "prune": self.prune_options,
            "funnels": self.funnels_options,
        }
        return options[stage]

    def changed(
        self,
        *,
        steps: int | None = None,
        subject_count: int | None = None,
        bank_clips: int | None = None,
        seed: int | None = None,
        precision: Precision | None = None,
    ) -> AnimatorTraining:
        """Return the recipe with other values; None keeps what it says.

        Args:
            steps: Steps of every stage that trains.
            subject_count: Subjects of clips.
            bank_clips: Clips that are seen.
            seed: Seed of weights and of every stage's training; the bank takes the next.
            precision: Of the products inside all networks.
        """
        changes: dict[str, object] = {"steps": steps, "seed": seed, "precision": precision}
        wanted = {name: value for name, value in changes.items() if value is not None}
        options = {
            f"{stage}_options": replace(self.options(stage), **wanted)  # pyright: ignore
            for stage in ANIMATOR_TRAINED
        }
        return replace(
            self,
            seed=self.seed if seed is None else seed,
            bank_seed=self.bank_seed if seed is None else seed + 1,
            bank_clips=self.bank_clips if bank_clips is None else bank_clips,
            subject_count=self.subject_count if subject_count is None else subject_count,
            **options,
        )

    def command(self) -> str:
        """Return the command that trains so, with what differs from the recipe of that name."""
        usual = ANIMATOR_TRAININGS[self.name]
        flags = [f"mvsdk train --model {self.name}"]
        if any(self.options(x).steps != usual.options(x).steps for x in ANIMATOR_TRAINED):
            flags.append(f"--steps {self.base_options.steps}")
        if self.subject_count != usual.subject_count:
            flags.append(f"--subjects {self.subject_count}")
        if self.bank_clips != usual.bank_clips:
            flags.append(f"--clips {self.bank_clips}")
        if self.seed != usual.seed:
            flags.append(f"--seed {self.seed}")
        if self.base_options.precision != usual.base_options.precision:
            flags.append(f"--precision {self.base_options.precision}")
        return " ".join(flags)


def _merely_hops(subject: Subject) -> bool:
    return move_of(subject, mirrored=False) == "hop"


def _finetuned(steps: int) -> TrainOptions:
    return TrainOptions(
        steps=steps,
        batch_size=16,
        learning_rate=2e-4,
        matrix_rate=6e-3,
        warmup_steps=10,
        ema_decay=0.98,
        precision="bfloat16",
    )


ANIMATOR_TRAINING = AnimatorTraining(
    subject_count=256,
    clips=ClipOptions(scale=0.62, scale_spread=0.1, place_spread=0.06),
    unet=SVDUNetConfig(
        in_channels=64,
        out_channels=32,
        block_out_channels=(64, 48, 24, 16),
        layers_per_block=1,
        num_attention_heads=(2, 2, 1, 1),
        cross_attention_dim=64,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        num_frames=8,
        norm_groups=8,
    ),
    image_encoder=ClipVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        projection_dim=64,
    ),
    bank_clips=20_000,
    image_encoder_options=TrainOptions(
        steps=1500, batch_size=128, learning_rate=2e-3, ema_decay=0.99, precision="bfloat16"
    ),
    base_options=TrainOptions(
        steps=3000,
        batch_size=16,
        learning_rate=2e-3,
        matrix_rate=0.02,
        ema_decay=0.995,
        precision="bfloat16",
    ),
    one_step_options=_finetuned(280),
    frames_options=_finetuned(280),
    importance_options=_finetuned(200),
    prune_options=_finetuned(200),
    funnels_options=_finetuned(240),
)

ANIMATOR_TRAININGS: dict[str, AnimatorTraining] = {NAME: ANIMATOR_TRAINING}
