"""Which set a device runs, against tests/golden/choosing.json, and what a refusal says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import CapSys, refusal

from mvsdk.choosing import Choice, Device, choose, examine
from mvsdk.cli import main
from mvsdk.devices import HTP_ARCHS, htp_arch_of, slug_of_soc
from mvsdk.errors import BackendError, InputError, MvsdkError
from mvsdk.manifest import Manifest

GOLDEN = json.loads(
    (Path(__file__).resolve().parents[1] / "golden/choosing.json").read_text(encoding="utf-8")
)
BASES = {item["name"]: item["manifest"] for item in GOLDEN["bases"]}
RUNS = [case for case in GOLDEN["cases"] if "set" in case]
REFUSED = [case for case in GOLDEN["cases"] if "rule" in case]


def edited(case: dict[str, Any]) -> Manifest:
    document = copy.deepcopy(BASES[case["base"]])
    for edit in case["edits"]:
        *above, last = edit["at"]
        place = document
        for key in above:
            place = place[key]
        if edit.get("delete"):
            del place[last]
        else:
            place[last] = edit["set"]
    return Manifest.from_json(json.dumps(document).encode())


def device_of(case: dict[str, Any]) -> Device:
    told = case["device"]
    return Device(**{**told, "delegates": tuple(told["delegates"])})


def case_name(case: dict[str, Any]) -> str:
    return case["name"]


def test_there_are_cases_of_each_sort() -> None:
    assert len(GOLDEN["cases"]) >= 60
    assert len({case["name"] for case in GOLDEN["cases"]}) == len(GOLDEN["cases"])
    kinds = {kind for case in REFUSED for kinds in case["reasons"].values() for kind in kinds}
    assert kinds == {"component", "pack", "format", "delegate", "version", "system", "chip"}


@pytest.mark.parametrize("case", RUNS, ids=case_name)
def test_the_set_is_chosen(case: dict[str, Any]) -> None:
    choice = choose(edited(case), device_of(case), **case["options"])
    assert (choice.id, choice.verified) == (case["set"], case["verified"])


@pytest.mark.parametrize("case", REFUSED, ids=case_name)
def test_the_refusal_says_why_each_set_does_not_run(case: dict[str, Any]) -> None:
    manifest, device = edited(case), device_of(case)
    kind = InputError if case["refused"] == "filter" else BackendError
    with pytest.raises(kind) as caught:
        choose(manifest, device, **case["options"])
    message = str(caught.value)
    assert caught.value.rule == case["rule"]
    assert message.endswith("[C5]")
    assert len(message.splitlines()) == 1
    found = {item.id: item.refusal for item in examine(manifest, device, **case["options"])}
    left = {name: reason for name, reason in found.items() if reason.kind != "filter"}
    assert set(left) == set(case["reasons"])
    for name, reason in left.items():
        assert reason.kind in case["reasons"][name]
    if case["refused"] == "device":
        assert device.describe() in message
        assert next(iter(left.values())).text in message


@pytest.mark.parametrize("soc", GOLDEN["socs"], ids=lambda soc: repr(soc["soc_model"]))
def test_chips_are_known_by_what_systems_call_them(soc: dict[str, Any]) -> None:
    device = Device.from_soc(soc["soc_model"])
    assert (device.chip, device.htp_arch) == (soc["chip"], soc["htp_arch"])


def test_the_table_of_chips_is_that_of_this_package() -> None:
    table = {item["chip"]: item["htp_arch"] for item in GOLDEN["chips"]}
    assert table == dict(HTP_ARCHS)
    assert all(slug_of_soc(slug.upper()) == slug for slug in table)
    assert all(htp_arch_of(slug) == arch for slug, arch in table.items())


def _whole() -> Manifest:
    return edited({"base": "all", "edits": []})


def test_a_choice_has_the_variants_that_the_program_runs() -> None:
    manifest = edited({"base": "stages", "edits": []})
    device = Device(platform="android", runtimes={"onnxruntime": "1.31", "executorch": "1.5"})
    draft = choose(manifest, device, program="draft")
    assert isinstance(draft, Choice)
    assert list(draft.variants) == ["unet", "vae"]
    assert list(choose(manifest, device).variants) == ["unet", "second", "vae"]
    assert draft.reason == "runs on android, made for no chip"


def test_what_was_not_verified_is_said() -> None:
    runtimes = {"onnxruntime": "1.31", "qairt": "2.51"}
    other = choose(_whole(), Device.from_soc("SM8845", runtimes=runtimes))
    assert other.reason == "compiled for sm8850 (HTP v81), not verified on sm8845 (HTP v81)"
    own = choose(_whole(), Device.from_soc("SM8650-AC", runtimes=runtimes))
    assert own.reason == "compiled for sm8650, the chip of this device"


def test_a_refusal_says_both_versions_and_the_next_step() -> None:
    device = Device.from_soc("SM8650", runtimes={"onnxruntime": "1.31", "qairt": "2.50"})
    with pytest.raises(BackendError, match="C5") as caught:
        choose(_whole(), device, target="snapdragon")
    assert str(caught.value) == (
        "no set of tiny runs on this device (android, chip sm8650 (HTP v75), onnxruntime 1.31, "
        "qairt 2.50): sm8550, sm8650, sm8750, sm8850: needs qairt 2.51, here is 2.50; update it in "
        "the app, or export with the app's release [C5]"
    )


def test_a_refusal_of_many_sets_is_short() -> None:
    document = copy.deepcopy(BASES["phones"])
    variants = document["components"]["unet"]["variants"]
    for number in range(60):
        variants.append(copy.deepcopy(variants[0]))
        variants[-1]["id"] = f"v{number}"
        variants[-1]["chip"]["slug"] = f"x{number}"
        variants[-1]["requires"] = {"qairt": f"3.{number}"}
        document["sets"].append({"id": f"s{number}", "variants": {"unet": f"v{number}"}})
    document["components"]["vae"]["variants"] = document["components"]["vae"]["variants"][:1]
    for item in document["sets"]:
        item["variants"]["vae"] = "sm8550"
    vae = document["components"]["vae"]["variants"][0]
    vae |= {"target": "onnx", "format": "onnx", "chip": None, "requires": {}}
    manifest = Manifest.from_json(json.dumps(document).encode())
    with pytest.raises(BackendError) as caught:
        choose(manifest, Device.from_soc("SM8450", runtimes={"onnxruntime": "1", "qairt": "1"}))
    assert len(str(caught.value)) < 1000
    assert "more reasons" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"platform": 1},
        {"os_version": 18},
        {"chip": b"sm8650"},
        {"htp_arch": "75"},
        {"htp_arch": 0},
        {"runtimes": ["qairt"]},
        {"runtimes": {"qairt": 2.51}},
        {"runtimes": {1: "2"}},
        {"delegates": ("vulkan",)},
    ],
)
def test_a_device_of_wrong_types_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Device(**{"platform": "android", **change})


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((None, Device(platform="ios")), {}),
        ((_whole(), "sm8650"), {}),
        ((_whole(), Device(platform="ios")), {"chip": 8650}),
        ((_whole(), Device(platform="ios")), {"program": "other"}),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, options: dict[str, Any]) -> None:
    with pytest.raises(MvsdkError) as caught:
        choose(*arguments, **options)
    assert isinstance(caught.value, InputError)
    assert caught.value.rule is None


# --- mvsdk inspect --device ----------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    """Return a bundle on disk of the base with everything; each file holds its own path."""
    manifest = _whole()
    folder = tmp_path / "all.mvbundle"
    for ref in manifest.files():
        path = folder / ref.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ref.path, encoding="utf-8")
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return str(folder)


def test_inspect_says_what_a_phone_runs(capsys: CapSys, bundle: str) -> None:
    assert main(["inspect", bundle, "--device", "s24 ultra"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "device    android, chip sm8650 (HTP v75), executorch 1.5, onnxruntime, qairt 2.51, "
        "delegates xnnpack and qnn"
    )
    assert lines[1] == "runs      sm8650: compiled for sm8650, the chip of this device"
    assert lines[4].split()[:2] == ["sm8650", "yes"]
    assert lines[5].split()[:2] == ["sm8550", "unverified"]
    assert any(line.startswith("sm8850") and "newer than sm8650" in line for line in lines)


@pytest.mark.parametrize(
    ("argv", "chosen"),
    [
        (["sm8650"], "sm8650"),
        (["SM8650-AC"], "sm8650"),
        (["8 elite"], "sm8750"),
        (["sm8750p"], "sm8750"),
        (["sm8650", "--runtime", "qairt=2.50"], "xnnpack"),
        (["sm8650", "--runtime", "qairt=none"], "xnnpack"),
        (["sm7675"], "xnnpack"),
        (["android"], "xnnpack"),
        (["android", "--runtime", "executorch=none"], "onnx"),
        (["iOS 18.2"], "coreml-w8"),
        (["ios17"], "coreml-fp16"),
        (["iphone"], "coreai"),
        (["iPadOS 27", "--runtime", "coreai=none"], "coreml-w8"),
    ],
)
def test_inspect_knows_devices_by_many_names(
    capsys: CapSys, bundle: str, argv: list[str], chosen: str
) -> None:
    assert main(["inspect", bundle, "--json", "--device", *argv]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["set"] == chosen
    assert {item["id"] for item in told["sets"]} == {item.id for item in _whole().sets}
    assert all((item["kind"] is None) == item["runs"] for item in told["sets"])


def test_inspect_says_no_where_nothing_runs(capsys: CapSys, bundle: str) -> None:
    nothing = [f"--runtime={name}=none" for name in ("onnxruntime", "qairt", "executorch")]
    assert main(["inspect", bundle, "--device", "sm8650", *nothing]) == 1
    assert "runs      nothing" in capsys.readouterr().out
    assert main(["inspect", bundle, "--device", "sm8650", "--json", *nothing]) == 1
    assert json.loads(capsys.readouterr().out)["set"] is None


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--device", "exynos 2400"], "unknown chip"),
        (["--device", "iphone 15"], "a phone of Apple's goes by its system: say iOS 18.2"),
        (["--device", "iPhone 15 Pro"], "a phone of Apple's goes by its system: say iOS 18.2"),
        (["--device", "sm8650", "--runtime", "qairt"], "NAME=VERSION"),
        (["--device", "sm8650", "--runtime", "cuda=12"], "NAME one of qairt"),
        (["--runtime", "qairt=2.50"], "--runtime is for --device"),
    ],
)
def test_inspect_refuses_devices_and_runtimes_that_nobody_knows(
    capsys: CapSys, bundle: str, argv: list[str], told: str
) -> None:
    assert told in refusal(capsys, "inspect", bundle, *argv)
