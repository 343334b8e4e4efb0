"""Noise levels and timesteps of few-step sampling: pure functions, no state.

A schedule of N steps is `sigmas` (N + 1 noise levels, strictly falling, the last one mostly 0) and
`timesteps` (N values, what the network receives). The toolchain computes both with this file and
writes them into the manifest; a runtime reads them there and only checks them.

Everything is computed in float64 and rounded to float32 once, at the end.
"""

from __future__ import annotations

import math
import operator
from typing import Literal, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvsdk.errors import ScheduleError

Sigmas = NDArray[np.float32]
"""Noise levels: strictly falling, the last 0 or, for some samplers, above. Float32, (N + 1,)."""

BetaSchedule = Literal["linear", "scaled_linear"]

_MAX_STEPS = 1000


def check_sigmas(sigmas: ArrayLike, *, upper: float = math.inf, last_zero: bool = True) -> None:
    """Refuse noise levels that no sampler can follow.

    Args:
        sigmas: Noise levels to check, (N + 1,), N >= 1.
        upper: Largest level allowed: 1 for rectified flow, unbounded otherwise.
        last_zero: Whether the last level must be 0. If not, it may also be above.

    Raises:
        ScheduleError: If `sigmas` is not one row of finite numbers, does not fall strictly, ends
            elsewhere than allowed or starts above `upper`.
    """
    levels = np.asarray(sigmas, dtype=np.float64)
    if levels.ndim != 1 or levels.size < 2:
        raise ScheduleError(
            f"sigmas have shape {levels.shape}; allowed: (steps + 1,) with at least one step; "
            "append the final 0"
        )
    for index in np.flatnonzero(~np.isfinite(levels))[:1]:
        raise ScheduleError(
            f"sigmas[{index}] is {levels[index]}; allowed: finite numbers; rebuild the schedule"
        )
    for index in np.flatnonzero(np.diff(levels) >= 0.0)[:1]:
        raise ScheduleError(
            f"sigmas[{index}] is {levels[index]} and the next is {levels[index + 1]}; allowed: "
            "strictly falling levels; use fewer steps or a smaller shift"
        )
    if last_zero and levels[-1] != 0.0:
        raise ScheduleError(f"sigmas end in {levels[-1]}; allowed: 0; append the final 0")
    if levels[-1] < 0.0:
        raise ScheduleError(f"sigmas end in {levels[-1]}; allowed: 0 or above; take the levels")
    if levels[0] > upper:
        raise ScheduleError(
            f"sigmas start at {levels[0]}; allowed: at most {upper}; divide them by their maximum"
        )


def flow_sigmas(num_inference_steps: int, *, shift: float = 1.0) -> Sigmas:
    """Build the levels of rectified flow: evenly spaced from 1 to 0, then shifted.

    Args:
        num_inference_steps: Steps N, 1 to 1000.
        shift: Static shift m > 0; 1 leaves the spacing even, larger values stay noisy longer.

    Returns:
        Noise levels from 1 to 0. Float32, (N + 1,).

    Raises:
        ScheduleError: If an argument is out of range, or the shift is so large that neighbouring
            levels are equal in float32.
    """
    steps = _check_steps(num_inference_steps)
    levels = np.arange(steps, -1, -1, dtype=np.float64) / steps
    sigmas = _shift(levels, shift).astype(np.float32)
    check_sigmas(sigmas, upper=1.0)
    return sigmas


def shift_sigmas(sigmas: ArrayLike, shift: float) -> Sigmas:
    """Move rectified-flow levels towards noise: s' = m s / (1 + (m - 1) s).

    Args:
        sigmas: Noise levels in [0, 1], (N + 1,).
        shift: Static shift m > 0; 1 is the identity.

    Returns:
        Shifted levels; 0 and 1 stay where they are. Float32, (N + 1,).

    Raises:
        ScheduleError: If `sigmas` is no flow schedule, or `shift` is not positive and finite.

    Reference:
        Esser et al. 2024, arXiv:2403.03206, eq. 23.
    """
    check_sigmas(sigmas, upper=1.0)
    return _shift(np.asarray(sigmas, dtype=np.float64), shift).astype(np.float32)


def dynamic_shift(
    num_tokens: int,
    *,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    base_tokens: int = 256,
    max_tokens: int = 4096,
) -> float:
    """Compute the shift of models whose schedule depends on the size of the latents.

    The published form exp(mu) / (exp(mu) + (1/s - 1)) is the static shift with m = exp(mu), where
    mu is linear in the number of tokens. Hand the result to `flow_sigmas`.

    Args:
        num_tokens: Tokens of one latent video, >= 1.
        base_shift: mu at `base_tokens`.
        max_shift: mu at `max_tokens`; the line goes on beyond it.
        base_tokens: Tokens where mu is `base_shift`.
        max_tokens: Tokens where mu is `max_shift`, > `base_tokens`.

    Returns:
        Shift m = exp(mu) > 0.

    Raises:
        ScheduleError: If a count of tokens is out of range.

    Reference:
        `FlowMatchEulerDiscreteScheduler` (`use_dynamic_shifting`) in diffusers.
    """
    if num_tokens < 1 or base_tokens >= max_tokens:
        raise ScheduleError(
            f"num_tokens is {num_tokens} between {base_tokens} and {max_tokens}; allowed: "
            "num_tokens >= 1, base_tokens < max_tokens; take the latents' token count"
        )
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return math.exp(base_shift + slope * (num_tokens - base_tokens))


def karras_sigmas(
    num_inference_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> Sigmas:
    """Build EDM levels, evenly spaced in sigma**(1/rho), with 0 appended.

    Args:
        num_inference_steps: Steps N, 1 to 1000. One step gives [sigma_max, 0].
        sigma_min: Last level above 0, 0 < sigma_min < sigma_max.
        sigma_max: First level.
        rho: Warp > 0; larger values spend more steps near `sigma_min`.

    Returns:
        Noise levels from `sigma_max` to 0. Float32, (N + 1,).

    Raises:
        ScheduleError: If an argument is out of range.

    Reference:
        Karras et al. 2022, arXiv:2206.00364, eq. 5.
    """
    steps = _check_steps(num_inference_steps)
    if not (0.0 < sigma_min < sigma_max < math.inf and 0.0 < rho < math.inf):
        raise ScheduleError(
            f"sigma_min is {sigma_min}, sigma_max is {sigma_max}, rho is {rho}; allowed: "
            "0 < sigma_min < sigma_max and rho > 0, all finite; take them from the scheduler config"
        )
    high, low = sigma_max ** (1.0 / rho), sigma_min ** (1.0 / rho)
    ramp = np.arange(steps, dtype=np.float64) / max(steps - 1, 1)
    sigmas = np.append((high + ramp * (low - high)) ** rho, 0.0).astype(np.float32)
    check_sigmas(sigmas)
    return sigmas


def alphas_cumprod(
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    *,
    beta_schedule: BetaSchedule = "scaled_linear",
    num_train_timesteps: int = 1000,
) -> NDArray[np.float64]:
    """Compute the kept signal power of a variance-preserving diffusion, per training timestep.

    Args:
        beta_start: First beta, 0 < beta_start <= beta_end.
        beta_end: Last beta, < 1.
        beta_schedule: "linear" in beta, or "scaled_linear": linear in sqrt(beta).
        num_train_timesteps: Number T of training timesteps, >= 1.

    Returns:
        Running product of (1 - beta), strictly falling in (0, 1). Float64, (T,).

    Raises:
        ScheduleError: If an argument is out of range.

    Reference:
        Ho et al. 2020, arXiv:2006.11239; "scaled_linear" as in latent diffusion, arXiv:2112.10752.
    """
    if not 0.0 < beta_start <= beta_end < 1.0 or num_train_timesteps < 1:
        raise ScheduleError(
            f"betas are {beta_start} to {beta_end} over {num_train_timesteps} timesteps; allowed: "
            "0 < beta_start <= beta_end < 1, timesteps >= 1; take them from the scheduler config"
        )
    if beta_schedule == "scaled_linear":
        betas = np.linspace(math.sqrt(beta_start), math.sqrt(beta_end), num_train_timesteps) ** 2
    elif beta_schedule == "linear":
        betas = np.linspace(beta_start, beta_end, num_train_timesteps)
    else:
        raise ScheduleError(
            f"unknown beta_schedule {beta_schedule!r}; known: linear, scaled_linear"
        )
    return np.cumprod(1.0 - betas, dtype=np.float64)


def alphas_cumprod_sigmas(
    alphas_cumprod: NDArray[np.float64],
    timesteps: NDArray[np.int64] | NDArray[np.float32],
    *,
    final_alpha: float = 1.0,
) -> Sigmas:
    """Convert kept signal power at the chosen timesteps to noise levels, with the last appended.

    Args:
        alphas_cumprod: Signal power per training timestep, in (0, 1). Float64, (T,).
        timesteps: Falling training timesteps from 0 to T - 1; between two of them the level is
            linear in the timestep. Int64 or float32, (N,).
        final_alpha: Signal power that the last step ends at, in (0, 1]. 1 ends at level 0; DDIM
            with `set_alpha_to_one` false ends at `alphas_cumprod[0]`.

    Returns:
        sqrt((1 - alpha) / alpha), noise per unit of signal. Float32, (N + 1,).

    Raises:
        ScheduleError: If a timestep or `final_alpha` is out of range, or levels do not fall.

    Reference:
        `EulerDiscreteScheduler` (interpolation) and `DDIMScheduler` (last level) in diffusers.
    """
    if timesteps.size and not 0 <= timesteps.min() <= timesteps.max() <= alphas_cumprod.size - 1:
        raise ScheduleError(
            f"timesteps are {timesteps.tolist()}; allowed: 0 to {alphas_cumprod.size - 1}; "
            "use the num_train_timesteps of alphas_cumprod"
        )
    if not 0.0 < final_alpha <= 1.0:
        raise ScheduleError(
            f"final_alpha is {final_alpha}; allowed: above 0, at most 1; take 1 or the first alpha"
        )
    alphas = np.append(alphas_cumprod, final_alpha)
    *grid, last = np.sqrt((1.0 - alphas) / alphas).tolist()
    levels = np.interp(timesteps, np.arange(len(grid)), grid)
    sigmas = np.append(levels, last).astype(np.float32)
    check_sigmas(sigmas, last_zero=final_alpha == 1.0)
    return sigmas


def lcm_timesteps(
    num_inference_steps: int,
    *,
    original_inference_steps: int = 50,
    num_train_timesteps: int = 1000,
) -> NDArray[np.int64]:
    """Choose the timesteps of a latent consistency model.

    The distillation grid k-1, 2k-1, ... (k = num_train_timesteps // original_inference_steps) is
    walked from its end; step i takes entry floor(i * original_inference_steps / N).

    Args:
        num_inference_steps: Steps N, 1 to `original_inference_steps`.
        original_inference_steps: Size of the grid that the model was distilled on.
        num_train_timesteps: Number of training timesteps, >= `original_inference_steps`.

    Returns:
        Strictly falling timesteps. Int64, (N,).

    Raises:
        ScheduleError: If an argument is out of range.

    Reference:
        `LCMScheduler.set_timesteps` in diffusers; Luo et al. 2023, arXiv:2310.04378.
    """
    steps = _check_steps(num_inference_steps)
    if not steps <= original_inference_steps <= num_train_timesteps:
        raise ScheduleError(
            f"num_inference_steps is {steps}; allowed: 1 to original_inference_steps "
            f"({original_inference_steps}), itself at most {num_train_timesteps}; use fewer steps"
        )
    stride = num_train_timesteps // original_inference_steps
    entries = np.arange(steps, dtype=np.int64) * original_inference_steps // steps
    return (original_inference_steps - entries) * stride - 1


def trailing_timesteps(
    num_inference_steps: int, *, num_train_timesteps: int = 1000
) -> NDArray[np.int64]:
    """Choose evenly spaced timesteps that start at the last training timestep.

    Args:
        num_inference_steps: Steps N, 1 to `num_train_timesteps`.
        num_train_timesteps: Number T of training timesteps.

    Returns:
        round(T - i * T / N) - 1, halves to even. Int64, (N,).

    Raises:
        ScheduleError: If an argument is out of range.

    Reference:
        Lin et al. 2023, arXiv:2305.08891, table 2 ("trailing").
    """
    steps = _check_steps_within(num_inference_steps, num_train_timesteps)
    remaining = np.arange(steps, 0, -1, dtype=np.float64)
    return np.rint(num_train_timesteps * remaining / steps).astype(np.int64) - 1


def leading_timesteps(
    num_inference_steps: int, *, num_train_timesteps: int = 1000, steps_offset: int = 0
) -> NDArray[np.int64]:
    """Choose evenly spaced timesteps that end at the first training timesteps.

    Args:
        num_inference_steps: Steps N, 1 to `num_train_timesteps`.
        num_train_timesteps: Number T of training timesteps.
        steps_offset: Added to each; 1 in the folders of Stable Diffusion.

    Returns:
        (N - 1 - i) * (T // N) + `steps_offset`. Int64, (N,).

    Raises:
        ScheduleError: If an argument is out of range, or the first timestep is beyond T - 1.

    Reference:
        Lin et al. 2023, arXiv:2305.08891, table 2 ("leading"), with the offset of diffusers.
    """
    steps = _check_steps_within(num_inference_steps, num_train_timesteps)
    stride = num_train_timesteps // steps
    most = num_train_timesteps - 1 - (steps - 1) * stride
    if not 0 <= steps_offset <= most:
        raise ScheduleError(
            f"steps_offset is {steps_offset}; allowed: 0 to {most} with {steps} steps; "
            "take it from the scheduler config, or fewer steps"
        )
    return np.arange(steps - 1, -1, -1, dtype=np.int64) * stride + steps_offset


def linspace_timesteps(
    num_inference_steps: int, *, num_train_timesteps: int = 1000
) -> NDArray[np.float32]:
    """Choose evenly spaced timesteps from the last training timestep to the first.

    Args:
        num_inference_steps: Steps N, 1 to `num_train_timesteps`. One step gives [0].
        num_train_timesteps: Number T of training timesteps.

    Returns:
        (T - 1) (N - 1 - i) / (N - 1), fractions kept. DDIM rounds them with `numpy.rint`. Float32,
        (N,).

    Raises:
        ScheduleError: If an argument is out of range.

    Reference:
        Lin et al. 2023, arXiv:2305.08891, table 2 ("linspace"); `EulerAncestralDiscreteScheduler`
        in diffusers.
    """
    steps = _check_steps_within(num_inference_steps, num_train_timesteps)
    remaining = np.arange(steps - 1, -1, -1, dtype=np.float64)
    return ((num_train_timesteps - 1) * remaining / max(steps - 1, 1)).astype(np.float32)


def flow_timesteps(sigmas: Sigmas, *, num_train_timesteps: int = 1000) -> NDArray[np.float32]:
    """Scale rectified-flow levels to what the network receives: t = num_train_timesteps * s.

    Args:
        sigmas: Noise levels in [0, 1]. Float32, (N + 1,).
        num_train_timesteps: Timestep of pure noise.

    Returns:
        Timesteps of the N steps. Float32, (N,).

    Raises:
        ScheduleError: If `sigmas` is no flow schedule.
    """
    check_sigmas(sigmas, upper=1.0)
    return (num_train_timesteps * sigmas[:-1].astype(np.float64)).astype(np.float32)


def edm_timesteps(sigmas: Sigmas) -> NDArray[np.float32]:
    """Convert EDM levels to what the network receives: t = ln(sigma) / 4.

    Args:
        sigmas: Noise levels. Float32, (N + 1,).

    Returns:
        Timesteps of the N steps. Float32, (N,).

    Raises:
        ScheduleError: If `sigmas` is no schedule.

    Reference:
        Karras et al. 2022, arXiv:2206.00364, table 1 (c_noise).
    """
    check_sigmas(sigmas, last_zero=False)
    return (0.25 * np.log(sigmas[:-1].astype(np.float64))).astype(np.float32)


def _shift(levels: NDArray[np.float64], shift: float) -> NDArray[np.float64]:
    if not 0.0 < shift < math.inf:
        raise ScheduleError(f"shift is {shift}; allowed: finite numbers above 0; 1 means no shift")
    return shift * levels / (1.0 + (shift - 1.0) * levels)


def _check_steps(num_inference_steps: SupportsIndex) -> int:
    try:
        steps = operator.index(num_inference_steps)
    except TypeError as exc:
        raise ScheduleError(
            f"num_inference_steps is {num_inference_steps!r}; allowed: integers from 1 to "
            f"{_MAX_STEPS}; pass an int"
        ) from exc
    if not 1 <= steps <= _MAX_STEPS:
        raise ScheduleError(
            f"num_inference_steps is {steps}; allowed: 1 to {_MAX_STEPS}; "
            "few-step models use 1, 2 or 4"
        )
    return steps


def _check_steps_within(num_inference_steps: SupportsIndex, num_train_timesteps: int) -> int:
    steps = _check_steps(num_inference_steps)
    if steps > num_train_timesteps:
        raise ScheduleError(
            f"num_inference_steps is {steps}; allowed: 1 to {num_train_timesteps}; use fewer steps"
        )
    return steps
