"""Schemes that need no vendor's library: a key in a header, a token from a function, none."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType

import pytest

from loomstream.auth import SCHEMES, HeaderKey, Origin, scheme
from loomstream.errors import ConfigError
from loomstream.wire import Secret, WireRequest

REQUEST = WireRequest(url="https://host/v1", headers={"content-type": "application/json"}, body=b"{}")


class Credentials:
    """Keys in the order in which they are given."""

    provider = "acme"
    settings: Mapping[str, str] = {}
    key_is_token = False

    def __init__(self, *keys: Secret | None) -> None:
        self.keys = list(keys)
        self.asked = 0

    def origin(self, name: str) -> Origin:
        del name
        return ""

    async def key(self, *, required: bool = True) -> Secret | None:
        del required
        self.asked += 1
        return self.keys.pop(0) if len(self.keys) > 1 else self.keys[0]

    async def secret(self, name: str) -> Secret | None:
        del name
        return None


def shown(request: WireRequest) -> dict[str, str]:
    return {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in request.headers.items()
        if name != "content-type"
    }


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("bearer", {"authorization": "Bearer k-1"}),
        ("x-api-key", {"x-api-key": "k-1"}),
        ("api-key", {"api-key": "k-1"}),
        ("x-goog-api-key", {"x-goog-api-key": "k-1"}),
        ("none", {}),
    ],
)
async def test_a_scheme_sends_the_key_in_its_header(name: str, headers: dict[str, str]) -> None:
    authenticator = scheme(name)(Credentials(Secret("k-1")))
    await authenticator.prepare()
    request = await authenticator.authorize(REQUEST)
    assert shown(request) == headers
    assert "k-1" not in repr(request)
    assert authenticator.secrets == ((Secret("k-1"),) if headers else ())
    assert not await authenticator.renew()
    await authenticator.aclose()


@pytest.mark.anyio
async def test_without_a_key_nothing_is_added() -> None:
    authenticator = HeaderKey(Credentials(None), header="authorization", prefix="Bearer ")
    assert await authenticator.authorize(REQUEST) == REQUEST
    assert authenticator.secrets == ()


@pytest.mark.anyio
async def test_a_new_token_takes_the_place_of_the_old_one() -> None:
    credentials = Credentials(Secret("t-1"), Secret("t-1"), Secret("t-2"))
    credentials.key_is_token = True
    authenticator = HeaderKey(credentials, header="authorization", prefix="Bearer ")
    await authenticator.authorize(REQUEST)
    assert not await authenticator.renew()  # the same token again
    assert shown(await authenticator.authorize(REQUEST)) == {"authorization": "Bearer t-2"}
    assert authenticator.secrets == (Secret("t-2"),)


@pytest.mark.parametrize("name", ["basic", "no_such_module_acme:make", "json:no_such_name", ":", ""])
def test_an_unknown_scheme_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown authentication scheme"):
        scheme(name)


def test_a_plug_in_brings_a_scheme_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("acme_auth")
    module.make = SCHEMES["none"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acme_auth", module)
    assert scheme("acme_auth:make") is SCHEMES["none"]
