"""Noise: the specification of docs/noise.md, its golden values and its statistics."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mvsdk import noise
from mvsdk.errors import InputError, MvsdkError

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/noise.json").read_text(encoding="utf-8"))
MILLION = 1_000_000

Normals = NDArray[np.float64]


@pytest.fixture(scope="module")
def million_normals() -> Normals:
    return noise.normals(20240607, MILLION)


def float64_of(bits: list[str]) -> Normals:
    return np.array([int(value, 16) for value in bits], np.uint64).view(np.float64)


def bits_of(values: np.ndarray[Any, Any]) -> list[int]:
    return values.ravel().view(f"u{values.dtype.itemsize}").tolist()


# A second writing of docs/noise.md: scalars, Python's own float and int, no NumPy.


def scalar_word(seed: int, stream: int, index: int, window: int = 0) -> int:
    block = index // 4
    c0, c1, c2, c3 = block & 0xFFFFFFFF, block >> 32, stream, window
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (p1 >> 32) ^ c1 ^ k0,
            p1 & 0xFFFFFFFF,
            (p0 >> 32) ^ c3 ^ k1,
            p0 & 0xFFFFFFFF,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return (c0, c1, c2, c3)[index % 4]


def scalar_log(x: float) -> float:
    mantissa, k = math.frexp(x)
    if mantissa < math.sqrt(0.5):
        mantissa, k = 2.0 * mantissa, k - 1
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = 2.0 / 21.0
    for odd in (19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0):
        series = series * z + 2.0 / odd
    h = (0.5 * f) * f
    low = (s * (h + z * series)) + (k * 1.9082149292705877e-10)
    return (k * 0.6931471803691238) - ((h - low) - f)


def scalar_quotient(table: str, q: float, r: float) -> float:
    numerator, denominator = 0.0, 0.0
    for line in table.strip().splitlines():
        top, bottom = (float(cell) for cell in line.split())
        numerator, denominator = numerator * r + top, denominator * r + bottom
    return q * numerator / denominator


CENTRE = """
2509.0809287301226727  5226.4952788528545610
33430.575583588128105  28729.085735721942674
67265.770927008700853  39307.895800092710610
45921.953931549871457  21213.794301586595867
13731.693765509461125  5394.1960214247511077
1971.5909503065514427  687.18700749205790830
133.14166789178437745  42.313330701600911252
3.3871328727963666080  1.0
"""
TAIL = """
0.000774545014278341407640  0.00000000105075007164441684324
0.0227238449892691845833    0.000547593808499534494600
0.241780725177450611770     0.0151986665636164571966
1.27045825245236838258      0.148103976427480074590
3.64784832476320460504      0.689767334985100004550
5.76949722146069140550      1.67638483018380384940
4.63033784615654529590      2.05319162663775882187
1.42343711074968357734      1.0
"""


def scalar_normal(word: int) -> float:
    p = (word + 0.5) * 2.0**-32
    q = p - 0.5
    if abs(q) <= 0.425:
        return scalar_quotient(CENTRE, q, 0.180625 - q * q)
    r = math.sqrt(-scalar_log(p if q < 0.0 else 1.0 - p)) - 1.6
    return scalar_quotient(TAIL, math.copysign(1.0, q), r)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ),
        (
            (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    result = noise._philox_4x32_10([np.array([word], np.uint64) for word in counter], key)
    assert tuple(np.ravel(result).tolist()) == words


def test_quantile_gives_the_published_values_of_as241() -> None:
    x = noise._normal_quantile(np.array([0.25, 0.001]))
    np.testing.assert_allclose(x, [-0.6744897501960817, -3.090232306167814], rtol=1e-15)


def test_quantile_agrees_with_the_standard_library() -> None:
    p = np.concatenate((noise.uniforms(1, 20_000), np.ldexp(1.0, -np.arange(2, 34))))
    expected = [statistics.NormalDist().inv_cdf(value) for value in p.tolist()]
    np.testing.assert_allclose(noise._normal_quantile(p), expected, rtol=1e-15)


def test_quantile_inverts_the_cumulative_distribution() -> None:
    p = np.concatenate((noise.uniforms(2, 20_000) / 2.0, np.ldexp(1.0, -np.arange(2, 34))))
    back = [0.5 * math.erfc(-x / math.sqrt(2.0)) for x in noise._normal_quantile(p).tolist()]
    np.testing.assert_allclose(back, p, rtol=2e-14)


def test_quantile_is_exactly_odd() -> None:
    p = noise.uniforms(3, 20_000)
    assert bits_of(noise._normal_quantile(1.0 - p)) == bits_of(-noise._normal_quantile(p))


def test_quantile_needs_no_far_tail() -> None:
    assert math.sqrt(-math.log(2.0**-33)) < 5.0
    extreme = noise._normal_quantile(np.array([2.0**-33, 1.0 - 2.0**-33]))
    assert extreme.tolist() == [-6.337957754553789, 6.337957754553789]


def test_logarithm_is_within_one_ulp_of_the_library() -> None:
    x = np.concatenate(
        (
            noise.uniforms(4, 100_000) * 0.075,
            2.0 ** np.linspace(-33.0, -3.75, 20_000),
            np.linspace(0.7, 1.42, 20_001),
            np.exp(np.linspace(-700.0, 700.0, 20_000)),
        )
    )
    expected = np.array([math.log(value) for value in x.tolist()])
    error = np.abs(noise._natural_log(x) - expected) / np.spacing(np.abs(expected))
    assert error.max() <= 1.0


def test_vectors_equal_a_scalar_transcription_of_the_specification() -> None:
    for seed, stream, offset in ((0, 0, 0), (7, 3, 1021), (2**64 - 1, 2**32 - 1, 2**34 - 6)):
        words = [scalar_word(seed, stream, offset + i) for i in range(1000)]
        uniforms = noise.uniforms(seed, 1000, stream=stream, offset=offset)
        normals = noise.normals(seed, 1000, stream=stream, offset=offset)
        assert uniforms.tolist() == [(word + 0.5) / 2**32 for word in words]
        assert normals.tolist() == [scalar_normal(word) for word in words]


def test_golden_words_logarithms_and_quantiles() -> None:
    for case in GOLDEN["philox"]:
        counter = [np.array([int(word, 16)], np.uint64) for word in case["counter"]]
        key = tuple(int(word, 16) for word in case["key"])
        words = noise._philox_4x32_10(counter, (key[0], key[1]))
        assert [f"{int(word):08x}" for word in np.ravel(words)] == case["words"]
    for section, argument, result, function in (
        ("logarithm", "x", "ln", noise._natural_log),
        ("quantile", "p", "x", noise._normal_quantile),
    ):
        arguments = float64_of([case[argument] for case in GOLDEN[section]])
        expected = [int(case[result], 16) for case in GOLDEN[section]]
        assert bits_of(function(arguments)) == expected


@pytest.mark.parametrize("case", GOLDEN["draws"], ids=lambda c: f"{c['seed']}-{c['stream']}")
def test_golden_draws(case: dict[str, Any]) -> None:
    seed, stream, offset = int(case["seed"]), case["stream"], int(case["offset"])
    for function, name in ((noise.uniforms, "uniforms"), (noise.normals, "normals")):
        values = function(seed, len(case[name]), stream=stream, offset=offset)
        assert bits_of(values) == [int(bits, 16) for bits in case[name]]


def test_golden_latents_of_three_seeds_one_of_64_bits() -> None:
    assert len(GOLDEN["latents"]) == 3
    assert max(int(case["seed"]) for case in GOLDEN["latents"]) >= 2**63
    for case in GOLDEN["latents"]:
        latents = noise.initial_latents(int(case["seed"]), case["shape"], stream=case["stream"])
        assert bits_of(latents) == [int(bits, 16) for bits in case["bits"]]
    for case in GOLDEN["latents_sha256"]:
        latents = noise.initial_latents(int(case["seed"]), case["shape"], stream=case["stream"])
        digest = hashlib.sha256(latents.astype("<f4").tobytes()).hexdigest()
        assert digest == case["sha256"]


@pytest.mark.parametrize("case", GOLDEN["windows"], ids=lambda c: f"{c['stream']}-{c['window']}")
def test_golden_windows(case: dict[str, Any]) -> None:
    seed, offset = int(case["seed"]), int(case["offset"])
    place = {"stream": case["stream"], "window": case["window"]}
    for function, name in ((noise.uniforms, "uniforms"), (noise.normals, "normals")):
        values = function(seed, len(case[name]), offset=offset, **place)
        assert bits_of(values) == [int(bits, 16) for bits in case[name]]
    words = [scalar_word(seed, index=offset + i, **place) for i in range(10)]
    assert float64_of(case["uniforms"]).tolist() == [(word + 0.5) / 2**32 for word in words]


def test_golden_latents_of_windows() -> None:
    for case in GOLDEN["windows_sha256"]:
        latents = noise.initial_latents(
            int(case["seed"]), case["shape"], stream=case["stream"], window=case["window"]
        )
        assert hashlib.sha256(latents.astype("<f4").tobytes()).hexdigest() == case["sha256"]


def test_window_zero_is_the_default_and_pictures_have_windows_too() -> None:
    assert bits_of(noise.normals(7, 9, window=0)) == bits_of(noise.normals(7, 9))
    assert bits_of(noise.picture_noise(7, 2, 3, window=5)) == bits_of(
        noise.initial_latents(7, (1, 3, 2, 3), stream=noise.PICTURE_STREAM, window=5)
    )


def test_every_rule_has_a_number_of_its_own() -> None:
    text = (ROOT / "docs/noise.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"\*\*N(\d+)\.", text)]
    assert numbers == list(range(1, 22))
    assert "N1 to N21" in text


def test_golden_files_are_what_their_script_writes() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tests/golden/make_golden.py"), "--check"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_documented_values_are_what_the_code_gives() -> None:
    text = (ROOT / "docs/noise.md").read_text(encoding="utf-8")
    section = text.split("## 8.")[1]
    row = re.compile(
        r"^\| (\d+) \| (\d) \| (\d) \| `(\w{8})` \| `(\w{16})` \| `(\w{16})` \| (\S+) \| `(\w{8})`",
        re.MULTILINE,
    )
    rows = row.findall(section)
    assert len(rows) == 8
    for seed, stream, index, word, p_bits, x_bits, x, single_bits in rows:
        draw = {"seed": int(seed), "count": 1, "stream": int(stream), "offset": int(index)}
        normal = noise.normals(**draw)
        assert scalar_word(int(seed), int(stream), int(index)) == int(word, 16)
        assert bits_of(noise.uniforms(**draw)) == [int(p_bits, 16)]
        assert bits_of(normal) == [int(x_bits, 16)]
        assert normal.tolist() == [float(x)]
        assert struct.pack(">f", float(x)).hex() == single_bits
    window_row = re.compile(
        r"^\| (\d+) \| (\d+) \| (\d+) \| (\d) \| `(\w{8})` \| `(\w{16})` \| `(\w{8})`", re.MULTILINE
    )
    window_rows = window_row.findall(section)
    assert len(window_rows) == 5
    for seed, stream, window, index, word, x_bits, single_bits in window_rows:
        place = {"stream": int(stream), "window": int(window)}
        normal = noise.normals(int(seed), 1, offset=int(index), **place)
        assert scalar_word(int(seed), index=int(index), **place) == int(word, 16)
        assert bits_of(normal) == [int(x_bits, 16)]
        assert struct.pack(">f", normal[0]).hex() == single_bits
    digests = re.findall(r"^\| (\d+) \| `(\w{64})` \|", section, re.MULTILINE)
    assert digests == [(case["seed"], case["sha256"]) for case in GOLDEN["latents_sha256"]]
    for x_bits, ln_bits in re.findall(r"`(\w{16})` \| `(\w{16})` \| \S+ \|$", text, re.MULTILINE):
        assert bits_of(noise._natural_log(float64_of([x_bits]))) == [int(ln_bits, 16)]


def test_uniforms_are_odd_multiples_of_the_smallest_and_never_reach_the_ends() -> None:
    p = noise.uniforms(5, MILLION)
    steps = p * 2.0**33
    assert (steps == np.rint(steps)).all()
    assert (steps % 2.0 == 1.0).all()
    assert 0.0 < p.min() < 1e-5 < 1.0 - 1e-5 < p.max() < 1.0


def test_uniforms_fill_the_interval_evenly() -> None:
    counts, _ = np.histogram(noise.uniforms(6, MILLION), bins=1000, range=(0.0, 1.0))
    chi_squared = ((counts - 1000.0) ** 2 / 1000.0).sum()
    assert abs(chi_squared - 999.0) < 5.0 * math.sqrt(2.0 * 999.0)


def test_normals_have_the_moments_of_the_normal_distribution(
    million_normals: Normals,
) -> None:
    x = million_normals
    deviations = {
        "mean": x.mean() / math.sqrt(1.0 / MILLION),
        "variance": ((x**2).mean() - 1.0) / math.sqrt(2.0 / MILLION),
        "skewness": (x**3).mean() / math.sqrt(15.0 / MILLION),
        "kurtosis": ((x**4).mean() - 3.0) / math.sqrt(96.0 / MILLION),
    }
    assert all(abs(value) < 4.5 for value in deviations.values()), deviations


def test_normals_follow_the_normal_distribution_function(
    million_normals: Normals,
) -> None:
    x = np.sort(million_normals).tolist()
    cdf = np.array([0.5 * (1.0 + math.erf(value / math.sqrt(2.0))) for value in x])
    ranks = np.arange(MILLION + 1) / MILLION
    distance = max((ranks[1:] - cdf).max(), (cdf - ranks[:-1]).max())
    assert distance * math.sqrt(MILLION) < 1.95  # Kolmogorov-Smirnov, 0.1 %


@pytest.mark.parametrize("threshold", [1.0, 2.0, 3.0, 4.0, 4.5])
@pytest.mark.parametrize("side", [-1.0, 1.0], ids=["lower", "upper"])
def test_normals_have_the_tails_of_the_normal_distribution(
    million_normals: Normals, threshold: float, side: float
) -> None:
    expected = MILLION * 0.5 * math.erfc(threshold / math.sqrt(2.0))
    count = np.count_nonzero(side * million_normals > threshold)
    assert abs(count - expected) < 4.5 * math.sqrt(expected)


def test_neighbours_in_a_stream_are_uncorrelated(
    million_normals: Normals,
) -> None:
    for lag in (1, 2, 3, 4, 64, 1024):
        correlation = (million_normals[:-lag] * million_normals[lag:]).mean()
        assert abs(correlation) * math.sqrt(MILLION) < 4.5


@pytest.mark.parametrize(
    ("seed", "stream", "window"),
    [
        *((7, 1, 0), (7, 2, 0), (7, 2**31, 0)),
        *((8, 0, 0), (7 + 2**32, 0, 0), (7 << 32, 0, 0), (2**64 - 8, 0, 0)),
        *((7, 0, 1), (7, 0, 2**31), (7, 1, 1)),
    ],
)
def test_streams_windows_and_seeds_are_disjoint_and_uncorrelated(
    seed: int, stream: int, window: int
) -> None:
    count = 100_000
    first = noise.uniforms(7, count)
    other = noise.uniforms(seed, count, stream=stream, window=window)
    assert np.count_nonzero(first == other) <= 2
    # 10^5 words twice, of 2^32: a chance meeting happens 2.3 times on average.
    assert len(np.intersect1d(first, other)) < 12
    correlation = 12.0 * ((first - 0.5) * (other - 0.5)).mean()
    assert abs(correlation) * math.sqrt(count) < 4.5


@pytest.mark.parametrize("base", [0, 4096, 2**34 - 8, 2**65])
def test_offset_continues_the_stream(base: int) -> None:
    whole = noise.normals(7, 64, stream=2, offset=base)
    for skip in range(9):
        for count in (0, 1, 2, 3, 4, 5, 17):
            part = noise.normals(7, count, stream=2, offset=base + skip)
            assert bits_of(part) == bits_of(whole[skip : skip + count])


def test_last_number_of_a_stream_can_be_drawn() -> None:
    assert noise.uniforms(7, 1, offset=2**66 - 1).tolist() == [
        (scalar_word(7, 0, 2**66 - 1) + 0.5) / 2**32
    ]
    assert noise.uniforms(7, 0, offset=2**66).shape == (0,)


def test_latents_are_the_stream_in_c_order_rounded_once() -> None:
    latents = noise.initial_latents(7, (2, 3, 5), stream=4)
    assert latents.dtype == np.float32
    assert latents.shape == (2, 3, 5)
    assert latents.flags.c_contiguous
    expected = noise.normals(7, 30, stream=4)
    assert latents.ravel().tolist() == [
        struct.unpack("f", struct.pack("f", value))[0] for value in expected.tolist()
    ]


@pytest.mark.parametrize(
    "call",
    [
        lambda: noise.normals(-1, 4),
        lambda: noise.normals(2**64, 4),
        lambda: noise.normals(1.5, 4),  # type: ignore[arg-type]
        lambda: noise.normals("7", 4),  # type: ignore[arg-type]
        lambda: noise.normals(7, -1),
        lambda: noise.normals(7, 4, stream=-1),
        lambda: noise.normals(7, 4, stream=2**32),
        lambda: noise.normals(7, 4, window=-1),
        lambda: noise.normals(7, 4, window=2**32),
        lambda: noise.initial_latents(7, (2,), window=0.5),  # type: ignore[arg-type]
        lambda: noise.picture_noise(7, 2, 2, window=2**32),
        lambda: noise.normals(7, 4, offset=-1),
        lambda: noise.normals(7, 4, offset=2**66 - 3),
        lambda: noise.initial_latents(7, (2, 0)),
        lambda: noise.initial_latents(7, (2, -3)),
        lambda: noise.initial_latents(7, (2, 3.0)),  # type: ignore[arg-type]
    ],
)
def test_arguments_out_of_range_are_refused_in_one_line(call: Any) -> None:
    with pytest.raises(InputError, match=r" is .*; allowed: ") as caught:
        call()
    assert isinstance(caught.value, MvsdkError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_numpy_integers_are_accepted_as_seeds() -> None:
    assert bits_of(noise.normals(np.uint64(7), 8)) == bits_of(noise.normals(7, 8))  # type: ignore[arg-type]


def test_a_clip_of_latents_takes_milliseconds() -> None:
    best_s = math.inf
    for _ in range(30):
        start = time.perf_counter()
        noise.normals(7, 8192)
        best_s = min(best_s, time.perf_counter() - start)
    assert best_s < 0.004
