"""Answers of the model families that send plain completions: Titan, Claude before Messages, Llama, Mistral, Command.

Contract: one `CompletionsTranslator` per stream; it never raises. The families differ in the names of a text and of
its end alone. Terminal marker: `amazon-bedrock-invocationMetrics`, which stand in the last frame, or a stop reason
before the body's end. Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html.
"""

from __future__ import annotations

from typing import cast

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.blocks import Blocks, OpenBlock, Sealer
from loomstream.dialects.fields import Counter, JSONObject, as_list, as_object, as_text, count_of
from loomstream.errors import BadFrame, Failure, StreamTruncated
from loomstream.events import Event, Notice, Start, Stop, StopReason, TextDelta, Usage
from loomstream.wire import Frame
from loomstream.wire.json import Reader, loads, quote

METRICS = "amazon-bedrock-invocationMetrics"
"""The member of a stream's last frame that counts tokens."""

_Out = list[Event | Failure]
_TEXTS = ("outputText", "completion", "generation", "text")
_REASONS = ("completionReason", "stop_reason", "finish_reason")
_LISTS = ("results", "generations", "outputs")
"""Where a whole answer holds its texts; some families' answers are one text themselves."""
_KNOWN = frozenset((*_TEXTS, *_REASONS, *_LISTS))
_INPUT = ("inputTokenCount", "inputTextTokenCount", "prompt_token_count")
_OUTPUT = ("outputTokenCount", "totalOutputTextTokenCount", "generation_token_count")

STOP_REASONS: dict[str, StopReason] = {
    "finish": "end_turn",
    "finished": "end_turn",
    "complete": "end_turn",
    "stop": "end_turn",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "stop_sequence": "stop_sequence",
    "stop_criteria_met": "stop_sequence",
    "content_filtered": "content_filter",
    "error_toxic": "content_filter",
}
"""The families' stop reasons, in lower case; any other is `other`."""


def is_completion(fields: JSONObject) -> bool:
    """Say whether a frame or an answer is one of a plain completion."""
    return bool(_KNOWN & fields.keys())


def usage_of(fields: JSONObject) -> Usage | None:
    """Give the usage that a frame's metrics, or its own counts, tell; None where it tells none."""
    counts = as_object(fields.get(METRICS)) or fields
    counter = Counter(counts)
    if counter.get(*_INPUT) is None and counter.get(*_OUTPUT) is None:
        return None
    return Usage(
        input_tokens=counter.get(*_INPUT) or 0,
        output_tokens=counter.get(*_OUTPUT) or 0,
        cache_read_tokens=counter.get("cacheReadInputTokenCount") or 0,
        cache_write_tokens=counter.get("cacheWriteInputTokenCount") or 0,
        final=True,
        raw=RawJSON(msgspec.json.encode({key: value for key, value in counts.items() if count_of(value) is not None})),
    )


class CompletionsTranslator:
    """Frames of one stream to events. Whoever feeds it stops at the end."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._sealer = Sealer(Reader(_fields))
        self._blocks = Blocks()
        self._choices: dict[int, OpenBlock] = {}
        self._started = False
        self._reason: str | None = None
        self._usage: Usage | None = None

    def feed(self, frame: Frame) -> list[Event | Failure]:
        """Take a frame, give its events."""
        out: _Out = []
        fields = self._sealer.reader.read(frame.data)
        if isinstance(fields, Failure):
            out.append(self._broken(fields))
        else:
            self._take_all(cast("JSONObject", fields), out)
            if METRICS in fields:
                self._end(out)
        return self._sealer.seal(out)

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        out: _Out = []
        if self._reason is None:
            what = f"{self._target.provider}: the body ended before a stop reason"
            out.append(self._broken(Failure(StreamTruncated(what))))
        else:
            self._end(out)
        return self._sealer.seal(out)

    def whole(self, body: bytes) -> list[Event | Failure]:
        """Give the events of a whole answer."""
        out: _Out = []
        fields = as_object(loads(body))
        texts = self._take_all(fields, out)
        if self._reason is None:
            out.append(self._broken(Failure(BadFrame(f"{self._target.provider}: no stop reason: {quote(body)}"))))
            return out
        generated = sum(count_of(item.get("tokenCount")) or 0 for item in texts)
        if self._usage is not None and generated:
            self._usage = msgspec.structs.replace(self._usage, output_tokens=generated)
        self._end(out)
        self._sealer.reader.carried = True  # what plain reading gave was not looked at for halves of characters
        return self._sealer.seal(out)

    def _take_all(self, fields: JSONObject, out: _Out) -> list[JSONObject]:
        """Take the texts of a frame or an answer; give them."""
        if not self._started:
            self._started = True
            out.append(Start(provider=self._target.provider, model=self._target.model))
        key = next((key for key in _LISTS if key in fields), "")
        texts = [as_object(item) for item in as_list(fields.get(key))] if key else [fields]
        for position, item in enumerate(texts):
            self._take(item, position, out)
        self._usage = usage_of(fields) or self._usage
        return texts

    def _take(self, fields: JSONObject, position: int, out: _Out) -> None:
        choice = count_of(fields.get("index"))
        choice = position if choice is None else choice
        text = next((text for text in (as_text(fields.get(key)) for key in _TEXTS) if text), "")
        if text:
            block = self._choices.get(choice) or self._choices.setdefault(choice, self._blocks.open_text(out, choice))
            out.append(TextDelta(block.index, text))
        reason = next((reason for reason in (as_text(fields.get(key)) for key in _REASONS) if reason), None)
        self._reason = reason if self._reason is None else self._reason

    def _end(self, out: _Out) -> None:
        for block in self._choices.values():
            self._blocks.close(out, block)
        if not self._choices:
            out.append(Notice("warning", "the answer is empty"))
        if self._usage is not None:
            out.append(self._usage)
        reason = self._reason or ""
        out.append(Stop(STOP_REASONS.get(reason.lower(), "other"), reason))

    def _broken(self, failure: Failure) -> Failure:
        failure.error.provider, failure.error.model = self._target.provider, self._target.model
        return failure


_fields: msgspec.json.Decoder[dict[str, object]] = msgspec.json.Decoder(dict[str, object])
