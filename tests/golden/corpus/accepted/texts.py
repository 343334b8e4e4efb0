"""Texts, names, keys and paths of odd letters and lengths."""

from __future__ import annotations

from corpus.cases import Accepted, place, put, rename, repeat
from corpus.places import OPERATIONS, PHONE


def add_texts(corpus: Accepted) -> None:
    """Add cases of texts, names and paths."""
    corpus.right("sticker", "4096 emoji", repeat("source.recipe", "🚀", 4096))
    corpus.right("sticker", "4096 marks on one letter", repeat("source.recipe", "\u0301", 4096))
    corpus.right(
        "sticker",
        "4096 code points before and after a prompt",
        repeat(f"{OPERATIONS}[0].before", "🚀", 4095),
        put(f"{OPERATIONS}[0].after", " "),
    )
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
