"""Lowering to ExecuTorch for Core ML: programs that call one Core ML package, which they hold."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from mvsdk.manifest import Delegation
from mvsdk_export.graphs.capture import capture
from mvsdk_export.layers.selection import select_implementations_
from mvsdk_export.quiet import quiet
from mvsdk_export.targets.coreml.checker.delegated import extract_package
from mvsdk_export.targets.coreml.convert import REWRITTEN
from mvsdk_export.targets.coreml.finish import inspect_package
from mvsdk_export.targets.coreml.tools import import_coremltools
from mvsdk_export.targets.executorch.lowering import import_executorch, write_program


def lower_coreml_delegate(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    path: Path,
    *,
    deployment_target: str,
    etrecord: bool = False,
) -> Delegation:
    """Lower a network in float16 for Core ML.

    The whole network is one package: what Core ML does not take is an error, not a detour over the
    CPU. What crosses is float32, as ExecuTorch's delegate wants it.

    Args:
        network: Network in the forms of training, which are switched.
        inputs: Example of every input, in the order of `forward`.
        path: The .pte file to write.
        deployment_target: Least system that opens it, one of Core ML's.
        etrecord: Write `etrecord.bin` beside the program, for ExecuTorch's Inspector.

    Returns:
        Operations that the Neural Engine takes by documented rules, and those that it does not.

    Raises:
        TargetUnavailableError: If ExecuTorch or coremltools is missing.
        UnsupportedOpError: If one of them cannot lower the network.
        ExportError: If the package breaks a limit of Core ML.
    """
    exir = import_executorch("exir")
    ct = import_coremltools()
    backend = import_executorch("backends.apple.coreml.compiler").CoreMLBackend
    partition = import_executorch("backends.apple.coreml.partition")
    specs = backend.generate_compile_specs(
        minimum_deployment_target=ct.target[deployment_target],
        compute_precision=ct.precision.FLOAT16,
        compute_unit=ct.ComputeUnit.CPU_AND_NE,
        model_type=backend.MODEL_TYPE.MODEL,
    )
    select_implementations_(network, "coreml")
    with quiet():
        program = capture(network, inputs).run_decompositions(dict(REWRITTEN))
    partitioner = partition.CoreMLPartitioner(compile_specs=specs, lower_full_graph=True)
    write_program(exir, program, path, partitioners=[partitioner], etrecord=etrecord)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        package, _ = extract_package(path, Path(folder))
        return inspect_package(package).delegation
