"""Ollama's chat lines to events.

Contract: one `ChatTranslator` per stream; it never raises. A whole answer is a single line, and goes through the same
code. The wire has no blocks: text and thinking share one block until the other kind comes; a tool call is whole at
once. There is no reason for a call, `done_reason` says `stop`: the calls themselves tell.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.blocks import Blocks, OpenBlock, Sealer
from loomstream.dialects.bodies import compact, members
from loomstream.dialects.fields import Counter, as_object, is_null, read_text
from loomstream.dialects.ollama_chat.errors import parse_error
from loomstream.dialects.ollama_chat.logprobs import of_text, read_logprobs
from loomstream.dialects.ollama_chat.wire import (
    Call,
    Line,
    Message,
    line_decoder,
    plain_decoder,
)
from loomstream.dialects.shortcut import UNFIT, PlainReader
from loomstream.errors import BadFrame, Failure, LoomstreamError, StreamTruncated
from loomstream.events import (
    Event,
    File,
    Logprobs,
    Notice,
    ReasoningDelta,
    Start,
    Stop,
    StopReason,
    TextDelta,
    Unknown,
    Usage,
)
from loomstream.wire import Frame
from loomstream.wire.json import Reader, ends_early, loads

_Out = list[Event | Failure]

STOP_REASONS: dict[str, StopReason] = {"stop": "end_turn", "length": "max_tokens"}
"""The wire's reasons; any other (`load`, `unload`) is `other`."""

_OK = 200
_SIDE = ("_count", "_duration")
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


class ChatTranslator:
    """Lines of one stream to events."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader = Reader(line_decoder)
        self._plain = PlainReader(plain_decoder)
        self._sealer = Sealer(self._reader)
        self._blocks = Blocks()
        self._current: OpenBlock | None = None
        self._growing: OpenBlock | None = None
        """The block that a plain line goes on with."""
        self._started = False
        self._called = False
        self._text: int | None = None
        """The index of the last block of text."""
        self._told_of_logprobs = False

    def feed(self, frame: Frame) -> list[Event | Failure]:
        """Take a line, give its events."""
        return self.feed_all((frame,))

    def feed_all(self, frames: Iterable[Frame]) -> list[Event | Failure]:
        """Take lines one after the other, give the events of all."""
        out: _Out = []
        plain, growing, decode = self._plain, self._growing, self._plain.decode
        is_text = growing is not None and growing.kind == "text"
        make = TextDelta if is_text else ReasoningDelta
        missed = True
        for frame in frames:
            if growing is not None and decode is not None:
                try:
                    line = decode(frame.data)
                except UNFIT:
                    missed = True
                    plain.missed()
                    decode = plain.decode
                else:
                    if missed:
                        missed = False
                        plain.fitted()
                    message = line.message
                    text = message.content if is_text else message.thinking
                    if text and not line.done and not (message.thinking if is_text else message.content):
                        out.append(make(growing.index, text))
                        continue
            out += self._read(frame)
            growing = self._growing
            is_text = growing is not None and growing.kind == "text"
            make = TextDelta if is_text else ReasoningDelta
        return out

    def _read(self, frame: Frame) -> list[Event | Failure]:
        """Give the events of a line that is read in full."""
        if self._sealer.over:
            return []
        line = self._reader.read(frame.data)
        out: _Out = []
        if isinstance(line, Failure):
            out.append(self._broken(self._unreadable(line.error, frame)))
        elif not is_null(line.error):
            out.append(Failure(parse_error(_OK, {}, frame.data, self._target)))
        else:
            self._line(line, frame, out)
        out = self._sealer.seal(out)
        self._growing = None if self._sealer.over or self._reader.carried else self._current
        return out

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        if self._sealer.over:
            return []
        self._sealer.over = True
        missing = "a line with done: true" if self._started else "the first line"
        return [self._broken(self._truncated(missing))]

    def _unreadable(self, error: LoomstreamError, frame: Frame) -> LoomstreamError:
        """Tell a line that was cut off, which only the last one can be, from one that is no JSON."""
        cut = isinstance(error, BadFrame) and ends_early(frame.data)
        return self._truncated("the line's end") if cut else error

    def _truncated(self, missing: str) -> StreamTruncated:
        return StreamTruncated(f"{self._target.provider}: the body ended before {missing}")

    def _broken(self, error: LoomstreamError) -> Failure:
        target = self._target
        error.provider, error.model = target.provider, target.model
        return Failure(error)

    # --- content ---------------------------------------------------------------------------------

    def _line(self, line: Line, frame: Frame, out: _Out) -> None:
        done = bytes(line.done) == b"true"
        if line.message is None and not done:
            out.append(Unknown(frame.name, frame.data.decode("utf-8", "replace")))
            return
        if not self._started:
            self._start(line, out)
        if line.message is not None:
            self._message(line.message, out)
            if not is_null(line.logprobs):
                self._logprobs(line.logprobs, line.message, out)
        if done:
            self._end(line, frame, out)

    def _start(self, line: Line, out: _Out) -> None:
        self._started = True
        target = self._target
        model = read_text(line.model) or target.model
        out.append(Start(provider=target.provider, model=model))

    def _message(self, message: Message, out: _Out) -> None:
        if message.thinking:
            out.append(ReasoningDelta(self._block("reasoning", out).index, message.thinking))
        if message.content:
            out.append(TextDelta(self._block("text", out).index, message.content))
        for image in message.images or ():
            self._image(image, out)
        for call in message.tool_calls or ():
            self._call(call, out)

    def _logprobs(self, raw: RawJSON, message: Message, out: _Out) -> None:
        """Give the probabilities of the text's tokens; those of a line without text belong to the text before it."""
        tokens = read_logprobs(raw)
        if tokens and message.thinking:
            tokens = of_text(tokens, message.content) if message.content else ()
        if tokens and self._text is not None:
            out.append(Logprobs(self._text, tokens))
        elif tokens != () and not self._told_of_logprobs:
            self._told_of_logprobs = True
            out.append(Notice("warning", "token probabilities that belong to no text, or cannot be read, are left out"))

    def _block(self, kind: str, out: _Out) -> OpenBlock:
        block = self._current
        if block is None or block.kind != kind:
            self._close_current(out)
            opened = self._blocks.open_text(out) if kind == "text" else self._blocks.open_reasoning(out)
            block = self._current = opened
            if kind == "text":
                self._text = block.index
        return block

    def _close_current(self, out: _Out) -> None:
        if self._current is not None:
            self._blocks.close(out, self._current)
            self._current = None

    def _image(self, encoded: str, out: _Out) -> None:
        self._close_current(out)
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            out.append(Notice("warning", f"an image is no base64: {encoded[:40]!r}"))
            return
        media_type = next((name for magic, name in _MAGIC if data.startswith(magic)), "application/octet-stream")
        out.append(File(self._blocks.claim(out), media_type, data))

    def _call(self, call: Call, out: _Out) -> None:
        self._close_current(out)
        self._called = True
        function = call.function
        block = self._blocks.open_tool_call(out, read_text(call.id), (function.name if function else None) or "")
        self._blocks.arguments(out, block, _arguments(function.arguments) if function else "")
        self._blocks.close(out, block)

    # --- end -------------------------------------------------------------------------------------

    def _end(self, line: Line, frame: Frame, out: _Out) -> None:
        self._sealer.over = True
        self._close_current(out)
        if not self._blocks.next_index and bytes(line.done_reason) == b'"stop"':
            out.append(Notice("warning", "the answer is empty"))
        self._usage(frame.data, out)
        raw = read_text(line.done_reason)
        reason = STOP_REASONS.get(raw, "other")
        if self._called and (reason == "end_turn" or not raw):
            reason = "tool_use"
        out.append(Stop(reason, raw))

    def _usage(self, data: bytes, out: _Out) -> None:
        raw = {name: value for name, value in members(RawJSON(data)).items() if name.endswith(_SIDE)}
        counter = Counter(as_object(loads(data)))
        prompt, completion = counter.get("prompt_eval_count"), counter.get("eval_count")
        out += [Notice("warning", f"mistyped usage field {name}") for name in counter.mistyped]
        if prompt is None and completion is None:
            return
        out.append(
            Usage(
                input_tokens=prompt or 0,
                output_tokens=completion or 0,
                final=True,
                raw=RawJSON(msgspec.json.encode(raw)),
            )
        )


def _arguments(raw: RawJSON) -> str:
    """Give the arguments as JSON text with the digits that came; a string is taken for JSON text itself."""
    if is_null(raw):
        return ""
    value = loads(raw) if bytes(raw).startswith(b'"') else None
    return value if isinstance(value, str) else compact(raw)


def translator(target: Target) -> ChatTranslator:
    """Give a translator for one stream."""
    return ChatTranslator(target)


def parse_response(body: bytes, target: Target) -> list[Event | Failure]:
    """Give the events of a whole answer; they fold to the same response as the stream's."""
    whole = ChatTranslator(target)
    return whole.feed(Frame("", body)) + whole.finish()
