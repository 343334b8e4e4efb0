"""The text-to-video model, stage by stage, in one work folder.

data           npm packages                  -> data/sprites-*.npz, data/emoji/data.json
autoencoder    data                          -> vae/state.safetensors
text_encoder   data, MiniLM                  -> text/vocab.json, text/state.safetensors
latents        data, autoencoder             -> latents/bank.safetensors
draft          data, text_encoder, latents   -> draft/state.safetensors, with text encoder
teacher        draft, latents                -> teacher/state.safetensors, likewise
distillation   teacher                       -> distillation/state.safetensors
adversarial    teacher, distillation         -> adversarial/state.safetensors
package        all of these                  -> the model folder (packaging.py)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from mvsdk._staging import replacing
from mvsdk.tokenizers import WordPiece
from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.families.sticker.text_encoder import TextEncoder
from mvsdk_export.families.sticker.transformer import SpatioTemporalTransformer
from mvsdk_export.training.data.banks import check_bank, read_bank
from mvsdk_export.training.data.clips import StickerClips
from mvsdk_export.training.data.sources import read_emoji_names
from mvsdk_export.training.data.sprites import fetch_names, has_names
from mvsdk_export.training.loop import load_average_
from mvsdk_export.training.methods.autoencoder import autoencoder_loss, fit_encoder_
from mvsdk_export.training.options import TrainingError, TrainStep
from mvsdk_export.training.plan import TrainingPlan
from mvsdk_export.training.sticker.bank import LatentBank, draw_bank
from mvsdk_export.training.sticker.denoiser import TextDenoiser, denoiser_loss
from mvsdk_export.training.sticker.drafts import draft_loss, draw_pictures, fit_memory_
from mvsdk_export.training.sticker.measures import Networks
from mvsdk_export.training.sticker.options import STAGES, Stage
from mvsdk_export.training.sticker.recipe import StickerTraining
from mvsdk_export.training.sticker.student import Student, adversarial_loss, distillation_loss
from mvsdk_export.training.sticker.text_encoder import (
    Distillation,
    Teacher,
    build_vocabulary,
    words_loss,
)

logger = logging.getLogger(__name__)

UNSEEN_EVERY = 20
"""One subject in so many is kept from the autoencoder, to measure it on."""

_TABLE_RATES = {"text_encoder.memory.table.": 5.0}


class StickerTrainingPlan(TrainingPlan[StickerTraining]):
    """See `TrainingPlan`."""

    stages = STAGES
    places: ClassVar[Mapping[str, str]] = {
        "autoencoder": "vae",
        "text_encoder": "text",
        "latents": "latents",
        "draft": "draft",
        "teacher": "teacher",
        "distillation": "distillation",
        "adversarial": "adversarial",
    }
    rates: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "draft": _TABLE_RATES,
        "teacher": _TABLE_RATES,
        "adversarial": {"heads.": 10.0},
    }
    """The memory learns faster, each entry of which is seen in few batches; and the judging heads
    (SF-V: 1e-4 to the student's 1e-5)."""

    def needs(self, stage: str) -> tuple[str, ...]:
        """Return what must be finished before a stage; from the draft on, all that comes before."""
        early = {"text_encoder": ("data",), "latents": ("data", "autoencoder")}
        return early.get(stage) or super().needs(stage)

    def is_there(self, stage: str) -> bool:
        """Say whether the files of a stage are complete; `data` has names of emoji beside it."""
        return super().is_there(stage) and (stage != "data" or has_names(self.work))

    def make(self, stage: str) -> Iterator[TrainStep]:
        """Do a stage."""
        runners: Mapping[str, Callable[[], Iterator[TrainStep]]] = {
            "autoencoder": self.train_autoencoder,
            "text_encoder": self.train_text_encoder,
            "latents": self.make_latents,
            "draft": self.train_draft,
            "teacher": self.train_teacher,
            "distillation": self.train_distillation,
            "adversarial": self.train_adversarial,
        }
        return runners[stage]()

    # Stages

    def make_data(self) -> Iterator[TrainStep]:
        """Fetch and decode the sprites and the names of all emoji."""
        fetch_names(self.work)
        yield from super().make_data()

    def train_autoencoder(self) -> Iterator[TrainStep]:
        """Fit the patch transform and train the decoder, on frames of all subjects but some."""
        clips, _ = self.read_autoencoder_clips()
        network = self.build(lambda: Autoencoder(self.recipe.autoencoder))
        fit_encoder_(network, clips)
        loss = autoencoder_loss(clips, self.share("autoencoder"))
        yield from self.train("autoencoder", network, loss)

    def load_words_teacher(self) -> Teacher:
        """Return whose word features the text encoder learns: MiniLM."""
        return Teacher.load()

    def train_text_encoder(self) -> Iterator[TrainStep]:
        """Make the vocabulary and distil the text encoder on captions and names of emoji."""
        recipe, clips = self.recipe, self.read_clips()
        names = read_emoji_names(fetch_names(self.work))
        phrases = [phrase for label, tags in names.values() for phrase in (label, *tags)]
        tokens = build_vocabulary(clips, phrases)
        if self.workers.is_first:
            save_vocabulary(tokens, self.vocabulary_file)
        config = replace(
            recipe.text_encoder, vocabulary_size=len(tokens), subjects=len(clips.sprites.subjects)
        )
        network = self.build(lambda: Distillation(TextEncoder(config)))
        tokenizer = WordPiece(tokens, config.max_length)
        teacher = self.load_words_teacher()
        loss = words_loss(teacher, tokenizer, clips, phrases, self.share("text_encoder"))
        yield from self.train("text_encoder", network, loss)

    def draw_bank(self) -> Iterator[LatentBank]:
        """Draw and encode the clips that the denoiser sees, part by part."""
        count, seed = self.recipe.bank_clips, self.recipe.bank_seed
        return draw_bank(self.read_clips(), self.load_autoencoder(), count=count, seed=seed)

    def train_draft(self) -> Iterator[TrainStep]:
        """Fill the memory, and teach the denoiser where its pictures lie."""
        config, clips, autoencoder = (
            self.recipe.denoiser,
            self.read_clips(),
            self.load_autoencoder(),
        )
        text_encoder = self.load_distilled_text_encoder()
        denoiser = self.build(lambda: SpatioTemporalTransformer(config))
        assert text_encoder.memory is not None
        drawn = draw_pictures(clips, config.num_frames, config.picture_size)
        psnr_db = fit_memory_(text_encoder.memory, denoiser, clips, drawn, autoencoder)
        logger.info("principal components keep the pictures of the memory at %.1f dB", psnr_db)
        network = TextDenoiser(text_encoder, denoiser)
        bank, tokenizer = self.load_bank(), self.load_tokenizer()
        loss = draft_loss(bank, clips, tokenizer, autoencoder, drawn, self.share("draft"))
        yield from self.train("draft", network, loss)

    def train_teacher(self) -> Iterator[TrainStep]:
        """Train the denoiser on the bank of latents, and the memory with it."""
        loss = denoiser_loss(
            self.load_bank(), self.read_clips(), self.load_tokenizer(), self.share("teacher")
        )
        yield from self.train("teacher", self.load_text_denoiser("draft"), loss)

    def train_distillation(self) -> Iterator[TrainStep]:
        """Distil the guided teacher into a student that is consistent along its way."""
        teacher = self.load_teacher()
        network = self.build(lambda: Student(self.recipe.denoiser))
        network.denoiser.load_state_dict(teacher.denoiser.state_dict())
        loss = distillation_loss(
            self.load_bank(),
            self.read_clips(),
            self.load_tokenizer(),
            teacher,
            scheduler=self.recipe.scheduler,
            guidance_scale=self.recipe.guidance_scale,
            batch_size=self.share("distillation"),
        )
        yield from self.train("distillation", network, loss)

    def train_adversarial(self) -> Iterator[TrainStep]:
        """Finetune the distilled student against heads that judge it."""
        loss = adversarial_loss(
            self.load_bank(),
            self.read_clips(),
            self.load_tokenizer(),
            self.load_teacher(),
            scheduler=self.recipe.scheduler,
            batch_size=self.share("adversarial"),
        )
        yield from self.train("adversarial", self.load_student("distillation"), loss)

    # What the stages leave, and how it is read back

    @property
    def vocabulary_file(self) -> Path:
        """Where the vocabulary lies."""
        return self.place("text_encoder") / "vocab.json"

    @property
    def probe_file(self) -> Path:
        """Where the probe of subjects lies, by which clips are measured."""
        return self.work / "probe.safetensors"

    def read_clips(self) -> StickerClips:
        """Return the clips of all subjects, drawn as the denoiser sees them."""
        return StickerClips(sprites=self.read_sprites(), options=self.recipe.clips)

    def read_autoencoder_clips(self) -> tuple[StickerClips, StickerClips]:
        """Return clips of subjects that the autoencoder learns from, and of those it never sees."""
        sprites = self.read_sprites()
        ids = [subject.id for subject in sprites.subjects]
        unseen = ids[::-UNSEEN_EVERY] if len(ids) > 1 else ids
        seen = [x for x in ids if x not in unseen] or ids

        def draw(chosen: list[str]) -> StickerClips:
            return StickerClips(
                sprites=sprites.select(chosen), options=self.recipe.autoencoder_clips
            )

        return draw(seen), draw(unseen)

    def load_bank(self) -> LatentBank:
        """Read the encoded clips; see `TrainingPlan`."""
        bank = read_bank(LatentBank, self.bank_file)
        check_bank(bank, self.recipe.bank_clips, next(self.draw_bank()))
        return bank

    def load_autoencoder(self) -> Autoencoder:
        """Load the averaged weights of a run, finished or not."""
        network = Autoencoder(self.recipe.autoencoder)
        network.encoder.requires_grad_(False)
        load_average_(network, self.place("autoencoder"))
        return network

    def load_tokenizer(self) -> WordPiece:
        """Return the tokenizer of the vocabulary that was made from the data."""
        return WordPiece(_read_tokens(self.vocabulary_file), self.recipe.text_encoder.max_length)

    def load_distilled_text_encoder(self) -> TextEncoder:
        """Load the text encoder as the denoiser's training begins with it."""
        network = Distillation(self._text_encoder())
        load_average_(network, self.place("text_encoder"))
        return network.student

    def load_text_denoiser(self, stage: Stage) -> TextDenoiser:
        """Load the averaged weights of text encoder and denoiser after "draft" or "teacher"."""
        network = TextDenoiser(
            self._text_encoder(), SpatioTemporalTransformer(self.recipe.denoiser)
        )
        load_average_(network, self.place(stage))
        return network

    def load_teacher(self) -> TextDenoiser:
        """Load the averaged weights of the teacher and its text encoder, frozen."""
        return self.load_text_denoiser("teacher").requires_grad_(False)

    def load_student(self, stage: Stage) -> Student:
        """Load the averaged weights of a student, after its distillation or its finetuning."""
        network = Student(self.recipe.denoiser)
        load_average_(network, self.place(stage))
        return network

    def load_networks(self, stage: Stage = "adversarial") -> Networks:
        """Load the averaged weights that make a model, of runs finished or not.

        Args:
            stage: Whose denoiser: "teacher", "distillation" or "adversarial".
        """
        teacher = self.load_teacher()
        denoiser = teacher.denoiser if stage == "teacher" else self.load_student(stage).denoiser
        return Networks(
            tokenizer=self.load_tokenizer(),
            text_encoder=teacher.text_encoder,
            denoiser=denoiser,
            autoencoder=self.load_autoencoder(),
        )

    def _text_encoder(self) -> TextEncoder:
        config = replace(
            self.recipe.text_encoder,
            vocabulary_size=len(_read_tokens(self.vocabulary_file)),
            subjects=len(self.recipe.chosen_subjects()),
        )
        return TextEncoder(config)


def save_vocabulary(tokens: list[str], path: Path) -> None:
    """Write the vocabulary, or check that it is the one that is there.

    Raises:
        TrainingError: If another one is there.
    """
    if path.exists():
        if _read_tokens(path) != tokens:
            raise TrainingError(
                f"{path} holds other words than the data; choose another work folder, or remove "
                f"{path.parent} to train the text encoder anew"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"kind": "wordpiece", "tokens": tokens}), encoding="utf-8")


def _read_tokens(path: Path) -> list[str]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["tokens"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TrainingError(
            f"cannot read the vocabulary {path}: {exc}; run mvsdk train --stage text_encoder"
        ) from exc
