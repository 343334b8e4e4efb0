"""Documents of versions 1 and 2, and what they are in version 3."""

from __future__ import annotations

from corpus.cases import Accepted, copied, drop, put, rename
from corpus.places import IMAGE_1, IMAGE_2, SAMPLE, TEXT_1, TEXT_2, UNET


def add_older(corpus: Accepted) -> None:
    """Add cases of section 10."""
    for base in (TEXT_1, IMAGE_1, TEXT_2, IMAGE_2):
        corpus.upgraded(base, base)
        corpus.upgraded(base, f"{base} without white space", copied("name", "name"))
        corpus.upgraded(
            base,
            f"{base} with a component that nothing runs",
            put("components.safety_checker", {"variants": "of another kind"}),
        )
        corpus.upgraded(
            base,
            f"{base} with costs of a component that nothing runs",
            put("components.spare", None),
            put("costs.spare", {"flops": "many"}),
        )
        record = {"component": "spare", "variant": "any", "further": None}
        count = {IMAGE_1: 1, IMAGE_2: 1}.get(base, 2)
        corpus.upgraded(
            base,
            f"{base} with a record of a component that nothing runs",
            put("components.spare", []),
            put(f"verification[{count}]", record),
        )
        corpus.upgraded(
            base, f"{base} with a key x-", put("x-more", [1]), changes=(put("x-more", [1]),)
        )
    for base in (TEXT_1, TEXT_2):
        corpus.upgraded(
            base,
            f"{base} with tokens of other names",
            put("tokenizer.pad_token", "<pad>"),
            put("tokenizer.unk_token", "?"),
        )
        timestep = f"{UNET}[0].inputs[1]"
        corpus.upgraded(
            base,
            f"{base} with a real as int32",
            put(f"{timestep}.dtype", "int32"),
            changes=(
                put(f"{timestep}.dtype", "int32"),
                put(f"{timestep}.scale", 1),
                put(f"{timestep}.zero_point", 0),
            ),
        )
        corpus.upgraded(
            base,
            f"{base} with a real as int64",
            put(f"{timestep}.dtype", "int64"),
            changes=(put(f"{timestep}.dtype", "int64"),),
        )
        corpus.upgraded(
            base,
            f"{base} with sets in the order of the first component",
            copied(
                "components.text_encoder.variants[9]".replace("9", "2" if base == TEXT_1 else "7"),
                "components.text_encoder.variants[0]",
            ),
            drop("components.text_encoder.variants[0]"),
            changes=(
                copied(
                    "components.text_encoder.variants[9]".replace(
                        "9", "2" if base == TEXT_1 else "7"
                    ),
                    "components.text_encoder.variants[0]",
                ),
                drop("components.text_encoder.variants[0]"),
                copied("sets[9]".replace("9", "2" if base == TEXT_1 else "7"), "sets[0]"),
                drop("sets[0]"),
            ),
        )
        for identifier in ("spare", "nobody"):
            corpus.upgraded(
                base,
                f"{base} with a clip of a set that is not there, {identifier}",
                put("components.safety_checker", {"variants": [{"id": "spare"}]}),
                put("verification[1].variant", identifier),
                changes=(drop("verification[1]"),),
            )
        corpus.upgraded(
            base,
            f"{base} with a variant that one component has alone",
            put("components.vae_decoder.variants[1].precision", "fp16"),
            changes=(put("components.vae_decoder.variants[1].precision", "fp16"), drop("sets[1]")),
        )
        corpus.upgraded(
            base,
            f"{base} with a clip that an incomplete set made",
            put("components.vae_decoder.variants[0].precision", "fp16"),
            changes=(
                put("components.vae_decoder.variants[0].precision", "fp16"),
                drop("sets[0]"),
                drop("verification[1]"),
            ),
        )
    corpus.upgraded(
        TEXT_2,
        "version 2 with two functions of a package",
        copied(f"{UNET}[7]", f"{UNET}[2]"),
        put(f"{UNET}[7].function", "large"),
        put(f"{UNET}[7].id", "large"),
        changes=(
            copied(f"{UNET}[7]", f"{UNET}[2]"),
            put(f"{UNET}[7].function", "large"),
            put(f"{UNET}[7].id", "large"),
        ),
    )
    corpus.upgraded(
        TEXT_1,
        "version 1 with a variant of another id",
        put("components.vae_decoder.variants[0].id", "decoder"),
        put("verification[1].variant", "decoder"),
        changes=(
            put("components.vae_decoder.variants[0].id", "decoder"),
            put("sets[0].variants.vae_decoder", "decoder"),
        ),
    )
    corpus.upgraded(
        TEXT_1,
        "version 1 whose denoiser is a transformer",
        rename("components.unet", "transformer"),
        rename("costs.unet", "transformer"),
        put("verification[0].component", "transformer"),
        changes=(
            rename("components.unet", "transformer"),
            rename("costs.unet", "transformer"),
            put("verification[0].component", "transformer"),
            rename("sets[0].variants.unet", "transformer"),
            rename("sets[1].variants.unet", "transformer"),
            put(f"{SAMPLE}.operations[0].component", "transformer"),
        ),
    )
    exact, phone = "onnx-fp32", "snapdragon-sm8650-w8a16"
    swapped = (put(f"{UNET}[0].id", phone), put(f"{UNET}[1].id", exact))
    corpus.upgraded(
        TEXT_1,
        "version 1 with a clip of an id that stands for other variants in other components",
        *swapped,
        put("verification[1].variant", phone),
        changes=(
            *swapped,
            put("sets[0].variants.unet", phone),
            put("sets[1].variants.unet", exact),
            put("verification[1].variant", exact),
        ),
    )
