"""What other tools write beside and around a public model is read as they read it."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from damage import Damage, edit_json, edit_weights, refused  # noqa: E402
from tiny_svd import (  # noqa: E402
    CLIP_CONFIG,
    INDEX,
    SCHEDULE,
    UNET,
    UNET_CONFIG,
    VAE_CONFIG,
    quiet,
)

from mvsdk_export.checkpoints import (  # noqa: E402
    load_configs,
    open_decoder,
    open_model,
    save_model_folder,
)
from mvsdk_export.families import RECIPES, find_recipe  # noqa: E402
from mvsdk_export.families.public import PublicConfig  # noqa: E402

MOBILEVD = find_recipe("mobilevd")
CLIP = "image_encoder/model.safetensors"
POSITION_IDS = "vision_model.embeddings.position_ids"


def test_weights_of_a_moving_average_are_read(tiny_svd_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_svd_folder, tmp_path / "svd"))
    with quiet():
        from diffusers import UNetSpatioTemporalConditionModel
        from diffusers.training_utils import EMAModel

        unet = UNetSpatioTemporalConditionModel.from_pretrained(folder / "unet")
        average = EMAModel(unet.parameters(), model_cls=type(unet), model_config=unet.config)
        average.step(unet.parameters())
        average.save_pretrained(folder / "unet")
    assert "decay" in json.loads((folder / UNET_CONFIG).read_text())
    loaded = open_model(folder).load("unet")
    assert loaded.config == open_model(tiny_svd_folder).load_config("unet")


SAME: dict[str, Damage] = {
    "layers for each level": edit_json(UNET_CONFIG, layers_per_block=[1, 1, 1, 1]),
    "context for each level": edit_json(UNET_CONFIG, cross_attention_dim=[16] * 4),
    "transformers for each level": edit_json(UNET_CONFIG, transformer_layers_per_block=[1] * 4),
    "whole numbers with a fraction": edit_json(
        UNET_CONFIG, num_frames=4.0, block_out_channels=[32.0, 32, 64.0, 64], layers_per_block=1.0
    ),
    "numbers without a fraction": edit_json(VAE_CONFIG, latent_channels=4.0),
    "defaults of the denoiser left out": edit_json(
        UNET_CONFIG,
        **dict.fromkeys(("in_channels", "out_channels", "transformer_layers_per_block"), ...),
        **dict.fromkeys(("down_block_types", "up_block_types"), ...),
    ),
    "defaults of the autoencoder left out": edit_json(
        VAE_CONFIG,
        **dict.fromkeys(("layers_per_block", "latent_channels", "scaling_factor"), ...),
    ),
    "defaults of the encoder left out": edit_json(
        CLIP_CONFIG, num_channels=..., layer_norm_eps=..., architectures=...
    ),
    "interpolation left out": edit_json(SCHEDULE, interpolation_type=...),
    "parts that are not there": edit_json(
        INDEX, safety_checker=[None, None], text_encoder=None, requires_safety_checker=False
    ),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_another_spelling_of_a_model_is_the_same_model(
    svd_copy: Path, tiny_svd_folder: Path, change: Damage
) -> None:
    change(svd_copy)
    folder = open_model(svd_copy)
    folder.check()
    assert folder.configs() == open_model(tiny_svd_folder).configs()


def test_one_number_of_heads_is_that_of_every_level(svd_copy: Path) -> None:
    edit_json(UNET_CONFIG, num_attention_heads=2)(svd_copy)
    with quiet():
        from diffusers import UNetSpatioTemporalConditionModel

        theirs = UNetSpatioTemporalConditionModel.from_pretrained(svd_copy / "unet").eval()
    ours = open_model(svd_copy).load("unet")
    sample, context = torch.randn(4, 8, 16, 16), torch.randn(1, 1, 16)
    timestep, ids = torch.tensor([1.6]), torch.tensor([[6.0, 127.0, 0.02]])
    with torch.no_grad():
        want = theirs(sample[None], timestep, context, ids).sample[0]
        assert (ours(sample, timestep, context, ids) - want).abs().max() < 1e-3 * want.abs().max()


def test_levels_that_differ_where_ours_are_alike_are_refused(svd_copy: Path) -> None:
    edit_json(UNET_CONFIG, layers_per_block=[1, 1, 2, 2])(svd_copy)
    with refused("layers_per_block is a list of 4, expected an integer from 1 to 8"):
        open_model(svd_copy).check()


def _public_configs() -> list[tuple[str, PublicConfig]]:
    """Return what recipes say of every config.json of a public folder."""
    found: list[tuple[str, PublicConfig]] = []
    for recipe in RECIPES.values():
        if recipe.public is not None:
            found += recipe.public.configs.items()
        if recipe.light_decoder is not None:
            found.append(("decoder", recipe.light_decoder.public))
        if recipe.motion is not None:
            found.append(("motion", recipe.motion.public))
    return found


def test_what_a_file_leaves_out_is_what_the_library_has_by_default() -> None:
    with quiet():
        import diffusers
        from transformers import CLIPTextConfig, CLIPVisionConfig

    for part, public in _public_configs():
        library = {"image_encoder": CLIPVisionConfig, "text_encoder": CLIPTextConfig}
        if part in library:
            defaults: dict[str, Any] = library[part]().to_dict()
        else:
            network = getattr(diffusers, str(public.classes["_class_name"]))
            found = inspect.signature(network.__init__).parameters.items()
            defaults = {name: parameter.default for name, parameter in found}
        fields = {public.names.get(name, name): value for name, value in public.fields.items()}
        for key, value in {**fields, **public.fixed}.items():
            theirs = defaults[key]
            theirs = list(theirs) if isinstance(theirs, tuple) else theirs
            assert theirs == value or key in public.required, (part, key)


def test_a_clip_length_that_is_left_out_is_that_of_diffusers(svd_copy: Path) -> None:
    edit_json(UNET_CONFIG, num_frames=...)(svd_copy)
    assert load_configs(svd_copy, MOBILEVD)["unet"].num_frames == 25


def test_an_activation_that_is_left_out_is_that_of_transformers(svd_copy: Path) -> None:
    edit_json(CLIP_CONFIG, hidden_act=...)(svd_copy)
    assert load_configs(svd_copy, MOBILEVD)["image_encoder"].hidden_act == "quick_gelu"


def _add_position_ids(folder: Path) -> None:
    edit_weights(lambda w: w.update({POSITION_IDS: torch.arange(5)[None]}), CLIP)(folder)


def test_numbers_of_positions_among_the_weights_are_not_read(svd_copy: Path) -> None:
    before = open_model(svd_copy).load("image_encoder").state_dict()
    _add_position_ids(svd_copy)
    folder = open_model(svd_copy)
    folder.check()
    after = folder.load("image_encoder").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_numbers_of_positions_are_not_copied(svd_copy: Path, tmp_path: Path) -> None:
    _add_position_ids(svd_copy)
    rest = open_model(svd_copy)
    written = save_model_folder(
        tmp_path / "out",
        MOBILEVD,
        {"unet": rest.load("unet")},
        scheduler=rest.scheduler,
        model_card="# a model\n",
        rest=rest,
    )
    assert POSITION_IDS not in written.load("image_encoder").state_dict()


def _rename(old: str, new: str) -> Damage:
    def change(weights: dict[str, Any]) -> dict[str, Any]:
        return {name.replace(old, new, 1): value for name, value in weights.items()}

    return edit_weights(change, UNET)


WRAPPED: dict[str, tuple[Damage, str]] = {
    "compiled": (_rename("", "_orig_mod."), r"torch\.compile gives it, .*MODEL\._orig_mod, or ta"),
    "a compiled part": (
        _rename("mid_block.", "mid_block._orig_mod."),
        r"'mid_block\._orig_mod\..*torch\.compile gives it, expected 'mid_block\.[^_]",
    ),
    "parallel": (_rename("", "module."), "DataParallel gives it, .* take 'module.' out of the nam"),
    "both": (_rename("", "module._orig_mod."), r"torch\.compile gives it, expected 'a"),
}


@pytest.mark.parametrize(("damage", "message"), WRAPPED.values(), ids=WRAPPED)
def test_names_of_a_module_around_the_network_get_advice(
    svd_copy: Path, damage: Damage, message: str
) -> None:
    damage(svd_copy)
    with refused(message):
        open_model(svd_copy).check()


def test_names_of_another_network_get_the_usual_message(svd_copy: Path) -> None:
    _rename("", "model.diffusion_model.")(svd_copy)
    with refused(r"lacks \d+ of \d+ tensors: .*; config.json and weights must come from the same"):
        open_model(svd_copy).check()


UNSUPPORTED: dict[str, tuple[Damage, str]] = {
    **{
        name: (
            edit_json(INDEX, _class_name=name),
            rf"model_index\.json' is of the class '{name}', which is not supported; "
            "supported are MvsdkPipeline, StableVideoDiffusionPipeline, StableDiffusionPipeline; ",
        )
        for name in ("AnimateDiffPipeline", "WanPipeline", "StableDiffusionXLPipeline")
    },
    "denoiser in the index": (
        edit_json(INDEX, unet=["diffusers", "UNet2DConditionModel"]),
        r"unet of .*json' is of the class 'diffusers\.UNet2DConditionModel', which is not suppor"
        r"ted; supported are diffusers\.UNetSpatioTemporalConditionModel",
    ),
    "code of its own": (
        edit_json(INDEX, vae=["pipeline", "AutoencoderKLTemporalDecoder"]),
        r"vae of .* is of the class 'pipeline\.AutoencoderKLTemporalDecoder', which is not supp",
    ),
    "scheduler": (
        edit_json(SCHEDULE, _class_name="DPMSolverMultistepScheduler"),
        "'DPMSolverMultistepScheduler', which is not supported; supported are EulerDiscreteSched",
    ),
    "denoiser": (
        edit_json(UNET_CONFIG, _class_name="UNet2DConditionModel", only_cross_attention=False),
        "unet/config.json' is of the class 'UNet2DConditionModel', which is not supported; suppor",
    ),
    "autoencoder": (
        edit_json(VAE_CONFIG, _class_name="AutoencoderKL"),
        "vae/config.json' is of the class 'AutoencoderKL', which is not supported; supported are",
    ),
    "image encoder": (
        edit_json(CLIP_CONFIG, architectures=["SiglipVisionModel"], model_type="siglip"),
        "the class 'SiglipVisionModel', which is not supported; supported are CLIPVisionModelW",
    ),
    "image encoder by its type": (
        edit_json(CLIP_CONFIG, architectures=..., model_type="siglip_vision_model"),
        "the class 'siglip_vision_model', which is not supported; supported are clip_vision_mod",
    ),
}


@pytest.mark.parametrize(("change", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_another_model_is_not_supported_and_not_called_wrong(
    svd_copy: Path, change: Damage, message: str
) -> None:
    change(svd_copy)
    with refused(message) as caught:
        open_model(svd_copy).check()
    assert "correct the file" not in str(caught.value)


def test_another_decoder_is_not_supported_and_not_called_wrong(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with refused("'AutoencoderKL', which is not supported; supported are AutoencoderTiny; choose"):
        open_decoder(tmp_path, MOBILEVD).load_config()


@pytest.mark.parametrize("value", [None, 7, [], ["X", 7], {"a": 1}], ids=str)
def test_what_names_no_class_is_a_fault_of_the_file(svd_copy: Path, value: object) -> None:
    edit_json(INDEX, _class_name=value)(svd_copy)
    with refused("_class_name is .*, expected one of MvsdkPipeline, .*; correct the file"):
        open_model(svd_copy)
