"""That the benchmarks run and say what they measured; never how long anything took."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the installed package

import loomstream  # noqa: E402 (behind the path, like the next)
from benchmarks import child, client, measures, report, runner, wires  # noqa: E402 (found by the line above)

TINY = measures.Size(events=3, streams=2, turns=2, rounds=2)
AT_ONCE = measures.Measure(
    name="tiny",
    title="a tiny measure",
    unit="µs",
    kind="at_once",
    floor="bare",
    floor_title="the floor",
    path="burst/{events}/2",
    default=TINY,
    quick=TINY,
    peer=TINY,
    bar=3,
)


_PROVIDERS = {
    "openai_chat": "openai-compatible",
    "openai_responses": "openai",
    "anthropic_messages": "anthropic",
    "gemini": "gemini",
    "bedrock_converse": "bedrock",
    "bedrock_invoke": "bedrock",
    "ollama_chat": "ollama",
    "cohere_chat": "cohere",
}


def silent(_: str) -> None:
    pass


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_run_gives_floor_and_ours_for_each_measure() -> None:
    done = benchmarks("--quick", "--only", "at-once", "request", "import", "--json", "-")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["machine"]["loomstream"]
    assert [measure["name"] for measure in outcome["measures"]] == ["at-once", "request", "import"]
    for measure in outcome["measures"]:
        clients = measure["clients"]
        assert set(clients) == {"floor", "loomstream"}
        assert all(value > 0 for figures in clients.values() for value in figures["values"])
        assert len(clients["loomstream"]["ratios"]) == measure["size"]["rounds"]
        assert set(clients["floor"]["ratios"]) == {1.0}
        assert measure["holds"] is (clients["loomstream"]["ratio"] <= measure["bar"])
    assert outcome["measures"][-1]["clients"]["loomstream"]["notes"] == {"heavy": []}


def test_the_table_goes_to_standard_output_and_progress_to_standard_error(tmp_path: Path) -> None:
    done = benchmarks("--quick", "--only", "import", "--json", str(tmp_path / "out.json"))
    assert done.stdout.splitlines()[0].split()[:3] == ["measure", "floor", "loomstream"]
    assert "import loomstream: round 1 of 1" in done.stderr
    assert json.loads((tmp_path / "out.json").read_bytes())["measures"][0]["name"] == "import"


def test_an_unknown_measure_is_refused() -> None:
    done = benchmarks("--only", "speed")
    assert done.returncode == 2
    assert "invalid choice: 'speed'" in done.stderr


def test_floor_and_ours_take_turns_one_event_to_a_read() -> None:
    measure = AT_ONCE._replace(kind="paced", path="paced/{events}/1/20000", quick=TINY._replace(rounds=1))
    outcome = runner.run(measure, quick=True, say=silent)
    assert {name: len(figures.values) for name, figures in outcome.clients.items()} == {"floor": 1, "loomstream": 1}
    assert outcome.clients["floor"].notes["reads_per_event"]


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with runner.server() as port:
        yield port


def taken(name: str, kind: str, base_url: str, *, events: int = 3, streams: int = 2) -> dict[str, float]:
    """Take a measurement as a child does, in this process."""

    async def take() -> dict[str, float]:
        async with aclosing(client.client_class(name)(base_url)) as made:
            return await child.KINDS[kind](child.Job(kind, name, base_url, events, streams), made)

    return asyncio.run(take())


@pytest.mark.parametrize(
    ("kind", "floor", "path"),
    [
        ("at_once", "bare", "burst/3/2"),
        ("request", "bare", "burst/3/1"),
        ("memory", "aiohttp", "paced/3/1/0"),
        ("many", "bare", "paced/3/1/0"),
    ],
)
def test_every_kind_of_measure_reads_every_event(server: int, kind: str, floor: str, path: str) -> None:
    base_url = f"http://127.0.0.1:{server}/{path}/v1"
    for name in (floor, "loomstream"):
        assert "value" in taken(name, kind, base_url)
        if kind in ("at_once", "request"):
            with pytest.raises(ValueError, match="3 text events came of 4"):
                taken(name, kind, base_url, events=4)


@pytest.mark.parametrize("dialect", client.WIRE_CLIENTS)
def test_floor_and_ours_read_every_event_of_every_dialect(server: int, dialect: str) -> None:
    measure = next(measure for measure in measures.MEASURES if measure.name == f"at-once-{dialect}")
    base_url = f"http://127.0.0.1:{server}/{measure.path.format(events=3)}/v1"
    for name in (measure.floor, measure.ours):
        assert "value" in taken(name, measure.kind, base_url)
        with pytest.raises(ValueError, match="3 text events came of 4"):
            taken(name, measure.kind, base_url, events=4)


@pytest.mark.parametrize("dialect", [*client.WIRE_CLIENTS, "openai_chat"])
def test_the_servers_frames_are_a_whole_answer_without_a_warning(dialect: str) -> None:
    wire = wires.WIRES[dialect]
    body = wire.opening + b"".join(map(wire.text, range(9))) + wire.closing
    events = list(loomstream.decode(_PROVIDERS[dialect], body, dialect=dialect, content_type=wire.content_type))
    assert sum(isinstance(event, loomstream.TextDelta) for event in events) == 9
    assert isinstance(events[-1], loomstream.Stop)
    assert not [event for event in events if isinstance(event, (loomstream.Notice, loomstream.Unknown))]
    assert [event.output_tokens for event in events if isinstance(event, loomstream.Usage)][-1] == 12


def test_dialect_rows_have_no_peers() -> None:
    assert {measure.name for measure in measures.MEASURES if not measure.peers} == {
        "many",
        "bench",
        "re-emission",
        "paced-as-found",
        "request-as-found",
        *(f"at-once-{dialect}" for dialect in client.WIRE_CLIENTS),
    }


def test_what_is_measured_as_found_is_else_the_same_and_has_the_same_bar() -> None:
    by_name = {measure.name: measure for measure in measures.MEASURES}
    for name in ("paced", "request"):
        found = by_name[f"{name}-as-found"]
        assert found._replace(name=name, title=by_name[name].title, peers=True, settled=True) == by_name[name]


def test_a_client_that_loses_an_event_has_no_figure() -> None:
    with pytest.raises(runner.BenchmarkError, match="bare, tiny: ValueError: 2 text events came of 3"):
        runner.run(AT_ONCE._replace(path="burst/2/1"), quick=True, say=silent)


def test_a_floor_that_is_nothing_gives_no_ratio() -> None:
    measure = AT_ONCE._replace(kind="memory", path="paced/1/1/0", quick=measures.Size(1, 0, 1, 1))
    with pytest.raises(runner.BenchmarkError, match="bare, tiny"):
        runner.run(measure, quick=True, say=silent)


def test_a_peer_that_fails_is_named_and_the_others_are_measured() -> None:
    measure = AT_ONCE._replace(quick=TINY._replace(turns=1, rounds=1))
    outcome = runner.run(measure, quick=True, peers=["nobody"], say=silent)
    assert outcome.clients["nobody"].failure == "nobody, tiny: KeyError: 'nobody'"
    assert len(outcome.clients["loomstream"].values) == 1
    figures = runner.Figures(values=[1.0], ratios=[1.0])
    alone = runner.Outcome(measure._replace(peers=False), TINY, {"floor": figures, "loomstream": figures})
    lines = report.table([outcome, alone]).splitlines()
    assert any(line.split() == ["nobody", "failed"] for line in lines)
    assert "nobody, tiny: KeyError: 'nobody'" in lines


def test_what_bench_adds_and_what_sending_on_costs_are_rows_of_the_table() -> None:
    done = benchmarks("--quick", "--only", "bench", "re-emission", "--json", "-")
    assert done.returncode == 0, done.stderr
    added, sent_on = json.loads(done.stdout)["measures"]
    assert (added["limit"], added["holds"]) == (5, added["clients"]["loomstream"]["median"] <= 5)
    assert (sent_on["bar"], sent_on["holds"]) == (2, sent_on["clients"]["loomstream"]["ratio"] <= 2)
    assert sent_on["clients"]["loomstream"]["notes"]["pieces_per_event"] > 0


@pytest.mark.parametrize(("ratio", "verdict"), [(2.0, "holds"), (3.0, "holds"), (3.1, "MISSED")])
def test_a_bar_holds_or_is_missed(ratio: float, verdict: str) -> None:
    floor = runner.Figures(values=[2.0, 2.0, 2.0], ratios=[1.0, 1.0, 1.0])
    ours = runner.Figures(values=[4.0, 2 * ratio, 9.0], ratios=[1.5, ratio, 4.5])
    line = report.table([runner.Outcome(AT_ONCE, TINY, {"floor": floor, "loomstream": ours})]).splitlines()[2]
    assert line.endswith(verdict)
    assert f"{ratio:.2f} (1.50-4.50)" in line


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, ("192.0.2.1", 443))),
        ("socket.getaddrinfo", ("example.com", 443, 0, 0, 0)),
        ("socket.getaddrinfo", (b"example.com", 443, 0, 0, 0)),
    ],
)
def test_a_peer_stays_on_this_machine(event: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(PermissionError, match="stays on this machine"):
        child.refuse_other_hosts(event, arguments)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, ("127.0.0.1", 80))),
        ("socket.connect", (None, ("::1", 80, 0, 0))),
        ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0)),
        ("open", ("192.0.2.1",)),
    ],
)
def test_a_peer_may_talk_to_this_machine(event: str, arguments: tuple[object, ...]) -> None:
    child.refuse_other_hosts(event, arguments)
