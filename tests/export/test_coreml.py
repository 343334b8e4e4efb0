"""Core ML packages: what is converted, compressed, cut and joined computes what it should."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

from core_ml import (  # noqa: E402
    WIDTH,
    Stack,
    examples,
    feeds,
    run_network,
    run_package,
    worst_db,
    write_stack,
)
from torch import nn  # noqa: E402

from mvsdk._installed import toolchain_install  # noqa: E402
from mvsdk_export.errors import (  # noqa: E402
    CompressionError,
    ExportError,
    TargetUnavailableError,
    UnsupportedOpError,
)
from mvsdk_export.targets.coreml import tools  # noqa: E402
from mvsdk_export.targets.coreml.chunks import (  # noqa: E402
    make_pipeline,
    split_pipeline,
)
from mvsdk_export.targets.coreml.compress import compress_package, schemes_for  # noqa: E402
from mvsdk_export.targets.coreml.convert import convert  # noqa: E402
from mvsdk_export.targets.coreml.finish import finish_package  # noqa: E402
from mvsdk_export.targets.coreml.functions import join_functions  # noqa: E402
from mvsdk_export.targets.coreml.package import (  # noqa: E402
    block_of,
    read_model,
    weight_files,
)

pytestmark = [
    pytest.mark.torch,
    pytest.mark.apple,
    # coremltools leaves the folders of its models to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:coremltools"),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """Return a package for iOS 18 and its network: only read them."""
    path = tmp_path_factory.mktemp("coreml") / "Stack.mlpackage"
    return path, write_stack(path)


def hashes(path: Path) -> dict[str, str]:
    return {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*")
        if file.is_file()
    }


def bytes_of(path: Path) -> int:
    return sum(file.stat().st_size for file in weight_files(path))


def types_of(path: Path) -> set[str]:
    return {operation.type for operation in block_of(read_model(path).mlProgram).operations}


# --- conversion -----------------------------------------------------------------------------------


def test_converted_network_computes_in_half_precision_what_pytorch_does(
    stack: tuple[Path, nn.Module],
) -> None:
    path, network = stack
    assert worst_db(path, network, feeds()) > 55
    model = read_model(path)
    assert model.specificationVersion == 9
    assert [item.name for item in model.description.input] == ["x", "scale"]
    assert [item.name for item in model.description.output] == ["y"]
    kinds = {item.type.multiArrayType.dataType for item in model.description.input}
    assert kinds == {65552}  # FLOAT16 of ArrayFeatureType


def test_packages_of_equal_networks_are_equal_and_say_which_tools_made_them(
    stack: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    write_stack(tmp_path / "again.mlpackage")
    assert hashes(tmp_path / "again.mlpackage") == hashes(stack[0])
    said = read_model(stack[0]).description.metadata.userDefined
    assert said["com.github.apple.coremltools.version"] == "9.0"
    assert set(said) == set(tools.tool_metadata())


def test_unknown_deployment_target_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'iOS9' is none of Core ML's .* iOS17, iOS18, iOS26"):
        convert(Stack(), examples(), ["y"], tmp_path / "x.mlpackage", deployment_target="iOS9")
    assert not list(tmp_path.iterdir())


class Sorted(nn.Module):
    """What the converter has no form of."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x)


def test_what_the_converter_has_no_form_of_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOpError, match=r"coremltools refused x for iOS18: .*svd"):
        convert(
            Sorted(),
            {"x": torch.randn(4, 4)},
            ["y"],
            tmp_path / "x.mlpackage",
            deployment_target="iOS18",
        )
    assert not list(tmp_path.iterdir())


def test_missing_coremltools_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(tools.importlib, "import_module", refuse)
    with pytest.raises(
        TargetUnavailableError, match=re.escape(f"run: {toolchain_install('apple')}")
    ):
        tools.import_coremltools()


# --- compression ----------------------------------------------------------------------------------


@pytest.mark.parametrize("deployment_target", ["iOS17", "iOS18"])
@pytest.mark.parametrize(("precision", "target_db", "share"), [("w8", 42, 0.6), ("w4", 22, 0.45)])
def test_compressed_weights_keep_the_wanted_parity_in_fewer_bytes(
    deployment_target: str, precision: str, target_db: float, share: float, tmp_path: Path
) -> None:
    source, target = tmp_path / "Stack.mlpackage", tmp_path / "small" / "Stack.mlpackage"
    target.parent.mkdir()
    network = write_stack(source, deployment_target=deployment_target)
    found = compress_package(
        source, network, examples(), feeds(), target, precision=precision, target_db=target_db
    )
    assert found.sqnr_db >= target_db
    assert worst_db(target, network, feeds()) == pytest.approx(
        found.sqnr_db, abs=2
    )  # activations are float16 there
    assert bytes_of(target) < share * bytes_of(source)
    assert any(name.startswith("constexpr_") for name in types_of(target))
    assert not any(name.startswith("constexpr_") for name in types_of(source))


def test_what_core_ml_decodes_is_what_was_chosen(
    stack: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    """Coremltools decodes the weights by code of its own."""
    import coremltools as ct

    path, network = stack
    target = tmp_path / "Stack.mlpackage"
    found = compress_package(
        path, network, examples(), feeds(), target, precision="w4", target_db=25
    )
    model = ct.models.MLModel(str(target), skip_model_load=True)
    ct.optimize.coreml.decompress_weights(model).save(str(tmp_path / "dense.mlpackage"))
    from mvsdk_export.targets.coreml.package import WeightReader, constants_of

    dense = tmp_path / "dense.mlpackage"
    reader = WeightReader(weight_files(dense)[0])
    decoded = [
        reader.read(value).tobytes()
        for _, value in constants_of(block_of(read_model(dense).mlProgram).operations)
    ]
    assert len(found.weights) >= 5
    for name, weight in found.weights.items():
        assert weight.dense.tobytes() in decoded, name


def test_palette_that_is_impossible_for_a_layer_names_it(
    stack: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    path, network = stack
    with pytest.raises(
        CompressionError, match=rf"first\.weight has {WIDTH} output channels.*--palette-group 24"
    ):
        compress_package(
            path,
            network,
            examples(),
            feeds(),
            tmp_path / "x.mlpackage",
            precision="w6",
            target_db=30,
            group=32,
        )
    assert not list(tmp_path.iterdir())


def test_older_systems_get_one_palette_and_no_blocks() -> None:
    old = schemes_for("w", (64, 64), "w4", blockwise=False, group=None)
    new = schemes_for("w", (64, 64), "w4", blockwise=True, group=None)
    assert {x.group for x in old} == {0}
    assert not any(x.block for x in old)
    assert any(x.group for x in new)
    assert any(x.block for x in new)


# --- chunks and functions -------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "chunks"), [(0.7, 2), (0.5, 3), (0.45, 4)])
def test_pipeline_of_chunks_computes_exactly_what_the_whole_does(
    share: float, chunks: int, stack: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    path, _ = stack
    target = tmp_path / "Stack.mlpackage"
    limit = int(bytes_of(path) * share)
    assert make_pipeline(path, target, chunk_bytes=limit)
    assert len(read_model(target).pipeline.models) == chunks
    assert max(file.stat().st_size for file in weight_files(target)) <= limit
    for feed in feeds():
        assert np.array_equal(run_package(target, feed)["y"], run_package(path, feed)["y"])


def test_chunks_apart_run_one_after_the_other(
    stack: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    path, _ = stack
    make_pipeline(path, tmp_path / "Stack.mlpackage", chunk_bytes=bytes_of(path) * 2 // 3)
    known: dict[str, Any] = dict(feeds()[0])
    for chunk in split_pipeline(tmp_path / "Stack.mlpackage", tmp_path):
        known |= run_package(chunk, known)
    assert np.array_equal(known["y"], run_package(path, feeds()[0])["y"])


def test_package_above_the_limit_is_cut_and_checked(
    stack: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    path, _ = stack
    limit = bytes_of(path) * 2 // 3
    target = tmp_path / "Stack.mlpackage"
    report = finish_package(path, target, chunk_bytes=limit)
    assert len(read_model(target).pipeline.models) == 2
    assert [item.name for item in report.inputs] == ["x", "scale"]
    assert report.outputs[0].dtype == "float16"
    with pytest.raises(ExportError, match="allow larger"):
        finish_package(path, tmp_path / "tiny.mlpackage", chunk_bytes=1000)


def test_functions_of_two_sizes_share_their_weights(
    stack: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    path, network = stack
    write_stack(tmp_path / "large.mlpackage", size=12)
    joined = tmp_path / "Stack.mlpackage"
    join_functions({"small": path, "large": tmp_path / "large.mlpackage"}, joined)
    assert bytes_of(joined) < 1.02 * bytes_of(path)
    for name, size in (("small", 8), ("large", 12)):
        feed = feeds(1, size)[0]
        (given,) = run_package(joined, feed, function=name).values()
        np.testing.assert_allclose(given, run_network(network, feed), atol=0.02)


def test_functions_want_ios_18(tmp_path: Path) -> None:
    write_stack(tmp_path / "old.mlpackage", deployment_target="iOS17")
    with pytest.raises(ExportError, match=r"old\.mlpackage cannot be one function of several"):
        join_functions({"a": tmp_path / "old.mlpackage"}, tmp_path / "joined.mlpackage")
