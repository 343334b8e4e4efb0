"""How networks are written for Core AI: other operators, the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coreai")
pytest.importorskip("coreai_torch")

import torch.nn.functional as F  # noqa: E402
from core_ai import MARKS, run_asset, run_network, sqnr_db  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mvsdk_export.graphs.capture import capture  # noqa: E402
from mvsdk_export.layers.blocks import (  # noqa: E402
    CrossAttention,
    Projection,
    ResidualBlock,
    SpatialAttention,
    TemporalAttention,
    TemporalConv,
)
from mvsdk_export.layers.selection import select_implementations_  # noqa: E402
from mvsdk_export.layers.transformer import GatedUnit, SelfAttention  # noqa: E402
from mvsdk_export.targets.coreai.implementations import (  # noqa: E402
    decompositions,
    write_convolutions_,
)
from mvsdk_export.targets.coreai.lowering import lower_coreai  # noqa: E402

pytestmark = MARKS


class Blocks(nn.Module):
    """Layers that have forms."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.residual = ResidualBlock(64, 64, embedding_dim=16)
        self.spatial = SpatialAttention(64)
        self.cross = CrossAttention(64, 16)
        self.temporal = TemporalAttention(64)
        self.convolution = TemporalConv(64)
        self.tokens = SelfAttention(64, 2)
        self.unit = GatedUnit(64, 32)
        self.last = Projection(32, 16)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map frames `(2, 64, 4, 4)` and a context `(1, 3, 16)` to `(2, 16, 16)`."""
        h = self.residual(x, context[:, 0])
        h = self.cross(self.spatial(h), context)
        h = self.convolution(self.temporal(h, 2), 2).flatten(2).transpose(1, 2)
        return self.last(self.unit(h + self.tokens(h, 2)))


def test_forms_of_layers_compute_what_those_of_training_do(tmp_path: Path) -> None:
    inputs = {"x": torch.randn(2, 64, 4, 4), "context": torch.randn(1, 3, 16)}
    values = {name: value.numpy() for name, value in inputs.items()}
    wanted = run_network(Blocks(), values)
    report = lower_coreai(Blocks(), inputs, ["y"], tmp_path / "b.aimodel", precision="fp32")
    assert sqnr_db(run_asset(tmp_path / "b.aimodel", values)["y"], wanted) >= 100
    assert report.largest_rank <= 4
    assert report.operators["group_norm"] == 6
    assert not {"silu", "tanh", "scaled_dot_product_attention", "invoke"} & report.operators.keys()


def test_linear_layers_of_any_rank_become_convolutions() -> None:
    class Ranks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.plain = nn.Linear(6, 4), nn.Linear(4, 5, bias=False)

        def forward(self, *inputs: Tensor) -> Tensor:
            return torch.cat([self.plain(self.shared(x)).reshape(-1, 5) for x in inputs])

    network = Ranks()
    inputs = {str(rank): torch.randn(*[2, 3, 1, 2][:rank], 6) for rank in range(5)}
    program = capture(network, inputs, rewrite=write_convolutions_)
    found = program.module(check_guards=False)
    values = tuple(inputs.values())
    assert torch.allclose(found(*values), network(*values), atol=1e-6)
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("aten.conv2d.default") == 10
    assert "aten.linear.default" not in targets
    weights = [tuple(x.shape) for x in found.state_dict().values() if x.dim() > 1]
    assert sorted(weights) == [(4, 6, 1, 1), (5, 4, 1, 1)]


def test_attention_is_computed_head_by_head() -> None:
    class Attention(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, scale=0.3)

    inputs = {name: torch.randn(2, 3, n, 8) for name, n in (("q", 5), ("k", 7), ("v", 7))}
    program = capture(Attention(), inputs).run_decompositions(decompositions())
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("aten._softmax.default") == 3
    found = program.module(check_guards=False)(*inputs.values())
    assert torch.allclose(found, Attention()(*inputs.values()), atol=1e-6)


def test_attention_with_a_mask_is_left_to_core_ai(tmp_path: Path) -> None:
    class Attention(nn.Module):
        def forward(self, q: Tensor, mask: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)

    inputs = {"q": torch.randn(1, 2, 4, 8), "mask": torch.randn(1, 1, 4, 4)}
    path = tmp_path / "masked.aimodel"
    report = lower_coreai(Attention(), inputs, ["y"], path, precision="fp32")
    assert report.operators == {"scaled_dot_product_attention": 1}
    values = {name: value.numpy() for name, value in inputs.items()}
    assert sqnr_db(run_asset(path, values)["y"], run_network(Attention(), values)) >= 100


def test_forms_switch_a_network_in_place() -> None:
    blocks = Blocks()
    assert select_implementations_(blocks, "coreai") is blocks
    assert (blocks.residual.norm1.implementation, blocks.last.implementation) == (
        "native",
        "matmul",
    )
    assert (blocks.spatial.implementation, blocks.temporal.implementation) == (
        "heads_split",
        "unrolled",
    )
