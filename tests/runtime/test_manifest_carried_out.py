"""What is read can be carried out: a program that passes has no fault left to meet at run time."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_manifest_hostile import mutated, places

from mvsdk.errors import BundleError, MvsdkError
from mvsdk.manifest import ClipInput, Manifest, NumberInput, PictureInput, Program
from mvsdk.runner import Resources, Runner
from mvsdk.tokenizers import Tokens

GOLDEN = json.loads(
    (Path(__file__).resolve().parents[1] / "golden/clip.json").read_text(encoding="utf-8")
)
MANIFESTS = [json.dumps(item["manifest"]) for item in GOLDEN["bundles"]]
MUTATIONS = 6000
MOST = 255
"""Integers of programs and shapes beyond it make work, and are another test's."""
DTYPES = {"real": np.float32, "integer": np.int32, "pixels": np.uint8}


def is_small(value: Any) -> bool:
    """Return whether no integer in a document would make much work."""
    if isinstance(value, dict):
        return all(is_small(item) for key, item in value.items() if key not in ("bytes", "stream"))
    if isinstance(value, list):
        return all(map(is_small, value))
    return not isinstance(value, int) or value <= MOST


def given(program: Program) -> dict[str, Any]:
    """Return something for every input."""
    values: dict[str, Any] = {}
    for name, item in program.inputs.items():
        match item:
            case NumberInput():
                values[name] = item.default
            case PictureInput():
                values[name] = np.zeros((1, item.height, item.width, 3), np.uint8)
            case ClipInput():
                values[name] = np.zeros((item.frames, item.height, item.width, 3), np.uint8)
            case _:
                values[name] = "a rocket"
    return values


def carry_out(manifest: Manifest, program: Program) -> NDArray[np.uint8]:
    """Return the frames that a program makes with graphs that give zeros."""

    def call(component: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        part = manifest.components[component]
        for tensor in part.inputs:
            assert inputs[tensor.name].shape == tensor.shape
            assert inputs[tensor.name].dtype == DTYPES[tensor.type]
        return {x.name: np.zeros(x.shape, DTYPES[x.type]) for x in part.outputs}

    def tokens(name: str, _text: str) -> Tokens:
        ids = np.zeros((1, manifest.tokenizers[name].max_length), np.int32)
        return Tokens(ids=ids, used=1)

    def table(name: str) -> NDArray[Any]:
        return np.zeros(manifest.tables[name].shape, manifest.tables[name].dtype)

    resources = Resources(call=call, tokens=tokens, table=table)
    steps = Runner(manifest, program, resources, values=given(program), seed=1).run()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.filterwarnings("error")
def test_mutated_programs_that_are_read_make_a_clip() -> None:
    chance = random.Random(7)
    docs = [json.loads(text) for text in MANIFESTS]
    where = [[x for x in places(doc) if x[:1] in (("programs",), ("samplers",))] for doc in docs]
    made = 0
    for _ in range(MUTATIONS):
        number = chance.randrange(len(docs))
        payload = mutated(json.loads(MANIFESTS[number]), chance, where[number])
        try:
            manifest = Manifest.from_json(payload)
        except BundleError:
            continue
        document = json.loads(manifest.to_json())
        if not is_small([document["programs"], document["tables"]]):
            continue
        for program in manifest.programs:
            video = program.video
            try:
                frames = carry_out(manifest, program)
            except MvsdkError:  # such as steps that no sampler has in common
                continue
            assert frames.shape == (video.frames, video.height, video.width, 3)
            made += 1
    assert made > MUTATIONS // 100
