"""Token probabilities on generateContent's wire: two lists side by side, of the chosen tokens and of the likeliest.

Contract: pure; never raises. A step without its likeliest tokens has none.

Source: https://ai.google.dev/api/generate-content#LogprobsResult.
"""

from __future__ import annotations

from itertools import zip_longest

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.dialects.blocks import heal
from loomstream.events import TokenLogprob


class _Token(Struct, gc=False):
    token: str = ""
    logProbability: float = 0.0  # noqa: N815 (the wire's name; JSON of protobuf leaves a 0 out)


class _Step(Struct, gc=False):
    candidates: list[_Token] | None = None


class _Result(Struct, gc=False):
    chosenCandidates: list[_Token] | None = None  # noqa: N815 (the wire's name)
    topCandidates: list[_Step] | None = None  # noqa: N815 (the wire's name)


_decoder = msgspec.json.Decoder(_Result)


def read_logprobs(raw: RawJSON) -> tuple[TokenLogprob, ...] | None:
    """Give the tokens with their probabilities, None where they are mistyped."""
    try:
        result = _decoder.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None
    steps = result.topCandidates or []
    return tuple(_read(token, step) for token, step in zip_longest(result.chosenCandidates or [], steps) if token)


def _read(token: _Token, step: _Step | None) -> TokenLogprob:
    likeliest = (step.candidates if step else None) or ()
    top = tuple((heal(likely.token), likely.logProbability) for likely in likeliest)
    return TokenLogprob(heal(token.token), token.logProbability, top)
