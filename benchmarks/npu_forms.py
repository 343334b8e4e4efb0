"""Measures what Qualcomm's HTP compiler makes of every form of every layer (docs/npu_forms.md).

Each form is exported and quantised as an export does it, compiled for one chip, and its context
binary loaded again and run on Qualcomm's HTP emulator. Compiler and emulator work in a child
process of their own: they can crash, or not come back. The emulator's seconds compare forms; they
are no phone's.

    python -m benchmarks.npu_forms --layer temporal_attention --size 8x128x4x4
    python -m benchmarks.npu_forms --json > records.jsonl
    python -m benchmarks.npu_forms --read records.jsonl --write docs/npu_forms.md
    python -m benchmarks.npu_forms --layer svd_feed_forward --size 14x320x32x64 --compile-only
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.npu_forms_table import (
    Environment,
    Record,
    draw,
    read_records,
    this_environment,
    to_json,
    update_document,
)
from mvsdk.backends.native_output import captured_native_output
from mvsdk.backends.qnn import find_device, provider_options, register
from mvsdk.devices import find_chipset
from mvsdk_export.targets.snapdragon.compiler import compile_context
from mvsdk_export.targets.snapdragon.context_info import read_memory_of

if TYPE_CHECKING:
    from benchmarks.npu_subjects import Subject

SIZES = ("8x128x4x4", "8x320x2x2", "8x128x16x16")
"""The two levels of the sticker model's denoiser, and a larger grid."""
PRECISIONS = ("w8a16", "fp16")
LIMIT_S = 120.0
PATIENCE_S = 3600.0
_PRELOAD = ["mvsdk_export.targets.snapdragon.compiler", "onnxruntime"]
_ERRORS_ONLY = 3
_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A model to compile and run. Its folder holds `inputs.npz` and `reference.npy` too."""

    model: Path
    chip: str
    float16: bool
    emulate: bool = True
    """False compiles only."""


def measure_form(
    layer: str,
    form: str,
    size: str,
    precisions: Sequence[str],
    *,
    chip: str,
    limit_s: float,
    emulate: bool = True,
) -> Iterator[Record]:
    """Export one form of a layer and measure it at each precision.

    Args:
        layer: Key of `npu_subjects.LAYERS` or `npu_subjects.LARGE_LAYERS`.
        form: One of the layer's forms.
        size: `FxCxHxW`.
        precisions: Of `PRECISIONS`.
        chip: Slug of the chip to compile for.
        limit_s: Processor seconds that compiler and emulator together may take.
        emulate: False compiles only.
    """
    from benchmarks.npu_subjects import Size, build_subject
    from mvsdk_export.quantize.qdq import quantize_w8a16

    subject = build_subject(layer, form, Size.parse(size))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "fp16.onnx"  # float32, until the compiler makes it float16
        _export(subject, model)
        np.savez(folder / "inputs.npz", allow_pickle=False, **subject.feeds[0])
        np.save(folder / "reference.npy", subject.reference())
        for precision in precisions:
            if precision == "w8a16":
                quantize_w8a16(model, folder / "w8a16.onnx", subject.feeds)
            source = folder / f"{precision}.onnx"
            trial = Trial(model=source, chip=chip, float16=precision == "fp16", emulate=emulate)
            found, failure = run_in_child(compile_and_run, trial, limit_s=limit_s)
            key = {"layer": layer, "form": form, "size": size, "precision": precision}
            yield Record(**key, **found, failure=failure)


def compile_and_run(send: Callable[[dict[str, Any]], None], trial: Trial) -> None:
    """Compile a model and run what came of it; hand fields of `Record` to `send`.

    Figures are sent as soon as there are any, so that they outlive a crash.
    """
    context = trial.model.with_name(f"{trial.model.stem}_ctx.onnx")
    send({"stage": "compiler"})
    send(_compile(trial, context))
    if trial.emulate:
        send({"stage": "emulator"})
        send(_run(trial, context))


def _compile(trial: Trial, context: Path) -> dict[str, Any]:
    import onnxruntime as ort

    register(ort)  # loading the libraries is not preparing a graph
    chip = find_chipset(trial.chip).chip
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    delegation = compile_context(trial.model, context, chip, float16=trial.float16)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    binaries = list(context.parent.glob(f"{context.stem}*.bin"))
    memory = read_memory_of(binaries)
    return {
        "prepare_cpu_s": round(cpu_s, 3),
        "prepare_wall_s": round(wall_s, 3),
        "context_bytes": sum(path.stat().st_size for path in binaries),
        "spill_bytes": None if memory is None else sum(x.spill_fill_bytes for x in memory),
        "ddr_bytes": None if memory is None else sum(x.ddr_tensor_bytes or 0 for x in memory),
        "ep_context_nodes": delegation.delegated,
        "non_delegated": tuple(node.operator for node in delegation.non_delegated),
    }


def _run(trial: Trial, context: Path) -> dict[str, Any]:
    """Load the context binary as a runtime would, run it and compare its output.

    Of several runs the shortest time counts: threads of the emulator wait for each other busily, so
    that a busy machine makes a run seem many times longer, in processor time too.
    """
    import onnxruntime as ort

    with np.load(trial.model.with_name("inputs.npz")) as archive:
        feeds = dict(archive)
    want = np.load(trial.model.with_name("reference.npy"))
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    provider = provider_options(register(ort), find_chipset(trial.chip).chip)
    options.add_provider_for_devices([find_device(ort)], provider)
    with captured_native_output():
        session = ort.InferenceSession(str(context), options)
        got, cpu_s, wall_s = _timed_run(session, feeds)
        for _ in range(_RUNS - 1):
            _, cpu, wall = _timed_run(session, feeds)
            cpu_s, wall_s = min(cpu_s, cpu), min(wall_s, wall)
    if not np.isfinite(got).all():
        raise RuntimeError("the output holds values that are not finite")
    noise, power = float(np.mean((got - want) ** 2)), float(np.mean(want**2))
    return {
        "emulator_cpu_s": round(cpu_s, 3),
        "emulator_wall_s": round(wall_s, 3),
        "sqnr_db": round(10 * math.log10(power / max(noise, 1e-30)), 2),
    }


def _timed_run(session: Any, feeds: dict[str, Any]) -> tuple[NDArray[Any], float, float]:
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    output = session.run(None, feeds)[0]
    return np.asarray(output), time.process_time() - cpu_s, time.perf_counter() - wall_s


def run_in_child(
    work: Callable[..., None],
    *arguments: object,
    limit_s: float,
    patience_s: float = PATIENCE_S,
) -> tuple[dict[str, Any], str | None]:
    """Call `work(send, *arguments)` in a process of its own.

    The limit counts processor time, so that a busy machine does not change what finishes.

    Args:
        work: A function of a module; it hands back dictionaries with `send`.
        arguments: What can be pickled.
        limit_s: Processor seconds, rounded up to whole ones.
        patience_s: Seconds by the clock, for a child that waits and uses no processor time.

    Returns:
        Everything that was sent, merged, without `stage`; and why the child failed, after the
        stage it was in: its message, how it died, or that it was too slow. None: it did not fail.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, limit_s, work, arguments), daemon=True)
    process.start()
    sender.close()
    deadline = time.monotonic() + patience_s
    found: dict[str, Any] = {}
    failure: str | None = None
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            found |= receiver.recv()
        failure = f"waited for {patience_s:g} s"
    except EOFError:
        process.join()
        failure = found.pop("failure", None) or _death(process.exitcode, limit_s)
    finally:
        process.kill()
        process.join()
        receiver.close()
    stage = found.pop("stage", "start")
    return found, f"{stage}: {failure}" if failure else None


def _child(
    sender: Connection, limit_s: float, work: Callable[..., None], arguments: Sequence[object]
) -> None:
    limit = math.ceil(limit_s)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    try:
        work(sender.send, *arguments)
    except Exception as exc:
        traceback.print_exc()
        sender.send({"failure": _first_line(exc.__cause__ or exc)})


def _death(exit_code: int | None, limit_s: float) -> str | None:
    if not exit_code:
        return None
    if exit_code == -signal.SIGXCPU:
        return f"did not finish in {limit_s:g} s"
    name = f" ({signal.Signals(-exit_code).name})" if exit_code < 0 else ""
    return f"exit code {exit_code}{name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for, or read records; return the exit code."""
    from benchmarks.npu_subjects import LARGE_LAYERS, LAYERS

    options = _parser().parse_args(arguments)
    if options.read:
        environment, records = read_records(options.read)
    else:
        environment = this_environment(find_chipset(options.chip).slug, options.limit)
        records = list(_measure(options, environment))
    layers = {**LAYERS, **LARGE_LAYERS}
    block = draw(records, environment, {name: layer.chosen for name, layer in layers.items()})
    if options.write:
        update_document(options.write, block)
    if not options.json:
        print(block)
    return 0


def _parser() -> argparse.ArgumentParser:
    from benchmarks.npu_subjects import LARGE_LAYERS, LAYERS, Size

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.npu_forms", description=(__doc__ or "").partition("\n")[0]
    )
    known = [*LAYERS, *LARGE_LAYERS]
    parser.add_argument("--layer", nargs="+", choices=known, default=list(LAYERS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument(
        "--size", nargs="+", type=Size.parse, default=SIZES, help="FxCxHxW, default: %(default)s"
    )
    parser.add_argument("--chip", default="sm8650", help="default: %(default)s")
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT_S,
        help="processor seconds for compiler and emulator, default: %(default)s",
    )
    parser.add_argument(
        "--json", action="store_true", help="print records as JSON Lines as they come, no tables"
    )
    parser.add_argument("--compile-only", action="store_true", help="do not run the emulator")
    parser.add_argument("--write", type=Path, help="document to put the tables into")
    parser.add_argument(
        "--read",
        type=Path,
        help="take the records of --json instead of measuring; of equal trials the last counts",
    )
    return parser


def _measure(options: argparse.Namespace, environment: Environment) -> Iterator[Record]:
    from benchmarks.npu_subjects import LARGE_LAYERS, LAYERS

    for layer in options.layer:
        for size in options.size:
            for form in {**LAYERS, **LARGE_LAYERS}[layer].forms:
                for record in measure_form(
                    layer,
                    form,
                    str(size),
                    options.precision,
                    chip=environment.chip,
                    limit_s=options.limit,
                    emulate=not options.compile_only,
                ):
                    _tell(record)
                    if options.json:
                        print(to_json(record, environment), flush=True)
                    yield record


def _tell(record: Record) -> None:
    spilled = "" if record.spill_bytes is None else f", {record.spill_bytes >> 10} KB spilled"
    error = "" if record.sqnr_db is None else f", {record.sqnr_db} dB"
    told = record.failure or f"prepared in {record.prepare_cpu_s} s{spilled}{error}"
    name = f"{record.layer} {record.form} {record.size} {record.precision}"
    print(f"{name}: {told}", file=sys.stderr, flush=True)


def _export(subject: Subject, path: Path) -> None:
    import torch

    from mvsdk_export.graphs.onnx import OPSET_VERSION, export_onnx

    if subject.fold_constants:
        export_onnx(subject.network, subject.inputs[0], ["out"], path)
        return
    program = torch.onnx.export(  # as PyTorch does by itself: it folds below a size limit only
        subject.network,
        tuple(subject.inputs[0].values()),
        input_names=list(subject.inputs[0]),
        output_names=["out"],
        opset_version=OPSET_VERSION,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=False)


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]


if __name__ == "__main__":
    sys.exit(main())
