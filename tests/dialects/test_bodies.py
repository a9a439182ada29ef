import msgspec
import pytest

from loomstream.dialects.bodies import arguments_of, compact, encode_body, frozen, members, merge
from loomstream.errors import RequestError


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{ "a" : 1.50 ,\n"b":[ 1e3, true ] }', '{"a":1.50,"b":[1e3,true]}'),
        (b'"a  b"', '"a  b"'),
        (b'{"a \\" b": "c\\\\"}', '{"a \\" b":"c\\\\"}'),
        (b"12345678901234567890", "12345678901234567890"),
    ],
)
def test_compact_keeps_everything_but_space(raw: bytes, expected: str) -> None:
    assert compact(msgspec.Raw(raw)) == expected
    assert bytes(frozen(msgspec.Raw(raw))) == expected.encode()


def test_members() -> None:
    found = members(msgspec.Raw(b'{"a": [1, 2], "b": 1.50}'))
    assert {name: bytes(raw) for name, raw in found.items()} == {"a": b"[1,2]", "b": b"1.50"}
    assert members(msgspec.Raw(b"[1]")) == {}


@pytest.mark.parametrize(
    ("text", "expected"), [("", b"{}"), ("  ", b"{}"), ('{"x": 1.0}', b'{"x": 1.0}'), ("[1]", None), ('{"x', None)]
)
def test_arguments(text: str, expected: bytes | None) -> None:
    raw = arguments_of(text)
    assert (None if raw is None else bytes(raw)) == expected


def test_merge_goes_into_objects_and_replaces_the_rest() -> None:
    body = {"options": {"seed": 1, "stop": ["a"]}, "model": "m", "tools": [1]}
    extra = {"options": {"num_ctx": 8, "stop": ["b"]}, "tools": {"x": 1}, "new": None}
    assert merge(body, extra) == {
        "options": {"seed": 1, "stop": ["b"], "num_ctx": 8},
        "model": "m",
        "tools": {"x": 1},
        "new": None,
    }
    assert body["options"] == {"seed": 1, "stop": ["a"]}


@pytest.mark.parametrize("value", [object(), "\ud800", {("a", 1): 2}])
def test_what_is_no_json_is_a_request_error(value: object) -> None:
    with pytest.raises(RequestError, match="cannot be written as JSON"):
        encode_body({}, {"x": value})


def test_a_value_that_holds_itself_is_a_request_error() -> None:
    loop: dict[str, object] = {}
    loop["x"] = loop
    with pytest.raises(RequestError, match="cannot be written as JSON"):
        encode_body(loop, {})
