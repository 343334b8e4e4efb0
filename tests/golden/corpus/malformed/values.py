"""What is refused of keys, types, ranges and counts: rules D9 to D12."""

from __future__ import annotations

import json
from collections.abc import Iterator

from corpus.cases import MANIFESTS, Malformed, copied, drop, fill, put, rename, repeat
from corpus.operations import looped, numbers
from corpus.places import PACKAGE, PHONE, UNET, XNNPACK

OBJECTS = (
    ("sticker", ""),
    ("sticker", "programs[0]"),
    ("sticker", "programs[0].video"),
    ("sticker", "programs[0].inputs.prompt"),
    ("sticker", "programs[0].operations[0]"),
    ("sticker", "programs[0].operations[1]"),
    ("sticker", "programs[0].operations[2]"),
    ("sticker", "programs[0].operations[3]"),
    ("sticker", "components.unet"),
    ("sticker", "components.unet.inputs[0]"),
    ("sticker", PHONE),
    ("sticker", f"{PHONE}.chip"),
    ("sticker", f"{PHONE}.files[0]"),
    ("sticker", f"{PHONE}.inputs[0]"),
    ("sticker", f"{PHONE}.delegation"),
    ("sticker", f"{PACKAGE}.delegation.non_delegated[0]"),
    ("sticker", "sets[0]"),
    ("sticker", "samplers.main"),
    ("sticker", "samplers.main.schedules.4"),
    ("sticker", "tokenizers.main"),
    ("sticker", "source"),
    ("sticker", "licences[0]"),
    ("sticker", "verification[0]"),
    ("animator", "programs[0].inputs.fps"),
    ("animator", "programs[0].inputs.picture"),
    ("animator", "programs[0].operations[2]"),
    ("animator", "programs[0].operations[4].values[0]"),
    ("animator", "programs[0].operations[8]"),
    ("animator", "programs[0].operations[8].operations[0]"),
    ("animator", "programs[0].operations[8].operations[0].start"),
    ("animator", "programs[0].operations[8].collected.part_frames"),
    ("upscale", "programs[0].inputs.clip"),
    ("neodragon", "tables.positions_0"),
    ("neodragon", "programs[0].operations[4]"),
    ("neodragon", "programs[0].operations[9]"),
    ("neodragon", "programs[0].operations[11]"),
    ("neodragon", "programs[0].operations[11].terms[0]"),
    ("neodragon", "programs[0].operations[35].carried.last"),
)
"""Golden manifest and place of one object of each form, all of whose keys are required."""


def add_values(corpus: Malformed) -> None:
    """Add cases of the rules D9 to D12."""
    for base, path in OBJECTS:
        _keys(corpus, base, path)
    _types(corpus)
    _ranges(corpus)
    _counts(corpus)


def _keys(corpus: Malformed, base: str, path: str) -> None:
    """Leave out each key of an object, and give it one more."""
    value = json.loads((MANIFESTS / f"{base}.json").read_text(encoding="utf-8"))
    for step in _steps(path):
        value = value[step]
    for key in value:
        if not path and (key.startswith("x-") or key.startswith("format")):
            continue
        place = f"{path}.{key}" if path else key
        corpus.wrong("D9", base, f"no {place}", place, drop(place))
    further = f"{path}.further" if path else "further"
    corpus.wrong("D9", base, f"{path or 'top'} with a further key", path, put(further, None))


def _steps(path: str) -> Iterator[str | int]:
    for step in path.replace("[", ".[").split(".") if path else ():
        yield int(step[1:-1]) if step.startswith("[") else step


def _types(corpus: Malformed) -> None:
    """Add values of a type that their key has not."""
    for path, *values in (
        ("name", None, 1, "", "a b", "../x", "-a", "é", ["sticker"]),
        ("programs", None, {}, "x"),
        ("programs[0]", None, [], "x"),
        ("programs[0].name", None, True, ""),
        ("programs[0].task", None, "text_to_speech", "Text_to_video", 1),
        ("programs[0].video", None, []),
        ("programs[0].video.frames", None, True, "8", 1.5),
        ("programs[0].video.fps", None, True, "8"),
        ("programs[0].inputs", None, []),
        ("programs[0].inputs.prompt", None, []),
        ("programs[0].inputs.prompt.kind", None, "text", 1),
        ("programs[0].operations", None, {}),
        ("programs[0].operations[0]", None, [], "tokenize"),
        ("programs[0].operations[0].op", None, "tokenise", 1),
        ("programs[0].operations[0].before", None, 1, "a\nb", "\u0085", "\u2028"),
        ("programs[0].operations[0].tokenizer", None, "", "a b"),
        ("programs[0].operations[2].stream", None, True, "0", 0.5),
        ("programs[0].operations[2].shape", None, 8),
        ("programs[0].operations[2].shape[0]", None, True, "8", 0, -1),
        ("programs[0].operations[3].shared_axis", True, "0", -1, 8),
        ("components", None, []),
        ("components.unet", None, []),
        ("components.unet.role", None, "unet", 1),
        ("components.unet.inputs[0].name", None, 1, "", "a\tb", "\u007f"),
        ("components.unet.inputs[0].shape[0]", None, True, 0, -8, 2**31),
        ("components.unet.inputs[0].type", None, "float", True),
        (f"{PHONE}.id", None, "", "a/b"),
        (f"{PHONE}.target", None, "android", "Snapdragon"),
        (f"{PHONE}.format", None, "qnn"),
        (f"{XNNPACK}.delegate", "mps", True),
        (
            f"{PACKAGE}.deployment_target",
            "iOS",
            "iOS0",
            "iOS018",
            "iOS1000",
            "ios18",
            "macOS15",
            18,
        ),
        (f"{PACKAGE}.function", "", "a b", True),
        (f"{PHONE}.precision", None, "w2", "W8A16", "w8a16 "),
        (f"{PHONE}.chip", "sm8650", []),
        (f"{PHONE}.chip.slug", None, "", "sm 8650"),
        (f"{PHONE}.pack", "", 1, "a b"),
        (f"{PHONE}.requires", None, []),
        (f"{PHONE}.files", None, {}),
        (f"{PHONE}.files[0].bytes", None, True, "1", -1, 1.5),
        (f"{PHONE}.files[0].sha256", None, "", "0" * 63, "0" * 65, "A" * 64, "g" * 64),
        (f"{PHONE}.compute_unit", None, "DSP", "npu"),
        (f"{PHONE}.tools", None, []),
        (f"{PHONE}.delegation", "all", []),
        (f"{PHONE}.delegation.basis", None, "guess"),
        (f"{PHONE}.delegation.delegated", None, True, -1),
        (f"{PACKAGE}.delegation.non_delegated[0].operator", None, ""),
        (f"{PACKAGE}.delegation.non_delegated[0].name", None, "a\u0000b"),
        ("sets[0].id", None, "", "a b"),
        ("sets[0].variants", None, []),
        ("samplers", None, []),
        ("samplers.main.kind", None, "euler", "ddim"),
        ("samplers.main.prediction_type", None, "noise"),
        ("samplers.main.default_steps", None, 3, True, 0),
        ("samplers.main.adjustable", None, 1, "true"),
        ("samplers.main.schedules.4.sigmas[1]", None, True, -0.5),
        ("samplers.main.schedules.4.timesteps[1]", None, "900"),
        ("tokenizers.main.kind", None, "bpe"),
        ("tokenizers.main.too_long", None, "drop"),
        ("packs", None, {}),
        ("source.model", None, "", "a\u001b[31m"),
        ("source.checkpoint", None, {}),
        ("licences", None, {}),
        ("licences[0].name", None, ""),
        ("licences[0].text_file", "licences/MIT.txt", []),
        ("costs", None, []),
        ("costs.unet.flops", None, "1", True, -1),
        ("verification", None, {}),
        ("verification[0].passed", None, 1),
        ("verification[0].metric", None, "", "a b"),
        ("verification[0].step", True, -1, 0.5),
    ):
        corpus.values("D10", "sticker", path, *values)
    corpus.values("D10", "neodragon", "tables.positions_0.dtype", None, "float16", "uint16")
    resample = "programs[0].operations[9]"
    corpus.values("D10", "neodragon", f"{resample}.method", None, "bilinear")
    corpus.values("D10", "neodragon", f"{resample}.factor", None, True, 0, 1, 17, 2.5)
    take = "programs[0].operations[8].operations[0]"
    corpus.values("D10", "animator", f"{take}.axis", None, True, -1, 8)
    corpus.values("D10", "animator", f"{take}.size", None, 0, -1, 2**31)
    corpus.values("D10", "animator", f"{take}.stride", None, -1, 0.5, 2**31)
    corpus.values("D10", "animator", f"{take}.start", None, True, "0", -1, 0.5, [0], 2**31)
    corpus.values("D10", "animator", f"{take}.start.start", None, True, 0.5, 2**31)
    corpus.values("D10", "animator", f"{take}.start.steps.part", None, True, 0, 2**31)
    number = "programs[0].inputs.motion"
    corpus.values("D10", "animator", f"{number}.default", None, "127", True)
    corpus.values("D10", "animator", f"{number}.whole", None, 1)
    corpus.values("D10", "fairy_cache", "programs[0].inputs.clip.fps", 0, 0.05, 241)
    for path, text in (
        ("samplers.main.schedules", "0"),
        ("samplers.main.schedules", "04"),
        ("samplers.main.schedules", "1001"),
        ("samplers.main.schedules", "four"),
        ("samplers.main.schedules", "+4"),
        ("components", "a b"),
        ("components", ""),
        (f"{PHONE}.tools", "é"),
        ("costs", "../x"),
        ("samplers", "main/2"),
    ):
        keys = {
            "samplers": "main",
            "components": "unet",
            "costs": "unet",
            f"{PHONE}.tools": "torch",
        }
        edit = rename(f"{path}.{keys.get(path, '4')}", text)
        corpus.wrong("D10", "sticker", f"{path} key {text!r}", path, edit)
    for old, new in (("8", "8.0"), ("8", "8e0"), ("8", "80e-1")):
        corpus.text(
            "D10",
            "sticker",
            f"frames of {new}",
            f'"frames": {old}',
            f'"frames": {new}',
            "programs[0].video.frames",
        )
    corpus.wrong(
        "D10", "sticker", "4097 code points", "source.model", repeat("source.model", "a", 4097)
    )
    corpus.wrong(
        "D10", "sticker", "4097 emoji", "source.recipe", repeat("source.recipe", "🚀", 4097)
    )
    corpus.wrong("D10", "sticker", "a name of 129", "name", repeat("name", "a", 129))
    for path, most in (
        ("licences[0].name", 256),
        (f"{PHONE}.tools.torch", 128),
        ("components.unet.inputs[0].name", 512),
    ):
        corpus.wrong("D10", "sticker", f"{path} of {most + 1}", path, repeat(path, "a", most + 1))
    corpus.wrong(
        "D10",
        "sticker",
        "two programs of a name",
        "programs[1]",
        copied("programs[1]", "programs[0]"),
    )
    corpus.wrong(
        "D10",
        "sticker",
        "two variants of an id",
        f"{PACKAGE}.id",
        copied(f"{PACKAGE}.id", f"{PHONE}.id"),
    )
    corpus.wrong("D10", "sticker", "a pack twice", "packs", put("packs", ["sm8650", "sm8650"]))
    corpus.wrong(
        "D10", "sticker", "packs that are not sorted", "packs", put("packs", ["sm8650", "a"])
    )


def _ranges(corpus: Malformed) -> None:
    """Add numbers just outside of what their key allows."""
    video = "programs[0].video"
    corpus.values("D10", "sticker", f"{video}.frames", 0, -1, 4097)
    corpus.values("D10", "sticker", f"{video}.height", 0, 8193)
    corpus.values("D10", "sticker", f"{video}.width", 0, 8193)
    corpus.values("D10", "sticker", f"{video}.fps", 0, 0.09999, -1, 240.001)
    corpus.values("D10", "sticker", "programs[0].operations[2].stream", -1, 2**32)
    corpus.values("D10", "sticker", f"{PHONE}.chip.htp_arch", 0, 10000, None)
    corpus.values("D10", "sticker", f"{PHONE}.chip.soc_model", 0, 65536, None)
    corpus.values("D10", "sticker", "samplers.main.guidance_scale", -0.001, 1000.001)
    corpus.values("D11", "sticker", "samplers.main.init_noise_sigma", 0, -1, 1e-46, 2**-150)
    corpus.values("D10", "sticker", "tokenizers.main.max_length", 0, 65537, None)
    corpus.values("D10", "sticker", "verification[0].value_db", 10000.1, -10001)
    corpus.values("D10", "sticker", "verification[0].floor_db", None, 10000.1, -10001)
    corpus.values("D10", "sticker", "verification[0].step", 1000)
    corpus.values("D10", "upscale", "programs[0].inputs.clip.frames", 0, 4097)
    corpus.values("D10", "animator", "programs[0].inputs.picture.width", 0, 8193)


def _counts(corpus: Malformed) -> None:
    for path in (
        "programs",
        "components",
        "sets",
        f"{UNET}",
        f"{PHONE}.files",
        f"{PHONE}.inputs",
        "components.unet.outputs",
        "programs[0].operations",
        "sets[0].variants",
        "samplers.main.schedules",
        "programs[0].operations[3].operations",
    ):
        value: object = {} if path.endswith(("components", "variants", "schedules")) else []
        if path == UNET:
            value = []
        corpus.wrong("D12", "sticker", f"no {path}", path, put(path, value))
    for path, item, most in (
        ("programs", {}, 16),
        ("sets", {}, 256),
        (UNET, {}, 64),
        (f"{PHONE}.files", {}, 256),
        (f"{PHONE}.inputs", {}, 64),
        ("components.unet.inputs", {}, 64),
        ("components.unet.inputs[0].shape", 1, 8),
        ("programs[0].operations", {}, 512),
        ("programs[0].operations[2].shape", 1, 8),
        ("packs", "a", 64),
        ("source.checkpoint", {}, 256),
        ("source.lora", {}, 256),
        ("licences", {}, 256),
        ("verification", {}, 10_000),
        (f"{PHONE}.delegation.non_delegated", {}, 4096),
        ("samplers.main.schedules.4.sigmas", 1, 1001),
        ("samplers.main.schedules.4.timesteps", 1, 1000),
    ):
        corpus.wrong("D12", "sticker", f"{most + 1} {path}", path, fill(path, item, most + 1))
    for path, most in (
        ("components", 32),
        ("samplers", 16),
        ("tokenizers", 8),
        ("tables", 256),
        ("costs", 32),
        ("costs.unet", 64),
        (f"{PHONE}.tools", 64),
        (f"{PHONE}.requires", 8),
        ("sets[0].variants", 32),
        ("programs[0].inputs", 32),
        ("samplers.main.schedules", 64),
        ("programs[0].operations[3].carried", 64),
    ):
        names = {f"n{number}": None for number in range(1, most + 2)}
        corpus.wrong("D12", "sticker", f"{most + 1} {path}", path, put(path, names))
    loop = "programs[0].operations[8]"
    names = {f"n{number}": None for number in range(65)}
    corpus.wrong(
        "D12", "animator", "65 collected", f"{loop}.collected", put(f"{loop}.collected", names)
    )
    steps = f"{loop}.operations[0].start.steps"
    corpus.wrong(
        "D12",
        "animator",
        "9 names of an index",
        steps,
        put(steps, {f"n{number}": 1 for number in range(9)}),
    )
    corpus.wrong("D12", "animator", "no names of an index", steps, put(steps, {}))
    for side, values in (
        ("sigmas", [1, 0]),
        ("sigmas", [1, 0.9, 0.8, 0.7, 0.6, 0]),
        ("timesteps", [1000]),
        ("timesteps", [5, 4, 3, 2, 1]),
    ):
        path = f"samplers.main.schedules.4.{side}"
        corpus.wrong("D12", "sticker", f"{len(values)} {side} of 4 steps", path, put(path, values))
    many = looped("i", [numbers("a") for _ in range(512)], "a", "b")
    corpus.wrong(
        "D12",
        "upscale",
        "more than 4096 operations",
        "programs[0]",
        fill("programs[0].operations", many, 8),
    )
