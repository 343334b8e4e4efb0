"""Which set of a bundle's variants a device runs, as docs/bundle_format.md, section 11, says it.

    device = Device.from_soc(
        "SM8650", runtimes={"onnxruntime": "1.31", "qairt": "2.51", "executorch": "1.5"}
    )
    choice = choose(bundle.manifest, device)

Pure functions over a manifest and what is known of a device: nothing is opened and nothing asked of
this machine, so that an export room, a store's back end and `mvsdk inspect --device` say what a
phone will say. What runs on this computer is the business of `mvsdk.backends.select`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn, cast

from mvsdk._arguments import check_kind, check_text, check_whole_number, shown
from mvsdk.backends._causes import next_step
from mvsdk.devices import htp_arch_of, slug_of_soc
from mvsdk.errors import BackendError, InputError
from mvsdk.manifest import Manifest
from mvsdk.targets import DELEGATES, FORMATS, TARGETS, Delegate
from mvsdk.tasks import deciding_components, named_program

if TYPE_CHECKING:
    from mvsdk.manifest import Program, Variant, VariantSet

RefusalKind = Literal[
    "filter", "component", "pack", "format", "delegate", "version", "system", "chip"
]
"""Why a set does not run: in the order in which a set is asked."""

_PHONES = ("android", "ios")
# The last number is whole: 250807093845 of a build is none, and so is its first half.
_VERSION = re.compile(r"v?([0-9]{1,9}(?:\.[0-9]{1,9}){0,3})(?![0-9])")
_SHOWN_REASONS = 6
_SHOWN_SETS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a runtime knows of the device that it runs on, and of the app."""

    platform: str
    """Such as "android" or "ios"."""
    os_version: str | None = None
    """Of the system, such as "18.2"; None where it is not known, and below all."""
    chip: str | None = None
    """Slug of the SoC, such as "sm8650"; None where the system names none."""
    htp_arch: int | None = None
    """Of the NPU, such as 75; None for a chip that no table has."""
    runtimes: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """What the app ships: onnxruntime, qairt, executorch or coreai -> version."""
    delegates: tuple[Delegate, ...] = ("xnnpack",)
    """Those in the app's ExecuTorch."""

    def __post_init__(self) -> None:
        """Check the types.

        Raises:
            InputError: If one is wrong.
        """
        check_text("platform", self.platform)
        for name, value in (("os_version", self.os_version), ("chip", self.chip)):
            if value is not None:
                check_text(name, value)
        if self.htp_arch is not None:
            check_whole_number("htp_arch", self.htp_arch, low=1, high=9999)
        check_kind("runtimes", self.runtimes, Mapping, how="pass a dict: name to version")
        for name, version in self.runtimes.items():
            check_text("a name of runtimes", name)
            check_text(f"runtimes[{name!r}]", version)
        for delegate in _names("delegates", self.delegates):
            if delegate not in DELEGATES:
                known = ", ".join(DELEGATES)
                raise InputError(f"delegates has {shown(delegate)}; allowed: {known}")

    def __repr__(self) -> str:
        """Return what it is in one line."""
        return f"Device({shown(self.describe())})"

    @classmethod
    def from_soc(
        cls,
        soc_model: str,
        *,
        platform: str = "android",
        os_version: str | None = None,
        runtimes: Mapping[str, str] | None = None,
        delegates: Sequence[Delegate] = ("xnnpack",),
    ) -> Device:
        """Return the device of a chip.

        Args:
            soc_model: As `Build.SOC_MODEL` gives it on Android, such as "SM8650-AC".
            platform: As `Device` has it.
            os_version: As `Device` has it.
            runtimes: As `Device` has it; None for none.
            delegates: As `Device` has it.

        Raises:
            InputError: If an argument is of a wrong type.
        """
        chip = slug_of_soc(check_text("soc_model", soc_model))
        return cls(
            platform=platform,
            os_version=os_version,
            chip=chip,
            htp_arch=None if chip is None else htp_arch_of(chip),
            runtimes={} if runtimes is None else runtimes,
            delegates=cast("tuple[Delegate, ...]", _names("delegates", delegates)),
        )

    def describe(self) -> str:
        """Return what it is in one line, as refusals say it."""
        arch = "unknown" if self.htp_arch is None else f"v{self.htp_arch}"
        parts = [" ".join(part for part in (self.platform, self.os_version) if part)]
        if self.chip is not None:
            parts.append(f"chip {self.chip} (HTP {arch})")
        parts += [f"{name} {version}" for name, version in sorted(self.runtimes.items())]
        if "executorch" in self.runtimes:
            parts.append(f"delegates {' and '.join(self.delegates) or 'none'}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a set does not run on a device."""

    kind: RefusalKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A set of a bundle, as one device sees it."""

    id: str
    variants: Mapping[str, Variant]
    """By component, those that the program runs."""
    refusal: Refusal | None
    """None: it runs."""
    verified: bool
    """Whether each variant with a chip was made for the device's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a device runs."""

    id: str
    """Of the set."""
    variants: Mapping[str, Variant]
    """By component, those that the program runs."""
    verified: bool
    """False: compiled for another chip, whose NPU is not newer than the device's."""
    reason: str
    """Why this one, for people."""

    def __repr__(self) -> str:
        """Return the set and its components in one line."""
        return f"Choice({shown(self.id)}: {', '.join(list(self.variants)[:8])})"


def choose(
    manifest: Manifest,
    device: Device,
    *,
    program: str | None = None,
    installed_packs: Collection[str] | None = None,
    set: str | None = None,
    target: str | None = None,
    format: str | None = None,
    precision: str | None = None,
    chip: str | None = None,
) -> Choice:
    """Choose the set that a device runs, by the rules C1 to C4.

    Args:
        manifest: Of the bundle.
        device: What it is to run on.
        program: Name of the program to carry out; None for the default.
        installed_packs: Names of the parts that are there; None for all.
        set: Only the set of this id; None allows all.
        target: Only sets with a denoiser of this target; None allows all.
        format: Likewise of this format, or this delegate of ExecuTorch.
        precision: Likewise.
        chip: Likewise, by slug.

    Raises:
        InputError: With the rule C5 if no set fits `set`, `target`, `format`, `precision` and
            `chip`; without a rule if there is no such program, or an argument is of a wrong type.
        BackendError: With the rule C5 if no set that is left runs on the device.
    """
    examined = examine(
        manifest,
        device,
        program=program,
        installed_packs=installed_packs,
        set=set,
        target=target,
        format=format,
        precision=precision,
        chip=chip,
    )
    first = examined[0]
    if first.refusal is not None:
        _refuse(manifest, device, examined)
    return Choice(
        id=first.id,
        variants=first.variants,
        verified=first.verified,
        reason=praise(first, device),
    )


def examine(
    manifest: Manifest,
    device: Device,
    *,
    program: str | None = None,
    installed_packs: Collection[str] | None = None,
    set: str | None = None,
    target: str | None = None,
    format: str | None = None,
    precision: str | None = None,
    chip: str | None = None,
) -> tuple[Examined, ...]:
    """Return every set of a bundle and why it does not run on a device; see `choose`.

    Returns:
        Those that run, the best first; then the others, in the order of the manifest.

    Raises:
        InputError: If there is no such program, or an argument is of a wrong type.
    """
    check_kind("manifest", manifest, Manifest, how="take a bundle's")
    check_kind("device", device, Device, how="make one with Device.from_soc")
    given = (set, target, format, precision, chip)
    for name, value in zip(("set", "target", "format", "precision", "chip"), given, strict=True):
        if value is not None:
            check_text(name, value)
    wanted = _Wanted(set=set, target=target, format=format, precision=precision, chip=chip)
    packs = manifest.packs
    if installed_packs is not None:
        packs = _names("installed_packs", installed_packs)
    task = named_program(manifest, program)
    examined = [
        _examine(manifest, task, item, device, packs=packs, wanted=wanted) for item in manifest.sets
    ]
    runs = [item for item in examined if item.refusal is None]
    runs.sort(key=lambda item: _rank(manifest, task, item, device))
    return (*runs, *(item for item in examined if item.refusal is not None))


def _names(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Collection):
        raise InputError(f"{name} is {shown(value)}; allowed: names; pass a list of str")
    return tuple(
        check_text(f"a name of {name}", item) for item in cast("Collection[object]", value)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a caller narrows the choice by; None allows all."""

    set: str | None
    target: str | None
    format: str | None
    precision: str | None
    chip: str | None

    def fits(self, variant: Variant) -> bool:
        """Return whether a denoiser's variant is one of those that are wanted."""
        pairs = (
            (self.target, (variant.target,)),
            (self.format, (variant.format, variant.delegate)),
            (self.precision, (variant.precision,)),
            (self.chip, (variant.chip.slug if variant.chip else None,)),
        )
        return all(wanted is None or wanted in has for wanted, has in pairs)

    def fits_any(self, denoisers: Sequence[Variant]) -> bool:
        """Return whether a set with these denoisers is wanted; with none only if all are."""
        is_any = (self.target, self.format, self.precision, self.chip) == (None,) * 4
        return is_any or any(map(self.fits, denoisers))


def _examine(
    manifest: Manifest,
    program: Program,
    item: VariantSet,
    device: Device,
    *,
    packs: Collection[str],
    wanted: _Wanted,
) -> Examined:
    has = manifest.variants_of(item)
    variants = {name: has[name] for name in program.components() if name in has}
    chips = {variant.chip.slug for variant in variants.values() if variant.chip is not None}
    refusals = _refusals(manifest, program, item.id, variants, device, packs=packs, wanted=wanted)
    return Examined(
        id=item.id,
        variants=variants,
        refusal=next(refusals, None),
        verified=chips <= {device.chip},
    )


def _refusals(
    manifest: Manifest,
    program: Program,
    identifier: str,
    variants: Mapping[str, Variant],
    device: Device,
    *,
    packs: Collection[str],
    wanted: _Wanted,
) -> Iterator[Refusal]:
    """Yield what speaks against a set, the rules C1 to C3 in their order."""
    denoisers = _denoisers(manifest, program, variants)
    named = wanted.set is None or wanted.set == identifier
    if not named or not wanted.fits_any(denoisers):
        yield Refusal(kind="filter", text="not what was asked for")
    missing = [name for name in program.components() if name not in variants]
    if missing:
        yield Refusal(kind="component", text=f"has no {missing[0]}, which {program.name} needs")
    away = sorted({v.pack for v in variants.values() if v.pack is not None} - {*packs})
    if away:
        yield Refusal(kind="pack", text=f"its pack {away[0]} is not installed")
    for check in (_format_refusal, _version_refusal, _system_refusal, _chip_refusal):
        for variant in variants.values():
            refusal = check(variant, device)
            if refusal is not None:
                yield refusal


def _denoisers(
    manifest: Manifest, program: Program, variants: Mapping[str, Variant]
) -> list[Variant]:
    """Return the variants that a set is chosen by, of those that it has."""
    names = deciding_components(manifest, program)
    return [variants[name] for name in names if name in variants]


def _format_refusal(variant: Variant, device: Device) -> Refusal | None:
    form, delegate = variant.format, variant.delegate
    traits = FORMATS[form]
    if traits.platform not in (None, device.platform):
        return Refusal(kind="format", text=f"no runtime for {form}, which is Apple's, here")
    needed = traits.runtimes
    missing = [name for name in needed if name not in device.runtimes]
    if missing:
        text = f"no runtime for {form}, which needs {' and '.join(needed)}"
        return Refusal(kind="format", text=text)
    if delegate is None:
        return None
    if delegate not in device.delegates:
        text = f"the delegate {delegate} is not in the app's executorch"
        return Refusal(kind="delegate", text=text)
    if delegate == "coreml" and device.platform != "ios":
        return Refusal(kind="delegate", text="the delegate coreml runs on Apple's systems")
    if delegate == "qnn" and "qairt" not in device.runtimes:
        return Refusal(kind="delegate", text="the delegate qnn needs qairt")
    return None


def _version_refusal(variant: Variant, device: Device) -> Refusal | None:
    for name, needed in sorted(variant.requires.items()):
        here = device.runtimes.get(name)
        if _numbers(here) < _numbers(needed):
            text = f"needs {name} {needed}, here is {here or 'none'}"
            return Refusal(kind="version", text=text)
    return None


def _system_refusal(variant: Variant, device: Device) -> Refusal | None:
    needed = variant.deployment_target
    if needed is None or _numbers(device.os_version) >= _numbers(needed.removeprefix("iOS")):
        return None
    here = device.os_version or "unknown"
    return Refusal(kind="system", text=f"needs {needed}, the system here is {here}")


def _chip_refusal(variant: Variant, device: Device) -> Refusal | None:
    chip = variant.chip
    if chip is None or chip.slug == device.chip:
        return None
    if device.htp_arch is not None and device.htp_arch >= chip.htp_arch:
        return None
    made = f"compiled for {chip.slug} (HTP v{chip.htp_arch})"
    if device.htp_arch is None:
        here = "whose HTP is not known" if device.chip else "no Snapdragon that is known"
        return Refusal(kind="chip", text=f"{made}, here is {device.chip or 'no chip'}, {here}")
    here = f"{device.chip or 'a chip'} (HTP v{device.htp_arch})"
    return Refusal(kind="chip", text=f"{made}, which is newer than {here}")


def newest_required(manifest: Manifest) -> dict[str, str]:
    """Return the newest version of each runtime that some variant of a bundle requires."""
    newest: dict[str, str] = {}
    for component in manifest.components.values():
        for variant in component.variants:
            for name, version in variant.requires.items():
                if _numbers(version) > _numbers(newest.get(name)):
                    newest[name] = version
    return newest


def _numbers(version: str | None) -> tuple[int, ...]:
    """Return a version as G9 compares it: trailing zeros say nothing; () is below all.

    What a runtime says of itself may go on: 2.37.1.250807093845_12 is 2.37.1, 1.32.0+cpu is 1.32.
    """
    found = _VERSION.match(version or "")
    if found is None:
        return ()
    numbers = [int(number) for number in found[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _rank(
    manifest: Manifest, program: Program, item: Examined, device: Device
) -> tuple[int, int, int, int]:
    """Return a place by rule C4: less is better, and equal ones stay in the order of the sets."""
    targets = [TARGETS[v.target].phone_rank for v in _denoisers(manifest, program, item.variants)]
    chips = [v.chip for v in item.variants.values() if v.chip is not None]
    own = any(chip.slug == device.chip for chip in chips)
    arch = max((chip.htp_arch for chip in chips), default=0)
    systems = [v.deployment_target for v in item.variants.values() if v.deployment_target]
    system = max((int(name.removeprefix("iOS")) for name in systems), default=0)
    return (min(targets) if device.platform in _PHONES else 0, 0 if own else 1, -arch, -system)


def praise(item: Examined, device: Device) -> str:
    """Return what speaks for a set that runs, in one line."""
    chip = next((v.chip for v in item.variants.values() if v.chip is not None), None)
    if chip is None:
        return f"runs on {device.platform}, made for no chip"
    if item.verified:
        return f"compiled for {chip.slug}, the chip of this device"
    return (
        f"compiled for {chip.slug} (HTP v{chip.htp_arch}), not verified on "
        f"{device.chip or 'this chip'} (HTP v{device.htp_arch})"
    )


def _refuse(manifest: Manifest, device: Device, examined: Sequence[Examined]) -> NoReturn:
    """Say what the device is, what sets there are, why none runs, and what to do (C5)."""
    left = [item for item in examined if _kind(item) != "filter"]
    sets = _some([item.id for item in examined])
    if not left:
        raise InputError(
            f"no set of {manifest.name} is what was asked for; it has {sets}; "
            f"{next_step('choosing_filter')}",
            rule="C5",
        )
    by_text: dict[str, list[str]] = {}
    for item in left:
        text = item.refusal.text if item.refusal else ""
        by_text.setdefault(text, []).append(item.id)
    reasons = [f"{_some(ids)}: {text}" for text, ids in list(by_text.items())[:_SHOWN_REASONS]]
    more = len(by_text) - len(reasons)
    told = "; ".join(reasons) + (f"; and {more} more reasons" if more > 0 else "")
    raise BackendError(
        f"no set of {manifest.name} runs on this device ({device.describe()}): {told}; "
        f"{next_step(f'choosing_{_kind(left[0])}')}",
        rule="C5",
    )


def _kind(item: Examined) -> RefusalKind | None:
    return item.refusal.kind if item.refusal else None


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_SETS
    return ", ".join(names[:_SHOWN_SETS]) + (f" and {more} more" if more > 0 else "")
