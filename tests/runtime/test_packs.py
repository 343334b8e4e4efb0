"""Bundles that come in parts: what lies where, what is missing, and what runs of the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import CapSys, refusal
from tiny_bundles import VariantFiles, build_bundle, write_onnx

import mvsdk
from mvsdk import BackendError, BundleError, BundleNotFoundError, InputError, slim_bundle
from mvsdk.bundle import Bundle
from mvsdk.cli import main

PROMPT = "a rocket flying left"
PACK = "half"
KINDS = [
    VariantFiles(content=write_onnx),
    VariantFiles(precision="fp16", content=write_onnx, pack=PACK),
]


@pytest.fixture
def whole(tmp_path: Path) -> Bundle:
    """Return a bundle whose pack is in the base."""
    return build_bundle(tmp_path / "parts.mvbundle", KINDS, packs=(PACK,))


@pytest.fixture
def pack(whole: Bundle, tmp_path: Path) -> Path:
    """Move the pack out of the base; return its folder."""
    folder = tmp_path / "assets" / "half-pack"
    for component in whole.manifest.components.values():
        for ref in component.variants[1].files:
            (folder / ref.path).parent.mkdir(parents=True)
            shutil.move(whole.path / ref.path, folder / ref.path)
    return folder


def _frames(path: Path, **options: object) -> bytes:
    with mvsdk.load(path, **options) as pipeline:
        return pipeline.generate(PROMPT, seed=7).frames.tobytes()


def refused(action: Callable[[], object], rule: str) -> str:
    with pytest.raises(BundleError) as caught:
        action()
    assert caught.value.rule == rule
    assert str(caught.value).endswith(f" [{rule}]")
    return str(caught.value)


def test_a_pack_that_is_not_named_may_be_in_the_base(whole: Bundle) -> None:
    bundle = Bundle.open(whole.path, verify=True)
    assert bundle.packs == {PACK: bundle.path}
    variant = bundle.manifest.components["unet"].variants[1]
    assert bundle.is_installed(variant)
    assert bundle.model(variant) == bundle.path / variant.model
    assert _frames(whole.path, precision="fp16") == _frames(whole.path, precision="fp32")


def test_a_pack_may_lie_elsewhere(whole: Bundle, pack: Path) -> None:
    bundle = Bundle.open(whole.path, packs={PACK: pack}, verify=True)
    variant = bundle.manifest.components["unet"].variants[1]
    assert bundle.model(variant) == pack / variant.model
    given = {"packs": {PACK: str(pack)}, "precision": "fp16"}
    assert _frames(whole.path, **given) == _frames(whole.path, precision="fp32")


def test_the_command_line_takes_the_folder_of_a_pack(
    capsys: CapSys, whole: Bundle, pack: Path, workplace: Path
) -> None:
    made = ("generate", PROMPT, "--bundle", str(whole.path), "--seed", "7", "-o", "clip.npy")
    assert main([*made, "--precision", "fp16", "--pack", f"{PACK}={pack}"]) == 0
    clip = np.load(workplace / "clip.npy")
    assert clip.tobytes() == _frames(whole.path, precision="fp32")
    capsys.readouterr()
    assert main(["inspect", str(whole.path), "--verify", "--pack", f"{PACK}={pack}"]) == 0
    assert "not installed" not in capsys.readouterr().out
    twice = ("--pack", f"{PACK}={pack}", "--pack", f"{PACK}={pack}")
    assert "--pack names a pack twice" in refusal(capsys, *made, "--overwrite", *twice)
    assert "'half' is not NAME=FOLDER" in refusal(capsys, *made, "--pack", PACK)
    assert "packs has 'other'" in refusal(capsys, *made, "--overwrite", "--pack", f"other={pack}")


def test_the_folder_that_is_given_goes_before_the_base(whole: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = refused(lambda: Bundle.open(whole.path, packs={PACK: tmp_path / "empty"}), "F5")
    assert "onnx-fp16/model.onnx is missing" in words


def test_what_a_missing_pack_has_does_not_run_and_the_rest_does(whole: Bundle, pack: Path) -> None:
    bundle = Bundle.open(whole.path, verify=True)
    assert bundle.packs == {}
    base, half = bundle.manifest.components["unet"].variants
    assert (bundle.is_installed(base), bundle.is_installed(half)) == (True, False)
    words = refused(lambda: bundle.file(half.files[0]), "F10")
    assert "is in the pack half, which is not installed; give its folder (packs=" in words
    refused(lambda: bundle.model(half), "F10")
    assert mvsdk.load(whole.path).selection.label == "onnx/fp32"
    assert _frames(whole.path)
    with pytest.raises(BackendError, match="holds onnx/fp16, none runs here: the pack half is not"):
        mvsdk.load(whole.path, precision="fp16")


def test_damage_in_a_pack_is_found_as_in_the_base(whole: Bundle, pack: Path) -> None:
    variant = whole.manifest.components["unet"].variants[1]
    model = pack / variant.model
    data = bytearray(model.read_bytes())
    data[5] ^= 1
    model.write_bytes(data)
    bundle = Bundle.open(whole.path, packs={PACK: pack})
    for action in (bundle.verify, lambda: bundle.model(variant)):
        assert "onnx-fp16/model.onnx has the hash" in refused(action, "F6")
    model.write_bytes(data[:-1])
    assert "bytes, the manifest says" in refused(
        lambda: Bundle.open(whole.path, packs={PACK: pack}), "F5"
    )
    Bundle.open(whole.path, verify=True)


def test_strangers_and_links_in_a_pack_are_refused(whole: Bundle, pack: Path) -> None:
    variant = whole.manifest.components["unet"].variants[1]
    bundle = Bundle.open(whole.path, packs={PACK: pack})
    stranger = (pack / variant.model).parent / "weights.bin"
    stranger.write_text("more")
    words = refused(lambda: bundle.model(variant), "F7")
    assert "weights.bin' is beside a model, but not listed" in words
    stranger.unlink()
    model = pack / variant.model
    shutil.move(model, whole.path / "outside")
    model.symlink_to(whole.path / "outside")
    words = refused(lambda: Bundle.open(whole.path, packs={PACK: pack}), "F5")
    assert "is a link out of the bundle" in words


def test_folders_that_are_no_packs_are_refused(whole: Bundle, pack: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="packs has 'quarter'; the packs of this bundle: half"):
        Bundle.open(whole.path, packs={"quarter": pack})
    with pytest.raises(InputError, match="packs is 'half'; allowed: a Mapping"):
        Bundle.open(whole.path, packs="half")
    with pytest.raises(InputError, match=r"packs\['half'\] is 3; allowed: a str or a path-like"):
        Bundle.open(whole.path, packs={PACK: 3})
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "nowhere", tmp_path / "file", "a\0b"):
        with pytest.raises(BundleNotFoundError, match="no folder of the pack half at ") as caught:
            Bundle.open(whole.path, packs={PACK: folder})
        assert caught.value.rule == "F10"
        assert caught.value.filename == str(folder)
        assert str(caught.value).startswith("bundle parts.mvbundle: no folder")


def test_a_file_belongs_to_one_part(tmp_path: Path) -> None:
    def shared(component: str, folder: Path) -> list[Path]:
        path = folder.parent / "shared.onnx"
        path.write_bytes(component.encode())
        return [path]

    kinds = [
        VariantFiles(content=shared),
        VariantFiles(precision="fp16", content=shared, pack=PACK),
    ]
    words = refused(lambda: build_bundle(tmp_path / "a.mvbundle", kinds, packs=(PACK,)), "F11")
    assert "shared.onnx is in two packs, expected one pack, or the base" in words


def test_a_manifest_is_replaced_where_a_pack_is(whole: Bundle, pack: Path) -> None:
    bundle = Bundle.open(whole.path, packs={PACK: pack})
    assert bundle.replace_manifest(bundle.manifest).packs == {PACK: pack}


def test_a_bundle_for_one_phone_has_no_packs(whole: Bundle, pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.mvbundle"
    with pytest.raises(BundleError, match=r"is in the pack half, which is not installed.*\[F10\]"):
        slim_bundle(whole.path, out, precision="fp16")
    assert not out.exists()
    slim = slim_bundle(whole.path, out, precision="fp16", packs={PACK: pack})
    assert slim.manifest.packs == ()
    assert all(v.pack is None for x in slim.manifest.components.values() for v in x.variants)
    Bundle.open(out, verify=True)
    assert _frames(out) == _frames(whole.path)
    base = slim_bundle(whole.path, tmp_path / "base.mvbundle", precision="fp32")
    assert base.manifest.packs == ()
    assert {ref.path for ref in base.manifest.files()} == {
        "tokenizer/vocab.json",
        *(f"components/{name}/onnx-fp32/model.onnx" for name in whole.manifest.components),
    }


def test_the_command_line_cuts_a_bundle_whose_pack_lies_elsewhere(
    capsys: CapSys, whole: Bundle, pack: Path, workplace: Path
) -> None:
    argv = ("slim", str(whole.path), "--precision", "fp16", "--out", "slim.mvbundle")
    assert "give its folder" in refusal(capsys, *argv)
    assert main([*argv, "--pack", f"{PACK}={pack}"]) == 0
    assert _frames(workplace / "slim.mvbundle") == _frames(whole.path)


def test_graphs_of_a_pack_run_in_a_process_of_their_own(whole: Bundle, pack: Path) -> None:
    given = {"packs": {PACK: pack}, "precision": "fp16"}
    assert _frames(whole.path, isolated=True, **given) == _frames(whole.path, **given)


def test_the_command_line_says_which_packs_are_there(
    capsys: CapSys, whole: Bundle, tmp_path: Path, workplace: Path
) -> None:
    assert main(["inspect", str(whole.path), "--verify"]) == 0
    assert "packs     half (here)\n" in capsys.readouterr().out
    for component in whole.manifest.components.values():
        shutil.rmtree((whole.path / component.variants[1].model).parent)
    assert main(["inspect", str(whole.path), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "packs     half (not installed)\n" in out
    assert "all hashes right, but 3 files are not installed" in out
    assert main(["inspect", str(whole.path), "--verify", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert not document["x-files-verified"]
    assert len(document["x-files-missing"]) == 3
    argv = ["generate", PROMPT, "--bundle", str(whole.path), "-o", "clip.npy"]
    assert "the pack half is not installed" in refusal(capsys, *argv, "--precision", "fp16")
    assert main(argv) == 0
