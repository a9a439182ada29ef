"""How Amazon Bedrock's messages are written in tests; moto encodes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from moto.core.eventstream import EventStreamEncoder

JSON = "application/json"
PADDING = "abcdefghijklmnopqrstuvwxyz"
SIGNATURE = "EqQBCgIYAhIkMWEw+/ab=="

encoder = EventStreamEncoder()


def message(headers: Mapping[str, Any], payload: bytes) -> bytes:
    return encoder.encode_message(headers, payload)


def event(name: str, payload: object) -> bytes:
    """Encode an event; a payload of bytes goes as it is, an object as JSON with the padding that AWS adds."""
    if isinstance(payload, dict):
        payload = {**payload, "p": PADDING[: len(name)]}
    data = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    return message({":event-type": name, ":content-type": JSON, ":message-type": "event"}, data)


def exception(name: str, payload: object) -> bytes:
    head = {":exception-type": name, ":content-type": JSON, ":message-type": "exception"}
    return message(head, json.dumps(payload).encode())


def error(code: str, text: str) -> bytes:
    return message({":message-type": "error", ":error-code": code, ":error-message": text}, b"")
