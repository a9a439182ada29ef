"""The composition root: provider + credentials + transport + dialect + middleware make a `Model`.

Contract: `connect` and `Model` do no I/O until a stream is read. The innermost handler here is one attempt: it builds
the wire request, opens the transport under the Watch, pumps bytes to events and raises typed errors only.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Protocol, Self, Unpack, cast

import anyio
import msgspec

from loomstream import catalog
from loomstream.auth import SCHEMES
from loomstream.config.keys import KEYRING_TIMEOUT_S, hide, missing_key, resolve_key, resolve_key_sync
from loomstream.dialects import Target
from loomstream.errors import ConfigError, Failure, LoomstreamError, Timeout, TransportError, UnknownModel, UsageError
from loomstream.events import Cost, Event, Usage
from loomstream.handler import Handler, Middleware, compose
from loomstream.messages import Prompt, Request, RequestOptions, Response, check_options, make_request
from loomstream.middleware.cost import cost, cost_of
from loomstream.providers import DIALECTS, Provider, all_providers, dialect_module, look_up
from loomstream.pump import MAX_ERROR_BODY_BYTES, Pump, or_raise
from loomstream.stream import Stream
from loomstream.transport import ByteResponse, Transport
from loomstream.transport.http import AsyncClient, ConnectionLimits, HttpOptions, HttpTransport
from loomstream.transport.outgoing import check_base_url
from loomstream.transport.watch import Watch, drain
from loomstream.wire import Secret

_REDIRECT = 300
_PROVIDER_VARIABLE = "LOOM_LLM_PROVIDER"
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


class Endpoint:
    """Where requests go and with which key; found out at the first request, and anew where a launched server died."""

    def __init__(
        self,
        provider: Provider,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        launch_options: Mapping[str, object] | None = None,
    ) -> None:
        self._api_key = api_key = hide(api_key)
        self.provider = provider
        self._base_url = base_url or _from_environment(provider.base_url_environment) or provider.base_url
        self._launch_options = dict(launch_options or {})
        self._lock = anyio.Lock()
        self._found: tuple[str, Secret | None] | None = None
        self._server: LaunchedServer | None = None
        self._closed = False
        if not self._base_url and not provider.launch:
            names = " or ".join(provider.base_url_environment)
            msg = f"{provider.name} needs an address: pass base_url='https://host/v1'" + (
                f" or set {names}" if names else ""
            )
            raise ConfigError(msg, provider=provider.name)

    async def resolve(self) -> tuple[str, Secret | None]:
        """Give the base URL and the key.

        Raises `MissingKey`, `ConfigError` (also where the server's code cannot be loaded), `UsageError` after `aclose`,
        and what launching a server raises.
        """
        if self._found is None or self._is_dead():
            async with self._lock:
                if self._is_dead():
                    await self._end_server()
                self._found = self._found or await self._find()
        return self._found

    def _is_dead(self) -> bool:
        return self._server is not None and not self._server.alive

    async def _find(self) -> tuple[str, Secret | None]:
        if self._closed:
            raise _closed_error()
        if self.provider.launch and not self._base_url:
            server = await _launcher(self.provider)(**self._launch_options)
            if self._closed:  # meanwhile
                await server.aclose()
                raise _closed_error()
            self._server = server
            return server.base_url.rstrip("/"), server.api_key
        return check_base_url(self._base_url), await self._key()

    async def _key(self) -> Secret | None:
        provider = self.provider
        if provider.auth == "none" and self._api_key is None:
            return None
        notes: list[str] = []
        found = await resolve_key(
            provider=provider.name,
            argument=self._api_key,
            env_names=provider.key_environment,
            keyring_name=provider.keyring,
            notes=notes,
        )
        if found is None and provider.needs_key:
            raise missing_key(provider.name, provider.key_environment, provider.keyring, notes)
        return None if found is None else found.secret

    async def aclose(self) -> None:
        """End a server that was launched, and launch no other."""
        self._closed = True
        await self._end_server()

    async def _end_server(self) -> None:
        server, self._server, self._found = self._server, None, None
        if server is not None:
            await server.aclose()


def _launcher(provider: Provider) -> Callable[..., Awaitable[LaunchedServer]]:
    """Import the function that starts a provider's server."""
    module, _, function = provider.launch.partition(":")
    try:
        return cast("Callable[..., Awaitable[LaunchedServer]]", getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"{provider.name} cannot be started: its launch={provider.launch!r} cannot be imported ({error})"
        raise ConfigError(msg, provider=provider.name) from error


def _closed_error() -> UsageError:
    return UsageError("this model is closed: connect again")


def _from_environment(names: Sequence[str]) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


class Model:
    """A provider, a model id and credentials, ready to stream. Safe to use for many streams at once.

    Use it as a context manager (`async with connect(…) as model`), or call `aclose`. `connect` makes it; construct it
    yourself to bring a transport of your own.
    """

    def __init__(
        self,
        provider: Provider,
        model: str,
        *,
        endpoint: Endpoint,
        transport: Transport,
        middleware: Sequence[Middleware] | None = None,
        request_defaults: RequestOptions | None = None,
    ) -> None:
        self._provider = provider
        self._model = model
        self._endpoint = endpoint
        self._transport = transport
        self._dialect = dialect_module(provider.dialect)
        self._defaults: RequestOptions = request_defaults or {}
        check_options(cast("Mapping[str, object]", self._defaults))
        layers = default_middleware(provider.name, model) if middleware is None else tuple(middleware)
        self._handler = compose(self._attempt, *layers)
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
    def handler(self) -> Handler:
        """Request to events, with all middleware: the building block of combinators."""
        return self._handler

    def __repr__(self) -> str:
        return f"<Model {self._provider.name}:{self._model}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, and the server where one was launched; safe to call again."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._transport.aclose()
            await self._endpoint.aclose()

    async def prepare(self) -> None:
        """Do beforehand what the first stream would do before it sends: its timing is then the provider's alone.

        Finds the key, starts an embedded server, loads the HTTP client; connects to nobody else. Raises what the first
        read would: `MissingKey`, `ConfigError`, `UsageError` on a closed model, and what launching a server raises.
        """
        self._check_open()
        base_url, _ = await self._endpoint.resolve()
        await self._transport.prepare(base_url)

    def _check_open(self) -> None:
        if self._closed:
            raise _closed_error()

    def stream(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Stream:
        """Give the stream of an answer; nothing is sent before it is read.

        `prompt` is a user's text, a `Message`, or a conversation. The options are the fields of `Request`; they win
        over those given to `connect`.

        Raises `RequestError` for a prompt or value that cannot be sent, `UsageError` for an unknown option or a closed
        model. What the provider says comes out of the iteration.
        """
        self._check_open()
        request = make_request(prompt, {**self._defaults, **options})
        if request.stream and "stream" not in options and "stream" not in self._defaults:
            request = self._streamable(request)
        return Stream(
            self._handler,
            request,
            cost_of=partial(self._cost_of, max_tokens=request.max_tokens),
            provider=self._provider.name,
            model=self._model,
        )

    async def complete(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Response:
        """Give the whole answer: the same pipeline, collected. Raises what iterating a stream raises."""
        async with self.stream(prompt, **options) as stream:
            return await stream.collect()

    def _streamable(self, request: Request) -> Request:
        """Take the non-streaming path for a model that cannot stream."""
        entry = catalog.look_up(self._provider.name, self._model)
        if entry is None or entry.streaming:
            return request
        return msgspec.structs.replace(request, stream=False)

    def _cost_of(self, provider: str, model: str, usage: Usage | None, *, max_tokens: int | None) -> Cost:
        return cost_of(provider, model, usage, max_tokens=max_tokens, requested_model=self._model)

    # --- one attempt -----------------------------------------------------------------------------

    @asynccontextmanager
    async def _attempt(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        self._check_open()  # the stream may be older than the closing
        base_url, secret = await self._endpoint.resolve()
        provider, dialect = self._provider, self._dialect
        target = Target(provider=provider.name, model=self._model, base_url=base_url, quirks=provider.quirks)
        wire_request = dialect.build_request(request, target)
        if secret is not None:
            wire_request = await SCHEMES[_KEYED.get(provider.auth, provider.auth)](wire_request, secret)
        watch = Watch(request.timeouts)
        async with watch.open(self._transport, wire_request) as response:
            pump = Pump(
                dialect=dialect,
                target=target,
                expected=DIALECTS[provider.dialect] if request.stream else "json",
                content_type=response.headers.get("content-type", ""),
                headers=response.headers,
                warnings=dialect.warnings(request, target),
                raw_events=request.raw_events,
                secret=secret,
            )
            del wire_request  # a long prompt need not stay in memory while its answer streams
            if response.status >= _REDIRECT:
                raise pump.status_error(response.status, await _error_body(response, watch))
            async with aclosing(_events(response, watch, pump)) as events:
                yield events
            if pump.ended_well:
                await drain(response)


async def _events(response: ByteResponse, watch: Watch, pump: Pump) -> AsyncGenerator[Event]:
    read, chunks, feed = watch.read, response.chunks, pump.feed
    try:
        while (chunk := await read(chunks)) is not None:
            events = feed(chunk)
            if pump.progressed:
                watch.progress()
            elif events:
                watch.delivered()
            if pump.over:
                del chunk  # it may echo the key, and reports of errors show local variables
                for event in or_raise(events):
                    yield event
                return
            for event in events:
                yield event  # pyright: ignore[reportReturnType] (a failure would have ended the pump)
    except (TransportError, Timeout) as error:
        # The transport failed, but the terminal marker may have been seen: then the answer is whole all the same.
        for event in pump.finish():
            if isinstance(event, Failure):
                raise error from None
            yield event
        return
    for event in or_raise(pump.finish()):
        yield event


async def _error_body(response: ByteResponse, watch: Watch) -> bytes:
    """Give the beginning of an error's body; where it cannot be read to its end, the status still says what it is."""
    body = b""
    with suppress(LoomstreamError):
        while len(body) < MAX_ERROR_BODY_BYTES and (chunk := await watch.read(response.chunks)) is not None:
            body += chunk
    return body[:MAX_ERROR_BODY_BYTES]


def default_middleware(provider: str, model: str) -> tuple[Middleware, ...]:
    """Give the middleware that a model has where none is named, outermost first."""
    return (cost(provider, model),)


# --- connect -------------------------------------------------------------------------------------


def connect(  # noqa: PLR0913 (one call makes everything; all but the first are keyword-only)
    spec: str | None = None,
    *,
    api_key: str | Secret | None = None,
    base_url: str | None = None,
    client: AsyncClient | None = None,
    middleware: Sequence[Middleware] | None = None,
    proxy: str | None = None,
    ca_bundle: str | None = None,
    client_cert: str | tuple[str, str] | None = None,
    limits: ConnectionLimits | None = None,
    trust_env_proxies: bool = True,
    allow_http: bool = False,
    model_path: str | os.PathLike[str] | None = None,
    download: bool | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    **request_defaults: Unpack[RequestOptions],
) -> Model:
    """Give a model that is ready to stream. Nothing is sent before a stream is read, or `Model.prepare` called.

    `spec` is `provider:model-id`, split at the first colon, or a provider's name for its default model; its key is
    looked up when a stream is read. Without one, `LOOM_LLM_PROVIDER` decides, else the only provider that has a key in
    the environment, else the only one in the keyring (asked at once, at most 5 s for all), else the embedded model.

    Credentials: `api_key` wins over the environment and the keyring, `base_url` over the environment and the provider's
    own address.

    HTTP: `client` is an `httpx.AsyncClient` or `httpx2.AsyncClient` of yours to send with; it stays yours to close, and
    the settings that follow do not reach it. `proxy`, `ca_bundle`, `client_cert`, `limits`, `trust_env_proxies` and
    `allow_http` (plain http to another machine) are those of `loomstream.transport.http.HttpOptions`.

    `middleware`, outermost first, takes the place of the default one.

    The embedded model: `model_path` is a GGUF file, `download` says whether the model may be fetched (default: only
    where the spec is given), `progress` is called with the bytes done and in all.

    Everything else is a default for each request (see `RequestOptions`).

    Raises `UnknownProvider`, `UnknownModel` (no model named and no default), `ConfigError` (no address, several
    candidates), `UsageError` (a spec that is no text, unknown option, unusable client).
    """
    api_key = hide(api_key)  # from here on no traceback shows it
    provider, model = parse_spec(spec if spec is not None else _choose())
    model_path, model = _own_file(provider, model, model_path)
    allowed = spec is not None if download is None else download
    launching = {"model_path": model_path, "download": allowed, "progress": progress}
    options = HttpOptions(
        proxy=proxy,
        ca_bundle=ca_bundle,
        client_cert=client_cert,
        limits=limits or ConnectionLimits(),
        trust_env_proxies=trust_env_proxies,
        allow_http=allow_http,
    )
    endpoint = Endpoint(provider, api_key=api_key, base_url=base_url, launch_options=launching)
    http = HttpTransport(options, client=client)
    return Model(
        provider, model, endpoint=endpoint, transport=http, middleware=middleware, request_defaults=request_defaults
    )


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


def parse_spec(spec: str) -> tuple[Provider, str]:
    """Give the provider and the model id that `provider:model-id`, or `provider` alone, names.

    Raises `UnknownProvider`, `UnknownModel` where no model is named and the provider has no default, and `UsageError`
    where it is no text.
    """
    if not isinstance(spec, str):  # pyright: ignore[reportUnnecessaryIsInstance] (callers without types)
        msg = f"the spec is a {type(spec).__name__}: give a text, as in connect('openai:gpt-4o')"
        raise UsageError(msg)
    name, _, model = spec.partition(":")
    provider = look_up(name.strip())
    model = model.strip() or provider.default_model
    if not model:
        msg = f"{provider.name} has no default model: write {provider.name}:MODEL-ID"
        raise UnknownModel(msg, provider=provider.name)
    return provider, model


def _in_keyring(rows: Sequence[Provider]) -> list[str]:
    """Give the providers whose key the keyring holds; it has `KEYRING_TIMEOUT_S` for all of them."""
    end_s = monotonic() + KEYRING_TIMEOUT_S
    return [
        row.name
        for row in rows
        if row.keyring
        and (left_s := end_s - monotonic()) > 0
        and resolve_key_sync(provider=row.name, keyring_name=row.keyring, timeout_s=left_s)
    ]


def _choose() -> str:
    """Give the provider that the environment and the keyring point to, else the embedded model."""
    named = os.environ.get(_PROVIDER_VARIABLE, "").strip()
    if named:
        return named
    rows = [row for row in all_providers() if row.needs_key and not row.launch]
    usable = [row.name for row in rows if resolve_key_sync(provider=row.name, env_names=row.key_environment)]
    usable = usable or _in_keyring(rows)
    if len(usable) > 1:
        msg = f"keys for several providers were found ({', '.join(usable)}): name one, as in connect('{usable[0]}')"
        raise ConfigError(msg)
    return usable[0] if usable else "local"
