"""Pictures of a memory, decoded from codes and laid over the frames of a clip."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mvsdk_export.layers.blocks import PreciseProjection, SiLU, zero_

if TYPE_CHECKING:
    from mvsdk_export.families.sticker.transformer import TransformerConfig

PICTURE_CHANNELS = 4
"""Of the pictures that the memory is decoded to: colour, weighted by cover, and cover."""


class Layout(NamedTuple):
    """Where pictures lie in each frame."""

    boxes: Tensor
    """(B, F, slots, 4): centre and width across, centre and height down, as fractions of the
    frame; centres from its middle, negative sides mirror."""
    orientations: Tensor
    """(B, F, slots, 2 * turns): logits of the turn, first as it is, then transposed."""


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
        # Modules, as what they make depends on the codes alone, and may run once for a clip.
        self.shuffle = nn.PixelShuffle(self.points_per_cell)
        self.shear = _Shear()
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
        return self.shuffle(x)

    def _turn(self, x: Tensor, shares: Tensor) -> Tensor:
        """Mix the turns of pictures `(N, 4, S, S)` by shares `(N, 2 * turns)`."""
        upright, transposed = x * shares[:, 0, None, None, None], x * shares[:, 1, None, None, None]
        for turn in range(1, self.config.turns):
            turned = self.shear(x, getattr(self, f"shears{turn}"))
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


class _Shear(nn.Module):
    """Turns pictures by three shears."""

    def forward(self, x: Tensor, shears: Tensor) -> Tensor:
        """Turn pictures `(N, C, S, S)` clockwise by shears `(3, S, S, S)`."""
        n, c, size, _ = x.shape
        x = x.reshape(n * c, size, size)
        for axis, shear in zip((1, 2, 1), shears, strict=True):
            lines = x.permute(axis, 0, 3 - axis) @ shear.transpose(1, 2)  # (S, N C, S)
            x = lines.permute(1, 0, 2) if axis == 1 else lines.permute(1, 2, 0)
        return x.reshape(n, c, size, size)


def placing(centre: Tensor, extent: Tensor, source: int, target: int) -> Tensor:
    """Return matrices that place a line of `source` points onto one of `target` points.

    Every source point is spread as a triangle, as wide as the distance of points on that of the two
    lines where they lie further apart; what lies outside the picture gets nothing.

    Distances are small differences of large numbers, of which half precision keeps eleven bits. So
    both numbers are split into a coarse part, of so few bits that the difference is exact, and a
    rest.

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
    coarse_centre, fine_centre = (
        x[:, None] * (target * unit) for x in _coarse_and_rest(centre, 8 * common)
    )
    coarse_extent, fine_extent = (x[:, None] for x in _coarse_and_rest(extent, 8))
    coarse = (places - coarse_centre)[:, :, None] - (coarse_extent * points)[:, None]
    distance = (coarse - (fine_centre + fine_extent * points)[:, None]).abs()
    pitch = extent.abs() * pitch_unit
    reach = pitch.clamp(min=float(unit))
    weights = (1.0 - distance / reach[:, None, None]).clamp(min=0.0)
    return weights * (pitch / reach)[:, None, None]


def _coarse_and_rest(x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
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
