"""Whether the operations of a program fit together: every array known, of the shape that is needed.

docs/bundle_format.md, section 5. All shapes are known without running anything, so that a runtime
meets no surprise in the middle of a clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Literal, NoReturn

from mvsdk._json import fail, listed, shorten
from mvsdk._prompts import MAX_PROMPT, is_blank
from mvsdk.manifest.operations import (
    MAX_STREAM,
    Carried,
    Collected,
    Concat,
    DrawNoise,
    Index,
    InputValue,
    Linear,
    Loop,
    Numbers,
    Operation,
    Resample,
    Run,
    Sample,
    Take,
    Tokenize,
)
from mvsdk.manifest.programs import (
    MAX_FPS,
    MIN_FPS,
    ClipInput,
    NegativePromptInput,
    NumberInput,
    PictureInput,
    Program,
    PromptInput,
)
from mvsdk.tasks import TASKS

if TYPE_CHECKING:
    from mvsdk._prompts import TokenizerKind
    from mvsdk.manifest import Manifest
    from mvsdk.manifest.components import ValueType

MAX_ELEMENTS = 2**30
"""Elements of the largest array; ten seconds of 768p are 7e8."""
MAX_CARRIED_OUT = 2**20
"""Operations of a clip, steps and repetitions counted."""
MAX_PROGRAM_OPERATIONS = 4096
MAX_NESTING = 4

ArrayType = Literal["float32", "int32", "uint8"]
ARRAY_TYPES: Mapping[ValueType, ArrayType] = {
    "real": "float32",
    "integer": "int32",
    "pixels": "uint8",
}
"""Type of a tensor -> type of the arrays that it takes and gives."""
TAKES_NOTHING: tuple[TokenizerKind, ...] = ("clip_bpe", "t5_unigram")
"""Tokenizers of an empty text."""


@dataclass(frozen=True, slots=True)
class Array:
    """What is known of an array before anything runs."""

    dtype: ArrayType
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Return type and shape."""
        return f"{self.dtype} {self.shape}"


def check_programs(manifest: Manifest) -> None:
    """Check the operations of all programs.

    Raises:
        BundleError: With the first that does not fit.
    """
    for number, program in enumerate(manifest.programs):
        _Checker(manifest, program, f"programs[{number}]").check()


def has_equal_sizes(a: Sequence[int], b: Sequence[int]) -> bool:
    """Return whether two shapes are equal when sizes of 1 are left out (rule P5)."""
    return [size for size in a if size != 1] == [size for size in b if size != 1]


@dataclass
class _Checker:
    """Goes through a program as a runtime would, with shapes in place of arrays."""

    manifest: Manifest
    program: Program
    where: str
    taken: set[str] = field(default_factory=set[str])
    """All names of the program, wherever they are known."""
    used: set[str] = field(default_factory=set[str])
    unneeded: set[str] = field(default_factory=set[str])
    """Names that need not be used."""
    known: dict[str, Array] = field(default_factory=dict[str, Array])
    """Arrays that can be taken here."""
    made: list[set[str]] = field(default_factory=lambda: [set[str]()])
    """Names of `known` that the lists around here have made, the innermost list last."""
    counters: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """What an index may name here -> least and largest value."""
    carried_out: int = 0

    def check(self) -> None:
        """Check all of it."""
        self._check_inputs()
        if sum(1 for _ in self.program.walk()) > MAX_PROGRAM_OPERATIONS:
            most = f"at most {MAX_PROGRAM_OPERATIONS} operations"
            fail(self.where, "a program of more", most, "D12")
        self._start()
        self._check_list(self.program.operations, f"{self.where}.operations", 1, 0)
        self._check_output()
        unused = sorted(self.taken - self.used - self.unneeded)
        if unused:
            fail(self.where, f"a program that does not use {unused[0]}", "no such array", "P16")

    def _check_inputs(self) -> None:
        program = self.program
        allowed = TASKS[program.task].inputs
        kinds = [given.kind for given in program.inputs.values()]
        beside = {"negative_prompt": (0, kinds.count("prompt"))}
        for kind in ("prompt", "negative_prompt", "picture", "clip"):
            least, most = {**allowed, **beside}.get(kind, (0, 0))
            count = kinds.count(kind)
            if not least <= count <= most:
                words = str(least) if least == most else f"{least} or {most}"
                fail(
                    f"{self.where}.inputs",
                    f"an object of {count} of the kind {kind}",
                    f"{words} for {program.task}",
                    "P1",
                )
        fps = program.inputs.get("fps")
        if isinstance(fps, NumberInput) and not MIN_FPS <= fps.minimum <= fps.maximum <= MAX_FPS:
            got = f"a number from {fps.minimum:g} to {fps.maximum:g}"
            fail(f"{self.where}.inputs.fps", got, f"within {MIN_FPS:g} and {MAX_FPS:g}", "P3")
        video = program.video
        if video.frames * video.height * video.width * 3 > MAX_ELEMENTS:
            fail(f"{self.where}.video", "too large", f"at most {MAX_ELEMENTS} values", "G6")

    def _start(self) -> None:
        for name, table in self.manifest.tables.items():
            self.known[name] = Array(table.dtype, table.shape)
        self.taken |= set(self.known)
        self.unneeded |= set(self.known)  # some other program may be the one that needs it
        for name, given in self.program.inputs.items():
            where = f"{self.where}.inputs.{name}"
            self._take_name(name, where)
            match given:
                case PromptInput() | NegativePromptInput():
                    continue
                case PictureInput():
                    array = Array("uint8", (1, given.height, given.width, 3))
                case ClipInput():
                    array = Array("uint8", (given.frames, given.height, given.width, 3))
                case NumberInput():
                    array = Array("float32", (1,))
                    if given.whole:
                        self.counters[name] = int(given.minimum), int(given.maximum)
            self.known[name] = self._sized(array, where)

    def _check_output(self) -> None:
        video, where = self.program.video, f"{self.where}.output"
        array = self._use(self.program.output, where)
        shape = (video.frames, video.height, video.width, 3)
        if array.shape != shape or array.dtype == "int32":
            fail(where, str(array), f"uint8 or float32 {shape}, as video says", "P5")

    def _check_list(
        self, operations: Sequence[Operation], where: str, times: int, depth: int
    ) -> None:
        """Check operations in order; what they make is known from then on."""
        self.carried_out += times * len(operations)
        if self.carried_out > MAX_CARRIED_OUT:
            most = f"at most {MAX_CARRIED_OUT} operations carried out"
            fail(where, "a program of more", most, "P7")
        for number, operation in enumerate(operations):
            self._check_one(operation, f"{where}[{number}]", times, depth)

    def _check_one(self, operation: Operation, where: str, times: int, depth: int) -> None:
        match operation:
            case Tokenize():
                self._tokenize(operation, where)
            case Numbers():
                self._numbers(operation, where)
            case DrawNoise():
                self._define(operation.output, Array("float32", operation.shape), where)
            case Run():
                self._run(operation, where)
            case Sample():
                self._sample(operation, where, times, depth + 1)
            case Loop():
                self._loop(operation, where, times, depth + 1)
            case Linear():
                self._linear(operation, where)
            case Take():
                self._take(operation, where)
            case Concat():
                self._concat(operation, where)
            case Resample():
                self._resample(operation, where)

    # Names

    def _take_name(self, name: str, where: str) -> None:
        if name in self.taken:
            fail(where, f"the second to make {name}", "names that are all different", "P4")
        self.taken.add(name)

    def _define(self, name: str, array: Array, where: str) -> None:
        self._take_name(name, where)
        self.known[name] = self._sized(array, where)
        self.made[-1].add(name)

    def _sized(self, array: Array, where: str) -> Array:
        elements = prod(array.shape)
        if elements > MAX_ELEMENTS:
            most = f"at most {MAX_ELEMENTS}"
            fail(where, f"an array of {elements:.3g} elements", most, "G6")
        return array

    def _use(self, name: str, where: str) -> Array:
        self.used.add(name)
        if name not in self.known:
            fail(where, f"in want of the array {name}", f"one of {listed(self.known)}", "P5")
        return self.known[name]

    def _needs(
        self,
        name: str,
        where: str,
        dtypes: Sequence[ArrayType],
        shape: Sequence[int] | None = None,
        rule: str = "P5",
    ) -> Array:
        """Use an array that has one of the types, and the sizes of a shape."""
        array = self._use(name, where)
        if array.dtype not in dtypes:
            fail(where, f"given {name}, {array}", " or ".join(dtypes), rule)
        if shape is not None and not has_equal_sizes(array.shape, shape):
            fail(where, f"given {name}, {array}", f"the sizes of {tuple(shape)}", rule)
        return array

    # Operations

    def _tokenize(self, operation: Tokenize, where: str) -> None:
        name = operation.input
        given = None if name is None else self.program.inputs.get(name)
        if name is not None:
            self.used.add(name)
            if not isinstance(given, PromptInput | NegativePromptInput):
                fail(f"{where}.input", name, "an input of the kind prompt, or null", "P9")
        spec = self.manifest.tokenizers.get(operation.tokenizer)
        if spec is None:
            self._unknown(f"{where}.tokenizer", operation.tokenizer, "P9")
        own = operation.before + operation.after
        may_be_blank = name is None or isinstance(given, NegativePromptInput)
        if may_be_blank and spec.kind not in TAKES_NOTHING and is_blank(own):
            words = f"a prompt, or words before or after, for {spec.kind}"
            fail(f"{where}.input", f"{name or 'null'}, with no words at all", words, "P9")
        if len(own) > MAX_PROMPT:  # else every prompt would be refused, as if it were too long
            got = f"with after a text of {len(own)} characters"
            fail(f"{where}.before", got, f"at most {MAX_PROMPT}", "P9")
        tokens = Array("int32", (1, spec.max_length))
        self._define(operation.output, tokens, where)
        if operation.mask is not None:
            self._define(operation.mask, tokens, where)
            self.unneeded.add(operation.mask)

    def _unknown(self, where: str, name: str, rule: str) -> NoReturn:
        fail(where, shorten(name), "a name of the bundle", rule)

    def _numbers(self, operation: Numbers, where: str) -> None:
        for value in operation.values:
            if isinstance(value, InputValue):
                self.used.add(value.input)
                if not isinstance(self.program.inputs.get(value.input), NumberInput):
                    fail(where, f"in want of {value.input}", "an input of the kind number", "P10")
        self._define(operation.output, Array("float32", (len(operation.values),)), where)

    def _run(self, operation: Run, where: str) -> None:
        component = self.manifest.components.get(operation.component)
        if component is None:
            self._unknown(f"{where}.component", operation.component, "P11")
        inputs = {tensor.name: tensor for tensor in component.inputs}
        outputs = {tensor.name: tensor for tensor in component.outputs}
        if set(operation.inputs) != set(inputs):
            given = listed(operation.inputs)
            fail(f"{where}.inputs", given, f"exactly {listed(inputs)}", "P11")
        if not set(operation.outputs) <= set(outputs):
            given = listed(operation.outputs)
            fail(f"{where}.outputs", given, f"some of {listed(outputs)}", "P11")
        for name, array in operation.inputs.items():
            tensor = inputs[name]
            place = f"{where}.inputs.{shorten(name)}"
            self._needs(array, place, (ARRAY_TYPES[tensor.type],), tensor.shape, "P11")
        for name, array in operation.outputs.items():
            tensor = outputs[name]
            self._define(array, Array(ARRAY_TYPES[tensor.type], tensor.shape), where)

    def _sample(self, operation: Sample, where: str, times: int, depth: int) -> None:
        self._check_depth(depth, where)
        sampler = self.manifest.samplers.get(operation.sampler)
        if sampler is None:
            self._unknown(f"{where}.sampler", operation.sampler, "P5")
        steps = max(sampler.schedules)
        if operation.stream + steps > MAX_STREAM:
            fail(f"{where}.stream", str(operation.stream), "streams below 2^32", "P13")
        x = self._needs(operation.start, f"{where}.start", ("float32",))
        axis = operation.shared_axis
        if axis is not None and axis >= len(x.shape):
            fail(f"{where}.shared_axis", str(axis), f"an axis of {x}, or null", "P13")
        starts = self._starts(operation, where)
        self.made.append(set())
        self._define(operation.model_input, x, where)
        self._define(operation.timestep, Array("float32", (1,)), where)
        self.unneeded.add(operation.timestep)
        made = self._repeat(operation, where, starts, times * steps, steps, depth)
        place = f"{where}.model_output"
        self._check_made(operation.model_output, made, place, "P13")
        self._needs(operation.model_output, place, ("float32",), x.shape, "P13")
        self._forget(self.made.pop())
        self._carry_out(operation.carried, starts, where)
        self._define(operation.output, x, where)

    def _loop(self, operation: Loop, where: str, times: int, depth: int) -> None:
        self._check_depth(depth, where)
        outputs = [carried.output for carried in operation.carried.values()]
        if not operation.collected and not any(outputs):
            fail(where, "a loop without a result", "something collected or carried out", "P15")
        starts, count = self._starts(operation, where), operation.count
        self.made.append(set())
        made = self._repeat(operation, where, starts, times * count, count, depth)
        joined = [
            (
                f"{where}.collected.{name}",
                collected.output,
                self._join(operation, name, made, where),
            )
            for name, collected in operation.collected.items()
        ]
        self._forget(self.made.pop())
        self._carry_out(operation.carried, starts, where)
        for place, output, array in joined:
            self._define(output, array, place)

    def _join(self, operation: Loop, name: str, made: set[str], where: str) -> Array:
        place = f"{where}.collected.{name}"
        self._check_made(name, made, place, "P15")
        array = self._use(name, place)
        return _collect(operation.collected[name], array, operation.count, place)

    def _starts(self, operation: Sample | Loop, where: str) -> dict[str, Array]:
        """Return what carried arrays are the first time: arrays from before all that is in it."""
        return {
            name: self._use(carried.start, f"{where}.carried.{name}")
            for name, carried in operation.carried.items()
        }

    def _repeat(
        self,
        operation: Sample | Loop,
        where: str,
        starts: Mapping[str, Array],
        times: int,
        count: int,
        depth: int,
    ) -> set[str]:
        """Check what is carried out several times; return the names of what it makes."""
        self._take_name(operation.index, f"{where}.index")
        self.unneeded.add(operation.index)
        for name, start in starts.items():
            self._define(name, start, f"{where}.carried.{name}")
        outer = self.counters
        self.counters = {**outer, operation.index: (0, count - 1)}
        self.made.append(set())
        self._check_list(operation.operations, f"{where}.operations", times, depth)
        made = self.made.pop()
        self.made[-1] |= made
        self.counters = outer
        for name, carried in operation.carried.items():
            place = f"{where}.carried.{name}"
            self._check_made(carried.next, made, place, "P14")
            start = starts[name]
            self._needs(carried.next, place, (start.dtype,), start.shape, "P14")
        return made

    def _forget(self, names: set[str]) -> None:
        for name in names:
            del self.known[name]

    def _carry_out(
        self, carried: Mapping[str, Carried], starts: Mapping[str, Array], where: str
    ) -> None:
        for name, item in carried.items():
            if item.output is not None:
                self._define(item.output, starts[name], where)

    def _check_made(self, name: str, made: set[str], where: str, rule: str) -> None:
        if name not in made:
            fail(where, f"in want of {name}", f"what its operations make: {listed(made)}", rule)

    def _check_depth(self, depth: int, where: str) -> None:
        if depth > MAX_NESTING:
            fail(where, "nested too deeply", f"at most {MAX_NESTING} loops and samplers", "P7")

    def _linear(self, operation: Linear, where: str) -> None:
        shape: tuple[int, ...] | None = None
        for term in operation.terms:
            if isinstance(term.scale, str):
                self._needs(term.scale, where, ("float32",), ())
            array = self._needs(term.array, where, ("float32", "uint8"), shape)
            shape = array.shape if shape is None else shape
        self._define(operation.output, Array("float32", shape or ()), where)

    def _take(self, operation: Take, where: str) -> None:
        array = self._use(operation.array, where)
        size = self._axis(array, operation.axis, where)
        least, most = self._range(operation.start, f"{where}.start")
        last = most + (operation.size - 1) * operation.stride
        if least < 0 or last >= size:
            fail(f"{where}.start", f"places {least} to {last}", f"0 to {size - 1}", "P8")
        shape = _replaced(array.shape, operation.axis, operation.size)
        self._define(operation.output, Array(array.dtype, shape), where)

    def _axis(self, array: Array, axis: int, where: str) -> int:
        if axis >= len(array.shape):
            fail(where, f"the axis {axis} of {array}", "an axis that is there", "P12")
        return array.shape[axis]

    def _range(self, index: Index, where: str) -> tuple[int, int]:
        least = most = index.start
        for name, step in index.steps.items():
            if name not in self.counters:
                known = listed(self.counters) or "none is here"
                fail(where, f"in want of {name}", f"a counter or a whole number: {known}", "P8")
            self.used.add(name)
            ends = [step * bound for bound in self.counters[name]]
            least, most = least + min(ends), most + max(ends)
        return least, most

    def _concat(self, operation: Concat, where: str) -> None:
        arrays = [self._use(name, where) for name in operation.arrays]
        first, axis = arrays[0], operation.axis
        sizes = [self._axis(array, axis, where) for array in arrays]
        for array in arrays:
            same = _replaced(array.shape, axis, 1) == _replaced(first.shape, axis, 1)
            if array.dtype != first.dtype or not same:
                fail(where, f"given {array}", f"{first} but for the axis {axis}", "P5")
        joined = Array(first.dtype, _replaced(first.shape, axis, sum(sizes)))
        self._define(operation.output, joined, where)

    def _resample(self, operation: Resample, where: str) -> None:
        array = self._needs(operation.array, where, ("float32",))
        if len(array.shape) < 2:
            fail(where, f"given {array}", "an array of two axes or more", "P5")
        height, width = array.shape[-2:]
        factor = operation.factor
        if operation.method == "mean" and (height % factor or width % factor):
            fail(where, f"given {array}", f"sizes that {factor} divides", "P5")
        if operation.method == "mean":
            sizes = (height // factor, width // factor)
        else:
            sizes = (height * factor, width * factor)
        self._define(operation.output, Array("float32", (*array.shape[:-2], *sizes)), where)


def _collect(collected: Collected, array: Array, count: int, where: str) -> Array:
    axis, overlap = collected.axis, collected.overlap
    if axis >= len(array.shape):
        fail(where, f"the axis {axis} of {array}", "an axis that is there", "P15")
    size = array.shape[axis]
    if 2 * overlap > size:
        fail(where, f"an overlap of {overlap}", f"at most half of {size}", "P15")
    if collected.blend == "linear" and array.dtype != "float32":
        fail(where, f"linear of {array}", "float32", "P15")
    total = count * size - (count - 1) * overlap
    return Array(array.dtype, _replaced(array.shape, axis, total))


def _replaced(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])
