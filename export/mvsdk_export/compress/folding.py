"""Cross-attention to one token becomes one vector per layer.

The softmax over a single key is one, whatever the query. The output of such a layer is therefore
the same for every position: W_out W_value c + b_out, with c the token. Queries, keys and the norm
in front of them have no effect. Folded, a layer is one matrix product per clip and an addition.

Reference:
    Ben Yahia et al. 2024, arXiv:2412.07583 (optimized cross-attention).
"""

from __future__ import annotations

from dataclasses import replace

from mvsdk_export.compress.rebuilding import rebuild
from mvsdk_export.compress.reports import LATENT_SIZE, Report, list_weights
from mvsdk_export.errors import CompressionError
from mvsdk_export.families.svd.config import SVDUNetConfig
from mvsdk_export.families.svd.unet import SVDUNet

_VALUE = ".attn2.to_v.weight"


def fold_cross_attention(
    unet: SVDUNet, *, latent_size: tuple[int, int] = LATENT_SIZE
) -> tuple[SVDUNet, Report]:
    """Fold the cross-attention of every transformer block; outputs stay the same.

    Args:
        unet: The network; it stays as it is, and shares the weights that are kept.
        latent_size: Height and width of latents for which the report counts FLOPs.

    Raises:
        CompressionError: If it is folded already.

    Reference:
        Ben Yahia et al. 2024, arXiv:2412.07583.
    """
    report = report_folding(unet.config, latent_size=latent_size)
    state = unet.state_dict()
    for layer in report.dropped:
        value, out = state[f"{layer}.to_v.weight"], state[f"{layer}.to_out.0.weight"]
        state[f"{layer}.to_out.0.weight"] = (out.double() @ value.double()).to(out)
        norm = layer.removesuffix("attn2") + "norm2"
        for name in ("to_q.weight", "to_k.weight", "to_v.weight"):
            del state[f"{layer}.{name}"]
        for name in ("weight", "bias"):
            del state[f"{norm}.{name}"]
    return rebuild(unet, report.config, state), report


def report_folding(config: SVDUNetConfig, *, latent_size: tuple[int, int] = LATENT_SIZE) -> Report:
    """Report on `fold_cross_attention` from the configuration alone; `dropped` names the layers.

    Raises:
        CompressionError: If it is folded already.
    """
    if config.folded_cross_attention:
        raise CompressionError(
            "the cross-attention is folded already; leave the step fold out, or start from the "
            "uncompressed network"
        )
    keys = list_weights(config)
    layers = tuple(key.removesuffix(".to_v.weight") for key in keys if key.endswith(_VALUE))
    return Report(
        step="fold",
        config_before=config,
        config=replace(config, folded_cross_attention=True),
        what=f"cross-attention of {len(layers)} layers becomes a vector each",
        exact=True,
        latent_size=latent_size,
        dropped=layers,
    )
