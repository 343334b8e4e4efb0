"""Rules of a manifest that no single field can break: what its parts say about each other.

docs/bundle_format.md, sections 1, 4, 5 and 8; what programs do is in `_dataflow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, NoReturn

from mvsdk._json import MAX_WHERE, fail, listed, quote, shorten
from mvsdk.manifest._dataflow import MAX_ELEMENTS, check_programs
from mvsdk.manifest.components import WEIGHTS_SUFFIX
from mvsdk.manifest.records import END_TO_END
from mvsdk.targets import DELEGATES, FORMATS, TARGETS

if TYPE_CHECKING:
    from mvsdk.manifest import Manifest
    from mvsdk.manifest.components import Chip, Component, FileRef, Variant, VariantKey

RESERVED_PATH = "manifest.json"
_ITEM_BYTES = {"float32": 4, "int32": 4, "uint8": 1}


def check_consistency(manifest: Manifest) -> None:
    """Check that the parts of a manifest agree.

    Raises:
        BundleError: With the first disagreement.
    """
    _check_unique("programs", [program.name for program in manifest.programs], "D10")
    _check_packs(manifest)
    for name, component in manifest.components.items():
        _check_component(manifest, name, component)
    _check_tables(manifest)
    _check_files(manifest)
    check_programs(manifest)
    _check_sets(manifest)
    _check_usage(manifest)
    _check_records(manifest)


def _check_unique(where: str, names: Sequence[str], rule: str) -> None:
    seen: set[str] = set()
    for number, name in enumerate(names):
        if name in seen:
            fail(f"{where}[{number}]", f"the second {shorten(name)}", "unique names", rule)
        seen.add(name)


def _check_packs(manifest: Manifest) -> None:
    packs = manifest.packs
    if list(packs) != sorted(set(packs)):
        fail("packs", listed(packs), "sorted names, each once")
    variants = [item for part in manifest.components.values() for item in part.variants]
    named = {item.pack for item in variants}
    for number, pack in enumerate(packs):
        if pack not in named:
            fail(f"packs[{number}]", f"{shorten(pack)}, of no variant", "the pack of one", "F10")


def _check_component(manifest: Manifest, name: str, component: Component) -> None:
    where = f"components.{shorten(name)}"
    for tensor in (*component.inputs, *component.outputs):
        elements = prod(tensor.shape)
        if elements > MAX_ELEMENTS:
            got = f"a tensor {quote(tensor.name)} of {elements:.3g} elements"
            fail(where, got, f"at most {MAX_ELEMENTS}", "G6")
    ids: set[str] = set()
    keys: set[VariantKey] = set()
    for number, variant in enumerate(component.variants):
        place = f"{where}.variants[{number}]"
        if variant.id in ids:
            fail(f"{place}.id", f"the second {shorten(variant.id)}", "unique ids", "D10")
        if variant.key in keys:
            key = shorten(str(variant.key), MAX_WHERE)
            fail(place, f"the second {key}", "one of each", "G7")
        ids.add(variant.id)
        keys.add(variant.key)
        if variant.pack is not None and variant.pack not in manifest.packs:
            packs = listed(manifest.packs) or "null"
            fail(f"{place}.pack", shorten(variant.pack), f"one of packs: {packs}", "F10")
        _check_platform(place, variant)
        _check_model(place, variant)


def _check_model(where: str, variant: Variant) -> None:
    paths = [ref.path for ref in variant.files]
    if len(set(paths)) != len(paths):
        fail(f"{where}.files", "a list with a file twice", "each file once", "G3")
    if FORMATS[variant.format].is_package:
        if not any(path.startswith(f"{variant.model}/") for path in paths):
            package = shorten(variant.model, MAX_WHERE)
            fail(f"{where}.model", package, "a folder with at least one of files below it", "G3")
    elif variant.model not in paths:
        fail(f"{where}.model", shorten(variant.model, MAX_WHERE), "one of files", "G3")
    weights = [path for path in paths if path.endswith(WEIGHTS_SUFFIX)]
    if variant.format == "executorch" and len(weights) > 1:
        got = f"a list with {len(weights)} files {WEIGHTS_SUFFIX}"
        fail(f"{where}.files", got, "at most one", "G3")


def _check_platform(where: str, variant: Variant) -> None:
    """Check that what a variant says of the machines it is for goes with what it is."""
    chip, delegate, system = variant.chip, variant.delegate, variant.deployment_target
    kind = f"the delegate {delegate}" if delegate else f"the format {variant.format}"

    def refuse(key: str, got: object, expected: str, rule: str = "G2") -> None:
        fail(f"{where}.{key}", "null" if got is None else shorten(str(got)), expected, rule)

    formats = TARGETS[variant.target].formats
    if variant.format not in formats:
        refuse("format", variant.format, " or ".join(formats))
    if variant.format == "executorch" and delegate is None:
        refuse("delegate", None, f"one of {', '.join(DELEGATES)}")
    if variant.format != "executorch" and delegate is not None:
        refuse("delegate", delegate, f"null for the format {variant.format}")
    compiled = variant.format == "qnn_context" or delegate == "qnn"
    if compiled and chip is None:
        refuse("chip", None, "the chip that it is compiled for")
    if chip is not None and not compiled:
        refuse("chip", chip.slug, f"null for {kind}")
    if variant.target == "iphone" and system is None:
        refuse("deployment_target", None, "a system such as iOS18")
    if system is not None and variant.target != "iphone" and delegate != "coreml":
        refuse("deployment_target", system, f"null for {kind}")
    if variant.function is not None and not FORMATS[variant.format].is_package:
        refuse("function", variant.function, f"null for {kind}")


def _check_tables(manifest: Manifest) -> None:
    for name, table in manifest.tables.items():
        elements = prod(table.shape)
        where = f"tables.{name}"
        if elements > MAX_ELEMENTS:
            fail(where, f"{elements:.3g} elements", f"at most {MAX_ELEMENTS}", "G6")
        size = elements * _ITEM_BYTES[table.dtype]
        if table.file.bytes != size:
            got = str(table.file.bytes)
            fail(f"{where}.file.bytes", got, f"{size} for {table.dtype} {table.shape}", "P17")


def _check_files(manifest: Manifest) -> None:
    """Check that no path has two contents, and that no two paths clash on any file system."""
    by_folded: dict[str, FileRef] = {}
    for ref in manifest.files():
        other = by_folded.setdefault(ref.path.casefold(), ref)
        if other.path != ref.path:
            _refuse(ref, f"{_spell(other)} in another case", "one case", "F3")
        if other != ref:
            _refuse(ref, "given with two sizes or hashes", "one content", "F4")
        if ref.path.casefold() == RESERVED_PATH:
            _refuse(ref, "the manifest itself", "other files", "F3")
    for folded, ref in by_folded.items():
        parts = folded.split("/")
        folders = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if clash := next((folder for folder in folders if folder in by_folded), None):
            _refuse(by_folded[clash], f"also a folder of {_spell(ref)}", "one of both", "F3")
        if folders and folders[0] == RESERVED_PATH:
            _refuse(ref, f"in a folder {RESERVED_PATH}", "another folder", "F3")
    _check_owners(manifest)


def _check_owners(manifest: Manifest) -> None:
    """Check that each file belongs to the base, or to one pack."""
    owners: dict[str, str | None] = {ref.path: None for ref in manifest.base_files()}
    for component in manifest.components.values():
        for variant in component.variants:
            for ref in variant.files:
                if owners.setdefault(ref.path, variant.pack) != variant.pack:
                    _refuse(ref, "in two packs", "one pack, or the base", "F11")


def _refuse(ref: FileRef, got: str, want: str, rule: str) -> NoReturn:
    """Refuse a file, which has no one place in a manifest."""
    fail(f"the file {_spell(ref)}", got, want, rule, place="")


def _spell(ref: FileRef) -> str:
    return shorten(ref.path, MAX_WHERE)


def _check_sets(manifest: Manifest) -> None:
    _check_unique("sets", [item.id for item in manifest.sets], "G10")
    seen: set[tuple[tuple[str, str], ...]] = set()
    for number, item in enumerate(manifest.sets):
        where = f"sets[{number}]"
        chips: dict[Chip, str] = {}
        for name, identifier in item.variants.items():
            place = f"{where}.variants.{shorten(name)}"
            component = manifest.components.get(name)
            if component is None:
                fail(place, "no component", f"one of {listed(manifest.components)}", "G10")
            variant = next((v for v in component.variants if v.id == identifier), None)
            if variant is None:
                known = listed(v.id for v in component.variants)
                fail(place, shorten(identifier), f"the id of a variant: {known}", "G10")
            if variant.chip is not None:
                chips[variant.chip] = variant.chip.slug
        if len(chips) > 1:
            fail(where, f"a set for {listed(chips.values())}", "one chip", "G12")
        content = tuple(sorted(item.variants.items()))
        if content in seen:
            fail(where, "the second of these variants", "sets that differ", "G10")
        seen.add(content)
    for number, program in enumerate(manifest.programs):
        needed = set(program.components())
        if not any(needed <= set(item.variants) for item in manifest.sets):
            names = listed(sorted(needed))
            fail(f"programs[{number}]", "without a set", f"one that has {names}", "G11")


def _check_usage(manifest: Manifest) -> None:
    """Check that nothing is there which no program uses."""
    programs = manifest.programs
    used = {
        "components": _all(program.components() for program in programs),
        "samplers": _all(program.samplers() for program in programs),
        "tokenizers": _all(program.tokenizers() for program in programs),
        "tables": _all(program.names_used() for program in programs),
    }
    present: Mapping[str, Mapping[str, object]] = {
        "components": manifest.components,
        "samplers": manifest.samplers,
        "tokenizers": manifest.tokenizers,
        "tables": manifest.tables,
    }
    for kind, names in present.items():
        rule = "G11" if kind == "components" else "P16"
        for name in names:
            if name not in used[kind]:
                where = f"{kind}.{shorten(name)}"
                fail(where, "used by no program", "a program that uses it", rule)


def _all(names: Iterable[Iterable[str]]) -> set[str]:
    return {name for some in names for name in some}


def _check_records(manifest: Manifest) -> None:
    if END_TO_END in manifest.components:
        fail(f"components.{END_TO_END}", "the name of all components", "another name", "R2")
    for name in manifest.costs:
        if name not in manifest.components:
            fail(f"costs.{shorten(name)}", "no component", listed(manifest.components), "R2")
    ids = {name: {v.id for v in part.variants} for name, part in manifest.components.items()}
    ids[END_TO_END] = {item.id for item in manifest.sets}
    for number, record in enumerate(manifest.verification):
        where = f"verification[{number}]"
        known = ids.get(record.component)
        if known is None:
            component = shorten(record.component)
            fail(f"{where}.component", component, f"one of {listed(ids)}", "R2")
        if record.variant not in known:
            variant = shorten(record.variant)
            fail(f"{where}.variant", variant, f"one of {listed(sorted(known))}", "R2")
