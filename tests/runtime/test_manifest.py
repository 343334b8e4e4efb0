"""The manifest reader takes what the format says and refuses everything else in one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from mvsdk.errors import BundleError
from mvsdk.manifest import (
    FORMAT_VERSIONS,
    Manifest,
    Schedule,
    VideoSpec,
)

ROOT = Path(__file__).parents[2]
GOLDEN = (ROOT / "tests/golden/manifest.json").read_bytes()
SCHEMA = Draft202012Validator(json.loads((ROOT / "docs/bundle.schema.json").read_text()))

Path_ = tuple[str | int, ...]


def document() -> dict[str, Any]:
    return json.loads(GOLDEN)


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def refused(payload: bytes) -> str:
    """Return the message of a refusal, which is one printable line of bounded length."""
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(payload)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    assert not message.endswith(".")
    return message


def at(value: Any, place: Path_) -> Any:
    for key in place:
        value = value[key]
    return value


def changed(place: Path_, value: object) -> dict[str, Any]:
    result = document()
    at(result, place[:-1])[place[-1]] = copy.deepcopy(value)
    return result


def test_golden_manifest_is_read_and_written_to_the_byte() -> None:
    manifest = Manifest.from_json(GOLDEN)
    assert manifest.to_json() == GOLDEN
    assert manifest.task == "text_to_video"
    assert manifest.latents.shape == (8, 16, 8, 8)
    assert manifest.sampler.schedules[4].sigmas == (1.0, 0.9, 0.75, 0.5, 0.0)
    variant = manifest.component("unet").variants[1]
    assert variant.chip is not None
    assert (variant.chip.slug, variant.chip.htp_arch, variant.chip.soc_model) == ("sm8650", 75, 57)
    assert variant.inputs[0].scale == 0.000244140625
    assert variant.inputs[0].zero_point == 32768
    assert variant.residency is not None
    assert variant.residency.npu_nodes == 1


def test_files_lists_every_shipped_file_once_and_no_source_file() -> None:
    paths = [ref.path for ref in Manifest.from_json(GOLDEN).files()]
    assert paths == sorted(set(paths))
    assert len(paths) == 3 * 3 + 2
    assert "tokenizer/vocab.json" in paths
    assert "licences/MIT.txt" in paths
    assert "unet.safetensors" not in paths


def test_unknown_component_names_the_known_ones() -> None:
    manifest = Manifest.from_json(GOLDEN)
    assert manifest.denoiser == "unet"
    with pytest.raises(BundleError, match=r"no component 'transformer'; it has .*unet"):
        manifest.component("transformer")


def test_written_manifests_validate_against_the_schema() -> None:
    SCHEMA.check_schema(SCHEMA.schema)
    SCHEMA.validate(json.loads(Manifest.from_json(GOLDEN).to_json()))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("video", "frames"), True, "video.frames is true, want an integer from 1 to 4096"),
        (("video", "frames"), 8.0, "video.frames is 8.0, want an integer"),
        (("video", "height"), 0, "video.height is 0, want an integer from 1"),
        (("video", "fps"), 0, "video.fps is 0, want a number from 0.1 to 240"),
        (("video", "width"), 2**53, "video.width is 9007199254740992, want an integer within 2^53"),
        (("task",), "text_to_speech", "task is 'text_to_speech', want one of text_to_video"),
        (("name",), "../x", "name is '../x', want a name"),
        (("latents", "shape"), [8, 16, 8], "latents.shape is a list of 3, want 4 to 4 items"),
        (("sampler", "schedules"), {"0": {}}, "sampler.schedules key '0' is not allowed"),
        (("sampler", "schedules"), {"04": {}}, "sampler.schedules key '04' is not allowed"),
        (
            ("sampler", "init_noise_sigma"),
            0,
            "sampler.init_noise_sigma is 0, want a number above 0",
        ),
        (("verification", 0, "passed"), False, "passed is false, want what value_db and floor_db"),
        (("tokenizer", "file", "bytes"), -1, "tokenizer.file.bytes is -1, want an integer from 0"),
        (("tokenizer", "file", "sha256"), "A" * 64, "want 64 lower-case hexadecimal digits"),
    ],
)
def test_message_says_where_what_and_what_is_allowed(
    place: Path_, value: object, words: str
) -> None:
    assert words in refused(encode(changed(place, value)))


def test_newer_format_version_says_what_is_known_and_how_to_upgrade() -> None:
    newer = FORMAT_VERSIONS[-1] + 1
    payload = encode({"format": "mvbundle", "format_version": newer, "all": ["is", "different"]})
    message = refused(payload)
    assert f"format_version {newer}, this mvsdk knows 1, 2; upgrade mvsdk: pip install" in message
    assert not SCHEMA.is_valid(json.loads(payload))


def _variants(doc: dict[str, Any], component: str = "unet") -> list[dict[str, Any]]:
    return doc["components"][component]["variants"]


def _add_input(doc: dict[str, Any], name: str, component: str = "unet") -> None:
    extra = {"name": name, "shape": [1, 2], "dtype": "float32", "scale": None, "zero_point": None}
    for variant in _variants(doc, component):
        variant["inputs"].append(extra)


def _reshape(doc: dict[str, Any], name: str, shape: list[int]) -> None:
    """Give a tensor another shape wherever it stands."""
    for component in doc["components"].values():
        for variant in component["variants"]:
            for tensor in (*variant["inputs"], *variant["outputs"]):
                if tensor["name"] == name:
                    tensor["shape"] = shape


def _decode_one_of_six(doc: dict[str, Any]) -> None:
    doc["video"]["frames"] = 6
    _reshape(doc, "latents", [1, 16, 8, 8])


def _condition_motion(doc: dict[str, Any], values: list[float]) -> None:
    _add_input(doc, "motion")
    doc["sampler"]["conditioning"] = {"motion": values}


def _make_huge(doc: dict[str, Any]) -> None:
    """Ask for latents of 2^60 elements in a consistent manifest of a few kilobytes."""
    shape = [2**15] * 4
    doc["latents"]["shape"] = shape
    for name in ("sample", "model_output", "latents"):
        _reshape(doc, name, shape)


def _twin(doc: dict[str, Any]) -> None:
    _variants(doc).append({**_variants(doc)[1], "id": "twin"})


def _schedule(steps: int, **values: list[float]) -> Callable[[dict[str, Any]], object]:
    return lambda doc: doc["sampler"]["schedules"][str(steps)].update(values)


INCONSISTENT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "short timesteps": (_schedule(4, timesteps=[1000, 750, 500]), "want 4 values for 4 steps"),
    "short sigmas": (_schedule(4, sigmas=[1, 0.5, 0]), "want 5 values for 4 steps"),
    "rising sigmas": (_schedule(2, sigmas=[0.5, 0.75, 0]), "not falling strictly to 0"),
    "level sigmas": (_schedule(2, sigmas=[0.5, 0.5, 0]), "not falling strictly to 0"),
    "sigmas not ending at 0": (_schedule(1, sigmas=[1, 0.1]), "not falling strictly to 0"),
    "sigmas level in float32": (
        _schedule(2, sigmas=[1, 1 - 1e-12, 0]),
        "not falling strictly to 0 in float32",
    ),
    "sigma of 0 in float32": (
        _schedule(1, sigmas=[1e-60, 0]),
        "not falling strictly to 0 in float32",
    ),
    "scale of 0 in float32": (
        lambda doc: _variants(doc)[1]["inputs"][0].update(scale=1e-60),
        "scale is 1e-60, want a number above 0 in float32",
    ),
    "flow above 1": (_schedule(1, sigmas=[700, 0]), "wants levels within [0, 1]"),
    "default steps": (
        lambda doc: doc["sampler"].update(default_steps=3),
        "sampler.default_steps is 3, want one of the schedules: 1, 2, 4",
    ),
    "prediction of another sampler": (
        lambda doc: doc["sampler"].update(prediction_type="epsilon"),
        "flow_euler wants one of velocity, sample",
    ),
    "conditioning without input": (
        lambda doc: doc["sampler"].update(conditioning={"motion": [1]}),
        "want one named motion",
    ),
    "conditioning of another size": (
        lambda doc: _condition_motion(doc, [1]),
        "sampler.conditioning.motion has 1 values for (1, 2)",
    ),
    "conditioning of what is fed": (
        lambda doc: doc["sampler"].update(conditioning={"timestep": [1]}),
        "sampler.conditioning names timestep, which is fed",
    ),
    "conditioning of the text": (
        lambda doc: doc["sampler"].update(conditioning={"encoder_hidden_states": [1]}),
        "sampler.conditioning names encoder_hidden_states, which is fed",
    ),
    "denoiser input that nothing feeds": (
        lambda doc: _add_input(doc, "motion"),
        "unet wants the input 'motion', nothing provides it",
    ),
    "decoder input that nothing feeds": (
        lambda doc: _add_input(doc, "motion", "vae_decoder"),
        "vae_decoder wants the input 'motion', nothing provides it",
    ),
    "hidden states of two prompts": (
        lambda doc: _reshape(doc, "encoder_hidden_states", [2, 16, 128]),
        "encoder_hidden_states has shape (2, 16, 128), want (1, S, D)",
    ),
    "flat hidden states": (
        lambda doc: _reshape(doc, "encoder_hidden_states", [1, 2048]),
        "encoder_hidden_states has shape (1, 2048), want (1, S, D)",
    ),
    "huge latents": (_make_huge, "latents.shape has 1.15e+18 elements, want at most 1073741824"),
    "huge video": (
        lambda doc: doc["video"].update(frames=4096, height=8192, width=8192),
        "video has 8.25e+11 elements, want at most 1073741824",
    ),
    "huge tensor": (
        lambda doc: _reshape(doc, "encoder_hidden_states", [1, 16, 2**26 + 1]),
        "tensor 'encoder_hidden_states' has 1.07e+09 elements, want at most 1073741824",
    ),
    "timesteps at once": (
        lambda doc: _reshape(doc, "timestep", [2]),
        "unet/timestep has shape (2,), want one element",
    ),
    "latents against denoiser": (
        lambda doc: doc["latents"].update(shape=[8, 4, 8, 8]),
        "unet/sample has shape (8, 16, 8, 8), latents.shape says (8, 4, 8, 8)",
    ),
    "video against decoder": (
        lambda doc: doc["video"].update(width=128),
        "vae_decoder/frames has shape (8, 64, 64, 3), video says (8, 64, 128, 3)",
    ),
    "decoder of three frames of eight": (
        lambda doc: _reshape(doc, "latents", [3, 16, 8, 8]),
        "vae_decoder/latents has shape (3, 16, 8, 8), latents.shape says (8, 16, 8, 8), or fewer",
    ),
    "decoder of more frames than there are": (
        lambda doc: _reshape(doc, "latents", [16, 16, 8, 8]),
        "vae_decoder/latents has shape (16, 16, 8, 8), latents.shape says (8, 16, 8, 8), or fewer",
    ),
    "decoder of no frames": (
        lambda doc: _reshape(doc, "latents", []),
        "vae_decoder/latents has shape (), latents.shape says (8, 16, 8, 8), or fewer",
    ),
    "part of the latents, all of the clip": (
        lambda doc: _reshape(doc, "latents", [2, 16, 8, 8]),
        "vae_decoder/frames has shape (8, 64, 64, 3), video says (2, 64, 64, 3)",
    ),
    "parts that a clip does not have": (
        _decode_one_of_six,
        "so a clip is decoded in 8 equal parts, which the 6 frames of video do not have",
    ),
    "tokens against encoder": (
        lambda doc: doc["tokenizer"].update(max_length=77),
        "text_encoder/input_ids has shape (1, 16), tokenizer.max_length says (1, 77)",
    ),
    "variants of other shapes": (
        lambda doc: _variants(doc)[1]["inputs"][1].update(shape=[2]),
        "want those of onnx-fp32",
    ),
    "variants of other names": (
        lambda doc: _variants(doc)[1]["outputs"][0].update(name="velocity"),
        "want those of onnx-fp32",
    ),
    "tensor named twice": (
        lambda doc: _variants(doc)[0]["inputs"][1].update(name="sample"),
        "names one of its inputs twice",
    ),
    "float frames": (
        lambda doc: _variants(doc, "vae_decoder")[0]["outputs"][0].update(dtype="float32"),
        "vae_decoder/frames of onnx-fp32 is float32, want uint8",
    ),
    "variant id twice": (
        lambda doc: _variants(doc)[1].update(id="onnx-fp32"),
        "variant onnx-fp32 is given twice",
    ),
    "variant that nothing could choose": (
        _twin,
        "variant twin is the second of snapdragon/w8a16/sm8650, want one of each kind",
    ),
    "model not among files": (
        lambda doc: _variants(doc)[0].update(model="components/other.onnx"),
        "has the model components/other.onnx, which is not among its files",
    ),
    "file twice in a variant": (
        lambda doc: _variants(doc)[0].update(files=_variants(doc)[0]["files"] * 2),
        "lists a file twice",
    ),
    "one path, two hashes": (
        lambda doc: _variants(doc)[0]["files"].append(
            {**doc["tokenizer"]["file"], "sha256": "0" * 64}
        ),
        "file tokenizer/vocab.json is given with two sizes or hashes",
    ),
    "paths that differ in case": (
        lambda doc: doc["tokenizer"]["file"].update(path="LICENCES/mit.txt"),
        "differ only in case",
    ),
    "file as a folder": (
        lambda doc: doc["tokenizer"]["file"].update(path="licences"),
        "licences is a file and also a folder of licences/MIT.txt",
    ),
    "manifest as a file": (
        lambda doc: doc["tokenizer"]["file"].update(path="Manifest.json"),
        "is the manifest itself",
    ),
    "manifest as a folder": (
        lambda doc: doc["tokenizer"]["file"].update(path="manifest.json/vocab"),
        "lies in a folder named manifest.json",
    ),
    "snapdragon without chip": (
        lambda doc: _variants(doc)[1].update(chip=None),
        "variant snapdragon-sm8650-w8a16 has no chip",
    ),
    "onnx with chip": (
        lambda doc: _variants(doc)[0].update(chip=_variants(doc)[1]["chip"]),
        "has the chip sm8650, want null for the target onnx",
    ),
    "scale without zero point": (
        lambda doc: _variants(doc)[1]["inputs"][0].update(zero_point=None),
        "given only one of scale and zero_point",
    ),
    "scaled float": (
        lambda doc: _variants(doc)[1]["inputs"][0].update(dtype="float16", zero_point=0),
        "as float16 is not quantized",
    ),
    "zero point out of range": (
        lambda doc: _variants(doc)[1]["inputs"][0].update(dtype="uint8"),
        "zero_point is 32768, want an integer from 0 to 255",
    ),
    "residency count": (
        lambda doc: _variants(doc)[1]["residency"].update(cpu_nodes=2),
        "cpu_nodes is 2, want 0, the length of left_outside",
    ),
    "no denoiser": (
        lambda doc: doc["components"].pop("unet"),
        "exactly one of unet or transformer",
    ),
    "two denoisers": (
        lambda doc: doc["components"].update(transformer=doc["components"]["unet"]),
        "exactly one of unet or transformer",
    ),
    "no decoder": (
        lambda doc: doc["components"].pop("vae_decoder"),
        "components.vae_decoder is missing",
    ),
    "no text encoder": (
        lambda doc: doc["components"].pop("text_encoder"),
        "components.text_encoder is missing, the task text_to_video wants it",
    ),
    "no tokenizer": (lambda doc: doc.update(tokenizer=None), "tokenizer is null, want one"),
    "cost of a stranger": (lambda doc: doc["costs"].update(clip={}), "key clip, which is not a"),
    "verified stranger": (
        lambda doc: doc["verification"][0].update(component="clip"),
        "verification names the component clip",
    ),
    "verified variant": (
        lambda doc: doc["verification"][1].update(variant="coreml"),
        "verification names the variant coreml",
    ),
}


@pytest.mark.parametrize("case", INCONSISTENT)
def test_parts_that_disagree_are_refused(case: str) -> None:
    change, words = INCONSISTENT[case]
    broken = document()
    change(broken)
    assert words in refused(encode(broken))


SEEN_BY_SCHEMA = (
    "prediction of another sampler, snapdragon without chip, onnx with chip, no denoiser, "
    "scale without zero point, scaled float, zero point out of range, two denoisers, no decoder, "
    "no text encoder, no tokenizer, scale of 0 in float32, conditioning of what is fed, "
    "conditioning of the text"
)


@pytest.mark.parametrize("case", SEEN_BY_SCHEMA.split(", "))
def test_schema_refuses_the_disagreements_that_it_can_express(case: str) -> None:
    broken = document()
    INCONSISTENT[case][0](broken)
    assert not SCHEMA.is_valid(broken)


@pytest.mark.parametrize("at_once", [1, 2, 4, 8])
def test_a_decoder_may_take_equal_parts_of_a_clip(at_once: int) -> None:
    doc = document()
    _reshape(doc, "latents", [at_once, 16, 8, 8])
    _reshape(doc, "frames", [at_once, 64, 64, 3])
    SCHEMA.validate(doc)
    assert Manifest.from_json(encode(doc)).decode_frames == at_once


def test_a_task_that_is_not_laid_down_may_have_inputs_of_its_own_and_no_text() -> None:
    doc = document() | {"task": "video_to_video", "tokenizer": None, "verification": []}
    del doc["components"]["text_encoder"], doc["costs"]["text_encoder"]
    _reshape(doc, "encoder_hidden_states", [1, 2])
    doc["sampler"]["conditioning"] = {"encoder_hidden_states": [0, 0]}
    _add_input(doc, "clip_latents")
    SCHEMA.validate(doc)
    assert Manifest.from_json(encode(doc)).task == "video_to_video"


def test_text_encoder_of_any_task_needs_a_tokenizer() -> None:
    doc = document() | {"task": "video_to_video", "tokenizer": None}
    assert "tokenizer is null, want one for the text_encoder" in refused(encode(doc))
    assert not SCHEMA.is_valid(doc)


def test_text_and_schema_name_the_keys_in_the_order_in_which_they_are_written() -> None:
    written = {key: part for key, part in document().items() if not key.startswith("x-")}
    variant = written["components"]["unet"]["variants"][1]
    parts: dict[str, dict[str, Any]] = {
        "sampler": written["sampler"],
        "variant": variant,
        "tensor": variant["inputs"][0],
        "residency": variant["residency"],
        "tokenizer": written["tokenizer"],
        "verification": written["verification"][0],
    }
    assert list(SCHEMA.schema["properties"]) == list(written)
    for name, part in parts.items():
        definition = SCHEMA.schema["$defs"][name]
        assert list(definition["properties"]) == definition["required"] == list(part), name
    text = (ROOT / "docs/bundle_format.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for keys in (written, written["sampler"], variant):
        places = [
            next(i for i, row in enumerate(rows) if f"`{key}`" in row.split("|")[1]) for key in keys
        ]
        assert places == sorted(places)


def _without_timestep(doc: dict[str, Any]) -> dict[str, Any]:
    for variant in _variants(doc):
        variant["inputs"] = [x for x in variant["inputs"] if x["name"] != "timestep"]
    return doc


def test_a_denoiser_of_one_step_needs_no_timestep() -> None:
    doc = _without_timestep(document())
    assert "want one named timestep" in refused(encode(doc))
    one = doc["sampler"]["schedules"]["1"]
    doc["sampler"].update(schedules={"1": one}, default_steps=1)
    SCHEMA.validate(doc)
    assert list(Manifest.from_json(encode(doc)).sampler.schedules) == [1]


def test_edm_schedule_may_start_far_above_one() -> None:
    changed_doc = document()
    one_step = {"1": {"sigmas": [700, 0], "timesteps": [1.6378]}}
    changed_doc["sampler"].update(
        kind="edm_euler", prediction_type="v_prediction", schedules=one_step, default_steps=1
    )
    manifest = Manifest.from_json(encode(changed_doc))
    assert manifest.sampler.schedules[1].sigmas == (700.0, 0.0)


def test_equal_manifests_are_written_to_equal_bytes() -> None:
    manifest = Manifest.from_json(GOLDEN)
    shuffled = replace(
        manifest,
        components=dict(reversed(manifest.components.items())),
        costs=dict(reversed(manifest.costs.items())),
        sampler=replace(
            manifest.sampler, schedules=dict(reversed(manifest.sampler.schedules.items()))
        ),
        video=VideoSpec(frames=8, height=64, width=64, fps=np.float64(8)),
    )
    assert shuffled == manifest
    assert shuffled.to_json() == GOLDEN


def test_writer_refuses_what_the_reader_would_refuse() -> None:
    manifest = Manifest.from_json(GOLDEN)
    nan = Schedule(sigmas=(float("nan"), 0.0), timesteps=(1000.0,))
    broken = {
        "sampler.schedules.1.sigmas": {"sampler": replace(manifest.sampler, schedules={1: nan})},
        "video.frames": {"video": VideoSpec(frames=0, height=64, width=64, fps=8)},
        "type int64": {"video": replace(manifest.video, frames=np.int64(8))},
        "latents.shape says": {
            "video": manifest.video,
            "latents": replace(manifest.latents, shape=(4, 16, 8, 8)),
        },
        "begin with x-": {"extensions": {"name": "other"}},
        "JSON value": {"extensions": {"x-a": {1, 2}}},
    }
    for words, values in broken.items():
        with pytest.raises(BundleError, match=words):
            replace(manifest, **values).to_json()


def test_text_of_any_language_survives_but_not_control_characters() -> None:
    for text in ("火箭 🚀 à gauche", "a\u00a0b"):
        manifest = Manifest.from_json(encode(changed(("source", "recipe"), text)))
        assert Manifest.from_json(manifest.to_json()).source.recipe == text
    for text in ("a\tb", "a\x1b[31m", "a\x7f", "a\u2028b", "a\x85b"):
        refused(encode(changed(("source", "recipe"), text)))
        assert not SCHEMA.is_valid(changed(("source", "recipe"), text))
