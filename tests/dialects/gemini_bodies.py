"""How tests ask in Gemini's wire, and read the bodies that leave."""

# ruff: noqa: ANN401 (JSON of any shape)
from __future__ import annotations

import json
from typing import Any

import msgspec

from loomstream.dialects import Quirks, Target
from loomstream.dialects import gemini as dialect
from loomstream.messages import (
    ContentBlock,
    Message,
    Request,
    Tool,
    user,
)

BASE = "https://host.example/v1beta"
NEW = Target(provider="gemini", model="gemini-3-flash-preview", base_url=BASE)
OLD = Target(provider="gemini", model="gemini-2.5-flash", base_url=BASE, quirks=Quirks(thinking_by="budget"))
HI = [{"role": "user", "parts": [{"text": "hi"}]}]
TOOL = Tool(
    "f", "Does it.", {"type": "object", "properties": {"x": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}
)


def asking(**settings: Any) -> Request:
    return Request(messages=(user("hi"),), **settings)


def saying(*blocks: ContentBlock, role: Any = "assistant") -> Request:
    return Request(messages=(Message(role, blocks),))


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def body_of(request: Request, target: Target = NEW) -> Any:
    return json.loads(dialect.build_request(request, target).body)


def parts_of(request: Request, target: Target = NEW) -> Any:
    return [part for content in body_of(request, target)["contents"] for part in content["parts"]]
