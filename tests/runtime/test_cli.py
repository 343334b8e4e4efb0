"""The command line: what it prints where, its exit status, and what it leaves behind."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import CapSys, refusal
from tiny_bundles import VariantFiles, build_bundle

import mvsdk
from mvsdk._installed import toolchain_install
from mvsdk.bundle import Bundle
from mvsdk.cli import RUNTIME_COMMANDS, main
from mvsdk.cli.command import Command
from mvsdk.cli.output import format_bytes, format_seconds, table
from mvsdk.manifest import Delegation, NonDelegated, Verification

pytestmark = pytest.mark.usefixtures("workplace")

PROMPT = "a rocket flying left"
TOOLCHAIN = ("export", "verify", "plan", "compress", "train")


def _spawn(*argv: str, **options: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "mvsdk", *argv]
    return subprocess.Popen(command, env=environment, **options)


# --- the command itself --------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_help_fits_a_screen_and_shows_every_verb(capsys: CapSys, argv: list[str]) -> None:
    assert main(argv) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    verbs = {line.split()[0] for line in lines if line.startswith("  ") and line.strip()}
    assert verbs >= {
        *(command.name for command in RUNTIME_COMMANDS),
        *("export", "verify", "plan", "compress", "train"),
    }


@pytest.mark.parametrize(
    "verb",
    [
        *(command.name for command in RUNTIME_COMMANDS),
        "export",
        "verify",
        "plan",
        "compress",
        "train",
    ],
)
def test_help_of_every_verb_fits_a_screen(capsys: CapSys, verb: str) -> None:
    assert main([verb, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: mvsdk {verb} ")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_help_of_an_export_names_what_it_keeps_for_another_page(capsys: CapSys) -> None:
    pytest.importorskip("mvsdk_export")
    assert main(["export", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert main(["export", "--help-phones"]) == 0
    page = capsys.readouterr().out
    options = [line.split()[0] for line in page.splitlines() if line.startswith("  --")]
    more = (
        f"{len(options)} more options, most of iphone and executorch: {', '.join(options[:3])}, ..."
    )
    assert f"--help-phones {more}" in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        process = _spawn("devices", stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate()
    assert process.returncode == 2
    (line,) = err.decode().splitlines()
    assert line.startswith("error: cannot write standard output: no space left on device; ")


def test_control_characters_in_an_error_are_shown_not_sent(capsys: CapSys) -> None:
    line = refusal(capsys, "generate", "a", "-o", "\x1b[31m/a.mp4", "--bundle", "x")
    assert "'\\x1b[31m/a.mp4'" in line


def test_version(capsys: CapSys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mvsdk {mvsdk.__version__}\n"


def test_an_unknown_verb_suggests_the_nearest(capsys: CapSys) -> None:
    line = refusal(capsys, "generat")
    assert "unknown command 'generat'; did you mean generate?" in line


def test_unknown_options_point_at_the_verbs_help(capsys: CapSys) -> None:
    assert "see mvsdk doctor --help" in refusal(capsys, "doctor", "--colour")
    assert "--steps: 'four' is not a whole number" in refusal(
        capsys, "generate", "a", "--steps", "four"
    )


class _EntryPoint:
    value = "mvsdk_export.cli:COMMANDS"

    def __init__(self, commands: object) -> None:
        self._commands = commands

    def load(self) -> object:
        if isinstance(self._commands, Exception):
            raise self._commands
        return self._commands


def _install(monkeypatch: pytest.MonkeyPatch, *commands: object) -> None:
    found = [_EntryPoint(item) for item in commands]
    monkeypatch.setattr("mvsdk.cli.entry_points", lambda *, group: found)


@pytest.mark.parametrize("verb", ["export", "verify", "plan", "compress", "train"])
def test_toolchain_verbs_name_the_extra_where_it_is_missing(
    capsys: CapSys, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    _install(monkeypatch)
    line = refusal(capsys, verb, "--target", "snapdragon")
    assert f"mvsdk {verb} belongs to the toolchain, and it is not installed" in line
    assert line.endswith(f"run: {toolchain_install()}")


def test_a_broken_toolchain_does_not_break_the_runtime(
    capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(monkeypatch, ImportError("no module named yaml"))
    assert main(["devices"]) == 0
    assert main([]) == 0
    capsys.readouterr()
    assert "does not load (no module named yaml)" in refusal(capsys, "export")


def test_verbs_of_the_toolchain_run(capsys: CapSys, monkeypatch: pytest.MonkeyPatch) -> None:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--target", required=True)

    def run(options: argparse.Namespace) -> int:
        print("target", options.target)
        return 5

    added = Command(name="export", help="a real one", add_arguments=add_arguments, run=run)
    _install(monkeypatch, (added,))
    assert main(["export", "--target", "onnx"]) == 5
    assert capsys.readouterr().out == "target onnx\n"
    assert main([]) == 0
    assert "a real one" in capsys.readouterr().out
    assert "required: --target" in refusal(capsys, "export")


def test_debug_shows_the_traceback_wherever_it_stands(capsys: CapSys) -> None:
    for argv in (["--debug", "inspect", "nothing"], ["inspect", "nothing", "--debug"]):
        assert main(argv) == 2
        text = capsys.readouterr().err
        assert "Traceback (most recent call last)" in text
        assert text.splitlines()[-1].startswith("error: ")


def test_debug_shows_the_log_of_runtime_and_toolchain(monkeypatch: pytest.MonkeyPatch) -> None:
    loggers = [logging.getLogger(name) for name in ("mvsdk", "mvsdk_export")]
    for logger in loggers:
        monkeypatch.setattr(logger, "level", logging.NOTSET)  # and back after the test
    assert main(["--debug", "--version"]) == 0
    assert [logger.level for logger in loggers] == [logging.DEBUG] * 2


def test_a_fault_of_ours_is_one_line_and_another_status(
    capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(options: argparse.Namespace) -> int:
        raise RuntimeError("two\nlines")

    command = Command(name="devices", help="x", add_arguments=lambda parser: None, run=broken)
    monkeypatch.setattr("mvsdk.cli.RUNTIME_COMMANDS", (command,))
    line = refusal(capsys, "devices", status=1)
    assert "RuntimeError: two lines; this is a fault of mvsdk" in line


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = _spawn("devices", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


# --- inspect, devices ----------------------------------------------------------------------------


def _verified_bundle(workplace: Path) -> Path:
    kinds = [VariantFiles(), VariantFiles(target="snapdragon", precision="w8a16", chip="sm8650")]
    plain = build_bundle(workplace / "plain.mvbundle", kinds).manifest
    record = Verification(
        component="unet",
        variant="snapdragon-sm8650-w8a16",
        case=PROMPT,
        step=0,
        metric="sqnr",
        value_db=31.25,
        floor_db=30,
        passed=True,
        measured_on="emulator",
        reference="PyTorch float32",
    )
    records = (
        record,
        replace(record, step=1, value_db=29.0, passed=False),
        replace(record, component="text_encoder", value_db=None),
        replace(record, component="end_to_end", metric="psnr", step=None, value_db=40.0),
    )
    unet = plain.components["unet"]
    operator = NonDelegated(operator="Det", name="d", reason="unsupported")
    delegation = Delegation(delegated=1, non_delegated=(operator,))
    variants = (unet.variants[0], replace(unet.variants[1], delegation=delegation))
    bundle = build_bundle(
        workplace / "seen.mvbundle",
        kinds,
        verification=records,
        components_of_manifest={**plain.components, "unet": replace(unet, variants=variants)},
    )
    return bundle.path


def test_inspect_shows_variants_checks_and_delegation(capsys: CapSys, workplace: Path) -> None:
    path = _verified_bundle(workplace)
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "tiny: text_to_video, 8 frames of 64 x 64 at 8 fps" in text
    assert "steps 1, 2, 4, default 4" in text
    assert "hashes not checked" in text
    rows = [line.split() for line in text.splitlines()]
    unet = next(row for row in rows if row[:2] == ["unet", "snapdragon"])
    assert unet[2:4] == ["w8a16", "sm8650"]
    assert " ".join(unet[6:]) == "29.0 (>= 30) FAILED 1: Det"
    encoder = next(row for row in rows if row[:2] == ["text_encoder", "snapdragon"])
    assert encoder[6] == "identical"
    assert "end to end, snapdragon-sm8650-w8a16: psnr 40.0 (>= 30)" in text
    assert max(map(len, text.splitlines())) <= 100


def test_inspect_gives_the_manifest_as_json(capsys: CapSys, workplace: Path) -> None:
    path = _verified_bundle(workplace)
    assert main(["inspect", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["x-files-verified"] is False
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    assert {**document, **manifest} == document


def test_inspect_verify_finds_a_flipped_byte(
    capsys: CapSys, workplace: Path, onnx_bundle: Bundle
) -> None:
    bundle = workplace / "tiny.mvbundle"
    shutil.copytree(onnx_bundle.path, bundle)
    assert main(["inspect", "tiny.mvbundle", "--verify"]) == 0
    assert "all hashes right" in capsys.readouterr().out
    model = next(bundle.rglob("model.onnx"))
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    assert main(["inspect", "tiny.mvbundle"]) == 0
    capsys.readouterr()
    assert "has the hash" in refusal(capsys, "inspect", "tiny.mvbundle", "--verify")


def test_inspect_verify_says_what_it_ignored(
    capsys: CapSys, workplace: Path, onnx_bundle: Bundle
) -> None:
    bundle = workplace / "tiny.mvbundle"
    shutil.copytree(onnx_bundle.path, bundle)
    beside = next(bundle.rglob("model.onnx")).with_name(".DS_Store")
    beside.write_text("left by a file browser")
    assert main(["inspect", "tiny.mvbundle", "--verify"]) == 0
    name = beside.relative_to(bundle).as_posix()
    captured = capsys.readouterr()
    assert captured.err == f"note: ignored, not listed in manifest.json: '{name}'\n"
    assert main(["inspect", "tiny.mvbundle", "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["x-files-ignored"] == [name]
    assert main(["inspect", "tiny.mvbundle"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("argv", [["inspect"], ["animate"], ["generate", "a", "-o"]])
def test_empty_name_is_refused_and_not_taken_for_the_working_folder(
    capsys: CapSys, argv: list[str]
) -> None:
    assert "the name is empty; give a path" in refusal(capsys, *argv, "")


def test_value_with_a_leading_dash_says_how_it_is_given(capsys: CapSys) -> None:
    line = refusal(capsys, "generate", "a", "--bundle", "-x.mvbundle")
    assert "a name that begins with a dash is given as ./-NAME" in line


def test_names_in_errors_are_as_they_are_written(capsys: CapSys, workplace: Path) -> None:
    assert "no bundle at 'bücher  x'" in refusal(capsys, "inspect", "bücher  x")
    assert r"no bundle at 'a\nb\u202e'" in refusal(capsys, "inspect", "a\nb\u202e")


def test_signals_are_handled_while_a_command_runs_and_only_then(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(options: argparse.Namespace) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` does: twice
            (workplace / "cleaned").touch()
        return 0

    command = Command(name="x", help="x", add_arguments=lambda parser: None, run=terminated)
    monkeypatch.setattr("mvsdk.cli._find_command", lambda _: command)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["x"]) == 143
    assert (workplace / "cleaned").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_command_that_handles_ctrl_c_itself_ends_with_the_status_of_the_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Training says what it kept, and returns 130."""

    def handles(options: argparse.Namespace) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            return 130
        return 0

    command = Command(name="x", help="x", add_arguments=lambda parser: None, run=handles)
    monkeypatch.setattr("mvsdk.cli._find_command", lambda _: command)
    assert main(["x"]) == 143


def test_signal_that_the_caller_ignores_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def goes_on(options: argparse.Namespace) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    command = Command(name="x", help="x", add_arguments=lambda parser: None, run=goes_on)
    monkeypatch.setattr("mvsdk.cli._find_command", lambda _: command)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert main(["x"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_devices_lists_every_chip(capsys: CapSys) -> None:
    assert main(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    slugs = [chip.slug for chip in mvsdk.CHIPSETS]
    assert [line.split()[0] for line in lines[1 : len(slugs) + 1]] == slugs
    assert max(map(len, lines)) <= 100
    told = " ".join(" ".join(lines[len(slugs) + 1 :]).split())
    for chip in mvsdk.CHIPSETS:
        assert all(phone in told for phone in (*chip.phones, *chip.other_chips))
    assert "Samsung Galaxy S24 (or Exynos 2400)" in told
    assert main(["devices", "--json"]) == 0
    chips = json.loads(capsys.readouterr().out)
    assert {"slug": "sm8650", "htp_arch": 75, "soc_model": 57}.items() <= next(
        chip for chip in chips if chip["slug"] == "sm8650"
    ).items()


# --- layout --------------------------------------------------------------------------------------


def test_tables_align_text_left_and_numbers_right() -> None:
    assert table(["name", "n"], [["a", "5"], ["bcdef", "10"]]) == (
        "name    n\na       5\nbcdef  10"
    )


def test_sizes_and_times_are_readable() -> None:
    assert [format_bytes(size) for size in (0, 1023, 1536, 5 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
    assert [format_seconds(seconds) for seconds in (0.0314, 2.5)] == ["31 ms", "2.50 s"]
