"""Lowering to Core AI, the runtime of Apple's systems from iOS 27 on: `.aimodel` assets.

Conversion is done by Apple's own packages, all of them betas. The same packages run an asset on a
CPU, on Linux and on a Mac, so that what a phone is given is what was verified.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

import mvsdk
from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.capture import capture, capture_module
from mvsdk_export.graphs.memory import lean_heap
from mvsdk_export.layers.selection import select_implementations_
from mvsdk_export.quantize.activations import Feed
from mvsdk_export.quantize.mixed import Assignment
from mvsdk_export.targets.coreai.asset import AssetReport, read_reports, save_asset
from mvsdk_export.targets.coreai.implementations import (
    decompositions,
    write_convolutions_,
)
from mvsdk_export.targets.coreai.tools import explained, import_coreai, installed_releases
from mvsdk_export.targets.coreai.weights import (
    assign_weights,
    compress_weights,
    store_weights_,
)

Precision = Literal["fp32", "fp16", "w8", "w6", "w4"]

FUNCTION = "main"
"""The function of an asset that has one."""
PIXELS = torch.uint8
"""Type in which pixels cross the border."""
SUFFIX = ".aimodel"

Function = tuple[nn.Module, Mapping[str, Tensor]]
"""A network in the forms of training, and an example of every input, in the order of `forward`."""


def lower_coreai(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    path: Path,
    *,
    precision: Precision,
    metadata: Mapping[str, str] | None = None,
    feeds: Sequence[Feed] = (),
    target_db: float | None = None,
    group: int | None = None,
) -> AssetReport:
    """Lower a network of fixed shapes.

    Except in fp32, everything that is float is float16, at the border too: the Neural Engine knows
    no other. w8 has int8 weights with a scale for each output channel; w6 and w4 have palettes of
    64 and 16 values.

    Args:
        network: Network in evaluation mode and in the forms of training, which are switched.
        inputs: Example of every input, in the order of `forward`: float32, int32 or uint8.
        outputs: Names of the outputs.
        path: The .aimodel folder to write; an existing one is replaced.
        precision: One of `Precision`.
        metadata: What the asset says of itself beside the releases of the tools; `author` and
            `license` go to the fields of these names.
        feeds: Inputs of recorded calls.
        target_db: SQNR that the output of a network with compressed weights shall keep on them:
            weights get more bits where it takes those. None gives all the same.
        group: Output channels that share a palette; None for 16, or fewer where that does not
            divide the channels of a weight.

    Returns:
        What is in the asset.

    Raises:
        TargetUnavailableError: If a package is missing, or has changed too much.
        UnsupportedOpError: If the converter refuses the network.
        CompressionError: If weights cannot be compressed so, or there are no calls to measure on.
        ExportError: If the folder has another suffix.
    """
    _check_path(path)
    import_coreai("coreai_torch")  # before the work, as it may be missing
    program, assignment = _build(network, inputs, precision, feeds, target_db, group)
    report = _write(
        {FUNCTION: program}, {FUNCTION: list(inputs)}, outputs, path, precision, metadata
    )[FUNCTION]
    return replace(report, assignment=assignment)


def lower_coreai_functions(
    functions: Mapping[str, Function],
    outputs: Sequence[str],
    path: Path,
    *,
    precision: Precision,
    metadata: Mapping[str, str] | None = None,
    group: int | None = None,
) -> dict[str, AssetReport]:
    """Lower several sizes of a network to one asset, a function each; equal weights are there once.

    Args:
        functions: Name of a function -> network and inputs.
        outputs: Names of the outputs, the same for all.
        path: As `lower_coreai` takes it, and the same for what follows.
        precision: All weights have the same width.
        metadata: The same.
        group: The same.

    Returns:
        Name of a function -> what is in it.

    Raises:
        ExportError: As `lower_coreai`, and if there is no function.
    """
    _check_path(path)
    if not functions:
        raise ExportError(f"{path.name} would have no function; give at least one size")
    import_coreai("coreai_torch")
    programs = {
        name: _build(network, inputs, precision, (), None, group)[0]
        for name, (network, inputs) in functions.items()
    }
    names = {name: list(inputs) for name, (_, inputs) in functions.items()}
    return _write(programs, names, outputs, path, precision, metadata)


def _check_path(path: Path) -> None:
    if path.suffix != SUFFIX:
        raise ExportError(f"a Core AI asset cannot be called {path.name!a}; end it with {SUFFIX}")


def _build(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    precision: Precision,
    feeds: Sequence[Feed],
    target_db: float | None,
    group: int | None,
) -> tuple[ExportedProgram, Assignment | None]:
    """Return a float32 program with the weights that are wanted, before any operator is lowered."""
    select_implementations_(network, "coreai")
    if precision in ("fp32", "fp16"):
        return capture(network, inputs, rewrite=write_convolutions_), None
    found = None
    if target_db is not None:
        # Recorded pixels are real numbers, and stay so: gradients do not pass what rounds.
        real = {k: x.float() if x.dtype == PIXELS else x for k, x in inputs.items()}
        measured = capture_module(network, real, rewrite=write_convolutions_, rounds=False)
        found = assign_weights(measured, precision, feeds, target_db, group)
        del measured
    module = capture_module(network, inputs, rewrite=write_convolutions_)
    weights = compress_weights(module, precision, group) if found is None else found.weights
    with explained("storing compressed weights"), torch.no_grad():
        store_weights_(module, weights)
        return torch.export.export(module, tuple(inputs.values())), found


def _write(
    programs: dict[str, ExportedProgram],
    inputs: Mapping[str, Sequence[str]],
    outputs: Sequence[str],
    path: Path,
    precision: Precision,
    metadata: Mapping[str, str] | None,
) -> dict[str, AssetReport]:
    """Convert programs, each of which is dropped, and save them as one asset."""
    # Of the distribution: the version of a build says which hardware it is for, too.
    tools = {**installed_releases(), "torch": importlib.metadata.version("torch")}
    tools["mvsdk"] = mvsdk.__version__
    with explained(f"converting {path.stem} for Core AI"), lean_heap():
        made = _convert(programs, inputs, outputs, precision)
        reports = read_reports(made)
        save_asset(made, path, {**tools, **(metadata or {})})
    return reports


def _convert(
    programs: dict[str, ExportedProgram],
    inputs: Mapping[str, Sequence[str]],
    outputs: Sequence[str],
    precision: Precision,
) -> Any:
    converters = import_coreai("coreai_torch")
    converter = converters.TorchConverter(mode=converters.TorchConverter.Mode.RELEASE)
    for name in list(programs):
        program = programs.pop(name).run_decompositions(decompositions())
        if precision != "fp32":
            import_coreai("coreai_opt.casting").cast_fp32_to_fp16(program)
        converter.add_exported_program(
            program, input_names=inputs[name], output_names=list(outputs), entrypoint_name=name
        )
        del program
    made = converter.to_coreai()
    converter.clear()
    return made
