"""What the decoders share: the byte order mark at the start of a body, the failure of a frame that is too large.

Contract: pure functions. A decoder counts the bytes of the frame itself, so that the same bytes fail at the same
place however they were cut.
"""

from __future__ import annotations

from loomstream.errors import Failure, LimitExceeded

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def skip_byte_order_mark(opening: bytes, chunk: bytes) -> tuple[bytes | None, bytes]:
    """Skip one byte order mark at the start of a body, also where it was cut.

    Args:
        opening: the body's bytes so far, all part of a possible mark; empty at first.
        chunk: the bytes that follow.

    Returns:
        The next call's `opening`, None where none is needed; and the text behind the mark.
    """
    text = opening + chunk
    if _BYTE_ORDER_MARK.startswith(text):
        return text, b""
    return None, text.removeprefix(_BYTE_ORDER_MARK)


def frame_too_large(max_frame_bytes: int) -> Failure:
    """Give the failure of a frame that passed the limit."""
    return Failure(
        LimitExceeded(
            f"a frame of the stream is larger than {max_frame_bytes:,} bytes: "
            "no provider is known to send such frames; ask for a shorter answer or check the base URL"
        )
    )
