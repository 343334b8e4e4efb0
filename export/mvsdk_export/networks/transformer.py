"""A spatio-temporal diffusion transformer that denoises the latents of one clip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.networks.blocks import (
    PreciseProjection,
    Projection,
    SiLU,
    sinusoid,
    zero_,
)
from mvsdk_export.networks.vae import PATCH as PIXELS

CHOICE_DIM = 16
"""Sines and cosines that show one choice."""

PATCH = 2
"""Latent positions per token, along both sides."""

PICTURE_CHANNELS = 4
"""Of the pictures that the memory is decoded to: colour, weighted by cover, and cover."""

DRAFTS = 4
"""Latents made of the pictures: of their colour, and of their cover in red, green and blue, which
the colour of what they stand on weights."""

DOUBT = 0.02
"""Variance of clips about their drafts, by which noisy latents are trusted (`trust`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Shape of a `SpatioTemporalTransformer`."""

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


class Layout(NamedTuple):
    """Where pictures lie in each frame."""

    boxes: Tensor
    """(B, F, slots, 4): centre and width across, centre and height down, as fractions of the
    frame; centres from its middle, negative sides mirror."""
    orientations: Tensor
    """(B, F, slots, 2 * turns): logits of the turn, first as it is, then transposed."""


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
            self.choices = ChoiceReader(config)
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
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
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
        return (x if self.choices is None else self.choices.without_share(x)), layout

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


class ChoiceReader(nn.Module):
    """Reads what the noise decides: the weights of fixed patterns in it.

    A pattern is one latent channel whose sign alternates from frame to frame and from place to
    place. Clean latents are kept without a share in it, which nobody sees (68 dB), so that noisy
    ones decide at every level what the noise did: a share of ordinary clips, 0.3 standard
    deviations, would weigh three times as much at t = 0.25 and let clips drift from step to step.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Map noisy latents `(B * F, C, h, w)` to features `(B, choices * CHOICE_DIM)`.

        The weight of a pattern in pure noise is standard normal, and tanh(0.8 z) / 2 + 1 / 2 is
        within 0.02 of the probability integral, which makes it uniform in (0, 1).
        """
        k, frames = self.config.choices, self.config.num_frames
        h, w = sample.shape[2:]
        signs = choice_signs(frames, h, w, sample.device)
        # A split, unlike slices of a graph's input, is quantised: the input crosses as integers.
        _, last = sample.split([sample.shape[1] - k, k], dim=1)
        shares = (last * signs[:, None].repeat(timestep.shape[0], 1, 1, 1)).mean(dim=(2, 3))
        weights = shares.reshape(-1, frames, k).mean(dim=1) * (frames * h * w) ** 0.5
        uniform = torch.tanh(weights / timestep[:, None] * 0.8) * 0.5 + 0.5
        waves = sinusoid(uniform.reshape(-1), CHOICE_DIM, max_frequency=24.0)
        return waves.reshape(-1, k * CHOICE_DIM)

    def without_share(self, x: Tensor) -> Tensor:
        """Return clean latents `(B * F, C, h, w)` without their share in the patterns."""
        return without_share(x, self.config.num_frames, self.config.choices)


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


class Pictures(nn.Module):
    """Decodes the codes of the memory to animated pictures and lays them over the frames.

    The way from a picture to a frame is a turn, a transpose or none, and one resampling along each
    side, all of them matrix products: what an affine grid sampler does, without its gather.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        slots, frames = config.memory_slots, config.num_frames
        self.points_per_cell = config.picture_size // config.picture_cells
        outputs = frames * PICTURE_CHANNELS * self.points_per_cell**2
        self.decode = _Decoder(config.code_size, config.picture_width, outputs)
        self.layout_in = PreciseProjection(config.width, config.width)
        self.activation = SiLU()
        self.layout = PreciseProjection(config.width, slots * (4 + 2 * config.turns))
        with torch.no_grad():
            self.layout.weight.mul_(0.1)
            bias = torch.tensor([0.0, 0.7, 0.0, 0.7, *[0.0] * (2 * config.turns)])
            self.layout.bias.copy_(bias.repeat(slots))
        _make_shears_(self)
        self.register_load_state_dict_post_hook(_fill_shears_)

    def lay_out(self, condition: Tensor) -> Layout:
        """Predict where the pictures lie from the condition `(B, F, size)`."""
        slots = self.config.memory_slots
        found = self.layout(self.activation(self.layout_in(condition)))
        found = found.reshape(*condition.shape[:2], slots, -1)
        return Layout(boxes=found[..., :4], orientations=found[..., 4:])

    def forward(self, codes: Tensor, layout: Layout, points: tuple[int, ...]) -> Tensor:
        """Map codes `(B, slots, cells * d)` to pictures in place `(B * F, slots * 4, *points)`."""
        slots = self.config.memory_slots
        placed: list[Tensor] = []
        for slot in range(slots):
            picture = self._turn(
                self.decode_codes(codes[:, slot]),
                layout.orientations[:, :, slot].flatten(0, 1).softmax(dim=-1),
            )
            boxes = layout.boxes[:, :, slot].flatten(0, 1)  # (B F, 4)
            size = self.config.picture_size
            columns = placing(boxes[:, 0], boxes[:, 1], size, points[1])
            rows = placing(boxes[:, 2], boxes[:, 3], size, points[0])
            # Channels are a batch, not rows of one product: onnxscript 0.7.2 takes away reshapes
            # around a product where shapes fit without them, whatever their numbers mean, and with
            # as many frames as channels it would multiply channels by matrices of frames.
            # The HTP keeps 16 bits of the first operand, which pictures are, and 8 of the second.
            across = picture @ columns.transpose(1, 2)[:, None]
            down = across.transpose(2, 3) @ rows.transpose(1, 2)[:, None]
            placed.append(down.transpose(2, 3))
        return torch.cat(placed, dim=1)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Map codes `(B, cells * d)` to pictures `(B * F, 4, S, S)`."""
        cells, k = self.config.picture_cells, self.points_per_cell
        b, frames = codes.shape[0], self.config.num_frames
        x = self.decode(codes.reshape(b, cells, cells, -1).permute(0, 3, 1, 2))
        x = x.reshape(b * frames, PICTURE_CHANNELS * k * k, cells, cells)
        return F.pixel_shuffle(x, k)

    def _turn(self, x: Tensor, shares: Tensor) -> Tensor:
        """Mix the turns of pictures `(N, 4, S, S)` by shares `(N, 2 * turns)`."""
        upright, transposed = x * shares[:, 0, None, None, None], x * shares[:, 1, None, None, None]
        for turn in range(1, self.config.turns):
            turned = _shear(x, getattr(self, f"shears{turn}"))
            upright = upright + turned * shares[:, 2 * turn, None, None, None]
            transposed = transposed + turned * shares[:, 2 * turn + 1, None, None, None]
        return upright + transposed.transpose(2, 3)


class _Decoder(nn.Module):
    """Decodes grids of codes: a linear part that principal components fill, and what it misses."""

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv_mid = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = zero_(nn.Conv2d(width, out_channels, 1))
        self.activation = SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, h, w)` to `(B, out_channels, h, w)`."""
        rest = self.activation(self.conv_in(x))
        rest = rest + self.activation(self.conv_mid(rest))
        return self.linear(x) + self.conv_out(rest)


def placing(centre: Tensor, extent: Tensor, source: int, target: int) -> Tensor:
    """Return matrices that place a line of `source` points onto one of `target` points.

    Every source point is spread as a triangle, as wide as the distance of points on that of the two
    lines where they lie further apart; what lies outside the picture gets nothing.

    Distances are small differences of large numbers, of which half precision keeps eleven bits: as
    they stand, matrices would be right to 43 dB. So both numbers are split into a coarse part, of
    so few bits that the difference is exact, and a rest: 67 dB.

    Args:
        centre: Centre of the picture from the middle of the target line, whose length is 1, `(N,)`.
        extent: Length of the picture, `(N,)`; negative mirrors it.
        source: Points of the picture.
        target: Points of the line.

    Returns:
        `(N, target, source)`.
    """
    device, common = centre.device, math.gcd(source, target)
    unit, pitch_unit = source // common, target // common  # whole numbers for every point
    points = (torch.arange(source, device=device) - (source - 1) / 2) * pitch_unit
    places = (torch.arange(target, device=device) - (target - 1) / 2) * unit
    coarse_centre, fine_centre = (x[:, None] * (target * unit) for x in _split(centre, 8 * common))
    coarse_extent, fine_extent = (x[:, None] for x in _split(extent, 8))
    coarse = (places - coarse_centre)[:, :, None] - (coarse_extent * points)[:, None]
    distance = (coarse - (fine_centre + fine_extent * points)[:, None]).abs()
    pitch = extent.abs() * pitch_unit
    reach = pitch.clamp(min=float(unit))
    weights = (1.0 - distance / reach[:, None, None]).clamp(min=0.0)
    return weights * (pitch / reach)[:, None, None]


def _split(x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return the nearest multiple of 1 / steps, and the rest."""
    coarse = torch.round(x * steps) / steps
    return coarse, x - coarse


def _make_shears_(pictures: Pictures) -> None:
    """Compute what turns the pictures: buffers beside the weights, in no file."""
    config = pictures.config
    for turn in range(1, config.turns):
        shears = _shears(config.picture_size, turn * math.pi / 2 / config.turns)
        pictures.register_buffer(f"shears{turn}", shears, persistent=False)


def _fill_shears_(pictures: Pictures, _keys: object) -> None:
    """Compute the buffers of a network that was built on the meta device and now has weights."""
    if any(shears.is_meta for shears in pictures.buffers(recurse=False)):
        _make_shears_(pictures)


def _shears(size: int, angle: float) -> Tensor:
    """Return the matrices of the three shears that turn a picture, `(3, size, size, size)`.

    The first index is the shear (along rows, along columns, along rows), the second the row or the
    column, which the last two map to its shifted self.

    Reference:
        Paeth 1986, "A Fast Algorithm for General Raster Rotation".
    """
    places = torch.arange(size) - (size - 1) / 2
    slopes = (math.tan(angle / 2), -math.sin(angle), math.tan(angle / 2))
    shifted = torch.stack([places[None, :] + slope * places[:, None] for slope in slopes])
    # A clockwise turn: what comes to a place lay against the clock of it.
    return (1.0 - (shifted[:, :, :, None] - places).abs()).clamp(min=0.0)


def _shear(x: Tensor, shears: Tensor) -> Tensor:
    """Turn pictures `(N, C, S, S)` clockwise by shears `(3, S, S, S)`."""
    n, c, size, _ = x.shape
    x = x.reshape(n * c, size, size)
    for axis, shear in zip((1, 2, 1), shears, strict=True):
        lines = x.permute(axis, 0, 3 - axis) @ shear.transpose(1, 2)  # (S, N C, S)
        x = lines.permute(1, 0, 2) if axis == 1 else lines.permute(1, 2, 0)
    return x.reshape(n, c, size, size)


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


class _Layer(nn.Module):
    """Attention to all tokens and the words, then a feed-forward network, both modulated."""

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
