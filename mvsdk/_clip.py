"""The making of one clip, which is the same whatever it begins with: encode, sample, decode."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mvsdk.conditioning import ADDED_TIME_IDS
from mvsdk.errors import BackendError
from mvsdk.generation import Step, Work
from mvsdk.noise import initial_latents, picture_noise
from mvsdk.sampling import Denoiser, Latents, Noise
from mvsdk.video import Video

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvsdk.backends import Selection
    from mvsdk.conditioning import MicroConditioning
    from mvsdk.manifest import Manifest, Variant

Arrays = Mapping[str, "NDArray[Any]"]
RunSampler = Callable[[Denoiser, Latents, Noise], Iterator[Latents]]
"""(denoise, initial latents, fresh noise by step index) -> latents after each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip that is to be made: all that was chosen and checked before any graph is loaded."""

    manifest: Manifest
    selection: Selection
    encode: Callable[[Work], Arrays]
    """Runs the encoders; returns the inputs of the denoiser that are this clip's own."""
    run_sampler: RunSampler
    steps: int
    seed: int
    fps: float
    bundle_sha256: str
    prompt: str | None = None
    picture: str | None = None
    conditioning: MicroConditioning | None = None

    def make(self, work: Work) -> Generator[Step, None, None]:
        """Make the clip; yield after every step, the last time with the clip.

        Args:
            work: Runs the graphs; its watch stands still while a step is with the caller.

        Raises:
            BackendError: If a graph cannot be loaded or run, or gives nan.
        """
        work.watch.resume()
        denoise = self._denoiser(work, self.encode(work))
        start = self._noise(0) * np.float32(self.manifest.sampler.init_noise_sigma)
        latents = start
        for index, latents in enumerate(self.run_sampler(denoise, start, self._noise), start=1):
            self._check_finite(latents, index)
            latents.flags.writeable = False
            if index < self.steps:
                yield self._step(index, latents, work.watch.pause())
                work.watch.resume()
        frames = self._decode(work, latents)
        describe = self.selection.backend.describe
        timings = work.timings(describe, denoiser=self.manifest.denoiser)
        video = Video(
            frames=frames,
            fps=self.fps,
            seed=self.seed,
            prompt=self.prompt,
            picture=self.picture,
            num_inference_steps=self.steps,
            bundle_sha256=self.bundle_sha256,
            conditioning=self.conditioning,
            timings=timings,
        )
        yield self._step(self.steps, latents, timings.total_s, video)

    def _decode(self, work: Work, latents: Latents) -> NDArray[np.uint8]:
        """Decode as many frames at a time as the graph takes."""
        at_once = self.manifest.decode_frames
        decoded = [
            work.call("vae_decoder", {"latents": latents[start : start + at_once]})["frames"]
            for start in range(0, len(latents), at_once)
        ]
        return decoded[0] if len(decoded) == 1 else np.concatenate(decoded)

    def _noise(self, stream: int) -> Latents:
        return initial_latents(self.seed, self.manifest.latents.shape, stream=stream)

    def _denoiser(self, work: Work, own: Arrays) -> Denoiser:
        """Return the denoiser's graph at fixed conditioning, as the samplers want it."""
        sampler = self.manifest.sampler
        name = self.manifest.denoiser
        shapes = {spec.name: spec.shape for spec in self.selection.variants[name].inputs}
        constants = {
            key: np.asarray(values, np.float32).reshape(shapes[key])
            for key, values in sampler.conditioning.items()
        }
        fixed = {**constants, **own}
        timesteps = sampler.schedules[self.steps].timesteps

        def denoise(model_input: Latents, index: int) -> Latents:
            inputs = {**fixed, "sample": model_input}
            if "timestep" in shapes:
                inputs["timestep"] = np.full(shapes["timestep"], timesteps[index], np.float32)
            return work.call(name, inputs)["model_output"]

        return denoise

    def _step(
        self, index: int, latents: Latents, elapsed_s: float, video: Video | None = None
    ) -> Step:
        return Step(
            index=index,
            count=self.steps,
            sigma=self.manifest.sampler.schedules[self.steps].sigmas[index],
            elapsed_s=elapsed_s,
            latents=latents,
            video=video,
        )

    def _check_finite(self, latents: Latents, index: int) -> None:
        if not np.isfinite(latents).all():
            raise BackendError(
                f"{self.manifest.denoiser} gave nan or infinite values at step {index} of "
                f"{self.steps}; run mvsdk verify on the bundle, or choose another precision"
            )


def encode_picture(
    work: Work,
    variants: Mapping[str, Variant],
    picture: NDArray[np.uint8],
    *,
    seed: int,
    conditioning: MicroConditioning,
) -> dict[str, NDArray[Any]]:
    """Run the encoders of a picture.

    Args:
        work: Runs the graphs.
        variants: What runs, by component.
        picture: RGB, uint8, (1, H, W, 3).
        seed: Chooses the noise on the picture.
        conditioning: Its noise augmentation strength scales that noise.

    Returns:
        The denoiser's `encoder_hidden_states` and `image_latents`, and its `added_time_ids`.
    """
    shapes = {spec.name: spec.shape for variant in variants.values() for spec in variant.inputs}
    ids = np.array(conditioning.to_added_time_ids(), np.float32)
    noised = {
        "image": picture,
        "noise": picture_noise(seed, *picture.shape[1:3]),
        "noise_aug_strength": ids[-1:].reshape(shapes["noise_aug_strength"]),
    }
    hidden_states = work.call("image_encoder", {"image": picture})
    image_latents = work.call("vae_encoder", noised)
    return {**hidden_states, **image_latents, ADDED_TIME_IDS: ids.reshape(shapes[ADDED_TIME_IDS])}
