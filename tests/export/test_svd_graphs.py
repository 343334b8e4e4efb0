"""The graphs of Stable Video Diffusion: together they are the public pipeline."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.usefixtures("seeded"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # diffusers
]
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("onnxscript", reason="needs the extra export")
pytest.importorskip("diffusers", reason="needs the extra dev")

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from comparing import lively, relative_error  # noqa: E402
from PIL import Image  # noqa: E402
from tiny_svd import (  # noqa: E402
    CLIP_FIELDS,
    UNET_FIELDS,
    VAE_BLOCKS,
    VAE_FIELDS,
    public_scheduler,
)
from torch import Tensor, nn  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside the libraries
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )
    from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from mvsdk_export.families.autoencoder import Autoencoder, AutoencoderConfig  # noqa: E402
from mvsdk_export.families.stable_diffusion.light_decoder import (  # noqa: E402
    LightDecoder,
    LightDecoderConfig,
    LightDecoderGraph,
)
from mvsdk_export.families.svd.clip_vision import ClipVisionConfig, ClipVisionEncoder  # noqa: E402
from mvsdk_export.families.svd.graphs import (  # noqa: E402
    CLIP_MEAN,
    CLIP_STD,
    AntialiasedResize,
    DecoderGraph,
    DenoiserGraph,
    FirstFrameGraph,
    ImageEncoderGraph,
    OneStepGraph,
    resize_matrix,
)
from mvsdk_export.families.svd.unet import SVDUNet, SVDUNetConfig  # noqa: E402
from mvsdk_export.families.svd.vae import TemporalAutoencoder, TemporalAutoencoderConfig  # noqa: E402
from mvsdk_export.graphs.onnx import export_onnx  # noqa: E402
from mvsdk_export.layers.selection import select_implementations_  # noqa: E402

FRAMES, HEIGHT, WIDTH = 3, 64, 48
UNET = UNET_FIELDS | {"num_frames": FRAMES}
# The public code resizes to 224 whatever the encoder wants.
PUBLIC_CLIP: dict[str, Any] = CLIP_FIELDS | {"image_size": 224, "patch_size": 56}
VAE = VAE_FIELDS | {"block_out_channels": (32, 32, 64, 64)}


def _unet(**fields: Any) -> SVDUNet:
    return lively(SVDUNet(SVDUNetConfig(**UNET, **fields)))


def _vae() -> TemporalAutoencoder:
    return lively(TemporalAutoencoder(TemporalAutoencoderConfig(**VAE)))


def _encoder() -> ClipVisionEncoder:
    return lively(ClipVisionEncoder(ClipVisionConfig(**CLIP_FIELDS)))


def _conditions() -> dict[str, Tensor]:
    return {
        "encoder_hidden_states": torch.randn(1, 1, UNET["cross_attention_dim"]),
        "image_latents": torch.randn(1, 4, 8, 6),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]),
    }


def _image(height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    return torch.randint(0, 256, (1, height, width, 3)) / 255.0


# The public pipeline


def _pipeline() -> StableVideoDiffusionPipeline:
    """Build the public pipeline with small networks of random weights."""
    return StableVideoDiffusionPipeline(
        vae=lively(AutoencoderKLTemporalDecoder(down_block_types=VAE_BLOCKS, **VAE)),
        image_encoder=lively(CLIPVisionModelWithProjection(CLIPVisionConfig(**PUBLIC_CLIP))),
        unet=lively(UNetSpatioTemporalConditionModel(**UNET)),
        scheduler=public_scheduler(),
        feature_extractor=CLIPImageProcessor(image_mean=CLIP_MEAN, image_std=CLIP_STD),
    )


def _ours(pipeline: StableVideoDiffusionPipeline) -> tuple[Any, Any, Any]:
    """Return our networks with the weights of a public pipeline."""
    encoder = ClipVisionEncoder(ClipVisionConfig(**PUBLIC_CLIP))
    networks = (
        (encoder, pipeline.image_encoder),
        (TemporalAutoencoder(TemporalAutoencoderConfig(**VAE)), pipeline.vae),
        (SVDUNet(SVDUNetConfig(**UNET)), pipeline.unet),
    )
    for network, reference in networks:
        network.load_state_dict(reference.state_dict())
        network.eval()
    return networks[0][0], networks[1][0], networks[2][0]


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray((image[0] * 255).round().to(torch.uint8).numpy())


@pytest.mark.parametrize("guidance", [None, (1.0, 3.0)])
@torch.no_grad()
def test_four_steps_are_those_of_the_public_pipeline(
    guidance: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = _pipeline()
    pipeline.set_progress_bar_config(disable=True)
    encoder, vae, unet = _ours(pipeline)
    image, latents = _image(), torch.randn(1, FRAMES, 4, 8, 6)
    noise, strength = torch.randn(1, 3, HEIGHT, WIDTH), 0.3
    monkeypatch.setattr(
        pipeline_stable_video_diffusion, "randn_tensor", lambda *_, **__: noise.clone()
    )
    low, high = guidance or (1.0, 1.0)
    want = pipeline(
        _picture(image),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=4,
        min_guidance_scale=low,
        max_guidance_scale=high,
        noise_aug_strength=strength,
        latents=latents,
        output_type="pt",
    ).frames[0]

    context = ImageEncoderGraph(encoder, HEIGHT, WIDTH)(image)
    first = FirstFrameGraph(vae)(image, noise, torch.tensor([strength]))
    denoiser = DenoiserGraph(unet, guidance)
    scheduler = public_scheduler()
    scheduler.set_timesteps(4)
    x = latents[0] * scheduler.init_noise_sigma
    for sigma, following in zip(scheduler.sigmas[:-1], scheduler.sigmas[1:], strict=True):
        root = (sigma**2 + 1).sqrt()
        velocity = denoiser(
            x / root, 0.25 * sigma.log()[None], context, first, torch.tensor([[6.0, 127.0, 0.3]])
        )
        denoised = x / root**2 - sigma / root * velocity
        x = denoised + following / sigma * (x - denoised)
    frames = DecoderGraph(vae)(x)
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert float(want.std()) > 0.05
    assert float((frames.permute(0, 3, 1, 2) - want).abs().max()) < 1e-3


@torch.no_grad()
def test_one_step_is_the_denoised_result_of_the_first_step() -> None:
    unet, noise, conditions = _unet(), torch.randn(FRAMES, 4, 8, 6), _conditions()
    got = OneStepGraph(unet)(noise, **conditions)
    scheduler = public_scheduler()
    scheduler.set_timesteps(4)
    timestep = scheduler.timesteps[0]
    x = noise * scheduler.init_noise_sigma
    velocity = DenoiserGraph(unet)(
        scheduler.scale_model_input(x, timestep), timestep[None], **conditions
    )
    want = scheduler.step(velocity, timestep, x).pred_original_sample
    assert relative_error(got, want) < 1e-4


# Graph by graph


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(256, 512, 224), (576, 1024, 224), (64, 48, 224), (224, 300, 224), (30, 47, 28)],
)
@pytest.mark.parametrize("form", ["matmul", "two_terms"])
def test_resizing_is_that_of_the_public_pipeline(
    height: int, width: int, size: int, form: str
) -> None:
    resize, image = AntialiasedResize(height, width, size), torch.rand(3, height, width)
    resize.implementation = form
    public = pipeline_stable_video_diffusion._resize_with_antialiasing
    want = (public(image[None] * 2 - 1, (size, size))[0] + 1) / 2
    assert float((resize(image) - want).abs().max()) < 1e-4
    assert not resize.state_dict()


def test_resizing_keeps_a_flat_image_and_needs_no_real_device() -> None:
    for length in (2, 28, 29, 500):
        assert torch.allclose(resize_matrix(length, 28).sum(dim=1), torch.ones(28), atol=1e-6)
    with torch.device("meta"):
        resize = AntialiasedResize(40, 30, 28)
        assert resize(torch.empty(3, 40, 30)).shape == (3, 28, 28)
    assert resize(torch.ones(1, 40, 30)).allclose(torch.ones(1, 28, 28), atol=1e-5)


@torch.no_grad()
def test_image_encoder_sees_a_normalised_image() -> None:
    encoder = _encoder()
    graph, seen = ImageEncoderGraph(encoder, HEIGHT, WIDTH), list[Tensor]()
    encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    colour = torch.tensor(CLIP_MEAN) + torch.tensor(CLIP_STD) * torch.tensor([1.0, 0.0, -1.0])
    assert graph(colour.expand(1, HEIGHT, WIDTH, 3)).shape == (1, 1, CLIP_FIELDS["projection_dim"])
    want = torch.tensor([1.0, 0.0, -1.0])[None, :, None, None].expand(1, 3, 28, 28)
    assert torch.allclose(seen[0], want, atol=1e-5)


@pytest.mark.parametrize("build", [_vae, lambda: Autoencoder(AutoencoderConfig())])
@torch.no_grad()
def test_first_frame_is_the_unscaled_code_of_a_noisy_image(build: Callable[[], Any]) -> None:
    vae = build()
    image, noise = _image(), torch.randn(1, 3, HEIGHT, WIDTH)
    want = vae.encode(image.permute(0, 3, 1, 2) * 2 - 1 + 0.25 * noise)
    assert torch.equal(FirstFrameGraph(vae)(image, noise, torch.tensor([0.25])), want)


@torch.no_grad()
def test_decoder_undoes_the_scale_and_clamps() -> None:
    vae = _vae()
    vae.decoder.time_conv_out.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    latents = torch.randn(FRAMES, 4, 3, 2)
    frames = DecoderGraph(vae)(latents * vae.config.scaling_factor)
    want = (vae.decode(latents) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert torch.allclose(frames, want, atol=1e-4)
    assert (frames == 0).any()
    assert (frames == 1).any()


@torch.no_grad()
def test_guidance_grows_from_the_first_frame_to_the_last() -> None:
    unet, conditions = _unet(), _conditions()
    inputs = {"sample": torch.randn(FRAMES, 4, 8, 6), "timestep": torch.randn(1), **conditions}
    with_image = DenoiserGraph(unet)(**inputs)
    zeroed = {
        key: torch.zeros_like(conditions[key]) for key in ("encoder_hidden_states", "image_latents")
    }
    without = DenoiserGraph(unet)(**inputs | zeroed)
    got = DenoiserGraph(unet, (1.0, 3.0))(**inputs)
    for frame, scale in enumerate((1.0, 2.0, 3.0)):
        want = without[frame] + scale * (with_image[frame] - without[frame])
        assert relative_error(got[frame], want) < 1e-4
    assert relative_error(got[0], with_image[0]) < 1e-4


# What targets read


def _one_step() -> tuple[nn.Module, dict[str, Tensor]]:
    unet = _unet(
        folded_cross_attention=True,
        frame_levels=1,
        temporal_blocks="110" * 8,
        funnel_factor=0.5,
    )
    return OneStepGraph(unet), {"sample": torch.randn(FRAMES, 4, 8, 6), **_conditions()}


def _guided() -> tuple[nn.Module, dict[str, Tensor]]:
    inputs = {"sample": torch.randn(FRAMES, 4, 8, 6), "timestep": torch.randn(1), **_conditions()}
    unet = _unet(folded_cross_attention=True, temporal_blocks="0" * 24)
    return DenoiserGraph(unet, (1.0, 3.0)), inputs


def _image_encoder() -> tuple[nn.Module, dict[str, Tensor]]:
    return ImageEncoderGraph(_encoder(), HEIGHT, WIDTH), {"image": _image()}


def _vae_encoder() -> tuple[nn.Module, dict[str, Tensor]]:
    inputs = {
        "image": _image(),
        "noise": torch.randn(1, 3, HEIGHT, WIDTH),
        "noise_aug_strength": torch.full((1,), 0.02),
    }
    return FirstFrameGraph(_vae()), inputs


def _vae_decoder() -> tuple[nn.Module, dict[str, Tensor]]:
    return DecoderGraph(_vae()), {"latents": torch.randn(FRAMES, 4, 4, 3)}


def _light_decoder() -> tuple[nn.Module, dict[str, Tensor]]:
    config = LightDecoderConfig(decoder_block_out_channels=(16,) * 4)
    return LightDecoderGraph(LightDecoder(config)), {"latents": torch.randn(FRAMES, 4, 4, 3)}


@pytest.mark.parametrize(
    "build",
    [
        _image_encoder,
        _vae_encoder,
        _vae_decoder,
        _light_decoder,
        pytest.param(_one_step, marks=(pytest.mark.slow, pytest.mark.exhaustive)),
        pytest.param(_guided, marks=(pytest.mark.slow, pytest.mark.exhaustive)),
    ],
)
@torch.no_grad()
def test_graphs_are_traced_in_the_forms_of_npus(
    build: Callable[[], tuple[nn.Module, dict[str, Tensor]]], tmp_path: Path
) -> None:
    graph, inputs = build()
    want = graph.eval()(**inputs)
    path = tmp_path / "model.onnx"
    export_onnx(select_implementations_(graph, "htp"), inputs, ["out"], path)
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    assert [value.name for value in model.input] == list(inputs)
    values = [*model.input, *model.value_info, *model.output]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    ranks |= {tensor.name: len(tensor.dims) for tensor in model.initializer}
    assert {name for node in model.node for name in node.output} <= ranks.keys()
    assert max(ranks.values()) == 4
    kinds = {node.op_type for node in model.node}
    assert not kinds & {"InstanceNormalization", "Sigmoid", "Swish", "Erf", "Split"}
    constants = {tensor.name for tensor in model.initializer}
    folded = [node.op_type for node in model.node if constants.issuperset(node.input)]
    assert not folded
    feeds = {key: value.numpy() for key, value in inputs.items()}
    got = onnxruntime.InferenceSession(path).run(None, feeds)[0]
    assert relative_error(torch.from_numpy(np.asarray(got)), want) < 1e-3
