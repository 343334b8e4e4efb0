"""Training recipes: how a model of the SDK was trained, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mvsdk_export.checkpoints.scheduler import FlowScheduler
from mvsdk_export.distill.captions import BACKGROUNDS
from mvsdk_export.distill.choices import CHOICES
from mvsdk_export.distill.clips import ClipOptions
from mvsdk_export.distill.options import (
    TRAINED_STAGES,
    Precision,
    Stage,
    TrainingError,
    TrainOptions,
)
from mvsdk_export.distill.sprites import Subject, load_subjects
from mvsdk_export.networks.text_encoder import TextEncoderConfig
from mvsdk_export.networks.transformer import TransformerConfig
from mvsdk_export.networks.vae import AutoencoderConfig
from mvsdk_export.recipes import find_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """All that decides the weights of a model, apart from the code."""

    name: str
    """Recipe of `mvsdk_export.recipes` that the model belongs to."""
    seed: int = 0
    """Seed of the initial weights."""
    subjects: tuple[Subject, ...] | None = None
    """What there is to show, best known first; None for all of `subjects.json`."""
    subject_count: int | None = None
    """How many of them to learn, from the first; None for all."""
    sprite_size: int = 64
    """Side of a sprite in pixels."""
    sprite_frames: int = 24
    """Frames kept of each loop."""
    autoencoder_clips: ClipOptions
    """How the autoencoder's clips are drawn: wider than the denoiser's."""
    clips: ClipOptions = field(default_factory=ClipOptions)
    """How the denoiser's clips are drawn."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text_encoder: TextEncoderConfig
    """The sizes of its vocabulary and its memory are those of the data, whatever stands here."""
    denoiser: TransformerConfig = field(default_factory=TransformerConfig)
    scheduler: FlowScheduler
    """What `denoiser_loss` trains for."""
    bank_clips: int
    """Clips that the denoiser sees, over and over."""
    bank_seed: int = 1
    autoencoder_options: TrainOptions
    text_encoder_options: TrainOptions
    draft_options: TrainOptions
    teacher_options: TrainOptions
    distillation_options: TrainOptions
    adversarial_options: TrainOptions
    guidance_scale: float
    """Guidance of the teacher that the student learns from; 1 for none."""

    def chosen_subjects(self) -> tuple[Subject, ...]:
        """Return what the model learns to show.

        Raises:
            TrainingError: There are not so many.
        """
        known = load_subjects() if self.subjects is None else self.subjects
        count = len(known) if self.subject_count is None else self.subject_count
        if not 1 <= count <= len(known):
            raise TrainingError(f"asked for {count} subjects; allowed: 1 to {len(known)}")
        return known[:count]

    def options(self, stage: Stage) -> TrainOptions:
        """Return how the network of a stage is trained."""
        options: dict[Stage, TrainOptions] = {
            "autoencoder": self.autoencoder_options,
            "text_encoder": self.text_encoder_options,
            "draft": self.draft_options,
            "teacher": self.teacher_options,
            "distillation": self.distillation_options,
            "adversarial": self.adversarial_options,
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
    ) -> TrainingRecipe:
        """Return the recipe with other values; None keeps what it says.

        Args:
            steps: Steps of every network.
            subject_count: Subjects to learn.
            bank_clips: Clips that the denoiser sees.
            seed: Seed of weights and of every network's training; the latent bank takes the next.
            precision: Of the products inside all networks.
        """
        changes: dict[str, object] = {"steps": steps, "seed": seed, "precision": precision}
        wanted = {name: value for name, value in changes.items() if value is not None}
        options = {
            f"{stage}_options": replace(self.options(stage), **wanted)  # pyright: ignore
            for stage in TRAINED_STAGES
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
        usual = TRAININGS[self.name]
        flags = [f"mvsdk train --model {self.name}"]
        if any(self.options(x).steps != usual.options(x).steps for x in TRAINED_STAGES):
            flags.append(f"--steps {self.teacher_options.steps}")
        if self.subject_count != usual.subject_count:
            flags.append(f"--subjects {self.subject_count}")
        if self.bank_clips != usual.bank_clips:
            flags.append(f"--clips {self.bank_clips}")
        if self.seed != usual.seed:
            flags.append(f"--seed {self.seed}")
        if self.teacher_options.precision != usual.teacher_options.precision:
            flags.append(f"--precision {self.teacher_options.precision}")
        return " ".join(flags)


STICKER_TRAINING = TrainingRecipe(
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

TRAININGS: dict[str, TrainingRecipe] = {STICKER_TRAINING.name: STICKER_TRAINING}


def find_training(name: str) -> TrainingRecipe:
    """Return how a model is trained.

    Raises:
        ExportError: No recipe has that name.
        TrainingError: The model is not trained by this toolchain.
    """
    recipe = find_recipe(name)
    if recipe.name not in TRAININGS:
        raise TrainingError(f"model {name!r} is not trained here; known: {', '.join(TRAININGS)}")
    return TRAININGS[recipe.name]
