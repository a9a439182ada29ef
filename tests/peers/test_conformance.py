"""Conformance against servers of other projects, over real sockets: every dialect that they speak."""

from __future__ import annotations

from typing import Any

import pytest

import loomstream as ls
from loomstream.testing import conformance

pytestmark = pytest.mark.anyio

KEY = "sk-canary-0123456789"
SPECS = {
    "openai:gpt-4o": "/v1",
    "openai:gpt-5.1": "/v1",
    "anthropic:claude-sonnet-4-5-20250929": "",
    "gemini:gemini-2.5-flash": "/v1beta",
    "ollama:qwen3": "",
    "cohere:command-a-03-2025": "",
}
COUNTS_NOTHING = ("ollama:",)
"""Where aimock sends counts of 0."""


@pytest.mark.parametrize("spec", SPECS)
async def test_aimock(aimock: Any, spec: str) -> None:  # noqa: ANN401 (fixtures of conftest)
    async with ls.connect(spec, base_url=aimock.url + SPECS[spec], api_key=KEY) as model:
        report = await conformance(model, prompt="plain text", tool_prompt="two tools")
    failed = [check.name for check in report.failures]
    assert failed == (["usage is counted"] if spec.startswith(COUNTS_NOTHING) else []), str(report)
    passed = [check.name for check in report.checks if check.result == "pass"]
    assert "a tool is called" in passed, str(report)
    assert "leaving early closes the upstream" in passed


async def test_a_real_model(llamacpp: Any) -> None:  # noqa: ANN401 (fixtures of conftest)
    url = llamacpp.base_url
    async with ls.connect("openai-compatible:m", base_url=url, api_key=llamacpp.api_key, temperature=0.0) as model:
        report = await conformance(model, max_tokens=12)
    report.raise_for_failures()
    applicable = [check.name for check in report.checks if check.result == "pass"]
    assert len(applicable) >= 11, str(report)
