"""Custom providers: rows that `looms.yaml` adds, without any code.

    providers:
      - name: acme                        # then `acme:some-model` works everywhere
        dialect: openai_chat
        base_url: https://llm.acme.example/v1
        api_key_env: ACME_API_KEY

Contract: which file counts is `config_file`'s. It is read when a name is asked for that neither the table nor a package
has; an entry cannot take one of theirs. Nothing in it is imported or run. An entry that is wrong breaks no other entry.
What an entry says of its calls, and keys that stand in it, are `loomstream.config`'s: they are passed over here. A file
that was merely found in the working folder may come from anybody: no host that it names gets a key from the environment
or the keyring, and it cannot say where the key of a built-in provider goes.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from loomstream.dialects import Quirks, check_quirks
from loomstream.dialects.templates import check_fields, check_header
from loomstream.errors import ConfigError
from loomstream.providers import Listed, Profile, Provider, Setting, dialect_names, settings_of_address
from loomstream.providers.addresses import accounts_of, names_account
from loomstream.providers.config_file import File, distrust, document, find_file
from loomstream.transport.outgoing import check_base_url

if TYPE_CHECKING:
    from loomstream.providers.yaml_file import Value

OF_OTHERS = ("communication", "database", "embedding", "logging", "mcp", "server", "tools")
"""Parts of the seed system's `looms.yaml` that are not about models: nothing here reads them."""

_ELSEWHERE = ("active_provider", "llm", "middleware", "models", "observability", "rate_limit", *OF_OTHERS)
"""Other parts of a `looms.yaml`: they are not read here."""

OF_A_CALL = ("temperature", "max_tokens", "timeout_seconds", "total_timeout_seconds", "concurrency_limit", "allow_http",
             "rate_limit")  # fmt: skip
"""What an entry may say of its calls, as `llm:` does: `loomstream.config` reads it."""

_HOST_KEY = "api_key"
"""What the key of a host of its own is called where it stands in the entry."""

SCHEMES = ("bearer", "x-api-key", "api-key", "x-goog-api-key", "none")
_USUAL_SCHEME = {"anthropic_messages": "x-api-key", "gemini": "x-goog-api-key"}
_USUAL_QUIRKS = {"anthropic_messages": Quirks(needs_max_tokens=4096)}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"(^|_)(api_key|key|token|secret|password|secret_access_key|access_key_id|credentials)$")
_CREDENTIALS = ("authorization", "cookie", "proxy-authorization")
_OF_HTTP = ("connection", "content-length", "host", "transfer-encoding")
_SEED_KEYS = {
    "model": "model",
    "model_id": "model",
    "deployment_id": "model",
    "endpoint": "base_url",
    "extra_headers": "extra_headers",
}
"""What `llm:` of the seed calls a provider's model, address and headers, behind its name: `ollama_endpoint`."""


class Entry(Struct, frozen=True, kw_only=True):
    """One entry of `providers:`: a host of its own (`base_url`), or a built-in `provider` under another name.

    `dialect` is how a host is spoken to (default `openai_chat`), `auth` how it gets its key (default: as is usual for
    the dialect), `quirks` how it departs from the dialect (the flags of `loomstream.dialects.Quirks`), `settings` those
    of the built-in provider, `extra_headers` what is sent to it beside its own headers, `model` the default one.
    `api_key_env` names the key's variable, or several; without it the key is optional, and looked for in
    `LOOM_LLM_NAME_API_KEY`, `NAME_API_KEY` and the keyring (`name_api_key`), unless the file was merely found in the
    working folder.
    """

    name: str
    provider: str = ""
    dialect: str = ""
    base_url: str = ""
    model: str = ""
    auth: str = ""
    api_key_env: str | tuple[str, ...] = ()
    settings: Mapping[str, str] = {}
    extra_headers: Mapping[str, str] = {}
    quirks: Mapping[str, object] = {}

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that `api_key_env` names."""
        return (self.api_key_env,) if isinstance(self.api_key_env, str) else self.api_key_env


_OF_A_HOST = ("dialect", "auth", "quirks")
_OF_BOTH = ("name", "base_url", "model", "api_key_env")
_OF_A_PROVIDER = ("provider", "settings", "extra_headers")
_KEYS = Entry.__struct_fields__


def provider(name: str) -> Provider | None:
    """Give the row that the configuration adds under this name, None where it adds none.

    Raises `ConfigError` where the file, or this entry of it, is wrong: with file, line and key path.
    """
    found = _pool().get(name)
    if isinstance(found, ConfigError):
        raise ConfigError(str(found), provider=name)
    return found


def names() -> tuple[str, ...]:
    """Give the names that the configuration adds; none where the file cannot be read."""
    try:
        return tuple(_pool())
    except ConfigError:
        return ()


def listing() -> list[Listed]:
    """Give every entry with its row, or what is wrong with it. Raises `ConfigError` where the whole file is."""
    file = find_file()
    origin = f"file {file.path}" if file else ""
    return [
        Listed(name=name, origin=origin, error=str(found))
        if isinstance(found, ConfigError)
        else Listed(name=name, origin=origin, row=found)
        for name, found in _pool().items()
    ]


# --- the file ------------------------------------------------------------------------------------

_Pool = dict[str, Provider | ConfigError]


def _pool() -> _Pool:
    file = find_file()
    return {} if file is None else pool(file)


def pool(file: File) -> _Pool:
    """Give what a file adds, by name: a row, or what is wrong with its entry.

    Raises `ConfigError` where the file as a whole cannot be used.
    """
    read = document(file)
    return _made(read.file, read.root)


@functools.lru_cache(maxsize=4)
def _made(file: File, root: Value) -> _Pool:
    """Give the rows of a document, which is the same object until the file changes."""
    from loomstream.providers.yaml_file import LIST, MAPPING, NOTHING, fault  # noqa: PLC0415 (imports PyYAML)

    if root.kind != MAPPING:
        raise fault(file.path, root, "", f"a configuration is a mapping, this is {root.kind}")
    for name, value in root.mapping.items():
        if name not in _ELSEWHERE and name != "providers":
            raise fault(file.path, value, name, _unknown("key", name, (*_ELSEWHERE, "providers")))
    listed = root.mapping.get("providers")
    if listed is None or listed.kind == NOTHING:
        return {}
    if listed.kind != LIST:
        raise fault(file.path, listed, "providers", f"this must be a list of entries (`- name: …`), not {listed.kind}")
    pool: _Pool = {}
    for position, value in enumerate(listed.items):
        place = _Place(file, value, f"providers[{position}]")
        found = _row_or_error(place)
        name = _name_of(value) or place.key_path
        pool[name] = found if name not in pool else _twice(place, name)
    return pool


def _twice(place: _Place, name: str) -> ConfigError:
    from loomstream.providers.yaml_file import fault  # noqa: PLC0415 (imports PyYAML)

    return fault(place.file.path, place.value, f"{place.key_path}.name", f"the name {name!r} stands here twice")


class _Place(NamedTuple):
    """An entry, and where it stands."""

    file: File
    value: Value
    key_path: str

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raise the error of one of its keys; of the whole entry where it has no such key."""
        from loomstream.providers.yaml_file import fault  # noqa: PLC0415 (imports PyYAML)

        value = self.value.mapping.get(key, self.value)
        raise fault(self.file.path, value, f"{self.key_path}.{key}" if key else self.key_path, problem)


def _name_of(value: Value) -> str:
    name = value.mapping["name"].scalar if "name" in value.mapping else None
    return name if isinstance(name, str) and _NAME.fullmatch(name) else ""


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = tuple(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"there is no {what} {name!r}: {hint}"


# --- an entry ------------------------------------------------------------------------------------


def _row_or_error(place: _Place) -> Provider | ConfigError:
    try:
        return _row(place)
    except ConfigError as error:
        return ConfigError(str(error))  # without its traceback, for it is kept


def _row(place: _Place) -> Provider:
    from loomstream.providers.table import BY_NAME  # noqa: PLC0415 (the table imports the package)

    if not _name_of(place.value):
        what = place.value.kind if not place.value.mapping else "no such name"
        place.refuse("name", f"an entry needs a name of letters, digits, '.', '_' and '-'; this is {what}")
    named = place.value.mapping.get("provider")
    base = base_of(str(named.scalar)) if named else None
    if named and base is None:
        from loomstream.providers import plugins  # noqa: PLC0415 (30 ms)

        known = (*BY_NAME, *plugins.names(plugins.PROVIDERS))
        shown = _unknown("built-in provider", str(named.scalar), known) if named.kind == "a text" else "give a name"
        place.refuse("provider", shown)
    entry = _entry(place, base)
    if entry.name in BY_NAME:
        place.refuse("name", f"{entry.name!r} is the name of a built-in provider: choose another one")
    _check_variables(place, entry)
    if not place.file.own:
        _check_trust(place, entry, base)
    return _renamed(place, entry, base) if base else _host(place, entry)


def base_of(name: str) -> Provider | None:
    """Give the row that an entry's `provider` names: built in, or of an installed package; None where there is none.

    Raises `ConfigError` for a package's row that cannot be used.
    """
    from loomstream.providers import plugins  # noqa: PLC0415 (30 ms, only for what the table does not have)
    from loomstream.providers.table import BY_NAME  # noqa: PLC0415 (the table imports the package)

    return BY_NAME.get(name) or plugins.provider(name)


def _entry(place: _Place, base: Provider | None) -> Entry:
    keys = (*_OF_BOTH, *(_OF_A_PROVIDER if base else _OF_A_HOST))
    values: dict[str, object] = {}
    settings: dict[str, object] = {}
    for key, value in place.value.mapping.items():
        kept, setting = (key, "") if key in _KEYS else _seed_key(key, base)
        if key in OF_A_CALL or secret_of(key, base):
            continue
        if setting:
            settings[setting] = value.plain()
        elif kept in keys and kept not in values:
            values[kept] = value.plain()
        else:
            place.refuse(key, _refusal(key, kept, keys, base))
    if settings:
        given = values.get("settings")
        values["settings"] = {**settings, **given} if isinstance(given, dict) else settings
    try:
        return msgspec.convert(values, Entry)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        key = re.split(r"[\[.`]", path, maxsplit=1)[0]
        place.refuse(key, f"{problem}: put a text that looks like something else in quotes")


def _refusal(key: str, kept: str, keys: tuple[str, ...], base: Provider | None) -> str:
    if _SECRET.search(key):
        return "a key does not stand here: name its variable (api_key_env: ACME_API_KEY), or keep it in the keyring"
    if kept in keys:
        return f"this is the same as {kept!r}, which stands here too"
    if key in _KEYS:
        other = "without" if base else "with"
        return f"{key!r} goes {other} `provider`, which takes a built-in provider as it is"
    return _unknown("key", key, keys)


def _seed_key(key: str, base: Provider | None) -> tuple[str, str]:
    """Give the key, and the setting, that a key of the seed's `llm:` stands for, as in `bedrock_region`."""
    if base is not None:
        for prefix in (base.name.replace("-", "_"), base.name.partition("-")[0]):
            rest = key.removeprefix(prefix + "_")
            if rest != key and rest in _SEED_KEYS:
                return _SEED_KEYS[rest], ""
            named = [setting.name for setting in base.settings if rest in (setting.name, *setting.aliases)]
            if rest != key and named and named[0] in _plain(base):
                return "settings", named[0]
    return key, ""


def secret_of(key: str, base: Provider | None) -> str:
    """Give the secret that a key of an entry holds: `api_key`, or a setting's name; empty where it holds none.

    `base` is the built-in provider of the entry; without one it is a host of its own.
    """
    if base is None or key == _HOST_KEY:
        return _HOST_KEY if key == _HOST_KEY else ""
    variable = f"LOOM_LLM_{key.upper()}"
    if variable in base.key_environment:
        return _HOST_KEY
    return next((setting.name for setting in base.settings if setting.keyring and variable in setting.environment), "")


def _plain(base: Provider) -> list[str]:
    return [setting.name for setting in base.settings if not setting.keyring]


# --- keys ----------------------------------------------------------------------------------------


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _usual_variables(name: str) -> tuple[str, ...]:
    upper = _identifier(name).upper()
    return f"LOOM_LLM_{upper}_API_KEY", f"{upper}_API_KEY"


def _check_variables(place: _Place, entry: Entry) -> None:
    for variable in entry.variables:
        if not _VARIABLE.fullmatch(variable):
            place.refuse("api_key_env", "this must be the name of an environment variable, not the key itself")
    if not entry.provider and not entry.variables and (owner := _owner(_usual_variables(entry.name))):
        place.refuse("name", f"its key would be that of {owner!r}: choose another name, or add api_key_env")


def _check_trust(place: _Place, entry: Entry, base: Provider | None) -> None:
    """Refuse what only the user may say, where the file was merely found in the working folder.

    Names are no proof: whoever wrote the file chose the entry's name too.
    """
    if entry.variables:
        instead = "it cannot say where a key of yours goes; pass api_key=…, or"
        place.refuse("api_key_env", distrust(place.file.owner, instead))
    if base is None or base.auth == "none":
        return
    elsewhere = distrust(place.file.owner, f"it cannot send the key of {base.name} elsewhere;")
    if entry.base_url:
        place.refuse("base_url", elsewhere)
    if named := sorted(settings_of_address(base) & entry.settings.keys()):
        place.refuse("settings", f"{named[0]!r} is part of the address; {elsewhere}")
    account = distrust(place.file.owner, "it cannot say whose account is used, or which identity;")
    if named := [name for name in accounts_of(base) if name in entry.settings]:
        place.refuse("settings", f"{named[0]!r}: {account}")
    if named := [name for name in entry.extra_headers if names_account(name)]:
        place.refuse("extra_headers", f"{named[0]!r}: {account}")


def _owner(variables: Iterable[str]) -> str:
    """Give the built-in provider that one of these variables belongs to."""
    from loomstream.providers.table import TABLE  # noqa: PLC0415 (the table imports the package)

    wanted = set(variables)
    for row in TABLE:
        settings = (name for setting in row.settings for name in setting.environment)
        if wanted & {*row.key_environment, *settings}:
            return row.name
    return ""


# --- rows ----------------------------------------------------------------------------------------


def _host(place: _Place, entry: Entry) -> Provider:
    """Give the row of a host of its own."""
    dialect = entry.dialect or "openai_chat"
    if dialect not in dialect_names():
        place.refuse("dialect", _unknown("dialect", dialect, dialect_names()))
    auth = entry.auth or _USUAL_SCHEME.get(dialect, "bearer")
    if auth not in SCHEMES:
        place.refuse("auth", _unknown("scheme", auth, SCHEMES))
    if not entry.base_url:
        place.refuse("", "an entry needs base_url: https://…, or provider: with the name of a built-in one")
    has_key = auth != "none" and place.file.own
    return Provider(
        name=entry.name,
        dialect=dialect,
        base_url=_address(place, entry, ()),
        auth=auth,
        key_optional=not entry.variables,
        key_environment=(entry.variables or _usual_variables(entry.name)) if has_key else (),
        keyring=f"{_identifier(entry.name).lower()}_api_key" if has_key else "",
        default_model=entry.model,
        quirks=_quirks(place, entry, _USUAL_QUIRKS.get(dialect, Quirks())),
    )


def _address(place: _Place, entry: Entry, settings: Iterable[str]) -> str:
    try:
        check_fields(entry.base_url, settings)
        return check_base_url(entry.base_url)
    except ConfigError as error:
        place.refuse("base_url", str(error))


def _quirks(place: _Place, entry: Entry, usual: Quirks) -> Quirks:
    for name in entry.quirks:
        if name not in Quirks.__struct_fields__:
            place.refuse("quirks", _unknown("quirk", name, Quirks.__struct_fields__))
    try:
        given = msgspec.convert(dict(entry.quirks), Quirks)
    except msgspec.ValidationError as error:
        place.refuse("quirks", str(error).replace("`$.", "`"))
    quirks = replace(usual, **{name: getattr(given, name) for name in entry.quirks})
    try:
        check_quirks(quirks, ())
    except ConfigError as error:
        place.refuse("quirks", str(error))
    return quirks


def _renamed(place: _Place, entry: Entry, base: Provider) -> Provider:
    """Give a built-in provider's row under another name, with what the entry says in the place of its own."""
    known = _plain(base)
    for name in entry.settings:
        if name not in known:
            place.refuse("settings", _unknown(f"setting of {base.name}", name, known))
    return replace(
        base,
        name=entry.name,
        catalog_name=base.catalog_name or base.name,
        aliases=(),
        base_url=_address(place, entry, known) if entry.base_url else base.base_url,
        base_url_environment=() if entry.base_url else base.base_url_environment,
        profiles=tuple(_without_address(profile) if entry.base_url else profile for profile in base.profiles),
        default_model=entry.model or base.default_model,
        model_environment=() if entry.model else base.model_environment,
        key_environment=entry.variables or base.key_environment,
        keyring="" if entry.variables else base.keyring,
        settings=tuple(_set(setting, entry.settings) for setting in base.settings),
        quirks=replace(base.quirks, headers={**base.quirks.headers, **_headers(place, entry)}),
    )


def _headers(place: _Place, entry: Entry) -> Mapping[str, str]:
    """Give the headers of an entry, which are no templates. A header that could hold a key does not stand here."""
    for name, value in entry.extra_headers.items():
        if problem := header_problem(name, value):
            place.refuse("extra_headers", problem)
    return entry.extra_headers


def header_problem(name: str, value: str) -> str:
    """Say why a header cannot stand in a configuration; an empty text: it can."""
    if _SECRET.search(_identifier(name).lower()) or name.lower() in _CREDENTIALS:
        return f"{name!r} may hold a key, which does not stand here: pass extra_headers="
    if name.lower() in _OF_HTTP:
        return f"{name!r} belongs to the connection itself: it cannot be set here"
    try:
        check_header(name, value, ())
    except ConfigError as error:
        return str(error)
    return ""


def _without_address(profile: Profile) -> Profile:
    return replace(profile, base_url="")


def _set(setting: Setting, values: Mapping[str, str]) -> Setting:
    if setting.name not in values:
        return setting
    return replace(setting, environment=(), default=values[setting.name], required=False)
