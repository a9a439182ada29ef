"""Token probabilities on Cohere's wire: a piece of text with the probabilities of the tokens that it was made of.

Contract: pure; never raises. The wire does not say which part of a piece a token is, so a piece counts as one token,
whose logarithm is the sum of its tokens'. There are no alternatives.

Source: https://docs.cohere.com/reference/chat-stream, `logprobs`.
"""

from __future__ import annotations

from math import fsum

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.dialects.blocks import heal
from loomstream.events import TokenLogprob


class _Piece(Struct, gc=False):
    text: str | None = None
    logprobs: list[float] | None = None


_decoder: msgspec.json.Decoder[_Piece | list[_Piece]] = msgspec.json.Decoder(_Piece | list[_Piece])


def read_logprobs(raw: RawJSON) -> tuple[TokenLogprob, ...] | None:
    """Give the pieces with their probabilities, None where they are mistyped; those of special tokens have no text."""
    try:
        read = _decoder.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None
    pieces = read if isinstance(read, list) else [read]
    return tuple(
        TokenLogprob(heal(piece.text), fsum(piece.logprobs)) for piece in pieces if piece.text and piece.logprobs
    )
