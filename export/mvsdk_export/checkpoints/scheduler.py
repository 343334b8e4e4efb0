"""scheduler_config.json: how a denoiser was trained to be sampled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from mvsdk.manifest import PredictionType, SamplerKind
from mvsdk.sampling import SAMPLERS
from mvsdk_export.checkpoints.documents import read_document

KINDS: tuple[SamplerKind, ...] = ("flow_euler", "flow_consistency")
"""Samplers whose schedules follow from the fields below; the others need noise tables as well."""

MIN_SHIFT = 1e-3
"""Below, the levels of a schedule of a thousand steps are no longer told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """Sampler, parameterisation and noise levels of a rectified-flow denoiser."""

    kind: SamplerKind
    prediction_type: PredictionType
    shift: float = 1.0
    """Shift of the noise levels towards 1, as in `mvsdk.schedules.flow_sigmas`."""
    num_train_timesteps: int = 1
    """The graph receives sigma times this."""

    def to_document(self) -> dict[str, object]:
        """Return what is written to scheduler_config.json."""
        return asdict(self)


def read_scheduler(path: Path) -> Scheduler:
    """Read scheduler_config.json.

    Raises:
        CheckpointError: If it is no such file, or of an unknown kind.
    """
    document = read_document(path)
    document.choice("kind", KINDS)  # first: another kind has other keys
    document.check_keys(("kind", "prediction_type", "shift", "num_train_timesteps"))
    kind = cast("SamplerKind", document.choice("kind", KINDS))
    known = SAMPLERS[kind].prediction_types
    return Scheduler(
        kind=kind,
        prediction_type=cast("PredictionType", document.choice("prediction_type", known)),
        shift=document.number("shift", above=MIN_SHIFT, most=1000.0),
        num_train_timesteps=document.integer("num_train_timesteps", 1, 1_000_000),
    )
