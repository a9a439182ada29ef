"""AWS credentials from every place that they come from, and what is said where they do not."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import anyio
import pytest
from auth_services import Answer, Call, Clock, Given, Start, answer, error_of
from aws_answers import HOUR, SECRET, SETTINGS, TOKEN, Role, in_seconds, sent, signed_by

from loomstream.auth import Origin, scheme
from loomstream.auth.aws import AWSAuthenticator
from loomstream.errors import AuthFailed, ConfigError, LoomstreamError, MissingKey

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]

WORK = "[work]\naws_access_key_id = AKIAWORK\naws_secret_access_key = canary-work\n"


# --- what is given -------------------------------------------------------------------------------


async def test_a_bearer_key_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in {"aiobotocore", "botocore"}]:
        monkeypatch.setitem(sys.modules, name, None)
    authenticator = scheme("aws")(Given(key="canary-key", settings=SETTINGS, access_key_id="a", secret_access_key="b"))
    assert authenticator.secrets == ()
    await authenticator.prepare()
    assert (await sent(authenticator))["authorization"] == "Bearer canary-key"
    assert [secret.reveal() for secret in authenticator.secrets] == ["canary-key"]
    assert not await authenticator.renew()
    await authenticator.aclose()


async def test_a_callable_is_asked_for_each_request() -> None:
    tokens = iter(["one", "two", "three"])
    authenticator = AWSAuthenticator(Given(token=lambda: next(tokens), settings=SETTINGS))
    assert [(await sent(authenticator))["authorization"] for _ in range(2)] == ["Bearer one", "Bearer two"]
    assert await authenticator.renew()


async def test_an_access_key_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore.session", None)
    authenticator = AWSAuthenticator(
        Given(settings=SETTINGS, access_key_id="AKIA", secret_access_key=SECRET, session_token=TOKEN)
    )
    await authenticator.prepare()
    assert signed_by(await sent(authenticator)) == ("AKIA", TOKEN)
    assert {secret.reveal() for secret in authenticator.secrets} == {SECRET, TOKEN}
    assert authenticator.discovered == SETTINGS
    assert not await authenticator.renew()


@pytest.mark.parametrize(
    ("secrets", "missing"),
    [({"access_key_id": "AKIA"}, "secret_access_key"), ({"secret_access_key": SECRET}, "access_key_id")],
)
async def test_half_an_access_key_is_an_error(secrets: dict[str, str], missing: str) -> None:
    text = await error_of(AWSAuthenticator(Given(settings=SETTINGS, **secrets)), ConfigError)
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
    headers = await sent(AWSAuthenticator(given))
    assert ("bearer" if headers["authorization"] == "Bearer a-key" else signed_by(headers)[0]) == chosen


@pytest.mark.parametrize(("secrets", "chosen"), [({}, "AKIAWORK"), ({"access_key_id": "AKIA"}, "AKIA")])
async def test_a_profile_of_the_environment_is_the_last(
    bare_machine: Path, secrets: dict[str, str], chosen: str
) -> None:
    (bare_machine / "aws-credentials").write_text(WORK)
    secrets = {**secrets, "secret_access_key": SECRET} if secrets else {}
    given = Given(settings={**SETTINGS, "profile": "work"}, origins={"profile": "environment"}, **secrets)
    assert signed_by(await sent(AWSAuthenticator(given)))[0] == chosen


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
    assert f"/{region}/bedrock/" in (await sent(signing))["authorization"]


async def test_the_shared_credentials_file_may_tell_the_region(bare_machine: Path) -> None:
    (bare_machine / "aws-config").write_text("[profile work]\nregion = eu-north-1\n")
    (bare_machine / "aws-credentials").write_text(WORK + "region = eu-west-3\n")
    signing = AWSAuthenticator(Given(settings={"profile": "work"}, origins={"profile": "argument"}))
    assert "/eu-west-3/bedrock/" in (await sent(signing))["authorization"]


@pytest.mark.parametrize("text", [b"region = x\n", b"\xff\xfe\x00"])
async def test_a_config_file_that_cannot_be_read(bare_machine: Path, text: bytes) -> None:
    (bare_machine / "aws-config").write_bytes(text)
    with pytest.raises(ConfigError, match=r"aws-config cannot be read .*set AWS_REGION"):
        await AWSAuthenticator(Given(key="k")).prepare()
    await AWSAuthenticator(Given(key="k", settings=SETTINGS)).prepare()


# --- AWS's own chain -----------------------------------------------------------------------------


async def test_the_environment(ambient: AWSAuthenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    await ambient.prepare()
    assert signed_by(await sent(ambient)) == ("AKIAENV", TOKEN)
    assert not await ambient.renew()  # the same again
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEW")
    fresh = AWSAuthenticator(Given(settings=SETTINGS))
    assert signed_by(await sent(fresh))[0] == "AKIANEW"


async def test_a_profile_of_the_environment(
    ambient: AWSAuthenticator, monkeypatch: pytest.MonkeyPatch, bare_machine: Path
) -> None:
    (bare_machine / "aws-config").write_text(
        "[profile p]\naws_access_key_id = AKIACONFIG\naws_secret_access_key = canary-config\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "p")
    assert signed_by(await sent(ambient)) == ("AKIACONFIG", "")


async def test_a_credential_process(ambient: AWSAuthenticator, bare_machine: Path) -> None:
    told = {"Version": 1, "AccessKeyId": "AKIAPROC", "SecretAccessKey": SECRET, "Expiration": in_seconds(HOUR)}
    script = bare_machine / "give.py"
    script.write_text(f"print({json.dumps(told)!r})")
    (bare_machine / "aws-config").write_text(f"[default]\ncredential_process = {sys.executable} {script}\n")
    assert signed_by(await sent(ambient))[0] == "AKIAPROC"


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
                "Expiration": in_seconds(self.life_s),
            }
        )


@pytest.fixture
def metadata(start: Start, monkeypatch: pytest.MonkeyPatch) -> Metadata:
    service = Metadata()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", start(service).url)
    return service


async def test_an_instance(ambient: AWSAuthenticator, metadata: Metadata) -> None:
    assert signed_by(await sent(ambient)) == ("ASIA1", Role(1).token)
    assert signed_by(await sent(ambient)) == ("ASIA1", Role(1).token)
    assert metadata.given == 1


async def test_fifty_requests_at_once_ask_once(ambient: AWSAuthenticator, metadata: Metadata) -> None:
    keys: list[str] = []

    async def send() -> None:
        keys.append(signed_by(await sent(ambient))[0])

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(send)
    assert keys == ["ASIA1"] * 50
    assert metadata.given == 1


async def test_they_are_replaced_before_they_expire(metadata: Metadata) -> None:
    clock = Clock(time.time())
    authenticator = AWSAuthenticator(Given(settings=SETTINGS), clock=clock)
    await sent(authenticator)
    clock.now += HOUR - 400
    metadata.life_s = 2 * HOUR
    assert signed_by(await sent(authenticator))[0] == "ASIA1"
    clock.now += 200
    assert signed_by(await sent(authenticator))[0] == "ASIA2"
    assert {TOKEN + "-1", TOKEN + "-2", SECRET} == {secret.reveal() for secret in authenticator.secrets}


async def test_a_refusal_has_them_fetched_anew(ambient: AWSAuthenticator, metadata: Metadata) -> None:
    await sent(ambient)
    assert await ambient.renew()
    assert signed_by(await sent(ambient))[0] == "ASIA2"
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
        answer({"AccessKeyId": "ASIAC", "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": in_seconds(HOUR)})
    )
    assert signed_by(await sent(ambient)) == ("ASIAC", TOKEN)


async def test_expired_ones_are_not_sent(ambient: AWSAuthenticator, container: list[Answer]) -> None:
    old = {"AccessKeyId": "ASIAC", "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": in_seconds(-10)}
    container.extend([answer(old)] * 2)
    assert "set this machine's clock" in await error_of(ambient, AuthFailed)


@pytest.mark.parametrize("body", ["canary: no JSON", '{"AccessKeyId": "canary"}'])
async def test_a_container_that_answers_nonsense(ambient: AWSAuthenticator, container: list[Answer], body: str) -> None:
    container.extend([Answer(200, body)] * 3)
    await error_of(ambient, AuthFailed)


async def test_a_container_with_a_wrong_token(
    ambient: AWSAuthenticator, container: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary-wrong")
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in await error_of(ambient, AuthFailed)
    assert container == []


# --- what is missing or wrong --------------------------------------------------------------------


async def test_there_are_none(ambient: AWSAuthenticator) -> None:
    text = await error_of(ambient, MissingKey)
    assert "AWS_BEARER_TOKEN_BEDROCK" in text
    assert "AWS_ACCESS_KEY_ID" in text


async def test_a_profile_without_any(by_profile: AWSAuthenticator, bare_machine: Path) -> None:
    (bare_machine / "aws-config").write_text("[profile role]\nregion = us-east-1\n")
    assert "the profile 'role'" in await error_of(by_profile, MissingKey)


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
    assert advice in await error_of(by_profile, kind)


async def test_half_an_access_key_in_the_environment(
    ambient: AWSAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    assert "AWS_SECRET_ACCESS_KEY" in await error_of(ambient, ConfigError)


async def test_the_extra_is_missing(ambient: AWSAuthenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore.session", None)
    assert "pip install 'loomstream[bedrock]'" in await error_of(ambient, ConfigError)
