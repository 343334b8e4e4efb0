"""Apple's beta packages: every call of them that the toolchain makes, and what is said if it fails.

Where a new release breaks something, the first test says in one sentence which call of which one.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coreai")
pytest.importorskip("coreai_torch")

from core_ai import MARKS  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mvsdk.backends.native_output import captured_native_output  # noqa: E402
from mvsdk_export.errors import (  # noqa: E402
    TargetUnavailableError,
    UnsupportedOpError,
    first_line,
)
from mvsdk_export.targets.coreai import tools  # noqa: E402
from mvsdk_export.targets.coreai.lowering import lower_coreai  # noqa: E402
from mvsdk_export.targets.coreai.tools import BETA, quiet  # noqa: E402

pytestmark = MARKS


class Encoded(nn.Module):
    """A convolution, a normalisation that Core AI knows as a composite, and encoded weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.register_buffer("linear_data", torch.randint(-128, 128, (4, 4, 1, 1)).to(torch.int8))
        self.register_buffer("linear_scale", torch.rand(4, 1, 1, 1) / 64)
        self.register_buffer("palette_indices", torch.randint(0, 16, (4, 4, 1, 1)).byte())
        self.register_buffer("palette_lut", torch.randn(2, 1, 1, 1, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(1, 4, 6, 6)` to the same shape."""
        weight = torch.ops.coreai.constexpr_blockwise_shift_scale(
            self.linear_data, self.linear_scale, None, None, torch.int8
        )
        h = torch.conv2d(self.norm(self.first(x)), weight)
        weight = torch.ops.coreai.lut_to_dense(self.palette_indices, self.palette_lut, 0)
        return torch.conv2d(h, weight)


@contextlib.contextmanager
def calling(what: str, package: str) -> Iterator[None]:
    """Say of anything that goes wrong inside which call it was."""
    try:
        with quiet():
            yield
    except Exception as exc:
        version = importlib.metadata.version(package)
        pytest.fail(
            f"{what} of {package} {version} broke ({BETA[package]} was tried): {first_line(exc)}",
            pytrace=False,
        )


def check(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


async def run(authoring: Any, runtime: Any, path: Path, values: Any) -> Any:
    async with authoring.AIModelAsset.load(path).executable() as model:
        function = model.load_function("main")
        shown = function.desc.input_descriptor("x")
        check((list(shown.shape), shown.dtype) == ([1, 4, 6, 6], "float16"), "another descriptor")
        made = await function({"x": runtime.NDArray(values)})
        return made["y"].numpy().copy()


def test_core_ai_beta_still_works(tmp_path: Path) -> None:
    network, x = Encoded().eval(), torch.randn(1, 4, 6, 6)
    path = tmp_path / "beta.aimodel"
    with calling("import", "coreai-torch"):
        coreai_torch = importlib.import_module("coreai_torch")
    with calling("torch.ops.coreai of coreai_torch._compression.custom_layers", "coreai-torch"):
        importlib.import_module("coreai_torch._compression.custom_layers")
        with torch.inference_mode():
            wanted = network(x).numpy()
        program = torch.export.export(network, (x,))
    with calling("get_decomp_table", "coreai-torch"):
        table = coreai_torch.get_decomp_table()
        check(torch.ops.aten.silu.default not in table, "SiLU is decomposed by now")
        program = program.run_decompositions(table)
    with calling("casting.cast_fp32_to_fp16", "coreai-opt"):
        importlib.import_module("coreai_opt.casting").cast_fp32_to_fp16(program)
        types = {value.dtype for value in program.state_dict.values()}
        check(types == {torch.float16, torch.int8, torch.uint8}, f"it left {types}")
    with calling("TorchConverter", "coreai-torch"):
        modes = coreai_torch.TorchConverter.Mode
        converter = coreai_torch.TorchConverter(mode=modes.RELEASE)
        converter.add_exported_program(
            program, input_names=["x"], output_names=["y"], entrypoint_name="main"
        )
        made = converter.to_coreai()
        converter.clear()
    with calling("the MLIR module of AIProgram", "coreai-core"):
        graphs = list(made._module._mlir_module.body.operations)
        composites = [g for g in graphs if "composite_decl" in g.attributes]
        check(len(composites) == 1, f"{len(composites)} composites, not one")
        check('"group_norm"' in str(composites[0].attributes["composite_decl"]), "another name")
        (main,) = (g for g in graphs if g not in composites)
        check(main.attributes["sym_name"].value == "main", "another name")
        check(main.attributes["arg_attrs"][0]["coreai.name"].value == "x", "another input")
        check(main.attributes["res_attrs"][0]["coreai.name"].value == "y", "another output")
        (kind,) = main.type.inputs
        check((list(kind.shape), str(kind.element_type)) == ([1, 4, 6, 6], "f16"), "another type")
        body = main.regions[0].blocks[0].operations
        names = [operation.operation.name for operation in body]
        check({"coreai.invoke", "coreai.conv2d", "coreai.lut_to_dense"} <= set(names), str(names))
        (call,) = (x for x in body if x.operation.name == "coreai.invoke")
    with calling("SymbolTable", "coreai-core"):
        symbols = importlib.import_module("coreai._compiler.ir").SymbolTable
        old = symbols.get_symbol_name(composites[0].operation).value
        symbols.replace_all_symbol_uses(old, "renamed", made._module._mlir_module.operation)
        symbols.set_symbol_name(composites[0].operation, "renamed")
        check("@renamed" in str(call.attributes["callee"]), "the call has the old name")
    with calling("AIModelAssetMetadata", "coreai-core"):
        runtime = importlib.import_module("coreai.runtime")
        said = runtime.AIModelAssetMetadata()
        said.author, said.license = "somebody", "BSD-3-Clause"
        said.set_custom("key", "text")
    with calling("AIProgram.save_asset", "coreai-core"):
        made.save_asset(path, said)
        files = sorted(file.name for file in path.iterdir())
        check(files == ["main.hash", "main.mlirb", "metadata.json"], f"files are {files}")
        document = json.loads((path / "metadata.json").read_text())
        check("creationDate" in document, "the date has another key")
    with calling("AIModelAsset and NDArray", "coreai-core"), captured_native_output():
        authoring = importlib.import_module("coreai.authoring")
        found = asyncio.run(run(authoring, runtime, path, x.half().numpy()))
        check(np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max(), "it computes otherwise")


@pytest.mark.parametrize("missing", ["coreai_torch", "coreai.runtime", "coreai_opt.casting"])
def test_missing_package_is_an_error_of_the_target(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(TargetUnavailableError, match=rf"{missing}.*pip install .*coreai"):
        lower_coreai(
            nn.ReLU(), {"x": torch.zeros(1, 4)}, ["y"], tmp_path / "x.aimodel", precision="fp16"
        )
    assert not (tmp_path / "x.aimodel").exists()


def test_release_that_broke_is_named_beside_those_that_were_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import coreai_torch

    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "9.9" if name == "coreai-torch" else real(name)
    )
    monkeypatch.delattr(coreai_torch.TorchConverter, "to_coreai")
    with pytest.raises(
        TargetUnavailableError,
        match=r"converting x for Core AI failed.* no attribute 'to_coreai'; tried with "
        r"coreai-core 1.0.0b3, coreai-torch 0.4.3, coreai-opt 0.4.0, here is coreai-torch 9.9; "
        r"run: .*pip install",
    ):
        lower_coreai(
            nn.ReLU(), {"x": torch.zeros(1, 4)}, ["y"], tmp_path / "x.aimodel", precision="fp32"
        )


def test_releases_that_were_tried_go_without_saying_what_is_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tools, "installed_releases", lambda: dict(tools.BETA))
    assert "here is" not in tools.describe_releases()


def test_operator_that_core_ai_does_not_have_is_refused(tmp_path: Path) -> None:
    class Refused(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    with pytest.raises(UnsupportedOpError, match=r"converting x .*bessel_j0.*; tried with coreai"):
        lower_coreai(
            Refused(), {"x": torch.zeros(1, 4)}, ["y"], tmp_path / "x.aimodel", precision="fp32"
        )
