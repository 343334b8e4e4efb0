"""Room on disk for what calibrates: estimated from shapes, refused before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from tiny_mobilevd import write_tiny_animator_folder

from mvsdk_export.errors import ExportError
from mvsdk_export.export import export
from mvsdk_export.jobs.runner import JobRunner
from mvsdk_export.planning import disk_space
from mvsdk_export.planning.disk_space import check_disk_space, estimate_calibration_bytes
from mvsdk_export.planning.plan import plan_export
from mvsdk_export.planning.request import ExportRequest, plan_variants

pytestmark = pytest.mark.torch


@pytest.fixture
def request_in_parts(tmp_path: Path) -> ExportRequest:
    """Return a request for a tiny model of four steps with guidance, its denoiser in 3 parts."""
    request = ExportRequest(
        folder=write_tiny_animator_folder(tmp_path / "model", one_step=False),
        variants=plan_variants("onnx", ("w8a16",)),
        num_frames=4,
        height=64,
        width=64,
        steps=(1, 3),
        out=tmp_path / "out",
    )
    sizes = {item.component: item.weight_bytes["fp32"] for item in plan_export(request).costs}
    return replace(request, part_bytes=-(-sizes["unet"] // 3))


def estimate(request: ExportRequest, clips: int = 1) -> int:
    plan = plan_export(request)
    if plan.calibration is not None:
        plan = replace(plan, calibration=replace(plan.calibration, prompts=("x",) * clips))
    return estimate_calibration_bytes(plan)


def test_guidance_is_that_of_the_scheduler_unless_told_otherwise(
    request_in_parts: ExportRequest, tmp_path: Path
) -> None:
    """As the command line has it."""
    assert request_in_parts.folded_guidance == (1.0, 3.0)
    assert replace(request_in_parts, guidance=(2.0, 2.0)).folded_guidance == (2.0, 2.0)
    assert replace(request_in_parts, guidance="none").folded_guidance is None
    one_step = write_tiny_animator_folder(tmp_path / "one")
    assert replace(request_in_parts, folder=one_step).folded_guidance is None


@pytest.mark.exhaustive
def test_what_calibrates_grows_with_clips_steps_and_cuts(request_in_parts: ExportRequest) -> None:
    cut = estimate(request_in_parts)
    assert estimate(request_in_parts, 5) == 5 * cut
    whole = estimate(replace(request_in_parts, part_bytes=1 << 30))
    frames = 4 * 64 * 64 * 3
    per_clip = 2 * (frames + 4 * 4 * 8 * 8 * 4)  # of the decoder, by the numbers of steps
    assert per_clip < whole < cut
    unguided = replace(request_in_parts, guidance="none")
    assert cut - whole == 2 * (estimate(unguided) - whole)
    longer = replace(request_in_parts, steps=(1, 3, 4))
    assert estimate(longer) - estimate(replace(longer, part_bytes=1 << 30)) == 2 * (cut - whole)
    assert (
        estimate(replace(request_in_parts, variants=plan_variants("onnx", ("fp32", "fp16")))) == 0
    )


def test_export_without_room_is_refused_before_any_work(
    request_in_parts: ExportRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "not" / "there"
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with JobRunner(cache) as runner, pytest.raises(ExportError) as error:
        export(request_in_parts, runner, lambda name: pytest.fail(name))
    assert "calibration keeps about " in str(error.value)
    assert "1.0 MiB are free; set MVSDK_CACHE to a folder on a larger disk" in str(error.value)
    assert not cache.exists()


def test_what_an_earlier_run_left_counts_as_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    check_disk_space(100, tmp_path)
    with pytest.raises(ExportError, match=r"101 B in .*, where 100 B are free"):
        check_disk_space(101, tmp_path)
    (tmp_path / "RecordActivations-0").mkdir()
    (tmp_path / "RecordActivations-0" / "calls.npz").write_bytes(b"1")
    check_disk_space(101, tmp_path)


def test_what_cannot_be_looked_at_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another export may take it away meanwhile, or it may be somebody else's."""
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    (tmp_path / "RecordActivations-0").mkdir()
    (tmp_path / "RecordActivations-0" / "calls.npz").write_bytes(b"1")
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.name == "calls.npz":
            raise PermissionError(path)
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    check_disk_space(100, tmp_path)
    with pytest.raises(ExportError, match="where 100 B are free"):
        check_disk_space(101, tmp_path)
