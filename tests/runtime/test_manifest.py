"""The manifest reader takes what the format says and refuses everything else in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from manifests import GOLDEN, ROOT, SCHEMA, Place, changed, document, encode, refused

from mvsdk.errors import BundleError
from mvsdk.manifest import FORMAT_VERSIONS, Manifest, Schedule, VideoSpec


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
    assert len(paths) == 3 * (3 + 3 + 3 + 4) + 2
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
    place: Place, value: object, words: str
) -> None:
    assert words in refused(changed(place, value))


def test_newer_format_version_says_what_is_known_and_how_to_upgrade() -> None:
    newer = FORMAT_VERSIONS[-1] + 1
    payload = encode({"format": "mvbundle", "format_version": newer, "all": ["is", "different"]})
    message = refused(payload)
    assert f"format_version {newer}, this mvsdk knows 1, 2; it is too old: " in message
    assert not SCHEMA.is_valid(json.loads(payload))


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
    chapters = (ROOT / "docs/bundle_format.md").read_text().split("\n### ")
    sections = {
        "Top level": written,
        "Component and variant": variant,
        "Residency": variant["residency"],
        "Sampler": written["sampler"],
    }
    for title, keys in sections.items():
        chapter = next(chapter for chapter in chapters if chapter.startswith(f"{title}\n"))
        table = chapter.split("|---|---|\n", maxsplit=1)[1].split("\n\n", maxsplit=1)[0]
        firsts = [cell for row in table.splitlines() for cell in row.split("|")[1].split(",")]
        assert [name.strip(" `") for name in firsts] == list(keys), title


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
        refused(changed(("source", "recipe"), text))
        assert not SCHEMA.is_valid(changed(("source", "recipe"), text))
