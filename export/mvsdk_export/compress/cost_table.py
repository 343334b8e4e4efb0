"""MobileVD's cost table: operations of the paper beside those of our networks, without weights.

What the published text leaves open is reconstructed, and every row says on what it rests.

Reference:
    Ben Yahia et al. 2024, "Mobile Video Diffusion", arXiv:2412.07583: its main table, and those of
    scales, pruning and funnels. Figures of the paper are TFLOPs of one evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch

from mvsdk_export.compress.counting import count_unet
from mvsdk_export.compress.pruning import report_pruning
from mvsdk_export.compress.recipe import MOBILEVD
from mvsdk_export.compress.reports import Costs
from mvsdk_export.families.svd.clip_vision import ClipVisionConfig, ClipVisionEncoder
from mvsdk_export.families.svd.unet import SVDUNetConfig
from mvsdk_export.families.svd.vae import TemporalAutoencoder, TemporalAutoencoderConfig
from mvsdk_export.planning.costs import count_flops

SVD_EVALUATIONS = 50
"""25 steps with guidance: every step runs the network with its condition and without."""

HEADLINE_BEFORE_TFLOPS, HEADLINE_AFTER_TFLOPS, HEADLINE_FACTOR = 1817.2, 4.34, 523
"""What the paper's abstract says of a clip: before, after, and how many times less."""

SVD = SVDUNetConfig()
FOLDED = replace(SVD, folded_cross_attention=True)
MULTISCALE = replace(FOLDED, frame_levels=MOBILEVD.frame_levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSize:
    """Height and width of a clip of 14 frames, pixels."""

    height: int
    width: int

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of its latents."""
        return self.height // 8, self.width // 8


LOW = ClipSize(height=256, width=512)
HIGH = ClipSize(height=576, width=1024)


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
    """What is varied -> rows."""
    clips: tuple[ClipCosts, ...]

    def reduction(self, row: CostRow) -> float:
        """Return how many times less a clip takes than by the first row, as we count."""
        return self.steps[0].total_flops / row.total_flops

    def paper_reduction(self, row: CostRow) -> float | None:
        """Return the same by the paper's figures; None where it has none."""
        first, total = self.steps[0].paper_total_tflops, row.paper_total_tflops
        return None if first is None or total is None else first / total


def build_cost_table() -> CostTable:
    """Count every row: seconds, and no memory for weights."""
    pruned = _pruned(MOBILEVD.pruned_share)
    final = _funnelled(pruned, MOBILEVD.funnel_factor)
    return CostTable(
        steps=count_steps(),
        ablations={
            "frames halved inside": _count_levels(),
            "temporal blocks pruned": _count_pruning(),
            "funnels in all self-attention of SVD": _count_funnels(
                SVD, "all", {0.5: 8.00, 1.0: 8.60}
            ),
            "funnels in spatial self-attention after pruning": _count_funnels(
                pruned, "spatial", {0.5: 4.34, 1.0: 4.64}
            ),
            "height and width halved inside": _count_scales(),
        },
        clips=(
            _count_clip("SVD 1024x576", SVD, HIGH, SVD_EVALUATIONS),
            _count_clip("SVD 512x256", SVD, LOW, SVD_EVALUATIONS),
            _count_clip("MobileVD 512x256", final, LOW, 1),
            _count_clip("MobileVD-HD 1024x576", final, HIGH, 1),
        ),
    )


def count_steps() -> tuple[CostRow, ...]:
    """Count the rows of the paper's main table."""
    pruned = _pruned(MOBILEVD.pruned_share)
    final = _funnelled(pruned, MOBILEVD.funnel_factor)
    rows = (
        ("SVD 1024x576", SVD, HIGH, SVD_EVALUATIONS, 45.43, "public network"),
        ("SVD 512x256", SVD, LOW, SVD_EVALUATIONS, 8.60, "public network"),
        ("+ low-resolution finetuning", SVD, LOW, SVD_EVALUATIONS, 8.60, "only weights change"),
        ("+ optimized cross-attention", FOLDED, LOW, SVD_EVALUATIONS, 8.24, "exact"),
        ("+ adversarial finetuning", FOLDED, LOW, 1, 8.24, "one step without guidance"),
        ("+ temporal multiscaling", MULTISCALE, LOW, 1, 5.42, "level inferred from the FLOPs"),
        ("+ temporal pruning 70 %", pruned, LOW, 1, 4.64, "cheapest 27 of 38 blocks, a stand-in"),
        ("+ channel funnels 0.5", final, LOW, 1, 4.34, "layers inferred from the FLOPs"),
        ("MobileVD-HD 1024x576", final, HIGH, 1, 23.63, "network of the row above"),
    )
    return tuple(_count_row(*row) for row in rows)


@cache
def _pruned(share: float) -> SVDUNetConfig:
    """Return the network with that share of the temporal blocks left out, cheapest first."""
    keep = replace(MOBILEVD, pruned_share=share).kept(SVD.temporal_block_count)
    return report_pruning(MULTISCALE, keep, latent_size=LOW.latent_size).config


def _funnelled(config: SVDUNetConfig, factor: float, layers: str = "spatial") -> SVDUNetConfig:
    return replace(config, funnel_factor=factor, funnel_layers=layers)


def _count_row(
    name: str,
    config: SVDUNetConfig,
    size: ClipSize,
    evaluations: int,
    paper_tflops: float | None,
    basis: str,
) -> CostRow:
    costs = count_unet(config, size.latent_size)
    return CostRow(
        name=name,
        size=size,
        evaluations=evaluations,
        flops=costs.flops,
        parameters=costs.parameters,
        paper_tflops=paper_tflops,
        basis=basis,
    )


def _count_levels() -> tuple[CostRow, ...]:
    """Count networks whose frames are halved elsewhere: what MobileVD's level is inferred from."""
    everywhere = replace(FOLDED, num_frames=FOLDED.num_frames // 2)
    levels = (
        ("at every level", everywhere, "ruled out by the FLOPs"),
        ("from the second on", MULTISCALE, "inferred from the FLOPs"),
        ("from the third on", replace(FOLDED, frame_levels=2), "ruled out by the FLOPs"),
        ("at the last level", replace(FOLDED, frame_levels=3), "ruled out by the FLOPs"),
    )
    return tuple(_count_row(name, config, LOW, 1, 5.42, basis) for name, config, basis in levels)


def _count_pruning() -> tuple[CostRow, ...]:
    """Count networks before funnels, with ever fewer temporal blocks."""
    rows = [_count_row("none", MULTISCALE, LOW, 1, 5.42, "level inferred from the FLOPs")]
    for share, paper_tflops in ((0.7, 4.64), (0.8, 4.35), (0.9, 4.06)):
        config = _pruned(share)
        pruned = config.temporal_blocks.count("0")
        basis = f"cheapest {pruned} of {len(config.temporal_blocks)} blocks, a stand-in"
        rows.append(_count_row(f"{100 * share:.0f} %", config, LOW, 1, paper_tflops, basis))
    return tuple(rows)


def _count_funnels(
    config: SVDUNetConfig, layers: str, paper: Mapping[float, float]
) -> tuple[CostRow, ...]:
    """Count a network with funnels of several factors, beside figures of the paper by factor."""
    return tuple(
        _count_row(
            f"factor {factor:g}",
            _funnelled(config, factor, layers),
            LOW,
            1,
            paper.get(factor),
            "layers inferred from the FLOPs" if factor < 1 else "no funnels",
        )
        for factor in (0.25, 0.5, 0.75, 1.0)
    )


def _count_scales() -> tuple[CostRow, ...]:
    """Count networks that halve height and width where MobileVD halves frames.

    Where and how the paper did this is not published. With one rule for both of its figures, one
    of them is met and the other is not, so these rows are no reconstruction.
    """
    rows = (("space alone", FOLDED, 4.35), ("space and frames", MULTISCALE, 3.39))
    return tuple(
        CostRow(
            name=name,
            size=LOW,
            evaluations=1,
            flops=_count_halved_inside(config),
            parameters=count_unet(config, LOW.latent_size).parameters,
            paper_tflops=paper_tflops,
            basis="not reconstructed: where frames are halved",
        )
        for name, config, paper_tflops in rows
    )


def _count_halved_inside(config: SVDUNetConfig) -> int:
    """Return FLOPs of an evaluation whose levels from the second on see half height and width."""
    height, width = LOW.latent_size
    outside = count_unet(config, (height, width)).by_module
    inside = count_unet(config, (height // 2, width // 2))
    return inside.flops + sum(
        outside[path] - inside.by_module[path] for path in outside if _is_outside(path)
    )


def _is_outside(path: str) -> bool:
    """Return whether a module is a block of the first level, or in front of or behind it."""
    levels = ("down_blocks.0.", "up_blocks.3.")  # then the kind of block, then its number
    return path in ("conv_in", "conv_out") or (path.startswith(levels) and path.count(".") == 3)


def _count_clip(name: str, config: SVDUNetConfig, size: ClipSize, evaluations: int) -> ClipCosts:
    unet = count_unet(config, size.latent_size)
    parts = (
        ("image_encoder", _count_image_encoder(), 1),
        ("vae_encoder", _count_vae_encoder(size), 1),
        ("unet", unet, evaluations),
        ("vae_decoder", _count_vae_decoder(size, config.num_frames), 1),
    )
    return ClipCosts(
        name=name,
        size=size,
        parts=tuple(
            ClipPart(component=component, parameters=c.parameters, flops=c.flops, runs=runs)
            for component, c, runs in parts
        ),
    )


@cache
def _count_image_encoder() -> Costs:
    config = ClipVisionConfig()
    with torch.device("meta"):
        encoder = ClipVisionEncoder(config).eval()
        pixels = torch.empty(1, 3, config.image_size, config.image_size)
    parameters = sum(weight.numel() for weight in encoder.parameters())
    return Costs(parameters=parameters, flops=count_flops(encoder, pixels)[""])


@cache
def _count_vae_encoder(size: ClipSize) -> Costs:
    with torch.device("meta"):
        vae = TemporalAutoencoder(TemporalAutoencoderConfig()).eval()
        frames = torch.empty(1, 3, size.height, size.width)
    parameters = sum(w.numel() for key, w in vae.named_parameters() if _is_encoder(key))
    return Costs(parameters=parameters, flops=count_flops(vae.encode, frames)[""])


@cache
def _count_vae_decoder(size: ClipSize, num_frames: int) -> Costs:
    config = TemporalAutoencoderConfig(num_frames=num_frames)
    with torch.device("meta"):
        vae = TemporalAutoencoder(config).eval()
        latents = torch.empty(num_frames, config.latent_channels, *size.latent_size)
    parameters = sum(w.numel() for key, w in vae.named_parameters() if not _is_encoder(key))
    return Costs(parameters=parameters, flops=count_flops(vae.decode, latents)[""])


def _is_encoder(key: str) -> bool:
    return key.startswith(("encoder.", "quant_conv."))
