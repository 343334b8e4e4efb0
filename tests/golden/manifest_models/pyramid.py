"""The golden manifest of Neodragon: units that follow each other, each in three resolutions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import sqrt

from manifest_models.parts import (
    CPU_AND_NPU,
    graph,
    licences,
    pixels,
    real,
    run,
    sampler,
    sets_of,
    source,
    table,
    tokenizer,
    whole,
)
from mvsdk.manifest import (
    Carried,
    Collected,
    Component,
    Concat,
    DrawNoise,
    Index,
    Linear,
    Loop,
    Manifest,
    Operation,
    PictureInput,
    Program,
    PromptInput,
    Resample,
    Sample,
    Table,
    Take,
    Tensor,
    Term,
    Tokenize,
    VideoSpec,
)

CHANNELS, UNITS, STAGES, TEXT = 16, 7, 3, 128
SIZES = ((10, 16), (20, 32), (40, 64))
OLDER = UNITS - 3
"""Frames of history at the lowest resolution, of the last unit in the last stage."""
TOKENS = (280, 520, 1600)
"""Of each stage in the last unit; in earlier ones the first of them are masked."""
JUMPS = ((0.59988, 0.69303), (0.74963, 0.43366))
FIRST_SCALE, FIRST_SHIFT = 1 / 1.8415, 0.149
SCALE, SHIFT = 0.3031, -0.2343
UNIT_STREAM, PICTURE_STREAM, JUMP_STREAM = 1000, 65536, 65600
STATES = (*((256, 40, 64),) * 3, *((128, 80, 128),) * 3, *((64, 160, 256),) * 3)
"""Shapes of what the decoder hands to the next latent."""
SUFFIX = ", hyper quality, Ultra HD, 8K"
HISTORY = (
    ((OLDER, "older"), (1, "second_0"), (1, "last_0")),
    ((OLDER, "older"), (1, "second_0"), (1, "last_1")),
    ((OLDER, "older"), (1, "second"), (1, "last")),
)
"""Stage -> frames and arrays of history, oldest first, each with its own resolution."""


def neodragon() -> Manifest:
    """From a text alone, or from a text and the picture of the first frame."""
    components = _components()
    video = VideoSpec(frames=8 * UNITS - 7, height=320, width=512, fps=24.0)
    text = Program(
        name="text",
        task="text_to_video",
        video=video,
        inputs={"prompt": PromptInput()},
        operations=(*_encode(), *_unit("first", _nothing(), Index(start=0), 0), *_rest()),
        output="frames",
    )
    picture = replace(
        text,
        name="picture",
        task="image_to_video",
        inputs={"picture": PictureInput(height=320, width=512), "prompt": PromptInput()},
        operations=(*_encode(), *_encode_picture(), *_rest()),
    )
    one = ((1.0, 0.0), 1)
    two = ((1.0, 0.001, 0.0), 2)
    times = ((1000.0, 744.25598), (744.0, 386.358), (386.0, 1.38501))
    return Manifest(
        name="neodragon",
        programs=(text, picture),
        components=components,
        sets=sets_of(components, *CPU_AND_NPU),
        samplers={
            f"stage_{stage}": sampler(
                "flow_euler",
                "velocity",
                {steps: (sigmas, times[stage][:steps]) for sigmas, steps in (one, two)},
                default_steps=1,
            )
            for stage in range(STAGES)
        },
        tokenizers={
            "clip_g": tokenizer("clip_bpe", "tokenizer/clip_g.json", 77),
            "clip_l": tokenizer("clip_bpe", "tokenizer/clip_l.json", 77),
            "t5": tokenizer("t5_unigram", "tokenizer/t5.json", TEXT),
        },
        tables=_tables(),
        source=source("neodragon"),
        licences=licences(),
    )


def _tables() -> dict[str, Table]:
    tables = {
        "no_last": table("no_last", "float32", 1, CHANNELS, *SIZES[2]),
        "no_older": table("no_older", "float32", OLDER, CHANNELS, *SIZES[0]),
        "no_second": table("no_second", "float32", 1, CHANNELS, *SIZES[1]),
    }
    for shape in sorted(set(STATES)):
        name = f"no_state_{shape[0]}"
        tables[name] = table(name, "float32", 1, *shape)
    for stage, tokens in enumerate(TOKENS):
        length = tokens + TEXT
        for name, dtype, shape in (
            (f"masks_{stage}", "uint8", (UNITS, length, length)),
            (f"positions_{stage}", "float32", (UNITS, length, 3)),
        ):
            tables[name] = table(name, "uint8" if dtype == "uint8" else "float32", *shape)
    return dict(sorted(tables.items()))


def _components() -> dict[str, Component]:
    ids, mask = whole("input_ids", 1, 77), whole("attention_mask", 1, TEXT)
    hidden, context = real("hidden_states", 1, TEXT, 4096), real("context", 1, TEXT, 1536)
    states = [(f"state_{n}", (1, *shape)) for n, shape in enumerate(STATES)]
    parts = {
        "context_adapter": graph(
            "context_adapter", [hidden], [context], CPU_AND_NPU, role="adapter"
        ),
        "text_encoder": graph("text_encoder", [ids], [real("pooled", 1, 768)], CPU_AND_NPU),
        "text_encoder_2": graph(
            "text_encoder_2", [ids], [real("pooled", 1, 1280)], CPU_AND_NPU, role="text_encoder"
        ),
        "text_encoder_3": graph(
            "text_encoder_3",
            [whole("input_ids", 1, TEXT), mask],
            [hidden],
            CPU_AND_NPU,
            role="text_encoder",
        ),
        "vae_decoder": graph(
            "vae_decoder",
            [real("latents", 1, CHANNELS, *SIZES[2]), *(real(n, *s) for n, s in states)],
            [pixels("frames", 8, 320, 512, 3), *(real(f"next_{n}", *s) for n, s in states)],
            CPU_AND_NPU,
        ),
        "vae_encoder": graph(
            "vae_encoder",
            [pixels("image", 1, 320, 512, 3)],
            [real("latents", 1, CHANNELS, *SIZES[2])],
            CPU_AND_NPU,
        ),
    }
    for stage in range(STAGES):
        parts[f"transformer_{stage}"] = graph(
            f"transformer_{stage}",
            [*_stage_inputs(stage), context, mask],
            [real("model_output", 1, CHANNELS, *SIZES[stage])],
            CPU_AND_NPU,
            role="denoiser",
        )
    return dict(sorted(parts.items()))


def _stage_inputs(stage: int) -> list[Tensor]:
    length = TOKENS[stage] + TEXT
    levels = {"older": 0, "second": 1, "last": 2, "second_0": 0, "last_0": 0, "last_1": 1}
    return [
        real("sample", 1, CHANNELS, *SIZES[stage]),
        real("timestep", 1),
        *(
            real(f"history_{n}", frames, CHANNELS, *SIZES[levels[array]])
            for n, (frames, array) in enumerate(HISTORY[stage])
        ),
        real("pooled", 1, 2048),
        real("positions", length, 3),
        real("attention_bias", length, length),
    ]


def _encode() -> Iterable[Operation]:
    """Make text features: pooled ones of two encoders, and states of a third through an adapter."""
    for number, name in (("", "clip_l"), ("_2", "clip_g")):
        yield Tokenize(input="prompt", after=SUFFIX, tokenizer=name, output=f"{name}_ids")
        yield run(
            f"text_encoder{number}", {"input_ids": f"{name}_ids"}, {"pooled": f"{name}_pooled"}
        )
    yield Concat(arrays=("clip_l_pooled", "clip_g_pooled"), axis=1, output="pooled")
    yield Tokenize(input="prompt", after=SUFFIX, tokenizer="t5", output="t5_ids", mask="t5_mask")
    yield run(
        "text_encoder_3",
        {"input_ids": "t5_ids", "attention_mask": "t5_mask"},
        {"hidden_states": "hidden_states"},
    )
    yield run("context_adapter", {"hidden_states": "hidden_states"}, {"context": "context"})


def _encode_picture() -> Iterable[Operation]:
    yield run("vae_encoder", {"image": "picture"}, {"latents": "picture_latents"})
    yield scaled("picture_latents", FIRST_SCALE, -FIRST_SHIFT * FIRST_SCALE, "first")


def scaled(array: str, scale: float, offset: float, output: str) -> Linear:
    """Return array * scale + offset."""
    return Linear(terms=(Term(array=array, scale=scale),), offset=offset, output=output)


def resampled(array: str, output: str, method: str = "mean") -> Resample:
    """Return an array of half or twice the height and width."""
    chosen = "mean" if method == "mean" else "nearest"
    return Resample(array=array, method=chosen, factor=2, output=output)


def _nothing() -> Mapping[str, str]:
    """Return the history of the first unit: zeros, which the masks hide."""
    return {
        "older": "no_older",
        "second": "no_second",
        "last": "no_last",
        "last_1": "no_second",
        "last_0": "no_last_0",
        "second_0": "no_last_0",
    }


def _unit(name: str, history: Mapping[str, str], index: Index, number: int) -> Sequence[Operation]:
    """Return a unit: noise at the lowest resolution, and two jumps to higher ones."""
    stream = UNIT_STREAM * number
    operations: list[Operation] = [
        DrawNoise(stream=stream, shape=(1, CHANNELS, *SIZES[2]), output=f"{name}_g_2"),
        resampled(f"{name}_g_2", f"{name}_g_1"),
        resampled(f"{name}_g_1", f"{name}_g_0"),
        scaled(f"{name}_g_0", 4.0, 0.0, f"{name}_start_0"),
    ]
    if "no_last_0" in history.values():
        operations.append(resampled("no_second", "no_last_0"))
    for stage in range(STAGES):
        if stage:
            operations += _jump(name, stage, JUMP_STREAM + STAGES * number + stage)
        operations += _stage(name, stage, history, index, stream)
    return operations


def _jump(name: str, stage: int, stream: int) -> Sequence[Operation]:
    """Go to the next resolution: noise whose 2x2 blocks have a mean of zero corrects the blocks."""
    alpha, beta = JUMPS[stage - 1]
    noise, means, blocks = (f"{name}_{word}_{stage}" for word in ("noise", "means", "blocks"))
    large = f"{name}_large_{stage}"
    correct = beta * sqrt(4 / 3)
    terms = (
        Term(array=large, scale=alpha),
        Term(array=noise, scale=correct),
        Term(array=blocks, scale=-correct),
    )
    return [
        resampled(f"{name}_x_{stage - 1}", large, "nearest"),
        DrawNoise(stream=stream, shape=(1, CHANNELS, *SIZES[stage]), output=noise),
        resampled(noise, means),
        resampled(means, blocks, "nearest"),
        Linear(terms=terms, output=f"{name}_start_{stage}"),
    ]


def _stage(
    name: str, stage: int, history: Mapping[str, str], index: Index, stream: int
) -> Sequence[Operation]:
    def own(word: str) -> str:
        return f"{name}_{word}_{stage}"

    arrays = [history[array] for _, array in HISTORY[stage]]
    inputs = {
        "sample": own("input"),
        "timestep": own("timestep"),
        **{f"history_{n}": array for n, array in enumerate(arrays)},
        "pooled": "pooled",
        "positions": own("positions"),
        "attention_bias": own("bias"),
        "context": "context",
        "attention_mask": "t5_mask",
    }
    call = run(f"transformer_{stage}", inputs, {"model_output": own("output")})
    return [
        Take(array=f"positions_{stage}", axis=0, start=index, size=1, output=own("positions")),
        Take(array=f"masks_{stage}", axis=0, start=index, size=1, output=own("mask")),
        scaled(own("mask"), 100.0, -100.0, own("bias")),  # 1 becomes 0, and 0 becomes -100
        Sample(
            sampler=f"stage_{stage}",
            start=own("start"),
            stream=stream,
            index=own("step"),
            model_input=own("input"),
            timestep=own("timestep"),
            operations=(call,),
            model_output=own("output"),
            output=own("x") if stage < STAGES - 1 else name,
        ),
    ]


def _rest() -> Iterable[Operation]:
    """Add the other units to the first, and decode all of them."""
    history = {name: name for name in ("older", "second", "last", "last_1", "last_0", "second_0")}
    units: list[Operation] = [
        resampled("last", "last_1"),
        resampled("last_1", "last_0"),
        resampled("second", "second_0"),
        *_unit("next", history, Index(start=1, steps={"unit": 1}), 1),
        Take(array="older", axis=0, start=Index(start=1), size=OLDER - 1, output="recent"),
        Concat(arrays=("recent", "second_0"), axis=0, output="next_older"),
    ]
    yield Loop(
        count=UNITS - 1,
        index="unit",
        carried={
            "last": Carried(start="first", next="next"),
            "older": Carried(start="no_older", next="next_older"),
            "second": Carried(start="no_second", next="last_1"),
        },
        operations=tuple(units),
        collected={"next": Collected(output="others", axis=0)},
    )
    yield scaled("first", 1 / FIRST_SCALE, FIRST_SHIFT, "first_latent")
    yield scaled("others", 1 / SCALE, SHIFT, "other_latents")
    yield Concat(arrays=("first_latent", "other_latents"), axis=0, output="latents")
    yield _decode()
    yield Take(
        array="all_frames", axis=0, start=Index(start=7), size=8 * UNITS - 7, output="frames"
    )


def _decode() -> Loop:
    states = {f"state_{n}": f"no_state_{shape[0]}" for n, shape in enumerate(STATES)}
    carried = {name: Carried(start=zeros, next=f"next_{name}") for name, zeros in states.items()}
    here = Index(start=0, steps={"latent": 1})
    outputs = {"frames": "eight", **{f"next_{name}": f"next_{name}" for name in states}}
    return Loop(
        count=UNITS,
        index="latent",
        carried=carried,
        operations=(
            Take(array="latents", axis=0, start=here, size=1, output="one"),
            run("vae_decoder", {"latents": "one", **{name: name for name in states}}, outputs),
        ),
        collected={"eight": Collected(output="all_frames", axis=0)},
    )
