"""Programs for Core ML's delegate: what the checker computes of the package inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("executorch", reason="needs the extra executorch")
pytest.importorskip("coremltools", reason="needs the extra apple")

from core_ai import sqnr_db  # noqa: E402
from core_ml import examples, feeds, run_network  # noqa: E402
from executorch_programs import MARKS, uneven_stack  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mvsdk.errors import BundleError  # noqa: E402
from mvsdk_export.errors import ExportError, UnsupportedOpError  # noqa: E402
from mvsdk_export.targets.coreml.checker import load_program  # noqa: E402
from mvsdk_export.targets.coreml.checker.delegated import extract_package  # noqa: E402
from mvsdk_export.targets.executorch.coreml import lower_coreml_delegate  # noqa: E402
from mvsdk_export.targets.executorch.lowering import lower_xnnpack  # noqa: E402

pytestmark = MARKS


@pytest.fixture(scope="module")
def delegated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a program that holds a Core ML package."""
    path = tmp_path_factory.mktemp("coreml") / "model.pte"
    lower_coreml_delegate(uneven_stack(), examples(), path, deployment_target="iOS18")
    return path


def test_package_inside_a_program_computes_what_pytorch_does(
    delegated: Path, tmp_path: Path
) -> None:
    package, borders = extract_package(delegated, tmp_path)
    assert len(borders.inputs) == 2
    program = load_program(package)
    for feed in feeds():
        made = program.run(dict(zip(borders.inputs, feed.values(), strict=True)))
        assert sqnr_db(made[borders.outputs[0]], run_network(uneven_stack(), feed)) > 55


def test_package_inside_a_program_is_held_to_the_rules_of_the_neural_engine(
    tmp_path: Path,
) -> None:
    class Waves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(x) * 2 + x

    path = tmp_path / "model.pte"
    delegation = lower_coreml_delegate(
        Waves(), {"x": torch.zeros(1, 4, 8, 8)}, path, deployment_target="iOS17"
    )
    assert delegation.basis == "rules"
    assert [item.operator for item in delegation.non_delegated] == ["sin"]
    assert [x.name for x in tmp_path.iterdir()] == ["model.pte"]


def test_what_core_ml_does_not_take_is_an_error(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.i0(x)

    with pytest.raises((UnsupportedOpError, ExportError), match="ExecuTorch refused model: "):
        lower_coreml_delegate(
            Odd(), {"x": torch.zeros(1, 4)}, tmp_path / "model.pte", deployment_target="iOS18"
        )
    assert not list(tmp_path.iterdir())


def _table(path: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    """Return a program up to the table of its delegate's files, what follows, and the table."""
    content = path.read_bytes()
    end = content.rindex(b':"sedon"{') + len(b':"sedon"{')
    table, length = json.JSONDecoder().raw_decode(content[:end][::-1].decode("latin-1"))
    return content[: end - length], content[end:], table


def _rename(table: dict[str, Any]) -> None:
    for node in table["nodes"]:
        if "weights" in node["children"]:
            node["children"][".."] = node["children"].pop("weights")


def _move(table: dict[str, Any]) -> None:
    table["nodes"][0]["dataRegion"]["offset"] = 1 << 40


def _nest(table: dict[str, Any]) -> None:
    table["nodes"][-1]["children"]["model.mlpackage"] = len(table["nodes"]) - 1


def _multiply(table: dict[str, Any]) -> None:
    """Let every folder lie twice in the next: 2^30 of the first."""
    table["nodes"][:] = [
        {"kind": 1, "children": {"a": place - 1, "b": place - 1} if place else {}}
        for place in range(30)
    ]


def _overlap(table: dict[str, Any]) -> None:
    region = max((x["dataRegion"] for x in table["nodes"] if x["kind"] != 1), key=_size)
    for node in table["nodes"]:
        if node["kind"] != 1:
            node["dataRegion"] = region


def _size(region: Mapping[str, int]) -> int:
    return region["size"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rename, "damaged or unsafe"),
        (_move, "damaged or unsafe"),
        (_nest, "damaged or unsafe"),
        (_multiply, "damaged or unsafe"),
        (_overlap, "files lie upon each other"),
        (lambda table: table["nodes"].clear(), "damaged or unsafe"),
        (lambda table: table["nodes"][-1].update(children={}), "has no metadata.json"),
    ],
)
def test_unsafe_tables_of_files_are_refused(
    delegated: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    before, after, table = _table(delegated)
    for node in table["nodes"]:
        del node["name"]  # which nothing reads; what changes may be longer
    change(table)
    written = json.dumps(table, separators=(",", ":")).encode()[::-1]
    whole = len(delegated.read_bytes()) - len(before) - len(after)
    assert len(written) <= whole
    path = tmp_path / "bad.pte"
    path.write_bytes(before + written.rjust(whole, b"\0") + after)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(BundleError, match=message):
        extract_package(path, out)
    assert not list(out.iterdir())


def test_what_is_no_program_for_core_ml_is_refused(delegated: Path, tmp_path: Path) -> None:
    lower_xnnpack(uneven_stack(), examples(), tmp_path / "cpu.pte")
    with pytest.raises(BundleError, match="calls 'XnnpackBackend', expected CoreMLBackend"):
        extract_package(tmp_path / "cpu.pte", tmp_path)
    content = delegated.read_bytes()
    for name, bad in {
        "empty": b"",
        "text": b"not a program at all",
        "short": content[: len(content) // 2],
        "head": content[:40],
    }.items():
        path = tmp_path / f"{name}.pte"
        path.write_bytes(bad)
        with pytest.raises(BundleError, match=rf"the program {name}\.pte .*; export it again"):
            extract_package(path, tmp_path)
