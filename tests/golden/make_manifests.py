"""Write golden manifests of format version 3: the usual tasks, and one for each kind of system.

`make_golden.py` writes them into `manifests/`. Those of versions 1 and 2 there are kept by hand, as
nothing writes such documents any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from manifest_models.clips import upscale, video_to_video
from manifest_models.fairy import fairy_batch, fairy_cache
from manifest_models.motion import stable_diffusion_motion
from manifest_models.pyramid import neodragon
from manifest_models.sizes import several_sizes
from manifest_models.usual import animator, sticker
from manifest_models.video_ldm import video_ldm_cascade

from mvsdk.manifest import Manifest

GOLDEN = Path(__file__).resolve().parent
MANIFESTS = GOLDEN / "manifests"
OLD = ("1_text_to_video", "1_image_to_video", "2_text_to_video", "2_image_to_video")
"""Manifests of versions 1 and 2."""


def upgraded(name: str) -> Callable[[], Manifest]:
    """Return what reads a manifest of an older version."""
    return lambda: Manifest.from_json((MANIFESTS / f"version_{name}.json").read_bytes())


BUILDERS: Mapping[str, Callable[[], Manifest]] = {
    "sticker": sticker,
    "animator": animator,
    "stable_diffusion_motion": stable_diffusion_motion,
    "video_ldm_cascade": video_ldm_cascade,
    "fairy_batch": fairy_batch,
    "fairy_cache": fairy_cache,
    "neodragon": neodragon,
    "several_sizes": several_sizes,
    "upscale": upscale,
    "video_to_video": video_to_video,
    **{f"upgraded_{name}": upgraded(name) for name in OLD},
}
"""Name of the file -> the manifest in it."""


def build(name: str) -> str:
    """Return what a golden file holds."""
    return BUILDERS[name]().to_json().decode()
