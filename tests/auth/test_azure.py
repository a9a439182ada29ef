"""Azure's keys and tokens from every place that they come from, and what is said where they do not."""

from __future__ import annotations

import logging
import sys
import time

import anyio
import pytest
from auth_services import REQUEST, Answer, Call, Clock, Given, Start, answer, error_of, revealed

from loomstream.auth import API_KEY, Authenticator, scheme
from loomstream.auth.azure import SCOPE, AzureAuthenticator
from loomstream.errors import AuthFailed, ConfigError, ConnectFailed, LoomstreamError, MissingKey

pytestmark = pytest.mark.anyio

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
SECRET = "canary-client-secret"
IDENTITY_HEADER = "canary-identity-header"
HOUR = 3600


async def _sent(authenticator: Authenticator) -> dict[str, str]:
    sent = revealed(await authenticator.authorize(REQUEST))
    del sent["content-type"]
    return sent


# --- what is given -------------------------------------------------------------------------------


async def test_a_key_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    authenticator = scheme("azure")(Given(key="canary-key"))
    await authenticator.prepare()
    assert await _sent(authenticator) == {"api-key": "canary-key"}
    assert [secret.reveal() for secret in authenticator.secrets] == ["canary-key"]
    assert not await authenticator.renew()


async def test_an_entra_token_comes_before_a_key_that_is_no_argument() -> None:
    both = {"key": "canary-key", "entra_token": "canary-token"}
    assert await _sent(AzureAuthenticator(Given(**both))) == {"authorization": "Bearer canary-token"}
    passed = AzureAuthenticator(Given(**both, origins={API_KEY: "argument"}))
    assert await _sent(passed) == {"api-key": "canary-key"}


async def test_one_that_was_never_used_can_be_closed() -> None:
    await AzureAuthenticator(Given(key="canary-key")).aclose()


async def test_a_callable_gives_tokens() -> None:
    tokens = iter(["one", "two", "three"])
    authenticator = AzureAuthenticator(Given(token=lambda: next(tokens)))
    assert [await _sent(authenticator) for _ in range(2)] == [
        {"authorization": "Bearer one"},
        {"authorization": "Bearer two"},
    ]
    assert await authenticator.renew()


@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer  "])
async def test_a_static_token(prefix: str) -> None:
    authenticator = AzureAuthenticator(Given(entra_token=f"{prefix}canary-token"))
    await authenticator.prepare()
    assert await _sent(authenticator) == {"authorization": "Bearer canary-token"}
    assert [secret.reveal() for secret in authenticator.secrets] == ["canary-token"]
    assert not await authenticator.renew()
    await authenticator.aclose()


# --- an app's secret -----------------------------------------------------------------------------


class Entra:
    """A directory that knows one app."""

    def __init__(self) -> None:
        self.given = 0
        self.scope = SCOPE
        self.error = ""
        self.status = 400
        self.url = ""

    def __call__(self, call: Call) -> Answer:
        if call.path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            base = f"{self.url}/{TENANT}"
            return answer(
                {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                }
            )
        assert (call.method, call.path) == ("POST", f"/{TENANT}/oauth2/v2.0/token")
        if self.error:
            return answer({"error": "invalid_client", "error_description": self.error}, self.status)
        form = call.form
        assert (form["grant_type"], form["client_id"], form["scope"]) == ("client_credentials", CLIENT, self.scope)
        assert form["client_secret"] == SECRET
        self.given += 1
        return answer({"token_type": "Bearer", "expires_in": HOUR, "access_token": f"canary-token-{self.given}"})


@pytest.fixture
def entra(start_tls: Start, monkeypatch: pytest.MonkeyPatch) -> Entra:
    directory = Entra()
    directory.url = start_tls(directory).url
    values = {
        "AZURE_AUTHORITY_HOST": directory.url,
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_CLIENT_SECRET": SECRET,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return directory


@pytest.fixture
def ambient() -> AzureAuthenticator:
    return AzureAuthenticator(Given())


async def test_an_app_with_a_secret(ambient: AzureAuthenticator, entra: Entra) -> None:
    assert await _sent(ambient) == {"authorization": "Bearer canary-token-1"}
    assert await _sent(ambient) == {"authorization": "Bearer canary-token-1"}
    assert entra.given == 1
    assert [secret.reveal() for secret in ambient.secrets] == ["canary-token-1"]
    assert ambient.discovered == {}


async def test_fifty_requests_at_once_ask_once(ambient: AzureAuthenticator, entra: Entra) -> None:
    sent: list[dict[str, str]] = []

    async def send() -> None:
        sent.append(await _sent(ambient))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(send)
    assert sent == [{"authorization": "Bearer canary-token-1"}] * 50
    assert entra.given == 1


async def test_a_token_is_replaced_before_it_expires(entra: Entra) -> None:
    clock = Clock(time.time() - HOUR + 400)  # azure-identity tells the end by the real clock: 2 h - 400 s from here
    authenticator = AzureAuthenticator(Given(), clock=clock)
    await _sent(authenticator)
    clock.now += HOUR
    assert await _sent(authenticator) == {"authorization": "Bearer canary-token-1"}
    clock.now += HOUR - 600
    assert await _sent(authenticator) == {"authorization": "Bearer canary-token-2"}
    assert entra.given == 2


async def test_a_refused_token_is_not_given_again(ambient: AzureAuthenticator, entra: Entra) -> None:
    await _sent(ambient)
    assert await ambient.renew()
    assert await _sent(ambient) == {"authorization": "Bearer canary-token-2"}
    assert entra.given == 2
    await ambient.aclose()


async def test_another_scope(entra: Entra) -> None:
    entra.scope = "https://ai.azure.com/.default"
    authenticator = AzureAuthenticator(Given(settings={"scope": entra.scope}))
    assert await _sent(authenticator) == {"authorization": "Bearer canary-token-1"}


@pytest.mark.usefixtures("entra")
async def test_nothing_is_logged(ambient: AzureAuthenticator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await _sent(ambient)
    assert caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        ("AADSTS7000215: Invalid client secret canary", AuthFailed, "change AZURE_CLIENT_SECRET"),
        ("AADSTS7000222: canary expired", AuthFailed, "has expired"),
        ("AADSTS700016: Application canary not found", AuthFailed, "change AZURE_CLIENT_ID"),
        ("AADSTS90002: Tenant canary not found", AuthFailed, "change AZURE_TENANT_ID"),
        ("AADSTS70011: scope canary", ConfigError, "change the setting scope"),
        ("AADSTS99999: canary", AuthFailed, "AZURE_… variables"),
        ("canary", AuthFailed, "AZURE_… variables"),
    ],
)
async def test_an_app_is_refused(
    ambient: AzureAuthenticator, entra: Entra, error: str, kind: type[LoomstreamError], advice: str
) -> None:
    entra.error = error
    text = await error_of(ambient, kind)
    assert advice in text
    assert error.partition(":")[0].replace("canary", "") in text


async def test_entra_cannot_be_reached(
    ambient: AzureAuthenticator, entra: Entra, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")
    assert "check the network" in await error_of(ambient, ConnectFailed)
    assert entra.given == 0


@pytest.mark.usefixtures("entra")
@pytest.mark.parametrize(
    ("name", "value"),
    [("AZURE_AUTHORITY_HOST", "http://plain.example"), ("AZURE_TENANT_ID", "no/tenant"), ("AZURE_TENANT_ID", "")],
)
async def test_a_value_that_cannot_be_used(
    ambient: AzureAuthenticator, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert name in await error_of(ambient, ConfigError)


# --- managed identity ----------------------------------------------------------------------------


async def test_a_managed_identity(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(call: Call) -> Answer:
        assert call.headers["x-identity-header"] == IDENTITY_HEADER
        assert call.query["resource"] == SCOPE.removesuffix("/.default")
        assert call.query["client_id"] == CLIENT
        token = {"access_token": "canary-token", "expires_on": str(int(time.time()) + HOUR), "token_type": "Bearer"}
        return answer({**token, "resource": call.query["resource"]})

    service = start(handle)
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{service.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
    authenticator = AzureAuthenticator(Given(settings={"client_id": CLIENT}))
    assert await _sent(authenticator) == {"authorization": "Bearer canary-token"}
    assert len(service.calls) == 1


async def test_the_metadata_service_of_a_machine(
    ambient: AzureAuthenticator, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle(call: Call) -> Answer:
        assert (call.path, call.headers["metadata"]) == ("/metadata/identity/oauth2/token", "true")
        return answer({"access_token": "canary-token", "expires_in": str(HOUR), "token_type": "Bearer"})

    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", start(handle).url)
    assert await _sent(ambient) == {"authorization": "Bearer canary-token"}


async def test_a_machine_without_an_identity(
    ambient: AzureAuthenticator, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle(_: Call) -> Answer:
        return answer({"error": "invalid_request", "error_description": "Identity canary not found"}, 400)

    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", start(handle).url)
    assert "az login" in await error_of(ambient, MissingKey)


# --- what is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize("chain", ["dev", "EnvironmentCredential", "AzureCliCredential"])
async def test_there_are_none(ambient: AzureAuthenticator, monkeypatch: pytest.MonkeyPatch, chain: str) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", chain)
    text = await error_of(ambient, MissingKey)
    assert "entra_token" in text
    assert "az login" in text


async def test_the_extra_is_missing(ambient: AzureAuthenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    assert "pip install 'loomstream[azure]'" in await error_of(ambient, ConfigError)
