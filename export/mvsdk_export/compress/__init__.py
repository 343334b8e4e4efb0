"""Compression of an SVD UNet in the manner of MobileVD, one transform per module.

    folding.py     cross-attention to one token becomes a vector per layer; exact
    frames.py      fewer frames at the inner levels
    pruning.py     temporal blocks are left out
    funnels.py     self-attention gets narrower heads, by adaptors that are merged
    importance.py  which temporal blocks matter, learned while the network is finetuned
    recipe.py      order and defaults
    chain.py       a whole compression
    reports.py     what a step changed: parameters, FLOPs, fidelity

A transform takes a network and returns another one with a `Report`; the given network stays as it
is. **Weights that a transform keeps are shared, not copied**: a full-size network is 6 GB. Copy the
network first (`copy.deepcopy`) where both are to be used and one of them trained. What is returned
wants gradients for all of its parameters, in the forms of training. Its `config` says all about it:
`SVDUNet(config)` takes its state dict.

Reference:
    Ben Yahia et al. 2024, "Mobile Video Diffusion", arXiv:2412.07583.
"""
