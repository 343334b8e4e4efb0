"""The files of the repository: nobody's machine in them, no weights but our own, pins that hold."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_tree import ROOT

from mvsdk._installed import RUNTIME, TOOLCHAIN

WEIGHTS_MOST_BYTES = 40_000_000
FILE_MOST_BYTES = 25_000_000
WEIGHT_SUFFIX = ".safetensors"
OTHER_WEIGHTS = re.compile(
    r"\.(bin|ckpt|gguf|h5|joblib|mlmodel|np[yz]|onnx|pickle|pkl|mlirb|pt[de2h]?|tflite)$",
    re.IGNORECASE,
)

# A letter in brackets stands for itself, so that this file does not hold what it looks for.
MACHINE_PATHS = [
    r"/([w]ork|[r]oot|[t]mp)/",
    r"/([h]ome|[U]sers)/(?!somebody/)\w",  # somebody is whom tests make up
    r"[A-Z]:\\[U]sers",
]
PACKAGE_INDEXES = [
    r"[i]ndex-url",
    r"[f]ind-links",
    r"[r]egistry=",
    r"[p]ypi\.org",
    r"[p]ythonhosted\.org",
    r"[r]egistry\.npmjs",
    r"[d]ownload\.pytorch\.org",
    r"[r]epo1\.maven\.org",
]


@cache
def _files() -> tuple[Path, ...]:
    """Return the files that are, or are about to be, in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return tuple(path for path in paths if path.is_file())


def _matches(patterns: list[str], content: bytes) -> list[str]:
    found = re.finditer("|".join(patterns).encode(), content)
    return [match[0].decode("ascii", "replace") for match in found]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").split()
    return {canonicalize_name(name): version for name, _, version in map(_split, lines)}


def _split(line: str) -> tuple[str, str, str]:
    return line.partition("==")


def _holds_pickle(path: Path) -> bool:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())
    with path.open("rb") as file:
        start = file.read(2)
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5  # PROTO, and its number


@pytest.mark.parametrize("patterns", [MACHINE_PATHS, PACKAGE_INDEXES], ids=["paths", "indexes"])
def test_no_file_names_a_machine_or_a_package_index(patterns: list[str]) -> None:
    found = {
        str(path.relative_to(ROOT)): matches
        for path in _files()
        if (matches := _matches(patterns, path.read_bytes()))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("patterns", "text", "word"),
    [
        (MACHINE_PATHS, "open('/{}/x')", "root"),
        (MACHINE_PATHS, "/{}/x", "tmp"),
        (MACHINE_PATHS, "/{}/ann", "Users"),
        (MACHINE_PATHS, r"C:\{}\ann", "Users"),
        (PACKAGE_INDEXES, "--extra-{}=x", "index-" + "url"),
        (PACKAGE_INDEXES, "https://{}/simple", "pypi." + "org"),
        (PACKAGE_INDEXES, "https://{}.org", "registry." + "npmjs"),
    ],
)
def test_addresses_are_found_where_they_are(patterns: list[str], text: str, word: str) -> None:
    assert len(_matches(patterns, text.format(word).encode())) == 1
    assert _matches(patterns, b"a/work of art, at home, pip install mvsdk") == []


def test_weights_are_safetensors_and_few() -> None:
    weights = [path for path in _files() if path.suffix == WEIGHT_SUFFIX]
    for path in weights:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        assert isinstance(json.loads(content[8 : 8 + length]), dict), path
    assert sum(path.stat().st_size for path in weights) < WEIGHTS_MOST_BYTES


def test_no_weights_or_arrays_in_other_forms() -> None:
    assert [path for path in _files() if OTHER_WEIGHTS.search(path.name)] == []
    assert [path for path in _files() if _holds_pickle(path)] == []


def test_pickles_are_known_whatever_they_are_called(tmp_path: Path) -> None:
    import pickle

    bare, packed, text = tmp_path / "a.json", tmp_path / "b.dat", tmp_path / "c.txt"
    bare.write_bytes(pickle.dumps([1]))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    text.write_text("x", "utf-8")
    assert [_holds_pickle(path) for path in (bare, packed, text)] == [True, True, False]


def test_no_file_is_large() -> None:
    assert [path for path in _files() if path.stat().st_size > FILE_MOST_BYTES] == []


def test_constraints_are_names_and_versions_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    wrong = [
        line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)
    ]
    assert wrong == []
    assert len(_pins()) == len(lines)
    assert lines == sorted(lines, key=str.lower)


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    wanted: list[str] = []
    for file in (ROOT / "pyproject.toml", ROOT / "export" / "pyproject.toml"):
        project = tomllib.loads(file.read_text("utf-8"))
        extras = project["project"]["optional-dependencies"].values()
        wanted += project["build-system"]["requires"] + project["project"]["dependencies"]
        wanted += [line for extra in extras for line in extra]
    ours = (RUNTIME, TOOLCHAIN)
    requirements = [item for item in map(Requirement, wanted) if item.name not in ours]
    pins = _pins()
    assert [item.name for item in requirements if canonicalize_name(item.name) not in pins] == []
    refused = [
        str(item)
        for item in requirements
        if not item.specifier.contains(pins[canonicalize_name(item.name)])
    ]
    assert refused == []


def test_nothing_tells_people_to_install_a_stranger() -> None:
    """The name `mvsdk` on the package index is another project's."""
    verbs = rb"(?:pip|pipx|uv)[ \w-]* (?:install|add) "
    told = re.compile(verbs + rb"""[^\n]*['" ]mvsdk(?:[\[<>=~'"]|$)""", re.MULTILINE)
    texts = [path for path in _files() if path.suffix in (".md", ".py", ".toml", ".json", "")]
    found = [path for path in texts if path.name != Path(__file__).name]
    assert [str(path) for path in found if told.search(path.read_bytes())] == []
    assert told.search(b"    pip install 'mv" + b"sdk[snapdragon]'")


def test_the_schema_of_manifests_is_a_schema() -> None:
    schema = json.loads((ROOT / "docs" / "bundle.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"


def test_ci_runs_the_verbs_that_developers_run() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert re.findall(r"^ *- run: (.*)$", workflow, re.MULTILINE) == ["make check", "make test-all"]
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert re.findall(r"^make .*?([\w-]+) \|\|", script, re.MULTILINE) == ["check", "test-all"]
