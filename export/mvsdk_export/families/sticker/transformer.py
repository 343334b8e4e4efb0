"""A spatio-temporal diffusion transformer that denoises the latents of one clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.families.autoencoder import PATCH as PIXELS
from mvsdk_export.families.sticker.choices import CHOICE_DIM, ChoiceReader, without_share
from mvsdk_export.families.sticker.pictures import PICTURE_CHANNELS, Layout, Pictures
from mvsdk_export.layers.blocks import (
    PreciseProjection,
    Projection,
    SiLU,
    sinusoid,
)
from mvsdk_export.layers.selection import Implementations
from mvsdk_export.layers.token_attention import TOKEN_ATTENTION_FUNCTIONS, token_attention_on

PATCH = 2
"""Latent positions per token, along both sides."""

DRAFTS = 4
"""Latents made of the pictures: of their colour, and of their cover in red, green and blue, which
the colour of what they stand on weights."""

DOUBT = 0.02
"""Variance of clips about their drafts, by which noisy latents are trusted (`trust`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Shape of a `SpatioTemporalTransformer`."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {
        "C": "latent_channels",
        "D": "context_dim",
        "K": "memory_slots",
        "T": "memory_tokens",
    }

    latent_channels: int = 32
    num_frames: int = 8
    width: int = 256
    """Features of a token."""
    layers: int = 3
    heads: int = 4
    expansion: int = 4
    context_dim: int = 192
    memory_slots: int = 0
    """Pictures that the context ends with (`text_encoder.SubjectMemory`); 0 for none."""
    memory_tokens: int = 49
    """Tokens of each picture: its codes, and a last one with notes on the subject."""
    picture_cells: int = 16
    """Cells along each side of a picture; the codes are spread evenly over them."""
    picture_size: int = 48
    """Points along each side of a picture that is laid over the frames."""
    picture_width: int = 128
    """Channels inside the network that decodes codes to pictures."""
    choices: int = 0
    """Noise patterns whose weights are shown to every layer (`ChoiceReader`): the noise of a prompt
    that leaves something open decides by them. 0 for none."""
    choice_levels: int = 0
    """Things among which the first of them chooses, all equally likely; 0 if it is a number."""

    @property
    def code_size(self) -> int:
        """Codes of a cell."""
        return (self.memory_tokens - 1) * self.context_dim // self.picture_cells**2

    @property
    def turns(self) -> int:
        """Turns of a picture within a quarter.

        A clip that shows a whole turn has four times as many frames; quarters are mirrored
        transposes.
        """
        return max(1, self.num_frames // 4)


class SpatioTemporalTransformer(nn.Module):
    """Denoiser whose tokens are patches of all frames, each attending to all others and the text.

    Noise level, the mean text feature, notes on the subjects, the choices of the noise and the
    place of the frame modulate every layer. Pictures from the text encoder's memory are turned,
    scaled and placed by a layout that is predicted from the same condition. Made into latents and
    weighted by the condition, they are a draft. What noisy latents know beyond it, as far as it can
    be trusted, enters the tokens beside the pictures; the prediction is the draft, that rest, and
    what the layers make of both.

    Reference:
        Peebles and Xie 2022, arXiv:2212.09748 (DiT); Chen et al. 2023, arXiv:2310.00426 (one
        modulation for all layers, each with an offset of its own); Jaderberg et al. 2015,
        arXiv:1506.02025 (spatial transformers); Blattmann et al. 2022, arXiv:2204.11824 (diffusion
        with an external memory); Karras et al. 2022, arXiv:2206.00364, sec. 5 (a skip connection
        scaled by the noise level).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        size, slots = config.width, config.memory_slots
        self.activation = SiLU()
        channels = config.latent_channels
        drafts = DRAFTS * channels if slots else 0
        self.patch_in = nn.Conv2d(channels + drafts, size, PATCH, stride=PATCH)
        self.position_in = nn.Linear(3 * 32, size)
        self.context_in = nn.Linear(config.context_dim, size)
        self.clock_in = nn.Linear(32, size)
        self.time_in = PreciseProjection(64, size)
        self.text_in = PreciseProjection(config.context_dim, size)
        self.choices = self.choices_in = self.notes_in = None
        if config.choices:
            self.choices = ChoiceReader(config.num_frames, config.choices, config.choice_levels)
            self.choices_in = PreciseProjection(config.choices * CHOICE_DIM, size)
        if slots:
            self.notes_in = PreciseProjection(slots * config.context_dim, size)
        self.pictures = Pictures(config) if slots else None
        if slots:
            self.pictures_in = nn.Conv2d(
                slots * PICTURE_CHANNELS, drafts, PIXELS, stride=PIXELS, bias=False
            )
            self.draft = PreciseProjection(size, drafts + channels)
            self.rest = PreciseProjection(size, channels)
            with torch.no_grad():
                for layer in (self.draft, self.rest):
                    layer.weight.mul_(0.1)
                    layer.bias.zero_()
                self.draft.bias[:channels] = 1.0
                self.rest.bias.fill_(1.0)
        self.condition = nn.Sequential(
            PreciseProjection(size, 2 * size), SiLU(), PreciseProjection(2 * size, size)
        )
        self.modulation = Projection(size, 6 * size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(size, elementwise_affine=False)
        self.modulation_out = Projection(size, 2 * size)
        self.patch_out = PreciseProjection(size, PATCH * PATCH * config.latent_channels)
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
        return self.predict(sample, timestep, encoder_hidden_states)[0]

    def predict(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor
    ) -> tuple[Tensor, Layout | None]:
        """Return what `forward` does, and where the pictures of the memory were laid."""
        b, frames, size = timestep.shape[0], self.config.num_frames, self.config.width
        words, codes, notes = self._split(encoder_hidden_states)
        condition = self._condition(sample, timestep, words, notes)
        x, known, layout = sample, None, None
        if self.pictures is not None:
            layout = self.pictures.lay_out(condition)
            points = (PIXELS * sample.shape[2], PIXELS * sample.shape[3])
            drafts = self.pictures_in(self.pictures(codes, layout, points))
            draft = self._weight(drafts, condition)
            rest = self._trusted(sample, timestep, draft)
            known = draft + rest * self.rest(condition).reshape(b * frames, -1, 1, 1)
            x = torch.cat([rest, drafts], dim=1)
        x = self.patch_in(x)
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2).reshape(b, frames * height * width, size)
        x = x + self._positions(height, width, x.device)
        context = self.context_in(words)
        modulation = self.modulation(condition)
        for layer in self.layers:
            x = layer(x, context, modulation)
        scale, shift = self.modulation_out(condition).chunk(2, dim=2)
        x = self.patch_out(_modulate(self.norm_out(x), scale, shift))
        x = x.reshape(b * frames, height, width, -1).permute(0, 3, 1, 2)
        x = F.pixel_shuffle(x, PATCH)
        if known is not None:
            x = x + known
        if self.choices is not None:
            x = without_share(x, frames, self.config.choices)
        return x, layout

    def arrange(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor
    ) -> tuple[Layout, Tensor]:
        """Return what a draft is made by, without its pictures, in next to no time.

        Returns:
            Layout, and the weights of the drafts `(B, F, (DRAFTS + 1) * C)`: of those that the
            pictures give, then what is added where nothing is.
        """
        assert self.pictures is not None
        words, _, notes = self._split(encoder_hidden_states)
        condition = self._condition(sample, timestep, words, notes)
        return self.pictures.lay_out(condition), self.draft(condition)

    def _weight(self, drafts: Tensor, condition: Tensor) -> Tensor:
        """Sum the drafts `(B * F, 4 C, h, w)` to one, on what the condition says lies behind."""
        n, channels = drafts.shape[0], self.config.latent_channels
        weights = self.draft(condition).reshape(n, (DRAFTS + 1) * channels, 1, 1)
        *gains, total = weights.chunk(DRAFTS + 1, dim=1)
        for gain, part in zip(gains, drafts.chunk(DRAFTS, dim=1), strict=True):
            total = total + part * gain
        return total

    def _trusted(self, sample: Tensor, timestep: Tensor, draft: Tensor) -> Tensor:
        """Return what noisy latents `(B * F, C, h, w)` know beyond a draft, as far as trusted."""
        clear, weight = self._by_frame(1.0 - timestep), self._by_frame(trust(timestep))
        return (sample - clear * draft) * weight

    def _by_frame(self, x: Tensor) -> Tensor:
        """Map a number per clip `(B,)` to one per frame `(B * F, 1, 1, 1)`."""
        return x[:, None].expand(-1, self.config.num_frames).reshape(-1, 1, 1, 1)

    def _split(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split the context into words, codes `(B, slots, tokens * D)` and notes `(B, slots * D)`.

        Without a memory the last two are empty.
        """
        b, length, size = context.shape
        slots, tokens = self.config.memory_slots, self.config.memory_tokens
        # A split, unlike slices of a graph's input, is quantised: the input crosses as integers.
        words, found = context.split([length - slots * tokens, slots * tokens], dim=1)
        pictures = found.reshape(b, slots, tokens, size)
        codes = pictures[:, :, :-1].reshape(b, slots, (tokens - 1) * size)
        return words, codes, pictures[:, :, -1].reshape(b, slots * size)

    def _positions(self, height: int, width: int, device: torch.device) -> Tensor:
        """Return embeddings of frame, row and column, `(1, F * H * W, size)`."""
        # Slices, unlike a split, of a weight are folded, and so is all that follows.
        weight = self.position_in.weight
        clock, row, column = weight[:, :32], weight[:, 32:64], weight[:, 64:]
        frames = self.config.num_frames
        times = F.linear(_waves(frames, device), clock)
        rows = F.linear(_waves(height, device), row, self.position_in.bias)
        columns = F.linear(_waves(width, device), column)
        grid = (rows[:, None] + columns[None]).reshape(height * width, -1)
        return (times[:, None] + grid).reshape(1, frames * height * width, -1)

    def _condition(self, sample: Tensor, timestep: Tensor, words: Tensor, notes: Tensor) -> Tensor:
        """Return what modulates the tokens of every frame in every layer, `(B, F, size)`.

        What a prompt says and the place of a frame in time meet here, before any token sees them:
        "left" means something else in every frame.
        """
        x = self.time_in(sinusoid(timestep, 64, max_frequency=12.0)[:, None])  # (B, 1, size)
        x = x + self.text_in(words.mean(dim=1, keepdim=True))
        if self.notes_in is not None:
            x = x + self.notes_in(notes[:, None])
        if self.choices is not None and self.choices_in is not None:
            x = x + self.choices_in(self.choices(sample, timestep)[:, None])
        clock = self.clock_in(_waves(self.config.num_frames, x.device))  # (F, size)
        return self.activation(self.condition(self.activation(x + clock)))


def trust(timestep: Tensor) -> Tensor:
    """Return the best linear weight of what noisy latents say beyond a draft.

    Noise levels are `(B,)`. For `x_t = (1 - t) x_0 + t eps`, where x_0 varies about its draft by
    DOUBT: 0 in pure noise, near 1 where there is next to none.

    Reference:
        Wiener 1949, "Extrapolation, Interpolation, and Smoothing of Stationary Time Series".
    """
    clear = 1.0 - timestep
    return DOUBT * clear / (DOUBT * clear.square() + timestep.square())


def _waves(count: int, device: torch.device) -> Tensor:
    """Return sines and cosines of `count` places in (0, 1), `(count, 32)`."""
    places = (torch.arange(count, device=device) + 0.5) / count
    return sinusoid(places, 32, max_frequency=24.0)


def _modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scale and shift the tokens `(B, N, D)` of every frame by its own `(B, F, D)`."""
    frames = x.reshape(scale.shape[0], scale.shape[1], -1, scale.shape[2])
    return (frames * (1 + scale[:, :, None]) + shift[:, :, None]).reshape(x.shape)


def _gate(x: Tensor, gate: Tensor) -> Tensor:
    """Multiply the tokens `(B, N, D)` of every frame by its own `(B, F, D)`."""
    frames = x.reshape(gate.shape[0], gate.shape[1], -1, gate.shape[2])
    return (frames * gate[:, :, None]).reshape(x.shape)


class Layer(nn.Module):
    """Attention to all tokens and the words, then a feed-forward network, both modulated."""

    IMPLEMENTATIONS: ClassVar[Implementations] = token_attention_on("fused")

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        size, inner = config.width, config.expansion * config.width
        self.heads = config.heads
        self.scale = (size // config.heads) ** -0.5
        self.implementation = "fused"
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
        return TOKEN_ATTENTION_FUNCTIONS[self.implementation](
            self.to_q(x), k, v, self.heads, self.scale
        )
