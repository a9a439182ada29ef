"""What a newcomer gets wrong first: each is refused where it was said, and told what to say instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import loomstream
from loomstream import agent, joined
from loomstream.errors import ConfigError, LoomstreamError, RequestError, UnknownProvider, UsageError
from loomstream.events import Event
from loomstream.handler import compose, stage
from loomstream.messages import Request, Timeouts, make_request
from loomstream.middleware import retry as retry_module
from loomstream.middleware.budget import budget
from loomstream.middleware.cache import cache
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.circuit_breaker import circuit_breaker
from loomstream.middleware.cost import cost
from loomstream.middleware.failover import failover
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.retry import retry
from loomstream.testing import scripted_model, text_events
from loomstream.testing.replay import recorded, replay_model

pytestmark = pytest.mark.anyio


def connected(**options: object) -> object:
    return loomstream.connect("openai-compatible:m", base_url="http://127.0.0.1:9/v1", **options)  # type: ignore[arg-type]


def scripted(middleware: object) -> object:
    return scripted_model(text_events("Hi"), middleware=middleware)  # type: ignore[arg-type]


def in_joined(middleware: object) -> object:
    return joined.failover("openai:gpt-4o", middleware=middleware)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [lambda given: connected(middleware=given), scripted, in_joined])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (retry(), "give a list, as in middleware="),
        ("retry", "give a list, as in middleware="),
        (["retry"], r"middleware\[0\] is 'retry' \(str\)"),
        ([retry(), None], r"middleware\[1\] is None"),
        ([retry_module], r"is the module .*from loomstream.middleware.retry import retry"),
        ([retry], r"middleware\[0\], retry, cannot wrap a handler .*retry\(…\)"),
        ([cost], r"cost\(…\)"),
        ([rate_limit], r"rate_limit\(…\)"),
        ([circuit_breaker], r"circuit_breaker\(…\)"),
        ([lambda _: None], "where it must give a handler"),
    ],
)
def test_what_is_no_middleware_is_named(make: Callable[[object], object], given: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(given)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rate_limit(60), "requests_per_minute=60"),  # type: ignore[arg-type]
        (lambda: cache("p", "m", store="folder"), r"FileCache\(folder\)"),  # type: ignore[arg-type]
        (lambda: circuit_breaker(5), r"Circuit\(failures=5\)"),  # type: ignore[arg-type]
        (lambda: budget(limit_usd="0.5"), "name the provider and the model"),
        (lambda: failover([Candidate("a", connected(), "p", "m")]), "by its .handler"),  # type: ignore[arg-type]
        (lambda: loomstream.connect("openai:m", base_url=5), "base_url is 5"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_another_kind_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize("given", [None, text_events("x")[0]])
async def test_a_stage_that_gives_no_list_is_told(given: object) -> None:
    model = scripted_model(text_events("Hi"), middleware=[stage(lambda _: lambda _event: given)])  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match=r"a stage gave .* for a Start: give a list of events"):
        await model.complete("hi")


async def test_a_stage_s_own_type_error_is_its_own() -> None:
    def broken(event: Event) -> list[Event]:
        raise TypeError(event)

    model = scripted_model(text_events("Hi"), middleware=[stage(lambda _: broken)])
    with pytest.raises(LoomstreamError, match="a middleware raised TypeError"):
        await model.complete("hi")


def test_recordings_are_given_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "none"
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is a tuple: .*replay_model\(provider, \*recorded"):
        replay_model("openai", recorded(file))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="recording 0 of replay_model is a str"):
        replay_model("openai", "data")  # type: ignore[arg-type]


def test_a_run_wants_a_model() -> None:
    with pytest.raises(UsageError, match=r"the model is 'local' .*loomstream.connect"):
        agent.run("local", "Hi")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("gpt-4o", "openai:gpt-4o"),
        ("claude-sonnet-4-5", "anthropic:claude-sonnet-4-5"),
        ("openai/gpt-4o", "openai:gpt-4o"),
        ("grok:x", "xai"),
        ("google:x", "gemini"),
        ("aws", "bedrock"),
        ("hf:x", "huggingface"),
        ("claude:x", "anthropic"),
    ],
)
def test_a_spec_without_its_provider_is_told_whose_it_may_be(spec: str, meant: str) -> None:
    with pytest.raises(UnknownProvider, match=f"'{meant}'"):
        loomstream.connect(spec)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "gpt-4o"}, r"connect\('openai:gpt-4o'\)"),
        ({"api_key": "k"}, r"one of connect\(\)"),
    ],
)
def test_what_is_no_option_of_a_request_is_told_its_place(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_request("hi", options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reasoning_effort": "huge"}, "'low' or 'medium'"),
        ({"output_mode": "json"}, "'auto' or 'native'"),
        ({"unsupported": "raise"}, "'warn' or 'error'"),
        ({"timeouts": 5}, r"Timeouts\(total_s=30\)"),
    ],
)
def test_a_wrong_word_is_told_the_right_ones(options: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make_request("hi", options)  # type: ignore[arg-type]


def test_none_is_as_if_not_given() -> None:
    given = dict.fromkeys(("system", "tools", "stop_sequences", "metadata", "timeouts", "max_tokens", "extra_headers"))
    assert make_request("hi", given) == make_request("hi", {})  # type: ignore[arg-type]
    assert make_request("hi", given).timeouts == Timeouts()  # type: ignore[arg-type]


def test_compose_takes_what_is_middleware() -> None:
    def handler(request: Request) -> object:
        return request

    assert compose(handler) is handler  # type: ignore[arg-type]
