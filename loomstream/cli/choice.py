"""Which model answers: `--provider`, `--model`, `--base-url` and the key options, as arguments of `connect`.

Contract: pure but for the names of providers. What the options leave open stays open: `connect` decides. A key is only
ever handed to the provider that its option names.
"""

from __future__ import annotations

from collections.abc import Mapping

import click
from msgspec import Struct

from loomstream.providers import is_known
from loomstream.providers.table import TABLE
from loomstream.wire import Secret

_ANY_HOST = "openai-compatible"
_RUNS_FILES = "local"
_MODEL_FILE = ".gguf"


class Wishes(Struct, frozen=True, kw_only=True):
    """What the command line says about the model. `configured_provider` comes from the environment."""

    provider: str | None = None
    configured_provider: str | None = None
    model: str | None = None
    base_url: str | None = None
    keys: Mapping[str, Secret] = {}


class Choice(Struct, frozen=True, kw_only=True):
    """Arguments of `connect`; no `spec` means that it is to choose."""

    spec: str | None = None
    model_path: str | None = None
    api_key: Secret | None = None


def choose(wishes: Wishes) -> Choice:
    """Give what to connect to. Raises `click.UsageError` where the options leave no single meaning."""
    if path := _model_file(wishes):
        return Choice(spec=_file_host(wishes), model_path=path)
    spec = _spec(wishes)
    key = wishes.keys.get(_name(spec)) if spec else None
    return Choice(spec=spec, api_key=key)


def unused_keys(wishes: Wishes, choice: Choice) -> list[str]:
    """Give the providers whose key was given and that will not answer."""
    answers = _name(choice.spec) if choice.spec else None
    return [name for name in wishes.keys if name != answers]


def _name(spec: str) -> str:
    return spec.partition(":")[0]


# --- a file --------------------------------------------------------------------------------------


def _file_hosts() -> set[str]:
    return {row.name for row in TABLE if row.launch}


def _file_host(wishes: Wishes) -> str:
    named = wishes.provider or _name(wishes.model or "")
    return named if named in _file_hosts() else _RUNS_FILES


def _model_file(wishes: Wishes) -> str | None:
    """Give the path of the model file that is to run here, if there is one."""
    model = wishes.model or ""
    if not model.lower().endswith(_MODEL_FILE) or wishes.base_url:
        return None
    hosts = _file_hosts()
    if wishes.provider is not None and _name(wishes.provider) not in hosts:
        return None  # another server's name for a model
    name, _, path = model.partition(":")
    return path if name in hosts else model


# --- a spec --------------------------------------------------------------------------------------


def _spec(wishes: Wishes) -> str | None:
    model = wishes.model
    if model is None:
        return _provider(wishes)
    if wishes.provider is None and _names_a_provider(model):
        return model
    if wishes.base_url and not (wishes.provider or wishes.configured_provider) and is_known(model):
        other = f"for a model of that name --provider {_ANY_HOST} --model {model}"
        msg = f"--model {model} is the name of a provider: use --provider {model}, or {other}"
        raise click.UsageError(msg)
    provider = _provider(wishes)
    if provider is not None:
        name = _name(provider)
        return f"{name}:{model.removeprefix(name + ':')}"
    if ":" in model:
        return model  # `connect` says that it does not know this provider, and which it knows
    if is_known(model):
        msg = f"--model {model} is the name of a provider: use --provider {model}"
        raise click.UsageError(msg)
    msg = f"--model {model} names no provider: write --model PROVIDER:{model}, or add --provider PROVIDER"
    raise click.UsageError(msg)


def _names_a_provider(model: str) -> bool:
    name, colon, _ = model.partition(":")
    return bool(colon) and is_known(name)


def _provider(wishes: Wishes) -> str | None:
    """Give the provider that the options name or imply."""
    named = wishes.provider or wishes.configured_provider
    if named:
        return named
    if wishes.base_url:
        return _ANY_HOST
    if len(wishes.keys) > 1:
        msg = f"keys for several providers are given ({', '.join(wishes.keys)}): say which one answers with --provider"
        raise click.UsageError(msg)
    return next(iter(wishes.keys), None)
