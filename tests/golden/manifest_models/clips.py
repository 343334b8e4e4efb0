"""Golden manifests that take a clip: made larger, and drawn again."""

from __future__ import annotations

from manifest_models.parts import (
    ONNX_FP32,
    XNNPACK,
    denoise,
    each_frame,
    graph,
    licences,
    pixels,
    real,
    run,
    sampler,
    sets_of,
    snapdragon,
    source,
    tokenizer,
    whole,
)
from mvsdk.manifest import (
    ClipInput,
    DrawNoise,
    Linear,
    Manifest,
    NumberInput,
    Program,
    PromptInput,
    Term,
    Tokenize,
    VideoSpec,
)


def upscale() -> Manifest:
    """A clip in, and twice the height and width out: neither noise nor denoiser."""
    kinds = (ONNX_FP32, snapdragon("w8a8"), XNNPACK)
    components = {
        "upscaler": graph(
            "upscaler",
            [pixels("frames", 1, 180, 320, 3)],
            [pixels("large_frames", 1, 360, 640, 3)],
            kinds,
        )
    }
    program = Program(
        name="2x",
        task="upscale",
        video=VideoSpec(frames=24, height=360, width=640, fps=24.0),
        inputs={"clip": ClipInput(frames=24, height=180, width=320, fps=24.0)},
        operations=(each_frame("upscaler", 24, "clip", ("frames", "large_frames"), "large"),),
        output="large",
    )
    return Manifest(
        name="upscale",
        programs=(program,),
        components=components,
        sets=sets_of(components, *kinds),
        samplers={},
        source=source("a light upscaler"),
        licences=licences(),
    )


def video_to_video() -> Manifest:
    """A clip that is drawn again: noise on its latents, as much as a caller wants."""
    kinds = (ONNX_FP32, snapdragon("w8a16"))
    shape = (8, 16, 8, 8)
    hidden = real("encoder_hidden_states", 1, 16, 128)
    components = {
        "text_encoder": graph("text_encoder", [whole("input_ids", 1, 16)], [hidden], kinds),
        "unet": graph(
            "unet",
            [real("sample", *shape), real("timestep", 1), hidden, real("clip_latents", *shape)],
            [real("model_output", *shape)],
            kinds,
            role="denoiser",
        ),
        "vae_decoder": graph(
            "vae_decoder", [real("latents", *shape)], [pixels("frames", 8, 64, 64, 3)], kinds
        ),
        "vae_encoder": graph(
            "vae_encoder", [pixels("image", 8, 64, 64, 3)], [real("latents", *shape)], kinds
        ),
    }
    program = Program(
        name="default",
        task="video_to_video",
        video=VideoSpec(frames=8, height=64, width=64, fps=8.0),
        inputs={
            "clip": ClipInput(frames=8, height=64, width=64, fps=8.0),
            "noise_level": NumberInput(minimum=0.0, maximum=0.5, default=0.125),
            "prompt": PromptInput(),
        },
        operations=(
            Tokenize(input="prompt", tokenizer="main", output="input_ids"),
            run("text_encoder", {"input_ids": "input_ids"}, {hidden.name: hidden.name}),
            run("vae_encoder", {"image": "clip"}, {"latents": "clean"}),
            DrawNoise(stream=65536, shape=shape, output="clip_noise"),
            Linear(
                terms=(
                    Term(array="clean"),
                    Term(array="clip_noise", scale="noise_level"),
                ),
                output="clip_latents",
            ),
            DrawNoise(stream=0, shape=shape, output="noise"),
            # The sampler begins at 0.6, where six parts of ten are noise.
            Linear(
                terms=(Term(array="clean", scale=0.4), Term(array="noise", scale=0.6)),
                output="start",
            ),
            denoise(hidden.name, "clip_latents"),
            run("vae_decoder", {"latents": "latents"}, {"frames": "frames"}),
        ),
        output="frames",
    )
    schedules = {2: ((0.6, 0.3, 0.0), (600.0, 300.0))}
    return Manifest(
        name="video-to-video",
        programs=(program,),
        components=components,
        sets=sets_of(components, *kinds),
        samplers={"main": sampler("flow_consistency", "velocity", schedules)},
        tokenizers={"main": tokenizer("t5_unigram", "tokenizer/t5.json", 16)},
        source=source("drawn again"),
        licences=licences(),
    )
