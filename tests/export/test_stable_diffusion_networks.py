"""The networks of Stable Diffusion's layout against the public implementations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("seeded")]
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("diffusers", reason="needs the extra dev")

import torch  # noqa: E402
from comparing import count_parameters, lively, relative_error  # noqa: E402
from tiny_svd import quiet  # noqa: E402
from torch import Tensor, nn  # noqa: E402

with quiet():
    from diffusers import AutoencoderKL as PublicAutoencoder
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
    from transformers import CLIPTextConfig, CLIPTextModel

from mvsdk_export.families.stable_diffusion.config import UNetConfig  # noqa: E402
from mvsdk_export.families.stable_diffusion.motion import Mixer, frame_places  # noqa: E402
from mvsdk_export.families.stable_diffusion.text_encoder import (  # noqa: E402
    ClipTextConfig,
    ClipTextEncoder,
)
from mvsdk_export.families.stable_diffusion.unet import UNet  # noqa: E402
from mvsdk_export.families.stable_diffusion.vae import (  # noqa: E402
    AutoencoderKL,
    AutoencoderKLConfig,
)
from mvsdk_export.layers.activations import ACTIVATIONS  # noqa: E402
from mvsdk_export.layers.selection import select_implementations_  # noqa: E402

TOLERANCE = 1e-4
FRAMES = 6
WIDTHS = (32, 64, 64, 64)
PUBLIC: dict[str, Any] = {
    "block_out_channels": WIDTHS,
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "attention_head_dim": 8,
}
OURS: dict[str, Any] = {"block_out_channels": WIDTHS, "norm_groups": 8, "cross_attention_dim": 24}

IMAGE_MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "1.5": ({}, {}),
    "2.1": (
        {"attention_head_dim": (1, 2, 4, 4), "use_linear_projection": True},
        {"attention_heads": (1, 2, 4, 4), "use_linear_projection": True},
    ),
    "edits a picture": ({"in_channels": 8}, {"in_channels": 8}),
    "enlarges a picture": (
        {
            "in_channels": 7,
            "num_class_embeds": 10,
            "use_linear_projection": True,
            "only_cross_attention": (True, True, True, False),
            "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
            "up_block_types": (*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
        },
        {
            "in_channels": 7,
            "num_class_embeds": 10,
            "use_linear_projection": True,
            "only_cross_attention": (True, True, True, False),
            "down_attention": (False, True, True, True),
            "up_attention": (False, True, True, True),
        },
    ),
    "without a middle": ({"mid_block_type": None}, {"mid_block": False}),
    "unequal blocks": ({"layers_per_block": (1, 2, 1, 3)}, {"layers_per_block": (1, 2, 1, 3)}),
}
"""Name -> fields of the public network and of ours, beside `PUBLIC` and `OURS`."""


def _pair(public: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[Any, UNet]:
    with quiet():
        theirs = lively(UNet2DConditionModel(**{**PUBLIC, **public}))
    network = UNet(UNetConfig(**{**OURS, **ours})).eval()
    network.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, network


def _inputs(channels: int = 4, clips: int = 1, frames: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    sample = torch.randn(clips * frames, channels, 16, 24)
    return sample, torch.tensor([749.0, 12.0][:clips]), torch.randn(clips, 77, 24)


@pytest.mark.parametrize(("public", "ours"), IMAGE_MODELS.values(), ids=IMAGE_MODELS)
@torch.no_grad()
def test_image_models_are_the_public_ones(public: dict[str, Any], ours: dict[str, Any]) -> None:
    theirs, network = _pair(public, ours)
    sample, timestep, text = _inputs(public.get("in_channels", 4), clips=2)
    labels = torch.tensor([3, 7]) if "num_class_embeds" in public else None
    want = theirs(sample, timestep, text, class_labels=labels).sample
    assert relative_error(network(sample, timestep, text, labels), want) < TOLERANCE


def _adapter(**fields: Any) -> Any:
    known = {"block_out_channels": WIDTHS, "motion_norm_num_groups": 8}
    with quiet():
        return lively(MotionAdapter(**{**known, "motion_num_attention_heads": 4, **fields}))


def _with_motion(theirs: Any, adapter: Any, **fields: Any) -> UNet:
    config = UNetConfig(
        **OURS,
        temporal_layers="motion",
        num_frames=FRAMES,
        motion_heads=(4,) * 4,
        motion_norm_groups=8,
        **fields,
    )
    network = UNet(config).eval()
    motion = {k: x for k, x in adapter.state_dict().items() if not k.endswith("pos_embed.pe")}
    network.load_state_dict({**theirs.state_dict(), **motion}, strict=True)
    return network


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("mid_block", [True, False], ids=["v1 and v2", "v3"])
@torch.no_grad()
def test_motion_modules_are_the_public_ones(mid_block: bool, clips: int) -> None:
    theirs, _ = _pair({}, {})
    adapter = _adapter(use_motion_mid_block=mid_block)
    network = _with_motion(theirs, adapter, motion_mid_block=mid_block)
    with quiet():
        whole = UNetMotionModel.from_unet2d(theirs, adapter).eval()
    sample, timestep, text = _inputs(clips=clips, frames=FRAMES)
    clip = sample.reshape(clips, FRAMES, 4, 16, 24).transpose(1, 2)
    want = whole(clip, timestep, text.repeat_interleave(FRAMES, 0)).sample
    want = want.transpose(1, 2).reshape(sample.shape)
    got = network(sample, timestep, text)
    assert relative_error(got, want) < TOLERANCE
    alone = torch.cat([theirs(x, timestep[:1], text[:1]).sample for x in sample[:FRAMES].split(1)])
    assert relative_error(got[:FRAMES], alone) > 0.01  # motion does something


@torch.no_grad()
def test_motion_that_ends_in_zeros_is_the_image_model() -> None:
    theirs, _ = _pair({}, {})
    adapter = _adapter()
    for name, weight in adapter.named_parameters():
        if ".proj_out." in name:
            weight.zero_()
    sample, timestep, text = _inputs(frames=FRAMES)
    got = _with_motion(theirs, adapter)(sample, timestep, text)
    want = torch.cat([theirs(x, timestep, text).sample for x in sample.split(1)])
    assert relative_error(got, want) < TOLERANCE


@pytest.mark.parametrize("kind", ["mixed", "mixed_attention"])
@torch.no_grad()
def test_layers_that_are_mixed_in_begin_as_the_image_model(kind: str) -> None:
    _, image = _pair({}, {})
    fields = {"temporal_layers": kind, "motion_heads": (4,) * 4, "motion_norm_groups": 8}
    network = UNet(UNetConfig(**OURS, **fields, num_frames=FRAMES))
    left = network.load_state_dict(image.state_dict(), strict=False)
    assert not left.unexpected_keys
    assert left.missing_keys
    sample, timestep, text = _inputs(frames=FRAMES)
    want = torch.cat([image(x, timestep, text) for x in sample.split(1)])
    assert relative_error(network.eval()(sample, timestep, text), want) < TOLERANCE
    for module in network.modules():
        if isinstance(module, Mixer):
            module.alpha.fill_(0.3)
    assert relative_error(network(sample, timestep, text), want) > 0.01


@torch.no_grad()
def test_all_of_the_image_model_is_left_whatever_is_mixed() -> None:
    mixer, x = Mixer(), torch.randn(3, 4, 5, 5)
    assert torch.equal(mixer(x, torch.randn_like(x)), x)
    mixer.alpha.fill_(1.5)  # training may leave the range
    assert torch.equal(mixer(x, torch.randn_like(x)), x)
    mixer.alpha.fill_(0.25)
    other = torch.randn_like(x)
    assert torch.allclose(mixer(x, other), 0.25 * x + 0.75 * other, atol=1e-6)


def test_places_of_frames_are_those_of_the_library() -> None:
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding

    want = SinusoidalPositionalEmbedding(40, max_seq_length=9).pe[0]
    assert torch.allclose(frame_places(9, 40, torch.device("cpu")), want, atol=1e-6)


@pytest.mark.parametrize("levels", [3, 4], ids=["4 pixels a latent", "8 pixels a latent"])
@torch.no_grad()
def test_the_autoencoder_is_the_public_one(levels: int) -> None:
    widths = (16, 32, 32, 48)[:levels]
    with quiet():
        theirs = lively(
            PublicAutoencoder(
                block_out_channels=widths,
                norm_num_groups=8,
                layers_per_block=2,
                down_block_types=["DownEncoderBlock2D"] * levels,
                up_block_types=["UpDecoderBlock2D"] * levels,
            )
        )
    config = AutoencoderKLConfig(block_out_channels=widths, norm_groups=8)
    network = AutoencoderKL(config).eval()
    network.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 48)
    want = theirs.encode(images).latent_dist.mode()
    latents = network.encode(images)
    assert latents.shape[2:] == (32 // config.scale, 48 // config.scale)
    assert relative_error(latents, want) < TOLERANCE
    assert relative_error(network.decode(want), theirs.decode(want).sample) < TOLERANCE


def _text_encoders(activation: str = "quick_gelu", **ours: Any) -> tuple[Any, ClipTextEncoder]:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_act": activation,
    }
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    with quiet():
        theirs = lively(CLIPTextModel(CLIPTextConfig(vocab_size=100, **sizes, **special)))
    network = ClipTextEncoder(ClipTextConfig(vocabulary_size=100, **sizes, **ours)).eval()
    weights = {
        name if name.startswith("text_model.") else f"text_model.{name}": x
        for name, x in theirs.state_dict().items()
        if not name.endswith("position_ids")
    }
    network.load_state_dict(weights, strict=True)
    return theirs, network


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@torch.no_grad()
def test_the_text_encoder_is_the_public_one(activation: str) -> None:
    theirs, network = _text_encoders(activation)
    ids = torch.randint(0, 100, (1, 77))
    assert relative_error(network(ids), theirs(ids).last_hidden_state) < TOLERANCE


@torch.no_grad()
def test_the_penultimate_layer_goes_through_the_last_normalisation() -> None:
    theirs, network = _text_encoders(clip_skip=1)
    ids = torch.randint(0, 100, (1, 77))
    hidden = theirs(ids, output_hidden_states=True).hidden_states[-2]
    norm = getattr(theirs, "text_model", theirs).final_layer_norm
    assert relative_error(network(ids), norm(hidden)) < TOLERANCE


@pytest.mark.parametrize("engine", ["htp", "htp_fp16", "onnx_cpu", "coreml", "coreai", "xnnpack"])
@torch.no_grad()
def test_engines_compute_the_same(engine: str) -> None:
    theirs, _ = _pair({}, {})
    network = _with_motion(theirs, _adapter())
    sample, timestep, text = _inputs(frames=FRAMES)
    want = network(sample, timestep, text)
    select_implementations_(network, engine)
    assert relative_error(network(sample, timestep, text), want) < TOLERANCE
    _, encoder = _text_encoders()
    ids = torch.randint(0, 100, (1, 77))
    want = encoder(ids)
    select_implementations_(encoder, engine)
    assert relative_error(encoder(ids), want) < TOLERANCE


@torch.no_grad()
def test_a_later_token_changes_no_earlier_one_on_any_engine() -> None:
    _, encoder = _text_encoders()
    ids = torch.randint(0, 100, (1, 77))
    other = ids.clone()
    other[0, 40:] = torch.randint(0, 100, (37,))
    for engine in ("htp", "onnx_cpu"):
        select_implementations_(encoder, engine)
        one, two = encoder(ids), encoder(other)
        assert torch.allclose(one[:, :40], two[:, :40], atol=1e-5)
        assert not torch.allclose(one[:, 40:], two[:, 40:], atol=1e-2)


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({}, 859_520_964),
        ({"temporal_layers": "motion"}, 1_312_730_244),
        ({"temporal_layers": "motion", "motion_mid_block": False}, 859_520_964 + 417_137_600),
    ],
    ids=["Stable Diffusion 1.5", "with motion v2", "with motion v3"],
)
def test_full_sizes_are_those_of_the_public_models(fields: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(UNet(UNetConfig(**fields))) == parameters


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers_per_block": (2, 2)}, "layers_per_block has 2 values for 4 levels"),
        ({"temporal_layers": "magic"}, "temporal_layers is 'magic'; known: none, motion"),
        ({"norm_groups": 7}, r"block_out_channels\[0\] is 320; norm_groups \(7\) divides it"),
        ({"attention_heads": (7, 8, 8, 8)}, r"attention_heads \(7\) divides it"),
        (
            {"temporal_layers": "motion", "num_frames": 33},
            "num_frames is 33; motion has 32 places",
        ),
    ],
)
def test_shapes_that_no_network_has_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        UNet(UNetConfig(**fields))


def test_no_tensor_of_a_graph_for_npus_has_a_rank_above_four() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Ranks(TorchDispatchMode):
        highest = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple | list) else [out]:
                if isinstance(x, Tensor):
                    self.highest = max(self.highest, x.ndim)
            return out

    theirs, _ = _pair({}, {})
    networks: list[tuple[nn.Module, tuple[Tensor, ...]]] = [
        (_with_motion(theirs, _adapter()), _inputs(frames=FRAMES)),
        (_text_encoders()[1], (torch.randint(0, 100, (1, 77)),)),
    ]
    for network, inputs in networks:
        select_implementations_(network, "htp")
        with torch.no_grad(), Ranks() as ranks:
            network(*inputs)
        assert ranks.highest == 4
