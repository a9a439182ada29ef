"""The output items of one response: from the wire's items and deltas to events.

Contract: never raises; an item that breaks the protocol ends the list with a `Failure`. An item is found by its output
index, else by its id (some hosts send no index, others another id in every frame). What an item tells when it is done
counts: items without deltas are given whole, and what the deltas left out is added. Must know no frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.blocks import MAX_BLOCKS, Blocks, OpenBlock
from loomstream.dialects.bodies import compact, elements, members
from loomstream.dialects.failures import broken
from loomstream.dialects.fields import as_list, is_null, read_object, read_text
from loomstream.dialects.openai_responses.parts import Out, Part, PartKind, Parts, Whole
from loomstream.dialects.openai_responses.server_tools import APPROVAL, is_server_item, runs_here, server_events
from loomstream.dialects.openai_responses.wire import ContentPart, Fields, Item, StreamEvent
from loomstream.errors import BadFrame, Failure, LimitExceeded
from loomstream.events import NULL, Notice, Opaque, Unknown
from loomstream.wire.json import loads

CONTENT, SUMMARY = "content", "summary"
ENCRYPTED, OPEN, ITEM, PHASE, CUSTOM = "encrypted", "text", "item", "phase", "custom"
"""Kinds of opaque values: a reasoning item's encrypted content; that its text goes back in the clear; a whole item as
JSON; a message's phase; a call whose arguments are a text."""

FUNCTION_CALL, CUSTOM_CALL = "function_call", "custom_tool_call"
BUILT_IN_CALLS = {
    "computer_call": ("action", "actions"),
    "local_shell_call": ("action",),
    "shell_call": ("action",),
    "apply_patch_call": ("operation",),
}
"""The vendor's own tools that you run, each with the members that hold the call's arguments."""
_PART_KINDS: dict[str, PartKind] = {
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
    "reasoning_text": "reasoning",
    "summary_text": "reasoning",
}


class OutputItem:
    """An item that has begun. `kind` is its type, empty while only deltas of it have come."""

    __slots__ = ("call", "compared", "done", "held", "id", "kind", "parts", "raw")

    def __init__(self, blocks: Blocks) -> None:
        self.kind = ""
        self.id = ""
        self.raw: RawJSON = NULL
        self.parts = Parts(blocks)
        self.call: OpenBlock | None = None
        self.compared = False
        """Whether arguments that were told whole and the deltas have been compared: it is done once."""
        self.held: list[str] = []
        """Pieces of arguments that came before the call's name."""
        self.done = False


class Items:
    """The items of one response. Methods append to the list they are given."""

    def __init__(self, fields: Fields, target: Target) -> None:
        self._fields = fields
        self._target = target
        self._blocks = Blocks()
        self._all: list[OutputItem] = []
        self._by_index: dict[int, OutputItem] = {}
        self._by_id: dict[str, OutputItem] = {}
        self.calls = 0
        """How many calls are for you to run."""
        self.paused = False
        """Whether the provider waits for leave to go on."""
        self.refused = False
        self.spoke = False
        self.custom_tools: frozenset[str] | None = None
        """Names of the custom tools in the request, where the response repeats them: any other is the provider's."""

    @property
    def empty(self) -> bool:
        """Whether no item at all has come."""
        return not self._all

    # --- finding ---------------------------------------------------------------------------------

    def of(self, event: StreamEvent, out: Out) -> OutputItem:
        """Give the item that a delta belongs to; it begins here where it has not begun."""
        if event.output_index is not None:
            found = self._by_index.get(event.output_index)
        else:
            found = self._by_id.get(event.item_id or "") or (self._all[-1] if self._all else None)
        return found or self._new(event.output_index, event.item_id or "", out)

    def _new(self, index: int | None, id: str, out: Out) -> OutputItem:  # noqa: A002 (the field's name)
        if len(self._all) == MAX_BLOCKS:
            out.append(broken(LimitExceeded(f"the answer has more than {MAX_BLOCKS} output items"), self._target))
        item = OutputItem(self._blocks)
        self._all.append(item)
        if index is not None:
            self._by_index[index] = item
        self._name(item, id)
        return item

    def _name(self, item: OutputItem, id: str) -> None:  # noqa: A002 (the field's name)
        item.id = id or item.id
        if id:
            self._by_id[id] = item

    def _identified(self, index: int | None, id: str, kind: str) -> OutputItem | None:  # noqa: A002 (the field's name)
        if index is not None:
            return self._by_index.get(index)
        if id:
            return self._by_id.get(id)
        last = self._all[-1] if self._all else None
        return last if last is not None and not last.done and last.kind == kind else None

    # --- items -----------------------------------------------------------------------------------

    def add(self, index: int | None, raw: RawJSON, out: Out) -> None:
        """Take the beginning of an item."""
        self._begun(index, raw, out)

    def finish(self, index: int | None, raw: RawJSON, out: Out) -> None:
        """Take a whole item."""
        begun = self._begun(index, raw, out)
        if begun is not None and not begun[0].done:
            self._complete(*begun, raw, out)

    def _complete(self, item: OutputItem, wire: Item, raw: RawJSON, out: Out) -> None:
        item.done = True
        item.raw = raw
        self._finisher(item)(self, item, wire, out)
        self._close(item, out)

    def _begun(self, index: int | None, raw: RawJSON, out: Out) -> tuple[OutputItem, Item] | None:
        wire = self._fields.item(raw)
        if isinstance(wire, Failure):
            out.append(broken(wire.error, self._target))
            return None
        id = read_text(wire.id) or read_text(wire.call_id)  # noqa: A001 (the field's name)
        item = self._identified(index, id, wire.type or "")
        if item is not None and item.done and not _same(item, id, raw):
            item = None  # a host that counts every item as the same
        item = item or self._new(index, id, out)
        if not item.kind:
            self._name(item, id)
            self._begin(item, wire, raw, out)
        return item, wire

    def _begin(self, item: OutputItem, wire: Item, raw: RawJSON, out: Out) -> None:
        item.kind = wire.type or ""
        item.raw = raw
        if item.kind == "reasoning" and item.parts.reasoning is None:
            item.parts.reasoning = self._blocks.open_reasoning(out)
        elif self._is_call(item.kind, read_text(wire.name)):
            self._open_call(item, wire, out)

    def _is_call(self, kind: str, name: str) -> bool:
        if kind == CUSTOM_CALL:
            return self.custom_tools is None or name in self.custom_tools
        return kind == FUNCTION_CALL

    def _open_call(self, item: OutputItem, wire: Item, out: Out) -> None:
        self.calls += 1
        item.call = self._blocks.open_tool_call(out, read_text(wire.call_id) or item.id, read_text(wire.name))
        if item.kind == CUSTOM_CALL:
            item.call.opaque.append(Opaque(self._target.provider, CUSTOM, ""))
        for piece in item.held:
            self._blocks.arguments(out, item.call, piece)
        item.held = []

    def _close(self, item: OutputItem, out: Out, *, cut: bool = False) -> None:
        item.parts.close_all(out)
        if item.call is not None:
            self._blocks.close(out, item.call, cut=cut)

    # --- deltas ----------------------------------------------------------------------------------

    def grow(self, event: StreamEvent, family: str, kind: PartKind, out: Out) -> Part:
        """Add to a text; give it."""
        item = self.of(event, out)
        part = item.parts.at(family, kind, _index(event, family))
        self._note(kind)
        item.parts.grow(part, event.delta or "", out)
        item.parts.weigh(part, event.logprobs, out)
        return part

    def settle(self, event: StreamEvent, family: str, kind: PartKind, whole: str, out: Out) -> None:
        """Take a text that is done."""
        item = self.of(event, out)
        part = item.parts.at(family, kind, _index(event, family))
        self._tell(item, part, whole, out)
        item.parts.weigh(part, event.logprobs, out, whole=True)
        item.parts.close(part, out)

    def _tell(self, item: OutputItem, part: Part, whole: str, out: Out) -> None:
        if whole:
            self._note(part.kind)
        item.parts.settle(part, whole, out)

    def _note(self, kind: PartKind) -> None:
        self.refused = self.refused or kind == "refusal"
        self.spoke = self.spoke or kind == "text"

    def part_done(self, event: StreamEvent, out: Out) -> None:
        """Take a whole part of a message or of reasoning."""
        part = self._fields.part(event.part)
        kind = _PART_KINDS.get(part.type or "")
        if kind is None:
            return
        family = SUMMARY if event.summary_index is not None else CONTENT
        item = self.of(event, out)
        told = item.parts.at(family, kind, _index(event, family))
        self._tell(item, told, _text_of(part), out)
        item.parts.cite(told, as_list(loads(part.annotations)), out)
        item.parts.weigh(told, part.logprobs, out, whole=True)
        item.parts.close(told, out)

    def cite(self, event: StreamEvent, out: Out) -> None:
        """Take a citation of a text."""
        item = self.of(event, out)
        part = item.parts.at(CONTENT, "text", _index(event, CONTENT))
        if annotation := read_object(event.annotation):
            item.parts.add_citation(part, annotation, out)

    def arguments(self, event: StreamEvent, out: Out) -> None:
        """Add to a call's arguments."""
        item = self.of(event, out)
        if item.call is None:
            item.held += [event.delta] if event.delta and not item.kind else []
        elif item.call.index in self._blocks.open:
            self._blocks.arguments(out, item.call, event.delta or "")
        else:
            msg = f"{self._target.provider}: a delta came for the arguments of {item.call.id!r}, which is done"
            out.append(broken(BadFrame(msg), self._target))

    def settle_arguments(self, event: StreamEvent, whole: str, out: Out) -> None:
        """Take a call's arguments that are told whole."""
        self._settle_call(self.of(event, out), whole, out)

    def _settle_call(self, item: OutputItem, whole: str, out: Out) -> None:
        call = item.call
        if call is None or call.index not in self._blocks.open or not whole:
            return
        if item.compared and len(whole) < call.length:
            return
        told = "".join(call.arguments)
        if whole.startswith(told):
            self._blocks.arguments(out, call, whole[len(told) :])
        elif not item.compared:
            item.compared = True
            if _json_of(whole) != _json_of(told):
                what = f"the arguments of {call.id!r} that were told whole differ from their deltas"
                out.append(Notice("warning", what))

    # --- whole items -----------------------------------------------------------------------------

    def _finisher(self, item: OutputItem) -> _Finisher:
        kind = item.kind
        if item.call is not None:
            return Items._finish_call
        if kind in BUILT_IN_CALLS and runs_here(kind, item.raw):
            return Items._finish_built_in
        if kind not in Items._FINISHERS and is_server_item(kind):
            return Items._finish_server_tool
        return Items._FINISHERS.get(kind, Items._keep)

    def _finish_message(self, item: OutputItem, wire: Item, out: Out) -> None:
        self._settle_parts(item, CONTENT, wire.content, out)
        item.parts.close_all(out)
        phase = loads(wire.phase)
        if phase and isinstance(phase, str):
            self._carry(Opaque(self._target.provider, PHASE, phase), out)

    def _settle_parts(self, item: OutputItem, family: str, raw: RawJSON, out: Out) -> bool:
        """Take the texts of a family; say whether there was one. A part of another kind is kept as it came."""
        parts = self._fields.parts(raw)
        if isinstance(parts, Failure):
            out.append(broken(parts.error, self._target))
            return False
        wholes: list[Whole] = []
        kept: list[RawJSON] = []
        for place, part in enumerate(parts):
            kind = _PART_KINDS.get(part.type or "")
            if kind is None:
                kept = kept or elements(raw)
                out.append(Unknown(part.type or "part", bytes(kept[place]).decode()))
                continue
            text = _text_of(part)
            if text:
                self._note(kind)
            wholes.append(Whole(kind, text, as_list(loads(part.annotations)), part.logprobs))
        item.parts.settle_all(family, wholes, out)
        return bool(wholes)

    def _finish_reasoning(self, item: OutputItem, wire: Item, out: Out) -> None:
        self._settle_parts(item, SUMMARY, wire.summary, out)
        in_the_clear = self._settle_parts(item, CONTENT, wire.content, out)
        encrypted = self._fields.text(wire.encrypted_content)
        opaque = [Opaque(self._target.provider, ENCRYPTED, encrypted, read_text(wire.id))] if encrypted else []
        if in_the_clear:
            opaque.append(Opaque(self._target.provider, OPEN, "", read_text(wire.id)))
        block = item.parts.reasoning = item.parts.reasoning or self._blocks.open_reasoning(out)
        block.opaque += opaque

    def _finish_call(self, item: OutputItem, wire: Item, out: Out) -> None:
        whole = wire.input if item.kind == CUSTOM_CALL else wire.arguments
        self._settle_call(item, self._fields.text(whole), out)
        self._close(item, out, cut=read_text(wire.status) == "incomplete")

    def _finish_built_in(self, item: OutputItem, wire: Item, out: Out) -> None:
        self.calls += 1
        fields = members(item.raw)
        arguments = next((fields[name] for name in BUILT_IN_CALLS[item.kind] if name in fields), NULL)
        block = self._blocks.open_tool_call(out, read_text(wire.call_id) or item.id, item.kind.removesuffix("_call"))
        block.opaque.append(Opaque(self._target.provider, ITEM, compact(item.raw)))
        self._blocks.arguments(out, block, "" if is_null(arguments) else bytes(arguments).decode())
        self._blocks.close(out, block)

    def _finish_server_tool(self, item: OutputItem, wire: Item, out: Out) -> None:  # noqa: ARG002 (one signature)
        self.paused = self.paused or item.kind == APPROVAL
        out += server_events(item.kind, item.raw, lambda: self._blocks.claim(out))

    def _carry_item(self, item: OutputItem, wire: Item, out: Out) -> None:
        self._carry(Opaque(self._target.provider, ITEM, compact(item.raw), read_text(wire.id)), out)

    def _keep(self, item: OutputItem, wire: Item, out: Out) -> None:  # noqa: ARG002 (one signature)
        out.append(Unknown(item.kind or "output_item", bytes(item.raw).decode("utf-8", "replace")))

    def _carry(self, opaque: Opaque, out: Out) -> None:
        """Keep what must go back to its issuer and has no event of its own, in an empty block of reasoning."""
        block = self._blocks.open_reasoning(out)
        block.opaque.append(opaque)
        self._blocks.close(out, block)

    # --- the end ---------------------------------------------------------------------------------

    def end(self, output: list[RawJSON], out: Out, *, cut: bool) -> None:
        """Finish what was not done, by the response's own list of items where it is there, and close the rest.

        Items of the list are told apart by their type and their order within it: ids change at some hosts, two items
        share one at others, and others leave items out.
        """
        waiting: dict[str, list[OutputItem]] = {}
        for item in self._all:
            waiting.setdefault(item.kind or _guess(item), []).append(item)
        for raw in output:
            wire = self._fields.item(raw)
            if isinstance(wire, Failure):
                out.append(broken(wire.error, self._target))
                return
            same = waiting.get(wire.type or "")
            item = same.pop(0) if same else self._new(None, "", out)
            if not item.kind:
                self._name(item, read_text(wire.id) or read_text(wire.call_id))
                self._begin(item, wire, raw, out)
            if not item.done:
                self._complete(item, wire, raw, out)
        for item in self._all:
            if not item.done:
                self._abandon(item, out, cut=cut)
            item.parts.close_all(out)  # of what came after it was done

    def _abandon(self, item: OutputItem, out: Out, *, cut: bool) -> None:
        item.done = True
        if item.held:
            self._open_call(item, Item(), out)
        if is_server_item(item.kind) and item.call is None:
            self._finisher(item)(self, item, Item(), out)
        self._close(item, out, cut=cut)

    _FINISHERS: ClassVar[dict[str, _Finisher]] = {
        "message": _finish_message,
        "reasoning": _finish_reasoning,
        "compaction": _carry_item,
    }


_Finisher = Callable[[Items, OutputItem, Item, Out], None]


def _json_of(text: str) -> object:
    return loads(text.encode("utf-8", "replace"))


def _same(item: OutputItem, id: str, raw: RawJSON) -> bool:  # noqa: A002 (the field's name)
    return id == item.id if id and item.id else bytes(raw) == bytes(item.raw)


def _guess(item: OutputItem) -> str:
    """Give the type of an item that never began, by what came of it."""
    if item.held:
        return FUNCTION_CALL
    return "reasoning" if item.parts.reasoning is not None else "message"


def _index(event: StreamEvent, family: str) -> int:
    index = event.summary_index if family == SUMMARY else event.content_index
    return index or 0


def _text_of(part: ContentPart) -> str:
    return part.text or part.refusal or ""
