"""Small Core ML packages made with coremltools itself, for tests of the checker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mvsdk_export.quiet import quiet
from mvsdk_export.targets.coreml import checker
from mvsdk_export.targets.coreml.tools import import_coremltools, load_protocol

Arrays = dict[str, NDArray[Any]]

SPECIFICATION = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")


def builder() -> Any:
    """Return coremltools' builder of programs."""
    import_coremltools()
    from coremltools.converters.mil import Builder

    return Builder


def write_program(
    path: Path,
    inputs: Mapping[str, NDArray[Any]],
    build: Callable[..., Mapping[str, Any]],
    target: str = "iOS18",
) -> Any:
    """Save a program that is built operation by operation; nothing is folded or fused.

    Args:
        path: Package to write.
        inputs: Name -> an array of its shape and type.
        build: From the inputs to the outputs, by name.
        target: Least system, such as iOS18.

    Returns:
        The program that was built.
    """
    ct = import_coremltools()
    mb = builder()
    from coremltools.converters.mil.mil import types

    specs = [
        mb.TensorSpec(x.shape, dtype=types.numpy_type_to_builtin_type(x.dtype))
        for x in inputs.values()
    ]

    def body(*values: Any) -> Any:
        made = build(**dict(zip(inputs, values, strict=True)))
        return tuple(_named(mb, name, value) for name, value in made.items())

    # The names of a program's inputs are those of its function's arguments.
    namespace = {"body": body}
    exec(f"def named({', '.join(inputs)}): return body({', '.join(inputs)})", namespace)
    with quiet():
        program = mb.program(input_specs=specs, opset_version=ct.target[target])(namespace["named"])
        model = ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            minimum_deployment_target=ct.target[target],
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        model.save(str(path))
    return program


def _named(mb: Any, name: str, value: Any) -> Any:
    """Return an output of a type that may cross the border of a package."""
    from coremltools.converters.mil.mil import types

    if value.dtype in (types.fp16, types.fp32, types.int32):
        return mb.identity(x=value, name=name)
    return mb.cast(x=value, dtype="int32", name=name)


def convert_torch(
    network: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    *,
    target: str = "iOS18",
    half: bool = False,
) -> Any:
    """Return coremltools' model of a network, through torch.export and all of its passes."""
    ct = import_coremltools()
    kind = np.float16 if half else np.float32
    with quiet(), torch.no_grad():
        program = torch.export.export(network.eval(), tuple(inputs.values()))
        return ct.convert(
            program.run_decompositions({}),
            convert_to="mlprogram",
            inputs=[
                ct.TensorType(name=name, shape=tuple(x.shape), dtype=kind)
                for name, x in inputs.items()
            ],
            outputs=[ct.TensorType(name=name, dtype=kind) for name in outputs],
            minimum_deployment_target=ct.target[target],
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            skip_model_load=True,
        )


def save(model: Any, path: Path) -> Path:
    """Save a model of coremltools."""
    with quiet():
        model.save(str(path))
    return path


def run(path: Path, inputs: Mapping[str, NDArray[Any]], function: str | None = None) -> Arrays:
    """Evaluate a saved package."""
    return checker.load_program(path, function).run(inputs)


def read_model(path: Path) -> Any:
    """Return the description of a package."""
    model = load_protocol()[0].Model()
    model.ParseFromString((path / SPECIFICATION).read_bytes())
    return model


def write_model(path: Path, model: Any) -> None:
    """Replace the description of a package."""
    (path / SPECIFICATION).write_bytes(model.SerializeToString())


def block_of(model: Any, function: str = "main") -> Any:
    """Return the operations and outputs of a function."""
    (block,) = model.mlProgram.functions[function].block_specializations.values()
    return block


def decibels(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Return the ratio of signal to noise."""
    noise = np.square(found.astype(np.float64) - wanted.astype(np.float64)).sum()
    signal = np.square(wanted.astype(np.float64)).sum()
    return float(np.inf) if noise == 0 else float(10 * np.log10(signal / noise))
