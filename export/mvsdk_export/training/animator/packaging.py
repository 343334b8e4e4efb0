"""The last stage of the image-to-video model: its folder with its card, from a work folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from mvsdk_export.checkpoints import QUALITY_FILE, ModelFolder, save_model_folder
from mvsdk_export.compress.funnels import merge_funnels
from mvsdk_export.compress.reports import measure_costs
from mvsdk_export.families import find_recipe
from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.families.svd.clip_vision import ClipVisionEncoder
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.training import packaging
from mvsdk_export.training.animator.measures import Animate, Sample, animate_with
from mvsdk_export.training.animator.model_card import AnimatorFacts, write_animator_card
from mvsdk_export.training.animator.networks import fold_frame_rate_
from mvsdk_export.training.animator.options import CHAIN
from mvsdk_export.training.animator.plan import IMPORTANCE_FILE, AnimatorTrainingPlan
from mvsdk_export.training.animator.quality import (
    AnimatorMeasuring,
    AnimatorQuality,
    ChainRow,
    Source,
)
from mvsdk_export.training.animator.recipe import AnimatorTraining
from mvsdk_export.training.features import Features
from mvsdk_export.training.measures import Frames
from mvsdk_export.training.methods.edm import jump_down, walk_down
from mvsdk_export.training.packaging import (
    Packaged,
    check_output,
    check_plan,
    count_parameters,
    round_to_half_,
    write_quality,
)

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


def package(
    plan: AnimatorTrainingPlan,
    out: Path,
    *,
    overwrite: bool = False,
    pictures: int = 64,
    features: Callable[[Frames], Features] | None = None,
) -> Packaged[AnimatorQuality]:
    """Measure every step of the chain, and write the model folder of the last.

    Args:
        plan: What was trained, every stage finished.
        out: The model folder.
        overwrite: Replace a model folder that is there.
        pictures: Pictures behind each line of the quality table.
        features: Features of clips, for tests; None takes EfficientNet-lite0.

    Raises:
        TrainingError: If a stage is not finished, or was made with other options.
        OutputError: If `out` exists and may not be replaced, or cannot be written.
    """
    check_output(out, overwrite=overwrite)
    check_plan(plan)
    recipe = plan.recipe
    networks = finish_(load_networks(plan))
    quality = measure_chain(plan, networks, pictures=pictures, features=features)
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
            QUALITY_FILE: write_quality(quality),
            IMPORTANCE_FILE: plan.importance_file.read_text(encoding="utf-8"),
        },
        overwrite=overwrite,
    )
    return Packaged(folder=folder, quality=quality)


def load_networks(plan: AnimatorTrainingPlan) -> AnimatorNetworks:
    """Load the averaged weights that make the model."""
    return AnimatorNetworks(
        image_encoder=plan.load_base().image_encoder,
        unet=plan.load_unet(CHAIN[-1]),
        autoencoder=plan.load_autoencoder(),
    )


def finish_(networks: AnimatorNetworks) -> AnimatorNetworks:
    """Make what is shipped of trained networks: one frame rate, and weights that float16 holds."""
    fold_frame_rate_(networks.unet)
    for network in networks.components().values():
        round_to_half_(network)
    return networks


def measure_chain(
    plan: AnimatorTrainingPlan,
    networks: AnimatorNetworks,
    *,
    pictures: int,
    features: Callable[[Frames], Features] | None = None,
) -> AnimatorQuality:
    """Measure the shipped networks, and what they were before each step of the chain.

    Args:
        plan: What was trained.
        networks: As they are shipped, in evaluation mode.
        pictures: Pictures of a row.
        features: Features of clips; None takes EfficientNet-lite0.
    """
    measuring = AnimatorMeasuring(plan.read_clips(), pictures=pictures, features=features)
    rows: list[ChainRow] = []
    for held_out in measuring.unseen:
        rows += measuring.reference_rows(networks.autoencoder, held_out)
    for source, measured, sample in _sources(plan, networks):
        animate = measured.animate_with(sample)
        further = measuring.further if measured is networks else ()
        asked = (*measuring.unseen, *further)
        rows += [measuring.row(source, animate, held_out) for held_out in asked]
    return AnimatorQuality(
        pictures=pictures,
        kvd_references=measuring.kvd_references,
        kept_blocks=list(plan.read_importance().kept()),
        rows=tuple(rows),
    )


def _sources(
    plan: AnimatorTrainingPlan, networks: AnimatorNetworks
) -> Iterator[tuple[Source, AnimatorNetworks, Sample]]:
    """Yield all networks that are measured, with their sampler, in the order of the table.

    The last ones are those that are shipped; all others are as they were trained, float32.
    """
    recipe, base = plan.recipe, plan.load_base()
    trained = replace(networks, image_encoder=base.image_encoder, unet=base.unet)
    for steps in BASE_STEPS:
        walk = partial(walk_down, scheduler=recipe.scheduler, steps=steps)
        yield _source(plan, "base", base.unet, steps=steps), trained, walk
    folded = plan.begin_unet(CHAIN[0])
    walk = partial(walk_down, scheduler=recipe.scheduler, steps=BASE_STEPS[0])
    source = _source(plan, "fold", folded, steps=BASE_STEPS[0])
    yield source, replace(trained, unet=folded), walk
    for stage in CHAIN:
        if stage == "importance":  # no step of its own: it says what to prune
            continue
        if stage != CHAIN[0]:
            begun = plan.begin_unet(stage)
            begun = merge_funnels(begun) if stage == "funnels" else begun
            source = _source(plan, stage, begun, is_finetuned=False)
            yield source, replace(trained, unet=begun), _one_step(recipe)
        if stage != CHAIN[-1]:
            done = plan.load_unet(stage)
            yield _source(plan, stage, done), replace(trained, unet=done), _one_step(recipe)
    yield _source(plan, CHAIN[-1], networks.unet), networks, _one_step(recipe)


def _one_step(recipe: AnimatorTraining) -> Sample:
    return partial(jump_down, sigma=recipe.one_step.sigma)


def _source(
    plan: AnimatorTrainingPlan,
    name: str,
    unet: SVDUNet,
    *,
    steps: int = 1,
    is_finetuned: bool = True,
) -> Source:
    costs = measure_costs(unet.config, plan.latent_size)
    return Source(
        name=name,
        is_finetuned=is_finetuned,
        steps=steps,
        parameters=costs.parameters,
        flops=costs.flops,
    )


def read_quality(folder: ModelFolder) -> AnimatorQuality:
    """Read the figures of a model folder.

    Raises:
        TrainingError: If it has none.
    """
    return packaging.read_quality(folder, AnimatorQuality.from_json)


def is_packaged(plan: AnimatorTrainingPlan, out: Path) -> bool:
    """Say whether a folder holds the weights that the work folder would give."""
    return packaging.is_packaged(plan, out, lambda: finish_(load_networks(plan)).components())
