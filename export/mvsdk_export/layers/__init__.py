"""NPU-first layers that families share; each says how it is implemented on which target."""
