"""The golden manifest of Video LDM: key frames, two rounds of interpolation, an upscaler."""

from __future__ import annotations

from collections.abc import Mapping

from manifest_models.parts import (
    CLIP_HIDDEN,
    CPU_AND_NPU,
    each_frame,
    graph,
    licences,
    real,
    run,
    sample,
    sampler,
    sets_of,
    source,
    table,
    take,
    tokenizer,
    whole,
)
from mvsdk.manifest import (
    Collected,
    Component,
    Concat,
    DrawNoise,
    Index,
    Linear,
    Loop,
    Manifest,
    NumberInput,
    Numbers,
    Operation,
    Program,
    PromptInput,
    Term,
    Tokenize,
    VideoSpec,
)

LEVEL_STREAM, TILE_STREAM, KEY_STREAM = 65600, 5000, 1000

KEYS, FRAMES = 8, 113
LATENT = (4, 16, 32)
TILE, OVERLAP, SCALE = (72, 96), 16, 4


def video_ldm_cascade() -> Manifest:
    """Eight key frames become 29 and 113, which are enlarged four times, tile by tile."""
    components = _cascade_components()
    return Manifest(
        name="video-ldm",
        programs=(
            Program(
                name="512x1024",
                task="text_to_video",
                video=VideoSpec(frames=FRAMES, height=512, width=1024, fps=30.0),
                inputs={
                    "noise_level": NumberInput(
                        minimum=0.0, maximum=350.0, default=20.0, whole=True
                    ),
                    "prompt": PromptInput(),
                },
                operations=(
                    Tokenize(input="prompt", tokenizer="clip", output="input_ids"),
                    run("text_encoder", {"input_ids": "input_ids"}, {CLIP_HIDDEN.name: "hidden"}),
                    *_keys(),
                    *_interpolated("coarse", "keys", KEYS, 0.0, KEY_STREAM),
                    *_interpolated("fine", "coarse", 29, 1.0, 2 * KEY_STREAM),
                    each_frame("vae_decoder", FRAMES, "fine", ("latents", "picture"), "small"),
                    *_enlarged(),
                ),
                output="large",
            ),
        ),
        components=components,
        sets=sets_of(components, *CPU_AND_NPU),
        samplers={
            "interpolate": sampler(
                "lcm",
                "epsilon",
                {2: ((14.6146, 0.6932, 0.0), (999.0, 499.0)), 4: LCM},
                default_steps=2,
                adjustable=False,
            ),
            "keys": sampler("lcm", "v_prediction", {4: LCM}, default_steps=4),
            "upscale": sampler("edm_euler", "v_prediction", {1: ((14.6146, 0.0), (999.0,))}),
        },
        tokenizers={"clip": tokenizer("clip_bpe", "tokenizer/clip.json", 77)},
        tables={
            "between": table("between", "float32", 3, *LATENT),
            "known": table("known", "float32", 5, 1, *LATENT[1:]),
            "levels": table("levels", "float32", 351),
            "signals": table("signals", "float32", 351),
        },
        source=source("video-ldm"),
        licences=licences(),
    )


LCM = ((14.6146, 4.0817, 1.6153, 0.6932, 0.0), (999.0, 759.0, 499.0, 259.0))


def _cascade_components() -> dict[str, Component]:
    keys, window, tile = (KEYS, *LATENT), (5, *LATENT), TILE
    large = (SCALE * tile[0], SCALE * tile[1])
    return {
        "interpolator": graph(
            "interpolator",
            [
                real("sample", *window),
                real("timestep", 1),
                CLIP_HIDDEN,
                real("context", *window),
                real("mask", 5, 1, *LATENT[1:]),
                real("label", 1),
            ],
            [real("model_output", *window)],
            CPU_AND_NPU,
        ),
        "text_encoder": graph(
            "text_encoder", [whole("input_ids", 1, 77)], [CLIP_HIDDEN], CPU_AND_NPU
        ),
        "tile_decoder": graph(
            "tile_decoder",
            [real("latents", 1, 4, *tile)],
            [real("frames", 1, *large, 3)],
            CPU_AND_NPU,
            role="vae_decoder",
        ),
        "unet": graph(
            "unet",
            [real("sample", *keys), real("timestep", 1), CLIP_HIDDEN],
            [real("model_output", *keys)],
            CPU_AND_NPU,
            role="denoiser",
        ),
        "upscaler": graph(
            "upscaler",
            [
                real("sample", 1, 4, *tile),
                real("timestep", 1),
                CLIP_HIDDEN,
                real("low_resolution", 1, 3, *tile),
                real("noise_level", 1),
            ],
            [real("model_output", 1, 4, *tile)],
            CPU_AND_NPU,
        ),
        "vae_decoder": graph(
            "vae_decoder",
            [real("latents", 1, *LATENT)],
            [real("picture", 1, 3, 128, 256)],
            CPU_AND_NPU,
        ),
    }


def _keys() -> list[Operation]:
    inputs = {"sample": "key_input", "timestep": "key_timestep", CLIP_HIDDEN.name: "hidden"}
    call = run("unet", inputs, {"model_output": "key_output"})
    return [
        DrawNoise(stream=0, shape=(KEYS, *LATENT), output="key_noise"),
        sample([call], "keys", "key", sampler="keys", stream=0),
    ]


def _interpolated(name: str, source: str, count: int, label: float, stream: int) -> list[Operation]:
    """Put three frames between each two: windows of five, of which the ends are known."""
    window = f"{name}_window"
    here, there = (Index(start=start, steps={window: 1}) for start in (0, 1))
    inputs = {
        "sample": f"{name}_input",
        "timestep": f"{name}_timestep",
        CLIP_HIDDEN.name: "hidden",
        "context": f"{name}_context",
        "mask": "known",
        "label": f"{name}_label",
    }
    call = run("interpolator", inputs, {"model_output": f"{name}_output"})
    inside: list[Operation] = [
        take(source, here, 1, f"{name}_first"),
        take(source, there, 1, f"{name}_second"),
        Concat(
            arrays=(f"{name}_first", "between", f"{name}_second"),
            axis=0,
            output=f"{name}_context",
        ),
        DrawNoise(stream=stream, shape=(5, *LATENT), output=f"{name}_noise"),
        sample([call], f"{name}_five", name, sampler="interpolate", stream=stream),
        take(f"{name}_five", 1, 3, f"{name}_three"),
        Concat(arrays=(f"{name}_first", f"{name}_three"), axis=0, output=f"{name}_part"),
    ]
    return [
        Numbers(values=(label,), output=f"{name}_label"),
        Loop(
            count=count - 1,
            index=window,
            operations=tuple(inside),
            collected={f"{name}_part": Collected(output=f"{name}_parts", axis=0)},
        ),
        take(source, count - 1, 1, f"{name}_last"),
        Concat(arrays=(f"{name}_parts", f"{name}_last"), axis=0, output=name),
    ]


def _enlarged() -> list[Operation]:
    """Enlarge tiles that overlap, from pictures with as much noise as the caller wants."""
    level = Index(start=0, steps={"noise_level": 1})
    noisy = (Term(array="frame_low", scale="signal"), Term(array="low_noise", scale="level"))
    columns = Loop(
        count=3,
        index="column",
        operations=_tile(),
        collected=_joined("tile", "row_of_tiles", 2),
    )
    rows = Loop(
        count=2,
        index="row",
        operations=(
            take("noisy", Index(start=0, steps={"row": TILE[0] - OVERLAP}), TILE[0], "strip", 2),
            columns,
        ),
        collected=_joined("row_of_tiles", "large_frame", 1),
    )
    frames = Loop(
        count=FRAMES,
        index="large_index",
        operations=(
            take("small", Index(start=0, steps={"large_index": 1}), 1, "frame_low"),
            DrawNoise(stream=LEVEL_STREAM, shape=(1, 3, 128, 256), output="low_noise"),
            Linear(terms=noisy, output="noisy"),
            rows,
        ),
        collected={"large_frame": Collected(output="large", axis=0)},
    )
    return [take("signals", level, 1, "signal"), take("levels", level, 1, "level"), frames]


def _tile() -> tuple[Operation, ...]:
    start = Index(start=0, steps={"column": TILE[1] - OVERLAP})
    inputs = {
        "sample": "tile_input",
        "timestep": "tile_timestep",
        CLIP_HIDDEN.name: "hidden",
        "low_resolution": "low",
        "noise_level": "noise_level",
    }
    return (
        take("strip", start, TILE[1], "low", 3),
        DrawNoise(stream=TILE_STREAM, shape=(1, 4, *TILE), output="tile_noise"),
        sample(
            [run("upscaler", inputs, {"model_output": "tile_output"})],
            "tile_latents",
            "tile",
            sampler="upscale",
            stream=TILE_STREAM,
        ),
        run("tile_decoder", {"latents": "tile_latents"}, {"frames": "tile"}),
    )


def _joined(array: str, output: str, axis: int) -> Mapping[str, Collected]:
    overlap = SCALE * OVERLAP
    return {array: Collected(output=output, axis=axis, overlap=overlap, blend="linear")}
