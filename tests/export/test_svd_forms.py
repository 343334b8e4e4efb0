"""The forms of the layers of Stable Video Diffusion: for training, and for NPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("seeded")]
pytest.importorskip("torch", reason="needs the extra export")

import torch  # noqa: E402
from comparing import relative_error  # noqa: E402
from small_svd_unets import COMPRESSED, FRAMES, small_inputs, small_unet  # noqa: E402
from tiny_svd import CLIP_FIELDS, VAE_FIELDS  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from mvsdk_export.families.stable_diffusion.config import UNetConfig  # noqa: E402
from mvsdk_export.families.stable_diffusion.text_encoder import ClipTextConfig, ClipTextEncoder  # noqa: E402
from mvsdk_export.families.stable_diffusion.unet import UNet  # noqa: E402
from mvsdk_export.families.svd.clip_vision import ClipVisionConfig, ClipVisionEncoder  # noqa: E402
from mvsdk_export.families.svd.vae import TemporalAutoencoder, TemporalAutoencoderConfig  # noqa: E402
from mvsdk_export.layers import (  # noqa: E402
    clip,
    embeddings,
    parts,
    resnet,
    token_attention,
    transformer,
)
from mvsdk_export.layers.activations import GEGLU_FUNCTIONS, QUICK_GELU_FUNCTIONS  # noqa: E402
from mvsdk_export.layers.embeddings import TIME_FUNCTIONS  # noqa: E402
from mvsdk_export.layers.frame_attention import FRAME_ATTENTION_FUNCTIONS  # noqa: E402
from mvsdk_export.layers.parts import (  # noqa: E402
    FRAME_FUNCTIONS,
    MAP_BYTES,
    POSITION_FUNCTIONS,
    frames_apart,
    positions_apart,
)
from mvsdk_export.layers.resnet import ResBlock  # noqa: E402
from mvsdk_export.layers.selection import ENGINES, implementation_of, select_implementations_  # noqa: E402
from mvsdk_export.layers.token_attention import (  # noqa: E402
    CAUSAL_ATTENTION_FUNCTIONS,
    TOKEN_ATTENTION_FUNCTIONS,
)


class _Ranks(TorchDispatchMode):
    """Remember the highest rank of a tensor that any operator makes, views included."""

    highest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.highest = max(self.highest, value.ndim)
        return out


def _convolution() -> nn.Module:
    return nn.Conv2d(4, 5, 3, padding=1).requires_grad_(False)


def small_image_model() -> UNetConfig:
    """Return an image model of few channels with motion modules."""
    return UNetConfig(
        block_out_channels=(32, 32, 32, 32),
        norm_groups=8,
        cross_attention_dim=8,
        attention_heads=(4,) * 4,
        motion_heads=(4,) * 4,
        motion_norm_groups=8,
        temporal_layers="motion",
        num_frames=FRAMES,
    )


def _tokens(frames: int = FRAMES) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = 2 * torch.randn(3, frames, 6, 4 * 8)
    return q, k, v


FORMS: dict[str, tuple[dict[str, Any], Callable[[], tuple[Any, ...]]]] = {
    "token_attention": (TOKEN_ATTENTION_FUNCTIONS, lambda: (*_tokens(), 4, 0.3)),
    "causal_attention": (CAUSAL_ATTENTION_FUNCTIONS, lambda: (*_tokens(), 4, 0.3)),
    "time": (TIME_FUNCTIONS, lambda: (torch.tensor([0.0, 249.0, 999.0]), 16, 999)),
    "frame_attention": (FRAME_ATTENTION_FUNCTIONS, lambda: (*_tokens(), FRAMES, 4, 0.3)),
    "geglu": (
        GEGLU_FUNCTIONS,
        lambda: (
            torch.randn(2, 5, 8),
            torch.randn(12, 8),
            torch.randn(12),
            nn.functional.linear,
        ),
    ),
    "frames": (
        FRAME_FUNCTIONS,
        lambda: (torch.randn(3, 4, 2, 8), _convolution(), MAP_BYTES // (2 * 2 * 8)),
    ),
    "positions": (
        POSITION_FUNCTIONS,
        lambda: (torch.randn(3, 8, 4), nn.Linear(4, 4).requires_grad_(False), MAP_BYTES // 16),
    ),
    "quick_gelu": (QUICK_GELU_FUNCTIONS, lambda: (torch.randn(3, 4),)),
}


@pytest.mark.parametrize(
    ("layer", "form"), [(layer, form) for layer, (table, _) in FORMS.items() for form in table]
)
def test_all_forms_of_a_layer_say_the_same(layer: str, form: str) -> None:
    table, arguments = FORMS[layer]
    inputs = arguments()
    want = next(iter(table.values()))(*inputs)
    assert relative_error(table[form](*inputs), want) < 1e-5


@pytest.mark.parametrize(
    ("frames", "side", "widest", "runs"),
    [
        (14, 64, 320, [1] * 14),  # level 0 of MobileVD: 2.5 MiB a frame
        (14, 16, 1280, [1] * 14),
        (7, 16, 1280, [7]),  # all have room
        (2, 256, 128, [2]),  # a single frame has none
    ],
)
def test_frames_run_alone_where_one_has_room_and_all_have_none(
    frames: int, side: int, widest: int, runs: list[int]
) -> None:
    seen: list[int] = []

    def layer(x: Tensor) -> Tensor:
        seen.append(x.shape[0])
        return x

    x = torch.arange(float(frames))[:, None, None, None].expand(frames, 1, side, side)
    assert torch.equal(frames_apart(x, layer, widest), x)
    assert seen == runs


@pytest.mark.parametrize(
    ("frames", "positions", "widest", "runs"),
    [
        (14, 2048, 1280, [128] * 16),  # level 0 of MobileVD
        (14, 512, 2560, [64] * 8),
        (8, 64, 512, [64]),
        (14, 2049, 1280, [3] * 683),  # 2049 is 3 times a prime
        (14, 7, 1 << 20, [1] * 7),  # not even one has room
    ],
)
def test_positions_run_in_as_few_equal_parts_as_have_room(
    frames: int, positions: int, widest: int, runs: list[int]
) -> None:
    seen: list[int] = []

    def layer(x: Tensor) -> Tensor:
        seen.append(x.shape[1])
        return x

    x = torch.randn(frames, positions, 1)
    assert torch.equal(positions_apart(x, layer, widest), x)
    assert seen == runs


def test_attention_in_bfloat16_says_the_same() -> None:
    q, k, v = _tokens()
    got = TOKEN_ATTENTION_FUNCTIONS["fused"](*(x.bfloat16() for x in (q, k, v)), 4, 0.3)
    assert got.dtype == torch.bfloat16
    assert relative_error(got.float(), TOKEN_ATTENTION_FUNCTIONS["fused"](q, k, v, 4, 0.3)) < 0.03


@pytest.mark.parametrize("engine", ENGINES)
def test_every_layer_is_implemented_as_its_class_says(engine: str) -> None:
    networks = [
        small_unet(),
        TemporalAutoencoder(TemporalAutoencoderConfig(**VAE_FIELDS)),
        ClipVisionEncoder(replace(ClipVisionConfig(**CLIP_FIELDS), hidden_act="quick_gelu")),
        UNet(small_image_model()),
        ClipTextEncoder(ClipTextConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=1)),
    ]
    kinds = {
        type(module)
        for network in networks
        for module in network.modules()
        if hasattr(type(module), "IMPLEMENTATIONS")
    }
    defined = {
        kind
        for module in (clip, embeddings, resnet, transformer)
        for kind in vars(module).values()
        if hasattr(kind, "IMPLEMENTATIONS") and kind.__module__ == module.__name__
    }
    assert len(defined) > 8
    assert defined <= kinds
    for network in networks:
        select_implementations_(network, engine)
        for module in network.modules():
            want = implementation_of(type(module), engine)
            assert want is None or module.implementation == want


def test_probabilities_without_room_are_made_head_by_head(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = _tokens()
    want = TOKEN_ATTENTION_FUNCTIONS["batched"](*tokens, 4, 0.3)
    softmaxes: list[tuple[int, ...]] = []

    class Softmaxes(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            if "softmax" in str(func):
                softmaxes.append(tuple(out.shape))
            return out

    for room, shapes in ((2**30, [(FRAMES, 4, 6, 6)]), (1, [(1, 6, 6)] * FRAMES * 4)):
        monkeypatch.setattr(token_attention, "SCORE_BYTES", room)
        softmaxes.clear()
        with Softmaxes():
            got = TOKEN_ATTENTION_FUNCTIONS["bounded"](*tokens, 4, 0.3)
        assert relative_error(got, want) < 1e-5
        assert softmaxes == shapes


@pytest.mark.parametrize("forms", ["training", "npu"])
@torch.no_grad()
def test_no_tensor_has_a_rank_above_four(forms: str) -> None:
    vae = TemporalAutoencoder(TemporalAutoencoderConfig(**VAE_FIELDS))
    unet, encoder = (
        small_unet(**COMPRESSED["everything"]),
        ClipVisionEncoder(ClipVisionConfig(**CLIP_FIELDS)),
    )
    whole = small_unet()
    for network in (vae, unet, encoder, whole):
        if forms == "npu":
            select_implementations_(network, "htp")
    with _Ranks() as ranks:
        vae.decode(vae.encode(torch.randn(2, 3, 16, 16)))
        unet(**small_inputs())
        whole(**small_inputs())
        encoder(torch.randn(1, 3, 28, 28))
        if forms == "training":
            whole(**small_inputs(clips=2))
            unet(**small_inputs(clips=2))
    assert ranks.highest == 4


@pytest.mark.parametrize("engine", ["htp", "htp_fp16"])
@pytest.mark.parametrize("name", ["whole", *COMPRESSED])
@torch.no_grad()
def test_implementations_of_npus_change_no_result(name: str, engine: str) -> None:
    network, inputs = small_unet(**COMPRESSED.get(name, {})).double(), small_inputs()
    inputs = {key: value.double() for key, value in inputs.items()}
    want = network(**inputs)
    select_implementations_(network, engine)
    assert relative_error(network(**inputs), want) < 1e-6  # sinusoids are float32


@torch.no_grad()
def test_layers_in_parts_change_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = small_unet().double(), small_inputs()
    inputs = {key: value.double() for key, value in inputs.items()}
    want = network(**inputs)
    monkeypatch.setattr(parts, "MAP_BYTES", 4096)
    runs: Counter[nn.Module] = Counter()
    layers = [
        *(x.conv1 for x in network.modules() if isinstance(x, ResBlock)),
        *(x.net[0] for x in network.modules() if isinstance(x, transformer.FeedForward)),
    ]
    for layer in layers:
        layer.register_forward_hook(lambda module, *_: runs.update([module]))
    assert relative_error(select_implementations_(network, "htp")(**inputs), want) < 1e-6
    split = {type(layer) for layer, count in runs.items() if count > 1}
    assert split == {nn.Conv2d, transformer.GatedUnit}
