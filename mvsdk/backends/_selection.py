"""Which variant of every component runs, and on which backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mvsdk._arguments import check_kind, check_text, shown
from mvsdk._installed import toolchain_install
from mvsdk.backends._registry import built_in_backends, further_backends
from mvsdk.bundle import Bundle
from mvsdk.devices import find_chipset
from mvsdk.errors import BackendError, BundleError, InputError
from mvsdk.manifest import DELEGATES, FORMATS, Format, Precision, Target

if TYPE_CHECKING:
    from mvsdk.backends import Backend
    from mvsdk.manifest import Kind, Manifest, Variant

# What runs on this machine comes first: any computer runs onnx, and there fp32 is both the fastest
# and the exact one. On an NPU w8a16 is what the bundle was made for.
_PREFERENCE: Mapping[Target, tuple[Precision, ...]] = {
    "onnx": ("fp32", "fp16", "w8a16"),
    "snapdragon": ("w8a16", "fp16", "fp32"),
    "executorch": ("fp32", "w8a8", "fp16", "w8a16"),
    "iphone": ("fp16", "w8", "w6", "w4", "fp32"),
}
_RUNS: Mapping[Format, str] = {
    "onnx": "onnxruntime",
    "qnn_context": "qnn",
    "executorch": "executorch",
    "coreml": "coreml-checker",
    "coreai": "coreai",
}
"""Format -> the backend whose refusal says what is missing here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What will run: one variant for every component, all of one kind, and their backend."""

    backend: Backend
    kind: Kind
    """What the variants have in common."""
    variants: Mapping[str, Variant]

    def __repr__(self) -> str:
        """Return the kind and the backend in one line."""
        return f"Selection({self.kind} on {self.backend.name}: {', '.join(self.variants)})"


def select(
    bundle: Bundle,
    *,
    backend: Backend | None = None,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    format: str | None = None,
) -> Selection:
    """Choose one variant for every component, and the backend to run them.

    All components get the same kind: target, format, delegate, precision and chip. Of what is left
    after the filters the first that runs on this machine is taken: onnx before snapdragon,
    executorch and iphone; coreml before coreai; xnnpack before other delegates; w8a16 before other
    precisions on snapdragon, fp16 on iphone, fp32 elsewhere.

    Args:
        bundle: The bundle.
        backend: The only backend to consider; None tries all that there are (`default_backends`).
        target: Only this target; None allows all.
        chip: Only variants compiled for this chip, by slug, marketing name, or a phone that
            carries it; None allows all.
        precision: Only this precision; None allows all.
        format: Only this format, or this delegate of ExecuTorch; None allows all.

    Raises:
        InputError: If no set of variants is left after the filters, or an argument is of a wrong
            type.
        BundleError: If no set of variants is complete.
        BackendError: If none of the sets left can run here.
    """
    check_kind("bundle", bundle, Bundle, how="open one with Bundle.open")
    _check_backend(backend)
    left = fitting_kinds(bundle, target=target, chip=chip, precision=precision, format=format)
    reasons: list[str] = []
    candidates = _AllBackends() if backend is None else (backend,)
    for kind in sorted(left, key=_rank):
        variants = _variants(bundle.manifest, kind)
        refusals: dict[str, str] = {}
        for candidate in candidates:
            refusal = _refusal(candidate, variants.values())
            if refusal is None:
                return Selection(backend=candidate, kind=kind, variants=variants)
            refusals.setdefault(candidate.name, refusal)
        reasons.append(_reason(kind, refusals) if backend is None else refusals[backend.name])
    told = "; ".join(dict.fromkeys(reasons))
    raise BackendError(f"{bundle.path.name} holds {_listed(left)}, none runs here: {told}")


def fitting_kinds(
    bundle: Bundle,
    *,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    format: str | None = None,
) -> Sequence[Kind]:
    """Return the kinds that every component has and the filters of `select` let through.

    Raises:
        InputError: If none is left, or a filter is no text.
        BundleError: If no set of variants is complete.
    """
    wanted = {"target": target, "format": format, "precision": precision, "chip": chip}
    for name, value in wanted.items():
        if value is not None:
            check_text(name, value)
    kinds = _complete_kinds(bundle.manifest)
    if chip is not None and all(kind.chip != chip for kind in kinds):
        wanted["chip"] = find_chipset(chip).slug
    left = [kind for kind in kinds if _fits(kind, wanted)]
    if not left:
        asked = " ".join(
            f"{name}={ascii(value[:64])[1:-1]}"
            for name, value in wanted.items()
            if value is not None
        )
        raise InputError(
            f"no variant with {asked} in {bundle.path.name}; it holds {_listed(kinds)}; "
            "choose one of these or export it"
        )
    return left


def _check_backend(backend: object) -> None:
    from mvsdk.backends import Backend  # this module is a part of that package

    if isinstance(backend, type):
        raise InputError(
            f"backend is {shown(backend)}; allowed: an object of it, such as "
            f"{backend.__name__}(), or the name of one"
        )
    if backend is not None and not isinstance(backend, Backend):
        raise InputError(
            f"backend is {shown(backend)}; allowed: None, a name such as onnxruntime, or an object "
            "with the methods of mvsdk.Backend"
        )


class _AllBackends:
    """All backends; those of other packages are loaded only when none of our own will do."""

    def __iter__(self) -> Iterator[Backend]:
        """Go through them in order of preference."""
        yield from self._built_in
        yield from self._further

    @cached_property
    def _built_in(self) -> tuple[Backend, ...]:
        return built_in_backends()

    @cached_property
    def _further(self) -> tuple[Backend, ...]:
        return tuple(further_backends().loaded.values())


def _refusal(backend: Backend, variants: Iterable[Variant]) -> str | None:
    refusals = (backend.unsupported_reason(variant) for variant in variants)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _reason(kind: Kind, refusals: Mapping[str, str]) -> str:
    """Return why the backend that is meant for a kind does not run it here."""
    refusal = refusals.get(_RUNS[kind.format])
    return refusal or (
        "format coreml runs on Apple's systems, and the toolchain's checker evaluates it on any; "
        f"run: {toolchain_install('apple')}"
    )


def _complete_kinds(manifest: Manifest) -> Sequence[Kind]:
    """Return the kinds that every component has, in the order of the manifest."""
    offers = [
        [variant.kind for variant in component.variants]
        for component in manifest.components.values()
    ]
    found = dict.fromkeys(kind for offer in offers for kind in offer)
    complete = [kind for kind in found if all(kind in offer for offer in offers)]
    if not complete:
        raise BundleError(
            "no target, format, precision and chip is there for every component of the bundle: "
            f"{_listed(list(found))} are incomplete; export the bundle again"
        )
    return complete


def _fits(kind: Kind, wanted: Mapping[str, str | None]) -> bool:
    has = {
        "target": (kind.target,),
        "format": (kind.format, kind.delegate),
        "precision": (kind.precision,),
        "chip": (kind.chip,),
    }
    return all(value is None or value in has[name] for name, value in wanted.items())


def _rank(kind: Kind) -> tuple[int, int, int, int]:
    precisions = _PREFERENCE[kind.target]
    known = kind.precision in precisions
    return (
        list(_PREFERENCE).index(kind.target),
        FORMATS[kind.target].index(kind.format),
        DELEGATES.index(kind.delegate) if kind.delegate else 0,
        precisions.index(kind.precision) if known else len(precisions),
    )


def _variants(manifest: Manifest, kind: Kind) -> dict[str, Variant]:
    return {
        name: next(variant for variant in component.variants if variant.kind == kind)
        for name, component in manifest.components.items()
    }


def _listed(kinds: Sequence[Kind]) -> str:
    return ", ".join(str(kind) for kind in kinds) or "nothing"
