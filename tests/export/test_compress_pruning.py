"""Temporal blocks that stay and temporal blocks that go."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")

import torch  # noqa: E402
from comparing import relative_error  # noqa: E402
from compressing import BLOCKS, CLIPS, FRAMES, SIZE, SMALL, make_inputs, run_unet  # noqa: E402

from mvsdk_export.compress.importance import Importance  # noqa: E402
from mvsdk_export.compress.pruning import prune_temporal, report_pruning  # noqa: E402
from mvsdk_export.compress.reports import measure_temporal_blocks  # noqa: E402
from mvsdk_export.errors import CompressionError  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNet  # noqa: E402


def test_blocks_that_are_named_stay_and_the_others_go(unet: SVDUNet) -> None:
    keep = ["up_blocks.3.attentions.1", "mid_block.resnets.0"]
    pruned, report = prune_temporal(unet, keep, latent_size=SIZE)
    left = [name for name, block in pruned.temporal_blocks().items() if not block.is_pruned]
    assert sorted(left) == sorted(keep)
    assert set(report.dropped) == unet.temporal_blocks().keys() - set(keep)
    gated, _ = prune_temporal(unet, list(unet.temporal_blocks()), latent_size=SIZE)
    assert gated.config.temporal_blocks == "all"
    for name, block in gated.temporal_blocks().items():
        block.gate = torch.tensor(float(name in keep))
    assert relative_error(run_unet(pruned), run_unet(gated)) < 1e-6


def test_without_temporal_blocks_every_frame_is_an_image_of_its_own(unet: SVDUNet) -> None:
    sample, *others = make_inputs()
    order = torch.tensor([2, 0, 3, 1, *(FRAMES + torch.tensor([1, 3, 0, 2]))])
    image, _ = prune_temporal(unet, 0, latent_size=SIZE)
    output = run_unet(image, (sample, *others))
    assert relative_error(run_unet(image, (sample[order], *others)), output[order]) < 1e-5
    sample[1] += 1
    changed = (run_unet(image, (sample, *others)) - output).abs().amax(dim=(1, 2, 3))
    assert [float(x) > 0 for x in changed] == [i == 1 for i in range(CLIPS * FRAMES)]
    for block in unet.temporal_blocks().values():
        block.gate = torch.tensor(0.0)
    assert (
        relative_error(run_unet(unet, (sample, *others)), run_unet(image, (sample, *others))) < 1e-6
    )


def test_frames_mix_where_temporal_blocks_stay(unet: SVDUNet) -> None:
    sample, *others = make_inputs()
    output = run_unet(unet, (sample, *others))
    sample[1] += 1
    changed = (run_unet(unet, (sample, *others)) - output).abs().amax(dim=(1, 2, 3))
    assert [float(x) > 0 for x in changed] == [i < FRAMES for i in range(CLIPS * FRAMES)]


def test_a_number_keeps_the_costliest_blocks(unet: SVDUNet) -> None:
    costs = measure_temporal_blocks(SMALL)
    assert list(costs) == list(unet.temporal_blocks())
    _, report = prune_temporal(unet, 5, latent_size=SIZE)
    kept = costs.keys() - set(report.dropped)
    assert len(kept) == 5
    assert min(costs[name] for name in kept) >= max(costs[name] for name in report.dropped)
    costs = measure_temporal_blocks(SMALL, SIZE)
    saved = sum(costs[name] for name in report.dropped)
    assert report.before.flops - report.after.flops == saved
    assert report.what == f"5 of {BLOCKS} temporal blocks stay"


def test_among_blocks_that_cost_the_same_the_earlier_stays() -> None:
    costs = measure_temporal_blocks(SMALL)
    order = sorted(costs, key=lambda name: (-costs[name], list(costs).index(name)))
    for keep in range(BLOCKS + 1):
        report = report_pruning(SMALL, keep)
        assert set(report.dropped) == set(order[keep:])
        assert report.exact == (keep == BLOCKS)


@pytest.mark.parametrize("keep", range(1, BLOCKS, 5))
def test_which_blocks_stay_does_not_depend_on_the_size(keep: int) -> None:
    dropped = {
        report_pruning(SMALL, keep, latent_size=size).dropped for size in (SIZE, (4, 4), (72, 128))
    }
    assert len(dropped) == 1


def test_pruning_by_importance_keeps_the_highest_scores(unet: SVDUNet) -> None:
    names = list(unet.temporal_blocks())
    scores = {name: float(index % 7) for index, name in enumerate(names)}
    importance = Importance(recipe="mobilevd", keep=3, scores=scores)
    pruned, _ = prune_temporal(unet, importance, latent_size=SIZE)
    left = [name for name, block in pruned.temporal_blocks().items() if not block.is_pruned]
    assert left == [names[6], names[13], names[20]] == list(importance.kept())


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (-1, rf"cannot keep -1 of {BLOCKS} temporal blocks; allowed: 0 to {BLOCKS}"),
        (BLOCKS + 1, rf"cannot keep {BLOCKS + 1} of {BLOCKS}"),
        (["mid_block"], "no temporal block 'mid_block'; .* from down_blocks.0.resnets.0 on"),
        (
            Importance(recipe="m", keep=1, scores={"mid_block.resnets.0": 1.0}),
            "the importance has no score of down_blocks.0.resnets.0",
        ),
        (Importance(recipe="m", keep=1, scores={"other": 1.0}), "no temporal block 'other'"),
    ],
)
def test_pruning_refuses_what_does_not_fit(unet: SVDUNet, keep: Any, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        prune_temporal(unet, keep, latent_size=SIZE)
