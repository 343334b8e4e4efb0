"""Records of `benchmarks.npu_forms` and the tables drawn from them."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
_PACKAGES = ("onnxruntime-qnn", "onnxruntime", "onnx", "onnxscript", "torch", "numpy")
_FIGURES = ("prepare s", "KB", "emulator s", "dB")
_FIGURES_WITH_MEMORY = ("prepare s", "KB", "spill KB", "DDR KB", "emulator s", "dB")
"""Where the records have them: older ones do not."""


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What came of one trial. None: it did not get so far."""

    layer: str
    form: str
    size: str
    precision: str
    prepare_cpu_s: float | None = None
    """Processor seconds of creating the session that compiles, all threads together."""
    prepare_wall_s: float | None = None
    context_bytes: int | None = None
    spill_bytes: int | None = None
    """Buffer in main memory for what has no room on the chip, as the compiler says."""
    ddr_bytes: int | None = None
    """Activations that live in main memory besides, likewise."""
    ep_context_nodes: int | None = None
    non_delegated: tuple[str, ...] = ()
    """Types of the operators that are not in a context and would run on the phone's CPU."""
    emulator_cpu_s: float | None = None
    """Processor seconds of one run on the emulator, the shortest of several."""
    emulator_wall_s: float | None = None
    sqnr_db: float | None = None
    """Against the float32 network in PyTorch."""
    failure: str | None = None
    date: str = field(default_factory=_today)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the trials ran on."""

    chip: str
    machine: str
    packages: Mapping[str, str]
    limit_s: float


def this_environment(chip: str, limit_s: float) -> Environment:
    """Describe this machine and the packages that matter."""
    return Environment(
        chip=chip,
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        limit_s=limit_s,
    )


def to_json(record: Record, environment: Environment) -> str:
    """Return one line of JSON that `read_records` reads."""
    return json.dumps({**asdict(record), "environment": asdict(environment)})


def read_records(path: Path) -> tuple[Environment, list[Record]]:
    """Read JSON Lines; of several records of one trial the last replaces the others.

    Raises:
        ValueError: If there is no record, or not all were made with the same chip, machine and
            packages.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    environments = [Environment(**line.pop("environment")) for line in lines]
    if not lines or any(environment != environments[0] for environment in environments):
        raise ValueError(f"{path.name} is empty or mixes environments; measure again")
    records = [Record(**line | {"non_delegated": tuple(line["non_delegated"])}) for line in lines]
    latest = {(r.layer, r.size, r.form, r.precision): r for r in records}
    return environments[0], list(latest.values())


def draw(
    records: Sequence[Record], environment: Environment, chosen: Mapping[str, str | None]
) -> str:
    """Return Markdown: how it was measured, then one table per layer.

    Args:
        records: In the order in which rows shall appear.
        environment: Of all the records.
        chosen: Layer to the form that networks take on an NPU; it is set in bold.
    """
    versions = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    dates = sorted({record.date for record in records})
    lines = [
        f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))} for {environment.chip} on "
        f"{environment.machine}; {versions}.",
        f"Time limit of a trial: {environment.limit_s:g} s. {_delegation(records)}",
    ]
    precisions = list(dict.fromkeys(record.precision for record in records))
    for layer in dict.fromkeys(record.layer for record in records):
        rows = [record for record in records if record.layer == layer]
        lines += ["", f"### {layer}", "", *_table(rows, precisions, chosen.get(layer))]
    return "\n".join(lines)


def update_document(path: Path, block: str) -> None:
    """Replace what stands between the markers of a document.

    Raises:
        ValueError: If the document lacks a marker, or has one twice.
    """
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ValueError(f"{path.name} lacks the lines {BEGIN} and {END}, once each; add them")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    path.write_text(f"{before}{BEGIN}\n{block}\n{after}", encoding="utf-8")


def _delegation(records: Sequence[Record]) -> str:
    compiled = [record for record in records if record.ep_context_nodes is not None]
    whole = [r for r in compiled if r.ep_context_nodes == 1 and not r.non_delegated]
    text = f"{len(whole)} of {len(compiled)} compiled graphs are one EPContext node and no other"
    for record in compiled:
        if record not in whole:
            name = f"{record.layer} {record.form} {record.size} {record.precision}"
            outside = ", ".join(record.non_delegated) or "nothing"
            text += f"; {name}: {record.ep_context_nodes} and outside them {outside}"
    return f"{text}."


def _table(rows: Sequence[Record], precisions: Sequence[str], chosen: str | None) -> list[str]:
    memory = any(row.spill_bytes is not None for row in rows)
    figures = _FIGURES_WITH_MEMORY if memory else _FIGURES
    headings = ["size", "form"]
    headings += [f"{precision} {figure}" for precision in precisions for figure in figures]
    lines = [_line(headings), _line(["---"] * 2 + ["---:"] * (len(headings) - 2))]
    for size, form in dict.fromkeys((row.size, row.form) for row in rows):
        cells = [size, f"**{form}**" if form == chosen else form]
        for precision in precisions:
            found = [r for r in rows if (r.size, r.form, r.precision) == (size, form, precision)]
            cells += _cells(found[0], memory=memory) if found else [""] * len(figures)
        lines.append(_line(cells))
    failures = [row for row in rows if row.failure]
    if failures:
        lines += [""] + [f"* {r.size} {r.form} {r.precision}: {r.failure}" for r in failures]
    return lines


def _cells(record: Record, *, memory: bool) -> list[str]:
    return [
        _number(record.prepare_cpu_s, 2),
        _kilobytes(record.context_bytes),
        *([_kilobytes(record.spill_bytes), _kilobytes(record.ddr_bytes)] if memory else []),
        _number(record.emulator_cpu_s, 2),
        "failed" if record.failure else _number(record.sqnr_db, 1),
    ]


def _kilobytes(size: int | None) -> str:
    return _number(None if size is None else size / 1024, 0)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
