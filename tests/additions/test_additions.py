"""A family, a task, a target and a sampler, added by the files that pages name and no others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pages_as_changes import Change, changes_of

pytest.importorskip("torch")

pytestmark = [pytest.mark.torch, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PAGES = (
    "adding_a_sampler.md",
    "adding_a_task.md",
    "adding_a_target.md",
    "adding_a_family.md",
)
WRITE_MODEL = """
import sys
from pathlib import Path
import torch
from mvsdk_export.checkpoints import FlowScheduler, save_model_folder
from mvsdk_export.families.swing.networks import *
from mvsdk_export.families.swing.recipe import SWING

torch.manual_seed(0)
networks = {"denoiser": Denoiser(DenoiserConfig()), "vae_decoder": Decoder(DecoderConfig())}
for network in networks.values():
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
scheduler = FlowScheduler(kind="flow_euler", prediction_type="velocity")
save_model_folder(Path(sys.argv[1]), SWING, networks, scheduler=scheduler, model_card="# Random")
"""

Run = Callable[..., str]


def _split(page: str) -> tuple[list[Change], list[Change]]:
    """Return the files that a page adds, and the lines that it changes."""
    changes = changes_of(page)
    return [x for x in changes if x.is_file], [x for x in changes if not x.is_file]


def _added(changes: list[Change]) -> int:
    """Return how many lines are added to files that are there, where none is replaced."""
    return sum(line.startswith("+") for change in changes for line in change.text.splitlines())


def test_family_is_a_folder_and_a_line() -> None:
    files, changes = _split("adding_a_family.md")
    assert {str(Path(x.path).parent) for x in files} == {"mvsdk_export/families/swing"}
    assert [x.path for x in changes] == ["mvsdk_export/families/__init__.py"]
    assert _added(changes) == 1


def test_task_is_a_file_and_a_line() -> None:
    files, changes = _split("adding_a_task.md")
    assert [x.path for x in files] == ["mvsdk/tasks/image_to_loop.py"]
    assert [x.path for x in changes] == ["mvsdk/tasks/__init__.py"]
    assert _added(changes) == 1


def test_target_is_a_folder_and_two_lines() -> None:
    files, changes = _split("adding_a_target.md")
    assert {str(Path(x.path).parent) for x in files} == {"mvsdk_export/targets/desktop"}
    assert [x.path for x in changes] == ["mvsdk_export/targets/__init__.py", "mvsdk/targets.py"]
    assert _added(changes) == 2


def test_sampler_is_in_two_files() -> None:
    files, changes = _split("adding_a_sampler.md")
    assert files == []
    assert {x.path for x in changes} == {"mvsdk/samplers.py", "mvsdk/sampling.py"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return what runs Python on a copy of the sources, with all that the pages add."""
    root = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "models")
    shutil.copytree(ROOT / "mvsdk", root / "mvsdk", ignore=ignored)
    shutil.copytree(ROOT / "export" / "mvsdk_export", root / "mvsdk_export", ignore=ignored)
    models = Path("export", "mvsdk_export", "models")
    (root / "mvsdk_export" / "models").symlink_to(ROOT / models)
    for page in PAGES:
        for change in changes_of(page):
            change.apply(root)

    def run_python(*words: str | Path) -> str:
        environment = {
            **os.environ,
            "PYTHONPATH": str(root),
            "MVSDK_CACHE": str(root / "cache"),
        }
        done = subprocess.run(
            [sys.executable, "-P", *map(str, words)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=root,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_python


@pytest.fixture(scope="module")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a verified bundle of the new family for the new target."""
    folder = tmp_path_factory.mktemp("swing")
    run("-c", WRITE_MODEL, folder / "model")
    run(
        *("-m", "mvsdk", "export", "--target", "desktop", "--engine", "float"),
        *("--checkpoint", folder / "model", "--out", folder / "swing.mvbundle"),
    )
    return folder / "swing.mvbundle"


def test_bundle_says_what_was_added(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (program,) = manifest["programs"]
    assert program["task"] == "image_to_loop"
    assert manifest["samplers"]["main"]["kind"] == "flow_ab2"
    variants = [v for part in manifest["components"].values() for v in part["variants"]]
    assert {variant["target"] for variant in variants} == {"desktop"}
    assert all(record["passed"] for record in manifest["verification"])
    assert len(manifest["verification"]) > 4


def test_new_verb_makes_a_clip_of_it(run: Run, bundle: Path, tmp_path: Path) -> None:
    picture = ROOT / "docs" / "ambulance.png"
    clips: list[bytes] = []
    for swing in ("0.5", "1.5"):
        out = tmp_path / f"{swing}.npy"
        report = run(
            *("-m", "mvsdk", "loop", picture, "--bundle", bundle, "--swing", swing),
            *("-o", out, "--json"),
        )
        assert json.loads(report)["image"] == str(picture)
        clips.append(out.read_bytes())
    assert clips[0] != clips[1]


def test_help_shows_the_verb_and_the_option(run: Run) -> None:
    assert "  loop        make a clip that ends where it begins" in run("-m", "mvsdk", "--help")
    assert "--engine E" in run("-m", "mvsdk", "export", "--help-phones")


def test_another_task_is_told_the_new_verb(run: Run, bundle: Path) -> None:
    code = (
        "import sys, mvsdk\n"
        "from mvsdk.errors import InputError\n"
        "with mvsdk.load(sys.argv[1]) as pipeline:\n"
        "    try:\n"
        "        pipeline.generate('x')\n"
        "    except InputError as error:\n"
        "        print(error)\n"
    )
    assert "use Pipeline.run or mvsdk loop IMAGE" in run("-c", code, bundle)
