"""The measurement of forms: on Qualcomm's compiler and emulator, and when these crash or hang."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dying_trials
import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("onnxscript", reason="needs the extra export")

from benchmarks import npu_forms  # noqa: E402
from benchmarks.npu_forms import measure_form, run_in_child  # noqa: E402
from benchmarks.npu_forms_table import (  # noqa: E402
    BEGIN,
    END,
    Environment,
    Record,
    draw,
    read_records,
    to_json,
    update_document,
)
from benchmarks.npu_subjects import LARGE_LAYERS, LAYERS, Size, Subject, build_subject  # noqa: E402
from mvsdk_export.layers.blocks import SiLU  # noqa: E402
from mvsdk_export.layers.selection import implementation_of  # noqa: E402

DOCUMENT = Path(__file__).parents[2] / "docs" / "npu_forms.md"
FLOORS_DB = {"w8a16": 35.0, "fp16": 45.0}
ENVIRONMENT = Environment(chip="sm8650", machine="a machine", packages={"qnn": "1"}, limit_s=5)

EMULATED = platform.machine().lower() in ("x86_64", "amd64")
on_emulator = [
    pytest.mark.qnn,
    pytest.mark.skipif(
        importlib.util.find_spec("onnxruntime_qnn") is None, reason="needs the extra snapdragon"
    ),
    pytest.mark.skipif(not EMULATED, reason="compiles for the emulator"),
]


def _applied(marks: list[Any]) -> Callable[[Any], Any]:
    def mark(test: Any) -> Any:
        for one in marks:
            test = one(test)
        return test

    return mark


@_applied(on_emulator)
def test_a_form_is_compiled_into_one_context_and_its_error_measured() -> None:
    records = list(
        measure_form(
            "group_norm", "layer_norm", "2x32x2x2", tuple(FLOORS_DB), chip="sm8650", limit_s=120
        )
    )
    assert [record.precision for record in records] == list(FLOORS_DB)
    for record in records:
        assert record.failure is None
        assert (record.ep_context_nodes, record.non_delegated) == (1, ())
        assert record.context_bytes is not None
        assert record.context_bytes > 10_000
        assert (record.spill_bytes, record.ddr_bytes) == (0, 0)
        assert record.prepare_cpu_s is not None
        assert 0 < record.prepare_cpu_s < 60
        assert record.emulator_cpu_s is not None
        assert record.sqnr_db is not None
        assert FLOORS_DB[record.precision] < record.sqnr_db < 120


@_applied(on_emulator)
@pytest.mark.parametrize("size", ["8x32x8x8", "8x128x4x4"])
def test_float16_has_a_form_of_the_activation_that_stays_precise_behind_a_convolution(
    size: str,
) -> None:
    """The compiler takes sigmoids together with a convolution, and then computes them coarsely."""
    (record,) = measure_form(
        *("activation_behind_convolution", implementation_of(SiLU, "htp_fp16"), size, ["fp16"]),
        chip="sm8650",
        limit_s=120,
    )
    assert record.sqnr_db is not None
    assert record.sqnr_db > 60.0


@_applied(on_emulator)
def test_error_is_the_one_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against twice the true output the signal-to-noise ratio is 20 log10(2) dB."""
    reference = Subject.reference
    monkeypatch.setattr(Subject, "reference", lambda self: 2 * reference(self))
    (record,) = measure_form("activation", "tanh", "1x32x2x2", ["fp16"], chip="sm8650", limit_s=120)
    assert record.sqnr_db == pytest.approx(6.02, abs=0.05)


def test_child_hands_back_everything_it_sends() -> None:
    found, failure = run_in_child(dying_trials.succeed, 2.5, limit_s=60)
    assert found == {"prepare_cpu_s": 2.5, "sqnr_db": 40.0}
    assert failure is None


def test_crash_keeps_what_was_found_before_it() -> None:
    found, failure = run_in_child(dying_trials.abort, limit_s=60)
    assert found == {"prepare_cpu_s": 1.5}
    assert failure == "emulator: exit code -6 (SIGABRT)"


def test_message_of_a_refusal_is_its_first_line() -> None:
    assert run_in_child(dying_trials.refuse, limit_s=60) == ({}, "compiler: no such operator")


def test_child_that_computes_without_end_is_stopped_by_its_processor_time() -> None:
    assert run_in_child(dying_trials.loop, limit_s=1) == ({}, "compiler: did not finish in 1 s")


def test_child_that_waits_without_end_is_stopped_too() -> None:
    found, failure = run_in_child(dying_trials.wait, limit_s=60, patience_s=0.5)
    assert found == {}
    assert failure is not None
    assert failure.endswith("waited for 0.5 s")


def test_crashed_trial_is_a_record_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npu_forms, "compile_and_run", dying_trials.abort)
    monkeypatch.setattr(npu_forms, "_export", lambda subject, path: None)  # takes seconds
    (record,) = measure_form("activation", "tanh", "1x32x1x1", ["fp16"], chip="sm8650", limit_s=60)
    assert record.failure == "emulator: exit code -6 (SIGABRT)"
    assert record.sqnr_db is None
    text = draw([record], ENVIRONMENT, {"activation": "tanh"})
    assert "| 1x32x1x1 | **tanh** | 1.50 |  |  | failed |" in text
    assert "* 1x32x1x1 tanh fp16: emulator: exit code -6 (SIGABRT)" in text


def _record(form: str = "a", precision: str = "fp16", **figures: Any) -> Record:
    return Record(layer="l", form=form, size="1x32x1x1", precision=precision, **figures)


def test_memory_has_columns_where_the_compiler_told_it() -> None:
    told = _record(context_bytes=2048, spill_bytes=4096, ddr_bytes=0, sqnr_db=50.0)
    older = _record("b", context_bytes=1024)
    text = draw([told, older], ENVIRONMENT, {})
    assert "| fp16 KB | fp16 spill KB | fp16 DDR KB |" in text
    assert "| 1x32x1x1 | a |  | 2 | 4 | 0 |  | 50.0 |" in text
    assert "| 1x32x1x1 | b |  | 1 |  |  |  |  |" in text
    assert "spill" not in draw([older], ENVIRONMENT, {})


def test_records_survive_json_and_the_last_of_a_trial_counts(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    old, other = _record(sqnr_db=1.0), _record("b", non_delegated=("Softmax",), ep_context_nodes=2)
    new = _record(sqnr_db=2.0)
    path.write_text("\n".join(to_json(record, ENVIRONMENT) for record in (old, other, new)))
    assert read_records(path) == (ENVIRONMENT, [new, other])


def test_records_of_different_tools_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    newer = Environment(chip="sm8650", machine="a machine", packages={"qnn": "2"}, limit_s=5)
    lines = [to_json(_record(), ENVIRONMENT), to_json(_record("b"), newer)]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="mixes environments"):
        read_records(path)


def test_operators_left_outside_are_named() -> None:
    whole = _record(ep_context_nodes=1)
    split = _record("b", ep_context_nodes=2, non_delegated=("Softmax",))
    text = draw([whole, split], ENVIRONMENT, {})
    assert "1 of 2 compiled graphs are one EPContext node" in text
    assert "l b 1x32x1x1 fp16: 2 and outside them Softmax" in text


def test_document_changes_between_its_markers_only(tmp_path: Path) -> None:
    path = tmp_path / "document.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update_document(path, "new")
    assert path.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    path.write_text("no markers")
    with pytest.raises(ValueError, match="lacks the lines"):
        update_document(path, "new")
    assert path.read_text() == "no markers"


@pytest.mark.parametrize("text", ["8x128x4", "8x100x4x4", "0x32x1x1", "8x128x4x4x4", "-1x32x1x1"])
def test_size_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"wanted FxCxHxW|allowed: multiples of 32"):
        Size.parse(text)


@pytest.mark.parametrize("layer", [*LAYERS, *LARGE_LAYERS])
def test_all_forms_of_a_layer_are_measured_on_the_same_function(layer: str) -> None:
    if layer in ("convolution", "matrix_product"):
        pytest.skip("compares different layers on purpose")
    size = Size.parse("3x64x2x2")
    forms = {**LAYERS, **LARGE_LAYERS}[layer].forms
    outputs = [build_subject(layer, form, size).reference() for form in forms]
    for output in outputs[1:]:
        assert abs(output - outputs[0]).max() < 1e-4 * abs(outputs[0]).max()


def test_document_has_a_row_for_every_form_and_says_which_is_chosen() -> None:
    """A form that was added, or chosen, without measuring it makes the document stale."""
    text = DOCUMENT.read_text(encoding="utf-8")
    tables = text[text.index(BEGIN) : text.index(END)].split("### ")
    rows = {table.partition("\n")[0]: table for table in tables[1:]}
    assert rows.keys() == LAYERS.keys()
    for name, layer in LAYERS.items():
        for size in npu_forms.SIZES:
            for form in layer.forms:
                shown = f"**{form}**" if form == layer.chosen else form
                assert f"| {size} | {shown} |" in rows[name], (name, size, form)
