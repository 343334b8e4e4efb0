"""Targets of `mvsdk export`: what each is made in and needs, and options that only some have."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mvsdk._staging import check_name
from mvsdk._text import quoted
from mvsdk.cli.command import whole_number
from mvsdk.devices import Chipset, find_chipset
from mvsdk.errors import InputError
from mvsdk.manifest import ComputeUnit, Delegate, Format, Precision, Target
from mvsdk.targets import TARGETS
from mvsdk_export.commands import Extra, require_toolchain
from mvsdk_export.commands.arguments import read_chips, read_precisions
from mvsdk_export.targets.coreml.tools import DEFAULT_DEPLOYMENT_TARGET, DEPLOYMENT_TARGETS

if TYPE_CHECKING:
    from mvsdk_export.planning.request import (
        AppleOptions,
        ExecuTorchOptions,
        ExportRequest,
        VariantOverride,
        VariantPlan,
    )

PHONES: tuple[Target, ...] = ("snapdragon", "iphone", "executorch")
"""What `--target all` means: `onnx` is for computers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A target with what its files are, or with what takes their operators."""

    precisions: tuple[Precision, ...]
    default: tuple[Precision, ...]
    extra: Extra
    modules: tuple[str, ...] = ()
    """What its extra brings beside the toolchain."""


KINDS: Mapping[str, Kind] = {
    "onnx": Kind(
        precisions=("fp32", "fp16", "w8a16"),
        default=("fp32", "fp16", "w8a16"),
        extra="export",
    ),
    "qnn_context": Kind(
        precisions=("w8a16", "fp16"),
        default=("w8a16",),
        extra="snapdragon",
        modules=("onnxruntime_qnn",),
    ),
    "coreml": Kind(
        precisions=("fp16", "w8", "w6", "w4"),
        default=("w8",),
        extra="apple",
        modules=("coremltools",),
    ),
    "coreai": Kind(
        precisions=("fp32", "fp16", "w8", "w6", "w4"),
        default=("w8",),
        extra="coreai",
        modules=("coreai", "coreai_torch"),
    ),
    "executorch-xnnpack": Kind(
        precisions=("fp32", "w8a8"),
        default=("w8a8",),
        extra="executorch",
        modules=("executorch", "torchao"),
    ),
    "executorch-coreml": Kind(
        precisions=("fp16",),
        default=("fp16",),
        extra="executorch",
        modules=("executorch", "coremltools"),
    ),
}
COREAI_TARGETS = ("iOS27",)
DELEGATES: tuple[Delegate, ...] = ("xnnpack", "coreml")
COMPUTE_UNITS: Mapping[str, ComputeUnit] = {
    "CPU_AND_NE": "NPU",
    "CPU_AND_GPU": "GPU",
    "CPU_ONLY": "CPU",
    "ALL": "ALL",
}
"""Core ML's names -> those of bundles."""
ATTENTIONS = ("fused", "split-einsum")

_HELP = """\
Options of all targets:

  --component C=T/P      make one graph for another target, such as
                         vae_decoder=snapdragon/fp16; may be given again

Options of the targets iphone and executorch:

  --format F             coreml or coreai (default: coreml below iOS27)
  --deployment-target S  least system: iOS17, iOS18, iOS26; iOS27 is coreai
                         (default: iOS18)
  --compute-units U      ALL, CPU_AND_NE, CPU_AND_GPU or CPU_ONLY
                         (default: CPU_AND_NE)
  --attention A          fused or split-einsum (default: fused, an operator of
                         its own from iOS18 on)
  --chunk-bytes N        weights above which a package is cut (default: 1 GB)
  --palette-group N      output channels that share a palette (default: up to
                         16, what divides the channels of a weight)
  --resources DIR        also write packages under the names that Apple's
                         Swift code for Stable Diffusion opens
  --delegate D           xnnpack or coreml (default: xnnpack)
  --external-weights     keep weights of .pte programs in .ptd files
  --etrecord             keep records for ExecuTorch's developer tools
"""


_OPTIONS = re.findall(r"^  (--[a-z-]+)", _HELP, re.MULTILINE)


class _PhonesHelp(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
        print(_HELP, end="")
        parser.exit()


def add_phone_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that only some targets have; their help is a page of its own."""
    add = parser.add_argument
    more = f"{len(_OPTIONS)} more options, most of iphone and executorch: "
    add("--help-phones", action=_PhonesHelp, help=f"{more}{', '.join(_OPTIONS[:3])}, ...")
    for name in ("--format", "--deployment-target", "--compute-units", "--attention"):
        add(name, help=argparse.SUPPRESS)
    for name in ("--resources", "--delegate"):
        add(name, help=argparse.SUPPRESS)
    add("--component", action="append", help=argparse.SUPPRESS)
    for name in ("--chunk-bytes", "--palette-group"):
        add(name, type=whole_number, help=argparse.SUPPRESS)
    for name in ("--external-weights", "--etrecord"):
        add(name, action="store_true", help=argparse.SUPPRESS)


def read_targets(text: str) -> tuple[Target, ...]:
    """Read targets; "all" means those of phones.

    Raises:
        InputError: If one is not known.
    """
    words = PHONES if text == "all" else text.split(",")
    for word in words:
        if word not in TARGETS:
            raise InputError(f"unknown target {quoted(word)}; known: {', '.join(TARGETS)}, all")
    return tuple(dict.fromkeys(cast("Sequence[Target]", words)))


def read_variants(options: argparse.Namespace) -> tuple[VariantPlan, ...]:
    """Return the sets of variants that the options ask for; check that their tools are there.

    Raises:
        InputError: If an option does not go with the targets.
        ExportError: If a package is missing, with the pip command.
    """
    targets = read_targets(options.target)
    others = [_split_override(text) for text in options.component or ()]
    _check_options(options, targets, [target for _, target, _ in others])
    format_, deployment_target = _read_apple_format(options)
    for name in ("resources", "attention", "chunk_bytes"):
        if getattr(options, name) is not None and format_ != "coreml":
            raise InputError(f"{_option(name)} goes with --format coreml; leave it out")
    delegate = _read_delegate(options.delegate)
    if options.external_weights and delegate != "xnnpack":
        raise InputError(
            f"--external-weights goes with --delegate xnnpack, not {delegate}, which keeps its "
            "weights to itself; leave it out"
        )
    names: dict[Target, str] = {x: _kind_name(x, format_, delegate) for x in targets}
    require_tools(names.values(), "export", "onnxscript", "tqdm")
    precisions = _read_precisions(options.precision, names)
    if options.palette_group is not None:
        made = [precision for _, target, precision in others if target == "iphone"]
        _check_palettes([*precisions.get("iphone", ()), *made], format_, deployment_target)
    from mvsdk_export.planning.request import plan_variants

    return tuple(
        plan
        for target in targets
        for plan in plan_variants(
            target,
            precisions[target],
            chips=_read_chipsets(options, target),
            format=format_ if target == "iphone" else None,
            delegate=cast("Delegate", delegate),
            deployment_target=deployment_target,
        )
    )


def read_overrides(
    options: argparse.Namespace, components: Sequence[str], variants: Sequence[VariantPlan]
) -> dict[str, VariantOverride]:
    """Return what single components are made in, as `--component NAME=TARGET/PRECISION` asks.

    Args:
        options: The options.
        components: Of the model.
        variants: What the others are made in.

    Raises:
        InputError: If one is not understood, or nothing is made of it.
        ExportError: If a package is missing, with the pip command.
    """
    from mvsdk_export.planning.request import VariantOverride

    overrides: dict[str, VariantOverride] = {}
    format_, deployment_target = _read_apple_format(options)
    delegate = _read_delegate(options.delegate)
    for text in options.component or ():
        name, target, precision = _split_override(text)
        _read_choice("--component", name, components)
        kind_name = _kind_name(target, format_, delegate)
        _read_choice(f"--component {name}={target}", precision, KINDS[kind_name].precisions)
        if target == "snapdragon" and any(plan.chipset is None for plan in variants):
            raise InputError(
                f"--component {name}={target}/{precision} is compiled for the chip that the others "
                "are for; use it with --target snapdragon"
            )
        require_tools([kind_name], "export")
        overrides[name] = VariantOverride(
            target=target,
            precision=cast("Precision", precision),
            format=format_ if target == "iphone" else None,
            delegate=cast("Delegate", delegate),
            deployment_target=deployment_target,
        )
    return overrides


def _split_override(text: str) -> tuple[str, Target, str]:
    """Return component, target and precision of a --component; only the target is checked."""
    name, _, kind = text.partition("=")
    target, _, precision = kind.partition("/")
    if not precision:
        raise InputError(
            f"--component {quoted(text, 40)} is not NAME=TARGET/PRECISION, such as "
            "vae_decoder=snapdragon/fp16"
        )
    return name, cast("Target", _read_choice("--component", target, tuple(TARGETS))), precision


def require_tools(names: Iterable[str], command: str, *modules: str) -> None:
    """Check that what makes and runs these kinds is installed.

    Args:
        names: Of `KINDS`; others need nothing here.
        command: The verb that needs them.
        *modules: What it needs beside PyTorch and ONNX.

    Raises:
        ExportError: If a package is missing, with the pip command.
    """
    base = ("torch", "onnx", *modules)
    for kind in (KINDS[name] for name in names if name in KINDS):
        require_toolchain(*base, *kind.modules, command=command, extra=kind.extra)
    require_toolchain(*base, command=command)


def read_apple(options: argparse.Namespace) -> AppleOptions:
    """Return how packages for Apple's phones are made.

    Raises:
        InputError: If a value is not allowed.
    """
    from mvsdk_export.planning.request import AppleOptions

    units = _read_choice("--compute-units", options.compute_units or "CPU_AND_NE", COMPUTE_UNITS)
    attention = _read_choice("--attention", options.attention or "fused", ATTENTIONS)
    found = AppleOptions(
        compute_unit=COMPUTE_UNITS[units],
        attention="fused" if attention == "fused" else "split_einsum",
        palette_group=_read_count("--palette-group", options.palette_group, 1, 1 << 16),
    )
    if options.chunk_bytes is None:
        return found
    from dataclasses import replace

    chunk = _read_count("--chunk-bytes", options.chunk_bytes, 1 << 16, 1 << 40)
    return replace(found, chunk_bytes=chunk)


def read_executorch(options: argparse.Namespace) -> ExecuTorchOptions:
    """Return how ExecuTorch programs are made."""
    from mvsdk_export.planning.request import ExecuTorchOptions

    return ExecuTorchOptions(external_weights=options.external_weights, etrecord=options.etrecord)


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
        raise InputError(f"--resources is {quoted(text)}, want a new folder in an existing one")
    if path.resolve() == request.out.resolve():
        raise InputError(
            f"--resources is {quoted(text)}, where the bundle goes; name another folder"
        )
    for part in request.folder.recipe.components:
        plans = request.plans_of(part.name)
        if all(plan.format != "coreml" for plan in plans):
            made = ", ".join(plan.id for plan in plans)
            other = request.overrides.get(part.name)
            which = (
                f"--component {part.name}={other.target}/{other.precision}, or " if other else ""
            )
            raise InputError(
                f"--resources takes every component as a Core ML package, {part.name} is made as "
                f"{made}; leave out {which}--resources"
            )
    return path


_BELONGS: Mapping[str, Target] = {
    "format": "iphone",
    "compute_units": "iphone",
    "attention": "iphone",
    "chunk_bytes": "iphone",
    "palette_group": "iphone",
    "resources": "iphone",
    "delegate": "executorch",
    "external_weights": "executorch",
    "etrecord": "executorch",
}


def _check_options(
    options: argparse.Namespace, targets: Sequence[Target], others: Sequence[Target]
) -> None:
    """Refuse an option of a target that nothing is made for.

    Args:
        options: The options.
        targets: Of --target.
        others: Of --component.
    """
    made = tuple(dict.fromkeys([*targets, *others]))
    for name, target in _BELONGS.items():
        if getattr(options, name) not in (None, False) and target not in made:
            raise InputError(
                f"{_option(name)} goes with --target {target}, not {', '.join(made)}; leave it out"
            )
    apple = "iphone" in made or options.delegate == "coreml"
    if options.deployment_target is not None and not apple:
        raise InputError(
            "--deployment-target goes with --target iphone, or executorch with --delegate coreml; "
            "leave it out"
        )
    if options.chip is not None and "snapdragon" not in targets:
        raise InputError(
            f"--chip goes with --target snapdragon, not {', '.join(targets)}; leave it out"
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_palettes(precisions: Sequence[str], format_: str, system: str) -> None:
    """Refuse --palette-group where no weight has a palette for some of its channels."""
    if not set(precisions) & {"w8", "w6", "w4"}:
        raise InputError(
            f"--palette-group goes with --precision w8, w6 or w4, not {', '.join(precisions)}; "
            "leave it out"
        )
    if format_ == "coreml" and system == "iOS17":
        raise InputError(
            "--palette-group goes with --deployment-target iOS18 or later: iOS17 knows one palette "
            "for a whole weight; leave it out"
        )


def _read_apple_format(options: argparse.Namespace) -> tuple[Format, str]:
    """Return what packages for the target iphone are, and the least system that opens them."""
    system = options.deployment_target
    if system is not None:
        number = re.fullmatch(r"i?(?:os)?([0-9]{1,3})", system.strip(), re.IGNORECASE)
        system = f"iOS{int(number[1])}" if number else system
        _read_choice("--deployment-target", system, (*DEPLOYMENT_TARGETS, *COREAI_TARGETS))
    chosen = options.format or ("coreai" if system in COREAI_TARGETS else "coreml")
    _read_choice("--format", chosen, ("coreml", "coreai"))
    allowed = COREAI_TARGETS if chosen == "coreai" else DEPLOYMENT_TARGETS
    if system is not None and system not in allowed:
        raise InputError(
            f"--deployment-target {system} does not go with --format {chosen}; allowed: "
            f"{', '.join(allowed)}"
        )
    default = COREAI_TARGETS[0] if chosen == "coreai" else DEFAULT_DEPLOYMENT_TARGET
    return cast("Format", chosen), system or default


def _kind_name(target: Target, format_: str, delegate: str) -> str:
    fixed = {"onnx": "onnx", "snapdragon": "qnn_context", "iphone": format_}
    return fixed.get(target, f"executorch-{delegate}")


def _read_precisions(
    text: str | None, names: Mapping[Target, str]
) -> dict[Target, tuple[Precision, ...]]:
    if text is None:
        return {target: KINDS[name].default for target, name in names.items()}
    every = (precision for name in names.values() for precision in KINDS[name].precisions)
    known = cast("Sequence[Precision]", tuple(dict.fromkeys(every)))
    wanted = read_precisions(text, known)
    found: dict[Target, tuple[Precision, ...]] = {}
    for target, name in names.items():
        found[target] = tuple(p for p in wanted if p in KINDS[name].precisions)
        if not found[target]:
            raise InputError(
                f"--precision {text[:64]} is nothing that {target} is made in: "
                f"{', '.join(KINDS[names[target]].precisions)}; add one of these, or leave "
                f"{target} out"
            )
    return found


def _read_chipsets(options: argparse.Namespace, target: Target) -> tuple[Chipset, ...]:
    if target != "snapdragon":
        return ()
    names = read_chips(options.chip, every=False)
    return tuple(dict.fromkeys(find_chipset(name) for name in names))


def _read_delegate(text: str | None) -> str:
    if text == "qnn":
        raise InputError(
            "--delegate qnn is not offered: ExecuTorch's is made for QNN 2.37, and the libraries "
            "that pip installs, 2.47 and later, refuse its configuration (docs/executorch.md); "
            "use --target snapdragon for Qualcomm's NPUs"
        )
    return _read_choice("--delegate", text or "xnnpack", DELEGATES)


def _read_choice(option: str, value: str, allowed: Sequence[str] | Mapping[str, Any]) -> str:
    if value not in allowed:
        raise InputError(f"{option} is {quoted(value)}, allowed: {', '.join(allowed)}")
    return value


def _read_count(option: str, value: int | None, least: int, most: int) -> Any:
    if value is not None and not least <= value <= most:
        raise InputError(f"{option} is {value}, allowed: {least} to {most}")
    return value
