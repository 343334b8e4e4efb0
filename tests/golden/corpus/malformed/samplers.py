"""What is refused of samplers: rules S."""

from __future__ import annotations

from corpus.cases import Malformed, put
from corpus.places import MOTION


def add_samplers(corpus: Malformed) -> None:
    """Add cases of the rules S."""
    main = "samplers.main"
    kind = f"{main}.prediction_type"
    for base, wrong in (
        ("sticker", ("epsilon", "v_prediction")),
        ("video_to_video", ("epsilon", "v_prediction")),
        ("animator", ("velocity",)),
        (MOTION, ("velocity",)),
        ("fairy_batch", ("velocity",)),
    ):
        for value in wrong:
            corpus.wrong("S1", base, f"{value} in {base}", kind, put(kind, value))
    corpus.wrong(
        "S1",
        "video_ldm_cascade",
        "velocity for lcm",
        "samplers.keys.prediction_type",
        put("samplers.keys.prediction_type", "velocity"),
    )
    two = f"{main}.schedules.2.sigmas"
    for name, values in (
        ("rising", [0.5, 0.75, 0]),
        ("level", [0.5, 0.5, 0]),
        ("level in float32", [1, 1 - 1e-12, 0]),
        ("0 in float32", [1, 1e-60, 0]),
        ("not ending at 0", [1, 0.5, 0.25]),
        ("ending just above 0", [1, 0.5, 1e-30]),
        ("0 twice", [1, 0, 0]),
    ):
        corpus.wrong("S2", "sticker", name, two, put(two, values))
    corpus.wrong("S2", "animator", "rising, of another kind", two, put(two, [4, 700, 0]))
    keys = "samplers.keys.schedules.4.sigmas"
    corpus.wrong(
        "S2", "video_ldm_cascade", "lcm not ending at 0", keys, put(keys, [4, 3, 2, 1, 0.5])
    )
    for name, values in (("above 1", [700, 0.5, 0]), ("just above 1", [1.0000002, 0.5, 0])):
        corpus.wrong("S3", "sticker", name, two, put(two, values))
        corpus.wrong("S3", "video_to_video", f"{name} for flow_consistency", two, put(two, values))
