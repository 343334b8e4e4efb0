"""What packages for Apple's phones are called."""

from __future__ import annotations

import re
from collections.abc import Mapping

PACKAGES: Mapping[str, str] = {
    "text_encoder": "TextEncoder",
    "image_encoder": "ImageEncoder",
    "vae_encoder": "VAEEncoder",
    "unet": "Unet",
    "transformer": "MultiModalDiffusionTransformer",
    "vae_decoder": "VAEDecoder",
}
"""Component -> what existing Swift code calls its package (apple/ml-stable-diffusion); others are
called by their own names."""


def package_name(component: str, suffix: str) -> str:
    """Return the name of the package of a component, such as "VAEDecoder.mlpackage"."""
    words = re.split("[._-]+", component)
    return (PACKAGES.get(component) or "".join(word.capitalize() for word in words)) + suffix
