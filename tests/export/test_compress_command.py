"""`mvsdk compress`, through the command line's own entry."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("diffusers", reason="writes the folders")

import torch  # noqa: E402
from comparing import relative_error  # noqa: E402
from torch import Tensor  # noqa: E402

from mvsdk_export.checkpoints import ModelFolder, open_model  # noqa: E402
from mvsdk_export.compress.chain import compress_unet  # noqa: E402
from mvsdk_export.compress.importance import Importance, load_importance  # noqa: E402
from mvsdk_export.compress.recipe import MOBILEVD  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNet  # noqa: E402

if TYPE_CHECKING:
    from exporting import Toolchain

SIZE = ("--height", "64", "--width", "128")
LATENT_SIZE = (8, 16)


def _run(folder: ModelFolder | Path) -> Tensor:
    """Return what a folder's denoiser says of fixed inputs."""
    folder = folder if isinstance(folder, ModelFolder) else open_model(folder)
    return _predict(folder.load("unet"))


@torch.no_grad()
def _predict(network: Any) -> Tensor:
    config, draw = network.config, torch.Generator().manual_seed(1)
    return network(
        torch.randn(config.num_frames, config.in_channels, *LATENT_SIZE, generator=draw),
        torch.tensor([0.7]),
        torch.randn(1, 1, config.cross_attention_dim, generator=draw),
        torch.tensor([[6.0, 127.0, 0.02]]),
    )


@pytest.fixture(scope="module")
def compressed(
    toolchain: Toolchain, tiny_svd_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the tiny model, compressed by every step: only read it."""
    out = tmp_path_factory.mktemp("compressed") / "small"
    done = toolchain("compress", tiny_svd_folder, "--out", out, *SIZE)
    assert done.status == 0, done.err
    return out


def test_a_compressed_model_is_a_model_folder(compressed: Path, tiny_svd_folder: Path) -> None:
    folder, source = open_model(compressed), open_model(tiny_svd_folder)
    folder.check()
    assert folder.recipe == source.recipe
    assert folder.scheduler == source.scheduler
    configs, before = folder.configs(), source.configs()
    assert {name for name in configs if configs[name] != before[name]} == {"unet"}
    config = configs["unet"]
    assert config.folded_cross_attention
    assert (config.frame_levels, config.funnel_factor) == (1, 0.5)
    assert config.temporal_blocks.count("1") == 7
    want = source.load("vae_decoder").state_dict()
    got = folder.load("vae_decoder").state_dict()
    assert all(torch.equal(got[name], want[name].half().float()) for name in want)


def test_the_denoiser_is_the_one_that_the_functions_make(
    compressed: Path, tiny_svd_folder: Path
) -> None:
    unet = open_model(tiny_svd_folder).load("unet")
    assert isinstance(unet, SVDUNet)
    want, reports = compress_unet(unet, MOBILEVD, latent_size=LATENT_SIZE)
    assert relative_error(_run(compressed), _predict(want)) < 0.01  # float16 weights
    document = json.loads((compressed / "compression.json").read_text("utf-8"))
    assert document["steps"] == json.loads(json.dumps([r.to_json() for r in reports]))
    assert document["config"] == json.loads(json.dumps(asdict(want.config)))
    network = open_model(compressed).load("unet")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert document["after"]["parameters"] == parameters
    card = (compressed / "README.md").read_text("utf-8")
    assert f"{parameters / 1e6:.2f} M" in card
    assert "Nothing was trained" in card


def test_the_report_fits_a_screen_and_says_what_comes_next(
    toolchain: Toolchain, tiny_svd_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    done = toolchain("compress", tiny_svd_folder, "--out", out, *SIZE)
    lines = done.out.splitlines()
    assert lines[0] == "mobilevd from public: one evaluation for 4 frames of 128 x 64"
    rows = [line.split()[0] for line in lines[2:9]]
    assert rows == ["step", "checkpoint", "fold", "frames", "prune", "funnels", "saved"]
    assert max(map(len, lines[:-1])) <= 100
    assert "funnels lose " in done.out
    assert "finetune before use: frames, prune, funnels change what the network says" in lines
    export = f"mvsdk export --target snapdragon --checkpoint {out} --height 64 --width 128"
    assert lines[-1] == f"next: finetune it (docs/mobilevd.md), then {export}"
    assert "writing" in done.err


def test_what_is_exact_needs_no_finetuning(
    toolchain: Toolchain, tiny_svd_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "folded"
    done = toolchain("compress", tiny_svd_folder, "--only", "fold", "--out", out)
    assert "finetune" not in done.out
    export = f"mvsdk export --target snapdragon --checkpoint {out}"
    assert done.out.splitlines()[-1] == f"next: {export}"


def test_what_comes_next_can_be_pasted(
    toolchain: Toolchain, tiny_svd_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "it's $small"
    done = toolchain("compress", tiny_svd_folder, "--only", "fold", "--out", out)
    *_, said = done.out.splitlines()
    words = shlex.split(said.removeprefix("next: "))
    assert words == ["mvsdk", "export", "--target", "snapdragon", "--checkpoint", str(out)]


@pytest.mark.parametrize("frames", [1, 26, 256])
def test_clips_of_a_checkpoint_have_a_length_that_can_be_made(
    toolchain: Toolchain, svd_copy: Path, frames: int
) -> None:
    config = svd_copy / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_frames": frames}))
    done = toolchain("compress", svd_copy, "--dry-run")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert f"makes clips of {frames} frames, allowed: 2 to 25; correct num_frames in" in done.err


def test_a_dry_run_writes_nothing(
    toolchain: Toolchain, tiny_svd_folder: Path, compressed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    done = toolchain(
        "compress", tiny_svd_folder, "--out", out, *SIZE, "--dry-run", "--json", "--only", "fold"
    )
    assert done.status == 0
    assert not list(tmp_path.iterdir())
    plan = json.loads(done.out)
    document = json.loads((compressed / "compression.json").read_text("utf-8"))
    assert plan["out"] is None
    assert plan["steps"] == document["steps"][:1]
    assert plan["before"] == document["before"]
    assert plan["video"] == {"frames": 4, "height": 64, "width": 128}
    said = toolchain("compress", tiny_svd_folder, *SIZE, "--dry-run", "--only", "fold")
    assert said.out.splitlines()[-1] == "nothing was written"
    assert "finetune" not in said.out


def test_steps_may_be_done_one_by_one(
    toolchain: Toolchain, tiny_svd_folder: Path, compressed: Path, tmp_path: Path
) -> None:
    folder = tiny_svd_folder
    for step in ("fold", "frames", "prune", "funnels"):
        out = tmp_path / step
        done = toolchain("compress", folder, "--only", step, "--out", out, *SIZE)
        assert done.status == 0, done.err
        folder = out
    assert relative_error(_run(tmp_path / "fold"), _run(tiny_svd_folder)) < 0.01
    assert open_model(folder).load_config("unet") == open_model(compressed).load_config("unet")
    assert relative_error(_run(folder), _run(compressed)) < 0.02


def test_settings_are_those_of_the_command_line(
    toolchain: Toolchain, tiny_svd_folder: Path, tmp_path: Path
) -> None:
    unet = open_model(tiny_svd_folder).load("unet")
    scores = {name: float(i) for i, name in enumerate(unet.temporal_blocks())}
    file = tmp_path / "importance.json"
    Importance(recipe="mobilevd", keep=3, scores=scores).save(file)
    arguments = ("compress", tiny_svd_folder, *SIZE, "--dry-run", "--json")
    done = toolchain(
        *arguments, "--only", "prune,funnels", "--factor", "0.25", "--importance", file
    )
    config = json.loads(done.out)["config"]
    assert config["temporal_blocks"] == "0" * 21 + "111"
    assert config["funnel_factor"] == 0.25
    assert not config["folded_cross_attention"]
    assert json.loads(done.out)["importance"] == asdict(load_importance(file))
    done = toolchain(*arguments, "--only", "prune", "--importance", file, "--keep", "1")
    assert json.loads(done.out)["config"]["temporal_blocks"] == "0" * 23 + "1"
    Importance(recipe="animator", keep=3, scores=scores).save(file)
    done = toolchain(*arguments, "--importance", file)
    assert done.status == 2
    assert "was learned by animator, the checkpoint is one of mobilevd; give scores" in done.err
    done = toolchain(*arguments, "--only", "prune", "--keep", "0")
    assert json.loads(done.out)["config"]["temporal_blocks"] == "0" * 24


def test_what_is_there_is_replaced_on_demand_only(
    toolchain: Toolchain, svd_copy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("compress", svd_copy, "--only", "fold", *SIZE, "--out")
    assert toolchain(*arguments, out).status == 0
    again = toolchain(*arguments, out)
    assert again.status == 2
    assert "exists; add --overwrite or choose another output" in again.err
    assert toolchain(*arguments, out, "--overwrite").status == 0
    itself = toolchain(*arguments, svd_copy, "--overwrite")
    assert itself.status == 2
    assert "is the checkpoint itself; choose another output" in itself.err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    other = toolchain(*arguments, tmp_path / "other", "--overwrite")
    assert "holds no model_index.json, so it is not overwritten" in other.err
    assert (tmp_path / "other" / "note.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "other", "out"]


def test_a_failure_leaves_nothing_behind(
    toolchain: Toolchain, svd_copy: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    weights = svd_copy / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["conv_in.bias"][0] = math.nan
    save_file(state, weights, metadata={"format": "pt"})
    done = toolchain("compress", svd_copy, "--out", tmp_path / "out")
    assert done.status == 2
    assert "conv_in.bias" in done.err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no output is given; say with --out which folder to write, or --dry-run"),
        (["--recipe", "tiny"], "unknown compression 'tiny'; known: mobilevd"),
        (["--only", "fold,shrink"], "unknown step 'shrink'; known: fold, frames, prune, funnels"),
        (["--only", ""], "unknown step ''"),
        (["--keep", "99"], "cannot keep 99 of 24 temporal blocks; allowed: 0 to 24"),
        (["--keep", "-1"], "cannot keep -1 of 24 temporal blocks"),
        (["--keep", "x"], "argument --keep: 'x' is not a whole number"),
        (["--factor", "0"], "--factor is '0', expected a number above 0, at most 1"),
        (["--factor", "1.01"], "--factor is '1.01', expected"),
        (["--factor", "nan"], "--factor is 'nan', expected"),
        (["--factor", "half"], "--factor is 'half', expected"),
        (["--keep", "3", "--only", "fold"], "--keep goes with the step prune, which --only leaves"),
        (["--factor", "1", "--only", "fold"], "--factor goes with the step funnels"),
        (["--importance", "/nowhere.json"], "importance '/nowhere.json' cannot be read"),
        (["--height", "0"], "--height is 0; allowed: multiples of 64 from 64 to 1024"),
        (["--width", "100"], "--width is 100; allowed"),
    ],
)
def test_wrong_arguments_are_one_line(
    toolchain: Toolchain, tiny_svd_folder: Path, arguments: list[str], message: str
) -> None:
    dry = [] if not arguments else ["--dry-run"]
    done = toolchain("compress", tiny_svd_folder, *dry, *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_models_of_another_family_are_refused(
    toolchain: Toolchain, tiny_model_folder: Path, compressed: Path
) -> None:
    done = toolchain("compress", tiny_model_folder, "--dry-run")
    assert done.status == 2
    assert "is a checkpoint of sticker, whose denoiser is none of Stable Video Diff" in done.err
    assert done.err.count("\n") == 1
    missing = toolchain("compress", "/nowhere", "--dry-run")
    assert "model folder '/nowhere' does not exist" in missing.err


@pytest.mark.parametrize("step", ["fold", "frames", "prune", "funnels"])
def test_what_is_compressed_is_not_compressed_again(
    toolchain: Toolchain, compressed: Path, step: str
) -> None:
    done = toolchain("compress", compressed, "--dry-run", "--only", step)
    assert done.status == 2
    assert f"already; leave the step {step} out, or start from the uncompressed" in done.err
