"""The way of a model from data to a model folder: stages, each from the files of those before.

A stage that is finished does nothing; an interrupted one goes on, `latents` from its beginning.
What was made with other options, of other subjects, or from what has been trained anew since is
never continued. Of several processes that train together the first does alone what trains nothing,
while the others wait.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import nn

from mvsdk_export.training.data.banks import Bank, save_bank
from mvsdk_export.training.data.sprites import Sprites, build_sprites, load_sprites, sprite_cache
from mvsdk_export.training.loop import (
    LossFunction,
    check_same_data,
    check_same_run,
    read_saved_run,
    train,
)
from mvsdk_export.training.options import TrainingError, TrainStep
from mvsdk_export.training.recipe import TrainingRecipe
from mvsdk_export.training.workers import Workers

ALONE = Workers()
"""One process that trains by itself."""

RecipeT = TypeVar("RecipeT", bound=TrainingRecipe)
NetworkT = TypeVar("NetworkT", bound=nn.Module)


class TrainingPlan(ABC, Generic[RecipeT]):
    """The stages of a model, in one work folder.

    Args:
        recipe: How it is trained.
        work: Folder where the stages leave what they make.
        workers: The processes that train together.
    """

    stages: ClassVar[tuple[str, ...]]
    """In the order in which they can be run: from "data" to "package"."""
    places: ClassVar[Mapping[str, str]]
    """Stage -> folder in the work folder where its files lie, "data" and "package" excepted."""
    rates: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    """Stage -> start of parameter names -> factor of their learning rate."""
    matrices: ClassVar[Sequence[str]] = ()
    """Starts of the names of parameters whose matrices Muon trains, where the options have a rate
    for it."""

    def __init__(self, recipe: RecipeT, work: Path, workers: Workers = ALONE) -> None:
        self.recipe = recipe
        self.work = work
        self.workers = workers

    @abstractmethod
    def make(self, stage: str) -> Iterator[TrainStep]:
        """Do a stage, "data" and "package" excepted; what is there of it goes on."""

    @abstractmethod
    def draw_bank(self) -> Iterator[Bank]:
        """Draw and encode the clips that the denoiser sees, part by part."""

    def run(self, stage: str) -> Generator[TrainStep]:
        """Do what is left to do of a stage; "package" is none of these.

        Yields:
            Progress; nothing if the stage is finished. Close the iterator to save and stop.

        Raises:
            TrainingError: If an earlier stage is not finished, or files are of another recipe.
            DataError: If the data cannot be had.
        """
        self.check_needs(stage)
        if not self.is_finished(stage) and (self.is_trained(stage) or self.workers.is_first):
            yield from self.make_data() if stage == "data" else self.make(stage)
        self.workers.wait()

    def needs(self, stage: str) -> tuple[str, ...]:
        """Return what must be finished before a stage: all that comes before it."""
        return self.stages[: self.stages.index(stage)]

    def is_trained(self, stage: str) -> bool:
        """Say whether a stage trains a network."""
        return stage in self.recipe.trained_stages

    def is_there(self, stage: str) -> bool:
        """Say whether the files of a stage are complete, whatever they were made with."""
        if self.is_trained(stage):
            saved = read_saved_run(self.place(stage))
            return saved is not None and saved.is_finished
        return (self.bank_file if stage == "latents" else self._sprite_file).is_file()

    def is_finished(self, stage: str) -> bool:
        """Say whether nothing is left to do of a stage, "package" excepted.

        Raises:
            TrainingError: If what is there was made with other options.
        """
        if self.is_trained(stage) and (saved := read_saved_run(self.place(stage))) is not None:
            check_same_run(saved, self.recipe.options(stage), self.data(stage), self.place(stage))
        if stage == "latents" and self.is_there(stage):
            self.load_bank()
        return self.is_there(stage)

    def check_needs(self, stage: str) -> None:
        """Check that the stages before one are finished, of these subjects, with whatever options.

        Raises:
            TrainingError: With the command that finishes the first that is not.
        """
        for need in self.needs(stage):
            if not self.is_there(need):
                raise TrainingError(
                    f"stage {stage} needs {need}, which is not finished in {self.work}; run "
                    f"{self.recipe.command()} --stage {need} --work {self.work}"
                )
            if self.is_trained(need) and (saved := read_saved_run(self.place(need))) is not None:
                check_same_data(saved, self.data(need), self.place(need))

    def data(self, stage: str) -> str:
        """Return what a state says that it was trained on: subjects, and networks before it."""
        count, sprites = len(self.recipe.chosen_subjects()), self._sprite_file.stem
        name = f"{count} subjects ({sprites})"
        saved = [read_saved_run(self.place(x)) for x in self.needs(stage) if self.is_trained(x)]
        if not saved:
            return name
        digests = [run.digest if run is not None else "" for run in saved]
        return f"{name} from {hashlib.sha256(' '.join(digests).encode()).hexdigest()[:12]}"

    def place(self, stage: str) -> Path:
        """Return the folder where the files of a stage lie."""
        return self.work / self.places[stage]

    @property
    def bank_file(self) -> Path:
        """Where the encoded clips lie."""
        return self.place("latents") / "bank.safetensors"

    @property
    def _sprite_file(self) -> Path:
        recipe = self.recipe
        return sprite_cache(
            self.work,
            size=recipe.sprite_size,
            source_frames=recipe.sprite_frames,
            subjects=recipe.chosen_subjects(),
        )

    def read_sprites(self) -> Sprites:
        """Read the sprites of every subject."""
        return load_sprites(self._sprite_file)

    @abstractmethod
    def load_bank(self) -> Bank:
        """Read the encoded clips after checking that they are of this recipe.

        Raises:
            TrainingError: If they are of other subjects, of another seed or autoencoder.
        """

    def make_data(self) -> Iterator[TrainStep]:
        """Fetch and decode the sprites."""
        started = time.monotonic()
        build_sprites(
            self.work,
            size=self.recipe.sprite_size,
            source_frames=self.recipe.sprite_frames,
            subjects=self.recipe.chosen_subjects(),
        )
        yield TrainStep(step=1, steps=1, loss=None, elapsed_s=time.monotonic() - started)

    def make_latents(self) -> Iterator[TrainStep]:
        """Draw and encode the clips that the denoiser sees."""
        started = time.monotonic()
        parts: list[Bank] = []
        done, count = 0, self.recipe.bank_clips
        for part in self.draw_bank():
            parts.append(part)
            done += len(part)
            if done == count:
                save_bank(parts, self.bank_file)
            yield TrainStep(step=done, steps=count, loss=None, elapsed_s=time.monotonic() - started)

    def share(self, stage: str) -> int:
        """Return how many examples of each batch this process takes.

        Raises:
            TrainingError: If they cannot be shared evenly.
        """
        return self.workers.share(self.recipe.options(stage).batch_size)

    def train(self, stage: str, network: nn.Module, loss: LossFunction) -> Iterator[TrainStep]:
        """Train the network of a stage with its loss."""
        return train(
            network,
            loss,
            self.recipe.options(stage),
            self.place(stage),
            data=self.data(stage),
            workers=self.workers,
            rates=self.rates.get(stage),
            matrices=self.matrices,
        )

    def build(self, network: Callable[[], NetworkT]) -> NetworkT:
        """Build a network whose initial weights depend on the recipe's seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            return network()
