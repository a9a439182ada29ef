"""What the configuration says of one model: address, credentials, time limits, defaults of requests, limits.

Contract: values in, values out. What a caller passes wins, and is not known here. An address that the file of a working
folder names gets no credential from elsewhere: a key goes to its provider's own hosts, or to an address that its own
layer names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

from msgspec.structs import replace

from loomstream.auth import API_KEY
from loomstream.config.keys import ResolvedKey
from loomstream.config.settings import DEFAULT, Origin, Settings, Value
from loomstream.config.table import CALL_ROWS, fed_by
from loomstream.configured.choice import Chosen
from loomstream.errors import ConfigError
from loomstream.messages import RequestOptions, Timeouts
from loomstream.middleware.rate_limit import RateLimitSettings
from loomstream.providers import Provider, Setting, route, settings_of_address
from loomstream.providers.addresses import accounts_of, is_own_address, names_account
from loomstream.providers.config_file import distrust
from loomstream.transport.outgoing import is_loopback_url
from loomstream.wire import Secret

_ENDPOINTS = {
    "anthropic_messages": "/v1/messages",
    "cohere_chat": "/v2/chat",
    "ollama_chat": "/api/chat",
    "openai_chat": "/chat/completions",
    "openai_responses": "/responses",
}
"""What may follow the address in a configuration, by dialect: the seed system has whole endpoints."""


class Plan(NamedTuple):
    """What the configuration says of one model.

    `provider` is the row with the settings of the file laid over it, `base_url` the address that is configured,
    `secrets` the credentials that stand in a file, by `api_key` or the name of a setting, `given` those of an entry of
    the pool, which come before all others. `retries` and `limits` are arguments of `loomstream.middleware.defaults`.
    """

    provider: Provider
    base_url: str | None
    secrets: Mapping[str, ResolvedKey]
    given: Mapping[str, Secret]
    request_defaults: RequestOptions
    allow_http: bool
    retries: Mapping[str, float | int]
    limits: Mapping[str, float | int | bool]


# --- what is said of one model -------------------------------------------------------------------


def plan(
    settings: Settings,
    chosen: Chosen,
    *,
    own_key: bool = False,
    own_address: bool = False,
    allow_custom_host: bool = False,
) -> Plan:
    """Give what the settings say of a model.

    `own_key` and `own_address` say that the caller passes the key, or the address, `allow_custom_host` that credentials
    may go wherever the configuration says. Raises `ConfigError` where the file of a working folder would send them
    elsewhere: also a caller's key, for only what stands in that file itself may go where it says.
    """
    entry = chosen.entry
    secrets = _secrets(settings, chosen.provider)
    passed = {name: key.secret for name, key in secrets.items() if not key.source.startswith("file")}
    given = {**passed, **({} if entry is None else entry.secrets)}
    row = _with_headers(settings, _with_settings(settings, chosen.provider))
    base_url = _address(settings, row) if row.base_url_environment else None  # an entry with an address has no others
    if not (settings.own or allow_custom_host or (not own_key and _is_of_file(chosen, secrets))):
        if not own_address:
            _check_address(settings, chosen, row, base_url)
        at_home = not own_address and is_own_address(chosen.provider, base_url or _filled(row, chosen.model))
        _check_account(settings, chosen, at_home=at_home)
    values = {**_call_values(settings), **({} if entry is None else entry.values)}
    rates = RateLimitSettings(**{name.partition(".")[2]: value for name, value in values.items() if "." in name})  # pyright: ignore[reportArgumentType] (checked by the table)
    return Plan(
        provider=row,
        base_url=base_url,
        secrets=secrets,
        given=given,
        request_defaults=_request_defaults(values, row, options_of(settings, "timeout")),
        allow_http=bool(values.get("allow_http")),
        retries={**rates.retries(), **_renamed(options_of(settings, "retry"), _RETRY)},
        limits=_limits(
            rates.limits(cast("int | None", values.get("concurrency_limit"))), options_of(settings, "limits")
        ),
    )


def _is_of_file(chosen: Chosen, secrets: Mapping[str, ResolvedKey]) -> bool:
    """Say whether the only credential that can be sent stands in the file that names the address."""
    if any(setting.keyring for setting in chosen.provider.settings):  # another credential may win over the key
        return False
    in_entry = chosen.entry is not None and API_KEY in chosen.entry.secrets
    return in_entry or (API_KEY in secrets and secrets[API_KEY].source.startswith("file"))


def _given(settings: Settings, row: Provider, feeds: str) -> Value:
    """Give what is set, in whatever layer, of one of a provider's settings."""
    found = fed_by(row.name, feeds)
    return None if found is None else settings.given(found.path)


def _known(settings: Settings, row: Provider, feeds: str) -> tuple[Value, Origin]:
    """The same, and where it comes from; None for a variable of the process, which is looked up when it is needed."""
    found = fed_by(row.name, feeds)
    origin = DEFAULT if found is None else settings.origin(found.path)
    if found is None or (origin.layer == "environment" and settings.ambient):
        return None, origin
    return settings.given(found.path), origin


def _secrets(settings: Settings, row: Provider) -> dict[str, ResolvedKey]:
    found: dict[str, ResolvedKey] = {}
    for name in (API_KEY, *(setting.name for setting in row.settings if setting.keyring)):
        value, origin = _known(settings, row, name)
        if isinstance(value, Secret):
            found[name] = ResolvedKey(value, " ".join(origin).strip())
    return found


def _with_settings(settings: Settings, row: Provider) -> Provider:
    """Lay the settings of the file over the row: they stand behind our own variables and before a vendor's."""
    laid = (_set(setting, *_known(settings, row, setting.name)) for setting in row.settings)
    return replace(row, settings=tuple(laid))


def _set(setting: Setting, value: Value, origin: Origin) -> Setting:
    if not isinstance(value, str) or setting.keyring or not setting.environment:  # an entry of the pool set it
        return setting
    stronger = setting.environment if origin.layer == "file" else ()
    ours = tuple(name for name in stronger if name.startswith("LOOM_"))
    return replace(setting, environment=ours, default=value, required=False)


def _with_headers(settings: Settings, row: Provider) -> Provider:
    headers = _given(settings, row, "extra_headers")
    if not isinstance(headers, Mapping):
        return row
    return replace(row, quirks=replace(row.quirks, headers={**headers, **row.quirks.headers}))


def _address(settings: Settings, row: Provider) -> str | None:
    found = _given(settings, row, "base_url")
    if not isinstance(found, str):
        return None
    return found.rstrip("/").removesuffix(_ENDPOINTS.get(row.dialect, "/"))


def _check_address(settings: Settings, chosen: Chosen, row: Provider, base_url: str | None) -> None:
    """Raise `ConfigError` where a file that may come from anybody sends a credential, or plain text, elsewhere."""
    named = _named_by_file(settings, row, ["base_url"] if base_url else sorted(settings_of_address(row)))
    if named is None:
        return
    address = base_url or _filled(row, chosen.model)
    if is_own_address(chosen.provider, address) or (row.auth == "none" and is_loopback_url(address)):
        return
    where, path = named
    said = f"it cannot send what is for {row.name} elsewhere; {_ALLOWED}"
    how = distrust(settings.owner, said)
    msg = f"{where}: {path}: {how}"
    raise ConfigError(msg, provider=row.name)


_ALLOWED = "allow_custom_host=True (--allow-custom-host), or"


def _check_account(settings: Settings, chosen: Chosen, *, at_home: bool) -> None:
    """Raise `ConfigError` where a file that may come from anybody says whose account, or which identity, is used.

    What stands between us and the provider may go by any header: who is not `at_home` takes none from such a file.
    """
    row = chosen.provider
    headers = _given(settings, row, "extra_headers")
    in_headers = isinstance(headers, Mapping) and (not at_home or any(map(names_account, headers)))
    named = _named_by_file(settings, row, (*accounts_of(row), *(["extra_headers"] if in_headers else [])))
    if named is None:
        return
    where, path = named
    said = f"it cannot say whose account at {row.name} is used, or which identity; {_ALLOWED}"
    msg = f"{where}: {path}: {distrust(settings.owner, said)}"
    raise ConfigError(msg, provider=row.name)


def _named_by_file(settings: Settings, row: Provider, feeds: Iterable[str]) -> tuple[str, str] | None:
    """Give where the file says the first of these that it says."""
    for name in feeds:
        found = fed_by(row.name, name)
        origin = settings.origin(found.path) if found is not None else DEFAULT
        if found is not None and origin.layer == "file":
            return origin.where, found.path
    return None


def _filled(row: Provider, model: str) -> str:
    values = {setting.name: setting.default for setting in row.settings if setting.default}
    address = route(row, model, settings=values).base_url
    for name, value in values.items():
        address = address.replace(f"{{{name}}}", value)
    return address


# --- calls ---------------------------------------------------------------------------------------


def _call_values(settings: Settings) -> dict[str, Value]:
    """Give what `llm:` says of calls, by the names that an entry of the pool has for it."""
    llm = settings.llm
    common = {name: getattr(llm, name) for name in _OF_A_CALL}
    rates = {f"rate_limit.{name}": value for name, value in llm.rate_limit.items()}
    return {**{name: value for name, value in common.items() if value is not None}, **rates}


_OF_A_CALL = tuple(row.name for row in CALL_ROWS if row.section == "llm")
_OF_A_REQUEST = ("temperature", "max_tokens")


def _request_defaults(values: Mapping[str, Value], row: Provider, limits: Mapping[str, object]) -> RequestOptions:
    """Give what is a default of each request; what nobody set is not sent."""
    options = {name: values[name] for name in _OF_A_REQUEST if name in values}
    timeouts = timeouts_of(values, row, limits)
    if timeouts != Timeouts():
        options["timeouts"] = timeouts  # pyright: ignore[reportArgumentType] (one of the options)
    return cast("RequestOptions", options)


def timeouts_of(values: Mapping[str, object], row: Provider, limits: Mapping[str, object]) -> Timeouts:
    """Give the time limits: `timeout_seconds` is that of silence, and of an answer which is not streamed; 0: unset."""
    silence_s = cast("float | None", values.get("timeout_seconds"))
    stated: dict[str, float | None] = {}
    if silence_s:
        stated = dict.fromkeys(("first_event_s", "idle_s", "whole_s"), silence_s)
    elif row.silence_s:
        stated = dict.fromkeys(("first_event_s", "idle_s"), row.silence_s)
    if total_s := values.get("total_timeout_seconds"):
        stated["total_s"] = cast("float", total_s)
    stated |= {f"{name.removesuffix('_seconds')}_s": cast("float", limit) for name, limit in limits.items()}
    return replace(Timeouts(), **stated)


_RETRY = {"max_retries": "max_retries", "backoff_ms": "backoff_s", "longest_wait_seconds": "longest_wait_s",
          "resume": "resume"}  # fmt: skip
_LIMITS = {"requests_per_minute": "requests_per_minute", "tokens_per_minute": "tokens_per_minute",
           "concurrency": "concurrency", "burst": "burst", "min_delay_ms": "min_delay_s", "max_queue": "max_queue",
           "max_wait_seconds": "max_wait_s"}  # fmt: skip


def options_of(settings: Settings, name: str) -> Mapping[str, object]:
    """Give the options of a middleware that is named; none where it is not."""
    found = [named.options for named in settings.middleware if named.name == name]
    return found[0] if found else {}


def _limits(rates: Mapping[str, float | int | bool], options: Mapping[str, object]) -> dict[str, float | int | bool]:
    """Give the limits of `rate_limit` with those of the middleware over them; where there is no limit is no burst."""
    limits = {**rates, **_renamed(options, _LIMITS)}
    without = limits.get("requests_per_minute") == 0
    return {name: value for name, value in limits.items() if not (without and name == "burst")}


def _renamed(options: Mapping[str, object], names: Mapping[str, str]) -> dict[str, float | int]:
    """Give options under the names that the middleware has for them, milliseconds as seconds."""
    scaled = {
        name: cast("float", value) / 1000 if name.endswith("_ms") else cast("float", value)
        for name, value in options.items()
    }
    return {names[name]: value for name, value in scaled.items()}
