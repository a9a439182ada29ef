"""Images, films, sounds and documents as blocks of Converse.

Contract: pure. What Converse does not take raises `Unsupported` with the block's place in the request.
Source: the enumerations ImageFormat, DocumentFormat, VideoFormat and AudioFormat of the API, and its `DocumentBlock`.
"""

from __future__ import annotations

import base64
import re

from loomstream.dialects import Target
from loomstream.dialects.fields import JSONObject
from loomstream.errors import Unsupported
from loomstream.messages import Audio, Document, Image

_DOCUMENTS: dict[str, str] = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/json": "txt",
    "application/xml": "txt",
    "application/yaml": "txt",
}
_FORMATS: dict[str, tuple[str, str]] = {
    "image/png": ("image", "png"),
    "image/jpeg": ("image", "jpeg"),
    "image/jpg": ("image", "jpeg"),
    "image/gif": ("image", "gif"),
    "image/webp": ("image", "webp"),
    **{media_type: ("document", form) for media_type, form in _DOCUMENTS.items()},
    "video/mp4": ("video", "mp4"),
    "video/quicktime": ("video", "mov"),
    "video/webm": ("video", "webm"),
    "video/x-matroska": ("video", "mkv"),
    "video/mpeg": ("video", "mpeg"),
    "audio/mpeg": ("audio", "mp3"),
    "audio/mp3": ("audio", "mp3"),
    "audio/wav": ("audio", "wav"),
    "audio/x-wav": ("audio", "wav"),
    "audio/wave": ("audio", "wav"),
    "audio/opus": ("audio", "opus"),
    "audio/aac": ("audio", "aac"),
    "audio/flac": ("audio", "flac"),
    "audio/ogg": ("audio", "ogg"),
    "audio/mp4": ("audio", "m4a"),
    "audio/x-m4a": ("audio", "m4a"),
    "audio/webm": ("audio", "webm"),
    "audio/x-matroska": ("audio", "mka"),
}
_KINDS = {Image: ("image", "document", "video"), Audio: ("audio",), Document: ("document",)}
"""What the blocks may hold: an image block also what looks like one."""
_FOREIGN_IN_NAME = re.compile(r"[^a-zA-Z0-9\s()\[\]-]")
_SPACE = re.compile(r"\s+")
_MAX_NAME_CHARS = 200
_TEXT_TYPES = "text/"


class Media:
    """Writes the media of one request, whose documents have a name each."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._names: set[str] = set()
        self._documents = 0

    def block(self, block: Image | Audio | Document, place: str) -> JSONObject:
        """Give the block. Raises `Unsupported` for a type, or an address, that Converse does not take."""
        kind, form = self._format(block, place)
        written: JSONObject = {"format": form, "source": self._source(block, place)}
        if kind == "document":
            written["name"] = self._name(block.name if isinstance(block, Document) else "")
        if isinstance(block, Document) and block.citations:
            written["citations"] = {"enabled": True}
        return {kind: written}

    def _format(self, block: Image | Audio | Document, place: str) -> tuple[str, str]:
        media_type = block.media_type.partition(";")[0].strip().lower()
        kinds = _KINDS[type(block)]
        kind, form = _FORMATS.get(media_type, ("", ""))
        if kind in kinds:
            return kind, form
        if "document" in kinds and media_type.startswith(_TEXT_TYPES):
            return "document", "txt"
        taken = ", ".join(name for name, (kind, _) in _FORMATS.items() if kind in kinds)
        msg = f"{place}: Converse takes no {block.media_type!r} here: give one of {taken}"
        raise Unsupported(msg, provider=self._target.provider, model=self._target.model)

    def _source(self, block: Image | Audio | Document, place: str) -> JSONObject:
        if not block.url:
            return {"bytes": base64.b64encode(block.data).decode()}
        if block.url.startswith("s3://"):
            return {"s3Location": {"uri": block.url}}
        what = type(block).__name__.lower()
        msg = f"{place}: Converse fetches nothing but s3:// addresses, not {block.url[:100]!r}: give the {what}'s bytes"
        raise Unsupported(msg, provider=self._target.provider, model=self._target.model)

    def _name(self, asked: str) -> str:
        """Give a name that the API takes: few characters, no space after another, none twice in a request."""
        self._documents += 1
        clean = _SPACE.sub(" ", _FOREIGN_IN_NAME.sub(" ", asked)).strip() or f"document-{self._documents}"
        name, copy = clean[:_MAX_NAME_CHARS].rstrip(), 1
        while name in self._names:
            copy += 1
            mark = f" ({copy})"
            name = clean[: _MAX_NAME_CHARS - len(mark)].rstrip() + mark
        self._names.add(name)
        return name
