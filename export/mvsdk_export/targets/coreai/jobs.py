"""The job that makes Core AI assets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from mvsdk.manifest import Precision
from mvsdk_export.checkpoints.subject import Subject
from mvsdk_export.jobs.job import Files, Inputs, Job
from mvsdk_export.quantize.activations import Recorded, calibration_inputs
from mvsdk_export.targets.artefact import Artefact
from mvsdk_export.targets.package_names import package_name


@dataclass(frozen=True, kw_only=True, eq=False)
class LowerCoreAI(Job[Artefact]):
    """Lower a component to a Core AI asset."""

    model: Files
    subject: Subject
    precision: Precision
    target_db: float
    """What compressed weights keep on the recorded activations."""
    group: int | None
    """Output channels that share a palette; None for what fits each weight."""
    recorded: Job[Recorded] | None
    """None where no weight is compressed."""

    PRELOAD: ClassVar[tuple[str, ...]] = (
        "torch._dynamo",
        "coreai_torch",
        "mvsdk_export.targets.coreai.lowering",
        "mvsdk_export.checkpoints.weights",
    )

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the asset."""
        from mvsdk_export.targets.coreai.lowering import PIXELS, SUFFIX, lower_coreai
        from mvsdk_export.targets.networks import open_network

        component = self.subject.component
        opened = open_network(self.model, self.subject, pixels=PIXELS)
        asset = package_name(component, SUFFIX)
        feeds = (
            calibration_inputs(inputs[self.recorded].folder, component, whole_pixels=True)
            if self.recorded is not None
            else ()
        )
        report = lower_coreai(
            opened.network,
            opened.inputs,
            opened.outputs,
            output / asset,
            precision=cast("Any", self.precision),
            feeds=feeds,
            target_db=None if self.recorded is None else self.target_db,
            group=self.group,
        )
        return cast(
            "Artefact",
            {
                "model": asset,
                "inputs": [asdict(item) for item in report.inputs],
                "outputs": [asdict(item) for item in report.outputs],
                **({"delegation": asdict(report.delegation)} if report.delegation else {}),
                **(report.assignment.summary() if report.assignment else {}),
            },
        )
