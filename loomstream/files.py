"""Content blocks from files, bytes and URLs: what a user attaches to a message.

Contract: a path is read at once, in the caller's thread; a URL is passed on for the provider to fetch. The media type
comes from the bytes, else from the file's name. The only I/O is the reading of the file that was named.
"""

from __future__ import annotations

import mimetypes
import os
import stat
from pathlib import Path
from typing import NamedTuple, cast

from loomstream.errors import RequestError
from loomstream.kind_names import kind_of
from loomstream.media import sniffed
from loomstream.messages import Audio, Document, Image

Source = str | os.PathLike[str] | bytes
"""A path, an address (`https://…`, `http://…`, `s3://…`, `gs://…`), or the bytes themselves."""

_ADDRESSES = ("https://", "http://", "s3://", "gs://")
_PDF = "application/pdf"
_SHOWN_CHARS = 200
_MOST_BYTES = 256 * 1024 * 1024
"""What is larger fits in no request; a device may never end."""


Attachment = Image | Audio | Document
"""What stands beside the text of a message."""


class _Found(NamedTuple):
    data: bytes
    media_type: str
    url: str
    name: str


def image(source: Source, *, media_type: str = "") -> Image:
    """Give an image block of a path, an address or bytes; `media_type` where neither bytes nor name tell it.

    Raises `RequestError` for a file that cannot be read, and for what is no image.
    """
    found = _found(source, media_type, "image")
    return Image(found.data, found.media_type, found.url)


def audio(source: Source, *, media_type: str = "") -> Audio:
    """Give a block of sound of a path, an address or bytes; `media_type` where neither bytes nor name tell it.

    Raises `RequestError` for a file that cannot be read, and for what is no sound.
    """
    found = _found(source, media_type, "audio")
    return Audio(found.data, found.media_type, found.url)


def document(source: Source, *, media_type: str = "", name: str = "", citations: bool = False) -> Document:
    """Give a document block (PDF, text, …) of a path, an address or bytes.

    `media_type` where neither bytes nor name tell it; `name` defaults to the file's; `citations` asks for citations of
    its passages. Raises `RequestError` for a file that cannot be read, and where its type cannot be told.
    """
    found = _found(source, media_type, "")
    return Document(found.data, found.media_type, found.url, name or found.name, citations)


def attachment(source: Source, *, media_type: str = "") -> Attachment:
    """Give the block that fits what a path, an address or bytes hold: an image, sound, or else a document.

    Raises `RequestError` for a file that cannot be read, and where its type cannot be told.
    """
    found = _found(source, media_type, "")
    if found.media_type.startswith("image/"):
        return Image(found.data, found.media_type, found.url)
    if found.media_type.startswith("audio/"):
        return Audio(found.data, found.media_type, found.url)
    return Document(found.data, found.media_type, found.url, found.name)


def _found(source: Source, media_type: str, kind: str) -> _Found:
    if isinstance(source, bytes):
        return _typed(_Found(source, media_type, "", ""), kind)
    path = _path(source)
    name = path.rpartition("/")[2]
    if path.startswith(_ADDRESSES):
        plain = path.partition("?")[0]
        return _typed(_Found(b"", media_type or mimetypes.guess_type(plain)[0] or "", path, ""), kind)
    try:
        data = _read(path)
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        reason = (isinstance(error, OSError) and error.strerror) or error
        msg = f"{_shown(path)} cannot be read: {reason}"
        raise RequestError(msg) from error
    return _typed(_Found(data, media_type or sniffed(data) or mimetypes.guess_type(name)[0] or "", "", name), kind)


def _read(path: str) -> bytes:
    """Give what a file holds; it may be a pipe. Raises `RequestError` for more than anybody takes, and `OSError`."""
    with Path(path).open("rb") as file:
        status = os.fstat(file.fileno())
        is_plain = stat.S_ISREG(status.st_mode)
        too_large = is_plain and status.st_size > _MOST_BYTES
        data = b"" if too_large else file.read(-1 if is_plain else _MOST_BYTES + 1)
    if too_large or len(data) > _MOST_BYTES:
        msg = f"{_shown(path)} is larger than {_MOST_BYTES >> 20} MiB: no provider takes so much in a request"
        raise RequestError(msg)
    return data


def _path(source: object) -> str:
    try:
        return os.fsdecode(cast("str | os.PathLike[str]", source))
    except TypeError:
        msg = f"{kind_of(source)} is no path, address or bytes: give one of these, as in image('photo.png')"
        raise RequestError(msg) from None


def _shown(path: str) -> str:
    short = path if len(path) <= _SHOWN_CHARS else f"{path[:_SHOWN_CHARS]}…"
    return short if short.isprintable() else repr(short)


def _typed(found: _Found, kind: str) -> _Found:
    """Give what was found with its media type, or raise where that is not of this kind or cannot be told.

    Of an address that does not tell it the provider that fetches it will see; a document is a PDF then.
    """
    where = found.name or found.url or f"{len(found.data)} bytes"
    if found.data == b"" and not found.url:
        msg = f"{where}: it is empty"
        raise RequestError(msg)
    media_type = found.media_type or sniffed(found.data)
    if found.url and not media_type:
        return found if kind else found._replace(media_type=_PDF)
    if not media_type or not media_type.startswith(kind):
        what = f"is {media_type}" if media_type else "cannot be told by its bytes or its name"
        msg = f"{where}: what it holds {what}; give media_type='{kind or 'application'}/…' if you know it better"
        raise RequestError(msg)
    return found._replace(media_type=media_type)
