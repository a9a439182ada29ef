"""What to do next, in the words of the command line, where an error's own sentence does not say it.

Contract: a hint is looked up like an exit code, by the nearest class among the error's ancestors.
"""

from __future__ import annotations

from loomstream import errors

_AGAIN = "ask again later"

_HINTS: dict[type[BaseException], str] = {
    errors.MissingKey: "`looms providers` shows where keys are looked for",
    errors.AuthFailed: "check the key; `looms providers` shows where it comes from",
    errors.ModelNotFound: "check --model",
    errors.ContextTooLong: "shorten the prompt",
    errors.RateLimited: _AGAIN,
    errors.QuotaExhausted: "add credit, or use another provider",
    errors.Overloaded: _AGAIN,
    errors.ServerFault: _AGAIN,
    errors.FirstEventTimeout: "--timeout S sets the limit",
    errors.IdleTimeout: "--timeout S sets the limit",
    errors.DeadlineExceeded: "--total-timeout S sets the limit",
    errors.ConnectionLost: "ask again",
    errors.StreamTruncated: "the answer is not whole: ask again",
}


def with_hint(error: errors.LoomstreamError) -> str:
    """Give an error's sentence, with the hint for its kind."""
    hint = next((_HINTS[ancestor] for ancestor in type(error).__mro__ if ancestor in _HINTS), "")
    if hint == _AGAIN and error.retry_after_s is not None:
        hint = f"ask again in {error.retry_after_s:g} s"
    return f"{error} ({hint})" if hint else str(error)
