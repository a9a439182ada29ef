"""What is said of an option of a request that is wrong: what was meant, what is allowed, where it belongs.

Contract: words in, words out; which options there are is for the caller to know.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Literal, get_args, get_origin, get_type_hints

_ELSEWHERE = {
    "model": "name it with its provider, as in connect('openai:gpt-4o')",
    "provider": "name it with its model, as in connect('openai:gpt-4o')",
    **dict.fromkeys(("api_key", "base_url", "middleware", "settings"), "it is one of connect()"),
}
"""What is asked for like an option of a request, and is none."""


def unknown_option(name: str, known: Collection[str]) -> str:
    """Say that there is no such option, and what was meant."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
    return f"unknown option {name!r}: {_ELSEWHERE.get(name, hint)}"


def allowed_values(problem: str, kind: type[object]) -> str:
    """Give what to add to msgspec's words for a problem with a field of this type: what it may be."""
    name = problem.partition("`$.")[2].partition("`")[0]
    if name == "timeouts":
        return ": give Timeouts, as in Timeouts(total_s=30)"
    hint = get_type_hints(kind).get(name)
    words = [word for each in (hint, *get_args(hint)) if get_origin(each) is Literal for word in get_args(each)]
    return f": give {' or '.join(map(repr, words))}" if words else ""
