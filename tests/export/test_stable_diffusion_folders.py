"""Folders of Stable Diffusion and motion modules as people have them, and pairs that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("diffusers", reason="needs the extra dev")

import torch  # noqa: E402
from damage import Damage, Refusals, edit_json, refused, shard  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_stable_diffusion import (  # noqa: E402
    MOTION,
    UNET,
    single_file,
    vocabulary,
    write_motion,
    write_pipeline,
)
from tiny_svd import quiet  # noqa: E402

from mvsdk._json import is_safe_path  # noqa: E402
from mvsdk.tokenizers import ClipBpe  # noqa: E402
from mvsdk_export.checkpoints import ModelFolder, open_model  # noqa: E402
from mvsdk_export.checkpoints.additions import Additions, LoraChoice  # noqa: E402
from mvsdk_export.checkpoints.locations import plain_name  # noqa: E402
from mvsdk_export.checkpoints.pipeline import make_pipeline  # noqa: E402
from mvsdk_export.checkpoints.scheduler import DISCRETE_SAMPLERS, DiscreteScheduler  # noqa: E402
from mvsdk_export.errors import CheckpointError  # noqa: E402
from mvsdk_export.families.pipeline import Clip  # noqa: E402

WEIGHTS = "diffusion_pytorch_model.safetensors"
UNET_FILE, VAE_FILE = f"unet/{WEIGHTS}", f"vae/{WEIGHTS}"
TEXT_FILE = "text_encoder/model.safetensors"
UNET_CONFIG, VAE_CONFIG, TEXT_CONFIG = (
    f"{part}/config.json" for part in ("unet", "vae", "text_encoder")
)
INDEX, SCHEDULE = "model_index.json", "scheduler/scheduler_config.json"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of an old and a new model folder and of motion modules: only read them."""
    place = tmp_path_factory.mktemp("models")
    write_pipeline(place / "old")
    write_pipeline(place / "new", old=False)
    write_motion(place / "motion")
    single_file(place / "motion", place / "motion.safetensors")
    return place


@pytest.fixture
def copy(places: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(places / "old", tmp_path / "copy"))


def _loaded(folder: ModelFolder) -> dict[str, dict[str, Any]]:
    folder.check()
    names = ("text_encoder", "unet", "vae_decoder")
    return {name: folder.load(name).state_dict() for name in names}


def _same(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> bool:
    return all(
        one[part].keys() == other[part].keys()
        and all(torch.equal(one[part][name], other[part][name]) for name in one[part])
        for part in one
    )


def test_old_and_new_files_are_the_same_model(places: Path) -> None:
    old, new = (open_model(places / name) for name in ("old", "new"))
    assert "text_model.embeddings.position_ids" in load_file(places / "old" / TEXT_FILE)
    assert "decoder.mid_block.attentions.0.query.weight" in load_file(places / "old" / VAE_FILE)
    assert "scaling_factor" not in json.loads((places / "old" / VAE_CONFIG).read_text())
    assert _same(_loaded(old), _loaded(new))
    assert old.configs() == new.configs()
    assert old.recipe.name == "stable_diffusion"


def _link(folder: Path, blobs: Path, snapshot: Path) -> Path:
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(x for x in folder.rglob("*") if x.is_file())):
        blob, link = blobs / f"{number:040x}", snapshot / file.relative_to(folder)
        shutil.move(file, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return snapshot


def _in_the_cache(folder: Path) -> Path:
    model = folder.parent / "models--someone--something"
    return _link(folder, model / "blobs", model / "snapshots" / ("a" * 40))


def _renamed(variant: str, dtype: torch.dtype) -> Callable[[Path], Path]:
    def change(folder: Path) -> Path:
        for name in (UNET_FILE, VAE_FILE, TEXT_FILE):
            file = folder / name
            tensors = {
                k: x.to(dtype) if x.is_floating_point() else x for k, x in load_file(file).items()
            }
            file.unlink()
            save_file(tensors, file.with_suffix(f".{variant}.safetensors"))
        return folder

    return change


def _sharded(folder: Path) -> Path:
    shard(folder, UNET_FILE)
    return folder


def _without_what_is_ignored(folder: Path) -> Path:
    edit_json(INDEX, safety_checker=[None, None], feature_extractor=[None, None])(folder)
    edit_json(INDEX, image_encoder=[None, None], requires_safety_checker=False)(folder)
    return folder


def _of_another_pipeline(folder: Path) -> Path:
    edit_json(INDEX, _class_name="LatentConsistencyModelPipeline")(folder)
    return folder


EXACT: dict[str, Callable[[Path], Path]] = {
    "in the cache of the hub": _in_the_cache,
    "in shards": _sharded,
    "without safety checker": _without_what_is_ignored,
    "for few steps": _of_another_pipeline,
}
ROUNDED: dict[str, Callable[[Path], Path]] = {
    "fp16": _renamed("fp16", torch.float16),
    "bf16": _renamed("bf16", torch.bfloat16),
}


@pytest.mark.parametrize("change", EXACT.values(), ids=EXACT)
def test_ways_to_store_a_model(places: Path, copy: Path, change: Callable[[Path], Path]) -> None:
    want = _loaded(open_model(places / "old"))
    assert _same(_loaded(open_model(change(copy))), want)


@pytest.mark.parametrize("change", ROUNDED.values(), ids=ROUNDED)
def test_variants_are_read_where_there_is_nothing_else(
    places: Path, copy: Path, change: Callable[[Path], Path]
) -> None:
    want = _loaded(open_model(places / "old"))
    got = _loaded(open_model(change(copy)))
    for part, weights in want.items():
        for name, weight in weights.items():
            assert torch.allclose(got[part][name], weight, rtol=0.01, atol=1e-3)


PROMPTS = ("", "a rocket", "Cats & dogs", "\u00e9t\u00e9 <|endoftext|>")


def _tokenizer(folder: ModelFolder, tmp_path: Path) -> ClipBpe:
    assert folder.vocabulary is not None
    (tmp_path / "vocab.json").write_bytes(folder.vocabulary.to_bytes())
    return ClipBpe.from_file(tmp_path / "vocab.json", 77)


def test_the_tokenizer_gives_the_numbers_of_the_public_one(places: Path, tmp_path: Path) -> None:
    with quiet():
        from transformers import CLIPTokenizer

        theirs = CLIPTokenizer.from_pretrained(places / "old/tokenizer")
    ours = _tokenizer(open_model(places / "old"), tmp_path)
    for prompt in PROMPTS:
        want = theirs(prompt, padding="max_length", max_length=77, truncation=True).input_ids
        assert ours.encode(prompt).ids[0].tolist() == want


def test_a_tokenizer_in_one_file_is_the_same(places: Path, copy: Path, tmp_path: Path) -> None:
    with quiet():
        from transformers import CLIPTokenizer

        CLIPTokenizer.from_pretrained(copy / "tokenizer").save_pretrained(tmp_path / "saved")
    shutil.rmtree(copy / "tokenizer")
    (copy / "tokenizer").mkdir()
    shutil.copy(tmp_path / "saved/tokenizer.json", copy / "tokenizer")
    want = open_model(places / "old").vocabulary
    got = open_model(copy).vocabulary
    assert want is not None
    assert got is not None
    assert got.to_bytes() == want.to_bytes()


def test_what_fills_up_is_what_the_tokenizer_says(copy: Path, tmp_path: Path) -> None:
    """That of Stable Diffusion 2.x is "!", the first of all tokens."""
    edit_json("tokenizer/special_tokens_map.json", pad_token="!")(copy)
    (copy / "tokenizer/tokenizer_config.json").unlink()
    ids = _tokenizer(open_model(copy), tmp_path).encode("a").ids[0].tolist()
    assert ids[-1] == vocabulary()[0]["!"] != ids[2]


SCHEDULERS = {
    "PNDM": {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
    "DDIM": {"_class_name": "DDIMScheduler", "clip_sample": False},
    "DPM": {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++"},
    "Euler": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
    "LCM": {"_class_name": "LCMScheduler", "original_inference_steps": 50},
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_of_a_scheduler_the_betas_matter(copy: Path, scheduler: dict[str, Any]) -> None:
    (copy / SCHEDULE).write_text(json.dumps({**scheduler, **BETAS, "new_in_2027": [1, 2]}))
    edit_json(INDEX, scheduler=["diffusers", scheduler["_class_name"]])(copy)
    made = open_model(copy).scheduler
    assert isinstance(made, DiscreteScheduler)
    assert (made.beta_start, made.beta_end, made.beta_schedule) == tuple(BETAS.values())


def _clip(*steps: int, guidance: tuple[float, float] | None = None) -> Clip:
    size = {"num_frames": 1, "height": 64, "width": 64, "decode_frames": 1}
    return Clip(**size, steps=steps, default_steps=steps[0], guidance=guidance)


def test_samplers_have_the_levels_of_the_library(places: Path) -> None:
    levels = {
        ("euler_trailing", True): [25.146116, 6.557213, 2.275962, 0.866803, 0.0],
        ("euler_trailing", False): [14.614647, 4.081729, 1.612897, 0.693161, 0.0],
        ("lcm", True): [25.146116, 6.876917, 2.275962, 0.904270, 0.0],
    }
    for (sampler, motion), want in levels.items():
        place = places / "motion" if motion else None
        additions = Additions(motion=place, sampler=sampler)
        pipeline = make_pipeline(open_model(places / "old", additions=additions), _clip(4))
        made = pipeline.samplers["main"]
        assert made.schedules[4].sigmas == pytest.approx(want, abs=2e-3)
        start = 1.0 if sampler == "lcm" else want[0]
        assert made.init_noise_sigma == pytest.approx(start, abs=2e-3)


@pytest.mark.parametrize("sampler", DISCRETE_SAMPLERS)
def test_every_sampler_makes_a_program(places: Path, sampler: Any) -> None:
    folder = open_model(places / "old", additions=Additions(sampler=sampler))
    pipeline = make_pipeline(folder, _clip(8, guidance=(5.0, 5.0)))
    kind = {"lcm": "lcm", "euler_ancestral": "euler_ancestral"}.get(sampler, "edm_euler")
    assert pipeline.samplers["main"].kind == kind
    assert pipeline.programs[0].input_of("negative_prompt") == "negative_prompt"


def test_ddim_of_several_numbers_of_steps_begins_in_several_places(places: Path) -> None:
    folder = open_model(places / "old", additions=Additions(sampler="ddim"))
    with pytest.raises(Exception, match=r"ddim begins at noise level .* choose one number"):
        make_pipeline(folder, _clip(4, 8))
    with_motion = Additions(sampler="ddim", motion=places / "motion")
    make_pipeline(open_model(places / "old", additions=with_motion), _clip(4, 8))


def test_motion_in_a_folder_and_alone_is_the_same(places: Path) -> None:
    names = ("motion", "motion.safetensors")
    models = [open_model(places / "old", additions=Additions(motion=places / x)) for x in names]
    configs = [model.configs()["unet"] for model in models]
    assert configs[0] == configs[1]
    assert (configs[0].temporal_layers, configs[0].num_frames) == ("motion", 16)
    assert _same(*map(_loaded, models))
    paths = [{ref.path for ref in model.files_with_hashes()} for model in models]
    assert paths[0] - paths[1] == {"motion/config.json", f"motion/{WEIGHTS}"}
    assert paths[1] - paths[0] == {"motion/motion.safetensors"}


def test_motion_without_a_middle_is_that_of_version_3(places: Path, tmp_path: Path) -> None:
    write_motion(tmp_path / "v3", use_motion_mid_block=False)
    single_file(tmp_path / "v3", tmp_path / "v3.safetensors")
    for name in ("v3", "v3.safetensors"):
        model = open_model(places / "old", additions=Additions(motion=tmp_path / name))
        assert not model.configs()["unet"].motion_mid_block
        model.check()


@pytest.mark.parametrize(
    "name", ["mm (v2) \u00e9t\u00e9.safetensors", "con.safetensors", ".a", "-.", 240 * "a"]
)
def test_whatever_a_file_is_called_it_has_a_name_for_bundles(
    places: Path, tmp_path: Path, name: str
) -> None:
    shutil.copy(places / "motion.safetensors", tmp_path / name)
    lora = LoraChoice(path=tmp_path / name)
    motion = open_model(places / "old", additions=Additions(motion=tmp_path / name))
    refs = [ref.path for ref in motion.files_with_hashes() if ref.path.startswith("motion/")]
    assert len(refs) == 1
    refs.append(f"lora/0_{plain_name(lora.path)}")
    assert all(map(is_safe_path, refs)), refs


def test_a_file_in_the_cache_of_the_hub_keeps_its_name(places: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes((places / "motion.safetensors").read_bytes())
    (tmp_path / "lightning.safetensors").symlink_to(tmp_path / "blob")
    model = open_model(
        places / "old", additions=Additions(motion=tmp_path / "lightning.safetensors")
    )
    assert "motion/lightning.safetensors" in {ref.path for ref in model.files_with_hashes()}


def test_places_of_additions_do_not_depend_on_the_working_folder(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places)
    model = open_model(Path("old"), additions=Additions(motion=Path("motion.safetensors")))
    assert all(place.is_absolute() for place in model.paths.values())


def test_a_clip_has_no_more_frames_than_there_are_places(places: Path, tmp_path: Path) -> None:
    write_motion(tmp_path / "short", motion_max_seq_length=6)
    config = open_model(places / "old", additions=Additions(motion=tmp_path / "short")).configs()[
        "unet"
    ]
    assert (config.num_frames, config.motion_max_frames) == (6, 6)


def _broad(folder: Path) -> Path:
    write_motion(folder, block_out_channels=(64, 64, 64))
    return folder


def _deep(folder: Path) -> Path:
    write_motion(folder, motion_layers_per_block=2)
    return folder


def _originals(folder: Path) -> Path:
    file = folder.with_suffix(".safetensors")
    name = "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"
    save_file({name: torch.ones(4, 4)}, file)
    return file


def _no_motion(folder: Path) -> Path:
    file = folder.with_suffix(".safetensors")
    save_file({"conv_in.weight": torch.ones(4)}, file)
    return file


def _pickled(folder: Path) -> Path:
    file = folder.with_name("mm_sd_v15_v2.ckpt")
    file.write_bytes(b"PK\x03\x04")
    return file


def _elsewhere(folder: Path) -> Path:
    return folder / "nowhere"


def _of_pia(folder: Path) -> Path:
    write_motion(folder)
    edit_json("config.json", conv_in_channels=9)(folder)
    return folder


MISFITS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "for other widths": (
        _broad,
        "for a denoiser of widths 64, 64, 64, expected 32, 32, 64, those of the checkpoint",
    ),
    "for more layers": (
        _deep,
        "are for 2, 2, 2 layers in the blocks .*, the checkpoint has 1",
    ),
    "of the original code": (_originals, r"original code, .* MotionAdapter\.from_single_file"),
    "no motion": (_no_motion, r"holds no motion modules \(it begins with conv_in\.weight\)"),
    "a pickle": (_pickled, "is a pickle, which can run any code when it is read"),
    "nowhere": (_elsewhere, "does not exist; give a folder that holds config.json"),
    "with a picture": (_of_pia, "conv_in_channels is 9, expected null"),
}


@pytest.mark.parametrize(("make", "message"), MISFITS.values(), ids=MISFITS)
def test_motion_that_does_not_fit_is_refused(
    places: Path, tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with refused(message):
        place = make(tmp_path / "motion")
        open_model(places / "old", additions=Additions(motion=place)).check()


def test_motion_of_1_x_does_not_go_with_2_x(tmp_path: Path) -> None:
    """Their tensors would fit."""
    from mvsdk_export.checkpoints.documents import Document
    from mvsdk_export.families.stable_diffusion.config import UNetConfig
    from mvsdk_export.families.stable_diffusion.motion_config import read_motion

    document = Document(tmp_path / "config.json", {})
    assert read_motion(document, {}, UNetConfig())["motion_max_frames"] == 32
    with refused("for Stable Diffusion 1.x, whose text has 768 channels, .* has 1024, as 2.x has"):
        read_motion(document, {}, UNetConfig(cross_attention_dim=1024))


def test_other_models_take_no_motion(places: Path, tiny_model_folder: Path) -> None:
    with refused("sticker takes no motion modules, got .*; leave --motion out"):
        open_model(tiny_model_folder, additions=Additions(motion=places / "motion"))
    with refused("is sampled as its scheduler says, flow_euler, got the sampler lcm; leave --samp"):
        open_model(tiny_model_folder, additions=Additions(sampler="lcm"))


WRONG: Refusals = {
    **{
        name: (
            edit_json(INDEX, _class_name=name),
            f"'{name}', which is not supported; supported are MvsdkPipeline, .*StableDiffusionPip",
        )
        for name in (
            "StableDiffusionXLPipeline",
            "StableDiffusion3Pipeline",
            "FluxPipeline",
            "WanPipeline",
            "LTXPipeline",
        )
    },
    "an editor": (
        edit_json(UNET_CONFIG, in_channels=8),
        "takes 8 channels and gives 4, .*: it edits pictures, as InstructPix2Pix",
    ),
    "an upscaler": (edit_json(UNET_CONFIG, in_channels=7), "it enlarges pictures"),
    "an inpainter": (edit_json(UNET_CONFIG, in_channels=9), "it fills in pictures"),
    "a denoiser of SDXL": (
        edit_json(UNET_CONFIG, addition_embed_type="text_time"),
        "addition_embed_type is 'text_time', expected null",
    ),
    "another text encoder": (
        edit_json(TEXT_CONFIG, model_type="t5"),
        "is of the class 't5', which is not supported; supported are clip_text_model",
    ),
    "a block of another kind": (
        edit_json(UNET_CONFIG, down_block_types=["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"]),
        "down_block_types is .*, expected 3 of CrossAttnDownBlock2D, DownBlock2D",
    ),
    "too few heads": (
        edit_json(UNET_CONFIG, attention_head_dim=[8, 8]),
        "attention_head_dim is .*, expected a number, or one for each of 3 levels",
    ),
    "a text that is wider": (
        edit_json(UNET_CONFIG, cross_attention_dim=32),
        "do not fit: text_encoder.hidden_size is 24, unet.cross_attention_dim is 32",
    ),
    "betas of its own": (
        edit_json(SCHEDULE, trained_betas=[0.1, 0.2]),
        "trained_betas is .*, expected null",
    ),
    "noise that ends in nothing": (
        edit_json(SCHEDULE, rescale_betas_zero_snr=True),
        "rescale_betas_zero_snr is true, expected false",
    ),
    "no betas": (edit_json(SCHEDULE, beta_start=0.5), "beta_start is 0.5, expected a number of at"),
    "tokens that are missing": (
        edit_json("tokenizer/vocab.json", **{"!": ...}),
        "gives token .* the number .*, expected each of 0 to .* once",
    ),
    "merges of nothing": (
        lambda folder: (folder / "tokenizer/merges.txt").write_text("#version: 0.2\nxx yy\n"),
        "tokenizer of .*copy'",
    ),
    "no merges": (
        lambda folder: (folder / "tokenizer/merges.txt").unlink(),
        "lacks tokenizer/m",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_such_model_is_refused_in_one_line(
    copy: Path, change: Damage, message: str
) -> None:
    change(copy)
    with refused(message):
        open_model(copy).check()


def test_a_checkpoint_in_one_file_is_refused_with_what_converts_it(tmp_path: Path) -> None:
    file = tmp_path / "dreamshaper 8.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(1)}, file)
    with refused(r"the original code, .* P\.from_single_file\('dreamshaper 8.safetensors'\)"):
        open_model(file)
    (tmp_path / "v1-5.ckpt").write_bytes(b"PK\x03\x04")
    with refused("is a pickle, which can run any code"):
        open_model(tmp_path / "v1-5.ckpt")


def test_every_field_of_a_denoiser_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    """A file of few keys has the defaults of the library."""
    fields = {**UNET, "only_cross_attention": (True, False, False), "layers_per_block": (1, 2, 1)}
    parts = write_pipeline(tmp_path / "sd", **fields)
    config = open_model(tmp_path / "sd").configs()["unet"]
    assert config.only_cross_attention == (True, False, False)
    assert config.layers_per_block == (1, 2, 1)
    assert config.attention_heads == (4, 4, 4)
    sample, text = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 24)
    with torch.no_grad():
        want = parts["unet"](sample, torch.tensor([499.0]), text).sample
        got = open_model(tmp_path / "sd").load("unet")(sample, torch.tensor([499.0]), text)
    assert torch.allclose(got, want, atol=1e-4 * float(want.abs().max()))


def test_hostile_numbers_of_motion_are_refused(places: Path, tmp_path: Path) -> None:
    for key in ("motion_num_attention_heads", "motion_transformer_layers_per_block"):
        for value in (0, -1, 1.5, "8", [8, 8], [8] * 99, 10**9, True, {}):
            place = tmp_path / f"{key}{value!s:.9}".replace("/", "")
            shutil.copytree(places / "motion", place, dirs_exist_ok=True)
            edit_json("config.json", **{key: value})(place)
            with pytest.raises(CheckpointError):
                open_model(places / "old", additions=Additions(motion=place)).check()
    assert MOTION["block_out_channels"] == UNET["block_out_channels"]
