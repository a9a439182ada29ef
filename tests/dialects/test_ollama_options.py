# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
"""What Ollama's wire carries beside text and tools: structured output, probabilities, loading, and what it leaves."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from goldens import Goldens, frame, line_frames, split

from loomstream.accumulate import fold
from loomstream.dialects import Target
from loomstream.dialects import ollama_chat as dialect
from loomstream.dialects.ollama_chat.discovery import load_request
from loomstream.errors import RequestError
from loomstream.events import Logprobs, Notice, TokenLogprob
from loomstream.messages import (
    Audio,
    CachePoint,
    ContentBlock,
    Document,
    FileBlock,
    Image,
    Message,
    Output,
    Request,
    Text,
    user,
)
from loomstream.testing import check_order
from loomstream.wire import Frame

TARGET = Target(provider="ollama", model="qwen3:4b", base_url="http://localhost:11434")
GOLDENS = Goldens(dialect, TARGET, "ollama_chat", line_frames, after=frame({"done": True}))
HI = {"model": "qwen3:4b", "messages": [{"role": "user", "content": "hi"}], "stream": True}
DONE = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4}
PNG = b"\x89PNG\r\n\x1a\n"


def asking(**settings: Any) -> Request:
    return Request(messages=(user("hi"),), **settings)


def built(request: Request) -> tuple[Any, tuple[str, ...]]:
    wire_request = dialect.build_request(request, TARGET)
    return json.loads(wire_request.body), wire_request.warnings


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"keep_alive_s": 300}, {"keep_alive": 300}),
        ({"keep_alive_s": 0}, {"keep_alive": 0}),
        ({"keep_alive_s": -1}, {"keep_alive": -1}),
        ({"keep_alive_s": 0.5}, {"keep_alive": "500ms"}),
        ({"context_tokens": 8192}, {"options": {"num_ctx": 8192}}),
        ({"context_tokens": 8192, "extra_body": {"num_ctx": 4096}}, {"options": {"num_ctx": 4096}}),
        ({"logprobs": 0}, {"logprobs": True}),
        ({"logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    ],
)
def test_options(settings: dict[str, Any], fields: dict[str, Any]) -> None:
    assert built(asking(**settings)) == ({**HI, **fields}, ())


@pytest.mark.parametrize(
    "settings",
    [
        {"cache_prompt": "5m"},
        {"prompt_cache_key": "k"},
        {"cached_content": "c"},
        {"metadata": {"a": "b"}},
        {"end_user_id": "u"},
        {"service_tier": "flex"},
        {"latency": "optimized"},
        {"prediction": "p"},
        {"routing": "fastest"},
    ],
)
def test_options_that_the_wire_has_not(settings: dict[str, Any]) -> None:
    [name] = settings
    assert built(asking(**settings)) == (HI, (f"{name} is not sent: this wire has none",))


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
def test_a_time_that_is_not_finite_is_refused(seconds: float) -> None:
    with pytest.raises(RequestError, match=r"keep_alive_s is (inf|nan): give seconds, or -1 for ever"):
        built(asking(keep_alive_s=seconds))


# --- structured output -------------------------------------------------------------------------------------------


def test_an_answer_of_a_schema() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "pattern": "^[A-Z]"}}, "required": ["city"]}
    output = Output(schema=schema, description="Where.")
    assert built(asking(output=output)) == ({**HI, "format": {"description": "Where.", **schema}}, ())


def test_what_no_grammar_holds_is_sent_and_named_by_its_path() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "array", "uniqueItems": True}}, "minProperties": 1}
    body, warnings = built(asking(output=Output(schema=schema, strict=False)))
    assert body["format"] == schema
    assert warnings == (
        "output.strict is not sent: this wire is always strict",
        "this wire does not hold the answer to output.schema.properties.n.uniqueItems, output.schema.minProperties",
    )


def test_a_schema_that_is_none_is_refused_with_its_path() -> None:
    with pytest.raises(RequestError, match=r"output\.schema\.items is a str: give a JSON Schema"):
        built(asking(output=Output(schema={"items": "string"})))


# --- blocks ------------------------------------------------------------------------------------------------------


def test_images_go_as_their_bytes() -> None:
    body, warnings = built(Request(messages=(Message("user", (Text("see"), Image(PNG))),)))
    assert body["messages"] == [{"role": "user", "content": "see", "images": [base64.b64encode(PNG).decode()]}]
    assert warnings == ()


@pytest.mark.parametrize(
    ("block", "warning"),
    [
        (Image(url="https://host.example/a"), "images by URL are not sent: this wire takes their bytes"),
        (Audio(b"ID3", "audio/mpeg"), "audio is not sent: this wire takes none"),
        (Document(b"a", "text/plain"), "documents are not sent: this wire takes text and images"),
        (CachePoint(), "cache points are not sent: this server caches by itself"),
        (
            FileBlock("image/png", PNG),
            "files that a model made, and calls of a provider's own tools, are not sent",
        ),
    ],
)
def test_what_the_wire_cannot_carry_is_left_out_and_named(block: ContentBlock, warning: str) -> None:
    assert built(Request(messages=(Message("user", (Text("hi"), block)),))) == (HI, (warning,))


# --- loading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"keep_alive_s": -1}, {"keep_alive": -1}),
        ({"keep_alive_s": 60, "context_tokens": 8192}, {"keep_alive": 60, "options": {"num_ctx": 8192}}),
        (
            {"keep_alive_s": 60, "extra_body": {"num_gpu": 2, "temperature": 0, "options": {"num_thread": 1}}},
            {"keep_alive": 60, "options": {"num_gpu": 2, "num_thread": 1}},
        ),
        ({"keep_alive_s": 60, "extra_body": {"options": "none"}}, {"keep_alive": 60}),
    ],
)
def test_a_model_is_loaded_as_the_request_would_have_it(settings: dict[str, Any], fields: dict[str, Any]) -> None:
    wire_request = load_request(TARGET, asking(temperature=0.5, **settings))
    assert (wire_request.method, wire_request.url) == ("POST", "http://localhost:11434/api/generate")
    assert json.loads(wire_request.body) == {"model": "qwen3:4b", "stream": False, **fields}


# --- token probabilities -----------------------------------------------------------------------------------------


def likely(*tokens: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"token": token, "logprob": logprob} for token, logprob in tokens]


def whole(message: dict[str, Any], logprobs: Any) -> list[Any]:
    body = json.dumps({"model": "m", "message": message, "logprobs": logprobs, **DONE}).encode()
    events, error = split(dialect.parse_response(body, TARGET))
    assert error is None
    check_order(events)
    return events


def test_a_whole_answer_has_the_probabilities_of_the_stream() -> None:
    lines = [
        {"message": {"thinking": "Hm."}, "logprobs": likely(("Hm", -0.5), (".", -0.25))},
        {"message": {"content": "Tide"}, "logprobs": likely(("Tide", -1))},
        {"message": {"content": "s."}, "logprobs": likely(("s", -2), (".", -3))},
    ]
    streamed, _ = GOLDENS.translate([*(frame({"model": "m", "done": False, **line}) for line in lines), frame(DONE)])
    tokens = likely(("Hm", -0.5), (".", -0.25), ("</think>", 0), ("\n\n", 0), ("Tide", -1), ("s", -2), (".", -3))
    events = whole({"thinking": "Hm.", "content": "Tides."}, tokens)
    assert fold(events) == fold(streamed)
    expected = (TokenLogprob("Tide", -1), TokenLogprob("s", -2), TokenLogprob(".", -3))
    assert fold(events).message.content[1] == Text("Tides.", logprobs=expected)


@pytest.mark.parametrize("tokens", [likely(("other", -1)), likely(("x", -1), ("a longer one", -1)), 7, [{"token": 1}]])
def test_probabilities_that_cannot_be_placed_are_told(tokens: Any) -> None:
    events = whole({"thinking": "Hm.", "content": "Tides."}, tokens)
    assert not any(isinstance(event, Logprobs) for event in events)
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert notice.detail == "token probabilities that belong to no text, or cannot be read, are left out"


def test_probabilities_of_a_call_are_told_once() -> None:
    call = {"message": {"tool_calls": [{"function": {"name": "f"}}]}, "logprobs": likely(("{", -1))}
    events, _ = GOLDENS.translate([frame(call), frame(call), frame(DONE)])
    assert sum(isinstance(event, Notice) for event in events) == 1


def test_no_event_holds_half_a_character() -> None:
    token = rb'{"token":"\ud83d","logprob":-1,"top_logprobs":[{"token":"\ude00","logprob":-2}]}'
    line = Frame("", b'{"message":{"content":"a"},"logprobs":[' + token + b"]}")
    events, _ = GOLDENS.translate([line, frame(DONE)])
    [logprobs] = [event for event in events if isinstance(event, Logprobs)]
    assert logprobs.tokens == (TokenLogprob("\ufffd", -1, (("\ufffd", -2),)),)
