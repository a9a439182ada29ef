"""What vendors' credential libraries raise, in our words: which setting to change.

Contract: no text of such an error is shown unless it is known to hold names only (`quoted`): others quote what a
credential service answered. The error itself is not kept either, for its frames hold secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from loomstream.errors import ConfigError, LoomstreamError


class Problem(NamedTuple):
    """What an error means. `quoted`: its text holds names only, and may be shown."""

    kind: type[LoomstreamError]
    advice: str
    quoted: bool = False


Problems = Mapping[str, Problem]
"""The names of error classes, or a service's own codes, to what they mean."""


def translated(error: BaseException, problem: Problem, *, provider: str, code: str = "") -> LoomstreamError:
    """Give our error for a vendor's; `code` is what the service called it."""
    name = type(error).__name__ + (f" {code}" if code else "")
    text = f": {error}".rstrip(".") if problem.quoted else ""
    return problem.kind(f"no credential for {provider} ({name}{text}): {problem.advice}", provider=provider)


def by_class(error: BaseException, problems: Problems) -> Problem | None:
    """Give the problem of an error's class, or of the nearest one that it derives from."""
    return next((problems[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in problems), None)


def quieten(package: str) -> None:
    """Keep what a vendor's library logs off standard error where the program has set up no logging of its own."""
    logger = logging.getLogger(package)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


@contextmanager
def needing(extra: str, provider: str) -> Generator[None]:
    """Import a vendor's library in here; where it is missing, the `ConfigError` says how to install it."""
    try:
        yield
    except ImportError as error:
        msg = (
            f"{provider}: no key was found (`looms providers {provider}` says where one is looked for), and what else "
            f"it takes needs a package that is missing ({error.name}): give a key, or run pip install "
            f"'loomstream[{extra}]'"
        )
        raise ConfigError(msg, provider=provider) from None
