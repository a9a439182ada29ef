"""AWS credentials that another service gives out: roles of STS, web identities, and logins by SSO."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import time
from pathlib import Path

import pytest
from auth_services import Answer, Call, Given, Start, answer, error_of
from aws_answers import HOUR, SECRET, SETTINGS, Role, in_seconds, sent, signed_by
from botocore import auth as botocore_auth
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from loomstream.auth.aws import AWSAuthenticator
from loomstream.errors import AuthFailed, ConfigError, ConnectFailed, LoomstreamError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]

# --- STS -----------------------------------------------------------------------------------------

ROLE = "arn:aws:iam::123456789012:role/caller"


def _sts_answer(action: str, number: int = 1) -> Answer:
    role = Role(number)
    return Answer(
        200,
        f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>'
        f"<AccessKeyId>{role.key}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
        f"<SessionToken>{role.token}</SessionToken><Expiration>{in_seconds(HOUR)}</Expiration></Credentials>"
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


async def test_a_role_is_assumed(by_profile: AWSAuthenticator, assuming: list[Answer]) -> None:
    assuming += [_sts_answer("AssumeRole"), _sts_answer("AssumeRole", 2)]
    assert signed_by(await sent(by_profile)) == ("ASIA1", Role(1).token)
    assert await by_profile.renew()
    assert signed_by(await sent(by_profile)) == ("ASIA2", Role(2).token)


async def test_nothing_is_logged(
    by_profile: AWSAuthenticator, assuming: list[Answer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assuming.append(_sts_answer("AssumeRole"))
    await sent(by_profile)
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
    text = await error_of(by_profile, kind)
    assert f"(ClientError {code})" in text
    assert advice in text


async def test_sts_cannot_be_reached(
    by_profile: AWSAuthenticator, assuming: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    assert "check the network" in await error_of(by_profile, ConnectFailed)
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
    assert signed_by(await sent(ambient)) == ("ASIA1", Role(1).token)
    token.write_text("canary-other")
    assert "AWS_WEB_IDENTITY_TOKEN_FILE" in await error_of(AWSAuthenticator(Given(settings=SETTINGS)), AuthFailed)
    token.unlink()
    assert "a file" in await error_of(AWSAuthenticator(Given(settings=SETTINGS)), ConfigError)


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
    value = {"startUrl": START_URL, "region": "eu-west-1", "accessToken": token, "expiresAt": in_seconds(life_s)}
    (cache / f"{name}.json").write_text(json.dumps(value))


@pytest.mark.usefixtures("portal")
async def test_an_sso_login(by_profile: AWSAuthenticator, bare_machine: Path) -> None:
    _logged_in(bare_machine)
    assert signed_by(await sent(by_profile)) == ("ASIA1", Role(1).token)


@pytest.mark.usefixtures("portal")
async def test_an_sso_login_that_is_over(by_profile: AWSAuthenticator, bare_machine: Path) -> None:
    assert "aws sso login" in await error_of(by_profile, AuthFailed)  # never
    _logged_in(bare_machine, life_s=-10)
    assert "aws sso login" in await error_of(by_profile, AuthFailed)  # too long ago
    _logged_in(bare_machine, token="canary-revoked")
    assert "aws sso login" in await error_of(by_profile, AuthFailed)  # revoked
    _logged_in(bare_machine)
    assert signed_by(await sent(by_profile))[0] == "ASIA1"  # again


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
    assert advice in await error_of(by_profile, kind)
