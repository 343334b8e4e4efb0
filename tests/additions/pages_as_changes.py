"""What the pages adding_a_*.md do to the sources: files that they show, lines that they change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(?P<kind>python|diff) (?P<path>\S+)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file that a page shows, or a change of one."""

    path: str
    """From the folder that holds both packages."""
    text: str
    is_file: bool

    def apply(self, root: Path) -> None:
        """Do it to the packages in a folder.

        Raises:
            AssertionError: If a line that the change goes by is not there, or there twice.
        """
        place = root / self.path
        if self.is_file:
            assert not place.exists(), f"{self.path} is there already"
            place.parent.mkdir(exist_ok=True)
            place.write_text(self.text)
            return
        lines = self.text.splitlines()
        before = "\n".join(line[1:] for line in lines if line[:1] != "+")
        after = "\n".join(line[1:] for line in lines if line[:1] != "-")
        source = place.read_text()
        assert source.count(before) == 1, f"{self.path} has not one {before!r}"
        place.write_text(source.replace(before, after))


def changes_of(page: str) -> list[Change]:
    """Return what a page does, in order."""
    text = (DOCS / page).read_text("utf-8")
    return [
        Change(path=found["path"], text=found["text"], is_file=found["kind"] == "python")
        for found in _BLOCK.finditer(text)
    ]
