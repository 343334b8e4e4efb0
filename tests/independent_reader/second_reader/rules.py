"""The rules of a manifest that its shape does not show, but for those within programs."""

import json
from itertools import pairwise
from math import prod
from typing import Any

from .document import Parts, check, measure, need, parse, write
from .older import upgrade
from .programs import Program
from .tensors import float32

STORED = {"integer": ("int32", "int64"), "pixels": ("uint8", "float16", "float32", "int32")}
STORED |= {"real": ("float32", "float16", "int64")}


def read(payload: bytes) -> Parts:
    """The manifest of version 3 that a document is, or is brought to."""
    document = parse(payload)
    need(isinstance(document, dict) and document.get("format") == "mvbundle", "D8", "")
    version: Any = document.get("format_version")
    need(type(version) is int and 1 <= version <= 3, "D8", "format_version")
    check(document)
    if version < 3:
        document = upgrade(document)
        check(document)
    manifest: Parts = document
    for key in manifest:
        if key.startswith("x-"):
            manifest[key] = json.loads(json.dumps(manifest[key], sort_keys=True))
    written = write(manifest, None)
    need(len(written) <= 4 << 20 and measure(written.decode())[1] <= 262144, "D13", "")
    for name, component in manifest["components"].items():
        check_component(component, f"components.{name}", manifest["packs"])
    check_files(manifest)
    for name, sampler in manifest["samplers"].items():
        check_sampler(sampler, f"samplers.{name}")
    for name, table in manifest["tables"].items():
        size = prod(table["shape"]) * (1 if table["dtype"] == "uint8" else 4)
        need(prod(table["shape"]) <= 2**30, "G6", f"tables.{name}")
        need(table["file"]["bytes"] == size, "P17", f"tables.{name}.file.bytes")
    check_sets(manifest)
    check_programs(manifest)
    check_records(manifest)
    return manifest


def once(values: list[Any], rule: str, where: str) -> None:
    """Refuses a value that is there for the second time; `{}` stands for its index."""
    for i, value in enumerate(values):
        need(value not in values[:i], rule, where.format(i))


def check_files(manifest: Parts) -> None:
    """Files and packs as a whole (F3, F4, F10, F11)."""
    variants = [v for component in manifest["components"].values() for v in component["variants"]]
    listed = [(file, variant["pack"]) for variant in variants for file in variant["files"]]
    parts = [*manifest["tokenizers"].values(), *manifest["tables"].values()]
    files = [part["file"] for part in parts] + [part["text_file"] for part in manifest["licences"]]
    known: dict[str, tuple[Parts, str | None]] = {}
    for file, pack in listed + [(file, None) for file in files if file]:
        first, place = known.setdefault(file["path"], (file, pack))
        need(first == file, "F4", "")
        need(place == pack, "F11", "")
    paths = [path.lower() for path in known]
    folders = {path[:i] for path in paths for i, letter in enumerate(path) if letter == "/"}
    need(len(set(paths)) == len(paths) and not folders & set(paths), "F3", "")
    need("manifest.json" not in folders | set(paths), "F3", "")
    need(manifest["packs"] == sorted(manifest["packs"]), "D10", "packs")
    for i, pack in enumerate(manifest["packs"]):
        need(any(variant["pack"] == pack for variant in variants), "F10", f"packs[{i}]")


def check_component(component: Parts, at: str, packs: list[str]) -> None:
    """A component and its variants (G1, G3, G6, G7, F10)."""
    for side in ("inputs", "outputs"):
        once([tensor["name"] for tensor in component[side]], "G1", f"{at}.{side}")
        need(all(prod(tensor["shape"]) <= 2**30 for tensor in component[side]), "G6", at)
    variants = component["variants"]
    keys = ("target", "format", "delegate", "precision", "function")
    kinds = [[v["chip"] and v["chip"]["slug"], *(v[key] for key in keys)] for v in variants]
    once([variant["id"] for variant in variants], "D10", f"{at}.variants[{{}}].id")
    once(kinds, "G7", f"{at}.variants[{{}}]")
    for i, variant in enumerate(variants):
        here, paths = f"{at}.variants[{i}]", [file["path"] for file in variant["files"]]
        need(variant["pack"] in (None, *packs), "F10", f"{here}.pack")
        inside = any(path.startswith(f"{variant['model']}/") for path in paths)
        package = variant["format"] in ("coreml", "coreai")
        need(inside if package else variant["model"] in paths, "G3", f"{here}.model")
        once(paths, "G3", f"{here}.files")
        for side in ("inputs", "outputs"):
            check_storage(component[side], variant[side], f"{here}.{side}")


def check_storage(tensors: list[Parts], stored: list[Parts], at: str) -> None:
    """How the tensors of a side are stored (G1, G5)."""
    types = {tensor["name"]: tensor["type"] for tensor in tensors}
    for i, value in enumerate(stored):
        need(value["name"] in types, "G1", f"{at}[{i}].name")
        kind = types[value["name"]]
        good = value["dtype"] in STORED[kind] if value["scale"] is None else kind == "real"
        need(good, "G5", f"{at}[{i}].dtype")
    names = {value["name"] for value in stored}
    need(len(names) == len(stored) == len(types), "G1", at)


def check_sampler(sampler: Parts, at: str) -> None:
    """A sampler (S2, S3)."""
    need(str(sampler["default_steps"]) in sampler["schedules"], "D10", f"{at}.default_steps")
    for steps, schedule in sampler["schedules"].items():
        here = f"{at}.schedules.{steps}"
        need(len(schedule["sigmas"]) == int(steps) + 1, "D12", f"{here}.sigmas")
        need(len(schedule["timesteps"]) == int(steps), "D12", f"{here}.timesteps")
        sigmas = [float32(sigma) for sigma in schedule["sigmas"]]
        falling = all(a > b for a, b in pairwise(sigmas))
        ends = sigmas[-1] == 0 or sampler["kind"] in ("edm_euler", "euler_ancestral")
        need(falling and ends, "S2", f"{here}.sigmas")
        need(sigmas[0] <= 1 or "flow" not in sampler["kind"], "S3", f"{here}.sigmas")


def check_sets(manifest: Parts) -> None:
    """Sets (G10, G12)."""
    once([value["id"] for value in manifest["sets"]], "G10", "sets[{}]")
    once([value["variants"] for value in manifest["sets"]], "G10", "sets[{}]")
    ids = {n: {v["id"]: v for v in c["variants"]} for n, c in manifest["components"].items()}
    for i, value in enumerate(manifest["sets"]):
        for name, chosen in value["variants"].items():
            need(chosen in ids.get(name, ()), "G10", f"sets[{i}].variants.{name}")
        chips = [ids[name][chosen]["chip"] for name, chosen in value["variants"].items()]
        need(len({tuple(chip.values()) for chip in chips if chip}) < 2, "G12", f"sets[{i}]")


def check_programs(manifest: Parts) -> None:
    """Programs, and that they need everything (G11, P16)."""
    once([program["name"] for program in manifest["programs"]], "D10", "programs[{}]")
    needs: set[tuple[str, str]] = set()
    for i, program in enumerate(manifest["programs"]):
        found = Program(manifest, program, f"programs[{i}]").needs
        runs = {name for kind, name in found if kind == "components"}
        whole = any(runs <= value["variants"].keys() for value in manifest["sets"])
        need(whole, "G11", f"programs[{i}]")
        needs |= found
    for kind in ("components", "samplers", "tokenizers", "tables"):
        for name in manifest[kind]:
            rule = "G11" if kind == "components" else "P16"
            need((kind, name) in needs, rule, f"{kind}.{name}")


def check_records(manifest: Parts) -> None:
    """Verification and costs (R1, R2)."""
    ids = {n: [v["id"] for v in c["variants"]] for n, c in manifest["components"].items()}
    for name in manifest["costs"]:
        need(name in ids, "R2", f"costs.{name}")
    ids["end_to_end"] = [value["id"] for value in manifest["sets"]]
    for i, value in enumerate(manifest["verification"]):
        at, decibels = f"verification[{i}]", value["value_db"]
        need(value["component"] in ids, "R2", f"{at}.component")
        need(value["variant"] in ids[value["component"]], "R2", f"{at}.variant")
        passed = decibels is None or decibels >= value["floor_db"]
        need(value["passed"] == passed, "R1", f"{at}.passed")
