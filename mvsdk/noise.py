"""Portable noise: equal seeds give equal bits in Python, Kotlin and Swift.

The chain is Philox-4x32-10 (counter-based random words), a uniform in the open interval (0, 1), the
normal quantile AS241, and a cast to float32. docs/noise.md is the normative text; this file is its
NumPy form. Only + - * / and sqrt touch a float, because IEEE 754 fixes their bits and leaves those
of a library `log` open. Every operation is a NumPy ufunc of its own, so none can be fused.

References:
    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", doi:10.1145/2063384.2063405.
    Wichura 1988, "Algorithm AS 241", Applied Statistics 37(3), doi:10.2307/2347330 (PPND16).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mvsdk._arguments import check_whole_number, shown
from mvsdk.errors import InputError

PICTURE_STREAM = 65536
"""Stream of the noise on the first picture: above that of any step."""

MAX_AXES = 8
"""Axes of the largest tensor that a bundle can describe."""
MAX_NUMBERS = 1 << 31
"""Most numbers that are drawn at once: they take 8 GiB as float32."""

_SEEDS = 1 << 64
_STREAMS = 1 << 32
_WINDOWS = 1 << 32
_NUMBERS_PER_WINDOW = 1 << 66  # a 64-bit block counter, four words per block

_PHILOX_ROUNDS = 10
_PHILOX_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)

# Highest power first, the order of Horner's rule. Pairs are (numerator, denominator).
_AS241_CENTRE = (
    (
        2.5090809287301226727e3,
        3.3430575583588128105e4,
        6.7265770927008700853e4,
        4.5921953931549871457e4,
        1.3731693765509461125e4,
        1.9715909503065514427e3,
        1.3314166789178437745e2,
        3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3,
        2.8729085735721942674e4,
        3.9307895800092710610e4,
        2.1213794301586595867e4,
        5.3941960214247511077e3,
        6.8718700749205790830e2,
        4.2313330701600911252e1,
        1.0,
    ),
)
_AS241_TAIL = (
    (
        7.74545014278341407640e-4,
        2.27238449892691845833e-2,
        2.41780725177450611770e-1,
        1.27045825245236838258e0,
        3.64784832476320460504e0,
        5.76949722146069140550e0,
        4.63033784615654529590e0,
        1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9,
        5.47593808499534494600e-4,
        1.51986665636164571966e-2,
        1.48103976427480074590e-1,
        6.89767334985100004550e-1,
        1.67638483018380384940e0,
        2.05319162663775882187e0,
        1.0,
    ),
)

_SQRT_HALF_BITS = np.uint64(0x3FE6A09E667F3BCD)
_ONE_BITS = np.uint64(0x3FF0000000000000)
_FRACTION_MASK = np.uint64(0x000FFFFFFFFFFFFF)
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # 32 bits: k * _LN2_HIGH is exact
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_LOG_SERIES = tuple(2.0 / odd for odd in range(21, 1, -2))  # 2/21, 2/19, ... 2/3


def uniforms(
    seed: int, count: int, *, stream: int = 0, window: int = 0, offset: int = 0
) -> NDArray[np.float64]:
    """Draw uniforms from the open interval (0, 1).

    Args:
        seed: Key of the generator, 0 <= seed < 2**64.
        count: How many numbers to draw, >= 0.
        stream: What the noise is for, 0 <= stream < 2**32.
        window: Turn of the loops in which it is drawn, 0 <= window < 2**32; 0 outside of loops.
        offset: Position of the first number in the window of the stream, >= 0.

    Returns:
        Multiples of 2**-33 in [2**-33, 1 - 2**-33], never 1/2. Float64, (count,).

    Raises:
        InputError: If an argument is no integer or out of range.
    """
    words = _stream_words(seed, count, stream=stream, window=window, offset=offset)
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def normals(
    seed: int, count: int, *, stream: int = 0, window: int = 0, offset: int = 0
) -> NDArray[np.float64]:
    """Draw standard normals, one per uniform of the same arguments.

    Args:
        seed: Key of the generator, 0 <= seed < 2**64.
        count: How many numbers to draw, >= 0.
        stream: What the noise is for, 0 <= stream < 2**32.
        window: Turn of the loops in which it is drawn, 0 <= window < 2**32; 0 outside of loops.
        offset: Position of the first number in the window of the stream, >= 0.

    Returns:
        Standard normals, |x| < 6.34. Float64, (count,).

    Raises:
        InputError: If an argument is no integer or out of range.
    """
    return _normal_quantile(uniforms(seed, count, stream=stream, window=window, offset=offset))


def initial_latents(
    seed: int, shape: Sequence[int], *, stream: int = 0, window: int = 0
) -> NDArray[np.float32]:
    """Draw standard normal latents.

    Args:
        seed: Key of the generator, 0 <= seed < 2**64.
        shape: Sizes of the latents, each >= 1.
        stream: 0 for the noise that sampling starts from, k >= 1 for the noise added before step k,
            `PICTURE_STREAM` for that on a picture.
        window: Turn of the loops in which they are drawn, 0 <= window < 2**32; 0 outside of loops.

    Returns:
        The first normals of the stream's window in C order, rounded to nearest even. Float32,
        `shape`.

    Raises:
        InputError: If an argument is no integer or out of range.
    """
    try:
        sizes = [_check_integer("latents size", size, low=1, high=1 << 48) for size in shape]
    except TypeError as exc:
        raise InputError(f"shape is {shown(shape)}; allowed: sizes, such as (8, 4, 8, 8)") from exc
    if len(sizes) > MAX_AXES or math.prod(sizes) > MAX_NUMBERS:
        raise InputError(
            f"shape is {shown(tuple(sizes))}; allowed: at most {MAX_AXES} axes and {MAX_NUMBERS} "
            "numbers"
        )
    values = normals(seed, math.prod(sizes), stream=stream, window=window)
    return values.astype(np.float32).reshape(sizes)


def picture_noise(seed: int, height: int, width: int, *, window: int = 0) -> NDArray[np.float32]:
    """Draw the noise that the VAE encoder adds to the first picture of a clip.

    Args:
        seed: Key of the generator, 0 <= seed < 2**64.
        height: Rows of the picture.
        width: Columns of the picture.
        window: Turn of the loops in which it is drawn, 0 <= window < 2**32; 0 outside of loops.

    Returns:
        Standard normals, not scaled by the noise augmentation strength. Float32, (1, 3, H, W).

    Raises:
        InputError: If an argument is no integer or out of range.
    """
    return initial_latents(seed, (1, 3, height, width), stream=PICTURE_STREAM, window=window)


def _stream_words(
    seed: int, count: int, *, stream: int, window: int, offset: int
) -> NDArray[np.uint64]:
    """Return 32-bit words `offset` to `offset + count - 1` of a window, one per uint64."""
    seed = _check_integer("seed", seed, high=_SEEDS - 1)
    stream = _check_integer("stream", stream, high=_STREAMS - 1)
    window = _check_integer("window", window, high=_WINDOWS - 1)
    offset = _check_integer("offset", offset, high=_NUMBERS_PER_WINDOW)
    count = _check_integer("count", count, high=_NUMBERS_PER_WINDOW - offset)
    first_block, skip = divmod(offset, 4)
    block_count = (skip + count + 3) // 4
    if block_count == 0:
        return np.empty(0, np.uint64)
    blocks = np.arange(block_count, dtype=np.uint64) + np.uint64(first_block)
    counter = (blocks & _LOW_WORD, blocks >> _WORD_BITS, np.uint64(stream), np.uint64(window))
    words = _philox_4x32_10(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return np.stack(words, axis=-1).reshape(-1)[skip : skip + count]


def _philox_4x32_10(
    counter: Sequence[NDArray[np.uint64] | np.uint64], key: tuple[int, int]
) -> tuple[NDArray[np.uint64] | np.uint64, ...]:
    """Encrypt counters of four 32-bit words (one per uint64) under a key of two."""
    c0, c1, c2, c3 = counter
    for index in range(_PHILOX_ROUNDS):
        k0, k1 = (
            np.uint64((word + index * step) & 0xFFFFFFFF)
            for word, step in zip(key, _PHILOX_KEY_STEPS, strict=True)
        )
        product_0 = c0 * _PHILOX_MULTIPLIERS[0]
        product_1 = c2 * _PHILOX_MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product_1 >> _WORD_BITS) ^ c1 ^ k0,
            product_1 & _LOW_WORD,
            (product_0 >> _WORD_BITS) ^ c3 ^ k1,
            product_0 & _LOW_WORD,
        )
    return c0, c1, c2, c3


def _normal_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate AS241 PPND16 for p in [2**-33, 1 - 2**-33].

    The published far-tail branch is for p < exp(-25), which no 32-bit uniform reaches.
    """
    q = p - 0.5
    is_centre = np.abs(q) <= 0.425
    x = np.empty_like(p)

    q_centre = q[is_centre]
    numerator, denominator = _horner_pair(_AS241_CENTRE, 0.180625 - q_centre * q_centre)
    x[is_centre] = q_centre * numerator / denominator

    is_tail = ~is_centre
    q_tail, p_tail = q[is_tail], p[is_tail]
    is_lower = q_tail < 0.0
    r = np.sqrt(-_natural_log(np.where(is_lower, p_tail, 1.0 - p_tail)))
    numerator, denominator = _horner_pair(_AS241_TAIL, r - 1.6)
    magnitude = numerator / denominator
    x[is_tail] = np.where(is_lower, -magnitude, magnitude)
    return x


def _natural_log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate ln(x) for positive normal float64 from + - * / alone.

    x = 2**k * m with m in [sqrt(1/2), sqrt(2)), f = m - 1, s = f / (2 + f), and
    ln(1 + f) = 2 atanh(s) = f - (h - s * (h + R)) with h = f*f/2 and R = 2 s**2/3 + 2 s**4/5 + ...
    """
    biased = x.view(np.uint64) + (_ONE_BITS - _SQRT_HALF_BITS)
    k = (biased >> np.uint64(52)).astype(np.float64) - 1023.0
    m = ((biased & _FRACTION_MASK) + _SQRT_HALF_BITS).view(np.float64)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    r = z * _horner(_LOG_SERIES, z)
    h = 0.5 * f * f
    return k * _LN2_HIGH - ((h - (s * (h + r) + k * _LN2_LOW)) - f)


def _horner_pair(
    coefficients: tuple[Sequence[float], Sequence[float]], x: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return _horner(coefficients[0], x), _horner(coefficients[1], x)


def _horner(coefficients: Sequence[float], x: NDArray[np.float64]) -> NDArray[np.float64]:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += coefficient
    return value


def _check_integer(name: str, value: object, *, low: int = 0, high: int) -> int:
    return check_whole_number(
        name, value, low=low, high=high, allowed=f"integers from {low} to {high}"
    )
