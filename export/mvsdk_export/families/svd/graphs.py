"""The graphs of Stable Video Diffusion that phones get: an image in, a clip out.

Images come as `(1, H, W, 3)` in [0, 1], the order of the bytes of a picture, which the lowering
makes bytes. What surrounds the networks in the public pipeline is inside the graphs: resizing and
normalising the image, noise on it, guidance, scaling of latents, clamping of frames.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.families.svd.clip_vision import ClipVisionEncoder
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.families.svd.vae import TemporalAutoencoder
from mvsdk_export.layers.implementations import LINEAR_FUNCTIONS
from mvsdk_export.layers.selection import Implementations

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green and blue that the image encoder was trained with, in [0, 1]."""

CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Their standard deviation."""

ONE_STEP_SIGMA = 700.0
"""Noise level of the first and only step: the largest one that the model was trained with."""


class AntialiasedResize(nn.Module):
    """Resize an image to a square as the public pipeline does: blur, then bicubic, by matrices.

    Both are linear along each side, so a side is one matrix, known before anything runs. In 8
    bits it would shift the brightness of rows; on NPUs it has two terms, about 15 bits.

    Args:
        height: Pixels of the image.
        width: Pixels of the image.
        size: Pixels of the square along each side.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {
        "htp": "two_terms",
        "htp_fp16": "conv2d",
        "float": "matmul",
    }

    def __init__(self, height: int, width: int, size: int) -> None:
        super().__init__()
        # kept out of the state dict, and real whatever device the network is built on
        self.matrices = (resize_matrix(height, size), resize_matrix(width, size))
        self.implementation = "matmul"

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, height, width)` to `(N, size, size)`."""
        linear = LINEAR_FUNCTIONS[self.implementation]
        rows, columns = (matrix.to(x) for matrix in self.matrices)
        x = linear(x, columns, None).transpose(1, 2)  # (N, size, height)
        return linear(x, rows, None).transpose(1, 2)


def resize_matrix(length: int, size: int) -> Tensor:
    """Return what resizes one side of an image: a Gaussian blur, then cubic interpolation.

    Corners are aligned and borders are reflected. An image that is smaller than the result is not
    blurred.

    Args:
        length: Pixels of the side, at least 2.
        size: Pixels of the result.

    Returns:
        `(size, length)` float32; rows sum to 1.

    Reference:
        `_resize_with_antialiasing` of diffusers' StableVideoDiffusionPipeline.
    """
    sigma = max((length / size - 1) / 2, 1e-3)
    taps = int(max(4 * sigma, 3)) // 2 * 2 + 1
    offsets = torch.arange(taps, dtype=torch.float64, device="cpu") - taps // 2
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    impulses = torch.eye(length, dtype=torch.float64, device="cpu")
    padded = F.pad(impulses[:, None], (taps // 2, taps // 2), mode="reflect")
    blurred = F.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0]  # row: one impulse
    resized = F.interpolate(
        blurred.T[None, None], size=(size, length), mode="bicubic", align_corners=True
    )
    return resized[0, 0].float()


class ImageEncoderGraph(nn.Module):
    """Map an image to the feature that the denoiser attends to.

    Args:
        encoder: Image encoder.
        height: Pixels of the image.
        width: Pixels of the image.
    """

    def __init__(self, encoder: ClipVisionEncoder, height: int, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.resize = AntialiasedResize(height, width, encoder.config.image_size)

    def forward(self, image: Tensor) -> Tensor:
        """Map `(1, H, W, 3)` float32 in [0, 1] to `(1, 1, projection_dim)` float32."""
        pixels = self.resize(image[0].permute(2, 0, 1))[None]
        mean, std = (torch.tensor(x, device=image.device) for x in (CLIP_MEAN, CLIP_STD))
        pixels = (pixels - mean[:, None, None]) / std[:, None, None]
        return self.encoder(pixels)[:, None]


class FirstFrameGraph(nn.Module):
    """Map an image, with noise on it, to the latents that go beside the noisy ones."""

    def __init__(self, vae: TemporalAutoencoder | Autoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor, noise: Tensor, noise_aug_strength: Tensor) -> Tensor:
        """Encode an image.

        Args:
            image: `(1, H, W, 3)` float32 in [0, 1].
            noise: `(1, 3, H, W)` float32, standard normal.
            noise_aug_strength: `(1,)` float32, standard deviation of the noise on pixels in
                [-1, 1].

        Returns:
            `(1, C, h, w)` float32, not multiplied by the scaling factor.
        """
        pixels = image.permute(0, 3, 1, 2) * 2.0 - 1.0
        return self.vae.encode(pixels + noise_aug_strength[:, None, None, None] * noise)


class DenoiserGraph(nn.Module):
    """Evaluate the denoiser for one clip, with or without guidance.

    Args:
        unet: Denoiser.
        guidance: None for one evaluation. (a, b) for two, with and without the image, that are
            extrapolated by a at the first frame to b at the last.

    Reference:
        Ho and Salimans 2022, arXiv:2207.12598 (guidance); Blattmann et al. 2023, arXiv:2311.15127,
        sec. 4.3 (its linear growth over the frames).
    """

    def __init__(self, unet: SVDUNet, guidance: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.guidance = guidance

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        image_latents: Tensor,
        added_time_ids: Tensor,
    ) -> Tensor:
        """Predict the velocity.

        Args:
            sample: Noisy latents `(F, C, h, w)` float32, already scaled for the network.
            timestep: `(1,)` float32, a quarter of the logarithm of the noise level.
            encoder_hidden_states: Feature of the image `(1, 1, D)` float32.
            image_latents: Latents of the image `(1, C, h, w)` float32.
            added_time_ids: `(1, 3)` float32, as in `SVDUNet.forward`.

        Returns:
            `(F, C, h, w)` float32.
        """

        def evaluate(context: Tensor, first: Tensor) -> Tensor:
            return self.unet(beside(sample, first), timestep, context, added_time_ids)

        model_output = evaluate(encoder_hidden_states, image_latents)
        if self.guidance is None:
            return model_output
        without = evaluate(torch.zeros_like(encoder_hidden_states), torch.zeros_like(image_latents))
        scale = guidance_scales(self.guidance, sample.shape[0], sample.device)
        return without + scale[:, None, None, None] * (model_output - without)


class OneStepGraph(nn.Module):
    """The whole sampler of a model that was trained to denoise in one step.

    With the noise level fixed, `c_in` times the first noisy latents is the noise itself, the
    embedding of the level is a constant, and the result is the denoised latents.

    Args:
        unet: Denoiser.
        sigma: Noise level.

    Reference:
        Zhang et al. 2024, arXiv:2406.04324, eq. 2 (SF-V); Karras et al. 2022, arXiv:2206.00364.
    """

    def __init__(self, unet: SVDUNet, sigma: float = ONE_STEP_SIGMA) -> None:
        super().__init__()
        self.unet = unet
        self.sigma = sigma

    def forward(
        self,
        sample: Tensor,
        encoder_hidden_states: Tensor,
        image_latents: Tensor,
        added_time_ids: Tensor,
    ) -> Tensor:
        """Map noise to the latents of a clip.

        Args:
            sample: `(F, C, h, w)` float32, standard normal.
            encoder_hidden_states: Feature of the image `(1, 1, D)` float32.
            image_latents: Latents of the image `(1, C, h, w)` float32.
            added_time_ids: `(1, 3)` float32, as in `SVDUNet.forward`.

        Returns:
            Latents `(F, C, h, w)` float32, multiplied by the scaling factor as the sampler's are.
        """
        timestep = torch.full((1,), 0.25 * math.log(self.sigma), device=sample.device)
        velocity = self.unet(
            beside(sample, image_latents), timestep, encoder_hidden_states, added_time_ids
        )
        root = math.sqrt(self.sigma**2 + 1)
        return sample * (1 / root) - velocity * (self.sigma / root)


class DecoderGraph(nn.Module):
    """Map the latents of a clip to frames."""

    def __init__(self, vae: TemporalAutoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """Map scaled latents `(F, C, h, w)` to frames `(F, 8h, 8w, 3)` float32 in [0, 1]."""
        frames = self.vae.decode_colours_last(latents * (1 / self.vae.config.scaling_factor))
        return torch.clamp(frames * 0.5 + 0.5, 0.0, 1.0)


def beside(sample: Tensor, image_latents: Tensor) -> Tensor:
    """Put the latents of the image beside those of every frame, in the channels.

    Args:
        sample: `(F, C, h, w)`.
        image_latents: `(1, C', h, w)`.

    Returns:
        `(F, C + C', h, w)`.
    """
    return torch.cat([sample, image_latents.expand(sample.shape[0], -1, -1, -1)], dim=1)


def guidance_scales(guidance: tuple[float, float], num_frames: int, device: torch.device) -> Tensor:
    """Return the scale of every frame, `(F,)` float32, from the first to the last."""
    first, last = guidance
    places = torch.arange(num_frames, dtype=torch.float32, device=device) / max(num_frames - 1, 1)
    return first + (last - first) * places
