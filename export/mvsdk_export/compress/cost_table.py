"""MobileVD's cost table: operations of the paper beside those of our networks, without weights.

What the published text leaves open is reconstructed, and every row says on what it rests.

Reference:
    Ben Yahia et al. 2024, "Mobile Video Diffusion", arXiv:2412.07583: main table, tables of
    pruning, of channel funnels and of scales. Paper figures below are TFLOPs of one evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from mvsdk_export.compress.counting import ClipSize, UNetCosts, measure_unet, prune_cheapest
from mvsdk_export.costs import count_flops
from mvsdk_export.networks.svd.clip_vision import ClipVisionConfig, ClipVisionEncoder
from mvsdk_export.networks.svd.unet import SVDUNetConfig
from mvsdk_export.networks.svd.vae import TemporalAutoencoder, TemporalAutoencoderConfig

LOW = ClipSize(num_frames=14, height=256, width=512)
HIGH = ClipSize(num_frames=14, height=576, width=1024)

SVD_EVALUATIONS = 50
"""25 steps, each with guidance: the network runs with its condition and without."""

HEADLINE_BEFORE_TFLOPS, HEADLINE_AFTER_TFLOPS, HEADLINE_FACTOR = 1817.2, 4.34, 523
"""What the paper's abstract says of a clip, before and after."""

SVD = SVDUNetConfig()
FOLDED = replace(SVD, folded_cross_attention=True)
MULTISCALE = replace(FOLDED, frame_levels=1)

PRUNED_SHARES: Mapping[int, int] = {70: 27, 80: 30, 90: 34}
"""Percent of the 38 temporal blocks -> how many that are."""
FUNNEL_FACTORS = (0.25, 0.5, 0.75, 1.0)

_OUTER_MODULES = (
    "conv_in",
    "time_embedding",
    "add_embedding",
    "down_blocks.0",
    "up_blocks.3",
    "conv_out",
)
"""What runs at full resolution if height and width are halved where frames are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """One denoiser at one size: the paper's figure and ours."""

    name: str
    size: ClipSize
    evaluations: int
    """Runs of the denoiser in a clip."""
    flops: int
    """Of one evaluation."""
    parameters: int
    paper_tflops: float | None
    """Of one evaluation; None where the paper has no figure."""
    basis: str
    """What the row rests on, and what of it is reconstructed."""

    @property
    def total_flops(self) -> int:
        """FLOPs of the denoiser in a clip."""
        return self.flops * self.evaluations

    @property
    def paper_total_tflops(self) -> float | None:
        """The same by the paper's figure, TFLOPs; None where it has none."""
        return None if self.paper_tflops is None else self.paper_tflops * self.evaluations

    @property
    def difference(self) -> float | None:
        """Ours over the paper's figure, less 1; None where it has none."""
        return None if self.paper_tflops is None else self.flops / 1e12 / self.paper_tflops - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPart:
    """One component's share in a clip."""

    component: str
    parameters: int
    flops: int
    """Of one run."""
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCosts:
    """From a picture to frames: every network that runs, not the denoiser alone."""

    name: str
    size: ClipSize
    parts: tuple[ClipPart, ...]

    @property
    def total_flops(self) -> int:
        """FLOPs of a clip."""
        return sum(part.flops * part.runs for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """All rows, in the order in which they are printed."""

    steps: tuple[CostRow, ...]
    """The paper's main table: each row adds to the one before."""
    ablations: Mapping[str, tuple[CostRow, ...]]
    """Title -> rows."""
    clips: tuple[ClipCosts, ...]

    def reduction(self, row: CostRow) -> float:
        """Return how many times less a clip takes than by the first row, counted by us."""
        return self.steps[0].total_flops / row.total_flops

    def paper_reduction(self, row: CostRow) -> float | None:
        """Return the same by the paper's figures; None where it has none."""
        first, total = self.steps[0].paper_total_tflops, row.paper_total_tflops
        return None if first is None or total is None else first / total


def build_cost_table() -> CostTable:
    """Count every row. Takes about half a minute on one core, and little memory."""
    final = _funnelled(_pruned(70), 0.5)
    return CostTable(
        steps=_steps(final),
        ablations={
            "temporal blocks pruned": _pruning(),
            "funnels in every self-attention of SVD": _funnels_everywhere(),
            "funnels in the final network's spatial self-attention": _funnels_final(),
            "scales (not reconstructed)": _scales(),
        },
        clips=(
            _clip("SVD 1024x576", SVD, HIGH, SVD_EVALUATIONS),
            _clip("SVD 512x256", SVD, LOW, SVD_EVALUATIONS),
            _clip("MobileVD 512x256", final, LOW, 1),
            _clip("MobileVD-HD 1024x576", final, HIGH, 1),
        ),
    )


def _pruned(percent: int) -> SVDUNetConfig:
    return prune_cheapest(MULTISCALE, LOW, PRUNED_SHARES[percent])


def _funnelled(config: SVDUNetConfig, factor: float, layers: str = "spatial") -> SVDUNetConfig:
    return replace(config, funnel_factor=factor, funnel_layers=layers)


def _steps(final: SVDUNetConfig) -> tuple[CostRow, ...]:
    return (
        _row("SVD 1024x576", SVD, HIGH, SVD_EVALUATIONS, 45.43, "the public network"),
        _row("SVD 512x256", SVD, LOW, SVD_EVALUATIONS, 8.60, "the public network"),
        _row(
            "+ low-resolution finetuning", SVD, LOW, SVD_EVALUATIONS, 8.60, "weights change, alone"
        ),
        _row(
            "+ optimized cross-attention",
            FOLDED,
            LOW,
            SVD_EVALUATIONS,
            8.24,
            "exact: the softmax over one key is 1",
        ),
        _row("+ adversarial finetuning", FOLDED, LOW, 1, 8.24, "one step, no guidance"),
        _row(
            "+ temporal multiscaling",
            MULTISCALE,
            LOW,
            1,
            5.42,
            "reconstructed: the level follows from the paper's FLOPs",
        ),
        _row(
            "+ temporal pruning 70 %",
            _pruned(70),
            LOW,
            1,
            4.64,
            "reconstructed: the 27 cheapest of 38 blocks",
        ),
        _row(
            "+ channel funnels 0.5",
            final,
            LOW,
            1,
            4.34,
            "reconstructed: spatial self-attention follows from the paper's FLOPs",
        ),
        _row("MobileVD-HD 1024x576", final, HIGH, 1, 23.63, "the network of the row above"),
    )
