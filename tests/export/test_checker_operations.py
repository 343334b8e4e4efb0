"""The checker's evaluator: operations by closed forms, and networks against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

import torch.nn.functional as F  # noqa: E402
from mil_cases import ARITHMETIC, Case, inputs, wanted  # noqa: E402
from mil_cases_neighbours import NEIGHBOURS  # noqa: E402
from mil_cases_places import MOVES  # noqa: E402
from mil_cases_products import PRODUCTS  # noqa: E402
from mil_packages import (  # noqa: E402
    Arrays,
    block_of,
    builder,
    convert_torch,
    decibels,
    read_model,
    run,
    save,
    write_model,
    write_program,
)
from torch import Tensor, nn  # noqa: E402

from mvsdk.errors import BundleError  # noqa: E402
from mvsdk_export.targets.coreml import checker  # noqa: E402
from mvsdk_export.targets.coreml.checker.operations import OPERATIONS  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.apple,
    # coremltools leaves the folders of its models to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CASES: dict[str, Case] = {**ARITHMETIC, **PRODUCTS, **MOVES, **NEIGHBOURS}
DTYPES = {"fp32": np.float32, "fp16": np.float16}


def build_cases(**values: Any) -> dict[str, Any]:
    """Return the outputs of all cases; the second of several has the name `topk_1`."""
    from types import SimpleNamespace

    from coremltools.converters.mil import Builder

    made: dict[str, Any] = {}
    for name, (tell, _) in CASES.items():
        found = tell(Builder, SimpleNamespace(**values))
        several = found if isinstance(found, tuple | list) else (found,)
        made |= {f"case_{name}_{at}": value for at, value in enumerate(several)}
    return made


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Return a package of all cases in both precisions, with its program: only read them."""
    folder = tmp_path_factory.mktemp("cases")
    return {
        name: (
            folder / f"{name}.mlpackage",
            write_program(folder / f"{name}.mlpackage", inputs(dtype), build_cases),
        )
        for name, dtype in DTYPES.items()
    }


@pytest.fixture(scope="module")
def answers(packages: dict[str, tuple[Path, Any]]) -> dict[str, Arrays]:
    """Return what the checker makes of all cases."""
    return {name: run(packages[name][0], inputs(dtype)) for name, dtype in DTYPES.items()}


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_operations_give_their_closed_forms(
    name: str, precision: str, answers: dict[str, Arrays]
) -> None:
    truth = wanted(CASES[name], inputs(DTYPES[precision]))
    for at, value in enumerate(truth):
        found = answers[precision][f"case_{name}_{at}"]
        assert found.shape == value.shape
        if found.dtype.kind != "f":
            assert (found == value).all()
        elif precision == "fp32" or found.dtype == np.float32:
            scale = np.abs(value).max() + 1e-6
            assert np.abs(found.astype(np.float64) - value).max() <= 1e-5 * scale
        else:
            assert decibels(found, value) > 50


def test_smallest_number_by_minus_one_is_itself(tmp_path: Path) -> None:
    x = np.array([np.iinfo(np.int32).min, 7, -9], np.int32)
    path = tmp_path / "divided.mlpackage"
    by = np.array([-1, -1, 2], np.int32)
    write_program(path, {"x": x}, lambda x: {"y": builder().real_div(x=x, y=by)})
    assert run(path, {"x": x})["y"].tolist() == [x[0], -7, -4]


def test_what_is_larger_than_its_type_says_is_refused_before_it_is_made(tmp_path: Path) -> None:
    row = np.zeros((1, 1 << 16), np.float32)
    given = {"x": row, "y": row.T.copy()}
    path = tmp_path / "table.mlpackage"
    small = {name: value[:1, :1] for name, value in given.items()}
    write_program(path, small, lambda x, y: {"z": builder().add(x=x, y=y)})
    model = read_model(path)
    for item, described in zip(
        model.mlProgram.functions["main"].inputs, model.description.input, strict=True
    ):
        shape = given[item.name].shape
        for dimension, size in zip(item.type.tensorType.dimensions, shape, strict=True):
            dimension.constant.size = size
        described.type.multiArrayType.shape[:] = shape
    write_model(path, model)
    with pytest.raises(BundleError, match=r"makes a tensor of .*65536, 65536.*, more than"):
        run(path, given)


def test_every_operation_is_tested(packages: dict[str, tuple[Path, Any]]) -> None:
    tested = {item.type for item in checker.open_package(packages["fp32"][0]).operations()}
    assert OPERATIONS.keys() - tested == set()


def test_inputs_that_are_left_out_have_the_formats_defaults(
    packages: dict[str, tuple[Path, Any]], answers: dict[str, Arrays], tmp_path: Path
) -> None:
    path, program = packages["fp32"]
    defaults: dict[str, set[str]] = {}
    for operation in program.functions["main"].operations:
        if operation.op_type == "const":
            continue
        for name, value in operation.default_inputs().items():
            given = operation.inputs.get(name)
            if given is None or value is None or given.val is None:
                continue
            if np.array_equal(np.asarray(given.val), np.asarray(value)):
                defaults.setdefault(operation.outputs[0].name, set()).add(name)
    model = read_model(path)
    left_out = 0
    for operation in block_of(model).operations:
        for name in defaults.get(operation.outputs[0].name, ()) & operation.inputs.keys():
            del operation.inputs[name]
            left_out += 1
    assert left_out > 100
    copy = copy_of(path, tmp_path)
    write_model(copy, model)
    found = run(copy, inputs(np.float32))
    for name, value in answers["fp32"].items():
        assert np.abs(found[name] - value).max(initial=0) <= 1e-6 * np.abs(value).max(initial=1)


def copy_of(path: Path, folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(path, folder / path.name))


# --- networks of PyTorch --------------------------------------------------------------------------


class Graphs(nn.Module):
    """Many functions of one input as one network, with a weight for those that want one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3) / 6)
        self.matrix = nn.Parameter(torch.randn(5, 8) / 3)
        self.gru_like = nn.Sequential(nn.Linear(8, 16), nn.PReLU(), nn.Linear(16, 8))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(make(self, x) for make in GRAPHS.values())


GRAPHS: dict[str, Callable[[Graphs, Tensor], Tensor]] = {
    "conv": lambda net, x: F.conv2d(x, net.weight, padding=1),
    "conv_strided_dilated": lambda net, x: F.conv2d(x, net.weight, stride=2, padding=2, dilation=2),
    "conv_grouped": lambda net, x: F.conv2d(x, net.weight[:4, :1], groups=4),
    "conv_1d": lambda net, x: F.conv1d(x[:, :, 0], net.weight[:, :, 0], padding=1),
    "conv_3d": lambda net, x: F.conv3d(x.reshape(2, 4, 2, 4, 8), net.weight[:, :, None]),
    "conv_transpose": lambda net, x: F.conv_transpose2d(x, net.weight[:4], stride=2, padding=1),
    "conv_transpose_output_padding": lambda net, x: F.conv_transpose2d(
        x, net.weight[:4], stride=2, padding=1, output_padding=1
    ),
    "linear": lambda net, x: net.gru_like(x),
    "matmul": lambda net, x: x @ x.transpose(2, 3),
    "attention": lambda net, x: F.scaled_dot_product_attention(x, x * 0.5, x + 1),
    "einsum": lambda net, x: torch.einsum("nchw,nwhu->nchu", x, x.permute(0, 3, 2, 1)),
    "softmax": lambda net, x: (x * 3).softmax(dim=1),
    "layer_norm": lambda net, x: F.layer_norm(x * 5 + 2, (8,), net.matrix[0], net.matrix[1]),
    "group_norm": lambda net, x: F.group_norm(x * 5 + 2, 2),
    "instance_norm": lambda net, x: F.instance_norm(x * 5 + 2),
    "batch_norm": lambda net, x: net.norm(x),
    # coremltools 9.0 makes the exact one of approximate="tanh" where it is a keyword
    "gelu": lambda net, x: F.gelu(x),
    "activations": lambda net, x: F.silu(x) + torch.tanh(x) + torch.sigmoid(x) + F.relu(x),
    "more_activations": lambda net, x: F.elu(x) + F.leaky_relu(x) + F.softplus(x) + F.relu6(x * 5),
    "elementwise": lambda net, x: x.abs().sqrt() / (x.square() + 1) - torch.exp(-x.abs()),
    "powers": lambda net, x: x.abs().pow(1.5) + torch.rsqrt(x.abs() + 1) + (x.abs() + 1).log(),
    "trigonometry": lambda net, x: torch.sin(x) + torch.cos(2 * x) + torch.atan(x),
    "rounding": lambda net, x: torch.round(x * 4) + torch.floor(x) + torch.ceil(x * 2),
    "limits": lambda net, x: x.clamp(-0.5, 0.7) + torch.maximum(x, x * 0.3),
    "choice": lambda net, x: torch.where(torch.logical_and(x > 0.2, x < 1), x, -x),
    "means": lambda net, x: x.mean(dim=(2, 3), keepdim=True) + x.sum(dim=1, keepdim=True),
    "extremes": lambda net, x: x.amax(dim=3) + x.amin(dim=2).mean(dim=1, keepdim=True),
    "reshape": lambda net, x: x.reshape(2, 2, 16, 8).permute(0, 2, 1, 3).flatten(1, 2),
    "slices": lambda net, x: x[:, 1:3, ::2, -3:] + x[:, :2, 1::2, :3],
    "joints": lambda net, x: torch.cat([x[:, :1], x, torch.stack([x[:, 0], x[:, 1]], 1)], dim=1),
    "chunks": lambda net, x: x.chunk(2, dim=1)[1] * x.split([1, 3], dim=1)[0],
    "repeats": lambda net, x: x.repeat(1, 2, 1, 3) + x[:, :1].expand(2, 8, 8, 8).repeat(1, 1, 1, 3),
    "padding": lambda net, x: F.pad(x, (1, 2, 3, 0)) + F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "shuffles": lambda net, x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 4),
    "nearest": lambda net, x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "bilinear": lambda net, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear_corners": lambda net, x: F.interpolate(
        x, (5, 13), mode="bilinear", align_corners=True
    ),
    "pools": lambda net, x: F.avg_pool2d(x, 2) + F.max_pool2d(x, 3, 2, 1),
    "embedding": lambda net, x: F.embedding((x[0, 0].abs() * 2).int().clamp(0, 4), net.matrix),
    "gather": lambda net, x: x.gather(2, (x.abs() * 2).long().clamp(0, 7)),
    "cumsum": lambda net, x: x.cumsum(dim=3),
    "topk": lambda net, x: x.topk(3, dim=3).values,
    "triangle": lambda net, x: x.tril() + x.triu(1) * 0.5,
    "norms": lambda net, x: F.normalize(x, dim=1) + x.norm(dim=(2, 3), keepdim=True),
}

FORMS = [("iOS16", False), ("iOS17", True), ("iOS18", False), ("iOS18", True)]


@pytest.fixture(scope="module")
def graphs(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, bool], tuple[Arrays, list[NDArray[Any]]]]:
    """Return what the checker and PyTorch make of all graphs, by target and precision."""
    torch.manual_seed(1)
    x = torch.randn(2, 4, 8, 8).half().float()
    network = Graphs().eval()
    with torch.no_grad():
        truth = [value.numpy() for value in network(x)]
    found: dict[tuple[str, bool], Arrays] = {}

    def get(target: str, half: bool) -> tuple[Arrays, list[NDArray[Any]]]:
        if (target, half) not in found:
            model = convert_torch(network, {"x": x}, list(GRAPHS), target=target, half=half)
            path = save(model, tmp_path_factory.mktemp("graphs") / "x.mlpackage")
            found[target, half] = run(path, {"x": x.numpy()})
        return found[target, half], truth

    return get


@pytest.mark.parametrize(("target", "half"), FORMS)
@pytest.mark.parametrize("at", range(len(GRAPHS)), ids=GRAPHS)
def test_networks_give_what_pytorch_gives(at: int, target: str, half: bool, graphs: Any) -> None:
    found, truth = graphs(target, half)
    value, answer = found[list(GRAPHS)[at]], truth[at]
    assert value.shape == answer.shape
    assert value.dtype == (np.float16 if half else np.float32)
    if half:
        assert decibels(value, answer) > 50
    else:
        assert np.abs(value - answer).max() <= 1e-5 * np.abs(answer).max()
