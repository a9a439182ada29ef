r"""A dialect of its own: Acme's answers are JSON lines.

    {"kind": "text", "text": "Hel"}
    {"kind": "call", "id": "c1", "name": "get_weather", "arguments": {"city": "Oslo"}}
    {"kind": "end", "reason": "stop", "tokens": {"in": 7, "out": 2}}
    {"kind": "error", "code": "overloaded", "message": "try later"}

Terminal marker: a line of kind `end`. A whole answer is an object with these `lines`. The contract is that of
`loomstream.dialects`: pure functions, a translator that never raises, `StreamTruncated` unless the marker was seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from loomstream.dialects import Target, Translator, endpoint_url
from loomstream.dialects.blocks import Blocks, OpenBlock, Sealer
from loomstream.dialects.bodies import arguments_of, compact, encode_body
from loomstream.dialects.fields import Counter, read_object, read_text
from loomstream.dialects.http_errors import error_fields, provider_error
from loomstream.errors import Failure, ProviderError, StreamTruncated
from loomstream.events import NULL, Event, Start, Stop, StopReason, TextDelta, Unknown, Usage
from loomstream.messages import Message, Request, Text, ToolCall, ToolResult
from loomstream.wire import Frame, WireRequest
from loomstream.wire.json import Reader, loads

FRAMING = "ndjson"
"""How a streamed body is cut into frames; loomstream decodes them."""

STOP_REASONS: dict[str, StopReason] = {"stop": "end_turn", "length": "max_tokens", "call": "tool_use"}
_OK = 200
_Out = list[Event | Failure]


# --- the request ---------------------------------------------------------------------------------


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request. The credential is added elsewhere."""
    body: dict[str, object] = {
        "model": target.model,
        "stream": request.stream,
        "turns": [turn for message in request.messages for turn in _turns(message)],
        "system": request.system,
        "limit": request.max_tokens,
        "tools": [{"name": tool.name, "about": tool.description, "schema": tool.parameters} for tool in request.tools],
    }
    return WireRequest(
        url=endpoint_url(target, "/answers", stream=request.stream),
        headers={"content-type": "application/json", **request.extra_headers},
        body=encode_body(
            {key: value for key, value in body.items() if value not in (None, "", [])}, request.extra_body
        ),
        warnings=_warnings(request, target),
    )


def _turns(message: Message) -> list[dict[str, object]]:
    turns: list[dict[str, object]] = []
    for block in message.content:
        match block:
            case Text(text=text):
                turns.append({"by": message.role, "text": text})
            case ToolCall(id=id, name=name, arguments=arguments):
                turns.append({"by": "assistant", "call": id, "name": name, "arguments": arguments_of(arguments)})
            case ToolResult(tool_call_id=id, content=content):
                text = "".join(part.text for part in content if isinstance(part, Text))
                turns.append({"by": "tool", "call": id, "text": text})
            case _:  # `_warnings` says so
                pass
    return turns


def _warnings(request: Request, target: Target) -> tuple[str, ...]:
    """Say what Acme cannot honour: it goes into `Start.warnings`."""
    kinds = {type(block).__name__ for message in request.messages for block in message.content}
    left_out = sorted(kinds - {"Text", "ToolCall", "ToolResult"})
    ignored = [name for name in ("temperature", "top_p", "top_k", "seed", "tool_choice") if getattr(request, name)]
    return tuple(f"{target.provider} does not take {name}" for name in (*left_out, *ignored))


# --- the answer ----------------------------------------------------------------------------------


class _Line(msgspec.Struct):
    """Only what carries content is typed: a mistyped side field must not cost a line its text."""

    kind: str = ""
    text: str = ""
    name: str = ""
    id: msgspec.Raw = NULL
    arguments: msgspec.Raw = NULL
    reason: msgspec.Raw = NULL
    tokens: msgspec.Raw = NULL


_decoder = msgspec.json.Decoder(_Line)


class LinesTranslator:
    """Lines of one stream to events."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader = Reader(_decoder)
        self._sealer = Sealer(self._reader)
        self._blocks = Blocks()
        self._text: OpenBlock | None = None
        self._started = False

    def feed(self, frame: Frame) -> _Out:
        """Take a line, give its events."""
        if self._sealer.over:
            return []
        line = self._reader.read(frame.data)
        out: _Out = []
        if isinstance(line, Failure):
            out.append(line)
        elif line.kind == "error":
            out.append(Failure(parse_error(_OK, {}, frame.data, self._target)))
        else:
            self._line(line, frame, out)
        return self._sealer.seal(out)

    def finish(self) -> _Out:
        """Say that the body is over."""
        if self._sealer.over:
            return []
        self._sealer.over = True
        return [Failure(StreamTruncated(f"{self._target.provider}: the body ended before a line of kind 'end'"))]

    def _line(self, line: _Line, frame: Frame, out: _Out) -> None:
        if line.kind not in ("text", "call", "end"):
            out.append(Unknown(line.kind, frame.data.decode("utf-8", "replace")))
            return
        if not self._started:
            self._started = True
            out.append(Start(self._target.provider, self._target.model))
        if line.kind == "text":
            if line.text:
                self._text = self._text or self._blocks.open_text(out)
                out.append(TextDelta(self._text.index, line.text))
            return
        if self._text is not None:
            self._blocks.close(out, self._text)
            self._text = None
        if line.kind == "call":
            block = self._blocks.open_tool_call(out, read_text(line.id), line.name)
            self._blocks.arguments(out, block, compact(line.arguments))
            self._blocks.close(out, block)
        else:
            self._end(line, out)

    def _end(self, line: _Line, out: _Out) -> None:
        self._sealer.over = True
        counter = Counter(read_object(line.tokens))
        told, answered = counter.get("in"), counter.get("out")
        if told is not None or answered is not None:
            out.append(Usage(input_tokens=told or 0, output_tokens=answered or 0, final=True))
        raw = read_text(line.reason)
        out.append(Stop(STOP_REASONS.get(raw, "other"), raw))


def translator(target: Target) -> Translator:
    """Give a translator for one stream."""
    return LinesTranslator(target)


class _Whole(msgspec.Struct):
    lines: list[msgspec.Raw] = []


_whole_decoder = msgspec.json.Decoder(_Whole)


def parse_response(body: bytes, target: Target) -> _Out:
    """Give the events of a whole answer: the same code, line by line."""
    whole = Reader(_whole_decoder).read(body)
    if isinstance(whole, Failure):
        return [whole]
    lines = LinesTranslator(target)
    if not whole.lines:  # an error, perhaps
        return lines.feed(Frame("", body)) + lines.finish()
    out: _Out = []
    for line in whole.lines:
        out += lines.feed(Frame("", bytes(line)))
        if out and isinstance(out[-1], Failure | Stop):
            return out
    return out + lines.finish()


def parse_error(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
    """Give the typed error of an error answer, or of a line of kind `error`."""
    parsed = loads(body)
    code, kind, message = error_fields(parsed)
    return provider_error(status, headers, code, message, body, target, kind=kind, parsed=parsed)
