"""What a compiler says of memory: written into a manifest, read again, shown, and cut with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import CapSys
from manifests import text_to_video
from tiny_bundles import VariantFiles, build_bundle

from mvsdk import slim_bundle
from mvsdk.cli import main
from mvsdk.manifest import Manifest
from mvsdk.manifest.memory import MEMORY, GraphMemory, memory_to_json, read_memory

TOLD = GraphMemory(
    spill_fill_bytes=59_244_544,
    vtcm_bytes=8 << 20,
    operator_bytes=10_161_664,
    constant_bytes=3_514_368,
    ddr_tensor_bytes=39_322_112,
    io_bytes=36_708_352,
    shared_weight_bytes=0,
)
HALF_TOLD = replace(
    TOLD,
    operator_bytes=None,
    constant_bytes=None,
    ddr_tensor_bytes=None,
    io_bytes=None,
    shared_weight_bytes=None,
)
CHIPS = ("sm8650", "sm8750")


def _with(value: Any) -> Manifest:
    return replace(text_to_video(), extensions={MEMORY: value})


def _chosen() -> tuple[str, str]:
    """Return a component and a variant of the golden manifest."""
    component, part = next(iter(text_to_video().components.items()))
    return component, part.variants[0].id


def _row(**changes: Any) -> dict[str, Any]:
    component, variant = _chosen()
    entry: Any = memory_to_json({(component, variant): [TOLD]})[component]
    return {**entry[variant][0], **changes}


def test_what_is_written_is_read_from_the_bytes_of_a_manifest() -> None:
    memory = {_chosen(): (TOLD, HALF_TOLD)}
    payload = _with(memory_to_json(memory)).to_json()
    assert read_memory(Manifest.from_json(payload)) == memory


@pytest.mark.parametrize(
    "graphs",
    [
        "much",
        [],
        ["much"],
        [_row(spill_fill_bytes=None)],
        [_row(vtcm_bytes=None)],
        [_row(spill_fill_bytes=-1)],
        [_row(spill_fill_bytes=True)],
        [_row(spill_fill_bytes=0.5)],
        [_row(io_bytes=2**53)],
        [_row(kind="new")],
        [{k: v for k, v in _row().items() if k != "io_bytes"}],
        [_row(), "much"],
    ],
    ids=repr,
)
def test_what_is_not_understood_is_as_if_it_were_not_said(graphs: Any) -> None:
    component, variant = _chosen()
    assert read_memory(_with({component: {variant: graphs}})) == {}


@pytest.mark.parametrize("value", [None, 8, "much", [], {"unet": 8}, {"unet": []}], ids=repr)
def test_a_manifest_that_says_something_else_is_read(value: Any) -> None:
    assert read_memory(Manifest.from_json(_with(value).to_json())) == {}


def test_variants_that_the_manifest_does_not_have_are_left_out() -> None:
    component, _ = _chosen()
    strays = {(component, "other"): [TOLD], ("other", "other"): [TOLD]}
    assert read_memory(_with(memory_to_json(strays))) == {}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a bundle for two chips; the compiler told of one component on each."""
    path = tmp_path / "many.mvbundle"
    variants = [VariantFiles(target="snapdragon", precision="w8a16", chip=chip) for chip in CHIPS]
    told = {
        ("unet", "snapdragon-sm8650-w8a16"): [TOLD, replace(TOLD, vtcm_bytes=2 << 20)],
        ("unet", "snapdragon-sm8750-w8a16"): [HALF_TOLD],
    }
    build_bundle(path, variants, extensions={MEMORY: memory_to_json(told), "x-note": 1})
    return path


def test_inspect_shows_sums_and_the_largest_vtcm(bundle: Path, capsys: CapSys) -> None:
    assert main(["inspect", str(bundle)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert (
        "unet snapdragon-sm8650-w8a16 2 8.0 MiB 113.0 MiB 75.0 MiB 19.4 MiB 6.7 MiB 70.0 MiB"
        in lines
    )
    assert "unet snapdragon-sm8750-w8a16 1 8.0 MiB 56.5 MiB - - - -" in lines


def test_inspect_says_nothing_where_nothing_is_known(tmp_path: Path, capsys: CapSys) -> None:
    path = tmp_path / "plain.mvbundle"
    build_bundle(path, [VariantFiles(target="snapdragon", precision="w8a16", chip="sm8650")])
    assert main(["inspect", str(path)]) == 0
    assert "spilled" not in capsys.readouterr().out


def test_a_slim_bundle_keeps_what_is_said_of_its_variants(bundle: Path, tmp_path: Path) -> None:
    slim = slim_bundle(bundle, tmp_path / "phone.mvbundle", chip="sm8750").manifest
    assert read_memory(slim) == {("unet", "snapdragon-sm8750-w8a16"): (HALF_TOLD,)}
    assert list(slim.extensions[MEMORY]["unet"]) == ["snapdragon-sm8750-w8a16"]  # type: ignore[index,call-overload,arg-type]
    assert slim.extensions["x-note"] == 1
