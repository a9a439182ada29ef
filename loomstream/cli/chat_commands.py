"""What begins with a slash in a chat: one function a command, and the table that names them.

Contract: a command does its work on the session and gives what is to be said about it. What goes wrong comes out as a
`LoomstreamError`. Knows no terminal.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loomstream.cli import chat_store
from loomstream.cli.answer import money_of, tokens_of
from loomstream.cli.chat_session import Session
from loomstream.errors import UsageError
from loomstream.files import attachment
from loomstream.messages import Message, ToolCall, ToolResult


class Said(NamedTuple):
    """What a command has to say; `again` is a turn to be asked once more, `ends` that the chat is over."""

    lines: tuple[str, ...] = ()
    again: Message | None = None
    ends: bool = False


class Command(NamedTuple):
    """A command: what is typed, what it does, the function of the session and of what stands behind its name."""

    usage: str
    help: str
    run: Callable[[Session, str], Said]


def run_command(session: Session, line: str) -> Said:
    """Do what a line says that begins with a slash. Raises `UsageError` for an unknown command, and what it raises."""
    name, _, rest = line[1:].strip().partition(" ")
    command = COMMANDS.get(_SHORT.get(name, name))
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean /{near[0]}?" if near else "/help lists what there is; // begins a line with a slash"
        msg = f"there is no command /{name}: {hint}"
        raise UsageError(msg)
    return command.run(session, rest.strip())


def _help(session: Session, rest: str) -> Said:
    del session, rest
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [f"{command.usage:<{width}}  {command.help}" for command in COMMANDS.values()]
    keys = "A line that ends in \\ goes on. Ctrl-C stops an answer, Ctrl-D ends the chat."
    return Said((*lines, keys))


def _model(session: Session, rest: str) -> Said:
    if rest:
        session.switch(rest)
    return Said((f"{session.model.provider}:{session.model.model} answers",))


def _system(session: Session, rest: str) -> Said:
    if rest:
        session.conversation.system = "" if rest == "-" else rest
    system = session.conversation.system
    return Said((f"system prompt: {system}" if system else "there is no system prompt",))


def _attach(session: Session, rest: str) -> Said:
    if rest:
        session.conversation.attached.append(attachment(str(Path(rest).expanduser()) if "://" not in rest else rest))
    kinds = [f"{type(block).__name__.lower()} ({block.media_type})" for block in session.conversation.attached]
    return Said((f"goes with your next message: {', '.join(kinds)}" if kinds else "nothing is attached",))


def _tools(session: Session, rest: str) -> Said:
    del rest
    names = session.tool_names
    return Said((f"tools: {', '.join(names)}" if names else "there are no tools: --tools FILE.py gives some",))


def _undo(session: Session, rest: str) -> Said:
    del rest
    said = session.conversation.undo()
    return Said((f"taken back: {_shown(said)}",))


def _retry(session: Session, rest: str) -> Said:
    del rest
    return Said(again=session.conversation.undo())


def _usage(session: Session, rest: str) -> Said:
    del rest
    tally, unpriced = session.conversation.tally, session.conversation.unpriced
    if not unpriced:
        return Said((f"{tokens_of(tally.usage)} · {money_of(tally.cost)}",))
    known = f"{money_of(tally.cost)} and " if tally.cost.amount_usd else ""
    return Said((f"{tokens_of(tally.usage)} · {known}{unpriced} answer{'s' * (unpriced != 1)} of unknown cost",))


def _history(session: Session, rest: str) -> Said:
    del rest
    lines = [f"{message.role}: {_shown(message)}" for message in session.conversation.messages]
    return Said(tuple(lines) or ("nothing was said yet",))


def _save(session: Session, rest: str) -> Said:
    path = _path(rest, "/save FILE")
    if path.exists() and path not in session.files:
        msg = f"{path} exists already: choose another name"
        raise UsageError(msg)
    chat_store.write(path, session.conversation.encode())
    session.files.add(path)
    return Said((f"saved to {path}",))


def _load(session: Session, rest: str) -> Said:
    path = _path(rest, "/load FILE")
    session.conversation.load(chat_store.read(path))
    session.files.add(path)
    return Said((f"{len(session.conversation.messages)} messages from {path}",))


def _path(rest: str, usage: str) -> Path:
    if not rest:
        msg = f"which file? {usage}"
        raise UsageError(msg)
    return Path(rest).expanduser()


def _reasoning(session: Session, rest: str) -> Said:
    del rest
    thought = session.reasoning.strip()
    return Said(tuple(thought.splitlines()) or ("the last answer came without reasoning",))


def _clear(session: Session, rest: str) -> Said:
    del rest
    session.conversation.clear()
    return Said(("a new conversation; what was used still counts",))


def _quit(session: Session, rest: str) -> Said:
    del session, rest
    return Said(ends=True)


def _shown(message: Message) -> str:
    """Give a message in a few words."""
    kinds: list[str] = []
    for block in message.content:
        match block:
            case ToolCall(name=name):
                kinds.append(f"[call of {name}]")
            case ToolResult(name=name):
                kinds.append(f"[result of {name}]")
            case _ if not hasattr(block, "text"):
                kinds.append(f"[{type(block).__name__.lower()}]")
            case _:
                pass
    words = " ".join((*kinds, *message.text.split()))
    return words if len(words) <= _MOST_SHOWN else words[:_MOST_SHOWN] + "…"


_MOST_SHOWN = 100
_SHORT = {"exit": "quit", "q": "quit", "?": "help"}
COMMANDS: dict[str, Command] = {
    "help": Command("/help", "this list", _help),
    "model": Command("/model [PROVIDER:MODEL]", "say who answers, or go on with another model", _model),
    "system": Command("/system [TEXT]", "show or set the system prompt; - takes it away", _system),
    "attach": Command("/attach [FILE]", "send an image, PDF, sound or text with the next message", _attach),
    "tools": Command("/tools", "list the tools", _tools),
    "undo": Command("/undo", "take back your last message and what came of it", _undo),
    "retry": Command("/retry", "ask your last message again", _retry),
    "usage": Command("/usage", "tokens and cost so far", _usage),
    "history": Command("/history", "the conversation in short", _history),
    "reasoning": Command("/reasoning", "what the model thought before its last answer", _reasoning),
    "save": Command("/save FILE", "write the conversation to a file", _save),
    "load": Command("/load FILE", "go on with a conversation from a file", _load),
    "clear": Command("/clear", "begin a new conversation", _clear),
    "quit": Command("/quit", "end", _quit),
}
"""The commands by name, in the order in which `/help` lists them."""
