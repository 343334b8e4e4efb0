"""Clips that begin with a picture, on a fake backend with an exact answer and on ONNX graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_animators import (
    CLIP,
    HEIGHT,
    LATENTS,
    WIDE,
    build_animator,
    edm_steps,
    encode,
    fake_animator,
    goal,
    with_timestep,
)
from tiny_bundles import decoding

import mvsdk
from mvsdk import Fake, InputError, Step
from mvsdk.bundle import Bundle
from mvsdk.image import load_image
from mvsdk.noise import initial_latents, picture_noise

Feeds = Mapping[str, np.ndarray]


def _picture() -> np.ndarray:
    """Return a picture of the clip's size: light at the left, dark at the right."""
    ramp = np.linspace(220, 40, WIDE).astype(np.uint8)
    return np.broadcast_to(ramp[None, :, None], (HEIGHT, WIDE, 3)).copy()


def _load(bundle: Bundle, backend: Fake, **options: Any) -> mvsdk.Pipeline:
    return mvsdk.load(bundle.path, backend=backend, **options)


def _spy(seen: dict[str, list[dict[str, np.ndarray]]]) -> Fake:
    """Return the fake model, which notes what every graph received."""

    def watched(
        name: str, function: Callable[[Feeds], dict[str, np.ndarray]]
    ) -> Callable[[Feeds], dict[str, np.ndarray]]:
        def call(feeds: Feeds) -> dict[str, np.ndarray]:
            seen.setdefault(name, []).append(dict(feeds))
            return function(feeds)

        return call

    return Fake({name: watched(name, function) for name, function in fake_animator().items()})


def test_a_clip_begins_with_its_picture_and_goes_on_by_the_motion(
    animator_bundle: Bundle, animator: Fake
) -> None:
    flat = np.full((HEIGHT, WIDE, 3), 100, np.uint8)
    video = _load(animator_bundle, animator).animate(flat, motion=100)
    assert (video.frames.dtype, video.frames.shape) == (np.uint8, CLIP)
    rise = [int(frame[0, 0, 0]) - 100 for frame in video.frames]
    assert rise == [0, 13, 26, 38]  # 12.75 levels a frame
    still = _load(animator_bundle, animator).animate(flat, motion=0)
    assert (still.frames == 100).all()


def test_one_step_lands_on_the_answer_of_the_denoiser(
    animator_bundle: Bundle, animator: Fake
) -> None:
    (step,) = _load(animator_bundle, animator).stream_animation(_picture(), seed=3)
    clean = goal(encode(_picture()[None], picture_noise(3, HEIGHT, WIDE), 0.0), 127)
    assert (step.index, step.count, step.sigma) == (1, 1, 0.0)
    np.testing.assert_allclose(step.latents, clean, atol=1e-6)


def test_a_clip_that_is_decoded_in_parts_is_the_same(
    animator_bundle: Bundle, animator: Fake, tmp_path: Path
) -> None:
    parts = build_animator(tmp_path / "parts.mvbundle", tensors=decoding(2))
    clips = [_load(bundle, animator).animate(_picture()) for bundle in (animator_bundle, parts)]
    assert clips[0].frames.tobytes() == clips[1].frames.tobytes()


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_edm_steps_reach_the_goal_too(tmp_path: Path, animator: Fake, steps: int) -> None:
    bundle = build_animator(
        tmp_path / "b.mvbundle", shapes=with_timestep(), sampler=edm_steps((1, 2, 4))
    )
    seen = list(_load(bundle, animator).stream_animation(_picture(), num_inference_steps=steps))
    clean = goal(encode(_picture()[None], picture_noise(0, HEIGHT, WIDE), 0.0), 127)
    assert len(seen) == steps
    np.testing.assert_allclose(seen[-1].latents, clean, atol=1e-3)


def test_every_graph_receives_what_the_format_says(animator_bundle: Bundle) -> None:
    seen: dict[str, list[dict[str, np.ndarray]]] = {}
    pipeline = _load(animator_bundle, _spy(seen))
    pipeline.animate(_picture(), seed=11, motion=30, fps=12, noise_aug_strength=0.25)
    (image_encoder,), (vae_encoder,), (unet,) = (
        seen[name] for name in ("image_encoder", "vae_encoder", "unet")
    )
    for feeds in (image_encoder, vae_encoder):
        assert feeds["image"].dtype == np.uint8
        assert np.array_equal(feeds["image"], _picture()[None])
    noise = initial_latents(11, (1, 3, HEIGHT, WIDE), stream=65536)
    assert np.array_equal(vae_encoder["noise"], noise)
    assert vae_encoder["noise_aug_strength"].tolist() == [0.25]
    assert unet["added_time_ids"].tolist() == [[11, 30, 0.25]]
    assert np.array_equal(unet["sample"], initial_latents(11, LATENTS))
    assert np.array_equal(unet["image_latents"], encode(_picture()[None], noise, 0.25))
    assert set(unet) == {"sample", "encoder_hidden_states", "image_latents", "added_time_ids"}


def test_the_first_noise_of_an_edm_model_is_scaled_as_the_manifest_says(tmp_path: Path) -> None:
    seen: dict[str, list[dict[str, np.ndarray]]] = {}
    bundle = build_animator(
        tmp_path / "b.mvbundle", shapes=with_timestep(), sampler=edm_steps((1,))
    )
    _load(bundle, _spy(seen)).animate(_picture(), seed=5)
    (unet,) = seen["unet"]
    scaled = initial_latents(5, LATENTS) * (700 / np.sqrt(700**2 + 1))
    np.testing.assert_allclose(unet["sample"], scaled, rtol=1e-6)
    assert unet["timestep"] == pytest.approx(0.25 * np.log(700))


def test_a_clip_says_what_it_was_made_under(animator_bundle: Bundle, animator: Fake) -> None:
    pipeline = _load(animator_bundle, animator)
    video = pipeline.animate(_picture(), seed=2**64 - 1)
    defaults = {"fps": 8, "motion": 127, "noise_aug_strength": 0}
    assert {name: item.default for name, item in pipeline.number_inputs.items()} == defaults
    assert (video.numbers, video.seed, video.prompt) == (defaults, 2**64 - 1, None)
    changed = pipeline.animate(_picture(), motion=np.int64(5), noise_aug_strength=0.5).numbers
    assert changed == {"fps": 8, "motion": 5, "noise_aug_strength": 0.5}


def test_a_clip_plays_as_the_bundle_says_unless_it_is_made_for_another_rate(
    tmp_path: Path, animator: Fake
) -> None:
    program = build_animator(tmp_path / "a.mvbundle").manifest.program
    faster = replace(program, video=replace(program.video, fps=24.0))
    bundle = build_animator(tmp_path / "b.mvbundle", programs=(faster,))
    pipeline = _load(bundle, animator)
    assert pipeline.animate(_picture()).fps == 24
    assert pipeline.animate(_picture(), fps=12.5).fps == 12.5


def test_files_and_images_of_any_size_are_fitted(
    animator_bundle: Bundle, tmp_path: Path, animator: Fake
) -> None:
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8))
    large.save(tmp_path / "photo.png")
    pipeline = _load(animator_bundle, animator)
    fitted = load_image(large, HEIGHT, WIDE)
    expected = pipeline.animate(fitted).frames.tobytes()
    for image in (large, tmp_path / "photo.png", str(tmp_path / "photo.png"), np.array(large)):
        assert pipeline.animate(image).frames.tobytes() == expected


def test_equal_seeds_give_equal_bytes_and_others_do_not(animator_onnx_bundle: Bundle) -> None:
    with mvsdk.load(animator_onnx_bundle.path) as pipeline:
        first = pipeline.animate(_picture(), seed=7).frames.tobytes()
        assert pipeline.animate(_picture(), seed=7).frames.tobytes() == first
        others: list[dict[str, Any]] = [
            {"seed": 8},
            {"seed": 7, "motion": 255},
            {"seed": 7, "fps": 30},
            {"seed": 7, "noise_aug_strength": 0.5},
        ]
        for options in others:
            assert pipeline.animate(_picture(), **options).frames.tobytes() != first
        assert pipeline.animate(_picture()[:, ::-1], seed=7).frames.tobytes() != first
    with mvsdk.load(animator_onnx_bundle.path, memory="low") as pipeline:
        assert pipeline.animate(_picture(), seed=7).frames.tobytes() == first


def test_graphs_load_in_the_order_of_their_use(animator_bundle: Bundle, animator: Fake) -> None:
    pipeline = _load(animator_bundle, animator)
    steps = pipeline.stream_animation(_picture())
    assert animator.events == []
    list(steps)
    pipeline.animate(_picture())
    order = ["image_encoder", "vae_encoder", "unet", "vae_decoder"]
    assert animator.events == [("load", name) for name in order]


def test_low_memory_lets_each_component_go_before_the_next_loads(
    animator_bundle: Bundle, animator: Fake
) -> None:
    _load(animator_bundle, animator, memory="low").animate(_picture())
    assert animator.events == [
        (event, component)
        for component in ("image_encoder", "vae_encoder", "unet", "vae_decoder")
        for event in ("load", "close")
    ]


def test_on_step_sees_every_step_and_can_stop(tmp_path: Path, animator: Fake) -> None:
    bundle = build_animator(tmp_path / "b.mvbundle", shapes=with_timestep(), sampler=edm_steps())
    seen: list[Step] = []
    _load(bundle, animator).animate(_picture(), on_step=seen.append)
    assert [(step.index, step.video is None) for step in seen] == [
        (1, True),
        (2, True),
        (3, True),
        (4, False),
    ]

    class Enough(Exception):
        pass

    def stop(step: Step) -> None:
        raise Enough

    other = Fake(fake_animator())
    with pytest.raises(Enough):
        _load(bundle, other, memory="low").animate(_picture(), on_step=stop)
    assert other.open_components == []


def test_time_in_both_encoders_is_told(animator_onnx_bundle: Bundle) -> None:
    timings = mvsdk.load(animator_onnx_bundle.path).animate(_picture()).timings
    assert timings is not None
    assert timings.encode_s > 0
    assert len(timings.denoise_s) == 1
    parts = timings.load_s + timings.sessions_s + timings.host_s
    assert parts == pytest.approx(timings.total_s)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "nowhere.png"}, "picture 'nowhere.png' cannot be read: no such file"),
        ({"image": np.zeros((4, 4))}, r"the picture is float64 \(4, 4\); allowed: RGB as uint8"),
        ({"motion": -1}, "motion is -1; allowed: whole numbers from 0 to 255"),
        ({"motion": 256}, "motion is 256"),
        ({"motion": 1.5}, "motion is 1.5; allowed: whole numbers from 0 to 255; pass an int"),
        ({"fps": 0.5}, "fps is 0.5; allowed: 1 to 60"),
        ({"fps": 61}, "fps is 61"),
        ({"fps": float("nan")}, "fps is nan; allowed: 1 to 60"),
        ({"fps": "fast"}, "fps is 'fast'; allowed: 1 to 60; pass a number"),
        ({"noise_aug_strength": -0.1}, "noise_aug_strength is -0.1; allowed: 0 to 1"),
        ({"noise_aug_strength": 1.1}, "noise_aug_strength is 1.1"),
        ({"noise_aug_strength": None, "seed": -1}, "seed is -1; allowed: whole numbers, 0 to"),
        ({"num_inference_steps": 4}, "num_inference_steps is 4; this bundle has: 1;"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_anything_is_loaded(
    animator_bundle: Bundle, animator: Fake, options: dict[str, Any], message: str
) -> None:
    pipeline = _load(animator_bundle, animator)
    with pytest.raises(InputError, match=message):
        pipeline.stream_animation(**{"image": _picture(), **options})
    assert animator.events == []


def test_a_bundle_for_pictures_says_so_when_it_gets_a_prompt(
    animator_bundle: Bundle, animator: Fake
) -> None:
    pipeline = _load(animator_bundle, animator)
    for ask in (pipeline.generate, pipeline.stream):
        with pytest.raises(
            InputError, match=r"for image_to_video, not text_to_video; use .*mvsdk a"
        ):
            ask("a rocket flying left")


def test_a_graph_may_take_its_numbers_in_another_shape(tmp_path: Path, animator: Fake) -> None:
    bundle = build_animator(
        tmp_path / "b.mvbundle",
        shapes=with_timestep(),
        sampler=edm_steps((1,)),
        tensors=lambda _, spec: (
            spec if spec.name != "noise_aug_strength" else replace(spec, shape=(1, 1, 1, 1))
        ),
    )
    functions = fake_animator()
    received: list[tuple[int, ...]] = []

    def vae_encoder(feeds: Feeds) -> dict[str, np.ndarray]:
        received.append(feeds["noise_aug_strength"].shape)
        return {"image_latents": np.zeros((1, *LATENTS[1:]), np.float32)}

    _load(bundle, Fake({**functions, "vae_encoder": vae_encoder})).animate(_picture())
    assert received == [(1, 1, 1, 1)]
