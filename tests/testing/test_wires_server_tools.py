"""A provider's own tools in a script: where the wire has them they arrive, streamed and whole; else it refuses."""

from __future__ import annotations

import json
from typing import NamedTuple

import msgspec
import pytest

import loomstream as ls
from loomstream.errors import UsageError
from loomstream.events import Event, ServerToolCall, ServerToolResult, Start, Stop, TextDelta, TextEnd, TextStart
from loomstream.messages import ServerToolCallBlock, ServerToolResultBlock
from loomstream.testing.server import simulator
from loomstream.testing.wires import WIRES, answer_of


class Run(NamedTuple):
    """A tool that the provider runs, and what it gave; None where that is not told."""

    name: str
    arguments: str
    content: str | None
    is_error: bool = False

    @property
    def events(self) -> list[Event]:
        call = ServerToolCall(0, "srv_1", self.name, self.arguments)
        if self.content is None:
            return [call]
        return [call, ServerToolResult(1, "srv_1", self.name, msgspec.Raw(self.content.encode()), self.is_error)]


SEARCH = Run("web_search", '{"query":"looms"}', '[{"type":"web_search_result","url":"https://example.com/a"}]')
FAILED = Run("web_search", '{"query":"x"}', '{"type":"web_search_tool_result_error"}', is_error=True)
CODE = Run("code_interpreter", '{"code":"1+1"}', '[{"type":"logs","logs":"2"}]')


def script(run: Run) -> list[Event]:
    return [Start(), *run.events, TextStart(2), TextDelta(2, "So it is."), TextEnd(2), Stop("end_turn")]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("spec", "dialect", "runs"),
    [
        ("anthropic:m", None, [SEARCH, FAILED, SEARCH._replace(content=None)]),
        ("bedrock:anthropic.m", "bedrock_invoke", [SEARCH, FAILED]),
        ("bedrock:m", "bedrock_converse", [SEARCH, CODE._replace(is_error=True)]),
        ("openai:m", "openai_responses", [SEARCH._replace(content=None), CODE, CODE._replace(is_error=True)]),
        ("openai:m", "openai_responses", [Run("file_search", '{"queries":["a","b"]}', '[{"file_id":"f"}]')]),
        (
            "gemini:m",
            None,
            [
                Run("code_execution", '{"language":"PYTHON","code":"1"}', '{"outcome":"OUTCOME_OK","output":"1"}'),
                Run("code_execution", '{"code":"1/0"}', '{"outcome":"OUTCOME_FAILED"}', is_error=True),
                Run("GOOGLE_SEARCH_WEB", '{"queries":["looms"]}', '{"answer":1}'),
            ],
        ),
    ],
)
async def test_tools_of_the_provider_arrive(spec: str, dialect: str | None, runs: list[Run]) -> None:
    async with simulator(*(script(run) for run in runs for _ in "sw")) as server:
        options = server.options(spec.partition(":")[0])
        async with ls.connect(spec, **options, dialect=dialect, middleware=[]) as model:
            for run in runs:
                for streams in (True, False):
                    message = (await model.complete("hi", stream=streams)).message
                    assert message.text == "So it is."
                    assert told(message.content) == expected(run)


def told(content: tuple[object, ...]) -> list[object]:
    out: list[object] = []
    for block in content:
        match block:
            case ServerToolCallBlock():
                out.append((block.id, block.name, json.loads(block.arguments)))
            case ServerToolResultBlock():
                text = bytes(block.content).decode().replace('"id":"srv_1"', "").replace(",}", "}")  # Gemini has it
                out.append((block.tool_call_id, block.name, json.loads(text), block.is_error))
            case _:
                pass
    return out


def expected(run: Run) -> list[object]:
    call = ("srv_1", run.name, json.loads(run.arguments))
    return [call] if run.content is None else [call, ("srv_1", run.name, json.loads(run.content), run.is_error)]


@pytest.mark.parametrize(
    ("name", "run", "reason"),
    [
        ("openai_chat", SEARCH, "no words"),
        ("ollama_chat", SEARCH, "no words"),
        ("cohere_chat", SEARCH, "no words"),
        ("openai_responses", SEARCH, "no place for this result"),
        ("openai_responses", SEARCH._replace(name="other"), "cannot write 'other'"),
        ("openai_responses", CODE._replace(arguments="[1]"), "arguments of 'code_interpreter'"),
        ("gemini", SEARCH, "result of 'web_search'"),
        ("gemini", SEARCH._replace(content="{}", is_error=True), "of no other tool"),
        ("gemini", Run("code_execution", "{}", '{"outcome":"OUTCOME_FAILED"}'), "by its outcome"),
        ("bedrock_converse", FAILED, "result of 'web_search'"),
    ],
)
def test_what_a_wire_cannot_say_is_refused(name: str, run: Run, reason: str) -> None:
    answer = answer_of(script(run))
    for write in (WIRES[name].frames, WIRES[name].whole):
        with pytest.raises(UsageError, match=reason):
            write(answer)
