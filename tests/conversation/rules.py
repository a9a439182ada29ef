"""What every provider demands of a conversation, by its own rule: a row a provider, and the laws that read the rows.

Sources: the APIs' own documents. OpenAI "Function calling" and the API reference; Anthropic "Tool use" and "Extended
thinking"; Google "Thought signatures" and `FunctionDeclaration`; Bedrock's service model; Mistral "Function calling";
Ollama docs/api.md; Cohere "Tool use".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from readers import Read, Turn, must

_OPENAI_NAME = r"[a-zA-Z0-9_-]{1,64}"


class Rule(NamedTuple):
    """A provider's rule; `alternates`: the turns are the user's and the assistant's by turns, results in the user's."""

    name: str
    id: str
    alternates: bool = False


RULES: dict[str, Rule] = {
    "openai_chat": Rule(_OPENAI_NAME, r".{1,64}"),
    "openai_chat (Mistral)": Rule(_OPENAI_NAME, r"[a-zA-Z0-9]{9}"),
    "openai_responses": Rule(_OPENAI_NAME, r".{1,64}"),
    "anthropic_messages": Rule(r"[a-zA-Z0-9_-]{1,128}", r"[a-zA-Z0-9_-]+", alternates=True),
    "gemini": Rule(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}", r".+", alternates=True),
    "bedrock_converse": Rule(r"[a-zA-Z0-9_-]{1,64}", r"[a-zA-Z0-9_.:-]{1,64}", alternates=True),
    "bedrock_invoke": Rule(r"[a-zA-Z0-9_-]{1,128}", r"[a-zA-Z0-9_-]+", alternates=True),
    "ollama_chat": Rule(_OPENAI_NAME, r".+"),
    "cohere_chat": Rule(r"[a-zA-Z0-9_]{1,64}|[a-zA-Z0-9_-]{1,64}", r".+"),
}


def check(read: Read, rule: Rule) -> None:
    """Raise `RuleBroken` for what the provider would refuse."""
    _check_names(read, rule)
    _check_roles(read.turns, rule)
    _check_answers(_merged(read.turns), rule)


def _check_names(read: Read, rule: Rule) -> None:
    must(len(set(read.tools)) == len(read.tools), "tools", "no name twice")
    for name in read.tools:
        must(re.fullmatch(rule.name, name), "tools", f"{name!r} is no name by the rule")
    for turn in read.turns:
        for piece in turn.pieces:
            if piece.kind == "call":
                must(piece.name in read.tools, "calls", f"{piece.name!r} is none of the tools")


def _check_roles(turns: list[Turn], rule: Rule) -> None:
    roles = [turn.role for turn in turns]
    must(roles[0] == "user", "turns", "the user speaks first")
    must(roles[-1] != "assistant", "turns", "the user, or a tool, speaks last")
    for before, after in pairwise(roles):
        must(not rule.alternates or before != after, "turns", "the roles alternate")
        must((before, after) != ("assistant", "assistant"), "turns", "an assistant's turn is one message")
        must(after != "tool" or before in {"assistant", "tool"}, "turns", "results follow their calls")


def _merged(turns: list[Turn]) -> list[Turn]:
    """Give the turns with neighbouring results as one."""
    merged: list[Turn] = []
    for turn in turns:
        if merged and turn.role == merged[-1].role == "tool":
            merged[-1].pieces.extend(turn.pieces)
        else:
            merged.append(Turn(turn.role, list(turn.pieces)))
    return merged


def _check_answers(turns: list[Turn], rule: Rule) -> None:
    """Every call has a new id of the allowed form, and exactly one result, right behind its turn."""
    seen: set[str] = set()
    waiting: list[str] = []
    for turn in turns:
        results = [piece.id for piece in turn.pieces if piece.kind == "result"]
        must(sorted(results) == sorted(waiting), "results", f"{waiting} want one each right behind, not {results}")
        waiting = list(_new_ids(turn, rule, seen))
    must(not waiting, "results", f"{waiting} have none")


def _new_ids(turn: Turn, rule: Rule, seen: set[str]) -> Iterator[str]:
    for piece in turn.pieces:
        if piece.kind == "call":
            must(re.fullmatch(rule.id, piece.id), "calls", f"{piece.id!r} is no id by the rule")
            must(piece.id not in seen, "calls", f"the id {piece.id!r} is used twice")
            seen.add(piece.id)
            yield piece.id


# --- signatures ----------------------------------------------------------------------------------

OPAQUE: dict[str, dict[str, str]] = {
    "openai_chat": {
        f"or-signature-{number}+/==": words
        for number, words in ((1, "Two cities, two calls."), (2, "Bergen once more"), (3, "Now both are known."))
    },
    "openai_responses": {
        "gAAAA-encrypted-1_==": "Two cities, two calls.",
        "commentary": "I look at both.",
        "gAAAA-encrypted-2_==": "",
        "gAAAA-encrypted-3_==": "Now both are known.",
        "final_answer": "Oslo has 4 °C",
    },
    "anthropic_messages": {
        "claude-signature-1+/==": "Two cities, two calls.",
        "claude-redacted-2+/==": "",
        "claude-signature-3+/==": "Now both are known.",
    },
    "gemini": {
        "gemini+signature/1==": "get_weather_2",
        "gemini+signature/2==": "get_weather",
        "gemini+signature/3==": "Oslo has 4 °C",
    },
    "bedrock_converse": {
        "converse-signature-1+/==": "Two cities, two calls.",
        "Y29udmVyc2UtcmVkYWN0ZWQtMg==": "",
        "converse-signature-3+/==": "Now both are known.",
    },
    "bedrock_invoke": {
        "invoke-signature-1+/==": "Two cities, two calls.",
        "invoke-redacted-2+/==": "",
        "invoke-signature-3+/==": "Now both are known.",
    },
    "cohere_chat": {
        "Two cities, two calls.": "Two cities, two calls.",
        "Bergen once more, by its airport.": "Bergen once more",
    },
}
"""What only its issuer reads, and how the part begins (its text, or its function's name) on which it must go back."""

SAME_ISSUER = frozenset({"bedrock_converse", "bedrock_invoke"})
"""Two dialects of one provider."""


def is_issuer(target: str, source: str) -> bool:
    return target == source or {target, source} <= SAME_ISSUER


def check_opaque(read: Read, body: bytes, source: str, target: str) -> None:
    """Raise unless what the source issued is on its very part at the issuer, byte for byte, and nowhere elsewhere."""
    values = OPAQUE.get(source, {})
    if not is_issuer(target, source):
        for value in values:
            must(value.encode() not in body, "opaque", f"{value!r} is another provider's")
        return
    held = [
        (opaque, piece.text or piece.name) for turn in read.turns for piece in turn.pieces for opaque in piece.opaque
    ]
    must(len(held) == len(values), "opaque", f"{len(values)} values go back, not {len(held)}")
    for (opaque, place), (value, start) in zip(held, values.items(), strict=True):
        must(opaque == value or f'"signature":"{value}"' in opaque, "opaque", f"{value!r} goes back, not {opaque!r}")
        must(place.startswith(start) and bool(place) == bool(start), "opaque", f"{value!r} stands on {place!r}")
