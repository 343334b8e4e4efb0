"""Measures what Qualcomm's HTP compiler makes of MobileVD's denoiser, block by block and whole.

`blocks` compiles the residual block and the transformer of every level of Stable Video Diffusion,
as diffusers writes them and in our forms for NPUs. `full` takes the whole denoiser, compressed by
the paper's recipe unless told otherwise, the way of an export: trace, cut, quantise, compile part
by part, stitch; with `--motion` that of Stable Diffusion 1.5, with motion modules or without.
Weights are random: what a compiler does depends on shapes and operators. Each phase is a child
process, one at a time; records go to benchmarks/mobilevd.json as they come, and a record of the
same trial is replaced. Nothing here is a phone's latency.

    python -m benchmarks.mobilevd blocks [--level 2] [--form npu] [--precision fp16]
    python -m benchmarks.mobilevd full [--precision w8a16] [--parts 4] [--uncompressed]
    python -m benchmarks.mobilevd full --motion 16 256 256 --precision w8a16 --parts 8
    python -m benchmarks.mobilevd table
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.mobilevd_phases import FRAMES, LEVELS
from benchmarks.mobilevd_table import FORMS, PRECISIONS, Record, draw, keep, read_records
from mvsdk_export.jobs.job import tool_versions

RECORDS = Path(__file__).with_suffix(".json")
BLOCKS = ("resnet", "transformer")
LIMITS_S = {"blocks": 600.0, "full": 7200.0}
LIMIT_GIB = 16.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a child is stopped."""

    cpu_s: float
    peak_bytes: int


class Bench:
    """Runs phases in child processes and keeps their records."""

    def __init__(self, command: str, chip: str, path: Path, limits: Limits) -> None:
        """Take up the records that are there.

        Args:
            command: `blocks` or `full`.
            chip: Slug of the chip to compile for.
            path: File of records; it is written after every phase.
            limits: Of every child.
        """
        self.command, self.chip, self.path, self.limits = command, chip, path, limits
        self.versions = {**tool_versions(), "diffusers": _version("diffusers")}

    def run(
        self,
        phase: str,
        subject: str,
        precision: str,
        arguments: Mapping[str, Any],
        *,
        part: int | None = None,
        forms: str = "npu",
    ) -> Record:
        """Run one phase in a child and keep its record; a failure is a record too."""
        found, usage = run_child(phase, arguments, self.limits)
        record = Record(
            command=self.command,
            subject=subject,
            precision=precision,
            phase=phase,
            part=part,
            forms=forms,
            chip=self.chip,
            machine=f"{platform.system()} {platform.machine()}",
            versions=self.versions,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            **usage,
            **found,
        )
        keep(record, self.path)
        print(_told(record), file=sys.stderr, flush=True)
        return record


def run_child(
    phase: str, arguments: Mapping[str, Any], limits: Limits
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run one phase in a process of its own.

    Returns:
        What it returned, or why it failed; and the time and memory that it took.
    """
    command = [sys.executable, "-m", "benchmarks.mobilevd_phases", phase, str(limits.cpu_s)]
    paths = os.pathsep.join(path for path in sys.path if path)
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert child.stdin is not None
        child.stdin.write(json.dumps(arguments).encode())
        child.stdin.close()
        killed, status, usage = _wait(child, limits)
        child.returncode = status
        out.seek(0)
        err.seek(0)
        printed = out.read().decode(errors="replace").splitlines()
        told = err.read().decode(errors="replace").strip().splitlines()
    took = {
        "wall_s": round(time.monotonic() - start, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    if status == 0 and printed:
        return json.loads(printed[-1]), took
    if killed:
        return {"failure": killed}, took
    if -status == signal.SIGXCPU:
        return {"failure": f"did not finish in {limits.cpu_s:g} s of processor time"}, took
    return {"failure": (told or [f"exit status {status}"])[-1][:300]}, took


def _wait(child: subprocess.Popen[bytes], limits: Limits) -> tuple[str | None, int, Any]:
    """Wait for a child; end it, and say so, when it takes more memory than it may."""
    killed: str | None = None
    try:
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                return killed, os.waitstatus_to_exitcode(status), usage
            if killed is None and _resident_bytes(child.pid) > limits.peak_bytes:
                killed = f"took more than {limits.peak_bytes / 2**30:g} GiB of memory"
                child.kill()
            time.sleep(_POLL_S)
    except BaseException:
        child.kill()
        raise


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def measure_blocks(options: argparse.Namespace) -> None:
    """Compile every block that was asked for, at every precision."""
    bench = Bench("blocks", options.chip, options.records, _limits(options))
    for level in options.level:
        for block in options.block:
            for form in options.form:
                with _folder(options) as folder:
                    _measure_block(bench, folder, block, level, form, options.precision)


def _measure_block(
    bench: Bench, folder: Path, block: str, level: int, form: str, precisions: Sequence[str]
) -> None:
    channels, _, height, width = LEVELS[level]
    subject = f"{block} {FRAMES}x{channels}x{height}x{width} {form}"
    place = {"folder": str(folder)}
    what = {**place, "block": block, "level": level, "form": form}
    if bench.run("trace block", subject, "fp32", what, forms=form).failure:
        return
    for precision in precisions:
        part = {**place, "part": 0}
        if not bench.run(_MAKERS[precision], subject, precision, part, forms=form).failure:
            arguments = {**part, "precision": precision, "chip": bench.chip}
            bench.run("compile", subject, precision, arguments, forms=form)


_MAKERS = {"fp16": "halve", "w8a16": "quantise"}


def measure_full(options: argparse.Namespace) -> None:
    """Take the whole denoiser to stitched contexts, at every precision."""
    bench = Bench("full", options.chip, options.records, _limits(options))
    subject = "SVD" if options.uncompressed else "MobileVD"
    subject += ", layers whole" * options.whole
    phase = "trace"
    what: dict[str, Any] = {"compressed": not options.uncompressed, "whole": options.whole}
    if options.motion is not None:
        frames, height, width = options.motion
        phase = "trace motion"
        what = {"frames": frames, "height": height, "width": width, "motion": frames > 1}
        subject = "SD 1.5 with motion v2" if frames > 1 else "SD 1.5"
        subject += f", {frames} x {width}x{height}"
    with _folder(options) as folder:
        place = {"folder": str(folder)}
        if not (folder / "parts.json").exists():
            traced = bench.run(phase, subject, "fp32", {**place, **what})
            if traced.failure:
                return
            cut = bench.run("split", subject, "fp32", {**place, "parts": options.parts})
            if cut.failure:
                return
            (folder / "model.data").unlink(missing_ok=True)  # the parts have all of it
        count = len(json.loads((folder / "parts.json").read_text(encoding="utf-8")))
        for precision in options.precision:
            _measure_parts(bench, folder, subject, precision, count)


def _measure_parts(bench: Bench, folder: Path, subject: str, precision: str, count: int) -> None:
    contexts = [folder / f"{precision}_{part}_ctx.onnx" for part in range(count)]
    for part, context in enumerate(contexts):
        if context.exists():  # an earlier run came so far
            continue
        place = {"folder": str(folder), "part": part}
        if bench.run(_MAKERS[precision], subject, precision, place, part=part).failure:
            return
        if precision == "w8a16" and part + 1 < count:
            bench.run("evaluate", subject, precision, place, part=part)
        arguments = {**place, "precision": precision, "chip": bench.chip}
        bench.run("compile", subject, precision, arguments, part=part)
        for path in folder.glob(f"{precision}_{part}.*"):
            path.unlink()
    if all(context.exists() for context in contexts):
        arguments = {"folder": str(folder), "precision": precision, "parts": count}
        bench.run("stitch", subject, precision, arguments)


def _limits(options: argparse.Namespace) -> Limits:
    limit_s = options.limit or LIMITS_S[options.command]
    return Limits(cpu_s=limit_s, peak_bytes=int(options.memory * 2**30))


@contextlib.contextmanager
def _folder(options: argparse.Namespace) -> Iterator[Path]:
    """Lend a folder for models: the one that was asked for, or one that is gone afterwards."""
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        yield options.folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _told(record: Record) -> str:
    name = f"{record.subject} {record.precision} {record.phase}"
    name += "" if record.part is None else f" {record.part}"
    took = f"{record.cpu_s:.1f} s of processor time, {record.peak_bytes / 2**30:.2f} GiB"
    made = "" if record.context_bytes is None else f", {record.context_bytes / 2**20:.1f} MiB"
    return f"{name}: {took}{made}{f'; {record.failure}' if record.failure else ''}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> int:
    """Measure what the command line asks for and print the tables."""
    parser = _parser()
    options = parser.parse_args()
    if options.motion is not None and (options.uncompressed or options.whole):
        parser.error("--uncompressed and --whole are of MobileVD, and do not go with --motion")
    if options.command == "blocks":
        measure_blocks(options)
    if options.command == "full":
        measure_full(options)
    print(draw(read_records(options.records)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("blocks", "full", "table"))
    parser.add_argument("--level", nargs="+", type=int, choices=list(LEVELS), default=list(LEVELS))
    parser.add_argument("--block", nargs="+", choices=BLOCKS, default=BLOCKS)
    parser.add_argument("--form", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--parts", type=int, help="default: the fewest that memory allows")
    parser.add_argument("--uncompressed", action="store_true", help="SVD itself")
    parser.add_argument(
        "--motion",
        nargs=3,
        type=int,
        metavar=("FRAMES", "HEIGHT", "WIDTH"),
        help="instead, Stable Diffusion 1.5 with motion v2; of one frame without",
    )
    parser.add_argument("--whole", action="store_true", help="run no layer in parts")
    parser.add_argument("--chip", default="sm8650")
    parser.add_argument(
        "--limit", type=float, help=f"processor seconds of a phase, default: {LIMITS_S}"
    )
    parser.add_argument("--memory", type=float, default=LIMIT_GIB, help="GiB that a phase may take")
    parser.add_argument(
        "--folder", type=Path, help="keep models here, and go on where a run stopped"
    )
    parser.add_argument("--records", type=Path, default=RECORDS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
