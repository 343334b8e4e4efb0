"""Public folders that are damaged, hostile or of another model: each is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from damage import (  # noqa: E402 - after the check for torch
    Damage,
    Refusals,
    cut,
    edit_json,
    edit_weights,
    refused,
    repeat_tensor,
    shard_then,
    weights_not_loaded,
    weights_not_opened,
    write_bytes,
)
from tiny_svd import CLIP_CONFIG, INDEX, PREPROCESSOR, SCHEDULE, UNET, UNET_CONFIG, VAE_CONFIG  # noqa: E402

from mvsdk_export.checkpoints import ModelFolder, load_configs, open_model  # noqa: E402
from mvsdk_export.checkpoints.headers import read_header  # noqa: E402
from mvsdk_export.checkpoints.weights import read_tensors  # noqa: E402
from mvsdk_export.errors import CheckpointError  # noqa: E402
from mvsdk_export.families import find_recipe  # noqa: E402

MOBILEVD = find_recipe("mobilevd")
BIAS = "conv_in.bias"
"""A tensor of the denoiser, of 32 values."""

REFUSED_AT_OPEN: Refusals = {
    **weights_not_opened(UNET, BIAS),
    "other pipeline": (
        edit_json(INDEX, _class_name="FluxPipeline"),
        "is of the class 'FluxPipeline', which is not supported; supported are Mvs",
    ),
    "other part": (
        edit_json(INDEX, unet=["diffusers", "UNet2DConditionModel"]),
        "unet of .* is of the class 'diffusers.UNet2DConditionModel', which is not supported; sup",
    ),
    "part missing": (
        edit_json(INDEX, vae=...),
        "vae is missing, expected every one of _class_name",
    ),
    "text encoder": (
        edit_json(INDEX, text_encoder=["transformers", "CLIPTextModel"]),
        "key 'text_encoder' is unknown, known: _class_name",
    ),
    "no index": (lambda f: (f / INDEX).unlink(), f"lacks {INDEX}; download or make it again"),
    "no config": (lambda f: (f / VAE_CONFIG).unlink(), "lacks vae/config.json"),
    "no preprocessor": (lambda f: (f / PREPROCESSOR).unlink(), f"lacks {PREPROCESSOR}"),
    "other normalisation": (
        edit_json(PREPROCESSOR, image_mean=[0.5, 0.5, 0.5]),
        r"image_mean is a list of 3, expected \[0.48145466, 0.4578275, 0.40821073\]; correct",
    ),
    "no normalisation": (
        edit_json(PREPROCESSOR, do_normalize=False),
        "do_normalize is false, expected",
    ),
    "no mean": (
        edit_json(PREPROCESSOR, image_mean=...),
        "image_mean is missing, expected what the public",
    ),
    "other scheduler": (
        edit_json(SCHEDULE, _class_name="DDIMScheduler"),
        "the class 'DDIMScheduler', which is not supported; supported are EulerDiscreteScheduler;",
    ),
    "epsilon": (
        edit_json(SCHEDULE, prediction_type="epsilon"),
        "prediction_type is 'epsilon', expected 'v_prediction'",
    ),
    "other spacing": (
        edit_json(SCHEDULE, timestep_spacing="trailing"),
        "timestep_spacing is 'trailing', expected 'leading'",
    ),
    "no Karras": (
        edit_json(SCHEDULE, use_karras_sigmas=False),
        "use_karras_sigmas is false, expected",
    ),
    "one for true": (
        edit_json(SCHEDULE, use_karras_sigmas=1),
        "use_karras_sigmas is 1, expected true",
    ),
    "betas": (
        edit_json(SCHEDULE, trained_betas=[0.1]),
        "trained_betas is a list of 1, expected null",
    ),
    "huge sigma": (
        edit_json(SCHEDULE, sigma_max=1e30),
        "sigma_max is 1e.30, expected a number above",
    ),
    "crossed": (
        edit_json(SCHEDULE, sigma_min=900.0),
        "sigma_min is 900.0, expected a number below si",
    ),
    "NaN": (write_bytes(SCHEDULE, b'{"sigma_max": NaN}'), "holds the number NaN, which is not f"),
    "unknown key": (edit_json(SCHEDULE, eta=1.0), "key 'eta' is unknown, known: _class_name, "),
    "no weights": (lambda f: (f / UNET).unlink(), f"lacks {UNET}; download or make it again"),
    "tensor twice": (lambda f: _repeat_key(f / UNET), f"holds the key '{BIAS}' twice"),
    "index names less": (
        shard_then(lambda f: _forget(f / f"{UNET}.index.json", BIAS), UNET),
        f"and its shards differ about tensor '{BIAS}'; download the weights again",
    ),
    "index names another shard": (
        shard_then(lambda f: _move(f / f"{UNET}.index.json", BIAS), UNET),
        f"and its shards differ about tensor '{BIAS}'; download the weights again",
    ),
}


def _forget(index: Path, tensor: str) -> None:
    document = json.loads(index.read_text())
    del document["weight_map"][tensor]
    index.write_text(json.dumps(document))


def _move(index: Path, tensor: str) -> None:
    document = json.loads(index.read_text())
    other = {"part-1.safetensors": "part-2.safetensors", "part-2.safetensors": "part-1.safetensors"}
    document["weight_map"][tensor] = other[document["weight_map"][tensor]]
    index.write_text(json.dumps(document))


def _repeat_key(weights: Path) -> None:
    content = weights.read_bytes()
    length = int.from_bytes(content[:8], "little")
    entry = f'"{BIAS}":' + json.dumps(json.loads(content[8 : 8 + length])[BIAS]) + "}"
    header = content[8 : 8 + length].rstrip()[:-1] + b"," + entry.encode()
    size = len(header).to_bytes(8, "little")
    weights.write_bytes(size + header + content[8 + length :])


@pytest.mark.parametrize(("damage", "message"), REFUSED_AT_OPEN.values(), ids=REFUSED_AT_OPEN)
def test_damaged_folder_is_not_opened(svd_copy: Path, damage: Damage, message: str) -> None:
    damage(svd_copy)
    with refused(message):
        open_model(svd_copy)


REFUSED_AT_LOAD: Refusals = {
    **weights_not_loaded(UNET, BIAS),
    "other class": (
        edit_json(UNET_CONFIG, _class_name="UNet2DConditionModel"),
        "class 'UNet2DConditionModel', which is not supported; supported are UNetSpatioTemporal",
    ),
    "other blocks": (
        edit_json(UNET_CONFIG, down_block_types=["DownBlockSpatioTemporal"] * 4),
        "down_block_types is a list of 4, expected .*CrossAttnDownBlockSpatioTemporal",
    ),
    "unknown key": (
        edit_json(UNET_CONFIG, upcast_attention=True),
        "key 'upcast_attention' is unknown, known: _class_name, in_channels",
    ),
    "missing key": (
        edit_json(VAE_CONFIG, block_out_channels=...),
        "out_channels is missing, expected",
    ),
    "three levels": (
        edit_json(UNET_CONFIG, block_out_channels=[32, 32, 64]),
        "block_out_channels is a list of 3, expected a list of 4",
    ),
    "one width": (
        edit_json(UNET_CONFIG, block_out_channels=32),
        "block_out_channels is 32, expected",
    ),
    "endless blocks": (
        edit_json(UNET_CONFIG, layers_per_block=10**6),
        "layers_per_block is 1000000, expected an integer from 1 to 8",
    ),
    "endless layers": (
        edit_json(UNET_CONFIG, transformer_layers_per_block=10**6),
        "transformer_layers_per_block is 1000000, expected an integer from 1 to 8",
    ),
    "absurd width": (
        edit_json(UNET_CONFIG, block_out_channels=[32, 32, 64, 1 << 40]),
        r"block_out_channels\[3\] is 1099511627776, expected an integer from 1 to 1048576",
    ),
    "negative": (
        edit_json(UNET_CONFIG, in_channels=-8),
        "in_channels is -8, expected an integer from",
    ),
    "NaN": (
        write_bytes(VAE_CONFIG, b'{"scaling_factor": NaN}'),
        "holds the number NaN, which is not finite",
    ),
    "no scale": (
        edit_json(VAE_CONFIG, scaling_factor=0),
        "scaling_factor is 0, expected a number abo",
    ),
    "groups": (
        edit_json(UNET_CONFIG, block_out_channels=[33, 32, 64, 64]),
        "unet/config.json describes no SVDUNet that can be built: .*33.*; correct the file",
    ),
    "embedding": (
        edit_json(UNET_CONFIG, addition_time_embed_dim=16),
        "describes no SVDUNet that can be built: projection_class_embeddings_input_dim is 24",
    ),
    "no picture": (
        edit_json(UNET_CONFIG, in_channels=4),
        "unet of .* takes 4 channels and gives 4, expected twice as many in as out",
    ),
    "text width": (
        edit_json(CLIP_CONFIG, projection_dim=32),
        "image_encoder.projection_dim is 32, unet.cross_attention_dim is 16, expected one size D",
    ),
    "activation": (
        edit_json(CLIP_CONFIG, hidden_act="relu"),
        "image_encoder/config.json describes no ClipVisionEncoder that can be built: .*relu",
    ),
    "unexpected": (
        edit_weights(lambda w: w.update(ema=torch.zeros(1)), UNET),
        "holds 1 unexpected tensors: 'ema'; config.json and weights must come",
    ),
    "not finite": (
        edit_weights(lambda w: w[BIAS].fill_(float("nan")), UNET),
        rf"tensor '{BIAS}' holds 32 of 32 values that are not finite \(32 NaN, 0 infinite\)",
    ),
    "tensor in two shards": (
        shard_then(lambda f: repeat_tensor(f / "unet"), UNET),
        "tensor '.*' is in two shards, expected one",
    ),
}


def _load_all(folder: ModelFolder) -> None:
    folder.check()
    for component in ("image_encoder", "vae_encoder", "unet"):
        folder.load(component)


@pytest.mark.parametrize(("damage", "message"), REFUSED_AT_LOAD.values(), ids=REFUSED_AT_LOAD)
def test_component_that_does_not_fit_is_not_loaded(
    svd_copy: Path, damage: Damage, message: str
) -> None:
    damage(svd_copy)
    with refused(message):
        _load_all(open_model(svd_copy))


def test_a_folder_of_another_model_is_refused(
    tiny_svd_folder: Path, tiny_model_folder: Path
) -> None:
    with pytest.raises(
        CheckpointError, match="is a checkpoint of mobilevd, expected sticker; choose"
    ):
        open_model(tiny_svd_folder, find_recipe("sticker"))
    with pytest.raises(
        CheckpointError, match="is a checkpoint of sticker, expected mobilevd; choose"
    ):
        load_configs(tiny_model_folder, MOBILEVD)


def test_a_file_that_shrinks_while_it_is_read_is_refused(svd_copy: Path) -> None:
    entries = read_header(svd_copy / UNET)
    cut(UNET, -2)(svd_copy)
    with pytest.raises(CheckpointError, match=r"ends within tensor '.*'; download"):
        list(read_tensors(svd_copy / UNET, entries))
