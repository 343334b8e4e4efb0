"""Rules of what runs on the Neural Engine, on operations made up to meet them; no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mvsdk.manifest import Delegation, NonDelegated
from mvsdk_export.errors import ExportError
from mvsdk_export.findings import Finding
from mvsdk_export.targets.coreml.neural_engine import (
    CHUNK_BYTES,
    GENERATIONS,
    RULES,
    WORKING_SET_BYTES,
    Operation,
    TensorFacts,
    check_limits,
    predict_delegation,
)

PAGE = (Path(__file__).parents[2] / "docs" / "neural_engine.md").read_text("utf-8")
OURS = """
    cast greater_equal add select gather layer_norm linear reshape transpose matmul mul softmax gelu
    expand_dims conv slice_by_index concat split sin cos reduce_mean real_div sub clip reduce_sum
    tanh pixel_shuffle round abs tile scaled_dot_product_attention batch_norm squeeze relu silu
    sigmoid upsample_nearest_neighbor
"""
MAP = (1, 64, 32, 32)


def _facts(*shape: int, dtype: str = "float16", constant: bool = False) -> TensorFacts:
    return TensorFacts(shape=shape, dtype=dtype, constant=constant)


def _operation(
    kind: str,
    *shapes: tuple[int, ...],
    name: str = "it",
    dtype: str = "float16",
    inputs: dict[str, TensorFacts] | None = None,
    output: TensorFacts | None = None,
    **constants: Any,
) -> Operation:
    shapes = shapes or (MAP,)
    given = {f"x{index}": _facts(*shape, dtype=dtype) for index, shape in enumerate(shapes)}
    return Operation(
        type=kind,
        name=name,
        inputs=given | (inputs or {}),
        outputs=(output or _facts(*shapes[0], dtype=dtype),),
        constants=constants,
    )


def _conv(*kernel: int, kind: str = "conv", constant: bool = True, **more: Any) -> Operation:
    weight = _facts(64, 64, *kernel, constant=constant)
    return _operation(kind, inputs={"weight": weight}, **more)


def _why(operation: Operation, chip: str = "A15") -> str:
    """Return why an operation stays outside; empty if it does not."""
    found = predict_delegation([operation], chip=chip).non_delegated
    return found[0].reason if found else ""


def _limits(*operations: Operation, **more: Any) -> dict[str, Finding]:
    """Return findings by the first words of what they look at."""
    return {item.what.split(",")[0]: item for item in check_limits(operations, **more)}


def test_the_table_has_every_operator_of_our_graphs() -> None:
    assert [operator for operator in OURS.split() if operator not in RULES] == []


def test_every_rule_says_where_it_is_from_and_why() -> None:
    for operator, rule in RULES.items():
        assert f"\n| `{rule.source}` |" in PAGE, operator
        assert f"`{operator}`" in PAGE
        assert bool(rule.reason) == (rule.taken == "never")
        assert bool(rule.checks) == (rule.taken == "conditions")


def test_every_tag_of_a_reason_and_of_the_page_is_a_source() -> None:
    sources = set(re.findall(r"^\| `([a-z0-9-]+)` \| [^|]*https://", PAGE, re.MULTILINE))
    general = [
        _why(_operation("add", dtype="int32")),
        _why(_operation("add", (1,) * 6)),
        _why(_operation("add", (1, 16385))),
    ]
    assert {re.findall(r"\[([a-z0-9-]+)\]", reason)[0] for reason in general} <= sources
    cited = set(re.findall(r"`((?:guide|ct|coreai|apple)-[a-z0-9]+)`", PAGE))
    assert cited <= sources


@pytest.mark.parametrize("kind", [name for name, rule in RULES.items() if rule.taken == "always"])
def test_what_is_always_taken_is_taken_in_float16_on_every_chip(kind: str) -> None:
    assert [_why(_operation(kind), chip) for chip in GENERATIONS] == [""] * len(GENERATIONS)
    assert "int32" in _why(_operation(kind, dtype="int32"))


@pytest.mark.parametrize("kind", [name for name, rule in RULES.items() if rule.taken == "never"])
def test_what_is_never_taken_stays_outside_on_every_chip(kind: str) -> None:
    assert all(_why(_operation(kind), chip) for chip in GENERATIONS)


@pytest.mark.parametrize(
    ("inside", "outside", "said"),
    [
        (_operation("add", (1, 16384)), _operation("add", (1, 16385)), "1x16385"),
        (_operation("add", (16384, 1)), _operation("add", (16385, 1)), "16384"),
        (_operation("add", (16384,)), _operation("add", (16385,)), "16384"),
        (_operation("add", (65536, 1, 1)), _operation("add", (65537, 1, 1)), "65536"),
        (_operation("add", (1,) * 5), _operation("add", (1,) * 6), "rank 6"),
        (_operation("matmul", (1, 8, 9, 9)), _operation("matmul", (1, 1, 8, 9, 9)), "rank 5"),
        (_operation("linear", (1, 2, 3, 4)), _operation("linear", (1, 1, 2, 3, 4)), "rank 5"),
        (
            _operation("scaled_dot_product_attention", *[(1, 8, 9, 9)] * 3),
            _operation("scaled_dot_product_attention", *[(1, 1, 8, 9, 9)] * 3),
            "rank 5",
        ),
        (_operation("prelu", (1, 2, 3)), _operation("prelu", (2, 3)), "rank 2"),
        (_conv(29, 13), _conv(29, 14), "29x14"),
        (_conv(29, 13), _conv(30, 13), "30x13"),
        (_conv(3, 3, dilations=(8, 8)), _conv(3, 3, dilations=(1, 9)), "dilation is 9"),
        (_conv(3, 3, strides=(5, 5)), _conv(3, 3, constant=False), "weight is no constant"),
        (
            _conv(15, 7, kind="conv_transpose", strides=(2, 2)),
            _conv(16, 7, kind="conv_transpose", strides=(2, 1)),
            "strided axis",
        ),
        (
            _conv(16, 8, kind="conv_transpose", strides=(1, 1)),
            _conv(15, 8, kind="conv_transpose", strides=(1, 2)),
            "the largest is 7",
        ),
        (
            _operation("pixel_shuffle", upscale_factor=8),
            _operation("pixel_shuffle", upscale_factor=5),
            "upscale_factor is 5",
        ),
        (_operation("tile", reps=(1, 4, 1, 8)), _operation("tile", reps=(1, 6, 1, 1)), "6"),
        (_operation("tile", reps=(2, 1, 1, 1)), _operation("tile"), "unknown"),
        (
            _operation("max_pool", kernel_sizes=(29, 29)),
            _operation("max_pool", kernel_sizes=(2, 30)),
            "30 wide",
        ),
        (
            _operation("pad", pad=(0, 0, 0, 0, 1, 1, 2, 2)),
            _operation("pad", pad=(0, 0, 0, 1, 1, 1, 2, 2)),
            "other axes",
        ),
        (
            _operation("pad", pad=(1, 1, 1, 1), mode="constant"),
            _operation("pad", pad=(1, 1, 1, 1), mode="reflect"),
            "reflect",
        ),
    ],
)
def test_conditions_hold_up_to_the_bound_and_no_further(
    inside: Operation, outside: Operation, said: str
) -> None:
    assert _why(inside) == ""
    assert said in _why(outside)


@pytest.mark.parametrize(
    ("operation", "before", "since"),
    [
        (_operation("sin"), "A15", "A16"),
        (_operation("cos"), "M2", "M3"),
        (_operation("resize_bilinear"), "A14", "A15"),
        (_operation("upsample_nearest_neighbor", scale_factor_height=3), "M1", "A15"),
        (_operation("add", (1, 65536)), "A16", "A17"),
        (_conv(3, 15), "M3", "M4"),
    ],
)
def test_newer_engines_take_more(operation: Operation, before: str, since: str) -> None:
    assert _why(operation, before)
    assert _why(operation, since) == ""
    oldest_first = sorted(GENERATIONS, key=lambda chip: GENERATIONS[chip])
    outside = [bool(_why(operation, chip)) for chip in oldest_first]
    assert outside == sorted(outside, reverse=True)


def test_the_first_engine_scales_by_two() -> None:
    by_two = _operation(
        "upsample_nearest_neighbor", scale_factor_height=2.0, scale_factor_width=2.0
    )
    assert _why(by_two, "A14") == ""


@pytest.mark.parametrize(
    ("source", "result", "taken"),
    [
        ("float32", "float16", True),
        ("float16", "float32", True),
        ("bool", "float16", True),
        ("float16", "int32", False),
        ("int32", "float16", False),
        ("int32", "int16", False),
    ],
)
def test_casts_to_and_from_whole_numbers_stay_outside(
    source: str, result: str, taken: bool
) -> None:
    cast = _operation("cast", (2, 3), dtype=source, output=_facts(2, 3, dtype=result))
    assert (_why(cast) == "") == taken


def test_float32_stays_outside_wherever_it_is_computed_in() -> None:
    assert _why(_operation("layer_norm", dtype="float32")).startswith("x0 is float32")


def test_comparisons_give_bool_and_select_takes_it() -> None:
    bools = _facts(2, 3, dtype="bool")
    assert _why(_operation("greater_equal", (2, 3), output=bools)) == ""
    assert _why(_operation("select", (2, 3), inputs={"cond": bools})) == ""
    assert _why(_operation("add", (2, 3), inputs={"y": bools}))


def test_constants_are_asked_for_neither_type_nor_size() -> None:
    table = _facts(200_000, 5, dtype="int32", constant=True)
    assert _why(_operation("mul", (2, 3), inputs={"y": table})) == ""


def test_a_slice_that_depends_on_data_stays_outside() -> None:
    begin = _facts(4, dtype="float16")
    assert _why(_operation("slice_by_index", begin=(0, 1, 0, 0))) == ""
    assert "begin is no constant" in _why(_operation("slice_by_index", inputs={"begin": begin}))


def test_an_unknown_operator_stays_outside() -> None:
    assert _why(_operation("frobnicate")) == "no source says that the Neural Engine takes it"


def test_an_unknown_chip_is_refused() -> None:
    with pytest.raises(ExportError, match="unknown chip 'A12'; known: A14, M1"):
        predict_delegation([], chip="A12")
    with pytest.raises(ExportError, match="unknown chip"):
        check_limits([], chip="")


def test_operations_are_counted_and_constants_are_not() -> None:
    graph = [
        _operation("const", name="w"),
        _operation("constexpr_lut_to_dense", name="p"),
        _operation("gather", name="table"),
        _operation("add", name="sum"),
        _operation("sin", name="wave"),
        _operation("softmax", name="weights"),
    ]
    found = predict_delegation(iter(graph), chip="A15")
    assert (found.delegated, len(found.non_delegated)) == (2, 2)
    assert [(item.operator, item.name) for item in found.non_delegated] == [
        ("gather", "table"),
        ("sin", "wave"),
    ]
    assert all(isinstance(item, NonDelegated) and item.reason for item in found.non_delegated)
    assert found == predict_delegation(graph, chip="A15")


def test_a_graph_without_operations_has_no_nodes_and_no_findings() -> None:
    weight = _operation("const", name="w")
    assert predict_delegation([weight]) == Delegation(delegated=0, basis="rules")
    assert check_limits([weight]) == ()


def test_core_ml_refuses_rank_six() -> None:
    found = _limits(_operation("reshape", (1, 2, 3, 4, 5, 6), name="window"), _operation("add"))
    assert (found["largest rank"].severity, found["largest rank"].value) == ("error", "6")
    assert found["largest rank"].what.endswith("in reshape window")
    assert _limits(_operation("add", (1,) * 5))["largest rank"].severity == "ok"


@pytest.mark.parametrize(
    ("shape", "which", "chip", "severity"),
    [
        ((1, 16384), "longest of the last two axes", "A15", "ok"),
        ((1, 16385), "longest of the last two axes", "A15", "warning"),
        ((1, 16385), "longest of the last two axes", "A17", "ok"),
        ((65537, 1, 1), "longest of the other axes", "A17", "warning"),
        ((65536, 1, 1), "longest of the other axes", "A15", "ok"),
        ((1,), "longest of the other axes", "A15", "ok"),
    ],
)
def test_long_axes_are_warned_of(
    shape: tuple[int, ...], which: str, chip: str, severity: str
) -> None:
    assert _limits(_operation("add", shape), chip=chip)[which].severity == severity


def test_an_operand_larger_than_the_chip_holds_is_told_and_no_more() -> None:
    half = WORKING_SET_BYTES // 2 // 1024
    fits, spills = (
        _limits(_operation("add", (1, rows, 1024)))["largest operand"] for rows in (half, half + 1)
    )
    assert (fits.severity, fits.next_step) == ("ok", "")
    assert spills.severity == "ok"
    assert "main memory" in spills.next_step


def test_weights_beyond_a_chunk_are_warned_of() -> None:
    weight = _facts(1000, 1000, constant=True)
    layer = _operation("linear", (1, 8, 1000), inputs={"weight": weight})
    assert _limits(layer)["weights of the graph"].value == "1.9 MiB"
    assert _limits(layer, weight_bytes=CHUNK_BYTES)["weights of the graph"].severity == "ok"
    above = _limits(layer, weight_bytes=CHUNK_BYTES + 1)["weights of the graph"]
    assert above.severity == "warning"
    assert "cut the graph" in above.next_step


@pytest.mark.parametrize(
    ("constants", "chip", "warned"),
    [
        ({"begin": (0, 0, 0, 8)}, "A15", True),
        ({"begin": (0, 0, 0, 8)}, "A16", False),
        ({"begin": (0, 8, 8, 0)}, "A15", False),
        ({"begin": (0, 0, 0, 8), "begin_mask": (True, True, True, True)}, "A15", False),
        ({"begin": (0, 0, 0, -1), "begin_mask": (False,) * 4}, "M1", True),
        ({}, "A15", False),
    ],
)
def test_slices_within_the_last_axis_are_warned_of(
    constants: dict[str, Any], chip: str, warned: bool
) -> None:
    found = check_limits([_operation("slice_by_index", **constants)], chip=chip)
    assert any("4094" in item.limit for item in found) == warned


def test_findings_are_the_same_every_time() -> None:
    graph = [_operation("add", name="a"), _operation("mul", name="b"), _conv(3, 3, name="c")]
    assert check_limits(graph) == check_limits(iter(graph))
