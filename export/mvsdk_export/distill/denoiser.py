"""Training of the denoiser: rectified flow that predicts the clean latents.

The autoencoder is finished before, so clips are drawn and encoded once into a bank of latents;
captions are drawn anew every time a clip is seen. The text encoder goes on learning along with the
denoiser: features distilled from sentences alone hardly tell "left" from "right". What a caption
leaves open is tied to the noise (`choices.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from mvsdk_export.distill.choices import background_choice, impose_choices
from mvsdk_export.distill.clips import CHANCES, StickerClips
from mvsdk_export.distill.loop import LossFunction
from mvsdk_export.distill.options import TrainingError, TrainOptions
from mvsdk_export.networks.text_encoder import SubjectMemory, TextEncoder
from mvsdk_export.networks.transformer import SpatioTemporalTransformer
from mvsdk_export.networks.vae import Autoencoder

PURE_NOISE_SHARE = 0.5
"""Share of training examples at t = 1, where every few-step trajectory starts."""

NAMES_WEIGHT = 0.05
"""Weight of the memory's cross-entropy beside the error of the latents."""

MIN_TIME = 0.05
"""Smallest t in the loss weight 1 / t."""

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
def fit_memory_(memory: SubjectMemory, clips: StickerClips, autoencoder: Autoencoder) -> float:
    """Set the table of a memory to codes of what its subjects look like.

    Each subject fills the frame, still, once on white and once on black, so that what is
    transparent can be told. The latents of a patch over all frames are projected to their
    principal components; a token holds the codes of the patches of its cell, row by row.

    Args:
        memory: Its entries are the subjects of `clips`, in order.
        clips: Draws them.
        autoencoder: Encodes them.

    Returns:
        Share of the variance that the codes keep.
    """
    drawn = replace(clips, options=replace(clips.options.without_chance(), scale=1.0))
    side = math.isqrt(memory.tokens)
    views: list[Tensor] = []
    for background in ("white", "black"):
        cells: list[Tensor] = []
        scenes = [Scene(subject=i, background=background) for i in range(len(clips.sprites.rgba))]
        for start in range(0, len(scenes), BANK_BATCH):
            part = scenes[start : start + BANK_BATCH]
            chances = np.zeros((len(part), CHANCES), np.float32)
            latents = torch.from_numpy(_encode(drawn, autoencoder, part, chances)).float()
            views_of_patch = latents.flatten(1, 2).permute(0, 2, 3, 1)  # (N, h, w, F C)
            cells.append(views_of_patch)
        views.append(torch.cat(cells))
    codes = torch.cat(views, dim=3)  # (subjects, h, w, 2 F C)
    flat = codes.flatten(0, 2)
    flat = flat - flat.mean(dim=0)
    n, h, w, _ = codes.shape
    cell = h // side * (w // side)
    size = memory.table.out_features // memory.tokens // cell
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the projection starts from random directions
        _, _, basis = torch.pca_lowrank(flat, q=min(size, *flat.shape), center=False, niter=4)
    kept = F.pad(flat @ basis, (0, size - basis.shape[1]))
    share = float(kept.square().sum() / flat.square().sum())
    kept /= kept.square().mean().sqrt()
    kept = kept.reshape(n, side, h // side, side, w // side, size)
    kept = kept.permute(0, 1, 3, 2, 4, 5)  # cells of the grid, then the patches of a cell
    memory.table.weight.zero_()
    memory.table.weight[:, :n] = kept.reshape(n, -1).T
    return share


class TextDenoiser(nn.Module):
    """Text encoder and denoiser, trained as one network."""

    def __init__(self, text_encoder: TextEncoder, denoiser: SpatioTemporalTransformer) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.denoiser = denoiser

    def forward(self, sample: Tensor, timestep: Tensor, input_ids: Tensor) -> Tensor:
        """Predict the clean latents `(B * F, C, h, w)` from noisy ones, `(B,)` and ids `(B, L)`."""
        return self.denoiser(sample, timestep, self.text_encoder(input_ids))

    def with_words(
        self, sample: Tensor, timestep: Tensor, input_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what `forward` does, and the memory's logits `(B, slots, subjects + 1)`."""
        memory = self.text_encoder.memory
        assert memory is not None
        features = self.text_encoder.encode(input_ids)
        logits = memory.find(features)
        context = torch.cat([features, memory(logits)], dim=1)
        return self.denoiser(sample, timestep, context), logits


def denoiser_loss(
    bank: LatentBank, clips: StickerClips, tokenizer: WordPiece, options: TrainOptions
) -> LossFunction:
    """Return the loss of a `TextDenoiser` with `prediction_type` "sample".

    `x_t = (1 - t) x_0 + t eps`, squared error of the predicted `x_0` weighted by 1 / t, t from a
    logit-normal distribution or 1.

    Reference:
        Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206 (logit-normal t).
    """

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        b = options.batch_size
        chosen = rng.integers(len(bank.latents), size=b)
        captions = [clips.captions.caption(bank.scene(int(i)), rng) for i in chosen]
        ids = encode_captions(tokenizer, [caption.text for caption in captions])
        clean = torch.from_numpy(bank.latents[chosen]).float()  # (B, F, C, h, w)
        t = torch.randn(b, generator=noise).sigmoid()
        t = torch.where(torch.rand(b, generator=noise) < PURE_NOISE_SHARE, torch.ones(()), t)
        ratio = t[:, None, None, None, None]
        start = torch.randn(clean.shape, generator=noise)
        named = np.array([caption.names_background for caption in captions])
        choices, is_open = bank.choices(chosen, named, rng)
        start = impose_choices(start, choices, is_open=is_open)
        noisy = (1 - ratio) * clean + ratio * start
        # Channels last throughout: every 1x1 convolution leaves this layout anyway.
        sample = noisy.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        assert isinstance(network, TextDenoiser)
        guess, logits = network.with_words(sample, t, ids)
        error = (guess.reshape(clean.shape).float() - clean).square().mean(dim=(1, 2, 3, 4))
        subjects = named_subjects(bank.scenes[chosen, :2], logits.shape[2] - 1)
        return (error / t.clamp(min=MIN_TIME)).mean() + NAMES_WEIGHT * names_loss(logits, subjects)

    return loss


def named_subjects(scenes: NDArray[np.int64], nobody: int) -> Tensor:
    """Return the memory's entry for each slot, `(B, 2)`: subject, then partner or `nobody`."""
    return torch.from_numpy(np.where(scenes < 0, nobody, scenes))


def names_loss(logits: Tensor, subjects: Tensor) -> Tensor:
    """Return the cross-entropy of `SubjectMemory.find` `(B, slots, subjects + 1)`."""
    return F.cross_entropy(logits.flatten(0, 1).float(), subjects.flatten())


def encode_captions(tokenizer: WordPiece, captions: list[str]) -> Tensor:
    """Return the token ids of captions, `(B, L)` int32."""
    return torch.from_numpy(np.concatenate([tokenizer.encode(text) for text in captions]))
