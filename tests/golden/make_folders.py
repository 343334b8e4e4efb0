"""Bundles on disk that are opened, or refused by a rule of docs/bundle_format.md, section 1.

Each case starts with an empty folder, in which the bundle of `base` is made as `b.mvbundle`: its
manifest, and `files`, path -> text. `before` are steps that are done then; `after` are those that
are done when the bundle is open. With `twice`, what is asked for is done before `after` too, and
succeeds. Paths of steps are relative to the empty folder.

    make      a file with `text` or `hex`, and the folders that it needs; one that is there goes
    list      the same in the bundle: and the manifest has its size and hash
    mkdir     a folder
    link      a symbolic link at `path` to `to`, as it is written
    hardlink  a second name `path` of the file `to`
    fifo      a pipe
    resize    a file gets `bytes` bytes: it is cut, or zeros are added
    later     a file's time of change is moved on by 10 s
    remove    a file, or a folder with all that is in it
    rename    `path` to `to`

`do` is what is asked for: `open` the bundle at `bundle` with the `packs` (name -> folder); then
`verify` it, `load` the `variant` of a `component` (check all that a graph could read, and say where
it lies), or `read` a `file`. `rule` is that of the refusal, null where all is well. `needs` are
what a system has to have: `links`, `pipes`, `case` (names that differ in case are two).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiny_manifests import ROLES, Kind, file, manifest

Step = dict[str, Any]
Case = dict[str, Any]

B = "b.mvbundle"
NPU = {"target": "snapdragon", "format": "qnn_context", "precision": "w8a16"}
CHIPS = {"sm8550": (73, 43), "sm8650": (75, 57)}
PACKAGE = "unet/coreml/Unet.mlpackage"
MODEL = "unet/onnx/model.onnx"
SHARED = "shared/weights.bin"
MIT = "licences/MIT.txt"


def _text(path: str) -> str:
    return f"of {path}"


def _kind(kind: Kind, model: str, files: Sequence[str] = (), **more: Any) -> Kind:
    paths = files or [model]
    return {
        **kind,
        "model": model,
        "files": [file(path, _text(path).encode()) for path in paths],
        **more,
    }


ONNX = {"target": "onnx", "format": "onnx", "precision": "fp32"}
COREML = {
    "target": "iphone",
    "format": "coreml",
    "precision": "fp16",
    "deployment_target": "iOS18",
}
PTE = {"target": "executorch", "format": "executorch", "precision": "w8a8", "delegate": "xnnpack"}


def _npu(slug: str) -> Kind:
    arch, soc_model = CHIPS[slug]
    chip = {"slug": slug, "htp_arch": arch, "soc_model": soc_model}
    files = [f"npu/{slug}_ctx.onnx", f"npu/{slug}.bin"]
    return _kind({**NPU, "chip": chip}, files[0], files, pack=slug)


UNET = {
    "onnx": _kind(ONNX, MODEL, [MODEL, "unet/onnx/weights.bin", SHARED]),
    "coreml": _kind(COREML, PACKAGE, [f"{PACKAGE}/Manifest.json", f"{PACKAGE}/Data/weights.bin"]),
    "executorch": _kind(PTE, "unet/pte/model.pte", ["unet/pte/model.pte", "unet/pte/model.ptd"]),
    **{slug: _npu(slug) for slug in CHIPS},
}
VAE = {
    "onnx": _kind(ONNX, "vae/onnx/model.onnx", ["vae/onnx/model.onnx", SHARED]),
    # another model in the folder of a first
    "beside": _kind({**ONNX, "precision": "fp16"}, "unet/onnx/vae.onnx"),
}
ROOT = {"onnx": _kind(ONNX, "root.onnx")}


def _base(unet: Mapping[str, Kind], vae: Mapping[str, Kind], packs: Sequence[str]) -> Any:
    sets = {key: {"unet": key, "vae": "onnx"} for key in unet}
    base = manifest(
        {"unet": unet, "vae": vae}, sets, {"default": ("unet", "vae")}, packs, ROLES, "folders"
    )
    licence = file(MIT, _text(MIT).encode())
    base["licences"] = [{"name": "MIT", "applies_to": "nothing", "text_file": licence}]
    paths = {
        item["path"] for kinds in (unet, vae) for kind in kinds.values() for item in kind["files"]
    }
    return {"manifest": base, "files": {path: _text(path) for path in sorted({*paths, MIT})}}


BASES = {
    "tiny": _base(UNET, VAE, sorted(CHIPS)),
    # a model in the bundle's own folder: so all of the bundle lies beside it
    "root": _base(ROOT, {"onnx": VAE["onnx"]}, ()),
}


def _case(
    name: str,
    rule: str | None,
    before: Sequence[Step] = (),
    do: str = "open",
    **more: Any,
) -> Case:
    return {
        "name": name,
        "base": "tiny",
        "before": list(before),
        "bundle": B,
        "packs": {},
        "do": do,
        "after": [],
        "twice": False,
        "needs": [],
        **more,
        "rule": rule,
    }


def _load(
    name: str,
    rule: str | None,
    before: Sequence[Step] = (),
    variant: str = "onnx",
    component: str = "unet",
    **more: Any,
) -> Case:
    return _case(name, rule, before, "load", component=component, variant=variant, **more)


def make(path: str, text: str = "x") -> Step:
    return {"step": "make", "path": path, "text": text}


def make_bytes(path: str, content: bytes) -> Step:
    return {"step": "make", "path": path, "hex": content.hex()}


def listed(path: str, text: str) -> Step:
    return {"step": "list", "path": path, "hex": text.encode().hex()}


def mkdir(path: str) -> Step:
    return {"step": "mkdir", "path": path}


def link(path: str, to: str) -> Step:
    return {"step": "link", "path": path, "to": to}


def hardlink(path: str, to: str) -> Step:
    return {"step": "hardlink", "path": path, "to": to}


def fifo(path: str) -> Step:
    return {"step": "fifo", "path": path}


def resize(path: str, size: int) -> Step:
    return {"step": "resize", "path": path, "bytes": size}


def later(path: str) -> Step:
    return {"step": "later", "path": path}


def remove(path: str) -> Step:
    return {"step": "remove", "path": path}


def rename(path: str, to: str) -> Step:
    return {"step": "rename", "path": path, "to": to}


def flipped(path: str) -> Step:
    """Return a step that changes a letter of a file, and not its size."""
    return make(f"{B}/{path}", _text(path)[:-1] + "!")


LINKS, PIPES, CASES = {"needs": ["links"]}, {"needs": ["pipes"]}, {"needs": ["case"]}


def _bundle_cases() -> list[Case]:
    """Return cases of the folder itself, and of its manifest."""
    m = f"{B}/manifest.json"
    return [
        _case("whole", None),
        _case("whole, all hashes", None, do="verify"),
        *(_load(f"whole, {key}", None, variant=key) for key in UNET),
        _load("whole, the other component", None, component="vae"),
        _load("whole, a model beside another", None, component="vae", variant="beside"),
        _case("a file of a variant", None, do="read", file=MODEL),
        _case("a file of the base", None, do="read", file=MIT),
        _case("another name", None, [rename(B, "anything at all")], bundle="anything at all"),
        _case(
            "a name of other letters",
            None,
            [rename(B, "b\u00fccher \u706b")],
            "verify",
            bundle="b\u00fccher \u706b",
        ),
        _case("a link to the bundle", None, [link("l", B)], "verify", bundle="l", **LINKS),
        _case("a link to a link", None, [link("l", B), link("k", "l")], bundle="k", **LINKS),
        _case("no bundle", "F1", [remove(B)]),
        _case("below a file", "F1", [make("f")], bundle="f/b.mvbundle"),
        _case("an empty folder", "F1", [remove(B), mkdir(B)]),
        _case("a file", "F1", [remove(B), make(B, "{}")]),
        _case("the manifest in place of the bundle", "F1", bundle=m),
        _case("a loop of links", "F1", [remove(B), link(B, B)], **LINKS),
        _case("a dangling link", "F1", [remove(B), link(B, "nowhere")], **LINKS),
        _case("no manifest", "F1", [remove(m)]),
        _case("the manifest in another case", "F1", [rename(m, f"{B}/Manifest.json")], **CASES),
        _case("the manifest is a folder", "F5", [remove(m), mkdir(m)]),
        _case("the manifest is a pipe", "F5", [remove(m), fifo(m)], **PIPES),
        _case(
            "the manifest is a link inside",
            None,
            [rename(m, f"{B}/real"), link(m, "real")],
            **LINKS,
        ),
        _case("the manifest is a link out", "F5", [rename(m, "real"), link(m, "../real")], **LINKS),
        _case("the manifest is a dangling link", "F5", [remove(m), link(m, "real")], **LINKS),
        _case("the manifest is a loop", "F5", [remove(m), link(m, "manifest.json")], **LINKS),
        _case("an empty manifest", "D2", [resize(m, 0)]),
        _case("a manifest that is cut", "D2", [resize(m, 500)]),
        _case("a manifest with zeros behind it", "D2", [resize(m, 65536)]),
        _case("a manifest of 4 MiB and a byte", "D1", [resize(m, 4194305)]),
        _case("a manifest that is no UTF-8", "D1", [make_bytes(m, b"{\xff}")]),
        _case("a manifest of something else", "D8", [make(m, '{"format_version": 3}')]),
        _case(
            "a manifest of a later version",
            "D8",
            [make(m, '{"format": "mvbundle", "format_version": 4}')],
        ),
    ]


def _file_cases() -> list[Case]:
    """Return cases of listed files: there, regular, inside, of their size (F5)."""
    paths = (MODEL, SHARED, MIT, f"{PACKAGE}/Data/weights.bin", "unet/pte/model.ptd")
    at = f"{B}/{MODEL}"
    text = _text(MODEL)
    return [
        *(_case(f"missing: {path}", "F5", [remove(f"{B}/{path}")]) for path in paths),
        *(
            _case(f"a byte less: {path}", "F5", [resize(f"{B}/{path}", len(_text(path)) - 1)])
            for path in paths
        ),
        *(
            _case(f"a byte more: {path}", "F5", [resize(f"{B}/{path}", len(_text(path)) + 1)])
            for path in paths
        ),
        _case("no size at all", "F5", [resize(at, 0)]),
        _case("a file of no bytes", None, [listed(MODEL, "")], "verify"),
        _case("a folder for a file", "F5", [remove(at), mkdir(at)]),
        _case("a file for a folder", "F5", [remove(f"{B}/unet/onnx"), make(f"{B}/unet/onnx")]),
        _case("a whole component away", "F5", [remove(f"{B}/vae")]),
        _case("a pipe for a file", "F5", [remove(at), fifo(at)], **PIPES),
        _case("another case of a file", "F5", [rename(at, f"{B}/unet/onnx/Model.onnx")], **CASES),
        _case("another case of a folder", "F5", [rename(f"{B}/unet", f"{B}/Unet")], **CASES),
        _case("a link out", "F5", [rename(at, "out"), link(at, "../../../out")], **LINKS),
        _case(
            "a link out to the same bytes",
            "F5",
            [remove(at), make("out", text), link(at, "../../../out")],
            **LINKS,
        ),
        _case("a link to its own folder", "F5", [remove(at), link(at, ".")], **LINKS),
        _case("a dangling link inside", "F5", [remove(at), link(at, "nothing")], **LINKS),
        _case("a loop of one link", "F5", [remove(at), link(at, "model.onnx")], **LINKS),
        _case(
            "a loop of two links",
            "F5",
            [remove(at), link(at, "m"), link(f"{B}/unet/onnx/m", "model.onnx")],
            **LINKS,
        ),
        _case(
            "a folder that is a link out",
            "F5",
            [rename(f"{B}/unet/onnx", "out"), link(f"{B}/unet/onnx", "../../out")],
            **LINKS,
        ),
        _case(
            "a folder above that is a link out",
            "F5",
            [rename(f"{B}/unet", "out"), link(f"{B}/unet", "../out")],
            **LINKS,
        ),
        _case(
            "a link out and in again",
            None,
            [rename(at, f"{B}/store"), link(at, f"../../../{B}/store")],
            "verify",
            **LINKS,
        ),
        _case(
            "a link inside",
            None,
            [rename(at, f"{B}/store"), link(at, "../../store")],
            "verify",
            **LINKS,
        ),
        _load(
            "a link inside, to load",
            None,
            [rename(at, f"{B}/store"), link(at, "../../store")],
            **LINKS,
        ),
        _load(
            "the model's folder is a link inside",
            None,
            [rename(f"{B}/unet/onnx", f"{B}/store"), link(f"{B}/unet/onnx", "../store")],
            **LINKS,
        ),
        _load(
            "a second name of a file elsewhere",
            None,
            [remove(at), make("out", text), hardlink(at, "out")],
            needs=["links"],
        ),
        _load(
            "files of nobody elsewhere",
            None,
            [make(f"{B}/notes.txt"), make(f"{B}/unet/other/x.onnx"), make(f"{B}/vae/x")],
        ),
        _case(
            "files of nobody elsewhere, all hashes",
            None,
            [make(f"{B}/notes.txt"), make(f"{B}/unet/other/x.onnx"), make(f"{B}/vae/x")],
            "verify",
        ),
    ]


def _hash_cases() -> list[Case]:
    again = [flipped(MODEL), later(f"{B}/{MODEL}")]
    return [
        _case("other bytes, not yet looked at", None, [flipped(MODEL)]),
        _case("other bytes, all hashes", "F6", [flipped(MODEL)], "verify"),
        _case("other bytes of a licence", "F6", [flipped(MIT)], "verify"),
        _case("other bytes, read", "F6", [flipped(MODEL)], "read", file=MODEL),
        _case("other bytes of another file, read", None, [flipped(SHARED)], "read", file=MODEL),
        _load("other bytes, loaded", "F6", [flipped(MODEL)]),
        _load("other bytes of the weights beside", "F6", [flipped("unet/onnx/weights.bin")]),
        _load("other bytes of the weights elsewhere", "F6", [flipped(SHARED)]),
        _load(
            "other bytes of the shared weights, the other component",
            "F6",
            [flipped(SHARED)],
            component="vae",
        ),
        _load(
            "other bytes of another variant's model", None, [flipped(MODEL)], variant="executorch"
        ),
        _load("other bytes of another model in the folder", "F6", [flipped("unet/onnx/vae.onnx")]),
        _load("other bytes in a package", "F6", [flipped(f"{PACKAGE}/Data/weights.bin")], "coreml"),
        _load("other bytes of a licence do not matter to a model", None, [flipped(MIT)]),
        _load("changed after it was opened", "F6", after=[flipped(MODEL)]),
        _load("changed after it was loaded", "F6", after=again, twice=True),
        _case("changed after all was checked", "F6", do="verify", after=again, twice=True),
        _load(
            "written again, the same",
            None,
            twice=True,
            after=[make(f"{B}/{MODEL}", _text(MODEL)), later(f"{B}/{MODEL}")],
        ),
        _load("gone after it was opened", "F5", after=[remove(f"{B}/{MODEL}")]),
        _load("longer after it was opened", "F5", after=[resize(f"{B}/{MODEL}", 100)]),
        _load(
            "a link out after it was opened",
            "F5",
            after=[rename(f"{B}/{MODEL}", "out"), link(f"{B}/{MODEL}", "../../../out")],
            **LINKS,
        ),
    ]


def _unlisted_cases() -> list[Case]:
    """Return cases of what lies beside a model, or in a package (F7)."""
    beside = make(f"{B}/unet/onnx/extra.bin")
    inside = make(f"{B}/{PACKAGE}/Data/extra.bin")
    folder = f"{B}/unet/onnx/sub"
    return [
        _case("unlisted beside a model, opened", None, [beside]),
        _case("unlisted beside a model, all hashes", "F7", [beside], "verify"),
        _load("unlisted beside a model", "F7", [beside]),
        _load("unlisted beside another model", None, [beside], variant="coreml"),
        _load("unlisted beside a model of two components", "F7", [beside], "beside", "vae"),
        _load("unlisted below a model", "F7", [make(f"{folder}/deep/x")]),
        _load("an empty folder beside a model", None, [mkdir(f"{folder}/deep")]),
        _load("unlisted, of no bytes", "F7", [make(f"{B}/unet/onnx/x", "")]),
        _load("unlisted, came after opening", "F7", after=[beside]),
        _load("unlisted, came after loading", "F7", after=[beside], twice=True),
        _load(
            "another case of the model beside it",
            "F7",
            [make(f"{B}/unet/onnx/MODEL.onnx")],
            **CASES,
        ),
        _load("a pipe beside a model", "F7", [fifo(f"{B}/unet/onnx/p")], **PIPES),
        _load(
            "a link beside a model",
            "F7",
            [link(f"{B}/unet/onnx/l", "../../shared/weights.bin")],
            **LINKS,
        ),
        _load(
            "a link to a listed file beside it",
            "F7",
            [link(f"{B}/unet/onnx/l", "model.onnx")],
            **LINKS,
        ),
        _load(
            "a dangling link beside a model", "F7", [link(f"{B}/unet/onnx/l", "nothing")], **LINKS
        ),
        _load("a linked folder beside a model", "F7", [link(folder, "../../shared")], **LINKS),
        _load(
            "a linked folder beside a model, empty",
            "F7",
            [mkdir(f"{B}/empty"), link(folder, "../../empty")],
            **LINKS,
        ),
        _load("a linked folder to itself", "F7", [link(folder, ".")], **LINKS),
        _load("unlisted in a package", "F7", [inside], "coreml"),
        _load("unlisted at the top of a package", "F7", [make(f"{B}/{PACKAGE}/x")], "coreml"),
        _load("unlisted beside a package", None, [make(f"{B}/unet/coreml/x")], "coreml"),
        _case("unlisted in a package, all hashes", "F7", [inside], "verify"),
        _case(
            "a package that is a link, opened",
            None,
            [rename(f"{B}/{PACKAGE}", f"{B}/store"), link(f"{B}/{PACKAGE}", "../../store")],
            **LINKS,
        ),
        _load(
            "a package that is a link",
            "F7",
            [rename(f"{B}/{PACKAGE}", f"{B}/store"), link(f"{B}/{PACKAGE}", "../../store")],
            "coreml",
            **LINKS,
        ),
        _load(
            "a linked folder in a package",
            "F7",
            [
                rename(f"{B}/{PACKAGE}/Data", f"{B}/store"),
                link(f"{B}/{PACKAGE}/Data", "../../../store"),
            ],
            "coreml",
            **LINKS,
        ),
        _load("a model in the bundle's own folder", None, base="root"),
        _load("a model in the bundle's own folder, unlisted", "F7", [make(f"{B}/x")], base="root"),
        _load(
            "a model in the bundle's own folder, unlisted below",
            "F7",
            [make(f"{B}/vae/x")],
            base="root",
        ),
        _load(
            "a model in the bundle's own folder, a hash below", "F6", [flipped(MIT)], base="root"
        ),
    ]


def _hidden_cases() -> list[Case]:
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
        *(_load(f"hidden: {name[:20]}", None, [make(f"{at}/{name}")]) for name in ignored),
        *(
            _load(f"not hidden enough: {name!r}", "F7", [make(f"{at}/{name}")])
            for name in refused
            if name != "."
        ),
        _case("hidden, all hashes", None, [make(hidden), make(f"{B}/.DS_Store")], "verify"),
        _load(
            "a hidden folder with anything in it",
            None,
            [make(f"{at}/.cache/x"), make(f"{at}/.cache/deep/model.onnx"), make(f"{at}/.cache/y")],
        ),
        _load(
            "a hidden folder with a link in it",
            None,
            [mkdir(f"{at}/.cache"), link(f"{at}/.cache/l", "/")],
            **LINKS,
        ),
        _load("hidden below a model", None, [make(f"{at}/sub/.DS_Store")]),
        _load("hidden in a package", None, [make(f"{B}/{PACKAGE}/Data/.DS_Store")], "coreml"),
        _load("hidden, a link", "F7", [link(hidden, "model.onnx")], **LINKS),
        _load("hidden, a dangling link", "F7", [link(hidden, "nothing")], **LINKS),
        _load("hidden, a linked folder", "F7", [link(f"{at}/.cache", "../../shared")], **LINKS),
        _load("hidden, a pipe", "F7", [fifo(f"{at}/.pipe00")], **PIPES),
        _load(
            "a model in the bundle's own folder, hidden",
            None,
            [make(f"{B}/.DS_Store")],
            base="root",
        ),
    ]


def _spelling_cases() -> list[Case]:
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
        _load(
            f"named: {name} as {spelling!a}",
            "F7",
            [listed(MODEL, f"graph {spelling} end"), make(f"{at}/{name}")],
        )
        for name, spellings in named.items()
        for spelling in spellings
    ]
    cases += [
        _load(
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
        _load(
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
        _load(
            "a hidden folder that is named",
            "F7",
            [listed(MODEL, "graph .cache/x end"), make(f"{at}/.cache/x")],
        ),
        _load(
            "what is in a hidden folder is named, and it is not",
            None,
            [listed(MODEL, "graph weights99.bin end"), make(f"{at}/.cache/weights99.bin")],
        ),
        _load("named by the weights", "F7", [listed("unet/onnx/weights.bin", ".DS_Store"), hidden]),
        _load("named by weights elsewhere", "F7", [listed(SHARED, ".DS_Store"), hidden]),
        _load(
            "named by another model in the folder",
            "F7",
            [listed("unet/onnx/vae.onnx", ".DS_Store"), hidden],
        ),
        _load(
            "named by a model that is not of the variant",
            None,
            [listed("unet/pte/model.pte", ".DS_Store"), hidden],
        ),
        _load("named, and not there", None, [listed(MODEL, "graph .DS_Store end")]),
        _load("named at the very begin", "F7", [listed(MODEL, ".DS_Store"), hidden]),
        _load(
            "one of two hidden is named",
            "F7",
            [listed(MODEL, "Thumbs.db"), hidden, make(f"{at}/Thumbs.db")],
        ),
        _load(
            "named below the model",
            "F7",
            [listed(MODEL, "sub/.DS_Store"), make(f"{at}/sub/.DS_Store")],
        ),
        _case("named, opened", None, [listed(MODEL, ".DS_Store"), hidden]),
        _case("named, all hashes", "F7", [listed(MODEL, ".DS_Store"), hidden], "verify"),
        _load(
            "named, of a package by its weights",
            "F7",
            [listed(f"{PACKAGE}/Data/weights.bin", ".DS_Store"), make(f"{B}/{PACKAGE}/.DS_Store")],
            "coreml",
        ),
    ]


def _pack_cases() -> list[Case]:
    """Return cases of packs: in the base, in folders of their own, and missing."""

    def moved(slug: str, folder: str) -> list[Step]:
        names = (f"npu/{slug}_ctx.onnx", f"npu/{slug}.bin")
        return [
            *(make(f"{folder}/{name}", _text(name)) for name in names),
            *(remove(f"{B}/{name}") for name in names),
        ]

    both = [*moved("sm8550", "p1"), *moved("sm8650", "p2")]
    gone = [remove(f"{B}/npu")]
    given = {"packs": {"sm8550": "p1", "sm8650": "p2"}}
    one = {"packs": {"sm8650": "p2"}}
    bin_ = "npu/sm8650.bin"
    context = "npu/sm8650_ctx.onnx"
    return [
        _case("no pack is installed", None, gone, "verify"),
        _load("no pack is installed, what is in the base", None, gone),
        _load("no pack is installed, what is in one", "F10", gone, "sm8650"),
        _case("no pack is installed, a file of one", "F10", gone, "read", file=bin_),
        _load("both packs in folders of their own", None, both, "sm8650", **given),
        _case("both packs, all hashes", None, both, "verify", **given),
        _load("one of two packs", None, both, "sm8650", **one),
        _load("the other of two packs", "F10", both, "sm8550", **one),
        _load("packs elsewhere, and not given", "F10", both, "sm8650"),
        _load(
            "both packs in one folder",
            None,
            [*moved("sm8550", "p"), *moved("sm8650", "p")],
            "sm8650",
            packs={"sm8550": "p", "sm8650": "p"},
        ),
        _load("the base is given as a pack", None, variant="sm8650", packs={"sm8650": B}),
        _load(
            "a pack that is given goes before the base",
            None,
            [
                make(f"p2/{context}", _text(context)),
                make(f"p2/{bin_}", _text(bin_)),
                remove(f"{B}/{bin_}"),
                flipped(context),
            ],
            "sm8650",
            **one,
        ),
        _case("no folder of a pack", "F10", gone, **one),
        _case("a file for a folder of a pack", "F10", [*gone, make("p2")], **one),
        _case("an empty folder of a pack", "F5", [*gone, mkdir("p2")], **one),
        _case("a pack lacks a file", "F5", [*both, remove(f"p2/{bin_}")], **given),
        _case("a pack has a file of another size", "F5", [*both, resize(f"p2/{bin_}", 3)], **given),
        _load(
            "a pack has other bytes",
            "F6",
            [*both, make(f"p2/{bin_}", _text(bin_)[:-1] + "!")],
            "sm8650",
            **given,
        ),
        _load(
            "other bytes of another pack",
            None,
            [*both, make(f"p2/{bin_}", _text(bin_)[:-1] + "!")],
            "sm8550",
            **given,
        ),
        _case(
            "other bytes of a pack, all hashes",
            "F6",
            [*both, make(f"p2/{bin_}", _text(bin_)[:-1] + "!")],
            "verify",
            **given,
        ),
        _load("unlisted in a pack", "F7", [*both, make("p2/npu/x")], "sm8650", **given),
        _load("unlisted elsewhere in a pack", None, [*both, make("p2/x")], "sm8650", **given),
        _load("hidden in a pack", None, [*both, make("p2/npu/.DS_Store")], "sm8650", **given),
        _load(
            "a file of another pack in this one",
            "F7",
            [*both, make("p2/npu/sm8550.bin", _text("npu/sm8550.bin"))],
            "sm8650",
            **given,
        ),
        _case(
            "a link from a pack to the base",
            "F5",
            [
                *both,
                remove(f"p2/{bin_}"),
                make(f"{B}/store", _text(bin_)),
                link(f"p2/{bin_}", f"../../{B}/store"),
            ],
            **given,
            **LINKS,
        ),
        _case(
            "a link inside of a pack",
            None,
            [*both, rename(f"p2/{bin_}", "p2/store"), link(f"p2/{bin_}", "../store")],
            "verify",
            **given,
            **LINKS,
        ),
        _load(
            "a pack's folder is a link",
            None,
            [*both, rename("p2", "real"), link("p2", "real")],
            "sm8650",
            **given,
            **LINKS,
        ),
        _case("a pack in the base, of which a file is missing", "F5", [remove(f"{B}/{bin_}")]),
        _case(
            "a pack in the base, of which the first file is missing",
            None,
            [remove(f"{B}/{context}")],
        ),
        _load(
            "a pack in the base, of which the first file is missing, to load",
            "F10",
            [remove(f"{B}/{context}")],
            "sm8650",
        ),
        _load(
            "a pack that is installed after opening",
            "F10",
            gone,
            "sm8650",
            after=[make(f"{B}/{context}", _text(context)), make(f"{B}/{bin_}", _text(bin_))],
        ),
    ]


def build_folders() -> dict[str, list[Any]]:
    """Return the bundles and the cases."""
    cases = [
        *_bundle_cases(),
        *_file_cases(),
        *_hash_cases(),
        *_unlisted_cases(),
        *_hidden_cases(),
        *_spelling_cases(),
        *_pack_cases(),
    ]
    return {
        "bases": [{"name": name, **base} for name, base in BASES.items()],
        "cases": cases,
    }
