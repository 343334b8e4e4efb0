"""Programs for XNNPACK in float32: what ExecuTorch's runtime computes of them."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("executorch", reason="needs the extra executorch")
pytest.importorskip("coremltools", reason="needs the extra apple")

from core_ai import sqnr_db  # noqa: E402
from core_ml import examples, feeds, run_network  # noqa: E402
from executorch_programs import MARKS, run_program, uneven_stack  # noqa: E402
from torch import Tensor, fx, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from mvsdk_export.graphs.capture import PixelBorders  # noqa: E402
from mvsdk_export.graphs.memory import shared_weights  # noqa: E402
from mvsdk_export.targets.executorch.lowering import delegates_of, lower_xnnpack  # noqa: E402

pytestmark = MARKS


@pytest.fixture(scope="module")
def xnnpack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a float32 program for XNNPACK."""
    path = tmp_path_factory.mktemp("xnnpack") / "model.pte"
    lower_xnnpack(uneven_stack(), examples(), path)
    return path


def test_float32_program_computes_what_pytorch_does(xnnpack: Path) -> None:
    for feed in feeds():
        assert sqnr_db(run_program(xnnpack, feed), run_network(uneven_stack(), feed)) > 100


def test_lowering_shares_the_weights_and_leaves_them_as_they_were(tmp_path: Path) -> None:
    network = uneven_stack()
    before = {name: x.clone() for name, x in network.state_dict().items()}
    lower_xnnpack(network, examples(), tmp_path / "model.pte")
    for name, x in network.state_dict().items():
        assert torch.equal(x, before[name]), name

    with shared_weights():
        shared = copy.deepcopy(network)
    apart = copy.deepcopy(network)
    assert shared.first is not network.first
    assert shared.first.weight is network.first.weight
    assert apart.first.weight.data_ptr() != network.first.weight.data_ptr()


def test_operators_left_outside_are_named_with_the_reason(tmp_path: Path) -> None:
    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(16, 8)
            self.out = nn.Linear(8, 8)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.words(ids))

    ids = {"ids": torch.zeros(1, 4, dtype=torch.int32)}
    delegation = lower_xnnpack(Lookup().eval(), ids, tmp_path / "model.pte")
    assert [(x.operator, x.reason) for x in delegation.non_delegated] == [
        ("embedding", "XNNPACK looks nothing up")
    ]
    assert delegation.delegated > 0
    assert len(delegation.non_delegated) == 1


class _Sampled(nn.Module):
    """Operators that XNNPACK has no kernel for, but for others that compute the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(8)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        self.bare = nn.LayerNorm(8, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(2, 4, 6, 8)` to as much."""
        a, b = x.chunk(2, dim=1)
        c, d, _ = x.split([1, 2, 1], dim=1)
        scores = torch.softmax(self.norm(a) @ self.bare(b).transpose(2, 3), dim=1)
        mixed = scores @ d + c.squeeze(1).unsqueeze(1) * 0.5 - x[:, 0, None]
        wide = F.interpolate(mixed[..., ::2], scale_factor=(1.0, 2.0), mode="nearest")
        sums = x.sum(dim=(1, 3)).mean(dim=1).reshape(2, 1, 1, 1)
        means = x.mean(dim=1, keepdim=True) + sums / 3
        shared = x[:1, :1].expand(2, 4, 6, 8) @ x[0, :1].transpose(1, 2)
        waves = torch.sin(x - torch.round(x)) + torch.zeros_like(x) + 2.0
        return (
            torch.cat([wide, -wide], dim=1) + means + waves + shared.mean(dim=(2, 3), keepdim=True)
        )


def test_what_xnnpack_lacks_is_written_in_what_it_has(tmp_path: Path) -> None:
    x = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    network = _Sampled().eval()
    path = tmp_path / "model.pte"
    delegation = lower_xnnpack(network, {"x": x}, path)
    assert not delegation.non_delegated
    with torch.no_grad():
        assert sqnr_db(run_program(path, {"x": x.numpy()}), network(x).numpy()) > 100


@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(lambda x: x.mean(dim=(0, 1, 2, 3)) * 2.0, id="numbers without axes"),
        pytest.param(lambda x: torch.round(x * 2) * 0.5, id="halves to even"),
        pytest.param(lambda x: F.interpolate(x, scale_factor=3.4), id="odd factors"),
        pytest.param(lambda x: (x > 0).sum(dim=1, dtype=torch.float32), id="sums of truths"),
    ],
)
def test_what_other_forms_would_not_compute_is_left(
    compute: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return compute(x)

    x = np.arange(-8, 8, dtype=np.float32).reshape(1, 2, 2, 4) / 4
    path = tmp_path / "model.pte"
    lower_xnnpack(Network(), {"x": torch.from_numpy(x)}, path)
    wanted = compute(torch.from_numpy(x)).numpy()
    assert run_program(path, {"x": x}).shape == wanted.shape
    np.testing.assert_allclose(run_program(path, {"x": x}), wanted, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_softmax_beside_convolutions_is_over_its_own_axis(axis: int, tmp_path: Path) -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.before = nn.Conv2d(4, 4, 3, padding=1)
            self.after = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(torch.softmax(8 * self.before(x), dim=axis))

    network, path = Beside().eval(), tmp_path / "model.pte"
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 6)).astype(np.float32)
    lower_xnnpack(network, {"x": torch.from_numpy(x)}, path)
    assert sqnr_db(run_program(path, {"x": x}), run_network(network, {"x": x})) > 100


def test_pixels_are_rounded_as_every_target_rounds_them(tmp_path: Path) -> None:
    borders = PixelBorders(nn.Identity(), ["x"], ["y"], pixel_outputs=["y"])
    x = np.array([[0.5 / 255, 1.5 / 255, 2.5 / 255, 1.0, 0.0]], dtype=np.float32)
    path = tmp_path / "model.pte"
    delegation = lower_xnnpack(borders, {"x": torch.from_numpy(x)}, path)
    assert [item.operator for item in delegation.non_delegated] == ["round", "_to_dim_order_copy"]
    np.testing.assert_array_equal(run_program(path, {"x": x}), np.rint(x * np.float32(255)))


def test_weights_can_lie_beside_the_program(tmp_path: Path, xnnpack: Path) -> None:
    path = tmp_path / "model.pte"
    lower_xnnpack(uneven_stack(), examples(), path, external_weights=True)
    weights = path.with_suffix(".ptd")
    assert weights.stat().st_size > 300_000
    assert path.stat().st_size < xnnpack.stat().st_size / 2
    for feed in feeds(1):
        np.testing.assert_array_equal(run_program(path, feed), run_program(xnnpack, feed))


def test_record_for_developer_tools_is_kept_on_request(tmp_path: Path) -> None:
    lower_xnnpack(uneven_stack(), examples(), tmp_path / "model.pte", etrecord=True)
    with zipfile.ZipFile(tmp_path / "etrecord.bin") as record:
        assert "edge_dialect_exported_program" in " ".join(record.namelist())


def test_equal_networks_give_equal_programs(tmp_path: Path, xnnpack: Path) -> None:
    lower_xnnpack(uneven_stack(), examples(), tmp_path / "model.pte")
    assert (tmp_path / "model.pte").read_bytes() == xnnpack.read_bytes()


def test_what_can_wait_costs_no_delegate() -> None:
    graph = fx.Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    outside = graph.call_function(torch.round, (x,))
    a = graph.call_function(torch.sin, (outside,))
    b = graph.call_function(torch.cos, (y,))
    c = graph.call_function(torch.add, (a, b))
    graph.output((c,))
    parts = delegates_of(graph, [[a], [b], [c]])
    assert parts is not None
    assert [set(part) for part in parts] == [{a, b, c}]


def test_delegates_are_parted_by_what_is_left_outside() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    a = graph.call_function(torch.sin, (x,))
    outside = graph.call_function(torch.round, (a,))
    aside = graph.call_function(torch.cos, (x,))
    scale = graph.call_function(torch.abs, (x,))
    b = graph.call_function(torch.mul, (outside, scale))
    c = graph.call_function(torch.add, (b, aside))
    late = graph.call_function(torch.add, (scale, aside))
    graph.output((c, late))
    parts = delegates_of(graph, [[a], [aside], [b, scale], [c], [late]])
    # What quantises a layer's weights, say, goes with the layer; what can wait does.
    assert parts is not None
    assert [set(part) for part in parts] == [{a}, {aside, b, scale, c, late}]
    assert delegates_of(graph, [[a, b], [aside], [scale], [c], [late]]) is None
