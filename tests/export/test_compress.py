"""Compression of the denoiser: what is exact, what is best possible, and what a report says."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from mvsdk_export.compress.chain import compress_unet, plan_compression  # noqa: E402
from mvsdk_export.compress.folding import fold_cross_attention  # noqa: E402
from mvsdk_export.compress.frames import count_frames, halve_frames  # noqa: E402
from mvsdk_export.compress.funnels import add_funnels, merge_funnels  # noqa: E402
from mvsdk_export.compress.importance import (  # noqa: E402
    Importance,
    TemporalImportance,
    draw_systematic,
    load_importance,
)
from mvsdk_export.compress.pruning import prune_temporal, report_pruning  # noqa: E402
from mvsdk_export.compress.recipe import (  # noqa: E402
    MOBILEVD,
    STEPS,
    find_compression,
    read_compression_steps,
)
from mvsdk_export.compress.reports import (  # noqa: E402
    list_temporal_blocks,
    measure_costs,
    measure_temporal_blocks,
)
from mvsdk_export.errors import CompressionError  # noqa: E402
from mvsdk_export.networks.svd.config import SVDUNetConfig  # noqa: E402
from mvsdk_export.networks.svd.frames import FRAME_DOWN, FRAME_UP  # noqa: E402
from mvsdk_export.networks.svd.transformer import (  # noqa: E402
    FrameAttention,
    SelfAttention,
    SingleTokenCrossAttention,
)
from mvsdk_export.networks.svd.unet import SVDUNet  # noqa: E402

CLIPS, FRAMES, SIZE = 2, 4, (8, 16)  # two positions at the bottom
SMALL = SVDUNetConfig(
    block_out_channels=(16, 16, 32, 32),
    layers_per_block=1,
    num_attention_heads=(2, 2, 4, 4),
    cross_attention_dim=12,
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=24,
    num_frames=FRAMES,
    norm_groups=8,
)
BLOCKS = SMALL.temporal_block_count
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def unet() -> SVDUNet:
    """Return a small network of random weights, norms included."""
    torch.manual_seed(0)
    network = SVDUNet(SMALL).eval()
    for parameter in network.parameters():
        if parameter.dim() < 2:
            nn.init.normal_(parameter.data, mean=0.5, std=0.3)
    return network


def _inputs(clips: int = CLIPS, seed: int = 1) -> Inputs:
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(clips * FRAMES, SMALL.in_channels, *SIZE, generator=draw),
        torch.rand(clips, generator=draw),
        torch.randn(clips, 1, SMALL.cross_attention_dim, generator=draw),
        torch.rand(clips, 3, generator=draw) * 10,
    )


@torch.no_grad()
def _run(network: SVDUNet, inputs: Inputs | None = None) -> Tensor:
    return network(*(inputs or _inputs()))


def _difference(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


def _flops(network: SVDUNet, inputs: Inputs | None = None) -> int:
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, SelfAttention | SingleTokenCrossAttention):
            module.form = "batched"  # the fused kernel of CPUs is not counted
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*(inputs or _inputs(clips=1)))
    return counter.get_total_flops()


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# --- what all transforms have in common ----------------------------------------------------------


def _fold(unet: SVDUNet) -> tuple[SVDUNet, Any]:
    return fold_cross_attention(unet, latent_size=SIZE)


def _halve(unet: SVDUNet) -> tuple[SVDUNet, Any]:
    return halve_frames(unet, latent_size=SIZE)


def _prune(unet: SVDUNet) -> tuple[SVDUNet, Any]:
    return prune_temporal(unet, 5, latent_size=SIZE)


def _funnel(unet: SVDUNet) -> tuple[SVDUNet, Any]:
    wide, report = add_funnels(unet, 0.5, "all", latent_size=SIZE)
    return merge_funnels(wide), report


Transform = Callable[[SVDUNet], tuple[SVDUNet, Any]]
TRANSFORMS: dict[str, Transform] = {
    "fold": _fold,
    "frames": _halve,
    "prune": _prune,
    "funnels": _funnel,
}


@pytest.fixture(params=TRANSFORMS)
def transform(request: pytest.FixtureRequest) -> Transform:
    """Return each transform in turn."""
    return TRANSFORMS[request.param]


def test_the_given_network_stays_as_it_is(unet: SVDUNet, transform: Transform) -> None:
    state = {name: value.clone() for name, value in unet.state_dict().items()}
    output = _run(unet)
    other, _ = transform(unet)
    assert unet.config == SMALL
    assert other.config != SMALL
    assert unet.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in unet.state_dict().items())
    assert torch.equal(_run(unet), output)


def test_configuration_and_state_dict_are_all_of_a_network(
    unet: SVDUNet, transform: Transform
) -> None:
    other, _ = transform(unet)
    again = SVDUNet(other.config).eval()
    again.load_state_dict(other.state_dict())
    assert torch.equal(_run(again), _run(other))


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
    assert (report.before.parameters, report.before.flops) == (_parameters(unet), _flops(unet))
    assert (report.after.parameters, report.after.flops) == (_parameters(other), _flops(other))
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
    for transform in (_funnel, lambda x: prune_temporal(x, keep), _halve, _fold):
        back, _ = transform(back)
    assert forth.config == back.config
    assert _difference(_run(back), _run(forth)) < 1e-5


# --- folding -------------------------------------------------------------------------------------


def test_folding_changes_no_output(unet: SVDUNet) -> None:
    folded, report = _fold(unet)
    assert _difference(_run(folded), _run(unet)) < 1e-5
    assert report.exact
    assert not [name for name in folded.state_dict() if "norm2" in name and "_res_" not in name]
    assert report.dropped == tuple(
        name for name, _ in unet.named_modules() if name.endswith(".attn2")
    )


def test_folding_holds_for_what_other_steps_leave(unet: SVDUNet) -> None:
    pruned, _ = prune_temporal(_halve(unet)[0], 5, latent_size=SIZE)
    folded, _ = _fold(pruned)
    assert _difference(_run(folded), _run(pruned)) < 1e-5


# --- fewer frames --------------------------------------------------------------------------------


@pytest.mark.parametrize("down", FRAME_DOWN)
@pytest.mark.parametrize("up", FRAME_UP)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_inner_levels_have_half_of_the_frames(
    unet: SVDUNet, levels: int, down: str, up: str
) -> None:
    halved, report = halve_frames(unet, levels, down=down, up=up, latent_size=SIZE)
    assert _run(halved).shape == _run(unet).shape
    with torch.no_grad():
        frames = [count for _, count in halved.features(*_inputs())]
    assert frames == list(count_frames(halved.config)) == [4] * levels + [2] * (4 - levels)
    assert report.what == f"levels have {', '.join(map(str, frames))} frames"
    assert not report.exact
    config = halved.config
    assert (config.frame_levels, config.frame_down, config.frame_up) == (levels, down, up)


def test_a_still_clip_survives_halving_where_nothing_mixes_frames(unet: SVDUNet) -> None:
    image, _ = prune_temporal(unet, 0, latent_size=SIZE)
    sample, *others = _inputs()
    still = sample[::FRAMES].repeat_interleave(FRAMES, dim=0)
    halved, _ = _halve(image)
    inputs = (still, *others)
    assert _difference(_run(halved, inputs), _run(image, inputs)) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 0}, "0 levels cannot keep all frames"),
        ({"levels": 4}, "4 levels cannot keep all frames .* allowed: 1 to 3"),
        ({"down": "median"}, "unknown operator 'median' .* on the way down; known: mean, first"),
        ({"up": "cubic"}, "unknown operator 'cubic' .* on the way up; known: repeat, linear"),
    ],
)
def test_halving_refuses_what_it_does_not_know(
    unet: SVDUNet, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompressionError, match=message):
        halve_frames(unet, **arguments)


# --- pruning -------------------------------------------------------------------------------------


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
    assert _difference(_run(pruned), _run(gated)) < 1e-6


def test_without_temporal_blocks_every_frame_is_an_image_of_its_own(unet: SVDUNet) -> None:
    sample, *others = _inputs()
    order = torch.tensor([2, 0, 3, 1, *(FRAMES + torch.tensor([1, 3, 0, 2]))])
    image, _ = prune_temporal(unet, 0, latent_size=SIZE)
    output = _run(image, (sample, *others))
    assert _difference(_run(image, (sample[order], *others)), output[order]) < 1e-5
    sample[1] += 1
    changed = (_run(image, (sample, *others)) - output).abs().amax(dim=(1, 2, 3))
    assert [float(x) > 0 for x in changed] == [i == 1 for i in range(CLIPS * FRAMES)]
    for block in unet.temporal_blocks().values():
        block.gate = torch.tensor(0.0)
    assert _difference(_run(unet, (sample, *others)), _run(image, (sample, *others))) < 1e-6


def test_frames_mix_where_temporal_blocks_stay(unet: SVDUNet) -> None:
    sample, *others = _inputs()
    output = _run(unet, (sample, *others))
    sample[1] += 1
    changed = (_run(unet, (sample, *others)) - output).abs().amax(dim=(1, 2, 3))
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


# --- funnels -------------------------------------------------------------------------------------


def _product(attention: SelfAttention, which: str) -> Tensor:
    """Return the products of all heads as they are defined, `(heads, C, C)` float64."""
    q, k, v, out = (
        layer.merged() if hasattr(layer, "merged") else layer.weight
        for layer in (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0])
    )
    heads = attention.heads
    q, k, v = (x.detach().double().reshape(heads, -1, x.shape[1]) for x in (q, k, v))
    if which == "query_key":
        return q.transpose(1, 2) @ k
    return out.detach().double().reshape(out.shape[0], heads, -1).transpose(0, 1) @ v


@pytest.mark.parametrize("layers", ["spatial", "all"])
def test_funnels_lose_the_tail_of_the_singular_values_and_random_ones_more(
    unet: SVDUNet, layers: str
) -> None:
    wide, report = add_funnels(unet, 0.5, layers, latent_size=SIZE)
    random, worse = add_funnels(unet, 0.5, layers, init="he", latent_size=SIZE)
    paths = {
        name
        for name, module in unet.named_modules()
        if isinstance(module, SelfAttention)
        and (layers == "all" or not isinstance(module, FrameAttention))
    }
    assert {item.layer for item in report.fidelity} == paths
    assert len(report.fidelity) == len(worse.fidelity) == 2 * len(paths)
    for item, other in zip(report.fidelity, worse.fidelity, strict=True):
        was = _product(unet.get_submodule(item.layer), item.product)
        now = _product(wide.get_submodule(item.layer), item.product)
        values = torch.linalg.svdvals(was)
        tail = float(values[:, item.rank_after :].square().sum().sqrt())
        assert item.error == pytest.approx(tail, rel=1e-5)
        assert float((was - now).norm()) == pytest.approx(tail, rel=1e-4)
        assert item.norm == pytest.approx(float(was.norm()), rel=1e-6)
        assert (item.rank_before, item.rank_after) == (8, 4)
        assert (other.layer, other.product) == (item.layer, item.product)
        assert other.relative_error > 2 * item.relative_error > 0
        he = _product(random.get_submodule(item.layer), item.product)
        assert other.error == pytest.approx(float((was - he).norm()), rel=1e-4)


def test_better_funnels_give_better_outputs(unet: SVDUNet) -> None:
    want = _run(unet)
    errors = [
        _difference(_run(add_funnels(unet, factor, "all", init=init, latent_size=SIZE)[0]), want)
        for factor, init in ((0.875, "csi"), (0.5, "csi"), (0.5, "he"))
    ]
    assert errors == sorted(errors)


def test_funnels_of_factor_one_change_nothing(unet: SVDUNet) -> None:
    wide, report = add_funnels(unet, 1, "all", latent_size=SIZE)
    assert _difference(_run(wide), _run(unet)) < 1e-5
    assert report.exact
    assert max(item.relative_error for item in report.fidelity) < 1e-12
    assert merge_funnels(wide).config == replace(SMALL, funnel_layers="all")


@pytest.mark.parametrize("factor", [0.05, 0.3, 0.5, 1.0])
def test_merged_funnels_are_the_adaptors(unet: SVDUNet, factor: float) -> None:
    wide, report = add_funnels(unet, factor, latent_size=SIZE)
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.01)
    wide(*_inputs()).square().mean().backward()
    optimizer.step()
    merged = merge_funnels(wide)
    assert _difference(_run(merged), _run(wide)) < 1e-5
    assert merged.config == report.config == replace(SMALL, funnel_factor=factor)
    assert _parameters(merged) == report.after.parameters


def test_adaptors_train_along_with_the_weights(unet: SVDUNet) -> None:
    wide, _ = add_funnels(unet, 0.5, "all", latent_size=SIZE)
    wide(*_inputs()).square().mean().backward()
    funnels = {name: p for name, p in wide.named_parameters() if name.endswith(".funnel")}
    assert len(funnels) == 4 * sum(isinstance(m, SelfAttention) for m in wide.modules())
    for name, funnel in funnels.items():
        weight = wide.get_parameter(name.removesuffix("funnel") + "weight")
        for parameter in (funnel, weight):
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0
    assert unet.conv_in.weight.grad is None


def test_a_state_dict_of_adaptors_is_read_back(unet: SVDUNet) -> None:
    wide, _ = add_funnels(unet, 0.5, latent_size=SIZE)
    again, _ = add_funnels(SVDUNet(SMALL).eval(), 0.5, init="he", latent_size=SIZE)
    again.load_state_dict(wide.state_dict())
    assert torch.equal(_run(again), _run(wide))
    assert merge_funnels(again).config == merge_funnels(wide).config


def test_random_funnels_follow_the_seed(unet: SVDUNet) -> None:
    first, same, other = (
        add_funnels(unet, 0.5, init="he", seed=seed, latent_size=SIZE)[0] for seed in (3, 3, 4)
    )
    assert torch.equal(_run(first), _run(same))
    assert not torch.equal(_run(first), _run(other))


def test_funnels_survive_weights_without_full_rank(unet: SVDUNet) -> None:
    attention = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1")
    with torch.no_grad():
        attention.to_q.weight[:6] = attention.to_q.weight[:1]
        attention.to_out[0].weight.zero_()
    wide, _ = add_funnels(unet, 0.75, latent_size=SIZE)
    assert all(torch.isfinite(value).all() for value in wide.state_dict().values())
    narrow = wide.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1")
    was, now = _product(attention, "query_key"), _product(narrow, "query_key")
    assert float((was - now)[0].norm() / was[0].norm()) < 1e-5  # rank 3 of the first head


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 0}, "factor of funnels is 0; allowed: above 0, at most 1"),
        ({"factor": 1.5}, "factor of funnels is 1.5"),
        ({"factor": math.nan}, "factor of funnels is nan"),
        ({"factor": 0.5, "layers": "conv"}, "unknown layers 'conv' .* known: spatial, all"),
        ({"factor": 0.5, "init": "zeros"}, "unknown initialisation 'zeros'; known: csi, he"),
    ],
)
def test_funnels_refuse_what_is_not_allowed(
    unet: SVDUNet, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompressionError, match=message):
        add_funnels(unet, **arguments)


def test_adaptors_are_merged_before_anything_else(unet: SVDUNet) -> None:
    with pytest.raises(CompressionError, match="has no funnels to merge"):
        merge_funnels(unet)
    wide, _ = add_funnels(unet, 0.5, latent_size=SIZE)
    for transform in (*TRANSFORMS.values(), _funnel):
        with pytest.raises(CompressionError, match=r"not what its config.*: .* merge its"):
            transform(wide)


# --- importance ----------------------------------------------------------------------------------


def _importance(keep: int = 5, spread: float = 2.0) -> TemporalImportance:
    importance = TemporalImportance(list_temporal_blocks(SMALL), keep)
    draw = torch.Generator().manual_seed(3)
    importance.scores.data = torch.randn(BLOCKS, generator=draw) * spread
    return importance


@pytest.mark.parametrize("keep", [1, 5, BLOCKS - 1])
@pytest.mark.parametrize("spread", [0.0, 2.0, 100.0])
def test_probabilities_sum_to_the_number_of_blocks_kept(keep: int, spread: float) -> None:
    probabilities = _importance(keep, spread).probabilities().detach()
    assert float(probabilities.sum()) == pytest.approx(keep, abs=1e-5)
    assert 0 <= float(probabilities.min()) <= float(probabilities.max()) <= 1
    order = _importance(keep, spread).scores.argsort()
    assert (probabilities[order].diff() >= 0).all()


@pytest.mark.parametrize("spread", [0.0, 2.0, 8.0])
def test_blocks_are_drawn_as_often_as_they_are_probable(spread: float) -> None:
    importance, draw = _importance(spread=spread), torch.Generator().manual_seed(0)
    probabilities = importance.probabilities().detach()
    count = 4000
    gates = torch.stack(
        [draw_systematic(probabilities, importance.keep, draw) for _ in range(count)]
    )
    assert (gates.sum(dim=1) == importance.keep).all()
    assert set(gates.unique().tolist()) == {0.0, 1.0}
    deviation = (probabilities * (1 - probabilities) / count).sqrt()
    assert ((gates.mean(dim=0) - probabilities).abs() <= 4 * deviation + 1e-6).all()


def test_probabilities_have_the_gradient_of_the_constrained_sum() -> None:
    importance = _importance().double()
    weights = torch.randn(BLOCKS, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def expected(scores: Tensor) -> Tensor:
        importance.scores = nn.Parameter(scores)
        return (importance.probabilities().detach() * weights).sum()

    start, step = importance.scores.detach().clone(), 1e-6
    importance.scores = nn.Parameter(start.clone())
    (importance.probabilities() * weights).sum().backward()
    assert importance.scores.grad is not None
    gradient = importance.scores.grad
    assert abs(float(gradient.sum())) < 1e-9  # a shift of all scores changes nothing
    for index in range(BLOCKS):
        shift = torch.zeros_like(start)
        shift[index] = step
        slope = (expected(start + shift) - expected(start - shift)) / (2 * step)
        assert float(slope) == pytest.approx(float(gradient[index]), abs=1e-6)


def test_draws_repeat_with_the_generator() -> None:
    importance = _importance()
    first, again = (
        [importance.draw(draw).detach() for _ in range(5)]
        for draw in (torch.Generator().manual_seed(1), torch.Generator().manual_seed(1))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(first[0], other) for other in first[1:])


def test_gates_are_redrawn_on_the_network_and_gradients_reach_the_scores(unet: SVDUNet) -> None:
    importance, draw = _importance(), torch.Generator().manual_seed(1)
    seen = []
    for _ in range(3):
        gates = importance.redraw_(unet, draw)
        seen.append([float(block.gate.detach()) for block in unet.temporal_blocks().values()])
        assert seen[-1] == gates.tolist()
        unet(*_inputs()).square().mean().backward()
    assert seen[0] != seen[1]
    assert importance.scores.grad is not None
    assert int((importance.scores.grad != 0).sum()) == BLOCKS
    assert unet.conv_in.weight.grad is not None
    kept = [name for name, gate in zip(importance.names, seen[-1], strict=True) if gate]
    pruned, _ = prune_temporal(unet, kept, latent_size=SIZE)
    assert _difference(_run(pruned), _run(unet)) < 1e-6
    importance.release_(unet)
    assert all(block.gate is None for block in unet.temporal_blocks().values())
    assert "gate" not in " ".join(unet.state_dict())


def test_scores_learn_which_blocks_are_missed() -> None:
    importance, draw = TemporalImportance([f"b{i}" for i in range(8)], 3), torch.Generator()
    needed = torch.tensor([0.0, 1, 0, 0, 1, 0, 1, 0])
    optimizer = torch.optim.Adam(importance.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        ((1 - importance.draw(draw)) * needed).sum().backward()
        optimizer.step()
    assert importance.result("mobilevd").kept() == ("b1", "b4", "b6")


def test_scores_belong_to_one_kind_of_network(unet: SVDUNet) -> None:
    with pytest.raises(CompressionError, match=rf"has {BLOCKS} temporal blocks, the scores are"):
        TemporalImportance(["a", "b", "c"], 1).redraw_(unet)
    for names, keep in ((["a", "b"], 0), (["a", "b"], 2), (["a", "a"], 1)):
        with pytest.raises(CompressionError, match=rf"cannot keep {keep} of 2 temporal blocks"):
            TemporalImportance(names, keep)


def test_what_was_learned_is_kept_in_a_file(tmp_path: Path) -> None:
    learned = _importance().result("mobilevd")
    path = tmp_path / "importance.json"
    learned.save(path)
    assert load_importance(path) == learned
    assert list(load_importance(path).scores) == list(learned.scores)
    assert [item.name for item in tmp_path.iterdir()] == ["importance.json"]
    assert len(learned.kept()) == 5
    assert learned.kept(2) == tuple(n for n in learned.kept() if n in learned.kept(2))
    with pytest.raises(CompressionError, match=rf"cannot keep 99 of {BLOCKS}"):
        learned.kept(99)


def test_scores_that_are_not_finite_are_not_kept() -> None:
    importance = _importance()
    importance.scores.data[3] = math.nan
    with pytest.raises(CompressionError, match="are not finite; train with a lower"):
        importance.result("mobilevd")


GOOD: dict[str, Any] = {"format_version": 1, "recipe": "m", "keep": 1, "scores": {"a": 1, "b": 0.5}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "want a JSON object"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("\xff", "is not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ({**GOOD, "more": 1}, "key 'more' is unknown"),
        ({**GOOD, "format_version": 2}, "format_version is 2"),
        ({k: v for k, v in GOOD.items() if k != "keep"}, "keep is missing"),
        ({**GOOD, "keep": 3}, "keep is 3, want an integer from 0 to 2"),
        ({**GOOD, "keep": True}, "keep is true"),
        ({**GOOD, "recipe": "two\nlines"}, "recipe is"),
        ({**GOOD, "scores": []}, "scores is"),
        ({**GOOD, "scores": {}}, "scores is"),
        ({**GOOD, "scores": {str(i): 0 for i in range(1025)}}, "an object of 1 to 1024 blocks"),
        ({**GOOD, "scores": {"a": "1"}}, "want a module path and a number"),
        ({**GOOD, "scores": {"a": False}}, "want a module path and a number"),
        ({**GOOD, "scores": {"a" * 300: 1}}, "want a module path and a number"),
        ({**GOOD, "scores": {"a": 1e7}}, "the score of 'a' is 1e\\+07"),
        ('{"format_version": 1, "recipe": "m", "keep": 1, "scores": {"a": NaN}}', "NaN"),
        ('{"format_version": 1, "recipe": "m", "keep": 1, "scores": {"a": 1e999}}', "not finite"),
    ],
)
def test_a_hostile_file_of_scores_is_refused_in_one_line(
    tmp_path: Path, document: Any, message: str
) -> None:
    path = tmp_path / "importance.json"
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CompressionError, match=message) as caught:
        load_importance(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"importance {str(path)!r}")
    assert str(caught.value).endswith(
        "; write it again with mvsdk train, or leave --importance out"
    )


def test_a_missing_file_of_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="cannot be read: no such file"):
        load_importance(tmp_path / "nothing.json")


# --- costs and whole compressions ----------------------------------------------------------------


def test_costs_are_those_of_running_the_network(unet: SVDUNet) -> None:
    costs = measure_costs(SMALL, SIZE)
    assert (costs.parameters, costs.flops) == (_parameters(unet), _flops(unet))
    image, _ = prune_temporal(unet, 0, latent_size=SIZE)
    temporal = sum(measure_temporal_blocks(SMALL, SIZE).values())
    assert temporal == costs.flops - _flops(image)
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
    assert reports[-1].after.parameters == _parameters(compressed)
    assert reports[-1].after.flops == _flops(compressed)
    for report, following in pairwise(reports):
        assert report.after == following.before
    assert torch.isfinite(_run(compressed)).all()


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
