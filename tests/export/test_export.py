"""`mvsdk export`: the bundles that it makes, and what it refuses without a trace."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from exporting import SIZE, STEPS, Outcome, Toolchain
from safetensors.torch import load_file, save_file

import mvsdk
from mvsdk._installed import toolchain_install
from mvsdk.bundle import Bundle
from mvsdk.devices import find_chipset
from mvsdk.manifest.memory import read_memory
from mvsdk_export.checkpoints import open_model
from mvsdk_export.families import find_recipe
from mvsdk_export.families.pipeline import Clip
from mvsdk_export.parity.reference import Case, Reference

pytestmark = pytest.mark.torch

PROMPT = "a rocket flying left"
RECIPE = find_recipe("sticker")

Refused = Callable[..., str]


def test_onnx_bundle_opens_with_every_hash_right(onnx_bundle: Path) -> None:
    manifest = Bundle.open(onnx_bundle, verify=True).manifest
    for part in RECIPE.components:
        variants = manifest.components[part.name].variants
        assert [v.id for v in variants] == ["onnx-fp32", "onnx-fp16", "onnx-w8a16"]
        once = manifest.components.get(f"{part.name}_conditioning")
        crossing = [t.name for t in once.outputs] if once else []
        given = [t.name for t in once.inputs] if once else []
        names = [t.name for t in part.inputs if t.name not in given]
        assert [t.name for t in variants[0].inputs] == [*names, *crossing]
        assert [t.dtype for t in variants[0].outputs] == [t.dtype for t in part.outputs]
    assert manifest.source.checkpoint
    assert manifest.costs["transformer"]["flops"] > 0


@pytest.mark.qnn
def test_compiled_bundle_is_one_node_per_component_with_nothing_on_the_cpu(
    snapdragon_bundle: Path,
) -> None:
    manifest = Bundle.open(snapdragon_bundle, verify=True).manifest
    for part in manifest.components.values():
        for variant in part.variants:
            assert variant.delegation is not None
            assert (variant.delegation.delegated, variant.delegation.non_delegated) == (1, ())
            assert {Path(ref.path).suffix for ref in variant.files} == {".onnx", ".bin"}
            assert variant.chip is not None
            assert variant.id == f"snapdragon-{variant.chip.slug}-{variant.precision}"


@pytest.mark.qnn
def test_compiled_bundle_says_the_memory_of_every_variant(snapdragon_bundle: Path) -> None:
    manifest = Bundle.open(snapdragon_bundle).manifest
    memory = read_memory(manifest)
    parts = manifest.components.items()
    assert set(memory) == {(name, item.id) for name, part in parts for item in part.variants}
    for (name, identifier), (graph,) in memory.items():
        variant = manifest.components[name].variant(identifier)
        assert graph.vtcm_bytes == find_chipset("sm8550").vtcm_mib << 20
        assert graph.io_bytes is not None
        assert graph.io_bytes >= sum(
            math.prod(tensor.shape) for tensor in (*variant.inputs, *variant.outputs)
        )
        assert graph.operator_bytes
        assert graph.constant_bytes


def test_onnx_bundle_makes_the_same_clip_twice(onnx_bundle: Path) -> None:
    for precision in ("fp32", "fp16", "w8a16"):
        with mvsdk.load(onnx_bundle, target="onnx", precision=precision) as pipeline:
            check_clip_is_made_twice(pipeline)


@pytest.mark.qnn
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["w8a16", "fp16"])
def test_compiled_bundle_makes_the_same_clip_twice(snapdragon_bundle: Path, precision: str) -> None:
    with mvsdk.load(snapdragon_bundle, chip="sm8550", precision=precision) as pipeline:
        check_clip_is_made_twice(pipeline)


def check_clip_is_made_twice(pipeline: mvsdk.Pipeline) -> None:
    video = pipeline.manifest.program.video
    clips = [pipeline.generate(PROMPT, num_inference_steps=1, seed=3).frames for _ in range(2)]
    assert clips[0].shape == (video.frames, video.height, video.width, 3)
    assert clips[0].tobytes() == clips[1].tobytes()
    other = pipeline.generate(PROMPT, num_inference_steps=1, seed=4).frames
    assert other.tobytes() != clips[0].tobytes()


def test_float32_clip_is_that_of_pytorch_within_one_level(
    onnx_bundle: Path, tiny_model_folder: Path
) -> None:
    folder = open_model(tiny_model_folder, RECIPE)
    manifest = Bundle.open(onnx_bundle).manifest
    video, steps = manifest.program.video, manifest.samplers["main"].default_steps
    clip = Clip(
        num_frames=video.frames,
        height=video.height,
        width=video.width,
        decode_frames=video.frames,
        steps=(steps,),
        default_steps=steps,
    )
    networks = {
        part.name: folder.load_graph(part.name, num_frames=video.frames)
        for part in RECIPE.components
    }
    case = Case(prompt=PROMPT, seed=11, num_inference_steps=steps)
    wanted = Reference.of(folder, clip, networks).run(case)[-1].outputs["frames"]
    with mvsdk.load(onnx_bundle, target="onnx", precision="fp32") as pipeline:
        found = pipeline.generate(PROMPT, seed=11).frames
    assert np.abs(found - wanted).max() <= 1.0
    assert found.std() > 1.0


@pytest.mark.parametrize(
    "bundle", ["onnx_bundle", pytest.param("snapdragon_bundle", marks=pytest.mark.qnn)]
)
def test_floats_cross_quantised_borders_as_scaled_uint16(
    bundle: str, request: pytest.FixtureRequest
) -> None:
    manifest = Bundle.open(request.getfixturevalue(bundle)).manifest
    for part in manifest.components.values():
        floats = {t.name for t in (*part.inputs, *part.outputs) if t.type == "real"}
        variant = next(v for v in part.variants if v.precision == "w8a16")
        for tensor in (*variant.inputs, *variant.outputs):
            if tensor.name in floats:
                assert tensor.dtype == "uint16"
                assert tensor.scale is not None
                assert tensor.scale > 0
                assert tensor.zero_point is not None
            else:
                assert tensor.dtype in ("int32", "uint8")
                assert tensor.scale is None


@pytest.mark.parametrize(
    "bundle", ["onnx_bundle", pytest.param("snapdragon_bundle", marks=pytest.mark.qnn)]
)
def test_no_shipped_file_holds_a_path_of_this_machine(
    bundle: str,
    request: pytest.FixtureRequest,
    tiny_model_folder: Path,
    tmp_path: Path,
) -> None:
    folder = request.getfixturevalue(bundle)
    root = Path(__file__).parents[2]
    places = (root, Path.home(), tmp_path.parents[1], folder.parent, tiny_model_folder, sys.prefix)
    secrets = {str(place).encode() for place in places if len(str(place)) > 4}
    shipped = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(shipped) > 6
    for path in shipped:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret in content], path


@pytest.fixture
def refused(toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path) -> Refused:
    """Return a function that exports, wants one line and no trace, and gives the line."""
    place, cache = tmp_path / "place", tmp_path / "cache"
    place.mkdir()

    def refused(*arguments: str | Path, checkpoint: Path = tiny_model_folder) -> str:
        out = place / "x.mvbundle"
        done = replace(toolchain, cache=cache)(
            "export", *SIZE, *STEPS, "--checkpoint", checkpoint, "--out", out, *arguments
        )
        assert not list(cache.glob("*/*"))
        assert not list(place.iterdir())
        return only_error(done)

    return refused


def only_error(done: Outcome) -> str:
    assert (done.status, done.out) == (2, "")
    lines = done.err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    return lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--target qnm", "unknown target 'qnm'; known: onnx, snapdragon"),
        ("", "the following arguments are required: --target"),
        (
            "--target onnx --model wan",
            "unknown model 'wan'; known: animator, mobilevd, stable_diffusion, sticker",
        ),
        ("--target onnx --precision int4", "unknown precision 'int4'; known: fp32, fp16, w8a16"),
        ("--target snapdragon --precision fp32", "unknown precision 'fp32'; known: w8a16, fp16"),
        ("--target snapdragon --chip sm1", "unknown chip 'sm1'; known: sm8550"),
        ("--target onnx --chip sm8550", "--chip goes with --target snapdragon, not onnx"),
        ("--target onnx --frames 99", "frames is 99, allowed: 8; use --frames 8"),
        ("--target onnx --height 33", "height is 33, allowed: 32 to 128, a multiple of 16"),
        ("--target onnx --width 0", "width is 0"),
        ("--target onnx --steps 0", "steps is 0, allowed: 1 to 1000 each"),
        ("--target onnx --steps=-1", "steps is -1, allowed"),
        ("--target onnx --steps two", "--steps is 'two', expected step counts"),
        ("--target onnx --checkpoint /nowhere", "model folder '/nowhere' does not exist"),
    ],
)
def test_wrong_request_is_one_line_and_no_trace(
    refused: Refused, arguments: str, message: str
) -> None:
    assert refused(*arguments.split()).startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("module", "target", "extras"),
    [("onnxruntime_qnn", "snapdragon", ["snapdragon"]), ("onnxscript", "onnx", [])],
)
def test_missing_extra_is_named_with_its_pip_command(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, module: str, target: str, extras: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    message = refused("--target", target)
    assert message.startswith("error: mvsdk export needs ")
    assert message.endswith(f": {toolchain_install(*extras)}")


def test_existing_output_is_left_as_it_is(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.mvbundle"
    out.mkdir()
    (out / "manifest.json").write_text("mine")
    done = toolchain("export", "--target", "onnx", "--checkpoint", tiny_model_folder, "--out", out)
    assert only_error(done).endswith("exists; add --overwrite or choose another output")
    assert (out / "manifest.json").read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == [out, out / "manifest.json"]


def test_folder_that_is_no_bundle_is_not_overwritten(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    done = toolchain(
        *("export", "--target", "onnx", "--checkpoint", tiny_model_folder),
        *("--out", tmp_path / "photos", "--overwrite"),
    )
    assert "holds no manifest.json, so it is not overwritten" in only_error(done)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"


def test_output_below_a_file_cannot_be_written(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    done = toolchain(
        *("export", "--target", "onnx", "--checkpoint", tiny_model_folder),
        *("--out", tmp_path / "file" / "x.mvbundle"),
    )
    assert only_error(done).startswith("error: cannot write ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_weight_that_is_not_finite_is_named(
    toolchain: Toolchain, model_copy: Path, tmp_path: Path
) -> None:
    path = model_copy / "text_encoder/model.safetensors"
    weights = load_file(path)
    name = min(weights)
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, path)
    out = tmp_path / "bundles" / "x.mvbundle"
    arguments = ("--target", "onnx", "--checkpoint", model_copy, "--out", out)
    message = only_error(toolchain("export", *arguments, *SIZE, *STEPS))
    assert re.match(
        "error: (trace text_encoder( for CPUs)?|calibrate|run the reference) failed: ", message
    )
    assert f"tensor '{name}' holds 1 of " in message
    assert "text_encoder/model.safetensors" in message
    assert not out.parent.exists()


def test_dry_run_says_what_would_be_made_and_writes_nothing(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.mvbundle"
    arguments = ("--target", "snapdragon", "--checkpoint", tiny_model_folder, "--out", out)
    done = toolchain("export", *arguments, "--dry-run")
    assert (done.status, done.err) == (0, "")
    for word in ("8 frames of 64 x 64", "snapdragon-sm8550-w8a16", "nothing was written", str(out)):
        assert word in done.out
    assert not list(tmp_path.iterdir())


def _other_vocabulary(folder: Path, out: Path) -> None:
    path = folder / "tokenizer" / "vocab.json"
    vocabulary = json.loads(path.read_text())
    vocabulary["tokens"].append("surplus")
    path.write_text(json.dumps(vocabulary))


def _other_network(folder: Path, out: Path) -> None:
    path = folder / "transformer" / "config.json"
    config = json.loads(path.read_text())
    config["heads"] = 0
    path.write_text(json.dumps(config))


def _other_weights(folder: Path, out: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path)


def _other_scheduler(folder: Path, out: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    scheduler = json.loads(path.read_text())
    path.write_text(json.dumps({**scheduler, "prediction_type": "epsilon"}))


def _levels_that_fall_together(folder: Path, out: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    scheduler = json.loads(path.read_text())
    path.write_text(json.dumps({**scheduler, "shift": 1e-300}))


def _newer_folder(folder: Path, out: Path) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))


def _output_is_there(folder: Path, out: Path) -> None:
    out.mkdir()


@pytest.mark.parametrize(
    ("spoil_it", "message"),
    [
        (_other_vocabulary, "tokens, tokenizer/vocab.json has"),
        (_other_network, "heads is 0, expected an integer from 1"),
        (_other_weights, "lacks 1 of"),
        (_other_scheduler, "prediction_type"),
        (_levels_that_fall_together, "shift is 1e-300, expected a number above 0.001"),
        (_newer_folder, "format_version 2, this mvsdk reads up to 1; update mvsdk"),
        (_output_is_there, "exists; add --overwrite"),
    ],
)
def test_dry_run_refuses_what_an_export_would(
    toolchain: Toolchain,
    model_copy: Path,
    tmp_path: Path,
    spoil_it: Callable[[Path, Path], None],
    message: str,
) -> None:
    out = tmp_path / "x.mvbundle"
    spoil_it(model_copy, out)
    arguments = ("--target", "onnx", "--checkpoint", model_copy, "--out", out, *SIZE)
    for dry in ((), ("--dry-run",)):
        assert message in only_error(toolchain("export", *arguments, *dry))


def test_dry_run_as_json_lists_every_variant(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path
) -> None:
    done = toolchain(
        *("export", "--target", "snapdragon", "--chip", "all", "--precision", "all", "--json"),
        *("--checkpoint", tiny_model_folder, "--out", tmp_path / "x", "--dry-run", *SIZE),
        *("--steps", "4,2"),
    )
    plan = json.loads(done.out)
    chips = ["sm8550", "sm8650", "sm8750", "sm8850"]
    assert {v["id"] for v in plan["variants"]} == {
        f"snapdragon-{chip}-{precision}" for chip in chips for precision in ("w8a16", "fp16")
    }
    assert (plan["frames"], plan["height"], plan["width"]) == (8, 32, 32)
    assert plan["steps"] == [2, 4]
    assert plan["components"] == [
        "text_encoder",
        "transformer_conditioning",
        "transformer",
        "vae_decoder",
    ]
    assert not list(tmp_path.iterdir())
