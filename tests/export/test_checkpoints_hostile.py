"""Model folders that are damaged, hostile or do not fit: each is refused in one line."""

from __future__ import annotations

import errno
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from damage import (  # noqa: E402 - after the check for torch
    BIAS,
    SCHEDULE,
    TRANSFORMER,
    VOCABULARY,
    Damage,
    Refusals,
    edit_header,
    edit_json,
    edit_weights,
    index_names,
    refused,
    rename_block,
    repeat_tensor,
    shard,
    shard_then,
    spoil,
    weights_not_loaded,
    weights_not_opened,
    write_bytes,
)

from mvsdk_export.checkpoints import open_model  # noqa: E402
from mvsdk_export.errors import CheckpointError  # noqa: E402
from mvsdk_export.families import find_recipe  # noqa: E402

STICKER = find_recipe("sticker")
CONFIG = "transformer/config.json"
VAE_CONFIG = "vae/config.json"

# Damage that opening refuses


NESTED = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

REFUSED_AT_OPEN: Refusals = {
    **weights_not_opened(TRANSFORMER, BIAS),
    "other recipe": (
        edit_json("model_index.json", recipe="wan"),
        "recipe is 'wan', expected one of .*sticker; correct",
    ),
    "other class": (
        edit_json("model_index.json", _class_name="X"),
        "is of the class 'X', which is not supported; supported are MvsdkPipeline, StableVid",
    ),
    "newer": (
        edit_json("model_index.json", format_version=2),
        "format_version 2, this mvsdk reads up to 1; update mvsdk",
    ),
    "true as version": (
        edit_json("model_index.json", format_version=True),
        "format_version is true",
    ),
    "unknown key": (
        edit_json("model_index.json", extra=1),
        "key 'extra' is unknown, known: _class",
    ),
    "missing key": (edit_json("model_index.json", recipe=...), "recipe is missing, expected"),
    "no JSON": (
        write_bytes(CONFIG, b"{,}"),
        "config.json' is not JSON: .* line 1 column 2",
    ),
    "no object": (
        write_bytes(CONFIG, b"[]"),
        "config.json' is a list of 0, expected a JSON ob",
    ),
    "no UTF-8": (write_bytes(CONFIG, b'{"a":"\xff"}'), "is not UTF-8 at byte 6"),
    "NaN": (
        write_bytes(CONFIG, b'{"a":NaN}'),
        "holds the number NaN, which is not finite",
    ),
    "1e999": (write_bytes(CONFIG, b'{"a":1e999}'), "holds a number that is not finite"),
    "key twice": (write_bytes(CONFIG, b'{"a":1,"a":1}'), "holds the key 'a' twice"),
    "huge integer": (write_bytes(CONFIG, b'{"a":1' + b"0" * 400 + b"}"), "beyond 2.53"),
    "endless integer": (
        write_bytes(CONFIG, b'{"a":' + b"1" * 9000 + b"}"),
        "holds an oversized number",
    ),
    "deep": (write_bytes(CONFIG, b'{"a":' + b"[" * 20 + b"]" * 20 + b"}"), "16 levels"),
    "abyss": (write_bytes(CONFIG, NESTED), "nested too deeply"),
    "large config": (
        write_bytes(CONFIG, b" " * (1 << 20) + b"{}"),
        "more than 1048576 by",
    ),
    "pickle inside": (
        write_bytes(TRANSFORMER, pickle.dumps({})),
        "no safetensors file but a pickle; convert",
    ),
    "zip inside": (
        lambda f: torch.save({}, f / TRANSFORMER),
        "a zip archive.*pickle; convert it on a",
    ),
    "lfs pointer": (
        write_bytes(TRANSFORMER, b"version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "empty": (write_bytes(TRANSFORMER, b""), "is truncated: 0 bytes"),
    "giant header": (
        write_bytes(TRANSFORMER, b"\xff" * 7 + b"\0{"),
        "says that its header has .* at most 167",
    ),
    "text": (write_bytes(TRANSFORMER, b"\x04" + b"\0" * 7 + b"text" * 9), "does not begin with"),
    "header no JSON": (
        write_bytes(TRANSFORMER, b"\x04" + b"\0" * 7 + b"{,,}"),
        "the header of .* is not JSON",
    ),
    "gap": (edit_header(lambda h: h.pop(BIAS)), "wrong offsets: tensor"),
    "no offsets": (
        edit_header(lambda h: h[BIAS].pop("data_offsets")),
        f"'{BIAS}' wron",
    ),
    "negative": (
        edit_header(lambda h: h[BIAS].update(shape=[-1])),
        f"'{BIAS}' wrongly",
    ),
    "unknown type": (
        edit_header(lambda h: h[BIAS].update(dtype="F3")),
        "dtype 'F3', expected F1",
    ),
    "linked nowhere": (
        lambda f: ((f / TRANSFORMER).unlink(), (f / TRANSFORMER).symlink_to("nothing")),
        f"lacks {TRANSFORMER}",
    ),
    "a folder as file": (
        lambda f: ((f / SCHEDULE).unlink(), (f / SCHEDULE).mkdir()),
        "is not a regular file",
    ),
    "unknown sampler": (
        edit_json(SCHEDULE, kind="ddim"),
        "kind is 'ddim', expected one of flow_euler, ",
    ),
    "unknown prediction": (
        edit_json(SCHEDULE, prediction_type="x"),
        "prediction_type is 'x', expected",
    ),
    "schedule key": (edit_json(SCHEDULE, betas=[]), "key 'betas' is unknown, known: kind"),
    "no shift": (edit_json(SCHEDULE, shift=0), "shift is 0, expected a number above 0"),
    "text as shift": (edit_json(SCHEDULE, shift="1"), "shift is '1', expected a number"),
    "no timesteps": (
        edit_json(SCHEDULE, num_train_timesteps=0),
        "num_train_timesteps is 0, expected",
    ),
    "vocabulary kind": (
        edit_json(VOCABULARY, kind="bpe"),
        "kind is 'bpe', expected one of wordpiece",
    ),
    "no tokens": (
        edit_json(VOCABULARY, tokens=[]),
        "tokens is a list of 0, expected a list of non-empty",
    ),
    "token no text": (
        edit_json(VOCABULARY, tokens=["[PAD]", 1]),
        "expected a list of non-empty strings",
    ),
    "token twice": (
        edit_json(VOCABULARY, tokens=["[PAD]", "[UNK]", "a", "a"]),
        "expected each token once",
    ),
    "no pad": (edit_json(VOCABULARY, tokens=["[UNK]"]), r"the pad token '\[PAD\]'"),
    "pickled shard": (
        index_names("part-1.bin"),
        "names the shard 'part-1.bin', expected a plain name",
    ),
    "other index": (index_names("part-1.safetensors"), "and its shards differ about tensor"),
    "empty index": (
        shard_then(edit_json(f"{TRANSFORMER}.index.json", weight_map={})),
        "weight_map is an object of 0 keys",
    ),
}


@pytest.mark.parametrize(("damage", "message"), REFUSED_AT_OPEN.values(), ids=REFUSED_AT_OPEN)
def test_damaged_folder_is_not_opened(model_copy: Path, damage: Damage, message: str) -> None:
    damage(model_copy)
    with refused(message):
        open_model(model_copy, STICKER)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        SCHEDULE,
        VOCABULARY,
        TRANSFORMER,
        CONFIG,
        "text_encoder/model.safetensors",
        VAE_CONFIG,
    ],
)
def test_missing_file_is_named(model_copy: Path, file: str) -> None:
    (model_copy / file).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {re.escape(file)}; download or make it"):
        open_model(model_copy, STICKER)


def test_model_card_is_optional(model_copy: Path) -> None:
    (model_copy / "README.md").unlink()
    refs = open_model(model_copy, STICKER).files_with_hashes()
    assert "README.md" not in [ref.path for ref in refs]


def test_a_file_that_may_not_be_read_is_named(
    model_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, who may read everything: so the system's refusal is made up."""
    folder = open_model(model_copy, STICKER)

    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("mvsdk_export.checkpoints.folder.sha256_file", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be read: permission denied; give a folder"):
        folder.files_with_hashes()


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist; give a folder that holds model_in"):
        open_model(tmp_path / "none", STICKER)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file; give a folder"):
        open_model(tmp_path / "file", STICKER)
    torch.save({}, tmp_path / "model.ckpt")
    (tmp_path / "a.bin").touch()
    with pytest.raises(CheckpointError, match=r"model\.ckpt' is a pickle.*convert it"):
        open_model(tmp_path / "model.ckpt", STICKER)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_model(tmp_path / "a\0b", STICKER)
    with pytest.raises(CheckpointError, match="cannot be opened: file name too long; give a"):
        open_model(tmp_path / ("x" * 300), STICKER)


class _Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_pickle_is_not_run(model_copy: Path) -> None:
    trace = model_copy / "ran"
    (model_copy / TRANSFORMER).write_bytes(pickle.dumps(_Bomb(trace)))
    with pytest.raises(CheckpointError, match="a pickle"):
        open_model(model_copy, STICKER)
    assert not trace.exists()


# Damage that loading refuses


NAN, INF = float("nan"), float("inf")

REFUSED_AT_LOAD: Refusals = {
    **weights_not_loaded(TRANSFORMER, BIAS),
    "unknown field": (edit_json(CONFIG, depth=3), "key 'depth' is unknown, known: latent_channels"),
    "missing field": (
        edit_json("text_encoder/config.json", vocabulary_size=...),
        "ary_size is missing",
    ),
    "text as integer": (
        edit_json(CONFIG, num_frames="8"),
        "num_frames is '8', expected an integer from 1",
    ),
    "true as integer": (
        edit_json(CONFIG, num_frames=True),
        "num_frames is true, expected an integer",
    ),
    "float as integer": (
        edit_json(CONFIG, num_frames=8.0),
        "num_frames is 8.0, expected an integer",
    ),
    "zero": (edit_json(CONFIG, num_frames=0), "num_frames is 0, expected an integer from 1"),
    "endless network": (
        edit_json(CONFIG, layers=10**6),
        "layers is 1000000, expected .* 1 to 256",
    ),
    "one of three": (
        edit_json(VAE_CONFIG, decoder_channels=[32]),
        "decoder_channels is a list of 1, expected a list of 3",
    ),
    "text in tuple": (
        edit_json(VAE_CONFIG, decoder_channels=[32, "x", 16]),
        r"decoder_channels\[1\] is 'x', expected an integer",
    ),
    "no list": (
        edit_json(VAE_CONFIG, decoder_channels=32),
        "decoder_channels is 32, expected a list of 3",
    ),
    "cannot be built": (
        edit_json(CONFIG, picture_size=1 << 20),
        "describes no SpatioTemporalTransformer that",
    ),
    "text width": (
        edit_json(CONFIG, context_dim=64),
        "text_encoder.hidden_size is 32, transformer.context_di",
    ),
    "latents": (
        edit_json(VAE_CONFIG, latent_channels=4),
        "vae_decoder.latent_channels is 4, expected",
    ),
    "other vocabulary": (
        edit_json(VOCABULARY, tokens=["[PAD]", "[UNK]"]),
        "vocab.json has 2; use the",
    ),
    "keys missing": (
        edit_weights(lambda w: {BIAS: w[BIAS]}),
        "lacks [0-9]+ of [0-9]+ tensors: '.*', '.*', '.*' and [0-9]+ more; config.json and weights",
    ),
    "unexpected": (
        edit_weights(lambda w: w.update({f"z{i}": torch.zeros(1) for i in range(5)})),
        "holds 5 unexpected tensors: 'z0', 'z1', 'z2' and 2 more; config.json and weights must",
    ),
    "renamed": (
        edit_weights(rename_block),
        "lacks 6 of [0-9]+ tensors: 'layers.0.to_q.weight', 'layers",
    ),
    "transposed": (
        edit_weights(lambda w: w.update({"time_in.weight": torch.zeros(64, 32)})),
        r"has shape \[64, 32\], the network of config.json wants \[32, 64\]",
    ),
    "doubles": (
        edit_weights(lambda w: w.update({BIAS: torch.zeros(32).double()})),
        "has dtype F64",
    ),
    "NaN": (
        spoil(BIAS, NAN, NAN, INF),
        rf"'{BIAS}' holds 3 of 32 values that are not finite \(2 NaN, 1 infinite\)",
    ),
    "infinity": (spoil(BIAS, -INF), r"holds 1 of 32 .* \(0 NaN, 1 infinite\); train again"),
}


@pytest.mark.parametrize(("damage", "message"), REFUSED_AT_LOAD.values(), ids=REFUSED_AT_LOAD)
def test_component_that_does_not_fit_is_not_loaded(
    model_copy: Path, damage: Damage, message: str
) -> None:
    damage(model_copy)
    folder = open_model(model_copy, STICKER)
    with refused(message):
        folder.load("transformer")


def test_only_the_asked_component_is_read(model_copy: Path) -> None:
    spoil(BIAS, NAN)(model_copy)
    folder = open_model(model_copy, STICKER)
    folder.load("text_encoder")
    with pytest.raises(CheckpointError, match="not finite"):
        folder.load("transformer")


def test_tensor_in_two_shards_is_refused(model_copy: Path) -> None:
    shard(model_copy)
    name = repeat_tensor(model_copy / "transformer")
    folder = open_model(model_copy, STICKER)
    with pytest.raises(CheckpointError, match=f"tensor '{re.escape(name)}' is in two shards"):
        folder.load("transformer")
