"""Public folders of Stable Video Diffusion are read as what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from damage import edit_json, shard_then  # noqa: E402 - after the check for torch
from tiny_svd import (  # noqa: E402
    CLIP_CONFIG,
    INDEX,
    PREPROCESSOR,
    SCHEDULE,
    UNET,
    UNET_CONFIG,
    VAE_CONFIG,
    tiny_pipeline,
    write_pipeline,
)

from mvsdk_export.checkpoints import (  # noqa: E402
    EDMScheduler,
    load_configs,
    open_model,
)
from mvsdk_export.errors import CheckpointError  # noqa: E402
from mvsdk_export.families import find_recipe  # noqa: E402
from mvsdk_export.families.svd.clip_vision import ClipVisionConfig  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNetConfig  # noqa: E402
from mvsdk_export.families.svd.vae import TemporalAutoencoderConfig  # noqa: E402

MOBILEVD = find_recipe("mobilevd")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """Return the pipeline that `tiny_svd_folder` holds."""
    return tiny_pipeline()


def _assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max())


def test_a_public_folder_is_a_checkpoint_of_mobilevd(tiny_svd_folder: Path) -> None:
    folder = open_model(tiny_svd_folder)
    assert folder.recipe == MOBILEVD == open_model(tiny_svd_folder, MOBILEVD).recipe
    assert folder.scheduler == EDMScheduler(sigma_min=0.002, sigma_max=700.0, rho=7.0)
    assert folder.vocabulary is None
    assert folder.vocabulary is None
    folder.check()


def test_loaded_denoiser_computes_what_diffusers_does(tiny_svd_folder: Path, pipeline: Any) -> None:
    torch.manual_seed(0)
    # Groups of two values, as an 8x8 sample has them at the lowest level, magnify rounding.
    sample, context = torch.randn(8, 8, 32, 16), torch.randn(2, 1, 16)
    timestep, ids = torch.tensor([1.6, -0.3]), torch.tensor([[6.0, 127.0, 0.02]] * 2)
    with torch.no_grad():
        ours = open_model(tiny_svd_folder).load("unet")(sample, timestep, context, ids)
        theirs = pipeline.unet(sample.unflatten(0, (2, 4)), timestep, context, ids).sample
    _assert_close(ours, theirs.flatten(0, 1))


def test_loaded_autoencoder_computes_what_diffusers_does(
    tiny_svd_folder: Path, pipeline: Any
) -> None:
    folder = open_model(tiny_svd_folder)
    frames, latents = torch.randn(1, 3, 32, 48), torch.randn(4, 4, 4, 6)
    with torch.no_grad():
        ours = folder.load("vae_encoder").encode(frames)
        _assert_close(ours, pipeline.vae.encode(frames).latent_dist.mode())
        ours = folder.load("vae_decoder").decode(latents)
        _assert_close(ours, pipeline.vae.decode(latents, num_frames=4).sample)


def test_loaded_image_encoder_computes_what_transformers_does(
    tiny_svd_folder: Path, pipeline: Any
) -> None:
    pixels = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        ours = open_model(tiny_svd_folder).load("image_encoder")(pixels)
        _assert_close(ours, pipeline.image_encoder(pixels).image_embeds)


def test_graphs_are_those_of_the_pipeline(tiny_svd_folder: Path) -> None:
    folder = open_model(tiny_svd_folder)
    image = torch.rand(1, 40, 56, 3)
    with torch.no_grad():
        features = folder.load_graph("image_encoder", height=40, width=56)(image)
        noise = torch.randn(1, 3, 40, 56)
        latents = folder.load_graph("vae_encoder")(image, noise, torch.tensor([0.02]))
        inputs = (
            torch.randn(6, 4, 5, 7),
            torch.tensor([1.0]),
            features,
            latents,
            torch.tensor([[6.0, 127.0, 0.02]]),
        )
        plain = folder.load_graph("unet", num_frames=6)(*inputs)
        guided = folder.load_graph("unet", num_frames=6, guidance=(1.0, 3.0))(*inputs)
        frames = folder.load_graph("vae_decoder", num_frames=6)(plain)
    assert features.shape == (1, 1, 16)
    assert latents.shape == (1, 4, 5, 7)
    assert torch.allclose(plain[0], guided[0], atol=1e-5)  # guidance of 1 is none
    assert not torch.allclose(plain[5], guided[5], atol=1e-3)
    assert frames.shape == (6, 40, 56, 3)


def test_the_denoiser_and_the_decoder_make_clips_of_one_length(svd_copy: Path) -> None:
    edit_json(UNET_CONFIG, num_frames=25)(svd_copy)
    configs = open_model(svd_copy).configs()
    assert (configs["unet"].num_frames, configs["vae_decoder"].num_frames) == (25, 25)


def test_half_precision_shards_are_read(
    tiny_svd_folder: Path, pipeline: Any, tmp_path: Path
) -> None:
    half = tiny_pipeline().to(dtype=torch.float16)
    folder = open_model(
        write_pipeline(half, tmp_path / "half", variant="fp16", max_shard_size="2MB")
    )
    names = [ref.path for ref in folder.files_with_hashes()]
    assert "unet/diffusion_pytorch_model.safetensors.index.fp16.json" in names
    assert "image_encoder/model.fp16.safetensors" in names
    assert len([name for name in names if name.startswith("unet/")]) > 4
    for component, theirs in (("unet", pipeline.unet), ("image_encoder", pipeline.image_encoder)):
        for name, value in folder.load(component).state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name].half().float())


def test_a_picture_that_is_too_small_is_refused(tiny_svd_folder: Path) -> None:
    message = (
        "no graph of image_encoder for height 1, width 64: .*; choose other values, or correct"
    )
    with pytest.raises(CheckpointError, match=message):
        open_model(tiny_svd_folder).load_graph("image_encoder", height=1, width=64)


@pytest.mark.parametrize(
    "index",
    [
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.safetensors.fp16.index.json",
        "diffusion_pytorch_model.fp16.safetensors.index.json",
    ],
)
def test_every_name_that_an_index_has_had_is_known(svd_copy: Path, index: str) -> None:
    shard_then(lambda f: (f / f"{UNET}.index.json").rename(f / "unet" / index), UNET)(svd_copy)
    folder = open_model(svd_copy)
    assert folder.weights["unet"].index == folder.path / "unet" / index
    folder.load("unet")


def test_plain_weights_are_preferred_to_a_variant(svd_copy: Path) -> None:
    variant = (svd_copy / UNET).with_name("diffusion_pytorch_model.fp16.safetensors")
    variant.write_bytes(b"not read")
    assert open_model(svd_copy).weights["unet"].files == (svd_copy / UNET,)


def test_every_file_that_matters_is_listed(tiny_svd_folder: Path) -> None:
    assert [ref.path for ref in open_model(tiny_svd_folder).files_with_hashes()] == [
        PREPROCESSOR,
        CLIP_CONFIG,
        "image_encoder/model.safetensors",
        INDEX,
        SCHEDULE,
        UNET_CONFIG,
        UNET,
        VAE_CONFIG,
        "vae/diffusion_pytorch_model.safetensors",
    ]


def test_opening_needs_no_torch(tiny_svd_folder: Path) -> None:
    code = (
        "import sys, pathlib; from mvsdk_export.checkpoints import open_model; "
        f"open_model(pathlib.Path({str(tiny_svd_folder)!r})); "
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


PUBLISHED: dict[str, dict[str, object]] = {
    UNET_CONFIG: {
        "_diffusers_version": "0.24.0.dev0",
        "_name_or_path": "unet",
        "addition_time_embed_dim": 256,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 1024,
        "in_channels": 8,
        "layers_per_block": 2,
        "num_attention_heads": [5, 10, 20, 20],
        "num_frames": 14,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": 768,
        "sample_size": 96,
        "transformer_layers_per_block": 1,
    },
    VAE_CONFIG: {
        "_diffusers_version": "0.24.0.dev0",
        "block_out_channels": [128, 256, 512, 512],
        "force_upcast": True,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "out_channels": 3,
        "sample_size": 768,
        "scaling_factor": 0.18215,
    },
    CLIP_CONFIG: {
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "dtype": ...,
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "image_size": 224,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 5120,
        "layer_norm_eps": 1e-05,
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": 32,
        "patch_size": 14,
        "projection_dim": 1024,
        "torch_dtype": "float16",
        "transformers_version": "4.34.0.dev0",
    },
    SCHEDULE: {
        "_diffusers_version": "0.24.0.dev0",
        "clip_sample": False,
        "final_sigmas_type": ...,
        "rescale_betas_zero_snr": ...,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "use_beta_sigmas": ...,
        "use_exponential_sigmas": ...,
    },
}
"""File -> how those of the published 14-frame model differ from `tiny_pipeline`'s."""


def test_configurations_of_the_published_model_are_our_defaults(svd_copy: Path) -> None:
    for file, values in PUBLISHED.items():
        edit_json(file, **values)(svd_copy)
    autoencoder = TemporalAutoencoderConfig()
    assert load_configs(svd_copy, MOBILEVD) == {
        "image_encoder": ClipVisionConfig(),
        "vae_encoder": autoencoder,
        "unet": SVDUNetConfig(),
        "vae_decoder": autoencoder,
    }
    assert open_model(svd_copy).scheduler == EDMScheduler()


def test_configurations_are_read_where_weights_are_missing(svd_copy: Path) -> None:
    (svd_copy / UNET).unlink()
    assert load_configs(svd_copy, MOBILEVD)["unet"].num_frames == 4
