"""Audit log: a line for each call, of who asked whom, what came of it and what it cost.

Contract: one JSON line (`loomstream.telemetry.records.AuditRecord`) when a call ends, however that was: also one that
was cancelled or left, with what had come. Prompts and answers are not part of it unless `content` asks for them, nor
what a provider says in an error. A log that cannot be written breaks no stream; Python's own log says so.
"""

from __future__ import annotations

import datetime as dt
import getpass
import os
import platform
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import TypedDict

from msgspec.structs import replace

from loomstream.errors import LoomstreamError, ProviderError
from loomstream.events import Cost, Usage
from loomstream.handler import Middleware
from loomstream.messages import Request, Response
from loomstream.telemetry.audit_log import AuditLog, default_path
from loomstream.telemetry.calls import Call, Requested, Watcher, own_words, watched
from loomstream.telemetry.records import AuditAttempt, AuditRecord, AuditUsage

__all__ = ("AuditAttempt", "AuditLog", "AuditRecord", "AuditUsage", "audit", "default_path")

_NO_REQUEST = Request(messages=())
_COUNTS = AuditUsage.__struct_fields__
_DECIMALS = 6
"""Times are written to the microsecond."""

Tag = str | Callable[[Request], str]
"""What costs are told apart by, or a function of the request that gives it."""


def audit(
    log: AuditLog | str | os.PathLike[str] | None = None,
    *,
    provider: str = "",
    model: str = "",
    who: str = "",
    tag: Tag = "",
    content: bool = False,
) -> Middleware:
    """Give the middleware that keeps an audit log. List it first: then all tries of a call are one line.

    `log` is a file (default: `audit.jsonl` in `$LOOM_DATA_DIR`), or an `AuditLog` that says when it is rotated.
    `provider` and `model` are those requested. `who` stands where a request has no `end_user_id` (default: the user of
    the operating system). `content` adds prompts and answers.

    Raises `ConfigError` for a file that cannot be written.
    """
    kept = log if isinstance(log, AuditLog) else AuditLog(log)
    return watched(
        f"the audit log {kept.path}",
        lambda: _Audited(kept, who, tag, content=content),
        Requested(provider, model),
    )


class _Audited(Watcher):
    """One call."""

    __slots__ = ("_content", "_log", "_metadata", "_request", "_streamed", "_tag", "_who")

    def __init__(self, log: AuditLog, who: str, tag: Tag, *, content: bool) -> None:
        self._log = log
        self._who = who
        self._tag = tag
        self._content = content
        self._request = _NO_REQUEST
        self._metadata: Mapping[str, str] = {}
        self._streamed = True

    def begin(self, call: Call, request: Request) -> None:
        """Keep what the record needs of the request."""
        del call
        self._who = request.end_user_id or self._who or _user()
        self._streamed = request.stream
        self._metadata = request.metadata
        if self._content:
            self._request = request
        if not isinstance(self._tag, str):
            tag_of, self._tag = self._tag, ""
            self._tag = str(tag_of(request))

    def end(self, call: Call) -> None:
        """Write the record."""
        response = call.response
        record = AuditRecord(
            id=uuid.uuid4().hex,
            began=dt.datetime.fromtimestamp(call.began_ns / 1e9, dt.UTC),
            outcome=call.ending or "abandoned",
            who=self._who,
            host=_host(),
            pid=os.getpid(),
            tag=self._tag if isinstance(self._tag, str) else "",
            metadata=self._metadata,
            streamed=self._streamed,
            **_timed(call),
            **_answered(call, response),
            **_billed(call.cost, response.usage),
            **_failed(call.error, content=self._content),
        )
        self._log.write(self._with_content(record, response) if self._content else record)

    def _with_content(self, record: AuditRecord, response: Response) -> AuditRecord:
        request = self._request
        return replace(record, system=request.system, prompt=request.messages, answer=response.message)


# --- parts of a record ---------------------------------------------------------------------------


class _Timed(TypedDict):
    first_event_s: float | None
    total_s: float
    deltas: int
    resets: int
    attempts: tuple[AuditAttempt, ...]


def _timed(call: Call) -> _Timed:
    first_s = call.first_event_s
    attempts = call.attempts
    return _Timed(
        first_event_s=None if first_s is None else round(first_s, _DECIMALS),
        total_s=round(call.total_s, _DECIMALS),
        deltas=call.deltas,
        resets=call.resets,
        attempts=tuple(AuditAttempt(provider=each[0], model=each[1], outcome=each[2]) for each in attempts),
    )


class _Answered(TypedDict):
    provider: str
    model: str
    requested: str
    request_id: str
    response_id: str
    stop: str
    text_chars: int
    reasoning_chars: int
    tool_calls: tuple[str, ...]


def _answered(call: Call, response: Response) -> _Answered:
    requested = call.requested
    return _Answered(
        provider=call.provider,
        model=call.model,
        requested=f"{requested.provider}:{requested.model}".strip(":"),
        request_id=response.request_id or (call.error.request_id if call.error else ""),
        response_id=response.response_id,
        stop=response.stop.reason if response.stop else "",
        text_chars=len(response.text),
        reasoning_chars=len(response.reasoning),
        tool_calls=tuple(each.name for each in response.tool_calls),
    )


class _Billed(TypedDict):
    usage: AuditUsage | None
    cost_usd: Decimal | None
    lower_usd: Decimal | None
    upper_usd: Decimal | None
    cost_exact: bool


def _billed(cost: Cost, usage: Usage | None) -> _Billed:
    return _Billed(
        usage=None if usage is None else AuditUsage(**{name: getattr(usage, name) for name in _COUNTS}),
        cost_usd=cost.amount_usd,
        lower_usd=cost.lower_usd,
        upper_usd=cost.upper_usd,
        cost_exact=cost.exact,
    )


class _Failed(TypedDict):
    error: str
    error_message: str
    status: int


def _failed(error: LoomstreamError | None, *, content: bool) -> _Failed:
    if error is None:
        return _Failed(error="", error_message="", status=0)
    return _Failed(
        error=type(error).__name__,
        error_message=str(error) if content else own_words(error),
        status=error.status if isinstance(error, ProviderError) else 0,
    )


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a user without a name
        return ""


@cache
def _host() -> str:
    return platform.node()
