"""Which addresses are a provider's own."""

from __future__ import annotations

import pytest

from loomstream.providers.addresses import is_own_address
from loomstream.providers.table import BY_NAME, TABLE


@pytest.mark.parametrize(
    ("provider", "url", "own"),
    [
        ("openai", "https://api.openai.com/v1", True),
        ("openai", "https://API.OpenAI.com/other", True),
        ("openai", "https://api.openai.com:443", True),
        ("openai", "https://api.openai.com:8443", False),
        ("openai", "http://api.openai.com/v1", False),
        ("openai", "https://api.openai.com.evil.test", False),
        ("openai", "https://evil.test/api.openai.com", False),
        ("openai", "https://user@api.openai.com", False),
        ("openai", "https://xapi-openai.com", False),
        ("openai", "not an address", False),
        ("azure-openai", "https://mine.openai.azure.com", False),  # its tenant's
        ("azure-openai", "https://a.b.openai.azure.com", False),
        ("azure-openai", "https://openai.azure.com.evil.test", False),
        ("bedrock", "https://bedrock-runtime.eu-west-1.amazonaws.com", True),
        ("bedrock", "https://bedrock-runtime.evil.test/.amazonaws.com", False),
        ("vertex-ai", "https://us-central1-aiplatform.googleapis.com", True),
        ("vertex-ai", "https://aiplatform.googleapis.com", True),
        ("vertex-ai", "https://aiplatform.eu.rep.googleapis.com", True),
        ("vertex-ai", "https://evil.test-aiplatform.googleapis.com", False),
        ("snowflake", "https://mine.snowflakecomputing.com/x", False),
        ("databricks", "https://anything.test", False),
        ("openai-compatible", "https://host/v1", False),
        ("ollama", "http://localhost:11434", False),
    ],
)
def test_own_addresses(provider: str, url: str, own: bool) -> None:  # noqa: FBT001 (a row of the table)
    assert is_own_address(BY_NAME[provider], url) is own


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.base_url and "{" not in row.base_url], ids=lambda row: row.name
)
def test_each_row_s_own_address(row: object) -> None:
    address = row.base_url  # type: ignore[attr-defined]
    assert is_own_address(row, address) is ("localhost" not in address)  # type: ignore[arg-type]
