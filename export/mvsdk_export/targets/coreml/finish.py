"""What a Core ML package says of itself before it is shipped, read from disk as a runtime would."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mvsdk.manifest import Delegation, DType, TensorSpec
from mvsdk_export.errors import ExportError
from mvsdk_export.findings import Finding, check_findings
from mvsdk_export.targets.coreml import neural_engine as engine
from mvsdk_export.targets.coreml.checker.package import Operation, Tensor, open_package
from mvsdk_export.targets.coreml.chunks import make_pipeline
from mvsdk_export.targets.coreml.neural_engine import check_limits, predict_delegation
from mvsdk_export.targets.coreml.package import link_or_copy, weight_files


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageReport:
    """A finished package."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    delegation: Delegation
    """As documented rules predict it."""
    warnings: tuple[Finding, ...]
    """Limits of the Neural Engine that it is beyond."""


def finish_package(source: Path, target: Path, *, chunk_bytes: int) -> PackageReport:
    """Cut a package that is too large into a pipeline, check it, and say what is in it.

    Args:
        source: The package.
        target: Where what is shipped is written.
        chunk_bytes: Weights above which it is cut.

    Raises:
        ExportError: If it cannot be cut, chunks compute something else than the whole, or a tensor
            has more than five axes, which Core ML refuses.
    """
    if make_pipeline(source, target, chunk_bytes=chunk_bytes):
        _check_chunks(source, target)
    else:
        shutil.copytree(source, target, copy_function=link_or_copy)
    return inspect_package(target)


def inspect_package(path: Path) -> PackageReport:
    """Check a package against limits, and say what is in it.

    Args:
        path: The package.

    Raises:
        ExportError: If a tensor has more than five axes, which Core ML refuses.
    """
    package = open_package(path)
    function = package.functions[package.default_function]
    operations = [_facts(operation) for operation in package.operations()]
    # Files of weights are one for each chunk; what is checked beside them is the same for all.
    largest = max((file.stat().st_size for file in weight_files(path)), default=0)
    findings = check_limits(operations, weight_bytes=largest)
    check_findings(findings)
    return PackageReport(
        inputs=_specs(function.inputs),
        outputs=_specs(function.outputs),
        delegation=predict_delegation(operations),
        warnings=tuple(finding for finding in findings if finding.severity == "warning"),
    )


def _check_chunks(whole: Path, cut: Path) -> None:
    """Hold a pipeline to the program that it was cut from, on noise: they must be equal.

    Raises:
        ExportError: If they differ.
    """
    from mvsdk_export.targets.coreml.checker.program import load_program

    program = load_program(whole)
    feed = _noise({item.name: (item.shape, item.dtype) for item in program.inputs})
    wanted = program.run(feed)
    del program
    found = load_program(cut).run(feed)
    for name, values in wanted.items():
        if not np.array_equal(values, found[name], equal_nan=values.dtype.kind == "f"):
            raise ExportError(
                f"{name} of {cut.name} in chunks differs from the whole; report this, and export "
                "with larger --chunk-bytes meanwhile"
            )


def _noise(inputs: Mapping[str, tuple[Sequence[int], str]]) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    return {
        # Whole numbers may be places in a table: 0 and 1 are there always.
        name: (random.random(shape) if "float" in dtype else random.integers(2, size=shape)).astype(
            dtype
        )
        for name, (shape, dtype) in inputs.items()
    }


def _facts(operation: Operation) -> engine.Operation:
    """Return what rules look at of an operation."""
    return engine.Operation(
        type=operation.type.rpartition(".")[2],
        name=operation.name,
        inputs={
            parameter if len(found) == 1 else f"{parameter}[{index}]": _tensor_facts(tensor)
            for parameter, found in operation.inputs.items()
            for index, tensor in enumerate(found)
        },
        outputs=tuple(_tensor_facts(tensor) for tensor in operation.outputs),
        constants={
            parameter: value if isinstance(value, str) else value.tolist()
            for parameter, value in operation.constants.items()
        },
    )


def _tensor_facts(tensor: Tensor) -> engine.TensorFacts:
    return engine.TensorFacts(shape=tensor.shape, dtype=tensor.dtype, constant=tensor.constant)


def _specs(tensors: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=item.name, shape=item.shape, dtype=cast("DType", item.dtype))
        for item in tensors
    )
