"""Post-training quantisation of ONNX models into QDQ form, for QNN and for ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import (
    get_qnn_qdq_config,
    qnn_preprocess_model,
)

from mvsdk_export.errors import ExportError

Feed = Mapping[str, NDArray[Any]]


def quantize_w8a16(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    """Quantise a float32 model: 8-bit weights, 16-bit activations.

    Weights of convolutions are int8 per output channel, those of matrix products int8 per tensor;
    embedding tables and scales of layer normalisations are uint16. Activations are uint16 per
    tensor, with the extremes over the calibration feeds as range, so the feeds must cover what the
    sampler visits: whole trajectories, every step.

    Args:
        source: Float32 model of fixed shapes.
        target: QDQ model to write. Float inputs and outputs become uint16 at the border.
        feeds: Calibration inputs, by input name.

    Raises:
        ExportError: If there are no feeds, or one holds a value that is not finite.
    """
    _check_feeds(feeds)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        if not qnn_preprocess_model(source, prepared):
            prepared = source
        config = get_qnn_qdq_config(
            prepared,
            _Reader(feeds),
            activation_type=QuantType.QUInt16,
            weight_type=QuantType.QInt8,
            per_channel=True,
            init_overrides=_normalisation_weights(prepared),
        )
        quantize(prepared, target, config)


def _normalisation_weights(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Give the scale of every layer normalisation 16 unsigned bits: the HTP takes no signed type.

    With int8 QNN 2.51 leaves the operator outside ("validation failed ... error code 3110"); 8
    unsigned bits would cost each normalisation 33 dB.
    """
    graph = onnx.load(path, load_external_data=False).graph
    scales = {node.input[1] for node in graph.node if node.op_type == "LayerNormalization"}
    return {name: [{"quant_type": QuantType.QUInt16}] for name in sorted(scales)}


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Any:
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def _check_feeds(feeds: Sequence[Feed]) -> None:
    if not feeds:
        raise ExportError("calibration has no inputs; give at least one prompt")
    for feed in feeds:
        for name, value in feed.items():
            if not np.isfinite(value).all():
                raise ExportError(
                    f"calibration input {name!r} holds values that are not finite; "
                    "check the checkpoint: mvsdk verify compares it with itself in float32"
                )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice out of the output: it asks for preprocessing that was done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
