"""What trains parameters: AdamW, and Muon for matrices where a recipe asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_ADAMW_STATE = ("exp_avg", "exp_avg_sq")
_MUON_STATE = ("momentum_buffer",)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Parameters that one optimiser trains at one rate."""

    names: Sequence[str]
    parameters: Sequence[Tensor]
    """As the optimiser sees them: Muon gets convolutions as matrices that share their memory."""
    factor: float


class Optimizers:
    """Trains named parameters by AdamW, and some of their matrices by Muon.

    A convolution is a matrix of output channels by everything else. What belongs to no matrix
    (biases, normalisations, shares) stays with AdamW.

    Args:
        trained: Name -> parameter.
        learning_rate: Of AdamW.
        weight_decay: Of both.
        rates: Start of names -> factor of the learning rate; 1 for all others.
        matrix_rate: Learning rate of Muon; None trains all by AdamW.
        matrices: Starts of the names whose matrices Muon trains.

    Reference:
        Loshchilov and Hutter 2019, arXiv:1711.05101 (AdamW); Jordan et al. 2024,
        kellerjordan.github.io/posts/muon (Muon).
    """

    def __init__(
        self,
        trained: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
        rates: Mapping[str, float],
        matrix_rate: float | None = None,
        matrices: Sequence[str] = (),
    ) -> None:
        self._trained = trained
        by_muon = {
            name: value
            for name, value in trained.items()
            if matrix_rate is not None and value.dim() >= 2 and name.startswith(tuple(matrices))
        }
        by_adamw = {name: value for name, value in trained.items() if name not in by_muon}
        seen = {name: value.detach().flatten(1) for name, value in by_muon.items()}
        self._views = {name: seen[name] for name in by_muon}
        self._parts: list[tuple[float, torch.optim.Optimizer, list[_Part]]] = []
        if by_adamw:
            parts = _split(by_adamw, rates)
            adamw = torch.optim.AdamW(
                _groups(parts), lr=learning_rate, weight_decay=weight_decay, fused=True
            )
            self._parts.append((learning_rate, adamw, parts))
        if by_muon and matrix_rate is not None:
            parts = _split(seen, rates)
            muon = torch.optim.Muon(_groups(parts), lr=matrix_rate, weight_decay=weight_decay)
            self._parts.append((matrix_rate, muon, parts))

    def step(self, schedule: float) -> None:
        """Change the parameters by their gradients, at `schedule` times the learning rates."""
        for name, view in self._views.items():
            gradient = self._trained[name].grad
            view.grad = None if gradient is None else gradient.flatten(1)
        for rate, optimizer, parts in self._parts:
            for part, group in zip(parts, optimizer.param_groups, strict=True):
                group["lr"] = schedule * rate * part.factor
            optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Return what the optimisers remember, as tensors of the shape of their parameters."""
        tensors: dict[str, Tensor] = {}
        for kind, name, seen, optimizer in self._entries():
            kept = optimizer.state[seen]  # nothing where no gradient has come yet
            value = kept.get(kind, torch.zeros_like(seen))
            tensors[f"{kind}.{name}"] = value.reshape(self._trained[name].shape)
        return tensors

    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Take over what `state` returned after so many steps."""
        for kind, name, seen, optimizer in self._entries():
            kept = optimizer.state[seen]
            value = state[f"{kind}.{name}"].reshape(seen.shape)
            kept[kind] = value.to(seen.device, copy=True)
            if kind in _ADAMW_STATE:
                kept["step"] = torch.tensor(float(step))

    def _entries(self) -> Iterator[tuple[str, str, Tensor, torch.optim.Optimizer]]:
        for _, optimizer, parts in self._parts:
            kinds = _MUON_STATE if isinstance(optimizer, torch.optim.Muon) else _ADAMW_STATE
            for part in parts:
                for name, seen in zip(part.names, part.parameters, strict=True):
                    for kind in kinds:
                        yield kind, name, seen, optimizer


def _split(parameters: Mapping[str, Tensor], rates: Mapping[str, float]) -> list[_Part]:
    """Divide parameters by the factor of their learning rate."""
    groups: dict[float, list[str]] = {}
    for name in parameters:
        factor = next((rate for start, rate in rates.items() if name.startswith(start)), 1.0)
        groups.setdefault(factor, []).append(name)
    return [
        _Part(names=names, parameters=[parameters[name] for name in names], factor=factor)
        for factor, names in groups.items()
    ]


def _groups(parts: Sequence[_Part]) -> list[dict[str, list[Tensor]]]:
    return [{"params": list(part.parameters)} for part in parts]
