"""Compressed weights of every form that coremltools writes, against its own decompression."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools", reason="needs the extra apple")

with warnings.catch_warnings():  # of versions that it was not tried with
    warnings.simplefilter("ignore")
    import coremltools.optimize.coreml as optimize

from mil_packages import block_of, convert_torch, read_model, run, save  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mvsdk_export.quiet import quiet  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.apple]

Compress = Callable[[Any], Any]


class _Layers(nn.Module):
    """A convolution, one in groups, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(16, 32, 3, padding=1)
        self.groups = nn.Conv2d(32, 32, 3, groups=4)
        self.last = nn.Linear(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.groups(torch.tanh(self.first(x))))
        return self.last(h.permute(0, 2, 3, 1))


def _linear(*, joint: bool = False, **options: Any) -> Compress:
    def compress(model: Any) -> Any:
        one = optimize.OpLinearQuantizerConfig(weight_threshold=0, **options)
        config = optimize.OptimizationConfig(one)
        return optimize.linear_quantize_weights(model, config, joint_compression=joint)

    return compress


def _palette(bits: int, *, joint: bool = False, **options: Any) -> Compress:
    def compress(model: Any) -> Any:
        one = optimize.OpPalettizerConfig(
            mode="kmeans", nbits=bits, weight_threshold=0, num_kmeans_workers=1, **options
        )
        config = optimize.OptimizationConfig(one)
        return optimize.palettize_weights(model, config, joint_compression=joint)

    return compress


def _sparse(model: Any) -> Any:
    one = optimize.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0)
    return optimize.prune_weights(model, optimize.OptimizationConfig(one))


def _then(*steps: Compress) -> Compress:
    def compress(model: Any) -> Any:
        for step in steps:
            model = step(model)
        return model

    return compress


_SYMMETRIC = {"mode": "linear_symmetric"}
_BLOCK = {"granularity": "per_block", "block_size": 4}
FORMS: Mapping[str, tuple[str, Compress]] = {
    "linear symmetric": ("iOS16", _linear(**_SYMMETRIC)),
    "linear asymmetric": ("iOS17", _linear(mode="linear")),
    "linear uint8": ("iOS16", _linear(mode="linear", dtype="uint8")),
    **{f"palette {bits}": ("iOS16", _palette(bits)) for bits in (1, 2, 4, 6, 8)},
    "sparse": ("iOS17", _sparse),
    "iOS18 int8": ("iOS18", _linear(mode="linear", granularity="per_channel")),
    "iOS18 int4": ("iOS18", _linear(mode="linear", dtype="int4", granularity="per_channel")),
    "iOS18 uint4 block": ("iOS18", _linear(mode="linear", dtype="uint4", **_BLOCK)),
    "iOS18 int4 block": ("iOS18", _linear(dtype="int4", **_SYMMETRIC, **_BLOCK)),
    "iOS18 int8 tensor": ("iOS18", _linear(mode="linear", granularity="per_tensor")),
    **{f"iOS18 palette {bits}": ("iOS18", _palette(bits)) for bits in (1, 3, 4, 8)},
    **{
        f"iOS18 palette {bits} grouped": (
            "iOS18",
            _palette(bits, granularity="per_grouped_channel", group_size=8),
        )
        for bits in (2, 4, 6)
    },
    "iOS18 palette scales": ("iOS18", _palette(4, enable_per_channel_scale=True)),
    "iOS18 palette vectors": ("iOS18", _palette(4, cluster_dim=2)),
    "iOS18 sparse": ("iOS18", _sparse),
    "iOS18 sparse int8": ("iOS18", _then(_sparse, _linear(joint=True, **_SYMMETRIC))),
    "iOS18 sparse int4 block": (
        "iOS18",
        _then(_sparse, _linear(joint=True, dtype="int4", **_SYMMETRIC, **_BLOCK)),
    ),
    "iOS18 sparse palette": ("iOS18", _then(_sparse, _palette(4, joint=True))),
    "iOS18 palette of int8": (
        "iOS18",
        _then(_palette(4), _linear(joint=True, granularity="per_tensor", **_SYMMETRIC)),
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore")  # of k-means, about weights that are few
def test_compressed_weights_are_decoded_as_coremltools_does_it(form: str, tmp_path: Path) -> None:
    target, compress = FORMS[form]
    x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    model = convert_torch(_Layers(), {"x": x}, ["y"], target=target, half=True)
    with quiet():
        model = compress(model)
        packed = save(model, tmp_path / "packed.mlpackage")
        whole = save(optimize.decompress_weights(model), tmp_path / "whole.mlpackage")
    kinds = [op.type for op in block_of(read_model(packed)).operations]
    assert sum(kind.startswith("constexpr_") for kind in kinds) >= 3
    assert not any(
        op.type.startswith("constexpr_") for op in block_of(read_model(whole)).operations
    )
    feed = {"x": x.numpy().astype(np.float16)}
    np.testing.assert_array_equal(run(packed, feed)["y"], run(whole, feed)["y"])
