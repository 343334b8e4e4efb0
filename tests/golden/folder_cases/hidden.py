"""Cases of hidden files, and of the spellings in which a model may name one (F7)."""

from __future__ import annotations

from folder_cases.bundles import MODEL, PACKAGE, SHARED, B
from folder_cases.cases import LINKS, PIPES, Case, case, load
from folder_cases.steps import fifo, link, listed, make, mkdir


def hidden_cases() -> list[Case]:
    """Return cases of hidden files that no model file names, and of names that are none."""
    ignored = (
        ".DS_Store",
        "._model.onnx",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "Desktop.INI",
        ".nfs000000000001",
        ".directory",
        ".abcde",
        ".a+b-c",
        "." + 254 * "x",
    )
    refused = (
        ".abcd",
        ".",
        "..x",
        ".DS Store",
        ".DS_Store~",
        ".b\u00fccher",
        "Thumbs.db.bak",
        "DS_Store",
        "ehthumbs.db",
        ".DS_Store\u200b",
    )
    at = f"{B}/unet/onnx"
    hidden = f"{at}/.DS_Store"
    return [
        *(load(f"hidden: {name[:20]}", None, [make(f"{at}/{name}")]) for name in ignored),
        *(
            load(f"not hidden enough: {name!r}", "F7", [make(f"{at}/{name}")])
            for name in refused
            if name != "."
        ),
        case("hidden, all hashes", None, [make(hidden), make(f"{B}/.DS_Store")], "verify"),
        load(
            "a hidden folder with anything in it",
            None,
            [make(f"{at}/.cache/x"), make(f"{at}/.cache/deep/model.onnx"), make(f"{at}/.cache/y")],
        ),
        load(
            "a hidden folder with a link in it",
            None,
            [mkdir(f"{at}/.cache"), link(f"{at}/.cache/l", "/")],
            **LINKS,
        ),
        load("hidden below a model", None, [make(f"{at}/sub/.DS_Store")]),
        load("hidden in a package", None, [make(f"{B}/{PACKAGE}/Data/.DS_Store")], "coreml"),
        load("hidden, a link", "F7", [link(hidden, "model.onnx")], **LINKS),
        load("hidden, a dangling link", "F7", [link(hidden, "nothing")], **LINKS),
        load("hidden, a linked folder", "F7", [link(f"{at}/.cache", "../../shared")], **LINKS),
        load("hidden, a pipe", "F7", [fifo(f"{at}/.pipe00")], **PIPES),
        load(
            "a model in the bundle's own folder, hidden",
            None,
            [make(f"{B}/.DS_Store")],
            base="root",
        ),
    ]


def spelling_cases() -> list[Case]:
    """Return cases of hidden files whose names a model file holds, in one spelling or another."""
    named = {
        ".DS_Store": (
            ".DS_Store",
            ".ds_store",
            ".DS_STORE",
            "weights/.DS_Store",
            "\x00\x09.DS_Store\x12",
            ".D\u017f_Store",
            ".D\u017f_\u017ftore",  # long s
            ".\u200bDS_Store",
            ".D\u200fS_Store",
            ".D\u202aS_\u202eStore",
            ".D\u2060S_Stor\u206fe",
            ".DS\ufeff_Store",
            ".D\u200b\u200c\u2060\ufeffS_Store",
            "DS_STO~1",
            "ds_sto~9",
            "DS1A2F~1",
            "dsffff~3",
        ),
        ".kkkkkk": (".kkkkkk", ".KKKKKK", ".\u212akkkk\u212a"),  # the sign of kelvin
        "Thumbs.db": ("Thumbs.db", "THUMBS.DB", "thumb\u017f.db", "THUMBS~1.DB", "thabcd~1"),
        "desktop.ini": ("desktop.ini", "de\u017f\u212atop.ini", "DESKTO~1.INI"),
        ".cache": (".cache", ".cache/x", "CACHE~1"),
        "._model.onnx": ("._model.onnx", "_MODEL~1", "_m0000~2"),
        ".a.b+c.d": (".a.b+c.d", ".A.B+C.D", "AB_C~1", "abffff~1"),
    }
    innocent = (
        "DS_Store",
        ".DS_Stor",
        ".DS Store",
        ".DS-Store",
        ".D\u0301S_Store",
        ".DS_St\u00f6re",
        ".DS\u200a_Store",
        ".DS\u2029_Store",
        ".DS\u202f_Store",
        ".DS\u205f_Store",
        "DS_STO~A",
        "DS_ST~1",
        ".D\\u0053_Store",
        ".\u0430DS_Store",
    )
    at = f"{B}/unet/onnx"
    package = f"{PACKAGE}/Manifest.json"
    cases = [
        load(
            f"named: {name} as {spelling!a}",
            "F7",
            [listed(MODEL, f"graph {spelling} end"), make(f"{at}/{name}")],
        )
        for name, spellings in named.items()
        for spelling in spellings
    ]
    cases += [
        load(
            f"not named: .DS_Store by {text!a}",
            None,
            [listed(MODEL, f"graph {text} end"), make(f"{at}/.DS_Store")],
        )
        for text in innocent
    ]
    escapes = (
        r"\u002eDS_Store",
        r".D\u0053_Store",
        r".\u0064s_store",
        r".D\u017F_Store",
        r".D\u200bS_Store",
        r"DS_STO\u007e1",
    )
    cases += [
        load(
            f"named in JSON: {escape}",
            "F7",
            [listed(package, f'{{"path": "{escape}"}}'), make(f"{B}/{PACKAGE}/.DS_Store")],
            "coreml",
        )
        for escape in escapes
    ]
    hidden = make(f"{at}/.DS_Store")
    return [
        *cases,
        load(
            "a hidden folder that is named",
            "F7",
            [listed(MODEL, "graph .cache/x end"), make(f"{at}/.cache/x")],
        ),
        load(
            "what is in a hidden folder is named, and it is not",
            None,
            [listed(MODEL, "graph weights99.bin end"), make(f"{at}/.cache/weights99.bin")],
        ),
        load("named by the weights", "F7", [listed("unet/onnx/weights.bin", ".DS_Store"), hidden]),
        load("named by weights elsewhere", "F7", [listed(SHARED, ".DS_Store"), hidden]),
        load(
            "named by another model in the folder",
            "F7",
            [listed("unet/onnx/vae.onnx", ".DS_Store"), hidden],
        ),
        load(
            "named by a model that is not of the variant",
            None,
            [listed("unet/pte/model.pte", ".DS_Store"), hidden],
        ),
        load("named, and not there", None, [listed(MODEL, "graph .DS_Store end")]),
        load("named at the very begin", "F7", [listed(MODEL, ".DS_Store"), hidden]),
        load(
            "one of two hidden is named",
            "F7",
            [listed(MODEL, "Thumbs.db"), hidden, make(f"{at}/Thumbs.db")],
        ),
        load(
            "named below the model",
            "F7",
            [listed(MODEL, "sub/.DS_Store"), make(f"{at}/sub/.DS_Store")],
        ),
        case("named, opened", None, [listed(MODEL, ".DS_Store"), hidden]),
        case("named, all hashes", "F7", [listed(MODEL, ".DS_Store"), hidden], "verify"),
        load(
            "named, of a package by its weights",
            "F7",
            [listed(f"{PACKAGE}/Data/weights.bin", ".DS_Store"), make(f"{B}/{PACKAGE}/.DS_Store")],
            "coreml",
        ),
    ]
