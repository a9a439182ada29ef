"""Token probabilities on Ollama's wire.

Contract: pure; never raises. The wire gives them for every token that was made, those of thinking included, and
`Logprobs` is of text: what belongs to other things is left out. Servers before 0.12.11 give none.

Source: https://docs.ollama.com/api/chat, `logprobs`; https://github.com/ollama/ollama/releases/tag/v0.12.11.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.dialects.blocks import heal
from loomstream.events import TokenLogprob


class _Likely(Struct, gc=False):
    token: str
    logprob: float


class _Token(_Likely, gc=False):
    top_logprobs: list[_Likely] | None = None


_decoder = msgspec.json.Decoder(list[_Token])


def read_logprobs(raw: RawJSON) -> tuple[TokenLogprob, ...] | None:
    """Give the tokens with their probabilities, None where they are mistyped."""
    try:
        return tuple(_read(token) for token in _decoder.decode(raw))
    except (msgspec.DecodeError, ValueError):
        return None


def _read(token: _Token) -> TokenLogprob:
    top = tuple((heal(likely.token), likely.logprob) for likely in token.top_logprobs or ())
    return TokenLogprob(heal(token.token), token.logprob, top)


def of_text(tokens: tuple[TokenLogprob, ...], text: str) -> tuple[TokenLogprob, ...] | None:
    """Give the last tokens, those that spell the text; None where they do not end in it."""
    spelt, wanted = "", text.strip()
    for number, token in enumerate(reversed(tokens), 1):
        spelt = token.token + spelt
        if len(spelt.strip()) >= len(wanted):
            return tokens[-number:] if spelt.strip() == wanted else None
    return None
