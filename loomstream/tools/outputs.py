"""Answers of a type: the type as an `Output`, its values while they come, and the whole one, checked.

Contract: `with_output` puts a request's `Output` in the place of a type; `objects` reads a stream, `extract` asks a
model. Types are those of tools' parameters: msgspec Structs, dataclasses, TypedDicts, pydantic models, lists, dicts,
unions, plain values. A type whose JSON is no object stands in one, as its member `value`, for providers demand an
object; what is given to the user is the bare value. Only `RequestError`, for a type, and `InvalidOutput`, for an
answer, are raised here. No provider is known, nor any way of asking: that is `loomstream.adapt.output`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache, partial
from types import GenericAlias, UnionType
from typing import Any, Generic, NewType, Protocol, Self, TypeVar, Unpack, cast, get_args, get_origin, get_type_hints

import msgspec
import msgspec.inspect
from msgspec import Struct

from loomstream.dialects.schemas import rewritten
from loomstream.errors import Attempt, InvalidOutput, RequestError, UsageError
from loomstream.events import Event, Start, StopReason, TextDelta, TextStart
from loomstream.messages import Message, Output, Prompt, RequestOptions, Response, to_messages, user
from loomstream.tools import docstring
from loomstream.tools.function import mended
from loomstream.tools.partial import PartialJSON
from loomstream.tools.schema import JSONObject, decode_hook, reason, type_schema
from loomstream.wire.json import MAX_DEPTH, depth_exceeds

_T = TypeVar("_T")

WRAPPED = "value"
"""The member that holds a value whose JSON is no object."""

_NAME = "answer"
_LONGEST_NAME = 64
_NO_NAME_CHARS = re.compile(r"[^A-Za-z0-9_-]+")
_TYPES_KEPT = 256
_PLAIN: tuple[object, ...] = (str, int, float, bool, bytes, list, dict, tuple, set, frozenset, object, type(None))
"""Types whose names and words say nothing of an answer."""


def with_output(options: RequestOptions) -> RequestOptions:
    """Give the options with an `Output` in the place of a type under `output`.

    What is no type stays as it is, for `loomstream.messages.make_request` to judge. Raises `RequestError` for a type
    that JSON Schema cannot say, with the path to the field.
    """
    given = cast("Mapping[str, object]", options).get("output")
    if given is None or not _is_type(given):
        return options
    return {**options, "output": Expected.of(given).output}


def _is_type(value: object) -> bool:
    named = isinstance(value, type | GenericAlias | UnionType | NewType)
    return named or get_origin(value) is not None


# --- the type ------------------------------------------------------------------------------------


class Expected(Generic[_T]):
    """A type as it is asked for (`output`), and as it is read (`decode`, `member`)."""

    __slots__ = ("_bare", "_decoder", "_wrapped", "output")

    def __init__(self, kind: type[_T]) -> None:
        try:
            schema = rewritten(type_schema(kind), partial(_closed, frozenset(_made(kind))))
            self._bare = msgspec.json.Decoder(kind, dec_hook=decode_hook)  # not all that has a schema can be decoded
        except Exception as error:  # types may write their own schema, and fail in any way
            raise _inexpressible(kind, error) from error
        self._wrapped = schema.get("type") != "object"
        self._decoder = msgspec.json.Decoder(_wrapper(kind), dec_hook=decode_hook) if self._wrapped else None
        self.output = Output(
            schema=_wrap(schema) if self._wrapped else schema, name=_name_of(kind), description=_words_of(kind)
        )

    @staticmethod
    def of(kind: object) -> Expected[Any]:
        """Give what a type asks for, made once for each type. Raises `RequestError` where JSON Schema cannot say it."""
        try:
            return _kept(kind)
        except TypeError:  # a type that holds something mutable has no hash
            return Expected(cast("type[Any]", kind))

    def decode(self, text: str) -> _T:
        """Give the value that a whole text holds. Raises `InvalidOutput`, which says what does not fit and where."""
        data = mended(text).encode().strip()
        if depth_exceeds(data):
            msg = f"the JSON nests deeper than {MAX_DEPTH}"
            raise InvalidOutput(msg)
        try:
            return self._decoded(data)
        except Exception as error:
            words = reason(error) or f"it is no JSON ({error})"
            raise InvalidOutput(words) from error

    def _decoded(self, data: bytes) -> _T:
        if self._decoder is None:
            return self._bare.decode(data)
        try:
            return cast("_T", getattr(self._decoder.decode(data), WRAPPED))
        except msgspec.DecodeError:
            if self._is_bare(data):
                return self._bare.decode(data)
            raise

    def _is_bare(self, data: bytes) -> bool:
        """Say whether the model left the wrapping out, which does no harm."""
        try:
            self._bare.decode(data)
        except Exception:  # noqa: BLE001 (the error of the wrapped form is raised)
            return False
        return True

    def member(self, reader: PartialJSON) -> tuple[bool, object]:
        """Say whether a value has begun, and give it as far as it came."""
        value = reader.value
        if not self._wrapped or not isinstance(value, dict):
            return reader.begun, value
        members = cast("JSONObject", value)
        return WRAPPED in members, members.get(WRAPPED)


@lru_cache(_TYPES_KEPT)
def _kept(kind: object) -> Expected[Any]:
    return Expected(cast("type[Any]", kind))


def _wrapper(kind: object) -> type[Struct]:
    return msgspec.defstruct("Wrapped", [(WRAPPED, kind)], forbid_unknown_fields=True)


def _wrap(schema: JSONObject) -> JSONObject:
    inner = {keyword: part for keyword, part in schema.items() if keyword != "$defs"}
    outer: JSONObject = {
        "type": "object",
        "properties": {WRAPPED: inner},
        "required": [WRAPPED],
        "additionalProperties": False,
    }
    return {**outer, "$defs": schema["$defs"]} if "$defs" in schema else outer


def _made(kind: object) -> Iterator[tuple[str, str]]:
    """Give the fields whose default is made by a function, each behind its class's name: schemas do not tell them."""
    seen: set[int] = set()
    left: list[object] = [msgspec.inspect.type_info(kind)]
    while left:
        each = left.pop()
        if isinstance(each, tuple):
            left += cast("tuple[object, ...]", each)
        elif isinstance(each, msgspec.inspect.Type | msgspec.inspect.Field):
            if id(each) not in seen:  # one that holds itself comes back
                left += (getattr(each, name) for name in each.__struct_fields__)
            seen.add(id(each))
        if isinstance(each, msgspec.inspect.StructType | msgspec.inspect.DataclassType):
            made = (field for field in each.fields if field.default_factory is not msgspec.NODEFAULT)
            yield from ((each.cls.__name__, field.encode_name) for field in made)


def _closed(made: AbstractSet[tuple[str, str]], schema: JSONObject) -> JSONObject:
    """Ask for every field that has a default too, and for no others: strict modes of providers know nothing else.

    A field that may be missing and has no default (`NotRequired`, `UNSET`) stays optional.
    """
    properties = cast("dict[str, JSONObject] | None", schema.get("properties"))
    if schema.get("type") != "object" or not properties:
        return schema
    required = set(cast("list[str]", schema.get("required", [])))
    title = cast("str", schema.get("title", ""))
    required |= {name for name, part in properties.items() if "default" in part or (title, name) in made}
    plain = {
        name: {keyword: value for keyword, value in part.items() if keyword != "default"}
        for name, part in properties.items()
    }
    return {
        "additionalProperties": False,
        **schema,
        "properties": plain,
        "required": [name for name in properties if name in required],
    }


def _name_of(kind: object) -> str:
    named = isinstance(kind, type) and not isinstance(kind, GenericAlias) and kind not in _PLAIN
    name = kind.__name__ if isinstance(kind, type) and named else _NAME
    return _NO_NAME_CHARS.sub("_", name).strip("_")[:_LONGEST_NAME] or _NAME


def _words_of(kind: object) -> str:
    """Give the first paragraph of a class's own docstring; the one that dataclasses make says nothing new."""
    words = cast("str | None", vars(kind).get("__doc__")) if isinstance(kind, type) else None
    if not words or kind in _PLAIN or words.startswith(f"{_name_of(kind)}("):
        return ""
    return docstring.parse(words).summary


# --- types that JSON Schema cannot say -----------------------------------------------------------


def _inexpressible(kind: object, error: Exception) -> RequestError:
    name = getattr(kind, "__name__", str(kind))
    path, culprit = _culprit(kind, name, [kind]) or (name, kind)
    words = str(error if culprit is kind else _fault(culprit)).replace("\n", " ")
    remedy = "use types that JSON can say, such as str, int, list[str], Literal, a dataclass or a TypedDict"
    return RequestError(f"output: {path} is of a type that no answer can have ({words}): {remedy}")


def _culprit(kind: object, path: str, seen: list[object]) -> tuple[str, object] | None:
    """Give the innermost place, and its type, that is the fault of the whole; None where all faults are of types seen.

    A type that holds itself is no fault: what else it holds may be one.
    """
    faulty = [(place, inner) for place, inner in _parts(kind) if _fault(inner) is not None]
    for place, inner in faulty:
        if inner not in seen:
            seen.append(inner)
            found = _culprit(inner, path + place, seen)
            if found is not None:
                return found
    return None if faulty else (path, kind)


def _parts(kind: object) -> Iterator[tuple[str, object]]:
    """Give the types that a type is made of, each with its place."""
    place = "[]" if isinstance(get_origin(kind), type) and not isinstance(kind, UnionType) else ""
    for inner in get_args(kind):
        if _is_type(inner):
            yield place, inner
    if not any(hasattr(kind, mark) for mark in _FIELDED):
        return
    try:
        hints = get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 (a hint that is a text may be any code: then the type as a whole is told)
        return
    for name, hint in hints.items():
        yield f".{name}", hint


_FIELDED = ("__struct_fields__", "__dataclass_fields__", "__total__", "model_json_schema")
"""What types with fields have: Structs, dataclasses, TypedDicts, pydantic models."""


def _fault(kind: object) -> Exception | None:
    try:
        type_schema(kind)
        msgspec.json.Decoder(cast("type[Any]", kind), dec_hook=decode_hook)
    except Exception as error:  # noqa: BLE001 (it is told)
        return error
    return None


# --- whole answers -------------------------------------------------------------------------------

_UNFINISHED: dict[StopReason, str] = {
    "max_tokens": "the answer was cut at max_tokens: raise the limit",
    "context_window": "the answer was cut at the end of the model's context window: shorten the prompt",
    "content_filter": "the provider's policy cut the answer",
    "refusal": "the model refused to answer",
    "pause": "the provider paused: send the conversation again to go on",
}
"""Ends after which an answer is not whole, whatever its text is."""


def whole(expected: Expected[_T], response: Response) -> _T:
    """Give the value that an answer holds. Raises `InvalidOutput` for one that does not fit, was cut, or refused."""
    unfinished = _unfinished(response)
    if unfinished:
        raise _invalid(unfinished, response)
    try:
        return expected.decode(response.text)
    except InvalidOutput as error:
        raise _invalid(_misfit(error), response) from error


def _unfinished(response: Response) -> str:
    """Say why there is nothing to read; empty where the answer is one."""
    if response.stop is None:
        return "the answer is not whole: read the stream to its end"
    words = _UNFINISHED.get(response.stop.reason, "")
    if response.refusal and not response.text:
        words = f"{_UNFINISHED['refusal']}: {response.refusal}"
    if not words and response.tool_calls:
        names = ", ".join(call.name for call in response.tool_calls)
        words = f"the answer calls tools ({names}) and is not the last one: send their results, as an agent does"
    return words


def _misfit(error: InvalidOutput) -> str:
    return f"the answer does not fit: {error.message}"


def _invalid(words: str, response: Response) -> InvalidOutput:
    """Give the error as a stream would give it."""
    error = InvalidOutput(words, provider=response.provider, model=response.model, request_id=response.request_id)
    error.partial, error.usage, error.committed = response, response.usage, True
    error.attempts = (Attempt(response.provider, response.model, InvalidOutput.__name__),)
    return error


# --- values while they come ----------------------------------------------------------------------


class Partial(Generic[_T]):
    """An answer of a type, as far as it came.

    `value` is plain JSON: dicts, lists, texts, numbers. Members that have not come are absent, an open text is given as
    far as it came, a number when it is whole. It grows in place: what you keep of it goes on to grow, `copy.deepcopy`
    holds it still. `is_whole` says that the answer is over and fits; then `final` is the value of your type.
    """

    __slots__ = ("_final", "is_whole", "value")

    def __init__(self, value: Any, final: tuple[_T] | None = None) -> None:  # noqa: ANN401 (JSON of any form)
        self.value: Any = value
        self.is_whole = final is not None
        self._final = final

    @property
    def final(self) -> _T:
        """The checked value. Raises `UsageError` before the answer `is_whole`."""
        if self._final is None:
            msg = "the answer is not whole: read on until partial.is_whole, or take partial.value"
            raise UsageError(msg)
        return self._final[0]

    def __repr__(self) -> str:
        return f"Partial({self.value!r}{', whole' if self.is_whole else ''})"


class Answer(Protocol):
    """A stream, as far as its reading is concerned."""

    def __anext__(self) -> Awaitable[Event]:
        """Give the next event."""
        ...

    @property
    def response(self) -> Response:
        """What has been delivered so far."""
        ...


class Objects(Generic[_T]):
    """The values of a stream; a class, because an async generator that is left early would have to be closed."""

    __slots__ = ("_ended", "_expected", "_reader", "_shown", "_stream")

    def __init__(self, stream: Answer, kind: type[_T]) -> None:
        self._stream = stream
        self._expected: Expected[_T] = Expected.of(kind)
        self._ended = False
        self._begin()

    @property
    def output(self) -> Output:
        """What a request is to ask for."""
        return self._expected.output

    def _begin(self) -> None:
        self._shown: set[int] = set()
        self._reader = PartialJSON()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Partial[_T]:
        while not self._ended:
            try:
                event = await self._stream.__anext__()
            except StopAsyncIteration:
                self._ended = True
                return self._last()
            match event:
                case Start():  # after a reset everything begins again
                    self._begin()
                case TextStart(index=index, choice=0):
                    self._shown.add(index)
                case TextDelta(index=index, text=text) if index in self._shown and self._grows(text):
                    begun, value = self._expected.member(self._reader)
                    if begun:
                        return Partial(value)
                case _:
                    pass
        raise StopAsyncIteration

    def _grows(self, text: str) -> bool:
        try:
            return self._reader.feed(text)
        except InvalidOutput as error:
            self._ended = True
            raise _invalid(_misfit(error), self._stream.response) from error

    def _last(self) -> Partial[_T]:
        response = self._stream.response
        final = whole(self._expected, response)
        begun, value = self._expected.member(self._read_whole(response.text))
        return Partial(value if begun else self._reader.value, (final,))

    def _read_whole(self, text: str) -> PartialJSON:
        """Give the reader of the whole text; it reads again what others have taken from the stream."""
        try:
            self._reader.finish()
        except InvalidOutput:
            self._reader = PartialJSON()
            self._reader.feed(text)
            self._reader.finish()
        return self._reader


# --- asking --------------------------------------------------------------------------------------


class Completes(Protocol):
    """A model, as far as whole answers are concerned."""

    def complete(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Awaitable[Response]:
        """Give the whole answer."""
        ...


async def extract(
    model: Completes, prompt: Prompt, kind: type[_T], *, repair: int = 1, **options: Unpack[RequestOptions]
) -> _T:
    """Ask a model for a value of a type; `loomstream.Model.extract` says how."""
    _check_repair(repair)
    expected: Expected[_T] = Expected.of(kind)
    asked: RequestOptions = {**options, "output": options.get("output") or expected.output}
    messages = to_messages(prompt)
    left = repair
    while True:
        response = await model.complete(messages, **asked)
        try:
            return whole(expected, response)
        except InvalidOutput as error:
            if left < 1 or _unfinished(response):
                raise
            messages = (*messages, *_correction(response, error))
            left -= 1


def _check_repair(repair: object) -> None:
    if not isinstance(repair, int) or isinstance(repair, bool) or repair < 0:
        msg = f"repair is {repair!r}: give how many times a wrong answer may be sent back, a whole number from 0"
        raise RequestError(msg)


def _correction(response: Response, error: InvalidOutput) -> Iterator[Message]:
    """Give the answer back with what is wrong about it."""
    if response.message.content:
        yield response.message
    yield user(f"{error.message}. Give the whole answer again, corrected: only the JSON, in the same form.")
