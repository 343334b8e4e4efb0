"""Recipes and pipelines of models whose denoiser is cut: its conditioning runs once for a clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import cast

from mvsdk._json import JsonValue, Node
from mvsdk.manifest import Loop, Operation, Program, Run, Sample, Sampler, Tokenize
from mvsdk_export.families.cut import Argument, ArgumentDType, Crossing, Cut
from mvsdk_export.families.pipeline import Pipeline
from mvsdk_export.families.recipe import ComponentRecipe, Recipe, TensorRecipe

CUTS = "x-conditioning"
"""Key of a manifest: where graphs of the bundle are cut in two."""

_ARRAYS = "once_"
"""How the arrays that cross are called in a program, before their number."""


def cut_recipe(recipe: Recipe, cut: Cut) -> Recipe:
    """Return a recipe with a component that runs once for a clip, before the one that is cut.

    Both are graphs of one network with one file of weights. What crosses is held to the floors of
    the denoiser: it lies inside of it, and where its own errors were larger the denoiser, which is
    compared on the exact values, would pass and whole clips would not.

    Args:
        recipe: The model, whole.
        cut: Where its denoiser is cut.
    """
    whole = recipe.component(cut.component)
    inputs = {tensor.name: tensor for tensor in whole.inputs}
    crossing = tuple(
        TensorRecipe(name=item.name, shape=item.shape, dtype="float32") for item in cut.crossings
    )
    conditioning = replace(
        whole,
        name=cut.name,
        role="conditioning",
        inputs=tuple(inputs[name] for name in cut.conditioning_inputs),
        outputs=crossing,
        cut=cut,
    )
    steps = replace(whole, inputs=(*(inputs[name] for name in cut.step_inputs), *crossing), cut=cut)
    components: list[ComponentRecipe] = []
    for part in recipe.components:
        components += [conditioning, steps] if part.name == cut.component else [part]
    return replace(
        recipe,
        components=tuple(components),
        floors_db={
            precision: {**floors, cut.name: floors[cut.component]}
            if cut.component in floors
            else floors
            for precision, floors in recipe.floors_db.items()
        },
    )


def cut_pipeline(pipeline: Pipeline, cut: Cut) -> Pipeline:
    """Return a pipeline that runs what was cut off before each sampler that uses the denoiser.

    Args:
        pipeline: Of the whole recipe. The denoiser runs inside of samplers alone, and what is
            given to the cut's conditioning inputs is known before (`find_conditioning`).
        cut: Where the denoiser is cut.
    """
    programs = tuple(_ProgramCutter(program, cut).program for program in pipeline.programs)
    return replace(pipeline, programs=programs)


class _ProgramCutter:
    """Rewrites one program."""

    def __init__(self, program: Program, cut: Cut) -> None:
        self._cut = cut
        self._count = 0
        names = {*program.inputs, *program.names_used(), *_made(program.operations)}
        self._stem = _ARRAYS
        while any(name.startswith(self._stem) for name in names):
            self._stem = f"x_{self._stem}"
        self.program = replace(program, operations=self._cut_all(program.operations))

    def _cut_all(self, operations: Sequence[Operation]) -> tuple[Operation, ...]:
        found: list[Operation] = []
        for operation in operations:
            match operation:
                case Sample():
                    found += self._cut_sample(operation)
                case Loop():
                    inside = self._cut_all(operation.operations)
                    found.append(replace(operation, operations=inside))
                case _:
                    found.append(operation)
        return tuple(found)

    def _cut_sample(self, sample: Sample) -> list[Operation]:
        """Return a sampler, and before it a run for each conditioning that its steps are given."""
        before: dict[tuple[str, ...], Run] = {}
        operations = self._take(self._cut_all(sample.operations), before)
        return [*before.values(), replace(sample, operations=operations)]

    def _take(
        self, operations: Sequence[Operation], before: dict[tuple[str, ...], Run]
    ) -> tuple[Operation, ...]:
        """Return operations of a step that take what the runs before it made."""
        found: list[Operation] = []
        for operation in operations:
            match operation:
                case Run() if operation.component == self._cut.component:
                    made = self._run_before(operation, before).outputs
                    kept = {name: operation.inputs[name] for name in self._cut.step_inputs}
                    found.append(replace(operation, inputs={**kept, **made}))
                case Loop():
                    inside = self._take(operation.operations, before)
                    found.append(replace(operation, operations=inside))
                case _:
                    found.append(operation)
        return tuple(found)

    def _run_before(self, run: Run, before: dict[tuple[str, ...], Run]) -> Run:
        inputs = {name: run.inputs[name] for name in self._cut.conditioning_inputs}
        key = tuple(inputs.values())
        if key not in before:
            outputs: dict[str, str] = {}
            for item in self._cut.crossings:
                self._count += 1
                outputs[item.name] = f"{self._stem}{self._count}"
            before[key] = Run(component=self._cut.name, inputs=inputs, outputs=outputs)
        return before[key]


def find_conditioning(
    programs: Sequence[Program], samplers: Mapping[str, Sampler], component: str
) -> frozenset[str]:
    """Return the inputs of a denoiser that are the same at all steps of a sampler.

    Args:
        programs: All of them that run it.
        samplers: By name.
        component: The denoiser.

    Returns:
        Names of its inputs: none where it also runs outside of samplers, or where no sampler that
        it runs in takes more than one step, as there is nothing to save then.
    """
    runs = [
        item for program in programs for item in _runs(program.operations, component, inside=None)
    ]
    if any(sample is None for _, sample in runs):
        return frozenset()
    samples = [(run, sample) for run, sample in runs if sample is not None]
    if all(_most_steps(samplers[sample.sampler]) == 1 for _, sample in samples):
        return frozenset()
    found = [
        {name for name, array in run.inputs.items() if array not in _changing(sample)}
        for run, sample in samples
    ]
    return frozenset(set.intersection(*found)) if found else frozenset()


def _most_steps(sampler: Sampler) -> int:
    return max(sampler.schedules) if sampler.adjustable else sampler.default_steps


def _runs(
    operations: Sequence[Operation], component: str, inside: Sample | None
) -> Iterator[tuple[Run, Sample | None]]:
    """Yield the runs of a component, each with the innermost sampler around it."""
    for operation in operations:
        match operation:
            case Run() if operation.component == component:
                yield operation, inside
            case Sample():
                yield from _runs(operation.operations, component, operation)
            case Loop():
                yield from _runs(operation.operations, component, inside)
            case _:
                pass


def _changing(sample: Sample) -> set[str]:
    """Return the names of all arrays that are known inside of a sampler alone."""
    own = {sample.index, sample.model_input, sample.timestep, *sample.carried}
    return own | _made(sample.operations)


def _made(operations: Sequence[Operation]) -> set[str]:
    """Return all names that operations, and those inside of them, give to arrays and counters."""
    names: set[str] = set()
    for operation in operations:
        match operation:
            case Run():
                names |= set(operation.outputs.values())
            case Tokenize():
                names |= {operation.output, operation.mask or operation.output}
            case Sample():
                names |= _changing(operation) | {operation.output} | _handed_on(operation)
            case Loop():
                names |= {operation.index, *operation.carried} | _handed_on(operation)
                names |= {item.output for item in operation.collected.values()}
                names |= _made(operation.operations)
            case _:
                names.add(operation.output)
    return names


def _handed_on(operation: Sample | Loop) -> set[str]:
    return {item.output for item in operation.carried.values() if item.output is not None}


def write_cuts(cuts: Sequence[Cut]) -> JsonValue:
    """Return cuts as JSON values, for the manifest."""
    return cast("JsonValue", [_plain(asdict(cut)) for cut in cuts])


def read_cuts(extensions: Mapping[str, JsonValue]) -> tuple[Cut, ...]:
    """Return the cuts that a bundle of ours holds; none for bundles whose graphs are whole.

    Args:
        extensions: Of the manifest.

    Raises:
        BundleError: If the manifest says something else under its key.
    """
    if CUTS not in extensions:
        return ()
    return tuple(_read_cut(item) for item in Node(extensions[CUTS], CUTS).items(most=16))


def _plain(value: object) -> object:
    """Return dataclasses' values with lists for tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _read_cut(node: Node) -> Cut:
    f = node.fields(*Cut.__dataclass_fields__)
    return Cut(
        component=f["component"].identifier(),
        name=f["name"].identifier(),
        arguments=tuple(map(_read_argument, f["arguments"].items(least=1, most=64))),
        conditioning_inputs=_read_names(f["conditioning_inputs"]),
        step_inputs=_read_names(f["step_inputs"]),
        crossings=tuple(map(_read_crossing, f["crossings"].items(least=1, most=64))),
    )


def _read_argument(node: Node) -> Argument:
    f = node.fields(*Argument.__dataclass_fields__)
    dtypes: tuple[ArgumentDType, ...] = ("float32", "int32")
    return Argument(
        name=_read_name(f["name"]), shape=_read_shape(f["shape"]), dtype=f["dtype"].choice(dtypes)
    )


def _read_crossing(node: Node) -> Crossing:
    f = node.fields(*Crossing.__dataclass_fields__)
    calls = f["calls"].integer(1, 1 << 16)
    return Crossing(
        name=_read_name(f["name"]),
        module=_read_name(f["module"]),
        call=f["call"].integer(0, calls - 1),
        calls=calls,
        shape=_read_shape(f["shape"]),
    )


def _read_names(node: Node) -> tuple[str, ...]:
    return tuple(map(_read_name, node.items(least=1, most=64)))


def _read_name(node: Node) -> str:
    return node.text(most=512)


def _read_shape(node: Node) -> tuple[int, ...]:
    return tuple(item.integer(1, 1 << 30) for item in node.items(most=8))
