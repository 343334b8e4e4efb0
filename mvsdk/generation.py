"""What goes into one generation and what comes out of it: options, progress, timings."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mvsdk.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvsdk.backends import Session
    from mvsdk.sampling import Latents
    from mvsdk.video import Video

MAX_SEED = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """What a caller chooses about one clip."""

    num_inference_steps: int | None = None
    """Steps, one of those in the bundle; None takes the bundle's default."""
    seed: int = 0
    """Chooses the noise; 0 to 2**64 - 1."""

    def __post_init__(self) -> None:
        """Check what can be checked without a bundle."""
        for name, value in (("seed", self.seed), ("num_inference_steps", self.num_inference_steps)):
            try:
                operator.index(0 if value is None else value)
            except TypeError as exc:
                raise InputError(f"{name} is {value!r}; allowed: whole numbers") from exc
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed is {self.seed}; allowed: 0 to 2**64 - 1 ({MAX_SEED})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of one generation went. All in seconds of wall time."""

    backend: str
    """What ran the graphs, and whether its times stand for a phone's."""
    load_s: float
    """Loading graphs, with the check of their files; 0 where all were loaded already."""
    encode_s: float
    """Inside the graphs of the encoders: of the prompt, or of the first picture."""
    denoise_s: tuple[float, ...]
    """Inside the denoiser's graph, one value per step."""
    vae_decoder_s: float
    """Inside the decoder's graph."""
    host_s: float
    """All the rest: tokens or picture, noise, sampler arithmetic, casts at the border of graphs."""
    total_s: float
    """Sum of all the above. What a caller of `stream` does between two steps is not in it."""

    @property
    def sessions_s(self) -> float:
        """Time inside graphs."""
        return self.encode_s + sum(self.denoise_s) + self.vae_decoder_s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """Progress after one step of the sampler."""

    index: int
    """Steps done, 1 to `count`: `index / count` is the progress."""
    count: int
    sigma: float
    """Noise level of `latents`; 0 after the last step."""
    elapsed_s: float
    """Time since the start, without what the caller did between steps."""
    latents: Latents
    """(F, C, h, w), float32, read-only."""
    video: Video | None = None
    """The clip, on the last step."""


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
        self._inside_s: dict[str, list[float]] = {}

    def call(self, component: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph of a component."""
        start = time.perf_counter()
        session = self._session(component)
        self._load_s += time.perf_counter() - start
        before = session.run_s
        outputs = session.run(inputs)
        self._inside_s.setdefault(component, []).append(session.run_s - before)
        return outputs

    def timings(self, describe: Callable[[], str], *, denoiser: str) -> Timings:
        """Stop the watch and add up.

        Args:
            describe: Returns what ran the graphs; called off the clock.
            denoiser: Component that was called every step.
        """
        total_s = self.watch.pause()
        inside_s = sum(sum(calls) for calls in self._inside_s.values())
        encoders = self._inside_s.keys() - {denoiser, "vae_decoder"}
        return Timings(
            backend=describe(),
            load_s=self._load_s,
            encode_s=sum(sum(self._inside_s[name]) for name in encoders),
            denoise_s=tuple(self._inside_s[denoiser]),
            vae_decoder_s=sum(self._inside_s["vae_decoder"]),
            host_s=total_s - self._load_s - inside_s,
            total_s=total_s,
        )
