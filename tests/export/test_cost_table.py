"""MobileVD's cost table: the paper's figures against ours."""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from mvsdk.errors import InputError  # noqa: E402 - after the check for torch
from mvsdk_export.commands.plan import PLAN  # noqa: E402
from mvsdk_export.commands.plan_table import cost_table_to_text  # noqa: E402
from mvsdk_export.compress.cost_table import (  # noqa: E402
    HEADLINE_AFTER_TFLOPS,
    HEADLINE_BEFORE_TFLOPS,
    HEADLINE_FACTOR,
    LOW,
    CostRow,
    CostTable,
    build_cost_table,
)
from mvsdk_export.compress.counting import count_unet  # noqa: E402
from mvsdk_export.compress.reports import measure_costs  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNetConfig  # noqa: E402

DOCUMENT = Path(__file__).parents[2] / "docs" / "mobilevd.md"
LEVELS = "frames halved inside"
SPACE = "height and width halved inside"


@pytest.fixture(scope="module")
def costs() -> CostTable:
    return build_cost_table()


def _plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    PLAN.add_arguments(parser)
    return PLAN.run(parser.parse_args(arguments)), capsys.readouterr().out


def _compared(costs: CostTable) -> list[CostRow]:
    """Return the rows that are reconstructed and have a figure of the paper."""
    titles = costs.ablations.keys() - {LEVELS, SPACE}
    varied = [row for title in titles for row in costs.ablations[title]]
    return [row for row in (*costs.steps, *varied) if row.paper_tflops is not None]


def test_every_row_at_512x256_is_within_2_5_percent_of_the_paper(costs: CostTable) -> None:
    rows = [row for row in _compared(costs) if row.size == LOW]
    assert len(rows) == 7 + 4 + 2 + 2
    far = {row.name: row.difference for row in rows if abs(row.difference or 0.0) > 0.025}
    assert far == {}


@pytest.mark.parametrize("latent_size", [(32, 64), (8, 8)])
def test_blocks_that_are_counted_once_add_up(latent_size: tuple[int, int]) -> None:
    config = SVDUNetConfig(
        folded_cross_attention=True,
        frame_levels=1,
        temporal_blocks="01" * 19,
        funnel_factor=0.5,
    )
    count, costs = count_unet(config, latent_size), measure_costs(config, latent_size)
    assert (count.parameters, count.flops) == (costs.parameters, costs.flops)


def test_rows_at_1024x576_are_as_near_as_the_document_says(costs: CostTable) -> None:
    first, *_, last = costs.steps
    assert abs(first.difference or 1.0) < 0.025
    assert -0.045 < (last.difference or 0.0) < -0.04  # which blocks were pruned is not published


def test_steps_are_those_of_the_paper(costs: CostTable) -> None:
    assert [row.paper_tflops for row in costs.steps] == [
        *(45.43, 8.60, 8.60, 8.24, 8.24, 5.42, 4.64, 4.34, 23.63)
    ]
    assert [row.evaluations for row in costs.steps] == [50] * 4 + [1] * 5


def test_each_step_takes_no_more_than_the_one_before(costs: CostTable) -> None:
    for before, after in pairwise(costs.steps[:-1]):
        assert after.total_flops <= before.total_flops
        assert after.parameters <= before.parameters
    assert costs.steps[0].parameters == 1_524_623_082
    assert costs.steps[-1].parameters == costs.steps[-2].parameters


def test_finetuning_changes_no_cost_of_an_evaluation(costs: CostTable) -> None:
    rows = {row.name: row for row in costs.steps}
    for name, before in (
        ("+ low-resolution finetuning", "SVD 512x256"),
        ("+ adversarial finetuning", "+ optimized cross-attention"),
    ):
        assert rows[name].flops == rows[before].flops
        assert rows[name].parameters == rows[before].parameters


def test_both_headlines_of_the_paper_are_explained(costs: CostTable) -> None:
    first, final = costs.steps[0], costs.steps[-2]
    assert round(costs.paper_reduction(final) or 0.0) == HEADLINE_FACTOR
    assert final.paper_tflops == HEADLINE_AFTER_TFLOPS
    assert pytest.approx(HEADLINE_BEFORE_TFLOPS) == 40 * (first.paper_tflops or 0.0)
    assert 500 < costs.reduction(final) < HEADLINE_FACTOR


def test_funnels_save_in_proportion_to_their_factor(costs: CostTable) -> None:
    """Every product of a self-attention has the width of its heads as one of its sizes."""
    for rows in (rows for title, rows in costs.ablations.items() if title.startswith("funnels")):
        flops = [after.flops - before.flops for before, after in pairwise(rows)]
        parameters = [after.parameters - before.parameters for before, after in pairwise(rows)]
        assert len(set(flops)) == len(set(parameters)) == 1
        assert flops[0] > 0 < parameters[0]


def test_only_one_level_to_halve_frames_at_is_near_the_paper(costs: CostTable) -> None:
    near = [row.basis for row in costs.ablations[LEVELS] if abs(row.difference or 1.0) < 0.2]
    assert near == ["inferred from the FLOPs"]


def test_space_alone_is_far_from_the_paper(costs: CostTable) -> None:
    """One rule meets one figure and misses the other, so the table calls it no reconstruction."""
    alone, both = costs.ablations[SPACE]
    assert abs(both.difference or 1.0) < 0.025 < abs(alone.difference or 0.0)
    assert all(row.basis.startswith("not reconstructed") for row in (alone, both))


def test_whole_clips_count_every_network(costs: CostTable) -> None:
    clips = {clip.name: {part.component: part for part in clip.parts} for clip in costs.clips}
    mobile = clips["MobileVD 512x256"]
    assert list(mobile) == ["image_encoder", "vae_encoder", "unet", "vae_decoder"]
    assert mobile["vae_decoder"].flops / 1e12 == pytest.approx(21.18, abs=0.01)
    assert mobile["vae_encoder"].flops / 1e12 == pytest.approx(0.55, abs=0.01)
    assert mobile["vae_encoder"].parameters + mobile["vae_decoder"].parameters == 97_742_847
    assert mobile["unet"].flops == costs.steps[-2].flops
    assert clips["SVD 1024x576"]["unet"].runs == 50
    for clip in costs.clips:
        assert clip.total_flops == sum(part.flops * part.runs for part in clip.parts)


def test_json_has_what_the_text_has(costs: CostTable, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = _plan(capsys, "--recipe", "mobilevd", "--table", "--json")
    document = json.loads(out)
    assert status == 0
    assert [row["flops"] for row in document["steps"]] == [row.flops for row in costs.steps]
    assert list(document["ablations"]) == list(costs.ablations)
    assert document["ablations"]["funnels in all self-attention of SVD"][0]["paper_tflops"] is None
    assert document["clips"][2]["clip_flops"] == costs.clips[2].total_flops
    assert document["headline"]["paper_factor"] == 523


def test_document_shows_what_the_command_prints(
    costs: CostTable, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = _plan(capsys, "--model", "mobilevd", "--table")
    assert status == 0
    assert out == cost_table_to_text(costs) + "\n"
    assert out in DOCUMENT.read_text("utf-8"), "put what the command prints into docs/mobilevd.md"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"^--table has no paper to show for the model 'sticker'; use it with --recipe mob"),
        (["--recipe", "mobilevd", "--steps", "4"], r"^--table takes no --steps: its rows are "),
        (["--model", "mobilevd", "--height", "64"], r"^--table takes no --height: "),
    ],
)
def test_what_the_table_cannot_show_is_one_line(arguments: list[str], message: str) -> None:
    parser = argparse.ArgumentParser()
    PLAN.add_arguments(parser)
    with pytest.raises(InputError, match=message) as caught:
        PLAN.run(parser.parse_args(["--table", *arguments]))
    assert "\n" not in str(caught.value)


def test_plan_of_a_model_without_shipped_weights_takes_the_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out = _plan(
        capsys,
        *("--recipe", "mobilevd", "--frames", "2", "--height", "64", "--width", "64"),
        *("--precision", "w8a16", "--json"),
    )
    plan = json.loads(out)
    assert status == 0
    assert (plan["model"], plan["configuration"]) == ("mobilevd", "defaults")
    assert plan["components"]["unet"]["parameters"] == 1_524_623_082
    assert list(plan["components"]) == ["image_encoder", "vae_encoder", "unet", "vae_decoder"]
