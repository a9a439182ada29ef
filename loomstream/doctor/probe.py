"""Asks a provider whether it can be reached, takes the key, and has the model: nothing of it is billed.

Contract: one or two GET requests, each within `timeout_s`; where the host lists its models, the list shows both whether
the key is taken and whether the model is there. A host without a list is only connected to, after the credentials were
fetched. Everything that goes wrong is in the `Probe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from urllib.parse import quote, urlsplit, urlunsplit

import anyio
from msgspec import Struct

from loomstream.auth import API_KEY
from loomstream.config.settings import Settings
from loomstream.configured.choice import chosen
from loomstream.configured.plan import plan
from loomstream.dialects import Target, host_headers
from loomstream.dialects.fields import as_list, as_object, as_text
from loomstream.endpoint import Endpoint, Resolved
from loomstream.errors import FirstEventTimeout, LoomstreamError, ModelNotFound
from loomstream.providers import Provider, dialect_module
from loomstream.transport.http import HttpOptions, HttpTransport
from loomstream.wire import WireRequest
from loomstream.wire.json import loads

LIMIT_S = 10.0
"""How long a host may take for each request, in seconds."""

_MAX_BODY_BYTES = 8 * 1024 * 1024
_OK, _ERROR = 200, 400
_NO_SUCH_QUESTION = frozenset({404, 405, 501})


class _Listing(Struct, frozen=True):
    """How a dialect's hosts list their models: the path below the address, the query, headers beside the key's."""

    path: str
    query: str = ""
    headers: Mapping[str, str] = {}


_LISTINGS: Mapping[str, _Listing] = {
    # https://platform.openai.com/docs/api-reference/models/list
    "openai_chat": _Listing("/models"),
    "openai_responses": _Listing("/models"),
    # https://docs.anthropic.com/en/api/models-list
    "anthropic_messages": _Listing("/v1/models", "limit=1000", {"anthropic-version": "2023-06-01"}),
    # https://ai.google.dev/api/models#method:-models.list
    "gemini": _Listing("/models", "pageSize=1000"),
    # https://docs.cohere.com/reference/list-models
    "cohere_chat": _Listing("/v1/models", "page_size=1000"),
    # https://docs.ollama.com/api/tags
    "ollama_chat": _Listing("/api/tags"),
}
"""Free of charge at every one of these."""

_WITHOUT_LIST = frozenset({"aws", "azure", "google"})
"""Schemes whose hosts list no models that the key may use (Azure: deployments): only the connection is tried."""


class Probe(Struct, frozen=True, kw_only=True):
    """What came of it: `reachable` is None where nobody was asked; `models` is None where the host lists none.

    `error` is the first thing that went wrong, `status` what the host answered (0: nothing), `row` and `model` what
    was meant.
    """

    row: Provider
    model: str = ""
    address: str = ""
    reachable: bool | None = None
    status: int = 0
    models: int | None = None
    error: LoomstreamError | None = None


class _Answer(Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes


async def probe(spec: str, settings: Settings, *, timeout_s: float = LIMIT_S) -> Probe:
    """Ask the provider of a spec (`provider`, or `provider:model`).

    Raises `UnknownProvider` and what else `loomstream.configured.choice.chosen` raises.
    """
    found = chosen(spec, settings)
    row = found.provider
    if row.launch or row.handler:
        return Probe(row=row, model=found.model)
    try:
        planned = plan(settings, found)
        endpoint = Endpoint(
            planned.provider,
            found.model,
            api_key=planned.given.get(API_KEY),
            base_url=planned.base_url,
            settings={name: value for name, value in planned.given.items() if name != API_KEY},
            configured=planned.secrets,
        )
    except LoomstreamError as error:
        return Probe(row=row, model=found.model, error=error)
    async with aclosing(endpoint), aclosing(HttpTransport(HttpOptions(allow_http=planned.allow_http))) as transport:
        try:
            resolved = await endpoint.resolve()
        except LoomstreamError as error:
            return Probe(row=row, model=found.model, error=error)
        return await _Inquiry(planned.provider, resolved, transport, timeout_s).run()


class _Inquiry:
    """The questions to one host."""

    def __init__(self, row: Provider, resolved: Resolved, transport: HttpTransport, timeout_s: float) -> None:
        self._row = row
        self._target: Target = resolved.target
        self._authenticator = resolved.authenticator
        self._transport = transport
        self._timeout_s = timeout_s
        self._result = Probe(row=row, model=self._target.model, address=self._target.base_url)

    async def run(self) -> Probe:
        listing = None if self._row.auth in _WITHOUT_LIST else _LISTINGS.get(self._row.dialect)
        try:
            if listing is None:
                answer = await self._get(_root(self._target.base_url), {}, authorized=False)
                return self._with(reachable=True, status=answer.status)
            return await self._listed(listing)
        except LoomstreamError as error:
            for secret in self._authenticator.secrets:
                error.redact(secret.reveal())
            return self._with(reachable=False, error=error)

    async def _listed(self, listing: _Listing) -> Probe:
        base_url = self._target.base_url.rstrip("/")
        query = f"?{listing.query}" if listing.query else ""
        answer = await self._get(f"{base_url}{listing.path}{query}", listing.headers)
        names = _names(answer.body)
        if answer.status == _OK and names:
            known = self._target.model in names or await self._has(base_url, listing)
            error = None if known else self._not_found(names)
            return self._with(reachable=True, status=_OK, models=len(names), error=error)
        if answer.status < _ERROR or answer.status in _NO_SUCH_QUESTION:
            return self._with(reachable=True, status=answer.status)  # it has no list: all is well that can be seen
        return self._with(reachable=True, status=answer.status, error=self._error_of(answer))

    async def _has(self, base_url: str, listing: _Listing) -> bool:
        """Ask for the one model, for a list may leave out other names of it; where there is a discovery it is whole."""
        if self._row.discovery:
            return False
        name = quote(self._target.model, safe="/:@")
        answer = await self._get(f"{base_url}{listing.path}/{name}", listing.headers)
        return answer.status < _ERROR

    async def _get(self, url: str, headers: Mapping[str, str], *, authorized: bool = True) -> _Answer:
        every = {"accept": "application/json", **headers, **host_headers(self._target)}
        wire_request = WireRequest(method="GET", url=url, headers=every)
        with anyio.move_on_after(self._timeout_s):
            if authorized:
                wire_request = await self._authenticator.authorize(wire_request)
            async with self._transport.open(wire_request, connect_s=self._timeout_s) as response:
                body = bytearray()
                async for chunk in response.chunks:
                    body += chunk
                    if len(body) > _MAX_BODY_BYTES:
                        break
                return _Answer(response.status, response.headers, bytes(body))
        msg = f"{self._row.name}: no answer from {_root(url)} within {self._timeout_s:g} s"
        raise FirstEventTimeout(msg, provider=self._row.name, model=self._target.model)

    def _error_of(self, answer: _Answer) -> LoomstreamError:
        parse = dialect_module(self._row.dialect).parse_error
        error = parse(answer.status, answer.headers, answer.body, self._target)
        for secret in self._authenticator.secrets:
            error.redact(secret.reveal())
        return error

    def _not_found(self, names: list[str]) -> ModelNotFound:
        model, row = self._target.model, self._row
        msg = f"{row.name} has no model {model!r} for this key; it lists {len(names)}, such as {', '.join(names[:3])}"
        return ModelNotFound(msg, provider=row.name, model=model)

    def _with(
        self,
        *,
        reachable: bool,
        status: int = 0,
        models: int | None = None,
        error: LoomstreamError | None = None,
    ) -> Probe:
        found = self._result
        return Probe(
            row=found.row,
            model=found.model,
            address=found.address,
            reachable=reachable,
            status=status,
            models=models,
            error=error,
        )


def _root(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, "/", "", ""))


def _names(body: bytes) -> list[str]:
    """Give the names of the models in a list, whichever of the usual forms it has."""
    parsed = loads(body)
    fields = as_object(parsed)
    items = as_list(fields.get("data")) or as_list(fields.get("models")) or as_list(parsed)
    found = (as_object(item) for item in items)
    names = (as_text(item.get("id")) or as_text(item.get("name")) or as_text(item.get("model")) for item in found)
    return [name for each in names if each for name in _forms(each)]


def _forms(name: str) -> tuple[str, ...]:
    """Give a name, and what it may be called as well: without Google's prefix, without Ollama's usual tag."""
    short = name.removeprefix("models/").removesuffix(":latest")
    return (name,) if short == name else (short, name)


async def ask_live(spec: str, settings: Settings) -> LoomstreamError | None:
    """Have the model answer a few words, which is billed; give the error where it does not."""
    from loomstream.model import connect  # noqa: PLC0415 (loads the whole library)

    try:
        async with (
            connect(spec, config=settings, middleware=(), download=False) as model,
            model.stream("Say OK.", max_tokens=16) as stream,
        ):
            async for _ in stream:
                pass
    except LoomstreamError as error:
        return error
    return None
