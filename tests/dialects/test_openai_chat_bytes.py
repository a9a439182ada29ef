"""Chat Completions: whatever the bytes, only typed events and typed errors come of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.accumulate import fold
from loomstream.events import (
    Raw,
    Start,
    Stop,
)
from loomstream.providers.table import TABLE
from loomstream.testing import check_order

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "streams"))

from cases import Case, load, run
from chat_streams import chunk, decode, of, sse

# --- whatever the bytes --------------------------------------------------------------------------


CASES = [case for case in load() if case.path.parent.name == "openai_chat"]
MARK = "@@MARK@@"
VALUES = (
    b"null",
    b"7",
    b"-1",
    b"1.5",
    b"true",
    b'""',
    b'"s"',
    rb'"\ud83d"',
    b'"\xff"',
    b"[]",
    b'[null,{},"s"]',
    b'{"x":["\xff"]}',
    b"1e999",
    b"9" * 40,
    b'"' + b"x" * 5000 + b'"',
)
"""What is put in the place of each JSON value."""


def paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def replaced(value: object, path: tuple[str | int, ...], new: object) -> object:
    """Give the value with another at the path; without it where `new` is Ellipsis."""
    if not path:
        return new
    copied = cast("Any", value).copy()
    key = path[0]
    if len(path) == 1 and new is ...:
        del copied[key]
    else:
        copied[key] = replaced(copied[key], path[1:], new)
    return copied


def mutations(data: bytes) -> Iterator[bytes]:
    value = json.loads(data)
    for path in paths(value):
        if path:
            yield json.dumps(replaced(value, path, ...)).encode()
        marked = json.dumps(replaced(value, path, MARK)).encode()
        for other in VALUES:
            yield marked.replace(f'"{MARK}"'.encode(), other)


def json_units(body: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Give each JSON text of a body with what stands before and after it."""
    lines = body.splitlines(keepends=True)
    for position, line in enumerate(lines):
        name, _, payload = line.partition(b":")
        text = payload if name == b"data" else line
        try:
            json.loads(text)
        except ValueError:
            continue
        before = b"".join(lines[:position]) + (b"data: " if name == b"data" else b"")
        yield before, text.strip(), b"\n" + b"".join(lines[position + 1 :])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_no_value_of_any_type_gives_anything_but_typed_events(case: Case) -> None:
    """Every JSON value of every golden is dropped, and replaced by values of every type."""
    seen: set[bytes] = set()
    for before, data, after in json_units(case.body):
        for mutated in mutations(data):
            if mutated in seen:
                continue
            seen.add(mutated)
            outcome = run(case, [before + mutated + after])
            check_order(outcome.events, complete=not outcome.error)
            fold(outcome.events)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_bytes_of_a_golden_that_were_damaged_give_typed_events(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(CASES))
    body = bytearray(case.body)
    for _ in range(data.draw(st.integers(1, 4))):
        if body:
            place = data.draw(st.integers(0, len(body) - 1))
            body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    outcome = run(case, [bytes(body)])
    check_order(outcome.events, complete=not outcome.error)


@pytest.mark.parametrize("provider", [row.name for row in TABLE if row.dialect == "openai_chat"])
def test_every_row_of_the_table_reads_a_plain_stream(provider: str) -> None:
    events = decode(sse(chunk({"content": "a"}, "stop")), provider)
    assert events[0] == Start(provider, "m-1", "chatcmpl-1")
    assert events[-1] == Stop("end_turn", "stop")
    assert not of(Raw, events)
