"""Targets of `mvsdk export`: which are asked for, at which precisions, with which options."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec as find_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from mvsdk._installed import toolchain_install
from mvsdk._staging import check_name
from mvsdk._text import quoted
from mvsdk.devices import Chipset, find_chipset
from mvsdk.errors import InputError
from mvsdk.manifest import Precision, Target
from mvsdk_export.commands.arguments import read_chips, read_precisions
from mvsdk_export.extras import require_toolchain
from mvsdk_export.targets import specs_of, target_specs
from mvsdk_export.targets.options import option_of, read_choice

if TYPE_CHECKING:
    from mvsdk_export.planning.request import ExportRequest, VariantOverride
    from mvsdk_export.targets.spec import Kind, TargetSpec, VariantPlan

_HELP = """\
Options of all targets:

  --component C=T/P      make one graph for another target, such as
                         vae_decoder=snapdragon/fp16; may be given again

Options of the targets iphone and executorch:

"""


def _help() -> str:
    return _HELP + "".join(spec.help for spec in target_specs().values())


class _TargetsHelp(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
        print(_help(), end="")
        parser.exit()


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only some targets have; their help is a page of its own."""
    names = re.findall(r"^  (--[a-z-]+)", _help(), re.MULTILINE)
    more = f"{len(names)} more options, most of iphone and executorch: "
    help_ = f"{more}{', '.join(names[:3])}, ..."
    parser.add_argument("--help-phones", action=_TargetsHelp, help=help_)
    parser.add_argument("--component", action="append", help=argparse.SUPPRESS)
    for spec in target_specs().values():
        spec.add_options(parser.add_argument)


def read_targets(text: str) -> tuple[Target, ...]:
    """Read targets; "all" means those of phones.

    Raises:
        InputError: If one is not known.
    """
    known = tuple(dict.fromkeys(spec.target for spec in target_specs().values()))
    phones = tuple(dict.fromkeys(x.target for x in target_specs().values() if x.is_phone))
    words = phones if text == "all" else text.split(",")
    for word in words:
        if word not in known:
            raise InputError(f"unknown target {quoted(word)}; known: {', '.join(known)}, all")
    return tuple(dict.fromkeys(cast("Sequence[Target]", words)))


class ChosenTargets:
    """What `--target` and the options beside it ask for."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Read the options.

        Args:
            options: As the parser made them.

        Raises:
            InputError: If an option is not allowed, or does not go with the targets.
        """
        self._arguments = options
        targets = read_targets(options.target)
        overrides = [_split_override(text) for text in options.component or ()]
        _check_belonging(options, targets, [target for _, target, _ in overrides])
        specs = [spec for target in targets for spec in self._formats_of(target)]
        self.left_out: dict[str, str] = {}
        """Of `--target all`: name of a format -> why it is not made."""
        if options.target == "all":
            specs = self._installed(specs)
        self.specs: tuple[TargetSpec[Any], ...] = tuple(specs)
        self.options = {spec.name: spec.read_options(options) for spec in self._all_specs()}
        """Name of a target -> its options."""

    def _formats_of(self, target: Target) -> list[TargetSpec[Any]]:
        """Return the formats of a target that are asked for."""
        return [spec for spec in specs_of(target) if spec.is_chosen(self._arguments)]

    def _all_specs(self) -> list[TargetSpec[Any]]:
        """Return those that some component may be made for."""
        overrides = [_split_override(text) for text in self._arguments.component or ()]
        others = [spec for _, target, _ in overrides for spec in self._formats_of(target)]
        return [*self.specs, *(spec for spec in others if spec not in self.specs)]

    def _installed(self, specs: Sequence[TargetSpec[Any]]) -> list[TargetSpec[Any]]:
        """Return those whose packages are there, and note the others.

        Raises:
            ExportError: If none is, with the pip command for the first.
        """
        found: list[TargetSpec[Any]] = []
        for spec in specs:
            kind = spec.kind(spec.read_options(self._arguments))
            missing = [name for name in kind.modules if find_module(name) is None]
            if missing:
                how = toolchain_install(kind.extra)
                self.left_out[spec.name] = f"{', '.join(missing)} not installed; {how}"
            else:
                found.append(spec)
        if not found:
            require_kinds([specs[0].kind(specs[0].default_options())], "export")
        return found

    def kind_of(self, spec: TargetSpec[Any]) -> Kind:
        """Return what is made for a target under the options."""
        return spec.kind(self.options[spec.name])

    def plan_variants(self) -> tuple[VariantPlan, ...]:
        """Return the variants that are asked for; check that their tools are there.

        Raises:
            InputError: If a precision or an option does not go with the targets.
            ExportError: If a package is missing, with the pip command.
        """
        require_kinds(map(self.kind_of, self.specs), "export", "onnxscript", "tqdm")
        precisions = self._read_precisions()
        others = [_split_override(text) for text in self._arguments.component or ()]
        for spec in self._all_specs():
            made: list[str] = list(precisions.get(spec.name, ()))
            made += [precision for _, target, precision in others if target == spec.target]
            spec.check_precisions(cast("Sequence[Precision]", made), self.options[spec.name])
        chips = self._read_chipsets()
        return tuple(
            plan
            for spec in self.specs
            for plan in spec.plan_variants(
                precisions[spec.name], chips=chips, options=self.options[spec.name]
            )
        )

    def _read_precisions(self) -> dict[str, tuple[Precision, ...]]:
        text = self._arguments.precision
        kinds = {spec.name: self.kind_of(spec) for spec in self.specs}
        if text is None:
            return {name: kind.default for name, kind in kinds.items()}
        known = dict.fromkeys(x for kind in kinds.values() for x in kind.precisions)
        wanted = read_precisions(text, cast("Sequence[Precision]", tuple(known)))
        found: dict[str, tuple[Precision, ...]] = {}
        for spec in self.specs:
            kind = kinds[spec.name]
            found[spec.name] = tuple(p for p in wanted if p in kind.precisions)
            if not found[spec.name]:
                several = sum(other.target == spec.target for other in self.specs) > 1
                label = f"{spec.target} ({spec.format})" if several else spec.target
                raise InputError(
                    f"--precision {text[:64]} is nothing that {label} is made in: "
                    f"{', '.join(kind.precisions)}; add one of these, or leave {label} out"
                )
        return found

    def _read_chipsets(self) -> tuple[Chipset, ...]:
        if not any(spec.takes_chips for spec in self.specs):
            return ()
        names = read_chips(self._arguments.chip, every=False)
        return tuple(dict.fromkeys(find_chipset(name) for name in names))

    def read_overrides(
        self, components: Sequence[str], variants: Sequence[VariantPlan]
    ) -> dict[str, VariantOverride]:
        """Return what single components are made in, as `--component NAME=TARGET/PRECISION` asks.

        Args:
            components: Of the model.
            variants: What the others are made in.

        Raises:
            InputError: If one is not understood, or nothing is made of it.
            ExportError: If a package is missing, with the pip command.
        """
        from mvsdk_export.planning.request import VariantOverride

        overrides: dict[str, VariantOverride] = {}
        for text in self._arguments.component or ():
            name, target, precision = _split_override(text)
            spec = self._formats_of(target)[0]
            kind = self.kind_of(spec)
            read_choice("--component", name, components)
            read_choice(f"--component {name}={target}", precision, kind.precisions)
            if spec.takes_chips and any(plan.chipset is None for plan in variants):
                raise InputError(
                    f"--component {name}={target}/{precision} is compiled for the chip that the "
                    f"others are for; use it with --target {target}"
                )
            require_kinds([kind], "export")
            overrides[name] = VariantOverride(
                spec=spec.name,
                precision=cast("Precision", precision),
                options=self.options[spec.name],
            )
        return overrides


def kinds_of(plans: Iterable[Any]) -> list[Kind]:
    """Return what makes variants.

    Args:
        plans: What has `target`, `format` and `delegate`, such as variants of a manifest.
    """
    found: dict[int, Kind] = {}
    for plan in plans:
        for spec in target_specs().values():
            if (spec.target, spec.format) == (plan.target, plan.format):
                kind = spec.kinds.get(plan.delegate or "", next(iter(spec.kinds.values())))
                found[id(kind)] = kind
    return list(found.values())


def require_kinds(kinds: Iterable[Kind], command: str, *modules: str) -> None:
    """Check that what makes and runs files of some kinds is installed.

    Args:
        kinds: The kinds.
        command: The verb that needs them.
        *modules: What it needs beside PyTorch and ONNX.

    Raises:
        ExportError: If a package is missing, with the pip command.
    """
    base = ("torch", "onnx", *modules)
    for kind in kinds:
        require_toolchain(*base, *kind.modules, command=command, extra=kind.extra)
    require_toolchain(*base, command=command)


def read_resources(text: str | None, request: ExportRequest) -> Path | None:
    """Return the folder of --resources, which must not exist yet.

    Args:
        text: What the option says; None if it is not given.
        request: What is exported.

    Raises:
        InputError: If it does, its parent is no folder, or it is the bundle; or if a component is
            no Core ML package.
        OutputError: If its name cannot be given to a folder.
    """
    if text is None:
        return None
    path = Path(text)
    check_name(path)
    if os.path.lexists(path) or not os.path.isdir(path.absolute().parent):
        raise InputError(f"--resources is {quoted(text)}, expected a new folder in an existing one")
    if path.resolve() == request.out.resolve():
        raise InputError(
            f"--resources is {quoted(text)}, where the bundle goes; name another folder"
        )
    for part in request.folder.recipe.components:
        plans = request.plans_of(part.name)
        if all(plan.format != "coreml" for plan in plans):
            made = ", ".join(plan.id for plan in plans)
            other = request.overrides.get(part.name)
            which = f"--component {part.name}={other.label}, or " if other else ""
            raise InputError(
                f"--resources takes every component as a Core ML package, {part.name} is made as "
                f"{made}; leave out {which}--resources"
            )
    return path


def _split_override(text: str) -> tuple[str, Target, str]:
    """Return component, target and precision of a --component; only the target is checked."""
    name, _, kind = text.partition("=")
    target, _, precision = kind.partition("/")
    if not precision:
        raise InputError(
            f"--component {quoted(text, 40)} is not NAME=TARGET/PRECISION, such as "
            "vae_decoder=snapdragon/fp16"
        )
    known = dict.fromkeys(spec.target for spec in target_specs().values())
    return name, read_choice("--component", target, tuple(known)), precision


def _check_belonging(
    options: argparse.Namespace, targets: Sequence[Target], others: Sequence[Target]
) -> None:
    """Refuse an option of a target that nothing is made for.

    Args:
        options: The options.
        targets: Of --target.
        others: Of --component.
    """
    made = tuple(dict.fromkeys([*targets, *others]))
    every = target_specs().values()
    chosen = [spec for spec in every if spec.target in made and spec.is_chosen(options)]
    for name in dict.fromkeys(name for spec in every for name in spec.option_names):
        is_given = getattr(options, name) not in (None, False)
        if is_given and not any(spec.takes(name, options) for spec in chosen):
            _refuse_option(name, made, chosen)
    with_chips = [spec for spec in every if spec.takes_chips]
    if options.chip is not None and not any(spec.target in targets for spec in with_chips):
        raise InputError(
            f"--chip goes with --target {' or '.join(spec.target for spec in with_chips)}, not "
            f"{', '.join(targets)}; leave it out"
        )


def _refuse_option(
    name: str, made: Sequence[Target], chosen: Sequence[TargetSpec[Any]]
) -> NoReturn:
    """Say what an option goes with.

    Args:
        name: As `argparse` stores it.
        made: Targets that something is made for.
        chosen: The formats of them that are meant.
    """
    takers = [spec for spec in target_specs().values() if name in spec.option_names]
    formats = [x.format for x in takers if x.target in made and x not in chosen]
    if formats:
        raise InputError(f"{option_of(name)} goes with --format {formats[0]}; leave it out")
    conditions = {spec.target: spec.option_conditions.get(name) for spec in takers}
    places = [f"{target} with {how}" if how else target for target, how in conditions.items()]
    others = "" if conditions.keys() & set(made) else f", not {', '.join(made)}"
    raise InputError(
        f"{option_of(name)} goes with --target {' or '.join(places)}{others}; leave it out"
    )
