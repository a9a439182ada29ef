# ruff: noqa: ANN401 (these tests take apart JSON of any shape)
"""Chat Completions: the optional fields of a request as the body's keys, host by host, or named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from loomstream.dialects import Quirks, Target, openai_chat
from loomstream.errors import RequestError
from loomstream.messages import Effort, Output, Request, user
from loomstream.providers import look_up, route
from loomstream.providers.table import TABLE

sys.path.insert(0, str(Path(__file__).parent))

from test_openai_chat_hosts import target_of

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
LOOSE = {"type": "object", "properties": {"city": {"type": "string", "default": "Oslo"}}}
PLAIN = Target(provider="host", model="m", base_url="https://host/v1")
EVERY: dict[str, Any] = {
    "logprobs": 2,
    "output": Output(schema=SCHEMA),
    "prediction": "old",
    "prompt_cache_key": "k",
    "end_user_id": "u",
    "service_tier": "flex",
    "metadata": {"a": "b"},
    "extra_body": {"store": True},
}


def added(to: Target = PLAIN, **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Give what fields add to a body, and the warnings."""
    wire = openai_chat.build_request(Request(messages=(user("hi"),), stream=False, **fields), to)
    body = json.loads(wire.body)
    assert body.pop("messages") == [{"role": "user", "content": "hi"}]
    assert body.pop("model") == to.model
    return body, wire.warnings


def test_every_option_has_its_key_at_openai() -> None:
    body, warnings = added(target_of("openai", "gpt-4o"), **EVERY)
    assert warnings == ()
    assert body == {
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
        "prediction": {"type": "content", "content": "old"},
        "prompt_cache_key": "k",
        "safety_identifier": "u",
        "service_tier": "flex",
        "metadata": {"a": "b"},
        "store": True,
    }


@pytest.mark.parametrize(
    ("provider", "fields", "body"),
    [
        ("azure-openai", {"end_user_id": "u"}, {"user": "u"}),
        ("groq", {"end_user_id": "u", "service_tier": "flex"}, {"user": "u", "service_tier": "flex"}),
        (
            "mistral",
            {"metadata": {"a": "b"}, "prompt_cache_key": "k"},
            {"metadata": {"a": "b"}, "prompt_cache_key": "k"},
        ),
        ("mistral", {"prediction": "old"}, {"prediction": {"type": "content", "content": "old"}}),
        ("moonshot", {"end_user_id": "u"}, {"safety_identifier": "u"}),
        ("together", {"logprobs": 0}, {"logprobs": 1}),
        ("together", {"logprobs": 3}, {"logprobs": 3}),
        ("openai", {"logprobs": 0}, {"logprobs": True}),
        ("openrouter", {"cache_prompt": "1h"}, {"cache_control": {"type": "ephemeral", "ttl": "1h"}}),
        ("cerebras", {"prompt_cache_key": "k"}, {"prompt_cache_key": "k"}),
    ],
)
def test_a_host_s_own_keys(provider: str, fields: dict[str, Any], body: object) -> None:
    assert added(target_of(provider), **fields) == (body, ())


@pytest.mark.parametrize(
    ("provider", "left_out"),
    [
        ("groq", {"logprobs", "prediction", "prompt_cache_key", "metadata"}),
        ("cerebras", {"metadata"}),
        ("mistral", {"end_user_id"}),
        ("xai", {"prediction", "prompt_cache_key", "metadata"}),
        *(
            (name, {"prediction", "prompt_cache_key", "service_tier", "metadata", "end_user_id"})
            for name in ("deepseek", "together", "perplexity", "vllm", "llamacpp", "lmstudio", "mistralrs", "gpustack")
        ),
        ("zai", {"logprobs", "prediction", "prompt_cache_key", "service_tier", "metadata", "end_user_id"}),
    ],
)
def test_what_a_host_does_not_know_is_named(provider: str, left_out: set[str]) -> None:
    fields = {key: value for key, value in EVERY.items() if key != "output"}
    body, warnings = added(target_of(provider), **fields)
    assert set(warnings) == {f"{name} is not sent: this host does not take it" for name in left_out}
    keys = {"logprobs": "logprobs", "end_user_id": "user"}
    assert not body.keys() & {keys.get(name, name) for name in left_out}
    assert body.keys() >= {keys.get(name, name) for name in fields.keys() - left_out - {"extra_body"}}


@pytest.mark.parametrize("model", ["o3", "o4-mini", "gpt-5", "gpt-5.1"])
@pytest.mark.parametrize("effort", ["low"])
def test_models_that_reason_give_no_probabilities_and_take_no_draft(model: str, effort: Effort) -> None:
    body, warnings = added(target_of("openai", model), logprobs=1, prediction="x", reasoning_effort=effort)
    assert body == {"reasoning_effort": "low"}
    assert warnings == (
        "logprobs is not sent: this model does not take it",
        "prediction is not sent: this model does not take it",
    )


def test_metadata_is_kept_with_stored_answers_alone() -> None:
    body, warnings = added(target_of("openai", "gpt-4o"), metadata={"a": "b"})
    assert body == {}
    assert warnings == (
        "metadata is not sent: this host keeps it with stored answers alone: give extra_body={'store': True} too",
    )
    assert added(target_of("openai", "gpt-4o"), metadata={"a": "b"}, extra_body={"store": False})[1] == warnings


def test_where_to_go_stands_behind_the_model_s_name() -> None:
    target = target_of("huggingface", "meta-llama/Llama-3.3-70B-Instruct")
    wire = openai_chat.build_request(Request(messages=(user("hi"),), routing="fastest"), target)
    assert json.loads(wire.body)["model"] == "meta-llama/Llama-3.3-70B-Instruct:fastest"
    assert wire.warnings == ()
    assert "fastest" not in wire.url


def test_where_to_go_is_not_said_twice() -> None:
    target = target_of("huggingface", "a/b:groq")
    assert added(target, routing="fastest")[1] == (
        "routing is not sent: the model's name already says which host it is",
    )
    assert added(routing="fastest")[1] == ("routing is not sent: this host does not take it",)


def test_a_prompt_that_is_cached_by_itself_needs_no_mark() -> None:
    assert added(cache_prompt="5m") == ({}, ("cache_prompt is not sent: this host caches by itself, or not at all",))
    newer = target_of("openai", "gpt-5.6")
    assert added(newer, cache_prompt="5m") == ({}, ())
    assert "at least 30 minutes" in added(newer, cache_prompt="1h")[1][0]


@pytest.mark.parametrize("field", ["cached_content", "latency", "keep_alive_s", "context_tokens"])
def test_what_the_wire_has_no_word_for_is_named(field: str) -> None:
    values: dict[str, Any] = {
        "cached_content": "c",
        "latency": "optimized",
        "keep_alive_s": 1.0,
        "context_tokens": 1,
    }
    assert added(**{field: values[field]}) == ({}, (f"{field} is not sent: this wire has none",))


# --- JSON of a schema ----------------------------------------------------------------------------


def test_an_output_says_what_it_is_called() -> None:
    output = Output(schema=LOOSE, name="Weather[city] " + "x" * 80, description="The weather")
    (written,) = added(output=output)[0].values()
    assert written["json_schema"] == {
        "name": "Weather_city__" + "x" * 50,
        "description": "The weather",
        "schema": LOOSE,
        "strict": False,
    }


def test_strict_is_as_the_output_says() -> None:
    (written,) = added(output=Output(schema=SCHEMA, strict=False))[0].values()
    assert written["json_schema"]["strict"] is False
    with pytest.raises(
        RequestError, match=r"^output\.schema\.additionalProperties: strict mode demands that it is false"
    ):
        added(output=Output(schema=LOOSE, strict=True))


@pytest.mark.parametrize("provider", ["deepseek", "zai"])
def test_a_host_that_knows_no_schemas_is_asked_for_json(provider: str) -> None:
    assert added(target_of(provider), output=Output(schema=SCHEMA)) == (
        {"response_format": {"type": "json_object"}},
        ("the answer is asked to be JSON, not to fit output.schema: this host knows no schemas",),
    )


def test_an_output_that_a_model_refuses_is_named() -> None:
    target = Target(provider="host", model="m", quirks=Quirks(refused=("output",)))
    assert added(target, output=Output(schema=SCHEMA)) == ({}, ("output is not sent: this model does not take it",))


@pytest.mark.parametrize(
    ("spec", "mode"),
    [
        ("openai:gpt-4o", "native"),
        ("openai:gpt-5.1", "native"),
        ("openai:gpt-4.1-mini", "native"),
        ("openai:gpt-4-turbo", "tool"),
        ("openai:gpt-4o-2024-05-13", "tool"),
        ("openai:gpt-3.5-turbo", "tool"),
        ("openai:o1-mini", "prompt"),
        ("anthropic:claude-3-5-haiku-20241022", "tool"),
        ("anthropic:claude-sonnet-4-20250514", "tool"),
        ("anthropic:claude-sonnet-4-5-20250929", "native"),
        ("anthropic:claude-haiku-4-5", "native"),
        ("gemini:gemini-2.5-flash", "native"),
        ("gemini:gemma-3-27b-it", "prompt"),
        ("cohere:command-a-03-2025", "native"),
        ("ollama:qwen2.5:7b", "native"),
        ("local:smollm2-135m-instruct", "native"),
        ("deepseek:deepseek-chat", "tool"),
        ("deepseek:deepseek-reasoner", "prompt"),
        ("groq:openai/gpt-oss-20b", "tool"),
        ("moonshot:kimi-k2", "tool"),
        ("alibaba:qwen-plus", "tool"),
        ("zai:glm-5", "prompt"),
        ("perplexity:sonar", "native"),
        ("mistral:mistral-large-latest", "native"),
    ],
)
def test_how_json_of_a_schema_is_best_asked_for(spec: str, mode: str) -> None:
    provider, model = spec.split(":", 1)
    assert route(look_up(provider), model).quirks.output_by == mode


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_a_host_without_schemas_is_asked_otherwise(row: Any) -> None:
    assert row.quirks.json_schema or row.quirks.output_by != "native"
