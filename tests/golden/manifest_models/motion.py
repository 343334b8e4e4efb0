"""The golden manifest of an image model with motion layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from manifest_models.parts import (
    ONNX_FP16,
    ONNX_FP32,
    denoise,
    each_frame,
    graph,
    licences,
    pixels,
    real,
    run,
    sampler,
    snapdragon,
    source,
    tokenizer,
    whole,
)
from mvsdk.manifest import (
    DrawNoise,
    InputValue,
    Linear,
    Manifest,
    NegativePromptInput,
    NumberInput,
    Numbers,
    Operation,
    Program,
    PromptInput,
    Run,
    Tensor,
    Term,
    Tokenize,
    VariantSet,
    VideoSpec,
)

LIGHTNING = ((25.1464, 6.5573, 2.2763, 0.8668, 0.0), (999.0, 749.0, 499.0, 249.0))
DDIM = ((25.1464, 2.2763, 0.0292), (999.0, 499.0))


def stable_diffusion_motion() -> Manifest:
    """An image model with motion layers: each graph where it runs best, and one set of these."""
    on_cpu, on_npu, exact = ONNX_FP16, snapdragon("w8a16"), snapdragon("fp16")
    hidden, latents = real("encoder_hidden_states", 1, 77, 768), (16, 4, 64, 64)
    keys = [real(f"keys_{level}", 77, width) for level, width in enumerate((640, 1280, 2560))]
    components = {
        "conditioning": graph("conditioning", [hidden], keys, (ONNX_FP32, exact)),
        "text_encoder": graph(
            "text_encoder", [whole("input_ids", 1, 77)], [hidden], (ONNX_FP32, on_cpu)
        ),
        "unet": graph(
            "unet",
            [real("sample", *latents), real("timestep", 1), *keys],
            [real("model_output", *latents)],
            (ONNX_FP32, on_npu),
            role="denoiser",
        ),
        "vae_decoder": graph(
            "vae_decoder",
            [real("latents", 1, *latents[1:])],
            [pixels("frames", 1, 512, 512, 3)],
            (ONNX_FP32, exact),
        ),
    }
    phone = {
        "conditioning": exact.id,
        "text_encoder": on_cpu.id,
        "unet": on_npu.id,
        "vae_decoder": exact.id,
    }
    encoded = {"text": "prompt", "negative_text": "negative_prompt"}
    program = Program(
        name="512x512",
        task="text_to_video",
        video=VideoSpec(frames=16, height=512, width=512, fps=8.0),
        inputs={
            "prompt": PromptInput(),
            "negative_prompt": NegativePromptInput(),
            "guidance_scale": NumberInput(minimum=1.0, maximum=20.0, default=7.5),
        },
        operations=(
            *(x for name, given in encoded.items() for x in _encode(given, name, keys)),
            Numbers(values=(InputValue(input="guidance_scale"),), output="scale"),
            Numbers(
                values=(InputValue(input="guidance_scale", scale=-1.0, offset=1.0),), output="rest"
            ),
            DrawNoise(stream=0, shape=latents, output="start"),
            replace(
                denoise(),
                operations=(
                    _denoise("text", "with_text", keys),
                    _denoise("negative_text", "without", keys),
                    Linear(
                        terms=(
                            Term(array="with_text", scale="scale"),
                            Term(array="without", scale="rest"),
                        ),
                        output="model_output",
                    ),
                ),
            ),
            each_frame("vae_decoder", 16, "latents", ("latents", "frames"), "frames"),
        ),
        output="frames",
    )
    return Manifest(
        name="stable-diffusion-motion",
        programs=(program,),
        components=components,
        sets=(
            VariantSet(id="phone", variants=phone),
            VariantSet(id="computer", variants=dict.fromkeys(components, ONNX_FP32.id)),
        ),
        samplers={
            "main": sampler(
                "edm_euler",
                "epsilon",
                {2: DDIM, 4: LIGHTNING},
                init_noise_sigma=25.1464,
                guidance_scale=1.0,
            )
        },
        tokenizers={"clip": tokenizer("clip_bpe", "tokenizer/clip.json", 77)},
        source=source("animatediff-lightning"),
        licences=licences(),
    )


def _encode(prompt: str, name: str, keys: Sequence[Tensor]) -> list[Operation]:
    """Return what makes keys of a text, which are the same at every step."""
    return [
        Tokenize(input=prompt, tokenizer="clip", output=f"{name}_ids"),
        run("text_encoder", {"input_ids": f"{name}_ids"}, {"encoder_hidden_states": name}),
        run(
            "conditioning",
            {"encoder_hidden_states": name},
            {tensor.name: f"{name}_{tensor.name}" for tensor in keys},
        ),
    ]


def _denoise(name: str, output: str, keys: Sequence[Tensor]) -> Run:
    """Return a call of the denoiser with the keys of one text."""
    given = {tensor.name: f"{name}_{tensor.name}" for tensor in keys}
    inputs = {"sample": "model_input", "timestep": "timestep", **given}
    return run("unet", inputs, {"model_output": output})
