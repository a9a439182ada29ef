"""THE table of providers: one row a host.

To add an OpenAI-compatible host, write a row with `_host` and a line in the CHANGELOG; docs/CONTRIBUTING.md has the
steps.
"""

from __future__ import annotations

from loomstream.dialects import Quirks
from loomstream.providers import Provider


def _host(name: str, base_url: str, *, default_model: str = "", quirks: Quirks = Quirks()) -> Provider:  # noqa: B008 (frozen)
    """Give the row of an OpenAI-compatible host, with the customary names of its key."""
    upper = name.upper().replace("-", "_")
    lower = name.replace("-", "_")
    return Provider(
        name=name,
        base_url=base_url,
        key_environment=(f"LOOM_LLM_{upper}_API_KEY", f"{upper}_API_KEY"),
        base_url_environment=(f"LOOM_LLM_{upper}_BASE_URL", f"{upper}_BASE_URL"),
        keyring=f"{lower}_api_key",
        default_model=default_model,
        quirks=quirks,
    )


TABLE: tuple[Provider, ...] = (
    Provider(
        name="anthropic",
        dialect="anthropic_messages",
        base_url="https://api.anthropic.com",
        auth="x-api-key",
        key_environment=("LOOM_LLM_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        base_url_environment=("LOOM_LLM_ANTHROPIC_BASE_URL", "ANTHROPIC_BASE_URL"),
        keyring="anthropic_api_key",
        default_model="claude-sonnet-4-5-20250929",
        quirks=Quirks(needs_max_tokens=4096),
    ),
    Provider(
        name="openai",
        base_url="https://api.openai.com/v1",
        key_environment=("LOOM_LLM_OPENAI_API_KEY", "OPENAI_API_KEY"),
        base_url_environment=("LOOM_LLM_OPENAI_BASE_URL", "OPENAI_BASE_URL"),
        keyring="openai_api_key",
        default_model="gpt-4o",
        quirks=Quirks(max_tokens_key="max_completion_tokens"),
    ),
    Provider(
        name="ollama",
        dialect="ollama_chat",
        base_url="http://localhost:11434",
        auth="none",
        base_url_environment=("LOOM_LLM_OLLAMA_ENDPOINT", "OLLAMA_ENDPOINT", "OLLAMA_BASE_URL", "OLLAMA_HOST"),
        default_model="qwen2.5:7b",
    ),
    Provider(
        name="local",
        auth="bearer",
        default_model="smollm2-135m-instruct",
        quirks=Quirks(top_k=True),
        launch="loomstream.local:launch",
    ),
    Provider(
        name="openai-compatible",
        key_optional=True,
        key_environment=("LOOM_LLM_OPENAI_COMPATIBLE_API_KEY",),
        base_url_environment=("LOOM_LLM_OPENAI_COMPATIBLE_BASE_URL",),
        keyring="openai_compatible_api_key",
        quirks=Quirks(top_k=True),
    ),
    _host("cerebras", "https://api.cerebras.ai/v1"),
    _host("deepseek", "https://api.deepseek.com/v1", default_model="deepseek-chat"),
    _host("groq", "https://api.groq.com/openai/v1"),
    _host("openrouter", "https://openrouter.ai/api/v1", quirks=Quirks(done_marker=True, top_k=True)),
    _host(
        "perplexity", "https://api.perplexity.ai", default_model="sonar", quirks=Quirks(stream_usage=False, top_k=True)
    ),
    _host("snowflake", "", quirks=Quirks(done_marker=True)),  # an address for each account
    _host("venice", "https://api.venice.ai/api/v1", quirks=Quirks(top_k=True)),
    _host("xai", "https://api.x.ai/v1"),
    _host("zai", "https://api.z.ai/api/paas/v4"),
)
"""Every provider that ships with loomstream."""

BY_NAME = {row.name: row for row in TABLE}
