"""stable_diffusion: image models of Stable Diffusion 1.5's layout, with temporal layers or without.

A public image model makes clips once temporal layers are added to it: motion modules (AnimateDiff),
or layers that are mixed in (Video LDM). Without them a clip is one frame.
"""
