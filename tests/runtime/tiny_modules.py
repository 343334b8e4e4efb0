"""The graphs of `tiny_bundles` as modules of PyTorch, for backends whose compilers take those."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import LATENTS, SHAPES, TOKENS, WIDTH, random_weights

torch = pytest.importorskip("torch", reason="needs the extra export")


class TextEncoder(torch.nn.Module):
    """Looks tokens up."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.from_numpy(random_weights(len(TOKENS), WIDTH)))

    def forward(self, input_ids: Any) -> Any:
        return torch.nn.functional.embedding(input_ids, self.table)


class Unet(torch.nn.Module):
    """Mixes channels, and adds one number of text and time."""

    def __init__(self) -> None:
        super().__init__()
        channels = LATENTS[1]
        kernel = torch.from_numpy(random_weights(channels, channels, 3, 3))
        self.register_buffer("kernel", kernel)

    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
        mixed = torch.nn.functional.conv2d(sample, self.kernel, padding=1)
        return mixed + (encoder_hidden_states.mean() + timestep * 1e-3)


class VaeDecoder(torch.nn.Module):
    """Enlarges by 8; rounds down, as the ONNX graph does, and says the result as `dtype`."""

    def __init__(self, dtype: Any) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("up", torch.from_numpy(random_weights(LATENTS[1], 3, 8, 8)))

    def forward(self, latents: Any) -> Any:
        pixels = torch.nn.functional.conv_transpose2d(latents, self.up, stride=8) * 100 + 128
        return pixels.clamp(0, 255).permute(0, 2, 3, 1).floor().to(self.dtype)


def module_of(component: str, frames: str = "uint8") -> tuple[Any, dict[str, Any]]:
    """Return a component as a module, and an example of every input.

    Args:
        component: Its name.
        frames: Type of the decoder's frames.
    """
    modules = {"text_encoder": TextEncoder, "unet": Unet}
    made = modules[component]() if component in modules else VaeDecoder(getattr(torch, frames))
    inputs, _ = SHAPES[component]
    examples = {
        name: torch.from_numpy(np.zeros(shape, dtype)) for name, (shape, dtype) in inputs.items()
    }
    return made.eval(), examples


def exported(component: str, frames: str = "uint8") -> Any:
    """Return a component as an exported program; see `module_of`."""
    made, inputs = module_of(component, frames)
    return torch.export.export(made, tuple(inputs.values()))


def write_asset(component: str, folder: Path) -> list[Path]:
    """Write a component as a Core AI asset, whose frames are float32."""
    path = folder / "model.aimodel"
    with warnings.catch_warnings():  # of releases that were not tried together
        warnings.simplefilter("ignore")
        compiler = pytest.importorskip("coreai_torch", reason="needs the extra coreai")
        program = exported(component, "float32").run_decompositions(compiler.get_decomp_table())
        names = [list(side) for side in SHAPES[component]]
        converter = compiler.TorchConverter()
        converter.add_exported_program(program, input_names=names[0], output_names=names[1])
        converter.to_coreai().save_asset(path)
    return [path]


def write_program(component: str, folder: Path, *, beside: bool = False) -> list[Path]:
    """Write a component as an ExecuTorch program for XNNPACK.

    Args:
        component: Its name.
        folder: Where to write.
        beside: Keep the weights that XNNPACK does not take in a file beside the program.
    """
    path = folder / "model.pte"
    with warnings.catch_warnings():  # of an interface that may change
        warnings.simplefilter("ignore")
        exir = pytest.importorskip("executorch.exir", reason="needs the extra executorch")
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        program = exir.to_edge_transform_and_lower(
            exported(component), partitioner=[XnnpackPartitioner()]
        ).to_executorch(exir.ExecutorchBackendConfig(external_constants=beside))
    path.write_bytes(program.buffer)
    program.write_tensor_data_to_file(str(folder))
    return [path, *folder.glob("*.ptd")]
