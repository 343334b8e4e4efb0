"""Joining what a compiler made of the parts of a model."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch")

from part_models import (
    Arrays,
    Borders,
    as_integers,
    as_numbers,
    halve_parts,
    make_model,
    quantize_parts,
    run_model,
    run_session,
)

from mvsdk.backends.native_output import captured_native_output
from mvsdk.backends.qnn import find_device, provider_options, register
from mvsdk.devices import find_chipset
from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.onnx import convert_float16, quantize_signature, save_model
from mvsdk_export.graphs.split import agree_quantized, split_model
from mvsdk_export.parity.verify import sqnr_db
from mvsdk_export.quantize.qdq import quantize_w8a16
from mvsdk_export.targets.snapdragon.compiler import (
    compile_context,
    read_delegation,
    stitch_contexts,
)

pytestmark = pytest.mark.torch


CHIP = find_chipset("sm8650").chip

needs_emulator = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None
    or platform.machine().lower() not in ("x86_64", "amd64"),
    reason="needs the extra snapdragon, and Qualcomm's emulator",
)


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
    assert (found.delegated, found.non_delegated) == (3, ())
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
    assert (found.delegated, len(found.non_delegated)) == (2, 3)
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


def compile_and_run(models: list[Path], folder: Path, values: Arrays, *, float16: bool) -> Arrays:
    """Compile models for the NPU, join them and run the whole on the emulator."""
    folder.mkdir()
    contexts = [folder / f"part_{index}_ctx.onnx" for index in range(len(models))]
    for source, target in zip(models, contexts, strict=True):
        found = compile_context(source, target, CHIP, float16=float16)
        assert (found.delegated, len(found.non_delegated)) == (1, 0)
    whole = folder / "model_ctx.onnx"
    stitch_contexts(contexts, whole)
    for path in contexts:
        path.unlink()
    for path in folder.glob("part_*.bin"):
        path.unlink()
    assert read_delegation(whole).delegated == len(models)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with captured_native_output():
        provider = provider_options(register(ort), CHIP)
        options.add_provider_for_devices([find_device(ort)], provider)
        session = ort.InferenceSession(str(whole), options)
        return run_session(session, values)


@pytest.mark.qnn
@pytest.mark.slow
@needs_emulator
def test_stitched_float16_parts_run_on_the_emulator_as_the_whole_does(
    hourglass: Path, hourglass_feeds: list[Arrays], tmp_path: Path
) -> None:
    parts = split_model(hourglass, tmp_path, parts=3, most_bytes=1 << 30)
    save_model(convert_float16(onnx.load(hourglass)), tmp_path / "whole.onnx")
    one = compile_and_run(
        [tmp_path / "whole.onnx"], tmp_path / "one", hourglass_feeds[0], float16=True
    )
    models = halve_parts(parts, tmp_path / "fp16")
    three = compile_and_run(models, tmp_path / "three", hourglass_feeds[0], float16=True)
    wanted = run_model(hourglass, hourglass_feeds[0])["model_output"]
    assert sqnr_db(one["model_output"], wanted) > 45
    assert sqnr_db(three["model_output"], wanted) > 45
    assert (three["model_output"] == one["model_output"]).all()


@pytest.mark.qnn
@pytest.mark.slow
@needs_emulator
def test_stitched_quantised_parts_run_on_the_emulator_as_the_whole_does(
    hourglass: Path,
    hourglass_feeds: list[Arrays],
    hourglass_w8a16: tuple[list[Path], Borders],
    tmp_path: Path,
) -> None:
    (whole,) = split_model(hourglass, tmp_path, parts=1, most_bytes=1 << 30)
    models, borders = quantize_parts([whole], hourglass_feeds, tmp_path / "w8a16")
    wanted = run_model(hourglass, hourglass_feeds[0])["model_output"]
    found: list[NDArray[np.float32]] = []
    for name, paths, terms in (("one", models, borders), ("three", *hourglass_w8a16)):
        values = as_integers(hourglass_feeds[0], terms)
        output = compile_and_run(paths, tmp_path / name, values, float16=False)["model_output"]
        assert output.dtype == np.uint16
        found.append(as_numbers(output, *terms["model_output"]))
    assert all(sqnr_db(x, wanted) > 30 for x in found)
    assert sqnr_db(found[1], found[0]) > 30


@pytest.mark.qnn
@needs_emulator
def test_compiler_takes_a_requantisation(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sigmoid", ["x"], ["y"], "gate")]
    onnx.save(make_model(nodes, {}, outputs={"y": (1, 8)}), tmp_path / "m.onnx")
    values = {"x": np.linspace(-4, 4, 8, dtype=np.float32)[None]}
    quantize_w8a16(tmp_path / "m.onnx", tmp_path / "q.onnx", [values])
    model = onnx.load(tmp_path / "q.onnx")
    made = {"x": (0.001, 5000)}
    agree_quantized(model, made)
    terms = quantize_signature(model)["y"]
    save_model(model, tmp_path / "q.onnx")
    taken = as_integers(values, made)
    output = compile_and_run([tmp_path / "q.onnx"], tmp_path / "npu", taken, float16=False)["y"]
    assert as_numbers(output, *terms) == pytest.approx(1 / (1 + np.exp(-values["x"])), abs=1e-3)
