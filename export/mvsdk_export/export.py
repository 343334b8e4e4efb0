"""From a model folder to a verified bundle: plan, run the jobs, assemble, verify, write.

Everything is planned before anything runs (planning/plan.py); jobs run in processes of their own
(jobs/runner.py). The bundle is put together in a hidden folder beside its place, verified there by
the runtime that will open it, and only then gets its name, so that no bundle that failed its own
checks is ever seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mvsdk.bundle import Bundle, BundleWriter
from mvsdk.manifest import Manifest, Verification
from mvsdk_export.assemble import add_files
from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.checkpoints.subject import ClipSize
from mvsdk_export.families.conditioning import read_cuts
from mvsdk_export.jobs.history import History
from mvsdk_export.jobs.job import Files, Made
from mvsdk_export.jobs.progress import OnProgress, Tracker
from mvsdk_export.jobs.runner import Event, JobRunner, Listener, seconds_of
from mvsdk_export.parity.jobs import RecordActivations, VerifySet
from mvsdk_export.parity.pictures import check_pictures
from mvsdk_export.parity.recording import (
    digest_of,
    modules_of,
    numbers_by_prompt,
    plan_recording,
    read_guidance,
    verification_of,
)
from mvsdk_export.parity.verify import check_parity, find_backends
from mvsdk_export.planning.disk_space import check_disk_space, estimate_calibration_bytes
from mvsdk_export.planning.plan import (
    ASSEMBLY,
    REFERENCE,
    ExportPlan,
    Key,
    plan_export,
    verification_name,
)
from mvsdk_export.planning.request import ExportRequest
from mvsdk_export.targets.artefact import Artefact


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export made."""

    bundle: Bundle
    jobs: tuple[Made[Any], ...]
    """In the order in which they ended."""
    seconds: Mapping[str, float]
    """Set id -> seconds of all jobs that it took, with what it shares with others."""
    compression: Mapping[str, Mapping[str, Any]]
    """Set id -> component -> how many weights or layers are stored how, where that differs."""
    warnings: Mapping[str, Mapping[str, Sequence[Mapping[str, str]]]]
    """Set id -> component -> limits of the phone's processor that a graph is beyond."""


def export(
    request: ExportRequest | ExportPlan,
    runner: JobRunner,
    on_progress: OnProgress,
    *,
    history: History | None = None,
) -> ExportReport:
    """Make a bundle.

    Args:
        request: What to export, or the plan of that.
        runner: Runs the jobs; holds what an earlier run finished.
        on_progress: Told where the export is, from this thread.
        history: What jobs took in earlier runs; None estimates nothing.

    Raises:
        OutputError: If the output exists, or cannot be written; before any work.
        CheckpointError: If a weight file is damaged, or the folder does not fit together.
        ScheduleError: As `plan_export`.
        ExportError: If a job fails, or the disk has no room for what calibrates.
        ParityError: If a variant misses a floor; nothing is written then.
    """
    plan = plan_export(request) if isinstance(request, ExportRequest) else request
    request = plan.request
    check_disk_space(estimate_calibration_bytes(plan), runner.cache_folder)
    subject = _subject_of(request.folder, request.clip_size, request.steps)
    tracker = Tracker(plan.names, on_progress, history, subject, slots=runner.slots)
    with BundleWriter(request.out, overwrite=request.overwrite) as writer:
        runner.run(plan.jobs, _listener(tracker))
        made = {key: runner[job] for key, job in plan.artefacts.items()}
        with tracker.follow(ASSEMBLY):
            manifest = add_files(writer, plan, made)
        if plan.reference is not None:
            jobs = _plan_verification(writer.preview(manifest), request.folder, plan.reference)
            records = _verify(jobs, runner, tracker)
            check_parity(records)
            manifest = replace(manifest, verification=tuple(records))
        bundle = writer.commit(manifest)
    return _report(plan, bundle, runner, made)


def verify_bundle(
    bundle: Bundle,
    folder: ModelFolder,
    runner: JobRunner,
    on_progress: OnProgress,
    *,
    pictures: Path | None = None,
    history: History | None = None,
) -> list[Verification]:
    """Hold every set of variants of a bundle to the reference.

    Args:
        bundle: Bundle to verify.
        folder: The model folder that it was made of.
        runner: Runs the jobs.
        on_progress: Told where the verification is, from this thread.
        pictures: Folder of pictures to verify with; None for those that recipes name.
        history: What jobs took in earlier runs; None estimates nothing.

    Raises:
        InputError: If a picture cannot be read; before any work.
        ExportError: If nothing here runs a variant of a set; before any work. If a job fails.
    """
    if pictures is not None:
        check_pictures(pictures)
    manifest = bundle.manifest
    folder = folder.with_cuts(read_cuts(manifest.extensions))
    for item in manifest.sets:
        find_backends(manifest.variants_of(item))
    recording = verification_of(manifest, folder, read_guidance(manifest), pictures)
    reference = plan_recording(REFERENCE, recording, purpose="to verify")
    jobs = _plan_verification(bundle, folder, reference)
    before = [] if reference.pictures is None else [reference.pictures.name]
    names = [*before, reference.name, *(job.name for job in jobs)]
    subject = _subject_of(folder, recording.size, recording.steps)
    tracker = Tracker(names, on_progress, history, subject, slots=runner.slots)
    return _verify(jobs, runner, tracker)


def _plan_verification(
    bundle: Bundle, folder: ModelFolder, reference: RecordActivations
) -> list[VerifySet]:
    """Plan the verification of every set of a bundle.

    The emulator takes seconds for what ONNX Runtime does in milliseconds, so each chip gets one of
    the prompts in turn; other variants get them all.
    """
    manifest = bundle.manifest
    files = Files(
        places={"bundle": bundle.path},
        fingerprint=digest_of([_content(manifest)]),
        modules=modules_of(folder.recipe),
    )
    prompts = reference.prompts
    jobs: list[VerifySet] = []
    for index, item in enumerate(manifest.sets):
        is_slow = any(variant.chip for variant in manifest.variants_of(item).values())
        jobs.append(
            VerifySet(
                name=verification_name(item.id),
                bundle=files,
                chosen=item.id,
                recipe=folder.recipe.name,
                prompts=(prompts[index % len(prompts)],) if is_slow else prompts,
                numbers=numbers_by_prompt(prompts, reference.numbers),
                recorded=reference,
                pictures=reference.pictures,
                cuts=folder.cuts,
            )
        )
    return jobs


def _content(manifest: Manifest) -> str:
    return replace(manifest, verification=()).to_json().decode()


def _verify(jobs: Sequence[VerifySet], runner: JobRunner, tracker: Tracker) -> list[Verification]:
    runner.run(jobs, _listener(tracker))
    rows = [row for job in jobs for row in runner[job].result["records"]]
    return list(dict.fromkeys(Verification(**row) for row in rows))


def _listener(tracker: Tracker) -> Listener:
    def listen(event: Event) -> None:
        tracker.note(event.job.name, event.state, event.items)

    return listen


def _subject_of(folder: ModelFolder, size: ClipSize, steps: Sequence[int]) -> str:
    """Return what tells a model and what is made of it from others, in estimates of time."""
    networks = digest_of([repr(sorted(folder.configs().items()))])
    return f"{folder.recipe.name} {networks[:12]} {list(asdict(size).values())} {sorted(steps)}"


def _report(
    plan: ExportPlan,
    bundle: Bundle,
    runner: JobRunner,
    made: Mapping[Key, Made[Artefact]],
) -> ExportReport:
    sets = {
        item.id: {name: made[name, variant.id] for name, variant in item.plans.items()}
        for item in plan.request.sets
    }
    return ExportReport(
        bundle=bundle,
        jobs=tuple(runner.finished),
        seconds={name: seconds_of(list(x.values()), runner) for name, x in sets.items()},
        compression={name: found for name, x in sets.items() if (found := _compression(x))},
        warnings={name: found for name, x in sets.items() if (found := _warnings(x))},
    )


def _compression(made: Mapping[str, Made[Artefact]]) -> dict[str, Any]:
    """Return what the artefacts of a set say of their weights."""
    return {
        component: {k: x for k, x in item.result.items() if k in ("bits", "sqnr_db", "schemes")}
        for component, item in made.items()
        if "schemes" in item.result
    }


def _warnings(made: Mapping[str, Made[Artefact]]) -> dict[str, Any]:
    return {
        component: found
        for component, item in made.items()
        if (found := item.result.get("warnings"))
    }
