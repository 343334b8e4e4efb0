"""What noise decides, as networks see it (how training ties clips to it: `distill/choices.py`)."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor, nn

from mvsdk_export.layers.blocks import sinusoid

CHOICE_DIM = 16
"""Sines and cosines that show one choice."""

STEEPNESS = 1000.0
"""Rise of a step from one level of a choice to the next: one noise in 300 lies on some step."""


class ChoiceReader(nn.Module):
    """Reads what the noise decides: the weights of fixed patterns in it.

    A pattern is one latent channel whose sign alternates from frame to frame and from place to
    place. Clean latents are kept without a share in it, which nobody sees, so that noisy ones
    decide at every level what the noise did: the share of ordinary clips, small in pure noise,
    would weigh three times as much at t = 0.25 and let clips drift from step to step.
    """

    def __init__(self, frames: int, choices: int, levels: int = 0) -> None:
        super().__init__()
        self.frames = frames
        self.choices = choices
        self.levels = levels

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Map noisy latents `(B * F, C, h, w)` to features `(B, choices * CHOICE_DIM)`.

        The weight of a pattern in pure noise is standard normal, and tanh(0.8 z) / 2 + 1 / 2 is
        within 0.02 of the probability integral, which makes it uniform in (0, 1).
        """
        k, frames = self.choices, self.frames
        h, w = sample.shape[2:]
        signs = choice_signs(frames, h, w, sample.device)
        # A split, unlike slices of a graph's input, is quantised: the input crosses as integers.
        _, last = sample.split([sample.shape[1] - k, k], dim=1)
        shares = (last * signs[:, None].repeat(timestep.shape[0], 1, 1, 1)).mean(dim=(2, 3))
        weights = shares.reshape(-1, frames, k).mean(dim=1) * (frames * h * w) ** 0.5
        weights = weights / timestep[:, None]
        if self.levels <= 1:
            return _waves(weights)
        first, others = weights.split([1, k - 1], dim=1)
        return torch.cat([self._snap(first), _waves(others)], dim=1)

    def _snap(self, weights: Tensor) -> Tensor:
        """Map weights `(B, 1)` to the features of the middle of their level, `(B, CHOICE_DIM)`.

        All levels are equally likely. A choice among few is no number: between two of them there is
        nothing to show. The features of a level are constants, which half precision rounds once.
        """
        quantile, levels = NormalDist().inv_cdf, self.levels
        edges = torch.tensor([quantile(i / levels) for i in range(1, levels)])
        middles = torch.tensor([[quantile((i + 0.5) / levels)] for i in range(levels)])
        edges, table = edges.to(weights.device), _waves(middles).to(weights.device)
        passed = ((weights - edges) * STEEPNESS + 0.5).clamp(0.0, 1.0)  # (B, levels - 1)
        none = torch.zeros_like(weights)
        chosen = torch.cat([none + 1.0, passed], dim=1) - torch.cat([passed, none], dim=1)
        return (chosen[:, :, None] * table).sum(dim=1)


def _waves(weights: Tensor) -> Tensor:
    """Return sines and cosines of what weights `(B, n)` choose, `(B, n * CHOICE_DIM)`."""
    uniform = torch.tanh(weights * 0.8) * 0.5 + 0.5
    waves = sinusoid(uniform.reshape(-1), CHOICE_DIM, max_frequency=24.0)
    return waves.reshape(weights.shape[0], -1)


def without_share(x: Tensor, frames: int, choices: int) -> Tensor:
    """Return latents `(B * F, C, h, w)` without the patterns of their last channels."""
    n, channels, h, w = x.shape
    signs = choice_signs(frames, h, w, x.device)[:, None].repeat(n // frames, 1, 1, 1)
    rest, last = x.split([channels - choices, choices], dim=1)
    shares = (last * signs).mean(dim=(2, 3)).reshape(-1, frames, choices).mean(dim=1)
    shares = shares[:, None].expand(-1, frames, -1).reshape(n, choices, 1, 1)
    return torch.cat([rest, last - shares * signs], dim=1)


def choice_signs(frames: int, height: int, width: int, device: torch.device) -> Tensor:
    """Return the pattern of signs `(F, h, w)` by which noise decides."""
    times, rows, columns = (
        1.0 - 2.0 * (torch.arange(count, device=device) % 2) for count in (frames, height, width)
    )
    return times[:, None, None] * rows[:, None] * columns
