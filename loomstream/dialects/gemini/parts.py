"""The parts of one candidate: from the wire's parts to events.

Contract: never raises; a part that breaks the protocol ends the list with a `Failure`. Neighbouring texts are one
block, so are neighbouring thoughts; a part with a signature is a block of its own, because the signature must go back
on that very part. A signature on a thought or a function call is that block's `opaque`; on any other part an empty
reasoning block behind it carries the signature (`SIGNED_PART`, `SIGNED_EMPTY`). A part of a kind that is not known is
`Unknown`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import ClassVar

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.blocks import Blocks, OpenBlock
from loomstream.dialects.bodies import compact, frozen, members
from loomstream.dialects.failures import bad_frame
from loomstream.dialects.fields import as_text, is_null, read_object, read_text
from loomstream.dialects.gemini.citations import Sources
from loomstream.dialects.gemini.logprobs import read_logprobs
from loomstream.dialects.gemini.partial_args import ArgumentWriter
from loomstream.dialects.gemini.wire import (
    CODE_EXECUTION,
    SIGNATURE,
    SIGNED_EMPTY,
    SIGNED_PART,
    Candidate,
    FunctionCall,
    Part,
    call_decoder,
)
from loomstream.errors import Failure
from loomstream.events import (
    NULL,
    Event,
    File,
    Logprobs,
    Notice,
    Opaque,
    ReasoningDelta,
    ServerToolCall,
    ServerToolResult,
    TextDelta,
    Unknown,
)
from loomstream.wire.json import Reader, loads

_Out = list[Event | Failure]
_Taker = Callable[["Parts", Part, RawJSON, _Out], None]

_EMPTY = RawJSON(b"{}")
_CODE_OK = frozenset({"", "OUTCOME_OK"})


class Parts:
    """The blocks of one candidate. Methods append to the list they are given."""

    __slots__ = (
        "_blocks",
        "_call",
        "_calls",
        "_current",
        "_last_server_id",
        "_sources",
        "_target",
        "_text_index",
        "_told_of_logprobs",
        "choice",
        "empty",
        "finish",
        "finish_message",
        "made_ids",
    )

    def __init__(self, target: Target, blocks: Blocks, choice: int, made_ids: str) -> None:
        self._target = target
        self._blocks = blocks
        self.choice = choice
        self.made_ids = made_ids
        """What ids that are made here begin with."""
        self.finish = ""
        self.finish_message = ""
        self.empty = True
        self._calls = 0
        self._call: tuple[OpenBlock, ArgumentWriter] | None = None
        """The call whose arguments come in pieces."""
        self._current: OpenBlock | None = None
        self._text_index: int | None = None
        self._last_server_id = ""
        self._sources = Sources()
        self._told_of_logprobs = False

    @property
    def called(self) -> bool:
        """Whether a function was called."""
        return self._calls > 0

    @property
    def growing(self) -> OpenBlock | None:
        """The block of text or of thoughts that is open."""
        return self._current

    def add(self, part: Part, raw: RawJSON, out: _Out) -> None:
        """Take a part; `raw` is the part as it came, which a text has no need of."""
        if part.text is None:
            self._other(part, raw, out)
        elif part.thought:
            self._thought(part, out)
        elif part.thoughtSignature is not NULL:
            self._signed_text(part.text, part, out)
        elif part.text:
            self._text(part.text, out)

    def close(self, out: _Out, *, cut: bool = False) -> None:
        """Close the block that is open. `cut`: the provider did not, so that a call may lack arguments."""
        block, self._current = self._current, None
        if block is not None:
            self._blocks.close(out, block)
        call, self._call = self._call, None
        if call is not None:
            block, writer = call
            self._blocks.arguments(out, block, "" if cut else writer.finish())
            self._blocks.close(out, block, cut=cut or writer.broken)

    # --- text and thoughts -----------------------------------------------------------------------

    def _text(self, text: str, out: _Out) -> None:
        block = self._current
        if block is None or block.kind != "text":
            block = self._open_text(out)
        out.append(TextDelta(block.index, text))

    def _open_text(self, out: _Out) -> OpenBlock:
        self.close(out)
        self.empty = False
        block = self._current = self._blocks.open_text(out, self.choice)
        self._text_index = block.index
        return block

    def _signed_text(self, text: str, part: Part, out: _Out) -> None:
        if self._signature(part) is not None:
            self.close(out)
        if text:
            self._text(text, out)
        self._carry(part, SIGNED_PART if text else SIGNED_EMPTY, out)

    def _thought(self, part: Part, out: _Out) -> None:
        signature = self._signature(part)
        if not part.text and signature is None:
            return
        block = self._current
        if block is None or block.kind != "reasoning" or signature is not None:
            self.close(out)
            self.empty = False
            block = self._current = self._blocks.open_reasoning(out, self.choice)
        if part.text:
            out.append(ReasoningDelta(block.index, part.text))
        if signature is not None:
            block.opaque.append(signature)
            self.close(out)

    # --- signatures ------------------------------------------------------------------------------

    def _signature(self, part: Part, kind: str = SIGNATURE) -> Opaque | None:
        data = "" if is_null(part.thoughtSignature) else read_text(part.thoughtSignature)
        return Opaque(self._target.provider, kind, data) if data else None

    def _carry(self, part: Part, kind: str, out: _Out) -> None:
        signature = self._signature(part, kind)
        if signature is None:
            return
        self.close(out)
        self.empty = False
        block = self._blocks.open_reasoning(out, self.choice)
        block.opaque.append(signature)
        self._blocks.close(out, block)

    # --- other parts -----------------------------------------------------------------------------

    def _other(self, part: Part, raw: RawJSON, out: _Out) -> None:
        if not is_null(part.functionCall):
            self._function_call(part, raw, out)
            return
        for name, take in self._TAKERS.items():
            if not is_null(getattr(part, name)):
                self.close(out)
                self.empty = False
                take(self, part, raw, out)
                return
        if not is_null(part.thoughtSignature) and members(raw).keys() <= {"thoughtSignature", "thought"}:
            self._carry(part, SIGNED_EMPTY, out)
        else:
            out.append(Unknown("part", bytes(raw).decode()))

    def _function_call(self, part: Part, raw: RawJSON, out: _Out) -> None:
        call = Reader(call_decoder).read(bytes(part.functionCall))
        if isinstance(call, Failure):
            self.close(out)
            out.append(bad_frame("a function call is unreadable", bytes(raw), self._target))
            return
        if call.name:
            self.close(out)
            self._open_call(call, call.name, out)
        if self._call is None or not (call.name or is_null(call.args)):
            out.append(Unknown("part", bytes(raw).decode()))
            return
        block, writer = self._call
        signature = self._signature(part)
        if signature is not None:
            block.opaque.append(signature)
        was_broken = writer.broken
        for piece in call.partialArgs or ():
            self._blocks.arguments(out, block, writer.write(piece))
        if writer.broken and not was_broken:
            out.append(Unknown("part", bytes(raw).decode()))
        if not _goes_on(call):
            self.close(out)

    def _open_call(self, call: FunctionCall, name: str, out: _Out) -> None:
        self._calls += 1
        self.empty = False
        block = self._blocks.open_tool_call(out, read_text(call.id) or self._made_id(), name, self.choice)
        self._call = block, ArgumentWriter()
        if not is_null(call.args) and not _goes_on(call):
            self._blocks.arguments(out, block, compact(call.args))

    def _made_id(self) -> str:
        return f"{self.made_ids}{self._blocks.next_index}"

    def _executable_code(self, part: Part, raw: RawJSON, out: _Out) -> None:
        fields = members(part.executableCode)
        arguments = {name: value for name, value in fields.items() if name != "id"}
        id_ = read_text(fields.get("id", NULL))
        self._server_call(id_, CODE_EXECUTION, msgspec.json.encode(arguments).decode(), raw, out)
        self._carry(part, SIGNED_PART, out)

    def _code_result(self, part: Part, raw: RawJSON, out: _Out) -> None:
        fields = read_object(part.codeExecutionResult)
        is_error = as_text(fields.get("outcome")) not in _CODE_OK
        id_ = as_text(fields.get("id"))
        self._server_result(id_, CODE_EXECUTION, part.codeExecutionResult, raw, out, is_error=is_error)
        self._carry(part, SIGNED_PART, out)

    def _tool_call(self, part: Part, raw: RawJSON, out: _Out) -> None:
        fields = members(part.toolCall)
        arguments = fields.get("args", NULL)
        text = "{}" if is_null(arguments) else bytes(arguments).decode()
        self._server_call(read_text(fields.get("id", NULL)), read_text(fields.get("toolType", NULL)), text, raw, out)
        self._carry(part, SIGNED_PART, out)

    def _tool_response(self, part: Part, raw: RawJSON, out: _Out) -> None:
        fields = members(part.toolResponse)
        content = fields.get("response", NULL)
        content = _EMPTY if is_null(content) else content
        self._server_result(
            read_text(fields.get("id", NULL)), read_text(fields.get("toolType", NULL)), content, raw, out
        )
        self._carry(part, SIGNED_PART, out)

    def _server_call(self, id_: str, name: str, arguments: str, raw: RawJSON, out: _Out) -> None:
        self._last_server_id = id_ or self._made_id()
        index = self._blocks.claim(out)
        out.append(ServerToolCall(index, self._last_server_id, name, arguments, self.choice, frozen(raw)))

    def _server_result(
        self, id_: str, name: str, content: RawJSON, raw: RawJSON, out: _Out, *, is_error: bool = False
    ) -> None:
        """Give a result; one without an id belongs to the call before it."""
        index, call_id = self._blocks.claim(out), id_ or self._last_server_id
        result = ServerToolResult(index, call_id, name, frozen(content), is_error, self.choice, frozen(raw))
        out.append(result)

    def _inline_data(self, part: Part, raw: RawJSON, out: _Out) -> None:
        fields = read_object(part.inlineData)
        try:
            data = base64.b64decode(as_text(fields.get("data")), validate=True)
        except (binascii.Error, ValueError):
            out.append(Unknown("part", bytes(raw).decode()))
            return
        kept = RawJSON(b'{"thought":true}') if part.thought else NULL
        media_type = as_text(fields.get("mimeType"))
        out.append(File(self._blocks.claim(out), media_type, data, choice=self.choice, raw=kept))
        self._carry(part, SIGNED_PART, out)

    def _file_data(self, part: Part, raw: RawJSON, out: _Out) -> None:
        fields = read_object(part.fileData)
        index = self._blocks.claim(out)
        url, media_type = as_text(fields.get("fileUri")), as_text(fields.get("mimeType"))
        out.append(File(index, media_type, url=url, choice=self.choice, raw=frozen(raw)))
        self._carry(part, SIGNED_PART, out)

    # --- token probabilities ---------------------------------------------------------------------

    def add_logprobs(self, raw: RawJSON, out: _Out) -> None:
        """Give the probabilities of the last text's tokens; those of an answer without text are left out."""
        tokens = () if is_null(raw) else read_logprobs(raw)
        if tokens and self._text_index is not None:
            out.append(Logprobs(self._text_index, tokens))
        elif tokens != () and not self._told_of_logprobs:
            self._told_of_logprobs = True
            out.append(Notice("warning", "token probabilities that belong to no text, or cannot be read, are left out"))

    # --- sources ---------------------------------------------------------------------------------

    def cite(self, candidate: Candidate, out: _Out) -> None:
        """Give the candidate's sources, for the last text block."""
        for citation in self._sources.read(candidate):
            if self._text_index is None:
                self._open_text(out)
            out.append(msgspec.structs.replace(citation, index=self._text_index))

    _TAKERS: ClassVar[dict[str, _Taker]] = {
        "executableCode": _executable_code,
        "codeExecutionResult": _code_result,
        "toolCall": _tool_call,
        "toolResponse": _tool_response,
        "inlineData": _inline_data,
        "fileData": _file_data,
    }


def _goes_on(call: FunctionCall) -> bool:
    """Say whether more of the call is to come: its last piece is an empty one, where it did not come whole."""
    return bool(call.partialArgs) or loads(call.willContinue) is True
