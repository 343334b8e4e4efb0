"""Core AI assets: what Apple's runtime computes of them, and what they say of themselves."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coreai")
pytest.importorskip("coreai_torch")

import torch.nn.functional as F  # noqa: E402
from core_ai import MARKS, Arrays, run_asset, run_network, sqnr_db  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import mvsdk  # noqa: E402
from mvsdk.manifest import TensorSpec  # noqa: E402
from mvsdk_export.errors import (  # noqa: E402
    CompressionError,
    ExportError,
)
from mvsdk_export.graphs.capture import PixelBorders, capture  # noqa: E402
from mvsdk_export.quantize.weights import compress  # noqa: E402
from mvsdk_export.targets.coreai.implementations import (  # noqa: E402
    write_convolutions_,
)
from mvsdk_export.targets.coreai.lowering import (  # noqa: E402
    PIXELS,
    AssetReport,
    lower_coreai,
    lower_coreai_functions,
)
from mvsdk_export.targets.coreai.weights import find_weights, scheme_of  # noqa: E402

pytestmark = MARKS

WIDTH = 32


class Small(nn.Module):
    """Every kind of weight that is compressed, attention, and both kinds of normalisation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(64, WIDTH)
        self.first = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.norm = nn.GroupNorm(4, WIDTH)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.token_norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.last = nn.Conv2d(WIDTH, 3, 1)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """Map `(N, 3, H, W)` in [0, 1] and words `(1, L)` to `(N, 3, H, W)` in [0, 1]."""
        h = self.second(F.silu(self.norm(self.first(x))))
        tokens = h.flatten(2).transpose(1, 2) + self.words(ids).mean(dim=1)
        q, k, v = (
            self.qkv(self.token_norm(tokens)).unflatten(2, (6, -1)).transpose(1, 2).split(2, 1)
        )
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens.shape)
        return torch.sigmoid(self.last((tokens + out).transpose(1, 2).reshape(h.shape)))


def examples(size: int = 8) -> dict[str, Tensor]:
    return {"x": torch.zeros(2, 3, size, size), "ids": torch.zeros(1, 5, dtype=torch.int32)}


def feed(seed: int = 0, size: int = 8) -> Arrays:
    random = np.random.default_rng(seed)
    return {
        "x": random.random((2, 3, size, size), np.float32),
        "ids": random.integers(0, 64, (1, 5), dtype=np.int32),
    }


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, AssetReport]]:
    """Return precision -> asset of a `Small` and its report: only read them."""
    folder = tmp_path_factory.mktemp("assets")
    found: dict[str, tuple[Path, AssetReport]] = {}
    for precision in ("fp32", "fp16", "w8", "w6", "w4"):
        path = folder / f"{precision}.aimodel"
        report = lower_coreai(Small(), examples(), ["y"], path, precision=precision)
        found[precision] = path, report
    return found


# --- what is computed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "least_db"),
    [("fp32", 100.0), ("fp16", 55.0), ("w8", 40.0), ("w6", 30.0), ("w4", 20.0)],
)
def test_runtime_computes_what_pytorch_does(
    assets: dict[str, tuple[Path, AssetReport]], precision: str, least_db: float
) -> None:
    path, _ = assets[precision]
    for seed in range(3):
        (found,) = run_asset(path, feed(seed)).values()
        assert sqnr_db(found, run_network(Small(), feed(seed))) >= least_db


def test_names_shapes_and_types_are_those_that_the_runtime_sees(
    assets: dict[str, tuple[Path, AssetReport]],
) -> None:
    from coreai.authoring import AIModelAsset

    for precision, (path, report) in assets.items():
        real = "float32" if precision == "fp32" else "float16"
        assert report.inputs == (
            TensorSpec(name="x", shape=(2, 3, 8, 8), dtype=real),
            TensorSpec(name="ids", shape=(1, 5), dtype="int32"),
        )
        assert report.outputs == (TensorSpec(name="y", shape=(2, 3, 8, 8), dtype=real),)
        summary = AIModelAsset.load(path).summary(include_statistics=False)
        assert summary is not None
        assert [name for name, _ in summary.function_inputs("main")] == ["x", "ids"]
        assert [name for name, _ in summary.function_outputs("main")] == ["y"]
        (found,) = run_asset(path, feed()).values()
        assert found.dtype == real


def test_fewer_bits_take_fewer_bytes(assets: dict[str, tuple[Path, AssetReport]]) -> None:
    weights = sum(x.numel() for x in Small().parameters() if x.dim() > 1)
    overhead = size_of(assets["fp32"][0]) - 4 * weights
    for precision, bits in (("fp16", 16), ("w8", 8), ("w6", 6), ("w4", 4)):
        # Scales and palettes come on top: these weights are small.
        assert size_of(assets[precision][0]) < weights * bits / 8 + overhead + 8000


@pytest.mark.parametrize("precision", ["w8", "w6"])
def test_weights_are_decoded_bit_by_bit(
    assets: dict[str, tuple[Path, AssetReport]], tmp_path: Path, precision: str
) -> None:
    network = Small()
    module = capture(Small(), examples(), rewrite=write_convolutions_).module(check_guards=False)
    assert len(find_weights(module)) == 3  # two convolutions are too small to be worth it
    for name, weight in network.named_parameters():
        if weight.dim() > 1 and weight.numel() >= 1024:
            scheme = scheme_of(weight.shape, precision, None)
            dense = compress(name, weight.detach().numpy(), scheme).dense
            weight.data = torch.from_numpy(dense.astype(np.float32))
    path = tmp_path / "dense.aimodel"
    lower_coreai(network, examples(), ["y"], path, precision="fp16")
    wanted = run_asset(path, feed())["y"]
    assert (run_asset(assets[precision][0], feed())["y"] == wanted).all()


def test_recorded_calls_give_weights_more_bits_where_the_output_needs_them(tmp_path: Path) -> None:
    report = lower_coreai(
        Small(),
        examples(),
        ["y"],
        tmp_path / "mixed.aimodel",
        precision="w4",
        feeds=[feed(seed) for seed in range(3)],
        target_db=38.0,
    )
    assert report.assignment is not None
    assert report.assignment.sqnr_db >= 38.0
    assert 4 < report.assignment.bits < 16
    (found,) = run_asset(tmp_path / "mixed.aimodel", feed(7)).values()
    assert sqnr_db(found, run_network(Small(), feed(7))) >= 36.0


def test_measuring_takes_recorded_calls(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="no recorded calls to measure on"):
        lower_coreai(
            Small(), examples(), ["y"], tmp_path / "x.aimodel", precision="w8", target_db=40.0
        )


def test_palettes_for_channels_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="palettes for 5 each do not divide"):
        lower_coreai(Small(), examples(), ["y"], tmp_path / "x.aimodel", precision="w4", group=5)


@pytest.mark.parametrize(("precision", "most"), [("fp32", 0), ("fp16", 1), ("w8", 3)])
def test_pixels_cross_as_bytes(tmp_path: Path, precision: Any, most: int) -> None:
    network = PixelBorders(Small(), ["x", "ids"], ["y"], pixel_inputs=["x"], pixel_outputs=["y"])
    inputs = {**examples(), "x": examples()["x"].to(PIXELS)}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    values = {**feed(), "x": pixels}
    options: dict[str, Any] = {}
    if precision == "w8":  # where rounding would stop gradients
        options = {"feeds": [{**values, "x": pixels.astype(np.float32)}], "target_db": 40.0}
    path = tmp_path / "bytes.aimodel"
    report = lower_coreai(network, inputs, ["y"], path, precision=precision, **options)
    assert [spec.dtype for spec in (*report.inputs, *report.outputs)] == ["uint8", "int32", "uint8"]
    found = run_asset(path, values)["y"]
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - run_network(network, values)).max() <= most


# --- what it says of itself ----------------------------------------------------------------------


def test_report_names_what_breaks_a_rule_of_the_neural_engine(
    assets: dict[str, tuple[Path, AssetReport]], tmp_path: Path
) -> None:
    (_, single), (_, half) = assets["fp32"], assets["fp16"]
    assert len(single.against_rules) == sum(single.operators.values())
    assert {x.reason.split(",")[0] for x in single.against_rules} <= {"float32", "int32"}
    assert {x.reason.split(",")[0] for x in half.against_rules} <= {"int32"}
    assert single.delegation is None
    assert half.delegation is not None
    assert half.delegation.basis == "rules"
    assert half.delegation.non_delegated == half.against_rules
    assert half.delegation.delegated + len(half.delegation.non_delegated) == sum(
        half.operators.values()
    )
    assert single.operators == half.operators
    assert single.operators["group_norm"] == single.operators["layer_norm"] == 1

    class Wide(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, 2, 2, 2, 2, 2).permute(5, 0, 4, 1, 3, 2).reshape(8, 8) * 2

    wide = lower_coreai(
        Wide(), {"x": torch.zeros(8, 8)}, ["y"], tmp_path / "wide.aimodel", precision="fp16"
    )
    assert wide.largest_rank == 6
    reason = "6 axes, the Neural Engine takes 5 [apple-rules]"
    assert {(x.operator, x.reason) for x in wide.against_rules} == {
        ("reshape", reason),
        ("transpose", reason),
    }


def test_metadata_says_tools_author_and_licence_and_no_date(tmp_path: Path) -> None:
    path = tmp_path / "said.aimodel"
    said = {"author": "somebody", "license": "Apache-2.0", "mvsdk.component": "unet"}
    lower_coreai(nn.ReLU(), {"x": torch.zeros(1, 4)}, ["y"], path, precision="fp32", metadata=said)
    from coreai.authoring import AIModelAsset

    found = AIModelAsset.load(path).metadata
    assert (found.author, found.license, found.creation_date) == ("somebody", "Apache-2.0", None)
    own = json.loads((path / "metadata.json").read_text())["creatorDefinedMetadata"]
    tools = ("coreai-core", "coreai-torch", "coreai-opt", "torch")
    versions = {name: importlib.metadata.version(name) for name in tools}
    assert own == {**versions, "mvsdk": mvsdk.__version__, "mvsdk.component": "unet"}
    assert sorted(x.name for x in path.iterdir()) == ["main.hash", "main.mlirb", "metadata.json"]


def test_equal_networks_give_equal_bytes(
    assets: dict[str, tuple[Path, AssetReport]], tmp_path: Path
) -> None:
    first, again = assets["w6"][0], tmp_path / "again.aimodel"
    lower_coreai(Small(), examples(), ["y"], again, precision="w6")
    for file in first.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()


def test_no_asset_knows_the_machine_that_made_it(
    assets: dict[str, tuple[Path, AssetReport]],
) -> None:
    here = [Path(__file__).parents[2], Path(sys.prefix), Path.home(), Path(torch.__file__).parent]
    words = [str(x).encode() for x in here if len(x.parts) > 2]
    words += [b"site-packages", b"test_coreai", b".py", b"/tm" + b"p/"]
    for path, _ in assets.values():
        for file in path.iterdir():
            content = file.read_bytes()
            assert [word for word in words if word in content] == []
        assert "creationDate" not in json.loads((path / "metadata.json").read_text())


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "quiet.aimodel"
    lower_coreai(Small(), examples(), ["y"], path, precision="w4")
    assert capfd.readouterr() == ("", "")


def test_existing_asset_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.aimodel"
    path.mkdir()
    (path / "left.over").write_text("old")
    lower_coreai(nn.ReLU(), {"x": torch.zeros(1, 4)}, ["y"], path, precision="fp32")
    assert not (path / "left.over").exists()


# --- several sizes -------------------------------------------------------------------------------


def test_sizes_of_a_network_share_their_weights(tmp_path: Path) -> None:
    class Sizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in range(3))
            self.tokens = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = x + torch.tanh(layer(x))
            return self.tokens(x.flatten(2).transpose(1, 2))

    sizes = {f"size_{n}": {"x": torch.randn(1, 64, n, n)} for n in (4, 8)}
    one, both = tmp_path / "one.aimodel", tmp_path / "both.aimodel"
    lower_coreai(Sizes(), sizes["size_4"], ["y"], one, precision="w8")
    functions = {name: (Sizes(), inputs) for name, inputs in sizes.items()}
    reports = lower_coreai_functions(functions, ["y"], both, precision="w8")
    assert size_of(both) < 1.1 * size_of(one)
    for name, inputs in sizes.items():
        assert reports[name].inputs[0].shape == tuple(inputs["x"].shape)
        values = {"x": inputs["x"].numpy()}
        found = run_asset(both, values, name)["y"]
        assert sqnr_db(found, run_network(Sizes(), values)) >= 35


def test_folder_has_the_suffix_of_an_asset_and_at_least_one_function(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"cannot be called 'x.mlpackage'; end it with .aimodel"):
        lower_coreai(Small(), examples(), ["y"], tmp_path / "x.mlpackage", precision="fp32")
    with pytest.raises(ExportError, match=r"x.aimodel would have no function"):
        lower_coreai_functions({}, ["y"], tmp_path / "x.aimodel", precision="fp32")
