"""What is refused of components and sets: rules G."""

from __future__ import annotations

from corpus.cases import Malformed, copied, drop, put
from corpus.places import EXACT, MOTION, PACKAGE, PHONE, UNET, XNNPACK

SM8650 = {"slug": "sm8650", "htp_arch": 75, "soc_model": 57}


def add_graphs(corpus: Malformed) -> None:
    """Add cases of the rules G."""
    _tensors(corpus)
    _platforms(corpus)
    _models(corpus)
    _storage(corpus)
    _elements(corpus)
    _runtimes(corpus)
    _sets(corpus)


def _tensors(corpus: Malformed) -> None:
    extra = {"name": "extra", "dtype": "float32", "scale": None, "zero_point": None}
    for name, where, *edits in (
        ("a tensor less", f"{EXACT}.inputs", drop(f"{EXACT}.inputs[1]")),
        ("a tensor more", f"{EXACT}.inputs[3].name", put(f"{EXACT}.inputs[3]", extra)),
        ("another name", f"{EXACT}.inputs[0].name", put(f"{EXACT}.inputs[0].name", "Sample")),
        (
            "a tensor twice in a variant",
            f"{EXACT}.inputs",
            copied(f"{EXACT}.inputs[3]", f"{EXACT}.inputs[0]"),
        ),
        (
            "a tensor for another",
            f"{PHONE}.inputs",
            copied(f"{PHONE}.inputs[1]", f"{PHONE}.inputs[0]"),
        ),
        (
            "a name twice in a component",
            "components.unet.inputs",
            put("components.unet.inputs[1].name", "sample"),
        ),
        (
            "an output twice in a component",
            "components.unet.outputs",
            copied("components.unet.outputs[1]", "components.unet.outputs[0]"),
        ),
        (
            "an output that the component has not",
            f"{UNET}[0].outputs[0].name",
            put("components.unet.outputs[0].name", "noise"),
        ),
        (
            "an input as output",
            f"{EXACT}.outputs[0].name",
            put(f"{EXACT}.outputs[0].name", "sample"),
        ),
    ):
        corpus.wrong("G1", "sticker", name, where, *edits)


def _platforms(corpus: Malformed) -> None:
    corpus.values(
        "G2", "sticker", f"{EXACT}.format", "qnn_context", "coreml", "coreai", "executorch"
    )
    corpus.values("G2", "sticker", f"{PHONE}.format", "onnx", "coreml", "executorch")
    corpus.values("G2", "sticker", f"{PACKAGE}.format", "onnx", "executorch")
    corpus.values("G2", "sticker", f"{XNNPACK}.format", "onnx", "coreml")
    corpus.values("G2", "sticker", f"{XNNPACK}.delegate", None)
    for variant in (EXACT, PHONE, PACKAGE):
        corpus.values("G2", "sticker", f"{variant}.delegate", "xnnpack", "coreml", "qnn")
    corpus.values("G2", "sticker", f"{PHONE}.chip", None)
    for variant in (EXACT, PACKAGE, XNNPACK):
        corpus.values("G2", "sticker", f"{variant}.chip", SM8650)
    corpus.wrong(
        "G2",
        "sticker",
        "delegate qnn without a chip",
        f"{XNNPACK}.chip",
        put(f"{XNNPACK}.delegate", "qnn"),
    )
    corpus.wrong(
        "G2",
        "sticker",
        "delegate coreml with a chip",
        f"{XNNPACK}.chip",
        put(f"{XNNPACK}.chip", SM8650),
        put(f"{XNNPACK}.delegate", "coreml"),
    )
    corpus.values("G2", "sticker", f"{PACKAGE}.deployment_target", None)
    for variant in (EXACT, PHONE, XNNPACK):
        corpus.values("G2", "sticker", f"{variant}.deployment_target", "iOS18")
        corpus.values("G2", "sticker", f"{variant}.function", "main")


def _models(corpus: Malformed) -> None:
    folder = "components/unet/iphone-coreml-w8"
    for variant, model in (
        (EXACT, "components/unet/onnx-fp32/other.onnx"),
        (EXACT, "components/unet/onnx-fp32"),
        (EXACT, "licences/MIT.txt"),
        (EXACT, "components/text_encoder/onnx-fp32/model.onnx"),
        (PHONE, "components/unet/snapdragon-sm8650-w8a16/model.onnx"),
        (XNNPACK, "components/unet/executorch-xnnpack-w8a8/model"),
        (PACKAGE, f"{folder}/Other.mlpackage"),
        (PACKAGE, f"{folder}/Unet.mlpackag"),
        (PACKAGE, f"{folder}/Unet.mlpackage/Manifest.json"),
        (PACKAGE, f"{folder}/unet.mlpackage"),
    ):
        corpus.values("G3", "sticker", f"{variant}.model", model)
    corpus.wrong(
        "G3",
        "sticker",
        "a file twice",
        f"{EXACT}.files",
        copied(f"{EXACT}.files[1]", f"{EXACT}.files[0]"),
    )
    corpus.wrong(
        "G3",
        "sticker",
        "two files of weights",
        f"{XNNPACK}.files",
        copied(f"{XNNPACK}.files[2]", f"{XNNPACK}.files[1]"),
        put(f"{XNNPACK}.files[2].path", "components/unet/executorch-xnnpack-w8a8/more.ptd"),
    )


def _storage(corpus: Malformed) -> None:
    plain, scaled = f"{EXACT}.inputs[0]", f"{PHONE}.inputs[0]"
    corpus.values("G4", "sticker", f"{plain}.dtype", None, "float64", "bool", "int4", 1, "Float32")
    corpus.values("G4", "sticker", f"{scaled}.scale", 0, -1, 1e-46, 2**-150)
    corpus.values("G4", "sticker", f"{scaled}.zero_point", -1, 65536)
    corpus.values("G4", "sticker", f"{scaled}.scale", None, where=scaled)
    corpus.values("G4", "sticker", f"{scaled}.zero_point", None, where=scaled)
    corpus.values("G4", "sticker", f"{plain}.scale", 1, where=plain)
    corpus.values("G4", "sticker", f"{plain}.zero_point", 0, where=plain)
    for dtype in ("float32", "float16", "int64"):
        corpus.wrong(
            "G4",
            "sticker",
            f"{dtype} with a scale",
            f"{plain}.scale",
            put(f"{plain}.dtype", dtype),
            put(f"{plain}.scale", 1),
            put(f"{plain}.zero_point", 0),
        )
    for dtype, low, high in (
        ("uint8", 0, 255),
        ("int8", -128, 127),
        ("int16", -32768, 32767),
        ("int32", -(2**31), 2**31 - 1),
    ):
        for point in (low - 1, high + 1):
            corpus.wrong(
                "G4",
                "sticker",
                f"{dtype} with the zero point {point}",
                f"{scaled}.zero_point",
                put(f"{scaled}.dtype", dtype),
                put(f"{scaled}.zero_point", point),
            )
    corpus.values("G5", "sticker", f"{plain}.dtype", "int32", "uint8", "uint16", "int8", "int16")
    ids = "components.text_encoder.variants[0].inputs[0]"
    corpus.values(
        "G5", "sticker", f"{ids}.dtype", "float32", "float16", "uint8", "uint16", "int8", "int16"
    )
    frames = "components.vae_decoder.variants[0].outputs[0]"
    corpus.values("G5", "sticker", f"{frames}.dtype", "int64", "uint16", "int8", "int16")
    for path, dtype in ((ids, "int32"), (frames, "uint8")):
        corpus.wrong(
            "G5",
            "sticker",
            f"{dtype} with a scale in {path}",
            f"{path}.dtype",
            put(f"{path}.dtype", dtype),
            put(f"{path}.scale", 1),
            put(f"{path}.zero_point", 0),
        )


def _elements(corpus: Malformed) -> None:
    for name, shape in (
        ("2^30 and one", [2**30 + 1]),
        ("2^31 - 1", [2**31 - 1]),
        ("2^62", [2**31 - 1] * 2),
        ("2^64", [2**16] * 4),
        ("2^248", [2**31 - 1] * 8),
    ):
        corpus.wrong(
            "G6",
            "sticker",
            f"a tensor of {name}",
            "components.unet",
            put("components.unet.inputs[0].shape", shape),
        )
        corpus.wrong(
            "G6",
            "neodragon",
            f"a table of {name}",
            "tables.positions_0",
            put("tables.positions_0.shape", shape),
        )
        corpus.wrong(
            "G6",
            "sticker",
            f"noise of {name}",
            "programs[0].operations[2]",
            put("programs[0].operations[2].shape", shape),
        )
    video, clip = "programs[0].video", "programs[0].inputs.clip"
    corpus.wrong(
        "G6",
        "sticker",
        "a large video",
        video,
        put(f"{video}.frames", 4096),
        put(f"{video}.width", 8192),
        put(f"{video}.height", 8192),
    )
    corpus.wrong(
        "G6",
        "sticker",
        "a video of 2^30 pixels",
        video,
        put(f"{video}.frames", 1024),
        put(f"{video}.width", 1024),
        put(f"{video}.height", 1024),
    )
    corpus.wrong(
        "G6",
        "upscale",
        "a large clip",
        clip,
        put(f"{clip}.frames", 4096),
        put(f"{clip}.width", 8192),
        put(f"{clip}.height", 8192),
    )
    loop = "programs[0].operations[0]"
    collected = f"{loop}.collected.frame_out"
    corpus.wrong(
        "G6",
        "upscale",
        "what a loop collects",
        collected,
        put(f"{loop}.count", 65536),
        put(f"{loop}.operations[0].start", 0),
    )
    first = "programs[0].operations[9]"
    corpus.wrong(
        "G6",
        "neodragon",
        "what nearest makes",
        f"{first.replace('9', '10')}",
        put(f"{first}.method", "nearest"),
        put(f"{first}.factor", 16),
        put(f"{first.replace('9', '10')}.method", "nearest"),
        put(f"{first.replace('9', '10')}.factor", 16),
        put("programs[0].operations[8].shape", [1, 16, 64, 64]),
    )


def _runtimes(corpus: Malformed) -> None:
    twin = copied(f"{UNET}[4]", PHONE)
    corpus.wrong("G7", "sticker", "a twin", f"{UNET}[4]", twin, put(f"{UNET}[4].id", "twin"))
    for name, variant, key, value in (
        ("deployment_target", 2, "deployment_target", "iOS26"),
        ("compute_unit", 2, "compute_unit", "ALL"),
        ("htp_arch", 1, "chip", SM8650 | {"htp_arch": 73}),
        ("pack", 1, "pack", None),
    ):
        corpus.wrong(
            "G7",
            "sticker",
            f"variants that differ in {name} alone",
            f"{UNET}[4]",
            copied(f"{UNET}[4]", f"{UNET}[{variant}]"),
            put(f"{UNET}[4].id", "twin"),
            put(f"{UNET}[4].{key}", value),
        )
    corpus.wrong(
        "G7",
        "sticker",
        "the same for any machine",
        f"{UNET}[4]",
        copied(f"{UNET}[4]", EXACT),
        put(f"{UNET}[4].id", "again"),
    )
    requires = f"{PHONE}.requires"
    corpus.values(
        "G9",
        "sticker",
        f"{requires}.qairt",
        "",
        "2.",
        ".51",
        "2..51",
        "2.51.0.1.2",
        "v2",
        "2.51-rc",
        "2,51",
        " 2",
        "1234567890",
        "-1",
        "2.5a",
    )
    corpus.values("D10", "sticker", f"{requires}.qairt", 2.51, None, "2\n")
    for name in ("coreml", "QAIRT", "qnn", "android"):
        corpus.wrong("G9", "sticker", f"requires {name}", requires, put(f"{requires}.{name}", "1"))


def _sets(corpus: Malformed) -> None:
    variants = "sets[0].variants"
    corpus.wrong(
        "G10",
        "sticker",
        "a component that is not there",
        f"{variants}.vae",
        put(f"{variants}.vae", "onnx-fp32"),
    )
    corpus.values("G10", "sticker", f"{variants}.unet", "other", "onnx")
    corpus.wrong("G10", "sticker", "an id twice", "sets[1]", put("sets[1].id", "onnx-fp32"))
    corpus.wrong(
        "G10",
        "sticker",
        "equal sets",
        "sets[4]",
        copied("sets[4]", "sets[1]"),
        put("sets[4].id", "again"),
    )
    corpus.wrong(
        "G11",
        "sticker",
        "no set has all",
        "programs[0]",
        put(
            "sets", [{"id": "half", "variants": {"unet": "onnx-fp32", "vae_decoder": "onnx-fp32"}}]
        ),
    )
    corpus.wrong(
        "G11",
        "upscale",
        "a component that nothing runs",
        "components.spare",
        copied("components.spare", "components.upscaler"),
    )
    corpus.wrong(
        "G11",
        "several_sizes",
        "no set for the second program",
        "programs[1]",
        *({"at": ["sets", n, "variants", "unet.64x96"], "delete": True} for n in (0, 1)),
    )
    for key, value in (("slug", "sm8750"), ("htp_arch", 79), ("soc_model", 69)):
        path = f"components.vae_decoder.variants[1].chip.{key}"
        corpus.wrong("G12", "sticker", f"chips of different {key}", "sets[1]", put(path, value))
    corpus.wrong(
        "G12",
        MOTION,
        "graphs for two chips",
        "sets[0]",
        put("components.conditioning.variants[1].chip.slug", "sm8750"),
    )
