"""What goes into one generation and what comes out of it: options, progress, timings."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mvsdk._arguments import (
    check_callable,
    check_kind,
    check_number,
    check_text,
    check_whole_number,
)
from mvsdk.errors import BackendError
from mvsdk.runner import SampledStep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvsdk.backends import Session
    from mvsdk.manifest import Manifest
    from mvsdk.runner import Runner
    from mvsdk.sampling import Latents
    from mvsdk.video import Video

MAX_SEED = 2**64 - 1
_SEEDS = f"whole numbers, 0 to 2**64 - 1 ({MAX_SEED})"
_MANY = 1 << 64
_LONG_S = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """What a caller chooses about one clip."""

    num_inference_steps: int | None = None
    """Steps, one of those in the bundle; None takes the bundle's default."""
    seed: int = 0
    """Chooses the noise; 0 to 2**64 - 1."""

    def __post_init__(self) -> None:
        """Check what can be checked without a bundle."""
        seed = check_whole_number("seed", self.seed, low=0, high=MAX_SEED, allowed=_SEEDS)
        object.__setattr__(self, "seed", seed)
        if self.num_inference_steps is not None:
            # Which numbers there are is the bundle's to say.
            steps = check_whole_number(
                "num_inference_steps",
                self.num_inference_steps,
                low=-_MANY,
                high=_MANY,
                allowed="whole numbers, those that the bundle has",
            )
            object.__setattr__(self, "num_inference_steps", steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of one generation went. All in seconds of wall time."""

    backend: str
    """What ran the graphs, and whether its times stand for a phone's."""
    load_s: float
    """Loading graphs, with the check of their files; 0 where all were loaded already."""
    encode_s: float
    """Inside the graphs that are neither denoisers nor decoders, such as those of the prompt."""
    denoise_s: tuple[float, ...]
    """Inside the graphs of the denoisers, one value per step."""
    vae_decoder_s: float
    """Inside the decoder's graph."""
    host_s: float
    """All the rest: tokens or picture, noise, sampler arithmetic, casts for the graphs."""
    total_s: float
    """Sum of all the above. What a caller of `stream` does between two steps is not in it."""

    def __post_init__(self) -> None:
        """Check the types."""
        check_text("backend", self.backend)
        check_kind("denoise_s", self.denoise_s, tuple, how="one value per step")
        for name in ("load_s", "encode_s", "vae_decoder_s", "host_s", "total_s"):
            # The rest of a sum may be less than nothing by what clocks round off.
            check_number(name, getattr(self, name), low=-_LONG_S, high=_LONG_S)
        for index, value in enumerate(self.denoise_s):
            check_number(f"denoise_s[{index}]", value, low=-_LONG_S, high=_LONG_S)

    @property
    def sessions_s(self) -> float:
        """Time inside graphs."""
        return self.encode_s + sum(self.denoise_s) + self.vae_decoder_s

    def __repr__(self) -> str:
        """Return the total and its largest parts in one line."""
        return (
            f"Timings({self.total_s:.3g} s: load {self.load_s:.3g}, encode {self.encode_s:.3g}, "
            f"denoise {sum(self.denoise_s):.3g}, decode {self.vae_decoder_s:.3g}, "
            f"host {self.host_s:.3g}; {self.backend[:60]})"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """Progress after one step of the sampler.

    The last one carries the clip:

        for step in pipeline.stream("a rocket flying left"):
            print(step)
            if step.video is not None:
                step.video.save("rocket.mp4")
    """

    index: int
    """Steps done, 1 to `count`: `index / count` is the progress."""
    count: int
    sigma: float
    """Noise level of `latents`; 0 after the last step."""
    elapsed_s: float
    """Time since the start, without what the caller did between steps."""
    latents: Latents
    """Float32, read-only; mostly (F, C, h, w)."""
    video: Video | None = None
    """The clip, on the last step; None before."""

    def __post_init__(self) -> None:
        """Check what its line shows."""
        check_whole_number("count", self.count, low=1, high=_MANY)
        check_whole_number("index", self.index, low=1, high=self.count)
        check_number("sigma", self.sigma, low=0.0, high=float("inf"))
        check_number("elapsed_s", self.elapsed_s, low=0.0, high=_LONG_S)

    def __repr__(self) -> str:
        """Return how far it is in one line, without the arrays."""
        clip = "" if self.video is None else f", {self.video!r}"
        done = f"{self.index} of {self.count}, sigma {self.sigma:g}"
        return f"Step({done}, {self.elapsed_s:.2f} s{clip})"


class Stopwatch:
    """Counts working time from its making; stands still between `pause` and `resume`."""

    def __init__(self) -> None:
        """Start counting."""
        self._counted_s = 0.0
        self._since_s: float | None = time.perf_counter()

    def pause(self) -> float:
        """Stop counting and return what was counted in all."""
        if self._since_s is not None:
            self._counted_s += time.perf_counter() - self._since_s
            self._since_s = None
        return self._counted_s

    def resume(self) -> None:
        """Count on."""
        self._since_s = time.perf_counter()


_DENOISERS = ("denoiser", "interpolator", "upscaler")


class Work:
    """Calls the graphs of one generation and notes how long each took."""

    def __init__(self, session: Callable[[str], Session], watch: Stopwatch) -> None:
        """Start with nothing noted.

        Args:
            session: Returns the loaded graph of a component, and loads it if need be.
            watch: Counts the time of the whole generation.
        """
        self.watch = watch
        self._session = session
        self._load_s = 0.0
        self._inside_s: list[dict[str, float]] = [{}]
        """For each step, component -> seconds in its graph; behind the last, the rest."""

    def call(self, component: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph of a component."""
        start = time.perf_counter()
        session = self._session(component)
        self._load_s += time.perf_counter() - start
        before = session.run_s
        outputs = session.run(inputs)
        step = self._inside_s[-1]
        step[component] = step.get(component, 0.0) + session.run_s - before
        return outputs

    def end_step(self) -> None:
        """Note that a step of a sampler is done."""
        self._inside_s.append({})

    def timings(self, describe: Callable[[], str], manifest: Manifest) -> Timings:
        """Stop the watch and add up.

        Args:
            describe: Returns what ran the graphs; called off the clock.
            manifest: Says what each component is for.
        """
        total_s = self.watch.pause()
        roles = {name: part.role for name, part in manifest.components.items()}
        denoise_s = [_sum(step, roles, _DENOISERS) for step in self._inside_s]
        decode_s = sum(_sum(step, roles, ("vae_decoder",)) for step in self._inside_s)
        inside_s = sum(sum(step.values()) for step in self._inside_s)
        # What a denoiser does behind the last step belongs to that; without a sampler it is one.
        *steps_s, rest_s = denoise_s
        if steps_s:
            steps_s[-1] += rest_s
        elif rest_s:
            steps_s = [rest_s]
        return Timings(
            backend=describe(),
            load_s=self._load_s,
            encode_s=inside_s - sum(denoise_s) - decode_s,
            denoise_s=tuple(steps_s),
            vae_decoder_s=decode_s,
            host_s=total_s - self._load_s - inside_s,
            total_s=total_s,
        )


def _sum(step: Mapping[str, float], roles: Mapping[str, str], wanted: tuple[str, ...]) -> float:
    return sum((spent_s for name, spent_s in step.items() if roles[name] in wanted), 0.0)


def make_steps(
    runner: Runner,
    work: Work,
    video: Callable[[NDArray[Any]], Video],
    end: Callable[[], object],
) -> Generator[Step, None, None]:
    """Carry a program out step by step; the last step is held back until the clip is there.

    Args:
        runner: Does it.
        work: Counts the time, which stands still while the caller has a step.
        video: Makes the clip of its frames.
        end: Called when all is done, or the caller asks for no more.
    """
    count = max(1, runner.step_count)
    work.watch.resume()
    steps = runner.run()
    last = SampledStep(index=count, sigma=0.0, latents=np.empty(0, np.float32))
    try:
        while True:
            try:
                last = next(steps)
            except StopIteration as stop:
                clip = video(stop.value)
                break
            work.end_step()
            if last.index < count:
                yield _step(last, count, work.watch.pause())
                work.watch.resume()
        total_s = 0.0 if clip.timings is None else clip.timings.total_s
        yield _step(last, count, total_s, clip)
    finally:
        steps.close()
        end()


def _step(step: SampledStep, count: int, elapsed_s: float, video: Video | None = None) -> Step:
    return Step(
        index=step.index,
        count=count,
        sigma=step.sigma,
        elapsed_s=elapsed_s,
        latents=step.latents,
        video=video,
    )


def check_on_step(on_step: object) -> None:
    """Check what is to be called after every step.

    Raises:
        InputError: If it cannot be called.
    """
    if on_step is not None:
        check_callable("on_step", on_step)


def run_to_the_end(
    steps: Generator[Step, None, None], on_step: Callable[[Step], object] | None
) -> Video:
    """Take all steps; return the clip of the last.

    Args:
        steps: Closed at the end, whatever happens.
        on_step: Called with each; an exception of its own ends the generation.
    """
    video: Video | None = None
    try:
        for step in steps:
            video = step.video
            if on_step is not None:
                on_step(step)
    finally:
        steps.close()
    if video is None:
        raise BackendError("the sampler ended without a clip; this is a fault of mvsdk")
    return video
