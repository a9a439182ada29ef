"""Providers: rows of data, the table's and those of installed packages."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import loomstream
from loomstream import providers
from loomstream.auth import SCHEMES
from loomstream.dialects import Quirks
from loomstream.errors import ConfigError, UnknownProvider
from loomstream.events import TextDelta
from loomstream.providers import DIALECTS, Provider, all_providers, dialect_module, look_up
from loomstream.providers.table import BY_NAME, TABLE
from loomstream.wire.sniff import sniff


@pytest.fixture(autouse=True)
def nothing_else_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Show only the packages that a test installs, not those of whoever runs it."""

    def entry_points(*, group: str) -> list[metadata.EntryPoint]:
        installed = metadata.distributions(path=[str(tmp_path)])
        return [entry for package in installed for entry in package.entry_points if entry.group == group]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    providers._installed.cache_clear()
    yield
    providers._installed.cache_clear()


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
    for name in ("build_request", "warnings", "translator", "parse_response", "parse_error"):
        assert callable(getattr(module, name))
    beginning = {"sse": b"data: x", "ndjson": b"{", "json": b"{"}[DIALECTS[dialect]]
    assert sniff(beginning, DIALECTS[dialect], "") == DIALECTS[dialect]


def test_an_unknown_dialect_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="unknown dialect 'x': known are anthropic_messages"):
        dialect_module("x")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("opnai", "did you mean 'openai'"),
        ("OpenAI", "did you mean 'openai'"),
        ("zzzzzz", f"known are {min(BY_NAME)}, "),
    ],
)
def test_an_unknown_provider_suggests_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownProvider, match=hint) as raised:
        look_up(name)
    assert "openai-compatible with base_url=" in str(raised.value)


@pytest.mark.parametrize("name", ["zzzzzz", "nope", ""])
def test_a_name_like_no_other_suggests_none(name: str) -> None:
    with pytest.raises(UnknownProvider) as raised:
        look_up(name)
    assert "did you mean" not in str(raised.value)


# --- installed packages ------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Give a function that installs a package with the given module text and entry points."""

    def installing(module: str, source: str, *entries: str) -> None:
        (tmp_path / f"{module}.py").write_text(source, "utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", "utf-8")
        (info / "entry_points.txt").write_text("[loomstream.providers]\n" + "\n".join(entries) + "\n", "utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        providers._installed.cache_clear()

    return installing


ACME = """
from loomstream.dialects import Quirks
from loomstream.providers import Provider

row = Provider(name="acme", base_url="https://api.acme.test/v1", quirks=Quirks(done_marker=True))
shadow = Provider(name="openai", base_url="https://evil.test/v1")
not_a_row = {"name": "acme"}
wrong_auth = Provider(name="acme", auth="basic")
wrong_dialect = Provider(name="acme", dialect="acme_chat")
"""


def test_a_package_can_add_a_provider(install: object) -> None:
    assert callable(install)
    install("acme_rows_a", ACME, "acme = acme_rows_a:row")
    row = look_up("acme")
    assert row.quirks == Quirks(done_marker=True)
    assert all_providers() == (*TABLE, row)
    events = list(
        loomstream.decode("acme", b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n', model="m")
    )
    assert TextDelta(0, "a") in events


def test_a_package_cannot_take_the_place_of_a_row_of_the_table(install: object) -> None:
    assert callable(install)
    install("acme_rows_b", ACME, "openai = acme_rows_b:shadow")
    assert look_up("openai").base_url == "https://api.openai.com/v1"
    assert all_providers() == TABLE


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("acme_rows_c:not_a_row", "gives a dict, no Provider"),
        ("acme_rows_c:wrong_auth", "auth"),
        ("acme_rows_c:wrong_dialect", "unknown dialect 'acme_chat'"),
        ("acme_rows_c:missing", "cannot be loaded .*AttributeError"),
        ("no_such_module_anywhere:row", "cannot be loaded .*ModuleNotFoundError"),
    ],
)
def test_a_bad_entry_point_is_a_config_error_that_names_it(install: object, target: str, what: str) -> None:
    assert callable(install)
    install("acme_rows_c", ACME, f"acme = {target}")
    with pytest.raises(ConfigError, match=f"entry point 'acme'.*{what}"):
        all_providers()
    assert look_up("openai").name == "openai"
    with pytest.raises(ConfigError, match="entry point 'acme'"):
        look_up("acme")


def test_nothing_is_installed_otherwise() -> None:
    assert all_providers() == TABLE
