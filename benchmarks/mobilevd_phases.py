"""Phases of `benchmarks.mobilevd`: each is a child process, takes JSON values and returns some."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

FRAMES = 14
LEVELS: dict[int, tuple[int, int, int, int]] = {
    0: (320, 5, 32, 64),
    1: (640, 10, 16, 32),
    2: (1280, 20, 8, 16),
}
"""Channels, heads, height and width of the levels with transformers, for clips of 512x256."""
CONTEXT, EMBEDDING = 1024, 1280
FEEDS = 2
"""Random inputs that a quantisation sees: its ranges matter to nobody here."""


def trace_block(*, folder: str, block: str, level: int, form: str) -> dict[str, Any]:
    """Trace one block at the size of its level, with inputs to calibrate on."""
    import torch
    from torch import Tensor, nn

    from mvsdk_export.graphs.onnx import export_onnx
    from mvsdk_export.layers.selection import select_implementations_

    torch.manual_seed(0)
    channels, heads, height, width = LEVELS[level]
    make = _diffusers_block if form == "diffusers" else _own_block
    call = make(block, channels, heads)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = call[0]

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return call[1](self.block, x, condition)

    network = Block().eval()
    if form != "diffusers":
        select_implementations_(network, "htp")
    condition = (1, EMBEDDING) if block == "resnet" else (1, 1, CONTEXT)
    feeds = [
        {"x": torch.randn(FRAMES, channels, height, width), "condition": torch.randn(condition)}
        for _ in range(FEEDS)
    ]
    export_onnx(network, feeds[0], ["y"], Path(folder) / "part_0.onnx")
    _save_feeds(folder, feeds)
    return {"weight_bytes": 4 * sum(x.numel() for x in network.parameters())}


def _own_block(block: str, channels: int, heads: int) -> tuple[Any, Callable[..., Any]]:
    from mvsdk_export.families.svd.blocks import SpatioTemporalResBlock, TimeMixer
    from mvsdk_export.families.svd.transformer import TransformerSpatioTemporal

    if block == "resnet":
        network = SpatioTemporalResBlock(
            channels,
            channels,
            embedding_dim=EMBEDDING,
            groups=32,
            eps=1e-6,
            temporal_eps=1e-6,
            mixer=TimeMixer(0.5, of_spatial=True),
        )
        return network, lambda n, x, condition: n(x, FRAMES, condition)
    network = TransformerSpatioTemporal(
        channels,
        CONTEXT,
        heads,
        layers=1,
        groups=32,
        inner=None,
        temporal_inner=None,
        folded=True,
    )
    return network, lambda n, x, condition: n(x, condition, FRAMES)


def _diffusers_block(block: str, channels: int, heads: int) -> tuple[Any, Callable[..., Any]]:
    """Return the public implementation, with the borders of ours."""
    import torch
    from diffusers.models.resnet import SpatioTemporalResBlock
    from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel

    images = torch.zeros(1, FRAMES)
    if block == "resnet":
        network = SpatioTemporalResBlock(channels, channels, EMBEDDING, eps=1e-6)

        def run(n: Any, x: Any, condition: Any) -> Any:
            return n(x, condition.repeat(FRAMES, 1), image_only_indicator=images)

        return network, run
    network = TransformerSpatioTemporalModel(
        heads, channels // heads, channels, cross_attention_dim=CONTEXT
    )

    def attend(n: Any, x: Any, condition: Any) -> Any:
        repeated = condition.repeat(FRAMES, 1, 1)
        return n(x, repeated, image_only_indicator=images, return_dict=False)[0]

    return network, attend


def trace_unet(*, folder: str, compressed: bool, whole: bool) -> dict[str, Any]:
    """Trace the whole denoiser for one step, with random weights and inputs to calibrate on.

    Args:
        folder: To write to.
        compressed: By the paper's recipe.
        whole: Run no layer in parts.
    """
    import torch

    from mvsdk_export.families.svd.graphs import OneStepGraph
    from mvsdk_export.families.svd.unet import SVDUNet, SVDUNetConfig
    from mvsdk_export.graphs.onnx import export_onnx
    from mvsdk_export.layers.selection import select_implementations_

    torch.manual_seed(0)
    config = _compressed_config() if compressed else SVDUNetConfig()
    network = OneStepGraph(SVDUNet(config)).eval()
    select_implementations_(network, "htp")
    for module in network.modules() if whole else ():
        if getattr(module, "implementation", None) in ("frames", "positions"):
            vars(module)["implementation"] = "whole"
    _, _, height, width = LEVELS[0]
    latents = config.out_channels, height, width
    feeds = [
        {
            "sample": torch.randn(FRAMES, *latents),
            "encoder_hidden_states": torch.randn(1, 1, config.cross_attention_dim),
            "image_latents": torch.randn(1, *latents),
            "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]),
        }
        for _ in range(FEEDS)
    ]
    with torch.no_grad():
        export_onnx(network, feeds[0], ["model_output"], Path(folder) / "model.onnx")
    _save_feeds(folder, feeds)
    return {"weight_bytes": 4 * sum(x.numel() for x in network.parameters())}


def trace_motion(
    *, folder: str, frames: int, height: int, width: int, motion: bool
) -> dict[str, Any]:
    """Trace the denoiser of Stable Diffusion 1.5, with motion modules or without.

    Args:
        folder: To write to.
        frames: Of a clip.
        height: Of a clip, pixels.
        width: Likewise.
        motion: Whether there are motion modules, those of AnimateDiff v2.
    """
    import torch

    from mvsdk_export.families.stable_diffusion.config import UNetConfig
    from mvsdk_export.families.stable_diffusion.unet import UNet
    from mvsdk_export.graphs.onnx import export_onnx
    from mvsdk_export.layers.selection import select_implementations_

    torch.manual_seed(0)
    kind = "motion" if motion else "none"
    config = UNetConfig(temporal_layers=kind, num_frames=frames)
    network = select_implementations_(UNet(config).eval(), "htp")
    latents = config.out_channels, height // 8, width // 8
    feeds = [
        {
            "sample": torch.randn(frames, *latents),
            "timestep": torch.tensor([timestep]),
            "encoder_hidden_states": torch.randn(1, 77, config.cross_attention_dim),
        }
        for timestep in (999.0, 249.0)
    ]
    with torch.no_grad():
        export_onnx(network, feeds[0], ["model_output"], Path(folder) / "model.onnx")
    _save_feeds(folder, feeds)
    return {"weight_bytes": 4 * sum(x.numel() for x in network.parameters())}


def _save_feeds(folder: str, feeds: list[dict[str, Any]]) -> None:
    import numpy as np

    for index, feed in enumerate(feeds):
        arrays = {name: value.numpy() for name, value in feed.items()}
        np.savez(Path(folder) / f"feed_{index}.npz", allow_pickle=False, **arrays)


def _compressed_config() -> Any:
    from mvsdk_export.compress.pruning import report_pruning
    from mvsdk_export.compress.recipe import MOBILEVD
    from mvsdk_export.families.svd.unet import SVDUNetConfig

    config = SVDUNetConfig(
        folded_cross_attention=True,
        frame_levels=MOBILEVD.frame_levels,
        frame_down=MOBILEVD.frame_down,
        frame_up=MOBILEVD.frame_up,
        funnel_factor=MOBILEVD.funnel_factor,
        funnel_layers=MOBILEVD.funnel_layers,
    )
    _, _, height, width = LEVELS[0]
    keep = MOBILEVD.kept(config.temporal_block_count)
    return report_pruning(config, keep, latent_size=(height, width)).config


def split(*, folder: str, parts: int | None) -> dict[str, Any]:
    """Cut the traced denoiser; what the parts are goes to a file."""
    from mvsdk_export.graphs.limits import PART_BYTES
    from mvsdk_export.graphs.split import split_model

    found = split_model(
        Path(folder) / "model.onnx", Path(folder), parts=parts, most_bytes=PART_BYTES
    )
    told = [asdict(part) | {"path": part.path.name} for part in found]
    (Path(folder) / "parts.json").write_text(json.dumps(told), encoding="utf-8")
    return {"nodes": sum(part.nodes for part in found)}


def evaluate(*, folder: str, part: int) -> dict[str, Any]:
    """Run a part in float32 and add what it gives to the inputs of those behind it."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model = str(Path(folder) / f"part_{part}.onnx")
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    for index in range(FEEDS):
        path = Path(folder) / f"feed_{index}.npz"
        with np.load(path) as archive:
            values: dict[str, Any] = dict(archive)
        found = session.run(names, {x.name: values[x.name] for x in session.get_inputs()})
        values |= dict(zip(names, found, strict=True))
        if not all(np.isfinite(x).all() and np.abs(x).max() < 65504 for x in values.values()):
            raise RuntimeError(f"an output of part {part} does not fit float16")
        np.savez(path, allow_pickle=False, **values)
    return {}


def quantise(*, folder: str, part: int) -> dict[str, Any]:
    """Quantise a part on the inputs so far; its borders agree with those of earlier parts."""
    import numpy as np
    import onnx

    from mvsdk_export.graphs.onnx import quantize_signature, save_model
    from mvsdk_export.graphs.split import agree_quantized
    from mvsdk_export.quantize.qdq import quantize_w8a16

    source, target = Path(folder) / f"part_{part}.onnx", Path(folder) / f"w8a16_{part}.onnx"
    names = [value.name for value in onnx.load(source, load_external_data=False).graph.input]
    feeds: list[dict[str, Any]] = []
    for index in range(FEEDS):
        with np.load(Path(folder) / f"feed_{index}.npz") as archive:
            feeds.append({name: archive[name] for name in names})
    quantize_w8a16(source, target, feeds)
    del feeds
    known = Path(folder) / "borders.json"
    made = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    model = onnx.load(target)
    agree_quantized(model, {name: (scale, zero) for name, (scale, zero) in made.items()})
    requantised = sum(node.name.endswith("/float_made") for node in model.graph.node)
    made |= quantize_signature(model)
    save_model(model, target)
    known.write_text(json.dumps(made), encoding="utf-8")
    return {"requantised": requantised}


def halve(*, folder: str, part: int) -> dict[str, Any]:
    """Convert a part to float16, and what crosses between parts."""
    import onnx

    from mvsdk_export.graphs.onnx import convert_float16, save_model
    from mvsdk_export.graphs.split import agree_float16

    model = convert_float16(onnx.load(Path(folder) / f"part_{part}.onnx"))
    agree_float16(model, _crossing(Path(folder)))
    save_model(model, Path(folder) / f"fp16_{part}.onnx")
    return {}


def compile_part(*, folder: str, part: int, precision: str, chip: str) -> dict[str, Any]:
    """Compile a part for the chip."""
    import onnx

    from mvsdk.devices import find_chipset
    from mvsdk_export.targets.snapdragon.compiler import compile_context
    from mvsdk_export.targets.snapdragon.context_info import read_context

    source = Path(folder) / f"{precision}_{part}.onnx"
    target = Path(folder) / f"{precision}_{part}_ctx.onnx"
    graph = onnx.load(source, load_external_data=False).graph
    delegation = compile_context(
        source, target, find_chipset(chip).chip, float16=precision == "fp16"
    )
    given = [x for x in graph.output if x.name in _crossing(Path(folder))]
    binaries = sorted(target.parent.glob(f"{target.stem}*.bin"))
    graphs = [graph for path in binaries for graph in read_context(path).graphs]
    memory = [graph.memory for graph in graphs if graph.memory is not None]
    return {
        "context_bytes": sum(x.stat().st_size for x in binaries),
        "spilled_bytes": sum(x.spill_fill_bytes for x in memory),
        "ddr_bytes": sum(x.ddr_tensor_bytes or 0 for x in memory),
        "delegated": delegation.delegated,
        "non_delegated": [node.operator for node in delegation.non_delegated],
        "nodes": len(graph.node),
        "crossing_bytes": sum(map(_value_bytes, given)),
    }


def stitch(*, folder: str, precision: str, parts: int) -> dict[str, Any]:
    """Join the compiled parts."""
    from mvsdk_export.targets.snapdragon.compiler import stitch_contexts

    contexts = [Path(folder) / f"{precision}_{part}_ctx.onnx" for part in range(parts)]
    target = Path(folder) / precision / "model_ctx.onnx"
    target.parent.mkdir(exist_ok=True)
    delegation = stitch_contexts(contexts, target)
    return {
        "context_bytes": sum(path.stat().st_size for path in target.parent.glob("*.bin")),
        "delegated": delegation.delegated,
        "non_delegated": [node.operator for node in delegation.non_delegated],
    }


def _crossing(folder: Path) -> set[str]:
    """Return the names of the values between parts; a block is one part, and has none."""
    path = folder / "parts.json"
    parts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    made = {name for part in parts for name in part["outputs"]}
    return {name for part in parts for name in part["inputs"]} & made


def _value_bytes(value: Any) -> int:
    from onnx import helper

    size = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize
    for dim in value.type.tensor_type.shape.dim:
        size *= dim.dim_value
    return size


PHASES: dict[str, Callable[..., dict[str, Any]]] = {
    "trace block": trace_block,
    "trace": trace_unet,
    "trace motion": trace_motion,
    "split": split,
    "evaluate": evaluate,
    "quantise": quantise,
    "halve": halve,
    "compile": compile_part,
    "stitch": stitch,
}


def run(phase: str, limit_s: float) -> int:
    """Run one phase; the last line of standard output is what it returns."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 5))
    try:
        found = PHASES[phase](**json.load(sys.stdin))
    except Exception as exc:
        print((str(exc).strip().splitlines() or [type(exc).__name__])[0], file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], float(sys.argv[2])))
