"""The checks of `looms doctor`, in the order in which one depends on the other.

Contract: `diagnose` gives findings and raises nothing that a configuration, a key or a network can cause. The one
provider that would answer is checked wholly; `others` adds every provider with a key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anyio
from msgspec import Struct

from loomstream.config.known_keys import find_key, keys_of
from loomstream.config.load import load
from loomstream.config.settings import Settings
from loomstream.configured.choice import Chosen, chosen, spec_of
from loomstream.configured.plan import plan
from loomstream.configured.stack import Site, stack
from loomstream.doctor import Finding
from loomstream.doctor.advice import Case, advice_for, how_to_set_key
from loomstream.doctor.machine import machine
from loomstream.doctor.probe import LIMIT_S, Probe, ask_live, probe
from loomstream.errors import LoomstreamError, MissingKey, ProviderError
from loomstream.providers import Provider

_READ = "do what the message says; docs/reference/troubleshooting.md has more"


class Wish(Struct, frozen=True, kw_only=True):
    """What to look at: `spec` in the place of the provider that is configured; `timeout_s` is for each request."""

    spec: str | None = None
    offline: bool = False
    live: bool = False
    timeout_s: float = LIMIT_S


async def diagnose(wish: Wish) -> list[Finding]:
    """Give all findings."""
    settings, findings = _configuration()
    found: Chosen | None = None
    spec = wish.spec
    if settings is not None:
        try:
            spec = wish.spec or await anyio.to_thread.run_sync(spec_of, settings)
            found = chosen(spec, settings)
        except LoomstreamError as error:
            findings.append(_failed("provider", error, Case(row=Provider(name=spec or ""))))
    if settings is not None and found is not None and spec is not None:
        findings += [_provider(found), *(await anyio.to_thread.run_sync(_key, found, settings))]
        findings += [_middleware(found, settings)]
        findings += [finding async for finding in _network(spec, found, settings, wish)]
    findings += await anyio.to_thread.run_sync(lambda: list(machine(None if found is None else found.provider)))
    return findings


def _failed(name: str, error: LoomstreamError, case: Case) -> Finding:
    """Give the finding of an error, with what to do about it."""
    fix = advice_for(error, case) or _READ
    return Finding(name=name, status="problem", said=f"{type(error).__name__}: {error}", fix=fix)


# --- what is written down ------------------------------------------------------------------------


def _configuration() -> tuple[Settings | None, list[Finding]]:
    try:
        settings = load()
    except LoomstreamError as error:
        fix = advice_for(error, Case(row=Provider(name=""))) or "correct the line; `looms config validate` checks again"
        said = f"{type(error).__name__}: {error}"
        return None, [Finding(name="configuration", status="problem", said=said, fix=fix)]
    said = settings.file or "no configuration file: defaults and variables hold (`looms config init` writes one)"
    findings = [Finding(name="configuration", status="ok", said=said)]
    findings += [
        Finding(name="configuration", status="warning", said=warning, fix="see the setting's line in the file")
        for warning in settings.warnings
    ]
    findings += [
        Finding(name="configuration", status="problem", said=entry.error, fix="correct the entry")
        for entry in settings.providers
        if entry.error
    ]
    return settings, findings


def _provider(found: Chosen) -> Finding:
    said = f"{found.provider.name}:{found.model} answers"
    if found.warnings:
        return Finding(
            name="provider",
            status="warning",
            said=f"{said}; {'; '.join(found.warnings)}",
            fix="name a model that there is: `looms models`",
        )
    return Finding(name="provider", status="ok", said=said)


def _key(found: Chosen, settings: Settings) -> list[Finding]:
    """Say where the provider's keys come from, and where they were looked for if they are nowhere."""
    row = found.provider
    if row.auth == "none" or row.launch:
        return [Finding(name="key", status="ok", said=f"{row.name} needs none")]
    if found.entry is not None and found.entry.secrets:
        return [Finding(name="key", status="ok", said=f"from file {found.entry.where}")]
    sources, notes, looked = list[str](), list[str](), list[str]()
    for key in keys_of(row):
        looked += [*key.variables, *([f"{key.path} of looms.yaml"] if key.path else []), f"keyring loom/{key.name}"]
        try:
            at = find_key(key, settings, notes)
        except LoomstreamError as error:
            return [_failed("key", error, Case(row=row))]
        sources += [f"{key.name} from {at.source}"] if at is not None else []
    if sources:
        return [Finding(name="key", status="ok", said="; ".join(sources))]
    return [_no_key(row, looked, notes)]


def _no_key(row: Provider, looked: list[str], notes: list[str]) -> Finding:
    why = f" ({'; '.join(dict.fromkeys(notes))})" if notes else ""
    where = f": looked for in {', '.join(looked)}" if looked else ""  # a host of the working folder's file gets none
    said = f"no key for {row.name}{where}{why}"
    if not row.needs_key:
        other = "other credentials of this machine are tried" if row.auth != "bearer" else "it may need none"
        return Finding(name="key", status="ok", said=f"{said}; {other}")
    fix = advice_for(MissingKey(""), Case(row=row)) or how_to_set_key(row)
    return Finding(name="key", status="problem", said=said, fix=fix)


def _middleware(found: Chosen, settings: Settings) -> Finding:
    try:
        layers = stack(settings, plan(settings, found), Site(found.provider, found.model))
    except LoomstreamError as error:
        return _failed("middleware", error, Case(row=found.provider))
    names = (getattr(layer, "__qualname__", type(layer).__name__).split(".")[0] for layer in layers)
    return Finding(name="middleware", status="ok", said=f"{', '.join(names)} (outermost first)")


# --- what others say -----------------------------------------------------------------------------


async def _network(spec: str, found: Chosen, settings: Settings, wish: Wish) -> AsyncIterator[Finding]:
    if wish.offline:
        yield Finding(name="connection", status="skipped", said="nothing was sent (--offline)")
        return
    source = _source(found, settings)
    asked = await probe(spec, settings, timeout_s=wish.timeout_s)
    for finding in _of_probe(asked, source):
        yield finding
    if wish.live:
        error = await ask_live(spec, settings)
        case = Case(row=found.provider, model=found.model, key_source=source)
        good = Finding(name="answer", status="ok", said=f"{found.provider.name}:{found.model} answered")
        yield good if error is None else _failed("answer", error, case)
    else:
        yield Finding(name="answer", status="skipped", said="no answer was asked for, which is billed (--live asks)")


def _source(found: Chosen, settings: Settings) -> str:
    for key in keys_of(found.provider):
        try:
            at = find_key(key, settings)
        except LoomstreamError:
            return ""
        if at is not None:
            return at.source
    return ""


def _of_probe(asked: Probe, source: str) -> Iterator[Finding]:
    """Say what the host said: that it is there, and what is wrong with the key or the model."""
    case = Case(row=asked.row, model=asked.model, key_source=source)
    if asked.reachable is None and asked.error is None:
        yield Finding(name="connection", status="ok", said="it has no address to connect to: nobody is asked")
        return
    if asked.reachable:
        listed = f", lists {asked.models} models" if asked.models else ""
        yield Finding(name="connection", status="ok", said=f"{asked.address} answers (HTTP {asked.status}){listed}")
    if asked.error is None:
        return
    if isinstance(asked.error, MissingKey) and asked.row.needs_key:
        return  # said under `key`
    name = "account" if isinstance(asked.error, ProviderError) else "connection"
    yield _failed(name, asked.error, case)
