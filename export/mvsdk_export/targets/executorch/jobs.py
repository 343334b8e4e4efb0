"""The job that makes ExecuTorch programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from mvsdk.manifest import Delegate
from mvsdk_export.checkpoints.subject import Subject
from mvsdk_export.jobs.job import Files, Inputs, Job
from mvsdk_export.quantize.activations import Feed, Recorded, calibration_inputs
from mvsdk_export.targets.artefact import Artefact

if TYPE_CHECKING:
    from mvsdk_export.targets.networks import OpenedNetwork

PROGRAM = "model.pte"


@dataclass(frozen=True, kw_only=True, eq=False)
class LowerExecuTorch(Job[Artefact]):
    """Lower a component to an ExecuTorch program."""

    model: Files
    subject: Subject
    delegate: Delegate
    precision: str
    deployment_target: str | None
    """Of the delegate coreml: minimum OS."""
    target_db: float
    """What 8-bit layers keep on the recorded activations."""
    external_weights: bool
    etrecord: bool
    recorded: Job[Recorded] | None
    """None where nothing is quantised."""

    PRELOAD: ClassVar[tuple[str, ...]] = (
        "torch._dynamo",
        "torchao",
        "executorch.exir",
        "mvsdk_export.targets.executorch.quantized",
        "mvsdk_export.checkpoints.weights",
    )

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the program."""
        import torch

        from mvsdk_export.targets.networks import open_network, signature_of

        pixels = torch.float32 if self.delegate == "coreml" else torch.uint8
        opened = open_network(self.model, self.subject, pixels=pixels)
        signature = signature_of(opened)
        report = self._lower(opened, inputs, output / PROGRAM)
        return cast("Artefact", {"model": PROGRAM, **signature, **report})

    def _lower(self, opened: OpenedNetwork, inputs: Inputs, program: Path) -> Mapping[str, Any]:
        """Write the program; return what is known of it beside its I/O signature."""
        if self.delegate == "coreml":
            from mvsdk_export.targets.executorch.coreml import lower_coreml_delegate

            assert self.deployment_target is not None
            delegation = lower_coreml_delegate(
                opened.network,
                opened.inputs,
                program,
                deployment_target=self.deployment_target,
                etrecord=self.etrecord,
            )
            return {"delegation": asdict(delegation)}
        options = {"external_weights": self.external_weights, "etrecord": self.etrecord}
        if self.recorded is None:
            from mvsdk_export.targets.executorch.lowering import lower_xnnpack

            delegation = lower_xnnpack(opened.network, opened.inputs, program, **options)
            return {"delegation": asdict(delegation)}
        from mvsdk_export.targets.executorch.quantized import lower_xnnpack_8bit

        component = self.subject.component
        feeds = calibration_inputs(inputs[self.recorded].folder, component, whole_pixels=True)
        delegation, quantized = lower_xnnpack_8bit(
            opened.network,
            opened.inputs,
            [_as_taken(feed, opened) for feed in feeds],
            program,
            target_db=self.target_db,
            **options,
        )
        return {"delegation": asdict(delegation), **quantized.summary()}


def _as_taken(feed: Feed, opened: OpenedNetwork) -> Feed:
    """Return a recorded call with pixels as the program takes them."""
    import torch

    return {
        name: value.astype(np.uint8) if opened.inputs[name].dtype == torch.uint8 else value
        for name, value in feed.items()
    }
