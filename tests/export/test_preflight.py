"""Limits, on costs made up to meet them; no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from mvsdk.devices import find_chipset
from mvsdk.manifest import Precision
from mvsdk_export.errors import ExportError
from mvsdk_export.families import find_recipe
from mvsdk_export.findings import Finding, check_findings
from mvsdk_export.planning.preflight import (
    preflight_costs,
    preflight_request,
)

STICKER = find_recipe("sticker")
LONGER = replace(STICKER, frame_range=(4, 16))
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class _Costs:
    """The part of ComponentCosts that limits look at."""

    component: str
    parameters: int
    frames: int = 2
    working_set: int = 1
    hungriest_operator: str = "aten.add.Tensor"
    activation_peak_bytes: dict[Precision, int] = field(
        default_factory=lambda: {"fp32": 0, "fp16": 0, "w8a16": 0}
    )

    @property
    def weight_bytes(self) -> dict[Precision, int]:
        n = self.parameters
        return {"fp32": 4 * n, "fp16": 2 * n, "w8a16": n}

    @property
    def working_set_bytes(self) -> dict[Precision, int]:
        return {"fp32": 2 * self.working_set, "fp16": self.working_set, "w8a16": self.working_set}


def _request(**changes: Any) -> dict[str, Finding]:
    asked: dict[str, Any] = {
        "recipe": STICKER,
        "num_frames": 8,
        "height": 64,
        "width": 64,
        "steps": (1, 2, 4),
        "chips": (find_chipset("sm8650"),),
    }
    return {item.what: item for item in preflight_request(**(asked | changes))}


def _limits(
    *costs: _Costs, precisions: tuple[Precision, ...] = ("w8a16",), chip: str = "sm8650"
) -> dict[str, Finding]:
    found = preflight_costs(cast("Any", costs), precisions=precisions, chips=[find_chipset(chip)])
    return {item.what: item for item in found}


def test_recipes_own_request_is_fine() -> None:
    found = _request()
    assert {item.severity for item in found.values()} == {"ok"}
    check_findings(list(found.values()))


@pytest.mark.parametrize(
    ("change", "what", "advice"),
    [
        ({"num_frames": 7}, "frames", "use --frames 8"),
        ({"num_frames": 9}, "frames", "use --frames 8"),
        ({"recipe": LONGER, "num_frames": 3}, "frames", "use --frames 4"),
        ({"recipe": LONGER, "num_frames": 17}, "frames", "use --frames 16"),
        ({"height": 50}, "height", "use --height 48"),
        ({"height": 0}, "height", "use --height 32"),
        ({"width": 160}, "width", "use --width 128"),
        ({"width": -64}, "width", "use --width 32"),
        ({"steps": (4, 0)}, "steps", "use --steps 1,2,4"),
        ({"steps": (1001,)}, "steps", "use --steps 1,2,4"),
        ({"steps": ()}, "steps", "use --steps 1,2,4"),
        ({"decode_frames": 3}, "frames decoded at once", "use --decode-frames 2"),
        ({"decode_frames": 0}, "frames decoded at once", "use --decode-frames 1"),
        ({"decode_frames": 16}, "frames decoded at once", "use --decode-frames 8"),
        ({"num_frames": 10**20, "decode_frames": 7}, "frames", "use --frames 8"),
        ({"steps": tuple(range(1, 66))}, "steps", "use --steps 1,2,4"),
    ],
)
def test_impossible_request_is_an_error_with_a_way_out(
    change: dict[str, Any], what: str, advice: str
) -> None:
    found = _request(**change)
    assert [item.what for item in found.values() if item.severity == "error"] == [what]
    assert advice in found[what].next_step
    with pytest.raises(ExportError, match=f"^{what} is .*, allowed: .*; "):
        check_findings(list(found.values()))


@pytest.mark.parametrize("at_once", [1, 2, 4, 8])
def test_clips_are_decoded_in_equal_parts(at_once: int) -> None:
    finding = _request(decode_frames=at_once)["frames decoded at once"]
    assert (finding.severity, finding.limit) == ("ok", "1, 2, 4, 8: equal parts of 8")


def test_unusual_request_is_a_warning() -> None:
    assert _request(steps=(1, 8))["steps"].severity == "warning"
    assert _request(chips=(find_chipset("qcm6490"),))["chip"].severity == "warning"
    check_findings(list(_request(steps=(8,)).values()))


def test_further_errors_are_counted() -> None:
    found = _request(num_frames=3, height=1, width=1)
    with pytest.raises(ExportError, match=r"frames is 3, .* \(and 2 more, see mvsdk plan\)"):
        check_findings(list(found.values()))


def test_small_graphs_meet_no_limit() -> None:
    found = _limits(_Costs(component="transformer", parameters=10**7))
    assert {item.severity for item in found.values()} == {"ok"}
    assert {item.next_step for item in found.values()} == {""}


def test_graphs_beyond_the_process_limit_must_be_loaded_in_turn() -> None:
    names = ("transformer", "vae_decoder")
    parts = [_Costs(component=name, parameters=1_800_000_000) for name in names]
    finding = _limits(*parts)["all graphs in one process at w8a16"]
    assert (finding.severity, finding.limit) == ("warning", "3.5 GB (HTP)")
    assert "--memory low" in finding.next_step


def test_graph_beyond_the_process_limit_alone_is_an_error() -> None:
    found = _limits(
        _Costs(component="transformer", parameters=1_800_000_000), precisions=("fp16", "w8a16")
    )
    assert found["all graphs in one process at fp16"].severity == "error"
    assert "transformer alone is too large" in found["all graphs in one process at fp16"].next_step
    assert found["all graphs in one process at w8a16"].severity == "ok"


def test_decoder_that_is_too_large_can_be_called_more_often_or_replaced() -> None:
    peaks: dict[Precision, int] = {"fp32": 0, "fp16": 4 * GIB, "w8a16": 0}
    part = _Costs(component="vae_decoder", parameters=1, activation_peak_bytes=peaks)
    found = _limits(part, precisions=("fp16",))
    for what in ("all graphs in one process at fp16", "largest graph, vae_decoder at fp16"):
        assert found[what].severity != "ok"
        assert "--decode-frames" in found[what].next_step
        assert "--decoder" in found[what].next_step


def test_activations_count_towards_the_limits() -> None:
    part = _Costs(
        component="transformer",
        parameters=1,
        activation_peak_bytes={"fp32": 0, "fp16": 0, "w8a16": 4 * GIB},
    )
    assert _limits(part)["all graphs in one process at w8a16"].severity == "error"


def test_graph_above_two_gib_may_be_refused() -> None:
    peaks: dict[Precision, int] = {"fp32": 0, "fp16": 0, "w8a16": 2 * GIB}
    finding = _limits(_Costs(component="transformer", parameters=1, activation_peak_bytes=peaks))
    assert finding["largest graph, transformer at w8a16"].severity == "warning"


def test_component_above_the_limit_is_cut_into_parts_of_equal_weight() -> None:
    costs = _Costs(component="unet", parameters=GIB), _Costs(component="vae_decoder", parameters=1)
    found = _limits(*costs, precisions=("fp32", "fp16"))
    finding = found["parts that unet is cut into"]
    assert (finding.severity, finding.value[0], finding.limit) == ("ok", "3", "1.5 GiB each")
    assert found["largest graph, a part of unet at fp16"].value == "682.7 MiB"
    assert "parts that unet is cut into" not in _limits(*costs, precisions=("fp32",))
    assert not any("vae_decoder" in what for what in found if "parts" in what)


@pytest.mark.parametrize(("parameters", "severity"), [(GIB // 2 - 1, "ok"), (GIB // 2, "warning")])
def test_weights_above_the_protobuf_limit_need_external_data(
    parameters: int, severity: str
) -> None:
    found = _limits(_Costs(component="transformer", parameters=parameters))
    finding = found["largest ONNX file, transformer at fp32"]
    assert finding.severity == severity
    assert ("external data" in finding.next_step) == (severity == "warning")


@pytest.mark.parametrize(("chip", "severity"), [("sm8650", "ok"), ("qcm6490", "warning")])
def test_operator_is_compared_with_the_memory_of_the_chip(chip: str, severity: str) -> None:
    part = _Costs(component="transformer", parameters=1, working_set=4 << 20)
    finding = _limits(part, chip=chip)["largest operator, in transformer at w8a16"]
    assert finding.severity == severity
    assert chip in finding.limit


def test_float32_is_not_compared_with_the_npu() -> None:
    found = _limits(_Costs(component="transformer", parameters=10**12), precisions=("fp32",))
    assert list(found) == ["largest ONNX file, transformer at fp32"]
