"""Jobs that compile ONNX models for a Snapdragon chip."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from mvsdk.devices import find_chipset
from mvsdk_export.jobs.job import Inputs, Job
from mvsdk_export.targets.artefact import CONTEXT, MODEL, Artefact
from mvsdk_export.targets.onnx.jobs import whole_signature


class _Contexts(TypedDict):
    """What an `Artefact` says of its contexts."""

    qairt: str | None
    memory: list[dict[str, Any]] | None


_COMPILING = ("onnxruntime_qnn", "mvsdk_export.targets.snapdragon.compiler")


@dataclass(frozen=True, kw_only=True, eq=False)
class CompileContext(Job[Artefact]):
    """Compile a finished or quantised model, or a part of one, for one chip."""

    source: Job[Artefact]
    chip: str
    """Slug, such as "sm8650"."""
    float16: bool

    PRELOAD: ClassVar[tuple[str, ...]] = _COMPILING

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the context binary, and the EPContext model around it."""
        from mvsdk_export.targets.snapdragon.compiler import compile_context

        source = inputs[self.source]
        delegation = compile_context(
            source.folder / MODEL,
            output / CONTEXT,
            find_chipset(self.chip).chip,
            float16=self.float16,
        )
        return {
            "model": CONTEXT,
            "inputs": source.result["inputs"],
            "outputs": source.result["outputs"],
            "delegation": asdict(delegation),
            **_read_contexts(output),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class StitchContexts(Job[Artefact]):
    """Join the compiled parts of a component."""

    pieces: tuple[Job[Artefact], ...]
    inputs: tuple[str, ...]
    """Of the whole."""
    outputs: tuple[str, ...]

    PRELOAD: ClassVar[tuple[str, ...]] = _COMPILING

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the EPContext model of all parts, with their context binaries."""
        from mvsdk_export.targets.snapdragon.compiler import stitch_contexts

        pieces = [inputs[piece] for piece in self.pieces]
        delegation = asdict(
            stitch_contexts(
                [piece.folder / CONTEXT for piece in pieces],
                output / CONTEXT,
                outputs=self.outputs,
            )
        )
        known = {
            (node["operator"], node["name"]): node
            for piece in pieces
            for node in piece.result.get("delegation", {}).get("non_delegated", ())
        }
        delegation["non_delegated"] = [
            known.get((node["operator"], node["name"]), node)
            for node in delegation["non_delegated"]
        ]
        signature = whole_signature([piece.result for piece in pieces], self.inputs, self.outputs)
        return {
            **signature,
            "model": CONTEXT,
            "delegation": delegation,
            **_read_contexts(output),
        }


def _read_contexts(folder: Path) -> _Contexts:
    """Return the version that opens the contexts of a folder, and what memory they take."""
    from mvsdk_export.targets.snapdragon.context_info import read_memory_of
    from mvsdk_export.targets.snapdragon.qairt import read_qairt_version

    paths = sorted(folder.glob("*.bin"), key=lambda path: (len(path.name), path.name))
    memory = read_memory_of(paths)
    return {
        "qairt": read_qairt_version(paths),
        "memory": None if memory is None else [asdict(graph) for graph in memory],
    }
