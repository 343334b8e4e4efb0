"""Manifests of image-to-video bundles: what has to be there, and what has to agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from manifests import ROOT, SCHEMA, Document, encode, refused, tensors_named

from mvsdk.manifest import Manifest

GOLDEN = (ROOT / "tests/golden/manifest_v2_image_to_video.json").read_bytes()


def _document() -> Document:
    return json.loads(GOLDEN)


def _set(component: str, name: str, /, **values: Any) -> Callable[[Document], None]:
    def change(doc: Document) -> None:
        for tensor in tensors_named(doc, name, component):
            tensor.update(values)

    return change


def _drop(component: str, name: str) -> Callable[[Document], None]:
    def change(doc: Document) -> None:
        for variant in doc["components"][component]["variants"]:
            for side in ("inputs", "outputs"):
                variant[side] = [tensor for tensor in variant[side] if tensor["name"] != name]

    return change


def _add(component: str, name: str) -> Callable[[Document], None]:
    extra = {"name": name, "shape": [1], "dtype": "float32", "scale": None, "zero_point": None}

    def change(doc: Document) -> None:
        for variant in doc["components"][component]["variants"]:
            variant["inputs"].append(extra)

    return change


def _condition(values: list[float] | None) -> Callable[[Document], None]:
    def change(doc: Document) -> None:
        doc["sampler"]["conditioning"] = {} if values is None else {"added_time_ids": values}

    return change


def _feed_constant(doc: Document, name: str) -> None:
    doc["sampler"]["conditioning"][name] = [0.0]


def _more_steps(doc: Document) -> None:
    doc["sampler"]["schedules"]["2"] = {"sigmas": [1, 0.5, 0], "timesteps": [1, 2]}


def _text(doc: Document) -> None:
    doc["components"]["text_encoder"] = doc["components"]["image_encoder"]


def _tokenizer(doc: Document) -> None:
    file = doc["components"]["unet"]["variants"][0]["files"][0]
    tokens = {"max_length": 6, "pad_token": "[PAD]", "unk_token": "[UNK]"}
    doc["tokenizer"] = {"kind": "wordpiece", "file": file, **tokens}


INCONSISTENT: dict[str, tuple[Callable[[Document], object], str]] = {
    "no image encoder": (
        lambda doc: doc["components"].pop("image_encoder"),
        "components.image_encoder is missing, the task image_to_video wants it",
    ),
    "no vae encoder": (
        lambda doc: doc["components"].pop("vae_encoder"),
        "components.vae_encoder is missing",
    ),
    "text encoder": (_text, "hold a text_encoder, the task image_to_video has no prompt"),
    "tokenizer": (_tokenizer, "tokenizer is given, want null"),
    "picture of another size": (
        _set("image_encoder", "image", shape=[1, 224, 224, 3]),
        "image_encoder/image has shape (1, 224, 224, 3), video says (1, 256, 512, 3)",
    ),
    "channels before rows": (
        _set("vae_encoder", "image", shape=[1, 3, 256, 512]),
        "vae_encoder/image has shape (1, 3, 256, 512), video says (1, 256, 512, 3)",
    ),
    "picture of long integers": (
        _set("image_encoder", "image", dtype="int64"),
        "image_encoder/image of onnx-fp16 is int64, want uint8, float16, float32, int32",
    ),
    "picture of another name": (
        _set("image_encoder", "image", name="pixel_values"),
        "image_encoder has the inputs pixel_values (1, 256, 512, 3), want one named image",
    ),
    "hidden states of two pictures": (
        _set("image_encoder", "encoder_hidden_states", shape=[2, 1, 1024]),
        "image_encoder/encoder_hidden_states has shape (2, 1, 1024), want (1, S, D)",
    ),
    "hidden states of another width": (
        _set("unet", "encoder_hidden_states", shape=[1, 1, 768]),
        "unet/encoder_hidden_states has shape (1, 1, 768), image_encoder says (1, 1, 1024)",
    ),
    "noise of another size": (
        _set("vae_encoder", "noise", shape=[1, 256, 512, 3]),
        "vae_encoder/noise has shape (1, 256, 512, 3), video says (1, 3, 256, 512)",
    ),
    "no noise": (_drop("vae_encoder", "noise"), "want one named noise"),
    "two strengths": (
        _set("vae_encoder", "noise_aug_strength", shape=[2]),
        "vae_encoder/noise_aug_strength has shape (2,), want one element",
    ),
    "image latents for every frame": (
        _set("unet", "image_latents", shape=[14, 4, 32, 64]),
        "unet/image_latents has shape (14, 4, 32, 64), latents.shape says (1, 4, 32, 64)",
    ),
    "image latents of another name": (
        _set("vae_encoder", "image_latents", name="latents"),
        "vae_encoder has the outputs latents (1, 4, 32, 64), want one named image_latents",
    ),
    "no image latents": (_drop("unet", "image_latents"), "want one named image_latents"),
    "no ids": (_drop("unet", "added_time_ids"), "want one named added_time_ids"),
    "flat ids": (
        _set("unet", "added_time_ids", shape=[3]),
        "unet/added_time_ids has shape (3,), image_to_video says (1, 3)",
    ),
    "no defaults": (
        _condition(None),
        "sampler.conditioning.added_time_ids is missing, want the defaults",
    ),
    "two defaults": (_condition([6, 127]), "added_time_ids has 2 values; allowed: three"),
    "frames faster than 60": (_condition([60, 127, 0]), "fps is 61; allowed: 1 to 60"),
    "less than a frame": (_condition([-1, 127, 0]), "fps is 0; allowed: 1 to 60"),
    "motion beyond 255": (_condition([6, 256, 0]), "motion is 256; allowed: whole numbers from 0"),
    "half a bucket": (_condition([6, 1.5, 0]), "motion is 1.5; allowed: whole numbers from 0"),
    "noise above 1": (_condition([6, 127, 1.5]), "noise_aug_strength is 1.5; allowed: 0 to 1"),
    "constant image latents": (
        lambda doc: _feed_constant(doc, "image_latents"),
        "sampler.conditioning names image_latents, which is fed",
    ),
    "constant hidden states": (
        lambda doc: _feed_constant(doc, "encoder_hidden_states"),
        "sampler.conditioning names encoder_hidden_states, which is fed",
    ),
    "two steps without a timestep": (_more_steps, "want one named timestep"),
    "denoiser input that nothing feeds": (
        _add("unet", "image_only_indicator"),
        "unet wants the input 'image_only_indicator', nothing provides it",
    ),
    "encoder input that nothing feeds": (
        _add("image_encoder", "mask"),
        "image_encoder wants the input 'mask', nothing provides it; provided: image",
    ),
    "vae encoder input that nothing feeds": (
        _add("vae_encoder", "mask"),
        "provided: image, noise, noise_aug_strength",
    ),
}

SEEN_BY_SCHEMA = (
    "no image encoder, no vae encoder, text encoder, tokenizer, no defaults, two defaults, "
    "frames faster than 60, less than a frame, motion beyond 255, half a bucket, noise above 1, "
    "constant image latents, constant hidden states"
)


def test_golden_manifest_is_read_and_written_to_the_byte() -> None:
    manifest = Manifest.from_json(GOLDEN)
    assert manifest.to_json() == GOLDEN
    assert manifest.task == "image_to_video"
    assert manifest.tokenizer is None
    assert manifest.sampler.conditioning == {"added_time_ids": (6.0, 127.0, 0.02)}
    assert list(manifest.components) == ["image_encoder", "unet", "vae_decoder", "vae_encoder"]
    phone = manifest.components["vae_encoder"].variants[2]
    assert (phone.format, phone.compute_unit, phone.inputs[0].dtype) == ("coreml", "ALL", "float32")
    SCHEMA.validate(_document())


@pytest.mark.parametrize("case", INCONSISTENT)
def test_parts_that_disagree_arerefused(case: str) -> None:
    change, words = INCONSISTENT[case]
    broken = _document()
    change(broken)
    assert words in refused(broken)


@pytest.mark.parametrize("case", SEEN_BY_SCHEMA.split(", "))
def test_schema_refuses_the_disagreements_that_it_can_express(case: str) -> None:
    broken = _document()
    INCONSISTENT[case][0](broken)
    assert not SCHEMA.is_valid(broken)


def test_more_steps_are_fine_where_the_denoiser_is_told_the_step() -> None:
    doc = _document()
    _more_steps(doc)
    _add("unet", "timestep")(doc)
    SCHEMA.validate(doc)
    assert sorted(Manifest.from_json(encode(doc)).sampler.schedules) == [1, 2]


def test_further_constants_of_the_denoiser_are_fine() -> None:
    doc = _document()
    _add("unet", "image_only_indicator")(doc)
    _feed_constant(doc, "image_only_indicator")
    SCHEMA.validate(doc)
    Manifest.from_json(encode(doc))
