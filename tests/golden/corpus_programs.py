"""What is refused of programs and tables: rules P."""

from __future__ import annotations

from corpus import Malformed, copied, drop, fill, put, rename

OPERATIONS = "programs[0].operations"
SAMPLE = f"{OPERATIONS}[3]"
"""Of sticker."""
LOOP = f"{OPERATIONS}[8]"
"""Of animator: the decoder, for two frames of latents at once."""
UNITS = f"{OPERATIONS}[35]"
"""Of neodragon."""
UPSCALE = f"{OPERATIONS}[0]"
PROMPT = {"kind": "prompt"}
PICTURE = {"kind": "picture", "height": 64, "width": 64}
CLIP = {"kind": "clip", "frames": 8, "height": 64, "width": 64, "fps": 8}


def numbers(output: str, *values: object) -> dict[str, object]:
    """Return an operation that needs nothing."""
    return {"op": "numbers", "values": list(values) or [0], "output": output}


def looped(index: str, *operations: object, count: int = 1) -> dict[str, object]:
    """Return a loop that collects `a` as `b`, both followed by the name of its index."""
    joined = {"output": f"b{index}", "axis": 0, "overlap": 0, "blend": None}
    return {
        "op": "loop",
        "count": count,
        "index": index,
        "carried": {},
        "operations": list(operations),
        "collected": {f"a{index}": joined},
    }


def add_programs(corpus: Malformed) -> None:
    """Add cases of the rules P."""
    _inputs(corpus)
    _names(corpus)
    _fitting(corpus)
    _repetitions(corpus)
    _indices(corpus)
    _words(corpus)
    _runs(corpus)
    _places(corpus)
    _samples(corpus)
    _carried(corpus)
    _collected(corpus)
    _unused(corpus)
    _tables(corpus)


def _inputs(corpus: Malformed) -> None:
    inputs = "programs[0].inputs"
    for base, name, given in (
        ("sticker", "two prompts", PROMPT),
        ("sticker", "a picture for text_to_video", PICTURE),
        ("sticker", "a clip for text_to_video", CLIP),
        ("animator", "two pictures", PICTURE),
        ("animator", "a clip for image_to_video", CLIP),
        ("video_to_video", "two prompts for video_to_video", PROMPT),
        ("video_to_video", "a picture for video_to_video", PICTURE),
        ("video_to_video", "two clips", CLIP),
        ("upscale", "a picture for upscale", PICTURE),
        ("upscale", "two clips for upscale", CLIP),
    ):
        corpus.wrong("P1", base, name, inputs, put(f"{inputs}.further", given))
    corpus.wrong("P1", "sticker", "no prompt", inputs, put(inputs, {}))
    corpus.wrong("P1", "animator", "no picture", inputs, drop(f"{inputs}.picture"))
    corpus.wrong("P1", "upscale", "no clip", inputs, put(inputs, {}))
    for task, base in (
        ("image_to_video", "sticker"),
        ("video_to_video", "sticker"),
        ("upscale", "sticker"),
        ("text_to_video", "animator"),
        ("text_to_video", "upscale"),
    ):
        corpus.wrong("P1", base, f"{base} as {task}", inputs, put("programs[0].task", task))
    motion, fps, noise = (f"{inputs}.{name}" for name in ("motion", "fps", "noise_aug_strength"))
    corpus.values("P2", "animator", f"{motion}.default", -1, 256)
    corpus.values("P2", "animator", f"{motion}.minimum", 300)
    corpus.values("P2", "animator", f"{motion}.minimum", 128, where=f"{motion}.default")
    corpus.values("P2", "animator", f"{motion}.maximum", 126, where=f"{motion}.default")
    corpus.values("P2", "animator", f"{motion}.maximum", -1, where=f"{motion}.minimum")
    corpus.values("P2", "animator", f"{motion}.default", 1.5, where=motion)
    corpus.values("P2", "animator", f"{motion}.minimum", 0.5, where=motion)
    corpus.values("P2", "animator", f"{motion}.maximum", 254.5, where=motion)
    corpus.values("P2", "animator", f"{noise}.whole", True, where=noise)
    corpus.values("P3", "animator", f"{fps}.minimum", 0, 0.05, -1, where=fps)
    corpus.values("P3", "animator", f"{fps}.maximum", 240.5, 1000, where=fps)


def _names(corpus: Malformed) -> None:
    noise = f"{OPERATIONS}[2].output"
    corpus.values(
        "P4",
        "sticker",
        noise,
        None,
        1,
        "",
        "Start",
        "1start",
        "_start",
        "st-art",
        "st art",
        "stärt",
        "start\n",
    )
    corpus.wrong("P4", "sticker", "a name of 65", noise, put(noise, "s" * 65))
    for base, path, key in (
        ("sticker", "programs[0].inputs", "prompt"),
        ("neodragon", "tables", "no_last"),
        ("neodragon", f"{UNITS}.carried", "last"),
        ("neodragon", f"{UNITS}.collected", "next"),
        ("animator", f"{LOOP}.operations[0].start.steps", "part"),
    ):
        corpus.wrong("P4", base, f"a key of {path}", path, rename(f"{path}.{key}", "a-b"))
    for path in (
        f"{OPERATIONS}[0].output",
        f"{OPERATIONS}[0].input",
        f"{SAMPLE}.start",
        f"{SAMPLE}.index",
        f"{SAMPLE}.model_input",
        f"{SAMPLE}.model_output",
        f"{SAMPLE}.output",
        "programs[0].output",
        f"{OPERATIONS}[1].inputs.input_ids",
        f"{OPERATIONS}[1].outputs.encoder_hidden_states",
    ):
        corpus.values("P4", "sticker", path, "A")
    for base, path, name, where in (
        ("sticker", f"{OPERATIONS}[2].output", "input_ids", f"{OPERATIONS}[2]"),
        ("sticker", f"{OPERATIONS}[2].output", "prompt", f"{OPERATIONS}[2]"),
        ("sticker", f"{SAMPLE}.output", "start", SAMPLE),
        ("sticker", f"{SAMPLE}.index", "start", f"{SAMPLE}.index"),
        ("sticker", f"{SAMPLE}.model_input", "start", SAMPLE),
        ("sticker", f"{SAMPLE}.timestep", "model_input", SAMPLE),
        ("sticker", f"{SAMPLE}.output", "model_output", SAMPLE),
        ("neodragon", f"{OPERATIONS}[0].output", "no_last", f"{OPERATIONS}[0]"),
        ("neodragon", f"{OPERATIONS}[5].mask", "t5_ids", f"{OPERATIONS}[5]"),
        ("animator", f"{LOOP}.index", "latents", f"{LOOP}.index"),
        ("animator", f"{LOOP}.index", "step", f"{LOOP}.index"),
        (
            "animator",
            f"{LOOP}.collected.part_frames.output",
            "part",
            f"{LOOP}.collected.part_frames",
        ),
    ):
        if path.endswith(f"{LOOP}.index"):
            steps = put(f"{LOOP}.operations[0].start.steps", {name: 2})
            corpus.wrong(
                "P4", base, f"{path} {name}, which is taken", where, put(path, name), steps
            )
            continue
        corpus.wrong("P4", base, f"{path} {name}, which is taken", where, put(path, name))
    table = "tables.picture"
    corpus.wrong(
        "P4",
        "neodragon",
        "a table called as an input",
        "programs[1].inputs.picture",
        copied(table, "tables.no_last"),
    )


def _fitting(corpus: Malformed) -> None:
    for base, path, name in (
        ("sticker", f"{SAMPLE}.start", "nothing"),
        ("sticker", f"{SAMPLE}.start", "latents"),
        ("sticker", f"{SAMPLE}.start", "model_output"),
        ("sticker", f"{SAMPLE}.start", "input_ids"),
        ("sticker", f"{SAMPLE}.start", "prompt"),
        ("sticker", "programs[0].output", "nothing"),
        ("sticker", "programs[0].output", "latents"),
        ("sticker", "programs[0].output", "input_ids"),
        ("sticker", "programs[0].output", "model_output"),
        ("sticker", f"{SAMPLE}.sampler", "other"),
    ):
        corpus.values("P5", base, path, name)
    for base, path, name, where in (
        ("animator", f"{LOOP}.operations[0].array", "part_frames", f"{LOOP}.operations[0]"),
        ("neodragon", f"{OPERATIONS}[4].arrays[1]", "t5_ids", f"{OPERATIONS}[4]"),
        ("neodragon", f"{OPERATIONS}[4].arrays[1]", "hidden_states", f"{OPERATIONS}[4]"),
        ("neodragon", f"{OPERATIONS}[4].arrays[0]", "no_last", f"{OPERATIONS}[4]"),
        ("neodragon", f"{OPERATIONS}[9].array", "t5_ids", f"{OPERATIONS}[9]"),
        ("neodragon", f"{OPERATIONS}[9].array", "masks_0", f"{OPERATIONS}[9]"),
        ("neodragon", f"{OPERATIONS}[11].terms[0].array", "t5_ids", f"{OPERATIONS}[11]"),
        ("neodragon", f"{OPERATIONS}[11].terms[0].scale", "t5_mask", f"{OPERATIONS}[11]"),
        ("neodragon", f"{OPERATIONS}[11].terms[0].scale", "pooled", f"{OPERATIONS}[11]"),
        ("neodragon", f"{OPERATIONS}[11].terms[0].scale", "nothing", f"{OPERATIONS}[11]"),
        ("neodragon", f"{OPERATIONS}[21].terms[1].array", "first_means_1", f"{OPERATIONS}[21]"),
        ("neodragon", f"{UNITS}.carried.last.start", "next", f"{UNITS}.carried.last"),
    ):
        corpus.wrong("P5", base, f"{path} {name}", where, put(path, name))
    for factor in (3, 16):
        corpus.wrong(
            "P5",
            "neodragon",
            f"a mean of {factor}",
            f"{OPERATIONS}[9]",
            put(f"{OPERATIONS}[9].factor", factor),
        )
    corpus.wrong(
        "P5",
        "neodragon",
        "resample of one axis",
        f"{OPERATIONS}[9]",
        put(f"{OPERATIONS}[8].shape", [4096]),
    )
    corpus.wrong(
        "P5",
        "sticker",
        "no axes",
        f"{OPERATIONS}[0]",
        put(
            f"{OPERATIONS}[0]",
            {"op": "resample", "array": "zero", "method": "mean", "factor": 2, "output": "one"},
        ),
    )
    video = "programs[0].video"
    for key in ("frames", "height", "width"):
        corpus.wrong(
            "P5",
            "sticker",
            f"a video of other {key}",
            "programs[0].output",
            put(f"{video}.{key}", 65),
        )
    corpus.wrong(
        "P5", "upscale", "the clip itself", "programs[0].output", put("programs[0].output", "clip")
    )
    corpus.wrong(
        "P5", "upscale", "a frame of the clip", "programs[0].output", put(f"{UPSCALE}.count", 23)
    )


def _repetitions(corpus: Malformed) -> None:
    corpus.values("P7", "upscale", f"{UPSCALE}.count", None, True, 0, -1, 65537, 1.5, "24")
    nested: dict[str, object] = numbers("ae")
    for index in "edcba":
        nested = looped(
            index,
            nested
            if index == "e"
            else nested
            | {
                "collected": {
                    f"a{chr(ord(index) + 1)}": {
                        "output": f"a{index}",
                        "axis": 0,
                        "overlap": 0,
                        "blend": None,
                    }
                }
            },
        )
    deep = ".operations[0]" * 4
    corpus.wrong("P7", "upscale", "five levels", f"{OPERATIONS}[0]{deep}", put(UPSCALE, nested))
    many = looped(
        "i",
        looped("j", numbers("aj"), count=65536)
        | {"collected": {"aj": {"output": "ai", "axis": 0, "overlap": 0, "blend": None}}},
        count=16,
    )
    corpus.wrong(
        "P7",
        "upscale",
        "2^20 and some carried out",
        f"{OPERATIONS}[0].operations[0].operations",
        put(UPSCALE, many),
    )
    corpus.wrong(
        "P7",
        "upscale",
        "65536 times 17",
        f"{UPSCALE}.operations",
        put(f"{UPSCALE}.count", 65536),
        fill(f"{UPSCALE}.operations", numbers("a"), 17),
    )
    steps = {
        str(n): {"sigmas": [(n - k) / n for k in range(n + 1)], "timesteps": [0] * n}
        for n in (1000,)
    }
    corpus.wrong(
        "P7",
        "sticker",
        "1000 steps of a loop of 1100",
        f"{SAMPLE}.operations[0].operations",
        put("samplers.main.schedules", steps),
        put("samplers.main.default_steps", 1000),
        put(f"{SAMPLE}.operations[0]", looped("i", numbers("ai"), count=1100)),
    )


def _indices(corpus: Malformed) -> None:
    take = f"{LOOP}.operations[0]"
    start = f"{take}.start"
    for name, *edits in (
        ("a part too many", put(f"{LOOP}.count", 8)),
        ("a step too large", put(f"{start}.steps.part", 3)),
        ("below 0", put(f"{start}.start", -1)),
        ("below 0 in the end", put(f"{start}.steps.part", -2)),
        ("one further", put(f"{start}.start", 1)),
        ("a size too large", put(f"{take}.size", 3)),
        ("a stride too large", put(f"{take}.stride", 2)),
        ("numbers without end", put(f"{start}.steps.part", 2**31 - 1)),
    ):
        corpus.wrong("P8", "animator", name, start, *edits)
    corpus.wrong("P8", "animator", "a place behind the end", start, put(start, 13))
    corpus.wrong(
        "P8", "animator", "a size behind the end", start, put(start, 0), put(f"{take}.size", 15)
    )
    for name in ("other", "step", "latents", "fps", "picture"):
        corpus.wrong(
            "P8", "animator", f"an index of {name}", start, put(f"{start}.steps", {name: 1})
        )
    motion = "programs[0].inputs.motion"
    corpus.wrong(
        "P8",
        "animator",
        "a number of the caller that is too large",
        start,
        put(f"{start}.steps", {"motion": 1}),
    )
    corpus.wrong(
        "P8",
        "animator",
        "a number of the caller far beyond",
        start,
        put(f"{start}.steps", {"motion": 2}),
        put(f"{motion}.maximum", 3e38),
    )
    corpus.wrong(
        "P8",
        "animator",
        "a number of the caller below 0",
        start,
        put(f"{start}.steps", {"motion": 1}),
        put(f"{motion}.minimum", -1),
        put(f"{motion}.maximum", 0),
        put(f"{motion}.default", 0),
    )
    corpus.wrong(
        "P8",
        "video_ldm_cascade",
        "a level beyond the table",
        f"{OPERATIONS}[13].start",
        put("programs[0].inputs.noise_level.maximum", 351),
    )
    corpus.wrong(
        "P8",
        "fairy_batch",
        "anchors beyond the clip",
        f"{OPERATIONS}[10].operations[0].operations[3].start",
        put(f"{OPERATIONS}[10].operations[0].operations[3].start", 10),
    )
    corpus.wrong(
        "P8",
        "neodragon",
        "a unit too many",
        f"{UNITS}.operations[7].start",
        put(f"{UNITS}.count", 7),
    )


def _words(corpus: Malformed) -> None:
    tokenize = f"{OPERATIONS}[0]"
    for name in ("nothing", "input_ids"):
        corpus.values("P9", "sticker", f"{tokenize}.input", name)
    corpus.values("P9", "sticker", f"{tokenize}.tokenizer", "other", "Main")
    corpus.values("P9", "sticker", f"{tokenize}.input", None)
    corpus.values("P9", "video_to_video", f"{tokenize}.input", "clip", "noise_level")
    values = f"{OPERATIONS}[4].values"
    corpus.wrong("P10", "animator", "no numbers", values, put(values, []))
    corpus.wrong("P10", "animator", "65537 numbers", values, fill(values, 0, 65537))
    for name in ("picture", "nothing", "picture_noise"):
        corpus.wrong(
            "P10",
            "animator",
            f"numbers of {name}",
            f"{OPERATIONS}[4]",
            put(f"{values}[0].input", name),
        )
    corpus.wrong(
        "P10",
        "video_to_video",
        "numbers of a prompt",
        f"{OPERATIONS}[0]",
        put(f"{OPERATIONS}[0]", numbers("a", {"input": "prompt", "scale": 1, "offset": 0})),
    )


def _runs(corpus: Malformed) -> None:
    run = f"{SAMPLE}.operations[0]"
    corpus.values("P11", "sticker", f"{run}.component", "other", "Unet", where=f"{run}.component")
    corpus.values("P11", "sticker", f"{run}.component", "vae_decoder", where=f"{run}.inputs")
    for name, *edits in (
        ("an input less", drop(f"{run}.inputs.timestep")),
        ("an input more", put(f"{run}.inputs.more", "timestep")),
        ("an input of another name", rename(f"{run}.inputs.timestep", "time")),
        ("no inputs", put(f"{run}.inputs", {})),
    ):
        corpus.wrong("P11", "sticker", name, f"{run}.inputs", *edits)
    for name, *edits in (
        ("an output that is not there", rename(f"{run}.outputs.model_output", "noise")),
        ("an output more", put(f"{run}.outputs.noise", "noise")),
        ("no outputs", put(f"{run}.outputs", {})),
        ("an input as output", put(f"{run}.outputs", {"sample": "model_output"})),
    ):
        corpus.wrong("P11", "sticker", name, f"{run}.outputs", *edits)
    for array in ("encoder_hidden_states", "timestep", "input_ids"):
        corpus.values("P11", "sticker", f"{run}.inputs.sample", array)
    corpus.values("P5", "sticker", f"{run}.inputs.sample", "nothing", "latents")
    corpus.values("P5", "sticker", f"{OPERATIONS}[1].inputs.input_ids", "start")
    corpus.wrong(
        "P11",
        "sticker",
        "tokens of another length",
        f"{OPERATIONS}[1].inputs.input_ids",
        put("tokenizers.main.max_length", 77),
    )
    corpus.wrong(
        "P11",
        "animator",
        "a picture of another size",
        f"{OPERATIONS}[0].inputs.image",
        put("programs[0].inputs.picture.width", 256),
    )
    corpus.wrong(
        "P11",
        "animator",
        "rows and columns the other way round",
        f"{OPERATIONS}[0].inputs.image",
        put("programs[0].inputs.picture.width", 256),
        put("programs[0].inputs.picture.height", 512),
    )
    corpus.wrong(
        "P11",
        "animator",
        "a real for pixels",
        f"{OPERATIONS}[0].inputs.image",
        put("components.image_encoder.inputs[0].type", "real"),
        *(
            put(f"components.image_encoder.variants[{n}].inputs[0].dtype", "float32")
            for n in range(3)
        ),
    )


def _places(corpus: Malformed) -> None:
    terms = f"{OPERATIONS}[11].terms"
    term = {"array": "first_g_0", "scale": 1}
    corpus.wrong("P12", "neodragon", "no terms", terms, put(terms, []))
    corpus.wrong("P12", "neodragon", "17 terms", terms, fill(terms, term, 17))
    arrays = f"{OPERATIONS}[4].arrays"
    corpus.wrong("P12", "neodragon", "no arrays", arrays, put(arrays, []))
    corpus.wrong("P12", "neodragon", "65 arrays", arrays, fill(arrays, "clip_l_pooled", 65))
    corpus.wrong(
        "P12",
        "neodragon",
        "an axis of concat that is not there",
        f"{OPERATIONS}[4]",
        put(f"{OPERATIONS}[4].axis", 2),
    )
    take = f"{LOOP}.operations[0]"
    corpus.wrong(
        "P12", "animator", "an axis of take that is not there", take, put(f"{take}.axis", 4)
    )
    corpus.wrong("P12", "animator", "the axis 7", take, put(f"{take}.axis", 7))


def _samples(corpus: Malformed) -> None:
    output = f"{SAMPLE}.model_output"
    corpus.values("P13", "sticker", output, "model_input", "start", "timestep", "nothing")
    corpus.values("P13", "sticker", f"{SAMPLE}.stream", 2**32 - 1, 2**32 - 4)
    corpus.values("P13", "sticker", f"{SAMPLE}.shared_axis", 4, 7)
    corpus.wrong(
        "P13",
        "sticker",
        "another shape",
        output,
        put(f"{OPERATIONS}[2].shape", [8, 16, 8]),
        put(f"{SAMPLE}.operations[0]", numbers("model_output")),
    )
    corpus.wrong(
        "P13",
        "sticker",
        "one number for all",
        output,
        put(f"{SAMPLE}.operations[1]", numbers("one")),
        put(output, "one"),
    )
    corpus.wrong(
        "P13",
        "sticker",
        "integers",
        output,
        copied(f"{SAMPLE}.operations[1]", f"{OPERATIONS}[0]"),
        put(f"{SAMPLE}.operations[1].output", "more_ids"),
        put(output, "more_ids"),
    )


def _carried(corpus: Malformed) -> None:
    last = f"{UNITS}.carried.last"
    for name in ("last", "no_last", "nothing", "first", "next_second"):
        corpus.wrong("P14", "neodragon", f"next is {name}", last, put(f"{last}.next", name))
    corpus.wrong("P14", "neodragon", "next of another shape", last, put(f"{last}.next", "last_1"))
    corpus.wrong(
        "P14",
        "neodragon",
        "next of another type",
        f"{UNITS}.carried.older",
        put(
            f"{UNITS}.operations[31]",
            {
                "op": "take",
                "array": "masks_0",
                "axis": 0,
                "start": 0,
                "size": 1,
                "stride": 1,
                "output": "next_mask",
            },
        ),
        put(f"{UNITS}.carried.older.next", "next_mask"),
    )
    corpus.wrong(
        "P14",
        "neodragon",
        "a history that grows",
        f"{UNITS}.carried.older",
        put(f"{UNITS}.carried.older.next", "grown"),
        {
            "at": ["programs", 0, "operations", 35, "operations", 31],
            "set": {"op": "concat", "arrays": ["older", "second_0"], "axis": 0, "output": "grown"},
        },
    )


def _collected(corpus: Malformed) -> None:
    collected = f"{LOOP}.collected.part_frames"
    corpus.wrong("P15", "animator", "no result", LOOP, put(f"{LOOP}.collected", {}))
    for name in ("latents", "nothing", "part_latents_of_none"):
        corpus.wrong(
            "P15",
            "animator",
            f"collects {name}",
            f"{LOOP}.collected.{name}",
            rename(collected, name),
        )
    corpus.wrong(
        "P15", "animator", "an axis that is not there", collected, put(f"{collected}.axis", 4)
    )
    corpus.values("P15", "animator", f"{collected}.blend", "first", "last", "linear")
    corpus.wrong(
        "P15",
        "animator",
        "an overlap without blend",
        f"{collected}.blend",
        put(f"{collected}.overlap", 1),
    )
    corpus.wrong(
        "P15",
        "animator",
        "an overlap of more than half",
        collected,
        put(f"{collected}.overlap", 2),
        put(f"{collected}.blend", "last"),
    )
    corpus.wrong(
        "P15",
        "animator",
        "linear of bytes",
        collected,
        put(f"{collected}.overlap", 1),
        put(f"{collected}.blend", "linear"),
    )
    corpus.values("D10", "animator", f"{collected}.blend", "mean", 0)
    corpus.values("D10", "animator", f"{collected}.overlap", None, -1, True, 2**31)


def _unused(corpus: Malformed) -> None:
    program = "programs[0]"
    for base, name, *edits in (
        ("sticker", "an array", put(f"{OPERATIONS}[5]", numbers("spare"))),
        (
            "sticker",
            "a number",
            put(
                "programs[0].inputs.strength",
                {"kind": "number", "minimum": 0, "maximum": 1, "default": 1, "whole": False},
            ),
        ),
        (
            "sticker",
            "the prompt",
            put(f"{OPERATIONS}[0].input", None),
            put(f"{OPERATIONS}[0].before", "a rocket"),
        ),
        ("sticker", "the model input", put(f"{SAMPLE}.operations[0].inputs.sample", "start")),
        ("animator", "an array in a loop", put(f"{LOOP}.operations[2]", numbers("spare"))),
        (
            "neodragon",
            "a carried array",
            put(f"{UNITS}.carried.spare", {"start": "no_last", "next": "next", "output": None}),
        ),
        ("neodragon", "what is carried out", put(f"{UNITS}.carried.last.output", "end")),
        ("video_to_video", "the prompt of a clip", put(f"{OPERATIONS}[0].input", None)),
    ):
        corpus.wrong("P16", base, f"{name} that nothing uses", program, *edits)
    corpus.wrong(
        "P16",
        "sticker",
        "a sampler that nothing uses",
        "samplers.spare",
        copied("samplers.spare", "samplers.main"),
    )
    corpus.wrong(
        "P16",
        "sticker",
        "a tokenizer that nothing uses",
        "tokenizers.spare",
        copied("tokenizers.spare", "tokenizers.main"),
    )
    corpus.wrong(
        "P16",
        "neodragon",
        "a table that nothing uses",
        "tables.spare",
        copied("tables.spare", "tables.no_last"),
    )


def _tables(corpus: Malformed) -> None:
    table = "tables.positions_0"
    corpus.values("P17", "neodragon", f"{table}.file.bytes", 0, 1, 34271, 34273, 2**53 - 1)
    corpus.wrong(
        "P17",
        "neodragon",
        "numbers as bytes",
        f"{table}.file.bytes",
        put(f"{table}.dtype", "uint8"),
    )
    corpus.wrong(
        "P17", "neodragon", "one row less", f"{table}.file.bytes", put(f"{table}.shape[0]", 6)
    )
    corpus.wrong("P17", "neodragon", "no axes", f"{table}.file.bytes", put(f"{table}.shape", []))
