"""Providers: rows of data, those of the table."""

from __future__ import annotations

import pytest

from loomstream import pump
from loomstream.auth import SCHEMES
from loomstream.errors import ConfigError, UnknownProvider
from loomstream.providers import (
    DIALECTS,
    Provider,
    all_providers,
    dialect_module,
    dialect_names,
    framing,
    is_known,
    known_names,
    listing,
    look_up,
)
from loomstream.providers.plugins import FRAMINGS
from loomstream.providers.table import BY_NAME, TABLE
from loomstream.wire.sniff import sniff

EMPTY_AWS_MESSAGE = bytes.fromhex("00000010 00000000 05c248eb 7d98c8ff")

each_row = pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])


@each_row
def test_a_row_names_what_exists(row: Provider) -> None:
    assert row.dialect in DIALECTS
    assert row.auth in SCHEMES
    assert look_up(row.name) is row


@each_row
def test_a_row_s_address_is_whole_or_comes_from_elsewhere(row: Provider) -> None:
    if row.base_url:
        assert row.base_url.startswith(("https://", "http://localhost"))
        assert not row.base_url.endswith("/")
    else:
        assert row.base_url_environment or row.launch


@each_row
def test_a_key_has_our_variable_first(row: Provider) -> None:
    if row.key_environment:
        assert row.key_environment[0].startswith("LOOM_LLM_")
        assert row.keyring
    else:
        assert not row.needs_key or row.launch


def test_names_and_variables_are_unique() -> None:
    names = [row.name for row in TABLE]
    assert len(names) == len(set(names))
    variables = [name for row in TABLE for name in (*row.key_environment, *row.base_url_environment)]
    assert len(variables) == len(set(variables))


def test_who_needs_a_key() -> None:
    assert Provider(name="x").needs_key
    assert not Provider(name="x", auth="none").needs_key
    assert not Provider(name="x", key_optional=True).needs_key


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_offers_what_its_contract_says(dialect: str) -> None:
    module = dialect_module(dialect)
    for name in ("build_request", "translator", "parse_response", "parse_error"):
        assert callable(getattr(module, name))
    beginning = {"sse": b"data: x", "ndjson": b"{", "json": b"{", "aws": EMPTY_AWS_MESSAGE}[framing(dialect)]
    assert sniff(beginning, DIALECTS[dialect], "") == DIALECTS[dialect]


def test_the_framings_of_dialects_are_those_that_can_be_decoded() -> None:
    assert sorted(FRAMINGS) == sorted(pump._DECODERS)
    assert set(DIALECTS.values()) <= set(FRAMINGS)
    assert dialect_names() == tuple(DIALECTS)


def test_an_unknown_dialect_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="unknown dialect 'x': known are anthropic_messages"):
        dialect_module("x")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("opnai", "did you mean 'openai'"),
        ("OpenAI", "did you mean 'openai'"),
        ("azure", "did you mean 'azure-openai'"),
        ("Azure", "did you mean 'azure-openai'"),
        ("hugging face", "did you mean 'huggingface'"),
        ("copilot", "did you mean 'github-copilot'"),
        ("aws_bedrock", "did you mean 'bedrock'"),
        ("google-gemini", "did you mean 'gemini'"),
        ("zzzzzz", f"known are {min(BY_NAME)}, "),
    ],
)
def test_an_unknown_provider_suggests_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownProvider, match=hint) as raised:
        look_up(name)
    assert "openai-compatible with base_url=" in str(raised.value)


@pytest.mark.parametrize("name", ["zzzzzz", "nope", "", "my-host"])
def test_a_name_like_no_other_suggests_none(name: str) -> None:
    with pytest.raises(UnknownProvider) as raised:
        look_up(name)
    assert "did you mean" not in str(raised.value)


def test_nothing_is_added_otherwise() -> None:
    assert all_providers() == TABLE
    assert known_names() == tuple(row.name for row in TABLE)
    assert [(listed.name, listed.origin, listed.row) for listed in listing()] == [
        (row.name, "built in", row) for row in TABLE
    ]


def test_what_is_known() -> None:
    assert is_known("openai")
    assert is_known("azureopenai"), "an alias"
    assert not is_known("")
    assert not is_known("opnai")
