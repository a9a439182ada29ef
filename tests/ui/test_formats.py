"""Every event in every format, as goldens: `python tests/ui/test_formats.py --write` renews them; read what changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw as RawJSON

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from held_models import EVERY_EVENT

from loomstream import agent, events
from loomstream.errors import FirstEventTimeout, RateLimited, StreamCancelled, UsageError
from loomstream.ui import describe_kind, encoder
from loomstream.ui.asgi import FORMATS
from loomstream.ui.formats import Format
from loomstream.wire import Frame
from loomstream.wire.sse import SSEDecoder

GOLDENS = Path(__file__).with_name("goldens")
DECODED = [agent.decode(agent.encode(event).translate(bytes.maketrans(b"\r\n", b"  "))) for event in EVERY_EVENT]
"""The events as JSON carries them: the line ends between a provider's tokens are spaces."""
LIMITED = RateLimited("acme: too many requests\r\nask again", retry_after_s=2.5)


def encoded(kind: Format, ending: Exception | None = None) -> bytes:
    making = encoder(kind)
    told = [making.event(number, event) for number, event in enumerate(EVERY_EVENT, 1)]
    last = len(EVERY_EVENT) + 1
    end = making.end(last) if ending is None else making.error(last, ending)
    return b"".join([*told, end])


def frames(data: bytes) -> list[Frame]:
    decoder = SSEDecoder()
    found = [*decoder.feed(data), *decoder.finish()]
    assert all(isinstance(frame, Frame) for frame in found)
    return [frame for frame in found if isinstance(frame, Frame)]


def test_every_kind_of_event_is_in_the_goldens() -> None:
    assert {type(event) for event in EVERY_EVENT} == set(get_args(agent.RunEvent))


@pytest.mark.parametrize("kind", FORMATS)
def test_goldens(kind: Format) -> None:
    golden = (GOLDENS / kind).read_bytes()
    assert encoded(kind) == golden, "run: python tests/ui/test_formats.py --write, and read what changed"


@pytest.mark.parametrize("kind", ["sse", "ai-sdk"])
def test_frames_hold_what_was_put_in(kind: Format) -> None:
    """Our own decoder, which is not the encoder's twin, finds one JSON a frame, whatever line ends raw JSON brought."""
    found = frames(encoded(kind))
    texts = [bytes(frame.data).decode() for frame in found]
    if kind == "ai-sdk":
        assert texts.pop() == "[DONE]"
    assert all(json.loads(text)["type"] for text in texts)


def test_sse_events_are_those_of_the_stream_and_decode() -> None:
    *told, end = frames(encoded("sse"))
    assert [agent.decode(bytes(frame.data)) for frame in told] == DECODED
    assert json.loads(bytes(end.data)) == {"type": "end"}


def test_ids_are_the_numbers() -> None:
    ids = [line for line in encoded("sse").splitlines() if line.startswith(b"id:")]
    assert ids == [b"id: %d" % number for number in range(1, len(EVERY_EVENT) + 2)]


def test_lines_hold_numbered_events() -> None:
    *told, end = encoded("ndjson").split(b"\n")[:-1]
    assert [json.loads(line)["seq"] for line in told] == list(range(1, len(EVERY_EVENT) + 1))
    assert [agent.decode(line) for line in told] == DECODED
    assert json.loads(end) == {"seq": len(EVERY_EVENT) + 1, "type": "end"}


@pytest.mark.parametrize("kind", FORMATS)
def test_an_error_is_the_last_thing(kind: Format) -> None:
    making = encoder(kind)
    making.event(1, events.Start())
    said = making.error(2, LIMITED)
    assert b"RateLimited" in said
    assert b"too many requests" in said
    assert b"\r" not in said


def test_a_stopped_message_is_aborted_not_failed() -> None:
    making = encoder("ai-sdk")
    making.event(1, events.Start())
    making.event(2, events.TextStart(0))
    kinds = [json.loads(bytes(frame.data))["type"] for frame in frames(making.error(3, StreamCancelled("stop")))[:-1]]
    assert kinds == ["text-end", "abort"]


def test_strangers_are_told_the_kind_alone() -> None:
    told = describe_kind(RateLimited("acme: key sk-123 of team Rocket is limited", retry_after_s=3.0))
    assert (told.error, told.retry_after_s) == ("RateLimited", 3.0)
    assert "Rocket" not in told.message
    assert "in time" in describe_kind(FirstEventTimeout("acme")).message


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(TEXTS, min_size=1, max_size=5),
    st.dictionaries(TEXTS, TEXTS, max_size=2),
    st.sampled_from([None, 1, "\r\n"]),
)
def test_whatever_stands_in_it_comes_out(texts: list[str], value: dict[str, str], indent: int | str | None) -> None:
    """Frames are never cut or joined by what a model or a provider says."""
    raw = RawJSON(json.dumps(value, indent=indent).replace("\n", "\r\n" if indent else "\n").encode())
    told: list[events.Event] = [events.TextStart(0), *(events.TextDelta(0, text) for text in texts)]
    told.append(events.Usage(raw=raw))
    making, lines = encoder("sse"), encoder("ndjson")
    data = b"".join(making.event(number, event) for number, event in enumerate(told, 1))
    found = [events.decode(bytes(frame.data)) for frame in frames(data)]
    assert found[:-1] == told[:-1]
    assert json.loads(bytes(found[-1].raw)) == value
    printed = b"".join(lines.event(number, event) for number, event in enumerate(told, 1))
    assert [events.decode(line) for line in printed.split(b"\n")[:-1]] == found


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(UsageError, match="ndjson"):
        encoder("xml")  # pyright: ignore[reportArgumentType]


if __name__ == "__main__" and "--write" in sys.argv:
    GOLDENS.mkdir(exist_ok=True)
    for name in FORMATS:
        (GOLDENS / name).write_bytes(encoded(name))
