"""Whole clips of bundles against `AnimateDiffPipeline`, with our noise put into its samplers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("diffusers", reason="needs the extra dev")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from tiny_loras import kohya, write_lora  # noqa: E402
from tiny_stable_diffusion import PNDM, single_file, write_motion, write_pipeline  # noqa: E402
from tiny_svd import quiet  # noqa: E402

import mvsdk  # noqa: E402
from mvsdk.errors import InputError  # noqa: E402
from mvsdk.noise import normals  # noqa: E402

if TYPE_CHECKING:
    from exporting import Toolchain

FRAMES, SIDE, LATENT_SIDE = 4, 64, 8
SEED = 7
PROMPT, NEGATIVE = "a rocket, a cat", "a dog"
LIGHTNING = "animatediff_lightning_4step_diffusers.safetensors"
LORA_LAYERS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "up_blocks.2.resnets.1.conv1",
)
LORA_SCALE = 0.5
FLOOR_DB = 50.0
KINDS = ("euler_trailing", pytest.param("lcm", marks=pytest.mark.exhaustive))


class Model:
    """A tiny image model, its motion and a LoRA for it: in memory, and in files."""

    def __init__(self, place: Path) -> None:
        self.base, self.motion, self.lora = place / "sd", place / LIGHTNING, place / "l.safetensors"
        self.parts = write_pipeline(self.base)
        self.adapter = write_motion(place / "motion")
        single_file(place / "motion", self.motion)
        state = self.parts["unet"].state_dict()
        weights = {("unet", name): state[f"{name}.weight"] for name in LORA_LAYERS}
        self.changes = write_lora(self.lora, weights, kohya)
        with quiet():
            from transformers import CLIPTokenizer

            self.tokenizer = CLIPTokenizer.from_pretrained(self.base / "tokenizer")

    @contextmanager
    def with_lora(self, scale: float) -> Iterator[None]:
        """Change the weights in memory as the LoRA does."""
        unet = self.parts["unet"]
        kept = {name: x.clone() for name, x in unet.state_dict().items()}
        with torch.no_grad():
            for (_, name), change in self.changes.items():
                unet.get_submodule(name).weight += scale * change
        try:
            yield
        finally:
            unet.load_state_dict(kept)

    def clip(self, scheduler: Any, steps: int, guidance: float, negative: str = "") -> NDArray[Any]:
        """Return the clip of diffusers, (F, H, W, 3), 0 to 255."""
        with quiet():
            from diffusers import AnimateDiffPipeline

            pipe = AnimateDiffPipeline(
                **{name: self.parts[name] for name in ("vae", "text_encoder", "unet")},
                tokenizer=self.tokenizer,
                motion_adapter=self.adapter,
                scheduler=scheduler,
            )
            pipe.set_progress_bar_config(disable=True)
            with _our_noise():
                made = pipe(
                    PROMPT,
                    negative_prompt=negative,
                    num_frames=FRAMES,
                    height=SIDE,
                    width=SIDE,
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    latents=_noise(0),
                    output_type="np",
                )
        return made.frames[0] * 255


def _noise(stream: int) -> torch.Tensor:
    """Return (1, 4, F, h, w): stream 0 to begin with, stream i + 1 for step i."""
    shape = (FRAMES, 4, LATENT_SIDE, LATENT_SIDE)
    values = normals(SEED, int(np.prod(shape)), stream=stream).astype(np.float32)
    return torch.from_numpy(values.reshape(shape)).transpose(0, 1)[None]


@contextmanager
def _our_noise() -> Iterator[None]:
    drawn = iter(range(1, 1000))

    def draw(*_: Any, **__: Any) -> torch.Tensor:
        return _noise(next(drawn))

    places = ("scheduling_lcm", "scheduling_euler_ancestral_discrete")
    names = [f"diffusers.schedulers.{place}.randn_tensor" for place in places]
    with mock.patch(names[0], draw), mock.patch(names[1], draw):
        yield


def _scheduler(kind: str) -> Any:
    with quiet():
        from diffusers import EulerDiscreteScheduler, LCMScheduler

        if kind == "lcm":
            return LCMScheduler.from_config(PNDM, beta_schedule="linear")
        return EulerDiscreteScheduler.from_config(
            PNDM, beta_schedule="linear", timestep_spacing="trailing"
        )


def _psnr(got: NDArray[Any], want: NDArray[Any]) -> float:
    error = np.mean((got.astype(np.float64) - want) ** 2)
    return float(10 * np.log10(255**2 / error))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("motion"))


def _export(toolchain: Toolchain, model: Model, out: Path, *options: str | Path) -> Path:
    command = ("export", "--target", "onnx", "--precision", "fp32", "--checkpoint", model.base)
    size = ("--motion", model.motion, "--frames", str(FRAMES), "--steps", "4", "--overwrite")
    done = toolchain(*command, *size, *options, "--no-verify", "--out", out)
    assert done.status == 0, done.err
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("in_process")
def test_clips_are_those_of_the_public_pipeline(
    kind: str, toolchain: Toolchain, model: Model, tmp_path: Path
) -> None:
    bundle = _export(toolchain, model, tmp_path / "a.mvbundle", "--sampler", kind)
    with mvsdk.load(bundle) as pipeline:
        assert not pipeline.number_inputs
        video = pipeline.generate(PROMPT, seed=SEED)
        with pytest.raises(InputError, match=r"takes no .*negative_prompt"):
            pipeline.generate(PROMPT, negative_prompt=NEGATIVE)
    want = model.clip(_scheduler(kind), 4, 1.0)
    assert video.frames.std() > 20
    assert _psnr(video.frames, want) > FLOOR_DB
    assert len({frame.tobytes() for frame in video.frames}) == FRAMES


@pytest.mark.parametrize(
    "kind", ["lcm", pytest.param("euler_trailing", marks=pytest.mark.exhaustive)]
)
@pytest.mark.usefixtures("in_process")
def test_clips_with_guidance_and_a_lora_are_those_of_the_public_pipeline(
    kind: str, toolchain: Toolchain, model: Model, tmp_path: Path
) -> None:
    lora = ("--lora", f"{model.lora}:{LORA_SCALE}", "--guidance", "7.5")
    bundle = _export(toolchain, model, tmp_path / "a.mvbundle", "--sampler", kind, *lora)
    with mvsdk.load(bundle) as pipeline:
        assert pipeline.number_inputs["guidance_scale"].default == 7.5
        video = pipeline.generate(PROMPT, seed=SEED)
        softer = pipeline.generate(PROMPT, negative_prompt=NEGATIVE, guidance_scale=2.0, seed=SEED)
        source = pipeline.manifest.source
    with model.with_lora(LORA_SCALE):
        want = model.clip(_scheduler(kind), 4, 7.5)
        want_softer = model.clip(_scheduler(kind), 4, 2.0, NEGATIVE)
    assert _psnr(video.frames, want) > FLOOR_DB
    assert _psnr(softer.frames, want_softer) > FLOOR_DB
    assert _psnr(video.frames, model.clip(_scheduler(kind), 4, 7.5)) < 40  # the LoRA counts
    assert _psnr(softer.frames, want) < 40  # and so do guidance and what is not to be shown
    assert [ref.path for ref in source.lora] == ["lora/0_l.safetensors"]
    assert f"motion/{LIGHTNING}" in {ref.path for ref in source.checkpoint}


@pytest.mark.usefixtures("in_process")
def test_an_image_is_a_clip_of_one_frame(
    toolchain: Toolchain, model: Model, tmp_path: Path
) -> None:
    command = ("export", "--target", "onnx", "--precision", "fp32", "--checkpoint", model.base)
    done = toolchain(*command, "--out", tmp_path / "a.mvbundle")
    assert done.status == 0, done.err
    with mvsdk.load(tmp_path / "a.mvbundle") as pipeline:
        whole = [x for x in pipeline.manifest.verification if x.component == "end_to_end"]
        assert {(record.metric, record.passed) for record in whole} == {("psnr", True)}
        video = pipeline.generate(PROMPT, seed=SEED)
    assert video.frames.shape == (1, SIDE, SIDE, 3)
    with quiet():
        from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

        scheduler = EulerDiscreteScheduler.from_config(PNDM, timestep_spacing="trailing")
        pipe = StableDiffusionPipeline(
            **{name: model.parts[name] for name in ("vae", "text_encoder", "unet")},
            tokenizer=model.tokenizer,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        values = normals(SEED, 4 * LATENT_SIDE**2, stream=0).astype(np.float32)
        latents = torch.from_numpy(values.reshape(1, 4, LATENT_SIDE, LATENT_SIDE))
        made = pipe(
            PROMPT,
            num_inference_steps=4,
            guidance_scale=1.0,
            height=SIDE,
            width=SIDE,
            latents=latents,
            output_type="np",
        )
    assert _psnr(video.frames, made.images * 255) > FLOOR_DB


@pytest.mark.usefixtures("in_process")
def test_a_bundle_is_verified_with_what_it_was_made_of(
    toolchain: Toolchain, model: Model, tmp_path: Path
) -> None:
    additions = ("--motion", model.motion, "--lora", f"{model.lora}:{LORA_SCALE}")
    command = (*("--checkpoint", model.base), *additions)
    out = tmp_path / "a.mvbundle"
    target = ("export", "--target", "onnx", "--precision", "fp32", "--frames", "2")
    done = toolchain(*target, *command, "--sampler", "lcm", "--guidance", "2", "--out", out)
    assert done.status == 0, done.err
    done = toolchain("verify", out, *command, "--json")
    assert done.status == 0, done.err
    records = json.loads(done.out)
    assert {record["component"] for record in records} == {
        *("text_encoder", "unet", "vae_decoder", "end_to_end"),
    }
    assert all(record["passed"] for record in records)
    done = toolchain("verify", out, "--checkpoint", model.base, "--motion", model.motion)
    assert (done.status, "--lora" in done.err) == (2, True), done.err
