"""A model folder on disk: structure is checked when it is opened, weights when they are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._text import quoted, reason_of
from mvsdk.bundle import sha256_file
from mvsdk.manifest import FileRef
from mvsdk_export.checkpoints.building import GraphOptions, build_on_meta, with_frames, wrap
from mvsdk_export.checkpoints.decoder import CONFIG_FILE, DecoderFolder, open_decoder
from mvsdk_export.checkpoints.documents import Document, read_document
from mvsdk_export.checkpoints.layouts import Layout, find_layout
from mvsdk_export.checkpoints.locations import INDEX_FILE, find_folder, locate
from mvsdk_export.checkpoints.scheduler import OneStepScheduler, Scheduler
from mvsdk_export.checkpoints.vocabulary import check_vocabulary
from mvsdk_export.checkpoints.weight_files import WeightFiles, find_weights
from mvsdk_export.errors import CheckpointError, ExportError
from mvsdk_export.families import DECODER, RECIPES, Recipe, find_recipe
from mvsdk_export.families.conditioning import cut_recipe
from mvsdk_export.families.cut import Cut
from mvsdk_export.families.shapes import config_sizes

if TYPE_CHECKING:
    from torch import nn

SCHEDULER_FILE = "scheduler/scheduler_config.json"
TOKENIZER_FILE = "tokenizer/vocab.json"
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
    vocabulary_size: int | None
    """Tokens of the vocabulary file; None for a model that takes no text."""
    weights: Mapping[str, WeightFiles]
    """Subfolder -> its weights."""
    _layout: Layout
    decoder: DecoderFolder | None = None
    """Where the decoder comes from; None for the model folder itself."""
    cuts: tuple[Cut, ...] = ()
    """Where graphs of the recipe are cut in two."""
    _whole: Recipe | None = None

    @property
    def whole_recipe(self) -> Recipe:
        """The recipe without cuts."""
        return self._whole or self.recipe

    @property
    def paths(self) -> dict[str, Path]:
        """Folders of the model: `model`, and `decoder` if that comes from elsewhere."""
        return {"model": self.path} | ({"decoder": self.decoder.path} if self.decoder else {})

    @property
    def tokenizer_file(self) -> Path | None:
        """The WordPiece vocabulary, as a bundle ships it; None for a model that takes no text."""
        return locate(self.path, TOKENIZER_FILE) if self.recipe.takes_text else None

    def configs(self) -> dict[str, Any]:
        """Return the configuration dataclasses of all components' networks by component.

        Raises:
            CheckpointError: If a config.json is wrong, or the components do not fit together.
        """
        configs = _parse_configs(self.path, self.recipe, self._layout, self.decoder)
        for name, config in configs.items():
            wanted = getattr(config, "vocabulary_size", self.vocabulary_size)
            if wanted != self.vocabulary_size:
                raise CheckpointError(
                    f"{name} of {quoted(self.path)} wants {wanted} tokens, {TOKENIZER_FILE} has "
                    f"{self.vocabulary_size}; use the vocabulary that it was trained with"
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
        network, files = build_on_meta(part, config), self.weights[part.folder].files
        return load_weights_(network, files, unused=part.unused_weights)

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
        for folder, part in {part.folder: part for part in self.recipe.components}.items():
            config = with_frames(configs[part.name], num_frames)
            network, files = build_on_meta(part, config), self.weights[folder].files
            check_headers(network, files, unused=part.unused_weights)

    def with_decoder(self, path: Path) -> ModelFolder:
        """Return the model with another decoder, which the recipe knows as its light one.

        The decoder's files are then among those of the model, in the subfolder of that name.

        Args:
            path: Public folder of that decoder.

        Raises:
            CheckpointError: If the recipe knows none, or a file of it is missing, damaged, a
                pickle or outside the folder.
        """
        decoder = open_decoder(path, self.recipe)
        return replace(
            self,
            recipe=self.recipe.for_decoder(decoder.variant),
            weights={**self.weights, decoder.folder: decoder.find_weights()},
            decoder=decoder,
        )

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
        if self.recipe.takes_text:
            paths.add(TOKENIZER_FILE)
        if (self.path / MODEL_CARD).is_file():
            paths.add(MODEL_CARD)
        located: dict[str, Path] = {}
        for folder, weights in self.weights.items():
            indices = () if weights.index is None else (weights.index,)
            files = (*weights.files, *indices)
            if self.decoder is not None and folder == self.decoder.folder:
                root = self.decoder.path
                names = (CONFIG_FILE, *(file.relative_to(root).as_posix() for file in files))
                located |= {f"{folder}/{name}": locate(root, name) for name in names}
            else:
                paths.add(f"{folder}/{CONFIG_FILE}")
                paths |= {file.relative_to(self.path).as_posix() for file in files}
        located |= {path: locate(self.path, path) for path in paths}
        return tuple(_reference(path, file) for path, file in sorted(located.items()))


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
    path: Path, recipe: Recipe | None = None, *, decoder: Path | None = None
) -> ModelFolder:
    """Open a model folder and check its structure, without torch and without reading weights.

    Args:
        path: The folder: one of ours, or a public one of Stable Video Diffusion.
        recipe: What it must be a checkpoint of; None for any recipe.
        decoder: Folder of another decoder (`ModelFolder.with_decoder`); None for the model's own.

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
        vocabulary_size=check_vocabulary(locate(root, TOKENIZER_FILE))
        if found.takes_text
        else None,
        weights={
            folder: find_weights(root, part, layout.variants) for folder, part in parts.items()
        },
        _layout=layout,
    )
    return model if decoder is None else model.with_decoder(decoder)


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
    path: Path, recipe: Recipe, decoder: DecoderFolder | None = None
) -> dict[str, Any]:
    """Read the configurations of all components; weights need not be there.

    Args:
        path: The model folder.
        recipe: What it must be a checkpoint of.
        decoder: Where the decoder comes from; None for the model folder itself.

    Returns:
        Component name -> configuration dataclass of its network.

    Raises:
        CheckpointError: If one is missing or wrong, or if components do not fit together.
    """
    root = find_folder(path)
    layout, found = _read_index(root, recipe)
    return _parse_configs(root, found, layout, decoder)


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
    root: Path, recipe: Recipe, layout: Layout, decoder: DecoderFolder | None
) -> dict[str, Any]:
    elsewhere = {} if decoder is None else {DECODER: decoder.load_config()}
    own = tuple(part for part in recipe.components if part.name not in elsewhere)
    inside = replace(recipe, components=own)
    configs = layout.parse_configs(_read_documents(root, inside), inside) | elsewhere
    _check_agreement(root, configs)
    if recipe.task == "image_to_video" and recipe.pipeline is None:
        _check_picture(root, recipe.denoiser, configs[recipe.denoiser])
    return configs


def _check_agreement(root: Path, configs: Mapping[str, Any]) -> None:
    """Check that tensors which cross between components have one size on both sides."""
    for symbol, fields in config_sizes(configs).items():
        (first, size), *others = fields.items()
        for field, value in others:
            if value != size:
                raise CheckpointError(
                    f"components of {quoted(root)} do not fit: {first} is {size}, "
                    f"{field} is {value}, expected one size {symbol}; use components of one model"
                )


def _check_picture(root: Path, denoiser: str, config: Any) -> None:
    """Check that the denoiser takes the latents of a picture beside those of the clip."""
    if config.in_channels != 2 * config.out_channels:
        raise CheckpointError(
            f"{denoiser} of {quoted(root)} takes {config.in_channels} channels and gives "
            f"{config.out_channels}, expected twice as many in as out: a model that begins with a "
            "picture"
        )
