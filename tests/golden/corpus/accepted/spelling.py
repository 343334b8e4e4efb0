"""Documents that are spelled in another way: white space, escapes, order of keys."""

from __future__ import annotations

from corpus.cases import Accepted, copied, rename, swap


def add_spelling(corpus: Accepted) -> None:
    """Add cases that are equal to a golden manifest."""
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
