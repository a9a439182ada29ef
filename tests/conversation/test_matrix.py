"""A rich conversation of each provider goes on at each other one: it keeps the target's rules, and every loss is told.

`python tests/conversation/test_matrix.py --write` renews the table in docs/how-to/conversations.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the readers and rules stand beside the tests, which are no package

import losses  # noqa: E402 (found by the line above)
from readers import RuleBroken  # noqa: E402
from readers_more import READERS  # noqa: E402
from rules import RULES, SAME_ISSUER, check, check_opaque, is_issuer  # noqa: E402
from sites import PIXEL, QUESTION, RADAR, SITES, Sent, held, hold, send, sent  # noqa: E402

from loomstream.messages import Image, Reasoning, Text, ToolCall, ToolResult, decode, encode  # noqa: E402

PAGE = HERE.parents[1] / "docs" / "how-to" / "conversations.md"
BEGIN, END = "<!-- losses:begin -->\n", "<!-- losses:end -->"

PAIRS = [(source, target) for source in SITES for target in SITES]
WITHOUT_IDS = ("gemini", "ollama_chat")

pytestmark = pytest.mark.usefixtures("no_keys")


def lost(request: Sent, target: str) -> list[str]:
    """Give what a request loses; raise where it breaks the target's rules, and for a silent loss or an idle warning."""
    read = READERS[target](request.value)
    found = losses.found(request.messages, read)
    check(read, RULES[target])
    silent = [loss for loss in found if not any(loss in losses.told(warning) for warning in request.warnings)]
    idle = [warning for warning in request.warnings if not losses.told(warning) & set(found)]
    assert (silent, idle) == ([], [])
    return found


# --- the conversation ----------------------------------------------------------------------------


@pytest.mark.parametrize("source", SITES)
def test_the_conversation_is_a_rich_one(source: str) -> None:
    messages = held(source).messages
    blocks = [block for message in messages for block in message.content]
    calls = [block for block in blocks if isinstance(block, ToolCall)]
    results = [block for block in blocks if isinstance(block, ToolResult)]
    assert messages[0].content == (Text(QUESTION), Image(PIXEL))
    assert [(call.name, json.loads(call.arguments)["city"]) for call in calls] == [
        ("get weather", "Oslo"),
        ("get_weather", "Bergen"),
        ("get_weather", "Bergen"),
    ]
    assert [(result.is_error, Image(RADAR, "image/gif") in result.content) for result in results] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    assert sum(isinstance(block, Reasoning) for block in blocks) >= 2
    assert len({call.id for call in calls}) == (2 if source in WITHOUT_IDS else 3)  # an id that is made comes twice


@pytest.mark.anyio
@pytest.mark.parametrize("source", SITES)
async def test_each_request_of_a_conversation_keeps_the_rules(source: str) -> None:
    conversation = await hold(SITES[source])
    for request in conversation.requests:
        assert set(lost(request, source)) <= {losses.CITATIONS, losses.ERROR_FLAGS, losses.RESULT_IMAGES}


# --- going on elsewhere --------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_conversation_goes_on(source: str, target: str) -> None:
    request = sent(source, target)
    lost(request, target)
    check_opaque(READERS[target](request.value), request.body, source, target)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_content_that_every_wire_holds_arrives_whole(source: str, target: str) -> None:
    never = {losses.TEXTS, losses.IMAGES, losses.CALLS, losses.RESULTS}
    assert not never & set(lost(sent(source, target), target))


@pytest.mark.parametrize("source", SITES)
def test_an_issuer_gets_all_its_reasoning_back(source: str) -> None:
    for target in SITES:
        if is_issuer(target, source):
            found = set(lost(sent(source, target), target))
            assert not found & {losses.REASONING, losses.SIGNATURES, losses.CALL_SIGNATURES, losses.PHASES}


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_from_json_the_same_request_is_made(source: str, target: str) -> None:
    request = sent(source, target)
    again = anyio.run(send, SITES[target], decode(encode(request.messages)))
    assert again.body == request.body
    assert again.warnings == request.warnings


@pytest.mark.parametrize("target", SITES)
def test_a_conversation_of_three_providers_goes_on(target: str) -> None:
    names = [*SITES, *SITES]
    seen = 0
    for (first, second), third in zip(pairwise(names[: len(SITES) + 1]), names[2:], strict=False):
        messages = held(first, second, third).messages
        request = anyio.run(send, SITES[target], messages)
        lost(request, target)
        issued = [
            opaque for message in messages for block in message.content for opaque in getattr(block, "opaque", ())
        ]
        foreign = [item for item in issued if item.issuer != SITES[target].provider and item.kind != "tool_plan"]
        seen += len(foreign)
        assert not [item for item in foreign if f'"{item.data}"'.encode() in request.body]
    assert seen > len(SITES)


@pytest.mark.parametrize("source", SITES)
def test_botocore_takes_the_body_of_converse(source: str) -> None:
    shape = get_session().get_service_model("bedrock-runtime").operation_model("ConverseStream").input_shape
    body = sent(source, "bedrock_converse").value
    report = ParamValidator().validate({**body, "modelId": SITES["bedrock_converse"].model}, shape)
    assert not report.has_errors(), report.generate_report()


# --- the rules can fail --------------------------------------------------------------------------


def _without_result(body: Any) -> None:  # noqa: ANN401 (JSON)
    del body["messages"][3]


def _late_result(body: Any) -> None:  # noqa: ANN401 (JSON)
    body["messages"].insert(2, {"role": "user", "content": "Wait."})


def _id_twice(body: Any) -> None:  # noqa: ANN401 (JSON)
    first, second = body["messages"][1]["content"][-2:]
    second["id"] = first["id"]


def _other_order(body: Any) -> None:  # noqa: ANN401 (JSON)
    body["messages"][-1]["content"].insert(0, {"type": "text", "text": " "})


def _foreign_id(body: Any) -> None:  # noqa: ANN401 (JSON)
    body["messages"][1]["tool_calls"][0]["id"] = "call_1"


def _unsigned(body: Any) -> None:  # noqa: ANN401 (JSON)
    for part in body["contents"][1]["parts"]:
        part.pop("thoughtSignature", None)


def _spaced_name(body: Any) -> None:  # noqa: ANN401 (JSON)
    body["tools"][0]["name"] = "get weather"


def _object_arguments(body: Any) -> None:  # noqa: ANN401 (JSON)
    body["input"][3]["arguments"] = {"city": "Bergen"}


def _text_arguments(body: Any) -> None:  # noqa: ANN401 (JSON)
    body["messages"][1]["content"][-1]["toolUse"]["input"] = "{}"


def _two_assistants(body: Any) -> None:  # noqa: ANN401 (JSON)
    body["messages"].insert(2, {"role": "assistant", "content": "And?"})


@pytest.mark.parametrize(
    ("target", "broken", "rule"),
    [
        ("openai_chat", _without_result, "want one each"),
        ("cohere_chat", _late_result, "follow their calls"),
        ("anthropic_messages", _id_twice, "used twice"),
        ("bedrock_invoke", _other_order, "not blank"),
        ("openai_chat (Mistral)", _foreign_id, "no id by the rule"),
        ("gemini", _unsigned, "has a signature"),
        ("openai_responses", _spaced_name, "no name by the rule"),
        ("openai_responses", _object_arguments, "are a text"),
        ("bedrock_converse", _text_arguments, "are an object"),
        ("ollama_chat", _two_assistants, "one message"),
    ],
)
def test_a_broken_rule_is_found(target: str, broken: Callable[[Any], None], rule: str) -> None:
    body = sent(target, target).value
    broken(body)
    with pytest.raises(RuleBroken, match=rule):
        check(READERS[target](body), RULES[target])


@pytest.mark.parametrize("target", [name for name in SITES if name not in {"openai_chat (Mistral)", "ollama_chat"}])
def test_a_changed_signature_is_found(target: str) -> None:
    request = sent(target, target)
    read = READERS[target](request.value)
    signed = next(piece for turn in read.turns for piece in turn.pieces if piece.opaque)
    for turn in read.turns:
        turn.pieces[:] = [piece._replace(opaque=("x",)) if piece == signed else piece for piece in turn.pieces]
    with pytest.raises(RuleBroken, match="goes back"):
        check_opaque(read, request.body, target, target)
    other = next(name for name in SITES if not is_issuer(name, target))
    with pytest.raises(RuleBroken, match="another provider's"):
        check_opaque(READERS[target](request.value), request.body, target, other)


# --- the page ------------------------------------------------------------------------------------

LETTERS = {
    "R": losses.REASONING,
    "S": losses.SIGNATURES,
    "T": losses.CALL_SIGNATURES,
    "P": losses.PHASES,
    "C": losses.CITATIONS,
    "E": losses.ERROR_FLAGS,
    "I": losses.RESULT_IMAGES,
    "x": losses.PLACEHOLDER,
}


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    """Give the tables of the page."""
    lines = [_line("", "what does not arrive"), "|---|---|\n"]
    lines += [_line(f"**{letter}**", loss) for letter, loss in LETTERS.items()]
    lines += ["\n", _line("from ↓ to →", *(f"`{name}`" for name in SITES)), "|---" * (len(SITES) + 1) + "|\n"]
    for source in SITES:
        found = [lost(sent(source, target), target) for target in SITES]
        cells = [" ".join(letter for letter, loss in LETTERS.items() if loss in cell) or "whole" for cell in found]
        lines.append(_line(f"`{source}`", *cells))
    return "".join(lines)


def page() -> str:
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


def test_the_page_of_conversations_is_the_table() -> None:
    assert page() == PAGE.read_text("utf-8"), "run: python tests/conversation/test_matrix.py --write"


def test_every_loss_has_its_letter() -> None:
    found = {loss for source, target in PAIRS for loss in lost(sent(source, target), target)}
    assert found == set(LETTERS.values())
    assert set(READERS) == set(RULES) == set(SITES) > SAME_ISSUER


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    PAGE.write_text(page(), "utf-8")
