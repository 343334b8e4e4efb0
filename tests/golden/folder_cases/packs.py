"""Cases of packs: in the base, in folders of their own, and missing (F10)."""

from __future__ import annotations

from folder_cases.bundles import B, text_of
from folder_cases.cases import LINKS, Case, case, load
from folder_cases.steps import Step, flipped, link, make, mkdir, remove, rename, resize


def pack_cases() -> list[Case]:
    """Return cases of packs: in the base, in folders of their own, and missing."""

    def moved(slug: str, folder: str) -> list[Step]:
        names = (f"npu/{slug}_ctx.onnx", f"npu/{slug}.bin")
        return [
            *(make(f"{folder}/{name}", text_of(name)) for name in names),
            *(remove(f"{B}/{name}") for name in names),
        ]

    both = [*moved("sm8550", "p1"), *moved("sm8650", "p2")]
    gone = [remove(f"{B}/npu")]
    given: Case = {"packs": {"sm8550": "p1", "sm8650": "p2"}}
    one: Case = {"packs": {"sm8650": "p2"}}
    shared: Case = {"base": "shared"}
    first, later = "npu/sm8650_ctx.onnx", "npu/vae_sm8650_ctx.onnx"
    names = (first, "npu/sm8650.bin", later, "npu/vae_sm8650.bin")
    elsewhere = [make(f"p2/{name}", text_of(name)) for name in names]
    bin_ = "npu/sm8650.bin"
    context = "npu/sm8650_ctx.onnx"
    return [
        case("no pack is installed", None, gone, "verify"),
        load("no pack is installed, what is in the base", None, gone),
        load("no pack is installed, what is in one", "F10", gone, "sm8650"),
        case("no pack is installed, a file of one", "F10", gone, "read", file=bin_),
        load("both packs in folders of their own", None, both, "sm8650", **given),
        case("both packs, all hashes", None, both, "verify", **given),
        load("one of two packs", None, both, "sm8650", **one),
        load("the other of two packs", "F10", both, "sm8550", **one),
        load("packs elsewhere, and not given", "F10", both, "sm8650"),
        load(
            "both packs in one folder",
            None,
            [*moved("sm8550", "p"), *moved("sm8650", "p")],
            "sm8650",
            packs={"sm8550": "p", "sm8650": "p"},
        ),
        load("the base is given as a pack", None, variant="sm8650", packs={"sm8650": B}),
        load(
            "a pack that is given goes before the base",
            None,
            [
                make(f"p2/{context}", text_of(context)),
                make(f"p2/{bin_}", text_of(bin_)),
                remove(f"{B}/{bin_}"),
                flipped(context),
            ],
            "sm8650",
            **one,
        ),
        load("a model of a pack beside those of another, both in the base", None, variant="sm8650"),
        load(
            "a model of a pack beside files of another that is given",
            "F7",
            [make(f"p2/{name}", text_of(name)) for name in (context, bin_)],
            "sm8550",
            **one,
        ),
        load("a model of the base beside files of a pack that is in the base", None, **shared),
        load(
            "a model of the base beside files of a pack that is given",
            "F7",
            elsewhere,
            **shared,
            **one,
        ),
        load(
            "a model of the base in a folder that a pack has too",
            None,
            [*elsewhere, *(remove(f"{B}/{name}") for name in names)],
            **shared,
            **one,
        ),
        load(
            "a model of the base beside files of a pack that is not installed",
            "F7",
            [remove(f"{B}/{first}")],
            **shared,
        ),
        case(
            "a pack of two components, without the first file of the first by name",
            None,
            [remove(f"{B}/{first}")],
            **shared,
        ),
        case(
            "a pack of two components, without the first file of the second by name",
            "F5",
            [remove(f"{B}/{later}")],
            **shared,
        ),
        case("no folder of a pack", "F10", gone, **one),
        case("a file for a folder of a pack", "F10", [*gone, make("p2")], **one),
        case("an empty folder of a pack", "F5", [*gone, mkdir("p2")], **one),
        case("a pack lacks a file", "F5", [*both, remove(f"p2/{bin_}")], **given),
        case("a pack has a file of another size", "F5", [*both, resize(f"p2/{bin_}", 3)], **given),
        load(
            "a pack has other bytes",
            "F6",
            [*both, make(f"p2/{bin_}", text_of(bin_)[:-1] + "!")],
            "sm8650",
            **given,
        ),
        load(
            "other bytes of another pack",
            None,
            [*both, make(f"p2/{bin_}", text_of(bin_)[:-1] + "!")],
            "sm8550",
            **given,
        ),
        case(
            "other bytes of a pack, all hashes",
            "F6",
            [*both, make(f"p2/{bin_}", text_of(bin_)[:-1] + "!")],
            "verify",
            **given,
        ),
        load("unlisted in a pack", "F7", [*both, make("p2/npu/x")], "sm8650", **given),
        load("unlisted elsewhere in a pack", None, [*both, make("p2/x")], "sm8650", **given),
        load("hidden in a pack", None, [*both, make("p2/npu/.DS_Store")], "sm8650", **given),
        load(
            "a file of another pack in this one",
            "F7",
            [*both, make("p2/npu/sm8550.bin", text_of("npu/sm8550.bin"))],
            "sm8650",
            **given,
        ),
        case(
            "a link from a pack to the base",
            "F5",
            [
                *both,
                remove(f"p2/{bin_}"),
                make(f"{B}/store", text_of(bin_)),
                link(f"p2/{bin_}", f"../../{B}/store"),
            ],
            **given,
            **LINKS,
        ),
        case(
            "a link inside of a pack",
            None,
            [*both, rename(f"p2/{bin_}", "p2/store"), link(f"p2/{bin_}", "../store")],
            "verify",
            **given,
            **LINKS,
        ),
        load(
            "a pack's folder is a link",
            None,
            [*both, rename("p2", "real"), link("p2", "real")],
            "sm8650",
            **given,
            **LINKS,
        ),
        case("a pack in the base, of which a file is missing", "F5", [remove(f"{B}/{bin_}")]),
        case(
            "a pack in the base, of which the first file is missing",
            None,
            [remove(f"{B}/{context}")],
        ),
        load(
            "a pack in the base, of which the first file is missing, to load",
            "F10",
            [remove(f"{B}/{context}")],
            "sm8650",
        ),
        load(
            "a pack that is installed after opening",
            "F10",
            gone,
            "sm8650",
            after=[make(f"{B}/{context}", text_of(context)), make(f"{B}/{bin_}", text_of(bin_))],
        ),
    ]
