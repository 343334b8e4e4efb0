"""The float32 PyTorch pipeline: what calibrates a quantisation, and what artefacts are held to.

It samples exactly as the runtime does: the same noise, schedules and sampler code, with PyTorch
networks in place of graphs. What every network received and gave is kept by case and step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mvsdk.conditioning import ADDED_TIME_IDS, MicroConditioning
from mvsdk.manifest import Sampler
from mvsdk.noise import initial_latents, picture_noise
from mvsdk.pipeline import build_sampler
from mvsdk.tokenizer import WordPiece
from mvsdk_export.recipes import DECODER, Recipe

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One call of one network."""

    component: str
    case: str
    """Prompt, seed and number of steps."""
    step: int | None
    """Step index, None outside the sampler's loop."""
    inputs: Mapping[str, NDArray[Any]]
    output: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One clip to make."""

    prompt: str
    """What the clip shows; where a picture says that, the picture's name."""
    seed: int
    num_inference_steps: int
    picture: NDArray[np.uint8] | None = None
    """First frame (H, W, 3), RGB."""
    conditioning: MicroConditioning | None = None
    """What is said beside a picture; None for what the sampler says by default."""

    @property
    def label(self) -> str:
        """Text that names the case in records."""
        return f"{self.prompt}, seed {self.seed}, {self.num_inference_steps} steps"


class Reference:
    """The pipeline in float32 PyTorch."""

    def __init__(
        self,
        recipe: Recipe,
        networks: Mapping[str, nn.Module],
        sampler: Sampler,
        tokenizer: WordPiece | None = None,
        *,
        decode_frames: int | None = None,
    ) -> None:
        """Put the pipeline together.

        Args:
            recipe: The model.
            networks: The graphs' networks (evaluation mode, wrappers included) by component name.
            sampler: Schedules and constants.
            tokenizer: Of models that take text.
            decode_frames: Frames that the decoder takes at once, as in the bundle; None for all.
        """
        self._recipe = recipe
        self._networks = networks
        self._sampler = sampler
        self._tokenizer = tokenizer
        self._decode_frames = decode_frames

    def run(self, case: Case, latent_shape: Sequence[int]) -> list[Evaluation]:
        """Make one clip; return every network call in order, those of the decoder last.

        Args:
            case: Prompt or picture, seed and steps.
            latent_shape: (F, C, h, w).
        """
        calls: list[Evaluation] = []
        encode = self._encode_prompt if case.picture is None else self._encode_picture
        fixed = encode(calls, case)
        denoiser = self._recipe.denoiser
        names = [tensor.name for tensor in self._recipe.component(denoiser).inputs]
        timesteps = self._sampler.schedules[case.num_inference_steps].timesteps

        def denoise(sample: NDArray[np.float32], index: int) -> NDArray[np.float32]:
            timestep = np.full(1, timesteps[index], np.float32)
            given = {**fixed, "sample": sample, "timestep": timestep}
            return self._call(calls, case, denoiser, {name: given[name] for name in names}, index)

        noise = initial_latents(case.seed, latent_shape)
        start = noise * np.float32(self._sampler.init_noise_sigma)
        sampler = build_sampler(self._sampler, case.num_inference_steps)
        *_, latents = sampler(
            denoise, start, lambda k: initial_latents(case.seed, latent_shape, stream=k)
        )
        at_once = self._decode_frames or len(latents)
        for start in range(0, len(latents), at_once):
            self._call(calls, case, DECODER, {"latents": latents[start : start + at_once]})
        return calls

    def _encode_prompt(self, calls: list[Evaluation], case: Case) -> Arrays:
        assert self._tokenizer is not None
        ids = self._tokenizer.encode(case.prompt)
        text = self._call(calls, case, "text_encoder", {"input_ids": ids})
        return {"encoder_hidden_states": text}

    def _encode_picture(self, calls: list[Evaluation], case: Case) -> Arrays:
        assert case.picture is not None
        image = case.picture[None]
        noise = picture_noise(case.seed, *case.picture.shape[:2])
        said = self._sampler.conditioning[ADDED_TIME_IDS]
        if case.conditioning is not None:
            said = case.conditioning.to_added_time_ids()
        conditioning = np.array([said], np.float32)
        encoded = {"image": image, "noise": noise, "noise_aug_strength": conditioning[0, -1:]}
        return {
            "encoder_hidden_states": self._call(calls, case, "image_encoder", {"image": image}),
            "image_latents": self._call(calls, case, "vae_encoder", encoded),
            ADDED_TIME_IDS: conditioning,
        }

    def _call(
        self,
        calls: list[Evaluation],
        case: Case,
        component: str,
        inputs: Arrays,
        step: int | None = None,
    ) -> NDArray[Any]:
        with torch.inference_mode():
            tensors = {
                name: torch.from_numpy(np.array(value)) for name, value in as_real(inputs).items()
            }
            output = self._networks[component](**tensors).numpy()
        calls.append(
            Evaluation(
                component=component, case=case.label, step=step, inputs=dict(inputs), output=output
            )
        )
        return output


def as_real(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return inputs as a traced network takes them: bytes as numbers in [0, 1]."""
    return {
        name: value.astype(np.float32) / np.float32(255) if value.dtype == np.uint8 else value
        for name, value in inputs.items()
    }


def unique(calls: Sequence[Evaluation]) -> list[Evaluation]:
    """Drop calls whose inputs were seen before: step counts share their first evaluation."""
    seen: set[tuple[str, bytes]] = set()
    kept: list[Evaluation] = []
    for call in calls:
        key = (call.component, b"".join(value.tobytes() for value in call.inputs.values()))
        if key not in seen:
            seen.add(key)
            kept.append(call)
    return kept


def save_calls(calls: Sequence[Evaluation], path: Path) -> None:
    """Write calls to an uncompressed .npz without pickles."""
    arrays: Arrays = {}
    for index, call in enumerate(calls):
        head = f"{index}/{call.component}/{'' if call.step is None else call.step}"
        arrays[f"{head}/case"] = np.frombuffer(call.case.encode(), np.uint8)
        arrays[f"{head}/output"] = call.output
        for name, value in call.inputs.items():
            arrays[f"{head}/input/{name}"] = value
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]


def load_calls(path: Path, component: str | None = None) -> list[Evaluation]:
    """Read calls, of one component or of all."""
    found: dict[str, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            head, part, step, *rest = key.split("/", 4)
            if component in (None, part):
                call = found.setdefault(head, {"component": part, "step": step, "inputs": {}})
                if rest[0] == "input":
                    call["inputs"][rest[1]] = file[key]
                else:
                    call[rest[0]] = file[key]
    return [
        Evaluation(
            component=call["component"],
            case=call["case"].tobytes().decode(),
            step=int(call["step"]) if call["step"] else None,
            inputs=call["inputs"],
            output=call["output"],
        )
        for _, call in sorted(found.items(), key=lambda item: int(item[0]))
    ]
