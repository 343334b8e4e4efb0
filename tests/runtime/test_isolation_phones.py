"""Damaged graphs of phones' runtimes, signed as if they were whole: they end only their process.

Which damage ends a runtime differs from release to release, so some is tried until one does; the
order is fixed.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_bundles import VariantFiles, build_bundle

import mvsdk
from mvsdk import BackendError, Bundle, BundleError, Isolation
from mvsdk.bundle import BundleWriter
from mvsdk.cli import main
from mvsdk.manifest import TensorSpec

PROMPT = "a rocket flying left"
Damage = Callable[[bytearray], object]
LIMITS = Isolation(run_timeout_s=20)


def _program(component: str, folder: Path) -> Any:
    from tiny_modules import write_program  # imports PyTorch

    return write_program(component, folder)


def _asset(component: str, folder: Path) -> Any:
    from tiny_modules import write_asset  # imports PyTorch

    return write_asset(component, folder)


def _context(component: str, folder: Path) -> Any:
    from test_qnn import _compile  # skips where it cannot compile

    return _compile(component, folder)


def _float_frames(component: str, spec: TensorSpec) -> TensorSpec:
    return replace(spec, dtype="float32") if spec.name == "frames" else spec


def _words_to_zero(length: int) -> Iterator[Damage]:
    """Clear two bytes after two: in a flatbuffer, which fields a table has."""
    for place in range(0, length, 2):
        yield lambda data, place=place: data.__setitem__(slice(place, place + 2), bytes(2))


def _random_bytes(length: int) -> Iterator[Damage]:
    """Change some bytes, more from time to time."""
    for seed in range(400):
        generator = random.Random(seed)
        count = 1 + 15 * (seed % 2)
        changes = [(generator.randrange(length), generator.randrange(256)) for _ in range(count)]
        yield lambda data, changes=changes: [data.__setitem__(*change) for change in changes]


KINDS = {
    "executorch": (
        VariantFiles(target="executorch", delegate="xnnpack", content=_program),
        ".pte",
        _words_to_zero,
    ),
    "coreai": (
        VariantFiles(target="iphone", package="coreai", content=_asset),
        ".mlirb",
        _random_bytes,
    ),
    "qnn": (
        VariantFiles(target="snapdragon", precision="fp16", chip="sm8650", content=_context),
        ".bin",
        _random_bytes,
    ),
}
PACKAGES = {"executorch": "executorch", "coreai": "coreai_torch", "qnn": "onnxruntime_qnn"}
MARKS = {
    "executorch": [pytest.mark.executorch, pytest.mark.torch],
    "coreai": [pytest.mark.coreai, pytest.mark.torch],
    "qnn": [pytest.mark.qnn],
}


def _resigned(sound: Bundle, out: Path, suffix: str, damage: Damage) -> Bundle:
    """Copy a bundle, damage its denoiser, and write hashes that are right."""
    shutil.rmtree(out, ignore_errors=True)
    with BundleWriter(out) as writer:
        shutil.copytree(sound.path, writer.directory, dirs_exist_ok=True)
        (path,) = (writer.directory / "components" / "unet").rglob(f"*{suffix}")
        data = bytearray(path.read_bytes())
        damage(data)
        path.write_bytes(data)
        unet = sound.manifest.components["unet"]
        variant = unet.variants[0]
        refs = tuple(writer.add_file(ref.path) for ref in variant.files)
        for other in sound.manifest.files():
            if other.path not in {ref.path for ref in refs}:
                writer.add_file(other.path)
        changed = replace(unet, variants=(replace(variant, files=refs),))
        components = {**sound.manifest.components, "unet": changed}
        return writer.commit(replace(sound.manifest, components=components))


def _first_death(
    sound: Bundle, out: Path, suffix: str, ways: Iterable[Damage]
) -> tuple[Bundle, str]:
    """Return the first damaged bundle whose denoiser ends its process, and what was said of it."""
    backend = mvsdk.load(sound.path, isolated=LIMITS).selection.backend
    try:
        for damage in ways:
            damaged = _resigned(sound, out, suffix, damage)
            try:
                backend.load(damaged, damaged.manifest.components["unet"].variants[0]).close()
            except (BackendError, BundleError) as exc:
                if " died with SIG" in str(exc):
                    return damaged, str(exc)
    finally:
        backend.close()
    raise AssertionError("no damage ended the runtime")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=MARKS[kind]) for kind in KINDS])
# of PyTorch, inside what the compilers do with it
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_that_ends_a_runtime_is_one_line(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(PACKAGES[kind], reason="needs the extra of its target")
    files, suffix, ways = KINDS[kind]
    tensors = {"tensors": _float_frames} if kind == "coreai" else {}
    sound = build_bundle(tmp_path / "sound.mvbundle", [files], **tensors)
    (model,) = (sound.path / "components" / "unet").rglob(f"*{suffix}")
    damaged, said = _first_death(
        sound, tmp_path / "bad.mvbundle", suffix, itertools.islice(ways(model.stat().st_size), 400)
    )
    assert said.startswith(f"unet/{files.id}: {kind} died with SIG")
    assert "while it loaded the graph" in said
    assert said.endswith("has a fault; download or export the bundle again")
    assert len(said) < 700
    capfd.readouterr()

    # The command line isolates these formats without being asked to.
    clip = tmp_path / "clip.npy"
    command = ["generate", PROMPT, "-o", str(clip), "--bundle"]
    assert main([*command, str(damaged.path)]) == 2
    out, err = capfd.readouterr()
    *notes, line = err.splitlines()
    assert (out, line.startswith("error: ")) == ("", True)
    assert all(note.startswith("note: ") for note in notes)  # that it is an emulator
    assert line.startswith(f"error: unet/{files.id}: {kind} died with SIG")
    assert not clip.exists()
    assert main([*command, str(sound.path)]) == 0
    assert clip.exists()

    # A server goes on with a sound bundle, and gets what it would get without a process.
    with mvsdk.load(sound.path, isolated=True) as pipeline:
        isolated = pipeline.generate(PROMPT, seed=3).frames.tobytes()
    with mvsdk.load(sound.path) as pipeline:
        assert pipeline.generate(PROMPT, seed=3).frames.tobytes() == isolated
