"""The goldens of a dialect at its translator: frames in, events out, without pump or decoder.

`tests/streams` runs the same files through the whole pipeline; here a frame is taken away, or damaged in any node.
"""

# ruff: noqa: ANN401 (frames hold JSON of any shape)
from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loomstream.accumulate import fold
from loomstream.dialects import Dialect, Target
from loomstream.errors import Failure, LoomstreamError
from loomstream.events import Event, Logprobs, Stop, encode
from loomstream.messages import Message
from loomstream.testing import check_order
from loomstream.wire import Frame

STREAMS = Path(__file__).parent / "streams"
REPLACEMENTS: list[Any] = [None, 7, -1, 1.5, "x", True, [], {}, [{}], {"type": "x"}]

Outcome = tuple[list[Event], LoomstreamError | None]
"""The events of a run, and the error that ended it."""


def frame(value: Any) -> Frame:
    return Frame("", _dumps(value))


def split(items: list[Event | Failure]) -> Outcome:
    events = [item for item in items if not isinstance(item, Failure)]
    failures = [item.error for item in items if isinstance(item, Failure)]
    assert len(failures) <= 1
    assert not failures or isinstance(items[-1], Failure)
    return events, failures[0] if failures else None


def message_of(events: list[Event]) -> Message:
    """Give what the answer says, without the token probabilities beside it."""
    return fold([event for event in events if not isinstance(event, Logprobs)]).message


def sse_frames(body: bytes) -> list[Frame]:
    """Split an event stream that has no odd line ends; an unfinished last event is dropped."""
    frames = []
    for event in body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n\n")[:-1]:
        lines = [line.partition(b": ") for line in event.split(b"\n")]
        name = b"".join(value for field, _, value in lines if field == b"event").decode()
        data = [value for field, _, value in lines if field == b"data"]
        frames += [Frame(name, b"\n".join(data))] if data else []
    return frames


def line_frames(body: bytes) -> list[Frame]:
    """Split lines of JSON."""
    return [Frame("", line.rstrip(b"\r")) for line in body.split(b"\n") if line.strip()]


class Goldens:
    """The goldens of one dialect. `after` is a frame that means nothing once a stream is over."""

    def __init__(
        self, dialect: Dialect, target: Target, folder: str, frames_of: Callable[[bytes], list[Frame]], *, after: Frame
    ) -> None:
        self.dialect = dialect
        self.target = target
        self.folder = STREAMS / folder
        self._frames_of = frames_of
        self._after = after
        metas = {path.name.removesuffix(".meta.toml"): path for path in sorted(self.folder.glob("*.meta.toml"))}
        self.metas = {name: tomllib.loads(path.read_text("utf-8")) for name, path in metas.items()}
        self.streams = [
            name
            for name, meta in self.metas.items()
            if meta["content_type"] != "application/json" and meta.get("status", 200) < 300
        ]
        """The cases that are streams, by what their heads say."""
        self.healthy = [name for name in self.streams if "error" not in self.metas[name]]

    def frames(self, name: str) -> list[Frame]:
        return self._frames_of((self.folder / f"{name}.bin").read_bytes())

    def respelt(self, name: str) -> list[Frame]:
        """Give a golden's frames with their JSON as Python writes it, as damaged ones have it."""
        return [one if one.data == b"[DONE]" else Frame(one.name, _dumps(_value(one))) for one in self.frames(name)]

    def translate(self, frames: list[Frame], target: Target | None = None) -> Outcome:
        translator = self.dialect.translator(target or self.target)
        items: list[Event | Failure] = []
        for one in frames:
            items += translator.feed(one)
        items += translator.finish()
        assert translator.finish() == []
        assert translator.feed(self._after) == []
        return split(items)

    def check(self, name: str) -> None:
        """A golden gives what stands in it; without its last frames, a beginning of that and never a whole answer."""
        frames = self.frames(name)
        events, error = self.translate(frames)
        assert (
            b"".join(encode(event) + b"\n" for event in events) == (self.folder / f"{name}.events.jsonl").read_bytes()
        )
        assert (type(error).__name__ if error else None) == self.metas[name].get("error")
        check_order(events, complete=error is None)
        if error is not None:
            assert (error.provider, error.model) == (self.target.provider, self.target.model)
        for cut in range(len(frames)):
            part, cut_error = self.translate(frames[:cut])
            assert [encode(event) for event in part] == [encode(event) for event in events[: len(part)]]
            assert cut_error is not None or isinstance(part[-1], Stop)

    def damage(self, name: str) -> Iterator[tuple[tuple[Any, ...], Outcome]]:
        """Give the outcome for each node of each frame, taken away or replaced, with the node's path in its frame.

        The order law is checked here.
        """
        frames = self.respelt(name)
        for position, original in enumerate(frames):
            value = {} if original.data == b"[DONE]" else _value(original)
            for path in _places(value):
                for changed in _damaged(value, path):
                    damaged = Frame(original.name, _dumps(changed))
                    events, error = self.translate([*frames[:position], damaged, *frames[position + 1 :]])
                    check_order(events, complete=error is None)
                    yield path, (events, error)


def _value(one: Frame) -> Any:
    return json.loads(one.data.decode("utf-8", "replace"))


def _dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


def _damaged(value: Any, path: tuple[Any, ...]) -> Iterator[Any]:
    for replacement in (..., *REPLACEMENTS):
        changed = copy.deepcopy(value)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        if replacement is ...:
            del inner[path[-1]]
        else:
            inner[path[-1]] = replacement
        yield changed
