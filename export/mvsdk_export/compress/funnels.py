"""Narrower heads of self-attention, by thin matrices that are trained and then merged.

Queries and keys of a head meet in one product, W_q^T W_k; values and output in another, W_o W_v.
Nothing stands in between. A *funnel* is a pair of thin matrices inside such a product that takes
its rank from d, the channels of a head, to d' = round(factor d):

    W_q^T W_k  ->  (F_q W_q)^T (F_k W_k)        F_q, F_k: (d', d)
    W_o W_v    ->  (W_o F_o) (F_v W_v)          F_v: (d', d), F_o: (d, d')

While it is trained, a funnel is an adaptor beside the weight that it narrows, and both learn.
Merged, it is part of the weight, and the layer is smaller.

The coupled singular initialisation takes, for each head, the best product of rank d' in Frobenius
norm: the truncated singular value decomposition. What it loses is the tail of the singular values.

Reference:
    Ben Yahia et al. 2024, arXiv:2412.07583 (channel funnels); the initialisation is derived here.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from mvsdk._text import quoted
from mvsdk_export.compress.rebuilding import build_empty, rebuild
from mvsdk_export.compress.reports import LATENT_SIZE, Fidelity, Report
from mvsdk_export.errors import CompressionError
from mvsdk_export.families.svd.config import FUNNEL_LAYERS, LEVELS, SVDUNetConfig
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.layers.transformer import FrameAttention, SelfAttention

Init = Literal["csi", "he"]


class FunnelAfter(nn.Module):
    """A linear layer without bias, and a funnel behind it: queries, keys or values.

    Args:
        weight: Weight of the layer, `(heads * d, C)`; shared, not copied.
        funnel: `(heads, d', d)`.
        factor: What the width was asked to be, for `merge_funnels`.
    """

    def __init__(self, weight: Tensor, funnel: Tensor, factor: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.funnel = nn.Parameter(funnel)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, N, C)` to `(B, N, heads * d')`."""
        return nn.functional.linear(x, self.merged())

    def merged(self) -> Tensor:
        """Return the weight of the one layer that the two are, `(heads * d', C)`."""
        heads, _, before = self.funnel.shape
        return (self.funnel @ self.weight.reshape(heads, before, -1)).flatten(0, 1)


class FunnelBefore(nn.Module):
    """A linear layer, and a funnel in front of it: the output of an attention.

    Args:
        weight: Weight of the layer, `(C, heads * d)`; shared, not copied.
        bias: Bias of the layer, `(C,)`; shared too.
        funnel: `(heads, d, d')`.
        factor: What the width was asked to be, for `merge_funnels`.
    """

    def __init__(self, weight: Tensor, bias: Tensor, funnel: Tensor, factor: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.funnel = nn.Parameter(funnel)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, N, heads * d')` to `(B, N, C)`."""
        return nn.functional.linear(x, self.merged(), self.bias)

    def merged(self) -> Tensor:
        """Return the weight of the one layer that the two are, `(C, heads * d')`."""
        heads, before, _ = self.funnel.shape
        columns = self.weight.reshape(-1, heads, before).transpose(0, 1)  # (heads, C, d)
        return (columns @ self.funnel).transpose(0, 1).flatten(1)


def add_funnels(
    unet: SVDUNet,
    factor: float,
    layers: str = "spatial",
    *,
    init: Init = "csi",
    seed: int = 0,
    latent_size: tuple[int, int] = LATENT_SIZE,
) -> tuple[SVDUNet, Report]:
    """Put funnels into self-attention, as adaptors to train.

    The state dict of what is returned has, beside the weight of every layer with a funnel, a
    `funnel`. To read such a state dict back, add funnels of the same factor to a network of the
    same configuration and load it. `merge_funnels` ends the training.

    Args:
        unet: The network; it stays as it is, and shares its weights.
        factor: Width of a head over what it was, in (0, 1]; 1 changes nothing.
        layers: `"spatial"`, or `"all"` for attention over frames too.
        init: `"csi"`, the best there is without training; `"he"`, random, to compare it with.
        seed: Of a random initialisation.
        latent_size: Height and width of latents for which the report counts FLOPs.

    Returns:
        The network with adaptors, whose `config` is still that without; and a report on what it
        is once merged.

    Raises:
        CompressionError: If there are funnels already, or an argument is not allowed.

    Reference:
        Ben Yahia et al. 2024, arXiv:2412.07583; He et al. 2015, arXiv:1502.01852.
    """
    if init not in get_args(Init):
        raise CompressionError(f"unknown initialisation {quoted(init)}; known: csi, he")
    report = report_funnels(unet.config, factor, layers, latent_size=latent_size)
    narrow = build_empty(report.config)
    network = rebuild(unet, unet.config, unet.state_dict())
    generator = torch.Generator().manual_seed(seed)
    fidelity: list[Fidelity] = []
    for name, attention in _find_attentions(network, layers).items():
        inner = narrow.get_parameter(f"{name}.to_q.weight").shape[0] // attention.heads
        fidelity += _add_(attention, name, inner, factor, init, generator)
    return network, replace(report, fidelity=tuple(fidelity))


def merge_funnels(unet: SVDUNet) -> SVDUNet:
    """Make one layer of every layer and its funnel; outputs stay the same.

    Args:
        unet: A network of `add_funnels`, trained or not; it stays as it is, and shares the weights
            that have no funnel.

    Raises:
        CompressionError: If it has no funnels as adaptors.
    """
    funnels = {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, FunnelAfter | FunnelBefore)
    }
    if not funnels:
        raise CompressionError("the network has no funnels to merge; add some with add_funnels")
    state = unet.state_dict()
    for name, module in funnels.items():
        del state[f"{name}.funnel"]
        state[f"{name}.weight"] = module.merged().detach()
    in_frames = any(".temporal_transformer_blocks." in name for name in funnels)
    config = replace(
        unet.config,
        funnel_factor=next(iter(funnels.values())).factor,
        funnel_layers="all" if in_frames else "spatial",
    )
    return rebuild(unet, config, state)


def report_funnels(
    config: SVDUNetConfig,
    factor: float,
    layers: str = "spatial",
    *,
    latent_size: tuple[int, int] = LATENT_SIZE,
) -> Report:
    """Report on `add_funnels` from the configuration alone, without fidelities.

    Raises:
        CompressionError: As there.
    """
    if config.funnel_factor != 1:
        raise CompressionError(
            "self-attention has funnels already; leave the step funnels out, or start from the "
            "uncompressed network"
        )
    if not 0 < factor <= 1:
        raise CompressionError(f"factor of funnels is {factor:g}; allowed: above 0, at most 1")
    if layers not in FUNNEL_LAYERS:
        raise CompressionError(
            f"unknown layers {quoted(layers)} for funnels; known: {', '.join(FUNNEL_LAYERS)}"
        )
    after = replace(config, funnel_factor=float(factor), funnel_layers=layers)
    widths = sorted(
        {(config.head_dim(level), after.inner_head_dim(level)) for level in range(LEVELS)}
    )
    heads = ", ".join(f"{before} to {inner}" for before, inner in widths)
    where = "spatial self-attention" if layers == "spatial" else "self-attention"
    return Report(
        step="funnels",
        config_before=config,
        config=after,
        what=f"heads of {where}: {heads} channels",
        exact=all(before == inner for before, inner in widths),
        latent_size=latent_size,
    )


def _find_attentions(unet: SVDUNet, layers: str) -> dict[str, SelfAttention]:
    return {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, SelfAttention)
        and (layers == "all" or not isinstance(module, FrameAttention))
    }


def _add_(
    attention: SelfAttention,
    name: str,
    inner: int,
    factor: float,
    init: Init,
    generator: torch.Generator,
) -> list[Fidelity]:
    """Put funnels into one attention; return how well its two products are kept."""
    heads, out = attention.heads, cast("nn.Linear", attention.to_out[0])

    def rows(weight: Tensor) -> Tensor:
        return weight.detach().reshape(heads, -1, weight.shape[1]).double()  # (heads, d, C)

    query, key, value = (
        rows(layer.weight) for layer in (attention.to_q, attention.to_k, attention.to_v)
    )
    logits = _Product.of(query, key)
    output = _Product.of(rows(out.weight.T), value)
    for_query, for_key = logits.funnels(inner, init, generator)
    for_out, for_value = output.funnels(inner, init, generator)
    for layer, funnel in (("to_q", for_query), ("to_k", for_key), ("to_v", for_value)):
        weight = getattr(attention, layer).weight.detach()
        setattr(attention, layer, FunnelAfter(weight, funnel.to(weight), factor))
    weight, bias = out.weight.detach(), out.bias.detach()
    before = for_out.transpose(1, 2).contiguous().to(weight)
    attention.to_out[0] = FunnelBefore(weight, bias, before, factor)
    return [
        logits.fidelity(name, "query_key", for_query, for_key),
        output.fidelity(name, "value_out", for_out, for_value),
    ]


class _Product(NamedTuple):
    """The products `left^T right` of all heads, `(heads, C, C)` of rank d, by small factors.

    With left^T = Q R and right^T = Q' R', the product is Q (R R'^T) Q'^T: what is inside is d x d
    and has the singular values, whatever C is.
    """

    left: Tensor
    """R, `(heads, d, d)` float64."""
    right: Tensor
    """R'."""

    @classmethod
    def of(cls, left: Tensor, right: Tensor) -> _Product:
        """Take the factors of heads `(heads, d, C)` float64 apart."""
        left, right = (torch.linalg.qr(x.transpose(1, 2)).R for x in (left, right))
        return cls(left, right)

    def funnels(self, rank: int, init: Init, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return funnels of left and right, `(heads, rank, d)` float64."""
        heads, _, d = self.left.shape
        if init == "he":
            left, right = (
                torch.randn(heads, rank, d, generator=generator, dtype=torch.float64)
                * math.sqrt(2 / d)
                for _ in range(2)
            )
            return left.to(self.left), right.to(self.right)
        u, values, vt = torch.linalg.svd(self.left @ self.right.transpose(1, 2))
        u, values, vt = u[:, :, :rank], values[:, :rank, None], vt[:, :rank]
        # The pseudo-inverses of the derivation cancel: R'^T V / S = R^+ U. No inverse is taken,
        # except that of singular values; a direction that the product has not gets no funnel.
        least = values[:, :1] * torch.finfo(values.dtype).eps * d
        scale = torch.where(values > least, values.clamp(min=1e-300).rsqrt(), 0.0)
        return scale * (vt @ self.right), scale * (u.transpose(1, 2) @ self.left)

    def fidelity(self, layer: str, product: str, left: Tensor, right: Tensor) -> Fidelity:
        """Measure what funnels leave of the product."""
        was = self.left @ self.right.transpose(1, 2)
        now = self.left @ left.transpose(1, 2) @ right @ self.right.transpose(1, 2)
        return Fidelity(
            layer=layer,
            product=product,
            rank_before=left.shape[2],
            rank_after=left.shape[1],
            error=float(torch.linalg.vector_norm(was - now)),
            norm=float(torch.linalg.vector_norm(was)),
        )
