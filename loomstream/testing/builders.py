"""Event builders: lists of events that obey the order law."""

from __future__ import annotations

from loomstream.events import (
    Event,
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)
from loomstream.wire.json import is_object


def text_events(*pieces: str, provider: str = "scripted", model: str = "scripted-model") -> list[Event]:
    """Give the events of an answer of text in the given pieces, with its usage and stop."""
    deltas: list[Event] = [TextDelta(0, piece) for piece in pieces if piece]
    return [
        Start(provider, model),
        TextStart(0),
        *deltas,
        TextEnd(0),
        Usage(input_tokens=1, output_tokens=len(deltas), final=True),
        Stop("end_turn", "stop"),
    ]


def tool_call_events(
    name: str,
    *pieces: str,
    id: str = "call_0",  # noqa: A002 (the field's name)
    provider: str = "scripted",
    model: str = "scripted-model",
) -> list[Event]:
    """Give the events of an answer that calls one tool, with its arguments in the given pieces of JSON text."""
    deltas: list[Event] = [ToolCallDelta(0, piece) for piece in pieces if piece]
    arguments = "".join(pieces)
    arguments = arguments if arguments.strip() else "{}"
    return [
        Start(provider, model),
        ToolCallStart(0, id, name),
        *deltas,
        ToolCallEnd(0, id, name, arguments, executable=is_object(arguments)),
        Usage(input_tokens=1, output_tokens=len(deltas), final=True),
        Stop("tool_use", "tool_calls"),
    ]
