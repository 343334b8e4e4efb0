"""Surgery on ONNX graphs and exported programs: nothing here knows a target or a family."""
