"""Clips of the shipped models are, byte by byte, what they were.

`recorded_clips.json` has SHA-256 of the latents after every step and of the frames, for the shipped
weights. Kernels in floating point depend on the processor and on the versions of what runs them:
there are records of several machines, which hold where these are the same; elsewhere tests are
skipped, and say so.

`clips` was written by the code before format 3, of bundles that the folder of
`MVSDK_RECORDED_BUNDLES` may hold (`sticker-snapdragon.mvbundle` and so on, exported with the
defaults): no later runtime may make other clips of them. `exports` is of what is exported now and
takes no calibration, files included. A change of graphs that is meant makes it anew:

    python tests/export/test_unchanged_clips.py
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mvsdk
from mvsdk import cli

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporting import Toolchain
    from numpy.typing import NDArray

pytestmark = [pytest.mark.torch, pytest.mark.slow]
RECORDS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("recorded_clips.json").read_text("utf-8")
)["records"]
KEYS = [(index, key) for index, record in enumerate(RECORDS) for key in sorted(record["clips"])]
PROMPT, SEED, SIDE = "a rocket flying left", 7, 64
OTHER = {"motion": 31, "fps": 12, "noise_aug_strength": 0.25}
RUNTIMES = {
    "onnx": ("onnxruntime",),
    "snapdragon": ("onnxruntime", "onnxruntime-qnn"),
    "executorch": ("executorch",),
    "iphone": ("coreai-core",),
}
"""Target -> what runs its graphs here."""
EXPORTERS = ("torch", "onnx", "onnxscript", "onnx-ir", "numpy")


def picture() -> NDArray[np.uint8]:
    """Return RGB, uint8, (SIDE, SIDE, 3), made of whole numbers."""
    y, x = np.arange(SIDE)[:, None], np.arange(SIDE)[None, :]
    red = (4 * x + y) % 256
    green = (x * y) // 16 % 256
    blue = (3 * x + 5 * y + 16 * ((x // 8) ^ (y // 8))) % 256
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def difference(machine: Mapping[str, Any], packages: Sequence[str]) -> str | None:
    """Return what is other here than on a machine; None if nothing is that matters."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    flags = set(next((x for x in lines if x.startswith("flags")), "").split())
    if {name: name in flags for name in machine["flags"]} != machine["flags"]:
        return "recorded on a processor with other instructions"
    for name in packages:
        if importlib.metadata.version(name) != machine["packages"][name]:
            return f"recorded with {name} {machine['packages'][name]}"
    return None


def record_of_this_machine(*packages: str) -> dict[str, Any]:
    """Return the record that holds here, or skip the test."""
    differences = [difference(record["machine"], packages) for record in RECORDS]
    if None not in differences:
        pytest.skip("; ".join(dict.fromkeys(filter(None, differences))))
    return RECORDS[differences.index(None)]


def exports_of_this_machine(*packages: str) -> dict[str, Any]:
    """Return what is recorded of exports here, or skip the test."""
    exports = record_of_this_machine(*packages).get("exports")
    return exports or pytest.skip("no export is recorded of this machine")


def make(bundle: Path, choice: Mapping[str, str], call: str) -> dict[str, object]:
    """Make a clip as its record says; return its hashes."""
    latents: list[str] = []
    with mvsdk.load(bundle, **choice) as pipeline:
        if pipeline.manifest.program.task == "image_to_video":
            options: dict[str, Any] = OTHER if call == "other" else {}
            steps = pipeline.stream_animation(picture(), seed=SEED, **options)
        else:
            count = int(call.removeprefix("steps=")) if call.startswith("steps=") else None
            steps = pipeline.stream(PROMPT, seed=SEED, num_inference_steps=count)
        frames = ""
        for step in steps:
            latents.append(digest(step.latents))
            if step.video is not None:
                frames = digest(step.video.frames)
    return {"latents": latents, "frames": frames}


@pytest.fixture(scope="module", params=["sticker", "animator"])
def shipped(
    request: pytest.FixtureRequest, toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Return a shipped model and its bundle in float32 and float16, which take no calibration."""
    exports_of_this_machine(*EXPORTERS)
    out = tmp_path_factory.mktemp("shipped") / f"{request.param}.mvbundle"
    done = toolchain(
        *("export", "--model", request.param, "--target", "onnx", "--precision", "fp32,fp16"),
        *("--no-verify", "--out", out),
    )
    assert done.status == 0, done.err
    return request.param, out


def test_exported_files_are_what_they_were(shipped: tuple[str, Path]) -> None:
    model, bundle = shipped
    recorded = exports_of_this_machine(*EXPORTERS)["files"]
    assert hashes_of(model, bundle) == {k: x for k, x in recorded.items() if k.startswith(model)}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clips_of_a_new_bundle_are_what_they_were(
    shipped: tuple[str, Path], precision: str
) -> None:
    clips = exports_of_this_machine("numpy", *RUNTIMES["onnx"])["clips"]
    model, bundle = shipped
    keys = [key for key in clips if key.startswith(f"{model}/onnx-{precision}/")]
    assert keys
    for key in keys:
        choice = {"target": "onnx", "precision": precision}
        assert make(bundle, choice, key.rpartition("/")[2]) == clips[key], key


def hashes_of(model: str, bundle: Path) -> dict[str, str]:
    """Return the hashes of the ONNX files of a bundle, by model and path."""
    return {
        f"{model}/{path.relative_to(bundle).as_posix()}": hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(bundle.rglob("*.onnx"))
    }


@pytest.mark.parametrize(("index", "key"), KEYS)
def test_clips_of_recorded_bundles_are_what_they_were(index: int, key: str) -> None:
    folder = os.environ.get("MVSDK_RECORDED_BUNDLES")
    if folder is None:
        pytest.skip("MVSDK_RECORDED_BUNDLES names no folder of bundles")
    model, kind, call = key.split("/")
    target, *middle, precision = kind.split("-")
    end = "coreai" if target == "iphone" else target
    bundle = Path(folder) / f"{model}-{end}.mvbundle"
    if not bundle.exists():
        pytest.skip(f"{bundle.name} is not there")
    if reason := difference(RECORDS[index]["machine"], ("numpy", *RUNTIMES[target])):
        pytest.skip(reason)
    choice = {"target": target, "precision": precision}
    if middle:
        name = "chip" if target == "snapdragon" else "format"
        choice[name] = middle[0]
    assert make(bundle, choice, call) == RECORDS[index]["clips"][key]


def main() -> None:
    """Record what is exported now, where a record of this machine is there."""
    place = Path(__file__).with_name("recorded_clips.json")
    document = json.loads(place.read_text("utf-8"))
    record = next(
        x
        for x in document["records"]
        if difference(x["machine"], (*EXPORTERS, "onnxruntime")) is None
    )
    files: dict[str, str] = {}
    clips: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model, calls in CALLS.items():
            out = Path(folder) / f"{model}.mvbundle"
            command = ["export", "--model", model, "--target", "onnx", "--no-verify"]
            assert cli.main([*command, "--precision", "fp32,fp16", "--out", str(out)]) == 0
            files |= hashes_of(model, out)
            for precision, call in calls:
                choice = {"target": "onnx", "precision": precision}
                clips[f"{model}/onnx-{precision}/{call}"] = make(out, choice, call)
    record["exports"] = {"files": files, "clips": clips}
    place.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


CALLS = {
    "sticker": [
        *(("fp32", call) for call in ("default", "steps=1", "steps=2")),
        ("fp16", "default"),
    ],
    "animator": [
        (precision, call) for precision in ("fp32", "fp16") for call in ("default", "other")
    ],
}
"""Model -> precisions, and what is asked for, that are recorded."""

if __name__ == "__main__":
    main()
