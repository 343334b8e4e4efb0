"""All clips: models, and what a caller gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clip_cases.arrays import bytes_model, table_model
from clip_cases.coders import decoder, pixel_encoder
from clip_cases.denoisers import half_denoiser, quantised_denoiser
from clip_cases.graphs import Graph
from clip_cases.models import Model, clip_of, decode, latents_of, noise, program_of, run, sample
from clip_cases.samplers import SAMPLERS, STEPS, STRAIGHT
from clip_cases.stages import two_stage_model
from clip_cases.states import anchor_model, state_model
from clip_cases.usual import guided_model, masked_text_model, picture_model, text_model
from clip_cases.windows import noisy_windows_model, window_model
from mvsdk.manifest import Linear, Sampler, Term

PROMPT = "A rocket, flying LEFT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip of a model."""

    name: str
    model: Model
    seed: int = 7
    steps: int | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    picture: bool = False
    """Whether a picture is given, always the same."""
    clip_frames: int = 0
    """Frames of a clip that is given, always the same."""
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])


def _text_clips() -> list[Clip]:
    clips = [
        Clip(name=f"{name}, {steps} steps", model=text_model(sampler), steps=steps, prompt=PROMPT)
        for name, sampler in SAMPLERS.items()
        for steps in STEPS
    ]
    return [
        *clips,
        Clip(name="default steps", model=text_model(), prompt=PROMPT),
        *(
            Clip(name=f"seed {seed}", model=text_model(), seed=seed, steps=1, prompt=PROMPT)
            for seed in (0, 2**32, 2**64 - 1)
        ),
        *(
            Clip(
                name=f"guidance, {name}",
                model=guided_model(SAMPLERS["euler_ancestral of epsilon"]),
                steps=2,
                prompt=PROMPT,
                negative_prompt=negative,
                numbers=numbers,
            )
            for name, negative, numbers in (
                ("nothing against", None, {}),
                ("something against", "cats", {}),
                ("another strength", "cats", {"guidance_scale": 2.5}),
            )
        ),
        Clip(name="another prompt", model=text_model(), steps=1, prompt="a cat running"),
        Clip(
            name="four frames decoded one at a time",
            model=text_model(frames=4, at_once=1),
            steps=2,
            prompt=PROMPT,
        ),
        Clip(
            name="four frames decoded two at a time, as bytes",
            model=text_model(frames=4, at_once=2, bytes_=True),
            steps=2,
            prompt=PROMPT,
        ),
        Clip(
            name="pixels of float16",
            model=text_model(pixels="float16"),
            steps=1,
            prompt=PROMPT,
        ),
        Clip(
            name="a mask, 64-bit ids, words around",
            model=masked_text_model(),
            steps=2,
            prompt="cat",
        ),
        Clip(name="two stages", model=two_stage_model(), steps=2, prompt=PROMPT),
        Clip(
            name="two stages, of one adjustable step",
            model=two_stage_model(),
            steps=1,
            prompt=PROMPT,
        ),
        Clip(name="anchors and caches", model=anchor_model(), prompt=PROMPT),
        Clip(name="anchors and caches, 4 steps", model=anchor_model(), steps=4, prompt=PROMPT),
    ]


def _stored_clips() -> list[Clip]:
    """Return clips whose denoiser stores its tensors in other types; it knows no prompt."""

    def plain(network: Graph, sampler: Sampler) -> Model:
        frames = next(iter(network.inputs.values())).shape[0]
        called = run("denoiser", {"sample": "z"}, model_output="m")
        operations = (
            run("vae_encoder", {"image": "clip"}, latents="source"),
            noise(latents_of(frames), "grain", 2),
            Linear(
                terms=(Term(array="grain", scale=0.75), Term(array="source", scale=0.25)),
                output="start",
            ),
            sample(called, timestep="unused"),
            decode(),
        )
        return Model(
            program=program_of("video_to_video", frames, operations, clip=clip_of(frames)),
            graphs={
                "vae_encoder": pixel_encoder(frames),
                "denoiser": network,
                "vae_decoder": decoder(frames),
            },
            samplers={"main": sampler},
        )

    consistency = SAMPLERS["flow_consistency of velocity"]
    return [
        Clip(
            name="uint16 with scales",
            model=plain(quantised_denoiser(2), STRAIGHT),
            steps=4,
            clip_frames=2,
        ),
        Clip(
            name="uint16 with scales, fresh noise",
            model=plain(quantised_denoiser(2), consistency),
            steps=2,
            clip_frames=2,
        ),
        Clip(name="float16", model=plain(half_denoiser(2), STRAIGHT), steps=4, clip_frames=2),
    ]


def _picture_clips() -> list[Clip]:
    edm = SAMPLERS["edm_euler of v"]
    chosen = {"motion": 200, "fps": 12.5, "noise_aug_strength": 0.3}
    return [
        *(
            Clip(
                name=f"a picture, {steps} steps",
                model=picture_model(edm),
                steps=steps,
                picture=True,
            )
            for steps in STEPS
        ),
        Clip(
            name="a picture, other numbers",
            model=picture_model(edm),
            steps=2,
            picture=True,
            numbers=chosen,
        ),
        Clip(
            name="a picture, without noise on it",
            model=picture_model(edm),
            steps=1,
            picture=True,
            numbers={"noise_aug_strength": 0.0},
        ),
        Clip(
            name="a picture, decoded one frame at a time",
            model=picture_model(SAMPLERS["euler_ancestral of epsilon"], at_once=1),
            steps=2,
            picture=True,
        ),
    ]


def _other_clips() -> list[Clip]:
    return [
        *(
            Clip(name=f"windows, {blend}", model=window_model(blend), clip_frames=8)
            for blend in ("first", "last", "linear")
        ),
        Clip(name="noise in loops", model=noisy_windows_model(STRAIGHT), steps=2, clip_frames=6),
        Clip(
            name="fresh noise in loops",
            model=noisy_windows_model(SAMPLERS["flow_consistency of velocity"]),
            steps=2,
            clip_frames=6,
        ),
        Clip(name="a state from frame to frame", model=state_model(), clip_frames=3),
        Clip(name="tables", model=table_model(), clip_frames=2),
        Clip(
            name="tables, other numbers",
            model=table_model(),
            clip_frames=2,
            numbers={"strength": 0.3, "first": 3},
        ),
        Clip(name="bytes of a clip, passed on", model=bytes_model(), clip_frames=5),
    ]


def clips() -> list[Clip]:
    """Return all cases."""
    return [*_text_clips(), *_stored_clips(), *_picture_clips(), *_other_clips()]
