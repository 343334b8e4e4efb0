"""What is measured of the image-to-video model, and what its networks are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

import torch
from tiny_animator_training import FAMILY
from tiny_training import SIZE, coarse_features, tiny_sprites
from torch import Tensor, nn

from mvsdk_export.checkpoints import default_model_folder, open_model
from mvsdk_export.families.animator.recipe import ANIMATOR
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.training.animator import losses, networks
from mvsdk_export.training.animator.bank import ClipBank
from mvsdk_export.training.animator.clips import (
    ORDINARY_BUCKET,
    TRAVEL,
    AnimatedClips,
    Start,
    is_never_mirrored,
)
from mvsdk_export.training.animator.measures import drawn_ways, measure_animation, measure_ways
from mvsdk_export.training.animator.model_card import AnimatorFacts, write_animator_card
from mvsdk_export.training.animator.packaging import read_quality
from mvsdk_export.training.animator.quality import AnimatorMeasuring, AnimatorQuality
from mvsdk_export.training.animator.recipe import ANIMATOR_TRAINING
from mvsdk_export.training.data.captions import held_out_background
from mvsdk_export.training.data.clips import ClipOptions
from mvsdk_export.training.data.sprites import Sprites, load_subjects
from mvsdk_export.training.measures import Frames, direction_of
from mvsdk_export.training.methods.autoencoder import to_network
from mvsdk_export.training.options import TrainingError
from mvsdk_export.training.packaging import count_parameters

pytestmark = pytest.mark.torch


def clips_of(*subjects: str, frames: int = 8, size: int = 64) -> AnimatedClips:
    options = ClipOptions(frames=frames, size=size, scale=0.5)
    return AnimatedClips(sprites=tiny_sprites().select(subjects), options=options)


def start(**changes: object) -> Start:
    return replace(
        Start(subject=0, background="white", colour=(250, 250, 250)),
        **changes,  # pyright: ignore
    )


def test_drawn_clips_are_right_and_those_that_go_the_other_way_are_wrong() -> None:
    clips = clips_of("arrow")
    starts = [start(mirrored=mirrored, bucket=ORDINARY_BUCKET) for mirrored in (False, True)]
    drawn = clips.render(starts)
    right = measure_animation(drawn, starts, clips)
    assert (right.facing_accuracy, right.move_accuracy) == (1.0, 1.0)
    assert right.psnr_db_median == 100.0
    wrong = measure_animation(clips.render(starts, ["right", "left"]), starts, clips)
    assert (wrong.facing_accuracy, wrong.move_accuracy) == (0.0, 0.0)
    mirrored = measure_animation(drawn[:, :, :, ::-1], starts, clips)
    assert mirrored.facing_accuracy == 0.0
    still = measure_animation(np.repeat(drawn[:, :1], 8, axis=1), starts, clips)
    assert still.facing_accuracy == 0.0


def test_way_that_counts_is_a_quarter_of_the_ordinary_one() -> None:
    clips = clips_of("arrow")
    for share, direction in ((0.1, "still"), (0.5, "left")):
        (frames,) = clips.render([start(bucket=round(share * ORDINARY_BUCKET))])
        assert direction_of(frames, TRAVEL / 4) == direction
        assert direction_of(frames) == "still", "its own threshold is that of longer ways"


def test_nothing_is_said_of_where_subjects_look_if_none_looks_anywhere() -> None:
    clips = clips_of("ball")
    quality = measure_animation(clips.render([start()]), [start()], clips)
    assert quality.facing_accuracy is None
    assert quality.to_json()["facing_accuracy"] is None
    assert measure_ways(_nothing, [start()], clips, [0]) == {}


def _nothing(pictures: Frames, buckets: Sequence[int], seeds: Sequence[int]) -> Frames:
    raise AssertionError("there is nothing to make")


class Grey(nn.Module):
    """An autoencoder that keeps the mean of every patch of 8 pixels."""

    def encode(self, pixels: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(pixels, 8)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


def test_ways_of_drawn_clips_are_those_of_their_reconstructions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mvsdk_export.training.animator import measures

    clips = clips_of("arrow")
    monkeypatch.setattr(measures, "reconstruct", lambda _, frames: np.zeros_like(frames))
    assert set(drawn_ways([start()], clips, Grey()).values()) == {0.0}  # pyright: ignore


def blank_clips(count: int | None = None) -> AnimatedClips:
    subjects = load_subjects()[:count]
    rgba = np.full((len(subjects), 1, 8, 8, 4), 255, np.uint8)
    sprites = Sprites(subjects=subjects, rgba=rgba)
    return AnimatedClips(sprites=sprites, options=ClipOptions(frames=4, size=16, scale=0.5))


def test_mirrorings_and_backgrounds_are_all_of_them_such_as_training_never_shows() -> None:
    clips, rng = blank_clips(), np.random.default_rng(0)
    for _ in range(100):
        x = clips.sample_start(rng, "mirrorings")
        subject = clips.sprites.subjects[x.subject]
        assert x.mirrored
        assert is_never_mirrored(subject)
        assert x.background != held_out_background(subject)
        x = clips.sample_start(rng, "backgrounds")
        assert x.background == held_out_background(clips.sprites.subjects[x.subject])
        assert not {x.subject} & clips.held_out


def test_every_kind_of_start_has_its_own_draw_and_kinds_without_subjects_are_left_out() -> None:
    measuring = AnimatorMeasuring(blank_clips(60), pictures=8, features=coarse_features)
    assert measuring.unseen == ("backgrounds", "subjects")
    kinds = ("training", "backgrounds", "mirrorings", "subjects")
    assert len({tuple(x.chances for x in measuring.starts(kind)) for kind in kinds}) == 4
    few = AnimatorMeasuring(blank_clips(2), pictures=8, features=coarse_features)
    assert few.unseen == ("backgrounds",)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"rows": None},
        {"rows": [{}]},
        {"rows": ["row"]},
        {"rows": [{"source": 1}], "more": 2},
        {"pictures": 1, "kvd_references": [], "kept_blocks": [], "rows": []},
        {"pictures": 1, "kvd_references": {"drawn": 0.123456}, "kept_blocks": [], "rows": []},
    ],
)
def test_other_figures_are_refused_in_one_line(document: object) -> None:
    with pytest.raises(TrainingError, match="no figures") as caught:
        AnimatorQuality.from_json(document)  # pyright: ignore
    assert "\n" not in str(caught.value)


class Ear(nn.Module):
    """An autoencoder that remembers what it was given."""

    def encode(self, pixels: Tensor) -> Tensor:
        self.heard = pixels
        return nn.functional.avg_pool2d(pixels, 8)


def test_denoiser_is_told_how_much_noise_is_on_its_picture() -> None:
    pictures = np.random.default_rng(0).integers(256, size=(3, SIZE, SIZE, 3), dtype=np.uint8)
    starts = np.zeros((3, 10), np.float32)
    starts[:, 3] = 0, 127, 255
    bank = ClipBank(latents=np.zeros((3, 4, 8, 4, 4), np.float16), pictures=pictures, starts=starts)
    ear = Ear()
    batch = networks.draw_clip_batch(
        bank,
        ear,  # pyright: ignore
        16,
        np.random.default_rng(1),
        torch.Generator().manual_seed(2),
    )
    told = batch.added_time_ids[:, 2]
    applied = (ear.heard - batch.pictures).flatten(1).std(dim=1)
    torch.testing.assert_close(applied, told, rtol=0.1, atol=1e-6)
    assert 0 < told.min() < told.max() <= networks.NOISE_AUGMENTATION
    assert set(batch.added_time_ids[:, 0].tolist()) == {7.0}
    chosen = np.random.default_rng(1).integers(3, size=16)
    assert batch.added_time_ids[:, 1].tolist() == starts[chosen, 3].tolist()
    torch.testing.assert_close(batch.pictures, to_network(pictures[chosen]))


def test_recipe_says_what_is_ordinary() -> None:
    ordinary = torch.tensor([networks.ORDINARY_AUGMENTATION])
    told = networks.time_ids(np.array([ORDINARY_BUCKET], np.float32), ordinary)
    wanted = torch.tensor([ANIMATOR.conditioning["added_time_ids"]])
    torch.testing.assert_close(told, wanted, rtol=0, atol=0)


def test_folded_frame_rate_changes_nothing_at_that_rate_and_is_heard_at_no_other() -> None:
    torch.manual_seed(0)
    unet = SVDUNet(FAMILY).eval()

    @torch.no_grad()
    def run(rate: float, bucket: float = 127.0) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        sample = torch.randn(3, 8, 8, 8, generator=generator)
        context = torch.randn(1, 1, 12, generator=generator)
        return unet(sample, torch.ones(1), context, torch.tensor([[rate, bucket, 0.02]]))

    before, other = run(7.0), run(29.0)
    assert (before - other).abs().max() > 1e-4, "the rate is heard"
    assert networks.fold_frame_rate_(unet) is unet
    torch.testing.assert_close(run(7.0), before, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run(29.0), run(7.0), rtol=0, atol=0)
    assert (run(7.0, bucket=255.0) - before).abs().max() > 1e-5, "the bucket still is"
    networks.fold_frame_rate_(unet)
    torch.testing.assert_close(run(7.0), before, rtol=1e-5, atol=1e-6)


def test_card_that_is_shipped_is_written_from_the_figures_beside_it() -> None:
    folder = open_model(default_model_folder("animator"))
    components = {part: folder.load(part) for part in ("image_encoder", "unet", "vae_decoder")}
    facts = AnimatorFacts(
        recipe=ANIMATOR_TRAINING,
        unet=folder.load_config("unet"),
        parameters=count_parameters(components),
        quality=read_quality(folder),
    )
    assert (folder.path / "README.md").read_text(encoding="utf-8") == write_animator_card(facts)


def test_three_clips_in_four_of_the_base_are_hidden() -> None:
    sigmas = losses.base_sigmas(4000, torch.Generator().manual_seed(0))
    assert (sigmas > 20).float().mean().item() == pytest.approx(0.75 * 0.98 + 0.25 * 0.08, abs=0.03)
    assert (sigmas < 1).float().mean().item() == pytest.approx(0.25 * 0.33, abs=0.02)
