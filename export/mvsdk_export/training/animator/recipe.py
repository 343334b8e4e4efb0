"""How the image-to-video model is trained and compressed, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mvsdk_export.checkpoints.scheduler import EDMScheduler, OneStepScheduler
from mvsdk_export.compress.recipe import MOBILEVD, CompressionRecipe
from mvsdk_export.families.svd.clip_vision import ClipVisionConfig
from mvsdk_export.families.svd.config import SVDUNetConfig
from mvsdk_export.training.animator.clips import move_of
from mvsdk_export.training.data.clips import ClipOptions
from mvsdk_export.training.data.sprites import Subject, load_subjects
from mvsdk_export.training.options import TrainOptions
from mvsdk_export.training.recipe import TrainingRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimatorTraining(TrainingRecipe):
    """All that decides the weights of the model, apart from the code."""

    autoencoder: Path | None = None
    """Model folder of the recipe `sticker`, whose autoencoder it shares; None for the one that this
    package ships."""
    unet: SVDUNetConfig
    image_encoder: ClipVisionConfig
    scheduler: EDMScheduler = field(default_factory=EDMScheduler)
    """How the base is sampled; a student starts at its highest level."""
    compression: CompressionRecipe = MOBILEVD
    """Settings of the transforms; their order is that of the stages."""
    image_encoder_options: TrainOptions
    base_options: TrainOptions
    one_step_options: TrainOptions
    frames_options: TrainOptions
    importance_options: TrainOptions
    prune_options: TrainOptions
    funnels_options: TrainOptions

    @property
    def usual(self) -> AnimatorTraining:
        """The recipe as it stands, from which this one may differ."""
        return ANIMATOR_TRAINING

    @property
    def one_step(self) -> OneStepScheduler:
        """How the finished model is sampled."""
        return OneStepScheduler(sigma=self.scheduler.sigma_max)

    @property
    def kept_blocks(self) -> int:
        """Temporal blocks that are left after pruning."""
        return self.compression.kept(self.unet.temporal_block_count)

    def known_subjects(self) -> tuple[Subject, ...]:
        """Return what there is to show: of all subjects, those first that do not merely hop."""
        if self.subjects is not None:
            return self.subjects
        return tuple(sorted(load_subjects(), key=_merely_hops))


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
    name="animator",
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
