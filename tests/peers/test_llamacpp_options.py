"""llama.cpp's server with a real model: JSON of a schema and token probabilities, asked for as OpenAI has it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

import loomstream as ls
from loomstream.events import Event
from loomstream.local import LocalServer
from loomstream.messages import Output, Text, Timeouts

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "sunny": {"type": "boolean"}},
    "required": ["city", "sunny"],
    "additionalProperties": False,
}


def connect(server: LocalServer, dialect: str = "openai_chat") -> ls.Model:
    return ls.connect(
        f"llamacpp:{server.model}",
        dialect=dialect,
        base_url=server.base_url,
        api_key=server.api_key,
        temperature=0,
        max_tokens=60,
        timeouts=Timeouts(first_event_s=50, idle_s=50),
    )


async def test_the_answer_fits_the_schema(llamacpp: LocalServer, read: Read) -> None:
    async with connect(llamacpp) as model:
        stream = model.stream("Is it sunny in Rome?", output=Output(schema=SCHEMA), output_mode="native")
        await read(stream)
    answer = json.loads(stream.response.text)
    assert answer.keys() == {"city", "sunny"}
    assert answer["city"] in ("Oslo", "Rome")
    assert isinstance(answer["sunny"], bool)


@pytest.mark.parametrize("streaming", [True, False])
async def test_the_tokens_spell_the_answer(llamacpp: LocalServer, read: Read, *, streaming: bool) -> None:
    async with connect(llamacpp) as model:
        stream = model.stream("Say only: hello", logprobs=2, stream=streaming)
        await read(stream)
    (block,) = stream.response.message.content
    assert isinstance(block, Text)
    spelt = "".join(token.token for token in block.logprobs)
    assert spelt.startswith(block.text)
    assert all(token.logprob <= 0 for token in block.logprobs)
    assert all(len(token.top) == 2 for token in block.logprobs)


async def test_what_its_responses_pass_over_is_named(llamacpp: LocalServer, read: Read) -> None:
    async with connect(llamacpp, "openai_responses") as model:
        stream = model.stream("Say only: hello", output=Output(schema=SCHEMA), output_mode="native", logprobs=1)
        await read(stream)
    assert stream.response.text
    assert stream.response.warnings == (
        "logprobs is not sent: this host does not take it",
        "output is not sent: this host does not take it",
    )
