"""The networks of Stable Video Diffusion against the public implementations, and compressed."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("diffusers", reason="needs the extra dev")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside the libraries
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mvsdk_export.checkpoints.configs import config_to_document  # noqa: E402
from mvsdk_export.networks.blocks import set_forms_  # noqa: E402
from mvsdk_export.networks.svd import clip_vision, transformer  # noqa: E402
from mvsdk_export.networks.svd.clip_vision import ClipVisionConfig, ClipVisionEncoder  # noqa: E402
from mvsdk_export.networks.svd.forms import (  # noqa: E402
    FRAME_ATTENTION_FORMS,
    GEGLU_FORMS,
    QUICK_GELU_FORMS,
    TOKEN_ATTENTION_FORMS,
)
from mvsdk_export.networks.svd.frames import FRAME_DOWN, FRAME_UP  # noqa: E402
from mvsdk_export.networks.svd.transformer import (  # noqa: E402
    FrameAttention,
    SelfAttention,
    TransformerLayer,
)
from mvsdk_export.networks.svd.unet import SVDUNet, SVDUNetConfig  # noqa: E402
from mvsdk_export.networks.svd.vae import (  # noqa: E402
    TemporalAutoencoder,
    TemporalAutoencoderConfig,
)

FRAMES = 5
SMALL: dict[str, Any] = {
    "block_out_channels": (32, 64, 64, 64),
    "num_attention_heads": (2, 4, 2, 4),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "num_frames": FRAMES,
}
MEDIUM = SMALL | {
    "block_out_channels": (64, 96, 128, 160),
    "num_attention_heads": (2, 3, 2, 5),
    "layers_per_block": 2,
    "transformer_layers_per_block": 2,
    "cross_attention_dim": 40,
}
ALL_DOWN = ("DownEncoderBlock2D",) * 4
COMPRESSED: dict[str, dict[str, Any]] = {
    "folded": {"folded_cross_attention": True},
    "frames": {"frame_levels": 1},
    "frames_linear": {"frame_levels": 2, "frame_down": "first", "frame_up": "linear"},
    "pruned": {"temporal_blocks": "10" * 12},
    "funnels": {"funnel_factor": 0.5},
    "all_funnels": {"funnel_factor": 0.25, "funnel_layers": "all"},
    "everything": {
        "folded_cross_attention": True,
        "frame_levels": 3,
        "temporal_blocks": "110" * 8,
        "funnel_factor": 0.5,
    },
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _lively(network: nn.Module) -> nn.Module:
    """Give norms, biases and mixers values of their own, which start as ones, zeros and halves."""
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.5)
    return network.eval()


def _unet(**fields: Any) -> SVDUNet:
    network = SVDUNet(SVDUNetConfig(**(SMALL | fields)))
    _lively(network)
    return network


def _inputs(
    clips: int = 1, frames: int = FRAMES, size: tuple[int, int] = (16, 24), tokens: int = 1
) -> dict[str, Tensor]:
    return {
        "sample": torch.randn(clips * frames, 8, *size),
        "timestep": torch.randn(clips),
        "encoder_hidden_states": torch.randn(clips, tokens, SMALL["cross_attention_dim"]),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02], [24.0, 30.0, 0.1]])[:clips],
    }


def _relative_error(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).detach().abs().max() / want.detach().abs().max())


# Parity


@pytest.mark.parametrize(
    ("fields", "clips", "size", "tokens"),
    [
        (SMALL, 1, (16, 24), 1),
        (SMALL, 2, (8, 8), 1),
        (SMALL, 2, (12, 20), 3),
        (MEDIUM, 1, (16, 24), 1),
        (MEDIUM, 2, (12, 20), 3),
    ],
)
@torch.no_grad()
def test_unet_is_the_public_one(
    fields: dict[str, Any], clips: int, size: tuple[int, int], tokens: int
) -> None:
    reference = UNetSpatioTemporalConditionModel(**fields)
    _lively(reference)
    network = SVDUNet(SVDUNetConfig(**fields)).eval()
    network.load_state_dict(reference.state_dict())
    inputs = _inputs(clips, size=size, tokens=1)
    inputs["encoder_hidden_states"] = torch.randn(clips, tokens, fields["cross_attention_dim"])
    stacked = inputs | {"sample": inputs["sample"].unflatten(0, (clips, FRAMES))}
    stacked["timestep"] = torch.full((), 1.3)  # the public network takes one for the whole batch
    inputs["timestep"] = torch.full((clips,), 1.3)
    want = reference(**stacked).sample.flatten(0, 1)
    assert _relative_error(network(**inputs), want) < 1e-4


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_autoencoder_is_the_public_one(layers: int) -> None:
    fields: dict[str, Any] = {
        "block_out_channels": (32, 64, 64, 96),
        "layers_per_block": layers,
    }
    reference = AutoencoderKLTemporalDecoder(down_block_types=ALL_DOWN, **fields)
    _lively(reference)
    network = TemporalAutoencoder(TemporalAutoencoderConfig(**fields)).eval()
    network.load_state_dict(reference.state_dict())
    frames = torch.randn(6, 3, 24, 40)
    want = reference.encode(frames).latent_dist.mode()
    assert _relative_error(network.encode(frames), want) < 1e-4
    latents = torch.randn(6, 4, 3, 5)
    for num_frames in (3, 6):
        want = reference.decode(latents, num_frames=num_frames).sample
        assert _relative_error(network.decode(latents, num_frames), want) < 1e-4
    assert torch.equal(network.decode(latents), network.decode(latents, 6))


@pytest.mark.parametrize("activation", list(clip_vision.ACTIVATIONS))
@torch.no_grad()
def test_image_encoder_is_the_public_one(activation: str) -> None:
    assert _error_of_image_encoder(_clip(activation), std=0.2) < 1e-5


@torch.no_grad()
def test_image_encoder_of_medium_size_is_the_public_one() -> None:
    assert _error_of_image_encoder(MEDIUM_CLIP, std=0.05) < 1e-4


MEDIUM_CLIP: dict[str, Any] = {
    "hidden_size": 320,
    "intermediate_size": 1280,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,  # 80 channels each, as in the public model
    "image_size": 112,
    "patch_size": 14,
    "projection_dim": 256,
    "hidden_act": "gelu",
}


def _error_of_image_encoder(fields: dict[str, Any], std: float) -> float:
    """Return the relative error to the public encoder with the same random weights."""
    reference = CLIPVisionModelWithProjection(CLIPVisionConfig(**fields))
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=std)
    network = ClipVisionEncoder(ClipVisionConfig(**fields)).eval()
    network.load_state_dict(reference.eval().state_dict())
    pixels = torch.randn(2, 3, fields["image_size"], fields["image_size"])
    return _relative_error(network(pixels), reference(pixels).image_embeds)


def _clip(activation: str = "gelu") -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 7,
        "projection_dim": 24,
        "hidden_act": activation,
    }


FULL_SIZE: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], int]] = {
    "unet": (
        lambda: SVDUNet(SVDUNetConfig()),
        lambda: UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20)),
        1_524_623_082,
    ),
    "vae": (
        lambda: TemporalAutoencoder(TemporalAutoencoderConfig()),
        lambda: AutoencoderKLTemporalDecoder(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=ALL_DOWN
        ),
        97_742_847,
    ),
    "image_encoder": (
        lambda: ClipVisionEncoder(ClipVisionConfig()),
        lambda: CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                **{field.name: field.default for field in dataclasses.fields(ClipVisionConfig)}
            )
        ),
        632_076_800,
    ),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_public_weights_fit_the_networks_of_full_size(name: str) -> None:
    build, build_reference, parameters = FULL_SIZE[name]
    with torch.device("meta"):
        network, reference = build(), build_reference()
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert shapes == {key: value.shape for key, value in reference.state_dict().items()}
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_full_size_runs_without_weights() -> None:
    with torch.device("meta"):
        network = SVDUNet(SVDUNetConfig(**COMPRESSED["folded"], frame_levels=1, funnel_factor=0.5))
        set_forms_(network)
        out = network(
            torch.empty(14, 8, 32, 64), torch.empty(1), torch.empty(1, 1, 1024), torch.empty(1, 3)
        )
    assert out.shape == (14, 4, 32, 64)
    assert len(SVDUNet.temporal_blocks(network)) == SVDUNetConfig().temporal_block_count == 38


# Forms


class _Ranks(TorchDispatchMode):
    """Remember the highest rank of a tensor that any operator makes, views included."""

    highest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.highest = max(self.highest, value.ndim)
        return out


def _tokens(frames: int = FRAMES) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = 2 * torch.randn(3, frames, 6, 4 * 8)
    return q, k, v


FORMS: dict[str, tuple[dict[str, Any], Callable[[], tuple[Any, ...]]]] = {
    "token_attention": (TOKEN_ATTENTION_FORMS, lambda: (*_tokens(), 4, 0.3)),
    "frame_attention": (FRAME_ATTENTION_FORMS, lambda: (*_tokens(), FRAMES, 4, 0.3)),
    "geglu": (
        GEGLU_FORMS,
        lambda: (
            torch.randn(2, 5, 8),
            torch.randn(12, 8),
            torch.randn(12),
            nn.functional.linear,
        ),
    ),
    "quick_gelu": (QUICK_GELU_FORMS, lambda: (torch.randn(3, 4),)),
}


@pytest.mark.parametrize(
    ("layer", "form"), [(layer, form) for layer, (table, _) in FORMS.items() for form in table]
)
def test_all_forms_of_a_layer_say_the_same(layer: str, form: str) -> None:
    table, arguments = FORMS[layer]
    inputs = arguments()
    want = next(iter(table.values()))(*inputs)
    assert _relative_error(table[form](*inputs), want) < 1e-5


def test_attention_in_bfloat16_says_the_same() -> None:
    q, k, v = _tokens()
    got = TOKEN_ATTENTION_FORMS["fused"](*(x.bfloat16() for x in (q, k, v)), 4, 0.3)
    assert got.dtype == torch.bfloat16
    assert _relative_error(got.float(), TOKEN_ATTENTION_FORMS["fused"](q, k, v, 4, 0.3)) < 0.03


def test_every_layer_with_forms_has_one_for_npus() -> None:
    networks = [
        _unet(),
        TemporalAutoencoder(TemporalAutoencoderConfig(block_out_channels=(32, 32, 32, 32))),
        ClipVisionEncoder(ClipVisionConfig(**_clip("quick_gelu"))),
    ]
    kinds = {
        type(module)
        for network in networks
        for module in network.modules()
        if hasattr(module, "form")
    }
    defined = {
        kind
        for module in (transformer, clip_vision)
        for kind in vars(module).values()
        if hasattr(kind, "NPU_FORM") and kind.__module__ == module.__name__
    }
    assert defined <= kinds
    known = {form for table, _ in FORMS.values() for form in table}
    assert all(kind.NPU_FORM in known for kind in defined)
    for network in networks:
        set_forms_(network)
        for module in network.modules():
            assert getattr(module, "form", None) == getattr(type(module), "NPU_FORM", None)


@pytest.mark.parametrize("forms", ["training", "npu"])
@torch.no_grad()
def test_no_tensor_has_a_rank_above_four(forms: str) -> None:
    vae = TemporalAutoencoder(TemporalAutoencoderConfig(block_out_channels=(32, 32, 32, 32)))
    unet, encoder = (
        _unet(**COMPRESSED["everything"]),
        ClipVisionEncoder(ClipVisionConfig(**_clip())),
    )
    whole = _unet()
    for network in (vae, unet, encoder, whole):
        if forms == "npu":
            set_forms_(network)
    with _Ranks() as ranks:
        vae.decode(vae.encode(torch.randn(2, 3, 16, 16)))
        unet(**_inputs())
        whole(**_inputs())
        encoder(torch.randn(1, 3, 28, 28))
        if forms == "training":
            whole(**_inputs(clips=2))
            unet(**_inputs(clips=2))
    assert ranks.highest == 4


@pytest.mark.parametrize("name", ["whole", *COMPRESSED])
@torch.no_grad()
def test_npu_forms_change_no_result(name: str) -> None:
    network, inputs = _unet(**COMPRESSED.get(name, {})).double(), _inputs()
    inputs = {key: value.double() for key, value in inputs.items()}
    want = network(**inputs)
    assert _relative_error(set_forms_(network)(**inputs), want) < 1e-6  # sinusoids are float32


# Compressed networks


@pytest.mark.parametrize("name", COMPRESSED)
@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(name: str) -> None:
    network, inputs = _unet(**COMPRESSED[name]), _inputs(clips=2)
    got = network(**inputs).unflatten(0, (2, FRAMES))
    for clip in range(2):
        alone = {key: value.unflatten(0, (2, -1))[clip] for key, value in inputs.items()}
        assert _relative_error(got[clip], network(**alone)) < 1e-4


@pytest.mark.parametrize("name", ["whole", *COMPRESSED])
def test_configuration_says_which_weights_there_are(name: str) -> None:
    network = _unet(**COMPRESSED.get(name, {}))
    document = config_to_document(network.config)
    again = SVDUNet(SVDUNetConfig(**document))
    again.load_state_dict(network.state_dict())
    inputs = _inputs()
    assert torch.equal(again.eval()(**inputs), network(**inputs))


def test_temporal_blocks_are_listed_in_the_order_of_execution() -> None:
    network, order = _unet(), []
    named = network.temporal_blocks()
    for name, block in named.items():
        assert network.get_submodule(name) is block
        block.register_forward_hook(lambda *_, name=name: order.append(name))
    network(**_inputs())
    assert order == list(named)
    assert len(order) == network.config.temporal_block_count == 24
    assert order[:2] == ["down_blocks.0.resnets.0", "down_blocks.0.attentions.0"]


def test_pruned_blocks_lose_their_temporal_weights_and_nothing_else() -> None:
    kept = "01" + "1" * 22
    names = list(_unet().temporal_blocks())
    network = _unet(temporal_blocks=kept)
    assert [name for name, block in network.temporal_blocks().items() if block.is_pruned] == [
        names[0]
    ]
    gone = _unet().state_dict().keys() - network.state_dict().keys()
    assert gone
    assert all(key.startswith((f"{names[0]}.temporal", f"{names[0]}.time")) for key in gone)
    assert network.state_dict().keys() < _unet().state_dict().keys()


@torch.no_grad()
def test_closed_gates_and_pruned_blocks_are_a_network_for_single_images() -> None:
    network, inputs = _unet(), _inputs()
    whole = network(**inputs)
    for block in network.temporal_blocks().values():
        block.gate = torch.zeros(())
    closed = network(**inputs)
    assert _relative_error(closed, whole) > 0.01
    for block in network.temporal_blocks().values():
        block.prune_()
    assert _relative_error(network(**inputs), closed) < 1e-6
    for frame in range(FRAMES):
        alone = inputs | {"sample": inputs["sample"][frame : frame + 1]}
        assert _relative_error(network(**alone)[0], closed[frame]) < 1e-4


def test_an_open_gate_changes_nothing_and_learns() -> None:
    network, inputs = _unet(), _inputs()
    want = network(**inputs)
    gates = torch.ones(24, requires_grad=True)
    for gate, block in zip(gates, network.temporal_blocks().values(), strict=True):
        block.gate = gate
    assert "gate" not in " ".join(network.state_dict())
    got = network(**inputs)
    assert _relative_error(got, want) < 1e-6
    got.square().sum().backward()
    assert gates.grad is not None
    assert gates.grad.all()


@pytest.mark.parametrize("level", [1, 2, 3])
def test_frames_are_halved_from_a_level_on(level: int) -> None:
    network, seen = _unet(frame_levels=level), dict[str, int]()

    def watch(name: str) -> Callable[..., None]:
        return lambda _, __, out: seen.update({name: out.shape[0]})

    for name, block in network.temporal_blocks().items():
        block.register_forward_hook(watch(name))
    assert network(**_inputs(frames=7)).shape[0] == 7
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
    network, inputs, later = _unet(frame_levels=2), _inputs(clips=2), []
    network.mid_block.resnets[0].register_forward_hook(lambda *_: later.append(1))
    found = network.features(**inputs)
    assert [frames for _, frames in found] == [5, 5, 3, 3]
    assert [tuple(x.shape) for x, _ in found] == [
        (10, 32, 8, 12),
        (10, 64, 4, 6),
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
    assert _relative_error(folded(x, context, 3), whole(x, context, 3)) < 1e-5
    with pytest.raises(ValueError, match="takes 1 feature per clip, got 2"):
        folded(x, torch.randn(2, 2, 24), 3)


def test_funnels_narrow_heads_and_keep_the_scale_of_the_logits() -> None:
    for layers, kinds in (("spatial", {SelfAttention}), ("all", {SelfAttention, FrameAttention})):
        network, ordinary = _unet(funnel_factor=0.5, funnel_layers=layers), _unet()
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
        ({"num_attention_heads": (2, 3, 2, 4)}, r"block_out_channels\[1\] is 64; heads \(3\)"),
    ],
)
def test_impossible_shapes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _unet(**fields)


def test_impossible_image_encoders_are_refused() -> None:
    for fields, message in (
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; known: gelu, quick_gelu"),
        ({"num_attention_heads": 5}, r"hidden_size is 32; num_attention_heads \(5\) divides it"),
        ({"patch_size": 8}, r"image_size is 28; patch_size \(8\) divides it"),
        ({"image_size": 1 << 20, "patch_size": 1 << 14}, "image_size is 1048576; it is at most"),
        ({"image_size": 1024, "patch_size": 8}, "patch_size is 8; at most 64 patches lie along"),
    ):
        with pytest.raises(ValueError, match=message):
            ClipVisionEncoder(ClipVisionConfig(**(_clip() | fields)))
