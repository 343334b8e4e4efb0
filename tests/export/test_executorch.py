"""ExecuTorch programs: what its runtime, and the checker of Core ML, compute of them."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("executorch", reason="needs the extra executorch")
pytest.importorskip("coremltools", reason="needs the extra apple")

from core_ml import Stack, examples, feeds, run_network  # noqa: E402
from torch import Tensor, fx, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from mvsdk.errors import BundleError  # noqa: E402
from mvsdk_export.checker import load_program  # noqa: E402
from mvsdk_export.checker.delegated import extract_package  # noqa: E402
from mvsdk_export.errors import CompressionError, ExportError, UnsupportedOpError  # noqa: E402
from mvsdk_export.targets.capture import PixelBorders  # noqa: E402
from mvsdk_export.targets.executorch import delegates_of, lower_xnnpack  # noqa: E402
from mvsdk_export.targets.executorch_8bit import lower_xnnpack_8bit  # noqa: E402
from mvsdk_export.targets.executorch_coreml import lower_coreml_delegate  # noqa: E402
from mvsdk_export.targets.memory import shared_weights  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.executorch,
    # of PyTorch, inside what ExecuTorch does with it
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def _network() -> nn.Module:
    """Return a network whose weights differ more than those of training do at first."""
    network = Stack().eval()
    with torch.no_grad():
        network.first.weight.mul_(2.0)
    return network


def _run(path: Path, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    from executorch.runtime import Runtime

    weights = path.with_suffix(".ptd")
    beside = weights if weights.exists() else None
    program = Runtime.get().load_program(path, data_path=beside)
    (made,) = program.load_method("forward").execute([torch.from_numpy(x) for x in feed.values()])
    return made.numpy()


def _db(wanted: NDArray[Any], given: NDArray[Any]) -> float:
    noise = np.square(wanted.astype(np.float64) - given).sum()
    return 10 * np.log10(np.square(wanted.astype(np.float64)).sum() / noise)


@pytest.fixture(scope="module")
def xnnpack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a float32 program for XNNPACK."""
    path = tmp_path_factory.mktemp("xnnpack") / "model.pte"
    lower_xnnpack(_network(), examples(), path)
    return path


@pytest.fixture(scope="module")
def delegated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a program that holds a Core ML package."""
    path = tmp_path_factory.mktemp("coreml") / "model.pte"
    lower_coreml_delegate(_network(), examples(), path, deployment_target="iOS18")
    return path


def test_float32_program_computes_what_pytorch_does(xnnpack: Path) -> None:
    for feed in feeds():
        assert _db(run_network(_network(), feed), _run(xnnpack, feed)) > 100


def test_lowering_shares_the_weights_and_leaves_them_as_they_were(tmp_path: Path) -> None:
    network = _network()
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
    residency = lower_xnnpack(Lookup().eval(), ids, tmp_path / "model.pte")
    assert [(x.operator, x.reason) for x in residency.left_outside] == [
        ("embedding", "XNNPACK looks nothing up")
    ]
    assert residency.npu_nodes > 0
    assert residency.cpu_nodes == 1


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
    residency = lower_xnnpack(network, {"x": x}, path)
    assert not residency.left_outside
    with torch.no_grad():
        assert _db(network(x).numpy(), _run(path, {"x": x.numpy()})) > 100


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
    assert _run(path, {"x": x}).shape == wanted.shape
    np.testing.assert_allclose(_run(path, {"x": x}), wanted, atol=1e-6)


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
    assert _db(run_network(network, {"x": x}), _run(path, {"x": x})) > 100


def test_pixels_are_rounded_as_every_target_rounds_them(tmp_path: Path) -> None:
    borders = PixelBorders(nn.Identity(), ["x"], pixel_outputs=["y"])
    x = np.array([[0.5 / 255, 1.5 / 255, 2.5 / 255, 1.0, 0.0]], dtype=np.float32)
    path = tmp_path / "model.pte"
    residency = lower_xnnpack(borders, {"x": torch.from_numpy(x)}, path)
    assert [item.operator for item in residency.left_outside] == ["round", "_to_dim_order_copy"]
    np.testing.assert_array_equal(_run(path, {"x": x}), np.rint(x * np.float32(255)))


def test_weights_can_lie_beside_the_program(tmp_path: Path, xnnpack: Path) -> None:
    path = tmp_path / "model.pte"
    lower_xnnpack(_network(), examples(), path, external_weights=True)
    weights = path.with_suffix(".ptd")
    assert weights.stat().st_size > 300_000
    assert path.stat().st_size < xnnpack.stat().st_size / 2
    for feed in feeds(1):
        np.testing.assert_array_equal(_run(path, feed), _run(xnnpack, feed))


def test_record_for_developer_tools_is_kept_on_request(tmp_path: Path) -> None:
    lower_xnnpack(_network(), examples(), tmp_path / "model.pte", etrecord=True)
    with zipfile.ZipFile(tmp_path / "etrecord.bin") as record:
        assert "edge_dialect_exported_program" in " ".join(record.namelist())


def test_equal_networks_give_equal_programs(tmp_path: Path, xnnpack: Path) -> None:
    lower_xnnpack(_network(), examples(), tmp_path / "model.pte")
    assert (tmp_path / "model.pte").read_bytes() == xnnpack.read_bytes()


def test_layers_have_8_bits_as_far_as_the_output_bears_it(tmp_path: Path, xnnpack: Path) -> None:
    shares: list[int] = []
    for target in (20.0, 58.0):
        path = tmp_path / f"model{target:.0f}.pte"
        _, found = lower_xnnpack_8bit(_network(), examples(), feeds(8), path, target_db=target)
        assert found.sqnr_db >= target
        measured = min(_db(run_network(_network(), feed), _run(path, feed)) for feed in feeds(8))
        assert measured == pytest.approx(found.sqnr_db, abs=2.0)
        shares.append(len(found.layers))
    assert shares[0] == found.of
    assert 0 < shares[1] < shares[0]
    assert (tmp_path / "model20.pte").stat().st_size < 0.45 * xnnpack.stat().st_size


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
    assert _db(run_network(network, {"x": x}), _run(path, {"x": x})) > 30


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
    residency, found = lower_xnnpack_8bit(network, taken, [feed], path, target_db=20.0)
    assert not residency.left_outside
    assert len(found.layers) == found.of == 12
    (plan,) = deserialize_pte_binary(path.read_bytes()).program.execution_plan
    assert len(plan.delegates) == 1
    assert _db(run_network(network, feed), _run(path, feed)) > 30


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
    assert _db(run_network(network, feed), _run(path, feed)) > 30


def test_a_network_without_layers_stays_in_float32(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 8, dtype=np.float32)
    path = tmp_path / "model.pte"
    _, found = lower_xnnpack_8bit(
        nn.ReLU(), {"x": torch.from_numpy(x)}, [{"x": x}], path, target_db=30.0
    )
    assert (found.of, found.bits) == (0, 8)
    assert np.array_equal(_run(path, {"x": x}), x.clip(0))


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
    assert _db(run_network(network, feed), _run(path, feed)) > 20


def test_8_bits_want_recorded_calls(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="no recorded calls to measure on"):
        lower_xnnpack_8bit(_network(), examples(), [], tmp_path / "model.pte", target_db=30.0)
    assert not list(tmp_path.iterdir())


def test_package_inside_a_program_computes_what_pytorch_does(
    delegated: Path, tmp_path: Path
) -> None:
    package, borders = extract_package(delegated, tmp_path)
    assert len(borders.inputs) == 2
    program = load_program(package)
    for feed in feeds():
        made = program.run(dict(zip(borders.inputs, feed.values(), strict=True)))
        assert _db(run_network(_network(), feed), made[borders.outputs[0]]) > 55


def test_package_inside_a_program_is_held_to_the_rules_of_the_neural_engine(
    tmp_path: Path,
) -> None:
    class Waves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(x) * 2 + x

    path = tmp_path / "model.pte"
    residency = lower_coreml_delegate(
        Waves(), {"x": torch.zeros(1, 4, 8, 8)}, path, deployment_target="iOS17"
    )
    assert residency.basis == "rules"
    assert [item.operator for item in residency.left_outside] == ["sin"]
    assert [x.name for x in tmp_path.iterdir()] == ["model.pte"]


def test_what_core_ml_does_not_take_is_an_error(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.i0(x)

    with pytest.raises((UnsupportedOpError, ExportError), match="ExecuTorch refused model: "):
        lower_coreml_delegate(
            Odd(), {"x": torch.zeros(1, 4)}, tmp_path / "model.pte", deployment_target="iOS18"
        )
    assert not list(tmp_path.iterdir())


def _table(path: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    """Return a program up to the table of its delegate's files, what follows, and the table."""
    content = path.read_bytes()
    end = content.rindex(b':"sedon"{') + len(b':"sedon"{')
    table, length = json.JSONDecoder().raw_decode(content[:end][::-1].decode("latin-1"))
    return content[: end - length], content[end:], table


def _rename(table: dict[str, Any]) -> None:
    for node in table["nodes"]:
        if "weights" in node["children"]:
            node["children"][".."] = node["children"].pop("weights")


def _move(table: dict[str, Any]) -> None:
    table["nodes"][0]["dataRegion"]["offset"] = 1 << 40


def _nest(table: dict[str, Any]) -> None:
    table["nodes"][-1]["children"]["model.mlpackage"] = len(table["nodes"]) - 1


def _multiply(table: dict[str, Any]) -> None:
    """Let every folder lie twice in the next: 2^30 of the first."""
    table["nodes"][:] = [
        {"kind": 1, "children": {"a": place - 1, "b": place - 1} if place else {}}
        for place in range(30)
    ]


def _overlap(table: dict[str, Any]) -> None:
    region = max((x["dataRegion"] for x in table["nodes"] if x["kind"] != 1), key=_size)
    for node in table["nodes"]:
        if node["kind"] != 1:
            node["dataRegion"] = region


def _size(region: Mapping[str, int]) -> int:
    return region["size"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rename, "damaged or unsafe"),
        (_move, "damaged or unsafe"),
        (_nest, "damaged or unsafe"),
        (_multiply, "damaged or unsafe"),
        (_overlap, "files lie upon each other"),
        (lambda table: table["nodes"].clear(), "damaged or unsafe"),
        (lambda table: table["nodes"][-1].update(children={}), "has no metadata.json"),
    ],
)
def test_unsafe_tables_of_files_are_refused(
    delegated: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    before, after, table = _table(delegated)
    for node in table["nodes"]:
        del node["name"]  # which nothing reads; what changes may be longer
    change(table)
    written = json.dumps(table, separators=(",", ":")).encode()[::-1]
    whole = len(delegated.read_bytes()) - len(before) - len(after)
    assert len(written) <= whole
    path = tmp_path / "bad.pte"
    path.write_bytes(before + written.rjust(whole, b"\0") + after)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(BundleError, match=message):
        extract_package(path, out)
    assert not list(out.iterdir())


def test_what_is_no_program_for_core_ml_is_refused(
    xnnpack: Path, delegated: Path, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="calls 'XnnpackBackend', want CoreMLBackend"):
        extract_package(xnnpack, tmp_path)
    content = delegated.read_bytes()
    for name, bad in {
        "empty": b"",
        "text": b"not a program at all",
        "short": content[: len(content) // 2],
        "head": content[:40],
    }.items():
        path = tmp_path / f"{name}.pte"
        path.write_bytes(bad)
        with pytest.raises(BundleError, match=rf"the program {name}\.pte .*; export it again"):
            extract_package(path, tmp_path)
