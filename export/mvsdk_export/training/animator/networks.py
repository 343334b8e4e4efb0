"""The networks of the image-to-video model in training, and what they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk_export.families.animator.recipe import ANIMATOR
from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.families.svd.blocks import TemporalResBlock
from mvsdk_export.families.svd.clip_vision import ClipVisionConfig, ClipVisionEncoder
from mvsdk_export.families.svd.config import SVDUNetConfig
from mvsdk_export.families.svd.graphs import CLIP_MEAN, CLIP_STD
from mvsdk_export.families.svd.transformer import TransformerSpatioTemporal
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.layers.blocks import PointwiseConv
from mvsdk_export.layers.embeddings import sinusoids
from mvsdk_export.layers.resnet import ResBlock
from mvsdk_export.training.animator.bank import ClipBank
from mvsdk_export.training.animator.clips import Move
from mvsdk_export.training.methods.autoencoder import to_network
from mvsdk_export.training.methods.edm import like
from mvsdk_export.training.methods.one_step import Conditions, select_training_implementations_

MOVE_NAMES: tuple[Move, ...] = get_args(Move)

FPS = ANIMATOR.fps
"""Frames per second of every clip; the network is given one less, as Stable Video Diffusion is."""

NOISE_AUGMENTATION = 0.05
"""Most noise on the picture in training: standard deviation on pixels in [-1, 1]."""

ORDINARY_AUGMENTATION = ANIMATOR.conditioning["added_time_ids"][2]
"""Noise on the picture when clips are made, unless told otherwise: that of the public pipeline."""


class PictureNames(nn.Module):
    """The encoder of pictures, and what reads from its feature what they show and how it moves.

    Args:
        image_encoder: Shape of the encoder.
        subjects: Number of subjects that pictures show.
    """

    def __init__(self, image_encoder: ClipVisionConfig, subjects: int) -> None:
        super().__init__()
        self.image_encoder = ClipVisionEncoder(image_encoder)
        self.subject = nn.Linear(image_encoder.projection_dim, subjects)
        self.move = nn.Linear(image_encoder.projection_dim, len(MOVE_NAMES))


class AnimatorBase(nn.Module):
    """The uncompressed denoiser, trained together with the encoder of its picture."""

    def __init__(self, unet: SVDUNetConfig, image_encoder: ClipVisionConfig) -> None:
        super().__init__()
        self.image_encoder = ClipVisionEncoder(image_encoder)
        self.unet = begin_simply_(select_training_implementations_(SVDUNet(unet)))


@torch.no_grad()
def begin_simply_(unet: SVDUNet) -> SVDUNet:
    """Let a fresh denoiser begin as one whose last layer sees its input.

    Residual branches begin as nothing, the output as zero. What comes in is handed on as it is, and
    over the skips to the last layer, so that the picture need not first find its way. Only the half
    of a shortcut that reads the skip is set; the half that reads what comes from below keeps its
    random weights.

    Reference:
        Dhariwal and Nichol 2021, arXiv:2105.05233 (branches that begin as zero).
    """
    nn.init.dirac_(unet.conv_in.weight)
    unet.conv_out.weight.zero_()
    for name, module in unet.named_modules():
        if isinstance(module, ResBlock | TemporalResBlock):
            module.conv2.weight.zero_()
        if isinstance(module, TransformerSpatioTemporal):
            module.proj_out.weight.zero_()
        if name.startswith("up_blocks.") and name.endswith(".conv_shortcut"):
            assert isinstance(module, PointwiseConv)
            width = module.out_channels
            module.weight[:, -width:, 0, 0] = torch.eye(width)  # the skip comes last
    return unet


@torch.no_grad()
def fold_frame_rate_(unet: SVDUNet) -> SVDUNet:
    """Put what a denoiser is told of the frame rate into a bias, and let it hear nothing else.

    Every clip of training has the same rate, so that at any other the network would do what it
    never learned. At that rate this is exact.
    """
    linear, width = unet.add_embedding.linear_1, unet.config.addition_time_embed_dim
    heard = linear.weight[:, :width]  # the rate comes first
    linear.bias.add_(heard @ sinusoids(torch.tensor([FPS - 1.0]), width)[0])
    heard.zero_()
    return unet


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBatch:
    """Clips to learn from."""

    clean: Tensor
    """Latents `(B, F, C, h, w)` float32."""
    pictures: Tensor
    """First frames `(B, 3, H, W)` float32 in [-1, 1]."""
    image_latents: Tensor
    """`(B, C, h, w)` float32."""
    added_time_ids: Tensor
    """`(B, 3)` float32."""

    def conditions(self, features: Tensor) -> Conditions:
        """Return what a denoiser is given, with features of the pictures `(B, D)`."""
        return Conditions(
            features=features[:, None],
            image_latents=self.image_latents,
            added_time_ids=self.added_time_ids,
        )


def draw_clip_batch(
    bank: ClipBank,
    autoencoder: Autoencoder,
    batch_size: int,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> ClipBatch:
    """Draw clips from the bank.

    Args:
        bank: Clips.
        autoencoder: Encodes their first frames, with noise on them.
        batch_size: How many.
        rng: Decides which.
        noise: Decides how much noise is on the pictures, and which.
    """
    chosen = rng.integers(len(bank.starts), size=batch_size)
    pictures = to_network(bank.pictures[chosen])
    strengths = NOISE_AUGMENTATION * torch.rand(batch_size, generator=noise)
    rough = pictures + like(strengths, pictures) * torch.randn(pictures.shape, generator=noise)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        image_latents = autoencoder.encode(rough)
    return ClipBatch(
        clean=torch.from_numpy(bank.latents[chosen].astype(np.float32)),
        pictures=pictures,
        image_latents=image_latents,
        added_time_ids=time_ids(bank.buckets[chosen], strengths),
    )


def time_ids(buckets: NDArray[np.float32], strengths: Tensor) -> Tensor:
    """Return what the denoiser is told of clips, `(B, 3)` float32.

    Args:
        buckets: Motion buckets, (B,).
        strengths: Noise on the pictures, `(B,)`.
    """
    rate = torch.full((len(buckets),), FPS - 1.0)
    return torch.stack([rate, torch.from_numpy(buckets), strengths], dim=1)


def encode_pictures(encoder: ClipVisionEncoder, pictures: Tensor) -> Tensor:
    """Map pictures `(B, 3, S, S)` in [-1, 1] to features `(B, D)`, normalised as graphs do it."""
    mean, deviation = (torch.tensor(x)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
    return encoder((pictures * 0.5 + 0.5 - mean) / deviation)
