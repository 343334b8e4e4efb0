"""Graphs that give several tensors, in every format: all are there, in order, and all count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from core_ai import MARKS as CORE_AI  # noqa: E402
from core_ai import run_asset, sqnr_db  # noqa: E402
from core_ml import run_package  # noqa: E402
from executorch_programs import MARKS as EXECUTORCH  # noqa: E402
from part_models import run_model  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mvsdk_export.families import find_recipe  # noqa: E402
from mvsdk_export.graphs.capture import PixelBorders  # noqa: E402
from mvsdk_export.graphs.onnx import export_onnx  # noqa: E402
from mvsdk_export.quantize.mixed import assign  # noqa: E402
from mvsdk_export.quantize.qdq import quantize_w8a16  # noqa: E402
from mvsdk_export.quantize.weights import FLOAT16, WeightScheme  # noqa: E402
from mvsdk_export.targets.coreai.lowering import lower_coreai  # noqa: E402
from mvsdk_export.targets.coreml.compress import compress_package  # noqa: E402
from mvsdk_export.targets.coreml.convert import convert  # noqa: E402
from mvsdk_export.targets.executorch.lowering import lower_xnnpack  # noqa: E402
from mvsdk_export.targets.executorch.quantized import lower_xnnpack_8bit  # noqa: E402
from mvsdk_export.targets.networks import OpenedNetwork, signature_of  # noqa: E402

pytestmark = pytest.mark.torch

OUTPUTS = ["small", "large"]
Arrays = dict[str, NDArray[Any]]


class Twins(nn.Module):
    """A layer, and two that read what it gives: what one gives is a hundredth of the other's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 48, 3, padding=1)
        self.small = nn.Conv2d(48, 48, 3, padding=1)
        self.large = nn.Conv2d(48, 48, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(1, 3, H, W)` to two of `(1, 48, H, W)`."""
        h = torch.tanh(self.first(x))
        return self.small(h) * 0.01, self.large(h)


def twins() -> nn.Module:
    return Twins().eval()


def examples() -> dict[str, Tensor]:
    return {"x": torch.zeros(1, 3, 8, 8)}


def feeds(count: int = 4) -> list[Arrays]:
    random = np.random.default_rng(0)
    return [{"x": random.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def check(run: Callable[[Arrays], Arrays], least_db: float) -> None:
    """Check each output against PyTorch."""
    for feed in feeds():
        with torch.no_grad():
            given = twins()(torch.from_numpy(feed["x"]))
        found = run(feed)
        for name, wanted in zip(OUTPUTS, given, strict=True):
            assert sqnr_db(found[name], wanted.numpy()) >= least_db, name


def test_each_output_keeps_what_is_wanted_whatever_its_size() -> None:
    ladder = [
        WeightScheme(kind="palette", bits=4),
        WeightScheme(kind="linear", bits=8),
        FLOAT16,
    ]
    names = ["small.weight", "large.weight"]
    found = assign(twins(), dict.fromkeys(names, ladder), feeds(), target_db=35.0)
    assert found.sqnr_db >= 35.0
    assert [found.schemes[name].bits for name in names] == [8, 8]


def test_those_of_the_outputs_that_are_pixels_cross_as_such() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return x, x / 255, x * 2

    graph = PixelBorders(Both(), ["x"], ["a", "b", "c"], pixel_outputs=["b"])
    x = torch.arange(4.0)
    a, b, c = graph(x)
    assert [value.dtype for value in (a, b, c)] == [torch.float32, torch.uint8, torch.float32]
    assert (a.tolist(), b.tolist(), c.tolist()) == ([0, 1, 2, 3], [0, 1, 2, 3], [0, 2, 4, 6])


@pytest.mark.parametrize("is_quantized", [False, True])
def test_onnx(tmp_path: Path, is_quantized: bool) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(twins(), examples(), OUTPUTS, path)
    if is_quantized:
        quantize_w8a16(path, tmp_path / "q.onnx", feeds(), split_last=True)
        path = tmp_path / "q.onnx"
    check(lambda feed: run_model(path, feed), 36 if is_quantized else 110)


class TestExecuTorch:
    """Programs, whose tensors have places and no names."""

    pytestmark = EXECUTORCH

    @staticmethod
    def run(path: Path) -> Callable[[Arrays], Arrays]:
        runtime = pytest.importorskip("executorch.runtime").Runtime.get()
        program = runtime.load_program(path)

        def run(feed: Arrays) -> Arrays:
            given = [torch.from_numpy(value) for value in feed.values()]
            made = program.load_method("forward").execute(given)
            return dict(zip(OUTPUTS, (value.numpy() for value in made), strict=True))

        return run

    def test_in_float32(self, tmp_path: Path) -> None:
        pytest.importorskip("executorch")
        lower_xnnpack(twins(), examples(), tmp_path / "model.pte")
        check(self.run(tmp_path / "model.pte"), 100)

    def test_in_8_bits(self, tmp_path: Path) -> None:
        pytest.importorskip("executorch")
        path = tmp_path / "model.pte"
        _, found = lower_xnnpack_8bit(twins(), examples(), feeds(), path, target_db=30.0)
        assert found.sqnr_db >= 30.0
        assert found.layers
        check(self.run(path), 28)

    def test_all_are_listed_with_their_types(self) -> None:
        subject = OpenedNetwork(
            recipe=find_recipe("sticker").components[0],
            network=PixelBorders(twins(), ["x"], OUTPUTS, pixel_outputs=["large"]),
            inputs=examples(),
            outputs=OUTPUTS,
        )
        found = [(row["name"], row["dtype"]) for row in signature_of(subject)["outputs"]]
        assert found == [("small", "float32"), ("large", "uint8")]


@pytest.mark.apple
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:coremltools")
def test_core_ml(tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    whole, small = tmp_path / "Twins.mlpackage", tmp_path / "small" / "Twins.mlpackage"
    convert(twins(), examples(), OUTPUTS, whole, deployment_target="iOS18")
    check(lambda feed: run_package(whole, feed), 50)
    small.parent.mkdir()
    found = compress_package(
        whole, twins(), examples(), feeds(), small, precision="w4", target_db=35.0
    )
    assert found.sqnr_db >= 35.0
    check(lambda feed: run_package(small, feed), 34)


class TestCoreAI:
    """Assets."""

    pytestmark = CORE_AI

    @pytest.mark.parametrize(("precision", "least_db"), [("fp16", 50.0), ("w4", 34.0)])
    def test_core_ai(self, tmp_path: Path, precision: Any, least_db: float) -> None:
        pytest.importorskip("coreai_torch")
        path = tmp_path / "twins.aimodel"
        options: dict[str, Any] = {"feeds": feeds(), "target_db": 35.0}
        report = lower_coreai(
            twins(),
            examples(),
            OUTPUTS,
            path,
            precision=precision,
            **(options if precision == "w4" else {}),
        )
        assert [spec.name for spec in report.outputs] == OUTPUTS
        check(lambda feed: run_asset(path, feed), least_db)
