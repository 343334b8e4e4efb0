"""What all transforms of the denoiser have in common, and whole compressions."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")

import torch  # noqa: E402
from comparing import count_parameters, relative_error  # noqa: E402
from compressing import (  # noqa: E402
    BLOCKS,
    SIZE,
    SMALL,
    TRANSFORMS,
    Transform,
    fold,
    funnel,
    halve,
    run_flops,
    run_unet,
)

from mvsdk_export.compress.chain import compress_unet, plan_compression  # noqa: E402
from mvsdk_export.compress.importance import Importance  # noqa: E402
from mvsdk_export.compress.pruning import prune_temporal, report_pruning  # noqa: E402
from mvsdk_export.compress.recipe import (  # noqa: E402
    MOBILEVD,
    STEPS,
    find_compression,
    read_compression_steps,
)
from mvsdk_export.compress.reports import measure_costs, measure_temporal_blocks  # noqa: E402
from mvsdk_export.errors import CompressionError  # noqa: E402
from mvsdk_export.families.svd.config import SVDUNetConfig  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNet  # noqa: E402


@pytest.fixture(params=TRANSFORMS)
def transform(request: pytest.FixtureRequest) -> Transform:
    """Return each transform in turn."""
    return TRANSFORMS[request.param]


def test_the_given_network_stays_as_it_is(unet: SVDUNet, transform: Transform) -> None:
    state = {name: value.clone() for name, value in unet.state_dict().items()}
    output = run_unet(unet)
    other, _ = transform(unet)
    assert unet.config == SMALL
    assert other.config != SMALL
    assert unet.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in unet.state_dict().items())
    assert torch.equal(run_unet(unet), output)


def test_configuration_and_state_dict_are_all_of_a_network(
    unet: SVDUNet, transform: Transform
) -> None:
    other, _ = transform(unet)
    again = SVDUNet(other.config).eval()
    again.load_state_dict(other.state_dict())
    assert torch.equal(run_unet(again), run_unet(other))


def test_weights_that_stay_are_shared(unet: SVDUNet, transform: Transform) -> None:
    other, _ = transform(unet)
    before, after = unet.state_dict(), other.state_dict()
    same = [name for name, value in after.items() if before[name].shape == value.shape]
    assert all(before[name].data_ptr() == after[name].data_ptr() for name in same)
    assert other.conv_in.weight is not unet.conv_in.weight  # each has a gradient of its own
    assert not other.training
    assert transform(unet.train())[0].training


def test_reports_say_what_counting_says(unet: SVDUNet, transform: Transform) -> None:
    other, report = transform(unet)
    assert (report.before.parameters, report.before.flops) == (
        count_parameters(unet),
        run_flops(unet),
    )
    assert (report.after.parameters, report.after.flops) == (
        count_parameters(other),
        run_flops(other),
    )
    assert report.after.flops < report.before.flops
    assert report.config == other.config
    assert report.latent_size == SIZE
    json.dumps(report.to_json())


def test_nothing_is_done_twice(unet: SVDUNet, transform: Transform) -> None:
    other, report = transform(unet)
    with pytest.raises(CompressionError, match=rf"already; leave the step {report.step} out"):
        transform(other)


def test_transforms_go_in_any_order(unet: SVDUNet) -> None:
    forth, back = unet, unet
    for transform in TRANSFORMS.values():
        forth, _ = transform(forth)
    keep = [n for n, b in forth.temporal_blocks().items() if not b.is_pruned]
    for transform in (funnel, lambda x: prune_temporal(x, keep), halve, fold):
        back, _ = transform(back)
    assert forth.config == back.config
    assert relative_error(run_unet(back), run_unet(forth)) < 1e-5


def test_costs_are_those_of_running_the_network(unet: SVDUNet) -> None:
    costs = measure_costs(SMALL, SIZE)
    assert (costs.parameters, costs.flops) == (count_parameters(unet), run_flops(unet))
    image, _ = prune_temporal(unet, 0, latent_size=SIZE)
    temporal = sum(measure_temporal_blocks(SMALL, SIZE).values())
    assert temporal == costs.flops - run_flops(image)
    assert set(measure_temporal_blocks(image.config, SIZE).values()) == {0}


def test_a_network_that_cannot_run_is_one_line() -> None:
    with pytest.raises(CompressionError, match="cannot run on 4 frames of latents 0 x 0: ") as info:
        measure_costs(SMALL, (0, 0))
    assert "\n" not in str(info.value)


def test_a_plan_says_what_a_compression_does(unet: SVDUNet) -> None:
    compressed, reports = compress_unet(unet, MOBILEVD, latent_size=SIZE)
    assert [report.step for report in reports] == list(STEPS)
    plan = plan_compression(SMALL, MOBILEVD, latent_size=SIZE)
    assert plan == tuple(replace(report, fidelity=()) for report in reports)
    assert reports[-1].config == compressed.config
    assert reports[-1].after.parameters == count_parameters(compressed)
    assert reports[-1].after.flops == run_flops(compressed)
    for report, following in pairwise(reports):
        assert report.after == following.before
    assert torch.isfinite(run_unet(compressed)).all()


@pytest.mark.slow
def test_the_chain_of_the_paper_has_its_figures() -> None:
    """FLOPs of one evaluation at 14 x 32 x 64, TFLOPs: see docs/mobilevd.md for all of them."""
    reports = plan_compression(SVDUNetConfig(), MOBILEVD)
    assert reports[0].before.parameters == 1_524_623_082
    paper = [8.24, 5.42, 4.64, 4.34]
    assert [r.after.flops / 1e12 for r in reports] == pytest.approx(paper, rel=0.025)
    assert reports[2].what == "11 of 38 temporal blocks stay"
    assert reports[3].what.endswith(": 64 to 32 channels")


def test_settings_reach_their_steps(unet: SVDUNet) -> None:
    recipe = replace(
        MOBILEVD, steps=("prune", "funnels"), keep=2, funnel_factor=0.25, funnel_layers="all"
    )
    scores = {name: float(index) for index, name in enumerate(unet.temporal_blocks())}
    importance = Importance(recipe="mobilevd", keep=7, scores=scores)
    network, _ = compress_unet(unet, recipe, importance=importance, latent_size=SIZE)
    config = network.config
    assert config.temporal_blocks == "0" * (BLOCKS - 2) + "11"
    assert (config.funnel_factor, config.funnel_layers) == (0.25, "all")
    assert not config.folded_cross_attention
    (report,) = plan_compression(
        SMALL, replace(recipe, steps=("prune",), keep=None), importance=importance
    )
    assert report.config.temporal_blocks == "0" * (BLOCKS - 7) + "1" * 7
    assert report == report_pruning(SMALL, importance)


def test_names_of_compressions_and_steps_are_checked() -> None:
    assert find_compression("mobilevd") is MOBILEVD
    with pytest.raises(CompressionError, match="unknown compression 'tiny'; known: mobilevd"):
        find_compression("tiny")
    assert read_compression_steps("prune, fold") == ("fold", "prune")
    assert [MOBILEVD.kept(38), MOBILEVD.kept(24)] == [11, 7]
