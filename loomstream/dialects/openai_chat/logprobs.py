"""Token probabilities of one choice, in the shapes that hosts send.

Contract: pure; never raises. Shapes: `{content: [entry, …]}` (OpenAI, with null or other lists where there are none of
the content's); `{tokens, token_logprobs, top_logprobs}` for a whole answer and a number for a chunk (Together).
"""

from __future__ import annotations

from itertools import zip_longest

from loomstream.dialects.fields import JSONObject, as_list, as_object
from loomstream.dialects.openai_chat.wire import Choice
from loomstream.dialects.probabilities import Probabilities, alternatives, finite, read_entries
from loomstream.events import TokenLogprob
from loomstream.wire.json import loads


def read_logprobs(choice: Choice, text: str) -> Probabilities:
    """Give the probabilities that a chunk of this text, or a whole answer, tells."""
    told = loads(choice.logprobs)
    number = finite(told)
    if number is not None:
        return _of_a_token(text, number, loads(choice.top_logprobs))
    item = as_object(told)
    return _of_columns(item) if "tokens" in item else read_entries(item.get("content"))


def _of_a_token(text: str, logprob: float, top: object) -> Probabilities:
    return Probabilities((TokenLogprob(text, logprob, alternatives(top)),) if text else ())


def _of_columns(item: JSONObject) -> Probabilities:
    columns = (as_list(item.get(name)) for name in ("tokens", "token_logprobs", "top_logprobs"))
    rows = [
        {"token": token, "logprob": logprob, "top_logprobs": top}
        for token, logprob, top in zip_longest(*columns)
        if token is not None
    ]
    return read_entries(rows)
