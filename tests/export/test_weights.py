"""Weights in fewer bits: linear ones and palettes, and who gets how many."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from mvsdk_export.errors import CompressionError  # noqa: E402
from mvsdk_export.quantize.mixed import assign  # noqa: E402
from mvsdk_export.quantize.weights import (  # noqa: E402
    FLOAT16,
    Linear,
    Palette,
    WeightScheme,
    compress,
    divisor,
    fit_palette,
)

pytestmark = pytest.mark.torch

LINEAR = WeightScheme(kind="linear", bits=8)


def sqnr_db(found: np.ndarray, wanted: np.ndarray) -> float:
    noise = np.square(found.astype(np.float64) - wanted).sum()
    return float(10 * np.log10(np.square(wanted.astype(np.float64)).sum() / noise))


def gauss(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- palettes -------------------------------------------------------------------------------------


def test_palette_of_few_different_values_is_exact() -> None:
    values = np.array([-2.0, -0.5, 0.25, 3.0], np.float32)
    weight = np.random.default_rng(0).choice(values, (8, 16))
    found = compress("w", weight, WeightScheme(kind="palette", bits=2))
    assert isinstance(found, Palette)
    assert np.array_equal(found.dense, weight.astype(np.float16))
    assert sorted(set(found.values.ravel().tolist())) == values.tolist()


@pytest.mark.parametrize(("bits", "published_db"), [(1, 4.40), (2, 9.30), (3, 14.62), (4, 20.22)])
def test_palettes_of_gaussian_weights_reach_the_known_optimum(
    bits: int, published_db: float
) -> None:
    """Max 1960, doi:10.1109/TIT.1960.1057548, table I."""
    values = gauss(200_000)
    palette = fit_palette(values, 1 << bits)
    nearest = palette[np.abs(values[:, None] - palette).argmin(axis=1)]
    assert sqnr_db(nearest, values) == pytest.approx(published_db, abs=0.1)


def test_every_group_of_channels_has_a_palette_of_its_own() -> None:
    weight = np.concatenate([gauss(4, 64), 100 * gauss(4, 64, seed=1)])
    shared = compress("w", weight, WeightScheme(kind="palette", bits=4))
    apart = compress("w", weight, WeightScheme(kind="palette", bits=4, group=4))
    assert isinstance(apart, Palette)
    assert apart.values.shape == (2, 16)
    assert sqnr_db(apart.dense[:4], weight[:4]) > 18 > sqnr_db(shared.dense[:4], weight[:4])


def test_palette_that_does_not_divide_the_channels_is_refused_with_one_that_does() -> None:
    scheme = WeightScheme(kind="palette", bits=4, group=5)
    with pytest.raises(CompressionError, match=r"up\.w has 12 output channels.*--palette-group 4"):
        compress("up.w", gauss(12, 8), scheme)
    with pytest.raises(CompressionError, match="a palette of 5 bits; allowed: 1, 2, 3, 4, 6, 8"):
        compress("w", gauss(12, 8), WeightScheme(kind="palette", bits=5))


def test_bytes_are_those_of_indices_and_values() -> None:
    found = compress("w", gauss(32, 10), WeightScheme(kind="palette", bits=6, group=16))
    assert found.stored_bytes == 32 * 10 * 6 // 8 + 2 * 64 * 2


# --- linear ---------------------------------------------------------------------------------------


def test_linear_weights_have_a_scale_for_each_channel() -> None:
    weight = gauss(4, 3, 3, 3) * np.array([1e-3, 1, 10, 1e3], np.float32)[:, None, None, None]
    found = compress("w", weight, LINEAR)
    assert isinstance(found, Linear)
    assert found.scale.shape == (4, 1, 1, 1)
    for channel in range(4):
        assert sqnr_db(found.dense[channel], weight[channel]) > 36


def test_scales_by_blocks_follow_the_inputs() -> None:
    weight = gauss(8, 64, 3, 3)
    weight[:, 32:] *= 1e-3
    whole = compress("w", weight, LINEAR)
    blocks = compress("w", weight, WeightScheme(kind="linear", bits=8, block=32))
    assert isinstance(blocks, Linear)
    assert blocks.scale.shape == (8, 2, 1, 1)
    assert sqnr_db(blocks.dense[:, 32:], weight[:, 32:]) > 36
    assert sqnr_db(whole.dense[:, 32:], weight[:, 32:]) < 1
    with pytest.raises(CompressionError, match="64 inputs, which blocks of 48 do not divide"):
        compress("w", weight, WeightScheme(kind="linear", bits=8, block=48))


def test_weights_of_zero_stay_zero_and_what_is_not_finite_is_refused() -> None:
    assert not compress("w", np.zeros((4, 8), np.float32), LINEAR).dense.any()
    with pytest.raises(CompressionError, match="w holds numbers that are not finite"):
        compress("w", np.full((4, 8), np.inf, np.float32), LINEAR)


def test_divisor_is_the_largest_that_fits() -> None:
    assert [divisor(count, 16) for count in (64, 12, 36, 7, 34)] == [16, 12, 12, 7, 2]


# --- who gets how many bits -----------------------------------------------------------------------


class TwoBranches(nn.Module):
    """One matrix whose output is as good as the answer, one whose output hardly matters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loud = nn.Parameter(torch.randn(64, 64))
        self.quiet = nn.Parameter(torch.randn(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.loud.T + 1e-3 * torch.tanh(x @ self.quiet.T)


LADDER = [
    WeightScheme(kind="palette", bits=2),
    WeightScheme(kind="palette", bits=4),
    LINEAR,
    FLOAT16,
]


def test_bits_go_where_the_output_needs_them() -> None:
    network = TwoBranches()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    feeds = [{"x": gauss(3, 64, seed=seed)} for seed in range(5)]
    found = assign(network, {"loud": LADDER, "quiet": LADDER}, feeds, target_db=35.0)
    assert found.schemes["quiet"] == LADDER[0]
    assert found.schemes["loud"] == LINEAR
    assert found.sqnr_db >= 35.0
    assert found.bits == pytest.approx((8 + 2) / 2, abs=0.2)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
        assert not value.requires_grad


def test_measured_parity_is_that_of_the_compressed_weights() -> None:
    network = TwoBranches()
    feeds = [{"x": gauss(3, 64)}]
    found = assign(network, {"loud": LADDER, "quiet": LADDER}, feeds, target_db=10.0)
    with torch.no_grad():
        wanted = network(torch.from_numpy(feeds[0]["x"])).numpy()
        for name, weight in found.weights.items():
            dense = torch.from_numpy(weight.dense.astype(np.float32))
            network.get_parameter(name).copy_(dense)
        given = network(torch.from_numpy(feeds[0]["x"])).numpy()
    assert sqnr_db(given, wanted) == pytest.approx(found.sqnr_db, abs=1e-3)
    assert found.summary()["schemes"] == {str(LADDER[1]): 1, str(LADDER[0]): 1}


def test_what_no_scheme_reaches_keeps_the_largest() -> None:
    found = assign(
        TwoBranches(), {"loud": LADDER[:2], "quiet": LADDER}, [{"x": gauss(3, 64)}], target_db=90.0
    )
    assert found.schemes["loud"] == LADDER[1]
    assert found.sqnr_db < 90.0


def test_without_calls_there_is_nothing_to_measure() -> None:
    with pytest.raises(CompressionError, match="no recorded calls to measure on"):
        assign(TwoBranches(), {"loud": LADDER}, [], target_db=30.0)
