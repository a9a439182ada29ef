"""Answers of a schema where the provider has no mode for them: by a tool that must be called, or in words.

Contract: see `loomstream.adapt`. Either way the answer's text is the JSON: a call of the tool comes back as text, and
of text that is asked for in words, code fences go. What else stands beside the JSON becomes a `warning` notice with all
of it, so that nothing is lost; where there is no JSON at all, or before a call of the user's own tools, text stays
text. What the model wrote is judged by nobody here: whether it fits is for `loomstream.tools.outputs` to say.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from loomstream.adapt.plan import Adapted
from loomstream.dialects import Target
from loomstream.errors import RequestError, Unsupported
from loomstream.events import (
    Event,
    Notice,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from loomstream.messages import Output, Request, Tool, ToolChoice

_WARNINGS = {
    "tool": "output: the schema is not enforced by the provider: the model is made to call a tool of that form",
    "prompt": "output: the schema is not enforced by the provider: the model is asked for JSON in words",
}
"""What `Start.warnings` says where the mode was chosen here (`output_mode="auto"`)."""

_BY_CALL = "Give your final answer by calling the tool {name}, and write no other text."
_IN_WORDS = (
    "Your final answer must be one JSON value that fits the JSON Schema below, and nothing else: "
    "no words before or after it, no code fence.\n"
)
_OPENINGS = {"object": ("{", '"}'), "array": ("[", '[{"]-0123456789tfn')}
"""How JSON of a type begins, and what follows that behind white space: prose in braces has a letter there."""
_NO_OPENING = ("", "")

_FENCE = re.compile(r"```\w*")
_OUTSIDE = re.compile(r'["{}\[\]]')
_NO_SPACE = re.compile(r"\S")
_INSIDE = re.compile(r'["\\]')


def output(request: Request, target: Target) -> Adapted | None:
    """Give the request for JSON as the model can be asked for it, None where the dialect does that.

    Raises `Unsupported` for a tool of a schema that is no object's, where that mode is demanded.
    """
    wanted = request.output
    if wanted is None:
        return None
    mode = target.quirks.output_by if request.output_mode == "auto" else request.output_mode
    if mode == "tool" and wanted.schema.get("type") != "object":
        if request.output_mode == "tool":
            msg = "output.schema is not of an object, and a tool's arguments are one: wrap it, or use another mode"
            raise Unsupported(msg)
        mode = "prompt"
    if mode == "native":
        return None
    plain = msgspec.structs.replace(request, output=None, output_mode="auto")
    name = _free_name(request, wanted.name) if mode == "tool" else ""
    asked = _by_tool(plain, wanted, name) if name else _with_system(plain, _IN_WORDS + _described(wanted))
    warnings = (_WARNINGS[mode],) if request.output_mode == "auto" else ()
    return Adapted(asked, _Back(name, str(wanted.schema.get("type"))), warnings)


def _free_name(request: Request, name: str) -> str:
    taken = {tool.name for tool in request.tools}
    found, number = name, 2
    while found in taken:
        found = f"{name}_{number}"
        number += 1
    return found


def _by_tool(request: Request, wanted: Output, name: str) -> Request:
    words = " ".join(filter(None, (wanted.description, "Call this to give your final answer.")))
    tools = (*request.tools, Tool(name, words, wanted.schema))
    choice = _choice(request, name)
    asked = msgspec.structs.replace(request, tools=tools, tool_choice=choice)
    return _with_system(asked, _BY_CALL.format(name=name)) if choice.mode == "auto" else asked


def _choice(request: Request, name: str) -> ToolChoice:
    """Say which tools the model must call: beside the user's own, any one.

    A model that was asked to reason refuses to be forced (Anthropic: extended thinking takes `auto` and `none` alone).
    """
    own = request.tool_choice
    if own is not None and own.mode == "tool":
        return own
    if request.reasoning_budget_tokens or request.reasoning_effort not in {None, "none"}:
        return ToolChoice("auto")
    alone = not request.tools or (own is not None and own.mode == "none")
    return ToolChoice("tool", name) if alone else ToolChoice("any")


def _with_system(request: Request, words: str) -> Request:
    return msgspec.structs.replace(request, system=f"{request.system}\n\n{words}" if request.system else words)


def _described(wanted: Output) -> str:
    try:
        schema = msgspec.json.encode(wanted.schema).decode()
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"output.schema is no JSON: {error}"
        raise RequestError(msg) from error
    words = f" ({wanted.description})" if wanted.description else ""
    return f"Schema of {wanted.name}{words}: {schema}"


# --- reading the answer back ---------------------------------------------------------------------


class _Back:
    """Makes the JSON the answer's text. `name` is the tool's that brings it, empty where text does."""

    def __init__(self, name: str, kind: str) -> None:
        self._name = name
        self._kind = kind
        self._calls: dict[int, bool] = {}
        """Open calls of that tool, and whether any arguments have come: white space alone stands for none."""
        self._texts: dict[int, _Text] = {}
        """The blocks of text that are open, or closed without JSON while some may follow."""
        self._answered: set[int] = set()
        """The choices that have their JSON."""
        self._calling = False

    def feed(self, event: Event) -> list[Event]:
        made: list[Event] = [event]
        match event:
            case ToolCallStart():
                made = self._call(event)
            case ToolCallDelta(index=index, arguments=arguments) if index in self._calls:
                self._calls[index] |= bool(arguments.strip())
                made = [TextDelta(index, arguments)]
            case ToolCallEnd(index=index, arguments=arguments) if index in self._calls:
                said = self._calls.pop(index)
                made = [TextEnd(index)] if said else [TextDelta(index, arguments), TextEnd(index)]
            case TextStart(index=index, choice=choice):
                self._texts[index] = _Text(index, choice, self._kind, answered=choice in self._answered)
            case TextDelta(index=index, text=text) if index in self._texts:
                made = self._text(self._texts[index], text)
            case TextEnd(index=index) if index in self._texts:
                made = self._end(self._texts[index])
            case Stop(reason=reason):
                by_call = reason == "tool_use" and 0 in self._answered and not self._calling
                made = [*self.flush(), Stop("end_turn", event.raw) if by_call else event]
            case _:
                pass
        return made

    def flush(self) -> list[Event]:
        return [event for text in list(self._texts.values()) for event in self._released(text)]

    def _call(self, call: ToolCallStart) -> list[Event]:
        if call.name != self._name or call.choice in self._answered:
            self._calling = self._calling or call.choice == 0
            return [*self._released_of(call.choice), call]
        self._calls[call.index] = False
        return [*self._begun(call.choice), TextStart(call.index, call.choice)]

    def _text(self, text: _Text, piece: str) -> list[Event]:
        before: list[Event] = []
        if text.state == "seeking":
            piece = text.sought(piece)
            before = self._begun(text.choice) if piece else []
        json = text.feed(piece)
        return [*before, TextDelta(text.index, json)] if json else before

    def _end(self, text: _Text) -> list[Event]:
        text.open = False
        if text.state == "seeking":
            return []  # whether it is the answer shows by what follows
        return self._released(text)

    def _begun(self, choice: int) -> list[Event]:
        """Note that the JSON has begun: the text so far stood beside it."""
        self._answered.add(choice)
        return self._released_of(choice, beside=True)

    def _released_of(self, choice: int, *, beside: bool = False) -> list[Event]:
        texts = [text for text in self._texts.values() if text.choice == choice and text.state != "behind"]
        return [event for text in texts for event in self._released(text, beside=beside)]

    def _released(self, text: _Text, *, beside: bool = False) -> list[Event]:
        """Give what a block held back: as text, or beside the JSON as a notice; and its end, if that has come."""
        held = text.release()
        events: list[Event] = []
        if held and not beside and text.state == "seeking":
            events.append(TextDelta(text.index, held))
        elif words := _FENCE.sub("", held).strip():
            events.append(Notice("warning", f"beside the JSON of the answer stood: {words}"))
        if beside and text.state == "seeking":
            text.state = "behind"
        if not text.open:
            del self._texts[text.index]
            events.append(TextEnd(text.index))
        return events


class _Text:
    """One block of text, in which JSON may begin, once: `sought` finds it, `feed` gives it, the rest is held."""

    __slots__ = ("_depth", "_escaped", "_held", "_in_string", "_opened", "_opening", "choice", "index", "open", "state")

    def __init__(self, index: int, choice: int, kind: str, *, answered: bool) -> None:
        self.index = index
        self.choice = choice
        self.open = True
        self._opening = _OPENINGS.get(kind, _NO_OPENING)
        self.state: Literal["any", "seeking", "within", "behind"] = "seeking"
        if answered:
            self.state = "behind"
        elif self._opening is _NO_OPENING:
            self.state = "any"
        self._held: list[str] = []
        self._opened: list[str] = []
        """A bracket that JSON may begin with, and white space."""
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str) -> str:
        """Take a piece that JSON has begun in or before, give what of it is JSON."""
        end = self._end_in(text) if self.state == "within" else None
        if end is not None:
            self.state = "behind"
        elif self.state == "behind":
            end = 0
        if end is None:
            return text
        self._held.append(text[end:])
        return text[:end]

    def release(self) -> str:
        """Give what is held, and hold it no more."""
        held = "".join((*self._held, *self._opened))
        self._held, self._opened = [], []
        return held

    def sought(self, text: str) -> str:
        """Give the text from where JSON begins, empty where it does not; what stands before it is held."""
        bracket, followers = self._opening
        at = 0
        while at < len(text):
            if not self._opened:
                found = text.find(bracket, at)
                self._held.append(text[at:] if found < 0 else text[at:found])
                if found < 0:
                    break
                self._opened = [bracket]
                at = found + 1
                continue
            follower = _NO_SPACE.search(text, at)
            if follower is None:
                self._opened.append(text[at:])
                break
            if follower.group() in followers:
                json = "".join((*self._opened, text[at:]))
                self._opened = []
                self.state = "within"
                return json
            self._held += self._opened
            self._opened = []
        return ""

    def _end_in(self, text: str) -> int | None:
        """Give the place behind the bracket that closes the JSON."""
        at = 0
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_INSIDE if self._in_string else _OUTSIDE).search(text, at)
            if found is None:
                return None
            at = found.end()
            match found.group():
                case "\\":
                    self._escaped = True
                case '"':
                    self._in_string = not self._in_string
                case bracket:
                    self._depth += 1 if bracket in "[{" else -1
                    if not self._depth:
                        return at
        return None
