"""The networks and their forms: equal maths in every form, and graphs that NPU compilers like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("seeded")]
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("onnxscript", reason="needs the extra export")

import onnx  # noqa: E402
import torch  # noqa: E402
from comparing import relative_error  # noqa: E402
from small_unet import SpatioTemporalUNet, UNetConfig  # noqa: E402
from tiny_models import tiny_networks  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mvsdk_export.families.autoencoder import (  # noqa: E402
    PATCH,
    Autoencoder,
    AutoencoderConfig,
    FrameDecoder,
)
from mvsdk_export.families.sticker import text_encoder, transformer  # noqa: E402
from mvsdk_export.graphs.onnx import export_onnx  # noqa: E402
from mvsdk_export.layers import blocks  # noqa: E402
from mvsdk_export.layers.implementations import (  # noqa: E402
    CROSS_ATTENTION_FUNCTIONS,
    GROUP_NORM_FUNCTIONS,
    LINEAR_FUNCTIONS,
    POINTWISE_FUNCTIONS,
    SILU_FUNCTIONS,
    SPATIAL_ATTENTION_FUNCTIONS,
    TEMPORAL_ATTENTION_FUNCTIONS,
    TEMPORAL_CONV_FUNCTIONS,
)
from mvsdk_export.layers.selection import (  # noqa: E402
    override_implementations_,
    select_implementations_,
)
from mvsdk_export.layers.token_attention import TOKEN_ATTENTION_FUNCTIONS  # noqa: E402

FRAMES, CHANNELS, HEADS, LENGTH = 5, 64, 2, 7
ONE_CLIP_ONLY = {"shift_concat", "shift_sum", "unrolled", "rotated"}
UNET = UNetConfig(
    latent_channels=4,
    num_frames=3,
    channels=(32, 64),
    mid_blocks=1,
    up_blocks=1,
    context_dim=16,
    embedding_dim=32,
)
Form = Callable[..., Tensor]
Arguments = Callable[[int], tuple[Any, ...]]


def _maps(clips: int) -> Tensor:
    return 2 * torch.randn(clips * FRAMES, CHANNELS, 3, 4)


def _group_norm_arguments(clips: int) -> tuple[Any, ...]:
    return 3 + _maps(clips), 16, torch.randn(CHANNELS), torch.randn(CHANNELS), 1e-5


def _cross_arguments(clips: int) -> tuple[Any, ...]:
    context = torch.randn(2, clips, LENGTH, CHANNELS)
    return _maps(clips), context[0], context[1], HEADS


def _conv_arguments(clips: int) -> tuple[Any, ...]:
    weight = torch.randn(CHANNELS, CHANNELS, 3, 1, 1)
    return _maps(clips), weight, torch.randn(CHANNELS), FRAMES


def _linear_arguments(clips: int) -> tuple[Any, ...]:
    return torch.randn(clips, FRAMES, 8), torch.randn(6, 8), torch.randn(6)


def _pointwise_arguments(clips: int) -> tuple[Any, ...]:
    return _maps(clips), torch.randn(32, CHANNELS, 1, 1), torch.randn(32)


TABLES: dict[str, tuple[dict[str, Any], Arguments]] = {
    "activation": (SILU_FUNCTIONS, lambda clips: (_maps(clips),)),
    "pointwise_conv": (POINTWISE_FUNCTIONS, _pointwise_arguments),
    "linear": (LINEAR_FUNCTIONS, _linear_arguments),
    "group_norm": (GROUP_NORM_FUNCTIONS, _group_norm_arguments),
    "spatial_attention": (
        SPATIAL_ATTENTION_FUNCTIONS,
        lambda clips: (_maps(clips), _maps(clips), _maps(clips), HEADS),
    ),
    "cross_attention": (CROSS_ATTENTION_FUNCTIONS, _cross_arguments),
    "temporal_conv": (TEMPORAL_CONV_FUNCTIONS, _conv_arguments),
    "temporal_attention": (
        TEMPORAL_ATTENTION_FUNCTIONS,
        lambda clips: (_maps(clips), _maps(clips), _maps(clips), FRAMES, HEADS),
    ),
}


def _cases() -> list[Any]:
    return [
        pytest.param(forms, name, arguments, clips, id=f"{layer}-{name}-{clips}")
        for layer, (forms, arguments) in TABLES.items()
        for name in list(forms)[1:]
        for clips in (1, 3)
        if clips == 1 or name not in ONE_CLIP_ONLY
    ]


@pytest.mark.parametrize(("forms", "name", "arguments", "clips"), _cases())
def test_all_forms_of_a_layer_say_the_same(
    forms: dict[str, Form], name: str, arguments: Arguments, clips: int
) -> None:
    reference = next(iter(forms.values()))
    inputs = arguments(clips)
    assert relative_error(forms[name](*inputs), reference(*inputs)) < 1e-5


@pytest.mark.parametrize("layer", ["temporal_conv", "temporal_attention"])
def test_forms_for_one_clip_refuse_several(layer: str) -> None:
    forms, arguments = TABLES[layer]
    single = ONE_CLIP_ONLY & set(forms)
    assert len(single) == 2
    for name in single:
        with pytest.raises(ValueError, match=r"one clip of 5 frames, got 15"):
            forms[name](*arguments(3))


def test_temporal_forms_are_the_conv3d_and_attention_of_the_papers() -> None:
    """An independent reference: torch's own Conv3d, and attention per position written out."""
    x, weight, bias, _ = _conv_arguments(1)
    want = nn.functional.conv3d(x.transpose(0, 1)[None], weight, bias, padding=(1, 0, 0))[0]
    assert (
        relative_error(
            TEMPORAL_CONV_FUNCTIONS["conv2d"](x, weight, bias, FRAMES), want.transpose(0, 1)
        )
        < 1e-5
    )
    q, k, v = (torch.randn(FRAMES, CHANNELS, 1, 1) for _ in range(3))
    got = TEMPORAL_ATTENTION_FUNCTIONS["unrolled"](q, k, v, FRAMES, HEADS)
    for head in range(HEADS):
        part = slice(head * CHANNELS // HEADS, (head + 1) * CHANNELS // HEADS)
        one = torch.stack([q, k, v])[:, None, :, part, 0, 0]  # (3, 1, F, d)
        want = nn.functional.scaled_dot_product_attention(one[0], one[1], one[2])[0]
        assert relative_error(got[:, part, 0, 0], want) < 1e-5


def _randomised(network: nn.Module) -> nn.Module:
    """Give layers that start at zero something to do."""
    for parameter in network.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


def _unet() -> tuple[nn.Module, dict[str, Tensor]]:
    return _randomised(SpatioTemporalUNet(UNET)), _unet_inputs(UNET.num_frames, 8, 8)


def _unet_inputs(frames: int, height: int, width: int, clips: int = 1) -> dict[str, Tensor]:
    return {
        "sample": torch.randn(clips * frames, UNET.latent_channels, height, width),
        "timestep": torch.rand(clips),
        "encoder_hidden_states": torch.randn(clips, LENGTH, UNET.context_dim),
    }


def _autoencoder() -> Autoencoder:
    config = AutoencoderConfig(latent_channels=4, decoder_channels=(32, 16, 16), decoder_layers=1)
    network = Autoencoder(config)
    _randomised(network)
    return network


def _vae_decoder() -> tuple[nn.Module, dict[str, Tensor]]:
    return FrameDecoder(_autoencoder()).eval(), {"latents": torch.randn(3, 4, 4, 4)}


def _text_encoder() -> tuple[nn.Module, dict[str, Tensor]]:
    network = tiny_networks()["text_encoder"]
    return network, {"input_ids": torch.randint(0, 20, (1, network.config.max_length))}


def _transformer() -> tuple[nn.Module, dict[str, Tensor]]:
    network = tiny_networks()["transformer"]
    config = network.config
    length = LENGTH + config.memory_slots * config.memory_tokens
    inputs = {
        "sample": torch.randn(config.num_frames, config.latent_channels, 4, 4),
        "timestep": torch.rand(1),
        "encoder_hidden_states": torch.randn(1, length, config.context_dim),
    }
    return network, inputs


NETWORKS = {
    "unet": _unet,
    "transformer": _transformer,
    "vae_decoder": _vae_decoder,
    "text_encoder": _text_encoder,
}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_npu_forms_change_neither_weights_nor_results(name: str) -> None:
    network, inputs = NETWORKS[name]()
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    want = network(*inputs.values())
    assert select_implementations_(network, "htp") is network
    layers = [module for module in network.modules() if hasattr(module, "implementation")]
    assert all(x.implementation == type(x).IMPLEMENTATIONS["htp"] for x in layers)
    assert relative_error(network(*inputs.values()), want) < 1e-5
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_forms_of_the_htp_in_float16_change_no_result(name: str) -> None:
    network, inputs = NETWORKS[name]()
    want = network(*inputs.values())
    assert select_implementations_(network, "htp_fp16") is network
    layers = [module for module in network.modules() if hasattr(module, "implementation")]
    for layer in layers:
        known = type(layer).IMPLEMENTATIONS
        assert layer.implementation == known.get("htp_fp16", known["htp"])
    assert relative_error(network(*inputs.values()), want) < 1e-5


def test_npu_forms_exist_and_every_layer_with_forms_has_one() -> None:
    networks = [make()[0] for make in NETWORKS.values()]
    modules = [module for network in networks for module in network.modules()]
    types = {type(module) for module in modules if hasattr(module, "implementation")}
    layers = {kind for kind in vars(blocks).values() if hasattr(kind, "IMPLEMENTATIONS")}
    assert types == layers | {text_encoder.Layer, transformer.Layer}
    tables = [*(functions for functions, _ in TABLES.values()), TOKEN_ATTENTION_FUNCTIONS]
    for kind in types:
        assert any(set(kind.IMPLEMENTATIONS.values()) <= functions.keys() for functions in tables)


def _graph(network: nn.Module, inputs: dict[str, Tensor], folder: Path) -> onnx.GraphProto:
    path = folder / "model.onnx"
    export_onnx(network, inputs, ["out"], path)
    return onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the rank of every tensor; fails where a rank is unknown."""
    values = [*graph.input, *graph.value_info, *graph.output]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    ranks |= {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output if name}
    assert made <= ranks.keys()
    return ranks


def _disliked(graph: onnx.GraphProto) -> set[str]:
    """Return what HTP compilers handle badly: see docs/npu_forms.md."""
    found = {node.op_type for node in graph.node} & {
        "InstanceNormalization",
        "GroupNormalization",
        "Sigmoid",
        "Swish",
    }
    ranks = _ranks(graph)
    if any(node.op_type == "Conv" and ranks[node.input[1]] == 5 for node in graph.node):
        found.add("Conv3d")
    if max(ranks.values()) > 4:
        found.add("rank above four")
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_with_npu_forms_hold_nothing_that_npu_compilers_dislike(
    name: str, tmp_path: Path
) -> None:
    network, inputs = NETWORKS[name]()
    graph = _graph(select_implementations_(network, "htp"), inputs, tmp_path)
    assert _disliked(graph) == set()
    assert len(graph.node) > 10


def test_other_forms_do_hold_what_npu_compilers_dislike(tmp_path: Path) -> None:
    """The check above would find it: group norm, SiLU and 3-D convolution as papers write them."""
    network = override_implementations_(
        _randomised(blocks.TemporalConv(32)), {blocks.TemporalConv: "conv3d"}
    )

    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = network

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, 4)

    graph = _graph(Clip(), {"x": torch.randn(4, 32, 2, 2)}, tmp_path)
    found = _disliked(graph)
    assert {"Conv3d", "rank above four"} <= found
    assert found & {"InstanceNormalization", "GroupNormalization"}
    assert found & {"Sigmoid", "Swish"}


@torch.no_grad()
def test_two_clips_in_a_batch_are_two_clips() -> None:
    network, _ = _unet()
    inputs = _unet_inputs(UNET.num_frames, 8, 8, clips=2)
    together = network(*inputs.values())
    for clip in range(2):
        frames = slice(clip * UNET.num_frames, (clip + 1) * UNET.num_frames)
        one = (
            inputs["sample"][frames],
            inputs["timestep"][clip : clip + 1],
            inputs["encoder_hidden_states"][clip : clip + 1],
        )
        assert relative_error(together[frames], network(*one)) < 1e-5


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 4, 4), (5, 12, 8), (16, 4, 16)])
@torch.no_grad()
def test_unet_takes_other_clip_lengths_and_sizes(frames: int, height: int, width: int) -> None:
    config = UNetConfig(
        latent_channels=4,
        num_frames=frames,
        channels=UNET.channels,
        mid_blocks=1,
        context_dim=UNET.context_dim,
        embedding_dim=UNET.embedding_dim,
    )
    network = _randomised(SpatioTemporalUNet(config))
    inputs = _unet_inputs(frames, height, width)
    out = network(*inputs.values())
    assert out.shape == inputs["sample"].shape
    assert out.isfinite().all()
    assert relative_error(select_implementations_(network, "htp")(*inputs.values()), out) < 1e-5


@torch.no_grad()
def test_fresh_unet_works_frame_by_frame_until_its_temporal_layers_are_trained() -> None:
    inputs = _unet_inputs(UNET.num_frames, 8, 8)
    changed = dict(inputs, sample=inputs["sample"].clone())
    changed["sample"][1] += 1.0

    def influence(network: nn.Module) -> Tensor:
        """Return by how much each frame of the output changes with the middle frame."""
        difference = network(*changed.values()) - network(*inputs.values())
        return difference.flatten(1).abs().amax(dim=1)

    fresh = SpatioTemporalUNet(UNET).eval()
    before = influence(fresh)
    assert before[1] > 1e-2
    assert max(before[0], before[2]) < 1e-6
    after = influence(_randomised(fresh))
    assert min(after[0], after[2]) > 1e-3


@torch.no_grad()
def test_every_conditioning_input_reaches_the_output() -> None:
    network, inputs = _unet()
    reference = network(*inputs.values())
    for name in inputs:
        changed = inputs | {name: inputs[name] + 0.3}
        assert relative_error(network(*changed.values()), reference) > 1e-3, name


@torch.no_grad()
def test_frame_decoder_gives_rgb_last_clamped_to_the_unit_range() -> None:
    autoencoder = _autoencoder()
    latents = 5 * torch.randn(3, 4, 2, 5)
    plain = autoencoder.decode(latents)  # (F, 3, H, W), about [-1, 1]
    frames = FrameDecoder(autoencoder)(latents)
    assert frames.shape == (3, 2 * PATCH, 5 * PATCH, 3)
    assert frames.min() == 0.0
    assert frames.max() == 1.0
    assert float(plain.abs().max()) > 1.0
    for channel in range(3):
        want = (plain[:, channel].clamp(-1, 1) + 1) / 2
        assert torch.allclose(frames[..., channel], want, atol=1e-6)


@torch.no_grad()
def test_encoder_and_decoder_keep_positions() -> None:
    autoencoder = _autoencoder()
    frames = torch.zeros(1, 3, 3 * PATCH, 2 * PATCH)
    frames[:, :, 2 * PATCH :, PATCH:] = 1.0
    latents = autoencoder.encode(frames)
    assert latents.shape == (1, 4, 3, 2)
    changed = (latents - autoencoder.encode(torch.zeros_like(frames))).abs().sum(dim=1)[0]
    assert changed[2, 1] > 0
    changed[2, 1] = 0
    assert not changed.any()
