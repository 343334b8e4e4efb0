"""What samplers of programs compute, in loops and in each other, against plain NumPy."""

from __future__ import annotations

from pathlib import Path
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
    drawn_noise,
    f32,
    flow_by_hand,
    halved,
    nested_samplers,
    result_of,
    watched_clip,
)
from tiny_programs import (
    Arrays,
    Graph,
    Watched,
    build,
    carried,
    collected,
    even,
    fake,
    flow,
    linear,
    loop,
    noise,
    run,
    sample,
    take,
    upscale,
)

import mvsdk
from mvsdk import InputError
from mvsdk.manifest import Sampler


def test_a_sampler_integrates_what_its_operations_make(tmp_path: Path) -> None:
    samplers = {"main": flow(2, 4, init_noise_sigma=3.0)}
    graphs = {"denoiser": denoiser_of(halved)}
    operations = [START, sample([DENOISE], output="result")]
    found = result_of(tmp_path, operations, X, graphs=graphs, samplers=samplers)
    start = drawn_noise(*X) * f32(3)
    assert_same(found, flow_by_hand(start, 4, lambda x, t, _: halved({"x": x, "t": t})))


def test_one_step_of_edm_lands_on_the_clean_sample(tmp_path: Path) -> None:
    kind = Sampler(
        kind="edm_euler",
        prediction_type="sample",
        schedules={1: _edm(700.0)},
        default_steps=1,
        init_noise_sigma=700.0,
    )
    graphs = {"denoiser": denoiser_of(lambda feeds: np.full(X, 5, f32) + 0 * feeds["x"])}
    operations = [START, sample([DENOISE], output="result")]
    found = result_of(tmp_path, operations, X, graphs=graphs, samplers={"main": kind})
    np.testing.assert_allclose(found, np.full(X, 5), atol=1e-4)


def _edm(sigma: float) -> Any:
    return type(even(1))(sigmas=(sigma, 0.0), timesteps=(1.6377,))


def test_fresh_noise_is_that_of_the_step_and_of_the_loop_around(tmp_path: Path) -> None:
    samplers = {"main": flow(2, kind="flow_consistency")}
    graphs = {"denoiser": denoiser_of(halved)}
    chunk = [noise(3, X, "start"), sample([DENOISE], stream=100)]
    operations = [loop(2, "i", chunk, collected={"latents": collected("result")})]
    found = result_of(tmp_path, operations, (8, 3), graphs=graphs, samplers=samplers)
    parts: list[np.ndarray] = []
    for window in range(2):
        x = drawn_noise(*X, stream=3, window=window)
        m = halved({"x": x, "t": f32([1000])})
        fresh = drawn_noise(*X, stream=101, window=window)
        x = m * f32(0.5) + fresh * f32(0.5)
        parts.append(halved({"x": x, "t": f32([500])}))
    assert_same(found, np.concatenate(parts))


def test_noise_inside_of_steps_is_the_same_in_each(tmp_path: Path) -> None:
    graphs = {"denoiser": denoiser_of(halved)}
    inside = [
        noise(9, X, "jitter"),
        linear("moved", ("noisy", 1), ("jitter", 0.1)),
        run("denoiser", {"m": "m"}, x="moved", t="timestep"),
    ]
    operations = [START, sample(inside, output="result")]
    found = result_of(tmp_path, operations, X, graphs=graphs, samplers={"main": flow(2)})
    jitter = drawn_noise(*X, stream=9) * f32(0.1)

    def denoise(x: np.ndarray, t: np.ndarray, index: int) -> np.ndarray:
        return halved({"x": x * f32(1) + jitter, "t": t})

    assert_same(found, flow_by_hand(drawn_noise(*X), 2, denoise))


def test_places_of_a_shared_axis_get_one_fresh_noise(tmp_path: Path) -> None:
    samplers = {"main": flow(2, kind="flow_consistency")}
    graphs = {"denoiser": denoiser_of(halved)}
    operations = [START, sample([DENOISE], output="result", stream=50, shared_axis=0)]
    found = result_of(tmp_path, operations, X, graphs=graphs, samplers=samplers)
    m = halved({"x": drawn_noise(*X), "t": f32([1000])})
    fresh = np.repeat(drawn_noise(1, X[1], stream=51), X[0], axis=0)
    assert_same(found, halved({"x": m * f32(0.5) + fresh * f32(0.5), "t": f32([500])}))


def test_a_denoiser_in_chunks_keeps_caches_between_steps(tmp_path: Path) -> None:
    """Each step denoises rows in pairs; a pair sees what the same pair had the step before."""
    pair = (2, 3)

    def chunked(feeds: Arrays) -> Arrays:
        known = feeds["x"] * f32(0.5) + feeds["cache"] * f32(0.25) + feeds["t"] * f32(1e-3)
        return {"m": known, "kept": known + f32(1)}

    graph = Graph(
        "denoiser",
        {"x": (pair, "real"), "cache": (pair, "real"), "t": ((1,), "real")},
        {"m": (pair, "real"), "kept": (pair, "real")},
        chunked,
    )
    at = {"start": 0, "steps": {"chunk": 2}}
    chunk = [
        take("noisy", "rows", at, size=2),
        take("caches", "own", at, size=2),
        run("denoiser", {"m": "m_rows", "kept": "kept"}, x="rows", cache="own", t="timestep"),
    ]
    joined = {"m_rows": collected("m"), "kept": collected("following")}
    state = {"caches": carried("empty", "following", "last")}
    operations = [
        START,
        noise(1, X, "empty"),
        sample([loop(2, "chunk", chunk, collected=joined)], carried=state),
        {"op": "concat", "arrays": ["latents", "last"], "axis": 0, "output": "result"},
    ]
    graphs = {"denoiser": graph}
    found = result_of(tmp_path, operations, (8, 3), graphs=graphs, samplers={"main": flow(3)})
    caches = drawn_noise(*X, stream=1)

    def denoise(x: np.ndarray, t: np.ndarray, index: int) -> np.ndarray:
        nonlocal caches
        halves = [chunked({"x": x[n], "cache": caches[n], "t": t}) for n in (slice(2), slice(2, 4))]
        caches = np.concatenate([half["kept"] for half in halves])
        return np.concatenate([half["m"] for half in halves])

    latents = flow_by_hand(drawn_noise(*X), 3, denoise)
    assert_same(found, np.concatenate([latents, caches]))


def test_indices_go_by_the_step_of_a_sampler(tmp_path: Path) -> None:
    graphs = {"denoiser": denoiser_of(halved)}
    inside = [
        take("biases", "bias", {"start": 2, "steps": {"step": -1}}),
        linear("moved", ("noisy", 1), ("bias", 1)),
        run("denoiser", {"m": "m"}, x="moved", t="timestep"),
    ]
    operations = [START, noise(1, (3, *X), "biases"), sample(inside, output="result")]
    found = result_of(tmp_path, operations, X, graphs=graphs, samplers={"main": flow(1, 3)})
    biases = drawn_noise(3, *X, stream=1)

    def denoise(x: np.ndarray, t: np.ndarray, index: int) -> np.ndarray:
        return halved({"x": x * f32(1) + biases[2 - index] * f32(1), "t": t})

    assert_same(found, flow_by_hand(drawn_noise(*X), 3, denoise))


def test_a_sampler_may_be_the_denoiser_of_another(tmp_path: Path) -> None:
    samplers = {"main": flow(2), "inner": flow(3, adjustable=False)}
    graphs = {"denoiser": denoiser_of(halved)}
    found = result_of(tmp_path, nested_samplers(), X, graphs=graphs, samplers=samplers)

    def inner(x: np.ndarray, t: np.ndarray, index: int) -> np.ndarray:
        return flow_by_hand(x, 3, lambda y, s, _: halved({"x": y, "t": s}))

    assert_same(found, flow_by_hand(drawn_noise(*X), 2, inner))


def _stages(main: Sampler, second: Sampler) -> dict[str, Any]:
    """Return two samplers, one after the other, and what runs them."""
    again = run("denoiser", {"m": "m2"}, x="noisy2", t="t2")
    names = {"index": "step2", "model_input": "noisy2", "timestep": "t2", "stream": 5000}
    ends = {"model_output": "m2", "output": "result"}
    operations = [
        START,
        sample([DENOISE]),
        sample([again], sampler="second", start="latents", **names, **ends),
    ]
    return {"operations": operations, "samplers": {"main": main, "second": second}}


def test_stages_have_samplers_of_their_own_and_one_is_the_callers(tmp_path: Path) -> None:
    stages = _stages(flow(1, 2, 4), flow(1, 3, adjustable=False))
    graphs = {"denoiser": denoiser_of(halved)}
    found = result_of(
        tmp_path,
        stages["operations"],
        X,
        graphs=graphs,
        samplers=stages["samplers"],
        steps=2,
    )

    def denoise(x: np.ndarray, t: np.ndarray, index: int) -> np.ndarray:
        return halved({"x": x, "t": t})

    assert_same(found, flow_by_hand(flow_by_hand(drawn_noise(*X), 2, denoise), 3, denoise))


@pytest.mark.parametrize(
    ("adjustable", "steps", "message"),
    [
        ((True, False), 3, r"num_inference_steps is 3; this bundle has: 1, 2, 4; .*\[S4\]"),
        ((True, True), 2, r"num_inference_steps is 2; this bundle has: 1, 3; .*\[S4\]"),
        ((False, False), 1, r"is 1; this bundle's numbers of steps are fixed; .*\[S4\]"),
    ],
)
def test_steps_that_a_sampler_lacks_are_refused_before_anything_runs(
    tmp_path: Path, adjustable: tuple[bool, bool], steps: int, message: str
) -> None:
    first, second = adjustable
    stages = _stages(flow(1, 2, 4, adjustable=first), flow(1, 3, adjustable=second))
    program = upscale([*stages["operations"], watched_clip()])
    graphs = {"denoiser": denoiser_of(halved), "watch": Watched(X).graph()}
    backend = fake(graphs)
    bundle = build(tmp_path / "b.mvbundle", [program], graphs, samplers=stages["samplers"])
    made = mvsdk.load(bundle.path, backend=backend)
    with pytest.raises(InputError, match=message) as caught:
        made.upscale(CLIP_GIVEN, num_inference_steps=steps)
    assert caught.value.rule == "S4"
    assert backend.events == []
    video = made.upscale(CLIP_GIVEN)
    assert video.num_inference_steps == (4 if first else None)
