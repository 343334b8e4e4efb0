"""What a manifest says beside what runs: where it comes from, its terms, and what was measured.

Import these names from `mvsdk.manifest`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from mvsdk._arguments import shown
from mvsdk._json import Node
from mvsdk.manifest.components import FileRef

END_TO_END = "end_to_end"
"""The `component` of a verification record that covers the whole pipeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the weights come from. Its files are named and hashed, not shipped."""

    model: str
    recipe: str
    checkpoint: tuple[FileRef, ...] = ()
    lora: tuple[FileRef, ...] = ()

    @classmethod
    def parse(cls, node: Node) -> Source:
        """Read the provenance."""
        f = node.fields("model", "recipe", "checkpoint", "lora")
        return cls(
            model=f["model"].text(),
            recipe=f["recipe"].text(),
            checkpoint=tuple(FileRef.parse(item) for item in f["checkpoint"].items(most=256)),
            lora=tuple(FileRef.parse(item) for item in f["lora"].items(most=256)),
        )

    def __repr__(self) -> str:
        """Return model and recipe in one line, without the files."""
        return f"Source({shown(self.model)}, recipe {shown(self.recipe)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """The terms of something in the bundle."""

    name: str
    """SPDX identifier where there is one."""
    applies_to: str
    text_file: FileRef | None = None
    """The licence's text, shipped in the bundle."""

    @classmethod
    def parse(cls, node: Node) -> Licence:
        """Read a licence."""
        f = node.fields("name", "applies_to", "text_file")
        return cls(
            name=f["name"].text(most=256),
            applies_to=f["applies_to"].text(),
            text_file=f["text_file"].optional(FileRef.parse),
        )

    def __repr__(self) -> str:
        """Return name and subject in one line."""
        return f"Licence({shown(self.name)}, {shown(self.applies_to)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One comparison of an artefact with its reference."""

    component: str
    """A component, or `END_TO_END`."""
    variant: str
    """One of the component's, or the set that made a clip."""
    case: str
    """What was run, such as "a rocket flying left, seed 7"."""
    step: int | None = None
    """Step index of the sampler, None where steps do not matter."""
    metric: str
    """Such as "psnr", "sqnr" or "frame_difference_psnr"."""
    value_db: float | None
    """None: identical, which has no finite value in dB."""
    floor_db: float
    passed: bool
    measured_on: str
    """Such as "QNN HTP emulator, QNN 2.51"."""
    reference: str
    """Such as "PyTorch float32"."""

    @classmethod
    def parse(cls, node: Node) -> Verification:
        """Read a record; `passed` must say what the numbers say."""
        f = node.fields(*(item.name for item in fields(cls)))
        value_db = f["value_db"].optional(lambda item: item.number(-1e4, 1e4))
        floor_db = f["floor_db"].number(-1e4, 1e4)
        passed = f["passed"].boolean()
        if passed != (value_db is None or value_db >= floor_db):
            f["passed"].fail("what value_db and floor_db say", "R1")
        return cls(
            component=f["component"].identifier(),
            variant=f["variant"].identifier(),
            case=f["case"].text(),
            step=f["step"].optional(lambda item: item.integer(0, 999)),
            metric=f["metric"].identifier(),
            value_db=value_db,
            floor_db=floor_db,
            passed=passed,
            measured_on=f["measured_on"].text(),
            reference=f["reference"].text(),
        )

    def __repr__(self) -> str:
        """Return what was measured and how it went in one line."""
        value = "identical" if self.value_db is None else f"{self.value_db:g} dB"
        step = "" if self.step is None else f", step {self.step}"
        verdict = "passed" if self.passed else "failed"
        return (
            f"Verification({self.component}, {self.variant}{step}: {self.metric} {value}, "
            f"floor {self.floor_db:g}, {verdict})"
        )
