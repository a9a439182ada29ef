"""The middleware that a configuration names: its order, and that of installed packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from models import ANSWER

from loomstream.config.load import load
from loomstream.configured.choice import chosen
from loomstream.configured.plan import plan
from loomstream.configured.stack import Site, stack
from loomstream.errors import ConfigError
from loomstream.model import connect
from loomstream.providers import look_up, plugins
from loomstream.testing import Recording, ReplayTransport, replay_model

Write = Callable[..., Path]
SOURCE = """
from loomstream.handler import stage

def loud(**options):
    word = options.pop("word", "!")
    if options:
        raise TypeError(f"no such option: {', '.join(options)}")
    def make(request):
        def step(event):
            text = getattr(event, "text", None)
            return [type(event)(event.index, text + word)] if type(event).__name__ == "TextDelta" else [event]
        return step
    return stage(make)

def nothing():
    return None

constant = 5
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package that offers middleware."""
    folder = tmp_path / "site-packages"
    info = folder / "loud_package-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "loud_package.py").write_text(SOURCE, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-package\nVersion: 1.0\n", "utf-8")
    lines = [f"{name} = loud_package:{name}" for name in ("loud", "nothing", "constant", "gone")]
    (info / "entry_points.txt").write_text("\n".join(["[loomstream.middleware]", *lines]) + "\n", "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    plugins._entries.cache_clear()
    yield
    plugins._entries.cache_clear()


@pytest.mark.anyio
@pytest.mark.usefixtures("package")
async def test_the_middleware_of_a_package(write: Write) -> None:
    write("llm: {provider: openai}\nmiddleware: {loud: {word: '?'}}\n")
    settings = load()
    found = chosen("openai", settings)
    planned = plan(settings, found)
    layers = stack(settings, planned, Site(planned.provider, found.model))
    assert len(layers) == 5, "outside of the four that every model has"
    transport = ReplayTransport(Recording([ANSWER]))
    async with replay_model("openai", transport=transport, middleware=layers) as model:
        assert (await model.complete("x")).text == "hi?"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("loud: {size: 3}", "middleware.loud: it raised TypeError: no such option: size"),
        ("nothing:", "middleware.nothing: it gave None, no middleware"),
        ("constant:", "gives an int, no function"),
        ("gone:", "cannot be loaded"),
        ("loud: 3", "middleware.loud: this must be a mapping of its options, not a whole number"),
        ("lod:", "there is no middleware 'lod': did you mean 'loud'?"),
        ("loud_package:loud: {}", "code is never named by its path here"),
    ],
)
def test_the_middleware_of_a_package_that_cannot_be(text: str, what: str, write: Write) -> None:
    write("llm: {provider: openai}\nmiddleware:\n  " + text + "\n")
    with pytest.raises(ConfigError) as caught:
        connect()
    assert what in str(caught.value)


def test_the_order_of_what_is_built_in(write: Write) -> None:
    write(
        "middleware: {circuit_breaker: {failures: 2, open_seconds: 5}, budget: {limit_usd: 1}, cache: ,\n"
        "  timeout: {total_seconds: 9},\n"
        "  limits: {requests_per_minute: 0, concurrency: 0, min_delay_ms: 0, max_queue: 0},\n"
        "  retry: {max_retries: 0, longest_wait_seconds: 0, resume: restart}}\n"
    )
    settings = load()
    found = chosen("openai", settings)
    planned = plan(settings, found)
    assert planned.retries == {"max_retries": 0, "longest_wait_s": 0, "resume": "restart"}
    assert planned.limits == {"requests_per_minute": 0, "concurrency": 0, "min_delay_s": 0, "max_queue": 0}
    assert len(stack(settings, planned, Site(look_up("openai"), "gpt-4o"))) == 7


def test_a_rate_limit_that_is_disabled(write: Write) -> None:
    write("rate_limit: {disabled: true, requests_per_second: 2}\nllm: {concurrency_limit: 3}")
    settings = load()
    limits = plan(settings, chosen("openai", settings)).limits
    assert limits == {"concurrency": 3, "requests_per_minute": 0, "tokens_per_minute": 0, "learn": False}


def test_zeros_are_no_limit(write: Write) -> None:
    write(
        "llm: {concurrency_limit: 0, rate_limit: {requests_per_second: 0, tokens_per_minute: 0, burst_capacity: 5,\n"
        "  min_delay_ms: 0, max_retries: 0, retry_backoff_ms: 0, queue_timeout_seconds: 0}}"
    )
    settings = load()
    planned = plan(settings, chosen("openai", settings))
    assert planned.retries == {"max_retries": 0, "backoff_s": 0}
    assert planned.limits == {
        "concurrency": 0,
        "requests_per_minute": 0,
        "tokens_per_minute": 0,
        "min_delay_s": 0,
        "max_wait_s": 0,
    }
    assert connect("openai").provider == "openai"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("failover: {resume: prefill}", "looms.yaml:2: middleware.failover: name who is asked next"),
        ("failover: {to: []}", "looms.yaml:2: middleware.failover: name who is asked next"),
        ("failover: {to: [openai]}", "looms.yaml:2: middleware.failover: failover has two candidates"),
    ],
)
def test_a_failover_that_cannot_be(text: str, what: str, write: Write) -> None:
    write("llm: {provider: openai}\nmiddleware: {" + text + "}\n")
    with pytest.raises(ConfigError) as caught:
        connect()
    assert what in str(caught.value)


def test_no_limit_has_no_burst(write: Write) -> None:
    write("middleware: {limits: {requests_per_minute: 0, burst: 0}}")
    assert connect("openai").provider == "openai"


def test_plain_http_of_one_entry_is_not_its_fallbacks(write: Write) -> None:
    write(
        "active_provider: near\nmiddleware: {failover: {to: [far]}}\nproviders:\n"
        "- {name: near, base_url: 'http://near.test/v1', model: m, allow_http: true}\n"
        "- {name: far, base_url: 'http://far.test/v1', model: m}\n"
    )
    model = connect()
    assert model._transport._options.allow_http  # type: ignore[attr-defined]
    assert [other._transport._options.allow_http for other in model._fallbacks] == [False]  # type: ignore[attr-defined]


def test_the_connections_of_a_fallback_are_kept_as_its_own_row_says(write: Write) -> None:
    write("llm: {provider: openai}\nmiddleware: {failover: {to: [local]}}\n")
    model = connect()
    kept = [one._transport._options.limits.keepalive_expiry_s for one in (model, *model._fallbacks)]  # type: ignore[attr-defined]
    assert kept[0] > 0
    assert kept[1] == 0  # a server of our own ends each connection


def test_without_any_the_default_is_shared() -> None:
    settings = load()
    planned = plan(settings, chosen("openai", settings))
    site = Site(look_up("openai"), "gpt-4o")
    assert stack(settings, planned, site) == stack(settings, planned, site)


@pytest.mark.usefixtures("package")
def test_a_file_that_was_found_runs_no_package_s_code(write: Write) -> None:
    path = write("middleware: {loud: {word: '?'}}", here=True)
    with pytest.raises(ConfigError, match="it cannot have the code of an installed package run"):
        load()
    assert load(path).middleware[0].name == "loud"
