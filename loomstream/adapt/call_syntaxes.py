"""How a model is told of tools, by the syntax that it was trained on: data, and text made of it.

Contract: pure. `syntax_for` chooses by the name of the model; what any syntax writes, `call_extractor` reads.
Knows no provider and no events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from loomstream.dialects.bodies import arguments_of
from loomstream.dialects.fields import JSONObject
from loomstream.errors import RequestError
from loomstream.messages import Tool, ToolCall, ToolChoice


class Syntax(NamedTuple):
    """A way of writing calls.

    `models` matches the names of models that were trained on it, `arguments` is the key of the arguments, `before`,
    `between` and `after` stand around the calls of a turn, `tools` around the list of tools, `results` around a result.
    """

    name: str
    models: re.Pattern[str]
    arguments: str
    before: str
    between: str
    after: str
    tools: tuple[str, str] = ("", "")
    results: tuple[str, str] = ("", "")


SYNTAXES = (
    Syntax(
        name="bracketed",
        models=re.compile(r"mistral|mixtral|ministral|magistral|devstral|codestral|pixtral", re.IGNORECASE),
        arguments="arguments",
        before="[TOOL_CALLS] [",
        between=", ",
        after="]",
    ),
    Syntax(
        name="hermes",
        models=re.compile(r"hermes|qwen|qwq|smollm|smolvlm", re.IGNORECASE),
        arguments="arguments",
        before="<tool_call>\n",
        between="\n</tool_call>\n<tool_call>\n",
        after="\n</tool_call>",
        tools=("<tools>\n", "\n</tools>"),
        results=("<tool_response>\n", "\n</tool_response>"),
    ),
    Syntax(
        name="llama",
        models=re.compile(r"llama[-_ ]?(?:3[.\-_][1-9](?![0-9]*b)|4)", re.IGNORECASE),
        arguments="parameters",
        before="",
        between="; ",
        after="",
    ),
    Syntax(
        name="fenced",
        models=re.compile(""),
        arguments="arguments",
        before="```json\n",
        between="\n```\n```json\n",
        after="\n```",
    ),
)
"""The first one whose pattern is found in a model's name is its syntax; the last one is for all others."""


def syntax_for(model: str) -> Syntax:
    """Give the syntax that a model of this name was most likely trained on."""
    return next(syntax for syntax in SYNTAXES if syntax.models.search(model))


def written_calls(syntax: Syntax, calls: Sequence[ToolCall]) -> str:
    """Give the calls of a turn as the model would write them."""
    written = (_call(syntax, call.name, arguments_of(call.arguments) or call.arguments) for call in calls)
    return syntax.before + syntax.between.join(written) + syntax.after


def written_tools(syntax: Syntax, tools: Iterable[Tool], choice: ToolChoice | None, *, parallel: bool | None) -> str:
    """Give the part of the system prompt that describes the tools and says how they are called."""
    before, after = syntax.tools
    listed = before + "\n".join(_listed(tool) for tool in tools) + after
    example = syntax.before + _call(syntax, "TOOL", msgspec.Raw(b'{"KEY": "VALUE"}')) + syntax.after
    how = f"To call a tool, write only this, with its name and values in place of the capitals:\n{example}"
    said = [f"You can use these tools, one JSON object a line:\n{listed}", how, _choice_words(choice)]
    if parallel is False:
        said.append("Call one tool at most, and wait for its result.")
    said.append("The results come in the next message. Use them to answer in plain words.")
    return "\n\n".join(said)


def written_result(syntax: Syntax, words: str) -> str:
    """Give the words of a tool's result as this syntax shows them."""
    before, after = syntax.results
    return before + words + after


def _choice_words(choice: ToolChoice | None) -> str:
    mode = "auto" if choice is None else choice.mode
    return _CHOICES[mode].format(name="" if choice is None else choice.name)


_CHOICES = {
    "auto": "Call a tool only if it helps. Otherwise answer in plain words.",
    "any": "You must call a tool now. Write nothing else.",
    "tool": "You must call the tool {name} now. Write nothing else.",
    "none": "Do not call a tool now: answer in plain words.",
}


def _call(syntax: Syntax, name: str, arguments: object) -> str:
    return _json({"name": name, syntax.arguments: arguments})


def _listed(tool: Tool) -> str:
    described: JSONObject = {"name": tool.name}
    if tool.description:
        described["description"] = tool.description
    return _json({**described, "parameters": tool.parameters})


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"a tool's parameters cannot be written as JSON ({error}): use plain values"
        raise RequestError(msg) from error
