"""The request of a model that has no tools: tools, calls and results in words, and what reads the answer's calls.

Contract: pure. What was called and answered in earlier turns is told in words too. Ids of calls are numbered over the
conversation, so that no two are alike. Where a call is demanded, and the server holds its answer to a schema by a
grammar, nothing else can come. Whether this is needed is for `prompted_tools` to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, groupby

import msgspec

from loomstream.adapt.call_grammar import call_schema
from loomstream.adapt.call_syntaxes import Syntax, syntax_for, written_calls, written_result, written_tools
from loomstream.adapt.called_events import CalledEvents
from loomstream.adapt.plan import Adapted
from loomstream.dialects import Target
from loomstream.dialects.fields import as_list, as_object, as_text
from loomstream.errors import RequestError
from loomstream.messages import ContentBlock, Message, Output, Request, Text, Tool, ToolCall, ToolResult

_GO_ON = "If you need no other tool, answer my question in plain words, with what you have got."
"""Behind results: without it small models repeat the call, or write of what tools are."""
_DEEPEST = 8
"""Schemas that refer to each other are followed no further."""


def told_tools(request: Request, target: Target) -> Adapted:
    """Give the request with tools and calls in words, and the stage that reads the answer's calls.

    Raises `RequestError` where a schema cannot be written as JSON.
    """
    syntax = syntax_for(target.model)
    offered = _offered(request)
    rewritten = msgspec.structs.replace(
        request,
        messages=_messages(request, syntax),
        system=_system(request, syntax, offered),
        output=_output(request, target, syntax, offered),
        tools=(),
        tool_choice=None,
        parallel_tool_calls=None,
    )
    return Adapted(rewritten, _stage(request, offered), tuple(_warnings(request, target, offered)))


def _stage(request: Request, offered: Sequence[Tool]) -> CalledEvents | None:
    if not offered:
        return None
    needs_arguments = {tool.name: bool(as_list(tool.parameters.get("required"))) for tool in offered}
    return CalledEvents(needs_arguments, _ids(request), {tool.name: _texts(tool) for tool in offered})


def _texts(tool: Tool) -> frozenset[str]:
    """Give the parameters whose values may be texts."""
    definitions = as_object(tool.parameters.get("$defs"))
    properties = as_object(tool.parameters.get("properties"))
    return frozenset(name for name, schema in properties.items() if _may_be_text(as_object(schema), definitions))


def _may_be_text(schema: Mapping[str, object], definitions: Mapping[str, object], depth: int = 0) -> bool:
    kinds = as_list(schema.get("type")) or [schema.get("type")]
    values = [*as_list(schema.get("enum")), schema.get("const")]
    if "string" in kinds or any(isinstance(value, str) for value in values):
        return True
    named = definitions.get(as_text(schema.get("$ref")).removeprefix("#/$defs/"))
    choices = [*as_list(schema.get("anyOf")), *as_list(schema.get("oneOf")), named]
    inner = (as_object(choice) for choice in choices)
    return depth < _DEEPEST and any(_may_be_text(each, definitions, depth + 1) for each in inner)


def _mode(request: Request) -> str:
    return "auto" if request.tool_choice is None else request.tool_choice.mode


def _offered(request: Request) -> tuple[Tool, ...]:
    return () if _mode(request) == "none" else request.tools


def _demanded(request: Request, offered: Sequence[Tool]) -> list[Tool]:
    """Give the tools of which one must be called."""
    mode, choice = _mode(request), request.tool_choice
    if mode == "any":
        return list(offered)
    return [tool for tool in offered if mode == "tool" and choice is not None and tool.name == choice.name]


def _ids(request: Request) -> Iterator[str]:
    used = {block.id for message in request.messages for block in message.content if isinstance(block, ToolCall)}
    return (name for name in (f"call_{number}" for number in count(len(used))) if name not in used)


def _warnings(request: Request, target: Target, offered: Sequence[Tool]) -> Iterator[str]:
    asked_for = request.tool_mode == "prompt" and request.unsupported == "error"
    if not asked_for:  # a policy against what cannot be honoured: but this is what was asked for
        why = "" if request.tool_mode == "prompt" else f": {target.model} has no tool calls of its own"
        yield f"tools are described in the prompt, and calls are read from the answer's text{why}"
    if _demanded(request, offered) and not target.quirks.output_grammar:
        yield "tool_choice is said in words: nothing makes this model call a tool"
    if offered and request.output is not None:
        yield "output is said in words: the provider's own mode would keep the model from calling tools"
    if offered and request.parallel_tool_calls is False:
        yield "parallel_tool_calls is said in words: this model may call several tools all the same"


def _output(request: Request, target: Target, syntax: Syntax, offered: Sequence[Tool]) -> Output | None:
    demanded = _demanded(request, offered)
    if demanded and target.quirks.output_grammar:
        return Output(schema=call_schema(demanded, syntax.arguments), name="tool_call")
    return None if offered else request.output


# --- the conversation in words -------------------------------------------------------------------


def _system(request: Request, syntax: Syntax, offered: Sequence[Tool]) -> str:
    if not offered:
        return request.system
    told = [written_tools(syntax, offered, request.tool_choice, parallel=request.parallel_tool_calls)]
    if request.system:
        told.insert(0, request.system)
    if request.output is not None:
        told.append(f"An answer that calls no tool must be JSON of this schema alone: {_json(request.output.schema)}")
    return "\n\n".join(told)


def _json(schema: Mapping[str, object]) -> str:
    try:
        return msgspec.json.encode(schema).decode()
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"a schema cannot be written as JSON: {error}"
        raise RequestError(msg) from error


def _messages(request: Request, syntax: Syntax) -> tuple[Message, ...]:
    """Give the turns, calls and results as text; results and what the user says beside them are one turn.

    Many models refuse two turns of the user in a row.
    """
    turns: list[list[Message]] = []
    calls = _Calls()
    answered = False
    for message in request.messages:
        calls.add(message)
        answered, before = any(isinstance(block, ToolResult) for block in message.content), answered
        told = _told(message, syntax, calls)
        if turns and turns[-1][0].role == told.role == "user" and (answered or before):
            turns[-1].append(told)
        else:
            turns.append([told])
        answered = answered or (before and told.role == "user")
    return tuple(map(_merged, turns))


def _merged(turns: Sequence[Message]) -> Message:
    if len(turns) == 1:
        return turns[0]
    return Message(turns[0].role, _joined([block for turn in turns for block in turn.content]))


class _Calls:
    """The calls of a conversation up to a turn, by id, and how many there are of each tool."""

    def __init__(self) -> None:
        self.by_id: dict[str, ToolCall] = {}
        self.of_tool: Counter[str] = Counter()

    def add(self, message: Message) -> None:
        """Take the calls of a message; one of an id that was there takes its place."""
        for block in message.content:
            if isinstance(block, ToolCall):
                before = self.by_id.get(block.id)
                if before is not None:
                    self.of_tool[before.name] -= 1
                self.by_id[block.id] = block
                self.of_tool[block.name] += 1


def _told(message: Message, syntax: Syntax, calls: _Calls) -> Message:
    if message.role == "assistant":
        return Message("assistant", tuple(_said(message.content, syntax)))
    if not any(isinstance(block, ToolResult) for block in message.content):
        return message if message.role != "tool" else Message("user", message.content)
    parts = [part for block in message.content for part in _answered(block, syntax, calls)]
    only_results = all(isinstance(block, ToolResult) for block in message.content)
    return Message("user", _joined([*parts, Text(_GO_ON)] if only_results else parts))


def _said(content: Iterable[ContentBlock], syntax: Syntax) -> Iterator[ContentBlock]:
    """Give an assistant's turn with each run of calls as one text."""
    spoke = False
    for is_call, run in groupby(content, lambda block: isinstance(block, ToolCall)):
        blocks = list(run)
        if not is_call:
            spoke = spoke or any(isinstance(block, Text) for block in blocks)
            yield from blocks
            continue
        written = written_calls(syntax, [block for block in blocks if isinstance(block, ToolCall)])
        yield Text(f"\n{written}" if spoke else written)
        spoke = True


def _answered(block: ContentBlock, syntax: Syntax, calls: _Calls) -> Iterator[ContentBlock]:
    if not isinstance(block, ToolResult):
        yield block
        return
    call = calls.by_id.get(block.tool_call_id)
    name = block.name or (call.name if call is not None else block.tool_call_id)
    several = call is not None and calls.of_tool[name] > 1
    which = f"{name} {call.arguments}" if several and call is not None else name
    words = "".join(part.text for part in block.content if isinstance(part, Text))
    verb = "failed" if block.is_error else "gave this result"
    attached = [part for part in block.content if not isinstance(part, Text)]
    kinds = " and ".join(dict.fromkeys(type(part).__name__.lower() for part in attached))
    shown = words or (f"the {kinds} below" if attached else "nothing")
    yield Text(written_result(syntax, f"{which} {verb}: {shown}"))
    yield from attached


def _joined(content: Sequence[ContentBlock]) -> tuple[ContentBlock, ...]:
    """Give the blocks with an empty line between two texts: some wires join texts without any."""
    joined: list[ContentBlock] = []
    for is_text, run in groupby(content, lambda block: isinstance(block, Text)):
        blocks = list(run)
        texts = [block.text for block in blocks if isinstance(block, Text)]
        joined += [Text("\n\n".join(texts))] if is_text and len(texts) > 1 else blocks
    return tuple(joined)
