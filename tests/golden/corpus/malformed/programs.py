"""What is refused of the inputs, names, arrays and repetitions of programs: rules P1 to P8."""

from __future__ import annotations

from corpus.cases import Malformed, copied, drop, fill, put, rename
from corpus.operations import looped, numbers
from corpus.places import LOOP, MOTION, OPERATIONS, SAMPLE, UNITS, UPSCALE

PROMPT = {"kind": "prompt"}
PICTURE = {"kind": "picture", "height": 64, "width": 64}
CLIP = {"kind": "clip", "frames": 8, "height": 64, "width": 64, "fps": 8}


def add_programs(corpus: Malformed) -> None:
    """Add cases of the rules P1 to P8."""
    _inputs(corpus)
    _names(corpus)
    _fitting(corpus)
    _repetitions(corpus)
    _indices(corpus)


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
    negative = {"kind": "negative_prompt"}
    corpus.wrong("P1", "animator", "a lone negative", inputs, put(f"{inputs}.further", negative))
    corpus.wrong("P1", MOTION, "two negatives", inputs, put(f"{inputs}.further", negative))
    corpus.wrong("P1", MOTION, "no prompt, a negative", inputs, drop(f"{inputs}.prompt"))
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
        "P5",
        "sticker",
        "a video with a size of 1 besides",
        "programs[0].output",
        put("components.vae_decoder.outputs[0].shape", [1, 8, 64, 64, 3]),
    )
    corpus.wrong(
        "P5", "upscale", "the clip itself", "programs[0].output", put("programs[0].output", "clip")
    )
    corpus.wrong(
        "P5", "upscale", "a frame of the clip", "programs[0].output", put(f"{UPSCALE}.count", 23)
    )


def _repetitions(corpus: Malformed) -> None:
    corpus.values("P7", "upscale", f"{UPSCALE}.count", None, True, 0, -1, 65537, 1.5, "24")
    nested = numbers("ae")
    for index, made, output in (
        ("e", "ae", "ad"),
        ("d", "ad", "ac"),
        ("c", "ac", "ab"),
        ("b", "ab", "aa"),
        ("a", "aa", "ba"),
    ):
        nested = looped(index, [nested], made, output)
    deep = ".operations[0]" * 4
    corpus.wrong("P7", "upscale", "five levels", f"{OPERATIONS}[0]{deep}", put(UPSCALE, nested))
    rows = looped("j", [numbers("aj")], "aj", "ai", count=65536)
    many = looped("i", [rows], "ai", "bi", count=16)
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
        put(f"{SAMPLE}.operations[0]", looped("i", [numbers("ai")], "ai", "bi", count=1100)),
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
