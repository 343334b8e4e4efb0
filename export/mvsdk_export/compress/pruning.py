"""Temporal blocks are left out: what they said is taken to be what their frame says alone.

A temporal block mixes, behind each spatial one, the frames of a clip into each other and blends
the result with the frame as it was. A pruned block hands the frame on. Pruned of all of them, the
network treats every frame as an image of its own.

Reference:
    Ben Yahia et al. 2024, arXiv:2412.07583 (temporal block pruning).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mvsdk._text import quoted
from mvsdk_export.compress.importance import Importance
from mvsdk_export.compress.rebuilding import rebuild
from mvsdk_export.compress.reports import (
    LATENT_SIZE,
    Report,
    list_temporal_blocks,
    list_weights,
    measure_temporal_blocks,
)
from mvsdk_export.errors import CompressionError
from mvsdk_export.families.svd.config import SVDUNetConfig
from mvsdk_export.families.svd.unet import SVDUNet

Keep = Importance | Sequence[str] | int
"""What stays: learned scores, names of blocks, or a number of them."""


def prune_temporal(
    unet: SVDUNet, keep: Keep, *, latent_size: tuple[int, int] = LATENT_SIZE
) -> tuple[SVDUNet, Report]:
    """Leave temporal blocks out.

    Args:
        unet: The network; it stays as it is, and shares the weights that are kept.
        keep: Learned importance: as many of the highest scores as it says. Names: these blocks. A
            number: so many of the blocks that are costliest at `reports.LATENT_SIZE`. The last is
            no measure of what a block is good for; it gives the FLOPs of the paper, whose own list
            is not published.
        latent_size: Height and width of latents for which costs are counted.

    Raises:
        CompressionError: If it is pruned already, or `keep` does not fit the network.

    Reference:
        Ben Yahia et al. 2024, arXiv:2412.07583.
    """
    report = report_pruning(unet.config, keep, latent_size=latent_size)
    gone = set(list_weights(unet.config)) - set(list_weights(report.config))
    state = {name: value for name, value in unet.state_dict().items() if name not in gone}
    return rebuild(unet, report.config, state), report


def report_pruning(
    config: SVDUNetConfig, keep: Keep, *, latent_size: tuple[int, int] = LATENT_SIZE
) -> Report:
    """Report on `prune_temporal` from the configuration alone.

    Raises:
        CompressionError: As there.
    """
    if config.temporal_blocks != "all":
        raise CompressionError(
            "temporal blocks are pruned already; leave the step prune out, or start from the "
            "uncompressed network"
        )
    names = list_temporal_blocks(config)
    if isinstance(keep, int):
        # One size for all: which blocks stay is no matter of where FLOPs are counted.
        keep = _costliest(keep, measure_temporal_blocks(config, LATENT_SIZE))
    kept = set(_check_names(keep, names))
    flags = "".join("01"[name in kept] for name in names)
    return Report(
        step="prune",
        config_before=config,
        config=replace(config, temporal_blocks="all" if "0" not in flags else flags),
        what=f"{len(kept)} of {len(names)} temporal blocks stay",
        exact=len(kept) == len(names),
        latent_size=latent_size,
        dropped=tuple(name for name in names if name not in kept),
    )


def _costliest(count: int, costs: Mapping[str, int]) -> list[str]:
    """Return names of the blocks with the most FLOPs; among equals, the earlier block."""
    if not 0 <= count <= len(costs):
        raise CompressionError(
            f"cannot keep {count} of {len(costs)} temporal blocks; allowed: 0 to {len(costs)}"
        )
    return sorted(costs, key=lambda name: -costs[name])[:count]


def _check_names(keep: Importance | Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """Return the names of the blocks that stay, all of them blocks of the network."""
    given = list(keep.scores) if isinstance(keep, Importance) else keep
    strange = [name for name in given if name not in names]
    if strange:
        raise CompressionError(
            f"the network has no temporal block {quoted(strange[0])}; it has {len(names)}, from "
            f"{names[0]} on; give names of its temporal_blocks()"
        )
    if not isinstance(keep, Importance):
        return keep
    missing = [name for name in names if name not in keep.scores]
    if missing:
        raise CompressionError(
            f"the importance has no score of {missing[0]}; train it with this network, or keep a "
            "number of blocks"
        )
    return keep.kept()
