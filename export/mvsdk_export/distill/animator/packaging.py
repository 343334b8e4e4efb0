"""The last stage: a model folder with its card, from the runs of a work folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from mvsdk.errors import MvsdkError
from mvsdk_export.checkpoints import (
    INDEX_FILE,
    QUALITY_FILE,
    ModelFolder,
    open_model,
    save_model_folder,
)
from mvsdk_export.compress.funnels import merge_funnels
from mvsdk_export.compress.reports import measure_costs
from mvsdk_export.distill.animator.edm import jump_down, walk_down
from mvsdk_export.distill.animator.measures import Animate, Sample, animate_with
from mvsdk_export.distill.animator.model_card import AnimatorFacts, write_animator_card
from mvsdk_export.distill.animator.networks import fold_frame_rate_
from mvsdk_export.distill.animator.options import CHAIN, AnimatorStage
from mvsdk_export.distill.animator.quality import (
    AnimatorMeasuring,
    AnimatorQuality,
    ChainRow,
    Source,
)
from mvsdk_export.distill.animator.recipe import AnimatorTraining
from mvsdk_export.distill.animator.stages import check_needs, is_finished, needs_of
from mvsdk_export.distill.animator.work_folder import (
    IMPORTANCE_FILE,
    begin_unet,
    importance_file,
    latent_size_of,
    load_autoencoder,
    load_base,
    load_unet,
    read_clips,
    read_importance,
)
from mvsdk_export.distill.features import Features
from mvsdk_export.distill.measures import Frames
from mvsdk_export.distill.options import TrainingError
from mvsdk_export.distill.packaging import check_output, count_parameters, round_to_half_
from mvsdk_export.networks.svd.clip_vision import ClipVisionEncoder
from mvsdk_export.networks.svd.unet import SVDUNet
from mvsdk_export.networks.vae import Autoencoder
from mvsdk_export.recipes import find_recipe

BASE_STEPS = (25, 4, 1)
"""Steps at which the base is measured: those of the public pipeline, few, and one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimatorNetworks:
    """All that turns a picture into a clip."""

    image_encoder: ClipVisionEncoder
    unet: SVDUNet
    autoencoder: Autoencoder

    def components(self) -> dict[str, nn.Module]:
        """Return the networks by the names that the model's recipe gives them."""
        return {
            "image_encoder": self.image_encoder,
            "unet": self.unet,
            "vae_decoder": self.autoencoder,
        }

    def animate_with(self, sample: Sample) -> Animate:
        """Return what makes clips with them and a sampler."""
        return animate_with(self.image_encoder, self.unet, self.autoencoder, sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedAnimator:
    """A model folder that was written, and what its model card says of quality."""

    folder: ModelFolder
    quality: AnimatorQuality


def package_animator(
    recipe: AnimatorTraining,
    work: Path,
    out: Path,
    *,
    overwrite: bool = False,
    pictures: int = 64,
    features: Callable[[Frames], Features] | None = None,
) -> PackagedAnimator:
    """Measure every step of the chain, and write the model folder of the last.

    Args:
        recipe: What was trained.
        work: Work folder with every stage finished.
        out: The model folder.
        overwrite: Replace a model folder that is there.
        pictures: Pictures behind each line of the quality table.
        features: Features of clips, for tests; None takes EfficientNet-lite0.

    Raises:
        TrainingError: If a stage is not finished, or was made with other options.
        OutputError: If `out` exists and may not be replaced, or cannot be written.
    """
    check_output(out, overwrite=overwrite)
    check_needs("package", work, recipe)
    for stage in needs_of("package"):
        is_finished(stage, recipe, work)  # refuses what was made with other options
    networks = finish_(load_networks(recipe, work))
    quality = measure_chain(recipe, work, networks, pictures=pictures, features=features)
    components = networks.components()
    folder = save_model_folder(
        out,
        find_recipe(recipe.name),
        components,
        scheduler=recipe.one_step,
        model_card=write_animator_card(
            AnimatorFacts(
                recipe=recipe,
                unet=networks.unet.config,
                parameters=count_parameters(components),
                quality=quality,
            )
        ),
        documents={
            QUALITY_FILE: json.dumps(quality.to_json(), indent=1) + "\n",
            IMPORTANCE_FILE: importance_file(work).read_text(encoding="utf-8"),
        },
        overwrite=overwrite,
    )
    return PackagedAnimator(folder=folder, quality=quality)


def load_networks(recipe: AnimatorTraining, work: Path) -> AnimatorNetworks:
    """Load the averaged weights that make the model."""
    return AnimatorNetworks(
        image_encoder=load_base(recipe, work).image_encoder,
        unet=load_unet(CHAIN[-1], recipe, work),
        autoencoder=load_autoencoder(recipe),
    )


def finish_(networks: AnimatorNetworks) -> AnimatorNetworks:
    """Make what is shipped of trained networks: one frame rate, and weights that float16 holds."""
    fold_frame_rate_(networks.unet)
    for network in networks.components().values():
        round_to_half_(network)
    return networks


def measure_chain(
    recipe: AnimatorTraining,
    work: Path,
    networks: AnimatorNetworks,
    *,
    pictures: int,
    features: Callable[[Frames], Features] | None = None,
) -> AnimatorQuality:
    """Measure the shipped networks, and what they were before each step of the chain.

    Args:
        recipe: What was trained.
        work: Work folder.
        networks: As they are shipped, in evaluation mode.
        pictures: Pictures of a row.
        features: Features of clips; None takes EfficientNet-lite0.
    """
    measuring = AnimatorMeasuring(read_clips(recipe, work), pictures=pictures, features=features)
    rows: list[ChainRow] = []
    for held_out in measuring.unseen:
        rows += measuring.reference_rows(networks.autoencoder, held_out)
    for source, measured, sample in _sources(recipe, work, networks):
        animate = measured.animate_with(sample)
        further = measuring.further if measured is networks else ()
        asked = (*measuring.unseen, *further)
        rows += [measuring.row(source, animate, held_out) for held_out in asked]
    return AnimatorQuality(
        pictures=pictures,
        kvd_references=measuring.kvd_references,
        kept_blocks=list(read_importance(work).kept()),
        rows=tuple(rows),
    )


def _sources(
    recipe: AnimatorTraining, work: Path, networks: AnimatorNetworks
) -> Iterator[tuple[Source, AnimatorNetworks, Sample]]:
    """Yield all networks that are measured, with their sampler, in the order of the table.

    The last ones are those that are shipped; all others are as they were trained, float32.
    """
    base = load_base(recipe, work)
    trained = replace(networks, image_encoder=base.image_encoder, unet=base.unet)
    for steps in BASE_STEPS:
        walk = partial(walk_down, scheduler=recipe.scheduler, steps=steps)
        yield _source(recipe, "base", base.unet, steps=steps), trained, walk
    folded = begin_unet(CHAIN[0], recipe, work)
    walk = partial(walk_down, scheduler=recipe.scheduler, steps=BASE_STEPS[0])
    source = _source(recipe, "fold", folded, steps=BASE_STEPS[0])
    yield source, replace(trained, unet=folded), walk
    for stage in CHAIN:
        if stage == "importance":  # no step of its own: it says what to prune
            continue
        if stage != CHAIN[0]:
            begun = begin_unet(stage, recipe, work)
            begun = merge_funnels(begun) if stage == "funnels" else begun
            source = _source(recipe, stage, begun, is_finetuned=False)
            yield source, replace(trained, unet=begun), _one_step(recipe)
        if stage != CHAIN[-1]:
            done = load_unet(stage, recipe, work)
            yield _source(recipe, stage, done), replace(trained, unet=done), _one_step(recipe)
    yield _source(recipe, CHAIN[-1], networks.unet), networks, _one_step(recipe)


def _one_step(recipe: AnimatorTraining) -> Sample:
    return partial(jump_down, sigma=recipe.one_step.sigma)


def _source(
    recipe: AnimatorTraining,
    name: AnimatorStage | str,
    unet: SVDUNet,
    *,
    steps: int = 1,
    is_finetuned: bool = True,
) -> Source:
    costs = measure_costs(unet.config, latent_size_of(recipe))
    return Source(
        name=name,
        is_finetuned=is_finetuned,
        steps=steps,
        parameters=costs.parameters,
        flops=costs.flops,
    )


def read_animator_quality(folder: ModelFolder) -> AnimatorQuality:
    """Read the figures of a model folder.

    Raises:
        TrainingError: If it has none.
    """
    path = folder.path / QUALITY_FILE
    try:
        return AnimatorQuality.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as exc:
        raise TrainingError(f"cannot read {path}: {exc}; package the model again") from exc


def is_animator_packaged(recipe: AnimatorTraining, work: Path, out: Path) -> bool:
    """Say whether a folder holds the weights that the work folder would give."""
    if not (out / INDEX_FILE).is_file():
        return False
    try:
        check_needs("package", work, recipe)
        folder = open_model(out, find_recipe(recipe.name))
        networks = finish_(load_networks(recipe, work))
        return all(
            _is_same(network.state_dict(), folder.load(name).state_dict())
            for name, network in networks.components().items()
        )
    except MvsdkError:  # another model, a damaged one, or runs that are not finished
        return False


def _is_same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items()
    )
