# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.session import get_session
from goldens import Goldens, split

from loomstream import decode
from loomstream.accumulate import fold
from loomstream.dialects import Quirks, Target
from loomstream.dialects import bedrock_invoke as dialect
from loomstream.errors import BadFrame, RequestError, UnexpectedContent, Unsupported
from loomstream.messages import Document, Image, Message, Output, Request, Tool, system, user
from loomstream.providers import look_up, route
from loomstream.testing import check_order
from loomstream.wire import Frame

HOST = "https://bedrock-runtime.us-west-2.amazonaws.com"
TARGET = Target(provider="bedrock", model="us.anthropic.claude-opus-4-6-v1", base_url=HOST)
VERSION = {"anthropic_version": "bedrock-2023-05-31"}
HI: Any = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def aws_frames(body: bytes) -> list[Frame]:
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [Frame(str(one.headers.get(":event-type", "")), one.payload, one.headers) for one in buffer]


GOLDENS = Goldens(dialect, TARGET, "bedrock_invoke", aws_frames, after=Frame("chunk", b"{}"))
PLAIN = [name for name in GOLDENS.healthy if name != "frame-unknown"]
LEGACY = [name for name in PLAIN if not name.startswith(("messages", "after", "chunk")) and "surrogates" not in name]


def chunk(value: Any) -> Frame:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Frame("chunk", json.dumps({"bytes": base64.b64encode(data).decode()}).encode())


# --- streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_no_damaged_node_breaks_the_law(name: str) -> None:
    whole = fold(GOLDENS.translate(GOLDENS.respelt(name))[0])
    for path, (events, error) in GOLDENS.damage(name):
        if path == ("p",):
            assert error is None
            assert fold(events) == whole


@pytest.mark.parametrize("name", LEGACY)
def test_no_damaged_member_of_a_completion_breaks_the_law(name: str) -> None:
    frames = GOLDENS.frames(name)
    for position, one in enumerate(frames):
        inner = json.loads(base64.b64decode(json.loads(one.data)["bytes"]))
        for key in inner:
            for value in (None, 7, -1, 1.5, "x", True, [], {}, [{}], [7]):
                damaged = [*frames[:position], chunk({**inner, key: value}), *frames[position + 1 :]]
                events, error = GOLDENS.translate(damaged)
                check_order(events, complete=error is None)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}", b"x" * 1000])
def test_garbage_is_a_bad_frame(data: bytes) -> None:
    events, error = GOLDENS.translate([Frame("chunk", data)])
    assert events == []
    assert isinstance(error, BadFrame)
    assert (error.provider, error.model) == ("bedrock", TARGET.model)


@pytest.mark.parametrize("value", [{"embedding": [1]}, {"contentBlockDelta": {}}, {"": 1}])
def test_another_family_is_unexpected_and_told_what_to_use(value: Any) -> None:
    for items in (
        GOLDENS.translate([chunk(value)]),
        split(dialect.parse_response(json.dumps(value).encode(), TARGET)),
    ):
        assert items[0] == []
        assert isinstance(items[1], UnexpectedContent)
        assert next(iter(value)) in str(items[1])
        assert "bedrock_converse" in str(items[1])


def test_a_stream_by_its_own_name() -> None:
    body = (GOLDENS.folder / "messages.bin").read_bytes()
    assert fold(list(decode("bedrock", body, dialect="bedrock_invoke"))).text == "Olá"


def test_it_is_selected_by_name_alone() -> None:
    row = look_up("bedrock")
    assert route(row, TARGET.model).dialect == "bedrock_converse"
    assert route(row, TARGET.model, dialect="bedrock_invoke").dialect == "bedrock_invoke"


# --- requests ----------------------------------------------------------------------------------------------------


def asked(**fields: Any) -> Request:
    return Request(messages=(user("Hi"),), **fields)


BODIES: dict[str, tuple[Request, Any]] = {
    "plain": (asked(), {**VERSION, "messages": [HI], "max_tokens": 4096}),
    "whole": (asked(stream=False), {**VERSION, "messages": [HI], "max_tokens": 4096}),
    "settings": (
        asked(max_tokens=9, temperature=0.5, top_k=3, system="S"),
        {**VERSION, "messages": [HI], "max_tokens": 9, "temperature": 0.5, "top_k": 3, "system": "S"},
    ),
    "tools": (
        asked(max_tokens=9, tools=(Tool("f"),)),
        {
            **VERSION,
            "messages": [HI],
            "max_tokens": 9,
            "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
        },
    ),
    "betas": (
        asked(max_tokens=9, extra_headers={"Anthropic-Beta": "one-2026, two-2026,", "x-own": "1"}),
        {**VERSION, "messages": [HI], "max_tokens": 9, "anthropic_beta": ["one-2026", "two-2026"]},
    ),
    "cache": (
        asked(max_tokens=9, system="S", cache_prompt="1h"),
        {
            **VERSION,
            "messages": [{"role": "user", "content": [{**HI["content"][0], "cache_control": HOUR}]}],
            "system": [{"type": "text", "text": "S", "cache_control": HOUR}],
            "max_tokens": 9,
        },
    ),
    "output": (
        asked(max_tokens=9, output=Output(schema={"type": "object", "properties": {}})),
        {
            **VERSION,
            "messages": [HI],
            "max_tokens": 9,
            "output_config": {
                "format": {
                    "type": "json_schema",
                    "schema": {"type": "object", "properties": {}, "additionalProperties": False},
                }
            },
        },
    ),
    "extra": (
        asked(max_tokens=9, extra_body={"anthropic_beta": ["three"]}, extra_headers={"anthropic-beta": "one"}),
        {**VERSION, "messages": [HI], "max_tokens": 9, "anthropic_beta": ["three"]},
    ),
}


@pytest.mark.parametrize(("request_", "body"), BODIES.values(), ids=BODIES)
def test_the_body(request_: Request, body: Any) -> None:
    assert json.loads(dialect.build_request(request_, TARGET).body) == body


def test_the_addresses_and_headers() -> None:
    target = Target(provider="bedrock", model="anthropic.claude-x-v1:0", base_url=HOST)
    streamed = dialect.build_request(asked(extra_headers={"anthropic-beta": "one", "x-own": "1"}), target)
    whole = dialect.build_request(asked(stream=False), target)
    assert streamed.url == f"{HOST}/model/anthropic.claude-x-v1%3A0/invoke-with-response-stream"
    assert whole.url == f"{HOST}/model/anthropic.claude-x-v1%3A0/invoke"
    assert streamed.headers == {
        "content-type": "application/json",
        "accept": "application/vnd.amazon.eventstream, application/json",
        "x-amzn-bedrock-accept": "application/json",
        "x-own": "1",
    }
    assert whole.headers == {"content-type": "application/json", "accept": "application/json"}


def test_labels_latency_and_service_tier_are_headers() -> None:
    request = asked(metadata={"team": "a", "n": "1"}, latency="optimized", service_tier="flex")
    streamed = dialect.build_request(request, TARGET)
    assert streamed.body == dialect.build_request(asked(), TARGET).body
    assert streamed.headers == {
        **dialect.build_request(asked(), TARGET).headers,
        "x-amzn-bedrock-performanceconfig-latency": "optimized",
        "x-amzn-bedrock-service-tier": "flex",
        "x-amzn-bedrock-request-metadata": '{"team":"a","n":"1"}',
    }
    assert streamed.warnings == ()
    members = get_session().get_service_model("bedrock-runtime").operation_model("InvokeModel").input_shape.members
    known = {shape.serialization.get("name", "").lower() for shape in members.values()}
    assert {name for name in streamed.headers if name.startswith("x-amzn-bedrock-") and "accept" not in name} <= known


def test_labels_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(RequestError, match=r"metadata\['a!'\]"):
        dialect.build_request(asked(metadata={"a!": "b"}), TARGET)


@pytest.mark.parametrize("block", [Image(url="https://e.x/a.png"), Document(url="https://e.x/a.pdf")])
def test_nothing_is_fetched_here(block: Image | Document) -> None:
    with pytest.raises(Unsupported, match=r"messages\[0\]\.content\[0\]: bedrock fetches nothing for this model"):
        dialect.build_request(Request(messages=(Message("user", (block,)),)), TARGET)


def test_who_asks_is_not_sent_and_told() -> None:
    written = dialect.build_request(asked(end_user_id="u", logprobs=1), TARGET)
    assert written.body == dialect.build_request(asked(), TARGET).body
    assert written.warnings == (
        "logprobs is not sent: this wire has none",
        "end_user_id is not sent: this wire has none",
    )


def test_a_rows_own_quirks_count() -> None:
    quirks = Quirks(anthropic_version="v9", needs_max_tokens=7, path="/x/{model}", stream_path="/y/{model}")
    target = Target(provider="bedrock", model="m", base_url=HOST, quirks=quirks)
    streamed, whole = dialect.build_request(asked(), target), dialect.build_request(asked(stream=False), target)
    assert json.loads(streamed.body) == {"messages": [HI], "anthropic_version": "v9", "max_tokens": 7}
    assert (streamed.url, whole.url) == (f"{HOST}/y/m", f"{HOST}/x/m")


def test_what_is_not_sent_is_told() -> None:
    request = Request(messages=(user("a"), system("late")), seed=1)
    told = " ".join(dialect.build_request(request, TARGET).warnings)
    assert "seed" in told
    assert "at its beginning" in told


def test_a_body_that_is_no_json_is_refused() -> None:
    with pytest.raises(RequestError):
        dialect.build_request(asked(extra_body={"x": object()}), TARGET)
