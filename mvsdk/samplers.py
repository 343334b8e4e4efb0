"""The samplers, in one table: what the manifest may say of each, and what it needs.

Light: `mvsdk.sampling` has the arithmetic. docs/bundle_format.md, section 6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

SamplerKind = Literal["flow_euler", "flow_consistency", "lcm", "edm_euler", "euler_ancestral"]
PredictionType = Literal["velocity", "sample", "epsilon", "v_prediction"]

SAMPLER_KINDS: tuple[SamplerKind, ...] = get_args(SamplerKind)
PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerTraits:
    """One row of `SAMPLERS`."""

    prediction_types: tuple[PredictionType, ...]
    """What the denoiser may give."""
    max_sigma: float = math.inf
    """Largest noise level: 1 where it is a share of noise."""
    last_zero: bool = True
    """Whether the last of the sigmas is 0. If not, it may also be above."""
    takes_timesteps: bool = False
    takes_noise: bool = False
    """Whether fresh noise is added between steps."""


SAMPLERS: Mapping[SamplerKind, SamplerTraits] = {
    "flow_euler": SamplerTraits(prediction_types=("velocity", "sample"), max_sigma=1.0),
    "flow_consistency": SamplerTraits(
        prediction_types=("velocity", "sample"), max_sigma=1.0, takes_noise=True
    ),
    "lcm": SamplerTraits(
        prediction_types=("epsilon", "v_prediction", "sample"),
        takes_timesteps=True,
        takes_noise=True,
    ),
    "edm_euler": SamplerTraits(
        prediction_types=("v_prediction", "epsilon", "sample"), last_zero=False
    ),
    "euler_ancestral": SamplerTraits(
        prediction_types=("epsilon", "v_prediction", "sample"), last_zero=False, takes_noise=True
    ),
}
"""By the manifest's `kind`."""
