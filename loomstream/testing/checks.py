"""Conformance: does a provider keep the promises that a user of loomstream relies on?

    report = await conformance(model)
    print(report)
    report.raise_for_failures()

Contract: works with any `Model`: a row of the table, one of `looms.yaml`, a package's row, dialect or handler. It sends
about ten short requests, one after another but for one check, and reads each answer to where the check ends. The
model's own middleware is left out. Where the provider speaks HTTP, the bytes of two of the answers are decoded again,
cut and truncated anywhere, and so are HTTP errors and garbage: offline, without further requests. It raises nothing:
whatever goes wrong is a failed check.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal

import anyio
from msgspec import Struct

from loomstream.errors import (
    AuthFailed,
    BadRequest,
    LoomstreamError,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RequestError,
    ServerFault,
    StreamCancelled,
)
from loomstream.events import CONTENT_EVENTS, Event, Stop, TextDelta
from loomstream.messages import Tool, to_messages, tool_result
from loomstream.model import Model
from loomstream.stream import Stream
from loomstream.testing.observed import Broken, Lab, NotApplicable, Recorded, Subject
from loomstream.testing.order import check_order
from loomstream.wire.json import is_object

Result = Literal["pass", "fail", "not applicable"]

WEATHER = Tool(
    name="get_weather",
    description="Tells the weather of a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
"""The tool that the model is asked to call."""

_AT_ONCE = 4
_CUTS = 20
_MAX_CUT_BYTES = 64 * 1024
_MAX_TRUNCATIONS = 200
_STILL_GOING_S = 1.0


class Check(Struct, frozen=True):
    """One promise: whether it was kept, and why one may say so."""

    name: str
    result: Result
    why: str = ""

    def __str__(self) -> str:
        return f"{self.result:<14}  {self.name}" + (f": {self.why}" if self.why else "")


class ConformanceFailure(AssertionError):
    """A provider does not keep a promise; the message is the report."""


class ConformanceReport(Struct, frozen=True):
    """What came out; as text one line a check."""

    provider: str
    model: str
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.result == "fail")

    def raise_for_failures(self) -> None:
        """Raise `ConformanceFailure` where a check failed."""
        if self.failures:
            raise ConformanceFailure(str(self))

    def __str__(self) -> str:
        return "\n".join([f"{self.provider}:{self.model}", *map(str, self.checks)])


async def conformance(
    model: Model,
    *,
    prompt: str = "Count from one to ten in words.",
    tool_prompt: str = "What is the weather in Oslo? Use the tool.",
    refused: Model | None = None,
    max_tokens: int = 512,
    patience_s: float = 60.0,
) -> ConformanceReport:
    """Hold a model's provider to what loomstream promises; see the module's contract.

    `prompt` should be answered by a few sentences of text, `tool_prompt` by a call of `get_weather`. `refused` is a
    model of the same provider with a wrong key, where there is one. `max_tokens` bounds each answer, `patience_s` each
    check, in seconds.
    """
    subject = Subject(model, prompt, tool_prompt, refused, max_tokens)
    checks = [await _checked(name, check, subject, patience_s) for name, check in _CHECKS.items()]
    return ConformanceReport(model.provider, model.model, tuple(checks))


async def _checked(name: str, check: Callable[[Subject], Awaitable[str]], subject: Subject, patience_s: float) -> Check:
    try:
        with anyio.fail_after(patience_s):
            return Check(name, "pass", await check(subject))
    except NotApplicable as error:
        return Check(name, "not applicable", str(error))
    except (Broken, AssertionError) as error:
        return Check(name, "fail", str(error))
    except TimeoutError:
        return Check(name, "fail", f"it took longer than {patience_s:g} s")
    except LoomstreamError as error:
        return Check(name, "fail", f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 (what is not typed is what we look for)
        return Check(name, "fail", f"{type(error).__name__} came out, which is no LoomstreamError: {error}")


# --- answers -------------------------------------------------------------------------------------


async def _streamed(subject: Subject) -> str:
    events, response = await subject.read(subject.prompt)
    subject.keep_bytes()
    subject.response = response
    if response.provider != subject.model.provider:
        msg = f"Start names the provider {response.provider!r}, not {subject.model.provider!r}"
        raise Broken(msg)
    if not response.text:
        msg = f"no text came; the answer stopped with {response.stop}"
        raise Broken(msg)
    pieces = sum(isinstance(event, TextDelta) for event in events)
    return f"{len(events)} events, {len(response.text)} characters of text in {pieces} pieces"


async def _whole(subject: Subject) -> str:
    _, response = await subject.read(subject.prompt, stream=False)
    if not response.text:
        msg = f"no text came; the answer stopped with {response.stop}"
        raise Broken(msg)
    return f"{len(response.text)} characters of text"


async def _usage(subject: Subject) -> str:
    if subject.response is None:
        msg = "no answer came"
        raise NotApplicable(msg)
    usage = subject.response.usage
    if usage is None:
        msg = "the provider sends none"
        raise NotApplicable(msg)
    if not usage.output_tokens:
        msg = "an answer with text counts no output token"
        raise Broken(msg)
    return f"{usage.input_tokens} in, {usage.output_tokens} out"


async def _many(subject: Subject) -> str:
    problems: list[Exception] = []

    async def one() -> None:
        stream = subject.stream(subject.prompt)
        try:
            async with stream:
                check_order([event async for event in stream])
        except Exception as error:  # noqa: BLE001 (raised again below, outside the group)
            problems.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(_AT_ONCE):
            group.start_soon(one)
    for problem in problems:
        raise problem
    subject.check_closed()
    return f"{_AT_ONCE} streams"


# --- tools ---------------------------------------------------------------------------------------


async def _tools(subject: Subject) -> str:
    try:
        events, response = await subject.read(subject.tool_prompt, tools=[WEATHER], tool_choice="any")
    except (RequestError, BadRequest) as error:
        try:
            events, response = await subject.read(subject.tool_prompt, tools=[WEATHER])
        except (RequestError, BadRequest):
            msg = f"tools are refused: {error}"
            raise NotApplicable(msg) from error
    subject.keep_bytes()
    if not response.tool_calls:
        why = "; ".join(response.warnings) or f"it answered {response.text[:80]!r}"
        msg = f"the model called no tool: {why}"
        raise NotApplicable(msg)
    call = response.tool_calls[0]
    if not call.id or call.name != WEATHER.name:
        msg = f"the call has the id {call.id!r} and the name {call.name!r}"
        raise Broken(msg)
    if not (call.executable and is_object(call.arguments)):
        msg = f"the arguments are no JSON object: {call.arguments!r}"
        raise Broken(msg)
    if events[-1].__class__ is Stop and response.stop is not None and response.stop.reason != "tool_use":
        msg = f"the answer stopped with {response.stop}, not with tool_use"
        raise Broken(msg)
    subject.tool_call, subject.called = call, response
    return f"{call.name}({call.arguments}), id {call.id}"


async def _tool_result(subject: Subject) -> str:
    call, response = subject.tool_call, subject.called
    if call is None or response is None:
        msg = "the model called no tool"
        raise NotApplicable(msg)
    results = [tool_result(made, "12 degrees, light rain") for made in response.tool_calls]
    conversation = [*to_messages(subject.tool_prompt), response.message, *results]
    _, answer = await subject.read(conversation, tools=[WEATHER])
    return f"it answered {answer.text[:80]!r}" if answer.text else f"it stopped with {answer.stop}"


# --- leaving -------------------------------------------------------------------------------------


async def _until_content(stream: Stream) -> None:
    async for event in stream:
        if isinstance(event, CONTENT_EVENTS):
            return


async def _left_early(subject: Subject) -> str:
    async with subject.stream(subject.prompt) as stream:
        await _until_content(stream)
    subject.check_closed()
    events = subject.spy.events
    if events is not None and await _goes_on(events):
        msg = "the handler's events go on after its context was left"
        raise Broken(msg)
    return "the upstream was closed before the next statement"


async def _goes_on(events: AsyncIterator[Event]) -> bool:
    with anyio.move_on_after(_STILL_GOING_S):
        try:
            await anext(events)
        except Exception:  # noqa: BLE001 (however it says that it is closed)
            return False
        return True
    return False


async def _cancelled_task(subject: Subject) -> str:
    stream = subject.stream(subject.prompt)
    with anyio.CancelScope() as scope:
        async with stream:
            await _until_content(stream)
            scope.cancel()
            await stream.collect()
    subject.check_closed()
    return "the read was cancelled" if scope.cancelled_caught else "the rest of the answer was there already"


async def _cancelled_stream(subject: Subject) -> str:
    stream = subject.stream(subject.prompt)
    async with stream:
        await _until_content(stream)
        stream.cancel()
        try:
            await stream.collect()
        except StreamCancelled:
            subject.check_closed()
            return "StreamCancelled"
    subject.check_closed()
    return "the rest of the answer was there already"


# --- bytes ---------------------------------------------------------------------------------------


def _lab(subject: Subject) -> Lab:
    return Lab(subject.over_http())


def _answers(subject: Subject) -> list[Recorded]:
    if not subject.recorded:
        msg = "no answer came"
        raise NotApplicable(msg)
    return subject.recorded


def _pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def _random_pieces(body: bytes, seed: int) -> list[bytes]:
    numbers = random.Random(seed)  # noqa: S311 (places to cut, the same each time)
    cuts = sorted(numbers.sample(range(len(body) + 1), min(len(body), numbers.randrange(1, 20))))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


async def _cut_anywhere(subject: Subject) -> str:
    lab = _lab(subject)
    answers = _answers(subject)
    for recorded in answers:
        expected = await lab.run([recorded.body], recorded.response)
        cut = [_random_pieces(recorded.body, seed) for seed in range(_CUTS)]
        if len(recorded.body) <= _MAX_CUT_BYTES:
            cut.append(_pieces(recorded.body, 1))
        for pieces in cut:
            if await lab.run(pieces, recorded.response) != expected:
                sizes = [len(piece) for piece in pieces]
                msg = f"the same bytes gave other events when they came in pieces of {sizes[:20]}"
                raise Broken(msg)
    return f"{len(answers)} answers, byte by byte and at {_CUTS} sets of random places"


async def _truncated(subject: Subject) -> str:
    lab = _lab(subject)
    ends = 0
    for recorded in _answers(subject):
        expected, _ = await lab.run([recorded.body], recorded.response)
        for end in _ends(recorded.body):
            events, error = await lab.run([recorded.body[:end]], recorded.response)
            if not error and _content(events) != _content(expected):
                msg = f"the first {end} of {len(recorded.body)} bytes pass for a whole answer"
                raise Broken(msg)
            ends += 1
    return f"at {ends} places: an error, or nothing was missing"


def _ends(body: bytes) -> Sequence[int]:
    lines = [position + 1 for position, byte in enumerate(body) if byte == ord("\n")][:_MAX_TRUNCATIONS]
    step = max(1, len(body) // _MAX_TRUNCATIONS)
    return sorted({*lines, *range(0, len(body), step)})


def _content(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, CONTENT_EVENTS)]


# --- errors --------------------------------------------------------------------------------------

_GARBAGE = (
    b"",
    b"\x00\xff\xfe\x01",
    b"<html><body>Bad gateway</body></html>",
    b"{}",
    b"null",
    b"[" * 1000,
    b'{"error": 1}',
    b'{"error": {"message": ["x"], "code": {}, "type": null}}',
    b"data: {}\n\n",
    b"data: nothing\n\n",
)
_ERRORS: dict[int, tuple[type[ProviderError], ...]] = {
    400: (ProviderError,),
    401: (AuthFailed,),
    403: (ProviderError,),
    404: (ProviderError,),
    413: (ProviderError,),
    429: (RateLimited, QuotaExhausted),
    500: (ServerFault, Overloaded),
    503: (ServerFault, Overloaded),
    529: (ServerFault, Overloaded),
}


async def _statuses(subject: Subject) -> str:
    lab = _lab(subject)
    for status, kinds in _ERRORS.items():
        for body in _GARBAGE:
            error = (await lab.pump()).status_error(status, body)
            if not isinstance(error, kinds):
                names = " or ".join(kind.__name__ for kind in kinds)
                msg = f"status {status} with {body[:40]!r} becomes {type(error).__name__}, not {names}"
                raise Broken(msg)
            if error.status != status:
                msg = f"status {status} with {body[:40]!r} becomes an error of status {error.status}"
                raise Broken(msg)
    return f"{len(_ERRORS)} statuses, each with {len(_GARBAGE)} bodies"


async def _garbage(subject: Subject) -> str:
    lab = _lab(subject)
    for body in _GARBAGE:
        events, error = await lab.run([body])
        if not error and _content(events):
            msg = f"{body[:40]!r} passes for an answer"
            raise Broken(msg)
    return f"{len(_GARBAGE)} bodies that are no answer"


async def _wrong_key(subject: Subject) -> str:
    if subject.refused is None:
        msg = "no model with a wrong key was given (refused=…)"
        raise NotApplicable(msg)
    try:
        async with subject.refused.stream(subject.prompt) as stream:
            await stream.collect()
    except AuthFailed as error:
        return str(error)
    msg = "a wrong key was accepted"
    raise Broken(msg)


_CHECKS: dict[str, Callable[[Subject], Awaitable[str]]] = {
    "a streamed answer obeys the order law": _streamed,
    "a whole answer obeys the order law": _whole,
    "usage is counted": _usage,
    "a tool is called": _tools,
    "a tool's result is taken": _tool_result,
    "many streams at once": _many,
    "leaving early closes the upstream": _left_early,
    "a cancelled task closes the upstream": _cancelled_task,
    "Stream.cancel() closes the upstream": _cancelled_stream,
    "bytes may be cut anywhere": _cut_anywhere,
    "a truncated answer is an error": _truncated,
    "HTTP errors are typed": _statuses,
    "what is no answer is an error": _garbage,
    "a wrong key is refused": _wrong_key,
}
