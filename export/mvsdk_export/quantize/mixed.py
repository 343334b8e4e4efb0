"""Mixed precision of weights: which weight gets how many bits, measured on recorded calls.

Most weights of a denoiser bear four or six bits; a few decide what a clip looks like and need more.
Which ones is measured, for all weights and all their schemes at once: a compressed weight is off
by d, and to first order the output is off by J d. For a random v of unit variance the mean of
(v^T J d)^2 is |J d|^2, and the gradient of v^T output by the weight is J^T v. So every backward
pass is one sample of every weight's share in the error of the output. Several outputs are one, each
in units of what it is.

Reference:
    Hutchinson 1990, doi:10.1080/03610919008812866 (random probes of quadratic forms); Dong et al.
    2019, arXiv:1905.03696 (bit widths by sensitivity).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk_export.errors import CompressionError
from mvsdk_export.jobs.progress import counted, counting
from mvsdk_export.quantize.activations import Feed
from mvsdk_export.quantize.weights import FLOAT16, Compressed, WeightScheme, compress

PROBES = 2
"""Random vectors for each recorded call."""
CALLS = 32
"""Recorded calls that are looked at, spread over all of them. Some weights matter to few clips: of
the default model's, those that spin a subject."""
GROUP_ELEMENTS = 1 << 25
"""Weights whose errors and gradients are held at once; each group is a pass of its own."""
_ROUNDS = 8
"""Assignments that are measured at most."""
_CLOSE_DB = 1.0
"""What may be left over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What every weight is stored as."""

    schemes: Mapping[str, WeightScheme]
    """Name of a weight -> how it is stored."""
    weights: Mapping[str, Compressed]
    """Those that are not float16, compressed."""
    sqnr_db: float
    """Measured: the worst of the looked-at calls, in float32 with these weights."""
    bits: float
    """Stored bits of a weight, the mean over all that could be compressed."""

    def summary(self) -> dict[str, Any]:
        """Return what reports say: bits, measured dB, and how many weights have each scheme.

        Empty if there was no weight to choose for.
        """
        if not self.schemes:
            return {}
        counts = Counter(str(scheme) for scheme in self.schemes.values())
        return {
            "bits": round(self.bits, 3),
            "sqnr_db": round(self.sqnr_db, 2),
            "schemes": dict(sorted(counts.items())),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    scheme: WeightScheme
    compressed: Compressed | None
    """None for float16."""
    stored_bytes: int
    noise: float
    """Its share of the error: mean of |J d|^2 / |output|^2 over the calls."""


def assign(
    module: nn.Module,
    candidates: Mapping[str, Sequence[WeightScheme]],
    feeds: Sequence[Feed],
    *,
    target_db: float,
) -> Assignment:
    """Give each weight the fewest bits with which the output stays as near as wanted.

    All begin with their first scheme. While the predicted error is too large, the weight whose next
    scheme saves most error per byte gets it. Then the result is measured, and the aim is moved by
    what is missing or left over.

    Args:
        module: Network that takes its inputs by position, in the order of a feed. Its weights are
            as they were afterwards.
        candidates: Name of a parameter or buffer -> its schemes, the smallest first.
        feeds: Inputs of recorded calls.
        target_db: SQNR that each output shall have on the looked-at calls.

    Raises:
        CompressionError: If there is nothing to measure on.
    """
    if not feeds:
        raise CompressionError("no recorded calls to measure on; export with calibration prompts")
    if not candidates:
        return Assignment(schemes={}, weights={}, sqnr_db=math.inf, bits=16.0)
    weights = dict(module.state_dict(keep_vars=True))
    chosen = spread(feeds)
    rows = {
        name: _candidates(name, weights[name], candidates[name])
        for name in counted(list(candidates), "weights")
    }
    noise = _measure_noise(module, {name: weights[name] for name in rows}, rows, chosen)
    ladders = {name: _ladder(row, noise[name]) for name, row in rows.items()}
    references = [run_feed(module, feed) for feed in chosen]

    def try_aim(aim: float) -> Assignment:
        picked = _pick(ladders, aim)
        return Assignment(
            schemes={name: item.scheme for name, item in picked.items()},
            weights={n: x.compressed for n, x in picked.items() if x.compressed is not None},
            sqnr_db=_measure(module, weights, picked, chosen, references),
            bits=8
            * sum(x.stored_bytes for x in picked.values())
            / max(1, sum(weights[name].numel() for name in picked)),
        )

    return search(try_aim, target_db)


class Tried(Protocol):
    """What was tried in a search."""

    @property
    def sqnr_db(self) -> float:
        """Measured parity."""
        ...

    @property
    def bits(self) -> float:
        """Mean width of the weights."""
        ...


T = TypeVar("T", bound=Tried)


def search(try_aim: Callable[[float], T], target_db: float, rounds: int = _ROUNDS) -> T:
    """Return what has the fewest bits and keeps the wanted parity, or comes nearest to it.

    The predicted parity is that of the mean call and to first order, the measured one of the worst:
    the aim moves by what is missing or left over.
    """
    aim: float = target_db
    tried: list[T] = []
    for _ in counted(range(rounds), "trials at most"):
        found = try_aim(aim)
        tried.append(found)
        over = found.sqnr_db - target_db
        if 0 <= over < _CLOSE_DB:
            break
        aim -= over + math.copysign(_CLOSE_DB / 2, over) if over < 0 else 0.7 * over
    good = [x for x in tried if x.sqnr_db >= target_db]
    if good:
        return min(good, key=lambda x: x.bits)
    return max(tried, key=lambda x: x.sqnr_db)


def _candidates(
    name: str, weight: Tensor, schemes: Sequence[WeightScheme]
) -> list[tuple[WeightScheme, Compressed | None]]:
    values = weight.detach().numpy()
    return [(x, None if x == FLOAT16 else compress(name, values, x)) for x in schemes]


def _measure_noise(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    rows: Mapping[str, Sequence[tuple[WeightScheme, Compressed | None]]],
    feeds: Sequence[Feed],
) -> dict[str, list[float]]:
    """Return each weight's share of the error, in the order of its schemes."""
    found: dict[str, list[float]] = {}
    groups = _groups(weights)
    count = counting(len(groups) * len(feeds), "measured calls")
    for names in groups:
        group = {name: weights[name] for name in names}
        tried = {name: rows[name] for name in names}
        found |= _measure_group(module, group, tried, feeds, count)
    return found


def _groups(weights: Mapping[str, Tensor]) -> list[list[str]]:
    """Part weights so that errors and gradients of one group are all that is held at a time."""
    groups: list[list[str]] = [[]]
    held = 0
    for name, weight in weights.items():
        if groups[-1] and held + weight.numel() > GROUP_ELEMENTS:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += weight.numel()
    return groups


def _measure_group(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    rows: Mapping[str, Sequence[tuple[WeightScheme, Compressed | None]]],
    feeds: Sequence[Feed],
    count: Callable[[], None],
) -> dict[str, list[float]]:
    errors = {name: _errors(weights[name], rows[name]) for name in weights}
    total = {name: np.zeros(len(row)) for name, row in rows.items()}
    generator = torch.Generator().manual_seed(0)
    for weight in weights.values():
        weight.requires_grad_(True)
    with torch.enable_grad():
        for feed in feeds:
            outputs = outputs_of(module(*tensors_of(feed)))
            for probe in range(PROBES):
                gradients = torch.autograd.grad(
                    probe_of(outputs, generator),
                    list(weights.values()),
                    retain_graph=probe + 1 < PROBES,
                    allow_unused=True,
                )
                for name, gradient in zip(weights, gradients, strict=True):
                    if gradient is not None:
                        total[name] += _shares(errors[name], gradient)
            count()
    for weight in weights.values():
        weight.requires_grad_(False)
    return {name: list(found / (len(feeds) * PROBES)) for name, found in total.items()}


def _errors(
    weight: Tensor, row: Sequence[tuple[WeightScheme, Compressed | None]]
) -> list[Tensor | None]:
    """Return what each scheme adds to a weight, flat; None for nothing worth a mention."""
    return [
        None
        if compressed is None
        else (torch.from_numpy(compressed.dense.astype(np.float32)) - weight.detach()).flatten()
        for _, compressed in row
    ]


def _shares(errors: Sequence[Tensor | None], gradient: Tensor) -> NDArray[np.float64]:
    """Return the square of what each scheme does to one probe of the outputs."""
    flat = gradient.flatten()
    return np.array(
        [0.0 if error is None else float(torch.dot(error, flat)) ** 2 for error in errors]
    )


def _ladder(
    row: Sequence[tuple[WeightScheme, Compressed | None]], noise: Sequence[float]
) -> list[_Candidate]:
    """Return the schemes of a weight that are worth their bytes, rising in bytes."""
    found: list[_Candidate] = []
    for (scheme, compressed), share in zip(row, noise, strict=True):
        if compressed is None:
            size = 2 * math.prod(next(c for _, c in row if c is not None).dense.shape)
        else:
            size = compressed.stored_bytes
        item = _Candidate(scheme=scheme, compressed=compressed, stored_bytes=size, noise=share)
        while found and found[-1].stored_bytes >= item.stored_bytes:
            found.pop()  # a small weight's palettes may take more than the weight
        if not found or item.noise < found[-1].noise:
            found.append(item)
    return found


def _pick(ladders: Mapping[str, Sequence[_Candidate]], target_db: float) -> dict[str, _Candidate]:
    """Climb the ladders until the sum of the shares is small enough."""
    places = dict.fromkeys(ladders, 0)
    allowed = 10 ** (-target_db / 10)
    total = sum(row[0].noise for row in ladders.values())
    while total > allowed and (steps := list(_steps(ladders, places))):
        _, name, place = max(steps)
        total -= ladders[name][places[name]].noise - ladders[name][place].noise
        places[name] = place
    return {name: ladders[name][place] for name, place in places.items()}


def _steps(
    ladders: Mapping[str, Sequence[_Candidate]], places: Mapping[str, int]
) -> Iterator[tuple[float, str, int]]:
    """Yield for each weight its best further step: error saved per byte, name, place."""
    for name, row in ladders.items():
        here = row[places[name]]
        further = [
            ((here.noise - row[i].noise) / (row[i].stored_bytes - here.stored_bytes), name, i)
            for i in range(places[name] + 1, len(row))
        ]
        if further:
            yield max(further)


def _measure(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    picked: Mapping[str, _Candidate],
    feeds: Sequence[Feed],
    references: Sequence[Sequence[Tensor]],
) -> float:
    """Return the worst SQNR of the calls with the picked weights in place, then restore them."""
    kept = {name: weights[name].detach().clone() for name in picked}
    with torch.no_grad():
        for name, item in picked.items():
            if item.compressed is not None:
                weights[name].copy_(torch.from_numpy(item.compressed.dense.astype(np.float32)))
        try:
            values = [
                worst_db(run_feed(module, feed), reference)
                for feed, reference in zip(feeds, references, strict=True)
            ]
        finally:
            for name, value in kept.items():
                weights[name].copy_(value)
    return min(values)


def run_feed(module: nn.Module, feed: Feed) -> list[Tensor]:
    """Run a network on a recorded call; return what it gives, in order."""
    with torch.no_grad():
        return outputs_of(module(*tensors_of(feed)))


def outputs_of(given: Any) -> list[Tensor]:
    """Return what a network gave, which may be one tensor, as a list."""
    if isinstance(given, Tensor):
        return [given]
    return [tensor for item in given for tensor in outputs_of(item)]


def probe_of(outputs: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Return one probe of the outputs: their sum with random signs, each in units of its norm.

    The mean square of what errors change of it is the sum of |error|^2 / |output|^2.
    """
    total = torch.zeros(())
    for output in outputs:
        norm = math.sqrt(max(float(output.detach().double().square().sum()), 1e-30))
        sign = torch.randint(0, 2, output.shape, generator=generator) * 2.0 - 1.0
        total = total + (output * sign).sum() / norm
    return total


def spread(feeds: Sequence[Feed], count: int = CALLS) -> list[Feed]:
    """Return some of the recorded calls, spread over all."""
    places = sorted({int(x) for x in np.linspace(0, len(feeds) - 1, count)})
    return [feeds[place] for place in places]


def tensors_of(feed: Feed) -> list[Tensor]:
    """Return the inputs of a recorded call, in order."""
    return [torch.from_numpy(np.array(value)) for value in feed.values()]


def worst_db(outputs: Sequence[Tensor], references: Sequence[Tensor]) -> float:
    """Return the least signal to noise ratio of the outputs of a call in dB."""
    return min(map(sqnr_db, outputs, references))


def sqnr_db(output: Tensor, reference: Tensor) -> float:
    """Return the signal to noise ratio of an output in dB."""
    signal = float(reference.double().square().sum())
    noise = float((output.double() - reference.double()).square().sum())
    # Of equal ones it has no finite value; what is searched by it wants one.
    return 10 * math.log10(max(signal, 1e-300) / max(noise, signal * 1e-15, 1e-300))
