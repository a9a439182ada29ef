"""Nothing of a request is lost in silence: it changes the wire request, or a warning names it, or it is refused.

One table of values for all dialects, and for all hosts of the table of providers. A field or a kind of block that is
new and has no row here fails.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import NamedTuple, get_args

import pytest
from msgspec import Raw, structs

from loomstream.dialects import Quirks, Target
from loomstream.errors import RequestError, Unsupported
from loomstream.events import Opaque
from loomstream.messages import (
    Audio,
    CachePoint,
    ContentBlock,
    Document,
    FileBlock,
    Image,
    Message,
    Output,
    Reasoning,
    Refusal,
    Request,
    ResultContent,
    Role,
    ServerToolCallBlock,
    ServerToolResultBlock,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    user,
)
from loomstream.providers import DIALECTS, dialect_module, dialects_of, route
from loomstream.providers.table import TABLE

TOOL = Tool("look", "Look.", {"type": "object", "properties": {"at": {"type": "string"}}})
PLAIN = Request(messages=(user("hi"),))
ROLES: tuple[Role, ...] = get_args(Role)


class Written(NamedTuple):
    """What became of a request: what is sent, and what is said; a refusal says what it is about."""

    sent: tuple[str, frozenset[tuple[str, str]], str]
    said: frozenset[str]
    refused: bool = False


def written(request: Request, dialect: str, target: Target) -> Written:
    try:
        wire = dialect_module(dialect).build_request(request, target)
    except (RequestError, Unsupported) as error:
        return Written(("", frozenset(), ""), frozenset({str(error)}), refused=True)
    assert len(set(wire.warnings)) == len(wire.warnings), wire.warnings
    return Written((wire.url, frozenset(wire.headers.items()), wire.body.decode()), frozenset(wire.warnings))


# --- settings ----------------------------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[object, ...]] = {
    "system": ("Be brief.",),
    "tools": ((TOOL,),),
    "tool_choice": (
        ToolChoice("any"),
        ToolChoice("tool", "look"),
        ToolChoice("none"),
    ),  # `auto` is every wire's default
    "parallel_tool_calls": (False,),  # True is every wire's default
    "max_tokens": (77,),
    "temperature": (0.0, 0.7),
    "top_p": (0.5,),
    "top_k": (3,),
    "stop_sequences": (("END",),),
    "seed": (0, 7),
    "reasoning_effort": ("none", "minimal", "low", "high", "max"),
    "reasoning_budget_tokens": (0, 2000),
    "logprobs": (0, 3),
    "output": (Output(schema={"type": "object", "properties": {}, "additionalProperties": False}),),
    "cache_prompt": ("5m", "1h"),
    "prompt_cache_key": ("key",),
    "cached_content": ("cachedContents/x",),
    "metadata": ({"team": "blue"},),
    "end_user_id": ("someone",),
    "service_tier": ("flex",),
    "latency": ("optimized", "standard"),
    "prediction": ("def f():",),
    "keep_alive_s": (0.0, 60.0),
    "context_tokens": (8192,),
    "routing": ("fastest",),
    "stream": (False,),
    "extra_body": ({"own": 1},),
    "extra_headers": ({"x-own": "1"},),
}
"""The values by which each field is tried."""

NOT_OF_THE_WIRE = {
    "messages": "the blocks below",
    "output_mode": "loomstream.adapt.output",
    "tool_mode": "loomstream.adapt.prompted_tools",
    "unsupported": "loomstream.endpoint: what becomes of warnings",
    "raw_events": "loomstream.pump",
    "timeouts": "loomstream.transport",
}
"""Fields that are no dialect's business, and whose it is."""

NEEDS_TOOLS = ("tool_choice", "parallel_tool_calls")


class Host(NamedTuple):
    dialect: str
    target: Target


def hosts() -> Iterator[tuple[str, Host]]:
    """Give the dialects as they are by themselves, and each way in which a row of the table speaks one."""
    for dialect in DIALECTS:
        yield dialect, Host(dialect, Target(provider="plain", model="m", base_url="https://h.example"))
    seen: set[tuple[str, bytes]] = set()
    for row in TABLE:
        models = [row.default_model or "m", *(name for profile in row.profiles for name in profile.models)]
        for model in (name.replace("*", "").replace("[", "").split("]")[0] or "m" for name in models):
            for spoken in ("", *dialects_of(row)):
                found = route(row, model, dialect=spoken)
                settings = {setting.name: "s" for setting in row.settings}
                key = (found.dialect, repr(found.quirks).encode())
                if key not in seen:
                    seen.add(key)
                    target = Target(
                        provider=row.name,
                        model=model,
                        base_url="https://h.example",
                        quirks=found.quirks,
                        settings=settings,
                    )
                    yield f"{row.name}-{found.dialect}-{model}", Host(found.dialect, target)


HOSTS = dict(hosts())


def test_every_field_of_a_request_is_tried() -> None:
    assert set(Request.__struct_fields__) == SETTINGS.keys() | NOT_OF_THE_WIRE.keys()
    assert not SETTINGS.keys() & NOT_OF_THE_WIRE.keys()


def is_told(name: str, said: frozenset[str]) -> bool:
    words = {"reasoning_effort": ("reasoning",), "reasoning_budget_tokens": ("reasoning",), "cache_prompt": ("cache",)}
    return any(word in text for word in words.get(name, (name,)) for text in said)


def is_default(value: object, host: Host) -> bool:
    """Say whether a host with breakpoints does by itself what `cache_prompt` asks for: docs/how-to/requests.md."""
    return value == "5m" and host.target.quirks.cache_points == "prompt_cache_breakpoint"


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS.keys())
def test_a_setting_is_sent_or_named(host: Host) -> None:
    silent: list[tuple[str, object]] = []
    for name, values in SETTINGS.items():
        without = structs.replace(PLAIN, tools=(TOOL,)) if name in NEEDS_TOOLS else PLAIN
        before = written(without, *host)
        for value in values:
            after = written(structs.replace(without, **{name: value}), *host)
            if (
                after.sent == before.sent
                and not is_told(name, after.said - before.said)
                and not is_default(value, host)
            ):
                silent.append((name, value))
    assert silent == []


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS.keys())
def test_of_two_settings_of_reasoning_both_are_sent_or_named(host: Host) -> None:
    silent: list[tuple[str, int]] = []
    for effort, budget in (("high", 2000), ("high", 0), ("none", 2000)):
        both = written(structs.replace(PLAIN, reasoning_effort=effort, reasoning_budget_tokens=budget), *host)
        one = written(structs.replace(PLAIN, reasoning_effort=effort), *host)
        other = written(structs.replace(PLAIN, reasoning_budget_tokens=budget), *host)
        if both.sent in (one.sent, other.sent) and not is_told("reasoning_effort", both.said):
            silent.append((effort, budget))
    assert silent == []


# --- blocks ------------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\nmark"
PDF = b"%PDF-1.7 mark"
WAV = b"RIFF....WAVEmark"
FOREIGN = (Opaque("elsewhere", "signature", "Zm9yZWlnbg=="),)


class Case(NamedTuple):
    """A block, the field that it is about, and what must be found in the body unless something is said."""

    block: ContentBlock
    field: str
    mark: str
    without: ContentBlock | None = None
    """The block without the field."""
    carrier: str = ""
    """What is found in the body where that is sent: where it is not, and something is said, the field need not be."""


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def result(*content: ResultContent, is_error: bool = False) -> ToolResult:
    return ToolResult("call_7", content, is_error=is_error, name="look")


CASES: dict[str, Case] = {
    "text": Case(Text("a mark"), "text", "a mark"),
    "refusal": Case(Refusal("a mark"), "text", "a mark"),
    "reasoning": Case(Reasoning("a mark"), "text", "a mark"),
    "reasoning signed elsewhere": Case(Reasoning("a mark", FOREIGN), "opaque", "Zm9yZWlnbg=="),
    "tool call": Case(ToolCall("call_7", "look", '{"at":"mark"}'), "name", '"look"'),
    "its id": Case(ToolCall("call_7", "look", '{"at":"mark"}'), "id", "call_7"),
    "its arguments": Case(ToolCall("call_7", "look", '{"at":"mark"}'), "arguments", "mark"),
    "its signature from elsewhere": Case(
        ToolCall("call_7", "look", "{}", FOREIGN), "opaque", "Zm9yZWlnbg==", ToolCall("call_7", "look"), "call_7"
    ),
    "image": Case(Image(PNG), "data", encoded(PNG)),
    "image by address": Case(Image(url="https://h.example/mark.png"), "url", "https://h.example/mark.png"),
    "sound": Case(Audio(WAV), "data", encoded(WAV)),
    "sound by address": Case(Audio(url="https://h.example/mark.wav"), "url", "https://h.example/mark.wav"),
    "document": Case(Document(PDF), "data", encoded(PDF)),
    "document by address": Case(Document(url="https://h.example/mark.pdf"), "url", "https://h.example/mark.pdf"),
    "document of text": Case(Document(b"a mark", "text/plain"), "data", "a mark"),
    "its name": Case(Document(PDF, name="tides"), "name", "tides", Document(PDF), encoded(PDF)),
    "its name beside an address": Case(
        Document(url="https://h.example/a.pdf", name="tides"),
        "name",
        "tides",
        Document(url="https://h.example/a.pdf"),
        "h.example/a.pdf",
    ),
    "its citations": Case(
        Document(PDF, name="n", citations=True),
        "citations",
        '"citations":{"enabled":true}',
        Document(PDF, name="n"),
        encoded(PDF),
    ),
    "cache point": Case(CachePoint(), "", "ache"),
    "cache point of an hour": Case(CachePoint("1h"), "ttl", '"1h"', CachePoint(), "ache"),
    "tool result": Case(result(Text("a mark")), "content", "a mark"),
    "its call": Case(result(Text("a mark")), "tool_call_id", "call_7"),
    "its error": Case(result(Text("x"), is_error=True), "is_error", "rror", result(Text("x")), "call_7"),
    "image in a result": Case(result(Text("x"), Image(PNG)), "content", encoded(PNG)),
    "image by address in a result": Case(result(Image(url="https://h.example/m.png")), "content", "h.example/m.png"),
    "document in a result": Case(result(Document(PDF)), "content", encoded(PDF)),
    "document by address in a result": Case(
        result(Document(url="https://h.example/m.pdf")), "content", "h.example/m.pdf"
    ),
    "document of text in a result": Case(result(Text("x"), Document(b"a mark", "text/plain")), "content", "a mark"),
    "its name in a result": Case(
        result(Text("x"), Document(PDF, name="tides")),
        "content",
        "tides",
        result(Text("x"), Document(PDF)),
        encoded(PDF),
    ),
    "its citations in a result": Case(
        result(Document(PDF, name="n", citations=True)),
        "content",
        '"citations":{"enabled":true}',
        result(Document(PDF, name="n")),
        encoded(PDF),
    ),
    "file": Case(FileBlock("image/png", PNG), "data", encoded(PNG)),
    "file by address": Case(FileBlock("image/png", url="https://h.example/m.png"), "url", "https://h.example/m.png"),
    "file by its id": Case(FileBlock("image/png", id="file-mark"), "id", "file-mark"),
    "call of a provider's tool": Case(ServerToolCallBlock("srv_7", "search", '{"q":"mark"}'), "arguments", "mark"),
    "result of a provider's tool": Case(
        ServerToolResultBlock("srv_7", "search", Raw(b'"mark"'), raw=Raw(b'{"kind":"of another"}')), "content", "mark"
    ),
}

NOT_TRIED = {
    (Image, "media_type"): "the bytes tell it; where they do not agree, `to_messages` refuses",
    (Audio, "media_type"): "the bytes tell it; where they do not agree, `to_messages` refuses",
    (Document, "media_type"): "decides how the data is sent",
    (Text, "citations"): "an answer's sources",
    (Text, "logprobs"): "an answer's probabilities",
    (ToolCall, "executable"): "whether you may run it",
    (ToolResult, "name"): "for wires that pair results by name",
    (FileBlock, "media_type"): "with its data",
    (FileBlock, "raw"): "for its issuer",
    (ServerToolCallBlock, "id"): "goes with its raw form",
    (ServerToolCallBlock, "name"): "goes with its raw form",
    (ServerToolCallBlock, "raw"): "for its issuer",
    (ServerToolResultBlock, "tool_call_id"): "goes with its raw form",
    (ServerToolResultBlock, "name"): "goes with its raw form",
    (ServerToolResultBlock, "is_error"): "goes with its raw form",
    (ServerToolResultBlock, "raw"): "for its issuer",
}
"""Fields that tell the user something, or go back whole with another field, and why they are not tried."""


def test_every_field_of_every_block_is_tried() -> None:
    tried = {(type(case.block), case.field) for case in CASES.values() if case.field} | NOT_TRIED.keys()
    assert tried == {(kind, name) for kind in get_args(ContentBlock) for name in kind.__struct_fields__}


def turn(role: Role, *blocks: ContentBlock) -> Request:
    """Give a conversation with such a turn, which a user began; a system turn stands first."""
    said = Message(role, (Text("hi"), *blocks))
    return Request(messages=(said, user("go")) if role == "system" else (user("go"), said))


BLOCK_HOSTS = {
    **{name: HOSTS[name] for name in DIALECTS},
    "gemini by budget": Host("gemini", Target(provider="p", model="m", quirks=Quirks(thinking_by="budget"))),
    "chat of other forms": Host(
        "openai_chat",
        Target(
            provider="p",
            model="m",
            quirks=Quirks(reasoning_back="parts", documents="file_url", audio_as="text", system_role="user"),
        ),
    ),
    "chat without files": Host(
        "openai_chat", Target(provider="p", model="m", quirks=Quirks(documents="", audio_formats=()))
    ),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("host", BLOCK_HOSTS.values(), ids=BLOCK_HOSTS.keys())
def test_a_block_is_sent_or_named(host: Host, role: Role) -> None:
    plain = written(turn(role), *host)
    silent: list[str] = []
    for name, case in CASES.items():
        after = written(turn(role, case.block), *host)
        base = plain if case.without is None else written(turn(role, case.without), *host)
        left_out_anyway = case.carrier not in base.sent[2] and base.said - plain.said
        body = after.sent[2]
        found = case.mark in body or encoded(case.mark.encode()) in body
        if not found and not after.said - base.said and not left_out_anyway:
            silent.append(name)
    assert silent == []
