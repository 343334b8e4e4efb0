"""The checker of Core ML packages: held to PyTorch where the answer is known, and hostile ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

import torch.nn.functional as F  # noqa: E402
from core_ml import feeds, run_package, write_stack  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mvsdk.errors import BundleError, InputError  # noqa: E402
from mvsdk_export.errors import UnsupportedOpError  # noqa: E402
from mvsdk_export.targets.coreml.checker import load_program, open_package  # noqa: E402
from mvsdk_export.targets.coreml.convert import convert  # noqa: E402
from mvsdk_export.targets.coreml.package import (  # noqa: E402
    SPECIFICATION,
    WEIGHTS,
    block_of,
    read_model,
    weight_files,
    write_package,
)

pytestmark = [
    pytest.mark.torch,
    pytest.mark.apple,
    # coremltools leaves the folders of its models to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:coremltools"),
]


class Graph(nn.Module):
    """A function as a module, with a weight for those that want one."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3) / 6)
        self.matrix = nn.Parameter(torch.randn(5, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight, self.matrix)


GRAPHS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "conv": lambda x, w, m: F.conv2d(x, w, padding=1),
    "conv_strided_dilated": lambda x, w, m: F.conv2d(x, w, stride=2, padding=2, dilation=2),
    "conv_grouped": lambda x, w, m: F.conv2d(x, w[:4, :1], groups=4),
    "conv_transpose": lambda x, w, m: F.conv_transpose2d(x, w[:4], stride=2, padding=1),
    "linear": lambda x, w, m: F.linear(x, m),
    "matmul": lambda x, w, m: x @ x.transpose(2, 3),
    "attention": lambda x, w, m: F.scaled_dot_product_attention(x, x * 0.5, x + 1),
    "einsum": lambda x, w, m: torch.einsum("nchw,nwhu->nchu", x, x.permute(0, 3, 2, 1)),
    "softmax": lambda x, w, m: (x * 3).softmax(dim=1),
    "layer_norm": lambda x, w, m: F.layer_norm(x * 5 + 2, (8,), m[0], m[1]),
    "group_norm": lambda x, w, m: F.group_norm(x * 5 + 2, 2),
    "instance_norm": lambda x, w, m: F.instance_norm(x * 5 + 2),
    "gelu": lambda x, w, m: F.gelu(x) + F.gelu(x, approximate="tanh"),
    "activations": lambda x, w, m: F.silu(x) + torch.tanh(x) + torch.sigmoid(x) + F.relu(x),
    "elementwise": lambda x, w, m: x.abs().sqrt() / (x.square() + 1) - torch.exp(-x.abs()),
    "powers": lambda x, w, m: x.abs().pow(1.5) + torch.rsqrt(x.abs() + 1) + (x.abs() + 1).log(),
    "trigonometry": lambda x, w, m: torch.sin(x) + torch.cos(2 * x),
    "rounding": lambda x, w, m: torch.round(x * 4) + torch.floor(x) + torch.ceil(x * 2),
    "limits": lambda x, w, m: x.clamp(-0.5, 0.7) + torch.maximum(x, x * 0.3),
    "choice": lambda x, w, m: torch.where(x > 0.2, x, -x),
    "means": lambda x, w, m: x.mean(dim=(2, 3), keepdim=True) + x.sum(dim=1, keepdim=True),
    "extremes": lambda x, w, m: x.amax(dim=3) + x.amin(dim=2).mean(dim=1, keepdim=True),
    "reshape": lambda x, w, m: x.reshape(2, 2, 16, 8).permute(0, 2, 1, 3).flatten(1, 2),
    "slices": lambda x, w, m: x[:, 1:3, ::2, -3:] + x[:, :2, 1::2, :3],
    "joints": lambda x, w, m: torch.cat([x[:, :1], x, torch.stack([x[:, 0], x[:, 1]], 1)], dim=1),
    "chunks": lambda x, w, m: x.chunk(2, dim=1)[1] * x.split([1, 3], dim=1)[0],
    "repeats": lambda x, w, m: (
        x.repeat(1, 2, 1, 3) + x[:, :1].expand(2, 8, 8, 8).repeat(1, 1, 1, 3)
    ),
    "padding": lambda x, w, m: F.pad(x, (1, 2, 3, 0)) + F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "shuffles": lambda x, w, m: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 4),
    "nearest": lambda x, w, m: F.interpolate(x, scale_factor=2, mode="nearest"),
    "bilinear": lambda x, w, m: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "pools": lambda x, w, m: F.avg_pool2d(x, 2) + F.max_pool2d(x, 2, 2),
    "embedding": lambda x, w, m: F.embedding((x[0, 0, 0].abs() * 2).int().clamp(0, 4), m),
    "gather": lambda x, w, m: x.gather(2, (x.abs() * 2).long().clamp(0, 7)),
    "cumsum": lambda x, w, m: x.cumsum(dim=3),
    "topk": lambda x, w, m: x.topk(3, dim=3).values,
}


def convert_graph(name: str, path: Path, deployment_target: str = "iOS18") -> tuple[nn.Module, Any]:
    torch.manual_seed(1)
    x = torch.randn(2, 4, 8, 8)
    network = Graph(GRAPHS[name]).eval()
    convert(network, {"x": x}, ["y"], path, deployment_target=deployment_target)
    return network, x


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_give_what_pytorch_gives(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mlpackage"
    network, x = convert_graph(name, path)
    x = x.half()
    (given,) = run_package(path, {"x": x.numpy()}).values()
    with torch.no_grad():
        wanted = network(x.float()).numpy()
    assert given.shape == wanted.shape
    noise = np.square(given.astype(np.float64) - wanted).sum()
    assert np.square(wanted.astype(np.float64)).sum() > 1e4 * noise


@pytest.mark.parametrize(("approximate", "mode"), [("none", "EXACT"), ("tanh", "TANH_APPROX")])
def test_converted_gelu_is_the_one_that_the_network_has(
    approximate: str, mode: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.mlpackage"
    network = Graph(lambda x, w, m: F.gelu(x, approximate=approximate))
    convert(network, {"x": torch.zeros(8)}, ["y"], path, deployment_target="iOS18")
    (found,) = (x for x in open_package(path).operations() if x.type != "cast")
    assert found.type == "gelu"
    assert str(found.constants.get("mode", "EXACT")).startswith(mode)


def test_results_of_half_precision_are_rounded_to_it(tmp_path: Path) -> None:
    path = tmp_path / "x.mlpackage"
    convert(
        Graph(lambda x, w, m: (x + 1) - 1),
        {"x": torch.zeros(4)},
        ["y"],
        path,
        deployment_target="iOS18",
    )
    (given,) = run_package(path, {"x": np.float16([2**-12, 2**-10, 1, 0])}).values()
    assert given.tolist() == [0.0, 2**-10, 1.0, 0.0]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small package: only read it."""
    path = tmp_path_factory.mktemp("checker") / "Stack.mlpackage"
    write_stack(path)
    return path


@pytest.fixture
def copy(stack: Path, tmp_path: Path) -> Path:
    """Return a copy of `stack` that a test may change."""
    return Path(shutil.copytree(stack, tmp_path / "Stack.mlpackage"))


def test_package_says_what_it_takes_gives_and_does(stack: Path) -> None:
    package = open_package(stack)
    assert list(package.functions) == ["main"]
    assert [(x.name, x.shape, x.dtype) for x in package.functions["main"].inputs] == [
        ("x", (2, 3, 8, 8), "float16"),
        ("scale", (1,), "float16"),
    ]
    first = next(x for x in package.operations() if x.type == "conv")
    assert first.inputs["weight"][0].constant
    assert first.inputs["weight"][0].shape == (48, 3, 3, 3)
    assert first.constants["strides"].tolist() == [1, 1]
    assert {x.type for x in package.operations()} >= {"conv", "tanh", "linear", "mul"}


def test_inputs_are_checked(stack: Path) -> None:
    program = load_program(stack)
    with pytest.raises(InputError, match="wants the input 'x'; given: nothing"):
        program.run({})
    with pytest.raises(InputError, match=r"'x' is float32 \(1,\), the package wants float16"):
        program.run({"x": np.zeros(1, np.float32)})


def test_unknown_operations_are_named_all_before_anything_runs(copy: Path) -> None:
    model = read_model(copy)
    for operation in block_of(model.mlProgram).operations:
        if operation.type == "tanh":
            operation.type = "tangle"
        elif operation.type == "linear":
            operation.type = "lineage"
    write_package(model, weight_files(copy)[:0], copy.with_name("other.mlpackage"))
    with pytest.raises(
        UnsupportedOpError, match=r"operations lineage \(1\), tangle \(4\); convert"
    ):
        load_program(copy.with_name("other.mlpackage"))


# --- hostile packages -----------------------------------------------------------------------------


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))


def weights(copy: Path) -> Path:
    return copy / WEIGHTS / "weight.bin"


def test_flipped_mark_of_an_entry_is_found(copy: Path) -> None:
    flip(weights(copy), 64)
    with pytest.raises(
        BundleError, match=r"weight\.bin has the mark 0x\w+ at 64, expected 0xdeadbeef"
    ):
        load_program(copy)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (4, "has format version"),
        (68, "has data of the unknown type"),
        (72, r"bytes .* at 64, expected \d+ .* for float16"),
        (86, "which is outside its"),
    ],
)
def test_entries_that_do_not_fit_are_refused(copy: Path, place: int, message: str) -> None:
    flip(weights(copy), place)
    with pytest.raises(BundleError, match=message):
        load_program(copy)


def test_short_and_empty_files_of_weights_are_refused(copy: Path) -> None:
    content = weights(copy).read_bytes()
    for kept in (0, 10, 100, len(content) // 2):
        weights(copy).write_bytes(content[:kept])
        with pytest.raises(BundleError, match="the file of weights"):
            load_program(copy)


@pytest.mark.parametrize(
    "place",
    ["../../x.mlmodel", "/etc/passwd", "com.apple.CoreML/../../x", "a\\b", "c:x", "", "x" * 300],
)
def test_models_outside_the_package_are_refused(copy: Path, place: str) -> None:
    manifest = copy / "Manifest.json"
    content = json.loads(manifest.read_text())
    content["itemInfoEntries"][content["rootModelIdentifier"]]["path"] = place
    manifest.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="expected one inside it; do not use this package"):
        open_package(copy)


@pytest.mark.parametrize(
    "name", ["@model_path/../weight.bin", "weight.bin", "@model_path/weights/a/b"]
)
def test_files_of_weights_outside_are_refused(copy: Path, name: str) -> None:
    model = read_model(copy)
    for operation in block_of(model.mlProgram).operations:
        for value in operation.attributes.values():
            if value.WhichOneof("value") == "blobFileValue":
                value.blobFileValue.fileName = name
    (copy / SPECIFICATION).write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"names the file of weights|has no file"):
        load_program(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"itemInfoEntries": {}}', b"\xff" * 100])
def test_damaged_manifests_are_refused(copy: Path, content: bytes) -> None:
    (copy / "Manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"has a Manifest\.json that names no model"):
        open_package(copy)


def test_damaged_descriptions_and_links_are_refused(copy: Path) -> None:
    specification = copy / SPECIFICATION
    content = specification.read_bytes()
    specification.write_bytes(b"\xff" * 50)
    with pytest.raises(BundleError, match="has a description that cannot be decoded"):
        open_package(copy)
    specification.unlink()
    with pytest.raises(BundleError, match="has no file Data/com"):
        open_package(copy)
    outside = copy.with_name("outside")
    outside.write_bytes(content)
    specification.symlink_to(outside)
    with pytest.raises(BundleError, match="has a link at"):
        open_package(copy)


def _write_text(operation: Any) -> None:
    tensor = operation.attributes["val"]
    tensor.type.tensorType.dataType = 2  # string
    tensor.type.tensorType.ClearField("dimensions")
    tensor.immediateValue.tensor.strings.values.append("hello")


def _write_unknown_sizes(operation: Any) -> None:
    value = operation.attributes["val"]
    value.type.tensorType.dataType = 23  # int32
    for _ in range(2):
        value.type.tensorType.dimensions.add().unknown.SetInParent()
    value.immediateValue.tensor.ints.values.append(1)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_write_text, "has an output that is no tensor: the text 'hello' is given"),
        (_write_unknown_sizes, r"not of its type int32 \(-1, -1\): can only specify one unknown"),
    ],
)
def test_odd_constants_are_refused(copy: Path, write: Callable[[Any], None], message: str) -> None:
    model = read_model(copy)
    block = block_of(model.mlProgram)
    operation = block.operations.add(type="const")
    write(operation)
    operation.outputs.add(name="odd").type.CopyFrom(operation.attributes["val"].type)
    block.outputs.append("odd")
    write_package(model, weight_files(copy), copy.with_name("odd.mlpackage"))
    with pytest.raises(BundleError, match=message):
        load_program(copy.with_name("odd.mlpackage"))


def test_constant_with_the_name_of_an_input_is_refused(copy: Path) -> None:
    model = read_model(copy)
    operation = block_of(model.mlProgram).operations.add(type="const")
    _write_text(operation)
    operation.outputs.add(name="x").type.CopyFrom(operation.attributes["val"].type)
    write_package(model, weight_files(copy), copy.with_name("odd.mlpackage"))
    with pytest.raises(BundleError, match=r"constant 'x' .* there is another of this name"):
        load_program(copy.with_name("odd.mlpackage"))


def test_flipped_bytes_of_a_description_are_one_clear_error_or_none(copy: Path) -> None:
    specification = copy / SPECIFICATION
    content = specification.read_bytes()
    feed = feeds(1)[0]
    random = np.random.default_rng(0)
    errors = 0
    for place in random.integers(0, len(content), 60):
        specification.write_bytes(content)
        flip(specification, int(place))
        try:
            program = load_program(copy)
            given = {item.name: feed[item.name] for item in program.inputs if item.name in feed}
            program.run(given)
        except (BundleError, UnsupportedOpError, InputError):
            errors += 1
    assert 0 < errors < 60
