"""What a model folder costs to check is bounded, and so is what a refusal quotes of it."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from damage import SCHEDULE as OWN_SCHEDULE  # noqa: E402 - after the check for torch
from damage import TRANSFORMER, VOCABULARY, edit_header, edit_json, index_names, refused, shard  # noqa: E402
from tiny_svd import (  # noqa: E402
    CLIP_CONFIG,
    INDEX,
    PREPROCESSOR,
    SCHEDULE,
    UNET,
    UNET_CONFIG,
    VAE_CONFIG,
)

from mvsdk_export.checkpoints import open_model  # noqa: E402
from mvsdk_export.checkpoints.headers import MAX_HEADER_BYTES  # noqa: E402
from mvsdk_export.errors import CheckpointError  # noqa: E402

LONG = "x" * 200
CONFIG = "transformer/config.json"


@pytest.mark.parametrize("count", [257, 1 << 20, 2**53 - 1])
def test_a_clip_of_countless_frames_is_refused_before_it_is_built(
    model_copy: Path, count: int
) -> None:
    edit_json(CONFIG, num_frames=count)(model_copy)
    with refused(f"num_frames is {count}, expected an integer from 1 to 256"):
        open_model(model_copy).check()


def test_a_public_clip_of_countless_frames_is_refused(svd_copy: Path) -> None:
    edit_json(UNET_CONFIG, num_frames=1 << 20)(svd_copy)
    with refused("num_frames is 1048576, expected an integer from 1 to 256"):
        open_model(svd_copy).check()


def test_a_memory_of_countless_pictures_is_refused(model_copy: Path) -> None:
    for config in (CONFIG, "text_encoder/config.json"):
        edit_json(config, memory_slots=65)(model_copy)
    with refused("memory_slots is 65, expected an integer from [01] to 64"):
        open_model(model_copy).check()


def test_a_long_clip_is_one_all_the_same(svd_copy: Path) -> None:
    edit_json(UNET_CONFIG, num_frames=121)(svd_copy)
    open_model(svd_copy).check()


@pytest.mark.parametrize("item", ["[]", '""', "{}"])
def test_a_file_of_countless_values_costs_no_memory(model_copy: Path, item: str) -> None:
    shard(model_copy)
    filler = ",".join([item] * (MAX_HEADER_BYTES // (len(item) + 1) - 100))
    (model_copy / f"{TRANSFORMER}.index.json").write_text('{"weight_map":[' + filler + "]}")
    tracemalloc.start()
    try:
        with refused("holds more than 524288 values, the most that is read; correct the file"):
            open_model(model_copy)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_HEADER_BYTES  # the bytes, and a copy of them


def test_a_header_of_countless_values_is_refused(model_copy: Path) -> None:
    header = b'{"a":[' + b",".join([b"[]"] * (1 << 20)) + b"]}"
    (model_copy / TRANSFORMER).write_bytes(len(header).to_bytes(8, "little") + header)
    with refused("the header of .* holds more than 524288 values"):
        open_model(model_copy)


VOCABULARIES: dict[str, tuple[dict[str, object], str]] = {
    "continuation": (
        {"continuation": "#" * 65},
        "continuation is '#.*, expected one line of 0 to 64",
    ),
    "pad": ({"pad": "p" * 65}, "pad is 'p.*, expected one line of 1 to 64 letters"),
    "unk": ({"unk": "u" * 65}, "unk is 'u.*, expected one line of 1 to 64 letters"),
    "token": ({"tokens": ["t" * 257]}, "expected tokens of at most 256 letters, not 'ttt"),
}


@pytest.mark.parametrize(("changes", "words"), VOCABULARIES.values(), ids=VOCABULARIES)
def test_a_vocabulary_is_bounded(model_copy: Path, changes: dict[str, object], words: str) -> None:
    edit_json(VOCABULARY, **changes)(model_copy)
    with refused(words):
        open_model(model_copy)


QUOTING = {
    "pipeline": edit_json(INDEX, _class_name=LONG),
    "part": edit_json(INDEX, unet=[LONG, LONG]),
    "unknown part": edit_json(INDEX, **{LONG: 1}),
    "denoiser": edit_json(UNET_CONFIG, _class_name=LONG),
    "encoder": edit_json(CLIP_CONFIG, architectures=[LONG] * 50),
    "activation": edit_json(CLIP_CONFIG, hidden_act=LONG),
    "scheduler": edit_json(SCHEDULE, _class_name=LONG),
    "unknown key": edit_json(VAE_CONFIG, **{LONG: 1}),
    "tensor": edit_header(lambda header: header.update({LONG: {}}), UNET),
    "shard": index_names(f"{LONG}.safetensors", UNET),
    "type": edit_header(lambda header: header["conv_in.bias"].update(dtype=LONG), UNET),
}


@pytest.mark.parametrize("damage", QUOTING.values(), ids=QUOTING)
def test_a_refusal_quotes_little_of_what_it_refuses(svd_copy: Path, damage: Any) -> None:
    damage(svd_copy)
    with pytest.raises(CheckpointError) as caught:
        open_model(svd_copy).check()
    assert "x" * 20 in str(caught.value)
    assert "x" * 60 not in str(caught.value)


HOSTILE: list[object] = [
    *(None, True, -1, 0, 1, 3, 1.5, 4.0, 2**31, 2**53, 10**400, 1e308, float("nan")),
    *("", "a" * 100_000, "line\nbreak", "\ud800", "../../etc/passwd", "\U0001f600" * 200),
    *([], [None] * 4, ["x", 7], [1] * 4, [-1] * 4, [[[[[[[]]]]]]], {}, {"": {"": {}}}),
    *(
        [10**400],
        [1e308] * 4,
        [1.0] * 4,
        [True] * 4,
        ["diffusers", "x"],
        {str(i): i for i in range(99)},
    ),
]


def _check(folder: Path, known: object = None) -> None:
    """Accept a folder or refuse it in one line; `known` configurations are not built again."""
    message = ""
    try:
        model = open_model(folder)
        if model.configs() != known:
            model.check()
    except CheckpointError as exc:
        message = str(exc) or "no message"
    assert message.isprintable() or not message
    assert len(message) < 1000


@pytest.mark.parametrize(
    "file",
    [
        INDEX,
        UNET_CONFIG,
        *(pytest.param(x, marks=pytest.mark.exhaustive) for x in (VAE_CONFIG, CLIP_CONFIG)),
        SCHEDULE,
        PREPROCESSOR,
    ],
)
def test_a_hostile_value_in_a_public_file_is_read_or_refused(svd_copy: Path, file: str) -> None:
    _spoil_each_key(svd_copy, file)


@pytest.mark.parametrize("file", ["model_index.json", CONFIG, "vae/config.json", OWN_SCHEDULE])
def test_a_hostile_value_in_a_file_of_ours_is_read_or_refused(model_copy: Path, file: str) -> None:
    _spoil_each_key(model_copy, file)


def _spoil_each_key(folder: Path, file: str) -> None:
    content, known = json.loads((folder / file).read_text()), open_model(folder).configs()
    for key in (*content, "surprise"):
        for value in HOSTILE:
            (folder / file).write_text(json.dumps({**content, key: value}))
            _check(folder, known)


def test_random_bytes_in_headers_and_indices_are_read_or_refused(svd_copy: Path) -> None:
    chance = random.Random(0)
    shard(svd_copy, UNET)
    for file in (f"{UNET}.index.json", "unet/part-1.safetensors", UNET_CONFIG, INDEX):
        content = (svd_copy / file).read_bytes()
        for _ in range(25):
            spoiled = bytearray(content)
            for _ in range(chance.randint(1, 3)):
                place = chance.randrange(min(len(spoiled), 4000))
                spoiled[place : place + chance.randint(0, 2)] = chance.choice(
                    [b"", b'"', b"[", b"}", b"\xff", b"\\", b"9", b"\0", b",", b"e", b"-"]
                )
            (svd_copy / file).write_bytes(spoiled)
            _check(svd_copy)
        (svd_copy / file).write_bytes(content)
