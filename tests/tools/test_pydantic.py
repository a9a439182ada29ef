"""Pydantic's models as parameters and results, and what is merely shaped like them."""

from __future__ import annotations

from typing import Any

import pytest

from loomstream import errors, tool
from loomstream.messages import ToolCall

pydantic = pytest.importorskip("pydantic", reason="NOT TESTED: pydantic is missing; to test it: pip install '.[test]'")


class Zip(pydantic.BaseModel):  # type: ignore[misc]
    code: int


class Address(pydantic.BaseModel):  # type: ignore[misc]
    street: str
    zip: Zip


def send(to: Address, copy: Address | None = None) -> Address:  # noqa: ARG001 (the model is told)
    """Send it."""
    assert isinstance(to, Address)
    return to


def test_its_schema_stands_in_the_tools_own() -> None:
    parameters: Any = tool(send).parameters
    assert parameters["properties"]["to"]["properties"]["zip"] == {"$ref": "#/$defs/Zip"}
    assert list(parameters["$defs"]) == ["Zip"]
    assert parameters["required"] == ["to"]


@pytest.mark.anyio
async def test_it_is_decoded_and_given_back() -> None:
    arguments = '{"to":{"street":"a","zip":{"code":7}}}'
    assert tool(send).decode(arguments) == {"to": Address(street="a", zip=Zip(code=7))}
    answer: Any = await tool(send).answer(ToolCall("1", "send", arguments))
    assert answer.content[0].content[0].text == '{"street":"a","zip":{"code":7}}'
    assert not answer.content[0].is_error


def test_what_it_refuses_is_one_line() -> None:
    with pytest.raises(errors.InvalidArguments) as caught:
        tool(send).decode('{"to":{"zip":{"code":"x"}}}')
    text = str(caught.value)
    assert text.startswith("send: $.to: street: Field required; zip.code: ")
    assert "\n" not in text
    assert "http" not in text


def test_two_types_of_one_name() -> None:
    other = pydantic.create_model("Address", zip=(pydantic.create_model("Zip", letters=(str, ...)), ...))

    def both(first: Address, second: Any) -> None: ...  # noqa: ANN401 (replaced below)

    both.__annotations__["second"] = other
    with pytest.raises(errors.RequestError, match=r"both: .*two types are called Zip: rename one"):
        tool(both)


class Shaped:
    """Has the methods, and an error of the plain kind."""

    @classmethod
    def model_json_schema(cls, ref_template: str) -> dict[str, object]:
        assert ref_template == "#/$defs/{model}"
        return {"type": "string"}

    @classmethod
    def model_validate_json(cls, data: bytes) -> Shaped:
        msg = f"no {data.decode()}"
        raise ValueError(msg)


def test_what_is_shaped_like_a_model_is_one() -> None:
    def take(thing: Shaped) -> None: ...

    assert tool(take).parameters["properties"] == {"thing": {"type": "string"}}
    with pytest.raises(errors.InvalidArguments, match=r'take: \$.thing: no "a"'):
        tool(take).decode('{"thing":"a"}')
