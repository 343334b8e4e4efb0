"""Several sizes of a network in one package, as functions that share its weights (iOS 18)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from mvsdk_export.errors import ExportError
from mvsdk_export.targets.coreml.package import (
    WeightReader,
    WeightWriter,
    block_of,
    constants_of,
    kind_of,
    read_model,
    weight_files,
    write_package,
)

LEAST_VERSION = 9
"""Specification version of iOS 18."""


def join_functions(sources: Mapping[str, Path], target: Path) -> None:
    """Write a package with a function for each of several packages.

    Equal weights are written once, so sizes of one network cost little more than one.

    Args:
        sources: Name of a function -> package with one function; the first is the default.
        target: Where the package is written.

    Raises:
        ExportError: If a package is for a system before iOS 18, or is a pipeline.
    """
    models = {name: read_model(path) for name, path in sources.items()}
    for name, model in models.items():
        if model.WhichOneof("Type") != "mlProgram" or model.specificationVersion < LEAST_VERSION:
            raise ExportError(
                f"{sources[name].name} cannot be one function of several: that takes a single ML "
                "program for iOS 18 or later; use --deployment-target iOS18 and no chunks"
            )
    joined = type(next(iter(models.values())))()
    joined.specificationVersion = max(x.specificationVersion for x in models.values())
    joined.description.defaultFunctionName = next(iter(models))
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        writer = WeightWriter(Path(folder))
        for name, model in models.items():
            for file in weight_files(sources[name]):  # one, or none
                reader = WeightReader(file)
                for _, value in list(constants_of(block_of(model.mlProgram).operations)):
                    writer.refer(value, reader.read(value), kind_of(value.type))
            joined.description.metadata.CopyFrom(model.description.metadata)
            described = joined.description.functions.add(name=name)
            described.input.extend(model.description.input)
            described.output.extend(model.description.output)
            joined.mlProgram.version = model.mlProgram.version
            joined.mlProgram.functions[name].CopyFrom(model.mlProgram.functions["main"])
        write_package(joined, [writer.path], target)
