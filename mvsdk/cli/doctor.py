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
from mvsdk._installed import TOOLCHAIN, installed_version, pip_install, toolchain_install
from mvsdk._json import shorten
from mvsdk._text import one_line
from mvsdk.backends.coreai import TESTED_VERSION as COREAI_VERSION
from mvsdk.cache import cache_folder
from mvsdk.cli.command import Command
from mvsdk.cli.output import show, show_json, table

_EXTRAS = {
    "snapdragon": "compile for Snapdragon",
    "apple": "make and check Core ML",
    "coreai": "make Core AI assets",
    "executorch": "make ExecuTorch programs",
    "train": "mvsdk train",
    "dev": "tests and checks of mvsdk",
}
"""Extras of the toolchain -> what for."""
_CORE = {
    "numpy": "arithmetic",
    "onnxruntime": "runs onnx variants",
    "pillow": "pictures, .webp, .gif, .png",
    "av": "writes .mp4",
}
_QNN_LIBRARIES = {
    "QnnHtp": "the NPU; its emulator on x86-64",
    "HtpPrepare": "compiles for the NPU",
    "QnnSystem": "reads context binaries",
    "onnxruntime_providers_qnn": "joins QNN to ONNX Runtime",
}
_RUNTIMES = {
    "executorch": ("executorch", "torch"),
    "coreai": (f"coreai-core=={COREAI_VERSION}",),
}
"""Formats of phones that this computer can run too -> the distributions that do."""
_FOUND_WIDTH = 36
"""Letters of what was found that a line of the report has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """One line of the report."""

    name: str
    ok: bool
    found: str
    purpose: str
    required: bool = False
    """Whether the runtime cannot do without it."""
    command: str = ""
    """What installs it, where it is missing."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _run(options: argparse.Namespace) -> int:
    checks = [*_system(), *_packages(), *_qnn(), *_runtimes(), *_further(), _encoder()]
    checks += _toolchain()
    healthy = all(check.ok for check in checks if check.required)
    if options.json:
        show_json({"ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        show(_to_text(checks))
        show("\nready to run bundles" if healthy else "\nnot ready: see the lines marked !!")
    return 0 if healthy else 1


COMMAND = Command(
    name="doctor",
    help="check this machine: versions, extras, libraries",
    add_arguments=_add_arguments,
    run=_run,
)


def _to_text(checks: list[_Check]) -> str:
    """Lay the report out in 100 columns; commands follow, each on a line to be pasted."""
    rows = [
        [_mark(check), check.name, shorten(one_line(check.found), _FOUND_WIDTH), check.purpose]
        for check in checks
    ]
    commands = [f"{check.name}: {check.command}" for check in checks if check.command]
    text = table(["", "what", "found", "for"], rows)
    return "\n".join([text, "", "to install what is missing:", *commands]) if commands else text


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
    return [_package(name, (name,), purpose, required=True) for name, purpose in _CORE.items()]


def _package(
    name: str, distributions: tuple[str, ...], purpose: str, *, required: bool = False
) -> _Check:
    """Look for distributions that do something together; the first one's version stands for all."""
    missing = [x for x in distributions if installed_version(x.partition("==")[0]) is None]
    found = installed_version(distributions[0].partition("==")[0]) or "missing"
    if missing and missing != list(distributions):
        found = f"lacks {', '.join(missing)}"
    return _Check(
        name=name,
        ok=not missing,
        found=found,
        purpose=purpose,
        required=required,
        command=pip_install(*missing) if missing else "",
    )


def _runtimes() -> list[_Check]:
    """Look for what runs the formats of phones on this computer."""
    wanted = dict(_RUNTIMES)
    if sys.platform == "darwin":
        wanted["coreml"] = ("coremltools",)
    return [
        _package(name, distributions, f"runs {name} variants")
        for name, distributions in wanted.items()
    ]


def _toolchain() -> list[_Check]:
    """Look at the toolchain, and, where it is installed, at its extras and its cache."""
    version = installed_version(TOOLCHAIN)
    check = _Check(
        name="toolchain",
        ok=version is not None,
        found=version or "not installed",
        purpose="makes bundles: mvsdk export",
        command="" if version else toolchain_install(),
    )
    if version is None:
        return [check]
    return [check, *_extras(), _cache()]


def _extras() -> list[_Check]:
    """Read from the installed metadata what each extra wants, and look for it."""
    wanted = importlib.metadata.requires(TOOLCHAIN) or []
    return [_extra(extra, purpose, wanted) for extra, purpose in _EXTRAS.items()]


def _extra(extra: str, purpose: str, wanted: list[str]) -> _Check:
    names = [
        match[1]
        for requirement in wanted
        if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", requirement)
        and (match := re.match(r"\s*([A-Za-z0-9._-]+)", requirement))
    ]
    missing = [name for name in names if name != TOOLCHAIN and installed_version(name) is None]
    return _Check(
        name=f"[{extra}]",
        ok=not missing,
        found=f"lacks {', '.join(missing)}" if missing else "complete",
        purpose=purpose,
        command=toolchain_install(extra) if missing else "",
    )


def _qnn() -> list[_Check]:
    spec = importlib.util.find_spec("onnxruntime_qnn")
    if spec is None or spec.origin is None:
        return [
            _Check(
                name="QNN",
                ok=False,
                found="missing",
                purpose="runs snapdragon variants",
                command=pip_install("onnxruntime-qnn"),
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
    purpose = "for --backend"
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
    def found() -> str:
        folder = cache_folder()
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
