"""Completion in shells: what bash offers after a word, and what is said where shtab is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CapSys, refusal

from mvsdk._installed import pip_install
from mvsdk.cli import RUNTIME_COMMANDS, all_commands, main

TOOLCHAIN = ("export", "verify", "plan", "compress", "train")
SHTAB = "needs shtab: pip install shtab"


def _script(capsys: CapSys, shell: str) -> str:
    pytest.importorskip("shtab", reason=SHTAB)
    assert main(["completion", shell]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def _offered(script: str, *words: str, folder: Path) -> set[str]:
    """Return what bash offers for the last of some words."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this system")
    quoted = " ".join(f"'{word}'" for word in ("mvsdk", *words))
    code = (
        f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words)}\n_shtab_mvsdk\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        [bash, "--norc", "-c", code], capture_output=True, text=True, check=True, cwd=folder
    )
    return {line.strip() for line in done.stdout.splitlines() if line.strip()}


def test_bash_offers_verbs_options_and_their_values(capsys: CapSys, tmp_path: Path) -> None:
    script = _script(capsys, "bash")

    def offered(*words: str) -> set[str]:
        return _offered(script, *words, folder=tmp_path)

    verbs = offered("")
    assert verbs >= {command.name for command in RUNTIME_COMMANDS}
    assert offered("gen") == {"generate"}
    assert offered("generate", "a cat", "--see") == {"--seed"}
    assert offered("generate", "a cat", "--memory", "") == {"fast", "low"}
    assert "sm8650" in offered("slim", "a.mvbundle", "--chip", "sm86")
    assert offered("slim", "a.mvbundle", "--target", "sn") == {"snapdragon"}
    # What the help of a verb tells in another option's line.
    assert offered("generate", "a cat", "--form") == {"--format"}
    assert offered("generate", "a cat", "--no-m") == {"--no-metadata"}
    assert offered("completion", "") == {"bash", "zsh", "fish"}


def test_bash_offers_folders_where_a_bundle_is_meant(capsys: CapSys, tmp_path: Path) -> None:
    script = _script(capsys, "bash")
    (tmp_path / "sticker.mvbundle").mkdir()
    (tmp_path / "sticker.txt").write_text("no folder")
    offered = _offered(script, "inspect", "sti", folder=tmp_path)
    assert {name.rstrip("/") for name in offered} == {"sticker.mvbundle"}


def test_bash_offers_the_verbs_of_the_toolchain(capsys: CapSys, tmp_path: Path) -> None:
    if not {command.name for command in all_commands()} >= set(TOOLCHAIN):
        pytest.skip("the toolchain is not installed")
    script = _script(capsys, "bash")
    assert _offered(script, "exp", folder=tmp_path) == {"export"}
    hidden = _offered(script, "export", "--deploy", folder=tmp_path)
    assert hidden == {"--deployment-target"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_of_every_verb(capsys: CapSys, shell: str) -> None:
    script = _script(capsys, shell)
    assert all(command.name in script for command in all_commands())
    assert "no-metadata" in script


def test_verbs_that_are_not_installed_are_not_offered(
    capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvsdk.cli.entry_points", lambda *, group: [])
    assert [command.name for command in all_commands()] == [c.name for c in RUNTIME_COMMANDS]
    assert "_shtab_mvsdk_export" not in _script(capsys, "bash")


def test_a_missing_shtab_is_named(capsys: CapSys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    line = refusal(capsys, "completion", "bash")
    assert "mvsdk completion needs the package shtab" in line
    assert line.endswith(f"run: {pip_install('shtab')}")


def test_an_unknown_shell_is_refused(capsys: CapSys) -> None:
    assert "invalid choice: 'tcsh'" in refusal(capsys, "completion", "tcsh")
