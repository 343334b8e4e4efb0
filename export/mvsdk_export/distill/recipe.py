"""Training recipes: how a model of the SDK was trained, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mvsdk_export.checkpoints.scheduler import Scheduler
from mvsdk_export.distill.clips import ClipOptions
from mvsdk_export.distill.options import Stage, TrainingError, TrainOptions
from mvsdk_export.distill.sprites import Subject
from mvsdk_export.networks.text_encoder import TextEncoderConfig
from mvsdk_export.networks.unet import UNetConfig
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
    """What autoencoder and text encoder learn from; None for all of `subjects.json`."""
    denoiser_subjects: int
    """How many of them the denoiser learns to show."""
    subjects_first: tuple[str, ...] = ()
    """Ids of the subjects that it learns first of all; the others follow in the order above."""
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
    """Its vocabulary size is that of the vocabulary made from the data, whatever stands here."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    scheduler: Scheduler
    """What `denoiser_loss` trains for."""
    bank_clips: int
    """Clips that the denoiser sees, over and over."""
    bank_seed: int = 1
    autoencoder_options: TrainOptions
    text_encoder_options: TrainOptions
    denoiser_options: TrainOptions

    def chosen_subjects(self, known: Sequence[Subject]) -> tuple[str, ...]:
        """Return the ids of the denoiser's subjects.

        Args:
            known: All that there are.

        Raises:
            TrainingError: There are not so many.
        """
        ids = tuple(dict.fromkeys((*self.subjects_first, *(subject.id for subject in known))))
        if not 1 <= self.denoiser_subjects <= len(ids):
            raise TrainingError(
                f"asked for {self.denoiser_subjects} subjects; allowed: 1 to {len(ids)}"
            )
        return ids[: self.denoiser_subjects]

    def options(self, stage: Stage) -> TrainOptions:
        """Return how the network of a stage is trained."""
        options: dict[Stage, TrainOptions] = {
            "autoencoder": self.autoencoder_options,
            "text_encoder": self.text_encoder_options,
            "denoiser": self.denoiser_options,
        }
        return options[stage]

    def changed(
        self,
        *,
        steps: int | None = None,
        denoiser_subjects: int | None = None,
        seed: int | None = None,
    ) -> TrainingRecipe:
        """Return the recipe with other values; None keeps what it says.

        Args:
            steps: Steps of every network.
            denoiser_subjects: Subjects of the denoiser.
            seed: Seed of weights and of every network's training; the latent bank takes the next.
        """
        options = {
            name: replace(
                value,
                steps=value.steps if steps is None else steps,
                seed=value.seed if seed is None else seed,
            )
            for name, value in (
                ("autoencoder_options", self.autoencoder_options),
                ("text_encoder_options", self.text_encoder_options),
                ("denoiser_options", self.denoiser_options),
            )
        }
        subjects = self.denoiser_subjects if denoiser_subjects is None else denoiser_subjects
        return replace(
            self,
            seed=self.seed if seed is None else seed,
            bank_seed=self.bank_seed if seed is None else seed + 1,
            denoiser_subjects=subjects,
            **options,
        )


STICKER_TRAINING = TrainingRecipe(
    name="sticker",
    denoiser_subjects=24,
    subjects_first=(
        "rocket",
        "helicopter",
        "bus",
        "racing-car",
        "sailboat",
        "airplane",
        "cat",
        "dragon",
        "whale",
        "horse",
        "dog",
        "elephant",
        "bee",
        "fish",
        "turtle",
        "balloon",
        "train",
        "penguin",
        "ghost",
        "star",
        "robot",
        "octopus",
        "duck",
        "heart",
    ),
    autoencoder_clips=ClipOptions(phases=24, scale_jitter=0.06, position_jitter=0.05),
    clips=ClipOptions(scale_jitter=0.0, position_jitter=0.0, travel=28 / 64, colour_jitter=3),
    text_encoder=TextEncoderConfig(vocabulary_size=3581),
    scheduler=Scheduler(kind="flow_euler", prediction_type="sample"),
    bank_clips=3000,
    autoencoder_options=TrainOptions(
        steps=3000, batch_size=16, learning_rate=1.5e-3, ema_decay=0.995
    ),
    text_encoder_options=TrainOptions(
        steps=1200, batch_size=32, learning_rate=1.5e-3, ema_decay=0.995
    ),
    denoiser_options=TrainOptions(
        steps=10_000,
        batch_size=32,
        learning_rate=1.2e-3,
        ema_decay=0.999,
        precision="bfloat16",
    ),
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
