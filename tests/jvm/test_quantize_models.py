"""Quantized graphs fed from Java: the models of quantize_models.json give Python's bytes.

ONNX Runtime's Java API cannot make a uint16 tensor. It can hand on one that a session gave, which
is how a phone's runtime feeds such a graph. Needs a JDK and Maven, which gets ONNX Runtime.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mvsdk.backends._graph import decode, encode
from mvsdk.manifest import TensorSpec

HERE = Path(__file__).resolve().parent
MODELS = json.loads((HERE.parent / "golden/quantize_models.json").read_text("utf-8"))["models"]
ARTIFACT = "com.microsoft.onnxruntime:onnxruntime:1.29.0"
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:2.8"
TIMEOUT_S = 600

COUNT = 200_000
PAIRS = (
    ("uint16", 0.0002677584998309612, 34670),
    ("uint16", 2.288853283971548e-05, 0),
    ("uint16", 0.0005255462019704282, 33243),
    ("uint16", 1.0, 1),
    ("uint16", 3.1e-30, 65535),
    ("int16", 0.0005255462019704282, 0),
    ("int16", 0.25, -32768),
    ("uint8", 0.007843137718737125, 128),
    ("uint8", 0.5, 255),
    ("int8", 0.007843137718737125, -3),
)
SAMPLE = TensorSpec(
    name="sample", shape=(1, 4, 8, 8), dtype="uint16", scale=0.00012207031, zero_point=32768
)
MODEL_OUTPUT = TensorSpec(
    name="model_output", shape=(1, 4, 8, 8), dtype="uint16", scale=0.00026775849, zero_point=30001
)

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the program wrote."""

    folder: Path

    def of(self, name: str, kind: str, dtype: str) -> NDArray[Any]:
        """Return an array, flat; `kind` is stored, result or y."""
        return np.fromfile(self.folder / f"{name}.{kind}", np.dtype(dtype).newbyteorder("<"))


def spec_of(dtype: Any, scale: float, zero_point: int) -> TensorSpec:
    return TensorSpec(name="x", shape=(COUNT,), dtype=dtype, scale=scale, zero_point=zero_point)


def values_for(scale: float, dtype: str, zero_point: int) -> NDArray[np.float32]:
    """Draw values over the whole range and beyond both ends, halves and extremes first."""
    rng = np.random.default_rng(7)
    span = np.iinfo(dtype).max - np.iinfo(dtype).min
    steps = rng.uniform(-1.2 * span, 1.2 * span, COUNT)
    values = (steps * scale).astype(np.float32)
    halves = (np.arange(-50, 50) + 0.5) * scale
    values[: len(halves)] = halves
    extremes = [0.0, -0.0, 3e38, -3e38, np.inf, -np.inf, 1e-45]
    values[len(halves) : len(halves) + len(extremes)] = extremes
    return values


def sample_values() -> NDArray[np.float32]:
    return np.random.default_rng(8).standard_normal(SAMPLE.shape).astype(np.float32)


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    for tool in ("javac", "java", "mvn"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    folder = tmp_path_factory.mktemp("jvm")
    copy = ("mvn", "-B", "-q", f"{DEPENDENCY_PLUGIN}:copy", f"-Dartifact={ARTIFACT}")
    done = run(*copy, f"-DoutputDirectory={folder}", check=False)
    jars = list(folder.glob("*.jar"))
    if done.returncode or not jars:
        pytest.skip(f"Maven has no {ARTIFACT}: {(done.stdout.splitlines() or ['?'])[0]}")
    program = str(HERE / "QuantizeModels.java")
    run("javac", "-Xlint:all", "-Werror", "-cp", str(jars[0]), "-d", str(folder), program)
    return f"{jars[0]}:{folder}"


@pytest.fixture(scope="module")
def answers(classpath: str, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    folder = tmp_path_factory.mktemp("quantized")
    for model in MODELS:
        file = f"{model['dtype']}_{model['operator'].removesuffix('Linear').lower()}.onnx"
        (folder / file).write_bytes(bytes.fromhex(model["hex"]))
    (folder / "graph.onnx").write_bytes(build_graph())
    lines = [
        write_case(folder, str(index), spec_of(*pair), values_for(pair[1], pair[0], pair[2]))
        for index, pair in enumerate(PAIRS)
    ]
    lines.append(write_case(folder, "graph", SAMPLE, sample_values(), MODEL_OUTPUT))
    (folder / "cases.txt").write_text("\n".join(lines) + "\n", "utf-8")
    run("java", "-cp", classpath, "QuantizeModels", str(folder))
    return Answers(folder=folder)


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=TIMEOUT_S)


def write_case(
    folder: Path,
    name: str,
    spec: TensorSpec,
    values: NDArray[np.float32],
    result: TensorSpec | None = None,
) -> str:
    """Write a case's files, and return its line of cases.txt."""
    values.astype("<f4").tofile(folder / f"{name}.x")
    (folder / f"{name}.shape").write_text(" ".join(map(str, values.shape)), "utf-8")
    graph = "-" if result is None else "graph.onnx"
    return " ".join((name, quantization(spec), graph, quantization(result or spec)))


def quantization(spec: TensorSpec) -> str:
    bits = int(np.float32([spec.scale]).view(np.uint32)[0])
    return f"{spec.dtype} {bits:08x} {spec.zero_point}"


def build_graph() -> bytes:
    """Make a graph from uint16 to uint16: a convolution of the dequantised latents, and tanh."""
    onnx = pytest.importorskip("onnx", reason="needs the toolchain")
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(9).standard_normal((4, 4, 3, 3)).astype(np.float32) / 6
    constants = [numpy_helper.from_array(weight, "weight")]
    for spec in (SAMPLE, MODEL_OUTPUT):
        constants += [
            numpy_helper.from_array(np.array(spec.scale, np.float32), f"{spec.name}_scale"),
            numpy_helper.from_array(np.array(spec.zero_point, np.uint16), f"{spec.name}_zero"),
        ]
    nodes = [
        helper.make_node(
            "DequantizeLinear", ["sample", "sample_scale", "sample_zero"], ["latents"]
        ),
        helper.make_node("Conv", ["latents", "weight"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["mixed"], ["bounded"]),
        helper.make_node(
            "QuantizeLinear",
            ["bounded", "model_output_scale", "model_output_zero"],
            ["model_output"],
        ),
    ]
    ends = [
        helper.make_tensor_value_info(spec.name, TensorProto.UINT16, spec.shape)
        for spec in (SAMPLE, MODEL_OUTPUT)
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.mark.parametrize("index", range(len(PAIRS)), ids=lambda i: f"{PAIRS[i][0]}-{PAIRS[i][1]}")
def test_java_stores_what_python_stores(answers: Answers, index: int) -> None:
    dtype, scale, zero_point = PAIRS[index]
    spec = spec_of(dtype, scale, zero_point)
    expected = encode(spec, values_for(scale, dtype, zero_point))
    np.testing.assert_array_equal(answers.of(str(index), "stored", dtype), expected)


@pytest.mark.parametrize("index", range(len(PAIRS)), ids=lambda i: f"{PAIRS[i][0]}-{PAIRS[i][1]}")
def test_java_gives_back_what_python_gives_back(answers: Answers, index: int) -> None:
    dtype, scale, zero_point = PAIRS[index]
    spec = spec_of(dtype, scale, zero_point)
    stored = answers.of(str(index), "stored", dtype)
    assert len(np.unique(stored)) > (40_000 if dtype.endswith("16") else 250)
    y = answers.of(str(index), "y", "float32")
    np.testing.assert_array_equal(y.view(np.uint32), decode(spec, stored).view(np.uint32))


def test_a_quantized_graph_fed_from_java_gives_the_bytes_that_python_gets(answers: Answers) -> None:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(build_graph(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"sample": encode(SAMPLE, sample_values())})
    assert answers.of("graph", "result", "uint16").tobytes() == result.tobytes()
    y = answers.of("graph", "y", "float32")
    assert y.tobytes() == decode(MODEL_OUTPUT, result).tobytes()
    assert len(np.unique(result)) > 100


def test_models_differ_between_types_in_two_bytes() -> None:
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        first, *others = (
            bytes.fromhex(model["hex"]) for model in MODELS if model["operator"] == operator
        )
        for other in others:
            pairs = list(zip(first, other, strict=True))
            assert sum(a != b for a, b in pairs) == 2
    assert all(model["bytes"] == len(model["hex"]) // 2 < 150 for model in MODELS)
