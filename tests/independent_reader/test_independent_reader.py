"""The golden files against the independent reader."""

import base64
import json
from pathlib import Path
from struct import pack, unpack
from typing import Any

import pytest
from second_reader import choosing, tensors
from second_reader.document import Refused, write
from second_reader.rules import read

GOLDEN = Path(__file__).parents[1] / "golden"
# Cases where the text allows another answer than the golden names: (rule, place), and why.
OTHERS: dict[str, tuple[str, str]] = {
    # Section 1: a place in the older document, or in what section 10 makes of it.
    "S1: version_1_text_to_video with epsilon": ("S1", "sampler.prediction_type"),
    "S1: version_2_text_to_video with epsilon": ("S1", "sampler.prediction_type"),
}


def load(name: str) -> Any:
    """A golden file."""
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def find(document: Any, steps: list[Any]) -> Any:
    """A value by its place."""
    for step in steps:
        document = document[step]
    return document


def change(document: Any, edit: dict[str, Any]) -> None:
    """Edits a value in place; one behind the end of a list is appended."""
    *steps, last = edit["at"]
    parent = find(document, steps)
    if "delete" in edit:
        del parent[last]
    elif "rename" in edit:
        parent[edit["rename"]] = parent.pop(last)
    else:
        value = made(document, edit)
        if isinstance(parent, list) and last == len(parent):
            parent.append(value)
        else:
            parent[last] = value


def made(document: Any, edit: dict[str, Any]) -> Any:
    """The value that an edit sets."""
    if "copy" in edit:
        return json.loads(json.dumps(find(document, edit["copy"])))
    if "fill" in edit:
        return [edit["fill"][0]] * edit["fill"][1]
    if "repeat" in edit:
        return edit["repeat"][0] * edit["repeat"][1]
    if "nest" in edit:
        value: Any = []
        for _ in range(edit["nest"] - 1):
            value = [value]
        return value
    return edit["set"]


def payload(case: dict[str, Any]) -> bytes:
    """The bytes of a case."""
    if "base64" in case:
        return base64.b64decode(case["base64"])
    if "generate" in case:
        return "".join(text * times for text, times in case["generate"]).encode()
    text = (GOLDEN / f"manifests/{case['base']}.json").read_text(encoding="utf-8")
    for edit in case["edits"]:
        if "text" in edit:
            old, new = edit["text"]
            assert text.count(old) > 0
            text = text.replace(old, new * edit.get("times", 1), 1)
        else:
            document = json.loads(text)
            change(document, edit)
            text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def names(cases: list[dict[str, Any]]) -> list[Any]:
    """Cases with their names."""
    return [pytest.param(case, id=case["name"][:70]) for case in cases]


@pytest.mark.parametrize("case", names(load("malformed.json")))
def test_malformed(case: dict[str, Any]) -> None:
    """What breaks a rule is refused, with the rule and the place."""
    with pytest.raises(Refused) as caught:
        read(payload(case))
    found = caught.value.rule, caught.value.where
    assert found in ((case["rule"], case["where"]), OTHERS.get(case["name"]))


@pytest.mark.parametrize("case", names(load("accepted.json")))
def test_accepted(case: dict[str, Any]) -> None:
    """What breaks none is read, and is the same as another spelling of it."""
    manifest = read(payload(case))
    if "same_as" in case:
        assert write(manifest) == write(read(payload(case["same_as"])))
    if "written" in case:
        assert case["written"].encode() in write(manifest)


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("manifests/*.json")), ids=lambda path: path.stem
)
def test_manifests(path: Path) -> None:
    """Each is read; those of version 3 are written to the byte, the others become the upgraded."""
    manifest = read(path.read_bytes())
    upgraded = path.with_name(path.name.replace("version_", "upgraded_"))
    assert write(manifest) == upgraded.read_bytes()


def bases() -> dict[str, Any]:
    """The manifests of choosing.json."""
    return {base["name"]: base["manifest"] for base in load("choosing.json")["bases"]}


@pytest.mark.parametrize("case", names(load("choosing.json")["cases"]))
def test_choosing(case: dict[str, Any]) -> None:
    """Each device gets the set, or each reason why none."""
    document = bases()[case["base"]]
    for edit in case["edits"]:
        change(document, edit)
    manifest = read(json.dumps(document).encode())
    if "set" in case:
        found = choosing.choose(manifest, case["device"], **case["options"])
        assert found == (case["set"], case["verified"])
        return
    with pytest.raises(Refused) as caught:
        choosing.choose(manifest, case["device"], **case["options"])
    assert caught.value.rule == case["rule"]
    assert (caught.value.reasons is None) == (case["refused"] == "filter")
    reasons = {name: set(value) for name, value in case["reasons"].items()}
    assert (caught.value.reasons or {}) == reasons


@pytest.mark.parametrize("case", load("choosing.json")["socs"], ids=lambda case: case["soc_model"])
def test_socs(case: dict[str, Any]) -> None:
    """What Android says of its chip."""
    chips = {chip["chip"]: chip["htp_arch"] for chip in load("choosing.json")["chips"]}
    slug = choosing.chip_of(case["soc_model"])
    assert slug == case["chip"]
    assert choosing.arch_of(slug, chips) == case["htp_arch"]


CODES = {"float32": "f", "float16": "e", "int8": "b", "int16": "h", "int32": "i", "int64": "q"}
CODES |= {"uint8": "B", "uint16": "H"}


def values(dtype: str, bits: list[str]) -> list[Any]:
    """Numbers of their bits, the highest first."""
    return [unpack(f">{CODES[dtype]}", bytes.fromhex(text))[0] for text in bits]


def bits(dtype: str, numbers: list[Any]) -> list[str]:
    """The bits of numbers."""
    return [pack(f">{CODES[dtype]}", x).hex() for x in numbers]


def tensor(case: dict[str, Any]) -> dict[str, Any]:
    """The storage of a case, whose scale is given as bits."""
    scale = case.get("scale") and values("float32", [case["scale"]])[0]
    return case | {"scale": scale}


@pytest.mark.parametrize("case", load("signature.json")["encode"])
def test_encode(case: dict[str, Any]) -> None:
    """Values become what is stored."""
    stored = tensors.encode(tensor(case), values(case["from"], case["values"]))
    assert bits(case["dtype"], stored) == case["stored"]


@pytest.mark.parametrize("case", load("signature.json")["decode"])
def test_decode(case: dict[str, Any]) -> None:
    """What is stored becomes values."""
    found = tensors.decode(tensor(case), values(case["dtype"], case["stored"]))
    assert bits(case["to"], found) == case["values"]


@pytest.mark.parametrize("case", load("signature.json")["encode_refused"])
def test_encode_refused(case: dict[str, Any]) -> None:
    """Values that cannot be stored are refused."""
    with pytest.raises(Refused) as caught:
        tensors.encode(tensor(case), values("float32", case["values"]))
    assert caught.value.rule == case["rule"]


@pytest.mark.parametrize("case", load("signature.json")["frames"])
def test_frames(case: dict[str, Any]) -> None:
    """Bytes of what a graph gives."""
    found = tensors.pixels(values(case["dtype"], case["stored"]))
    assert bits("uint8", found) == case["bytes"]


@pytest.mark.parametrize("case", load("signature.json")["frames_refused"])
def test_frames_refused(case: dict[str, Any]) -> None:
    """Values that are not finite are refused."""
    with pytest.raises(Refused) as caught:
        tensors.pixels(values(case["dtype"], case["stored"]))
    assert caught.value.rule == case["rule"]
