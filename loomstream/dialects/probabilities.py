"""Token probabilities as OpenAI's wires tell them, and the hosts that follow them: entries to values.

Contract: pure; never raises. An entry without a token or a number is left out and counted, so that the caller can say
so. Knows no frame.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NamedTuple

from loomstream.dialects.blocks import heal
from loomstream.dialects.fields import as_list, as_object
from loomstream.events import TokenLogprob


class Probabilities(NamedTuple):
    """The readable tokens of a list, and whether there were others."""

    tokens: tuple[TokenLogprob, ...] = ()
    unreadable: bool = False


def read_entries(entries: object) -> Probabilities:
    """Give the tokens of a list of `{token, logprob, top_logprobs: [{token, logprob}]}`."""
    found = [token_of(entry) for entry in as_list(entries)]
    tokens = tuple(token for token in found if token is not None)
    return Probabilities(tokens, len(tokens) < len(found))


def token_of(entry: object) -> TokenLogprob | None:
    """Give the token of one entry, None where it has none, or no number."""
    item = as_object(entry)
    pair = _pair(item.get("token"), item.get("logprob"))
    return pair and TokenLogprob(*pair, alternatives(item.get("top_logprobs")))


def alternatives(top: object) -> tuple[tuple[str, float], ...]:
    """Give the tokens in a token's place: a list of entries, or (Together) an object of token to number."""
    pairs: Iterable[tuple[object, object]] = as_object(top).items() or (
        (item.get("token"), item.get("logprob")) for item in map(as_object, as_list(top))
    )
    return tuple(pair for token, logprob in pairs if (pair := _pair(token, logprob)))


def _pair(token: object, logprob: object) -> tuple[str, float] | None:
    number = finite(logprob)
    return (heal(token), number) if isinstance(token, str) and number is not None else None


def finite(value: object) -> float | None:
    """Give a number that JSON can hold, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)
