"""Fewer frames at the inner levels: neighbours are merged on the way down, and told apart again.

Neighbouring frames differ little, and inner levels carry what is large and slow. Where the finest
level alone keeps all frames, a clip of 14 has 14 there and 7 at the three others. The weights stay;
the network has to be finetuned, as its outputs do not.

Reference:
    Ben Yahia et al. 2024, arXiv:2412.07583 (temporal multiscaling). Where and how the frames are
    halved is our reconstruction: it meets the paper's FLOPs.
"""

from __future__ import annotations

from dataclasses import replace

from mvsdk._text import quoted
from mvsdk_export.compress.rebuilding import rebuild
from mvsdk_export.compress.reports import LATENT_SIZE, Report
from mvsdk_export.errors import CompressionError
from mvsdk_export.families.svd.config import LEVELS, SVDUNetConfig
from mvsdk_export.families.svd.frames import FRAME_DOWN, FRAME_UP
from mvsdk_export.families.svd.unet import SVDUNet


def halve_frames(
    unet: SVDUNet,
    levels: int = 1,
    *,
    down: str = "mean",
    up: str = "repeat",
    latent_size: tuple[int, int] = LATENT_SIZE,
) -> tuple[SVDUNet, Report]:
    """Halve the frames of the inner levels.

    Args:
        unet: The network; it stays as it is, and shares its weights.
        levels: Levels that keep all frames, from the finest on: 1, 2 or 3 of the four.
        down: How frames are halved: a key of `FRAME_DOWN`.
        up: How they are restored: a key of `FRAME_UP`.
        latent_size: Height and width of latents for which the report counts FLOPs.

    Raises:
        CompressionError: If frames are halved already, `levels` is none of these, or an operator is
            not known.

    Reference:
        Ben Yahia et al. 2024, arXiv:2412.07583.
    """
    report = report_frames(unet.config, levels, down=down, up=up, latent_size=latent_size)
    return rebuild(unet, report.config, unet.state_dict()), report


def report_frames(
    config: SVDUNetConfig,
    levels: int = 1,
    *,
    down: str = "mean",
    up: str = "repeat",
    latent_size: tuple[int, int] = LATENT_SIZE,
) -> Report:
    """Report on `halve_frames` from the configuration alone.

    Raises:
        CompressionError: As there.
    """
    if config.frame_levels:
        raise CompressionError(
            "the frames of the inner levels are halved already; leave the step frames out, or "
            "start from the uncompressed network"
        )
    if levels not in range(1, LEVELS):
        raise CompressionError(
            f"{levels} levels cannot keep all frames while the others have half; allowed: 1 to "
            f"{LEVELS - 1}"
        )
    for what, name, known in (("down", down, FRAME_DOWN), ("up", up, FRAME_UP)):
        if name not in known:
            raise CompressionError(
                f"unknown operator {quoted(name)} for frames on the way {what}; "
                f"known: {', '.join(known)}"
            )
    after = replace(config, frame_levels=levels, frame_down=down, frame_up=up)
    return Report(
        step="frames",
        config_before=config,
        config=after,
        what=f"levels have {', '.join(map(str, count_frames(after)))} frames",
        exact=False,
        latent_size=latent_size,
    )


def count_frames(config: SVDUNetConfig) -> tuple[int, ...]:
    """Return the frames of a clip at every level, the finest first."""
    whole = config.frame_levels or LEVELS
    half = (config.num_frames + 1) // 2
    return tuple(config.num_frames if level < whole else half for level in range(LEVELS))
