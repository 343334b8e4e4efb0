"""A bundle for one phone, cut from a bundle for many: what one choice lets through, and no more.

    mvsdk.slim_bundle("all.mvbundle", "phone.mvbundle", chip="sm8650", precision="w8a16")

The sets of variants that stay are those that `mvsdk.load` would choose from with the same
arguments. Their files are copied as they are, so they make the same clips, byte by byte; with them
stay tokenizers, tables, licences, costs, and what verification said of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mvsdk._arguments import check_path
from mvsdk._text import quoted
from mvsdk.backends._selection import fitting_sets
from mvsdk.bundle import SUFFIX, Bundle, BundleWriter
from mvsdk.errors import InputError
from mvsdk.manifest import END_TO_END
from mvsdk.manifest.memory import MEMORY, memory_to_json, read_memory
from mvsdk.targets import FORMATS
from mvsdk.tasks import named_program

if TYPE_CHECKING:
    import os

    from mvsdk.manifest import FileRef, Manifest, Program, Variant, VariantSet, Verification


def slim_bundle(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    format: str | None = None,
    program: str | None = None,
    packs: Mapping[str, str | os.PathLike[str]] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle that holds only the variants that fit.

    Args:
        path: The bundle to cut from, which stays as it is.
        out: Folder of the new bundle; missing parents are made.
        target: Only this target; None keeps all.
        chip: Only variants compiled for this chip, by slug, marketing name, or a phone that
            carries it (`find_chipset`); None keeps all.
        precision: Only this precision; None keeps all.
        format: Only this format, or this delegate of ExecuTorch; None keeps all.
        program: Only this program, by name; None keeps all that the rest can carry out.
        packs: Folder of each part of the bundle that lies elsewhere, by name. The new bundle has
            no parts.
        overwrite: Replace a bundle at `out`.

    Returns:
        The new bundle.

    Raises:
        InputError: If nothing is chosen or nothing fits, or `out` lies in the bundle.
        BundleNotFoundError: If there is no bundle; this is a FileNotFoundError too.
        BundleError: If the bundle is damaged; every file that stays is checked by its hash.
        OutputError: If `out` exists and may not be replaced, or cannot be written; nothing is left.
    """
    bundle = Bundle.open(path, packs=packs)
    if all(choice is None for choice in (target, chip, precision, format, program)):
        raise InputError(
            f"nothing is chosen of {bundle.path.name}; give a target, chip, precision, format or "
            "program"
        )
    wanted = bundle.manifest.programs
    if program is not None:
        wanted = (named_program(bundle.manifest, program),)
    filters = {"target": target, "chip": chip, "precision": precision, "format": format}
    manifest = slim_manifest(bundle.manifest, _fitting(bundle, wanted, filters), wanted)
    writer = BundleWriter(out, overwrite=overwrite)
    folder = check_path("out", out, example=f"phone{SUFFIX}").absolute()
    _check_apart(bundle, folder)
    with writer:
        for ref in manifest.files():
            writer.add_file(ref.path, source=bundle.file(ref))
        return writer.commit(manifest)


def _fitting(
    bundle: Bundle, programs: Sequence[Program], filters: Mapping[str, str | None]
) -> set[str]:
    """Return the ids of the sets that fit for some program.

    Raises:
        InputError: If there are none.
    """
    ids: set[str] = set()
    refusals: list[InputError] = []
    for program in programs:
        try:
            ids |= {item.id for item in fitting_sets(bundle, program, **filters)}
        except InputError as exc:
            refusals.append(exc)
    if not ids:
        raise refusals[0]
    return ids


def slim_manifest(
    manifest: Manifest, ids: Collection[str], programs: Sequence[Program]
) -> Manifest:
    """Return the manifest of the same bundle with some sets of variants alone.

    Programs that none of these can carry out go too, and so does the division into packs.

    Args:
        manifest: What the bundle holds.
        ids: Of sets, of which one at least carries out one of the programs.
        programs: Those that may stay.
    """
    sets = tuple(item for item in manifest.sets if item.id in ids)
    programs = tuple(
        program
        for program in programs
        if any(set(program.components()) <= set(item.variants) for item in sets)
    )
    names = {name for program in programs for name in program.components()}
    sets = _without_twins(
        replace(item, variants={n: v for n, v in item.variants.items() if n in names})
        for item in sets
    )
    kept = {(name, variant) for item in sets for name, variant in item.variants.items()}
    components = {
        name: replace(
            part,
            variants=tuple(
                _whole(variant, manifest) for variant in part.variants if (name, variant.id) in kept
            ),
        )
        for name, part in manifest.components.items()
        if name in names
    }
    kept |= {(END_TO_END, item.id) for item in sets}

    def is_kept(record: Verification) -> bool:
        return (record.component, record.variant) in kept

    samplers = {name for program in programs for name in program.samplers()}
    tokenizers = {name for program in programs for name in program.tokenizers()}
    arrays = {name for program in programs for name in program.names_used()}
    slim = replace(
        manifest,
        programs=programs,
        components=components,
        sets=sets,
        samplers={n: item for n, item in manifest.samplers.items() if n in samplers},
        tokenizers={n: item for n, item in manifest.tokenizers.items() if n in tokenizers},
        tables={n: item for n, item in manifest.tables.items() if n in arrays},
        packs=(),
        costs={n: item for n, item in manifest.costs.items() if n in names},
        verification=tuple(filter(is_kept, manifest.verification)),
    )
    if not read_memory(manifest):  # nothing is said, or nothing that we understand
        return slim
    others = {key: value for key, value in manifest.extensions.items() if key != MEMORY}
    left = memory_to_json(read_memory(slim))
    return replace(slim, extensions={**others, MEMORY: left} if left else others)


def _without_twins(sets: Iterable[VariantSet]) -> tuple[VariantSet, ...]:
    """Leave out sets that name the same variants as one before."""
    first: dict[tuple[tuple[str, str], ...], VariantSet] = {}
    for item in sets:
        first.setdefault(tuple(sorted(item.variants.items())), item)
    return tuple(first.values())


def _whole(variant: Variant, manifest: Manifest) -> Variant:
    """Return a variant that lists all that its model may read.

    A graph names further files by their place beside it. Where variants lie in one folder, such a
    file may be listed by another of them that goes; so everything in the folder stays, of the same
    pack.
    """
    package = FORMATS[variant.format].is_package
    folder = PurePosixPath(variant.model) if package else PurePosixPath(variant.model).parent
    there = _files_of(manifest, variant.pack)
    beside = [ref for ref in there if PurePosixPath(ref.path).is_relative_to(folder)]
    beside.sort(key=lambda ref: ref.path)
    return replace(variant, files=tuple(dict.fromkeys((*variant.files, *beside))), pack=None)


def _files_of(manifest: Manifest, pack: str | None) -> set[FileRef]:
    """Return the files of a pack, or of the base."""
    variants = (v for part in manifest.components.values() for v in part.variants)
    refs = {ref for v in variants if v.pack == pack for ref in v.files}
    return refs | set(manifest.base_files()) if pack is None else refs


def _check_apart(bundle: Bundle, out: Path) -> None:
    try:
        real = out.resolve()
    except (OSError, RuntimeError):  # a loop of links, which the writer will meet
        return
    if bundle.path in real.parents:
        raise InputError(
            f"out is {quoted(out)}, which lies in the bundle itself; choose another folder"
        )
