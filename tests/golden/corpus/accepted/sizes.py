"""Documents of the largest size, depth and count."""

from __future__ import annotations

from typing import Any

from corpus.cases import MANIFESTS, Accepted, fill, nest, repeat, swap, values_of
from corpus.places import IMAGE_2, TEXT_1, TEXT_2


def _deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def add_sizes(corpus: Accepted) -> None:
    """Add cases of whole documents."""
    golden = (MANIFESTS / "upscale.json").read_text(encoding="utf-8")
    values = fill("x-a", 0, 262_144 - values_of("upscale") - 1)
    corpus.right("upscale", "262144 values", values)
    for base in (TEXT_1, IMAGE_2, TEXT_2):
        newest = base.replace("version", "upgraded")
        older, newer = values_of(base), values_of(newest)
        when = "as one of version 3" if newer > older else "before it is one of version 3"
        values = fill("x-a", 0, 262_144 - max(older, newer) - 1)
        corpus.upgraded(base, f"{base} of 262144 values {when}", values, changes=(values,))
    corpus.right("upscale", "32 levels", nest("x-a", 31))
    size = (4 << 20) - len(golden.encode())
    corpus.same("upscale", "4 MiB", swap("\n}\n", "\n}\n@"), swap("@", " ", size))
    corpus.right("upscale", "too long for indentation", fill("x-a", _deep(26), 3000))
    corpus.right("upscale", "a text of 4 MiB", repeat("x-a", "a", (4 << 20) - 20_000))
