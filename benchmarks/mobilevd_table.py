"""Records of `benchmarks.mobilevd` and the tables drawn from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PRECISIONS = ("fp16", "w8a16")
FORMS = ("diffusers", "npu")
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
    spilled_bytes: int | None = None
    """Buffer in main memory for activations that have no room on the chip."""
    ddr_bytes: int | None = None
    """Of other activations in main memory."""
    delegated: int | None = None
    """EPContext nodes: 1 if the compiler took the part whole."""
    forms: str = "npu"
    """How layers were written: diffusers' own way, ours for NPUs, or what differed from these."""
    non_delegated: tuple[str, ...] = ()
    """Operators that would run on the phone's CPU."""
    weight_bytes: int | None = None
    """Of the float32 model."""
    nodes: int | None = None
    crossing_bytes: int | None = None
    """Of the values that a part hands on, as they cross."""
    requantised: int | None = None
    """Values that a part takes with another scale than it has for them inside."""
    failure: str | None = None
    chip: str
    machine: str
    versions: Mapping[str, str]
    date: str

    @property
    def trial(self) -> tuple[Any, ...]:
        """What a later record of the same replaces."""
        return (self.command, self.subject, self.precision, self.phase, self.part, self.chip)


def read_records(path: Path) -> list[Record]:
    """Return the records of a file; none if it is not there."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [
        Record(**item | {"non_delegated": tuple(item.get("non_delegated", ()))}) for item in found
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
    lines = _circumstances(records)
    blocks = [x for x in records if x.command == "blocks"]
    for precision in PRECISIONS:
        subjects = list(dict.fromkeys(x.subject for x in blocks if x.precision == precision))
        rows = [_sum(_of(records, "blocks", subject, precision)) for subject in subjects]
        if rows:
            lines += ["", f"### Blocks, {precision}", "", *_table(subjects, rows)]
    for subject in dict.fromkeys(x.subject for x in records if x.command == "full"):
        for precision in PRECISIONS:
            found = _of(records, "full", subject, precision)
            parts = sorted({x.part for x in found if x.part is not None})
            if not parts:
                continue
            rows = [_sum([x for x in found if x.part == part]) for part in parts]
            labels = [f"part {part}" for part in parts]
            whole = _sum([x for x in found if x.part is not None])
            lines += ["", f"### {subject}, {precision}", ""]
            done = any(x.phase == "stitch" and not x.failure for x in found)
            lines += _table([*labels, "in all" if done else "so far"], [*rows, whole])
    return "\n".join(lines).strip()


def _circumstances(records: Sequence[Record]) -> list[str]:
    """Return what was measured with what; one line for every chip, machine and set of tools."""
    lines: dict[str, None] = {}
    for record in records:
        versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
        told = f"Measured {record.date} for {record.chip} on {record.machine}; {versions}."
        lines[told] = None
    lines |= dict.fromkeys(f"Forms: {x.forms}." for x in records if x.forms not in FORMS)
    return list(lines)


def _of(records: Sequence[Record], command: str, subject: str, precision: str) -> list[Record]:
    """Return the records of a trial, its tracing included, which all precisions share."""
    found = [x for x in records if (x.command, x.subject) == (command, subject)]
    return [x for x in found if x.precision in (precision, "fp32")]


def _sum(records: Sequence[Record]) -> list[str]:
    """Return the cells of a row: what its phases took together."""
    compiled = [x for x in records if x.phase == "compile"]
    failures = [f"{x.phase}: {x.failure}" for x in records if x.failure]
    made = [x for x in compiled if x.failure is None]
    before = [x for x in records if x.phase not in ("compile", "stitch")]
    return [
        f"{sum(x.cpu_s for x in before):.1f}",
        f"{max((x.peak_bytes for x in before), default=0) / 2**30:.2f}",
        f"{sum(x.cpu_s for x in compiled):.1f}" if compiled else "",
        f"{max(x.peak_bytes for x in compiled) / 2**30:.2f}" if compiled else "",
        f"{sum(x.context_bytes or 0 for x in made) / _MIB:.1f}" if made else "",
        _megabytes([x.spilled_bytes for x in made]),
        _megabytes([x.ddr_bytes for x in made]),
        str(sum(x.delegated or 0 for x in made)) if made else "",
        ", ".join(y for x in made for y in x.non_delegated) or ("none" if made else ""),
        f"{sum(x.crossing_bytes or 0 for x in made) / _MIB:.1f}" if made else "",
        "; ".join(failures),
    ]


def _megabytes(counts: Sequence[int | None]) -> str:
    known = [count for count in counts if count is not None]
    return f"{sum(known) / 1e6:.1f}" if known else ""


_HEADINGS = (
    "",
    "before s",
    "before GiB",
    "compile s",
    "compile GiB",
    "context MiB",
    "spilled MB",
    "DDR MB",
    "contexts",
    "left to the CPU",
    "crossing MiB",
    "failure",
)


def _table(labels: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rules = ["---", *["---:"] * 8, "---", "---:", "---"]
    body = [[label, *row] for label, row in zip(labels, rows, strict=True)]
    return [f"| {' | '.join(cells)} |" for cells in [_HEADINGS, rules, *body]]
