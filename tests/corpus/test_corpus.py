"""Every recorded exchange, decoded, against an independent reading of the same bytes."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
import oracle
from apis import APIS

from loomstream import decode
from loomstream.accumulate import Accumulator
from loomstream.errors import LoomstreamError, ProviderError, StreamTruncated
from loomstream.events import Event, Opaque, Start, Unknown
from loomstream.messages import (
    ContentBlock,
    Message,
    Reasoning,
    Refusal,
    Response,
    ServerToolCallBlock,
    ServerToolResultBlock,
    Text,
    ToolCall,
)
from loomstream.providers import all_providers
from loomstream.testing import check_order

PROVIDERS = {
    ("other-anthropic-compatible", "messages"): "anthropic",
    ("vertex", "anthropic-rawPredict"): "vertex-ai",
    ("vertex", "generateContent"): "vertex-ai",
    ("vertex", "streamGenerateContent"): "vertex-ai",
    ("ollama", "chat.completions"): "openai-compatible",
    ("gemini", "chat.completions"): "openai-compatible",
    ("azure", "chat.completions"): "azure-openai",
    ("copilot", "chat.completions"): "github-copilot",
    ("azure", "responses"): "azure-openai",
    ("copilot", "responses"): "github-copilot",
}
"""(host, api) to the provider's name, where it is not the host's own. A host without a row is `openai-compatible`."""

ROWS = {row.name for row in all_providers()}

DELIBERATE: dict[str, dict[str, str]] = {}
"""Exchange id to {key of `differences`: why loomstream differs from the oracle there on purpose}. Empty is the aim."""

NOTHING = Message("assistant", ())

BYTE_BY_BYTE_BYTES = 20_000
"""Bodies up to this size are also fed one byte at a time."""

Differences = dict[str, tuple[object, object]]
"""{field: (loomstream's, the oracle's)}"""


@dataclass
class Outcome:
    """What decoding gave."""

    events: list[Event] = field(default_factory=list)
    error: LoomstreamError | None = None

    @property
    def response(self) -> Response:
        fold = Accumulator()
        for event in self.events:
            fold.add(event)
        return fold.response


def provider_of(recorded: dict[str, Any]) -> str:
    name = PROVIDERS.get((recorded["provider"], recorded["api"]), recorded["provider"])
    return name if name in ROWS else "openai-compatible"


def run(recorded: dict[str, Any], chunks: list[bytes]) -> Outcome:
    """Decode; only a LoomstreamError may end it early."""
    outcome = Outcome()
    meta = recorded["meta"]
    events = decode(
        provider_of(recorded),
        chunks,
        dialect=APIS[recorded["api"]].dialect,
        content_type=meta["content_type"],
        status=meta["status"],
        headers=meta["response_headers"],
        model=meta["model"],
    )
    try:
        for event in events:
            outcome.events.append(event)
    except LoomstreamError as error:
        outcome.error = error
    return outcome


def messages_of(response: Response) -> dict[int, Message]:
    """Give each choice's message. A choice that said nothing is not among them."""
    return {choice.index: choice.message for choice in response.choices}


def blocks_of(message: Message, kind: type[ContentBlock]) -> list[Any]:
    return [block for block in message.content if isinstance(block, kind)]


def opaques_of(message: Message) -> list[Opaque]:
    return [opaque for block in message.content for opaque in getattr(block, "opaque", ())]


def details_of(opaques: list[Opaque]) -> list[dict[str, Any]]:
    """Give the `reasoning_details` that were kept, whether one by one or as lists."""
    values = [json.loads(opaque.data) for opaque in opaques if opaque.kind == "details"]
    return list(itertools.chain.from_iterable(value if isinstance(value, list) else [value] for value in values))


def citations_of(message: Message) -> list[str]:
    texts: list[Text] = blocks_of(message, Text)
    return [citation.url or citation.cited_text for text in texts for citation in text.citations]


def as_json(text: str) -> str:
    """Give a JSON text in one spelling; a text that is cut as it is."""
    try:
        return oracle.canonical(json.loads(text))
    except ValueError:
        return text


def same_arguments(got: ToolCall, want: oracle.Call) -> str:
    """Give the arguments to compare: text for text, but value for value where the wire has a whole object."""
    return as_json(got.arguments) if want.whole else got.arguments


def seen_of(message: Message, want: oracle.Answer) -> dict[str, object]:
    """Give what a message holds, in the oracle's words."""
    calls = blocks_of(message, ToolCall)
    opaques = opaques_of(message)
    signatures = [opaque.data for opaque in opaques if opaque.kind != "details"]
    seen: dict[str, object] = {
        "text": message.text,
        "reasoning": "".join(block.text for block in blocks_of(message, Reasoning)),
        "refusal": "".join(block.text for block in blocks_of(message, Refusal)),
        "calls": [
            (call.name, same_arguments(call, expected) if expected else call.arguments, call.executable)
            for call, expected in itertools.zip_longest(calls, want.calls[: len(calls)])
        ],
        "signatures": signatures,
        "details": oracle.merge_details(details_of(opaques)),
        "citations": citations_of(message),
        "server_calls": [(block.name, as_json(block.arguments)) for block in blocks_of(message, ServerToolCallBlock)],
        "server_results": [
            oracle.canonical(msgspec.json.decode(block.content)) for block in blocks_of(message, ServerToolResultBlock)
        ],
    }
    if want.blocks:
        seen["blocks"] = [described for block in message.content if (described := describe(block))[1]]
    return seen


def describe(block: ContentBlock) -> tuple[str, str]:
    """Give a block's kind and what tells it apart."""
    match block:
        case Text(text=text):
            return "text", text
        case Reasoning(text=text):
            return "reasoning", text
        case ToolCall(name=name):
            return "tool_call", name
        case ServerToolCallBlock(name=name):
            return "server_tool_call", name
        case ServerToolResultBlock(tool_call_id=id_):
            return "server_tool_result", id_
        case _:
            return type(block).__name__, "?"


def wanted_of(want: oracle.Answer) -> dict[str, object]:
    """Give what the oracle found, in the same form."""
    wanted: dict[str, object] = {
        "text": want.text,
        "reasoning": want.reasoning,
        "refusal": want.refusal,
        "calls": [(call.name, call.arguments, call.executable) for call in want.calls],
        "signatures": want.signatures,
        "details": oracle.merge_details(want.details),
        "citations": want.citations,
        "server_calls": [(name, as_json(arguments)) for _, name, arguments in want.server_calls],
        "server_results": [
            content if content.startswith(("{", "[")) else oracle.canonical(content)
            for _, content in want.server_results
        ],
    }
    if want.blocks:
        wanted["blocks"] = want.blocks
    return wanted


def differences(response: Response, reading: oracle.Reading) -> Differences:
    """Give {field: (loomstream's, the oracle's)} for all that differs."""
    messages = messages_of(response)
    found: Differences = {}
    for index in sorted(messages.keys() | reading.answers.keys()):
        message, answer = messages.get(index, NOTHING), reading.answers.get(index, oracle.Answer())
        seen, want = seen_of(message, answer), wanted_of(answer)
        found |= {f"{index}.{key}": (seen[key], want[key]) for key in want if seen[key] != want[key]}
        found |= id_differences(index, blocks_of(message, ToolCall), answer.calls)
    if response.message != messages.get(0, NOTHING):
        found["message"] = (response.message, messages.get(0))
    usage = None if response.usage is None else {key: getattr(response.usage, key) for key in oracle.NO_USAGE}
    if usage != reading.usage:
        found["usage"] = (usage, reading.usage)
    return found


def id_differences(index: int, calls: list[ToolCall], wanted: list[oracle.Call]) -> Differences:
    """Ids are the provider's; where it sends none, one is made, and it is unique."""
    pairs = [(call.id, want.id) for call, want in zip(calls, wanted, strict=False)]
    wrong = [(got, want) for got, want in pairs if got != want and want]
    made = [got for got, want in pairs if not want]
    if wrong or not all(made) or len(set(made)) != len(made):
        return {f"{index}.ids": ([got for got, _ in pairs], [want for _, want in pairs])}
    return {}


def unexplained(recorded: dict[str, Any], found: Differences) -> Differences:
    explained = DELIBERATE.get(recorded["id"], {})
    return {key: value for key, value in found.items() if key not in explained}


def check_end(recorded: dict[str, Any], outcome: Outcome, reading: oracle.Reading) -> None:
    """The stream ends as the oracle says: with the provider's error, truncated, or in one `Stop`."""
    check_order(outcome.events, complete=outcome.error is None)
    if reading.error is not None:
        assert isinstance(outcome.error, ProviderError)
        assert reading.error in str(outcome.error)
        return
    if not reading.complete:
        assert isinstance(outcome.error, StreamTruncated)
        return
    assert outcome.error is None
    stop = outcome.response.stop
    assert stop is not None
    assert stop.raw == reading.answers[0].stop
    assert stop.reason in APIS[recorded["api"]].reasons[reading.answers[0].stop]
    assert outcome.response.usage is None or outcome.response.usage.final


def reading_of(recorded: dict[str, Any]) -> oracle.Reading:
    return oracle.read(APIS[recorded["api"]], recorded["body"], streaming=recorded["streaming"])


def test_the_oracle_finds_what_the_recording_is_labelled_with(exchange: dict[str, Any]) -> None:
    """The labels come from pattern matching over the bytes; these four are right where an api does not say else."""
    reading = reading_of(exchange)
    answers = reading.answers.values()
    found = {
        "usage": reading.usage is not None,
        "tool_calls": any(answer.calls for answer in answers),
        "truncated_by_length": any(answer.stop in oracle.STOPS_AT_A_LIMIT for answer in answers),
        "error_midstream": reading.error is not None,
    }
    telling = found.keys() - APIS[exchange["api"]].mislabelled
    assert {label for label in telling if found[label]} == telling & set(exchange["features"])


def test_an_exchange_holds_what_its_bytes_say(exchange: dict[str, Any]) -> None:
    reading = reading_of(exchange)
    outcome = run(exchange, [exchange["body"]])
    assert any(isinstance(event, Start) for event in outcome.events)
    assert unexplained(exchange, differences(outcome.response, reading)) == {}
    check_end(exchange, outcome, reading)


def strings_in(value: object) -> set[str]:
    """Give every string inside a JSON value."""
    if isinstance(value, dict):
        return strings_in([*value.keys(), *value.values()])
    if isinstance(value, list):
        return set().union(*map(strings_in, value))
    return {value} if isinstance(value, str) else set()


def test_nothing_without_a_kind_is_lost(exchange: dict[str, Any]) -> None:
    events = run(exchange, [exchange["body"]]).events
    told = set().union(*(strings_in(json.loads(event.data)) for event in events if isinstance(event, Unknown)))
    assert set(reading_of(exchange).kept) <= told


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


def cuttings(recorded: dict[str, Any]) -> list[list[bytes]]:
    """Give the body in pieces: at a few places, at many, and byte by byte where it is small."""
    body = recorded["body"]
    places = random.Random(recorded["id"])  # noqa: S311 (repeatable, not secret)
    pieces = [cut(body, [places.randrange(len(body) + 1) for _ in range(number)]) for number in (1, 3, 40)]
    if len(body) <= BYTE_BY_BYTE_BYTES:
        pieces.append([body[at : at + 1] for at in range(len(body))])
    return pieces


def test_the_events_do_not_depend_on_how_the_bytes_are_cut(any_exchange: dict[str, Any]) -> None:
    whole = run(any_exchange, [any_exchange["body"]])
    for pieces in cuttings(any_exchange):
        again = run(any_exchange, pieces)
        assert again.events == whole.events
        assert type(again.error) is type(whole.error)
        assert str(again.error) == str(whole.error)


def places_to_end(recorded: dict[str, Any]) -> list[int]:
    """Give some places between two frames, the last ones among them."""
    ends = APIS[recorded["api"]].ends(recorded["body"])
    places = random.Random(recorded["id"])  # noqa: S311 (repeatable, not secret)
    return sorted({*places.sample(ends, min(6, len(ends))), *ends[-4:]})


def test_a_stream_that_ends_early_is_never_passed_off_as_whole(stream: dict[str, Any]) -> None:
    for place in places_to_end(stream):
        body = stream["body"][:place]
        reading = oracle.read(APIS[stream["api"]], body, streaming=True)
        outcome = run(stream, [body])
        check_end(stream, outcome, reading)
        found = differences(outcome.response, reading)
        compared = {key for key in found if key.endswith((".text", ".reasoning", ".refusal"))}
        assert {key: found[key] for key in compared} == {}


def test_a_stream_cut_inside_its_first_frame_is_an_error(stream: dict[str, Any]) -> None:
    first = stream["body"].index(b"{")
    outcome = run(stream, [stream["body"][: first + 12]])
    assert isinstance(outcome.error, LoomstreamError)
    assert outcome.response.stop is None
    assert outcome.response.text == ""


def test_a_refused_request_is_a_typed_error_with_the_providers_words(refused_exchange: dict[str, Any]) -> None:
    outcome = run(refused_exchange, [refused_exchange["body"]])
    assert outcome.events == []
    assert isinstance(outcome.error, ProviderError)
    assert type(outcome.error) is not ProviderError
    assert outcome.error.status == refused_exchange["status"]
    assert oracle.error_message(refused_exchange["body"]) in str(outcome.error)
