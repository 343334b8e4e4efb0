"""What is refused of documents of versions 1 and 2, beside what version 3 refuses of both."""

from __future__ import annotations

from corpus.cases import Malformed, copied, drop, put, rename
from corpus.places import IMAGE_1, IMAGE_2, TEXT_1, TEXT_2, UNET

IDS = "sampler.conditioning.added_time_ids"


def add_older(corpus: Malformed) -> None:
    """Add cases of section 10."""
    _words(corpus)
    _parts(corpus)
    _pictures(corpus)
    _values(corpus)


def _words(corpus: Malformed) -> None:
    variant = f"{UNET}[1]"
    for key, value in (
        ("format", "onnx"),
        ("delegate", None),
        ("deployment_target", None),
        ("function", None),
        ("pack", None),
        ("requires", {}),
    ):
        corpus.wrong("D9", TEXT_1, f"version 1 with {key}", variant, put(f"{variant}.{key}", value))
    for key in ("pack", "requires", "delegation"):
        corpus.wrong("D9", TEXT_2, f"version 2 with {key}", variant, put(f"{variant}.{key}", None))
    for key in ("format", "delegate", "deployment_target", "function", "residency", "chip"):
        corpus.wrong(
            "D9", TEXT_2, f"version 2 without {key}", f"{variant}.{key}", drop(f"{variant}.{key}")
        )
    for key in ("residency", "chip", "tools"):
        corpus.wrong(
            "D9", TEXT_1, f"version 1 without {key}", f"{variant}.{key}", drop(f"{variant}.{key}")
        )
    for base in (TEXT_1, TEXT_2):
        for key in ("programs", "sets", "tables", "packs", "samplers", "tokenizers"):
            corpus.wrong("D9", base, f"{base} with {key}", "", put(key, {}))
        for key in ("task", "video", "latents", "sampler", "tokenizer", "components", "costs"):
            corpus.wrong("D9", base, f"{base} without {key}", key, drop(key))
        corpus.wrong(
            "D9",
            base,
            f"{base} whose component has a role",
            "components.unet",
            put("components.unet.role", "denoiser"),
        )
        corpus.wrong(
            "D9",
            base,
            f"{base} with an adjustable sampler",
            "sampler",
            put("sampler.adjustable", True),
        )
        corpus.wrong(
            "D9", base, f"{base} with too_long", "tokenizer", put("tokenizer.too_long", "cut")
        )
    corpus.wrong(
        "D9",
        TEXT_1,
        "version 1 with a basis",
        f"{variant}.residency",
        put(f"{variant}.residency.basis", "compiler"),
    )
    corpus.wrong(
        "D9",
        TEXT_2,
        "version 2 without a basis",
        f"{variant}.residency.basis",
        drop(f"{variant}.residency.basis"),
    )
    corpus.wrong("D9", "upscale", "version 3 called 2", "task", put("format_version", 2))
    corpus.wrong("D9", TEXT_2, "version 2 called 3", "programs", put("format_version", 3))
    corpus.wrong(
        "D9",
        TEXT_1,
        "version 1 called 2",
        "components.text_encoder.variants[0].format",
        put("format_version", 2),
    )
    corpus.wrong(
        "D9",
        TEXT_2,
        "version 2 called 1",
        "components.text_encoder.variants[0]",
        put("format_version", 1),
    )
    corpus.values("D10", TEXT_1, f"{variant}.target", "iphone", "executorch", "android")
    corpus.values("D10", TEXT_1, f"{variant}.precision", "w8a8", "w8", "w6", "w4")
    corpus.values("D10", TEXT_1, f"{variant}.compute_unit", "ALL")
    for base in (TEXT_1, TEXT_2):
        corpus.wrong("D10", base, f"{base} of the task upscale", "task", put("task", "upscale"))
        for kind in ("euler_ancestral", "ddim"):
            corpus.wrong(
                "D10", base, f"{base} with {kind}", "sampler.kind", put("sampler.kind", kind)
            )
        corpus.wrong(
            "D10",
            base,
            f"{base} with clip_bpe",
            "tokenizer.kind",
            put("tokenizer.kind", "clip_bpe"),
        )
        corpus.wrong(
            "D10",
            base,
            f"{base} with 65 letters of padding",
            "tokenizer.pad_token",
            put("tokenizer.pad_token", "a" * 65),
        )
        corpus.wrong(
            "D10",
            base,
            f"{base} with two nodes on the CPU",
            f"{variant}.residency.cpu_nodes",
            put(f"{variant}.residency.cpu_nodes", 2),
        )
        corpus.wrong(
            "D12",
            base,
            f"{base} of 17 components",
            "components",
            put("components", {f"n{number}": None for number in range(17)}),
        )
        corpus.wrong("P1", base, f"{base} as video_to_video", "task", put("task", "video_to_video"))


def _parts(corpus: Malformed) -> None:
    for base in (TEXT_1, TEXT_2):
        _lack(corpus, base, "text_encoder", "vae_decoder")
        corpus.wrong("G11", base, f"{base} without denoiser", "components", drop("components.unet"))
        corpus.wrong(
            "G11",
            base,
            f"{base} with two denoisers",
            "components",
            copied("components.transformer", "components.unet"),
        )
        corpus.wrong("P9", base, f"{base} without tokenizer", "tokenizer", put("tokenizer", None))
        corpus.wrong(
            "G11",
            base,
            f"{base} where nothing goes together",
            "components",
            *(put(f"components.vae_decoder.variants[{n}].precision", "fp16") for n in range(2)),
            *(() if base == TEXT_1 else (drop("components.vae_decoder.variants[2]"),) * 5),
        )
        for name, where, edit in (
            ("another shape", f"{UNET}[1].inputs", put(f"{UNET}[1].inputs[0].shape[0]", 4)),
            ("another name", f"{UNET}[1].inputs", put(f"{UNET}[1].inputs[0].name", "x")),
            ("a tensor less", f"{UNET}[1].inputs", drop(f"{UNET}[1].inputs[1]")),
            ("a tensor twice", f"{UNET}[0].inputs", put(f"{UNET}[0].inputs[1].name", "sample")),
        ):
            corpus.wrong("G1", base, f"{base} with {name} in a variant", where, edit)
        corpus.wrong(
            "D12",
            base,
            f"{base} with a tensor of 9 axes",
            f"{UNET}[0].inputs[0].shape",
            put(f"{UNET}[0].inputs[0].shape", [1] * 9),
        )
        corpus.wrong(
            "D12",
            base,
            f"{base} with latents of three sizes",
            "latents.shape",
            put("latents.shape", [8, 16, 8]),
        )
        corpus.wrong(
            "D10",
            base,
            f"{base} with latents of 65537",
            "latents.shape[0]",
            put("latents.shape[0]", 65537),
        )


def _lack(corpus: Malformed, base: str, *parts: str) -> None:
    for part in parts:
        place = f"components.{part}"
        corpus.wrong("G11", base, f"{base} without {part}", place, drop(place))


def _pictures(corpus: Malformed) -> None:
    for base in (IMAGE_1, IMAGE_2):
        _lack(corpus, base, "image_encoder", "vae_encoder", "vae_decoder")
        corpus.wrong(
            "P1",
            base,
            f"{base} with a text encoder",
            "components",
            copied("components.text_encoder", "components.image_encoder"),
        )
        corpus.wrong(
            "P9",
            base,
            f"{base} with a tokenizer",
            "tokenizer",
            put(
                "tokenizer",
                {
                    "kind": "wordpiece",
                    "file": {"path": "a", "bytes": 1, "sha256": "0" * 64},
                    "max_length": 6,
                    "pad_token": "[PAD]",
                    "unk_token": "[UNK]",
                },
            ),
        )
        corpus.wrong("P10", base, f"{base} without defaults", IDS, drop(IDS))
        corpus.wrong("P10", base, f"{base} with two defaults", IDS, put(IDS, [6, 127]))
        for name, values in (
            ("60 frames", [60, 127, 0]),
            ("no frames", [-0.5, 127, 0]),
            ("much motion", [6, 256, 0]),
            ("half a motion", [6, 1.5, 0]),
            ("much noise", [6, 127, 1.5]),
            ("noise below 0", [6, 127, -0.1]),
        ):
            corpus.wrong("P2", base, f"{base} with {name}", IDS, put(IDS, values))
        for name in ("encoder_hidden_states", "image_latents", "sample", "timestep", "motion"):
            corpus.wrong(
                "P11",
                base,
                f"{base} with constant {name}",
                f"sampler.conditioning.{name}",
                put(f"sampler.conditioning.{name}", [0]),
            )


def _values(corpus: Malformed) -> None:
    extra = {"name": "extra", "shape": [1], "dtype": "float32", "scale": None, "zero_point": None}
    for base, variants in ((TEXT_1, 2), (TEXT_2, 7)):
        for name in ("extra", "start", "picture_noise"):
            corpus.wrong(
                "P11",
                base,
                f"{base} with an input {name} that nothing feeds",
                "components.unet.inputs",
                *(put(f"{UNET}[{n}].inputs[3]", extra | {"name": name}) for n in range(variants)),
            )
        corpus.wrong(
            "P5",
            base,
            f"{base} with a decoder of three frames",
            "components.vae_decoder.latents",
            *(
                put(f"components.vae_decoder.variants[{n}].inputs[0].shape[0]", 3)
                for n in range(variants)
            ),
        )
        corpus.wrong(
            "S2",
            base,
            f"{base} with a last sigma above 0",
            "sampler.schedules.4.sigmas[4]",
            put("sampler.schedules.4.sigmas[4]", 0.01),
        )
        corpus.wrong(
            "S2",
            base,
            f"{base} with rising sigmas",
            "samplers.main.schedules.2.sigmas",
            put("sampler.schedules.2.sigmas", [0.5, 0.75, 0]),
        )
        corpus.wrong(
            "S1",
            base,
            f"{base} with epsilon",
            "samplers.main.prediction_type",
            put("sampler.prediction_type", "epsilon"),
        )
        corpus.wrong(
            "P5",
            base,
            f"{base} with a video of another width",
            "programs[0].output",
            put("video.width", 128),
        )
        corpus.wrong(
            "R2",
            base,
            f"{base} that verified no component",
            "verification[0].component",
            put("verification[0].component", "other"),
        )
        corpus.wrong(
            "R2",
            base,
            f"{base} that verified no variant",
            "verification[0].variant",
            put("verification[0].variant", "other"),
        )
        corpus.wrong(
            "D10",
            base,
            f"{base} with a clip of no text as id",
            "verification[1].variant",
            put("verification[1].variant", 1),
        )
        timestep = f"{UNET}[0].inputs[1]"
        for key, value in (("scale", 1), ("zero_point", 5), ("zero_point", 0)):
            corpus.wrong(
                "G4",
                base,
                f"{base} with a real as uint8 and a {key} of {value} alone",
                timestep,
                put(f"{timestep}.dtype", "uint8"),
                put(f"{timestep}.{key}", value),
            )
        corpus.wrong(
            "R2",
            base,
            f"{base} with costs of nothing",
            "costs.other",
            rename("costs.unet", "other"),
        )
        corpus.wrong(
            "D10",
            base,
            f"{base} with a record that is no object",
            "verification[0]",
            put("verification[0]", "unet"),
        )
        corpus.wrong(
            "D10",
            base,
            f"{base} with a list as component of a record",
            "verification[0].component",
            put("verification[0].component", []),
        )
        corpus.wrong(
            "D10",
            base,
            f"{base} with a list as id",
            "components.text_encoder.variants[0].id",
            put("components.text_encoder.variants[0].id", []),
        )
    ids = "components.text_encoder.variants[0].inputs[0].dtype"
    for base in (TEXT_1, TEXT_2):
        corpus.wrong("G5", base, f"{base} with tokens as uint8", ids, put(ids, "uint8"))
        corpus.wrong("G5", base, f"{base} with tokens as float16", ids, put(ids, "float16"))
    corpus.wrong(
        "G7",
        TEXT_1,
        "version 1 with a twin",
        f"{UNET}[2]",
        copied(f"{UNET}[2]", f"{UNET}[1]"),
        put(f"{UNET}[2].id", "twin"),
    )
