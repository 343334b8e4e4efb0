"""Models that work on a clip in windows: with overlaps, and with noise of their own."""

from __future__ import annotations

from clip_cases.coders import decoder, pixel_encoder
from clip_cases.denoisers import Conditions, denoiser
from clip_cases.layers import ramp
from clip_cases.models import Model, clip_of, decode, latents_of, noise, program_of, run, sample
from mvsdk.manifest import Blend, Collected, Index, Linear, Loop, Sampler, Take, Term

_WINDOW = Take(array="latents", axis=0, start=Index(start=0, steps={"w": 2}), size=4, output="part")


def window_model(blend: Blend, overlap: int = 2) -> Model:
    """Return a model that works on eight frames of a clip in three windows of four."""
    operations = (
        run("vae_encoder", {"image": "clip"}, latents="latents"),
        Loop(
            count=3,
            index="w",
            operations=(_WINDOW, run("upscaler", {"x": "part"}, y="better")),
            collected={"better": Collected(output="joined", axis=0, overlap=overlap, blend=blend)},
        ),
        decode("joined"),
    )
    return Model(
        program=program_of("upscale", 8, operations, clip=clip_of(8)),
        graphs={
            "vae_encoder": pixel_encoder(8),
            "upscaler": ramp(latents_of(4)),
            "vae_decoder": decoder(8),
        },
    )


def noisy_windows_model(sampler: Sampler) -> Model:
    """Return a model that samples in loops in each other, with noise of a window of its own."""
    inner = (
        noise(latents_of(1), "start", 3),
        sample(
            run("denoiser", {"sample": "z", "timestep": "timestep"}, model_output="m"),
            stream=1000,
            output="inner",
        ),
    )
    operations = (
        run("vae_encoder", {"image": "clip"}, latents="source"),
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
        decode(),
    )
    return Model(
        program=program_of("video_to_video", 6, operations, clip=clip_of(6)),
        graphs={
            "vae_encoder": pixel_encoder(6),
            "denoiser": denoiser(1, Conditions()),
            "vae_decoder": decoder(6),
        },
        samplers={"main": sampler},
    )
