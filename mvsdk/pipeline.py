"""From a prompt to a clip: encode -> sample -> decode, as the bundle's manifest says.

    pipeline = mvsdk.load("sticker.mvbundle")
    video = pipeline.generate("a rocket flying left", seed=7)
    video.save("rocket.mp4")

The sampler arithmetic is all that happens outside the graphs. Equal seeds give equal noise in every
language (docs/noise.md), and equal bytes from one backend.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mvsdk.backends import select
from mvsdk.bundle import Bundle
from mvsdk.errors import BackendError, BundleError, InputError
from mvsdk.generation import GenerateOptions, Step, Stopwatch, Work
from mvsdk.noise import initial_latents
from mvsdk.sampling import Denoiser, Latents, Noise, sample
from mvsdk.tokenizer import Tokenizer, WordPiece, check_prompt
from mvsdk.video import Video

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from numpy.typing import NDArray

    from mvsdk.backends import Backend, Selection, Session
    from mvsdk.manifest import Manifest, Sampler

Memory = Literal["fast", "low"]


def load(
    path: str | os.PathLike[str],
    *,
    backend: Backend | None = None,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    memory: Memory = "fast",
) -> Pipeline:
    """Open a bundle and choose what runs it; graphs are loaded when they are first needed.

    Args:
        path: The `NAME.mvbundle` folder.
        backend: Runs the graphs; None takes ONNX Runtime or QNN, whichever the choice below needs.
        target: "onnx" or "snapdragon"; None takes the first that runs here, onnx before snapdragon.
        chip: Chip that the graphs were compiled for, by slug or marketing name; None takes any.
        precision: Such as "fp32" or "w8a16"; None takes the first of fp32, fp16, w8a16 on onnx, and
            the other way round on snapdragon.
        memory: "fast" keeps graphs loaded for the next clip. "low" lets each go before the next is
            loaded: the peak is that of the largest, and every clip pays for loading again.

    Raises:
        BundleError: If the bundle is missing, damaged or unsafe.
        InputError: If the bundle holds no such variant, or `memory` is unknown.
        BackendError: If nothing here can run the variants that are left.
    """
    if memory not in ("fast", "low"):
        raise InputError(f"memory is {memory!r}; allowed: fast, low")
    bundle = Bundle.open(path)
    choice = select(bundle, backend=backend, target=target, chip=chip, precision=precision)
    return Pipeline(bundle, choice, memory=memory)


class Pipeline:
    """A model that is ready to make clips. One thread at a time; make one per thread instead."""

    def __init__(self, bundle: Bundle, selection: Selection, *, memory: Memory = "fast") -> None:
        """Use `mvsdk.load`, which opens the bundle and makes the selection.

        Raises:
            InputError: If the bundle is not for text to video.
        """
        manifest = bundle.manifest
        if manifest.task != "text_to_video":
            raise InputError(
                f"bundle {manifest.name} is for {manifest.task}; "
                "this version of mvsdk runs text_to_video"
            )
        self.bundle = bundle
        self.selection = selection
        self.memory: Memory = memory
        self._sessions: dict[str, Session] = {}
        self._tokenizer: Tokenizer | None = None

    def __enter__(self) -> Pipeline:
        """Return the pipeline."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let all graphs go."""
        self.close()

    def close(self) -> None:
        """Let all graphs go; the pipeline stays usable and loads them again when asked to."""
        while self._sessions:
            _, session = self._sessions.popitem()
            session.close()

    @property
    def manifest(self) -> Manifest:
        """Manifest of the bundle."""
        return self.bundle.manifest

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer, read when it is first asked for."""
        if self._tokenizer is None:
            self._tokenizer = _load_tokenizer(self.bundle)
        return self._tokenizer

    def generate(
        self,
        prompt: str,
        *,
        num_inference_steps: int | None = None,
        seed: int = 0,
        on_step: Callable[[Step], object] | None = None,
    ) -> Video:
        """Make a clip.

        Args:
            prompt: What the clip shows.
            num_inference_steps: Steps, one of those in the bundle; None takes its default.
            seed: Chooses the noise, 0 to 2**64 - 1; the same seed gives the same bytes.
            on_step: Called after every step, the last time with the clip; an exception of its own
                ends the generation.

        Raises:
            InputError: If prompt, steps or seed are not allowed.
            BundleError: If a file of the bundle is damaged.
            BackendError: If a graph cannot be loaded or run.
        """
        steps = self.stream(prompt, num_inference_steps=num_inference_steps, seed=seed)
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

    def stream(
        self, prompt: str, *, num_inference_steps: int | None = None, seed: int = 0
    ) -> Generator[Step, None, None]:
        """Make a clip step by step; the last step carries it.

        The arguments are checked before this returns, and no graph is loaded before the first step
        is asked for. To cancel, stop asking and call `close()` on the generator: with
        `memory="low"` that lets the loaded graph go.

        Args:
            prompt: What the clip shows.
            num_inference_steps: Steps, one of those in the bundle; None takes its default.
            seed: Chooses the noise, 0 to 2**64 - 1.

        Returns:
            Generator of `Step`.

        Raises:
            InputError: If prompt, steps or seed are not allowed.
        """
        watch = Stopwatch()
        options = GenerateOptions(num_inference_steps=num_inference_steps, seed=seed)
        check_prompt(prompt)
        sampler = self.manifest.sampler
        count = sampler.default_steps if num_inference_steps is None else num_inference_steps
        run_sampler = build_sampler(sampler, count)
        input_ids = self.tokenizer.encode(prompt)
        watch.pause()
        work = Work(self.session, watch)
        return self._stream(
            work, prompt, input_ids, run_sampler, count, operator.index(options.seed)
        )

    def _stream(
        self,
        work: Work,
        prompt: str,
        input_ids: NDArray[np.int32],
        run_sampler: RunSampler,
        count: int,
        seed: int,
    ) -> Generator[Step, None, None]:
        sigmas = self.manifest.sampler.schedules[count].sigmas

        def progress(index: int, latents: Latents, elapsed_s: float, video: Video | None) -> Step:
            return Step(
                index=index,
                count=count,
                sigma=sigmas[index],
                elapsed_s=elapsed_s,
                latents=latents,
                video=video,
            )

        work.watch.resume()
        try:
            text = work.call("text_encoder", {"input_ids": input_ids})
            latents = self._initial_latents(seed)
            trajectory = run_sampler(self._denoiser(work, text, count), latents, self._noise(seed))
            for index, latents in enumerate(trajectory, start=1):
                _check_finite(latents, self.manifest.denoiser, index, count)
                latents.flags.writeable = False
                if index < count:
                    yield progress(index, latents, work.watch.pause(), None)
                    work.watch.resume()
            frames = _as_frames(work.call("vae_decoder", {"latents": latents})["frames"])
            timings = work.timings(self.selection.backend.describe, denoiser=self.manifest.denoiser)
            video = Video(
                frames=frames,
                fps=self.manifest.video.fps,
                seed=seed,
                prompt=prompt,
                timings=timings,
            )
            yield progress(count, latents, timings.total_s, video)
        finally:
            if self.memory == "low":
                self.close()

    def _initial_latents(self, seed: int) -> Latents:
        noise = initial_latents(seed, self.manifest.latents.shape)
        return noise * np.float32(self.manifest.sampler.init_noise_sigma)

    def _noise(self, seed: int) -> Noise:
        return lambda index: initial_latents(seed, self.manifest.latents.shape, stream=index)

    def _denoiser(self, work: Work, text: Mapping[str, NDArray[Any]], count: int) -> Denoiser:
        """Return the denoiser's graph at fixed conditioning, as the samplers want it."""
        sampler = self.manifest.sampler
        name = self.manifest.denoiser
        shapes = {spec.name: spec.shape for spec in self.selection.variants[name].inputs}
        fixed = dict(text)
        for key, values in sampler.conditioning.items():
            fixed[key] = np.asarray(values, np.float32).reshape(shapes[key])
        timesteps = sampler.schedules[count].timesteps

        def denoise(model_input: Latents, index: int) -> Latents:
            timestep = np.full(shapes["timestep"], timesteps[index], np.float32)
            inputs = {**fixed, "sample": model_input, "timestep": timestep}
            return work.call(name, inputs)["model_output"]

        return denoise

    def session(self, component: str) -> Session:
        """Return the loaded graph of a component; load it, and let others go in low memory."""
        session = self._sessions.get(component)
        if session is None:
            if self.memory == "low":
                self.close()
            variant = self.selection.variants[component]
            session = self.selection.backend.load(self.bundle, variant)
            self._sessions[component] = session
        return session


RunSampler = Callable[[Denoiser, Latents, Noise], Iterator[Latents]]
"""(denoise, initial latents, fresh noise by step index) -> latents after each step."""


def build_sampler(sampler: Sampler, num_inference_steps: int) -> RunSampler:
    """Bind the sampler of a manifest to one of its schedules.

    Args:
        sampler: The manifest's sampler.
        num_inference_steps: One of the numbers of steps that it has a schedule for.

    Raises:
        InputError: If it has no such schedule.
    """
    schedule = sampler.schedules.get(num_inference_steps)
    if schedule is None:
        known = ", ".join(map(str, sorted(sampler.schedules)))
        raise InputError(
            f"num_inference_steps is {num_inference_steps}; this bundle has: {known}; "
            "choose one, or export with --steps"
        )
    sigmas = np.asarray(schedule.sigmas, np.float32)

    def run(denoise: Denoiser, latents: Latents, noise: Noise) -> Iterator[Latents]:
        return sample(
            sampler.kind,
            denoise,
            latents,
            sigmas,
            prediction_type=sampler.prediction_type,
            timesteps=schedule.timesteps,
            noise=noise,
        )

    return run


def _load_tokenizer(bundle: Bundle) -> Tokenizer:
    spec = bundle.manifest.tokenizer
    if spec is None:
        raise BundleError(f"bundle {bundle.manifest.name} has no tokenizer; export it again")
    tokenizer = WordPiece.from_file(bundle.file(spec.file), spec.max_length)
    if (tokenizer.pad, tokenizer.unk) != (spec.pad_token, spec.unk_token):
        raise BundleError(
            f"vocabulary has pad {tokenizer.pad!r} and unk {tokenizer.unk!r}, the manifest says "
            f"{spec.pad_token!r} and {spec.unk_token!r}; export the bundle again"
        )
    return tokenizer


def _check_finite(latents: Latents, component: str, index: int, count: int) -> None:
    if not np.isfinite(latents).all():
        raise BackendError(
            f"{component} gave nan or infinite values at step {index} of {count}; "
            "run mvsdk verify on the bundle, or choose another precision"
        )


def _as_frames(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """Return decoded frames as uint8; a graph may say them as numbers with scale 1."""
    if frames.dtype != np.uint8:
        frames = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    return frames
