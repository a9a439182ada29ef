"""Histories that a provider can take: each call of a tool has its results, and ids that are alike mean one call.

Contract: see `loomstream.adapt`. A call and its results keep one id; an id that an earlier turn has used already is
given a number, the same one each time, so that a prompt cache still fits. Providers refuse what is refused here with
a 400 of their own that names no place. Where the provider holds the conversation (`SERVER_SIDE`), the request has
only its end, and nothing is refused.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator

import msgspec

from loomstream.adapt.plan import Adapted, has_calls
from loomstream.dialects import Target
from loomstream.errors import RequestError
from loomstream.messages import ContentBlock, Message, Request, ToolCall, ToolResult

SERVER_SIDE = frozenset({"previous_response_id", "conversation", "container"})
"""Keys of `extra_body` by which a provider goes on with a conversation that it holds."""

_Place = tuple[int, int]


def history(request: Request, target: Target) -> Adapted | None:
    """Give the request with unique ids of calls, None where they are.

    Raises `RequestError`, with the place, for a result without its call, a second result of a call, and a call that
    the conversation goes on without answering.
    """
    if not has_calls(request):
        return None
    pairing = _Pairing(request.messages)
    if not SERVER_SIDE & request.extra_body.keys():
        pairing.check(target)
    if not pairing.renamed:
        return None
    messages = tuple(_renamed(number, message, pairing.renamed) for number, message in enumerate(request.messages))
    return Adapted(msgspec.structs.replace(request, messages=messages))


def _blocks(messages: Iterable[Message], *kinds: type[ContentBlock]) -> Iterator[tuple[_Place, ContentBlock]]:
    for number, message in enumerate(messages):
        for position, block in enumerate(message.content):
            if isinstance(block, kinds):
                yield (number, position), block


class _Pairing:
    """Which result belongs to which call, and the ids that must be told apart."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.renamed: dict[_Place, str] = {}
        self._open: dict[str, deque[tuple[_Place, str]]] = {}
        """The calls that wait for their result, and what they are called, by the id that stands in the history.

        Calls of one turn may have the same id: their results follow in the same order.
        """
        self._numbers: defaultdict[str, int] = defaultdict(lambda: 2)
        self._used: set[str] = {block.id for _, block in _blocks(messages, ToolCall) if isinstance(block, ToolCall)}
        self._seen: set[str] = set()
        self._orphans: list[tuple[_Place, str]] = []
        self._unanswered: list[tuple[_Place, str]] = []
        self._calling = -1
        for place, block in _blocks(messages, ToolCall, ToolResult):
            if isinstance(block, ToolCall):
                self._call(place, block.id)
            elif isinstance(block, ToolResult):
                self._result(place, block.tool_call_id)
        self._last = max((number for number, message in enumerate(messages) if message.content), default=0)

    def _call(self, place: _Place, id: str) -> None:  # noqa: A002 (the field's name)
        if place[0] != self._calling:  # another turn calls: what the one before asked can no longer be answered
            self._unanswered += self._waiting()
            self._open.clear()
            self._calling = place[0]
        sent = id
        if id in self._seen:
            sent = self._free(id)
            self.renamed[place] = sent
        self._seen.add(id)
        self._open.setdefault(id, deque()).append((place, sent))

    def _waiting(self) -> list[tuple[_Place, str]]:
        return [(place, name) for name, waiting in self._open.items() for place, _ in waiting]

    def _free(self, id: str) -> str:  # noqa: A002 (the field's name)
        while (name := f"{id}_{self._numbers[id]}") in self._used:
            self._numbers[id] += 1
        self._used.add(name)
        return name

    def _result(self, place: _Place, id: str) -> None:  # noqa: A002 (the field's name)
        waiting = self._open.get(id)
        if not waiting:
            self._orphans.append((place, id))
            return
        _, sent = waiting.popleft()
        if sent != id:
            self.renamed[place] = sent

    def check(self, target: Target) -> None:
        """Raise for the first thing that no provider takes."""
        for place, id in self._orphans:  # noqa: A001 (the field's name)
            what = "a second one of that call" if id in self._seen else "a result without its call"
            msg = f"{_shown(place)} answers the tool call {id!r}: it is {what}, which {target.provider} would refuse"
            raise RequestError(msg)
        left = self._unanswered + [waiting for waiting in self._waiting() if waiting[0][0] < self._last]
        for place, id in left:  # noqa: A001 (the field's name)
            msg = f"{_shown(place)} calls a tool ({id!r}) and no result follows: answer it with loomstream.tool_result"
            raise RequestError(msg)


def _shown(place: _Place) -> str:
    return f"messages[{place[0]}].content[{place[1]}]"


def _renamed(number: int, message: Message, renamed: dict[_Place, str]) -> Message:
    content = tuple(_with_id(block, renamed.get((number, position))) for position, block in enumerate(message.content))
    return message if content == message.content else Message(message.role, content)


def _with_id(block: ContentBlock, id: str | None) -> ContentBlock:  # noqa: A002 (the field's name)
    if id is None:
        return block
    if isinstance(block, ToolCall):
        return msgspec.structs.replace(block, id=id)
    return msgspec.structs.replace(block, tool_call_id=id) if isinstance(block, ToolResult) else block
