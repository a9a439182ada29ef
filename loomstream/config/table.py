"""THE table of settings: one row a setting, from which loading, variables, errors, schema and documentation come.

Contract: what every provider has stands here; what belongs to one provider is taken from its row in the table of
providers, whose variables `LOOM_LLM_…` name the settings: `LOOM_LLM_OPENAI_MODEL` is `llm.openai_model`. A new provider
brings its settings along, and so does that of an installed package: it is looked at where a name begins with its own.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import sys
from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from loomstream.config.settings import Kind, SettingRow
from loomstream.errors import ConfigError
from loomstream.providers import Provider
from loomstream.providers.table import BY_NAME, TABLE

_PREFIX = "LOOM_"
_OF_LLM = "LOOM_LLM_"
_MOST_TOKENS = 1_000_000_000
"""As in the catalog: no model has so long an answer, and what is far above fits in no host's integer."""
_MOST_COUNT = 1_000_000_000
_MOST_SUM = 10**15
"""What is above these is a slip of the hand."""
_ADDRESSES = ("_ENDPOINT", "_BASE_URL")
"""The two words that the variables have for an address: each stands for the other."""


def variable(path: str) -> str:
    """Give the variable of a setting."""
    return _PREFIX + path.upper().replace(".", "_")


def _row(path: str, kind: Kind, text: str, *also: str, **rest: object) -> SettingRow:
    """Give a row with its own variable, and others that mean the same."""
    made = SettingRow(path=path, kind=kind, help=text, environment=(variable(path), *also))
    return replace(made, **rest) if rest else made


# --- of every provider ---------------------------------------------------------------------------

_CALL = (
    _row("llm.temperature", "number", "how varied answers are; not sent unless set", least=0, most=2),
    _row(
        "llm.max_tokens",
        "whole",
        "the most tokens of an answer; unset, the provider's own limit holds",
        least=0,
        most=_MOST_TOKENS,
    ),
    _row(
        "llm.timeout_seconds",
        "number",
        "seconds of silence before giving up: until the first content, and between two pieces of it; for an answer "
        "that is not streamed, until its end. Unset or 0: the provider's (60, Ollama 120; 600 for a whole answer)",
        least=0,
    ),
    _row("llm.total_timeout_seconds", "number", "seconds for the whole call; unset or 0, no limit", least=0),
    _row("llm.concurrency_limit", "whole", "calls of one model at once; 0 is no limit", least=0, most=_MOST_COUNT),
    _row(
        "llm.allow_http",
        "flag",
        "let plain http leave this machine: nothing is encrypted then",
        default=False,
        own_only=True,
    ),
)
_DOUBLING = "milliseconds before the first retry; it doubles, up to 8 s or this, whichever is longer"
_RATES = (
    _row("llm.rate_limit.disabled", "flag", "no limit of requests and tokens, and none learned"),
    _row("llm.rate_limit.requests_per_second", "number", "requests that may begin per second; 0 is no limit", least=0),
    _row(
        "llm.rate_limit.tokens_per_minute", "number", "tokens per minute, of prompts and answers; 0: no limit", least=0
    ),
    _row("llm.rate_limit.burst_capacity", "number", "requests that may begin at once after a pause", least=0),
    _row("llm.rate_limit.min_delay_ms", "number", "milliseconds between the beginnings of two requests", least=0),
    _row("llm.rate_limit.max_retries", "whole", "tries after the first one; 0: none", least=0, most=_MOST_COUNT),
    _row("llm.rate_limit.retry_backoff_ms", "number", _DOUBLING, least=0),
    _row("llm.rate_limit.queue_timeout_seconds", "number", "seconds that a call may wait for its turn", least=0),
)
CALL_ROWS = (*_CALL, *(replace(row, aliases=(row.path.removeprefix("llm."),)) for row in _RATES))
"""What `llm:` says of every call; an entry of `providers:` may say it too."""

_LLM = (
    _row("llm.provider", "text", "who answers where a program names nobody: a provider, or an entry of `providers:`"),
    _row(
        "llm.model",
        "text",
        "the model of `llm.provider`",
        deprecated="the provider's own key, such as llm.openai_model",
    ),
)
_POOL = (_row("active_provider", "text", "the entry of `providers:` that answers where a program names nobody"),)

_AUDIT_LOG = "the embedded mode keeps calls in the audit log (docs/how-to/audit-log.md)"
_MODES = ("embedded", "service", "otel", "none")
_OBSERVABILITY = (
    _row("observability.enabled", "flag", "false: nothing is reported, whatever else is set", default=True),
    _row("observability.provider", "text", "who takes the reports in", choices=("hawk", "otlp", "otel")),
    _row("observability.mode", "text", "how calls are reported", "LOOM_TRACER_MODE", choices=_MODES),
    _row(
        "observability.hawk_endpoint",
        "address",
        "Hawk's address",
        vendor_environment=("HAWK_ENDPOINT", "HAWK_URL"),
        own_only=True,
    ),
    _row(
        "observability.hawk_api_key",
        "text",
        "Hawk's key",
        secret=True,
        keyring="hawk_api_key",
        vendor_environment=("HAWK_API_KEY",),
    ),
    _row(
        "observability.storage_type",
        "text",
        "where the embedded mode keeps calls",
        "LOOM_EMBEDDED_STORAGE",
        choices=("memory", "sqlite"),
        unused=_AUDIT_LOG,
    ),
    _row(
        "observability.sqlite_path",
        "text",
        "the embedded mode's database",
        "LOOM_EMBEDDED_SQLITE_PATH",
        own_only=True,
        unused=_AUDIT_LOG,
    ),
    _row("observability.flush_interval", "duration", "how often reports are sent: seconds, or 30s, 5m", least=0),
    _row(
        "observability.otlp_endpoint",
        "address",
        "the address of an OpenTelemetry collector",
        "LOOM_OTLP_ENDPOINT",
        vendor_environment=("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        own_only=True,
    ),
    _row(
        "observability.otlp_headers",
        "headers",
        "headers for the collector; they may hold keys",
        "LOOM_OTLP_HEADERS",
        secret=True,
        vendor_environment=("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
    ),
    _row(
        "observability.otlp_insecure",
        "flag",
        "plain http to the collector",
        "LOOM_OTLP_INSECURE",
        default=False,
        own_only=True,
    ),
    _row("observability.otlp_include_spans", "names", "the beginnings of the names of spans that are sent"),
    _row(
        "observability.prefer_embedded",
        "flag",
        "keep calls here though a service is set",
        "LOOM_TRACER_PREFER_EMBEDDED",
        default=False,
    ),
    _row(
        "observability.service_name",
        "text",
        "what reports call this program",
        vendor_environment=("OTEL_SERVICE_NAME",),
    ),
    _row("observability.service_version", "text", "its version", vendor_environment=("OTEL_SERVICE_VERSION",)),
    _row("observability.capture_content", "flag", "report prompts and answers too", default=False, own_only=True),
)

_RESUMES = ("off", "prefill", "prompt", "restart")
_PERIODS = ("call", "tag", "hour", "day", "month", "total")
MIDDLEWARE_ROWS = (
    _row("middleware.retry.max_retries", "whole", "tries after the first one; 0: none", least=0, most=_MOST_COUNT),
    _row("middleware.retry.backoff_ms", "number", _DOUBLING, least=0),
    _row("middleware.retry.longest_wait_seconds", "number", "the longest pause that a host may ask for", least=0),
    _row("middleware.retry.resume", "text", "what follows an answer that broke in its middle", choices=_RESUMES),
    _row("middleware.limits.requests_per_minute", "number", "0 is no limit", least=0),
    _row("middleware.limits.tokens_per_minute", "number", "0 is no limit", least=0),
    _row("middleware.limits.concurrency", "whole", "calls at once; 0 is no limit", least=0, most=_MOST_COUNT),
    _row("middleware.limits.burst", "number", "requests that may begin at once after a pause", least=0),
    _row("middleware.limits.min_delay_ms", "number", "milliseconds between the beginnings of two requests", least=0),
    _row("middleware.limits.max_queue", "whole", "calls that may wait; 0: none", least=0, most=_MOST_COUNT),
    _row("middleware.limits.max_wait_seconds", "number", "seconds that a call may wait for its turn", least=0),
    _row("middleware.timeout.connect_seconds", "number", "until a connection is up", least=0.001),
    _row("middleware.timeout.first_event_seconds", "number", "until the first content", least=0.001),
    _row("middleware.timeout.idle_seconds", "number", "between two pieces of content", least=0.001),
    _row("middleware.timeout.whole_seconds", "number", "an answer that is not streamed", least=0.001),
    _row("middleware.timeout.total_seconds", "number", "each try in all", least=0.001),
    _row("middleware.budget.limit_usd", "money", "US dollars; 0 allows no call"),
    _row("middleware.budget.limit_tokens", "whole", "tokens of every kind; 0 allows no call", least=0, most=_MOST_SUM),
    _row("middleware.budget.per", "text", "what the limit runs over (UTC)", choices=_PERIODS, default="total"),
    _row("middleware.failover.to", "names", "who is asked next: entries of `providers:`, or PROVIDER:MODEL"),
    _row("middleware.failover.resume", "text", "what follows an answer that broke in its middle", choices=_RESUMES),
    _row("middleware.cache.ttl_seconds", "number", "how long an answer is kept", least=0.001),
    _row("middleware.cache.max_entries", "whole", "how many answers are kept", least=1, most=_MOST_COUNT),
    _row("middleware.cache.sampled", "flag", "also what a temperature above 0 asks for"),
    _row(
        "middleware.circuit_breaker.failures", "whole", "so many failures open the circuit", least=1, most=_MOST_COUNT
    ),
    _row("middleware.circuit_breaker.window_seconds", "number", "within so many seconds", least=0.001),
    _row("middleware.circuit_breaker.open_seconds", "number", "how long it stays open", least=0.001),
)
"""The options of the middleware that a configuration can name."""

MIDDLEWARE_NAMES = tuple(dict.fromkeys(row.path.split(".")[1] for row in MIDDLEWARE_ROWS))
"""The middleware that a configuration can name, beside that of installed packages."""


# --- of one provider -----------------------------------------------------------------------------


def prefix_of(row: Provider) -> str:
    """Give what a provider's settings begin with, as in `azure_openai_`."""
    names = [name for name in _variables(row) if name.startswith(_OF_LLM)]
    common = os.path.commonprefix(names).removeprefix(_OF_LLM).lower()  # noqa: RUF071 (names, not paths)
    return common[: common.rfind("_") + 1]


def _variables(row: Provider) -> tuple[str, ...]:
    settings = (name for setting in row.settings for name in setting.environment)
    return (*row.key_environment, *row.base_url_environment, *row.model_environment, *settings)


def _of_provider(row: Provider) -> Iterator[SettingRow]:
    title = row.name
    yield from _fed(row, "api_key", row.key_environment, f"the key of {title}", secret=True, keyring=row.keyring)
    yield from _fed(row, "base_url", _addresses(row.base_url_environment), f"the address of {title}", row.base_url)
    yield from _fed(row, "model", row.model_environment, f"the model of {title}", row.default_model)
    for setting in row.settings:
        yield from _fed(
            row,
            setting.name,
            setting.environment,
            setting.help,
            setting.default,
            secret=bool(setting.keyring),
            keyring=setting.keyring,
        )
    if not row.launch and not row.handler and (prefix := prefix_of(row)):
        made = _row(f"llm.{prefix}extra_headers", "headers", f"headers of each request to {title}; none holds a key")
        yield replace(made, provider=row.name, feeds="extra_headers")


def _fed(
    row: Provider,
    feeds: str,
    names: tuple[str, ...],
    text: str,
    default: str = "",
    *,
    secret: bool = False,
    keyring: str = "",
) -> Iterator[SettingRow]:
    ours = tuple(name for name in names if name.startswith(_OF_LLM))
    if ours:
        path, *aliases = (f"llm.{name.removeprefix(_OF_LLM).lower()}" for name in ours)
        yield SettingRow(
            path=path,
            kind="address" if feeds == "base_url" else "text",
            help=text,
            default=None if secret or "{" in default else default or None,
            aliases=tuple(aliases),
            environment=ours,
            vendor_environment=tuple(name for name in names if name not in ours),
            secret=secret,
            keyring=keyring,
            provider=row.name,
            feeds=feeds,
        )


def _addresses(names: tuple[str, ...]) -> tuple[str, ...]:
    """Add the other word for an address to our own variables."""
    first, second = _ADDRESSES
    twins = [
        name.removesuffix(word) + other
        for name in names
        for word, other in ((first, second), (second, first))
        if name.startswith(_OF_LLM) and name.endswith(word)
    ]
    ours = [name for name in names if name.startswith(_OF_LLM)]
    return tuple(dict.fromkeys((*ours, *twins, *names)))


# --- the table -----------------------------------------------------------------------------------

PROVIDER_ROWS = tuple(made for row in TABLE for made in _of_provider(row))
"""What belongs to one provider."""

SETTINGS: tuple[SettingRow, ...] = (*_LLM, *CALL_ROWS, *PROVIDER_ROWS, *_POOL, *_OBSERVABILITY, *MIDDLEWARE_ROWS)
"""Every setting of a `looms.yaml`, but for the list `providers:`."""


def _by_variable() -> Mapping[str, tuple[SettingRow, ...]]:
    found: dict[str, tuple[SettingRow, ...]] = {}
    for row in SETTINGS:
        for name in (*row.environment, *row.vendor_environment):
            found[name] = (*found.get(name, ()), row)
    return found


BY_PATH: Mapping[str, SettingRow] = {path: row for row in SETTINGS for path in (row.path, *row.aliases)}
"""Each path and alias to its row."""

_FED: Mapping[tuple[str, str], SettingRow] = {(row.provider, row.feeds): row for row in PROVIDER_ROWS}


def fed_by(provider: str, feeds: str) -> SettingRow | None:
    """Give the row that feeds something of a provider (see `SettingRow.feeds`), None where none does."""
    if provider in BY_NAME:
        return _FED.get((provider, feeds))
    return next((row for row in _of_package(provider) if row.feeds == feeds), None)


BY_VARIABLE: Mapping[str, tuple[SettingRow, ...]] = _by_variable()
"""Each variable to the rows that it feeds."""

SECTIONS = frozenset(path[:end] for path in BY_PATH for end, character in enumerate(path) if character == ".")
"""The paths that hold settings."""


# --- of installed packages -----------------------------------------------------------------------


def _of_package(name: str) -> tuple[SettingRow, ...]:
    """Give the settings of a package's provider; none where there is none of this name, or it cannot be used."""
    return _made_of(name, tuple(sys.path))


@functools.lru_cache(maxsize=64)
def _made_of(name: str, path: tuple[str, ...]) -> tuple[SettingRow, ...]:
    del path  # where packages are looked for: another path may have others
    from loomstream.providers import plugins  # noqa: PLC0415 (30 ms, only for what the table does not have)

    try:
        row = plugins.provider(name)
    except ConfigError:  # it is told where the provider is named
        return ()
    return () if row is None else tuple(_of_provider(row))


def _of_packages(stem: str) -> Iterator[SettingRow]:
    """Give the settings of those packages' providers whose name `acme_model`, or `ACME_MODEL`, begins with."""
    from loomstream.providers import plugins  # noqa: PLC0415 (as above)

    for name in plugins.names(plugins.PROVIDERS):
        if name not in BY_NAME and stem.lower().startswith(re.sub(r"\W", "_", name).lower() + "_"):
            yield from _of_package(name)


def by_path(path: str) -> SettingRow | None:
    """Give the row of a path or of an alias, also of an installed package's provider; None where there is none."""
    if path in BY_PATH or not path.startswith("llm."):
        return BY_PATH.get(path)
    return next((row for row in _of_packages(path[4:]) if path in (row.path, *row.aliases)), None)


def names_like(name: str) -> tuple[str, ...]:
    """Give what the settings of a package's provider are called in `llm:`, where a name begins with the provider's."""
    return tuple(row.name for row in _of_packages(name))


def by_variable(name: str) -> tuple[SettingRow, ...]:
    """Give the rows that a variable feeds, also those of an installed package's provider."""
    if name in BY_VARIABLE or not name.startswith(_OF_LLM):
        return BY_VARIABLE.get(name, ())
    return tuple(row for row in _of_packages(name.removeprefix(_OF_LLM)) if name in row.environment)


def row_of(path: str) -> SettingRow:
    """Give the row of a path. Raises `ConfigError`, which suggests the nearest one."""
    row = by_path(path)
    if row is None:
        near = difflib.get_close_matches(path, BY_PATH, n=1)
        hint = f": did you mean {near[0]!r}?" if near else "; docs/reference/configuration.md lists all"
        msg = f"there is no setting {path[:80]!r}{hint}"
        raise ConfigError(msg)
    return row
