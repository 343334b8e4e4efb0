"""Bundles of tiny graphs, and what is asked of them: the cases of tests/golden/clip.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tiny_graphs import (
    CHANNELS,
    Conditions,
    Graph,
    caching_denoiser,
    cell,
    decoder,
    denoiser,
    half_denoiser,
    image_encoder,
    lookup,
    pixel_encoder,
    quantised_denoiser,
    ramp,
    reshaper,
    scaler,
    text_encoder,
    vae_encoder,
)

from mvsdk import schedules
from mvsdk.manifest import (
    Carried,
    ClipInput,
    Collected,
    Concat,
    DrawNoise,
    Index,
    InputValue,
    Linear,
    Loop,
    NumberInput,
    Numbers,
    Operation,
    Program,
    PromptInput,
    Resample,
    Run,
    Sample,
    Sampler,
    Schedule,
    Take,
    Task,
    Term,
    Tokenize,
    VideoSpec,
)
from mvsdk.manifest.usual import UsualModel, usual_program

WORDS = ["[PAD]", "[UNK]", "a", "rocket", "flying", "left", "cat", "##s", ",", "run", "##ning"]
LENGTH = 6
VOCABULARY = json.dumps({"kind": "wordpiece", "tokens": WORDS}).encode()
PROMPT = "A rocket, flying LEFT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a bundle is made of."""

    program: Program
    graphs: Mapping[str, Graph]
    """By component."""
    roles: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of components whose name is no role."""
    samplers: Mapping[str, Sampler] = field(default_factory=dict[str, Sampler])
    tables: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip of a model."""

    name: str
    model: Model
    seed: int = 7
    steps: int | None = None
    prompt: str | None = None
    picture: bool = False
    """Whether a picture is given, always the same."""
    clip_frames: int = 0
    """Frames of a clip that is given, always the same."""
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])


def levels(*shape: int) -> np.ndarray:
    """Return pixels, no two neighbours alike: what pictures and clips of the cases are."""
    count = int(np.prod(shape))
    return (np.arange(count, dtype=np.uint32) * 37 % 256).astype(np.uint8).reshape(shape)


# --- samplers ------------------------------------------------------------------------------------


def _sampler(kind: str, prediction: str, steps: Mapping[int, Any], **more: Any) -> Sampler:
    made = {
        n: Schedule(sigmas=tuple(map(float, sigmas)), timesteps=tuple(map(float, timesteps)))
        for n, (sigmas, timesteps) in steps.items()
    }
    default = more.pop("default_steps", max(made))
    return Sampler(
        kind=kind, prediction_type=prediction, schedules=made, default_steps=default, **more
    )


def _even(steps: int) -> tuple[list[float], list[float]]:
    sigmas = [1 - index / steps for index in range(steps + 1)]
    return sigmas, [1000 * sigma for sigma in sigmas[:-1]]


STEPS = (1, 2, 4)
FLOW = {n: _even(n) for n in STEPS}
ALPHAS = schedules.alphas_cumprod()
LCM_TIMESTEPS = {n: schedules.lcm_timesteps(n) for n in STEPS}
LCM = {
    n: (schedules.alphas_cumprod_sigmas(ALPHAS, LCM_TIMESTEPS[n]), LCM_TIMESTEPS[n]) for n in STEPS
}
# Written out: what makes them takes a power of the machine's library.
EDM = {
    1: ([80.0, 0.0], [1.0955]),
    2: ([80.0, 2.5, 0.0], [1.0955, 0.2291]),
    4: ([80.0, 9.5, 1.25, 0.125, 0.0], [1.0955, 0.5628, 0.0558, -0.5199]),
}
ABOVE_ZERO = {
    1: ([14.5, 0.03], [999.0]),
    2: ([14.5, 1.6, 0.03], [999.0, 499.0]),
    4: ([14.5, 4.25, 1.6, 0.55, 0.03], [999.0, 749.0, 499.0, 249.0]),
}
STRAIGHT = _sampler("flow_euler", "velocity", FLOW)
SAMPLERS = {
    "flow_euler of velocity": STRAIGHT,
    "flow_euler of samples": _sampler("flow_euler", "sample", FLOW),
    "flow_consistency of velocity": _sampler("flow_consistency", "velocity", FLOW),
    "flow_consistency of samples": _sampler("flow_consistency", "sample", FLOW),
    "lcm of epsilon": _sampler("lcm", "epsilon", LCM),
    "lcm of v": _sampler("lcm", "v_prediction", LCM),
    "edm_euler of v": _sampler("edm_euler", "v_prediction", EDM, init_noise_sigma=80.0),
    "edm_euler of epsilon, last level above 0": _sampler(
        "edm_euler", "epsilon", ABOVE_ZERO, init_noise_sigma=14.534
    ),
    "euler_ancestral of epsilon": _sampler(
        "euler_ancestral", "epsilon", EDM, init_noise_sigma=80.00625
    ),
    "euler_ancestral of samples, last level above 0": _sampler(
        "euler_ancestral", "sample", ABOVE_ZERO, init_noise_sigma=14.5
    ),
}


# --- models --------------------------------------------------------------------------------------


def _video(frames: int, side: int = 4) -> VideoSpec:
    return VideoSpec(frames=frames, height=side, width=side, fps=8.0)


def text_model(
    sampler: Sampler = STRAIGHT,
    *,
    frames: int = 2,
    at_once: int | None = None,
    network: Graph | None = None,
    **decoding: Any,
) -> Model:
    """Return the usual model of a prompt."""
    at_once = at_once or frames
    network = network or denoiser(frames, Conditions(tokens=LENGTH, place=1))
    usual = UsualModel(
        task="text_to_video",
        video=_video(frames),
        latents=(frames, CHANNELS, 2, 2),
        denoiser="denoiser",
        denoiser_inputs=tuple(network.inputs),
        decode_frames=at_once,
    )
    graphs = {
        "text_encoder": text_encoder(len(WORDS), LENGTH),
        "denoiser": network,
        "vae_decoder": decoder(at_once, **decoding),
    }
    return Model(program=usual_program(usual), graphs=graphs, samplers={"main": sampler})


def picture_model(sampler: Sampler, *, frames: int = 2, at_once: int = 2) -> Model:
    """Return the usual model of a picture."""
    network = denoiser(frames, Conditions(tokens=1, image=True, ids=True))
    usual = UsualModel(
        task="image_to_video",
        video=_video(frames),
        latents=(frames, CHANNELS, 2, 2),
        denoiser="denoiser",
        denoiser_inputs=tuple(network.inputs),
        decode_frames=at_once,
        added_time_ids=(6.0, 127.0, 0.02),
    )
    graphs = {
        "image_encoder": image_encoder(),
        "vae_encoder": vae_encoder(),
        "denoiser": network,
        "vae_decoder": decoder(at_once),
    }
    return Model(program=usual_program(usual), graphs=graphs, samplers={"main": sampler})


def _run(component: str, inputs: Mapping[str, str], **outputs: str) -> Run:
    return Run(component=component, inputs=dict(inputs), outputs=outputs)


def _decode(latents: str = "latents", frames: str = "frames") -> Run:
    return _run("vae_decoder", {"latents": latents}, frames=frames)


def _noise(shape: Sequence[int], output: str = "start", stream: int = 0) -> DrawNoise:
    return DrawNoise(stream=stream, shape=tuple(shape), output=output)


def _sample(*operations: Operation, **changes: Any) -> Sample:
    usual: dict[str, Any] = {
        "sampler": "main",
        "start": "start",
        "stream": 0,
        "index": "step",
        "model_input": "z",
        "timestep": "timestep",
        "model_output": "m",
        "output": "latents",
    }
    return Sample(operations=operations, **{**usual, **changes})


def _program(
    task: Task, frames: int, operations: Sequence[Operation], side: int = 4, **inputs: Any
) -> Program:
    return Program(
        name="default",
        task=task,
        video=_video(frames, side),
        inputs=inputs,
        operations=tuple(operations),
        output="frames",
    )


def _latents(frames: int, side: int = 2) -> tuple[int, ...]:
    return (frames, CHANNELS, side, side)


def masked_text_model() -> Model:
    """Return a model whose prompt stands between words, with a mask and ids of 64 bits."""
    network = denoiser(2, Conditions(tokens=LENGTH, place=LENGTH - 1))
    given = {"sample": "z", "timestep": "timestep", "encoder_hidden_states": "hidden"}
    operations = (
        Tokenize(
            input="prompt",
            before="a ",
            after=", running",
            tokenizer="main",
            output="ids",
            mask="mask",
        ),
        _run(
            "text_encoder",
            {"input_ids": "ids", "attention_mask": "mask"},
            encoder_hidden_states="hidden",
        ),
        _noise(_latents(2)),
        _sample(_run("denoiser", given, model_output="m")),
        _decode(),
    )
    encoder = text_encoder(len(WORDS), LENGTH, ids="int64", masked=True)
    return Model(
        program=_program("text_to_video", 2, operations, prompt=PromptInput()),
        graphs={"text_encoder": encoder, "denoiser": network, "vae_decoder": decoder(2)},
        samplers={"main": STRAIGHT},
    )


def _clip_of(frames: int) -> ClipInput:
    return ClipInput(frames=frames, height=4, width=4, fps=8.0)


_WINDOW = Take(array="latents", axis=0, start=Index(start=0, steps={"w": 2}), size=4, output="part")


def window_model(blend: str, overlap: int = 2) -> Model:
    """Return a model that works on eight frames of a clip in three windows of four."""
    operations = (
        _run("vae_encoder", {"image": "clip"}, latents="latents"),
        Loop(
            count=3,
            index="w",
            operations=(_WINDOW, _run("upscaler", {"x": "part"}, y="better")),
            collected={"better": Collected(output="joined", axis=0, overlap=overlap, blend=blend)},
        ),
        _decode("joined"),
    )
    return Model(
        program=_program("upscale", 8, operations, clip=_clip_of(8)),
        graphs={
            "vae_encoder": pixel_encoder(8),
            "upscaler": ramp(_latents(4)),
            "vae_decoder": decoder(8),
        },
    )


def noisy_windows_model(sampler: Sampler) -> Model:
    """Return a model that samples in loops in each other, with noise of a window of its own."""
    inner = (
        _noise(_latents(1), "start", 3),
        _sample(
            _run("denoiser", {"sample": "z", "timestep": "timestep"}, model_output="m"),
            stream=1000,
            output="inner",
        ),
    )
    operations = (
        _run("vae_encoder", {"image": "clip"}, latents="source"),
        Loop(
            count=2,
            index="row",
            operations=(
                Loop(
                    count=3,
                    index="column",
                    operations=inner,
                    collected={"inner": Collected(output="three", axis=0)},
                ),
            ),
            collected={"three": Collected(output="six", axis=0)},
        ),
        Linear(terms=(Term(array="six"), Term(array="source", scale=0.125)), output="latents"),
        _decode(),
    )
    return Model(
        program=_program("video_to_video", 6, operations, clip=_clip_of(6)),
        graphs={
            "vae_encoder": pixel_encoder(6),
            "denoiser": denoiser(1, Conditions()),
            "vae_decoder": decoder(6),
        },
        samplers={"main": sampler},
    )


def state_model() -> Model:
    """Return a model that hands a state from frame to frame, and shows the last one too."""
    operations = (
        _run("vae_encoder", {"image": "clip"}, latents="latents"),
        _noise(_latents(1), "calm", 5),
        Loop(
            count=3,
            index="frame",
            carried={"state": Carried(start="calm", next="next_state", output="last")},
            operations=(
                Take(
                    array="latents",
                    axis=0,
                    start=Index(start=2, steps={"frame": -1}),
                    size=1,
                    output="one",
                ),
                Run(
                    component="interpolator",
                    inputs={"x": "one", "state": "state"},
                    outputs={"y": "moved", "next_state": "next_state"},
                ),
            ),
            collected={"moved": Collected(output="three", axis=0)},
        ),
        Concat(arrays=("three", "last"), axis=0, output="four"),
        _decode("four"),
    )
    return Model(
        program=_program("upscale", 4, operations, clip=_clip_of(3)),
        graphs={
            "vae_encoder": pixel_encoder(3),
            "interpolator": cell(_latents(1)),
            "vae_decoder": decoder(4),
        },
    )


def anchor_model() -> Model:
    """Return a model that makes a clip in parts: each begins at the end of the last.

    The denoiser has a cache, which goes from step to step, and from part to part.
    """
    cached = Run(
        component="denoiser",
        inputs={"sample": "z", "cache": "cache"},
        outputs={"model_output": "m", "new_cache": "new_cache"},
    )
    operations = (
        Tokenize(input="prompt", tokenizer="main", output="ids"),
        _run("text_encoder", {"input_ids": "ids"}, encoder_hidden_states="hidden"),
        Take(array="hidden", axis=1, start=Index(start=1), size=4, output="four_words"),
        _run("conditioning", {"x": "four_words"}, y="anchor_start"),
        _noise(_latents(1), "cold", 9),
        Loop(
            count=3,
            index="part",
            carried={
                "anchor": Carried(start="anchor_start", next="tail"),
                "warm": Carried(start="cold", next="left", output="cache_end"),
            },
            operations=(
                _noise(_latents(2), "grain", 0),
                Linear(
                    terms=(Term(array="grain", scale=0.9), Term(array="grain", scale=0.1)),
                    output="mixed",
                ),
                Concat(arrays=("anchor", "mixed"), axis=0, output="start"),
                _sample(
                    cached,
                    stream=100,
                    timestep="unused",
                    carried={"cache": Carried(start="warm", next="new_cache", output="left")},
                    output="piece",
                ),
                Take(array="piece", axis=0, start=Index(start=2), size=1, output="tail"),
            ),
            collected={"piece": Collected(output="long", axis=0, overlap=1, blend="linear")},
        ),
        Linear(
            terms=(Term(array="long"),),
            offset=0.0625,
            output="latents",
        ),
        Take(array="latents", axis=0, start=Index(start=0), size=7, output="cut"),
        Concat(arrays=("cut", "cache_end"), axis=0, output="all"),
        _decode("all"),
    )
    consistency = _sampler("flow_consistency", "velocity", FLOW, default_steps=2)
    return Model(
        program=_program("text_to_video", 8, operations, prompt=PromptInput()),
        graphs={
            "text_encoder": text_encoder(len(WORDS), LENGTH),
            "conditioning": reshaper((1, 4, CHANNELS), _latents(1)),
            "denoiser": caching_denoiser(3),
            "vae_decoder": decoder(8),
        },
        samplers={"main": consistency},
    )


def two_stage_model() -> Model:
    """Return a model that samples small, enlarges, adds noise, and samples again in fixed steps."""
    small = _run("base", {"sample": "z", "timestep": "timestep"}, model_output="m")
    large = _run("refiner", {"sample": "z2", "timestep": "t2"}, model_output="m2")
    refine = _sampler(
        "flow_consistency",
        "sample",
        {2: ([0.5, 0.25, 0.0], [500.0, 250.0])},
        adjustable=False,
    )
    operations = (
        Tokenize(input="prompt", tokenizer="main", output="ids"),
        _run("text_encoder", {"input_ids": "ids"}, encoder_hidden_states="hidden"),
        Take(array="hidden", axis=1, start=Index(start=0), size=4, output="four_words"),
        _run("adapter", {"x": "four_words"}, y="tint"),
        _noise(_latents(2)),
        _sample(small, output="draft"),
        Resample(array="draft", method="nearest", factor=2, output="large"),
        _noise(_latents(2, 4), "grain", 40),
        Linear(
            terms=(Term(array="large", scale=0.5), Term(array="grain", scale=0.5)),
            output="second_start",
        ),
        _sample(
            large,
            sampler="refine",
            start="second_start",
            stream=50,
            index="second_step",
            model_input="z2",
            timestep="t2",
            model_output="m2",
            output="refined",
        ),
        Resample(array="refined", method="mean", factor=2, output="latents"),
        Take(array="tint", axis=1, start=Index(start=0), size=1, stride=1, output="word"),
        Take(array="word", axis=2, start=Index(start=1), size=1, output="shade"),
        Linear(terms=(Term(array="latents"), Term(array="draft", scale="shade")), output="blended"),
        _decode("blended"),
    )
    return Model(
        program=_program("text_to_video", 2, operations, prompt=PromptInput()),
        graphs={
            "text_encoder": text_encoder(len(WORDS), LENGTH),
            "adapter": scaler((1, 4, CHANNELS)),
            "base": denoiser(2, Conditions()),
            "refiner": denoiser(2, Conditions(), size=(4, 4), gain=0.625),
            "vae_decoder": decoder(2),
        },
        roles={"base": "denoiser", "refiner": "denoiser"},
        samplers={"main": STRAIGHT, "refine": refine},
    )


def table_model() -> Model:
    """Return a model with a table of each type, and numbers that a caller chooses."""
    operations = (
        _run("vae_encoder", {"image": "clip"}, latents="source"),
        Numbers(
            values=(1.5, InputValue(input="strength", scale=0.25, offset=-0.0625)), output="pair"
        ),
        Take(array="pair", axis=0, start=Index(start=1), size=1, output="weight"),
        Run(
            component="conditioning",
            inputs={"places": "places", "levels": "levels"},
            outputs={"rows": "rows", "tint": "tint"},
        ),
        Take(
            array="shifts",
            axis=0,
            start=Index(start=0, steps={"first": 1}),
            size=2,
            stride=2,
            output="shift",
        ),
        Linear(
            terms=(
                Term(array="source", scale="strength"),
                Term(array="shift", scale="weight"),
                Term(array="shades", scale=0.0078125),
            ),
            offset=-0.375,
            output="mixed",
        ),
        Take(array="mixed", axis=0, start=Index(start=0), size=1, output="first_frame"),
        Linear(terms=(Term(array="first_frame"), Term(array="tint")), output="tinted"),
        Take(array="rows", axis=0, start=Index(start=1), size=4, output="four_rows"),
        Linear(terms=(Term(array="four_rows", scale=0.5),), output="shaped"),
        _run("adapter", {"x": "shaped"}, y="second_frame"),
        _run("upscaler", {"x": "second_frame"}, y="third_frame"),
        Take(array="mixed", axis=0, start=Index(start=1), size=1, output="last_frame"),
        Concat(arrays=("tinted", "third_frame", "last_frame"), axis=0, output="latents"),
        _decode(),
    )
    return Model(
        program=_program(
            "video_to_video",
            3,
            operations,
            clip=_clip_of(2),
            strength=NumberInput(minimum=0.0, maximum=1.0, default=0.75),
            first=NumberInput(minimum=0.0, maximum=3.0, default=1.0, whole=True),
        ),
        graphs={
            "vae_encoder": pixel_encoder(2),
            "conditioning": lookup(9, 6),
            "adapter": reshaper((4, CHANNELS), _latents(1)),
            "upscaler": scaler(_latents(1)),
            "vae_decoder": decoder(3),
        },
        tables={
            "places": np.array([8, 0, 3, 3, 7, 1], np.int32),
            "levels": levels(1, CHANNELS, 2, 2),
            "shades": levels(2, CHANNELS, 2, 2)[::-1].copy(),
            "shifts": (np.arange(6 * 48, dtype=np.float64) % 13 / 16 - 0.3)
            .astype(np.float32)
            .reshape(6, CHANNELS, 2, 2),
        },
    )


def bytes_model() -> Model:
    """Return a model without graphs of latents: a clip is taken apart, and given back."""
    operations = (
        Take(array="clip", axis=0, start=Index(start=3), size=2, stride=1, output="late"),
        Take(array="clip", axis=0, start=Index(start=0), size=2, stride=3, output="early"),
        _run("vae_encoder", {"image": "late"}, latents="latents"),
        _decode("latents", "again"),
        Concat(arrays=("early", "again"), axis=0, output="frames"),
    )
    return Model(
        program=_program("upscale", 4, operations, clip=_clip_of(5)),
        graphs={"vae_encoder": pixel_encoder(2), "vae_decoder": decoder(2, bytes_=True)},
    )


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
        run = _run("denoiser", {"sample": "z"}, model_output="m")
        operations = (
            _run("vae_encoder", {"image": "clip"}, latents="source"),
            _noise(_latents(frames), "grain", 2),
            Linear(
                terms=(Term(array="grain", scale=0.75), Term(array="source", scale=0.25)),
                output="start",
            ),
            _sample(run, timestep="unused"),
            _decode(),
        )
        return Model(
            program=_program("video_to_video", frames, operations, clip=_clip_of(frames)),
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
