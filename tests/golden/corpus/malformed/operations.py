"""What is refused of single operations, of what nothing uses, and of tables: rules P9 to P17."""

from __future__ import annotations

from corpus.cases import Malformed, copied, drop, fill, put, rename, repeat
from corpus.operations import carried, looped, numbers
from corpus.places import LOOP, OPERATIONS, SAMPLE, UNITS


def add_operations(corpus: Malformed) -> None:
    """Add cases of the rules P9 to P17."""
    _words(corpus)
    _runs(corpus)
    _places(corpus)
    _samples(corpus)
    _carried(corpus)
    _collected(corpus)
    _unused(corpus)
    _tables(corpus)


def _words(corpus: Malformed) -> None:
    tokenize = f"{OPERATIONS}[0]"
    for name in ("nothing", "input_ids"):
        corpus.values("P9", "sticker", f"{tokenize}.input", name)
    corpus.values("P9", "sticker", f"{tokenize}.tokenizer", "other", "Main")
    corpus.values("P9", "sticker", f"{tokenize}.input", None)
    corpus.wrong(
        "P9",
        "sticker",
        "a negative prompt without words",
        f"{tokenize}.input",
        put(f"{tokenize}.input", "negative"),
        put("programs[0].inputs.negative", {"kind": "negative_prompt"}),
    )
    corpus.values("P9", "video_to_video", f"{tokenize}.input", "clip", "noise_level")
    for before, after in ((" ", ""), ("", "\u3000"), ("\u00a0 ", "\u2003")):
        corpus.wrong(
            "P9",
            "sticker",
            f"white space alone, {before!a} and {after!a}",
            f"{tokenize}.input",
            put(f"{tokenize}.input", None),
            put(f"{tokenize}.before", before),
            put(f"{tokenize}.after", after),
        )
    for base in ("sticker", "video_to_video"):
        corpus.wrong(
            "P9",
            base,
            "4097 code points before and after",
            f"{tokenize}.before",
            repeat(f"{tokenize}.before", "\U0001f680", 4096),
            put(f"{tokenize}.after", "."),
        )
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

    _starts(corpus)


def _starts(corpus: Malformed) -> None:
    """Add starts that are made by the sample or the loop itself."""
    state = f"{SAMPLE}.carried.state"
    both = {"a": carried("start", "model_output"), "b": carried("a", "model_output")}
    for name, place, value in (
        ("its model input", state, {"state": carried("model_input", "model_output")}),
        ("its timestep", state, {"state": carried("timestep", "model_output")}),
        ("its index", state, {"state": carried("step", "model_output")}),
        ("itself", state, {"state": carried("state", "model_output")}),
        ("another of it", f"{SAMPLE}.carried.b", both),
        ("its output", state, {"state": carried("latents", "model_output")}),
    ):
        for output in (None, "last"):
            shown = {key: item | {"output": output} for key, item in value.items()}
            title = f"a sample carries what starts as {name}{', and out' if output else ''}"
            corpus.wrong("P5", "sticker", title, place, put(f"{SAMPLE}.carried", shown))
    loop = looped("turn", [numbers("made")], "made", "all")
    for name, key, value in (
        ("another of it", "b", {"a": carried("start", "made"), "b": carried("a", "made")}),
        ("another of it that comes later", "a", {"a": carried("b", "made"), "b": both["a"]}),
        ("its index", "a", {"a": carried("turn", "made")}),
        ("what it makes", "a", {"a": carried("made", "made")}),
    ):
        for output in (None, "last"):
            shown = {item: kept | {"output": output} for item, kept in value.items()}
            title = f"a loop carries what starts as {name}{', and out' if output else ''}"
            corpus.wrong(
                "P5",
                "sticker",
                title,
                f"{SAMPLE}.carried.{key}",
                put(SAMPLE, loop | {"carried": shown}),
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
            "frames per second",
            put(
                "programs[0].inputs.fps",
                {"kind": "number", "minimum": 1, "maximum": 60, "default": 8, "whole": False},
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
