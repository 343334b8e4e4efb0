"""The wheels: what an app gets, what who makes bundles gets, no more and no less."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest
from source_tree import ROOT, SOURCE_ROOTS

import mvsdk
import mvsdk_export
from mvsdk._installed import RUNTIME, TOOLCHAIN

pytestmark = pytest.mark.slow
pytest.importorskip("build", reason="needs the extra dev")
pytest.importorskip("hatchling", reason="needs the extra dev")

CORE = {"av", "numpy", "onnxruntime", "pillow"}
EXTRAS = {"snapdragon", "apple", "coreai", "executorch", "train"}
THIN_BYTES = 400_000
"""Most bytes of the runtime's wheel."""
TOOLCHAIN_BYTES = 45_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A distribution as it is built."""

    name: str
    package: str
    wheel: Path
    sdist: Path

    @property
    def dist_info(self) -> str:
        """Folder of the wheel's own records."""
        return f"{self.name.replace('-', '_')}-{mvsdk.__version__}.dist-info"

    def sizes(self) -> dict[str, int]:
        """Return the wheel's files and their sizes in bytes."""
        with zipfile.ZipFile(self.wheel) as archive:
            return {item.filename: item.file_size for item in archive.infolist()}

    def read(self, record: str) -> str:
        """Return one of the wheel's records."""
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.read(f"{self.dist_info}/{record}").decode()

    def metadata(self) -> Message:
        """Return METADATA."""
        return email.message_from_string(self.read("METADATA"))


def _build(name: str, package: str, source: Path, out: Path) -> Built:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    stem = f"{name.replace('-', '_')}-{mvsdk.__version__}"
    return Built(
        name=name,
        package=package,
        wheel=out / f"{stem}-py3-none-any.whl",
        sdist=out / f"{stem}.tar.gz",
    )


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the runtime."""
    return _build(RUNTIME, "mvsdk", ROOT, tmp_path_factory.mktemp("runtime"))


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the toolchain."""
    return _build(TOOLCHAIN, "mvsdk_export", ROOT / "export", tmp_path_factory.mktemp("toolchain"))


@pytest.fixture(params=["runtime", "toolchain"])
def built(request: pytest.FixtureRequest) -> Built:
    """Return each in turn."""
    return request.getfixturevalue(request.param)


def _requirements(metadata: Message, extra: str | None) -> set[str]:
    """Return the names that a plain install, or an extra, requires."""
    names: set[str] = set()
    for line in metadata.get_all("Requires-Dist", []):
        found = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if (found[1] if found else None) == extra:
            names.add(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0].lower())
    return names


def test_a_wheel_holds_its_package_whole(built: Built) -> None:
    source = SOURCE_ROOTS[built.package]
    on_disk = {
        path.relative_to(source).as_posix(): path.stat().st_size
        for path in (source / built.package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    sizes = built.sizes()
    shipped = {name: size for name, size in sizes.items() if not name.startswith(built.dist_info)}
    assert shipped == on_disk


def test_a_wheel_holds_nothing_else(built: Built) -> None:
    sizes = built.sizes()
    assert {name.partition("/")[0] for name in sizes} == {built.package, built.dist_info}
    assert f"{built.dist_info}/licenses/LICENSE" in sizes


def test_who_made_the_weights_is_named_where_they_are(runtime: Built, toolchain: Built) -> None:
    assert "Microsoft Corporation" in toolchain.read("licenses/NOTICE")
    assert any(name.endswith(".safetensors") for name in toolchain.sizes())
    assert not any(name.endswith((".safetensors", "NOTICE")) for name in runtime.sizes())
    assert "mvsdk/py.typed" in runtime.sizes()
    assert "mvsdk_export/training/data/subjects.json" in toolchain.sizes()


def test_both_have_one_licence() -> None:
    assert (ROOT / "export" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_what_an_app_needs_is_thin(runtime: Built, toolchain: Built) -> None:
    assert runtime.wheel.stat().st_size < THIN_BYTES
    assert toolchain.wheel.stat().st_size < TOOLCHAIN_BYTES


def test_a_source_archive_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again = _build(built.name, built.package, source, tmp_path / "again")
    assert again.sizes() == built.sizes()


def test_a_plain_install_requires_four_packages(runtime: Built) -> None:
    assert _requirements(runtime.metadata(), None) == CORE


def test_extras_of_the_runtime_are_those_of_the_toolchain(runtime: Built) -> None:
    metadata = runtime.metadata()
    assert set(metadata.get_all("Provides-Extra", [])) == {"export"} | EXTRAS
    wanted = {line for line in metadata.get_all("Requires-Dist", []) if TOOLCHAIN in line}
    version = mvsdk.__version__
    assert wanted == {f"{TOOLCHAIN}=={version}; extra == 'export'"} | {
        f"{TOOLCHAIN}[{extra}]=={version}; extra == '{extra}'" for extra in EXTRAS
    }


def test_extras_of_the_toolchain_bring_what_their_names_say(toolchain: Built) -> None:
    metadata = toolchain.metadata()
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS | {"dev"}
    assert {RUNTIME, "torch", "onnx", "onnxscript"} <= _requirements(metadata, None)
    assert f"{RUNTIME}=={mvsdk.__version__}" in metadata.get_all("Requires-Dist", [])
    assert _requirements(metadata, "snapdragon") == {"onnxruntime-qnn"}
    assert _requirements(metadata, "apple") == {"coremltools"}
    assert {"coreai-core", "coreai-torch"} <= _requirements(metadata, "coreai")
    assert {"coremltools", "executorch", "torchao"} <= _requirements(metadata, "executorch")
    assert {"transformers", "tokenizers"} <= _requirements(metadata, "train")
    every = set().union(*(_requirements(metadata, extra) for extra in EXTRAS))
    assert every | {"pytest", "ruff", "pyright"} <= _requirements(metadata, "dev")


def test_metadata_say_version_python_and_licence(built: Built) -> None:
    metadata = built.metadata()
    assert metadata["Name"] == built.name
    assert metadata["Version"] == mvsdk.__version__ == mvsdk_export.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_command_and_the_toolchain_are_entry_points(runtime: Built, toolchain: Built) -> None:
    def lines(built: Built) -> list[str]:
        text = built.read("entry_points.txt")
        return [line.strip() for line in text.splitlines() if line.strip()]

    assert lines(runtime) == ["[console_scripts]", "mvsdk = mvsdk.cli:main"]
    assert lines(toolchain) == [
        "[mvsdk.backends]",
        "coreml-checker = mvsdk_export.targets.coreml.checker.backend:CoreMLChecker",
        "[mvsdk.commands]",
        "toolchain = mvsdk_export.cli:COMMANDS",
    ]


def test_the_packages_work_from_the_wheels_alone(
    runtime: Built, toolchain: Built, tmp_path: Path
) -> None:
    for built in (runtime, toolchain):
        with zipfile.ZipFile(built.wheel) as archive:
            archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import json, mvsdk, mvsdk.cli, mvsdk_export.families\n"
        "print(json.dumps([mvsdk.__file__, mvsdk_export.families.__file__,"
        " sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    package, recipes, heavy = json.loads(done.stdout)
    assert Path(package) == tmp_path / "site" / "mvsdk" / "__init__.py"
    assert Path(recipes) == tmp_path / "site" / "mvsdk_export" / "families" / "__init__.py"
    assert heavy == []
