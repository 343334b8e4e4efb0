"""ExecuTorch programs, for XNNPACK and the Core ML delegate."""
