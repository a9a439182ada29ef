"""generateContent frames to events.

Contract: one `GeminiTranslator` per stream; it never raises. A whole answer goes through the same code as a stream, so
both fold to the same response. What has no event of its own (a frame or part that is not known) comes out as `Unknown`,
never lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.blocks import Blocks, OpenBlock, Sealer
from loomstream.dialects.bodies import compact
from loomstream.dialects.failures import bad_frame, broken
from loomstream.dialects.fields import as_text, is_null, read_object, read_text
from loomstream.dialects.gemini.errors import stream_error
from loomstream.dialects.gemini.parts import Parts
from loomstream.dialects.gemini.usage import plain_usage, read_usage
from loomstream.dialects.gemini.wire import (
    Candidate,
    Chunk,
    RawCandidate,
    RawChunk,
    RawContent,
    chunk_decoder,
    plain_decoder,
    raw_chunk_decoder,
)
from loomstream.dialects.shortcut import PlainReader
from loomstream.errors import Failure, LimitExceeded, StreamTruncated
from loomstream.events import (
    NULL,
    Event,
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
from loomstream.wire.json import Reader, loads

_Out = list[Event | Failure]

STOP_REASONS: dict[str, StopReason] = {
    "STOP": "end_turn",
    "MAX_TOKENS": "max_tokens",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "IMAGE_OTHER": "content_filter",
    "CONTINUATION": "pause",
    "FUNCTION_CALL": "tool_use",  # what servers that imitate the API say; Google says STOP
}
"""The wire's finish reasons; any other is `other`, a call that the model got wrong among them."""

MAX_CHOICES = 1024
"""More candidates than this in one answer end the stream with `LimitExceeded`."""

_DONE = b"[DONE]"
"""What some proxies write behind the last chunk."""
_UNSPECIFIED = "FINISH_REASON_UNSPECIFIED"
"""What some servers write for "not finished yet"."""
_WHOLE = frozenset({"end_turn", "tool_use"})
"""What a call has come to its end by, even if its last piece did not say so."""
_QUIET = frozenset({"STOP", "MAX_TOKENS"})
"""Finish reasons whose message says nothing of use."""
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")


class GeminiTranslator:
    """Frames of one stream to events."""

    __slots__ = (
        "_blocked",
        "_blocks",
        "_candidates",
        "_growing",
        "_made_ids",
        "_plain",
        "_raw",
        "_reader",
        "_sealer",
        "_started",
        "_target",
        "_unfinished",
        "_usage",
        "_usage_raw",
    )

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader = Reader(chunk_decoder)
        self._plain = PlainReader(plain_decoder)
        self._growing: OpenBlock | None = None
        """The block that a plain frame goes on with: that of the only candidate, which has not finished."""
        self._sealer = Sealer(self._reader)
        self._blocks = Blocks()
        self._candidates: dict[int, Parts] = {}
        self._unfinished = 0
        """How many candidates have no finish reason yet."""
        self._blocked = ""
        """Why the prompt was refused."""
        self._made_ids = "made_"
        self._raw: list[RawCandidate] | None = None
        """The candidates of the frame at hand with their parts as they came, once one of these was asked for."""
        self._started = False
        self._usage: Usage | None = None
        self._usage_raw = NULL

    def feed(self, frame: Frame) -> list[Event | Failure]:
        """Take a frame, give its events."""
        return self.feed_all((frame,))

    def feed_all(self, frames: Iterable[Frame]) -> list[Event | Failure]:
        """Take frames one after the other, give the events of all."""
        out: _Out = []
        for frame in frames:
            block = self._growing
            if block is None or not self._goes_on(frame.data, block, out):
                out += self._read(frame)
        return out

    def _read(self, frame: Frame) -> list[Event | Failure]:
        """Give the events of a frame that is read in full."""
        if self._sealer.over or frame.data == _DONE:
            return []
        chunk = self._reader.read(frame.data)
        out: _Out = []
        if isinstance(chunk, Failure):
            out.append(broken(chunk.error, self._target))
        else:
            self._chunk(chunk, frame, out)
        out = self._sealer.seal(out)
        self._growing = self._only_open_block()
        return out

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        self._growing = None
        return [] if self._sealer.over else self._sealer.seal(self._end())

    def whole(self, body: bytes) -> list[Event | Failure]:
        """Give the events of a whole answer."""
        chunk = self._reader.read(body)
        if isinstance(chunk, Failure):
            return [broken(chunk.error, self._target)]
        if not _is_answer(chunk) and is_null(chunk.error):
            return [bad_frame("no answer", body, self._target)]
        out: _Out = []
        self._chunk(chunk, Frame("", body), out)
        out = self._sealer.seal(out)
        return out if self._sealer.over else out + self.finish()

    # --- plain frames ----------------------------------------------------------------------------

    def _only_open_block(self) -> OpenBlock | None:
        state = self._candidates.get(0)
        if state is None or len(self._candidates) > 1 or state.finish or self._sealer.over or self._reader.carried:
            return None
        return state.growing

    def _goes_on(self, data: bytes, block: OpenBlock, out: _Out) -> bool:
        """Add the events of a frame that only goes on with this block, and counts; False for any other."""
        chunk = self._plain.read(data)
        if chunk is None:
            return False
        part = chunk.candidates[0].content.parts[0]
        if not part.text or part.thought is (block.kind == "text"):
            return False
        raw, usage = chunk.usageMetadata, None
        if raw is not NULL and raw != self._usage_raw:
            usage = plain_usage(raw, data)
            if usage is None:
                return False
            self._usage_raw, self._usage = usage.raw, usage
        out.append((ReasoningDelta if part.thought else TextDelta)(block.index, part.text))
        if usage is not None:
            out.append(usage)
        return True

    # --- frames ----------------------------------------------------------------------------------

    def _chunk(self, chunk: Chunk, frame: Frame, out: _Out) -> None:
        if not self._started and (is_null(chunk.error) or chunk.candidates or not is_null(chunk.usageMetadata)):
            self._start(chunk, out)
        for position, candidate in enumerate(chunk.candidates or ()):
            self._candidate(candidate, position, frame, out)
        self._raw = None
        if chunk.promptFeedback is not NULL:
            self._feedback(chunk.promptFeedback, out)
        if chunk.usageMetadata is not NULL and not is_null(chunk.usageMetadata):
            self._add_usage(chunk.usageMetadata, out)
        if chunk.error is not NULL and not is_null(chunk.error):
            self._flush_usage(out)
            out.append(Failure(stream_error(frame.data, self._target)))
        elif chunk.candidates is None and not _is_known(chunk):
            out.append(Unknown(frame.name, frame.data.decode("utf-8", "replace")))

    def _start(self, chunk: Chunk, out: _Out) -> None:
        self._started = True
        target, response_id = self._target, read_text(chunk.responseId)
        if response_id:
            self._made_ids = f"made_{_NOT_IN_ID.sub('_', response_id)}_"
        model = read_text(chunk.modelVersion) or target.model
        out.append(Start(provider=target.provider, model=model, response_id=response_id))

    def _candidate(self, candidate: Candidate, position: int, frame: Frame, out: _Out) -> None:
        choice = position if candidate.index is NULL else _choice_of(candidate, position)
        state = self._candidates.get(choice) or self._open(choice, out)
        content = candidate.content
        if content is not None and content.parts:
            for place, part in enumerate(content.parts):
                raw = self._raw_part(frame, position, place) if part.text is None else NULL
                state.add(part, raw, out)
        if _has_sources(candidate):
            state.cite(candidate, out)
        if candidate.logprobsResult is not NULL:
            state.add_logprobs(candidate.logprobsResult, out)
        if candidate.finishReason is not NULL:
            self._note_finish(state, candidate)

    def _raw_part(self, frame: Frame, position: int, place: int) -> RawJSON:
        """Give a part as it came. The frame is read for it but once, and has been read with stricter types already."""
        if self._raw is None:
            self._raw = cast("RawChunk", Reader(raw_chunk_decoder).read(frame.data)).candidates or []
        content = self._raw[position].content or RawContent()
        return (content.parts or [])[place]

    def _note_finish(self, state: Parts, candidate: Candidate) -> None:
        reason = read_text(candidate.finishReason)
        if reason and reason != _UNSPECIFIED:
            self._unfinished -= not state.finish
            state.finish = reason
            state.finish_message = read_text(candidate.finishMessage)

    def _open(self, choice: int, out: _Out) -> Parts:
        if len(self._candidates) == MAX_CHOICES:
            out.append(broken(LimitExceeded(f"the answer has more than {MAX_CHOICES} candidates"), self._target))
        self._unfinished += 1
        state = self._candidates[choice] = Parts(self._target, self._blocks, choice, self._made_ids)
        return state

    def _feedback(self, raw: RawJSON, out: _Out) -> None:
        reason = as_text(read_object(raw).get("blockReason"))
        if reason and not self._blocked:
            self._blocked = reason
            out.append(Notice("warning", f"the prompt was refused: {compact(raw)}"))

    def _add_usage(self, raw: RawJSON, out: _Out) -> None:
        if raw == self._usage_raw:
            return
        self._usage_raw = raw.copy()
        usage, mistyped = read_usage(raw)
        if mistyped:
            out += [Notice("warning", f"mistyped usage field {name}") for name in mistyped]
        if usage is not None:
            self._usage = usage
            if not self._finished():
                out.append(usage)

    # --- the end ---------------------------------------------------------------------------------

    def _finished(self) -> bool:
        return self._unfinished == 0 and bool(self._candidates or self._blocked)

    def _flush_usage(self, out: _Out) -> None:
        """Give the usage that was held back because the answer seemed to be over."""
        if self._usage is not None and self._finished():
            out.append(self._usage)

    def _end(self) -> _Out:
        out: _Out = []
        if not self._finished():
            what = "a finishReason" if self._started else "the first chunk"
            message = f"{self._target.provider}: the body ended before {what}"
            return [broken(StreamTruncated(message), self._target)]
        self._sealer.over = True
        for choice, state in sorted(self._candidates.items()):
            state.close(out, cut=STOP_REASONS.get(state.finish) not in _WHOLE)
            self._tell(choice, state, out)
        if self._usage is not None:
            out.append(msgspec.structs.replace(self._usage, final=True))
        out.append(self._stop())
        return out

    def _tell(self, choice: int, state: Parts, out: _Out) -> None:
        if choice != min(self._candidates):
            out.append(Notice("warning", f"choice {choice} stopped: {state.finish}"))
        elif state.empty and state.finish == "STOP":
            out.append(Notice("warning", "the answer is empty"))
        if state.finish_message and state.finish not in _QUIET:
            out.append(Notice("warning", f"{state.finish}: {state.finish_message}"))

    def _stop(self) -> Stop:
        if not self._candidates:
            return Stop("content_filter", self._blocked)
        state = self._candidates[min(self._candidates)]
        reason = STOP_REASONS.get(state.finish, "other")
        return Stop("tool_use" if reason == "end_turn" and state.called else reason, state.finish)


def _choice_of(candidate: Candidate, position: int) -> int:
    """Give the candidate's index; the wire leaves out a 0."""
    if bytes(candidate.index) == b"0":
        return 0
    index = loads(candidate.index)
    return index if type(index) is int and index >= 0 else position


def _has_sources(candidate: Candidate) -> bool:
    return (
        candidate.groundingMetadata is not NULL
        or candidate.citationMetadata is not NULL
        or candidate.urlContextMetadata is not NULL
    )


def _is_answer(chunk: Chunk) -> bool:
    return chunk.candidates is not None or not is_null(chunk.promptFeedback)


def _is_known(chunk: Chunk) -> bool:
    return _is_answer(chunk) or not is_null(chunk.usageMetadata) or not is_null(chunk.responseId)


def translator(target: Target) -> GeminiTranslator:
    """Give a translator for one stream."""
    return GeminiTranslator(target)


def parse_response(body: bytes, target: Target) -> list[Event | Failure]:
    """Give the events of a whole answer; they fold to the same response as the stream's."""
    return GeminiTranslator(target).whole(body)
