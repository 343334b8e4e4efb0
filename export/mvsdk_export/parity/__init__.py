"""The PyTorch reference, what is recorded of it, and artefacts held to it."""
