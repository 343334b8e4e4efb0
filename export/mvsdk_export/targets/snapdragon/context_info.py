"""What a context binary of Qualcomm's HTP says of itself, read with QNN's own system library.

The library comes with onnxruntime-qnn. Its structures are C's, so this file has their layout, and
checks versions, counts and sizes. What the library itself makes of a damaged file is not ours to
check: it refused most of those that a test made and accepted others, and 3 of 300 ended the
process. An export reads what its own compiler just wrote, in the child process of the stage.

Reference:
    QnnSystemInterface.h, QnnSystemContext.h and HTP/QnnHtpSystemContext.h of the QNN SDK 2.51.
    The HTP's header calls `vtcmSize` MB; contexts of QNN 2.51 hold bytes.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import mmap
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mvsdk.backends.native_output import captured_native_output
from mvsdk.manifest.memory import GraphMemory
from mvsdk_export.errors import ExportError, TargetUnavailableError

logger = logging.getLogger(__name__)

_LIBRARY = "libQnnSystem.so"
_BINARY_INFO, _GRAPH_INFO = 3, 3
"""Versions of the structures that are read: those of QNN 2.21 and later."""
_BLOB_1 = struct.Struct("<I4xQIIB7xQ")
"""Version 1 of what a graph says: spill-fill buffer, VTCM, optimisation level, DLBC, threads."""
_BLOB_2 = struct.Struct("<I4xQQI4xQQQQQ")
"""What QNN 2.4x and later append: sizes of native keys and values, whether inputs and outputs may
share a buffer, sizes of these, of operators, constants, tensors in DDR and shared weights."""
_MOST_GRAPHS = 4096
_MOST_BLOB_BYTES = 1 << 16
_MOST_BYTES = 1 << 48
"""More than any phone has: a size beyond it is no size."""
_SMALLEST_VTCM = 1 << 16
"""Below it a VTCM size is in MB, as the header says it, and not in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphInfo:
    """A graph of a context."""

    name: str
    memory: GraphMemory | None
    """None: the context says nothing of it that this knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextInfo:
    """A context binary."""

    build: str
    """Version of the compiler, such as v2.51.0.260929181845."""
    soc_model: int
    """Qualcomm's number of the chip that it was compiled for, such as 57."""
    graphs: tuple[GraphInfo, ...]


def read_context(path: Path) -> ContextInfo:
    """Read what a context binary says of its graphs.

    Args:
        path: Context binary (`*_qnn.bin`).

    Returns:
        Chip, compiler and graphs, in the order of the file.

    Raises:
        TargetUnavailableError: If onnxruntime-qnn is not installed, or has no system library.
        ExportError: If the file cannot be read, is no context binary, or is one of a version that
            this does not know.
    """
    functions = _load_library()
    try:
        with path.open("rb") as file:
            # A private copy of the pages that are written to: contexts have up to gigabytes.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except ValueError as exc:
        raise ExportError(f"{path.name} is empty, no context binary; compile it again") from exc
    except OSError as exc:
        raise ExportError(f"cannot read {path.name}: {exc.strerror}; compile it again") from exc
    with _described(functions, content, path.name) as info:
        return _read(info, path.name)


def read_memory_of(paths: Iterable[Path]) -> tuple[GraphMemory, ...] | None:
    """Return the memory of every graph of some contexts, for what can do without.

    Args:
        paths: Context binaries.

    Returns:
        In the order of the paths; None if one of them does not tell, which goes to the log.
    """
    found: list[GraphMemory] = []
    for path in paths:
        try:
            graphs = read_context(path).graphs
        except ExportError as exc:
            logger.warning("memory of a compiled graph is not known: %s", exc)
            return None
        for graph in graphs:
            if graph.memory is None:
                logger.warning("%s does not tell the memory of %s", path.name, graph.name)
                return None
            found.append(graph.memory)
    return tuple(found) or None


class _Version(ctypes.Structure):
    _fields_ = (("major", c_uint32), ("minor", c_uint32), ("patch", c_uint32))


class _Interface(ctypes.Structure):
    """`QnnSystemInterface_t`; the first functions are create, getBinaryInfo, getMetadata, free."""

    _fields_ = (
        ("backend_id", c_uint32),
        ("provider", c_char_p),
        ("version", _Version),
        ("functions", c_void_p * 4),
    )


class _Graph(ctypes.Structure):
    """`QnnSystemContext_GraphInfo_t` of version 3."""

    _fields_ = (
        ("version", c_uint32),
        ("name", c_char_p),
        ("num_inputs", c_uint32),
        ("inputs", c_void_p),
        ("num_outputs", c_uint32),
        ("outputs", c_void_p),
        ("num_updatable", c_uint32),
        ("updatable", c_void_p),
        ("blob_bytes", c_uint32),
        ("blob", c_void_p),
        ("start_op", c_uint32),
        ("end_op", c_uint32),
    )


class _Binary(ctypes.Structure):
    """`QnnSystemContext_BinaryInfo_t` of version 3."""

    _fields_ = (
        ("version", c_uint32),
        ("_union_alignment", c_uint32),  # a union of versions follows, whose pointers align it
        ("backend_id", c_uint32),
        ("build", c_char_p),
        ("core_api", _Version),
        ("backend_api", _Version),
        ("soc_version", c_char_p),
        ("blob_version", _Version),
        ("blob_bytes", c_uint64),
        ("num_tensors", c_uint32),
        ("tensors", c_void_p),
        ("num_graphs", c_uint32),
        ("graphs", POINTER(_Graph)),
        ("platform", c_void_p),
        ("metadata_bytes", c_uint32),
        ("metadata", c_void_p),
        ("soc_model", c_uint32),
    )


@dataclass(frozen=True, slots=True)
class _Functions:
    """Functions of the library; each returns 0, or the number of an error."""

    create: Any
    get_binary_info: Any
    free: Any


@cache
def _load_library() -> _Functions:
    found = importlib.util.find_spec("onnxruntime_qnn")
    if found is None or found.origin is None:
        raise TargetUnavailableError(
            "reading context binaries needs onnxruntime-qnn; install the extra snapdragon"
        )
    path = Path(found.origin).with_name(_LIBRARY)
    interfaces, count = POINTER(POINTER(_Interface))(), c_uint32()
    try:
        library = ctypes.CDLL(str(path))
        library.QnnSystemInterface_getProviders.restype = c_uint64
        failed = library.QnnSystemInterface_getProviders(
            ctypes.byref(interfaces), ctypes.byref(count)
        )
    except (OSError, AttributeError) as exc:
        raise TargetUnavailableError(
            f"{_LIBRARY} of onnxruntime-qnn cannot be used: {exc}; install onnxruntime-qnn again"
        ) from exc
    if failed or not count.value or not interfaces or not interfaces[0]:
        raise TargetUnavailableError(
            f"{_LIBRARY} of onnxruntime-qnn offers no interface (error {failed}); install "
            "onnxruntime-qnn again"
        )
    create, get_binary_info, _, free = interfaces[0].contents.functions
    if not (create and get_binary_info and free):
        raise TargetUnavailableError(
            f"{_LIBRARY} of onnxruntime-qnn cannot read contexts; install onnxruntime-qnn again"
        )
    return _Functions(
        create=ctypes.CFUNCTYPE(c_uint64, POINTER(c_void_p))(create),
        get_binary_info=ctypes.CFUNCTYPE(
            c_uint64,
            c_void_p,
            c_void_p,
            c_uint64,
            POINTER(POINTER(_Binary)),
            POINTER(c_uint64),
        )(get_binary_info),
        free=ctypes.CFUNCTYPE(c_uint64, c_void_p)(free),
    )


@contextmanager
def _described(functions: _Functions, content: mmap.mmap, name: str) -> Iterator[_Binary]:
    """Lend the library's description of a context; it is gone when the block ends."""
    handle = c_void_p()
    if failed := functions.create(ctypes.byref(handle)):
        raise ExportError(f"cannot read {name}: QNN makes no system context (error {failed})")
    try:
        buffer = (ctypes.c_char * len(content)).from_buffer(content)
        info, size = POINTER(_Binary)(), c_uint64()
        with captured_native_output():
            failed = functions.get_binary_info(
                handle, buffer, len(content), ctypes.byref(info), ctypes.byref(size)
            )
        if failed or not info:
            raise ExportError(
                f"{name} is no context binary that QNN can read (error {failed}); compile it "
                "again, with the installed onnxruntime-qnn"
            )
        yield info[0]
    finally:
        functions.free(handle)


def _read(info: _Binary, name: str) -> ContextInfo:
    if info.version != _BINARY_INFO:
        raise ExportError(
            f"{name} describes itself in version {info.version}, known: {_BINARY_INFO}; compile it "
            "again, with the installed onnxruntime-qnn"
        )
    if not 1 <= info.num_graphs <= _MOST_GRAPHS or not info.graphs:
        raise ExportError(
            f"{name} has {info.num_graphs} graphs, allowed: 1 to {_MOST_GRAPHS}; compile it again"
        )
    return ContextInfo(
        build=_text(info.build),
        soc_model=info.soc_model,
        graphs=tuple(_read_graph(info.graphs[index], name) for index in range(info.num_graphs)),
    )


def _read_graph(graph: _Graph, name: str) -> GraphInfo:
    if graph.version != _GRAPH_INFO:
        raise ExportError(
            f"{name} describes a graph in version {graph.version}, known: {_GRAPH_INFO}; compile "
            "it again, with the installed onnxruntime-qnn"
        )
    blob = b""
    if graph.blob and graph.blob_bytes <= _MOST_BLOB_BYTES:
        blob = ctypes.string_at(graph.blob, graph.blob_bytes)
    return GraphInfo(name=_text(graph.name), memory=parse_graph_blob(blob))


def parse_graph_blob(blob: bytes) -> GraphMemory | None:
    """Read what the HTP's compiler says of a graph.

    Args:
        blob: `graphBlobInfo`: `QnnHtpSystemContext_GraphBlobInfoV1_t` behind its version, and
            version 2 behind that in newer contexts; little-endian.

    Returns:
        Its memory, without what version 2 has where that is missing. None where the version is
        unknown, bytes are missing, or a size is beyond that of any phone.
    """
    if len(blob) < _BLOB_1.size:
        return None
    version, spill, vtcm, *_ = _BLOB_1.unpack_from(blob)
    if version != 1:
        return None
    more: tuple[int | None, ...] = (None,) * 5
    if len(blob) >= _BLOB_1.size + _BLOB_2.size:
        second, _, _, _, *sizes = _BLOB_2.unpack_from(blob, _BLOB_1.size)
        if second == 2:
            more = tuple(sizes)
    if any(size is not None and size > _MOST_BYTES for size in (spill, *more)):
        return None
    io, operators, constants, ddr_tensors, shared = more
    return GraphMemory(
        spill_fill_bytes=spill,
        vtcm_bytes=vtcm if vtcm >= _SMALLEST_VTCM else vtcm << 20,
        operator_bytes=operators,
        constant_bytes=constants,
        ddr_tensor_bytes=ddr_tensors,
        io_bytes=io,
        shared_weight_bytes=shared,
    )


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", errors="replace")
