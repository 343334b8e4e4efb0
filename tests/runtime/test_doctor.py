"""`mvsdk doctor`: what it finds on this machine, and what it says of what is missing."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import CapSys

from mvsdk._installed import pip_install, toolchain_install
from mvsdk.cli import doctor, main

pytestmark = pytest.mark.usefixtures("workplace")


def test_doctor_reports_this_machine(capsys: CapSys) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in report["checks"]}
    assert report["ok"] is True
    assert checks["numpy"]["found"] == np.__version__
    assert "libx264" in checks["H.264 encoder"]["found"]
    assert main(["doctor"]) == 0
    assert "ready to run bundles" in capsys.readouterr().out


def test_doctor_says_what_is_missing_and_what_it_is_for(
    capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def without_av(name: str) -> str:
        if name in ("av", "torch"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name) if name != "onnx" else "1.0"

    wanted = ["numpy", 'torch>=2.8 ; extra == "apple"', "onnx; extra == 'apple'"]
    monkeypatch.setattr(importlib.metadata, "version", without_av)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in report["checks"]}
    assert (checks["av"]["found"], checks["av"]["command"]) == ("missing", pip_install("av"))
    assert checks["[apple]"]["found"] == "lacks torch"
    assert checks["[apple]"]["command"] == toolchain_install("apple")
    assert checks["[snapdragon]"]["ok"] is True
    assert checks["QNN"]["command"] == pip_install("onnxruntime-qnn")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "not ready" in out
    assert f"\n[apple]: {toolchain_install('apple')}\n" in out


def test_doctor_reports_whatever_is_broken_in_lines_of_its_table(
    tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise ImportError("\n\nIMPORTANT:\nread this\n")

    monkeypatch.setattr("mvsdk.cli.doctor._qnn_device", broken)
    monkeypatch.setattr("mvsdk.cli.doctor._toolchain", lambda: [doctor._cache()])
    monkeypatch.setenv("MVSDK_CACHE", str(tmp_path / "\udcff"))
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line[:2] in ("ok", "--", "  ") for line in lines[: lines.index("")])
    (cache,) = (line for line in lines if "cache folder" in line)
    assert cache.startswith("--")
    assert "InputError" in cache


def test_doctor_of_a_thin_install_says_only_what_is_true_there(
    capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {*("mobile-video-sdk", "av", "numpy", "onnxruntime", "pillow")}

    def version(name: str) -> str:
        if name not in here:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("mvsdk.backends._registry.entry_points", lambda **options: ())
    assert main(["doctor"]) == 0
    report, _, commands = capsys.readouterr().out.partition("to install what is missing:\n")
    assert max(map(len, report.splitlines())) <= 100
    names = [line.split()[1] for line in report.splitlines() if line.startswith("--")]
    assert names == ["QNN", "executorch", "coreai", "toolchain"]
    assert not any(word in report for word in ("[", "cache", "extra", "compile", "test"))
    assert f"toolchain: {toolchain_install()}\n" in commands
    assert f"executorch: {pip_install('executorch', 'torch')}\n" in commands


def test_doctor_sees_a_cache_that_cannot_be_written(
    capsys: CapSys, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "file").write_bytes(b"")
    monkeypatch.setenv("MVSDK_CACHE", str(workplace / "file" / "cache"))
    main(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    cache = next(check for check in checks if check["name"] == "cache folder")
    assert cache["ok"] is False
    assert "set MVSDK_CACHE" in cache["found"]
