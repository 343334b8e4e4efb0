"""Programs of a manifest: what a caller gives, and the operations that make a clip of it.

docs/bundle_format.md, section 5. Import these names from `mvsdk.manifest`. The dataclasses say what
is there; `_dataflow` checks that it fits together, and `mvsdk.runner` carries it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast, get_args

from mvsdk._arguments import shown
from mvsdk._parse import TENSOR_NAME, Node, fail, listed
from mvsdk.manifest.components import FileRef

Task = Literal["text_to_video", "image_to_video", "video_to_video", "upscale"]
InputKind = Literal["prompt", "picture", "clip", "number"]
TableDType = Literal["float32", "int32", "uint8"]
Blend = Literal["first", "last", "linear"]
ResampleMethod = Literal["nearest", "mean"]

TASKS: tuple[Task, ...] = get_args(Task)
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)
TABLE_DTYPES: tuple[TableDType, ...] = get_args(TableDType)
BLENDS: tuple[Blend, ...] = get_args(Blend)
RESAMPLE_METHODS: tuple[ResampleMethod, ...] = get_args(ResampleMethod)

MIN_FPS = 0.1
"""Clips of fewer frames per second are beyond what the containers can time."""
MAX_FPS = 240.0
MAX_STREAM = 2**32 - 1
MAX_OPERATIONS = 512
MAX_COUNT = 65536
MAX_INDEX_NAMES = 8
MAX_SIZE = 2**31 - 1

ARRAY = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""Name of an array, an input, a table or a counter."""


def _parse_name(node: Node) -> str:
    if type(node.value) is not str or not ARRAY.fullmatch(node.value):
        node.fail("a name of 1 to 64 lower-case letters, digits and '_'", "P4")
    return node.value


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSpec:
    """The clip that a program makes: RGB frames (F, H, W, 3)."""

    frames: int
    height: int
    width: int
    fps: float

    @classmethod
    def parse(cls, node: Node) -> VideoSpec:
        """Read the size of the clip."""
        f = node.fields("frames", "height", "width", "fps")
        return cls(
            frames=f["frames"].integer(1, 4096),
            height=f["height"].integer(1, 8192),
            width=f["width"].integer(1, 8192),
            fps=f["fps"].number(MIN_FPS, MAX_FPS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptInput:
    """A text of the caller."""

    kind: Literal["prompt"] = "prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureInput:
    """A picture of the caller: uint8 (1, height, width, 3)."""

    kind: Literal["picture"] = "picture"
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipInput:
    """A clip of the caller: uint8 (frames, height, width, 3)."""

    kind: Literal["clip"] = "clip"
    frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberInput:
    """A number of the caller: float32 (1,)."""

    kind: Literal["number"] = "number"
    minimum: float
    maximum: float
    default: float
    whole: bool = False


Input: TypeAlias = PromptInput | PictureInput | ClipInput | NumberInput


def parse_input(node: Node) -> Input:
    """Read an input of a program."""
    kind: InputKind = _word_of(node, "kind").choice(INPUT_KINDS)
    match kind:
        case "prompt":
            node.fields("kind")
            return PromptInput()
        case "picture":
            f = node.fields("kind", "height", "width")
            return PictureInput(
                height=f["height"].integer(1, 8192), width=f["width"].integer(1, 8192)
            )
        case "clip":
            f = node.fields("kind", "frames", "height", "width", "fps")
            return ClipInput(
                frames=f["frames"].integer(1, 4096),
                height=f["height"].integer(1, 8192),
                width=f["width"].integer(1, 8192),
                fps=f["fps"].number(MIN_FPS, MAX_FPS),
            )
        case "number":
            return _parse_number_input(node)


def _parse_number_input(node: Node) -> NumberInput:
    f = node.fields("kind", "minimum", "maximum", "default", "whole")
    number = NumberInput(
        minimum=f["minimum"].number(),
        maximum=f["maximum"].number(),
        default=f["default"].number(),
        whole=f["whole"].boolean(),
    )
    if number.minimum > number.maximum:
        f["minimum"].fail("at most the maximum", "P2")
    if not number.minimum <= number.default <= number.maximum:
        f["default"].fail("a number from minimum to maximum", "P2")
    bounds = (number.minimum, number.maximum, number.default)
    if number.whole and not all(value.is_integer() for value in bounds):
        fail(node.path, "whole with bounds or a default that are not", "whole numbers", "P2")
    return number


def _word_of(node: Node, key: str) -> Node:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenize:
    """Makes token numbers of a prompt."""

    op: Literal["tokenize"] = "tokenize"
    input: str | None
    before: str = ""
    after: str = ""
    tokenizer: str
    output: str
    mask: str | None = None

    def __repr__(self) -> str:
        """Return what it takes and makes in one line."""
        return _line_of(self)

    @classmethod
    def parse(cls, node: Node) -> Tokenize:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            input=f["input"].optional(_parse_name),
            before=f["before"].text(least=0),
            after=f["after"].text(least=0),
            tokenizer=f["tokenizer"].identifier(),
            output=_parse_name(f["output"]),
            mask=f["mask"].optional(_parse_name),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputValue:
    """A number of the caller, scaled and moved: [input * scale + offset]."""

    input: str
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Makes an array of numbers, constant ones and the caller's."""

    op: Literal["numbers"] = "numbers"
    values: tuple[float | InputValue, ...]
    output: str

    def __repr__(self) -> str:
        """Return what it takes and makes in one line."""
        return _line_of(self)

    @classmethod
    def parse(cls, node: Node) -> Numbers:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        items = f["values"].items(least=1, most=65536, counts="P10")
        return cls(values=tuple(map(_parse_value, items)), output=_parse_name(f["output"]))


def _parse_value(node: Node) -> float | InputValue:
    if not isinstance(node.value, dict):
        return node.number()
    f = node.fields("input", "scale", "offset")
    return InputValue(
        input=_parse_name(f["input"]), scale=f["scale"].number(), offset=f["offset"].number()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawNoise:
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
            output=_parse_name(f["output"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Calls a graph."""

    op: Literal["run"] = "run"
    component: str
    inputs: Mapping[str, str]
    """Tensor -> array."""
    outputs: Mapping[str, str]
    """Tensor -> new array."""

    def __repr__(self) -> str:
        """Return what it takes and makes in one line."""
        return _line_of(self)

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
    return {name: _parse_name(item) for name, item in sorted(entries.items())}


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
            start=_parse_name(f["start"]),
            next=_parse_name(f["next"]),
            output=f["output"].optional(_parse_name),
        )


def _parse_carried(node: Node) -> dict[str, Carried]:
    entries = node.entries(ARRAY, most=64, names="P4")
    return {name: Carried.parse(item) for name, item in sorted(entries.items())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
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

    def __repr__(self) -> str:
        """Return what it takes and makes in one line."""
        return _line_of(self)

    @classmethod
    def parse(cls, node: Node) -> Sample:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            sampler=f["sampler"].identifier(),
            start=_parse_name(f["start"]),
            stream=f["stream"].integer(0, MAX_STREAM),
            shared_axis=f["shared_axis"].optional(lambda item: item.integer(0, 7)),
            index=_parse_name(f["index"]),
            model_input=_parse_name(f["model_input"]),
            timestep=_parse_name(f["timestep"]),
            carried=_parse_carried(f["carried"]),
            operations=parse_operations(f["operations"]),
            model_output=_parse_name(f["model_output"]),
            output=_parse_name(f["output"]),
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
            output=_parse_name(f["output"]),
            axis=f["axis"].integer(0, 7),
            overlap=f["overlap"].integer(0, MAX_SIZE),
            blend=f["blend"].optional(_parse_blend),
        )
        if (collected.overlap == 0) != (collected.blend is None):
            f["blend"].fail("null without an overlap, otherwise first, last or linear", "P15")
        return collected


def _parse_blend(node: Node) -> Blend:
    return node.choice(BLENDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Carries operations out several times."""

    op: Literal["loop"] = "loop"
    count: int
    index: str
    carried: Mapping[str, Carried] = field(default_factory=dict[str, Carried])
    operations: tuple[Operation, ...]
    collected: Mapping[str, Collected] = field(default_factory=dict[str, Collected])
    """Array of the operations -> how those of all repetitions are joined."""

    def __repr__(self) -> str:
        """Return what it takes and makes in one line."""
        return _line_of(self)

    @classmethod
    def parse(cls, node: Node) -> Loop:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        entries = f["collected"].entries(ARRAY, most=64, names="P4")
        return cls(
            count=f["count"].integer(1, MAX_COUNT, "P7"),
            index=_parse_name(f["index"]),
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
            array=_parse_name(f["array"]),
            scale=_parse_name(scale) if isinstance(scale.value, str) else scale.number(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Adds arrays, each times a number."""

    op: Literal["linear"] = "linear"
    terms: tuple[Term, ...]
    offset: float = 0.0
    output: str

    def __repr__(self) -> str:
        """Return what it takes and makes in one line."""
        return _line_of(self)

    @classmethod
    def parse(cls, node: Node) -> Linear:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        terms = f["terms"].items(least=1, most=16, counts="P12")
        return cls(
            terms=tuple(map(Term.parse, terms)),
            offset=f["offset"].number(),
            output=_parse_name(f["output"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
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
            array=_parse_name(f["array"]),
            axis=f["axis"].integer(0, 7),
            start=Index.parse(f["start"]),
            size=f["size"].integer(1, MAX_SIZE),
            stride=f["stride"].integer(0, MAX_SIZE),
            output=_parse_name(f["output"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Concat:
    """Puts arrays one after the other along one axis."""

    op: Literal["concat"] = "concat"
    arrays: tuple[str, ...]
    axis: int
    output: str

    def __repr__(self) -> str:
        """Return what it takes and makes in one line."""
        return _line_of(self)

    @classmethod
    def parse(cls, node: Node) -> Concat:
        """Read the operation."""
        f = node.fields(*cls.__dataclass_fields__)
        return cls(
            arrays=tuple(map(_parse_name, f["arrays"].items(least=1, most=64, counts="P12"))),
            axis=f["axis"].integer(0, 7),
            output=_parse_name(f["output"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resample:
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
            array=_parse_name(f["array"]),
            method=f["method"].choice(RESAMPLE_METHODS),
            factor=f["factor"].integer(2, 16),
            output=_parse_name(f["output"]),
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
    return _OPERATIONS[_word_of(node, "op").choice(OPERATIONS)].parse(node)


def _line_of(operation: Operation) -> str:
    taken, made = (listed(sorted(find(operation))) for find in (_names_taken, _names_made))
    return f"{type(operation).__name__}({f'{taken} ' if taken else ''}-> {made})"


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


def _names_taken(operation: Operation) -> set[str]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An array of the bundle, as a file of plain numbers."""

    file: FileRef
    dtype: TableDType
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, node: Node) -> Table:
        """Read a table."""
        f = node.fields("file", "dtype", "shape")
        return cls(
            file=FileRef.parse(f["file"]),
            dtype=f["dtype"].choice(TABLE_DTYPES),
            shape=tuple(item.integer(1, MAX_SIZE) for item in f["shape"].items(most=8)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a runtime does to make one clip."""

    name: str
    task: Task
    video: VideoSpec
    inputs: Mapping[str, Input]
    operations: tuple[Operation, ...]
    output: str

    @classmethod
    def parse(cls, node: Node) -> Program:
        """Read a program."""
        f = node.fields(*cls.__dataclass_fields__)
        inputs = f["inputs"].entries(ARRAY, most=32, names="P4")
        return cls(
            name=f["name"].identifier(),
            task=f["task"].choice(TASKS),
            video=VideoSpec.parse(f["video"]),
            inputs={name: parse_input(item) for name, item in sorted(inputs.items())},
            operations=parse_operations(f["operations"]),
            output=_parse_name(f["output"]),
        )

    def __repr__(self) -> str:
        """Return task and clip in one line."""
        video = self.video
        clip = f"{video.frames} frames of {video.width} x {video.height} at {video.fps:g} fps"
        return f"Program({shown(self.name)}, {self.task}, {clip})"

    def walk(self) -> Iterator[Operation]:
        """Go through all operations, those inside of others after these."""
        todo = list(reversed(self.operations))
        while todo:
            operation = todo.pop()
            yield operation
            if isinstance(operation, Sample | Loop):
                todo.extend(reversed(operation.operations))

    def components(self) -> tuple[str, ...]:
        """Return the names of the components that are run, each once, in order."""
        runs = (operation for operation in self.walk() if isinstance(operation, Run))
        return tuple(dict.fromkeys(run.component for run in runs))

    def samplers(self) -> tuple[str, ...]:
        """Return the names of the samplers, each once, in order."""
        samples = (operation for operation in self.walk() if isinstance(operation, Sample))
        return tuple(dict.fromkeys(sample.sampler for sample in samples))

    def tokenizers(self) -> tuple[str, ...]:
        """Return the names of the tokenizers, each once, in order."""
        uses = (operation for operation in self.walk() if isinstance(operation, Tokenize))
        return tuple(dict.fromkeys(use.tokenizer for use in uses))

    def names_used(self) -> set[str]:
        """Return the names of all arrays that operations take, tables among them."""
        names = {self.output}
        for operation in self.walk():
            names |= _names_taken(operation)
        return names

    def input_of(self, kind: InputKind) -> str | None:
        """Return the name of the first input of a kind; None if there is none."""
        return next((name for name, given in self.inputs.items() if given.kind == kind), None)
