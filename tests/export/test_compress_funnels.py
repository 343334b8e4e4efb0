"""Funnels in self-attention: the best product of a rank, trained, then merged."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")

import torch  # noqa: E402
from comparing import count_parameters, relative_error  # noqa: E402
from compressing import SIZE, SMALL, TRANSFORMS, make_inputs, run_unet  # noqa: E402
from torch import Tensor  # noqa: E402

from mvsdk_export.compress.funnels import add_funnels, merge_funnels, report_funnels  # noqa: E402
from mvsdk_export.errors import CompressionError  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNet  # noqa: E402
from mvsdk_export.layers.transformer import FrameAttention, SelfAttention  # noqa: E402


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
    want = run_unet(unet)
    errors = [
        relative_error(
            run_unet(add_funnels(unet, factor, "all", init=init, latent_size=SIZE)[0]), want
        )
        for factor, init in ((0.875, "csi"), (0.5, "csi"), (0.5, "he"))
    ]
    assert errors == sorted(errors)


def test_funnels_of_factor_one_change_nothing(unet: SVDUNet) -> None:
    wide, report = add_funnels(unet, 1, "all", latent_size=SIZE)
    assert relative_error(run_unet(wide), run_unet(unet)) < 1e-5
    assert report.exact
    assert max(item.relative_error for item in report.fidelity) < 1e-12
    assert merge_funnels(wide).config == replace(SMALL, funnel_layers="all")


def test_funnels_are_exact_only_where_no_head_is_narrowed() -> None:
    config = replace(SMALL, num_attention_heads=(8, 2, 2, 2))  # 1 channel, and 8
    report = report_funnels(config, 0.5)
    assert report.what.endswith(": 1 to 1, 8 to 4 channels")
    assert not report.exact


@pytest.mark.parametrize("factor", [0.05, 0.3, 0.5, 1.0])
def test_merged_funnels_are_the_adaptors(unet: SVDUNet, factor: float) -> None:
    wide, report = add_funnels(unet, factor, latent_size=SIZE)
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.01)
    wide(*make_inputs()).square().mean().backward()
    optimizer.step()
    merged = merge_funnels(wide)
    assert relative_error(run_unet(merged), run_unet(wide)) < 1e-5
    assert merged.config == report.config == replace(SMALL, funnel_factor=factor)
    assert count_parameters(merged) == report.after.parameters


def test_adaptors_train_along_with_the_weights(unet: SVDUNet) -> None:
    wide, _ = add_funnels(unet, 0.5, "all", latent_size=SIZE)
    wide(*make_inputs()).square().mean().backward()
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
    assert torch.equal(run_unet(again), run_unet(wide))
    assert merge_funnels(again).config == merge_funnels(wide).config


def test_random_funnels_follow_the_seed(unet: SVDUNet) -> None:
    first, same, other = (
        add_funnels(unet, 0.5, init="he", seed=seed, latent_size=SIZE)[0] for seed in (3, 3, 4)
    )
    assert torch.equal(run_unet(first), run_unet(same))
    assert not torch.equal(run_unet(first), run_unet(other))


def test_funnels_survive_weights_without_full_rank(unet: SVDUNet) -> None:
    attention = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1")
    with torch.no_grad():
        attention.to_q.weight[:6] = attention.to_q.weight[:1]
        attention.to_out[0].weight.zero_()
    wide, report = add_funnels(unet, 0.75, latent_size=SIZE)
    errors = {(item.layer, item.product): item.relative_error for item in report.fidelity}
    assert errors["mid_block.attentions.0.transformer_blocks.0.attn1", "value_out"] == 0
    assert all(torch.isfinite(value).all() for value in wide.state_dict().values())
    narrow = wide.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1")
    was, now = _product(attention, "query_key"), _product(narrow, "query_key")
    assert float((was - now)[0].norm() / was[0].norm()) < 1e-5
    for layer in (narrow.to_q, narrow.to_k):  # rank 3 of the first head
        assert layer.funnel[0, :3].any(dim=1).all()
        assert not layer.funnel[0, 3:].any()


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
    for transform in TRANSFORMS.values():
        with pytest.raises(CompressionError, match=r"not what its config.*: .* merge its"):
            transform(wide)
