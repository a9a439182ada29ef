"""The request of a model that has no tools: tools, calls and results in words, and what reads the answer's calls.

Contract: pure. What was called and answered in earlier turns is told in words too. Ids of calls are numbered over the
conversation, so that no two are alike. Where a call is demanded, and the server holds its answer to a schema by a
grammar, nothing else can come. Whether this is needed is for `prompted_tools` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, groupby

import msgspec

from loomstream.adapt.call_grammar import call_schema
from loomstream.adapt.call_syntaxes import Syntax, syntax_for, written_calls, written_result, written_tools
from loomstream.adapt.called_events import CalledEvents
from loomstream.adapt.plan import Adapted
from loomstream.dialects import Target
from loomstream.dialects.fields import as_list
from loomstream.errors import RequestError
from loomstream.messages import ContentBlock, Message, Output, Request, Text, Tool, ToolCall, ToolResult

_GO_ON = "If you need no other tool, answer my question in plain words, with what you have got."
"""Behind results: without it small models repeat the call, or write of what tools are."""


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
    stage = CalledEvents({tool.name: _needs_arguments(tool) for tool in offered}, _ids(request)) if offered else None
    return Adapted(rewritten, stage, tuple(_warnings(request, target, offered)))


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


def _needs_arguments(tool: Tool) -> bool:
    return bool(as_list(tool.parameters.get("required")))


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
    turns: list[Message] = []
    calls: dict[str, ToolCall] = {}
    answered = False
    for message in request.messages:
        calls |= {block.id: block for block in message.content if isinstance(block, ToolCall)}
        answered, before = any(isinstance(block, ToolResult) for block in message.content), answered
        told = _told(message, syntax, calls)
        if turns and turns[-1].role == told.role == "user" and (answered or before):
            turns[-1] = Message("user", _joined((*turns[-1].content, *told.content)))
        else:
            turns.append(told)
        answered = answered or (before and told.role == "user")
    return tuple(turns)


def _told(message: Message, syntax: Syntax, calls: Mapping[str, ToolCall]) -> Message:
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


def _answered(block: ContentBlock, syntax: Syntax, calls: Mapping[str, ToolCall]) -> Iterator[ContentBlock]:
    if not isinstance(block, ToolResult):
        yield block
        return
    call = calls.get(block.tool_call_id)
    name = block.name or (call.name if call is not None else block.tool_call_id)
    several = call is not None and sum(other.name == name for other in calls.values()) > 1
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
    for block in content:
        if joined and isinstance(block, Text) and isinstance(joined[-1], Text):
            joined[-1] = Text(f"{joined[-1].text}\n\n{block.text}")
        else:
            joined.append(block)
    return tuple(joined)
