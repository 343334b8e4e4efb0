"""Nothing is kept about users and nobody is told of them: an empty home, look-ups watched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mvsdk._telemetry import SWITCHES, turn_off_telemetry
from mvsdk.bundle import Bundle

WATCH = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    FILE *log = fopen(getenv("LOOKED_UP"), "a");
    if (log) { fprintf(log, "%s\\n", node ? node : "-"); fclose(log); }
    return EAI_FAIL;
}
struct hostent *gethostbyname(const char *name) {
    FILE *log = fopen(getenv("LOOKED_UP"), "a");
    if (log) { fprintf(log, "%s\\n", name); fclose(log); }
    return 0;
}
"""
"""A library that writes down the names that a process looks up, and finds none of them."""


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build `WATCH`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("look-ups are watched with LD_PRELOAD: needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("watch")
    source, library = folder / "watch.c", folder / "watch.so"
    source.write_text(WATCH, "utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def _run(
    code: list[str], home: Path, watch: Path, more: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Run Python in an empty home; return the files left there and the names looked up."""
    home.mkdir()
    log = home.with_name(f"{home.name}.looked-up")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(x for x in sys.path if x),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "LD_PRELOAD": str(watch),
        "LOOKED_UP": str(log),
        **(more or {}),
    }
    done = subprocess.run(
        [sys.executable, *code], env=environment, cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    left = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return sorted(left), log.read_text("utf-8").splitlines() if log.exists() else []


@pytest.mark.slow
def test_a_clip_is_made_without_a_trace(onnx_bundle: Bundle, tmp_path: Path, watch: Path) -> None:
    command = ["generate", "a cat", "--bundle", str(onnx_bundle.path), "-o", "clip.mp4"]
    left, looked_up = _run(["-m", "mvsdk", *command], tmp_path / "home", watch)
    assert (left, looked_up) == (["clip.mp4"], [])


@pytest.mark.slow
def test_doctor_and_help_leave_no_trace(tmp_path: Path, watch: Path) -> None:
    for verb in ("doctor", "--help"):
        assert _run(["-m", "mvsdk", verb], tmp_path / verb, watch) == ([], [])


@pytest.mark.slow
@pytest.mark.torch
def test_the_toolchain_reports_nothing(tmp_path: Path, watch: Path) -> None:
    pytest.importorskip("torch")
    code = "import mvsdk_export, onnxruntime, onnxruntime.quantization, torch, onnx"
    assert _run(["-c", code], tmp_path / "home", watch) == ([], [])


@pytest.mark.slow
def test_who_wants_to_report_may(tmp_path: Path, watch: Path) -> None:
    """The test above would see a trace: this one sees it."""
    code = ["-c", "import mvsdk, onnxruntime"]
    left, _ = _run(code, tmp_path / "home", watch, {"ORT_DISABLE_TELEMETRY": "0"})
    assert any("deviceid" in name for name in left)


@pytest.mark.slow
def test_a_look_up_would_be_seen(tmp_path: Path, watch: Path) -> None:
    code = "import contextlib, socket\nwith contextlib.suppress(OSError):\n"
    code += "    socket.getaddrinfo('telemetry.invalid', 443)"
    assert _run(["-c", code], tmp_path / "home", watch) == ([], ["telemetry.invalid"])


def test_what_the_user_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SWITCHES:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    turn_off_telemetry()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "0"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
