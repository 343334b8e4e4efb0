"""Samplers of a manifest: which integrator, at which noise levels.

docs/bundle_format.md, section 6. Import these names from `mvsdk.manifest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise

from mvsdk._arguments import shown
from mvsdk._json import STEPS, Node, fail, listed, to_float32
from mvsdk.samplers import (
    PREDICTION_TYPES,
    SAMPLER_KINDS,
    SAMPLERS,
    PredictionType,
    SamplerKind,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The exact noise levels and network times of one number of steps."""

    sigmas: tuple[float, ...]
    """N + 1 levels, strictly falling, also when they are rounded to float32. For the kind lcm:
    sqrt((1 - a) / a) of the cumulative alpha a at each timestep; for the others as the sampler
    integrates them. The last is 0, or above it where the kind allows."""
    timesteps: tuple[float, ...]
    """What the graph receives at each of the N steps."""

    @classmethod
    def parse(cls, node: Node, *, steps: int, kind: SamplerKind) -> Schedule:
        """Read the schedule of `steps` steps."""
        f = node.fields("sigmas", "timesteps")
        sigmas = tuple(item.number(0.0) for item in f["sigmas"].items(most=1001))
        timesteps = tuple(item.number() for item in f["timesteps"].items(most=1000))
        if len(sigmas) != steps + 1:
            f["sigmas"].fail(f"{steps + 1} values for {steps} steps", "D12")
        if len(timesteps) != steps:
            f["timesteps"].fail(f"{steps} values for {steps} steps", "D12")
        levels = [to_float32(sigma) for sigma in sigmas]  # what a sampler integrates
        where = f["sigmas"].path
        if any(a <= b for a, b in pairwise(levels)):
            fail(where, "not falling strictly in float32", "falling levels", "S2")
        if sigmas[-1] != 0.0 and SAMPLERS[kind].last_zero:
            fail(where, f"a list that ends with {sigmas[-1]:g}", f"a last 0 for {kind}", "S2")
        if levels[0] > SAMPLERS[kind].max_sigma:
            fail(where, f"a list from {sigmas[0]:g} on", f"at most 1 for {kind}", "S3")
        return cls(sigmas=sigmas, timesteps=timesteps)

    def __repr__(self) -> str:
        """Return the number of steps and the first and last level in one line."""
        ends = f"{self.sigmas[0]:g} to {self.sigmas[-1]:g}"
        return f"Schedule({len(self.timesteps)} steps, sigmas from {ends})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How noise becomes a sample: which integrator, at which noise levels."""

    kind: SamplerKind
    prediction_type: PredictionType
    schedules: Mapping[int, Schedule]
    """By number of steps."""
    default_steps: int
    adjustable: bool = True
    """Whether a caller's number of steps is for this sampler."""
    init_noise_sigma: float = 1.0
    """What the start is multiplied by."""
    guidance_scale: float = 1.0
    """Folded into the graphs; recorded so that a reader can show it. 1.0: no guidance."""

    @classmethod
    def parse(cls, node: Node) -> Sampler:
        """Read the sampler; `default_steps` must be one of the schedules."""
        f = node.fields(*(item.name for item in fields(cls)))
        kind: SamplerKind = f["kind"].choice(SAMPLER_KINDS)
        prediction_type: PredictionType = f["prediction_type"].choice(PREDICTION_TYPES)
        known = SAMPLERS[kind].prediction_types
        if prediction_type not in known:
            f["prediction_type"].fail(f"{' or '.join(known)} for {kind}", "S1")
        schedules = {
            int(steps): Schedule.parse(item, steps=int(steps), kind=kind)
            for steps, item in f["schedules"].entries(STEPS, least=1, most=64).items()
        }
        default_steps = f["default_steps"].integer(1, 1000)
        if default_steps not in schedules:
            numbers = listed(map(str, sorted(schedules)))
            f["default_steps"].fail(f"one of the schedules: {numbers}")
        return cls(
            kind=kind,
            prediction_type=prediction_type,
            schedules=dict(sorted(schedules.items())),
            default_steps=default_steps,
            adjustable=f["adjustable"].boolean(),
            init_noise_sigma=f["init_noise_sigma"].positive(),
            guidance_scale=f["guidance_scale"].number(0.0, 1000.0),
        )

    def __repr__(self) -> str:
        """Return kind and numbers of steps in one line."""
        steps = shown(sorted(self.schedules))
        return f"Sampler({self.kind}, {self.prediction_type}, steps {steps})"
