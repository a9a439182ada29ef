"""The live suite against servers of other projects on loopback, so that it is known to work where nobody has a key.

aimock checks keys here, whatever header a provider sends them in, and refuses all in OpenAI's words. Where its wire
departs from the vendor's, what cannot be tested is left out below, with the reason.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from decimal import Decimal
from urllib.parse import urlsplit

import msgspec
import pytest
from live_budget import Ledger
from live_suite import EVERYTHING, KEYS, TOOLS, USAGE, Site, Suite, choose_sites
from msgspec import Struct

from loomstream.dialects import Quirks
from loomstream.messages import Timeouts
from loomstream.providers import Provider, table
from loomstream.wire import Secret

pytestmark = pytest.mark.anyio

CLAUDE = "us.anthropic.claude-sonnet-4-6-v1:0"
VERTEX = {"project": "p1", "location": "europe-west1"}
PATIENT = Timeouts(first_event_s=50, idle_s=50)
ARRAY = Quirks(stream_path="/models/{model}:streamGenerateContent")
"""Without `alt=sse`, Gemini's API streams one JSON array."""


class Loopback(Struct, frozen=True, kw_only=True):
    """A site on one of the session's servers: a path of it, what `connect` is given, what is left out."""

    spec: str
    path: str = ""
    lacks: Collection[str] = ()
    max_tokens: int = 64
    quirks: Quirks | None = None
    connect: Mapping[str, object] = {}


AIMOCK = {
    "openai": Loopback(spec="openai:gpt-4o", path="/v1"),
    "openai-responses": Loopback(spec="openai:gpt-5.1", path="/v1"),
    "anthropic": Loopback(spec="anthropic:claude-sonnet-4-5"),
    "gemini": Loopback(spec="gemini:gemini-2.5-flash", path="/v1beta"),
    "vertex-ai": Loopback(spec="vertex-ai:gemini-2.5-flash", connect={"settings": VERTEX}),
    "azure-openai": Loopback(spec="azure-openai:gpt-4o"),
    "azure-openai-dated": Loopback(spec="azure-openai:gpt-4o", connect={"settings": {"api_version": "2024-10-21"}}),
    "azure-openai-responses": Loopback(spec="azure-openai:gpt-4o", connect={"dialect": "openai_responses"}),
    "bedrock-converse": Loopback(spec=f"bedrock:{CLAUDE}"),
    # Its InvokeModel counts no output tokens; the vendor's does.
    "bedrock-invoke": Loopback(spec=f"bedrock:{CLAUDE}", connect={"dialect": "bedrock_invoke"}, lacks=(USAGE,)),
    # Its counts of Ollama's are 0; Ollama's are not.
    "ollama": Loopback(spec="ollama:qwen3", lacks=(USAGE,)),
    "cohere": Loopback(spec="cohere:command-a-03-2025"),
}
"""It has no path for Claude on Vertex AI."""


def of_host(row: Provider) -> Loopback:
    """Give an OpenAI-shaped host as it is asked, but for the name: aimock takes its path."""
    settings = {setting.name: "x1" for setting in row.settings if not setting.default}
    lacks = () if row.quirks.stream_usage else (USAGE,)  # it counts for who asks; these hosts count unasked
    path = urlsplit(row.base_url).path
    return Loopback(spec=f"{row.name}:m", path=path, lacks=lacks, connect={"settings": settings})


HOSTS = {row.name: of_host(row) for row in table.TABLE if row.dialect == "openai_chat" and row.base_url}
LLMOCK = {
    # It sends usage only where it is asked for it, which Mistral's API refuses and need not be.
    "mistral": Loopback(spec="mistral:mistral-small-latest", path="/mistral/v1", lacks=(USAGE,)),
    "gemini-array": Loopback(spec="gemini:gemini-2.5-pro", path="/gemini/v1beta", quirks=ARRAY),
    "gemini": Loopback(spec="gemini:gemini-2.5-pro", path="/gemini/v1beta"),
    "anthropic": Loopback(spec="anthropic:claude-sonnet-4-5", path="/anthropic"),
    "openai-chat": Loopback(spec="openai:gpt-4o", path="/v1"),
    "openai-responses": Loopback(spec="openai:gpt-5.1", path="/v1"),
    "cohere": Loopback(spec="cohere:command-r", path="/cohere"),
    "xai": Loopback(spec="xai:grok-3", path="/xai/v1"),
    "together": Loopback(spec="together:m", path="/together/v1"),
}
"""llmock takes any key."""
LLAMACPP = {
    "openai-chat": Loopback(spec="llamacpp:m", path="/v1"),
    "openai-responses": Loopback(spec="openai-compatible:m", path="/v1", connect={"dialect": "openai_responses"}),
    "anthropic": Loopback(spec="anthropic:m"),
}
"""The embedded model is too small to call a tool."""


class Served(Struct, frozen=True):
    """The sites of one server, and what none of them can show."""

    sites: Mapping[str, Loopback]
    lacks: Collection[str] = ()


SERVERS = {
    "aimock": Served({**HOSTS, **AIMOCK}),
    "llmock": Served(LLMOCK, (KEYS,)),
    "llamacpp": Served(LLAMACPP, (TOOLS,)),
}
SITES = {f"{server}-{name}": site for server, served in SERVERS.items() for name, site in served.sites.items()}


def able(server: str, site: Loopback) -> Collection[str]:
    return EVERYTHING - set(site.lacks) - set(SERVERS[server].lacks)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    choose_sites(metafunc, {name: able(name.partition("-")[0], site) for name, site in SITES.items()})


def reach(request: pytest.FixtureRequest, server: str) -> tuple[str, str | Secret]:
    """Start a server, give its address and a key that it takes; llmock counts its limits by key."""
    if server == "aimock":
        peer, key = request.getfixturevalue("guarded_aimock")
        return peer.url, key
    if server == "llmock":
        return request.getfixturevalue("llmock").url, f"key-{uuid.uuid4()}"
    local = request.getfixturevalue("llamacpp")
    return local.base_url.removesuffix("/v1"), local.api_key


@pytest.fixture
def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Site:
    found = SITES[request.param]
    url, key = reach(request, request.param.partition("-")[0])
    provider = found.spec.partition(":")[0]
    if found.quirks is not None:
        row = msgspec.structs.replace(table.BY_NAME[provider], quirks=found.quirks)
        monkeypatch.setitem(table.BY_NAME, provider, row)
    arguments = {"base_url": url + found.path, "api_key": key, "temperature": 0, "timeouts": PATIENT, **found.connect}
    return Site(spec=found.spec, connect=arguments, max_tokens=found.max_tokens)


@pytest.fixture
def ledger() -> Ledger:
    """No money is spent here: what it counts is forgotten."""
    return Ledger(Decimal(1), Decimal("0.01"))


class TestLoopback(Suite):
    """Every dialect, each by a server that nobody here wrote."""
