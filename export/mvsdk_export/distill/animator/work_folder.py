"""The work folder of the image-to-video model: where its stages leave what they make.

A network of the chain begins as that of the stage before, compressed by one step, and ends with
the averaged weights of its own stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mvsdk_export.checkpoints import default_model_folder, open_model
from mvsdk_export.compress.folding import fold_cross_attention, report_folding
from mvsdk_export.compress.frames import halve_frames, report_frames
from mvsdk_export.compress.funnels import add_funnels, merge_funnels
from mvsdk_export.compress.importance import Importance, load_importance
from mvsdk_export.compress.pruning import prune_temporal, report_pruning
from mvsdk_export.distill.animator.bank import ClipBank, check_clip_bank, read_clip_bank
from mvsdk_export.distill.animator.clips import AnimatedClips
from mvsdk_export.distill.animator.networks import AnimatorBase, OneStepStudent, PictureNames
from mvsdk_export.distill.animator.options import ANIMATOR_TRAINED, CHAIN, AnimatorStage
from mvsdk_export.distill.animator.recipe import AnimatorTraining
from mvsdk_export.distill.loop import load_average_, read_saved_run
from mvsdk_export.distill.sprites import Sprites, load_sprites, sprite_cache
from mvsdk_export.networks.svd.clip_vision import ClipVisionEncoder
from mvsdk_export.networks.svd.config import SVDUNetConfig
from mvsdk_export.networks.svd.unet import SVDUNet
from mvsdk_export.networks.vae import PATCH, Autoencoder
from mvsdk_export.recipes import find_recipe

FOLDERS: Mapping[AnimatorStage, str] = {stage: f"animator/{stage}" for stage in ANIMATOR_TRAINED}
"""Where the state of a network lies in the work folder."""


IMPORTANCE_FILE = "importance.json"
"""Scores of temporal blocks: which to keep."""


def is_there(stage: AnimatorStage, recipe: AnimatorTraining, work: Path) -> bool:
    """Say whether the files of a stage are complete, whatever they were made with."""
    if stage in FOLDERS:
        saved = read_saved_run(work / FOLDERS[stage])
        return saved is not None and saved.is_finished
    if stage == "latents":
        return bank_file(work).is_file()
    return _sprite_file(recipe, work).is_file()


def data_name(recipe: AnimatorTraining, work: Path) -> str:
    """Return what a state says that it was trained on: how many subjects, and their digest."""
    count, digest = len(recipe.chosen_subjects()), _sprite_file(recipe, work).stem
    return f"{count} subjects ({digest})"


def bank_file(work: Path) -> Path:
    """Return where the encoded clips lie."""
    return work / "animator" / "latents" / "bank.safetensors"


def importance_file(work: Path) -> Path:
    """Return where the learned importance of temporal blocks lies."""
    return work / FOLDERS["importance"] / IMPORTANCE_FILE


def read_sprites(recipe: AnimatorTraining, work: Path) -> Sprites:
    """Read the sprites of every subject."""
    return load_sprites(_sprite_file(recipe, work))


def read_clips(recipe: AnimatorTraining, work: Path) -> AnimatedClips:
    """Return the clips of all subjects."""
    return AnimatedClips(sprites=read_sprites(recipe, work), options=recipe.clips)


def load_clip_bank(recipe: AnimatorTraining, work: Path) -> ClipBank:
    """Read the encoded clips after checking that they are of this recipe.

    Raises:
        TrainingError: If they are of other subjects, of another seed or autoencoder.
    """
    bank = read_clip_bank(bank_file(work))
    clips, autoencoder = read_clips(recipe, work), load_autoencoder(recipe)
    check_clip_bank(bank, clips, autoencoder, count=recipe.bank_clips, seed=recipe.bank_seed)
    return bank


def load_autoencoder(recipe: AnimatorTraining) -> Autoencoder:
    """Load the autoencoder that the model shares, frozen.

    Raises:
        CheckpointError: If its model folder is damaged.
    """
    model = find_recipe("sticker")
    folder = recipe.autoencoder or default_model_folder(model.name)
    network = open_model(folder, model).load("vae_decoder")
    assert isinstance(network, Autoencoder)
    return network.requires_grad_(False)


def latent_size_of(recipe: AnimatorTraining) -> tuple[int, int]:
    """Return height and width of latents."""
    return recipe.clips.size // PATCH, recipe.clips.size // PATCH


def load_named_encoder(recipe: AnimatorTraining, work: Path) -> ClipVisionEncoder:
    """Load the image encoder as the training of the base begins with it."""
    network = PictureNames(recipe.image_encoder, len(recipe.chosen_subjects()))
    load_average_(network, work / FOLDERS["image_encoder"])
    return network.image_encoder


def load_base(recipe: AnimatorTraining, work: Path) -> AnimatorBase:
    """Load the averaged weights of the uncompressed model, frozen."""
    network = AnimatorBase(recipe.unet, recipe.image_encoder)
    load_average_(network, work / FOLDERS["base"])
    return network.requires_grad_(False)


def begin_unet(stage: AnimatorStage, recipe: AnimatorTraining, work: Path) -> SVDUNet:
    """Return the denoiser as the training of a stage of the chain begins with it.

    It is compressed by one step, and not yet finetuned; funnels are adaptors. No other network
    shares its weights.
    """
    before = load_unet("base" if stage == CHAIN[0] else CHAIN[CHAIN.index(stage) - 1], recipe, work)
    settings, size = recipe.compression, latent_size_of(recipe)
    match stage:
        case "one_step":
            unet, _ = fold_cross_attention(before, latent_size=size)
        case "frames":
            levels, down, up = settings.frame_levels, settings.frame_down, settings.frame_up
            unet, _ = halve_frames(before, levels, down=down, up=up, latent_size=size)
        case "prune":
            unet, _ = prune_temporal(before, read_importance(work), latent_size=size)
        case "funnels":
            unet = _with_funnels(before, recipe)
        case _:
            unet = before
    return unet


def load_unet(stage: AnimatorStage, recipe: AnimatorTraining, work: Path) -> SVDUNet:
    """Load the averaged weights of a denoiser after its stage, frozen; funnels are merged."""
    if stage == "base":
        return load_base(recipe, work).unet
    unet = load_student(stage, recipe, work).unet.requires_grad_(False)
    return merge_funnels(unet) if stage == "funnels" else unet


def build_student(stage: AnimatorStage, unet: SVDUNet, recipe: AnimatorTraining) -> OneStepStudent:
    """Build what a stage of the chain trains, around its denoiser, which it takes over."""
    return OneStepStudent(
        unet.requires_grad_(True),
        recipe.unet.block_out_channels,
        recipe.image_encoder.projection_dim,
        keep=recipe.kept_blocks if stage == "importance" else None,
    )


def load_student(stage: AnimatorStage, recipe: AnimatorTraining, work: Path) -> OneStepStudent:
    """Load the averaged weights of a stage of the chain, finished or not."""
    unet = SVDUNet(_trained_config(stage, recipe, work))
    if stage == "funnels":
        unet = _with_funnels(unet, recipe)
    network = build_student(stage, unet, recipe)
    load_average_(network, work / FOLDERS[stage])
    return network


def _trained_config(stage: AnimatorStage, recipe: AnimatorTraining, work: Path) -> SVDUNetConfig:
    """Return the configuration of the denoiser that a stage of the chain trains.

    That of the network with funnels as adaptors is the one without.
    """
    settings, size = recipe.compression, latent_size_of(recipe)
    config = report_folding(recipe.unet, latent_size=size).config
    if stage == "one_step":
        return config
    levels, down, up = settings.frame_levels, settings.frame_down, settings.frame_up
    config = report_frames(config, levels, down=down, up=up, latent_size=size).config
    if stage in ("frames", "importance"):
        return config
    return report_pruning(config, read_importance(work), latent_size=size).config


def _with_funnels(unet: SVDUNet, recipe: AnimatorTraining) -> SVDUNet:
    settings = recipe.compression
    unet, _ = add_funnels(
        unet,
        settings.funnel_factor,
        settings.funnel_layers,
        latent_size=latent_size_of(recipe),
    )
    return unet


def read_importance(work: Path) -> Importance:
    """Read what was learned of temporal blocks.

    Raises:
        CompressionError: If the file is missing or damaged.
    """
    return load_importance(importance_file(work))


def _sprite_file(recipe: AnimatorTraining, work: Path) -> Path:
    return sprite_cache(
        work,
        size=recipe.sprite_size,
        source_frames=recipe.sprite_frames,
        subjects=recipe.chosen_subjects(),
    )
