"""Model folders: what is written is what is read, and nothing half-written is left."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from damage import BIAS, TRANSFORMER, VOCABULARY, edit_json, edit_weights, shard  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_models import SCHEDULER, tiny_networks, write_tiny_model_folder  # noqa: E402

from mvsdk.errors import OutputError  # noqa: E402
from mvsdk.tokenizers import WordPiece  # noqa: E402
from mvsdk_export.checkpoints import (  # noqa: E402
    default_model_folder,
    load_configs,
    open_model,
    save_model_folder,
)
from mvsdk_export.checkpoints.building import build_on_meta, with_frames  # noqa: E402
from mvsdk_export.checkpoints.weights import load_weights_  # noqa: E402
from mvsdk_export.errors import CheckpointError, ExportError  # noqa: E402
from mvsdk_export.families import find_recipe  # noqa: E402
from mvsdk_export.families.sticker.transformer import (  # noqa: E402
    SpatioTemporalTransformer,
    TransformerConfig,
)

STICKER = find_recipe("sticker")
FILES = (
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "transformer/config.json",
    TRANSFORMER,
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
NAN, INF = float("nan"), float("inf")


def test_loaded_networks_compute_what_the_saved_ones_did(tiny_model_folder: Path) -> None:
    folder = open_model(tiny_model_folder, STICKER)
    saved = tiny_networks()
    for name, network in saved.items():
        loaded = folder.load(name)
        assert not loaded.training
        assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
        for key, value in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value.half().float())
    ids = torch.from_numpy(
        WordPiece.from_file(folder.vocabulary.files[0], 16).encode("a rocket flying left").ids
    )
    with torch.no_grad():
        ours, theirs = folder.load("text_encoder")(ids), saved["text_encoder"](ids)
    assert torch.allclose(ours, theirs, atol=2e-2)


def test_graph_of_the_decoder_is_what_phones_get(tiny_model_folder: Path) -> None:
    graph = open_model(tiny_model_folder, STICKER).load_graph("vae_decoder")
    with torch.no_grad():
        frames = graph(torch.randn(8, 8, 4, 4))
    assert frames.shape == (8, 32, 32, 3)
    assert 0.0 <= frames.min() < frames.max() <= 1.0


def test_loaded_denoiser_takes_every_size(tiny_model_folder: Path) -> None:
    network = open_model(tiny_model_folder, STICKER).load("transformer", num_frames=8)
    saved = tiny_networks()["transformer"]
    for size in ((4, 4), (6, 2)):
        inputs = torch.randn(8, 8, *size), torch.ones(1), torch.randn(1, 16 + 2 * 5, 32)
        with torch.no_grad():
            ours, theirs = network(*inputs), saved(*inputs)
        assert ours.shape == (8, 8, *size)
        assert torch.allclose(ours, theirs, atol=2e-2)


def test_same_weights_load_for_another_clip_length(tmp_path: Path) -> None:
    config = TransformerConfig(latent_channels=8, width=32, layers=1, heads=2, context_dim=32)
    save_file(SpatioTemporalTransformer(config).state_dict(), tmp_path / "w.safetensors")
    built = build_on_meta(STICKER.component("transformer"), with_frames(config, 4))
    network = load_weights_(built, [tmp_path / "w.safetensors"])
    with torch.no_grad():
        out = network(torch.randn(4, 8, 4, 4), torch.ones(1), torch.randn(1, 16, 32))
    assert out.shape == (4, 8, 4, 4)


def test_pictures_of_a_memory_have_one_clip_length(tiny_model_folder: Path) -> None:
    folder = open_model(tiny_model_folder, STICKER)
    with pytest.raises(CheckpointError, match=r"conv_out\.bias' has .* wants \[64\]"):
        folder.load("transformer", num_frames=4)


def test_configs_scheduler_and_vocabulary_are_read(tiny_model_folder: Path) -> None:
    folder = open_model(tiny_model_folder, STICKER)
    assert folder.load_config("transformer") == tiny_networks()["transformer"].config
    assert folder.scheduler == SCHEDULER
    assert folder.vocabulary.size == folder.load_config("text_encoder").vocabulary_size


def test_every_file_is_listed_with_its_hash(tiny_model_folder: Path) -> None:
    refs = open_model(tiny_model_folder, STICKER).files_with_hashes()
    assert tuple(ref.path for ref in refs) == FILES
    for ref in refs:
        content = (tiny_model_folder / ref.path).read_bytes()
        assert ref.sha256 == hashlib.sha256(content).hexdigest()
        assert ref.bytes == len(content)


def test_weights_are_half_precision_on_disk(tiny_model_folder: Path) -> None:
    assert {value.dtype for value in load_file(tiny_model_folder / TRANSFORMER).values()} == {
        torch.float16
    }


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    first = write_tiny_model_folder(tmp_path / "a").files_with_hashes()
    assert first == write_tiny_model_folder(tmp_path / "b").files_with_hashes()
    assert first != write_tiny_model_folder(tmp_path / "c", seed=1).files_with_hashes()


def test_opening_needs_no_torch(tiny_model_folder: Path) -> None:
    code = (
        "import sys, pathlib; from mvsdk_export.checkpoints import open_model; "
        "from mvsdk_export.families import find_recipe; "
        f"open_model(pathlib.Path({str(tiny_model_folder)!r}), find_recipe('sticker')); "
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_configs_are_read_where_weights_are_missing(model_copy: Path) -> None:
    (model_copy / TRANSFORMER).unlink()
    assert load_configs(model_copy, STICKER)["transformer"].picture_size == 8


def test_wider_types_are_read_as_float32(model_copy: Path) -> None:
    edit_weights(lambda w: {k: v.bfloat16() for k, v in w.items()})(model_copy)
    assert (
        open_model(model_copy, STICKER).load("transformer").state_dict()[BIAS].dtype
        == torch.float32
    )


def test_links_inside_the_folder_are_followed(model_copy: Path) -> None:
    (model_copy / TRANSFORMER).rename(model_copy / "weights.safetensors")
    (model_copy / TRANSFORMER).symlink_to(model_copy / "weights.safetensors")
    open_model(model_copy, STICKER).load("transformer")


def test_header_of_640_bytes_is_no_pickle(model_copy: Path) -> None:
    """The header size is then spelled as the first bytes of a pickle."""
    tensors = {"x": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}
    header = json.dumps(tensors).encode().ljust(0x0280)
    (model_copy / TRANSFORMER).write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    assert (model_copy / TRANSFORMER).read_bytes().startswith(b"\x80\x02")
    open_model(model_copy, STICKER)


def test_shards_are_read_as_one(model_copy: Path) -> None:
    before = open_model(model_copy, STICKER).load("transformer").state_dict()
    shard(model_copy)
    folder = open_model(model_copy, STICKER)
    after = folder.load("transformer").state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert "transformer/part-2.safetensors" in [ref.path for ref in folder.files_with_hashes()]


def test_default_folder_belongs_to_a_known_model() -> None:
    assert default_model_folder("sticker").parts[-3:] == ("mvsdk_export", "models", "sticker")
    with pytest.raises(ExportError, match=r"unknown model '\.\./x'; known: .*sticker"):
        default_model_folder("../x")
    with pytest.raises(ExportError, match="no weights of mobilevd are shipped; give a folder with"):
        default_model_folder("mobilevd")


def _save(out: Path, source: Path, networks: dict[str, Any], *, overwrite: bool = False) -> None:
    save_model_folder(
        out,
        STICKER,
        networks,
        scheduler=SCHEDULER,
        vocabulary_file=source / VOCABULARY,
        model_card="# Card\n",
        overwrite=overwrite,
    )


def _spoiled_networks(value: float) -> dict[str, Any]:
    networks = tiny_networks()
    with torch.no_grad():
        networks["transformer"].get_parameter(BIAS)[3] = value
    return networks


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7e4, f"'{BIAS}' reaches 70000, float16 holds at most 65504; train"),
        (-7e4, "reaches 70000"),
        (NAN, r"holds 1 of 32 values that are not finite \(1 NaN, 0 infinite\)"),
        (INF, r"\(0 NaN, 1 infinite\)"),
    ],
)
def test_weights_beyond_half_precision_are_not_saved(
    tiny_model_folder: Path, tmp_path: Path, value: float, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        _save(tmp_path / "new" / "model", tiny_model_folder, _spoiled_networks(value))
    assert list(tmp_path.iterdir()) == []


def test_networks_must_be_those_of_the_recipe(tiny_model_folder: Path, tmp_path: Path) -> None:
    networks = tiny_networks()
    other = {**networks, "transformer": networks["text_encoder"]}
    with pytest.raises(CheckpointError, match="transformer is a TextEncoder, recipe sticker wa"):
        _save(tmp_path / "m", tiny_model_folder, other)
    del networks["transformer"]
    with pytest.raises(CheckpointError, match="got networks for text_encoder, vae_decoder, recipe"):
        _save(tmp_path / "m", tiny_model_folder, networks)
    assert list(tmp_path.iterdir()) == []


def test_what_no_reader_accepts_is_not_written(model_copy: Path, tmp_path: Path) -> None:
    edit_json(VOCABULARY, kind="bpe")(model_copy)
    with pytest.raises(CheckpointError, match="kind is 'bpe'"):
        _save(tmp_path / "m", model_copy, tiny_networks())
    (model_copy / VOCABULARY).unlink()
    with pytest.raises(OutputError, match="no such file"):
        _save(tmp_path / "m", model_copy, tiny_networks())
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_existing_model_is_replaced_only_on_request(
    tiny_model_folder: Path, model_copy: Path
) -> None:
    with pytest.raises(OutputError, match="exists"):
        _save(model_copy, tiny_model_folder, tiny_networks(seed=1))
    assert (model_copy / TRANSFORMER).read_bytes() == (tiny_model_folder / TRANSFORMER).read_bytes()
    with pytest.raises(CheckpointError, match="reaches"):
        _save(model_copy, tiny_model_folder, _spoiled_networks(1e5), overwrite=True)
    assert (model_copy / TRANSFORMER).read_bytes() == (tiny_model_folder / TRANSFORMER).read_bytes()
    _save(model_copy, tiny_model_folder, tiny_networks(seed=1), overwrite=True)
    assert (model_copy / TRANSFORMER).read_bytes() != (tiny_model_folder / TRANSFORMER).read_bytes()
    assert [path.name for path in model_copy.parent.iterdir()] == ["copy"]


def test_other_folders_are_never_replaced(tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(OutputError, match=r"holds no model_index\.json"):
        _save(tmp_path / "photos", tiny_model_folder, tiny_networks(), overwrite=True)
    assert (tmp_path / "photos" / "cat.png").exists()


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """The limit on file size of a child process stands for a full disk."""
    code = (
        "import resource, sys, pathlib; from tiny_models import write_tiny_model_folder\n"
        "from mvsdk.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"try: write_tiny_model_folder(pathlib.Path({str(tmp_path / 'm')!r}))\n"
        "except OutputError as exc: print(exc)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "file too large" in done.stdout.lower()
    assert done.stdout.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m-vocab.json"]
