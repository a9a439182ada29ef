"""Sources: grounding, citation and URL metadata of a candidate to `Citation` events.

Contract: `Sources.read` gives each source once, however often its metadata is repeated; it never raises. Offsets are
the wire's: bytes of UTF-8 text, `end` exclusive. What grounding tells beside its sources (the searches, Google's search
entry point, which its terms want shown) comes as one citation of kind `grounding` without a URL.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects.fields import JSONObject, as_list, as_object, as_text, is_null, read_object
from loomstream.dialects.gemini.wire import Candidate
from loomstream.events import Citation

_SOURCES = frozenset({"groundingChunks", "groundingSupports"})


class Sources:
    """The sources of one candidate."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def read(self, candidate: Candidate) -> list[Citation]:
        """Give the citations of a candidate that are new, for the text block with index 0."""
        found = [
            *_grounding(_read(candidate.groundingMetadata)),
            *_citations(_read(candidate.citationMetadata)),
            *_urls(_read(candidate.urlContextMetadata)),
        ]
        new: list[Citation] = []
        for citation in found:
            key = msgspec.json.encode(citation)
            if key not in self._seen:
                self._seen.add(key)
                new.append(citation)
        return new


def _read(raw: RawJSON) -> JSONObject:
    return {} if is_null(raw) else read_object(raw)


def _raw(value: object) -> RawJSON:
    return RawJSON(msgspec.json.encode(value))


def _whole_number(value: object) -> int | None:
    return value if type(value) is int else None


def _grounding(metadata: JSONObject) -> Iterator[Citation]:
    chunks = [as_object(chunk) for chunk in as_list(metadata.get("groundingChunks"))]
    supports = [as_object(support) for support in as_list(metadata.get("groundingSupports"))]
    for support in supports:
        for position in as_list(support.get("groundingChunkIndices")):
            if type(position) is int and 0 <= position < len(chunks):
                yield _grounded(chunks[position], as_object(support.get("segment")))
    if not supports:
        yield from (_grounded(chunk, {}) for chunk in chunks)
    rest = {name: value for name, value in metadata.items() if name not in _SOURCES and value}
    if rest:
        yield Citation(0, "grounding", raw=_raw(rest))


def _grounded(chunk: JSONObject, segment: JSONObject) -> Citation:
    """Give one source of one segment; a first segment has no `startIndex`, because that would be 0."""
    kind = next(iter(chunk), "")
    source = as_object(chunk.get(kind))
    return Citation(
        0,
        kind,
        as_text(source.get("uri")),
        as_text(source.get("title")),
        as_text(segment.get("text")),
        _whole_number(segment.get("startIndex", 0)) if segment else None,
        _whole_number(segment.get("endIndex")),
        _raw({"groundingChunk": chunk, "segment": segment} if segment else {"groundingChunk": chunk}),
    )


def _citations(metadata: JSONObject) -> Iterator[Citation]:
    """Give the places that the text recites; an entry that says nothing is left out."""
    for item in as_list(metadata.get("citations")) or as_list(metadata.get("citationSources")):
        source = as_object(item)
        if source:
            yield Citation(
                0,
                "citation",
                as_text(source.get("uri")),
                as_text(source.get("title")),
                start=_whole_number(source.get("startIndex")),
                end=_whole_number(source.get("endIndex")),
                raw=_raw(source),
            )


def _urls(metadata: JSONObject) -> Iterator[Citation]:
    for item in as_list(metadata.get("urlMetadata")):
        source = as_object(item)
        if source:
            yield Citation(0, "url_context", as_text(source.get("retrievedUrl")), raw=_raw(source))
