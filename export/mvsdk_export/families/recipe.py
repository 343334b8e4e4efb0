"""What a recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Literal, Protocol

from mvsdk.manifest import Role, Task, TokenizerKind
from mvsdk_export.families.cut import Cut
from mvsdk_export.families.public import PublicConfig, PublicModel

Shape = tuple[int, ...]

DECODER = "vae_decoder"
"""Component that makes frames: it may take a clip in parts, and then runs once for each."""

DENOISERS: tuple[Role, ...] = ("denoiser", "upscaler", "interpolator")
"""Roles of graphs whose outputs a sampler adds up, the first that a model is known by first."""

_EVEN_FLOORS_DB: Mapping[str, tuple[float, float]] = {
    "w8": (38.0, 40.0),
    "w6": (33.0, 36.0),
    "w4": (25.0, 30.0),
    "w8a8": (30.0, 32.0),
}
"""Precision -> floors of every component, and of whole clips. Bits of weights are given out until
these are met (quantize/mixed.py), so they are the same for all."""

WrapperOption = Literal["height", "width", "guidance", "sigma"]


class SchedulerKind(Protocol):
    """A scheduler of a checkpoint, as far as a recipe depends on it."""

    @property
    def kind(self) -> str:
        """One of the recipe's `schedulers`."""
        ...


def even_floors(*components: str) -> dict[str, dict[str, float]]:
    """Return the floors of precisions that have the same for every component, as `floors_db`."""
    return {
        precision: {**dict.fromkeys(components, each), "end_to_end": whole}
        for precision, (each, whole) in _EVEN_FLOORS_DB.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecipe:
    """Name, symbolic shape and type of a graph's input or output."""

    name: str
    shape: tuple[str | int, ...]
    """Sizes, or names of sizes: those of `shapes.graph_sizes`."""
    dtype: Literal["float32", "int32", "uint8"]
    """uint8 stands for values in [0, 1] in the network, and for bytes on a phone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRecipe:
    """One graph of the pipeline."""

    name: str
    role: Role
    """What the graph is for."""
    network: str
    """`"module:class"` of the network; its configuration is read from the model folder."""
    config: str
    """`"module:class"` of the network's configuration dataclass."""
    folder: str
    """Subfolder of the model folder that holds configuration and weights. Components may share
    one: they are then graphs of one network."""
    weights: str
    """File name of the weights in that folder."""
    wrapper: str | None = None
    """`"module:class"` of a module around the network that is what phones get; None for none."""
    wrapper_options: tuple[WrapperOption, ...] = ()
    """Keyword arguments that the wrapper takes beside the network."""
    unused_weights: tuple[str, ...] = ()
    """How the names of tensors begin that the file may hold and this network has not."""
    rename_weights: str | None = None
    """`"module:function"` of a tensor's name in the file -> what the network calls it, None for one
    that it has not; None where both are the same."""
    inputs: tuple[TensorRecipe, ...]
    outputs: tuple[TensorRecipe, ...]
    cut: Cut | None = None
    """Where the graph of network and wrapper is cut, of a component that is one of its two parts:
    of the role `conditioning` the one that runs once for a clip. None for a whole graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerVariant:
    """How a recipe differs for checkpoints of one kind of scheduler."""

    denoiser: ComponentRecipe
    """Takes the place of the component of the same name."""
    steps: tuple[int, ...]
    default_steps: int
    default_guidance: tuple[float, float] | None = None
    """As in `Recipe`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderVariant:
    """How a recipe differs where another decoder takes the place of its own."""

    decoder: ComponentRecipe
    """Its `folder` is what bundles call the folder of that decoder, which lies anywhere."""
    licences: Mapping[str, str]
    """Further ones."""
    public: PublicConfig
    """What its config.json means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionRecipe:
    """Temporal layers that a model's denoiser may be given, from a folder or file of their own."""

    component: str
    """The denoiser."""
    folder: str
    """What bundles call their folder, which lies anywhere."""
    public: PublicConfig
    """What their config.json means, but for what `read` says."""
    read: str
    """`"module:function"` of (config.json, shapes of the weights by name, configuration of the
    denoiser) -> the fields of that configuration that they decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model becomes a bundle."""

    name: str
    task: Task
    components: tuple[ComponentRecipe, ...]
    schedulers: Mapping[str, SchedulerVariant | None]
    """Kind of scheduler that a checkpoint may have -> what differs then; None for nothing."""
    num_frames: int
    height: int
    width: int
    fps: int
    frame_range: tuple[int, int]
    """Smallest and largest number of frames that the networks make sense of."""
    size_multiple: int
    """Height and width must be divisible by this."""
    size_range: tuple[int, int]
    """Smallest and largest height or width, pixels."""
    steps: tuple[int, ...]
    """Step counts whose schedules go into the bundle."""
    default_steps: int
    default_guidance: tuple[float, float] | None = None
    """Classifier-free guidance of the first and the last frame unless told otherwise; None for
    none."""
    conditioning: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Inputs of the denoiser that are numbers of the user's choice -> what they are by default."""
    calibration_prompts: tuple[str, ...]
    """Prompts whose whole trajectories calibrate the quantisation. A model that begins with a
    picture gets pictures of them."""
    verification_prompts: tuple[str, ...]
    """Prompts of the parity check; none of them is among the calibration prompts."""
    floors_db: Mapping[str, Mapping[str, float]]
    """Precision -> component or "end_to_end" -> lowest accepted parity, dB."""
    licences: Mapping[str, str]
    """Licence -> what it applies to."""
    ships_weights: bool = True
    """Whether this package holds a checkpoint."""
    public: PublicModel | None = None
    """Its public folders; None where there are none."""
    decodes_frames_apart: bool = False
    """Whether the decoder knows no time: frames are then decoded one by one unless told otherwise,
    which changes nothing and takes least memory."""
    light_decoder: DecoderVariant | None = None
    """A decoder that takes less, of weights that are no part of a checkpoint; None for none."""
    motion: MotionRecipe | None = None
    """Temporal layers that its denoiser takes; None where it takes none."""
    tokenizer: TokenizerKind = "wordpiece"
    """Kind of the vocabulary of models that take text."""
    guidance: Literal["frames", "text"] = "frames"
    """What classifier-free guidance is away from and how it is chosen: from no picture, by a scale
    for the first and one for the last frame, which the graph holds; or from another text, by a
    number of the program, which a caller chooses."""
    pipeline: str | None = None
    """`"module:function"` of (recipe, sampler, sizes) -> `pipelines.Pipeline`, of models whose
    clips need more than one denoiser and one decoder; None for the others. The sampler is that of
    the checkpoint's scheduler; a pipeline may have others beside it, or none."""

    @property
    def denoiser(self) -> str:
        """Name of the first component that is a denoiser, or whatever does the work of one."""
        named = {part.role: part.name for part in reversed(self.components)}
        found = (named[role] for role in DENOISERS if role in named)
        return next(found, self.components[0].name)

    @property
    def takes_text(self) -> bool:
        """Whether clips are made from a prompt; a model folder holds a tokenizer then."""
        named = (tensor.name for part in self.components for tensor in part.inputs)
        is_encoded = any(part.role == "text_encoder" for part in self.components)
        return is_encoded or "input_ids" in named

    @property
    def takes_guidance(self) -> bool:
        """Whether clips can be made with classifier-free guidance."""
        return self.guidance == "text" or any(
            "guidance" in part.wrapper_options for part in self.components
        )

    def component(self, name: str) -> ComponentRecipe:
        """Return the component of that name."""
        return next(c for c in self.components if c.name == name)

    def for_scheduler(self, scheduler: SchedulerKind) -> Recipe:
        """Return the recipe of checkpoints with that scheduler.

        Args:
            scheduler: Of a kind among `schedulers`.
        """
        variant = self.schedulers[scheduler.kind]
        if variant is None:
            return self
        return replace(
            self,
            components=self._components_with(variant.denoiser),
            steps=variant.steps,
            default_steps=variant.default_steps,
            default_guidance=variant.default_guidance,
        )

    def for_decoder(self, variant: DecoderVariant) -> Recipe:
        """Return the recipe with another decoder.

        Args:
            variant: Such as `light_decoder`.
        """
        return replace(
            self,
            components=self._components_with(variant.decoder),
            licences={**self.licences, **variant.licences},
        )

    def _components_with(self, other: ComponentRecipe) -> tuple[ComponentRecipe, ...]:
        return tuple(other if part.name == other.name else part for part in self.components)


def resolve(reference: str) -> Any:
    """Return what `"module:attribute"` names."""
    module, _, attribute = reference.partition(":")
    return getattr(import_module(module), attribute)
