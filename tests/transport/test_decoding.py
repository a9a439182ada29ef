"""Content codings are undone piece by piece, whatever the cuts, within bounds."""
# ruff: noqa: PT012 (an error may come when a response is opened, read or left: a block is the unit here)

import gzip
import importlib
import zlib
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.errors import ConnectionLost, LimitExceeded, LoomstreamError, UnexpectedContent
from loomstream.transport.decoding import FREE_BYTES, MAX_GZIP_MEMBERS, MAX_RATIO, PIECE_BYTES, decoded

TEXT = b"".join(b'data: {"n": %d}\n\n' % number for number in range(5000))
BOMB = b":" * (32 * 1024 * 1024)


def compressor(name: str) -> Callable[[bytes], bytes]:
    builtin = {
        "gzip": gzip.compress,
        "x-gzip": gzip.compress,
        "deflate": zlib.compress,
        "raw deflate": lambda data: zlib.compress(data, wbits=-15),
    }
    if name in builtin:
        return builtin[name]
    module = importlib.import_module({"br": "brotli", "zstd": "zstandard"}[name])
    return module.compress


CODINGS = ["gzip", "x-gzip", "deflate", "raw deflate"]
for coding, package in (("br", "brotli"), ("zstd", "zstandard")):
    if importlib.util.find_spec(package) is not None:
        CODINGS.append(coding)

pytestmark = pytest.mark.anyio


class Pieces:
    """A body in slices; a class, because an abandoned generator is a warning on trio."""

    def __init__(self, data: bytes, size: int) -> None:
        self._slices = [data[start : start + size] for start in range(0, len(data), size)]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._slices:
            raise StopAsyncIteration
        return self._slices.pop(0)


def named(coding: str) -> str:
    return coding.removeprefix("raw ")


async def undo(data: bytes, coding: str, size: int = 4096) -> bytes:
    return b"".join([piece async for piece in decoded(Pieces(data, size), named(coding))])


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [1, 7, 4096, 10**7])
async def test_whole_bodies(coding: str, size: int) -> None:
    assert await undo(compressor(coding)(TEXT), coding, size) == TEXT


async def test_identity_passes_untouched() -> None:
    source = Pieces(b"hello", 2)
    assert decoded(source, "identity") is source
    assert decoded(source, " ") is source


async def test_an_empty_body_has_no_coding() -> None:
    assert await undo(b"", "gzip") == b""


async def test_gzip_of_several_members() -> None:
    assert await undo(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip", 5) == b"one two"


async def test_members_without_end_are_stopped() -> None:
    """Each is empty: they cost time, and give nothing that a limit on the decoded bytes would count."""
    member = gzip.compress(b"")
    assert await undo(member * MAX_GZIP_MEMBERS, "gzip") == b""
    with pytest.raises(LimitExceeded, match="1,000 members"):
        await undo(member * (MAX_GZIP_MEMBERS + 1), "gzip")


@pytest.mark.parametrize("coding", CODINGS)
async def test_every_truncation_is_connection_lost(coding: str) -> None:
    data = compressor(coding)(TEXT[:400])
    for end in range(1, len(data)):
        with pytest.raises(ConnectionLost):
            await undo(data[:end], coding)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_bomb_is_stopped_within_its_bound(coding: str) -> None:
    data = compressor(coding)(BOMB)
    received = 0
    with pytest.raises(LimitExceeded, match="100 to 1"):
        async for piece in decoded(Pieces(data, 4096), named(coding)):
            assert len(piece) <= 128 * PIECE_BYTES
            received += len(piece)
    assert received <= max(FREE_BYTES, MAX_RATIO * len(data))


@pytest.mark.parametrize("coding", ["rot13", "gzip, gzip", "compress"])
async def test_an_unknown_coding_is_refused_at_once(coding: str) -> None:
    source = Pieces(b"x", 1)
    with pytest.raises(UnexpectedContent):
        decoded(source, coding)


@given(data=st.binary(min_size=1, max_size=300), coding=st.sampled_from(CODINGS), size=st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_garbage_gives_our_errors_only(data: bytes, coding: str, size: int) -> None:
    running = undo(data, coding, size)
    try:
        running.send(None)  # nothing in it waits: one step runs it to its end
    except StopIteration:
        return
    except LoomstreamError:
        return
    pytest.fail("it waited")
