"""Parts of a manifest that disagree are refused, by the reader and where it can by the schema."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from manifests import (
    SCHEMA,
    Document,
    document,
    encode,
    refused,
    tensors_named,
    variants_of,
)

from mvsdk.manifest import Manifest


def _add_input(doc: Document, name: str, component: str = "unet") -> None:
    extra = {"name": name, "shape": [1, 2], "dtype": "float32", "scale": None, "zero_point": None}
    for variant in variants_of(doc, component):
        variant["inputs"].append(extra)


def _reshape(doc: Document, name: str, shape: list[int]) -> None:
    """Give a tensor another shape wherever it stands."""
    for tensor in tensors_named(doc, name):
        tensor["shape"] = shape


def _decode_one_of_six(doc: Document) -> None:
    doc["video"]["frames"] = 6
    _reshape(doc, "latents", [1, 16, 8, 8])


def _condition_motion(doc: Document, values: list[float]) -> None:
    _add_input(doc, "motion")
    doc["sampler"]["conditioning"] = {"motion": values}


def _make_huge(doc: Document) -> None:
    """Ask for latents of 2^60 elements in a consistent manifest of a few kilobytes."""
    shape = [2**15] * 4
    doc["latents"]["shape"] = shape
    for name in ("sample", "model_output", "latents"):
        _reshape(doc, name, shape)


def _schedule(steps: int, **values: list[float]) -> Callable[[Document], object]:
    return lambda doc: doc["sampler"]["schedules"][str(steps)].update(values)


INCONSISTENT: dict[str, tuple[Callable[[Document], object], str]] = {
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
        lambda doc: variants_of(doc)[1]["inputs"][0].update(scale=1e-60),
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
        lambda doc: variants_of(doc)[1]["inputs"][1].update(shape=[2]),
        "want those of onnx-fp32",
    ),
    "variants of other names": (
        lambda doc: variants_of(doc)[1]["outputs"][0].update(name="velocity"),
        "want those of onnx-fp32",
    ),
    "tensor named twice": (
        lambda doc: variants_of(doc)[0]["inputs"][1].update(name="sample"),
        "names one of its inputs twice",
    ),
    "variant id twice": (
        lambda doc: variants_of(doc)[1].update(id="onnx-fp32"),
        "variant onnx-fp32 is given twice",
    ),
    "file twice in a variant": (
        lambda doc: variants_of(doc)[0].update(files=variants_of(doc)[0]["files"] * 2),
        "lists a file twice",
    ),
    "one path, two hashes": (
        lambda doc: variants_of(doc)[0]["files"].append(
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
    "scale without zero point": (
        lambda doc: variants_of(doc)[1]["inputs"][0].update(zero_point=None),
        "given only one of scale and zero_point",
    ),
    "scaled float": (
        lambda doc: variants_of(doc)[1]["inputs"][0].update(dtype="float16", zero_point=0),
        "as float16 is not quantized",
    ),
    "zero point out of range": (
        lambda doc: variants_of(doc)[1]["inputs"][0].update(dtype="uint8"),
        "zero_point is 32768, want an integer from 0 to 255",
    ),
    "residency count": (
        lambda doc: variants_of(doc)[1]["residency"].update(cpu_nodes=2),
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
    assert words in refused(broken)


SEEN_BY_SCHEMA = (
    "prediction of another sampler, no denoiser, "
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
    assert "tokenizer is null, want one for the text_encoder" in refused(doc)
    assert not SCHEMA.is_valid(doc)


def _without_timestep(doc: Document) -> Document:
    for variant in variants_of(doc):
        variant["inputs"] = [x for x in variant["inputs"] if x["name"] != "timestep"]
    return doc


def test_a_denoiser_of_one_step_needs_no_timestep() -> None:
    doc = _without_timestep(document())
    assert "want one named timestep" in refused(doc)
    one = doc["sampler"]["schedules"]["1"]
    doc["sampler"].update(schedules={"1": one}, default_steps=1)
    SCHEMA.validate(doc)
    assert list(Manifest.from_json(encode(doc)).sampler.schedules) == [1]
