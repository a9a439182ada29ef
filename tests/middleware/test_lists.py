"""What one read of a socket brings passes each middleware in one list: that is what makes a layer cheap."""

from __future__ import annotations

import pytest

from benchmarks.middleware import PER_READ, REQUEST, Source, rows
from loomstream.handler import batches

pytestmark = pytest.mark.anyio

CUTS_IT = {"smooth": "it gives text in pieces of its own", "cache, a replay": "it gives all that is kept at once"}


@pytest.mark.parametrize("name", sorted(rows().keys() - CUTS_IT))
async def test_a_list_stays_a_list(name: str) -> None:
    sizes: list[int] = []
    async with rows()[name](Source(PER_READ * 10))(REQUEST) as events:
        following = batches(events)
        while True:
            try:
                sizes.append(len(await following()))
            except StopAsyncIteration:
                break
    assert len(sizes) <= 12
    assert sizes[3:9] == [PER_READ] * 6
