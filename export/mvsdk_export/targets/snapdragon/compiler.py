"""Lowering to Qualcomm's HTP: a context binary for one chip, and the EPContext model around it.

The compiler is Qualcomm's own, in the QNN provider of ONNX Runtime. A graph that the compiler
takes whole becomes one EPContext node; whatever is left outside is reported by name. A network that
it cannot take in one piece is cut (split.py), compiled part by part and stitched together again:
one model with an EPContext node per part, which a runtime loads and runs as any other.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import onnx

from mvsdk.backends.native_output import captured_native_output
from mvsdk.backends.qnn import find_device, provider_options, register
from mvsdk.devices import CHIPSETS
from mvsdk.errors import BackendError
from mvsdk.manifest import Chip, Delegation, NonDelegated
from mvsdk_export.errors import (
    ExportError,
    TargetUnavailableError,
    UnsupportedOpError,
    first_line,
)
from mvsdk_export.graphs.join import check_signature
from mvsdk_export.graphs.onnx import IR_VERSION

EPCONTEXT = "EPContext"
_INFO = 1
_REASON = re.compile(r"\](?P<reason>[^\]]*)$")


def compile_context(source: Path, target: Path, chip: Chip, *, float16: bool) -> Delegation:
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
    options = _session_options(ort, target, device, compiler_options(qnn, chip), float16)
    lines: list[str] = []
    try:
        with captured_native_output() as lines:
            ort.InferenceSession(str(source), options)
    except Exception as exc:  # ONNX Runtime has an exception class of its own per status code
        raise UnsupportedOpError(
            f"the HTP compiler refused {source.stem} for {chip.slug}: {first_line(exc)}; "
            "rerun with --keep-intermediates and look at the model, or try another precision"
        ) from exc
    if not target.exists():
        raise UnsupportedOpError(
            f"the HTP compiler took no operator of {source.stem} for {chip.slug}; "
            "try another precision"
        )
    make_portable(target)
    return read_delegation(target, lines)


def compiler_options(qnn: Any, chip: Chip) -> dict[str, str]:
    """Return the options of the provider for compiling, the chip's on-chip memory among them.

    Where nothing is said, QNN 2.51 plans with all of that too, but its documentation promises 4 MB
    and so does the context that it writes (docs/npu_forms.md, "On-chip memory").

    Args:
        qnn: The `onnxruntime_qnn` module.
        chip: The chip to compile for; the compiler chooses for one that `CHIPSETS` does not have.
    """
    options = provider_options(qnn, chip)
    for chipset in CHIPSETS:
        if chipset.chip == chip:
            options["vtcm_mb"] = str(chipset.vtcm_mib)
    return options


def make_portable(path: Path) -> None:
    """Let older runtimes open a model: ONNX Runtime writes what is newest, and phones have less.

    The IR version becomes that of all our models, and opsets that no node is of are left out.
    """
    model = onnx.load(path, load_external_data=False)
    model.ir_version = IR_VERSION
    used = {node.domain for node in model.graph.node}
    opsets = [item for item in model.opset_import if item.domain in used or not item.domain]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    onnx.save(model, path)


def stitch_contexts(
    parts: Sequence[Path], target: Path, *, outputs: Sequence[str] | None = None
) -> Delegation:
    """Join the compiled parts of a network into one EPContext model.

    What one part gives and a later one takes becomes a value inside the model. The context binaries
    come beside it, linked to those of the parts where the file system can do that.

    Args:
        parts: EPContext models of the parts, in the order in which they run.
        target: EPContext model to write (`*_ctx.onnx`); its binaries are `*_ctx_0.bin` and so on.
        outputs: Outputs of the whole; None takes what parts give and no part takes.

    Returns:
        Where the nodes run; why some are left outside is known to the compilation of their part.

    Raises:
        ExportError: If parts do not fit: a value is given in another type or shape than it is
            taken in, or two have the same name.
    """
    model = onnx.load(parts[0], load_external_data=False)
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for field in ("node", "initializer", "input", "output", "value_info"):
        whole.graph.ClearField(field)
    taken: dict[str, onnx.ValueInfoProto] = {}
    made: dict[str, onnx.ValueInfoProto] = {}
    known: dict[str, bytes] = {}
    read: set[str] = set()
    binaries = count()
    for part in parts:
        graph = onnx.load(part, load_external_data=False).graph
        for value in graph.input:
            check_signature(
                made.get(value.name) or taken.setdefault(value.name, value), value, part
            )
            read.add(value.name)
        made |= {value.name: value for value in graph.output}
        for node in graph.node:
            if (place := _binary(node)) is not None:
                binary = target.with_name(f"{target.stem}_{next(binaries)}.bin")
                _link(part.parent / place.s.decode(), binary)
                place.s = binary.name.encode()
        whole.graph.node.extend(_unknown(graph.node, known, part))
        whole.graph.initializer.extend(_unknown(graph.initializer, known, part))
        whole.graph.value_info.extend(graph.value_info)
    last = list(outputs) if outputs is not None else [name for name in made if name not in read]
    whole.graph.input.extend(taken.values())
    whole.graph.output.extend(made[name] for name in last)
    whole.graph.value_info.extend(value for name, value in made.items() if name not in last)
    onnx.save(whole, target)
    return read_delegation(target)


def read_delegation(path: Path, log: Sequence[str] = ()) -> Delegation:
    """Count what a compiled model leaves to the NPU and name what it does not.

    Args:
        path: EPContext model; each context of a stitched one counts as a node of the NPU.
        log: What the compiler printed; a line that names a node holds the reason.
    """
    nodes = onnx.load(path, load_external_data=False).graph.node
    outside = [node for node in nodes if node.op_type != EPCONTEXT]
    return Delegation(
        delegated=len(nodes) - len(outside),
        non_delegated=tuple(
            NonDelegated(operator=x.op_type, name=x.name, reason=_reason(x, log)) for x in outside
        ),
    )


def _unknown(items: Iterable[Any], known: dict[str, bytes], part: Path) -> Iterator[Any]:
    """Return what no earlier part has. What is constant may be in several parts, equal in all."""
    for item in items:
        said: bytes = item.SerializeToString(deterministic=True)
        names = [item.name]
        if isinstance(item, onnx.NodeProto):
            names = [f"node {item.name}", *item.output]
        if all(known.get(name) == said for name in names):
            continue
        if any(name in known for name in names):
            raise ExportError(
                f"{part.name} cannot be joined: an earlier part has another {item.name!r}; "
                "export again: parts of one network have names of their own"
            )
        known.update(dict.fromkeys(names, said))
        yield item


def _binary(node: onnx.NodeProto) -> onnx.AttributeProto | None:
    """Return the attribute that names the file of a context, unless the model itself holds it."""
    if node.op_type != EPCONTEXT or any(x.name == "embed_mode" and x.i for x in node.attribute):
        return None
    return next((x for x in node.attribute if x.name == "ep_cache_context" and x.s), None)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


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
