"""The catalogue of causes and next steps: one truth, and what messages of runtimes mean by it."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest

from mvsdk.backends._causes import catalogue, find_cause, next_step
from mvsdk.choosing import RefusalKind
from mvsdk.manifest.components import Format

GOLDEN = Path(__file__).resolve().parents[1] / "golden/errors.json"
DOCUMENT = json.loads(GOLDEN.read_text(encoding="utf-8"))
CAUSES = DOCUMENT["causes"]
KINDS = {"number": int, "text": str, "pattern": str, "rule": str, "reason": str}


def test_the_golden_file_is_what_the_runtime_reads() -> None:
    own = resources.files("mvsdk.backends").joinpath("errors.json").read_text(encoding="utf-8")
    assert own == GOLDEN.read_text(encoding="utf-8")


def test_entries_are_complete_and_in_one_line() -> None:
    assert set(DOCUMENT) == {"number", "causes"}
    assert len({item["id"] for item in CAUSES}) == len(CAUSES)
    for item in CAUSES:
        assert set(item) == {"id", "format", "match", "cause", "next"}
        assert item["format"] in (None, *get_args(Format))
        assert item["match"], item["id"]
        for match in item["match"]:
            ((kind, value),) = match.items()
            assert type(value) is KINDS[kind]
        for text in (item["cause"], item["next"]):
            assert text.isprintable()
            assert text == text.strip(" .")
            assert len(text) < 200


def test_patterns_mean_the_same_in_every_language() -> None:
    """No groups by name, no look behind, no classes of Unicode: only what all three have."""
    patterns = [DOCUMENT["number"]]
    patterns += [m["pattern"] for item in CAUSES for m in item["match"] if "pattern" in m]
    for pattern in patterns:
        re.compile(pattern)
        assert not re.search(r"\(\?[^:]|\\[dwWDSpPAZ]", pattern)


@pytest.mark.parametrize(
    ("format", "message", "identifier"),
    [
        ("qnn_context", "Failed to create context. Error code: 5005", "qnn_binary_create"),
        ("qnn_context", "<E> err 0x138d", "qnn_binary_create"),
        ("qnn_context", "ERROR_CODE=5000", "qnn_binary_argument"),
        ("qnn_context", "err 5005\n<E> graph memory, with err 1002", "qnn_memory"),
        ("qnn_context", "QNN_CONTEXT_ERROR_BINARY_VERSION", "qnn_binary_version"),
        ("qnn_context", "std::bad_alloc", "memory"),
        ("onnx", "Unsupported model IR version: 13, max supported IR version: 11",
         "onnx_ir_version"),
        ("onnx", "NOT_IMPLEMENTED : Could not find an implementation for Det(11)",
         "onnx_operator_missing"),
        ("onnx", "INVALID_PROTOBUF : Load model failed: Protobuf parsing failed.", "onnx_damaged"),
        ("executorch", "Backend QnnBackend is not registered, error: 0x20",
         "executorch_delegate_missing"),
        ("executorch", "loading method forward failed with error 0x30",
         "executorch_delegate_version"),
        ("executorch", "failed with error 0x31", "executorch_delegate_memory"),
        ("coreml", "Failed to build the model execution plan using a model architecture file "
         "'model.mil' with error code: -14.", "coreml_plan"),
        ("coreml", "MILCompilerForANE error: failed to compile ANE model using ANEF.",
         "coreml_neural_engine"),
        ("coreml", "The .mlmodel supplied is of version 9, intended for a newer version of Xcode",
         "coreml_system"),
        ("coreml", "Error Domain=com.apple.CoreML Code=1 \"Input x\"", "coreml_inputs"),
        ("coreai", "OSError: No space left on device", "disk"),
    ],
)  # fmt: skip
def test_messages_of_runtimes_have_a_cause(format: Format, message: str, identifier: str) -> None:
    found = find_cause(format, message)
    assert found is not None
    (entry,) = (item for item in catalogue() if item.id == identifier)
    assert found[0].endswith(entry.cause)
    assert found[1] == entry.next


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("qnn_context", "something new"),
        ("qnn_context", "5005"),
        ("qnn_context", "errors 5005"),
        ("onnx", "Error code: 5005"),
        ("coreml", "Error Domain=com.apple.CoreML Code=12"),
    ],
)
def test_what_is_not_known_has_none(format: Format, message: str) -> None:
    assert find_cause(format, message) is None


@pytest.mark.parametrize(
    "digits", ["9" * 5000, "0" * 5000, "5005" * 1250, "0x" + "f" * 5000, "5005" + "0" * 18]
)
def test_numbers_of_endless_digits_are_none(digits: str) -> None:
    assert find_cause("qnn_context", f"Error code: {digits}") is None
    found = find_cause("qnn_context", f"Error code: {digits}, error 5005")
    assert found is not None
    assert found[0].startswith("error 5005, ")


@pytest.mark.parametrize("digits", ["5005", "0" * 14 + "5005", "0x000000000000138d", "0X138D"])
def test_numbers_may_have_leading_zeros(digits: str) -> None:
    found = find_cause("qnn_context", f"error: {digits}.")
    assert found is not None
    assert found[0].startswith("error 5005, ")


def test_each_reason_of_a_choice_has_a_next_step() -> None:
    reasons = {m["reason"]: item["id"] for item in CAUSES for m in item["match"] if "reason" in m}
    assert reasons == {kind: f"choosing_{kind}" for kind in get_args(RefusalKind)}
    assert all(next_step(identifier) for identifier in reasons.values())
    with pytest.raises(KeyError):
        next_step("nothing")
