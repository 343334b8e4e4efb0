"""Clips that are made of clips, edited or enlarged; and bundles of several programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_animators import build_animator, fake_animator
from tiny_bundles import VariantFiles
from tiny_editors import (
    CLIP,
    EDITOR,
    FRAMES,
    LARGE,
    ONNX,
    UPSCALER,
    animating,
    build_editor,
    build_upscaler,
    editing,
    enlarging,
)
from tiny_programs import build, fake

import mvsdk
from mvsdk import BackendError, Fake, InputError, Pipeline
from mvsdk.bundle import Bundle
from mvsdk.tasks import TASKS, find_program

GIVEN = np.random.default_rng(1).integers(0, 256, CLIP, np.uint8)
PROMPT = "a rocket flying left"


@pytest.fixture
def editor(tmp_path: Path) -> Pipeline:
    return mvsdk.load(build_editor(tmp_path / "editor.mvbundle").path, backend=fake(EDITOR))


@pytest.fixture
def upscaler(tmp_path: Path) -> Pipeline:
    return mvsdk.load(build_upscaler(tmp_path / "large.mvbundle").path, backend=fake(UPSCALER))


def _painted(pipeline: Pipeline, prompt: str, strength: float) -> bytes:
    ids = pipeline.tokenizer().encode(prompt).ids
    hidden = EDITOR["text_encoder"].function({"ids": ids})["hidden"]
    feeds = {"clip": GIVEN, "hidden": hidden, "strength": np.float32([strength])}
    return EDITOR["painter"].function(feeds)["frames"].tobytes()


def test_an_edit_is_of_the_clip_the_prompt_and_the_numbers(editor: Pipeline) -> None:
    video = editor.edit(GIVEN, PROMPT, seed=5)
    assert video.frames.tobytes() == _painted(editor, PROMPT, 0.5)
    assert (video.prompt, video.seed, video.fps, video.picture) == (PROMPT, 5, 8.0, None)
    assert video.numbers == {"strength": 0.5}
    assert video.notes == ()
    changed = editor.edit(GIVEN, "a cat", numbers={"strength": 1})
    assert changed.frames.tobytes() == _painted(editor, "a cat", 1)
    assert changed.numbers == {"strength": 1}
    assert {name: item.default for name, item in editor.number_inputs.items()} == {"strength": 0.5}


def test_a_larger_clip_is_of_the_clip_alone(upscaler: Pipeline) -> None:
    video = upscaler.upscale(GIVEN)
    assert video.frames.shape == LARGE
    assert np.array_equal(video.frames[:, ::2, ::2], GIVEN)
    assert (video.prompt, video.numbers, video.num_inference_steps) == (None, {}, None)
    assert upscaler.number_inputs == {}


def test_a_clip_may_be_a_file_and_a_list_of_pictures(editor: Pipeline, tmp_path: Path) -> None:
    levels = np.linspace(0, 255, FRAMES).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], CLIP).copy()
    pictures = [Image.fromarray(frame) for frame in frames]
    path = tmp_path / "grey.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=125)
    expected = editor.edit(frames, PROMPT).frames.tobytes()
    for clip in (path, str(path), pictures):
        assert editor.edit(clip, PROMPT).frames.tobytes() == expected


def test_real_graphs_give_what_functions_give(editor: Pipeline, tmp_path: Path) -> None:
    bundle = build_editor(tmp_path / "onnx.mvbundle", variants=[ONNX])
    with mvsdk.load(bundle.path) as pipeline:
        found = pipeline.edit(GIVEN, PROMPT).frames.astype(int)
    assert np.abs(found - editor.edit(GIVEN, PROMPT).frames).max() <= 1
    large = build_upscaler(tmp_path / "larger.mvbundle", variants=[ONNX])
    with mvsdk.load(large.path) as pipeline:
        assert np.array_equal(pipeline.upscale(GIVEN).frames[:, 1::2, 1::2], GIVEN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip": GIVEN[:2]}, "the clip ends after frame 2; wanted: 3; add some"),
        ({"clip": "nowhere.mp4"}, "clip 'nowhere.mp4' cannot be read: no such file"),
        ({"clip": GIVEN.astype(float)}, r"the clip is float64 \(3, 16, 24, 3\); allowed: RGB as"),
        ({"clip": None}, "clip is missing; this bundle needs a clip"),
        ({"prompt": None}, "prompt is missing; this bundle needs a prompt"),
        ({"prompt": " "}, r"prompt is empty; .*\[T4\]"),
        ({"prompt": "a " * 7}, r"7 tokens, this model takes at most 6; .*\[T8\]"),
        ({"numbers": {"strength": 2}}, "strength is 2; allowed: 0 to 1"),
        ({"numbers": {"strength": "much"}}, "strength is 'much'; allowed: 0 to 1; pass a number"),
        (
            {"numbers": {"motion": 3}},
            "this bundle has no number 'motion'; it has: strength; leave it out",
        ),
        ({"numbers": {"clip": GIVEN}}, "this bundle has no number 'clip'; it has: strength"),
        ({"numbers": {3: 3}}, "this bundle has no number 3; it has: strength"),
        ({"numbers": [3]}, r"numbers is \[3\]; allowed: a Mapping; pass a dict"),
        ({"num_inference_steps": 4}, r"this bundle's numbers of steps are fixed; .*\[S4\]"),
        ({"seed": -1}, "seed is -1; allowed: whole numbers, 0 to"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_anything_is_loaded(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    backend = fake(EDITOR)
    bundle = build_editor(tmp_path / "editor.mvbundle")
    pipeline = mvsdk.load(bundle.path, backend=backend)
    with pytest.raises(InputError, match=message):
        pipeline.edit(**{"clip": GIVEN, "prompt": PROMPT, **arguments})
    assert backend.events == []


def test_an_upscaler_takes_no_numbers(upscaler: Pipeline) -> None:
    with pytest.raises(InputError, match="this bundle has no number 'strength'; it has: none"):
        upscaler.upscale(GIVEN, numbers={"strength": 1})


def test_a_bundle_for_clips_says_so_when_it_gets_something_else(
    editor: Pipeline, upscaler: Pipeline
) -> None:
    with pytest.raises(
        InputError, match=r"is for video_to_video, not text_to_video; use Pipeline.e"
    ):
        editor.generate(PROMPT)
    with pytest.raises(
        InputError, match=r"is for video_to_video, not upscale; use .*mvsdk edit CLI"
    ):
        editor.upscale(GIVEN)
    with pytest.raises(
        InputError, match=r"is for upscale, not video_to_video; use .*mvsdk upscale"
    ):
        upscaler.edit(GIVEN, PROMPT)
    with pytest.raises(InputError, match="has no tokenizer: it takes no prompt"):
        upscaler.tokenizer()


# --- prompts of tasks that need none -------------------------------------------------------------


def test_an_upscaler_may_take_a_prompt_and_numbers(tmp_path: Path, editor: Pipeline) -> None:
    program = {**editing(), "task": "upscale"}
    bundle = build(tmp_path / "told.mvbundle", [program], EDITOR, tokenizers={"main": {}})
    pipeline = mvsdk.load(bundle.path, backend=fake(EDITOR))
    video = pipeline.upscale(GIVEN, PROMPT, numbers={"strength": 1})
    assert video.frames.tobytes() == _painted(editor, PROMPT, 1)
    assert video.prompt == PROMPT
    with pytest.raises(InputError, match="prompt is missing; this bundle needs a prompt"):
        pipeline.upscale(GIVEN)


def test_an_animator_may_take_a_prompt_and_numbers(tmp_path: Path, editor: Pipeline) -> None:
    bundle = build(tmp_path / "told.mvbundle", [animating()], EDITOR, tokenizers={"main": {}})
    pipeline = mvsdk.load(bundle.path, backend=fake(EDITOR))
    still = np.repeat(GIVEN[:1], FRAMES, axis=0)
    ids = pipeline.tokenizer().encode(PROMPT).ids
    hidden = EDITOR["text_encoder"].function({"ids": ids})["hidden"]
    feeds = {"clip": still, "hidden": hidden, "strength": np.float32([1])}
    video = pipeline.animate(GIVEN[0], PROMPT, numbers={"strength": 1})
    assert video.frames.tobytes() == EDITOR["painter"].function(feeds)["frames"].tobytes()
    assert (video.prompt, video.numbers) == (PROMPT, {"motion": 3, "strength": 1})
    assert pipeline.animate(GIVEN[0], PROMPT, motion=7).numbers == {"motion": 7, "strength": 0.5}
    with pytest.raises(InputError, match="prompt is missing; this bundle needs a prompt"):
        pipeline.animate(GIVEN[0])
    with pytest.raises(InputError, match="motion is given twice, also in numbers; leave one out"):
        pipeline.animate(GIVEN[0], PROMPT, motion=1, numbers={"motion": 1})
    with pytest.raises(InputError, match="no number 'fps'; it has: motion, strength; leave it"):
        pipeline.animate(GIVEN[0], PROMPT, fps=8)


@pytest.mark.parametrize("verb", ["upscale", "edit", "animate"])
def test_a_prompt_that_nothing_reads_is_refused(
    tmp_path: Path, upscaler: Pipeline, verb: str
) -> None:
    given: Any = GIVEN
    pipeline = upscaler
    if verb == "edit":
        bundle = build(
            tmp_path / "x.mvbundle", [{**enlarging(), "task": "video_to_video"}], UPSCALER
        )
        pipeline = mvsdk.load(bundle.path, backend=fake(UPSCALER))
    if verb == "animate":
        bundle = build_animator(tmp_path / "x.mvbundle")
        pipeline = mvsdk.load(bundle.path, backend=Fake(fake_animator()))
        given = GIVEN[0]
    with pytest.raises(InputError, match=r"takes no 'prompt'; it takes: .*; leave it out"):
        getattr(pipeline, verb)(given, PROMPT)


# --- prompts that are too long -------------------------------------------------------------------


@pytest.mark.parametrize(("more", "words"), [(1, "1 token is"), (3, "3 tokens are")])
def test_a_clip_says_how_much_of_its_prompt_was_cut(tmp_path: Path, more: int, words: str) -> None:
    bundle = build_editor(tmp_path / "editor.mvbundle", tokenizers={"main": {"too_long": "cut"}})
    pipeline = mvsdk.load(bundle.path, backend=fake(EDITOR))
    whole = pipeline.edit(GIVEN, "a cat " * 3)
    cut = pipeline.edit(GIVEN, "a cat " * 3 + "a " * more)
    assert whole.notes == ()
    assert cut.notes == (f"the prompt is too long for this model: its last {words} left out",)
    assert cut.frames.tobytes() == whole.frames.tobytes()


# --- several programs ----------------------------------------------------------------------------


def _both(path: Path, **more: Any) -> Bundle:
    programs = [editing("small"), editing("other"), enlarging("large")]
    options = {"tokenizers": {"main": {}}, **more}
    return build(path, programs, {**EDITOR, **UPSCALER}, **options)


def test_a_bundle_may_have_programs_for_several_tasks(
    tmp_path: Path, editor: Pipeline, upscaler: Pipeline
) -> None:
    pipeline = mvsdk.load(
        _both(tmp_path / "both.mvbundle").path, backend=fake({**EDITOR, **UPSCALER})
    )
    for task in ("video_to_video", "upscale"):
        pipeline.check_task(task)
    with pytest.raises(InputError, match="tiny is for video_to_video, not image_to_video; use"):
        pipeline.check_task("image_to_video")
    edited = pipeline.edit(GIVEN, PROMPT)
    assert edited.frames.tobytes() == editor.edit(GIVEN, PROMPT).frames.tobytes()
    larger = pipeline.upscale(GIVEN)
    assert larger.frames.tobytes() == upscaler.upscale(GIVEN).frames.tobytes()


def test_programs_are_found_by_task_and_name(tmp_path: Path) -> None:
    manifest = _both(tmp_path / "both.mvbundle").manifest
    assert manifest.program.name == "small"
    assert find_program(manifest, "video_to_video").name == "small"
    assert find_program(manifest, "video_to_video", "other").name == "other"
    assert find_program(manifest, "upscale").name == "large"
    with pytest.raises(
        InputError, match="has no program 'large' for video_to_video; it has: small, other; choose"
    ):
        find_program(manifest, "video_to_video", "large")
    assert set(TASKS) == {"text_to_video", "image_to_video", "video_to_video", "upscale"}
    assert all(hasattr(Pipeline, spec.method) for spec in TASKS.values())


def test_a_program_whose_graphs_are_not_in_the_set_is_refused_at_once(tmp_path: Path) -> None:
    ids = {"text_encoder": "onnx-fp32", "painter": "onnx-fp32"}
    bundle = _both(
        tmp_path / "both.mvbundle",
        sets={"edit": ids, "enlarge": {"upscaler": "onnx-fp32"}},
    )
    backend = fake({**EDITOR, **UPSCALER})
    pipeline = mvsdk.load(bundle.path, backend=backend)
    assert pipeline.selection.id == "edit"
    with pytest.raises(InputError, match="program large needs upscaler, which the set edit lacks"):
        pipeline.upscale(GIVEN)
    assert backend.events == []


def test_each_program_may_have_a_set_of_its_own(tmp_path: Path, upscaler: Pipeline) -> None:
    ids = {"text_encoder": "onnx-fp32", "painter": "onnx-fp32"}
    sets = {"edit": ids, "enlarge": {"upscaler": "onnx-fp32"}}
    bundle = _both(tmp_path / "both.mvbundle", sets=sets)
    backend = fake({**EDITOR, **UPSCALER})
    pipeline = mvsdk.load(bundle.path, backend=backend, program="large")
    assert (pipeline.selection.id, pipeline.program.name) == ("enlarge", "large")
    assert pipeline.number_inputs == {}
    assert pipeline.upscale(GIVEN).frames.tobytes() == upscaler.upscale(GIVEN).frames.tobytes()
    assert pipeline.run({"clip": GIVEN}).frames.shape == LARGE
    with pytest.raises(InputError, match="has no tokenizer: it takes no prompt"):
        pipeline.tokenizer()
    with pytest.raises(InputError, match="has no program 'x'; it has: small, other, large"):
        mvsdk.load(bundle.path, backend=backend, program="x")
    other = mvsdk.load(bundle.path, backend=backend, program="other")
    assert other.edit(GIVEN, PROMPT).frames.shape == CLIP
    assert (other.selection.id, other.program.name) == ("edit", "other")


def test_a_slim_bundle_may_hold_one_program_alone(tmp_path: Path) -> None:
    bundle = _both(tmp_path / "both.mvbundle")
    slim = mvsdk.slim_bundle(bundle.path, tmp_path / "large.mvbundle", program="large")
    assert [program.name for program in slim.manifest.programs] == ["large"]
    assert set(slim.manifest.components) == {"upscaler"}
    assert not slim.manifest.tokenizers
    every = mvsdk.slim_bundle(bundle.path, tmp_path / "all.mvbundle", target="onnx")
    assert every.manifest.programs == bundle.manifest.programs


def test_a_pack_that_the_program_does_not_need_may_be_missing(tmp_path: Path) -> None:
    parts = {"upscaler": [VariantFiles(pack="large")]}
    bundle = _both(tmp_path / "both.mvbundle", components=parts, packs=("large",))
    (ref,) = bundle.manifest.components["upscaler"].variants[0].files
    (bundle.path / ref.path).unlink()
    backend = fake({**EDITOR, **UPSCALER})
    pipeline = mvsdk.load(bundle.path, backend=backend)
    assert pipeline.edit(GIVEN, PROMPT).frames.shape == CLIP
    with pytest.raises(InputError, match=r"needs upscaler, which the set .* lacks, or nothing"):
        pipeline.upscale(GIVEN)
    with pytest.raises(BackendError, match=r"pack large is not installed; .*--pack large=FOLDER"):
        mvsdk.load(bundle.path, backend=backend, program="large")


def test_a_clip_plays_at_the_rate_that_it_was_made_for(tmp_path: Path) -> None:
    program = enlarging()
    program["inputs"]["fps"] = {
        "kind": "number",
        "minimum": 1,
        "maximum": 60,
        "default": 24,
        "whole": False,
    }
    graph = UPSCALER["upscaler"]
    graph = type(graph)(
        graph.role, {**graph.inputs, "fps": ((1,), "real")}, graph.outputs, graph.function
    )
    program["operations"][0]["inputs"]["fps"] = "fps"
    bundle = build(tmp_path / "b.mvbundle", [program], {"upscaler": graph})
    pipeline = mvsdk.load(bundle.path, backend=Fake({"upscaler": graph.function}))
    assert pipeline.upscale(GIVEN).fps == 8
    assert pipeline.upscale(GIVEN, numbers={"fps": 30}).fps == 30
