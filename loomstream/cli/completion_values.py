"""What a shell completes: the names of providers and models.

Contract: no I/O but the reading of the shipped table and catalog; no key and no host is asked.
"""

from __future__ import annotations

import click

from loomstream.providers.table import TABLE

_SHOWN = 200
"""No shell shows more with any use."""


def providers(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Give the providers whose names begin so."""
    del context, option
    return [row.name for row in TABLE if row.name.startswith(incomplete)]


def models(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Give `PROVIDER:` and `PROVIDER:MODEL`, or the models alone where `--provider` stands before."""
    del option
    named = context.params.get("provider")
    if named:
        return [model for model in _models(named) if model.startswith(incomplete)][:_SHOWN]
    provider, colon, rest = incomplete.partition(":")
    if not colon:
        return [f"{row.name}:" for row in TABLE if row.name.startswith(provider)]
    return [f"{provider}:{model}" for model in _models(provider) if model.startswith(rest)][:_SHOWN]


def _models(provider: str) -> list[str]:
    from loomstream import catalog  # noqa: PLC0415 (only where models are asked for)

    found = [entry.model for entry in catalog.entries(provider)] if provider else []
    return [model for model in found if model != catalog.ANY_MODEL]
