"""Manifests are read to frozen data, and written back to the byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from manifests import NEWEST, document, golden, image_to_video, refused, text_to_video

from mvsdk.errors import BundleError, InputError
from mvsdk.manifest import (
    FORMAT_VERSIONS,
    Component,
    DrawNoise,
    Index,
    Loop,
    Manifest,
    Sample,
    Schedule,
    Tensor,
    VariantSet,
    VideoSpec,
)


@pytest.mark.parametrize("name", NEWEST)
def test_golden_manifests_are_written_back_to_the_byte(name: str) -> None:
    payload = golden(name)
    assert Manifest.from_json(payload).to_json() == payload
    assert (
        json.dumps(json.loads(payload), indent=2, ensure_ascii=False) + "\n"
    ).encode() == payload


def test_a_manifest_says_what_is_in_a_bundle() -> None:
    manifest = text_to_video()
    assert (manifest.program.task, manifest.program.video.frames) == ("text_to_video", 8)
    assert manifest.program.components() == ("text_encoder", "unet", "vae_decoder")
    assert manifest.names_with_role("denoiser") == ("unet",)
    assert manifest.samplers["main"].schedules[4].sigmas == (1.0, 0.9, 0.75, 0.5, 0.0)
    chosen = manifest.variants_of(manifest.sets[1])
    variant = chosen["unet"]
    assert variant.chip is not None
    assert (variant.chip.slug, variant.chip.htp_arch, variant.pack) == ("sm8650", 75, "sm8650")
    stored = variant.inputs[0]
    assert (stored.shape, stored.type, stored.dtype) == ((8, 16, 8, 8), "real", "uint16")
    assert (stored.scale, stored.zero_point) == (0.000244140625, 32768)
    assert manifest.verification[1].value_db is None
    assert manifest.extensions["x-guidance"] == [1, 3]


def test_operations_are_read_as_they_stand() -> None:
    manifest = image_to_video()
    *_, sample, loop = manifest.program.operations
    assert isinstance(sample, Sample)
    assert isinstance(loop, Loop)
    assert (loop.count, loop.collected["part_frames"].axis) == (7, 0)
    assert loop.operations[0].start == Index(start=0, steps={"part": 2})  # type: ignore[union-attr]
    walked = list(manifest.program.walk())
    assert walked.index(sample) + 1 == walked.index(sample.operations[0])
    assert {"noise_aug_strength", "picture", "fps"} <= manifest.program.names_used()


def test_files_lists_every_shipped_file_once_and_no_source_file() -> None:
    paths = [ref.path for ref in text_to_video().files()]
    assert paths == sorted(set(paths))
    assert len(paths) == 3 * (1 + 2 + 3 + 2) + 2
    assert {"tokenizer/vocab.json", "licences/MIT.txt"} < set(paths)
    assert not any(path.endswith(".safetensors") for path in paths)
    shared = [ref.path for ref in Manifest.from_json(golden("several_sizes")).files()]
    assert sum(path.endswith("weights.bin") and "mlpackage" not in path for path in shared) == 2


def test_unknown_component_names_the_known_ones() -> None:
    with pytest.raises(BundleError, match=r"no component 'transformer'; it has .*unet"):
        text_to_video().component("transformer")


def test_a_set_of_another_bundle_is_refused() -> None:
    manifest = text_to_video()
    (first, *_) = manifest.sets
    assert set(manifest.variants_of(first)) == set(first.variants)
    for name, identifier in (("unet", "onnx-fp64"), ("other", "onnx-fp32")):
        foreign = VariantSet(id="foreign", variants={**first.variants, name: identifier})
        words = rf"^chosen is the set 'foreign' with '{identifier}' of '{name}', which bundle .* "
        with pytest.raises(InputError, match=rf"{words}does not have; allowed: .*{first.id}.*; "):
            manifest.variants_of(foreign)


def test_newer_format_version_says_what_is_known_and_how_to_upgrade() -> None:
    newer = FORMAT_VERSIONS[-1] + 1
    error = refused({"format": "mvbundle", "format_version": newer, "all": ["is", "different"]})
    assert f"format_version {newer}, this mvsdk knows 1, 2, 3; it is too old: " in str(error)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("frames", True, "programs[0].video.frames is true, expected an integer from 1 to 4096"),
        ("height", 0, "programs[0].video.height is 0, expected an integer from 1 to 8192"),
        ("fps", 0, "programs[0].video.fps is 0, expected a number from 0.1 to 240"),
        ("width", [], "programs[0].video.width is a list of 0, expected an integer"),
    ],
)
def test_message_says_where_what_and_what_is_allowed(key: str, value: object, words: str) -> None:
    doc = document()
    doc["programs"][0]["video"][key] = value
    assert words in str(refused(doc))


def test_equal_manifests_are_written_to_equal_bytes() -> None:
    manifest = text_to_video()
    sampler, program = manifest.samplers["main"], manifest.program
    shuffled = replace(
        manifest,
        components=_reversed(manifest.components),
        costs={name: _reversed(costs) for name, costs in manifest.costs.items()},
        samplers={"main": replace(sampler, schedules=_reversed(sampler.schedules))},
        programs=(
            replace(program, video=VideoSpec(frames=8, height=64, width=64, fps=np.float64(8))),
        ),
        sets=tuple(replace(item, variants=_reversed(item.variants)) for item in manifest.sets),
        extensions=_reversed(manifest.extensions),
    )
    assert shuffled == manifest
    assert shuffled.to_json() == golden()


def _reversed(entries: Mapping[Any, Any]) -> dict[Any, Any]:
    return dict(reversed(entries.items()))


def _with_program(manifest: Manifest, **changes: Any) -> Manifest:
    return replace(manifest, programs=(replace(manifest.program, **changes),))


def _with_unet(manifest: Manifest, **changes: Any) -> Manifest:
    unet = replace(manifest.components["unet"], **changes)
    return replace(manifest, components={**manifest.components, "unet": unet})


def _of_other_shape(manifest: Manifest) -> Manifest:
    """Return a manifest whose variant says another shape than its component, which none writes."""
    component: Component = manifest.components["unet"]
    variant = component.variants[0]
    spec = replace(variant.inputs[0], shape=(1,))
    changed = replace(variant, inputs=(spec, *variant.inputs[1:]))
    return _with_unet(manifest, variants=(changed, *component.variants[1:]))


def _cyclic(manifest: Manifest) -> Manifest:
    cycle: list[Any] = []
    cycle.append(cycle)
    return replace(manifest, extensions={"x-a": cycle})


def _nan(manifest: Manifest) -> Manifest:
    schedule = Schedule(sigmas=(float("nan"), 0.0), timesteps=(1000.0,))
    return replace(
        manifest, samplers={"main": replace(manifest.samplers["main"], schedules={1: schedule})}
    )


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_nan, "D7"),
        (_of_other_shape, "G1"),
        (_cyclic, "D5"),
        (lambda m: replace(m, name="a b"), "D10"),
        (lambda m: replace(m, sets=()), "D12"),
        (lambda m: replace(m, extensions={"name": "other"}), "D10"),
        (lambda m: replace(m, extensions={"x-a": {1, 2}}), "D2"),
        (lambda m: replace(m, extensions={"x-a": [0] * 2**18}), "D13"),
        (lambda m: replace(m, extensions={"x-a": "a" * (4 << 20)}), "D13"),
        (lambda m: replace(m, packs=()), "F10"),
        (
            lambda m: _with_program(m, video=VideoSpec(frames=0, height=64, width=64, fps=8.0)),
            "D10",
        ),
        (lambda m: _with_program(m, output="start"), "P5"),
        (lambda m: _with_program(m, operations=m.program.operations[1:]), "P5"),
        (
            lambda m: _with_program(
                m,
                operations=(
                    *m.program.operations,
                    DrawNoise(stream=np.int64(1), shape=(1,), output="a"),
                ),
            ),
            "D2",
        ),
        (lambda m: _with_unet(m, role="unet"), "D10"),
        (lambda m: _with_unet(m, inputs=(Tensor(name="x", shape=(1,)),)), "G1"),
    ],
)
def test_writer_refuses_what_the_reader_would_refuse(change: Any, rule: str) -> None:
    broken = change(text_to_video())
    with pytest.raises(BundleError) as caught:
        broken.to_json()
    assert caught.value.rule == rule


def test_what_is_built_is_read_back() -> None:
    manifest = replace(image_to_video(), extensions={"x-a": (1.0, -0.0, {"b": None})})
    assert Manifest.from_json(manifest.to_json()).extensions == {"x-a": [1, 0, {"b": None}]}
