"""A chat as it runs: one event loop, one model at a time, one conversation.

Contract: an answer is asked for in `answer`, which returns when it is over, whatever ended it: Ctrl-C stops the answer,
closes its connection, and keeps what came. Calls of tools that need a word of the user pause the run; nothing waits for
the user while the event loop runs. Reads and writes no terminal but through what it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import anyio
import anyio.lowlevel

from loomstream import agent
from loomstream.agent.toolbox import Toolbox
from loomstream.cli.answer import Answer, Clock
from loomstream.cli.chat_state import Conversation
from loomstream.cli.interrupt import TERMINATIONS
from loomstream.cli.printers import Printer
from loomstream.cli.tool_file import Tools
from loomstream.errors import LoomstreamError
from loomstream.messages import Message, RequestOptions, ToolCall
from loomstream.model import Model

NOBODY = "nobody is here to allow it"
"""What a model is told of a call for which nobody can be asked."""
_NO_FUNCTION = "this tool has no function here"


class AskUser(Protocol):
    """Asks whether a call may run; gives the decision, and whether it holds for all calls of the tool."""

    def __call__(self, call: ToolCall) -> tuple[agent.Decision, bool]:
        """See the class."""
        ...


class Session:
    """See the module's contract. `ask_user` None: calls are refused, unless `allow_all`."""

    def __init__(
        self,
        connect: Callable[[str | None], Model],
        options: RequestOptions,
        *,
        tools: Tools,
        ask_user: AskUser | None,
        allow_all: bool,
    ) -> None:
        self.conversation = Conversation(options.pop("system", ""))
        self.tool_names = Toolbox(tools).names
        self._connect = connect
        self._options = options
        self._tools = tools
        self._ask_user = ask_user
        self._asks_for = set[str]() if allow_all else set(self.tool_names)
        self.files = set[Path]()
        """What was saved to or loaded from, and so may be written again."""
        self.reasoning = ""
        self.interrupted = False
        """Whether Ctrl-C stopped the last answer."""
        self._runner = asyncio.Runner()
        self._run: agent.Run | None = None
        self._error: LoomstreamError | None = None
        self.model = connect(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self.model.aclose())
        finally:
            self._runner.close()

    def switch(self, spec: str) -> None:
        """Go on with another model. Raises what connecting raises; then the old one stays."""
        model = self._connect(spec)
        old, self.model = self.model, model
        self._runner.run(old.aclose())

    def answer(self, said: Message, printer: Printer) -> Answer:
        """Ask the model; give what came of it. `KeyboardInterrupt` passes where it means the program."""
        clock = Clock()
        run: agent.Run | None = self._begun(self.conversation.ask(said))
        self.interrupted = False
        while run is not None:
            self._run, self._error = run, None
            try:
                self._runner.run(self._show(run, printer, clock))
                run = self._resumed(run)
            except KeyboardInterrupt:
                self.interrupted = True
                run = None
        clock.end()
        return self._settled(clock)

    def _settled(self, clock: Clock) -> Answer:
        over, self._run = self._run, None
        if over is None:
            return Answer()
        self.conversation.settle(over.messages, over.usage, over.cost)
        self.reasoning = over.response.reasoning
        if TERMINATIONS:
            raise KeyboardInterrupt
        return Answer(response=over.response, timing=clock.timing, error=self._error, usage=over.usage, cost=over.cost)

    def _begun(self, said: tuple[Message, ...]) -> agent.Run:
        return agent.run(self.model, said, self._tools, approve=self._approve(), **self._request_options())

    def _request_options(self) -> RequestOptions:
        system = self.conversation.system
        return {**self._options, "system": system} if system else self._options

    def _approve(self) -> agent.Approve:
        if self._ask_user is None and self._asks_for:
            return lambda _: agent.Deny(NOBODY)
        return self._asks_for

    async def _show(self, run: agent.Run, printer: Printer, clock: Clock) -> None:
        """Show the events until the run ends; an error is kept."""
        await anyio.lowlevel.checkpoint()  # what closed while nothing was asked is noticed first
        try:
            await self.model.prepare()
            clock.begin()
            async with run:
                while (event := await self._next(run, printer)) is not None:
                    clock.note(event)
                    printer.show(event)
        except LoomstreamError as error:
            self._error = error

    async def _next(self, run: agent.Run, printer: Printer) -> agent.RunEvent | None:
        """Give the next event, None at the end; meanwhile the printer is refreshed when it wants to be."""
        while True:
            try:
                with anyio.move_on_after(printer.due_s):
                    return await anext(run)
            except StopAsyncIteration:
                return None
            printer.refresh()

    def _resumed(self, run: agent.Run) -> agent.Run | None:
        """Ask about the calls that wait; give the run that goes on, None where none waits."""
        if run.ended != "paused" or self._ask_user is None:
            return None
        state = run.state
        decisions: dict[str, agent.Decision] = {}
        for paused in state.pending:
            has_function = paused.needs == "decision"
            decided = self._decision(self._ask_user, paused.call) if has_function else agent.Deny(_NO_FUNCTION)
            decisions[paused.call.id] = decided
        return self._again(state, decisions)

    def _decision(self, ask_user: AskUser, call: ToolCall) -> agent.Decision:
        if call.name not in self._asks_for:
            return agent.Allow()
        decision, always = ask_user(call)
        if always:
            self._asks_for.discard(call.name)
        return decision

    def _again(self, state: agent.RunState, decisions: Mapping[str, agent.Decision]) -> agent.Run:
        options = self._request_options()
        return agent.resume(self.model, state, self._tools, decisions, approve=self._approve(), **options)
