"""Measures what Qualcomm's HTP compiler makes of MobileVD's denoiser, block by block and whole.

`blocks` compiles the residual block and the transformer of every level of Stable Video Diffusion,
as diffusers writes them and in our forms for NPUs. `full` takes the whole denoiser, compressed by
the paper's recipe unless told otherwise, the way of an export: trace, cut, quantise, compile part
by part, stitch. Weights are random: what a compiler does depends on shapes and operators. Each
phase is a child process, one at a time; records go to benchmarks/mobilevd.json as they come, and a
record of the same trial is replaced. Nothing here is a phone's latency.

    python benchmarks/mobilevd.py blocks [--level 2] [--form npu] [--precision fp16]
    python benchmarks/mobilevd.py full [--precision w8a16] [--parts 4] [--uncompressed]
    python benchmarks/mobilevd.py table
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).with_suffix(".json")
FRAMES = 14
LEVELS: dict[int, tuple[int, int, int, int]] = {
    0: (320, 5, 32, 64),
    1: (640, 10, 16, 32),
    2: (1280, 20, 8, 16),
}
"""Channels, heads, height and width of the levels with transformers, for clips of 512x256."""
CONTEXT, EMBEDDING = 1024, 1280
BLOCKS = ("resnet", "transformer")
FORMS = ("diffusers", "npu")
PRECISIONS = ("fp16", "w8a16")
FEEDS = 2
"""Random inputs that a quantisation sees: its ranges matter to nobody here."""
LIMIT_S, LIMIT_BYTES = 600.0, 16 << 30
PART_BYTES = 3 << 29
"""Largest weights of a part in float32: what handles a part holds them several times."""
_POLL_S = 0.2
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one phase of a trial took. None: it did not get so far, or makes no such thing."""

    command: str
    subject: str
    precision: str
    phase: str
    part: int | None = None
    wall_s: float
    cpu_s: float
    """Processor seconds of the child, all threads together: what a busy machine changes least."""
    peak_bytes: int
    """Largest resident memory of the child."""
    context_bytes: int | None = None
    npu_nodes: int | None = None
    """EPContext nodes: 1 if the compiler took the part whole."""
    left_outside: tuple[str, ...] = ()
    """Operators that would run on the phone's CPU."""
    weight_bytes: int | None = None
    """Of the float32 model."""
    nodes: int | None = None
    crossing_bytes: int | None = None
    """Of the values that a part hands on, as they cross."""
    failure: str | None = None
    chip: str
    machine: str
    versions: Mapping[str, str]
    date: str

    @property
    def trial(self) -> tuple[Any, ...]:
        """What a later record of the same replaces."""
        return (self.command, self.subject, self.precision, self.phase, self.part, self.chip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a child is stopped."""

    cpu_s: float
    peak_bytes: int


# Phases: each runs in a child process of its own, takes JSON values and returns some.


def trace_block(*, folder: str, block: str, level: int, form: str) -> dict[str, Any]:
    """Trace one block at the size of its level, with inputs to calibrate on."""
    import numpy as np
    import torch
    from torch import Tensor, nn

    from mvsdk_export.networks.blocks import set_forms_
    from mvsdk_export.targets.onnx import export_onnx

    torch.manual_seed(0)
    channels, heads, height, width = LEVELS[level]
    make = _diffusers_block if form == "diffusers" else _own_block
    call = make(block, channels, heads)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = call[0]

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return call[1](self.block, x, condition)

    network = Block().eval()
    if form != "diffusers":
        set_forms_(network)
    condition = (1, EMBEDDING) if block == "resnet" else (1, 1, CONTEXT)
    feeds = [
        {"x": torch.randn(FRAMES, channels, height, width), "condition": torch.randn(condition)}
        for _ in range(FEEDS)
    ]
    export_onnx(network, feeds[0], ["y"], Path(folder) / "part_0.onnx")
    for index, feed in enumerate(feeds):
        arrays = {name: value.numpy() for name, value in feed.items()}
        np.savez(Path(folder) / f"feed_{index}.npz", allow_pickle=False, **arrays)
    return {"weight_bytes": 4 * sum(x.numel() for x in network.parameters())}


def _own_block(block: str, channels: int, heads: int) -> tuple[Any, Callable[..., Any]]:
    from mvsdk_export.networks.svd.blocks import SpatioTemporalResBlock, TimeMixer
    from mvsdk_export.networks.svd.transformer import TransformerSpatioTemporal

    if block == "resnet":
        network = SpatioTemporalResBlock(
            channels,
            channels,
            embedding_dim=EMBEDDING,
            groups=32,
            eps=1e-6,
            temporal_eps=1e-6,
            mixer=TimeMixer(0.5, of_spatial=True),
        )
        return network, lambda n, x, condition: n(x, FRAMES, condition)
    network = TransformerSpatioTemporal(
        channels,
        CONTEXT,
        heads,
        layers=1,
        groups=32,
        inner=None,
        temporal_inner=None,
        folded=True,
    )
    return network, lambda n, x, condition: n(x, condition, FRAMES)


def _diffusers_block(block: str, channels: int, heads: int) -> tuple[Any, Callable[..., Any]]:
    """Return the public implementation, with the borders of ours."""
    import torch
    from diffusers.models.resnet import SpatioTemporalResBlock
    from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel

    images = torch.zeros(1, FRAMES)
    if block == "resnet":
        network = SpatioTemporalResBlock(channels, channels, EMBEDDING, eps=1e-6)

        def run(n: Any, x: Any, condition: Any) -> Any:
            return n(x, condition.repeat(FRAMES, 1), image_only_indicator=images)

        return network, run
    network = TransformerSpatioTemporalModel(
        heads, channels // heads, channels, cross_attention_dim=CONTEXT
    )

    def attend(n: Any, x: Any, condition: Any) -> Any:
        repeated = condition.repeat(FRAMES, 1, 1)
        return n(x, repeated, image_only_indicator=images, return_dict=False)[0]

    return network, attend


def trace_unet(*, folder: str, compressed: bool) -> dict[str, Any]:
    """Trace the whole denoiser for one step, with random weights and inputs to calibrate on."""
    import numpy as np
    import torch

    from mvsdk_export.networks.blocks import set_forms_
    from mvsdk_export.networks.svd.graphs import OneStepGraph
    from mvsdk_export.networks.svd.unet import SVDUNet, SVDUNetConfig
    from mvsdk_export.targets.onnx import export_onnx

    torch.manual_seed(0)
    config = _compressed_config() if compressed else SVDUNetConfig()
    network = OneStepGraph(SVDUNet(config)).eval()
    set_forms_(network)
    _, _, height, width = LEVELS[0]
    latents = config.out_channels, height, width
    feeds = [
        {
            "sample": torch.randn(FRAMES, *latents),
            "encoder_hidden_states": torch.randn(1, 1, config.cross_attention_dim),
            "image_latents": torch.randn(1, *latents),
            "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]),
        }
        for _ in range(FEEDS)
    ]
    with torch.no_grad():
        export_onnx(network, feeds[0], ["model_output"], Path(folder) / "model.onnx")
    for index, feed in enumerate(feeds):
        arrays = {name: value.numpy() for name, value in feed.items()}
        np.savez(Path(folder) / f"feed_{index}.npz", allow_pickle=False, **arrays)
    return {"weight_bytes": 4 * sum(x.numel() for x in network.parameters())}


def _compressed_config() -> Any:
    from mvsdk_export.compress.pruning import report_pruning
    from mvsdk_export.compress.recipe import MOBILEVD
    from mvsdk_export.networks.svd.unet import SVDUNetConfig

    config = SVDUNetConfig(
        folded_cross_attention=True,
        frame_levels=MOBILEVD.frame_levels,
        frame_down=MOBILEVD.frame_down,
        frame_up=MOBILEVD.frame_up,
        funnel_factor=MOBILEVD.funnel_factor,
        funnel_layers=MOBILEVD.funnel_layers,
    )
    _, _, height, width = LEVELS[0]
    keep = MOBILEVD.kept(config.temporal_block_count)
    return report_pruning(config, keep, latent_size=(height, width)).config


def split(*, folder: str, parts: int | None) -> dict[str, Any]:
    """Cut the traced denoiser; what the parts are goes to a file."""
    from mvsdk_export.targets.split import split_model

    found = split_model(
        Path(folder) / "model.onnx", Path(folder), parts=parts, most_bytes=PART_BYTES
    )
    told = [asdict(part) | {"path": part.path.name} for part in found]
    (Path(folder) / "parts.json").write_text(json.dumps(told), encoding="utf-8")
    return {"nodes": sum(part.nodes for part in found)}


def evaluate(*, folder: str, part: int) -> dict[str, Any]:
    """Run a part in float32 and add what it gives to the inputs of those behind it."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model = str(Path(folder) / f"part_{part}.onnx")
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    for index in range(FEEDS):
        path = Path(folder) / f"feed_{index}.npz"
        with np.load(path) as archive:
            values: dict[str, Any] = dict(archive)
        found = session.run(names, {x.name: values[x.name] for x in session.get_inputs()})
        values |= dict(zip(names, found, strict=True))
        if not all(np.isfinite(x).all() and np.abs(x).max() < 65504 for x in values.values()):
            raise RuntimeError(f"an output of part {part} does not fit float16")
        np.savez(path, allow_pickle=False, **values)
    return {}


def quantise(*, folder: str, part: int) -> dict[str, Any]:
    """Quantise a part on the inputs so far; its borders agree with those of earlier parts."""
    import numpy as np
    import onnx

    from mvsdk_export.quantize.qdq import quantize_w8a16
    from mvsdk_export.targets.onnx import quantize_borders, save_model
    from mvsdk_export.targets.split import agree_quantized

    source, target = Path(folder) / f"part_{part}.onnx", Path(folder) / f"w8a16_{part}.onnx"
    names = [value.name for value in onnx.load(source, load_external_data=False).graph.input]
    feeds: list[dict[str, Any]] = []
    for index in range(FEEDS):
        with np.load(Path(folder) / f"feed_{index}.npz") as archive:
            feeds.append({name: archive[name] for name in names})
    quantize_w8a16(source, target, feeds)
    del feeds
    known = Path(folder) / "borders.json"
    made = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    model = onnx.load(target)
    outputs = {value.name for value in model.graph.output}
    agree_quantized(model, {name: (scale, zero) for name, (scale, zero) in made.items()})
    requantised = sum(node.name.endswith("/float_made") for node in model.graph.node)
    made |= {name: x for name, x in quantize_borders(model).items() if name in outputs}
    save_model(model, target)
    known.write_text(json.dumps(made), encoding="utf-8")
    print(f"part {part}: {requantised} requantisations", file=sys.stderr)
    return {}


def halve(*, folder: str, part: int) -> dict[str, Any]:
    """Convert a part to float16, and what crosses between parts."""
    import onnx

    from mvsdk_export.targets.onnx import convert_float16, save_model
    from mvsdk_export.targets.split import agree_float16

    model = convert_float16(onnx.load(Path(folder) / f"part_{part}.onnx"))
    agree_float16(model, _crossing(Path(folder)))
    save_model(model, Path(folder) / f"fp16_{part}.onnx")
    return {}


def compile_part(*, folder: str, part: int, precision: str, chip: str) -> dict[str, Any]:
    """Compile a part for the chip."""
    import onnx

    from mvsdk.devices import find_chipset
    from mvsdk_export.targets.snapdragon import compile_context

    source = Path(folder) / f"{precision}_{part}.onnx"
    target = Path(folder) / f"{precision}_{part}_ctx.onnx"
    graph = onnx.load(source, load_external_data=False).graph
    residency = compile_context(
        source, target, find_chipset(chip).chip, float16=precision == "fp16"
    )
    given = [x for x in graph.output if x.name in _crossing(Path(folder))]
    return {
        "context_bytes": sum(x.stat().st_size for x in target.parent.glob(f"{target.stem}*.bin")),
        "npu_nodes": residency.npu_nodes,
        "left_outside": [node.operator for node in residency.left_outside],
        "nodes": len(graph.node),
        "crossing_bytes": sum(map(_value_bytes, given)),
    }


def stitch(*, folder: str, precision: str, parts: int) -> dict[str, Any]:
    """Join the compiled parts."""
    from mvsdk_export.targets.snapdragon import stitch_contexts

    contexts = [Path(folder) / f"{precision}_{part}_ctx.onnx" for part in range(parts)]
    target = Path(folder) / precision / "model_ctx.onnx"
    target.parent.mkdir(exist_ok=True)
    residency = stitch_contexts(contexts, target)
    return {
        "context_bytes": sum(path.stat().st_size for path in target.parent.glob("*.bin")),
        "npu_nodes": residency.npu_nodes,
        "left_outside": [node.operator for node in residency.left_outside],
    }


def _crossing(folder: Path) -> set[str]:
    """Return the names of the values between parts; a block is one part, and has none."""
    path = folder / "parts.json"
    parts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    made = {name for part in parts for name in part["outputs"]}
    return {name for part in parts for name in part["inputs"]} & made


def _value_bytes(value: Any) -> int:
    from onnx import helper

    size = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize
    for dim in value.type.tensor_type.shape.dim:
        size *= dim.dim_value
    return size


PHASES: dict[str, Callable[..., dict[str, Any]]] = {
    "trace block": trace_block,
    "trace": trace_unet,
    "split": split,
    "evaluate": evaluate,
    "quantise": quantise,
    "halve": halve,
    "compile": compile_part,
    "stitch": stitch,
}


# Trials: phases in a row, in the parent.


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
        from mvsdk_export.stages import tool_versions

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
    ) -> Record:
        """Run one phase in a child and keep its record; a failure is a record too."""
        found, usage = run_child(phase, arguments, self.limits)
        record = Record(
            command=self.command,
            subject=subject,
            precision=precision,
            phase=phase,
            part=part,
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
    command = [sys.executable, __file__, "--phase", phase, "--limit", str(limits.cpu_s)]
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True
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


def _child(phase: str, limit_s: float) -> int:
    """Run one phase; the last line of standard output is what it returns."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 5))
    try:
        found = PHASES[phase](**json.load(sys.stdin))
    except Exception as exc:
        print((str(exc).strip().splitlines() or [type(exc).__name__])[0], file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


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
    traced = bench.run(
        "trace block", subject, "fp32", {**place, "block": block, "level": level, "form": form}
    )
    if traced.failure:
        return
    for precision in precisions:
        part = {**place, "part": 0}
        made = bench.run(_MAKERS[precision], subject, precision, part)
        if not made.failure:
            arguments = {**part, "precision": precision, "chip": bench.chip}
            bench.run("compile", subject, precision, arguments)


_MAKERS = {"fp16": "halve", "w8a16": "quantise"}


def measure_full(options: argparse.Namespace) -> None:
    """Take the whole denoiser to stitched contexts, at every precision."""
    bench = Bench("full", options.chip, options.records, _limits(options))
    subject = "SVD" if options.uncompressed else "MobileVD"
    with _folder(options) as folder:
        place = {"folder": str(folder)}
        if not (folder / "parts.json").exists():
            traced = bench.run(
                "trace", subject, "fp32", {**place, "compressed": not options.uncompressed}
            )
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
    for part in range(count):
        place = {"folder": str(folder), "part": part}
        made = bench.run(_MAKERS[precision], subject, precision, place, part=part)
        if made.failure:
            return
        arguments = {**place, "precision": precision, "chip": bench.chip}
        bench.run("compile", subject, precision, arguments, part=part)
        for path in folder.glob(f"{precision}_{part}.*"):
            path.unlink()
        if precision == "w8a16" and part + 1 < count:
            bench.run("evaluate", subject, precision, place, part=part)
    arguments = {"folder": str(folder), "precision": precision, "parts": count}
    bench.run("stitch", subject, precision, arguments)


def _limits(options: argparse.Namespace) -> Limits:
    return Limits(cpu_s=options.limit, peak_bytes=int(options.memory * 2**30))


@contextlib.contextmanager
def _folder(options: argparse.Namespace) -> Iterator[Path]:
    """Lend a folder for models: the one that was asked for, or one that is gone afterwards."""
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        yield options.folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def read_records(path: Path) -> list[Record]:
    """Return the records of a file; none if it is not there."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [
        Record(**item | {"left_outside": tuple(item.get("left_outside", ()))}) for item in found
    ]


def keep(record: Record, path: Path) -> None:
    """Add a record to a file, in place of one of the same trial."""
    others = [x for x in read_records(path) if x.trial != record.trial]
    told = [asdict(x) for x in [*others, record]]
    lines = ",\n".join(
        json.dumps({k: v for k, v in x.items() if v not in (None, ())}) for x in told
    )
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def draw(records: Sequence[Record]) -> str:
    """Return Markdown: a table of the blocks, and one of every denoiser at every precision."""
    lines: list[str] = []
    subjects = dict.fromkeys(x.subject for x in records if x.command == "blocks")
    for precision in PRECISIONS:
        rows = [_sum(_of(records, "blocks", subject, precision)) for subject in subjects]
        lines += ["", f"### Blocks, {precision}", "", *_table(list(subjects), rows)]
    for subject in dict.fromkeys(x.subject for x in records if x.command == "full"):
        for precision in PRECISIONS:
            found = _of(records, "full", subject, precision)
            if not found:
                continue
            parts = sorted({x.part for x in found if x.part is not None})
            rows = [_sum([x for x in found if x.part == part]) for part in parts]
            labels = [f"part {part}" for part in parts]
            whole = _sum([x for x in found if x.part is not None])
            lines += ["", f"### {subject}, {precision}", ""]
            lines += _table([*labels, "in all"], [*rows, whole])
    return "\n".join(lines).strip()


def _of(records: Sequence[Record], command: str, subject: str, precision: str) -> list[Record]:
    """Return the records of a trial, its tracing included, which all precisions share."""
    found = [x for x in records if (x.command, x.subject) == (command, subject)]
    return [x for x in found if x.precision in (precision, "fp32")]


def _sum(records: Sequence[Record]) -> list[str]:
    """Return the cells of a row: what its phases took together."""
    compiled = [x for x in records if x.phase == "compile"]
    failures = [f"{x.phase}: {x.failure}" for x in records if x.failure]
    made = [x for x in compiled if x.failure is None]
    before = sum(x.cpu_s for x in records if x.phase != "compile")
    return [
        f"{before:.1f}",
        f"{sum(x.cpu_s for x in compiled):.1f}" if compiled else "",
        f"{max(x.peak_bytes for x in compiled) / 2**30:.2f}" if compiled else "",
        f"{sum(x.context_bytes or 0 for x in made) / _MIB:.1f}" if made else "",
        str(sum(x.npu_nodes or 0 for x in made)) if made else "",
        ", ".join(y for x in made for y in x.left_outside) or ("none" if made else ""),
        f"{sum(x.crossing_bytes or 0 for x in made) / _MIB:.1f}" if made else "",
        "; ".join(failures),
    ]


_HEADINGS = (
    "",
    "before s",
    "compile s",
    "compile GiB",
    "context MiB",
    "contexts",
    "left to the CPU",
    "crossing MiB",
    "failure",
)


def _table(labels: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rules = ["---", *["---:"] * 5, "---", "---:", "---"]
    body = [[label, *row] for label, row in zip(labels, rows, strict=True)]
    return [f"| {' | '.join(cells)} |" for cells in [_HEADINGS, rules, *body]]


def _told(record: Record) -> str:
    name = f"{record.subject} {record.precision} {record.phase}"
    name += "" if record.part is None else f" {record.part}"
    took = f"{record.cpu_s:.1f} s of processor time, {record.peak_bytes / 2**30:.2f} GiB"
    made = "" if record.context_bytes is None else f", {record.context_bytes / _MIB:.1f} MiB"
    return f"{name}: {took}{made}{f'; {record.failure}' if record.failure else ''}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> int:
    """Measure what the command line asks for and print the tables."""
    options = _parser().parse_args()
    if options.phase:
        return _child(options.phase, options.limit)
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
    parser.add_argument("command", nargs="?", choices=("blocks", "full", "table"))
    parser.add_argument("--level", nargs="+", type=int, choices=list(LEVELS), default=list(LEVELS))
    parser.add_argument("--block", nargs="+", choices=BLOCKS, default=BLOCKS)
    parser.add_argument("--form", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--parts", type=int, help="default: the fewest that memory allows")
    parser.add_argument("--uncompressed", action="store_true", help="SVD itself")
    parser.add_argument("--chip", default="sm8650")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="processor seconds of a phase")
    parser.add_argument(
        "--memory", type=float, default=LIMIT_BYTES / 2**30, help="GiB that a phase may take"
    )
    parser.add_argument("--folder", type=Path, help="keep models here; finished cuts are taken up")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--phase", choices=list(PHASES), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
