"""Measures what Qualcomm's HTP compiler does with a chip's on-chip memory (docs/npu_forms.md).

One residual block of two 3x3 convolutions, 1x128x96x96 at w8a16, is compiled for several chips with
several values of the provider's option `vtcm_mb`, each in a process of its own: the compiler counts
on from graph to graph, and numbers what it makes. A map of the block has 2.25 MiB.

    python -m benchmarks.on_chip_memory
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.npu_forms import LIMIT_S, run_in_child

CHIPS = ("sm8650", "sm8750", "qcm6490")
SIZES = (None, 8, 4, 2, 1)
"""Values of `vtcm_mb`; None: the option is not given."""


def build_model(folder: Path) -> Path:
    """Export and quantise the block.

    Args:
        folder: Where models are written.

    Returns:
        The quantised model.
    """
    import torch
    from torch import nn

    from mvsdk_export.graphs.onnx import export_onnx
    from mvsdk_export.quantize.qdq import quantize_w8a16

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Conv2d(128, 128, 3, padding=1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.second(torch.tanh(self.first(x)))

    torch.manual_seed(0)
    network, x = Block().eval(), torch.randn(1, 128, 96, 96)
    export_onnx(network, {"x": x}, ["y"], folder / "float.onnx")
    quantize_w8a16(folder / "float.onnx", folder / "model.onnx", [{"x": x.numpy()}])
    return folder / "model.onnx"


def compile_with(
    send: Callable[[dict[str, Any]], None],
    model: Path,
    target: Path,
    slug: str,
    vtcm_mb: int | None,
) -> None:
    """Compile a model with a value of the option; hand the path of the context to `send`.

    Args:
        send: Takes `binary`.
        model: Quantised model.
        target: EPContext model to write, the context beside it.
        slug: Chip.
        vtcm_mb: On-chip memory, in the option's MB; None does not give the option.
    """
    import onnxruntime as ort

    from mvsdk.backends.native_output import captured_native_output
    from mvsdk.backends.qnn import find_device, provider_options, register
    from mvsdk.devices import find_chipset

    settings = {
        **provider_options(register(ort), find_chipset(slug).chip),
        "offload_graph_io_quantization": "0",
        "htp_graph_finalization_optimization_mode": "3",
    }
    if vtcm_mb is not None:
        settings["vtcm_mb"] = str(vtcm_mb)
    options = ort.SessionOptions()
    options.add_session_config_entry("ep.context_enable", "1")
    options.add_session_config_entry("ep.context_file_path", str(target))
    options.add_session_config_entry("ep.context_embed_mode", "0")
    options.add_provider_for_devices([find_device(ort)], settings)
    with captured_native_output():
        ort.InferenceSession(str(model), options)
    (binary,) = target.parent.glob(f"{target.stem}*.bin")
    send({"binary": str(binary)})


def measure(chips: Sequence[str]) -> list[str]:
    """Return a table in Markdown: what each chip's contexts say, and how they differ."""
    from mvsdk_export.targets.snapdragon.context_info import read_context

    lines = [
        "| chip | vtcm_mb | VTCM, as the context says | spilled KB | operators KB | "
        "bytes other than not given |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as name:
        model = build_model(Path(name))
        for slug in chips:
            plain: bytes | None = None
            for size in SIZES:
                target = Path(name, f"{slug}_{size}_ctx.onnx")
                found, failure = run_in_child(
                    compile_with, model, target, slug, size, limit_s=LIMIT_S
                )
                if failure is not None:
                    raise RuntimeError(f"{slug}, vtcm_mb {size}: {failure}")
                binary = Path(found["binary"])
                memory, content = read_context(binary).graphs[0].memory, binary.read_bytes()
                assert memory is not None
                plain = content if plain is None else plain
                cells = (
                    slug,
                    "not given" if size is None else str(size),
                    f"{memory.vtcm_bytes / 2**20:g} MiB",
                    f"{memory.spill_fill_bytes / 1024:.0f}",
                    f"{(memory.operator_bytes or 0) / 1024:.1f}",
                    _difference(plain, content),
                )
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def _difference(first: bytes, second: bytes) -> str:
    if len(first) != len(second):
        return f"another size, {len(second) - len(first):+d} bytes"
    return str(sum(x != y for x, y in zip(first, second, strict=True)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table for the chips of the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.on_chip_memory", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--chip", nargs="+", default=CHIPS, help="default: %(default)s")
    print("\n".join(measure(parser.parse_args(arguments).chip)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
