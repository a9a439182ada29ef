"""The provider of an installed package has settings, variables and entries of the pool as the built-in ones have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from models import ANSWER

from loomstream.config.edit import set_value
from loomstream.config.load import load
from loomstream.errors import ConfigError
from loomstream.model import connect
from loomstream.providers import look_up, plugins

Write = Callable[..., Path]
SOURCE = """
from loomstream.providers import Provider, Setting

row = Provider(
    name="acme-ai",
    base_url="https://{region}.acme.test/v1",
    settings=(Setting(name="region", environment=("ACME_REGION",), default="eu"), Setting(name="plan")),
    key_environment=("ACME_KEY",),
    keyring="acme_key",
    model_environment=("ACME_MODEL",),
    default_model="large",
)
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "site-packages"
    info = folder / "acme_ai_package-1.0.dist-info"
    info.mkdir(parents=True)
    module = f"acme_ai_{tmp_path.name}"
    (folder / f"{module}.py").write_text(SOURCE, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-ai-package\nVersion: 1.0\n", "utf-8")
    lines = f"[loomstream.providers]\nacme-ai = {module}:row\nbroken = {module}:gone\n"
    (info / "entry_points.txt").write_text(lines, "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    plugins._entries.cache_clear()
    yield
    plugins._entries.cache_clear()


async def sent(**options: object) -> httpx.Request:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=ANSWER)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    async with http, connect(client=http, **options) as model:  # type: ignore[arg-type]
        await model.complete("x")
    return seen[0]


@pytest.mark.anyio
async def test_what_a_file_says_of_it(write: Write) -> None:
    write(
        "llm: {provider: acme-ai, acme_ai_model: small, acme_ai_region: us, acme_ai_api_key: of-file, "
        "acme_ai_extra_headers: {x-team: blue}}"
    )
    assert any("llm.acme_ai_api_key: a secret stands here" in warning for warning in load().warnings)
    request = await sent()
    assert str(request.url) == "https://us.acme.test/v1/chat/completions"
    assert b'"model":"small"' in request.content
    assert (request.headers["authorization"], request.headers["x-team"]) == ("Bearer of-file", "blue")


@pytest.mark.anyio
async def test_what_variables_say_of_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "k")
    monkeypatch.setenv("ACME_MODEL", "of-vendor")
    assert b'"model":"of-vendor"' in (await sent(spec="acme-ai")).content
    write("llm: {provider: acme-ai, acme_ai_model: of-file, acme_ai_base_url: 'https://file.test/v1'}")
    assert b'"model":"of-file"' in (await sent()).content
    monkeypatch.setenv("LOOM_LLM_ACME_AI_MODEL", "of-loom")
    monkeypatch.setenv("LOOM_LLM_ACME_AI_ENDPOINT", "https://loom.test/v1")
    monkeypatch.setenv("LOOM_LLM_ACME_AI_API_KEY", "of-loom")
    request = await sent()
    assert b'"model":"of-loom"' in request.content
    assert (request.url.host, request.headers["authorization"]) == ("loom.test", "Bearer of-loom")
    assert load().origin("llm.acme_ai_model").where == "LOOM_LLM_ACME_AI_MODEL"
    assert load(environ={"LOOM_LLM_ACME_AI_REGION": "us"}).value("llm.acme_ai_region") == "us"


@pytest.mark.anyio
async def test_an_entry_of_the_pool_renames_it(write: Write) -> None:
    write(
        "active_provider: mine\nproviders:\n"
        "  - {name: mine, provider: acme-ai, acme_ai_model: small, settings: {region: us}, acme_ai_api_key: of-entry}\n"
    )
    request = await sent()
    assert (request.url.host, request.headers["authorization"]) == ("us.acme.test", "Bearer of-entry")
    assert b'"model":"small"' in request.content


def test_what_is_wrong_is_told(write: Write) -> None:
    path = write("llm: {acme_ai_modle: x}")
    with pytest.raises(ConfigError, match=rf"^{path}:1:22: llm\.acme_ai_modle: .* did you mean 'acme_ai_model'\?"):
        load()
    write("llm: {acme_ai_base_url: nowhere}")
    with pytest.raises(ConfigError, match=r"llm\.acme_ai_base_url: this must be an address"):
        load()
    write("providers: [{name: mine, provider: acme-aii}]")
    with pytest.raises(ConfigError, match="there is no built-in provider 'acme-aii': did you mean 'acme-ai'"):
        connect("mine")
    write("providers: [{name: mine, provider: broken}, {name: good, provider: openai}]")
    assert connect("good").provider == "openai"
    with pytest.raises(ConfigError, match=r"the entry point 'broken' .* cannot be loaded"):
        connect("mine")


def test_a_file_that_was_found_sends_its_key_nowhere_else(write: Write) -> None:
    write("llm: {provider: acme-ai, acme_ai_base_url: 'https://evil.test/v1'}", here=True)
    with pytest.raises(ConfigError, match="merely found in the working folder"):
        connect()
    write("llm: {provider: acme-ai, acme_ai_region: us}", here=True)
    assert connect().provider == "acme-ai"


def test_a_setting_of_it_is_written(write: Write) -> None:
    path = write("llm: {provider: acme-ai}\n")
    set_value(path, "llm.acme_ai_model", "small")
    assert path.read_text() == "llm: {provider: acme-ai, acme_ai_model: small}\n"
    assert connect().model == "small"
    with pytest.raises(ConfigError, match="is a secret"):
        set_value(path, "llm.acme_ai_api_key", "k")


def test_its_own_variables_stay(write: Write) -> None:
    del write
    row = look_up("acme-ai")
    assert row.key_environment == ("LOOM_LLM_ACME_AI_API_KEY", "ACME_KEY")
    assert [setting.environment for setting in row.settings] == [
        ("LOOM_LLM_ACME_AI_REGION", "ACME_REGION"),
        ("LOOM_LLM_ACME_AI_PLAN",),
    ]
