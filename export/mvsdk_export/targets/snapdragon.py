"""Lowering to Qualcomm's HTP: a context binary for one chip, and the EPContext model around it.

The compiler is Qualcomm's own, in the QNN provider of ONNX Runtime. A graph that the compiler
takes whole becomes one EPContext node; whatever is left outside is reported by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from mvsdk.backends.native_output import captured_native_output
from mvsdk.backends.qnn import find_device, provider_options, register
from mvsdk.errors import BackendError
from mvsdk.manifest import Chip, LeftOutside, Residency
from mvsdk_export.errors import TargetUnavailableError, UnsupportedOpError

EPCONTEXT = "EPContext"
_INFO = 1
_REASON = re.compile(r"\](?P<reason>[^\]]*)$")


def compile_context(source: Path, target: Path, chip: Chip, *, float16: bool) -> Residency:
    """Compile an ONNX model for one chip.

    Args:
        source: QDQ model, or a float32 one if `float16`.
        target: EPContext model to write (`*_ctx.onnx`); the context binary comes beside it.
        chip: Chip to compile for.
        float16: Compute float operators in float16, the HTP's only float type.

    Returns:
        Where the nodes run.

    Raises:
        TargetUnavailableError: If the QNN provider is missing.
        UnsupportedOpError: If the compiler takes no node, or stops.
    """
    import onnxruntime as ort

    try:
        qnn = register(ort)
        device = find_device(ort)
    except BackendError as exc:
        raise TargetUnavailableError(str(exc)) from exc
    options = _session_options(ort, target, device, provider_options(qnn, chip), float16)
    lines: list[str] = []
    try:
        with captured_native_output() as lines:
            ort.InferenceSession(str(source), options)
    except Exception as exc:  # ONNX Runtime has an exception class of its own per status code
        raise UnsupportedOpError(
            f"the HTP compiler refused {source.stem} for {chip.slug}: {_first_line(exc)}; "
            "rerun with --keep-intermediates and look at the model, or try another precision"
        ) from exc
    if not target.exists():
        raise UnsupportedOpError(
            f"the HTP compiler took no operator of {source.stem} for {chip.slug}; "
            "try another precision"
        )
    return read_residency(target, lines)


def read_residency(path: Path, log: Sequence[str] = ()) -> Residency:
    """Count what a compiled model leaves to the NPU and name what it does not.

    Args:
        path: EPContext model.
        log: What the compiler printed; a line that names a node holds the reason.
    """
    nodes = onnx.load(path, load_external_data=False).graph.node
    outside = [node for node in nodes if node.op_type != EPCONTEXT]
    return Residency(
        npu_nodes=len(nodes) - len(outside),
        cpu_nodes=len(outside),
        left_outside=tuple(
            LeftOutside(operator=x.op_type, name=x.name, reason=_reason(x, log)) for x in outside
        ),
    )


def _session_options(
    ort: Any, target: Path, device: Any, provider: dict[str, str], float16: bool
) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _INFO
    options.add_session_config_entry("ep.context_enable", "1")
    options.add_session_config_entry("ep.context_file_path", str(target))
    options.add_session_config_entry("ep.context_embed_mode", "0")
    settings = {
        **provider,
        # Quantised borders stay in the graph: nothing is left to the CPU.
        "offload_graph_io_quantization": "0",
        "htp_graph_finalization_optimization_mode": "3",
        "enable_htp_fp16_precision": "1" if float16 else "0",
    }
    options.add_provider_for_devices([device], settings)
    return options


def _reason(node: onnx.NodeProto, log: Sequence[str]) -> str:
    named = [line for line in log if node.name and node.name in line]
    typed = [line for line in log if node.op_type in line and "fail" in line.lower()]
    for line in [*named, *typed]:
        found = _REASON.search(line)
        if found and (text := found["reason"].strip()):
            return text[:500]
    return "the QNN provider gives no reason"


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
