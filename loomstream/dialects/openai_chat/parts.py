"""Citations and files out of their objects on the wire.

Contract: pure; what is missing or mistyped is left empty, the object itself is kept as `raw`.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects.fields import JSONObject, as_object, as_text
from loomstream.events import Citation, File


def citation(index: int, item: JSONObject) -> Citation:
    """Give the citation of an annotation (`{"type": T, T: {…}}`), a source, or a part that refers to one."""
    kind = as_text(item.get("type"))
    source = as_object(item.get(kind)) or item
    start, end = source.get("start_index"), source.get("end_index")
    return Citation(
        index,
        kind,
        as_text(source.get("url")),
        as_text(source.get("title")),
        as_text(source.get("content")) or as_text(source.get("snippet")),
        start if type(start) is int else None,
        end if type(end) is int else None,
        RawJSON(msgspec.json.encode(item)),
    )


def file_of(index: int, item: JSONObject, choice: int) -> File:
    """Give the file of an image, by its address or its bytes, or of audio."""
    image = item.get("image_url")
    url = as_text(as_object(image).get("url")) or as_text(image)
    encoded = as_text(item.get("data"))
    media_type = "audio" if encoded else "image"
    if url.startswith("data:") and "," in url:
        head, encoded = url.split(",", 1)
        media_type = head.removeprefix("data:").split(";")[0]
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    raw = RawJSON(msgspec.json.encode(item))
    return File(index, media_type, data, "" if data else url, as_text(item.get("id")), choice, raw)
