"""Which variant of every component runs, and on which backend."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from mvsdk._arguments import check_kind, check_text, check_whole_number, shown
from mvsdk.backends._registry import built_in_backends, further_backends
from mvsdk.backends._speed import PLACES, SOME_CLIPS, Place, expected_s, place_of
from mvsdk.bundle import Bundle
from mvsdk.devices import find_chipset
from mvsdk.errors import BackendError, BundleError, InputError
from mvsdk.manifest import DELEGATES, FORMATS, Format, Precision, Target

if TYPE_CHECKING:
    from mvsdk.backends import Backend
    from mvsdk.manifest import Kind, Manifest, Variant

_PREFERENCE: Mapping[Target, tuple[Precision, ...]] = {
    "onnx": ("fp32", "fp16", "w8a16"),
    "snapdragon": ("w8a16", "fp16", "fp32"),
    "iphone": ("fp16", "w8", "w6", "w4", "fp32"),
    "executorch": ("w8a8", "fp32", "fp16", "w8a16"),
}
"""Order where one place is as good as another: on an NPU w8a16 is what the bundle was made for."""
_RUNS: Mapping[Format, str] = {
    "onnx": "onnxruntime",
    "qnn_context": "qnn",
    "executorch": "executorch",
    "coreml": "coreml",
    "coreai": "coreai",
}
"""Format -> the backend whose refusal says what is missing here."""
_MOST_CLIPS = 1 << 62
_CHECKER = "coreml-checker"
"""The backend that the format coreml has away from Apple's systems."""


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

    @property
    def place(self) -> Place:
        """What runs them here; the worst of them, should they differ."""
        places: list[Place] = [place_of(self.backend, x) for x in self.variants.values()]
        return max(places, key=PLACES.index)


def select(
    bundle: Bundle,
    *,
    backend: Backend | None = None,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    format: str | None = None,
    clips: int = SOME_CLIPS,
) -> Selection:
    """Choose one variant for every component, and the backend to run them.

    All components get the same kind: target, format, delegate, precision and chip. Of what is left
    after the filters, and runs on this machine, comes first

    1. what hardware made for it runs: Core ML and Core AI on a Mac, a Snapdragon chip's NPU if this
       is the machine of that chip;
    2. what is done first on a CPU, as it was measured (docs/executorch.md). A clip is fastest on
       executorch w8a8 (XNNPACK) and slowest on onnx w8a16; but ExecuTorch's runtime takes seconds
       to start, so a few `clips` of a small model are done before on onnx fp32;
    3. what an NPU may take that is not known to be the one;
    4. what software evaluates in place of other hardware, with the right numbers, and slowly:
       Qualcomm's emulator, the checker of Core ML packages, Core AI away from Apple's systems.

    Args:
        bundle: The bundle.
        backend: The only backend to consider; None tries all that there are (`default_backends`).
        target: Only this target; None allows all.
        chip: Only variants compiled for this chip, by slug, marketing name, or a phone that
            carries it; None allows all.
        precision: Only this precision; None allows all.
        format: Only this format, or this delegate of ExecuTorch; None allows all.
        clips: How many clips will be made.

    Raises:
        InputError: If no set of variants is left after the filters, or an argument is not allowed.
        BundleError: If no set of variants is complete.
        BackendError: If none of the sets left can run here.
    """
    check_kind("bundle", bundle, Bundle, how="open one with Bundle.open")
    _check_backend(backend)
    check_whole_number("clips", clips, low=1, high=_MOST_CLIPS, allowed="1 and above")
    left = fitting_kinds(bundle, target=target, chip=chip, precision=precision, format=format)
    runs, refusals = _try_all(bundle.manifest, left, backend)
    if runs:
        return min(runs, key=lambda run: _cost(run, bundle.manifest, clips))
    told = [_reason(kind, refusals[kind], backend) for kind in left]
    raise BackendError(
        f"{bundle.path.name} holds {_listed(left)}, none runs here: "
        f"{'; '.join(dict.fromkeys(told))}"
    )


def fitting_kinds(
    bundle: Bundle,
    *,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    format: str | None = None,
) -> Sequence[Kind]:
    """Return the kinds that every component has and the filters of `select` let through.

    Returns:
        In the order of what they were made for.

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
    left = sorted((kind for kind in kinds if _fits(kind, wanted)), key=_rank)
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


def _try_all(
    manifest: Manifest, kinds: Sequence[Kind], backend: Backend | None
) -> tuple[Sequence[Selection], Mapping[Kind, Mapping[str, str]]]:
    """Return what would run here, and what each backend says against the rest."""
    runs: list[Selection] = []
    refusals: dict[Kind, dict[str, str]] = {kind: {} for kind in kinds}
    for backends in _groups(backend):
        for kind, candidate in product(kinds, backends):
            variants = _variants(manifest, kind)
            refusal = find_refusal(candidate, variants.values())
            if refusal is None:
                runs.append(Selection(backend=candidate, kind=kind, variants=variants))
            else:
                refusals[kind].setdefault(candidate.name, refusal)
        if any(run.place != "emulator" for run in runs):
            break
    return runs, refusals


def find_variants(manifest: Manifest) -> list[tuple[Kind, Mapping[str, Variant]]]:
    """Return the kinds that every component has, each with its variant of every component."""
    kinds = sorted(_complete_kinds(manifest), key=_rank)
    return [(kind, _variants(manifest, kind)) for kind in kinds]


def _groups(backend: Backend | None) -> Iterator[Sequence[Backend]]:
    """Go through the backends; those of other packages are loaded only when asked for."""
    if backend is not None:
        yield (backend,)
        return
    yield built_in_backends()
    yield tuple(further_backends().loaded.values())


def _cost(run: Selection, manifest: Manifest, clips: int) -> tuple[int, float]:
    """Return what makes one selection better than another: less is better."""
    on_cpu = run.place == "cpu"
    return PLACES.index(run.place), expected_s(run.kind, manifest, clips) if on_cpu else 0.0


def find_refusal(backend: Backend, variants: Iterable[Variant]) -> str | None:
    refusals = (backend.unsupported_reason(variant) for variant in variants)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _reason(kind: Kind, refusals: Mapping[str, str], backend: Backend | None) -> str:
    """Return why a kind does not run here: what the backend says that is meant for it."""
    if backend is not None:
        return refusals[backend.name]
    meant = _RUNS[kind.format]
    if kind.format == "coreml" and platform.system() != "Darwin":
        meant = _CHECKER if _CHECKER in refusals else meant
    return refusals[meant]


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
    """Return a kind's place among those that are as good, in the order of what was made for it."""
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
