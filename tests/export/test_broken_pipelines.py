"""Pipelines of other packages that cannot end well: told before any work, in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from toy_models.folders import write_toy
from toy_models.networks import Text
from toy_models.pipelines import states
from toy_models.recipes import ENLARGE, STATES

from mvsdk.bundle import Bundle
from mvsdk.manifest import Run, Sampler
from mvsdk_export import families
from mvsdk_export.checkpoints import open_model
from mvsdk_export.errors import ExportError
from mvsdk_export.export import export
from mvsdk_export.families import Recipe
from mvsdk_export.families.pipeline import Pipeline, TokenizerRecipe
from mvsdk_export.jobs.runner import JobRunner
from mvsdk_export.planning.plan import plan_export
from mvsdk_export.planning.request import ExportRequest, plan_variants

pytestmark = pytest.mark.torch

Sizes = Mapping[str, int]


def no_output(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Return a program whose output names no array."""
    whole = states(recipe, sampler, sizes)
    return replace(whole, programs=(replace(whole.programs[0], output="nowhere"),))


def idle_table(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Return a table that no program uses."""
    whole = states(recipe, sampler, sizes)
    return replace(whole, tables={**whole.tables, "idle": np.zeros(3, np.float32)})


def long_numbers(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Return a table of numbers that no bundle has."""
    return replace(states(recipe, sampler, sizes), tables={"idle": np.zeros(3)})


def no_programs(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Return nothing to do."""
    return replace(states(recipe, sampler, sizes), programs=())


def strange_program(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Return something else in place of a program."""
    return replace(states(recipe, sampler, sizes), programs=(object(),))  # type: ignore[arg-type]


def strange_table(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Return something else in place of an array."""
    return replace(states(recipe, sampler, sizes), tables={"a": [1.0]})  # type: ignore[dict-item]


def nothing(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> None:
    """Return no pipeline."""


def fails(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Look for a size that there is not."""
    raise KeyError(f"{recipe.name}\n{sizes['no such size']}")


def refuses(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Say in own words what is not possible."""
    raise ExportError("no clips of 7 frames; use --frames 8")


def with_tokens(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Return a program of `states` whose text encoder calls its input otherwise."""
    whole = states(recipe, sampler, sizes)
    (program,) = whole.programs
    tokenize, encode, *others = program.operations
    assert isinstance(encode, Run)
    encode = replace(encode, inputs={"tokens": "input_ids"})
    return replace(whole, programs=(replace(program, operations=(tokenize, encode, *others)),))


def with_idle_tokenizer(recipe: Recipe, sampler: Sampler, sizes: Sizes) -> Pipeline:
    """Return a pipeline of a model without a text encoder, and a tokenizer."""
    from toy_models.pipelines import enlarge

    whole = enlarge(recipe, sampler, sizes)
    return replace(whole, tokenizers={"main": TokenizerRecipe(max_length=8)})


Ask = Callable[..., ExportRequest]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return what asks for the export of a toy, its pipeline made by a function of this module."""

    def make(function: Callable[..., Any] | str, recipe: Recipe = STATES) -> ExportRequest:
        name = function if isinstance(function, str) else f"{__name__}:{function.__name__}"
        recipe = replace(recipe, pipeline=name)
        monkeypatch.setattr(sys.modules[__name__], "CHANGED", recipe, raising=False)
        monkeypatch.setitem(families._PLACES, recipe.name, f"{__name__}:CHANGED")
        folder = write_toy(tmp_path / "model", recipe)
        return ExportRequest(
            folder=open_model(folder, recipe),
            variants=plan_variants("onnx", ["fp32"]),
            num_frames=recipe.num_frames,
            height=recipe.height,
            width=recipe.width,
            steps=(1,),
            out=tmp_path / "x.mvbundle",
        )

    return make


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_output, "no bundle can hold: programs[0].output is"),
        (no_output, "(rule P"),
        (idle_table, "tables.idle is used by no program"),
        (long_numbers, "tables.idle.dtype is"),
        (no_programs, "programs is"),
        (strange_program, "programs[0] is of the type object"),
        (strange_table, "no bundle can hold (AttributeError: 'list' object has no attribute"),
        (nothing, "returns a NoneType, expected a Pipeline; correct its package"),
        (fails, "fails (KeyError: 'no such size'); correct its package"),
        ("no_such_module:make", "fails (ModuleNotFoundError: No module named 'no_such_module')"),
        (f"{__name__}:missing", "has no attribute 'missing'"),
        (f"{__name__}", "fails (AttributeError:"),
    ],
)
def test_a_broken_function_is_told_before_any_work(
    ask: Ask, function: Callable[..., Any] | str, said: str
) -> None:
    request = ask(function)
    with pytest.raises(ExportError) as caught:
        plan_export(request)
    message = str(caught.value)
    assert said in message
    assert message.startswith("the recipe 'states' makes ")
    assert request.folder.recipe.pipeline is not None
    assert request.folder.recipe.pipeline in message
    assert "\n" not in message
    assert "manifest.json" not in message
    assert "export the bundle again" not in message


def test_what_a_function_refuses_itself_stays_in_its_words(ask: Ask) -> None:
    with pytest.raises(ExportError, match=r"^no clips of 7 frames; use --frames 8$"):
        plan_export(ask(refuses))


def test_a_tokenizer_without_a_text_encoder_is_refused(ask: Ask) -> None:
    with pytest.raises(ExportError, match="'enlarge' has the tokenizer main and no text encoder"):
        plan_export(ask(with_idle_tokenizer, ENLARGE))


class Tokens(Text):
    """Calls its input otherwise."""

    def forward(self, tokens: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Map `(1, L)` to `(1, L, D)`."""
        return super().forward(tokens)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_text_encoder_may_call_its_input_otherwise(ask: Ask, tmp_path: Path) -> None:
    words, *others = STATES.components
    (numbers,) = words.inputs
    words = replace(words, network=f"{__name__}:Tokens", inputs=(replace(numbers, name="tokens"),))
    recipe = replace(STATES, components=(words, *others))
    assert recipe.takes_text
    assert not ENLARGE.takes_text
    request = ask(with_tokens, recipe)
    with JobRunner(tmp_path / "cache") as runner:
        manifest = export(request, runner, lambda _: None).bundle.manifest
    assert list(manifest.tokenizers) == ["main"]
    assert [x.name for x in manifest.components["text_encoder"].inputs] == ["tokens"]
    assert Bundle.open(request.out, verify=True).manifest == manifest
