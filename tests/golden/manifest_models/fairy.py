"""Golden manifests of Fairy, which edits a clip in chunks of frames that all see a few anchors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from manifest_models.parts import (
    CLIP_HIDDEN,
    CPU_AND_NPU,
    each_frame,
    graph,
    licences,
    pixels,
    real,
    run,
    sample,
    sampler,
    sets_of,
    source,
    take,
    tokenizer,
    whole,
)
from mvsdk.manifest import (
    ClipInput,
    Collected,
    Component,
    Concat,
    DrawNoise,
    Index,
    InputValue,
    Linear,
    Loop,
    Manifest,
    NumberInput,
    Numbers,
    Operation,
    Program,
    PromptInput,
    Take,
    Tensor,
    Term,
    Tokenize,
    VideoSpec,
)

CLIP, ANCHORS, CHUNK = 28, 3, 7
SMALL = (4, 48, 64)
STRIDE, MIDDLE = 9, 4
"""Anchors are the frames 4, 13 and 22."""
BRANCHES = {
    "full": ("hidden", "clip_latents"),
    "picture": ("no_hidden", "clip_latents"),
    "none": ("no_hidden", "no_latents"),
}
"""Branch of guidance -> text and latents of the clip."""
CACHES = tuple(f"{kind}_{layer}" for kind in ("key", "value") for layer in range(16))


def fairy_batch() -> Manifest:
    """Anchors are computed again with every chunk: one graph of ten frames."""
    frames = ANCHORS + CHUNK
    unet = graph("unet", _unet_inputs(frames), [_unet_output(frames)], CPU_AND_NPU, role="denoiser")
    inside: list[Operation] = [*_chunk("x"), *_anchors()]
    inside.append(Concat(arrays=("x_anchors", "x_chunk"), axis=0, output="x_frames"))
    inside += [
        Concat(arrays=(f"{name}_anchors", f"{name}_chunk"), axis=0, output=f"{name}_frames")
        for name in ("clip_latents", "no_latents")
    ]
    for branch, (hidden, latents) in BRANCHES.items():
        inputs = _given("x_frames", f"{latents}_frames", hidden)
        inside += [
            run("unet", inputs, {"model_output": f"{branch}_frames"}),
            take(f"{branch}_frames", ANCHORS, CHUNK, branch),
        ]
    return _fairy("fairy-batch", {"unet": unet}, (_chunks(inside),))


def fairy_cache() -> Manifest:
    """Anchors are computed once a step: 32 arrays of theirs go into the graph of the frames."""
    caches = [real(name, ANCHORS * 192, 1280) for name in CACHES]
    denoisers = {
        "anchors": graph(
            "anchors",
            _unet_inputs(ANCHORS),
            [_unet_output(ANCHORS), *caches],
            CPU_AND_NPU,
            role="denoiser",
        ),
        "frames": graph(
            "frames",
            [*_unet_inputs(CHUNK), *caches],
            [_unet_output(CHUNK)],
            CPU_AND_NPU,
            role="denoiser",
        ),
    }
    before: list[Operation] = [*_anchors()]
    inside: list[Operation] = [*_chunk("x")]
    for branch, (hidden, latents) in BRANCHES.items():
        names = {name: f"{branch}_{name}" for name in CACHES}
        anchors = _given("x_anchors", f"{latents}_anchors", hidden)
        frames = _given("x_chunk", f"{latents}_chunk", hidden)
        before.append(run("anchors", anchors, names))
        inside.append(run("frames", {**frames, **names}, {"model_output": branch}))
    return _fairy("fairy-cache", denoisers, (*before, _chunks(inside)))


def _unet_inputs(frames: int) -> list[Tensor]:
    return [
        real("sample", frames, *SMALL),
        real("timestep", 1),
        CLIP_HIDDEN,
        real("image_latents", frames, *SMALL),
    ]


def _unet_output(frames: int) -> Tensor:
    return real("model_output", frames, *SMALL)


def _given(x: str, latents: str, hidden: str) -> dict[str, str]:
    return {
        "sample": x,
        "timestep": "clip_timestep",
        CLIP_HIDDEN.name: hidden,
        "image_latents": latents,
    }


def _anchors() -> Iterable[Operation]:
    for name, array in (("x", "clip_input"), ("clip_latents",) * 2, ("no_latents",) * 2):
        yield Take(
            array=array,
            axis=0,
            start=Index(start=MIDDLE),
            size=ANCHORS,
            stride=STRIDE,
            output=f"{name}_anchors",
        )


def _chunk(x: str) -> Iterable[Operation]:
    here = Index(start=0, steps={"chunk": CHUNK})
    for name, array in ((x, "clip_input"), ("clip_latents",) * 2, ("no_latents",) * 2):
        yield take(array, here, CHUNK, f"{name}_chunk")


def _chunks(operations: Sequence[Operation]) -> Loop:
    """Go over the frames in chunks, and combine the branches: two scales of guidance."""
    guided = Linear(
        terms=(
            Term(array="none", scale="none_scale"),
            Term(array="picture", scale="picture_scale"),
            Term(array="full", scale="guidance_scale"),
        ),
        output="guided",
    )
    return Loop(
        count=CLIP // CHUNK,
        index="chunk",
        operations=(*operations, guided),
        collected={"guided": Collected(output="clip_output", axis=0)},
    )


def _fairy(
    name: str, denoisers: Mapping[str, Component], operations: Sequence[Operation]
) -> Manifest:
    height, width = 8 * SMALL[1], 8 * SMALL[2]
    components = {
        **denoisers,
        "text_encoder": graph(
            "text_encoder", [whole("input_ids", 1, 77)], [CLIP_HIDDEN], CPU_AND_NPU
        ),
        "vae_decoder": graph(
            "vae_decoder",
            [real("latents", 1, *SMALL)],
            [pixels("frames", 1, height, width, 3)],
            CPU_AND_NPU,
        ),
        "vae_encoder": graph(
            "vae_encoder",
            [pixels("image", 1, height, width, 3)],
            [real("latents", 1, *SMALL)],
            CPU_AND_NPU,
        ),
    }
    edited = sample(operations, "latents", "clip", stream=0, shared_axis=0)
    program = Program(
        name="default",
        task="video_to_video",
        video=VideoSpec(frames=CLIP, height=height, width=width, fps=14.0),
        inputs={
            "clip": ClipInput(frames=CLIP, height=height, width=width, fps=14.0),
            "guidance_scale": NumberInput(minimum=1.0, maximum=20.0, default=7.5),
            "image_guidance_scale": NumberInput(minimum=1.0, maximum=5.0, default=1.5),
            "prompt": PromptInput(),
        },
        operations=(
            *_texts(),
            each_frame(
                "vae_encoder", CLIP, "clip", ("image", "latents"), "clip_latents", "encoded"
            ),
            Linear(terms=(Term(array="clip_latents", scale=0.0),), output="no_latents"),
            *_scales(),
            DrawNoise(stream=0, shape=(1, *SMALL), output="one_noise"),
            Take(
                array="one_noise",
                axis=0,
                start=Index(start=0),
                size=CLIP,
                stride=0,
                output="clip_noise",
            ),
            edited,
            each_frame("vae_decoder", CLIP, "latents", ("latents", "frames"), "edited", "decoded"),
        ),
        output="edited",
    )
    schedules = {
        10: (
            (14.6146, 8.3, 5.2, 3.4, 2.3, 1.6, 1.1, 0.7, 0.4, 0.2, 0.0),
            tuple(float(timestep) for timestep in range(999, -1, -111)),
        )
    }
    return Manifest(
        name=name,
        programs=(program,),
        components=dict(sorted(components.items())),
        sets=sets_of(components, *CPU_AND_NPU),
        samplers={
            "main": sampler("euler_ancestral", "epsilon", schedules, init_noise_sigma=14.6146)
        },
        tokenizers={"clip": tokenizer("clip_bpe", "tokenizer/clip.json", 77)},
        source=source("fairy"),
        licences=licences(),
    )


def _texts() -> Iterable[Operation]:
    for given, prefix in (("prompt", ""), (None, "no_")):
        ids = f"{prefix}input_ids"
        yield Tokenize(input=given, tokenizer="clip", output=ids)
        yield run("text_encoder", {"input_ids": ids}, {CLIP_HIDDEN.name: f"{prefix}hidden"})


def _scales() -> Iterable[Operation]:
    """Make 1 - s_I and s_I - s_T: e = (1 - s_I) e(0, 0) + (s_I - s_T) e(I, 0) + s_T e(I, T)."""
    negative = InputValue(input="image_guidance_scale", scale=-1.0, offset=1.0)
    yield Numbers(values=(negative,), output="none_scale")
    terms = (
        Term(array="image_guidance_scale"),
        Term(array="guidance_scale", scale=-1.0),
    )
    yield Linear(terms=terms, output="picture_scale")
