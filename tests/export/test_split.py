"""Cutting a model into parts, and joining what a compiler made of them."""

from __future__ import annotations

import importlib.util
import itertools
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from mvsdk.backends.native_output import captured_native_output
from mvsdk.backends.qnn import find_device, provider_options, register
from mvsdk.devices import find_chipset
from mvsdk_export.errors import ExportError
from mvsdk_export.networks.blocks import (
    GroupNorm,
    ResidualBlock,
    SpatialAttention,
    TemporalAttention,
    set_forms_,
)
from mvsdk_export.quantize.qdq import quantize_w8a16
from mvsdk_export.targets.onnx import (
    OPSET_VERSION,
    convert_float16,
    export_onnx,
    quantize_borders,
    save_model,
)
from mvsdk_export.targets.snapdragon import compile_context, read_residency, stitch_contexts
from mvsdk_export.targets.split import (
    Part,
    agree_float16,
    agree_quantized,
    crossing_values,
    split_model,
)
from mvsdk_export.verify import sqnr_db

pytestmark = pytest.mark.torch

Arrays = dict[str, NDArray[Any]]

FRAMES, CHANNELS, SIZE = 2, 32, 8
INPUTS = {"sample": (FRAMES, 4, SIZE, SIZE), "embedding": (1, 16)}
CHIP = find_chipset("sm8650").chip

needs_emulator = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None
    or platform.machine().lower() not in ("x86_64", "amd64"),
    reason="needs the extra snapdragon, and Qualcomm's emulator",
)


class Hourglass(nn.Module):
    """A small denoiser with skip connections, an embedding that every block reads, attention."""

    def __init__(self) -> None:
        super().__init__()
        wide = 2 * CHANNELS
        self.conv_in = nn.Conv2d(4, CHANNELS, 3, padding=1)
        self.down = ResidualBlock(CHANNELS, CHANNELS, embedding_dim=16)
        self.halve = nn.Conv2d(CHANNELS, wide, 3, stride=2, padding=1)
        self.attention = SpatialAttention(wide)
        self.frames = TemporalAttention(wide)
        self.middle = ResidualBlock(wide, wide, embedding_dim=16)
        self.up = ResidualBlock(wide + CHANNELS, CHANNELS, embedding_dim=16)
        self.norm = GroupNorm(16, 2 * CHANNELS)
        self.conv_out = nn.Conv2d(2 * CHANNELS, 4, 3, padding=1)
        for parameter in self.parameters():  # blocks start as identities otherwise
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)

    def forward(self, sample: Tensor, embedding: Tensor) -> Tensor:
        """Map `(F, 4, H, W)` and `(1, 16)` to `(F, 4, H, W)`."""
        first = self.conv_in(sample)
        skip = self.down(first, embedding)
        x = self.frames(self.attention(self.halve(skip)), FRAMES)
        x = nn.functional.interpolate(self.middle(x, embedding), scale_factor=2.0)
        x = self.up(torch.cat([x, skip], dim=1), embedding)
        return self.conv_out(self.norm(torch.cat([x, first], dim=1)))


@pytest.fixture(scope="module")
def hourglass(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the small denoiser as a model: only read it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("whole") / "model.onnx"
    inputs = {name: torch.zeros(shape) for name, shape in INPUTS.items()}
    export_onnx(set_forms_(Hourglass()), inputs, ["model_output"], path)
    return path


@pytest.fixture(scope="module")
def feeds() -> list[Arrays]:
    """Return some inputs of the small denoiser."""
    generator = np.random.default_rng(1)
    return [
        {name: generator.normal(size=shape).astype(np.float32) for name, shape in INPUTS.items()}
        for _ in range(4)
    ]


def run(path: Path, values: Mapping[str, NDArray[Any]]) -> Arrays:
    """Run a model as it stands: optimisers fuse differently in parts and in the whole."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _run(ort.InferenceSession(str(path), options, ["CPUExecutionProvider"]), values)


def _run(session: Any, values: Mapping[str, NDArray[Any]]) -> Arrays:
    names = [value.name for value in session.get_outputs()]
    found = session.run(names, {x.name: values[x.name] for x in session.get_inputs()})
    return dict(zip(names, found, strict=True))


def run_parts(parts: list[Part], values: Arrays) -> Arrays:
    for part in parts:
        values = values | run(part.path, values)
    return values


def to_external(source: Path, folder: Path) -> Path:
    """Write a model with every constant of some size in a file beside it."""
    onnx.save(
        onnx.load(source),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=256,
    )
    return folder / "model.onnx"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_parts_in_sequence_compute_exactly_what_the_whole_does(
    hourglass: Path, feeds: list[Arrays], tmp_path: Path, count: int, external: bool
) -> None:
    source = to_external(hourglass, tmp_path) if external else hourglass
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = split_model(source, folder, parts=count, most_bytes=1 << 30)
    assert len(parts) == count
    for part in parts:
        onnx.checker.check_model(str(part.path), full_check=True)
    found = run_parts(parts, feeds[0])["model_output"]
    assert (found == run(hourglass, feeds[0])["model_output"]).all()
    nodes = len(onnx.load(hourglass).graph.node)
    assert sum(part.nodes for part in parts) == nodes


def test_skip_connections_go_past_the_parts_between(hourglass: Path, tmp_path: Path) -> None:
    parts = split_model(hourglass, tmp_path, parts=4, most_bytes=1 << 30)
    inner = crossing_values(parts)
    assert set(parts[0].inputs) <= set(INPUTS)
    assert parts[-1].outputs == ("model_output",)
    passed = [x for x in parts[0].outputs if x not in parts[1].inputs]
    assert passed
    assert inner == {name for part in parts[:-1] for name in part.outputs}
    assert all(name not in parts[1].outputs for name in passed)


def test_parts_have_about_equal_weights_and_few_bytes_cross(
    hourglass: Path, tmp_path: Path
) -> None:
    parts = split_model(hourglass, tmp_path, parts=2, most_bytes=1 << 30)
    total = sum(part.weight_bytes for part in parts)
    assert all(0.35 < part.weight_bytes / total < 0.65 for part in parts)
    shapes = {x.name: x for x in onnx.load(parts[0].path).graph.output}
    sizes = [[d.dim_value for d in x.type.tensor_type.shape.dim] for x in shapes.values()]
    # the residual stream and the two skips; not what an attention or a normalisation has inside
    assert sorted(np.prod(sizes, axis=1)) <= [FRAMES * CHANNELS * SIZE * SIZE] * 3


def test_fewest_parts_below_the_limit_are_taken(hourglass: Path, tmp_path: Path) -> None:
    (whole,) = split_model(hourglass, tmp_path, most_bytes=1 << 30)
    parts = split_model(hourglass, tmp_path, most_bytes=int(whole.weight_bytes / 2.5))
    assert len(parts) == 3
    assert all(part.weight_bytes <= whole.weight_bytes / 2.5 for part in parts)


def test_limit_that_a_single_layer_exceeds_is_refused(hourglass: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"any number of parts of at most 0 MiB"):
        split_model(hourglass, tmp_path, most_bytes=1000)
    with pytest.raises(ExportError, match=r"into 2 parts of at most 0 MiB: it has \d+ MiB in"):
        split_model(hourglass, tmp_path, parts=2, most_bytes=50_000)


def save_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, tuple[int | str, ...]],
) -> Path:
    """Write a model that maps x, of 8 numbers, to outputs of the given shapes."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 8))],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET_VERSION)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def test_constants_of_several_parts_are_copied_and_so_is_what_is_computed_from_them(
    tmp_path: Path,
) -> None:
    weights = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], "constant"),
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "wt"], ["b"], "second"),
        helper.make_node("MatMul", ["b", "w"], ["c"], "third"),
        helper.make_node("MatMul", ["c", "wt"], ["y"], "fourth"),
    ]
    source = save_graph(tmp_path / "m.onnx", nodes, {"w": weights}, {"y": (1, 8), "b": (1, 8)})
    parts = split_model(source, tmp_path, parts=3, most_bytes=1 << 20)
    assert [part.weight_bytes for part in parts] == [weights.nbytes] * 3
    assert {"y", "b"} <= {name for part in parts for name in part.outputs}
    values = {"x": np.ones((1, 8), np.float32)}
    found, wanted = run_parts(parts, values), run(source, values)
    assert (found["y"] == wanted["y"]).all()
    assert (found["b"] == wanted["b"]).all()
    with pytest.raises(ExportError, match="cannot be cut"):
        split_model(source, tmp_path, most_bytes=weights.nbytes - 1)


def test_parts_of_a_network_that_runs_twice_share_no_weights(tmp_path: Path) -> None:
    """Except what all of its layers read."""
    weights = np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float32)
    constants = {f"w{index}": weight for index, weight in enumerate(weights[:4])}
    constants["mix"] = weights[4, :2]
    nodes = [helper.make_node("Neg", ["x"], ["b0"], "other")]
    for run_of, first in (("a", "x"), ("b", "b0")):
        values = [first, *(f"{run_of}{index + 1}" for index in range(4))]
        for index, (x, y) in enumerate(itertools.pairwise(values)):
            nodes += [
                helper.make_node("MatMul", [x, f"w{index}"], [f"{y}/product"], f"{y}/product"),
                helper.make_node(
                    "Gemm", [f"{y}/product", "mix"], [f"{y}/mixed"], f"{y}/mix", transB=1
                ),
                helper.make_node("Gemm", [f"{y}/mixed", "mix"], [y], f"{y}/node"),
            ]
    nodes.append(helper.make_node("Sub", ["a4", "b4"], ["y"], "difference"))
    source = save_graph(tmp_path / "m.onnx", nodes, constants, {"y": (1, 8)})
    parts = split_model(source, tmp_path, parts=4, most_bytes=1 << 20)
    assert all(part.weight_bytes <= (8 + 2) * 8 * 4 for part in parts)
    assert all(len(part.outputs) == 2 for part in parts[:-1])
    found = {"x": np.ones((1, 8), np.float32)}
    assert (run_parts(parts, found)["y"] == run(source, found)["y"]).all()


def test_value_of_unknown_shape_cannot_cross(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"], "positions"),
        helper.make_node("Cast", ["a"], ["y"], "numbers", to=TensorProto.FLOAT),
    ]
    source = save_graph(tmp_path / "m.onnx", nodes, {}, {"y": (2, "N")})
    with pytest.raises(ExportError, match=r"shape of 'a' is not known; export it with fixed"):
        split_model(source, tmp_path, parts=2, most_bytes=1 << 20)


def test_damaged_weights_are_an_error(hourglass: Path, tmp_path: Path) -> None:
    source = to_external(hourglass, tmp_path)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"weights\.bin ends inside the constant .* 100 bytes"):
        split_model(source, tmp_path, parts=2, most_bytes=1 << 30)


def quantize_parts(parts: list[Part], feeds: list[Arrays], folder: Path) -> tuple[list[Path], Any]:
    """Quantise parts one after the other; return their models and what all borders mean."""
    folder.mkdir(exist_ok=True)
    made: dict[str, tuple[float, int]] = {}
    models: list[Path] = []
    for part in parts:
        needed = [{name: feed[name] for name in part.inputs} for feed in feeds]
        target = folder / part.path.name
        quantize_w8a16(part.path, target, needed)
        model = onnx.load(target)
        agree_quantized(model, made)
        made |= quantize_borders(model)
        save_model(model, target)
        models.append(target)
        feeds = [feed | run(part.path, feed) for feed in feeds]
    return models, made


def as_integers(values: Arrays, borders: Mapping[str, tuple[float, int]]) -> Arrays:
    def convert(value: NDArray[Any], scale: float, zero_point: int) -> NDArray[Any]:
        return np.clip(np.rint(value / scale) + zero_point, 0, 65535).astype(np.uint16)

    return {name: convert(value, *borders[name]) for name, value in values.items()}


@pytest.fixture(scope="module")
def quantized(
    hourglass: Path, feeds: list[Arrays], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Path], dict[str, tuple[float, int]]]:
    """Return three parts that were quantised one by one, and the borders of the whole."""
    folder = tmp_path_factory.mktemp("parts")
    parts = split_model(hourglass, folder, parts=3, most_bytes=1 << 30)
    return quantize_parts(parts, feeds, folder / "w8a16")


def test_quantised_parts_hand_over_integers_that_mean_the_same(
    hourglass: Path,
    feeds: list[Arrays],
    quantized: tuple[list[Path], dict[str, tuple[float, int]]],
) -> None:
    models, borders = quantized
    values: Arrays = as_integers(feeds[0], borders)
    for path in models:
        graph = onnx.load(path).graph
        kinds = {x.type.tensor_type.elem_type for x in [*graph.input, *graph.output]}
        assert kinds == {TensorProto.UINT16}
        values |= run(path, values)
    scale, zero_point = borders["model_output"]
    found = (values["model_output"].astype(np.float32) - zero_point) * np.float32(scale)
    assert sqnr_db(found, run(hourglass, feeds[0])["model_output"]) > 35


def make_reader(scale: float, zero_point: int) -> onnx.ModelProto:
    """Return x -> quantise -> dequantise -> y."""
    constants = {"s": np.array(scale, np.float32), "z": np.array(zero_point, np.uint16)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 8))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET_VERSION)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def test_reader_with_the_scale_of_the_maker_takes_its_integers_as_they_are() -> None:
    model = make_reader(0.5, 100)
    agree_quantized(model, {"x": (0.5, 100)})
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear"]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.arange(96, 104, dtype=np.uint16)[None]
    assert _run(session, {"x": x})["y"].tolist() == [[-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5]]


def test_reader_with_another_scale_requantises() -> None:
    model = make_reader(0.5, 100)
    agree_quantized(model, {"x": (0.25, 7)})
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["DequantizeLinear", "QuantizeLinear", "DequantizeLinear"]
    assert quantize_borders(model).keys() == {"y"}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.arange(7, 15, dtype=np.uint16)[None]
    assert _run(session, {"x": x})["y"].tolist() == [[100, 100, 101, 102, 102, 102, 103, 104]]


def half(parts: list[Part], folder: Path) -> list[Path]:
    """Convert parts to float16, and what crosses between them."""
    folder.mkdir(exist_ok=True)
    for part in parts:
        model = convert_float16(onnx.load(part.path))
        agree_float16(model, crossing_values(parts))
        save_model(model, folder / part.path.name)
    return [folder / part.path.name for part in parts]


def test_float16_parts_hand_over_float16(
    hourglass: Path, feeds: list[Arrays], tmp_path: Path
) -> None:
    parts = split_model(hourglass, tmp_path, parts=3, most_bytes=1 << 30)
    values = feeds[0]
    for path in half(parts, tmp_path / "fp16"):
        values = values | run(path, values)
    assert {values[name].dtype for name in crossing_values(parts)} == {np.dtype(np.float16)}
    assert values["model_output"].dtype == np.float32
    assert sqnr_db(values["model_output"], run(hourglass, feeds[0])["model_output"]) > 45


def test_part_that_computes_in_float32_at_its_border_casts_what_crosses(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], "first"),
        helper.make_node("Neg", ["h"], ["y"], "second"),
    ]
    model = onnx.load(save_graph(tmp_path / "m.onnx", nodes, {}, {"h": (1, 8), "y": (1, 8)}))
    agree_float16(model, {"x", "h"})
    save_model(model, tmp_path / "m.onnx")
    found = run(tmp_path / "m.onnx", {"x": np.arange(-4, 4, dtype=np.float16)[None]})
    assert (found["h"].dtype, found["y"].dtype) == (np.float16, np.float32)
    assert found["h"].tolist() == [[0, 0, 0, 0, 0, 1, 2, 3]]
    assert (found["y"] == -found["h"]).all()


def make_context(
    folder: Path, name: str, takes: Mapping[str, int], gives: Mapping[str, int], kind: int
) -> Path:
    """Write an EPContext model as the compiler does, with a context that is not one."""
    (folder / f"{name}.bin").write_text(name, encoding="utf-8")
    node = helper.make_node(
        "EPContext",
        list(takes),
        list(gives),
        f"context_{name}",
        domain="com.microsoft",
        embed_mode=0,
        main_context=1,
        ep_cache_context=f"{name}.bin",
    )
    graph = helper.make_graph(
        [node],
        name,
        [helper.make_tensor_value_info(x, kind, (1, n)) for x, n in takes.items()],
        [helper.make_tensor_value_info(x, kind, (1, n)) for x, n in gives.items()],
    )
    onnx.save(helper.make_model(graph), folder / f"{name}_ctx.onnx")
    return folder / f"{name}_ctx.onnx"


def test_compiled_parts_become_one_model_with_their_binaries_beside_it(tmp_path: Path) -> None:
    parts = [
        make_context(tmp_path, "a", {"x": 8}, {"skip": 4, "h": 2}, TensorProto.UINT16),
        make_context(tmp_path, "b", {"h": 2, "c": 3}, {"g": 2}, TensorProto.UINT16),
        make_context(tmp_path, "c", {"g": 2, "skip": 4, "x": 8}, {"y": 8}, TensorProto.UINT16),
    ]
    target = tmp_path / "whole" / "model_ctx.onnx"
    target.parent.mkdir()
    found = stitch_contexts(parts, target)
    assert (found.npu_nodes, found.cpu_nodes, found.left_outside) == (3, 0, ())
    model = onnx.load(target)
    assert [x.name for x in model.graph.input] == ["x", "c"]
    assert [x.name for x in model.graph.output] == ["y"]
    assert {x.name for x in model.graph.value_info} == {"skip", "h", "g"}
    attributes = [x for node in model.graph.node for x in node.attribute]
    files = [x.s.decode() for x in attributes if x.name == "ep_cache_context"]
    assert files == [f"model_ctx_{index}.bin" for index in range(3)]
    assert [(target.parent / x).read_text(encoding="utf-8") for x in files] == ["a", "b", "c"]
    assert sorted(x.name for x in target.parent.iterdir()) == ["model_ctx.onnx", *files]


def add_constant_output(path: Path, name: str) -> None:
    """Give a model what the compiler left outside: a constant that becomes an output."""
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 2), np.float32), "w"))
    model.graph.node.append(helper.make_node("Neg", ["w"], ["negative"], "constant"))
    model.graph.node.append(helper.make_node("Abs", ["negative"], [name], f"outside_{name}"))
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2)))
    onnx.save(model, path)


def test_constants_that_parts_share_are_joined_once(tmp_path: Path) -> None:
    parts = [
        make_context(tmp_path, "a", {"x": 8}, {"h": 2}, TensorProto.FLOAT),
        make_context(tmp_path, "b", {"h": 2}, {"y": 2}, TensorProto.FLOAT),
    ]
    for part, name in zip(parts, "pq", strict=True):
        add_constant_output(part, name)
    found = stitch_contexts(parts, tmp_path / "model_ctx.onnx")
    graph = onnx.load(tmp_path / "model_ctx.onnx").graph
    assert [x.name for x in graph.initializer] == ["w"]
    assert (found.npu_nodes, found.cpu_nodes) == (2, 3)
    assert {x.name for x in graph.output} == {"p", "q", "y"}


def test_output_of_the_whole_may_be_read_by_a_part(tmp_path: Path) -> None:
    parts = [
        make_context(tmp_path, "a", {"x": 8}, {"h": 2}, TensorProto.FLOAT),
        make_context(tmp_path, "b", {"h": 2}, {"y": 2}, TensorProto.FLOAT),
    ]
    stitch_contexts(parts, tmp_path / "model_ctx.onnx", outputs=["y", "h"])
    assert [x.name for x in onnx.load(tmp_path / "model_ctx.onnx").graph.output] == ["y", "h"]


def test_parts_that_disagree_on_a_value_are_refused(tmp_path: Path) -> None:
    first = make_context(tmp_path, "a", {"x": 8}, {"h": 2}, TensorProto.UINT16)
    typed = make_context(tmp_path, "b", {"h": 2}, {"y": 8}, TensorProto.FLOAT)
    with pytest.raises(ExportError, match=r"takes 'h' as float \[1, 2\], .* gives uint16 \[1, 2\]"):
        stitch_contexts([first, typed], tmp_path / "model_ctx.onnx")
    shaped = make_context(tmp_path, "c", {"h": 4}, {"y": 8}, TensorProto.UINT16)
    with pytest.raises(ExportError, match=r"as uint16 \[1, 4\], an earlier part gives uint16 \[1,"):
        stitch_contexts([first, shaped], tmp_path / "model_ctx.onnx")
    with pytest.raises(ExportError, match=r"an earlier part has another 'context_a'"):
        stitch_contexts([first, first], tmp_path / "model_ctx.onnx")


def compile_and_run(
    models: list[Path], folder: Path, values: Arrays, *, float16: bool
) -> dict[str, NDArray[Any]]:
    """Compile models for the NPU, join them and run the whole on the emulator."""
    folder.mkdir()
    contexts = [folder / f"part_{index}_ctx.onnx" for index in range(len(models))]
    for source, target in zip(models, contexts, strict=True):
        found = compile_context(source, target, CHIP, float16=float16)
        assert (found.npu_nodes, found.cpu_nodes) == (1, 0)
    whole = folder / "model_ctx.onnx"
    stitch_contexts(contexts, whole)
    for path in contexts:
        path.unlink()
    for path in folder.glob("part_*.bin"):
        path.unlink()
    assert read_residency(whole).npu_nodes == len(models)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with captured_native_output():
        provider = provider_options(register(ort), CHIP)
        options.add_provider_for_devices([find_device(ort)], provider)
        session = ort.InferenceSession(str(whole), options)
        return _run(session, values)


@pytest.mark.qnn
@pytest.mark.slow
@needs_emulator
def test_stitched_float16_parts_run_on_the_emulator_as_the_whole_does(
    hourglass: Path, feeds: list[Arrays], tmp_path: Path
) -> None:
    parts = split_model(hourglass, tmp_path, parts=3, most_bytes=1 << 30)
    save_model(convert_float16(onnx.load(hourglass)), tmp_path / "whole.onnx")
    one = compile_and_run([tmp_path / "whole.onnx"], tmp_path / "one", feeds[0], float16=True)
    models = half(parts, tmp_path / "fp16")
    three = compile_and_run(models, tmp_path / "three", feeds[0], float16=True)
    wanted = run(hourglass, feeds[0])["model_output"]
    assert sqnr_db(one["model_output"], wanted) > 45
    assert sqnr_db(three["model_output"], wanted) > 45
    assert (three["model_output"] == one["model_output"]).all()


@pytest.mark.qnn
@pytest.mark.slow
@needs_emulator
def test_stitched_quantised_parts_run_on_the_emulator_as_the_whole_does(
    hourglass: Path,
    feeds: list[Arrays],
    quantized: tuple[list[Path], dict[str, tuple[float, int]]],
    tmp_path: Path,
) -> None:
    (whole,) = split_model(hourglass, tmp_path, parts=1, most_bytes=1 << 30)
    models, borders = quantize_parts([whole], feeds, tmp_path / "w8a16")
    wanted = run(hourglass, feeds[0])["model_output"]
    found: list[NDArray[np.float32]] = []
    for name, paths, terms in (("one", models, borders), ("three", *quantized)):
        values = as_integers(feeds[0], terms)
        output = compile_and_run(paths, tmp_path / name, values, float16=False)["model_output"]
        assert output.dtype == np.uint16
        scale, zero_point = terms["model_output"]
        found.append((output.astype(np.float32) - zero_point) * np.float32(scale))
    assert all(sqnr_db(x, wanted) > 30 for x in found)
    assert sqnr_db(found[1], found[0]) > 30


@pytest.mark.qnn
@needs_emulator
def test_compiler_takes_a_requantisation(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sigmoid", ["x"], ["y"], "gate")]
    source = save_graph(tmp_path / "m.onnx", nodes, {}, {"y": (1, 8)})
    values = {"x": np.linspace(-4, 4, 8, dtype=np.float32)[None]}
    quantize_w8a16(source, tmp_path / "q.onnx", [values])
    model = onnx.load(tmp_path / "q.onnx")
    made = {"x": (0.001, 5000)}
    agree_quantized(model, made)
    scale, zero_point = quantize_borders(model)["y"]
    save_model(model, tmp_path / "q.onnx")
    taken = as_integers(values, made)
    output = compile_and_run([tmp_path / "q.onnx"], tmp_path / "npu", taken, float16=False)["y"]
    found = (output.astype(np.float32) - zero_point) * np.float32(scale)
    assert found == pytest.approx(1 / (1 + np.exp(-values["x"])), abs=1e-3)
