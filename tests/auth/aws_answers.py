"""What the tests of AWS credentials share: what services give out, and what a signed request tells of it."""

from __future__ import annotations

import datetime as dt
import time
from typing import NamedTuple

from auth_services import REQUEST, revealed

from loomstream.auth import Authenticator

SECRET = "canary-secret-key"
TOKEN = "canary-session-token"
HOUR = 3600.0
SETTINGS = {"region": "us-west-2"}


def in_seconds(seconds: float) -> str:
    return dt.datetime.fromtimestamp(time.time() + seconds, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def signed_by(headers: dict[str, str]) -> tuple[str, str]:
    """Give the access key id and the session token of a signed request."""
    authorization = headers["authorization"]
    return authorization.split("Credential=")[1].split("/")[0], headers.get("x-amz-security-token", "")


async def sent(authenticator: Authenticator) -> dict[str, str]:
    return revealed(await authenticator.authorize(REQUEST))


class Role(NamedTuple):
    """The names that a credential service gives to its answers, the n-th time."""

    number: int

    @property
    def key(self) -> str:
        return f"ASIA{self.number}"

    @property
    def token(self) -> str:
        return f"{TOKEN}-{self.number}"
