"""The turns of a conversation as the API's system, messages and content blocks.

Contract: that of `loomstream.dialects.anthropic_messages.request`, which this is a part of. Each block that can carry a
breakpoint of the prompt cache is added to the request's `Slots` in the order in which the API reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import cast

from loomstream.dialects import Target
from loomstream.dialects.anthropic_messages.media import document_block, image_block
from loomstream.dialects.anthropic_messages.parts import REDACTED, SIGNATURE
from loomstream.dialects.bodies import members, sent_arguments
from loomstream.dialects.cache_points import Slots
from loomstream.dialects.fields import JSONObject, as_text, read_object
from loomstream.dialects.left_out import lost_citations, lost_signatures
from loomstream.dialects.system_turns import GAP, system_pieces
from loomstream.events import Citation
from loomstream.messages import (
    Audio,
    CachePoint,
    ContentBlock,
    Document,
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    ServerToolCallBlock,
    ServerToolResultBlock,
    Text,
    ToolCall,
    ToolResult,
)

_FOREIGN_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_NO_SLOT = frozenset({"thinking", "redacted_thinking"})
"""Blocks that cannot carry a breakpoint."""
# The fields that a citation may carry in a request; what else an answer's citations hold is refused there.
_CITATIONS: dict[str, tuple[str, ...]] = {
    "char_location": ("document_index", "document_title", "start_char_index", "end_char_index"),
    "page_location": ("document_index", "document_title", "start_page_number", "end_page_number"),
    "content_block_location": ("document_index", "document_title", "start_block_index", "end_block_index"),
    "web_search_result_location": ("encrypted_index", "title", "url"),
    "search_result_location": ("search_result_index", "source", "title", "start_block_index", "end_block_index"),
}


class Turns:
    """Writes the turns of one request; `system` first, then `messages`; `warnings` say what is left out."""

    def __init__(self, request: Request, target: Target, slots: Slots[JSONObject]) -> None:
        self._request = request
        self._target = target
        self._slots = slots
        self._role = ""
        self.warnings: list[str] = []

    # --- system ----------------------------------------------------------------------------------

    def system(self) -> object:
        """Give the system prompt: as one text, or as blocks where breakpoints may stand in it."""
        pieces, warnings = system_pieces(self._request)
        self.warnings += warnings
        points = [piece for piece in pieces if isinstance(piece, CachePoint)]
        if not points and self._request.cache_prompt is None:
            return GAP.join(piece for piece in pieces if isinstance(piece, str)) or None
        blocks: list[JSONObject] = []
        gathered: list[str] = []
        for piece in pieces:
            if isinstance(piece, str):
                gathered.append(piece)
                continue
            self._add_system(gathered, blocks)
            self._slots.point(piece)
        self._add_system(gathered, blocks)
        self._slots.end("system")
        return blocks or None

    def _add_system(self, gathered: list[str], blocks: list[JSONObject]) -> None:
        if gathered:
            blocks.append({"type": "text", "text": GAP.join(gathered)})
            self._slots.add(blocks[-1])
        gathered.clear()

    # --- messages --------------------------------------------------------------------------------

    def messages(self) -> list[JSONObject]:
        """Give the messages; turns of one role that follow each other are one."""
        self.warnings += lost_signatures(self._request.messages, self._target)
        self.warnings += lost_citations(self._request.messages, lambda citation: bool(_cited(citation)))
        written: list[JSONObject] = []
        for number, message in enumerate(self._request.messages):
            self._role = "assistant" if message.role == "assistant" else "user"
            blocks = [] if message.role == "system" else self._blocks(number, message)
            joined = bool(written) and written[-1]["role"] == self._role
            if blocks and joined:
                cast("list[object]", written[-1]["content"]).extend(blocks)
            elif blocks:
                written.append({"role": self._role, "content": blocks})
            if blocks:
                self._slots.end(self._role, joined=joined)
        if written and written[-1]["role"] == "assistant":
            self._trim(cast("list[JSONObject]", written[-1]["content"])[-1])
        return written

    def _trim(self, last: JSONObject) -> None:
        """Cut the space from the end of what the answer is to go on from: the API refuses it there."""
        text = as_text(last.get("text"))
        if last.get("type") == "text" and text != text.rstrip():
            last["text"] = text.rstrip()
            self._left_out("white space at the end of the last assistant turn is")

    def _blocks(self, number: int, message: Message) -> list[object]:
        written: list[object] = []
        for position, content in enumerate(message.content):
            if isinstance(content, CachePoint):
                self._slots.point(content)
                continue
            block = self._block(content, f"messages[{number}].content[{position}]")
            if block is None:
                continue
            written.append(block)
            if block["type"] in _NO_SLOT:
                self._slots.skip()
            else:
                self._slots.add(block)
        return written

    def _block(self, block: ContentBlock, place: str) -> JSONObject | None:
        return _WRITERS[type(block)](self, block, place)

    def _left_out(self, what: str) -> None:
        self.warnings.append(f"{what} not sent")

    def text(self, block: Text, place: str) -> JSONObject | None:  # noqa: ARG002 (one signature)
        """Write text; the wire refuses a block of nothing but space."""
        if not block.text.strip():
            return None
        written: JSONObject = {"type": "text", "text": block.text}
        cited = [_cited(citation) for citation in block.citations]
        if self._role == "assistant" and any(cited):
            written["citations"] = [citation for citation in cited if citation]
        return written

    def refusal(self, block: Refusal, place: str) -> JSONObject | None:
        """Write a refusal as the text that it is."""
        return self.text(Text(block.text), place)

    def reasoning(self, block: Reasoning, place: str) -> JSONObject | None:  # noqa: ARG002 (one signature)
        """Write thinking back to the provider that signed it."""
        for opaque in block.opaque:
            if opaque.issuer == self._target.provider and opaque.kind == SIGNATURE:
                return {"type": "thinking", "thinking": block.text, "signature": opaque.data}
            if opaque.issuer == self._target.provider and opaque.kind == REDACTED:
                return {"type": "redacted_thinking", "data": opaque.data}
        self._left_out("reasoning blocks of earlier turns that this provider did not sign are")
        return None

    def tool_call(self, block: ToolCall, place: str) -> JSONObject:  # noqa: ARG002 (one signature)
        """Write a call; arguments that are no JSON object go as a text, which the API's own guide proposes."""
        arguments = sent_arguments(block.arguments)
        return {"type": "tool_use", "id": _wire_id(block.id), "name": block.name, "input": arguments}

    def tool_result(self, block: ToolResult, place: str) -> JSONObject:
        """Write a tool's answer, which may hold documents too."""
        written: JSONObject = {"type": "tool_result", "tool_use_id": _wire_id(block.tool_call_id)}
        content = [self._block(inner, f"{place}.content[{position}]") for position, inner in enumerate(block.content)]
        if any(content):
            written["content"] = [inner for inner in content if inner is not None]
        if block.is_error:
            written["is_error"] = True
        return written

    def image(self, block: Image, place: str) -> JSONObject | None:
        """Write an image; only users show them."""
        if self._role == "assistant":
            self._left_out("images in assistant turns are")
            return None
        return image_block(block, place, self._target)

    def document(self, block: Document, place: str) -> JSONObject | None:
        """Write a document; the API takes citations or an output of a schema, not both."""
        if self._role == "assistant":
            self._left_out("documents in assistant turns are")
            return None
        written = document_block(block, place, self._target)
        if self._request.output is not None and written.pop("citations", None):
            self._left_out("the wish for citations of documents, which this wire refuses beside an output's schema, is")
        return written

    def audio(self, block: Audio, place: str) -> None:  # noqa: ARG002 (one signature)
        """Leave out what the models cannot hear."""
        self._left_out("audio, which this wire has no place for, is")

    def server_block(self, block: ServerToolCallBlock | ServerToolResultBlock, place: str) -> JSONObject | None:  # noqa: ARG002
        """Write back what the provider's own tools did, where it is of this wire."""
        kind = as_text(read_object(block.raw).get("type"))
        if kind.endswith(("_tool_use", "_tool_result")):
            return {**members(block.raw), "type": kind}
        self._left_out("calls of another provider's own tools, and their results, are")
        return None

    def file(self, block: FileBlock, place: str) -> None:  # noqa: ARG002 (one signature)
        """Leave out a file that a model made."""
        self._left_out("files that a model made are")


_WRITERS: dict[type[ContentBlock], Callable[..., JSONObject | None]] = {
    Text: Turns.text,
    Refusal: Turns.refusal,
    Reasoning: Turns.reasoning,
    ToolCall: Turns.tool_call,
    ToolResult: Turns.tool_result,
    Image: Turns.image,
    Document: Turns.document,
    Audio: Turns.audio,
    ServerToolCallBlock: Turns.server_block,
    ServerToolResultBlock: Turns.server_block,
    FileBlock: Turns.file,
}


def _wire_id(call_id: str) -> str:
    """Give an id that the wire takes: ids of other providers may hold `:` or `.`."""
    return _FOREIGN_IN_ID.sub("_", call_id)


def _cited(citation: Citation) -> JSONObject:
    """Give a citation as it came over this wire; nothing for one of another wire."""
    fields, kind = read_object(citation.raw), citation.kind
    names: Iterable[str] = _CITATIONS.get(kind, ())
    present = {name: fields[name] for name in names if name in fields}
    return {"type": kind, "cited_text": as_text(fields.get("cited_text")), **present} if present else {}
