"""The content blocks of one message: from Converse's blocks and deltas to events.

Contract: never raises; a block that breaks the protocol ends the list with a `Failure`. Wire indexes are keys, never
positions. Text, citations and reasoning have no start on this wire, so their first delta opens the block; a delta for
a block that is closed is an error. Blocks of the model's own tools and images come out whole, at their stop.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.bedrock_converse.wire import (
    Block,
    Delta,
    PlainEvent,
    ReasoningPiece,
    ToolPiece,
    block_decoder,
)
from loomstream.dialects.blocks import MAX_BLOCKS, Blocks, OpenBlock
from loomstream.dialects.bodies import compact, elements, frozen, members
from loomstream.dialects.failures import bad_frame, broken
from loomstream.dialects.fields import as_list, as_object, as_text, count_of, is_null, read_object, read_text
from loomstream.errors import Failure, LimitExceeded
from loomstream.events import (
    NULL,
    Citation,
    Event,
    File,
    Notice,
    Opaque,
    ReasoningDelta,
    ServerToolCall,
    ServerToolResult,
    TextDelta,
    Unknown,
)
from loomstream.wire import Frame
from loomstream.wire.json import Reader, is_object

SIGNATURE = "signature"
REDACTED = "redacted"
LOCATIONS = ("web", "documentChar", "documentPage", "documentChunk", "searchResultLocation")
"""The kinds of citation, by the key of their location."""

_Out = list[Event | Failure]
_Kind = Literal["text", "reasoning", "tool_call", "server_call", "server_result", "image", "kept"]
_Grower = Callable[["Parts", "Part", Delta, _Out], None]

_NO_INDEX = -1
"""A block that comes out whole takes its index then."""
_SERVER_TOOL = "_tool_use"
_SERVER_RESULT = "_result"
_UNMARKED = frozenset({"text", "reasoning"})
"""Blocks that no start announces."""


def unknown(frame: Frame) -> Unknown:
    """Give the event for a frame that has none of its own."""
    return Unknown(frame.name, frame.data.decode("utf-8", "replace"))


class Part:
    """A block that has opened on the wire and not yet closed."""

    __slots__ = ("block", "head", "kind", "opaque", "pieces")

    def __init__(self, kind: _Kind, block: OpenBlock, head: dict[str, RawJSON] | None = None) -> None:
        self.kind: _Kind = kind
        self.block = block
        self.head = head or {}
        """The members of the block's start, of one that comes out whole."""
        self.pieces: list[RawJSON] = []
        """What its deltas brought."""
        self.opaque: dict[str, list[str]] = {}
        """The pieces of what must go back byte for byte, by kind."""


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
        self.empty = True

    # --- start -----------------------------------------------------------------------------------

    def start(self, index: int | None, raw: RawJSON, frame: Frame, out: _Out) -> None:
        """Open the wire's block `index`; a start that says nothing leaves that to the first delta."""
        index = self._next() if index is None else index
        fields = members(raw)
        if index in self._open:
            out.append(bad_frame(f"content block {index} was opened twice", frame.data, self._target))
            return
        self._closed.discard(index)
        self._last = index
        kind = next((name for name in fields if name in _STARTS), "")
        if kind:
            self._add(index, _STARTS[kind](self, fields[kind], out), out)
        elif fields:
            self._add(index, Part("kept", OpenBlock("kept", _NO_INDEX)), out)
            out.append(unknown(frame))

    def _next(self) -> int:
        return max((*self._open, *self._closed), default=-1) + 1

    def _add(self, index: int, part: Part, out: _Out) -> Part:
        if len(self._open) + len(self._closed) >= MAX_BLOCKS:
            out.append(broken(LimitExceeded(f"the answer has more than {MAX_BLOCKS} content blocks"), self._target))
        self._open[index] = part
        self._last = index
        self.empty = False
        return part

    def tool_start(self, raw: RawJSON, out: _Out) -> Part:
        """Open a call of one of your tools, or of one that the model's host runs itself."""
        head = members(raw)
        call_id, name = read_text(head.get("toolUseId", NULL)), read_text(head.get("name", NULL))
        if read_text(head.get("type", NULL)).endswith(_SERVER_TOOL):
            self._server_names[call_id] = name
            return Part("server_call", OpenBlock("server_call", _NO_INDEX, call_id, name), head)
        return Part("tool_call", self._blocks.open_tool_call(out, call_id, name))

    def result_start(self, raw: RawJSON, out: _Out) -> Part:  # noqa: ARG002 (one signature)
        """Open the result of a tool that the model's host ran."""
        return Part("server_result", OpenBlock("server_result", _NO_INDEX), members(raw))

    def image_start(self, raw: RawJSON, out: _Out) -> Part:  # noqa: ARG002 (one signature)
        """Open an image that the model makes."""
        return Part("image", OpenBlock("image", _NO_INDEX), members(raw))

    # --- whole -----------------------------------------------------------------------------------

    def whole(self, raw: RawJSON, out: _Out) -> None:
        """Give a block of an answer that was not streamed, by the same steps as a stream's."""
        frame = Frame("contentBlock", bytes(raw))
        block = self._reader.read(frame.data)
        if isinstance(block, Failure):
            out.append(broken(block.error, self._target))
            return
        index = self._next()
        announced = next(((name, value) for name, value in members(raw).items() if name in _STARTS), None)
        deltas = _deltas(block)
        if announced is not None:
            self.start(index, _wrapped(announced[0], announced[1]), frame, out)
        elif not deltas:
            out.append(unknown(frame))
        for delta in deltas:
            self.delta(index, delta, frame, out)
        self.stop(index, out)

    # --- delta -----------------------------------------------------------------------------------

    def plain(self, event: PlainEvent) -> TextDelta | ReasoningDelta | None:
        """Give the delta of an event that only goes on with an open block of its own kind."""
        part = self._open.get(event.content_block_index)
        if part is None:
            return None
        delta = event.delta
        text, reasoning = delta.text, delta.reasoning_content
        if text:
            return TextDelta(part.block.index, text) if part.kind == "text" and reasoning is None else None
        if reasoning is not None and reasoning.text and text is None and part.kind == "reasoning":
            return ReasoningDelta(part.block.index, reasoning.text)
        return None

    def delta(self, index: int | None, delta: Delta, frame: Frame, out: _Out) -> None:
        """Add to a block, and open it where nothing did."""
        index = self._last if index is None else index
        part = self._open.get(index)
        text = delta.text
        if text is not None and part is not None and part.kind == "text":
            if text:
                out.append(TextDelta(part.block.index, text))
            return
        kind = _kind_of(delta)
        if not kind:
            out.append(unknown(frame))
            return
        kinds, grower = self._GROWERS[kind]
        if part is not None and (part.kind == "kept" or (part.kind not in kinds and {part.kind, *kinds} <= _UNMARKED)):
            self._close(part, out)  # nothing announces that one ends and the other begins
            part = None
        if part is None and not _says_nothing(delta):
            part = self._late(index, kind, frame, out)
        if part is None:
            return
        if part.kind in kinds:
            grower(self, part, delta, out)
        else:
            what = f"a delta of {kind} came for a block of {part.kind}"
            out.append(bad_frame(what, frame.data, self._target))

    def _late(self, index: int, kind: str, frame: Frame, out: _Out) -> Part | None:
        """Open the block that a delta is for, by the delta's kind."""
        if index in self._closed:
            out.append(bad_frame(f"a delta came for content block {index}, which is closed", frame.data, self._target))
            return None
        if kind in _STARTS:
            return self._add(index, _STARTS[kind](self, NULL, out), out)
        if kind == "reasoningContent":
            return self._add(index, Part("reasoning", self._blocks.open_reasoning(out)), out)
        return self._add(index, Part("text", self._blocks.open_text(out)), out)

    def _grow_text(self, part: Part, delta: Delta, out: _Out) -> None:
        out.append(TextDelta(part.block.index, delta.text or ""))  # the first of a block, so it says something

    def _grow_reasoning(self, part: Part, delta: Delta, out: _Out) -> None:
        piece = delta.reasoning_content or ReasoningPiece()
        if piece.text:
            out.append(ReasoningDelta(part.block.index, piece.text))
        for kind, data in ((SIGNATURE, piece.signature), (REDACTED, piece.redacted_content)):
            if data:
                part.opaque.setdefault(kind, []).append(data)

    def _grow_call(self, part: Part, delta: Delta, out: _Out) -> None:
        piece = (delta.tool_use.input if delta.tool_use is not None else None) or ""
        if part.kind == "tool_call":
            self._blocks.arguments(out, part.block, piece)
            return
        pieces: _Out = []
        self._blocks.arguments(pieces, part.block, piece)
        out += [item for item in pieces if isinstance(item, Failure)]

    def _grow_citations(self, part: Part, delta: Delta, out: _Out) -> None:
        out.append(citation(part.block.index, delta.citation))

    def _grow_result(self, part: Part, delta: Delta, out: _Out) -> None:  # noqa: ARG002 (one signature)
        part.pieces += elements(delta.tool_result)

    def _grow_image(self, part: Part, delta: Delta, out: _Out) -> None:  # noqa: ARG002 (one signature)
        part.pieces.append(frozen(delta.image))

    # --- stop ------------------------------------------------------------------------------------

    def stop(self, index: int | None, out: _Out, *, cut: bool = False) -> None:
        """Close the wire's block `index`; one that is not open is no matter. `cut`: the provider did not close it."""
        index = self._last if index is None else index
        part = self._open.pop(index, None)
        if part is not None:
            self._closed.add(index)
            self._close(part, out, cut=cut)

    def stop_all(self, out: _Out) -> None:
        """Close what is open."""
        for index in list(self._open):
            self.stop(index, out, cut=True)

    def _close(self, part: Part, out: _Out, *, cut: bool = False) -> None:
        closer = _CLOSERS.get(part.kind)
        if closer is not None:
            closer(self, part, out)
        elif part.kind != "kept":
            self._blocks.close(out, part.block, cut=cut)

    def close_reasoning(self, part: Part, out: _Out) -> None:
        """Close reasoning, with what must go back; a second piece goes on where the first one ended."""
        provider = self._target.provider
        part.block.opaque += [Opaque(provider, kind, _joined(pieces, kind)) for kind, pieces in part.opaque.items()]
        self._blocks.close(out, part.block)

    def close_call(self, part: Part, out: _Out) -> None:
        """Give a call of a tool that the host runs."""
        block = part.block
        arguments = "".join(block.arguments) or "{}"
        value = frozen(RawJSON(arguments.encode())) if is_object(arguments) else arguments
        raw = _wrapped("toolUse", {**part.head, "input": value})
        out.append(ServerToolCall(self._blocks.claim(out), block.id, block.name, arguments, raw=raw))

    def close_result(self, part: Part, out: _Out) -> None:
        """Give the result of a tool that the host ran."""
        head = part.head
        call_id, kind = read_text(head.get("toolUseId", NULL)), read_text(head.get("type", NULL))
        name = self._server_names.get(call_id) or kind.removesuffix(_SERVER_RESULT)
        error = read_text(head.get("status", NULL)) == "error"
        content = RawJSON(msgspec.json.encode(part.pieces))
        raw = _wrapped("toolResult", {**head, "content": content})
        out.append(ServerToolResult(self._blocks.claim(out), call_id, name, content, error, raw=raw))

    def close_image(self, part: Part, out: _Out) -> None:
        """Give an image that the model made."""
        sources = [read_object(piece) for piece in part.pieces]
        for error in (as_object(source.get("error")) for source in sources if source.get("error")):
            out.append(Notice("warning", f"an image failed: {as_text(error.get('message'))}"))
        inner = [as_object(source.get("source")) for source in sources]
        data = _decoded(as_text(source.get("bytes")) for source in inner)
        if data is None:
            pieces = msgspec.json.encode(part.pieces)
            out.append(bad_frame("an image is no base64", pieces, self._target))
            return
        url = next((as_text(as_object(source.get("s3Location")).get("uri")) for source in inner), "")
        media_type = f"image/{read_text(part.head.get('format', NULL)) or 'png'}"
        raw = _wrapped("image", {key: value for key, value in part.head.items() if key != "source"})
        if data or url:
            out.append(File(self._blocks.claim(out), media_type, data, url, raw=raw))

    _GROWERS: ClassVar[dict[str, tuple[frozenset[str], _Grower]]] = {
        "text": (frozenset({"text"}), _grow_text),
        "reasoningContent": (frozenset({"reasoning"}), _grow_reasoning),
        "toolUse": (frozenset({"tool_call", "server_call"}), _grow_call),
        "citation": (frozenset({"text"}), _grow_citations),
        "toolResult": (frozenset({"server_result"}), _grow_result),
        "image": (frozenset({"image"}), _grow_image),
    }


_Starter = Callable[[Parts, RawJSON, _Out], Part]
_STARTS: dict[str, _Starter] = {
    "toolUse": Parts.tool_start,
    "toolResult": Parts.result_start,
    "image": Parts.image_start,
}
_CLOSERS: dict[_Kind, Callable[[Parts, Part, _Out], None]] = {
    "reasoning": Parts.close_reasoning,
    "server_call": Parts.close_call,
    "server_result": Parts.close_result,
    "image": Parts.close_image,
}


def _kind_of(delta: Delta) -> str:
    """Give the member of the union that is there."""
    there = {
        "text": delta.text is not None,
        "reasoningContent": delta.reasoning_content is not None,
        "toolUse": delta.tool_use is not None,
        "citation": not is_null(delta.citation),
        "toolResult": not is_null(delta.tool_result),
        "image": not is_null(delta.image),
    }
    return next((kind for kind, present in there.items() if present), "")


def _says_nothing(delta: Delta) -> bool:
    """Say whether a delta opens no block: some models begin with an empty text and then go on to another block."""
    piece = delta.reasoning_content
    if piece is not None:
        return not (piece.text or piece.signature or piece.redacted_content)
    return delta.text == ""


def _deltas(block: Block) -> list[Delta]:
    """Give the deltas that a whole block stands for."""
    reasoning, cited = block.reasoning_content, block.citations_content
    found: list[Delta] = []
    if block.text is not None:
        found.append(Delta(text=block.text))
    if reasoning is not None:
        piece = reasoning.reasoning_text or ReasoningPiece()
        found.append(Delta(reasoning_content=ReasoningPiece(piece.text, piece.signature, reasoning.redacted_content)))
    if cited is not None:
        found += [Delta(text=piece.text) for piece in cited.content or ()]
        found += [Delta(citation=item) for item in cited.citations or ()]
    if not is_null(block.tool_use):
        whole_input = members(block.tool_use).get("input", NULL)
        found.append(Delta(tool_use=ToolPiece("" if is_null(whole_input) else compact(whole_input))))
    if not is_null(block.tool_result):
        found.append(Delta(tool_result=members(block.tool_result).get("content", NULL)))
    if not is_null(block.image):
        found.append(Delta(image=block.image))
    return found


def citation(index: int, raw: RawJSON) -> Citation:
    """Give the event of a citation for the text block `index`."""
    fields = read_object(raw)
    location = as_object(fields.get("location"))
    kind = next(iter(location), "")
    place = as_object(location.get(kind))
    texts = [as_text(as_object(item).get("text")) for item in as_list(fields.get("sourceContent"))]
    return Citation(
        index,
        kind,
        url=as_text(place.get("url")),
        title=as_text(fields.get("title")) or as_text(place.get("domain")),
        cited_text="".join(texts),
        start=count_of(place.get("start")),
        end=count_of(place.get("end")),
        raw=frozen(raw),
    )


def _wrapped(name: str, value: object) -> RawJSON:
    return RawJSON(msgspec.json.encode({name: value}))


def _decoded(pieces: Iterable[str]) -> bytes | None:
    """Give what some pieces of base64 stand for, each by itself; None where one is none."""
    try:
        return b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except (binascii.Error, ValueError):
        return None


def _joined(pieces: list[str], kind: str) -> str:
    """Join pieces: of base64, by what they stand for; one alone stays as it came."""
    whole = _decoded(pieces) if kind == REDACTED and len(pieces) > 1 else None
    return "".join(pieces) if whole is None else base64.b64encode(whole).decode()
