"""Write golden manifests of format version 3: the usual tasks, and one for each kind of system.

`make_golden.py` writes them into `manifests/`. Those of versions 1 and 2 there are kept by hand, as
nothing writes such documents any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import manifest_fairy
import manifest_pyramid
import manifest_video_ldm
from manifest_parts import (
    COREAI_FP16,
    COREML_W8,
    ONNX_FP16,
    ONNX_FP32,
    SM8750,
    XNNPACK,
    each_frame,
    graph,
    licences,
    pixels,
    real,
    ref,
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
    Component,
    DrawNoise,
    Linear,
    Manifest,
    NumberInput,
    Program,
    PromptInput,
    Sample,
    Term,
    Tokenize,
    Variant,
    VariantSet,
    Verification,
    VideoSpec,
)
from mvsdk.manifest.usual import UsualModel, usual_program

GOLDEN = Path(__file__).resolve().parent
MANIFESTS = GOLDEN / "manifests"
OLD = ("1_text_to_video", "1_image_to_video", "2_text_to_video", "2_image_to_video")
"""Manifests of versions 1 and 2."""

LIGHTNING = ((25.1464, 6.5573, 2.2763, 0.8668, 0.0), (999.0, 749.0, 499.0, 249.0))
DDIM = ((25.1464, 2.2763, 0.0292), (999.0, 499.0))


def sticker() -> Manifest:
    """Text to video, for every target; the files for one chip are a pack."""
    phone = snapdragon("w8a16", pack="sm8650")
    kinds = (ONNX_FP32, phone, COREML_W8, XNNPACK)
    components = {
        "text_encoder": graph(
            "text_encoder",
            [whole("input_ids", 1, 16)],
            [real("encoder_hidden_states", 1, 16, 128)],
            kinds,
        ),
        "unet": graph(
            "unet",
            [
                real("sample", 8, 16, 8, 8),
                real("timestep", 1),
                real("encoder_hidden_states", 1, 16, 128),
            ],
            [real("model_output", 8, 16, 8, 8)],
            kinds,
            role="denoiser",
        ),
        "vae_decoder": graph(
            "vae_decoder", [real("latents", 8, 16, 8, 8)], [pixels("frames", 8, 64, 64, 3)], kinds
        ),
    }
    program = usual_program(
        UsualModel(
            task="text_to_video",
            video=VideoSpec(frames=8, height=64, width=64, fps=8.0),
            latents=(8, 16, 8, 8),
            denoiser="unet",
            denoiser_inputs=("sample", "timestep", "encoder_hidden_states"),
            decode_frames=8,
        )
    )
    schedules = {
        1: ((1.0, 0.0), (1000.0,)),
        2: ((1.0, 0.75, 0.0), (1000.0, 750.0)),
        4: ((1.0, 0.9, 0.75, 0.5, 0.0), (1000.0, 900.0, 750.0, 500.0)),
    }
    return Manifest(
        name="sticker",
        programs=(program,),
        components=components,
        sets=sets_of(components, *kinds),
        samplers={"main": sampler("flow_euler", "velocity", schedules, guidance_scale=3.0)},
        tokenizers={"main": tokenizer("wordpiece", "tokenizer/vocab.json", 16, "refuse")},
        packs=("sm8650",),
        source=source("sticker"),
        licences=licences(),
        costs={"unet": {"flops": 3.1e8, "parameters": 2600000.0}},
        verification=(
            Verification(
                component="unet",
                variant=phone.id,
                case="a rocket flying left, seed 7",
                step=0,
                metric="psnr",
                value_db=45.25,
                floor_db=40.0,
                passed=True,
                measured_on="QNN HTP emulator, QNN 2.51",
                reference="PyTorch float32",
            ),
            Verification(
                component="end_to_end",
                variant=ONNX_FP32.id,
                case="a rocket flying left, seed 7",
                metric="frame_difference_psnr",
                value_db=None,
                floor_db=35.0,
                passed=True,
                measured_on="ONNX Runtime 1.31.1, CPU",
                reference="PyTorch float32",
            ),
        ),
        extensions={"x-guidance": [1, 3], "x-note": {"é": "火箭 🚀", "a": [1.5, None, 1e-07]}},
    )


def animator() -> Manifest:
    """Image to video, where the decoder takes two of fourteen frames at once."""
    kinds = (ONNX_FP16, snapdragon("w8a16", SM8750), COREAI_FP16)
    picture = pixels("image", 1, 256, 512, 3)
    hidden = real("encoder_hidden_states", 1, 1, 1024)
    image_latents = real("image_latents", 1, 4, 32, 64)
    latents = (14, 4, 32, 64)
    denoiser_inputs = [
        real("sample", *latents),
        real("timestep", 1),
        hidden,
        image_latents,
        real("added_time_ids", 1, 3),
        real("image_only_indicator", 1, 14),
    ]
    components = {
        "image_encoder": graph("image_encoder", [picture], [hidden], kinds),
        "unet": graph(
            "unet", denoiser_inputs, [real("model_output", *latents)], kinds, role="denoiser"
        ),
        "vae_decoder": graph(
            "vae_decoder",
            [real("latents", 2, 4, 32, 64)],
            [pixels("frames", 2, 256, 512, 3)],
            kinds,
        ),
        "vae_encoder": graph(
            "vae_encoder",
            [picture, real("noise", 1, 3, 256, 512), real("noise_aug_strength", 1)],
            [image_latents],
            kinds,
        ),
    }
    program = usual_program(
        UsualModel(
            task="image_to_video",
            video=VideoSpec(frames=14, height=256, width=512, fps=7.0),
            latents=latents,
            denoiser="unet",
            denoiser_inputs=[tensor.name for tensor in denoiser_inputs],
            decode_frames=2,
            constants={"image_only_indicator": (0.0,) * 14},
            added_time_ids=(6.0, 127.0, 0.02),
        )
    )
    return Manifest(
        name="animator",
        programs=(program,),
        components=components,
        sets=sets_of(components, *kinds),
        samplers={
            "main": sampler(
                "edm_euler",
                "v_prediction",
                {1: ((700.0, 0.0), (1.6377,)), 2: ((700.0, 4.5, 0.0), (1.6377, 0.376))},
                default_steps=1,
                init_noise_sigma=700.0,
            )
        },
        source=source("animator"),
        licences=licences(),
        costs={"unet": {"flops": 1.5e12, "activation_peak_bytes": 268435456.0}},
    )


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
    names = {tensor.name: tensor.name for tensor in keys}
    program = Program(
        name="512x512",
        task="text_to_video",
        video=VideoSpec(frames=16, height=512, width=512, fps=8.0),
        inputs={"prompt": PromptInput()},
        operations=(
            Tokenize(input="prompt", tokenizer="clip", output="input_ids"),
            run("text_encoder", {"input_ids": "input_ids"}, {hidden.name: hidden.name}),
            run("conditioning", {hidden.name: hidden.name}, names),
            DrawNoise(stream=0, shape=latents, output="start"),
            Sample(
                sampler="main",
                start="start",
                stream=0,
                index="step",
                model_input="model_input",
                timestep="timestep",
                operations=(
                    run(
                        "unet",
                        {"sample": "model_input", "timestep": "timestep", **names},
                        {"model_output": "model_output"},
                    ),
                ),
                model_output="model_output",
                output="latents",
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


def several_sizes() -> Manifest:
    """One model in two sizes: two functions of a package, and two graphs elsewhere."""
    kinds = (ONNX_FP32, COREML_W8)
    hidden = real("encoder_hidden_states", 1, 16, 128)
    components: dict[str, Component] = {
        "text_encoder": graph("text_encoder", [whole("input_ids", 1, 16)], [hidden], kinds)
    }
    programs: list[Program] = []
    for width, height in ((96, 64), (64, 96)):
        size, shape = f"{width}x{height}", (8, 16, height // 8, width // 8)
        denoiser, decoder = f"unet.{size}", f"vae_decoder.{size}"
        components[denoiser] = graph(
            denoiser,
            [real("sample", *shape), hidden],
            [real("model_output", *shape)],
            kinds,
            role="denoiser",
            function=f"size_{size}",
            package="unet",
        )
        components[decoder] = graph(
            decoder,
            [real("latents", *shape)],
            [pixels("frames", 8, height, width, 3)],
            kinds,
            role="vae_decoder",
            function=f"size_{size}",
            package="vae_decoder",
        )
        components[denoiser] = _on_its_own(denoiser, components[denoiser])
        components[decoder] = _on_its_own(decoder, components[decoder])
        usual = usual_program(
            UsualModel(
                task="text_to_video",
                video=VideoSpec(frames=8, height=height, width=width, fps=8.0),
                latents=shape,
                denoiser=denoiser,
                denoiser_inputs=("sample", "encoder_hidden_states"),
                decode_frames=8,
            )
        )
        operations = list(usual.operations)
        operations[-1] = run(decoder, {"latents": "latents"}, {"frames": "frames"})
        programs.append(replace(usual, name=size, operations=tuple(operations)))
    return Manifest(
        name="several-sizes",
        programs=tuple(programs),
        components=components,
        sets=sets_of(components, *kinds),
        samplers={"main": sampler("flow_euler", "sample", {1: ((1.0, 0.0), (1.0,))})},
        tokenizers={"main": tokenizer("wordpiece", "tokenizer/vocab.json", 16, "refuse")},
        source=source("several sizes"),
        licences=licences(),
    )


def _on_its_own(name: str, component: Component) -> Component:
    """Give each size a graph of its own where a package does not hold both."""
    return replace(component, variants=tuple(_moved(name, item) for item in component.variants))


def _moved(name: str, variant: Variant) -> Variant:
    if variant.function is not None:
        return variant
    folder = variant.model.rpartition("/")[0]
    path = f"{folder}/{name.partition('.')[2]}.onnx"
    return replace(variant, model=path, files=(ref(path), ref(f"{folder}/weights.bin")))


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
            Sample(
                sampler="main",
                start="start",
                stream=0,
                index="step",
                model_input="model_input",
                timestep="timestep",
                operations=(
                    run(
                        "unet",
                        {
                            "sample": "model_input",
                            "timestep": "timestep",
                            hidden.name: hidden.name,
                            "clip_latents": "clip_latents",
                        },
                        {"model_output": "model_output"},
                    ),
                ),
                model_output="model_output",
                output="latents",
            ),
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


def upgraded(name: str) -> Callable[[], Manifest]:
    """Return what reads a manifest of an older version."""
    return lambda: Manifest.from_json((MANIFESTS / f"version_{name}.json").read_bytes())


BUILDERS: Mapping[str, Callable[[], Manifest]] = {
    "sticker": sticker,
    "animator": animator,
    "stable_diffusion_motion": stable_diffusion_motion,
    "video_ldm_cascade": manifest_video_ldm.video_ldm_cascade,
    "fairy_batch": manifest_fairy.fairy_batch,
    "fairy_cache": manifest_fairy.fairy_cache,
    "neodragon": manifest_pyramid.neodragon,
    "several_sizes": several_sizes,
    "upscale": upscale,
    "video_to_video": video_to_video,
    **{f"upgraded_{name}": upgraded(name) for name in OLD},
}
"""Name of the file -> the manifest in it."""


def build(name: str) -> str:
    """Return what a golden file holds."""
    return BUILDERS[name]().to_json().decode()
