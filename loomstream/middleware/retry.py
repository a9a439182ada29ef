"""Retry: the same request again, while nothing of an answer has reached the consumer.

Contract: what may be sent again is what its error says (`retry_safety`); after the first content event nothing is, but
by `resume` (see `loomstream.middleware.resume`). The waits and stops are tenacity's, with full jitter by default; what
the provider asks for by `retry_after_s` is their floor. A wait never passes the request's deadline. A `RetryBudget`,
shared by all calls of a model, keeps an outage from being amplified. Each wait is told by a `Notice`, each try stands
in the error's `attempts`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING

from loomstream.errors import ConfigError, LoomstreamError
from loomstream.events import Event, Notice
from loomstream.handler import Handler, Middleware
from loomstream.messages import Request
from loomstream.middleware.attempts import Attempts, Next
from loomstream.middleware.cost import may_be_billed
from loomstream.middleware.resume import Resume, resumed
from loomstream.middleware.store import loop_time
from loomstream.numerals import is_number

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.stop import StopBaseT
    from tenacity.wait import WaitBaseT

DEFAULT_MAX_RETRIES = 2
LONGEST_WAIT_S = 120.0
"""Where a provider asks for a longer wait than this, in seconds, its error is raised instead."""

FIRST_WAIT_S = 0.5
_WIDEST_WAIT_S = 8.0
_ACTS = ("background", "store")
"""Keys of `extra_body` by which a request leaves something behind at the provider: it is repeated only where safe."""


class RetryBudget:
    """How many retries all calls together may make: `ratio` for each call, and `free` ones that are saved up at first.

    So an outage that fails every call sends at most `1 + ratio` requests a call, and `free` more: by default no more
    than 1.2 a call, once there are a thousand. Share one among the models that fail together. Raises `ConfigError` for
    a negative number.
    """

    __slots__ = ("_left", "_most", "_ratio")

    def __init__(self, ratio: float = 0.19, free: float = 10.0) -> None:
        if not (is_number(ratio) and is_number(free) and ratio >= 0 and free >= 0):
            msg = f"RetryBudget(ratio={ratio!r}, free={free!r}): give finite numbers of at least 0"
            raise ConfigError(msg)
        self._ratio = ratio
        self._most = max(free, 1.0)
        self._left = free

    @property
    def left(self) -> float:
        """How many retries may follow at this moment."""
        return self._left

    def call(self) -> None:
        """Count a call."""
        self._left = min(self._left + self._ratio, self._most)

    def take(self) -> bool:
        """Take a retry out of the budget; False where none is left."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


def retry(
    max_retries: int = DEFAULT_MAX_RETRIES,
    *,
    backoff_s: float = FIRST_WAIT_S,
    wait: WaitBaseT | None = None,
    stop: StopBaseT | None = None,
    longest_wait_s: float = LONGEST_WAIT_S,
    budget: RetryBudget | None = None,
    resume: Resume = "off",
) -> Middleware:
    """Give the middleware that sends a request again where its error allows.

    `max_retries` tries follow the first one (0: none). They wait with full jitter: up to `backoff_s` seconds at first,
    then twice as long each time, up to 8 s or `backoff_s`, whichever is longer; `wait` takes the place of that. `wait`
    and `stop` are tenacity's (default: no other stop). `longest_wait_s` is the longest wait, in seconds, that a
    provider may ask for. `budget` defaults to one of its own for each middleware. `resume` says what follows an answer
    that broke in its middle: `off` (its error is raised), `prefill`, `prompt` or `restart`.

    Raises `ConfigError` for a negative or unknown value.
    """
    numbers = {"max_retries": max_retries, "backoff_s": backoff_s, "longest_wait_s": longest_wait_s}
    for name, number in numbers.items():
        if not (is_number(number, infinite=name != "backoff_s") and number >= 0):
            msg = f"retry({name}={number!r}): give a number of at least 0"
            raise ConfigError(msg)
    policy = _Policy(max_retries, backoff_s, wait, stop, longest_wait_s, budget or RetryBudget(), resume == "off")

    resuming = resumed(resume, policy.may_resume)

    def wrap(handler: Handler) -> Handler:
        tries = resuming(partial(_Retried, policy, handler))

        def retrying(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            policy.budget.call()  # once, however often the answer is resumed
            return tries(request)

        return retrying

    return wrap


class _Policy:
    """What all calls of one middleware share."""

    def __init__(
        self,
        max_retries: int,
        backoff_s: float,
        wait: WaitBaseT | None,
        stop: StopBaseT | None,
        longest_wait_s: float,
        budget: RetryBudget,
        passes: bool,  # noqa: FBT001 (this module's own)
    ) -> None:
        self.max_retries = max_retries
        self.stop = stop
        self.longest_wait_s = longest_wait_s
        self.budget = budget
        self.passes = passes
        """Whether nobody asks which attempt it was that broke after its first content."""
        self._backoff_s = backoff_s
        self._wait = wait

    def may_resume(self, request: Request, error: LoomstreamError, passed_s: float) -> float | None:
        """Give the pause before an answer that broke goes on: what the provider asks for; None where it must not."""
        delay_s = error.retry_after_s or 0.0
        total_s = request.timeouts.total_s
        too_late = total_s is not None and passed_s + delay_s >= total_s
        if too_late or delay_s > self.longest_wait_s or not _may_repeat(request, error) or not self.budget.take():
            return None
        return delay_s

    @property
    def wait(self) -> WaitBaseT:
        """The waits; tenacity is loaded at the first failure, because that takes longer than loading all of this."""
        if self._wait is None:
            from tenacity import wait_random_exponential  # noqa: PLC0415 (see above)

            self._wait = wait_random_exponential(multiplier=self._backoff_s, max=max(_WIDEST_WAIT_S, self._backoff_s))
        return self._wait


def _may_repeat(request: Request, error: LoomstreamError) -> bool:
    if error.retry_safety == "maybe":
        return not any(request.extra_body.get(key) for key in _ACTS)
    return error.retry_safety == "yes"


class _Retried(Attempts):
    """The tries of one call."""

    __slots__ = ("_began_s", "_policy", "_tries")

    def __init__(self, policy: _Policy, handler: Handler, request: Request) -> None:
        super().__init__(handler, request, passes=policy.passes)
        self._policy = policy
        self._tries = 1
        self._began_s = loop_time()

    async def choose(self, error: LoomstreamError | None) -> Next | None:
        """Give the try that follows an error."""
        if error is None:  # pragma: no cover (the first try is known)
            return None
        self._tries += 1
        if self._tries > self._policy.max_retries + 1 or not _may_repeat(self._request, error):
            return None
        state = _state(self._tries - 1, loop_time() - self._began_s, error)
        if self._policy.stop is not None and self._policy.stop(state):
            return None
        delay_s = max(float(self._policy.wait(state)), error.retry_after_s or 0.0)
        refusal = self._refusal(error, delay_s)
        if refusal:
            error.add_note(refusal)
            return None
        words = f"try {self._tries - 1} failed ({type(error).__name__}: {error}); the next one in {delay_s:.3g} s"
        notice = Notice("retry", words, may_be_billed(error), error.last_attempt)
        return Next(self._handler, self._request, (notice,), delay_s)

    def _refusal(self, error: LoomstreamError, delay_s: float) -> str:
        """Say why no try follows this error, though it might; an empty text: one does."""
        if (error.retry_after_s or 0.0) > self._policy.longest_wait_s:
            return f"not tried again: {error.retry_after_s:g} s is longer than longest_wait_s"
        total_s = self._request.timeouts.total_s
        if total_s is not None and loop_time() + delay_s >= self._began_s + total_s:
            return f"not tried again: after another {delay_s:.3g} s the limit of {total_s:g} s in all would be over"
        if not self._policy.budget.take():
            return "not tried again: the retry budget is spent; too many calls fail at once"
        return ""


def _state(tries: int, passed_s: float, error: LoomstreamError) -> RetryCallState:
    """Give what tenacity's waits and stops look at, on the event loop's clock."""
    from tenacity import AsyncRetrying, Future, RetryCallState  # noqa: PLC0415 (see `_Policy.wait`)

    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = tries
    state.start_time = 0.0
    state.outcome_timestamp = passed_s
    state.outcome = Future.construct(tries, error, has_exception=True)
    return state
