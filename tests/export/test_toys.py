"""Models of another package, of every kind of program, from a model folder to a clip."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch")

from core_ai import MARKS as CORE_AI
from executorch_programs import MARKS as EXECUTORCH
from exporting import Toolchain, make_toolchain
from onnx import helper
from part_models import make_model, run_model
from toy_models.folders import write_package, write_toy
from toy_models.recipes import STATES, TOYS

import mvsdk
from mvsdk.bundle import Bundle
from mvsdk.errors import MvsdkError
from mvsdk.manifest import END_TO_END, Carried, Loop, Manifest, Sample, Take
from mvsdk_export.families import GROUP, RECIPES, find_recipe, recipe_names
from mvsdk_export.graphs.onnx import quantize_signature
from mvsdk_export.parity.pictures import Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Frames = NDArray[np.uint8]

pytestmark = pytest.mark.torch
PROMPT = "a green ball"


def paint_plainly(
    _painter: object, prompts: Sequence[str], height: int, width: int
) -> list[Picture]:
    """Paint pictures that are smooth in places and not in others, fast."""
    rows, columns = np.mgrid[0:height, 0:width]
    return [
        np.stack([rows * 7, columns * (5 + seed), (rows // 4 + columns // 4 + seed) % 2 * 160], -1)
        .clip(0, 255)
        .astype(np.uint8)
        for seed in range(len(prompts))
    ]


def find_packages_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let Python, here and in processes of stages, find the packages in a folder."""
    patch.setattr("sys.path", [str(folder), *sys.path])


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Return what writes the model folder of a toy, whose package is installed meanwhile."""
    root = tmp_path_factory.mktemp("toys")
    with pytest.MonkeyPatch.context() as patch:
        find_packages_in(write_package(root / "packages"), patch)

        def write(name: str) -> Path:
            path = root / name
            return path if path.exists() else write_toy(path, TOYS[name])

        yield write


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Toolchain:
    """Return the command line with a cache that the toys share."""
    return make_toolchain(tmp_path_factory.mktemp("toys-toolchain"))


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paint pictures in no time; the painter has tests of its own."""
    monkeypatch.setattr("mvsdk_export.parity.pictures.synthesize_images", paint_plainly)


def export(chain: Toolchain, folder: Path, out: Path, *arguments: str) -> Manifest:
    """Export a toy; return what is in the bundle."""
    done = chain("export", "--checkpoint", folder, "--out", out, "--keep-intermediates", *arguments)
    assert done.status == 0, done.err
    return Bundle.open(out, verify=True).manifest


def make_clip(chain: Toolchain, *arguments: str | Path, out: Path) -> Frames:
    """Make a clip by a verb; return its frames."""
    done = chain(*arguments, "-o", out, "--overwrite")
    assert done.status == 0, done.err
    return np.load(out)


def check_verified(manifest: Manifest) -> None:
    """Check that every set and every component was held to the reference."""
    assert all(record.passed for record in manifest.verification)
    measured = {(record.component, record.variant) for record in manifest.verification}
    wanted = {(END_TO_END, item.id) for item in manifest.sets}
    wanted |= {pair for item in manifest.sets for pair in item.variants.items()}
    assert wanted == measured


def parts_of(manifest: Manifest) -> dict[str, tuple[str, int]]:
    """Return the role and the number of outputs of every component."""
    return {name: (x.role, len(x.outputs)) for name, x in manifest.components.items()}


def kinds_of(manifest: Manifest) -> list[str]:
    """Return the kinds of all operations, those inside of others after these."""
    return [operation.op for operation in manifest.program.walk()]


def noisy_clip(path: Path, frames: int, side: int) -> Path:
    """Write a clip."""
    pictures = paint_plainly(None, [""] * frames, side, side)
    mvsdk.Video(frames=np.stack(pictures), fps=8.0, seed=0).save(path, scale=1)
    return path


EXPORT = ("--target", "onnx", "--precision", "fp32,w8a16")


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_base_and_an_upscaler_become_one_bundle(
    chain: Toolchain, toys: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "toy.mvbundle"
    manifest = export(chain, toys("two-stages"), out, *EXPORT)
    check_verified(manifest)
    assert parts_of(manifest) == {
        "text_encoder": ("text_encoder", 1),
        "base": ("denoiser", 1),
        "second": ("upscaler", 1),
        "vae_decoder": ("vae_decoder", 1),
    }
    assert kinds_of(manifest) == [
        *("tokenize", "run", "noise", "sample", "run", "resample", "noise", "linear"),
        *("sample", "run", "run"),
    ]
    assert [x.adjustable for x in manifest.samplers.values()] == [True, False]
    generate = ("generate", PROMPT, "--bundle", out, "--seed", "3", "--precision", "fp32")
    one = make_clip(chain, *generate, "--steps", "1", out=tmp_path / "1.npy")
    two = make_clip(chain, *generate, out=tmp_path / "2.npy")
    again = make_clip(chain, *generate, out=tmp_path / "3.npy")
    assert two.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(two, again)
    assert (one != two).any()
    with mvsdk.load(out, precision="fp32") as pipeline:
        steps = [(x.index, x.count) for x in pipeline.stream(PROMPT, num_inference_steps=1)]
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_key_frames_and_windows_between_them_become_one_bundle(
    chain: Toolchain, toys: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "toy.mvbundle"
    manifest = export(chain, toys("windows"), out, *EXPORT, "--decode-frames", "3")
    check_verified(manifest)
    assert parts_of(manifest)["between"] == ("interpolator", 1)
    assert manifest.tables["positions"].shape == (5,)
    loops = [x for x in manifest.program.operations if isinstance(x, Loop)]
    assert [loop.count for loop in loops] == [2, 3]
    assert loops[0].collected["between_latents"].blend == "linear"
    frames = make_clip(chain, "generate", PROMPT, "--bundle", out, out=tmp_path / "1.npy")
    assert frames.shape == (9, 16, 16, 3)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_decoder_that_remembers_becomes_a_bundle(
    chain: Toolchain, toys: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "toy.mvbundle"
    options = ("--component", "vae_decoder=onnx/fp16")
    manifest = export(chain, toys("states"), out, *EXPORT, *options)
    check_verified(manifest)
    assert parts_of(manifest)["vae_decoder"] == ("vae_decoder", 2)
    assert [dict(item.variants) for item in manifest.sets] == [
        {"text_encoder": x, "denoiser": x, "vae_decoder": "onnx-fp16"}
        for x in ("onnx-fp32", "onnx-w8a16")
    ]
    loop, take = manifest.program.operations[-2:]
    assert isinstance(loop, Loop)
    assert loop.carried == {"last_state": Carried(start="no_state", next="next_state")}
    assert isinstance(take, Take)
    assert (take.start.start, take.size) == (1, 7)
    frames = make_clip(chain, "generate", PROMPT, "--bundle", out, out=tmp_path / "1.npy")
    assert frames.shape == (7, 16, 16, 3)
    again = chain("verify", out, "--checkpoint", toys("states"))
    assert again.status == 0, again.err


@pytest.mark.slow
@pytest.mark.usefixtures("in_process", "painted")
def test_an_editor_with_keys_and_values_becomes_a_bundle(
    chain: Toolchain, toys: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "toy.mvbundle"
    manifest = export(chain, toys("key-values"), out, *EXPORT)
    check_verified(manifest)
    assert parts_of(manifest) == {
        "text_encoder": ("text_encoder", 1),
        "vae_encoder": ("vae_encoder", 1),
        "anchor": ("denoiser", 3 + 8),
        "frames": ("denoiser", 3),
        "vae_decoder": ("vae_decoder", 1),
    }
    (sample,) = (x for x in manifest.program.operations if isinstance(x, Sample))
    assert manifest.samplers[sample.sampler].kind == "euler_ancestral"
    assert [x.op for x in sample.operations] == ["take", "run", "linear", "loop", "concat"]
    clip = noisy_clip(tmp_path / "clip.webp", 5, 16)
    edit = ("edit", clip, PROMPT, "--bundle", out, "--precision", "fp32")
    usual = make_clip(chain, *edit, out=tmp_path / "1.npy")
    chosen = make_clip(chain, *edit, "--set", "guidance_scale=1", out=tmp_path / "2.npy")
    said = make_clip(chain, *edit, "--set", "guidance_scale=5", out=tmp_path / "3.npy")
    assert usual.shape == (5, 16, 16, 3)
    np.testing.assert_array_equal(usual, said)
    assert (usual != chosen).any()


@pytest.mark.slow
@pytest.mark.usefixtures("in_process", "painted")
def test_a_graph_without_a_sampler_enlarges_clips(
    chain: Toolchain, toys: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "toy.mvbundle"
    manifest = export(chain, toys("enlarge"), out, *EXPORT, "--decode-frames", "2")
    check_verified(manifest)
    assert parts_of(manifest) == {"upscaler": ("upscaler", 1)}
    assert not manifest.samplers
    clip = noisy_clip(tmp_path / "clip.webp", 4, 16)
    frames = make_clip(chain, "upscale", clip, "--bundle", out, out=tmp_path / "1.npy")
    assert frames.shape == (4, 32, 32, 3)
    refused = chain("upscale", clip, "--bundle", out, "--steps", "2")
    assert refused.status == 2
    assert "num_inference_steps is 2" in refused.err


@pytest.mark.slow
def test_processes_of_stages_find_the_recipes_of_other_packages(
    toys: Callable[[str], Path], tmp_path: Path
) -> None:
    """Stages run in processes of their own here, and none is shared with other tests."""
    own, out = make_toolchain(tmp_path), tmp_path / "toy.mvbundle"
    target = ("--target", "onnx", "--precision", "fp32", "--no-verify")
    assert export(own, toys("states"), out, *target).source.recipe == "states"


@pytest.mark.slow
@pytest.mark.qnn
@pytest.mark.usefixtures("in_process", "painted")
@pytest.mark.parametrize(
    ("name", "overrides", "delegated"),
    [
        ("states", ("text_encoder=onnx/fp32", "vae_decoder=snapdragon/fp16"), 2),
        ("key-values", (), 5),
    ],
)
def test_the_emulator_runs_toys(
    chain: Toolchain,
    toys: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    overrides: tuple[str, ...],
    delegated: int,
) -> None:
    pytest.importorskip("onnxruntime_qnn")
    out = tmp_path / "toy.mvbundle"
    target = ("--target", "snapdragon", "--chip", "sm8650", "--precision", "w8a16")
    options = [word for item in overrides for word in ("--component", item)]
    manifest = export(chain, toys(name), out, *target, *options)
    check_verified(manifest)
    (chosen,) = manifest.sets
    variants = manifest.variants_of(chosen).values()
    assert sum(variant.chip is not None for variant in variants) == delegated
    with mvsdk.load(out) as pipeline:
        given: dict[str, Any] = {"prompt": PROMPT}
        if name == "key-values":
            given["clip"] = np.stack(paint_plainly(None, [""] * 5, 16, 16))
        video = pipeline.run(given)
    assert video.frames.shape[0] == TOYS[name].num_frames


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    "choice",
    [
        pytest.param("iphone --precision fp16", marks=pytest.mark.apple),
        pytest.param(
            "iphone --format coreai --precision fp16", marks=(*CORE_AI, pytest.mark.exhaustive)
        ),
        pytest.param("executorch --precision fp32", marks=(*EXECUTORCH, pytest.mark.exhaustive)),
    ],
)
def test_phones_take_a_decoder_that_remembers(
    chain: Toolchain, toys: Callable[[str], Path], tmp_path: Path, choice: str
) -> None:
    out = tmp_path / "toy.mvbundle"
    manifest = export(chain, toys("states"), out, "--target", *choice.split())
    check_verified(manifest)
    assert parts_of(manifest)["vae_decoder"] == ("vae_decoder", 2)
    with mvsdk.load(out) as pipeline:
        video = pipeline.generate(PROMPT)
    assert video.frames.shape == (7, 16, 16, 3)


def test_names_of_recipes_are_listed_without_importing_them(
    toys: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(RECIPES) < set(recipe_names())
    assert set(TOYS) < set(recipe_names())
    assert find_recipe("states") is STATES


def offer(folder: Path, patch: pytest.MonkeyPatch, *lines: str) -> None:
    """Install a package that offers recipes."""
    info = folder / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")
    find_packages_in(folder, patch)


def test_a_package_replaces_no_recipe_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, monkeypatch, "sticker = toy_models.recipes:STATES")
    assert find_recipe("sticker") is RECIPES["sticker"]
    assert recipe_names().count("sticker") == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mine = no_such_module:RECIPE", "does not load from no_such_module:RECIPE"),
        ("mine = toy_models.recipes:NONE", "has no attribute 'NONE'"),
        ("mine = toy_models.recipes:TOYS", "is a dict, expected a Recipe called 'mine'"),
        (
            "mine = toy_models.recipes:STATES",
            "is the recipe 'states', expected a Recipe called 'mine'",
        ),
    ],
)
def test_a_broken_package_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    offer(tmp_path, monkeypatch, line)
    assert "mine" in recipe_names()
    assert find_recipe("sticker").name == "sticker"
    with pytest.raises(MvsdkError, match="mine") as caught:
        find_recipe("mine")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_offered_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toys: Callable[[str], Path]
) -> None:
    offer(tmp_path, monkeypatch, "states = toy_models.recipes:WINDOWS")
    with pytest.raises(MvsdkError, match="offered twice"):
        find_recipe("states")


def test_jobs_depend_on_the_code_of_another_package(
    toys: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvsdk_export.checkpoints import open_model
    from mvsdk_export.jobs import source
    from mvsdk_export.parity.recording import files_of

    modules = files_of(open_model(toys("states"))).modules
    before = source.source_hash(modules)
    assert source.source_hash(modules) == before
    monkeypatch.setattr(source, "_hash_package", str.upper)
    assert source.source_hash(modules) != before


def test_an_output_that_the_graph_reads_itself_crosses_as_integers() -> None:
    scale, zero = np.array(0.5, np.float32), np.array(3, np.uint16)
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"], "first"),
        helper.make_node("QuantizeLinear", ["t", "scale", "zero"], ["q"], "second"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["state"], "third"),
        helper.make_node("Sin", ["state"], ["y"], "fourth"),
    ]
    outputs = {"state": (1, 8), "y": (1, 8)}
    model = make_model(nodes, {"scale": scale, "zero": zero}, outputs=outputs)
    x = {"x": np.linspace(-1.5, 4, 8, dtype=np.float32)[None]}
    wanted = run_model(model, x)
    assert quantize_signature(model) == {"state": (0.5, 3)}
    given = run_model(model, x)
    assert given["state"].dtype == np.uint16
    np.testing.assert_array_equal((given["state"].astype(np.float32) - 3) * 0.5, wanted["state"])
    np.testing.assert_array_equal(given["y"], wanted["y"])


def test_a_precision_without_floors_is_refused_before_any_work(
    chain: Toolchain,
    toys: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    floors = {name: x for name, x in STATES.floors_db.items() if name != "fp16"}
    monkeypatch.setattr("toy_models.recipes.STATES", replace(STATES, floors_db=floors))
    choice = ("--target", "onnx", "--precision", "fp16")
    out = tmp_path / "x.mvbundle"
    done = chain("export", *choice, "--checkpoint", toys("states"), "--out", out)
    assert done.status == 2
    assert "no floors of text_encoder for fp16" in done.err


def test_a_tensor_that_core_ml_would_rename_is_refused_before_any_work(
    chain: Toolchain,
    toys: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *others, decoder = STATES.components
    latent, memory = decoder.inputs
    decoder = replace(decoder, inputs=(latent, replace(memory, name="state")))
    renamed = replace(STATES, components=(*others, decoder))
    monkeypatch.setattr("toy_models.recipes.STATES", renamed)
    out = tmp_path / "x.mvbundle"
    done = chain("export", "--target", "iphone", "--checkpoint", toys("states"), "--out", out)
    assert done.status == 2
    assert "Core ML has no tensor 'state', as vae_decoder has" in done.err
