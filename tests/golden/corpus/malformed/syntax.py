"""What is refused of bytes, syntax, size and numbers of a document: rules D1 to D8, D13."""

from __future__ import annotations

from corpus.cases import MANIFESTS, Malformed, drop, fill, nest, swap, values_of
from corpus.places import IMAGE_1, IMAGE_2, TEXT_1


def add_syntax(corpus: Malformed) -> None:
    """Add cases of the rules D1 to D8."""
    _bytes(corpus)
    _syntax(corpus)
    _keys_and_surrogates(corpus)
    _depth_and_size(corpus)
    _numbers(corpus)
    _versions(corpus)


def _bytes(corpus: Malformed) -> None:
    golden = (MANIFESTS / "upscale.json").read_bytes()[:60]
    corpus.raw("D1", "Latin-1", b'{"format": "mvbundle", "x-a": "\xe9"}')
    corpus.raw("D1", "UTF-16 with byte order mark", "\ufeff{}".encode("utf-16-le"))
    corpus.raw("D1", "an overlong slash", b'{"x-a": "\xc0\xaf"}')
    corpus.raw("D1", "a surrogate as UTF-8", b'{"x-a": "\xed\xa0\x80"}')
    corpus.raw("D1", "beyond U+10FFFF", b'{"x-a": "\xf4\x90\x80\x80"}')
    corpus.raw("D1", "a letter that is cut off", b'{"x-a": "\xf0\x9f\x9a')
    corpus.raw("D1", "a continuation byte alone", b"\x80")
    corpus.raw("D1", "byte order mark", b'\xef\xbb\xbf{"format": "mvbundle", "format_version": 3}')
    corpus.raw("D1", "byte order mark alone", b"\xef\xbb\xbf")
    corpus.made("D1", "4 MiB and 1 of white space", (" ", (4 << 20) + 1))
    corpus.made("D1", "4 MiB and 2 of a text", ('"', 1), ("a", 4 << 20), ('"', 1))
    corpus.raw("D2", "cut off", golden)


def _syntax(corpus: Malformed) -> None:
    for name, payload in {
        "nothing": b"",
        "white space": b" \t\r\n",
        "an open brace": b"{",
        "no value": b'{"format": }',
        "no colon": b'{"format" "mvbundle"}',
        "no quotes": b'{format: "mvbundle"}',
        "single quotes": b"{'format': 'mvbundle'}",
        "comma at the end of an object": b'{"format": "mvbundle",}',
        "comma at the end of a list": b'{"x-a": [1,]}',
        "comma at the start": b'{"x-a": [,1]}',
        "a second document": b"{} {}",
        "a letter behind": b"{}x",
        "a zero byte behind": b"{}\x00",
        "a form feed before": b"\x0c{}",
        "a no-break space before": "\u00a0{}".encode(),
        "a line separator inside": '{"x-a":\u20281}'.encode(),
        "a comment": b'{"format": "mvbundle" /* 3 */}',
        "a line of comment": b'{"format": "mvbundle"} // 3\n',
        "True": b'{"x-a": True}',
        "a leading zero": b'{"x-a": 01}',
        "a minus alone": b'{"x-a": -}',
        "a plus": b'{"x-a": +1}',
        "no digit before the point": b'{"x-a": .5}',
        "no digit behind the point": b'{"x-a": 1.}',
        "no exponent": b'{"x-a": 1e}',
        "hexadecimal": b'{"x-a": 0x10}',
        "digits of another script": '{"x-a": \u0661}'.encode(),
        "a tab in a text": b'{"x-a": "a\tb"}',
        "a line break in a text": b'{"x-a": "a\nb"}',
        "a zero byte in a text": b'{"x-a": "a\x00b"}',
        "an unknown escape": b'{"x-a": "\\x41"}',
        "an escape of three digits": b'{"x-a": "\\u041"}',
        "an escape with a sign": b'{"x-a": "\\u+041"}',
        "an open text": b'{"x-a": "a}',
        "a bracket of another kind": b'{"x-a": [1}',
        "a key that is a number": b"{1: 2}",
    }.items():
        corpus.raw("D2", name, payload)
    for word in ("NaN", "Infinity", "-Infinity"):
        corpus.text("D2", "sticker", word, '"fps": 8\n', f'"fps": {word}\n')


def _keys_and_surrogates(corpus: Malformed) -> None:
    for name, old, new in (
        ("width", '"width": 64,', '"width": 64, "width": 64,'),
        ("name, escaped", '"name": "sticker"', '"name": "sticker", "n\\u0061me": "sticker"'),
        ("format", '"format": "mvbundle"', '"format": "mvbundle", "format": "mvbundle"'),
        ("below x-", '"x-note": {', '"x-note": {"a": 1, '),
        ("x- keys", '"x-note": {', '"x-note": 1, "x-note": {'),
        ("steps", '"schedules": {', '"schedules": {"4": {}, "4": {}, '),
    ):
        corpus.text("D3", "sticker", f"{name} twice", old, new)
    for name, spelled in (
        ("high", "\\ud83d"),
        ("low", "\\ude80"),
        ("pair in the wrong order", "\\ude80\\ud83d"),
        ("high and a letter", "\\ud83da"),
    ):
        corpus.text(
            "D4",
            "sticker",
            f"{name} in a text",
            '"model": "sticker"',
            f'"model": "{spelled}"',
            "source.model",
        )
    corpus.text("D4", "sticker", "in a key", '"x-note": {', '"x-note": {"\\ud800": 1, ', "x-note")
    corpus.text("D4", "sticker", "in a top-level key", '"x-note": {', '"x-\\udfff": 1, "x-note": {')
    corpus.text(
        "D4", "sticker", "below x-", '"x-note": {', '"x-b": ["\\udc00"], "x-note": {', "x-b[0]"
    )


def _depth_and_size(corpus: Malformed) -> None:
    corpus.made("D5", "33 lists", ("[", 33), ("]", 33))
    corpus.made("D5", "33 objects", ('{"a":', 33), ("1", 1), ("}", 33))
    corpus.made("D5", "100000 lists", ("[", 100_000), ("]", 100_000))
    corpus.made("D5", "100000 objects", ('{"a":', 100_000), ("1", 1), ("}", 100_000))
    corpus.wrong("D5", "upscale", "32 lists below x-", "", nest("x-a", 32))
    lists = (("[", 34), ("]", 33))
    for name, *end in (
        ("cut off",),
        ("a comma at the end", (",]", 1)),
        ("a second document", ("]{}", 1)),
        ("a key twice", (',{"a": 1, "a": 2}]', 1)),
        ("half a surrogate pair", (',"\\ud800"]', 1)),
        ("NaN", (",NaN]", 1)),
        ("2^53", (f",{2**53}]", 1)),
        ("5000 digits", (",9", 1), ("9", 4999), ("]", 1)),
    ):
        corpus.made("D5", f"34 lists and {name}", *lists, *end)
    corpus.made(
        "D5", "33 lists behind brackets in a text", ('["]]]\\"]]]",', 1), ("[", 32), ("]", 33)
    )
    corpus.wrong("D6", "upscale", "262145 values below x-", "", fill("x-a", 0, 262_144))
    corpus.wrong("D6", "upscale", "empty lists", "", fill("x-a", [], 262_144))
    corpus.wrong("D6", "upscale", "objects of one value", "", fill("x-a", {"a": 0}, 131_072))
    corpus.made("D6", "a list of 262145", ("[0", 1), (",0", 262_144), ("]", 1))


def _numbers(corpus: Malformed) -> None:
    fps = '"fps": 8\n'
    below = '"x-note": {'
    for name, number in (("2^53", 2**53), ("-2^53", -(2**53)), ("2^64", 2**64), ("10^30", 10**30)):
        corpus.text("D7", "sticker", name, below, f'"x-b": {number}, {below}', "x-b")
    corpus.text(
        "D7",
        "sticker",
        "frames of 2^53",
        '"frames": 8',
        f'"frames": {2**53}',
        "programs[0].video.frames",
    )
    corpus.text("D7", "sticker", "fps of 2^53", fps, f'"fps": {2**53}\n', "programs[0].video.fps")
    for number in ("1e400", "-1e400", "1e309", "123456789e999"):
        corpus.text(
            "D7", "sticker", f"{number} below x-", below, f'"x-b": {number}, {below}', "x-b"
        )
    corpus.text("D7", "sticker", "fps of 1e400", fps, '"fps": 1e400\n', "programs[0].video.fps")
    for count in (4001, 4300, 4301, 5000):
        corpus.made("D7", f"{count} digits", ('{"x-a": ', 1), ("9", count), ("}", 1))
        corpus.made(
            "D7", f"-1 and {count - 1} zeros", ('{"x-a": -1', 1), ("0", count - 1), ("}", 1)
        )
        corpus.made(
            "D2", f"{count} digits, and cut off", ('{"x-a": ', 1), ("9", count), (',"a"', 1)
        )
        corpus.made(
            "D3", f"{count} digits, and a key twice", ('{"a":0,"a":', 1), ("9", count), ("}", 1)
        )
    digits = "9" * 4000
    corpus.text("D7", "sticker", "4000 digits", below, f'"x-b": {digits}, {below}', "x-b")
    corpus.values("D7", "sticker", "samplers.main.guidance_scale", 1e39, -1e39)
    corpus.values("D7", "sticker", "costs.unet.flops", 3.5e38)
    corpus.values("D7", "sticker", "samplers.main.schedules.4.sigmas[0]", 3.41e38)
    corpus.values("D7", "neodragon", "programs[0].operations[11].offset", 1e39, -1e300)
    corpus.values("D7", "animator", "programs[0].operations[4].values[0].scale", 1e300)


def _versions(corpus: Malformed) -> None:
    for name, payload in {
        "a list": b"[]",
        "null": b"null",
        "a text": b'"mvbundle"',
        "a number": b"3",
        "an empty object": b"{}",
    }.items():
        corpus.raw("D8", name, payload)
    corpus.wrong("D8", "upscale", "no format", "", drop("format"))
    corpus.values("D8", "upscale", "format", "zip", "MVBUNDLE", None, 3, ["mvbundle"], where="")
    version = "format_version"
    corpus.wrong("D8", "upscale", "no version", version, drop(version))
    corpus.values("D8", "upscale", version, None, True, "3", 0, -1, 4, 1000, 2**53 - 1, [3])
    corpus.text("D8", "upscale", "3.0", '"format_version": 3', '"format_version": 3.0', version)
    corpus.text("D8", "upscale", "3e0", '"format_version": 3', '"format_version": 3e0', version)
    corpus.raw(
        "D8",
        "all else is different",
        b'{"format_version": 4, "format": "mvbundle", "a": 1}',
        version,
    )


def add_canonical(corpus: Malformed) -> None:
    """Add cases of the rule D13."""
    for base in ("sticker", "version_1_text_to_video", "version_2_text_to_video"):
        corpus.wrong(
            "D13",
            base,
            f"{base} with numbers that canonical form spells beyond 4 MiB",
            "",
            swap('"x-note": ', '"x-a": [@1], "x-note": '),
            swap("@", "1e15,", 255_000),
        )
    for base in (TEXT_1, IMAGE_1, IMAGE_2):
        most = 262_144 - values_of(base.replace("version", "upgraded")) - 1
        for values, further in (
            ("262145", most + 1),
            ("the most values of an older one", 262_144 - values_of(base) - 1),
        ):
            name = f"{base} that has {values} in version 3"
            corpus.wrong("D13", base, name, "", fill("x-a", 0, further))
