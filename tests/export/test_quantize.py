"""Quantisation to 8-bit weights and 16-bit activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch")

from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.onnx import quantize_signature
from mvsdk_export.parity.verify import sqnr_db
from mvsdk_export.quantize.qdq import last_convolutions, quantize_w8a16

pytestmark = pytest.mark.torch

GENERATOR = np.random.default_rng(0)
SIZES = np.geomspace(0.01, 1.0, 32).reshape(32, 1, 1)
WEIGHTS = (GENERATOR.normal(size=(32, 16, 1)) * SIZES).astype(np.float32)
"""Channels of very different sizes: one scale for all of them would lose the small ones."""
SHAPE = (1, 16, 8)
FEEDS = [{"x": GENERATOR.normal(size=SHAPE).astype(np.float32)} for _ in range(4)]


def write_model(path: Path) -> Path:
    """Write y = convolution(layer_norm(x))."""
    constants = {
        "scale": GENERATOR.uniform(0.5, 1.5, 8).astype(np.float32),
        "bias": GENERATOR.normal(size=8).astype(np.float32),
        "w": WEIGHTS,
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["n"], name="norm"),
        helper.make_node("Conv", ["n", "w"], ["y"], name="convolution"),
    ]
    save_graph(path, nodes, constants, (1, 32, 8))
    return path


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[np.float32]],
    shape: tuple[int, ...],
) -> None:
    """Write a model that maps x of SHAPE to y of `shape`."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 21)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a float32 model and its quantised form."""
    folder = tmp_path_factory.mktemp("models")
    source = write_model(folder / "model.onnx")
    quantize_w8a16(source, folder / "quantised.onnx", FEEDS)
    return source, folder / "quantised.onnx"


def run(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_weights_have_8_bits_and_one_scale_per_channel(models: tuple[Path, Path]) -> None:
    graph = onnx.load(models[1]).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    (weight,) = (v for v in constants.values() if v.shape == WEIGHTS.shape)
    (node,) = (
        n
        for n in graph.node
        if n.op_type == "DequantizeLinear" and constants.get(n.input[0]) is weight
    )
    assert weight.dtype == np.int8
    assert constants[node.input[1]].shape == (32,)


def test_activations_have_16_bits(models: tuple[Path, Path]) -> None:
    graph = onnx.load(models[1]).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    types = {constants[n.input[2]].dtype for n in graph.node if n.op_type == "QuantizeLinear"}
    assert types == {np.dtype(np.uint16)}
    assert set(quantize_signature(onnx.load(models[1]))) == {"x", "y"}


def test_scale_of_layer_normalisation_is_unsigned(models: tuple[Path, Path]) -> None:
    graph = onnx.load(models[1]).graph
    makers = {output: node for node in graph.node for output in node.output}
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    (norm,) = (n for n in graph.node if n.op_type == "LayerNormalization")
    assert constants[makers[norm.input[1]].input[0]].dtype == np.uint16


def test_quantised_model_is_close_on_inputs_like_those_of_the_calibration(
    models: tuple[Path, Path],
) -> None:
    x = FEEDS[1]["x"]
    found = sqnr_db(run(models[1], x), run(models[0], x))
    assert found is not None
    assert found > 38.0


def test_input_a_little_beyond_the_calibration_is_not_cut_off(tmp_path: Path) -> None:
    source, target = tmp_path / "model.onnx", tmp_path / "quantised.onnx"
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="convolution")]
    save_graph(source, nodes, {"w": WEIGHTS}, (1, 32, 8))
    quantize_w8a16(source, target, FEEDS)
    x = max((feed["x"] for feed in FEEDS), key=lambda feed: np.abs(feed).max())
    inside, beyond, outside = (
        sqnr_db(run(target, x * factor), run(source, x * factor))
        for factor in (np.float32(1.0), np.float32(1.4), np.float32(3.0))
    )
    assert inside is not None
    assert beyond is not None
    assert outside is not None
    assert min(inside, beyond) > 38.0
    assert outside < 25.0


@pytest.mark.parametrize("limits", [("least", "most"), ("least",)])
def test_headroom_lets_nothing_through_a_clip(tmp_path: Path, limits: tuple[str, ...]) -> None:
    source, target = tmp_path / "m.onnx", tmp_path / "q.onnx"
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["scaled"], name="scale"),
        helper.make_node("Clip", ["scaled", *limits], ["clipped"], name="clip"),
        helper.make_node("Transpose", ["clipped"], ["y"], name="turn", perm=[0, 2, 1]),
    ]
    values = {"w": np.float32([0.7]), "least": np.float32(-0.25), "most": np.float32(0.5)}
    constants = {name: np.asarray(values[name]) for name in ("w", *limits)}
    save_graph(source, nodes, constants, (1, 8, 16))
    quantize_w8a16(source, target, FEEDS)
    x = max((feed["x"] for feed in FEEDS), key=lambda feed: feed.max()) * np.float32(1.4)
    found, wanted = run(target, x), run(source, x)
    assert wanted.min() == np.float32(-0.25)
    assert (wanted.max() == np.float32(0.5)) == ("most" in limits)
    assert np.abs(found - wanted).max() < 1e-3


BEYOND_ZERO = [(0.5, np.inf), (-np.inf, -0.5), (0.5, 1.5), (-1.5, -0.5)]
"""Limits that no quantised range can hold values within: all of them hold zero."""


def write_clipped(folder: Path, least: float, most: float) -> tuple[Path, Path]:
    """Write y = 1 / clip(2 x), and its quantised form."""
    source, target = folder / "m.onnx", folder / "q.onnx"
    names = ["least" if np.isfinite(least) else "", *(["most"] if np.isfinite(most) else [])]
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["scaled"], name="scale"),
        helper.make_node("Clip", ["scaled", *names], ["clipped"], name="clip"),
        helper.make_node("Div", ["one", "clipped"], ["y"], name="divide"),
    ]
    values = {"least": least, "most": most, "two": 2.0, "one": 1.0}
    constants = {name: np.float32(values[name]) for name in ("two", "one", *filter(None, names))}
    save_graph(source, nodes, constants, SHAPE)
    quantize_w8a16(source, target, FEEDS)
    return source, target


@pytest.mark.parametrize(("least", "most"), BEYOND_ZERO)
def test_clip_beyond_zero_is_written_as_max_and_min(
    tmp_path: Path, least: float, most: float
) -> None:
    source, target = write_clipped(tmp_path, least, most)
    x = FEEDS[1]["x"]
    found = sqnr_db(run(target, x), run(source, x))
    assert found is not None
    assert found > 60.0
    kinds = [node.op_type for node in onnx.load(target).graph.node]
    wanted = {"Max": int(np.isfinite(least)), "Min": int(np.isfinite(most)), "Clip": 0}
    assert {kind: kinds.count(kind) for kind in wanted} == wanted


@pytest.mark.qnn
@pytest.mark.parametrize(("least", "most"), BEYOND_ZERO)
def test_clip_beyond_zero_clips_on_the_htp(tmp_path: Path, least: float, most: float) -> None:
    """QNN 2.51 leaves a Clip of 16-bit values out, whatever its limits are."""
    pytest.importorskip("onnxruntime_qnn")
    from mvsdk.backends.qnn import find_device, provider_options, register
    from mvsdk.devices import find_chipset
    from mvsdk_export.targets.snapdragon.compiler import compile_context

    source, target = write_clipped(tmp_path, least, most)
    chip, context = find_chipset("sm8650").chip, tmp_path / "q_ctx.onnx"
    delegation = compile_context(target, context, chip, float16=False)
    assert not delegation.non_delegated
    options = ort.SessionOptions()
    options.add_provider_for_devices([find_device(ort)], provider_options(register(ort), chip))
    x = FEEDS[1]["x"]
    (given,) = ort.InferenceSession(context, options).run(None, {"x": x})
    found = sqnr_db(np.asarray(given), run(source, x))
    assert found is not None
    assert found > 50.0


def test_last_convolution_in_two_terms_is_as_good_as_its_activations(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    split = tmp_path / "split.onnx"
    quantize_w8a16(models[0], split, FEEDS, split_last=True)
    graph = onnx.load(split).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    kernels = [v for v in constants.values() if v.shape == WEIGHTS.shape]
    assert [kernel.dtype for kernel in kernels] == [np.int8, np.int8]
    x = FEEDS[1]["x"]
    whole, parted = (sqnr_db(run(path, x), run(models[0], x)) for path in (models[1], split))
    assert whole is not None
    assert parted is not None
    assert parted > whole + 15.0


def test_convolution_behind_which_there_is_another_layer_is_not_the_last() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w"], ["c"], name="last"),
        helper.make_node("DepthToSpace", ["c"], ["y"], name="shuffle", blocksize=2),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:])
    assert last_convolutions(graph) == ["last"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_calibration_input_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    feed = {"x": np.full(SHAPE, value, np.float32)}
    with pytest.raises(ExportError, match="calibration input 'x' holds values that are not finite"):
        quantize_w8a16(tmp_path / "m.onnx", tmp_path / "q.onnx", [feed])
    assert not list(tmp_path.iterdir())


def test_calibration_without_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="give at least one prompt"):
        quantize_w8a16(tmp_path / "m.onnx", tmp_path / "q.onnx", [])


def test_name_of_a_shared_bias_may_begin_the_name_of_another_value(tmp_path: Path) -> None:
    """Copies of slice_3 were called slice_30, which the graph of a large denoiser has too."""
    kernel = GENERATOR.normal(size=(16, 16, 1)).astype(np.float32)
    constants = {"w": kernel, "slice_3": GENERATOR.normal(size=16).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "slice_3"], ["a"], name="first"),
        helper.make_node("Transpose", ["a"], ["b"], name="there", perm=[0, 2, 1]),
        helper.make_node("Transpose", ["b"], ["slice_30"], name="back", perm=[0, 2, 1]),
        helper.make_node("Conv", ["slice_30", "w", "slice_3"], ["y"], name="second"),
    ]
    source, target = tmp_path / "m.onnx", tmp_path / "q.onnx"
    save_graph(source, nodes, constants, SHAPE)
    quantize_w8a16(source, target, FEEDS)
    found = sqnr_db(run(source, FEEDS[0]["x"]), run(target, FEEDS[0]["x"]))
    assert found is not None
    assert found > 40.0
