"""What is refused of costs and verification: rules R."""

from __future__ import annotations

from corpus.cases import Malformed, put, rename
from corpus.places import MOTION


def add_records(corpus: Malformed) -> None:
    """Add cases of the rules R."""
    corpus.values("R1", "sticker", "verification[0].passed", False)
    corpus.values("R1", "sticker", "verification[1].passed", False)
    for key, value in (("value_db", 39.999), ("floor_db", 45.2500001), ("value_db", -10000)):
        corpus.wrong(
            "R1",
            "sticker",
            f"passed with {key} {value}",
            "verification[0].passed",
            put(f"verification[0].{key}", value),
        )
    corpus.values("R2", "sticker", "verification[0].component", "vae", "End_to_end")
    corpus.values("R2", "sticker", "verification[0].variant", "other", "onnx", "sm8650")
    corpus.values("R2", "sticker", "verification[1].variant", "unet")
    corpus.wrong("R2", "sticker", "costs of no component", "costs.vae", rename("costs.unet", "vae"))
    corpus.wrong(
        "R2", "sticker", "costs of all", "costs.end_to_end", rename("costs.unet", "end_to_end")
    )
    corpus.wrong(
        "R2",
        MOTION,
        "the variant of a component as a set",
        "verification[0].variant",
        {
            "at": ["verification", 0],
            "set": {
                "component": "end_to_end",
                "variant": "snapdragon-sm8650-w8a16",
                "case": "a",
                "step": None,
                "metric": "psnr",
                "value_db": None,
                "floor_db": 1,
                "passed": True,
                "measured_on": "a",
                "reference": "a",
            },
        },
    )
    corpus.wrong(
        "R2",
        "upscale",
        "a component called as all are",
        "components.end_to_end",
        rename("components.upscaler", "end_to_end"),
        rename("sets[0].variants.upscaler", "end_to_end"),
        rename("sets[1].variants.upscaler", "end_to_end"),
        rename("sets[2].variants.upscaler", "end_to_end"),
        put("programs[0].operations[0].operations[1].component", "end_to_end"),
    )
