"""The shared store where its client is not installed; with a server: `tests/peers/test_redis.py`."""

from __future__ import annotations

import sys

import pytest

from loomstream.errors import ConfigError
from loomstream.middleware.redis_store import RedisStore


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r"pip install 'loomstream\[redis\]'"):
        RedisStore("redis://localhost")
