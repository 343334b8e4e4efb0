"""The programs of the usual tasks: a prompt or a picture in, one denoiser, one decoder.

The toolchain writes these for a model that needs no more, and documents of versions 1 and 2, which
knew no other, are read as these (docs/bundle_format.md, section 10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mvsdk.manifest.operations import (
    Collected,
    DrawNoise,
    Index,
    InputValue,
    Loop,
    Numbers,
    Operation,
    Run,
    Sample,
    Take,
    Tokenize,
)
from mvsdk.manifest.programs import (
    Input,
    NumberInput,
    PictureInput,
    Program,
    PromptInput,
    Task,
    VideoSpec,
)
from mvsdk.noise import PICTURE_STREAM

SAMPLER = TOKENIZER = "main"
"""Name of the only sampler and of the only tokenizer."""
PROGRAM = "default"
MIN_CLIP_FPS, MAX_CLIP_FPS = 1.0, 60.0
MAX_MOTION = 255.0
MAX_PICTURE_NOISE = 1.0
ADDED_TIME_IDS = "added_time_ids"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsualModel:
    """What the programs of the usual tasks depend on."""

    task: Task
    video: VideoSpec
    latents: tuple[int, int, int, int]
    """(F, C, h, w), frames in the batch axis."""
    denoiser: str
    """Name of the component."""
    denoiser_inputs: Sequence[str]
    decode_frames: int
    """Frames of latents that the decoder takes at once."""
    constants: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    """Input of the denoiser -> its constant values."""
    added_time_ids: tuple[float, float, float] | None = None
    """Defaults of (fps - 1, motion, noise_aug_strength), of image to video."""


def usual_program(model: UsualModel) -> Program:
    """Return the program of a model whose task is text or image to video."""
    encode = _text_operations() if model.task == "text_to_video" else _picture_operations(model)
    names = {key: f"constant_{n}" for n, key in enumerate(sorted(model.constants), start=1)}
    constants = [
        Numbers(values=tuple(map(float, model.constants[key])), output=name)
        for key, name in names.items()
    ]
    return Program(
        name=PROGRAM,
        task=model.task,
        video=model.video,
        inputs=_inputs(model),
        operations=(
            *encode,
            *constants,
            DrawNoise(stream=0, shape=model.latents, output="start"),
            _sample(model, names),
            *decode_operations(model.latents[0], model.decode_frames),
        ),
        output="frames",
    )


def _inputs(model: UsualModel) -> dict[str, Input]:
    if model.task == "text_to_video":
        return {"prompt": PromptInput()}
    video, ids = model.video, model.added_time_ids
    fps, motion, noise = ids or (model.video.fps - 1, 127.0, 0.0)
    return {
        "fps": NumberInput(minimum=MIN_CLIP_FPS, maximum=MAX_CLIP_FPS, default=fps + 1),
        "motion": NumberInput(minimum=0.0, maximum=MAX_MOTION, default=motion, whole=True),
        "noise_aug_strength": NumberInput(minimum=0.0, maximum=MAX_PICTURE_NOISE, default=noise),
        "picture": PictureInput(height=video.height, width=video.width),
    }


def _text_operations() -> list[Operation]:
    return [
        Tokenize(input="prompt", tokenizer=TOKENIZER, output="input_ids"),
        Run(
            component="text_encoder",
            inputs={"input_ids": "input_ids"},
            outputs={"encoder_hidden_states": "encoder_hidden_states"},
        ),
    ]


def _picture_operations(model: UsualModel) -> list[Operation]:
    height, width = model.video.height, model.video.width
    noise = InputValue(input="noise_aug_strength")
    ids = (InputValue(input="fps", offset=-1.0), InputValue(input="motion"), noise)
    return [
        Run(
            component="image_encoder",
            inputs={"image": "picture"},
            outputs={"encoder_hidden_states": "encoder_hidden_states"},
        ),
        DrawNoise(stream=PICTURE_STREAM, shape=(1, 3, height, width), output="picture_noise"),
        Numbers(values=(noise,), output="noise_level"),
        Run(
            component="vae_encoder",
            inputs={
                "image": "picture",
                "noise": "picture_noise",
                "noise_aug_strength": "noise_level",
            },
            outputs={"image_latents": "image_latents"},
        ),
        Numbers(values=ids, output=ADDED_TIME_IDS),
    ]


def _sample(model: UsualModel, constants: Mapping[str, str]) -> Sample:
    arrays = {"sample": "model_input", "timestep": "timestep", **constants}
    given = {name: arrays.get(name, name) for name in model.denoiser_inputs}
    run = Run(component=model.denoiser, inputs=given, outputs={"model_output": "model_output"})
    return Sample(
        sampler=SAMPLER,
        start="start",
        stream=0,
        index="step",
        model_input="model_input",
        timestep="timestep",
        operations=(run,),
        model_output="model_output",
        output="latents",
    )


def decode_operations(frames: int, at_once: int) -> list[Operation]:
    """Return what makes `frames` of `latents`, by the decoder, some frames at once.

    Args:
        frames: Of the clip.
        at_once: That the decoder's graph takes; divides them.
    """
    parts = frames // at_once
    if parts == 1:
        return [Run(component="vae_decoder", inputs={"latents": "latents"}, outputs=_FRAMES)]
    take = Take(
        array="latents",
        axis=0,
        start=Index(start=0, steps={"part": at_once}),
        size=at_once,
        output="part_latents",
    )
    run = Run(
        component="vae_decoder",
        inputs={"latents": "part_latents"},
        outputs={"frames": "part_frames"},
    )
    collected = {"part_frames": Collected(output="frames", axis=0)}
    return [Loop(count=parts, index="part", operations=(take, run), collected=collected)]


_FRAMES = {"frames": "frames"}
