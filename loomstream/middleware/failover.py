"""Failover: several handlers as one; where one fails before its first content, the next one answers.

Contract: a combinator of handlers. The consumer sees one clean stream: what a failed candidate had sent without
content is dropped, a `failover` notice says who failed, why, and who is next. After the first content the error is
raised, but by `resume` (see `loomstream.middleware.resume`). The last error names all attempts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager

from loomstream.errors import (
    BadRequest,
    BudgetExceeded,
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    LoomstreamError,
    RequestError,
    StreamCancelled,
    UsageError,
)
from loomstream.events import Event, Notice
from loomstream.messages import Request
from loomstream.middleware.attempts import Next, attempts
from loomstream.middleware.candidates import Candidate, Placed, all_places, checked
from loomstream.middleware.cost import may_be_billed
from loomstream.middleware.resume import Resume, resumed

NOT_ELSEWHERE: tuple[type[LoomstreamError], ...] = (
    BadRequest,
    ContextTooLong,
    ContentFiltered,
    RequestError,
    UsageError,
    StreamCancelled,
    BudgetExceeded,
    DeadlineExceeded,
)
"""What another provider would refuse as well, or what is the caller's own limit."""


When = Callable[[LoomstreamError], bool]
"""Whether the next candidate is asked after this error."""


def elsewhere(error: LoomstreamError) -> bool:
    """Say whether another provider may do better; the default of `failover`."""
    return not isinstance(error, NOT_ELSEWHERE)


def failover(
    candidates: Sequence[Candidate],
    *,
    when: When = elsewhere,
    resume: Resume = "off",
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
) -> Placed:
    """Give the handler that asks the candidates in order until one begins to answer.

    Each is asked once; wrap it in `retry` for more. `when` decides by the error whether the next one is asked (default:
    unless it would be refused everywhere, or is a limit of your own). `resume` says what follows an answer that broke
    in its middle, from the first candidate on again.

    Raises `ConfigError` where there are no candidates, two of one name, or one that may send elsewhere than to
    `allowed_providers` and `allowed_regions` (see `loomstream.middleware.candidates`).
    """
    chain = checked(candidates, "failover", allowed_providers=allowed_providers, allowed_regions=allowed_regions)

    def failing_over(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return in_turn(chain, request, when)

    return Placed(resumed(resume)(failing_over), all_places(chain))


def in_turn(
    chain: Sequence[Candidate], request: Request, when: When, *notices: Notice
) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
    """Give the events of the first candidate that begins to answer, after these notices."""
    return attempts(_Call(chain, when, request, notices).choose)


class _Call:
    def __init__(self, chain: Sequence[Candidate], when: When, request: Request, notices: tuple[Notice, ...]) -> None:
        self._chain = chain
        self._when = when
        self._request = request
        self._notices = notices
        self._position = -1

    async def choose(self, error: LoomstreamError | None) -> Next | None:
        """Give the first candidate, or the one that follows an error."""
        if error is not None and not self._when(error):
            return None
        self._position += 1
        if self._position == len(self._chain):
            return None
        chosen = self._chain[self._position]
        if error is None:
            return Next(chosen.handler, self._request, self._notices, 0.0, chosen.provider, chosen.model)
        failed = self._chain[self._position - 1].name
        words = f"{failed} failed ({type(error).__name__}: {error}); {chosen.name} is asked"
        notice = Notice("failover", words, may_be_billed(error), error.last_attempt)
        return Next(chosen.handler, self._request, (notice,), 0.0, chosen.provider, chosen.model)
