"""Jobs that make Core ML packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from mvsdk_export.checkpoints.subject import Subject
from mvsdk_export.jobs.job import Files, Inputs, Job
from mvsdk_export.quantize.activations import Recorded, calibration_inputs
from mvsdk_export.targets.artefact import Artefact, Nothing
from mvsdk_export.targets.package_names import package_name

if TYPE_CHECKING:
    from torch import nn

Attention = Literal["fused", "split_einsum"]

_ENGINES: Mapping[Attention, str] = {"fused": "coreml", "split_einsum": "coreml_split_einsum"}
_SUFFIX = ".mlpackage"
_CONVERTING = ("torch", "coremltools", "mvsdk_export.checkpoints.weights")


@dataclass(frozen=True, kw_only=True, eq=False)
class ConvertCoreML(Job[Nothing]):
    """Convert a component to a float16 Core ML package."""

    model: Files
    subject: Subject
    deployment_target: str
    attention: Attention

    PRELOAD: ClassVar[tuple[str, ...]] = (*_CONVERTING, "mvsdk_export.targets.coreml.convert")

    def run(self, inputs: Inputs, output: Path) -> Nothing:
        """Write the package."""
        import torch

        from mvsdk_export.targets.coreml.convert import convert
        from mvsdk_export.targets.networks import open_network

        del inputs
        opened = open_network(self.model, self.subject, pixels=torch.float16)
        convert(
            select(opened.network, self.attention),
            opened.inputs,
            opened.outputs,
            output / package_name(self.subject.component, _SUFFIX),
            deployment_target=self.deployment_target,
        )
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressCoreML(Job[Artefact]):
    """Compress the weights of a converted component, as recorded activations allow."""

    model: Files
    subject: Subject
    attention: Attention
    precision: str
    target_db: float
    group: int | None
    """Output channels that share a palette; None for what fits each weight."""
    package: Job[Nothing]
    recorded: Job[Recorded]

    PRELOAD: ClassVar[tuple[str, ...]] = (*_CONVERTING, "mvsdk_export.targets.coreml.compress")

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the package."""
        import torch

        from mvsdk_export.targets.coreml.compress import compress_package
        from mvsdk_export.targets.networks import open_network

        opened = open_network(self.model, self.subject, pixels=torch.float32)
        opened.network.rounds = False  # type: ignore[assignment]
        component = self.subject.component
        name = package_name(component, _SUFFIX)
        assigned = compress_package(
            inputs[self.package].folder / name,
            select(opened.network, self.attention),
            opened.inputs,
            calibration_inputs(inputs[self.recorded].folder, component, whole_pixels=True),
            output / name,
            precision=self.precision,
            target_db=self.target_db,
            group=self.group,
        )
        return cast("Artefact", {"inputs": [], "outputs": [], **assigned.summary()})


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishCoreML(Job[Artefact]):
    """Cut a package that is too large, and say what it takes, gives and leaves to the CPU."""

    component: str
    chunk_bytes: int
    """Weights above which a package is a pipeline of chunks."""
    package: Job[Nothing] | Job[Artefact]

    PRELOAD: ClassVar[tuple[str, ...]] = ("coremltools", "mvsdk_export.targets.coreml.finish")

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the package."""
        from mvsdk_export.targets.coreml.finish import finish_package

        made = inputs[cast("Job[Artefact]", self.package)]
        name = package_name(self.component, _SUFFIX)
        report = finish_package(made.folder / name, output / name, chunk_bytes=self.chunk_bytes)
        known = ("bits", "sqnr_db", "schemes")
        compression = {key: value for key, value in made.result.items() if key in known}
        return cast(
            "Artefact",
            {
                **compression,
                "model": name,
                "inputs": [asdict(item) for item in report.inputs],
                "outputs": [asdict(item) for item in report.outputs],
                "delegation": asdict(report.delegation),
                "warnings": [asdict(item) for item in report.warnings],
            },
        )


def select(network: nn.Module, attention: Attention) -> nn.Module:
    """Switch the layers of a network to what Core ML packages are written in, in place.

    Args:
        network: As it was trained.
        attention: "fused" is Core ML's own operator from iOS 18 on; "split_einsum" keeps channels
            first and unrolls the heads, as Apple advises for the Neural Engine of older phones.

    Returns:
        The network.
    """
    from mvsdk_export.layers.selection import select_implementations_

    return select_implementations_(network, _ENGINES[attention])
