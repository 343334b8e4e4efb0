"""From a prompt or a picture to a clip: encode -> sample -> decode, as the bundle's manifest says.

    pipeline = mvsdk.load("sticker.mvbundle")
    video = pipeline.generate("a rocket flying left", seed=7)
    video.save("rocket.mp4")

    pipeline = mvsdk.load("mobilevd.mvbundle")
    video = pipeline.animate("harbour.jpg", motion=127, seed=7)

The sampler arithmetic is all that happens outside the graphs. Equal seeds give equal noise in every
language (docs/noise.md), and equal bytes from one backend.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from mvsdk._arguments import check_callable, check_choice, check_kind, shown
from mvsdk._clip import Clip, RunSampler, encode_picture
from mvsdk._text import quoted
from mvsdk.backends import Selection, find_backend, select
from mvsdk.backends._speed import SOME_CLIPS
from mvsdk.backends.isolated import Isolated, IsolatedSession, Isolation, isolate
from mvsdk.bundle import Bundle
from mvsdk.conditioning import ADDED_TIME_IDS, MicroConditioning
from mvsdk.errors import BackendError, BundleError, InputError
from mvsdk.generation import GenerateOptions, Step, Stopwatch, Work
from mvsdk.image import load_image, picture_name
from mvsdk.manifest import TASKS
from mvsdk.sampling import Denoiser, Latents, Noise, sample
from mvsdk.tokenizer import Tokenizer, WordPiece, check_prompt

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from mvsdk.backends import Backend, Session
    from mvsdk.image import ImageSource
    from mvsdk.manifest import Manifest, Sampler, Task
    from mvsdk.video import Video

Memory = Literal["fast", "low"]
MEMORIES: tuple[Memory, ...] = get_args(Memory)

_WAYS: dict[Task, str] = {
    "text_to_video": "Pipeline.generate or mvsdk generate PROMPT",
    "image_to_video": "Pipeline.animate or mvsdk animate IMAGE",
}
"""Tasks that are carried out -> how to ask for them."""


def load(
    path: str | os.PathLike[str],
    *,
    backend: Backend | str | None = None,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    format: str | None = None,
    clips: int = SOME_CLIPS,
    memory: Memory = "fast",
    isolated: bool | Isolation = False,
) -> Pipeline:
    """Open a bundle and choose what runs it; graphs are loaded when they are first needed.

    Args:
        path: The `NAME.mvbundle` folder.
        backend: Runs the graphs, or its name, such as "executorch"; None takes what the choice
            below needs.
        target: "onnx", "snapdragon", "executorch" or "iphone"; None takes what is fastest here.
        chip: Chip that the graphs were compiled for, by slug, marketing name, or a phone that
            carries it (`find_chipset`); None takes any.
        precision: Such as "fp32" or "w8a16"; None takes what is fastest here
            (`mvsdk.backends.select` has the order).
        format: Such as "coreml" or "coreai" on iphone, the delegate on executorch; None takes any.
        clips: How many clips will be made, about: a runtime that is slow to start is chosen where
            that many are done sooner with it.
        memory: "fast" keeps graphs loaded for the next clip. "low" lets each go before the next is
            loaded: the peak is that of the largest, and every clip pays for loading again.
        isolated: True runs the graphs in a process of their own, with time limits: a damaged graph
            that would end this process, or never come back, is a `BackendError` then. `Isolation`
            sets the limits. See docs/isolation.md for what it costs.

    Raises:
        BundleNotFoundError: If there is no bundle; this is a FileNotFoundError too.
        BundleError: If the bundle is damaged or unsafe.
        InputError: If the bundle holds no such variant, `memory` or the backend's name is unknown,
            nothing here knows the bundle's task, `isolated` is not for this backend, or an argument
            is of a wrong type.
        BackendError: If nothing here can run the variants that are left.
    """
    check_choice("memory", memory, MEMORIES)
    if not isinstance(isolated, bool | Isolation):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"isolated is {shown(isolated)}; allowed: True, False, mvsdk.Isolation(...)"
        )
    by_name = backend is None or isinstance(backend, str)
    bundle = Bundle.open(path)
    if isinstance(backend, str):
        backend = find_backend(backend)
    choice = select(
        bundle,
        backend=backend,
        target=target,
        chip=chip,
        precision=precision,
        format=format,
        clips=clips,
    )
    if isolated is not False:
        limits = Isolation() if isolated is True else isolated
        choice = isolate(choice, limits, found_by_name=by_name)
    return Pipeline(bundle, choice, memory=memory)


class Pipeline:
    """A model that is ready to make clips. One thread at a time; make one per thread instead."""

    def __init__(self, bundle: Bundle, selection: Selection, *, memory: Memory = "fast") -> None:
        """Use `mvsdk.load`, which opens the bundle and makes the selection.

        Raises:
            InputError: If the bundle's task is none that is carried out, or an argument is of a
                wrong type.
        """
        check_kind("bundle", bundle, Bundle, how="open one with Bundle.open, or use mvsdk.load")
        check_kind("selection", selection, Selection, how="use mvsdk.load, which makes it")
        manifest = bundle.manifest
        if manifest.task not in _WAYS:
            raise InputError(
                f"bundle {manifest.name} is for {manifest.task}; "
                f"this version of mvsdk runs {', '.join(_WAYS)}"
            )
        self.bundle = bundle
        self.selection = selection
        self.memory: Memory = check_choice("memory", memory, MEMORIES)
        self._sessions: dict[str, Session] = {}
        self._tokenizer: Tokenizer | None = None

    def __repr__(self) -> str:
        """Return what runs on what in one line; asks no runtime anything."""
        loaded = ", ".join(self._sessions) or "nothing"
        return (
            f"Pipeline({shown(self.bundle.path.name)}, {self.manifest.task}, "
            f"{self.selection.kind} on {self.selection.backend.name}, loaded: {loaded})"
        )

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
        self._let_graphs_go()
        if isinstance(self.selection.backend, Isolated):
            self.selection.backend.close()

    def _let_graphs_go(self) -> None:
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

    @property
    def default_conditioning(self) -> MicroConditioning:
        """What an image-to-video bundle is told beside the picture, where a caller says nothing.

        Raises:
            InputError: If the bundle is for another task.
        """
        self.check_task("image_to_video")
        return MicroConditioning.from_added_time_ids(
            self.manifest.sampler.conditioning[ADDED_TIME_IDS]
        )

    def check_task(self, task: Task) -> None:
        """Check what the bundle is for.

        Raises:
            InputError: If it is for another task; the message says how to ask for that.
        """
        manifest = self.manifest
        if manifest.task != check_choice("task", task, TASKS):
            raise InputError(
                f"bundle {manifest.name} is for {manifest.task}, not {task}; "
                f"use {_WAYS[manifest.task]}, or choose another bundle"
            )

    def generate(
        self,
        prompt: str,
        *,
        num_inference_steps: int | None = None,
        seed: int = 0,
        on_step: Callable[[Step], object] | None = None,
    ) -> Video:
        """Make a clip of a prompt.

        Args:
            prompt: What the clip shows.
            num_inference_steps: Steps, one of those in the bundle; None takes its default.
            seed: Chooses the noise, 0 to 2**64 - 1; the same seed gives the same bytes.
            on_step: Called after every step, the last time with the clip; an exception of its own
                ends the generation.

        Raises:
            InputError: If prompt, steps or seed are not allowed, or the bundle wants a picture.
            BundleError: If a file of the bundle is damaged.
            BackendError: If a graph cannot be loaded or run.
        """
        _check_on_step(on_step)
        steps = self.stream(prompt, num_inference_steps=num_inference_steps, seed=seed)
        return _run_to_the_end(steps, on_step)

    def stream(
        self, prompt: str, *, num_inference_steps: int | None = None, seed: int = 0
    ) -> Generator[Step, None, None]:
        """Make a clip of a prompt step by step; the last step carries it.

        The arguments are checked before this returns, and no graph is loaded before the first step
        is asked for. To cancel, stop asking and call `close()` on the generator: with
        `memory="low"` that lets the loaded graph go.

            for step in pipeline.stream("a rocket flying left"):
                print(step)
                if step.video is not None:
                    step.video.save("rocket.mp4")

        Args:
            prompt: What the clip shows.
            num_inference_steps: Steps, one of those in the bundle; None takes its default.
            seed: Chooses the noise, 0 to 2**64 - 1.

        Returns:
            Generator of `Step`.

        Raises:
            InputError: If prompt, steps or seed are not allowed, or the bundle wants a picture.
        """
        watch = Stopwatch()
        self.check_task("text_to_video")
        options = GenerateOptions(num_inference_steps=num_inference_steps, seed=seed)
        check_prompt(prompt)
        steps, run_sampler = self._sampler(options)
        input_ids = self.tokenizer.encode(prompt)
        clip = Clip(
            manifest=self.manifest,
            selection=self.selection,
            encode=lambda work: work.call("text_encoder", {"input_ids": input_ids}),
            run_sampler=run_sampler,
            steps=steps,
            seed=options.seed,
            bundle_sha256=self.bundle.manifest_sha256,
            fps=self.manifest.video.fps,
            prompt=prompt,
        )
        watch.pause()
        return self._make(clip, Work(self.session, watch))

    def animate(
        self,
        image: ImageSource,
        *,
        motion: int | None = None,
        fps: float | None = None,
        noise_aug_strength: float | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
        on_step: Callable[[Step], object] | None = None,
    ) -> Video:
        """Make a clip that begins with a picture.

        Args:
            image: The picture: a file, an image of Pillow, or RGB as uint8 (H, W, 3). Its middle is
                cut out at the aspect of the clip and resized.
            motion: Motion bucket, 0 (hardly any) to 255; None takes the bundle's.
            fps: Frames per second that the clip is made for and plays at, 1 to 60; None takes the
                bundle's.
            noise_aug_strength: Noise on the picture, 0 to 1: more lets the clip leave it; None
                takes the bundle's.
            num_inference_steps: Steps, one of those in the bundle; None takes its default.
            seed: Chooses the noise, 0 to 2**64 - 1; the same seed gives the same bytes.
            on_step: Called after every step, the last time with the clip; an exception of its own
                ends the generation.

        Raises:
            InputError: If the picture cannot be read, a number is not allowed, or the bundle wants
                a prompt.
            BundleError: If a file of the bundle is damaged.
            BackendError: If a graph cannot be loaded or run.
        """
        _check_on_step(on_step)
        steps = self.stream_animation(
            image,
            motion=motion,
            fps=fps,
            noise_aug_strength=noise_aug_strength,
            num_inference_steps=num_inference_steps,
            seed=seed,
        )
        return _run_to_the_end(steps, on_step)

    def stream_animation(
        self,
        image: ImageSource,
        *,
        motion: int | None = None,
        fps: float | None = None,
        noise_aug_strength: float | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
    ) -> Generator[Step, None, None]:
        """Make a clip that begins with a picture step by step; the last step carries it.

        The picture is read and the arguments are checked before this returns; see `stream` for the
        rest, and `animate` for the arguments.

        Returns:
            Generator of `Step`.

        Raises:
            InputError: If the picture cannot be read, a number is not allowed, or the bundle wants
                a prompt.
        """
        watch = Stopwatch()
        self.check_task("image_to_video")
        options = GenerateOptions(num_inference_steps=num_inference_steps, seed=seed)
        conditioning = self.default_conditioning.changed(
            fps=fps, motion=motion, noise_aug_strength=noise_aug_strength
        )
        steps, run_sampler = self._sampler(options)
        video = self.manifest.video
        picture = load_image(image, video.height, video.width)[None]
        seed = options.seed
        clip = Clip(
            manifest=self.manifest,
            selection=self.selection,
            encode=lambda work: encode_picture(
                work, self.selection.variants, picture, seed=seed, conditioning=conditioning
            ),
            run_sampler=run_sampler,
            steps=steps,
            seed=seed,
            bundle_sha256=self.bundle.manifest_sha256,
            picture=picture_name(image),
            fps=video.fps if fps is None else conditioning.fps,
            conditioning=conditioning,
        )
        watch.pause()
        return self._make(clip, Work(self.session, watch))

    def _sampler(self, options: GenerateOptions) -> tuple[int, RunSampler]:
        """Return the number of steps and the sampler that takes so many."""
        sampler = self.manifest.sampler
        steps = options.num_inference_steps
        steps = sampler.default_steps if steps is None else steps
        return steps, build_sampler(sampler, steps)

    def _make(self, clip: Clip, work: Work) -> Generator[Step, None, None]:
        try:
            yield from clip.make(work)
        finally:
            if self.memory == "low":
                self._let_graphs_go()

    def session(self, component: str) -> Session:
        """Return the loaded graph of a component; load it, and let others go in low memory.

        Raises:
            InputError: If the bundle has no such component.
            BundleError: If a file of it is damaged.
            BackendError: If it cannot be loaded.
        """
        check_choice("component", component, self.selection.variants)
        session = self._sessions.get(component)
        if session is None or (isinstance(session, IsolatedSession) and session.is_lost):
            if self.memory == "low":
                self._let_graphs_go()
            variant = self.selection.variants[component]
            session = self.selection.backend.load(self.bundle, variant)
            self._sessions[component] = session
        return session


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
            f"vocabulary has pad {quoted(tokenizer.pad)} and unk {quoted(tokenizer.unk)}, the "
            f"manifest says {quoted(spec.pad_token)} and {quoted(spec.unk_token)}; "
            "export the bundle again"
        )
    return tokenizer


def _check_on_step(on_step: object) -> None:
    if on_step is not None:
        check_callable("on_step", on_step)


def _run_to_the_end(
    steps: Generator[Step, None, None], on_step: Callable[[Step], object] | None
) -> Video:
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
