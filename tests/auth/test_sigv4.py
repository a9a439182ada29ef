"""Signatures, against botocore's own signer and as a server sees them."""

from __future__ import annotations

import datetime as dt
import json
import traceback

import pytest
from auth_services import Answer, Call, Clock, Given, Start, revealed
from botocore import auth as botocore_auth
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from loomstream.auth.aws import AWSAuthenticator
from loomstream.auth.sigv4 import AWSKeys, Signer
from loomstream.errors import ConfigError
from loomstream.transport.http import HttpTransport
from loomstream.wire import Secret, WireRequest

NOW = 1_700_000_000.0
KEY = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzEXAMPLE//////////token=="

ARN = "arn%3Aaws%3Abedrock%3Aus-west-2%3A123456789012%3Aapplication-inference-profile%2Fab12cd34"
HOST = "https://bedrock-runtime.us-west-2.amazonaws.com"
URLS = [
    f"{HOST}/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream",
    f"{HOST}/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0/converse-stream",
    f"{HOST}/model/{ARN}/converse",
    f"{HOST}/model/{ARN}/invoke-with-response-stream",
    f"{HOST}/model/a%20b%25c~d_e-f.g/converse",
    f"{HOST}/model/m/converse?b=2&a=1&a=0&empty=&bare&c=%3A",
    f"{HOST}",
    f"{HOST}/",
    f"{HOST}/a//b/./c/../d/",
    f"{HOST}:443/model/m/converse",
    f"{HOST}:8443/model/m/converse",
    "http://127.0.0.1:4566/model/m/converse",
    "http://127.0.0.1:80/model/m/converse",
    "http://[::1]:4566/model/m/converse",
    "https://VPCE-0a.Bedrock-Runtime.example/model/m/converse",
]
BODIES = [b"", b"{}", '{"text":"fünf €"}'.encode(), b"\x00\xff" * 5000]


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Botocore takes the time from its own function."""
    monkeypatch.setattr(botocore_auth, "get_current_datetime", lambda: dt.datetime.fromtimestamp(NOW, tz=dt.UTC))


def _theirs(wire_request: WireRequest, token: str, region: str, service: str) -> str:
    request = AWSRequest(
        method=wire_request.method, url=wire_request.url, headers=revealed(wire_request), data=wire_request.body
    )
    SigV4Auth(ReadOnlyCredentials(KEY, SECRET, token or None), service, region).add_auth(request)
    return str(request.headers["Authorization"])


def _request(url: str, body: bytes = b"{}", **headers: str) -> WireRequest:
    return WireRequest(url=url, headers={"content-type": "application/json", **headers}, body=body)


def _ours(wire_request: WireRequest, token: str, region: str = "us-west-2", service: str = "bedrock") -> str:
    keys = AWSKeys(KEY, Secret(SECRET), Secret(token) if token else None)
    return revealed(Signer(keys, region=region, service=service).sign(wire_request, at=NOW))["authorization"]


@pytest.mark.parametrize("body", BODIES, ids=len)
@pytest.mark.parametrize("token", ["", TOKEN], ids=["long-lived", "session"])
@pytest.mark.parametrize("url", URLS)
def test_it_is_botocores(url: str, token: str, body: bytes) -> None:
    request = _request(url, body)
    assert _ours(request, token) == _theirs(request, token, "us-west-2", "bedrock")


@given(
    path=st.text(st.sampled_from("ab/.%3A:~-_ "), max_size=20),
    query=st.text(st.sampled_from("ab=&%3A"), max_size=12),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    body=st.binary(max_size=50),
)
def test_it_is_botocores_whatever_is_sent(path: str, query: str, value: str, body: bytes) -> None:
    request = _request(f"{HOST}/{path.replace(' ', '%20')}?{query}", body, **{"X-Amzn-Bedrock-Trace": f"v{value}"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore_auth, "get_current_datetime", lambda: dt.datetime.fromtimestamp(NOW, tz=dt.UTC))
        assert _ours(request, TOKEN) == _theirs(request, TOKEN, "us-west-2", "bedrock")


@pytest.mark.parametrize(("region", "service"), [("eu-central-1", "bedrock"), ("us-gov-west-1", "sts")])
def test_region_and_service_are_signed(region: str, service: str) -> None:
    request = _request(URLS[0])
    assert _ours(request, "", region, service) == _theirs(request, "", region, service)


def test_the_key_of_a_day_is_not_used_the_day_after() -> None:
    signer = Signer(AWSKeys(KEY, Secret(SECRET)), region="us-west-2", service="bedrock")
    signer.sign(_request(URLS[0]), at=NOW - 86400)
    sent = revealed(signer.sign(_request(URLS[0]), at=NOW))
    assert sent["authorization"] == _theirs(_request(URLS[0]), "", "us-west-2", "bedrock")


def test_headers_that_may_change_on_the_way_are_not_signed() -> None:
    plain = _request(URLS[0])
    assert _ours(_request(URLS[0], **{"accept": "a", "user-agent": "b", "x-other": "c"}), "") == _ours(plain, "")


def test_nothing_secret_shows() -> None:
    keys = AWSKeys(KEY, Secret(SECRET), Secret(TOKEN))
    signed = Signer(keys, region="us-west-2", service="bedrock").sign(_request(URLS[0]), at=NOW)
    assert SECRET not in repr((signed, keys))
    assert TOKEN not in repr((signed, keys))


CANARY = "canary7f3a9c2e41d8"


def _refusal(keys: AWSKeys, request: WireRequest, region: str = "us-west-2") -> str:
    """Give the message of the error; nothing that it drags along shows the canary."""
    with pytest.raises(ConfigError) as caught:
        Signer(keys, region=region, service="bedrock").sign(request, at=NOW)
    assert caught.value.__cause__ is None
    trace = traceback.TracebackException(type(caught.value), caught.value, caught.tb.tb_next, capture_locals=True)
    assert CANARY not in "".join(trace.format())
    return str(caught.value)


@pytest.mark.parametrize("end", ["\udcff", "é", "\n", " x"])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_part_of_the_key_that_cannot_be_is_named(position: int, end: str) -> None:
    parts = [KEY, SECRET, TOKEN]
    parts[position] = CANARY + end
    keys = AWSKeys(parts[0], Secret(parts[1]), Secret(parts[2]))
    assert f"the AWS {AWSKeys._fields[position]} holds a blank" in _refusal(keys, _request(URLS[0]))


KEYS = AWSKeys(KEY, Secret(SECRET), Secret(CANARY))


@pytest.mark.parametrize("region", ["", "us west", "us-west-2\n", "a/b", "\udcff"])
def test_a_region_that_cannot_be_is_named(region: str) -> None:
    assert _refusal(KEYS, _request(URLS[0]), region).startswith("the setting region cannot be ")


@pytest.mark.parametrize(
    "url",
    ["https://localhost:99999", "https://[::1", "https://\ud800.com", "https:///x", f"https://u:{CANARY}", "word"],
)
def test_a_url_that_cannot_be_is_a_config_error(url: str) -> None:
    assert "write the base URL as https://host/path" in _refusal_of_url(url)


def _refusal_of_url(url: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Signer(KEYS, region="us-west-2", service="bedrock").sign(_request(url), at=NOW)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("x-amz-meta", "a\udcff"), ("x-amz\udcff", "a"), ("content-type", "a\nb")])
def test_a_header_that_cannot_be_is_named(name: str, value: str) -> None:
    assert _refusal(KEYS, _request(URLS[0], **{name: value})).startswith(f"the header {name!r} holds ")


@pytest.mark.anyio
async def test_preparing_finds_a_key_that_cannot_be() -> None:
    settings = {"region": "us-west-2"}
    credentials = Given(settings=settings, access_key_id=KEY, secret_access_key=f"{CANARY}\udcff")
    with pytest.raises(ConfigError, match="the AWS secret_access_key holds"):
        await AWSAuthenticator(credentials).prepare()


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/model/us.amazon.nova-lite-v1%3A0/converse-stream", f"/model/{ARN}/converse?a=%3A"])
async def test_what_arrives_is_what_was_signed(path: str, start: Start) -> None:
    """A server recomputes the signature from what it received, with botocore."""

    def verify(call: Call) -> Answer:
        signed = call.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
        request = AWSRequest(
            method=call.method,
            url=f"http://{call.headers['host']}{call.target}",
            headers={name: call.headers[name] for name in signed if name != "x-amz-security-token"},
            data=call.body,
        )
        SigV4Auth(ReadOnlyCredentials(KEY, SECRET, TOKEN), "bedrock", "us-west-2").add_auth(request)
        good = request.headers["Authorization"] == call.headers["authorization"]
        return Answer(200 if good else 403, json.dumps({"signed": signed}))

    service = start(verify)
    credentials = Given(
        settings={"region": "us-west-2"}, access_key_id=KEY, secret_access_key=SECRET, session_token=TOKEN
    )
    authenticator = AWSAuthenticator(credentials, clock=Clock(NOW))
    signed = await authenticator.authorize(_request(service.url + path, b'{"messages":[]}'))
    transport = HttpTransport()
    async with transport.open(signed) as response:
        assert response.status == 200
        body = b"".join([chunk async for chunk in response.chunks])
    await transport.aclose()
    assert set(json.loads(body)["signed"]) == {"content-type", "host", "x-amz-date", "x-amz-security-token"}
