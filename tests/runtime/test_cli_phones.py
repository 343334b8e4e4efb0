"""The command line on bundles for phones: what is chosen, shown and found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import CapSys, refusal
from tiny_bundles import VariantFiles, build_bundle, fake_functions

from mvsdk.backends.fake import Fake
from mvsdk.cli import main
from mvsdk.manifest import Delegation, NonDelegated

pytestmark = pytest.mark.usefixtures("workplace")

PROMPT = "a rocket flying left"
KINDS = [
    VariantFiles(),
    VariantFiles(target="iphone", package="coreml", precision="w8"),
    VariantFiles(target="iphone", package="coreai", precision="fp16"),
    VariantFiles(target="executorch", delegate="xnnpack"),
]


class _Phone(Fake):
    """Runs whatever is no onnx."""

    @property
    def name(self) -> str:
        return "phone"

    def describe(self) -> str:
        return "a phone that is none"

    def unsupported_reason(self, variant: Any) -> str | None:
        return "a phone runs no onnx" if variant.target == "onnx" else None


class _EntryPoint:
    """Stands for a backend that another package offers."""

    value = "elsewhere:Phone"

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name, self._error = name, error

    def load(self) -> Any:
        if self._error is not None:
            raise self._error
        return lambda: _Phone(fake_functions())


@pytest.fixture
def bundle(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a bundle into the working folder, and install what runs its phones' variants."""
    points = [_EntryPoint("phone"), _EntryPoint("broken", ImportError("no module named torch"))]
    monkeypatch.setattr("mvsdk.backends._registry.entry_points", lambda *, group: points)
    return build_bundle(workplace / "tiny.mvbundle", KINDS).path


@pytest.mark.usefixtures("bundle")
def test_a_backend_is_chosen_by_name(capsys: CapSys) -> None:
    assert main(["generate", PROMPT, "--backend", "phone", "-o", "clip.npy"]) == 0
    assert "executorch/xnnpack/fp32 on a phone that is none" in capsys.readouterr().err
    line = refusal(capsys, "generate", PROMPT, "--backend", "nobody")
    known = "onnxruntime, qnn, executorch, coreml, coreai, phone"
    assert f"unknown backend 'nobody'; known: {known}" in line
    line = refusal(capsys, "generate", PROMPT, "--backend", "broken")
    assert "backend broken: elsewhere:Phone does not load (ImportError: no module named" in line


@pytest.mark.usefixtures("bundle")
@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["--target", "iphone"], ("iphone", "coreml", None, "w8")),
        (["--format", "coreai"], ("iphone", "coreai", None, "fp16")),
        (["--format", "xnnpack"], ("executorch", "executorch", "xnnpack", "fp32")),
    ],
)
def test_target_and_format_are_chosen_and_told(
    capsys: CapSys, options: list[str], kind: tuple[str | None, ...]
) -> None:
    argv = ["generate", PROMPT, "--backend", "phone", "--json", "-o", "clip.npy", *options]
    assert main(argv) == 0
    facts = json.loads(capsys.readouterr().out)
    assert tuple(facts[key] for key in ("target", "format", "delegate", "precision")) == kind
    assert facts["backend"] == "a phone that is none"


@pytest.mark.usefixtures("bundle")
def test_what_the_bundle_lacks_is_refused(capsys: CapSys) -> None:
    line = refusal(capsys, "generate", PROMPT, "--target", "onnx", "--format", "coreml")
    assert "no variant with target=onnx format=coreml in tiny.mvbundle; it holds onnx/fp32," in line
    assert "iphone/coreml/w8, iphone/coreai/fp16, executorch/xnnpack/fp32; choose" in line


@pytest.mark.usefixtures("bundle")
def test_doctor_lists_backends_of_other_packages(capsys: CapSys) -> None:
    assert main(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["backend phone"]["found"] == "a phone that is none"
    assert checks["backend broken"]["ok"] is False
    assert "no module named torch" in checks["backend broken"]["found"]
    assert {"[apple]", "[coreai]", "[executorch]"} <= set(checks)


def _with_delegation(path: Path, delegation: Delegation) -> Path:
    """Write a bundle whose second variant of the denoiser says where its operators run."""
    plain = build_bundle(path / "plain.mvbundle", KINDS).manifest
    unet = plain.components["unet"]
    first, second, *others = unet.variants
    variants = (first, replace(second, delegation=delegation), *others)
    components = {**plain.components, "unet": replace(unet, variants=variants)}
    seen = build_bundle(path / "seen.mvbundle", KINDS, components_of_manifest=components)
    return seen.path


def test_inspect_shows_formats_systems_and_what_is_predicted(
    capsys: CapSys, workplace: Path
) -> None:
    operators = tuple(
        NonDelegated(operator=name, name="", reason="integers") for name in ("gather", "gather")
    )
    delegation = Delegation(delegated=9, non_delegated=operators, basis="rules")
    assert main(["inspect", str(_with_delegation(workplace, delegation))]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("unet")]
    assert [row[1:4] for row in rows] == [
        ["onnx", "fp32", "any"],
        ["iphone/coreml", "w8", "iOS18"],
        ["iphone/coreai", "fp16", "iOS18"],
        ["executorch/xnnpack", "fp32", "any"],
    ]
    assert " ".join(rows[1][-3:]) == "2: gather (predicted)"
    assert max(map(len, lines)) <= 100


def test_inspect_names_few_of_many_operators(capsys: CapSys, workplace: Path) -> None:
    operators = tuple(
        NonDelegated(operator=f"op{n}", name="", reason="unsupported") for n in range(5)
    )
    delegation = Delegation(delegated=9, non_delegated=operators)
    assert main(["inspect", str(_with_delegation(workplace, delegation))]) == 0
    assert "5: op0, op1, op2, ...\n" in capsys.readouterr().out
