"""How calls of tools stand in text: the markers of each syntax, as data.

Contract: values only. Each pattern `partial` matches every beginning of what its patterns `head` or `again` and `close`
match, so that text is held back only while it may still become one of them.

Sources: the chat templates of the models. Hermes and Qwen: https://huggingface.co/NousResearch/Hermes-3-Llama-3.1-8B,
https://huggingface.co/Qwen/Qwen2.5-7B-Instruct; Qwen3-Coder's tags:
https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct; Llama: https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/;
Mistral: https://github.com/mistralai/mistral-common.
"""

from __future__ import annotations

import re
from typing import NamedTuple


def beginnings(*texts: str) -> str:
    """Give a pattern for every beginning of the texts, whole ones and the empty one included."""
    return "(?:" + "|".join(_beginning(text) for text in texts) + ")?"


def _beginning(text: str) -> str:
    pattern = ""
    for char in reversed(text):
        pattern = re.escape(char) + (f"(?:{pattern})?" if pattern else "")
    return pattern


class Head(NamedTuple):
    """What may stand between a marker and the arguments' bracket.

    A group `name` is the tool's name, `python` the bracket of a call in Python, `tag` the end of an opening tag.
    """

    whole: re.Pattern[str]
    partial: re.Pattern[str]


class Marker(NamedTuple):
    """A syntax: how a call opens, what may stand behind it, and whether the marker alone shows that it is a call.

    `close` ends the syntax and belongs to no text, `again` stands before another call.
    """

    text: str
    heads: tuple[Head, ...]
    close: re.Pattern[str] | None
    again: re.Pattern[str] | None
    after: re.Pattern[str]
    """Every beginning of `close` and `again`."""
    closer: str = ""
    """What ends a call whose arguments are no JSON."""
    explicit: bool = True


_OBJECT = Head(re.compile(r"\s*(?:\[\s*)?(?=\{)"), re.compile(r"\s*(?:\[\s*)?"))
_NAMED = Head(
    re.compile(r"\s*(?P<name>[\w.-]{1,128})\s*(?:\[CALL_ID\][\w\s-]{0,64})?(?:\[ARGS\]\s*)?(?=\{)"),
    re.compile(
        r"\s*[\w.-]{0,128}\s*"
        rf"(?:{beginnings('[CALL_ID]')}|\[CALL_ID\][\w\s-]{{0,64}}{beginnings('[ARGS]')}|{beginnings('[ARGS]')}|\[ARGS\]\s*)"
    ),
)
_PYTHON = Head(
    re.compile(r"\s*(?P<name>[A-Za-z_][\w.-]{0,127}?)(?P<python>\.call\s*\(|\s*\()"),
    re.compile(r"\s*(?:[A-Za-z_][\w.-]{0,132}\s*)?"),
)
_LANGUAGES = ("json", "JSON", "tool_call", "tool_calls", "tool_code", "tool")
_FENCED = Head(
    re.compile(rf"(?:{'|'.join(_LANGUAGES)})?[ \t]*\r?\n\s*(?:\[\s*)?(?=\{{)"),
    re.compile(
        rf"{beginnings(*_LANGUAGES)}|(?:{'|'.join(_LANGUAGES)})?[ \t]*\r?(?:\n\s*(?:\[\s*)?)?",
    ),
)
_NAME_OF_TAG = r"[\w.-]{1,128}"
_TAGGED = Head(
    re.compile(rf"\s*<function=(?P<name>{_NAME_OF_TAG})(?P<tag>>)"),
    re.compile(rf"\s*(?:{beginnings('<function=')}|<function={_NAME_OF_TAG})"),
)
_NAME_IN_TAG = Head(re.compile(rf"(?P<name>{_NAME_OF_TAG})(?P<tag>>)"), re.compile(rf"(?:{_NAME_OF_TAG})?"))
_END_OF_TURN = ("<|eom_id|>", "<|eot_id|>")

HERMES = Marker(
    text="<tool_call>",
    heads=(_OBJECT, _TAGGED),
    close=re.compile(r"[\s\]},]*</tool_call>"),
    again=re.compile(r"[\s,]*(?=\{)"),
    after=re.compile(rf"[\s\]}},]*{beginnings('</tool_call>')}"),
    closer="</tool_call>",
)
LLAMA = Marker(
    text="<|python_tag|>",
    heads=(_OBJECT, _PYTHON),
    close=re.compile(rf"[\s;\]]*(?:{'|'.join(map(re.escape, _END_OF_TURN))})"),
    again=re.compile(r"[\s;,]*(?=\{)"),
    after=re.compile(rf"[\s;,\]]*{beginnings(*_END_OF_TURN)}"),
)
MISTRAL = Marker(
    text="[TOOL_CALLS]",
    heads=(_OBJECT, _NAMED),
    close=re.compile(r"\s*\]"),
    again=re.compile(r"\s*,\s*(?=\{)"),
    after=re.compile(r"\s*(?:,\s*)?"),
)
TAGGED = Marker(
    text="<function=",
    heads=(_NAME_IN_TAG,),
    close=re.compile(r"\s*</tool_call>"),
    again=None,
    after=re.compile(rf"\s*{beginnings('</tool_call>')}"),
    closer="</function>",
    explicit=False,
)
FENCE = Marker(
    text="```",
    heads=(_FENCED,),
    close=re.compile(r"[\s\]},]*```"),
    again=re.compile(r"[\s,]*(?=\{)"),
    after=re.compile(rf"[\s\]}},]*{beginnings('```')}"),
    closer="```",
    explicit=False,
)
BARE = Marker(
    text="",
    heads=(_OBJECT,),
    close=re.compile(r"\s*\]"),
    again=re.compile(r"[\s;,]*(?=\{)"),
    after=re.compile(r"[\s;,]*"),
    explicit=False,
)

MARKERS = {marker.text: marker for marker in (HERMES, LLAMA, MISTRAL, TAGGED, FENCE)}
"""The syntaxes that a marker opens; `BARE` opens at the beginning of an answer."""

ANY_MARKER = re.compile("|".join(map(re.escape, MARKERS)))
BEGINNING_OF_ONE = re.compile(rf"(?=[<\[`]){beginnings(*MARKERS)}\Z")
LONGEST = max(map(len, MARKERS))
