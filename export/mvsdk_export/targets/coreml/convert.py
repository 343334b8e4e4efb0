"""Conversion of a network to a float16 ML program."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvsdk_export.errors import ExportError, UnsupportedOpError, first_line
from mvsdk_export.graphs.capture import capture
from mvsdk_export.quiet import quiet
from mvsdk_export.targets.coreml.package import set_metadata, weight_files, write_package
from mvsdk_export.targets.coreml.tools import (
    DEPLOYMENT_TARGETS,
    import_coremltools,
    tool_metadata,
)


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Write out the GELU by a hyperbolic tangent; coremltools makes one operator of it again.

    coremltools 9.0 does not see which GELU an exported program wants, and takes the exact one.
    """
    if approximate != "tanh":
        return NotImplemented
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))
    return 0.5 * x * (1 + torch.tanh(inner))


REWRITTEN: Mapping[Any, Callable[..., Tensor]] = {torch.ops.aten.gelu.default: _gelu}
"""Operators that coremltools takes for others -> what they are written as."""


def convert(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    path: Path,
    *,
    deployment_target: str,
) -> None:
    """Convert a network of fixed shapes.

    Everything that is float crosses in float16, which the Neural Engine takes without a cast.

    Args:
        network: Network in evaluation mode, in the forms that are wanted.
        inputs: Example of every input, in the order of `forward`: float32, float16 or int32.
        outputs: Names of the outputs.
        path: The .mlpackage folder to write.
        deployment_target: Least system that opens it, one of `DEPLOYMENT_TARGETS`.

    Raises:
        TargetUnavailableError: If coremltools is missing.
        ExportError: If the deployment target is none of those.
        UnsupportedOpError: If the converter has no form of an operator.
    """
    ct = import_coremltools()
    if deployment_target not in DEPLOYMENT_TARGETS:
        raise ExportError(
            f"deployment target {deployment_target!a} is none of Core ML's that are known: "
            f"{', '.join(DEPLOYMENT_TARGETS)}; choose one with --deployment-target"
        )
    program = capture(network, inputs).run_decompositions(dict(REWRITTEN))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, quiet():
        saved = Path(folder) / path.name
        try:
            model = ct.convert(
                program,
                convert_to="mlprogram",
                inputs=[_tensor_type(ct, name, value) for name, value in inputs.items()],
                outputs=[ct.TensorType(name=name, dtype=np.float16) for name in outputs],
                minimum_deployment_target=ct.target[deployment_target],
                compute_precision=ct.precision.FLOAT16,
                skip_model_load=True,
            )
        except (NotImplementedError, ValueError, RuntimeError) as exc:
            raise UnsupportedOpError(
                f"coremltools refused {path.stem} for {deployment_target}: {first_line(exc)}; "
                "try another deployment target, or --target executorch"
            ) from exc
        del program
        model.save(str(saved))
        spec = model.get_spec()
        del model
        set_metadata(spec, tool_metadata())
        write_package(spec, weight_files(saved), path)


def _tensor_type(ct: Any, name: str, value: Tensor) -> Any:
    dtype = np.int32 if value.dtype == torch.int32 else np.float16
    return ct.TensorType(name=name, shape=tuple(value.shape), dtype=dtype)
