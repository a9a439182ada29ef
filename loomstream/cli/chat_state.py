"""A conversation at the command line: what was said, what is to be sent next, what it has cost.

Contract: values and what is done with them; no terminal, no model. `messages` can be sent at any moment. Its JSON form
is that of `loomstream.messages.encode`, with the system prompt as a first message of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from loomstream.agent.limits import Tally
from loomstream.errors import UsageError
from loomstream.events import Cost, Usage
from loomstream.files import Attachment
from loomstream.messages import ContentBlock, Message, Text, decode, encode


class Conversation:
    """See the module's contract. `unanswered` is what was said last, where no answer came to it."""

    def __init__(self, system: str = "") -> None:
        self.system = system
        self.messages: tuple[Message, ...] = ()
        self.attached: list[Attachment] = []
        self.unanswered: Message | None = None
        self.tally = Tally()
        self.unpriced = 0

    def said(self, text: str) -> Message:
        """Give the user's next turn: what is attached, and the words."""
        blocks: tuple[ContentBlock, ...] = (*self.attached, Text(text))
        self.attached = []
        return Message("user", blocks)

    def ask(self, said: Message) -> tuple[Message, ...]:
        """Take a turn of the user; give what is to be sent."""
        self.unanswered = said
        return (*self.messages, said)

    def settle(self, messages: Sequence[Message], usage: Usage | None, cost: Cost) -> None:
        """Take the conversation as it is after an answer, whole or not; one to which nothing came stays unanswered."""
        if messages and messages[-1].role != "user":
            self.messages = tuple(messages)
            self.unanswered = None
        if cost.amount_usd is None:
            self.unpriced += 1
            cost = Cost(provider=cost.provider, model=cost.model, amount_usd=Decimal(0), attempts=cost.attempts)
        self.tally = self.tally.plus(usage, cost)

    def undo(self) -> Message:
        """Take back the user's last turn and all that came of it; give it. Raises `UsageError` where there is none."""
        if self.unanswered is not None:
            said, self.unanswered = self.unanswered, None
            return said
        for position in range(len(self.messages) - 1, -1, -1):
            if self.messages[position].role == "user":
                said = self.messages[position]
                self.messages = self.messages[:position]
                return said
        msg = "there is nothing to take back: nothing was said yet"
        raise UsageError(msg)

    def clear(self) -> None:
        """Forget what was said; the system prompt, and what was used, stay."""
        self.messages, self.unanswered, self.attached = (), None, []

    def encode(self) -> bytes:
        """Give the conversation as JSON."""
        system = (Message("system", (Text(self.system),)),) if self.system else ()
        return encode((*system, *self.messages))

    def load(self, data: bytes) -> None:
        """Go on with the conversation that `encode` wrote. Raises `RequestError` for what is none."""
        messages = decode(data)
        self.clear()
        if messages and messages[0].role == "system":
            self.system = messages[0].text
            messages = messages[1:]
        self.messages = messages
