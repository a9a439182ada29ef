"""The content blocks of one message: from the wire's blocks and deltas to events.

Contract: never raises; a block that breaks the protocol ends the list with a `Failure`. Wire indexes are keys, never
positions. A delta for a block that was never opened opens it; a delta for one that is closed is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.anthropic_messages.wire import Block, Delta, block_decoder
from loomstream.dialects.blocks import MAX_BLOCKS, Blocks, OpenBlock
from loomstream.dialects.bodies import compact, frozen, members
from loomstream.dialects.failures import bad_frame, broken
from loomstream.dialects.fields import JSONObject, as_list, as_object, as_text, is_null, read_object, read_text
from loomstream.errors import Failure, LimitExceeded
from loomstream.events import (
    NULL,
    Citation,
    Event,
    Notice,
    Opaque,
    ReasoningDelta,
    ServerToolCall,
    ServerToolResult,
    TextDelta,
    Unknown,
)
from loomstream.wire import Frame
from loomstream.wire.json import Reader, is_object, loads

_Out = list[Event | Failure]
_Kind = Literal["text", "reasoning", "tool_call", "server", "kept"]
_Opener = Callable[["Parts", Block, RawJSON, Frame, _Out], "Part"]
_Grower = Callable[["Parts", "Part", Delta, _Out], None]

SIGNATURE = "signature"
REDACTED = "redacted"
_CALL, _RESULT = "_tool_use", "_tool_result"
_STARTS = ("start_char_index", "start_page_number", "start_block_index")
_ENDS = ("end_char_index", "end_page_number", "end_block_index")


_NO_INDEX = -1
"""A server tool's call takes its index where it comes out: whole, at its stop."""
_KEPT = OpenBlock("kept", _NO_INDEX)


def unknown(frame: Frame) -> Unknown:
    """Give the event for a frame that has none of its own."""
    return Unknown(frame.name, frame.data.decode("utf-8", "replace"))


class Part:
    """A block that has opened on the wire and not yet closed."""

    __slots__ = ("block", "input", "kind", "raw")

    def __init__(self, kind: _Kind, block: OpenBlock, raw: RawJSON = NULL, whole_input: str = "") -> None:
        self.kind: _Kind = kind
        self.block = block
        self.raw = raw
        self.input = whole_input


class Parts:
    """The blocks of one message. Methods append to the list they are given."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader = Reader(block_decoder)
        self._blocks = Blocks()
        self._open: dict[int, Part] = {}
        self._closed: set[int] = set()
        self._last = 0
        self._server_names: dict[str, str] = {}
        self.fallback = False

    @property
    def empty(self) -> bool:
        """Whether no block at all has come."""
        return not self._closed and not self._open

    @staticmethod
    def knows_delta(kind: str) -> bool:
        """Say whether deltas of this type are understood."""
        return kind in Parts._GROWERS

    # --- start -----------------------------------------------------------------------------------

    def start(self, index: int | None, raw: RawJSON, frame: Frame, out: _Out) -> None:
        """Open the wire's block `index`."""
        index = self._next() if index is None else index
        if index in self._open:
            out.append(bad_frame(f"content block {index} was opened twice", frame.data, self._target))
            return
        if len(self._open) + len(self._closed) >= MAX_BLOCKS:
            out.append(broken(LimitExceeded(f"the answer has more than {MAX_BLOCKS} content blocks"), self._target))
            return
        self._closed.discard(index)
        self._last = index
        block = self._reader.read(bytes(raw))
        if isinstance(block, Block):
            self._open[index] = self._opener(block.type or "")(self, block, raw, frame, out)
        elif self._opener(as_text(read_object(raw).get("type"))) is Parts._keep:
            self._open[index] = self._keep(Block(), raw, frame, out)
        else:
            out.append(broken(block.error, self._target))

    def _next(self) -> int:
        return max((*self._open, *self._closed), default=-1) + 1

    @staticmethod
    def _opener(kind: str) -> _Opener:
        found = Parts._OPENERS.get(kind)
        if found is None and kind.endswith(_CALL):
            return Parts._server_call
        if found is None and kind.endswith(_RESULT):
            return Parts._server_result
        return found or Parts._keep

    def _text(self, block: Block, raw: RawJSON, frame: Frame, out: _Out) -> Part:  # noqa: ARG002 (one signature)
        opened = self._blocks.open_text(out)
        if block.text:
            out.append(TextDelta(opened.index, block.text))
        if not is_null(block.citations):
            out += [_citation(opened.index, as_object(item)) for item in as_list(loads(block.citations))]
        return Part("text", opened)

    def _thinking(self, block: Block, raw: RawJSON, frame: Frame, out: _Out) -> Part:  # noqa: ARG002 (one signature)
        opened = self._blocks.open_reasoning(out)
        if block.thinking:
            out.append(ReasoningDelta(opened.index, block.thinking))
        self._sign(opened, block.signature)
        return Part("reasoning", opened)

    def _redacted(self, block: Block, raw: RawJSON, frame: Frame, out: _Out) -> Part:  # noqa: ARG002 (one signature)
        opened = self._blocks.open_reasoning(out)
        opened.opaque.append(Opaque(self._target.provider, REDACTED, block.data or ""))
        return Part("reasoning", opened)

    def _sign(self, opened: OpenBlock, signature: str | None) -> None:
        if signature:
            opened.opaque[:] = [Opaque(self._target.provider, SIGNATURE, signature)]

    def _tool_call(self, block: Block, raw: RawJSON, frame: Frame, out: _Out) -> Part:  # noqa: ARG002 (one signature)
        opened = self._blocks.open_tool_call(out, read_text(block.id), read_text(block.name))
        return Part("tool_call", opened, whole_input=_whole_input(block.input))

    def _server_call(self, block: Block, raw: RawJSON, frame: Frame, out: _Out) -> Part:  # noqa: ARG002 (one signature)
        opened = OpenBlock("server", _NO_INDEX, read_text(block.id), read_text(block.name))
        self._server_names[opened.id] = opened.name
        return Part("server", opened, frozen(raw), _whole_input(block.input))

    def _server_result(self, block: Block, raw: RawJSON, frame: Frame, out: _Out) -> Part:  # noqa: ARG002 (one signature)
        index, call_id = self._blocks.claim(out), read_text(block.tool_use_id)
        content = frozen(block.content)
        error = loads(block.is_error) is True or as_text(read_object(content).get("type")).endswith("_error")
        name = self._server_names.get(call_id) or (block.type or "").removesuffix(_RESULT)
        out.append(ServerToolResult(index, call_id, name, content, error, raw=frozen(raw)))
        return Part("kept", _KEPT)

    def _keep(self, block: Block, raw: RawJSON, frame: Frame, out: _Out) -> Part:
        out.append(unknown(frame))
        if block.type == "fallback":
            self.fallback = True
            out.append(Notice("failover", _fallback_detail(read_object(raw))))
        return Part("kept", _KEPT)

    # --- delta -----------------------------------------------------------------------------------

    def delta(self, index: int | None, delta: Delta, frame: Frame, out: _Out) -> None:
        """Add to a block."""
        part = self._open.get(self._last if index is None else index)
        if part is not None and delta.type == "text_delta" and part.kind == "text":
            if delta.text:
                out.append(TextDelta(part.block.index, delta.text))
            return
        grower = self._GROWERS.get(delta.type or "")
        part = part or self._late(index, delta, frame, out)
        if part is None:
            return
        if grower is None or part.kind == "kept":
            out.append(unknown(frame))
        elif part.kind not in grower[0]:
            what = f"a {delta.type} came for a block of {part.kind.replace('_', ' ')}"
            out.append(bad_frame(what, frame.data, self._target))
        else:
            grower[1](self, part, delta, out)

    def _late(self, index: int | None, delta: Delta, frame: Frame, out: _Out) -> Part | None:
        """Open the block that a delta is for, by the delta's type."""
        index = self._last if index is None else index
        if index in self._closed:
            out.append(bad_frame(f"a delta came for content block {index}, which is closed", frame.data, self._target))
            return None
        kind = _LATE.get(delta.type or "")
        if kind is None:
            out.append(unknown(frame))
            return None
        self.start(index, RawJSON(msgspec.json.encode({"type": kind})), frame, out)
        return self._open.get(index)

    def _grow_text(self, part: Part, delta: Delta, out: _Out) -> None:
        if delta.text:
            out.append(TextDelta(part.block.index, delta.text))

    def _grow_thinking(self, part: Part, delta: Delta, out: _Out) -> None:
        if delta.thinking:
            out.append(ReasoningDelta(part.block.index, delta.thinking))

    def _grow_signature(self, part: Part, delta: Delta, out: _Out) -> None:  # noqa: ARG002 (one signature)
        self._sign(part.block, delta.signature)

    def _grow_input(self, part: Part, delta: Delta, out: _Out) -> None:
        if part.kind == "tool_call":
            self._blocks.arguments(out, part.block, delta.partial_json or "")
            return
        pieces: _Out = []
        self._blocks.arguments(pieces, part.block, delta.partial_json or "")
        out += [piece for piece in pieces if isinstance(piece, Failure)]

    def _grow_citations(self, part: Part, delta: Delta, out: _Out) -> None:
        out.append(_citation(part.block.index, read_object(delta.citation)))

    # --- stop ------------------------------------------------------------------------------------

    def stop(self, index: int | None, out: _Out, *, cut: bool = False) -> None:
        """Close the wire's block `index`; one that is not open is no matter. `cut`: the provider did not close it."""
        index = self._last if index is None else index
        part = self._open.pop(index, None)
        if part is None:
            return
        self._closed.add(index)
        if part.kind == "server":
            self._finish_server_call(part, out)
        elif part.kind != "kept":
            if not part.block.arguments:
                self._blocks.arguments(out, part.block, part.input)
            self._blocks.close(out, part.block, cut=cut)

    def stop_all(self, out: _Out) -> None:
        """Close what is open."""
        for index in list(self._open):
            self.stop(index, out, cut=True)

    def _finish_server_call(self, part: Part, out: _Out) -> None:
        block = part.block
        arguments = "".join(block.arguments) or part.input or "{}"
        fields = members(part.raw)
        if is_object(arguments):
            fields["input"] = frozen(RawJSON(arguments.encode()))
        raw = RawJSON(msgspec.json.encode(fields))
        out.append(ServerToolCall(self._blocks.claim(out), block.id, block.name, arguments, raw=raw))

    _OPENERS: ClassVar[dict[str, _Opener]] = {
        "text": _text,
        "thinking": _thinking,
        "redacted_thinking": _redacted,
        "tool_use": _tool_call,
    }
    _GROWERS: ClassVar[dict[str, tuple[frozenset[str], _Grower]]] = {
        "text_delta": (frozenset({"text"}), _grow_text),
        "thinking_delta": (frozenset({"reasoning"}), _grow_thinking),
        "signature_delta": (frozenset({"reasoning"}), _grow_signature),
        "input_json_delta": (frozenset({"tool_call", "server"}), _grow_input),
        "citations_delta": (frozenset({"text"}), _grow_citations),
    }


_LATE = {
    "text_delta": "text",
    "citations_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
    "input_json_delta": "tool_use",
}


def _whole_input(raw: RawJSON) -> str:
    """Give the input that came with the block itself; an empty object says nothing."""
    text = read_text(raw) or ("" if is_null(raw) else compact(raw))
    return "" if text in {"{}", '""'} else text


def _citation(index: int, fields: JSONObject) -> Citation:
    return Citation(
        index,
        as_text(fields.get("type")),
        as_text(fields.get("url")) or as_text(fields.get("source")),
        as_text(fields.get("title")) or as_text(fields.get("document_title")),
        as_text(fields.get("cited_text")),
        _offset(fields, _STARTS),
        _offset(fields, _ENDS),
        RawJSON(msgspec.json.encode(fields)),
    )


def _offset(fields: JSONObject, names: tuple[str, ...]) -> int | None:
    found = (fields.get(name) for name in names)
    return next((value for value in found if type(value) is int), None)


def _fallback_detail(fields: JSONObject) -> str:
    ends = [as_text(as_object(fields.get(name)).get("model")) or "?" for name in ("from", "to")]
    trigger = as_text(as_object(fields.get("trigger")).get("type"))
    return f"the provider goes on with another model: {' → '.join(ends)}{f' ({trigger})' if trigger else ''}"
