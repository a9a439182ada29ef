"""The hierarchy is what its docstring draws; every error survives pickling and says what may be repeated."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from loomstream import errors
from loomstream.accumulate import fold
from loomstream.errors import Attempt, LoomstreamError, ProviderError, ServerFault
from loomstream.events import Usage
from loomstream.testing import text_events

_BRANCH = re.compile(r"^ {4}(?P<depth>(?:[│ ] {3})*)[├└]── (?P<name>\w+)", re.MULTILINE)


def drawn() -> list[tuple[str, str]]:
    """Give (class, its parent) for each line of the tree."""
    path = ["LoomstreamError"]
    found: list[tuple[str, str]] = []
    for match in _BRANCH.finditer(str(errors.__doc__)):
        depth = len(match["depth"]) // 4
        del path[depth + 1 :]
        found.append((match["name"], path[-1]))
        path.append(match["name"])
    return found


TREE = drawn()
CLASSES: list[type[LoomstreamError]] = [LoomstreamError, *(getattr(errors, name) for name, _ in TREE)]
each_class = pytest.mark.parametrize("cls", CLASSES, ids=[cls.__name__ for cls in CLASSES])

SAFE = {"ConnectFailed", "ConnectTimeout", "RateLimited", "Overloaded", "CircuitOpen", "QueueFull"}
UNCLEAR = {
    "TransportError",
    "ConnectionLost",
    "Timeout",
    "FirstEventTimeout",
    "IdleTimeout",
    "WireError",
    "BadFrame",
    "ChecksumMismatch",
    "UnexpectedContent",
    "InvalidOutput",
    "StreamTruncated",
    "ServerFault",
}


@pytest.mark.parametrize(("name", "parent"), TREE)
def test_the_tree_is_as_drawn(name: str, parent: str) -> None:
    cls = getattr(errors, name)
    assert issubclass(cls, getattr(errors, parent))
    siblings = {other for other, above in TREE if above == parent and other != name}
    inherited = {base.__name__ for base in cls.__mro__[1:]} & siblings
    assert inherited <= {"BadRequest"}, "only ContextTooLong is a kind of one of its siblings"


def test_the_tree_is_whole() -> None:
    made = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, LoomstreamError)
    }
    assert made == {name for name, _ in TREE} | {"LoomstreamError"}
    assert len(TREE) == len(set(TREE)) == 40


def test_every_error_is_documented() -> None:
    assert all(cls.__doc__ and cls.__doc__.strip() for cls in CLASSES)


@each_class
def test_a_fresh_error_says_nothing_that_nobody_told_it(cls: type[LoomstreamError]) -> None:
    error = cls("what happened")
    assert str(error) == error.message == "what happened"
    assert (error.provider, error.model, error.request_id) == ("", "", "")
    assert (error.retry_after_s, error.partial, error.usage) == (None, None, None)
    assert (error.attempts, error.committed) == ((), False)


@each_class
def test_retry_safety_has_a_default_that_can_be_overruled(cls: type[LoomstreamError]) -> None:
    expected = "yes" if cls.__name__ in SAFE else "maybe" if cls.__name__ in UNCLEAR else "no"
    assert cls.default_retry_safety == expected
    assert cls("x").retry_safety == expected
    for chosen in ("yes", "no", "maybe"):
        assert cls("x", retry_safety=chosen).retry_safety == chosen


@each_class
@pytest.mark.parametrize("copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])  # noqa: S301 (our own bytes)
def test_every_error_can_be_pickled_and_copied(cls: type[LoomstreamError], copied: object) -> None:
    error = cls("text", provider="p", model="m", request_id="r", retry_safety="maybe", retry_after_s=1.5)
    error.partial = fold(text_events("a", "b"))
    error.usage = Usage(output_tokens=2)
    error.attempts = (Attempt("p", "m", cls.__name__, 1.5),)
    error.committed = True
    assert callable(copied)
    twin = copied(error)
    assert type(twin) is cls
    assert str(twin) == "text"
    assert vars(twin) == vars(error)


def test_a_provider_s_error_says_what_the_provider_said() -> None:
    error = ServerFault("no", status=503, code="overloaded", body="<html>", provider="p", request_id="r")
    assert (error.status, error.code, error.body, error.provider, error.request_id) == (
        503,
        "overloaded",
        "<html>",
        "p",
        "r",
    )
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
    assert (twin.status, twin.code, twin.body) == (503, "overloaded", "<html>")


def test_a_provider_s_error_without_details_has_none() -> None:
    error = ProviderError("no")
    assert (error.status, error.code, error.body) == (0, "", "")


# --- credentials -----------------------------------------------------------------------------------


KEY = "sk-proj/abcdefghijklmnop"
"""A made-up credential."""


def test_an_echoed_credential_is_taken_out_of_all_that_an_error_says() -> None:
    error = ServerFault(f"who is {KEY}?", status=401, code=KEY, body=f'{{"key":"{KEY}"}}', request_id=f"r-{KEY}")
    assert error.redact(KEY) is error
    assert (str(error), error.code, error.body, error.request_id) == ("who is …?", "…", '{"key":"…"}', "r-…")
    assert error.status == 401
    assert KEY.encode() not in pickle.dumps(error)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (f"Bearer {KEY}", "Bearer …"),
        (f"{KEY}{KEY}", "……"),
        (f"cut: '{KEY[:20]}…", "cut: '……"),
        (f"cut: '{KEY[:8]}", "cut: '…"),
        (f"too short: {KEY[:7]}", f"too short: {KEY[:7]}"),
        ("sk-proj/other", "…other"),
        (KEY.replace("/", r"\/"), "…"),
        (repr(KEY.replace("/", r"\/")), "'…'"),
        (KEY.replace("/", r"\/")[:15], "…"),
        ("nothing", "nothing"),
    ],
)
def test_an_escaped_or_cut_credential_is_taken_out_too(said: str, left: str) -> None:
    assert str(ServerFault(said).redact(KEY)) == left


def test_a_slash_behind_the_beginning_may_be_escaped_too() -> None:
    key = "sk-abcdefg/hi/jk"
    assert str(ServerFault(key.replace("/", r"\/") + " " + key.replace("/", r"\\/")[:14]).redact(key)) == "… …"


def test_a_message_that_is_no_text_is_left_alone() -> None:
    assert ServerFault(404).redact(KEY).args == (404,)  # type: ignore[arg-type]


def test_a_credential_that_holds_its_own_beginning_leaves_no_rest() -> None:
    assert str(ServerFault("is abcdefghQabcdefghR!").redact("abcdefghQabcdefghR")) == "is …!"


@pytest.mark.parametrize("key", ["", "x", "e", "ollama", "maybe", "openai", "1234567"])
def test_a_short_credential_is_part_of_other_words(key: str) -> None:
    error = ServerFault("maybe ollama 1234567", provider="ollama", model="openai", code="1234567")
    before = dict(vars(error))
    assert str(error.redact(key)) == "maybe ollama 1234567"
    assert vars(error) == before


def test_what_the_peer_cannot_have_said_stays() -> None:
    error = ServerFault("no", provider="provider-name", model="provider-name", retry_safety="maybe")
    error.redact("provider-name")
    assert (error.provider, error.model, error.retry_safety) == ("provider-name", "provider-name", "maybe")
