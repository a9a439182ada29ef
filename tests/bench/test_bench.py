"""A benchmark over real connections to the simulator, without waits; its report as JSON, CSV, page and verdicts."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from loomstream import bench
from loomstream.bench.measure import Recorder
from loomstream.bench.samples import Report, Row, Sample
from loomstream.errors import ConfigError
from loomstream.events import Start, TextDelta, ToolCallDelta, Usage
from loomstream.testing.faults import Fault
from loomstream.testing.server import Simulator, simulator
from loomstream.testing.wires import Answer, Block


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, no_keys: None) -> Iterator[Simulator]:  # noqa: ARG001 (its effect)
    """Stand in for two providers, by the variables that name their addresses."""
    with simulator("one two three") as opened:
        for name in ("openai", "anthropic"):
            monkeypatch.setenv(f"{name.upper()}_API_KEY", "x")
            monkeypatch.setenv(f"{name.upper()}_BASE_URL", opened.url(name))
        yield opened


@pytest.mark.anyio
async def test_rounds_are_interleaved_and_the_first_only_opens_connections(server: Simulator) -> None:
    report = await bench.measure(["openai:gpt-4o", "anthropic"], runs=3, max_tokens=9)
    assert [request.provider for request in server.requests] == ["openai", "anthropic", "anthropic", "openai"] * 2
    for row in report.rows:
        assert row.kind == "live"
        assert [sample.number for sample in row.samples] == [0, 1, 2, 3]
        assert [sample.cold for sample in row.samples] == [True, False, False, False]
        assert [sample.number for sample in row.counted] == [1, 2, 3]
        assert {sample.output_tokens for sample in row.samples} == {3}
        assert {len(sample.stamps_s) for sample in row.samples} == {3}
    assert server.requests[0].json["max_completion_tokens"] == 9


@pytest.mark.anyio
async def test_with_cold_each_request_has_a_connection_of_its_own(server: Simulator) -> None:
    report = await bench.measure(["openai:gpt-4o"], runs=2, connections="cold")
    assert len(server.requests) == 2
    assert [sample.cold for sample in report.rows[0].counted] == [True, True]
    assert all((sample.connect_s or 0) > 0 for sample in report.rows[0].counted)
    assert bench.summary(report.rows[0]).connect == bench.summary(report.rows[0]).cold_connect


@pytest.mark.anyio
async def test_cold_and_warm_in_the_same_rounds_are_two_rows(server: Simulator) -> None:
    report = await bench.measure(["openai:gpt-4o", "anthropic"], runs=2, connections="both")
    assert [row.label for row in report.rows] == [
        "openai:gpt-4o [live, warm]",
        "openai:gpt-4o [live, cold]",
        "anthropic [live, warm]",
        "anthropic [live, cold]",
    ]
    for row in report.rows:
        assert {sample.cold for sample in row.counted} == {row.connection == "cold"}
        assert {sample.connect_s == 0 for sample in row.counted} == {row.connection == "warm"}
        assert [sample.number for sample in row.counted] == [1, 2]
    opened, one, two = ["openai", "anthropic"], ["openai", "anthropic", "anthropic", "openai"], ["anthropic"] * 2
    assert [request.provider for request in server.requests] == [*opened, *one, *two, "openai", "openai"]
    assert "rows marked cold opened one each" in bench.html(report)


@pytest.mark.anyio
async def test_as_many_connections_are_warmed_as_there_are_rounds_at_once(server: Simulator) -> None:
    report = await bench.measure(["openai:gpt-4o"], runs=4, concurrency=2)
    assert len(server.requests) == 6
    assert [sample.number for sample in report.rows[0].counted] == [1, 2, 3, 4]


@pytest.mark.anyio
async def test_a_prompt_of_a_given_size_is_asked_and_told(server: Simulator) -> None:
    report = await bench.measure(["openai:gpt-4o"], runs=1, input_tokens=300, max_tokens=40)
    asked = server.requests[0].json["messages"][0]["content"]
    assert asked == bench.sized_prompt(300) == report.prompt
    assert len(asked.split()) + len(",,:") == 300
    assert server.requests[0].json["max_completion_tokens"] == 40
    figures = bench.summary(report.rows[0])
    assert (figures.input_tokens, figures.output_tokens) == (report.rows[0].samples[0].input_tokens, 3)
    with pytest.raises(ConfigError, match="no prompt beside it"):
        await bench.measure(["openai:gpt-4o"], input_tokens=9, prompt="hi")


@pytest.mark.anyio
@pytest.mark.usefixtures("no_keys")
async def test_what_fails_is_reported_in_its_place_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulator("one two three", faults=[None, Fault("cut", at=400), Fault("status", status=401)]) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url("openai"))
        seen: list[bench.Progress] = []
        report = await bench.measure(["openai:gpt-4o", "nosuch:m", "mistral"], runs=3, progress=seen.append)
    good, unknown, keyless = report.rows
    assert [sample.error for sample in good.samples] == ["", "ConnectionLost", "AuthFailed", ""]
    assert "unknown provider 'nosuch'" in unknown.failure
    assert "MISTRAL_API_KEY" in keyless.failure
    assert (seen[-1].done, seen[-1].of) == (4, 4)
    assert bench.summary(good).errors == 2
    page = bench.html(report)
    assert "AuthFailed" in page
    assert "unknown provider" in page


@pytest.mark.anyio
@pytest.mark.usefixtures("no_keys")
async def test_a_budget_is_never_exceeded_though_rounds_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = Usage(input_tokens=20, output_tokens=200, final=True)
    with simulator(Answer(blocks=(Block(kind="text", pieces=("one", "two")),), usage=usage)) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url("openai"))
        report = await bench.measure(
            ["openai:gpt-4o"], runs=50, max_tokens=200, max_cost_usd="0.02", concurrency=5, connections="both"
        )
    spent = sum(sample.cost_usd or Decimal(0) for row in report.rows for sample in row.samples)
    assert Decimal("0.01") < spent <= Decimal("0.02")
    assert all("the budget is used up" in row.failure for row in report.rows)
    assert len(server.requests) < 50


@pytest.mark.anyio
async def test_a_budget_refuses_an_unknown_price(server: Simulator) -> None:
    report = await bench.measure(["openai:no-such-model"], runs=2, max_cost_usd=1)
    assert "price" in report.rows[0].failure
    assert not server.requests


@pytest.mark.anyio
async def test_simulated_rows_say_so_everywhere(tmp_path: Path) -> None:
    report = await bench.measure(["simulated:openai", "simulated:bedrock"], runs=6, max_tokens=5, real_time=False)
    assert {row.kind for row in report.rows} == {"simulated"}
    page = bench.html(report)
    assert page.count("simulated:openai [simulated, warm]") > 6
    assert "<td>simulated:bedrock<small>[simulated, warm]</small></td>" in page
    assert "say nothing about a provider" in page
    for name, drawn in bench.plots(report).items():
        assert "[simulated, warm]" in drawn, name
        assert 'class="c0 sim"' in drawn, name
    assert all("[simulated, warm]" in verdict.words for verdict in bench.verdicts(report))
    bench.save(report, tmp_path / "a.json")
    assert bench.load(tmp_path / "a.json") == report


@pytest.mark.anyio
async def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="specs that differ"):
        await bench.measure(["a", "a"])
    with pytest.raises(ConfigError, match="simulated:PROVIDER"):
        await bench.measure(["simulated"])
    with pytest.raises(ConfigError, match="runs=0"):
        await bench.measure(["a"], runs=0)


# --- values --------------------------------------------------------------------------------------


def row(label: str, totals: list[float], kind: str = "live") -> Row:
    samples = tuple(
        Sample(
            number=number,
            cold=False,
            began_s=0.0,
            connect_s=0.0,
            first_event_s=total / 10,
            first_text_s=total / 5,
            total_s=total,
            stamps_s=(total / 5, total / 2, total),
            output_tokens=9,
            cost_usd=Decimal("0.01"),
        )
        for number, total in enumerate(totals, 1)
    )
    return Row(spec=label, kind=kind, samples=samples)  # pyright: ignore[reportArgumentType]


def report_of(*rows: Row) -> Report:
    return Report(
        rows=rows,
        prompt="<script>alert(1)</script>",
        max_tokens=9,
        runs=6,
        concurrency=1,
        made_at="2026-01-01T00:00:00+00:00",
        version="0",
        overhead_us=0.5,
    )


STEADY = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.02, 0.98, 1.07, 0.93, 1.0, 1.01]


def test_figures_are_what_the_samples_say() -> None:
    figures = bench.summary(row("a", [1.0, 3.0, 2.0]))
    assert figures.total is not None
    assert figures.total.value == 2.0
    assert figures.total_p95_s == pytest.approx(2.9)
    assert figures.gaps is not None
    assert figures.gaps.longest_s == pytest.approx(1.5)
    assert figures.tokens_per_s is not None
    assert figures.tokens_per_s.value == pytest.approx(8 / 1.6)
    assert figures.cost_usd == Decimal("0.03")


def test_verdicts_claim_only_what_is_there() -> None:
    a, b, slow = row("a", STEADY), row("b", STEADY[::-1]), row("slow", [value * 2 for value in STEADY])
    words = [verdict.words for verdict in bench.verdicts(report_of(a, slow, b))]
    assert any(said.startswith(f"total: {a.label} 50% shorter than {slow.label} (p = 0.00") for said in words)
    assert any(said.startswith(f"total: no difference to be seen between {a.label} and {b.label}") for said in words)
    few = bench.verdicts(report_of(row("a", STEADY[:3]), row("b", STEADY[:3])))
    assert all("too few runs" in verdict.words for verdict in few)


def test_where_no_difference_could_show_none_is_denied() -> None:
    rows = [row(name, [value * factor for value in STEADY[:6]]) for name, factor in (("a", 1), ("b", 9), ("c", 99))]
    told = bench.verdicts(report_of(*rows))
    assert {(verdict.needed, verdict.probability) for verdict in told} == {(9, None)}
    assert "too few runs to tell a [live, warm] from b [live, warm] (at least 9 each)" in told[0].words
    two = bench.verdicts(report_of(*rows[:2]))
    assert {verdict.needed for verdict in two} == {7}


def test_two_reports_are_compared_row_by_row() -> None:
    before = report_of(row("a", STEADY), row("gone", STEADY))
    after = report_of(row("a", [value * 3 for value in STEADY]), row("new", STEADY))
    totals = [verdict for verdict in bench.compare(before, after) if verdict.measure == "total"]
    assert [verdict.one for verdict in totals] == ["a [live, warm] before"]
    assert "67% shorter than a [live, warm] after" in totals[0].words


def test_the_page_is_whole_in_itself_and_safe() -> None:
    report = report_of(row("<img src=x onerror=alert(1)>", STEADY), row("b", STEADY))
    page = bench.html(report)
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search(r'(?:src|href)\s*=\s*["\']', page)
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    for drawn in bench.plots(report).values():
        ET.fromstring(drawn)  # noqa: S314 (our own)


@pytest.mark.parametrize("bad", list(map(chr, (*range(32), 0x7F, 0x9B, 0xFFFE, 0xFFFF, 0xD800, 0xDFFF))))
def test_a_name_with_any_character_gives_well_formed_plots(bad: str) -> None:
    report = report_of(row(f"a{bad}b", STEADY))
    bench.html(report).encode()
    for drawn in bench.plots(report).values():
        assert "a" in "".join(ET.fromstring(drawn.encode()).itertext())  # noqa: S314 (our own)


def test_no_line_of_a_cell_breaks_between_a_number_and_its_unit() -> None:
    page = bench.html(report_of(row("a", [1.0, 1.1, 1.2, 1.3, 1.4, 1.5])))
    smalls = re.findall("<small>([^<]* to [^<]*)</small>", page)
    assert smalls
    assert not [small for small in smalls if re.search(r"\d [mµ]?s\b", small)]
    assert "\N{NO-BREAK SPACE}s to " in page


def test_what_needs_more_runs_is_said_once() -> None:
    page = bench.html(report_of(row("a", [1.0, 2.0]), row("b", [1.5, 2.5]), row("c", [1.5, 2.5])))
    assert page.count("too few runs") == 1
    assert "too few runs to tell 3 pairs apart: each needs at least 9 whole answers" in page


def test_a_mark_at_nothing_leaves_the_words_of_the_axes_free() -> None:
    free = row("a", STEADY)
    free = msgspec.structs.replace(
        free, samples=tuple(msgspec.structs.replace(one, cost_usd=Decimal(0)) for one in free.samples)
    )
    drawn = ET.fromstring(bench.plots(report_of(free))["cost"])  # noqa: S314 (our own)
    mark = next(one for one in drawn.iter() if one.get("class") == "dot")
    below = float(mark.attrib["cy"]) + float(mark.attrib["r"])
    ticks = [float(one.attrib["y"]) for one in drawn.iter() if one.get("class") == "soft" and "y" in one.attrib]
    letters = 10
    assert min(y for y in ticks if y > below) - letters >= below


def test_csv_has_a_line_for_each_answer_and_no_formula() -> None:
    report = report_of(row("=1+1\x1b[31m", STEADY))
    lines = list(csv.DictReader(io.StringIO(bench.csv_text(report))))
    assert [line["total_s"] for line in lines] == [str(value) for value in STEADY]
    assert lines[0]["spec"] == "'=1+1\N{REPLACEMENT CHARACTER}[31m"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 99}', b"[" * 5_000])
def test_a_file_that_is_no_report_says_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="no saved benchmark"):
        bench.load(path)


@pytest.mark.parametrize("figure", [-1.0, 1e308])
def test_a_report_with_a_time_that_nobody_measured_is_refused(figure: float, tmp_path: Path) -> None:
    """Figures that overflow would end a comparison in the middle."""
    bench.save(report_of(row("a", (*STEADY, figure))), tmp_path / "x.json")
    with pytest.raises(ConfigError, match="no saved benchmark: a time in it is below 0, or longer"):
        bench.load(tmp_path / "x.json")


def test_only_content_is_noted() -> None:
    times = iter(range(9))
    recorder = Recorder(lambda: float(next(times)))
    for event in (Start(), ToolCallDelta(0, "{"), TextDelta(1, "a"), Usage()):
        recorder.note(event)
    assert (recorder.first, recorder.first_text, recorder.events) == (0.0, 2.0, 4)
    assert recorder.since(0.0) == (1.0, 2.0)
