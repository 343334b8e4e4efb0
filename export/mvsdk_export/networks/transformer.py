"""A spatio-temporal diffusion transformer that denoises the latents of one clip."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.networks.blocks import SiLU, sinusoid

CHOICE_DIM = 16
"""Sines and cosines that show one choice."""

PATCH = 2
"""Latent positions per token, along both sides."""

SHARPNESS = 2.0
"""Of the Gaussian around the place that is looked at: exp(-SHARPNESS d^2), d in codes."""

LOOK = (1.4, 0.0, 0.0, 0.0, 1.4, 0.0)
"""Affine map that looking starts from: a picture seven tenths the size of the frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Shape of a `SpatioTemporalTransformer`."""

    latent_channels: int = 32
    num_frames: int = 8
    width: int = 256
    """Features of a token."""
    layers: int = 6
    heads: int = 4
    expansion: int = 4
    context_dim: int = 192
    memory_slots: int = 0
    """Pictures that the context ends with (`text_encoder.SubjectMemory`); 0 for none."""
    memory_tokens: int = 16
    """Tokens of each picture, a square grid."""
    choices: int = 0
    """Latent channels whose mean over the clip is shown to every layer: the noise of a prompt that
    leaves something open decides by them. 0 for none."""


class SpatioTemporalTransformer(nn.Module):
    """Denoiser whose tokens are patches of all frames, each attending to all others and the text.

    Noise level, the mean text feature, the choices of the noise and the place of the frame modulate
    every layer. Pictures
    from the text encoder's memory enter twice: laid over the frames, and as tokens to attend to.

    Reference:
        Peebles and Xie 2022, arXiv:2212.09748 (DiT); Chen et al. 2023, arXiv:2310.00426 (one
        modulation for all layers, each with an offset of its own).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        size = config.width
        self.activation = SiLU()
        self.patch_in = nn.Conv2d(config.latent_channels, size, PATCH, stride=PATCH)
        self.position_in = nn.Linear(3 * 32, size)
        self.context_in = nn.Linear(config.context_dim, size)
        self.memory_in = (
            nn.Linear(config.memory_slots * config.context_dim, size)
            if config.memory_slots
            else None
        )
        self.slot_position = nn.Parameter(torch.randn(max(config.memory_slots, 1), 1, size) * 0.5)
        if config.memory_slots:
            self.look_at = nn.Linear(size, config.memory_slots * 6)
            self.look_in = nn.Linear(config.memory_slots * 2 * 32, size)
            with torch.no_grad():
                self.look_at.weight.mul_(0.1)
                self.look_at.bias.copy_(torch.tensor(LOOK).repeat(config.memory_slots))
        self.clock_in = nn.Linear(32, size)
        self.time_in = nn.Linear(64, size)
        self.text_in = nn.Linear(config.context_dim, size)
        self.choices_in = nn.Linear(config.choices * CHOICE_DIM, size) if config.choices else None
        self.condition = nn.Sequential(nn.Linear(size, 2 * size), SiLU(), nn.Linear(2 * size, size))
        self.modulation = nn.Linear(size, 6 * size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(size, elementwise_affine=False)
        self.modulation_out = nn.Linear(size, 2 * size)
        self.patch_out = nn.Linear(size, PATCH * PATCH * config.latent_channels)
        for layer in (self.modulation, self.modulation_out, self.patch_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Predict the clean latents (`prediction_type` "sample").

        Args:
            sample: Noisy latents `(B * F, C, h, w)` float32; h and w even.
            timestep: Noise level `(B,)` float32, in [0, 1].
            encoder_hidden_states: Text features `(B, S, context_dim)` float32.

        Returns:
            `(B * F, C, h, w)` float32.
        """
        b, frames, size = timestep.shape[0], self.config.num_frames, self.config.width
        x = self.patch_in(sample)
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2).reshape(b, frames * height * width, size)
        x = x + self._positions(height, width, x.device)
        condition = self._condition(sample, timestep, encoder_hidden_states)
        if self.memory_in is not None:
            x = x + self._lay_out(encoder_hidden_states, condition, height, width)
        context = self._place(self.context_in(encoder_hidden_states))
        modulation = self.modulation(condition)
        for layer in self.layers:
            x = layer(x, context, modulation)
        scale, shift = self.modulation_out(condition).chunk(2, dim=2)
        x = self.patch_out(_modulate(self.norm_out(x), scale, shift))
        x = x.reshape(b * frames, height, width, -1).permute(0, 3, 1, 2)
        return F.pixel_shuffle(x, PATCH)

    def _positions(self, height: int, width: int, device: torch.device) -> Tensor:
        """Return embeddings of frame, row and column, `(1, F * H * W, size)`."""
        frames = self.config.num_frames
        clock = F.linear(_waves(frames, device), self.position_in.weight[:, :32])
        grid = self._grid(height, width, device)
        return (clock[:, None] + grid).reshape(1, frames * height * width, -1)

    def _grid(self, height: int, width: int, device: torch.device) -> Tensor:
        """Return embeddings of row and column, `(H * W, size)`."""
        _, row, column = self.position_in.weight.split(32, dim=1)
        rows = F.linear(_waves(height, device), row, self.position_in.bias)
        columns = F.linear(_waves(width, device), column)
        return (rows[:, None] + columns[None]).reshape(height * width, -1)

    def _place(self, context: Tensor) -> Tensor:
        """Tell the tokens of each picture of the memory where they are."""
        slots, tokens = self.config.memory_slots, self.config.memory_tokens
        if not slots:
            return context
        side = math.isqrt(tokens)
        places = (self._grid(side, side, context.device) + self.slot_position).flatten(0, 1)
        words = context.shape[1] - slots * tokens
        return torch.cat([context[:, :words], context[:, words:] + places], dim=1)

    def _lay_out(self, context: Tensor, condition: Tensor, height: int, width: int) -> Tensor:
        """Return the pictures of the memory as features of all tokens, `(B, F * H * W, size)`.

        Each picture gets an affine map per frame, predicted from the condition: where in the
        picture a place of the frame looks. What it finds there is the sum of the codes around,
        weighted by a Gaussian of the distance, so that nothing lies outside the picture; and where
        it looked is told as well, in the waves that tell the tokens of the memory where they are.

        Reference:
            Jaderberg et al. 2015, arXiv:1506.02025 (spatial transformers); Liu et al. 2022,
            arXiv:2201.12329 (attention around predicted reference points).
        """
        assert self.memory_in is not None
        assert self.look_at is not None
        slots, tokens = self.config.memory_slots, self.config.memory_tokens
        b, frames, side = context.shape[0], self.config.num_frames, math.isqrt(tokens)
        # A token of the memory holds a cell of PATCH x PATCH codes.
        codes = context[:, -slots * tokens :].reshape(b * slots * side, side, PATCH, -1)
        codes = codes.transpose(1, 2).reshape(b, slots, (PATCH * side) ** 2, -1)
        maps = self.look_at(condition).reshape(b * frames, slots, 6).transpose(1, 2)
        across, down = _centred(PATCH * width, codes.device), _centred(PATCH * height, codes.device)
        x = across.repeat(PATCH * height)[:, None]  # (P, 1)
        y = down.repeat_interleave(PATCH * width)[:, None]
        xs = maps[:, None, 0] * x + maps[:, None, 1] * y + maps[:, None, 2]  # (B F, P, slots)
        ys = maps[:, None, 3] * x + maps[:, None, 4] * y + maps[:, None, 5]
        grid = _centred(PATCH * side, codes.device)
        seen: list[Tensor] = []
        for slot in range(slots):
            near_x = torch.exp(-SHARPNESS * (xs[:, :, slot, None] - grid).square())
            near_y = torch.exp(-SHARPNESS * (ys[:, :, slot, None] - grid).square())
            near = (near_y[:, :, :, None] * near_x[:, :, None, :]).flatten(2)  # (B F, P, codes)
            near = near.reshape(b, frames * near.shape[1], near.shape[2])
            seen.append(near @ codes[:, slot] * (SHARPNESS / math.pi))
        found = torch.cat(seen, dim=2)  # (B, F P, slots * D / 4)
        found = found.reshape(b * frames * height, PATCH, width, -1)
        found = found.transpose(1, 2).reshape(b, frames * height * width, -1)
        places = torch.cat([xs, ys], dim=2).reshape(b * frames * height, PATCH, width, -1)
        places = (
            places.transpose(1, 2).reshape(b, frames * height * width, PATCH**2, -1).mean(dim=2)
        )
        waves = sinusoid((places / (PATCH * side) + 0.5).flatten(), 32, max_frequency=24.0).reshape(
            b, frames * height * width, -1
        )
        return self.memory_in(found) + self.look_in(waves)

    def _condition(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        """Return what modulates the tokens of every frame in every layer, `(B, F, size)`.

        What a prompt says and the place of a frame in time meet here, before any token sees them:
        "left" means something else in every frame.
        """
        words = context.shape[1] - self.config.memory_slots * self.config.memory_tokens
        x = self.time_in(sinusoid(timestep, 64, max_frequency=12.0))
        x = x + self.text_in(context[:, :words].mean(dim=1))
        if self.choices_in is not None:
            x = x + self.choices_in(self._read_choices(sample, timestep.shape[0]))
        clock = self.clock_in(_waves(self.config.num_frames, x.device))
        return self.activation(self.condition(self.activation(x[:, None] + clock)))

    def _read_choices(self, sample: Tensor, b: int) -> Tensor:
        """Return features of what the noise decides, `(B, choices * CHOICE_DIM)`.

        Of pure noise, the scaled mean of a channel is standard normal, and tanh(0.8 z) is within
        0.02 of the probability integral that makes it uniform in (-1, 1).
        """
        k = self.config.choices
        means = sample[:, :k].mean(dim=(2, 3)).reshape(b, -1, k).mean(dim=1)
        count = self.config.num_frames * sample.shape[2] * sample.shape[3]
        uniform = torch.tanh(means * (0.8 * count**0.5)) * 0.5 + 0.5
        waves = sinusoid(uniform.reshape(b * k), CHOICE_DIM, max_frequency=24.0)
        return waves.reshape(b, k * CHOICE_DIM)


def _waves(count: int, device: torch.device) -> Tensor:
    """Return sines and cosines of `count` places in (0, 1), `(count, 32)`."""
    places = (torch.arange(count, device=device) + 0.5) / count
    return sinusoid(places, 32, max_frequency=24.0)


def _centred(count: int, device: torch.device) -> Tensor:
    """Return places one apart around 0, `(count,)`."""
    return torch.arange(count, device=device) - (count - 1) / 2


def _modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scale and shift the tokens `(B, N, D)` of every frame by its own `(B, F, D)`."""
    frames = x.reshape(scale.shape[0], scale.shape[1], -1, scale.shape[2])
    return (frames * (1 + scale[:, :, None]) + shift[:, :, None]).reshape(x.shape)


def _gate(x: Tensor, gate: Tensor) -> Tensor:
    """Multiply the tokens `(B, N, D)` of every frame by its own `(B, F, D)`."""
    frames = x.reshape(gate.shape[0], gate.shape[1], -1, gate.shape[2])
    return (frames * gate[:, :, None]).reshape(x.shape)


class _Layer(nn.Module):
    """Attention to all tokens and the context, then a feed-forward network, both modulated."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        size, inner = config.width, config.expansion * config.width
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(size, elementwise_affine=False)
        self.norm_context = nn.LayerNorm(size)
        self.to_q = nn.Linear(size, size)
        self.to_kv = nn.Linear(size, 2 * size)
        self.context_to_kv = nn.Linear(size, 2 * size)
        self.to_out = nn.Linear(size, size)
        self.norm2 = nn.LayerNorm(size, elementwise_affine=False)
        self.fc1 = nn.Linear(size, inner)
        self.fc2 = nn.Linear(inner, size)
        self.offset = nn.Parameter(torch.zeros(6, size))
        with torch.no_grad():
            self.offset[2].fill_(0.3)
            self.offset[5].fill_(0.3)

    def forward(self, x: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
        """Map tokens `(B, N, D)` to the same shape; modulation `(B, F, 6 D)`."""
        parts = (modulation + self.offset.flatten()).chunk(6, dim=2)
        scale1, shift1, gate1, scale2, shift2, gate2 = parts
        h = _modulate(self.norm1(x), scale1, shift1)
        x = x + _gate(self.to_out(self._attend(h, self.norm_context(context))), gate1)
        h = _modulate(self.norm2(x), scale2, shift2)
        return x + _gate(self.fc2(F.gelu(self.fc1(h), approximate="tanh")), gate2)

    def _attend(self, x: Tensor, context: Tensor) -> Tensor:
        keys = torch.cat([self.to_kv(x), self.context_to_kv(context)], dim=1)
        k, v = keys.chunk(2, dim=2)
        q, k, v = (self._split(part) for part in (self.to_q(x), k, v))
        out = F.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).reshape(x.shape)

    def _split(self, x: Tensor) -> Tensor:
        b, length, size = x.shape
        return x.reshape(b, length, self.heads, size // self.heads).transpose(1, 2)
