"""What a clip of each toy takes: programs, samplers and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

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
    Term,
    Tokenize,
    VideoSpec,
)
from mvsdk_export.families import Recipe
from mvsdk_export.families.pipeline import Pipeline, TokenizerRecipe
from toy_models.networks import KEY_LAYERS

Sizes = Mapping[str, int]

SECOND_STREAM = 4096
"""Stream of the noise that a second sampler starts from."""


def two_stages(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Denoise small frames, enlarge them, put noise on them, denoise again."""
    small = (sizes["F"], sizes["C"], sizes["h0"], sizes["w0"])
    large = (sizes["F"], sizes["C"], sizes["h"], sizes["w"])
    base = Run(
        component="base",
        inputs={"sample": "base_input", "timestep": "base_time", "features": "features"},
        outputs={"model_output": "base_output"},
    )
    second = Run(
        component="second",
        inputs={"sample": "second_input", "timestep": "second_time", "low": "low"},
        outputs={"model_output": "second_output"},
    )
    operations: tuple[Operation, ...] = (
        *_words(),
        DrawNoise(stream=0, shape=small, output="base_start"),
        _sample("base", "main", base),
        Resample(array="base_latents", method="nearest", factor=2, output="low"),
        DrawNoise(stream=SECOND_STREAM, shape=large, output="second_noise"),
        Linear(
            terms=(Term(array="second_noise", scale=0.6), Term(array="low", scale=0.4)),
            output="second_start",
        ),
        _sample("second", "second", second, stream=SECOND_STREAM),
        _decode("second_latents"),
    )
    return Pipeline(
        programs=(_program(recipe, sizes, operations),),
        samplers={"main": sampler, "second": _fixed(sampler, (0.6, 0.3, 0.0))},
        tokenizers=_tokenizers(sizes),
    )


def windows(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Denoise key frames, then the frames from each to the next, then decode in parts."""
    count, window, at_once = sizes["K"], sizes["N"], sizes["f"]
    side = (sizes["C"], sizes["h"], sizes["w"])
    keys = Run(
        component="keys",
        inputs={"sample": "keys_input", "timestep": "keys_time", "features": "features"},
        outputs={"model_output": "keys_output"},
    )
    between = Run(
        component="between",
        inputs={
            "sample": "between_input",
            "timestep": "between_time",
            "guide": "guide",
            "positions": "positions",
        },
        outputs={"model_output": "between_output"},
    )
    parts = sizes["F"] // at_once
    operations: tuple[Operation, ...] = (
        *_words(),
        DrawNoise(stream=0, shape=(count, *side), output="keys_start"),
        _sample("keys", "main", keys),
        Loop(
            count=count - 1,
            index="window",
            operations=(
                _take("keys_latents", 0, {"window": 1}, 1, "first"),
                _take("keys_latents", 1, {"window": 1}, 1, "last"),
                Concat(arrays=("first", "last"), axis=1, output="guide"),
                DrawNoise(stream=SECOND_STREAM, shape=(window, *side), output="between_start"),
                _sample("between", "between", between, stream=SECOND_STREAM),
            ),
            collected={
                "between_latents": Collected(output="latents", axis=0, overlap=1, blend="linear")
            },
        ),
        Loop(
            count=parts,
            index="part",
            operations=(
                _take("latents", 0, {"part": at_once}, at_once, "part_latents"),
                _decode("part_latents", "part_frames"),
            ),
            collected={"part_frames": Collected(output="frames", axis=0)},
        ),
    )
    return Pipeline(
        programs=(_program(recipe, sizes, operations),),
        samplers={"main": sampler, "between": _fixed(sampler, (1.0, 0.5, 0.0))},
        tokenizers=_tokenizers(sizes),
        tables={"positions": np.linspace(0.0, 1.0, window, dtype=np.float32)},
    )


def states(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Decode latent by latent with a memory; leave out what came before there was one."""
    denoise = Run(
        component="denoiser",
        inputs={"sample": "all_input", "timestep": "all_time", "features": "features"},
        outputs={"model_output": "all_output"},
    )
    decode = Run(
        component="vae_decoder",
        inputs={"latent": "latent", "last_state": "last_state"},
        outputs={"frames": "latent_frames", "next_state": "next_state"},
    )
    shape = (sizes["T"], sizes["C"], sizes["h"], sizes["w"])
    operations: tuple[Operation, ...] = (
        *_words(),
        DrawNoise(stream=0, shape=shape, output="all_start"),
        _sample("all", "main", denoise),
        Loop(
            count=sizes["T"],
            index="place",
            carried={"last_state": Carried(start="no_state", next="next_state")},
            operations=(_take("all_latents", 0, {"place": 1}, 1, "latent"), decode),
            collected={"latent_frames": Collected(output="all_frames", axis=0)},
        ),
        Take(
            array="all_frames",
            axis=0,
            start=Index(start=sizes["T"] * sizes["R"] - sizes["F"]),
            size=sizes["F"],
            output="frames",
        ),
    )
    return Pipeline(
        programs=(_program(recipe, sizes, operations),),
        samplers={"main": sampler},
        tokenizers=_tokenizers(sizes),
        tables={"no_state": np.zeros((1, sizes["M"], sizes["h"], sizes["w"]), np.float32)},
    )


def key_values(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Edit a clip: the first frame alone, the others by its keys and values, with one noise."""
    frames, chunk = sizes["F"], sizes["B"]
    side = (sizes["C"], sizes["h"], sizes["w"])
    crossing = [f"{kind}_{layer}" for layer in range(KEY_LAYERS) for kind in ("key", "value")]
    estimates = ("by_words", "by_picture", "by_nothing")
    given = {"timestep": "edit_time", "features": "features"}
    anchor = Run(
        component="anchor",
        inputs={"sample": "anchor_input", "picture": "anchor_picture", **given},
        outputs={**{x: f"anchor_{x}" for x in estimates}, **{x: x for x in crossing}},
    )
    others = Run(
        component="frames",
        inputs={
            "sample": "chunk_input",
            "picture": "chunk_picture",
            **given,
            **{x: x for x in crossing},
        },
        outputs={x: f"chunk_{x}" for x in estimates},
    )
    places = {"chunk": chunk}
    inside: tuple[Operation, ...] = (
        _take("edit_input", 0, {}, 1, "anchor_input"),
        anchor,
        _guide("anchor"),
        Loop(
            count=(frames - 1) // chunk,
            index="chunk",
            operations=(
                _take("edit_input", 1, places, chunk, "chunk_input"),
                _take("pictures", 1, places, chunk, "chunk_picture"),
                others,
                _guide("chunk"),
            ),
            collected={"chunk_output": Collected(output="others_output", axis=0)},
        ),
        Concat(arrays=("anchor_output", "others_output"), axis=0, output="edit_output"),
    )
    operations: tuple[Operation, ...] = (
        *_words(),
        Run(component="vae_encoder", inputs={"clip": "clip"}, outputs={"latents": "pictures"}),
        _take("pictures", 0, {}, 1, "anchor_picture"),
        Numbers(values=(InputValue(input="guidance_scale", scale=-1.0),), output="less_words"),
        Numbers(
            values=(InputValue(input="image_guidance_scale", scale=-1.0, offset=1.0),),
            output="less_picture",
        ),
        DrawNoise(stream=0, shape=(1, *side), output="one_noise"),
        Concat(arrays=("one_noise",) * frames, axis=0, output="edit_start"),
        Sample(
            sampler="main",
            start="edit_start",
            stream=0,
            index="edit_step",
            model_input="edit_input",
            timestep="edit_time",
            operations=inside,
            model_output="edit_output",
            output="edit_latents",
        ),
        _decode("edit_latents"),
    )
    video = _video(recipe, sizes)
    program = Program(
        name="default",
        task=recipe.task,
        video=video,
        inputs={
            "clip": ClipInput(
                frames=video.frames, height=video.height, width=video.width, fps=video.fps
            ),
            "guidance_scale": NumberInput(minimum=1.0, maximum=8.0, default=5.0),
            "image_guidance_scale": NumberInput(minimum=1.0, maximum=2.0, default=1.5),
            "prompt": PromptInput(),
        },
        operations=operations,
        output="frames",
    )
    ancestral = replace(sampler, kind="euler_ancestral", prediction_type="epsilon")
    return Pipeline(
        programs=(program,), samplers={"main": ancestral}, tokenizers=_tokenizers(sizes)
    )


def enlarge(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Enlarge a clip, some frames at once, without a sampler."""
    del sampler
    at_once = sizes["f"]
    run = Run(
        component="upscaler",
        inputs={"clip": "part_clip", "noise_level": "noise_level"},
        outputs={"frames": "part_frames"},
    )
    loop = Loop(
        count=sizes["F"] // at_once,
        index="part",
        operations=(_take("clip", 0, {"part": at_once}, at_once, "part_clip"), run),
        collected={"part_frames": Collected(output="frames", axis=0)},
    )
    clip = ClipInput(frames=sizes["F"], height=sizes["h"], width=sizes["w"], fps=float(recipe.fps))
    program = Program(
        name="default",
        task=recipe.task,
        video=_video(recipe, sizes),
        inputs={
            "clip": clip,
            "noise_level": NumberInput(minimum=0.0, maximum=1.0, default=0.25),
        },
        operations=(loop,),
        output="frames",
    )
    return Pipeline(programs=(program,), samplers={})


def _video(recipe: Recipe, sizes: Sizes) -> VideoSpec:
    return VideoSpec(frames=sizes["F"], height=sizes["H"], width=sizes["W"], fps=float(recipe.fps))


def _program(recipe: Recipe, sizes: Sizes, operations: tuple[Operation, ...]) -> Program:
    return Program(
        name="default",
        task=recipe.task,
        video=_video(recipe, sizes),
        inputs={"prompt": PromptInput()},
        operations=operations,
        output="frames",
    )


def _tokenizers(sizes: Sizes) -> dict[str, TokenizerRecipe]:
    return {"main": TokenizerRecipe(max_length=sizes["L"])}


def _words() -> tuple[Operation, ...]:
    return (
        Tokenize(input="prompt", tokenizer="main", output="input_ids"),
        Run(
            component="text_encoder",
            inputs={"input_ids": "input_ids"},
            outputs={"features": "features"},
        ),
    )


def _sample(name: str, sampler: str, run: Run, *, stream: int = 0) -> Sample:
    """Return a sampler around one graph, its arrays called after `name`."""
    return Sample(
        sampler=sampler,
        start=f"{name}_start",
        stream=stream,
        index=f"{name}_step",
        model_input=f"{name}_input",
        timestep=f"{name}_time",
        operations=(run,),
        model_output=f"{name}_output",
        output=f"{name}_latents",
    )


def _take(array: str, start: int, steps: Mapping[str, int], size: int, output: str) -> Take:
    place = Index(start=start, steps=steps)
    return Take(array=array, axis=0, start=place, size=size, output=output)


def _decode(latents: str, frames: str = "frames") -> Run:
    return Run(component="vae_decoder", inputs={"latents": latents}, outputs={"frames": frames})


def _guide(name: str) -> Linear:
    """Return by_nothing + i (by_picture - by_nothing) + g (by_words - by_picture)."""
    return Linear(
        terms=(
            Term(array=f"{name}_by_words", scale="guidance_scale"),
            Term(array=f"{name}_by_picture", scale="image_guidance_scale"),
            Term(array=f"{name}_by_picture", scale="less_words"),
            Term(array=f"{name}_by_nothing", scale="less_picture"),
        ),
        output=f"{name}_output",
    )


def _fixed(sampler: Sampler, sigmas: tuple[float, ...]) -> Sampler:
    """Return a sampler like another, of levels that no caller changes."""
    steps = len(sigmas) - 1
    return replace(
        sampler,
        schedules={steps: Schedule(sigmas=sigmas, timesteps=sigmas[:-1])},
        default_steps=steps,
        adjustable=False,
    )
