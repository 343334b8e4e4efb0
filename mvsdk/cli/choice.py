"""What a phone would run of a bundle: the part of `mvsdk inspect` behind `--device`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mvsdk._text import quoted
from mvsdk.cli.output import table
from mvsdk.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mvsdk.choosing import Device, Examined
    from mvsdk.manifest import Manifest

_IOS = re.compile(r"iphone|ipad|(?:ios|ipados) ?([0-9]{1,3}(?:\.[0-9]{1,3}){0,2})?", re.IGNORECASE)
_APPLE_PHONE = re.compile("(?:iphone|ipad)(?!os).+", re.IGNORECASE)
_PART_NUMBER = re.compile("(?:sm|qcs|qcm|sa)[0-9]{4}[a-z0-9_-]*", re.IGNORECASE)
_ON_ANDROID = ("executorch", "onnxruntime", "qairt")
_ON_IOS = ("coreai", "executorch", "onnxruntime")
_ANY_VERSION = "0"


def device_of(name: str, manifest: Manifest, runtimes: Sequence[str]) -> Device:
    """Return the device that a user means, with an app that ships what the bundle asks for.

    Args:
        name: A chip or phone as `--chip` takes it, a part number, "android", or an iPhone by its
            system, such as "iOS 18.2".
        manifest: Says how new runtimes have to be.
        runtimes: Other versions, each NAME=VERSION; NAME=none for what the app does not ship.

    Raises:
        InputError: If no chip or phone has this name, or a runtime is no such pair.
    """
    from mvsdk.choosing import Device
    from mvsdk.devices import find_chipset

    if _APPLE_PHONE.fullmatch(name.strip()):
        raise InputError(
            f"--device is {quoted(name)}; a phone of Apple's goes by its system: say iOS 18.2, or "
            "iPhone for the newest that the bundle asks for"
        )
    if found := _IOS.fullmatch(name.strip()):
        return Device(
            platform="ios",
            os_version=found[1] or _newest_system(manifest),
            runtimes=_runtimes(manifest, _ON_IOS, runtimes),
            delegates=("xnnpack", "coreml"),
        )
    shipped = _runtimes(manifest, _ON_ANDROID, runtimes)
    if name.strip().lower() == "android":
        return Device(platform="android", runtimes=shipped)
    try:
        soc = find_chipset(name).slug
    except InputError:
        if not _PART_NUMBER.fullmatch(name.strip()):
            raise
        soc = name.strip()
    return Device.from_soc(soc, runtimes=shipped, delegates=("xnnpack", "qnn"))


def _newest_system(manifest: Manifest) -> str:
    systems = (
        int(variant.deployment_target.removeprefix("iOS"))
        for component in manifest.components.values()
        for variant in component.variants
        if variant.deployment_target is not None
    )
    return str(max(systems, default=26))


def _runtimes(manifest: Manifest, names: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    from mvsdk.choosing import newest_required
    from mvsdk.manifest.components import RUNTIME_NAMES

    newest = newest_required(manifest)
    runtimes = {name: newest.get(name, _ANY_VERSION) for name in names}
    for item in given:
        name, _, version = item.partition("=")
        if name not in RUNTIME_NAMES or not version:
            known = ", ".join(RUNTIME_NAMES)
            raise InputError(
                f"--runtime is {quoted(item)}; allowed: NAME=VERSION or NAME=none, NAME one of "
                f"{known}"
            )
        runtimes[name] = version
    return {name: version for name, version in runtimes.items() if version != "none"}


def summary(manifest: Manifest, device: Device) -> tuple[str, bool]:
    """Return what a device runs, as text, and whether it runs anything."""
    from mvsdk.choosing import examine

    examined = examine(manifest, device)
    first = examined[0]
    runs = first.refusal is None
    lines = [
        f"device    {_shown(device)}",
        f"runs      {f'{first.id}: {_reason(first, device)}' if runs else 'nothing'}",
        "",
        table(["set", "runs", "why"], [_row(item, device) for item in examined]),
    ]
    return "\n".join(lines), runs


def document(manifest: Manifest, device: Device) -> tuple[dict[str, Any], bool]:
    """Return the same for programs, and whether the device runs anything."""
    from mvsdk.choosing import examine

    examined = examine(manifest, device)
    first = examined[0]
    runs = first.refusal is None
    told: dict[str, Any] = {
        "device": {
            "platform": device.platform,
            "os_version": device.os_version,
            "chip": device.chip,
            "htp_arch": device.htp_arch,
            "runtimes": dict(device.runtimes),
            "delegates": list(device.delegates),
        },
        "set": first.id if runs else None,
        "verified": first.verified if runs else None,
        "sets": [_entry(item, device) for item in examined],
    }
    return told, runs


def _entry(item: Examined, device: Device) -> Mapping[str, Any]:
    refusal = item.refusal
    return {
        "id": item.id,
        "runs": refusal is None,
        "verified": item.verified if refusal is None else None,
        "kind": None if refusal is None else refusal.kind,
        "reason": _reason(item, device),
    }


def _row(item: Examined, device: Device) -> list[str]:
    runs = "no" if item.refusal else "yes" if item.verified else "unverified"
    return [item.id, runs, _reason(item, device)]


def _reason(item: Examined, device: Device) -> str:
    from mvsdk.choosing import praise

    return item.refusal.text if item.refusal else praise(item, device)


def _shown(device: Device) -> str:
    """Return the device without versions that stand for any."""
    return re.sub(rf" {_ANY_VERSION}(?=,|$)", "", device.describe())
