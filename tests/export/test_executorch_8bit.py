"""Programs for XNNPACK in 8 bits: which layers, and what the runtime computes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("executorch", reason="needs the extra executorch")
pytest.importorskip("coremltools", reason="needs the extra apple")

from core_ai import sqnr_db  # noqa: E402
from core_ml import examples, feeds, run_network  # noqa: E402
from executorch_programs import MARKS, run_program, uneven_stack  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from mvsdk_export.errors import CompressionError  # noqa: E402
from mvsdk_export.targets.executorch.lowering import lower_xnnpack  # noqa: E402
from mvsdk_export.targets.executorch.quantized import lower_xnnpack_8bit  # noqa: E402

pytestmark = MARKS


@pytest.mark.exhaustive
def test_layers_have_8_bits_as_far_as_the_output_bears_it(tmp_path: Path) -> None:
    shares: list[int] = []
    for target in (20.0, 58.0):
        path = tmp_path / f"model{target:.0f}.pte"
        _, found = lower_xnnpack_8bit(uneven_stack(), examples(), feeds(8), path, target_db=target)
        assert found.sqnr_db >= target
        measured = min(
            sqnr_db(run_program(path, feed), run_network(uneven_stack(), feed)) for feed in feeds(8)
        )
        assert measured == pytest.approx(found.sqnr_db, abs=2.0)
        shares.append(len(found.layers))
    assert shares[0] == found.of
    assert 0 < shares[1] < shares[0]
    lower_xnnpack(uneven_stack(), examples(), tmp_path / "whole.pte")
    whole = (tmp_path / "whole.pte").stat().st_size
    assert (tmp_path / "model20.pte").stat().st_size < 0.45 * whole


def test_a_layer_that_is_called_twice_has_8_bits_in_both_calls(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Conv2d(8, 8, 3, padding=1)
            nn.init.constant_(self.layer.bias, 2.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(0.01 * self.layer(x))

    x = np.random.default_rng(0).standard_normal((1, 8, 8, 8)).astype(np.float32)
    path, network = tmp_path / "model.pte", Twice().eval()
    taken = {"x": torch.from_numpy(x)}
    _, found = lower_xnnpack_8bit(network, taken, [{"x": x}], path, target_db=10.0)
    assert len(found.layers) == found.of == 2
    assert sqnr_db(run_program(path, {"x": x}), run_network(network, {"x": x})) > 30


class _Attending(nn.Module):
    """A convolution, and attention whose linear layers share what they quantise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.time, self.out = nn.Linear(8, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map `(2, 16, 6, 6)` and `(2, 8)` to `(2, 16, 6, 6)`."""
        h = torch.tanh(self.conv(x)) + self.time(time)[:, :, None, None]
        tokens = h.flatten(2).transpose(1, 2)
        scores = self.query(tokens) @ self.key(tokens).transpose(1, 2) / 4
        attended = self.out(torch.softmax(scores, dim=-1) @ self.value(tokens))
        return h + attended.transpose(1, 2).reshape(h.shape)


class _AttendingTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = _Attending(), _Attending()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.second(self.first(x, time), time)


def test_8_bits_are_one_delegate_when_nothing_is_left_outside(tmp_path: Path) -> None:
    from executorch.exir._serialize._program import deserialize_pte_binary

    random = np.random.default_rng(0)
    feed = {
        "x": random.standard_normal((2, 16, 6, 6)).astype(np.float32),
        "time": random.standard_normal((2, 8)).astype(np.float32),
    }
    taken = {name: torch.from_numpy(x) for name, x in feed.items()}
    network, path = _AttendingTwice().eval(), tmp_path / "model.pte"
    delegation, found = lower_xnnpack_8bit(network, taken, [feed], path, target_db=20.0)
    assert not delegation.non_delegated
    assert len(found.layers) == found.of == 12
    (plan,) = deserialize_pte_binary(path.read_bytes()).program.execution_plan
    assert len(plan.delegates) == 1
    assert sqnr_db(run_program(path, feed), run_network(network, feed)) > 30


@pytest.mark.exhaustive
def test_layers_of_folded_weights_cost_what_they_cost(tmp_path: Path) -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            # It makes even what the input has of a thousand sizes, which share 256 steps.
            self.register_buffer("rows", torch.diag(torch.logspace(-2, 1, 8)))
            self.layer = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(F.linear(x, self.rows * 2).permute(0, 3, 1, 2))

    x = np.random.default_rng(0).standard_normal((1, 6, 6, 8)).astype(np.float32)
    feed, taken = {"x": x * np.logspace(2, -1, 8, dtype=np.float32)}, {"x": torch.from_numpy(x)}
    path, network = tmp_path / "model.pte", Folded().eval()
    _, found = lower_xnnpack_8bit(network, taken, [feed], path, target_db=30.0)
    assert found.of == 2
    assert set(found.layers) == {"conv2d"}
    assert sqnr_db(run_program(path, feed), run_network(network, feed)) > 30


def test_a_network_without_layers_stays_in_float32(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 8, dtype=np.float32)
    path = tmp_path / "model.pte"
    _, found = lower_xnnpack_8bit(
        nn.ReLU(), {"x": torch.from_numpy(x)}, [{"x": x}], path, target_db=30.0
    )
    assert (found.of, found.bits) == (0, 8)
    assert np.array_equal(run_program(path, {"x": x}), x.clip(0))


def test_weights_that_are_computed_stay_in_float32(tmp_path: Path) -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.linear(x, self.layer(y))

    random = np.random.default_rng(0)
    feed = {name: random.standard_normal((4, 4)).astype(np.float32) for name in ("x", "y")}
    taken = {name: torch.from_numpy(x) for name, x in feed.items()}
    network, path = Computed().eval(), tmp_path / "model.pte"
    _, found = lower_xnnpack_8bit(network, taken, [feed], path, target_db=20.0)
    assert found.of == 1
    assert sqnr_db(run_program(path, feed), run_network(network, feed)) > 20


def test_8_bits_want_recorded_calls(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="no recorded calls to measure on"):
        lower_xnnpack_8bit(uneven_stack(), examples(), [], tmp_path / "model.pte", target_db=30.0)
    assert not list(tmp_path.iterdir())
