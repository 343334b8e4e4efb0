"""Numbers at the ends of their ranges, and how numbers are spelled."""

from __future__ import annotations

from corpus.cases import Accepted, put, swap
from corpus.places import OPERATIONS, PHONE, SAMPLE


def add_numbers(corpus: Accepted) -> None:
    """Add cases of numbers."""
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
