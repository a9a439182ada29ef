"""Token counts of generateContent, in one convention.

`promptTokenCount` includes what was read from a cache; the prompts of the provider's own tools come on top of it.
`candidatesTokenCount` leaves the thoughts out; it is missing in a stream's first chunks, sometimes in all of them, and
falls where a tool ran in between. Every object is cumulative: the last one counts.
"""

from __future__ import annotations

from typing import Annotated, cast

import msgspec
from msgspec import Meta, Struct
from msgspec import Raw as RawJSON

from loomstream.dialects.fields import Counter, as_object, freeze
from loomstream.events import Usage
from loomstream.wire.json import MAX_DEPTH, depth_exceeds, is_utf_8, loads

_Count = Annotated[int, Meta(ge=0)]


class _Counts(Struct, gc=False):
    promptTokenCount: _Count | None = None  # noqa: N815 (the wire's name)
    cachedContentTokenCount: _Count = 0  # noqa: N815 (the wire's name)
    candidatesTokenCount: _Count | None = None  # noqa: N815 (the wire's name)
    thoughtsTokenCount: _Count = 0  # noqa: N815 (the wire's name)
    toolUsePromptTokenCount: _Count = 0  # noqa: N815 (the wire's name)
    totalTokenCount: _Count | None = None  # noqa: N815 (the wire's name)


_LF, _CR = b"\n\r"
_SHALLOW_BYTES = 2 * MAX_DEPTH
"""An object of no more bytes cannot be too deep."""
_FIELDS = _Counts.__struct_fields__
_decoder = msgspec.json.Decoder(_Counts)


def plain_usage(raw: RawJSON, frame: bytes) -> Usage | None:
    """Give the usage of an object of the plain form, or None where it is any other, and must be read leniently.

    `frame` is what it stands in. A decoder passes over raw fields without a look at their UTF-8 and their depth.
    """
    if _LF in frame or _CR in frame or not (frame.isascii() or is_utf_8(frame)):
        return None
    if len(raw) > _SHALLOW_BYTES and depth_exceeds(bytes(raw)):
        return None
    try:
        counts = _decoder.decode(raw)
    except (ValueError, RecursionError):
        return None
    return _usage(counts, raw.copy())


def read_usage(raw: RawJSON) -> tuple[Usage | None, list[str]]:
    """Give the usage, or None where the object holds no counts, and the names of mistyped fields."""
    try:
        counts = _decoder.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return _read_leniently(raw)
    return _usage(counts, freeze(raw)), []


def _read_leniently(raw: RawJSON) -> tuple[Usage | None, list[str]]:
    value = loads(raw)
    if not isinstance(value, dict):
        return None, ["usageMetadata"]
    counter = Counter(as_object(cast("object", value)))
    found = {name: counter.get(name) for name in _FIELDS}
    counts = _Counts(**{name: count for name, count in found.items() if count is not None})
    return _usage(counts, freeze(raw)), counter.mistyped


def _usage(counts: _Counts, raw: RawJSON) -> Usage | None:
    prompt, candidates, total = counts.promptTokenCount, counts.candidatesTokenCount, counts.totalTokenCount
    if prompt is None and candidates is None and total is None:
        return None
    cached, thoughts, tools = counts.cachedContentTokenCount, counts.thoughtsTokenCount, counts.toolUsePromptTokenCount
    prompt = prompt or 0
    output = candidates + thoughts if candidates is not None else max(thoughts, (total or 0) - prompt - tools)
    return Usage(
        input_tokens=(prompt - cached if prompt > cached else 0) + tools,
        output_tokens=output,
        cache_read_tokens=cached,
        reasoning_tokens=thoughts,
        raw=raw,
    )
