"""How the text-to-video model is trained, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from mvsdk_export.checkpoints.scheduler import FlowScheduler
from mvsdk_export.families.autoencoder import AutoencoderConfig
from mvsdk_export.families.sticker.text_encoder import TextEncoderConfig
from mvsdk_export.families.sticker.transformer import TransformerConfig
from mvsdk_export.training.data.captions import BACKGROUNDS
from mvsdk_export.training.data.clips import ClipOptions
from mvsdk_export.training.options import TrainOptions
from mvsdk_export.training.recipe import TrainingRecipe
from mvsdk_export.training.sticker.choices import CHOICES


@dataclass(frozen=True, slots=True, kw_only=True)
class StickerTraining(TrainingRecipe):
    """All that decides the weights of the model, apart from the code."""

    autoencoder_clips: ClipOptions
    """How the autoencoder's clips are drawn: wider than the denoiser's."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text_encoder: TextEncoderConfig
    """The sizes of its vocabulary and its memory are those of the data, whatever stands here."""
    denoiser: TransformerConfig = field(default_factory=TransformerConfig)
    scheduler: FlowScheduler
    """What `denoiser_loss` trains for."""
    autoencoder_options: TrainOptions
    text_encoder_options: TrainOptions
    draft_options: TrainOptions
    teacher_options: TrainOptions
    distillation_options: TrainOptions
    adversarial_options: TrainOptions
    guidance_scale: float
    """Guidance of the teacher that the student learns from; 1 for none."""

    @property
    def usual(self) -> StickerTraining:
        """The recipe as it stands, from which this one may differ."""
        return STICKER_TRAINING


STICKER_TRAINING = StickerTraining(
    name="sticker",
    autoencoder_clips=ClipOptions(phases=24, scale_spread=0.2, place_spread=0.1),
    text_encoder=TextEncoderConfig(vocabulary_size=1, max_length=24),
    denoiser=TransformerConfig(memory_slots=2, choices=CHOICES, choice_levels=len(BACKGROUNDS)),
    # Its first prediction is the best that a student has but for noise that it sees less and less
    # of: below half of it, what is left of the noise does more harm than one more look does good.
    scheduler=FlowScheduler(kind="flow_euler", prediction_type="sample", shift=3.0),
    bank_clips=40_000,
    autoencoder_options=TrainOptions(
        steps=3000, batch_size=16, learning_rate=1.5e-3, ema_decay=0.995
    ),
    text_encoder_options=TrainOptions(
        steps=2000, batch_size=64, learning_rate=1.5e-3, ema_decay=0.995
    ),
    draft_options=TrainOptions(steps=1500, batch_size=64, learning_rate=2e-3, ema_decay=0.98),
    teacher_options=TrainOptions(steps=2400, batch_size=16, learning_rate=5e-4, ema_decay=0.995),
    distillation_options=TrainOptions(
        steps=250, batch_size=16, learning_rate=5e-5, warmup_steps=20, ema_decay=0.98
    ),
    adversarial_options=TrainOptions(
        steps=60, batch_size=16, learning_rate=5e-5, warmup_steps=10, ema_decay=0.95
    ),
    guidance_scale=1.0,
)
