"""Which models the page offers: those of the providers that have a key here, and what needs none.

Contract: asks the environment and the keyring, as `connect` would, and no provider. Shows no key. What is not listed
can be typed all the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from time import monotonic

from msgspec import Struct

from loomstream import catalog
from loomstream.config.keys import KEYRING_TIMEOUT_S, resolve_key_sync
from loomstream.endpoint import first_set
from loomstream.errors import ConfigError
from loomstream.providers import Listed, Provider, listing

MAX_MODELS = 12
"""More of one provider's models are not listed."""
_RUNTIME = "xllamacpp"
_BUILT_IN = "built in"
"""Where a row comes from that nobody here has set up."""


class ModelChoice(Struct, frozen=True):
    """A model that can be asked: `spec` is what `connect` takes."""

    spec: str
    provider: str
    model: str


def choices(first: str = "") -> list[ModelChoice]:
    """Give the models on offer; `first` is the spec that stands before all others, if one is given.

    The keyring is asked at most `KEYRING_TIMEOUT_S` for all providers together.
    """
    until_s = monotonic() + KEYRING_TIMEOUT_S
    rows = [listed.row for listed in _listing() if listed.row is not None and _is_usable(listed, listed.row, until_s)]
    found = [_choice(first)] if first else []
    found += [_choice(f"{row.name}:{model}") for row in rows for model in _models(row)]
    return list({choice.spec: choice for choice in found}.values())


def _listing() -> list[Listed]:
    """Give what providers there are; a configuration file that cannot be read hides its own alone."""
    try:
        return listing()
    except ConfigError:
        return listing(with_file=False)


def _choice(spec: str) -> ModelChoice:
    provider, _, model = spec.partition(":")
    return ModelChoice(spec, provider, model)


def _is_usable(listed: Listed, row: Provider, until_s: float) -> bool:
    if row.launch:
        return importlib.util.find_spec(_RUNTIME) is not None
    if row.handler:
        return True
    if row.base_url_environment and not row.base_url and not first_set(row.base_url_environment):
        return False
    try:
        keyring = row.keyring if row.needs_key and monotonic() < until_s else ""
        key = resolve_key_sync(
            provider=row.name,
            env_names=row.key_environment,
            keyring_name=keyring,
            timeout_s=max(until_s - monotonic(), 0.01),
        )
    except ConfigError:
        return False
    configured = listed.origin != _BUILT_IN or bool(first_set(row.base_url_environment))
    return key is not None or (not row.needs_key and configured)


def _models(row: Provider) -> Iterable[str]:
    """Give the default model, then those of the catalog that are not going away."""
    name = row.catalog_name or row.name
    known = [entry.model for entry in catalog.entries(name) if not catalog.end_of_life(name, entry.model)]
    named = [first_set(row.model_environment) or row.default_model, *known]
    models = [model for model in named if model and model != catalog.ANY_MODEL]
    return list(dict.fromkeys(models))[:MAX_MODELS]
