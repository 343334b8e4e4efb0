"""Components, variants, sets and records that are odd but right."""

from __future__ import annotations

from corpus.cases import Accepted, copied, drop, put
from corpus.places import EXACT, PACKAGE, PHONE, UNET, XNNPACK


def add_graphs(corpus: Accepted) -> None:
    """Add cases of components, sets and records."""
    scaled, plain = f"{PHONE}.inputs[0]", f"{EXACT}.inputs[0]"
    for dtype, points in {
        "uint8": (0, 255),
        "uint16": (0, 65535),
        "int8": (-128, 127),
        "int16": (-32768, 32767),
        "int32": (-(2**31), 2**31 - 1),
    }.items():
        for point in points:
            corpus.right(
                "sticker",
                f"{dtype} with the zero point {point}",
                put(f"{scaled}.dtype", dtype),
                put(f"{scaled}.zero_point", point),
            )
    for dtype in ("float16", "int64"):
        corpus.right("sticker", f"a real as {dtype}", put(f"{plain}.dtype", dtype))
    frames = "components.vae_decoder.variants[0].outputs[0].dtype"
    for dtype in ("float16", "float32", "int32"):
        corpus.right("sticker", f"pixels as {dtype}", put(frames, dtype))
    ids = "components.text_encoder.variants[0].inputs[0].dtype"
    corpus.right("sticker", "integers as int32", put(ids, "int32"))
    corpus.right(
        "sticker",
        "reals and integers as int64 in a compiled program",
        put("components.text_encoder.variants[3].inputs[0].dtype", "int64"),
        put(f"{XNNPACK}.inputs[1].dtype", "int64"),
        put(f"{XNNPACK}.outputs[0].dtype", "int64"),
    )
    corpus.right(
        "sticker",
        "tensors of a variant in another order",
        copied(f"{EXACT}.inputs[3]", plain),
        drop(plain),
    )
    for version in ("0", "2", "2.51", "1.2.3.4", "000000002.0", "999999999.999999999"):
        corpus.right("sticker", f"qairt {version}", put(f"{PHONE}.requires.qairt", version))
    corpus.right("sticker", "a chip without a version of qairt", drop(f"{PHONE}.requires.qairt"))
    for system in ("iOS1", "iOS99", "iOS999"):
        corpus.right("sticker", f"the system {system}", put(f"{PACKAGE}.deployment_target", system))
    for system in (None, "iOS18"):
        corpus.right(
            "sticker",
            f"the delegate coreml with the system {system}",
            put(f"{XNNPACK}.delegate", "coreml"),
            put(f"{XNNPACK}.deployment_target", system),
        )
    corpus.right("sticker", "a function of a package", put(f"{PACKAGE}.function", "main"))
    corpus.right(
        "sticker",
        "two functions of a package",
        copied(f"{UNET}[4]", PACKAGE),
        put(f"{UNET}[4].function", "large"),
        put(f"{UNET}[4].id", "large"),
    )
    corpus.right("sticker", "no weights beside a program", drop(f"{XNNPACK}.files[1]"))
    corpus.right(
        "sticker",
        "a file of any format beside a graph",
        put(
            f"{EXACT}.files[1]",
            {"path": "components/unet/onnx-fp32/a.ptd", "bytes": 0, "sha256": "0" * 64},
        ),
        put(
            f"{EXACT}.files[2]",
            {"path": "components/unet/onnx-fp32/b.ptd", "bytes": 0, "sha256": "0" * 64},
        ),
    )
    corpus.right(
        "sticker",
        "a file that all variants share",
        *(
            copied(f"{UNET}[{n}].files[{m}]", "licences[0].text_file")
            for n, m in ((0, 1), (2, 3), (3, 2))
        ),
    )
    corpus.right(
        "sticker",
        "a set of one component",
        {"at": ["sets", 4], "set": {"id": "half", "variants": {"unet": "onnx-fp32"}}},
    )
    corpus.right(
        "sticker",
        "a set of all targets",
        {
            "at": ["sets", 0],
            "set": {
                "id": "mixed",
                "variants": {
                    "text_encoder": "onnx-fp32",
                    "unet": "snapdragon-sm8650-w8a16",
                    "vae_decoder": "iphone-coreml-w8",
                },
            },
        },
        put("verification[1].variant", "mixed"),
    )
    exact, program = "onnx-fp32", "executorch-xnnpack-w8a8"
    corpus.right(
        "sticker",
        "sets of the same ids, in other components each",
        {
            "at": ["sets", 4],
            "set": {
                "id": "first",
                "variants": {"text_encoder": exact, "unet": program, "vae_decoder": exact},
            },
        },
        {
            "at": ["sets", 5],
            "set": {
                "id": "second",
                "variants": {"text_encoder": program, "unet": exact, "vae_decoder": exact},
            },
        },
    )
    corpus.right(
        "sticker",
        "an id that is another variant in each component, and a set",
        put("components.text_encoder.variants[2].id", "a"),
        put("sets[2].variants.text_encoder", "a"),
        put(f"{EXACT}.id", "a"),
        put("sets[0].variants.unet", "a"),
        put("components.vae_decoder.variants[3].id", "a"),
        put("sets[3].variants.vae_decoder", "a"),
        put("sets[3].id", "a"),
        put("verification[1].variant", "a"),
    )
    corpus.right("sticker", "nothing verified", put("verification", []), put("costs", {}))
    for name, *edits in (
        ("exactly the floor", put("verification[0].value_db", 40)),
        ("failed", put("verification[0].value_db", 39.9), put("verification[0].passed", False)),
        ("of step 999", put("verification[0].step", 999)),
        ("identical, with a floor of 10000", put("verification[1].floor_db", 10000)),
    ):
        corpus.right("sticker", f"a record {name}", *edits)
