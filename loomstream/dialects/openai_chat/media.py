"""Sound and documents as parts of a message of Chat Completions.

Contract: pure. Each function gives the part, or as a text why there is none: a clause for a warning.

Source: https://platform.openai.com/docs/guides/pdf-files (bytes of PDFs alone, no addresses), .../guides/audio;
https://openrouter.ai/docs/features/multimodal; https://docs.mistral.ai/capabilities/document_ai;
https://docs.perplexity.ai/guides/file-attachments.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from loomstream.dialects import Quirks
from loomstream.dialects.attachments import data_url, file_name, is_text
from loomstream.dialects.fields import JSONObject
from loomstream.messages import Audio, Document

_FORMATS = {
    "x-wav": "wav",
    "wave": "wav",
    "vnd.wave": "wav",
    "mpeg": "mp3",
    "x-mp3": "mp3",
    "mp4": "m4a",
    "x-m4a": "m4a",
    "x-flac": "flac",
    "x-aiff": "aiff",
    "x-aac": "aac",
}
"""Formats by the subtype of a media type, where the two differ."""


def document_part(block: Document, quirks: Quirks) -> JSONObject | str:
    """Give a document's part; what is text becomes text, under its name."""
    text = document_text(block)
    if text is not None:
        return {"type": "text", "text": text}
    if not quirks.documents:
        return "documents are not sent: this host takes none but texts"
    if quirks.documents == "file" and block.url:
        return "documents by their address are not sent: this host takes their bytes"
    return _DOCUMENTS[quirks.documents](block)


def document_text(block: Document) -> str | None:
    """Give a document of text as text, under its name; None where it is none at hand."""
    if block.url or not is_text(block.media_type):
        return None
    text = block.data.decode()
    return f"{block.name}\n\n{text}" if block.name else text


def _file(block: Document) -> JSONObject:
    data = block.url or data_url(block.data, block.media_type)
    return {"type": "file", "file": {"filename": file_name(block), "file_data": data}}


def _file_url(block: Document) -> JSONObject:
    url = block.url or base64.b64encode(block.data).decode()
    named = {"file_name": block.name} if block.name else {}
    return {"type": "file_url", "file_url": {"url": url}, **named}


def _document_url(block: Document) -> JSONObject:
    url = block.url or data_url(block.data, block.media_type)
    named = {"document_name": block.name} if block.name else {}
    return {"type": "document_url", "document_url": url, **named}


_DOCUMENTS: dict[str, Callable[[Document], JSONObject]] = {
    "file": _file,
    "file_or_url": _file,
    "file_url": _file_url,
    "document_url": _document_url,
}


def audio_part(block: Audio, quirks: Quirks) -> JSONObject | str:
    """Give a sound's part."""
    if not quirks.audio_formats:
        return "sounds are not sent: this host takes none"
    if block.url:
        if quirks.audio_as == "text":
            return {"type": "input_audio", "input_audio": block.url}
        return "sounds by their address are not sent: this host takes their bytes"
    subtype = block.media_type.partition("/")[2].partition(";")[0].lower()
    sound = _FORMATS.get(subtype, subtype)
    if sound not in quirks.audio_formats:
        known = ", ".join(quirks.audio_formats)
        return f"sounds of the type {block.media_type} are not sent: this host takes {known}"
    data = base64.b64encode(block.data).decode()
    return {
        "type": "input_audio",
        "input_audio": data if quirks.audio_as == "text" else {"data": data, "format": sound},
    }
