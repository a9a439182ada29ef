"""Answers of types: what is asked for, values while they come, the whole one checked, one repair."""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import pytest
from msgspec import UNSET, Meta, Struct, UnsetType

import loomstream as ls
from loomstream.errors import InvalidOutput, RequestError, UsageError
from loomstream.events import Event, Notice, RefusalDelta, Start, Stop, StopReason, TextDelta, TextEnd, TextStart
from loomstream.messages import Output, RequestOptions, Response
from loomstream.testing import scripted_model, text_events, tool_call_events
from loomstream.tools.outputs import Expected, Partial, whole, with_output
from loomstream.wire.json import MAX_DEPTH


class Step(Struct):
    do: str
    minutes: Annotated[int, Meta(ge=0)] = 0


class Recipe(Struct):
    """A recipe for one dish.

    With all its steps.
    """

    title: str
    steps: list[Step] = []
    note: str | UnsetType = UNSET


class Node(Struct):
    name: str
    inner: list[Node] = []


@dataclass
class Point:
    x: float
    y: float = 0
    tags: list[str] = field(default_factory=list)


class Film(TypedDict):
    """A film."""

    title: str
    year: NotRequired[int]


class Colour(enum.Enum):
    RED = "red"


class Left(Struct, tag="left"):
    a: int


class Right(Struct, tag="right"):
    b: int


STEP = {
    "title": "Step",
    "type": "object",
    "properties": {"do": {"type": "string"}, "minutes": {"type": "integer", "minimum": 0}},
    "required": ["do", "minutes"],
    "additionalProperties": False,
}


def asked(kind: Any) -> Output:  # noqa: ANN401 (any type)
    output = with_output({"output": kind})["output"]  # type: ignore[typeddict-item]
    assert isinstance(output, Output)
    return output


# --- what is asked for ---------------------------------------------------------------------------


def test_a_struct_is_asked_for_with_all_its_fields_and_no_others() -> None:
    output = asked(Recipe)
    assert (output.name, output.description, output.strict) == ("Recipe", "A recipe for one dish.", None)
    schema: Any = dict(output.schema)
    assert schema["properties"]["steps"] == {"type": "array", "items": {"$ref": "#/$defs/Step"}}
    assert schema["required"] == ["title", "steps"]  # `note` has no default: it may be missing
    assert schema["additionalProperties"] is False
    assert schema["$defs"] == {"Step": STEP}


def test_a_dataclass_and_a_typed_dict() -> None:
    output = asked(Point)
    assert (output.name, output.description) == ("Point", "")
    assert output.schema["required"] == ["x", "y", "tags"]
    output = asked(Film)
    assert (output.name, output.description) == ("Film", "A film.")
    assert output.schema["required"] == ["title"]


def test_a_type_that_holds_itself() -> None:
    output: Any = asked(Node)
    assert output.schema["type"] == "object"
    assert output.schema["properties"]["inner"] == {"type": "array", "items": {"$ref": "#/$defs/Node"}}
    assert output.schema["$defs"]["Node"]["required"] == ["name", "inner"]


@pytest.mark.parametrize(
    ("kind", "inner"),
    [
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (int, {"type": "integer"}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (list[Step], {"type": "array", "items": {"$ref": "#/$defs/Step"}}),
    ],
)
def test_what_is_no_object_stands_in_one(kind: object, inner: object) -> None:
    output = asked(kind)
    assert output.name == "answer"
    assert output.schema["properties"] == {"value": inner}
    assert (output.schema["type"], output.schema["required"]) == ("object", ["value"])
    assert output.schema["additionalProperties"] is False
    assert output.description == ""


def test_a_dict_is_an_object() -> None:
    assert asked(dict[str, int]).schema == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_what_is_no_type_stays() -> None:
    output = Output(schema={"type": "object"})
    options: list[RequestOptions] = [{}, {"output": None}, {"output": output}]
    assert [with_output(each) for each in options] == options
    with pytest.raises(RequestError, match=r"output"):
        scripted_model(text_events("x")).stream("x", output="Recipe")  # type: ignore[arg-type]


class Inner(Struct):
    call: Callable[[int], int]


class Outer(Struct):
    fine: int
    parts: dict[str, Inner] | None = None


class Ring(Struct):
    inner: Ring | None
    others: list[Ring]
    call: Callable[[int], int]


@dataclass
class Unreadable:
    call: Callable[[int], int]
    other: NoSuchType  # type: ignore[name-defined]  # noqa: F821 (that is the point)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (Outer, r"Outer\.parts\[\]\.call"),
        (list[Outer], r"list\[\]\.parts\[\]\.call"),
        (Ring, r"Ring\.call"),
        (Callable[[], int], "Callable"),
        (Unreadable, "Unreadable"),
        (object(), None),
    ],
)
def test_a_type_that_json_cannot_say_is_refused_with_its_path(kind: object, path: str | None) -> None:
    if path is None:
        assert with_output({"output": kind})["output"] is kind  # type: ignore[typeddict-item]
        return
    with pytest.raises(RequestError, match=rf"output: {path} is of a type that no answer can have \(.*\): use types"):
        asked(kind)


def test_a_type_is_read_once() -> None:
    assert Expected.of(Recipe) is Expected.of(Recipe)
    unhashable = Annotated[int, Meta(extra_json_schema={"title": "Age"})]
    assert Expected.of(unhashable).output.schema["properties"] == {"value": {"type": "integer", "title": "Age"}}


@pytest.mark.anyio
async def test_a_default_of_the_model_counts() -> None:
    model = scripted_model(text_events("{}"), output=Recipe)
    await model.complete("x")
    assert model.requests[0].output == asked(Recipe)


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Recipe, '{"title": "x"}', Recipe("x")),
        (Point, ' {"x": 1} ', Point(1)),
        (Film, '{"title": "x", "year": 1927}', {"title": "x", "year": 1927}),
        (Node, '{"name": "a", "inner": [{"name": "b"}]}', Node("a", [Node("b")])),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (list[int], "[1, 2]", [1, 2]),
        (int, '{"value": 7}', 7),
        (date, '{"value": "2024-02-29"}', date(2024, 2, 29)),
        (Colour, '{"value": "red"}', Colour.RED),
        (dict[str, int], '{"value": 1}', {"value": 1}),
        (Left | Right, '{"value": {"type": "right", "b": 2}}', Right(2)),
        (Left | Right, '{"type": "left", "a": 2}', Left(2)),
        (None | int, '{"value": null}', None),
    ],
)
def test_a_whole_text_is_read(kind: Any, text: str, value: object) -> None:  # noqa: ANN401 (any type)
    assert Expected.of(kind).decode(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (Recipe, '{"title": 3}', r"\$\.title: expected str, got int"),
        (
            Recipe,
            '{"title": "", "steps": [{"do": "", "minutes": -1}]}',
            r"\$\.steps\[0\]\.minutes: expected int >= 0",
        ),
        (list[int], '{"value": "x"}', r"\$\.value: expected array, got str"),
        (list[int], '{"values": []}', r"\$: object contains unknown field values"),
        (Recipe, "Sure!", r"it is no JSON \("),
        (Recipe, "", r"it is no JSON \("),
        (Recipe, "[" * 300, rf"nests deeper than {MAX_DEPTH}"),
    ],
)
def test_what_does_not_fit_is_typed_with_its_place(kind: Any, text: str, words: str) -> None:  # noqa: ANN401 (any type)
    with pytest.raises(InvalidOutput, match=words):
        Expected.of(kind).decode(text)


def test_pydantic_models_are_read_by_their_own_rules() -> None:
    pydantic = pytest.importorskip(
        "pydantic", reason="NOT TESTED: pydantic is missing; to test it: pip install '.[test]'"
    )
    dish = pydantic.create_model("Dish", name=(str, ...), courses=(list[int], [1]))
    output: Any = asked(dish)
    assert (output.name, output.schema["required"]) == ("Dish", ["name", "courses"])
    expected: Expected[Any] = Expected.of(dish)
    assert expected.decode('{"name": "x"}') == dish(name="x")
    with pytest.raises(InvalidOutput, match=r"\$: name: Field required"):
        expected.decode("{}")


# --- values while they come ----------------------------------------------------------------------

PIECES = ('{"title": "Pan', "cakes", '", "st', 'eps": [{"do": "mix", "minutes": 1', "5", "}", "]}")


@pytest.mark.anyio
async def test_values_grow_and_the_last_one_is_checked() -> None:
    model = scripted_model(text_events(*PIECES))
    async with model.stream("cook", output=Recipe) as stream:
        seen: list[tuple[object, bool]] = [
            (copy.deepcopy(partial.value), partial.is_whole) async for partial in stream.objects(Recipe)
        ]
    steps = [{"do": "mix", "minutes": 15}]
    assert seen == [
        ({"title": "Pan"}, False),
        ({"title": "Pancakes"}, False),
        ({"title": "Pancakes", "steps": [{"do": "mix"}]}, False),
        ({"title": "Pancakes", "steps": steps}, False),
        ({"title": "Pancakes", "steps": steps}, True),
    ]


@pytest.mark.anyio
async def test_the_final_value_is_of_the_type() -> None:
    model = scripted_model(text_events(*PIECES))
    partials: list[Partial[Recipe]] = []
    async with model.stream("cook", output=Recipe) as stream:
        async for partial in stream.objects(Recipe):
            partials.append(partial)
            if not partial.is_whole:
                with pytest.raises(UsageError, match=r"partial\.is_whole"):
                    _ = partial.final
    assert partials[-1].final == Recipe("Pancakes", [Step("mix", 15)])
    assert partials[0].value is partials[-1].value  # it has grown in place
    assert repr(partials[-1]).endswith(", whole)")


@pytest.mark.anyio
async def test_the_stream_asks_for_the_type_where_the_request_does_not() -> None:
    model = scripted_model(text_events('{"value": [1, 2', "]}"))
    async with model.stream("count") as stream:
        seen = [copy.copy(partial.value) async for partial in stream.objects(list[int])]
    assert seen == [[1], [1, 2], [1, 2]]
    assert model.requests[0].output == asked(list[int])


@pytest.mark.anyio
async def test_a_request_with_an_output_of_its_own_keeps_it() -> None:
    own = Output(schema={"type": "object"}, strict=False)
    model = scripted_model(text_events('{"title": "x"}'))
    async with model.stream("cook", output=own) as stream:
        assert [partial.is_whole async for partial in stream.objects(Recipe)] == [False, True]
    assert model.requests[0].output == own


@pytest.mark.anyio
async def test_a_reset_begins_again() -> None:
    events: list[Event] = [
        *text_events('{"title": "wro')[:3],
        Notice("reset"),
        Start(),
        TextStart(0, choice=1),
        TextDelta(0, "No."),
        TextEnd(0),
        *(TextStart(1), TextDelta(1, '{"title": "right"}'), TextEnd(1)),
        Stop("end_turn"),
    ]
    async with scripted_model(events).stream("x") as stream:
        seen = [partial.value async for partial in stream.objects(Recipe)]
    assert seen == [{"title": "wro"}, {"title": "right"}, {"title": "right"}]


@pytest.mark.anyio
async def test_the_last_value_is_whole_whoever_took_the_pieces_before() -> None:
    async with scripted_model(text_events('{"title": ', '"x"}')).stream("cook") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        (last,) = [partial async for partial in stream.objects(Recipe)]
    assert (last.value, last.final) == ({"title": "x"}, Recipe("x"))


@pytest.mark.anyio
async def test_the_last_value_is_there_where_the_model_left_the_wrapping_out() -> None:
    async with scripted_model(text_events('{"type": "left", "a": 2}')).stream("cook") as stream:
        (last,) = [partial async for partial in stream.objects(Left | Right)]  # type: ignore[arg-type]
    assert (last.value, last.final) == ({"type": "left", "a": 2}, Left(2))


@pytest.mark.anyio
async def test_bad_json_ends_it_at_once() -> None:
    model = scripted_model(text_events('{"title": "x"', ", oops", "}"))
    async with model.stream("cook", output=Recipe) as stream:
        objects = stream.objects(Recipe)
        await anext(objects)
        with pytest.raises(InvalidOutput, match=r"at character 15 \('oops'\): expected a name") as caught:
            await anext(objects)
        with pytest.raises(StopAsyncIteration):
            await anext(objects)
    assert caught.value.partial is not None
    assert caught.value.partial.text == '{"title": "x", oops'
    assert model.open_streams == 0


@pytest.mark.anyio
async def test_json_of_another_form_is_typed_at_the_end() -> None:
    async with scripted_model(text_events('{"name": "x"}')).stream("cook", output=Recipe) as stream:
        objects = stream.objects(Recipe)
        assert (await anext(objects)).value == {"name": "x"}
        with pytest.raises(InvalidOutput, match=r"does not fit: \$: object missing required field title") as caught:
            await anext(objects)
        with pytest.raises(StopAsyncIteration):
            await anext(objects)
    error = caught.value
    assert (error.provider, error.model, error.committed) == ("scripted", "scripted-model", True)
    assert error.partial == stream.response
    assert error.attempts[0].outcome == "InvalidOutput"


# --- asking --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_extract_gives_the_value() -> None:
    model = scripted_model(text_events('{"title": "x"}'))
    assert await model.extract("cook", Recipe, max_tokens=7) == Recipe("x")
    (request,) = model.requests
    assert (request.output, request.max_tokens) == (asked(Recipe), 7)


@pytest.mark.anyio
async def test_an_answer_that_does_not_fit_goes_back_once_with_its_error() -> None:
    model = scripted_model(text_events('{"title": 3}'), text_events('{"title": "3"}'))
    assert await model.extract("cook", Recipe) == Recipe("3")
    first, second = model.requests
    assert second.messages[0] == first.messages[0]
    assert second.messages[1].text == '{"title": 3}'
    assert second.messages[2].role == "user"
    assert "does not fit: $.title: expected str, got int. Give the whole answer again" in second.messages[2].text
    assert second.output == first.output


@pytest.mark.anyio
async def test_an_empty_answer_is_not_sent_back() -> None:
    model = scripted_model([Start(), Stop("end_turn")], text_events('{"title": "3"}'))
    assert await model.extract("cook", Recipe) == Recipe("3")
    assert [message.role for message in model.requests[1].messages] == ["user", "user"]


@pytest.mark.anyio
@pytest.mark.parametrize("repair", [0, 1, 2])
async def test_after_the_last_repair_it_is_typed(repair: int) -> None:
    model = scripted_model(text_events('{"title": 3}'))
    with pytest.raises(InvalidOutput, match="expected str, got int") as caught:
        await model.extract("cook", Recipe, repair=repair)
    assert len(model.requests) == repair + 1
    assert caught.value.partial is not None
    assert caught.value.partial.text == '{"title": 3}'


@pytest.mark.anyio
@pytest.mark.parametrize("repair", ["2", -1, 1.5, True, None])
async def test_what_is_no_number_of_repairs(repair: Any) -> None:  # noqa: ANN401 (what it must not be)
    model = scripted_model(text_events('{"title": "x"}'))
    with pytest.raises(RequestError, match="give how many times"):
        await model.extract("cook", Recipe, repair=repair)
    assert model.requests == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("max_tokens", "cut at max_tokens: raise the limit"),
        ("context_window", "context window"),
        ("content_filter", "policy cut the answer"),
        ("refusal", "refused"),
        ("pause", "paused"),
    ],
)
async def test_what_was_cut_or_refused_is_never_repaired(reason: StopReason, words: str) -> None:
    events: list[Event] = [*text_events('{"title": "x"}')[:-1], Stop(reason)]
    model = scripted_model(events)
    with pytest.raises(InvalidOutput, match=words) as caught:
        await model.extract("cook", Recipe)
    assert len(model.requests) == 1
    assert caught.value.partial is not None
    assert caught.value.partial.stop == Stop(reason)


@pytest.mark.anyio
async def test_a_refusal_in_words_is_told() -> None:
    model = scripted_model([Start(), RefusalDelta(0, "I would rather not."), Stop("end_turn")])
    with pytest.raises(InvalidOutput, match=r"the model refused to answer: I would rather not\."):
        await model.extract("cook", Recipe)
    assert len(model.requests) == 1


@pytest.mark.anyio
async def test_a_call_of_a_tool_is_no_answer() -> None:
    model = scripted_model(tool_call_events("get_weather"))
    with pytest.raises(InvalidOutput, match=r"calls tools \(get_weather\)"):
        await model.extract("cook", Recipe)
    assert len(model.requests) == 1


def test_a_response_that_was_not_read_to_its_end() -> None:
    with pytest.raises(InvalidOutput, match="read the stream to its end"):
        whole(Expected.of(Recipe), Response())


@pytest.mark.anyio
async def test_the_error_of_a_stream_passes() -> None:
    model = scripted_model([Start(), ls.StreamTruncated("cut")])
    with pytest.raises(ls.StreamTruncated):
        await model.extract("cook", Recipe)


@pytest.mark.anyio
async def test_a_real_model_has_it_too() -> None:
    text = '{"title": "x"}'
    frame = msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": text}}]}).decode()
    body = f'data: {frame}\n\ndata: {{"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'.encode()
    async with ls.testing.replay_model("openai", body, output=Film) as model:
        assert await model.extract("cook", Recipe) == Recipe("x")
        async with model.stream("cook") as stream:
            assert [each.is_whole async for each in stream.objects(Film)] == [False, True]
