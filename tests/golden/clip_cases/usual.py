"""Models of a prompt or a picture, one denoiser and one decoder."""

from __future__ import annotations

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
from mvsdk.manifest import PromptInput, Sampler, Tokenize
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
