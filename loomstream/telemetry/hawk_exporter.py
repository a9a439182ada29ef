"""The exporter of spans to Hawk: a bounded queue, and a thread that empties it.

Contract: putting a span into the queue waits for nothing; where the queue is full the span is dropped and counted. A
thread, not a task, sends them: a model is made outside of any event loop, one exporter serves several loops of asyncio
and trio, and what is left must go out after the last loop has ended. It is a daemon, begins with the first span, and is
given `exit_s` at the interpreter's exit; a process that is killed loses what was not sent. Spans are redacted before
they leave. 429, 5xx and a failed connection are tried again, with full jitter; any 2xx is a success, anything else
loses the batch, a redirect too: neither key nor spans follow it. Of an answer's body no more is read than 64 KiB, and
none is decoded. Source: the seed system's client (batches of 100, every 10 s, four attempts); of Hawk itself nothing is
known but what that client sends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from loomstream.errors import ConfigError
from loomstream.numerals import is_number
from loomstream.telemetry.calls import Complaint
from loomstream.telemetry.redaction import redacted
from loomstream.transport.proxies import ProxyTable, Target, is_loopback
from loomstream.wire import Secret

if TYPE_CHECKING:
    import httpx

DEFAULT_PATH = "/v1/traces"
_PORTS = {"http": 80, "https": 443}
_AGAIN = frozenset((429, *range(500, 600)))
_LONGEST_WAIT_S = 60.0
_LONGEST_BODY = 65_536
"""So many bytes of an answer are read, that a connection may be kept for them."""


class HawkEvent(Struct, frozen=True, omit_defaults=True):
    """Something that happened during a span; `timestamp` is RFC 3339 with nanoseconds."""

    timestamp: str
    name: str
    attributes: Mapping[str, object] = {}


class HawkSpan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A span as it goes over the wire; ids are UUIDs, `status` is `unset`, `ok` or `error`."""

    trace_id: str
    span_id: str
    parent_span_id: str = ""
    name: str
    start_time: str
    end_time: str
    duration_ms: int
    status: str
    attributes: Mapping[str, object]
    events: tuple[HawkEvent, ...] = ()


class HawkExporter:
    """Sends spans to Hawk. Close it, or leave it to the interpreter's exit.

    `endpoint` is Hawk's address; where it has no path, `/v1/traces` is added. `max_queue` spans may wait, `batch` of
    them go together, at the latest every `interval_s`. Each batch is tried `attempts` times, the waits between are
    random, up to `first_wait_s` doubled each time, and no shorter than a `Retry-After` asks for (60 s at most).
    `api_key` may be a function: the thread asks it once, before it sends, for it may wait for a keyring. Where it
    raises, that is told, and spans go without a key.
    `personal` False leaves personal data in texts. `allow_http` lets plain http leave this machine.

    Raises `ConfigError` for an endpoint that is no http(s) URL, one of plain http to another machine, and a limit that
    is not above 0.
    """

    def __init__(  # noqa: PLR0913 (all but the first are keyword-only)
        self,
        endpoint: str,
        *,
        api_key: str | Secret | Callable[[], Secret | None] | None = None,
        max_queue: int = 2048,
        batch: int = 100,
        interval_s: float = 10.0,
        timeout_s: float = 30.0,
        attempts: int = 4,
        first_wait_s: float = 1.0,
        exit_s: float = 5.0,
        personal: bool = True,
        allow_http: bool = False,
    ) -> None:
        limits = {"max_queue": max_queue, "batch": batch, "interval_s": interval_s, "timeout_s": timeout_s,
                  "attempts": attempts, "first_wait_s": first_wait_s, "exit_s": exit_s}  # fmt: skip
        for name, limit in limits.items():
            if not (is_number(limit, infinite=True) and limit > 0):
                msg = f"HawkExporter({name}={limit!r}): give a number above 0"
                raise ConfigError(msg)
        self.endpoint = _address(endpoint, allow_http=allow_http)
        self._api_key = Secret(api_key) if isinstance(api_key, str) else api_key
        self._max_queue = max_queue
        self._batch = batch
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._first_wait_s = first_wait_s
        self._exit_s = exit_s
        self._personal = personal
        self._queue: deque[HawkSpan] = deque()
        self._changed = threading.Condition()
        self._in_flight = 0
        self._hurried = False
        """Whether someone waits for the queue to be empty: then no batch waits to be full."""
        self._closed = False
        self._thread: threading.Thread | None = None
        self._complain = Complaint(f"Hawk at {self.endpoint}")
        self.sent = 0
        """How many spans Hawk has taken."""
        self.dropped = 0
        """How many were lost: the queue was full, or Hawk did not take them."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forked(weakref.ref(self)))

    @property
    def waiting(self) -> int:
        """How many spans wait, or are under way."""
        return len(self._queue) + self._in_flight

    def put(self, spans: Sequence[HawkSpan]) -> None:
        """Send these spans some time soon; those for which there is no room are dropped."""
        with self._changed:
            self._begin()
            room = 0 if self._closed else max(0, self._max_queue - len(self._queue))
            self._queue.extend(spans[:room])
            lost = len(spans) - min(room, len(spans))
            self.dropped += lost
            self._changed.notify_all()
        if lost:
            self._complain("it is closed" if self._closed else f"{self._max_queue} spans wait, more are dropped")

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that waits is sent or lost; False where that takes longer than the time, in seconds."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self.waiting, timeout_s)
            self._hurried = not done
        return done

    def close(self) -> None:
        """Send what is left, in `exit_s` at most, and end; safe to call again. It blocks: in a task, use `aclose`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(self._exit_s)
        atexit.unregister(self.close)
        with self._changed:
            left = self.waiting
            self._queue.clear()
            self._in_flight = 0  # what becomes of them is not known any more: they count once, as lost
            self.dropped += left
        if left:
            self._complain(f"{left} spans could not be sent before the end")

    async def aclose(self) -> None:
        """Do what `close` does, without holding up the event loop; it is not cancelled while it sends."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<HawkExporter {self.endpoint}: {self.sent} sent, {self.waiting} waiting, {self.dropped} dropped>"

    # --- the thread ------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the thread where there is none: at the first span, also of a process that was forked since."""
        if self._thread is None and not self._closed:
            client = self._client()  # here, not in the thread: a fork while that imports would break the child
            self._thread = threading.Thread(target=self._run, args=(client,), name="loomstream-hawk", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def start_anew(self) -> None:
        """Forget thread, lock and queue: in a forked process they are the parent's, which sends what is in it."""
        self._changed = threading.Condition()
        self._thread = None
        self._in_flight = 0
        self._hurried = False
        self._queue.clear()

    def _run(self, client: httpx.Client) -> None:
        try:
            self._find_key()
            while batch := self._next():
                try:
                    problem, cause = self._deliver(client, batch), None
                except Exception as error:  # noqa: BLE001 (telemetry must not end with a batch that cannot be written)
                    problem, cause = "a batch could not be written", error
                count = self._counted(taken=not problem)
                if problem and count:
                    self._complain(f"{count} spans were lost: {problem}", cause)
        finally:
            client.close()

    def _find_key(self) -> None:
        """Have the key at hand that a function gives; at once, for no thread can be begun at the interpreter's exit."""
        if not callable(self._api_key):
            return
        try:
            self._api_key = self._api_key()
        except Exception as error:  # noqa: BLE001 (a keyring raises anything, and spans must go out)
            self._api_key = None
            self._complain("its key cannot be found, and spans go without one", error)

    def _next(self) -> list[HawkSpan]:
        """Wait for a batch that is full or due; an empty one is the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._changed.wait_for(
                lambda: len(self._queue) >= self._batch or self._closed or self._hurried, self._interval_s
            )
            batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
            self._in_flight = len(batch)
            return batch

    def _counted(self, *, taken: bool) -> int:
        """Count the batch that was under way; give its size, 0 where `close` has given it up."""
        with self._changed:
            count, self._in_flight = self._in_flight, 0
            if taken:
                self.sent += count
            else:
                self.dropped += count
            self._changed.notify_all()
        return count

    def _client(self) -> httpx.Client:
        import httpx  # noqa: PLC0415 (not before something is sent)

        parts = urlsplit(self.endpoint)
        target = Target(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])
        found = ProxyTable(proxy=None, environ=os.environ).find(target)
        headers = {"Proxy-Authorization": found.authorization.reveal()} if found and found.authorization else None
        proxy = None if found is None else httpx.Proxy(found.url, headers=headers)
        return httpx.Client(timeout=self._timeout_s, trust_env=False, follow_redirects=False, proxy=proxy)

    def _deliver(self, client: httpx.Client, batch: list[HawkSpan]) -> str:
        """Send a batch; say why it was lost, nothing where it was taken."""
        import httpx  # noqa: PLC0415 (it is loaded already)

        body = msgspec.json.encode({"spans": [self._clean(span) for span in batch]})
        headers = {"content-type": "application/json"}
        if isinstance(self._api_key, Secret) and self._api_key:
            headers["authorization"] = f"Bearer {self._api_key.reveal()}"
        answer = _Answer("nothing was tried")
        for attempt in range(self._attempts):
            try:
                answer = self._post(client, body, headers)
            except httpx.HTTPError as error:
                answer = _Answer(f"{type(error).__name__}: {error}", again=True)
            if answer.taken:
                return ""
            is_last = not answer.again or attempt + 1 == self._attempts
            if is_last or self._is_over(self._wait_s(attempt, answer.retry_after_s)):
                break
        return answer.words

    def _post(self, client: httpx.Client, body: bytes, headers: dict[str, str]) -> _Answer:
        """Send once. What follows the head is not looked at, only read, undecoded, so that the connection is kept."""
        began_s = time.monotonic()
        with client.stream("POST", self.endpoint, content=body, headers=headers) as response:
            self._drain(response, began_s + self._timeout_s)
            return _answer(response)

    def _drain(self, response: httpx.Response, until_s: float) -> None:
        """Read a short body to its end; leave one that is long or slow, or breaks off: the status has told all."""
        import httpx  # noqa: PLC0415 (it is loaded already)

        with contextlib.suppress(httpx.HTTPError):
            for _ in response.iter_raw():
                if response.num_bytes_downloaded > _LONGEST_BODY or time.monotonic() > until_s:
                    return

    def _wait_s(self, attempt: int, retry_after_s: float) -> float:
        jittered = random.uniform(0, self._first_wait_s * 2**attempt)  # noqa: S311 (no cryptography)
        return min(max(jittered, retry_after_s), _LONGEST_WAIT_S)

    def _is_over(self, wait_s: float) -> bool:
        """Wait before the next attempt; say whether there is to be none, because all is to end."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, wait_s)

    def _clean(self, span: HawkSpan) -> HawkSpan:
        events = tuple(
            HawkEvent(event.timestamp, event.name, redacted(event.attributes, personal=self._personal))
            for event in span.events
        )
        attributes = redacted(span.attributes, personal=self._personal)
        return msgspec.structs.replace(span, attributes=attributes, events=events)


def _forked(exporter: weakref.ref[HawkExporter]) -> Callable[[], None]:
    def forked() -> None:
        alive = exporter()
        if alive is not None:
            alive.start_anew()

    return forked


class _Answer(NamedTuple):
    """What Hawk made of a batch."""

    words: str
    taken: bool = False
    again: bool = False
    retry_after_s: float = 0.0


def _answer(response: httpx.Response) -> _Answer:
    status = response.status_code
    retry_after_s = _seconds(response.headers.get("retry-after", ""))
    return _Answer(f"HTTP {status}", response.is_success, status in _AGAIN, retry_after_s)


def _address(endpoint: str, *, allow_http: bool) -> str:
    try:
        parts = urlsplit(endpoint.strip())
        named = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:
        named = False
        parts = urlsplit("")
    if not named or parts.username is not None:
        msg = "hawk_endpoint is no address: write it as https://host or https://host:port/path, the key by api_key"
        raise ConfigError(msg)
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname or ""):
        msg = f"hawk_endpoint {endpoint!r} is plain http to another machine: use https, or allow_http=True"
        raise ConfigError(msg)
    return parts._replace(path=parts.path if parts.path.strip("/") else DEFAULT_PATH, fragment="").geturl()


def _seconds(retry_after: str) -> float:
    """Give the seconds that a Retry-After asks for, 0 where it says nothing that can be read."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
