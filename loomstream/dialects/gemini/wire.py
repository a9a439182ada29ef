"""The shapes of generateContent on the wire: only what carries content is typed, the rest stays raw."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.dialects.gemini.partial_args import PartialArg
from loomstream.events import NULL

SIGNATURE = "thought_signature"
"""The kind of a thought signature on the part that the block itself was: a thought or a function call.

No kind of this wire is one of Messages': Vertex serves models over both, and neither family reads the other's.
"""

SIGNED_PART = "part_signature"
"""The kind of a thought signature on the part before: text, a file, a server tool's call or result."""

SIGNED_EMPTY = "empty_part_signature"
"""The kind of a thought signature that came on an empty text part of its own."""

CODE_EXECUTION = "code_execution"
"""The name of the tool whose calls are `executableCode` and whose results are `codeExecutionResult`."""

SERVER_PARTS = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
"""The parts that tell of the provider's own tools."""


class Part(Struct, gc=False):
    """A part of a candidate's content: one of these fields, perhaps with `thought` and a signature beside it."""

    text: str | None = None
    thought: bool | None = None
    thoughtSignature: RawJSON = NULL  # noqa: N815 (the wire's name)
    functionCall: RawJSON = NULL  # noqa: N815 (the wire's name)
    inlineData: RawJSON = NULL  # noqa: N815 (the wire's name)
    fileData: RawJSON = NULL  # noqa: N815 (the wire's name)
    executableCode: RawJSON = NULL  # noqa: N815 (the wire's name)
    codeExecutionResult: RawJSON = NULL  # noqa: N815 (the wire's name)
    toolCall: RawJSON = NULL  # noqa: N815 (the wire's name)
    toolResponse: RawJSON = NULL  # noqa: N815 (the wire's name)


class Content(Struct, gc=False):
    """What a candidate says."""

    parts: list[Part] | None = None


class Candidate(Struct, gc=False):
    """A piece of one answer."""

    content: Content | None = None
    finishReason: RawJSON = NULL  # noqa: N815 (the wire's name)
    finishMessage: RawJSON = NULL  # noqa: N815 (the wire's name)
    index: RawJSON = NULL
    groundingMetadata: RawJSON = NULL  # noqa: N815 (the wire's name)
    citationMetadata: RawJSON = NULL  # noqa: N815 (the wire's name)
    urlContextMetadata: RawJSON = NULL  # noqa: N815 (the wire's name)
    logprobsResult: RawJSON = NULL  # noqa: N815 (the wire's name)


class Chunk(Struct, gc=False):
    """A frame of a stream, or a whole answer."""

    candidates: list[Candidate] | None = None
    promptFeedback: RawJSON = NULL  # noqa: N815 (the wire's name)
    usageMetadata: RawJSON = NULL  # noqa: N815 (the wire's name)
    modelVersion: RawJSON = NULL  # noqa: N815 (the wire's name)
    responseId: RawJSON = NULL  # noqa: N815 (the wire's name)
    error: RawJSON = NULL


class FunctionCall(Struct, gc=False):
    """A call of one of the request's functions."""

    name: str | None = None
    args: RawJSON = NULL
    id: RawJSON = NULL
    partialArgs: list[PartialArg] | None = None  # noqa: N815 (the wire's name)
    willContinue: RawJSON = NULL  # noqa: N815 (the wire's name)


class RawContent(Struct, gc=False):
    """A candidate's content with its parts as they came."""

    parts: list[RawJSON] | None = None


class RawCandidate(Struct, gc=False):
    """A candidate with its parts as they came."""

    content: RawContent | None = None


class RawChunk(Struct, gc=False):
    """A frame with its parts as they came."""

    candidates: list[RawCandidate] | None = None


class PlainPart(Struct, gc=False, forbid_unknown_fields=True):
    """A part that is nothing but text, or a thought."""

    text: str
    thought: bool = False


class PlainContent(Struct, gc=False, forbid_unknown_fields=True):
    """A candidate's content of plain parts."""

    parts: tuple[PlainPart]
    role: str = ""


class PlainCandidate(Struct, gc=False, forbid_unknown_fields=True):
    """A piece of an answer that goes on."""

    content: PlainContent
    index: Literal[0] = 0


class PlainChunk(Struct, gc=False, forbid_unknown_fields=True):
    """A frame in the middle of an answer, with every member that the API gives it, the counts unread."""

    candidates: tuple[PlainCandidate]
    usageMetadata: RawJSON = NULL  # noqa: N815 (the wire's name)
    modelVersion: str = ""  # noqa: N815 (the wire's name)
    responseId: str = ""  # noqa: N815 (the wire's name)
    createTime: str = ""  # noqa: N815 (the wire's name)


plain_decoder = msgspec.json.Decoder(PlainChunk)
chunk_decoder = msgspec.json.Decoder(Chunk)
call_decoder = msgspec.json.Decoder(FunctionCall)
raw_chunk_decoder = msgspec.json.Decoder(RawChunk)
