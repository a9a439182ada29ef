"""The live suite: what every provider must do, written once, run against vendors and against servers on loopback.

`Suite` is the base class of a test class whose module gives `pytest_generate_tests` (see `choose_sites`) and a fixture
`site`: where to ask. tests/live/test_live.py takes sites from the table and the environment, tests/peers/
test_live_suite.py from servers of other projects. The suite knows no provider.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import pytest
from live_budget import Ledger
from msgspec import Struct

import loomstream as ls
from loomstream.errors import AuthFailed, ProviderError
from loomstream.events import Cost, Event
from loomstream.messages import Prompt
from loomstream.middleware.cost import cost_of
from loomstream.testing import check_order
from loomstream.testing.observed import Subject

WRONG_KEY = "sk-wrong-0123456789"
SHORT_PROMPT = "Say only: hello"
TOOL_PROMPT = "What is the weather in Oslo? Call the tool get_weather."
LONG_PROMPT = "Tell me a very long story about the sea."
WEATHER = ls.Tool(
    name="get_weather",
    description="Tells the weather of a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)

TOOLS, USAGE, KEYS = "tools", "usage", "keys"
EVERYTHING = frozenset((TOOLS, USAGE, KEYS))
"""What a site may lack: calling tools, counting tokens, refusing a wrong key."""

_NEEDS = "needed_of_a_site"
_Test = TypeVar("_Test", bound=Callable[..., object])


class Site(Struct, frozen=True, kw_only=True):
    """A place to ask: a spec and what else `connect` is given. `max_tokens` leaves a model room to think first."""

    spec: str
    connect: Mapping[str, object] = {}
    max_tokens: int = 1024

    def model(self, **instead: object) -> ls.Model:
        return ls.connect(self.spec, **{**self.connect, **instead})  # type: ignore[arg-type]


def needs(ability: str) -> Callable[[_Test], _Test]:
    """Mark a test that only sites with this ability can pass."""

    def mark(test: _Test) -> _Test:
        setattr(test, _NEEDS, ability)
        return test

    return mark


def choose_sites(metafunc: pytest.Metafunc, abilities: Mapping[str, Collection[str]]) -> None:
    """Run a test of the suite for each site that can pass it; `abilities` are those of each site, by its name."""
    if "site" in metafunc.fixturenames:
        needed = getattr(metafunc.function, _NEEDS, "")
        names = [name for name, able in abilities.items() if not needed or needed in able]
        metafunc.parametrize("site", names, indirect=True)


class Asked:
    """A model whose every stream is charged to the ledger, however it ends."""

    def __init__(self, model: ls.Model, site: Site, ledger: Ledger) -> None:
        self.model = model
        self.site = site
        self.ledger = ledger

    async def answer(self, prompt: Prompt, tools: tuple[ls.Tool, ...] = ()) -> ls.Stream:
        """Read an answer to its end and hold it to the order law."""
        stream = self.model.stream(prompt, tools=tools, max_tokens=self.site.max_tokens)
        events: list[Event] = []
        with self._charged(events, lambda: stream.cost):
            async with stream:
                async for event in stream:
                    events.append(event)  # noqa: PERF401 (what came before an error counts)
        check_order(events)
        return stream

    async def beginning(self, prompt: Prompt) -> ls.Response:
        """Leave an answer at its first text; nothing of it may be open upstream afterwards."""
        subject = Subject(self.model, prompt, TOOL_PROMPT, None, self.site.max_tokens)
        stream = subject.stream(prompt)
        events: list[Event] = []
        provider, model, limit = self.model.provider, self.model.model, self.site.max_tokens
        with self._charged(events, lambda: cost_of(provider, model, stream.usage, max_tokens=limit)):
            async with stream:
                async for event in stream:
                    events.append(event)
                    if isinstance(event, ls.TextDelta):
                        break
        subject.check_closed()
        return stream.response

    @contextmanager
    def _charged(self, events: list[Event], cost: Callable[[], Cost]) -> Iterator[None]:
        """Charge what is read within; a request that was refused costs nothing."""
        self.ledger.stop_at_the_cap()
        refused = False
        try:
            yield
        except ProviderError:
            refused = not events
            raise
        finally:
            if not refused:
                self.ledger.charge(cost())


class Suite:
    """What every provider must do."""

    @pytest.fixture
    async def asked(self, site: Site, ledger: Ledger) -> AsyncIterator[Asked]:
        async with site.model() as model:
            yield Asked(model, site, ledger)

    async def test_text(self, asked: Asked) -> None:
        response = (await asked.answer(SHORT_PROMPT)).response
        assert "hello" in response.text.lower()
        assert response.complete
        assert response.stop is not None
        assert response.stop.reason == "end_turn"
        assert response.provider == asked.model.provider
        assert response.unknown_frames == 0

    @needs(TOOLS)
    async def test_tool_call(self, asked: Asked) -> None:
        first = (await asked.answer(TOOL_PROMPT, (WEATHER,))).response
        assert [call.name for call in first.tool_calls] == ["get_weather"]
        (call,) = first.tool_calls
        assert call.id
        assert list(json.loads(call.arguments)) == ["city"]
        assert first.stop is not None
        assert first.stop.reason == "tool_use"
        conversation = [ls.user(TOOL_PROMPT), first.message, ls.tool_result(call, "12 degrees, light rain")]
        second = (await asked.answer(conversation, (WEATHER,))).response
        assert second.text
        assert not second.tool_calls

    @needs(USAGE)
    async def test_usage(self, asked: Asked) -> None:
        stream = await asked.answer(SHORT_PROMPT)
        usage = stream.usage
        assert usage is not None
        assert usage.final
        assert usage.input_tokens + usage.cache_read_tokens > 0
        assert usage.output_tokens > 0
        assert stream.cost.provider == asked.model.provider

    @needs(KEYS)
    async def test_wrong_key(self, site: Site) -> None:
        async with site.model(api_key=WRONG_KEY) as model:
            with pytest.raises(AuthFailed) as caught:
                await model.complete(SHORT_PROMPT, max_tokens=site.max_tokens)
        assert caught.value.provider == model.provider
        assert caught.value.retry_safety == "no"
        assert not caught.value.committed
        assert WRONG_KEY not in str(caught.value)

    async def test_early_break(self, asked: Asked) -> None:
        """Leaving a stream closes it upstream before the next statement, and the model answers on."""
        left = await asked.beginning(LONG_PROMPT)
        assert left.text
        assert not left.complete
        assert (await asked.answer(SHORT_PROMPT)).response.complete
