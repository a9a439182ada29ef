"""What to do next, in the words of the command line.

Contract: three tables, no conditions. `_WORDS` turns the library's advice into options. `_HINTS` adds what an error's
own sentence does not say: it is looked up by command and, like an exit code, by the nearest class among the error's
ancestors. `_USAGE_HINTS` does the same for click's sentences about arguments.
"""

from __future__ import annotations

import re

from msgspec import Struct

from loomstream import errors

_AGAIN = "ask again later"

_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"pass timeouts=Timeouts\((?:first_event|idle|whole)_s=([\d.]+)\)"), r"give --timeout \1"),
    (re.compile(r"Timeouts\(total_s=…\)"), "--total-timeout S"),
    (re.compile(r": raise timeouts=Timeouts\(connect_s=…\)"), ""),
    (re.compile(r"\bwrite [\w.-]+:MODEL-ID\b"), "add --model MODEL"),
    (re.compile(r"\bbase_url='(\S+)'"), r"--base-url \1"),
    (re.compile(r"\bwith base_url="), "with --base-url"),
    (re.compile(r"\bset base_url to\b"), "set --base-url to"),
    (re.compile(r"\bpass settings=\{'(\w+)': '…'\}"), r"pass --set \1=…"),
    (re.compile(r"\ballow_http=True\b"), "--allow-http"),
    (re.compile(r"\bname one, as in connect\('([^']+)'\)"), r"name one, as in --provider \1"),
    (re.compile(r", (run `looms [^`]+`) or pass api_key=…"), r" or \1"),
    (re.compile(r"(set \w+(?: \(or [^)]+\))?) or pass api_key=…"), r"\1"),
    (re.compile(r"\bpass (?:them|it) as api_key=, not inside the URL"), "leave them out of the URL"),
    (re.compile(r"\bpass ca_bundle= or set SSL_CERT_FILE\b"), "set SSL_CERT_FILE"),
    (re.compile(r"leave it out of extra_headers"), "leave it out"),
)
"""What the library's errors call an argument, and what it is called here."""


class _Hint(Struct, frozen=True):
    """What to do; `saying` is the part of the error's sentence that calls for it."""

    text: str
    saying: str = ""


_HINTS: dict[str, dict[type[BaseException], tuple[_Hint, ...]]] = {
    "ask": {
        errors.MissingKey: (_Hint("`looms providers` shows where keys are looked for"),),
        errors.AuthFailed: (_Hint("check the key; `looms providers` shows where it comes from"),),
        errors.ModelNotFound: (
            _Hint("check --base-url", saying="HTML"),
            _Hint("check --model"),
        ),
        errors.ContextTooLong: (_Hint("shorten the prompt"),),
        errors.RateLimited: (_Hint(_AGAIN),),
        errors.QuotaExhausted: (_Hint("add credit, or use another provider"),),
        errors.Overloaded: (_Hint(_AGAIN),),
        errors.ServerFault: (_Hint(_AGAIN),),
        errors.ConnectionLost: (_Hint("ask again"),),
        errors.StreamTruncated: (_Hint("the answer is not whole: ask again"),),
    },
    "decode": {
        errors.StreamTruncated: (_Hint("the capture is not whole, or --provider/--dialect is wrong"),),
        errors.BadFrame: (_Hint("the capture is damaged, or --provider/--dialect is wrong"),),
        errors.UnexpectedContent: (_Hint("check --content-type, --provider and --dialect"),),
    },
}

_USAGE_HINTS: dict[str, tuple[_Hint, ...]] = {
    "ask": (_Hint("put the prompt in quotes", saying="unexpected extra argument"),),
    "chat": (_Hint("type what you say in the chat, or pipe it in", saying="unexpected extra argument"),),
}


_HINTS["chat"] = _HINTS["ask"]


def with_hint(error: errors.LoomstreamError, command: str | None = "ask") -> str:
    """Give an error's sentence in the words of the command line, with the hint for its kind."""
    sentence = in_our_words(str(error))
    table = _HINTS.get(command or "", {})
    kind = next((ancestor for ancestor in type(error).__mro__ if ancestor in table), None)
    hint = "" if kind is None else _matching(table[kind], sentence)
    if hint == _AGAIN and error.retry_after_s is not None:
        hint = f"ask again in {error.retry_after_s:g} s"
    return f"{sentence} ({hint})" if hint else sentence


def usage_hint(message: str, command: str | None) -> str:
    """Give what to do about a sentence of click's, or nothing."""
    return _matching(_USAGE_HINTS.get(command or "", ()), message)


def in_our_words(sentence: str) -> str:
    """Give a sentence of the library's with the command line's words for its arguments."""
    for pattern, words in _WORDS:
        sentence = pattern.sub(words, sentence)
    return sentence


def _matching(hints: tuple[_Hint, ...], sentence: str) -> str:
    return next((hint.text for hint in hints if hint.saying in sentence), "")
