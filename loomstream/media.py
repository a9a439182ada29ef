"""What bytes are: media types by their first bytes, as the formats' own specifications give them.

Contract: pure; no I/O.
"""

from __future__ import annotations

_SIGNATURES: tuple[tuple[str, int, bytes], ...] = (
    ("image/png", 0, b"\x89PNG\r\n\x1a\n"),
    ("image/jpeg", 0, b"\xff\xd8\xff"),
    ("image/gif", 0, b"GIF87a"),
    ("image/gif", 0, b"GIF89a"),
    ("image/webp", 8, b"WEBP"),
    ("image/bmp", 0, b"BM"),
    ("image/tiff", 0, b"II*\x00"),
    ("image/tiff", 0, b"MM\x00*"),
    ("image/heic", 4, b"ftyphei"),
    ("image/heic", 4, b"ftyphev"),
    ("image/heif", 4, b"ftypmif1"),
    ("image/avif", 4, b"ftypavif"),
    ("application/pdf", 0, b"%PDF-"),
    ("audio/wav", 8, b"WAVE"),
    ("audio/mpeg", 0, b"ID3"),
    ("audio/mpeg", 0, b"\xff\xfb"),
    ("audio/mpeg", 0, b"\xff\xf3"),
    ("audio/mpeg", 0, b"\xff\xf2"),
    ("audio/aac", 0, b"\xff\xf1"),
    ("audio/aac", 0, b"\xff\xf9"),
    ("audio/flac", 0, b"fLaC"),
    ("audio/ogg", 0, b"OggS"),
    ("audio/aiff", 8, b"AIFF"),
    ("audio/mp4", 4, b"ftypM4A"),
    ("audio/webm", 0, b"\x1aE\xdf\xa3"),
)
"""Media type, offset and the bytes that stand there."""

KNOWN = frozenset(media_type for media_type, _, _ in _SIGNATURES)
"""The media types that can be told by their first bytes."""


def sniffed(data: bytes) -> str:
    """Give the media type of bytes, or an empty text where their beginning is none of the known ones."""
    for media_type, offset, signature in _SIGNATURES:
        if data.startswith(signature, offset):
            return media_type
    return ""


def contradiction(data: bytes, media_type: str) -> str:
    """Give what bytes are that are not of this media type, an empty text where nothing speaks against it."""
    if not data or media_type not in KNOWN:
        return ""
    found = sniffed(data) or "nothing known"
    return "" if found == media_type else found
