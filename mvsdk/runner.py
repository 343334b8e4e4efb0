"""Carries out a program of a manifest: the one place where a clip is made, whatever the model.

docs/bundle_format.md, section 5. A runner knows graphs only as something to call, so that the
pipeline (compiled graphs), the toolchain's reference (networks of PyTorch) and tests share it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mvsdk.errors import BackendError, InputError
from mvsdk.manifest.operations import (
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
from mvsdk.manifest.programs import NegativePromptInput, NumberInput, PromptInput
from mvsdk.noise import initial_latents
from mvsdk.sampling import sample_schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvsdk.manifest import Manifest, Program, Sampler
    from mvsdk.sampling import Latents
    from mvsdk.tokenizers import Tokens

Arrays = Mapping[str, "NDArray[Any]"]
Call = Callable[[str, Arrays], Arrays]
"""(component, inputs by tensor) -> outputs by tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledStep:
    """What is known after a step of a sampler."""

    index: int
    """Steps done of all that a clip takes, from 1."""
    sigma: float
    latents: Latents
    """Float32, read-only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a program is carried out with."""

    call: Call
    tokens: Callable[[str, str], Tokens]
    """(tokenizer, text) -> its tokens."""
    table: Callable[[str], NDArray[Any]]
    """Name -> array of the bundle."""


class Runner:
    """One clip of a program: what was chosen is bound, and `run` makes it."""

    def __init__(
        self,
        manifest: Manifest,
        program: Program,
        resources: Resources,
        *,
        values: Mapping[str, str | float | NDArray[Any]],
        seed: int,
        num_inference_steps: int | None = None,
    ) -> None:
        """Bind a program to what a caller gave.

        Args:
            manifest: Has the samplers.
            program: One of the manifest's.
            resources: Graphs, tokenizers and tables.
            values: One for each input: text, array (uint8) or number, as `mvsdk.inputs` prepares.
            seed: Chooses the noise, 0 to 2**64 - 1.
            num_inference_steps: For samplers that are adjustable; None takes their default.

        Raises:
            InputError: If the bundle has no such number of steps.
        """
        self.program = program
        self._manifest = manifest
        self._resources = resources
        self._values = dict(values)
        self._seed = seed
        self._steps = {
            name: choose_steps(manifest.samplers[name], num_inference_steps)
            for name in program.samplers()
        }
        check_steps(manifest, program, num_inference_steps)
        self._done = 0
        self.step: int | None = None
        """Index of the sampler's step that is being carried out; None outside of all."""
        self.output: NDArray[Any] = np.empty(0, np.float32)
        """What came out, before bytes are made of it."""

    @property
    def step_count(self) -> int:
        """Steps of a clip, repetitions counted, those inside of other samplers not."""
        return self._count(self.program.operations)

    @property
    def num_inference_steps(self) -> int | None:
        """Steps of the first sampler that a caller can choose them for; None if there is none."""
        for name, steps in self._steps.items():
            if self._manifest.samplers[name].adjustable:
                return steps
        return None

    def run(self) -> Generator[SampledStep, None, NDArray[np.uint8]]:
        """Make the clip; yield after every step of a sampler.

        Returns:
            Frames, RGB, uint8, (F, H, W, 3).

        Raises:
            BackendError: If a graph cannot be run, or gives nan or infinity.
        """
        self._done = 0
        known = self._start()
        yield from self._carry_out(self.program.operations, known, {}, ())
        self.output = known[self.program.output]
        return to_bytes(self.output)

    def _start(self) -> dict[str, NDArray[Any]]:
        known: dict[str, NDArray[Any]] = {}
        for name, given in self.program.inputs.items():
            value = self._values[name]
            if isinstance(given, NumberInput):
                known[name] = np.array([value], np.float32)
            elif not isinstance(given, PromptInput | NegativePromptInput):
                known[name] = np.asarray(value)
        for name in sorted(self.program.names_used() & set(self._manifest.tables)):
            known[name] = self._resources.table(name)
        return known

    def _count(self, operations: Sequence[Operation]) -> int:
        count = 0
        for operation in operations:
            if isinstance(operation, Sample):
                count += self._steps[operation.sampler]
            elif isinstance(operation, Loop):
                count += operation.count * self._count(operation.operations)
        return count

    def _carry_out(
        self,
        operations: Sequence[Operation],
        known: dict[str, NDArray[Any]],
        counters: Mapping[str, int],
        window: tuple[tuple[int, int], ...],
    ) -> Generator[SampledStep, None, None]:
        """Carry operations out in order; `known` gets what they make.

        Args:
            operations: What to do.
            known: Arrays by name.
            counters: Of the loops and samplers around.
            window: (index, count) of each loop around, the outermost first.
        """
        for operation in operations:
            match operation:
                case Sample():
                    yield from self._sample(operation, known, counters, window)
                case Loop():
                    yield from self._loop(operation, known, counters, window)
                case Run():
                    known.update(self._run(operation, known))
                case Tokenize():
                    self._tokenize(operation, known)
                case Numbers():
                    known[operation.output] = self._numbers(operation)
                case DrawNoise():
                    known[operation.output] = self._noise(operation.shape, operation.stream, window)
                case Linear():
                    known[operation.output] = _linear(operation, known)
                case Take():
                    start = self._place(operation.start, counters)
                    known[operation.output] = _take(operation, known[operation.array], start)
                case Concat():
                    arrays = [known[name] for name in operation.arrays]
                    known[operation.output] = np.concatenate(arrays, axis=operation.axis)
                case Resample():
                    known[operation.output] = _resample(operation, known[operation.array])

    def _run(self, operation: Run, known: Arrays) -> dict[str, NDArray[Any]]:
        component = self._manifest.components[operation.component]
        shapes = {tensor.name: tensor.shape for tensor in component.inputs}
        inputs = {
            tensor: known[array].reshape(shapes[tensor])
            for tensor, array in operation.inputs.items()
        }
        outputs = self._resources.call(operation.component, inputs)
        return {array: outputs[tensor] for tensor, array in operation.outputs.items()}

    def _tokenize(self, operation: Tokenize, known: dict[str, NDArray[Any]]) -> None:
        tokens = self._resources.tokens(operation.tokenizer, text_of(operation, self._values))
        known[operation.output] = tokens.ids
        if operation.mask is not None:
            known[operation.mask] = tokens.mask

    @np.errstate(over="ignore")
    def _numbers(self, operation: Numbers) -> NDArray[np.float32]:
        values = [
            float(self._values[value.input]) * value.scale + value.offset
            if isinstance(value, InputValue)
            else value
            for value in operation.values
        ]
        return np.array(values, np.float64).astype(np.float32)

    def _noise(
        self, shape: Sequence[int], stream: int, window: Sequence[tuple[int, int]]
    ) -> Latents:
        number = 0
        for index, count in window:
            number = number * count + index
        return initial_latents(self._seed, shape, stream=stream, window=number)

    def _fresh_noise(
        self,
        operation: Sample,
        shape: tuple[int, ...],
        step: int,
        window: Sequence[tuple[int, int]],
    ) -> Latents:
        axis, stream = operation.shared_axis, operation.stream + step
        if axis is None:
            return self._noise(shape, stream, window)
        shared = self._noise((*shape[:axis], 1, *shape[axis + 1 :]), stream, window)
        return np.repeat(shared, shape[axis], axis=axis)

    def _place(self, index: Index, counters: Mapping[str, int]) -> int:
        place = index.start
        for name, step in index.steps.items():
            count = counters[name] if name in counters else int(float(self._values[name]))
            place += step * count
        return place

    def _loop(
        self,
        operation: Loop,
        known: dict[str, NDArray[Any]],
        counters: Mapping[str, int],
        window: tuple[tuple[int, int], ...],
    ) -> Generator[SampledStep, None, None]:
        carried = {name: known[item.start] for name, item in operation.carried.items()}
        pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in operation.collected}
        for index in range(operation.count):
            inside = {**known, **carried}
            place = (*window, (index, operation.count))
            inner = {**counters, operation.index: index}
            yield from self._carry_out(operation.operations, inside, inner, place)
            carried = _next(operation.carried, inside)
            for name, items in pieces.items():
                items.append(inside[name])
        known.update(_carried_out(operation.carried, carried))
        for name, collected in operation.collected.items():
            known[collected.output] = _collect(collected, pieces[name])

    def _sample(
        self,
        operation: Sample,
        known: dict[str, NDArray[Any]],
        counters: Mapping[str, int],
        window: tuple[tuple[int, int], ...],
    ) -> Generator[SampledStep, None, None]:
        sampler = self._manifest.samplers[operation.sampler]
        steps = self._steps[operation.sampler]
        schedule = sampler.schedules[steps]
        x = _scaled(known[operation.start], sampler.init_noise_sigma)
        carried = {name: known[item.start] for name, item in operation.carried.items()}

        def denoise(model_input: Latents, index: int) -> Latents:
            nonlocal carried
            timestep = np.array([schedule.timesteps[index]], np.float32)
            own = {operation.model_input: model_input, operation.timestep: timestep}
            inside = {**known, **carried, **own}
            inner = {**counters, operation.index: index}
            outer, self.step = self.step, index
            for _ in self._carry_out(operation.operations, inside, inner, window):
                pass  # steps of a sampler inside of this one are part of this step
            self.step = outer
            carried = _next(operation.carried, inside)
            return inside[operation.model_output].reshape(x.shape)

        trajectory = sample_schedule(
            sampler,
            steps,
            denoise,
            x,
            lambda step: self._fresh_noise(operation, x.shape, step, window),
        )
        before = self._done
        for index, latents in enumerate(_quietly(trajectory), start=1):
            self._check_finite(latents, index, steps)
            latents.flags.writeable = False
            self._done = before + index
            known[operation.output] = latents
            sigma = schedule.sigmas[index]
            yield SampledStep(index=self._done, sigma=sigma, latents=latents)
        known.update(_carried_out(operation.carried, carried))

    def _check_finite(self, latents: Latents, index: int, count: int) -> None:
        if not np.isfinite(latents).all():
            names = " or ".join(_denoisers(self._manifest, self.program))
            raise BackendError(
                f"{names} gave nan or infinite values at step {index} of {count}; "
                "run mvsdk verify on the bundle, or choose another precision",
                rule="S5",
            )


def text_of(operation: Tokenize, values: Mapping[str, Any]) -> str:
    """Return the text that an operation makes tokens of, or an empty one."""
    prompt = "" if operation.input is None else str(values[operation.input])
    return operation.before + prompt + operation.after


def choose_steps(sampler: Sampler, num_inference_steps: int | None) -> int:
    """Return how many steps a sampler takes.

    Raises:
        InputError: If it has no schedule for that number.
    """
    if num_inference_steps is None or not sampler.adjustable:
        return sampler.default_steps
    if num_inference_steps not in sampler.schedules:
        known = ", ".join(map(str, sampler.schedules))
        raise InputError(
            f"num_inference_steps is {num_inference_steps}; this bundle has: {known}; "
            "choose one, or export with --steps",
            rule="S4",
        )
    return num_inference_steps


def check_steps(manifest: Manifest, program: Program, num_inference_steps: int | None) -> None:
    """Check that a number of steps is for some sampler.

    Raises:
        InputError: If one is given, and no sampler of the program is adjustable.
    """
    samplers = [manifest.samplers[name] for name in program.samplers()]
    if num_inference_steps is not None and not any(sampler.adjustable for sampler in samplers):
        raise InputError(
            f"num_inference_steps is {num_inference_steps}; this bundle's numbers of steps are "
            "fixed; leave it out",
            rule="S4",
        )


def to_bytes(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """Make bytes of real pixels, 0 to 255: rounded, halves to even, and clipped.

    Raises:
        BackendError: If a value is not finite.
    """
    if frames.dtype == np.uint8:
        return frames
    if not np.isfinite(frames).all():
        raise BackendError(
            "the frames have nan or infinite values; run mvsdk verify on the bundle, or choose "
            "another precision",
            rule="G17",
        )
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _quietly(trajectory: Iterator[Latents]) -> Iterator[Latents]:
    """Compute steps without warnings of infinity and nan, which are refused after each."""
    while True:
        with np.errstate(over="ignore", invalid="ignore"):
            latents = next(trajectory, None)
        if latents is None:
            return
        yield latents


def _denoisers(manifest: Manifest, program: Program) -> list[str]:
    roles = ("denoiser", "interpolator", "upscaler")
    names = [x for x in program.components() if manifest.components[x].role in roles]
    return names or list(program.components())


def _next(carried: Mapping[str, Carried], inside: Arrays) -> dict[str, NDArray[Any]]:
    return {name: inside[item.next].reshape(inside[name].shape) for name, item in carried.items()}


def _carried_out(carried: Mapping[str, Carried], last: Arrays) -> dict[str, NDArray[Any]]:
    return {item.output: last[name] for name, item in carried.items() if item.output is not None}


@np.errstate(over="ignore")
def _scaled(array: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    return array * np.float32(factor)


@np.errstate(over="ignore", invalid="ignore")
def _linear(operation: Linear, known: Arrays) -> NDArray[np.float32]:
    total: NDArray[np.float32] | None = None
    for term in operation.terms:
        factor = known[term.scale] if isinstance(term.scale, str) else np.float32(term.scale)
        array = known[term.array].astype(np.float32, copy=False)
        summand = array * np.float32(np.asarray(factor).reshape(()))
        total = summand if total is None else total + summand.reshape(total.shape)
    if total is None:
        raise ValueError("a sum of nothing")  # P12 forbids it
    return total + np.float32(operation.offset) if operation.offset else total


def _take(operation: Take, array: NDArray[Any], start: int) -> NDArray[Any]:
    places = start + operation.stride * np.arange(operation.size)
    return array.take(places, axis=operation.axis)


@np.errstate(over="ignore", invalid="ignore")
def _resample(operation: Resample, array: NDArray[np.float32]) -> NDArray[np.float32]:
    factor = operation.factor
    if operation.method == "nearest":
        return array.repeat(factor, axis=-2).repeat(factor, axis=-1)
    total = array[..., ::factor, ::factor].copy()
    for place in range(1, factor * factor):  # in row order, each sum rounded
        row, column = divmod(place, factor)
        total += array[..., row::factor, column::factor]
    return total * np.float32(1.0 / (factor * factor))


def _collect(collected: Collected, pieces: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Put pieces one after the other; each begins `overlap` places before the end of the last."""
    if len(pieces) == 1:
        return pieces[0]
    axis, overlap = collected.axis, collected.overlap
    if overlap == 0:
        return np.concatenate(pieces, axis=axis)
    parts = [pieces[0]]
    for piece in pieces[1:]:
        last = parts.pop()
        cut = last.shape[axis] - overlap
        head, tail = np.split(last, [cut], axis=axis)
        common, rest = np.split(piece, [overlap], axis=axis)
        parts += [head, _blend(collected, tail, common), rest]
    return np.concatenate(parts, axis=axis)


@np.errstate(over="ignore", invalid="ignore")
def _blend(collected: Collected, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    if collected.blend == "first":
        return a
    if collected.blend == "last":
        return b
    shape = [1] * a.ndim
    shape[collected.axis] = collected.overlap
    w = (np.arange(collected.overlap, dtype=np.float64) + 1) / (collected.overlap + 1)
    rising = w.astype(np.float32).reshape(shape)
    falling = (1 - w).astype(np.float32).reshape(shape)
    return falling * a + rising * b
