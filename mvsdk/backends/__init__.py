"""Backends run the graphs of a bundle; `select` decides which variant runs on which of them.

A backend is anything with the shape of `Backend`: tests use `mvsdk.backends.fake.Fake`, which needs
no graph at all. A session takes and gives float32 (and int32 token numbers, uint8 frames): the
types and quantization that a graph has at its border are the backend's business.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol

from mvsdk.devices import find_chipset
from mvsdk.errors import BackendError, BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Manifest, Variant


class Session(Protocol):
    """One loaded graph."""

    @property
    def run_s(self) -> float:
        """Seconds spent inside the native runtime since the session was made."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once.

        Args:
            inputs: One array for every input of the variant, in the shape that its manifest says.
                Float inputs are float32, whatever the graph takes.

        Returns:
            One array for every output of the variant; float and quantized ones as float32.

        Raises:
            InputError: If an array is missing or has another shape.
            BackendError: If the runtime fails.
        """
        ...

    def close(self) -> None:
        """Give the graph's memory back; a second call does nothing."""
        ...


class Backend(Protocol):
    """A runtime that can load some variants."""

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        ...

    def describe(self) -> str:
        """Return one line for people: what runs the graphs, and what its times stand for."""
        ...

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can. Loads nothing."""
        ...

    def load(self, bundle: Bundle, variant: Variant) -> Session:
        """Load one graph.

        Raises:
            BundleError: If a file of the variant is missing or damaged.
            BackendError: If the runtime is missing or refuses the graph.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What will run: one variant for every component, all of one kind, and their backend."""

    backend: Backend
    target: str
    format: str
    """What the files are, or for ExecuTorch what takes their operators, such as coreml or xnnpack.
    """
    precision: str
    chip: str | None
    """Slug of the chip that the variants are compiled for; None for a variant of any machine."""
    variants: Mapping[str, Variant]


@dataclass(frozen=True, slots=True, order=True)
class _Kind:
    """What all components of a selection have in common."""

    target: str
    format: str
    precision: str
    chip: str | None

    def __str__(self) -> str:
        # A computer's and Qualcomm's targets have one format each, which goes without saying.
        said = None if self.target in ("onnx", "snapdragon") else self.format
        return "/".join(part for part in (self.target, said, self.precision, self.chip) if part)


# What runs on this machine comes first: any computer runs onnx, and there fp32 is both the fastest
# and the exact one. On an NPU w8a16 is what the bundle was made for.
_PREFERENCE = {
    "onnx": ("fp32", "fp16", "w8a16"),
    "snapdragon": ("w8a16", "fp16", "fp32"),
    "executorch": ("fp32", "w8a8", "w8a16", "fp16"),
    "iphone": ("fp32", "fp16", "w8", "w6", "w4"),
}
BACKENDS_GROUP = "mvsdk.backends"
"""Entry points of other packages: each is called without arguments and gives a `Backend`."""


def default_backends() -> tuple[Backend, ...]:
    """Return the backends that `select` tries, in order of preference.

    Those of other packages come last; one that does not load is left out (`mvsdk doctor` says why).
    """
    # Here and not above, as all of them import this module.
    from mvsdk.backends.coreai import CoreAI
    from mvsdk.backends.executorch import ExecuTorch
    from mvsdk.backends.onnxruntime import OnnxRuntime
    from mvsdk.backends.qnn import Qnn

    further: list[Backend] = []
    for point in further_backends():
        with contextlib.suppress(Exception):  # whatever a package of somebody else's raises
            further.append(point.load()())
    return (OnnxRuntime(), Qnn(), ExecuTorch(), CoreAI(), *further)


def further_backends() -> list[EntryPoint]:
    """Return the backends that other packages offer, by name."""
    return sorted(entry_points(group=BACKENDS_GROUP), key=lambda point: point.name)


def find_backend(name: str) -> Backend:
    """Return the backend of that name.

    Raises:
        InputError: If there is none.
    """
    known = {backend.name: backend for backend in default_backends()}
    if name not in known:
        raise InputError(f"unknown backend {name[:64]!a}; known: {', '.join(known)}")
    return known[name]


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

    All components get the same target, format, precision and chip. Of what is left after the
    filters the first that runs on this machine is taken: onnx before snapdragon, executorch and
    iphone, exact precisions before others except on snapdragon, then the order of the manifest.

    Args:
        bundle: The bundle.
        backend: The only backend to consider; None tries all (`default_backends`).
        target: Only this target; None allows all.
        chip: Only variants compiled for this chip, by slug or marketing name; None allows all.
        precision: Only this precision; None allows all.
        format: Only this format, such as coreml or coreai, or this delegate of ExecuTorch; None
            allows all.

    Raises:
        InputError: If no set of variants is left after the filters.
        BundleError: If no set of variants is complete.
        BackendError: If none of the sets left can run here.
    """
    kinds = _complete_kinds(bundle.manifest)
    if chip is not None and all(kind.chip != chip for kind in kinds):
        chip = find_chipset(chip).slug
    wanted = {"target": target, "format": format, "precision": precision, "chip": chip}
    left = [kind for kind in kinds if all(_fits(kind, wanted))]
    if not left:
        asked = " ".join(f"{name}={value}" for name, value in wanted.items() if value is not None)
        raise InputError(
            f"no variant with {asked} in {bundle.path.name}; it holds {_listed(kinds)}; "
            "choose one of these or export it"
        )
    reasons: list[str] = []
    candidates = (backend,) if backend is not None else default_backends()
    for kind in sorted(left, key=_rank):
        variants = _variants(bundle.manifest, kind)
        for candidate in candidates:
            refusals = (candidate.unsupported_reason(variant) for variant in variants.values())
            reason = next((refusal for refusal in refusals if refusal is not None), None)
            if reason is None:
                return Selection(
                    backend=candidate,
                    target=kind.target,
                    format=kind.format,
                    precision=kind.precision,
                    chip=kind.chip,
                    variants=variants,
                )
            if backend is not None or candidate.name == _BACKEND_OF_FORMAT.get(kind.format):
                reasons.append(reason)
        if backend is None and kind.format == "coreml" and not _has_checker(candidates):
            reasons.append(_NO_CHECKER)
    told = "; ".join(dict.fromkeys(reasons)) or "no backend knows such a target"
    raise BackendError(f"{bundle.path.name} holds {_listed(left)}, none runs here: {told}")


_CHECKER = "coreml-checker"
_BACKEND_OF_FORMAT = {
    "onnx": "onnxruntime",
    "qnn_context": "qnn",
    "coreml": _CHECKER,
    "coreai": "coreai",
    **dict.fromkeys(("xnnpack", "qnn"), "executorch"),
}
_NO_CHECKER = (
    "format coreml runs on Apple's systems; the toolchain's checker evaluates it anywhere: "
    "pip install 'mvsdk[apple]'"
)


def _has_checker(candidates: Sequence[Backend]) -> bool:
    return any(candidate.name == _CHECKER for candidate in candidates)


def _kind(variant: Variant) -> _Kind:
    slug = None if variant.chip is None else variant.chip.slug
    return _Kind(variant.target, variant.delegate or variant.format, variant.precision, slug)


def _complete_kinds(manifest: Manifest) -> Sequence[_Kind]:
    """Return the kinds that every component has, in the order of the manifest."""
    offers = [
        [_kind(variant) for variant in component.variants]
        for component in manifest.components.values()
    ]
    found = dict.fromkeys(kind for offer in offers for kind in offer)
    complete = [kind for kind in found if all(kind in offer for offer in offers)]
    if not complete:
        raise BundleError(
            "no target, precision and chip is there for every component of the bundle: "
            f"{_listed(list(found))} are incomplete; export the bundle again"
        )
    return complete


def _fits(kind: _Kind, wanted: Mapping[str, str | None]) -> list[bool]:
    return [value is None or getattr(kind, name) == value for name, value in wanted.items()]


def _rank(kind: _Kind) -> tuple[int, int]:
    targets = list(_PREFERENCE)
    if kind.target not in targets:
        return (len(targets), 0)
    precisions = _PREFERENCE[kind.target]
    known = kind.precision in precisions
    return (
        targets.index(kind.target),
        precisions.index(kind.precision) if known else len(precisions),
    )


def _variants(manifest: Manifest, kind: _Kind) -> dict[str, Variant]:
    return {
        name: next(variant for variant in component.variants if _kind(variant) == kind)
        for name, component in manifest.components.items()
    }


def _listed(kinds: Sequence[_Kind]) -> str:
    return ", ".join(str(kind) for kind in kinds) or "nothing"
