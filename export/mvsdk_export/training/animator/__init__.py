"""The small image-to-video model: clips that follow from a picture, its training, its compression.

`clips` and `options` import without torch.
"""
