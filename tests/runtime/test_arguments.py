"""The edge of the API: whatever is passed, a mistake of the caller's is one `InputError`.

Every parameter of every public function and method is found by `inspect.signature` and gets every
wrong value of a list, while the others are right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image
from tiny_animators import build_animator, fake_animator
from tiny_bundles import LATENTS, build_bundle, fake_functions
from tiny_editors import CLIP, EDITOR, UPSCALER, build_editor, build_upscaler
from tiny_programs import fake as functions

import mvsdk
from mvsdk import Fake, MvsdkError
from mvsdk.backends._speed import Placing
from mvsdk.bundle import Bundle
from mvsdk.manifest import Manifest


class _Odd:
    """An object of no use, whose repr is broken."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class _BytesPath:
    def __fspath__(self) -> bytes:
        return b"clip.mp4"


WRONG: Mapping[str, object] = {
    "None": None,
    "an int": 8,
    "a large int": 10**400,
    "a negative int": -1,
    "a float": 2.5,
    "nan": float("nan"),
    "text": "seven",
    "empty text": "",
    "a number as text": "7",
    "a null byte": "a\0b.mp4",
    "half a pair": "\udcff",
    "long text": "x" * 10_000,
    "bytes": b"clip.mp4",
    "a list": ["a rocket"],
    "a dict": {"a": 1},
    "a tuple": (1, 2, 3),
    "words": ("a", "b", "c"),
    "a set": {1},
    "true": True,
    "an array": np.zeros((2, 3), np.float32),
    "no array": np.zeros(0),
    "a numpy float": np.float32(1.5),
    "a numpy flag": np.True_,
    "a class": mvsdk.OnnxRuntime,
    "an object": object(),
    "broken": _Odd(),
    "a path of bytes": _BytesPath(),
    "a function": lambda *_: None,
    "an error": ValueError("x"),
}


@dataclass(frozen=True)
class Call:
    """A public function with arguments that are right."""

    name: str
    function: Callable[..., Any]
    right: Mapping[str, Any]

    def parameters(self) -> list[str]:
        found = inspect.signature(self.function).parameters.values()
        assert all(item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL) for item in found)
        return [item.name for item in found if not item.name.startswith("_")]

    def __call__(self, **wrong: Any) -> None:
        given = {**self.right, **wrong}
        found = inspect.signature(self.function).parameters.values()
        first = [given.pop(item.name) for item in found if item.kind is item.POSITIONAL_ONLY]
        result = self.function(*first, **given)
        if isinstance(result, Iterator):
            for _ in result:
                pass


def _calls(folder: Path) -> list[Call]:
    """Return every public function and method, each with arguments that are right."""
    bundle = build_bundle(folder / "tiny.mvbundle")
    pictures = build_animator(folder / "animator.mvbundle")
    fake, animator = Fake(fake_functions()), Fake(fake_animator())
    pipeline = mvsdk.load(bundle.path, backend=fake)
    clips = mvsdk.load(pictures.path, backend=animator)
    editor = build_editor(folder / "editor.mvbundle")
    upscaler = build_upscaler(folder / "upscaler.mvbundle")
    edits = mvsdk.load(editor.path, backend=functions(EDITOR))
    larger = mvsdk.load(upscaler.path, backend=functions(UPSCALER))
    frames = np.zeros(CLIP, np.uint8)
    *_, step = pipeline.stream("a rocket")
    video = step.video
    assert video is not None
    assert video.timings is not None
    unet = bundle.manifest.components["unet"].variants[0]
    writer = mvsdk.BundleWriter(folder / "half.mvbundle")
    writer.__enter__()
    picture = Image.new("RGB", (8, 8))
    options = {"num_inference_steps": 1, "seed": 7}
    told = {"motion": 3, "fps": 8, "noise_aug_strength": 0.1}
    session = pipeline.session("text_encoder")
    shape = dict(zip(("seed", "shape", "stream"), (7, LATENTS, 1), strict=True))
    device = mvsdk.Device(platform="linux", runtimes={"onnxruntime": "1.31"})
    calls: dict[str, tuple[Callable[..., Any], Mapping[str, Any]]] = {
        "load": (mvsdk.load, {"path": bundle.path, "backend": fake}),
        "slim_bundle": (
            mvsdk.slim_bundle,
            {
                "path": bundle.path,
                "out": folder / "s.mvbundle",
                "target": "onnx",
                "overwrite": True,
            },
        ),
        "choose": (mvsdk.choose, {"manifest": bundle.manifest, "device": device}),
        "Choice": (mvsdk.Choice, _fields(mvsdk.choose(bundle.manifest, device))),
        "Device": (mvsdk.Device, _fields(device)),
        "Device.from_soc": (mvsdk.Device.from_soc, {"soc_model": "SM8650"}),
        "find_chipset": (mvsdk.find_chipset, {"name": "sm8650"}),
        "initial_latents": (mvsdk.initial_latents, shape),
        "Pipeline": (
            mvsdk.Pipeline,
            {"bundle": bundle, "selection": pipeline.selection, "memory": "fast"},
        ),
        "Pipeline.generate": (pipeline.generate, {"prompt": "a rocket", **options}),
        "Pipeline.stream": (pipeline.stream, {"prompt": "a rocket", **options}),
        "Pipeline.animate": (clips.animate, {"image": picture, **options, **told}),
        "Pipeline.stream_animation": (
            clips.stream_animation,
            {"image": picture, **options, **told},
        ),
        "Pipeline.check_task": (pipeline.check_task, {"task": "text_to_video"}),
        "Pipeline.tokenizer": (pipeline.tokenizer, {"name": "main"}),
        "Pipeline.session": (pipeline.session, {"component": "unet"}),
        "Pipeline.edit": (edits.edit, {"clip": frames, "prompt": "a cat", "seed": 7}),
        "Pipeline.upscale": (larger.upscale, {"clip": frames, "seed": 7}),
        "Pipeline.run": (larger.run, {"given": {"clip": frames}, "program": "default"}),
        "GenerateOptions": (mvsdk.GenerateOptions, options),
        "Step": (mvsdk.Step, {name: getattr(step, name) for name in step.__slots__}),
        "Video": (mvsdk.Video, {name: getattr(video, name) for name in video.__slots__}),
        "Video.save": (video.save, {"path": folder / "clip.npy"}),
        "Timings": (
            mvsdk.Timings,
            {name: getattr(video.timings, name) for name in video.timings.__slots__},
        ),
        "Bundle": (mvsdk.Bundle, _fields(bundle)),
        "Bundle.open": (Bundle.open, {"path": bundle.path}),
        "Bundle.file": (bundle.file, {"ref": unet.files[0]}),
        "Bundle.model": (bundle.model, {"variant": unet}),
        "Bundle.is_installed": (bundle.is_installed, {"variant": unet}),
        "Bundle.replace_manifest": (bundle.replace_manifest, {"manifest": bundle.manifest}),
        "BundleWriter": (mvsdk.BundleWriter, {"out": folder / "new.mvbundle"}),
        "BundleWriter.add_file": (
            writer.add_file,
            {"relative": "a.bin", "source": bundle.file(unet.files[0])},
        ),
        "BundleWriter.preview": (_fresh(folder, "preview"), {"manifest": bundle.manifest}),
        "BundleWriter.commit": (_fresh(folder, "commit"), {"manifest": bundle.manifest}),
        "Manifest": (
            Manifest,
            {name: getattr(bundle.manifest, name) for name in Manifest.__slots__},
        ),
        "Manifest.from_json": (Manifest.from_json, {"payload": bundle.manifest.to_json()}),
        "Manifest.component": (bundle.manifest.component, {"name": "unet"}),
        "Manifest.variants_of": (bundle.manifest.variants_of, {"chosen": bundle.manifest.sets[0]}),
        "Manifest.names_with_role": (bundle.manifest.names_with_role, {"role": "denoiser"}),
        "Session.run": (session.run, {"inputs": {"input_ids": np.zeros((1, 6), np.int32)}}),
        "OnnxRuntime": (mvsdk.OnnxRuntime, {}),
        "CoreML": (mvsdk.CoreML, {}),
        "Isolation": (mvsdk.Isolation, {}),
        "Fake": (Fake, {"functions": fake_functions()}),
        "Chipset": (mvsdk.Chipset, _fields(mvsdk.find_chipset("sm8650"))),
    }
    for backend in (
        mvsdk.OnnxRuntime(),
        mvsdk.Qnn(),
        mvsdk.ExecuTorch(),
        mvsdk.CoreAI(),
        mvsdk.CoreML(),
        fake,
    ):
        kind = type(backend).__name__
        calls[f"{kind}.unsupported_reason"] = (backend.unsupported_reason, {"variant": unet})
        calls[f"{kind}.load"] = (backend.load, {"bundle": bundle, "variant": unet})
        if isinstance(backend, Placing):
            calls[f"{kind}.place"] = (backend.place, {"variant": unet})
    return [Call(name, function, right) for name, (function, right) in calls.items()]


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _fresh(folder: Path, verb: str) -> Callable[..., Any]:
    """Return a method of a writer that has nothing to write yet."""

    def called(manifest: Manifest) -> None:
        with mvsdk.BundleWriter(folder / f"{verb}.mvbundle") as writer:
            getattr(writer, verb)(manifest)

    return called


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Call]:
    return {call.name: call for call in _calls(tmp_path_factory.mktemp("calls"))}


def _public() -> set[str]:
    """Return what the package offers to call: functions, classes and their methods with arguments.

    Protocols cannot be called, errors take any message.
    """
    found: set[str] = set()
    for name in mvsdk.__all__:
        value: Any = getattr(mvsdk, name)
        if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
            continue
        if not inspect.isclass(value):
            found.add(name)
            continue
        if Protocol not in value.__bases__ and list(inspect.signature(value).parameters):
            found.add(name)
        for method, function in inspect.getmembers(value, callable):
            takes = inspect.isfunction(function) or inspect.ismethod(function)
            if not method.startswith("_") and takes and Protocol not in value.__bases__:
                named = [x for x in inspect.signature(function).parameters if x != "self"]
                found |= {f"{name}.{method}"} if named else set()
    return found


def test_the_table_has_the_whole_public_surface(calls: dict[str, Call]) -> None:
    assert _public() - calls.keys() == set()


PARAMETERS = sorted(_public() | {"Session.run"})


@pytest.mark.parametrize("name", PARAMETERS)
def test_nothing_but_our_errors_leaves_a_call_with_one_wrong_argument(
    calls: dict[str, Call], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = calls[name]
    refused = 0
    for parameter in call.parameters():
        for label, value in WRONG.items():
            try:
                call(**{parameter: value})
            except MvsdkError as exc:
                message = str(exc)
                assert message.isprintable()
                assert len(message.splitlines()) == 1
                assert len(message) < 700, message[:900]
                refused += 1
            except Exception as exc:
                pytest.fail(f"{name}({parameter}={label}): {type(exc).__name__}: {exc}")
    assert refused or name in ("Manifest", "Chipset", "Choice")  # data, whose checks are elsewhere
