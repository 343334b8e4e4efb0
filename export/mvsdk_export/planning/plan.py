"""The plan of an export: what it costs, and the jobs that make it, known before any of it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mvsdk.bundle import BundleWriter
from mvsdk.manifest import END_TO_END
from mvsdk_export.checkpoints.pipeline import make_pipeline, sizes_of
from mvsdk_export.checkpoints.subject import Subject
from mvsdk_export.errors import ExportError
from mvsdk_export.families.pipeline import Pipeline, check_pipeline, outline
from mvsdk_export.findings import check_findings
from mvsdk_export.jobs.job import USUAL_BYTES, Job, Keys, in_order
from mvsdk_export.parity.jobs import RecordActivations
from mvsdk_export.parity.pictures import check_pictures
from mvsdk_export.parity.recording import (
    Recording,
    calibration_of,
    files_of,
    plan_recording,
    verification_of,
)
from mvsdk_export.planning.conditioning import with_conditioning
from mvsdk_export.planning.costs import ComponentCosts, measure_recipe
from mvsdk_export.planning.decoding import with_decode_frames
from mvsdk_export.planning.preflight import count_parts, preflight_costs
from mvsdk_export.planning.request import ExportRequest
from mvsdk_export.targets import find_spec
from mvsdk_export.targets.artefact import Artefact
from mvsdk_export.targets.spec import Lowering, VariantPlan, needs_calibration

ASSEMBLY = "put the bundle together"
CALIBRATION = "calibrate"
REFERENCE = "run the reference"
"""Names; those of other jobs say what they are about."""

Key = tuple[str, str]
"""(component, variant id)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """What an export will do."""

    request: ExportRequest
    """With every choice made."""
    pipeline: Pipeline
    costs: tuple[ComponentCosts, ...]
    """Of every component."""
    lowerings: tuple[Lowering, ...]
    """What is made of each."""
    artefacts: Mapping[Key, Job[Artefact]]
    """What is shipped."""
    calibration: RecordActivations | None
    """None where nothing is quantised or compressed."""
    reference: RecordActivations | None
    """What the bundle is held to; None where it is not verified."""

    @property
    def jobs(self) -> tuple[Job[Any], ...]:
        """All jobs up to the assembly, each once, in the order in which they begin.

        What much depends on is begun first.
        """
        first = [job for job in (self.calibration, self.reference) if job is not None]
        keys = Keys()
        found = {keys[job]: job for job in in_order([*first, *self.artefacts.values()])}
        return tuple(found.values())

    @property
    def names(self) -> tuple[str, ...]:
        """What people call the jobs, the assembly, and the verification of each set."""
        sets = self.request.sets if self.request.verify else ()
        return (
            *(job.name for job in self.jobs),
            ASSEMBLY,
            *(verification_name(item.id) for item in sets),
        )


def verification_name(set_id: str) -> str:
    """Return what people call the verification of a set."""
    return f"verify {set_id}"


def plan_export(request: ExportRequest) -> ExportPlan:
    """Plan an export; refuse before any work, and before any weight is read, what cannot end well.

    Raises:
        OutputError: If the output exists, or is no place for a bundle.
        CheckpointError: If configuration, weights and vocabulary do not fit.
        InputError: If there are too few pictures in a folder of them, or one cannot be read.
        ScheduleError: If the scheduler has no noise levels for a wanted number of steps.
        ExportError: If a graph is too large for the target, or no bundle can hold what the recipe
            makes.
    """
    BundleWriter(request.out, overwrite=request.overwrite)
    _check_recipe(request)
    request = with_decode_frames(request)
    request.folder.check(num_frames=request.num_frames)
    request = with_conditioning(request)
    folder = request.folder
    pipeline = make_pipeline(folder, request.clip)
    if request.pictures is not None:
        check_pictures(request.pictures)
    costs = measure_recipe(
        folder.recipe, folder.configs(), **request.size, guidance=request.folded_guidance
    )
    _check_costs(request, costs)
    sizes = sizes_of(folder, request.clip)
    check_pipeline(folder.recipe, pipeline, sizes)
    calibration: RecordActivations | None = None
    if any(needs_calibration(plan) for plan in request.plans):
        recording = calibration_of(folder, request.clip, request.pictures)
        recording = _with_memory(recording, costs)
        calibration = plan_recording(CALIBRATION, recording, purpose="to calibrate")
    reference: RecordActivations | None = None
    if request.verify:
        manifest = outline(folder.recipe, pipeline, sizes)
        guidance = request.folded_guidance
        recording = verification_of(manifest, folder, guidance, request.pictures)
        recording = _with_memory(recording, costs)
        reference = plan_recording(REFERENCE, recording, purpose="to verify")
    lowerings = _plan_lowerings(request, costs, calibration)
    return ExportPlan(
        request=request,
        pipeline=pipeline,
        costs=costs,
        lowerings=lowerings,
        artefacts=_plan_artefacts(request, lowerings),
        calibration=calibration,
        reference=reference,
    )


def _check_recipe(request: ExportRequest) -> None:
    """Refuse what the recipe, which may be another package's, cannot be made in.

    Raises:
        ExportError: If it has no floors for a precision, or names that a format does not take.
    """
    recipe = request.folder.recipe
    for part in recipe.components:
        for plan in request.plans_of(part.name):
            find_spec(plan.spec).check_component(part, plan)
            floors = recipe.floors_db.get(plan.precision, {})
            if not {part.name, END_TO_END} <= floors.keys():
                known = ", ".join(name for name, x in recipe.floors_db.items() if part.name in x)
                raise ExportError(
                    f"the recipe {recipe.name} has no floors of {part.name} for {plan.precision}, "
                    f"only for {known or 'nothing'}; add them to floors_db, or choose another "
                    "precision"
                )


def _check_costs(request: ExportRequest, costs: tuple[ComponentCosts, ...]) -> None:
    if request.chips:
        check_findings(
            preflight_costs(
                costs,
                precisions=request.chip_precisions,
                chips=request.chips,
                part_bytes=request.part_bytes,
            )
        )


def _with_memory(recording: Recording, costs: tuple[ComponentCosts, ...]) -> Recording:
    """Say about what the reference holds: all networks, and the activations of the largest."""
    weights = sum(item.weight_bytes["fp32"] for item in costs)
    activations = max(item.activation_peak_bytes["fp32"] for item in costs)
    return replace(recording, memory_bytes=USUAL_BYTES + int(1.5 * weights) + 2 * activations)


def _plan_lowerings(
    request: ExportRequest,
    costs: tuple[ComponentCosts, ...],
    calibration: RecordActivations | None,
) -> tuple[Lowering, ...]:
    """Return what is made of each component; those with too many weights are cut into parts."""
    model, recipe = files_of(request.folder), request.folder.recipe
    return tuple(
        Lowering(
            component=recipe.component(item.component),
            plans=request.plans_of(item.component),
            parts=count_parts(item, request.part_bytes),
            floors_db={
                precision: floors[item.component]
                for precision, floors in recipe.floors_db.items()
                if item.component in floors
            },
            model=model,
            subject=Subject(
                component=item.component,
                size=request.clip_size,
                guidance=request.folded_guidance,
                cuts=tuple(
                    cut
                    for cut in request.folder.cuts
                    if item.component in (cut.component, cut.name)
                ),
            ),
            recorded=calibration,
            weight_bytes=sum(x.weight_bytes["fp32"] for x in _network_of(item, costs, request)),
            activation_bytes=max(
                x.activation_peak_bytes["fp32"] for x in _network_of(item, costs, request)
            ),
        )
        for item in costs
    )


def _network_of(
    item: ComponentCosts, costs: tuple[ComponentCosts, ...], request: ExportRequest
) -> list[ComponentCosts]:
    """Return the costs of all graphs that a network is cut into: jobs load and run it whole."""
    both = {item.component}
    for cut in request.folder.cuts:
        if item.component in (cut.component, cut.name):
            both = {cut.component, cut.name}
    return [x for x in costs if x.component in both]


def _plan_artefacts(
    request: ExportRequest, lowerings: tuple[Lowering, ...]
) -> dict[Key, Job[Artefact]]:
    found: dict[Key, Job[Artefact]] = {}
    for lowering in lowerings:
        by_spec: dict[str, list[VariantPlan]] = {}
        for plan in lowering.plans:
            by_spec.setdefault(plan.spec, []).append(plan)
        for name, plans in by_spec.items():
            options = request.options_for(lowering.component.name, name)
            jobs = find_spec(name).plan_jobs(lowering, plans, options)
            found |= {(lowering.component.name, variant): job for variant, job in jobs.items()}
    return found
