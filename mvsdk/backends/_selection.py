"""Which variant of every component runs, and on which backend."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvsdk._arguments import check_kind, check_text, check_whole_number, shown
from mvsdk.backends._registry import built_in_backends, default_backends
from mvsdk.backends._speed import PLACES, SOME_CLIPS, Place, expected_s, place_of
from mvsdk.bundle import Bundle
from mvsdk.devices import find_chipset
from mvsdk.errors import BackendError, InputError
from mvsdk.targets import DELEGATES, FORMATS, TARGETS
from mvsdk.tasks import deciding_components, named_program

if TYPE_CHECKING:
    from mvsdk.backends import Backend
    from mvsdk.manifest import Manifest, Program, Variant, VariantKey

_MOST_CLIPS = 1 << 62
_CHECKER = "coreml-checker"
"""The backend that the format coreml has away from Apple's systems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What will run: a set of variants, and the backend of each."""

    id: str
    """Of the set."""
    variants: Mapping[str, Variant]
    """By component: all that the program runs, and others of the set that can run here too."""
    backends: Mapping[str, Backend]
    """By component."""
    key: VariantKey
    """What the variant of the denoiser was chosen by."""

    def __repr__(self) -> str:
        """Return the set and the backends in one line."""
        return f"Selection({self.label} on {self.backend_names}: {', '.join(self.variants)})"

    @property
    def label(self) -> str:
        """What the variants have in common, such as onnx/fp32; the id of a set of several kinds."""
        keys = {variant.key for variant in self.variants.values()}
        return str(self.key) if len(keys) == 1 else self.id

    @property
    def backend(self) -> Backend:
        """The backend of the denoiser, or of what stands for it."""
        return next(self.backends[n] for n, v in self.variants.items() if v.key == self.key)

    @property
    def backend_names(self) -> str:
        """Names of the backends, each once."""
        return " and ".join(dict.fromkeys(item.name for item in self.backends.values()))

    def describe(self) -> str:
        """Return one line for people: what runs the graphs, and what its times stand for."""
        return "; ".join(dict.fromkeys(item.describe() for item in self.backends.values()))

    def check_program(self, program: Program) -> None:
        """Check that all that a program runs was chosen.

        Raises:
            InputError: If it was not.
        """
        missing = [name for name in program.components() if name not in self.variants]
        if missing:
            raise InputError(
                f"program {program.name} needs {missing[0]}, which the set {self.id} lacks, or "
                f"nothing here runs; load the bundle with program={program.name!r}"
            )

    @property
    def place(self) -> Place:
        """What runs them here; the worst of them, should they differ."""
        places: list[Place] = [place_of(self.backends[n], v) for n, v in self.variants.items()]
        return max(places, key=PLACES.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A set of variants that may run."""

    id: str
    variants: Mapping[str, Variant]
    key: VariantKey
    needed: tuple[str, ...]
    """Components that the program runs."""

    def __str__(self) -> str:
        """Return what the variants have in common, or what they are."""
        needed = (self.variants[name] for name in sorted(self.needed))
        keys = dict.fromkeys(str(variant.key) for variant in needed)
        return str(self.key) if len(keys) == 1 else f"{self.id} ({' + '.join(keys)})"


def select(
    bundle: Bundle,
    *,
    backend: Backend | None = None,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    format: str | None = None,
    program: str | None = None,
    clips: int = SOME_CLIPS,
) -> Selection:
    """Choose one set of variants, and the backend to run each of them.

    A bundle names the sets that run together. Of those that are left after the filters, and run on
    this machine, comes first

    1. what hardware made for it runs: Core ML and Core AI on a Mac, a Snapdragon chip's NPU if this
       is the machine of that chip;
    2. what is done first on a CPU, as it was measured (docs/executorch.md). A clip is fastest on
       executorch w8a8 (XNNPACK) and slowest on onnx w8a16; but ExecuTorch's runtime takes seconds
       to start, so a few `clips` of a small model are done before on onnx fp32;
    3. what an NPU may take that is not known to be the one;
    4. what software evaluates in place of other hardware, with the right numbers, and slowly:
       Qualcomm's emulator, the checker of Core ML packages, Core AI away from Apple's systems.

    The filters are about the variant of the denoiser; the others of its set run with it.

    Args:
        bundle: The bundle.
        backend: The only backend to consider; None tries all that there are (`default_backends`).
        target: Only this target; None allows all.
        chip: Only variants compiled for this chip, by slug, marketing name, or a phone that
            carries it; None allows all.
        precision: Only this precision; None allows all.
        format: Only this format, or this delegate of ExecuTorch; None allows all.
        program: Name of the program that is to run; None takes the default.
        clips: How many clips will be made.

    Raises:
        InputError: If no set of variants is left after the filters, or an argument is not allowed.
        BackendError: If none of the sets left can run here.
    """
    check_kind("bundle", bundle, Bundle, how="open one with Bundle.open")
    _check_backend(backend)
    check_whole_number("clips", clips, low=1, high=_MOST_CLIPS, allowed="1 and above")
    chosen = named_program(bundle.manifest, program)
    left = fitting_sets(
        bundle, chosen, target=target, chip=chip, precision=precision, format=format
    )
    runs, refusals = _try_all(bundle, left, backend)
    if runs:
        return min(runs, key=lambda run: _cost(run, bundle.manifest, chosen, clips))
    raise BackendError(
        f"{bundle.path.name} holds {_listed(left)}, none runs here: "
        f"{'; '.join(dict.fromkeys(refusals))}"
    )


def fitting_sets(
    bundle: Bundle,
    program: Program,
    *,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    format: str | None = None,
) -> Sequence[Candidate]:
    """Return the sets for a program that the filters of `select` let through.

    Returns:
        In the order of what they were made for.

    Raises:
        InputError: If none is left, or a filter is no text.
    """
    wanted = {"target": target, "format": format, "precision": precision, "chip": chip}
    for name, value in wanted.items():
        if value is not None:
            check_text(name, value)
    candidates = _candidates(bundle.manifest, program)
    if chip is not None and all(item.key.chip != chip for item in candidates):
        wanted["chip"] = find_chipset(chip).slug
    left = sorted((item for item in candidates if _fits(item.key, wanted)), key=_rank)
    if not left:
        filters = " ".join(
            f"{name}={ascii(value[:64])[1:-1]}"
            for name, value in wanted.items()
            if value is not None
        )
        raise InputError(
            f"no variant with {filters} in {bundle.path.name}; it holds {_listed(candidates)}; "
            "choose one of these or export it"
        )
    return left


def find_sets(manifest: Manifest) -> list[Candidate]:
    """Return the sets that can carry out the default program, in the order of preference."""
    return sorted(_candidates(manifest, manifest.program), key=_rank)


def _candidates(manifest: Manifest, program: Program) -> list[Candidate]:
    """Return the sets that can carry out a program, in the order of the manifest."""
    needed = program.components()
    first = deciding_components(manifest, program)[0]
    candidates: list[Candidate] = []
    for item in manifest.sets:
        if set(needed) <= set(item.variants):
            variants = manifest.variants_of(item)
            candidates.append(
                Candidate(
                    id=item.id,
                    variants={name: variants[name] for name in sorted(variants)},
                    key=variants[first].key,
                    needed=needed,
                )
            )
    return candidates


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
    bundle: Bundle, candidates: Sequence[Candidate], backend: Backend | None
) -> tuple[Sequence[Selection], Sequence[str]]:
    """Return what would run here, and why the others do not."""
    runs: list[Selection] = []
    refusals: list[str] = []
    for backends in _groups(backend):
        refusals = []
        for item in candidates:
            try:
                runs += _assign(bundle, item, backends)
            except BackendError as exc:
                refusals.append(str(exc))
        if any(run.place != "emulator" for run in runs):
            break
    return runs, refusals


def _assign(bundle: Bundle, item: Candidate, backends: Sequence[Backend]) -> list[Selection]:
    """Give each variant of a set a backend, in every way that prefers another one.

    What the program does not run is left out where nothing runs it.

    Raises:
        BackendError: If nothing runs a variant that the program needs.
    """
    able: dict[str, list[Backend]] = {}
    for name, variant in item.variants.items():
        try:
            able[name] = _able(bundle, variant, backends)
        except BackendError:
            if name in item.needed:
                raise
    return [
        Selection(
            id=item.id,
            variants={name: item.variants[name] for name in able},
            backends={n: first if first in found else found[0] for n, found in able.items()},
            key=item.key,
        )
        for first in backends
        if any(first in found for found in able.values())
    ]


def _able(bundle: Bundle, variant: Variant, backends: Sequence[Backend]) -> list[Backend]:
    """Return the backends that run a variant.

    Raises:
        BackendError: If there is none, or its pack is missing.
    """
    if not bundle.is_installed(variant):
        raise BackendError(
            f"the pack {variant.pack} is not installed; give its folder "
            f"(packs={{...}}, --pack {variant.pack}=FOLDER)"
        )
    reasons = [(backend, backend.unsupported_reason(variant)) for backend in backends]
    able = [backend for backend, reason in reasons if reason is None]
    if not able:
        raise BackendError(refusal_of(variant, {x.name: why or "" for x, why in reasons}))
    return able


def _groups(backend: Backend | None) -> Iterator[Sequence[Backend]]:
    """Go through the backends; those of other packages are loaded only when asked for."""
    if backend is not None:
        yield (backend,)
        return
    yield built_in_backends()
    yield default_backends()


def _cost(run: Selection, manifest: Manifest, program: Program, clips: int) -> tuple[int, float]:
    """Return what makes one selection better than another: less is better."""
    on_cpu = run.place == "cpu"
    cpu_s = expected_s(run.key, manifest, program, clips) if on_cpu else 0.0
    return PLACES.index(run.place), cpu_s


def refusal_of(variant: Variant, reasons: Mapping[str, str]) -> str:
    """Return why a variant does not run here: what the backend says that is meant for it."""
    meant = FORMATS[variant.format].backend
    if variant.format == "coreml" and platform.system() != "Darwin" and _CHECKER in reasons:
        meant = _CHECKER
    return reasons.get(meant) or next(iter(reasons.values()))


def _fits(key: VariantKey, wanted: Mapping[str, str | None]) -> bool:
    has = {
        "target": (key.target,),
        "format": (key.format, key.delegate),
        "precision": (key.precision,),
        "chip": (key.chip,),
    }
    return all(value is None or value in has[name] for name, value in wanted.items())


def _rank(item: Candidate) -> tuple[int, int, int, int]:
    """Return a set's place among those that are as good, in the order of what was made for it."""
    key = item.key
    traits = TARGETS[key.target]
    precisions = traits.precisions
    known = key.precision in precisions
    return (
        list(TARGETS).index(key.target),
        traits.formats.index(key.format),
        DELEGATES.index(key.delegate) if key.delegate else 0,
        precisions.index(key.precision) if known else len(precisions),
    )


def _listed(candidates: Sequence[Candidate]) -> str:
    return ", ".join(map(str, candidates)) or "nothing"
