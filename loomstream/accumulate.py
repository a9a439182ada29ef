"""The fold: events to a `Response`. The only code that assembles a message.

Contract: `Accumulator.add` is O(1) per event, `.response` an O(n) snapshot that is valid at any moment, also after an
error or a break. A `reset` notice empties the fold, but for what is billed. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from loomstream.errors import UsageError
from loomstream.events import (
    Citation,
    Cost,
    Event,
    EventBase,
    File,
    Limits,
    Logprobs,
    Notice,
    Opaque,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    ServerToolCall,
    ServerToolResult,
    Start,
    Stop,
    TextDelta,
    TextStart,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Unknown,
    Usage,
)
from loomstream.kind_names import kind_of
from loomstream.messages import (
    Choice,
    ContentBlock,
    FileBlock,
    Message,
    Reasoning,
    Refusal,
    Response,
    ServerToolCallBlock,
    ServerToolResultBlock,
    Text,
    ToolCall,
)

_NO_START = Start()
_NO_COST = Cost(provider="", model="")


class _Open:
    """A block that grows. `finished` is set where its end told more than its deltas."""

    __slots__ = ("choice", "citations", "finished", "id", "kind", "logprobs", "name", "opaque", "pieces")

    def __init__(self, kind: str, choice: int, id: str = "", name: str = "") -> None:  # noqa: A002 (the field's name)
        self.kind = kind
        self.choice = choice
        self.id = id
        self.name = name
        self.pieces: list[str] = []
        self.citations: list[Citation] | None = None
        self.logprobs: list[TokenLogprob] | None = None
        self.opaque: tuple[Opaque, ...] = ()
        self.finished: ContentBlock | None = None

    def block(self) -> ContentBlock | None:
        """Give the block as it stands; None where it holds nothing."""
        if self.finished is not None:
            return self.finished
        text = "".join(self.pieces)
        match self.kind:
            case "text":
                holds = text or self.citations or self.logprobs
                return Text(text, tuple(self.citations or ()), tuple(self.logprobs or ())) if holds else None
            case "reasoning":
                return Reasoning(text, self.opaque) if text or self.opaque else None
            case "refusal":
                return Refusal(text)
            case _:
                return ToolCall(self.id, self.name, text, executable=False)


class Accumulator:
    """Folds events; see the module's contract."""

    __slots__ = (
        "_blocks",
        "_limits",
        "_others_billed",
        "_route",
        "_start_event",
        "_unknown_frames",
        "bills",
        "cost",
        "cost_is_current",
        "has_content",
        "stop",
        "usage",
    )

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.cost = _NO_COST
        self.cost_is_current = False
        """Whether no `Usage` has come since the last `Cost`."""
        self.bills: list[tuple[Start, Usage | None]] = []
        """The `Start` of each epoch with the epoch's last `Usage`."""
        self.stop: Stop | None = None
        self.has_content = False
        self._limits: Limits | None = None
        self._others_billed = 0
        """So many other attempts may be billed, as notices told."""
        self._route = ""
        self._begin()

    def _begin(self) -> None:
        self._blocks: dict[int, _Open] = {}
        self._start_event = _NO_START
        self._unknown_frames = 0

    def add(self, event: Event) -> None:
        """Take the next event. Raises `UsageError` for one whose block has not opened."""
        if type(event) is TextDelta and (block := self._blocks.get(event.index)) is not None:  # most events
            self.has_content = True
            block.pieces.append(event.text)
            return
        take = self._TABLE.get(event.__class__)
        if take is not None:
            try:
                take(self, event)
            except KeyError as error:
                msg = f"{kind_of(event)} belongs to block {error}, which has not opened: its start is missing"
                raise UsageError(msg) from None

    @property
    def start(self) -> Start:
        """The `Start` of this epoch, an empty one before it came."""
        return self._start_event

    @property
    def response(self) -> Response:
        """What has been delivered so far."""
        start = self._start_event
        choices = self._choices()
        return Response(
            provider=start.provider,
            model=start.model,
            response_id=start.response_id,
            request_id=start.request_id,
            message=choices[0].message if choices and choices[0].index == 0 else Message("assistant", ()),
            choices=choices,
            usage=self.usage,
            cost=self.cost,
            stop=self.stop,
            limits=self._limits,
            warnings=start.warnings,
            unknown_frames=self._unknown_frames,
            route=self._route,
        )

    def _choices(self) -> tuple[Choice, ...]:
        by_choice: dict[int, list[ContentBlock]] = {}
        for index in sorted(self._blocks):
            grown = self._blocks[index]
            block = grown.block()
            if block is not None:
                by_choice.setdefault(grown.choice, []).append(block)
        return tuple(Choice(index, Message("assistant", tuple(blocks))) for index, blocks in sorted(by_choice.items()))

    # --- one method per event --------------------------------------------------------------------

    def _on_start(self, start: Start) -> None:
        self._start_event = start
        self.cost_is_current = False  # a cost that was told is that of the attempts before
        self.bills.append((start, None))
        self._limits = start.limits

    def _on_block_start(self, started: TextStart | ReasoningStart) -> None:
        kind = "text" if started.__class__ is TextStart else "reasoning"
        self._blocks[started.index] = _Open(kind, started.choice)

    def _on_text(self, delta: TextDelta | ReasoningDelta) -> None:
        self.has_content = True
        self._blocks[delta.index].pieces.append(delta.text)

    def _on_reasoning_end(self, ended: ReasoningEnd) -> None:
        self._blocks[ended.index].opaque = ended.opaque

    def _on_tool_start(self, started: ToolCallStart) -> None:
        self.has_content = True
        self._blocks[started.index] = _Open("tool_call", started.choice, started.id, started.name)

    def _on_arguments(self, delta: ToolCallDelta) -> None:
        self._blocks[delta.index].pieces.append(delta.arguments)

    def _on_tool_end(self, ended: ToolCallEnd) -> None:
        call = ToolCall(ended.id, ended.name, ended.arguments, ended.opaque, executable=ended.executable)
        self._blocks[ended.index].finished = call

    def _on_refusal(self, delta: RefusalDelta) -> None:
        self.has_content = True
        self._blocks.setdefault(delta.index, _Open("refusal", delta.choice)).pieces.append(delta.text)

    def _on_citation(self, citation: Citation) -> None:
        self.has_content = True
        block = self._blocks[citation.index]
        block.citations = block.citations or []
        block.citations.append(citation)

    def _on_logprobs(self, logprobs: Logprobs) -> None:
        block = self._blocks[logprobs.index]
        block.logprobs = block.logprobs or []
        block.logprobs += logprobs.tokens

    def _put(self, index: int, choice: int, block: ContentBlock) -> None:
        self.has_content = True
        grown = self._blocks[index] = _Open("whole", choice)
        grown.finished = block

    def _on_file(self, file: File) -> None:
        self._put(file.index, file.choice, FileBlock(file.media_type, file.data, file.url, file.id, file.raw))

    def _on_server_call(self, call: ServerToolCall) -> None:
        self._put(call.index, call.choice, ServerToolCallBlock(call.id, call.name, call.arguments, call.raw))

    def _on_server_result(self, result: ServerToolResult) -> None:
        block = ServerToolResultBlock(
            result.tool_call_id, result.name, result.content, is_error=result.is_error, raw=result.raw
        )
        self._put(result.index, result.choice, block)

    def _on_usage(self, usage: Usage) -> None:
        self.usage = usage
        self.cost_is_current = False
        self.bills[-1:] = [(self._start_event, usage)]

    def _on_cost(self, cost: Cost) -> None:
        self.cost = among_others(cost, self._others_billed)  # told inside of who made the others
        self.cost_is_current = True

    def _on_stop(self, stop: Stop) -> None:
        self.stop = stop

    def _on_notice(self, notice: Notice) -> None:
        if notice.may_be_billed:
            self._others_billed += 1
        if notice.kind == "reset":
            self._begin()
        elif notice.kind == "route":
            self._route = notice.detail

    def _on_unknown(self, unknown: Unknown) -> None:  # noqa: ARG002 (one signature for the table)
        self._unknown_frames += 1

    _TABLE: ClassVar[dict[type[EventBase], Callable[[Accumulator, Any], None]]] = {
        Start: _on_start,
        TextStart: _on_block_start,
        TextDelta: _on_text,
        ReasoningStart: _on_block_start,
        ReasoningDelta: _on_text,
        ReasoningEnd: _on_reasoning_end,
        ToolCallStart: _on_tool_start,
        ToolCallDelta: _on_arguments,
        ToolCallEnd: _on_tool_end,
        RefusalDelta: _on_refusal,
        Citation: _on_citation,
        Logprobs: _on_logprobs,
        File: _on_file,
        ServerToolCall: _on_server_call,
        ServerToolResult: _on_server_result,
        Usage: _on_usage,
        Cost: _on_cost,
        Stop: _on_stop,
        Notice: _on_notice,
        Unknown: _on_unknown,
    }


def fold(events: list[Event]) -> Response:
    """Give the response that some events fold to."""
    accumulator = Accumulator()
    for event in events:
        accumulator.add(event)
    return accumulator.response


def among_others(cost: Cost, others: int) -> Cost:
    """Give the cost of an attempt with so many others that may be billed: exact no more, unless they cost nothing."""
    if not cost.exact or not others or cost.upper_usd == 0:
        return cost
    return msgspec.structs.replace(cost, upper_usd=None, exact=False, attempts=cost.attempts + others)


def total_cost(costs: Sequence[Cost]) -> Cost:
    """Give the cost of several attempts, the last one's in the last place: where others were billed, a lower bound."""
    last = costs[-1]
    if len(costs) == 1:
        return last
    amounts = [cost.amount_usd for cost in costs]
    if not any(amount is None or amount for amount in amounts):
        return msgspec.structs.replace(last, attempts=len(costs))
    known = [amount for amount in amounts if amount is not None]
    total = sum(known, Decimal(0)) if len(known) == len(amounts) else None
    return msgspec.structs.replace(
        last, amount_usd=total, lower_usd=total, upper_usd=None, exact=False, attempts=len(costs)
    )


def with_cost(response: Response, cost: Cost) -> Response:
    """Give the response with another cost."""
    return msgspec.structs.replace(response, cost=cost)
