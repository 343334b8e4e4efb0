"""Cross-attention to one token, folded: an exact transform."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="needs the extra export")

from comparing import relative_error  # noqa: E402
from compressing import SIZE, fold, halve, run_unet  # noqa: E402

from mvsdk_export.compress.pruning import prune_temporal  # noqa: E402
from mvsdk_export.families.svd.unet import SVDUNet  # noqa: E402


def test_folding_changes_no_output(unet: SVDUNet) -> None:
    folded, report = fold(unet)
    assert relative_error(run_unet(folded), run_unet(unet)) < 1e-5
    assert report.exact
    assert not [name for name in folded.state_dict() if "norm2" in name and "_res_" not in name]
    assert report.dropped == tuple(
        name for name, _ in unet.named_modules() if name.endswith(".attn2")
    )


def test_folding_holds_for_what_other_steps_leave(unet: SVDUNet) -> None:
    pruned, _ = prune_temporal(halve(unet)[0], 5, latent_size=SIZE)
    folded, _ = fold(pruned)
    assert relative_error(run_unet(folded), run_unet(pruned)) < 1e-5
