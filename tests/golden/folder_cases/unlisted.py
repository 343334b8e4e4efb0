"""Cases of what nobody listed beside a model, or in a package (F7)."""

from __future__ import annotations

from folder_cases.bundles import MIT, PACKAGE, B
from folder_cases.cases import CASES, LINKS, PIPES, Case, case, load
from folder_cases.steps import fifo, flipped, link, make, mkdir, rename


def unlisted_cases() -> list[Case]:
    """Return cases of what lies beside a model, or in a package (F7)."""
    beside = make(f"{B}/unet/onnx/extra.bin")
    inside = make(f"{B}/{PACKAGE}/Data/extra.bin")
    folder = f"{B}/unet/onnx/sub"
    return [
        case("unlisted beside a model, opened", None, [beside]),
        case("unlisted beside a model, all hashes", "F7", [beside], "verify"),
        load("unlisted beside a model", "F7", [beside]),
        load("unlisted beside another model", None, [beside], variant="coreml"),
        load("unlisted beside a model of two components", "F7", [beside], "beside", "vae"),
        load("unlisted below a model", "F7", [make(f"{folder}/deep/x")]),
        load("an empty folder beside a model", None, [mkdir(f"{folder}/deep")]),
        load("unlisted, of no bytes", "F7", [make(f"{B}/unet/onnx/x", "")]),
        load("unlisted, came after opening", "F7", after=[beside]),
        load("unlisted, came after loading", "F7", after=[beside], twice=True),
        load(
            "another case of the model beside it",
            "F7",
            [make(f"{B}/unet/onnx/MODEL.onnx")],
            **CASES,
        ),
        load("a pipe beside a model", "F7", [fifo(f"{B}/unet/onnx/p")], **PIPES),
        load(
            "a link beside a model",
            "F7",
            [link(f"{B}/unet/onnx/l", "../../shared/weights.bin")],
            **LINKS,
        ),
        load(
            "a link to a listed file beside it",
            "F7",
            [link(f"{B}/unet/onnx/l", "model.onnx")],
            **LINKS,
        ),
        load(
            "a dangling link beside a model", "F7", [link(f"{B}/unet/onnx/l", "nothing")], **LINKS
        ),
        load("a linked folder beside a model", "F7", [link(folder, "../../shared")], **LINKS),
        load(
            "a linked folder beside a model, empty",
            "F7",
            [mkdir(f"{B}/empty"), link(folder, "../../empty")],
            **LINKS,
        ),
        load("a linked folder to itself", "F7", [link(folder, ".")], **LINKS),
        load("unlisted in a package", "F7", [inside], "coreml"),
        load("unlisted at the top of a package", "F7", [make(f"{B}/{PACKAGE}/x")], "coreml"),
        load("unlisted beside a package", None, [make(f"{B}/unet/coreml/x")], "coreml"),
        case("unlisted in a package, all hashes", "F7", [inside], "verify"),
        case(
            "a package that is a link, opened",
            None,
            [rename(f"{B}/{PACKAGE}", f"{B}/store"), link(f"{B}/{PACKAGE}", "../../store")],
            **LINKS,
        ),
        load(
            "a package that is a link",
            "F7",
            [rename(f"{B}/{PACKAGE}", f"{B}/store"), link(f"{B}/{PACKAGE}", "../../store")],
            "coreml",
            **LINKS,
        ),
        load(
            "a linked folder in a package",
            "F7",
            [
                rename(f"{B}/{PACKAGE}/Data", f"{B}/store"),
                link(f"{B}/{PACKAGE}/Data", "../../../store"),
            ],
            "coreml",
            **LINKS,
        ),
        load("a model in the bundle's own folder", None, base="root"),
        load("a model in the bundle's own folder, unlisted", "F7", [make(f"{B}/x")], base="root"),
        load(
            "a model in the bundle's own folder, unlisted below",
            "F7",
            [make(f"{B}/vae/x")],
            base="root",
        ),
        load("a model in the bundle's own folder, a hash below", "F6", [flipped(MIT)], base="root"),
    ]
