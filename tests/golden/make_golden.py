"""Write the golden files, from noise to manifests; every runtime's tests read them.

`make_golden.py` writes, `make_golden.py --check` compares and exits with 1 on a difference. Floats
are exact: 64-bit values stand as hexadecimal bits, float32 values as decimals that a double holds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import make_choosing
import make_clip
import make_folders
import make_manifests
import make_picture
import make_quantize_models
import make_sampling
import make_sha256
import make_signature
import make_tokens
import numpy as np
from corpus.accepted import accepted
from corpus.malformed import malformed
from numpy.typing import NDArray

from mvsdk import noise, schedules

GOLDEN = Path(__file__).resolve().parent

SEEDS = (0, 7, 0xFEDCBA9876543210)
LATENTS_SHAPE = (2, 3, 4, 4)
CLIP_SHAPE = (8, 16, 8, 8)

# (seed, stream, offset); the last two start mid-block and cross into the block counter's high word.
DRAWS = (
    *((seed, 0, 0) for seed in SEEDS),
    (7, 1, 0),
    (7, noise.PICTURE_STREAM, 0),
    (2**64 - 1, 2**32 - 1, 5),
    (7, 0, 4 * 2**32 - 2),
)
# (seed, stream, window, offset)
WINDOW_DRAWS = (
    (7, 0, 1, 0),
    (7, 1, 1, 0),
    (7, 3, 2**32 - 1, 0),
    (SEEDS[2], noise.PICTURE_STREAM, 28, 2),
    (2**64 - 1, 2**32 - 1, 2**32 - 1, 4 * 2**32 - 2),
)
PHILOX: tuple[tuple[tuple[int, ...], tuple[int, int]], ...] = (
    ((0, 0, 0, 0), (0, 0)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF, 0xFFFFFFFF)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)),
)
ALL_TERMS = (365899 + 0.5) * 2.0**-32  # its logarithm needs the last term of the series, 2/21
PROBABILITIES = (2**-33, 1e-9, ALL_TERMS, 1e-3, 0.0749, 0.0751, 0.25, 0.5 - 2**-33, 0.9, 1 - 2**-33)
AROUND_SQRT_HALF = (0.7071067811865475, 0.7071067811865476)
LOG_ARGUMENTS = (2**-33, 1e-9, ALL_TERMS, 1e-3, 0.0625, 0.075, 0.5, *AROUND_SQRT_HALF, 10)

SCHEDULES: tuple[tuple[Callable[..., NDArray[Any]], dict[str, Any], bool], ...] = (
    *((schedules.flow_sigmas, {"num_inference_steps": n, "shift": 1.0}, True) for n in (1, 2, 4)),
    *(
        (schedules.flow_sigmas, {"num_inference_steps": 4, "shift": m}, True)
        for m in (3.0, 5.0, 8.0)
    ),
    *(
        (
            schedules.karras_sigmas,
            {"num_inference_steps": n, "sigma_min": 0.002, "sigma_max": 700.0, "rho": 7.0},
            False,
        )
        for n in (1, 4, 25)
    ),
    *((schedules.lcm_timesteps, {"num_inference_steps": n}, True) for n in (1, 2, 4, 8)),
    *((schedules.trailing_timesteps, {"num_inference_steps": n}, True) for n in (1, 2, 4, 8, 16)),
    *(
        (schedules.leading_timesteps, {"num_inference_steps": n, "steps_offset": offset}, True)
        for n, offset in ((1, 0), (1, 1), (4, 1), (7, 1), (10, 1), (50, 0))
    ),
    *((schedules.linspace_timesteps, {"num_inference_steps": n}, True) for n in (1, 2, 5, 8, 10)),
)


def build_noise() -> dict[str, list[dict[str, Any]]]:
    """Draw words, uniforms, normals and latents, with the steps between them."""
    clips = ((seed, noise.initial_latents(seed, CLIP_SHAPE)) for seed in SEEDS)
    return {
        "philox": [
            {
                "counter": _words(counter),
                "key": _words(key),
                "words": _words(
                    np.ravel(
                        noise._philox_4x32_10([np.array([c], np.uint64) for c in counter], key)
                    )
                ),
            }
            for counter, key in PHILOX
        ],
        "logarithm": _pairs("x", "ln", LOG_ARGUMENTS, noise._natural_log),
        "quantile": _pairs("p", "x", PROBABILITIES, noise._normal_quantile),
        "draws": [
            {
                "seed": str(seed),
                "stream": stream,
                "offset": str(offset),
                "uniforms": _bits(noise.uniforms(seed, 10, stream=stream, offset=offset)),
                "normals": _bits(noise.normals(seed, 10, stream=stream, offset=offset)),
            }
            for seed, stream, offset in DRAWS
        ],
        "latents": [
            {
                "seed": str(seed),
                "stream": 0,
                "shape": list(LATENTS_SHAPE),
                "bits": _bits(noise.initial_latents(seed, LATENTS_SHAPE)),
            }
            for seed in SEEDS
        ],
        "latents_sha256": [
            {
                "seed": str(seed),
                "stream": 0,
                "shape": list(CLIP_SHAPE),
                "sha256": make_sampling.sha256(clip),
            }
            for seed, clip in clips
        ],
        "windows": [
            {
                "seed": str(seed),
                "stream": stream,
                "window": window,
                "offset": str(offset),
                "uniforms": _bits(
                    noise.uniforms(seed, 10, stream=stream, window=window, offset=offset)
                ),
                "normals": _bits(
                    noise.normals(seed, 10, stream=stream, window=window, offset=offset)
                ),
            }
            for seed, stream, window, offset in WINDOW_DRAWS
        ],
        "windows_sha256": [
            {
                "seed": str(SEEDS[1]),
                "stream": stream,
                "window": window,
                "shape": list(CLIP_SHAPE),
                "sha256": make_sampling.sha256(
                    noise.initial_latents(SEEDS[1], CLIP_SHAPE, stream=stream, window=window)
                ),
            }
            for stream, window in ((0, 1), (2, 34))
        ],
    }


def build_schedules() -> dict[str, list[dict[str, Any]]]:
    """Compute schedules; `exact` marks those that use no library pow or log."""
    return {
        "schedules": [
            {
                "function": function.__name__,
                "arguments": arguments,
                "exact": is_exact,
                "values": function(**arguments).tolist(),
            }
            for function, arguments, is_exact in SCHEDULES
        ]
    }


def _pairs(
    name: str,
    result_name: str,
    arguments: Sequence[float],
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> list[dict[str, str]]:
    values = np.array(arguments, np.float64)
    results = function(values)
    return [{name: x, result_name: y} for x, y in zip(_bits(values), _bits(results), strict=True)]


def _words(words: Sequence[int] | NDArray[Any]) -> list[str]:
    return [f"{int(word):08x}" for word in words]


def _bits(values: NDArray[np.float64] | NDArray[np.float32]) -> list[str]:
    size = values.dtype.itemsize
    return [f"{bits:0{2 * size}x}" for bits in values.ravel().view(f"u{size}").tolist()]


def to_text(golden: dict[str, list[dict[str, Any]]]) -> str:
    """Write one case per line, so that a change shows as one line of a diff."""
    sections = (
        f' "{name}": [\n' + ",\n".join("  " + json.dumps(case) for case in cases) + "\n ]"
        for name, cases in golden.items()
    )
    return "{\n" + ",\n".join(sections) + "\n}\n"


def causes() -> str:
    """Return the catalogue of causes and next steps, as the runtime has it."""
    file = resources.files("mvsdk.backends").joinpath("errors.json")
    return file.read_text(encoding="utf-8")


BUILDERS: dict[str, Callable[[], str]] = {
    "noise.json": lambda: to_text(build_noise()),
    "schedules.json": lambda: to_text(build_schedules()),
    "sampling.json": lambda: to_text(make_sampling.build_sampling()),
    "signature.json": lambda: to_text(make_signature.build_signature()),
    "quantize_models.json": lambda: to_text(make_quantize_models.build_quantize_models()),
    "picture.json": lambda: to_text(make_picture.build_picture()),
    "choosing.json": lambda: to_text(make_choosing.build_choosing()),
    "folders.json": lambda: to_text(make_folders.build_folders()),
    "clip.json": lambda: to_text(make_clip.build_clip()),
    "sha256.json": make_sha256.sha256,
    "errors.json": causes,
    "tokens.json": make_tokens.tokens,
    "unicode_13.json": make_tokens.unicode_13,
    "malformed.json": malformed,
    "accepted.json": accepted,
    **{
        f"manifests/{name}.json": partial(make_manifests.build, name)
        for name in make_manifests.BUILDERS
    },
}


NEEDS_ONNX = ("quantize_models.json", "clip.json")


def main() -> int:
    """Write the golden files, or compare them with `--check`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    check = parser.parse_args().check
    status = 0
    for name, build in BUILDERS.items():
        if name in NEEDS_ONNX and importlib.util.find_spec("onnx") is None:
            continue  # the runtime's tests also run without the toolchain
        path, text = GOLDEN / name, build()
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{name} differs from what the code gives\n")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
