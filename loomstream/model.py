"""The composition root: provider + credentials + transport + dialect + middleware make a `Model`.

Contract: `connect` and `Model` do no I/O until a stream is read, but for reading the configuration, and what `connect`
must know to choose a provider where none is named. The innermost handler is `loomstream.attempt`'s, or a plug-in's own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import NamedTuple, Unpack, cast

import anyio
import msgspec

from loomstream import catalog
from loomstream.asking import Asking
from loomstream.attempt import HTTPHandler
from loomstream.auth import API_KEY, Credentials
from loomstream.config.keys import hide
from loomstream.config.load import load
from loomstream.config.models import lay
from loomstream.config.settings import Settings
from loomstream.configured.choice import chosen, spec_of
from loomstream.configured.plan import Plan, plan
from loomstream.configured.stack import Site, fallbacks_of, stack
from loomstream.endpoint import APIKey, Endpoint, closed_error, imported
from loomstream.errors import ConfigError, LoomstreamError, UnknownModel, UsageError
from loomstream.events import Cost, Event, Usage
from loomstream.handler import Handler, Middleware, compose, listed
from loomstream.kind_names import kind_of
from loomstream.messages import Prompt, Request, RequestOptions, check_options, make_request
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.cost import Pricing, cost_of
from loomstream.middleware.defaults import default_middleware
from loomstream.providers import Provider, discovery
from loomstream.stream import Stream
from loomstream.tools import with_output, with_tools
from loomstream.transport import Transport
from loomstream.transport.http import AsyncClient, ConnectionLimits, HttpOptions, HttpTransport
from loomstream.transport.shown import ShownTransport, is_asked_for
from loomstream.wire import Secret

_log = logging.getLogger(__name__)
_KEPT = ConnectionLimits()
_UNKEPT = ConnectionLimits(keepalive_expiry_s=0.0)
"""For a server of our own: it promises to keep a connection, and ends it right after each streamed answer."""


class Model(Asking):
    """A provider, a model id and credentials, ready to stream. Safe to use for many streams at once.

    Use it as a context manager (`async with connect(…) as model`), or call `aclose`, which closes `fallbacks` too: the
    models that its middleware asks. `connect` makes it; construct it yourself to bring a transport of your own.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        transport: Transport,
        middleware: Sequence[Middleware] | None = None,
        request_defaults: RequestOptions | None = None,
        fallbacks: Sequence[Model] = (),
    ) -> None:
        provider, model = endpoint.provider, endpoint.model
        self._provider = provider
        self._model = model
        self._endpoint = endpoint
        self._transport = transport
        self._fallbacks = tuple(fallbacks)
        self._defaults: RequestOptions = with_output(with_tools(request_defaults or {}))
        check_options(cast("Mapping[str, object]", self._defaults))
        self._pricing = _pricing(endpoint)
        if middleware is None:
            middleware = default_middleware(_limited(endpoint), model, endpoint.account, pricing=self._pricing)
        self._innermost = _own_handler(endpoint) if provider.handler else HTTPHandler(endpoint, transport)
        self._handler = compose(self._open, *listed(middleware))
        self._closed = False

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self._provider.name

    @property
    def model(self) -> str:
        """The model's id."""
        return self._model

    @property
    def region(self) -> str:
        """The region that it computes in, as its settings say; empty where that is not known beforehand."""
        return self._endpoint.region

    @property
    def handler(self) -> Handler:
        """Request to events, with all middleware: the building block of combinators."""
        return self._handler

    @property
    def request_defaults(self) -> RequestOptions:
        """What `connect` was given for every request; `handler` does not know of it."""
        return self._defaults

    def __repr__(self) -> str:
        return f"<Model {self._provider.name}:{self._model}>"

    async def aclose(self) -> None:
        """Close the connections, and the server where one was launched; safe to call again."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            async with AsyncExitStack() as closing:
                for closes in (*self._fallbacks, self._endpoint, self._transport):
                    closing.push_async_callback(closes.aclose)

    async def prepare(self) -> None:
        """Do beforehand what the first stream would do before it sends: its timing is then the provider's alone.

        Finds the key, starts an embedded server, loads the HTTP client; connects to nobody else. But where
        `keep_alive_s` is a default of this model's requests and the host loads models on demand (Ollama), it has the
        host load the model, with the same window, and waits for that. Raises what the first read would: `MissingKey`,
        `ConfigError`, `UsageError` on a closed model, and what launching a server or asking the host raises.
        """
        self._check_open()
        if not self._provider.handler:
            target, authenticator = await self._endpoint.resolve()
            await self._transport.prepare(target.base_url)
            if self._defaults.get("keep_alive_s"):  # 0 would load it and at once let it go
                request = make_request("load", self._defaults)
                await discovery.load(self._provider, target, self._transport, authenticator, request)

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error()

    def _open(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        self._check_open()  # the stream may be older than the closing
        return self._innermost(request)

    def stream(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Stream:
        """Give the stream of an answer; nothing is sent before it is read.

        `prompt` is a user's text, a `Message`, or a conversation. The options are the fields of `Request`; they win
        over those given to `connect`.

        Raises `RequestError` for a prompt or value that cannot be sent, `UsageError` for an unknown option or a closed
        model. What the provider says comes out of the iteration.
        """
        self._check_open()
        request = make_request(prompt, {**self._defaults, **with_output(with_tools(options))})
        if request.stream and "stream" not in options and "stream" not in self._defaults:
            request = self._streamable(request)
        return Stream(
            self._handler,
            request,
            cost_of=partial(self._cost_of, max_tokens=request.max_tokens),
            provider=self._provider.name,
            model=self._model,
        )

    def _streamable(self, request: Request) -> Request:
        """Take the non-streaming path for a model that cannot stream."""
        entry = catalog.look_up(self._provider.name, self._model)
        if entry is None or entry.streaming is not False:
            return request
        return msgspec.structs.replace(request, stream=False)

    def _cost_of(self, provider: str, model: str, usage: Usage | None, *, max_tokens: int | None) -> Cost:
        return cost_of(
            provider, model, usage, max_tokens=max_tokens, requested_model=self._model, pricing=self._pricing
        )


def _own_handler(endpoint: Endpoint) -> Handler:
    """Give the handler that a provider's row names: `function(model, credentials)` makes it."""
    provider = endpoint.provider
    make = cast("Callable[[str, Credentials], Handler]", imported(provider, "handler", provider.handler))
    try:
        handler = make(endpoint.model, endpoint.credentials())
    except LoomstreamError:
        raise
    except Exception as error:
        msg = f"{provider.name} cannot be started: its handler raised {type(error).__name__}: {error}"
        raise ConfigError(msg, provider=provider.name, model=endpoint.model) from error
    if not callable(handler):
        msg = f"{provider.name} cannot be started: {provider.handler} gave {kind_of(handler)}, no handler"
        raise ConfigError(msg, provider=provider.name, model=endpoint.model)
    return handler


def _pricing(endpoint: Endpoint) -> Pricing:
    """Give how the model is found in the catalog: by the built-in provider's name, and never by a deployment's."""
    return Pricing(
        provider=endpoint.provider.catalog_name,
        base_model=endpoint.base_model,
        by_request=not endpoint.provider.names_deployments,
        region=endpoint.region,
    )


def _limited(endpoint: Endpoint) -> Provider:
    """Give the row with the limits that hold at the address: those of the provider's own host hold nowhere else."""
    row = endpoint.provider
    return msgspec.structs.replace(row, requests_per_minute=0.0) if endpoint.is_elsewhere else row


# --- connect -------------------------------------------------------------------------------------


def connect(  # noqa: PLR0913 (one call makes everything; all but the first are keyword-only)
    spec: str | None = None,
    *,
    api_key: APIKey | None = None,
    base_url: str | None = None,
    dialect: str | None = None,
    settings: Mapping[str, str | Secret] | None = None,
    client: AsyncClient | None = None,
    middleware: Sequence[Middleware] | None = None,
    config: str | os.PathLike[str] | Settings | None = None,
    proxy: str | None = None,
    ca_bundle: str | None = None,
    client_cert: str | tuple[str, str] | None = None,
    limits: ConnectionLimits | None = None,
    trust_env_proxies: bool = True,
    allow_http: bool = False,
    allow_custom_host: bool = False,
    record: str | os.PathLike[str] | None = None,
    model_path: str | os.PathLike[str] | None = None,
    download: bool | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    **request_defaults: Unpack[RequestOptions],
) -> Model:
    """Give a model that is ready to stream. Nothing is sent before a stream is read, or `Model.prepare` called.

    `spec` is `provider:model-id`, split at the first colon, a provider's name for its default model, or the name of an
    entry of `providers:` in `looms.yaml`. Without one `active_provider` or `llm.provider` of the configuration decides,
    else the only provider that has a key in the configuration or the environment, else the only one in the keyring
    (asked at once, at most 5 s for all), else the only one for which this machine has an identity (AWS, Google, Azure),
    else the embedded model.

    `config` is a `looms.yaml`, or `Settings` (default: the file that `loomstream.config.load.find_file` finds). What it
    says of the provider, of requests and of middleware holds where nothing is passed. A file that was merely found in
    the working folder sends no credential elsewhere than to the provider's own hosts, unless `allow_custom_host`.

    Credentials: `api_key` wins over the environment and the keyring; a function, which may be asynchronous, is asked
    for the token of each request. `base_url` wins over the environment and the provider's own address. `settings` are
    what else the provider needs (`settings={"region": "eu-west-1"}`; `looms providers` lists them), `dialect` selects
    one of several that it speaks.

    HTTP: `client` is an `httpx.AsyncClient` or `httpx2.AsyncClient` of yours to send with; it stays yours to close, and
    the settings that follow do not reach it. `proxy`, `ca_bundle`, `client_cert`, `limits`, `trust_env_proxies` and
    `allow_http` (plain http to another machine) are those of `loomstream.transport.http.HttpOptions`. `record` is a
    file to which all exchanges are appended, credentials masked (`loomstream.transport.record`).

    `middleware`, outermost first, takes the place of the default (`loomstream.middleware.defaults`: cost, retry, rate
    limit, timeout), which all models of one provider, account and model share; `middleware=()` is none.

    The embedded model: `model_path` is a GGUF file, `download` says whether the model may be fetched (default: only
    where the spec is given), `progress` is called with the bytes done and in all.

    Everything else is a default for each request (see `RequestOptions`).

    Raises `UnknownProvider`, `UnknownModel` (no model named and no default), `ConfigError` (no address, an unknown
    setting or dialect, several candidates, an entry of `looms.yaml` that has this name), `UsageError` (a spec that is
    no text, unknown option, unusable client).
    """
    api_key = api_key if callable(api_key) else hide(api_key)  # from here on no traceback shows it
    settings = _hidden(settings)
    configuration = _configuration(config)
    lay(configuration)
    found = chosen(spec if spec is not None else spec_of(configuration), configuration)
    _tell(found.warnings)
    planned = plan(
        configuration,
        found,
        own_key=api_key is not None,
        own_address=base_url is not None,
        allow_custom_host=allow_custom_host,
    )
    model_path, model = _own_file(planned.provider, found.model, model_path)
    allowed = spec is not None if download is None else download
    options = HttpOptions(
        proxy=proxy,
        ca_bundle=ca_bundle,
        client_cert=client_cert,
        trust_env_proxies=trust_env_proxies,
        allow_http=allow_http,
    )
    passed = _ForAll(options, limits, client, record, allow_custom_host)
    endpoint = Endpoint(
        planned.provider,
        model,
        api_key=planned.given.get(API_KEY) if api_key is None else api_key,
        base_url=base_url or planned.base_url,
        dialect=dialect or "",
        settings={**{name: value for name, value in planned.given.items() if name != API_KEY}, **settings},
        launch_options={"model_path": model_path, "download": allowed, "progress": progress},
        configured=planned.secrets,
    )
    fallbacks: list[Model] = []
    if middleware is None:
        fallbacks = [_fallback(other, configuration, passed) for other in fallbacks_of(configuration)]
        site = Site(_limited(endpoint), model, endpoint.account, endpoint.region, _pricing(endpoint))
        middleware = stack(configuration, planned, site, [_candidate(other) for other in fallbacks])
    return Model(
        endpoint,
        transport=_transport(passed, planned, configuration),
        middleware=middleware,
        request_defaults={**planned.request_defaults, **request_defaults},
        fallbacks=fallbacks,
    )


def _transport(passed: _ForAll, planned: Plan, settings: Settings) -> Transport:
    """Give what carries the model's requests; what passes is recorded, or shown, where that is asked for."""
    row = planned.provider
    options = msgspec.structs.replace(
        passed.options,
        limits=passed.limits or (_UNKEPT if row.launch else _KEPT),
        allow_http=passed.options.allow_http or planned.allow_http,  # what an entry says is for itself
    )
    transport: Transport = HttpTransport(options, client=passed.client)
    if passed.record is not None:
        from loomstream.transport.record import RecordingTransport  # noqa: PLC0415 (only where it is asked for)

        transport = RecordingTransport(transport, passed.record)
    if settings.ambient and is_asked_for(row.name, os.environ):
        transport = ShownTransport(transport, row.name)
    return transport


class _ForAll(NamedTuple):
    """What a caller passes for a model and for those that answer where it fails."""

    options: HttpOptions
    limits: ConnectionLimits | None
    """None: as each provider's row has them."""
    client: AsyncClient | None
    record: str | os.PathLike[str] | None
    allow_custom_host: bool


def _fallback(spec: str, settings: Settings, passed: _ForAll) -> Model:
    """Give a model that answers where the one that was asked for fails; it has no fallbacks itself."""
    without = msgspec.structs.replace(
        settings, middleware=tuple(named for named in settings.middleware if named.name != "failover")
    )
    options = passed.options
    return connect(
        spec,
        config=without,
        client=passed.client,
        proxy=options.proxy,
        ca_bundle=options.ca_bundle,
        client_cert=options.client_cert,
        limits=passed.limits,
        trust_env_proxies=options.trust_env_proxies,
        allow_http=options.allow_http,
        allow_custom_host=passed.allow_custom_host,
        record=passed.record,
    )


def _candidate(model: Model) -> Candidate:
    return Candidate(f"{model.provider}:{model.model}", model.handler, model.provider, model.model, model.region)


def _configuration(config: str | os.PathLike[str] | Settings | None) -> Settings:
    """Give the settings, read from the file that is named, or from the one that is found; tell what they warn of."""
    if isinstance(config, Settings):
        return config  # who loaded them has seen the warnings
    if not isinstance(config, str | os.PathLike | None):  # pyright: ignore[reportUnnecessaryIsInstance] (callers without types)
        msg = f"config is {kind_of(config)}: give a path, or what loomstream.config.load.load gives"
        raise UsageError(msg)
    settings = load(config)
    _tell(settings.warnings)
    return settings


def _tell(warnings: Sequence[str]) -> None:
    for warning in warnings:
        _log.warning("%s", warning)


def _hidden(settings: Mapping[str, str | Secret] | None) -> dict[str, Secret]:
    """Wrap each setting: some are secrets, and no traceback shall show which."""
    if not isinstance(settings, Mapping | None):  # pyright: ignore[reportUnnecessaryIsInstance] (callers without types)
        msg = f"settings is {kind_of(settings)}: give a dict, as in settings={{'region': 'eu-west-1'}}"
        raise UsageError(msg)
    return {name: cast("Secret", hide(value)) for name, value in (settings or {}).items()}


def _own_file(
    provider: Provider, model: str, model_path: str | os.PathLike[str] | None
) -> tuple[str | os.PathLike[str] | None, str]:
    """Give the path and the name of a model file; one may stand in a spec's place of a model id."""
    if not provider.launch or model == provider.default_model:
        return model_path, model
    if not model.endswith(".gguf"):
        msg = (
            f"{provider.name} runs {provider.default_model} or a GGUF file, not {model!r}: "
            f"write {provider.name} or {provider.name}:PATH.gguf"
        )
        raise UnknownModel(msg, provider=provider.name, model=model)
    return model_path or model, os.path.basename(model).removesuffix(".gguf")  # noqa: PTH119 (a name, not a path)


def parse_spec(spec: str, settings: Settings | None = None) -> tuple[Provider, str]:
    """Give the provider and the model id that `provider:model-id`, or `provider` alone, names.

    `settings` are the configuration (default: what `loomstream.config.load.load` gives). Raises `UnknownProvider`,
    `UnknownModel` where no model is named and the provider has no default, `UsageError` where it is no text, and
    `ConfigError` for an entry of `looms.yaml` that cannot be used, as one of a built-in provider's name.
    """
    found = chosen(spec, load() if settings is None else settings)
    return found.provider, found.model
