"""Markdown cut into blocks while it is written."""

import io
import re

from hypothesis import given
from hypothesis import strategies as st

from loomstream.cli.live_markdown import LiveMarkdown
from loomstream.cli.live_region import Region
from loomstream.cli.markdown import MOST_OPEN, Blocks

TEXT = """# Title
One line
and another.

- first
  more of it
- second

      code of it

1. x

After the list.

```python
def f():

    return "```"
```
| a | b |
|---|---|
| 1 | 2 |

Setext
------
***
end"""


def blocks_of(text: str, size: int) -> list[str]:
    blocks = Blocks()
    found = [block for start in range(0, len(text), size) for block in blocks.feed(text[start : start + size])]
    return [block.text for block in (*found, *blocks.finish())]


def test_blocks_are_what_is_rendered_alone() -> None:
    assert [text.strip("\n") for text in blocks_of(TEXT, len(TEXT))] == [
        "# Title",
        "One line\nand another.",
        "- first\n  more of it",
        "- second\n\n      code of it",
        "1. x",
        "After the list.",
        '```python\ndef f():\n\n    return "```"\n```',
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "Setext\n------",
        "***",
        "end",
    ]


@given(st.integers(1, 40))
def test_the_cut_makes_no_difference(size: int) -> None:
    assert blocks_of(TEXT, size) == blocks_of(TEXT, len(TEXT))


@given(st.lists(st.sampled_from(["a ", "\n", "- ", "```", "# ", "  ", "|", "---", "1. ", "~~~"]), max_size=60))
def test_nothing_but_empty_lines_is_lost(pieces: list[str]) -> None:
    text = "".join(pieces)
    blocks = "".join(blocks_of(text, 3))
    assert "".join(blocks.split()) == "".join(text.split())


def test_no_block_grows_without_bound() -> None:
    for text in ("word " * 10_000, "```py\n" + "x = 1\n" * 10_000 + "```\n", "x" * 50_000, "a\n" * 20_000):
        blocks = blocks_of(text, 7)
        assert max(map(len, blocks)) <= 2 * MOST_OPEN
        assert "".join(blocks).count("x") >= text.count("x")


def test_a_long_fence_stays_code() -> None:
    blocks = blocks_of("```py\n" + "x = 1\n" * 2_000 + "```\nafter\n", 50)
    *fences, after = blocks
    assert len(fences) > 2
    assert after == "after\n"
    assert all(re.fullmatch(r"```py\n(x = 1\n)*```\n?", fence) for fence in fences)


# --- on a terminal -------------------------------------------------------------------------------


class Screen:
    """As much of a terminal as the region needs: lines, a cursor that goes up, the erasing of what is below."""

    def __init__(self, written: str) -> None:
        self.lines = [""]
        self.row = self.redrawn = 0
        for token in re.findall(r"\x1b\[\d*[A-Za-z]|\x1b\[[\d;]*m|\n|[^\x1b\n]+", written):
            self._take(token)

    def _take(self, token: str) -> None:
        if token == "\n":
            self.row += 1
            self.lines.extend([""] * (self.row + 1 - len(self.lines)))
        elif token.endswith("A") and token.startswith("\x1b"):
            self.row -= int(token[2:-1])
            self.redrawn += 1
        elif token == "\x1b[K":
            self.lines[self.row] = ""
        elif token == "\x1b[J":
            del self.lines[self.row :]
            self.lines.append("")
        elif not token.startswith("\x1b"):
            self.lines[self.row] += token


def shown(text: str, size: int) -> Screen:
    out, clock = io.StringIO(), iter(range(100_000))
    view = LiveMarkdown(out, Region(out), now=lambda: float(next(clock)))
    for start in range(0, len(text), size):
        view.feed(text[start : start + size])
    view.finish()
    assert view.due_s is None
    return Screen(out.getvalue())


def test_what_was_written_piece_by_piece_looks_like_the_whole() -> None:
    whole = shown(TEXT, len(TEXT))
    assert [line.strip() for line in whole.lines if "second" in line] == ["• second"]
    assert whole.lines[0] == "Title"
    assert whole.redrawn == 0
    piecemeal = shown(TEXT, 2)
    assert piecemeal.redrawn > 20
    assert piecemeal.lines == whole.lines


def test_no_control_character_comes_through_an_entity() -> None:
    out = io.StringIO()
    view = LiveMarkdown(out, Region(out))
    view.feed("\x1b]0;owned\x07a &#x202e;b &#27;[31mc &#x9b;31md [text](http://e.example/ 'x') `\x1b[2J`\n")
    view.finish()
    written = re.sub(r"\x1b\[[\d;]*[mKA]", "", out.getvalue())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", written)
    assert "http://e.example/" in written


def test_the_open_block_waits_its_turn() -> None:
    out, now = io.StringIO(), [0.0]
    view = LiveMarkdown(out, Region(out), now=lambda: now[0])
    view.feed("one")
    view.feed(" two")
    assert "two" not in out.getvalue()
    assert view.due_s == 0.05
    now[0] = 0.1
    view.refresh()
    assert "one two" in out.getvalue()
