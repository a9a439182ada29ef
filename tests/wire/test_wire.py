"""The values of the wire: a credential that nothing shows, frames and requests."""

import copy
import pickle

import msgspec
import pytest

from loomstream.wire import Frame, Secret, WireRequest

KEY = "sk-canary-123"


def test_a_secret_shows_itself_only_on_request() -> None:
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>20}",
        f"{secret!r}",
        repr({"key": secret}),
        str([secret]),
    ]
    assert not any(KEY in text for text in shown)
    request = WireRequest(url="https://example.com", headers={"x-api-key": secret})
    assert KEY not in repr(request)
    with pytest.raises(TypeError, match="Secret"):
        msgspec.json.encode(request)


def test_a_secret_cannot_be_pickled_and_is_not_copied_out() -> None:
    secret = Secret(KEY)
    with pytest.raises(TypeError, match="a Secret cannot be pickled"):
        pickle.dumps(secret)
    assert copy.deepcopy({"key": secret})["key"] is secret
    assert not hasattr(secret, "__dict__")


def test_secrets_compare_by_value_and_do_not_hash_by_it() -> None:
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret("other")
    assert Secret(KEY) != KEY
    assert hash(Secret(KEY)) == hash(Secret("other"))
    assert Secret(KEY)
    assert not Secret("")


def test_frames_and_requests_are_values() -> None:
    assert Frame("a", b"1") == Frame("a", b"1", None)
    request = WireRequest(url="https://example.com", headers={})
    assert (request.method, request.body) == ("POST", b"")
