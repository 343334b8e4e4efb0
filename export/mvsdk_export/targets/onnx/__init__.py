"""ONNX models: a target of its own, and what a chip's compiler reads."""
