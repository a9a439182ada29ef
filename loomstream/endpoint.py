"""Where a model's requests go and with which credentials: a row, arguments and the environment become a `Target`.

Contract: making an `Endpoint` does no I/O and raises at once what can be known at once; keys, servers to launch and
what the credentials tell are found out at the first `resolve`. Secrets stay wrapped. It builds and sends no request.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol, cast

import anyio
import msgspec

from loomstream import catalog
from loomstream.auth import API_KEY, Authenticator, Origin, scheme
from loomstream.config.keys import ResolvedKey, by_rank, hide, missing_key, resolve_key
from loomstream.dialects import Quirks, Target
from loomstream.dialects.templates import fields, fill_address
from loomstream.errors import ConfigError, ConnectFailed, LoomstreamError, UsageError
from loomstream.kind_names import name_of
from loomstream.providers import BASE_MODEL, Provider, Route, Setting, route
from loomstream.transport.outgoing import check_base_url
from loomstream.wire import Secret

APIKey = str | Secret | Callable[[], str | Awaitable[str]]
"""A key, or a function that gives the token to send now: it is asked for each request, and may be asynchronous."""

TOKEN_LIMIT_S = 60.0
"""How long a function given as `api_key` may take, in seconds."""

_SALT = os.urandom(16)
_REGIONS = ("region", "location")
"""What settings are called that say where a host computes."""

_KEYED = {"none": "bearer"}
"""How a key is sent that was given for a host which wants none by itself: it may stand behind a gate that does."""


class LaunchedServer(Protocol):
    """A provider that runs as a process of its own (see `Provider.launch`)."""

    base_url: str
    api_key: Secret

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        ...

    async def aclose(self) -> None:
        """End it."""
        ...


class Resolved(NamedTuple):
    """Where requests go and what adds the credential."""

    target: Target
    authenticator: Authenticator


class Endpoint:
    """One model's address and credentials; found out at the first request, and anew where a launched server died.

    `dialect` selects one of those that the provider speaks. `settings` are those of the provider's row. `configured`
    are the credentials that stand in a configuration file, by `API_KEY` or the name of a setting: they come after our
    own variables and before a vendor's.

    Raises `ConfigError` for an address or a setting that is missing or unknown.
    """

    def __init__(  # noqa: PLR0913 (what decides where requests go; all but two are keyword-only)
        self,
        provider: Provider,
        model: str = "",
        *,
        api_key: APIKey | None = None,
        base_url: str | None = None,
        dialect: str = "",
        settings: Mapping[str, str | Secret] | None = None,
        launch_options: Mapping[str, object] | None = None,
        configured: Mapping[str, ResolvedKey] | None = None,
    ) -> None:
        self._api_key = api_key = api_key if callable(api_key) else hide(api_key)
        self.provider = provider
        self.model = model or provider.default_model
        given = _given_settings(provider, settings or {})
        self._secrets = given
        self._configured = dict(configured or {})
        self._settings = _plain_settings(provider, given)
        self._dialect = dialect
        if not isinstance(base_url, str | None):  # pyright: ignore[reportUnnecessaryIsInstance] (no types)
            msg = f"base_url is {base_url!r} ({type(base_url).__name__}): give a text, as {provider.address_example!r}"
            raise ConfigError(msg, provider=provider.name)
        self.route = self._route_with(self._settings)
        self._base_url = base_url or first_set(provider.base_url_environment) or self.route.base_url
        self._launch_options = dict(launch_options or {})
        self._lock = anyio.Lock()
        self._found: Resolved | None = None
        self._server: LaunchedServer | None = None
        self._closed = False
        if not self._base_url and not provider.launch and not provider.handler:
            names = " or ".join(provider.base_url_environment)
            msg = f"{provider.name} needs an address: pass base_url={provider.address_example!r}" + (
                f" or set {names}" if names else ""
            )
            raise ConfigError(msg, provider=provider.name)

    @property
    def connect_hint(self) -> str:
        """What to do where no connection can be made: the row's words, or the settings that the address was made of."""
        names = ", ".join(fields(self._base_url))
        return self.provider.connect_hint or (
            f"check the setting {names}, of which the address is made" if names else ""
        )

    @property
    def is_elsewhere(self) -> bool:
        """Whether the address is one of yours, though the provider has its own."""
        return bool(self.route.base_url) and self._base_url != self.route.base_url

    @property
    def account(self) -> str:
        """What tells apart those who have limits of their own: a mark of the address, the key and the settings given.

        Empty where none was: then it is the account of this machine. It shows none of them, and is another one in
        another process. Each function that gives keys is an account.
        """
        key = self._api_key
        secrets = [f"{name}={value.reveal()}" for name, value in sorted(self._secrets.items())]
        given = [self._base_url if self.is_elsewhere or not self.route.base_url else "", *secrets]
        given += [f"{name}={found.secret.reveal()}" for name, found in sorted(self._configured.items())]
        given.append(f"{id(key)}" if callable(key) else f"{key.reveal()}" if key is not None else "")
        return blake2b("\n".join(given).encode(), digest_size=6, key=_SALT).hexdigest() if any(given) else ""

    @property
    def base_model(self) -> str:
        """The model behind a deployment, where a setting says it; empty where none does."""
        return self._settings.get(BASE_MODEL, "")

    @property
    def region(self) -> str:
        """The region that a setting names; empty where it is found out later, or where the address is one of yours."""
        return (
            "" if self.is_elsewhere else next((found for name in _REGIONS if (found := self._settings.get(name))), "")
        )

    @property
    def resolved(self) -> Resolved | None:
        """What `resolve` would give without waiting; None where it has to find it out."""
        return self._found if self._server is None else None

    async def resolve(self) -> Resolved:
        """Give the target and the authenticator.

        Raises `MissingKey`, `ConfigError` (also where the server's code cannot be loaded), `UsageError` after `aclose`,
        and what launching a server or asking for credentials raises.
        """
        if self._found is None or self._is_dead():
            async with self._lock:
                if self._is_dead():
                    await self._end_server()
                self._found = self._found or await self._find()
        return self._found

    def credentials(self) -> FoundCredentials:
        """Give what an authentication scheme, or a handler of a plug-in's own, may ask for."""
        return FoundCredentials(self.provider, self._api_key, self._settings, self._secrets, self._configured)

    def _is_dead(self) -> bool:
        return self._server is not None and not self._server.alive

    async def _find(self) -> Resolved:
        if self._closed:
            raise closed_error()
        provider = self.provider
        if provider.launch and not self._base_url:
            server = await _launched(provider, self._launch_options)
            if self._closed:  # meanwhile
                await server.aclose()
                raise closed_error()
            self._server = server
            return await self._resolved(server.base_url.rstrip("/"), server.api_key)
        return await self._resolved(self._base_url, self._api_key)

    async def _resolved(self, base_url: str, api_key: APIKey | None) -> Resolved:
        provider = self.provider
        name = provider.auth if api_key is None else _KEYED.get(provider.auth, provider.auth)
        credentials = FoundCredentials(provider, api_key, self._settings, self._secrets, self._configured)
        authenticator = await _prepared(name, credentials)
        settings = {**authenticator.discovered, **self._settings}
        found = self._route_with(settings) if authenticator.discovered else self.route
        _check_required(provider, found, settings)
        if base_url == self.route.base_url:
            base_url = found.base_url
        target = Target(
            provider=provider.name,
            model=self.model,
            base_url=check_base_url(
                _filled(provider, base_url, settings), usual=provider.base_url or provider.address_example
            ),
            quirks=found.quirks,
            settings=settings,
        )
        return Resolved(target, authenticator)

    def _route_with(self, settings: Mapping[str, str]) -> Route:
        """Give the route with what the credentials told: they never change the dialect."""
        found = route(self.provider, self.model, dialect=self._dialect, settings=settings)
        return _within_limit(self.provider, self.model, found)

    async def aclose(self) -> None:
        """End a server that was launched, and launch no other; let go of the credentials.

        Raises `ConfigError` where an authentication scheme of a plug-in fails in it.
        """
        self._closed = True
        found = self._found
        try:
            if found is not None:
                await found.authenticator.aclose()
        except LoomstreamError:
            raise
        except Exception as error:
            raise scheme_failed(self.provider.name, self.provider.auth, error) from error
        finally:
            await self._end_server()

    async def _end_server(self) -> None:
        server, self._server, self._found = self._server, None, None
        if server is not None:
            await server.aclose()


def _within_limit(provider: Provider, model: str, found: Route) -> Route:
    """Where the wire demands `max_tokens`, ask for no more than the model can give unless the caller does."""
    known = None if found.quirks.needs_max_tokens is None else catalog.look_up(provider.name, model)
    if known is None or not known.max_output_tokens:
        return found
    most = min(found.quirks.needs_max_tokens or known.max_output_tokens, known.max_output_tokens)
    return msgspec.structs.replace(found, quirks=msgspec.structs.replace(found.quirks, needs_max_tokens=most))


class FoundCredentials:
    """The credentials of one endpoint; see `loomstream.auth.Credentials`.

    A key is looked for once, a callable is asked each time.
    """

    def __init__(
        self,
        row: Provider,
        api_key: APIKey | None,
        settings: Mapping[str, str],
        secrets: Mapping[str, Secret],
        configured: Mapping[str, ResolvedKey] | None = None,
    ) -> None:
        self._row = row
        self._token = api_key if callable(api_key) else None
        self._argument = None if callable(api_key) else hide(api_key)
        self._settings = settings
        self._secrets = secrets
        self._configured = configured or {}
        self._key: Secret | None = None

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self._row.name

    @property
    def settings(self) -> Mapping[str, str]:
        """The plain settings that have a value."""
        return self._settings

    @property
    def key_is_token(self) -> bool:
        """Whether a callable gives the key: then it is a token that expires."""
        return self._token is not None

    def origin(self, name: str) -> Origin:
        """Say where the value of a setting comes from; of `API_KEY` only whether it is an argument."""
        if name == API_KEY:
            given = self._token is not None or (self._argument is not None and self._argument.reveal())
            return "argument" if given else ""
        if name in self._secrets and self._secrets[name].reveal():
            return "argument"
        setting = next((setting for setting in self._row.settings if setting.name == name), None)
        if setting is None:
            return ""
        if first_set(setting.environment):
            return "environment"
        return "row" if setting.default else ""

    async def key(self, *, required: bool = True) -> Secret | None:
        """Give the provider's key; raises `MissingKey` where the row needs one and it is nowhere found."""
        if self._token is not None:
            return await _called(self._row.name, self._token)
        if self._key is not None:
            return self._key
        row = self._row
        notes: list[str] = []
        found = await resolve_key(
            provider=row.name,
            argument=self._argument,
            env_names=row.key_environment,
            in_file=self._configured.get(API_KEY),
            keyring_name=row.keyring,
            notes=notes,
        )
        if found is None and required and row.needs_key:
            raise missing_key(row.name, row.key_environment, row.keyring, notes)
        self._key = None if found is None else found.secret
        return self._key

    async def secret(self, name: str) -> Secret | None:
        """Give the secret setting of this name, None where it is not set or the row has none of this name."""
        setting = next((setting for setting in self._row.settings if setting.name == name), None)
        if setting is None:
            return None
        found = await resolve_key(
            provider=self._row.name,
            argument=self._secrets.get(name),
            env_names=setting.environment,
            in_file=self._configured.get(name),
            keyring_name=setting.keyring,
            is_header=False,
        )
        return None if found is None else found.secret


async def _prepared(name: str, credentials: FoundCredentials) -> Authenticator:
    """Give the scheme's authenticator; what a plug-in's own scheme raises becomes a `ConfigError`."""
    try:
        authenticator = scheme(name)(credentials)
        await authenticator.prepare()
    except LoomstreamError:
        raise
    except Exception as error:
        raise scheme_failed(credentials.provider, name, error) from error
    return authenticator


def scheme_failed(provider: str, name: str, error: Exception) -> ConfigError:
    """Give the error of an authentication scheme of a plug-in's own that raised what it must not."""
    msg = f"the authentication scheme {name!r} of {provider} raised {type(error).__name__}: "
    return ConfigError(msg + "repair or uninstall its package", provider=provider)


async def _called(provider: str, token: Callable[[], str | Awaitable[str]]) -> Secret:
    value: object = None
    try:
        with anyio.move_on_after(TOKEN_LIMIT_S) as limit:
            value = token()
            value = await value if inspect.isawaitable(value) else value
    except LoomstreamError:
        raise
    except Exception as error:
        msg = f"the function given as api_key for {provider} raised {type(error).__name__}: it must give a token"
        raise ConfigError(msg, provider=provider) from error
    if limit.cancelled_caught:
        msg = f"the function given as api_key for {provider} gave no token within {TOKEN_LIMIT_S:g} s"
        raise ConnectFailed(msg, provider=provider)
    hidden = Secret(cast("str", value))  # whether it is a string is looked at behind it
    del value
    found = await resolve_key(provider=provider, argument=hidden)
    if found is None:
        msg = f"the function given as api_key for {provider} gave an empty token"
        raise ConfigError(msg, provider=provider)
    return found.secret


def closed_error() -> UsageError:
    """Give the error of a model that is used after its end."""
    return UsageError("this model is closed: connect again")


async def _launched(provider: Provider, options: Mapping[str, object]) -> LaunchedServer:
    """Start a provider's server; what a plug-in's own function does wrong becomes a `ConfigError`."""
    launch = cast("Callable[..., Awaitable[LaunchedServer]]", imported(provider, "launch", provider.launch))
    try:
        server = await launch(**options)
        _ = server.base_url, server.api_key, server.alive
    except LoomstreamError:
        raise
    except Exception as error:
        failure = f"its launch={provider.launch!r} failed ({type(error).__name__}: {error})"
        msg = f"{provider.name} cannot be started: {failure}"
        raise ConfigError(msg, provider=provider.name) from error
    return server


def imported(provider: Provider, field: str, path: str) -> object:
    """Import what a field of a row names as `module:name`. Raises `ConfigError`."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # any code may stand in the module
        msg = f"{provider.name} cannot be started: its {field}={path!r} cannot be imported ({error})"
        raise ConfigError(msg, provider=provider.name) from error


# --- settings ------------------------------------------------------------------------------------


def _given_settings(provider: Provider, settings: Mapping[str, str | Secret]) -> dict[str, Secret]:
    rows = {setting.name: setting for setting in provider.settings}
    given: dict[str, Secret] = {}
    for name, value in settings.items():
        if name not in rows:
            near = difflib.get_close_matches(name, rows, n=1)
            known = f"it has {', '.join(rows)}" if rows else "it has none"
            hint = f"did you mean {near[0]!r}?" if near else known
            msg = f"{provider.name} has no setting {name!r}: {hint}"
            raise ConfigError(msg, provider=provider.name)
        hidden = cast("Secret", hide(value))
        kind = type(hidden.reveal())
        if kind is not str:
            msg = f"the setting {name!r} of {provider.name} is {name_of(kind)}: give a text"
            raise ConfigError(msg, provider=provider.name)
        given[name] = hidden
    return given


def _plain_settings(provider: Provider, given: Mapping[str, Secret]) -> dict[str, str]:
    values = {setting.name: _value(setting, given) for setting in provider.settings if not setting.keyring}
    return {name: value for name, value in values.items() if value}


def _value(setting: Setting, given: Mapping[str, Secret]) -> str:
    value = given.get(setting.name)
    return (value.reveal() if value is not None else "") or first_set(setting.environment) or setting.default


def _check_required(provider: Provider, found: Route, settings: Mapping[str, str]) -> None:
    """Raise where a required setting is missing, unless the row's path names it and that of this route does not."""
    unneeded = set(_named(provider.quirks)) - set(_named(found.quirks))
    for setting in provider.settings:
        if setting.required and not settings.get(setting.name) and setting.name not in unneeded:
            raise _missing_setting(provider, setting)


def _named(quirks: Quirks) -> tuple[str, ...]:
    return (*fields(quirks.path), *fields(quirks.stream_path))


def _filled(provider: Provider, base_url: str, settings: Mapping[str, str]) -> str:
    """Give the base URL with the settings that it names."""
    for name in fields(base_url):
        if name not in settings:
            setting = next((setting for setting in provider.settings if setting.name == name), None)
            if setting is None:
                known = ", ".join(setting.name for setting in provider.settings) or "it has none"
                msg = (
                    f"the address {base_url!r} of {provider.name} names {name!r}, which is none of its settings "
                    f"({known}): write the value itself"
                )
                raise ConfigError(msg, provider=provider.name)
            raise _missing_setting(provider, setting)
    return fill_address(base_url, settings, provider=provider.name)


def _missing_setting(provider: Provider, setting: Setting) -> ConfigError:
    ways = [f"pass settings={{{setting.name!r}: '…'}}"]
    if setting.environment:
        ways.append(f"set {' or '.join(setting.environment)}")
    about = f" ({setting.help})" if setting.help else ""
    return ConfigError(
        f"{provider.name} needs the setting {setting.name}{about}: {' or '.join(ways)}", provider=provider.name
    )


def first_set(names: Sequence[str]) -> str:
    """Give the first of these environment variables that is set and not blank, `LOOM_…` before others; else nothing."""
    return next((value for name in by_rank(names) if (value := os.environ.get(name, "").strip())), "")
