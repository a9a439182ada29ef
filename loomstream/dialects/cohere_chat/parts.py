"""The parts of one answer: content blocks, the plan, tool calls and citations, from the wire's words to events.

Contract: never raises. Wire indexes are keys, never positions; content and calls are counted apart. A piece for a block
that is not open, or of another kind, opens one, so that no text is lost. The plan has no frame that closes it: whatever
opens next does.
"""

from __future__ import annotations

from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.blocks import MAX_BLOCKS, Blocks, OpenBlock
from loomstream.dialects.bodies import frozen
from loomstream.dialects.cohere_chat.logprobs import read_logprobs
from loomstream.dialects.cohere_chat.wire import Call, Content
from loomstream.dialects.failures import broken
from loomstream.dialects.fields import JSONObject, as_list, as_object, as_text, is_null, read_object, read_text
from loomstream.errors import Failure, LimitExceeded
from loomstream.events import Citation, Event, Logprobs, Notice, Opaque, ReasoningDelta, TextDelta, Unknown
from loomstream.wire import Frame

_Out = list[Event | Failure]

TOOL_PLAN = "tool_plan"
"""The kind of the opaque value that makes a reasoning block a plan; its data is the plan's exact text."""

_KINDS = {"text": "text", "thinking": "reasoning"}
_TEXT_CITATIONS = frozenset({"TEXT_CONTENT", ""})
_KEPT = OpenBlock("kept", -1)


def unknown(frame: Frame) -> Unknown:
    """Give the event for a frame that has none of its own."""
    return Unknown(frame.name, frame.data.decode("utf-8", "replace"))


class Parts:
    """The parts of one answer. Methods append to the list they are given."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._blocks = Blocks()
        self._content: dict[int, OpenBlock] = {}
        self._calls: dict[int, OpenBlock] = {}
        self._last_content = 0
        self._last_call = 0
        self._texts: dict[int, int] = {}
        """The wire's index of a text to the block's."""
        self._last_text: int | None = None
        self._plan: OpenBlock | None = None
        self._plan_pieces: list[str] = []
        self.called = False
        """Whether a tool was called."""
        self._told_of_logprobs = False

    @property
    def empty(self) -> bool:
        """Whether nothing has come."""
        return not self._blocks.next_index and not self._content

    # --- content ---------------------------------------------------------------------------------

    def start_content(self, index: int | None, content: Content, frame: Frame, out: _Out) -> None:
        """Open a content block; one of a type that is not known is kept as it came."""
        index = max(self._content, default=-1) + 1 if index is None else index
        self._last_content = index
        self._close_plan(out)
        self._close_content(index, out)
        if content.type is None or content.type in _KINDS:
            if content.type is not None:
                self._open_content(index, _KINDS[content.type], out)
            self._add(index, content, out)
            return
        if len(self._content) >= MAX_BLOCKS:
            out.append(broken(LimitExceeded(f"the answer has more than {MAX_BLOCKS} content blocks"), self._target))
        self._content[index] = _KEPT
        out.append(unknown(frame))

    def grow_content(self, index: int | None, content: Content, frame: Frame, out: _Out) -> None:
        """Add a piece to a content block."""
        index = self._last_content if index is None else index
        block = self._content.get(index)
        if block is not None and block.kind == "text" and content.text and not content.thinking:
            out.append(TextDelta(block.index, content.text))
        elif block is _KEPT or (content.text is None and content.thinking is None):
            out.append(unknown(frame))
        else:
            self._add(index, content, out)

    def _add(self, index: int, content: Content, out: _Out) -> None:
        if content.thinking:
            out.append(ReasoningDelta(self._content_of(index, "reasoning", out).index, content.thinking))
        if content.text:
            out.append(TextDelta(self._content_of(index, "text", out).index, content.text))

    def _content_of(self, index: int, kind: str, out: _Out) -> OpenBlock:
        block = self._content.get(index)
        if block is None or block.kind != kind:
            self._close_content(index, out)
            self._close_plan(out)
            block = self._open_content(index, kind, out)
        return block

    def _open_content(self, index: int, kind: str, out: _Out) -> OpenBlock:
        if kind == "text":
            block = self._blocks.open_text(out)
            self._texts[index] = self._last_text = block.index
        else:
            block = self._blocks.open_reasoning(out)
        self._content[index] = block
        return block

    def end_content(self, index: int | None, out: _Out) -> None:
        """Close a content block; one that is not open is no matter."""
        self._close_content(self._last_content if index is None else index, out)

    def _close_content(self, index: int, out: _Out) -> None:
        block = self._content.get(index)
        if block is not None and block is not _KEPT:
            del self._content[index]
            self._blocks.close(out, block)

    # --- plan ------------------------------------------------------------------------------------

    def plan(self, piece: str, out: _Out) -> None:
        """Add to the plan."""
        if not piece:
            return
        if self._plan is None:
            self._plan = self._blocks.open_reasoning(out)
        self._plan_pieces.append(piece)
        out.append(ReasoningDelta(self._plan.index, piece))

    def _close_plan(self, out: _Out) -> None:
        if self._plan is not None:
            self._plan.opaque.append(Opaque(self._target.provider, TOOL_PLAN, "".join(self._plan_pieces)))
            self._blocks.close(out, self._plan)
            self._plan = None
            self._plan_pieces = []

    # --- tool calls ------------------------------------------------------------------------------

    def start_call(self, index: int | None, call: Call, out: _Out) -> None:
        """Open a tool call."""
        index = max(self._calls, default=-1) + 1 if index is None else index
        self._close_plan(out)
        self.end_call(index, out)
        self._last_call = index
        self.called = True
        function = call.function
        name = read_text(function.name) if function else ""
        block = self._calls[index] = self._blocks.open_tool_call(out, read_text(call.id), name)
        self._blocks.arguments(out, block, (function.arguments if function else None) or "")

    def grow_call(self, index: int | None, call: Call, out: _Out) -> None:
        """Add to a call's arguments; a piece for a call that is not open opens one."""
        index = self._last_call if index is None else index
        if index not in self._calls:
            self.start_call(index, call, out)
        elif call.function is not None:
            self._blocks.arguments(out, self._calls[index], call.function.arguments or "")

    def end_call(self, index: int | None, out: _Out, *, cut: bool = False) -> None:
        """Close a tool call; one that is not open is no matter. `cut`: the provider did not close it."""
        block = self._calls.pop(self._last_call if index is None else index, None)
        if block is not None:
            self._blocks.close(out, block, cut=cut)

    # --- citations -------------------------------------------------------------------------------

    def cite(self, raw: RawJSON, frame: Frame, out: _Out) -> None:
        """Give a citation to the text that it stands in; one of thinking, or of no text, is kept as it came."""
        fields = read_object(raw)
        place = fields.get("content_index")
        block = self._texts.get(place) if type(place) is int else self._last_text
        if not fields or block is None or as_text(fields.get("type")) not in _TEXT_CITATIONS:
            out.append(unknown(frame))
        else:
            out.append(_citation(block, fields, raw))

    # --- token probabilities ---------------------------------------------------------------------

    def add_logprobs(self, raw: RawJSON, out: _Out, *, of_text: bool = True) -> None:
        """Give the probabilities of the last text's tokens; those of thinking are left out."""
        if is_null(raw):
            return
        tokens = read_logprobs(raw)
        if tokens and of_text and self._last_text is not None:
            out.append(Logprobs(self._last_text, tokens))
        elif tokens != () and not self._told_of_logprobs:
            self._told_of_logprobs = True
            out.append(Notice("warning", "token probabilities that belong to no text, or cannot be read, are left out"))

    # --- end -------------------------------------------------------------------------------------

    def end_all(self, out: _Out) -> None:
        """Close what is open."""
        for index in list(self._content):
            self._close_content(index, out)
        self._close_plan(out)
        for index in list(self._calls):
            self.end_call(index, out, cut=True)


def _citation(block: int, fields: JSONObject, raw: RawJSON) -> Citation:
    """Give a citation: `start` and `end` count the characters of the answer's text, `cited_text` is what they enclose.

    The wire names each source by a document of your own or a tool's output; the first one that has a URL or a title
    gives those.
    """
    sources = [as_object(source) for source in as_list(fields.get("sources"))]
    held = [as_object(source.get("document")) or as_object(source.get("tool_output")) for source in sources]
    start, end = fields.get("start"), fields.get("end")
    return Citation(
        block,
        kind=next((kind for source in sources if (kind := as_text(source.get("type")))), ""),
        url=next((url for document in held if (url := as_text(document.get("url")))), ""),
        title=next((title for document in held if (title := as_text(document.get("title")))), ""),
        cited_text=as_text(fields.get("text")),
        start=start if type(start) is int else None,
        end=end if type(end) is int else None,
        raw=frozen(raw),
    )
