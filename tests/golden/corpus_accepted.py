"""What is odd but right, and what it is equal to."""

from __future__ import annotations

import json
from typing import Any

from corpus import (
    MANIFESTS,
    Corpus,
    Edit,
    copied,
    drop,
    fill,
    nest,
    place,
    put,
    rename,
    repeat,
    swap,
)

UNET = "components.unet.variants"
EXACT, PHONE, PACKAGE, XNNPACK = (f"{UNET}[{number}]" for number in range(4))
OPERATIONS = "programs[0].operations"
SAMPLE, LOOP = f"{OPERATIONS}[3]", f"{OPERATIONS}[8]"
TEXT_1, TEXT_2 = "version_1_text_to_video", "version_2_text_to_video"
IMAGE_1, IMAGE_2 = "version_1_image_to_video", "version_2_image_to_video"


class Accepted(Corpus):
    """Cases that are read."""

    def right(self, base: str, name: str, *edits: Edit, like: Edit | None = None) -> None:
        """Add a golden manifest with edits.

        Args:
            base: The golden manifest.
            name: What the case is about.
            edits: What is changed.
            like: An edit of the same golden manifest that gives an equal one.
        """
        extra: dict[str, Any] = {} if like is None else {"same_as": {"base": base, "edits": [like]}}
        self.add(name, base=base, edits=list(edits), **extra)

    def same(self, base: str, name: str, *edits: Edit) -> None:
        """Add a golden manifest that is spelled in another way."""
        self.add(name, base=base, edits=list(edits), same_as={"base": base, "edits": []})

    def upgraded(self, base: str, name: str, *edits: Edit, changes: tuple[Edit, ...] = ()) -> None:
        """Add a manifest of version 1 or 2, and what it is in version 3."""
        newest = base.replace("version", "upgraded")
        same = {"base": newest, "edits": list(changes)}
        self.add(name, base=base, edits=list(edits), same_as=same)


def add_accepted(corpus: Corpus) -> None:
    """Add all cases."""
    accepted = Accepted()
    _spelling(accepted)
    _numbers(accepted)
    _texts(accepted)
    _sizes(accepted)
    _graphs(accepted)
    _programs(accepted)
    _older(accepted)
    corpus.cases.update(accepted.cases)


def _spelling(corpus: Accepted) -> None:
    corpus.same("sticker", "white space before", swap('{\n  "format":', ' \t\r\n{\n  "format":'))
    corpus.same("sticker", "white space behind", swap("\n}\n", "\n} \t\r\n\n"))
    corpus.same("sticker", "no line break in the end", swap("\n}\n", "\n}"))
    corpus.same(
        "sticker", "white space around a colon", swap('"name": "sticker"', '"name" \n:\t"sticker"')
    )
    corpus.same("sticker", "no white space", copied("name", "name"))
    corpus.same(
        "sticker", "a letter as an escape", swap('"name": "sticker"', '"name": "\\u0073ticker"')
    )
    corpus.same("sticker", "a key with an escape", swap('"source": {', '"s\\u006Furce": {'))
    corpus.same("sticker", "the format with an escape", swap('"mvbundle"', '"mv\\u0062undle"'))
    corpus.same("sticker", "an emoji as two escapes", swap("🚀", "\\ud83d\\uDE80"))
    corpus.same(
        "sticker",
        "slashes with escapes",
        swap('"applies_to": "weights and code"', '"applies_to": "weights\\u0020and code"'),
    )
    corpus.same(
        "sticker",
        "a path with escapes",
        swap('"path": "tokenizer/vocab.json"', '"path": "tokenizer\\/vocab.json"'),
    )
    for key in ("format", "name", "components"):
        corpus.same("sticker", f"{key} as the last key", rename(key, key))
    corpus.same(
        "sticker",
        "x- keys first",
        *(
            rename(key, key)
            for key in (
                "format",
                "format_version",
                "name",
                "programs",
                "components",
                "sets",
                "samplers",
                "tokenizers",
                "tables",
                "packs",
                "source",
                "licences",
                "costs",
                "verification",
            )
        ),
    )
    corpus.same(
        "sticker",
        "variants of a set in another order",
        rename("sets[0].variants.text_encoder", "text_encoder"),
    )
    corpus.same("sticker", "schedules in another order", rename("samplers.main.schedules.1", "1"))
    corpus.same(
        "animator",
        "steps of an index in another form",
        swap('"start": 0,\n                "steps"', '"start": -0,\n                "steps"'),
    )


def _numbers(corpus: Accepted) -> None:
    for spelled in ("8.0", "8e0", "80e-1", "0.8E+1", "8.00000000000000000000000001"):
        corpus.same(
            "sticker",
            f"8 frames per second as {spelled}",
            swap('"fps": 8\n', f'"fps": {spelled}\n'),
        )
    stream = f"{SAMPLE}.shared_axis"
    corpus.right(
        "sticker",
        "minus zero as an integer",
        swap('"shared_axis": null', '"shared_axis": -0'),
        like=put(stream, 0),
    )
    spellings = [
        ("0", "0"),
        ("-0", "0"),
        ("0.0", "0"),
        ("-0.0", "0"),
        ("0e9", "0"),
        ("1.0", "1"),
        ("1e2", "100"),
        ("100000", "100000"),
        ("-1.50", "-1.5"),
        ("0.1", "0.1"),
        ("1e-1", "0.1"),
        ("0.0001", "0.0001"),
        ("1e-4", "0.0001"),
        ("0.00001", "1e-05"),
        ("0.00012345", "0.00012345"),
        ("0.000012345", "1.2345e-05"),
        ("1e15", "1000000000000000"),
        ("9007199254740991", "9007199254740991"),
        ("9007199254740992.0", "9007199254740992.0"),
        ("9.1e15", "9100000000000000.0"),
        ("1e16", "1e+16"),
        ("12345678901234567e1", "1.2345678901234566e+17"),
        ("1e22", "1e+22"),
        ("1e23", "1e+23"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("5e-324", "5e-324"),
        ("2.2250738585072014e-308", "2.2250738585072014e-308"),
        ("1e-400", "0"),
        ("-1e-400", "0"),
        ("2.5e-324", "5e-324"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("0.3", "0.3"),
        ("3.4028234663852886e38", "3.4028234663852886e+38"),
        ("1e100", "1e+100"),
        ("9.999999999999999e22", "1e+23"),
        ("4.35", "4.35"),
        ("0.1000000000000000055511151231257827", "0.1"),
        ("123456.7890", "123456.789"),
    ]
    given = ", ".join(spelled for spelled, _ in spellings)
    written = ",\n".join(f"    {written}" for _, written in spellings)
    corpus.add(
        "spellings of numbers",
        base="sticker",
        edits=[swap('"x-note": {', f'"x-a": [{given}], "x-note": {{')],
        written=f'  "x-a": [\n{written}\n  ],\n',
    )
    corpus.add(
        "spellings of texts",
        base="sticker",
        edits=[
            swap(
                '"x-note": {',
                '"x-a": ["\\u0000\\u001F\\u007f\\b\\f\\n\\r\\t\\"\\\\\\/\\u00e9"], "x-note": {',
            )
        ],
        written='  "x-a": [\n    "\\u0000\\u001f\x7f\\b\\f\\n\\r\\t\\"\\\\/é"\n  ],\n',
    )
    corpus.add(
        "order of keys below x-",
        base="sticker",
        edits=[
            put("x-a", {"10": 1, "9": 2, "\ufb01": 3, "🚀": 4, "B": 5, "a": 6, "é": [], "": {}})
        ],
        written='  "x-a": {\n    "": {},\n    "10": 1,\n    "9": 2,\n    "B": 5,\n    "a": 6,\n'
        '    "é": [],\n    "\ufb01": 3,\n    "🚀": 4\n  },\n',
    )
    corpus.right("sticker", "the largest integer", put("source.checkpoint[0].bytes", 2**53 - 1))
    corpus.right(
        "neodragon", "the largest float32", put(f"{OPERATIONS}[11].offset", 3.4028234663852886e38)
    )
    corpus.right(
        "sticker", "the smallest float32 as scale", put(f"{PHONE}.inputs[0].scale", 2**-149)
    )
    corpus.right(
        "sticker",
        "just enough for a float32 above 0",
        put(f"{PHONE}.inputs[0].scale", 2**-150 * (1 + 2**-52)),
    )
    corpus.right(
        "sticker",
        "sigmas that are neighbours in float32",
        put("samplers.main.schedules.2.sigmas", [1, 1 - 2**-24, 0]),
    )
    corpus.right(
        "sticker",
        "a sigma that is 1 in float32",
        put("samplers.main.schedules.2.sigmas", [1 + 2**-24, 0.5, 0]),
    )
    corpus.right(
        "animator",
        "a last sigma of the smallest float32",
        put("samplers.main.schedules.2.sigmas", [700, 1, 2**-149]),
    )
    steps = {"1000": {"sigmas": [(1000 - k) / 1000 for k in range(1001)], "timesteps": [0] * 1000}}
    corpus.right(
        "sticker",
        "1000 steps",
        put("samplers.main.schedules", steps),
        put("samplers.main.default_steps", 1000),
    )


def _texts(corpus: Accepted) -> None:
    corpus.right("sticker", "4096 emoji", repeat("source.recipe", "🚀", 4096))
    corpus.right("sticker", "4096 marks on one letter", repeat("source.recipe", "\u0301", 4096))
    corpus.right("sticker", "a name of 128", repeat("name", "Z", 128))
    corpus.right("sticker", "a licence of 256", repeat("licences[0].name", "é", 256))
    corpus.right("sticker", "a tool of 128", repeat(f"{PHONE}.tools.torch", "🚀", 128))
    for name, text in (
        ("spaces", "  a \u00a0\u3000b "),
        ("invisible letters", "a\u200b\u200d\u2060\ufeff\u00adb"),
        ("letters from right to left", "\u202eabc\u202c\u05d0"),
        ("code points that are no letters", "\uffff\ufffe\U0010ffff\ufdd0"),
        ("a letter for private use", "\ue000"),
    ):
        corpus.right("sticker", f"a text of {name}", put("source.recipe", text))
    corpus.right(
        "sticker", "x- keys of one look", put("x-é", 1), put("x-e\u0301", 2), put("x-É", 3)
    )
    corpus.right("sticker", "a key x-", put("x-", None))
    corpus.right("sticker", "x-guidance that is no guidance", put("x-guidance", "strong"))
    corpus.right("sticker", "x-format_version", put("x-format_version", 4))
    corpus.right(
        "sticker", "any keys below x-", put("x-a", {"": 1, "format": {"x-b": None}, "a b": []})
    )
    names = ("é", "e\u0301")
    corpus.right(
        "upscale",
        "tensors of one look",
        *(
            put(f"components.upscaler.{side}[0].name", name)
            for side, name in zip(("inputs", "outputs"), names, strict=True)
        ),
        *(
            put(f"components.upscaler.variants[{n}].{side}[0].name", name)
            for n in range(3)
            for side, name in zip(("inputs", "outputs"), names, strict=True)
        ),
        *(
            {"at": [*place(f"{OPERATIONS}[0].operations[1].{side}"), old], "rename": name}
            for side, old, name in (
                ("inputs", "frames", names[0]),
                ("outputs", "large_frames", names[1]),
            )
        ),
    )
    long = "🚀" * 512
    corpus.right(
        "upscale",
        "a tensor's name of 512 emoji",
        put("components.upscaler.inputs[0].name", long),
        *(put(f"components.upscaler.variants[{n}].inputs[0].name", long) for n in range(3)),
        rename(f"{OPERATIONS}[0].operations[1].inputs.frames", long),
    )
    file = "tokenizers.main.file.path"
    for path in (
        "a",
        "0",
        "_",
        "a+",
        "a-b_c+d.e",
        "a..b",
        "con1",
        "console",
        "nul_",
        "comx",
        "com10",
        "lpt",
        "auxiliary.txt",
        "conin",
        "x/y/z/manifest.json",
        "manifest.json5",
        "manifest",
        "licences_",
        "licences/MIT.txt2",
    ):
        corpus.right("sticker", f"a path {path}", put(file, path))
    corpus.right("sticker", "a path of 255", repeat(file, "a", 255))
    corpus.right("sticker", "a path of 128 names", put(file, "a/" * 127 + "a"))


def _count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + (sum(map(_count, value)) if isinstance(value, list) else 0)


def _deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def _sizes(corpus: Accepted) -> None:
    golden = (MANIFESTS / "upscale.json").read_text(encoding="utf-8")
    count = _count(json.loads(golden))
    corpus.right("upscale", "262144 values", fill("x-a", 0, 262_144 - count - 1))
    corpus.right("upscale", "32 levels", nest("x-a", 31))
    size = (4 << 20) - len(golden.encode())
    corpus.same("upscale", "4 MiB", swap("\n}\n", "\n}\n@"), swap("@", " ", size))
    corpus.right("upscale", "too long for indentation", fill("x-a", _deep(26), 3000))
    corpus.right("upscale", "a text of 4 MiB", repeat("x-a", "a", (4 << 20) - 20_000))


def _graphs(corpus: Accepted) -> None:
    scaled, plain = f"{PHONE}.inputs[0]", f"{EXACT}.inputs[0]"
    for dtype, points in {
        "uint8": (0, 255),
        "uint16": (0, 65535),
        "int8": (-128, 127),
        "int16": (-32768, 32767),
        "int32": (-(2**31), 2**31 - 1),
    }.items():
        for point in points:
            corpus.right(
                "sticker",
                f"{dtype} with the zero point {point}",
                put(f"{scaled}.dtype", dtype),
                put(f"{scaled}.zero_point", point),
            )
    for dtype in ("float16", "int64"):
        corpus.right("sticker", f"a real as {dtype}", put(f"{plain}.dtype", dtype))
    frames = "components.vae_decoder.variants[0].outputs[0].dtype"
    for dtype in ("float16", "float32", "int32"):
        corpus.right("sticker", f"pixels as {dtype}", put(frames, dtype))
    ids = "components.text_encoder.variants[0].inputs[0].dtype"
    corpus.right("sticker", "integers as int32", put(ids, "int32"))
    corpus.right(
        "sticker",
        "tensors of a variant in another order",
        copied(f"{EXACT}.inputs[3]", plain),
        drop(plain),
    )
    for version in ("0", "2", "2.51", "1.2.3.4", "000000002.0", "999999999.999999999"):
        corpus.right("sticker", f"qairt {version}", put(f"{PHONE}.requires.qairt", version))
    corpus.right("sticker", "a chip without a version of qairt", drop(f"{PHONE}.requires.qairt"))
    for system in ("iOS1", "iOS99", "iOS999"):
        corpus.right("sticker", f"the system {system}", put(f"{PACKAGE}.deployment_target", system))
    for system in (None, "iOS18"):
        corpus.right(
            "sticker",
            f"the delegate coreml with the system {system}",
            put(f"{XNNPACK}.delegate", "coreml"),
            put(f"{XNNPACK}.deployment_target", system),
        )
    corpus.right("sticker", "a function of a package", put(f"{PACKAGE}.function", "main"))
    corpus.right(
        "sticker",
        "two functions of a package",
        copied(f"{UNET}[4]", PACKAGE),
        put(f"{UNET}[4].function", "large"),
        put(f"{UNET}[4].id", "large"),
    )
    corpus.right("sticker", "no weights beside a program", drop(f"{XNNPACK}.files[1]"))
    corpus.right(
        "sticker",
        "a file of any format beside a graph",
        put(
            f"{EXACT}.files[1]",
            {"path": "components/unet/onnx-fp32/a.ptd", "bytes": 0, "sha256": "0" * 64},
        ),
        put(
            f"{EXACT}.files[2]",
            {"path": "components/unet/onnx-fp32/b.ptd", "bytes": 0, "sha256": "0" * 64},
        ),
    )
    corpus.right(
        "sticker",
        "a file that all variants share",
        *(
            copied(f"{UNET}[{n}].files[{m}]", "licences[0].text_file")
            for n, m in ((0, 1), (2, 3), (3, 2))
        ),
    )
    corpus.right(
        "sticker",
        "a set of one component",
        {"at": ["sets", 4], "set": {"id": "half", "variants": {"unet": "onnx-fp32"}}},
    )
    corpus.right(
        "sticker",
        "a set of all targets",
        {
            "at": ["sets", 0],
            "set": {
                "id": "mixed",
                "variants": {
                    "text_encoder": "onnx-fp32",
                    "unet": "snapdragon-sm8650-w8a16",
                    "vae_decoder": "iphone-coreml-w8",
                },
            },
        },
        put("verification[1].variant", "mixed"),
    )
    corpus.right("sticker", "nothing verified", put("verification", []), put("costs", {}))
    for name, *edits in (
        ("exactly the floor", put("verification[0].value_db", 40)),
        ("failed", put("verification[0].value_db", 39.9), put("verification[0].passed", False)),
        ("of step 999", put("verification[0].step", 999)),
        ("identical, with a floor of 10000", put("verification[1].floor_db", 10000)),
    ):
        corpus.right("sticker", f"a record {name}", *edits)


def _programs(corpus: Accepted) -> None:
    for shape in ([], [1, 1, 1, 1, 1, 1, 1, 1]):
        corpus.right(
            "sticker",
            f"a timestep of the shape {shape}",
            put("components.unet.inputs[1].shape", shape),
        )
    corpus.right(
        "sticker",
        "sizes of 1 anywhere",
        put("components.text_encoder.outputs[0].shape", [16, 1, 128]),
    )
    corpus.right(
        "sticker",
        "the largest stream",
        put(f"{SAMPLE}.stream", 2**32 - 5),
        put(f"{OPERATIONS}[2].stream", 2**32 - 1),
    )
    corpus.right("sticker", "the last axis shared", put(f"{SAMPLE}.shared_axis", 3))
    corpus.right("sticker", "an empty mask name", put(f"{OPERATIONS}[0].mask", "mask_of_nothing"))
    corpus.right(
        "sticker",
        "a text around the prompt",
        put(f"{OPERATIONS}[0].before", "a "),
        put(f"{OPERATIONS}[0].after", ", 🚀 "),
    )
    corpus.right(
        "sticker",
        "a name of 64 letters",
        put(f"{OPERATIONS}[2].output", "s" * 64),
        put(f"{SAMPLE}.start", "s" * 64),
    )
    corpus.right(
        "video_to_video",
        "a clip without a prompt",
        put(f"{OPERATIONS}[0].input", None),
        drop("programs[0].inputs.prompt"),
    )
    number = "programs[0].inputs.noise_level"
    corpus.right(
        "video_to_video",
        "a number of one value",
        put(f"{number}.minimum", 0.25),
        put(f"{number}.maximum", 0.25),
        put(f"{number}.default", 0.25),
    )
    fps = "programs[0].inputs.fps"
    corpus.right(
        "animator",
        "frames per second as wide as they may be",
        put(f"{fps}.minimum", 0.1),
        put(f"{fps}.maximum", 240),
    )
    take, collected = f"{LOOP}.operations[0]", f"{LOOP}.collected.part_frames"
    corpus.right(
        "animator",
        "a loop from the end",
        put(f"{take}.start", {"start": 12, "steps": {"part": -2}}),
    )
    corpus.right(
        "animator",
        "a place of the caller",
        put(f"{take}.start", {"start": -5, "steps": {"motion": 1, "part": 1}}),
        put(
            "programs[0].inputs.motion",
            {"kind": "number", "minimum": 5, "maximum": 11, "default": 7, "whole": True},
        ),
    )
    corpus.right(
        "animator",
        "the same frame again and again",
        put(f"{take}.stride", 0),
        put(f"{take}.start", {"start": 13, "steps": {"part": -2}}),
    )
    corpus.right(
        "animator",
        "an overlap of half",
        put(f"{LOOP}.count", 13),
        put(f"{take}.start.steps.part", 1),
        put(f"{collected}.overlap", 1),
        put(f"{collected}.blend", "first"),
    )
    corpus.right(
        "upscale",
        "a loop of one",
        put(f"{OPERATIONS}[0].count", 1),
        put("programs[0].video.frames", 1),
    )
    nested: dict[str, Any] = {"op": "numbers", "values": [0], "output": "e"}
    for count, index, made, output in (
        (65536, "k", "e", "d"),
        (2, "j", "d", "c"),
        (1, "i", "c", "b"),
        (1, "h", "b", "a"),
    ):
        nested = {
            "op": "loop",
            "count": count,
            "index": index,
            "carried": {},
            "operations": [nested],
            "collected": {made: {"output": output, "axis": 0, "overlap": 0, "blend": None}},
        }
    scale = {
        "op": "take",
        "array": "a",
        "axis": 0,
        "start": 131071,
        "size": 1,
        "stride": 2**31 - 1,
        "output": "zero",
    }
    moved = {
        "op": "linear",
        "terms": [{"array": "large", "scale": "zero"}],
        "offset": 0,
        "output": "end",
    }
    corpus.right(
        "upscale",
        "four levels",
        put(f"{OPERATIONS}[1]", nested),
        put(f"{OPERATIONS}[2]", scale),
        put(f"{OPERATIONS}[3]", moved),
        put("programs[0].output", "end"),
    )
    corpus.right(
        "fairy_cache",
        "noise of its own for every frame",
        put(f"{OPERATIONS}[10].shared_axis", None),
    )
    corpus.right(
        "several_sizes",
        "the other size first",
        copied("programs[2]", "programs[0]"),
        drop("programs[0]"),
    )
    corpus.right("neodragon", "one program of two", drop("programs[0]"), drop("tables.no_last"))


def _older(corpus: Accepted) -> None:
    for base in (TEXT_1, IMAGE_1, TEXT_2, IMAGE_2):
        corpus.upgraded(base, base)
        corpus.upgraded(base, f"{base} without white space", copied("name", "name"))
        corpus.upgraded(
            base,
            f"{base} with a component that nothing runs",
            put("components.safety_checker", {"variants": "of another kind"}),
        )
        corpus.upgraded(
            base,
            f"{base} with costs of a component that nothing runs",
            put("components.spare", None),
            put("costs.spare", {"flops": "many"}),
        )
        record = {"component": "spare", "variant": "any", "further": None}
        count = {IMAGE_1: 1, IMAGE_2: 1}.get(base, 2)
        corpus.upgraded(
            base,
            f"{base} with a record of a component that nothing runs",
            put("components.spare", []),
            put(f"verification[{count}]", record),
        )
        corpus.upgraded(
            base, f"{base} with a key x-", put("x-more", [1]), changes=(put("x-more", [1]),)
        )
    for base in (TEXT_1, TEXT_2):
        corpus.upgraded(
            base,
            f"{base} with tokens of other names",
            put("tokenizer.pad_token", "<pad>"),
            put("tokenizer.unk_token", "?"),
        )
        timestep = f"{UNET}[0].inputs[1]"
        corpus.upgraded(
            base,
            f"{base} with a real as int32",
            put(f"{timestep}.dtype", "int32"),
            changes=(
                put(f"{timestep}.dtype", "int32"),
                put(f"{timestep}.scale", 1),
                put(f"{timestep}.zero_point", 0),
            ),
        )
        corpus.upgraded(
            base,
            f"{base} with a real as int64",
            put(f"{timestep}.dtype", "int64"),
            changes=(put(f"{timestep}.dtype", "int64"),),
        )
        corpus.upgraded(
            base,
            f"{base} with sets in the order of the first component",
            copied(
                "components.text_encoder.variants[9]".replace("9", "2" if base == TEXT_1 else "7"),
                "components.text_encoder.variants[0]",
            ),
            drop("components.text_encoder.variants[0]"),
            changes=(
                copied(
                    "components.text_encoder.variants[9]".replace(
                        "9", "2" if base == TEXT_1 else "7"
                    ),
                    "components.text_encoder.variants[0]",
                ),
                drop("components.text_encoder.variants[0]"),
                copied("sets[9]".replace("9", "2" if base == TEXT_1 else "7"), "sets[0]"),
                drop("sets[0]"),
            ),
        )
        corpus.upgraded(
            base,
            f"{base} with a variant that one component has alone",
            put("components.vae_decoder.variants[1].precision", "fp16"),
            changes=(put("components.vae_decoder.variants[1].precision", "fp16"), drop("sets[1]")),
        )
        corpus.upgraded(
            base,
            f"{base} with a clip that an incomplete set made",
            put("components.vae_decoder.variants[0].precision", "fp16"),
            changes=(
                put("components.vae_decoder.variants[0].precision", "fp16"),
                drop("sets[0]"),
                drop("verification[1]"),
            ),
        )
    corpus.upgraded(
        TEXT_2,
        "version 2 with two functions of a package",
        copied(f"{UNET}[7]", f"{UNET}[2]"),
        put(f"{UNET}[7].function", "large"),
        put(f"{UNET}[7].id", "large"),
        changes=(
            copied(f"{UNET}[7]", f"{UNET}[2]"),
            put(f"{UNET}[7].function", "large"),
            put(f"{UNET}[7].id", "large"),
        ),
    )
    corpus.upgraded(
        TEXT_1,
        "version 1 with a variant of another id",
        put("components.vae_decoder.variants[0].id", "decoder"),
        put("verification[1].variant", "decoder"),
        changes=(
            put("components.vae_decoder.variants[0].id", "decoder"),
            put("sets[0].variants.vae_decoder", "decoder"),
        ),
    )
    corpus.upgraded(
        TEXT_1,
        "version 1 whose denoiser is a transformer",
        rename("components.unet", "transformer"),
        rename("costs.unet", "transformer"),
        put("verification[0].component", "transformer"),
        changes=(
            rename("components.unet", "transformer"),
            rename("costs.unet", "transformer"),
            put("verification[0].component", "transformer"),
            rename("sets[0].variants.unet", "transformer"),
            rename("sets[1].variants.unet", "transformer"),
            put(f"{SAMPLE}.operations[0].component", "transformer"),
        ),
    )
