"""The turns of a conversation as Converse's system, messages and content blocks.

Contract: that of `loomstream.dialects.bedrock_converse.request`, which this is a part of. Each block that a cache point
may stand behind is added to the request's `Slots`, with the list that it stands in, in the order in which models read
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from loomstream.dialects import Target
from loomstream.dialects.bedrock_converse.media import Media
from loomstream.dialects.bedrock_converse.parts import LOCATIONS, REDACTED, SIGNATURE
from loomstream.dialects.bodies import members, sent_arguments
from loomstream.dialects.cache_points import Slots
from loomstream.dialects.fields import JSONObject, as_object, as_text, read_object
from loomstream.dialects.left_out import lost_citations, lost_signatures
from loomstream.dialects.system_turns import system_pieces
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

Slot = tuple[list[object], JSONObject]
"""A block, behind the list that it stands in."""

_FOREIGN_IN_ID = re.compile(r"[^a-zA-Z0-9_.:-]")
_MAX_ID_CHARS = 64


class Turns:
    """Writes the turns of one request; `system` first, then `messages`; `warnings` say what is left out."""

    def __init__(self, request: Request, target: Target, slots: Slots[Slot]) -> None:
        self._request = request
        self._target = target
        self._slots = slots
        self._cached = target.quirks.cache_points_in
        self._media = Media(target)
        self._role = ""
        self.warnings: list[str] = []

    # --- system ----------------------------------------------------------------------------------

    def system(self) -> list[object]:
        """Give the system prompt, a block for each text."""
        written: list[object] = []
        pieces, warnings = system_pieces(self._request)
        self.warnings += warnings
        for piece in pieces:
            if isinstance(piece, CachePoint):
                self._slots.point(piece)
                continue
            block: JSONObject = {"text": piece}
            written.append(block)
            if "system" in self._cached:
                self._slots.add((written, block))
        if written and "system" in self._cached:
            self._slots.end("system")
        return written

    # --- messages --------------------------------------------------------------------------------

    def messages(self) -> list[JSONObject]:
        """Give the messages; turns of one role that follow each other are one."""
        self.warnings += lost_signatures(self._request.messages, self._target)
        self.warnings += lost_citations(self._request.messages, _is_ours)
        written: list[JSONObject] = []
        for number, message in enumerate(self._request.messages):
            if message.role == "system":
                continue
            self._role = "assistant" if message.role == "assistant" else "user"
            joined = bool(written) and written[-1]["role"] == self._role
            content = cast("list[object]", written[-1]["content"]) if joined else []
            before = len(content)
            self._add(number, message, content)
            if len(content) == before:
                continue
            if not joined:
                written.append({"role": self._role, "content": content})
            if "messages" in self._cached:
                self._slots.end(self._role, joined=joined)
        if written and written[-1]["role"] == "assistant":
            self._trim(cast("list[JSONObject]", written[-1]["content"])[-1])
        return written

    def _add(self, number: int, message: Message, content: list[object]) -> None:
        """Add a turn's blocks to the content that it stands in."""
        for position, block in enumerate(message.content):
            if isinstance(block, CachePoint):
                self._slots.point(block)
                continue
            for written in self._blocks(block, f"messages[{number}].content[{position}]"):
                content.append(written)
                if "reasoningContent" in written:
                    self._slots.skip()
                elif "messages" in self._cached:
                    self._slots.add((content, written))

    def _trim(self, last: JSONObject) -> None:
        """Cut the space from the end of what the answer is to go on from: models refuse it there."""
        text = as_text(last.get("text"))
        if text != text.rstrip():
            last["text"] = text.rstrip()
            self._left_out("white space at the end of the last assistant turn is")

    def _blocks(self, block: ContentBlock, place: str) -> list[JSONObject]:
        return _WRITERS[type(block)](self, block, place)

    def _left_out(self, what: str) -> list[JSONObject]:
        self.warnings.append(f"{what} not sent")
        return []

    def text(self, block: Text, place: str) -> list[JSONObject]:  # noqa: ARG002 (one signature)
        """Write text, with the citations that came over this wire; the wire refuses a block of nothing but space."""
        if not block.text.strip():
            return []
        cited = [citation.raw for citation in block.citations if _is_ours(citation)]
        if self._role == "assistant" and cited:
            return [{"citationsContent": {"content": [{"text": block.text}], "citations": cited}}]
        return [{"text": block.text}]

    def refusal(self, block: Refusal, place: str) -> list[JSONObject]:
        """Write a refusal as the text that it is."""
        return self.text(Text(block.text), place)

    def reasoning(self, block: Reasoning, place: str) -> list[JSONObject]:  # noqa: ARG002 (one signature)
        """Write reasoning back to the provider that signed it."""
        written: list[JSONObject] = []
        for opaque in block.opaque:
            if opaque.issuer != self._target.provider:
                continue
            if opaque.kind == SIGNATURE:
                inner: JSONObject = {"reasoningText": {"text": block.text, "signature": opaque.data}}
                written.append({"reasoningContent": inner})
            elif opaque.kind == REDACTED:
                written.append({"reasoningContent": {"redactedContent": opaque.data}})
        return written or self._left_out("reasoning blocks of earlier turns that this provider did not sign are")

    def tool_call(self, block: ToolCall, place: str) -> list[JSONObject]:  # noqa: ARG002 (one signature)
        """Write a call; arguments that are no JSON object go as a text."""
        arguments = sent_arguments(block.arguments)
        return [{"toolUse": {"toolUseId": _wire_id(block.id), "name": block.name, "input": arguments}}]

    def tool_result(self, block: ToolResult, place: str) -> list[JSONObject]:
        """Write a tool's answer; only some models take a status, so success goes without one."""
        content = [
            written
            for position, inner in enumerate(block.content)
            for written in self._blocks(inner, f"{place}.content[{position}]")
        ]
        written: JSONObject = {"toolUseId": _wire_id(block.tool_call_id), "content": content}
        if block.is_error:
            written["status"] = "error"
        return [{"toolResult": written}]

    def media(self, block: Image | Audio, place: str) -> list[JSONObject]:
        """Write an image, a document, a film or a sound; only users show them."""
        if self._role == "assistant":
            return self._left_out(f"{'images' if isinstance(block, Image) else 'sounds'} in assistant turns are")
        return [self._media.block(block, place)]

    def document(self, block: Document, place: str) -> list[JSONObject]:
        """Write a document; models give citations or an output of a schema, not both."""
        if self._role == "assistant":
            return self._left_out("documents in assistant turns are")
        written = self._media.block(block, place)
        inner = cast("JSONObject", written["document"])
        if self._request.output is not None and inner.pop("citations", None):
            self._left_out("the wish for citations of documents, which this wire refuses beside an output's schema, is")
        return [written]

    def server_block(self, block: ServerToolCallBlock | ServerToolResultBlock, place: str) -> list[JSONObject]:  # noqa: ARG002
        """Write back what the host's own tools did, where it is of this wire."""
        if read_object(block.raw).keys() & {"toolUse", "toolResult"}:
            return [dict(members(block.raw))]
        return self._left_out("calls of another provider's own tools, and their results, are")

    def file(self, block: FileBlock, place: str) -> list[JSONObject]:  # noqa: ARG002 (one signature)
        """Leave out a file that a model made."""
        return self._left_out("files that a model made are")


_WRITERS: dict[type[ContentBlock], Callable[..., list[JSONObject]]] = {
    Text: Turns.text,
    Refusal: Turns.refusal,
    Reasoning: Turns.reasoning,
    ToolCall: Turns.tool_call,
    ToolResult: Turns.tool_result,
    Image: Turns.media,
    Audio: Turns.media,
    Document: Turns.document,
    ServerToolCallBlock: Turns.server_block,
    ServerToolResultBlock: Turns.server_block,
    FileBlock: Turns.file,
}


def _is_ours(citation: Citation) -> bool:
    """Say whether a citation came over this wire: others have kinds of the same names."""
    location = as_object(read_object(citation.raw).get("location"))
    return citation.kind in LOCATIONS and citation.kind in location


def _wire_id(call_id: str) -> str:
    """Give an id that the wire takes: ids of other providers may be longer, or hold other characters."""
    return _FOREIGN_IN_ID.sub("_", call_id)[-_MAX_ID_CHARS:]
