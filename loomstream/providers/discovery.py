"""Asks a host which models it has and what they can do, or to load one, where its row says how (`Provider.discovery`).

Contract: each function sends one small request through the `Transport` it is given, within `LIMIT_S` (loading has the
request's own limits), and closes the response before it returns. It knows no wire: what is asked, and how the answer
reads, is the dialect's. Only `LoomstreamError`s come out.
"""

from __future__ import annotations

import difflib
import importlib
from typing import cast

import anyio
import msgspec

from loomstream.auth import Authenticator
from loomstream.dialects import Quirks, Target
from loomstream.dialects.discovery import Abilities, DiscoveryDialect, HostModel, LoadingDialect
from loomstream.errors import ConfigError, FirstEventTimeout, LimitExceeded, LoomstreamError, ModelNotFound
from loomstream.messages import Request
from loomstream.providers import Provider, dialect_module
from loomstream.transport import ByteResponse, Transport
from loomstream.wire import WireRequest

LIMIT_S = 5.0
"""No answer takes longer than this, in seconds: the host is asked on the way to something else."""

MAX_BODY_BYTES = 16 * 1024 * 1024
"""No answer is larger: a description of a model holds its licence and its template."""

_NEAREST = 3
_LIKENESS = 0.6
_ERROR = 400


async def list_models(
    provider: Provider, target: Target, transport: Transport, authenticator: Authenticator | None = None
) -> tuple[HostModel, ...]:
    """Give the models that the host has.

    Raises `ConfigError` where the row does not say how to ask, `FirstEventTimeout` after `LIMIT_S`, `BadFrame` for an
    answer that is no list, and what the transport, the authenticator and an error answer raise.
    """
    dialect = _dialect(provider)
    wire_request = dialect.list_request(target)
    return dialect.parse_list(await _fetched(provider, wire_request, target, transport, authenticator))


async def abilities(
    provider: Provider, target: Target, transport: Transport, authenticator: Authenticator | None = None
) -> Abilities:
    """Give what the target's model can do. Raises what `list_models` raises; `ModelNotFound` where there is none."""
    dialect = _dialect(provider)
    wire_request = dialect.abilities_request(target)
    return dialect.parse_abilities(await _fetched(provider, wire_request, target, transport, authenticator))


async def load(
    provider: Provider,
    target: Target,
    transport: Transport,
    authenticator: Authenticator | None,
    request: Request,
) -> None:
    """Have the host load the target's model as the request would have it; do nothing where the host needs none of this.

    Raises `FirstEventTimeout` after the request's `whole_s`, and what the transport, the authenticator and an error
    answer raise: `ModelNotFound` where there is no such model.
    """
    if not provider.discovery:
        return
    dialect = _dialect(provider)
    if not hasattr(dialect, "load_request"):
        return
    wire_request = cast("LoadingDialect", dialect).load_request(target, request)
    limits = request.timeouts
    with anyio.move_on_after(limits.whole_s):
        await _answer(provider, wire_request, target, transport, authenticator, connect_s=limits.connect_s)
        return
    msg = (
        f"{target.provider} did not load {target.model} within {limits.whole_s:g} s: choose a smaller model, or raise "
        "Timeouts(whole_s=…)"
    )
    raise FirstEventTimeout(msg, provider=target.provider, model=target.model)


def with_abilities(quirks: Quirks, found: Abilities) -> Quirks:
    """Give the quirks with what the host says of the model; what it does not say stays as the row has it."""
    return msgspec.structs.replace(
        quirks,
        capabilities=found.capabilities or quirks.capabilities,
        think_levels=found.think_levels or quirks.think_levels,
    )


async def explained(
    error: ModelNotFound,
    provider: Provider,
    target: Target,
    transport: Transport,
    authenticator: Authenticator | None = None,
) -> ModelNotFound:
    """Give the error with the names of the host's models nearest to the one that is missing.

    It comes back as it was where the row does not say how to ask, or the host does not answer.
    """
    if not provider.discovery:
        return error
    try:
        names = [model.name for model in await list_models(provider, target, transport, authenticator)]
    except Exception:  # noqa: BLE001 (also what a client of the user's raises: the first error is the one to tell)
        return error
    error.args = (f"{error.message}; {_nearest(target.model, names)}",)
    return error


def _nearest(model: str, names: list[str]) -> str:
    near = difflib.get_close_matches(model, names, n=_NEAREST, cutoff=_LIKENESS)
    if near:
        return f"the nearest that the host has: {', '.join(near)}"
    shown = ", ".join(names[:_NEAREST])
    return f"the host has {shown}{', …' if len(names) > _NEAREST else ''}" if names else "the host has no models yet"


def _dialect(provider: Provider) -> DiscoveryDialect:
    if not provider.discovery:
        msg = f"{provider.name} has no way to ask for its models: look into the provider's documentation"
        raise ConfigError(msg, provider=provider.name)
    try:
        return cast("DiscoveryDialect", importlib.import_module(provider.discovery))
    except (ImportError, ValueError) as error:
        msg = f"discovery={provider.discovery!r} of {provider.name} cannot be imported ({error})"
        raise ConfigError(msg, provider=provider.name) from error


async def _fetched(
    provider: Provider,
    wire_request: WireRequest,
    target: Target,
    transport: Transport,
    authenticator: Authenticator | None,
) -> bytes:
    """Give the body of the answer."""
    with anyio.move_on_after(LIMIT_S):
        return await _answer(provider, wire_request, target, transport, authenticator, connect_s=LIMIT_S)
    msg = f"{target.provider} did not say within {LIMIT_S:g} s what it has: is {target.base_url} the right host?"
    raise FirstEventTimeout(msg, provider=target.provider, model=target.model)


async def _answer(
    provider: Provider,
    wire_request: WireRequest,
    target: Target,
    transport: Transport,
    authenticator: Authenticator | None,
    *,
    connect_s: float | None,
) -> bytes:
    if authenticator is not None:
        wire_request = await authenticator.authorize(wire_request)
    async with transport.open(wire_request, connect_s=connect_s) as response:
        body = await _body(response, target)
        if response.status >= _ERROR:
            raise _status_error(provider, target, response, body, authenticator)
        return body


def _status_error(
    provider: Provider, target: Target, response: ByteResponse, body: bytes, authenticator: Authenticator | None
) -> LoomstreamError:
    error = dialect_module(provider.dialect).parse_error(response.status, response.headers, body, target)
    for secret in authenticator.secrets if authenticator is not None else ():
        error.redact(secret.reveal())
    return error


async def _body(response: ByteResponse, target: Target) -> bytes:
    body = bytearray()
    async for chunk in response.chunks:
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            msg = f"{target.provider}: the answer is larger than {MAX_BODY_BYTES:,} bytes"
            raise LimitExceeded(msg, provider=target.provider, model=target.model)
    return bytes(body)
