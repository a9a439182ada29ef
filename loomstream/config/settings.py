"""What `looms.yaml`, the environment and a caller decide, as frozen values; `loomstream.config.load` makes them.

Contract: values only. Nothing is read here, nothing is sent; a secret is a `Secret`, and no repr shows it. Each value
knows the layer it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from loomstream.providers import Provider
from loomstream.wire import Secret

Layer = Literal["argument", "environment", "file", "default"]
"""Where a value comes from, the strongest first."""

Kind = Literal["text", "address", "whole", "number", "flag", "duration", "headers", "names", "money"]
"""What a setting takes: see `loomstream.config.kinds`."""

Value = str | int | float | bool | Secret | Mapping[str, str] | tuple[str, ...] | None
"""The value of a setting; None where it is not set and has no default."""


class Origin(NamedTuple):
    """Where a value comes from: the layer, and the variable or `FILE:LINE` (empty for the other layers)."""

    layer: Layer
    where: str = ""


DEFAULT = Origin("default")
"""The origin of what nobody set."""


class SettingRow(Struct, frozen=True, kw_only=True):
    """One setting of `looms.yaml`.

    `path` is its place in the file (`llm.openai_model`), `aliases` are others that mean the same. `environment` are its
    `LOOM_…` variables, which win over the file; `vendor_environment` those that stand behind it. `least` and `most` are
    bounds that are allowed themselves, `choices` all texts that are. `provider` is the provider that it belongs to, and
    `feeds` what it is there: `api_key`, `base_url`, `model`, `extra_headers`, or the name of a setting of its row.
    `keyring` is the entry of the system's keyring, `deprecated` what to use in its place. `own_only` says that a file
    which was merely found in the working folder may neither switch it on nor name another machine by it. `unused` says
    why a setting that other programs of the family know has no effect here.
    """

    path: str
    kind: Kind = "text"
    help: str = ""
    default: Value = None
    aliases: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    vendor_environment: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    keyring: str = ""
    provider: str = ""
    feeds: str = ""
    deprecated: str = ""
    own_only: bool = False
    unused: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def section(self) -> str:
        """The path without its last part."""
        return self.path.rpartition(".")[0]


class LLM(Struct, frozen=True, kw_only=True):
    """What `llm:` says of every provider; what is unset is None, and is not sent.

    `timeout_seconds` is the limit of silence, `total_timeout_seconds` that of the whole call. `rate_limit` holds the
    keys of that section which are set. What belongs to one provider is found by `Settings.value`.
    """

    provider: str | None = None
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout_seconds: float | None = None
    total_timeout_seconds: float | None = None
    concurrency_limit: int | None = None
    allow_http: bool = False
    rate_limit: Mapping[str, float | int | bool] = {}


class Observability(Struct, frozen=True, kw_only=True):
    """What `observability:` says; what is unset is None. `flush_interval` is in seconds."""

    enabled: bool = True
    provider: str | None = None
    mode: str | None = None
    hawk_endpoint: str | None = None
    hawk_api_key: Secret | None = None
    storage_type: str | None = None
    sqlite_path: str | None = None
    flush_interval: float | None = None
    otlp_endpoint: str | None = None
    otlp_headers: Mapping[str, Secret] | None = None
    otlp_insecure: bool = False
    otlp_include_spans: tuple[str, ...] | None = None
    prefer_embedded: bool = False
    service_name: str | None = None
    service_version: str | None = None
    capture_content: bool = False


class PoolEntry(Struct, frozen=True, kw_only=True):
    """An entry of `providers:`: a provider's row under a name of yours, and what it says of its calls.

    `values` are the keys of a call (`temperature`, `rate_limit.max_retries`, …), `secrets` the credentials that stand
    in the entry itself, by `api_key` or the name of a setting. `provider` is the built-in provider that it renames, if
    it does. `row` is None where `error` says what is wrong with it.
    """

    name: str
    provider: str = ""
    row: Provider | None = None
    error: str = ""
    where: str = ""
    values: Mapping[str, Value] = {}
    secrets: Mapping[str, Secret] = {}


class ModelEntry(Struct, frozen=True, kw_only=True):
    """An entry of `models:`: what takes the place of what the catalog says of one model, field by field.

    `where` is its place in the file, for errors.
    """

    provider: str
    model: str
    change: Mapping[str, object] = {}
    where: str = ""


class Named(Struct, frozen=True, kw_only=True):
    """An entry of `middleware:`: its name, and its options as they are set.

    `where` is its place in the file, for errors.
    """

    name: str
    options: Mapping[str, object] = {}
    where: str = ""


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that is configured.

    `llm`, `observability`, `middleware`, `providers` (the pool), `models` and `active_provider` are the parts of a
    `looms.yaml`.
    `file` is the file that was read, `own` whether its user put it there, as far as its place can tell: one that was
    merely found in the working folder may come from anybody, and one of another user (`owner`) may be changed by them.
    `ambient` says that the environment is the process's: then
    its variables are looked up anew where they are needed. `warnings` are whole sentences.
    """

    llm: LLM = LLM()
    observability: Observability = Observability()
    middleware: tuple[Named, ...] = ()
    providers: tuple[PoolEntry, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    active_provider: str | None = None
    file: str = ""
    own: bool = True
    owner: str = ""
    ambient: bool = True
    warnings: tuple[str, ...] = ()
    values: Mapping[str, Value] = msgspec.field(default_factory=dict[str, Value])
    origins: Mapping[str, Origin] = msgspec.field(default_factory=dict[str, Origin])

    def value(self, path: str) -> Value:
        """Give the value of a setting by its path; None where it is unset. Raises `ConfigError` for no setting."""
        from loomstream.config.table import row_of  # noqa: PLC0415 (the table imports this module)

        row = row_of(path)
        return self.values.get(row.path, row.default)

    def given(self, path: str) -> Value:
        """Give the value that some layer sets, None where none does. Raises `ConfigError` for no setting."""
        from loomstream.config.table import row_of  # noqa: PLC0415 (as above)

        return self.values.get(row_of(path).path)

    def origin(self, path: str) -> Origin:
        """Say where the value of a setting comes from. Raises `ConfigError` for no setting."""
        from loomstream.config.table import row_of  # noqa: PLC0415 (as above)

        return self.origins.get(row_of(path).path, DEFAULT)

    def entry(self, name: str) -> PoolEntry | None:
        """Give the entry of the pool that has this name."""
        return next((entry for entry in self.providers if entry.name == name), None)
