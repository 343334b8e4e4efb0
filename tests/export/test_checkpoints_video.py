"""Folders of ours for models that begin with a picture: schedulers, shards, copies, memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from damage import Damage, edit_json  # noqa: E402 - after the check for torch
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_models import tiny_networks, write_tiny_model_folder  # noqa: E402
from tiny_svd import SCHEDULE, UNET, UNET_CONFIG  # noqa: E402

from mvsdk_export.checkpoints import (  # noqa: E402
    EDMScheduler,
    FlowScheduler,
    ModelFolder,
    OneStepScheduler,
    Scheduler,
    open_model,
    save_model_folder,
    weights_output,
)
from mvsdk_export.errors import CheckpointError  # noqa: E402
from mvsdk_export.families import find_recipe  # noqa: E402
from mvsdk_export.families.svd.graphs import DenoiserGraph, OneStepGraph  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNet  # noqa: E402

MOBILEVD = find_recipe("mobilevd")
CARD = "# Random weights\n"


def _save(out: Path, rest: Path, scheduler: Scheduler, **options: Any) -> ModelFolder:
    """Write a folder of ours whose components are those of another one, but for `networks`."""
    return save_model_folder(
        out,
        MOBILEVD,
        options.pop("networks", {}),
        scheduler=scheduler,
        model_card=CARD,
        rest=open_model(rest),
        **options,
    )


@pytest.fixture(scope="module")
def one_step(tiny_svd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of ours for one step, with two temporal blocks pruned."""
    whole = open_model(tiny_svd_folder).load("unet")
    config = replace(whole.config, temporal_blocks="00" + "1" * 22, folded_cross_attention=False)
    unet = SVDUNet(config)
    return _save(
        tmp_path_factory.mktemp("one") / "step",
        tiny_svd_folder,
        OneStepScheduler(sigma=350.0),
        networks={"unet": unet},
    ).path


# Schedulers decide what a recipe is


def test_a_scheduler_of_one_step_makes_another_graph(one_step: Path) -> None:
    folder = open_model(one_step)
    recipe = folder.recipe
    assert (recipe.name, recipe.steps, recipe.default_steps) == ("mobilevd", (1,), 1)
    assert [tensor.name for tensor in recipe.component("unet").inputs] == [
        "sample",
        "encoder_hidden_states",
        "image_latents",
        "added_time_ids",
    ]
    assert not recipe.takes_guidance
    graph = folder.load_graph("unet")
    assert isinstance(graph, OneStepGraph)
    assert graph.sigma == 350.0
    assert graph.unet.config.temporal_blocks == "00" + "1" * 22
    with pytest.raises(CheckpointError, match="trained to do without guidance, got 1 to 3; l"):
        folder.load_graph("unet", guidance=(1.0, 3.0))


def test_a_scheduler_of_many_steps_keeps_the_time(tiny_svd_folder: Path, tmp_path: Path) -> None:
    scheduler = EDMScheduler(sigma_min=0.01, sigma_max=80.0, rho=5.0)
    folder = _save(tmp_path / "m", tiny_svd_folder, scheduler)
    assert folder.scheduler == scheduler
    assert (folder.recipe.steps, folder.recipe.default_steps) == ((4, 25), 25)
    assert "timestep" in [tensor.name for tensor in folder.recipe.component("unet").inputs]
    graph = folder.load_graph("unet", guidance=(1.0, 3.0))
    assert isinstance(graph, DenoiserGraph)
    assert graph.guidance == (1.0, 3.0)


SCHEDULERS_REFUSED: dict[str, tuple[Damage, str]] = {
    "flow": (
        edit_json(SCHEDULE, kind="flow_euler"),
        "kind is 'flow_euler', expected one of edm_euler, one_step",
    ),
    "no sigma": (
        edit_json(SCHEDULE, sigma=...),
        "sigma is missing, expected every one of kind, sigma",
    ),
    "zero": (
        edit_json(SCHEDULE, sigma=0.0),
        "sigma is 0.0, expected a number above 0, at most 10000",
    ),
    "huge": (edit_json(SCHEDULE, sigma=1e9), "sigma is 1000000000.0, expected a number above 0"),
    "text": (edit_json(SCHEDULE, sigma="700"), "sigma is '700', expected a number above 0"),
    "other key": (edit_json(SCHEDULE, rho=7.0), "key 'rho' is unknown, known: kind, sigma"),
    "keys of another": (
        edit_json(SCHEDULE, kind="edm_euler"),
        "prediction_type is missing, expected",
    ),
}


@pytest.mark.parametrize(("damage", "message"), SCHEDULERS_REFUSED.values(), ids=SCHEDULERS_REFUSED)
def test_schedulers_that_do_not_belong_are_refused(
    one_step: Path, tmp_path: Path, damage: Damage, message: str
) -> None:
    shutil.copytree(one_step, tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(CheckpointError, match=message):
        open_model(tmp_path / "copy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rho": 0.1}, "rho is 0.1, expected a number above 0.5, at most 100"),
        ({"sigma_max": 0.001}, "sigma_min is 0.002, expected a number below sigma_max, 0.001"),
        (
            {"prediction_type": "epsilon"},
            "prediction_type is 'epsilon', expected one of v_prediction",
        ),
    ],
)
def test_noise_levels_out_of_range_are_refused(
    tiny_svd_folder: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    folder = _save(tmp_path / "m", tiny_svd_folder, EDMScheduler())
    edit_json(SCHEDULE, **changes)(folder.path)
    with pytest.raises(CheckpointError, match=message):
        open_model(folder.path)


def test_a_model_of_pictures_takes_no_flow(tiny_svd_folder: Path, tmp_path: Path) -> None:
    scheduler = FlowScheduler(kind="flow_euler", prediction_type="velocity")
    with pytest.raises(
        CheckpointError, match="kind is 'flow_euler', expected one of edm_euler, one_"
    ):
        _save(tmp_path / "m", tiny_svd_folder, scheduler)
    assert list(tmp_path.iterdir()) == []


# What is copied is not loaded


def test_components_are_copied_from_a_public_folder(tiny_svd_folder: Path, one_step: Path) -> None:
    public, ours = open_model(tiny_svd_folder), open_model(one_step)
    assert [path.name for path in sorted(one_step.iterdir())] == [
        *("README.md", "image_encoder", "model_index.json", "scheduler", "unet", "vae"),
    ]
    for component in ("image_encoder", "vae_decoder"):
        assert ours.load_config(component) == public.load_config(component)
        copied, source = (f.load(component).state_dict() for f in (ours, public))
        assert all(
            torch.equal(copied[name], value.half().float()) for name, value in source.items()
        )
    assert set(load_file(one_step / UNET)) < set(load_file(tiny_svd_folder / UNET))
    assert open_model(one_step).load_config("unet").temporal_blocks.startswith("00")


def test_components_that_share_a_folder_are_one_network(
    tiny_svd_folder: Path, tmp_path: Path
) -> None:
    vae, other = (open_model(tiny_svd_folder).load("vae_decoder") for _ in range(2))
    _save(
        tmp_path / "one",
        tiny_svd_folder,
        EDMScheduler(),
        networks={"vae_encoder": vae, "vae_decoder": vae},
    )
    _save(tmp_path / "half", tiny_svd_folder, EDMScheduler(), networks={"vae_decoder": vae})
    with pytest.raises(
        CheckpointError, match="vae_encoder shares the folder vae with another comp"
    ):
        _save(
            tmp_path / "two",
            tiny_svd_folder,
            EDMScheduler(),
            networks={"vae_encoder": vae, "vae_decoder": other},
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "one"]


def test_what_does_not_belong_together_is_not_written(
    tiny_svd_folder: Path, tmp_path: Path
) -> None:
    sticker = write_tiny_model_folder(tmp_path / "sticker")
    with pytest.raises(
        CheckpointError, match=r"comes from .*sticker', a checkpoint of sticker; take"
    ):
        _save(tmp_path / "m", sticker.path, EDMScheduler())
    vocabulary = sticker.vocabulary.files[0]
    with pytest.raises(CheckpointError, match="model folder of mobilevd has no vocabulary; pass"):
        _save(tmp_path / "m", tiny_svd_folder, EDMScheduler(), vocabulary_file=vocabulary)
    with pytest.raises(CheckpointError, match="a model folder of sticker has a vocabulary; pass"):
        save_model_folder(
            tmp_path / "m",
            find_recipe("sticker"),
            tiny_networks(),
            scheduler=sticker.scheduler,
            model_card=CARD,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["sticker"]


def test_further_documents_are_written_beside(tiny_svd_folder: Path, tmp_path: Path) -> None:
    report = {"compression.json": '{"steps": []}\n'}
    folder = _save(tmp_path / "m", tiny_svd_folder, EDMScheduler(), documents=report)
    assert json.loads((folder.path / "compression.json").read_text()) == {"steps": []}


# Bytes


def test_files_are_those_of_the_safetensors_library(one_step: Path, tmp_path: Path) -> None:
    for file in (UNET, "image_encoder/model.safetensors"):
        again = tmp_path / "again.safetensors"
        save_file(load_file(one_step / file), again, metadata={"format": "pt"})
        assert again.read_bytes() == (one_step / file).read_bytes()


def test_large_weights_are_sharded(
    tiny_svd_folder: Path, one_step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_output, "SHARD_BYTES", 500_000)
    folder = _save(tmp_path / "m", one_step, EDMScheduler())
    shards = folder.weights["unet"].files
    assert shards[0].name == f"diffusion_pytorch_model-00001-of-{len(shards):05d}.safetensors"
    assert len(shards) > 3
    assert all(sum(v.nbytes for v in load_file(path).values()) <= 500_000 for path in shards)
    index = json.loads((folder.path / f"{UNET}.index.json").read_text())
    whole = load_file(one_step / UNET)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in whole.values())
    loaded = folder.load("unet").state_dict()
    assert all(torch.equal(loaded[name], value.float()) for name, value in whole.items())
    assert f"{UNET}.index.json" in [ref.path for ref in folder.files_with_hashes()]
    again = _save(tmp_path / "again", folder.path, EDMScheduler())  # from shards
    assert again.files_with_hashes() == folder.files_with_hashes()


def test_a_tensor_larger_than_a_shard_has_one_for_itself(
    tiny_svd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_output, "SHARD_BYTES", 100_000)
    folder = _save(tmp_path / "m", tiny_svd_folder, EDMScheduler())
    sizes = [[v.nbytes for v in load_file(x).values()] for x in folder.weights["unet"].files]
    assert [large for large in sizes if sum(large) > 100_000]
    assert all(len(large) == 1 for large in sizes if sum(large) > 100_000)
    folder.check()


def test_copied_weights_must_fit_half_precision(svd_copy: Path, tmp_path: Path) -> None:
    weights = load_file(svd_copy / UNET)
    weights["conv_in.bias"][3] = 1e5
    save_file(weights, svd_copy / UNET)
    with pytest.raises(
        CheckpointError, match=r"cannot save unet: tensor 'conv_in.bias' reaches 100000, f"
    ):
        _save(tmp_path / "m", svd_copy, EDMScheduler())
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_config_that_cannot_be_built_is_refused(one_step: Path, tmp_path: Path) -> None:
    shutil.copytree(one_step, tmp_path / "copy")
    for value, message in (
        ("0101", "temporal_blocks is '0101'; it is 'all' or 24 characters 0 and 1"),
        ("x" * 300, "temporal_blocks is 'xxx.*expected one line of 1 to 256 letters"),
    ):
        edit_json(UNET_CONFIG, temporal_blocks=value)(tmp_path / "copy")
        with pytest.raises(CheckpointError, match=message):
            open_model(tmp_path / "copy").check()


# Memory


MEASURE = """
import sys
import torch
from pathlib import Path
from mvsdk_export.checkpoints import EDMScheduler, open_model, save_model_folder

torch.set_num_threads(1)
def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
folder = open_model(Path(sys.argv[1]))
folder.check()  # loads all that is loaded once
before = memory("VmRSS")
options = {"scheduler": EDMScheduler(), "model_card": "", "rest": folder}
save_model_folder(Path(sys.argv[2]), folder.recipe, {}, **options)
copied = memory("VmHWM")
network = folder.load("image_encoder")
print(copied - before, memory("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def large(tiny_svd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Return a folder whose image encoder is large, and the bytes of that in float32."""
    from mvsdk_export.families.svd.clip_vision import ClipVisionConfig, ClipVisionEncoder

    config = ClipVisionConfig(
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=10,
        num_attention_heads=8,
        image_size=28,
        projection_dim=16,
    )
    encoder = ClipVisionEncoder(config)
    size = 4 * sum(value.numel() for value in encoder.state_dict().values())
    folder = _save(
        tmp_path_factory.mktemp("large") / "m",
        tiny_svd_folder,
        EDMScheduler(),
        networks={"image_encoder": encoder},
    )
    return folder.path, size


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_loading_takes_the_memory_of_float32_and_copying_next_to_none(
    large: tuple[Path, int], tmp_path: Path
) -> None:
    path, size = large
    assert size > 100_000_000
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, str(path), str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    copied, loaded = map(int, done.stdout.split())
    file = 0.5 * size  # in half precision, mapped: how much of it counts as resident varies
    assert copied < file
    assert size <= loaded < size + 1.2 * file


def test_full_disk_leaves_nothing(tiny_svd_folder: Path, tmp_path: Path) -> None:
    """The limit on file size of a child process stands for a full disk."""
    code = (
        "import resource, sys, pathlib\n"
        "from mvsdk.errors import OutputError\n"
        "from mvsdk_export.checkpoints import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"folder = open_model(pathlib.Path({str(tiny_svd_folder)!r}))\n"
        f"out = pathlib.Path({str(tmp_path / 'm')!r})\n"
        "options = {'scheduler': EDMScheduler(), 'model_card': '', 'rest': folder}\n"
        "try: save_model_folder(out, folder.recipe, {}, **options)\n"
        "except OutputError as exc: print(exc)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "file too large" in done.stdout
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
