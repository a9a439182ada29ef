"""Google Cloud's keys and tokens from every place that they come from, and what is said where they do not."""

from __future__ import annotations

import base64
import json
import logging
import sys
import time
from pathlib import Path

import anyio
import pytest
from auth_services import REQUEST, Answer, Call, Clock, Given, Start, answer, error_of, revealed
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.auth.compute_engine import _metadata as compute_metadata
from google.oauth2 import credentials as user_credentials

from loomstream.auth import Authenticator, scheme
from loomstream.auth.google import SCOPE, GoogleAuthenticator
from loomstream.errors import AuthFailed, ConfigError, ConnectFailed, LoomstreamError, MissingKey

pytestmark = pytest.mark.anyio

HOUR = 3600
ACCOUNT = "streamer@a-project.iam.gserviceaccount.com"
PRIVATE_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE_KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
REFRESH = "canary-refresh-token"
SUBJECT = "canary-subject-token"


async def _sent(authenticator: Authenticator) -> dict[str, str]:
    sent = revealed(await authenticator.authorize(REQUEST))
    del sent["content-type"]
    return sent


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


class TokenService:
    """Google's token service; it knows one service account, one user and one workload."""

    def __init__(self) -> None:
        self.given = 0
        self.url = ""
        self.life_s = HOUR
        self.refusal: Answer | None = None
        self.subject = SUBJECT

    def __call__(self, call: Call) -> Answer:
        assert call.method == "POST"
        if self.refusal is not None:
            return self.refusal
        form = call.form
        check = {
            "urn:ietf:params:oauth:grant-type:jwt-bearer": self._check_assertion,
            "refresh_token": self._check_user,
            "urn:ietf:params:oauth:grant-type:token-exchange": self._check_workload,
        }[form["grant_type"]]
        check(form)
        self.given += 1
        token = {"access_token": f"canary-token-{self.given}", "expires_in": self.life_s, "token_type": "Bearer"}
        return answer({**token, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"})

    def _check_assertion(self, form: dict[str, str]) -> None:
        signed, _, signature = form["assertion"].rpartition(".")
        PRIVATE_KEY.public_key().verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        claims = json.loads(_decoded(signed.split(".")[1]))
        assert (claims["iss"], claims["scope"]) == (ACCOUNT, SCOPE)
        assert claims["aud"] == "https://oauth2.googleapis.com/token"
        assert claims["iat"] <= time.time() < claims["exp"]

    def _check_user(self, form: dict[str, str]) -> None:
        assert (form["refresh_token"], form["client_id"], form["client_secret"]) == (REFRESH, "id", "canary-secret")

    def _check_workload(self, form: dict[str, str]) -> None:
        assert self.subject in form["subject_token"]
        assert form["scope"] == SCOPE
        assert form["audience"] == "//iam.googleapis.com/the-pool"


@pytest.fixture
def tokens(start: Start, monkeypatch: pytest.MonkeyPatch) -> TokenService:
    service = TokenService()
    service.url = start(service).url
    monkeypatch.setattr(user_credentials, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"{service.url}/token")
    return service


def _account(service: TokenService, **changes: object) -> dict[str, object]:
    return {
        "type": "service_account",
        "project_id": "a-project",
        "private_key_id": "key-1",
        "private_key": PEM,
        "client_email": ACCOUNT,
        "client_id": "1",
        "token_uri": f"{service.url}/token",
        **changes,
    }


USER = {"type": "authorized_user", "client_id": "id", "client_secret": "canary-secret", "refresh_token": REFRESH}


def _workload(service: TokenService, home: Path) -> dict[str, object]:
    subject = home / "subject-token"
    subject.write_text(SUBJECT)
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/the-pool",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{service.url}/token",
        "credential_source": {"file": str(subject)},
    }


def _by(info: object, **settings: str) -> GoogleAuthenticator:
    return GoogleAuthenticator(Given(credentials=json.dumps(info, indent=2), settings=settings))


# --- what is given -------------------------------------------------------------------------------


async def test_a_key_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth.transport.requests", None)
    authenticator = scheme("google")(Given(key="canary-key"))
    await authenticator.prepare()
    assert await _sent(authenticator) == {"x-goog-api-key": "canary-key"}
    assert authenticator.discovered == {"express": "yes"}
    assert not await authenticator.renew()


async def test_a_key_with_a_project_is_no_express_mode() -> None:
    authenticator = scheme("google")(Given(key="canary-key", settings={"project": "p"}))
    await authenticator.prepare()
    assert authenticator.discovered == {}


async def test_a_callable_gives_tokens() -> None:
    given = iter(["one", "two", "three"])
    authenticator = GoogleAuthenticator(Given(token=lambda: next(given)))
    assert [await _sent(authenticator) for _ in range(2)] == [
        {"authorization": "Bearer one"},
        {"authorization": "Bearer two"},
    ]


async def test_a_service_account(tokens: TokenService) -> None:
    authenticator = _by(_account(tokens))
    await authenticator.prepare()
    assert authenticator.discovered == {"project": "a-project"}
    assert await _sent(authenticator) == {"authorization": "Bearer canary-token-1"}
    assert tokens.given == 1
    assert [secret.reveal() for secret in authenticator.secrets] == ["canary-token-1"]


async def test_the_path_of_a_file(tokens: TokenService, bare_machine: Path) -> None:
    (bare_machine / "key.json").write_text(json.dumps(_account(tokens)))
    authenticator = GoogleAuthenticator(Given(credentials="~/key.json"))
    assert await _sent(authenticator) == {"authorization": "Bearer canary-token-1"}


@pytest.mark.usefixtures("tokens")
async def test_a_users_login() -> None:
    authenticator = _by({**USER, "quota_project_id": "pays"})
    assert await _sent(authenticator) == {
        "authorization": "Bearer canary-token-1",
        "x-goog-user-project": "pays",
    }
    assert authenticator.discovered == {}


async def test_a_workloads_identity(tokens: TokenService, bare_machine: Path) -> None:
    assert await _sent(_by(_workload(tokens, bare_machine))) == {"authorization": "Bearer canary-token-1"}


async def test_a_workload_on_aws(tokens: TokenService, monkeypatch: pytest.MonkeyPatch, bare_machine: Path) -> None:
    for name, value in {"REGION": "eu-west-1", "ACCESS_KEY_ID": "AKIA", "SECRET_ACCESS_KEY": "canary"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    url = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
    info = {
        **_workload(tokens, bare_machine),
        "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
        "credential_source": {"environment_id": "aws1", "regional_cred_verification_url": url},
    }
    monkeypatch.setattr(tokens, "subject", "GetCallerIdentity")
    assert await _sent(_by(info)) == {"authorization": "Bearer canary-token-1"}


async def test_a_workload_that_a_program_vouches_for(
    tokens: TokenService, monkeypatch: pytest.MonkeyPatch, bare_machine: Path
) -> None:
    told = {"version": 1, "success": True, "token_type": "urn:ietf:params:oauth:token-type:jwt", "id_token": SUBJECT}
    script = bare_machine / "give.py"
    script.write_text(f"print({json.dumps({**told, 'expiration_time': int(time.time()) + HOUR})!r})")
    source = {"executable": {"command": f"{sys.executable} {script}", "timeout_millis": 30000}}
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    info = {**_workload(tokens, bare_machine), "credential_source": source}
    assert await _sent(_by(info)) == {"authorization": "Bearer canary-token-1"}


async def test_who_pays(tokens: TokenService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "by-environment")
    assert (await _sent(_by(_account(tokens))))["x-goog-user-project"] == "by-environment"
    by_setting = _by({**USER, "quota_project_id": "by-file"}, quota_project="by-setting")
    assert (await _sent(by_setting))["x-goog-user-project"] == "by-setting"


async def test_fifty_requests_at_once_ask_once(tokens: TokenService) -> None:
    authenticator = _by(_account(tokens))
    sent: list[dict[str, str]] = []

    async def send() -> None:
        sent.append(await _sent(authenticator))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(send)
    assert sent == [{"authorization": "Bearer canary-token-1"}] * 50
    assert tokens.given == 1


async def test_a_token_is_replaced_before_it_expires(tokens: TokenService) -> None:
    clock = Clock(time.time())
    authenticator = GoogleAuthenticator(Given(credentials=json.dumps(_account(tokens))), clock=clock)
    await _sent(authenticator)
    clock.now += HOUR - 400
    tokens.life_s = 2 * HOUR
    assert await _sent(authenticator) == {"authorization": "Bearer canary-token-1"}
    clock.now += 200
    assert await _sent(authenticator) == {"authorization": "Bearer canary-token-2"}


async def test_a_refused_token_is_not_given_again(tokens: TokenService) -> None:
    authenticator = _by(_account(tokens))
    await _sent(authenticator)
    assert await authenticator.renew()
    assert await _sent(authenticator) == {"authorization": "Bearer canary-token-2"}
    await authenticator.aclose()


async def test_nothing_is_logged(tokens: TokenService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await _sent(_by(_account(tokens)))
    await _sent(_by(USER))
    assert caplog.text
    assert "canary" not in caplog.text
    assert "PRIVATE KEY" not in caplog.text


# --- the application's default credentials ---------------------------------------------------------


@pytest.fixture
def ambient() -> GoogleAuthenticator:
    return GoogleAuthenticator(Given())


async def test_the_file_that_the_environment_names(
    ambient: GoogleAuthenticator, tokens: TokenService, monkeypatch: pytest.MonkeyPatch, bare_machine: Path
) -> None:
    path = bare_machine / "key.json"
    path.write_text(json.dumps(_account(tokens)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert await _sent(ambient) == {"authorization": "Bearer canary-token-1"}
    assert ambient.discovered == {"project": "a-project"}


@pytest.mark.usefixtures("tokens")
async def test_gclouds_login(ambient: GoogleAuthenticator, bare_machine: Path) -> None:
    (bare_machine / "gcloud").mkdir()
    (bare_machine / "gcloud" / "application_default_credentials.json").write_text(json.dumps(USER))
    assert await _sent(ambient) == {"authorization": "Bearer canary-token-1"}


class Metadata:
    """The metadata server of a machine in Google's cloud."""

    def __init__(self) -> None:
        self.given = 0
        self.has_account = True

    def __call__(self, call: Call) -> Answer:
        assert call.headers["metadata-flavor"] == "Google"
        path = call.path.removeprefix("/computeMetadata/v1/")
        headers = {"Metadata-Flavor": "Google"}
        if path == "project/project-id":
            return Answer(200, "machine-project", "text/plain", headers)
        if path == "universe/universe-domain":
            return Answer(404, "", "text/plain", headers)
        if not path.startswith("instance/service-accounts/"):
            return Answer(200, "", "text/plain", headers)
        if not self.has_account:
            return Answer(404, "no canary here", "text/plain", headers)
        if not path.endswith("/token"):
            return Answer(200, json.dumps({"email": ACCOUNT, "scopes": [SCOPE]}), headers=headers)
        self.given += 1
        token = {"access_token": f"canary-token-{self.given}", "expires_in": HOUR, "token_type": "Bearer"}
        return Answer(200, json.dumps(token), headers=headers)


@pytest.fixture
def metadata(start: Start, monkeypatch: pytest.MonkeyPatch) -> Metadata:
    service = Metadata()
    monkeypatch.delenv("NO_GCE_CHECK")
    host = start(service).host
    monkeypatch.setattr(compute_metadata, "_NO_GCE_CHECK", False)
    monkeypatch.setattr(compute_metadata, "_GCE_METADATA_HOST", host)  # read from GCE_METADATA_HOST at import
    monkeypatch.setenv("GCE_METADATA_IP", host)
    return service


async def test_a_machine_in_the_cloud(ambient: GoogleAuthenticator, metadata: Metadata) -> None:
    assert await _sent(ambient) == {"authorization": "Bearer canary-token-1"}
    assert ambient.discovered == {"project": "machine-project"}
    assert await ambient.renew()
    assert metadata.given == 2


async def test_a_machine_without_an_account(ambient: GoogleAuthenticator, metadata: Metadata) -> None:
    metadata.has_account = False
    assert "no service account is attached" in await error_of(ambient, ConnectFailed)


# --- what is missing or wrong --------------------------------------------------------------------


async def test_there_are_none(ambient: GoogleAuthenticator) -> None:
    text = await error_of(ambient, MissingKey)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in text
    assert "gcloud auth application-default login" in text


@pytest.mark.parametrize("content", [None, "canary: no JSON", "[]", '{"type": "canary"}'])
async def test_a_file_of_the_environment_that_cannot_be_used(
    ambient: GoogleAuthenticator, monkeypatch: pytest.MonkeyPatch, bare_machine: Path, content: str | None
) -> None:
    path = bare_machine / "key.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(ConfigError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
        await ambient.authorize(REQUEST)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["/nonexistent/canary.json", "canary", "{canary", "{" * 100_000, "\0", "~nobody-canary/x", '{"a":' * 5000]
)
async def test_credentials_that_cannot_be_read(text: str) -> None:
    error = await error_of(GoogleAuthenticator(Given(credentials=text)), ConfigError)
    assert "neither a JSON object nor a path" in error


@pytest.mark.parametrize("kind", [None, "canary", "external_account of AWS canary", "gdch_service_account", []])
async def test_a_type_that_is_not_known(kind: object) -> None:
    assert "service_account, authorized_user" in await error_of(_by({"type": kind}), ConfigError)


@pytest.mark.parametrize("key", ["canary", 1, PEM[:200] + "canary"])
async def test_a_malformed_account(tokens: TokenService, key: object) -> None:
    assert "malformed" in await error_of(_by(_account(tokens, private_key=key)), ConfigError)


async def test_an_account_that_lacks_fields(tokens: TokenService) -> None:
    info = _account(tokens)
    del info["client_email"]
    assert "lacks client_email" in await error_of(_by(info), ConfigError)


async def test_a_file_of_the_environment_that_lacks_fields(
    ambient: GoogleAuthenticator, tokens: TokenService, monkeypatch: pytest.MonkeyPatch, bare_machine: Path
) -> None:
    info = _account(tokens)
    del info["client_email"]
    path = bare_machine / "key.json"
    path.write_text(json.dumps(info))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert "missing fields client_email" in await error_of(ambient, ConfigError)


@pytest.mark.parametrize("lacking", ["refresh_token", "client_secret"])
async def test_a_login_that_lacks_fields(lacking: str) -> None:
    info = {name: value for name, value in USER.items() if name != lacking}
    assert lacking in await error_of(_by(info), ConfigError)


@pytest.mark.parametrize("lacking", ["audience", "token_url", "credential_source", "subject_token_type"])
async def test_a_workload_that_lacks_fields(tokens: TokenService, bare_machine: Path, lacking: str) -> None:
    info = _workload(tokens, bare_machine)
    del info[lacking]
    assert f"lacks {lacking}" in await error_of(_by(info), ConfigError)


async def test_a_workload_without_its_token(tokens: TokenService, bare_machine: Path) -> None:
    info = _workload(tokens, bare_machine)
    (bare_machine / "subject-token").unlink()
    await error_of(_by(info), AuthFailed)


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        ("invalid_grant", AuthFailed, "revoked"),
        ("invalid_client", AuthFailed, "does not know the client"),
        ("unauthorized_client", AuthFailed, "may not ask"),
        ("invalid_scope", AuthFailed, "cloud-platform"),
        ("something_else", AuthFailed, "refused them"),
    ],
)
@pytest.mark.parametrize("user", [False, True], ids=["account", "user"])
async def test_they_are_refused(
    tokens: TokenService, code: str, kind: type[LoomstreamError], advice: str, *, user: bool
) -> None:
    tokens.refusal = answer({"error": code, "error_description": "canary"}, 400)
    assert advice in await error_of(_by(USER if user else _account(tokens)), kind)


async def test_a_workload_is_refused(tokens: TokenService, bare_machine: Path) -> None:
    tokens.refusal = answer({"error": "invalid_target", "error_description": "canary"}, 400)
    assert "audience" in await error_of(_by(_workload(tokens, bare_machine)), ConfigError)
    tokens.refusal = answer({"error": "access_denied", "error_description": "canary"}, 403)
    assert "pool" in await error_of(_by(_workload(tokens, bare_machine)), AuthFailed)


async def test_someone_must_log_in_again(tokens: TokenService) -> None:
    tokens.refusal = answer({"error": "invalid_grant", "error_subtype": "invalid_rapt"}, 400)
    assert "log in again" in await error_of(_by(USER), AuthFailed)


@pytest.mark.parametrize("body", ["canary", "[]", "{}", '{"access_token": 1}', '"canary"'])
async def test_a_service_that_answers_nonsense(tokens: TokenService, body: str) -> None:
    tokens.refusal = Answer(200, body)
    with pytest.raises(LoomstreamError) as caught:
        await _by(_account(tokens)).authorize(REQUEST)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("user", [False, True], ids=["account", "user"])
async def test_a_service_that_cannot_be_reached(
    tokens: TokenService, monkeypatch: pytest.MonkeyPatch, *, user: bool
) -> None:
    monkeypatch.setattr(user_credentials, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", "http://127.0.0.1:1/token")
    info = USER if user else _account(tokens, token_uri="http://127.0.0.1:1/token")
    assert "check the network" in await error_of(_by(info), ConnectFailed)


async def test_the_extra_is_missing(ambient: GoogleAuthenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth.transport.requests", None)
    assert "pip install 'loomstream[vertex]'" in await error_of(ambient, ConfigError)
