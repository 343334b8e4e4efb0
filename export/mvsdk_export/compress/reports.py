"""What a step of a compression changed: parameters, FLOPs, fidelity.

FLOPs are twice the multiply-accumulates of convolutions, linear layers and matrix products, in the
forms that training uses, as papers count them. They are counted on PyTorch's meta device from the
configuration alone, so a plan of a compression needs no weights.

This counts a network and, apart, what pruning takes out of each temporal block. `counting.py`
counts many networks that differ little, by whole blocks and each distinct block once; a test holds
its sums to these. `mvsdk_export.planning.costs` counts any graph, as phones get it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mvsdk_export.compress.rebuilding import build_empty
from mvsdk_export.errors import CompressionError
from mvsdk_export.families.svd.config import SVDUNetConfig

if TYPE_CHECKING:
    from mvsdk_export.compress.recipe import Step

LATENT_SIZE = (32, 64)
"""Height and width of the latents of a clip of 512 x 256, at which the paper counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Size of a denoiser, and what one evaluation of it for one clip takes."""

    parameters: int
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How well a pair of layers survived: its product over all heads, against what it was."""

    layer: str
    """Module path of the attention."""
    product: str
    """`"query_key"` or `"value_out"`."""
    rank_before: int
    """Channels of a head."""
    rank_after: int
    error: float
    """Frobenius norm of the difference of the products of all heads."""
    norm: float
    """Frobenius norm of the products as they were."""

    @property
    def relative_error(self) -> float:
        """Error over norm; 0 for a product that is zero."""
        return self.error / self.norm if self.norm else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a step changed. Costs are counted when they are asked for, in a second or so."""

    step: Step
    what: str
    """One line for people."""
    exact: bool
    """Whether outputs stay the same, but for rounding."""
    config_before: SVDUNetConfig
    config: SVDUNetConfig
    """Configuration afterwards."""
    latent_size: tuple[int, int]
    """Height and width of the latents for which FLOPs are counted."""
    dropped: tuple[str, ...] = ()
    """Module paths of what was left out."""
    fidelity: tuple[Fidelity, ...] = ()

    @property
    def before(self) -> Costs:
        """Costs of the network before the step."""
        return measure_costs(self.config_before, self.latent_size)

    @property
    def after(self) -> Costs:
        """Costs of the network after it."""
        return measure_costs(self.config, self.latent_size)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "step": self.step,
            "what": self.what,
            "exact": self.exact,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "dropped": list(self.dropped),
            "fidelity": [
                asdict(item) | {"relative_error": item.relative_error} for item in self.fidelity
            ],
        }


def measure_costs(config: SVDUNetConfig, latent_size: tuple[int, int] = LATENT_SIZE) -> Costs:
    """Count parameters, and FLOPs of one evaluation for one clip.

    Args:
        config: The network; its `num_frames` is the length of the clip.
        latent_size: Height and width of the latents.

    Raises:
        CompressionError: If there is no such network, or it cannot run on such latents.
    """
    return _measure(config, latent_size)[0]


def measure_temporal_blocks(
    config: SVDUNetConfig, latent_size: tuple[int, int] = LATENT_SIZE
) -> Mapping[str, int]:
    """Count the FLOPs of every temporal block.

    Returns:
        Module path, in the order of execution, to FLOPs of the temporal parts; 0 where pruned.

    Raises:
        CompressionError: As `measure_costs`.
    """
    return _measure(config, latent_size)[1]


@lru_cache(maxsize=32)
def list_weights(config: SVDUNetConfig) -> tuple[str, ...]:
    """Return the names of a network's state dict."""
    return tuple(build_empty(config).state_dict())


@lru_cache(maxsize=32)
def list_temporal_blocks(config: SVDUNetConfig) -> tuple[str, ...]:
    """Return the module paths of the temporal blocks, pruned ones too, in order of execution."""
    return tuple(build_empty(config).temporal_blocks())


@lru_cache(maxsize=32)
def _measure(
    config: SVDUNetConfig, latent_size: tuple[int, int]
) -> tuple[Costs, Mapping[str, int]]:
    unet = build_empty(config).eval()
    counter = FlopCounterMode(display=False)
    spent = dict.fromkeys(unet.temporal_blocks(), 0)
    for name, block in unet.temporal_blocks().items():
        for part in _temporal_parts(block):
            _count_(part, name, spent, counter)
    try:
        with torch.no_grad(), counter:
            unet(*meta_inputs(config, latent_size))
    except (ValueError, RuntimeError, ArithmeticError) as exc:
        raise CompressionError(
            f"the network cannot run on {config.num_frames} frames of latents "
            f"{latent_size[0]} x {latent_size[1]}: {' '.join(str(exc).split())}; "
            "choose another size, or correct its config.json"
        ) from exc
    parameters = sum(parameter.numel() for parameter in unet.parameters())
    costs = Costs(parameters=parameters, flops=counter.get_total_flops())
    return costs, MappingProxyType(spent)


def _temporal_parts(block: nn.Module) -> list[nn.Module]:
    """Return the modules of a temporal block that pruning removes and that cost something."""
    parts = [getattr(block, name, None) for name in ("temporal_res_block", "time_pos_embed")]
    layers: Any = getattr(block, "temporal_transformer_blocks", None) or ()
    return [part for part in (*parts, *layers) if part is not None]


def _count_(part: nn.Module, name: str, spent: dict[str, int], counter: FlopCounterMode) -> None:
    """Let a module add its FLOPs to `spent[name]` when it runs."""

    def start(*_: object) -> None:
        spent[name] -= counter.get_total_flops()

    def finish(*_: object) -> None:
        spent[name] += counter.get_total_flops()

    part.register_forward_pre_hook(start)
    part.register_forward_hook(finish)


def meta_inputs(config: SVDUNetConfig, latent_size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return inputs of a denoiser for one clip, in the order of `forward`, without memory."""
    shapes = (
        (config.num_frames, config.in_channels, *latent_size),
        (1,),
        (1, 1, config.cross_attention_dim),
        (1, config.projection_class_embeddings_input_dim // config.addition_time_embed_dim),
    )
    return tuple(torch.empty(shape, device="meta") for shape in shapes)
