"""Whole clips against tests/golden/clip.json: on ONNX Runtime, and with functions for graphs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_cases.clips import Clip, clips
from clip_cases.graphs import IR, OPSET
from clip_cases.models import levels
from make_clip import make
from numpy.typing import NDArray

import mvsdk
from mvsdk.generation import Step
from mvsdk.manifest import SAMPLER_KINDS, ClipInput, Manifest
from mvsdk.noise import initial_latents
from mvsdk.pipeline import Pipeline

GOLDEN = json.loads(
    (Path(__file__).resolve().parents[1] / "golden/clip.json").read_text(encoding="utf-8")
)
CASES: list[dict[str, Any]] = GOLDEN["cases"]
CLIPS = {clip.name: clip for clip in clips()}
FILES = {item["id"]: base64.b64decode(item["base64"]) for item in GOLDEN["graphs"]} | {
    item["id"]: bytes.fromhex(item["hex"]) for item in GOLDEN["files"]
}
OPERATIONS = {
    *("tokenize", "numbers", "noise", "run", "sample", "loop", "linear", "take", "concat"),
    "resample",
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def case_name(case: Mapping[str, Any]) -> str:
    return case["name"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the folders of all bundles, by number."""
    root = tmp_path_factory.mktemp("clips")
    folders: list[Path] = []
    for number, bundle in enumerate(GOLDEN["bundles"]):
        folder = root / f"{number}.mvbundle"
        for path, key in bundle["files"].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(FILES[key])
        (folder / "manifest.json").write_text(json.dumps(bundle["manifest"]), encoding="utf-8")
        folders.append(folder)
    return folders


def steps_of(pipeline: Pipeline, case: Mapping[str, Any]) -> list[Step]:
    """Return the steps of a clip, asked for as a caller would."""
    program = pipeline.manifest.program
    made: list[Step] = []
    options: dict[str, Any] = {
        "seed": int(case["seed"]),
        "num_inference_steps": case["steps"],
        "on_step": made.append,
    }
    if case["picture"]:
        pipeline.animate(levels(4, 4, 3), **case["numbers"], **options)
    elif case["clip_frames"]:
        (given,) = (x for x in program.inputs.values() if isinstance(x, ClipInput))
        clip = levels(case["clip_frames"], given.height, given.width, 3)
        ask = pipeline.upscale if program.task == "upscale" else pipeline.edit
        ask(clip, numbers=case["numbers"], **options)
    else:
        pipeline.generate(
            case["prompt"],
            negative_prompt=case["negative_prompt"],
            numbers=case["numbers"],
            **options,
        )
    return made


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_onnxruntime_makes_the_clip(case: dict[str, Any], bundles: list[Path]) -> None:
    with mvsdk.load(bundles[case["bundle"]], backend=mvsdk.OnnxRuntime(threads=1)) as pipeline:
        steps = steps_of(pipeline, case)
    latents = [step for step in steps if step.latents.size]
    made = [(step.sigma, sha256(step.latents.astype("<f4").tobytes())) for step in latents]
    assert made == [(step["sigma"], step["sha256"]) for step in case["made"]]
    video = steps[-1].video
    assert video is not None
    assert list(video.frames.shape) == case["frames_shape"]
    assert video.frames.ravel()[: len(case["frames_first"])].tolist() == case["frames_first"]
    assert sha256(video.frames.tobytes()) == case["frames_sha256"]


def test_an_empty_negative_prompt_is_none(bundles: list[Path]) -> None:
    case = next(case for case in CASES if case["name"] == "guidance, nothing against")
    with mvsdk.load(bundles[case["bundle"]], backend=mvsdk.OnnxRuntime(threads=1)) as pipeline:
        video = pipeline.generate(
            case["prompt"],
            negative_prompt="",
            seed=int(case["seed"]),
            num_inference_steps=case["steps"],
        )
    assert sha256(video.frames.tobytes()) == case["frames_sha256"]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_functions_in_place_of_graphs_make_the_clip(case: dict[str, Any]) -> None:
    document = json.dumps(GOLDEN["bundles"][case["bundle"]]["manifest"])
    made = make(CLIPS[case["name"]], Manifest.from_json(document.encode()))
    assert made == {key: case[key] for key in made}


def test_the_cases_have_every_sampler_and_every_operation() -> None:
    manifests = [
        Manifest.from_json(json.dumps(item["manifest"]).encode()) for item in GOLDEN["bundles"]
    ]
    programs = [manifest.program for manifest in manifests]
    assert {op.op for program in programs for op in program.walk()} == OPERATIONS
    kinds = {sampler.kind for manifest in manifests for sampler in manifest.samplers.values()}
    assert kinds == set(SAMPLER_KINDS)
    assert {program.task for program in programs} == {
        *("text_to_video", "image_to_video", "video_to_video", "upscale"),
    }
    assert set(CLIPS) == {case["name"] for case in CASES}


def test_graphs_are_small_and_old_enough_for_every_runtime() -> None:
    onnx = pytest.importorskip("onnx")
    exact = {
        *("Add", "Cast", "Clip", "DepthToSpace", "Gather", "Mul", "Reshape", "Slice"),
        "Transpose",
    }
    for item in GOLDEN["graphs"]:
        model = onnx.load_from_string(FILES[item["id"]])
        onnx.checker.check_model(model)
        assert len(FILES[item["id"]]) == item["bytes"] < 1024
        assert model.ir_version == IR
        assert [entry.version for entry in model.opset_import] == [OPSET]
        assert {node.op_type for node in model.graph.node} <= exact


def _by_hand(case: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the frames of one straight step of a prompt, written out with nothing of mvsdk."""
    words = ["[PAD]", "[UNK]", "a", "rocket", "flying", "left", "cat", "##s", ",", "run", "##ning"]
    assert case["prompt"] == "A rocket, flying LEFT"
    row = words.index("rocket")  # the second word, which the denoiser looks at
    hidden = np.array([(12 * row + place) % 11 - 5 for place in range(12)], np.float32) / 16
    start = initial_latents(int(case["seed"]), (2, 12, 2, 2))
    rate = np.float32(1000) * np.float32(1 / 1024)
    model_output = start * np.float32(0.375) + rate + hidden.astype(np.float32).reshape(1, 12, 1, 1)
    clean = start - np.float32(1) * model_output
    frames = np.empty((2, 4, 4, 3), np.uint8)
    for f, y, x, c in np.ndindex(2, 4, 4, 3):
        channel = (y % 2 * 2 + x % 2) * 3 + c
        level = clean[f, channel, y // 2, x // 2] * np.float32(40) + np.float32(127.75)
        frames[f, y, x, c] = min(max(round(float(level)), 0), 255)
    return frames


@pytest.mark.parametrize("name", ["flow_euler of velocity, 1 steps", "seed 0", "seed 4294967296"])
def test_a_straight_step_is_what_the_text_says(name: str) -> None:
    (case,) = (item for item in CASES if item["name"] == name)
    assert sha256(_by_hand(case).tobytes()) == case["frames_sha256"]


def test_names_of_clips_are_unique() -> None:
    assert len(clips()) == len(CLIPS)
    assert all(isinstance(clip, Clip) for clip in clips())
