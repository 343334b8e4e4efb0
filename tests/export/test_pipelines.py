"""What makes a clip, before there is any graph: programs, samplers and roles of a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_mobilevd import write_tiny_animator_folder  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mvsdk.manifest import (  # noqa: E402
    END_TO_END,
    DrawNoise,
    Linear,
    Loop,
    NumberInput,
    Numbers,
    Program,
    PromptInput,
    Run,
    Term,
    Tokenize,
    VideoSpec,
)
from mvsdk_export.checkpoints import ModelFolder, open_model  # noqa: E402
from mvsdk_export.checkpoints.pipeline import make_pipeline, sizes_of  # noqa: E402
from mvsdk_export.families import ComponentRecipe, find_recipe  # noqa: E402
from mvsdk_export.families.pipeline import (  # noqa: E402
    Clip,
    Pipeline,
    outline,
)
from mvsdk_export.families.recipe import TensorRecipe  # noqa: E402
from mvsdk_export.parity.reference import Case, Reference  # noqa: E402

pytestmark = pytest.mark.torch


def clip_of(**changes: Any) -> Clip:
    made = Clip(num_frames=4, height=64, width=64, decode_frames=4, steps=(1,), default_steps=1)
    return replace(made, **changes)


@pytest.fixture(scope="module")
def animator(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """Return a small image-to-video model of one step."""
    return write_tiny_animator_folder(tmp_path_factory.mktemp("model") / "tiny")


def test_a_prompt_becomes_tokens_and_the_recipe_says_of_how_many(tiny_model_folder: Path) -> None:
    folder = open_model(tiny_model_folder, find_recipe("sticker"))
    clip = clip_of(num_frames=8, decode_frames=8, height=32, width=32)
    pipeline = make_pipeline(folder, clip)
    (program,) = pipeline.programs
    assert program.task == "text_to_video"
    assert [type(item) for item in program.inputs.values()] == [PromptInput]
    (tokens,) = (x for x in program.walk() if isinstance(x, Tokenize))
    assert pipeline.tokenizers[tokens.tokenizer].max_length == sizes_of(folder, clip)["L"]
    assert set(program.components()) == {part.name for part in folder.recipe.components}


def test_numbers_of_the_conditioning_are_what_a_caller_may_choose(animator: ModelFolder) -> None:
    (program,) = make_pipeline(animator, clip_of()).programs
    fps, motion, noise = animator.recipe.conditioning["added_time_ids"]
    numbers = {n: x.default for n, x in program.inputs.items() if isinstance(x, NumberInput)}
    assert numbers == {"fps": fps + 1, "motion": motion, "noise_aug_strength": noise}


def test_guidance_is_recorded_with_the_sampler(animator: ModelFolder) -> None:
    plain, guided = (
        make_pipeline(animator, clip_of(guidance=value)).samplers["main"].guidance_scale
        for value in (None, (1.0, 3.0))
    )
    assert (plain, guided) == (1.0, 3.0)


@pytest.mark.parametrize(("decode_frames", "count"), [(4, None), (2, 2), (1, 4)])
def test_a_decoder_of_fewer_frames_runs_in_a_loop(
    animator: ModelFolder, decode_frames: int, count: int | None
) -> None:
    clip = clip_of(decode_frames=decode_frames)
    pipeline = make_pipeline(animator, clip)
    loops = [x.count for x in pipeline.programs[0].walk() if isinstance(x, Loop)]
    assert loops == ([] if count is None else [count])
    manifest = outline(animator.recipe, pipeline, sizes_of(animator, clip))
    (latents,) = manifest.components["vae_decoder"].inputs
    assert latents.shape[0] == decode_frames
    assert {name: part.role for name, part in manifest.components.items()} == {
        "image_encoder": "image_encoder",
        "vae_encoder": "vae_encoder",
        "unet": "denoiser",
        "vae_decoder": "vae_decoder",
    }


# --- models of another kind -----------------------------------------------------------------------

SIZES = {"F": 2, "H": 4}


class Halves(nn.Module):
    """Gives two tensors."""

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return half of it, and the other half's bytes."""
        return noise * 0.5, torch.sigmoid(noise)


class Joined(nn.Module):
    """Takes both."""

    def forward(self, half: Tensor, frames: Tensor) -> Tensor:
        """Return frames again."""
        return frames + 0.0 * half


def _component(name: str, role: Any, inputs: str, outputs: str) -> ComponentRecipe:
    def tensors(text: str) -> tuple[TensorRecipe, ...]:
        return tuple(
            TensorRecipe(
                name=word,
                shape=("F", "H", "H", 3),
                dtype="uint8" if word == "frames" else "float32",
            )
            for word in text.split()
        )

    return ComponentRecipe(
        name=name,
        role=role,
        network="",
        config="",
        folder=name,
        weights="",
        inputs=tensors(inputs),
        outputs=tensors(outputs),
    )


def two_outputs() -> Pipeline:
    """Return what makes a clip with a graph of two outputs, and a table; no sampler."""
    program = Program(
        name="default",
        task="text_to_video",
        video=VideoSpec(frames=2, height=4, width=4, fps=8.0),
        inputs={"motion": NumberInput(minimum=0.0, maximum=2.0, default=1.0, whole=False)},
        operations=(
            DrawNoise(stream=0, shape=(2, 4, 4, 3), output="start"),
            Numbers(values=(1.0,), output="one"),
            Linear(
                terms=(Term(array="start", scale="motion"), Term(array="bias", scale="one")),
                offset=0.0,
                output="moved",
            ),
            Run(
                component="early",
                inputs={"noise": "moved"},
                outputs={"half": "half", "frames": "early_frames"},
            ),
            Run(
                component="late",
                inputs={"half": "half", "frames": "early_frames"},
                outputs={"frames": "clip"},
            ),
        ),
        output="clip",
    )
    return Pipeline(
        programs=(program,),
        samplers={},
        tables={"bias": np.zeros((2, 4, 4, 3), np.float32)},
    )


def two_graphs(early: Halves) -> Reference:
    recipe = replace(
        find_recipe("sticker"),
        components=(
            _component("early", "denoiser", "noise", "half frames"),
            _component("late", "vae_decoder", "half frames", "frames"),
        ),
    )
    return Reference(recipe, two_outputs(), SIZES, {"early": early, "late": Joined()})


def test_the_reference_runs_graphs_of_several_outputs_without_a_sampler() -> None:
    reference = two_graphs(Halves())
    early, late, whole = reference.run(
        Case(prompt="a", seed=3, num_inference_steps=1, numbers={"motion": 0.5})
    )
    assert [call.component for call in (early, late, whole)] == ["early", "late", END_TO_END]
    assert [call.step for call in (early, late, whole)] == [None] * 3
    noise = early.inputs["noise"]
    assert 0.4 < noise.std() < 0.6
    assert np.allclose(early.outputs["half"], noise * np.float32(0.5))
    wanted = 255 / (1 + np.exp(-noise))
    assert np.allclose(early.outputs["frames"], wanted, atol=1e-3)
    assert late.inputs["frames"].dtype == np.uint8
    assert (late.inputs["frames"] == np.rint(wanted)).all()
    assert np.allclose(whole.outputs["frames"], np.rint(wanted), atol=1e-3)
    assert not np.array_equal(
        reference.run(Case(prompt="a", seed=4, num_inference_steps=1))[0].inputs["noise"], noise
    )


def test_a_network_runs_once_for_what_clips_of_one_seed_share() -> None:
    early = Halves()
    seen: list[Tensor] = []
    early.register_forward_hook(lambda _module, _inputs, outputs: seen.append(outputs[0]))
    reference = two_graphs(early)
    first, again = (
        reference.run(Case(prompt="a", seed=3, num_inference_steps=steps))[0] for steps in (1, 2)
    )
    assert len(seen) == 1
    assert np.array_equal(first.outputs["half"], again.outputs["half"])
    assert not first.outputs["half"].flags.writeable  # both have it
    moved = {"motion": 0.5}
    other = reference.run(Case(prompt="a", seed=3, num_inference_steps=2, numbers=moved))[0]
    assert len(seen) == 2
    assert not np.array_equal(other.outputs["half"], first.outputs["half"])
    reference.run(Case(prompt="b", seed=3, num_inference_steps=1))
    assert len(seen) == 3  # of another prompt nothing is kept
