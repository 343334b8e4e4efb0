"""The program of Stable Diffusion: tokens, noise, steps with guidance or without, frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mvsdk.manifest import (
    DrawNoise,
    InputValue,
    Linear,
    NegativePromptInput,
    NumberInput,
    Numbers,
    Operation,
    Program,
    PromptInput,
    Run,
    Sample,
    Sampler,
    Term,
    Tokenize,
    VideoSpec,
)
from mvsdk.manifest.usual import PROGRAM, SAMPLER, TOKENIZER, decode_operations
from mvsdk_export.families.pipeline import Pipeline, TokenizerRecipe
from mvsdk_export.families.recipe import Recipe

GUIDANCE = "guidance_scale"
"""Number of the program; with it the denoiser runs twice a step, on one set of weights."""
NEGATIVE = "negative_prompt"
MAX_GUIDANCE = 30.0


def make_pipeline(recipe: Recipe, sampler: Sampler, sizes: Mapping[str, int]) -> Pipeline:
    """Return what makes a clip of a prompt.

    Args:
        recipe: The model.
        sampler: Its `guidance_scale` is what clips are made with by default; 1 for none.
        sizes: Of all symbols.
    """
    guided = sampler.guidance_scale != 1.0
    latents = (sizes["F"], sizes["C"], sizes["h"], sizes["w"])
    operations: list[Operation] = _encode("prompt", "text")
    if guided:
        operations += _encode(NEGATIVE, "negative_text")
        operations += [
            Numbers(values=(InputValue(input=GUIDANCE),), output="scale"),
            Numbers(values=(InputValue(input=GUIDANCE, scale=-1.0, offset=1.0),), output="rest"),
        ]
    steps: tuple[Operation, ...] = (_run("text", "with_text" if guided else "model_output"),)
    if guided:
        mixed = Linear(
            terms=(Term(array="with_text", scale="scale"), Term(array="without", scale="rest")),
            output="model_output",
        )
        steps = (*steps, _run("negative_text", "without"), mixed)
    operations += [
        DrawNoise(stream=0, shape=latents, output="start"),
        Sample(
            sampler=SAMPLER,
            start="start",
            stream=0,
            index="step",
            model_input="model_input",
            timestep="timestep",
            operations=steps,
            model_output="model_output",
            output="latents",
        ),
        *decode_operations(sizes["F"], sizes["f"]),
    ]
    inputs = {"prompt": PromptInput()}
    number = NumberInput(minimum=1.0, maximum=MAX_GUIDANCE, default=sampler.guidance_scale)
    program = Program(
        name=PROGRAM,
        task=recipe.task,
        video=VideoSpec(
            frames=sizes["F"], height=sizes["H"], width=sizes["W"], fps=float(recipe.fps)
        ),
        inputs={**inputs, NEGATIVE: NegativePromptInput(), GUIDANCE: number} if guided else inputs,
        operations=tuple(operations),
        output="frames",
    )
    return Pipeline(
        programs=(program,),
        samplers={SAMPLER: replace(sampler, guidance_scale=1.0)},
        tokenizers={
            TOKENIZER: TokenizerRecipe(kind="clip_bpe", max_length=sizes["L"], too_long="cut")
        },
    )


def _encode(prompt: str, output: str) -> list[Operation]:
    ids = f"{output}_ids"
    return [
        Tokenize(input=prompt, tokenizer=TOKENIZER, output=ids),
        Run(
            component="text_encoder",
            inputs={"input_ids": ids},
            outputs={"encoder_hidden_states": output},
        ),
    ]


def _run(text: str, output: str) -> Run:
    return Run(
        component="unet",
        inputs={
            "sample": "model_input",
            "timestep": "timestep",
            "encoder_hidden_states": text,
        },
        outputs={"model_output": output},
    )
