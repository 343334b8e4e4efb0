"""Scores of temporal blocks: how blocks are drawn, what scores learn, and their file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")

import torch  # noqa: E402
from comparing import relative_error  # noqa: E402
from compressing import BLOCKS, SIZE, SMALL, make_inputs, run_unet  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mvsdk_export.compress.importance import (  # noqa: E402
    Importance,
    TemporalImportance,
    draw_systematic,
    load_importance,
)
from mvsdk_export.compress.pruning import prune_temporal  # noqa: E402
from mvsdk_export.compress.reports import list_temporal_blocks  # noqa: E402
from mvsdk_export.errors import CompressionError  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNet  # noqa: E402


def _importance(keep: int = 5, spread: float = 2.0) -> TemporalImportance:
    importance = TemporalImportance(list_temporal_blocks(SMALL), keep)
    draw = torch.Generator().manual_seed(3)
    importance.scores.data = torch.randn(BLOCKS, generator=draw) * spread
    return importance


@pytest.mark.parametrize("keep", [1, 5, BLOCKS - 1])
@pytest.mark.parametrize("spread", [0.0, 2.0, 100.0])
def test_probabilities_sum_to_the_number_of_blocks_kept(keep: int, spread: float) -> None:
    probabilities = _importance(keep, spread).probabilities().detach()
    assert float(probabilities.sum()) == pytest.approx(keep, abs=1e-5)
    assert 0 <= float(probabilities.min()) <= float(probabilities.max()) <= 1
    order = _importance(keep, spread).scores.argsort()
    assert (probabilities[order].diff() >= 0).all()


@pytest.mark.parametrize("spread", [0.0, 2.0, 8.0])
def test_blocks_are_drawn_as_often_as_they_are_probable(spread: float) -> None:
    importance, draw = _importance(spread=spread), torch.Generator().manual_seed(0)
    probabilities = importance.probabilities().detach()
    count = 4000
    gates = torch.stack(
        [draw_systematic(probabilities, importance.keep, draw) for _ in range(count)]
    )
    assert (gates.sum(dim=1) == importance.keep).all()
    assert set(gates.unique().tolist()) == {0.0, 1.0}
    deviation = (probabilities * (1 - probabilities) / count).sqrt()
    assert ((gates.mean(dim=0) - probabilities).abs() <= 4 * deviation + 1e-6).all()


def test_as_many_are_drawn_as_asked_though_probabilities_are_rounded() -> None:
    draw = torch.Generator().manual_seed(0)
    rounded = torch.tensor([0.3, 0.3, 0.3])
    assert all(draw_systematic(rounded, 1, draw).sum() == 1 for _ in range(300))


def test_probabilities_have_the_gradient_of_the_constrained_sum() -> None:
    importance = _importance().double()
    weights = torch.randn(BLOCKS, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def expected(scores: Tensor) -> Tensor:
        importance.scores = nn.Parameter(scores)
        return (importance.probabilities().detach() * weights).sum()

    start, step = importance.scores.detach().clone(), 1e-6
    importance.scores = nn.Parameter(start.clone())
    (importance.probabilities() * weights).sum().backward()
    assert importance.scores.grad is not None
    gradient = importance.scores.grad
    assert abs(float(gradient.sum())) < 1e-9  # a shift of all scores changes nothing
    for index in range(BLOCKS):
        shift = torch.zeros_like(start)
        shift[index] = step
        slope = (expected(start + shift) - expected(start - shift)) / (2 * step)
        assert float(slope) == pytest.approx(float(gradient[index]), abs=1e-6)


def test_draws_repeat_with_the_generator() -> None:
    importance = _importance()
    first, again = (
        [importance.draw(draw).detach() for _ in range(5)]
        for draw in (torch.Generator().manual_seed(1), torch.Generator().manual_seed(1))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(first[0], other) for other in first[1:])


def test_gates_are_redrawn_on_the_network_and_gradients_reach_the_scores(unet: SVDUNet) -> None:
    importance, draw = _importance(), torch.Generator().manual_seed(1)
    seen = []
    for _ in range(3):
        gates = importance.redraw_(unet, draw)
        seen.append([float(block.gate.detach()) for block in unet.temporal_blocks().values()])
        assert seen[-1] == gates.tolist()
        unet(*make_inputs()).square().mean().backward()
    assert seen[0] != seen[1]
    assert importance.scores.grad is not None
    assert int((importance.scores.grad != 0).sum()) == BLOCKS
    assert unet.conv_in.weight.grad is not None
    kept = [name for name, gate in zip(importance.names, seen[-1], strict=True) if gate]
    pruned, _ = prune_temporal(unet, kept, latent_size=SIZE)
    assert relative_error(run_unet(pruned), run_unet(unet)) < 1e-6
    importance.release_(unet)
    assert all(block.gate is None for block in unet.temporal_blocks().values())
    assert "gate" not in " ".join(unet.state_dict())


def test_scores_learn_which_blocks_are_missed() -> None:
    importance, draw = TemporalImportance([f"b{i}" for i in range(8)], 3), torch.Generator()
    needed = torch.tensor([0.0, 1, 0, 0, 1, 0, 1, 0])
    optimizer = torch.optim.Adam(importance.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        ((1 - importance.draw(draw)) * needed).sum().backward()
        optimizer.step()
    assert importance.result("mobilevd").kept() == ("b1", "b4", "b6")


def test_scores_belong_to_one_kind_of_network(unet: SVDUNet) -> None:
    with pytest.raises(CompressionError, match=rf"has {BLOCKS} temporal blocks, the scores are"):
        TemporalImportance(["a", "b", "c"], 1).redraw_(unet)
    for names, keep in ((["a", "b"], 0), (["a", "b"], 2), (["a", "a"], 1)):
        with pytest.raises(CompressionError, match=rf"cannot keep {keep} of 2 temporal blocks"):
            TemporalImportance(names, keep)


def test_what_was_learned_is_kept_in_a_file(tmp_path: Path) -> None:
    learned = _importance().result("mobilevd")
    path = tmp_path / "importance.json"
    learned.save(path)
    assert load_importance(path) == learned
    assert list(load_importance(path).scores) == list(learned.scores)
    assert [item.name for item in tmp_path.iterdir()] == ["importance.json"]
    assert len(learned.kept()) == 5
    assert learned.kept(2) == tuple(n for n in learned.kept() if n in learned.kept(2))
    with pytest.raises(CompressionError, match=rf"cannot keep 99 of {BLOCKS}"):
        learned.kept(99)


def test_among_equal_scores_the_earlier_block_stays() -> None:
    equal = Importance(recipe="m", keep=2, scores={"a": 0.0, "b": 1.0, "c": 1.0, "d": 0.0})
    assert [equal.kept(count) for count in (1, 2, 3)] == [("b",), ("b", "c"), ("a", "b", "c")]


def test_scores_that_are_not_finite_are_not_kept() -> None:
    importance = _importance()
    importance.scores.data[3] = math.nan
    with pytest.raises(CompressionError, match="are not finite; train with a lower"):
        importance.result("mobilevd")


GOOD: dict[str, Any] = {"format_version": 1, "recipe": "m", "keep": 1, "scores": {"a": 1, "b": 0.5}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "expected a JSON object"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("\xff", "is not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ({**GOOD, "more": 1}, "key 'more' is unknown"),
        ({**GOOD, "format_version": 2}, "format_version is 2"),
        ({k: v for k, v in GOOD.items() if k != "keep"}, "keep is missing"),
        ({**GOOD, "keep": 3}, "keep is 3, expected an integer from 0 to 2"),
        ({**GOOD, "keep": True}, "keep is true"),
        ({**GOOD, "recipe": "two\nlines"}, "recipe is"),
        ({**GOOD, "scores": []}, "scores is"),
        ({**GOOD, "scores": {}}, "scores is"),
        ({**GOOD, "scores": {str(i): 0 for i in range(1025)}}, "an object of 1 to 1024 blocks"),
        ({**GOOD, "scores": {"a": "1"}}, "expected a module path and a number"),
        ({**GOOD, "scores": {"a": False}}, "expected a module path and a number"),
        ({**GOOD, "scores": {"a" * 300: 1}}, "expected a module path and a number"),
        ({**GOOD, "scores": {"a": 1e7}}, "the score of 'a' is 1e\\+07"),
        ({**GOOD, "scores": {"a": -1e7}}, "the score of 'a' is -1e\\+07"),
        ('{"format_version": 1, "recipe": "m", "keep": 1, "scores": {"a": NaN}}', "NaN"),
        ('{"format_version": 1, "recipe": "m", "keep": 1, "scores": {"a": 1e999}}', "not finite"),
    ],
)
def test_a_hostile_file_of_scores_is_refused_in_one_line(
    tmp_path: Path, document: Any, message: str
) -> None:
    path = tmp_path / "importance.json"
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CompressionError, match=message) as caught:
        load_importance(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"importance {str(path)!r}")
    assert str(caught.value).endswith(
        "; write it again with mvsdk train, or leave --importance out"
    )


def test_a_missing_file_of_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="cannot be read: no such file"):
        load_importance(tmp_path / "nothing.json")
