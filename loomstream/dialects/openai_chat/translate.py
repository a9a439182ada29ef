"""Chat Completions frames to events.

Contract: one `ChatTranslator` per stream; it never raises. A whole answer goes through the same code as a stream, so
both fold to the same response.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.blocks import Blocks, OpenBlock, Sealer
from loomstream.dialects.fields import JSONObject, as_list, as_object, as_text, freeze, is_null, read_text
from loomstream.dialects.openai_chat.calls import ToolCalls
from loomstream.dialects.openai_chat.details import Details
from loomstream.dialects.openai_chat.errors import stream_error
from loomstream.dialects.openai_chat.logprobs import read_logprobs
from loomstream.dialects.openai_chat.parts import citation, file_of
from loomstream.dialects.openai_chat.usage import read_usage
from loomstream.dialects.openai_chat.wire import (
    Choice,
    Chunk,
    ContentPart,
    Delta,
    PlainChoice,
    PlainChunk,
    chunk_decoder,
    part_decoder,
    plain_chunk_decoder,
)
from loomstream.dialects.shortcut import PlainReader, Shortcut
from loomstream.errors import BadFrame, Failure, LimitExceeded, StreamTruncated
from loomstream.events import (
    NULL,
    Event,
    Logprobs,
    Notice,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    ServerToolCall,
    ServerToolResult,
    Start,
    Stop,
    StopReason,
    TextDelta,
    TextStart,
    TokenLogprob,
    Unknown,
    Usage,
)
from loomstream.wire import Frame
from loomstream.wire.json import Reader, loads, quote

_Out = list[Event | Failure]

STOP_REASONS: dict[str, StopReason] = {
    "stop": "end_turn",
    "eos": "end_turn",
    "end_turn": "end_turn",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "content_filter",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
    "model_length": "context_window",
}
"""The wire's finish reasons; any other is `other`."""

MAX_CHOICES = 1024
"""More choices than this in one answer end the stream with `LimitExceeded`."""

_BEGINNINGS: frozenset[type] = frozenset((Start, TextStart))
_DONE = b"[DONE]"
_ERROR = "error"
"""The finish reason of a choice that failed (OpenRouter, Mistral)."""
_REFERENCES = frozenset(("reference", "tool_reference"))
"""Parts of a content list that name a source of the text (Mistral)."""


class _ChoiceState:
    __slots__ = ("calls", "current", "details", "finish", "index", "refusal_index", "text_index", "tokens")

    def __init__(self, index: int) -> None:
        self.index = index
        self.calls: ToolCalls | None = None
        self.current: OpenBlock | None = None
        self.text_index: int | None = None
        self.refusal_index: int | None = None
        self.details: Details | None = None
        self.finish: str | None = None
        self.tokens: tuple[TokenLogprob, ...] = ()
        """Token probabilities that came before the text that they are of."""


class ChatTranslator:
    """Frames of one stream to events."""

    __slots__ = (
        "_blocks",
        "_choices",
        "_early",
        "_executed",
        "_fault",
        "_finished",
        "_plain",
        "_reader",
        "_sealer",
        "_sources",
        "_started",
        "_target",
        "_told_of_logprobs",
        "_unfinished",
        "_usage",
        "_usage_raw",
        "shortcut",
    )

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader = Reader(chunk_decoder)
        self._plain = PlainReader(plain_chunk_decoder)
        self._blocks = Blocks()
        self.shortcut = Shortcut(b"content")
        self._sealer = Sealer(self._reader)
        self._choices: dict[int, _ChoiceState] = {}
        self._unfinished = 0
        """How many choices have no finish reason yet."""
        self._finished = False
        """Whether there are choices, and all of them have one."""
        self._fault: RawJSON | None = None
        """What the frame's failed choice says of its error, NULL where it says nothing; None where none failed."""
        self._started = False
        self._early: _Out | None = None
        """What came before the first choice."""
        self._usage: Usage | None = None
        self._usage_raw = b""
        self._sources: RawJSON = NULL
        self._executed: frozenset[str] = frozenset()
        self._told_of_logprobs = False

    def feed(self, frame: Frame) -> list[Event | Failure]:
        """Take a frame, give its events."""
        if self._sealer.over:
            return []
        data = frame.data
        shortcut = self.shortcut
        repeated = None if shortcut.index < 0 else shortcut.events(data, shortcut.frame)
        if repeated is not None:
            return repeated
        if data == _DONE:
            return self._end(marker=True)
        out: _Out = []
        plain = None if self._finished else self._plain.read(data)  # behind the last choice comes the usage
        if plain is not None and (choice := plain.choices[0]).finish_reason != _ERROR:
            side_fields = False
            self._plain_choice(plain, choice, out)
        else:
            side_fields = self._read_in_full(frame, out)
        if self._reader.carried:
            shortcut.index = -1
        elif not side_fields and out and type(delta := out[-1]) is TextDelta and _says_no_more(out):
            shortcut.learn(data, delta)
        elif shortcut.index not in self._blocks.open:
            shortcut.index = -1
        return self._sealer.seal(out)

    def _plain_choice(self, chunk: PlainChunk, choice: PlainChoice, out: _Out) -> None:
        """Give the events of a frame that says nothing beside this choice."""
        if not self._started:
            self._start(chunk.id, chunk.model, out)
        state = self._choices.get(choice.index) or self._open_choice(choice.index, out)
        if choice.delta.content:
            self._text(state, choice.delta.content, out)
        if choice.finish_reason:
            self._finish_choice(state, choice.finish_reason, out)

    def _read_in_full(self, frame: Frame, out: _Out) -> bool:
        """Give the events of any frame; say whether it may hold more than its choices."""
        chunk = self._reader.read(frame.data)
        if isinstance(chunk, Failure):
            out.append(chunk)
            return True
        choices = chunk.choices
        side_fields = not choices or _has_side_fields(chunk)
        if choices:
            if not self._started:
                self._start(read_text(chunk.id), read_text(chunk.model), out)
            for choice in choices:
                self._choice(choice, choice.delta, out)
                side_fields = side_fields or choice.delta is None  # a message counts once
        if side_fields or self._fault is not None:
            self._side_fields(chunk, frame, out)
        return side_fields

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        return [] if self._sealer.over else self._end(marker=False)

    def whole(self, body: bytes) -> list[Event | Failure]:
        """Give the events of a whole answer."""
        chunk = self._reader.read(body)
        if isinstance(chunk, Failure):
            return [chunk]
        if chunk.choices is None or not is_null(chunk.error):
            return [Failure(stream_error(self._target, loads(body), body) or _no_answer(body))]
        out: _Out = []
        self._start(read_text(chunk.id), read_text(chunk.model), out)
        for choice in chunk.choices:
            self._choice(choice, choice.message or choice.delta, out)
        self._side_fields(chunk, Frame("", body), out)
        out = self._sealer.seal(out)
        whole = any(choice.message is not None for choice in chunk.choices)
        return out if self._sealer.over else out + self._end(marker=False, whole=whole)

    # --- start and side fields -------------------------------------------------------------------

    def _start(self, response_id: str, model: str, out: _Out) -> None:
        self._started = True
        target = self._target
        out.append(Start(provider=target.provider, model=model or target.model, response_id=response_id))
        out += self._early or ()

    def _place(self, out: _Out) -> _Out:
        """Give where an event goes that needs no choice: it waits for the answer's `Start`."""
        if self._started:
            return out
        early = self._early = self._early or []
        return early

    def _side_fields(self, chunk: Chunk, frame: Frame, out: _Out) -> None:
        known = bool(chunk.choices) or chunk.prompt_filter_results is not NULL
        for raw in (chunk.usage, chunk.x_groq):
            if raw is not NULL and not is_null(raw):
                known = self._read_usage(raw, out, nested=raw is chunk.x_groq) or known
        for raw in (chunk.citations, chunk.search_results):
            if raw is not NULL and not is_null(raw):
                self._sources = freeze(raw)
        if not is_null(chunk.error):
            self._flush_usage(out)
            out.append(Failure(stream_error(self._target, loads(frame.data), frame.data) or _no_answer(frame.data)))
        elif self._fault is not None:
            self._flush_usage(out)
            said = loads(self._fault) or {"message": "the provider ended with finish_reason error"}
            out.append(Failure(stream_error(self._target, {"error": said}, frame.data) or _no_answer(frame.data)))
        elif not known:
            self._unknown(frame, out)

    def _unknown(self, frame: Frame, out: _Out) -> None:
        error = stream_error(self._target, loads(frame.data), frame.data)
        if error is not None:
            out.append(Failure(error))
            return
        unknown = Unknown(frame.name, frame.data.decode("utf-8", "replace"))
        self._place(out).append(unknown)

    def _read_usage(self, raw: RawJSON, out: _Out, *, nested: bool) -> bool:
        if nested:
            inner = as_object(loads(raw)).get("usage")
            if inner is None:
                return False
            raw = RawJSON(msgspec.json.encode(inner))
        data = bytes(raw)
        if data == self._usage_raw:
            return True
        self._usage_raw = data
        usage, mistyped = read_usage(raw)
        notices = self._place(out)
        notices += [Notice("warning", f"mistyped usage field {name}") for name in mistyped]
        if usage is None:
            return False
        self._usage = usage
        if self._started and not self._finished:
            out.append(usage)
        return True

    # --- choices ---------------------------------------------------------------------------------

    def _open_choice(self, index: int, out: _Out) -> _ChoiceState:
        if len(self._choices) == MAX_CHOICES:
            out.append(Failure(LimitExceeded(f"the answer has more than {MAX_CHOICES} choices")))
        self._unfinished += 1
        self._finished = False
        state = self._choices[index] = _ChoiceState(index)
        return state

    def _choice(self, choice: Choice, delta: Delta | None, out: _Out) -> None:
        state = self._choices.get(choice.index) or self._open_choice(choice.index, out)
        if delta is None and state.current is None and state.text_index is None:
            delta = choice.message
        if delta is not None:
            self._delta(state, delta, out)
        if choice.logprobs is not NULL and not is_null(choice.logprobs):
            self._logprobs(state, choice, delta, out)
        if choice.finish_reason:
            self._finish_choice(state, choice.finish_reason, out)
            if choice.usage is not NULL and not is_null(choice.usage):
                self._read_usage(choice.usage, out, nested=False)  # Moonshot
        if choice.finish_reason == _ERROR or not is_null(choice.error):
            self._fault = choice.error

    def _delta(self, state: _ChoiceState, delta: Delta, out: _Out) -> None:
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning or delta.reasoning_details is not NULL:
            self._reasoning(state, reasoning or "", delta.reasoning_details, out)
        content = delta.content
        if isinstance(content, str):
            if content:
                self._text(state, content, out)
        elif content is not None:
            self._parts(state, content, out)
        if delta.extra_content is not NULL:
            self._signature(state, delta.extra_content, out)
        if delta.refusal:
            self._refusal(state, delta.refusal, out)
        if delta.tool_calls is not None or delta.function_call is not None:
            self._tool_calls(state, delta, out)
        if delta.annotations is not NULL:
            self._annotations(state, as_list(loads(delta.annotations)), out)
        if delta.executed_tools is not NULL:
            self._executed_tools(state, as_list(loads(delta.executed_tools)), out)
        if delta.images is not NULL or delta.audio is not NULL:
            self._files(state, delta, out)

    def _logprobs(self, state: _ChoiceState, choice: Choice, delta: Delta | None, out: _Out) -> None:
        content = delta.content if delta is not None else None
        read = read_logprobs(choice, content if isinstance(content, str) else "")
        if read.unreadable and not self._told_of_logprobs:
            self._told_of_logprobs = True
            out.append(Notice("warning", "token probabilities that cannot be read are left out"))
        state.tokens += tuple(read.tokens)
        if state.tokens and state.text_index is not None:
            out.append(Logprobs(state.text_index, state.tokens))
            state.tokens = ()

    def _text(self, state: _ChoiceState, text: str, out: _Out) -> None:
        block = state.current
        if block is None or block.kind != "text":
            self._close_current(state, out)
            block = state.current = self._blocks.open_text(out, state.index)
            state.text_index = block.index
        out.append(TextDelta(block.index, text))

    def _open_reasoning(self, state: _ChoiceState, out: _Out) -> OpenBlock:
        block = state.current
        if block is None or block.kind != "reasoning":
            self._close_current(state, out)
            block = state.current = self._blocks.open_reasoning(out, state.index)
        return block

    def _close_current(self, state: _ChoiceState, out: _Out) -> None:
        block, state.current = state.current, None
        if block is None:
            return
        if block.kind == "reasoning" and state.details is not None and (data := state.details.take()):
            block.opaque.append(Opaque(self._target.provider, "details", data))
        self._blocks.close(out, block)

    def _reasoning(self, state: _ChoiceState, text: str, details: RawJSON, out: _Out) -> None:
        items = [as_object(item) for item in as_list(loads(details))] if details is not NULL else []
        if not text:
            text = "".join(as_text(item.get("text")) or as_text(item.get("summary")) for item in items)
        if not text and not items:
            return
        block = self._open_reasoning(state, out)
        if items:
            details_so_far = state.details = state.details or Details()
            for item in items:
                details_so_far.add(item)
        if text:
            out.append(ReasoningDelta(block.index, text))

    def _parts(self, state: _ChoiceState, parts: list[RawJSON], out: _Out) -> None:
        for raw in parts:
            try:
                part = part_decoder.decode(raw)
            except msgspec.DecodeError:
                part = ContentPart()
            if part.type == "thinking" or part.thinking is not None:
                self._thinking_part(state, part, out)
            elif part.type == "text" or part.text:
                if part.text:
                    self._text(state, part.text, out)
            elif part.type in _REFERENCES:
                self._annotations(state, [loads(raw)], out)
            elif part.type == "image_url":
                self._file(state, as_object(loads(raw)), out)
            else:
                out.append(Unknown("content", bytes(raw).decode()))

    def _thinking_part(self, state: _ChoiceState, part: ContentPart, out: _Out) -> None:
        thinking = part.thinking
        text = thinking if isinstance(thinking, str) else "".join(inner.text for inner in thinking or ())
        signature = read_text(part.signature)
        if text or signature:
            block = self._open_reasoning(state, out)
            if text:
                out.append(ReasoningDelta(block.index, text))
            if signature:
                block.opaque.append(Opaque(self._target.provider, "signature", signature))

    def _signature(self, state: _ChoiceState, raw: RawJSON, out: _Out) -> None:
        """Keep the thought signature that Google's OpenAI-compatible endpoint sends beside the content."""
        signature = as_text(as_object(as_object(loads(raw)).get("google")).get("thought_signature"))
        if signature:
            opaque = Opaque(self._target.provider, "signature", signature)
            self._open_reasoning(state, out).opaque.append(opaque)

    def _refusal(self, state: _ChoiceState, text: str, out: _Out) -> None:
        if state.refusal_index is None:
            self._close_current(state, out)
            state.refusal_index = self._blocks.claim(out)
        out.append(RefusalDelta(state.refusal_index, text, state.index))

    def _tool_calls(self, state: _ChoiceState, delta: Delta, out: _Out) -> None:
        if delta.tool_calls or delta.function_call is not None:
            self._close_current(state, out)
        calls = state.calls = state.calls or ToolCalls(self._blocks, state.index)
        for piece in delta.tool_calls or ():
            calls.piece(piece, out)
        if delta.function_call is not None:
            calls.legacy(delta.function_call, out)

    def _annotations(self, state: _ChoiceState, annotations: list[object], out: _Out) -> None:
        for item in annotations:
            if state.text_index is None:
                self._close_current(state, out)
                state.current = self._blocks.open_text(out, state.index)
                state.text_index = state.current.index
            out.append(citation(state.text_index, as_object(item)))

    def _executed_tools(self, state: _ChoiceState, tools: list[object], out: _Out) -> None:
        for position, item in enumerate(tools):
            tool = as_object(item)
            index = tool.get("index")
            key = index if isinstance(index, int) else position
            raw = RawJSON(msgspec.json.encode(tool))
            name, id = as_text(tool.get("type")), f"executed_{state.index}_{key}"  # noqa: A001 (the field's name)
            self._close_current(state, out)
            if id not in self._executed:
                self._executed |= {id}
                arguments = as_text(tool.get("arguments")) or "{}"
                out.append(ServerToolCall(self._blocks.claim(out), id, name, arguments, state.index, raw))
            if tool.get("output") is not None:
                content = RawJSON(msgspec.json.encode(tool["output"]))
                out.append(ServerToolResult(self._blocks.claim(out), id, name, content, choice=state.index, raw=raw))

    def _files(self, state: _ChoiceState, delta: Delta, out: _Out) -> None:
        images = as_list(loads(delta.images)) if delta.images is not NULL else []
        audio = [loads(delta.audio)] if delta.audio is not NULL and not is_null(delta.audio) else []
        for item in images + audio:
            self._file(state, as_object(item), out)

    def _file(self, state: _ChoiceState, item: JSONObject, out: _Out) -> None:
        self._close_current(state, out)
        out.append(file_of(self._blocks.claim(out), item, state.index))

    # --- the end ---------------------------------------------------------------------------------

    def _finish_choice(self, state: _ChoiceState, reason: str, out: _Out) -> None:
        repeated = state.finish is not None
        self._unfinished -= not repeated
        self._finished = not self._unfinished
        state.finish = reason
        self._close_choice(state, out)
        if state.index != 0 and not repeated and reason != _ERROR:
            out.append(Notice("warning", f"choice {state.index} stopped: {reason}"))

    def _close_choice(self, state: _ChoiceState, out: _Out) -> None:
        self._close_current(state, out)
        if state.tokens:
            state.tokens = ()
            out.append(Notice("warning", "token probabilities that belong to no text are left out"))
        if state.calls is not None:
            state.calls.flush(out, cut=STOP_REASONS.get(state.finish or "") in {"max_tokens", "context_window"})

    def _end(self, *, marker: bool, whole: bool = False) -> _Out:
        out: _Out = []
        self._sealer.over = True
        primary = self._choices.get(min(self._choices)) if self._choices else None
        ended = primary is not None and (primary.finish is not None or self._target.quirks.done_marker)
        complete = whole or self._finished or (marker and ended)
        if primary is None or not complete:
            self._flush_usage(out)
            out.append(Failure(_truncated(self._target, started=self._started, marker=marker)))
            return self._sealer.seal(out)
        for state in self._choices.values():
            if state.finish is None:
                self._finish_choice(state, "", out)
            self._close_choice(state, out)  # of what came after the finish reason
        self._add_sources(primary, out)
        if self._usage is not None:
            out.append(msgspec.structs.replace(self._usage, final=True))
        out.append(Stop(self._stop_reason(primary), primary.finish or ""))
        return self._sealer.seal(out)

    def _flush_usage(self, out: _Out) -> None:
        if self._started and self._usage is not None and self._finished:
            out.append(self._usage)

    def _stop_reason(self, state: _ChoiceState) -> StopReason:
        reason = STOP_REASONS.get(state.finish or "", "other")
        if reason == "end_turn" and state.calls is not None and state.calls.count:
            return "tool_use"
        if reason == "end_turn" and state.refusal_index is not None and state.text_index is None:
            return "refusal"
        return reason

    def _add_sources(self, state: _ChoiceState, out: _Out) -> None:
        for item in as_list(loads(self._sources)) if self._sources is not NULL else ():
            source = {"url": item} if isinstance(item, str) else as_object(item)
            if state.text_index is not None:
                out.append(citation(state.text_index, {"type": "source", "source": source}))


def _says_no_more(out: _Out) -> bool:
    """Say whether a frame whose last event is a text's brings nothing else, but that the text, or the answer, begins.

    The same frame with another text brings that text alone.
    """
    return len(out) == 1 or _BEGINNINGS.issuperset(map(type, out[:-1]))


def _has_side_fields(chunk: Chunk) -> bool:
    """Say whether a chunk may hold more than its choices; most hold nothing, or a null usage."""
    return (
        (chunk.usage is not NULL and not is_null(chunk.usage))
        or chunk.error is not NULL
        or chunk.x_groq is not NULL
        or chunk.citations is not NULL
        or chunk.search_results is not NULL
    )


def _truncated(target: Target, *, started: bool, marker: bool) -> StreamTruncated:
    if not started:
        what = "the body ended before the first chunk"
    elif marker:
        what = "[DONE] came without a finish_reason"
    else:
        what = "the body ended before a finish_reason or [DONE]"
    return StreamTruncated(f"{target.provider}: {what}", provider=target.provider, model=target.model)


def _no_answer(data: bytes) -> BadFrame:
    return BadFrame(f"no chat completion: {quote(data)}")


def translator(target: Target) -> ChatTranslator:
    """Give a translator for one stream."""
    return ChatTranslator(target)


def parse_response(body: bytes, target: Target) -> list[Event | Failure]:
    """Give the events of a whole answer; they fold to the same response as the stream's."""
    return ChatTranslator(target).whole(body)
