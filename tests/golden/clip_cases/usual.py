"""Models of a prompt or a picture, one denoiser and one decoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clip_cases.coders import decoder, image_encoder, text_encoder, vae_encoder
from clip_cases.denoisers import Conditions, denoiser
from clip_cases.graphs import CHANNELS, Graph
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
    video_of,
)
from clip_cases.samplers import STRAIGHT
from mvsdk.manifest import (
    InputValue,
    Linear,
    NegativePromptInput,
    NumberInput,
    Numbers,
    Operation,
    PromptInput,
    Run,
    Sampler,
    Term,
    Tokenize,
)
from mvsdk.manifest.usual import UsualModel, usual_program


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
        video=video_of(frames),
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
        video=video_of(frames),
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


def guided_model(sampler: Sampler) -> Model:
    """Return a model whose denoiser runs twice a step: with a prompt, and with another."""
    network = denoiser(2, Conditions(tokens=LENGTH, place=1))
    scale = InputValue(input="guidance_scale")

    def encode(prompt: str, before: str, name: str) -> list[Operation]:
        return [
            Tokenize(input=prompt, before=before, tokenizer="main", output=f"{name}_ids"),
            run("text_encoder", {"input_ids": f"{name}_ids"}, encoder_hidden_states=name),
        ]

    def evaluate(name: str, output: str) -> Run:
        given = {"sample": "z", "timestep": "timestep", "encoder_hidden_states": name}
        return run("denoiser", given, model_output=output)

    mixed = (Term(array="with_text", scale="scale"), Term(array="without", scale="rest"))
    operations = (
        *encode("prompt", "", "text"),
        *encode("negative_prompt", "a ", "negative_text"),
        Numbers(values=(scale,), output="scale"),
        Numbers(values=(replace(scale, scale=-1.0, offset=1.0),), output="rest"),
        noise(latents_of(2)),
        sample(
            evaluate("text", "with_text"),
            evaluate("negative_text", "without"),
            Linear(terms=mixed, output="m"),
        ),
        decode(),
    )
    inputs = {
        "prompt": PromptInput(),
        "negative_prompt": NegativePromptInput(),
        "guidance_scale": NumberInput(minimum=1.0, maximum=20.0, default=7.5),
    }
    return Model(
        program=program_of("text_to_video", 2, operations, **inputs),
        graphs={
            "text_encoder": text_encoder(len(WORDS), LENGTH),
            "denoiser": network,
            "vae_decoder": decoder(2),
        },
        samplers={"main": sampler},
    )


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
        run(
            "text_encoder",
            {"input_ids": "ids", "attention_mask": "mask"},
            encoder_hidden_states="hidden",
        ),
        noise(latents_of(2)),
        sample(run("denoiser", given, model_output="m")),
        decode(),
    )
    encoder = text_encoder(len(WORDS), LENGTH, ids="int64", masked=True)
    return Model(
        program=program_of("text_to_video", 2, operations, prompt=PromptInput()),
        graphs={"text_encoder": encoder, "denoiser": network, "vae_decoder": decoder(2)},
        samplers={"main": STRAIGHT},
    )
