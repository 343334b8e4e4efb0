"""Rules for the operations of a MIL program that the Apple Neural Engine takes.

They come from public sources: docs/neural_engine.md gives the source behind every tag, how sure a
rule is, and where sources contradict each other. Then what was measured through Core ML counts, and
after that the less hopeful one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

GENERATIONS: Mapping[str, int] = {
    "A14": 13,
    "M1": 13,
    "A15": 14,
    "M2": 14,
    "A16": 15,
    "M3": 15,
    "A17": 16,
    "M4": 16,
    "A18": 17,
    "M5": 17,
    "A19": 18,
}
"""Generation of the engine by chip, as its compiler counts: H13 and so on.

The compiler also names generations after chips, one number behind those that phones are sold with:
what it calls A15 is H15, the engine of the A16 and the M3. A17 here is the A17 Pro.
"""
MOST_AXES = 5
MOST_CHANNELS = 65536
MOST_KERNEL_HEIGHT = 29
MOST_DILATION = 8
MOST_WINDOW = 29
FACTORS = (2, 3, 4, 8)
"""By which the engine repeats and reorders."""
UNKNOWN = "no source says that the Neural Engine takes it"
NO_FORM = "no Neural Engine has a form of it"

Value = bool | int | float | str | Sequence[bool] | Sequence[int] | Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """What rules look at of a tensor."""

    shape: tuple[int, ...]
    dtype: str
    """As NumPy writes it: float16, int32, bool."""
    constant: bool = False
    """Whether a `const` or a `constexpr_*` operation gives it: rules do not ask for its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What rules look at of an operation of a MIL program."""

    type: str
    name: str
    inputs: Mapping[str, TensorFacts]
    """By parameter; those of a list have names of their own, as `values[0]`."""
    outputs: tuple[TensorFacts, ...]
    constants: Mapping[str, Value] = field(default_factory=dict)
    """Parameters that are small constants: strides, dilations, pad, begin."""


Check = Callable[[Operation, int], str]
"""Takes an operation and a generation; returns why it stays outside, empty if it need not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Whether the engine takes a type of operation."""

    taken: Literal["always", "conditions", "never"]
    """always: wherever types, ranks and sizes allow, which hold for every operation."""
    source: str
    """Tag of a source in docs/neural_engine.md."""
    reason: str = ""
    """Why never."""
    types: tuple[str, ...] = ("float16",)
    """Types of what is no constant."""
    checks: tuple[Check, ...] = ()


def why_outside(operation: Operation, generation: int) -> str:
    """Return why an operation stays outside, with the tag of the source; empty if it does not."""
    rule = RULES.get(operation.type)
    if rule is None:
        return UNKNOWN
    if rule.taken == "never":
        return f"{rule.reason} [{rule.source}]"
    general = ((_of_types(rule.types), "apple-rules"), (_ranks(0, MOST_AXES), "ct-1723"))
    own = ((check, rule.source) for check in rule.checks)
    for check, source in (*general, (_sizes, "guide-17"), *own):
        if why := check(operation, generation):
            return f"{why} [{source}]"
    return ""


def tensors(operation: Operation) -> Iterator[tuple[str, TensorFacts]]:
    """Return operands and results, with the parameter's name."""
    yield from operation.inputs.items()
    yield from (("the result", facts) for facts in operation.outputs)


def moving(operation: Operation) -> Iterator[tuple[str, TensorFacts]]:
    """Return operands and results that are no constants."""
    return (item for item in tensors(operation) if not item[1].constant)


def numbers(operation: Operation, parameter: str) -> tuple[float, ...]:
    """Return a constant parameter as numbers; empty if it is unknown."""
    value = operation.constants.get(parameter, ())
    if isinstance(value, str):
        return ()
    return tuple(value) if isinstance(value, Sequence) else (value,)


def most_spatial(generation: int) -> int:
    """Return the longest that the last two axes, width and height to the engine, may be."""
    return 65536 if generation >= 16 else 16384


def last_two(facts: TensorFacts) -> tuple[int, ...]:
    """Return what the engine has as height and width."""
    return facts.shape[-2:]


def other_axes(facts: TensorFacts) -> tuple[int, ...]:
    """Return what the engine has as batch, depth and channels."""
    return facts.shape[:-2]


# Checks: each returns why an operation stays outside, or nothing.


def _of_types(types: tuple[str, ...]) -> Check:
    def check(operation: Operation, generation: int) -> str:
        for name, facts in moving(operation):
            if facts.dtype not in types:
                return f"{name} is {facts.dtype}, it takes {' and '.join(types)}"
        return ""

    return check


def _ranks(least: int, most: int) -> Check:
    allowed = str(most) if least == most else f"{least} to {most}"

    def check(operation: Operation, generation: int) -> str:
        for name, facts in moving(operation):
            if not least <= len(facts.shape) <= most:
                return f"{name} has rank {len(facts.shape)}, it takes {allowed}"
        return ""

    return check


def _sizes(operation: Operation, generation: int) -> str:
    spatial = most_spatial(generation)
    for name, facts in moving(operation):
        inner, outer = max(last_two(facts), default=0), max(other_axes(facts), default=0)
        if inner > spatial or outer > MOST_CHANNELS:
            allowed = f"the last two axes go to {spatial}, others to {MOST_CHANNELS}"
            return f"{name} is {'x'.join(map(str, facts.shape))}, {allowed}"
    return ""


def _from(generation_needed: int) -> Check:
    def check(operation: Operation, generation: int) -> str:
        if generation >= generation_needed:
            return ""
        chips = [chip for chip, number in GENERATIONS.items() if number == generation_needed]
        return f"its engine is older than that of {' and '.join(chips)}"

    return check


def _constant(*parameters: str) -> Check:
    def check(operation: Operation, generation: int) -> str:
        for parameter in parameters:
            if parameter in operation.inputs and not operation.inputs[parameter].constant:
                return f"{parameter} is no constant"
        return ""

    return check


def _factors(parameter: str, *, one: bool = False) -> Check:
    """Check that factors are of those that the engine knows, or 1 if that is allowed too."""

    def check(operation: Operation, generation: int) -> str:
        given = numbers(operation, parameter)
        if given and all(number in FACTORS or (one and number == 1) for number in given):
            return ""
        shown = ", ".join(f"{number:g}" for number in given) or "unknown"
        return f"{parameter} is {shown}, it takes {', '.join(map(str, FACTORS))}"

    return check


def _kernel(operation: Operation, generation: int) -> str:
    weight = operation.inputs.get("weight")
    if weight is None:
        return "its weight is unknown"
    height, width = weight.shape[-2:]
    most = 15 if generation >= 16 else 13
    if width > most or height > MOST_KERNEL_HEIGHT:
        return f"its kernel is {height}x{width}, the largest is {MOST_KERNEL_HEIGHT}x{most}"
    dilation = max(numbers(operation, "dilations"), default=1)
    if dilation > MOST_DILATION:
        return f"its dilation is {dilation:g}, the largest is {MOST_DILATION}"
    return ""


def _strided_kernel(operation: Operation, generation: int) -> str:
    """Check the smaller bounds of kernels along axes with a stride."""
    kernel = operation.inputs["weight"].shape[-2:]
    strides = numbers(operation, "strides") or (1, 1)
    for size, stride, most in zip(kernel, strides, (15, 7), strict=False):
        if stride > 1 and size > most:
            return f"its kernel is {size} along a strided axis, the largest is {most}"
    return ""


def _window(operation: Operation, generation: int) -> str:
    window = max(numbers(operation, "kernel_sizes"), default=0)
    if 1 <= window <= MOST_WINDOW:
        return ""
    return f"its window is {window:g} wide, it takes 1 to {MOST_WINDOW}"


def _upsampling(operation: Operation, generation: int) -> str:
    """Check the scale where a texture engine is missing and a deconvolution stands in."""
    sides = ("scale_factor_height", "scale_factor_width")
    scales = [scale for side in sides for scale in numbers(operation, side) or [1]]
    if generation >= 14 or all(scale == 2 for scale in scales):
        return ""
    return "its engine scales by 2 alone"


def _padding(operation: Operation, generation: int) -> str:
    mode = operation.constants.get("mode", "constant")
    pad = numbers(operation, "pad")
    if mode != "constant":
        return f"it pads with {mode}, only constant padding was seen to run there"
    if not pad or any(pad[:-4]):  # begin and end of each axis, so four for the last two
        return "it pads other axes than the last two" if pad else "its padding is unknown"
    return ""


# Rules: operator -> rule. Names are in strings, for the table to be read and searched as one.


def _always(source: str, names: str, *types: str) -> dict[str, Rule]:
    rule = Rule(taken="always", source=source, types=types or ("float16",))
    return dict.fromkeys(names.split(), rule)


def _if(source: str, names: str, *checks: Check) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), Rule(taken="conditions", source=source, checks=checks))


def _never(source: str, names: str, reason: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), Rule(taken="never", source=source, reason=reason))


RULES: Mapping[str, Rule] = {
    **_always("guide-a", "abs add sub mul real_div floor_div pow square sqrt rsqrt inverse"),
    **_always("guide-a", "maximum minimum exp exp2 log erf sign ceil floor round clip atan"),
    **_always("guide-a", "relu relu6 leaky_relu clamped_relu thresholded_relu threshold elu silu"),
    **_always("guide-a", "sigmoid sigmoid_hard tanh scaled_tanh softplus softplus_parametric"),
    **_always("guide-a", "softsign softmax instance_norm l2_norm local_response_norm"),
    **_always("guide-a", "reduce_mean reduce_sum reduce_max reduce_min reduce_sum_square"),
    **_always("guide-a", "reduce_l1_norm reduce_l2_norm reduce_log_sum reduce_log_sum_exp"),
    **_always("guide-a", "squeeze stack concat flatten2d reshape_like reverse identity fill"),
    **_always("guide-a", "reshape transpose slice_update crop fill_like"),
    **_always("whisperkit", "gelu layer_norm batch_norm expand_dims split"),
    **_always("guide-a", "equal not_equal greater greater_equal less", "float16", "bool"),
    **_always("guide-a", "less_equal logical_not select", "float16", "bool"),
    **_always("guide-a", "quantize dequantize", "float16", "int8", "uint8"),
    **_always("guide-a", "cast", "float16", "float32", "bool"),
    **_if("guide-17", "linear", _ranks(0, 4), _constant("weight")),
    **_if("guide-4", "matmul einsum scaled_dot_product_attention", _ranks(0, 4)),
    **_if("guide-17", "conv", _ranks(4, 4), _constant("weight"), _kernel),
    **_if("guide-a", "conv_transpose", _ranks(4, 4), _constant("weight"), _kernel, _strided_kernel),
    **_if("guide-a", "avg_pool max_pool l2_pool", _ranks(4, 4), _window),
    **_if("guide-a", "prelu", _ranks(3, 5)),
    **_if("guide-a", "pixel_shuffle", _factors("upscale_factor")),
    **_if("guide-a", "pixel_unshuffle", _factors("downscale_factor")),
    **_if("guide-a", "depth_to_space space_to_depth", _factors("block_size")),
    **_if("guide-a", "tile", _factors("reps", one=True)),
    **_if("guide-a", "space_to_batch batch_to_space", _factors("block_shape", one=True)),
    **_if("guide-a", "slice_by_index", _constant("begin", "end", "stride")),
    **_if("guide-a", "slice_by_size", _constant("begin", "size")),
    **_if("guide-17", "pad", _padding),
    **_if("guide-a", "upsample_nearest_neighbor upsample_bilinear", _ranks(4, 4), _upsampling),
    **_if("guide-a", "resize resize_bilinear resize_nearest_neighbor affine", _from(14)),
    **_if("guide-34", "sin cos", _from(15)),
    **_if("guide-a", "random_uniform", _from(15)),
    **_never("ct-1103", "gather gather_along_axis gather_nd", "it looks up, which the CPU does"),
    **_never("rf-detr", "topk argsort", "it sorts, which the CPU does"),
    **_never("apple-rules", "reduce_argmax reduce_argmin", "its result is int32"),
    **_never("ct-1875", "resample", "it samples a grid, which the CPU does"),
    **_never("aneforge", "crop_resize cumsum", "no way leads from MIL to it"),
    **_never("ct-1780", "lstm gru rnn", "it is recurrent"),
    **_never("guide-a", "reduce_prod mod one_hot non_zero band_part shape range_1d", NO_FORM),
    **_never("guide-a", "scatter scatter_along_axis scatter_nd sliding_windows", NO_FORM),
    **_never("guide-a", "logical_and logical_or logical_xor reverse_sequence", NO_FORM),
    **_never("guide-a", "tan asin acos atanh asinh acosh sinh cosh", NO_FORM),
    **_never("guide-a", "random_normal random_bernoulli random_categorical", NO_FORM),
    **_never("guide-a", "list_gather list_length list_read list_scatter list_write", NO_FORM),
    **_never("guide-a", "make_list cond while_loop", "it is control flow"),
    **_never("guide-a", "non_maximum_suppression", "it runs on the CPU or the GPU"),
}
