"""Fewer frames at the inner levels of the denoiser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")

import torch  # noqa: E402
from comparing import relative_error  # noqa: E402
from compressing import FRAMES, SIZE, SMALL, halve, make_inputs, run_unet  # noqa: E402

from mvsdk_export.compress.frames import count_frames, halve_frames, report_frames  # noqa: E402
from mvsdk_export.compress.pruning import prune_temporal  # noqa: E402
from mvsdk_export.errors import CompressionError  # noqa: E402
from mvsdk_export.families.svd.frames import FRAME_DOWN, FRAME_UP  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNet  # noqa: E402


@pytest.mark.parametrize("down", FRAME_DOWN)
@pytest.mark.parametrize("up", FRAME_UP)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_inner_levels_have_half_of_the_frames(
    unet: SVDUNet, levels: int, down: str, up: str
) -> None:
    halved, report = halve_frames(unet, levels, down=down, up=up, latent_size=SIZE)
    assert run_unet(halved).shape == run_unet(unet).shape
    with torch.no_grad():
        frames = [count for _, count in halved.features(*make_inputs())]
    assert frames == list(count_frames(halved.config)) == [4] * levels + [2] * (4 - levels)
    assert report.what == f"levels have {', '.join(map(str, frames))} frames"
    assert not report.exact
    config = halved.config
    assert (config.frame_levels, config.frame_down, config.frame_up) == (levels, down, up)


def test_an_odd_number_of_frames_is_halved_upwards() -> None:
    report = report_frames(replace(SMALL, num_frames=7), 2)
    assert report.what == "levels have 7, 7, 4, 4 frames"


def test_a_still_clip_survives_halving_where_nothing_mixes_frames(unet: SVDUNet) -> None:
    image, _ = prune_temporal(unet, 0, latent_size=SIZE)
    sample, *others = make_inputs()
    still = sample[::FRAMES].repeat_interleave(FRAMES, dim=0)
    halved, _ = halve(image)
    inputs = (still, *others)
    assert relative_error(run_unet(halved, inputs), run_unet(image, inputs)) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 0}, "0 levels cannot keep all frames"),
        ({"levels": 4}, "4 levels cannot keep all frames .* allowed: 1 to 3"),
        ({"down": "median"}, "unknown operator 'median' .* on the way down; known: mean, first"),
        ({"up": "cubic"}, "unknown operator 'cubic' .* on the way up; known: repeat, linear"),
    ],
)
def test_halving_refuses_what_it_does_not_know(
    unet: SVDUNet, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompressionError, match=message):
        halve_frames(unet, **arguments)
