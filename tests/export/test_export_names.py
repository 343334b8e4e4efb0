"""`mvsdk export`: names that cannot be given, and commands that can be pasted."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from exporting import SIZE, STEPS, Toolchain, make_toolchain
from test_export import only_error

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", ["a\nb.mvbundle", "m\udcfcll.mvbundle"])
def test_name_that_no_bundle_can_have_is_refused_before_any_stage(
    tiny_model_folder: Path, tmp_path: Path, name: str
) -> None:
    toolchain = make_toolchain(tmp_path)
    arguments = ("--target", "onnx", "--checkpoint", tiny_model_folder, *SIZE, *STEPS)
    done = toolchain("export", *arguments, f"--out={tmp_path / name}")
    assert "choose another name" in only_error(done)
    assert not toolchain.cache.exists()


def test_cache_that_libraries_cannot_open_is_refused_before_any_stage(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    toolchain = replace(make_toolchain(tmp_path), cache=tmp_path / "m\udcfcll")
    arguments = ("--target", "onnx", "--checkpoint", tiny_model_folder, *SIZE, *STEPS)
    message = only_error(toolchain("export", *arguments, "--out", tmp_path / "a.mvbundle"))
    assert "it holds bytes that are not UTF-8; set $MVSDK_CACHE to another" in message


def test_what_comes_next_can_be_pasted(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "it's $a.mvbundle"
    arguments = ("--target", "onnx", "--precision", "fp32", "--no-verify")
    made = ("--checkpoint", tiny_model_folder, *SIZE, *STEPS, "--out", out)
    done = toolchain("export", *arguments, *made)
    said = done.out.splitlines()[-1].removeprefix("next: ")
    assert shlex.split(said) == ["mvsdk", "generate", "a rocket flying left", "--bundle", str(out)]


@pytest.mark.parametrize("option", ["--checkpoint", "--out", "--decoder", "--pictures"])
def test_empty_name_is_refused(toolchain: Toolchain, option: str) -> None:
    done = toolchain("export", "--target", "onnx", option, "")
    assert f"argument {option}: the name is empty" in only_error(done)
