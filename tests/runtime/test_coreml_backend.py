"""The Core ML backend: what runs where, with a model of our own in Core ML's place."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from macs import Mac, Package, half, on_mac, package, picture, tensor
from tiny_bundles import LENGTH, VariantFiles, build_bundle, fake_functions

import mvsdk
from mvsdk import BackendError, BundleError, CoreML, Fake, InputError
from mvsdk._installed import toolchain_install
from mvsdk.bundle import Bundle
from mvsdk.cli import main
from mvsdk.manifest import TensorSpec, Variant

PACKAGES = VariantFiles(target="iphone", package="coreml", precision="w8")
PROMPT = "a rocket flying left"


def _halves(component: str, spec: TensorSpec) -> TensorSpec:
    return replace(spec, dtype=half(spec.dtype))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Return a bundle of Core ML packages, whose tensors are float16 and int32."""
    return build_bundle(tmp_path / "tiny.mvbundle", [PACKAGES], tensors=_halves)


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Mac:
    """Return the Mac that this machine is."""
    mac = Mac({name: package(name, run) for name, run in fake_functions().items()})
    on_mac(monkeypatch, mac)
    return mac


def _variant(bundle: Bundle, component: str = "unet", **changes: Any) -> Variant:
    return replace(bundle.manifest.components[component].variants[0], **changes)


def _load(bundle: Bundle, component: str = "unet", **changes: Any) -> Any:
    return CoreML().load(bundle, _variant(bundle, component, **changes))


# --- clips ---------------------------------------------------------------------------------------


def test_a_mac_makes_the_clip_of_a_bundle_of_packages(bundle: Bundle, mac: Mac) -> None:
    with mvsdk.load(bundle.path) as pipeline:
        assert pipeline.selection.backend.name == "coreml"
        clip = pipeline.generate(PROMPT, seed=3)
        assert clip.frames.tobytes() == pipeline.generate(PROMPT, seed=3).frames.tobytes()
    assert clip.timings is not None
    assert clip.timings.backend == "Core ML on this Mac, CPU_AND_NE"
    same = mvsdk.load(bundle.path, backend=Fake(fake_functions())).generate(PROMPT, seed=3)
    assert np.abs(clip.frames.astype(int) - same.frames.astype(int)).max() <= 1
    assert [units for _, units, _ in mac.loaded] == ["CPU_AND_NE"] * 3


def test_the_command_line_says_that_core_ml_ran(
    bundle: Bundle, mac: Mac, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "clip.npy")
    assert main(["generate", PROMPT, "--bundle", str(bundle.path), "-o", out]) == 0
    (summary,) = capsys.readouterr().err.splitlines()
    assert summary.endswith("iphone/coreml/w8 on Core ML on this Mac, CPU_AND_NE")


def test_the_mac_itself_comes_before_the_checker(
    bundle: Bundle, mac: Mac, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*, group: str) -> Any:
        pytest.fail("looked for backends of other packages")

    monkeypatch.setattr("mvsdk.backends._registry.entry_points", found)
    assert mvsdk.load(bundle.path).selection.backend.name == "coreml"
    assert mvsdk.load(bundle.path, backend="coreml").selection.backend.name == "coreml"


# --- units, functions, types ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "units"),
    [("NPU", "CPU_AND_NE"), ("GPU", "CPU_AND_GPU"), ("CPU", "CPU_ONLY"), ("ALL", "ALL")],
)
def test_a_variant_says_which_units_run_it(bundle: Bundle, mac: Mac, told: Any, units: str) -> None:
    backend = CoreML()
    assert backend.describe() == "Core ML on this Mac"
    backend.load(bundle, _variant(bundle, compute_unit=told))
    assert [loaded[1] for loaded in mac.loaded] == [units]
    assert backend.describe() == f"Core ML on this Mac, {units}"


def test_whoever_makes_the_backend_may_choose_the_units(bundle: Bundle, mac: Mac) -> None:
    backend = CoreML(compute_units="CPU_AND_GPU")
    backend.load(bundle, _variant(bundle))
    assert [units for _, units, _ in mac.loaded] == ["CPU_AND_GPU"]
    assert backend.describe() == "Core ML on this Mac, CPU_AND_GPU"
    with pytest.raises(InputError, match="compute_units is 'NPU'; allowed: CPU_AND_NE, CPU_AND_G"):
        CoreML(compute_units="NPU")  # pyright: ignore[reportArgumentType]


def test_one_function_of_several_is_loaded_and_checked(bundle: Bundle, mac: Mac) -> None:
    right = package("unet", fake_functions()["unet"])
    wrong = Package(inputs=[], outputs=[], run=lambda feeds: {})
    mac.packages = {
        "unet": Package(
            inputs=[],
            outputs=[],
            run=wrong.run,
            functions={"large": wrong, "small": right},
            default="small",
        )
    }
    _load(bundle, function="small")
    assert mac.loaded[0][2] == "small"
    _load(bundle)  # the package's own choice
    with pytest.raises(BundleError, match=r"inputs are \{\}, the manifest says"):
        _load(bundle, function="large")
    with pytest.raises(BackendError, match="Core ML cannot load unet/iphone-coreml-w8: 'none'"):
        _load(bundle, function="none")


def test_arrays_that_are_read_only_are_copied(bundle: Bundle, mac: Mac) -> None:
    ids = np.full((1, LENGTH), 3, np.int32)
    ids.flags.writeable = False
    made = _load(bundle, "text_encoder").run({"input_ids": ids})
    assert made["encoder_hidden_states"].dtype == np.float32
    assert made["encoder_hidden_states"][0, 0, 0] == pytest.approx(0.03)


def test_coremltools_imports_without_a_word(
    bundle: Bundle, mac: Mac, capsys: pytest.CaptureFixture[str]
) -> None:
    _load(bundle)
    assert capsys.readouterr() == ("", "")
    assert not logging.getLogger("coremltools").disabled


# --- refusals ------------------------------------------------------------------------------------


def test_elsewhere_the_checker_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    words = (
        "unet/iphone-coreml-w8: format coreml runs on Apple's systems, and the toolchain's checker "
        f"evaluates it on any; run: {toolchain_install('apple')}"
    )
    with pytest.raises(BackendError, match=re.escape(words)):
        _load(bundle)


def test_other_formats_are_refused(tmp_path: Path, mac: Mac) -> None:
    asset = VariantFiles(target="iphone", package="coreai")
    bundle = build_bundle(tmp_path / "a.mvbundle", [asset])
    assert CoreML().unsupported_reason(_variant(bundle)) == (
        "Core ML runs the format coreml, not coreai"
    )


def test_a_mac_without_coremltools_is_told_to_install_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_mac(monkeypatch, None)
    monkeypatch.setattr("mvsdk.backends._registry.entry_points", lambda *, group: [])
    for ask in (lambda: _load(bundle), lambda: mvsdk.load(bundle.path)):
        with pytest.raises(BackendError, match=r"on a Mac; run: .*install coremltools$"):
            ask()


def test_coremltools_that_does_not_import_is_named_with_its_reason(
    bundle: Bundle, mac: Mac, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_mac(monkeypatch, None)
    monkeypatch.setattr("mvsdk.backends.coreml.installed_version", lambda name: "9.0")
    words = r"coremltools 9\.0 cannot be imported \(No module named .*\); run: .*--force"
    with pytest.raises(BackendError, match=words):
        _load(bundle)


@pytest.mark.parametrize(
    ("system", "macos", "needs"),
    [
        (
            "iOS18",
            "14.7",
            "packages for iOS18 need macOS 15, this Mac has 14; update macOS, export",
        ),
        ("iOS26", "15.5", "packages for iOS26 need macOS 26, this Mac has 15;"),
        ("iOS17", "13.0", "packages for iOS17 need macOS 14, this Mac has 13;"),
        ("iOS17", "14.0", None),
        ("iOS18", "26.1", None),
        ("iOS26", "16.0", None),  # what an older Python is told of macOS 26
        ("iOS26", "26.0", None),
        ("iOS26", "", None),
        (None, "13.0", None),
    ],
)
def test_a_package_wants_the_macos_of_its_system(
    bundle: Bundle,
    mac: Mac,
    monkeypatch: pytest.MonkeyPatch,
    system: str | None,
    macos: str,
    needs: str | None,
) -> None:
    on_mac(monkeypatch, mac, macos=macos)
    variant = _variant(bundle, deployment_target=system)
    reason = CoreML().unsupported_reason(variant)
    assert (reason is None) == (needs is None)
    assert (reason or "").startswith(needs or "")


def test_what_core_ml_says_only_in_a_warning_is_told(bundle: Bundle, mac: Mac) -> None:
    cause = RuntimeError('Error compiling model: "no such operator".\nand more')
    mac.packages = {"unet": package("unet", fake_functions()["unet"], refusal=cause)}
    words = (
        r"Core ML cannot load unet/iphone-coreml-w8: This model was not loaded .*Framework\.; Error"
        r' compiling model: "no such operator"\.; made with coremltools unknown, here is 9\.0 on '
        r"macOS 15\.5, written for 9\.0; .* or use the backend coreml-checker$"
    )
    with pytest.raises(BackendError, match=words):
        _load(bundle)


def _fails(feeds: Any) -> Any:
    raise RuntimeError("E5RT: no engine\nstack of Core ML")


@pytest.mark.parametrize("run", [_fails, lambda feeds: {}], ids=["raises", "lacks an output"])
def test_a_run_that_fails_is_an_error_of_the_backend(
    bundle: Bundle, mac: Mac, run: Callable[..., Any]
) -> None:
    mac.packages = {"vae_decoder": package("vae_decoder", run)}
    session = _load(bundle, "vae_decoder")
    latents = np.zeros(session._inputs[0].shape, np.float32)
    words = r"vae_decoder/iphone-coreml-w8 failed to run on Core ML, CPU_AND_NE: .*; try other comp"
    with pytest.raises(BackendError, match=words):
        session.run({"latents": latents})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": [tensor("frames", (8, 64, 64, 3), "float32")]}, "outputs are .*'float32'"),
        ({"inputs": [tensor("latents", (1, 16, 8, 8), "float16")]}, r"inputs are .*\[1, 16, 8, 8"),
        ({"inputs": [picture("latents")]}, r"inputs are \{'latents': \(\[\], 'imageType'\)\}"),
        (
            {"states": [tensor("cache", (1,), "float16")]},
            "vae_decoder/iphone-coreml-w8: the package keeps the state 'cache' between runs",
        ),
    ],
    ids=["type", "shape", "picture", "state"],
)
def test_a_package_that_is_not_as_the_manifest_says_is_refused(
    bundle: Bundle, mac: Mac, changes: dict[str, Any], words: str
) -> None:
    decoder = package("vae_decoder", fake_functions()["vae_decoder"], **changes)
    mac.packages = {"vae_decoder": decoder}
    with pytest.raises(BundleError, match=words):
        _load(bundle, "vae_decoder")
