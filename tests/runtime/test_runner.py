"""What programs compute: every operation to the byte against plain NumPy, written out here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import TOKENS
from tiny_programs import (
    CLIP,
    Arrays,
    Document,
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
    number,
    pipeline,
    run,
    sample,
    take,
    upscale,
)

import mvsdk
from mvsdk import BackendError, InputError, Step
from mvsdk.manifest import Sampler
from mvsdk.noise import initial_latents

SEED = 7
CLIP_GIVEN = np.random.default_rng(0).integers(0, 256, CLIP, np.uint8)
f32 = np.float32


def _watch(result: str = "result") -> Document:
    return run("watch", {"frames": "frames"}, seen=result, clip="clip")


def _seen(
    folder: Path,
    operations: Sequence[Document],
    shape: Sequence[int],
    kind: Any = "real",
    *,
    inputs: Mapping[str, Document] | None = None,
    numbers: Mapping[str, float] | None = None,
    graphs: Mapping[str, Graph] | None = None,
    steps: int | None = None,
    **more: Any,
) -> np.ndarray:
    """Carry operations out; return what they made as `result`."""
    watched = Watched(tuple(shape), kind)
    parts = {"watch": watched.graph(), **(graphs or {})}
    program = upscale([*operations, _watch()], inputs)
    with pipeline(folder, program, parts, **more) as made:
        made.upscale(CLIP_GIVEN, numbers=numbers, seed=SEED, num_inference_steps=steps)
    (array,) = watched.seen
    return array


def _noise(*shape: int, stream: int = 0, window: int = 0) -> np.ndarray:
    return initial_latents(SEED, shape, stream=stream, window=window)


def _same(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


# --- arithmetic ----------------------------------------------------------------------------------


def test_linear_adds_from_left_to_right_and_rounds_each_time(tmp_path: Path) -> None:
    shape = (3, 50)
    drawn = [noise(stream, shape, name) for stream, name in enumerate("abc")]
    total = linear("result", ("a", 0.1), ("b", 0.3), ("c", -0.7), offset=0.2)
    a, b, c = (_noise(*shape, stream=stream) for stream in range(3))
    expected = ((a * f32(0.1) + b * f32(0.3)) + c * f32(-0.7)) + f32(0.2)
    _same(_seen(tmp_path, [*drawn, total], shape), expected)
    other = (a * f32(0.1) + (b * f32(0.3) + c * f32(-0.7))) + f32(0.2)
    assert expected.tobytes() != other.tobytes()


def test_linear_takes_bytes_of_equal_sizes_and_a_factor_of_the_caller(tmp_path: Path) -> None:
    operations = [
        noise(3, (*CLIP, 1), "grain"),
        linear("result", ("clip", 1 / 127.5), ("grain", "strength"), offset=-1),
    ]
    inputs = {"strength": number(0, 1, 0.5)}
    found = _seen(tmp_path, operations, CLIP, inputs=inputs, numbers={"strength": 0.1})
    grain = _noise(*CLIP, 1, stream=3).reshape(CLIP) * f32(0.1)
    _same(found, CLIP_GIVEN.astype(f32) * f32(1 / 127.5) + grain + f32(-1))


def test_an_offset_of_zero_is_not_added(tmp_path: Path) -> None:
    zeros = {"op": "numbers", "values": [0, 0], "output": "zeros"}
    found = _seen(tmp_path, [zeros, linear("result", ("zeros", -1))], (2,))
    assert np.signbit(found).all()


def test_numbers_are_computed_in_float64_and_rounded_once(tmp_path: Path) -> None:
    values = [1.5, {"input": "fps", "scale": 0.1, "offset": -1 / 3}, {**_value("guidance")}]
    found = _seen(
        tmp_path,
        [{"op": "numbers", "values": values, "output": "result"}],
        (3,),
        inputs={"fps": number(1, 60, 24), "guidance": number(0, 20, 7.5)},
        numbers={"fps": 12.7},
    )
    _same(found, np.array([1.5, 12.7 * 0.1 + -1 / 3, 7.5]).astype(f32))


def _value(name: str) -> Document:
    return {"input": name, "scale": 1, "offset": 0}


def test_resample_repeats_or_averages_the_last_two_axes(tmp_path: Path) -> None:
    def resample(array: str, method: str, factor: int, output: str) -> Document:
        keys = {"array": array, "method": method, "factor": factor, "output": output}
        return {"op": "resample", **keys}

    operations = [
        noise(0, (2, 6, 9), "x"),
        resample("x", "mean", 3, "small"),
        resample("small", "nearest", 2, "result"),
    ]
    x = _noise(2, 6, 9)
    total = np.zeros((2, 2, 3), f32)
    for image, row, column in np.ndindex(total.shape):
        block = x[image, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].ravel()
        for value in block:
            total[image, row, column] = total[image, row, column] + value
    small = total * f32(1 / 9)
    expected = np.empty((2, 4, 6), f32)
    for image, row, column in np.ndindex(expected.shape):
        expected[image, row, column] = small[image, row // 2, column // 2]
    _same(_seen(tmp_path, operations, (2, 4, 6)), expected)


def test_concat_puts_arrays_one_after_the_other(tmp_path: Path) -> None:
    join = {"op": "concat", "arrays": ["b", "a", "b"], "axis": 1, "output": "result"}
    operations = [noise(0, (2, 3), "a"), noise(1, (2, 1), "b"), join]
    a, b = _noise(2, 3), _noise(2, 1, stream=1)
    _same(_seen(tmp_path, operations, (2, 5)), np.concatenate([b, a, b], axis=1))


def test_take_goes_by_counters_and_whole_numbers(tmp_path: Path) -> None:
    place = {"start": 1, "steps": {"i": 3, "shift": -1}}
    inside = take("x", "piece", place, axis=1, size=2, stride=2)
    operations = [
        noise(0, (2, 12), "x"),
        loop(3, "i", [inside], collected={"piece": collected("result")}),
    ]
    shift = {"shift": number(0, 1, 1, whole=True)}
    x = _noise(2, 12)
    for given, at in ((None, 0), (0, 1)):
        numbers = None if given is None else {"shift": given}
        folder = tmp_path / str(at)
        folder.mkdir()
        found = _seen(folder, operations, (6, 2), inputs=shift, numbers=numbers)
        _same(found, np.concatenate([x[:, [at + 3 * i, at + 3 * i + 2]] for i in range(3)]))


def test_take_without_a_stride_repeats_one_place(tmp_path: Path) -> None:
    operations = [noise(0, (2, 5), "x"), take("x", "result", 3, axis=1, size=4, stride=0)]
    found = _seen(tmp_path, operations, (2, 4))
    _same(found, np.repeat(_noise(2, 5)[:, 3:4], 4, axis=1))


def test_tables_are_arrays_of_any_type(tmp_path: Path) -> None:
    tables = {"weights": np.float32([[0.5, -2]]), "marks": np.arange(4, dtype=np.int32)}
    graph = Graph(
        "adapter",
        {"x": ((1, 2), "real"), "marks": ((4,), "integer")},
        {"y": ((2,), "real")},
        lambda feeds: {"y": feeds["x"][0] * f32(feeds["marks"].sum())},
    )
    operation = run("adapter", {"y": "result"}, x="weights", marks="marks")
    found = _seen(tmp_path, [operation], (2,), graphs={"adapter": graph}, tables=tables)
    _same(found, np.float32([3, -12]))


# --- noise and loops -----------------------------------------------------------------------------


def test_noise_in_loops_is_of_the_window_of_their_turns(tmp_path: Path) -> None:
    rows = {"row": collected("table", axis=1)}
    inner = loop(3, "j", [noise(5, (1, 1, 4), "row")], collected=rows)
    outer = loop(2, "i", [inner], collected={"table": collected("result")})
    found = _seen(tmp_path, [outer], (2, 3, 4))
    windows = [_noise(4, stream=5, window=window) for window in range(6)]
    _same(found, np.stack(windows).reshape(2, 3, 4))


@pytest.mark.parametrize("blend", ["first", "last", "linear"])
def test_pieces_that_overlap_are_blended(tmp_path: Path, blend: str) -> None:
    join = {"piece": collected("result", axis=1, overlap=2, blend=blend)}
    found = _seen(tmp_path, [loop(3, "i", [noise(0, (2, 5), "piece")], collected=join)], (2, 11))
    pieces = [_noise(2, 5, window=window) for window in range(3)]
    expected = np.empty((2, 11), f32)
    for number_, piece in enumerate(pieces):
        begin = 3 * number_
        for j in range(5):
            later = piece[:, j]
            if number_ == 0 or j >= 2:
                expected[:, begin + j] = later
                continue
            w = (j + 1) / 3
            earlier = pieces[number_ - 1][:, 3 + j]
            blended = {"first": earlier, "last": later}
            blended["linear"] = f32(1 - w) * earlier + f32(w) * later
            expected[:, begin + j] = blended[blend]
    _same(found, expected)


def test_a_loop_carries_a_state_on_and_out(tmp_path: Path) -> None:
    """It has the shape of its start; what follows may have sizes of 1 besides."""
    operations = [
        noise(0, (3,), "zero"),
        noise(1, (4, 1, 3), "all"),
        loop(
            4,
            "i",
            [
                take("all", "own", {"start": 0, "steps": {"i": 1}}),
                linear("following", ("own", 1), ("state", 0.5)),
            ],
            carried={"state": carried("zero", "following", "result")},
        ),
    ]
    state = _noise(3)
    for own in _noise(4, 1, 3, stream=1):
        state = own[0] * f32(1) + state * f32(0.5)
    _same(_seen(tmp_path, operations, (3,)), state)


# --- samplers ------------------------------------------------------------------------------------

X = (4, 3)


def _denoiser(function: Any, **more: Any) -> Graph:
    """Return a denoiser of x and a timestep."""
    inputs = {"x": (X, "real"), "t": ((1,), "real"), **more}
    return Graph("denoiser", inputs, {"m": (X, "real")}, lambda feeds: {"m": function(feeds)})


def _half(feeds: Arrays) -> np.ndarray:
    return feeds["x"] * f32(0.5) + feeds["t"] * f32(1e-3)


DENOISE = run("denoiser", {"m": "m"}, x="noisy", t="timestep")
START = noise(0, X, "start")


def _flow_by_hand(x: np.ndarray, steps: int, denoise: Any) -> np.ndarray:
    schedule = even(steps)
    for index in range(steps):
        s, following = f32(schedule.sigmas[index]), f32(schedule.sigmas[index + 1])
        m = denoise(x, f32([schedule.timesteps[index]]), index)
        x = m + f32(float(following) / float(s)) * (x - m)
    return x


def test_a_sampler_integrates_what_its_operations_make(tmp_path: Path) -> None:
    samplers = {"main": flow(2, 4, init_noise_sigma=3.0)}
    graphs = {"denoiser": _denoiser(_half)}
    operations = [START, sample([DENOISE], output="result")]
    found = _seen(tmp_path, operations, X, graphs=graphs, samplers=samplers)
    start = _noise(*X) * f32(3)
    _same(found, _flow_by_hand(start, 4, lambda x, t, _: _half({"x": x, "t": t})))


def test_one_step_of_edm_lands_on_the_clean_sample(tmp_path: Path) -> None:
    kind = Sampler(
        kind="edm_euler",
        prediction_type="sample",
        schedules={1: _edm(700.0)},
        default_steps=1,
        init_noise_sigma=700.0,
    )
    graphs = {"denoiser": _denoiser(lambda feeds: np.full(X, 5, f32) + 0 * feeds["x"])}
    operations = [START, sample([DENOISE], output="result")]
    found = _seen(tmp_path, operations, X, graphs=graphs, samplers={"main": kind})
    np.testing.assert_allclose(found, np.full(X, 5), atol=1e-4)


def _edm(sigma: float) -> Any:
    return type(even(1))(sigmas=(sigma, 0.0), timesteps=(1.6377,))


def test_fresh_noise_is_that_of_the_step_and_of_the_loop_around(tmp_path: Path) -> None:
    samplers = {"main": flow(2, kind="flow_consistency")}
    graphs = {"denoiser": _denoiser(_half)}
    chunk = [noise(3, X, "start"), sample([DENOISE], stream=100)]
    operations = [loop(2, "i", chunk, collected={"latents": collected("result")})]
    found = _seen(tmp_path, operations, (8, 3), graphs=graphs, samplers=samplers)
    parts: list[np.ndarray] = []
    for window in range(2):
        x = _noise(*X, stream=3, window=window)
        m = _half({"x": x, "t": f32([1000])})
        fresh = _noise(*X, stream=101, window=window)
        x = m * f32(0.5) + fresh * f32(0.5)
        parts.append(_half({"x": x, "t": f32([500])}))
    _same(found, np.concatenate(parts))


def test_noise_inside_of_steps_is_the_same_in_each(tmp_path: Path) -> None:
    graphs = {"denoiser": _denoiser(_half)}
    inside = [
        noise(9, X, "jitter"),
        linear("moved", ("noisy", 1), ("jitter", 0.1)),
        run("denoiser", {"m": "m"}, x="moved", t="timestep"),
    ]
    operations = [START, sample(inside, output="result")]
    found = _seen(tmp_path, operations, X, graphs=graphs, samplers={"main": flow(2)})
    jitter = _noise(*X, stream=9) * f32(0.1)

    def denoise(x: np.ndarray, t: np.ndarray, index: int) -> np.ndarray:
        return _half({"x": x * f32(1) + jitter, "t": t})

    _same(found, _flow_by_hand(_noise(*X), 2, denoise))


def test_places_of_a_shared_axis_get_one_fresh_noise(tmp_path: Path) -> None:
    samplers = {"main": flow(2, kind="flow_consistency")}
    graphs = {"denoiser": _denoiser(_half)}
    operations = [START, sample([DENOISE], output="result", stream=50, shared_axis=0)]
    found = _seen(tmp_path, operations, X, graphs=graphs, samplers=samplers)
    m = _half({"x": _noise(*X), "t": f32([1000])})
    fresh = np.repeat(_noise(1, X[1], stream=51), X[0], axis=0)
    _same(found, _half({"x": m * f32(0.5) + fresh * f32(0.5), "t": f32([500])}))


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
    found = _seen(tmp_path, operations, (8, 3), graphs=graphs, samplers={"main": flow(3)})
    caches = _noise(*X, stream=1)

    def denoise(x: np.ndarray, t: np.ndarray, index: int) -> np.ndarray:
        nonlocal caches
        halves = [chunked({"x": x[n], "cache": caches[n], "t": t}) for n in (slice(2), slice(2, 4))]
        caches = np.concatenate([half["kept"] for half in halves])
        return np.concatenate([half["m"] for half in halves])

    latents = _flow_by_hand(_noise(*X), 3, denoise)
    _same(found, np.concatenate([latents, caches]))


def test_indices_go_by_the_step_of_a_sampler(tmp_path: Path) -> None:
    graphs = {"denoiser": _denoiser(_half)}
    inside = [
        take("biases", "bias", {"start": 2, "steps": {"step": -1}}),
        linear("moved", ("noisy", 1), ("bias", 1)),
        run("denoiser", {"m": "m"}, x="moved", t="timestep"),
    ]
    operations = [START, noise(1, (3, *X), "biases"), sample(inside, output="result")]
    found = _seen(tmp_path, operations, X, graphs=graphs, samplers={"main": flow(1, 3)})
    biases = _noise(3, *X, stream=1)

    def denoise(x: np.ndarray, t: np.ndarray, index: int) -> np.ndarray:
        return _half({"x": x * f32(1) + biases[2 - index] * f32(1), "t": t})

    _same(found, _flow_by_hand(_noise(*X), 3, denoise))


INNER = {"index": "inner_step", "model_input": "inner_noisy", "timestep": "inner_t"}
INNER_RUN = run("denoiser", {"m": "inner_m"}, x="inner_noisy", t="inner_t")


def _nested() -> list[Document]:
    """Return operations of a sampler whose denoiser is a sampler."""
    inner = sample(
        [INNER_RUN], sampler="inner", start="noisy", **INNER, model_output="inner_m", output="m"
    )
    return [START, sample([inner], output="result")]


def test_a_sampler_may_be_the_denoiser_of_another(tmp_path: Path) -> None:
    samplers = {"main": flow(2), "inner": flow(3, adjustable=False)}
    graphs = {"denoiser": _denoiser(_half)}
    found = _seen(tmp_path, _nested(), X, graphs=graphs, samplers=samplers)

    def inner(x: np.ndarray, t: np.ndarray, index: int) -> np.ndarray:
        return _flow_by_hand(x, 3, lambda y, s, _: _half({"x": y, "t": s}))

    _same(found, _flow_by_hand(_noise(*X), 2, inner))


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
    graphs = {"denoiser": _denoiser(_half)}
    found = _seen(
        tmp_path,
        stages["operations"],
        X,
        graphs=graphs,
        samplers=stages["samplers"],
        steps=2,
    )

    def denoise(x: np.ndarray, t: np.ndarray, index: int) -> np.ndarray:
        return _half({"x": x, "t": t})

    _same(found, _flow_by_hand(_flow_by_hand(_noise(*X), 2, denoise), 3, denoise))


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
    program = upscale([*stages["operations"], _watch()])
    graphs = {"denoiser": _denoiser(_half), "watch": Watched(X).graph()}
    backend = fake(graphs)
    bundle = build(tmp_path / "b.mvbundle", [program], graphs, samplers=stages["samplers"])
    made = mvsdk.load(bundle.path, backend=backend)
    with pytest.raises(InputError, match=message) as caught:
        made.upscale(CLIP_GIVEN, num_inference_steps=steps)
    assert caught.value.rule == "S4"
    assert backend.events == []
    video = made.upscale(CLIP_GIVEN)
    assert video.num_inference_steps == (4 if first else None)


# --- text ----------------------------------------------------------------------------------------


def test_texts_stand_between_others_and_masks_say_where_tokens_are(tmp_path: Path) -> None:
    def tokenize(output: str, text: str | None, before: str, after: str, mask: Any) -> Document:
        texts = {"input": text, "before": before, "after": after}
        return {"op": "tokenize", **texts, "tokenizer": "main", "output": output, "mask": mask}

    rows: list[list[list[int]]] = []

    def encode(feeds: Arrays) -> Arrays:
        rows.append([feeds[name][0].tolist() for name in ("ids", "mask", "blank")])
        return {"y": np.zeros((1,), f32)}

    tokens = {name: ((1, 6), "integer") for name in ("ids", "mask", "blank")}
    watched = Watched((1,))
    graphs = {
        "text_encoder": Graph("text_encoder", tokens, {"y": ((1,), "real")}, encode),
        "watch": watched.graph(),
    }
    program = upscale(
        [
            tokenize("ids", "prompt", "a ", " left", "mask"),
            tokenize("blank", None, "a cat", "", None),
            run("text_encoder", {"y": "result"}, ids="ids", mask="mask", blank="blank"),
            _watch(),
        ],
        {"prompt": {"kind": "prompt"}},
        task="video_to_video",
    )
    made = pipeline(tmp_path, program, graphs, tokenizers={"main": {}})
    made.edit(CLIP_GIVEN, "rocket flying")
    numbers = [TOKENS.index(word) for word in ("a", "rocket", "flying", "left")]
    cat = [TOKENS.index("a"), TOKENS.index("cat")]
    assert rows == [[[*numbers, 0, 0], [1, 1, 1, 1, 0, 0], [*cat, 0, 0, 0, 0]]]


# --- what comes out ------------------------------------------------------------------------------


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
        _same(video.frames, np.clip(np.rint(halves), 0, 255).astype(np.uint8))
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
        _seen(
            tmp_path,
            [START, sample([DENOISE], output="result")],
            X,
            graphs={"denoiser": _denoiser(denoise)},
            samplers={"main": flow(4)},
        )
    assert caught.value.rule == "S5"


def test_arithmetic_that_leaves_float32_ends_the_clip_without_a_warning(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"step 1 of 4; .*\[S5\]"):
        _seen(
            tmp_path,
            [START, sample([DENOISE], output="result")],
            X,
            graphs={"denoiser": _denoiser(lambda feeds: np.zeros(X, f32) + 0 * feeds["t"])},
            samplers={"main": flow(4, init_noise_sigma=3e38)},
        )


# --- progress ------------------------------------------------------------------------------------


def _in_loop(tmp_path: Path, denoise: Any = _half, **options: Any) -> tuple[Any, Any]:
    """Return a pipeline of two clips' worth of steps, one after the other, and its backend."""
    chunk = [noise(3, X, "start"), sample([DENOISE])]
    operations = [loop(2, "i", chunk, collected={"latents": collected("result")}), _watch()]
    graphs = {"denoiser": _denoiser(denoise), "watch": Watched((8, 3)).graph()}
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
    graphs = {"denoiser": _denoiser(_half), "watch": Watched(X).graph()}
    samplers = {"main": flow(2), "inner": flow(3, adjustable=False)}
    made = pipeline(tmp_path, upscale([*_nested(), _watch()]), graphs, samplers=samplers)
    steps: list[Step] = []
    video = made.upscale(CLIP_GIVEN, on_step=steps.append)
    assert [(step.index, step.count) for step in steps] == [(1, 2), (2, 2)]
    assert video.timings is not None
    assert len(video.timings.denoise_s) == 2


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
        return _half(feeds)

    made, _ = _in_loop(tmp_path, slow)
    timings = made.upscale(CLIP_GIVEN).timings
    assert len(timings.denoise_s) == 6
    assert all(0.01 <= seconds < 0.2 for seconds in timings.denoise_s)
    assert timings.encode_s == pytest.approx(0, abs=1e-6)
    parts = timings.load_s + timings.sessions_s + timings.host_s
    assert parts == pytest.approx(timings.total_s)
