"""The model card of the image-to-video model, written from measured values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mvsdk_export.families.svd.config import SVDUNetConfig
from mvsdk_export.training.animator.clips import (
    BUCKET_SHARES,
    MAX_BUCKET,
    MOVES,
    ORDINARY_BUCKET,
    held_out_subjects,
    is_never_mirrored,
)
from mvsdk_export.training.animator.losses import HIDDEN_SHARE
from mvsdk_export.training.animator.networks import (
    FPS,
    NOISE_AUGMENTATION,
    ORDINARY_AUGMENTATION,
)
from mvsdk_export.training.animator.plan import IMPORTANCE_FILE
from mvsdk_export.training.animator.quality import AnimatorQuality, ChainRow
from mvsdk_export.training.animator.recipe import AnimatorTraining
from mvsdk_export.training.cards import licences_list, options_table, sizes_table, write_card
from mvsdk_export.training.data.sources import FLUENT_EMOJI
from mvsdk_export.training.methods.adversarial import RECONSTRUCTION_WEIGHT
from mvsdk_export.training.methods.one_step import GENERATOR_SHARES
from mvsdk_export.training.sticker.plan import UNSEEN_EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimatorFacts:
    """What the card tells."""

    recipe: AnimatorTraining
    unet: SVDUNetConfig
    """Of the denoiser that is shipped."""
    parameters: Mapping[str, int]
    """Component -> number of weights, as shipped."""
    quality: AnimatorQuality


def write_animator_card(facts: AnimatorFacts) -> str:
    """Return the text of README.md, Markdown."""
    sections = (
        _introduction(facts),
        _abilities(facts),
        _limits(facts),
        _chain(facts),
        _sizes(facts),
        _training(facts),
        _data(facts),
    )
    return write_card(sections)


def _introduction(facts: AnimatorFacts) -> str:
    clips, denoiser = facts.recipe.clips, facts.parameters["unet"] / 1e6
    return f"""
# {facts.recipe.name}

An image-to-video model of {sum(facts.parameters.values()) / 1e6:.1f} million weights: a picture of
a sticker on a plain background comes alive, {clips.frames} frames of {clips.size} x {clips.size}
pixels, in one step. Its denoiser ({denoiser:.2f} million) has the architecture of Stable Video
Diffusion and was made small in the way of MobileVD, step by step, on two CPU cores. It is there to
show that chain at work with weights that anyone can train again. It is no general video model.

    mvsdk animate cat.png -o cat.mp4
    mvsdk animate cat.png --motion 255 -o fast.mp4
"""


def _abilities(facts: AnimatorFacts) -> str:
    moves: dict[str, list[str]] = {}
    for kind, move in MOVES.items():
        moves.setdefault(move, []).append(kind)
    listed = "; ".join(f"{', '.join(kinds)}: {move}" for move, kinds in moves.items())
    ordinary, none = BUCKET_SHARES
    return f"""
## What it does

A subject that looks to the left or to the right travels there: a picture and its mirror image go
different ways. One that looks nowhere moves as its kind does ({listed}). On the way it is animated
as the emoji is. The motion bucket (0 to {MAX_BUCKET}, ordinarily {ORDINARY_BUCKET}) says how far:
at 0 it stays in its place.

What it was trained on: motion buckets from 0 to {MAX_BUCKET} ({ordinary:.0%} of the clips at
{ORDINARY_BUCKET}, {none:.0%} at 0, the others even); noise on the picture from 0 to
{NOISE_AUGMENTATION:g} (ordinarily {ORDINARY_AUGMENTATION:g}), and nothing above; {FPS} frames a
second. What the denoiser is told of the frame rate is therefore folded into a bias: `--fps` says
how fast frames are played, and changes none of them.
"""


def _limits(facts: AnimatorFacts) -> str:
    clips = facts.recipe.clips
    return f"""
## What it cannot do

* It knows stickers: one subject of middle size near the centre, before one colour. Of a photograph
  it makes something blurred.
* {clips.frames} frames of {clips.size} x {clips.size} pixels, one second; no other length or size.
* How surely it moves subjects that its denoiser never saw, the lines "subjects" below say. How they
  are animated it cannot know.
* It decides from the picture alone: a seed changes next to nothing.
* It has no safety filter, and no need of one for these subjects.
"""


_HEADINGS = (
    "| network | pictures | steps | GFLOPs | weights | PSNR dB | p10 dB | changes dB "
    "| first frame dB | goes where it looks | move | way at 0 / 127 / 255 px | kvd |"
)


def _chain(facts: AnimatorFacts) -> str:
    quality = facts.quality
    lines = "\n".join(_row(row) for row in quality.rows)
    others = ", ".join(f"{name} {kvd:.3f}" for name, kvd in quality.kvd_references.items())
    kept, shipped = ", ".join(quality.kept_blocks), quality.rows[-1].source
    return f"""
## Quality, step by step

The steps are those of MobileVD, in its order: low resolution ({facts.recipe.clips.size} pixels,
which the base is trained at), folded cross-attention, adversarial finetuning to one step, half the
frames inside, temporal blocks pruned by learned importance, channel funnels. "Begun" is a network
that was changed and not yet finetuned. {quality.pictures} pictures a line: training never showed
"backgrounds" behind their subject, nor the subjects of "mirrorings" mirrored, as they are there:
where those go was never shown. "Subjects" were never shown to the denoiser or the image encoder;
the autoencoder, which is sticker's, learned from {UNSEEN_EVERY - 1} in {UNSEEN_EVERY} of all
subjects, whether they are held out here or not. The last lines, "{shipped}", are the float16
weights of this folder.

PSNR: against the drawn clip, peak 255 (median, and what a tenth of the clips stays below); of
changes: of the differences between neighbouring frames; of the first frame: against the picture.
Goes where it looks: of the subjects that look to a side. Move: the drawn clip with the subject's
own move is the nearest of all moves. Way: how far subjects go to where they look, in pixels, by
motion bucket. kvd: kernel distance of features of EfficientNet-lite0 to other drawn clips
(kvd-efflite0, which is not FVD); of clips that were not generated: {others}. "Drawn" and "frozen":
drawn clips, and their first frames stood still, through the autoencoder. GFLOPs: of all evaluations
of the denoiser for a clip.

{_HEADINGS}
|---|---|---|---|---|---|---|---|---|---|---|---|---|
{lines}

Temporal blocks that are left: {kept}. The scores by which they were chosen are in
{IMPORTANCE_FILE}.
"""


def _row(row: ChainRow) -> str:
    value = row.quality
    was_made = row.num_inference_steps is not None
    ways = " / ".join(f"{way:.1f}" for way in row.ways.values()) or "-"
    cells = (
        row.source if row.is_finetuned else f"{row.source}, begun",
        row.held_out,
        str(row.num_inference_steps) if was_made else "-",
        f"{row.flops / 1e9:.2f}" if was_made else "-",
        f"{row.parameters / 1e6:.2f} M" if was_made else "-",
        f"{value.psnr_db_median:.1f}",
        f"{value.psnr_db_p10:.1f}",
        f"{value.change_psnr_db:.1f}",
        f"{value.first_frame_psnr_db:.1f}",
        "-" if value.facing_accuracy is None else f"{value.facing_accuracy:.0%}",
        f"{value.move_accuracy:.0%}",
        ways,
        f"{row.kvd:.3f}",
    )
    return f"| {' | '.join(cells)} |"


def _sizes(facts: AnimatorFacts) -> str:
    return f"""
## Sizes

{sizes_table(facts.parameters)}

The autoencoder is that of the model sticker, encoder and decoder.
"""


def _training(facts: AnimatorFacts) -> str:
    recipe = facts.recipe
    shares = ", ".join(f"{share:.0%}" for share in GENERATOR_SHARES)
    return f"""
## How it was trained

    pip install -e . -e './export[train]'
    {recipe.command()}

{options_table(recipe)}

AdamW with a warm-up and a cosine to a hundredth, Muon in its place for the matrices of the
denoisers, on {recipe.bank_clips} clips that were drawn and encoded once (seed {recipe.bank_seed}).
The image encoder, in place of one that has seen millions of captions, first learns to name what the
pictures show and how it moves. Then the base learns to predict velocities, the encoder with it,
which is frozen from then on: {HIDDEN_SHARE:.0%} of the clips under noise that hides them, the
others at the levels of Stable Video Diffusion.
Everything after is adversarial finetuning as in SF-V: predictions from the three noisy levels of a
grid of four
({shares} of the time, the noisiest first), judged by spatial and temporal heads on the levels of
the frozen base; hinge loss, penalty on gradients, and {RECONSTRUCTION_WEIGHT:g} times a
pseudo-Huber distance to the clip. Which temporal blocks matter is learned by gates that let
{recipe.kept_blocks} of {recipe.unet.temporal_block_count} through in every step.

What differs from SF-V: it has even shares; its heads look at a grid of a thousand noise levels,
these at continuous ones; its heads are told the image's feature, the level and the index of the
frame, these the feature, the level and the motion bucket; it gives the distance a weight of 0.1,
because its pictures leave their clips more freedom.
"""


def _data(facts: AnimatorFacts) -> str:
    subjects = facts.recipe.chosen_subjects()
    held = held_out_subjects(subjects)
    never = ", ".join(subjects[i].noun for i in sorted(held)) or "none"
    facing = sum(x.facing != "none" for x in subjects)
    unmirrored = sum(is_never_mirrored(x) for i, x in enumerate(subjects) if i not in held)
    packages = ", ".join(package.spec for package in FLUENT_EMOJI)
    return f"""
## Data and licences

Microsoft's Fluent emoji (MIT), {len(subjects)} of them, animated and still; {facing} look to a
side. Never shown to the denoiser: {never}. Every other one has a background on which it was never
shown, and {unmirrored} that look to a side were never shown mirrored. npm packages, pinned by
SHA-256: {packages}.

{licences_list(facts.recipe)}
"""
