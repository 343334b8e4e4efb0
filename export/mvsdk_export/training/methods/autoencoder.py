"""The frame autoencoder: a patch transform in closed form, and a decoder trained for it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.families.autoencoder import PATCH, Autoencoder
from mvsdk_export.training.data.clips import StickerClips
from mvsdk_export.training.loop import LossFunction

FRAMES_PER_CLIP = 4
"""Frames of one drawn clip that go into a batch: neighbours teach little."""

LATENT_NOISE = 0.1
"""Standard deviation of the noise added to latents while the decoder is trained: it must decode
what a denoiser leaves behind, not only what the encoder makes."""

WHITENING = 0.5
"""Power of a component's standard deviation that is divided out of its latent channel.

0 keeps the pixel metric, where a denoiser hardly sees detail; 1 gives every component the same
weight, where it wastes capacity on the faintest."""


def fit_encoder_(network: Autoencoder, clips: StickerClips) -> None:
    """Set the patch transform and its inverse to the principal components of drawn frames.

    Reference:
        Ahmed, Natarajan and Rao 1974 (transform coding); Eckart and Young 1936 (optimality).
    """
    rng = np.random.default_rng(30_000)
    size, channels = PATCH, network.config.latent_channels
    frames = to_network(_draw_frames(clips, rng, 1024))
    patches = F.unfold(frames, size, stride=size).permute(0, 2, 1).reshape(-1, 3 * size * size)
    mean = patches.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T.double()))
    deviation = values.flip(0)[:channels].sqrt().float()
    basis = vectors.flip(1)[:, :channels].float()  # (3 * 8 * 8, C), orthonormal
    gain = deviation**-WHITENING
    gain = gain / (gain * deviation).square().mean().sqrt()  # unit variance over all channels
    with torch.no_grad():
        analysis = (basis * gain).T
        network.encoder.projection.weight.copy_(analysis.reshape(channels, 3, size, size))
        network.encoder.projection.bias.copy_(-(analysis @ mean))  # pyright: ignore
        network.decoder.projection.weight.copy_((basis / gain)[:, :, None, None])
        network.decoder.projection.bias.copy_(mean)  # pyright: ignore
    network.encoder.requires_grad_(False)


def autoencoder_loss(clips: StickerClips, batch_size: int) -> LossFunction:
    """Return the loss of the decoder: absolute and squared error, and edges."""

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, Autoencoder)
        frames = to_network(_draw_frames(clips, rng, batch_size))
        latents = network.encode(frames)
        rough = latents + LATENT_NOISE * torch.randn(latents.shape, generator=noise)
        decoded = network.decode(rough)
        error = decoded - frames
        edges = F.l1_loss(_gradients(decoded), _gradients(frames))
        return error.abs().mean() + 4.0 * error.square().mean() + 0.5 * edges

    return loss


def reconstruction_psnr_db(network: Autoencoder, clips: StickerClips) -> float:
    """Return the PSNR of decoded frames against drawn ones (peak 255), over 64 fresh clips."""
    rng = np.random.default_rng(10_000)
    frames = clips.sample_frames(rng, 64)
    frames = frames.reshape(-1, *frames.shape[2:])
    with torch.no_grad():
        decoded = network.decode(network.encode(to_network(frames)))
    error = to_frames(decoded).astype(np.float64) - frames
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def to_network(frames: np.ndarray) -> Tensor:
    """Map frames `(N, H, W, 3)` uint8 to `(N, 3, H, W)` float32 in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_frames(x: Tensor) -> np.ndarray:
    """Map `(N, 3, H, W)` in [-1, 1] to frames `(N, H, W, 3)` uint8."""
    x = ((x * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return x.permute(0, 2, 3, 1).contiguous().numpy()


def _draw_frames(clips: StickerClips, rng: np.random.Generator, count: int) -> np.ndarray:
    frames = clips.sample_frames(rng, max(1, count // FRAMES_PER_CLIP))
    chosen = rng.permuted(np.tile(np.arange(frames.shape[1]), (len(frames), 1)), axis=1)
    chosen = chosen[:, : min(FRAMES_PER_CLIP, frames.shape[1])]
    return frames[np.arange(len(frames))[:, None], chosen].reshape(-1, *frames.shape[2:])


def _gradients(x: Tensor) -> Tensor:
    across, down = x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]
    return torch.cat([across.flatten(1), down.flatten(1)], dim=1)
