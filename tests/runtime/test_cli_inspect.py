"""`mvsdk inspect` of bundles of every version that is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import CapSys

from mvsdk.bundle import Bundle, BundleWriter
from mvsdk.cli import main
from mvsdk.manifest import MANIFEST_NAME, Manifest

GOLDEN = Path(__file__).parents[1] / "golden" / "manifests"
VERSIONS = {1: "version_1_text_to_video.json", 2: "version_2_text_to_video.json"}


def _bundle(folder: Path, payload: bytes) -> Path:
    """Write a bundle of a golden manifest, whose files hold their own path."""
    manifest = Manifest.from_json(payload)
    out = folder / "sticker.mvbundle"
    with BundleWriter(out) as writer:
        for ref in manifest.files():
            path = writer.directory / ref.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(ref.path)
            writer.add_file(ref.path)
        writer.commit(manifest)
    (out / MANIFEST_NAME).write_bytes(payload)
    return out


@pytest.mark.parametrize("version", VERSIONS)
def test_older_bundles_are_shown_as_what_they_are_now(
    capsys: CapSys, tmp_path: Path, version: int
) -> None:
    payload = (GOLDEN / VERSIONS[version]).read_bytes()
    assert json.loads(payload)["format_version"] == version
    path = _bundle(tmp_path, payload)
    assert main(["inspect", str(path), "--verify"]) == 0
    old = capsys.readouterr().out
    assert main(["inspect", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["format_version"] == 3
    assert [program["name"] for program in shown["programs"]] == ["default"]
    assert shown["x-files-verified"] is False

    bundle = Bundle.open(path)
    bundle.replace_manifest(bundle.manifest)
    assert json.loads((path / MANIFEST_NAME).read_bytes())["format_version"] == 3
    assert main(["inspect", str(path), "--verify"]) == 0
    assert capsys.readouterr().out == old
    lines = old.splitlines()
    assert lines[0].startswith(f"{bundle.manifest.name}: text_to_video, ")
    assert lines[1].startswith("sampler   ")
    assert lines[2].startswith("tokens    wordpiece, ")
    assert not any(line.startswith(("set ", "packs ")) for line in lines)
