"""Cache: an equal request is answered with the events of the answer before, and equal calls at one time share one.

Contract: equal are two requests of which nothing that reaches the wire differs, at the same provider, model and
`scope`; time limits and credentials do not count. Only whole answers are kept, as `CacheStore` says. What comes out is
the same events after a `cache` notice, with a cost of 0; notices and costs of the first call are not repeated.

Calls that share an answer under way also have the same time limits and credentials. They read it from one upstream:
whoever has read all that came reads on for everybody, and the events pass at once. While only one reads it does so in
its own turn; as soon as there are others, in a task beside them, so that a reader who is cancelled takes nothing away
from the rest. Leaving hands the upstream on, the last one closes it. Where its only reader was cancelled in the middle
of a read, those who joined meanwhile ask anew, one for all; one that had begun to hand out that answer gets
`StreamTruncated`. An upstream's error is everybody's.

One reader pays. Where it leaves early it shows what it had been told by then, and who takes over shows the whole cost;
where the others had read to the end, nobody shows the rest. A budget or ledger inside the cache counts the call once.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar, cast

import anyio
import anyio.lowlevel
import msgspec

from loomstream.errors import ConfigError, LoomstreamError, MiddlewareError, RequestError, StreamTruncated
from loomstream.events import Cost, Event, EventBase, Notice, Start, Stop, Usage
from loomstream.handler import Handler, Middleware, NextBatch, batches
from loomstream.kind_names import kind_of
from loomstream.messages import Request, Timeouts
from loomstream.middleware.attempts import COMMITTING
from loomstream.middleware.cache_store import CacheStore, FileCache, MemoryCache
from loomstream.middleware.cost import zero_cost
from loomstream.middleware.layer import Layer, leave, lost_stop, tolerated
from loomstream.transport.background import Background

__all__ = ("CacheStore", "FileCache", "MemoryCache", "cache", "request_key")

T = TypeVar("T")

_KEPT = Notice("cache", "answered from the cache: nothing was sent, and it costs nothing")
_SHARED = Notice("cache", "an equal call is under way: its answer is shared, and costs nothing more")
_MOST_AT_ONCE = 256
"""So many events that are there already are given between two checkpoints."""
_NO_TIMEOUTS = Timeouts()
_STORE_LIMIT_S = 10.0
"""A store that takes longer is passed over, as one that fails is."""
_STORE_SHARE = 0.25
"""Nor does it get more than this of the time that the call has left."""
_CREDENTIAL = re.compile(
    r"(?:^|[-_])(?:authorization|cookie|(?:api)?key|token|secret|password|credentials?)$", re.IGNORECASE
)
"""Headers that say who asks: by the last word of their names, since `x-max-tokens` says what is asked."""


def cache(
    provider: str, model: str, *, store: CacheStore | None = None, scope: str = "", sampled: bool = False
) -> Middleware:
    """Give the middleware that answers equal requests once. List it first: then what stands behind it costs nothing.

    `provider` and `model` are those that the handler asks, `scope` tells apart what they do not: another address, or
    users who must not see each other's answers. `store` defaults to a `MemoryCache` of its own.

    A request that asks for variety by a `temperature` above 0 is passed on uncached, unless `sampled`: then it gets the
    same sample each time. One that sets no temperature is cached: whoever lists a cache wants equal answers.

    Raises `ConfigError` for a store that is none; when a stream is opened, `RequestError` for an `extra_body` that JSON
    cannot write.
    """
    kept: CacheStore = MemoryCache() if store is None else store
    if not all(callable(getattr(kept, name, None)) for name in ("get", "put")):
        msg = f"cache(store={store!r}): give a CacheStore, as MemoryCache() or FileCache(folder)"
        raise ConfigError(msg)

    def wrap(handler: Handler) -> Handler:
        flights: _Flights = {}

        def cached(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            if request.temperature and not sampled:
                return handler(request)

            def key_of() -> str:
                return request_key(provider, model, request, scope=scope)

            key = key_of()

            def join() -> _Flight:
                # what is under way belongs to one event loop, and may end by these limits, or for these credentials
                place = (key, anyio.lowlevel.current_token(), request.timeouts, _credentials(request))
                flight = flights.get(place)
                if flight is None:
                    flight = flights[place] = _Flight(
                        handler, request, _Kept(kept, key, key_of, request.timeouts.total_s), flights, place
                    )
                return flight

            return _Reader(handler, request, join)

        return cached

    return wrap


def request_key(provider: str, model: str, request: Request, *, scope: str = "") -> str:
    """Give the name under which an answer is kept: a SHA-256 digest of all that decides it, in 64 hexadecimal digits.

    Headers that hold a credential, by their name, and time limits are left out. The order of headers does not count,
    that of any other names does: a model may answer in the order of a schema. Raises `RequestError` for values that
    JSON cannot write.
    """
    headers = sorted((name, value) for name, value in _headers(request) if not _CREDENTIAL.search(name))
    plain = msgspec.structs.replace(request, timeouts=_NO_TIMEOUTS, extra_headers={})
    try:
        text = _encoder.encode((provider, model, scope, plain, headers))
    except Exception as error:
        msg = f"the request cannot be cached: JSON cannot write it ({type(error).__name__}: {error})"
        raise RequestError(msg, provider=provider, model=model) from error
    return hashlib.sha256(text).hexdigest()


def _headers(request: Request) -> Iterator[tuple[str, str]]:
    return ((name.lower(), value) for name, value in request.extra_headers.items())


def _credentials(request: Request) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in _headers(request) if _CREDENTIAL.search(name))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    msg = f"{kind_of(value)}"
    raise TypeError(msg)


_encoder = msgspec.json.Encoder(enc_hook=_plain)


class _Kept:
    """What a store has under a request's key; its failures are notices, for the model can still be asked."""

    __slots__ = ("_ends_s", "_key", "_key_of", "_store", "notices")

    def __init__(self, store: CacheStore, key: str, key_of: Callable[[], str], total_s: float | None) -> None:
        self._store = store
        self._key = key
        self._key_of = key_of
        self._ends_s = math.inf if total_s is None else anyio.current_time() + total_s
        """When the answer must be there."""
        self.notices: list[Event] = []
        """Of what failed last."""

    async def get(self) -> Sequence[Event] | None:
        """Give the whole answer, None where there is none or the store failed."""
        try:
            return _whole(await self._in_time(self._store.get(self._key)))
        except Exception as error:  # noqa: BLE001 (a store is a convenience: the model can still be asked)
            self.notices = [_trouble("read", error)]
        return None

    async def put(self, events: Sequence[Event]) -> None:
        """Keep an answer, unless what was asked has changed since: its owner may have written into it."""
        self.notices = []
        try:
            if self._key_of() == self._key:
                await self._in_time(self._store.put(self._key, _worth_keeping(events)))
        except Exception as error:  # noqa: BLE001 (a store is a convenience: the answer is there)
            self.notices = [_trouble("written", error)]

    async def _in_time(self, step: Awaitable[T]) -> T:
        limit_s = min(_STORE_LIMIT_S, _STORE_SHARE * max(self._ends_s - anyio.current_time(), 0.0))
        with anyio.move_on_after(limit_s):
            return await step
        msg = f"no answer in {limit_s:.3g} s"
        raise TimeoutError(msg)


_Place = tuple[object, ...]
"""What calls that share an answer under way have in common."""


class _Flight:
    """One answer under way, and all who read it; see the module's contract."""

    def __init__(self, handler: Handler, request: Request, kept: _Kept, flights: _Flights, place: _Place) -> None:
        self._handler = handler
        self._request = request
        self._kept = kept
        self._flights = flights
        self._place = place
        self._context: AbstractAsyncContextManager[AsyncIterator[Event]] | None = None
        self._closing: anyio.Event | None = None
        """Set when the upstream is closed; there while it is being closed."""
        self._next: NextBatch | None = None
        self._reading = False
        self._read: anyio.Event | None = None
        """Set when what is being read is there; made by who waits for that."""
        self._beside: Background[list[Event]] | None = None
        self.readers: dict[_Reader, None] = {}
        self.only: _Reader | None = None
        """The one reader, while there is more to come and nothing reads beside it."""
        self._payer: _Reader | None = None
        self.events: list[Event] = []
        self.begun = False
        """Whether there is content."""
        self.whole = False
        self.from_store = False
        self.cut = False
        """A cancellation cut the upstream in the middle of a read: nothing whole can come from it."""
        self.error: Exception | None = None
        self._error_given = False
        self._args: tuple[object, ...] = ()
        self._told: dict[str, object] = {}
        """What the error says, as it came."""

    def is_free(self, reader: _Reader) -> bool:
        """Say whether this reader pays nothing."""
        return self.from_store or self._payer is not reader

    def enter(self, reader: _Reader) -> None:
        """Take in a reader; the first one pays."""
        if not self.readers:
            self._payer = reader
        self.readers[reader] = None
        self._count()

    def more(self) -> Awaitable[object]:
        """Give what waits until something has changed; it reads on itself where nobody else does."""
        if self._beside is None and self._reading:
            self._read = self._read or anyio.Event()
            return self._read.wait()
        return self._read_beside() if self.only is None else self.read()

    def _count(self) -> None:
        """See whether but one reader reads on, with no task beside it; who was that until now reads with care again."""
        is_one = len(self.readers) == 1 and self._beside is None and not (self.whole or self.cut or self.error)
        before, self.only = self.only, next(iter(self.readers)) if is_one else None
        if before is not None and before is not self.only:
            before.passing = None

    async def _read_beside(self) -> None:
        beside = self._beside = self._beside or Background(self.read)
        await beside.wait(math.inf)
        if self._beside is beside:
            self._beside = None
            self._count()
            if not beside.was_cancelled:
                beside.result()

    async def read(self) -> list[Event]:
        """Read once and give what came: nothing where an error became the answer's."""
        self._reading = True
        try:
            batch = await (self._next or self._open)()
            if batch[-1].__class__ is Stop:
                await self._end(batch)
            else:
                self.events += batch
                if not self.begun:
                    self.begun = not COMMITTING.isdisjoint(map(type, batch))
        except StopAsyncIteration:
            self._fail(lost_stop())
        except Exception as error:  # noqa: BLE001 (whatever it is, each reader raises it)
            self._fail(error)
        except BaseException:
            self.cut = not self.whole
            self._count()
            self._land()
            raise
        else:
            return batch
        finally:
            self._reading = False
            if self._read is not None:
                self._read.set()
                self._read = None
        return []

    def _land(self) -> None:
        """Let nobody else join."""
        if self._flights.get(self._place) is self:
            del self._flights[self._place]

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._args = error.args
        self._told = {name: value for name, value in vars(error).items() if name != "__notes__"}
        self._land()

    async def _open(self) -> list[Event]:
        """Give the kept answer, or the first events of a new one."""
        kept = await self._kept.get()
        if kept is not None:
            self.from_store = True
            return list(kept)
        context = self._handler(self._request)
        events = await context.__aenter__()
        self._context = context
        self._next = batches(events)
        return self._kept.notices or await self._next()

    async def _end(self, batch: list[Event]) -> None:
        """Let all have the last events, once the whole answer is kept."""
        try:
            if not self.from_store:
                await self._kept.put([*self.events, *batch])
                batch[-1:-1] = self._kept.notices
        finally:
            self.events += batch
            self.begun = self.whole = True
            self._count()
            self._land()

    def own_error(self) -> Exception:
        """Give the answer's error: itself once, then twins, because each stream adds to what it raises."""
        error = self.error
        assert error is not None  # noqa: S101 (for the type checker: asked for only where there is one)
        if not self._error_given:
            self._error_given = True
            return error
        if isinstance(error, LoomstreamError):
            twin = type(error).__new__(type(error))  # its constructor may take anything
            twin.args = self._args
            vars(twin).update(self._told)
        else:
            twin = MiddlewareError(f"a middleware raised {type(error).__name__}: {error}")
        twin.__cause__ = error
        return twin

    async def leave(self, reader: _Reader) -> None:
        """Give up a reader: another one pays what is still to come, the last one closes the upstream."""
        self.readers.pop(reader, None)
        self._count()
        if self._payer is reader:
            self._payer = None if self.whole else next(iter(self.readers), None)
        if not self.readers:
            self._land()
            beside, self._beside = self._beside, None
            try:
                if beside is not None:
                    await beside.aclose()
            finally:
                await self.close()

    async def close(self) -> None:
        """Close the upstream; whoever comes meanwhile waits until it is closed."""
        context, self._context = self._context, None
        if context is not None:
            closing = self._closing = anyio.Event()
            try:
                await leave(context)
            finally:
                self._closing = None
                closing.set()
        elif self._closing is not None:
            await self._closing.wait()

    @property
    def is_closed(self) -> bool:
        """Whether nothing is left to wait for."""
        return self._context is self._closing is self._beside is None


_Flights = dict[_Place, _Flight]


class _Reader(Layer):
    """One call."""

    __slots__ = ("_flight", "_given", "_join", "_told", "_zero")

    def __init__(self, handler: Handler, request: Request, join: Callable[[], _Flight]) -> None:
        super().__init__(handler, request)
        self._join = join
        self._flight: _Flight | None = None
        self._given = 0
        """How many of the flight's events were given."""
        self._told = False
        self._zero: Cost | None = None

    async def next_batch(self) -> list[Event]:
        if self._flight is not None and self._given < len(self._flight.events):
            await anyio.lowlevel.checkpoint()
        while True:
            flight = self._flight
            if flight is None:
                flight = self._flight = self._join()
                flight.enter(self)
            if self._given < len(flight.events) and (ready := self._ready(flight)):
                if (
                    flight.only is self
                    and self._given == len(flight.events)
                    and flight.begun
                    and not flight.is_free(self)
                ):
                    self.passing = self._read_alone
                return ready
            if (flight.whole or flight.cut or flight.error is not None) and (told := await self._leave_if_over(flight)):
                return told
            if self._flight is flight:
                await flight.more()

    async def _read_alone(self) -> list[Event]:
        """Do as `next_batch` at a third of its cost, as long as the flight leaves this in `passing`."""
        flight = self._flight
        if flight is not None and (batch := await flight.read()):
            self._given += len(batch)
            return batch
        self.passing = None
        return await self.next_batch()

    def _ready(self, flight: _Flight) -> list[Event]:
        """Give what has come since; before there is content only to the one who pays."""
        free = flight.is_free(self)
        # the others, and all where it was cut, may have to ask anew: then nothing of it must have been theirs
        if not self._given and (flight.cut or (free and not flight.begun)):
            return []
        events = flight.events[self._given : self._given + _MOST_AT_ONCE]
        self._given += len(events)
        if not events or not free:
            return events
        told, self._told = self._told, True
        notice = [] if told else [_KEPT if flight.from_store else _SHARED]
        if self._zero is None:
            start = next((event for event in events if isinstance(event, Start)), Start())
            self._zero = zero_cost(start.provider, start.model)
        return [*notice, *_free(events, self._zero)]

    async def _leave_if_over(self, flight: _Flight) -> list[Event]:
        """Raise where nothing more can come; leave a flight that was cut before this call had any of it.

        What goes wrong in leaving that is told: the upstream was another call's.
        """
        if flight.whole:
            await flight.close()
            raise StopAsyncIteration
        if flight.error is not None:
            await tolerated(flight.close(), "closing an upstream that failed")
            raise flight.own_error()
        if self._given:
            msg = "the call whose answer this one shared was cancelled in the middle of a read: ask again"
            raise StreamTruncated(msg)
        self._flight = None
        try:
            await flight.leave(self)
        except Exception as error:  # noqa: BLE001 (whatever it is: nothing of that upstream is this call's)
            what = "an equal call was cancelled, and closing its answer failed"
            return [Notice("warning", f"{what} ({type(error).__name__}: {error}): it is asked anew")]
        return []

    async def released(self) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            await flight.leave(self)

    def __loomstream_idle__(self) -> bool:
        return self._flight is None or self._flight.is_closed


_OF_THAT_DAY: frozenset[type[EventBase]] = frozenset((Notice, Cost))
_TELLING: frozenset[type[EventBase]] = frozenset((Start, Usage, Cost, Stop))


def _whole(events: Sequence[Event] | None) -> Sequence[Event] | None:
    """Give what a store has. Raises `ValueError` where that is not a whole answer."""
    for place, kind in ((0, Start), (-1, Stop)):
        if events is not None and not (events and events[place].__class__ is kind):
            msg = f"what it holds does not {'end' if place else 'begin'} with a {kind.__name__}"
            raise ValueError(msg)
    return events


def _worth_keeping(events: Sequence[Event]) -> list[Event]:
    """Give the last epoch of an answer, without what was of that day: notices, costs and rate limits."""
    first = max([at for at, event in enumerate(events) if event.__class__ is Start], default=0)
    kept = [event for event in events[first:] if event.__class__ not in _OF_THAT_DAY]
    if kept and isinstance(start := kept[0], Start):
        kept[0] = msgspec.structs.replace(start, limits=None)
    return kept


def _free(events: list[Event], cost: Cost) -> list[Event]:
    """Give the events with a cost of 0, told wherever a stream would else reckon one."""
    if _TELLING.isdisjoint(map(type, events)):
        return events
    out: list[Event] = []
    for event in events:
        if isinstance(event, Stop):
            out += [cost, event] if not (out and out[-1] is cost) else [event]
        elif isinstance(event, Start | Usage):
            out += [event, cost]
        elif not isinstance(event, Cost):
            out.append(event)
    return out


def _trouble(what: str, error: Exception) -> Notice:
    return Notice("warning", f"the cache cannot be {what} ({type(error).__name__}: {error}): it goes on without")
