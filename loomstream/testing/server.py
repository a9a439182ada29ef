"""The simulator: a loopback server that speaks every provider's wire, with a pace and faults, from scripts.

    from loomstream.testing.server import simulator

    async with simulator("Hello there") as server:
        async with ls.connect("openai:gpt-4o", **server.options("openai")) as model: ...

Contract: deterministic by its seed. It runs in a thread with an event loop of its own, so that it serves tests on
asyncio, on trio and without a loop (`with simulator(…)`), and other processes. It binds to loopback alone, checks a
key where it was told one, and keeps what it was asked in `requests`. It knows the
wires by `testing.wires`, and no provider by name.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import NotRequired, Self, TypedDict
from urllib.parse import urlsplit

import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from loomstream.dialects.fields import as_object
from loomstream.errors import ConfigError, ConnectFailed, UsageError
from loomstream.events import Event
from loomstream.providers import look_up
from loomstream.providers.table import BY_NAME
from loomstream.testing.clock import VirtualClockLoop
from loomstream.testing.credentials import Refusal, refusal
from loomstream.testing.faults import Fault, Plan, plan
from loomstream.testing.http1 import BadRequest, Request, head, http_chunk, read_request
from loomstream.testing.pace import Pace
from loomstream.testing.replay import Recording
from loomstream.testing.wires import OWN_WAYS, WIRES, Answer, Route, Sent, answer_of, route
from loomstream.testing.wires.answers import compact, text_answer
from loomstream.wire.json import loads

HOST = "127.0.0.1"
DEFAULT_TEXT = "Rivers carry rain back to the sea, and the sea gives it to the sky."
_RESET = struct.pack("ii", 1, 0)
"""Linger for no time: closing then resets."""

SimulatorScript = str | Iterable[Event] | Answer | Recording
"""What is answered: a text (a word a frame), the events of an answer, or recorded bytes as they are."""
Responder = Callable[["Received"], SimulatorScript]
"""Gives the script for a request."""


class ConnectOptions(TypedDict):
    """What `loomstream.connect` needs to reach the simulator."""

    base_url: str
    api_key: str
    settings: NotRequired[Mapping[str, str]]


class Received(Struct, kw_only=True):
    """A request as it arrived, and how its answer went.

    `provider` is the name in the address that `url` gave, empty for another address; `json` is the body's value.
    `outcome`: `open`, `whole` (all was sent), `fault` (what the fault said was done), `refused` (the key was missing or
    wrong) or `client_left`.
    """

    number: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    provider: str = ""
    dialect: str = ""
    model: str = ""
    streams: bool = False
    fault: Fault | None = None
    outcome: str = "open"
    sent_frames: int = 0

    @property
    def json(self) -> Mapping[str, object]:
        """The body as an object, empty where it is none."""
        return as_object(loads(self.body))


class _ClientLeft(Exception):
    """The client closed the connection."""


class Simulator:
    """A server that is open within `with` or `async with`; see `simulator`."""

    def __init__(  # noqa: PLR0913 (what is said, how fast, what goes wrong; the function below documents them)
        self,
        scripts: Sequence[SimulatorScript],
        *,
        respond: Responder | None,
        pace: Pace,
        paces: Mapping[str, Pace],
        faults: Sequence[Fault | None],
        fault_rate: float,
        seed: int,
        port: int,
        real_time: bool,
        on_request: Callable[[Received], object] | None,
        api_key: str | None,
    ) -> None:
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.strip()):
            msg = "simulator(api_key=…): give a key of printable ASCII characters, or None to check none"
            raise ConfigError(msg)
        self._api_key = api_key
        if not 0 <= fault_rate <= 1:
            msg = f"simulator(fault_rate={fault_rate}): give a share from 0 to 1"
            raise ConfigError(msg)
        self._scripts = [one if isinstance(one, Recording) else answer_of(one) for one in scripts]
        self._respond = respond
        self._pace, self._paces = pace, paces
        self._faults, self._fault_rate, self._seed = list(faults), fault_rate, seed
        self._port, self._real_time = port, real_time
        self._on_request = on_request
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failures: list[Exception] = []
        self.requests: list[Received] = []
        self.open_connections = 0

    # --- addresses -------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port that it listens on; `UsageError` where it is not open."""
        if self._thread is None:
            msg = "the simulator is not open: use it in `with` or `async with`"
            raise UsageError(msg)
        return self._port

    @property
    def root(self) -> str:
        """The address without a path."""
        return f"http://{HOST}:{self.port}"

    def url(self, provider: str) -> str:
        """Give the base URL that stands for a provider's own; `UnknownProvider` where there is no such row."""
        row = look_up(provider)
        return f"{self.root}/{row.name}{urlsplit(row.base_url).path}".rstrip("/")

    def options(self, provider: str) -> ConnectOptions:
        """Give what `connect` needs to talk with the simulator in place of a provider."""
        row = look_up(provider)
        needed = {
            setting.name: "simulated"
            for setting in row.settings
            if setting.required or f"{{{setting.name}}}" in row.base_url
        }
        return {"base_url": self.url(provider), "api_key": self._api_key or "simulated", "settings": needed}

    # --- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._thread is not None:
            msg = "the simulator is open already"
            raise UsageError(msg)
        listening = self._listen()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening, ready), name="simulator", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread, loop, stop = self._thread, self._loop, self._stop
        if thread is None or loop is None or stop is None:
            return
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        self._thread = self._loop = self._stop = None
        if error is None and self._failures:
            raise self._failures[0]

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.__exit__, kind, error, trace)

    def _listen(self) -> socket.socket:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio: no delay only then
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((HOST, self._port))
        except (OSError, OverflowError) as error:
            listening.close()
            msg = f"the simulator cannot listen on {HOST}:{self._port}: {error}; give another port, or 0 for a free one"
            raise ConnectFailed(msg) from error
        self._port = listening.getsockname()[1]
        return listening

    def _run(self, listening: socket.socket, ready: threading.Event) -> None:
        factory = None if self._real_time else VirtualClockLoop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(self._serve(listening, ready))

    async def _serve(self, listening: socket.socket, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._connection(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, sock=listening)
        ready.set()
        await self._stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- a connection ----------------------------------------------------------------------------

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        try:
            while (request := await read_request(reader)) is not None:
                keeps = await self._answer(request, reader, writer)
                if not keeps:
                    break
        except BadRequest as error:
            writer.write(head(400, {"content-type": "text/plain", "connection": "close"}) + f"{error}\n".encode())
        except (OSError, _ClientLeft):
            pass  # the client is gone; its request says so
        except Exception as error:  # noqa: BLE001 (of a script or a responder: raised where the simulator was opened)
            self._failures.append(error)
        finally:
            self.open_connections -= 1
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; say whether the connection can take another."""
        received, found = self._note(request)
        try:
            if found is None:
                received.outcome = "whole"
                _write_whole(writer, 404, _NOWHERE, {"content-type": "application/json"})
                return True
            if (refused := self._refusal(received, found)) is not None:
                received.outcome = "refused"
                _write_whole(writer, refused.status, refused.body, dict(refused.headers))
                return True
            keeps = await self._answer_on(received, found, reader, writer)
        except (OSError, _ClientLeft):
            if received.outcome == "open":
                received.outcome = "client_left"
            raise
        return keeps

    def _note(self, request: Request) -> tuple[Received, Route | None]:
        received = Received(
            number=len(self.requests),
            method=request.method,
            target=request.target,
            headers=request.headers,
            body=request.body,
            provider=_provider(request.target),
        )
        found = route(request.target, received.json) if request.method == "POST" else None
        if found is not None:
            found = found._replace(wire=OWN_WAYS.get((received.provider, found.wire.name), found.wire))
            received.dialect, received.model, received.streams = found.wire.name, found.model, found.streams
            received.fault = self._fault(received.number)
        self.requests.append(received)
        if self._on_request is not None:
            self._on_request(received)
        return received, found

    def _fault(self, number: int) -> Fault | None:
        """Give the fault of a request: by its turn, or by chance where there is a rate."""
        if not self._faults:
            return None
        if self._fault_rate:
            chance = random.Random(f"fault:{self._seed}:{number}")  # noqa: S311 (no secret)
            return chance.choice(self._faults) if chance.random() < self._fault_rate else None
        return self._faults[number] if number < len(self._faults) else None

    def _script(self, received: Received) -> Answer | Recording:
        if self._respond is not None:
            script = self._respond(received)
            return script if isinstance(script, Recording) else answer_of(script)
        return self._scripts[min(received.number, len(self._scripts) - 1)]

    def _refusal(self, received: Received, found: Route) -> Refusal | None:
        if self._api_key is None:
            return None
        return refusal(self._api_key, found.wire, received.provider, received.target, received.headers)

    async def _answer_on(
        self, received: Received, found: Route, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        fault = received.fault
        if fault is not None and fault.kind == "hang":
            received.outcome = "fault"
            await _until_gone(reader)
        status, headers, sent = self._said(received, found)
        waits = self._paces.get(received.provider, self._pace).waits(sent, seed=self._seed, number=received.number)
        if fault is not None and fault.kind == "status":
            await asyncio.sleep(waits[0] if waits else 0)
            body = found.wire.error(fault.status, "a failure, as the script says") if fault.body is None else fault.body
            more = {} if fault.retry_after_s is None else {"retry-after": str(fault.retry_after_s)}
            received.outcome = "fault"
            _write_whole(writer, fault.status, body, {"content-type": "application/json", **more})
            await writer.drain()
            return True
        planned = plan(found.wire, sent, waits, fault)
        return await self._send(received, _Head(status, headers, _size(found, sent)), planned, reader, writer)

    def _said(self, received: Received, found: Route) -> tuple[int, dict[str, str], list[Sent]]:
        script = self._script(received)
        if isinstance(script, Recording):
            return script.status, dict(script.headers), _recorded(script)
        if not script.model:
            script = replace(script, model=found.model, id=f"sim_{received.number}")
        headers = {"content-type": found.wire.content_type if found.streams else "application/json"}
        return 200, headers, found.wire.frames(script) if found.streams else [Sent(found.wire.whole(script))]

    async def _send(
        self,
        received: Received,
        opening: _Head,
        planned: Plan,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        begun = opening.written(received.number)
        due_s = asyncio.get_running_loop().time()
        for left, step in zip(range(len(planned.steps) - 1, -1, -1), planned.steps, strict=True):
            due_s += step.wait_s  # of the whole, so that what each sending takes does not add up
            await _until(due_s, reader)
            received.sent_frames += 1
            if not left:
                received.outcome = _outcome(received)  # before the client can have it: who has read all may ask
            writer.write(begun + (step.data if opening.size is not None else http_chunk(step.data)))
            begun = b""
            await writer.drain()
        received.outcome = _outcome(received)
        writer.write(begun)
        return await _end(opening, planned, reader, writer)


class _Head(Struct):
    """How an answer begins; `size` of its body in bytes where it is not sent in chunks."""

    status: int
    headers: dict[str, str]
    size: int | None

    def written(self, number: int) -> bytes:
        length = {"transfer-encoding": "chunked"} if self.size is None else {"content-length": str(self.size)}
        return head(self.status, {**self.headers, **length, "x-request-id": f"req_sim_{number}"})


def _size(found: Route, sent: list[Sent]) -> int | None:
    return None if found.streams else sum(len(frame.data) for frame in sent)


async def _until(due_s: float, reader: asyncio.StreamReader) -> None:
    wait_s = due_s - asyncio.get_running_loop().time()
    if wait_s > 0:
        await asyncio.sleep(wait_s)
    if reader.at_eof():
        raise _ClientLeft


def _outcome(received: Received) -> str:
    return "whole" if received.fault is None else "fault"


async def _end(opening: _Head, planned: Plan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    match planned.ending:
        case "whole":
            writer.write(b"" if opening.size is not None else b"0\r\n\r\n")
            await writer.drain()
            return True
        case "wait":
            await writer.drain()
            await _until_gone(reader)
        case "reset":
            await writer.drain()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        case "close":
            await writer.drain()
    return False


async def _until_gone(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass
    raise _ClientLeft


def _write_whole(writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str]) -> None:
    writer.write(head(status, {**headers, "content-length": str(len(body))}) + body)


def _recorded(recording: Recording) -> list[Sent]:
    pieces = [step for step in recording.body if isinstance(step, bytes)]
    if len(pieces) < len(recording.body):
        msg = "the simulator plays bytes alone: a Recording with something to await is for replay_model"
        raise UsageError(msg)
    return [Sent(piece, is_delta=True) for piece in pieces]


def _provider(target: str) -> str:
    """Give the provider in an address that `url` gave; `/openai/…` is also how Azure's own addresses begin."""
    first = target.split("/")[1] if target.startswith("/") else ""
    return first if first in BY_NAME else ""


_NOWHERE = compact(
    {"error": {"message": f"no wire has this address; there are {', '.join(WIRES)}", "type": "not_found_error"}}
)


def simulator(  # noqa: PLR0913 (what is said, how fast, what goes wrong; all keyword-only but the scripts)
    *scripts: SimulatorScript,
    respond: Responder | None = None,
    pace: Pace = Pace(),  # noqa: B008 (frozen)
    paces: Mapping[str, Pace] | None = None,
    faults: Sequence[Fault | None] | Fault = (),
    fault_rate: float = 0.0,
    seed: int = 0,
    port: int = 0,
    real_time: bool = True,
    on_request: Callable[[Received], object] | None = None,
    api_key: str | None = None,
) -> Simulator:
    """Give a simulator, to be opened by `with` or `async with`.

    `scripts` are answered one a request, the last one again and again (default: a sentence about rivers); `respond`
    makes the script of each request instead. `pace` is the latency, `paces` that of single providers by the name in
    their address. `faults` are those of the first, the second, … request (None: none), after which all is well; a
    single `Fault` is every request's. With `fault_rate`, a share from 0 to 1 of the requests has one of `faults` by
    chance. The same `seed` gives the same times and faults. `port` 0 takes a free one. Without `real_time` the waits
    take no time. `on_request` is called, in the simulator's thread, with every request. With `api_key` a request whose
    key is another, or missing, gets the refusal of its wire; hosts that know no keys are asked for none. Of a request
    that is signed for AWS it is the id of the key.

    Raises `ConfigError` for a rate outside 0 to 1 and a key that no header can hold, `UsageError` for a script that no
    wire can say, and on opening `ConnectFailed` where the port is taken. What `respond` raises, and `UsageError` for a
    script that a request's wire cannot say, closes that connection and is raised on closing, unless another error is on
    its way.
    """
    every = isinstance(faults, Fault)
    return Simulator(
        scripts or (text_answer(DEFAULT_TEXT),),
        respond=respond,
        pace=pace,
        paces=paces or {},
        faults=(faults,) if isinstance(faults, Fault) else faults,
        fault_rate=1.0 if every else fault_rate,
        seed=seed,
        port=port,
        real_time=real_time,
        on_request=on_request,
        api_key=api_key,
    )
