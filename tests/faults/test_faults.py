"""Every provider by every fault, through `stream()` and `complete()`: class, retry safety, delay, what had arrived.

`python tests/faults/test_faults.py --write` renews the table in docs/errors.md.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.lowlevel
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the shapes stand beside the tests, which are no package

from shapes import MIDSTREAM, OF_DIALECT, OF_PROVIDER, SHAPES, STATUSES, UNSAID, answer  # noqa: E402 (found by the line above)

from loomstream.dialects import Target  # noqa: E402
from loomstream.endpoint import Endpoint  # noqa: E402
from loomstream.errors import (  # noqa: E402
    BadRequest,
    ConnectFailed,
    ConnectionLost,
    FirstEventTimeout,
    IdleTimeout,
    LoomstreamError,
    StreamTruncated,
)
from loomstream.events import TextDelta  # noqa: E402
from loomstream.messages import Response, Timeouts  # noqa: E402
from loomstream.model import Model  # noqa: E402
from loomstream.providers import DIALECTS, dialect_module, dialects_of, look_up  # noqa: E402
from loomstream.providers.table import TABLE  # noqa: E402
from loomstream.pump import Pump  # noqa: E402
from loomstream.testing import Recording, ReplayTransport  # noqa: E402
from loomstream.testing.clock import virtual_clock_backends  # noqa: E402
from loomstream.transport import ByteResponse  # noqa: E402
from loomstream.wire import WireRequest  # noqa: E402

PAGE = HERE.parents[1] / "docs" / "errors.md"
BEGIN, END = "<!-- faults:begin -->\n", "<!-- faults:end -->"

COMMON = "OpenAI"
"""The shape of most; the page does not list who has it, so that a new host changes nothing here."""

PAIRS = [(row.name, dialect) for row in TABLE if not row.handler for dialect in dialects_of(row)]
"""Every provider with each dialect that it speaks."""

CONTENT_TYPES = {
    "aws": "application/vnd.amazon.eventstream",
    "ndjson": "application/x-ndjson",
    "sse": "text/event-stream",
}
STREAMS = HERE.parent / "streams"
PLAIN = {"bedrock_invoke": "messages"}
"""The golden of a plain text, where it is not `text`."""

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_keys")]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]


# --- a stream that has begun ---------------------------------------------------------------------


@cache
def opening(dialect: str) -> bytes:
    """Give the beginning of a golden stream, up to and with the frame of its first piece of text."""
    body = (STREAMS / dialect / f"{PLAIN.get(dialect, 'text')}.bin").read_bytes()
    pump = Pump(dialect=dialect_module(dialect), target=Target(provider="host", model="m"), expected=DIALECTS[dialect])
    end = next(
        at for at in range(len(body)) if any(isinstance(event, TextDelta) for event in pump.feed(body[at : at + 1]))
    )
    return body[: end + 1]


class Refusing(ReplayTransport):
    """Nobody listens."""

    @asynccontextmanager
    async def open(self, wire_request: WireRequest, *, connect_s: float | None = None) -> AsyncGenerator[ByteResponse]:
        del connect_s
        await anyio.lowlevel.checkpoint()
        msg = f"nobody listens at {wire_request.url}"
        raise ConnectFailed(msg)
        yield  # pragma: no cover (it makes a generator)


class Hanging(ReplayTransport):
    """The headers never come."""

    @asynccontextmanager
    async def open(self, wire_request: WireRequest, *, connect_s: float | None = None) -> AsyncGenerator[ByteResponse]:
        del connect_s, wire_request
        await anyio.sleep_forever()
        yield  # pragma: no cover (it makes a generator)


async def _hang() -> None:
    await anyio.sleep_forever()


async def _reset() -> None:
    await anyio.lowlevel.checkpoint()
    msg = "the connection was reset"
    raise ConnectionLost(msg)


class Trouble(NamedTuple):
    """A fault that is no status: the transport that has it, what it becomes, and whether text had arrived."""

    transport: Callable[[str], ReplayTransport]
    error: type[LoomstreamError]
    retry_safety: str
    began: bool


def _begun(then: Callable[[], Awaitable[None]] | None) -> Callable[[str], ReplayTransport]:
    def make(dialect: str) -> ReplayTransport:
        steps = [opening(dialect)] if then is None else [opening(dialect), then]
        return ReplayTransport(Recording(steps, headers={"content-type": CONTENT_TYPES[DIALECTS[dialect]]}))

    return make


TROUBLES: dict[str, Trouble] = {
    "refused": Trouble(lambda _: Refusing(), ConnectFailed, "yes", began=False),
    "silence before the headers": Trouble(lambda _: Hanging(), FirstEventTimeout, "maybe", began=False),
    "silence in the stream": Trouble(_begun(_hang), IdleTimeout, "maybe", began=True),
    "cut: the peer closes early": Trouble(_begun(None), StreamTruncated, "maybe", began=True),
    "cut: the connection breaks": Trouble(_begun(_reset), ConnectionLost, "maybe", began=True),
}


WHOLE_BEGUN = b'{"id":"x",'


def _begun_whole(*then: Callable[[], Awaitable[None]]) -> Callable[[str], ReplayTransport]:
    return lambda _: ReplayTransport(Recording([WHOLE_BEGUN, *then], headers={"content-type": "application/json"}))


WHOLE_TROUBLES: dict[str, Trouble] = {
    "refused": TROUBLES["refused"],
    "silence before the headers": TROUBLES["silence before the headers"],
    "silence in the stream": Trouble(_begun_whole(_hang), FirstEventTimeout, "maybe", began=False),
    "cut: the peer closes early": Trouble(_begun_whole(), StreamTruncated, "maybe", began=False),
    "cut: the connection breaks": Trouble(_begun_whole(_reset), ConnectionLost, "maybe", began=False),
}
"""The same where the answer comes as a whole: half of one is none, and its time is `whole_s`."""


# --- running -------------------------------------------------------------------------------------


def model_of(name: str, dialect: str, transport: ReplayTransport) -> Model:
    row = look_up(name)
    needed = [setting for setting in row.settings if setting.required or f"{{{setting.name}}}" in row.base_url]
    settings = {setting.name: "x" for setting in needed if not setting.default}
    base_url = None if row.base_url else "http://localhost:1"
    endpoint = Endpoint(row, "m", api_key="k-1234567890", base_url=base_url, dialect=dialect, settings=settings)
    return Model(endpoint, transport=transport, middleware=())


async def _iterate(model: Model) -> None:
    async with model.stream("x") as stream:
        async for _ in stream:
            pass


WAYS: dict[str, Callable[[Model], Awaitable[object]]] = {
    "stream": _iterate,
    "complete": lambda model: model.complete("x"),
    "complete, not streamed": lambda model: model.complete("x", stream=False),
}


async def ended(model: Model, way: str) -> LoomstreamError:
    """Give the error that a call ends in."""
    async with model:
        with pytest.raises(LoomstreamError) as raised:
            await WAYS[way](model)
    return raised.value


def partial_text(error: LoomstreamError) -> str:
    assert isinstance(error.partial, Response)
    assert not error.partial.complete
    return error.partial.text


@pytest.mark.parametrize("fault", STATUSES)
@pytest.mark.parametrize(("name", "dialect"), PAIRS)
async def test_a_status(name: str, dialect: str, fault: str) -> None:
    shape, want = OF_PROVIDER.get(name, OF_DIALECT[dialect]), STATUSES[fault]
    response = answer(shape, fault)
    for way in WAYS:
        transport = ReplayTransport(Recording([response.body], response.status, response.headers))
        error = await ended(model_of(name, dialect, transport), way)
        assert type(error) is (BadRequest if (shape, fault) in UNSAID else want.error), way
        assert error.retry_safety == want.retry_safety, way
        assert error.retry_after_s == want.retry_after_s, way
        assert (error.provider, error.model, error.committed) == (name, "m", False), way
        assert partial_text(error) == "", way
        assert SHAPES[shape].fields[fault][2].rstrip(".") in str(error), way


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(("name", "dialect"), PAIRS)
async def test_a_trouble(name: str, dialect: str, trouble: str) -> None:
    want = TROUBLES[trouble]
    for way in ("stream", "complete"):
        error = await ended(model_of(name, dialect, want.transport(dialect)), way)
        assert type(error) is want.error, way
        assert error.retry_safety == want.retry_safety, way
        assert (error.provider, error.model, error.committed) == (name, "m", want.began), way
        assert bool(partial_text(error)) == want.began, way


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(("name", "dialect"), PAIRS)
async def test_a_trouble_of_a_whole_answer(name: str, dialect: str, trouble: str) -> None:
    want = WHOLE_TROUBLES[trouble]
    began = anyio.current_time()
    error = await ended(model_of(name, dialect, want.transport(dialect)), "complete, not streamed")
    assert type(error) is want.error
    assert error.retry_safety == want.retry_safety
    assert (error.provider, error.model, error.committed) == (name, "m", False)
    assert partial_text(error) == ""
    if want.error is FirstEventTimeout:
        assert anyio.current_time() - began >= Timeouts().whole_s


@pytest.mark.parametrize(("name", "dialect"), PAIRS)
async def test_an_error_inside_the_stream(name: str, dialect: str) -> None:
    frame, want = MIDSTREAM[dialect]
    headers = {"content-type": CONTENT_TYPES[DIALECTS[dialect]]}
    for way in ("stream", "complete"):
        transport = ReplayTransport(Recording([opening(dialect), frame], headers=headers))
        error = await ended(model_of(name, dialect, transport), way)
        assert type(error) is want, way
        assert (error.provider, error.model, error.committed) == (name, "m", True), way
        assert partial_text(error), way


# --- the page ------------------------------------------------------------------------------------


def _line(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def table() -> str:
    """Give the tables of the page."""
    lines = [_line("fault", "error", "`retry_safety`", "`retry_after_s`", "`partial`"), "|---|---|---|---|---|\n"]
    for fault, status in STATUSES.items():
        after = "" if status.retry_after_s is None else f"{status.retry_after_s:g}"
        lines.append(_line(fault, f"`{status.error.__name__}`", status.retry_safety, after, "empty"))
    for name, trouble in TROUBLES.items():
        partial = "what had arrived" if trouble.began else "empty"
        lines.append(_line(name, f"`{trouble.error.__name__}`", trouble.retry_safety, "", partial))
    lines.append(_line("an error inside the stream", "by its code", "by its class", "", "what had arrived"))
    unsaid = ", ".join(f"{shape} ({fault})" for shape, fault in sorted(UNSAID))
    lines.append(
        f"\nVendors without a telling error for a fault, where a `BadRequest` is all that can be known: {unsaid}.\n"
    )
    lines.append("\n" + _line("errors written as by", "providers") + "|---|---|\n")
    for shape in SHAPES:
        names = dict.fromkeys(name for name, dialect in PAIRS if OF_PROVIDER.get(name, OF_DIALECT[dialect]) == shape)
        lines.append(_line(shape, "every other one" if shape == COMMON else ", ".join(names)))
    return "".join(lines)


def page() -> str:
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


def test_the_page_of_errors_is_the_table() -> None:
    assert page() == PAGE.read_text("utf-8"), "run: python tests/faults/test_faults.py --write"


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    PAGE.write_text(page(), "utf-8")
