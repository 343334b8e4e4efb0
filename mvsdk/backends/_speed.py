"""How fast variants are where they run: what `select` goes by where several would run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

from mvsdk.manifest.programs import count_calls

if TYPE_CHECKING:
    from mvsdk.backends import Backend
    from mvsdk.manifest import Format, Manifest, Precision, Program, Variant, VariantKey

Place = Literal["accelerator", "cpu", "unsure", "emulator"]
"""What runs a graph: hardware made for it, the CPU, hardware that may not take it, or software in
place of other hardware, whose results are right and whose times say nothing. In order of
preference."""
PLACES: tuple[Place, ...] = get_args(Place)
SOME_CLIPS = 10
"""Clips that somebody is taken to make who does not say how many."""


@runtime_checkable
class Placing(Protocol):
    """A backend that says where it runs a variant; one that does not is taken to use the CPU."""

    def place(self, variant: Variant) -> Place:
        """Return what runs a variant that can run here. Loads nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a kind is on a CPU, as benchmarks/kinds.py measured it (docs/executorch.md)."""

    start_s: float
    """Processor seconds to import the runtime and load the graphs of a small model, once."""
    relative: float
    """Processor time of a clip as a multiple of that of onnx fp32."""


_PACES: Mapping[tuple[Format, Precision], Pace] = {
    ("executorch", "w8a8"): Pace(start_s=4.05, relative=0.46),
    ("executorch", "fp32"): Pace(start_s=4.05, relative=0.79),
    ("onnx", "fp32"): Pace(start_s=0.65, relative=1.0),
    ("onnx", "fp16"): Pace(start_s=0.75, relative=1.18),
    ("onnx", "w8a16"): Pace(start_s=0.8, relative=1.71),
}
"""ExecuTorch's here are those of XNNPACK; importing its runtime imports PyTorch."""
_FLOPS_PER_S = 96e9
"""What onnx fp32 does in a processor second where the rest was measured. Another machine has other
seconds, but starts faster too where it computes faster."""
_UNKNOWN_S = 1e9
"""For kinds that were not measured: behind those that were."""
_SLOW = 1.5
"""Multiple of the time of onnx fp32 above which a kind is there to check numbers."""


def place_of(backend: Backend, variant: Variant) -> Place:
    """Return what runs a variant on a backend."""
    return backend.place(variant) if isinstance(backend, Placing) else "cpu"


def kinds_for_cpus() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what makes clips on a CPU, the fastest first, and what only checks numbers there."""
    ranked = sorted(_PACES.items(), key=lambda item: item[1].relative)
    fast = tuple(f"{x} {y}" for (x, y), pace in ranked if pace.relative <= _SLOW)
    slow = tuple(f"{x} {y}" for (x, y), pace in ranked if pace.relative > _SLOW)
    return fast, slow


def is_slow(key: VariantKey, place: Place) -> bool:
    """Return whether a kind is for checking numbers where it runs, not for making clips."""
    pace = _PACES.get((key.format, key.precision))
    return place == "emulator" or (place == "cpu" and pace is not None and pace.relative > _SLOW)


def expected_s(key: VariantKey, manifest: Manifest, program: Program, clips: int) -> float:
    """Return how many seconds a set is expected to take on a CPU, to compare it with others.

    Args:
        key: What the denoiser is.
        manifest: Says how much work the graphs are, unless it is silent on that.
        program: Says how often each is called.
        clips: Clips to be made, for all of which the runtime is started once.
    """
    pace = _PACES.get((key.format, key.precision))
    if pace is None or key.delegate not in (None, "xnnpack"):
        return _UNKNOWN_S
    return pace.start_s + clips * pace.relative * clip_flops(manifest, program) / _FLOPS_PER_S


def clip_flops(manifest: Manifest, program: Program) -> float:
    """Return the floating-point operations of a clip of the default steps; 0 if not said."""
    calls = count_calls(program.operations, manifest.samplers)
    return sum(costs.get("flops", 0.0) * calls[name] for name, costs in manifest.costs.items())
