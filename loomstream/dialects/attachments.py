"""Attachments as OpenAI's wires write them: bytes as a URL, documents under a name.

Contract: pure. Knows no wire.
"""

from __future__ import annotations

import base64

from loomstream.messages import Document

_EXTENSIONS = {"plain": "txt", "markdown": "md", "vnd.openxmlformats-officedocument.wordprocessingml.document": "docx"}
"""Extensions that are not the subtype of the media type."""


def data_url(data: bytes, media_type: str) -> str:
    """Give bytes as a URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def file_name(block: Document) -> str:
    """Give what a document is called, or a name made of its media type: hosts tell by its end what a file is."""
    subtype = block.media_type.partition("/")[2].partition(";")[0]
    return block.name or f"document.{_EXTENSIONS.get(subtype, subtype) or 'bin'}"
