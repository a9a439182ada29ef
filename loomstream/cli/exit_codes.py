"""THE table of exit codes, by class of error.

Contract: an error's code is that of the nearest class among its ancestors. docs/cli.md shows the same table; a test
compares them.
"""

from __future__ import annotations

from loomstream import errors
from loomstream.cli.interrupt import INTERRUPTED

OK = 0
OTHER = 1
USAGE = 2
CLOSED_PIPE = 141
TERMINATED = 143

_CODES: dict[type[BaseException], int] = {
    Exception: OTHER,
    errors.UsageError: USAGE,
    errors.RequestError: USAGE,
    errors.ConfigError: 3,
    errors.AuthFailed: 4,
    errors.ProviderError: 5,
    errors.RateLimited: 6,
    errors.QuotaExhausted: 6,
    errors.Overloaded: 6,
    errors.ServerFault: 6,
    errors.TransportError: 7,
    errors.Timeout: 7,
    errors.StreamTruncated: 8,
    errors.WireError: 8,
    errors.InvalidOutput: 8,
}

MEANINGS: dict[int, str] = {
    OK: "the answer is whole",
    OTHER: "another error",
    USAGE: "wrong arguments, or a request that cannot be sent",
    3: "configuration: no key, unknown provider, missing extra",
    4: "the key was refused",
    5: "the provider refused the request",
    6: "the provider cannot answer now: rate, quota, load, fault",
    7: "network: not reached, connection lost, time limit",
    8: "broken answer: cut off, not readable, or not of the form that was asked for",
    INTERRUPTED: "interrupted (Ctrl-C)",
    CLOSED_PIPE: "whoever read the output has closed it",
    TERMINATED: "terminated (SIGTERM)",
}
"""What each exit code means."""


def exit_code(error: BaseException) -> int:
    """Give the exit code of an error."""
    return next(_CODES[ancestor] for ancestor in type(error).__mro__ if ancestor in _CODES)
