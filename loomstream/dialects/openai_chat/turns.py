"""The turns of a conversation as messages of Chat Completions.

Contract: pure. A block that the table of its turn's role does not name has no place on the wire; `request` says so in
its warnings. What a block that has a place loses is said here. A turn of which nothing is left is not sent: hosts
refuse a message without content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile

from loomstream.dialects import Target
from loomstream.dialects.attachments import data_url, is_text, text_of
from loomstream.dialects.fields import JSONObject, as_list, as_object
from loomstream.dialects.honoured import NO_CACHE_TIME
from loomstream.dialects.openai_chat.media import audio_part, document_part, document_text
from loomstream.dialects.openai_chat.tool_ids import native_ids
from loomstream.events import Opaque
from loomstream.messages import (
    Audio,
    CachePoint,
    ContentBlock,
    Document,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    ResultContent,
    Text,
    ToolCall,
    ToolResult,
)
from loomstream.wire.json import loads


def messages_of(request: Request, target: Target) -> tuple[list[JSONObject], list[str]]:
    """Give the messages of a request, its system text first, and what is to be said of their blocks."""
    _check_texts(request)
    turns = ((Message("system", (Text(request.system),)),) if request.system else ()) + request.messages
    if target.quirks.system_role == "user":
        turns = _without_system(turns)
    ids = native_ids(turns, target.quirks.tool_id_chars)
    messages: list[JSONObject] = []
    warnings: list[str] = []
    for message in turns:
        turn = _Turn(target, ids, warnings)
        writers = WRITERS[message.role]
        for block in message.content:
            if type(block) in writers:
                writers[type(block)](turn, block)
        messages += _ENDINGS[message.role](turn)
    _mark_prefix(messages, target)
    return messages, warnings


_DOCUMENTED: frozenset[type[ContentBlock]] = frozenset((Document, ToolResult))
"""Blocks that are or hold documents."""


def _check_texts(request: Request) -> None:
    """Raise `RequestError` for a document of text that is none, with its place: they are sent as text."""
    for number, message in enumerate(request.messages):
        for position, block in enumerate(message.content):
            if block.__class__ not in _DOCUMENTED:
                continue
            place = f"messages[{number}].content[{position}]"
            inner = block.content if isinstance(block, ToolResult) else ()
            for where, found in ((place, block), *((f"{place}.content[{part}]", it) for part, it in enumerate(inner))):
                if isinstance(found, Document) and is_text(found.media_type):
                    text_of(found, where)


def _mark_prefix(messages: list[JSONObject], target: Target) -> None:
    """Say of an assistant's last message that the answer goes on with it."""
    end = target.quirks.prefix_at
    if end is None or not messages or not target.base_url.endswith(end):
        return
    last = messages[-1]
    if last["role"] == "assistant" and last["content"] and "tool_calls" not in last:
        last["prefix"] = True


def _without_system(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Give the turns for a model that refuses system turns: the first ones go into the first user turn.

    A system turn in the middle of the conversation is said by the user, where it stands.
    """
    leading = tuple(takewhile(lambda turn: turn.role == "system", turns))
    instructions, rest = "\n\n".join(turn.text for turn in leading), turns[len(leading) :]
    points = tuple(block for turn in leading for block in turn.content if isinstance(block, CachePoint))
    if not instructions:
        return rest
    if not rest or rest[0].role != "user":
        return (Message("user", (Text(instructions), *points)), *rest)
    first = Message("user", (Text(f"{instructions}\n\n"), *points, *rest[0].content))
    return (first, *rest[1:])


class _Turn:
    """Gathers the blocks of one turn; its role says which messages they become."""

    def __init__(self, target: Target, ids: Mapping[str, str], warnings: list[str]) -> None:
        self._target = target
        self._ids = ids
        self._warnings = warnings
        self._last: JSONObject | None = None
        """What a cache point marks: the part, or the tool's result, that was written last."""
        self._texts: list[str] = []
        self._parts: list[JSONObject] = []
        self._needs_parts = False
        self._results: list[JSONObject] = []
        self._refusals: list[str] = []
        self._calls: list[JSONObject] = []
        self._reasoning: list[str] = []
        self._details: list[object] = []

    # --- blocks ----------------------------------------------------------------------------------

    def text(self, block: Text) -> None:
        """Take text."""
        self._texts.append(block.text)
        self._part({"type": "text", "text": block.text})

    def _part(self, part: JSONObject) -> None:
        self._parts.append(part)
        self._last = part if part.get("text") != "" else self._last  # an empty text cannot be marked

    def image(self, block: Image) -> None:
        """Take an image by its URL, or by its bytes."""
        url = block.url or data_url(block.data, block.media_type)
        self._media({"type": "image_url", "image_url": {"url": url}})

    def audio(self, block: Audio) -> None:
        """Take a sound."""
        self._media(audio_part(block, self._target.quirks))

    def document(self, block: Document) -> None:
        """Take a document."""
        if block.citations:
            self._warnings.append("citations of documents are not asked for: this wire has no word for that")
        self._media(document_part(block, self._target.quirks))

    def _media(self, part: JSONObject | str) -> None:
        if isinstance(part, str):
            self._warnings.append(part)
        else:
            self._needs_parts = True
            self._part(part)

    def cache_point(self, block: CachePoint) -> None:
        """Mark what stands before it, where the host has a mark."""
        member = self._target.quirks.cache_points
        if not member:
            self._warnings.append("cache points are not sent: this host caches by itself, or not at all")
        elif self._last is None:
            self._warnings.append("cache points with nothing before them in their turn are not sent")
        else:
            self._mark(member, block, self._last)

    def _mark(self, member: str, block: CachePoint, last: JSONObject) -> None:
        if last.get("role") == "tool":
            if isinstance(last["content"], str):
                last["content"] = [{"type": "text", "text": last["content"]}]
            last = as_object(as_list(last["content"])[-1])
        else:
            self._needs_parts = True
        if member == "cache_control":
            last[member] = {"type": "ephemeral", **({"ttl": block.ttl} if block.ttl else {})}
            return
        last[member] = {"mode": "explicit"}
        if block.ttl == "1h":
            self._warnings.append(NO_CACHE_TIME)

    def tool_result(self, block: ToolResult) -> None:
        """Take a tool's answer, which is text on this wire, documents of text included."""
        text = "".join(map(self._result_text, block.content))
        result: JSONObject = {"role": "tool", "tool_call_id": self._id(block.tool_call_id), "content": text}
        self._results.append(result)
        self._last = result if text else self._last

    def _result_text(self, block: ResultContent) -> str:
        if isinstance(block, Document) and (text := document_text(block)) is not None:
            return text
        if isinstance(block, Text):
            return block.text
        what = "images" if isinstance(block, Image) else "documents that are no text at hand"
        self._warnings.append(f"{what} in tool results are not sent: this provider takes text there")
        return ""

    def refusal(self, block: Refusal) -> None:
        """Take a refusal."""
        if self._target.quirks.refusal_key:
            self._refusals.append(block.text)
        else:
            self.text(Text(block.text))

    def tool_call(self, block: ToolCall) -> None:
        """Take a call."""
        function: JSONObject = {"name": block.name, "arguments": block.arguments}
        self._calls.append({"id": self._id(block.id), "type": "function", "function": function})

    def reasoning(self, block: Reasoning) -> None:
        """Take reasoning: the details that the target itself has issued, and the text where the host wants it back."""
        for opaque in block.opaque:
            if opaque.kind == "details" and _is_issuer(opaque, self._target):
                self._details += as_list(loads(opaque.data.encode("utf-8", "replace")))
        if not text_goes_back(block, self._target):
            return
        self._reasoning.append(block.text)
        if self._target.quirks.reasoning_back == "parts":
            self._needs_parts = True
            self._parts.append(_thinking(block))

    def _id(self, id: str) -> str:  # noqa: A002 (the field's name)
        return self._ids.get(id, id)

    # --- messages --------------------------------------------------------------------------------

    def as_system(self) -> list[JSONObject]:
        """Give a system turn."""
        return [{"role": self._target.quirks.system_role, "content": self._content()}]

    def as_user(self) -> list[JSONObject]:
        """Give the results, each as a message of its own, and what the user says beside them."""
        if not self._parts:
            return self._results
        return [*self._results, {"role": "user", "content": self._content()}]

    def as_assistant(self) -> list[JSONObject]:
        """Give an assistant turn, or nothing where nothing of it can be sent."""
        back = self._target.quirks.reasoning_back
        optional: JSONObject = {
            "tool_calls": self._calls,
            "refusal": "".join(self._refusals),
            "reasoning_details": self._details,
            back: "" if back == "parts" else "".join(self._reasoning),
        }
        written = {key: value for key, value in optional.items() if value}
        content = self._content()
        if not written and not content:
            return []
        stands_alone = written.keys() == {back}  # reasoning: hosts want a content beside it, be it empty
        return [{"role": "assistant", "content": content or ("" if stands_alone else None), **written}]

    def _content(self) -> object:
        return self._parts if self._needs_parts else "".join(self._texts)


def _is_issuer(opaque: Opaque, target: Target) -> bool:
    return opaque.issuer == target.provider


def text_goes_back(block: Reasoning, target: Target) -> bool:
    """Say whether a reasoning text may be sent: the host wants it, and nobody else has signed it."""
    wanted = bool(target.quirks.reasoning_back) and bool(block.text or block.opaque)
    return wanted and all(_is_issuer(opaque, target) for opaque in block.opaque)


def goes_back(block: Reasoning, target: Target) -> bool:
    """Say whether anything of an earlier turn's reasoning is sent: details go back to their issuer alone."""
    details = any(opaque.kind == "details" and _is_issuer(opaque, target) for opaque in block.opaque)
    return details or text_goes_back(block, target)


def _thinking(block: Reasoning) -> JSONObject:
    """Give a part of thinking (Mistral), with the signature that its issuer has put on it."""
    part: JSONObject = {"type": "thinking", "thinking": [{"type": "text", "text": block.text}] if block.text else []}
    signature = "".join(opaque.data for opaque in block.opaque if opaque.kind == "signature")
    return {**part, "signature": signature} if signature else part


_USER: Mapping[type[ContentBlock], Callable[..., None]] = {
    Text: _Turn.text,
    Image: _Turn.image,
    Audio: _Turn.audio,
    Document: _Turn.document,
    CachePoint: _Turn.cache_point,
    ToolResult: _Turn.tool_result,
}
_ASSISTANT: Mapping[type[ContentBlock], Callable[..., None]] = {
    Text: _Turn.text,
    Refusal: _Turn.refusal,
    Reasoning: _Turn.reasoning,
    ToolCall: _Turn.tool_call,
    CachePoint: _Turn.cache_point,
}
WRITERS: dict[str, Mapping[type[ContentBlock], Callable[..., None]]] = {
    "system": {Text: _Turn.text, CachePoint: _Turn.cache_point},
    "user": _USER,
    "assistant": _ASSISTANT,
    "tool": _USER,
}
"""The blocks that a turn of a role can say on this wire."""

_ENDINGS: dict[str, Callable[[_Turn], list[JSONObject]]] = {
    "system": _Turn.as_system,
    "user": _Turn.as_user,
    "assistant": _Turn.as_assistant,
    "tool": _Turn.as_user,
}
