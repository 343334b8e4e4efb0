"""The wheel: what users of the package index get, no more and no less."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from source_tree import ROOT, SOURCE_ROOTS

import mvsdk

pytestmark = pytest.mark.slow
pytest.importorskip("build", reason="needs the extra dev")
pytest.importorskip("hatchling", reason="needs the extra dev")

PACKAGES = ("mvsdk", "mvsdk_export")
CORE = {"av", "numpy", "onnxruntime", "pillow"}
EXTRAS = {"export", "snapdragon", "apple", "coreai", "executorch", "train", "dev"}
MOST_BYTES = 45_000_000
DIST_INFO = f"mvsdk-{mvsdk.__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this tree."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> dict[str, int]:
    """Return the wheel's files and their sizes in bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {item.filename: item.file_size for item in archive.infolist()}


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """Return the wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{DIST_INFO}/METADATA"))


def _requirements(metadata: Message, extra: str | None) -> set[str]:
    """Return the names that a plain install, or an extra, requires."""
    names: set[str] = set()
    for line in metadata.get_all("Requires-Dist", []):
        found = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if (found[1] if found else None) == extra:
            names.add(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0].lower())
    return names


def test_the_wheel_holds_both_packages_whole(contents: dict[str, int]) -> None:
    on_disk = {
        path.relative_to(SOURCE_ROOTS[package]).as_posix(): path.stat().st_size
        for package in PACKAGES
        for path in (SOURCE_ROOTS[package] / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {name: size for name, size in contents.items() if not name.startswith(DIST_INFO)}
    assert shipped == on_disk
    for name in ("mvsdk/py.typed", "mvsdk_export/distill/subjects.json"):
        assert name in shipped


def test_the_wheel_holds_nothing_else(contents: dict[str, int]) -> None:
    assert {name.partition("/")[0] for name in contents} == {*PACKAGES, DIST_INFO}
    licences = {name for name in contents if name.startswith(f"{DIST_INFO}/licenses/")}
    assert licences == {f"{DIST_INFO}/licenses/LICENSE", f"{DIST_INFO}/licenses/NOTICE"}


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES


def test_a_plain_install_requires_four_packages(metadata: Message) -> None:
    assert _requirements(metadata, None) == CORE


def test_extras_bring_what_their_names_say(metadata: Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS
    export = _requirements(metadata, "export")
    assert {"torch", "onnx", "onnxscript"} <= export
    assert _requirements(metadata, "snapdragon") == export | {"onnxruntime-qnn"}
    apple = _requirements(metadata, "apple")
    assert apple == export | {"coremltools"}
    coreai = _requirements(metadata, "coreai")
    assert {*export, "coreai-core", "coreai-torch"} <= coreai
    executorch = _requirements(metadata, "executorch")
    assert {*apple, "executorch", "torchao"} <= executorch
    train = _requirements(metadata, "train")
    assert {*export, "transformers", "tokenizers"} <= train
    phones = apple | coreai | executorch | {"onnxruntime-qnn"}
    assert train | phones | {"pytest", "ruff", "pyright"} <= _requirements(metadata, "dev")


def test_metadata_say_version_python_and_licence(metadata: Message) -> None:
    assert metadata["Name"] == "mvsdk"
    assert metadata["Version"] == mvsdk.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_command_and_the_toolchain_are_entry_points(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{DIST_INFO}/entry_points.txt").decode()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert lines == [
        "[console_scripts]",
        "mvsdk = mvsdk.cli:main",
        "[mvsdk.backends]",
        "coreml-checker = mvsdk_export.checker.backend:CoreMLChecker",
        "[mvsdk.commands]",
        "toolchain = mvsdk_export.cli:COMMANDS",
    ]


def test_the_packages_work_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import json, mvsdk, mvsdk.cli, mvsdk_export.recipes\n"
        "print(json.dumps([mvsdk.__file__, mvsdk_export.recipes.__file__,"
        " sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    runtime, recipes, heavy = json.loads(done.stdout)
    assert Path(runtime) == tmp_path / "site" / "mvsdk" / "__init__.py"
    assert Path(recipes) == tmp_path / "site" / "mvsdk_export" / "recipes" / "__init__.py"
    assert heavy == []
