"""A light decoder in the place of the model's own, and decoders that take a clip in parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from damage import edit_json  # noqa: E402 - after the check for torch
from exporting import Toolchain  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_mobilevd import write_tiny_animator_folder  # noqa: E402
from tiny_svd import quiet  # noqa: E402

import mvsdk  # noqa: E402
from mvsdk.bundle import Bundle, sha256_file  # noqa: E402
from mvsdk.manifest import END_TO_END  # noqa: E402
from mvsdk_export.checkpoints import load_configs, open_decoder, open_model  # noqa: E402
from mvsdk_export.checkpoints.additions import Additions  # noqa: E402
from mvsdk_export.errors import CheckpointError  # noqa: E402
from mvsdk_export.families import find_recipe  # noqa: E402
from mvsdk_export.families.pipeline import Clip  # noqa: E402
from mvsdk_export.families.stable_diffusion.light_decoder import (  # noqa: E402
    LightDecoder,
    LightDecoderConfig,
    LightDecoderGraph,
)
from mvsdk_export.parity.recording import decode_frames_of  # noqa: E402
from mvsdk_export.parity.reference import Case, Reference  # noqa: E402

pytestmark = pytest.mark.torch

MOBILEVD = find_recipe("mobilevd")
CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL: dict[str, Any] = {
    "encoder_block_out_channels": (8,) * 4,
    "decoder_block_out_channels": (8,) * 4,
    "num_encoder_blocks": (1,) * 4,
    "num_decoder_blocks": (2, 1, 1, 1),
}
SIZE = ("--frames", "4", "--height", "64", "--width", "64")


def _public(**fields: Any) -> Any:
    """Return an `AutoencoderTiny` with random weights."""
    with quiet():
        from diffusers import AutoencoderTiny

        torch.manual_seed(0)
        return AutoencoderTiny(**fields).eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small light decoder as diffusers writes it: only read it."""
    path = tmp_path_factory.mktemp("light") / "tiny"
    with quiet():
        _public(**SMALL).save_pretrained(path)
    return path


@pytest.fixture
def light(written: Path, tmp_path: Path) -> Path:
    """Return a copy of `written` that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "light"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model folder of the recipe mobilevd, of one step: only read it."""
    return write_tiny_animator_folder(tmp_path_factory.mktemp("model") / "one").path


@pytest.mark.parametrize("fields", [SMALL, {}])
@torch.no_grad()
def test_frames_are_those_of_diffusers(fields: dict[str, Any]) -> None:
    theirs = _public(**fields)
    known = ("decoder_block_out_channels", "num_decoder_blocks")
    config = LightDecoderConfig(**{key: fields[key] for key in known if key in fields})
    ours = LightDecoder(config).eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("encoder.")}
    ours.load_state_dict(state)
    latents = 4 * torch.randn(3, 4, 5, 6)
    want = theirs.decode(latents).sample / 2 + 0.5
    got = ours(latents)
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()
    frames = LightDecoderGraph(ours)(latents)
    assert torch.equal(frames, got.clamp(0, 1).permute(0, 2, 3, 1))


@torch.no_grad()
def test_a_model_takes_the_decoder_of_another_folder(model: Path, written: Path) -> None:
    folder = open_model(model, additions=Additions(decoder=written))
    folder.check()
    latents = torch.randn(2, 4, 3, 5)
    frames = folder.load_graph("vae_decoder", num_frames=4)(latents)
    want = (_public(**SMALL).decode(latents).sample / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(frames, want.permute(0, 2, 3, 1), atol=1e-5)
    assert type(folder.load("vae_encoder")).__name__ == "TemporalAutoencoder"
    assert [part.name for part in folder.recipe.components] == [
        part.name for part in open_model(model).recipe.components
    ]
    assert "LicenseRef-Light-Decoder" in folder.recipe.licences


def test_its_files_are_among_those_of_the_model(model: Path, written: Path) -> None:
    alone, both = (
        open_model(model, additions=Additions(decoder=x)).files_with_hashes()
        for x in (None, written)
    )
    further = [ref for ref in both if ref not in alone]
    assert [ref.path for ref in further] == [f"decoder/{CONFIG}", f"decoder/{WEIGHTS}"]
    assert [ref.sha256 for ref in further] == [sha256_file(written / x) for x in (CONFIG, WEIGHTS)]
    assert [ref.path for ref in both] == sorted(ref.path for ref in both)
    assert set(alone) < set(both)


def test_keys_that_older_files_lack_are_not_missed(model: Path, light: Path) -> None:
    new = ("upsample_fn", "shift_factor", "scaling_factor", "block_out_channels")
    edit_json(CONFIG, **dict.fromkeys(new, ...))(light)
    open_model(model, additions=Additions(decoder=light)).check()


def test_weights_need_not_be_there_to_plan(model: Path, light: Path) -> None:
    (light / WEIGHTS).unlink()
    decoder = open_decoder(light, MOBILEVD)
    assert load_configs(model, MOBILEVD, decoder)["vae_decoder"].num_decoder_blocks == (2, 1, 1, 1)
    with pytest.raises(CheckpointError, match=f"light' lacks {WEIGHTS}"):
        open_model(model, additions=Additions(decoder=light))


def _rename(old: str, new: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        weights = load_file(root / WEIGHTS)
        weights[new] = weights.pop(old)
        save_file(weights, root / WEIGHTS)

    return damage


def _only_a_pickle(root: Path) -> None:
    (root / WEIGHTS).rename(root / "diffusion_pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_json(CONFIG, _class_name="AutoencoderKL"), "supported are AutoencoderTiny"),
        (edit_json(CONFIG, act_fn="silu"), "act_fn is 'silu', expected 'relu'"),
        (
            edit_json(CONFIG, upsample_fn="bilinear"),
            "upsample_fn is 'bilinear', expected 'nearest'",
        ),
        (edit_json(CONFIG, scaling_factor=0.18215), "scaling_factor is 0.18215, expected 1.0"),
        (edit_json(CONFIG, in_time=2), "key 'in_time' is unknown"),
        (
            edit_json(CONFIG, latent_channels=16),
            "vae_decoder.latent_channels is 16, expected one size C",
        ),
        (edit_json(CONFIG, num_decoder_blocks=[1 << 19] + [1] * 3), "an integer from 1 to 256"),
        (edit_json(CONFIG, num_decoder_blocks=[1, 1, 1]), "expected a list of 4"),
        (edit_json(CONFIG, decoder_block_out_channels=[8, 8, 8, 4]), "describes no LightDecoder"),
        (edit_json(CONFIG, num_decoder_blocks=[2, 1, 1, 2]), "lacks 8 of"),
        (_rename("decoder.layers.0.bias", "decoder.layers.0.offset"), "lacks 1 of"),
        (_rename("encoder.layers.0.bias", "head.bias"), "holds 1 unexpected tensors: 'head.bias'"),
        (_only_a_pickle, "is a pickle, which can run any code"),
    ],
)
def test_another_decoder_is_refused(
    model: Path, light: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(light)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_model(model, additions=Additions(decoder=light)).check()
    assert "\n" not in str(caught.value)


def test_a_model_without_a_light_decoder_takes_none(tiny_model_folder: Path, written: Path) -> None:
    with pytest.raises(CheckpointError, match=r"sticker has no light decoder, .*; leave --"):
        open_model(tiny_model_folder, additions=Additions(decoder=written))


@torch.no_grad()
def test_the_reference_decodes_in_the_parts_that_a_phone_does(model: Path) -> None:
    folder = open_model(model)
    size: dict[str, Any] = {"num_frames": 4, "height": 64, "width": 64}
    networks = {
        part.name: folder.load_graph(part.name, **size) for part in folder.recipe.components
    }
    picture = np.full((64, 64, 3), 90, np.uint8)
    case = Case(prompt="a.png", seed=3, num_inference_steps=1, picture=picture)
    (whole, _), (*parts, clip) = (
        [
            call
            for call in Reference.of(
                folder, Clip(**size, decode_frames=count, steps=(1,), default_steps=1), networks
            ).run(case)
            if call.component in ("vae_decoder", END_TO_END)
        ]
        for count in (4, 2)
    )
    latents = torch.from_numpy(np.array(whole.inputs["latents"]))  # ours to write to
    frames = [call.outputs["frames"] for call in parts]
    assert [part.shape for part in frames] == [(2, 64, 64, 3)] * 2
    for part, own in zip(latents.split(2), frames, strict=True):
        assert np.allclose(own, networks["vae_decoder"](part).numpy() * 255, atol=1e-3)
    assert (clip.outputs["frames"] == np.concatenate(frames)).all()
    assert not np.allclose(
        whole.outputs["frames"][:2], frames[0], atol=0.1
    )  # frames see each other


def test_dry_run_says_which_decoder_and_how_many_frames(
    toolchain: Toolchain, model: Path, written: Path, tmp_path: Path
) -> None:
    arguments = ("export", "--target", "onnx", "--checkpoint", model, *SIZE, "--dry-run")
    out = ("--out", tmp_path / "x.mvbundle")
    done = toolchain(*arguments, *out, "--decoder", written, "--decode-frames", "2", "--json")
    plan = json.loads(done.out)
    assert (plan["decoder"], plan["decode_frames"]) == (str(written), 2)
    done = toolchain(*arguments, *out, "--decode-frames", "3")
    assert done.err == (
        "error: frames decoded at once is 3, allowed: 1, 2, 4: equal parts of 4; "
        "use --decode-frames 2\n"
    )


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("is_light", [False, True])
def test_bundle_decodes_in_parts_as_pytorch_does(
    toolchain: Toolchain, model: Path, written: Path, tmp_path: Path, is_light: bool
) -> None:
    out = tmp_path / "parts.mvbundle"
    decoder = ("--decoder", written) if is_light else ()
    done = toolchain(
        *("export", "--target", "onnx", "--precision", "fp32", *SIZE, "--checkpoint", model),
        *(*decoder, "--decode-frames", "2", "--out", out, "--json"),
    )
    assert done.status == 0, done.err
    manifest = Bundle.open(out, verify=True).manifest
    assert decode_frames_of(manifest) == 2
    assert all(record.passed for record in manifest.verification)
    with mvsdk.load(out) as pipeline:
        assert pipeline.animate(np.zeros((64, 64, 3), np.uint8)).frames.shape == (4, 64, 64, 3)
    done = toolchain("verify", out, "--checkpoint", model, *decoder)
    assert done.status == 0, done.err
    done = toolchain(
        "verify", out, "--checkpoint", model, *(() if is_light else ("--decoder", written))
    )
    assert done.status == 2
    wanted = (
        f"made of decoder/{CONFIG} too; give it with --decoder"
        if is_light
        else f"made without decoder/{CONFIG}; leave --decoder out"
    )
    assert done.err == f"error: 'parts.mvbundle' was {wanted}\n"
