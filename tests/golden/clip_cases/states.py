"""Models that hand states, anchors and caches on, from frame to frame or part to part."""

from __future__ import annotations

from clip_cases.coders import decoder, pixel_encoder, text_encoder
from clip_cases.denoisers import caching_denoiser
from clip_cases.graphs import CHANNELS
from clip_cases.layers import cell, reshaper
from clip_cases.models import (
    LENGTH,
    WORDS,
    Model,
    clip_of,
    decode,
    latents_of,
    noise,
    program_of,
    run,
    sample,
)
from clip_cases.samplers import FLOW, sampler_of
from mvsdk.manifest import (
    Carried,
    Collected,
    Concat,
    Index,
    Linear,
    Loop,
    PromptInput,
    Run,
    Take,
    Term,
    Tokenize,
)


def state_model() -> Model:
    """Return a model that hands a state from frame to frame, and shows the last one too."""
    operations = (
        run("vae_encoder", {"image": "clip"}, latents="latents"),
        noise(latents_of(1), "calm", 5),
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
        decode("four"),
    )
    return Model(
        program=program_of("upscale", 4, operations, clip=clip_of(3)),
        graphs={
            "vae_encoder": pixel_encoder(3),
            "interpolator": cell(latents_of(1)),
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
        run("text_encoder", {"input_ids": "ids"}, encoder_hidden_states="hidden"),
        Take(array="hidden", axis=1, start=Index(start=1), size=4, output="four_words"),
        run("conditioning", {"x": "four_words"}, y="anchor_start"),
        noise(latents_of(1), "cold", 9),
        Loop(
            count=3,
            index="part",
            carried={
                "anchor": Carried(start="anchor_start", next="tail"),
                "warm": Carried(start="cold", next="left", output="cache_end"),
            },
            operations=(
                noise(latents_of(2), "grain", 0),
                Linear(
                    terms=(Term(array="grain", scale=0.9), Term(array="grain", scale=0.1)),
                    output="mixed",
                ),
                Concat(arrays=("anchor", "mixed"), axis=0, output="start"),
                sample(
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
        decode("all"),
    )
    consistency = sampler_of("flow_consistency", "velocity", FLOW, default_steps=2)
    return Model(
        program=program_of("text_to_video", 8, operations, prompt=PromptInput()),
        graphs={
            "text_encoder": text_encoder(len(WORDS), LENGTH),
            "conditioning": reshaper((1, 4, CHANNELS), latents_of(1)),
            "denoiser": caching_denoiser(3),
            "vae_decoder": decoder(8),
        },
        samplers={"main": consistency},
    )
