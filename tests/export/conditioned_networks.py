"""Denoisers of a few lines, each with another way from its conditioning to its result."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvsdk_export.planning.data_flow import MAX_TENSORS

WIDTH = 8


class Denoiser(nn.Module):
    """Layers for networks of a few lines; those that a network does not call are no matter."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.repeat = Repeat()
        self.pair = Pair()

    def attend(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return (self.to_q(x) @ keys.transpose(1, 2)).softmax(dim=-1) @ values


class Repeat(nn.Module):
    """Computes nothing, and gives more than it takes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(1, 4, 1)


class Pair(nn.Module):
    """A module that holds others, and gives one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class CrossAttends(Denoiser):
    """Attends to the conditioning alone."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        context = self.norm(context)
        return self.attend(sample + timestep, self.to_k(context), self.to_v(context))


class MixesFirst(Denoiser):
    """Lets noise and conditioning meet before any layer."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        x = torch.cat([sample, context], dim=1) * timestep
        return self.attend(x, self.to_k(x), self.to_v(x))[:, : sample.shape[1]]


class UsesBoth(Denoiser):
    """Reads the conditioning by a layer, and beside the noise."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        values = context * timestep
        return self.attend(sample, self.to_k(context), self.to_v(values))


class CallsTwice(Denoiser):
    """One call of `to_k` depends on the conditioning alone, the other does not."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        own = self.to_k(sample * timestep)
        keys = torch.cat([own, self.to_k(context)], dim=1)
        return self.attend(sample, keys, keys)


class CallsTwiceAlike(Denoiser):
    """Both calls of `to_k` depend on the conditioning alone."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        return self.attend(sample * timestep, self.to_k(context), self.to_k(context.flip(1)))


class Guides(Denoiser):
    """Runs twice: with the conditioning, and with nothing in its place."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        def evaluate(context: Tensor) -> Tensor:
            return self.attend(sample * timestep, self.to_k(context), self.to_v(context))

        without = evaluate(torch.zeros_like(context))
        return without + 3.0 * (evaluate(context) - without)


class Repeats(Denoiser):
    """Attends to keys that are repeated."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        keys = self.repeat(self.to_k(context))
        return self.attend(sample * timestep, keys, keys)


class Nests(Denoiser):
    """Attends to what a module of two layers gives."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        return self.attend(sample * timestep, self.pair(context), self.to_v(context))


class SharesInside(Denoiser):
    """A module that runs inside of another that crosses, and by itself."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        return self.attend(sample * timestep, self.pair(context), self.pair.first(context))


class ChangesInPlace(Denoiser):
    """Changes what depends on the conditioning alone."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        keys = self.to_k(context)
        keys += 1.0
        return self.attend(sample * timestep, keys, keys)


class TakesApart(Denoiser):
    """Reads the weight of a module that it also calls."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        values = self.to_k(context)
        return self.attend((sample * timestep) @ self.to_k.weight, values, values)


class Many(nn.Module):
    """More layers than a component has tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(MAX_TENSORS + 8))
        self.last = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        for layer in self.layers:
            sample = sample * timestep + layer(context)
        return torch.cat([sample, self.last(context)], dim=2)
