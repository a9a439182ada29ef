"""Redaction: no credentials, no personal data, and the token counts stay."""

from __future__ import annotations

import pytest

from loomstream.telemetry.redaction import redacted


@pytest.mark.parametrize(
    "name",
    ["password", "api_key", "Token", "client_secret", "x-api-key", "db.password.old", "my_api_secret_key", "SSH_KEY",
     "session_token", "llm.token", "authorization"],
)  # fmt: skip
def test_names_of_credentials_go(name: str) -> None:
    assert redacted({name: "v", "nested": {name: "v", "kept": 1}}) == {"nested": {"kept": 1}}


@pytest.mark.parametrize("name", ["llm.tokens.input", "llm.tokens.cache_read", "llm.model", "monkey", "capital"])
def test_other_names_stay(name: str) -> None:
    assert redacted({name: 7}) == {name: 7}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to ann.b+c@mail.example.org now", "write to [EMAIL_REDACTED] now"),
        ("call 555-123-4567 or 5551234567", "call [PHONE_REDACTED] or [PHONE_REDACTED]"),
        ("ssn 123-45-6789", "ssn [SSN_REDACTED]"),
        ("card 4111 1111 1111 1111 or 4111111111111111", "card [CARD_REDACTED] or [CARD_REDACTED]"),
        ("sk-abcd-0123456789abcdef", "[SECRET_REDACTED]"),
        ("Authorization: Bearer abc.def.ghi-123", "Authorization: [SECRET_REDACTED]"),
        ("AKIAIOSFODNN7EXAMPLE", "[SECRET_REDACTED]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln", "[SECRET_REDACTED]"),
        ("claude-sonnet-4-5-20250929 and gpt-4o-2024-08-06", "claude-sonnet-4-5-20250929 and gpt-4o-2024-08-06"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert redacted({"a": text, "b": [text, {"c": (text,)}]}) == {"a": expected, "b": [expected, {"c": [expected]}]}


def test_personal_data_may_stay_where_that_is_wanted() -> None:
    text = "ann@example.com sk-abcdefghijklmnopqrst"
    assert redacted({"a": text}, personal=False) == {"a": "ann@example.com [SECRET_REDACTED]"}


def test_hostile_texts_take_no_time() -> None:
    text = "a@" * 20_000 + "1" * 20_000 + "a." * 20_000
    assert redacted({"a": text})
