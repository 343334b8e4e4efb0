"""Cases of what a set must have: components of the program, and installed packs (C2)."""

from __future__ import annotations

from typing import Any

from choosing_cases.cases import Case, refused, runs
from choosing_cases.devices import CPU_PHONE, EXECUTORCH, ONNX, SM8550, SM8650, device

_NO_DENOISER = [{"at": ["sets", 3, "variants"], "set": {"vae": "onnx"}}]
"""Edits of the base `stages`: the set `short` has the decoder alone."""


def program_cases() -> list[Case]:
    """Return cases of programs that run other components."""
    no_second = {"both-cpu": ["format"], "second-npu": ["format", "version", "chip"]}
    return [
        runs("the other program", "stages", CPU_PHONE, "first-xnnpack", program="draft"),
        runs(
            "a set that is whole for it alone",
            "stages",
            CPU_PHONE,
            "short",
            program="draft",
            set="short",
        ),
        refused(
            "a set that lacks a component",
            "stages",
            CPU_PHONE,
            {"short": ["component"]},
            set="short",
        ),
        refused(
            "a set that lacks every denoiser",
            "stages",
            CPU_PHONE,
            {"short": ["component"]},
            edits=_NO_DENOISER,
            set="short",
        ),
        refused(
            "a set that lacks every denoiser, by target",
            "stages",
            CPU_PHONE,
            edits=_NO_DENOISER,
            set="short",
            target="onnx",
        ),
        refused(
            "one of the sets lacks every denoiser, and nothing is asked for",
            "stages",
            device(runtimes=EXECUTORCH),
            {**no_second, "first-xnnpack": ["format"], "short": ["component", "format"]},
            edits=_NO_DENOISER,
        ),
        runs(
            "what the program does not run may not run here",
            "stages",
            device(runtimes=ONNX),
            "second-npu",
            program="draft",
            set="second-npu",
        ),
        refused(
            "what it runs must",
            "stages",
            device(runtimes=ONNX),
            {"second-npu": ["format", "version", "chip"]},
            set="second-npu",
        ),
        refused(
            "with ExecuTorch alone",
            "stages",
            device(runtimes=EXECUTORCH),
            {**no_second, "first-xnnpack": ["format"], "short": ["component", "format"]},
        ),
    ]


def pack_cases() -> list[Case]:
    """Return cases of packs that are installed or not."""

    def packs(*names: str) -> dict[str, Any]:
        return {"installed_packs": list(names)}

    return [
        runs("all packs", "packs", SM8650, "sm8650"),
        runs("own pack", "packs", SM8650, "sm8650", **packs("sm8650")),
        runs("pack of an older chip", "packs", SM8650, "sm8550", verified=False, **packs("sm8550")),
        runs("pack for the CPU", "packs", SM8650, "xnnpack", **packs("cpu")),
        runs("no pack", "packs", SM8650, "onnx", **packs()),
        runs("packs of nobody", "packs", SM8650, "onnx", **packs("sm8750", "x")),
        refused(
            "asked for what is not installed",
            "packs",
            SM8650,
            {"sm8650": ["pack"]},
            chip="sm8650",
            **packs("cpu", "sm8550"),
        ),
        refused(
            "neither installed nor for the chip",
            "packs",
            SM8550,
            {"sm8650": ["pack", "chip"]},
            chip="sm8650",
            **packs(),
        ),
        runs(
            "one of two variants is in a pack",
            "packs",
            SM8650,
            "onnx",
            edits=[{"at": ["components", "vae", "variants", 2, "pack"], "set": None}],
            **packs(),
        ),
    ]
