"""What every model does by its `stream`: give whole answers and typed values, and close at the end of an `async with`.

Contract: here is only what is the same for a connected model, a joined and a scripted one. It knows none of them, and
no provider.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self, TypeVar, Unpack

from loomstream.messages import Prompt, RequestOptions, Response
from loomstream.stream import Stream
from loomstream.tools.outputs import extract

_T = TypeVar("_T")


class Asking(ABC):
    """A model, as far as `stream` and `aclose` are all that is needed of it."""

    @abstractmethod
    def stream(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Stream:
        """Give the stream of an answer; nothing is sent before it is read."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close what the model has open; safe to call again."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def complete(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Response:
        """Give the whole answer: the same pipeline, collected. Raises what iterating a stream raises."""
        async with self.stream(prompt, **options) as stream:
            return await stream.collect()

    async def extract(
        self, prompt: Prompt, kind: type[_T], *, repair: int = 1, **options: Unpack[RequestOptions]
    ) -> _T:
        """Give the answer as a value of a type, checked.

        The type is a msgspec Struct, dataclass, TypedDict, pydantic model, list, dict, union or plain type. An answer
        that does not fit is sent back with what is wrong about it, at most `repair` times; one that was cut or refused
        is not. The response itself, and its cost, are those of `stream(…, output=kind)` and `Stream.objects`.

        Raises `RequestError` for a type that JSON Schema cannot say and a `repair` that is no whole number from 0,
        `InvalidOutput` for an answer that does not fit, was cut or refused (it is the error's `partial`), and what
        iterating a stream raises.
        """
        return await extract(self, prompt, kind, repair=repair, **options)
