"""Golden manifests of the usual tasks: a clip of a prompt, and one of a picture."""

from __future__ import annotations

from manifest_models.parts import (
    COREAI_FP16,
    COREML_W8,
    ONNX_FP16,
    ONNX_FP32,
    SM8750,
    XNNPACK,
    graph,
    licences,
    pixels,
    real,
    sampler,
    sets_of,
    snapdragon,
    source,
    tokenizer,
    whole,
)
from mvsdk.manifest import Manifest, Verification, VideoSpec
from mvsdk.manifest.usual import UsualModel, usual_program


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
