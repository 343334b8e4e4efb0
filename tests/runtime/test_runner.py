"""What programs compute: every operation to the byte against plain NumPy, written out here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program_results import CLIP_GIVEN, assert_same, drawn_noise, f32, result_of, watched_clip
from tiny_bundles import TOKENS
from tiny_programs import (
    CLIP,
    Arrays,
    Document,
    Graph,
    Watched,
    carried,
    collected,
    linear,
    loop,
    noise,
    number,
    pipeline,
    run,
    take,
    upscale,
)


def test_linear_adds_from_left_to_right_and_rounds_each_time(tmp_path: Path) -> None:
    shape = (3, 50)
    drawn = [noise(stream, shape, name) for stream, name in enumerate("abc")]
    total = linear("result", ("a", 0.1), ("b", 0.3), ("c", -0.7), offset=0.2)
    a, b, c = (drawn_noise(*shape, stream=stream) for stream in range(3))
    expected = ((a * f32(0.1) + b * f32(0.3)) + c * f32(-0.7)) + f32(0.2)
    assert_same(result_of(tmp_path, [*drawn, total], shape), expected)
    other = (a * f32(0.1) + (b * f32(0.3) + c * f32(-0.7))) + f32(0.2)
    assert expected.tobytes() != other.tobytes()


def test_linear_takes_bytes_of_equal_sizes_and_a_factor_of_the_caller(tmp_path: Path) -> None:
    operations = [
        noise(3, (*CLIP, 1), "grain"),
        linear("result", ("clip", 1 / 127.5), ("grain", "strength"), offset=-1),
    ]
    inputs = {"strength": number(0, 1, 0.5)}
    found = result_of(tmp_path, operations, CLIP, inputs=inputs, numbers={"strength": 0.1})
    grain = drawn_noise(*CLIP, 1, stream=3).reshape(CLIP) * f32(0.1)
    assert_same(found, CLIP_GIVEN.astype(f32) * f32(1 / 127.5) + grain + f32(-1))


def test_an_offset_of_zero_is_not_added(tmp_path: Path) -> None:
    zeros = {"op": "numbers", "values": [0, 0], "output": "zeros"}
    found = result_of(tmp_path, [zeros, linear("result", ("zeros", -1))], (2,))
    assert np.signbit(found).all()


def test_numbers_are_computed_in_float64_and_rounded_once(tmp_path: Path) -> None:
    values = [1.5, {"input": "fps", "scale": 0.1, "offset": -1 / 3}, {**_value("guidance")}]
    found = result_of(
        tmp_path,
        [{"op": "numbers", "values": values, "output": "result"}],
        (3,),
        inputs={"fps": number(1, 60, 24), "guidance": number(0, 20, 7.5)},
        numbers={"fps": 12.7},
    )
    assert_same(found, np.array([1.5, 12.7 * 0.1 + -1 / 3, 7.5]).astype(f32))


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_float32_are_infinite_without_a_warning(tmp_path: Path) -> None:
    most = 3.4028234663852886e38
    values = [{"input": "fps", "scale": sign * most, "offset": 0} for sign in (1, -1)]
    found = result_of(
        tmp_path,
        [{"op": "numbers", "values": values, "output": "result"}],
        (2,),
        inputs={"fps": number(1, 60, 24)},
    )
    assert found.tolist() == [np.inf, -np.inf]


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
    x = drawn_noise(2, 6, 9)
    total = np.zeros((2, 2, 3), f32)
    for image, row, column in np.ndindex(total.shape):
        block = x[image, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].ravel()
        for value in block:
            total[image, row, column] = total[image, row, column] + value
    small = total * f32(1 / 9)
    expected = np.empty((2, 4, 6), f32)
    for image, row, column in np.ndindex(expected.shape):
        expected[image, row, column] = small[image, row // 2, column // 2]
    assert_same(result_of(tmp_path, operations, (2, 4, 6)), expected)


def test_concat_puts_arrays_one_after_the_other(tmp_path: Path) -> None:
    join = {"op": "concat", "arrays": ["b", "a", "b"], "axis": 1, "output": "result"}
    operations = [noise(0, (2, 3), "a"), noise(1, (2, 1), "b"), join]
    a, b = drawn_noise(2, 3), drawn_noise(2, 1, stream=1)
    assert_same(result_of(tmp_path, operations, (2, 5)), np.concatenate([b, a, b], axis=1))


def test_take_goes_by_counters_and_whole_numbers(tmp_path: Path) -> None:
    place = {"start": 1, "steps": {"i": 3, "shift": -1}}
    inside = take("x", "piece", place, axis=1, size=2, stride=2)
    operations = [
        noise(0, (2, 12), "x"),
        loop(3, "i", [inside], collected={"piece": collected("result")}),
    ]
    shift = {"shift": number(0, 1, 1, whole=True)}
    x = drawn_noise(2, 12)
    for given, at in ((None, 0), (0, 1)):
        numbers = None if given is None else {"shift": given}
        folder = tmp_path / str(at)
        folder.mkdir()
        found = result_of(folder, operations, (6, 2), inputs=shift, numbers=numbers)
        assert_same(found, np.concatenate([x[:, [at + 3 * i, at + 3 * i + 2]] for i in range(3)]))


def test_take_without_a_stride_repeats_one_place(tmp_path: Path) -> None:
    operations = [noise(0, (2, 5), "x"), take("x", "result", 3, axis=1, size=4, stride=0)]
    found = result_of(tmp_path, operations, (2, 4))
    assert_same(found, np.repeat(drawn_noise(2, 5)[:, 3:4], 4, axis=1))


def test_tables_are_arrays_of_any_type(tmp_path: Path) -> None:
    tables = {"weights": np.float32([[0.5, -2]]), "marks": np.arange(4, dtype=np.int32)}
    graph = Graph(
        "adapter",
        {"x": ((1, 2), "real"), "marks": ((4,), "integer")},
        {"y": ((2,), "real")},
        lambda feeds: {"y": feeds["x"][0] * f32(feeds["marks"].sum())},
    )
    operation = run("adapter", {"y": "result"}, x="weights", marks="marks")
    found = result_of(tmp_path, [operation], (2,), graphs={"adapter": graph}, tables=tables)
    assert_same(found, np.float32([3, -12]))


def test_noise_in_loops_is_of_the_window_of_their_turns(tmp_path: Path) -> None:
    rows = {"row": collected("table", axis=1)}
    inner = loop(3, "j", [noise(5, (1, 1, 4), "row")], collected=rows)
    outer = loop(2, "i", [inner], collected={"table": collected("result")})
    found = result_of(tmp_path, [outer], (2, 3, 4))
    windows = [drawn_noise(4, stream=5, window=window) for window in range(6)]
    assert_same(found, np.stack(windows).reshape(2, 3, 4))


@pytest.mark.parametrize("blend", ["first", "last", "linear"])
def test_pieces_that_overlap_are_blended(tmp_path: Path, blend: str) -> None:
    join = {"piece": collected("result", axis=1, overlap=2, blend=blend)}
    found = result_of(
        tmp_path, [loop(3, "i", [noise(0, (2, 5), "piece")], collected=join)], (2, 11)
    )
    pieces = [drawn_noise(2, 5, window=window) for window in range(3)]
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
    assert_same(found, expected)


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
    state = drawn_noise(3)
    for own in drawn_noise(4, 1, 3, stream=1):
        state = own[0] * f32(1) + state * f32(0.5)
    assert_same(result_of(tmp_path, operations, (3,)), state)


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
            watched_clip(),
        ],
        {"prompt": {"kind": "prompt"}},
        task="video_to_video",
    )
    made = pipeline(tmp_path, program, graphs, tokenizers={"main": {}})
    made.edit(CLIP_GIVEN, "rocket flying")
    numbers = [TOKENS.index(word) for word in ("a", "rocket", "flying", "left")]
    cat = [TOKENS.index("a"), TOKENS.index("cat")]
    assert rows == [[[*numbers, 0, 0], [1, 1, 1, 1, 0, 0], [*cat, 0, 0, 0, 0]]]
