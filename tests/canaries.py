"""Credentials of every usual shape that must never be seen, and the look for them in what a program showed."""

import base64
from urllib.parse import quote

SHAPES = {
    "openai": "sk-proj-CANARY0a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6",
    "anthropic": "sk-ant-api03-CANARY-0a1B2c3D4e5F6g7H8i9J0_kLmNoPqRs-AA",
    "aws access key": "AKIACANARY0123456789",
    "aws secret": "CANARYwJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE",
    "google": "AIzaSyCANARY-0a1B2c3D4e5F6g7H8i9J0k1L2m3",
    "huggingface": "hf_CANARYaBcDeFgHiJkLmNoPqRsTuVwXyZ0123",
    "bearer token": "eyJhbGciOiJDQU5BUlkifQ.eyJzdWIiOiJDQU5BUlkwMTIzIn0.c2lnbmF0dXJlQ0FOQVJZ",
    "hexadecimal": "ca1a6fca1a6f0123456789abcdefca1a",
    "uuid": "ca1a6fca-0123-4567-89ab-cdefca1a6fca",
    "quotes and backslashes": "CANARY\"with\\quotes'and{braces}0123",
    "spaces and a colon": "CANARY with spaces: and = signs 0123",
    "very long": "CANARY" + "0123456789abcdef" * 64,
}
"""Twelve shapes."""


def forms(secret: str) -> set[str]:
    """Give the forms in which a credential may show."""
    data = secret.encode()
    return {
        secret,
        repr(secret)[1:-1],
        secret.replace("\\", "\\\\").replace('"', '\\"'),
        quote(secret, safe=""),
        base64.b64encode(data).decode(),
        base64.b64encode(b":" + data).decode()[4:-4],
        data.hex(),
    }


def hits(text: str, secret: str) -> list[str]:
    """Give the forms of a credential that stand in a text."""
    return [form for form in forms(secret) if form in text]
