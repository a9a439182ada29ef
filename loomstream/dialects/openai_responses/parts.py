"""The texts of one output item: they grow by deltas and are told again, whole, when they are done.

Contract: never raises. A text that is told again is neither doubled nor lost: what goes beyond the deltas is given as
one more delta; one that contradicts them is announced and left as it was delivered. Knows no frame.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects.blocks import Blocks, OpenBlock, heal
from loomstream.dialects.fields import JSONObject, as_object, as_text, is_null
from loomstream.dialects.probabilities import read_entries
from loomstream.errors import Failure
from loomstream.events import (
    Citation,
    Event,
    Logprobs,
    Notice,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TokenLogprob,
)
from loomstream.wire.json import loads

Out = list[Event | Failure]
PartKind = Literal["text", "refusal", "reasoning"]


class Whole(NamedTuple):
    """A text as its item tells it when it is done."""

    kind: PartKind
    text: str
    annotations: list[object]
    logprobs: RawJSON


class Part:
    """One text. `index` is its block's, -1 before there is one; `block` is open while it grows."""

    __slots__ = ("_counted", "_length", "block", "citations", "index", "kind", "pieces", "tokens", "waiting")

    def __init__(self, kind: PartKind) -> None:
        self.kind: PartKind = kind
        self.block: OpenBlock | None = None
        self.index = -1
        self.pieces: list[str] = []
        self.citations = 0
        self.tokens: list[TokenLogprob] = []
        self.waiting = 0
        """How many of the tokens, the last ones, came before there was a block."""
        self._counted = self._length = 0

    @property
    def length(self) -> int:
        """How long the text is; what was counted is not counted again."""
        self._length += sum(map(len, self.pieces[self._counted :]))
        self._counted = len(self.pieces)
        return self._length

    def joined(self) -> str:
        """Give the text."""
        whole = "".join(self.pieces)
        self.pieces = [whole]
        self._counted, self._length = 1, len(whole)
        return whole


class Parts:
    """The texts of one output item, by family (`content` or `summary`), kind and index. Methods append to a list.

    The index is a key, never a position: hosts count from 1, or leave it out.
    """

    __slots__ = ("_blocks", "_contradicted", "_owner", "_parts", "_told_of_logprobs", "reasoning")

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._parts: dict[tuple[str, PartKind, int], Part] = {}
        self._contradicted = False
        self._told_of_logprobs = False
        self._owner: Part | None = None
        """The reasoning that grows in the open block."""
        self.reasoning: OpenBlock | None = None
        """The block that reasoning grows in: one for each part; the last stays open until the item is done."""

    def at(self, family: str, kind: PartKind, index: int) -> Part:
        """Give a text, an empty one at first."""
        key = (family, kind, index)
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = Part(kind)
        return part

    def grow(self, part: Part, text: str, out: Out) -> None:
        """Add to a text; an empty addition does nothing."""
        if not text:
            return
        part.pieces.append(text)
        if part.kind == "text":
            out.append(TextDelta(self._text_block(part, out).index, text))
        elif part.kind == "reasoning":
            out.append(ReasoningDelta(self._reasoning_block(part, out).index, text))
        else:
            if part.index < 0:
                part.index = self._blocks.claim(out)
            out.append(RefusalDelta(part.index, text))

    def _text_block(self, part: Part, out: Out) -> OpenBlock:
        if part.block is None:
            part.block = self._blocks.open_text(out)
            part.index = part.block.index
        return part.block

    def _reasoning_block(self, part: Part, out: Out) -> OpenBlock:
        block = self.reasoning
        if block is None or self._owner not in (None, part):
            self.close_reasoning(out)
            block = self.reasoning = self._blocks.open_reasoning(out)
        self._owner = part
        return block

    def close_reasoning(self, out: Out) -> None:
        """Close the block that reasoning grows in."""
        if self.reasoning is not None:
            self._blocks.close(out, self.reasoning)
            self.reasoning = self._owner = None

    def settle(self, part: Part, whole: str, out: Out) -> None:
        """Take a text that is told whole."""
        if not whole:
            return
        rest = _rest(part, whole)
        if rest is not None:
            self.grow(part, rest, out)
        elif not self._contradicted:
            self._contradicted = True
            out.append(Notice("warning", f"a {part.kind} that was told whole differs from its deltas"))

    def weigh(self, part: Part, raw: RawJSON, out: Out, *, whole: bool = False) -> None:
        """Take token probabilities of a text: what is new, or (`whole`) all of them, of which some were told before."""
        if part.kind != "text" or is_null(raw):
            return
        read = read_entries(loads(raw))
        told = part.tokens if whole else []
        goes_on = read.tokens[: len(told)] == tuple(told)
        if read.unreadable or (read.tokens and not goes_on):
            self._misread(out)
        if goes_on:
            part.waiting += len(read.tokens) - len(told)
            part.tokens += read.tokens[len(told) :]
        if part.waiting and part.index >= 0:
            out.append(Logprobs(part.index, tuple(part.tokens[-part.waiting :])))
            part.waiting = 0

    def _misread(self, out: Out) -> None:
        if not self._told_of_logprobs:
            self._told_of_logprobs = True
            out.append(Notice("warning", "token probabilities that cannot be read are left out"))

    def settle_all(self, family: str, wholes: list[Whole], out: Out) -> None:
        """Take all texts of a family in their order."""
        known: dict[PartKind, deque[Part]] = {}
        for place in sorted(place for place in self._parts if place[0] == family):
            known.setdefault(place[1], deque()).append(self._parts[place])
        free = max((index for _, _, index in self._parts), default=-1) + 1
        for position, whole in enumerate(wholes, free):
            same = known.get(whole.kind)
            part = same.popleft() if same else self.at(family, whole.kind, position)
            self.settle(part, whole.text, out)
            self.cite(part, whole.annotations, out)
            self.weigh(part, whole.logprobs, out, whole=True)

    def cite(self, part: Part, annotations: list[object], out: Out) -> None:
        """Take the citations of a text, all of them: those that came one by one are passed over."""
        for item in annotations[part.citations :]:
            self.add_citation(part, as_object(item), out)

    def add_citation(self, part: Part, item: JSONObject, out: Out) -> None:
        """Take one citation more."""
        part.citations += 1
        if part.kind != "text" or not item:
            return
        if part.index < 0:
            self._text_block(part, out)
        out.append(_citation(part.index, item))

    def close(self, part: Part, out: Out) -> None:
        """Close a text's block; reasoning stays open until its item is done."""
        if part.kind == "text" and part.block is not None:
            self._blocks.close(out, part.block)
            part.block = None

    def close_all(self, out: Out) -> None:
        """Close what is open."""
        for part in self._parts.values():
            self.close(part, out)
        self.close_reasoning(out)


def _rest(part: Part, whole: str) -> str | None:
    """Give what a whole text adds to its deltas, None where it differs; the work is no more than its length."""
    if 4 * len(whole) < part.length:  # two halves of a character, carried as two each, are healed to one at most
        return None
    told = part.joined()
    if told == whole:
        return ""
    told, whole = heal(told), heal(whole)
    return whole[len(told) :] if whole.startswith(told) else None


def _citation(index: int, item: JSONObject) -> Citation:
    place = item.get("index")
    start, end = item.get("start_index", place), item.get("end_index")
    return Citation(
        index,
        as_text(item.get("type")),
        as_text(item.get("url")),
        as_text(item.get("title")) or as_text(item.get("filename")),
        start=start if type(start) is int else None,
        end=end if type(end) is int else None,
        raw=RawJSON(msgspec.json.encode(item)),
    )
