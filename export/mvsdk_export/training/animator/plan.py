"""The image-to-video model, stage by stage, in one work folder.

    data        npm packages              -> data/sprites-*.npz
    latents     data, sticker's vae       -> animator/latents/bank.safetensors
    image_encoder  latents                -> animator/image_encoder/state.safetensors
    base        image_encoder, latents    -> animator/base/state.safetensors, with image encoder
    one_step    base                      folded, finetuned to one step against the frozen base
    frames      one_step                  half the frames inside, finetuned likewise
    importance  frames                    which temporal blocks matter -> importance.json
    prune       importance                only those stay, finetuned likewise
    funnels     prune                     narrow self-attention as adaptors, finetuned likewise
    package     all of these              -> the model folder (packaging.py)

Every stage from `one_step` on leaves animator/STAGE/state.safetensors: a denoiser and the heads
that judged it, with which the next one goes on. A network of this chain begins as that of the stage
before, compressed by one step, and ends with the averaged weights of its own stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from mvsdk_export.checkpoints import default_model_folder, open_model
from mvsdk_export.compress.folding import fold_cross_attention, report_folding
from mvsdk_export.compress.frames import halve_frames, report_frames
from mvsdk_export.compress.funnels import add_funnels, merge_funnels
from mvsdk_export.compress.importance import Importance, load_importance
from mvsdk_export.compress.pruning import prune_temporal, report_pruning
from mvsdk_export.families import find_recipe
from mvsdk_export.families.autoencoder import PATCH, Autoencoder
from mvsdk_export.families.svd.clip_vision import ClipVisionEncoder
from mvsdk_export.families.svd.config import SVDUNetConfig
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.training.animator.bank import ClipBank, draw_clip_bank
from mvsdk_export.training.animator.clips import AnimatedClips
from mvsdk_export.training.animator.losses import base_loss, draw_conditions, names_loss
from mvsdk_export.training.animator.networks import AnimatorBase, PictureNames
from mvsdk_export.training.animator.options import ANIMATOR_STAGES, CHAIN, AnimatorStage
from mvsdk_export.training.animator.recipe import AnimatorTraining
from mvsdk_export.training.data.banks import check_bank, read_bank
from mvsdk_export.training.loop import load_average_
from mvsdk_export.training.methods.one_step import OneStepStudent, one_step_loss
from mvsdk_export.training.options import TrainStep
from mvsdk_export.training.plan import TrainingPlan

IMPORTANCE_FILE = "importance.json"
"""Scores of temporal blocks: which to keep."""

_RATES = {"image_encoder.": 0.2, "heads.": 5.0, "importance.": 100.0}


class AnimatorTrainingPlan(TrainingPlan[AnimatorTraining]):
    """See `TrainingPlan`."""

    stages = ANIMATOR_STAGES
    places: ClassVar[Mapping[str, str]] = {
        stage: f"animator/{stage}" for stage in ANIMATOR_STAGES[1:-1]
    }
    rates: ClassVar[Mapping[str, Mapping[str, float]]] = dict.fromkeys(("base", *CHAIN), _RATES)
    """Slower learns the image encoder, for it knows what pictures show by then; faster the judging
    heads, and the scores of temporal blocks, which have to order themselves within one stage."""
    matrices = ("unet.",)
    """After as many steps the loss of Muon is the lower one, and subjects have gone further:
    docs/training.md has the trials."""

    def is_there(self, stage: str) -> bool:
        """Say whether the files of a stage are complete; "importance" has a file beside it."""
        return super().is_there(stage) and (stage != "importance" or self.importance_file.is_file())

    def make(self, stage: str) -> Iterator[TrainStep]:
        """Do a stage."""
        match stage:
            case "latents":
                return self.make_latents()
            case "image_encoder":
                return self.train_image_encoder()
            case "base":
                return self.train_base()
            case "importance":
                return self.learn_importance()
            case _:
                return self.finetune(stage)

    # Stages

    def draw_bank(self) -> Iterator[ClipBank]:
        """Draw and encode the clips that the denoiser sees, part by part."""
        count, seed = self.recipe.bank_clips, self.recipe.bank_seed
        return draw_clip_bank(self.read_clips(), self.load_autoencoder(), count=count, seed=seed)

    def train_image_encoder(self) -> Iterator[TrainStep]:
        """Teach the encoder of pictures what they show."""
        clips = self.read_clips()
        subjects = len(clips.sprites.subjects)
        network = self.build(lambda: PictureNames(self.recipe.image_encoder, subjects))
        loss = names_loss(self.load_bank(), clips, self.share("image_encoder"))
        yield from self.train("image_encoder", network, loss)

    def train_base(self) -> Iterator[TrainStep]:
        """Train the uncompressed denoiser and the encoder of its picture."""
        recipe = self.recipe
        network = self.build(lambda: AnimatorBase(recipe.unet, recipe.image_encoder))
        network.image_encoder.load_state_dict(self.load_named_encoder().state_dict())
        loss = base_loss(self.load_bank(), self.load_autoencoder(), self.share("base"))
        yield from self.train("base", network, loss)

    def finetune(self, stage: str) -> Iterator[TrainStep]:
        """Compress by the step of a stage of the chain, and finetune to one evaluation."""
        unet = self.begin_unet(stage)
        network = self.build(lambda: self.build_student(stage, unet))
        if stage != CHAIN[0]:
            before = self.load_student(_before(stage))
            network.heads.load_state_dict(before.heads.state_dict())
        base = self.load_base()
        draw = draw_conditions(self.load_bank(), self.load_autoencoder(), base, self.share(stage))
        loss = one_step_loss(draw, base.unet, scheduler=self.recipe.scheduler)
        yield from self.train(stage, network, loss)

    def learn_importance(self) -> Iterator[TrainStep]:
        """Learn which temporal blocks matter, and write it down for pruning."""
        yield from self.finetune("importance")
        if self.workers.is_first:
            importance = self.load_student("importance").importance
            assert importance is not None
            importance.result(self.recipe.name).save(self.importance_file)

    # What the stages leave, and how it is read back

    @property
    def importance_file(self) -> Path:
        """Where the learned importance of temporal blocks lies."""
        return self.place("importance") / IMPORTANCE_FILE

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of latents."""
        return self.recipe.clips.size // PATCH, self.recipe.clips.size // PATCH

    def read_clips(self) -> AnimatedClips:
        """Return the clips of all subjects."""
        return AnimatedClips(sprites=self.read_sprites(), options=self.recipe.clips)

    def load_bank(self) -> ClipBank:
        """Read the encoded clips; see `TrainingPlan`."""
        bank = read_bank(ClipBank, self.bank_file)
        check_bank(bank, self.recipe.bank_clips, next(self.draw_bank()))
        return bank

    def load_autoencoder(self) -> Autoencoder:
        """Load the autoencoder that the model shares, frozen.

        Raises:
            CheckpointError: If its model folder is damaged.
        """
        model = find_recipe("sticker")
        folder = self.recipe.autoencoder or default_model_folder(model.name)
        network = open_model(folder, model).load("vae_decoder")
        assert isinstance(network, Autoencoder)
        return network.requires_grad_(False)

    def load_named_encoder(self) -> ClipVisionEncoder:
        """Load the image encoder as the training of the base begins with it."""
        network = PictureNames(self.recipe.image_encoder, len(self.recipe.chosen_subjects()))
        load_average_(network, self.place("image_encoder"))
        return network.image_encoder

    def load_base(self) -> AnimatorBase:
        """Load the averaged weights of the uncompressed model, frozen."""
        network = AnimatorBase(self.recipe.unet, self.recipe.image_encoder)
        load_average_(network, self.place("base"))
        return network.requires_grad_(False)

    def begin_unet(self, stage: AnimatorStage | str) -> SVDUNet:
        """Return the denoiser as the training of a stage of the chain begins with it.

        It is compressed by one step, and not yet finetuned; funnels are adaptors. No other network
        shares its weights.
        """
        before = self.load_unet("base" if stage == CHAIN[0] else _before(stage))
        settings, size = self.recipe.compression, self.latent_size
        match stage:
            case "one_step":
                unet, _ = fold_cross_attention(before, latent_size=size)
            case "frames":
                levels, down, up = settings.frame_levels, settings.frame_down, settings.frame_up
                unet, _ = halve_frames(before, levels, down=down, up=up, latent_size=size)
            case "prune":
                unet, _ = prune_temporal(before, self.read_importance(), latent_size=size)
            case "funnels":
                unet = self._with_funnels(before)
            case _:
                unet = before
        return unet

    def load_unet(self, stage: AnimatorStage | str) -> SVDUNet:
        """Load the averaged weights of a denoiser after its stage, frozen; funnels are merged."""
        if stage == "base":
            return self.load_base().unet
        unet = self.load_student(stage).unet.requires_grad_(False)
        return merge_funnels(unet) if stage == "funnels" else unet

    def build_student(self, stage: AnimatorStage | str, unet: SVDUNet) -> OneStepStudent:
        """Build what a stage of the chain trains, around its denoiser, which it takes over."""
        return OneStepStudent(
            unet.requires_grad_(True),
            self.recipe.unet.block_out_channels,
            self.recipe.image_encoder.projection_dim,
            keep=self.recipe.kept_blocks if stage == "importance" else None,
        )

    def load_student(self, stage: AnimatorStage | str) -> OneStepStudent:
        """Load the averaged weights of a stage of the chain, finished or not."""
        unet = SVDUNet(self._trained_config(stage))
        if stage == "funnels":
            unet = self._with_funnels(unet)
        network = self.build_student(stage, unet)
        load_average_(network, self.place(stage))
        return network

    def read_importance(self) -> Importance:
        """Read what was learned of temporal blocks.

        Raises:
            CompressionError: If the file is missing or damaged.
        """
        return load_importance(self.importance_file)

    def _trained_config(self, stage: str) -> SVDUNetConfig:
        """Return the configuration of the denoiser that a stage of the chain trains.

        That of the network with funnels as adaptors is the one without.
        """
        settings, size = self.recipe.compression, self.latent_size
        config = report_folding(self.recipe.unet, latent_size=size).config
        if stage == "one_step":
            return config
        levels, down, up = settings.frame_levels, settings.frame_down, settings.frame_up
        config = report_frames(config, levels, down=down, up=up, latent_size=size).config
        if stage in ("frames", "importance"):
            return config
        return report_pruning(config, self.read_importance(), latent_size=size).config

    def _with_funnels(self, unet: SVDUNet) -> SVDUNet:
        factor, layers = (
            self.recipe.compression.funnel_factor,
            self.recipe.compression.funnel_layers,
        )
        unet, _ = add_funnels(unet, factor, layers, latent_size=self.latent_size)
        return unet


def _before(stage: str) -> AnimatorStage:
    """Return the stage of the chain before one that is not its first."""
    return CHAIN[[str(x) for x in CHAIN].index(stage) - 1]
