"""Operations of a program: the closed vocabulary of what a runtime does between graphs.

docs/bundle_format.md, section 5. Import these names from `mvsdk.manifest`. The dataclasses say what
is there; `_dataflow` checks that it fits together, and `mvsdk.runner` carries it out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast, get_args

from mvsdk._json import TENSOR_NAME, Node, fail, listed

Blend = Literal["first", "last", "linear"]
ResampleMethod = Literal["nearest", "mean"]

BLENDS: tuple[Blend, ...] = get_args(Blend)
RESAMPLE_METHODS: tuple[ResampleMethod, ...] = get_args(ResampleMethod)

MAX_STREAM = 2**32 - 1
MAX_OPERATIONS = 512
MAX_COUNT = 65536
MAX_INDEX_NAMES = 8
MAX_SIZE = 2**31 - 1

ARRAY = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""Name of an array, an input, a table or a counter."""


def parse_name(node: Node) -> str:
    """Read the name of an array."""
    if type(node.value) is not str or not ARRAY.fullmatch(node.value):
        node.fail("a name of 1 to 64 lower-case letters, digits and '_'", "P4")
    return node.value


def word_of(node: Node, key: str) -> Node:
    """Read what says which other keys an object has."""
    value = node.value
    if not isinstance(value, dict):
        node.fail("an object")
    content = cast("dict[str, object]", value)
    if key not in content:
        fail(f"{node.path}.{key}", "missing", "every key of the format", "D9")
    return Node(content[key], f"{node.path}.{key}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A place along an axis: start plus, for each name, its integer times the count.

    A document has the integer alone where nothing is added.
    """

    start: int
    steps: Mapping[str, int] = field(default_factory=dict[str, int])
    """Counter of a loop or sampler, or a whole number of the caller -> integer."""

    @classmethod
    def parse(cls, node: Node) -> Index:
        """Read an index: an integer, or an object."""
        if type(node.value) is int:
            return cls(start=node.integer(0, MAX_SIZE))
        f = node.fields("start", "steps")
        entries = f["steps"].entries(ARRAY, least=1, most=MAX_INDEX_NAMES, names="P4")
        steps = {name: _parse_step(item) for name, item in sorted(entries.items())}
        return cls(start=f["start"].integer(-MAX_SIZE, MAX_SIZE), steps=steps)


def _parse_step(node: Node) -> int:
    step = node.integer(-MAX_SIZE, MAX_SIZE)
    if step == 0:
        node.fail("an integer that is not 0")
    return step


class _Shown:
    """An operation in one line, however much it holds."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return what it takes and makes."""
        operation = cast("Operation", self)
        taken = listed(sorted(names_taken(operation)))
        made = listed(sorted(_names_made(operation)))
        return f"{type(self).__name__}({f'{taken} ' if taken else ''}-> {made})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Tokenize(_Shown):
    """Makes token numbers of a prompt."""

    op: Literal["tokenize"] = "tokenize"
    input: str | None
    before: str = ""
    after: str = ""
    tokenizer: str
    output: str
    mask: str | None = None

    @classmethod
    def parse(cls, node: Node) -> Tokenize:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            input=f["input"].optional(parse_name),
            before=f["before"].text(least=0),
            after=f["after"].text(least=0),
            tokenizer=f["tokenizer"].identifier(),
            output=parse_name(f["output"]),
            mask=f["mask"].optional(parse_name),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputValue:
    """A number of the caller, scaled and moved: [input * scale + offset]."""

    input: str
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Numbers(_Shown):
    """Makes an array of numbers, constant ones and the caller's."""

    op: Literal["numbers"] = "numbers"
    values: tuple[float | InputValue, ...]
    output: str

    @classmethod
    def parse(cls, node: Node) -> Numbers:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        items = f["values"].items(least=1, most=65536, counts="P10")
        return cls(values=tuple(map(_parse_value, items)), output=parse_name(f["output"]))


def _parse_value(node: Node) -> float | InputValue:
    if not isinstance(node.value, dict):
        return node.number()
    f = node.fields("input", "scale", "offset")
    return InputValue(
        input=parse_name(f["input"]), scale=f["scale"].number(), offset=f["offset"].number()
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DrawNoise(_Shown):
    """Draws standard normal noise."""

    op: Literal["noise"] = "noise"
    stream: int
    shape: tuple[int, ...]
    output: str

    @classmethod
    def parse(cls, node: Node) -> DrawNoise:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            stream=f["stream"].integer(0, MAX_STREAM),
            shape=tuple(item.integer(1, MAX_SIZE) for item in f["shape"].items(most=8)),
            output=parse_name(f["output"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Run(_Shown):
    """Calls a graph."""

    op: Literal["run"] = "run"
    component: str
    inputs: Mapping[str, str]
    """Tensor -> array."""
    outputs: Mapping[str, str]
    """Tensor -> new array."""

    @classmethod
    def parse(cls, node: Node) -> Run:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            component=f["component"].identifier(),
            inputs=_parse_tensors(f["inputs"]),
            outputs=_parse_tensors(f["outputs"]),
        )


def _parse_tensors(node: Node) -> dict[str, str]:
    entries = node.entries(TENSOR_NAME, least=1, most=64, counts="P11")
    return {name: parse_name(item) for name, item in sorted(entries.items())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """An array that one repetition hands to the next."""

    start: str
    next: str
    output: str | None = None

    @classmethod
    def parse(cls, node: Node) -> Carried:
        """Read a carried array."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            start=parse_name(f["start"]),
            next=parse_name(f["next"]),
            output=f["output"].optional(parse_name),
        )


def _parse_carried(node: Node) -> dict[str, Carried]:
    entries = node.entries(ARRAY, most=64, names="P4")
    return {name: Carried.parse(item) for name, item in sorted(entries.items())}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sample(_Shown):
    """Integrates a denoiser from noise to a sample."""

    op: Literal["sample"] = "sample"
    sampler: str
    start: str
    stream: int
    shared_axis: int | None = None
    """Axis along which fresh noise is one and the same; None for noise of its own everywhere."""
    index: str
    model_input: str
    timestep: str
    carried: Mapping[str, Carried] = field(default_factory=dict[str, Carried])
    operations: tuple[Operation, ...]
    model_output: str
    output: str

    @classmethod
    def parse(cls, node: Node) -> Sample:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            sampler=f["sampler"].identifier(),
            start=parse_name(f["start"]),
            stream=f["stream"].integer(0, MAX_STREAM),
            shared_axis=f["shared_axis"].optional(lambda item: item.integer(0, 7)),
            index=parse_name(f["index"]),
            model_input=parse_name(f["model_input"]),
            timestep=parse_name(f["timestep"]),
            carried=_parse_carried(f["carried"]),
            operations=parse_operations(f["operations"]),
            model_output=parse_name(f["model_output"]),
            output=parse_name(f["output"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a loop makes of an array of all its repetitions."""

    output: str
    axis: int
    overlap: int = 0
    blend: Blend | None = None

    @classmethod
    def parse(cls, node: Node) -> Collected:
        """Read how repetitions are joined."""
        f = node.fields(*cls.__dataclass_fields__)
        collected = cls(
            output=parse_name(f["output"]),
            axis=f["axis"].integer(0, 7),
            overlap=f["overlap"].integer(0, MAX_SIZE),
            blend=f["blend"].optional(_parse_blend),
        )
        if (collected.overlap == 0) != (collected.blend is None):
            f["blend"].fail("null without an overlap, otherwise first, last or linear", "P15")
        return collected


def _parse_blend(node: Node) -> Blend:
    return node.choice(BLENDS)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Loop(_Shown):
    """Carries operations out several times."""

    op: Literal["loop"] = "loop"
    count: int
    index: str
    carried: Mapping[str, Carried] = field(default_factory=dict[str, Carried])
    operations: tuple[Operation, ...]
    collected: Mapping[str, Collected] = field(default_factory=dict[str, Collected])
    """Array of the operations -> how those of all repetitions are joined."""

    @classmethod
    def parse(cls, node: Node) -> Loop:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        entries = f["collected"].entries(ARRAY, most=64, names="P4")
        return cls(
            count=f["count"].integer(1, MAX_COUNT, "P7"),
            index=parse_name(f["index"]),
            carried=_parse_carried(f["carried"]),
            operations=parse_operations(f["operations"]),
            collected={name: Collected.parse(item) for name, item in sorted(entries.items())},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A summand: an array times a number, or times an array of one element."""

    array: str
    scale: float | str = 1.0

    @classmethod
    def parse(cls, node: Node) -> Term:
        """Read a term."""
        f = node.fields("array", "scale")
        scale = f["scale"]
        return cls(
            array=parse_name(f["array"]),
            scale=parse_name(scale) if isinstance(scale.value, str) else scale.number(),
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Linear(_Shown):
    """Adds arrays, each times a number."""

    op: Literal["linear"] = "linear"
    terms: tuple[Term, ...]
    offset: float = 0.0
    output: str

    @classmethod
    def parse(cls, node: Node) -> Linear:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        terms = f["terms"].items(least=1, most=16, counts="P12")
        return cls(
            terms=tuple(map(Term.parse, terms)),
            offset=f["offset"].number(),
            output=parse_name(f["output"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Take(_Shown):
    """Takes places along one axis; with a stride of 0 the same place again and again."""

    op: Literal["take"] = "take"
    array: str
    axis: int
    start: Index
    size: int
    stride: int = 1
    output: str

    @classmethod
    def parse(cls, node: Node) -> Take:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            array=parse_name(f["array"]),
            axis=f["axis"].integer(0, 7),
            start=Index.parse(f["start"]),
            size=f["size"].integer(1, MAX_SIZE),
            stride=f["stride"].integer(0, MAX_SIZE),
            output=parse_name(f["output"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Concat(_Shown):
    """Puts arrays one after the other along one axis."""

    op: Literal["concat"] = "concat"
    arrays: tuple[str, ...]
    axis: int
    output: str

    @classmethod
    def parse(cls, node: Node) -> Concat:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            arrays=tuple(map(parse_name, f["arrays"].items(least=1, most=64, counts="P12"))),
            axis=f["axis"].integer(0, 7),
            output=parse_name(f["output"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Resample(_Shown):
    """Makes the last two axes larger by repetition, or smaller by means."""

    op: Literal["resample"] = "resample"
    array: str
    method: ResampleMethod
    factor: int
    output: str

    @classmethod
    def parse(cls, node: Node) -> Resample:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            array=parse_name(f["array"]),
            method=f["method"].choice(RESAMPLE_METHODS),
            factor=f["factor"].integer(2, 16),
            output=parse_name(f["output"]),
        )


Operation: TypeAlias = (
    Tokenize | Numbers | DrawNoise | Run | Sample | Loop | Linear | Take | Concat | Resample
)
_OPERATIONS: Mapping[str, type[Operation]] = {
    "tokenize": Tokenize,
    "numbers": Numbers,
    "noise": DrawNoise,
    "run": Run,
    "sample": Sample,
    "loop": Loop,
    "linear": Linear,
    "take": Take,
    "concat": Concat,
    "resample": Resample,
}
"""The ten kinds of operations, by `op`."""
OPERATIONS: tuple[str, ...] = tuple(_OPERATIONS)


def parse_operations(node: Node) -> tuple[Operation, ...]:
    """Read a list of operations."""
    return tuple(map(_parse_operation, node.items(least=1, most=MAX_OPERATIONS)))


def _parse_operation(node: Node) -> Operation:
    return _OPERATIONS[word_of(node, "op").choice(OPERATIONS)].parse(node)


def _names_made(operation: Operation) -> set[str]:
    match operation:
        case Tokenize():
            return {operation.output} | ({operation.mask} if operation.mask else set())
        case Run():
            return set(operation.outputs.values())
        case Sample():
            return {operation.output} | _carried_out(operation.carried)
        case Loop():
            collected = {item.output for item in operation.collected.values()}
            return collected | _carried_out(operation.carried)
        case _:
            return {operation.output}


def _carried_out(carried: Mapping[str, Carried]) -> set[str]:
    return {item.output for item in carried.values() if item.output is not None}


def names_taken(operation: Operation) -> set[str]:
    """Return the names of the arrays that an operation takes."""
    match operation:
        case Tokenize():
            return {operation.input} if operation.input else set()
        case Numbers():
            return {x.input for x in operation.values if isinstance(x, InputValue)}
        case DrawNoise():
            return set()
        case Run():
            return set(operation.inputs.values())
        case Sample():
            carried = operation.carried.values()
            starts = {name for item in carried for name in (item.start, item.next)}
            return {operation.start, operation.model_output} | starts
        case Loop():
            carried = operation.carried.values()
            starts = {name for item in carried for name in (item.start, item.next)}
            return set(operation.collected) | starts
        case Linear():
            scales = {term.scale for term in operation.terms if isinstance(term.scale, str)}
            return {term.array for term in operation.terms} | scales
        case Take():
            return {operation.array, *operation.start.steps}
        case Concat():
            return set(operation.arrays)
        case Resample():
            return {operation.array}
