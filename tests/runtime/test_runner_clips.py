"""What comes out of a program: frames, refusals of what is no number, steps and times."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from program_results import (
    CLIP_GIVEN,
    DENOISE,
    START,
    X,
    assert_same,
    denoiser_of,
    f32,
    halved,
    nested_samplers,
    result_of,
    watched_clip,
)
from tiny_programs import (
    CLIP,
    Arrays,
    Document,
    Graph,
    Watched,
    build,
    collected,
    fake,
    flow,
    linear,
    loop,
    noise,
    pipeline,
    run,
    sample,
    upscale,
)

import mvsdk
from mvsdk import BackendError, Step
from mvsdk.generation import Stopwatch, Work


def _brighter(offset: float) -> Document:
    """Return a program whose output is float32: half the clip, and a number."""
    shift = {"op": "numbers", "values": [offset], "output": "shift"}
    adapter = run("adapter", {"y": "real"}, x="clip", by="shift")
    return upscale([shift, adapter, linear("out", ("real", 0.5))], output="out")


ADAPTER = Graph(
    "adapter",
    {"x": (CLIP, "pixels"), "by": ((1,), "real")},
    {"y": (CLIP, "real")},
    lambda feeds: {"y": feeds["x"].astype(f32) + feeds["by"]},
)


def test_a_float_output_becomes_bytes(tmp_path: Path) -> None:
    graphs = {"adapter": ADAPTER}
    for offset in (-100, 0, 300):
        bundle = build(tmp_path / f"{offset}.mvbundle", [_brighter(offset)], graphs)
        video = mvsdk.load(bundle.path, backend=fake(graphs)).upscale(CLIP_GIVEN)
        halves = (CLIP_GIVEN.astype(f32) + f32(offset)) * f32(0.5)
        assert_same(video.frames, np.clip(np.rint(halves), 0, 255).astype(np.uint8))
        assert video.num_inference_steps is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_frames_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    graph = Graph(
        ADAPTER.role, ADAPTER.inputs, ADAPTER.outputs, lambda _: {"y": np.full(CLIP, f32(value))}
    )
    with pytest.raises(BackendError, match=r"the frames have nan or inf.*\[G17\]") as caught:
        pipeline(tmp_path, _brighter(0), {"adapter": graph}).upscale(CLIP_GIVEN)
    assert caught.value.rule == "G17"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_ends_the_clip(tmp_path: Path, value: float) -> None:
    calls: list[int] = []

    def denoise(feeds: Arrays) -> np.ndarray:
        calls.append(1)
        return np.full(X, f32(value) if len(calls) == 2 else f32(0)) + 0 * feeds["t"]

    with pytest.raises(BackendError, match=r"denoiser gave nan .* step 2 of 4; .*\[S5\]") as caught:
        result_of(
            tmp_path,
            [START, sample([DENOISE], output="result")],
            X,
            graphs={"denoiser": denoiser_of(denoise)},
            samplers={"main": flow(4)},
        )
    assert caught.value.rule == "S5"


def test_arithmetic_that_leaves_float32_ends_the_clip_without_a_warning(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"step 1 of 4; .*\[S5\]"):
        result_of(
            tmp_path,
            [START, sample([DENOISE], output="result")],
            X,
            graphs={"denoiser": denoiser_of(lambda feeds: np.zeros(X, f32) + 0 * feeds["t"])},
            samplers={"main": flow(4, init_noise_sigma=3e38)},
        )


def _in_loop(tmp_path: Path, denoise: Any = halved, **options: Any) -> tuple[Any, Any]:
    """Return a pipeline of two clips' worth of steps, one after the other, and its backend."""
    chunk = [noise(3, X, "start"), sample([DENOISE])]
    operations = [loop(2, "i", chunk, collected={"latents": collected("result")}), watched_clip()]
    graphs = {"denoiser": denoiser_of(denoise), "watch": Watched((8, 3)).graph()}
    bundle = build(
        tmp_path / "b.mvbundle", [upscale(operations)], graphs, samplers={"main": flow(1, 3)}
    )
    backend = fake(graphs)
    return mvsdk.load(bundle.path, backend=backend, **options), backend


def test_steps_of_repetitions_are_counted_and_the_last_has_the_clip(tmp_path: Path) -> None:
    made, _ = _in_loop(tmp_path)
    steps: list[Step] = []
    video = made.upscale(CLIP_GIVEN, on_step=steps.append)
    assert [(step.index, step.count) for step in steps] == [(n, 6) for n in range(1, 7)]
    assert [step.sigma for step in steps] == pytest.approx([2 / 3, 1 / 3, 0] * 2)
    assert [step.video is video for step in steps] == [False] * 5 + [True]
    assert video.num_inference_steps == 3
    made.upscale(CLIP_GIVEN, on_step=steps.append, num_inference_steps=1)
    assert [(step.index, step.count) for step in steps[6:]] == [(1, 2), (2, 2)]


def test_steps_inside_of_steps_are_not_counted(tmp_path: Path) -> None:
    graphs = {"denoiser": denoiser_of(halved), "watch": Watched(X).graph()}
    samplers = {"main": flow(2), "inner": flow(3, adjustable=False)}
    made = pipeline(
        tmp_path, upscale([*nested_samplers(), watched_clip()]), graphs, samplers=samplers
    )
    steps: list[Step] = []
    video = made.upscale(CLIP_GIVEN, on_step=steps.append)
    assert [(step.index, step.count) for step in steps] == [(1, 2), (2, 2)]
    assert video.timings is not None
    assert len(video.timings.denoise_s) == 2


def test_what_enlarges_behind_a_sampler_is_no_step_of_its_own() -> None:
    roles = {"unet": "denoiser", "up": "upscaler"}
    parts = {name: SimpleNamespace(role=role) for name, role in roles.items()}
    work = Work(lambda _: SimpleNamespace(run_s=0.0, run=lambda _: {}), Stopwatch())
    for seconds in (1.0, 2.0):
        work._inside_s[-1] = {"unet": seconds}
        work.end_step()
    work._inside_s[-1] = {"up": 4.0}
    manifest = SimpleNamespace(components=parts)
    assert work.timings(str, manifest).denoise_s == (1.0, 6.0)


def test_a_program_without_a_sampler_is_one_step(tmp_path: Path) -> None:
    made = pipeline(tmp_path, _brighter(0), {"adapter": ADAPTER})
    steps: list[Step] = []
    video = made.upscale(CLIP_GIVEN, on_step=steps.append)
    assert [(step.index, step.count, step.sigma) for step in steps] == [(1, 1, 0.0)]
    assert steps[0].video is video
    assert steps[0].latents.size == 0


def test_stopping_in_a_loop_lets_graphs_go(tmp_path: Path) -> None:
    made, backend = _in_loop(tmp_path, memory="low")

    class Enough(Exception):
        pass

    def stop(step: Step) -> None:
        if step.index == 4:
            raise Enough

    with pytest.raises(Enough):
        made.upscale(CLIP_GIVEN, on_step=stop)
    assert backend.events == [("load", "denoiser"), ("close", "denoiser")]


def test_time_is_told_by_what_graphs_are_for(tmp_path: Path) -> None:
    def slow(feeds: Arrays) -> np.ndarray:
        time.sleep(0.01)
        return halved(feeds)

    made, _ = _in_loop(tmp_path, slow)
    timings = made.upscale(CLIP_GIVEN).timings
    assert len(timings.denoise_s) == 6
    assert all(0.01 <= seconds < 0.2 for seconds in timings.denoise_s)
    assert timings.encode_s == pytest.approx(0, abs=1e-6)
    parts = timings.load_s + timings.sessions_s + timings.host_s
    assert parts == pytest.approx(timings.total_s)
