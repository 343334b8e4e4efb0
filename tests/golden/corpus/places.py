"""Places of the golden manifests that many cases edit, and names of the older ones."""

from __future__ import annotations

UNET = "components.unet.variants"
"""Of sticker: for the CPU, a Snapdragon, Core ML and XNNPACK."""
EXACT, PHONE, PACKAGE, XNNPACK = (f"{UNET}[{number}]" for number in range(4))

OPERATIONS = "programs[0].operations"
SAMPLE = f"{OPERATIONS}[3]"
"""Of sticker."""
LOOP = f"{OPERATIONS}[8]"
"""Of animator: the decoder, for two frames of latents at once."""
UNITS = f"{OPERATIONS}[35]"
"""Of neodragon."""
UPSCALE = f"{OPERATIONS}[0]"
"""Of upscale: the loop over frames."""

TEXT_1, IMAGE_1 = "version_1_text_to_video", "version_1_image_to_video"
TEXT_2, IMAGE_2 = "version_2_text_to_video", "version_2_image_to_video"

MOTION = "stable_diffusion_motion"
