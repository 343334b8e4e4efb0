"""The denoiser of Stable Video Diffusion in the shapes that compression gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("seeded")]
pytest.importorskip("torch", reason="needs the extra export")

import torch  # noqa: E402
from comparing import relative_error  # noqa: E402
from small_svd_unets import COMPRESSED, FRAMES, small_inputs, small_unet  # noqa: E402
from torch import Tensor  # noqa: E402

from mvsdk_export.checkpoints.configs import config_to_document  # noqa: E402
from mvsdk_export.families.svd.frames import FRAME_DOWN, FRAME_UP  # noqa: E402
from mvsdk_export.families.svd.transformer import TransformerLayer  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNet, SVDUNetConfig  # noqa: E402
from mvsdk_export.layers.selection import select_implementations_  # noqa: E402
from mvsdk_export.layers.transformer import FrameAttention, SelfAttention  # noqa: E402


def test_full_size_runs_without_weights() -> None:
    with torch.device("meta"):
        network = SVDUNet(SVDUNetConfig(**COMPRESSED["folded"], frame_levels=1, funnel_factor=0.5))
        select_implementations_(network, "htp")
        out = network(
            torch.empty(14, 8, 32, 64), torch.empty(1), torch.empty(1, 1, 1024), torch.empty(1, 3)
        )
    assert out.shape == (14, 4, 32, 64)
    assert len(SVDUNet.temporal_blocks(network)) == SVDUNetConfig().temporal_block_count == 38


@pytest.mark.parametrize("name", COMPRESSED)
@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(name: str) -> None:
    network, inputs = small_unet(**COMPRESSED[name]), small_inputs(clips=2)
    got = network(**inputs).unflatten(0, (2, FRAMES))
    for clip in range(2):
        alone = {key: value.unflatten(0, (2, -1))[clip] for key, value in inputs.items()}
        assert relative_error(got[clip], network(**alone)) < 1e-4


@pytest.mark.parametrize("name", ["whole", *COMPRESSED])
def test_configuration_says_which_weights_there_are(name: str) -> None:
    network = small_unet(**COMPRESSED.get(name, {}))
    document = config_to_document(network.config)
    again = SVDUNet(SVDUNetConfig(**document))
    again.load_state_dict(network.state_dict())
    inputs = small_inputs()
    assert torch.equal(again.eval()(**inputs), network(**inputs))


def test_temporal_blocks_are_listed_in_the_order_of_execution() -> None:
    network, order = small_unet(), []
    named = network.temporal_blocks()
    for name, block in named.items():
        assert network.get_submodule(name) is block
        block.register_forward_hook(lambda *_, name=name: order.append(name))
    network(**small_inputs())
    assert order == list(named)
    assert len(order) == network.config.temporal_block_count == 24
    assert order[:2] == ["down_blocks.0.resnets.0", "down_blocks.0.attentions.0"]


def test_pruned_blocks_lose_their_temporal_weights_and_nothing_else() -> None:
    kept = "01" + "1" * 22
    names = list(small_unet().temporal_blocks())
    network = small_unet(temporal_blocks=kept)
    assert [name for name, block in network.temporal_blocks().items() if block.is_pruned] == [
        names[0]
    ]
    gone = small_unet().state_dict().keys() - network.state_dict().keys()
    assert gone
    assert all(key.startswith((f"{names[0]}.temporal", f"{names[0]}.time")) for key in gone)
    assert network.state_dict().keys() < small_unet().state_dict().keys()


@torch.no_grad()
def test_closed_gates_and_pruned_blocks_are_a_network_for_single_images() -> None:
    network, inputs = small_unet(), small_inputs()
    whole = network(**inputs)
    for block in network.temporal_blocks().values():
        block.gate = torch.zeros(())
    closed = network(**inputs)
    assert relative_error(closed, whole) > 0.01
    for block in network.temporal_blocks().values():
        block.prune_()
    assert relative_error(network(**inputs), closed) < 1e-6
    for frame in range(FRAMES):
        alone = inputs | {"sample": inputs["sample"][frame : frame + 1]}
        assert relative_error(network(**alone)[0], closed[frame]) < 1e-4


def test_an_open_gate_changes_nothing_and_learns() -> None:
    network, inputs = small_unet(), small_inputs()
    want = network(**inputs)
    gates = torch.ones(24, requires_grad=True)
    for gate, block in zip(gates, network.temporal_blocks().values(), strict=True):
        block.gate = gate
    assert "gate" not in " ".join(network.state_dict())
    got = network(**inputs)
    assert relative_error(got, want) < 1e-6
    got.square().sum().backward()
    assert gates.grad is not None
    assert gates.grad.all()


@pytest.mark.parametrize("level", [1, 2, 3])
def test_frames_are_halved_from_a_level_on(level: int) -> None:
    network, seen = small_unet(frame_levels=level), dict[str, int]()

    def watch(name: str) -> Callable[..., None]:
        return lambda _, __, out: seen.update({name: out.shape[0]})

    for name, block in network.temporal_blocks().items():
        block.register_forward_hook(watch(name))
    assert network(**small_inputs(frames=7)).shape[0] == 7
    for name, frames in seen.items():
        stage, _, index = name.split(".resnets")[0].split(".attentions")[0].partition(".")
        at = {"down_blocks": int(index or 0), "up_blocks": 3 - int(index or 0), "mid_block": 3}
        assert frames == (4 if at[stage] >= level else 7), name


def test_operators_over_frames() -> None:
    x = torch.arange(10.0)[:, None, None, None].expand(-1, 2, 3, 1)  # two clips of five

    def run(operator: Callable[[Tensor, int], Tensor], x: Tensor) -> list[float]:
        out = operator(x, 5)
        assert out.shape[1:] == x.shape[1:]
        return out[:, 0, 0, 0].tolist()

    assert run(FRAME_DOWN["mean"], x) == [0.5, 2.5, 4.0, 5.5, 7.5, 9.0]
    assert run(FRAME_DOWN["first"], x) == [0, 2, 4, 5, 7, 9]
    half = x[:6]  # two clips of three
    assert run(FRAME_UP["repeat"], half) == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5]
    assert run(FRAME_UP["linear"], half) == [0, 0.5, 1, 1.5, 2, 3, 3.5, 4, 4.5, 5]
    for operator in (*FRAME_DOWN.values(), *FRAME_UP.values()):
        frames = x if operator in FRAME_DOWN.values() else half
        alone = operator(frames[: len(frames) // 2], 5)
        assert torch.equal(alone, operator(frames, 5)[: len(alone)])


@torch.no_grad()
def test_features_are_what_the_down_blocks_hand_on() -> None:
    network, inputs, later = small_unet(frame_levels=2), small_inputs(clips=2), []
    network.mid_block.resnets[0].register_forward_hook(lambda *_: later.append(1))
    found = network.features(**inputs)
    assert [frames for _, frames in found] == [5, 5, 3, 3]
    assert [tuple(x.shape) for x, _ in found] == [
        (10, 32, 8, 12),
        (10, 32, 4, 6),
        (6, 64, 2, 3),
        (6, 64, 2, 3),
    ]
    assert not later
    got = []
    network.mid_block.resnets[0].register_forward_pre_hook(lambda _, args: got.append(args[0]))
    network(**inputs)
    assert torch.equal(got[0], found[-1][0])


@torch.no_grad()
def test_folded_attention_is_attention_to_a_single_feature() -> None:
    whole = TransformerLayer(32, 24, 4, inner=None, folded=False)
    folded = TransformerLayer(32, 24, 4, inner=None, folded=True)
    state = {key: value for key, value in whole.state_dict().items() if "2.to_" not in key}
    out = whole.attn2.to_out[0]
    state["attn2.to_out.0.weight"] = out.weight @ whole.attn2.to_v.weight
    state["attn2.to_out.0.bias"] = out.bias
    del state["norm2.weight"], state["norm2.bias"]
    folded.load_state_dict(state)
    x, context = torch.randn(6, 10, 32), torch.randn(2, 1, 24)
    assert relative_error(folded(x, context, 3), whole(x, context, 3)) < 1e-5
    with pytest.raises(ValueError, match="takes 1 feature per clip, got 2"):
        folded(x, torch.randn(2, 2, 24), 3)


def test_funnels_narrow_heads_and_keep_the_scale_of_the_logits() -> None:
    for layers, kinds in (("spatial", {SelfAttention}), ("all", {SelfAttention, FrameAttention})):
        network, ordinary = small_unet(funnel_factor=0.5, funnel_layers=layers), small_unet()
        for name, module in network.named_modules():
            if isinstance(module, SelfAttention):
                full = ordinary.get_submodule(name)
                factor = 2 if type(module) in kinds else 1
                assert factor * module.to_q.out_features == full.to_q.out_features
                assert module.to_out[0].weight.shape == module.to_v.weight.T.shape
                assert module.scale == full.scale


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frame_down": "median"}, "frame_down is 'median'; known: mean, first"),
        ({"frame_up": "cubic"}, "frame_up is 'cubic'; known: repeat, linear"),
        ({"funnel_layers": "none"}, "funnel_layers is 'none'; known: spatial, all"),
        ({"frame_levels": 4}, "frame_levels is 4; known: 0, 1, 2, 3"),
        ({"funnel_factor": 1.5}, "funnel_factor is 1.5; it is above 0 and at most 1"),
        ({"temporal_blocks": "0110"}, "temporal_blocks is '0110'; it is 'all' or 24 characters"),
        ({"addition_time_embed_dim": 16}, "it is three times addition_time_embed_dim, 48"),
        (
            {"addition_time_embed_dim": 7, "projection_class_embeddings_input_dim": 21},
            "addition_time_embed_dim is 7; 2 divides it",
        ),
        ({"norm_groups": 24}, r"block_out_channels\[0\] is 32; norm_groups \(24\) divides it"),
        ({"num_attention_heads": (2, 3, 2, 4)}, r"block_out_channels\[1\] is 32; heads \(3\)"),
    ],
)
def test_impossible_shapes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_unet(**fields)
