"""Models of tables, numbers of the caller, and bytes: what is no matter of a sampler."""

from __future__ import annotations

import numpy as np

from clip_cases.coders import decoder, pixel_encoder
from clip_cases.graphs import CHANNELS
from clip_cases.layers import lookup, reshaper, scaler
from clip_cases.models import Model, clip_of, decode, latents_of, levels, program_of, run
from mvsdk.manifest import Concat, Index, InputValue, Linear, NumberInput, Numbers, Run, Take, Term


def table_model() -> Model:
    """Return a model with a table of each type, and numbers that a caller chooses."""
    operations = (
        run("vae_encoder", {"image": "clip"}, latents="source"),
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
        run("adapter", {"x": "shaped"}, y="second_frame"),
        run("upscaler", {"x": "second_frame"}, y="third_frame"),
        Take(array="mixed", axis=0, start=Index(start=1), size=1, output="last_frame"),
        Concat(arrays=("tinted", "third_frame", "last_frame"), axis=0, output="latents"),
        decode(),
    )
    return Model(
        program=program_of(
            "video_to_video",
            3,
            operations,
            clip=clip_of(2),
            strength=NumberInput(minimum=0.0, maximum=1.0, default=0.75),
            first=NumberInput(minimum=0.0, maximum=3.0, default=1.0, whole=True),
        ),
        graphs={
            "vae_encoder": pixel_encoder(2),
            "conditioning": lookup(9, 6),
            "adapter": reshaper((4, CHANNELS), latents_of(1)),
            "upscaler": scaler(latents_of(1)),
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
        run("vae_encoder", {"image": "late"}, latents="latents"),
        decode("latents", "again"),
        Concat(arrays=("early", "again"), axis=0, output="frames"),
    )
    return Model(
        program=program_of("upscale", 4, operations, clip=clip_of(5)),
        graphs={"vae_encoder": pixel_encoder(2), "vae_decoder": decoder(2, bytes_=True)},
    )
