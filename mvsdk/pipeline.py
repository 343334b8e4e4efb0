"""From a prompt, a picture or a clip to a clip, as the bundle's manifest says.

    pipeline = mvsdk.load("sticker.mvbundle")
    video = pipeline.generate("a rocket flying left", seed=7)
    video.save("rocket.mp4")

    pipeline = mvsdk.load("mobilevd.mvbundle")
    video = pipeline.animate("harbour.jpg", motion=127, seed=7)

What happens outside the graphs is `mvsdk.runner`. Equal seeds give equal noise in every language
(docs/noise.md), and equal bytes from one backend.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from mvsdk._arguments import check_choice, check_kind, shown
from mvsdk._loaded import Loaded
from mvsdk.backends import Selection
from mvsdk.bundle import Bundle
from mvsdk.generation import (
    GenerateOptions,
    Step,
    Stopwatch,
    Work,
    check_on_step,
    make_steps,
    run_to_the_end,
)
from mvsdk.image import picture_name
from mvsdk.inputs import join_numbers, name_inputs, prepare
from mvsdk.manifest import TASKS as TASK_NAMES
from mvsdk.manifest import NumberInput
from mvsdk.runner import Resources, Runner
from mvsdk.tasks import find_program, named_program
from mvsdk.video import Video

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from mvsdk.backends import Session
    from mvsdk.clips import ClipSource
    from mvsdk.image import ImageSource
    from mvsdk.manifest import InputKind, Manifest, Program, Task
    from mvsdk.tokenizers import Tokenizer, Tokens

Memory = Literal["fast", "low"]
MEMORIES: tuple[Memory, ...] = get_args(Memory)


class Pipeline:
    """A model that is ready to make clips. One thread at a time; make one per thread instead."""

    def __init__(
        self,
        bundle: Bundle,
        selection: Selection,
        *,
        program: str | None = None,
        memory: Memory = "fast",
    ) -> None:
        """Use `mvsdk.load`, which opens the bundle and makes the selection.

        Raises:
            InputError: If an argument is of a wrong type, or the bundle has no such program.
        """
        check_kind("bundle", bundle, Bundle, how="open one with Bundle.open, or use mvsdk.load")
        check_kind("selection", selection, Selection, how="use mvsdk.load, which makes it")
        self.bundle = bundle
        self.selection = selection
        self.program = named_program(bundle.manifest, program)
        """What a clip is made by, if its task is the one that is asked for."""
        self.memory: Memory = check_choice("memory", memory, MEMORIES)
        self._loaded = Loaded(bundle, selection, one_at_a_time=memory == "low")

    def __repr__(self) -> str:
        """Return what runs on what in one line; asks no runtime anything."""
        loaded = ", ".join(self._loaded.components) or "nothing"
        return (
            f"Pipeline({shown(self.bundle.path.name)}, {self.program.task}, "
            f"{self.selection.label} on {self.selection.backend_names}, loaded: {loaded})"
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
        self._loaded.close()

    @property
    def manifest(self) -> Manifest:
        """Manifest of the bundle."""
        return self.bundle.manifest

    def tokenizer(self, name: str | None = None) -> Tokenizer:
        """Return a tokenizer of the bundle, read when it is first asked for.

        Args:
            name: As the manifest says it; None takes the first that reads the program's prompt.

        Raises:
            InputError: If the bundle has none, or none of that name.
            BundleError: If its file is damaged.
        """
        return self._loaded.tokenizer(self.program.prompt_tokenizer if name is None else name)

    def session(self, component: str) -> Session:
        """Return the loaded graph of a component; load it, and let others go in low memory.

        Raises:
            InputError: If the bundle has no such component.
            BundleError: If a file of it is damaged.
            BackendError: If it cannot be loaded.
        """
        return self._loaded.session(component)

    @property
    def number_inputs(self) -> Mapping[str, NumberInput]:
        """Numbers of the program that a caller may choose for a clip, such as `motion`."""
        inputs = self.program.inputs
        return {name: item for name, item in inputs.items() if isinstance(item, NumberInput)}

    def check_task(self, task: Task) -> None:
        """Check what the bundle is for.

        Raises:
            InputError: If it is for another task; the message says how to ask for that.
        """
        self._program_for(check_choice("task", task, TASK_NAMES))

    def generate(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        numbers: Mapping[str, float] | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
        on_step: Callable[[Step], object] | None = None,
    ) -> Video:
        """Make a clip of a prompt.

        Args:
            prompt: What the clip shows.
            negative_prompt: What it shall not show, of bundles that take one; None for nothing.
            guidance_scale: How closely the prompt is followed, of bundles that leave it to a
                caller; None takes the bundle's.
            numbers: Further ones, by the names of `number_inputs`.
            num_inference_steps: Steps, one of those in the bundle; None takes its default.
            seed: Chooses the noise, 0 to 2**64 - 1; the same seed gives the same bytes.
            on_step: Called after every step, the last time with the clip; an exception of its own
                ends the generation.

        Raises:
            InputError: If prompt, steps or seed are not allowed, or the bundle wants a picture.
            BundleError: If a file of the bundle is damaged.
            BackendError: If a graph cannot be loaded or run.
        """
        check_on_step(on_step)
        steps = self.stream(
            prompt,
            negative_prompt=negative_prompt,
            guidance_scale=guidance_scale,
            numbers=numbers,
            num_inference_steps=num_inference_steps,
            seed=seed,
        )
        return run_to_the_end(steps, on_step)

    def stream(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        numbers: Mapping[str, float] | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
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
            negative_prompt: What it shall not show, of bundles that take one; None for nothing.
            guidance_scale: How closely the prompt is followed, of bundles that leave it to a
                caller; None takes the bundle's.
            numbers: Further ones, by the names of `number_inputs`.
            num_inference_steps: Steps, one of those in the bundle; None takes its default.
            seed: Chooses the noise, 0 to 2**64 - 1.

        Returns:
            Generator of `Step`.

        Raises:
            InputError: If prompt, steps or seed are not allowed, or the bundle wants a picture.
        """
        return self._stream_task(
            "text_to_video",
            {"prompt": prompt, "negative_prompt": negative_prompt},
            join_numbers({"guidance_scale": guidance_scale}, numbers),
            num_inference_steps,
            seed,
        )

    def animate(
        self,
        image: ImageSource,
        prompt: str | None = None,
        *,
        motion: int | None = None,
        fps: float | None = None,
        noise_aug_strength: float | None = None,
        numbers: Mapping[str, float] | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
        on_step: Callable[[Step], object] | None = None,
    ) -> Video:
        """Make a clip that begins with a picture.

        Args:
            image: The picture: a file, an image of Pillow, or RGB as uint8 (H, W, 3). Its middle is
                cut out at the aspect of the clip and resized.
            prompt: What is to happen; None for a bundle that takes no prompt.
            motion: Motion bucket, 0 (hardly any) to 255; None takes the bundle's.
            fps: Frames per second that the clip is made for and plays at, 1 to 60; None takes the
                bundle's.
            noise_aug_strength: Noise on the picture, 0 to 1: more lets the clip leave it; None
                takes the bundle's.
            numbers: Further ones, by the names of `number_inputs`.
            num_inference_steps: Steps, one of those in the bundle; None takes its default.
            seed: Chooses the noise, 0 to 2**64 - 1; the same seed gives the same bytes.
            on_step: Called after every step, the last time with the clip; an exception of its own
                ends the generation.

        Raises:
            InputError: If the picture cannot be read, an argument is not allowed, or the bundle is
                for another task.
            BundleError: If a file of the bundle is damaged.
            BackendError: If a graph cannot be loaded or run.
        """
        check_on_step(on_step)
        steps = self.stream_animation(
            image,
            prompt,
            motion=motion,
            fps=fps,
            noise_aug_strength=noise_aug_strength,
            numbers=numbers,
            num_inference_steps=num_inference_steps,
            seed=seed,
        )
        return run_to_the_end(steps, on_step)

    def stream_animation(
        self,
        image: ImageSource,
        prompt: str | None = None,
        *,
        motion: int | None = None,
        fps: float | None = None,
        noise_aug_strength: float | None = None,
        numbers: Mapping[str, float] | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
    ) -> Generator[Step, None, None]:
        """Make a clip that begins with a picture step by step; the last step carries it.

        The picture is read and the arguments are checked before this returns; see `stream` for the
        rest, and `animate` for the arguments.

        Returns:
            Generator of `Step`.

        Raises:
            InputError: If the picture cannot be read, an argument is not allowed, or the bundle is
                for another task.
        """
        named = {"motion": motion, "fps": fps, "noise_aug_strength": noise_aug_strength}
        return self._stream_task(
            "image_to_video",
            {"picture": image, "prompt": prompt},
            join_numbers(named, numbers),
            num_inference_steps,
            seed,
        )

    def edit(
        self,
        clip: ClipSource,
        prompt: str | None = None,
        *,
        numbers: Mapping[str, float] | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
        on_step: Callable[[Step], object] | None = None,
    ) -> Video:
        """Make a clip of a clip, mostly by an instruction.

        Args:
            clip: A file, or RGB as uint8 (F, H, W, 3); see `mvsdk.clips.load_clip`.
            prompt: What is to become of it; None for a bundle that takes no prompt.
            numbers: Such as `guidance_scale`, by the names of `number_inputs`.
            num_inference_steps: Steps, one of those in the bundle; None takes its default.
            seed: Chooses the noise, 0 to 2**64 - 1.
            on_step: Called after every step, the last time with the clip.

        Raises:
            InputError: If the clip cannot be read, or an argument is not allowed.
            BundleError: If a file of the bundle is damaged.
            BackendError: If a graph cannot be loaded or run.
        """
        check_on_step(on_step)
        steps = self._stream_task(
            "video_to_video", {"clip": clip, "prompt": prompt}, numbers, num_inference_steps, seed
        )
        return run_to_the_end(steps, on_step)

    def upscale(
        self,
        clip: ClipSource,
        prompt: str | None = None,
        *,
        numbers: Mapping[str, float] | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
        on_step: Callable[[Step], object] | None = None,
    ) -> Video:
        """Make a larger clip of a clip; see `edit` for the arguments.

        Raises:
            InputError: If the clip cannot be read, or an argument is not allowed.
            BundleError: If a file of the bundle is damaged.
            BackendError: If a graph cannot be loaded or run.
        """
        check_on_step(on_step)
        steps = self._stream_task(
            "upscale", {"clip": clip, "prompt": prompt}, numbers, num_inference_steps, seed
        )
        return run_to_the_end(steps, on_step)

    def run(
        self,
        given: Mapping[str, object],
        *,
        program: str | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
        on_step: Callable[[Step], object] | None = None,
    ) -> Video:
        """Carry out a program of the bundle, whatever its task.

        Args:
            given: By the name of an input: text, picture, clip or number.
            program: Its name; None takes that of the pipeline.
            num_inference_steps: Steps, one of those in the bundle; None takes its default.
            seed: Chooses the noise, 0 to 2**64 - 1.
            on_step: Called after every step, the last time with the clip; an exception of its own
                ends the run.

        Raises:
            InputError: If something is missing, not known or not allowed.
            BundleError: If a file of the bundle is damaged.
            BackendError: If a graph cannot be loaded or run.
        """
        check_kind("given", given, Mapping, how="pass a dict: name of an input to its value")
        check_on_step(on_step)
        chosen = self.program if program is None else named_program(self.manifest, program)
        steps = self._stream(chosen, given, num_inference_steps, seed)
        return run_to_the_end(steps, on_step)

    def _stream_task(
        self,
        task: Task,
        given: Mapping[InputKind, object],
        numbers: Mapping[str, float] | None,
        num_inference_steps: int | None,
        seed: int,
    ) -> Generator[Step, None, None]:
        """Find the program for a task; give it what a caller gave, by the names that it has."""
        program = self._program_for(task)
        values = name_inputs(program, given, numbers)
        return self._stream(program, values, num_inference_steps, seed)

    def _stream(
        self,
        program: Program,
        given: Mapping[str, object],
        num_inference_steps: int | None,
        seed: int,
    ) -> Generator[Step, None, None]:
        """Check everything; return what makes the clip."""
        watch = Stopwatch()
        options = GenerateOptions(num_inference_steps=num_inference_steps, seed=seed)
        self.selection.check_program(program)
        prepared = prepare(program, given, tokenize=self._tokenize)
        work = Work(self.session, watch)
        runner = Runner(
            self.manifest,
            program,
            Resources(call=work.call, tokens=self._tokenize, table=self._loaded.table),
            values=prepared.values,
            seed=options.seed,
            num_inference_steps=options.num_inference_steps,
        )
        chosen_fps = given.get("fps") if "fps" in prepared.numbers else None
        fps = program.video.fps if chosen_fps is None else prepared.numbers["fps"]
        prompt = prepared.values.get(program.input_of("prompt") or "prompt")
        picture = given.get(program.input_of("picture") or "picture")

        def video(frames: NDArray[Any]) -> Video:
            return Video(
                frames=frames,
                fps=fps,
                seed=options.seed,
                prompt=prompt if isinstance(prompt, str) else None,
                picture=picture_name(picture),
                numbers=prepared.numbers,
                notes=prepared.notes,
                num_inference_steps=runner.num_inference_steps,
                bundle_sha256=self.bundle.manifest_sha256,
                timings=work.timings(self.selection.describe, self.manifest),
            )

        watch.pause()
        return make_steps(runner, work, video, self._loaded.end_clip)

    def _program_for(self, task: Task) -> Program:
        """Return the pipeline's program, or the first of another task."""
        return self.program if self.program.task == task else find_program(self.manifest, task)

    def _tokenize(self, name: str, text: str) -> Tokens:
        return self._loaded.tokenizer(name).encode(text)
