"""Tools from functions, answers of types: schemas from type hints and docstrings, decoding, running of calls.

Contract: `tool` makes a `FunctionTool`, which stands wherever a `loomstream.Tool` does; `with_tools` makes one of each
bare function among a request's options, `with_output` an `Output` of a type there. Nothing here knows models, streams
or providers, but as what can be read or asked; only `run` calls functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from loomstream.messages import AsTool, RequestOptions, Tool
from loomstream.tools.function import FunctionTool, tool
from loomstream.tools.outputs import Partial, with_output

__all__ = ("FunctionTool", "Partial", "tool", "with_output", "with_tools")


def with_tools(options: RequestOptions) -> RequestOptions:
    """Give the options with a `FunctionTool` in the place of each bare function under `tools`.

    What is no function stays as it is, for `loomstream.messages.check_options` to judge. Raises `RequestError` for a
    function of which no tool can be made.
    """
    given = cast("Mapping[str, object]", options).get("tools")
    if given is None or not isinstance(given, Iterable):
        return options
    tools = [_as_tool(item) for item in cast("Iterable[object]", given)]
    return {**options, "tools": cast("list[Tool | AsTool]", tools)}


def _as_tool(item: object) -> object:
    if isinstance(item, Tool | AsTool) or not callable(item):
        return item
    return tool(item)
