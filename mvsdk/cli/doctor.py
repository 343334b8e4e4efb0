"""`mvsdk doctor`: what this machine has, what is missing, and what each missing thing is for."""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import mvsdk
from mvsdk._installed import installed_version
from mvsdk.cache import cache_folder
from mvsdk.cli.command import Command
from mvsdk.cli.output import show, show_json, table

_EXTRAS = {
    "export": "make bundles: mvsdk export, verify, plan, compress",
    "snapdragon": "compile for Snapdragon, and run it on the emulator",
    "apple": "make Core ML packages, and check them anywhere",
    "coreai": "make Core AI assets, and run them",
    "executorch": "make ExecuTorch programs, and run those for XNNPACK",
    "train": "train the SDK's models again: mvsdk train",
    "dev": "tests and checks of mvsdk itself",
}
_CORE = {
    "numpy": "arithmetic",
    "onnxruntime": "runs onnx variants",
    "pillow": "reads pictures, writes .webp, .gif, .png",
    "av": "writes .mp4",
}
_QNN_LIBRARIES = {
    "QnnHtp": "the NPU backend, with the emulator on x86-64",
    "HtpPrepare": "compiles for the NPU",
    "QnnSystem": "reads context binaries",
    "onnxruntime_providers_qnn": "joins QNN to ONNX Runtime",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """One line of the report."""

    name: str
    ok: bool
    found: str
    purpose: str
    required: bool = False
    """Whether the runtime cannot do without it."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _run(options: argparse.Namespace) -> int:
    checks = [*_system(), *_packages(), *_extras(), *_qnn(), *_further(), _encoder(), _cache()]
    healthy = all(check.ok for check in checks if check.required)
    if options.json:
        show_json({"ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        rows = [[_mark(check), check.name, check.found, check.purpose] for check in checks]
        show(table(["", "what", "found", "for"], rows))
        show("\nready to run bundles" if healthy else "\nnot ready: see the lines marked !!")
    return 0 if healthy else 1


COMMAND = Command(
    name="doctor",
    help="check this machine: versions, extras, libraries",
    add_arguments=_add_arguments,
    run=_run,
)


def _mark(check: _Check) -> str:
    if check.ok:
        return "ok"
    return "!!" if check.required else "--"


def _system() -> list[_Check]:
    python = platform.python_version()
    return [
        _Check(name="mvsdk", ok=True, found=mvsdk.__version__, purpose="this package"),
        _Check(
            name="python",
            ok=sys.version_info >= (3, 11),
            found=python,
            purpose="3.11 or newer",
            required=True,
        ),
        _Check(
            name="system",
            ok=True,
            found=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            purpose="",
        ),
    ]


def _packages() -> list[_Check]:
    return [
        _Check(
            name=name,
            ok=installed_version(name) is not None,
            found=installed_version(name) or "missing: pip install --upgrade mvsdk",
            purpose=purpose,
            required=True,
        )
        for name, purpose in _CORE.items()
    ]


def _extras() -> list[_Check]:
    """Read from the installed metadata what each extra wants, and look for it."""
    try:
        wanted = importlib.metadata.requires("mvsdk") or []
    except importlib.metadata.PackageNotFoundError:
        found = "unknown, as mvsdk is not installed"
        return [
            _Check(name=f"[{extra}]", ok=False, found=found, purpose=purpose)
            for extra, purpose in _EXTRAS.items()
        ]
    return [_extra(extra, purpose, wanted) for extra, purpose in _EXTRAS.items()]


def _extra(extra: str, purpose: str, wanted: list[str]) -> _Check:
    names = [
        match[1]
        for requirement in wanted
        if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", requirement)
        and (match := re.match(r"\s*([A-Za-z0-9._-]+)", requirement))
    ]
    missing = [name for name in names if name != "mvsdk" and installed_version(name) is None]
    found = "complete"
    if missing:
        found = f"lacks {', '.join(missing)}: pip install 'mvsdk[{extra}]'"
    return _Check(name=f"[{extra}]", ok=not missing, found=found, purpose=purpose)


def _qnn() -> list[_Check]:
    spec = importlib.util.find_spec("onnxruntime_qnn")
    if spec is None or spec.origin is None:
        return [
            _Check(
                name="QNN",
                ok=False,
                found="missing: pip install 'mvsdk[snapdragon]'",
                purpose=_EXTRAS["snapdragon"],
            )
        ]
    folder = Path(spec.origin).parent
    files = {path.stem.removeprefix("lib") for path in folder.rglob("*") if path.is_file()}
    libraries = [
        _Check(
            name=library,
            ok=library in files,
            found="found" if library in files else f"not in {folder}",
            purpose=purpose,
        )
        for library, purpose in _QNN_LIBRARIES.items()
    ]
    if sys.platform == "linux":
        libraries.append(_attempt("libatomic", "Qualcomm's libraries need it", _libatomic))
    return [*libraries, _attempt("QNN in ONNX Runtime", "runs snapdragon variants", _qnn_device)]


def _qnn_device() -> str:
    from mvsdk.backends._ort import import_onnxruntime
    from mvsdk.backends.native_output import captured_native_output
    from mvsdk.backends.qnn import Qnn, register

    ort = import_onnxruntime()
    with captured_native_output():
        register(ort)
    return Qnn().describe()


def _libatomic() -> str:
    try:
        ctypes.CDLL("libatomic.so.1")
    except OSError as exc:
        raise FileNotFoundError(
            "libatomic.so.1; on Debian and Ubuntu: apt-get install libatomic1"
        ) from exc
    return "found"


def _further() -> list[_Check]:
    """Look at the backends that other packages offer."""
    from mvsdk.backends import further_backends

    further = further_backends()
    purpose = "runs variants of its own: --backend"
    found = [
        _attempt(f"backend {name}", purpose, backend.describe)
        for name, backend in further.loaded.items()
    ]
    broken = [
        _Check(name=f"backend {name}", ok=False, found=reason, purpose=purpose)
        for name, reason in further.failed.items()
    ]
    return [*found, *broken]


def _encoder() -> _Check:
    def found() -> str:
        av = importlib.import_module("av")
        return f"av {av.__version__}, {av.codec.Codec('libx264', 'w').name}"

    return _attempt("H.264 encoder", "writes .mp4", found)


def _cache() -> _Check:
    folder = cache_folder()

    def found() -> str:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(f"{nearest} is not writable; set MVSDK_CACHE")
        return str(folder)

    return _attempt("cache folder", "finished stages of exports", found)


def _attempt(name: str, purpose: str, found: Callable[[], str]) -> _Check:
    """Make a check from a function that says what it found, or fails."""
    try:
        return _Check(name=name, ok=True, found=found(), purpose=purpose)
    except Exception as exc:  # a broken library may raise anything, and doctor must not fall ill
        reason = f"{type(exc).__name__}: {exc}"
        return _Check(name=name, ok=False, found=reason, purpose=purpose)
