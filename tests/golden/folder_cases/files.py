"""Cases of the folder and its manifest, of listed files, and of their hashes (F1, F5, F6)."""

from __future__ import annotations

from folder_cases.bundles import MIT, MODEL, PACKAGE, SHARED, UNET, B, text_of
from folder_cases.cases import CASES, LINKS, PIPES, Case, case, load
from folder_cases.steps import (
    fifo,
    flipped,
    hardlink,
    later,
    link,
    listed,
    make,
    make_bytes,
    mkdir,
    remove,
    rename,
    resize,
)


def bundle_cases() -> list[Case]:
    """Return cases of the folder itself, and of its manifest."""
    m = f"{B}/manifest.json"
    return [
        case("whole", None),
        case("whole, all hashes", None, do="verify"),
        *(load(f"whole, {key}", None, variant=key) for key in UNET),
        load("whole, the other component", None, component="vae"),
        load("whole, a model beside another", None, component="vae", variant="beside"),
        case("a file of a variant", None, do="read", file=MODEL),
        case("a file of the base", None, do="read", file=MIT),
        case("another name", None, [rename(B, "anything at all")], bundle="anything at all"),
        case(
            "a name of other letters",
            None,
            [rename(B, "b\u00fccher \u706b")],
            "verify",
            bundle="b\u00fccher \u706b",
        ),
        case("a link to the bundle", None, [link("l", B)], "verify", bundle="l", **LINKS),
        case("a link to a link", None, [link("l", B), link("k", "l")], bundle="k", **LINKS),
        case("no bundle", "F1", [remove(B)]),
        case("below a file", "F1", [make("f")], bundle="f/b.mvbundle"),
        case("an empty folder", "F1", [remove(B), mkdir(B)]),
        case("a file", "F1", [remove(B), make(B, "{}")]),
        case("the manifest in place of the bundle", "F1", bundle=m),
        case("a loop of links", "F1", [remove(B), link(B, B)], **LINKS),
        case("a dangling link", "F1", [remove(B), link(B, "nowhere")], **LINKS),
        case("no manifest", "F1", [remove(m)]),
        case("the manifest in another case", "F1", [rename(m, f"{B}/Manifest.json")], **CASES),
        case("the manifest is a folder", "F5", [remove(m), mkdir(m)]),
        case("the manifest is a pipe", "F5", [remove(m), fifo(m)], **PIPES),
        case(
            "the manifest is a link inside",
            None,
            [rename(m, f"{B}/real"), link(m, "real")],
            **LINKS,
        ),
        case("the manifest is a link out", "F5", [rename(m, "real"), link(m, "../real")], **LINKS),
        case("the manifest is a dangling link", "F5", [remove(m), link(m, "real")], **LINKS),
        case("the manifest is a loop", "F5", [remove(m), link(m, "manifest.json")], **LINKS),
        case("an empty manifest", "D2", [resize(m, 0)]),
        case("a manifest that is cut", "D2", [resize(m, 500)]),
        case("a manifest with zeros behind it", "D2", [resize(m, 65536)]),
        case("a manifest of 4 MiB and a byte", "D1", [resize(m, 4194305)]),
        case("a manifest that is no UTF-8", "D1", [make_bytes(m, b"{\xff}")]),
        case("a manifest of something else", "D8", [make(m, '{"format_version": 3}')]),
        case(
            "a manifest of a later version",
            "D8",
            [make(m, '{"format": "mvbundle", "format_version": 4}')],
        ),
    ]


def file_cases() -> list[Case]:
    """Return cases of listed files: there, regular, inside, of their size (F5)."""
    paths = (MODEL, SHARED, MIT, f"{PACKAGE}/Data/weights.bin", "unet/pte/model.ptd")
    at = f"{B}/{MODEL}"
    text = text_of(MODEL)
    return [
        *(case(f"missing: {path}", "F5", [remove(f"{B}/{path}")]) for path in paths),
        *(
            case(f"a byte less: {path}", "F5", [resize(f"{B}/{path}", len(text_of(path)) - 1)])
            for path in paths
        ),
        *(
            case(f"a byte more: {path}", "F5", [resize(f"{B}/{path}", len(text_of(path)) + 1)])
            for path in paths
        ),
        case("no size at all", "F5", [resize(at, 0)]),
        case("a file of no bytes", None, [listed(MODEL, "")], "verify"),
        case("a folder for a file", "F5", [remove(at), mkdir(at)]),
        case("a file for a folder", "F5", [remove(f"{B}/unet/onnx"), make(f"{B}/unet/onnx")]),
        case("a whole component away", "F5", [remove(f"{B}/vae")]),
        case("a pipe for a file", "F5", [remove(at), fifo(at)], **PIPES),
        case("another case of a file", "F5", [rename(at, f"{B}/unet/onnx/Model.onnx")], **CASES),
        case("another case of a folder", "F5", [rename(f"{B}/unet", f"{B}/Unet")], **CASES),
        case("a link out", "F5", [rename(at, "out"), link(at, "../../../out")], **LINKS),
        case(
            "a link out to the same bytes",
            "F5",
            [remove(at), make("out", text), link(at, "../../../out")],
            **LINKS,
        ),
        case("a link to its own folder", "F5", [remove(at), link(at, ".")], **LINKS),
        case("a dangling link inside", "F5", [remove(at), link(at, "nothing")], **LINKS),
        case("a loop of one link", "F5", [remove(at), link(at, "model.onnx")], **LINKS),
        case(
            "a loop of two links",
            "F5",
            [remove(at), link(at, "m"), link(f"{B}/unet/onnx/m", "model.onnx")],
            **LINKS,
        ),
        case(
            "a folder that is a link out",
            "F5",
            [rename(f"{B}/unet/onnx", "out"), link(f"{B}/unet/onnx", "../../out")],
            **LINKS,
        ),
        case(
            "a folder above that is a link out",
            "F5",
            [rename(f"{B}/unet", "out"), link(f"{B}/unet", "../out")],
            **LINKS,
        ),
        case(
            "a link out and in again",
            None,
            [rename(at, f"{B}/store"), link(at, f"../../../{B}/store")],
            "verify",
            **LINKS,
        ),
        case(
            "a link inside",
            None,
            [rename(at, f"{B}/store"), link(at, "../../store")],
            "verify",
            **LINKS,
        ),
        load(
            "a link inside, to load",
            None,
            [rename(at, f"{B}/store"), link(at, "../../store")],
            **LINKS,
        ),
        load(
            "the model's folder is a link inside",
            None,
            [rename(f"{B}/unet/onnx", f"{B}/store"), link(f"{B}/unet/onnx", "../store")],
            **LINKS,
        ),
        load(
            "a second name of a file elsewhere",
            None,
            [remove(at), make("out", text), hardlink(at, "out")],
            needs=["links"],
        ),
        load(
            "files of nobody elsewhere",
            None,
            [make(f"{B}/notes.txt"), make(f"{B}/unet/other/x.onnx"), make(f"{B}/vae/x")],
        ),
        case(
            "files of nobody elsewhere, all hashes",
            None,
            [make(f"{B}/notes.txt"), make(f"{B}/unet/other/x.onnx"), make(f"{B}/vae/x")],
            "verify",
        ),
    ]


def hash_cases() -> list[Case]:
    """Return cases of what files hold (F6)."""
    again = [flipped(MODEL), later(f"{B}/{MODEL}")]
    return [
        case("other bytes, not yet looked at", None, [flipped(MODEL)]),
        case("other bytes, all hashes", "F6", [flipped(MODEL)], "verify"),
        case("other bytes of a licence", "F6", [flipped(MIT)], "verify"),
        case("other bytes, read", "F6", [flipped(MODEL)], "read", file=MODEL),
        case("other bytes of another file, read", None, [flipped(SHARED)], "read", file=MODEL),
        load("other bytes, loaded", "F6", [flipped(MODEL)]),
        load("other bytes of the weights beside", "F6", [flipped("unet/onnx/weights.bin")]),
        load("other bytes of the weights elsewhere", "F6", [flipped(SHARED)]),
        load(
            "other bytes of the shared weights, the other component",
            "F6",
            [flipped(SHARED)],
            component="vae",
        ),
        load(
            "other bytes of another variant's model", None, [flipped(MODEL)], variant="executorch"
        ),
        load("other bytes of another model in the folder", "F6", [flipped("unet/onnx/vae.onnx")]),
        load("other bytes in a package", "F6", [flipped(f"{PACKAGE}/Data/weights.bin")], "coreml"),
        load("other bytes of a licence do not matter to a model", None, [flipped(MIT)]),
        load("changed after it was opened", "F6", after=[flipped(MODEL)]),
        load("changed after it was loaded", "F6", after=again, twice=True),
        case("changed after all was checked", "F6", do="verify", after=again, twice=True),
        load(
            "written again, the same",
            None,
            twice=True,
            after=[make(f"{B}/{MODEL}", text_of(MODEL)), later(f"{B}/{MODEL}")],
        ),
        load("gone after it was opened", "F5", after=[remove(f"{B}/{MODEL}")]),
        load("longer after it was opened", "F5", after=[resize(f"{B}/{MODEL}", 100)]),
        load(
            "a link out after it was opened",
            "F5",
            after=[rename(f"{B}/{MODEL}", "out"), link(f"{B}/{MODEL}", "../../../out")],
            **LINKS,
        ),
    ]
