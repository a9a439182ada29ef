"""AWS credentials from every place that they come from, and what is said where they do not."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
from auth_services import REQUEST, Answer, Call, Clock, Given, Start, answer, revealed
from botocore import auth as botocore_auth
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials, SSOProvider
from botocore.tokens import SSOTokenProvider
from botocore.utils import ContainerMetadataFetcher

from loomstream.auth import Authenticator, Origin, scheme
from loomstream.auth.aws import AWSAuthenticator
from loomstream.errors import AuthFailed, ConfigError, ConnectFailed, LoomstreamError, MissingKey

pytestmark = pytest.mark.anyio

SECRET = "canary-secret-key"
TOKEN = "canary-session-token"
HOUR = 3600.0
SETTINGS = {"region": "us-west-2"}
WORK = "[work]\naws_access_key_id = AKIAWORK\naws_secret_access_key = canary-work\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, bare_machine: Path) -> None:
    """Let botocore try once, and look for logins in this test's home, not where it was when botocore was imported."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    cache = str(bare_machine / "sso-cache")
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", cache)
    monkeypatch.setattr(SSOTokenProvider, "_SSO_TOKEN_CACHE_DIR", cache)


def _in(seconds: float) -> str:
    return dt.datetime.fromtimestamp(time.time() + seconds, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _signed_by(headers: dict[str, str]) -> tuple[str, str]:
    """Give the access key id and the session token of a signed request."""
    authorization = headers["authorization"]
    return authorization.split("Credential=")[1].split("/")[0], headers.get("x-amz-security-token", "")


async def _sent(authenticator: Authenticator) -> dict[str, str]:
    return revealed(await authenticator.authorize(REQUEST))


async def _error(authenticator: Authenticator, kind: type[LoomstreamError]) -> str:
    with pytest.raises(kind) as caught:
        await authenticator.authorize(REQUEST)
    assert type(caught.value) is kind
    assert caught.value.provider == "acme"
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert "canary" not in str(caught.value)
    return str(caught.value)


# --- what is given -------------------------------------------------------------------------------


async def test_a_bearer_key_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in {"aiobotocore", "botocore"}]:
        monkeypatch.setitem(sys.modules, name, None)
    authenticator = scheme("aws")(Given(key="canary-key", settings=SETTINGS, access_key_id="a", secret_access_key="b"))
    assert authenticator.secrets == ()
    await authenticator.prepare()
    assert (await _sent(authenticator))["authorization"] == "Bearer canary-key"
    assert [secret.reveal() for secret in authenticator.secrets] == ["canary-key"]
    assert not await authenticator.renew()
    await authenticator.aclose()


async def test_a_callable_is_asked_for_each_request() -> None:
    tokens = iter(["one", "two", "three"])
    authenticator = AWSAuthenticator(Given(token=lambda: next(tokens), settings=SETTINGS))
    assert [(await _sent(authenticator))["authorization"] for _ in range(2)] == ["Bearer one", "Bearer two"]
    assert await authenticator.renew()


async def test_an_access_key_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore.session", None)
    authenticator = AWSAuthenticator(
        Given(settings=SETTINGS, access_key_id="AKIA", secret_access_key=SECRET, session_token=TOKEN)
    )
    await authenticator.prepare()
    assert _signed_by(await _sent(authenticator)) == ("AKIA", TOKEN)
    assert {secret.reveal() for secret in authenticator.secrets} == {SECRET, TOKEN}
    assert authenticator.discovered == SETTINGS
    assert not await authenticator.renew()


@pytest.mark.parametrize(
    ("secrets", "missing"),
    [({"access_key_id": "AKIA"}, "secret_access_key"), ({"secret_access_key": SECRET}, "access_key_id")],
)
async def test_half_an_access_key_is_an_error(secrets: dict[str, str], missing: str) -> None:
    text = await _error(AWSAuthenticator(Given(settings=SETTINGS, **secrets)), ConfigError)
    assert f"the setting {missing} is missing" in text


@pytest.mark.parametrize(
    ("origins", "chosen"),
    [
        ({}, "bearer"),
        ({"profile": "environment"}, "bearer"),
        ({"profile": "row"}, "AKIAWORK"),
        ({"profile": "argument"}, "AKIAWORK"),
        ({"profile": "argument", "api_key": "argument", "access_key_id": "argument"}, "AKIAWORK"),
        ({"profile": "row", "api_key": "argument"}, "bearer"),
        ({"api_key": "argument", "access_key_id": "argument"}, "bearer"),
        ({"profile": "row", "access_key_id": "argument"}, "AKIA"),
        ({"profile": "environment", "secret_access_key": "argument"}, "AKIA"),
    ],
)
async def test_arguments_come_first(bare_machine: Path, origins: dict[str, Origin], chosen: str) -> None:
    (bare_machine / "aws-credentials").write_text(WORK)
    settings = {**SETTINGS, "profile": "work"}
    given = Given(key="a-key", settings=settings, origins=origins, access_key_id="AKIA", secret_access_key=SECRET)
    sent = await _sent(AWSAuthenticator(given))
    assert ("bearer" if sent["authorization"] == "Bearer a-key" else _signed_by(sent)[0]) == chosen


@pytest.mark.parametrize(("secrets", "chosen"), [({}, "AKIAWORK"), ({"access_key_id": "AKIA"}, "AKIA")])
async def test_a_profile_of_the_environment_is_the_last(
    bare_machine: Path, secrets: dict[str, str], chosen: str
) -> None:
    (bare_machine / "aws-credentials").write_text(WORK)
    secrets = {**secrets, "secret_access_key": SECRET} if secrets else {}
    given = Given(settings={**SETTINGS, "profile": "work"}, origins={"profile": "environment"}, **secrets)
    assert _signed_by(await _sent(AWSAuthenticator(given)))[0] == chosen


# --- the region ----------------------------------------------------------------------------------

CONFIG = "[default]\nregion = eu-north-1\ns3 =\n  addressing_style = path\n[profile work]\nregion=eu-west-3 \n"


@pytest.mark.parametrize(
    ("settings", "variables", "region"),
    [
        ({}, {}, "eu-north-1"),
        ({"profile": "work"}, {}, "eu-west-3"),
        ({"profile": "none-such"}, {}, "us-west-2"),
        ({}, {"AWS_PROFILE": "work"}, "eu-west-3"),
        ({}, {"AWS_CONFIG_FILE": "/nowhere"}, "us-west-2"),
        ({"region": "ap-south-1"}, {"AWS_PROFILE": "work"}, "ap-south-1"),
    ],
)
async def test_without_a_region_that_of_the_profile_counts(
    bare_machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    variables: dict[str, str],
    region: str,
) -> None:
    (bare_machine / "aws-config").write_text(CONFIG)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    bearer = AWSAuthenticator(Given(key="k", settings=settings))
    assert bearer.discovered == ({"region": settings["region"]} if "region" in settings else {})
    await bearer.prepare()
    assert bearer.discovered == {"region": region}
    signing = AWSAuthenticator(Given(settings=settings, access_key_id="AKIA", secret_access_key=SECRET))
    assert f"/{region}/bedrock/" in (await _sent(signing))["authorization"]


async def test_the_shared_credentials_file_may_tell_the_region(bare_machine: Path) -> None:
    (bare_machine / "aws-config").write_text("[profile work]\nregion = eu-north-1\n")
    (bare_machine / "aws-credentials").write_text(WORK + "region = eu-west-3\n")
    signing = AWSAuthenticator(Given(settings={"profile": "work"}, origins={"profile": "argument"}))
    assert "/eu-west-3/bedrock/" in (await _sent(signing))["authorization"]


@pytest.mark.parametrize("text", [b"region = x\n", b"\xff\xfe\x00"])
async def test_a_config_file_that_cannot_be_read(bare_machine: Path, text: bytes) -> None:
    (bare_machine / "aws-config").write_bytes(text)
    with pytest.raises(ConfigError, match=r"aws-config cannot be read .*set AWS_REGION"):
        await AWSAuthenticator(Given(key="k")).prepare()
    await AWSAuthenticator(Given(key="k", settings=SETTINGS)).prepare()


# --- AWS's own chain -----------------------------------------------------------------------------


@pytest.fixture
def ambient() -> AWSAuthenticator:
    return AWSAuthenticator(Given(settings=SETTINGS))


async def test_the_environment(ambient: AWSAuthenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    await ambient.prepare()
    assert _signed_by(await _sent(ambient)) == ("AKIAENV", TOKEN)
    assert not await ambient.renew()  # the same again
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEW")
    fresh = AWSAuthenticator(Given(settings=SETTINGS))
    assert _signed_by(await _sent(fresh))[0] == "AKIANEW"


async def test_a_profile_of_the_environment(
    ambient: AWSAuthenticator, monkeypatch: pytest.MonkeyPatch, bare_machine: Path
) -> None:
    (bare_machine / "aws-config").write_text(
        "[profile p]\naws_access_key_id = AKIACONFIG\naws_secret_access_key = canary-config\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "p")
    assert _signed_by(await _sent(ambient)) == ("AKIACONFIG", "")


async def test_a_credential_process(ambient: AWSAuthenticator, bare_machine: Path) -> None:
    told = {"Version": 1, "AccessKeyId": "AKIAPROC", "SecretAccessKey": SECRET, "Expiration": _in(HOUR)}
    script = bare_machine / "give.py"
    script.write_text(f"print({json.dumps(told)!r})")
    (bare_machine / "aws-config").write_text(f"[default]\ncredential_process = {sys.executable} {script}\n")
    assert _signed_by(await _sent(ambient))[0] == "AKIAPROC"


class Role(NamedTuple):
    """The names that a credential service gives to its answers, the n-th time."""

    number: int

    @property
    def key(self) -> str:
        return f"ASIA{self.number}"

    @property
    def token(self) -> str:
        return f"{TOKEN}-{self.number}"


class Metadata:
    """An instance's metadata service, version 2 alone: without a session token it gives nothing."""

    session = "canary-metadata-session"

    def __init__(self) -> None:
        self.given = 0
        self.life_s = HOUR

    def __call__(self, call: Call) -> Answer:
        if call.path == "/latest/api/token":
            good = call.method == "PUT" and int(call.headers["x-aws-ec2-metadata-token-ttl-seconds"]) > 0
            return Answer(200 if good else 400, self.session, "text/plain")
        if call.headers.get("x-aws-ec2-metadata-token") != self.session:
            return Answer(401)
        if call.path == "/latest/meta-data/iam/security-credentials/":
            return Answer(200, "the-role", "text/plain")
        assert call.path == "/latest/meta-data/iam/security-credentials/the-role"
        self.given += 1
        role = Role(self.given)
        return answer(
            {
                "Code": "Success",
                "AccessKeyId": role.key,
                "SecretAccessKey": SECRET,
                "Token": role.token,
                "Expiration": _in(self.life_s),
            }
        )


@pytest.fixture
def metadata(start: Start, monkeypatch: pytest.MonkeyPatch) -> Metadata:
    service = Metadata()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", start(service).url)
    return service


async def test_an_instance(ambient: AWSAuthenticator, metadata: Metadata) -> None:
    assert _signed_by(await _sent(ambient)) == ("ASIA1", Role(1).token)
    assert _signed_by(await _sent(ambient)) == ("ASIA1", Role(1).token)
    assert metadata.given == 1


async def test_fifty_requests_at_once_ask_once(ambient: AWSAuthenticator, metadata: Metadata) -> None:
    keys: list[str] = []

    async def send() -> None:
        keys.append(_signed_by(await _sent(ambient))[0])

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(send)
    assert keys == ["ASIA1"] * 50
    assert metadata.given == 1


async def test_they_are_replaced_before_they_expire(metadata: Metadata) -> None:
    clock = Clock(time.time())
    authenticator = AWSAuthenticator(Given(settings=SETTINGS), clock=clock)
    await _sent(authenticator)
    clock.now += HOUR - 400
    metadata.life_s = 2 * HOUR
    assert _signed_by(await _sent(authenticator))[0] == "ASIA1"
    clock.now += 200
    assert _signed_by(await _sent(authenticator))[0] == "ASIA2"
    assert {TOKEN + "-1", TOKEN + "-2", SECRET} == {secret.reveal() for secret in authenticator.secrets}


async def test_a_refusal_has_them_fetched_anew(ambient: AWSAuthenticator, metadata: Metadata) -> None:
    await _sent(ambient)
    assert await ambient.renew()
    assert _signed_by(await _sent(ambient))[0] == "ASIA2"
    assert metadata.given == 2
    await ambient.aclose()


@pytest.fixture
def container(start: Start, monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """What the container's credential service answers, in turn."""
    answers: list[Answer] = []

    def handle(call: Call) -> Answer:
        if (call.path, call.headers.get("authorization")) != ("/creds", "canary-container-token"):
            return Answer(403, "no, because of canary-container-token")
        return answers.pop(0)

    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{start(handle).url}/creds")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary-container-token")
    return answers


async def test_a_container(ambient: AWSAuthenticator, container: list[Answer]) -> None:
    container.append(
        answer({"AccessKeyId": "ASIAC", "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": _in(HOUR)})
    )
    assert _signed_by(await _sent(ambient)) == ("ASIAC", TOKEN)


async def test_expired_ones_are_not_sent(ambient: AWSAuthenticator, container: list[Answer]) -> None:
    old = {"AccessKeyId": "ASIAC", "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": _in(-10)}
    container.extend([answer(old)] * 2)
    assert "set this machine's clock" in await _error(ambient, AuthFailed)


@pytest.mark.parametrize("body", ["canary: no JSON", '{"AccessKeyId": "canary"}'])
async def test_a_container_that_answers_nonsense(ambient: AWSAuthenticator, container: list[Answer], body: str) -> None:
    container.extend([Answer(200, body)] * 3)
    await _error(ambient, AuthFailed)


async def test_a_container_with_a_wrong_token(
    ambient: AWSAuthenticator, container: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary-wrong")
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in await _error(ambient, AuthFailed)
    assert container == []


# --- STS -----------------------------------------------------------------------------------------

ROLE = "arn:aws:iam::123456789012:role/caller"


def _sts_answer(action: str, number: int = 1) -> Answer:
    role = Role(number)
    return Answer(
        200,
        f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>'
        f"<AccessKeyId>{role.key}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
        f"<SessionToken>{role.token}</SessionToken><Expiration>{_in(HOUR)}</Expiration></Credentials>"
        f"</{action}Result></{action}Response>",
        "text/xml",
    )


def _sts_error(code: str, status: int = 403) -> Answer:
    return Answer(
        status,
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>canary-session-token and more</Message></Error></ErrorResponse>",
        "text/xml",
    )


def _is_signed(call: Call, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Check the signature of a call with botocore, from what arrived."""
    at = dt.datetime.strptime(call.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    monkeypatch.setattr(botocore_auth, "get_current_datetime", lambda: at)
    names = call.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    request = AWSRequest(
        method=call.method,
        url=f"http://{call.headers['host']}{call.target}",
        headers={name: call.headers[name] for name in names},
        data=call.body,
    )
    SigV4Auth(ReadOnlyCredentials("AKIABASE", "canary-base", None), "sts", "us-west-2").add_auth(request)
    return bool(request.headers["Authorization"] == call.headers["authorization"])


@pytest.fixture
def assuming(start: Start, monkeypatch: pytest.MonkeyPatch, bare_machine: Path) -> list[Answer]:
    """A profile that assumes a role; gives what STS answers, in turn."""
    answers: list[Answer] = []

    def handle(call: Call) -> Answer:
        assert call.form["Action"] == "AssumeRole"
        assert call.form["RoleArn"] == ROLE
        assert call.form["ExternalId"] == "ext"
        with monkeypatch.context() as patch:
            assert _is_signed(call, patch)
        return answers.pop(0)

    (bare_machine / "aws-config").write_text(
        f"[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = canary-base\n"
        f"[profile role]\nrole_arn = {ROLE}\nsource_profile = base\nexternal_id = ext\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", start(handle).url)
    return answers


@pytest.fixture
def by_profile() -> AWSAuthenticator:
    return AWSAuthenticator(Given(settings={**SETTINGS, "profile": "role"}))


async def test_a_role_is_assumed(by_profile: AWSAuthenticator, assuming: list[Answer]) -> None:
    assuming += [_sts_answer("AssumeRole"), _sts_answer("AssumeRole", 2)]
    assert _signed_by(await _sent(by_profile)) == ("ASIA1", Role(1).token)
    assert await by_profile.renew()
    assert _signed_by(await _sent(by_profile)) == ("ASIA2", Role(2).token)


async def test_nothing_is_logged(
    by_profile: AWSAuthenticator, assuming: list[Answer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assuming.append(_sts_answer("AssumeRole"))
    await _sent(by_profile)
    logging.getLogger("botocore.parsers").debug("elsewhere it still speaks")
    assert "elsewhere" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("code", "status", "kind", "advice"),
    [
        ("AccessDenied", 403, AuthFailed, "role_arn"),
        ("ExpiredToken", 403, AuthFailed, "log in again"),
        ("InvalidClientTokenId", 403, AuthFailed, "change it in the environment or the profile"),
        ("SignatureDoesNotMatch", 403, AuthFailed, "does not know this access key"),
        ("RequestExpired", 400, AuthFailed, "set this machine's clock"),
        ("SomethingElse", 400, AuthFailed, "check the profile"),
        ("InternalFailure", 500, ConnectFailed, "check the network"),
        ("Throttling", 429, ConnectFailed, "check the network"),
    ],
)
async def test_a_role_is_refused(
    by_profile: AWSAuthenticator,
    assuming: list[Answer],
    code: str,
    status: int,
    kind: type[LoomstreamError],
    advice: str,
) -> None:
    assuming.append(_sts_error(code, status))
    text = await _error(by_profile, kind)
    assert f"(ClientError {code})" in text
    assert advice in text


async def test_sts_cannot_be_reached(
    by_profile: AWSAuthenticator, assuming: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    assert "check the network" in await _error(by_profile, ConnectFailed)
    assert assuming == []


async def test_a_web_identity(
    ambient: AWSAuthenticator, start: Start, monkeypatch: pytest.MonkeyPatch, bare_machine: Path
) -> None:
    def handle(call: Call) -> Answer:
        assert "authorization" not in call.headers
        assert call.form["RoleArn"] == ROLE
        if call.form["WebIdentityToken"] != "canary-jwt":
            return _sts_error("InvalidIdentityToken", 400)
        return _sts_answer(call.form["Action"])

    token = bare_machine / "token"
    token.write_text("canary-jwt")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", start(handle).url)
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    assert _signed_by(await _sent(ambient)) == ("ASIA1", Role(1).token)
    token.write_text("canary-other")
    assert "AWS_WEB_IDENTITY_TOKEN_FILE" in await _error(AWSAuthenticator(Given(settings=SETTINGS)), AuthFailed)
    token.unlink()
    assert "a file" in await _error(AWSAuthenticator(Given(settings=SETTINGS)), ConfigError)


# --- SSO -----------------------------------------------------------------------------------------

SSO_TOKEN = "canary-sso-token"
START_URL = "https://acme.awsapps.example/start"


class Portal:
    """The SSO portal."""

    status = 200

    def __call__(self, call: Call) -> Answer:
        assert call.path == "/federation/credentials"
        assert call.query == {"role_name": "Dev", "account_id": "123456789012"}
        if self.status != 200 or call.headers["x-amz-sso_bearer_token"] != SSO_TOKEN:
            code = {403: "ForbiddenException", 503: "ServiceUnavailable"}.get(self.status, "UnauthorizedException")
            status = self.status if self.status != 200 else 401
            return answer({"message": "canary"}, status, x_amzn_errortype=code)
        role = Role(1)
        return answer(
            {
                "roleCredentials": {
                    "accessKeyId": role.key,
                    "secretAccessKey": SECRET,
                    "sessionToken": role.token,
                    "expiration": int((time.time() + HOUR) * 1000),
                }
            }
        )


@pytest.fixture
def portal(start: Start, monkeypatch: pytest.MonkeyPatch, bare_machine: Path) -> Portal:
    service = Portal()
    (bare_machine / "aws-config").write_text(
        f"[profile role]\nsso_start_url = {START_URL}\nsso_region = eu-west-1\n"
        "sso_account_id = 123456789012\nsso_role_name = Dev\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", start(service).url)
    return service


def _logged_in(home: Path, token: str = SSO_TOKEN, life_s: float = HOUR) -> None:
    cache = home / "sso-cache"
    cache.mkdir(exist_ok=True)
    name = hashlib.sha1(START_URL.encode(), usedforsecurity=False).hexdigest()
    value = {"startUrl": START_URL, "region": "eu-west-1", "accessToken": token, "expiresAt": _in(life_s)}
    (cache / f"{name}.json").write_text(json.dumps(value))


@pytest.mark.usefixtures("portal")
async def test_an_sso_login(by_profile: AWSAuthenticator, bare_machine: Path) -> None:
    _logged_in(bare_machine)
    assert _signed_by(await _sent(by_profile)) == ("ASIA1", Role(1).token)


@pytest.mark.usefixtures("portal")
async def test_an_sso_login_that_is_over(by_profile: AWSAuthenticator, bare_machine: Path) -> None:
    assert "aws sso login" in await _error(by_profile, AuthFailed)  # never
    _logged_in(bare_machine, life_s=-10)
    assert "aws sso login" in await _error(by_profile, AuthFailed)  # too long ago
    _logged_in(bare_machine, token="canary-revoked")
    assert "aws sso login" in await _error(by_profile, AuthFailed)  # revoked
    _logged_in(bare_machine)
    assert _signed_by(await _sent(by_profile))[0] == "ASIA1"  # again


@pytest.mark.parametrize(
    ("status", "kind", "advice"), [(403, AuthFailed, "sso_account_id"), (503, ConnectFailed, "network")]
)
async def test_an_sso_account_without_access(
    by_profile: AWSAuthenticator,
    portal: Portal,
    bare_machine: Path,
    status: int,
    kind: type[LoomstreamError],
    advice: str,
) -> None:
    _logged_in(bare_machine)
    portal.status = status
    assert advice in await _error(by_profile, kind)


# --- what is missing or wrong --------------------------------------------------------------------


async def test_there_are_none(ambient: AWSAuthenticator) -> None:
    text = await _error(ambient, MissingKey)
    assert "AWS_BEARER_TOKEN_BEDROCK" in text
    assert "AWS_ACCESS_KEY_ID" in text


async def test_a_profile_without_any(by_profile: AWSAuthenticator, bare_machine: Path) -> None:
    (bare_machine / "aws-config").write_text("[profile role]\nregion = us-east-1\n")
    assert "the profile 'role'" in await _error(by_profile, MissingKey)


@pytest.mark.parametrize(
    ("config", "kind", "advice"),
    [
        ("", ConfigError, "change the setting profile"),
        ("[profile role]\nrole_arn = x\nsource_profile = y\n", ConfigError, "change the profile"),
        ("[profile role]\nrole_arn = x\nsource_profile = role\n", ConfigError, "change the profile"),
        ("[profile role]\nrole_arn = x\ncredential_source = Nonsense\n", ConfigError, "change the profile"),
        ("[profile role]\naws_access_key_id = AKIA\n", ConfigError, "set both parts"),
        ("[profile role\nnonsense", ConfigError, "change the profile"),
        ("[profile role]\nsso_start_url = x\nsso_account_id = 1\n", ConfigError, "change the profile"),
        ("[profile role]\ncredential_process = /nonexistent/program\n", ConfigError, "a file"),
        ("[profile role]\ncredential_process = {python} -c raise(SystemExit('canary'))\n", AuthFailed, "by hand"),
    ],
)
async def test_a_profile_that_cannot_be_used(
    by_profile: AWSAuthenticator, bare_machine: Path, config: str, kind: type[LoomstreamError], advice: str
) -> None:
    (bare_machine / "aws-config").write_text(config.replace("{python}", sys.executable))
    assert advice in await _error(by_profile, kind)


async def test_half_an_access_key_in_the_environment(
    ambient: AWSAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    assert "AWS_SECRET_ACCESS_KEY" in await _error(ambient, ConfigError)


async def test_the_extra_is_missing(ambient: AWSAuthenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore.session", None)
    assert "pip install 'loomstream[bedrock]'" in await _error(ambient, ConfigError)
