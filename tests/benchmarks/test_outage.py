"""An outage of 60 s with 1,000 clients, on a virtual clock: retries do not make it worse."""

from __future__ import annotations

import pytest

from benchmarks.outage import BAR, STACKS, Figures, main, simulate, table


def test_a_thousand_clients_in_an_outage() -> None:
    figures = simulate("retry() as it comes", pause_s=50)
    assert figures.calls > 1_000
    assert 1.1 < figures.amplification <= BAR
    assert (figures.failed_before, figures.failed_after) == (0.0, 0.0)


def test_without_a_budget_each_call_is_three_requests() -> None:
    assert simulate("retry() without a budget", clients=50).amplification > 2.9


def test_a_breaker_leaves_the_provider_alone() -> None:
    assert simulate("retry(), circuit_breaker()", clients=50).requests < 20


def test_the_same_seed_gives_the_same_figures() -> None:
    one, two, three = (simulate("retry() as it comes", clients=20, seed=seed) for seed in (7, 7, 8))
    assert one == two != three


def test_the_table_and_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """A few clients alone may use the free retries, which is beyond the bar."""
    assert main(["--clients", "2", "--pause", "15"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:28].strip() for line in lines[2 : 2 + len(STACKS)]] == list(STACKS)


def test_figures_are_aligned() -> None:
    figures = Figures(1000, 1190, 93.4, 154, 129, 0.0, 0.125)
    head, _, row, *_ = table({"a": figures}).splitlines()
    assert len(head) == len(row)
    assert row.split() == ["a", "1000", "1190", "1.190", "154", "129", "12.5%"]
