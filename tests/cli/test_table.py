"""Tables on a terminal that is too narrow for them, and where there is none."""

from loomstream.cli.table import fitted, lines_of

MODEL = "openrouter:anthropic/claude-sonnet-4.5"
ROWS = (
    ("model", "in", "", "can"),
    (MODEL, "1.25", "", "tools, vision, reasoning"),
    ("local", "free", "", ""),
)


def lines(room: int | None) -> list[str]:
    widths = fitted(ROWS, room)
    return [line for row in ROWS for line in lines_of(row, widths, {1})]


def test_where_there_is_room_a_row_is_a_line() -> None:
    assert lines(None) == [
        "model                                     in  can",
        "openrouter:anthropic/claude-sonnet-4.5  1.25  tools, vision, reasoning",
        "local                                   free",
    ]
    assert lines(70) == lines(None)


def test_cells_are_folded_between_words_first() -> None:
    assert lines(60) == [
        "model                                     in  can",
        "openrouter:anthropic/claude-sonnet-4.5  1.25  tools, vision,",
        "                                              reasoning",
        "local                                   free",
    ]


def test_then_long_words_are_and_nothing_is_cut() -> None:
    widths = fitted(ROWS, 40)
    folded = lines(40)
    assert max(map(len, folded)) <= 40
    assert "".join(line[: widths[0]].strip() for line in folded) == f"model{MODEL}local"
    assert [line[widths[0] + 2 :].split() for line in folded] == [
        ["in", "can"],
        ["1.25", "tools,"],
        ["vision,"],
        ["reasoning"],
        ["free"],
    ]  # fmt: skip


def test_a_terminal_that_is_narrower_than_any_folding_breaks_lines_itself() -> None:
    assert fitted(ROWS, 5) == fitted(ROWS, 1) == [12, 4, 0, 9]
