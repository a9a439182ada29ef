"""What may leave: addresses and headers."""

from __future__ import annotations

import pytest

from loomstream.errors import ConfigError
from loomstream.transport.outgoing import check_base_url, check_url, reveal_headers

PASSWORD = "pa55word"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        (" localhost:11434 ", "http://localhost:11434"),
        ("localhost", "http://localhost"),
        ("0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("[::1]:8080/v1", "http://[::1]:8080/v1"),
        ("model.example/v1", "http://model.example/v1"),
        ("gpu:8080", "http://gpu:8080"),
        ("http://gpu/v1", "http://gpu/v1"),
    ],
)
def test_a_base_url_may_leave_out_the_scheme(text: str, url: str) -> None:
    assert check_base_url(text) == url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 (nothing is bound)
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("http://0.0.0.0:11434/api", "http://127.0.0.1:11434/api"),
        ("http://[::]:11434", "http://[::1]:11434"),
        ("localhost", "http://localhost:11434"),
        ("localhost/api", "http://localhost:11434/api"),
        ("[::1]", "http://[::1]:11434"),
        ("box.example", "http://box.example:11434"),
        ("http://box.example", "http://box.example"),
        ("https://0.0.0.0.example", "https://0.0.0.0.example"),
    ],
)
def test_the_address_of_a_servers_environment_leads_to_the_server(text: str, url: str) -> None:
    assert check_base_url(text, usual="http://localhost:11434") == url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("dbc-1.cloud.example", "https://dbc-1.cloud.example"),
        ("dbc-1.cloud.example:8443/x", "https://dbc-1.cloud.example:8443/x"),
        ("localhost:5000", "http://localhost:5000"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("http://dbc-1.cloud.example", "http://dbc-1.cloud.example"),
    ],
)
def test_a_host_without_a_scheme_has_the_usual_one(text: str, url: str) -> None:
    assert check_base_url(text, usual="https://host/v1") == url


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("nonsense", "'nonsense' is not a URL"),
        ("nonsense/v1.0", "is not a URL"),
        ("", "is not a URL"),
        (f"https://api.example.com/v1?key={PASSWORD}", "has a query"),
        (f"https://api.example.com/v1#{PASSWORD}", "has a fragment"),
        (f"https://me:{PASSWORD}@api.example.com/v1?a=b", "has a query"),
        ("localhost:8080?a=b", "has a query"),
    ],
)
def test_a_base_url_that_cannot_be_used(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part) as caught:
        check_base_url(text)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "port"),
    [("https://api.example.com/v1", 443), ("http://localhost/v1", 80), ("http://localhost:8080/v1", 8080)],
)
def test_the_port_is_the_url_s_or_the_scheme_s(url: str, port: int) -> None:
    assert check_url(url, allow_http=False).port == port


def test_port_0_is_no_port() -> None:
    with pytest.raises(ConfigError, match="is not a URL"):
        check_url("http://localhost:0/v1", allow_http=False)


def test_plain_http_to_another_machine_says_what_it_would_do() -> None:
    with pytest.raises(ConfigError, match=r"would send the prompt, and any key, unencrypted.*allow_http=True"):
        check_url("http://api.example.com/v1", allow_http=False)


@pytest.mark.parametrize(
    "name", ["Content-Length", "transfer-encoding", "Connection", "TE", "Trailer", "Upgrade", "HOST"]
)
def test_headers_that_frame_the_message_are_the_client_s_alone(name: str) -> None:
    with pytest.raises(ConfigError, match=f"the header '{name}' is set by the HTTP client"):
        reveal_headers({"accept": "*/*", name: "5"})
