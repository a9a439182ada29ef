"""What every dialect does with the headers that a host wants."""

from __future__ import annotations

import pytest

from loomstream.dialects import Quirks, Target
from loomstream.messages import Request, user
from loomstream.providers import DIALECTS, dialect_module

HOST = {"x-org": "{organization}", "x-none": "{project}", "x-plain": "as it is", "x-mine": "host"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_host_s_headers_are_sent_and_the_request_s_count_more(dialect: str) -> None:
    target = Target(
        provider="host",
        model="m",
        base_url="https://host.test",
        quirks=Quirks(headers=HOST),
        settings={"organization": "acme"},
    )
    for stream in (True, False):
        request = Request(messages=(user("hi"),), stream=stream, extra_headers={"x-mine": "own"})
        headers = dialect_module(dialect).build_request(request, target).headers
        assert {name: value for name, value in headers.items() if name in HOST} == {
            "x-org": "acme",
            "x-plain": "as it is",
            "x-mine": "own",
        }
