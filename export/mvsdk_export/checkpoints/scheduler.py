"""scheduler_config.json: how a denoiser was trained to be sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from mvsdk.manifest import PredictionType, SamplerKind
from mvsdk.samplers import SAMPLERS
from mvsdk.schedules import BetaSchedule
from mvsdk_export.checkpoints.documents import Document, read_document

MIN_SHIFT = 1e-3
"""Below, the levels of a schedule of a thousand steps are no longer told apart."""
MAX_SIGMA = 1e4
MIN_RHO, MAX_RHO = 0.5, 100.0

DiscretePrediction: TypeAlias = Literal["epsilon", "v_prediction", "sample"]
DiscreteSampler: TypeAlias = Literal["euler_trailing", "lcm", "ddim", "euler_ancestral"]
Spacing: TypeAlias = Literal["leading", "linspace", "trailing"]
DISCRETE_SAMPLERS: tuple[DiscreteSampler, ...] = get_args(DiscreteSampler)
"""How a denoiser of discrete timesteps may be sampled."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteScheduler:
    """Noise levels of a denoiser that was trained at timesteps 0, 1, 2, ... of falling signal.

    How it is sampled is the user's choice: `sampler`.
    """

    kind: Literal["discrete"] = "discrete"
    prediction_type: DiscretePrediction = "epsilon"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: BetaSchedule = "scaled_linear"
    num_train_timesteps: int = 1000
    steps_offset: int = 1
    """First timestep of schedules that are spaced from it on."""
    set_alpha_to_one: bool = False
    """Whether the last step of DDIM ends without noise, or at the first timestep's level."""
    ddim_spacing: Spacing = "leading"
    """How DDIM spaces its timesteps."""
    sampler: DiscreteSampler = "euler_trailing"

    def for_motion(self) -> DiscreteScheduler:
        """Return the levels of AnimateDiff's motion modules, whatever those of the image model are.

        Betas grow linearly, and DDIM goes from the last timestep to the first, where it ends
        without noise: at the first timestep's own level its last step would do nothing.
        """
        return replace(self, beta_schedule="linear", ddim_spacing="linspace", set_alpha_to_one=True)

    def to_document(self) -> dict[str, object]:
        """Return what is written to scheduler_config.json."""
        values = {key: value for key, value in asdict(self).items() if key != "sampler"}
        return {**values, "timestep_spacing": values.pop("ddim_spacing")}


Scheduler: TypeAlias = FlowScheduler | EDMScheduler | OneStepScheduler | DiscreteScheduler


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
    if kind == "discrete":
        return _discrete_scheduler(document, required=_DISCRETE_KEYS)
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


def read_continuous_edm(document: Document) -> Scheduler:
    """Read the scheduler_config.json of SVD: an `EulerDiscreteScheduler` of continuous times.

    Raises:
        CheckpointError: If it is no such file, or describes another way of sampling.
    """
    document.check_class("_class_name", EULER_DISCRETE["_class_name"])  # first: other keys
    document.check_keys(
        (*EULER_DISCRETE, "sigma_min", "sigma_max"),
        (*EULER_DISCRETE_ABSENT, *EULER_DISCRETE_UNUSED),
    )
    document.check_fixed({**EULER_DISCRETE, **EULER_DISCRETE_ABSENT})
    return _edm_scheduler(document, rho=7.0)


_DISCRETE_KEYS = (
    *("kind", "prediction_type", "beta_start", "beta_end", "beta_schedule"),
    *("num_train_timesteps", "steps_offset", "set_alpha_to_one", "timestep_spacing"),
)
_DISCRETE_FIXED: dict[str, object] = {"trained_betas": None, "rescale_betas_zero_snr": False}
"""Keys of other noise levels than betas give, with the values that make none of it."""
MAX_TRAIN_TIMESTEPS = 100_000


def read_discrete(document: Document) -> Scheduler:
    """Read the scheduler_config.json of Stable Diffusion, of whatever class.

    Betas and what the denoiser predicts decide what it was trained for. All else is how a library
    samples it, which is the user's choice here.

    Raises:
        CheckpointError: If its noise levels are no betas from one number to another.
    """
    document.check_fixed(_DISCRETE_FIXED)
    # What diffusers' classes have in common by default.
    usual: dict[str, object] = {
        "prediction_type": "epsilon",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "num_train_timesteps": 1000,
        "steps_offset": 0,
        "set_alpha_to_one": True,
        "timestep_spacing": "leading",
    }
    given = {key: document.values[key] for key in usual if document.values.get(key) is not None}
    return _discrete_scheduler(Document(document.path, {**usual, **given}))


def _discrete_scheduler(document: Document, required: Sequence[str] = ()) -> DiscreteScheduler:
    if required:
        document.check_keys(required)
    most = document.number("beta_end", above=0.0, most=0.999)
    least = document.number("beta_start", above=0.0, most=0.999)
    if least > most:
        document.fail("beta_start", f"a number of at most beta_end, {most:g}")
    return DiscreteScheduler(
        prediction_type=cast(
            "DiscretePrediction",
            document.choice("prediction_type", get_args(DiscretePrediction)),
        ),
        beta_start=least,
        beta_end=most,
        beta_schedule=cast(
            "BetaSchedule", document.choice("beta_schedule", get_args(BetaSchedule))
        ),
        num_train_timesteps=document.integer("num_train_timesteps", 1, MAX_TRAIN_TIMESTEPS),
        steps_offset=document.integer("steps_offset", 0, 1000),
        set_alpha_to_one=document.boolean("set_alpha_to_one", default=True),
        ddim_spacing=cast("Spacing", document.choice("timestep_spacing", get_args(Spacing))),
    )


PUBLIC_READERS: Mapping[str, Callable[[Document], Scheduler]] = {
    "continuous_edm": read_continuous_edm,
    "discrete": read_discrete,
}
"""What a recipe calls a public scheduler_config.json -> what reads it."""


def _edm_scheduler(document: Document, *, rho: float) -> EDMScheduler:
    most = document.number("sigma_max", above=0.0, most=MAX_SIGMA)
    least = document.number("sigma_min", above=0.0, most=MAX_SIGMA)
    if least >= most:
        document.fail("sigma_min", f"a number below sigma_max, {most:g}")
    return EDMScheduler(sigma_min=least, sigma_max=most, rho=rho)
