"""Networks of the toys: convolutions, products and tanh, which every target has.

Frames ride in the batch axis. Weights are random, so that what counts is only that all that is
given to a graph moves what it gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 4
"""Of latents."""
KEY_LAYERS = 4
"""Layers of the anchor that give keys and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """Shape of a `Text`."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"L": "max_length", "D": "features"}

    vocabulary_size: int
    max_length: int = 8
    features: int = 16


class Text(nn.Module):
    """Looks tokens up and lets every one see the mean of all."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocabulary_size, config.features)
        self.own = nn.Linear(config.features, config.features)
        self.mean = nn.Linear(config.features, config.features)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map `(1, L)` to `(1, L, D)`."""
        x = self.table(input_ids)
        return torch.tanh(self.own(x) + self.mean(x.mean(dim=1, keepdim=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserConfig:
    """Shape of a denoiser; `scale` is that of a latent to those of the decoder."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"C": "channels", "D": "features"}

    channels: int = CHANNELS
    width: int = 16
    features: int = 16


class Level(nn.Module):
    """Maps one number to features.

    Not a linear layer: a matrix product over one value never ends in the HTP compiler (QNN 2.51).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width))
        self.bias = nn.Parameter(torch.zeros(1, width))

    def forward(self, level: Tensor) -> Tensor:
        """Map `(1,)` to `(1, width)`."""
        return level.reshape(1, 1) * self.weight + self.bias


class _Body(nn.Module):
    """Convolutions moved by an embedding, and a step between neighbouring frames."""

    def __init__(self, taken: int, config: DenoiserConfig) -> None:
        super().__init__()
        width = config.width
        self.conv_in = nn.Conv2d(taken, width, 3, padding=1)
        self.time = Level(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, config.channels, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor, moved: Tensor | None = None) -> Tensor:
        embedding = self.time(timestep)
        if moved is not None:
            embedding = embedding + moved
        x = torch.tanh(self.conv_in(x) + embedding[:, :, None, None])
        x = x + 0.5 * torch.cat([x[:1], x[:-1]])  # a frame looks like the one before
        return self.conv_out(torch.tanh(self.conv(x)))


class Denoiser(nn.Module):
    """Frames, a time and features of words in."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.body = _Body(config.channels, config)
        self.words = nn.Linear(config.features, config.width)

    def forward(self, sample: Tensor, timestep: Tensor, features: Tensor) -> Tensor:
        """Map `(F, C, h, w)` to the same shape."""
        return self.body(sample, timestep, self.words(features.mean(dim=1)))


class SecondStage(nn.Module):
    """Frames, a time and what the first stage made, enlarged, in."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.body = _Body(2 * config.channels, config)

    def forward(self, sample: Tensor, timestep: Tensor, low: Tensor) -> Tensor:
        """Map `(F, C, h, w)` twice to the same shape."""
        return self.body(torch.cat([sample, low], dim=1), timestep)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterpolatorConfig:
    """Shape of an `Interpolator`."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"C": "channels", "N": "window"}

    channels: int = CHANNELS
    width: int = 16
    window: int = 5
    """Frames from one key frame to the next, both counted."""

    def further_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the number of key frames, and the channels of two of them."""
        return {"K": (sizes["F"] - 1) // (self.window - 1) + 1, "G": 2 * self.channels}


class Interpolator(nn.Module):
    """The frames between two key frames: what they are, and where, moves each of them."""

    def __init__(self, config: InterpolatorConfig) -> None:
        super().__init__()
        self.config = config
        sizes = DenoiserConfig(channels=config.channels, width=config.width)
        self.body = _Body(2 * config.channels, sizes)

    def forward(self, sample: Tensor, timestep: Tensor, guide: Tensor, positions: Tensor) -> Tensor:
        """Map `(N, C, h, w)`, key frames `(1, 2 C, h, w)`, places `(N, 1, 1, 1)` to frames."""
        first, last = guide.chunk(2, dim=1)
        between = first + positions * (last - first)
        return self.body(torch.cat([sample, between], dim=1), timestep)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder: a latent is `factor` x `factor` pixels."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"C": "channels"}

    channels: int = CHANNELS
    width: int = 16
    factor: int = 2

    def further_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return sizes of latents, and of those of a first stage."""
        height, width = sizes["H"] // self.factor, sizes["W"] // self.factor
        return {"h": height, "w": width, "h0": height // 2, "w0": width // 2}


class Decoder(nn.Module):
    """Makes frames of latents."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_in = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.conv_out = nn.Conv2d(config.width, 3 * config.factor**2, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map `(f, C, h, w)` to `(f, H, W, 3)` in [0, 1]."""
        return self.pixels(torch.tanh(self.conv_in(latents)))

    def pixels(self, x: Tensor) -> Tensor:
        """Map what is in front of the last layer to frames."""
        frames = F.pixel_shuffle(self.conv_out(x), self.config.factor)
        return torch.clamp(frames * 0.5 + 0.5, 0.0, 1.0).permute(0, 2, 3, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalDecoderConfig:
    """Shape of a `CausalDecoder`."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"C": "channels", "R": "stride", "M": "width"}

    channels: int = CHANNELS
    width: int = 8
    factor: int = 2
    stride: int = 2
    """Frames of a latent. Those of the first are one fewer."""

    def further_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return sizes of latents, and their number."""
        return {
            "h": sizes["H"] // self.factor,
            "w": sizes["W"] // self.factor,
            "T": (sizes["F"] + self.stride - 1) // self.stride,
        }


class CausalDecoder(nn.Module):
    """Makes some frames of each latent in turn, and remembers what it saw."""

    def __init__(self, config: CausalDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_in = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.memory = nn.Conv2d(config.width, config.width, 3, padding=1)
        gives = 3 * config.stride * config.factor**2
        self.conv_out = nn.Conv2d(config.width, gives, 3, padding=1)

    def forward(self, latent: Tensor, last_state: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(1, C, h, w)` and `(1, M, h, w)` to frames `(R, H, W, 3)` and the next state."""
        next_state = torch.tanh(self.conv_in(latent) + self.memory(last_state))
        frames = F.pixel_shuffle(self.conv_out(next_state), self.config.factor)
        height, width = frames.shape[2:]
        frames = frames.reshape(self.config.stride, 3, height, width)
        return torch.clamp(frames * 0.5 + 0.5, 0.0, 1.0).permute(0, 2, 3, 1), next_state


class Encoder(nn.Module):
    """Makes latents of frames."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv = nn.Conv2d(3, config.channels, config.factor, stride=config.factor)

    def forward(self, clip: Tensor) -> Tensor:
        """Map `(F, H, W, 3)` in [0, 1] to `(F, C, h, w)`."""
        return self.conv(clip.permute(0, 3, 1, 2) * 2.0 - 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditorConfig:
    """Shape of an `Anchor` and a `Frames`, which are two graphs of one network's weights."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {
        "C": "channels",
        "D": "features",
        "B": "chunk",
        "M": "width",
    }

    channels: int = CHANNELS
    width: int = 16
    features: int = 16
    chunk: int = 2
    """Frames that are edited at once, after the first."""

    def further_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the number of places of a frame, which each have a key and a value."""
        return {"P": sizes["h"] * sizes["w"]}


class Editor(nn.Module):
    """Layers of attention in which every frame looks at one of them, the anchor.

    It gives three estimates: by words and picture, by the picture alone, and by neither.
    """

    def __init__(self, config: EditorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv_in = nn.Conv2d(2 * config.channels, width, 3, padding=1)
        self.time = Level(width)
        self.words = nn.Linear(config.features, width)
        self.queries = nn.ModuleList(nn.Linear(width, width) for _ in range(KEY_LAYERS))
        self.keys = nn.ModuleList(nn.Linear(width, width) for _ in range(KEY_LAYERS))
        self.values = nn.ModuleList(nn.Linear(width, width) for _ in range(KEY_LAYERS))
        self.by_words = nn.Conv2d(width, config.channels, 3, padding=1)
        self.by_picture = nn.Conv2d(width, config.channels, 3, padding=1)
        self.by_nothing = nn.Conv2d(width, config.channels, 3, padding=1)

    def embed(self, sample: Tensor, picture: Tensor, timestep: Tensor, words: Tensor) -> Tensor:
        """Return what the layers work on: `(F, h w, M)`."""
        moved = self.time(timestep) + self.words(words.mean(dim=1))
        x = torch.tanh(self.conv_in(torch.cat([sample, picture], dim=1)) + moved[:, :, None, None])
        return x.flatten(2).transpose(1, 2)

    def attend(self, x: Tensor, layer: int, keys: Tensor, values: Tensor) -> Tensor:
        """Add what the anchor's values are at each place."""
        logits = self.queries[layer](x) @ keys.transpose(1, 2) * keys.shape[2] ** -0.5
        return x + torch.tanh(logits.softmax(dim=-1) @ values)

    def estimate(self, x: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three estimates, each of the shape of `like`."""
        count, _, height, width = like.shape
        x = x.transpose(1, 2).reshape(count, -1, height, width)
        return self.by_words(x), self.by_picture(x), self.by_nothing(x)


class Anchor(nn.Module):
    """The first frame, and the keys and values of every layer."""

    def __init__(self, editor: Editor) -> None:
        super().__init__()
        self.editor = editor

    def forward(
        self, sample: Tensor, picture: Tensor, timestep: Tensor, features: Tensor
    ) -> tuple[Tensor, ...]:
        """Return three estimates, then key and value of each layer in turn, `(1, h w, M)`."""
        x = self.editor.embed(sample, picture, timestep, features)
        crossing: list[Tensor] = []
        for layer in range(KEY_LAYERS):
            keys, values = self.editor.keys[layer](x), self.editor.values[layer](x)
            x = self.editor.attend(x, layer, keys, values)
            crossing += [keys, values]
        return (*self.editor.estimate(x, sample), *crossing)


class Frames(nn.Module):
    """Some further frames, which look at the anchor's keys and values."""

    def __init__(self, editor: Editor) -> None:
        super().__init__()
        self.editor = editor

    def forward(
        self,
        sample: Tensor,
        picture: Tensor,
        timestep: Tensor,
        features: Tensor,
        key_0: Tensor,
        value_0: Tensor,
        key_1: Tensor,
        value_1: Tensor,
        key_2: Tensor,
        value_2: Tensor,
        key_3: Tensor,
        value_3: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return three estimates."""
        x = self.editor.embed(sample, picture, timestep, features)
        crossing = [(key_0, value_0), (key_1, value_1), (key_2, value_2), (key_3, value_3)]
        for layer, (keys, values) in enumerate(crossing):
            x = self.editor.attend(x, layer, keys, values)
        return self.editor.estimate(x, sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnlargerConfig:
    """Shape of an `Enlarger`."""

    width: int = 16
    factor: int = 2

    def further_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the sides of what is enlarged."""
        return {"h": sizes["H"] // self.factor, "w": sizes["W"] // self.factor}


class Enlarger(nn.Module):
    """Makes frames of smaller ones and a level of noise, without a sampler."""

    def __init__(self, config: EnlargerConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_in = nn.Conv2d(3, config.width, 3, padding=1)
        self.level = Level(config.width)
        self.conv_out = nn.Conv2d(config.width, 3 * config.factor**2, 3, padding=1)

    def forward(self, clip: Tensor, noise_level: Tensor) -> Tensor:
        """Map `(f, h, w, 3)` to `(f, H, W, 3)`, both in [0, 1]."""
        low = clip.permute(0, 3, 1, 2)
        level = self.level(noise_level)[:, :, None, None]
        detail = self.conv_out(torch.tanh(self.conv_in(low * 2.0 - 1.0) + level))
        frames = F.interpolate(low, scale_factor=float(self.config.factor))
        frames = frames + 0.2 * F.pixel_shuffle(detail, self.config.factor)
        return torch.clamp(frames, 0.0, 1.0).permute(0, 2, 3, 1)
