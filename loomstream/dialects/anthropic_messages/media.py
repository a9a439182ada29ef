"""Images and documents as the API's blocks.

Contract: pure. What the API does not take raises `Unsupported` with the block's place in the request.
Source: https://platform.claude.com/docs/en/build-with-claude/vision and …/pdf-support, …/citations.
"""

from __future__ import annotations

import base64
from typing import NoReturn

from loomstream.dialects import Target
from loomstream.dialects.fields import JSONObject
from loomstream.errors import RequestError, Unsupported
from loomstream.messages import Document, Image

IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
"""The media types of images."""

PDF = "application/pdf"
"""The only media type of documents that go as bytes, or by their address."""

_ALIASES = {"image/jpg": "image/jpeg"}
_TEXT_TYPES = ("application/json", "application/xml", "application/yaml", "application/x-yaml")
_SCHEMES = ("", "http", "https")


def image_block(image: Image, place: str, target: Target) -> JSONObject:
    """Give the block of an image; one that is a PDF is a document."""
    media_type = media_type_of(image.media_type)
    if media_type == PDF:
        return document_block(Document(image.data, PDF, image.url), place, target)
    if image.url:
        return {"type": "image", "source": _address(image.url, place, target)}
    if media_type not in IMAGES:
        _refuse(f"{place}: Messages takes no image of type {media_type!r}: give one of {', '.join(IMAGES)}", target)
    return {"type": "image", "source": _bytes(image.data, media_type)}


def document_block(document: Document, place: str, target: Target) -> JSONObject:
    """Give the block of a document, which is a PDF or any kind of text in UTF-8.

    Raises `Unsupported` for another type, `RequestError` for a text that is no UTF-8.
    """
    written: JSONObject = {"type": "document", "source": _document_source(document, place, target)}
    if document.name:
        written["title"] = document.name
    if document.citations:
        written["citations"] = {"enabled": True}
    return written


def media_type_of(media_type: str) -> str:
    """Give the media type without its parameters, in lower case and by its usual name."""
    bare = media_type.partition(";")[0].strip().lower()
    return _ALIASES.get(bare, bare)


def _document_source(document: Document, place: str, target: Target) -> JSONObject:
    media_type = media_type_of(document.media_type)
    if document.url:
        if media_type != PDF:
            _refuse(f"{place}: Messages fetches PDFs alone, no {media_type!r}: give the document's bytes", target)
        return _address(document.url, place, target)
    if media_type == PDF:
        return _bytes(document.data, PDF)
    if not media_type.startswith("text/") and media_type not in _TEXT_TYPES:
        _refuse(f"{place}: Messages takes no document of type {media_type!r}: give a PDF, or its text", target)
    try:
        # the API knows but this type of text
        return {"type": "text", "media_type": "text/plain", "data": document.data.decode()}
    except UnicodeDecodeError as error:
        msg = f"{place}: this {media_type} is no UTF-8 (byte {error.start}): give it in UTF-8"
        raise RequestError(msg, provider=target.provider, model=target.model) from None


def _bytes(data: bytes, media_type: str) -> JSONObject:
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(data).decode()}


def _address(url: str, place: str, target: Target) -> JSONObject:
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if not target.quirks.url_sources:
        _refuse(f"{place}: {target.provider} fetches nothing for this model: give the bytes in place of a URL", target)
    if scheme not in _SCHEMES:
        _refuse(f"{place}: Messages fetches https addresses alone, not {url[:100]!r}: give the bytes", target)
    return {"type": "url", "url": url}


def _refuse(message: str, target: Target) -> NoReturn:
    raise Unsupported(message, provider=target.provider, model=target.model)
