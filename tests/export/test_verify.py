"""Parity: the measures, the floors, and `mvsdk verify`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from exporting import Outcome, Toolchain
from tiny_models import write_tiny_model_folder

from mvsdk.bundle import Bundle
from mvsdk.devices import find_chipset
from mvsdk.manifest import END_TO_END, Run, Sample, VariantSet, Verification
from mvsdk_export.checkpoints import open_model
from mvsdk_export.checkpoints.subject import ClipSize
from mvsdk_export.errors import ExportError, ParityError
from mvsdk_export.families import find_recipe
from mvsdk_export.families.conditioning import cut_recipe, read_cuts
from mvsdk_export.jobs.job import Inputs
from mvsdk_export.parity.jobs import RecordActivations
from mvsdk_export.parity.recording import files_of
from mvsdk_export.parity.verify import (
    check_parity,
    compare,
    open_set,
    parse_case,
    psnr_db,
    sqnr_db,
    verify_set,
)
from mvsdk_export.quantize.activations import Evaluation, load_calls, save_calls, unique

pytestmark = pytest.mark.torch

CONDITIONING = "transformer_conditioning"
RECIPE = find_recipe("sticker")


def a_record(value: float | None, **changes: object) -> Verification:
    base = Verification(
        component="transformer",
        variant="onnx-w8a16",
        case="a cat, seed 7, 4 steps",
        step=2,
        metric="sqnr",
        value_db=value,
        floor_db=30.0,
        passed=value is None or value >= 30.0,
        measured_on="CPU",
        reference="PyTorch float32",
    )
    return replace(base, **changes)  # pyright: ignore[reportArgumentType]


def test_noise_of_one_percent_is_40_db_whatever_the_scale() -> None:
    reference = np.array([3.0, -4.0, 12.0], np.float32)
    for scale in (1e-3, 1.0, 1e4):
        wanted = reference * np.float32(scale)
        assert sqnr_db(wanted * np.float32(1.01), wanted) == pytest.approx(40.0, abs=1e-2)


def test_signal_to_noise_follows_the_formula() -> None:
    output, reference = np.array([1.0, 2.0]), np.array([0.0, 3.0])
    assert sqnr_db(output, reference) == pytest.approx(10 * np.log10(9 / 2))


def test_error_of_one_level_everywhere_is_48_13_db() -> None:
    frames = np.full((2, 4, 4, 3), 17, np.uint8)
    assert psnr_db(frames + np.uint8(1), frames) == pytest.approx(20 * np.log10(255))


def test_differences_of_bytes_do_not_wrap_around() -> None:
    dark, bright = np.zeros(4, np.uint8), np.full(4, 255, np.uint8)
    assert psnr_db(dark, bright) == pytest.approx(0.0)


def test_identical_arrays_have_no_finite_value() -> None:
    values = np.arange(5, dtype=np.float32)
    assert sqnr_db(values, values) is None
    assert psnr_db(values, values) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_output_that_is_not_finite_is_a_miss(value: float) -> None:
    found = sqnr_db(np.array([value, 1.0]), np.ones(2))
    assert found is not None
    assert found < -1000


def test_error_against_a_silent_reference_is_a_miss() -> None:
    found = sqnr_db(np.full(3, 1e-3), np.zeros(3))
    assert found is not None
    assert found < -1000


def test_bytes_are_held_to_unrounded_frames() -> None:
    reference = np.full((1, 2, 2, 3), 127.5, np.float32)
    assert compare(np.full((1, 2, 2, 3), 128, np.uint8), reference) == (
        "psnr",
        pytest.approx(20 * np.log10(255 / 0.5)),
    )
    assert compare(reference, reference) == ("sqnr", None)


def test_case_is_read_back_from_its_label_with_commas_in_the_prompt() -> None:
    assert parse_case("a cat, seed 3, on blue, seed 7, 4 steps") == (
        "a cat, seed 3, on blue",
        7,
        4,
    )


def test_records_above_their_floors_pass() -> None:
    check_parity([a_record(31.0), a_record(None)])


def test_worst_miss_is_named_with_what_to_try() -> None:
    records = [a_record(29.9), a_record(21.26, component="text_encoder", floor_db=35.0, step=None)]
    with pytest.raises(ParityError) as caught:
        check_parity([a_record(40.0), *records])
    assert str(caught.value) == (
        "parity failed for text_encoder of onnx-w8a16: sqnr 21.3 dB < 35.0 dB on "
        "'a cat, seed 7, 4 steps' (and 1 more); try --precision fp16, or more calibration prompts "
        "or pictures"
    )


def test_miss_of_a_float_variant_gives_other_advice_and_the_step() -> None:
    with pytest.raises(ParityError, match=r"for transformer at step 2 of onnx-fp16: .* checkpoint"):
        check_parity([a_record(12.0, variant="onnx-fp16")])


def test_calls_survive_the_disk(tmp_path: Path) -> None:
    calls = [
        Evaluation(
            component="transformer",
            case="a/b, seed 1, 2 steps",
            step=step,
            inputs={"sample": np.full((2, 3), step, np.float32), "timestep": np.ones(1)},
            outputs={"model_output": np.array([step], np.float32), "more": np.zeros(2)},
        )
        for step in range(12)
    ]
    decoded = replace(calls[0], component="vae_decoder", step=None, inputs={"latents": np.ones(2)})
    save_calls([*calls, decoded], tmp_path / "calls.npz")
    read = load_calls(tmp_path / "calls.npz", "transformer")
    assert [(c.case, c.step, c.outputs["model_output"][0]) for c in read] == [
        ("a/b, seed 1, 2 steps", step, step) for step in range(12)
    ]
    assert list(read[5].outputs) == ["model_output", "more"]
    assert read[5].inputs["sample"].tolist() == [[5.0] * 3] * 2
    assert load_calls(tmp_path / "calls.npz")[-1].step is None


def test_calls_with_inputs_seen_before_are_dropped() -> None:
    call = Evaluation(
        component="transformer", case="x", step=0, inputs={"sample": np.ones(2)}, outputs={}
    )
    other = replace(call, inputs={"sample": np.zeros(2)})
    assert unique([call, replace(call, case="y"), other]) == [call, other]


def test_every_component_and_step_and_clip_has_a_record(onnx_bundle: Path) -> None:
    check_records(Bundle.open(onnx_bundle))


@pytest.mark.qnn
def test_every_compiled_component_and_step_and_clip_has_a_record(snapdragon_bundle: Path) -> None:
    check_records(Bundle.open(snapdragon_bundle))


def check_records(bundle: Bundle) -> None:
    manifest = bundle.manifest
    steps = set(range(max(manifest.samplers["main"].schedules)))
    for variant in manifest.components["transformer"].variants:
        records = [r for r in manifest.verification if r.variant == variant.id]
        found = {(r.component, r.step) for r in records if r.metric != "frame_difference_psnr"}
        once = ("text_encoder", CONDITIONING, "vae_decoder", END_TO_END)
        whole = {(name, None) for name in once}
        assert found == whole | {("transformer", step) for step in steps}
        assert any(r.metric == "frame_difference_psnr" for r in records)
        floors = dict(RECIPE.floors_db[variant.precision])
        floors[CONDITIONING] = floors["transformer"]  # of which it is a part
        for r in records:
            margin = 3.0 if r.metric == "frame_difference_psnr" else 0.0
            assert r.floor_db == floors[r.component] - margin
            assert r.passed
            assert r.value_db is None or r.value_db >= r.floor_db
            assert ("HTP emulator" in r.measured_on) == (variant.target == "snapdragon")


def test_floor_that_is_missed_makes_a_failed_record(
    onnx_bundle: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(onnx_bundle)
    video, default = bundle.manifest.program.video, bundle.manifest.samplers["main"].default_steps
    (prompt, *_) = RECIPE.verification_prompts
    cuts = read_cuts(bundle.manifest.extensions)
    job = RecordActivations(
        name="run the reference",
        model=files_of(open_model(tiny_model_folder)),
        size=ClipSize(
            num_frames=video.frames,
            height=video.height,
            width=video.width,
            decode_frames=video.frames,
        ),
        numbers=({},),
        guidance=None,
        steps=(default,),
        default_steps=default,
        prompts=(prompt,),
        first_seed=7,
        pictures=None,
        cuts=cuts,
    )
    job.run(Inputs([]), tmp_path)
    calls = load_calls(tmp_path / "calls.npz")
    floors = {"fp32": {**RECIPE.floors_db["fp32"], "transformer": 300.0}}
    recipe = replace(RECIPE, floors_db=floors)
    for cut in cuts:
        recipe = cut_recipe(recipe, cut)
    recipe.floors_db["fp32"][CONDITIONING] = 80.0  # that of the denoiser is out of reach
    records = verify_set(onnx_bundle, "onnx-fp32", calls, recipe, numbers={prompt: {}})
    missed = {(r.component, r.step) for r in records if not r.passed}
    assert missed == {("transformer", step) for step in range(default)}
    with pytest.raises(ParityError, match=r"for transformer at step \d of onnx-fp32: .* < 300"):
        check_parity(records)


def refused(outcome: Outcome) -> str:
    """Check that a command ended with one line, and return it."""
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    return outcome.err


def test_verify_writes_its_results_into_the_manifest(
    toolchain: Toolchain, onnx_bundle: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(shutil.copytree(onnx_bundle, tmp_path / "copy.mvbundle"))
    exported = bundle.manifest.verification
    bundle.replace_manifest(replace(bundle.manifest, verification=()))
    outcome = toolchain("verify", bundle.path, "--checkpoint", tiny_model_folder)
    assert outcome.status == 0, outcome.err
    assert "verified" in outcome.out
    written = Bundle.open(bundle.path, verify=True).manifest.verification
    assert [replace(r, value_db=0.0) for r in written] == [
        replace(r, value_db=0.0) for r in exported
    ]
    assert not list(bundle.path.glob(".*"))


def test_verify_refuses_weights_that_the_bundle_was_not_made_of(
    toolchain: Toolchain, onnx_bundle: Path, tmp_path: Path
) -> None:
    other = write_tiny_model_folder(tmp_path / "other", seed=1).path
    message = refused(toolchain("verify", onnx_bundle, "--checkpoint", other))
    assert "was not made of text_encoder/model.safetensors in " in message
    assert "--checkpoint" in message


def test_verify_takes_no_pictures_for_a_model_of_prompts(
    toolchain: Toolchain, onnx_bundle: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    message = refused(
        toolchain("verify", onnx_bundle, "--checkpoint", tiny_model_folder, "--pictures", tmp_path)
    )
    assert "--pictures goes with image-to-video models, sticker takes prompts" in message


@pytest.fixture
def copy(onnx_bundle: Path, tmp_path: Path) -> Bundle:
    """Return a copy of `onnx_bundle` that a test may change."""
    return Bundle.open(shutil.copytree(onnx_bundle, tmp_path / "copy.mvbundle"))


def test_a_set_that_nothing_runs_is_refused_before_any_work(
    copy: Bundle, toolchain: Toolchain, tiny_model_folder: Path
) -> None:
    manifest = copy.manifest
    part = manifest.components["transformer"]
    compiled = replace(
        part.variants[0],
        id="executorch-qnn-sm8650-fp32",
        target="executorch",
        format="executorch",
        delegate="qnn",
        chip=find_chipset("sm8650").chip,
    )
    (first, *others) = manifest.sets
    chosen = VariantSet(id="qnn", variants={**first.variants, "transformer": compiled.id})
    part = replace(part, variants=(*part.variants, compiled))
    manifest = replace(
        manifest,
        components={**manifest.components, "transformer": part},
        sets=(first, *others, chosen),
    )
    copy.replace_manifest(manifest)
    reason = (
        "transformer cannot be verified in executorch-qnn-sm8650-fp32: the delegate qnn runs on a "
        "phone with a Snapdragon chip"
    )
    with pytest.raises(ExportError, match=reason):
        open_set(copy.path, "qnn")
    message = refused(toolchain("verify", copy.path, "--checkpoint", tiny_model_folder))
    assert message.startswith(f"error: {reason}")


def test_a_set_need_not_have_the_first_denoiser(copy: Bundle) -> None:
    manifest = copy.manifest
    program = manifest.program
    others = tuple(
        replace(
            x,
            operations=tuple(
                replace(y, component="another") if isinstance(y, Run) else y for y in x.operations
            ),
        )
        if isinstance(x, Sample)
        else x
        for x in program.operations
    )
    (first, *_) = manifest.sets
    variants = dict(first.variants)
    manifest = replace(
        manifest,
        programs=(program, replace(program, name="other", operations=others)),
        components={**manifest.components, "another": manifest.components["transformer"]},
        sets=(*manifest.sets, VariantSet(id="2", variants={**variants, "another": "onnx-fp32"})),
    )
    copy.replace_manifest(manifest)
    with open_set(copy.path, first.id) as pipeline:
        assert pipeline.manifest.names_with_role("denoiser")[0] == "another"
        assert list(pipeline.selection.variants) == list(first.variants)
        assert str(pipeline.selection.key) == "onnx/fp32"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_verify_refuses_a_damaged_bundle(
    toolchain: Toolchain,
    onnx_bundle: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
) -> None:
    bundle = Path(shutil.copytree(onnx_bundle, tmp_path / "copy.mvbundle"))
    damage(bundle / Bundle.open(bundle).manifest.components["transformer"].variants[0].model)
    message = refused(toolchain("verify", bundle, "--checkpoint", tiny_model_folder))
    assert "components/transformer/" in message


def test_verify_refuses_a_bundle_whose_packs_lie_elsewhere(
    copy: Bundle, toolchain: Toolchain, tiny_model_folder: Path
) -> None:
    part = copy.manifest.components["transformer"]
    first, *others = (replace(item, pack="elsewhere") for item in part.variants)
    part = replace(part, variants=(first, *others))
    parts = {**copy.manifest.components, "transformer": part}
    copy.replace_manifest(replace(copy.manifest, components=parts, packs=("elsewhere",)))
    for item in part.variants:
        for ref in item.files:
            (copy.path / ref.path).unlink()
    message = refused(toolchain("verify", copy.path, "--checkpoint", tiny_model_folder))
    assert "of a pack, and every variant is verified; put the files of its packs into" in message
