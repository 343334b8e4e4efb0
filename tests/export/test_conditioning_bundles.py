"""Models whose conditioning runs once: their programs, and bundles that are made and verified."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from exporting import Toolchain
from lasting_launcher import LastingLauncher
from tiny_mobilevd import write_tiny_animator_folder
from toy_models.folders import write_package, write_toy
from toy_models.recipes import TOYS

import mvsdk
from mvsdk.bundle import Bundle
from mvsdk.errors import BundleError
from mvsdk.manifest import (
    Carried,
    DrawNoise,
    Index,
    Linear,
    Loop,
    Manifest,
    Operation,
    Program,
    Run,
    Sample,
    Take,
    Term,
    Tokenize,
)
from mvsdk_export.checkpoints import ModelFolder, open_model
from mvsdk_export.checkpoints.pipeline import make_pipeline, sizes_of
from mvsdk_export.export import export
from mvsdk_export.families import find_recipe
from mvsdk_export.families.conditioning import (
    CUTS,
    cut_pipeline,
    find_conditioning,
    read_cuts,
    write_cuts,
)
from mvsdk_export.families.cut import Argument, Crossing, Cut
from mvsdk_export.families.pipeline import Clip, Pipeline, check_pipeline
from mvsdk_export.jobs.runner import JobRunner
from mvsdk_export.parity.reference import Case, Reference
from mvsdk_export.planning.conditioning import find_cuts, with_conditioning
from mvsdk_export.planning.costs import measure_recipe
from mvsdk_export.planning.request import ExportRequest, VariantOverride, plan_variants

pytestmark = pytest.mark.torch

PROMPT = "a rocket flying left"
CLIP = Clip(num_frames=8, height=32, width=32, decode_frames=8, steps=(1, 4), default_steps=4)
CUT = Cut(
    component="transformer",
    name="transformer_conditioning",
    arguments=(
        Argument(name="sample", shape=(8, 8, 4, 4), dtype="float32"),
        Argument(name="timestep", shape=(1,), dtype="float32"),
        Argument(name="encoder_hidden_states", shape=(1, 26, 32), dtype="float32"),
    ),
    conditioning_inputs=("encoder_hidden_states",),
    step_inputs=("sample", "timestep"),
    crossings=(
        Crossing(name="keys", module="to_k", call=0, calls=1, shape=(1, 26, 32)),
        Crossing(name="values", module="to_v", call=0, calls=2, shape=(1, 26, 32)),
    ),
)


@pytest.fixture(scope="module")
def sticker(tiny_model_folder: Path) -> ModelFolder:
    """Return a small text-to-video model of several steps."""
    return open_model(tiny_model_folder, find_recipe("sticker"))


def sample_of(operations: Sequence[Operation], **changes: Any) -> Sample:
    made = Sample(
        sampler="main",
        start="start",
        stream=0,
        index="step",
        model_input="model_input",
        timestep="timestep",
        operations=tuple(operations),
        model_output="model_output",
        output="latents",
    )
    return replace(made, **changes)


def run_of(context: str = "context", output: str = "model_output") -> Run:
    inputs = {"sample": "model_input", "timestep": "timestep", "encoder_hidden_states": context}
    return Run(component="transformer", inputs=inputs, outputs={"model_output": output})


def program_of(pipeline: Pipeline, operations: Sequence[Operation]) -> Program:
    return replace(pipeline.programs[0], operations=tuple(operations))


def test_what_samplers_feed_changes_and_the_rest_is_conditioning(sticker: ModelFolder) -> None:
    pipeline = make_pipeline(sticker, CLIP)
    found = find_conditioning(pipeline.programs, pipeline.samplers, "transformer")
    assert found == {"encoder_hidden_states"}


@pytest.mark.parametrize("component", ["text_encoder", "vae_decoder"])
def test_what_runs_outside_of_samplers_has_no_conditioning(
    sticker: ModelFolder, component: str
) -> None:
    pipeline = make_pipeline(sticker, CLIP)
    assert find_conditioning(pipeline.programs, pipeline.samplers, component) == set()


def test_one_step_has_nothing_to_save(sticker: ModelFolder, tmp_path: Path) -> None:
    one = replace(CLIP, steps=(1,), default_steps=1)
    pipeline = make_pipeline(sticker, one)
    assert find_conditioning(pipeline.programs, pipeline.samplers, "transformer") == set()
    assert find_cuts(sticker, one, min_share=0.0) == ()
    animator = write_tiny_animator_folder(tmp_path / "animator")
    clip = Clip(num_frames=4, height=64, width=64, decode_frames=4, steps=(1,), default_steps=1)
    assert find_cuts(animator, clip, min_share=0.0) == ()


def test_what_operations_of_a_step_make_or_carry_is_no_conditioning(sticker: ModelFolder) -> None:
    pipeline = make_pipeline(sticker, CLIP)
    made = Linear(terms=(Term(array="context"),), output="other")
    carried = {"kept": Carried(start="context", next="other")}
    loop = Loop(count=2, index="part", operations=(made, run_of("other")), collected={})
    for operations, changes in (
        ([made, run_of("other")], {}),
        ([made, run_of("kept")], {"carried": carried}),
        ([loop], {}),
        ([run_of("context"), made, run_of("other", "second")], {}),
    ):
        programs = [program_of(pipeline, [sample_of(operations, **changes)])]
        assert find_conditioning(programs, pipeline.samplers, "transformer") == set()
    once = program_of(pipeline, [sample_of([run_of("context")])])
    found = find_conditioning([once], pipeline.samplers, "transformer")
    assert found == {"encoder_hidden_states"}


def test_the_conditioning_runs_before_the_sampler_and_programs_stay_valid(
    sticker: ModelFolder,
) -> None:
    cuts = find_cuts(sticker, CLIP)
    folder = sticker.with_cuts(cuts)
    pipeline = make_pipeline(folder, CLIP)
    check_pipeline(folder.recipe, pipeline, sizes_of(folder, CLIP))
    (program,) = pipeline.programs
    assert program.components() == (
        "text_encoder",
        "transformer_conditioning",
        "transformer",
        "vae_decoder",
    )
    kinds = [type(item) for item in program.operations]
    assert kinds == [Tokenize, Run, DrawNoise, Run, Sample, Run]
    before, sample = program.operations[3:5]
    assert isinstance(before, Run)
    assert isinstance(sample, Sample)
    (step,) = sample.operations
    assert isinstance(step, Run)
    assert set(before.outputs.values()) == set(step.inputs.values()) - {"model_input", "timestep"}
    assert before.inputs == {"encoder_hidden_states": "encoder_hidden_states"}


def test_each_conditioning_of_a_step_runs_once_and_equal_ones_share(sticker: ModelFolder) -> None:
    pipeline = make_pipeline(sticker, CLIP)
    part = Take(
        array="once_more",
        axis=0,
        start=Index(start=0, steps={"window": 1}),
        size=1,
        output="context",
    )
    inner = Loop(count=2, index="half", operations=(run_of("nothing", "half_output"),))
    sample = sample_of([run_of("context"), run_of("context", "again"), inner])
    windows = Loop(count=2, index="window", operations=(part, sample))
    program = cut_pipeline(
        replace(pipeline, programs=(program_of(pipeline, [windows]),)), CUT
    ).programs[0]
    (loop,) = program.operations
    assert isinstance(loop, Loop)
    take, first, second, changed = loop.operations
    assert take == part
    assert isinstance(first, Run)
    assert isinstance(second, Run)
    assert isinstance(changed, Sample)
    # A name of the program begins with once_, so that those of arrays begin otherwise.
    assert first == Run(
        component="transformer_conditioning",
        inputs={"encoder_hidden_states": "context"},
        outputs={"keys": "x_once_1", "values": "x_once_2"},
    )
    assert second.inputs == {"encoder_hidden_states": "nothing"}
    assert second.outputs == {"keys": "x_once_3", "values": "x_once_4"}
    runs = [x for x in replace(program, operations=(changed,)).walk() if isinstance(x, Run)]
    given = [(x.inputs["keys"], x.inputs["values"]) for x in runs]
    assert given == [("x_once_1", "x_once_2")] * 2 + [("x_once_3", "x_once_4")]
    assert all(set(x.inputs) == {"sample", "timestep", "keys", "values"} for x in runs)


def test_a_folder_is_cut_and_made_whole_again(sticker: ModelFolder) -> None:
    cuts = find_cuts(sticker, CLIP)
    folder = sticker.with_cuts(cuts)
    assert folder.with_cuts(cuts).recipe == folder.recipe
    assert folder.with_cuts(()).recipe == sticker.recipe
    assert find_cuts(folder, CLIP) == cuts
    assert folder.files_with_hashes() == sticker.files_with_hashes()


def test_costs_of_both_parts_are_those_of_the_whole(sticker: ModelFolder) -> None:
    folder = sticker.with_cuts(find_cuts(sticker, CLIP))
    whole, parts = (
        {
            item.component: item
            for item in measure_recipe(
                model.recipe, model.configs(), num_frames=8, height=32, width=32
            )
        }
        for model in (sticker, folder)
    )
    once, steps = parts["transformer_conditioning"], parts["transformer"]
    assert once.flops + steps.flops == whole["transformer"].flops
    assert once.parameters + steps.parameters == whole["transformer"].parameters
    assert (once.evaluations(4), steps.evaluations(4)) == (1, 4)


def test_a_manifest_keeps_where_graphs_are_cut() -> None:
    written = json.loads(json.dumps(write_cuts([CUT])))
    assert read_cuts({CUTS: written}) == (CUT,)
    assert read_cuts({}) == ()
    written[0]["crossings"][0]["call"] = 1
    with pytest.raises(BundleError, match=r"x-conditioning\[0\].crossings\[0\].call"):
        read_cuts({CUTS: written})
    with pytest.raises(BundleError, match="x-conditioning"):
        read_cuts({CUTS: {"component": "unet"}})


def _request(folder: ModelFolder, out: Path, **changes: Any) -> ExportRequest:
    made = ExportRequest(
        folder=folder,
        variants=plan_variants("onnx", ["fp32"]),
        num_frames=8,
        height=32,
        width=32,
        steps=(1, 4),
        out=out,
    )
    return replace(made, **changes)


def test_a_component_that_runs_once_is_made_in_what_its_denoiser_is(
    sticker: ModelFolder, tmp_path: Path
) -> None:
    override = VariantOverride(spec="onnx", precision="fp16")
    asked = _request(sticker, tmp_path / "b", overrides={"transformer": override})
    request = with_conditioning(asked)
    assert request.overrides["transformer_conditioning"] == override
    (item,) = request.sets
    assert {name: plan.precision for name, plan in item.plans.items()} == {
        "text_encoder": "fp32",
        "transformer_conditioning": "fp16",
        "transformer": "fp16",
        "vae_decoder": "fp32",
    }
    assert with_conditioning(replace(asked, runs_conditioning_once=False)).overrides == {
        "transformer": override
    }


@pytest.fixture(scope="module")
def bundles(
    sticker: ModelFolder, toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Return verified bundles of one model: with the component that runs once, and without."""
    folder = tmp_path_factory.mktemp("conditioning")
    found = {"cut": folder / "cut.mvbundle", "whole": folder / "whole.mvbundle"}
    with JobRunner(toolchain.cache / "export", launcher=LastingLauncher()) as runner:
        for name, out in found.items():
            request = _request(sticker, out, runs_conditioning_once=name == "cut")
            export(request, runner, lambda _: None)
    return found


def test_a_bundle_has_the_component_verified_and_no_weight_twice(bundles: dict[str, Path]) -> None:
    cut, whole = (Bundle.open(bundles[name], verify=True).manifest for name in ("cut", "whole"))
    part = cut.components["transformer_conditioning"]
    assert part.role == "conditioning"
    assert [tensor.name for tensor in part.inputs] == ["encoder_hidden_states"]
    taken = {tensor.name for tensor in cut.components["transformer"].inputs}
    assert taken == {"sample", "timestep", *(tensor.name for tensor in part.outputs)}
    records = {item.component: item for item in cut.verification if item.step is None}
    assert records["transformer_conditioning"].passed
    assert records["transformer_conditioning"].floor_db == 80.0
    assert "transformer_conditioning" not in whole.components
    assert CUTS in cut.extensions
    assert CUTS not in whole.extensions

    def weights(manifest: Manifest) -> float:
        names = [name for name in manifest.components if name.startswith("transformer")]
        return sum(manifest.costs[name]["weight_fp32_bytes"] for name in names)

    def shipped(manifest: Manifest) -> int:
        parts = [part for name, part in manifest.components.items() if name in names]
        return sum(file.bytes for part in parts for v in part.variants for file in v.files)

    names = ("transformer", "transformer_conditioning")
    assert weights(cut) == weights(whole)
    assert shipped(cut) <= shipped(whole) + 32768  # of two graphs in place of one


def test_both_bundles_make_the_same_clip(bundles: dict[str, Path]) -> None:
    frames: dict[str, list[np.ndarray]] = {}
    for name, path in bundles.items():
        with mvsdk.load(path) as pipeline:
            frames[name] = [
                pipeline.generate(PROMPT, seed=seed, num_inference_steps=steps).frames
                for seed, steps in ((3, 4), (4, 1), (5, 4))
            ]
    for cut, whole in zip(frames["cut"], frames["whole"], strict=True):
        assert np.abs(cut.astype(int) - whole.astype(int)).max() <= 1
    assert (frames["cut"][0] != frames["cut"][2]).any()


@pytest.mark.parametrize("name", ["cut", "whole"])
def test_bundles_with_and_without_the_component_verify(
    name: str, bundles: dict[str, Path], toolchain: Toolchain, tiny_model_folder: Path
) -> None:
    outcome = toolchain("verify", bundles[name], "--checkpoint", tiny_model_folder)
    assert outcome.status == 0, outcome.err
    manifest = Bundle.open(bundles[name]).manifest
    assert {item.component for item in manifest.verification} >= set(manifest.components)
    assert all(item.passed for item in manifest.verification)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder for models of another package, which is installed meanwhile."""
    root = tmp_path_factory.mktemp("toys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.path", [str(write_package(root / "packages")), *sys.path])
        yield root


@pytest.mark.parametrize("name", sorted(TOYS))
def test_cut_models_of_every_kind_of_program_make_the_same_clip(name: str, toys: Path) -> None:
    folder = open_model(write_toy(toys / name, TOYS[name]))
    recipe = folder.recipe
    clip = Clip(
        num_frames=recipe.num_frames,
        height=recipe.height,
        width=recipe.width,
        decode_frames=recipe.num_frames,
        steps=recipe.steps,
        default_steps=recipe.default_steps,
    )
    cut = folder.with_cuts(find_cuts(folder, clip, min_share=0.0))
    check_pipeline(cut.recipe, make_pipeline(cut, clip), sizes_of(cut, clip))
    picture = np.random.default_rng(0).integers(0, 256, (recipe.height, recipe.width, 3))
    case = Case(
        prompt=recipe.verification_prompts[0],
        seed=5,
        num_inference_steps=recipe.default_steps,
        picture=None if recipe.task == "text_to_video" else picture.astype(np.uint8),
    )
    clips = [
        Reference.of(
            model,
            clip,
            {part.name: model.load_graph(part.name) for part in model.recipe.components},
        ).run(case)[-1]
        for model in (folder, cut)
    ]
    frames = [clip.outputs["frames"] for clip in clips]
    np.testing.assert_allclose(frames[1], frames[0], rtol=0, atol=0.01)
