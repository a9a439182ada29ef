"""Answers of a type from the embedded model: by its server's grammar, by a tool, in words."""

from __future__ import annotations

from typing import Literal

import pytest
from msgspec import Struct

import loomstream as ls
from loomstream.local import LocalServer
from loomstream.messages import Timeouts
from loomstream.testing import check_order

pytestmark = pytest.mark.anyio

PROMPT = "Anna is 34 years old."


class Person(Struct):
    """A person."""

    name: str
    age: int


def connect(server: LocalServer) -> ls.Model:
    return ls.connect(
        f"openai-compatible:{server.model}",
        base_url=server.base_url,
        api_key=server.api_key,
        temperature=0,
        max_tokens=60,
        timeouts=Timeouts(first_event_s=50, idle_s=50),
    )


async def test_its_grammar_holds_the_answer_to_the_type(llamacpp: LocalServer) -> None:
    async with connect(llamacpp) as model, model.stream(PROMPT) as stream:
        partials = [partial async for partial in stream.objects(Person)]
    assert [partial.is_whole for partial in partials] == [False] * (len(partials) - 1) + [True]
    assert len(partials) > 2
    assert partials[-1].final.name == "Anna"
    assert stream.response.warnings == ()


async def test_extract_gives_one_of_two_words(llamacpp: LocalServer) -> None:
    async with connect(llamacpp) as model:
        answer = await model.extract("Is snow cold? Answer yes or no.", Literal["yes", "no"])
    assert answer in {"yes", "no"}


async def test_in_words_the_answer_is_what_the_model_can(llamacpp: LocalServer) -> None:
    async with connect(llamacpp) as model, model.stream(PROMPT, output=Person, output_mode="prompt") as stream:
        events = [event async for event in stream]
    check_order(events)
    assert stream.response.text.lstrip().startswith("{")  # JSON of some form is all that 135M parameters make of it
