"""What context binaries say of themselves, and that a context is planned for its chip's memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime_qnn")

import torch
from torch import nn

from mvsdk.devices import find_chipset
from mvsdk.manifest.memory import GraphMemory
from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.onnx import export_onnx
from mvsdk_export.quantize.qdq import quantize_w8a16
from mvsdk_export.targets.snapdragon.compiler import compile_context
from mvsdk_export.targets.snapdragon.context_info import (
    parse_graph_blob,
    read_context,
    read_memory_of,
)

pytestmark = pytest.mark.torch

FIRST = struct.pack("<I4xQIIB7xQ", 1, 1000, 8 << 20, 3, 0, 0)
SECOND = struct.pack("<I4xQQI4xQQQQQ", 2, 256, 64, 0, 10, 20, 30, 40, 50)
"""What the HTP of QNN 2.51 writes: in, out 10 B, operators 20, constants 30, DDR 40, shared 50."""


def test_a_blob_of_both_versions_tells_everything() -> None:
    assert parse_graph_blob(FIRST + SECOND) == GraphMemory(
        spill_fill_bytes=1000,
        vtcm_bytes=8 << 20,
        operator_bytes=20,
        constant_bytes=30,
        ddr_tensor_bytes=40,
        io_bytes=10,
        shared_weight_bytes=50,
    )


@pytest.mark.parametrize(
    "blob", [FIRST, FIRST + SECOND[:-1], FIRST + b"\3" + SECOND[1:]], ids=["1", "cut", "3"]
)
def test_of_a_blob_of_version_1_the_rest_is_not_known(blob: bytes) -> None:
    found = parse_graph_blob(blob)
    assert found is not None
    assert (found.spill_fill_bytes, found.vtcm_bytes) == (1000, 8 << 20)
    assert (found.operator_bytes, found.io_bytes, found.shared_weight_bytes) == (None,) * 3


def test_vtcm_in_megabytes_as_the_header_says_it_is_understood() -> None:
    found = parse_graph_blob(struct.pack("<I4xQIIB7xQ", 1, 0, 8, 3, 0, 0))
    assert found is not None
    assert found.vtcm_bytes == 8 << 20


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        FIRST[:-1],
        b"\2" + FIRST[1:],
        struct.pack("<I4xQIIB7xQ", 1, 1 << 60, 8 << 20, 3, 0, 0),
        FIRST + SECOND[:-8] + b"\xff" * 8,
    ],
    ids=["empty", "cut", "version", "spill", "shared"],
)
def test_a_blob_that_cannot_be_right_is_not_known(blob: bytes) -> None:
    assert parse_graph_blob(blob) is None


@pytest.mark.parametrize("content", [b"", b"abc", bytes(5000)], ids=["empty", "short", "zeros"])
def test_what_is_no_context_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model_qnn.bin"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"model_qnn\.bin is .*no context .*; compile it"):
        read_context(path)
    assert read_memory_of([path]) is None


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"cannot read model\.bin: No such file"):
        read_context(tmp_path / "model.bin")


def test_no_contexts_have_no_memory() -> None:
    assert read_memory_of([]) is None


class _Wide(nn.Module):
    """A residual whose two maps, 2.25 MiB each in 16 bits, have room in 8 MiB and none in 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(128, 128, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.tanh(self.first(x)))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what compiles one network for a chip, and its context binary."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    x = torch.randn(1, 128, 96, 96)
    export_onnx(_Wide().eval(), {"x": x}, ["y"], folder / "float.onnx")
    quantize_w8a16(folder / "float.onnx", folder / "model.onnx", [{"x": x.numpy()}])

    @cache
    def compile_for(slug: str) -> Path:
        target = folder / f"{slug}_ctx.onnx"
        compile_context(folder / "model.onnx", target, find_chipset(slug).chip, float16=False)
        (binary,) = folder.glob(f"{slug}_ctx*.bin")
        return binary

    return compile_for


@pytest.mark.qnn
@pytest.mark.parametrize(("slug", "spills"), [("sm8650", False), ("qcm6490", True)])
def test_a_context_is_planned_for_the_memory_of_its_chip(
    compiled: Callable[[str], Path], slug: str, spills: bool
) -> None:
    binary, chipset = compiled(slug), find_chipset(slug)
    info = read_context(binary)
    assert info.soc_model == chipset.soc_model
    assert info.build.startswith("v2.")
    (graph,) = info.graphs
    assert graph.name
    memory = graph.memory
    assert memory is not None
    assert memory.vtcm_bytes == chipset.vtcm_mib << 20
    assert (memory.spill_fill_bytes > 0) is spills
    assert memory.io_bytes == 2 * 4 * 128 * 96 * 96  # float32, in and out
    assert memory.operator_bytes
    assert memory.constant_bytes
    assert memory.operator_bytes + memory.constant_bytes < 2 * binary.stat().st_size
    assert read_memory_of([binary, binary]) == (memory, memory)


@pytest.mark.qnn
def test_a_context_that_was_cut_short_is_refused(
    compiled: Callable[[str], Path], tmp_path: Path
) -> None:
    content = compiled("sm8650").read_bytes()
    path = tmp_path / "model_qnn.bin"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ExportError, match="no context binary that QNN can read"):
        read_context(path)
