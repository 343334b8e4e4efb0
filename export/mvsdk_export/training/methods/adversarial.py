"""Adversarial finetuning to few steps: a frozen denoiser looks, small heads judge.

The discriminator is the teacher up to its inner layers, frozen, with two heads at each of them: one
looks at every frame, one at every place over time. Real and generated latents are made noisy again
before it sees them. Any network whose inner layers can be named can be the backbone.

Reference:
    Zhang et al. 2024, "SF-V", arXiv:2406.04324; Sauer et al. 2024, "LADD", arXiv:2403.12015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mvsdk_export.training.methods.consistency import pseudo_huber

Backbone = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""(noisy latents, noise levels `(B,)`) -> features of inner layers, each `(B, F, C, P)`: frames,
channels, places."""

Renoise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(clean latents `(B, ...)`, unit noise like them, noise levels `(B,)`) -> noisy latents."""

RECONSTRUCTION_WEIGHT = 10.0
"""Weight of the pseudo-Huber distance beside the judgement. SF-V has 0.1 where clips are free; here
a caption and the noise, or a picture and its motion bucket, leave next to nothing free, and the
distance is what keeps the clip."""

PENALTY_WEIGHT = 0.1
"""Weight of the gradient penalty (R1) on what real clips look like to the heads."""

SPREAD = (-0.5, 1.0)
"""Mean and deviation of the logit of the noise level at which the discriminator looks."""


class Heads(nn.Module):
    """Two heads at every layer: spatial over frames, temporal over places, with a projection.

    Reference:
        Miyato and Koyama 2018, arXiv:1802.05637 (projection of the condition).
    """

    def __init__(self, channels: Sequence[int], condition_dim: int, width: int = 64) -> None:
        super().__init__()
        self.spatial = nn.ModuleList(_Head(c, condition_dim, width, kernel=1) for c in channels)
        self.temporal = nn.ModuleList(_Head(c, condition_dim, width, kernel=3) for c in channels)

    def forward(self, features: Sequence[Tensor], condition: Tensor) -> Tensor:
        """Map features `(B, F, C, P)` and conditions `(B, D)` to judgements `(B, N)`."""
        judgements: list[Tensor] = []
        for x, spatial, temporal in zip(features, self.spatial, self.temporal, strict=True):
            b, frames, channels, places = x.shape
            by_frame = x.reshape(b * frames, channels, places)
            by_place = x.permute(0, 3, 2, 1).reshape(b * places, channels, frames)
            judgements.append(spatial(by_frame, condition).reshape(b, -1))
            judgements.append(temporal(by_place, condition).reshape(b, -1))
        return torch.cat(judgements, dim=1)


class _Head(nn.Module):
    """Convolution along the places of a frame (kernel 1) or the frames of a place (kernel 3)."""

    def __init__(self, channels: int, condition_dim: int, width: int, *, kernel: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.conv_in = nn.Conv1d(channels, width, kernel, padding=kernel // 2)
        self.conv_mid = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.conv_out = nn.Conv1d(width, 1, 1)
        self.project = nn.Linear(condition_dim, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map `(N, C, K)` and `(B, D)`, B a divisor of N, to `(N, K)`."""
        x = F.leaky_relu(self.conv_in(self.norm(x)), 0.2)
        x = F.leaky_relu(self.conv_mid(x), 0.2)
        wanted = self.project(condition).repeat_interleave(len(x) // len(condition), dim=0)
        agreement = (x * wanted[:, :, None]).sum(dim=1) * x.shape[1] ** -0.5
        return self.conv_out(x)[:, 0] + agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The parts of the loss of one step."""

    generator: Tensor
    """What the student minimises: judgement and distance."""
    discriminator: Tensor
    """What the heads minimise: hinge and penalty."""

    @property
    def total(self) -> Tensor:
        """Their sum: neither has a gradient for what the other trains."""
        return self.generator + self.discriminator


def flow_noise(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Make latents noisy as on a rectified flow: `(1 - t) x + t noise`."""
    ratio = times.reshape(-1, *[1] * (clean.dim() - 1))
    return (1 - ratio) * clean + ratio * noise


def judge(
    heads: Heads,
    backbone: Backbone,
    *,
    real: Tensor,
    fake: Tensor,
    noise: Tensor,
    times: Tensor,
    condition: Tensor,
    renoise: Renoise = flow_noise,
    reconstruction_weight: float = RECONSTRUCTION_WEIGHT,
) -> Judged:
    """Return the losses of a student and of the heads that judge it, from one look at both.

    Args:
        heads: What is trained to tell real from generated latents.
        backbone: Frozen; gradients go through it to `fake`.
        real: Clean latents `(B, ...)`.
        fake: What the student predicts for them.
        noise: Standard normal, like them; both are made noisy with it.
        times: Noise levels at which the backbone looks, `(B,)`.
        condition: What both shall show, `(B, D)`.
        renoise: Makes both noisy.
        reconstruction_weight: Of the distance between them beside the judgement.

    Reference:
        Lim and Ye 2017, arXiv:1705.02894 (hinge); Mescheder et al. 2018, arXiv:1801.04406 (R1).
    """

    def look(clean: Tensor) -> list[Tensor]:
        return list(backbone(renoise(clean, noise, times), times))

    with torch.no_grad():
        seen_real = look(real)
    seen_fake = look(fake)
    frozen = {name: value.detach() for name, value in heads.named_parameters()}
    believed = functional_call(heads, frozen, (seen_fake, condition))
    generator = reconstruction_weight * pseudo_huber(fake, real) - believed.mean()

    inputs = [x.detach().requires_grad_() for x in seen_real]
    judged_real = heads(inputs, condition)
    judged_fake = heads([x.detach() for x in seen_fake], condition)
    hinge = F.relu(1 - judged_real).mean() + F.relu(1 + judged_fake).mean()
    slopes = torch.autograd.grad(judged_real.mean(dim=1).sum(), inputs, create_graph=True)
    penalty = sum(
        (x.square().flatten(1).sum(dim=1).mean() for x in slopes),
        torch.zeros((), device=real.device),
    )
    return Judged(generator=generator, discriminator=hinge + PENALTY_WEIGHT * penalty)


def draw_times(count: int, noise: torch.Generator) -> Tensor:
    """Draw noise levels `(count,)` at which the discriminator looks: logit-normal."""
    mean, deviation = SPREAD
    return torch.sigmoid(mean + deviation * torch.randn(count, generator=noise))
