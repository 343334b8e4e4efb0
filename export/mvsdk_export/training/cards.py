"""What the model cards of all trainings have in common."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from mvsdk_export.families import find_recipe
from mvsdk_export.training.recipe import TrainingRecipe

_WIDTH = 100


def write_card(sections: Sequence[str]) -> str:
    """Return the text of README.md: Markdown, paragraphs and list items filled.

    Args:
        sections: Its parts; headings, tables and commands stay as they are.
    """
    return "\n\n".join(_wrap(section.strip()) for section in sections) + "\n"


def sizes_table(parameters: Mapping[str, int]) -> str:
    """Return a table of components and their weights, all of them at the end."""
    rows = [*parameters.items(), ("all", sum(parameters.values()))]
    lines = [f"| {name} | {count / 1e6:.2f} M | {2 * count / 1e6:.1f} MB |" for name, count in rows]
    return "\n".join(["| component | weights | float16 |", "|---|---|---|", *lines])


def options_table(recipe: TrainingRecipe) -> str:
    """Return a table of how the network of every stage was trained."""
    lines: list[str] = []
    for stage in recipe.trained_stages:
        options = recipe.options(stage)
        rate = f"{options.learning_rate:g}"
        if options.matrix_rate is not None:
            rate += f", Muon {options.matrix_rate:g}"
        cells = (
            stage,
            options.steps,
            options.batch_size,
            rate,
            f"{options.ema_decay:g}",
            options.precision,
            options.seed,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    head = "| stage | steps | batch | learning rate | weight average | precision | seed |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *lines])


def licences_list(recipe: TrainingRecipe) -> str:
    """Return a list of licences and of what they cover."""
    licences = find_recipe(recipe.name).licences
    return "\n".join(f"* {licence}: {what}." for licence, what in licences.items())


def _wrap(section: str) -> str:
    blocks: list[str] = []
    for block in section.split("\n\n"):
        if block.startswith("* "):
            items = block.removeprefix("* ").split("\n* ")
            blocks.append("\n".join(_fill(f"* {item}", "  ") for item in items))
        elif block.startswith(("#", "|", "    ")):
            blocks.append(block)
        else:
            blocks.append(_fill(block, ""))
    return "\n\n".join(blocks)


def _fill(text: str, indent: str) -> str:
    joined = " ".join(text.split())
    return textwrap.fill(
        joined, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
