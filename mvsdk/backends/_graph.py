"""The I/O signature of a graph: checks shapes, casts, quantizes and dequantizes, makes bytes.

Shared by every backend, so that a quantized graph gives the same numbers whoever runs it. Rules
that a refusal names; values of all are in tests/golden/signature.json:

    G13  nan is refused where the graph's input is quantized. Infinity is a quotient beyond the
         range like any other, and clipped.
    G15  a float16 input is rounded to nearest, halves to even; a magnitude that would round beyond
         65504 is refused.
    G16  whole numbers that go in are whole and fit the graph's type; those that are given back fit
         int32.
    G17  pixels that go in are whole, 0 to 255. Frames that are not finite are refused; others are
         rounded, halves to even, and clipped to 0 to 255.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mvsdk._arguments import check_kind, shown
from mvsdk._text import quoted
from mvsdk.bundle import Bundle
from mvsdk.errors import BackendError, BundleError, InputError
from mvsdk.manifest import Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from mvsdk.manifest import TensorSpec

    Run = Callable[[dict[str, NDArray[Any]]], Sequence[NDArray[Any]]]

_FLOATS = frozenset({"float32", "float16"})


class GraphSession:
    """A `Session` around one native call."""

    def __init__(
        self,
        label: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        run: Run,
        close: Callable[[], None] | None = None,
    ) -> None:
        """Wrap a native call.

        Args:
            label: What error messages call the graph, such as `unet`.
            inputs: The graph's inputs as the manifest says them.
            outputs: The graph's outputs as the manifest says them.
            run: Takes arrays in the types of the graph, gives its outputs in the order of
                `outputs`.
            close: Called once by `close`, after `run` has been let go.
        """
        self._label = label
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._run: Run | None = run
        self._close = close
        self._run_s = 0.0

    @property
    def run_s(self) -> float:
        """Seconds spent inside the native call; casts before and behind it are not in it."""
        return self._run_s

    def __repr__(self) -> str:
        """Return which graph it is, and whether it is still open, in one line."""
        return f"GraphSession({self._label}, {'closed' if self._run is None else 'open'})"

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `mvsdk.backends.Session.run`."""
        check_kind("inputs", inputs, Mapping, how="pass one array for every input")
        if self._run is None:
            raise BackendError(f"{self._label} is closed; load it again")
        feeds = {spec.name: self._encode(spec, inputs) for spec in self._inputs}
        start = time.perf_counter()
        try:
            results = self._run(feeds)
        finally:
            self._run_s += time.perf_counter() - start
        return {
            spec.name: self._decode(spec, result)
            for spec, result in zip(self._outputs, results, strict=True)
        }

    def close(self) -> None:
        """Let the native call go; a second call does nothing."""
        self._run = None
        close, self._close = self._close, None
        if close is not None:
            close()

    def _encode(self, spec: TensorSpec, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        value = inputs.get(spec.name)
        if value is None:
            given = ", ".join(map(str, inputs)) or "nothing"
            raise InputError(f"{self._label} needs the input {quoted(spec.name)}; given: {given}")
        if not isinstance(cast("object", value), np.ndarray) or value.dtype.kind not in "fiub":
            raise InputError(
                f"{self._label}/{spec.name} is {shown(value)}; allowed: an array of numbers; "
                "use numpy.asarray"
            )
        self._check_shape(spec, value, InputError)
        return encode(spec, value, label=self._label)

    def _decode(self, spec: TensorSpec, value: NDArray[Any]) -> NDArray[Any]:
        self._check_shape(spec, value, BackendError)
        real = decode(spec, value)
        if spec.type != "pixels" or real.dtype == np.uint8:
            return real
        if not np.isfinite(real).all():
            raise BackendError(
                f"{self._label}/{spec.name} has nan or infinite values; run mvsdk verify on the "
                "bundle, or choose another precision",
                rule="G17",
            )
        return np.clip(np.rint(real), 0, 255).astype(np.uint8)

    def _check_shape(
        self, spec: TensorSpec, value: NDArray[Any], error: type[InputError | BackendError]
    ) -> None:
        if value.shape != tuple(spec.shape):
            raise error(
                f"{self._label}/{spec.name} has shape {value.shape}, "
                f"bundle wants {tuple(spec.shape)}; export the bundle for this shape"
            )


def check_variant(variant: object) -> None:
    """Check what a backend is asked about.

    Raises:
        InputError: If it is no variant.
    """
    check_kind("variant", variant, Variant, how="take one of the manifest's")


def check_request(bundle: object, variant: object) -> None:
    """Check what a backend is to load.

    Raises:
        InputError: If it is no variant of a bundle.
    """
    check_kind("bundle", bundle, Bundle, how="open one with Bundle.open")
    check_variant(variant)


def component_of(bundle: Bundle, variant: Variant) -> tuple[str, int]:
    """Return the component that a variant belongs to, and which of its variants it is.

    Raises:
        BackendError: If it is of another bundle.
    """
    for name, component in bundle.manifest.components.items():
        if variant in component.variants:
            return name, component.variants.index(variant)
    raise BackendError(f"variant {variant.id} is not in {bundle.path.name}")


def label_of(variant: Variant) -> str:
    """Return what error messages call a graph: its folder, such as `unet/onnx-fp32`."""
    folders = variant.model.split("/")[:-1]
    return "/".join(folder for folder in folders if folder != "components") or variant.id


def first_line(exc: BaseException) -> str:
    """Return the first line of an exception's text without ONNX Runtime's prefix."""
    lines = str(exc).strip().splitlines() or [type(exc).__name__]
    return lines[0].removeprefix("[ONNXRuntimeError] : ")


def check_signature(
    label: str,
    side: str,
    specs: Sequence[TensorSpec],
    found: Mapping[str, tuple[Sequence[int | None], str]],
) -> None:
    """Check that one side of a loaded graph is what the manifest says.

    Args:
        label: What error messages call the graph.
        side: "input" or "output".
        specs: What the manifest says.
        found: Name -> (shape, type) of the graph's tensors, types as in a manifest.

    Raises:
        BundleError: If a name, shape or type differs.
    """
    shown = {name: (list(shape), dtype) for name, (shape, dtype) in found.items()}
    told = {spec.name: (list(spec.shape), spec.dtype) for spec in specs}
    if shown != told:
        raise BundleError(
            f"{label}: the graph's {side}s are {shown}, the manifest says {told}; "
            "export the bundle again"
        )


def encode(spec: TensorSpec, value: NDArray[Any], *, label: str = "graph") -> NDArray[Any]:
    """Turn an array into what the graph takes.

    A quantized tensor gets `clip(round(value / scale) + zero_point)`: the quotient in float32 with
    halves rounded to even, which is ONNX QuantizeLinear and what phones follow, the rest exactly.

    Args:
        spec: The tensor as the manifest says it.
        value: Array of the tensor's shape. Floats of other sizes are rounded to float32 first.
        label: What error messages call the graph.

    Returns:
        C-contiguous array of `spec.dtype`.

    Raises:
        InputError: By the rules G13 and G15 to G17.
    """
    is_whole = spec.type == "real" and spec.dtype not in _FLOATS
    if spec.type == "integer":
        bounds = np.iinfo(spec.dtype)
        _check_whole(spec, value, bounds.min, bounds.max, "G16", label)
    elif spec.type == "pixels":
        _check_whole(spec, value, 0, 255, "G17", label)
    if spec.scale is not None or is_whole:
        value = _to_steps(spec, _to_float32(value), np.float32(spec.scale or 1.0), label)
    elif spec.dtype == "float16":
        value = _to_float16(spec, _to_float32(value), label)
    return np.asarray(value, spec.dtype, order="C")  # ascontiguousarray gives a scalar an axis


def decode(spec: TensorSpec, value: NDArray[Any]) -> NDArray[Any]:
    """Turn what the graph gave into float32, unless it is plain integers.

    Args:
        spec: The tensor as the manifest says it.
        value: Array of the tensor's shape, as the graph gave it.

    Returns:
        Float32 for float and quantized tensors: `(value - zero_point) * scale`, the difference
        exactly, then rounded, the product in float32. Int32 for whole numbers; pixels unchanged.

    Raises:
        BackendError: By the rule G16.
    """
    if spec.dtype in _FLOATS:
        return value.astype(np.float32, copy=False)
    if spec.type == "integer":
        return _to_int32(spec, value)
    if spec.scale is None:
        return value if spec.type == "pixels" else value.astype(np.float32)
    # Float64 for int32, whose differences take 33 bits; float32 holds those of the smaller types.
    exact = np.promote_types(spec.dtype, np.float32).type
    steps = (value.astype(exact) - exact(spec.zero_point or 0)).astype(np.float32, copy=False)
    with np.errstate(over="ignore"):  # a product beyond float32 is infinite
        return steps * np.float32(spec.scale)


def decoded_dtype(spec: TensorSpec) -> np.dtype[Any]:
    """Return the type in which a session gives an output; see `mvsdk.backends.Session.run`."""
    if spec.type == "pixels":
        return np.dtype(np.uint8)
    return np.dtype(np.int32 if spec.type == "integer" else np.float32)


def _check_whole(
    spec: TensorSpec, value: NDArray[Any], low: int, high: int, rule: str, label: str
) -> None:
    """Check numbers whose type could hold others than whole ones within two bounds."""
    is_float = value.dtype.kind == "f"
    if not value.size or value.dtype.kind == "b":
        return
    if not is_float and low <= np.iinfo(value.dtype).min and np.iinfo(value.dtype).max <= high:
        return
    least, most = value.min().item(), value.max().item()  # Python compares these exactly
    if not (low <= least and most <= high):  # which nan is not
        met = most if low <= least else least
    elif is_float and (value != np.rint(value)).any():
        met = value[value != np.rint(value)][0]
    else:
        return
    raise InputError(
        f"{label}/{spec.name} is {met} somewhere; allowed for {spec.type}: whole numbers from "
        f"{low} to {high}; round and clip them first",
        rule=rule,
    )


def _to_int32(spec: TensorSpec, value: NDArray[Any]) -> NDArray[np.int32]:
    bounds = np.iinfo(np.int32)
    if value.size and (value.min() < bounds.min or value.max() > bounds.max):
        raise BackendError(
            f"{spec.name} holds whole numbers beyond int32; export the bundle again",
            rule="G16",
        )
    return value.astype(np.int32, copy=False)


def _to_float32(value: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite, as in every runtime
        return value.astype(np.float32, copy=False)


def _to_steps(
    spec: TensorSpec, value: NDArray[np.float32], scale: np.float32, label: str
) -> NDArray[Any]:
    """Return what a quantized tensor stores."""
    if np.isnan(value).any():
        raise InputError(
            f"{label}/{spec.name} is nan somewhere; allowed in a quantized input: numbers and "
            "infinity; run mvsdk verify on the bundle, or choose another precision",
            rule="G13",
        )
    bounds = np.iinfo(spec.dtype)
    with np.errstate(over="ignore"):  # a quotient beyond float32 is infinite, and clipped
        steps = np.rint(value / scale)
    # Float64, as float32 has no 2**31 - 1: its nearest, 2**31, does not fit an int32.
    exact = steps.astype(np.float64) + (spec.zero_point or 0)
    beyond = exact >= bounds.max  # which is 2**63 in float64 for an int64, and does not fit it
    stored = np.where(beyond, 0, np.maximum(exact, bounds.min)).astype(spec.dtype)
    return np.where(beyond, stored.dtype.type(bounds.max), stored)


def _to_float16(spec: TensorSpec, value: NDArray[np.float32], label: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # told below, with the value
        half = value.astype(np.float16)
    is_beyond = np.isinf(half)
    if is_beyond.any():
        raise InputError(
            f"{label}/{spec.name} is {value[is_beyond][0]:g} somewhere; allowed for float16: up to "
            "65504 and down to -65504; choose another precision",
            rule="G15",
        )
    return half
