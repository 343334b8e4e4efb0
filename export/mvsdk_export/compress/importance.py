"""Which temporal blocks matter: learned while the network is finetuned, kept in importance.json.

    {"format_version": 1, "recipe": "mobilevd", "keep": 11,
     "scores": {"down_blocks.0.resnets.0": -0.31, ...}}

Every step, a fixed number of blocks is drawn and the others are switched off. A block that the
network misses more is drawn more often; its score is learned by gradient descent along with the
weights. The draw follows the inclusion probabilities exactly: systematic sampling after a random
shuffle, which needs one uniform number.

Reference:
    Ben Yahia et al. 2024, arXiv:2412.07583 (gates on temporal blocks). The sampling is ours:
    Madow 1949, "On the Theory of Systematic Sampling, II", Ann. Math. Statist. 20(3).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mvsdk._json import describe
from mvsdk._staging import replacing, writing
from mvsdk._text import quoted
from mvsdk_export.checkpoints.documents import REPAIR, Document, read_document
from mvsdk_export.errors import CheckpointError, CompressionError

if TYPE_CHECKING:
    from mvsdk_export.families.svd.unet import SVDUNet

FORMAT_VERSION = 1
MAX_BLOCKS = 1024
"""Most blocks that a file may name."""
MAX_SCORE = 1e6
_ADVICE = "write it again with mvsdk train, or leave --importance out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Learned scores of temporal blocks, and how many of them were kept in training."""

    recipe: str
    """Model whose network was trained."""
    keep: int
    """Blocks that were on in every step."""
    scores: Mapping[str, float]
    """Module path of every temporal block, in the order of execution, to its score."""

    def kept(self, count: int | None = None) -> tuple[str, ...]:
        """Return the blocks to keep, in the order of execution.

        Args:
            count: How many; None for as many as in training.

        Returns:
            Names of the highest scores; among equals, the earlier block.

        Raises:
            CompressionError: If there are not that many blocks.
        """
        count = self.keep if count is None else count
        if not 0 <= count <= len(self.scores):
            raise CompressionError(
                f"cannot keep {count} of {len(self.scores)} temporal blocks; "
                f"allowed: 0 to {len(self.scores)}"
            )
        best = set(sorted(self.scores, key=lambda name: -self.scores[name])[:count])
        return tuple(name for name in self.scores if name in best)

    def save(self, path: Path) -> None:
        """Write importance.json; it appears whole or not at all.

        Raises:
            OutputError: If it cannot be written.
        """
        document = {
            "format_version": FORMAT_VERSION,
            "recipe": self.recipe,
            "keep": self.keep,
            "scores": dict(self.scores),
        }
        with writing(path), replacing(path) as temporary:
            temporary.write_text(json.dumps(document, indent=2) + "\n", "utf-8", newline="\n")


def load_importance(path: Path) -> Importance:
    """Read importance.json, which may come from anywhere.

    Raises:
        CompressionError: If it is missing, damaged or not what `Importance.save` writes.
    """
    try:
        document = read_document(path)
        document.check_keys(("format_version", "recipe", "keep", "scores"))
        document.integer("format_version", 1, FORMAT_VERSION)
        scores = _read_scores(document)
        return Importance(
            recipe=document.text("recipe"),
            keep=document.integer("keep", 0, len(scores)),
            scores=scores,
        )
    except CheckpointError as exc:
        problem = str(exc).removesuffix(f"; {REPAIR}")
        raise CompressionError(f"importance {problem}; {_ADVICE}") from exc


def _read_scores(document: Document) -> dict[str, float]:
    values = document.values["scores"]
    if not isinstance(values, dict) or not 0 < len(cast("dict[str, object]", values)) <= MAX_BLOCKS:
        document.fail("scores", f"an object of 1 to {MAX_BLOCKS} blocks")
    scores: dict[str, float] = {}
    for name, value in cast("dict[str, object]", values).items():
        if len(name) > 256 or not isinstance(value, int | float) or isinstance(value, bool):
            raise CheckpointError(
                f"{quoted(document.path)}: scores holds {describe(name)}: {describe(value)}, "
                f"expected a module path and a number; {REPAIR}"
            )
        if not abs(value) <= MAX_SCORE:
            raise CheckpointError(
                f"{quoted(document.path)}: the score of {describe(name)} is {value:g}, expected "
                f"one within {-MAX_SCORE:g} and {MAX_SCORE:g}; {REPAIR}"
            )
        scores[name] = float(value)
    return scores


class TemporalImportance(nn.Module):
    """Learnable scores of temporal blocks, and the draw of those that are on in a step.

        importance = TemporalImportance(list(unet.temporal_blocks()), keep=11)
        for batch in batches:
            importance.redraw_(unet, generator)
            loss(unet, batch).backward()    # gradients reach the weights and the scores
        importance.release_(unet)
        unet, report = prune_temporal(unet, importance.result("mobilevd"))

    Args:
        names: Module paths of the temporal blocks, in the order of execution.
        keep: Blocks that are on in every step, at least one and not all.
    """

    def __init__(self, names: Sequence[str], keep: int) -> None:
        super().__init__()
        if not 0 < keep < len(names) or len(set(names)) < len(names):
            raise CompressionError(
                f"cannot keep {keep} of {len(names)} temporal blocks; give different names, and "
                f"allowed: 1 to {len(names) - 1}"
            )
        self.names = tuple(names)
        self.keep = keep
        self.scores = nn.Parameter(torch.zeros(len(names)))

    def probabilities(self) -> Tensor:
        """Return how probable it is that each block is on, `(n,)` float32; their sum is `keep`.

        The probability of a block is sigmoid(score + offset), with the one offset that gives the
        sum. The gradient takes the offset's dependence on the scores into account.
        """
        scores = self.scores.double()
        with torch.no_grad():
            offset = _find_offset(scores, self.keep)
            slopes = torch.sigmoid(scores + offset) * torch.sigmoid(-scores - offset)
        # One step of Newton's method: its value is next to nothing, its derivative the offset's.
        surplus = torch.sigmoid(scores + offset).sum() - self.keep
        offset = offset - surplus / slopes.sum().clamp(min=torch.finfo(torch.float64).tiny)
        return torch.sigmoid(scores + offset).to(self.scores)

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw the gates of one step.

        Args:
            generator: Source of the draw, on any device; None for torch's own on the CPU.

        Returns:
            `(n,)` float32 of exactly `keep` ones and n - `keep` zeros. Each is 1 with its
            inclusion probability, and hands its gradient to it unchanged (straight through).
        """
        probabilities = self.probabilities()
        drawn = draw_systematic(probabilities.detach(), self.keep, generator)
        return drawn + (probabilities - probabilities.detach())

    def redraw_(self, unet: SVDUNet, generator: torch.Generator | None = None) -> Tensor:
        """Draw gates and put them on the blocks of a network; return them, `(n,)`."""
        gates = self.draw(generator)
        blocks = unet.temporal_blocks()
        if list(blocks) != list(self.names):
            raise CompressionError(
                f"the network has {len(blocks)} temporal blocks, the scores are of "
                f"{len(self.names)} others; make the scores from this network's temporal_blocks()"
            )
        for block, gate in zip(blocks.values(), gates.unbind(), strict=True):
            block.gate = gate
        return gates

    def release_(self, unet: SVDUNet) -> None:
        """Take the gates off a network: all of its blocks are on."""
        for block in unet.temporal_blocks().values():
            block.gate = None

    def result(self, recipe: str) -> Importance:
        """Return what was learned, to save and to prune by."""
        scores = self.scores.detach().cpu().tolist()
        if not all(math.isfinite(score) for score in scores):
            raise CompressionError(
                "scores of temporal blocks are not finite; train with a lower learning rate"
            )
        return Importance(
            recipe=recipe, keep=self.keep, scores=dict(zip(self.names, scores, strict=True))
        )


def draw_systematic(
    probabilities: Tensor, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw `count` of n items without replacement, each with a given probability exactly.

    The items lie side by side on a line, in random order, each as long as its probability; those
    under `count` equally spaced points are drawn. No item is longer than the spacing, so none is
    drawn twice.

    Args:
        probabilities: `(n,)` float, in [0, 1], their sum `count`.
        count: How many are drawn.
        generator: Source of the draw; None for torch's own on the CPU.

    Returns:
        `(n,)` of zeros and ones, type and device of `probabilities`.

    Reference:
        Madow 1949, Ann. Math. Statist. 20(3).
    """
    device = "cpu" if generator is None else generator.device
    ranked = probabilities.argsort(descending=True)
    shuffle = torch.randperm(len(ranked) - 1, generator=generator, device=device)
    start = torch.rand((), generator=generator, device=device, dtype=torch.float64)
    # The points go round in a circle, which has no end: the least probable item may always be the
    # last. It takes up what rounding leaves; an item of length one could not.
    order = torch.cat([ranked[:-1][shuffle.to(ranked.device)], ranked[-1:]])
    ends = probabilities.double()[order].cumsum(dim=0)
    ends[-1] = count
    points = (torch.floor(ends - start.to(ends.device)) + 1).clamp(max=count)  # up to each end
    before = torch.cat([points.new_zeros(1), points[:-1]])
    drawn = torch.zeros_like(probabilities)
    drawn[order] = (points > before).to(drawn)
    return drawn


def _find_offset(scores: Tensor, total: int) -> Tensor:
    """Return the offset with which sigmoids of `scores` sum to `total`; float64, by bisection."""
    share = total / len(scores)
    middle = math.log(share / (1 - share))
    low, high = middle - scores.max(), middle - scores.min()  # the sum is too small, too large
    for _ in range(60):
        offset = (low + high) / 2
        enough = torch.sigmoid(scores + offset).sum() >= total
        low, high = torch.where(enough, low, offset), torch.where(enough, offset, high)
    return (low + high) / 2
