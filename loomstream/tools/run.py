"""Running a function with decoded arguments.

Contract: an asynchronous function runs in the caller's task, any other in a worker thread, so that it holds up no
stream. What the function raises comes out as it is, cancellation included.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import cast

import anyio.to_thread

Function = Callable[..., object]


async def run(function: Function, arguments: Mapping[str, object]) -> object:
    """Call the function and give its result.

    A cancelled caller does not wait for a worker thread, which nothing can stop: the function goes on to its end there.
    """
    if _is_asynchronous(function):
        return await cast("Awaitable[object]", function(**arguments))
    call = partial(_boxed, function, arguments)
    (result,) = await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    return await cast("Awaitable[object]", result) if inspect.isawaitable(result) else result


def _is_asynchronous(function: Function) -> bool:
    while isinstance(function, partial):
        function = cast("Function", function.func)
    call = cast("object", getattr(function, "__call__", None))  # noqa: B004 (the method itself is asked for)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _boxed(function: Function, arguments: Mapping[str, object]) -> tuple[object]:
    """Call the function; trio takes no coroutine from a worker thread, but for one in a box."""
    return (function(**arguments),)
