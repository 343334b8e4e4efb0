"""Which set a device runs (section 11)."""

import re
from typing import Any

from .document import Parts, Refused, every, need

OPENERS = {"onnx": "onnxruntime", "qnn_context": "onnxruntime qairt", "coreml": ""}
OPENERS |= {"executorch": "executorch", "coreai": "coreai"}
ORDER = ("snapdragon", "iphone", "executorch", "onnx")


def numbers(version: str | None) -> list[int]:
    """The numbers of a version that a device says; -1 is below all."""
    found = re.match(r"v?([0-9]{1,9}(?![0-9])(\.[0-9]{1,9}(?![0-9])){0,3})", version or "")
    given = list(map(int, found[1].split("."))) if found else [-1]
    return given + [0] * (4 - len(given))


def faults(variant: Parts, device: Parts, packs: list[str] | None) -> set[str]:
    """Why a variant does not run (C2, C3)."""
    have, form, delegate = device["runtimes"], variant["format"], variant["delegate"]
    apple, chip, system = device["platform"] == "ios", variant["chip"], variant["deployment_target"]
    least = [(have.get(name), version) for name, version in variant["requires"].items()]
    missing = set(OPENERS[form].split()) - have.keys()
    lacks = {"coreml": not apple, "qnn": "qairt" not in have}.get(delegate, False)
    newer = chip and (device["htp_arch"] or 0) >= chip["htp_arch"]
    found = {
        "pack": packs is not None and variant["pack"] not in (None, *packs),
        "format": missing or (form in ("coreml", "coreai") and not apple),
        "delegate": delegate and (lacks or delegate not in device.get("delegates", [delegate])),
        "version": any(numbers(given) < numbers(wanted) for given, wanted in least),
        "system": system and numbers(device["os_version"]) < numbers(system.removeprefix("iOS")),
        "chip": chip and chip["slug"] != device["chip"] and not newer,
    }
    return {name for name, fault in found.items() if fault}


def fits(variant: Parts, options: Parts) -> bool:
    """Whether a variant is what a caller asked for (C1)."""
    values = {name: [variant[name]] for name in ("target", "precision")}
    values["format"] = [variant["format"], variant["delegate"]]
    values["chip"] = [variant["chip"] and variant["chip"]["slug"]]
    return all(options.get(name) in (None, *known) for name, known in values.items())


def rank(variants: list[Parts], heads: list[Parts], device: Parts) -> tuple[int, ...]:
    """What comes first is smallest (C4)."""
    chips = [variant["chip"] for variant in variants if variant["chip"]]
    systems = [int((variant["deployment_target"] or "iOS0")[3:]) for variant in variants]
    target = min(ORDER.index(variant["target"]) for variant in heads)
    phone = device["platform"] in ("android", "ios")
    other = all(chip["slug"] != device["chip"] for chip in chips)
    arch = max((chip["htp_arch"] for chip in chips), default=0)
    return target if phone else 0, other, -arch, -max(systems)


def choose(manifest: Parts, device: Parts, **options: Any) -> tuple[str, bool]:
    """The id of the set that a device runs, and whether it is verified for its chip."""
    programs, components = manifest["programs"], manifest["components"]
    program = next(p for p in programs if options.get("program") in (None, p["name"]))
    operations = every(program["operations"])
    names = list(dict.fromkeys(op["component"] for op in operations if op["op"] == "run"))
    denoisers = [name for name in names if components[name]["role"] == "denoiser"] or names[:1]
    asked: dict[str, tuple[list[Parts], list[Parts]]] = {}
    for value in manifest["sets"]:
        chosen = {name: value["variants"][name] for name in names if name in value["variants"]}
        variants = {n: v for n in chosen for v in components[n]["variants"] if v["id"] == chosen[n]}
        heads = [variants[name] for name in denoisers if name in variants]
        wanted = options.get("set") in (None, value["id"])
        narrow = any(options.get(name) for name in ("target", "format", "precision", "chip"))
        if wanted and (not narrow or any(fits(variant, options) for variant in heads)):
            asked[value["id"]] = list(variants.values()), heads
    need(asked, "C5", "")
    reasons: dict[str, set[str]] = {}
    for name, (variants, _) in asked.items():
        reasons[name] = {"component"} if len(variants) < len(names) else set()
        for variant in variants:
            reasons[name] |= faults(variant, device, options.get("installed_packs"))
    left = [name for name in asked if not reasons[name]]
    if not left:
        raise Refused("C5", "", reasons)
    best = min(left, key=lambda name: rank(*asked[name], device))
    chips = [variant["chip"] for variant in asked[best][0] if variant["chip"]]
    return best, all(chip["slug"] == device["chip"] for chip in chips)


def chip_of(soc_model: str) -> str | None:
    """The slug of a system on chip, from what Android calls it."""
    found = re.match(r"[A-Za-z][A-Za-z0-9]*", soc_model)
    return found[0].lower() if found and found[0].lower() != "unknown" else None


def arch_of(slug: str | None, chips: dict[str, int]) -> int | None:
    """The NPU of a chip, from a table of chips; letters behind are a speed grade."""
    found = re.match("[a-z]+[0-9]+", slug or "")
    return chips.get(slug or "", chips.get(found[0]) if found else None)
