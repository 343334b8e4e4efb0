"""Fewer frames at the inner levels: neighbours are merged on the way down, and told apart again.

Clips differ little from frame to frame, and inner levels carry what is large and slow. With one
level of halving, a clip of 14 frames has 14 at the finest level and 7 at the three others. The
weights stay; the network has to be finetuned, as its outputs do not.

Reference:
    Ben Yahia et al. 2024, arXiv:2412.07583 (temporal multiscaling). Where and how the frames are
    halved is our reconstruction: it meets the paper's FLOPs.
"""

from __future__ import annotations

from dataclasses import replace

from mvsdk_export.compress.rebuilding import rebuild
from mvsdk_export.compress.reports import LATENT_SIZE, Report, report_step
from mvsdk_export.errors import CompressionError
from mvsdk_export.networks.svd.unet import FRAME_DOWN, FRAME_UP, SVDUNet, SVDUNetConfig


def halve_frames(
    unet: SVDUNet,
    levels: int = 1,
    *,
    down: str = "mean",
    up: str = "repeat",
    latent_size: tuple[int, int] = LATENT_SIZE,
) -> tuple[SVDUNet, Report]:
    """Halve the number of frames from level to level.

    Args:
        unet: The network; it stays as it is, and shares its weights.
        levels: How often frames are halved: at the hand-over from the first level to the second,
            from the second to the third, ...
        down: How frames are halved: a key of `FRAME_DOWN`.
        up: How they are restored: a key of `FRAME_UP`.
        latent_size: Height and width of latents for which the report counts FLOPs.

    Raises:
        CompressionError: If frames are halved already, cannot be halved so often, or an operator
            is not known.

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
    most = len(config.block_out_channels) - 1
    if not 1 <= levels <= most or config.num_frames < 2**levels:
        raise CompressionError(
            f"cannot halve {config.num_frames} frames {levels} times; allowed: 1 to {most} times, "
            "and at least one frame left"
        )
    for what, name, known in (("down", down, FRAME_DOWN), ("up", up, FRAME_UP)):
        if name not in known:
            raise CompressionError(
                f"unknown operator {name[:64]!a} for frames on the way {what}; "
                f"known: {', '.join(known)}"
            )
    after = replace(config, frame_levels=levels, frame_down=down, frame_up=up)
    return report_step(
        "frames",
        config,
        after,
        f"{config.num_frames} frames become {count_frames(after)} by level",
        exact=False,
        latent_size=latent_size,
    )
