"""The sampler half of a manifest: kind, schedules and fixed conditioning.

Import these names from `mvsdk.manifest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Literal, get_args

from mvsdk._arguments import shown
from mvsdk._parse import STEPS, TENSOR_NAME, Node, fail, listed, to_float32

SamplerKind = Literal["flow_euler", "flow_consistency", "lcm", "edm_euler"]
PredictionType = Literal["velocity", "sample", "epsilon", "v_prediction"]

SAMPLER_KINDS: tuple[SamplerKind, ...] = get_args(SamplerKind)
PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The exact noise levels and network times of one number of steps."""

    sigmas: tuple[float, ...]
    """N + 1 levels, strictly falling, the last 0, also when they are rounded to float32. For the
    kind lcm: sqrt((1 - a) / a) of the cumulative alpha a at each timestep; for the others as the
    sampler integrates them."""
    timesteps: tuple[float, ...]
    """What the graph receives at each of the N steps."""

    @classmethod
    def parse(cls, node: Node, *, steps: int) -> Schedule:
        """Read the schedule of `steps` steps."""
        f = node.fields("sigmas", "timesteps")
        sigmas = tuple(item.number(0.0) for item in f["sigmas"].items(most=1001))
        timesteps = tuple(item.number() for item in f["timesteps"].items(most=1000))
        if len(sigmas) != steps + 1:
            f["sigmas"].fail(f"{steps + 1} values for {steps} steps")
        if len(timesteps) != steps:
            f["timesteps"].fail(f"{steps} values for {steps} steps")
        levels = [to_float32(sigma) for sigma in sigmas]  # what a sampler integrates
        if sigmas[-1] != 0.0 or any(a <= b for a, b in pairwise(levels)):
            fail(
                f["sigmas"].path,
                "not falling strictly to 0 in float32",
                "falling levels and a last 0",
            )
        return cls(sigmas=sigmas, timesteps=timesteps)

    def __repr__(self) -> str:
        """Return the number of steps and the first level in one line."""
        return f"Schedule({len(self.timesteps)} steps, sigmas from {self.sigmas[0]:g} to 0)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How latents become a clip: which integrator, at which noise levels, under what conditions."""

    kind: SamplerKind
    prediction_type: PredictionType
    schedules: Mapping[int, Schedule]
    """By number of steps."""
    default_steps: int
    init_noise_sigma: float = 1.0
    """The sampler starts from normal noise times this."""
    guidance_scale: float = 1.0
    """Folded into the graphs; recorded so that a reader can show it. 1.0: no guidance."""
    conditioning: Mapping[str, tuple[float, ...]] = field(
        default_factory=dict[str, tuple[float, ...]]
    )
    """Constant inputs of the denoiser: name -> values in C order."""

    @classmethod
    def parse(cls, node: Node) -> Sampler:
        """Read the sampler; `default_steps` must be one of the schedules."""
        f = node.fields(*(item.name for item in fields(cls)))
        schedules = {
            int(steps): Schedule.parse(item, steps=int(steps))
            for steps, item in f["schedules"].entries(STEPS, least=1, most=64).items()
        }
        default_steps = f["default_steps"].integer(1, 1000)
        if default_steps not in schedules:
            f["default_steps"].fail(f"one of the schedules: {listed(map(str, sorted(schedules)))}")
        conditioning = f["conditioning"].entries(TENSOR_NAME, most=32)
        return cls(
            kind=f["kind"].choice(SAMPLER_KINDS),
            prediction_type=f["prediction_type"].choice(PREDICTION_TYPES),
            schedules=schedules,
            default_steps=default_steps,
            init_noise_sigma=f["init_noise_sigma"].positive(),
            guidance_scale=f["guidance_scale"].number(0.0, 1000.0),
            conditioning={
                name: tuple(value.number() for value in item.items(least=1, most=65536))
                for name, item in conditioning.items()
            },
        )

    def __repr__(self) -> str:
        """Return kind and numbers of steps in one line."""
        steps = shown(sorted(self.schedules))
        return f"Sampler({self.kind}, {self.prediction_type}, steps {steps})"
