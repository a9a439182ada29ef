"""A tool made of a function: what the model is told of it, its arguments checked, its result as text.

Contract: `tool` raises `RequestError` for what cannot be a tool. `FunctionTool.answer` makes an error for the model of
whatever goes wrong with a call, and passes cancellation on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

import msgspec
from msgspec.structs import replace

from loomstream.errors import InvalidArguments, LoomstreamError, RequestError, UsageError
from loomstream.kind_names import kind_of
from loomstream.messages import Message, ResultContent, Text, Tool, ToolCall, ToolResult
from loomstream.tools import docstring
from loomstream.tools.run import Function, run
from loomstream.tools.schema import decode_hook, encode_hook, reason, shape, words_of
from loomstream.wire.json import MAX_DEPTH, depth_exceeds

_P = ParamSpec("_P")
_Q = ParamSpec("_Q")
_R = TypeVar("_R")


class FunctionTool(Generic[_P, _R]):
    """A function that a model may call. `tool` makes it; call it and the function is called, as if it were bare.

    `function` is that function, `name`, `description` and `parameters` (JSON Schema) are what a model is told. One that
    was made in a class's body is, as an attribute of an instance, the tool of the bound method.
    """

    def __init__(self, function: Callable[_P, _R], *, name: str = "", description: str | None = None) -> None:
        _check(function)
        self.function: Callable[_P, _R] = function
        own_name = name or _name_of(function)
        self._receiver = _receiver(function)  # the parameter that an instance fills; empty where none is missing
        plain = cast("Function", function)
        kind, parameters = shape(partial(plain, **{self._receiver: None}) if self._receiver else plain, own_name)
        told = docstring.parse(_doc_of(function)).summary if description is None else description
        self._tool = Tool(own_name, told, parameters)
        self._decoder = msgspec.json.Decoder(kind, dec_hook=decode_hook)
        self.__doc__ = _doc_of(function)
        self.__name__ = own_name
        self.__wrapped__ = function

    @property
    def __loomstream_tool__(self) -> Tool:
        """What a request takes of it. Raises `RequestError` for a method that is bound to no instance."""
        self._check_bound()
        return self._tool

    @overload
    def __get__(self, instance: None, owner: type[object], /) -> Self: ...
    @overload
    def __get__(
        self: FunctionTool[Concatenate[Any, _Q], _R], instance: object, owner: type[object] | None = None, /
    ) -> FunctionTool[_Q, _R]: ...
    def __get__(self, instance: object | None, owner: type[object] | None = None, /) -> object:
        if instance is None or not self._receiver:
            return self
        bound = cast("FunctionTool[..., _R]", object.__new__(type(self)))
        vars(bound).update(vars(self))
        bound.function = bound.__wrapped__ = partial(cast("Callable[..., _R]", self.function), instance)
        bound._receiver = ""  # noqa: SLF001 (another of this class)
        return bound

    def _check_bound(self) -> None:
        if self._receiver:
            msg = (
                f"{self.name}: the parameter {self._receiver} has no type: "
                f"make the tool of the bound method, as in tool(instance.{self.name}); "
                f"of a method that is a tool already, give instance.{self.name}"
            )
            raise RequestError(msg)

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self._tool.name

    @property
    def description(self) -> str:
        """What the model is told of it."""
        return self._tool.description

    @property
    def parameters(self) -> dict[str, object]:
        """What it takes, as the JSON Schema of an object."""
        return dict(self._tool.parameters)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<FunctionTool {self.name}>"

    def decode(self, arguments: str) -> dict[str, object]:
        """Give a call's arguments by name, each of its parameter's type; those that have defaults may be absent.

        An empty text is an empty object. Types are strict (no number in a text's place), but an integer may stand for
        a float. Raises `InvalidArguments`, which says where (`$.city: expected str, got int`), and `RequestError` for a
        method that is bound to no instance.
        """
        self._check_bound()
        data = mended(arguments).encode().strip() or b"{}"
        if depth_exceeds(data):
            msg = f"{self.name}: the arguments nest deeper than {MAX_DEPTH}"
            raise InvalidArguments(msg)
        try:
            struct = self._decoder.decode(data)
        except Exception as error:
            msg = f"{self.name}: {reason(error) or f'the arguments are no JSON ({error})'}"
            raise InvalidArguments(msg) from error
        values = ((name, cast("object", getattr(struct, name))) for name in struct.__struct_fields__)
        return {name: value for name, value in values if value is not msgspec.UNSET}

    async def call(self, arguments: str) -> str:
        """Run the function with a call's arguments, and give its result as text: a str as it is, others as JSON.

        A function that is not asynchronous runs in a worker thread. Raises `InvalidArguments`, `RequestError` for a
        result that is no JSON, and what the function raises.
        """
        result = await run(cast("Function", self.function), self.decode(arguments))
        return self._text_of(result)

    async def answer(self, call: ToolCall) -> Message:
        """Run a call of the model, and give the turn that answers it. It never raises for what the call says.

        Wrong arguments, what the function raises (its class and message) and a result that is no JSON become a tool
        error, which the model reads; so does a call that is not `executable`, which is not run. A function may give
        a `Text`, an `Image`, a `Document`, or a list or tuple of them. Raises `UsageError` for a call of another tool.
        """
        if call.name != self.name:
            msg = f"a call of {call.name!r} was given to the tool {self.name!r}: choose the tool by call.name"
            raise UsageError(msg)
        if not call.executable:
            return _answer(call, (Text("not run: the call was cut before its arguments were whole"),), is_error=True)
        try:
            return _answer(call, await self.content(self.decode(call.arguments)))
        except Exception as error:  # noqa: BLE001 (a tool may raise anything; the model is told)
            return _answer(call, (Text(told(error)),), is_error=True)

    async def content(self, values: Mapping[str, object]) -> tuple[ResultContent, ...]:
        """Run the function with the values that `decode` gave, and give its result as blocks for the model.

        Raises `RequestError` for a result that is no JSON, and what the function raises.
        """
        result = await run(cast("Function", self.function), values)
        blocks = _blocks(result) or (Text(self._text_of(result)),)
        return tuple(replace(block, text=mended(block.text)) if isinstance(block, Text) else block for block in blocks)

    def _text_of(self, result: object) -> str:
        if isinstance(result, str):
            return result
        try:
            return msgspec.json.encode(result, enc_hook=encode_hook).decode()
        except Exception as error:
            problem = f"{self.name} gave {kind_of(result)}, which JSON cannot write ({words_of(error)})"
            msg = f"{problem}: return a str, or plain values"
            raise RequestError(msg) from error


def told(error: BaseException) -> str:
    """Give what a model is told of an error: of ours its words, of any other its class too."""
    words = words_of(error)
    return mended(words if isinstance(error, LoomstreamError) else f"{type(error).__name__}: {words}")


def mended(words: str) -> str:
    """Give a text that JSON can hold: half a character (a lone surrogate, as file names may have) becomes U+FFFD."""
    return words if words.isascii() else words.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _answer(call: ToolCall, content: tuple[ResultContent, ...], *, is_error: bool = False) -> Message:
    return Message("tool", (ToolResult(call.id, content, is_error=is_error, name=call.name),))


def _blocks(result: object) -> tuple[ResultContent, ...]:
    items = tuple(cast("list[object] | tuple[object, ...]", result)) if isinstance(result, list | tuple) else (result,)
    whole = bool(items) and all(isinstance(item, ResultContent) for item in items)
    return cast("tuple[ResultContent, ...]", items) if whole else ()


def _check(function: object) -> None:
    if not callable(function) or isinstance(function, type):
        kind = "a class" if isinstance(function, type) else kind_of(function)
        msg = f"a tool cannot be made of {function!r}, {kind}: give a function"
        raise RequestError(msg)


def _receiver(function: object) -> str:
    """Give the name of a method's first parameter, where it is a plain function that is bound to nothing."""
    inner = inspect.unwrap(function) if inspect.isfunction(function) else None
    if not inspect.isfunction(inner) or not inner.__code__.co_argcount:
        return ""
    first = inner.__code__.co_varnames[0]
    return first if first == "self" or (first == "cls" and first not in inner.__annotations__) else ""


def _name_of(function: object) -> str:
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    name = cast("str", getattr(function, "__name__", "") or type(function).__name__)
    if not name.isidentifier():
        msg = f"a tool cannot be called {name}: give it a name, as in tool(function, name='get_weather')"
        raise RequestError(msg)
    return name


def _doc_of(function: object) -> str:
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    if inspect.isroutine(function):
        return inspect.getdoc(function) or ""
    call = getattr(type(function), "__call__", None)  # noqa: B004 (its words are asked for)
    return getattr(call, "__doc__", None) or type(function).__doc__ or ""


@overload
def tool(function: Callable[_P, _R], /, *, name: str = "", description: str | None = None) -> FunctionTool[_P, _R]: ...
@overload
def tool(*, name: str = "", description: str | None = None) -> Callable[[Callable[_P, _R]], FunctionTool[_P, _R]]: ...
def tool(function: Callable[..., Any] | None = None, /, *, name: str = "", description: str | None = None) -> Any:
    """Make a tool of a function, as `@tool`, `@tool(name=…, description=…)` or `tool(function)`.

    Its schema comes from the type hints (str, int, float, bool, None, list, tuple, set, dict, unions, `Literal`, Enum,
    `Annotated` with a description or `msgspec.Meta`, dataclasses, TypedDict, msgspec Structs, pydantic models), what
    the model is told from the docstring: its first paragraph, and its parameters in Google's, numpy's or reST's style.

    Methods, `functools.partial` and objects with `__call__` are functions too. `name` defaults to the function's own.

    Raises `RequestError` for what is no function, and for a parameter that a model cannot fill.
    """
    if function is None:
        return partial(FunctionTool[..., Any], name=name, description=description)
    return FunctionTool(function, name=name, description=description)
