"""Who answers: what is said of a name that means nobody, and where it was named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from models import ANSWER

from loomstream.config.load import load
from loomstream.errors import ConfigError, UnknownProvider
from loomstream.model import connect
from loomstream.transport.record import read_recording

Write = Callable[..., Path]


@pytest.mark.parametrize("value", ["Anthropic", " Anthropic:claude-x ", "Anthropic:"])
def test_a_variable_that_names_nobody_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_LLM_PROVIDER", value)
    where = (
        r"the variable LOOM_LLM_PROVIDER \(llm\.provider\): unknown provider 'Anthropic': did you mean 'anthropic'\?"
    )
    with pytest.raises(UnknownProvider, match=f"^{where}"):
        connect()
    assert connect("openai").provider == "openai", "a program that names another one is not stopped"


def test_a_name_that_a_program_gives_is_told_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_LLM_PROVIDER", "openai")
    with pytest.raises(UnknownProvider, match=r"^unknown provider 'anthropik'"):
        connect("anthropik")


def test_a_variable_may_name_an_entry_of_the_pool_and_a_model(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("providers: [{name: acme, base_url: 'https://acme.test/v1'}]")
    monkeypatch.setenv("LOOM_LLM_PROVIDER", " acme:m ")
    model = connect()
    assert (model.provider, model.model) == ("acme", "m")


def test_who_is_asked_next_is_looked_up_when_the_file_is_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("llm: {provider: openai}\nmiddleware:\n  failover:\n    to: [anthropic, mistrall:x]\n")
    place = f"^{path}:4: middleware\\.failover\\.to: unknown provider 'mistrall': did you mean 'mistral'"
    with pytest.raises(UnknownProvider, match=place):
        load()
    path.unlink()
    monkeypatch.setenv("LOOM_MIDDLEWARE_FAILOVER_TO", "anthropic, mistrall:x")
    variable = r"^the variable LOOM_MIDDLEWARE_FAILOVER_TO \(middleware\.failover\.to\): unknown provider 'mistrall'"
    with pytest.raises(UnknownProvider, match=variable):
        connect("openai")


def test_who_is_asked_next_may_be_an_entry_of_the_pool(write: Write) -> None:
    write("middleware: {failover: {to: [mine]}}\nproviders: [{name: mine, provider: openai}]")
    assert [model.provider for model in connect("anthropic")._fallbacks] == ["openai"]


@pytest.mark.anyio
async def test_what_a_caller_passes_holds_for_who_is_asked_next(write: Write, tmp_path: Path) -> None:
    write(
        "llm: {provider: openai, openai_api_key: k, rate_limit: {max_retries: 0}}\n"
        "middleware: {failover: {to: [spare]}}\n"
        "providers: [{name: spare, base_url: 'https://spare.test/v1', model: m, api_key: s}]"
    )

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "api.openai.com":
            return httpx.Response(500, json={})
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=ANSWER)

    kept = tmp_path / "kept.jsonl"
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    async with http, connect(client=http, record=kept) as model:
        assert (await model.complete("x")).text == "hi"
    exchanges = read_recording(kept)
    assert [each.request.url.split("/")[2] for each in exchanges] == ["api.openai.com", "spare.test"]
    assert [each.response.status for each in exchanges] == [500, 200]


# --- identities of the machine -------------------------------------------------------------------------


def test_the_only_identity_of_the_machine_answers_where_there_is_no_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert connect().provider == "bedrock"
    assert (
        "bedrock answers: it is the only provider for which this machine has an identity (AWS_PROFILE)" in caplog.text
    )
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert connect().provider == "openai", "a key counts before it"
    monkeypatch.delenv("OPENAI_API_KEY")
    adc = tmp_path / "adc.json"
    adc.write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(adc))
    assert connect().provider == "bedrock", "no project is said"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    several = (
        r"identities of this machine \((AWS_PROFILE|GOOGLE_APPLICATION_CREDENTIALS), \w+\) for several providers were "
        r"found \(vertex-ai, bedrock\): name one"
    )
    with pytest.raises(ConfigError, match=several):
        connect()


def test_an_identity_at_azure_counts_where_resource_and_deployment_are_said(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "s")
    assert connect().provider == "local"
    write("llm: {azure_openai_endpoint: 'https://mine.openai.azure.com', azure_openai_deployment_id: d}")
    assert (connect().provider, connect().model) == ("azure-openai", "d")
