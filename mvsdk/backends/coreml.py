"""Core ML on a Mac: runs `iphone` variants of the format coreml through coremltools.

Written against the documented interface of coremltools 9.0 and the source of its binding, and not
yet run on a Mac: the tests put a model of their own in Core ML's place. Four things there decide
what is written here. A package that does not load is only a warning, and the model that is
returned has nothing to run. Inputs that are read-only, and of other types than float32, float64
and int32, are refused ("value type not convertible"); float16 is made float32 on the way, as
results are. Nothing of PyTorch is needed, but coremltools imports it where it is installed, which
takes seconds. Each load compiles the package anew, into a folder that goes with the model.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import platform
import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from mvsdk._arguments import check_choice
from mvsdk._installed import installed_version, pip_install, toolchain_install
from mvsdk._text import quoted
from mvsdk.backends._graph import (
    GraphSession,
    check_request,
    check_signature,
    check_variant,
    first_line,
    label_of,
)
from mvsdk.backends.native_output import captured_native_output
from mvsdk.errors import BackendError, BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvsdk.backends._speed import Place
    from mvsdk.bundle import Bundle
    from mvsdk.manifest import ComputeUnit, Variant

ComputeUnits = Literal["CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY", "ALL"]

TESTED_VERSION = "9.0"
"""coremltools whose interface this is written against."""
_DISTRIBUTION = "coremltools"
_UNITS: Mapping[ComputeUnit, ComputeUnits] = {
    "NPU": "CPU_AND_NE",
    "GPU": "CPU_AND_GPU",
    "CPU": "CPU_ONLY",
    "ALL": "ALL",
}
"""What bundles call the units -> what Core ML does."""
# Numbers of ArrayFeatureType.ArrayDataType.
_TYPES = {
    65552: "float16",
    65568: "float32",
    65600: "float64",
    131080: "int8",
    131104: "int32",
}


class CoreML:
    """Core ML, as coremltools calls it on a Mac."""

    def __init__(self, *, compute_units: ComputeUnits | None = None) -> None:
        """Configure the backend; nothing is imported yet.

        Args:
            compute_units: What may run the graphs; None lets each variant say.

        Raises:
            InputError: If Core ML knows no such units.
        """
        if compute_units is not None:
            check_choice("compute_units", compute_units, get_args(ComputeUnits))
        self._units: ComputeUnits | None = compute_units
        self._loaded: dict[ComputeUnits, None] = {}

    def __repr__(self) -> str:
        """Return how it is made."""
        return f"CoreML(compute_units={self._units!r})"

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        return "coreml"

    @property
    def compute_units(self) -> ComputeUnits | None:
        """What may run the graphs; None where each variant says."""
        return self._units

    def describe(self) -> str:
        """Return one line for people: this Mac, and the units of the graphs that were loaded."""
        units = [self._units] if self._units else self._loaded
        return ", ".join(["Core ML on this Mac", *units])

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can."""
        check_variant(variant)
        if variant.format != "coreml":
            return f"Core ML runs the format coreml, not {variant.format}"
        if platform.system() != "Darwin":
            return (
                "format coreml runs on Apple's systems, and the toolchain's checker evaluates it "
                f"on any; run: {toolchain_install('apple')}"
            )
        if installed_version(_DISTRIBUTION) is None:
            return (
                f"format coreml needs the package {_DISTRIBUTION} on a Mac; "
                f"run: {pip_install(_DISTRIBUTION)}"
            )
        return _too_old(variant.deployment_target)

    def place(self, variant: Variant) -> Place:
        """Return what runs a variant: Macs with Intel's processors have no Neural Engine."""
        check_variant(variant)
        units = self._units or _UNITS[variant.compute_unit]
        apple = platform.machine() == "arm64"
        return "accelerator" if apple and units != "CPU_ONLY" else "cpu"

    def load(self, bundle: Bundle, variant: Variant) -> GraphSession:
        """Load one graph; see `mvsdk.backends.Backend.load`."""
        check_request(bundle, variant)
        label = label_of(variant)
        reason = self.unsupported_reason(variant)
        if reason is not None:
            raise BackendError(f"{label}: {reason}")
        path = bundle.model(variant)
        coremltools = _import_coremltools()
        units = self._units or _UNITS[variant.compute_unit]
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                with captured_native_output():
                    model = coremltools.models.MLModel(
                        str(path),
                        compute_units=coremltools.ComputeUnit[units],
                        function_name=variant.function,
                    )
                    model.get_compiled_model_path()  # raises where nothing was loaded
                    description = _describe(model, variant.function)
            except Exception as exc:  # coremltools has no class of its own
                raise BackendError(_explain(variant, exc, warned)) from exc
        _check_signatures(label, variant, description)
        self._loaded[units] = None
        names = [spec.name for spec in variant.outputs]

        def run(feeds: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
            # In a dictionary of its own, as `predict` changes it.
            given = {name: x if x.flags.writeable else x.copy() for name, x in feeds.items()}
            try:
                made = model.predict(given)
                return [made[name] for name in names]
            except Exception as exc:  # as above
                raise BackendError(
                    f"{label} failed to run on Core ML, {units}: {first_line(exc)}; "
                    "try other compute units (mvsdk.CoreML), or the backend coreml-checker"
                ) from exc

        return GraphSession(label, variant.inputs, variant.outputs, run)


def _too_old(deployment_target: str | None) -> str | None:
    """Return what macOS a package needs, or None where this one will do."""
    release = platform.mac_ver()[0].split(".")[0]
    if deployment_target is None or not release.isdigit():
        return None
    # A Python that was built before macOS 26 is told 16 (python/cpython #135675).
    here = int(release) + (10 if 16 <= int(release) < 26 else 0)
    system = int(deployment_target.removeprefix("iOS"))
    # iOS 18 came with macOS 15; from 26 on they count alike.
    wanted = system - 3 if system < 26 else system
    if here >= wanted:
        return None
    return (
        f"packages for {deployment_target} need macOS {wanted}, this Mac has {here}; update macOS, "
        "export with a lower --deployment-target, or use the backend coreml-checker"
    )


def _import_coremltools() -> Any:
    """Import coremltools, which warns of the versions of all that it could convert from.

    Raises:
        BackendError: If it is missing or broken.
    """
    try:
        with captured_native_output(), warnings.catch_warnings(), _silent(_DISTRIBUTION):
            warnings.simplefilter("ignore")
            return importlib.import_module("coremltools")
    except (ImportError, OSError) as exc:  # OSError: a library that is missing on this system
        raise BackendError(
            f"coremltools {installed_version(_DISTRIBUTION)} cannot be imported "
            f"({first_line(exc)}); run: {pip_install('--force-reinstall', _DISTRIBUTION)}"
        ) from exc


@contextlib.contextmanager
def _silent(name: str) -> Generator[None]:
    """Keep one logger still inside the block."""
    log = logging.getLogger(name)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _describe(model: Any, function: str | None) -> Any:
    """Return the description of a model's function, which has inputs, outputs and states."""
    description = model.get_spec().description
    name = function or description.defaultFunctionName
    # A package of one function describes that itself.
    return next((item for item in description.functions if item.name == name), description)


def _check_signatures(label: str, variant: Variant, description: Any) -> None:
    """Check a function, by its description, against the manifest."""
    if states := [item.name for item in description.state]:
        raise BundleError(
            f"{label}: the package keeps the state {quoted(states[0])} between runs, which graphs "
            "of a bundle do not; export the bundle again"
        )
    for side, specs, found in (
        ("input", variant.inputs, description.input),
        ("output", variant.outputs, description.output),
    ):
        check_signature(label, side, specs, {item.name: _tensor(item.type) for item in found})


def _tensor(feature: Any) -> tuple[list[int | None], str]:
    """Return shape and type of a feature; what is no array has no shape."""
    kind = feature.WhichOneof("Type")
    if kind != "multiArrayType":
        return [], str(kind)
    array = feature.multiArrayType
    return list(array.shape), _TYPES.get(array.dataType, f"type {array.dataType}")


def _explain(variant: Variant, exc: Exception, warned: Sequence[warnings.WarningMessage]) -> str:
    """Say why a package did not load: what Core ML itself says is in a warning only."""
    causes = [str(item.message) for item in warned if issubclass(item.category, RuntimeWarning)]
    cause = causes[0].partition("message was: ")[2] or causes[0] if causes else ""
    told = "; ".join([first_line(exc), *cause.splitlines()[:1]])
    made = variant.tools.get(_DISTRIBUTION, "unknown")
    return (
        f"Core ML cannot load {label_of(variant)}: {told}; made with {_DISTRIBUTION} {made}, here "
        f"is {installed_version(_DISTRIBUTION)} on macOS {platform.mac_ver()[0]}, written for "
        f"{TESTED_VERSION}; run mvsdk inspect on the bundle, or use the backend coreml-checker"
    )
