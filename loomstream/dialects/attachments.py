"""Attachments as several wires write them: bytes as a URL, documents under a name, text as text.

Contract: pure. Knows no wire.
"""

from __future__ import annotations

import base64

from loomstream.errors import RequestError
from loomstream.messages import Document

_EXTENSIONS = {"plain": "txt", "markdown": "md", "vnd.openxmlformats-officedocument.wordprocessingml.document": "docx"}
"""Extensions that are not the subtype of the media type."""

_TEXTS = frozenset(("application/json", "application/xml", "application/yaml", "application/x-yaml"))
"""Media types of text beside those that begin with `text/`."""


def data_url(data: bytes, media_type: str) -> str:
    """Give bytes as a URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def file_name(block: Document) -> str:
    """Give what a document is called, or a name made of its media type: hosts tell by its end what a file is."""
    subtype = block.media_type.partition("/")[2].partition(";")[0]
    return block.name or f"document.{_EXTENSIONS.get(subtype, subtype) or 'bin'}"


def is_text(media_type: str) -> bool:
    """Say whether bytes of a media type are text."""
    bare = media_type.partition(";")[0].strip().lower()
    return bare.startswith("text/") or bare in _TEXTS


def text_of(document: Document, place: str) -> str:
    """Give the text that a document's bytes are. Raises `RequestError`, with the place, where they are no UTF-8."""
    try:
        return document.data.decode()
    except UnicodeDecodeError as error:
        msg = (
            f"{place}.data is no UTF-8 ({error.reason} at byte {error.start}), but its media_type is text: "
            "encode it as UTF-8, or give the media_type that it has"
        )
        raise RequestError(msg) from None
