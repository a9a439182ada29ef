import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomstream.cli.terminal import TerminalFilter, escape_json, one_line

HOSTILE = [
    ("plain text\twith a tab\nand lines\n", "plain text\twith a tab\nand lines\n"),
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b[2J\x1b[1;1Hgone", "gone"),
    ("\x1b]0;title\x07after", "after"),
    ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x1b]52;c;cm0gLXJm\x07clipboard", "clipboard"),
    ("\x1bP1$r0m\x1b\\device", "device"),
    ("\x9b31mC1 control", "C1 control"),
    ("\x9d0;title\x9cC1 string", "C1 string"),
    ("over\rwritten\x08\x08", "overwritten"),
    ("bell\x07 null\x00 delete\x7f next line\x85", "bell null delete next line"),
    ("\x1b(Bcharset", "charset"),
    ("\x1bcreset", "reset"),
    ("é \N{GRINNING FACE}", "é \N{GRINNING FACE}"),
    ("ab\u202ecd\u2066ef\u200fgh\u061c", "abcdefgh"),
    ("zero\u200bwidth\u2060\ufeff", "zerowidth"),
    ("\N{MAN}\u200d\N{ROCKET} a\u200cb", "\N{MAN}\u200d\N{ROCKET} a\u200cb"),
    ("\x1b]0;never ended\nsecond line", "\nsecond line"),
    ("\x1b\x1b[31mtwice", "twice"),
    ("\x1b[31\nbroken off", "\nbroken off"),
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_control_sequences_are_taken_out(text: str, shown: str) -> None:
    assert TerminalFilter().feed(text) == shown


def test_a_string_that_never_ends_does_not_swallow_the_answer() -> None:
    shown = TerminalFilter().feed("\x1b]0;" + "x" * 1000 + " the answer")
    assert shown.endswith(" the answer")


@given(st.text(alphabet=st.sampled_from("\x1b[]P\\;0m\x07\x9b\x9d\x9c\n\r aé")), st.data())
def test_the_cut_makes_no_difference_and_nothing_harmful_remains(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    in_two = TerminalFilter()
    shown = TerminalFilter().feed(text)
    assert in_two.feed(text[:cut]) + in_two.feed(text[cut:]) == shown
    assert not set(shown) & set("\x1b\x07\x9b\x9c\x9d\r")


def test_a_message_is_one_line() -> None:
    assert one_line("first\n\n  second \x1b[1mthird\r\n") == "first second third"


def test_json_keeps_its_value_without_raw_control_characters() -> None:
    value = {"text": "\x1b\x7f\x80\x9bé\u0900\u202e\u200b"}
    line = escape_json(json.dumps(value, ensure_ascii=False).encode())
    assert json.loads(line) == value
    assert not set(line.decode()) & {chr(code) for code in (*range(32), *range(0x7F, 0xA0), 0x202E, 0x200B)}
