"""How a model is trained, as data: what the recipes of all models have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Self

from mvsdk_export.training.data.clips import ClipOptions
from mvsdk_export.training.data.sprites import Subject, load_subjects
from mvsdk_export.training.options import Precision, TrainingError, TrainOptions

_OPTIONS = "_options"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe(ABC):
    """All that decides the weights of a model, apart from the code.

    The recipe of a model adds its networks, and a field `STAGE_options` of `TrainOptions` for every
    stage that trains one.
    """

    name: str
    """Recipe of `mvsdk_export.families` that the model belongs to."""
    seed: int = 0
    """Seed of the initial weights."""
    subjects: tuple[Subject, ...] | None = None
    """What there is to show, best known first; None for all of `subjects.json`."""
    subject_count: int | None = None
    """How many of them there are, from the first; None for all."""
    sprite_size: int = 64
    """Side of a sprite in pixels."""
    sprite_frames: int = 24
    """Frames kept of each loop."""
    clips: ClipOptions = field(default_factory=ClipOptions)
    """How the denoiser's clips are drawn."""
    bank_clips: int
    """Clips that the denoiser sees, over and over."""
    bank_seed: int = 1

    @property
    @abstractmethod
    def usual(self) -> TrainingRecipe:
        """The recipe of that name as it stands, from which this one may differ."""

    @property
    def trained_stages(self) -> tuple[str, ...]:
        """The stages that train a network, in their order."""
        names = [x.name for x in fields(self)]
        return tuple(name.removesuffix(_OPTIONS) for name in names if name.endswith(_OPTIONS))

    def known_subjects(self) -> tuple[Subject, ...]:
        """Return what there is to show, whatever `subject_count` says."""
        return load_subjects() if self.subjects is None else self.subjects

    def chosen_subjects(self) -> tuple[Subject, ...]:
        """Return what clips show.

        Raises:
            TrainingError: There are not so many.
        """
        known = self.known_subjects()
        count = len(known) if self.subject_count is None else self.subject_count
        if not 1 <= count <= len(known):
            raise TrainingError(f"asked for {count} subjects; allowed: 1 to {len(known)}")
        return known[:count]

    def options(self, stage: str) -> TrainOptions:
        """Return how the network of a stage is trained."""
        return getattr(self, stage + _OPTIONS)

    def changed(
        self,
        *,
        steps: int | None = None,
        subject_count: int | None = None,
        bank_clips: int | None = None,
        seed: int | None = None,
        precision: Precision | None = None,
    ) -> Self:
        """Return the recipe with other values; None keeps what it says.

        Args:
            steps: Steps of every stage that trains.
            subject_count: Subjects of clips.
            bank_clips: Clips that the denoiser sees.
            seed: Seed of weights and of every stage's training; the bank takes the next.
            precision: Of the products inside all networks.
        """
        changes: dict[str, object] = {"steps": steps, "seed": seed, "precision": precision}
        wanted = {name: value for name, value in changes.items() if value is not None}
        options = {
            stage + _OPTIONS: replace(self.options(stage), **wanted)  # pyright: ignore
            for stage in self.trained_stages
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
        usual = self.usual
        ours, theirs = (
            [recipe.options(stage) for stage in self.trained_stages] for recipe in (self, usual)
        )
        flags = [f"mvsdk train --model {self.name}"]
        if [x.steps for x in ours] != [x.steps for x in theirs]:
            flags.append(f"--steps {max(x.steps for x in ours)}")
        if self.subject_count != usual.subject_count:
            flags.append(f"--subjects {self.subject_count}")
        if self.bank_clips != usual.bank_clips:
            flags.append(f"--clips {self.bank_clips}")
        if self.seed != usual.seed:
            flags.append(f"--seed {self.seed}")
        if ours[-1].precision != theirs[-1].precision:
            flags.append(f"--precision {ours[-1].precision}")
        return " ".join(flags)
