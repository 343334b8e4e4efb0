"""`mvsdk plan`, through the command line's own entry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvsdk import cli
from mvsdk._installed import toolchain_install
from mvsdk_export import checkpoints
from mvsdk_export.commands.plan import PLAN
from mvsdk_export.errors import ExportError
from mvsdk_export.extras import require_toolchain

Run = Callable[..., tuple[int, str, str]]


class _EntryPoint:
    value = "mvsdk_export.cli:COMMANDS"

    def load(self) -> tuple[Any, ...]:
        return (PLAN,)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `mvsdk plan` and gives status, output and talk."""
    monkeypatch.setattr(cli, "entry_points", lambda group: [_EntryPoint()] if group else [])

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        status = cli.main(["plan", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def configs_only(model_copy: Path) -> Path:
    """Return a model folder without weights."""
    for weights in model_copy.rglob("*.safetensors"):
        weights.unlink()
    return model_copy


def test_plan_needs_no_weights(run: Run, configs_only: Path) -> None:
    status, out, err = run("--checkpoint", configs_only, "--height", "32", "--width", "32")
    assert (status, err) == (0, "")
    for word in ("text_encoder", "transformer", "vae_decoder", "1/2/4", "3.5 GB (HTP)", "sm8850"):
        assert word in out
    assert "warning" not in out


def test_plan_says_what_is_fast_on_a_cpu_and_what_only_checks_numbers(
    run: Run, configs_only: Path
) -> None:
    size = ("--height", "32", "--width", "32")
    _, out, _ = run("--checkpoint", configs_only, *size)
    first, second = out.splitlines()[-2:]
    assert first.startswith(
        "on a CPU executorch w8a8 is fastest (--target executorch --precision w8a8), then executor"
    )
    assert "; onnx w8a16 only checks numbers there" in second
    told = json.loads(run("--checkpoint", configs_only, *size, "--json")[1])["on_a_cpu"]
    assert told["fastest_first"][0] == "executorch w8a8"
    assert told["checks_numbers"] == ["onnx w8a16"]


def test_json_adds_up(run: Run, configs_only: Path) -> None:
    status, out, _ = run(
        *("--checkpoint", configs_only, "--height", "32", "--width", "64"),
        *("--steps", "2,8", "--precision", "w8a16", "--chip", "8 gen 3", "--json"),
    )
    plan = json.loads(out)
    assert status == 0
    assert plan["video"] == {"frames": 8, "height": 32, "width": 64, "fps": 8}
    parts = plan["components"]
    assert parts["transformer"]["evaluations"] == {"2": 2, "8": 8}
    once = parts["text_encoder"]["flops"] + parts["vae_decoder"]["flops"]
    assert plan["clip_flops"]["8"] == once + 8 * parts["transformer"]["flops"]
    assert list(parts["transformer"]["weight_bytes"]) == ["w8a16"]
    assert any("sm8650" in item["value"] for item in plan["limits"])
    assert [item["what"] for item in plan["limits"] if item["severity"] == "warning"] == ["steps"]


def test_a_chip_may_be_named_by_a_phone(run: Run, configs_only: Path) -> None:
    size = ("--checkpoint", configs_only, "--height", "32", "--width", "32", "--json")
    status, out, err = run(*size, "--chip", "s24,xiaomi 15")
    told = json.dumps(json.loads(out)["limits"])
    assert status == 0
    assert "sm8650" in told
    assert "sm8750" in told
    assert "sm8550" not in told
    assert err.startswith("note: Samsung Galaxy S24 has the Snapdragon 8 Gen 3 in some countries")
    assert len(err.splitlines()) == 1
    status, _, err = run(*size, "--chip", "iphone 15")
    assert status == 2
    assert "an iPhone has no Snapdragon, --target iphone is for it" in err


def test_an_export_takes_the_names_of_phones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="needs Qualcomm's compiler")
    monkeypatch.chdir(tmp_path)  # where no demo left a bundle of the default name
    argv = ["export", "--target", "snapdragon", "--chip", "s24 ultra,xiaomi 15", "--dry-run"]
    assert cli.main([*argv, "--json"]) == 0
    out, err = capsys.readouterr()
    assert [plan["chip"] for plan in json.loads(out)["variants"]] == ["sm8650", "sm8750"]
    assert err == ""


def test_decoder_in_parts_runs_more_often_and_takes_less(run: Run, configs_only: Path) -> None:
    size = ("--height", "32", "--width", "32", "--steps", "1", "--json")
    whole, parts = (
        json.loads(run("--checkpoint", configs_only, *size, *further)[1])
        for further in ((), ("--decode-frames", "2"))
    )
    before, after = (plan["components"]["vae_decoder"] for plan in (whole, parts))
    assert (before["evaluations"], after["evaluations"]) == ({"1": 1}, {"1": 4})
    assert after["flops"] * 4 == before["flops"]
    assert parts["clip_flops"] == whole["clip_flops"]
    for precision, peak in after["activation_peak_bytes"].items():
        assert peak * 4 == before["activation_peak_bytes"][precision]


def test_light_decoder_is_counted_in_the_place_of_the_models_own(run: Run, tmp_path: Path) -> None:
    fields = {"latent_channels": 4, "decoder_block_out_channels": [64] * 4}
    fixed = {"act_fn": "relu", "out_channels": 3, "upsampling_scaling_factor": 2}
    config = {"_class_name": "AutoencoderTiny", **fields, "num_decoder_blocks": [3, 3, 3, 1]}
    (tmp_path / "config.json").write_text(json.dumps(config | fixed), "utf-8")
    size = ("--frames", "2", "--height", "64", "--width", "64", "--steps", "25")
    status, out, _ = run("--model", "mobilevd", *size, "--decoder", tmp_path, "--json")
    plan = json.loads(out)
    assert (status, plan["decoder"]) == (0, str(tmp_path))
    assert plan["components"]["vae_decoder"]["parameters"] == 1_222_531
    assert plan["components"]["unet"]["parameters"] == 1_524_623_082


def test_impossible_export_says_why_and_fails(run: Run, configs_only: Path) -> None:
    status, out, err = run("--checkpoint", configs_only, "--frames", "99")
    assert status == 1
    assert re.search(r"frames +99 +8 ", out)
    assert "use --frames 8" in out
    assert err.startswith("this export is not possible")


@pytest.mark.skipif(
    not checkpoints.default_model_folder("sticker").exists(), reason="no weights shipped"
)
def test_shipped_model_meets_every_limit(run: Run) -> None:
    pytest.importorskip("torch")
    status, out, _ = run("--json")
    plan = json.loads(out)
    assert status == 0
    assert plan["configuration"].endswith("sticker")
    assert {item["severity"] for item in plan["limits"]} == {"ok"}


def test_checkpoint_says_which_model_it_is_of(run: Run, svd_copy: Path) -> None:
    for weights in svd_copy.rglob("*.safetensors"):
        weights.unlink()
    size = ("--frames", "4", "--height", "64", "--width", "64")
    status, out, _ = run(
        *("--checkpoint", svd_copy, *size, "--steps", "2", "--guidance", "none", "--json")
    )
    plan = json.loads(out)
    unet = plan["components"]["unet"]["flops"]
    assert (status, plan["model"], plan["guidance"]) == (0, "mobilevd", None)

    status, out, _ = run("--checkpoint", svd_copy, *size, "--steps", "2", "--json")
    guided = json.loads(out)
    assert (status, guided["guidance"]) == (0, [1.0, 3.0])  # as the public pipeline
    assert guided["components"]["unet"]["flops"] == pytest.approx(2 * unet, rel=0.01)
    added = guided["components"]["unet"]["flops"] - unet
    assert guided["clip_flops"]["2"] - plan["clip_flops"]["2"] == 2 * added


@pytest.mark.parametrize(("trained", "planned"), [(4, 4), (25, 25), (26, 14), (1, 14)])
def test_clips_are_as_long_as_those_that_a_checkpoint_was_trained_for(
    run: Run, svd_copy: Path, trained: int, planned: int
) -> None:
    config = svd_copy / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_frames": trained}))
    size = ("--height", "64", "--width", "64", "--precision", "fp16", "--chip", "sm8650")
    status, out, _ = run("--checkpoint", svd_copy, *size, "--json")
    assert (status, json.loads(out)["video"]["frames"]) == (0, planned)


def test_scheduler_of_a_checkpoint_decides_the_steps(run: Run, svd_copy: Path) -> None:
    scheduler = svd_copy / "scheduler" / "scheduler_config.json"
    index = svd_copy / "model_index.json"
    own = {"_class_name": "MvsdkPipeline", "recipe": "mobilevd", "format_version": 1}
    index.write_text(json.dumps(own), "utf-8")
    scheduler.write_text(json.dumps({"kind": "one_step", "sigma": 700.0}), "utf-8")
    for name, layers in (
        ("image_encoder", "num_hidden_layers"),
        ("unet", "layers_per_block"),
        ("vae", "layers_per_block"),
    ):
        (svd_copy / name / "config.json").write_text(json.dumps({layers: 1}), "utf-8")
    size = ("--frames", "2", "--height", "64", "--width", "64", "--precision", "w8a16")
    status, out, _ = run("--checkpoint", svd_copy, *size, "--json")
    plan = json.loads(out)
    assert status == 0
    assert plan["components"]["unet"]["evaluations"] == {"1": 1}
    assert plan["guidance"] is None

    status, out, err = run("--checkpoint", svd_copy, *size, "--guidance", "1,3")
    assert (status, out) == (2, "")
    assert "trained to do without" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "wan"], "unknown model 'wan'; known: "),
        (["--checkpoint", "/nowhere"], "model folder '/nowhere' does not exist"),
        (["--precision", "int4"], "unknown precision 'int4'; known: fp32, fp16, w8a16, all"),
        (
            ["--model", "mobilevd", "--guidance", "3"],
            "--guidance is '3', expected those of the first",
        ),
        (["--guidance", "1,3"], "--guidance does not go with this checkpoint of sticker"),
        (["--steps", "two"], "--steps is 'two', expected step counts"),
        (["--steps", ""], "--steps is '', expected step counts"),
        (["--frames", "x"], "argument --frames: 'x' is not a whole number"),
        (["--target", "qnn"], "unrecognized arguments: --target"),
        (["--decoder", "/nowhere"], "sticker has no light decoder, so '/nowhere' cannot"),
        (["--model", "mobilevd", "--decoder", "/nowhere"], "give a folder that holds config.json"),
        (["--table", "--recipe", "mobilevd", "--decode-frames", "7"], "takes no --decode-frames:"),
    ],
)
def test_wrong_arguments_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    pytest.importorskip("torch")
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_checkpoint_of_another_model_is_one_line(run: Run, svd_copy: Path) -> None:
    pytest.importorskip("torch")
    status, out, err = run("--model", "sticker", "--checkpoint", svd_copy)
    assert (status, out) == (2, "")
    assert "is a checkpoint of mobilevd, expected sticker; choose that model" in err
    assert err.count("\n") == 1


def test_missing_torch_names_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    status, out, err = run()
    assert (status, out) == (2, "")
    assert err == f"error: mvsdk plan needs the toolchain: {toolchain_install()}\n"


def test_other_extras_are_named_too() -> None:
    require_toolchain("json", "numpy", command="export")
    with pytest.raises(ExportError, match=r"^mvsdk export needs .*\[snapdragon\]") as caught:
        require_toolchain("json", "no_such_module", command="export", extra="snapdragon")
    assert str(caught.value.__cause__) == "not installed: no_such_module"


def test_listing_the_verbs_imports_no_torch() -> None:
    code = (
        "import sys, json, mvsdk_export.cli as c; "
        "print(json.dumps([[x.name for x in c.COMMANDS], sorted(sys.modules)]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    names, modules = json.loads(done.stdout)
    assert names == ["export", "verify", "plan", "compress", "train"]
    assert not {"torch", "onnx", "onnxruntime", "safetensors"} & set(modules)
