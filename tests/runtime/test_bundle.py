"""Bundles are opened with care: damage, traps and half-written folders are refused in one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mvsdk
from mvsdk.bundle import Bundle, BundleWriter, sha256_file
from mvsdk.errors import BundleError, BundleNotFoundError
from mvsdk.manifest import Manifest, Variant

GOLDEN = Path(__file__).parents[1] / "golden/manifests/upgraded_2_text_to_video.json"
MANIFEST = Manifest.from_json(GOLDEN.read_bytes())
MODEL = "components/unet/onnx-fp32/model.onnx"
BINARY = "components/unet/snapdragon-sm8650-w8a16/model_qnn.bin"
PACKAGE = "components/unet/iphone-coreml-w8/Unet.mlpackage"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the golden bundle, whose files hold their own path."""
    out = tmp_path / "sticker.mvbundle"
    with BundleWriter(out) as writer:
        for ref in MANIFEST.files():
            path = writer.directory / ref.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(ref.path)
            assert writer.add_file(ref.path) == ref
        writer.commit(MANIFEST)
    return out


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(BundleError) as caught:
        action()
    message = str(caught.value)
    assert message.isprintable()
    assert not message.endswith(".")
    return message


def test_a_bundle_that_is_not_there_is_a_file_not_found_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    wanted = {
        tmp_path / "nothing": tmp_path / "nothing",
        tmp_path / "file" / "below": tmp_path / "file" / "below",
        tmp_path / "empty": tmp_path / "empty" / "manifest.json",
    }
    for path, filename in wanted.items():
        for action in (Bundle.open, mvsdk.load):
            with pytest.raises(FileNotFoundError) as caught:
                action(path)
            found = caught.value
            assert isinstance(found, BundleNotFoundError)
            assert isinstance(found, BundleError)
            assert (found.errno, found.filename) == (errno.ENOENT, str(filename))
            assert str(found).isprintable()
            assert "[Errno" not in str(found)
            again = pickle.loads(pickle.dumps(found))
            assert (str(again), again.filename) == (str(found), str(filename))
            assert type(again) is BundleNotFoundError


def test_a_bundle_that_is_damaged_is_no_file_not_found(folder: Path) -> None:
    (folder / MODEL).unlink()
    with pytest.raises(BundleError, match="is missing; download or export") as caught:
        Bundle.open(folder)
    assert not isinstance(caught.value, FileNotFoundError)


def test_bundle_opens_and_hands_out_verified_files(folder: Path) -> None:
    bundle = Bundle.open(folder, verify=True)
    assert bundle.manifest == MANIFEST
    assert bundle.path == folder.resolve()
    variant = bundle.manifest.component("unet").variants[1]
    model = bundle.model(variant)
    assert model.is_absolute()
    assert model.read_text() == variant.model
    assert bundle.file(variant.files[1]).read_text() == BINARY


def test_bundle_opens_through_a_link_and_a_relative_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert Bundle.open("link").path == folder.resolve()


def test_flipped_byte_is_found_by_verify_and_on_first_use(folder: Path) -> None:
    data = bytearray((folder / BINARY).read_bytes())
    data[5] ^= 1
    (folder / BINARY).write_bytes(data)
    bundle = Bundle.open(folder)
    variant = bundle.manifest.component("unet").variants[1]
    for action in (
        bundle.verify,
        lambda: Bundle.open(folder, verify=True),
        lambda: bundle.file(variant.files[1]),
        lambda: bundle.model(variant),
    ):
        message = refused(action)
        assert f"bundle sticker.mvbundle: {BINARY} has the hash" in message
        assert "download or export the bundle again" in message
    bundle.model(bundle.manifest.component("unet").variants[0])


def test_file_is_hashed_once_but_again_after_a_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr("mvsdk._bundle_files.sha256_file", counted)
    bundle = Bundle.open(folder)
    assert hashed == []
    ref = bundle.manifest.component("unet").variants[0].files[0]
    bundle.file(ref)
    bundle.file(ref)
    assert hashed == ["model.onnx"]
    (folder / MODEL).write_text("x" * ref.bytes)
    assert "has the hash" in refused(lambda: bundle.file(ref))


@pytest.mark.parametrize("change", [b"", b"short", b"x" * 1000], ids=["empty", "less", "more"])
def test_file_of_another_size_is_refused_on_open(folder: Path, change: bytes) -> None:
    (folder / MODEL).write_bytes(change)
    message = refused(lambda: Bundle.open(folder))
    assert f"{MODEL} has {len(change)} bytes, the manifest says {len(MODEL)}" in message


def test_missing_file_is_refused_on_open_and_on_use(folder: Path) -> None:
    bundle = Bundle.open(folder)
    (folder / MODEL).unlink()
    assert f"{MODEL} is missing" in refused(lambda: Bundle.open(folder))
    assert f"{MODEL} is missing" in refused(bundle.verify)
    shutil.rmtree(folder / "components")
    assert "is missing" in refused(lambda: Bundle.open(folder))
    (folder / "components").write_text("a file where a folder should be")
    assert "is missing" in refused(lambda: Bundle.open(folder))


def test_file_of_another_bundle_is_not_handed_out(folder: Path) -> None:
    bundle = Bundle.open(folder)
    ref = bundle.manifest.component("unet").variants[0].files[0]
    for stranger in (replace(ref, path="../../etc/passwd"), replace(ref, sha256="0" * 64)):
        assert "is not a file of this bundle" in refused(lambda ref=stranger: bundle.file(ref))


@pytest.mark.parametrize(
    "path",
    [
        *("../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:\\secret", "C:/secret"),
        *("\\\\server\\share", "./secret", "a//secret", ""),
    ],
)
def test_manifest_path_that_leaves_the_bundle_is_refused(folder: Path, path: str) -> None:
    (folder.parent / "secret").write_text("secret")
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    document["tokenizers"]["main"]["file"]["path"] = path
    (folder / "manifest.json").write_text(json.dumps(document))
    assert "tokenizers.main.file.path is" in refused(lambda: Bundle.open(folder))


def test_link_out_of_the_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(folder, outside)
    (folder / MODEL).unlink()
    (folder / MODEL).symlink_to(outside / MODEL)
    assert f"{MODEL} is a link out of the bundle" in refused(lambda: Bundle.open(folder))


def test_folder_link_out_of_the_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "components", tmp_path / "outside")
    (folder / "components").symlink_to(tmp_path / "outside")
    assert "is a link out of the bundle" in refused(lambda: Bundle.open(folder))


def test_file_swapped_for_a_link_after_opening_is_refused(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(folder)
    shutil.move(folder / MODEL, tmp_path / "outside")
    (folder / MODEL).symlink_to(tmp_path / "outside")
    assert "is a link out of the bundle" in refused(bundle.verify)


def test_manifest_link_out_of_the_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "manifest.json", tmp_path / "outside.json")
    (folder / "manifest.json").symlink_to(tmp_path / "outside.json")
    assert "manifest.json is a link out" in refused(lambda: Bundle.open(folder))


def test_link_inside_the_bundle_is_followed(folder: Path) -> None:
    shutil.move(folder / MODEL, folder / "shared.onnx")
    (folder / MODEL).symlink_to(folder / "shared.onnx")
    Bundle.open(folder, verify=True)


def test_loop_of_links_and_dangling_link_are_refused(folder: Path) -> None:
    (folder / MODEL).unlink()
    (folder / MODEL).symlink_to(folder / MODEL)
    assert MODEL in refused(lambda: Bundle.open(folder))
    (folder / MODEL).unlink()
    (folder / MODEL).symlink_to(folder / "nothing")
    assert f"{MODEL} is missing" in refused(lambda: Bundle.open(folder))


@pytest.mark.parametrize("name", [MODEL, "manifest.json"])
def test_folder_or_pipe_in_place_of_a_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    assert f"{name} is not a regular file" in refused(lambda: Bundle.open(folder))
    (folder / name).rmdir()
    os.mkfifo(folder / name)  # opening it would wait for ever
    assert f"{name} is not a regular file" in refused(lambda: Bundle.open(folder))


def test_manifest_of_a_gigabyte_is_refused_without_reading_it(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 1 << 30)
    tracemalloc.start()
    try:
        message = refused(lambda: Bundle.open(folder))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "manifest.json has 1073741824 bytes, at most 4194304 are allowed" in message
    assert peak < 1 << 20


def test_place_that_is_no_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no bundle at" in refused(lambda: Bundle.open(tmp_path / "nothing"))
    assert "no bundle at" in refused(lambda: Bundle.open(tmp_path / "a\nb"))
    assert "no bundle at" in refused(lambda: Bundle.open("null\0byte"))
    assert "is not a folder" in refused(lambda: Bundle.open(folder / "manifest.json"))
    assert "manifest.json is missing" in refused(lambda: Bundle.open(tmp_path / "empty"))


def test_damaged_manifest_is_refused_with_the_name_of_the_bundle(folder: Path) -> None:
    payload = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(payload[: len(payload) // 2])
    message = refused(lambda: Bundle.open(folder))
    assert message.startswith("bundle sticker.mvbundle: manifest.json is not JSON")


def test_newer_bundle_says_to_upgrade(folder: Path) -> None:
    document = {"format": "mvbundle", "format_version": 99}
    (folder / "manifest.json").write_text(json.dumps(document))
    message = refused(lambda: Bundle.open(folder))
    assert "format_version 99, this mvsdk knows 1, 2, 3; it is too old: " in message


def test_unreadable_file_is_refused_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("mvsdk._bundle_files.sha256_file", denied)
    message = refused(lambda: Bundle.open(folder, verify=True))
    assert "bundle sticker.mvbundle: permission denied" in message


def test_file_that_the_manifest_does_not_list_is_ignored_away_from_models(folder: Path) -> None:
    (folder / ".DS_Store").write_text("left by a file browser")
    bundle = Bundle.open(folder, verify=True)
    bundle.model(bundle.manifest.component("unet").variants[0])


def test_model_with_an_unlisted_file_beside_it_is_refused(folder: Path) -> None:
    """ONNX Runtime reads external data by name, and would read a file that nobody hashed."""
    bundle = Bundle.open(folder)
    plain, compiled = bundle.manifest.component("unet").variants[:2]
    stray = (folder / MODEL).parent / "more" / "weights.data"
    stray.parent.mkdir()
    stray.write_text("weights")
    message = refused(lambda: bundle.model(plain))
    assert "components/unet/onnx-fp32/more/weights.data' is beside a model, but not" in message
    bundle.model(compiled)
    shutil.move(stray.parent, folder / "elsewhere")
    stray.parent.symlink_to(folder / "elsewhere")
    assert "onnx-fp32/more' is beside a model" in refused(lambda: bundle.model(plain))


def test_model_with_a_changed_file_of_another_variant_beside_it_is_refused(folder: Path) -> None:
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    compiled = document["components"]["unet"]["variants"][1]
    moved = "components/unet/onnx-fp32/model_qnn.bin"
    shutil.move(folder / BINARY, folder / moved)
    next(ref for ref in compiled["files"] if ref["path"] == BINARY)["path"] = moved
    (folder / "manifest.json").write_text(json.dumps(document))
    bundle = Bundle.open(folder)
    bundle.model(bundle.manifest.component("unet").variants[0])
    (folder / moved).write_text("x" * len(BINARY))
    bundle = Bundle.open(folder)
    assert "model_qnn.bin has the hash" in refused(
        lambda: bundle.model(bundle.manifest.component("unet").variants[0])
    )


def _put(folder: Path, place: str, content: bytes) -> None:
    """Write a file of the bundle anew, and its size and hash into the manifest."""
    (folder / place).write_bytes(content)
    text = (folder / "manifest.json").read_text()
    document: dict[str, Any] = json.loads(text)
    for component in document["components"].values():
        for ref in (ref for variant in component["variants"] for ref in variant["files"]):
            if ref["path"] == place:
                ref |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(document))


def _package(bundle: Bundle) -> Variant:
    return bundle.manifest.component("unet").variants[2]


def test_package_is_handed_out_as_a_folder_whose_files_are_verified(folder: Path) -> None:
    bundle = Bundle.open(folder)
    model = bundle.model(_package(bundle))
    assert model == folder.resolve() / PACKAGE
    assert len([path for path in model.rglob("*") if path.is_file()]) == 3
    weights = model / "Data/com.apple.CoreML/weights/weight.bin"
    weights.write_text("x" * weights.stat().st_size)
    assert "weight.bin has the hash" in refused(lambda: bundle.model(_package(bundle)))


@pytest.mark.parametrize("name", ["more.bin", "Data/.a", "Data/com.apple.CoreML/weights/a"])
def test_package_with_an_unlisted_file_in_it_is_refused(folder: Path, name: str) -> None:
    (folder / PACKAGE / name).write_text("weights")
    bundle = Bundle.open(folder)
    message = refused(lambda: bundle.model(_package(bundle)))
    assert f"{PACKAGE}/{name}' is in a package, but not listed in manifest.json; remove" in message


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "._model.onnx",
        ".nfs000001",
        "Thumbs.db",
        "desktop.ini",
        ".cache/hub/model.onnx",
    ],
)
def test_hidden_files_beside_models_and_in_packages_are_ignored(folder: Path, name: str) -> None:
    bundle = Bundle.open(folder)
    variants = [
        variant for part in bundle.manifest.components.values() for variant in part.variants
    ]
    for place in {folder, folder / PACKAGE, *((folder / v.model).parent for v in variants)}:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("left by a system")
    for variant in variants:
        bundle.model(variant)
    bundle.verify()
    top = name.split("/")[0] + "/" * ("/" in name)
    assert top in bundle.ignored()
    assert f"{PACKAGE}/{top}" in bundle.ignored()


@pytest.mark.parametrize(
    "text",
    [
        b".DS_Store",
        b"./.ds_STORE",
        b"x/../.DS_Store::$DATA",
        ".DS_\u017ftore".encode(),
        ".D\u200cS_Store".encode(),
        b"DS_STO~1",
        b"ds1f3c~1",
    ],
)
def test_hidden_file_that_a_model_names_is_refused(folder: Path, text: bytes) -> None:
    """ONNX Runtime would read it as external data, though nobody hashed it."""
    _put(folder, MODEL, b"graph \n\x09" + text + b"\x10 end")
    bundle = Bundle.open(folder)
    plain = bundle.manifest.component("unet").variants[0]
    bundle.model(plain)
    (folder / MODEL).with_name(".DS_Store").write_text("weights")
    message = refused(lambda: bundle.model(plain))
    assert "'.DS_Store' is beside a model, but not listed" in message
    assert "model.onnx seems to name it; remove it" in message
    assert "seems to name it" in refused(lambda: Bundle.open(folder, verify=True))


def test_hidden_file_that_a_package_names_with_escapes_is_refused(folder: Path) -> None:
    place = f"{PACKAGE}/Manifest.json"
    _put(folder, place, b'{"path": "\\u002eDS\\u005fStore"}')
    bundle = Bundle.open(folder)
    (folder / PACKAGE / ".DS_Store").write_text("model")
    assert "Manifest.json seems to name it" in refused(lambda: bundle.model(_package(bundle)))


@pytest.mark.parametrize("name", [".a", ".DS_Störe", ".with space"])
def test_hidden_name_that_cannot_be_looked_for_is_refused(folder: Path, name: str) -> None:
    (folder / MODEL).with_name(name).write_text("weights")
    bundle = Bundle.open(folder)
    plain = bundle.manifest.component("unet").variants[0]
    assert "is beside a model, but not listed" in refused(lambda: bundle.model(plain))


def test_hidden_link_is_refused(folder: Path) -> None:
    (folder / MODEL).with_name(".DS_Store").symlink_to(folder / "manifest.json")
    bundle = Bundle.open(folder)
    plain = bundle.manifest.component("unet").variants[0]
    assert "is beside a model, but not listed" in refused(lambda: bundle.model(plain))


def test_what_is_ignored_is_listed_folders_in_one(folder: Path) -> None:
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").touch()
    (folder / "README.md").touch()
    bundle = Bundle.open(folder)
    assert bundle.ignored() == (".git/", "README.md", "notes/")


def test_verifying_finds_what_a_model_would_be_refused_for(folder: Path) -> None:
    (folder / MODEL).with_name("more.data").write_text("weights")
    bundle = Bundle.open(folder)
    assert "more.data' is beside a model" in refused(bundle.verify)


def test_file_beside_a_package_is_ignored(folder: Path) -> None:
    """A package refers to nothing beside it, and file browsers leave files of their own there."""
    (folder / PACKAGE).with_name(".DS_Store").write_text("left by a file browser")
    bundle = Bundle.open(folder)
    bundle.model(_package(bundle))


def test_links_of_packages_are_refused(folder: Path) -> None:
    package = folder / PACKAGE
    shutil.move(package / "Data", folder / "elsewhere")
    (package / "Data").symlink_to(folder / "elsewhere")
    bundle = Bundle.open(folder)
    message = refused(lambda: bundle.model(_package(bundle)))
    assert f"{PACKAGE}/Data' is in a package, but not listed" in message
    (package / "Data").unlink()
    shutil.move(folder / "elsewhere", package / "Data")
    shutil.move(package, folder / "elsewhere")
    package.symlink_to(folder / "elsewhere")
    bundle = Bundle.open(folder)
    message = refused(lambda: bundle.model(_package(bundle)))
    assert f"the package {PACKAGE} is a link; copy the bundle with its links resolved" in message


def test_bundle_of_version_1_is_opened(folder: Path) -> None:
    shutil.copyfile(GOLDEN.with_name("version_1_text_to_video.json"), folder / "manifest.json")
    bundle = Bundle.open(folder, verify=True)
    plain, compiled = bundle.manifest.component("unet").variants
    assert (plain.format, compiled.format) == ("onnx", "qnn_context")
    bundle.model(compiled)
