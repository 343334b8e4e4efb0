"""LoRAs: what they add to weights, in which names, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("diffusers", reason="needs the extra dev")

import torch  # noqa: E402
from damage import refused  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_loras import Naming, kohya, peft, processors, write_lora  # noqa: E402
from tiny_stable_diffusion import write_motion, write_pipeline  # noqa: E402
from torch import Tensor  # noqa: E402

from mvsdk_export.checkpoints import open_model  # noqa: E402
from mvsdk_export.checkpoints.additions import Additions, LoraChoice  # noqa: E402
from mvsdk_export.parity.recording import files_of  # noqa: E402

if TYPE_CHECKING:
    from mvsdk_export.checkpoints import ModelFolder

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
LAYERS = {
    "unet": (
        f"{ATTENTION}.to_q",
        f"{ATTENTION}.to_out.0",
        "down_blocks.0.attentions.0.proj_in",  # a 1x1 convolution
        "up_blocks.2.resnets.1.conv1",  # a 3x3 one, as of LCM-LoRA
        "mid_block.resnets.0.time_emb_proj",
    ),
    "text_encoder": ("text_model.encoder.layers.1.self_attn.q_proj",),
}
MOVING = "down_blocks.1.motion_modules.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lora")
    write_pipeline(place / "sd")
    write_motion(place / "motion")
    return place


def _open(folder: Path, *loras: LoraChoice, motion: bool = False) -> ModelFolder:
    place = folder / "motion" if motion else None
    return open_model(folder / "sd", additions=Additions(loras=loras, motion=place))


def _weights(
    model: ModelFolder, layers: dict[str, tuple[str, ...]]
) -> dict[tuple[str, str], Tensor]:
    networks = {name: model.load(name).state_dict() for name in layers}
    return {
        (name, module): networks[name][f"{module}.weight"]
        for name, modules in layers.items()
        for module in modules
    }


@pytest.mark.parametrize("naming", [kohya, peft])
def test_a_lora_is_added_to_every_kind_of_layer(
    folder: Path, tmp_path: Path, naming: Naming
) -> None:
    before = _weights(_open(folder), LAYERS)
    changes = write_lora(tmp_path / "a.safetensors", before, naming)
    model = _open(folder, LoraChoice(path=tmp_path / "a.safetensors", scale=0.5))
    model.check()
    after = _weights(model, LAYERS)
    for key, weight in before.items():
        assert torch.allclose(after[key], weight + 0.5 * changes[key], atol=1e-5)
    untouched = "up_blocks.0.resnets.0.conv1.weight"
    both = [x.load("unet").state_dict()[untouched] for x in (_open(folder), model)]
    assert torch.equal(*both)


def test_old_names_of_attention_are_known(folder: Path, tmp_path: Path) -> None:
    layers = {"unet": LAYERS["unet"][:2]}
    before = _weights(_open(folder), layers)
    changes = write_lora(tmp_path / "a.safetensors", before, processors)
    names = list(load_file(tmp_path / "a.safetensors"))
    assert f"unet.{ATTENTION}.processor.to_out_lora.up.weight" in names
    after = _weights(_open(folder, LoraChoice(path=tmp_path / "a.safetensors")), layers)
    for key, weight in before.items():
        assert torch.allclose(after[key], weight + changes[key], atol=1e-5)


def test_names_without_a_component_are_of_the_denoiser(folder: Path, tmp_path: Path) -> None:
    layers = {"unet": LAYERS["unet"][:1]}
    before = _weights(_open(folder), layers)
    changes = write_lora(tmp_path / "a.safetensors", before, peft)
    bare = {k.removeprefix("unet."): x for k, x in load_file(tmp_path / "a.safetensors").items()}
    save_file(bare, tmp_path / "b.safetensors")
    after = _weights(_open(folder, LoraChoice(path=tmp_path / "b.safetensors")), layers)
    key = ("unet", LAYERS["unet"][0])
    assert torch.allclose(after[key], before[key] + changes[key], atol=1e-5)


def test_texts_of_new_files_have_no_prefix(folder: Path, tmp_path: Path) -> None:
    layers = {"text_encoder": LAYERS["text_encoder"]}
    before = _weights(_open(folder), layers)
    changes = write_lora(tmp_path / "a.safetensors", before, peft)
    tensors = load_file(tmp_path / "a.safetensors").items()
    save_file({k.replace("text_model.", ""): x for k, x in tensors}, tmp_path / "b.safetensors")
    after = _weights(_open(folder, LoraChoice(path=tmp_path / "b.safetensors")), layers)
    key = ("text_encoder", LAYERS["text_encoder"][0])
    assert torch.allclose(after[key], before[key] + changes[key], atol=1e-5)


def test_several_are_added_and_one_may_be_taken_away_again(folder: Path, tmp_path: Path) -> None:
    layers = {"unet": LAYERS["unet"][:3]}
    before = _weights(_open(folder), layers)
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    first, second = (write_lora(x, before, kohya, seed=n) for n, x in enumerate(files))
    both = _weights(_open(folder, *(LoraChoice(path=x, scale=0.7) for x in files)), layers)
    choices = (*(LoraChoice(path=x) for x in files), LoraChoice(path=files[1], scale=-1.0))
    again = _weights(_open(folder, *choices), layers)
    for key, weight in before.items():
        assert torch.allclose(both[key], weight + 0.7 * (first[key] + second[key]), atol=1e-5)
        assert torch.allclose(again[key], weight + first[key], atol=1e-4)


def test_motion_has_loras_too(folder: Path, tmp_path: Path) -> None:
    layers = {"unet": (MOVING,)}
    before = _weights(_open(folder, motion=True), layers)
    changes = write_lora(tmp_path / "zoom.safetensors", before, peft)
    choice = LoraChoice(path=tmp_path / "zoom.safetensors")
    after = _weights(_open(folder, choice, motion=True), layers)
    key = ("unet", MOVING)
    assert torch.allclose(after[key], before[key] + changes[key], atol=1e-5)
    with refused("it is for motion modules, which this model has not: give them with --motion"):
        _open(folder, choice).check()


def test_jobs_depend_on_a_lora_and_its_scale(folder: Path, tmp_path: Path) -> None:
    layers = {"unet": LAYERS["unet"][:1]}
    write_lora(tmp_path / "a.safetensors", _weights(_open(folder), layers), kohya)
    choices = [LoraChoice(path=tmp_path / "a.safetensors", scale=x) for x in (0.5, 1.0)]
    half, whole = (files_of(_open(folder, choice)) for choice in choices)
    none = files_of(_open(folder))
    assert half.fingerprint == whole.fingerprint != none.fingerprint
    assert half.settings != whole.settings
    assert Additions.of(half.places, half.settings).loras == (choices[0],)


def test_its_hash_is_known_under_a_plain_name(folder: Path, tmp_path: Path) -> None:
    layers = {"unet": LAYERS["unet"][:1]}
    path = tmp_path / "my lora (v2).safetensors"
    write_lora(path, _weights(_open(folder), layers), kohya)
    (ref,) = _open(folder, LoraChoice(path=path)).loras_with_hashes()
    assert ref.path == "lora/0_my_lora__v2_.safetensors"
    assert ref.bytes == path.stat().st_size


def _pair(base: str, out: int = 32, into: int = 32) -> dict[str, Tensor]:
    down, up = torch.ones(4, into), torch.ones(out, 4)
    return {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up}


TO_Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "of SDXL": (
        _pair("lora_te2_text_model_encoder_layers_0_mlp_fc1"),
        "1 of 1 layers fit no weight .*; it was made for Stable Diffusion XL; choose one for Stabl",
    ),
    "of Flux": (_pair("lora_unet_double_blocks_0_img_attn_proj"), "it was made for Flux; choose"),
    "of Wan": (
        {
            k.replace("lora_unet_x", "diffusion_model.blocks.0.ffn.0"): x
            for k, x in _pair("lora_unet_x").items()
        },
        "it was made for Wan; choose",
    ),
    "of nothing known": (_pair("lora_unet_spam"), "it was made for another model; choose"),
    "of another width": (
        _pair(TO_Q, 64, 64),
        r"has shapes \[4, 64\] and \[64, 4\], which do not make that of .*, \[32, 32\]; it was ma",
    ),
    "without columns": (
        {f"{TO_Q}.lora_down.weight": torch.ones(4), f"{TO_Q}.lora_up.weight": torch.ones(())},
        r"has shapes \[4\] and \[\], which do not make that of",
    ),
    "half of a pair": (
        {f"{TO_Q}.lora_down.weight": torch.ones(4, 32)},
        "lacks its up weight; download the file again",
    ),
    "a LoHa": ({f"{TO_Q}.hada_w1_a": torch.ones(4, 32)}, "is a LoHa .*, which is not supported"),
    "a DoRA": (
        {**_pair(TO_Q), f"{TO_Q}.dora_scale": torch.ones(32)},
        "is a DoRA .*, which is not supported",
    ),
    "a whole checkpoint": (
        {"conv_in.weight": torch.ones(4, 4)},
        "holds tensor 'conv_in.weight', expected names that end with .*; a whole checkpoint is gi",
    ),
    "an alpha of many": (
        {**_pair(TO_Q), f"{TO_Q}.alpha": torch.ones(3)},
        r"has an alpha of shape \[3\], expected one",
    ),
    "whole numbers": (
        {k: x.int() for k, x in _pair(TO_Q).items()},
        "has dtype I32, expected F16, BF16, F32; save it again in float16",
    ),
    "nothing": ({}, "holds no tensor; download it again"),
}


@pytest.mark.parametrize(("tensors", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    with refused(message):
        _open(folder, LoraChoice(path=tmp_path / "a.safetensors")).check()


def test_values_that_are_not_finite_are_refused(folder: Path, tmp_path: Path) -> None:
    tensors = _pair(TO_Q)
    tensors[f"{TO_Q}.lora_up.weight"][3, 1] = torch.nan
    save_file(tensors, tmp_path / "a.safetensors")
    with refused("1 of 128 values that are not finite"):
        _open(folder, LoraChoice(path=tmp_path / "a.safetensors")).load("unet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.safetensors", "does not exist; give a safetensors file"),
        (".", "is a folder; give a safetensors file"),
        ("a.pt", "is a pickle, which can run any code when it is read, expected a.safetensors"),
        ("b.safetensors", "is no safetensors file but a pickle"),
    ],
)
def test_other_files_are_refused(folder: Path, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x80\x02x")
    (tmp_path / "b.safetensors").write_bytes(b"\x80\x02" + 40 * b"x")
    with refused(message):
        _open(folder, LoraChoice(path=tmp_path / name))


def test_a_swap_of_the_base_leaves_motion_alone(folder: Path, tmp_path: Path) -> None:
    """A community model is another checkpoint under the same motion modules."""
    shutil.copytree(folder / "sd", tmp_path / "other")
    weights = tmp_path / "other/unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({name: x * 1.25 for name, x in tensors.items()}, weights)
    motion = folder / "motion"
    models = [
        open_model(base, additions=Additions(motion=motion)).load("unet").state_dict()
        for base in (folder / "sd", tmp_path / "other")
    ]
    temporal = [name for name in models[0] if ".motion_modules." in name]
    assert len(temporal) > 100
    assert all(torch.equal(models[0][name], models[1][name]) for name in temporal)
    spatial = "down_blocks.0.resnets.0.conv1.weight"
    assert torch.equal(models[1][spatial], models[0][spatial] * 1.25)
    file = load_file(motion / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(file[name], models[1][name]) for name in temporal)


def test_a_model_of_ours_takes_one_where_its_names_fit(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    save_file(_pair("lora_unet_x"), tmp_path / "a.safetensors")
    choice = LoraChoice(path=tmp_path / "a.safetensors")
    with refused("1 of 1 layers fit no weight of this model"):
        open_model(tiny_model_folder, additions=Additions(loras=(choice,))).check()
