"""Stable Video Diffusion: the networks of its public checkpoints, with implementations for NPUs.

State-dict keys are those of the public checkpoints; what is compressed (mvsdk_export.compress) is
told by a network's configuration.
"""
