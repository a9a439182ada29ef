"""What the rows know of Claude's generations, wherever they are served, and of Bedrock's other families."""

from __future__ import annotations

import pytest

from loomstream.dialects import Quirks
from loomstream.providers import look_up, route

OLD = {"output_by": "tool"}
FREE = {"refused": ("temperature", "top_p", "top_k"), "thinking_budgets": False}
BOUND = {**FREE, "forced_tools": False, "thinking_off": ""}
HELD = {**BOUND, "thinking_off": "between_tools"}
NAMES = ("output_by", "refused", "thinking_budgets", "forced_tools", "thinking_off")


def of(quirks: Quirks, *names: str) -> dict[str, object]:
    """Give those of the flags that are not the plain form's."""
    return {name: getattr(quirks, name) for name in names if getattr(quirks, name) != getattr(Quirks(), name)}


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("claude-3-7-sonnet-20250219", OLD),
        ("claude-sonnet-4-20250514", OLD),
        ("claude-sonnet-4-0", OLD),
        ("claude-opus-4-20250514", OLD),
        ("claude-opus-4-1-20250805", OLD),
        ("claude-sonnet-4-5-20250929", {}),
        ("claude-haiku-4-5", {}),
        ("claude-opus-4-5-20251101", {}),
        ("claude-opus-4-6", {}),
        ("claude-opus-4-7", FREE),
        ("claude-sonnet-5", FREE),
        ("claude-haiku-5-5", FREE),
        ("claude-fable-5", FREE),
        ("claude-opus-5-5", BOUND),
        ("claude-fable-5-1", BOUND),
        ("claude-mythos-5-2", BOUND),
        ("claude-sonnet-5-5", HELD),
    ],
)
def test_generations_of_claude(model: str, flags: dict[str, object]) -> None:
    for provider, named in (("anthropic", model), ("vertex", model), ("bedrock", f"us.anthropic.{model}-v1:0")):
        assert of(route(look_up(provider), named).quirks, *NAMES) == flags, provider


def test_a_date_of_google_cloud() -> None:
    assert of(route(look_up("vertex"), "claude-sonnet-4@20250514").quirks, *NAMES) == OLD


NO_CACHE = {"cache_points_in": ()}


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", {}),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", {**OLD, "longest_cache_ttl": "5m"}),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", {**OLD, "longest_cache_ttl": "5m"}),
        ("global.anthropic.claude-opus-4-5-20251101-v1:0", {}),
        ("amazon.nova-pro-v1:0", {**OLD, "cache_points_in": ("system", "messages"), "longest_cache_ttl": "5m"}),
        ("openai.gpt-oss-120b-1:0", NO_CACHE),
        ("mistral.mistral-large-2407-v1:0", {**OLD, **NO_CACHE}),
        ("us.meta.llama3-3-70b-instruct-v1:0", {**OLD, **NO_CACHE}),
        ("us.deepseek.r1-v1:0", {**OLD, **NO_CACHE}),
        ("moonshotai.kimi-k2.5", {}),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab12", OLD),
    ],
)
def test_families_of_bedrock(model: str, flags: dict[str, object]) -> None:
    for dialect in ("bedrock_converse", "bedrock_invoke"):
        chosen = route(look_up("bedrock"), model, dialect=dialect)
        assert of(chosen.quirks, "output_by", "cache_points_in", "longest_cache_ttl") == flags


def test_claude_on_google_cloud_fetches_nothing() -> None:
    assert route(look_up("vertex"), "claude-opus-4-6").quirks.url_sources is False
    assert route(look_up("anthropic"), "claude-opus-4-6").quirks.url_sources is True
