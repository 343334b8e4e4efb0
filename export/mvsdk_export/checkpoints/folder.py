"""A model folder on disk: structure is checked when it is opened, weights when they are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._text import quoted, reason_of
from mvsdk.bundle import sha256_file
from mvsdk.manifest import FileRef
from mvsdk_export.checkpoints.additions import Additions
from mvsdk_export.checkpoints.agreement import (
    check_agreement,
    check_picture,
    check_text_alone,
)
from mvsdk_export.checkpoints.building import (
    GraphOptions,
    build_on_meta,
    weight_shapes,
    with_frames,
    wrap,
)
from mvsdk_export.checkpoints.decoder import CONFIG_FILE, DecoderFolder, open_decoder
from mvsdk_export.checkpoints.documents import Document, read_document
from mvsdk_export.checkpoints.layouts import Layout, find_layout
from mvsdk_export.checkpoints.locations import INDEX_FILE, find_folder, locate, plain_name
from mvsdk_export.checkpoints.lora import Change, LoraFile, collect_changes, open_lora
from mvsdk_export.checkpoints.motion import MotionFolder, open_motion
from mvsdk_export.checkpoints.scheduler import (
    DiscreteSampler,
    DiscreteScheduler,
    OneStepScheduler,
    Scheduler,
)
from mvsdk_export.checkpoints.vocabulary import TOKENIZER_FILE, Vocabulary, open_vocabulary
from mvsdk_export.checkpoints.weight_files import WeightFiles, find_weights
from mvsdk_export.errors import CheckpointError, ExportError
from mvsdk_export.families import DECODER, RECIPES, ComponentRecipe, Recipe, find_recipe
from mvsdk_export.families.conditioning import cut_recipe
from mvsdk_export.families.cut import Cut
from mvsdk_export.families.recipe import resolve

if TYPE_CHECKING:
    from torch import nn

    from mvsdk_export.checkpoints.weights import Rename

SCHEDULER_FILE = "scheduler/scheduler_config.json"
MODEL_CARD = "README.md"
QUALITY_FILE = "quality.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """An opened model folder. Make one with `open_model`."""

    path: Path
    """Absolute path of the folder, symbolic links resolved."""
    recipe: Recipe
    """What it is a checkpoint of, as its scheduler wants it."""
    scheduler: Scheduler
    vocabulary: Vocabulary | None
    """Of its tokenizer; None for a model that takes no text."""
    weights: Mapping[str, WeightFiles]
    """Subfolder -> its weights."""
    _layout: Layout
    decoder: DecoderFolder | None = None
    """Where the decoder comes from; None for the model folder itself."""
    motion: MotionFolder | None = None
    """Temporal layers of the denoiser; None for an image model."""
    loras: tuple[LoraFile, ...] = ()
    """What is added to the weights, in order."""
    additions: Additions = field(default_factory=Additions)
    """What was put beside the folder."""
    cuts: tuple[Cut, ...] = ()
    """Where graphs of the recipe are cut in two."""
    _whole: Recipe | None = None

    @property
    def whole_recipe(self) -> Recipe:
        """The recipe without cuts."""
        return self._whole or self.recipe

    @property
    def paths(self) -> dict[str, Path]:
        """Places of the model: `model`, and what is put beside it, as `Additions.places`."""
        return {"model": self.path} | self.additions.places

    def configs(self) -> dict[str, Any]:
        """Return the configuration dataclasses of all components' networks by component.

        Raises:
            CheckpointError: If a config.json is wrong, or the components do not fit together.
        """
        configs = _parse_configs(self.path, self.recipe, self._layout, self.decoder, self.motion)
        size = None if self.vocabulary is None else self.vocabulary.size
        for name, config in configs.items():
            wanted = getattr(config, "vocabulary_size", size)
            if wanted != size:
                raise CheckpointError(
                    f"{name} of {quoted(self.path)} wants {wanted} tokens, {TOKENIZER_FILE} has "
                    f"{size}; use the vocabulary that it was trained with"
                )
        return configs

    def load_config(self, component: str) -> Any:
        """Return the configuration dataclass of a component's network.

        Raises:
            CheckpointError: As `configs`.
        """
        return self.configs()[component]

    def load(self, component: str, *, num_frames: int | None = None) -> nn.Module:
        """Load one component; nothing else is kept in memory.

        Weights are read one tensor at a time, so that memory peaks at their size in float32.

        Args:
            component: Name in the recipe.
            num_frames: Frames per clip; None for what the configuration says.

        Returns:
            The network of the recipe, float32, on the CPU, in evaluation mode.

        Raises:
            CheckpointError: If configuration and weights do not fit, or weights are not finite.
        """
        from mvsdk_export.checkpoints.weights import load_weights_

        part = self.recipe.component(component)
        config = with_frames(self.load_config(component), num_frames)
        return load_weights_(
            build_on_meta(part, config),
            self._files_of(part),
            unused=part.unused_weights,
            rename=_rename(part),
            changes=self._changes().get(part.name),
        )

    def _files_of(self, part: ComponentRecipe) -> tuple[Path, ...]:
        """Return the weights of a component: those of its folder, and of what is added to it."""
        files = self.weights[part.folder].files
        if self.motion is None or part.folder != self._motion_part.folder:
            return files
        weights = self.motion.weights
        return files if weights is None else (*files, *weights.files)

    @property
    def _motion_part(self) -> ComponentRecipe:
        assert self.motion is not None
        return self.whole_recipe.component(self.motion.recipe.component)

    def _changes(self) -> dict[str, dict[str, Change]]:
        """Return what LoRAs add to the weights of each component."""
        if not self.loras:
            return {}
        shapes = weight_shapes(self.recipe.components, self.configs())
        changes = collect_changes(self.loras, shapes)
        for cut in self.cuts:  # both graphs are of one network
            if cut.component in changes or cut.name in changes:
                both = {**changes.get(cut.name, {}), **changes.get(cut.component, {})}
                changes |= {cut.component: both, cut.name: both}
        return changes

    def load_graph(
        self,
        component: str,
        *,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        guidance: tuple[float, float] | None = None,
    ) -> nn.Module:
        """Load one component as phones get it: with the recipe's wrapper, if it has one.

        Args:
            component: Name in the recipe.
            num_frames: Frames per clip; None for what the configuration says.
            height: Of the clip, pixels; None for the recipe's.
            width: Likewise.
            guidance: Classifier-free guidance of the first and the last frame, which the graph of
                the denoiser then holds; None for none.

        Raises:
            CheckpointError: As `load`; or if the denoiser takes no guidance.
        """
        if guidance is not None and not self.recipe.takes_guidance:
            raise CheckpointError(
                f"the denoiser of {quoted(self.path)} was trained to do without guidance, got "
                f"{guidance[0]:g} to {guidance[1]:g}; leave it out"
            )
        options = GraphOptions(
            height=self.recipe.height if height is None else height,
            width=self.recipe.width if width is None else width,
            guidance=guidance,
        )
        if isinstance(self.scheduler, OneStepScheduler):
            options = replace(options, sigma=self.scheduler.sigma)
        network = self.load(component, num_frames=num_frames)
        return wrap(self.recipe.component(component), network, options)

    def check(self, *, num_frames: int | None = None) -> None:
        """Check configurations and names, shapes and types of all weights; none is read.

        Raises:
            CheckpointError: If configuration and weights do not fit.
        """
        from mvsdk_export.checkpoints.weights import check_headers

        configs = self.configs()
        for part in {part.folder: part for part in self.recipe.components}.values():
            config = with_frames(configs[part.name], num_frames)
            check_headers(
                build_on_meta(part, config),
                self._files_of(part),
                unused=part.unused_weights,
                rename=_rename(part),
            )
        self._changes()

    def with_additions(self, additions: Additions) -> ModelFolder:
        """Return the model with what a user puts beside it; its files are then among the model's.

        Args:
            additions: What that is.

        Raises:
            CheckpointError: If the recipe takes none of its kind, or a file is missing, damaged, a
                pickle, or made for another model.
        """
        model = self
        if additions.decoder is not None:
            model = model._with_decoder(open_decoder(additions.decoder, self.recipe))
        if additions.motion is not None:
            model = model._with_motion(open_motion(additions.motion, self.recipe))
        if additions.sampler is not None:
            model = model._with_sampler(additions.sampler)
        loras = tuple(open_lora(choice) for choice in additions.loras)
        return replace(model, loras=loras, additions=additions.absolute())

    def _with_decoder(self, decoder: DecoderFolder) -> ModelFolder:
        return replace(
            self,
            recipe=self.recipe.for_decoder(decoder.variant),
            weights={**self.weights, decoder.folder: decoder.find_weights()},
            decoder=decoder,
        )

    def _with_motion(self, motion: MotionFolder) -> ModelFolder:
        scheduler = self.scheduler
        if isinstance(scheduler, DiscreteScheduler):
            scheduler = scheduler.for_motion()
        return replace(self, motion=motion, scheduler=scheduler)

    def _with_sampler(self, sampler: DiscreteSampler) -> ModelFolder:
        if not isinstance(self.scheduler, DiscreteScheduler):
            raise CheckpointError(
                f"{quoted(self.path)} is sampled as its scheduler says, {self.scheduler.kind}, got "
                f"the sampler {sampler}; leave --sampler out"
            )
        return replace(self, scheduler=replace(self.scheduler, sampler=sampler))

    def with_cuts(self, cuts: Sequence[Cut]) -> ModelFolder:
        """Return the model with graphs cut there, and nowhere else.

        Args:
            cuts: Of the whole recipe.
        """
        recipe = self.whole_recipe
        for cut in cuts:
            recipe = cut_recipe(recipe, cut)
        whole = self.whole_recipe if cuts else None
        return replace(self, recipe=recipe, cuts=tuple(cuts), _whole=whole)

    def files_with_hashes(self) -> tuple[FileRef, ...]:
        """Return every file that the model consists of, sorted by path."""
        paths = {INDEX_FILE, SCHEDULER_FILE, *self._layout.further}
        if self.vocabulary is not None:
            paths |= {file.relative_to(self.path).as_posix() for file in self.vocabulary.files}
        if (self.path / MODEL_CARD).is_file():
            paths.add(MODEL_CARD)
        located: dict[str, Path] = {}
        for folder, weights in self.weights.items():
            if self.decoder is not None and folder == self.decoder.folder:
                root = self.decoder.path
                names = (CONFIG_FILE, *(x.relative_to(root).as_posix() for x in weights.all))
                located |= {f"{folder}/{name}": locate(root, name) for name in names}
            else:
                paths.add(f"{folder}/{CONFIG_FILE}")
                paths |= {file.relative_to(self.path).as_posix() for file in weights.all}
        located |= {path: locate(self.path, path) for path in paths}
        if self.motion is not None:
            located |= self.motion.files()
        return tuple(_reference(path, file) for path, file in sorted(located.items()))

    def loras_with_hashes(self) -> tuple[FileRef, ...]:
        """Return the LoRAs, in the order in which they are added."""
        return tuple(
            _reference(f"lora/{n}_{plain_name(file.path)}", file.path)
            for n, file in enumerate(self.loras)
        )


def _rename(part: ComponentRecipe) -> Rename | None:
    return None if part.rename_weights is None else resolve(part.rename_weights)


def _reference(path: str, file: Path) -> FileRef:
    try:
        return FileRef(path=path, bytes=file.stat().st_size, sha256=sha256_file(file))
    except OSError as exc:
        raise CheckpointError(
            f"{quoted(file)} cannot be read: {reason_of(exc)}; give a folder whose files you may "
            "read"
        ) from exc


def default_model_folder(recipe_name: str) -> Path:
    """Return the folder of the weights that this package ships for a recipe.

    Raises:
        ExportError: If no recipe has that name, or no weights of it are shipped.
    """
    recipe = find_recipe(recipe_name)
    if not recipe.ships_weights or recipe.name not in RECIPES:
        raise ExportError(
            f"no weights of {recipe.name} are shipped; give a folder with --checkpoint"
        )
    return Path(__file__).parents[1] / "models" / recipe.name


def open_model(
    path: Path, recipe: Recipe | None = None, *, additions: Additions | None = None
) -> ModelFolder:
    """Open a model folder and check its structure, without torch and without reading weights.

    Args:
        path: The folder: one of ours, or a public one that a recipe knows.
        recipe: What it must be a checkpoint of; None for any recipe.
        additions: What is put beside it; None for nothing.

    Raises:
        CheckpointError: If a file is missing, damaged, a pickle, outside the folder, or the folder
            is of another kind or recipe.
    """
    root = find_folder(path)
    layout, found = _read_index(root, recipe)
    scheduler = _read_scheduler(root, layout, found)
    _read_documents(root, found)
    for relative, check in layout.further.items():
        check(read_document(locate(root, relative)))
    parts = {part.folder: part for part in found.components}
    model = ModelFolder(
        path=root,
        recipe=found.for_scheduler(scheduler),
        scheduler=scheduler,
        vocabulary=open_vocabulary(root, found.tokenizer, is_own=layout.is_own)
        if found.takes_text
        else None,
        weights={
            folder: find_weights(root, part, layout.variants) for folder, part in parts.items()
        },
        _layout=layout,
    )
    return model if additions is None else model.with_additions(additions)


def read_recipe(path: Path, recipe: Recipe | None = None) -> Recipe:
    """Return the recipe that a folder is a checkpoint of, as its scheduler wants it.

    Weights need not be there.

    Args:
        path: The model folder.
        recipe: What it must be a checkpoint of; None for any recipe.

    Raises:
        CheckpointError: If it is no such folder, or its scheduler is none of the recipe's.
    """
    root = find_folder(path)
    layout, found = _read_index(root, recipe)
    return found.for_scheduler(_read_scheduler(root, layout, found))


def load_configs(
    path: Path,
    recipe: Recipe,
    decoder: DecoderFolder | None = None,
    motion: MotionFolder | None = None,
) -> dict[str, Any]:
    """Read the configurations of all components; weights need not be there.

    Args:
        path: The model folder.
        recipe: What it must be a checkpoint of.
        decoder: Where the decoder comes from; None for the model folder itself.
        motion: Temporal layers of the denoiser; None for none.

    Returns:
        Component name -> configuration dataclass of its network.

    Raises:
        CheckpointError: If one is missing or wrong, or if components do not fit together.
    """
    root = find_folder(path)
    layout, found = _read_index(root, recipe)
    return _parse_configs(root, found, layout, decoder, motion)


def _read_index(root: Path, recipe: Recipe | None) -> tuple[Layout, Recipe]:
    """Return the kind of a folder, and the recipe that it is a checkpoint of."""
    document = read_document(locate(root, INDEX_FILE))
    layout = find_layout(document)
    name = layout.read_index(document)
    if recipe is not None and name != recipe.name:
        raise CheckpointError(
            f"model folder {quoted(root)} is a checkpoint of {name}, expected {recipe.name}; "
            "choose that model, or another folder"
        )
    return layout, find_recipe(name)


def _read_scheduler(root: Path, layout: Layout, recipe: Recipe) -> Scheduler:
    return layout.read_scheduler(locate(root, SCHEDULER_FILE), tuple(recipe.schedulers))


def _read_documents(root: Path, recipe: Recipe) -> dict[str, Document]:
    """Return the config.json of every subfolder of a component."""
    folders = dict.fromkeys(part.folder for part in recipe.components)
    return {name: read_document(locate(root, f"{name}/{CONFIG_FILE}")) for name in folders}


def _parse_configs(
    root: Path,
    recipe: Recipe,
    layout: Layout,
    decoder: DecoderFolder | None,
    motion: MotionFolder | None,
) -> dict[str, Any]:
    elsewhere = {} if decoder is None else {DECODER: decoder.load_config()}
    own = tuple(part for part in recipe.components if part.name not in elsewhere)
    inside = replace(recipe, components=own)
    configs = layout.parse_configs(_read_documents(root, inside), inside) | elsewhere
    if motion is not None:
        changed = {x.name for x in recipe.components if x.folder == _motion_folder(recipe, motion)}
        configs |= {name: motion.add_to(configs[name]) for name in changed}
    check_agreement(root, configs)
    if recipe.task == "image_to_video" and recipe.pipeline is None:
        check_picture(root, recipe.denoiser, configs[recipe.denoiser])
    if recipe.guidance == "text":
        check_text_alone(root, recipe.denoiser, configs[recipe.denoiser])
    return configs


def _motion_folder(recipe: Recipe, motion: MotionFolder) -> str:
    """Return the folder of the denoiser, whose graph may be cut into two components."""
    return recipe.component(motion.recipe.component).folder
