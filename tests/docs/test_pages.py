"""The reader of pages, on pages made here."""

from __future__ import annotations

import pytest
from pages import Command, Snippet, read_page, read_time, split_comment

PAGE = """\
# A page

Prose with `mvsdk plan --json` and a span `that goes
on`.

```sh
pip install x
mvsdk export --target onnx \\
    --out "a # b.mvbundle"   # all of it, 41 s
```

```text output
a  12 dB
```

* a list

    with a paragraph

Indented:

    mvsdk devices     # chips and phones
    # nothing but a comment
    mvsdk train       # 1.5 h

    import mvsdk

Then

    seed, stream -> word
    p = (w + 0.5) * 2

```python
import mvsdk

print(mvsdk)
```
"""


def test_commands_are_found_in_fences_and_in_indented_blocks() -> None:
    steps = read_page("p.md", PAGE).steps
    assert [(step.line, step.text) for step in steps if isinstance(step, Command)] == [
        (7, "pip install x"),
        (8, 'mvsdk export --target onnx --out "a # b.mvbundle"'),
    ]
    assert [step.line for step in steps if isinstance(step, Snippet)] == [34]


def test_block_of_several_languages_is_none_of_them() -> None:
    mixed = read_page("p.md", PAGE).blocks[2]
    assert (mixed.line, mixed.language) == (22, "text")
    alone = read_page(
        "p.md", "x\n\n    mvsdk devices  # all\n    # note\n    mvsdk train  # 1.5 h\n"
    )
    assert [(x.text, x.seconds) for x in alone.steps if isinstance(x, Command)] == [
        ("mvsdk devices", None),
        ("mvsdk train", 5400.0),
    ]


def test_output_belongs_to_the_command_before_it() -> None:
    first, second, *_ = read_page("p.md", PAGE).steps
    assert isinstance(first, Command)
    assert isinstance(second, Command)
    assert (first.output, second.output) == (None, "a  12 dB")
    assert second.seconds == 41.0


def test_spans_may_go_over_lines_and_lists_are_prose() -> None:
    page = read_page("p.md", PAGE)
    assert page.spans == ((3, "mvsdk plan --json"), (3, "that goes on"))
    assert "    with a paragraph" in [line for _, line in page.prose]


@pytest.mark.parametrize(
    ("comment", "seconds"),
    [
        ("41 s", 41.0),
        ("every chip; 12 min", 720.0),
        ("Core ML, iOS 18: 1.5 h", 5400.0),
        ("iOS 18", None),
        ("takes 41 s", None),
        ("41 s on a phone", None),
        ("", None),
    ],
)
def test_times_stand_at_the_end_of_a_comment(comment: str, seconds: float | None) -> None:
    assert read_time(comment) == seconds


def test_number_signs_in_quotes_or_words_begin_no_comment() -> None:
    assert split_comment("echo '# no' a#b  # yes") == ("echo '# no' a#b", "yes")
    assert split_comment("# all") == ("", "all")
