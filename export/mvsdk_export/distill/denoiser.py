"""Training of the denoiser: rectified flow that predicts the clean latents.

The autoencoder is finished before, so clips are drawn and encoded once into a bank of latents;
captions are drawn anew every time a clip is seen. The text encoder goes on learning along with the
denoiser: features distilled from sentences alone hardly tell "left" from "right". What a caption
leaves open is tied to the noise (`choices.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import safetensors
import safetensors.numpy
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk._staging import replacing
from mvsdk.tokenizer import WordPiece
from mvsdk_export.distill.autoencoder import to_network
from mvsdk_export.distill.captions import BACKGROUNDS, MOTIONS, SIZES, Scene
from mvsdk_export.distill.choices import background_choice, impose_choices, remove_choices
from mvsdk_export.distill.clips import CHANCES, Layer, StickerClips
from mvsdk_export.distill.loop import LossFunction
from mvsdk_export.distill.options import TrainingError
from mvsdk_export.distill.sprites import Facing
from mvsdk_export.networks.text_encoder import SubjectMemory, TextEncoder
from mvsdk_export.networks.transformer import (
    PICTURE_CHANNELS,
    Layout,
    SpatioTemporalTransformer,
)
from mvsdk_export.networks.vae import PATCH as PIXELS
from mvsdk_export.networks.vae import Autoencoder

PURE_NOISE_SHARE = 0.5
"""Share of training examples at t = 1, where every few-step trajectory starts."""

UNCONDITIONAL_SHARE = 0.05
"""Share of training examples without a caption."""

LAYOUT_WEIGHT = 0.2
"""Weight of the layout's error beside that of the latents."""

GROUND_WEIGHT = 20.0
"""Weight of the error of what pictures lie on, while drafts alone are learned."""

PICTURE_WEIGHT = 100.0
"""Likewise, of the squared error of the pictures, colour and cover in [0, 1]."""

BOX_WEIGHT = 100.0
"""Weight of the boxes, in fractions of the frame, beside the cross-entropy of the turns."""

NOTE_SPREAD = 0.1
"""Standard deviation of the memory's notes before they are learned."""

NAMES_WEIGHT = 0.05
"""Weight of the memory's cross-entropy beside the error of the latents."""

MIN_TIME = 0.05
"""Smallest t in the loss weight 1 / t."""

SLOTS = 2
"""Subjects of a scene, at most."""

BANK_BATCH = 64
"""Clips that are drawn together when a bank is made; it decides which ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentBank:
    """Encoded clips and the scenes that they show."""

    latents: NDArray[np.float16]
    """(N, F, C, h, w)."""
    scenes: NDArray[np.int64]
    """(N, 5): subject, partner or -1, indices into MOTIONS, BACKGROUNDS and SIZES."""
    chances: NDArray[np.float32]
    """(N, CHANCES) in [0, 1]: what drawing left to chance."""

    def choices(
        self, chosen: NDArray[np.int64], named: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return what the noise of clips has to decide, for `impose_choices`.

        Args:
            chosen: Clips, (B,).
            named: Whether a caption names the background, (B,).
            rng: Decides which of the numbers that choose a background it is.

        Returns:
            Uniforms `(B, CHOICES)`, and which of them are open.
        """
        within = rng.uniform(0.02, 0.98, len(chosen))
        colour = background_choice(self.scenes[chosen, 3], within)
        uniforms = np.column_stack([colour, self.chances[chosen]]).clip(1e-4, 1 - 1e-4)
        is_open = np.ones(uniforms.shape, bool)
        is_open[:, 0] = ~named
        return torch.from_numpy(uniforms), torch.from_numpy(is_open)

    def layouts(self, clips: StickerClips, chosen: NDArray[np.int64]) -> Layout:
        """Return where the sprites of clips are; `layout_loss` says what stands for what."""
        drawn = [
            # With one phase the generator decides nothing.
            clips.layers(
                self.scene(int(i)), self.chances[i].astype(np.float64), np.random.default_rng(0)
            )
            for i in chosen
        ]
        frames = clips.options.frames
        boxes = np.zeros((len(chosen), frames, SLOTS, 4), np.float32)
        orientations = np.zeros((len(chosen), frames, SLOTS), np.int64)
        for row, layers in enumerate(drawn):
            for slot, layer in enumerate(layers):
                boxes[row, :, slot], orientations[row, :, slot] = layout_of(layer)
        return Layout(torch.from_numpy(boxes), torch.from_numpy(orientations))

    def scene(self, index: int) -> Scene:
        """Return what clip `index` shows."""
        subject, partner, motion, background, size = (int(x) for x in self.scenes[index])
        return Scene(
            subject=subject,
            partner=None if partner < 0 else partner,
            motion=MOTIONS[motion],
            background=list(BACKGROUNDS)[background],
            size=list(SIZES)[size],
        )


def layout_of(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the boxes `(F, 4)` and the turns `(F,)` of a layer, as `Layout` spells them.

    A turn by quarters is a transpose and mirrored sides; what is left of it is the turn.
    """
    frames = len(layer.angles)
    turns = max(1, frames // 4)
    steps = np.rint(-layer.angles / 90.0 * turns).astype(np.int64)
    quarters, rest = steps // turns % 4, steps % turns
    mirrored_x = np.where(np.isin(quarters, (1, 2)), -1.0, 1.0)
    mirrored_y = np.where(np.isin(quarters, (2, 3)), -1.0, 1.0)
    boxes = np.stack(
        [
            layer.centres[:, 0] - 0.5,
            layer.scales[:, 0] * mirrored_x,
            layer.centres[:, 1] - 0.5,
            layer.scales[:, 1] * mirrored_y,
        ],
        axis=1,
    )
    return boxes, 2 * rest + quarters % 2


def draw_bank(
    clips: StickerClips, autoencoder: Autoencoder, *, count: int, seed: int
) -> Iterator[LatentBank]:
    """Draw and encode clips.

    Args:
        clips: Draws them.
        autoencoder: Encodes them.
        count: Number of clips.
        seed: Decides scenes, and what drawing leaves to chance.

    Yields:
        The bank in parts of at most `BANK_BATCH` clips.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, count, BANK_BATCH):
        scenes, chances = _draw_scenes(clips, rng, min(BANK_BATCH, count - start))
        latents = _encode(clips, autoencoder, scenes, chances)
        yield LatentBank(latents=latents, scenes=_to_rows(scenes), chances=chances)


def save_bank(parts: Sequence[LatentBank], path: Path) -> None:
    """Write a bank, whole or not at all."""
    arrays = {
        # Encoded latents lie in memory as the convolution left them, and safetensors writes memory
        # as it lies.
        "latents": np.ascontiguousarray(np.concatenate([part.latents for part in parts])),
        "scenes": np.concatenate([part.scenes for part in parts]),
        "chances": np.concatenate([part.chances for part in parts]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        safetensors.numpy.save_file(arrays, temporary)


def read_bank(path: Path) -> LatentBank:
    """Read a bank that `save_bank` wrote.

    Raises:
        TrainingError: If the file is damaged.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
        return LatentBank(**{key: arrays[key] for key in ("latents", "scenes", "chances")})
    except (safetensors.SafetensorError, OSError, KeyError) as exc:
        raise TrainingError(f"cannot read {path}: {exc}; remove it and run again") from exc


def check_bank(
    bank: LatentBank, clips: StickerClips, autoencoder: Autoencoder, *, count: int, seed: int
) -> None:
    """Check by its length and its first clips that `draw_bank` would make this bank.

    Raises:
        TrainingError: If it is of other clips or of another autoencoder.
    """
    rng = np.random.default_rng(seed)
    scenes, chances = _draw_scenes(clips, rng, min(BANK_BATCH, count))
    first = _encode(clips, autoencoder, scenes[:4], chances[:4])
    if (
        len(bank.scenes) != count
        or not np.array_equal(bank.scenes[: len(scenes)], _to_rows(scenes))
        or bank.latents.shape[1:] != first.shape[1:]
        or not np.allclose(bank.latents[: len(first)], first, rtol=4e-3, atol=2e-2)
    ):
        raise TrainingError(
            f"the latent bank of {len(bank.scenes)} clips is of other clips, subjects or another "
            f"autoencoder than the {count} clips asked for; choose another work folder, or remove "
            "the bank and what was trained on it"
        )


def _draw_scenes(
    clips: StickerClips, rng: np.random.Generator, count: int
) -> tuple[list[Scene], NDArray[np.float32]]:
    scenes = [clips.captions.sample_scene(rng) for _ in range(count)]
    return scenes, rng.random((count, CHANCES), np.float32)


def _encode(
    clips: StickerClips,
    autoencoder: Autoencoder,
    scenes: list[Scene],
    chances: NDArray[np.float32],
) -> NDArray[np.float16]:
    # With one phase the generator decides nothing.
    frames = clips.render(scenes, np.random.default_rng(0), chances.astype(np.float64))
    with torch.no_grad():
        encoded = autoencoder.encode(to_network(frames.reshape(-1, *frames.shape[2:])))
    return encoded.half().numpy().reshape(len(scenes), frames.shape[1], *encoded.shape[1:])


def _to_rows(scenes: list[Scene]) -> NDArray[np.int64]:
    colours, sizes = list(BACKGROUNDS), list(SIZES)
    rows = [
        (
            x.subject,
            -1 if x.partner is None else x.partner,
            MOTIONS.index(x.motion),
            colours.index(x.background),
            sizes.index(x.size),
        )
        for x in scenes
    ]
    return np.array(rows, np.int64)


@torch.no_grad()
def fit_memory_(
    memory: SubjectMemory,
    denoiser: SpatioTemporalTransformer,
    clips: StickerClips,
    drawn: Tensor,
    autoencoder: Autoencoder,
) -> float:
    """Set the table of a memory to codes of what its subjects look like, and what decodes them.

    A code holds the principal components of one cell of a picture over all frames of a clip.
    Nobody, the last entry, is transparent.

    Args:
        memory: Its entries are the subjects of `clips`, in order.
        denoiser: Decodes the codes and makes latents of the pictures.
        clips: Name the subjects.
        drawn: What they look like, as `draw_pictures` draws it for this denoiser.
        autoencoder: Whose latents they are.

    Returns:
        Peak signal-to-noise ratio of the decoded pictures, colour and cover, in dB.
    """
    pictures = denoiser.pictures
    assert pictures is not None
    cells, k = pictures.config.picture_cells, pictures.points_per_cell
    n, frames, channels = drawn.shape[:3]
    parts = drawn.float().reshape(n, frames * channels, cells, k, cells, k)
    parts = parts.permute(0, 2, 4, 1, 3, 5)
    parts = parts.reshape(n * cells**2, -1)
    size = pictures.config.code_size
    values, vectors = torch.linalg.eigh(parts.T @ parts / len(parts))
    basis = vectors.flip(1)[:, :size]
    gain = values.flip(0)[:size].clamp(min=1e-8) ** -0.25  # halfway to equal variances
    gain = gain / ((parts @ basis * gain).square().mean() ** 0.5)
    codes = parts @ basis * gain
    decoder = basis / gain
    error = (codes @ decoder.T - parts).square().mean()
    width = memory.table.out_features // memory.tokens
    memory.table.weight.mul_(NOTE_SPREAD / memory.table.weight.std())
    memory.table.weight[:-width, :n] = codes.reshape(n, -1).T
    memory.table.weight[:, n] = 0.0
    for index, subject in enumerate(clips.sprites.subjects):
        facing = get_args(Facing).index(subject.facing)
        memory.table.weight[-width + facing, index] += 1.0
    pictures.decode.linear.weight.copy_(decoder[:, :, None, None])
    # The encoder is linear, on pixels of [-1, 1]; cover dims each colour of what is behind.
    encoder = 2 * autoencoder.encoder.projection.weight  # (C, 3, 8, 8)
    channels = len(encoder)
    denoiser.pictures_in.weight.zero_()
    for slot in range(pictures.config.memory_slots):
        colour = PICTURE_CHANNELS * slot
        denoiser.pictures_in.weight[:channels, colour : colour + 3] = encoder
        cover = denoiser.pictures_in.weight[channels:, colour + 3].unflatten(0, (3, channels))
        cover.copy_(encoder.transpose(0, 1))
    return float(-10 * torch.log10(error))


def draw_pictures(clips: StickerClips, frames: int, size: int) -> Tensor:
    """Return the sprites as a clip shows them, `(N, F, 4, size, size)` float16 in [0, 1]."""
    total = clips.sprites.source_frames
    loop = np.arange(frames) * total // frames
    rgba = torch.from_numpy(clips.sprites.rgba[:, loop]).permute(0, 1, 4, 2, 3)
    small = [F.interpolate(x.float() / 255, size=(size, size), mode="area") for x in rgba]
    return torch.stack([x.half() for x in small])


class TextDenoiser(nn.Module):
    """Text encoder and denoiser, trained as one network."""

    def __init__(self, text_encoder: TextEncoder, denoiser: SpatioTemporalTransformer) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.denoiser = denoiser

    def predict(self, sample: Tensor, timestep: Tensor, input_ids: Tensor) -> Prediction:
        """Predict from noisy latents `(B * F, C, h, w)`, their levels `(B,)` and ids `(B, L)`."""
        context, names = self.read(input_ids)
        clean, layout = self.denoiser.predict(sample, timestep, context)
        assert layout is not None
        return Prediction(clean=clean, layout=layout, names=names)

    def read(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return text features `(B, S, D)` and the names in them `(B, slots, subjects + 1)`."""
        memory = self.text_encoder.memory
        assert memory is not None
        features = self.text_encoder.encode(input_ids)
        names = memory.find(features)
        return torch.cat([features, memory(names)], dim=1), names


class Prediction(NamedTuple):
    """What the networks make of noisy latents and a caption."""

    clean: Tensor
    """(B * F, C, h, w)."""
    layout: Layout
    names: Tensor
    """(B, slots, subjects + 1): logits of the subjects that the caption names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Clips of the bank with captions, and the noise that decides what those leave open."""

    chosen: NDArray[np.int64]
    """Clips of the bank, (B,)."""
    clean: Tensor
    """(B, F, C, h, w) float32."""
    start: Tensor
    """Standard normal, like `clean`."""
    input_ids: Tensor
    """(B, L) int32."""

    def at(self, times: Tensor) -> Tensor:
        """Return the latents at noise levels `(B,)`: `x_t = (1 - t) x_0 + t eps`."""
        ratio = times[:, None, None, None, None]
        return (1 - ratio) * self.clean + ratio * self.start


def draw_batch(
    bank: LatentBank,
    clips: StickerClips,
    tokenizer: WordPiece,
    count: int,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> Batch:
    """Draw clips, captions and noise for a step of training."""
    chosen = rng.integers(len(bank.latents), size=count)
    captions = [clips.captions.caption(bank.scene(int(i)), rng) for i in chosen]
    clean = remove_choices(torch.from_numpy(bank.latents[chosen]).float())
    named = np.array([caption.names_background for caption in captions])
    choices, is_open = bank.choices(chosen, named, rng)
    start = torch.randn(clean.shape, generator=noise)
    return Batch(
        chosen=chosen,
        clean=clean,
        start=impose_choices(start, choices, is_open=is_open),
        input_ids=encode_captions(tokenizer, [caption.text for caption in captions]),
    )


def denoiser_loss(
    bank: LatentBank, clips: StickerClips, tokenizer: WordPiece, batch_size: int
) -> LossFunction:
    """Return the loss of a `TextDenoiser` with `prediction_type` "sample".

    Squared error of the predicted `x_0` weighted by 1 / t, t from a logit-normal distribution or 1;
    beside it the errors of the layout and of the names that the memory found. Some captions are
    left out, so that the network can be guided.

    Reference:
        Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206 (logit-normal t); Ho
        and Salimans 2022, arXiv:2207.12598 (guidance without a classifier).
    """

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, TextDenoiser)
        batch = draw_batch(bank, clips, tokenizer, batch_size, rng, noise)
        t = torch.randn(batch_size, generator=noise).sigmoid()
        t = torch.where(
            torch.rand(batch_size, generator=noise) < PURE_NOISE_SHARE, torch.ones(()), t
        )
        unnamed = rng.random(batch_size) < UNCONDITIONAL_SHARE
        silent = torch.from_numpy(unnamed)
        ids = torch.where(silent[:, None], no_caption(batch.input_ids), batch.input_ids)
        # Channels last throughout: every 1x1 convolution leaves this layout anyway.
        sample = batch.at(t).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        found = network.predict(sample, t, ids)
        error = (found.clean.reshape(batch.clean.shape).float() - batch.clean).square()
        error = error.mean(dim=(1, 2, 3, 4)) / t.clamp(min=MIN_TIME)
        nobody = found.names.shape[2] - 1
        named = np.where(unnamed[:, None], -1, bank.scenes[batch.chosen, :2])
        wanted = bank.layouts(clips, batch.chosen)
        wanted.boxes[silent] = 0.0
        return (
            error.mean()
            + NAMES_WEIGHT * names_loss(found.names, named_subjects(named, nobody))
            + LAYOUT_WEIGHT * layout_loss(found.layout, wanted)
        )

    return loss


def _picture_loss(network: TextDenoiser, drawn: Tensor, subjects: Tensor) -> Tensor:
    """Return the squared error of what the memory keeps of subjects `(B,)`."""
    memory, pictures = network.text_encoder.memory, network.denoiser.pictures
    assert memory is not None
    assert pictures is not None
    width = memory.table.out_features // memory.tokens
    found = pictures.decode_codes(memory.table.weight[:-width, subjects].T)
    return (found - drawn[subjects].flatten(0, 1).float()).square().mean()


def no_caption(input_ids: Tensor) -> Tensor:
    """Return the ids that stand for no caption at all, `(1, L)`: padding."""
    return torch.zeros_like(input_ids[:1])


def draft_loss(
    bank: LatentBank,
    clips: StickerClips,
    tokenizer: WordPiece,
    autoencoder: Autoencoder,
    drawn: Tensor,
    batch_size: int,
) -> LossFunction:
    """Return the loss by which a `TextDenoiser` learns its pictures, where they lie, and on what.

    Pictures in the wrong place are worse than none, and a network that begins with them learns to
    look away. Its layers are not run, so that a step costs a tenth.

    Args:
        bank: Clips.
        clips: Write their captions.
        tokenizer: Encodes those.
        autoencoder: Whose latents they are.
        drawn: The pictures that the memory shall keep (`draw_pictures`).
        batch_size: Clips of a step.
    """
    weights = flat_weights(autoencoder)

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, TextDenoiser)
        batch = draw_batch(bank, clips, tokenizer, batch_size, rng, noise)
        times = torch.rand(batch_size, generator=noise).clamp(min=MIN_TIME)
        context, names = network.read(batch.input_ids)
        layout, weighted = network.denoiser.arrange(batch.at(times).flatten(0, 1), times, context)
        subjects = named_subjects(bank.scenes[batch.chosen, :2], names.shape[2] - 1)
        wanted = weights[torch.from_numpy(bank.scenes[batch.chosen, 3])]
        return (
            layout_loss(layout, bank.layouts(clips, batch.chosen))
            + names_loss(names, subjects)
            + GROUND_WEIGHT * (weighted - wanted[:, None]).square().mean()
            + PICTURE_WEIGHT * _picture_loss(network, drawn, subjects[:, 0])
        )

    return loss


@torch.no_grad()
def flat_weights(autoencoder: Autoencoder) -> Tensor:
    """Return the weights that lay a draft on each background, `(backgrounds, (DRAFTS + 1) * C)`.

    Colour counts as it is, cover takes away what is behind, and the rest is that itself.
    """
    rows: list[Tensor] = []
    for colour in BACKGROUNDS.values():
        flat = np.full((1, PIXELS, PIXELS, 3), colour, np.uint8)
        latents = autoencoder.encode(to_network(flat)).flatten()
        ones = torch.ones_like(latents)
        rows.append(torch.cat([ones, *(-x / 255 * ones for x in colour), latents]))
    return torch.stack(rows)


def layout_loss(layout: Layout, wanted: Layout) -> Tensor:
    """Return the error of a layout; slots that show nothing (width 0) do not count.

    Args:
        layout: As predicted.
        wanted: Boxes, and the places of the right turns `(B, F, slots)` int64.
    """
    boxes, orientations = layout.boxes.float(), layout.orientations.float()
    shown = (wanted.boxes[..., 1] != 0).float()
    error = F.smooth_l1_loss(boxes, wanted.boxes, reduction="none", beta=0.1).mean(dim=-1)
    wrong = F.cross_entropy(
        orientations.flatten(0, 2), wanted.orientations.flatten(), reduction="none"
    )
    return ((BOX_WEIGHT * error + wrong.reshape(shown.shape)) * shown).sum() / shown.sum().clamp(
        min=1
    )


def named_subjects(scenes: NDArray[np.int64], nobody: int) -> Tensor:
    """Return the memory's entry for each slot, `(B, 2)`: subject, then partner or `nobody`."""
    return torch.from_numpy(np.where(scenes < 0, nobody, scenes))


def names_loss(logits: Tensor, subjects: Tensor) -> Tensor:
    """Return the cross-entropy of `SubjectMemory.find` `(B, slots, subjects + 1)`."""
    return F.cross_entropy(logits.flatten(0, 1).float(), subjects.flatten())


def encode_captions(tokenizer: WordPiece, captions: list[str]) -> Tensor:
    """Return the token ids of captions, `(B, L)` int32."""
    return torch.from_numpy(np.concatenate([tokenizer.encode(text) for text in captions]))
