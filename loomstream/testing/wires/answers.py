"""What the simulator says, without a wire: blocks in pieces, token counts, a reason to stop.

Contract: values. `answer_of` reads a text, or events that obey the order law; what no wire could say of them is an
error, never left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, NoReturn, TypeVar

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct
from msgspec.structs import replace

from loomstream.errors import UsageError
from loomstream.events import (
    NULL,
    Citation,
    Cost,
    Event,
    EventBase,
    Notice,
    Raw,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    ServerToolCall,
    ServerToolResult,
    Start,
    Stop,
    StopReason,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)

BlockKind = Literal["text", "reasoning", "tool_call", "server_call", "server_result"]
"""The last two: a tool that the provider runs itself is called, and what it gave."""
JSON = dict[str, object]
T = TypeVar("T")
_WORDS = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")
_SILENT = (Start, TextStart, TextEnd, ReasoningStart, Cost, Notice, Raw)


class Block(Struct, frozen=True, kw_only=True):
    """A content block: its text, or the JSON text of a call's arguments, in the pieces that are sent.

    `id` is a call's, and a result's that of its call.
    """

    kind: BlockKind
    pieces: tuple[str, ...] = ()
    id: str = ""
    name: str = ""
    signature: str = ""
    citations: tuple[Citation, ...] = ()
    """The sources of a text; of each its address, title, text and offsets are told, as far as the wire can."""
    content: RawJSON = NULL
    """What a provider's own tool gave, in the provider's own JSON."""
    is_error: bool = False

    @property
    def text(self) -> str:
        """The whole text, or all of the arguments."""
        return "".join(self.pieces)


class Answer(Struct, frozen=True, kw_only=True):
    """A whole answer. `model` is the name that the request asked for, where it is empty."""

    blocks: tuple[Block, ...] = ()
    usage: Usage = Usage()
    stop: StopReason = "end_turn"
    model: str = ""
    id: str = "sim_0"

    @property
    def has_calls(self) -> bool:
        """Whether a tool is called."""
        return any(block.kind == "tool_call" for block in self.blocks)


class Sent(NamedTuple):
    """A frame on the wire; `is_delta` where it adds content, so that a token's time passes before it."""

    data: bytes
    is_delta: bool = False


class Wire(Struct, frozen=True):
    """A dialect's other side: how an answer, a refusal and a failure in the middle are written."""

    name: str
    content_type: str
    frames: Callable[[Answer], list[Sent]]
    whole: Callable[[Answer], bytes]
    error: Callable[[int, str], bytes]
    failure: Callable[[str], bytes]
    malformed: bytes = b"data: {\n\n"


def refuses(status: int) -> bool:
    """Say whether an HTTP status is about the request, not about the server."""
    return 400 <= status < 500  # noqa: PLR2004 (RFC 9110, section 15.5)


def compact(value: object) -> bytes:
    """Give JSON text without spaces."""
    return msgspec.json.encode(value)


def data_event(value: object) -> bytes:
    """Give an SSE event without a name."""
    return b"data: %b\n\n" % compact(value)


def named_event(value: JSON) -> bytes:
    """Give an SSE event whose name is its `type`."""
    return b"event: %b\n%b" % (str(value["type"]).encode(), data_event(value))


def arguments_of(block: Block) -> object:
    """Give a call's arguments as a value; a text that is no JSON goes as that text."""
    try:
        return msgspec.json.decode(block.text or "{}")
    except msgspec.DecodeError:
        return block.text


def object_of(block: Block) -> JSON:
    """Give a call's arguments as an object. Raises `UsageError` for any others."""
    return _read(block.text or "{}", JSON, block)


def content_of(block: Block) -> JSON:
    """Give what a provider's own tool gave, where the wire has an object for it. Raises `UsageError` for another."""
    return _read(block.content, JSON, block)


def contents_of(block: Block) -> list[object]:
    """Give what a provider's own tool gave, where the wire has a list for it. Raises `UsageError` for another."""
    return _read(block.content, list[object], block)


def _read(text: str | RawJSON, shape: type[T], block: Block) -> T:
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.DecodeError as error:
        what = "result" if block.kind == "server_result" else "arguments"
        msg = f"the wire has no place for the {what} of {block.name!r}: {error}"
        raise UsageError(msg) from error


_UNCITING = frozenset(("ollama_chat",))
"""The wires that have no citations."""
_WITHOUT_SERVER_TOOLS = frozenset(("cohere_chat", "ollama_chat", "openai_chat"))
"""The wires whose providers run no tools, or tell of them each in its own way."""
_SERVER_KINDS = frozenset(("server_call", "server_result"))


def web_citation(citation: Citation, wire: str) -> JSON:
    """Give a citation as OpenAI's wires hold it: an address, nothing of what it says. Else `UsageError`."""
    if not citation.url or citation.cited_text:
        msg = f"{wire} cites an address (url, title, start, end), and no text: {citation!r}"
        raise UsageError(msg)
    start, end = citation.start or 0, citation.end or 0
    return {"url": citation.url, "title": citation.title, "start_index": start, "end_index": end}


def given(**members: object) -> JSON:
    """Give the members that say something."""
    return {name: value for name, value in members.items() if value not in (None, "")}


def reason_of(answer: Answer, reasons: dict[StopReason, str], wire: str) -> str:
    """Give the wire's word for why the answer ends; `UsageError` where it has none, or none for what it says."""
    if wire in _UNCITING and any(block.citations for block in answer.blocks):
        msg = f"{wire} has no citations"
        raise UsageError(msg)
    if wire in _WITHOUT_SERVER_TOOLS and any(block.kind in _SERVER_KINDS for block in answer.blocks):
        refuse_server_tools(wire)
    if answer.stop not in reasons:
        msg = f"{wire} has no word for the stop reason {answer.stop!r}: it knows {', '.join(reasons)}"
        raise UsageError(msg)
    return reasons[answer.stop]


def refuse_server_tools(wire: str) -> NoReturn:
    """Raise `UsageError`: the wire has nothing for what a provider's own tools do."""
    msg = f"{wire} has no words for a provider's own tools: play the bytes of such an answer as a Recording instead"
    raise UsageError(msg)


def prompt_total(usage: Usage) -> int:
    """Give the whole prompt's tokens, those of the cache included."""
    return usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens


def words(text: str) -> tuple[str, ...]:
    """Cut a text into words, each with the space before it."""
    return tuple(_WORDS.findall(text))


def text_answer(text: str) -> Answer:
    """Give the answer that is this text, a word a piece, and says that each word was a token."""
    pieces = words(text)
    blocks = (Block(kind="text", pieces=pieces),) if pieces else ()
    return Answer(blocks=blocks, usage=Usage(input_tokens=1, output_tokens=len(pieces), final=True))


def answer_of(script: str | Iterable[Event] | Answer) -> Answer:
    """Give the answer of a script: a text, or the events of one answer.

    A provider's own tools are told by name, arguments and result; the `raw` of their events is not looked at. Raises
    `UsageError` for events that the simulator cannot write (files), for a citation of no text, and for a script without
    its `Stop`.
    """
    match script:
        case Answer():
            return script
        case str():
            return text_answer(script)
        case _:
            return _Gathered().read(list(script))


class _Gathered:
    """The blocks of a script."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[str]] = {}
        self._blocks: list[Block] = []
        self._places: dict[int, int] = {}
        """The index of a closed text to its place among the blocks."""
        self._cited: dict[int, list[Citation]] = {}
        self._usage = Usage()
        self._head = Start()

    def read(self, events: Sequence[EventBase]) -> Answer:
        stop: Stop | None = None
        for event in events:
            stop = event if isinstance(event, Stop) else stop
            self._add(event)
        if stop is None:
            msg = "the script has no Stop: to cut an answer give the whole one and Fault('cut', at=BYTES)"
            raise UsageError(msg)
        self._cite()
        head = self._head
        return Answer(
            blocks=tuple(self._blocks),
            usage=self._usage,
            stop=stop.reason,
            model=head.model,
            id=head.response_id or "sim_0",
        )

    def _add(self, event: EventBase) -> None:
        match event:
            case Start():
                self._head = event
            case TextDelta(index=index, text=piece) | ReasoningDelta(index=index, text=piece):
                self._pieces.setdefault(index, []).append(piece)
            case ToolCallDelta(index=index, arguments=piece):
                self._pieces.setdefault(index, []).append(piece)
            case TextEnd(index=index):
                self._places[index] = len(self._blocks)
                self._close("text", index)
            case Citation(index=index):
                self._cited.setdefault(index, []).append(event)
            case ReasoningEnd(index=index, opaque=opaque):
                signature = next((one.data for one in opaque if one.kind == "signature"), "")
                self._close("reasoning", index, signature=signature)
            case ToolCallEnd(index=index, id=id, name=name):
                self._close("tool_call", index, id=id, name=name)
            case ServerToolCall(id=id, name=name, arguments=arguments):
                self._blocks.append(Block(kind="server_call", id=id, name=name, pieces=(arguments,)))
            case ServerToolResult(tool_call_id=id, name=name, content=content, is_error=is_error):
                self._blocks.append(Block(kind="server_result", id=id, name=name, content=content, is_error=is_error))
            case Usage():
                self._usage = event
            case _ if isinstance(event, (*_SILENT, ToolCallStart, Stop)):
                return
            case _:
                msg = f"the simulator cannot write {type(event).__name__}: play its bytes as a Recording instead"
                raise UsageError(msg)

    def _cite(self) -> None:
        for index, citations in self._cited.items():
            if index not in self._places:
                msg = f"the script cites sources for block {index}, which is no whole text of it"
                raise UsageError(msg)
            place = self._places[index]
            self._blocks[place] = replace(self._blocks[place], citations=tuple(citations))

    def _close(self, kind: BlockKind, index: int, *, id: str = "", name: str = "", signature: str = "") -> None:  # noqa: A002 (the field's name)
        pieces = tuple(self._pieces.pop(index, ()))
        self._blocks.append(Block(kind=kind, pieces=pieces, id=id, name=name, signature=signature))
