"""A model that plays a script of events: for testing consumers, middleware and agent loops.

Contract: what the script says comes out, in order, through the given middleware and the real `Stream`; requests are
kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Unpack, cast

import anyio
import anyio.lowlevel
from msgspec import Struct

from loomstream.asking import Asking
from loomstream.errors import LoomstreamError, StreamTruncated, UsageError
from loomstream.events import Cost, Event, EventBase, Stop, Usage
from loomstream.handler import Handler, Middleware, compose, listed
from loomstream.kind_names import kind_of
from loomstream.messages import Prompt, Request, RequestOptions, check_options, make_request
from loomstream.stream import Stream
from loomstream.tools import with_output, with_tools

_PROVIDER, _MODEL = "scripted", "scripted-model"


class Pause(Struct, frozen=True):
    """Wait for this long (on the event loop's clock, so a virtual clock makes it free), in seconds."""

    seconds: float


Script = Iterable[Event | Pause | LoomstreamError]
"""Events to give, pauses to make, an error to raise."""


class ScriptedModel(Asking):
    """Plays one script a call, the last one again and again."""

    def __init__(self, scripts: Sequence[Script], middleware: Sequence[Middleware], defaults: RequestOptions) -> None:
        _check_names(defaults)
        self._scripts = _checked(scripts)
        self._defaults = defaults
        self._handler = compose(self._play, *listed(middleware))
        self.requests: list[Request] = []
        self.open_streams = 0

    async def aclose(self) -> None:
        """Do nothing, as there is nothing to close: a program that closes its model need not know which one it has."""

    @property
    def provider(self) -> str:
        """`scripted`."""
        return _PROVIDER

    @property
    def model(self) -> str:
        """`scripted-model`."""
        return _MODEL

    @property
    def request_defaults(self) -> RequestOptions:
        """What was given for every request; `handler` does not know of it."""
        return self._defaults

    @property
    def handler(self) -> Handler:
        """Request to events, with the middleware: the building block of combinators."""
        return self._handler

    def stream(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Stream:
        """Give the stream of the next script."""
        request = make_request(prompt, with_output(with_tools({**self._defaults, **options})))
        return Stream(self._handler, request, cost_of=_unknown_cost, provider=_PROVIDER, model=_MODEL)

    @asynccontextmanager
    async def _play(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        self.requests.append(request)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.open_streams += 1
        try:
            async with aclosing(_play(script)) as events:
                yield events
        finally:
            self.open_streams -= 1


def _checked(scripts: Sequence[object]) -> list[list[Event | Pause | LoomstreamError]]:
    """Give the scripts as lists. Raises `UsageError` for what is none."""
    if not scripts:
        msg = "scripted_model() has nothing to play: give at least one script, as in scripted_model(text_events('Hi'))"
        raise UsageError(msg)
    return [_script(script, number) for number, script in enumerate(scripts, 1)]


def _script(script: object, number: int) -> list[Event | Pause | LoomstreamError]:
    if isinstance(script, str | bytes) or not isinstance(script, Iterable):
        msg = (
            f"script {number} of scripted_model is {kind_of(script)}, {script!r:.60}: give a list of events; "
            "text_events('Hi') makes those of an answer"
        )
        raise UsageError(msg)
    items = list(cast("Iterable[object]", script))
    for place, item in enumerate(items, 1):
        if not isinstance(item, EventBase | Pause | LoomstreamError):
            msg = (
                f"item {place} of script {number} of scripted_model is {kind_of(item)}, {item!r:.60}: "
                "a script is made of events, Pauses and errors of loomstream"
            )
            raise UsageError(msg)
    return cast("list[Event | Pause | LoomstreamError]", items)


def _check_names(defaults: RequestOptions) -> None:
    """Raise `UsageError` for an option that no request has, here and not at the first call."""
    named = sorted({"provider", "model"} & set(defaults))
    if named:
        msg = (
            f"scripted_model takes no {' and no '.join(named)}: its events say who answers, as in "
            "text_events('Hi', provider='openai', model='gpt-4o')"
        )
        raise UsageError(msg)
    check_options(cast("Mapping[str, object]", with_output(with_tools(defaults))))


async def _play(script: list[Event | Pause | LoomstreamError]) -> AsyncGenerator[Event]:
    for item in script:
        await anyio.lowlevel.checkpoint()
        if isinstance(item, Pause):
            await anyio.sleep(item.seconds)
        elif isinstance(item, LoomstreamError):
            item.attempts = ()  # what an earlier call made of it
            raise item
        else:
            yield item
    if not any(isinstance(item, Stop) for item in script):
        msg = "the script ends without a Stop: add one, as in Stop('end_turn'), or the error that ends the answer"
        raise StreamTruncated(msg)


def _unknown_cost(provider: str, model: str, usage: Usage | None) -> Cost:  # noqa: ARG001 (the signature of CostOf)
    return Cost(provider=provider, model=model)


def scripted_model(
    *scripts: Script, middleware: Sequence[Middleware] = (), **defaults: Unpack[RequestOptions]
) -> ScriptedModel:
    """Give a model that plays the scripts, one a call, the last one again and again; options are for every request.

    Raises `UsageError` where there is no script, for one that is no list of events, pauses and errors, and for an
    option that no request has.
    """
    return ScriptedModel(scripts, middleware, defaults)
