"""The conversations of the page, in memory, and the answers that are on their way.

Contract: an answer is a broadcast of a hub: it goes on while a page is reloaded, and stops when nobody reads it. What
came of a stopped or failed answer stays in the conversation, and is told to the next model. The model may be another
one in each turn. With tools, an answer is a run of an agent, whose calls wait for the user's word where they are to.
All is bounded: conversations, turns, characters. Nothing is written to disk.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Literal, Protocol, Self, Unpack

import anyio
from msgspec import Struct

from loomstream.agent.toolbox import GivenTools
from loomstream.errors import LimitExceeded, LoomstreamError, StreamCancelled, UsageError
from loomstream.events import Cost, Stop, Usage
from loomstream.messages import Message, Prompt, RequestOptions, user
from loomstream.stream import Stream
from loomstream.ui.broadcast import Broadcast
from loomstream.ui.formats import Problem, describe
from loomstream.ui.hub import Hub
from loomstream.ui.page.answering import Asked, Block, Desk, PlainAnswer, ToolAnswer

MAX_CONVERSATIONS = 100
MAX_TURNS = 500
MAX_CHARS = 8_000_000
MAX_MODELS = 64
MAX_TITLE_CHARS = 80
KEEP_S = 30.0
"""How long the events of an answer that is over are kept, in seconds, for a page that was about to read them."""

State = Literal["running", "done", "stopped", "failed"]


class ChatModel(Protocol):
    """What the page needs of a model; `loomstream.Model` has it."""

    def stream(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Stream:
        """Give the stream of an answer."""
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...


Connect = Callable[[str], ChatModel]
"""A spec to a model, as `loomstream.connect` does."""


class Answer(Struct, kw_only=True):
    """An answer: on its way where `state` is `running`, and then its blocks come by its events."""

    key: str
    spec: str
    state: State = "running"
    blocks: list[Block] = []
    stop: Stop | None = None
    usage: Usage | None = None
    cost: Cost | None = None
    first_text_s: float | None = None
    total_s: float | None = None
    problem: Problem | None = None


class Turn(Struct, kw_only=True):
    """What the user said, and what came of it."""

    text: str
    answer: Answer


class Conversation(Struct, kw_only=True):
    """The turns of a conversation, in order."""

    id: str
    turns: list[Turn] = []
    title: str = ""
    """What the user calls it."""


class Entry(Struct, kw_only=True, frozen=True):
    """A conversation in the list of all."""

    id: str
    title: str
    is_running: bool


class Chat:
    """Conversations by id. Enter it to use it; leaving it stops every answer and closes every model.

    `options` go with every request. `connect` makes the models, once for each spec. `tools` are what they may call,
    `asks` the names of those whose calls wait for the user.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        options: RequestOptions | None = None,
        tools: GivenTools = (),
        asks: Collection[str] = (),
        linger_s: float = 10.0,
    ) -> None:
        self.asks = set(asks)
        """The tools whose calls wait for the user."""
        self._tools = tools
        self._desks: dict[str, Desk] = {}
        self._connect = connect
        self._options: RequestOptions = options or {}
        self._hub = Hub(max_streams=MAX_CONVERSATIONS, keep_s=KEEP_S, linger_s=linger_s)
        self._models: OrderedDict[str, ChatModel] = OrderedDict()
        self._conversations: OrderedDict[str, Conversation] = OrderedDict()
        self._histories: dict[str, list[Message]] = {}
        """What the models said, by the answer's key, as it is to be sent again."""

    async def __aenter__(self) -> Self:
        await self._hub.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._hub.aclose()
        with anyio.CancelScope(shield=True):
            for model in self._models.values():
                await model.aclose()

    # --- conversations ---------------------------------------------------------------------------

    def conversation(self, id: str) -> Conversation:  # noqa: A002 (the field's name)
        """Give a conversation; one that is not known, or was forgotten, is empty."""
        return self._conversations.get(id) or Conversation(id=id)

    def entries(self) -> list[Entry]:
        """Give all conversations, the one that was used last before the others."""
        return [_entry(conversation) for conversation in reversed(self._conversations.values())]

    def rename(self, id: str, title: str) -> Entry:  # noqa: A002 (the field's name)
        """Call a conversation something; an empty title gives it the first words said in it. Raises `UsageError`."""
        conversation = self._conversations.get(id)
        if conversation is None:
            msg = "there is no such conversation: it was deleted, or `looms ui` was started anew"
            raise UsageError(msg)
        conversation.title = _shortened(title)
        return _entry(conversation)

    def forget(self, id: str) -> None:  # noqa: A002 (the field's name)
        """Stop its answer, and forget it."""
        conversation = self._conversations.pop(id, None)
        for turn in [] if conversation is None else conversation.turns:
            self.stop(turn.answer.key)
            self._histories.pop(turn.answer.key, None)

    def answer(self, key: str) -> Broadcast | None:
        """Give the events of an answer; None where it is over for long."""
        return self._hub.get(key)

    def stop(self, key: str) -> None:
        """Close an answer's upstream; what has come stays."""
        broadcast = self._hub.get(key)
        if broadcast is not None:
            broadcast.stop("you stopped the answer")

    def stop_all(self) -> None:
        """Close the upstreams of all answers."""
        self._hub.stop_all("the page was closed by its server")

    def decide(self, key: str, call_id: str, *, allow: bool, always_for: str = "") -> None:
        """Say whether a call that waits may run, and `always_for` which tool nobody is to be asked any more.

        Raises `UsageError` where no such call waits.
        """
        desk = self._desks.get(key)
        if desk is None:
            msg = "no such call waits for you: its answer is over"
            raise UsageError(msg)
        desk.decide(call_id, allow=allow)
        if allow:
            self.asks.discard(always_for)

    # --- asking ----------------------------------------------------------------------------------

    def ask(self, id: str, text: str, spec: str) -> Turn:  # noqa: A002 (the field's name)
        """Say something in a conversation; the answer of the model is begun, and read under its key.

        Raises `UsageError` where an answer is still on its way, `LimitExceeded` where the conversation is too long, and
        what `connect` and `stream` raise.
        """
        conversation = self._room_for(id)
        self._check(conversation, text)
        turn = Turn(text=text, answer=Answer(key=secrets.token_urlsafe(12), spec=spec))
        asked = self._asked(turn.answer.key, self._model(spec), [*self._history(conversation), user(text)])
        self._hub.publish(
            turn.answer.key, asked, then=lambda broadcast: self._settle(conversation, turn.answer, broadcast, asked)
        )
        conversation.turns.append(turn)
        self._conversations[id] = conversation
        return turn

    def _asked(self, key: str, model: ChatModel, messages: list[Message]) -> Asked:
        if not self._tools:
            return PlainAnswer(model.stream(messages, **self._options))
        desk = Desk(self.asks)
        asked = ToolAnswer(model, messages, self._tools, self._options, desk)
        self._desks[key] = desk
        return asked

    def _room_for(self, id: str) -> Conversation:  # noqa: A002 (the field's name)
        """Give the conversation; the one that was not used for longest makes room."""
        conversation = self.conversation(id)
        if id in self._conversations:
            self._conversations.move_to_end(id)
        elif len(self._conversations) >= MAX_CONVERSATIONS:
            self.forget(next(iter(self._conversations)))
        return conversation

    @staticmethod
    def _check(conversation: Conversation, text: str) -> None:
        if any(turn.answer.state == "running" for turn in conversation.turns):
            msg = "an answer is still on its way: stop it, or wait for its end"
            raise UsageError(msg)
        if not text.strip():
            msg = "there is nothing to send: the message is empty"
            raise UsageError(msg)
        held = sum(len(turn.text) + sum(len(block.text) for block in turn.answer.blocks) for turn in conversation.turns)
        if len(conversation.turns) >= MAX_TURNS or held + len(text) > MAX_CHARS:
            msg = "this conversation is as long as the page keeps: begin a new one"
            raise LimitExceeded(msg)

    def _history(self, conversation: Conversation) -> list[Message]:
        """Give what was said, less the turns without an answer."""
        said: list[Message] = []
        for turn in conversation.turns:
            answered = self._histories.get(turn.answer.key)
            if answered:
                said += [user(turn.text), *answered]
        return said

    def _model(self, spec: str) -> ChatModel:
        model = self._models.get(spec)
        if model is None:
            if len(self._models) >= MAX_MODELS:
                msg = f"{MAX_MODELS} models were used since the page was started: use one of them, or start it anew"
                raise LimitExceeded(msg)
            model = self._models[spec] = self._connect(spec)
        return model

    def _settle(self, conversation: Conversation, answer: Answer, broadcast: Broadcast, asked: Asked) -> None:
        """Note what came of an answer that is over; of a forgotten conversation nothing is kept."""
        self._desks.pop(answer.key, None)
        answer.blocks = asked.blocks
        answer.stop = asked.stop
        answer.usage = asked.usage
        answer.cost = asked.cost
        answer.first_text_s = asked.first_text_s
        answer.total_s = asked.total_s
        answer.state, answer.problem = _outcome(broadcast.error)
        if self._conversations.get(conversation.id) is conversation and (history := asked.history):
            self._histories[answer.key] = history


def _entry(conversation: Conversation) -> Entry:
    first = conversation.turns[0].text if conversation.turns else ""
    running = any(turn.answer.state == "running" for turn in conversation.turns)
    return Entry(id=conversation.id, title=conversation.title or _shortened(first), is_running=running)


def _shortened(text: str) -> str:
    line = " ".join(text[: MAX_TITLE_CHARS * 4].split())
    return line if len(line) <= MAX_TITLE_CHARS else f"{line[: MAX_TITLE_CHARS - 1].rstrip()}…"


def _outcome(error: LoomstreamError | None) -> tuple[State, Problem | None]:
    if error is None:
        return "done", None
    return ("stopped" if isinstance(error, StreamCancelled) else "failed"), describe(error)
