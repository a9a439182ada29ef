"""Providers: hosts that speak a dialect. A provider is a row of data; `table.py` is the table.

Contract: adding an OpenAI-compatible host is one row. No other module names a provider in a condition. Packages add
rows and dialects by entry points (`plugins`), `looms.yaml` adds rows (`custom`); a name is looked for in that order,
and neither can take a name that is taken.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec import Struct

from loomstream.dialects import Dialect, Quirks, check_quirks
from loomstream.dialects.templates import check_fields, fields
from loomstream.errors import ConfigError, UnknownProvider

if TYPE_CHECKING:
    from loomstream.providers.plugins import PluginDialect

DIALECTS = {
    "anthropic_messages": "sse",
    "bedrock_converse": "aws",
    "bedrock_invoke": "aws",
    "cohere_chat": "sse",
    "gemini": "sse",
    "ollama_chat": "ndjson",
    "openai_chat": "sse",
    "openai_responses": "sse",
}
"""The dialects' module names, each with the framing of its streams."""

BASE_MODEL = "base_model"
"""The setting that says which model stands behind a deployment."""

_SIMILAR = 0.7
"""How much alike two names must be for a suggestion: a typing error, not a chance likeness."""
_TELLING = 3
"""A shorter word begins too many names."""


class Setting(Struct, frozen=True, kw_only=True):
    """A value that a host needs beside a key and a model: a region, a project, an API version.

    `environment` are variables, looked up in order; a name that begins with `LOOM_` comes first. `default` stands where
    nothing is set; `required`: no request can be built without it. `keyring` is an entry of the system's keyring, and
    says that the value is a secret: it is given to the authentication scheme only, never put into a URL. `aliases` are
    other names of it in a `looms.yaml`.
    """

    name: str
    aliases: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    default: str = ""
    required: bool = False
    keyring: str = ""
    help: str = ""


class Profile(Struct, frozen=True, kw_only=True):
    """How some of a provider's models are spoken to, where they differ from its row.

    It applies to models whose id fits one of `models` (shell patterns), under the `dialect` named, if one is, and where
    each of `settings` has the value given. Profiles are laid over the row in order: `base_url` and `dialect` in its
    place, `quirks` flag by flag.

    A profile that names a dialect also makes that dialect selectable (`connect(dialect=…)`) for every model; it is the
    default one for the models that fit `models`.
    """

    models: tuple[str, ...] = ("*",)
    settings: Mapping[str, str] = {}
    dialect: str = ""
    base_url: str = ""
    quirks: Mapping[str, object] = {}


class Provider(Struct, frozen=True, kw_only=True):
    """One host.

    `key_environment` and `base_url_environment` are looked up in order; the first that is set wins.
    `address_example` is how an address of the user's looks. `base_url` may name settings, as in
    `https://{region}.host`. `auth` names a scheme of `loomstream.auth`; `key_optional` is for hosts that may want
    no key. `keyring` is the name of the key in the system keyring (service `loom`). `model_environment` are
    variables that name the model where the spec does not. `settings` are what else the host needs, `profiles` how
    its models differ, `aliases` other names of it. `launch` names the function (`module:function`) that starts the
    host as a process of its own, for a provider that has no base URL before; `handler` the function that gives the
    handler of a provider that is no HTTP host. `discovery` names the module that asks the host for its models
    (`loomstream.dialects.discovery`), `connect_hint` says what to do where no connection can be made.
    `silence_s` is how long it may be silent, in seconds, where that is not the usual time (0).
    `requests_per_minute` is how many an account may send until the host's headers say otherwise (0: nothing is known,
    or there is no limit). `otel_name` is what OpenTelemetry's conventions call it, where that is another name.
    `catalog_name` is what the catalog of models calls it: a built-in provider under a name of yours has its models.
    """

    name: str
    aliases: tuple[str, ...] = ()
    dialect: str = "openai_chat"
    base_url: str = ""
    address_example: str = "https://host/v1"
    auth: str = "bearer"
    key_optional: bool = False
    key_environment: tuple[str, ...] = ()
    base_url_environment: tuple[str, ...] = ()
    keyring: str = ""
    default_model: str = ""
    model_environment: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    profiles: tuple[Profile, ...] = ()
    quirks: Quirks = Quirks()
    launch: str = ""
    handler: str = ""
    discovery: str = ""
    connect_hint: str = ""
    requests_per_minute: float = 0.0
    silence_s: float = 0.0
    otel_name: str = ""
    catalog_name: str = ""

    @property
    def names_deployments(self) -> bool:
        """Whether a model of it is a deployment, under a name that somebody gave to it: it tells no price."""
        return any(setting.name == BASE_MODEL for setting in self.settings)

    @property
    def needs_key(self) -> bool:
        """Whether no request can be sent without a credential."""
        return self.auth != "none" and not self.key_optional


# --- look-up -------------------------------------------------------------------------------------


class Listed(Struct, frozen=True, kw_only=True):
    """A name and what it stands for: a row, or the reason why it cannot be used.

    `origin` is where it comes from: `built in`, `package NAME` or `file PATH`.
    """

    name: str
    origin: str
    row: Provider | None = None
    error: str = ""


def look_up(name: str) -> Provider:
    """Give the row of this name or alias (case-sensitive): built in, of an installed package, or of `looms.yaml`.

    Nothing but what is asked for is loaded. Raises `UnknownProvider`, which suggests the nearest name, and
    `ConfigError` for a package's row, or a configuration file, that cannot be used.
    """
    from loomstream.providers.table import BY_NAME  # noqa: PLC0415 (the table imports this module)

    if row := BY_NAME.get(name):
        return row
    from loomstream.providers import custom, plugins  # noqa: PLC0415 (30 ms, only for what the table does not have)

    row = plugins.provider(name) or custom.provider(name)
    if row is None:
        from loomstream.transport.record import without_keys  # noqa: PLC0415 (only where something is wrong)

        known = known_names()
        near = _nearest(name.lower(), known)
        hint = f"did you mean {near!r}? " if near else ""
        msg = f"unknown provider {without_keys(name)!r}: {hint}known are {', '.join(sorted(known))}; any "
        raise UnknownProvider(msg + "OpenAI-compatible host works as openai-compatible with base_url=")
    return row


def _nearest(name: str, known: tuple[str, ...]) -> str:
    """Give its name here, the most alike one, or the shortest that begins so or shares a word, else nothing."""
    from loomstream.providers.called import CALLED  # noqa: PLC0415 (only where something is wrong)

    if name in CALLED:
        return CALLED[name]
    if alike := difflib.get_close_matches(name, known, n=1, cutoff=_SIMILAR):
        return alike[0]
    words = {word for word in re.split(r"[^a-z0-9]+", name) if len(word) >= _TELLING}
    related = (each for each in known if any(each.startswith(word) or word in each.split("-") for word in words))
    return min(related, key=len, default="")


def is_known(name: str) -> bool:
    """Say whether `look_up` would find something under this name, be it usable or not."""
    from loomstream.providers.table import BY_NAME  # noqa: PLC0415 (as above)

    return name in BY_NAME or (bool(name) and name in known_names())


def known_names() -> tuple[str, ...]:
    """Give the names of all rows, without loading a package's code.

    A configuration file that cannot be read has none.
    """
    from loomstream.providers import custom, plugins  # noqa: PLC0415 (as above)
    from loomstream.providers.table import TABLE  # noqa: PLC0415 (as above)

    rows = (row.name for row in TABLE)
    return tuple(dict.fromkeys((*rows, *plugins.names(plugins.PROVIDERS), *custom.names())))


def all_providers() -> tuple[Provider, ...]:
    """Give every row that can be used: the table's, then those of installed packages.

    What a package offers and cannot be used is left out (`listing` has it), and so is what `looms.yaml` adds: such a
    row is only used where it is named.
    """
    from loomstream.providers.table import TABLE  # noqa: PLC0415 (as above)

    installed = {listed.row.name: listed.row for listed in _installed() if listed.row is not None}
    return (*TABLE, *installed.values())


def listing(*, with_file: bool = True) -> list[Listed]:
    """Give every name with its row or the reason why it has none; `with_file` says whether `looms.yaml` counts.

    Raises `ConfigError` where the configuration file as a whole cannot be read.
    """
    from loomstream.providers import custom  # noqa: PLC0415 (as above)
    from loomstream.providers.table import TABLE  # noqa: PLC0415 (as above)

    built_in = [Listed(name=row.name, origin="built in", row=row) for row in TABLE]
    installed = _installed()
    taken = {listed.name: listed.origin for listed in (*built_in, *installed)}
    of_file = custom.listing() if with_file else []
    return [*built_in, *installed, *(_unless_taken(listed, taken) for listed in of_file)]


def _installed() -> list[Listed]:
    from loomstream.providers import plugins  # noqa: PLC0415 (as above)

    return [_of_package(name) for name in plugins.names(plugins.PROVIDERS)]


def _of_package(name: str) -> Listed:
    from loomstream.providers import plugins  # noqa: PLC0415 (as above)
    from loomstream.providers.table import BY_NAME  # noqa: PLC0415 (as above)

    origin = plugins.packages(plugins.PROVIDERS, name)
    if name in BY_NAME:
        return _unless_taken(Listed(name=name, origin=origin), {name: "built in"})
    try:
        return Listed(name=name, origin=origin, row=plugins.provider(name))
    except ConfigError as error:
        return Listed(name=name, origin=origin, error=str(error))


def _unless_taken(listed: Listed, taken: Mapping[str, str]) -> Listed:
    if listed.name not in taken:
        return listed
    error = f"not used: {listed.name!r} is taken ({taken[listed.name]}); give it another name"
    return Listed(name=listed.name, origin=listed.origin, error=error)


# --- dialects ------------------------------------------------------------------------------------


def dialect_module(name: str) -> Dialect:
    """Give a dialect by its name: one of ours, or one of an installed package. Raises `ConfigError`."""
    if name in DIALECTS:
        return cast("Dialect", importlib.import_module(f"loomstream.dialects.{name}"))
    return _plugin_dialect(name)


def framing(name: str) -> str:
    """Give how the body of a dialect's streams is cut into frames. Raises `ConfigError`."""
    return DIALECTS[name] if name in DIALECTS else _plugin_dialect(name).framing


def dialect_names() -> tuple[str, ...]:
    """Give the names of all dialects, those of installed packages included; nothing is loaded."""
    from loomstream.providers import plugins  # noqa: PLC0415 (as above)

    return tuple(dict.fromkeys((*DIALECTS, *plugins.names(plugins.DIALECTS))))


def _plugin_dialect(name: str) -> PluginDialect:
    from loomstream.providers import plugins  # noqa: PLC0415 (as above)

    found = plugins.dialect(name)
    if found is None:
        msg = f"unknown dialect {name!r}: known are {', '.join(dialect_names())}"
        raise ConfigError(msg)
    return found


# --- routes --------------------------------------------------------------------------------------


class Route(Struct, frozen=True, kw_only=True):
    """How one model of a provider is spoken to: its row, with the profiles that apply laid over it."""

    dialect: str
    base_url: str
    quirks: Quirks


def dialects_of(row: Provider) -> tuple[str, ...]:
    """Give the dialects that a provider speaks, its usual one first."""
    return tuple(dict.fromkeys((row.dialect, *(profile.dialect for profile in row.profiles if profile.dialect))))


def route(row: Provider, model: str, *, dialect: str = "", settings: Mapping[str, str] | None = None) -> Route:
    """Give how a model is spoken to; `dialect` selects one of the dialects that the provider speaks.

    Raises `ConfigError` where the provider does not speak it, or a profile names a quirk that there is not.
    """
    spoken = dialects_of(row)
    if dialect and dialect not in spoken:
        msg = f"{row.name} does not speak {dialect!r}: it speaks {', '.join(spoken)}"
        raise ConfigError(msg, provider=row.name, model=model)
    values = settings or {}
    quirks = row.quirks
    chosen, base_url = dialect or row.dialect, row.base_url
    for profile in row.profiles:
        fits = any(fnmatchcase(model, pattern) for pattern in profile.models)
        applies = profile.dialect == dialect if dialect and profile.dialect else fits  # selected: whatever the model
        if applies and all(values.get(name, "") == value for name, value in profile.settings.items()):
            chosen = profile.dialect or chosen
            base_url = profile.base_url or base_url
            quirks = _laid_over(row, quirks, profile)
    return Route(dialect=chosen, base_url=base_url, quirks=quirks)


def _laid_over(row: Provider, quirks: Quirks, profile: Profile) -> Quirks:
    """Give the quirks with a profile's in their place."""
    for name in profile.quirks:
        if name not in Quirks.__struct_fields__:
            msg = f"a profile of {row.name} names an unknown quirk: {name!r}"
            raise ConfigError(msg, provider=row.name)
    try:
        given = msgspec.convert(dict(profile.quirks), Quirks)
    except msgspec.ValidationError as error:
        msg = f"a quirk in a profile of {row.name} is wrong: {str(error).replace('`$.', '`')}"
        raise ConfigError(msg, provider=row.name) from error
    return msgspec.structs.replace(quirks, **{name: getattr(given, name) for name in profile.quirks})


# --- templates -----------------------------------------------------------------------------------


def settings_of_address(row: Provider) -> frozenset[str]:
    """Give the settings that decide where a row's requests, and its key, go."""
    profiles = [profile for profile in row.profiles if profile.base_url]
    named = (
        name for address in (row.base_url, *(profile.base_url for profile in profiles)) for name in fields(address)
    )
    return frozenset((*named, *(name for profile in profiles for name in profile.settings)))


def check_templates(row: Provider) -> None:
    """Raise `ConfigError` where a row's addresses, paths or headers name what is none of its plain settings."""
    known = [setting.name for setting in row.settings if not setting.keyring]
    check_fields(row.base_url, known)
    check_quirks(row.quirks, known)
    for profile in row.profiles:
        check_fields(profile.base_url, known)
        check_quirks(_laid_over(row, Quirks(), profile), known)
