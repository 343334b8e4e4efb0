"""A model that samples twice: small, and then large."""

from __future__ import annotations

from clip_cases.coders import decoder, text_encoder
from clip_cases.denoisers import Conditions, denoiser
from clip_cases.graphs import CHANNELS
from clip_cases.layers import scaler
from clip_cases.models import (
    LENGTH,
    WORDS,
    Model,
    decode,
    latents_of,
    noise,
    program_of,
    run,
    sample,
)
from clip_cases.samplers import STRAIGHT, sampler_of
from mvsdk.manifest import Index, Linear, PromptInput, Resample, Take, Term, Tokenize


def two_stage_model() -> Model:
    """Return a model that samples small, enlarges, adds noise, and samples again in fixed steps."""
    small = run("base", {"sample": "z", "timestep": "timestep"}, model_output="m")
    large = run("refiner", {"sample": "z2", "timestep": "t2"}, model_output="m2")
    refine = sampler_of(
        "flow_consistency",
        "sample",
        {2: ([0.5, 0.25, 0.0], [500.0, 250.0])},
        adjustable=False,
    )
    operations = (
        Tokenize(input="prompt", tokenizer="main", output="ids"),
        run("text_encoder", {"input_ids": "ids"}, encoder_hidden_states="hidden"),
        Take(array="hidden", axis=1, start=Index(start=0), size=4, output="four_words"),
        run("adapter", {"x": "four_words"}, y="tint"),
        noise(latents_of(2)),
        sample(small, output="draft"),
        Resample(array="draft", method="nearest", factor=2, output="large"),
        noise(latents_of(2, 4), "grain", 40),
        Linear(
            terms=(Term(array="large", scale=0.5), Term(array="grain", scale=0.5)),
            output="second_start",
        ),
        sample(
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
        decode("blended"),
    )
    return Model(
        program=program_of("text_to_video", 2, operations, prompt=PromptInput()),
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
