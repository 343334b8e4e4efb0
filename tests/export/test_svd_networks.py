"""The networks of Stable Video Diffusion against the public implementations."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("seeded")]
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("diffusers", reason="needs the extra dev")

import torch  # noqa: E402
from comparing import count_parameters, lively, relative_error  # noqa: E402
from small_svd_unets import FRAMES, SMALL, small_inputs  # noqa: E402
from tiny_svd import CLIP_FIELDS, VAE_BLOCKS  # noqa: E402
from torch import nn  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside the libraries
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mvsdk_export.families.svd.clip_vision import ClipVisionConfig, ClipVisionEncoder  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNet, SVDUNetConfig  # noqa: E402
from mvsdk_export.families.svd.vae import TemporalAutoencoder, TemporalAutoencoderConfig  # noqa: E402
from mvsdk_export.layers.activations import ACTIVATIONS  # noqa: E402

MEDIUM = SMALL | {
    "block_out_channels": (64, 96, 128, 160),
    "num_attention_heads": (2, 3, 2, 5),
    "layers_per_block": 2,
    "transformer_layers_per_block": 2,
    "cross_attention_dim": 40,
}
MEDIUM_CLIP: dict[str, Any] = {
    "hidden_size": 320,
    "intermediate_size": 1280,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,  # 80 channels each, as in the public model
    "image_size": 112,
    "patch_size": 14,
    "projection_dim": 256,
    "hidden_act": "gelu",
}


@pytest.mark.parametrize(
    ("fields", "clips", "size", "tokens"),
    [
        (SMALL, 1, (16, 24), 1),
        (SMALL, 2, (8, 8), 1),
        (SMALL, 2, (12, 20), 3),
        (MEDIUM, 1, (16, 24), 1),
        (MEDIUM, 2, (12, 20), 3),
    ],
)
@torch.no_grad()
def test_unet_is_the_public_one(
    fields: dict[str, Any], clips: int, size: tuple[int, int], tokens: int
) -> None:
    reference = UNetSpatioTemporalConditionModel(**fields)
    lively(reference)
    network = SVDUNet(SVDUNetConfig(**fields)).eval()
    network.load_state_dict(reference.state_dict())
    inputs = small_inputs(clips, size=size)
    inputs["encoder_hidden_states"] = torch.randn(clips, tokens, fields["cross_attention_dim"])
    stacked = inputs | {"sample": inputs["sample"].unflatten(0, (clips, FRAMES))}
    stacked["timestep"] = torch.full((), 1.3)  # the public network takes one for the whole batch
    inputs["timestep"] = torch.full((clips,), 1.3)
    want = reference(**stacked).sample.flatten(0, 1)
    assert relative_error(network(**inputs), want) < 1e-4


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_autoencoder_is_the_public_one(layers: int) -> None:
    fields: dict[str, Any] = {
        "block_out_channels": (32, 64, 64, 96),
        "layers_per_block": layers,
    }
    reference = AutoencoderKLTemporalDecoder(down_block_types=VAE_BLOCKS, **fields)
    lively(reference)
    network = TemporalAutoencoder(TemporalAutoencoderConfig(**fields)).eval()
    network.load_state_dict(reference.state_dict())
    frames = torch.randn(6, 3, 24, 40)
    want = reference.encode(frames).latent_dist.mode()
    assert relative_error(network.encode(frames), want) < 1e-4
    latents = torch.randn(6, 4, 3, 5)
    for num_frames in (3, 6):
        want = reference.decode(latents, num_frames=num_frames).sample
        assert relative_error(network.decode(latents, num_frames), want) < 1e-4
    assert torch.equal(network.decode(latents), network.decode(latents, 6))


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@torch.no_grad()
def test_image_encoder_is_the_public_one(activation: str) -> None:
    assert _error_of_image_encoder(CLIP_FIELDS | {"hidden_act": activation}, std=0.2) < 1e-5


@torch.no_grad()
def test_image_encoder_of_medium_size_is_the_public_one() -> None:
    assert _error_of_image_encoder(MEDIUM_CLIP, std=0.05) < 1e-4


def _error_of_image_encoder(fields: dict[str, Any], std: float) -> float:
    """Return the relative error to the public encoder with the same random weights."""
    reference = CLIPVisionModelWithProjection(CLIPVisionConfig(**fields))
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=std)
    network = ClipVisionEncoder(ClipVisionConfig(**fields)).eval()
    network.load_state_dict(reference.eval().state_dict())
    pixels = torch.randn(2, 3, fields["image_size"], fields["image_size"])
    return relative_error(network(pixels), reference(pixels).image_embeds)


FULL_SIZE: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], int]] = {
    "unet": (
        lambda: SVDUNet(SVDUNetConfig()),
        lambda: UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20)),
        1_524_623_082,
    ),
    "vae": (
        lambda: TemporalAutoencoder(TemporalAutoencoderConfig()),
        lambda: AutoencoderKLTemporalDecoder(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=VAE_BLOCKS
        ),
        97_742_847,
    ),
    "image_encoder": (
        lambda: ClipVisionEncoder(ClipVisionConfig()),
        lambda: CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                **{field.name: field.default for field in dataclasses.fields(ClipVisionConfig)}
            )
        ),
        632_076_800,
    ),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_public_weights_fit_the_networks_of_full_size(name: str) -> None:
    build, build_reference, parameters = FULL_SIZE[name]
    with torch.device("meta"):
        network, reference = build(), build_reference()
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert shapes == {key: value.shape for key, value in reference.state_dict().items()}
    assert count_parameters(network) == parameters


def test_impossible_image_encoders_are_refused() -> None:
    for fields, message in (
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; known: gelu, quick_gelu"),
        ({"num_attention_heads": 5}, r"hidden_size is 32; num_attention_heads \(5\) divides it"),
        ({"patch_size": 8}, r"image_size is 28; patch_size \(8\) divides it"),
        ({"image_size": 1 << 20, "patch_size": 1 << 14}, "image_size is 1048576; it is at most"),
        ({"image_size": 1024, "patch_size": 8}, "patch_size is 8; at most 64 patches lie along"),
    ):
        with pytest.raises(ValueError, match=message):
            ClipVisionEncoder(dataclasses.replace(ClipVisionConfig(**CLIP_FIELDS), **fields))
