"""The pipeline, on a fake backend with an exact answer and on real ONNX graphs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import (
    FRAMES,
    LATENTS,
    SHAPES,
    build_bundle,
    decoding,
    fake_functions,
    goal,
    straight_flow,
)

import mvsdk
from mvsdk import BackendError, BundleError, Fake, InputError, Step, Video
from mvsdk.bundle import Bundle
from mvsdk.noise import initial_latents

PROMPT = "a rocket flying left"


def _load(bundle: Bundle, backend: Fake, **options: Any) -> mvsdk.Pipeline:
    return mvsdk.load(bundle.path, backend=backend, **options)


def _goal(prompt_ids: list[int]) -> np.ndarray:
    feeds = {"input_ids": np.array([prompt_ids], np.int32)}
    return goal(fake_functions()["text_encoder"](feeds)["encoder_hidden_states"])


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_straight_flow_reaches_its_goal_in_any_number_of_steps(
    fake_bundle: Bundle, fake: Fake, steps: int
) -> None:
    *_, last = _load(fake_bundle, fake).stream(PROMPT, num_inference_steps=steps, seed=3)
    np.testing.assert_allclose(last.latents, _goal([2, 3, 4, 5, 0, 0]), atol=1e-5)


def test_a_video_says_what_it_is(fake_bundle: Bundle, fake: Fake) -> None:
    video = _load(fake_bundle, fake).generate(PROMPT, seed=2**64 - 1)
    assert (video.frames.dtype, video.frames.shape) == (np.uint8, FRAMES)
    assert (video.prompt, video.seed, video.fps) == (PROMPT, 2**64 - 1, 8.0)


@pytest.mark.parametrize("at_once", [1, 4, 8])
def test_a_decoder_of_fewer_frames_gets_a_clip_in_parts(
    fake_bundle: Bundle, tmp_path: Path, at_once: int
) -> None:
    decode, parts = fake_functions()["vae_decoder"], list[np.ndarray]()

    def watched(feeds: Any) -> dict[str, np.ndarray]:
        parts.append(feeds["latents"])
        return decode(feeds)

    fake = Fake({**fake_functions(), "vae_decoder": watched})
    bundle = build_bundle(tmp_path / "parts.mvbundle", tensors=decoding(at_once))
    *_, last = _load(bundle, fake, memory="low").stream(PROMPT, seed=3)
    assert {part.shape for part in parts} == {(at_once, *LATENTS[1:])}
    assert np.array_equal(np.concatenate(parts), last.latents)
    assert fake.events.count(("load", "vae_decoder")) == 1
    whole = _load(fake_bundle, Fake(fake_functions())).generate(PROMPT, seed=3)
    assert last.video is not None
    assert last.video.frames.tobytes() == whole.frames.tobytes()


def test_first_step_starts_from_the_portable_noise_of_the_seed(
    fake_bundle: Bundle, fake: Fake
) -> None:
    first = next(_load(fake_bundle, fake).stream(PROMPT, num_inference_steps=2, seed=11))
    halfway = (initial_latents(11, LATENTS) + _goal([2, 3, 4, 5, 0, 0])) / 2
    np.testing.assert_allclose(first.latents, halfway, atol=1e-6)


def test_init_noise_sigma_scales_the_first_noise(tmp_path: Path, fake: Fake) -> None:
    sampler = replace(straight_flow(), init_noise_sigma=3.0)
    bundle = build_bundle(tmp_path / "b.mvbundle", sampler=sampler)
    first = next(_load(bundle, fake).stream(PROMPT, num_inference_steps=2, seed=11))
    halfway = (3 * initial_latents(11, LATENTS) + _goal([2, 3, 4, 5, 0, 0])) / 2
    np.testing.assert_allclose(first.latents, halfway, atol=1e-6)


def test_consistency_steps_take_fresh_noise_from_the_stream_of_their_index(
    tmp_path: Path, fake: Fake
) -> None:
    sampler = replace(straight_flow(), kind="flow_consistency")
    bundle = build_bundle(tmp_path / "b.mvbundle", sampler=sampler)
    steps = list(_load(bundle, fake).stream(PROMPT, num_inference_steps=4, seed=5))
    aim = _goal([2, 3, 4, 5, 0, 0])
    for index, sigma in ((1, 0.75), (2, 0.5), (3, 0.25)):
        fresh = initial_latents(5, LATENTS, stream=index)
        expected = (1 - sigma) * aim + sigma * fresh
        np.testing.assert_allclose(steps[index - 1].latents, expected, atol=1e-5)


def test_steps_count_up_and_the_last_carries_the_video(fake_bundle: Bundle, fake: Fake) -> None:
    steps = list(_load(fake_bundle, fake).stream(PROMPT, num_inference_steps=4))
    assert [(step.index, step.count, step.sigma) for step in steps] == [
        (1, 4, 0.75),
        (2, 4, 0.5),
        (3, 4, 0.25),
        (4, 4, 0.0),
    ]
    assert [step.video is not None for step in steps] == [False, False, False, True]
    elapsed = [step.elapsed_s for step in steps]
    assert elapsed == sorted(elapsed)
    assert elapsed[0] > 0


def test_on_step_sees_every_step_and_can_stop(fake_bundle: Bundle, fake: Fake) -> None:
    seen: list[Step] = []
    _load(fake_bundle, fake).generate(PROMPT, on_step=seen.append)
    assert [step.index for step in seen] == [1, 2, 3, 4]

    class Enough(Exception):
        pass

    def stop(step: Step) -> None:
        if step.index == 2:
            raise Enough

    other = Fake(fake_functions())
    with pytest.raises(Enough):
        _load(fake_bundle, other, memory="low").generate(PROMPT, on_step=stop)
    assert ("load", "unet") in other.events
    assert other.open_components == []


def test_latents_of_a_step_cannot_be_written(fake_bundle: Bundle, fake: Fake) -> None:
    for step in _load(fake_bundle, fake).stream(PROMPT):
        with pytest.raises(ValueError, match="read-only"):
            step.latents[:] = 0


def test_default_steps_are_the_manifests(tmp_path: Path, fake: Fake) -> None:
    bundle = build_bundle(
        tmp_path / "b.mvbundle", sampler=replace(straight_flow(), default_steps=2)
    )
    assert len(list(_load(bundle, fake).stream(PROMPT))) == 2


def test_equal_seeds_give_equal_bytes_and_others_do_not(onnx_bundle: Bundle) -> None:
    with mvsdk.load(onnx_bundle.path) as pipeline:
        first = pipeline.generate(PROMPT, seed=7).frames
        assert pipeline.generate(PROMPT, seed=7).frames.tobytes() == first.tobytes()
        assert pipeline.generate(PROMPT, seed=8).frames.tobytes() != first.tobytes()
        assert pipeline.generate("a cat", seed=7).frames.tobytes() != first.tobytes()
    with mvsdk.load(onnx_bundle.path, memory="low") as pipeline:
        assert pipeline.generate(PROMPT, seed=7).frames.tobytes() == first.tobytes()


def test_another_process_makes_the_same_bytes(onnx_bundle: Bundle) -> None:
    code = (
        "import sys, hashlib, mvsdk; "
        "video = mvsdk.load(sys.argv[1]).generate(sys.argv[2], seed=7); "
        "print(hashlib.sha256(video.frames.tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(onnx_bundle.path), PROMPT]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    frames = mvsdk.load(onnx_bundle.path).generate(PROMPT, seed=7).frames
    assert done.stdout.strip() == hashlib.sha256(frames.tobytes()).hexdigest()


def test_onnx_graphs_do_the_arithmetic_that_numpy_does(onnx_bundle: Bundle) -> None:
    """One step by hand: the sampler hands the graph noise and timestep, and lands on x - v."""
    pipeline = mvsdk.load(onnx_bundle.path)
    (step,) = pipeline.stream(PROMPT, num_inference_steps=1, seed=1)
    noise = initial_latents(1, LATENTS)
    ids = pipeline.tokenizer().encode(PROMPT).ids
    text = pipeline.session("text_encoder").run({"input_ids": ids})
    inputs = {"sample": noise, "timestep": np.float32([1000]), **text}
    velocity = pipeline.session("unet").run(inputs)["model_output"]
    np.testing.assert_allclose(step.latents, noise - velocity, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1; allowed: whole numbers, 0 to"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"seed": 1.5}, "seed is 1.5; allowed: whole numbers"),
        ({"num_inference_steps": 3}, "num_inference_steps is 3; this bundle has: 1, 2, 4"),
        ({"num_inference_steps": -1}, "num_inference_steps is -1; this bundle has: 1, 2, 4"),
        ({"num_inference_steps": 2.0}, "num_inference_steps is 2.0; allowed: whole numbers"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "a\x00"}, "control character"),
        ({"prompt": "a " * 7}, "7 tokens, this model takes at most 6"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_loaded(
    fake_bundle: Bundle, fake: Fake, options: dict[str, Any], message: str
) -> None:
    pipeline = _load(fake_bundle, fake)
    with pytest.raises(InputError, match=message):
        pipeline.stream(**{"prompt": PROMPT, **options})
    assert fake.events == []


def test_components_load_when_needed_and_stay_in_fast_memory(
    fake_bundle: Bundle, fake: Fake
) -> None:
    pipeline = _load(fake_bundle, fake)
    assert fake.events == []
    steps = pipeline.stream(PROMPT)
    assert fake.events == []
    next(steps)
    assert fake.open_components == ["text_encoder", "unet"]
    list(steps)
    pipeline.generate(PROMPT)
    loads = [("load", "text_encoder"), ("load", "unet"), ("load", "vae_decoder")]
    assert fake.events == loads
    pipeline.close()
    assert fake.open_components == []


def test_low_memory_lets_each_component_go_before_the_next_loads(
    fake_bundle: Bundle, fake: Fake
) -> None:
    _load(fake_bundle, fake, memory="low").generate(PROMPT)
    assert fake.events == [
        (event, component)
        for component in ("text_encoder", "unet", "vae_decoder")
        for event in ("load", "close")
    ]


def test_cancelling_frees_the_sessions_in_low_memory(fake_bundle: Bundle, fake: Fake) -> None:
    steps = _load(fake_bundle, fake, memory="low").stream(PROMPT)
    next(steps)
    assert fake.open_components == ["unet"]
    steps.close()
    assert fake.open_components == []


def test_two_clips_can_be_made_in_turns(fake_bundle: Bundle, fake: Fake) -> None:
    alone = _load(fake_bundle, fake).generate(PROMPT, seed=1).frames
    pipeline = _load(fake_bundle, fake, memory="low")
    one, two = pipeline.stream(PROMPT, seed=1), pipeline.stream("a cat", seed=2)
    last = [(left, right) for left, right in zip(one, two, strict=True)][-1]
    assert isinstance(last[0].video, Video)
    assert last[0].video.frames.tobytes() == alone.tobytes()


def test_timings_add_up_and_leave_the_callers_time_out(fake_bundle: Bundle) -> None:
    functions = fake_functions()
    unet = functions["unet"]

    def slow_unet(feeds: Any) -> dict[str, np.ndarray]:
        _spin(0.01)
        return unet(feeds)

    pipeline = _load(fake_bundle, Fake({**functions, "unet": slow_unet}))
    video: Video | None = None
    for step in pipeline.stream(PROMPT, num_inference_steps=4):
        video = step.video
        _spin(0.2)
    assert video is not None
    timings = video.timings
    assert timings is not None
    assert len(timings.denoise_s) == 4
    assert all(0.01 <= seconds < 0.1 for seconds in timings.denoise_s)
    parts = timings.load_s + timings.sessions_s + timings.host_s
    assert parts == pytest.approx(timings.total_s)
    assert timings.host_s > 0
    assert timings.total_s < 0.4
    assert timings.backend == "fake backend (Python functions)"


def _spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_host_overhead_is_small_beside_a_small_model(tmp_path: Path) -> None:
    """At most 3 % of 150 ms, at the sizes of the default model: the best of five clips."""
    bundle = build_bundle(tmp_path / "b.mvbundle")
    pipeline = _load(bundle, Fake(fake_functions()))
    pipeline.generate(PROMPT)
    host_s = [
        video.timings.host_s
        for video in (pipeline.generate(PROMPT, seed=seed) for seed in range(5))
        if video.timings
    ]
    assert min(host_s) < 0.03 * 0.150


def test_a_network_that_gives_nan_is_named_with_its_step(fake_bundle: Bundle) -> None:
    functions = fake_functions()
    calls: list[int] = []

    def unet(feeds: Any) -> dict[str, np.ndarray]:
        calls.append(1)
        value = np.nan if len(calls) == 2 else 0.0
        return {"model_output": np.full(LATENTS, value, np.float32)}

    with pytest.raises(BackendError, match="unet gave nan or infinite values at step 2 of 4"):
        _load(fake_bundle, Fake({**functions, "unet": unet})).generate(PROMPT)


def test_fixed_conditioning_reaches_the_denoiser(tmp_path: Path) -> None:
    seen: list[np.ndarray] = []
    functions = fake_functions()
    unet = functions["unet"]

    def spying_unet(feeds: Any) -> dict[str, np.ndarray]:
        seen.append(feeds["motion"])
        return unet(feeds)

    inputs, outputs = SHAPES["unet"]
    shapes = {**SHAPES, "unet": ({**inputs, "motion": ((1, 2), "float32")}, outputs)}
    constants = {"motion": (1.0, 2.0)}
    bundle = build_bundle(tmp_path / "b.mvbundle", shapes=shapes, constants=constants)
    _load(bundle, Fake({**functions, "unet": spying_unet})).generate(PROMPT)
    assert [array.tolist() for array in seen] == [[[1.0, 2.0]]] * 4


def test_a_bundle_for_prompts_says_so_when_it_gets_a_picture(
    fake_bundle: Bundle, fake: Fake
) -> None:
    pipeline = _load(fake_bundle, fake)
    for ask in (
        lambda: pipeline.animate("nowhere.png"),
        lambda: pipeline.stream_animation("nowhere.png"),
        lambda: pipeline.check_task("image_to_video"),
    ):
        with pytest.raises(InputError, match="tiny is for text_to_video, not image_to_video; use "):
            ask()


def test_a_tokenizer_that_is_not_the_manifests_is_refused(tmp_path: Path, fake: Fake) -> None:
    spec = build_bundle(tmp_path / "a.mvbundle").manifest.tokenizers["main"]
    other = {"main": replace(spec, kind="t5_unigram")}
    bundle = build_bundle(tmp_path / "b.mvbundle", tokenizers=other)
    with pytest.raises(BundleError, match=r"kind.*wordpiece.*t5_unigram"):
        _load(bundle, fake).generate(PROMPT)


def test_unknown_memory_is_refused(fake_bundle: Bundle, fake: Fake) -> None:
    with pytest.raises(InputError, match="memory is 'tiny'; allowed: fast, low"):
        _load(fake_bundle, fake, memory="tiny")


def test_a_flipped_byte_in_a_graph_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path / "b.mvbundle")
    model = bundle.path / bundle.manifest.components["unet"].variants[0].model
    content = bytearray(model.read_bytes())
    content[3] ^= 1
    model.write_bytes(content)
    with pytest.raises(BundleError, match="unet"):
        mvsdk.load(bundle.path).session("unet")
