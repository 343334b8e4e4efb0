"""LoRAs: low-rank changes that are added to the weights of a model before anything else is done.

    W += scale * alpha / rank * up @ down

Files of kohya (`lora_unet_down_blocks_0_..._to_q.lora_down.weight`, with `.alpha`, convolutions
among them) and of peft and diffusers (`unet.down_blocks.0...to_q.lora_A.weight`) are read, of the
denoiser, its motion modules and the text encoder.

Reference:
    Hu et al. 2021, arXiv:2106.09685.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mvsdk._json import describe
from mvsdk._text import quoted, reason_of
from mvsdk_export.checkpoints.additions import LoraChoice
from mvsdk_export.checkpoints.headers import (
    DTYPE_BYTES,
    TensorEntry,
    is_pickle,
    pickle_error,
    read_header,
)
from mvsdk_export.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

Role = Literal["down", "up", "alpha"]
Shapes = Mapping[str, tuple[int, ...]]
"""Name of a weight -> its shape."""

MAX_SCALE = 100.0
MAX_RANK = 4096

_SUFFIXES: Mapping[str, Role] = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
}
"""How names of tensors end -> what the tensor is."""

_OTHER_KINDS = {
    ".dora_scale": "a DoRA",
    ".lora_mid.weight": "a LoCon in Tucker's form",
    ".hada_w1_a": "a LoHa",
    ".lokr_w1": "a LoKr",
    ".oft_blocks": "an OFT",
    ".diff": "a full difference",
}
"""How names end in files of other methods -> what they are called."""

_COMPONENTS = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "base_model.model.unet.": "unet",
    "base_model.model.text_encoder.": "text_encoder",
}
"""How names begin -> the component that the LoRA changes."""

_MADE_FOR = {
    "lora_te2_": "Stable Diffusion XL",
    "text_encoder_2.": "Stable Diffusion XL",
    "lora_te1_": "Stable Diffusion XL",
    "input_blocks": "the original code's names, as of Stable Diffusion XL",
    "double_blocks": "Flux",
    "single_transformer_blocks": "Flux",
    "joint_attn": "Stable Diffusion 3",
    "joint_transformer_blocks": "Stable Diffusion 3",
    "transformer_blocks.0.attn.add_k_proj": "Stable Diffusion 3 or Flux",
    "diffusion_model.blocks.": "Wan",
    "transformer.": "a transformer, such as Flux, Wan or LTX",
}
"""What is in names -> the model that such a LoRA was made for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraLayer:
    """What a LoRA changes one weight by."""

    down: TensorEntry
    """`(rank, in)`, or `(rank, in, h, w)` of a convolution."""
    up: TensorEntry
    """`(out, rank)`, or `(out, rank, 1, 1)`."""
    alpha: TensorEntry | None
    """One number; None for the rank."""

    @property
    def rank(self) -> int:
        """Channels between down and up."""
        return self.down.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """An opened LoRA. Make one with `open_lora`."""

    choice: LoraChoice
    path: Path
    """Absolute."""
    layers: Mapping[str, LoraLayer]
    """Name without its end -> layer."""

    def fit(self, shapes: Mapping[str, Shapes]) -> dict[str, dict[str, LoraLayer]]:
        """Return which weights are changed by which layer.

        Args:
            shapes: Component -> its weights.

        Returns:
            Component -> name of a weight -> layer.

        Raises:
            CheckpointError: If a layer fits no weight.
        """
        names = _Names(shapes)
        found: dict[str, dict[str, LoraLayer]] = {}
        misfits: list[str] = []
        for base, layer in self.layers.items():
            place = names.find(base)
            if place is None:
                misfits.append(base)
                continue
            component, weight = place
            self._check_shapes(base, layer, weight, shapes[component][weight])
            found.setdefault(component, {})[weight] = layer
        if misfits:
            raise self._misfit(misfits)
        return found

    def _misfit(self, misfits: Sequence[str]) -> CheckpointError:
        if any("motion_modules" in name for name in misfits):
            advice = "it is for motion modules, which this model has not: give them with --motion"
        else:
            met = next(
                (what for mark, what in _MADE_FOR.items() if any(mark in x for x in misfits)),
                "another model",
            )
            advice = f"it was made for {met}; choose one for Stable Diffusion 1.x"
        return CheckpointError(
            f"LoRA {quoted(self.path)}: {len(misfits)} of {len(self.layers)} layers fit no weight "
            f"of this model, such as {describe(misfits[0])}; {advice}"
        )

    def _check_shapes(
        self, base: str, layer: LoraLayer, weight: str, shape: tuple[int, ...]
    ) -> None:
        down, up = layer.down.shape, layer.up.shape
        kernel = shape[2:] if len(down) == 4 else (1,) * (len(shape) - 2)
        fits = (
            len(down) == len(up)
            and len(down) in (2, 4)
            and up[0] == shape[0]
            and down[1] == shape[1]
            and up[1] == down[0]
            and all(size == 1 for size in up[2:])
            and (down[2:] == kernel or all(size == 1 for size in (*down[2:], *shape[2:])))
            and (len(down) == 4 or all(size == 1 for size in shape[2:]))
        )
        if not fits:
            raise CheckpointError(
                f"LoRA {quoted(self.path)}: layer {describe(base)} has shapes {list(down)} and "
                f"{list(up)}, which do not make that of {weight}, {list(shape)}; it was made for "
                "another model, such as one of Stable Diffusion 2.x: choose one for this checkpoint"
            )


@dataclass(frozen=True, slots=True)
class Change:
    """Layers of several LoRAs that change one weight."""

    layers: list[tuple[LoraFile, LoraLayer]] = field(
        default_factory=list[tuple[LoraFile, LoraLayer]]
    )

    def add_to(self, weight: Tensor) -> Tensor:
        """Return a weight with all of them added, in float32.

        Raises:
            CheckpointError: If a file cannot be read, or holds values that are not finite.
        """
        from mvsdk_export.checkpoints.weights import read_tensors

        for file, layer in self.layers:
            entries = {"down": layer.down, "up": layer.up}
            if layer.alpha is not None:
                entries["alpha"] = layer.alpha
            tensors = dict(read_tensors(file.path, entries))
            alpha = float(tensors["alpha"]) if "alpha" in tensors else float(layer.rank)
            delta = tensors["up"].flatten(1) @ tensors["down"].flatten(1)
            factor = file.choice.scale * alpha / layer.rank
            weight = weight + factor * delta.reshape(weight.shape)
        return weight


def collect_changes(
    files: Iterable[LoraFile], shapes: Mapping[str, Shapes]
) -> dict[str, dict[str, Change]]:
    """Return what LoRAs do to the weights of a model.

    Args:
        files: In the order in which they are added.
        shapes: Component -> name of a weight -> shape.

    Returns:
        Component -> name of a weight -> what is added to it.

    Raises:
        CheckpointError: If one does not fit.
    """
    changes: dict[str, dict[str, Change]] = {}
    for file in files:
        for component, layers in file.fit(shapes).items():
            of_component = changes.setdefault(component, {})
            for weight, layer in layers.items():
                of_component.setdefault(weight, Change()).layers.append((file, layer))
    return changes


class _Names:
    """Finds the weight that a layer of a LoRA is named after."""

    def __init__(self, shapes: Mapping[str, Shapes]) -> None:
        self._shapes = shapes
        self._modules: dict[tuple[str, str], str] = {}
        for component, weights in shapes.items():
            for name, shape in weights.items():
                if name.endswith(".weight") and len(shape) in (2, 4):
                    module = name.removesuffix(".weight")
                    self._modules[component, module] = name
                    self._modules[component, module.replace(".", "_")] = name

    def find(self, base: str) -> tuple[str, str] | None:
        """Return component and weight; None if there is no such weight."""
        for component, module in self._candidates(base):
            weight = self._modules.get((component, module))
            if weight is not None:
                return component, weight
        return None

    def _candidates(self, base: str) -> Iterable[tuple[str, str]]:
        start = next((x for x in _COMPONENTS if base.startswith(x)), "")
        component, rest = _COMPONENTS.get(start, "unet"), base.removeprefix(start)
        # Old files name the processor of an attention, and its layers by what they stand for.
        rest = rest.replace(".processor.", ".")
        if rest.endswith(".to_out"):
            rest += ".0"
        yield component, rest
        if component == "text_encoder":
            joint = "_" if base.startswith("lora_te_") else "."
            yield component, f"text_model{joint}{rest}"


def open_lora(choice: LoraChoice) -> LoraFile:
    """Open a LoRA; its weights are not read.

    Raises:
        CheckpointError: If it is no such file.
    """
    path, where = choice.path, quoted(choice.path)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise CheckpointError(f"LoRA {where} {what}; give a safetensors file")
    except (OSError, ValueError) as exc:  # ValueError: a null byte
        raise CheckpointError(f"LoRA {where} cannot be opened: {reason_of(exc)}") from exc
    if is_pickle(path):
        raise pickle_error(path, f"{path.stem}.safetensors")
    tensors: dict[str, dict[Role, TensorEntry]] = {}
    for name, entry in read_header(path).items():
        base, role = _split(path, name)
        tensors.setdefault(base, {})[role] = entry
    layers = {base: _make_layer(path, base, found) for base, found in tensors.items()}
    if not layers:
        raise CheckpointError(f"LoRA {where} holds no tensor; download it again")
    return LoraFile(choice=choice, path=path.absolute(), layers=layers)


def _split(path: Path, name: str) -> tuple[str, Role]:
    for suffix, role in _SUFFIXES.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), role
    for suffix, kind in _OTHER_KINDS.items():
        if suffix in name:
            raise CheckpointError(
                f"LoRA {quoted(path)} is {kind} (tensor {describe(name)}), which is not "
                "supported, expected pairs of lora_down and lora_up, or lora_A and lora_B; merge "
                "it into a checkpoint with the tool that made it, and export that"
            )
    raise CheckpointError(
        f"LoRA {quoted(path)} holds tensor {describe(name)}, expected names that end with "
        "lora_down.weight and lora_up.weight, or lora_A.weight and lora_B.weight; a whole "
        "checkpoint is given with --checkpoint"
    )


def _make_layer(path: Path, base: str, found: Mapping[Role, TensorEntry]) -> LoraLayer:
    where = f"LoRA {quoted(path)}: layer {describe(base)}"
    for role in ("down", "up"):
        if role not in found:
            raise CheckpointError(f"{where} lacks its {role} weight; download the file again")
    for entry in found.values():
        if entry.dtype not in DTYPE_BYTES:
            raise CheckpointError(
                f"{where} has dtype {entry.dtype}, expected {', '.join(DTYPE_BYTES)}; save it "
                "again in float16"
            )
    down, alpha = found["down"], found.get("alpha")
    if not down.shape or not 1 <= down.shape[0] <= MAX_RANK:
        rank = down.shape[0] if down.shape else 0
        raise CheckpointError(f"{where} has rank {rank}, allowed: 1 to {MAX_RANK}")
    if alpha is not None and alpha.shape not in ((), (1,)):
        raise CheckpointError(f"{where} has an alpha of shape {list(alpha.shape)}, expected one")
    return LoraLayer(down=down, up=found["up"], alpha=alpha)
