"""Programs of a manifest: what a caller gives, and what a runtime makes of it.

docs/bundle_format.md, section 5. Import these names from `mvsdk.manifest`; the operations have a
module of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from mvsdk._arguments import shown
from mvsdk._json import Node, fail
from mvsdk.manifest.components import FileRef
from mvsdk.manifest.operations import (
    ARRAY,
    MAX_SIZE,
    Loop,
    Operation,
    Run,
    Sample,
    Tokenize,
    names_taken,
    parse_name,
    parse_operations,
    word_of,
)
from mvsdk.tasks import TASKS as _TASKS
from mvsdk.tasks.spec import InputKind

if TYPE_CHECKING:
    from mvsdk.manifest.samplers import Sampler

Task = str
"""A name of `mvsdk.tasks.TASKS`."""
TableDType = Literal["float32", "int32", "uint8"]

TASKS: tuple[Task, ...] = tuple(_TASKS)
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)
TABLE_DTYPES: tuple[TableDType, ...] = get_args(TableDType)

MAX_FRAMES = 4096
"""Frames of the longest clip, that goes in or comes out."""
MAX_SIDE = 8192
"""Rows or columns of the largest."""
MIN_FPS = 0.1
"""Clips of fewer frames per second are beyond what the containers can time."""
MAX_FPS = 240.0


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
            frames=f["frames"].integer(1, MAX_FRAMES),
            height=f["height"].integer(1, MAX_SIDE),
            width=f["width"].integer(1, MAX_SIDE),
            fps=f["fps"].number(MIN_FPS, MAX_FPS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptInput:
    """A text of the caller."""

    kind: Literal["prompt"] = "prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativePromptInput:
    """A text of the caller that says what a clip shall not show; empty unless it is given."""

    kind: Literal["negative_prompt"] = "negative_prompt"


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


Input: TypeAlias = PromptInput | NegativePromptInput | PictureInput | ClipInput | NumberInput


def parse_input(node: Node) -> Input:
    """Read an input of a program."""
    kind: InputKind = word_of(node, "kind").choice(INPUT_KINDS)
    match kind:
        case "prompt":
            node.fields("kind")
            return PromptInput()
        case "negative_prompt":
            node.fields("kind")
            return NegativePromptInput()
        case "picture":
            f = node.fields("kind", "height", "width")
            return PictureInput(
                height=f["height"].integer(1, MAX_SIDE),
                width=f["width"].integer(1, MAX_SIDE),
            )
        case "clip":
            f = node.fields("kind", "frames", "height", "width", "fps")
            return ClipInput(
                frames=f["frames"].integer(1, MAX_FRAMES),
                height=f["height"].integer(1, MAX_SIDE),
                width=f["width"].integer(1, MAX_SIDE),
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
            output=parse_name(f["output"]),
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

    @property
    def prompt_tokenizer(self) -> str | None:
        """Name of the first tokenizer that reads what a caller gives; None if none does."""
        uses = (operation for operation in self.walk() if isinstance(operation, Tokenize))
        return next((use.tokenizer for use in uses if use.input is not None), None)

    def names_used(self) -> set[str]:
        """Return the names of all arrays that operations take, tables among them."""
        names = {self.output}
        for operation in self.walk():
            names |= names_taken(operation)
        return names

    def input_of(self, kind: InputKind) -> str | None:
        """Return the name of the first input of a kind; None if there is none."""
        return next((name for name, given in self.inputs.items() if given.kind == kind), None)


def count_calls(
    operations: Sequence[Operation],
    samplers: Mapping[str, Sampler],
    num_inference_steps: int | None = None,
) -> Counter[str]:
    """Return how often each component is called.

    Args:
        operations: Of a program.
        samplers: By name.
        num_inference_steps: Of samplers that are adjustable; None for the default of each.
    """
    calls: Counter[str] = Counter()
    for operation in operations:
        if isinstance(operation, Run):
            calls[operation.component] += 1
        elif isinstance(operation, Sample | Loop):
            if isinstance(operation, Loop):
                times = operation.count
            else:
                sampler = samplers[operation.sampler]
                chosen = num_inference_steps if sampler.adjustable else None
                times = sampler.default_steps if chosen is None else chosen
            inner = count_calls(operation.operations, samplers, num_inference_steps)
            for name, count in inner.items():
                calls[name] += times * count
    return calls
