"""Constants of models, moved to a file beside the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_tensor,
    uses_external_data,
)

pytest.importorskip("torch")

from mvsdk_export.graphs.external_data import INLINE_BYTES, move_tensors

PAGE = 4096


@pytest.fixture
def tensors() -> list[TensorProto]:
    """Return two constants that go to a file and one between them that does not."""
    values = np.arange(3000, dtype=np.float32)
    small = INLINE_BYTES // 4 - 1
    sizes = {"first": 1500, "small": small, "last": 1400}
    return [numpy_helper.from_array(values[:size] + size, name) for name, size in sizes.items()]


def test_values_of_large_constants_begin_at_pages(
    tensors: list[TensorProto], tmp_path: Path
) -> None:
    moved = list(move_tensors(tensors, tmp_path, tmp_path / "model.data"))
    assert [uses_external_data(tensor) for tensor in moved] == [True, False, True]
    assert [ExternalDataInfo(tensor).offset for tensor in moved[::2]] == [0, 2 * PAGE]
    for tensor, before in zip(moved, tensors, strict=True):
        if uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(tmp_path))
        assert (numpy_helper.to_array(tensor) == numpy_helper.to_array(before)).all()


def test_a_file_that_is_there_is_replaced(tensors: list[TensorProto], tmp_path: Path) -> None:
    target = tmp_path / "model.data"
    target.write_bytes(b"old" * PAGE)
    moved = list(move_tensors(tensors, tmp_path, target))
    assert ExternalDataInfo(moved[0]).offset == 0
    assert target.stat().st_size == 2 * PAGE + 1400 * 4
