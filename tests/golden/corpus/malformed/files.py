"""What is refused of the paths of files, and of packs: rules F."""

from __future__ import annotations

from corpus.cases import Malformed, copied, put, repeat
from corpus.places import PHONE, UNET, XNNPACK


def add_files(corpus: Malformed) -> None:
    """Add cases of the rules F."""
    path = "tokenizers.main.file.path"
    corpus.values(
        "F2",
        "sticker",
        path,
        "",
        ".",
        "..",
        "../x",
        "a/../x",
        "./x",
        "a/./b",
        "a/..",
        "/etc/passwd",
        "//server/x",
        "a//b",
        "a/",
        "/",
        "..\\x",
        "a\\b",
        "C:\\x",
        "C:/x",
        "C:x",
        "file:stream",
        "~/x",
        ".hidden",
        "a/.hidden",
        "a b",
        " a",
        "a ",
        "a\u0000b",
        "a\nb",
        "ä",
        "a.",
        "a./b",
        "nul",
        "NUL",
        "a/CON.txt",
        "com1",
        "lpt9.bin",
        "COM0.a.b",
        "aux/x",
        "%2e%2e/x",
        "a*",
        "a?",
        "$x",
        "-a",
        "+a",
        "a\u202eb",
        None,
        1,
        ["a"],
    )
    corpus.wrong("F2", "sticker", "256 letters", path, repeat(path, "a", 256))
    corpus.wrong("F2", "sticker", "256 letters in folders", path, repeat(path, "abc/", 64))
    for place in (
        f"{UNET}[0].model",
        f"{UNET}[0].files[0].path",
        "licences[0].text_file.path",
        "source.checkpoint[0].path",
    ):
        corpus.values("F2", "sticker", place, "../x")
    corpus.values("F2", "neodragon", "tables.no_last.file.path", "tables/../x")
    for value in (
        "manifest.json",
        "Manifest.JSON",
        "manifest.json/vocab",
        "MANIFEST.json/a/b",
        "Licences/MIT.txt",
        "licences/mit.TXT",
        "licences",
        "licences/MIT.txt/a",
        "components/UNET/onnx-fp32/model.onnx",
    ):
        corpus.wrong("F3", "sticker", f"a file {value}", "", put(path, value))
    corpus.wrong(
        "F4",
        "sticker",
        "two sizes",
        "",
        put("tokenizers.main.file.bytes", 99),
        put(path, "licences/MIT.txt"),
    )
    corpus.wrong(
        "F4",
        "sticker",
        "two hashes",
        "",
        copied("tokenizers.main.file", "licences[0].text_file"),
        put("tokenizers.main.file.sha256", "0" * 64),
    )
    corpus.wrong(
        "F4",
        "sticker",
        "two hashes in variants",
        "",
        copied(f"{UNET}[0].files[1]", f"{XNNPACK}.files[1]"),
        put(f"{UNET}[0].files[1].sha256", "0" * 64),
    )
    corpus.values("F10", "sticker", f"{UNET}[0].pack", "other")
    corpus.wrong(
        "F10", "sticker", "no packs", "components.text_encoder.variants[1].pack", put("packs", [])
    )
    corpus.wrong(
        "F10", "sticker", "a pack of no variant", "packs[0]", put("packs", ["another", "sm8650"])
    )
    corpus.wrong("F10", "upscale", "a pack of no variant at all", "packs[0]", put("packs", ["a"]))
    shared = f"{PHONE}.files[1]"
    corpus.wrong(
        "F11", "sticker", "a file of a pack and the base", "", copied(f"{XNNPACK}.files[2]", shared)
    )
    corpus.wrong(
        "F11", "sticker", "a licence in a pack", "", copied("licences[0].text_file", shared)
    )
    corpus.wrong(
        "F11", "sticker", "a tokenizer in a pack", "", copied("tokenizers.main.file", shared)
    )
    corpus.wrong(
        "F11",
        "sticker",
        "a file of two packs",
        "",
        put("packs", ["sm8650", "zzz"]),
        put(f"{XNNPACK}.pack", "zzz"),
        copied(f"{XNNPACK}.files[2]", shared),
    )
