"""`--output-schema FILE`: what it may be."""

from __future__ import annotations

import os

import pytest

from loomstream.cli.schema_file import read_schema
from loomstream.errors import RequestError


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/dev/zero", "--output-schema /dev/zero is larger than 4 MiB"),
        ("nowhere.json", "nowhere.json cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
        ("a\x00b", "cannot be read: embedded null byte"),
        (os.devnull, "this is no JSON Schema of an object"),
    ],
)
def test_what_is_no_schema(path: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        read_schema(path)


def test_a_schema_may_come_by_a_pipe() -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"type": "object", "title": "A river"}')
    os.close(writing)
    try:
        output = read_schema(f"/dev/fd/{reading}")
    finally:
        os.close(reading)
    assert output.name == "A_river"
