"""Recipes of the toys, as entry points of another package name them."""

from __future__ import annotations

from mvsdk.manifest import Role, Task
from mvsdk_export.families import ComponentRecipe, Recipe, TensorRecipe
from mvsdk_export.families.recipe import even_floors

_WEIGHTS = "model.safetensors"
_LAYERS = 4


def _tensor(name: str, *shape: str | int) -> TensorRecipe:
    return TensorRecipe(name=name, shape=shape, dtype="float32")


def _pixels(name: str, *shape: str | int) -> TensorRecipe:
    return TensorRecipe(name=name, shape=shape, dtype="uint8")


def _part(
    name: str,
    role: Role,
    network: str,
    config: str,
    inputs: tuple[TensorRecipe, ...],
    outputs: tuple[TensorRecipe, ...],
    *,
    folder: str | None = None,
    wrapper: str | None = None,
) -> ComponentRecipe:
    place = "toy_models.networks:"
    return ComponentRecipe(
        name=name,
        role=role,
        network=place + network,
        config=place + config,
        folder=folder or name,
        weights=_WEIGHTS,
        wrapper=None if wrapper is None else place + wrapper,
        inputs=inputs,
        outputs=outputs,
    )


def _recipe(
    name: str,
    components: tuple[ComponentRecipe, ...],
    *,
    task: Task = "text_to_video",
    scheduler: str = "flow_euler",
    steps: tuple[int, ...] = (1, 2),
    default_steps: int = 2,
    num_frames: int,
    side: int,
) -> Recipe:
    names = [part.name for part in components]
    return Recipe(
        name=name.replace("_", "-"),
        task=task,
        components=components,
        schedulers={scheduler: None},
        num_frames=num_frames,
        height=side,
        width=side,
        fps=8,
        frame_range=(num_frames, num_frames),
        size_multiple=4,
        size_range=(side, side),
        steps=steps,
        default_steps=default_steps,
        calibration_prompts=(
            "a red ball",
            "a green box on the left",
            "two balls",
            "a blue ball rolling right",
            "boxes",
            "a yellow ball and a red box",
        ),
        verification_prompts=("a green ball", "a blue box on the right"),
        floors_db={
            **even_floors(*names),
            # Frames are rounded to bytes, the reference's are not: 58.9 dB.
            "fp32": {**dict.fromkeys(names, 55.0), "end_to_end": 50.0},
            "fp16": {**dict.fromkeys(names, 40.0), "end_to_end": 40.0},
            "w8a16": {**dict.fromkeys(names, 25.0), "end_to_end": 30.0},
        },
        licences={"Apache-2.0": "random weights"},
        ships_weights=False,
        pipeline=f"toy_models.pipelines:{name}",
    )


_TIME = _tensor("timestep", 1)
_WORDS = _tensor("features", 1, "L", "D")
_TEXT = _part(
    "text_encoder",
    "text_encoder",
    "Text",
    "TextConfig",
    (TensorRecipe(name="input_ids", shape=(1, "L"), dtype="int32"),),
    (_WORDS,),
)


def _denoiser(name: str, *shape: str) -> ComponentRecipe:
    return _part(
        name,
        "denoiser",
        "Denoiser",
        "DenoiserConfig",
        (_tensor("sample", *shape), _TIME, _WORDS),
        (_tensor("model_output", *shape),),
    )


def _decoder(frames: str) -> ComponentRecipe:
    return _part(
        "vae_decoder",
        "vae_decoder",
        "Decoder",
        "DecoderConfig",
        (_tensor("latents", frames, "C", "h", "w"),),
        (_pixels("frames", frames, "H", "W", 3),),
    )


_LARGE = ("F", "C", "h", "w")

TWO_STAGES = _recipe(
    "two_stages",
    (
        _TEXT,
        _denoiser("base", "F", "C", "h0", "w0"),
        _part(
            "second",
            "upscaler",
            "SecondStage",
            "DenoiserConfig",
            (_tensor("sample", *_LARGE), _TIME, _tensor("low", *_LARGE)),
            (_tensor("model_output", *_LARGE),),
        ),
        _decoder("F"),
    ),
    num_frames=4,
    side=32,
)

_WINDOW = ("N", "C", "h", "w")

WINDOWS = _recipe(
    "windows",
    (
        _TEXT,
        _denoiser("keys", "K", "C", "h", "w"),
        _part(
            "between",
            "interpolator",
            "Interpolator",
            "InterpolatorConfig",
            (
                _tensor("sample", *_WINDOW),
                _TIME,
                _tensor("guide", 1, "G", "h", "w"),
                _tensor("positions", "N", 1, 1, 1),
            ),
            (_tensor("model_output", *_WINDOW),),
        ),
        _decoder("f"),
    ),
    num_frames=9,
    side=16,
)

_STATE = (1, "M", "h", "w")

STATES = _recipe(
    "states",
    (
        _TEXT,
        _denoiser("denoiser", "T", "C", "h", "w"),
        _part(
            "vae_decoder",
            "vae_decoder",
            "CausalDecoder",
            "CausalDecoderConfig",
            (_tensor("latent", 1, "C", "h", "w"), _tensor("last_state", *_STATE)),
            (_pixels("frames", "R", "H", "W", 3), _tensor("next_state", *_STATE)),
        ),
    ),
    num_frames=7,
    side=16,
)

_CROSSING = tuple(
    _tensor(f"{kind}_{layer}", 1, "P", "M") for layer in range(_LAYERS) for kind in ("key", "value")
)
_ESTIMATES = ("by_words", "by_picture", "by_nothing")


def _editor(name: str, frames: str | int, wrapper: str) -> ComponentRecipe:
    shape = (frames, "C", "h", "w")
    given = (_tensor("sample", *shape), _tensor("picture", *shape), _TIME, _WORDS)
    estimates = tuple(_tensor(estimate, *shape) for estimate in _ESTIMATES)
    is_anchor = wrapper == "Anchor"
    return _part(
        name,
        "denoiser",
        "Editor",
        "EditorConfig",
        given if is_anchor else (*given, *_CROSSING),
        (*estimates, *_CROSSING) if is_anchor else estimates,
        folder="editor",
        wrapper=wrapper,
    )


KEY_VALUES = _recipe(
    "key_values",
    (
        _TEXT,
        _part(
            "vae_encoder",
            "vae_encoder",
            "Encoder",
            "DecoderConfig",
            (_pixels("clip", "F", "H", "W", 3),),
            (_tensor("latents", *_LARGE),),
        ),
        _editor("anchor", 1, "Anchor"),
        _editor("frames", "B", "Frames"),
        _decoder("F"),
    ),
    task="video_to_video",
    scheduler="edm_euler",
    num_frames=5,
    side=16,
)

ENLARGE = _recipe(
    "enlarge",
    (
        _part(
            "upscaler",
            "upscaler",
            "Enlarger",
            "EnlargerConfig",
            (_pixels("clip", "f", "h", "w", 3), _tensor("noise_level", 1)),
            (_pixels("frames", "f", "H", "W", 3),),
        ),
    ),
    task="upscale",
    steps=(1,),
    default_steps=1,
    num_frames=4,
    side=32,
)

TOYS = {recipe.name: recipe for recipe in (TWO_STAGES, WINDOWS, STATES, KEY_VALUES, ENLARGE)}
