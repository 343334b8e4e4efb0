"""A bundle for one phone, cut from a bundle for many: what one choice lets through, and no more.

    mvsdk.slim_bundle("all.mvbundle", "phone.mvbundle", chip="sm8650", precision="w8a16")

The variants that stay are those that `mvsdk.load` would choose from with the same arguments, in
complete sets over all components. Their files are copied as they are, so they make the same clips,
byte by byte; with them stay tokenizer, licences, costs, and what verification said of them.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mvsdk._arguments import check_path
from mvsdk._text import quoted
from mvsdk.backends._selection import fitting_kinds
from mvsdk.bundle import SUFFIX, Bundle, BundleWriter
from mvsdk.errors import InputError
from mvsdk.manifest import END_TO_END, PACKAGE_FORMATS, Component

if TYPE_CHECKING:
    import os

    from mvsdk.manifest import Kind, Manifest, Variant, Verification


def slim_bundle(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    format: str | None = None,
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
        overwrite: Replace a bundle at `out`.

    Returns:
        The new bundle.

    Raises:
        InputError: If nothing is chosen or nothing fits, or `out` lies in the bundle.
        BundleNotFoundError: If there is no bundle; this is a FileNotFoundError too.
        BundleError: If the bundle is damaged; every file that stays is checked by its hash.
        OutputError: If `out` exists and may not be replaced, or cannot be written; nothing is left.
    """
    bundle = Bundle.open(path)
    if all(choice is None for choice in (target, chip, precision, format)):
        raise InputError(
            f"nothing is chosen of {bundle.path.name}; give a target, chip, precision or format"
        )
    kinds = set(fitting_kinds(bundle, target=target, chip=chip, precision=precision, format=format))
    manifest = slim_manifest(bundle.manifest, kinds)
    writer = BundleWriter(out, overwrite=overwrite)
    folder = check_path("out", out, example=f"phone{SUFFIX}").absolute()
    _check_apart(bundle, folder)
    with writer:
        for ref in manifest.files():
            writer.add_file(ref.path, source=bundle.file(ref))
        return writer.commit(manifest)


def slim_manifest(manifest: Manifest, kinds: Set[Kind]) -> Manifest:
    """Return the manifest of the same bundle with the variants of some kinds alone.

    Args:
        manifest: What the bundle holds.
        kinds: Kinds that every component has.
    """
    components = {
        name: Component(
            variants=tuple(
                _whole(variant, manifest) for variant in part.variants if variant.kind in kinds
            )
        )
        for name, part in manifest.components.items()
    }
    ids = {name: {item.id for item in part.variants} for name, part in components.items()}
    ids[END_TO_END] = {identifier for known in ids.values() for identifier in known}

    def is_kept(record: Verification) -> bool:
        return record.variant in ids[record.component]

    records = tuple(record for record in manifest.verification if is_kept(record))
    return replace(manifest, components=components, verification=records)


def _whole(variant: Variant, manifest: Manifest) -> Variant:
    """Return a variant that lists all that its model may read.

    A graph names further files by their place beside it. Where variants lie in one folder, such a
    file may be listed by another of them that goes; so everything in the folder stays.
    """
    package = variant.format in PACKAGE_FORMATS
    folder = PurePosixPath(variant.model) if package else PurePosixPath(variant.model).parent
    beside = (ref for ref in manifest.files() if PurePosixPath(ref.path).is_relative_to(folder))
    return replace(variant, files=tuple(dict.fromkeys((*variant.files, *beside))))


def _check_apart(bundle: Bundle, out: Path) -> None:
    try:
        real = out.resolve()
    except (OSError, RuntimeError):  # a loop of links, which the writer will meet
        return
    if bundle.path in real.parents:
        raise InputError(
            f"out is {quoted(out)}, which lies in the bundle itself; choose another folder"
        )
