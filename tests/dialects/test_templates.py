"""Templates: what is filled into an address, a path or a header does not change its shape."""

from __future__ import annotations

import pytest

from loomstream.dialects import Quirks, Target, check_quirks, endpoint_url, host_headers
from loomstream.dialects.templates import fields, fill_address, host_value
from loomstream.errors import ConfigError, RequestError


def target(model: str = "m", path: str = "", **settings: str) -> Target:
    return Target(provider="acme", model=model, base_url="https://a.test", quirks=Quirks(path=path), settings=settings)


def test_a_value_is_encoded_in_a_path() -> None:
    url = endpoint_url(target("a/b:c d%", place="e?f#é"), "/x/{place}/{model}:go")
    assert url == "https://a.test/x/e%3Ff%23%C3%A9/a%2Fb%3Ac%20d%25:go"


@pytest.mark.parametrize("value", [".", "..", "a\udcff"])
def test_a_value_cannot_name_another_path(value: str) -> None:
    with pytest.raises(RequestError, match="cannot be a model of acme: ") as caught:
        endpoint_url(target(value), "/model/{model}/converse")
    assert caught.value.__cause__ is None
    assert repr(value) in str(caught.value)
    with pytest.raises(ConfigError, match="the setting 'place' of acme cannot be "):
        endpoint_url(target(place=value), "/{place}/x")


def test_a_setting_that_a_path_needs_is_named() -> None:
    with pytest.raises(ConfigError, match=r"acme needs the setting 'place': its path '/\{place\}/x' names it"):
        endpoint_url(target(path="/{place}/x"), "/y")


@pytest.mark.parametrize(
    "template", ["/{", "/}", "/{}", "/{0}", "/{{model}}", "/{model.__class__}", "/{model!r}", "/{model:5}"]
)
def test_braces_stand_around_a_name_only(template: str) -> None:
    with pytest.raises(ConfigError, match="is no template: a brace may only stand around a name"):
        fields(template)
    if "{" in template:
        with pytest.raises(ConfigError, match="is no template"):
            endpoint_url(target(path=template), "/y")


def test_a_header_without_a_value_is_left_out() -> None:
    quirks = Quirks(headers={"x-a": "{a}-{a}", "x-b": "{b}", "x-c": "plain"})
    host = Target(provider="acme", model="m", quirks=quirks, settings={"a": "1"})
    assert host_headers(host) == {"x-a": "1-1", "x-c": "plain"}


def test_quirks_are_checked_against_the_settings() -> None:
    quirks = Quirks(path="/{model}/{place}", stream_path="/{place}", headers={"x-a": "{place}"})
    check_quirks(quirks, ("place",))
    with pytest.raises(ConfigError, match=r"'/\{model\}/\{place\}' names 'place': only model can stand there"):
        check_quirks(quirks, ())


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://{a}", "https://x.test"),
        ("https://{a}/{b}/v1", "https://x.test/p%2Fq/v1"),
        ("https://host.test//{b}", "https://host.test//p%2Fq"),
        ("{a}:8080/v1", "x.test:8080/v1"),
    ],
)
def test_an_address_is_filled(address: str, expected: str) -> None:
    assert fill_address(address, {"a": "x.test", "b": "p/q"}, provider="acme") == expected


def test_an_address_is_a_template() -> None:
    with pytest.raises(ConfigError, match="is no template"):
        fill_address("https://{a.b}/", {"a": "x"}, provider="acme")
    with pytest.raises(KeyError, match="nope"):
        fill_address("https://{nope}/", {}, provider="acme")
    with pytest.raises(ConfigError, match=r"the setting 'b' of acme cannot be '\.\.': it would name another path"):
        fill_address("https://{a}/{b}", {"a": "x", "b": ".."}, provider="acme")


@pytest.mark.parametrize(
    "value", ["", "a/b", "a%2F", "a b", "a\n", "a:1", "u@h", "a..b", ".a", "a.", "é", "\udcff", "a?", "[::1]"]
)
def test_a_part_of_a_host_is_plain(value: str) -> None:
    with pytest.raises(ConfigError, match=r"the setting 'region' of acme cannot be .*: it is part of a host's name"):
        host_value("region", value, provider="acme")


@pytest.mark.parametrize("value", ["us-west-2", "my_org-my_account", "dbc-1.cloud.test"])
def test_usual_parts_of_a_host(value: str) -> None:
    assert host_value("region", value, provider="acme") == value
