"""Citations in a script: on each wire that has them they arrive, streamed and whole; elsewhere they are refused."""

from __future__ import annotations

import msgspec
import pytest

import loomstream as ls
from loomstream.errors import ConnectionLost, UsageError
from loomstream.events import Citation, Event, Start, Stop, TextDelta, TextEnd, TextStart
from loomstream.testing.server import simulator
from loomstream.testing.wires import WIRES, answer_of

WEB = Citation(0, url="https://example.com/a", title="A page")
PLACED = Citation(0, url="https://example.com/b", title="Another", start=0, end=3)
QUOTED = Citation(0, cited_text="it says", title="A book", start=2, end=9)


def script(*citations: Citation) -> list[Event]:
    return [Start(), TextStart(0), TextDelta(0, "So it is."), TextEnd(0), *citations, Stop("end_turn")]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("spec", "dialect", "cited"),
    [
        ("anthropic:m", None, [WEB, QUOTED]),
        ("bedrock:anthropic.m", "bedrock_converse", [WEB, QUOTED]),
        ("cohere:m", None, [WEB, PLACED, QUOTED]),
        ("gemini:m", None, [WEB, PLACED, QUOTED]),
        ("openai:m", "openai_chat", [PLACED]),
        ("openai:m", "openai_responses", [PLACED, PLACED]),
    ],
)
async def test_citations_arrive(spec: str, dialect: str | None, cited: list[Citation]) -> None:
    async with simulator(script(*cited)) as server:
        options = server.options(spec.partition(":")[0])
        async with ls.connect(spec, **options, dialect=dialect, middleware=[]) as model:
            for streams in (True, False):
                message = (await model.complete("hi", stream=streams)).message
                found = [citation for block in message.content for citation in getattr(block, "citations", ())]
                assert message.text == "So it is."
                assert [told(one) for one in found] == [told(one) for one in cited]


def told(citation: Citation) -> tuple[object, ...]:
    return citation.url, citation.title, citation.cited_text, citation.start, citation.end


EARLIER = [*script(WEB)[:-1], TextStart(1), TextDelta(1, "More."), TextEnd(1), Stop("end_turn")]


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("ollama_chat", script(WEB)),
        ("openai_chat", script(QUOTED)),
        ("openai_responses", script(QUOTED)),
        ("bedrock_converse", script(PLACED)),
        ("gemini", EARLIER),
    ],
)
def test_what_a_wire_cannot_cite_is_refused(name: str, events: list[Event]) -> None:
    answer = answer_of(events)
    for write in (WIRES[name].frames, WIRES[name].whole):
        with pytest.raises(UsageError, match=r"cites|citations"):
            write(answer)


def test_a_citation_of_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="block 3"):
        answer_of(script(msgspec.structs.replace(WEB, index=3)))


@pytest.mark.anyio
async def test_the_simulator_says_so_when_it_closes() -> None:
    async def run() -> None:
        async with (
            simulator(script(WEB)) as server,
            ls.connect("ollama:m", **server.options("ollama"), middleware=[]) as model,
        ):
            with pytest.raises(ConnectionLost):
                await model.complete("hi")

    with pytest.raises(UsageError, match="ollama_chat"):
        await run()
