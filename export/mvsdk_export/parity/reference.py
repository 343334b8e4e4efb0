"""The float32 PyTorch pipeline: what calibrates a quantisation, and what artefacts are held to.

It is the runtime's own runner over PyTorch networks in place of graphs: the same operations, noise,
schedules and sampler code. What every network received and gave is kept by case and step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mvsdk.inputs import prepare
from mvsdk.manifest import END_TO_END, Manifest, NumberInput
from mvsdk.runner import Resources, Runner, to_bytes
from mvsdk.tokenizers import Tokenizer, Tokens, load_tokenizer
from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.checkpoints.pipeline import make_pipeline, sizes_of
from mvsdk_export.families import Recipe
from mvsdk_export.families.pipeline import Clip, Pipeline, outline
from mvsdk_export.quantize.activations import Arrays, Evaluation, as_real


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One clip to make."""

    prompt: str
    """What the clip shows; where a picture says that, the picture's name."""
    seed: int
    num_inference_steps: int
    picture: NDArray[np.uint8] | None = None
    """First frame (H, W, 3), RGB; of models that take a clip, what moves in it."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What is said besides; those left out are as the program says."""

    @property
    def label(self) -> str:
        """Text that names the case in records."""
        return f"{self.prompt}, seed {self.seed}, {self.num_inference_steps} steps"


class Reference:
    """The pipeline in float32 PyTorch."""

    def __init__(
        self,
        recipe: Recipe,
        pipeline: Pipeline,
        sizes: Mapping[str, int],
        networks: Mapping[str, nn.Module],
        tokenizers: Mapping[str, Tokenizer] | None = None,
    ) -> None:
        """Put the pipeline together.

        Args:
            recipe: The model.
            pipeline: What is carried out.
            sizes: Of every symbol in the recipe's shapes.
            networks: The graphs' networks (evaluation mode, wrappers included) by component name.
            tokenizers: By name; none for models that take no text.
        """
        self._manifest: Manifest = outline(recipe, pipeline, sizes)
        self._tables = pipeline.tables
        self._networks = networks
        self._tokenizers = tokenizers or {}
        self._clip: tuple[str, int] | None = None
        self._known: dict[tuple[str, bytes], Arrays] = {}
        """What networks gave for clips of one prompt and seed: those of several numbers of steps
        share their text and their first step."""

    @classmethod
    def of(cls, folder: ModelFolder, clip: Clip, networks: Mapping[str, nn.Module]) -> Reference:
        """Put the pipeline of a model folder together.

        Args:
            folder: Model folder.
            clip: Which clips are made.
            networks: The graphs' networks, by component name.
        """
        pipeline = make_pipeline(folder, clip)
        tokenizers = load_tokenizers(folder, pipeline)
        return cls(folder.recipe, pipeline, sizes_of(folder, clip), networks, tokenizers)

    def run(self, case: Case) -> list[Evaluation]:
        """Make one clip; return every network call in order, and at last the clip.

        Args:
            case: Prompt or picture, seed and steps.
        """
        program = self._manifest.program
        calls: list[Evaluation] = []
        if self._clip != (case.prompt, case.seed):
            self._clip, self._known = (case.prompt, case.seed), {}

        def call(component: str, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
            return self._call(calls, case, component, inputs, runner.step)

        is_adjustable = _is_adjustable(self._manifest)
        runner = Runner(
            self._manifest,
            program,
            Resources(call=call, tokens=self._encode, table=self._tables.__getitem__),
            values=prepare(
                program,
                given_inputs(self._manifest, case),
                tokenize=self._encode,
            ).values,
            seed=case.seed,
            num_inference_steps=case.num_inference_steps if is_adjustable else None,
        )
        for _ in runner.run():
            pass
        frames = {"frames": runner.output.astype(np.float32)}
        calls.append(
            Evaluation(component=END_TO_END, case=case.label, step=None, inputs={}, outputs=frames)
        )
        return calls

    def _encode(self, name: str, text: str) -> Tokens:
        return self._tokenizers[name].encode(text)

    def _call(
        self,
        calls: list[Evaluation],
        case: Case,
        component: str,
        inputs: Mapping[str, NDArray[Any]],
        step: int | None,
    ) -> Arrays:
        part = self._manifest.components[component]
        pixels = {tensor.name for tensor in part.inputs if tensor.type == "pixels"}
        taken = {
            name: to_bytes(value) if name in pixels else value for name, value in inputs.items()
        }
        key = (component, _digest(taken))
        if key not in self._known:
            self._known[key] = self._evaluate(component, taken)
        outputs = self._known[key]
        calls.append(
            Evaluation(
                component=component, case=case.label, step=step, inputs=taken, outputs=outputs
            )
        )
        return outputs

    def _evaluate(self, component: str, taken: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run a network; what it gives is not written to."""
        with torch.inference_mode():
            tensors = {
                name: torch.from_numpy(np.array(value)) for name, value in as_real(taken).items()
            }
            results = self._networks[component](**tensors)
        if isinstance(results, torch.Tensor):
            results = (results,)
        outputs: Arrays = {}
        tensors_out = self._manifest.components[component].outputs
        for tensor, result in zip(tensors_out, results, strict=True):
            array = result.numpy()
            outputs[tensor.name] = array * np.float32(255) if tensor.type == "pixels" else array
            outputs[tensor.name].setflags(write=False)
        return outputs


def _digest(inputs: Mapping[str, NDArray[Any]]) -> bytes:
    digest = sha256()
    for name, value in sorted(inputs.items()):
        digest.update(f"{name} {value.dtype} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.digest()


def load_tokenizers(folder: ModelFolder, pipeline: Pipeline) -> dict[str, Tokenizer]:
    """Return the tokenizers of a pipeline by name, of the vocabulary that a bundle would ship."""
    if folder.vocabulary is None:
        return {}
    with TemporaryDirectory() as name:
        file = Path(name) / "vocab.json"
        file.write_bytes(folder.vocabulary.to_bytes())
        return {
            name: load_tokenizer(
                file, kind=item.kind, max_length=item.max_length, too_long=item.too_long
            )
            for name, item in pipeline.tokenizers.items()
        }


def given_inputs(manifest: Manifest, case: Case) -> dict[str, Any]:
    """Return what a caller gives for a case, by the names of a program's inputs."""
    program = manifest.program
    given: dict[str, Any] = dict(case.numbers)
    for name, item in program.inputs.items():
        if isinstance(item, NumberInput):
            if item.whole and name in given:
                given[name] = int(given[name])
        elif item.kind == "prompt":
            given[name] = case.prompt
        elif item.kind == "picture":
            given[name] = case.picture
        elif item.kind == "clip":
            assert case.picture is not None
            given[name] = moving_picture(case.picture, item.frames)
    return given


def moving_picture(picture: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
    """Return a clip in which a picture moves to the right, a pixel a frame. (F, H, W, 3)."""
    return np.stack([np.roll(picture, index, axis=1) for index in range(frames)])


def _is_adjustable(manifest: Manifest) -> bool:
    names = manifest.program.samplers()
    return any(manifest.samplers[name].adjustable for name in names)
