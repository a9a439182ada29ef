"""What a shell completes: the names of providers, models, settings and keys.

Contract: no I/O but the reading of the shipped tables and catalog; no key, no keyring and no host is asked.
"""

from __future__ import annotations

import click

from loomstream.providers.table import TABLE

_SHOWN = 200
"""No shell shows more with any use."""
_NAMES_A_PROVIDER = ("llm.provider", "active_provider")
_FLAG = ("true", "false")


def providers(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Give the providers whose names begin so."""
    del context, option
    return [row.name for row in TABLE if row.name.startswith(incomplete)]


def models(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Give `PROVIDER:` and `PROVIDER:MODEL`, or the models alone where `--provider` stands before."""
    del option
    named = context.params.get("provider")
    if named and isinstance(named, str):
        return [model for model in _models(named) if model.startswith(incomplete)][:_SHOWN]
    provider, colon, rest = incomplete.partition(":")
    if not colon:
        return [f"{row.name}:" for row in TABLE if row.name.startswith(provider)]
    return [f"{provider}:{model}" for model in _models(provider) if model.startswith(rest)][:_SHOWN]


def providers_and_models(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Give the providers, and behind a colon the models of one."""
    return models(context, option, incomplete) if ":" in incomplete else providers(context, option, incomplete)


def settings(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Give the key paths of `looms.yaml` that begin so."""
    from loomstream.config.table import SETTINGS  # noqa: PLC0415 (only where settings are asked for)

    del context, option
    return [row.path for row in SETTINGS if row.path.startswith(incomplete)]


def values(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Give what the setting before it may be, where that is a list: its choices, or the providers."""
    from loomstream.config.table import BY_PATH  # noqa: PLC0415 (only where settings are asked for)

    row = BY_PATH.get(str(context.params.get("path") or ""))
    if row is None:
        return []
    if row.path in _NAMES_A_PROVIDER:
        return providers(context, option, incomplete)
    choices = _FLAG if row.kind == "flag" else row.choices
    return [choice for choice in choices if choice.startswith(incomplete)]


def keys(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Give the names of keys that begin so."""
    from loomstream.config.known_keys import known_keys  # noqa: PLC0415 (only where keys are asked for)

    del context, option
    return [key.name for key in known_keys() if key.name.startswith(incomplete)]


def _models(provider: str) -> list[str]:
    from loomstream import catalog  # noqa: PLC0415 (only where models are asked for)

    found = [entry.model for entry in catalog.entries(provider)] if provider else []
    return [model for model in found if model != catalog.ANY_MODEL]
