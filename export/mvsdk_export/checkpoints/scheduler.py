"""scheduler_config.json: how a denoiser was trained to be sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from mvsdk.manifest import PredictionType, SamplerKind
from mvsdk.samplers import SAMPLERS
from mvsdk_export.checkpoints.documents import Document, read_document

MIN_SHIFT = 1e-3
"""Below, the levels of a schedule of a thousand steps are no longer told apart."""
MAX_SIGMA = 1e4
MIN_RHO, MAX_RHO = 0.5, 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowScheduler:
    """Sampler, parameterisation and noise levels of a rectified-flow denoiser."""

    kind: SamplerKind
    """ "flow_euler" or "flow_consistency"."""
    prediction_type: PredictionType
    shift: float = 1.0
    """Shift of the noise levels towards 1, as in `mvsdk.schedules.flow_sigmas`."""
    num_train_timesteps: int = 1
    """The graph receives sigma times this."""

    def to_document(self) -> dict[str, object]:
        """Return what is written to scheduler_config.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class EDMScheduler:
    """Parameterisation and noise levels of a denoiser on the variance-exploding path.

    The network sees x / sqrt(s^2 + 1) and the time ln(s) / 4; its noise levels are those of
    `mvsdk.schedules.karras_sigmas`, and latents start at sqrt(sigma_max^2 + 1) times unit noise.
    """

    kind: Literal["edm_euler"] = "edm_euler"
    prediction_type: Literal["v_prediction"] = "v_prediction"
    sigma_min: float = 0.002
    sigma_max: float = 700.0
    rho: float = 7.0

    def to_document(self) -> dict[str, object]:
        """Return what is written to scheduler_config.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneStepScheduler:
    """A denoiser of the kind that `EDMScheduler` describes, trained for one evaluation."""

    kind: Literal["one_step"] = "one_step"
    sigma: float = 700.0
    """Noise level of the evaluation. It is part of the graph, which takes unit noise."""

    def to_document(self) -> dict[str, object]:
        """Return what is written to scheduler_config.json."""
        return asdict(self)


Scheduler: TypeAlias = FlowScheduler | EDMScheduler | OneStepScheduler


def read_scheduler(path: Path, kinds: Sequence[str]) -> Scheduler:
    """Read the scheduler_config.json of a model folder of ours.

    Args:
        path: The file.
        kinds: Kinds that the recipe allows.

    Raises:
        CheckpointError: If it is no such file, or of a kind that is not allowed.
    """
    document = read_document(path)
    kind = document.choice("kind", kinds)  # first: another kind has other keys
    if kind == "one_step":
        document.check_keys(("kind", "sigma"))
        return OneStepScheduler(sigma=document.number("sigma", above=0.0, most=MAX_SIGMA))
    if kind == "edm_euler":
        document.check_keys(("kind", "prediction_type", "sigma_min", "sigma_max", "rho"))
        document.choice("prediction_type", ("v_prediction",))
        return _edm_scheduler(document, rho=document.number("rho", above=MIN_RHO, most=MAX_RHO))
    document.check_keys(("kind", "prediction_type", "shift", "num_train_timesteps"))
    flow = cast("SamplerKind", kind)
    known = SAMPLERS[flow].prediction_types
    return FlowScheduler(
        kind=flow,
        prediction_type=cast("PredictionType", document.choice("prediction_type", known)),
        shift=document.number("shift", above=MIN_SHIFT, most=1000.0),
        num_train_timesteps=document.integer("num_train_timesteps", 1, 1_000_000),
    )


EULER_DISCRETE: dict[str, object] = {
    "_class_name": "EulerDiscreteScheduler",
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "use_karras_sigmas": True,
}
"""Keys of a public scheduler_config.json that decide the noise levels, with the values of SVD."""
EULER_DISCRETE_ABSENT: dict[str, object] = {
    "final_sigmas_type": "zero",
    "interpolation_type": "linear",
    "rescale_betas_zero_snr": False,
    "trained_betas": None,
    "use_beta_sigmas": False,
    "use_exponential_sigmas": False,
}
"""Keys that a file may lack, with the values that SVD then has."""
EULER_DISCRETE_UNUSED = (
    "_diffusers_version",
    "_name_or_path",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "num_train_timesteps",
    "set_alpha_to_one",
    "skip_prk_steps",
    "steps_offset",
)
"""Keys without effect where `sigma_min` and `sigma_max` are given and times are continuous."""


def read_public_scheduler(path: Path) -> Scheduler:
    """Read the scheduler_config.json of a public folder: an `EulerDiscreteScheduler` as SVD has it.

    Raises:
        CheckpointError: If it is no such file, or describes another way of sampling.
    """
    document = read_document(path)
    document.check_class("_class_name", EULER_DISCRETE["_class_name"])  # first: other keys
    document.check_keys(
        (*EULER_DISCRETE, "sigma_min", "sigma_max"),
        (*EULER_DISCRETE_ABSENT, *EULER_DISCRETE_UNUSED),
    )
    document.check_fixed({**EULER_DISCRETE, **EULER_DISCRETE_ABSENT})
    return _edm_scheduler(document, rho=7.0)


def _edm_scheduler(document: Document, *, rho: float) -> EDMScheduler:
    most = document.number("sigma_max", above=0.0, most=MAX_SIGMA)
    least = document.number("sigma_min", above=0.0, most=MAX_SIGMA)
    if least >= most:
        document.fail("sigma_min", f"a number below sigma_max, {most:g}")
    return EDMScheduler(sigma_min=least, sigma_max=most, rho=rho)
