"""ONNX models that quantise what a graph takes and dequantise what it gives, for any tensor.

ONNX Runtime's Java API cannot make a uint16 tensor, but hands on those that a session gives. The
models know no tensor of any bundle: scale and zero point are inputs, and shapes are open, so that
one pair serves all tensors of a type. The types differ in two bytes, the element type of ONNX.
"""

from __future__ import annotations

from typing import Any

OPSET, IR = 21, 10
DTYPES = ("uint16", "int16", "uint8", "int8")
INPUTS = "x of any shape, scale float32 (), zero_point int32 ()"


def build_quantize_models() -> dict[str, list[dict[str, Any]]]:
    """Serialise a pair for every type that the operators have."""
    return {
        "models": [
            _case(name, dtype)
            for dtype in DTYPES
            for name in ("QuantizeLinear", "DequantizeLinear")
        ]
    }


def _case(operator: str, dtype: str) -> dict[str, Any]:
    from onnx import TensorProto

    stored = TensorProto.DataType.Value(dtype.upper())
    if operator == "QuantizeLinear":
        what = f"float32 {INPUTS} -> {dtype} y = clip(round_half_even(x / scale) + zero_point)"
        content = _model(operator, stored, source=TensorProto.FLOAT, result=stored)
    else:
        what = f"{dtype} {INPUTS} -> float32 y = (x - zero_point) * scale"
        content = _model(operator, stored, source=stored, result=TensorProto.FLOAT)
    return {
        "operator": operator,
        "dtype": dtype,
        "what": what,
        "opset": OPSET,
        "ir_version": IR,
        "bytes": len(content),
        "hex": content.hex(),
    }


def _model(operator: str, stored: int, *, source: int, result: int) -> bytes:
    """Cast the zero point, as Java cannot make it in its own type either."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["zero_point"], ["z"], to=stored),
        helper.make_node(operator, ["x", "scale", "z"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", source, None),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("zero_point", TensorProto.INT32, []),
    ]
    outputs = [helper.make_tensor_value_info("y", result, None)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    return model.SerializeToString()
