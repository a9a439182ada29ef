"""The innermost handler: one request at a provider over HTTP, its answer as events.

Contract: it builds the wire request, adds the credential, opens the transport under the Watch and pumps bytes to
events; only typed errors leave it. Before an answer has begun it repeats by itself what costs nothing to repeat and
no policy need decide: once with a fresh credential after one was refused as stale, and once without each thing that a
400 (or a router's 404) names as not supported and that the answer does not need (`AMENDMENTS`). Every other repetition
belongs to middleware. Where the provider's row says how, it asks the host what the model can do before the first
request that depends on it, and which models there are where one is missing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import NamedTuple

import anyio
from msgspec import Struct
from msgspec.structs import replace

from loomstream.adapt import EventStage, adapted, staged
from loomstream.auth import Authenticator
from loomstream.catalog import end_of_life
from loomstream.dialects import Quirks, Target
from loomstream.dialects.fields import as_object, as_text
from loomstream.endpoint import Endpoint, scheme_failed
from loomstream.errors import (
    AuthFailed,
    BadRequest,
    ConnectFailed,
    Failure,
    FirstEventTimeout,
    LoomstreamError,
    ModelNotFound,
    Timeout,
    TransportError,
    Unsupported,
)
from loomstream.events import Event, Notice
from loomstream.messages import Request, Timeouts
from loomstream.providers import dialect_module, discovery, framing
from loomstream.pump import MAX_ERROR_BODY_BYTES, Pump
from loomstream.transport import ByteResponse, Transport
from loomstream.transport.advice import longer
from loomstream.transport.background import Background
from loomstream.transport.watch import Watch, drain, is_at_end
from loomstream.wire import Secret, WireRequest
from loomstream.wire.json import loads

HEARTBEAT_S = 10.0
"""While a whole answer is waited for, a notice says so each time that many seconds have passed."""

_REDIRECT = 300
_UNAUTHORIZED = 401
_EXPIRED_CODES = frozenset({"expiredtoken", "expiredtokenexception", "unrecognizedclientexception"})
"""Codes of a 403 by which AWS refuses a credential that was good (API reference of STS and Bedrock, common errors)."""

_Events = list[Event | Failure]


class _Order(Struct, frozen=True):
    """A request and the target it is built for."""

    request: Request
    target: Target


_NO_ORDER = _Order(Request(messages=()), Target(provider="", model=""))
"""Stands where an order is not needed any more: a prompt can be large, and a stream long."""


def _unstreamed(order: _Order) -> _Order | None:
    if not order.request.stream:
        return None
    return replace(order, request=replace(order.request, stream=False))


def _without_usage(order: _Order) -> _Order | None:
    if not (order.request.stream and order.target.quirks.stream_usage):
        return None
    quirks = replace(order.target.quirks, stream_usage=False)
    return replace(order, target=replace(order.target, quirks=quirks))


def _prompted(order: _Order) -> _Order | None:
    request = order.request
    if not request.tools or request.tool_mode != "auto" or request.unsupported == "error":
        return None
    return replace(order, request=replace(request, tool_mode="prompt"))


def _by_tool(order: _Order) -> _Order | None:
    request = order.request
    native = request.output is not None and order.target.quirks.output_by == "native"
    if not native or request.output_mode != "auto" or request.unsupported == "error":
        return None
    return replace(order, request=replace(request, output_mode="tool"))


_TOOLS = r"(?<![\w.\[-])tools(?![\w.\[-])|\btool[ -]?(?:use|calling)\b|\bfunction[ -]calling\b|\btool choice requires\b"
"""How a 400 names them: no single tool, and nothing within one."""


class _Amendment(NamedTuple):
    """How an error names a thing, and the order without it; None where it was not in it."""

    named: re.Pattern[str]
    without: Callable[[_Order], _Order | None]


AMENDMENTS: dict[str, _Amendment] = {
    "stream_options": _Amendment(re.compile(r"\bstream_options\b"), _without_usage),
    "stream": _Amendment(re.compile(r"(?<![\w.-])stream(?:ing)?(?![\w.-])"), _unstreamed),
    "response_format": _Amendment(re.compile(r"\bresponse_format\b|\bjson_schema\b"), _by_tool),
    "tools": _Amendment(re.compile(_TOOLS), _prompted),
}
"""What an answer does not need, by its name in the request."""

_REFUSED = re.compile(
    r"unsupported|(?:not|n.t) support|unrecognized|unknown|not permitted|not allowed|requires --|"
    r"no endpoints found that"  # a router's 404: no host of the model can do it
)
_SENTENCE_ENDS = re.compile(r"[.;!?\n](?=\s|\\n|$)")


def _amended(error: LoomstreamError, order: _Order) -> tuple[str, _Order] | None:
    """Give the name of a thing that a 400 refuses, and the order without it; None where nothing can be left out.

    Where the error names its parameter that decides; else one sentence must hold both the thing and the refusal.
    """
    if not isinstance(error, BadRequest | ModelNotFound):
        return None
    code, param, message = _words(error)
    for name, amendment in AMENDMENTS.items():
        texts = [f"{name} {code} {message}"] if param == name else [] if param else _SENTENCE_ENDS.split(message)
        refused = any(amendment.named.search(text) and _REFUSED.search(text) for text in texts)
        if refused and (amended := amendment.without(order)):
            return name, amended
    return None


def _words(error: BadRequest | ModelNotFound) -> tuple[str, str, str]:
    """Give the code, the parameter and the message of an error, in lower case."""
    outer = as_object(loads(error.body.encode()))
    inner = as_object(outer.get("error")) or outer
    message = as_text(inner.get("message")) or as_text(outer.get("error")) or error.message
    return error.code.lower(), as_text(inner.get("param")).lower(), message.lower()


class HTTPHandler:
    """Request to events; see the module's contract."""

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        self.endpoint = endpoint
        self.transport = transport
        self.dialect = dialect_module(endpoint.route.dialect)
        self.framing = framing(endpoint.route.dialect)

        self._lacks_tools = False
        """The host has refused tools: they are told in the prompt from now on."""
        self._asking = anyio.Lock()
        self._asked: Quirks | None = None

    def __call__(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Give the attempt: entering it sends the request, leaving it closes the response."""
        return _Attempt(self, request)

    def note_refused(self, name: str) -> None:
        """Remember what the host refuses by its nature, so that the next request does without."""
        self._lacks_tools = self._lacks_tools or name == "tools"

    def order_for(self, request: Request, target: Target) -> _Order:
        """Give the order of a request, without what the host is known to refuse."""
        order = _Order(request, target)
        return (_prompted(order) or order) if self._lacks_tools else order

    async def target_for(
        self, request: Request, target: Target, authenticator: Authenticator
    ) -> tuple[Target, list[Event]]:
        """Give the target with what the host says that the model can do, asked once, where the request depends on it.

        A host that does not say leaves the target as it is, with a notice: then the request itself shows it.
        """
        if not self.endpoint.provider.discovery or not _depends_on_abilities(request):
            return target, []
        notices: list[Event] = []
        async with self._asking:
            if self._asked is None:
                self._asked, notices = await self._ask(target, authenticator)
        return replace(target, quirks=self._asked), notices

    async def _ask(self, target: Target, authenticator: Authenticator) -> tuple[Quirks, list[Event]]:
        try:
            found = await discovery.abilities(self.endpoint.provider, target, self.transport, authenticator)
        except Exception as error:  # noqa: BLE001 (the question is not the user's: whatever becomes of it, the request goes on)
            words = f"{target.provider} did not say what {target.model} can do ({type(error).__name__}): it is tried"
            return target.quirks, [Notice("warning", words)]
        return discovery.with_abilities(target.quirks, found), []


def _depends_on_abilities(request: Request) -> bool:
    return bool(request.tools or request.reasoning_effort or request.reasoning_budget_tokens)


class _Attempt:
    """One attempt; a class, not a generator, so that nothing but its slots stays while the answer streams."""

    __slots__ = (
        "_authenticator",
        "_events",
        "_handler",
        "_opening",
        "_order",
        "_pump",
        "_renewed",
        "_response",
        "_secrets",
        "_stages",
        "_warnings",
    )

    def __init__(self, handler: HTTPHandler, request: Request) -> None:
        self._handler = handler
        self._order = _Order(request, _NO_ORDER.target)
        self._authenticator: Authenticator
        self._renewed = False
        self._secrets: tuple[Secret, ...] = ()
        self._warnings: tuple[str, ...] = ()
        self._stages: tuple[EventStage, ...] = ()
        self._opening: AbstractAsyncContextManager[ByteResponse] | None = None
        self._events: _Streamed | AsyncGenerator[Event] | None = None

    async def __aenter__(self) -> AsyncIterator[Event]:
        request = self._order.request
        endpoint = self._handler.endpoint
        target, self._authenticator = endpoint.resolved or await endpoint.resolve()
        notices: list[Event] = []
        if endpoint.provider.discovery:
            target, notices = await self._handler.target_for(request, target, self._authenticator)
        self._order = self._handler.order_for(request, target)
        while self._order.request.stream:
            watch = Watch(self._order.request.timeouts)
            opening, response = await self._open(watch)
            try:
                pump = self._made_pump(response)
                if response.status < _REDIRECT:
                    self._opening, self._response, self._pump = opening, response, pump
                    self._order = _NO_ORDER
                    self._events = _Streamed([*notices, *_told(response)], response, watch, pump, self._stages)
                    return self._events
                error = pump.status_error(response.status, await _error_body(response, watch))
            finally:
                if self._opening is None:
                    await opening.__aexit__(None, None, None)
            notices += await self._amend(error)
        self._events = self._whole(notices)
        return self._events

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        events, self._events = self._events, None
        opening, self._opening = self._opening, None
        try:
            if isinstance(events, _Streamed):
                events.close()
            elif events is not None:
                await events.aclose()
            if opening is not None and self._pump.ended_well and not is_at_end(self._response):
                await drain(self._response)
        finally:
            if opening is not None:
                await opening.__aexit__(kind, error, trace)
        return None

    def __loomstream_idle__(self) -> bool:
        return self._opening is not None and self._pump.ended_well and is_at_end(self._response)

    def __loomstream_over__(self) -> bool:
        return isinstance(self._events, _Streamed) and self._events.is_over()

    async def _open(self, watch: Watch) -> tuple[AbstractAsyncContextManager[ByteResponse], ByteResponse]:
        """Send the request; whoever calls leaves the context manager."""
        try:
            opening = watch.open(self._handler.transport, await self._wire_request())
            return opening, await opening.__aenter__()
        except LoomstreamError as error:
            error.provider = error.provider or self._order.target.provider
            error.model = error.model or self._order.target.model
            hint = self._handler.endpoint.connect_hint
            if hint and isinstance(error, ConnectFailed):
                error.args = (f"{error.message}{'' if error.message.endswith('?') else ';'} {hint}",)
            raise

    async def _wire_request(self) -> WireRequest:
        asked, target = self._order.request, self._order.target
        plan = adapted(asked, target)
        wire_request = self._handler.dialect.build_request(plan.request, target)
        self._stages = plan.stages
        self._warnings = plan.warnings + wire_request.warnings
        if self._warnings and asked.unsupported == "error":
            msg = f"{target.provider} cannot honour the request: {'; '.join(self._warnings)}"
            raise Unsupported(msg)
        row = self._handler.endpoint.provider
        if ending := end_of_life(row.catalog_name or row.name, target.model):
            self._warnings += (ending,)
        try:
            wire_request = await self._authenticator.authorize(wire_request)
        except LoomstreamError:
            raise
        except Exception as error:
            provider = self._handler.endpoint.provider
            raise scheme_failed(provider.name, provider.auth, error) from error
        self._secrets = self._authenticator.secrets  # those of this request: another's may come before the answer
        return wire_request

    def _made_pump(self, response: ByteResponse) -> Pump:
        handler, request, target = self._handler, self._order.request, self._order.target
        return Pump(
            dialect=handler.dialect,
            target=target,
            expected=handler.framing if request.stream else "json",
            content_type=response.headers.get("content-type", ""),
            headers=response.headers,
            warnings=self._warnings,
            raw_events=request.raw_events,
            secrets=self._secrets,
        )

    async def _amend(self, error: LoomstreamError) -> list[Event]:
        """Prepare the repetition that this error allows, or raise it."""
        if isinstance(error, AuthFailed) and _is_stale(error) and not self._renewed:
            self._renewed = True
            if await self._authenticator.renew(self._secrets):
                return []
        amended = _amended(error, self._order)
        if amended is None:
            raise await self._explained(error)
        name, self._order = amended
        self._handler.note_refused(name)
        return [Notice("warning", f"{error.provider} refused {name!r}: the request is repeated without it")]

    async def _explained(self, error: LoomstreamError) -> LoomstreamError:
        if not isinstance(error, ModelNotFound):
            return error
        handler = self._handler
        return await discovery.explained(
            error, handler.endpoint.provider, self._order.target, handler.transport, self._authenticator
        )

    # --- an answer that is not streamed ----------------------------------------------------------

    async def _whole(self, notices: list[Event]) -> AsyncGenerator[Event]:
        """Give the events of a whole answer, and say each `HEARTBEAT_S` that it is waited for."""
        for notice in notices:
            yield notice
        while True:
            background = Background(self._fetch)
            waited_s = 0.0
            try:
                while not await background.wait(HEARTBEAT_S):
                    waited_s += HEARTBEAT_S
                    yield Notice("heartbeat", f"no answer yet after {waited_s:g} s: it comes whole, not streamed")
            finally:
                await background.aclose()
            answer = background.result()
            if isinstance(answer, LoomstreamError):
                for notice in await self._amend(answer):
                    yield notice
                continue
            while answer:  # what was given is not kept: it may echo the key, and reports of errors show variables
                event = answer.pop()
                if isinstance(event, Failure):
                    raise event.error
                yield event
            return

    async def _fetch(self) -> _Events | LoomstreamError:
        """Give the events of a whole answer, last one first, or the error that its status says."""
        limits = self._order.request.timeouts
        with anyio.move_on_after(limits.whole_s):
            return await self._whole_answer(Timeouts(connect_s=limits.connect_s, first_event_s=None, idle_s=None))
        msg = (
            f"no whole answer within {limits.whole_s:g} s: the model thinks longer, or the provider stalled; ask for a "
            f"stream, or {longer('whole_s', limits.whole_s or 0.0)}"
        )
        target = self._order.target
        return [Failure(FirstEventTimeout(msg, provider=target.provider, model=target.model))]

    async def _whole_answer(self, limits: Timeouts) -> _Events | LoomstreamError:
        watch = Watch(limits)
        events: _Events = []
        opening, response = await self._open(watch)
        try:
            pump = self._made_pump(response)
            if response.status >= _REDIRECT:
                return pump.status_error(response.status, await _error_body(response, watch))
            try:
                async for event in _Streamed(_told(response), response, watch, pump, self._stages):
                    events.append(event)
            except LoomstreamError as error:
                events.append(Failure(error))
            if pump.ended_well:
                await drain(response)
        finally:
            with anyio.CancelScope(shield=True):
                await opening.__aexit__(None, None, None)
        events.reverse()
        return events


def _is_stale(error: AuthFailed) -> bool:
    """Say whether a fresh credential may help: 401, or a 403 whose code says that the credential has expired."""
    return error.status == _UNAUTHORIZED or error.code.lower() in _EXPIRED_CODES


class _Streamed:
    """The events of a streamed answer; a class, so that nothing is suspended between two of them."""

    __slots__ = ("_chunks", "_failure", "_over", "_pump", "_ready", "_stages", "_watch")

    def __init__(
        self,
        notices: list[Event],
        response: ByteResponse,
        watch: Watch,
        pump: Pump,
        stages: tuple[EventStage, ...],
    ) -> None:
        self._chunks = response.chunks
        self._watch = watch
        self._pump = pump
        self._stages = stages
        self._over = False
        self._ready = notices[::-1]
        """What is to be given next, last one first."""
        self._failure: LoomstreamError | None = None
        """What is to be raised after it."""

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if not self._ready:
            self._ready = (await self.__loomstream_batch__())[::-1]
        return self._ready.pop()

    async def __loomstream_batch__(self) -> list[Event]:
        if self._ready:
            ready, self._ready = self._ready[::-1], []
            return ready
        while not self._over:
            try:
                received = await self._watch.next(self._chunks)
            except StopAsyncIteration:
                received = None
            except (TransportError, Timeout) as error:
                received = error
            events = self._taken(received)
            del received  # it may echo the key, and reports of errors show local variables
            if events:
                return events
        failure, self._failure = self._failure, None
        raise failure or StopAsyncIteration

    def _taken(self, chunk: bytes | LoomstreamError | None) -> list[Event]:
        """Give the events of a chunk, of the end (None) or of a failure of the transport; keep what ends them."""
        pump = self._pump
        if isinstance(chunk, bytes):
            events = pump.feed(chunk)
            self._over = pump.over
            if pump.progressed:
                self._watch.progress()
            elif events:
                self._watch.delivered()
        else:
            events = pump.finish()
            self._over = True
            # The transport failed, but the terminal marker may have been seen: then the answer is whole all the same.
            if chunk is not None and events and isinstance(events[-1], Failure):
                events[-1] = Failure(pump.complete_error(chunk))
        if self._stages:
            events = staged(self._stages, events)
        if self._over and events and isinstance(last := events[-1], Failure):
            self._failure = last.error
            del events[-1]
        return events  # pyright: ignore[reportReturnType] (a failure is the last of its list)

    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self._over and not self._ready and self._failure is None

    def close(self) -> None:
        """Give nothing more."""
        self._over = True
        self._ready = []
        self._failure = None


def _told(response: ByteResponse) -> list[Event]:
    return [Notice("retry", notice) for notice in response.notices]


async def _error_body(response: ByteResponse, watch: Watch) -> bytes:
    """Give the beginning of an error's body; where it cannot be read to its end, the status still says what it is."""
    body = b""
    with suppress(LoomstreamError):
        while len(body) < MAX_ERROR_BODY_BYTES and (chunk := await watch.read(response.chunks)) is not None:
            body += chunk
    return body[:MAX_ERROR_BODY_BYTES]
