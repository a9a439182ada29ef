"""Which providers of the table the live tests can ask here: those whose credentials and model are found.

The models are inexpensive ones that are known to have been served; `LOOMSTREAM_LIVE_MODELS` names others, as specs:
`groq:llama-3.3-70b-versatile, acme:my-model`; those may also be a package's or `looms.yaml`'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from string import Formatter

from live_suite import EVERYTHING, KEYS, TOOLS, Site
from msgspec import Struct

from loomstream.config.keys import by_rank, resolve_key_sync
from loomstream.model import parse_spec
from loomstream.providers import Provider, Setting
from loomstream.providers.table import TABLE

MODELS = "LOOMSTREAM_LIVE_MODELS"

RESPONSES = "openai_responses"
CHOSEN: dict[str, tuple[tuple[str, str], ...]] = {
    "anthropic": (("claude-haiku-4-5", ""),),
    "openai": (("gpt-4o-mini", ""), ("gpt-4o-mini", RESPONSES)),
    "azure-openai": (("", ""), ("", RESPONSES)),
    "mistral": (("mistral-small-latest", ""),),
    "vertex-ai": (("gemini-2.5-flash", ""), ("claude-haiku-4-5@20251001", "")),
    "bedrock": (
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", ""),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "bedrock_invoke"),
    ),
    "cerebras": (("gpt-oss-120b", ""),),
    "doubleword": (("Qwen/Qwen3.5-9B", ""),),
    "github-copilot": (("gpt-4o-mini", ""),),
    "groq": (("openai/gpt-oss-20b", ""),),
    "openrouter": (("openai/gpt-4o-mini", ""),),
    "snowflake": (("claude-sonnet-4-6", ""),),
    "venice": (("qwen3-5-9b", ""),),
    "vercel-gateway": (("openai/gpt-5", ""),),
    "xai": (("grok-4.3", ""), ("grok-4.3", RESPONSES)),
    "zai": (("glm-4.7-flash", ""),),
}
"""Models and dialects to test with, where they are not the provider's defaults; no model is the environment's."""

CALLS_NO_TOOLS = frozenset({"perplexity"})

AMBIENT = {
    "aws": (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "LOOM_LLM_BEDROCK_PROFILE",
    ),
    "azure": ("AZURE_CLIENT_ID",),
    "google": ("GOOGLE_APPLICATION_CREDENTIALS",),
}
"""What says that a scheme finds an identity beside the row's own variables. Metadata services are not asked."""


class LiveSite(Struct, frozen=True, kw_only=True):
    """A provider, and a model and dialect of it to test; an empty one is the provider's own."""

    row: Provider
    model: str = ""
    dialect: str = ""

    @property
    def name(self) -> str:
        return "-".join(part for part in (self.row.name, self.model, self.dialect) if part)

    @property
    def able(self) -> frozenset[str]:
        """What of the suite it can pass, as far as the table and the environment tell."""
        lacks = {TOOLS} if self.row.name in CALLS_NO_TOOLS else set[str]()
        return EVERYTHING - lacks - (set() if _wants_key(self.row) or _any_set(self.row.key_environment) else {KEYS})

    def missing(self) -> str:
        """Say what must be set before it can be asked; nothing where all is there. The keyring is asked as well."""
        return _no_address(self.row) or _no_credentials(self.row) or _no_model(self.row, self.model)

    def site(self) -> Site:
        spec = f"{self.row.name}:{self.model}" if self.model else self.row.name
        return Site(spec=spec, connect={"dialect": self.dialect or None})


@cache
def live_sites() -> dict[str, LiveSite]:
    """Give the sites of every provider by their names, whether they can be asked or not.

    A provider that is started from here is left out: it needs no credentials, and is tested in every run.
    """
    named = [LiveSite(row=row, model=model) for row, model in map(parse_spec, _named())]
    instead = {site.row.name for site in named}
    usual = [site for row in TABLE if not row.launch and row.name not in instead for site in _usual_sites(row)]
    return {site.name: site for site in (*usual, *named)}


def _usual_sites(row: Provider) -> Iterable[LiveSite]:
    return [LiveSite(row=row, model=model, dialect=dialect) for model, dialect in CHOSEN.get(row.name, (("", ""),))]


def _named() -> list[str]:
    return [spec for written in os.environ.get(MODELS, "").split(",") if (spec := written.strip())]


# --- what is missing -----------------------------------------------------------------------------


def _any_set(names: Iterable[str]) -> bool:
    return any(os.environ.get(name, "").strip() for name in names)


def _not_set(row: Provider, names: Iterable[str], what: str) -> str:
    ranked = by_rank(tuple(names))
    others = f" (or {', '.join(ranked[1:])})" if ranked[1:] else ""
    return f"NOT TESTED: {row.name} has no {what}; to test it: set {ranked[0]}{others}"


def _wants_key(row: Provider) -> bool:
    return row.needs_key or row.auth in AMBIENT


def _no_address(row: Provider) -> str:
    """A host on this machine is asked only where its address is set: nobody looks for it."""
    if _any_set(row.base_url_environment):
        return ""
    if not row.base_url or row.base_url.startswith("http://localhost"):
        return _not_set(row, row.base_url_environment, "address")
    settings = {setting.name: setting for setting in row.settings}
    fields = [settings[field] for _, field, _, _ in Formatter().parse(row.base_url) if field]
    told = row.auth == "aws"  # its scheme finds a region
    unset = [setting for setting in fields if not (told or setting.default or _any_set(setting.environment))]
    return _not_set(row, unset[0].environment, unset[0].name) if unset else ""


def _no_credentials(row: Provider) -> str:
    if not _wants_key(row) or _has(row, row.key_environment, row.keyring):
        return ""
    if _any_set(AMBIENT.get(row.auth, ())) or any(_is_secret_set(row, setting) for setting in row.settings):
        return ""
    return _not_set(row, (*row.key_environment, *AMBIENT.get(row.auth, ())), "credentials")


def _is_secret_set(row: Provider, setting: Setting) -> bool:
    return bool(setting.keyring) and _has(row, setting.environment, setting.keyring)


def _has(row: Provider, environment: tuple[str, ...], keyring: str) -> bool:
    found = resolve_key_sync(provider=row.name, env_names=environment, keyring_name=keyring, is_header=False)
    return found is not None


def _no_model(row: Provider, model: str) -> str:
    if model or row.default_model or _any_set(row.model_environment):
        return ""
    return f"NOT TESTED: {row.name} has no model; to test it: set {MODELS}={row.name}:MODEL-ID"
